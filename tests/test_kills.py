"""Processes that are killed, told to end or interrupted: no trace, nothing left, and the next call goes on."""

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import wait
from pathlib import Path

import pytest
from small_captures import write_captures
from tiny_store import tiny_home

from bench.data.store import Store
from bench.errors import Terminated
from bench.matrix.cells import run_matrix
from bench.matrix.workers import KILLED
from bench.runs.execute import RunOptions
from bench.runs.plan import expand
from bench.spec import SplitSpec
from bench.tracking.tracker import Tracker

ROOT = Path(__file__).parents[1]
METHODS = """
import os, signal, time
from pathlib import Path
from methods.majority import Majority

class Dies(Majority):
    name = "dies"
    def fit(self, train, validation, monitor):
        if self.seed == int(os.environ["DIES"]):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.seed == int(os.environ["DIES_ONCE"]) and not Path(os.environ["MARK"]).exists():
            Path(os.environ["MARK"]).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(train, validation, monitor)

class Deaf(Majority):
    name = "deaf"
    def fit(self, train, validation, monitor):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Path(os.environ["MARK"]).touch()
        time.sleep(600)

class Slow(Majority):
    name = "slow"
    def fit(self, train, validation, monitor):
        Path(os.environ["MARK"]).touch()
        for epoch in range(1, 600):
            time.sleep(0.1)
            monitor.epoch(epoch, 600, loss=1.0)
        return super().fit(train, validation, monitor)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a home of one store and two methods; new processes see both."""
    with tiny_home(tmp_path_factory, "kills") as folder:
        (folder / "own.py").write_text(METHODS)
        yield folder


@pytest.mark.slow
def test_who_kills_a_worker_is_tried_once_more_and_ends_no_other_run(place, tmp_path, monkeypatch):
    from bench.runs.attempt import new_method
    from methods.majority import Majority

    specs = expand([f"{place / 'own.py'}:Dies"], [Store.find("tiny")], SplitSpec("capture"), seeds=range(2))
    seeds = [new_method(spec, Majority, 3, "cpu").seed for spec in specs]
    for name, value in {"DIES": seeds[1], "DIES_ONCE": seeds[0], "MARK": tmp_path / "mark"}.items():
        monkeypatch.setenv(name, str(value))
    tracker = Tracker(tmp_path / "results")
    outcomes = {o.spec.split.seed: o for o in run_matrix(specs, tracker, RunOptions(jobs=2))}
    assert {seed: outcome.status for seed, outcome in outcomes.items()} == {0: "done", 1: "failed"}
    assert outcomes[1].reason == KILLED and "memory" in KILLED
    assert not tracker.claims.holders() and not list((tmp_path / "results" / "pending").iterdir())
    statuses = [(run.spec.split.seed, run.status) for run in tracker.search(latest=False)]
    once, always = [(0, "done"), (0, "killed")], [(1, "failed"), (1, "killed"), (1, "killed")]
    assert sorted(statuses) == [*once, *always]


@pytest.mark.slow
def test_a_run_that_its_worker_could_not_close_is_closed_for_it(place, tmp_path, monkeypatch):
    """An interrupt ends the matrix; the worker does not hear that it should end, and is killed."""
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    monkeypatch.setattr("bench.matrix.workers.GRACE_SECONDS", 0.5)
    specs = expand([f"{place / 'own.py'}:Deaf"], [Store.find("tiny")], SplitSpec("capture"), seeds=range(2))
    tracker = Tracker(tmp_path / "results")

    def waits(futures, *given, **more):
        while not (tmp_path / "mark").exists():
            time.sleep(0.05)
        if more:  # for the first that ends, not for the grace of the last ones
            raise KeyboardInterrupt
        return wait(futures, *given)

    monkeypatch.setattr("bench.matrix.workers.wait", waits)
    with pytest.raises(KeyboardInterrupt):
        list(run_matrix(specs, tracker, RunOptions(jobs=2)))
    found = tracker.search(latest=False)
    assert found and {run.status for run in found} == {"killed"} and not tracker.claims.holders()
    assert not list((tmp_path / "results" / "pending").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 143), (signal.SIGINT, 130)])
def test_a_signal_closes_runs_lets_go_of_claims_and_leaves_no_process(place, tmp_path, number, status):
    apps = write_captures(place / "apps", 5)
    words = f"run --method {place / 'own.py'}:Slow --dataset {apps} --split capture --seeds 3 --jobs 2"
    mark, results = tmp_path / "mark", tmp_path / "results"
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", *words.split(), "--results", results], cwd=ROOT, start_new_session=True,
        env=os.environ | {"MARK": str(mark)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=heard)  # fmt: skip
    while not mark.exists() and process.poll() is None:
        time.sleep(0.05)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # a terminal's Ctrl-C is for the workers, too
    else:
        process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == status and "Traceback" not in out + err, err
    assert err.splitlines()[-1].endswith("what was finished is kept, the same command does the rest")
    until = time.monotonic() + 60
    while is_there(process.pid) and time.monotonic() < until:  # loky's own process sees its pipe closed
        time.sleep(0.1)
    assert not is_there(process.pid)
    tracker = Tracker(results)
    assert {run.status for run in tracker.search(latest=False)} == {"killed"} and not tracker.claims.holders()
    assert not list((results / "pending").iterdir())


def heard():
    """Signals that whoever runs the tests may have ignored, as a shell does for its jobs and nohup for all."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def is_there(group):
    """Whether any process of a group lives."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


LOST = """
import os, signal, sys, time
from bench.errors import Terminated
Terminated.listen()

class Cleared:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(0.01)

try:
    Cleared()
    time.sleep(120)
    print("went on")
except (Terminated, KeyboardInterrupt) as end:
    print(type(end).__name__)
"""


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "Terminated")])
def test_a_signal_that_comes_where_nothing_can_be_raised_comes_again(number, name):
    """Python drops what is raised in a destructor, with a trace; MLflow's import calls thousands."""
    words = [sys.executable, "-c", LOST, str(int(number))]
    done = subprocess.run(words, check=False, capture_output=True, text=True, cwd=ROOT, preexec_fn=heard)
    assert (done.stdout, done.stderr) == (f"{name}\n", "")
    assert not issubclass(Terminated, Exception)


PREPARE = """
import sys
from pathlib import Path
from bench.data.prepare import open_dataset
print("begun", flush=True)
open_dataset(sys.argv[1], home=Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_preparation_that_is_killed_at_any_moment_is_what_it_would_have_been(tmp_path):
    chance = random.Random(3)
    apps = write_captures(tmp_path / "apps", 900)

    def begin(home):
        words = [sys.executable, "-c", PREPARE, apps, tmp_path / home]
        return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    alone = begin("alone")
    alone.stdout.readline()
    began = time.monotonic()
    assert alone.wait(timeout=120) == 0
    lasts = time.monotonic() - began
    for _ in range(4):
        process = begin("home")
        process.stdout.readline()
        time.sleep(chance.uniform(0, lasts))
        process.kill()
        process.communicate()
    assert [process.wait(timeout=120) for process in (begin("home"), begin("home"))] == [0, 0]
    left = sorted(path.name for path in (tmp_path / "home" / "stores").iterdir())
    assert left == [".apps.lock", "apps"]
    stores = [{path.name: path.read_bytes() for path in (tmp_path / home / "stores" / "apps").iterdir()
               if path.name != "sources.json"} for home in ("alone", "home")]  # fmt: skip
    assert stores[0] == stores[1] and len(stores[0]) == 3
