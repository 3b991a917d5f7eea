"""A machine that lets something not be read or told: what is whole stays so, and what is computed counts."""

import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from refusals import refused

from bench.cli.progress import PlainLines
from bench.data import manifest as manifests
from bench.data import store as stores
from bench.data.store import Store
from bench.files import reading, writing
from bench.runs import kept_arrays
from bench.tracking import results
from bench.tracking.selection import stored_runs
from bench.tracking.tracker import Tracker

ROOT = Path(__file__).parents[1]


def test_a_copied_results_folder_keeps_its_own_runs(bench_in, tmp_path):
    bench = bench_in(tmp_path)
    words = ("run", "--dataset", "demo", "--results")
    assert bench(*words, "first", "--method", "majority")[0] == 0
    shutil.copytree("first", "second")
    assert bench(*words, "second", "--method", "ports")[0] == 0
    counted = [len(list((tmp_path / name / "artifacts").iterdir())) for name in ("first", "second")]
    assert counted == [1, 2]
    shutil.rmtree(tmp_path / "first")
    tracker = Tracker(tmp_path / "second", reading=True)
    assert len([tracker.load(one.row.run_id).predictions() for one in stored_runs(tracker)]) == 2


def test_a_store_that_may_not_be_read_is_not_called_damaged(bench_in, tmp_path, monkeypatch):
    bench = bench_in(tmp_path)
    assert bench("prepare", "demo")[0] == 0
    folder = Store.find("demo").path

    def closed(path, *more):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    before = {path: path.read_bytes() for path in (folder / "packets.arrow", folder / "manifest.json")}
    with monkeypatch.context() as patch:
        patch.setattr(stores, "mapped", closed)
        status, _, told = bench("split", "demo", "--split", "session")
        assert status == 2 and "cannot be read (Permission denied); check its permissions" in told
    with monkeypatch.context() as patch:
        patch.setattr(manifests.json, "loads", lambda content: closed("manifest.json"))
        with refused("unreadable-file", "manifest.json"):
            manifests.read_manifest(folder)
    assert before == {path: path.read_bytes() for path in before}


def test_kept_arrays_that_may_not_be_read_are_not_removed(tmp_path, monkeypatch):
    place = tmp_path / "key" / "entry"
    place.mkdir(parents=True)
    (place / kept_arrays.LIST).write_bytes(b"{}")

    def closed(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "read_bytes", closed)
        assert list(kept_arrays._parts_of(tmp_path / "key", None)) == []
    assert place.is_dir()
    assert list(kept_arrays._parts_of(tmp_path / "key", None)) == [] and not place.exists()


@pytest.mark.parametrize("trouble", [BrokenPipeError, OSError(errno.ENOSPC, "No space left on device")])
def test_progress_that_cannot_be_shown_stops_nothing(trouble, monkeypatch):
    class Stream:
        def write(self, text):
            raise trouble

    monkeypatch.setattr(sys, "stderr", Stream())
    PlainLines(every=0).show("half", 1, 2)


def test_streams_that_are_closed_are_no_trace(tmp_path):
    words = f"{sys.executable} -m bench run --method majority --dataset demo --results {tmp_path}/r 2>&-"
    done = subprocess.run(
        ["sh", "-c", words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"BENCH_HOME": str(tmp_path / "home")},
    )
    assert done.returncode == 0 and "majority" in done.stdout


def test_a_bundle_on_a_full_disk_names_the_place_and_is_not_called_damaged(bench_in, tmp_path):
    bench = bench_in(tmp_path)
    assert bench("run", "--dataset", "demo", "--method", "majority", "--results", "first")[0] == 0
    assert bench("results", "export", "runs.zip", "--results", "first")[0] == 0
    (tmp_path / "made").mkdir()
    words = [sys.executable, "-m", "bench", "results", "import", "runs.zip", "--results", "second"]
    full = subprocess.run(
        words, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "made")},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)),  # of one file: as a full disk would
        capture_output=True, text=True, check=False)  # fmt: skip
    assert full.returncode == 2, full
    assert (
        full.stderr.startswith(f"bench: {tmp_path}/made/") and "File too large; nothing is half written" in full.stderr
    )


def test_a_file_of_a_run_that_may_not_be_read_is_not_the_fault_of_the_bundle_written(bench_in, tmp_path, monkeypatch):
    bench = bench_in(tmp_path)
    assert bench("run", "--dataset", "demo", "--method", "majority", "--results", "first")[0] == 0

    def closed(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(results, "file_sha256", closed)
    status, _, told = bench("results", "export", "runs.zip", "--results", "first")
    assert status == 2 and "artifacts/" in told and "cannot be read (Permission denied)" in told
    assert not (tmp_path / "runs.zip").exists()


@pytest.mark.parametrize(("block", "code"), [(reading, "unreadable-file"), (writing, "unwritable-file")])
def test_too_many_open_files_are_no_want_of_room_or_rights(tmp_path, block, code):
    with refused(code, "Too many open files", "`ulimit -n 4096`"), block(tmp_path / "a"):
        raise OSError(errno.EMFILE, "Too many open files")
