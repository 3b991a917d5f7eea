"""Where a store of runs is: its address as libraries take it and as people may see it, and whether it answers."""

import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bench.errors import InputError

ANSWER_SECONDS: Final = 5.0  # for a server to take a connection, and as much again to answer the first question
PORTS: Final = {"postgresql": 5432, "mysql": 3306, "mssql": 1433, "http": 80, "https": 443}
DRIVERS: Final = {"psycopg2": "postgresql"}  # an extra of ours, by the driver that it brings


@dataclass(frozen=True)
class Address:
    """A database's or a server's address, and the results folder beside it."""

    uri: str = ""  # may hold a password: for libraries alone
    results: Path = Path("results")
    what: str = "the store of runs"  # as errors call it

    def __repr__(self) -> str:
        return f"Address({self.shown})"

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
    def file(self) -> Path:
        """The file of an SQLite address."""
        return Path(self.uri.removeprefix("sqlite:///").partition("?")[0]).absolute()

    @property
    def folder(self) -> Path:
        """Where artefacts, locks and runs that wait lie: beside an SQLite file, else the results folder."""
        return self.file.parent if self.is_sqlite else self.results

    @property
    def shown(self) -> str:
        """The address without its password."""
        return without_password(self.uri)

    def check(self) -> None:
        """Raises :class:`InputError` where a server takes no connection within `ANSWER_SECONDS`."""
        parts = urlsplit(self.uri)
        if self.is_sqlite or parts.hostname is None:
            return
        place = parts.hostname, parts.port or PORTS.get(self.scheme, 0)
        try:
            socket.create_connection(place, ANSWER_SECONDS).close()
        except OSError as error:
            raise self.failed(error) from None

    def failed(self, error: object) -> InputError:
        """That it does not answer as it should, with what a library said of it."""
        text = self.without_secret(" ".join(str(error).split()) or type(error).__name__)
        remedy = "give a sqlite:/// file, or start that server"
        for driver, extra in DRIVERS.items():
            if isinstance(error, ImportError) and driver in str(error):
                remedy = f"`pip install 'etc-bench[{extra}]'` brings its driver {driver}"
        return InputError("storage-failed", f"{self.shown}: {self.what} does not open ({text:.200}); {remedy}")

    def without_secret(self, text: str) -> str:
        """A library's words without the address's password."""
        password = urlsplit(self.uri).password
        return without_password(text.replace(password, "***") if password else text)


def address_of(results: Path, uri: str | None = None) -> Address:
    """The store of runs of a results folder: ``uri``, else ``MLFLOW_TRACKING_URI``, else a file there."""
    found = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{results.absolute() / 'mlflow.db'}"
    return Address(found, results.absolute())


def without_password(text: str) -> str:
    """Hide what stands between a user's name and the host of every address in a text.

    >>> without_password("postgresql://me:secret@host/runs does not open")
    'postgresql://me:***@host/runs does not open'
    """
    return re.sub(r"(\w+://[^\s:/@]*):[^\s/]*@", r"\1:***@", text)
