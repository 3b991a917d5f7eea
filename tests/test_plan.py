"""What a matrix would cost, shown before anything is done, and what is begun within a budget."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from refusals import refused
from tiny_store import write_store

from bench.cli.help import seconds_of
from bench.cli.progress import RunProgress
from bench.cli.text import plan_table
from bench.data.store import Store
from bench.matrix.cells import run_matrix
from bench.render.table import render
from bench.runs import plan as planning
from bench.runs.execute import Outcome, RunOptions, execute
from bench.runs.plan import Estimate, Forecast, expand, first_places_first, planned, samples_seen, seen_without_labels
from bench.spec import SplitSpec
from bench.tracking.tracker import Tracker


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with a store whose classes have forty sessions each."""
    folder = tmp_path_factory.mktemp("plan") / "home"
    manifest = write_store(folder, "demo").path / "manifest.json"
    content = json.loads(manifest.read_text())
    content["tasks"]["kind"]["class_sessions"] = [40, 40, 40]
    manifest.write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A results folder whose tables are made, which takes MLflow seconds."""
    folder = tmp_path_factory.mktemp("empty") / "results"
    assert Tracker(folder, f"sqlite:///{folder / 'mlflow.db'}")._client
    return folder


@pytest.fixture
def results(empty, tmp_path):
    """A results folder of a test's own."""
    return shutil.copytree(empty, tmp_path / "results")


@pytest.fixture
def matrix(home, monkeypatch):
    """Runs of methods on that store."""
    monkeypatch.setenv("BENCH_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return lambda *methods, seeds=3, **split: expand(
        methods, [Store.find("demo")], SplitSpec("capture", **split), seeds=range(seeds)
    )


class Known:
    """A forecast of given seconds by method; hears what runs took."""

    def __init__(self, **seconds):
        self.seconds, self.heard = seconds, []

    def of(self, spec):
        return Estimate(self.seconds.get(spec.method), "given")

    def add(self, spec, seconds):
        self.heard.append(spec.method)


def test_every_method_gets_its_first_seed_and_fold_before_any_gets_a_second(matrix):
    specs = matrix("majority", "ports", seeds=2, folds=2)
    order = [(spec.method, *spec.place) for spec in first_places_first(specs)]
    assert order[:2] == [("majority", 0, 0), ("ports", 0, 0)]
    assert [place for _, *place in order] == [[0, 0]] * 2 + [[0, 1]] * 2 + [[1, 0]] * 2 + [[1, 1]] * 2
    assert len(set(order)) == len(specs)


def test_an_estimate_rests_on_runs_of_its_row_else_on_a_rate_else_it_is_unknown(matrix, results, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "rates_of", lambda path: {"majority": 7.0, "atvitsc": 2.0})
    majority, ports, atvitsc = matrix("majority", "ports", "atvitsc", seeds=1)
    forecast = Forecast(Tracker(tmp_path / "none"))
    assert forecast.of(majority) == Estimate(0.7 * 120 / 7, "rate of training") and not (tmp_path / "none").exists()
    assert forecast.of(ports) == Estimate(None, "unknown")
    assert forecast.of(atvitsc).seconds == 0.7 * 120 * 30 / 2  # its epochs
    assert samples_seen("atvitsc", {"steps": 100, "batch_size": 8}, 7) == 800
    assert seen_without_labels("yatc", {}, 7) == 150_000 * 128 and seen_without_labels("atvitsc", {}, 7) == 0
    assert seen_without_labels("yatc", {"pretraining": "scratch"}, 7) == 0
    assert seen_without_labels("yatc", {"weights": "authors.pth"}, 7) == 0
    assert seen_without_labels("deeppacket-sae", {"pretraining_epochs": 3}, 7) == 21
    assert samples_seen("deeppacket", {"steps": 100, "packets": 8}, 7) == 100 * 256 / 16  # a batch is of packets
    folds = matrix("majority", seeds=1, folds=4)
    assert forecast.of(folds[0]).seconds == pytest.approx(0.75 * 0.875 * 120 / 7)
    assert forecast.of(matrix("majority", seeds=1, sampling="window=2")[0]).seconds is None  # nobody counted windows
    tracker = Tracker(results)
    execute(majority, tracker)
    (record,) = tracker.search()
    assert Forecast(tracker).of(matrix("majority", seeds=9)[8]) == Estimate(record.seconds, "1 done")
    assert Forecast(tracker).of(folds[0]).basis == "rate of training"  # another row
    for seconds in (30.0, 50.0, 4000.0):
        forecast.add(ports, seconds)
    assert forecast.of(ports) == Estimate(50.0, "3 done")  # one that was held up tells nothing of the others


def test_what_would_not_be_done_in_time_is_not_begun(matrix, results):
    specs = matrix("majority", "ports", "knn", seeds=2)
    forecast = Known(majority=0.0, ports=1e6)  # of the third nobody knows
    options = RunOptions(budget=1e4, forecast=forecast)
    outcomes = {}
    for outcome in run_matrix(specs, Tracker(results), options):
        outcomes.setdefault(outcome.spec.method, []).append(outcome)
    assert {name: [o.status for o in one] for name, one in outcomes.items()} == {
        "majority": ["done", "done"], "ports": ["left", "left"], "knn": ["done", "done"]
    }  # fmt: skip
    assert "12 days" in outcomes["ports"][0].reason and "--budget" in outcomes["ports"][0].reason
    assert sorted(forecast.heard) == ["knn", "knn", "majority", "majority"]


def test_a_plan_tells_what_is_done_runs_elsewhere_and_is_to_do(matrix, results):
    specs = matrix("majority", "ports", seeds=2)
    tracker = Tracker(results)
    execute(specs[0], tracker)
    other = Tracker(results)
    other.claims.take(specs[1].digest)
    plan = planned(specs, tracker, jobs=2)
    plan.forecast = Known(majority=60.0, ports=1800.0)
    where = str(plan.elsewhere[specs[1].digest])
    assert plan.words == f"1 done, 1 running elsewhere ({where}), 2 to do; about 30 min left"
    table = plan_table(plan, budget=60.0)
    first, second = table.records
    assert (first["runs"], first["done"], first["running_elsewhere"], first["to_do"]) == (2, 1, 1, 0)
    assert (second["to_do"], second["seconds_each"], second["seconds"], second["basis"]) == (2, 1800.0, 3600.0, "given")
    assert table.more["total"]["seconds"] == 1800.0  # two at once
    shown = render(table)
    assert where in shown and "in all" in shown and "--budget 60 s" in shown
    plan.ended(specs[2])
    assert plan.time_left == "; about 15 min left"
    plan.ended(specs[3])
    assert plan.time_left == ""
    other.claims.let_go(specs[1].digest)


def test_a_long_matrix_takes_a_process_a_core_as_far_as_memory_goes(matrix, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.runs.plan.cores", lambda: 8)
    monkeypatch.setattr("bench.runs.plan.memory", lambda: 64 << 30)
    plan = planned(matrix("majority", seeds=5), Tracker(tmp_path), jobs=None)
    assert plan.jobs == 1  # nobody knows how long it takes
    plan.forecast = Known(majority=60.0)
    assert plan.jobs_here == 5  # no more than there are runs
    monkeypatch.setattr("bench.runs.plan.memory", lambda: 9 << 30)
    assert plan.jobs_here == 2
    plan.forecast = Known(majority=20.0)
    assert plan.jobs_here == 1  # processes would not be worth their start
    on_a_card = [spec.on("cuda") for spec in plan.specs]
    monkeypatch.setattr(Forecast, "of", lambda self, spec: Estimate(600.0, "given"))
    assert planned(on_a_card, Tracker(tmp_path), jobs=None).jobs == 1
    assert planned(plan.specs, Tracker(tmp_path), jobs=None).jobs == 2


def test_the_time_left_is_told_with_each_run_that_ends(matrix, tmp_path, capsys):
    specs = matrix("majority", "ports", seeds=1)
    plan = planned(specs, Tracker(tmp_path))
    plan.forecast = Known(ports=120.0)
    assert plan.time_left == "; about 2 min and 1 of unknown length left"
    with RunProgress(2, plan) as progress:
        progress.outcome(Outcome(specs[0], "done", metrics={"macro_f1": 0.5}))
    assert "macro F1 0.5000; about 2 min left" in capsys.readouterr().err


@pytest.mark.parametrize("store", ["none", "one of ours"])
def test_a_dry_run_writes_and_imports_nothing(matrix, home, results, tmp_path, store):
    if store == "none":
        shutil.rmtree(results)
    else:
        execute(matrix("majority", seeds=1)[0], Tracker(results))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    words = ["bench", "run", "--method", "majority,atvitsc,forest", "--dataset", "demo", "--split", "capture"]
    words += ["--seeds", "2", "--results", str(results), "--dry-run", "--json", "--budget", "1h30m"]
    code = (
        f"import sys; sys.argv = {words!r}\nfrom bench.cli import main\ntry: main()\nexcept SystemExit as end:\n"
        "    heavy = {'torch', 'sklearn', 'mlflow', 'optuna', 'matplotlib'}\n"
        "    print(end.code, heavy & set(sys.modules), file=sys.stderr)"
    )
    environment = os.environ | {"BENCH_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == "0 set()\n"
    shown = json.loads(done.stdout)
    assert [row["done"] for row in shown["rows"]] == [int(store != "none"), 0, 0]
    assert shown["total"]["runs"] == 6
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_dry_run_prepares_nothing(bench_in, tmp_path):
    status, out, err = bench_in(tmp_path)("run", "--method", "majority", "--dataset", "demo", "--dry-run")
    assert (status, out) == (2, "") and "bench prepare demo" in err and list(tmp_path.iterdir()) == []


def test_runs_that_are_left_are_told_with_a_status_of_their_own(matrix, results, command_line, monkeypatch):
    monkeypatch.setattr("bench.cli.runs.opened", Store.find)
    words = ["run", "--method", "majority,ports", "--dataset", "demo", "--split", "capture", "--results", results]
    status, out, err = command_line(*words, "--budget", "0s")
    assert status == 3 and "left: the time of --budget was used up" in out
    assert err.splitlines()[0].startswith("2 runs: 0 done, 2 to do")
    assert err.splitlines()[-1] == "2 of 2 runs are left; the same command continues with them"
    status, out, _ = command_line(*words, "--budget", "1h")
    assert status == 0 and "left" not in out


@pytest.mark.parametrize(("text", "seconds"), [("8h", 28800), ("90m", 5400), ("1h30m", 5400), ("1.5s", 1.5)])
def test_a_budget_is_a_time(text, seconds):
    assert seconds_of(None, None, text) == seconds


@pytest.mark.parametrize("text", ["8", "h", "-1h", "8 h", "1d", ""])
def test_what_is_no_time_is_refused(text):
    class Option:
        opts = ("--budget",)

    with refused("bad-options", "--budget", "8h"):
        seconds_of(None, Option, text)
