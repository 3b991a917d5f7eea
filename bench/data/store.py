"""The session store: columns of sessions and packets as read-only memory maps, captures as bytes.

A store is a folder ``<home>/stores/<name>`` with ``packets.arrow`` and ``sessions.arrow`` (Arrow IPC files of one
uncompressed batch, so that a column is one array), ``manifest.json`` (everything that decides the content, the
same on every machine) and ``sources.json`` (where the captures lie on this one).  pyarrow is imported when a
column is first asked for.

Nothing of a store is trusted before it is looked at: compiled code that follows its rows asks no more.  The columns are
held against their checksums where a file's size or time is not the recorded one, rows that point anywhere must point
inside (:mod:`bench.schema`), and a capture must be the one that was read.
"""

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from bench.data.manifest import ColumnFile, Manifest, Sources, read_manifest, store_path, unpacked_path
from bench.errors import InputError, instead
from bench.files import file_sha256, is_of_machine, mapped, plain, read_json, typed_path, unreadable, write_json
from bench.schema import PACKET_COLUMNS, SESSION_COLUMNS, StoreTraits, check_packets, check_sessions

TASK_COLUMN: Final = "task:{}"  # int16, NO_CLASS where the task does not use the session
COLUMN_FILES: Final = ("packets.arrow", "sessions.arrow")


@dataclass(frozen=True, eq=False)
class Store:
    """A prepared data set.  Opening reads the manifest only."""

    path: Path
    manifest: Manifest
    digest: str  # see `bench.data.manifest.read_manifest`

    @classmethod
    def open(cls, path: Path) -> Self:
        """The store in a folder.  Raises :class:`InputError` where there is none or it is of another format."""
        return cls(path, *read_manifest(path))

    @classmethod
    def find(cls, name: str, home: Path | None = None, word: str = "") -> Self:
        """The store of a data set's name, which a user called by a ``word``.

        Raises :class:`InputError` with the command that makes it.
        """
        path = store_path(name, home)
        if not (path / "manifest.json").is_file():
            command = _prepare_command(word or name, "DIR")
            raise InputError("not-prepared", f"data set {name!r} is not prepared ({path}); run `{command}`")
        return cls.open(path)

    def command(self, *more: str, word: str = "") -> str:
        """The `bench prepare` line that makes it anew as it is, for a shell.

        ``word`` is what a user called the data set, ``more`` are further options.
        """
        try:
            made_of, root = self.sources.made_of, self.sources.origin or self.sources.root
        except InputError:
            made_of, root = "", "DIR"
        return _prepare_command(word or made_of or self.name, root, *self.manifest.options.words, *more)

    @property
    def name(self) -> str:
        """The data set's name."""
        return self.manifest.name

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return list(self.manifest.tasks)

    @property
    def default_task(self) -> str:
        """The task that is meant where none is named."""
        return self.manifest.default_task

    @property
    def traits(self) -> StoreTraits:
        """What methods may know of it."""
        kinds = sorted({kind for capture in self.manifest.captures for kind in capture.link_types})
        return StoreTraits(self.manifest.packets, self.manifest.sessions, tuple(kinds), self.lacks)

    @property
    def lacks(self) -> Mapping[str, str]:
        """What of `bench.readers.READS` no method can read of it -> why."""
        return self.manifest.lacks

    @property
    def of_records(self) -> bool:
        """Whether it is made of flow records in place of captures."""
        return bool(self.manifest.tables)

    @property
    def unpacked(self) -> Path:
        """The folder of its unpacked captures."""
        return unpacked_path(self.name, self.path.parents[1])

    def classes(self, task: str) -> list[str]:
        """Class names; a label is a position in this list.  Raises :class:`InputError` for an unknown task."""
        if task not in self.manifest.tasks:
            raise InputError("unknown-task", f"{self.name} has no task {task!r}; {instead(task, self.tasks)}")
        return list(self.manifest.tasks[task].classes)

    def labels(self, task: str) -> NDArray[np.int16]:
        """int16 ``[sessions]``: class of each session, NO_CLASS where the task does not use it."""
        self.classes(task)
        return self._column("sessions", TASK_COLUMN.format(task), np.dtype("int16"))

    def session(self, column: str) -> NDArray[Any]:
        """A column of ``schema.SESSION_COLUMNS``, int or uint ``[sessions]``, memory-mapped and read-only."""
        return self._column("sessions", column, SESSION_COLUMNS[column])

    def packet(self, column: str) -> NDArray[Any]:
        """A column of ``schema.PACKET_COLUMNS``, int or uint ``[packets]``, memory-mapped and read-only."""
        return self._column("packets", column, PACKET_COLUMNS[column])

    def capture_group(self) -> NDArray[np.int32]:
        """int32 ``[sessions]``: number of the session's capture group, as the card defines groups."""
        groups = [capture.group for capture in self.manifest.captures]
        _, number = np.unique(groups, return_inverse=True)
        result: NDArray[np.int32] = number.astype(np.int32)[self.session("capture")]
        return result

    def capture_attribute(self, name: str) -> NDArray[np.int32]:
        """int32 ``[sessions]``: number of the value (sorted) of the session's capture, -1 where it has none.

        ``name`` is an attribute of the data set's card, or ``NAME=PATTERN``: a regular expression, searched in the
        captures' paths, whose first group is the value.  Raises :class:`InputError` where no capture has a value.
        """
        _, own, pattern = name.partition("=")
        try:
            values = [
                path_value(pattern, capture.path) if own else capture.attributes.get(name, "")
                for capture in self.manifest.captures
            ]
        except re.error as error:
            raise InputError(
                "bad-pattern", f"attribute {name}: not a regular expression ({error}); write NAME=PATTERN"
            ) from None
        if not any(values):
            known = sorted({key for capture in self.manifest.captures for key in capture.attributes})
            raise InputError(
                "unknown-attribute",
                f"{self.name}: no capture has an attribute {name!r}; {instead(name, known)}",
            )
        distinct = sorted({value for value in values if value})
        number = np.array([distinct.index(value) if value else -1 for value in values], np.int32)
        result: NDArray[np.int32] = number[self.session("capture")]
        return result

    def capture_path(self, capture: int) -> Path:
        """The file whose bytes the packet rows address: the capture, or what it was unpacked to."""
        path = self.manifest.captures[capture].path
        unpacked = self.sources.unpacked.get(path)
        return self.unpacked / unpacked if unpacked else Path(self.sources.root) / path

    def capture_bytes(self, capture: int) -> NDArray[np.uint8]:
        """uint8 ``[bytes of the file]``, a read-only memory map.

        The first call for a capture, and the next one after it was written into, checks its size, and its time of
        change or else its SHA-256, and that the packets of its sessions lie in it.  A capture that moved or changed, or
        a packet elsewhere, is an :class:`InputError` with the remedy.  Raises :class:`InputError`, too, of a store that
        is made of records.
        """
        if self.of_records:
            raise InputError("not-held", f"{self.name}: is made of records, which hold no bytes; take its captures")
        path = self.capture_path(capture)
        if (known := self._maps.get(capture)) is not None and not _written_into(path, known[0]):
            return known[1]
        with self._reading(path):
            stat = path.stat()
            self._check(capture, path, stat)
            data = np.memmap(mapped(path), np.uint8, mode="r") if stat.st_size else np.zeros(0, np.uint8)
            data.flags.writeable = False
        with self._damage("packets.arrow"):
            rows = slice(*(int(ends[capture]) for ends in self._rows_of_captures))
            places = (self.packet(name)[rows] for name in ("record", "ip", "captured"))
            check_packets(*places, within=len(data), name=str(path), first=rows.start)
        self._maps[capture] = stat, data
        return data

    @property
    def _remedy(self) -> str:
        return f"prepare it again, with --source and the new folder if its captures moved: `{self.command()}`"

    @contextmanager
    def _reading(self, path: Path) -> Iterator[None]:
        """A capture that the file system does not give is one that changed."""
        try:
            yield
        except OSError as error:
            what = f"capture of {self.name} is gone or cannot be read ({error.strerror or error})"
            raise InputError("capture-changed", f"{path}: {what}; {self._remedy}") from error

    def _check(self, capture: int, path: Path, stat: os.stat_result) -> None:
        """Raises :class:`InputError` for a capture that is not the one prepared, OSError where it cannot be read."""
        recorded, remedy = self.manifest.captures[capture], self._remedy
        if stat.st_size != recorded.bytes:
            raise InputError(
                "capture-changed", f"{path}: has {stat.st_size} bytes, had {recorded.bytes} when prepared; {remedy}"
            )
        # an unpacked file is the harness's own, made whole and renamed: its size is enough
        if recorded.path in self.sources.unpacked or stat.st_mtime_ns == self.sources.mtime_ns[recorded.path]:
            return
        if file_sha256(path) != recorded.sha256:
            raise InputError("capture-changed", f"{path}: changed since {self.name} was prepared; {remedy}")

    @cached_property
    def sources(self) -> Sources:
        """Where the captures lie on this machine."""
        try:
            return read_json(self.path / "sources.json", Sources, "where captures lie, damaged", code="store-damaged")
        except InputError as error:
            raise error.with_remedy(f"run `bench prepare {self.name}` again") from error

    def check_columns(self) -> None:
        """Open both tables.  Raises :class:`InputError` where one is damaged or not of this manifest."""
        self.session("start")
        self.packet("time")

    def verify(self) -> None:
        """Read all columns and captures, whatever sizes and times say.

        Raises :class:`InputError` for the first file that is not what was prepared, and for a row that points outside.
        """
        for name in COLUMN_FILES:
            self._check_file(name, in_full=True)
        self.check_columns()
        for table in self.manifest.tables:
            path = Path(self.sources.root) / table.path
            if not path.is_file() or file_sha256(path) != table.sha256:
                raise InputError("capture-changed", f"{path}: changed since {self.name} was prepared; {self._remedy}")
        for number, capture in enumerate(() if self.of_records else self.manifest.captures):
            path = Path(self.sources.root) / capture.path
            self.capture_bytes(number)
            if not path.is_file() or file_sha256(path) != capture.sha256:
                raise InputError("capture-changed", f"{path}: changed since {self.name} was prepared; {self._remedy}")

    @cached_property
    def _rows_of_captures(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The packet rows from the first to the last of each capture's sessions: begins and ends, int64 ``[captures]``.

        A capture is written whole before the next one, so these are its packets.
        """
        capture, first = self.session("capture"), self.session("first_packet")
        begins = np.full(len(self.manifest.captures), self.manifest.packets, np.int64)
        ends = np.zeros_like(begins)
        np.minimum.at(begins, capture, first)
        np.maximum.at(ends, capture, first + self.session("packets"))
        return begins, np.maximum(begins, ends)

    @contextmanager
    def _damage(self, file: str) -> Iterator[None]:
        """A ValueError in the block is damage of a file of columns."""
        try:
            yield
        except ValueError as error:
            remedy = f"run `{self.command('--rebuild')}`"
            raise InputError("store-damaged", f"{self.path / file}: {error}; {remedy}") from error

    def _check_file(self, name: str, *, in_full: bool = False) -> None:
        """Hold a file of columns against its checksum, where its size and time leave a doubt."""
        recorded, path = self.manifest.columns.get(name), self.path / name
        if recorded is None:  # made before there were checksums
            return
        with self._damage(name):
            if not path.is_file():
                raise ValueError("is gone")
            stat = path.stat()
            if stat.st_size != recorded.size:
                raise ValueError(f"has {stat.st_size} bytes, had {recorded.size} when it was written")
            known = self._known_times.get(name) == stat.st_mtime_ns
            if known and not in_full:
                return
            if file_sha256(path) != recorded.sha256:
                raise ValueError("changed since it was written: it has another SHA-256 than the manifest says")
        if not known:
            self._keep_time(name, stat.st_mtime_ns)

    @property
    def _known_times(self) -> dict[str, int]:
        """When the files of columns changed last, as far as that was written down here."""
        try:
            return self.sources.columns_mtime_ns
        except InputError:  # the captures lie nobody knows where; columns can be used without
            return {}

    def _keep_time(self, name: str, mtime_ns: int) -> None:
        """Write down that a file was read in full, so that the next process need not; a store may be read-only."""
        with suppress(InputError):
            times = self.sources.columns_mtime_ns
            times[name] = mtime_ns
            write_json(self.path / "sources.json", plain(self.sources))

    @cached_property
    def _maps(self) -> dict[int, tuple[os.stat_result, NDArray[np.uint8]]]:
        return {}

    @cached_property
    def _tables(self) -> dict[str, Any]:
        return {}

    def _column(self, table: str, column: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        if table not in self._tables:
            self._tables[table] = self._opened(table)
        with self._damage(f"{table}.arrow"):
            return _typed(self._tables[table], column, dtype)

    def _opened(self, table: str) -> Any:
        """A table of columns, checked."""
        file, manifest = f"{table}.arrow", self.manifest
        self._check_file(file)
        batch = _read_batch(self.path / file, getattr(manifest, table))
        tasks = {TASK_COLUMN.format(name): len(task.classes) for name, task in manifest.tasks.items()}
        kinds = SESSION_COLUMNS | dict.fromkeys(tasks, np.dtype("int16"))
        with self._damage(file):
            batch.validate()  # ArrowInvalid, a ValueError, where a buffer is shorter than the rows say
            if table == "sessions":
                columns = {name: _typed(batch, name, kind) for name, kind in kinds.items()}
                check_sessions(columns, manifest.packets, len(manifest.captures), tasks)
        return batch


def _prepare_command(word: str, source: str, *more: str) -> str:
    """A `bench prepare` line for a shell; a folder and the demo say themselves where their captures lie."""
    alone = word == "demo" or typed_path(word).is_dir()
    return shlex.join(["bench", "prepare", word, *([] if alone else ["--source", source]), *more])


def _written_into(path: Path, before: os.stat_result) -> bool:
    """Whether a mapped file is another one now; one that was moved away or replaced is still what the map holds."""
    try:
        now = path.stat()
    except OSError:
        return False
    same = (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    return now.st_ino == before.st_ino and not same


def path_value(pattern: str, path: str) -> str:
    """The first group of a pattern that is searched in a path, or all it matches; empty where it does not."""
    match = re.search(pattern, path)
    return (match.group(1) if match.re.groups else match.group()) or "" if match else ""


def column_file(path: Path) -> ColumnFile:
    """What a manifest keeps of a file of columns."""
    return ColumnFile(path.stat().st_size, file_sha256(path))


def write_columns(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write equally long columns ``[rows]``, int or uint, as one uncompressed batch.

    A memory-mapped column is never read as a whole.
    """
    import pyarrow as pa

    arrays = {name: _arrow_array(column) for name, column in columns.items()}
    batch = pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def _typed(batch: Any, name: str, kind: np.dtype[Any]) -> NDArray[Any]:
    """A column, if it is there and of that type: it would be read as what it is not."""
    if name not in batch.schema.names:
        raise ValueError(f"has no column {name}")
    column = batch.column(name)
    if column.type != _arrow_type(kind):
        raise ValueError(f"column {name} is {column.type}, must be {_arrow_type(kind)}")
    return as_array(column, kind)


def _arrow_type(kind: np.dtype[Any]) -> Any:
    import pyarrow as pa

    return pa.binary(kind.itemsize) if kind.kind == "S" else pa.from_numpy_dtype(kind)


def as_array(column: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A view of an Arrow column without nulls as a read-only array ``[rows]`` of that dtype, int or uint."""
    values = np.frombuffer(column.buffers()[1], dtype, len(column), column.offset * dtype.itemsize)
    values.flags.writeable = False
    return values


def _arrow_array(column: NDArray[Any]) -> Any:
    import pyarrow as pa

    column = np.ascontiguousarray(column)
    kind = _arrow_type(column.dtype)
    buffer = pa.py_buffer(column.view(np.uint8)) if len(column) else pa.py_buffer(b"")
    return pa.Array.from_buffers(kind, len(column), [None, buffer])


def _read_batch(path: Path, rows: int) -> Any:
    import pyarrow as pa

    try:
        batch = pa.ipc.open_file(pa.memory_map(str(mapped(path)))).get_batch(0)
    except (OSError, ValueError, pa.ArrowException) as error:
        if is_of_machine(error):
            raise unreadable(path, error) from error
        raise InputError(
            "store-damaged", f"{path}: damaged ({error}); run `bench prepare {path.parent.name}` again"
        ) from error
    if batch.num_rows != rows:  # prepared anew between the reading of the manifest and this
        raise InputError(
            "store-damaged", f"{path}: has {batch.num_rows} rows, its manifest says {rows}; run the command again"
        )
    return batch
