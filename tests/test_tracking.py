"""The store of runs, on one database for all tests."""

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from refusals import refused

from bench.runs.results import Predictions
from bench.runs.tracking import Tracker
from bench.spec import RunSpec


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return Tracker(tmp_path_factory.getbasetemp() / "results")  # that of test_runs.py: making one takes seconds


def begin(tracker, **fields):
    spec = RunSpec.from_dict({"method": "majority", "dataset": "tracked", "task": "service"} | fields)
    return spec, tracker.start(spec, spec.name, {"leaky": "true"})


def test_a_run_is_found_when_done_and_only_then(tracker):
    spec, run = begin(tracker)
    assert tracker.finished(spec.digest) is None
    run.metrics({"macro_f1": 0.5, "f1/a class, odd!": float("nan")})
    run.end("done")
    found = tracker.finished(spec.digest)
    assert (found.run_id, found.status, found.leaky, found.digest) == (run.run_id, "done", True, spec.digest)
    assert found.metrics["macro_f1"] == 0.5 and np.isnan(found.metrics["f1/a class_ odd_"])
    assert tracker.finished("0" * 16) is None


@pytest.mark.parametrize("status", ["failed", "skipped", "killed"])
def test_other_ends_are_remembered_but_not_finished(tracker, status):
    spec, run = begin(tracker, task=status)
    run.end(status, "because")
    assert tracker.finished(spec.digest) is None
    assert [(r.status, r.reason) for r in tracker.search(task=status)] == [(status, "because")]


def test_many_curve_points_and_parameters_go_in_batches(tracker):
    _, run = begin(tracker, seed=50)
    run.parameters({f"p{n}": n for n in range(150)})
    for step in range(700):
        run.curve(step, {"step/loss": 1.0, "step/alpha": step / 700})
    run.end("done")
    history = tracker._client.get_metric_history(run.run_id, "step/alpha")
    assert [m.step for m in history] == list(range(700))
    assert len(tracker._client.get_run(run.run_id).data.params) == 150


def test_search_filters_and_keeps_the_best_of_a_digest(tracker):
    _, first = begin(tracker, method="forest", seed=3)
    first.end("done")
    _, second = begin(tracker, method="forest", seed=3)
    second.end("failed", "later")
    _, other = begin(tracker, method="forest", seed=4)
    other.end("done")
    found = tracker.search(dataset="tracked", method="forest")
    assert [r.run_id for r in found] == [first.run_id, other.run_id]
    assert len(tracker.search(dataset="tracked", method="forest", latest=False)) == 3
    assert [r.spec.split.seed for r in tracker.search(dataset="tracked", method=["forest", "knn"], seed=4)] == [4]
    assert tracker.search(method="nothing") == []


def test_artefacts_come_back_also_after_the_folder_moved(tracker, tmp_path_factory):
    _, run = begin(tracker, seed=60)
    rows = np.arange(4)
    made = Predictions(["a", "b"], rows, rows, rows % 2, rows, np.full((4, 2), 0.5, np.float32))
    with run.artefacts() as folder:
        made.save(folder / "predictions.npz")
    run.end("done")
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "results"
    shutil.copytree(tracker.results, elsewhere)
    there = tracker.load(run.run_id)
    shutil.rmtree(there.folder)
    copied = Tracker(elsewhere).load(run.run_id[:10])
    assert copied.folder.is_relative_to(elsewhere)
    loaded = copied.predictions()
    assert loaded.classes == ["a", "b"]
    np.testing.assert_array_equal(loaded.probabilities, made.probabilities)


@pytest.mark.parametrize("asked", ["", "zz", "0" * 32])
def test_unknown_and_ambiguous_ids_are_refused(tracker, asked):
    begin(tracker, seed=70)
    with refused("unknown-run"):
        tracker.load(asked)


def test_a_run_without_artefacts_says_what_to_do(tracker):
    _, run = begin(tracker, seed=71)
    run.end("failed", "x")
    record = tracker.load(run.run_id)
    for ask in (record.predictions, record.result):
        with refused("missing-artefact", "--rerun"):
            ask()


def test_a_study_is_taken_up_again_and_its_trials_are_nested(tracker):
    spec = RunSpec("majority", "tracked", "service")
    with tracker.study("s", spec) as study, study.trial(0, {"packets": 4}) as log:
        log({"validation_macro_f1": 0.3})
    with pytest.raises(ZeroDivisionError), tracker.study("s", spec) as again, again.trial(1, {"packets": 9}):
        raise ZeroDivisionError("oh")
    assert again.run_id == study.run_id
    experiment = tracker._experiment(spec)
    trials = tracker._client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{study.run_id}'")
    told = {t.data.params["packets"]: (t.info.status, t.data.tags["reason"]) for t in trials}
    assert told == {"4": ("FINISHED", ""), "9": ("FAILED", "ZeroDivisionError: oh")}
    assert all(r.run_id != study.run_id for r in tracker.search())


def test_the_environment_names_the_store(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'own.db'}")
    assert Tracker(tmp_path / "results").uri.endswith("own.db")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "nonsense://x"])
def test_a_store_that_mlflow_refuses_is_one_line(uri, tmp_path):
    if uri.startswith("file") and tuple(map(int, version("mlflow").split(".")[:2])) < (3, 17):
        pytest.skip("this MLflow still keeps runs in files")
    with refused("storage-failed"):
        Tracker(tmp_path, uri=uri).search()


def test_a_new_store_is_made_without_a_word(tmp_path):
    code = (
        f"from pathlib import Path; from bench.runs.tracking import Tracker; Tracker(Path({str(tmp_path)!r})).search()"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def test_artefacts_lie_beside_a_database_that_is_given(tracker, tmp_path):
    begin(tracker, seed=60)[1].end("done")
    shutil.copy(tracker.results / "mlflow.db", tmp_path / "runs.db")
    other = Tracker(tmp_path / "results", f"sqlite:///{tmp_path / 'runs.db'}")
    _, run = begin(other, dataset="elsewhere")
    with run.artefacts() as folder:
        (folder / "note.txt").write_text("here")
    run.end("done")
    assert list((tmp_path / "artifacts").rglob("note.txt")) and not (tmp_path / "results").exists()


def test_a_curve_comes_back_in_the_order_of_its_steps(tracker):
    _, run = begin(tracker, seed=77)
    run.curve(2, {"step/loss": 0.5})
    run.curve(1, {"step/loss": 1.0, "epoch/accuracy": 0.25})
    run.end("done")
    steps, values = tracker.curve(run.run_id, "step/loss")
    assert steps.tolist() == [1, 2] and values.tolist() == [1.0, 0.5]
    assert len(tracker.curve(run.run_id, "step/none")[0]) == 0
