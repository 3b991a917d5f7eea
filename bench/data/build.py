"""One preparation: what is common to captures and records, and how captures become a store.

Packets go to a file a column as they come, sessions stay in memory; then the columns become tables, sessions get their
labels and the manifest is written.
"""

import collections
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.data.card_tables import ColumnLabels, FileLabels, SessionLabels
from bench.data.cards import Card
from bench.data.file_list import Listed, lacking_classes, with_captures
from bench.data.labels import (
    NO_ROW,
    LabelFile,
    LabelTable,
    label_table,
    list_table,
    read_label_file,
    row_classes,
    session_tuples,
    task_labels,
    with_observed,
)
from bench.data.manifest import (
    CONTENT,
    FORMAT,
    CaptureEntry,
    DamagedCapture,
    DamageEntry,
    EmptyCapture,
    FilesReport,
    Manifest,
    Options,
    Sources,
    TaskEntry,
    UnexpectedCount,
    UnreadableEntry,
)
from bench.data.sources import (
    CaptureFile,
    Source,
    capture_attributes,
    capture_group,
    captures_below,
    empty_classes,
    idle_patterns,
)
from bench.data.store import COLUMN_FILES, TASK_COLUMN, column_file, write_columns
from bench.environment import code_digest
from bench.errors import InputError, counted, some
from bench.files import file_sha256, mapped, plain, write_json
from bench.ingest.options import IngestOptions
from bench.schema import NO_CLASS, PACKET_COLUMNS, SESSION_COLUMNS, numbered

if TYPE_CHECKING:
    from bench.ingest.capture import CaptureIndex

#: called after each file: bytes done, bytes in all, files done, files in all, packets so far
Progress = Callable[[int, int, int, int, int], None]
Columns = dict[str, NDArray[Any]]
Read = tuple[CaptureFile, str, "CaptureIndex | str"]  # a capture, its SHA-256, and its index or why it has none
LISTED_VALUES: Final = 12  # that a line names of those that there are


class Pool(Protocol):
    """Where captures are read, several at once."""

    def submit(self, work: Callable[[CaptureFile], Read], file: CaptureFile, /) -> Any:
        """Begin; what is given back has a ``result()``."""


Readers = Callable[[], AbstractContextManager[tuple[Pool, int]]]  # opens one, and says how many it reads at once


@contextmanager
def in_threads(number: int | None) -> Iterator[tuple[Pool, int]]:
    """So many threads of this process, by default one a core, as `Readers`."""
    number = number or os.cpu_count() or 1
    pool = ThreadPoolExecutor(number)
    try:
        yield pool, number
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the queue


@cache
def code_of_stores() -> str:
    """Digest of the code that decides what a store holds."""
    return code_digest("bench.data.prepare")


class Build(ABC):
    """One preparation into a folder; what it reads is the business of its kinds."""

    def __init__(self, card: Card, source: Source, options: Options, work: Path, folder: Path) -> None:
        self.card, self.source, self.options, self.work, self.folder = card, source, options, work, folder
        self.label_file: LabelFile | None = None
        if isinstance(card.labels, SessionLabels) and source.label_file:  # read first: a wrong one ends all at once
            self.label_file = read_label_file(card.labels, source.label_file, card.tasks)
        self.captures: list[CaptureEntry] = []
        self.of_content: dict[str, list[int]] = {}  # SHA-256 of what is in a capture -> rows of captures
        self.unreadable: list[UnreadableEntry] = []
        self.empty: list[EmptyCapture] = []
        self.unpacked: dict[str, str] = {}
        self.sessions: list[Columns] = []
        self.packets = 0

    @abstractmethod
    def read(self, sinks: Mapping[str, Any], readers: Readers, progress: Progress | None) -> None:
        """Read all files: append packets to the open column files, keep sessions and captures."""

    @abstractmethod
    def arrange(self) -> None:
        """Whatever takes all files to be known.  Raises :class:`InputError` where there is nothing to write."""

    @abstractmethod
    def labelled(self, columns: Columns) -> LabelTable:
        """Label columns of the sessions, of which ``columns`` are all there are."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Fields of the manifest that tell of the files and how they met the card's list."""

    def contradictions(self, columns: Columns, tasks: Mapping[str, TaskEntry]) -> list[str]:
        """Captures that hold the same, and so the same sessions in the same order, and are labelled otherwise."""
        lines, order = [], np.argsort(columns["capture"], kind="stable")
        captures = columns["capture"][order]
        for rows in self._copied():
            sessions = [order[slice(*np.searchsorted(captures, (row, row + 1)))] for row in rows]
            for name, task in tasks.items():
                labels = [columns[TASK_COLUMN.format(name)][some] for some in sessions]
                if not all(np.array_equal(labels[0], other) for other in labels):
                    of = [_named(np.unique(one).tolist(), task) for one in labels]
                    each = [f"{self.captures[row].path} is {what}" for row, what in zip(rows, of, strict=True)]
                    lines.append(f"the same capture has several labels of task {name}: {', '.join(each)}")
        return lines

    def copies(self) -> list[list[str]]:
        """Paths of captures that hold the same."""
        return [[self.captures[row].path for row in rows] for rows in self._copied()]

    def _copied(self) -> list[list[int]]:
        return [rows for rows in self.of_content.values() if len(rows) > 1]

    def join_groups(self) -> None:
        """Make the groups of captures that hold the same one group: no split by capture may part them."""
        joined: dict[str, str] = {}  # group -> one that it is part of

        def whole(group: str) -> str:
            while group in joined:
                group = joined[group]
            return group

        for rows in self._copied():
            same = {whole(self.captures[row].group) for row in rows}
            joined |= dict.fromkeys(same - {min(same)}, min(same))
        self.captures = [replace(one, group=whole(one.group)) for one in self.captures]

    def conversations(self, columns: Columns) -> NDArray[np.int32]:
        """The conversation of each session: int32 ``[sessions]``."""
        return numbered(session_tuples(columns)).astype(np.int32)

    def run(self, readers: Readers, progress: Progress | None) -> None:
        """Write the whole store into the folder.  Raises :class:`InputError` where there is nothing to write."""
        with ExitStack() as stack:
            sinks = {name: stack.enter_context(self.column_file(name).open("wb")) for name in PACKET_COLUMNS}
            self.read(sinks, readers, progress)
        self.arrange()
        self._write_packets()
        self._write_sessions()
        mtimes = {file.path: file.mtime_ns for file in self.source.files}
        written = {name: (self.folder / name).stat().st_mtime_ns for name in COLUMN_FILES}
        origin = str(self.source.origin or "")
        sources = Sources(str(self.source.root), mtimes, self.unpacked, written, origin, self.card.place)
        write_json(self.folder / "sources.json", plain(sources))

    def column_file(self, name: str) -> Path:
        """Where a packet column is spooled."""
        return self.folder / f"{name}.column"

    def spooled(self) -> Columns:
        """The packet columns that were written so far, as memory maps ``[packets]``."""
        if not self.packets:
            return {name: np.zeros(0, kind) for name, kind in PACKET_COLUMNS.items()}
        return {
            name: np.memmap(mapped(self.column_file(name)), kind, mode="r") for name, kind in PACKET_COLUMNS.items()
        }

    def _write_packets(self) -> None:
        """One Arrow batch of the column files, copied through memory maps."""
        write_columns(self.folder / "packets.arrow", self.spooled())
        for name in PACKET_COLUMNS:
            self.column_file(name).unlink()

    def _write_sessions(self) -> None:
        """Label the sessions; write them and the manifest."""
        parts = self.sessions
        joined = parts[0] if len(parts) == 1 else {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        joined["conversation"] = self.conversations(joined)
        columns = {name: joined[name] for name in SESSION_COLUMNS}
        table = self.labelled(columns)
        tasks = {}
        for name, task in self.card.tasks.items():
            columns[TASK_COLUMN.format(name)], tasks[name] = task_labels(task, table, columns)
        write_columns(self.folder / "sessions.arrow", columns)
        idle = idle_patterns(
            self.card, [file.path for file in self.source.files], [capture.path for capture in self.captures]
        )
        idle += idle_words(self.card, self._label_values(table), tasks)
        manifest = self._manifest(len(joined["start"]), table.report, tasks)
        manifest = replace(manifest, idle=idle, contradictions=self.contradictions(columns, tasks))
        write_json(self.folder / "manifest.json", manifest.to_dict())

    def _manifest(self, sessions: int, labels: dict[str, Any], tasks: dict[str, TaskEntry]) -> Manifest:
        held = {capture.path: capture.sessions for capture in self.captures}
        silent: list[EmptyCapture | UnreadableEntry] = [*self.empty, *self.unreadable]
        reasons = {one.path: one.reason for one in silent}
        as_expected = self.card.expected.sessions == sessions  # what is published so has nothing to say
        return Manifest(
            format=FORMAT,
            name=self.card.name,
            card=self.card.digest,
            options=self.options,
            label_file=self.source.label_digest,
            packets=self.packets,
            sessions=sessions,
            default_task=self.card.default_task,
            tasks=tasks,
            labels=labels,
            unexpected=_unexpected(self.card, self.options, len(self.captures), sessions, tasks),
            damaged=[DamagedCapture(c.path, c.damage) for c in self.captures if c.damage],
            unreadable=self.unreadable,
            ignored=self.source.ignored,
            captures=self.captures,
            empty=[] if as_expected else self.empty,
            empty_classes=empty_classes(self.card, self.source, held, reasons),
            files=self._files(tasks),
            code=code_of_stores(),
            columns={name: column_file(self.folder / name) for name in COLUMN_FILES},
            **self.facts(),
        )

    def files_report(self) -> FilesReport | None:
        """How what was found meets the card's list, but for the classes; None of a card without a list."""
        return None

    def _files(self, tasks: dict[str, TaskEntry]) -> FilesReport | None:
        """The same with the classes that the list has and the store has not."""
        report = self.files_report()
        if report is None:
            return None
        listed, columns = self._listed_columns()
        classes = {name: row_classes(task, columns) for name, task in self.card.tasks.items()}
        return replace(report, lacking=lacking_classes(classes, tasks, listed, report))

    def _listed_columns(self) -> tuple[list[Listed], dict[str, list[str]]]:
        """The card's list of captures, and their label columns."""
        listed, _ = self.card.listed(self.options.switches)
        columns = {name: [one.labels[name] for one in listed] for name in listed[0].labels}
        columns |= {name: ["1"] * len(listed) for name in self.card.observes}  # a capture may have such sessions
        return listed, columns

    def _label_values(self, table: LabelTable) -> Mapping[str, Sequence[str]]:
        """Label columns of what there could be: of a list all its captures, else the rows that sessions have."""
        if isinstance(self.card.labels, FileLabels):
            return self._listed_columns()[1]
        rows = np.unique(table.row[table.row != NO_ROW]).tolist()
        return {name: [cells[row] for row in rows] for name, cells in table.columns.items()}


def idle_words(card: Card, columns: Mapping[str, Sequence[str]], tasks: Mapping[str, TaskEntry]) -> list[str]:
    """Words of a card's tasks that hold for none of the rows of label columns, and tasks without sessions: lines."""
    lines = []
    for name, task in card.tasks.items():
        for column, kept in task.where.items():
            if column not in card.observes:
                lines += _idle_values(f"tasks.{name}.where.{column}", kept, columns[column])
        labels = row_classes(replace(task, where={}, merge={}), columns)
        lines += _idle_values(f"tasks.{name}.merge", task.merge, labels)
        if not tasks[name].sessions:
            dropped = "; its classes have too few captures" if tasks[name].dropped else ""
            lines.append(f"task {name} has no session{dropped}")
    return lines


def _idle_values(place: str, values: Collection[str], there: Sequence[str]) -> list[str]:
    """A line where some of the values are of nothing."""
    held = set(there)
    missing = [repr(value) for value in values if value not in held]
    known = some(sorted(map(repr, held - {""})), LISTED_VALUES) or "none"
    return [f"{place}: nothing has {', '.join(missing)}; there are: {known}"] if missing else []


class CaptureBuild(Build):
    """Captures are read in parallel and written one after another."""

    def __init__(self, *where: Any) -> None:
        super().__init__(*where)
        self.tls: list[NDArray[np.bool_]] = []  # by capture, where the card's tasks ask: which sessions are TLS

    def read(self, sinks: Mapping[str, Any], readers: Readers, progress: Progress | None) -> None:
        """Read the captures."""
        files = self.source.files
        size, done = sum(file.size for file in files), 0
        read = partial(read_file, ingest=self.options.ingest, work=self.work)
        with readers() as (pool, most):
            for number, (file, digest, index) in enumerate(_in_order(pool, read, files, 2 * most), 1):
                if isinstance(index, str):
                    self.unreadable.append(UnreadableEntry(file.path, file.size, digest, index))
                else:
                    self._add(file, digest, index, sinks)
                done += file.size
                if progress:
                    progress(done, size, number, len(files), self.packets)

    @property
    def _remedy(self) -> str:
        """What to do where no capture can be read."""
        if self.source.files_report and (archives := self.source.files_report.archives):
            return f"unpack the archives there, first `{archives[0]['unpack']}`"
        return "check what is there" if self.source.files else "give the folder that its card means"

    @property
    def _none(self) -> str:
        """That no file is a capture of the card, and how many captures there are.  Raises where there is none."""
        below = captures_below(self.source.root)
        wanted = "listed" if self.source.files_report else " or ".join(self.card.captures.include)
        first = below[0].relative_to(self.source.root)
        return f"none of {counted(len(below), 'capture')}, such as {first}, is {wanted}"

    def arrange(self) -> None:
        """Join the groups of equal captures.  Raises :class:`InputError` where none can be read, or holds a packet."""
        files = self.source.files
        if not self.captures:
            reason = f"{self.unreadable[0].path}: {self.unreadable[0].reason}" if files else self._none
            raise InputError(
                "no-capture", f"{self.source.root}: no usable capture for {self.card.name}: {reason}; {self._remedy}"
            )
        if not self.packets:
            first = self.empty[0]
            raise InputError(
                "no-packets",
                f"{self.source.root}: no TCP or UDP packet in the captures of {self.card.name} ({first.path}: "
                f"{first.reason}); `bench inspect` says more, check what is there",
            )
        self.join_groups()

    def labelled(self, columns: Columns) -> LabelTable:
        """By paths, the card's list or its label file."""
        paths = [capture.path for capture in self.captures]
        if isinstance(self.card.labels, FileLabels):
            table = list_table([self.source.rows[path].labels for path in paths], columns)
            return with_observed(table, "tls", np.concatenate(self.tls)) if self.tls else table
        assert not isinstance(self.card.labels, ColumnLabels)  # of records alone
        table = label_table(self.card.labels, self.label_file, paths, columns, check=self.options.keeps_packets)
        return with_observed(table, "tls", np.concatenate(self.tls)) if self.tls else table

    def facts(self) -> dict[str, Any]:
        """What was skipped, and which captures are the same."""
        skipped: collections.Counter[str] = collections.Counter()
        for capture in self.captures:
            skipped.update(capture.skipped)
        return {"skipped": dict(sorted(skipped.items())), "copies": self.copies(), "lacks": self._lacks()}

    def _lacks(self) -> dict[str, str]:
        """Payload, where all that there is was cut or is zeros: no method that reads bytes finds any."""
        held = [capture for capture in self.captures if capture.remarks.get("captured_payload_bytes")]
        bare = {capture.remarks.get("payload", "") for capture in (held or self.captures) if capture.packets}
        bare -= set() if held else {""}  # a capture that declares no payload says nothing of it
        if not bare or not bare <= {"zeros", "cut"}:
            return {}
        reason = "all payload in its captures is zeros" if held else "its captures hold no byte of payload: all was cut"
        return dict.fromkeys(("payload", "ip_bytes"), reason)

    def files_report(self) -> FilesReport | None:
        """The folder, then what is in the captures."""
        report = self.source.files_report
        return with_captures(report, self.source.rows, self.captures) if report else None

    def _add(self, file: CaptureFile, digest: str, index: "CaptureIndex", sinks: Mapping[str, Any]) -> None:
        """Append a capture's packets to the column files; keep its sessions."""
        from bench.ingest.inspection import begins_tls, details, why_empty

        for name, dtype in PACKET_COLUMNS.items():
            sinks[name].write(np.ascontiguousarray(index.packets[name], dtype))  # tofile() hides a full disk
        count, sessions = len(index.packets["time"]), len(index.sessions["start"])
        row = self.source.rows.get(file.path)
        columns = {name: np.asarray(values, SESSION_COLUMNS[name]) for name, values in index.sessions.items()}
        columns["first_packet"] = columns["first_packet"] + self.packets
        columns["capture"] = np.full(sessions, len(self.captures), np.int32)
        if "tls" in self.card.observes:
            self.tls.append(begins_tls(index))
        if not sessions:
            self.empty.append(EmptyCapture(file.path, why_empty(index)))
        self.sessions.append(columns)
        self.packets += count
        content = digest
        if index.bytes_path != index.path:
            self.unpacked[file.path] = index.bytes_path.name
            content = file_sha256(index.bytes_path)
        self.of_content.setdefault(content, []).append(len(self.captures))
        self.captures.append(
            CaptureEntry(
                path=file.path,
                size=file.size,
                sha256=digest,
                bytes=index.size,
                group=capture_group(self.card, file.path, row),
                attributes=capture_attributes(self.card, file.path, row),
                format=index.format,
                link_types=list(index.link_types),
                records=int(index.records),
                packets=count,
                sessions=sessions,
                damage=[DamageEntry(d.offset, d.reason, d.bytes_lost) for d in index.damage],
                skipped={name: int(n) for name, n in index.skipped.items() if n},
                remarks=details(index) | ({CONTENT: content} if content != digest else {}),
            )
        )


def _named(classes: Sequence[int], task: TaskEntry) -> str:
    """Names of a capture's classes."""
    return " and ".join(task.classes[one] for one in classes if one != NO_CLASS) or "without a class"


def _unexpected(
    card: Card, options: Options, captures: int, sessions: int, tasks: Mapping[str, TaskEntry]
) -> list[UnexpectedCount]:
    """Where the counts are not those that the card expects; switches and other rules change them on purpose."""
    if options.switches != card.choose({}) or not options.as_published:
        return []
    expected = card.expected
    pairs = [("captures", expected.captures, captures)]
    if options.idle_timeout is None:
        pairs.append(("sessions", expected.sessions, sessions))
        for name, task in expected.tasks.items():
            pairs.append((f"sessions of task {name}", task.sessions, tasks[name].sessions))
            pairs.append((f"classes of task {name}", task.classes, len(tasks[name].classes)))
    return [
        UnexpectedCount(what, wanted, count) for what, wanted, count in pairs if wanted is not None and wanted != count
    ]


def read_file(file: CaptureFile, *, ingest: IngestOptions, work: Path) -> Read:
    """SHA-256 and index of a capture, or the reason why it has none.  Runs in a thread, or on another machine."""
    from bench.ingest.capture import read_capture  # numba: not needed where the store is there already

    path = file.root / file.path
    if path.exists() and not path.is_file():
        return file, "", "is not a regular file"
    try:
        digest = file_sha256(path)
    except OSError as error:
        return file, "", str(error.strerror)
    try:  # an OSError from here on is a lack of room for what is unpacked: it ends the preparation
        index = read_capture(path, ingest, work=work)
    except InputError as error:
        return file, digest, str(error).removeprefix(f"{path}: ")
    return file, digest, index


def _in_order(
    pool: Pool, work: Callable[[CaptureFile], Read], files: Sequence[CaptureFile], most: int
) -> Iterator[Read]:
    """Results in the files' order, at most so many waiting, so that memory does not grow with the files' number."""
    waiting: collections.deque[Any] = collections.deque()
    for file in files:
        waiting.append(pool.submit(work, file))
        if len(waiting) >= most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
