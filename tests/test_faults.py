"""Faults of the world around: full disks, lost databases, captures that change, folders that cannot be written.

Each ends in one line with its place and a remedy; nothing half done is taken for whole, and what was found is kept.
"""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from refusals import refused
from small_captures import pcap, talk, write_captures
from tiny_store import tiny_home

from bench import files
from bench.data.manifest import bench_home
from bench.data.prepare import open_dataset
from bench.data.sources import captures_below
from bench.data.store import Store
from bench.matrix.cells import run_matrix
from bench.runs.execute import execute
from bench.runs.plan import expand
from bench.spec import SplitSpec
from bench.tracking.tracker import Tracker
from methods.majority import Majority

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a home of one store, and a results folder whose database is made."""
    with tiny_home(tmp_path_factory, "faults") as folder:
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


# --- a disk that is full --------------------------------------------------------------------------------------


def full(*given, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["bench.tracking.results.RunResult.save", "bench.method.Method.save",
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
    folder = write_captures(tmp_path / "apps")
    monkeypatch.setattr("bench.data.build.write_columns", full)
    with refused("unwritable-file", tmp_path / "home" / "stores" / "apps", "No space left", "make room"):
        open_dataset(str(folder), home=tmp_path / "home")
    assert [path.name for path in (tmp_path / "home" / "stores").iterdir()] == [".apps.lock"]


def test_a_store_of_runs_whose_tables_found_no_room_is_made_whole_by_the_same_command(place, tmp_path, monkeypatch):
    """MLflow cannot go on with half of its tables: they are made aside, and before the table of claims."""
    from mlflow.store.db import utils

    made = utils._initialize_tables

    def half(engine):
        made(engine)
        raise sqlite3.OperationalError("database or disk is full")

    tracker = Tracker(tmp_path / "results")
    with monkeypatch.context() as patch:
        patch.setattr("mlflow.store.tracking.sqlalchemy_store.mlflow.store.db.utils._initialize_tables", half)
        with refused("storage-failed", "mlflow.db", "make room"):
            list(run_matrix(specs("majority", [0]), tracker))
    assert [path.name for path in (tmp_path / "results").iterdir() if path.suffix == ".db"] == []
    outcomes = list(run_matrix(specs("majority", [0]), Tracker(tmp_path / "results")))
    assert [outcome.status for outcome in outcomes] == ["done"]


SPILL = """
import resource, sys
from bench import readers
from bench.errors import InputError
readers.SPILL_BYTES = 1
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    readers.zeros((1 << 20,))[:] = 1
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


def test_a_finished_fit_of_another_store_is_not_replaced(place, tracker, tmp_path, monkeypatch):
    """Two stores share a results folder; both are away when a run of the same digest ends."""
    (spec,) = specs("majority", [0])
    shutil.copy(tracker.address.file, tmp_path / "results" / "other.db")
    stores = [tracker, Tracker(tracker.results, f"sqlite:///{tmp_path / 'results' / 'other.db'}")]
    for store in stores:
        run = store.start(spec, spec.name, {})
        monkeypatch.setattr(run, "_deliver", lambda: None)
        run.end("done")
    assert len(pending(tracker)) == 2
    assert [Tracker(tracker.results, store.address.uri).sync() for store in stores] == [[spec.name]] * 2
    assert pending(tracker) == [] and all(store.finished(spec.digest) for store in stores)


def test_a_run_that_waits_gives_way_to_one_that_was_computed_since(tracker, monkeypatch):
    """A process dies before it logs; another one, with a results folder of its own, takes the cell over."""
    (spec,) = specs("majority", [5])
    run = tracker.start(spec, "waits", {})
    monkeypatch.setattr(run, "_deliver", lambda: None)
    run.end("done")
    time.sleep(0.002)  # runs begin at different milliseconds
    assert execute(spec, tracker).status == "done"  # as by somebody who does not look into this folder
    assert tracker.sync() == ["waits"] and pending(tracker) == []
    found = [one for one in tracker.search(latest=False) if one.digest == spec.digest]
    assert sorted(one.status for one in found) == ["done", "killed"]
    (given_way,) = [one for one in found if one.status == "killed"]
    assert "computed it while this one waited" in given_way.reason


def test_a_run_that_is_interrupted_while_it_is_begun_does_not_stay_running(tracker, monkeypatch):
    (spec,), client = specs("majority", [6]), tracker._client
    begin = client.create_run

    def interrupted(*given, **more):
        begin(*given, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "create_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        execute(spec, tracker)
    assert [run.status for run in tracker.search(latest=False) if run.digest == spec.digest] == ["killed"]
    assert not list((tracker.results / "pending").glob(".*"))


def test_sync_tells_of_runs_that_wait_for_another_store(tracker, bench_in, tmp_path, monkeypatch):
    run = tracker.start(specs("majority", [0])[0], "one", {})
    monkeypatch.setattr(run, "_deliver", lambda: None)
    run.end("done")
    bench = bench_in(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'results' / 'other.db'}")
    status, out, err = bench("sync")
    assert status == 0 and "0 runs logged" in out and "mlflow.db" in err and "MLFLOW_TRACKING_URI" in err


def test_a_sync_that_is_killed_begins_no_run_twice(tracker, monkeypatch):
    (spec,) = specs("majority", [0])
    run = tracker.start(spec, "one", {})
    monkeypatch.setattr(run, "_deliver", lambda: None)
    run.end("done")
    tracker._client.delete_run(run.run_id)  # as in another store

    def killed(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("bench.tracking.writing._log", killed)
        with pytest.raises(KeyboardInterrupt):
            Tracker(tracker.results).sync()
    assert Tracker(tracker.results).sync() == ["one"]
    assert [found.status for found in tracker.search(latest=False) if found.digest == spec.digest] == ["done"]


# --- captures that change -------------------------------------------------------------------------------------


def test_a_capture_that_is_written_into_while_it_is_mapped_is_told(tmp_path):
    store = open_dataset(str(write_captures(tmp_path / "apps")), home=tmp_path / "home")
    first = tmp_path / "apps" / "a" / "0.pcap"
    content = store.capture_bytes(0).tobytes()
    os.utime(first, ns=(1, 1))
    assert store.capture_bytes(0).tobytes() == content  # the same bytes
    with first.open("r+b") as file:
        file.seek(100)
        file.write(b"other")
    with refused("capture-changed", first, "bench prepare"):
        store.capture_bytes(0)
    os.truncate(first, 50)
    with refused("capture-changed", first, "has 50 bytes"):
        store.capture_bytes(0)


BUS = """
import sys
from pathlib import Path
import numpy as np
from bench.files import mapped
whole, path = Path(sys.argv[1]), Path(sys.argv[2])
maps = [np.memmap(mapped(one), np.uint8, "r") for one in (whole, path)]
import os
os.truncate(path, 10)
print(int(maps[1][-1]))
"""


def test_a_map_that_is_read_behind_the_end_of_its_file_ends_the_process_by_a_line(tmp_path):
    for name in ("whole", "short"):
        (tmp_path / name).write_bytes(bytes(100_000))
    words = [sys.executable, "-c", BUS, tmp_path / "whole", tmp_path / "short"]
    done = subprocess.run(words, check=False, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "") and len(done.stderr.splitlines()) == 1
    assert f"{tmp_path / 'short'}: was shortened" in done.stderr and "[capture-changed]" in done.stderr


# --- what killed processes leave, and folders that nobody may write -------------------------------------------


def test_what_a_killed_process_left_goes_whatever_is_written_next(tmp_path):
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    name, apps = files._aside(tmp_path / "apps" / "demo-1"), tmp_path / "apps"
    left = apps / name.name.replace(f"-{os.getpid()}-", f"-{int(ended.stdout)}-")
    (left / "chat").mkdir(parents=True)
    (left / "chat" / "1.pcap").write_bytes(pcap(talk(1, b"x")))
    with refused("no-capture", apps):  # while it lies there it is no data
        captures_below(apps)
    store = open_dataset(str(write_captures(apps)), home=tmp_path / "home")
    assert store.manifest.sessions == 6 and store.manifest.ignored == {"hidden": 1}
    files.write_text(apps / "demo-2", "another name")
    assert not left.exists()


READ = """
import sys
from bench import cli
for words in sys.stdin.read().splitlines():
    sys.argv = ["bench", *words.split()]
    try:
        cli.main()
    except SystemExit as end:
        print("ended", end.code, flush=True)
"""
NO_RIGHTS = "-dac_override,-dac_read_search"  # of root, to write where nobody may


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() == 0 and not shutil.which("setpriv"), reason="nothing is forbidden to root")
def test_who_reads_needs_no_writing(tmp_path, bench_in):
    bench = bench_in(tmp_path)
    apps = write_captures(tmp_path / "apps", 5)
    asked = f"--dataset {apps} --split capture"
    assert bench("run", "--method", "majority", *asked.split())[0] == 0
    table = bench("table", "--json")[1]
    (tmp_path / "free").mkdir()
    for path in [*(tmp_path / "home").rglob("*"), *(tmp_path / "results").rglob("*"), tmp_path / "home",
                 tmp_path / "results"]:  # fmt: skip
        path.chmod(0o555 if path.is_dir() else 0o444)
    lines = ["table --json", f"report --output {tmp_path}/free/page.html", f"split {apps} --split capture",
             f"inspect {apps}", f"run --method majority {asked}", "sync",
             f"run --method majority {asked} --seed 5"]  # fmt: skip
    rights = ["setpriv", f"--bounding-set={NO_RIGHTS}", f"--inh-caps={NO_RIGHTS}"] if os.getuid() == 0 else []
    words = {"input": "\n".join(lines), "capture_output": True, "text": True, "cwd": tmp_path}
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*rights, sys.executable, "-c", READ], check=False, env=env, **words)
    for path in (tmp_path / "home", tmp_path / "results"):  # so that pytest can remove it
        for folder in [path, *filter(Path.is_dir, path.rglob("*"))]:
            folder.chmod(0o755)
    ends = [line for line in done.stdout.splitlines() if line.startswith("ended")]
    assert ends == ["ended 0"] * 6 + ["ended 2"], done.stderr
    assert done.stdout.startswith(table) and "Traceback" not in done.stderr
    assert "check its permissions" in done.stderr.splitlines()[-1]


def test_without_a_home_folder_the_remedy_is_told(monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    for name in ("BENCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    with refused("missing-file", "BENCH_HOME"):
        bench_home()


INTERRUPTED = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, *more):
        if name == "bench.cli.base":
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job ignores it
sys.meta_path.insert(0, Interrupt())
from bench.__main__ import main
main()
"""


def test_an_interrupt_while_the_command_line_is_imported_is_one_line():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "bench: interrupted before anything was done\n"
