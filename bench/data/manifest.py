"""What a store says of itself: one record, written by a preparation and read by everybody; and where stores lie.

A manifest decides the store's digest, and with it every run's, so its JSON is written field by field in one order that
never changes; what tells only how the captures met what was expected (`REPORTED`), or which code read them, is left out
of the digest.
"""

import hashlib
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from bench.errors import InputError
from bench.files import is_of_machine, plain, unreadable
from bench.ingest.options import IngestOptions
from bench.structure import structured

#: changes when a store of before cannot be read, or the ingest would make another one of the same captures
FORMAT: Final = 3
CHECKSUM: Final = "sha256"  # of the rest of the manifest; stores of before have none
CONTENT: Final = "content_sha256"  # a remark: of the unpacked capture, or of a capture's records
#: fields that do not decide the store's digest: files that are no captures change nothing, nor does the code by itself;
#: checksums follow from the rest, and stores of before have none; remarks on single captures are left out, too
REPORTED: Final = (
    *("unexpected", "ignored", "unreadable", "empty", "empty_classes", "labels", "files", "code", "columns"),
    *("lacks", "limits", "idle"),
)


@dataclass(frozen=True)
class Options(IngestOptions):
    """How a store was prepared: how its captures were read, and what the card was told."""

    switches: dict[str, str] = field(default_factory=dict)  # of the card: the choices that were made
    join_captures: bool = False  # captures of one group were joined to one
    join_records: bool | None = None  # records of one 5-tuple were joined to one session; None: there are no records
    asked_to_join: bool | None = None  # what the user said of it against the card's word; None: nothing

    def to_dict(self) -> dict[str, Any]:
        """JSON types; rules of the default and switches of cards without any are left out."""
        head = {"idle_timeout": self.idle_timeout} | self.unusual
        head |= {"join_captures": True} if self.join_captures else {}
        head |= {"join_records": self.join_records} if self.join_records is not None else {}
        head |= {"asked_to_join": self.asked_to_join} if self.asked_to_join is not None else {}
        return head | ({"switches": self.switches} if self.switches else {})

    @property
    def words(self) -> list[str]:
        """The options of `bench prepare` that ask for it."""
        asked = self.unusual | {f"switch {name}": f"{name}={choice}" for name, choice in self.switches.items()}
        words = ["--join-captures"] if self.join_captures else []
        if self.asked_to_join is not None:
            words.append("--join-records" if self.asked_to_join else "--no-join-records")
        for name, value in asked.items():
            option = f"--{name.partition(' ')[0].replace('_', '-')}"
            words += [option] if value is True else [option, _typed(value)]
        return words

    @property
    def as_published(self) -> bool:
        """Whether sessions are to be counted as a card counts them; an idle timeout changes no capture."""
        return not (set(self.unusual) - {"idle_timeout"} or self.join_captures or self.asked_to_join is not None)

    @property
    def keeps_packets(self) -> bool:
        """Whether every packet that can be read counts, and where it was captured."""
        return not self.decap and self.drop_copies is None and not self.filter

    @property
    def ingest(self) -> IngestOptions:
        """The rules by which captures were read."""
        return IngestOptions(**{one.name: getattr(self, one.name) for one in fields(IngestOptions)})


@dataclass(frozen=True)
class TaskEntry:
    """One task; lists are by class."""

    classes: list[str]
    sessions: int = 0
    class_sessions: list[int] = field(default_factory=list)
    class_captures: list[int] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)  # class with too few captures -> how many it has
    notes: str = ""


@dataclass(frozen=True)
class DamageEntry:
    """Where a capture is damaged, in bytes of the unpacked file."""

    offset: int
    reason: str
    bytes_lost: int


def _typed(value: Any) -> str:
    """An option's value as it is typed, with every digit."""
    if isinstance(value, list):
        return ",".join(value)
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class CaptureEntry:
    """One capture."""

    path: str  # relative to the source folder
    size: int = 0
    sha256: str = ""
    bytes: int = 0  # of the file that packet rows address
    group: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    format: str = ""
    link_types: list[str] = field(default_factory=list)
    records: int = 0
    packets: int = 0
    sessions: int = 0
    damage: list[DamageEntry] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    remarks: dict[str, Any] = field(default_factory=dict)  # see `bench.ingest.inspection.details`; and `CONTENT`

    @property
    def content(self) -> str:
        """SHA-256 (hex) of what is in it, however it is packed; empty for records of an earlier version's store."""
        return str(self.remarks.get(CONTENT, self.sha256))


@dataclass(frozen=True)
class TableEntry:
    """A table of records."""

    path: str  # relative to the source folder
    size: int
    sha256: str
    records: int


@dataclass(frozen=True)
class UnreadableEntry:
    """A file that should be a capture and cannot be read."""

    path: str
    size: int
    sha256: str  # empty where it could not even be opened
    reason: str


@dataclass(frozen=True)
class EmptyCapture:
    """A capture that can be read and holds no session."""

    path: str
    reason: str  # what stands there instead


@dataclass(frozen=True)
class EmptyClass:
    """A class that the folder names and that has no session."""

    name: str
    files: list[str]  # its captures, and files that should be some
    reason: str


@dataclass(frozen=True)
class UnexpectedCount:
    """A count that is not the one of the card."""

    what: str
    expected: int
    found: int


@dataclass(frozen=True)
class DamagedCapture:
    """A capture with its damage."""

    path: str
    damage: list[DamageEntry]


@dataclass(frozen=True)
class DoubleCapture:
    """A listed capture that is there several times."""

    file: str
    taken: str
    ignored: list[str]


@dataclass(frozen=True)
class PacketsDiffer:
    """A capture that has another number of packets than listed."""

    file: str
    expected: int
    found: int


@dataclass(frozen=True)
class LackingClasses:
    """Classes of a task that the list has and the captures have not."""

    task: str
    classes: list[str]
    files: list[str]  # missing captures of theirs
    archives: list[str]  # where these are published
    notes: list[str]


@dataclass(frozen=True)
class FilesReport:
    """How a folder meets the card's list of captures."""

    listed: int
    missing: list[dict[str, str]]  # ``file``, and where known ``archive`` and ``note``
    unknown: list[str]
    double: list[DoubleCapture]
    copies_skipped: dict[str, str]  # path -> the original's path
    copies_used: dict[str, str]  # original -> the copy's path
    left_out: list[str]  # by a switch
    archives: list[dict[str, str]]  # ``file`` and ``unpack``: the command
    packets_differ: list[PacketsDiffer] = field(default_factory=list)
    damage_expected: list[str] = field(default_factory=list)
    damage_unexpected: list[str] = field(default_factory=list)
    damage_absent: list[str] = field(default_factory=list)
    lacking: list[LackingClasses] = field(default_factory=list)

    @property
    def met(self) -> tuple[Any, ...]:
        """What the folder alone decides, before a capture is read."""
        names = [one.name for one in fields(self)][:8]
        return tuple(getattr(self, name) for name in names)

    @property
    def problems(self) -> list[str]:
        """What keeps the folder from being the listed data set, a line each."""
        return [
            *(f"{one['file']} is missing{_remarks(one)}" for one in self.missing),
            *(f"{path} is not in the list" for path in self.unknown),
            *(f"{one.file} is there twice ({one.taken}, {one.ignored[0]})" for one in self.double),
            *(f"{path} is damaged" for path in self.damage_unexpected),
            *(f"{one.file} has {one.found} packets, the list says {one.expected}" for one in self.packets_differ),
        ]


def _remarks(missing: Mapping[str, str]) -> str:
    remarks = [missing[name] for name in ("archive", "note") if name in missing]
    return f" ({'; '.join(remarks)})" if remarks else ""


@dataclass(frozen=True)
class ColumnFile:
    """A file of columns, as it was written."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything that decides a store's content, and how it came about."""

    format: int
    name: str
    card: str  # digest
    options: Options
    packets: int
    sessions: int
    default_task: str
    tasks: dict[str, TaskEntry]
    captures: list[CaptureEntry]
    unreadable: list[UnreadableEntry]
    label_file: str | None = None  # SHA-256
    labels: dict[str, Any] = field(default_factory=dict)  # how sessions and labels met, for people
    unexpected: list[UnexpectedCount] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    damaged: list[DamagedCapture] = field(default_factory=list)
    copies: list[list[str]] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)  # files that are no captures, by suffix
    empty: list[EmptyCapture] = field(default_factory=list)  # captures without a session
    empty_classes: list[EmptyClass] = field(default_factory=list)
    files: FilesReport | None = None  # of a card with a list of captures
    code: str = ""  # digest of the code that made the store; empty: earlier code, which did not say
    columns: dict[str, ColumnFile] = field(default_factory=dict)  # by file; empty: earlier code, which kept none
    tables: list[TableEntry] = field(default_factory=list)  # of a store made of records
    lacks: dict[str, str] = field(default_factory=dict)  # of `bench.readers.READS`, what no method can read -> why
    limits: list[str] = field(default_factory=list)  # what its sessions do not show, for people
    idle: list[str] = field(default_factory=list)  # words of the card that hold for nothing here, a line each
    contradictions: list[str] = field(default_factory=list)  # what is the same and labelled otherwise, a line each

    def to_dict(self) -> dict[str, Any]:
        """JSON types, in the one order."""
        content: dict[str, Any] = {"format": self.format, "name": self.name, "card": self.card}
        content |= {"options": self.options.to_dict(), "label_file": self.label_file}
        rest = ("packets", "sessions", "default_task", "tasks", "labels", "unexpected", "skipped", "damaged", "copies")
        content |= {name: plain(getattr(self, name)) for name in (*rest, "unreadable", "ignored", "captures")}
        content |= {"empty": plain(self.empty), "empty_classes": plain(self.empty_classes)}
        content |= {"files": plain(self.files)} if self.files else {}
        told = ("tables", "lacks", "limits", "idle", "contradictions")
        content |= {name: plain(value) for name in told if (value := getattr(self, name))}
        content |= {"code": self.code} if self.code else {}
        content |= {"columns": plain(self.columns)} if self.columns else {}
        return content | {CHECKSUM: _checksum(content)}

    @property
    def state(self) -> dict[str, str]:
        """What tells it from another preparation of the same data set, in few words: a run keeps them."""
        counts = {"sessions": str(self.sessions), "captures": str(len(self.captures) or len(self.tables))}
        options = shlex.join(self.options.words) or "none"
        return counts | {"packets": str(self.packets), "options": options, "card": self.card[:8], "code": self.code[:8]}

    @property
    def vanished(self) -> list[str]:
        """What is there and gives no session, a line each: classes, and captures of classes that are there."""
        of_classes = [f"class {one.name}: no session: {one.reason}" for one in self.empty_classes]
        lost = {path for one in self.empty_classes for path in one.files}
        alone = [f"{one.path}: no session: {one.reason}" for one in self.empty if one.path not in lost]
        unread = [f"{one.path}: could not be read: {one.reason}" for one in self.unreadable if one.path not in lost]
        return of_classes + alone + unread

    @property
    def problems(self) -> list[str]:
        """Why the captures are not what the card describes, a line each."""
        return [  # damage alone is none where no list says what to expect: the counts tell whether it matters
            *(self.files.problems if self.files else ()),
            *self.vanished,
            *(f"{one.what}: expected {one.expected}, found {one.found}" for one in self.unexpected),
        ]


@dataclass(frozen=True)
class Sources:
    """Where a store's captures lie on this machine, and when the files changed last that were read in full."""

    root: str
    mtime_ns: dict[str, int]  # by path
    unpacked: dict[str, str]  # path of a compressed capture -> name of the unpacked file
    columns_mtime_ns: dict[str, int] = field(default_factory=dict)  # by file of columns
    origin: str = ""  # the folder that was named, where captures were joined; empty: the root
    made_of: str = ""  # the card or the folder that named the data set; empty: a shipped card, or an earlier version


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """The manifest of a store's folder and its digest: SHA-256 (hex), the same for the same content anywhere.

    Raises :class:`InputError` where there is none or it is of another format.
    """
    try:
        content = json.loads((folder / "manifest.json").read_bytes())
    except (OSError, ValueError) as error:
        if is_of_machine(error):
            raise unreadable(folder / "manifest.json", error) from error
        raise InputError(
            "store-damaged", f"{folder}: not a store ({error}); run `bench prepare {folder.name}`"
        ) from error
    written = content.get("format") if isinstance(content, dict) else None
    if written != FORMAT:
        remedy = f"this version reads {FORMAT}; run `bench prepare {folder.name}` again"
        raise InputError("store-format", f"{folder}: store format {written}, {remedy}")
    try:
        manifest = structured(content, Manifest, f"{folder}: its manifest", strict=False, code="store-damaged")
    except InputError as error:
        raise error.with_remedy(f"run `bench prepare {folder.name}` again") from error
    if CHECKSUM in content and content[CHECKSUM] != _checksum(content):
        raise InputError(
            "store-damaged",
            f"{folder}: its manifest is not what was written; run `bench prepare {folder.name}` again",
        )
    decisive = {name: value for name, value in content.items() if name not in (*REPORTED, CHECKSUM)}
    decisive["captures"] = [
        {name: value for name, value in capture.items() if name != "remarks"} for capture in decisive["captures"]
    ]
    return manifest, hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


def _checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of all of a manifest's JSON but this."""
    rest = {name: value for name, value in content.items() if name != CHECKSUM}
    return hashlib.sha256(json.dumps(rest).encode()).hexdigest()


# --- where stores lie, and what stands behind their names -----------------------------------------------------


def bench_home() -> Path:
    """Folder of stores and unpacked captures: ``BENCH_HOME``, else the user's cache folder.

    Raises :class:`InputError` where the system knows none.
    """
    if home := os.environ.get("BENCH_HOME"):
        return Path(home).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(cache) if cache else Path.home() / ".cache") / "etc-bench"
    except RuntimeError:  # no HOME, and a user that the system does not know
        raise InputError("missing-file", "there is no home folder for stores; set BENCH_HOME to a folder") from None


def store_path(name: str, home: Path | None = None) -> Path:
    """Where the store of that name lies, or would."""
    return (home or bench_home()) / "stores" / name


def unpacked_path(name: str, home: Path | None = None) -> Path:
    """Where compressed captures of that data set are unpacked."""
    return (home or bench_home()) / "unpacked" / name


def names_there(home: Path | None = None) -> dict[str, str]:
    """Names of the stores that are there, sorted, and the card or the folder that each was made of.

    That is empty for one of a shipped card, or of an earlier version that did not record it.
    """
    return {
        file.parent.name: _made_of(file) for file in sorted((home or bench_home()).glob("stores/[!.]*/sources.json"))
    }


def _made_of(file: Path) -> str:
    try:
        return str(json.loads(file.read_bytes()).get("made_of", ""))
    except (OSError, ValueError, AttributeError):
        return ""
