"""MLflow's page of the runs: a server of it as a child of ours, and the addresses where it shows runs."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final
from urllib.parse import urlsplit

from bench.errors import InputError
from bench.tracking.address import Address
from bench.tracking.database import Experiment

HOST: Final = "127.0.0.1"
PROGRAM: Final = ("-m", "mlflow", "server")  # of Python
LOOK_SECONDS: Final = 0.2  # from one look whether the server listens to the next
END_SECONDS: Final = 5.0  # for a server that was told to end
KEPT: Final = 50  # lines that a server said last
SETTINGS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven processes that no run of ours needs
}


def page_of(address: Address) -> str:
    """Where an MLflow server has its pages, without a user's name and password: a browser asks for these."""
    parts = urlsplit(address.uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], path=parts.path.rstrip("/")).geturl()


def links(page: str, experiments: Sequence[Experiment]) -> dict[str, str]:
    """Where a server's ``page`` shows the runs of each experiment, by its name.

    Without the type of workflow MLflow shows traces of language models, and no run.
    """
    found = {}
    for one in experiments:
        view = f"&viewStateShareKey={one.view}" if one.view else ""
        found[one.name] = f"{page}/#/experiments/{one.id}/runs?workflowType=machine_learning{view}"
    return found


@contextmanager
def served(address: Address, port: int) -> Iterator["Server"]:
    """A server of the runs of a database while the block lasts; no process of it is left behind.

    Raises :class:`InputError` where the port is taken.
    """
    _check_port(port)
    server = Server(address, port)
    try:
        yield server
    finally:
        server.end()


class Server:
    """MLflow's server as a group of processes of ours."""

    def __init__(self, address: Address, port: int) -> None:
        self.page = f"http://{HOST}:{port}"
        self._place, self._said = (HOST, port), deque[str](maxlen=KEPT)
        # not among the words, which other users can read: the address may hold a password
        own = {**os.environ, "MLFLOW_BACKEND_STORE_URI": address.url}
        own |= {name: os.environ.get(name, value) for name, value in SETTINGS.items()}
        words = ["--host", HOST, "--port", str(port), "--workers", "1", "--uvicorn-opts", "--log-level warning"]
        self._process = subprocess.Popen(
            [sys.executable, *PROGRAM, *words],
            env=own,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C is for us, and MLflow's own children end with it
            text=True,
            errors="replace",
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.append(line)

    def wait_until_it_listens(self) -> None:
        """Raises :class:`InputError` where it ends before."""
        while not self._listens():
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(LOOK_SECONDS)
            self._check()

    def wait(self) -> None:
        """Until it ends, which it does not do by itself.  Raises :class:`InputError` then."""
        self._process.wait()
        self._check()

    def _listens(self) -> bool:
        with suppress(OSError):
            socket.create_connection(self._place, LOOK_SECONDS).close()
            return True
        return False

    def _check(self) -> None:
        """Raises :class:`InputError` with the last that it said, where it has ended."""
        status = self._process.poll()
        if status is None:
            return
        self._listener.join(END_SECONDS)
        said = next((line for text in reversed(self._said) if (line := " ".join(text.split()))), "it said nothing")
        raise InputError(
            "server-ended", f"MLflow's server ended with status {status} ({said:.300}); fix this and start again"
        )

    def end(self) -> None:
        """End it with all of its children."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(self._process.pid, number)
                self._process.wait(END_SECONDS)
        self._listener.join(END_SECONDS)


def _check_port(port: int) -> None:
    """Raises :class:`InputError` where no server can listen."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection that has just ended holds nothing
        try:
            tried.bind((HOST, port))
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise InputError("port-taken", f"port {port} of {HOST}: {reason}; name another one (--port)") from None
