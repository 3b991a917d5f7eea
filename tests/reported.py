"""A small store of runs for the tests of pages: two methods, seeds and folds, one name that tries to be markup."""

import json

import numpy as np

from bench.runs.execute import tags_of, title_of
from bench.scores.jackknife import intervals
from bench.scores.metrics import evaluate
from bench.spec import RunSpec, SplitSpec
from bench.tracking.results import Predictions
from bench.tracking.tracker import Tracker

EVIL = '<script>alert(1)</script>&"x'
LONG = [
    "a class of sixty characters, as folders of captures may have",
    "W" * 60,
    "https-video_streaming-" + "of_a_site-" * 4,
]
CLASSES = ["chat", "<b>mail</b>", *LONG]
PARTED = {"train": 40, "validation": 0, "test": 12}


def results_folder(tmp_path_factory):
    """The folder with the store and what other commands left in it, made once for all test files."""
    results = tmp_path_factory.getbasetemp() / "reported"
    if not results.exists():
        tracker = Tracker(results, f"sqlite:///{results / 'mlflow.db'}")
        for fold in range(3):
            record(tracker, RunSpec("forest", "traffic", "app", capture(fold)), fold)
            record(tracker, RunSpec("majority", "traffic", "app", capture(fold)), fold + 9)
        for seed in (0, 1):
            spec = RunSpec("atvitsc", "traffic", "app", SplitSpec("session", seed=seed), {"epochs": 2})
            record(tracker, spec, seed, epochs=4)
        record(tracker, RunSpec("forest", EVIL, EVIL, SplitSpec("paper", max_per_class=9)), 5)
        record(tracker, RunSpec("knn", "traffic", "app"), 6, status="failed")
        write_others(results)
    return results


def capture(fold):
    return SplitSpec("capture", fold=fold, folds=3)


def record(tracker, spec, seed, epochs=0, status="done"):
    """One run with all that a page reads, of random answers."""
    random = np.random.default_rng(seed)
    run = tracker.start(spec, title_of(spec), tags_of(spec))
    if status != "done":
        run.end(status, "ValueError: <i>nothing</i>")
        return
    truth = random.integers(0, len(CLASSES), 60)
    answers = random.dirichlet(np.ones(len(CLASSES)), 60).astype(np.float32)
    answers[0] = np.nan
    scores = evaluate(truth, answers, CLASSES)
    ends = intervals(truth, answers.argmax(axis=1), np.arange(60), classes=len(CLASSES))
    metrics = scores.metrics() | {"seconds": 1.5, "seconds_fit": 1.25, "peak_memory_bytes": 2e8}
    for number, side in enumerate(("low", "high")):
        metrics |= {f"{name}_{side}": pair[number] for name, pair in ends.items()}
    metrics |= {"interval_groups": 12.0, "interval_groups_total": 60.0}
    run.metrics(metrics)
    for epoch in range(epochs):
        run.curve(epoch + 1, {"epoch/loss": 1 / (epoch + 1), "epoch/validation_macro_f1": epoch / epochs})
    result = {
        "spec": spec.to_dict(),
        "metrics": metrics,
        "scores": scores.to_dict(),
        "parameters": dict(spec.parameters),
        "deviations": ["<em>silent</em> about everything"],
        "environment": {"python": "3", "packages": {"torch": "2"}, "commit": None},
        "split": {"samples": {"train": 200, "test": 60}, "groups": {"train": 9, "test": 4}, "shared_conversations": 3,
                  "test_in_training_conversations": 3, "classes": {name: PARTED for name in CLASSES}},
    }  # fmt: skip
    rows = np.arange(60)
    kept = Predictions(CLASSES, rows, np.zeros_like(rows), truth, rows, answers)
    with run.artefacts() as folder:
        (folder / "result.json").write_text(json.dumps(result))
        kept.save(folder / "predictions.npz")
    run.end("done")


def write_others(results):
    """What `bench reproduce --save` leaves."""
    folder = results / "reproduced" / "table-VI"
    folder.mkdir(parents=True)
    sheet = {
        "title": "Table VI", "head": ["method", "published"], "rows": [["atvitsc", "0.9 <u>"]], "notes": ["<u>one</u>"],
        "records": [], "empty": "nothing", "more": {}, "id": "table-VI", "command": "bench reproduce table-VI",
    }  # fmt: skip
    (folder / "sheet.json").write_text(json.dumps(sheet))
    (folder / "figure.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20"><script>alert(2)</script>'
        '<rect width="40" height="20" fill="red"/></svg>'
    )
