"""Runs as the store of runs gives them, made by hand."""

import dataclasses
import json

import numpy as np

from bench.files import file_sha256
from bench.spec import RunSpec, SplitSpec
from bench.tracking.record import Record
from bench.tracking.results import Predictions


class Recorded(dict):
    """Digests of a run's files as they are when they are asked for: a run that nobody changed."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def __bool__(self):
        return True

    def get(self, name, default=None):
        return file_sha256(self.folder / name)


def record(method, f1, *, seed=0, fold=None, folds=None, status="done", reason="", interval=None, folder=None, **more):
    place = {name: more.pop(name, usual) for name, usual in (("dataset", "demo"), ("task", "service"))}
    folds = folds if fold is None else folds or 5
    split = SplitSpec(more.pop("split", "session"), seed, fold, folds, more.pop("max_per_class", None))
    spec = RunSpec(method, **place, split=split, parameters=more.pop("parameters", {}), store="0f")
    groups = more.pop("groups", (9.0, 40.0))  # behind the interval; None: a run of an earlier version
    metrics = {} if f1 is None else {n: f1 for n in ("accuracy", "macro_precision", "macro_recall", "macro_f1")}
    metrics |= {"abstentions": more.pop("abstentions", 0.0), "seconds": 12.34} if metrics else {}
    if interval:
        metrics |= {"macro_f1_low": interval[0], "macro_f1_high": interval[1]}
        metrics |= {} if groups is None else {"interval_groups": groups[0], "interval_groups_total": groups[1]}
    run_id = f"{method}-{seed}-{fold}"
    return Record(run_id, status, reason, spec, metrics, folder=folder, **{"files": Recorded(folder), **more})


def answered(folder, correct, *, truth=None, session=None, each=2):
    """A run's folder whose predictions are right where ``correct``, with ``each`` sessions a group."""
    truth = np.arange(len(correct)) % 2 if truth is None else truth
    answers = np.where(correct, truth, 1 - truth)
    session = np.arange(len(correct)) if session is None else session
    folder.mkdir()
    made = Predictions(["a", "b"], session, 0 * session, truth, session // each, np.eye(2, dtype=np.float32)[answers])
    made.save(folder / "predictions.npz")
    return folder


def write_result(folder, **split):
    """A ``result.json`` of which only the split matters."""
    scores = {
        "classes": ["a", "b"],
        "sessions": 2,
        "abstentions": 0,
        "per_class": {},
        "confusion": [[1, 0, 0], [0, 1, 0]],
    }
    scores |= dict.fromkeys(
        ("accuracy", "macro_precision", "macro_recall", "macro_f1", "calibration_error", "brier"), 1.0
    )
    spec = {"method": "m", "dataset": "d", "task": "t"}
    plain = {"spec": spec, "metrics": {}, "scores": scores, "parameters": {}, "deviations": [], "environment": {}}
    (folder / "result.json").write_text(json.dumps(plain | {"split": split}))


def of_spec(record, **fields):
    """The same run with another specification, by the fields of its JSON."""
    return dataclasses.replace(record, spec=RunSpec.from_dict(record.spec.to_dict() | fields))
