"""Where a store of runs is: its address as libraries take it and as people may see it, and whether it answers."""

import os
import re
import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from bench.errors import InputError, near
from bench.files import from_here

ANSWER_SECONDS: Final = 4.0  # for a server to take a connection, and as much again to answer the first question
PORTS: Final = {"postgresql": 5432, "mysql": 3306, "mssql": 1433, "http": 80, "https": 443}
REMEDIES: Final = {  # of a file, by words of SQLite and of the system
    "full": "make room there",
    "No space": "make room there",
    "locked": "end the program that holds it, and start again",
    "malformed": "it is damaged: put a copy of it back, or move it away",
    "not a database": "it is damaged: put a copy of it back, or move it away",
    "no such table": "the file was replaced after this command began: put the old one back, or start again",
    "readonly": "check its permissions and those of its folder, or name another folder (--results)",
    "Read-only": "name another folder (--results)",
    "Permission denied": "check its permissions and those of its folder, or name another folder (--results)",
    "unable to open": "check its permissions and those of its folder, or name another folder (--results)",
}
QUESTION: Final = "/api/2.0/mlflow/experiments/get?experiment_id=0"  # that takes an MLflow server to its database
SHORT: Final = 3  # letters
RESULTS: Final = Path("results")  # where runs are kept unless told otherwise
OF_RESULTS: Final = (  # commands that take --results
    "audit", "classify", "compare", "doctor", "report", "reproduce", "results", "run", "score", "stress", "sync",
    "table", "tune", "ui",
)  # fmt: skip
DATABASE: Final = "mlflow.db"  # the store of runs of a results folder
DRIVERS: Final = {"psycopg2": "postgresql"}  # an extra of ours and scheme of addresses, by the driver that it brings


@dataclass(frozen=True)
class Address:
    """A database's or a server's address, and the results folder beside it."""

    uri: str = ""  # may hold a password: for libraries alone
    results: Path = Path("results")
    what: str = "the store of runs"  # as errors call it

    def __repr__(self) -> str:
        return f"Address({self.shown})"

    @property
    def url(self) -> str:
        """The same with the driver named: SQLAlchemy 2.1 takes another one for ``postgresql://`` than 2.0 did."""
        for driver, scheme in DRIVERS.items():
            if self.uri.startswith(f"{scheme}://"):
                return self.uri.replace(scheme, f"{scheme}+{driver}", 1)
        return self.uri

    @property
    def scheme(self) -> str:
        """Its kind, without the driver: sqlite, postgresql, http, …"""
        return self.uri.partition(":")[0].partition("+")[0]

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file."""
        return self.scheme == "sqlite"

    @property
    def is_database(self) -> bool:
        """Whether it can be asked in SQL: a file, or a database server."""
        return self.scheme in ("sqlite", "postgresql", "mysql", "mssql")

    @property
    def is_server(self) -> bool:
        """Whether it is an MLflow server."""
        return self.scheme in ("http", "https")

    @property
    def file(self) -> Path:
        """The file of an SQLite address."""
        return Path(self.uri.removeprefix("sqlite:///").partition("?")[0]).absolute()

    @property
    def folder(self) -> Path:
        """Where artefacts, locks and runs that wait lie: beside an SQLite file, else the results folder."""
        return self.file.parent if self.is_sqlite else self.results

    @property
    def pending(self) -> Path:
        """Where runs that are at work, and finished ones that wait for the store, have their folders."""
        return self.folder / "pending"

    @property
    def at(self) -> str:
        """Where it is, for people: the folder of an SQLite file as seen from here, else :attr:`shown`."""
        return str(from_here(self.file.parent)) if self.is_sqlite else self.shown

    @property
    def shown(self) -> str:
        """The address without its password."""
        return without_password(re.sub(r"^(\S+?://[^:/@]*):.*@", r"\1:***@", self.uri, flags=re.S))  # blanks in it, too

    @property
    def place(self) -> str:
        """What tells it from other stores beside one results folder, which may move with its SQLite file."""
        return f"sqlite:///{self.file.name}" if self.is_sqlite else self.shown

    def check(self) -> None:
        """Raises :class:`InputError` where a server takes no connection within `ANSWER_SECONDS`, or answers nothing.

        A database is asked by whoever opens it; MLflow's own patience with a server is a minute.
        """
        try:
            parts = urlsplit(self.uri)
            if self.is_sqlite or parts.hostname is None:
                return
            place = parts.hostname, parts.port or PORTS.get(self.scheme, 0)
            socket.create_connection(place, ANSWER_SECONDS).close()
            if self.is_server:
                _ask(self.uri)
        except (OSError, ValueError) as error:  # ValueError: what is no port
            raise self.failed(error) from None

    def failed(self, error: object) -> InputError:
        """That it does not answer as it should, with what a library said of it."""
        text = self.without_secret(" ".join(str(error).split()) or type(error).__name__)
        text = text.partition(" [SQL:")[0]  # SQLAlchemy goes on with the statement and a link
        remedy = "start that server, correct the address, or let its user write (docs/scaling.md)"
        if self.is_sqlite:
            remedy = next((what for word, what in REMEDIES.items() if word in text), "check that the file is complete")
        for driver, extra in DRIVERS.items():
            if isinstance(error, ImportError) and driver in str(error):
                remedy = f"`pip install 'etc-bench[{extra}]'` brings its driver {driver}"
        return InputError("storage-failed", f"{self.shown}: {self.what} does not open ({text:.200}); {remedy}")

    def without_secret(self, text: str) -> str:
        """A library's words without the address's password."""
        found = re.match(r"[^\s:]+://[^:/@]*:([^@]+)@", self.uri)  # as SQLAlchemy reads it, with any / in it
        for password in {found[1], unquote(found[1])} if found else ():
            if len(password) > SHORT:  # such a one could be read off the gaps, and is part of any word
                text = text.replace(password, "***")
        return without_password(text)


def address_of(results: Path, uri: str | None = None) -> Address:
    """The store of runs of a results folder: ``uri``, else ``MLFLOW_TRACKING_URI``, else a file there."""
    found = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{results.absolute() / DATABASE}"
    return Address(found, results.absolute())


def results_words(results: Path) -> list[str]:
    """The words of a further command for a results folder; none for the usual one.

    A folder that ``BENCH_RESULTS`` names has words, too: the variable may have been set for one command alone.
    """
    named = (results, Path(os.environ.get("BENCH_RESULTS") or RESULTS))
    is_usual = all(from_here(path.absolute()) == RESULTS for path in named)
    return [] if is_usual else ["--results", str(results)]


def in_results(text: str, words: Sequence[str]) -> str:
    """A text whose commands, in backticks, go to a results folder; ``words`` name it, as :func:`results_words` does.

    One that takes no folder, or names one, stays, and so does one with an ellipsis: it cannot be pasted.

    >>> in_results("no run x; `bench results show` lists ids, `bench methods` lists methods", ["--results", "my runs"])
    "no run x; `bench results show --results 'my runs'` lists ids, `bench methods` lists methods"
    """
    if not words:
        return text

    def placed(found: re.Match[str]) -> str:
        is_whole = "--results" in found[0] or "…" in found[0]
        return found[0] if is_whole else f"`{found[1]} {shlex.join(words)}`"

    return re.sub(rf"`(bench (?:{'|'.join(OF_RESULTS)})\b[^`\n]*)`", placed, text)


def near_results(folder: Path) -> Path | None:
    """The folder beside a missing results folder that holds a store of runs and is called much as it is."""
    parent = folder.parent
    there = [path.parent.name for path in parent.glob(f"*/{DATABASE}")] if parent.is_dir() else []
    meant = near(folder.name, there)
    return from_here(parent / meant) if meant else None


def local(uri: str) -> Path | None:
    """The folder of this machine that an address of artefacts names; None where it is of a server."""
    try:
        place = urlsplit(uri)
    except ValueError:
        return None
    return Path(unquote(place.path)) if place.scheme in ("", "file") else None


def without_password(text: str) -> str:
    """Hide what stands between a user's name and the host of every address in a text, and ``password=`` of a query.

    >>> without_password("postgresql://me:secret@host/runs does not open")
    'postgresql://me:***@host/runs does not open'
    """
    text = re.sub(r"(\w+://[^\s:/@]*):\S*@", r"\1:***@", text)
    return re.sub(r"(password=)[^&\s]+", r"\1***", text)


def _ask(server: str) -> None:
    """Raises OSError unless a server answers within `ANSWER_SECONDS`, with anything but a failure of its own."""
    from http.client import HTTPException  # with its TLS a tenth of a second
    from urllib.error import HTTPError
    from urllib.request import urlopen

    parts = urlsplit(server)
    place = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=parts.path.rstrip("/") + QUESTION)
    try:
        urlopen(place.geturl(), timeout=ANSWER_SECONDS).close()
    except HTTPError as error:
        if error.code >= 500:
            raise
    except HTTPException as error:
        raise OSError(f"no server of HTTP: {type(error).__name__}") from error
