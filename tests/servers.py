"""PostgreSQL, an MLflow server and Dask workers on the loopback address, which end with their block."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN_SECONDS = 120.0
PASSWORD = "s3cret/w0rd"  # with what an address must write as %2F
PROGRAMS = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)  # as Debian keeps them


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def owner():
    """Of a process of the server, which refuses to be root's: words of `subprocess.run`."""
    return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}


def own_folder():
    """A folder for the server's owner; those of pytest are root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="bench-postgres-"))
    if owner():
        shutil.chown(folder, "postgres", "postgres")
    return folder


class Postgres:
    """A server of PostgreSQL in a folder and with a port of its own; its user ``bench`` has `PASSWORD`."""

    def __init__(self):
        self.port = free_port()
        self.folder = own_folder()
        (self.folder / "password").write_text(PASSWORD)
        self("initdb", "-D", "data", "--no-sync", "-A", "scram-sha-256", "-U", "bench", "--pwfile=password")
        self.start()
        self.sql("CREATE DATABASE runs", database="postgres")

    def __call__(self, program, *words):
        done = subprocess.run([PROGRAMS / program, *words], cwd=self.folder, capture_output=True, text=True, **owner())
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self):
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        self("pg_ctl", "-D", "data", "-l", "log", "-w", "-o", options, "start")

    def stop(self, mode="immediate"):
        self("pg_ctl", "-D", "data", "-m", mode, "stop")

    def url(self, database="runs", user="bench", password=PASSWORD):
        return f"postgresql://{user}:{password.replace('/', '%2F')}@127.0.0.1:{self.port}/{database}"

    def sql(self, *statements, database="runs"):
        import psycopg2

        connection = psycopg2.connect(self.url(database))
        connection.autocommit = True  # a database is made outside a transaction
        with contextlib.closing(connection), connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else None


@contextlib.contextmanager
def postgres():
    """A `Postgres` that runs."""
    server = Postgres()
    try:
        yield server
    finally:
        with contextlib.suppress(AssertionError):  # it may be down
            server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)


@contextlib.contextmanager
def program(words, log, **more):
    """A program and all that it starts, as a group that is killed when the block ends."""
    with log.open("wb") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out, start_new_session=True, **more)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(port, process, log):
    """Until something listens there."""

    def listens():
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        return False

    wait_until(listens, process, log)


def wait_until(condition, process, log):
    """Until a program has come so far, however slow the machine is."""
    until = time.monotonic() + BEGIN_SECONDS
    while not condition():
        assert process.poll() is None and time.monotonic() < until, log.read_text()
        time.sleep(0.1)


@contextlib.contextmanager
def mlflow_server(database, folder):
    """The address of an MLflow server on a database, with its artefacts in a folder."""
    port, log = free_port(), folder / "mlflow.log"
    own = {"MLFLOW_BACKEND_STORE_URI": database, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--artifacts-destination", str(folder / "artefacts")]
    with program(words, log, env=os.environ | own) as process:
        wait_for(port, process, log)
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def dask_cluster(folder, workers=2, words=(), protocol="tcp", **env):
    """The address of a Dask scheduler with workers of one thread."""
    port, log = free_port(), folder / "scheduler.log"
    with contextlib.ExitStack() as stack:
        begin = [
            sys.executable,
            "-m",
            "dask",
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--protocol",
            protocol,
            "--no-dashboard",
        ]
        scheduler = stack.enter_context(program(begin, log))
        wait_for(port, scheduler, log)
        address = f"{protocol}://127.0.0.1:{port}"
        for number in range(workers):
            begin = [sys.executable, "-m", "dask", "worker", address, "--nthreads", "1", "--no-dashboard", *words]
            where = {"env": os.environ | {"PYTHONPATH": str(ROOT)} | env, "cwd": folder}
            log = folder / f"worker{number}.log"
            worker = stack.enter_context(program(begin, log, **where))
            wait_until(lambda log=log: "Registered to" in log.read_text(), worker, log)
        yield address
