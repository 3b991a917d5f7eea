"""Which stored runs are meant: the one filter of everything that shows, sends or removes them."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.data.names import find_card
from bench.errors import InputError, instead
from bench.files import typed_path
from bench.spec import SplitSpec
from bench.tracking.database import Row
from bench.tracking.record import Record, record_of
from bench.tracking.tracker import Tracker
from bench.tracking.writing import uid_of

NEW_RUN: Final = "`bench run --method forest --dataset demo`"
NO_RUNS: Final = f"there are no runs yet; {NEW_RUN} makes the first"


@dataclass(frozen=True)
class Wanted:
    """What is asked of runs, in the words that a user types; what is empty asks nothing."""

    methods: Sequence[str] = ()
    datasets: Sequence[str] = ()
    task: str | None = None
    split: str | None = None  # a scheme, or a split's whole label
    runs: Sequence[str] = ()  # ids, or what runs are called in every store, or the start of either
    statuses: Sequence[str] = ()

    @property
    def is_everything(self) -> bool:
        """Whether nothing is asked."""
        return not any(vars(self).values())


@dataclass(frozen=True)
class Stored:
    """A run as the store has it, and as it is read."""

    row: Row
    record: Record

    @property
    def uid(self) -> str:
        """What the run is called in every store."""
        return uid_of(self.row)


def stored_runs(tracker: Tracker, tag: tuple[str, str] | None = None) -> list[Stored]:
    """All runs, or those with a tag, oldest first; of the same moment as `Tracker.search` has them.

    Studies and their trials are none.
    """
    return [Stored(row, record_of(row)) for row in sorted(tracker.rows(tag=tag), key=lambda row: row.started)]


def chosen(runs: Sequence[Stored], wanted: Wanted) -> list[Stored]:
    """Those that are wanted, in their order.

    Raises :class:`InputError` as :func:`narrowed` does, and where an id of ``wanted`` is of no run or of several.
    """
    named = {one.row.run_id for start in wanted.runs for one in [_run_of(runs, start)]}
    left = [one for one in runs if not named or one.row.run_id in named]
    records, _ = narrowed([one.record for one in left], wanted)
    there = {record.run_id for record in records}
    return [one for one in left if one.row.run_id in there]


def narrowed(records: Sequence[Record], wanted: Wanted) -> tuple[list[Record], Wanted]:
    """The records that are wanted, in their order, and ``wanted`` in the words that records have.

    Its ids of runs are not looked at.  Raises :class:`InputError` for a word that is of none of the records which the
    words before it leave, with what there is.
    """
    left, meant, before = list(records), wanted, ""
    for field, what, words in _asked(wanted):
        if not records:
            raise InputError("no-runs", NO_RUNS)
        there = list(dict.fromkeys(name for record in left for name in _names(record, field)[:1]))
        known = there + [name for record in left for name in _names(record, field)[1:]]
        names = [_meant(word, what, known, f"no run{before} has {what} {word!r}; {instead(word, there)}")
                 for word in words]  # fmt: skip
        left = [record for record in left if set(names) & set(_names(record, field))]
        found: dict[str, Any] = {field: names if field.endswith("s") else names[0]}
        meant = dataclasses.replace(meant, **found)
        before += f"{' and' if before else ' of'} {what} {', '.join(names)}"
    return left, meant


def _asked(wanted: Wanted) -> Iterator[tuple[str, str, Sequence[str]]]:
    """The fields of a request that ask something, what each is called, and its words."""
    called = {"datasets": "data set", "task": "task", "split": "split", "methods": "method", "statuses": "status"}
    for field, what in called.items():
        if value := getattr(wanted, field):
            yield field, what, [value] if isinstance(value, str) else value


def _names(record: Record, field: str) -> tuple[str, ...]:
    """What a record has for a field of `Wanted`; the first name is the one to tell."""
    spec = record.spec
    split = dict.fromkeys((spec.split.scheme, spec.split.label, split_words(spec.split)))
    kinds = {"datasets": (spec.dataset,), "task": (spec.task,), "split": tuple(split), "methods": (spec.method,)}
    return kinds.get(field) or (record.status,)


def split_words(split: SplitSpec) -> str:
    """All that decides the test samples: the label of tables, most samples a class, the file."""
    limit = [f"max_per_class={split.max_per_class}"] if split.max_per_class and not split.leaky else []
    file = [split.file_digest[:8]] if split.file_digest else []
    return ", ".join([split.label, *limit, *file])


def _meant(word: str, what: str, known: Sequence[str], refusal: str) -> str:
    """The one of the names ``known`` that a word means.  Raises :class:`InputError` with the refusal."""
    names = [word]
    if what == "data set":
        names = _dataset_names(word, known)
    elif what == "method" and word not in known:
        names = _method_names(word, known)
    if len(names) > 1:
        raise InputError("unknown-method", f"several methods are named {word!r}: {', '.join(names)}; give one in full")
    if not names or names[0] not in known:
        raise InputError("no-runs", refusal)
    return names[0]


def _dataset_names(word: str, known: Sequence[str]) -> list[str]:
    """The name of the card or the folder that a word is; the word itself, where runs have it and nothing else does."""
    try:
        return [find_card(word).name]
    except InputError as error:
        if word in known or error.code == "unknown-dataset":
            return [word]
        raise


def _method_names(word: str, known: Sequence[str]) -> list[str]:
    """Methods in files whose path is the word's, or whose file or class the word names."""
    files = [name for name in dict.fromkeys(known) if ".py:" in name]
    if same := [name for name in files if _place(name) == _place(word)]:
        return same[:1]
    return [name for name in files if word in _short(name)]


def _place(name: str) -> tuple[Path, str]:
    """The file and the class of a method."""
    file, _, wanted = name.rpartition(":")
    return typed_path(file).resolve(), wanted


def _short(name: str) -> set[str]:
    """How one may call a method in a file, where no other is called so: ``mine`` for ``lab/mine.py:Mine``."""
    file, _, wanted = name.rpartition(":")
    path = Path(file)
    return set() if ":" in file else {f"{path.name}:{wanted}", path.name, path.stem, wanted}


def _run_of(runs: Sequence[Stored], start: str) -> Stored:
    """The run whose id, or name in every store, starts so."""
    found = [one for one in runs if one.row.run_id.startswith(start) or one.uid.startswith(start)]
    if len(found) != 1:
        what = "no run has" if not found else f"{len(found)} runs have"
        raise InputError("unknown-run", f"{what} an id that starts with {start!r}; `bench results show` lists ids")
    return found[0]
