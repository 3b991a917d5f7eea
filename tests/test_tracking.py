"""The store of runs, on one database for all tests."""

import contextlib
import dataclasses
import json
import shutil
import sqlite3
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from records import write_result
from refusals import refused

from bench.files import file_sha256
from bench.method import Monitor, Part
from bench.runs.models import fitted
from bench.spec import RunSpec
from bench.tracking.address import Address
from bench.tracking.database import Ending, complete, rows_of, rows_of_server
from bench.tracking.record import Record
from bench.tracking.results import Predictions
from bench.tracking.tracker import Tracker
from bench.tracking.writing import experiment_in
from methods.majority import Majority


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
    run.metrics({"macro_f1": 0.5, "f1/a class, odd!": float("nan"), "loss": -float("inf")})
    run.end("done")
    found = tracker.finished(spec.digest)
    assert (found.run_id, found.status, found.leaky, found.digest) == (run.run_id, "done", True, spec.digest)
    assert found.metrics["macro_f1"] == 0.5 and np.isnan(found.metrics["f1/a class_ odd_"])
    assert found.metrics["loss"] == -float("inf")  # MLflow keeps its largest number
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


def kept(tracker, **fields):
    """A run that is done, with all files that a run leaves."""
    _, run = begin(tracker, task="kept", **fields)
    with run.artefacts() as folder:
        rows = np.arange(4)
        answers = np.full((4, 2), 0.5, np.float32)
        Predictions(["a", "b"], rows, rows, rows % 2, rows, answers).save(folder / "predictions.npz")
        write_result(folder, samples={"test": 4})
        Majority(classes=2).fit(Part({}, rows % 2), Part({}, rows[:0]), Monitor()).save(made(folder / "model"))
    run.end("done")
    return tracker.load(run.run_id)


def made(folder):
    folder.mkdir()
    return folder


LOADERS = {"predictions.npz": Record.predictions, "result.json": Record.result, "model/method.json": fitted}


def test_every_file_of_a_run_has_its_digest_in_the_record(tracker):
    record = kept(tracker, seed=80)
    there = {path.relative_to(record.folder).as_posix() for path in record.folder.rglob("*") if path.is_file()}
    assert record.files.keys() == there and len(there) == 4
    assert record.files["result.json"] == file_sha256(record.folder / "result.json")
    assert record.predictions().classes == ["a", "b"] and record.result().split.samples == {"test": 4}
    assert fitted(record).name == "majority"
    record.check()


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "made before"])
@pytest.mark.parametrize("damage", [lambda text: text[:40], lambda text: b"", lambda text: b"[]"])
def test_a_damaged_file_is_one_line_with_the_run(tracker, name, recorded, damage):
    record = kept(tracker, seed=81)
    if not recorded:
        record = dataclasses.replace(record, files={})
    path = record.folder / name
    path.write_bytes(damage(path.read_bytes()))
    with refused("run-damaged", record.run_id[:8], "--rerun") as caught:
        LOADERS[name](record)
    assert record.run_id not in str(caught.value).replace(str(path), "")


@pytest.mark.parametrize("name", LOADERS)
def test_what_this_machine_lacks_is_no_damage_of_a_run(tracker, name, monkeypatch):
    def lacks(*given, **named):
        raise ModuleNotFoundError("No module named 'numpy.more'", name="numpy.more")

    record = kept(tracker, seed=84)
    for reader in ("methods.majority.Majority.load", "bench.tracking.record.Predictions.load",
                   "bench.tracking.record.RunResult.load"):  # fmt: skip
        monkeypatch.setattr(reader, lacks)
    with pytest.raises(ModuleNotFoundError):
        LOADERS[name](record)


def test_a_changed_file_that_reads_well_is_refused_where_its_digest_is_known(tracker):
    record = kept(tracker, seed=82)
    result = record.folder / "result.json"
    result.write_text(result.read_text().replace('"macro_f1": 1.0', '"macro_f1": 0.9'))
    for ask in (record.result, record.check):
        with refused("run-damaged", record.run_id[:8], result, record.files["result.json"][:16]):
            ask()
    assert dataclasses.replace(record, files={}).result().scores.macro_f1 == 0.9  # nothing to hold it against
    (record.folder / "model" / "more.json").write_text("{}")  # a file that the run did not write
    with refused("run-damaged", "more.json", "recorded none"):
        fitted(record)
    (record.folder / "model" / "more.json").unlink()
    (record.folder / "model" / "frequencies.json").rename(record.folder / "model" / "x")
    with refused("run-damaged", "frequencies.json", "gone"):
        fitted(record)


def test_a_record_that_cannot_be_read_is_one_line(tracker, tmp_path):
    record = kept(tracker, seed=83)
    shutil.copy(tracker.results / "mlflow.db", tmp_path / "mlflow.db")
    other = Tracker(tmp_path)
    spec = record.spec.to_dict()
    wrong = {"parameters": [1], "method": 5, "seed": [1], "dataset": None, "task": {}, "split": 3}
    texts = [json.dumps(spec | {name: value}) for name, value in wrong.items()]
    for text in ("{", "[]", "{}", "[" * 2000, *texts):
        other._client.set_tag(record.run_id, "bench.spec", text)
        with refused("run-damaged", record.run_id[:8], "record"):
            other.load(record.run_id)
    other._client.set_tag(record.run_id, "bench.spec", json.dumps(spec))
    assert other.load(record.run_id).spec == record.spec


@pytest.mark.parametrize(
    "change",
    ["insert into latest_metrics (key, value, timestamp, step, is_nan, run_uuid) values ('x', 'abc', 0, 0, 0, '{run}')",
     "update runs set start_time = 'x'", "update runs set end_time = 'x'",
     "update runs set start_time = 9000000000000000000", "update runs set end_time = -9000000000000000000",
     "update tags set value = null where key = 'file.000'"],
)  # fmt: skip
def test_a_database_with_wrong_cells_is_one_line(tracker, tmp_path, change):
    record = kept(tracker, seed=85)
    shutil.copy(tracker.results / "mlflow.db", tmp_path / "mlflow.db")
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute(change.format(run=record.run_id))
    database.close()
    with refused("run-damaged", record.run_id[:8], "record"):
        Tracker(tmp_path).load(record.run_id)


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
    experiment = tracker._experiment("bench/tracked/service")
    trials = tracker._client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{study.run_id}'")
    told = {t.data.params["packets"]: (t.info.status, t.data.tags["reason"]) for t in trials}
    assert told == {"4": ("FINISHED", ""), "9": ("FAILED", "ZeroDivisionError: oh")}
    assert all(r.run_id != study.run_id for r in tracker.search())


def test_processes_share_a_study_s_run_and_the_last_closes_it(tracker, tmp_path):
    spec = RunSpec("majority", "tracked", "service")
    other = Tracker(tracker.results, tracker.address.uri)
    with tracker.study("shared", spec) as study:
        with pytest.raises(KeyboardInterrupt), other.study("shared", spec) as same, same.trial(0, {"packets": 4}):
            raise KeyboardInterrupt
        assert same.run_id == study.run_id
        assert tracker._client.get_run(study.run_id).info.status == "RUNNING"
        with contextlib.suppress(ZeroDivisionError), study.trial(1, {"packets": 9}):
            study.close_trial(1)
    assert tracker._client.get_run(study.run_id).info.status == "FINISHED"
    assert not tracker.claims.holders()


def test_the_environment_names_the_store(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'own.db'}")
    assert Tracker(tmp_path / "results").address.uri.endswith("own.db")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "nonsense://x"])
def test_a_store_that_mlflow_refuses_is_one_line(uri, tmp_path):
    if uri.startswith("file") and tuple(map(int, version("mlflow").split(".")[:2])) < (3, 17):
        pytest.skip("this MLflow still keeps runs in files")
    with refused("storage-failed"):
        Tracker(tmp_path, uri=uri).search()


def test_a_store_that_is_not_there_is_read_as_empty_and_not_made(tmp_path):
    assert Tracker(tmp_path / "none").search() == [] and not (tmp_path / "none").exists()


def test_a_new_store_is_made_without_a_word(tmp_path):
    code = (
        "from bench.spec import RunSpec; from bench.tracking.tracker import Tracker\n"
        f"Tracker({str(tmp_path)!r}).start(RunSpec('majority', 'tracked', 'service'), 'one', {{}}).end('done')"
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


def test_rows_are_those_that_mlflow_itself_finds(tracker):
    _, run = begin(tracker, dataset="rows", seed=1)
    run.metrics({"macro_f1": 0.25, "nothing": float("nan")})
    run.curve(3, {"step/loss": 0.5})
    run.parameters({"packets": 4})
    run.end("done")
    begin(tracker, dataset="rows", seed=2)
    asked = rows_of(tracker._engine), rows_of_server(tracker._client)
    ours, theirs = ({row.run_id: row for row in rows} for rows in asked)
    assert ours.keys() == theirs.keys() and len(ours) > 2
    for run_id, row in ours.items():
        same = theirs[run_id]
        assert (row.name, row.status, row.started, row.ended) == (same.name, same.status, same.started, same.ended)
        assert row.tags.items() <= same.tags.items() and row.artefacts == same.artefacts
        np.testing.assert_equal(row.metrics, same.metrics)
    assert [row.started for row in asked[0]] == sorted((row.started for row in asked[1]), reverse=True)


def left(tracker, dataset, engine):
    """A run with numbers of every kind, ended in SQL or as a server is told, as MLflow's own client reads it."""
    _, run = begin(tracker, dataset=dataset)
    run._target = dataclasses.replace(run._target, engine=engine)
    run.metrics({"macro_f1": 0.25, "nothing": float("nan"), "all": float("inf"), "none": -float("inf")})
    for step in (1, 2, 2, 3):
        run.curve(step, {"step/loss": 1 / step})
    run.flush()
    run.curve(4, {"step/loss": 2.0, "step/late": 1.0})
    run.parameters({"packets": 4, "text": "ä" * 30})
    with run.artefacts() as folder:
        (folder / "model").mkdir()
        (folder / "model" / "run.json").write_text("not ours")
    run.end("failed", "because")
    there = tracker._client.get_run(run.run_id)
    history = {name: tracker._client.get_metric_history(run.run_id, name) for name in there.data.metrics}
    points = {name: sorted((point.step, point.value) for point in one) for name, one in history.items()}
    tags = {key: value for key, value in there.data.tags.items() if not key.startswith("bench.")} | {"dataset": ""}
    files = {path.name for path in tracker.load(run.run_id).folder.rglob("*") if path.is_file()}
    return (
        (there.info.status, there.info.end_time is not None, files),
        there.data.metrics,
        points,
        there.data.params,
        tags,
    )


def test_a_run_ends_in_sql_as_it_ends_through_mlflow(tracker):
    ours, theirs = left(tracker, "ended-in-sql", tracker._engine), left(tracker, "ended-by-client", None)
    np.testing.assert_equal(ours, theirs)
    assert ours[0] == ("FAILED", True, {"run.json"}) and ours[1]["step/loss"] == 2.0


def test_a_run_that_somebody_removed_is_not_ended(tracker):
    with pytest.raises(LookupError):
        complete(tracker._engine, "0" * 32, Ending([], {}, {}, "FINISHED", None))


def test_artefacts_on_another_file_system_are_copied(tracker, monkeypatch):
    def refuse(*_):
        raise OSError("another file system")

    monkeypatch.setattr("os.link", refuse)
    _, run = begin(tracker, dataset="copied")
    with run.artefacts() as folder:
        (folder / "note.txt").write_text("here")
    run.end("done")
    assert (tracker.load(run.run_id).folder / "note.txt").read_text() == "here"


def test_curves_of_a_run_are_read_at_once_without_mlflow(tracker, monkeypatch):
    _, run = begin(tracker, seed=78)
    for step in (2, 1):
        run.curve(step, {"epoch/loss": 1 / step, "epoch/nothing": float("nan")})
    run.end("done")
    reader = Tracker(tracker.results, tracker.address.uri)
    found = reader.curves(run.run_id, ["epoch/loss", "epoch/nothing", "epoch/none"])
    assert {name: steps.tolist() for name, (steps, _) in found.items()} == {
        "epoch/loss": [1, 2], "epoch/nothing": [1, 2], "epoch/none": []
    }  # fmt: skip
    assert found["epoch/loss"][1].tolist() == [1.0, 0.5] and np.isnan(found["epoch/nothing"][1]).all()
    assert "_client" not in vars(reader)


def test_one_question_for_many_digests(tracker):
    specs = []
    for seed in range(3):
        spec, run = begin(tracker, dataset="many", seed=seed)
        specs.append(spec)
        run.end("failed" if seed == 1 else "done")
    found = tracker.finished_of([spec.digest for spec in specs] + ["0" * 16])
    assert found.keys() == {specs[0].digest, specs[2].digest}
    by_server = rows_of_server(tracker._client, digests=[spec.digest for spec in specs])
    assert len(by_server) == 3 and len(rows_of_server(tracker._client, digests=[specs[1].digest])) == 1


class Away:
    """A store that has gone away: nothing of it is to be had."""

    def __getattr__(self, name):
        raise ConnectionError("no route to postgresql://me:secret@host")


@pytest.mark.parametrize("begun_again", [False, True])
def test_a_run_whose_store_goes_away_waits_beside_it_and_is_logged_later(tracker, monkeypatch, begun_again):
    monkeypatch.setattr("bench.tracking.writing.WAITS", (0.0,))
    spec, run = begin(tracker, dataset="away", seed=int(begun_again))
    run._target = dataclasses.replace(run._target, client=Away(), engine=Away())
    run.curve(1, {"step/loss": 0.5})
    run.metrics({"macro_f1": 0.75})
    run.parameters({"packets": 4})
    with run.artefacts() as folder:
        (folder / "note.txt").write_text("found")
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_text("1 2 3")
    with refused("storage-failed", tracker.results / "pending", "bench sync") as caught:
        run.end("done")
    assert "secret" not in str(caught.value)
    assert tracker.finished(spec.digest) is None
    if begun_again:
        tracker._client.delete_run(run.run_id)
    assert Tracker(tracker.results).sync() == [spec.name]
    record = tracker.load(tracker.finished(spec.digest).run_id)
    assert record.metrics["macro_f1"] == 0.75 and (record.run_id == run.run_id) != begun_again
    assert (record.folder / "note.txt").read_text() == "found"
    assert (record.folder / "model" / "weights").read_text() == "1 2 3"
    assert record.files.keys() == {"note.txt", "model/weights"}
    assert tracker.curve(record.run_id, "step/loss")[1].tolist() == [0.5]
    assert not list((tracker.results / "pending").glob("*/run.json")) and Tracker(tracker.results).sync() == []


def test_what_is_logged_twice_is_there_once(tracker):
    _, run = begin(tracker, dataset="twice")
    run.curve(1, {"step/loss": 0.5})
    run.curve(2, {"step/loss": 0.25})
    run.flush()
    run._flushed = 0  # as a process that takes the folder up later sees it
    run.end("done")
    assert tracker.curve(run.run_id, "step/loss")[1].tolist() == [0.5, 0.25]


def test_what_is_killed_leaves_nothing_that_waits(tracker):
    _, run = begin(tracker, dataset="killed")
    with run.artefacts() as folder:
        (folder / "note.txt").write_text("half")
    run.end("killed", "interrupted")
    assert tracker.load(run.run_id).status == "killed" and not run._folder.exists()


def test_artefacts_of_a_database_server_that_lie_elsewhere_are_refused(tmp_path, monkeypatch):
    class Experiment:
        experiment_id = 3
        name, artifact_location, tags = "bench/demo/service", f"file://{tmp_path}/there", {"bench.host": "far"}

        def get_experiment_by_name(self, name):
            return self

        def set_experiment_tag(self, number, name, value):
            self.tags[name] = value

    address = Address("postgresql://me:secret@host/runs", tmp_path)
    with refused("no-artefact-store", "far", tmp_path / "there", "me:***@host"):
        experiment_in(Experiment(), address, Experiment.name)
    (tmp_path / "there").mkdir()  # shared
    assert experiment_in(Experiment(), address, Experiment.name) == "3"


def test_a_curve_comes_back_in_the_order_of_its_steps(tracker):
    _, run = begin(tracker, seed=77)
    run.curve(2, {"step/loss": 0.5})
    run.curve(1, {"step/loss": 1.0, "epoch/accuracy": 0.25})
    run.end("done")
    steps, values = tracker.curve(run.run_id, "step/loss")
    assert steps.tolist() == [1, 2] and values.tolist() == [1.0, 0.5]
    assert len(tracker.curve(run.run_id, "step/none")[0]) == 0
