"""From captures to a store: find, read, label, write.

The store is built in a folder beside its place and renamed when it is whole; a lock that ends with the process
keeps two preparations of one name apart.  The same captures, card and options give the same bytes.
"""

import collections
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.data.cards import Card, FileLabels, SessionLabels, find_card
from bench.data.file_list import lacking_classes, with_captures
from bench.data.labels import (
    LabelFile,
    label_table,
    list_table,
    read_label_file,
    row_classes,
    session_tuples,
    task_labels,
)
from bench.data.manifest import (
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
    empty_classes,
    find_captures,
    same_folder,
    source_folder,
    with_joined,
)
from bench.data.store import (
    COLUMN_FILES,
    TASK_COLUMN,
    Store,
    bench_home,
    column_file,
    store_path,
    unpacked_path,
    write_columns,
)
from bench.environment import code_digest
from bench.errors import InputError
from bench.files import file_sha256, locked, plain, write_json, written_folder
from bench.ingest.options import IngestOptions
from bench.schema import PACKET_COLUMNS, SESSION_COLUMNS, numbered

if TYPE_CHECKING:
    from bench.ingest.capture import CaptureIndex

#: called after each capture: bytes done, bytes in all, captures done, captures in all, packets so far
Progress = Callable[[int, int, int, int, int], None]
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Prepared:
    """What `prepare` made or found."""

    store_path: Path
    unchanged: bool  # the store was there already, made of the same input
    manifest: Manifest
    other_code: bool = False  # it was there, and made by other code than today's
    damage: str = ""  # what was wrong with the store that was there, so that it was made anew

    @property
    def report(self) -> dict[str, Any]:
        """The manifest with the number of captures instead of all of them, ready for JSON."""
        return self.manifest.to_dict() | {"captures": len(self.manifest.captures)}


@dataclass(frozen=True)
class PrepareOptions:
    """How a data set is prepared."""

    ingest: IngestOptions = field(default_factory=IngestOptions)  # how captures are read
    switches: Mapping[str, str] = field(default_factory=dict)  # choices of the card's; the others have their defaults
    strict: bool = False  # refuse captures that are not exactly what the card describes
    join_captures: bool = False  # captures of one group, into which one was rotated, are one
    rebuild: bool = False  # also where the store is there already
    jobs: int | None = None  # threads; None: one a core


DEFAULT_OPTIONS: Final = PrepareOptions()


def prepare_dataset(
    card: Card,
    source: Path | None = None,
    options: PrepareOptions = DEFAULT_OPTIONS,
    *,
    home: Path | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Make the store of a data set, or find that it is there already.

    ``source`` is the folder of the captures (none for a card that makes or knows its own).  A capture that cannot be
    read is reported in the manifest.  Raises :class:`InputError` where no capture can; with ``options.strict``, and
    nothing written, also where the captures are not exactly what the card describes.
    """
    home = home or bench_home()
    path, work = store_path(card.name, home), unpacked_path(card.name, home)
    choices = card.choose(options.switches)
    chosen = Options(**vars(options.ingest), switches=choices, join_captures=options.join_captures)
    with locked(path):
        folder = source_folder(card, source, home)
        if card.source:
            _check_owner(path, folder)
        captures = find_captures(card, folder, chosen.switches)
        if options.join_captures:
            captures = with_joined(card, captures, home)
        if options.strict and captures.files_report:  # before hours of reading
            _refuse(folder, captures.files_report.problems)
        if not options.rebuild and (store := _same_input(path, card, chosen, captures)):
            if options.strict:
                _refuse(folder, store.manifest.problems)
            return Prepared(path, True, store.manifest, other_code=store.manifest.code != code_of_stores())
        damage = _damage_of(path)
        try:
            with written_folder(path) as aside:
                _Build(card, captures, chosen, work, aside).run(options.jobs, progress)
                if options.strict:
                    _refuse(folder, Store.open(aside).manifest.problems)
        finally:
            _tidy(path, work, home / "joined")
    return Prepared(path, False, Store.open(path).manifest, damage=damage)


def _tidy(path: Path, work: Path, joined: Path) -> None:
    """Remove what was unpacked or joined for another store than the one that is there, or for one that was refused."""
    try:
        sources = Store.open(path).sources
        used = {*sources.unpacked.values(), Path(sources.root).name}
    except InputError:
        used = set()
    for file in work.glob("*"):
        if file.name not in used:
            file.unlink()
    for folder in joined.glob(f"{path.name}-*"):
        if re.fullmatch(r"[0-9a-f]{12}", folder.name.removeprefix(f"{path.name}-")) and folder.name not in used:
            shutil.rmtree(folder)


def _damage_of(path: Path) -> str:
    """What is wrong with the store at a path; empty where nothing is, or none is there."""
    try:
        if path.exists():
            Store.open(path).check_columns()
    except InputError as error:
        if error.code == "store-damaged":
            return f"the store was damaged and is made anew: {str(error).rpartition('; ')[0]}"
    return ""


@cache
def code_of_stores() -> str:
    """Digest of the code that decides what a store holds."""
    return code_digest("bench.data.prepare")


def open_dataset(
    name_or_path: str,
    *,
    home: Path | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Store:
    """The store of a data set; prepared first where the captures are known (the demo, a folder).

    ``tell`` hears of a damaged store that is made anew.  Raises :class:`InputError` with the command to run where there
    is no store, or its card has changed since.
    """
    card = find_card(name_or_path)
    if card.generator or card.source:
        options = _kept_options(card, store_path(card.name, home))
        prepared = prepare_dataset(card, options=options, home=home, progress=progress)
        if prepared.damage:
            tell(prepared.damage)
        return Store.open(prepared.store_path)
    store = Store.find(card.name, home)
    if store.manifest.card != card.digest:
        raise InputError(
            "card-changed",
            f"{card.name}: its card changed since it was prepared; run `bench prepare {name_or_path} --source DIR`",
        )
    return store


def _kept_options(card: Card, path: Path) -> PrepareOptions:
    """How a store was prepared, as far as the card still knows its switches."""
    try:
        options = Store.open(path).manifest.options
    except InputError:  # none yet, or one of an older format
        return DEFAULT_OPTIONS
    known = {
        name: choice
        for name, choice in options.switches.items()
        if name in card.switches and choice in card.switches[name].choices
    }
    return PrepareOptions(ingest=options.ingest, switches=known, join_captures=options.join_captures)


class _Build:
    """One preparation: captures are read in parallel and written one after another."""

    def __init__(self, card: Card, source: Source, options: Options, work: Path, folder: Path) -> None:
        self.card, self.source, self.options, self.work, self.folder = card, source, options, work, folder
        self.label_file: LabelFile | None = None
        if isinstance(card.labels, SessionLabels) and source.label_file:  # read first: a wrong one ends all at once
            self.label_file = read_label_file(card.labels, source.label_file, card.tasks)
        self.captures: list[CaptureEntry] = []
        self.of_content: dict[str, list[int]] = {}  # SHA-256 of what is in a capture, unpacked -> rows of captures
        self.unreadable: list[UnreadableEntry] = []
        self.empty: list[EmptyCapture] = []
        self.unpacked: dict[str, str] = {}
        self.sessions: list[Columns] = []
        self.packets = 0

    def run(self, jobs: int | None, progress: Progress | None) -> None:
        """Write the whole store into the folder.  Raises :class:`InputError` where there is nothing to write."""
        files = self.source.files
        size, done = sum(file.size for file in files), 0
        with ExitStack() as stack:
            sinks = {name: stack.enter_context(self._column_file(name).open("wb")) for name in PACKET_COLUMNS}
            jobs = jobs or os.cpu_count() or 1
            pool = ThreadPoolExecutor(jobs)
            stack.callback(pool.shutdown, cancel_futures=True)  # an interrupt does not wait for the queue
            for number, (file, digest, index) in enumerate(_in_order(pool, self._read, files, 2 * jobs), 1):
                if isinstance(index, str):
                    self.unreadable.append(UnreadableEntry(file.path, file.size, digest, index))
                else:
                    self._add(file, digest, index, sinks)
                done += file.size
                if progress:
                    progress(done, size, number, len(files), self.packets)
        if not self.captures:
            reason = f"{self.unreadable[0].path}: {self.unreadable[0].reason}" if files else "there is none"
            archives = self.source.files_report.archives if self.source.files_report else []
            remedy = f"unpack the archives there, first `{archives[0]['unpack']}`" if archives else "check --source"
            raise InputError(
                "no-capture", f"{self.source.root}: no usable capture for {self.card.name}: {reason}; {remedy}"
            )
        if not self.packets:
            first = self.empty[0]
            raise InputError(
                "no-packets",
                f"{self.source.root}: no TCP or UDP packet in the captures of {self.card.name} ({first.path}: "
                f"{first.reason}); `bench inspect` says more, check --source",
            )
        self._join_groups()
        self._write_packets()
        self._write_sessions()
        mtimes = {file.path: file.mtime_ns for file in files}
        written = {name: (self.folder / name).stat().st_mtime_ns for name in COLUMN_FILES}
        origin = str(self.source.origin or "")
        sources = Sources(str(self.source.root), mtimes, self.unpacked, written, origin)
        write_json(self.folder / "sources.json", plain(sources))

    def _read(self, file: CaptureFile) -> tuple[CaptureFile, str, "CaptureIndex | str"]:
        """SHA-256 and index of a capture, or the reason why it has none.  Runs in a thread."""
        from bench.ingest.capture import read_capture  # numba: not needed where the store is there already

        path = file.root / file.path
        if path.exists() and not path.is_file():
            return file, "", "is no regular file"
        try:
            digest = file_sha256(path)
        except OSError as error:
            return file, "", str(error.strerror)
        try:  # an OSError from here on is a lack of room for what is unpacked: it ends the preparation
            index = read_capture(path, self.options.ingest, work=self.work)
        except InputError as error:
            return file, digest, str(error).removeprefix(f"{path}: ")
        return file, digest, index

    def _add(self, file: CaptureFile, digest: str, index: "CaptureIndex", sinks: dict[str, Any]) -> None:
        """Append a capture's packets to the column files; keep its sessions."""
        from bench.ingest.inspection import details, why_empty

        for name, dtype in PACKET_COLUMNS.items():
            sinks[name].write(np.ascontiguousarray(index.packets[name], dtype))  # tofile() hides a full disk
        count, sessions = len(index.packets["time"]), len(index.sessions["start"])
        row = self.source.rows.get(file.path)
        columns = {name: np.asarray(values, SESSION_COLUMNS[name]) for name, values in index.sessions.items()}
        columns["first_packet"] = columns["first_packet"] + self.packets
        columns["capture"] = np.full(sessions, len(self.captures), np.int32)
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
                remarks=details(index),
            )
        )

    def _join_groups(self) -> None:
        """Make the groups of captures that hold the same one group: no split by capture may part them."""
        for rows in self.of_content.values():
            same = {self.captures[row].group for row in rows}
            if len(same) > 1:
                first = min(same)
                self.captures = [replace(one, group=first if one.group in same else one.group) for one in self.captures]

    def _column_file(self, name: str) -> Path:
        return self.folder / f"{name}.column"

    def _write_packets(self) -> None:
        """One Arrow batch of the column files, copied through memory maps."""
        columns = {name: np.memmap(self._column_file(name), dtype, mode="r") for name, dtype in PACKET_COLUMNS.items()}
        write_columns(self.folder / "packets.arrow", columns)
        for name in PACKET_COLUMNS:
            self._column_file(name).unlink()

    def _write_sessions(self) -> None:
        """Label the sessions; write them and the manifest."""
        joined = {name: np.concatenate([part[name] for part in self.sessions]) for name in self.sessions[0]}
        joined["conversation"] = numbered(session_tuples(joined)).astype(np.int32)
        columns = {name: joined[name] for name in SESSION_COLUMNS}
        paths = [capture.path for capture in self.captures]
        if isinstance(self.card.labels, FileLabels):
            table = list_table([self.source.rows[path].labels for path in paths], columns)
        else:
            table = label_table(self.card.labels, self.label_file, paths, columns, check=self.options.keeps_packets)
        tasks = {}
        for name, task in self.card.tasks.items():
            columns[TASK_COLUMN.format(name)], tasks[name] = task_labels(task, table, columns)
        write_columns(self.folder / "sessions.arrow", columns)
        manifest = self._manifest(len(joined["start"]), table.report, tasks)
        write_json(self.folder / "manifest.json", manifest.to_dict())

    def _manifest(self, sessions: int, labels: dict[str, Any], tasks: dict[str, TaskEntry]) -> Manifest:
        skipped: collections.Counter[str] = collections.Counter()
        for capture in self.captures:
            skipped.update(capture.skipped)
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
            skipped=dict(sorted(skipped.items())),
            damaged=[DamagedCapture(c.path, c.damage) for c in self.captures if c.damage],
            copies=[[self.captures[row].path for row in rows] for rows in self.of_content.values() if len(rows) > 1],
            unreadable=self.unreadable,
            ignored=self.source.ignored,
            captures=self.captures,
            empty=[] if as_expected else self.empty,
            empty_classes=empty_classes(self.card, self.source, held, reasons),
            files=self._files(self.source.files_report, tasks) if self.source.files_report else None,
            code=code_of_stores(),
            columns={name: column_file(self.folder / name) for name in COLUMN_FILES},
        )

    def _files(self, report: FilesReport, tasks: dict[str, TaskEntry]) -> FilesReport:
        """How the captures match the card's list: the folder, then what is in them, then the classes."""
        listed, _ = self.card.listed(self.options.switches)
        columns = {name: [one.labels[name] for one in listed] for name in listed[0].labels}
        classes = {name: row_classes(task, columns) for name, task in self.card.tasks.items()}
        report = with_captures(report, self.source.rows, self.captures)
        return replace(report, lacking=lacking_classes(classes, tasks, listed, report))


def _refuse(folder: Path, problems: Sequence[str]) -> None:
    """Raise :class:`InputError` with the first of the problems, if there is one."""
    if problems:
        others = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
        remedy = "leave out --strict to prepare what is there and see all"
        raise InputError("not-as-listed", f"{folder}: {problems[0]}{others}; nothing is written; {remedy}")


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


def _same_input(path: Path, card: Card, options: Options, source: Source) -> Store | None:
    """The store at the path, if it was made of exactly this input; a mere move of the captures is noted in it."""
    try:
        store = Store.open(path)
        sources = store.sources
        store.check_columns()
    except InputError:
        return None
    manifest = store.manifest
    entries: list[CaptureEntry | UnreadableEntry] = [*manifest.captures, *manifest.unreadable]
    known = {entry.path: entry for entry in entries}
    if (manifest.card, manifest.options) != (card.digest, options) or not same_folder(manifest, card, source):
        return None
    sizes = {capture.path: capture.bytes for capture in manifest.captures}
    if not all(_has_size(store.unpacked / name, sizes[p]) for p, name in sources.unpacked.items()):
        return None
    mtimes = {file.path: file.mtime_ns for file in source.files}
    try:
        touched = [path for path, mtime in mtimes.items() if sources.mtime_ns[path] != mtime]
        if any(file_sha256(source.root / path) != known[path].sha256 for path in touched):
            return None
    except OSError:
        return None
    here = replace(sources, root=str(source.root), mtime_ns=mtimes, origin=str(source.origin or ""))
    if sources != here:
        write_json(path / "sources.json", plain(here))
    return store


def _check_owner(path: Path, folder: Path) -> None:
    """Refuse a store that another folder of the same name still uses: each would overwrite the other's."""
    try:
        sources = Store.open(path).sources
    except InputError:
        return
    owner = Path(sources.origin or sources.root)
    if owner != folder and owner.is_dir():
        raise InputError("same-name", f"{path}: is the store of {owner}; rename {folder} or remove that store")


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[CaptureFile], Any], files: Sequence[CaptureFile], most: int
) -> Iterator[Any]:
    """Results in the files' order, at most so many waiting, so that memory does not grow with the files' number."""
    waiting: collections.deque[Future[Any]] = collections.deque()
    for file in files:
        waiting.append(pool.submit(work, file))
        if len(waiting) >= most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
