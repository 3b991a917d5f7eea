"""Which session is in which part.

A split is made from the store, task, scheme, seed, fold and the options below alone, never from the method, and proves
itself when it is made or loaded: :func:`prove`.  Schemes and what they promise:

``session``
    No conversation (unordered 5-tuple, over all captures) in two parts.
``capture``
    No capture group in two parts.  Equal conversations do not join captures: one DHCP conversation
    (0.0.0.0:68 to 255.255.255.255:67) would join them all.  What captures share is in the summary.
``time``
    Every validation session starts after all training sessions, every test session after all validation
    sessions.  A session whose conversation stands in an earlier part is dropped and counted.
``attribute:NAME``
    Test on captures of other values of an attribute (device, version, person, day) than learned on.  Validation is
    of the learned values, no conversation of it in training.  Captures without a value are dropped and counted.
``paper``
    Promises nothing: the paper's order of operations, leaky on purpose.  Windows of all sessions are balanced to so
    many a class and then dealt at random, 70/10/20 within each class; what this leaks is counted in the summary.
``file``
    Given by a file.  A file that :meth:`Split.save` wrote keeps its scheme and its promise; one made by
    hand says ``"scheme": "file"`` and promises only that no session is in two parts.

Before that a filter (`bench.splits.filters`) drops sessions, the others become samples, whole or as windows
(`bench.splits.sampling`), and classes are kept to a least and a most number of samples.  After it the training part alone is
balanced (only ``paper`` balances before).  A part is sorted by session and window.  A file addresses sessions by row,
together with the digest of the store: the same digest means the same rows.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.errors import InputError
from bench.schema import NO_CLASS, Samples
from bench.splits.assignment import (
    BALANCES,
    DROPPED,
    PARTS,
    Rows,
    balanced,
    by_chance,
    by_groups,
    by_time,
    by_value,
    cap,
    named_seed,
)
from bench.splits.checks import LEAKY, BrokenSplit, attribute_of, check_windows, prove
from bench.splits.filters import COLUMNS, apply_filter, parse_filter
from bench.splits.sampling import leaks, parse_sampling, window_keys, windows
from bench.splits.split_file import OPTIONS, naming, read_samples, read_split_file, write_split_file

__all__ = [
    "LEAKY",
    "BrokenSplit",
    "LabelledStore",
    "Split",
    "check_request",
    "check_scheme",
    "emptied",
    "make_split",
    "prove",
]
SCHEMES: Final = ("session", "capture", "time", "attribute", "paper", "file")  # "attribute" is followed by ":", a name
MOST: Final = 10_000_000  # samples that are made by re-sampling to a given number (our choice: they fit in memory)
PAPER_PER_CLASS: Final = 10_000  # samples of a class that the paper's numbers imply: fewer are a reduced scale


class LabelledStore(Protocol):
    """What a split needs of a store (see ``bench.data.store``)."""

    @property
    def name(self) -> str:
        """The data set's name."""

    @property
    def digest(self) -> str:
        """SHA-256, hex, of all that decides the store's content."""

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks."""

    def session(self, column: str) -> NDArray[Any]:
        """A column of ``schema.SESSION_COLUMNS``, ``[sessions]``."""

    def packet(self, column: str) -> NDArray[Any]:
        """A column of ``schema.PACKET_COLUMNS``, ``[packets]``."""

    def classes(self, task: str) -> list[str]:
        """The names of a task's classes."""

    def labels(self, task: str) -> NDArray[np.int16]:
        """Class of each session, ``NO_CLASS`` where the task does not use it, ``[sessions]``."""

    def capture_group(self) -> NDArray[np.int32]:
        """The group of each session's capture, ``[sessions]``."""

    def capture_attribute(self, name: str) -> NDArray[np.int32]:
        """Number of the attribute's value of each session's capture, -1 where it has none, ``[sessions]``."""


@dataclass(frozen=True)
class Split:
    """Three parts of a task's samples, and int64 ``[samples]`` groups for each part.

    ``fold`` and ``folds`` are None for a single division.  ``dropped`` counts by reason what is in no part: sessions
    for a filter or without a window, samples for the rest.  ``scored`` are the numbers of the classes that the parts
    can hold at all: one that filter or ``min_per_class`` emptied leaves the task, where it could only score 0.
    """

    dataset: str
    store: str  # the store's digest
    task: str
    scheme: str
    seed: int
    fold: int | None
    folds: int | None
    shares: tuple[float, ...]  # wanted; none where a file was made by hand
    max_per_class: int | None
    train: Samples
    validation: Samples
    test: Samples
    groups: dict[str, Rows]
    dropped: dict[str, int]
    counts: dict[str, dict[str, int]]  # class -> part -> samples
    proof: tuple[str, ...]
    shared: dict[str, int]
    scored: tuple[int, ...]
    filter: str = "none"
    sampling: str = "session"
    balance: str = "keep"
    min_per_class: int | None = None

    @property
    def parts(self) -> dict[str, Samples]:
        """The parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def head(self) -> dict[str, Any]:
        """What the split was made from, of `OPTIONS` those that were asked for; JSON types."""
        names = ("dataset", "store", "task", "scheme", "seed", "fold", "folds", "max_per_class")
        head = {name: getattr(self, name) for name in names} | {"shares": list(self.shares)}
        return head | {name: value for name, usual in OPTIONS.items() if (value := getattr(self, name)) != usual}

    def answers(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        """Store's class numbers as positions among the scored classes: int64, of the same shape."""
        return np.searchsorted(self.scored, labels)

    @property
    def digest(self) -> str:
        """SHA-256, hex, of the head and all windows."""
        state = hashlib.sha256(json.dumps(self.head, sort_keys=True).encode())
        for name, part in self.parts.items():
            for array in (part.session, part.first, part.count):
                state.update(f"{name} {len(array)} ".encode() + np.ascontiguousarray(array, "<i8").tobytes())
        return state.hexdigest()

    def summary(self) -> dict[str, Any]:
        """What is in each part and what is missing; JSON types."""
        return self.head | {
            "digest": self.digest,
            "samples": {name: len(part) for name, part in self.parts.items()},
            "sessions": {name: len(np.unique(part.session)) for name, part in self.parts.items()},
            "groups": {name: len(np.unique(groups)) for name, groups in self.groups.items()},
            "classes": self.counts,
            "shortfalls": [
                {"class": name, "part": part} for name, n in self.counts.items() for part in PARTS if not n[part]
            ],
            "emptied": [name for number, name in enumerate(self.counts) if number not in self.scored],
            "dropped": self.dropped,
            "reduced_scale": is_reduced(self.scheme, self.max_per_class),
            "proof": list(self.proof),
            **self.shared,
        }

    def save(self, path: Path) -> None:
        """Write the split as JSON, aside and renamed.  Raises :class:`InputError` where that cannot be."""
        head = {"digest": self.digest, **self.head, "dropped": self.dropped}
        write_split_file(path, head, self.parts)

    @classmethod
    def load(cls, path: Path, store: LabelledStore) -> "Split":
        """Read a saved split and prove it again.  Raises :class:`InputError` for one of another store."""
        with naming(path):
            return cls._load(path, store)

    @classmethod
    def _load(cls, path: Path, store: LabelledStore) -> "Split":
        content = read_split_file(path)
        check_scheme(content["scheme"])
        if content["store"] != store.digest:
            here = f"store {store.name} has digest {store.digest[:12]}"
            raise InputError(f"made for another store of {content['dataset']}, {here}; make the split again")
        _check_task(store, content["task"])
        content["filter"] = parse_filter(content["filter"])
        sampling = parse_sampling(content["sampling"])
        content["sampling"], content["balance"] = str(sampling), balance_of(content["scheme"], content["balance"])
        parts = {name: read_samples(name, content[name], sampling.stride) for name in PARTS}
        request = {name: content[name] for name in ("seed", "fold", "folds", "max_per_class", *OPTIONS)}
        dropped, shares = content["dropped"], tuple(content["shares"])
        split = _finish(store, content["task"], content["scheme"], parts, dropped, shares, request)
        if content.get("digest", split.digest) != split.digest:
            raise InputError("changed after it was saved; set its scheme to file and drop digest")
        return split


def make_split(
    store: LabelledStore,
    task: str,
    scheme: str,
    *,
    seed: int = 0,
    fold: int | None = None,
    folds: int | None = None,
    parts: tuple[float, float, float] = (0.7, 0.1, 0.2),
    max_per_class: int | None = None,
    file: Path | None = None,
    filter: str = "none",
    sampling: str = "session",
    balance: str | None = None,
    min_per_class: int | None = None,
) -> Split:
    """Divide a task's sessions into training, validation and test part, whose shares are ``parts``.

    With ``folds``, fold ``fold`` of that many is the test part, and validation takes its share of the rest.
    ``max_per_class`` first reduces every class to that many samples drawn at random, in all parts alike (single
    ones, not groups: of a class with one huge group nothing else would be left); classes of fewer than
    ``min_per_class`` samples are dropped before.  ``filter`` and ``sampling`` are texts (see there), ``balance`` one of
    `BALANCES`, by default that of the scheme; re-sampling under ``paper`` goes to ``max_per_class``.  Raises
    :class:`InputError` for what cannot be divided so; a class that a part lacks is only in the summary.
    """
    check_scheme(scheme)
    _check_task(store, task)
    options: dict[str, Any] = {"filter": parse_filter(filter), "sampling": str(parse_sampling(sampling))}
    options |= {"balance": balance_of(scheme, balance), "min_per_class": min_per_class}
    request = {"seed": seed, "fold": fold, "folds": folds, "max_per_class": max_per_class, **options}
    check_request(store, task, scheme, request, file)
    if file is not None:
        split = Split.load(file, store)
        if split.task != task:
            raise InputError(f"{file}: a split of task {split.task}, not of {task}; take that task or another file")
        return split
    samples, dropped = _samples(store, task, options)
    dealt = _dealt(store, task, scheme, samples, dropped, parts, request)
    return _finish(
        store, task, scheme, {name: samples.take(kept) for name, kept in dealt.items()}, dropped, parts, request
    )


def balance_of(scheme: str, asked: str | None) -> str:
    """How to balance: as asked, else as the scheme does.  Raises :class:`InputError` for a way that there is not."""
    if asked is not None and asked not in BALANCES:
        raise InputError(f"unknown balance {asked!r}; there are: {', '.join(BALANCES)}")
    return asked or ("resample" if scheme in LEAKY else "keep")


def is_reduced(scheme: str, max_per_class: int | None) -> bool:
    """Whether so many samples a class are fewer than should be; under ``paper`` that number is the paper's own."""
    return max_per_class is not None and not (scheme in LEAKY and max_per_class >= PAPER_PER_CLASS)


def emptied(store: LabelledStore, task: str, filter: str, sampling: str = "session") -> list[str]:
    """The names of the task's classes that have sessions, but none that filter and sampling leave."""
    _check_task(store, task)
    labels = np.asarray(store.labels(task))
    left = _samples(store, task, {"filter": parse_filter(filter), "sampling": sampling, "min_per_class": None})[0]
    lost = np.setdiff1d(labels[labels != NO_CLASS], labels[left.session])
    return [store.classes(task)[number] for number in lost]


def _samples(store: LabelledStore, task: str, options: dict[str, Any]) -> tuple[Samples, dict[str, int]]:
    """All samples of a task by session and window, and what was dropped to get there, counted by reason."""
    labels = np.asarray(store.labels(task))
    rows = np.flatnonzero(labels != NO_CLASS)
    if not len(rows):
        raise InputError(f"{store.name}: task {task} has no session; look at what `bench prepare` says of its labels")
    dropped: dict[str, int] = {}
    if options["filter"] != "none":
        stay, dropped = apply_filter(
            options["filter"], {name: np.asarray(store.session(name))[rows] for name in COLUMNS}
        )
        rows = rows[stay]
    sampling = parse_sampling(options["sampling"])
    samples = windows(sampling, rows, store)
    if sampling.window is not None:
        dropped["no window"] = len(rows) - len(np.unique(samples.session))
    if (least := options["min_per_class"]) is not None:
        sizes = np.bincount(labels[samples.session], minlength=1)
        kept = np.flatnonzero(sizes[labels[samples.session]] >= least)
        dropped["min_per_class"], samples = len(samples) - len(kept), samples.take(kept)
    if not len(samples):
        raise InputError(f"{store.name}: nothing of task {task} is left ({dropped}); ask for less")
    return samples, dropped


def _dealt(
    store: LabelledStore,
    task: str,
    scheme: str,
    samples: Samples,
    dropped: dict[str, int],
    shares: tuple[float, ...],
    request: dict[str, Any],
) -> dict[str, Rows]:
    """Positions of each part's samples; adds to ``dropped``."""
    seed, fold, folds, most = (request[name] for name in ("seed", "fold", "folds", "max_per_class"))
    labels = np.asarray(store.labels(task))[samples.session]
    draw = partial(named_seed, seed, store.name, task)
    even = partial(balanced, mode=request["balance"])
    kept = np.arange(len(samples))
    if scheme in LEAKY and request["balance"] == "resample":
        kept = even(labels, most=most, seed=draw("balance"))
        dropped["balance"] = len(samples) - len(np.unique(kept))
    elif most is not None:
        kept = cap(kept, labels, most, draw("max_per_class"))
        dropped["max_per_class"] = len(samples) - len(kept)
    if scheme in LEAKY and request["balance"] == "undersample":
        kept = kept[even(labels[kept], most=None, seed=draw("balance"))]
        dropped["balance"] = len(samples) - len(kept)
    names = (seed, store.name, task, scheme)
    part, reason = _deal(store, scheme, samples.session[kept], labels[kept], shares, fold, folds, names)
    if reason:
        dropped[reason] = int((part == DROPPED).sum())
    dealt = {name: kept[part == p] for p, name in enumerate(PARTS)}
    if scheme not in LEAKY and request["balance"] != "keep":
        train = dealt["train"]
        dealt["train"] = train[even(labels[train], most=None, seed=draw(scheme, fold, "balance"))]
        dropped["balance"] = len(train) - len(np.unique(dealt["train"]))
    return dealt


def check_scheme(scheme: str) -> None:
    """Raises :class:`InputError` for a split that there is not."""
    kind, colon, name = scheme.partition(":")
    if kind not in SCHEMES or (kind == "attribute") != bool(colon and name):
        known = ", ".join("attribute:NAME" if one == "attribute" else one for one in SCHEMES)
        raise InputError(f"unknown split {scheme!r}; there are: {known}")


def _check_task(store: LabelledStore, task: str) -> None:
    if task not in store.tasks:
        raise InputError(f"{store.name} has no task {task!r}; it has: {', '.join(store.tasks)}")


def _check_folds(store: LabelledStore, task: str, scheme: str, fold: int | None, folds: int | None) -> None:
    if (fold is None) != (folds is None):
        raise InputError("a fold needs the number of folds and the other way round; give both or neither")
    if fold is not None and folds is not None:
        if scheme in ("time", "file"):
            raise InputError(f"split {scheme} has no folds; leave --folds out or take session or capture")
        if folds < 2 or not 0 <= fold < folds:
            raise InputError(f"fold {fold} of {folds} does not exist; folds are 2 or more, counted from 0")
        if folds > (number := int((np.asarray(store.labels(task)) != NO_CLASS).sum())):
            raise InputError(f"{store.name}: {number} sessions of task {task} are too few for {folds} folds; use fewer")


def check_request(store: LabelledStore, task: str, scheme: str, request: Mapping[str, Any], file: Path | None) -> None:
    """Raises :class:`InputError` for what no split of that scheme can be, as far as that is told without making one.

    ``request`` has the fold, its number, the least and the most samples of a class and all of `OPTIONS`.
    """
    if (scheme == "file") != (file is not None):
        raise InputError("split file and a split's file belong together; give both or neither")
    _check_folds(store, task, scheme, request["fold"], request["folds"])
    for name in ("max_per_class", "min_per_class"):
        if request[name] is not None and (request[name] < 1 or file is not None):
            raise InputError(f"{name.replace('_', '-')} is 1 or more, and does not go with a split from a file")
    if file is not None and any(request[name] != usual for name, usual in OPTIONS.items()):
        raise InputError(f"a split from a file has its own {', '.join(OPTIONS)}; leave these options out")
    most, number = request["max_per_class"] or 0, len(store.classes(task))
    if scheme in LEAKY and request["balance"] == "resample" and most * number > MOST:
        raise InputError(
            f"max-per-class {most}: split {scheme} makes so many samples of each of {number} classes, more than {MOST} "
            f"in all; give {MOST // number} or less"
        )


def _check_groups(name: str, scheme: str, groups: NDArray[Any], labels: NDArray[Any], folds: int | None) -> None:
    pairs = np.unique(np.stack([labels, groups]), axis=1)
    if scheme == "capture" and np.unique(pairs[0], return_counts=True)[1].max(initial=0) < 2:
        raise InputError(f"{name}: every class has one capture group, so no split by capture is possible; use session")
    number, needed = len(np.unique(groups)), folds or len(PARTS)
    if number < needed:
        what = f"{folds} folds" if folds else "three parts"
        raise InputError(f"{name}: {number} groups are too few for {what} of split {scheme}; use fewer, or session")


def _groups(store: LabelledStore, scheme: str) -> NDArray[Any]:
    """The group of each session of the store."""
    if name := attribute_of(scheme):
        return store.capture_attribute(name)
    return np.asarray(store.capture_group() if scheme == "capture" else store.session("conversation"))


def _deal(
    store: LabelledStore,
    scheme: str,
    rows: Rows,
    labels: NDArray[Any],
    shares: tuple[float, ...],
    fold: int | None,
    folds: int | None,
    names: tuple[object, ...],
) -> tuple[Rows, str]:
    """Part of each row, and why a row may be dropped; empty where the scheme drops none."""
    conversation = np.asarray(store.session("conversation"))[rows]
    if scheme == "time":
        return by_time(
            np.asarray(store.session("start"))[rows], conversation, shares
        ), "conversation in an earlier part"
    if scheme in LEAKY:
        return by_chance(labels, shares, fold, folds, names), ""
    groups = _groups(store, scheme)[rows]
    if not (name := attribute_of(scheme)):
        _check_groups(store.name, scheme, groups, labels, folds)
        return by_groups(groups, labels, shares, fold, folds, names), ""
    kept = np.flatnonzero(groups >= 0)
    number, needed = len(np.unique(groups[kept])), folds or 2
    if number < needed:
        what = f"{name} has {number} values in this task, split {scheme} needs {needed}"
        raise InputError(f"{store.name}: {what}; use another attribute" + (" or fewer folds" if folds else ""))
    part = np.full(len(rows), DROPPED)
    part[kept] = by_value(groups[kept], conversation[kept], labels[kept], shares, fold, folds, names)
    return part, f"no {name}"


def _finish(
    store: LabelledStore,
    task: str,
    scheme: str,
    parts: dict[str, Samples],
    dropped: dict[str, int],
    shares: tuple[float, ...],
    request: dict[str, Any],
) -> Split:
    """Prove the parts, count what is in them, and make the split."""
    labels, start = np.asarray(store.labels(task)), np.asarray(store.session("start"))
    of_session = _groups(store, scheme)
    packets = np.asarray(store.session("packets"))
    for name, part in parts.items():
        check_windows(name, part, packets)
    groups = {name: of_session[part.session].astype(np.int64) for name, part in parts.items()}
    conversation = np.asarray(store.session("conversation"))
    proof = prove(scheme, parts, groups, labels, start, conversation, repeats=request["balance"] == "resample")
    classes = store.classes(task)
    counts = {name: np.bincount(labels[part.session], minlength=len(classes)) for name, part in parts.items()}
    return Split(
        dataset=store.name,
        store=store.digest,
        task=task,
        scheme=scheme,
        shares=shares,
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        **request,
        groups=groups,
        dropped={name: int(number) for name, number in dropped.items()},
        counts={name: {part: int(counts[part][c]) for part in PARTS} for c, name in enumerate(classes)},
        proof=proof,
        shared=_shared("conversations", conversation, parts)
        | _shared("capture_groups", np.asarray(store.capture_group()), parts)
        | (leaks(parts, packets) if scheme in LEAKY else {})
        | ({"repeated": _repeated(parts, packets)} if request["balance"] == "resample" else {}),
        scored=tuple(np.flatnonzero(sum(counts.values())).tolist()),
    )


def _repeated(parts: dict[str, Samples], packets: NDArray[Any]) -> int:
    """How many samples of all parts are a window once more."""
    keys = np.concatenate([window_keys(part, packets) for part in parts.values()])
    return len(keys) - len(np.unique(keys))


def _shared(kind: str, of_session: NDArray[Any], parts: dict[str, Samples]) -> dict[str, int]:
    """How many groups stand in more than one part, and how many test samples are of one also in training."""
    in_parts = np.concatenate([np.unique(of_session[part.session]) for part in parts.values()])
    leaked = np.isin(of_session[parts["test"].session], of_session[parts["train"].session])
    return {
        f"shared_{kind}": int((np.unique(in_parts, return_counts=True)[1] > 1).sum()),
        f"test_in_training_{kind}": int(leaked.sum()),
    }
