"""The store of runs on Debian's PostgreSQL, and every command that docs/scaling.md shows."""

import os
import re
import subprocess
import sys
import threading

import pytest
import servers
from refusals import refused
from servers import PASSWORD, ROOT, free_port, postgres
from tiny_store import write_store

from bench.data.store import Store
from bench.matrix.cells import run_matrix
from bench.runs.execute import RunOptions, execute
from bench.runs.plan import expand
from bench.spec import SplitSpec
from bench.tracking.tracker import Tracker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(servers.PROGRAMS is None, reason="no PostgreSQL: Debian's package postgresql brings it"),
]
pytest.importorskip("psycopg2", reason="no psycopg2: the extra `postgresql` brings it")


@pytest.fixture(scope="module")
def server():
    with postgres() as one:
        yield one


@pytest.fixture
def cell(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    write_store(tmp_path / "home")
    return lambda seed: expand(["majority"], [Store.find("tiny")], SplitSpec("capture"), seeds=[seed])[0]


def test_a_database_that_stops_during_a_fit_has_the_run_when_it_is_back(server, cell, tmp_path, monkeypatch):
    """Back within the retries, and after the process gave up."""
    tracker, fits, back = Tracker(tmp_path / "results", server.url()), [], threading.Timer(1.0, server.start)

    def stops(spec, stage, values):
        if stage == "fit":
            fits.append(spec.digest)
            server.stop("immediate")
            if len(fits) == 1:
                back.start()

    monkeypatch.setattr("bench.tracking.writing.WAITS", (0.5,) * 60)
    assert execute(cell(0), tracker, RunOptions(progress=stops)).status == "done"
    back.join()
    monkeypatch.setattr("bench.tracking.writing.WAITS", (0.1,))
    try:
        with refused("storage-failed", ":***@", "is kept in", "bench sync"):
            execute(cell(1), tracker, RunOptions(progress=stops))
    finally:
        server.start()
    later = Tracker(tmp_path / "results", server.url())
    assert [o.status for o in run_matrix([cell(0), cell(1)], later)] == ["cached", "cached"] and len(fits) == 2
    assert [run.status for run in later.search(latest=False)] == ["done", "done"]
    assert later.load(later.finished(cell(1).digest).run_id).predictions().probabilities.shape[1] == 3


def test_what_a_database_refuses_is_one_line_and_its_password_is_nowhere(server, cell, tmp_path):
    results = tmp_path / "results"
    assert execute(cell(5), Tracker(results, server.url())).status == "done"
    server.sql(
        "CREATE ROLE reader LOGIN PASSWORD 'only reads'", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"
    )
    reader = Tracker(results, server.url(user="reader", password="only%20reads"))
    assert execute(cell(5), reader).status == "cached"
    asked = {
        "password authentication failed": Tracker(results, server.url(password="wrong one")),
        'database "nowhere" does not exist': Tracker(results, server.url("nowhere")),
        "permission denied": reader,
    }
    for words, tracker in asked.items():
        with refused("storage-failed", words, "***@", "docs/scaling.md") as caught:
            execute(cell(6), tracker)
        assert not [secret for secret in ("wrong one", PASSWORD, "only") if secret in str(caught.value)]
    tables = [name for (name,) in server.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    kept = "\n".join(str(server.sql(f'SELECT * FROM "{name}"')) for name in tables)
    kept += "".join(path.read_text(errors="replace") for path in results.rglob("*") if path.is_file())
    assert PASSWORD not in kept and PASSWORD.replace("/", "%2F") not in kept and "tiny" in kept


def page():
    """The commands of docs/scaling.md: blocks and who runs them."""
    return re.findall(r"```sh( title=.*?)?\n(.*?)```", (ROOT / "docs" / "scaling.md").read_text(), re.S)


def test_the_commands_of_the_page_run_from_top_to_bottom(tmp_path):
    """Two servers and three workers of the page's own, on ports that are free, and the numbers of a process alone."""
    ports = {shown: str(free_port()) for shown in ("5433", "5000", "8786")}
    folder = servers.own_folder()
    try:
        (folder / "password").write_text(PASSWORD)
        blocks = [(owner, re.sub("|".join(ports), lambda m: ports[m[0]], text)) for owner, text in page()]
        database = "\n".join(text for owner, text in blocks if owner)
        as_owner = {"cwd": folder, "env": os.environ | {"PATH": f"{servers.PROGRAMS}:{os.environ['PATH']}"}}
        subprocess.run(["bash", "-ec", database], check=True, stdout=subprocess.DEVNULL, **as_owner, **servers.owner())
        script = "\n".join(waiting(line, ports) for owner, text in blocks if not owner for line in text.splitlines())
        (tmp_path / "password").write_text(PASSWORD)
        done, told = ran(script, tmp_path)
        assert done == 0, told
    finally:
        stop = [servers.PROGRAMS / "pg_ctl", "-D", "database", "-m", "immediate", "stop"]
        subprocess.run(stop, cwd=folder, capture_output=True, **servers.owner())
        servers.shutil.rmtree(folder, ignore_errors=True)
    assert told.count(" done") >= 5 and PASSWORD not in told
    assert len(list((tmp_path / "artefacts").rglob("predictions.npz"))) == 4


def waiting(line, ports):
    """A line that starts a server or workers, and then waits for them as a reader would."""
    if not line.endswith("&"):
        return line
    if line.startswith("dask worker"):
        ready = "[ $(grep -c 'Registered to' log) -ge 2 ]"
    else:
        port = next(port for port in ports.values() if f"--port {port}" in line)
        ready = f"(echo > /dev/tcp/127.0.0.1/{port})"
        if line.startswith("mlflow"):
            code = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{port}/health')"
            ready = f'{sys.executable} -c "{code}"'
    return f"{line}\nuntil {ready} 2> /dev/null; do sleep 0.1; done"


def ran(script, folder):
    """Exit status and all output of a script in a folder; what it leaves running is ended."""
    programs = folder / "bin"
    programs.mkdir()
    for name in ("bench", "dask", "mlflow"):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {name} "$@"\n')
        (programs / name).chmod(0o755)
    env = os.environ | {"HOME": str(folder), "BENCH_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    env |= {"PATH": f"{programs}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    log = folder / "log"
    with servers.program(["bash", "-ec", script], log, cwd=folder, env=env) as process:
        status = process.wait(timeout=300)
    return status, log.read_text()
