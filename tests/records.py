"""Runs as the store of runs gives them, made by hand."""

import numpy as np

from bench.runs.tracking import Predictions, Record


def record(method, f1, *, seed=0, fold=None, folds=None, status="done", reason="", interval=None, folder=None, **more):
    spec = {
        "method": method, "dataset": "demo", "task": "service", "split": "session", "seed": seed, "fold": fold,
        "folds": folds, "parameters": more.pop("parameters", {}), "max_per_class": more.pop("max_per_class", None),
        "store": "0f", "split_file": None, "split_digest": None, "source": None,
    }  # fmt: skip
    spec |= {key: more.pop(key) for key in ("dataset", "task", "split") if key in more}
    metrics = {} if f1 is None else {n: f1 for n in ("accuracy", "macro_precision", "macro_recall", "macro_f1")}
    metrics |= {"abstentions": more.pop("abstentions", 0.0), "seconds": 12.34} if metrics else {}
    if interval:
        metrics |= {"macro_f1_low": interval[0], "macro_f1_high": interval[1]}
    run_id = f"{method}-{seed}-{fold}"
    spec["digest"] = run_id
    return Record(run_id, status, reason, spec, metrics, folder=folder, **more)


def answered(folder, correct, *, truth=None, session=None):
    """A run's folder whose predictions are right where ``correct``."""
    truth = np.arange(len(correct)) % 2 if truth is None else truth
    answers = np.where(correct, truth, 1 - truth)
    session = np.arange(len(correct)) if session is None else session
    folder.mkdir()
    made = Predictions(["a", "b"], session, 0 * session, truth, session // 2, np.eye(2, dtype=np.float32)[answers])
    made.save(folder / "predictions.npz")
    return folder
