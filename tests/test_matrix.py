"""One matrix, several processes: each cell once, whoever is killed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_store import tiny_home

from bench.matrix.cells import run_matrix
from bench.runs.execute import RunOptions, execute
from bench.runs.plan import expand
from bench.spec import SplitSpec
from bench.tracking.tracker import Tracker

METHOD = """
import time
from methods.majority import Majority

class Slow(Majority):
    name = "slow"
    def fit(self, train, validation, monitor):
        for epoch in range(1, 4):
            time.sleep(0.1)
            monitor.epoch(epoch, 3, loss=1 / epoch)
        return super().fit(train, validation, monitor)
"""

WORK = """
import sys
from bench.data.store import Store
from bench.runs.execute import RunOptions
from bench.matrix.cells import run_matrix
from bench.runs.plan import expand
from bench.spec import SplitSpec
from bench.tracking.tracker import Tracker
method, results, seeds, jobs = sys.argv[1:]
specs = expand([method], [Store.find("tiny")], SplitSpec("capture"), seeds=range(int(seeds)))
print("begun", flush=True)
for outcome in run_matrix(specs, Tracker(results), RunOptions(jobs=int(jobs))):
    print(outcome.status, flush=True)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folders of a home with a store, of an own method, and of a results folder whose database is made."""
    with tiny_home(tmp_path_factory, "matrix") as folder:
        (folder / "slow.py").write_text(METHOD)
        yield folder


@pytest.fixture
def specs(place):
    from bench.data.store import Store

    return lambda seeds: expand([f"{place / 'slow.py'}:Slow"], [Store.find("tiny")], SplitSpec("capture"), seeds=seeds)


def begin(place, results, seeds, jobs=1):
    words = [sys.executable, "-c", WORK, f"{place / 'slow.py'}:Slow", str(results), str(seeds), str(jobs)]
    where = {"env": os.environ | {"OMP_NUM_THREADS": "1"}, "cwd": Path(__file__).parents[1]}
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **where)


@pytest.mark.slow
def test_processes_divide_a_matrix_and_none_computes_what_another_does(place, tmp_path):
    workers = [begin(place, tmp_path, 12) for _ in range(3)]
    told = [worker.communicate(timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], told
    statuses = [out.split()[1:] for out, _ in told]
    assert [len(one) for one in statuses] == [12, 12, 12]  # each sees the whole matrix
    assert sum(one.count("done") for one in statuses) == 12
    runs = Tracker(tmp_path).search(latest=False)
    assert len(runs) == 12 and {run.status for run in runs} == {"done"}
    assert not Tracker(tmp_path).claims.holders()


@pytest.mark.slow
def test_whoever_is_killed_the_matrix_is_what_it_would_have_been(place, tmp_path, specs):
    """No cell is computed twice to its end, and no run of a living process is closed."""
    chance, number = random.Random(5), 16
    workers = [begin(place, tmp_path, number) for _ in range(3)]
    for _ in range(10):
        time.sleep(chance.uniform(0.3, 1.5))
        which = chance.randrange(3)
        workers[which].kill()
        workers[which].communicate()
        workers[which] = begin(place, tmp_path, number)
    told = [worker.communicate(timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], told
    tracker = Tracker(tmp_path)
    done = [run for run in tracker.search(latest=False) if run.status == "done"]
    assert sorted(run.spec.split.seed for run in done) == list(range(number))
    assert {run.status for run in tracker.search(latest=False)} <= {"done", "killed"}
    alone = Tracker(tmp_path / "alone")
    again = {o.spec.digest: o.metrics["macro_f1"] for o in run_matrix(specs(range(number)), alone)}
    assert {run.digest: run.metrics["macro_f1"] for run in done} == again


@pytest.mark.slow
def test_workers_of_a_killed_parent_end_with_it(place, tmp_path):
    parent = begin(place, tmp_path, 40, jobs=2)
    for line in parent.stdout:
        if line.strip() == "done":
            break
    children = [int(number) for path in Path(f"/proc/{parent.pid}/task").glob("*/children")
                for number in path.read_text().split()]  # fmt: skip
    assert len(children) >= 2
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until = time.monotonic() + 120
    while alive := [child for child in children if Path(f"/proc/{child}/cmdline").is_file() and is_ours(child)]:
        assert time.monotonic() < until, alive
        time.sleep(0.1)


def is_ours(process: int) -> bool:
    """Whether a process still works; a zombie does not."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes() != b""
    except OSError:
        return False


def test_what_runs_elsewhere_is_waited_for_and_taken_over_where_it_ends_without(place, tmp_path, specs, monkeypatch):
    monkeypatch.setattr("bench.matrix.cells.LOOK_SECONDS", 0.01)
    one, two = specs(range(2))
    tracker, other = Tracker(tmp_path), Tracker(tmp_path)
    for spec in (one, two):
        assert other.claims.take(spec.digest) is None
    assert execute(one, tracker).status == "elsewhere"
    told = []

    def ends(spec, stage, values):
        told.append(stage)
        if len(told) == 1:  # the other process ends its first run, and gives up the second
            other.start(one, one.name, {}).end("done")
            other.claims.let_go(one.digest)
        elif "waits" in stage:
            other.claims.let_go(two.digest)

    outcomes = list(run_matrix([one, two], tracker, RunOptions(progress=ends)))
    assert [(o.spec.split.seed, o.status) for o in outcomes] == [(0, "cached"), (1, "done")]
    assert "waits for" in told[0] and "process" in told[0]


def test_a_run_that_was_taken_over_ends_and_the_other_s_is_waited_for(place, tmp_path, specs, monkeypatch):
    monkeypatch.setattr("bench.tracking.claims.BEAT_SECONDS", 0.02)
    (one,) = specs([7])
    tracker, other = Tracker(tmp_path), Tracker(tmp_path)
    outcome = execute(one, tracker, RunOptions(progress=lambda s, stage, v: other.claims.take(one.digest, force=True)))
    assert outcome.status == "elsewhere" and tracker.finished(one.digest) is None
    assert [run.status for run in tracker.search(latest=False)] == ["killed"]


def test_no_run_is_begun_when_the_time_is_over(place, tmp_path, specs):
    outcomes = list(run_matrix(specs(range(3)), Tracker(tmp_path), RunOptions(budget=0.0)))
    assert [o.status for o in outcomes] == ["left"] * 3 and "--budget" in outcomes[0].reason
    outcomes = list(run_matrix(specs(range(3)), Tracker(tmp_path), RunOptions(budget=1e9)))
    assert [o.status for o in outcomes] == ["done"] * 3
