"""Who computes what: a claim is a row of one table that one process has, and shows to be alive by counting it up.

A claim belongs to nobody any more where its count has stood still for `STALE_SECONDS` while this process looked on (no
clock but our own is asked, and a database that was away takes no claim from anybody), or where its process was on this
machine and is no more.  Two processes that take over the same claim are told apart by the database: one update finds
the row as it was.
"""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from bench.errors import InputError
from bench.tracking.address import Address
from bench.tracking.database import engine_of

BEAT_SECONDS: Final = 5.0
STALE_SECONDS: Final = 30.0
WAIT_SECONDS: Final = 120.0  # for work that processes do one after the other
NAMED: Final = 500  # claims of one query

_table = sa.Table(
    "bench_claims",
    sa.MetaData(),
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("host", sa.String(200), nullable=False),  # as people read it
    sa.Column("process", sa.String(200), nullable=False),  # machine, number and start: whether it lives
    sa.Column("beats", sa.Integer, nullable=False),
)


_OWNED: Final[set[str]] = set()  # owners of this process, of all its `Claims`


@dataclass(frozen=True)
class Holder:
    """Who has a claim, as a look at the table found it."""

    name: str
    owner: str
    host: str
    process: str
    beats: int

    def __str__(self) -> str:
        return self.host


class Claims:
    """The claims of this process, and a look at those of others.

    ``address`` is of a database; the table is made where it is missing, after ``first`` has made the file where that is
    missing, for what must be there before.  Every method raises :class:`InputError` where
    the database does not answer.
    """

    def __init__(self, address: Address, first: Callable[[], object] = lambda: None) -> None:
        self.address = address
        self._first = first
        self._engine: sa.Engine | None = None
        self._mine: dict[str, str] = {}  # owner by name
        self._lost: set[str] = set()
        self._seen: dict[str, tuple[str, int, float]] = {}  # owner, count and when it was first seen so
        self._guard = threading.Lock()
        self._beating: threading.Thread | None = None

    def __reduce__(self) -> tuple[Any, ...]:  # another process has claims of its own
        return type(self), (self.address,)

    def take(self, name: str, *, force: bool = False) -> Holder | None:
        """Claim a name; who has it, where that is somebody alive.  ``force`` takes it from them, too."""
        owner = secrets.token_hex(8)
        own = {"owner": owner, "host": here(), "process": this_process(), "beats": 0}
        while True:
            try:
                with self._connected() as connection:
                    connection.execute(sa.insert(_table).values(name=name, **own))
                break
            except sa.exc.IntegrityError:
                pass  # somebody has it
            holder = self.holders([name]).get(name)
            if holder is None:
                continue  # let go of between the two questions
            if not force and not self._is_stale(holder):
                return holder
            same = (_table.c.name == name) & (_table.c.owner == holder.owner) & (_table.c.beats == holder.beats)
            with self._connected() as connection:
                if connection.execute(sa.update(_table).where(same).values(**own)).rowcount:
                    break
        with self._guard:
            self._mine[name] = owner
            self._lost.discard(name)
            _OWNED.add(owner)
        self._beat_on()
        return None

    def has(self, name: str) -> bool:
        """Whether this process holds the claim and knows of nobody who took it over; asks nobody."""
        with self._guard:
            return name in self._mine and name not in self._lost

    def still_has(self, name: str) -> bool:
        """Whether this process holds the claim; the database is asked."""
        owner = self._mine.get(name)
        if owner is not None:
            self._count(name, owner)
        return self.has(name)

    def let_go(self, name: str) -> None:
        """End a claim; one that somebody took over stays theirs."""
        with self._guard:
            owner = self._mine.pop(name, None)
            _OWNED.discard(owner or "")
        if owner is not None:
            with self._connected() as connection:
                connection.execute(sa.delete(_table).where((_table.c.name == name) & (_table.c.owner == owner)))

    def holders(self, names: Sequence[str] | None = None) -> dict[str, Holder]:
        """All claims by name, or those of ``names``; whether their holders live is another question."""
        asked = sa.select(_table)
        found: dict[str, Holder] = {}
        parts = [None] if names is None else [names[start : start + NAMED] for start in range(0, len(names), NAMED)]
        with self._connected() as connection:
            for part in parts:
                rows = connection.execute(asked if part is None else asked.where(_table.c.name.in_(part)))
                found |= {row.name: Holder(*row) for row in rows}
        return found

    def sees(self, name: str) -> bool:
        """Whether there is such a claim; makes no file of a database that is not there."""
        return (not self.address.is_sqlite or self.address.file.is_file()) and bool(self.holders([name]))

    def elsewhere(self, names: Sequence[str]) -> dict[str, Holder]:
        """Of these names those that another living process has."""
        with self._guard:
            mine = set(self._mine.values())
        held = self.holders(names).items()
        return {name: one for name, one in held if one.owner not in mine and not self._is_stale(one)}

    def seen(self, names: Sequence[str]) -> dict[str, Holder]:
        """As :meth:`elsewhere`; nothing is written, not even a table or a file that is not there."""
        return self.elsewhere(names) if self._are_there() else {}

    def _are_there(self) -> bool:
        """Whether there is a table of claims."""
        if self._engine is not None:
            return True
        if self.address.is_sqlite and not self.address.file.is_file():
            return False
        try:
            return sa.inspect(engine_of(self.address)).has_table(_table.name)
        except sa.exc.SQLAlchemyError as error:
            raise self.address.failed(getattr(error, "orig", None) or error) from None

    @contextmanager
    def alone(self, name: str, *, say: Callable[[str], None] = lambda line: None) -> Iterator[None]:
        """Let one process in at a time; waits for the others, and says once for whom.

        Raises :class:`InputError` where one of them is at it for `WAIT_SECONDS`.
        """
        before, until, told = "", 0.0, False
        while (holder := self.take(name)) is not None:
            if holder.owner != before:  # each of those before us has its own time
                before, until = holder.owner, time.monotonic() + WAIT_SECONDS
            if time.monotonic() > until:
                raise InputError("busy", f"{name}: {holder} has held it for {WAIT_SECONDS:.0f} s; start again later")
            if not told:
                say(f"waiting for {holder} ({name})")
            told = True
            time.sleep(0.05)
        try:
            yield
        finally:
            self.let_go(name)

    def _is_stale(self, holder: Holder) -> bool:
        """Whether nobody alive has it: its process is gone, or its count has stood still while we looked."""
        if holder.process == this_process():
            return holder.owner not in _OWNED  # it was let go of while the database was away
        if (alive := process_lives(holder.process)) is not None:
            return not alive
        owner, beats, since = self._seen.get(holder.name, ("", -1, 0.0))
        if (owner, beats) != (holder.owner, holder.beats):
            self._seen[holder.name] = holder.owner, holder.beats, time.monotonic()
            return False
        return time.monotonic() - since > STALE_SECONDS

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        """A transaction; IntegrityError passes, all else that goes wrong is that the database does not answer."""
        try:
            if self._engine is None:
                if self.address.is_sqlite and not self.address.file.is_file():
                    self._first()
                self._engine = _with_table(self.address)
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.IntegrityError:
            raise
        except (sa.exc.SQLAlchemyError, OSError) as error:
            raise self.address.failed(getattr(error, "orig", None) or error) from None

    def _beat_on(self) -> None:
        """See that a thread of this process counts its claims up."""
        if self._beating is None or not self._beating.is_alive():
            self._beating = threading.Thread(target=self._beat, name="claims", daemon=True)
            self._beating.start()

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT_SECONDS)
            with self._guard:
                mine = dict(self._mine)
            if not mine:
                return
            for name, owner in mine.items():
                with suppress(InputError):  # the database is away; others cannot take the claim either
                    self._count(name, owner)

    def _count(self, name: str, owner: str) -> None:
        """Show that the claim's owner lives; notes where it is somebody else's by now."""
        same = (_table.c.name == name) & (_table.c.owner == owner)
        with self._connected() as connection:
            counted = connection.execute(sa.update(_table).where(same).values(beats=_table.c.beats + 1)).rowcount
        with self._guard:
            if not counted and self._mine.get(name) == owner:
                self._lost.add(name)


def _with_table(address: Address) -> sa.Engine:
    """The database with our table; others may make it at the same moment, and then one fails."""
    if address.is_sqlite:
        address.file.parent.mkdir(parents=True, exist_ok=True)
    engine = engine_of(address)
    for last in (False, False, True):
        try:
            _table.create(engine, checkfirst=True)
            break
        except sa.exc.SQLAlchemyError:
            if last:
                raise
            time.sleep(0.2)
    return engine


def here() -> str:
    """Name of this process, as people may look for it."""
    return f"{socket.gethostname()}, process {os.getpid()}"


@cache
def _machine() -> str:
    """What processes of one machine, and one container of it, have in common; empty where nobody knows."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start_of(process: int) -> str:
    """When a process began, in the machine's ticks; empty where none lives."""
    try:
        state, *rest = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return rest[18] if state not in "ZX" else ""  # killed, and nobody has asked after it yet
    except (OSError, IndexError):
        return ""


def this_process() -> str:
    """Name of this process among all: machine, number, start."""
    return f"{_machine()} {os.getpid()} {_start_of(os.getpid())}"


def process_lives(text: str) -> bool | None:
    """Whether a process that :func:`this_process` named is there; None where it was on another machine."""
    machine, _, rest = text.partition(" ")
    number, _, start = rest.partition(" ")
    if not machine or machine != _machine() or not number.isdigit():
        return None
    return bool(start) and _start_of(int(number)) == start
