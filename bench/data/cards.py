"""Data set cards: what a data set is, where its labels come from and which tasks it offers.

A card is a TOML file; every field is described in ``datasets/README.md``.  Reading is strict: an unknown
field, a wrong type or a rule that cannot hold is refused with the card, the field, the value and the reason.
Only the standard library and cattrs are imported here, so that listing commands stay quick.
"""

import dataclasses
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Final

from bench.data.file_list import Download, DownloadList, FileList, Listed, read_file_list
from bench.errors import InputError, instead
from bench.files import FieldError, plain, shipped_folder, structured, typed_path
from bench.records.layout import PATH, Layout

#: what the session columns of a cross-check may be
CHECKED: Final = ("packets", "payload_packets", "payload_bytes")
#: label columns that the harness reads off the sessions themselves, where a card's labels have none of that name
OBSERVED: Final = ("tls",)
#: fields that describe a data set to people and do not change its store
PROSE: Final = (
    *("title", "citation", "licence", "home", "notes", "source", "downloads", "download_list", "like"),
    "place",
)
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # it names folders, and files with a little more


def _check_pattern(name: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise FieldError(name, f"not a regular expression: {error}") from error


@dataclass(frozen=True)
class Captures:
    """Which files of the source folder are the data set's, and which of them belong together."""

    include: tuple[str, ...] = ("**/*",)  # globs, relative to the source folder
    group: str = ""  # regular expression over the path: its first group names the capture's group; "": each its own
    name: str = ""  # likewise over the path of a table of records: the capture that it is of; "": the path

    def __post_init__(self) -> None:
        _check_pattern("group", self.group)
        _check_pattern("name", self.name)


@dataclass(frozen=True)
class PatternLabels:
    """Label columns from a capture's path: the named groups of a regular expression (searched, '/' separates)."""

    kind: ClassVar[str] = "pattern"
    pattern: str = "^(?P<label>[^/]+)/"  # the first folder

    def __post_init__(self) -> None:
        _check_pattern("pattern", self.pattern)
        if not self.columns:
            raise FieldError("pattern", "has no named group such as (?P<label>...)")

    @property
    def columns(self) -> frozenset[str]:
        """Names that a task can use."""
        return frozenset(re.compile(self.pattern).groupindex)


@dataclass(frozen=True)
class SessionLabels:
    """Label columns from a CSV file with one row a session; the fields name its columns."""

    kind: ClassVar[str] = "sessions"
    columns: ClassVar[None] = None  # known when the file is read
    file: str  # relative to the source folder
    capture: str = "capture"  # path of the capture, relative to the source folder
    protocol: str = "protocol"  # TCP or UDP (any case), or 6 or 17
    endpoints: tuple[str, ...] = ("client_ip", "client_port", "server_ip", "server_port")  # in either order
    start: str = ""  # first packet, seconds since the epoch: tells apart sessions of equal end points
    check: dict[str, str] = field(default_factory=dict)  # session column -> column that must agree with it

    def __post_init__(self) -> None:
        if len(self.endpoints) != 4:
            raise FieldError("endpoints", "four columns are needed: address, port, address, port")
        for column in self.check:
            if column not in CHECKED:
                raise FieldError(f"check.{column}", f"can be checked: {', '.join(CHECKED)}")


@dataclass(frozen=True)
class FileLabels:
    """Label columns from a list of the data set's captures, a CSV file beside the card (`bench.data.file_list`)."""

    kind: ClassVar[str] = "files"
    table: FileList  # in the card: the file's name

    @property
    def columns(self) -> frozenset[str]:
        """Names that a task can use."""
        return self.table.columns


@dataclass(frozen=True)
class ColumnLabels:
    """Label columns from the columns of records themselves, and from the names of their captures."""

    kind: ClassVar[str] = "columns"
    paths: dict[str, str] = field(default_factory=dict)  # label column -> column of the table (`bench.records.layout`)
    pattern: str = ""  # regular expression over a capture's name; its named groups are label columns, too

    def __post_init__(self) -> None:
        _check_pattern("pattern", self.pattern)
        for name, path in self.paths.items():
            if not PATH.fullmatch(path):
                raise FieldError(f"paths.{name}", f"column {path!r}: write NAME, NAME.KEY or NAME[N]")
        if not self.columns:
            raise FieldError("paths", 'names no column; write paths = { label = "COLUMN" }')
        if double := set(self.paths) & set(re.compile(self.pattern).groupindex):
            raise FieldError("pattern", f"names {sorted(double)[0]!r}, which paths names, too")

    @property
    def columns(self) -> frozenset[str]:
        """Names that a task can use."""
        return frozenset(self.paths) | frozenset(re.compile(self.pattern).groupindex)


@dataclass(frozen=True)
class Switch:
    """A question that the data set's users answer differently: what some of the listed captures are."""

    files: str  # regular expression, searched in the listed file, in lower case
    default: str
    choices: dict[str, dict[str, str]]  # choice -> label column -> value; "file" -> "": the capture is left out
    notes: str = ""

    def __post_init__(self) -> None:
        _check_pattern("files", self.files)
        if self.default not in self.choices:
            raise FieldError("default", f"no such choice; there are: {', '.join(self.choices)}")

    def check(self, files: FileList) -> None:
        """Refuse a switch that concerns no listed capture or sets a column that there is not."""
        if not any(self.concerns(listed) for listed in files.files):
            raise FieldError("files", f"matches no file of {files.name}")
        for choice, values in self.choices.items():
            for column, value in values.items():
                if column not in files.columns and (column, value) != ("file", ""):
                    known = ", ".join(sorted(files.columns))
                    raise FieldError(f"choices.{choice}.{column}", f"can be set: {known}, and file to ''")

    def concerns(self, listed: Listed) -> bool:
        """Whether it is a question about that capture or the one of which it is a copy."""
        return any(re.search(self.files, name.lower()) for name in (listed.file, listed.copy_of) if name)


@dataclass(frozen=True)
class Task:
    """One classification task over the sessions."""

    label: str = "label"  # label column that names the class, or a text with "{column}" in it; an empty value: none
    where: dict[str, tuple[str, ...]] = field(default_factory=dict)  # label column -> values that are kept
    merge: dict[str, str] = field(default_factory=dict)  # value -> class; an empty class drops it
    minimum_captures: int = 1  # a class needs sessions in this many captures, counted after all the rest
    payload: bool = True  # only sessions with payload
    default: bool = False
    notes: str = ""

    def __post_init__(self) -> None:
        if self.minimum_captures < 1:
            raise FieldError("minimum_captures", "must be at least 1")

    @property
    def columns(self) -> tuple[str, ...]:
        """The label columns of which the class is made."""
        return tuple(re.findall(r"\{([^{}]*)\}", self.label)) or (self.label,)


@dataclass(frozen=True)
class ExpectedTask:
    """What a task of the whole data set has."""

    sessions: int | None = None
    classes: int | None = None


@dataclass(frozen=True)
class Expected:
    """Counts of the whole data set, without an idle timeout; `bench prepare` reports each difference."""

    captures: int | None = None
    sessions: int | None = None
    tasks: dict[str, ExpectedTask] = field(default_factory=dict)


@dataclass(frozen=True)
class Card:
    """One data set."""

    name: str
    title: str
    tasks: dict[str, Task]
    citation: str = ""
    licence: str = ""
    like: str = ""  # the shipped card of the same traffic, of which labels and tasks are taken
    home: str = ""  # page of the data set, where a user asks for the captures
    notes: str = ""  # what a user of its results must know
    generator: str = ""  # "demo": the captures are made, not given
    source: str = ""  # folder of the captures, where the card knows it; absolute once read
    place: str = ""  # the file or the folder that it was read from, absolute; empty: shipped
    download_list: DownloadList | None = None
    downloads: tuple[Download, ...] = ()  # files of the data set, where its licence lets anybody fetch them
    kind: str = "captures"  # or "records": tables of flow records in place of captures
    captures: Captures = Captures()
    records: Layout | None = None  # which column of the tables is what
    labels: PatternLabels | SessionLabels | FileLabels | ColumnLabels = PatternLabels()
    switches: dict[str, Switch] = field(default_factory=dict)  # of a list of captures
    attributes: dict[str, str] = field(default_factory=dict)  # name -> regular expression over a capture's path
    expected: Expected = Expected()

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise FieldError("name", "may have letters, digits, '.', '_' and '-' only, 100 at most")
        if self.generator not in ("", "demo"):
            raise FieldError("generator", "the only generator is 'demo'")
        if not self.tasks:
            raise FieldError("tasks", "at least one task is needed")
        if len(self.tasks) > 1 and sum(task.default for task in self.tasks.values()) != 1:
            raise FieldError("tasks", "exactly one task must have default = true")
        self._check_kind()
        self._check_columns()
        self._check_switches()
        self._check_downloads()
        for name, pattern in self.attributes.items():
            _check_pattern(f"attributes.{name}", pattern)
        for name in self.expected.tasks:
            if name not in self.tasks:
                raise FieldError(f"expected.tasks.{name}", f"no such task; tasks: {', '.join(self.tasks)}")

    def _check_kind(self) -> None:
        """Refuse a card of records without their columns, and whatever only captures or only records have."""
        if self.kind not in ("captures", "records"):
            raise FieldError("kind", "there are: captures, records")
        if (self.kind == "records") != (self.records is not None):
            raise FieldError("kind", 'kind = "records" and the table [records] need each other')
        if self.records is not None:
            self._check_records(self.records)
        elif self.captures.name:
            raise FieldError("captures.name", "is for records only")
        elif isinstance(self.labels, ColumnLabels):
            raise FieldError("labels", 'kind = "columns" is for records only')

    def _check_records(self, records: Layout) -> None:
        """Refuse what takes captures, or what records do not tell."""
        if self.generator or isinstance(self.labels, SessionLabels):
            raise FieldError("kind", "records have neither a generator nor a label file; name their columns in labels")
        if self.observes:
            raise FieldError("tasks", f"column {self.observes[0]!r} is read off payload, which records do not hold")
        payload = [name for name, task in self.tasks.items() if task.payload]
        if payload and "payload_lengths" in records.lacks:
            raise FieldError(f"tasks.{payload[0]}.payload", "must be false: these records do not tell payload")

    def _check_columns(self) -> None:
        """Refuse a task that uses a label column which the labels do not have."""
        known = self.labels.columns
        for name, task in self.tasks.items():
            if not NAME.fullmatch(name):
                raise FieldError(f"tasks.{name}", "a task's name may have letters, digits, '.', '_' and '-' only")
            used = [(f"tasks.{name}.label", column) for column in task.columns]
            used += [(f"tasks.{name}.where.{column}", column) for column in task.where]
            for place, column in used:
                if known is not None and column not in (*known, *OBSERVED):
                    raise FieldError(place, f"no label column {column!r}; there are: {', '.join(sorted(known))}")

    def _check_switches(self) -> None:
        for name, switch in self.switches.items():
            if not isinstance(self.labels, FileLabels):
                raise FieldError("switches", 'are for labels of kind = "files" only')
            try:
                switch.check(self.labels.table)
            except FieldError as error:
                raise FieldError(f"switches.{name}.{error.name}", str(error)) from error

    def _check_downloads(self) -> None:
        """Refuse downloads without a licence, beside captures of another place, or of which one overwrites another."""
        if self.download_list and self.download_list.labels and not isinstance(self.labels, SessionLabels):
            raise FieldError("download_list.labels", 'is for labels of kind = "sessions" only')
        if self.downloads and not self.licence:
            raise FieldError("licence", "is needed where there are downloads: it must allow them")
        if self.downloads and (self.source or self.generator):
            raise FieldError("downloads", "cannot stand beside source or generator")
        paths = sorted(f"{one.path.lower()}/" for one in self.downloads)  # some file systems do not know case
        for path, following in pairwise(paths):
            if following.startswith(path):
                raise FieldError("downloads", f"one lies in the place of another: {path.rstrip('/')}")

    def choose(self, asked: Mapping[str, str]) -> dict[str, str]:
        """The choice of every switch: the default where none is asked for.

        Raises :class:`InputError` for a switch or a choice that there is not.
        """
        for name, choice in asked.items():
            if name not in self.switches:
                raise InputError(
                    "unknown-switch",
                    f"{self.name} has no switch {name!r}; {instead(name, self.switches)}",
                )
            if choice not in (choices := self.switches[name].choices):
                raise InputError(
                    "unknown-switch",
                    f"{self.name}: switch {name} has no choice {choice!r}; {instead(choice, choices)}",
                )
        return {name: asked.get(name, switch.default) for name, switch in self.switches.items()}

    def listed(self, chosen: Mapping[str, str]) -> tuple[list[Listed], list[Listed]]:
        """The captures of the list as the chosen switches have them, and those that are left out."""
        kept, left_out = [], []
        for listed in self.labels.table.files if isinstance(self.labels, FileLabels) else ():
            values: dict[str, str] = {}
            for name, choice in chosen.items():
                if self.switches[name].concerns(listed):
                    values |= self.switches[name].choices[choice]
            if values.pop("file", None) is None:
                kept.append(dataclasses.replace(listed, labels=listed.labels | values))
            else:
                left_out.append(listed)
        return kept, left_out

    @property
    def observes(self) -> list[str]:
        """The label columns of `OBSERVED` that its tasks need and its labels do not have."""
        used = {column for task in self.tasks.values() for column in (*task.columns, *task.where)}
        known = self.labels.columns
        return [] if known is None else [name for name in OBSERVED if name in used and name not in known]

    @property
    def default_task(self) -> str:
        """The task that is meant where none is named."""
        return next((name for name, task in self.tasks.items() if task.default), next(iter(self.tasks)))

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of everything in the card that decides what the store holds."""
        content = {k: v for k, v in dataclasses.asdict(self).items() if k not in PROSE}
        content["labels"]["kind"] = self.labels.kind
        if not self.switches:  # cards without have the digest that they had before there were any
            del content["switches"]
        if self.records is None:  # likewise
            del content["kind"], content["records"], content["captures"]["name"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def card_folder() -> Path:
    """Where the shipped cards lie."""
    return shipped_folder("datasets")


def card_names() -> list[str]:
    """Names of the shipped cards, sorted."""
    return sorted(path.stem for path in card_folder().glob("*.toml"))


def card_file(name_or_path: str | Path) -> Path | None:
    """The file of a card, by a shipped name or the path of a ``.toml`` file; None where there is none."""
    path = typed_path(name_or_path)
    if str(name_or_path) in card_names():
        return card_folder() / f"{name_or_path}.toml"
    return path if path.suffix == ".toml" and path.is_file() else None


def read_card(path: Path) -> Card:
    """Read and check a card.  Raises :class:`InputError` naming the card, the field, the value and the reason."""
    raw = _raw(path)
    card = structured(raw, Card, str(path), code="bad-card")
    if card.name != path.stem:
        raise InputError("bad-card", f"{path}: name = {card.name!r}: must be the file's name, {path.stem!r}")
    listed = card.download_list.read(path.parent) if card.download_list else ()
    try:
        return dataclasses.replace(
            card,
            source=os.path.realpath(path.parent / card.source) if card.source else "",
            place="" if path.resolve().parent == card_folder().resolve() else str(path.resolve()),
            downloads=(*card.downloads, *listed),
        )
    except FieldError as error:
        raise InputError("bad-card", f"{path}: {error.name}: {error}") from error


#: what a card takes over from the one that it is ``like``, where it does not say it itself
TAKEN: Final = ("labels", "switches", "tasks", "attributes")


def _raw(path: Path) -> dict[str, Any]:
    """The content of a card's file, with its list of files, and what it takes over from a shipped card."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError("bad-card", f"{path}: cannot be read as a card: {error}") from error
    if "place" in raw:
        raise InputError("bad-card", f"{path}: place: is no field of a card; take it out")
    labels = raw.get("labels")
    if isinstance(labels, dict) and "table" in labels:  # a file's name stands for what is in it
        if not isinstance(table := labels["table"], str):
            raise InputError(
                "bad-card", f"{path}: labels.table = {table!r:.80}: must be str, the name of a list of files"
            )
        raw["labels"] = labels | {"table": plain(read_file_list(path.parent / table))}
    if (like := raw.get("like")) is not None:
        if like not in card_names() or like == path.stem:
            raise InputError("bad-card", f"{path}: like = {like!r:.80}: must be a shipped card; see `bench datasets`")
        base = _raw(card_folder() / f"{like}.toml")
        raw = {name: base[name] for name in TAKEN if name in base} | raw
    return raw


def shipped_name(name: str) -> str | None:
    """The shipped data set that has a name, in whatever case: some file systems know none.  None: the name is free."""
    return next((own for own in card_names() if own.lower() == name.lower()), None)


def describe_card(card: Card) -> dict[str, Any]:
    """All of a card as plain values, with the kind of its labels and its digest."""
    content = dataclasses.asdict(card)
    content["labels"] = {"kind": card.labels.kind, **content["labels"]}
    if isinstance(card.labels, FileLabels):
        content["labels"]["table"] = [listed.flat() for listed in card.labels.table.files]
    return content | {"digest": card.digest}
