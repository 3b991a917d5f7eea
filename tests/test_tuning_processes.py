"""One study, several processes: exactly the trials that were asked for, no point twice, whoever is killed."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import servers
import sqlalchemy as sa
from optuna.trial import TrialState
from tiny_store import write_store

from bench.errors import Terminated
from bench.method import Range
from bench.spec import RunSpec, SplitSpec
from bench.tracking.address import Address
from bench.tracking.claims import Claims, process_lives
from bench.tracking.tracker import Tracker
from bench.tuning.search import Look, Search
from bench.tuning.share import Share, TuneOptions
from bench.tuning.studies import open_study, storage_of, stored_study

METHOD = """
import os, signal, time
from dataclasses import dataclass
from pathlib import Path
from bench.method import Range, parameter
from bench.tracking.claims import this_process
from methods.majority import Majority

@dataclass(frozen=True, kw_only=True)
class Parameters:
    x: int = parameter(3, source="the test", help="any number", search=Range(1, 1_000_000))

class Slow(Majority):
    name = "slow"
    Parameters = Parameters
    def fit(self, train, validation, monitor):
        with Path(os.environ["FITS"]).open("a") as file:
            file.write(f"{self.parameters.x} {this_process()}\\n")
        if "DEAF" in os.environ:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        for epoch in range(1, 5):
            time.sleep(0.1)
            monitor.epoch(epoch, 4, validation_macro_f1=0.5)
        return super().fit(train, validation, monitor)
"""

WORK = """
import sys
from pathlib import Path
from functools import partial
from bench.method import Range
from bench.spec import RunSpec, SplitSpec
from bench.tracking.tracker import Tracker
from bench.tuning.search import Search
from bench.tuning.share import TuneOptions
from bench.tuning.studies import storage_of
from bench.tuning.study import tune
method, results, trials, jobs = sys.argv[1:]
spec, tracker = RunSpec(method, "tiny", "kind", split=SplitSpec("capture")), Tracker(results)
options = TuneOptions(storage_of(tracker), Path(results), int(trials), "cpu", partial(print, flush=True), int(jobs))
summary = tune(Search(spec, {"x": Range(1, 1_000_000)}), tracker, options)
print("ended", summary["default"]["trial"], summary["equal"], flush=True)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Folders of a home with a store, of an own method and of results, and the file of what was fitted by whom."""
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FITS", str(tmp_path / "fits"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "slow.py").write_text(METHOD)
    write_store(tmp_path / "home")
    return tmp_path


def begin(place, trials, jobs=1):
    words = [sys.executable, "-c", WORK, f"{place / 'slow.py'}:Slow", str(place / "results"), str(trials), str(jobs)]
    where = {"env": os.environ | {"OMP_NUM_THREADS": "1"}, "cwd": Path(__file__).parents[1]}
    where["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job ignores it
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **where)


def fits(place):
    """What was begun: point and process."""
    path = place / "fits"
    return [tuple(line.split(" ", 1)) for line in path.read_text().splitlines()] if path.is_file() else []


def wait_for(condition, worker):
    until = time.monotonic() + 120
    while not (found := condition()):
        assert worker.poll() is None and time.monotonic() < until, worker.communicate()
        time.sleep(0.02)
    return found


def trials_of(place):
    """The study's trials, of the one study that the database has."""
    import optuna

    url = storage_of(Tracker(place / "results")).url
    (name,) = optuna.get_all_study_names(url)
    return Look(optuna.load_study(study_name=name, storage=url).get_trials(deepcopy=False), 0)


@pytest.mark.slow
def test_three_processes_make_exactly_the_trials_and_one_is_killed(place):
    workers = [begin(place, 9) for _ in range(3)]
    killed = wait_for(lambda: [x for x, who in fits(place) if f" {workers[0].pid} " in who], workers[0])[-1]
    workers[0].kill()
    told = [worker.communicate(timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers[1:]] == [0, 0], told
    look = trials_of(place)
    assert (len(look.finished), look.running) == (9, [])
    begun = Counter(x for x, _ in fits(place))
    assert {x for x, number in begun.items() if number > 1} == {killed} and begun[killed] == 2
    assert len(begun) == len(look.known) == 9  # none was a repetition
    said = {out.splitlines()[-1] for out, _ in told[1:]}
    assert len(said) == 1 and said.pop().split()[2] != "None"  # both see the whole study, and that all are equal
    tracker = Tracker(place / "results")
    (study,) = tracker._client.search_runs(["1"], "tags.`bench.study` LIKE '%'")
    nested = tracker._client.search_runs(["1"], f"tags.`mlflow.parentRunId` = '{study.info.run_id}'")
    assert study.info.status == "FINISHED"
    assert Counter(run.info.status for run in nested) == {"FINISHED": 9, "KILLED": 1}
    assert not tracker.claims.holders()


@pytest.mark.slow
def test_jobs_end_with_their_parent_and_survive_each_other(place):
    parent = begin(place, 200, jobs=2)
    wait_for(lambda: len({who for _, who in fits(place)}) == 2 and len(fits(place)) > 3, parent)
    parent.send_signal(signal.SIGINT)
    out, _ = parent.communicate(timeout=60)
    assert parent.returncode != 0 and out.count("validation macro-F1") >= 1  # told by the parent
    assert not any(process_lives(who) for _, who in fits(place))
    look = trials_of(place)
    failed = len(look.of(TrialState.FAIL))
    assert look.running == [] and failed <= 2  # each closed its own

    before, wanted = len(fits(place)), len(look.finished) + 5
    parent = begin(place, wanted, jobs=2)
    number = wait_for(lambda: [who.split()[1] for _, who in fits(place)[before:]], parent)[-1]
    os.kill(int(number), signal.SIGKILL)
    out, error = parent.communicate(timeout=120)
    assert parent.returncode == 0, error
    assert "a process ended with signal 9" in out
    look = trials_of(place)
    assert (len(look.finished), look.running, len(look.of(TrialState.FAIL))) == (wanted, [], failed + 1)
    assert len(look.known) == wanted  # none was a repetition


@pytest.mark.slow
def test_trials_of_processes_that_had_to_be_killed_are_closed_by_who_killed_them(place, monkeypatch):
    monkeypatch.setenv("DEAF", "yes")
    parent = begin(place, 200, jobs=2)
    wait_for(lambda: len({who for _, who in fits(place)}) == 2, parent)
    parent.send_signal(signal.SIGINT)
    parent.communicate(timeout=60)
    assert not any(process_lives(who) for _, who in fits(place))
    look = trials_of(place)
    assert (look.running, len(look.of(TrialState.FAIL)), len(look.of(TrialState.WAITING))) == ([], 2, 2)
    assert not Tracker(place / "results").claims.holders()


@pytest.mark.parametrize("ended", [KeyboardInterrupt, Terminated])
@pytest.mark.parametrize("where", ["claimed", "drawn"])
def test_a_trial_that_was_drawn_and_not_begun_is_closed_by_who_is_interrupted(place, monkeypatch, where, ended):
    """A moment of milliseconds, which a loaded machine makes longer: as a process that --jobs began was hit once."""
    method = f"{place / 'slow.py'}:Slow"
    search = Search(RunSpec(method, "tiny", "kind", split=SplitSpec("capture")), {"x": Range(1, 1_000_000)})
    tracker, take = Tracker(place / "results"), Claims.take
    options = TuneOptions(storage_of(tracker), place / "results", trials=2)

    def evaluate(*_):
        raise ended

    def take_but_of_a_trial(claims, name, **words):
        if name.rpartition(" ")[2] != "0":
            return take(claims, name, **words)
        monkeypatch.setattr(Claims, "take", take)
        raise ended

    at = (Share, "_evaluate", evaluate) if where == "claimed" else (Claims, "take", take_but_of_a_trial)
    monkeypatch.setattr(*at)
    with tracker.study(search.name, search.spec) as run, pytest.raises(ended):
        Share(search, options).work(run)
    look = trials_of(place)
    assert (look.running, len(look.of(TrialState.FAIL)), len(look.of(TrialState.WAITING))) == ([], 1, 1)


def test_who_reads_a_study_writes_nothing_into_tables_that_another_process_makes(tmp_path, monkeypatch):
    """Optuna writes its version wherever it finds none, also for reading; then the process that makes them fails."""
    from optuna.storages._rdb.models import BaseModel

    storage = Address(f"sqlite:///{tmp_path / 'optuna.db'}", tmp_path)
    monkeypatch.setattr("bench.tuning.studies.reading_uri", lambda address: address.uri)  # as of a server
    engine = sa.create_engine(storage.uri)
    BaseModel.metadata.create_all(engine)  # what another process has done by now
    search = Search(RunSpec("majority", "tiny", "kind", split=SplitSpec("capture")), {})
    assert stored_study(search, storage) is None
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM version_info")).scalar() == 0
    assert not sa.inspect(engine).has_table("alembic_version")
    made = open_study(search, storage, Claims(storage))
    assert stored_study(search, storage).study_name == made.study_name


@pytest.mark.slow
@pytest.mark.skipif(servers.PROGRAMS is None, reason="no PostgreSQL: Debian's package postgresql brings it")
def test_three_processes_begin_at_once_on_an_empty_database_server(place, monkeypatch):
    """Nobody finds half a table; the tables of MLflow, of claims and of Optuna are made once."""
    pytest.importorskip("psycopg2", reason="no psycopg2: the extra `postgresql` brings it")
    with servers.postgres() as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url())
        workers = [begin(place, 6) for _ in range(3)]
        told = [worker.communicate(timeout=300) for worker in workers]
        failed = [error for worker, (_, error) in zip(workers, told, strict=True) if worker.returncode]
        assert not failed, "\n".join(failed)
        look = trials_of(place)
        assert (len(look.finished), look.running, len(look.known)) == (6, [], 6), told
        assert len({x for x, _ in fits(place)}) == len(fits(place)) == 6
        assert {out.splitlines()[-1].split()[0] for out, _ in told} == {"ended"}
    assert not any(servers.PASSWORD in text for pair in told for text in pair)
