"""Faults of the world around: full disks, lost databases, captures that change, folders that cannot be written.

Each ends in one line with its place and a remedy; nothing half done is taken for whole, and what was found is kept.
"""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from refusals import refused
from small_captures import pcap, talk
from tiny_store import write_store

from bench.data.prepare import open_dataset
from bench.data.store import Store
from bench.runs.execute import execute
from bench.runs.matrix import run_matrix
from bench.runs.plan import expand
from bench.spec import SplitSpec
from bench.tracking.tracker import Tracker
from methods.majority import Majority

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a home of one store, and a results folder whose database is made."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("faults")
        patch.setenv("BENCH_HOME", str(folder / "home"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        write_store(folder / "home")
        (made,) = specs("majority", [99])
        assert execute(made, Tracker(folder / "results")).status == "done"
        yield folder


@pytest.fixture
def tracker(place, tmp_path, monkeypatch):
    """A store of runs of its own that gives up soon."""
    monkeypatch.setattr("bench.tracking.writing.WAITS", ())
    monkeypatch.setattr("bench.tracking.tracker.BUSY_SECONDS", 0.2)
    monkeypatch.setattr("bench.tracking.database.BUSY_SECONDS", 0.2)
    shutil.copytree(place / "results", tmp_path / "results")
    return Tracker(tmp_path / "results")


def specs(method, seeds):
    return expand([method], [Store.find("tiny")], SplitSpec("capture"), seeds=seeds)


def open_runs(tracker):
    return [run.spec.split.seed for run in tracker.search(latest=False) if run.status == "running"]


def pending(tracker):
    return sorted(path.name for path in (tracker.results / "pending").iterdir())


def captures(folder):
    """Two classes of two captures."""
    for number, name in enumerate(("a/1.pcap", "a/2.pcap", "b/1.pcap", "b/2.pcap")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pcap(talk(1000 + number, name.encode() * 200)))
    return folder


# --- a disk that is full --------------------------------------------------------------------------------------


def full(*given, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["bench.tracking.results.RunResult.save", "methods.majority.Majority.save",
                                   "pathlib.Path.write_text"])  # fmt: skip
def test_a_full_disk_ends_the_matrix_by_a_line_and_the_same_command_goes_on(place, tracker, monkeypatch, where):
    both = specs("majority", range(2))
    with monkeypatch.context() as patch:
        patch.setattr(where, full)
        with refused("unwritable-file", tracker.results / "pending", "No space left", "make room") as caught:
            list(run_matrix(both, tracker))
    assert "/." not in str(caught.value)  # the folder, and not what is hidden in it
    assert pending(tracker) == [] and open_runs(tracker) == [] and not tracker.claims.holders()
    assert [outcome.status for outcome in run_matrix(both, Tracker(tracker.results))] == ["done", "done"]


def test_a_method_that_finds_no_room_fails_alone(place, tracker, monkeypatch):
    monkeypatch.setattr(Majority, "fit", full)
    outcomes = list(run_matrix(specs("majority", range(2)), tracker))
    assert [outcome.status for outcome in outcomes] == ["failed", "failed"] and "No space" in outcomes[0].reason
    assert pending(tracker) == [] and open_runs(tracker) == []


def test_a_preparation_without_room_says_where(tmp_path, monkeypatch):
    folder = captures(tmp_path / "apps")
    monkeypatch.setattr("bench.data.build.write_columns", full)
    with refused("unwritable-file", tmp_path / "home" / "stores" / "apps", "No space left", "make room"):
        open_dataset(str(folder), home=tmp_path / "home")
    assert [path.name for path in (tmp_path / "home" / "stores").iterdir()] == [".apps.lock"]


SPILL = """
import resource, sys
from bench import readers
readers.SPILL_BYTES = 1
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    readers._zeros((1 << 20,))[:] = 1
except InputError as error:
    print(error.code, error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot reserve room")
def test_a_large_array_that_finds_no_room_is_a_line(tmp_path):
    """Written to through a map it would end the process by SIGBUS."""
    words = {"capture_output": True, "text": True, "cwd": ROOT, "env": os.environ | {"TMPDIR": str(tmp_path)}}
    done = subprocess.run([sys.executable, "-c", SPILL], check=False, **words)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith(f"unwritable-file {tmp_path}: cannot")


# --- a store of runs that is lost -----------------------------------------------------------------------------


def corrupt(database):
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (database.stat().st_size - 8192))


def become_a_folder(database):
    database.unlink()
    database.mkdir()


def hold(database):
    """Another program that writes and does not end."""
    connection = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
    connection.execute("begin exclusive")
    HELD.append(connection)


def vanish(database):
    shutil.rmtree(database.parent)


HELD = []
HURTS = {
    "removed": Path.unlink,
    "a folder": become_a_folder,
    "shortened": lambda database: os.truncate(database, 5000),
    "emptied": lambda database: os.truncate(database, 0),
    "corrupt": corrupt,
    "held": hold,
    "gone with its folder": vanish,
}


@pytest.mark.parametrize("how", HURTS)
def test_a_fit_outlives_its_database(place, tracker, tmp_path, monkeypatch, how):
    """Hurt during the fit; the run is kept, and logged when the database is back, without training again.

    The results folder may have been moved since.
    """
    database, (spec, after) = tracker.address.file, specs("majority", range(2))
    fit, fits = Majority.fit, []

    def hurt(self, *given):
        fits.append(1)
        HURTS[how](database)
        return fit(self, *given)

    monkeypatch.setattr(Majority, "fit", hurt)
    with refused("storage-failed", tracker.results / "pending", "bench sync"):
        list(run_matrix([spec, after], tracker))
    assert pending(tracker) == [spec.digest] and len(fits) == 1
    monkeypatch.setattr(Majority, "fit", fit)
    while HELD:
        HELD.pop().close()
    shutil.rmtree(database) if database.is_dir() else database.unlink(missing_ok=True)
    shutil.copy(place / "results" / "mlflow.db", database)
    tracker.results.rename(tmp_path / "moved")  # as another process, which knows nothing of the database before
    again = Tracker(tmp_path / "moved")
    assert [outcome.status for outcome in run_matrix([spec, after], again)] == ["cached", "done"]
    assert pending(again) == [] and again.load(again.finished(spec.digest).run_id).predictions().classes
    assert len([run for run in again.search(latest=False) if run.digest == spec.digest and run.status == "done"]) == 1
