"""The tables of a card: which files are captures, where labels come from, switches, tasks; each with its rules.

Only the standard library and cattrs are imported here and in `bench.data.cards`: listing commands stay quick.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from bench.data.file_list import FileList, Listed
from bench.errors import InputError
from bench.records.layout import PATH
from bench.structure import FieldError, Ruled, rule

#: what the session columns of a cross-check may be
CHECKED: Final = ("packets", "payload_packets", "payload_bytes")


def bad_pattern(name: str, pattern: str) -> Iterator[FieldError]:
    """What is wrong with a regular expression in a field."""
    try:
        re.compile(pattern)
    except re.error as error:
        yield FieldError(name, f"not a regular expression: {error}")


def _groups(pattern: str) -> frozenset[str]:
    """Named groups of a regular expression; of a wrong one, which is told elsewhere, none."""
    try:
        return frozenset(re.compile(pattern).groupindex)
    except re.error:
        return frozenset()


@dataclass(frozen=True)
class Captures(Ruled):
    """Which files of the source folder are the data set's, and which of them belong together."""

    include: tuple[str, ...] = ("**/*",)  # globs, relative to the source folder
    group: str = ""  # regular expression over the path: its first group names the capture's group; "": each its own
    name: str = ""  # likewise over the path of a table of records: the capture that it is of; "": the path

    @rule("group")
    def _group_is_a_pattern(self) -> Iterator[FieldError]:
        yield from bad_pattern("group", self.group)

    @rule("name")
    def _name_is_a_pattern(self) -> Iterator[FieldError]:
        yield from bad_pattern("name", self.name)


@dataclass(frozen=True)
class PatternLabels(Ruled):
    """Label columns from a capture's path: the named groups of a regular expression (searched, '/' separates)."""

    kind: ClassVar[str] = "pattern"
    pattern: str = "^(?P<label>[^/]+)/"  # the first folder

    @rule("pattern")
    def _pattern_names_columns(self) -> Iterator[FieldError]:
        bad = list(bad_pattern("pattern", self.pattern))
        yield from bad
        if not bad and not self.columns:
            yield FieldError("pattern", "has no named group such as (?P<label>...)")

    @property
    def columns(self) -> frozenset[str]:
        """Names that a task can use."""
        return _groups(self.pattern)


@dataclass(frozen=True)
class SessionLabels(Ruled):
    """Label columns from a CSV file with one row a session; the fields name its columns."""

    kind: ClassVar[str] = "sessions"
    columns: ClassVar[None] = None  # known when the file is read
    file: str  # relative to the source folder
    capture: str = "capture"  # path of the capture, relative to the source folder
    protocol: str = "protocol"  # TCP or UDP (any case), or 6 or 17
    endpoints: tuple[str, ...] = ("client_ip", "client_port", "server_ip", "server_port")  # in either order
    start: str = ""  # first packet, seconds since the epoch: tells apart sessions of equal end points
    check: dict[str, str] = field(default_factory=dict)  # session column -> column that must agree with it

    @rule("endpoints")
    def _endpoints_are_four(self) -> Iterator[FieldError]:
        if len(self.endpoints) != 4:
            yield FieldError("endpoints", "four columns are needed: address, port, address, port")

    @rule(each="check")
    def _column_can_be_checked(self, column: str, _: str) -> Iterator[FieldError]:
        if column not in CHECKED:
            yield FieldError(f"check.{column}", f"can be checked: {', '.join(CHECKED)}")


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
class ColumnLabels(Ruled):
    """Label columns from the columns of records themselves, and from the names of their captures."""

    kind: ClassVar[str] = "columns"
    paths: dict[str, str] = field(default_factory=dict)  # label column -> column of the table (`bench.records.layout`)
    pattern: str = ""  # regular expression over a capture's name; its named groups are label columns, too

    @rule("pattern")
    def _pattern_is_one(self) -> Iterator[FieldError]:
        yield from bad_pattern("pattern", self.pattern)

    @rule(each="paths")
    def _path_is_one(self, name: str, path: str) -> Iterator[FieldError]:
        if not PATH.fullmatch(path):
            yield FieldError(f"paths.{name}", f"column {path!r}: write NAME, NAME.KEY or NAME[N]")

    @rule("paths", "pattern")
    def _names_columns_once(self) -> Iterator[FieldError]:
        if not self.columns and not self.pattern:
            yield FieldError("paths", 'names no column; write paths = { label = "COLUMN" }')
        if double := set(self.paths) & _groups(self.pattern):
            yield FieldError("pattern", f"names {sorted(double)[0]!r}, which paths names, too")

    @property
    def columns(self) -> frozenset[str]:
        """Names that a task can use."""
        return frozenset(self.paths) | _groups(self.pattern)


@dataclass(frozen=True)
class Switch(Ruled):
    """A question that the data set's users answer differently: what some of the listed captures are."""

    files: str  # regular expression, searched in the listed file, in lower case
    default: str
    choices: dict[str, dict[str, str]]  # choice -> label column -> value; "file" -> "": the capture is left out
    notes: str = ""

    @rule("files")
    def _files_is_a_pattern(self) -> Iterator[FieldError]:
        yield from bad_pattern("files", self.files)

    @rule("default", "choices")
    def _default_is_a_choice(self) -> Iterator[FieldError]:
        if self.default not in self.choices:
            yield FieldError("default", f"no such choice; there are: {', '.join(self.choices)}")

    def faults(self, files: FileList) -> Iterator[FieldError]:
        """Where it concerns no listed capture, or sets a column that there is not."""
        if not any(self.concerns(listed) for listed in files.files):
            yield FieldError("files", f"matches no file of {files.name}")
        for choice, values in self.choices.items():
            for column, value in values.items():
                if column not in files.columns and (column, value) != ("file", ""):
                    known = ", ".join(sorted(files.columns))
                    yield FieldError(f"choices.{choice}.{column}", f"can be set: {known}, and file to ''")

    def concerns(self, listed: Listed) -> bool:
        """Whether it is a question about that capture or the one of which it is a copy."""
        return any(re.search(self.files, name.lower()) for name in (listed.file, listed.copy_of) if name)


@dataclass(frozen=True)
class Task(Ruled):
    """One classification task over the sessions."""

    label: str = "label"  # label column that names the class, or a text with "{column}" in it; an empty value: none
    where: dict[str, tuple[str, ...]] = field(default_factory=dict)  # label column -> values that are kept
    merge: dict[str, str] = field(default_factory=dict)  # value -> class; an empty class drops it
    minimum_captures: int = 1  # a class needs sessions in this many captures, counted after all the rest
    payload: bool = True  # only sessions with payload
    default: bool = False
    notes: str = ""

    @rule("minimum_captures")
    def _minimum_is_positive(self) -> Iterator[FieldError]:
        if self.minimum_captures < 1:
            yield FieldError("minimum_captures", "must be at least 1")

    @property
    def columns(self) -> tuple[str, ...]:
        """The label columns of which the class is made."""
        return tuple(re.findall(r"\{([^{}]*)\}", self.label)) or (self.label,)


def check_classes(code: str, where: str, names: Sequence[str], remedy: str) -> None:
    """Refuse a class that no result could tell, and two that nobody could tell apart: Unicode writes é in two ways.

    Raises :class:`InputError` of this ``code``; ``remedy`` says what is to be done about two of them.
    """
    alike: dict[str, str] = {}
    for name in sorted(names):
        if any("\ud800" <= sign <= "\udfff" for sign in name):  # as Python reads bytes that are no UTF-8
            raise InputError(code, f"{where}: the name of class {name!r} is not UTF-8; rename it")
        read = " ".join(unicodedata.normalize("NFC", name).split())
        if (other := alike.setdefault(read, name)) != name:
            what = f"classes {other!a} and {name!a} are one name in two forms of Unicode or spaces"
            raise InputError(code, f"{where}: {what}; {remedy}")


def filled(task: Task, row: Sequence[str]) -> str:
    """The task's label for one row's values of ``task.columns``."""
    if task.columns == (task.label,):
        return row[0]
    known = {f"{{{column}}}": value for column, value in zip(task.columns, row, strict=True)}
    return re.sub("|".join(map(re.escape, known)), lambda match: known[match[0]], task.label)


def check_apart(task: Task, filled_rows: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Raises :class:`InputError` where rows of other values make one text: ``{a}-{b}`` of x-y, z and of x, y-z."""
    known: dict[str, Sequence[str]] = {}
    for text, row in filled_rows:
        if known.setdefault(text, row) != row:
            what = f"its label {task.label!r} makes {text!r} of {' and '.join(known[text])}, and of {' and '.join(row)}"
            raise InputError("bad-card", f"a task: {what}; put another sign between its columns")
