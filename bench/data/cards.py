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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from bench.data.card_tables import (
    Captures,
    ColumnLabels,
    FileLabels,
    PatternLabels,
    SessionLabels,
    Switch,
    Task,
    bad_pattern,
)
from bench.data.file_list import Download, DownloadList, Listed, read_file_list
from bench.errors import InputError, instead
from bench.files import plain, read_toml, shipped_folder, typed_path
from bench.records.layout import Layout
from bench.structure import FieldError, FieldErrors, Ruled, Wrong, rule, structured

#: label columns that the harness reads off the sessions themselves, where a card's labels have none of that name
OBSERVED: Final = ("tls",)
#: fields that describe a data set to people and do not change its store
PROSE: Final = (
    *("title", "citation", "licence", "home", "notes", "source", "downloads", "download_list", "like"),
    "place",
)
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # it names folders, and files with a little more


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
class Card(Ruled):
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
    captures: Captures = field(default_factory=Captures)
    records: Layout | None = None  # which column of the tables is what
    labels: PatternLabels | SessionLabels | FileLabels | ColumnLabels = field(default_factory=PatternLabels)
    switches: dict[str, Switch] = field(default_factory=dict)  # of a list of captures
    attributes: dict[str, str] = field(default_factory=dict)  # name -> regular expression over a capture's path
    expected: Expected = Expected()

    @rule("name")
    def _name_names_files(self) -> Iterator[FieldError]:
        if not NAME.fullmatch(self.name):
            yield FieldError("name", "may have letters, digits, '.', '_' and '-' only, 100 at most")

    @rule("generator")
    def _generator_is_known(self) -> Iterator[FieldError]:
        if self.generator not in ("", "demo"):
            yield FieldError("generator", "the only generator is 'demo'")

    @rule("tasks")
    def _one_task_is_the_default(self) -> Iterator[FieldError]:
        if not self.tasks:
            yield FieldError("tasks", "at least one task is needed")
        if len(self.tasks) > 1 and sum(task.default for task in self.tasks.values()) != 1:
            yield FieldError("tasks", "exactly one task must have default = true")

    @rule(each="tasks")
    def _task_has_a_name(self, name: str, _: Task) -> Iterator[FieldError]:
        if not NAME.fullmatch(name):
            yield FieldError(f"tasks.{name}", "a task's name may have letters, digits, '.', '_' and '-' only")

    @rule("labels", each="tasks")
    def _task_uses_known_columns(self, name: str, task: Task) -> Iterator[FieldError]:
        known = self.labels.columns
        used = [(f"tasks.{name}.label", column) for column in task.columns]
        used += [(f"tasks.{name}.where.{column}", column) for column in task.where]
        for place, column in used:
            if known is not None and column not in (*known, *OBSERVED):
                yield FieldError(place, f"no label column {column!r}; there are: {', '.join(sorted(known))}")

    @rule("kind", "records")
    def _kind_and_records_agree(self) -> Iterator[FieldError]:
        if self.kind not in ("captures", "records"):
            yield FieldError("kind", "there are: captures, records")
        elif (self.kind == "records") != (self.records is not None):
            yield FieldError("kind", 'kind = "records" and the table [records] need each other')

    @rule("records", "captures", "labels")
    def _captures_have_no_words_of_records(self) -> Iterator[FieldError]:
        if self.records is None and self.captures.name:
            yield FieldError("captures.name", "is for records only")
        if self.records is None and isinstance(self.labels, ColumnLabels):
            yield FieldError("labels", 'kind = "columns" is for records only')

    @rule("records", "generator", "labels")
    def _records_have_no_words_of_captures(self) -> Iterator[FieldError]:
        if self.records is not None and (self.generator or isinstance(self.labels, SessionLabels)):
            yield FieldError("kind", "records have neither a generator nor a label file; name their columns in labels")

    @rule("records", "labels", "tasks")
    def _records_observe_nothing(self) -> Iterator[FieldError]:
        if self.records is not None and self.observes:
            yield FieldError("tasks", f"column {self.observes[0]!r} is read off payload, which records do not hold")

    @rule("records", each="tasks")
    def _records_tell_payload(self, name: str, task: Task) -> Iterator[FieldError]:
        if self.records is not None and task.payload and "payload_lengths" in self.records.lacks:
            yield FieldError(f"tasks.{name}.payload", "must be false: these records do not show payload")

    @rule("labels", each="switches")
    def _switch_is_about_listed_files(self, name: str, switch: Switch) -> Iterator[FieldError]:
        if not isinstance(self.labels, FileLabels):
            yield FieldError("switches", 'are for labels of kind = "files" only')
            return
        for error in switch.faults(self.labels.table):
            yield FieldError(f"switches.{name}.{error.name}", str(error))

    @rule("download_list", "labels")
    def _made_labels_are_of_sessions(self) -> Iterator[FieldError]:
        if self.download_list and self.download_list.labels and not isinstance(self.labels, SessionLabels):
            yield FieldError("download_list.labels", 'is for labels of kind = "sessions" only')

    @rule("downloads", "licence")
    def _downloads_need_a_licence(self) -> Iterator[FieldError]:
        if self.downloads and not self.licence:
            yield FieldError("licence", "is needed where there are downloads: it must allow them")

    @rule("downloads", "source", "generator")
    def _captures_have_one_place(self) -> Iterator[FieldError]:
        if self.downloads and (self.source or self.generator):
            yield FieldError("downloads", "cannot be used with source or generator")

    @rule("downloads")
    def _downloads_overwrite_none(self) -> Iterator[FieldError]:
        paths = sorted(f"{one.path.lower()}/" for one in self.downloads)  # some file systems do not know case
        for path, following in pairwise(paths):
            if following.startswith(path):
                yield FieldError("downloads", f"one is inside the place of another: {path.rstrip('/')}")

    @rule(each="attributes")
    def _attribute_is_a_pattern(self, name: str, pattern: str) -> Iterator[FieldError]:
        yield from bad_pattern(f"attributes.{name}", pattern)

    @rule("expected", "tasks")
    def _expected_tasks_are_there(self) -> Iterator[FieldError]:
        for name in self.expected.tasks:
            if name not in self.tasks:
                yield FieldError(f"expected.tasks.{name}", f"no such task; tasks: {', '.join(self.tasks)}")

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


def cards_here() -> list[Path]:
    """Cards in the working folder, sorted: files with tasks of their own or like another card's, and broken ones."""
    return [path for path in sorted(Path().glob("*.toml")) if _is_card(path)]


def _is_card(path: Path) -> bool:
    try:
        raw = _parsed(path)
    except InputError:
        return path.is_file()
    return "tasks" in raw or "like" in raw


def summary(name: str) -> dict[str, Any]:
    """A shipped card's name, title, names of tasks and licence, for listings: of the card no more is looked at."""
    raw = _parsed(card_folder() / f"{name}.toml")
    tasks = raw["tasks"] if "tasks" in raw else summary(raw["like"])["tasks"]
    return {"name": name, "title": raw["title"], "tasks": list(tasks), "licence": raw.get("licence", "")}


def card_file(name_or_path: str | Path) -> Path | None:
    """The file of a card, by a shipped name or the path of a ``.toml`` file; None where there is none."""
    path = typed_path(name_or_path)
    if str(name_or_path) in card_names():
        return card_folder() / f"{name_or_path}.toml"
    return path if path.suffix == ".toml" and path.is_file() else None


def read_card(path: Path) -> Card:
    """Read and check a card.

    Raises :class:`InputError` naming the card and all that is wrong: field, value and reason; of a list of files beside
    the card, alone, as the list itself is refused.
    """
    raw, refused = _raw(path)
    card = _structured(raw, path, refused)
    if card.download_list is None:
        return card
    try:
        listed = card.download_list.read(path.parent)
        return dataclasses.replace(card, downloads=(*card.downloads, *listed))
    except FieldErrors as errors:
        problems = [f"{error.name}: {error}" for error in errors.errors]
        raise InputError("bad-card", f"{path}: {'; '.join(problems)}", problems) from errors


def _structured(raw: dict[str, Any], path: Path, refused: InputError | None) -> Card:
    try:
        return structured(raw, Card, str(path), code="bad-card")
    except InputError as error:
        if refused is not None and len(error.problems) == 1:
            raise refused from None
        raise


#: what a card takes over from the one that it is ``like``, where it does not say it itself
TAKEN: Final = ("labels", "switches", "tasks", "attributes")


def _raw(path: Path) -> tuple[dict[str, Any], InputError | None]:
    """The content of a card's file, with its list of files, and what it takes over from a shipped card.

    What cannot be had is in its place as `Wrong`; of a list also the error.
    """
    raw = _parsed(path)
    if "place" in raw:
        raw["place"] = Wrong(raw["place"], "is not a field of a card; remove it")
    elif path.resolve().parent != card_folder().resolve():
        raw["place"] = str(path.resolve())
    refused = _read_list(raw, path)
    if (like := raw.get("like")) is not None:
        if like not in card_names() or like == path.stem:
            raw = (
                dict.fromkeys(TAKEN, Wrong())
                | raw
                | {"like": Wrong(like, "must be a shipped card; see `bench datasets`")}
            )
        else:
            base, _ = _raw(card_folder() / f"{like}.toml")
            raw = {name: base[name] for name in TAKEN if name in base} | raw
    if isinstance(name := raw.get("name"), str) and name != path.stem:
        raw["name"] = Wrong(name, f"must be the file's name, {path.stem!r}")
    if isinstance(source := raw.get("source"), str) and source:
        is_path = "\0" not in source
        raw["source"] = os.path.realpath(path.parent / source) if is_path else Wrong(source, "is no path")
    return raw, refused


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except (OSError, ValueError) as error:
        raise InputError("bad-card", f"{path}: cannot be read as a card: {error}") from error


def _read_list(raw: dict[str, Any], path: Path) -> InputError | None:
    """Put the content of a list of files in the place of its name; gives the error where it cannot be read."""
    labels = raw.get("labels")
    if not isinstance(labels, dict) or "table" not in labels:
        return None
    table, error = labels["table"], None
    content: Any = Wrong(table, "must be str, the name of a list of files")
    if isinstance(table, str):
        try:
            content = plain(read_file_list(path.parent / table))
        except InputError as refused:
            content, error = Wrong(table, str(refused)), refused
    raw["labels"] = labels | {"table": content}
    return error


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
