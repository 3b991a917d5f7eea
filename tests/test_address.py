"""Where the store of runs is: servers that do not answer, and passwords that nobody sees."""

import contextlib
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import sqlalchemy as sa
from refusals import refused

from bench.errors import InputError
from bench.tracking import address as module
from bench.tracking import database
from bench.tracking.address import Address, without_password
from bench.tracking.database import engine_of
from bench.tracking.tracker import Tracker

SECRET = "postgresql://me:s3cr%2Fet@127.0.0.1:{}/runs"


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(database, "ANSWER_SECONDS", 2)  # PostgreSQL's library waits whole seconds, two at least


@contextlib.contextmanager
def silent():
    """A port that takes connections and never answers."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        yield one.getsockname()[1]


@contextlib.contextmanager
def answering(status):
    """A server of HTTP that answers all with one status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *words):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_port_that_never_answers_is_one_line(impatient, tmp_path):
    with silent() as port:
        with refused("storage-failed", "timed out", "docs/scaling.md"):
            Tracker(tmp_path, f"http://me:secret@127.0.0.1:{port}").search()
        pytest.importorskip("psycopg2", reason="no psycopg2: the extra `postgresql` brings it")
        with refused("storage-failed", "timeout expired", "me:***@"):
            Tracker(tmp_path, SECRET.format(port)).search()


@pytest.mark.parametrize("where", ["http://10.255.255.1:5000", "postgresql://me:s3cret@10.255.255.1/runs"])
def test_a_host_that_is_not_reached_is_one_line(where, impatient, monkeypatch, tmp_path):
    def away(place, timeout):
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", away)  # some networks answer for any address
    with refused("storage-failed", "10.255.255.1", "timed out") as caught:
        Tracker(tmp_path, where).search()
    assert "s3cret" not in str(caught.value)


def test_a_server_that_fails_is_one_line_and_one_that_refuses_us_answers(impatient, tmp_path):
    with answering(500) as port, refused("storage-failed", f"http://127.0.0.1:{port}", "500"):
        Tracker(tmp_path, f"http://127.0.0.1:{port}").search()
    with answering(401) as port:
        Address(f"http://me:secret@127.0.0.1:{port}").check()


def test_a_driver_that_is_missing_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with silent() as port, refused("storage-failed", "pip install 'etc-bench[postgresql]'", "psycopg2"):
        engine_of(Address(SECRET.format(port)))


def test_the_driver_is_named_whatever_the_library_would_take():
    assert Address("postgresql://h/runs").url == "postgresql+psycopg2://h/runs"
    for other in ("postgresql+psycopg://h/runs", "sqlite:////postgresql://h", "http://h"):
        assert Address(other).url == other


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://me:s3cr/et@h:1/runs",
        "postgresql+psycopg2://me:s3cr@et@h/runs",
        "postgresql://me:a s3cr et@h/runs",
        "postgresql://h/runs?user=me&password=s3cr",
        "http://me:s3cr@h:5000",
    ],
)
def test_no_password_is_shown(uri):
    assert "s3cr" not in f"{Address(uri)} {Address(uri).failed(uri)}" and "et@" not in Address(uri).shown
    assert without_password("no password at https://h/a:b@c") == "no password at https://h/a:b@c"


def test_a_library_that_says_the_password_alone_is_not_heard():
    address = Address(SECRET.format(1))
    assert address.without_secret("login me, s3cr/et or s3cr%2Fet") == "login me, *** or ***"
    assert Address("postgresql://me:e@h/runs").without_secret("permission denied") == "permission denied"


def test_the_page_of_a_server_that_does_not_answer_is_a_line_without_its_password(monkeypatch, tmp_path):
    from click.testing import CliRunner

    from bench.cli import cli

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:s3cret@127.0.0.1:9")
    done = CliRunner().invoke(cli, ["ui", "--results", str(tmp_path)])
    assert isinstance(done.exception, InputError) and done.exception.code == "storage-failed" and not done.output
    assert "http://me:***@127.0.0.1:9" in str(done.exception) and "s3cret" not in str(done.exception)


def test_a_line_has_the_reason_without_the_statement(tmp_path):
    error = sa.exc.OperationalError("INSERT INTO trials VALUES (?)", (1,), OSError("disk I/O error"))
    line = str(Address(f"sqlite:///{tmp_path}/optuna.db", tmp_path).failed(error))
    assert "disk I/O error)" in line and "SQL" not in line.partition("optuna.db")[2] and "INSERT" not in line
