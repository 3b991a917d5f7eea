"""Where cells are computed: what a worker of a cluster is asked for, and that a cell there is one at home."""

import dataclasses
import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from refusals import refused
from servers import ROOT, dask_cluster, free_port, program
from small_captures import write_captures
from tiny_store import write_store

from bench.data.manifest import store_path
from bench.data.sources import CaptureFile
from bench.data.store import Store
from bench.matrix import cluster
from bench.matrix.cells import run_matrix
from bench.matrix.cluster import Asked, check_scheduler, look, needs_of, received
from bench.matrix.readers import on_cluster
from bench.runs import execute
from bench.runs.execute import RunOptions
from bench.runs.plan import expand
from bench.spec import SplitSpec
from bench.tracking.tracker import Tracker

dask = pytest.importorskip("dask", reason="no dask: the extra `dask` brings it")
pytest.importorskip("distributed", reason="no dask.distributed: the extra `dask` brings it")

METHOD = """
import time
from methods.majority import Majority

class Slow(Majority):
    name = "slow"
    def fit(self, train, validation, monitor):
        time.sleep(0.5)
        return super().fit(train, validation, monitor)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Folders of a home with a store, and of an own method."""
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    for name in ("MLFLOW_TRACKING_URI", "BENCH_CLAIMS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "slow.py").write_text(METHOD)
    write_store(tmp_path / "home")
    return tmp_path


def specs(place, seeds=1):
    return expand([f"{place / 'slow.py'}:Slow"], [Store.find("tiny")], SplitSpec("capture"), seeds=range(seeds))


def asked(place, tracker, **fields):
    tracker.claims.take("sign")
    return dataclasses.replace(Asked.of(specs(place), "sign", RunOptions()), **fields)


def of_records(home, name="tiny"):
    """Let a store be one of flow records, which has no captures."""
    path = store_path(name, home) / "manifest.json"
    table = {"path": "flows.csv", "size": 1, "sha256": "", "records": 1}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tables": [table]}))
    sources = {"root": str(home), "mtime_ns": {}, "unpacked": {}, "written": {}, "origin": ""}
    path.with_name("sources.json").write_text(json.dumps(sources))


def test_a_worker_that_has_all_lacks_nothing(place):
    tracker = Tracker(place / "results")
    assert look(asked(place, tracker), tracker) == cluster.Seen()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda place, tracker: asked(place, tracker, version="0" * 16), "its code is"),
        (lambda place, tracker: asked(place, tracker, sign="another"), "name a database server in MLFLOW_TRACKING_URI"),
        (lambda place, tracker: asked(place, tracker, device="cuda"), "torch has no cuda there"),
    ],
)
def test_a_worker_says_what_it_lacks(place, change, told, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    tracker = Tracker(place / "results")
    assert told in look(change(place, tracker), tracker).problem


def test_other_code_of_a_method_another_store_or_none_is_told(place, monkeypatch):
    tracker = Tracker(place / "results")
    wanted = asked(place, tracker)
    (place / "slow.py").write_text(METHOD.replace("0.5", "0.6"))
    execute._code_of_method.cache_clear()  # as in another process
    assert "put the same file at the same path" in look(wanted, tracker).problem
    (place / "slow.py").write_text(METHOD)
    execute._code_of_method.cache_clear()
    monkeypatch.setenv("BENCH_HOME", str(place / "other"))
    assert look(wanted, tracker) == cluster.Seen(stores=("tiny",))
    write_store(place / "other", sessions=240)
    assert "prepared again" in look(wanted, tracker).problem


def test_captures_that_are_not_there_are_named(place):
    tracker = Tracker(place / "results")
    path = store_path("tiny") / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["captures"][3] |= {"bytes": 7}
    path.write_text(json.dumps(manifest))
    sources = {"root": "/far/away", "mtime_ns": {}, "unpacked": {}, "written": {}, "origin": ""}
    path.with_name("sources.json").write_text(json.dumps(sources))
    assert "/far/away/3.pcap: capture of tiny is not there" in look(asked(place, tracker), tracker).problem


def test_a_file_of_runs_that_a_worker_does_not_see_is_not_made_there(place):
    tracker, elsewhere = Tracker(place / "results"), Tracker(place / "elsewhere")
    assert "mlflow.db is another one there" in look(asked(place, tracker), elsewhere).problem
    assert list((place / "elsewhere").iterdir()) == []


def test_a_results_folder_that_cannot_be_made_is_told(place):
    tracker = Tracker(place / "results")
    wanted = asked(place, tracker)
    (place / "file").write_text("")
    assert "cannot be made there" in look(wanted, Tracker(place / "file" / "results")).problem


def test_claims_beside_a_server_go_to_workers(place, monkeypatch):
    monkeypatch.setenv("BENCH_CLAIMS", f"sqlite:///{place / 'claims.db'}")
    made, words = Tracker(place / "results", "http://127.0.0.1:9").__reduce__()
    monkeypatch.delenv("BENCH_CLAIMS")
    assert made(*words).shares_claims and made(*words) is made(*words)


def test_a_store_that_was_sent_is_the_same_and_takes_no_other_s_place(place, monkeypatch):
    of_records(place / "home")
    store = Store.find("tiny")
    files = {path.name: path.read_bytes() for path in store.path.iterdir()}
    monkeypatch.setenv("BENCH_HOME", str(place / "other"))
    assert received("tiny", files) == store.digest
    there = Store.find("tiny")
    assert (there.labels("kind") == store.labels("kind")).all() and there.path != store.path
    assert received("tiny", {"manifest.json": b"broken"}) == store.digest


def test_a_cell_asks_for_what_some_worker_declares_and_never_for_more(place):
    (cell,) = specs(place)
    said, peaks = [], {(cell.method, cell.dataset): 3e9}
    options = RunOptions(say=said.append)
    assert needs_of(cell, [{}, {}], peaks, options) == {}
    assert needs_of(cell, [{"MEMORY": 8e9}, {}], peaks, options) == {"MEMORY": 3e9}
    assert needs_of(cell, [{"MEMORY": 8e9}], {}, options) == {} and not said
    assert needs_of(cell, [{"MEMORY": 2e9}, {"MEMORY": 1e9}], peaks, options) == {"MEMORY": 2e9}
    assert "took 3.0 GB" in said[0] and "2.0 GB at most" in said[0]
    cuda = RunOptions(device="cuda", say=said.append)
    assert needs_of(cell, [{"MEMORY": 8e9}, {"GPU": 1.0, "MEMORY": 4e9}], peaks, cuda) == {"GPU": 1.0, "MEMORY": 3e9}
    assert needs_of(cell, [{}], peaks, cuda) == {}


@pytest.mark.parametrize("address", ["tcp://127.0.0.1", "127.0.0.1:8786", "http://127.0.0.1:8786", "tcp://h:port"])
def test_what_is_no_address_of_a_scheduler_is_refused(address):
    with refused("no-cluster", address):
        check_scheduler(address)


def test_a_scheduler_that_is_not_there_or_never_answers_is_one_line(place, monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 0.5)
    cells, tracker = specs(place), Tracker(place / "results")
    with refused("no-cluster", "no scheduler answers", "dask scheduler"):
        check_scheduler(f"tcp://127.0.0.1:{free_port()}")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with refused("no-cluster", "no scheduler answers"):
            list(run_matrix(cells, tracker, RunOptions(scheduler=address)))


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with refused("no-cluster", "pip install 'etc-bench[dask]'"):
        check_scheduler("tcp://127.0.0.1:8786")


@pytest.mark.slow
def test_cells_on_a_cluster_are_those_at_home_whichever_worker_dies(place, monkeypatch):
    """Both workers lack the data set, which is sent; one of them is killed while it is at a cell."""
    of_records(place / "home")
    cells, said = specs(place, 6), []
    assert Tracker(place / "results")._client  # tables are made, which takes seconds, once
    shutil.copytree(place / "results", place / "home-results")
    killer = threading.Thread(target=lambda: os.kill(a_worker(place), signal.SIGKILL))
    with dask_cluster(place, BENCH_HOME=str(place / "workers")) as scheduler:
        options = RunOptions(scheduler=scheduler, say=said.append)
        killer.start()
        outcomes = list(run_matrix(cells, Tracker(place / "results"), options))
        killer.join()
    assert sorted((o.spec.split.seed, o.status) for o in outcomes) == [(seed, "done") for seed in range(6)], outcomes
    assert "tables sent" in said[0] and (place / "workers" / "stores" / "tiny" / "manifest.json").is_file()
    home = {o.spec.digest: dict(o.metrics) for o in run_matrix(cells[:2], Tracker(place / "home-results"))}
    for outcome in (one for one in outcomes if one.spec.digest in home):
        mine = {key: value for key, value in outcome.metrics.items() if "seconds" not in key and "memory" not in key}
        assert mine == {key: home[outcome.spec.digest][key] for key in mine}
    every = Tracker(place / "results").search(latest=False)
    assert sorted(run.spec.split.seed for run in every if run.status == "done") == list(range(6))
    assert {run.status for run in every} <= {"done", "killed"} and not Tracker(place / "results").claims.holders()


def a_worker(place):
    """A process that has a claim."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for name, holder in Tracker(place / "results").claims.holders().items():
            number = int(holder.process.split()[1])
            if not name.startswith("scheduler") and number != os.getpid() and Path(f"/proc/{number}").is_dir():
                return number
        time.sleep(0.01)
    raise AssertionError("no worker has a claim")


@pytest.mark.slow
def test_a_cluster_that_cannot_compute_is_refused_before_the_first_cell(place, monkeypatch):
    cells, tracker = specs(place), Tracker(place / "results")
    monkeypatch.setattr(cluster, "WORKER_SECONDS", 0.2)
    with dask_cluster(place, workers=0) as scheduler, refused("no-cluster", "it has no worker", "--nthreads 1"):
        list(run_matrix(cells, tracker, RunOptions(scheduler=scheduler)))
    monkeypatch.setattr(cluster, "WORKER_SECONDS", 30)
    with dask_cluster(place, 1, ["--nthreads", "2"]) as scheduler, refused("no-cluster", "has 2 threads", "worker tcp"):
        list(run_matrix(cells, tracker, RunOptions(scheduler=scheduler)))
    (place / "foreign" / "bench").mkdir(parents=True)  # another installation
    (place / "foreign" / "bench" / "__init__.py").write_text("")
    foreign = {"PYTHONPATH": str(place / "foreign")}
    with dask_cluster(place, 1, **foreign) as scheduler, refused("no-cluster", "worker tcp", "the same etc-bench"):
        list(run_matrix(cells, tracker, RunOptions(scheduler=scheduler)))
    with dask_cluster(place, 1, BENCH_HOME=str(place / "other")) as scheduler:
        with refused("no-cluster", "worker tcp", "'tiny' is not prepared there", "captures are not sent", "BENCH_HOME"):
            list(run_matrix(cells, tracker, RunOptions(scheduler=scheduler)))
    assert tracker.search(latest=False) == []


@pytest.fixture
def tls(place, monkeypatch):
    """A certificate that everybody of a cluster has, this process, too."""
    key, certificate = str(place / "key.pem"), str(place / "certificate.pem")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=cluster"]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    words = {"ca-file": certificate}
    words |= {f"{role}.{what}": file for role in ("scheduler", "worker", "client")
              for what, file in (("cert", certificate), ("key", key))}  # fmt: skip
    for word, file in words.items():
        monkeypatch.setenv(f"DASK_DISTRIBUTED__COMM__TLS__{word.replace('.', '__').upper()}", file)
    with dask.config.set({f"distributed.comm.tls.{word}": file for word, file in words.items()}):
        yield


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl makes a certificate")
def test_a_cluster_that_loses_all_its_workers_ends_by_a_line_and_its_cells_are_taken_up_again(place, tls, monkeypatch):
    """With TLS, and workers that declare their memory, which the second cell asks for by what the first one took."""
    monkeypatch.setattr(cluster, "GONE_SECONDS", 3.0)
    tracker, words = Tracker(place / "results"), ["--no-nanny", "--resources", "MEMORY=16e9"]
    killer = threading.Thread(target=lambda: os.kill(a_worker(place), signal.SIGKILL))
    with dask_cluster(place, 1, words, "tls") as scheduler:
        options = RunOptions(scheduler=scheduler)
        assert scheduler.startswith("tls://") and [o.status for o in run_matrix(specs(place), tracker, options)] == [
            "done"
        ]
        killer.start()
        with refused("no-cluster", scheduler, "no worker is left", "start one"):
            list(run_matrix(specs(place, 3), tracker, options))
        killer.join()
    with dask_cluster(place, 1, words, "tls") as scheduler:
        outcomes = list(run_matrix(specs(place, 3), tracker, RunOptions(scheduler=scheduler)))
    assert sorted((o.spec.split.seed, o.status) for o in outcomes) == [(0, "cached"), (1, "done"), (2, "done")]
    every = tracker.search(latest=False)
    assert sorted(run.spec.split.seed for run in every if run.status == "done") == [0, 1, 2]
    assert {run.status for run in every} <= {"done", "killed"} and not tracker.claims.holders()


@pytest.mark.slow
def test_a_job_for_slurm_is_a_worker_that_computes_cells(place, monkeypatch):
    """The code of docs/scaling.md; its job is run here, as SLURM would run it elsewhere."""
    pytest.importorskip("dask_jobqueue", reason="no dask-jobqueue: `pip install dask-jobqueue` brings it")
    page = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    changed = {"8786": str(free_port()), "/shared/bench": str(place / "home")}
    for name in ("sbatch", "scancel"):
        (place / name).write_text("#!/bin/sh\necho Submitted batch job 7\n")
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    names = {}
    exec(re.sub("|".join(changed), lambda found: changed[found[0]], code), names)
    with names["cluster"] as slurm:
        script = slurm.job_script()
        assert "#SBATCH -t 08:00:00" in script and "#SBATCH --mem=15G" in script
        (place / "job").write_text(script)
        with program(["bash", place / "job"], place / "job.log", cwd=place):
            options = RunOptions(scheduler=slurm.scheduler_address)
            (outcome,) = run_matrix(specs(place), Tracker(place / "results"), options)
            (worker,) = slurm.scheduler.workers.values()
    assert outcome.status == "done", (place / "job.log").read_text()
    assert (worker.nthreads, worker.resources) == (1, {"MEMORY": 16e9})


def test_a_preparation_on_a_cluster_is_refused_before_anything_is_read(place, command_line):
    write_captures(place / "captures")
    for words, told in (
        (["--scheduler", "tcp://127.0.0.1:1"], "no scheduler answers"),
        (["--scheduler", "tcp://127.0.0.1:1", "--jobs", "2"], "give one"),
    ):
        status, _, error = command_line("prepare", place / "captures", *words)
        assert (status, error.count("\n")) == (2, 1) and told in error
    assert not store_path("captures").exists()


@pytest.mark.slow
def test_captures_that_a_cluster_reads_make_the_same_store(place, command_line, monkeypatch):
    """One of them is packed, and is unpacked by whoever reads it."""
    write_captures(place / "captures", 3)
    packed = next((place / "captures").rglob("*.pcap"))
    packed.with_name(f"{packed.name}.gz").write_bytes(gzip.compress(packed.read_bytes(), mtime=0))
    packed.unlink()
    digests = []
    with dask_cluster(place) as scheduler:
        for words in (["--scheduler", scheduler], ["--jobs", "2"]):
            status, _, told = command_line("prepare", str(place / "captures"), "--name", "mine", "--rebuild", *words)
            assert status == 0, told
            digests.append(Store.find("mine").digest)
        with on_cluster(scheduler) as (pool, most), refused("no-cluster", "lost.pcap is not there", "path that all"):
            assert most == 2
            pool.submit(str, CaptureFile(place, "lost.pcap", 7, 0)).result()
    assert digests[0] == digests[1]


def dies(file):
    """Kill the worker that reads, once where the file's name says so."""
    mark = file.root / "died"
    if file.path == "once" and mark.exists():
        return None, None, "read"
    mark.write_text("")
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it lives")


@pytest.mark.slow
def test_a_capture_whose_reader_dies_is_read_by_another_or_told(place, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'tests'}")  # for `dies`
    path = {"PYTHONPATH": os.environ["PYTHONPATH"]}
    for name in ("once", "always"):
        (place / name).write_text("")
    with dask_cluster(place, 1, **path) as scheduler, on_cluster(scheduler) as (pool, _):  # its nanny starts it again
        assert pool.submit(dies, CaptureFile(place, "once", 0, 0)).result()[2] == "read"
        with refused("no-cluster", "a worker died at read always", "too little memory"):
            pool.submit(dies, CaptureFile(place, "always", 0, 0)).result()
    monkeypatch.setattr(cluster, "GONE_SECONDS", 2.0)
    with dask_cluster(place, 1, ["--no-nanny"], **path) as scheduler, on_cluster(scheduler) as (pool, _):
        with refused("no-cluster", "no worker is left to read captures", "start one"):
            pool.submit(dies, CaptureFile(place, "always", 0, 0)).result()
