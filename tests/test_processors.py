"""The same answers on other processors: what an estimator answers must not hang on how a machine sorts ties."""

import json
import os
import subprocess
import sys

import pytest

METHODS = ("ports", "first-bytes", "knn", "forest", "histgb", "logreg", "appscanner", "bind")
ASKED = """
import json, sys
import bench

outcomes = bench.run(sys.argv[2:], "demo", bench.SplitSpec("session", max_per_class=60), results=sys.argv[1])
tracker = bench.Tracker(sys.argv[1])
answers = {one.spec.method: tracker.load(one.run_id).predictions().probabilities.argmax(1).tolist() for one in outcomes}
print(json.dumps(answers))
"""


@pytest.mark.slow
def test_estimators_answer_alike_whatever_the_processor_can(tmp_path):
    import numpy as np
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    faster = " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name))
    if not faster:
        pytest.skip("this processor has nothing that NumPy could do without")
    machines = ({}, {"NPY_DISABLE_CPU_FEATURES": faster, "OPENBLAS_CORETYPE": "Nehalem"})
    answers = []
    for number, settings in enumerate(machines):
        words = [sys.executable, "-c", ASKED, str(tmp_path / str(number)), *METHODS]
        done = subprocess.run(words, env=os.environ | settings, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout.splitlines()[-1]))
    assert set(answers[0]) == set(METHODS)
    differ = {name: int((np.array(answers[0][name]) != answers[1][name]).sum()) for name in METHODS}
    assert not any(differ.values()), differ
