"""The diagram of mean ranks is the same file whatever order this process draws for sets of texts."""

import os
import re
import subprocess
import sys

LABELS = ("forest", "knn 1", "a (b)", "c_d", "e", "f")
DRAW = """
import sys
from pathlib import Path
import numpy as np
from bench.render.plots import draw_critical_difference

scores = np.random.default_rng(0).normal([[0, 0.1, 0.2, 0.9, 1.0, 1.1]], 0.2, (9, 6))
draw_critical_difference(scores, sys.argv[2:], "title", Path(sys.argv[1]))
"""


def test_the_diagram_hangs_on_its_numbers_alone(tmp_path):
    for seed in ("1", "2"):
        words = [sys.executable, "-c", DRAW, str(tmp_path / f"{seed}.svg"), *LABELS]
        subprocess.run(words, check=True, env=os.environ | {"PYTHONHASHSEED": seed})
    one, two = ((tmp_path / f"{seed}.svg").read_bytes() for seed in ("1", "2"))
    assert one == two
    found = set(re.findall(r">([^<>]*\(\d\.\d\)[^<>]*)<", one.decode()))
    assert {re.sub(r" ?\(\d\.\d\) ?", "", text) for text in found} == set(LABELS)
