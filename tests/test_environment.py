"""What a run says about its machine."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np

from bench.environment import _revision, cores, environment, peak_memory, reset_peak_memory


def test_environment_is_json_and_names_versions():
    told = environment("cpu")
    json.dumps(told)
    assert told["packages"]["numpy"] == np.__version__ and told["python"] == platform.python_version()
    assert told["device"] == "cpu" and told["cores"] == cores() >= 1 and told["threads"] >= 1


def test_the_commit_is_the_checkouts():
    _revision.cache_clear()
    root = Path(__file__).parents[1]
    asked = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True)
    assert environment("cpu")["commit"] == (asked.stdout.strip() or None)


def test_torch_is_not_imported():
    code = "import sys; from bench.environment import environment; environment('cpu'); print('torch' in sys.modules)"
    root = Path(__file__).parents[1]
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=root) == "False\n"


def test_peak_memory_sees_what_is_gone_again():
    reset_peak_memory()
    before = peak_memory()
    block = np.ones(64 << 20, np.uint8)
    del block
    assert peak_memory() - before > 50 << 20
