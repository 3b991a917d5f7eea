"""`bench ui`: its addresses, and the server that it starts and ends; `test_browser.py` looks at the pages."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from refusals import refused
from reported import EVIL

from bench.report import mlflow_server
from bench.report.mlflow_server import links, page_of, served
from bench.tracking.address import Address
from bench.tracking.database import VIEW_TAG, Experiment, experiments_of_server
from bench.tracking.tracker import Tracker
from bench.tracking.writing import PAGE

LISTENS = """
import socket, subprocess, sys, time
print("a warning of no use", flush=True)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
listener = socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])))
time.sleep(600)
"""


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def program(monkeypatch, text):
    """Let that be what is started in place of MLflow's server."""
    monkeypatch.setattr(mlflow_server, "PROGRAM", ("-c", text))


def test_experiments_are_those_with_runs_the_newest_first_as_a_server_tells_them(tracker):
    found = tracker.experiments()
    assert [one.name for one in found] == ["bench/traffic/app", f"bench/{EVIL}/{EVIL}"]
    assert found[0].newest >= found[1].newest > 0 and all(one.view for one in found)
    assert experiments_of_server(tracker._client) == found


def test_an_experiment_of_an_earlier_version_gets_its_columns_with_the_next_run(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    of_before = {name: value for name, value in PAGE.items() if name != VIEW_TAG}
    tracker = Tracker(tmp_path)
    tracker._client.create_experiment("bench/old/app", tags=of_before | {"mlflow.note.content": "mine"})
    number = Tracker(tmp_path)._experiment("bench/old/app")
    tags = tracker._client.get_experiment(number).tags
    assert tags[VIEW_TAG] == PAGE[VIEW_TAG] and tags["mlflow.note.content"] == "mine"
    assert tracker.experiments() == []  # it has no runs


def test_a_store_that_is_not_there_has_no_experiments(tmp_path):
    assert Tracker(tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}").experiments() == []
    assert list(tmp_path.iterdir()) == []


def test_addresses_lead_to_training_runs_and_hold_no_password():
    page = page_of(Address("https://me:secret@host:8443/runs/"))
    assert links(page, [Experiment("7", "bench/a/b", 1, "bench"), Experiment("8", "bench/a/c", 1, "")]) == {
        "bench/a/b": "https://host:8443/runs/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=bench",
        "bench/a/c": "https://host:8443/runs/#/experiments/8/runs?workflowType=machine_learning",
    }


def test_words_are_checked_before_a_server_is_started(results, command_line, monkeypatch, tmp_path, port):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    program(monkeypatch, "raise SystemExit('started')")
    status, out, err = command_line("ui", "--results", tmp_path / "nowhere")
    assert (status, out) == (2, "") and "[no-results]" in err and not (tmp_path / "nowhere").exists()
    with socket.create_server(("127.0.0.1", port)):
        status, out, err = command_line("ui", "--results", results, "--port", str(port))
    assert (status, out) == (2, "") and f"port {port}" in err and "[port-taken]" in err and err.count("\n") == 1


def test_a_server_that_ends_by_itself_is_one_line_with_the_last_that_it_said(port, tmp_path, monkeypatch):
    program(monkeypatch, "print('begun'); print('cannot open\\n the store \\n\\n'); raise SystemExit(3)")
    with refused("server-ended", "status 3 (the store)"), served(Address("sqlite:///x.db"), port) as server:
        server.wait_until_it_listens()


def test_no_process_of_a_server_is_left_when_its_block_ends(port, monkeypatch):
    program(monkeypatch, LISTENS)
    with served(Address("sqlite:///x.db"), port) as server:
        server.wait_until_it_listens()
        assert server.page == f"http://127.0.0.1:{port}"
        group = server._process.pid
        os.killpg(group, 0)
    assert is_gone(group)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_the_addresses_are_printed_once_it_listens_and_a_signal_ends_all(number, status, results, port, tmp_path):
    code = (
        "from bench.report import mlflow_server\n"
        f"mlflow_server.PROGRAM = ('-c', {LISTENS!r})\n"
        "from bench.cli import main\nmain()"
    )
    words = ["ui", "--results", str(results), "--port", str(port)]
    own = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-c", code, *words]

    def heard():  # what a shell's job, or one under nohup, ignores
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=own, text=True, preexec_fn=heard, **pipes) as bench:
        lines = [bench.stdout.readline() for _ in range(2)]
        socket.create_connection(("127.0.0.1", port)).close()
        children = Path(f"/proc/{bench.pid}/task/{bench.pid}/children")
        group = int(children.read_text().split()[0]) if children.is_file() else None
        bench.send_signal(number)
        _, err = bench.communicate()
    assert bench.returncode == status
    assert [line.split("  ")[1].strip() for line in lines] == ["bench/traffic/app", f"bench/{EVIL}/{EVIL}"]
    assert all(line.startswith(f"http://127.0.0.1:{port}/#/experiments/") for line in lines)
    assert "warning" not in err and "Traceback" not in err
    assert group is None or is_gone(group)


def is_gone(group):
    """Whether no process of a group lives; what was killed needs a moment to be cleared away."""
    for _ in range(100):
        with suppress(ProcessLookupError):
            os.killpg(group, 0)
            time.sleep(0.1)
            continue
        return True
    return False
