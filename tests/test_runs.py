"""Runs end to end, on a store of a few sessions without captures and methods that need none."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from asked import changed, planned, run_spec
from refusals import refused
from split_tables import split_of
from tiny_store import write_store

from bench.analysis.tables import group, results_table
from bench.data.store import Store, write_columns
from bench.matrix.cells import run_matrix
from bench.method import Monitor
from bench.render.table import render
from bench.runs import attempt, registry
from bench.runs.execute import RunOptions, execute, tags_of
from bench.runs.run_labels import method_label
from bench.schema import SESSION_COLUMNS
from bench.spec import RunSpec, command_lines
from bench.splits.split import make_split
from bench.tracking.tracker import Tracker
from bench.training.budget import SHARED, steps_an_epoch

METHODS = """
import functools
from dataclasses import dataclass
from methods.majority import Majority
from bench.method import parameter

@dataclass(frozen=True)
class Parameters:
    epochs: int = parameter(5, "epochs", "our choice")
    rate: float = parameter(0.5, "rate", "our choice", (0.1, 0.5))

class Curved(Majority):
    name = "curved"
    deviations = ("does not learn",)
    presets = {"slow": {"rate": 0.1}}
    Parameters = Parameters
    def fit(self, train, validation, monitor):
        for epoch in range(1, self.parameters.epochs + 1):
            monitor.log(epoch, loss=1 / epoch)
            monitor.epoch(epoch, self.parameters.epochs, loss=1 / epoch, validation_macro_f1=0.1 * epoch)
        return super().fit(train, validation, monitor)

@dataclass(frozen=True)
class Begun:
    weights: str | None = parameter(None, "a file", "our choice", file=True)
    words: str | None = parameter(None, "another one", "our choice", file=True)
    pretraining_steps: int = parameter(9, "steps", "our choice")

class Borrowed(Majority):
    name = "borrowed"
    Parameters = Begun

class Broken(Majority):
    name = "broken"
    def fit(self, train, validation, monitor):
        raise FloatingPointError("loss is\\nnan")

class Choosy(Majority):
    name = "choosy"
    @classmethod
    def skip(cls, traits):
        return "no bytes in this store"

class Interrupted(Majority):
    name = "interrupted"
    def fit(self, train, validation, monitor):
        raise KeyboardInterrupt

class Testless(Majority):
    name = "testless"
    @staticmethod
    @functools.cache  # what is memoised is no memory of a run
    def seen():
        return []
    def represent(self, view):
        self.seen().append(len(view))
        return super().represent(view)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def store(home):
    return write_store(home)


@pytest.fixture(autouse=True)
def in_home(home, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    """One database for all tests, those of test_tracking.py too: making one takes seconds."""
    return Tracker(tmp_path_factory.getbasetemp() / "results")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("methods") / "extra.py"
    path.write_text(METHODS)
    return path


def spec(store, **fields) -> RunSpec:
    return changed(planned(["majority"], [store], split="capture")[0], **fields)


def test_later_options_have_one_form(store):
    (asked,) = planned(["majority"], [store], filter="dns,sugar", sampling="step=4,window=4", balance="keep")
    split = asked.split
    assert (split.filter, split.sampling, split.balance) == ("sugar,dns", "window=4", None)
    assert asked.name == "majority-session-window=4-filter=sugar,dns-seed0"
    (paper,) = planned(["majority"], [store], split="paper", balance="resample", min_per_class=3)
    assert paper.split.balance is None and paper.to_dict()["min_per_class"] == 3
    assert planned(["majority"], [store], split="paper", balance="keep")[0].split.balance == "keep"


def test_windows_and_the_paper_s_order_of_operations_end_to_end(store, tracker):
    (clean,) = planned(["majority"], [store], sampling="window=1,payload=no", min_per_class=81)
    assert execute(clean, tracker).reason.startswith("tiny: nothing of task kind is left")
    (clean,) = planned(["majority"], [store], sampling="window=1,payload=no")
    (leaky,) = planned(["majority"], [store], sampling="window=1,payload=no", split="paper", max_per_class=100)
    records = []
    for one in (clean, leaky):
        done = execute(one, tracker)
        assert done.status == "done"
        records.append(tracker.load(done.run_id))
    assert [record.leaky for record in records] == [False, True]
    assert records[1].scale == "max_per_class=100"
    split = records[1].result().split.fields
    assert split["samples"] == {"train": 210, "validation": 30, "test": 60}
    assert split["test_in_training_sessions"] > split["test_in_training_windows"] > 0
    predicted = records[1].predictions()
    assert set(predicted.first) == {0, 1} and (predicted.groups == predicted.session).all()
    rows = {row.split: row for row in group(records)}
    paper = "paper, window=1,payload=no, max_per_class=100"
    assert set(rows) == {"session, window=1,payload=no", paper}
    assert rows[paper].marks == ["leaky", "reduced"]
    (line,) = [
        line for line in render(results_table(records, columns="split")).splitlines() if line.startswith("majority")
    ]
    assert line.count("[") == 2 and "] *†" in line  # one line for the method, the leak in its cell


def test_a_class_that_is_left_out_is_not_scored(home, tracker, tmp_path):
    """It could only score 0 and would pull the macro averages down."""
    uneven = write_store(home, "uneven", 130)  # thirteen captures: the first class has ten sessions more
    (most,) = planned(["majority"], [uneven], min_per_class=50)
    done = execute(most, tracker)
    assert done.metrics["macro_f1"] == done.metrics["accuracy"] == 1
    record = tracker.load(done.run_id)
    assert record.predictions().classes == ["chat"] and record.result().split.fields["emptied"] == ["mail", "web"]


def test_a_task_of_one_class_is_refused(home):
    """Whatever is answered is right: 1.000 would stand there."""
    one = write_store(home, "one", sessions=10)
    with refused("one-class", "(chat)"):
        planned(["majority"], [one])


def test_a_run_is_tagged_by_how_many_test_samples_share_captures_with_training(store, tracker):
    for split, share in (("session", "100%"), ("capture", "0%")):
        (one,) = planned(["ports"], [store], split=split)
        run = tracker._client.get_run(execute(one, tracker).run_id)
        assert run.data.tags["test_in_training_captures"] == share


def test_a_saved_leaky_split_stays_leaky(store, tracker, tmp_path):
    made = split_of(store, "kind", "paper", sampling="window=1,payload=no")
    made.save(tmp_path / "leaky.json")
    (one,) = planned(["majority"], [store], split="file", split_file=tmp_path / "leaky.json")
    assert tracker.load(execute(one, tracker).run_id).leaky
    with refused("bad-options", "filter, sampling"):
        planned(["majority"], [store], split="file", split_file=tmp_path / "leaky.json", filter="dns")


def test_expand_has_a_fixed_order_and_keeps_only_what_differs(store, file):
    curved = f"{file}:Curved"
    specs = planned(
        ["majority", curved], [store], seeds=(0, 1), folds=2, values={"rate": "0.5"}, epochs=2, preset="slow"
    )
    assert [(s.method, *s.place) for s in specs] == [
        (m, seed, fold) for m in ("majority", curved) for seed in (0, 1) for fold in (0, 1)
    ]
    assert [s.parameters for s in specs[::4]] == [{}, {"epochs": 2}]  # --set goes over the preset
    assert {(s.task, s.store, s.dataset) for s in specs} == {("kind", store.digest, "tiny")}
    assert planned([curved], [store], preset="slow")[0].parameters == {"rate": 0.1}
    assert planned([curved], [store], values={"epochs": 5})[0].digest == planned([curved], [store])[0].digest


def test_passes_that_are_asked_for_stand_in_place_of_a_preset_s_steps(store):
    (budget,), (passes,), (both,) = (
        planned(["atvitsc"], [store], preset="shared", **more)
        for more in ({}, {"epochs": 2}, {"epochs": 2, "values": {"steps": "9"}})
    )
    assert budget.parameters == dict(SHARED)
    assert passes.parameters == {"epochs": 2, "patience": SHARED["patience"]}
    assert both.parameters == {"epochs": 2, "steps": 9, "patience": SHARED["patience"]}


def test_a_run_on_another_kind_of_device_is_another_run(store, tracker):
    here = spec(store, seed=177)
    assert execute(here, tracker).spec == here == here.on("cpu")
    there = here.on("cuda:1")
    assert (there.device, there.precision, there.on("cuda:0"), there.on("cpu")) == ("cuda", "bfloat16", there, here)
    assert tracker.finished(there.digest) is None
    assert RunSpec.from_dict(there.to_dict()) == there
    assert "--device cuda" in command_lines(there)[0] and method_label(there) == "majority (cuda, bfloat16)"


def test_fewer_steps_than_the_method_s_own_are_a_reduced_scale(store, tracker):
    values = {**registry.load("mini-flowpic").tiny, "epochs": 1}
    long, short = (
        execute(planned(["mini-flowpic"], [store], values=values | {"steps": steps})[0], tracker) for steps in (600, 2)
    )
    samples = int(short.metrics["training_samples"])
    own = 50 * steps_an_epoch(samples, values["batch_size"])
    assert tracker.load(short.run_id).scale == f"steps=2 of {own}"
    default, passes = 400, 40 * steps_an_epoch(samples, 128)  # FlowPic's own steps, and its epochs as passes
    tiny = {"resolution": 32, "balance": "keep"}
    by_passes = execute(planned(["flowpic"], [store], values=tiny | {"steps": None})[0], tracker)
    assert tracker.load(by_passes.run_id).scale == f"steps={passes} of {default}"
    assert tracker.load(long.run_id).scale == "full" and own <= 600
    assert short.metrics["optimiser_steps"] == short.metrics["chosen_step"] == 2


@pytest.mark.parametrize(
    ("asked", "code", "named"),
    [
        ({"values": {"trees": 3}}, "unknown-parameter", "'trees'"),
        ({"preset": "fast"}, "unknown-preset", "'fast'"),
        ({"split": "randomly"}, "unknown-split", "'randomly'"),
        ({"task": "kinds"}, "unknown-task", "'kinds'"),
        ({"split": "file", "split_file": Path("nowhere.json")}, "missing-file", "nowhere.json"),
    ],
)
def test_expand_refuses_in_one_line(store, asked, code, named):
    with refused(code, named):
        planned(["majority"], [store], **asked)


def test_a_run_is_recorded_and_never_computed_again(store, tracker, monkeypatch):
    told = []
    wanted = spec(store)
    done = execute(wanted, tracker, RunOptions(progress=lambda s, stage, values: told.append(stage), rerun=True))
    assert (done.status, done.reason) == ("done", "")
    assert told == ["split", "represent", "fit", "represent", "predict", "check", "score"]
    assert done.metrics["macro_f1"] == pytest.approx(1 / 6)  # one class of three, always
    assert done.metrics["macro_f1_low"] <= done.metrics["macro_f1"] <= done.metrics["macro_f1_high"]
    assert 1 <= done.metrics["interval_groups"] < done.metrics["interval_groups_total"]
    assert done.metrics["seconds"] == pytest.approx(
        sum(done.metrics[f"seconds_{s}"] for s in {"represent", "fit", "predict"})
    )
    record = tracker.load(done.run_id[:12])
    assert {f.name for f in record.folder.iterdir()} == {"result.json", "predictions.npz", "model"}
    assert record.spec == wanted and record.spec.to_dict() == wanted.to_dict()
    assert record.metrics == pytest.approx(
        done.metrics | {f"f1/{c}": record.metrics[f"f1/{c}"] for c in ("chat", "mail", "web")}
    )
    result = record.result()
    assert result.scores.classes == ["chat", "mail", "web"]
    assert result.split.samples["test"] == len(record.predictions().truth) == np.sum(result.scores.confusion)
    assert result.environment["packages"]["numpy"] == np.__version__
    monkeypatch.setattr(registry, "load", None)
    again = execute(wanted, tracker)
    assert (again.status, again.run_id, again.metrics["macro_f1"]) == ("cached", done.run_id, done.metrics["macro_f1"])


def test_rerun_computes_again_and_gives_the_same(store, tracker):
    first, second = (execute(spec(store), tracker, RunOptions(rerun=rerun)) for rerun in (False, True))
    assert second.status == "done" and second.run_id != first.run_id
    a, b = (tracker.load(o.run_id).predictions() for o in (first, second))
    np.testing.assert_array_equal(a.probabilities, b.probabilities)
    assert tracker.finished(first.spec.digest).run_id == second.run_id
    assert [r.run_id for r in tracker.search(digest=first.spec.digest)] == [second.run_id]


def test_a_rerun_with_another_score_says_what_it_was_before(store, tracker, monkeypatch):
    first = execute(spec(store), tracker)
    record = tracker.load(first.run_id)
    other = dataclasses.replace(record, metrics=record.metrics | {"macro_f1": 0.75})
    monkeypatch.setattr(type(tracker), "finished", lambda self, digest: other)
    again = execute(spec(store), tracker, RunOptions(rerun=True))
    assert (again.status, again.reason) == ("done", f"run {first.run_id[:8]} of the same had macro F1 0.7500")


def test_failures_and_skips_are_results_and_the_matrix_goes_on(store, tracker, file):
    specs = [s for c in ("Broken", "Choosy", "Curved") for s in planned([f"{file}:{c}"], [store])]
    outcomes = list(run_matrix(specs, tracker))
    assert [o.status for o in outcomes] == ["failed", "skipped", "done"]
    assert outcomes[0].reason == "FloatingPointError: loss is nan"
    assert outcomes[1].reason == "no bytes in this store"
    broken = tracker.load(outcomes[0].run_id)
    assert (broken.status, broken.reason) == ("failed", outcomes[0].reason)
    assert "in fit" in (broken.folder / "traceback.txt").read_text()
    assert [o.status for o in run_matrix(specs, tracker)] == ["cached", "failed", "skipped"]  # only done runs are kept


def test_curves_deviations_and_scale_are_recorded(store, tracker, file):
    epochs = []
    curved = planned([f"{file}:Curved"], [store], epochs=3, max_per_class=20)[0]
    keep = lambda s, stage, values: stage == "epoch" and epochs.append(dict(values))  # noqa: E731
    done = execute(curved, tracker, RunOptions(progress=keep))
    assert [e["epoch"] for e in epochs] == [1, 2, 3] and epochs[0]["epochs"] == 3
    history = tracker._client.get_metric_history(done.run_id, "step/loss")
    assert [(m.step, m.value) for m in history] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    record = tracker.load(done.run_id)
    assert record.scale == "max_per_class=20, epochs=3"
    assert record.deviations == ("does not learn",)
    assert not record.leaky


def test_other_code_is_told(store, tracker, monkeypatch):
    execute(spec(store), tracker)
    assert execute(spec(store), tracker).reason == ""
    monkeypatch.setattr("bench.runs.execute.code_of", lambda spec: "other")
    reason = execute(spec(store), tracker).reason
    assert "made by other code" in reason and "now other" in reason and "--rerun" in reason


def test_files_that_parameters_name_are_recorded_and_other_ones_told(store, tracker, file, tmp_path):
    given = {name: tmp_path / f"{name}.bin" for name in ("weights", "words")}
    values = {name: str(path) for name, path in given.items()}
    for name, path in given.items():
        with refused("missing-file", f"parameter {name}=", "cannot be read"):
            planned([f"{file}:Borrowed"], [store], values=values)
        path.write_bytes(b"abc")
    wanted = planned([f"{file}:Borrowed"], [store], values=values)[0]
    digest = hashlib.sha256(b"abc").hexdigest()
    record = tracker.load(execute(wanted, tracker).run_id)
    assert record.given == record.result().given == {name: f"{digest}  {name}.bin" for name in given}
    assert execute(wanted, tracker).reason == ""
    given["words"].write_bytes(b"abcd")
    reason = execute(wanted, tracker).reason
    assert f"made from other files (words {digest[:12]}, now " in reason and "weights" not in reason


def test_fewer_steps_of_pretraining_are_a_reduced_scale(store, tracker, file):
    less, all_ = (planned([f"{file}:Borrowed"], [store], values={"pretraining_steps": n})[0] for n in (3, 9))
    assert tags_of(less)["scale"] == "pretraining_steps=3" and tags_of(all_)["scale"] == "full"


def test_an_interrupt_ends_the_run_as_killed_and_is_passed_on(store, tracker, file):
    interrupted = planned([f"{file}:Interrupted"], [store])[0]
    with pytest.raises(KeyboardInterrupt):
        execute(interrupted, tracker)
    assert [r.status for r in tracker.search(method=interrupted.method)] == ["killed"]


def test_a_run_killed_without_a_trace_is_run_again(store, tracker):
    wanted = spec(store, seed=77)
    stale = tracker.start(wanted, wanted.name, {})
    assert tracker.finished(wanted.digest) is None
    assert execute(wanted, tracker).status == "done"
    assert tracker.load(stale.run_id).status == "killed"


def test_validation_alone_is_scored_for_tuning(store, file):
    testless = planned([f"{file}:Testless"], [store], split="capture")[0]
    method = registry.load(testless.method)
    scores = attempt.fit_and_validate(testless, store, method, Monitor())
    made = make_split(store, testless.task, testless.split)
    assert method.seen() == [len(made.train), len(made.validation)]
    assert scores.sessions == len(made.validation)


def test_a_store_prepared_anew_is_refused(store, tracker):
    outcome = execute(dataclasses.replace(spec(store), store="0" * 64), tracker)
    assert outcome.status == "failed" and "prepared again" in outcome.reason


def test_seeds_differ_by_name_and_not_by_other_parameters(store, file):
    curved = f"{file}:Curved"
    a, b, c = (
        attempt.new_method(s, registry.load(curved), 3, "cpu").seed
        for s in (
            planned([curved], [store])[0],
            planned([curved], [store], values={"rate": 0.2})[0],
            planned([curved], [store], seeds=[1])[0],
        )
    )
    assert a == b != c


def test_the_seed_of_a_fit_knows_every_name_of_its_place(store):
    run = spec(store)
    others = [{"split": "session"}, {"seed": 1}, {"fold": 0, "folds": 3}, {"fold": 1, "folds": 3}]
    others += [{"dataset": "other"}, {"task": "other"}, {"method": "forest"}]
    runs = [run, *(changed(run, **fields) for fields in others)]
    kind = registry.load("majority")
    assert len({attempt.new_method(one, kind, 3, "cpu").seed for one in runs}) == len(runs)


def test_a_hand_made_split_that_parts_conversations_is_marked(home, tracker, tmp_path):
    """Nobody can tell from its file whether that was meant; its score is of the leaky kind."""
    shared = write_store(home, "shared-conversations")
    columns = {name: np.array(shared.session(name)) for name in SESSION_COLUMNS}
    columns["conversation"] = (np.arange(120) // 2).astype(SESSION_COLUMNS["conversation"])  # each two are of one
    columns |= {"task:kind": np.array(shared.labels("kind"))}
    write_columns(shared.path / "sessions.arrow", columns)
    shared = Store.open(shared.path)
    rows = {"whole": np.arange(120) // 2, "parted": np.arange(120)}
    for name, number in rows.items():
        parts = {part: np.flatnonzero(number % 3 == n) for n, part in enumerate(("train", "validation", "test"))}
        lists = {
            part: {"session": r.tolist(), "first": [0] * len(r), "count": [2] * len(r)} for part, r in parts.items()
        }
        head = {"format": "bench-split-1", "store": shared.digest, "dataset": shared.name, "task": "kind"}
        (tmp_path / f"{name}.json").write_text(json.dumps(head | {"scheme": "file"} | lists))
        (one,) = planned(["majority"], [shared], split="file", split_file=tmp_path / f"{name}.json")
        record = tracker.load(execute(one, tracker).run_id)
        assert record.leaky == (name == "parted")
        assert (record.result().split.shared["test_in_training_conversations"] > 0) == (name == "parted")


def test_several_jobs_give_what_one_gives(store, tracker):
    specs = [spec(store, seed=seed) for seed in (101, 102)]
    outcomes = {o.spec.split.seed: o for o in run_matrix(specs, tracker, RunOptions(jobs=2))}
    assert {o.status for o in outcomes.values()} == {"done"}
    for one in specs:
        again = execute(one, tracker, RunOptions(rerun=True))
        assert again.metrics["macro_f1"] == outcomes[one.split.seed].metrics["macro_f1"]


def test_a_cached_answer_imports_neither_torch_nor_scikit_learn(store, tracker, home):
    execute(spec(store), tracker)
    code = (
        "import sys; from pathlib import Path; from bench.data.store import Store; from bench.spec import SplitSpec\n"
        "from bench.matrix.cells import run_matrix; from bench.runs.plan import expand\n"
        "from bench.tracking.tracker import Tracker\n"
        "specs = expand(['majority', 'atvitsc'], [Store.find('tiny')], SplitSpec('capture'))\n"
        f"print([o.status for o in run_matrix(specs[:1], Tracker(Path({str(tracker.results)!r})))])\n"
        "print([m for m in ('torch', 'sklearn', 'numba', 'optuna', 'scapy') if m in sys.modules])"
    )
    environment = os.environ | {"BENCH_HOME": str(home)}
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert answer.stdout.split("\n")[:2] == ["['cached']", "[]"]
    assert answer.stderr == ""


def test_a_small_preset_is_a_reduced_scale():
    spec = run_spec("tscrnn", "demo", "service", parameters={"bytes": 500, "learning_rate": 0.1})
    assert tags_of(spec)["scale"] == "preset small"
    assert tags_of(changed(spec, parameters={"bytes": 400}))["scale"] == "full"
