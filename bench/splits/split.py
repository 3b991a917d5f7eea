"""A data set's task in three parts: made from a store and a :class:`~bench.spec.SplitSpec`, or read from a file.

A split is made from the store, task and specification alone, never from the method, and verifies itself when it is made
or loaded.  What it promises is of captures and 5-tuples; a session is no connection (`bench.splits.connections`), and
what can be seen of torn ones is counted.  What `bench.spec` says of the schemes, in detail:

``capture``
    Equal conversations do not join captures: one DHCP conversation (0.0.0.0:68 to 255.255.255.255:67) would join them
    all.  What captures share is in the summary.
``time``
    A session whose conversation stands in an earlier part is dropped and counted.  Classes more than a year apart are
    refused: no date has them all before and after it.
``attribute:NAME``
    Validation is of the learned values, no conversation of it in training.  Captures without a value are dropped and
    counted.
``paper``
    Windows of all sessions are balanced to so many a class and then divided at random, 70/10/20 within each class; what
    this leaks is counted in the summary.
``random``
    Samples are divided at random within each class, 80/10/10, as frequent as they are; what this leaks is counted.
``file``
    A file that :meth:`Split.save` wrote keeps its scheme and its promise; one made by hand says ``"scheme": "file"``
    and promises only that no session is in two parts.

Before that a filter drops sessions, the others become samples, whole or as windows, and classes are kept to a least and
a most number of samples.  After it the training part alone is balanced (only ``paper`` balances before).  A part is
sorted by session and window.  A file addresses sessions by row, together with the digest of the store: the same digest
means the same rows.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.errors import InputError, counted, instead
from bench.schema import NO_CLASS, Samples, drawn_order
from bench.spec import Shares, SplitSpec, named_seed
from bench.splits.assignment import (
    DROPPED,
    PARTS,
    Division,
    Rows,
    assign_at_random,
    assign_by_time,
    assign_by_value,
    assign_groups,
    balanced,
    limit_classes,
)
from bench.splits.checks import check_windows, verify_split
from bench.splits.clocks import check_eras, other_years
from bench.splits.connections import CapturedStore, torn
from bench.splits.filters import COLUMNS, NEEDS, apply_filter
from bench.splits.groups import GroupedStore, groups_of, scarce, settled
from bench.splits.sampling import count_shared_windows, window_keys, windows
from bench.splits.split_file import naming, read_split_file, write_split_file

SEEN: Final = "test_in_training_"  # and a kind: how `Split.shared` calls test samples that training has seen
LARGEST: Final = 10_000_000  # samples that are made by re-sampling to a given number (our choice: they fit in memory)


class LabelledStore(GroupedStore, CapturedStore, Protocol):
    """What a split needs of a store (see ``bench.data.store``); where captures are gone it is made without them."""

    @property
    def digest(self) -> str:
        """SHA-256, hex, of all that decides the store's content."""

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks."""

    @property
    def lacks(self) -> Mapping[str, str]:
        """What its records cannot tell -> why."""


@dataclass(frozen=True)
class Split:
    """Three parts of a task's samples, and int64 ``[samples]`` groups for each part."""

    dataset: str
    store: str  # the store's digest
    task: str
    spec: SplitSpec
    shares: Shares  # wanted; none where a file was made by hand
    parts: dict[str, Samples]  # by `PARTS`
    groups: dict[str, Rows]
    dropped: dict[str, int]  # by reason: sessions for a filter or without a window, samples for the rest
    counts: dict[str, dict[str, int]]  # class -> part -> samples
    verified: tuple[str, ...]  # the promise in words, as it was checked
    shared: dict[str, int]  # what parts share beyond the promise
    scored: tuple[int, ...]  # classes that the parts can hold at all; one that was emptied could only score 0
    remarks: tuple[str, ...] = ()  # what the counts cannot be read without, in words

    @property
    def train(self) -> Samples:
        """The training part."""
        return self.parts["train"]

    @property
    def validation(self) -> Samples:
        """The validation part."""
        return self.parts["validation"]

    @property
    def test(self) -> Samples:
        """The test part."""
        return self.parts["test"]

    @property
    def head(self) -> dict[str, Any]:
        """What the split was made from; JSON types.  Options that came later stand there only where asked for."""
        spec = self.spec
        head: dict[str, Any] = {"dataset": self.dataset, "store": self.store, "task": self.task}
        head |= {name: getattr(spec, name) for name in ("scheme", "seed", "fold", "folds", "max_per_class")}
        head |= {"shares": list(self.shares), **spec.unusual}
        head.pop("balance", None)
        return head | ({"balance": spec.balancing} if spec.balancing != "keep" else {})

    def to_scored_classes(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        """Store's class numbers as positions among the scored classes: int64, of the same shape."""
        return np.searchsorted(self.scored, labels)

    def order(self, part: str) -> Rows:
        """The part's samples in the order in which methods get them: int64 ``[samples]``, drawn by a named seed.

        A part itself is sorted by session, which is sorted by capture: there a place would tell the class.  The store's
        digest is among the names, as a method that only knows the command cannot draw the order again and undo it.
        """
        spec = self.spec
        names = (self.store, spec.seed, self.dataset, self.task, spec.scheme, spec.fold, part, "order")
        return drawn_order(len(self.parts[part]), named_seed(*names))

    @property
    def seen(self) -> dict[str, float]:
        """Share of test samples that training has seen, by what it has of them: ``capture_groups``, ``windows``, …"""
        counts = {name.removeprefix(SEEN): count for name, count in self.shared.items() if name.startswith(SEEN)}
        return {kind: count / len(self.test) for kind, count in counts.items()}

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
            "reduced_scale": self.spec.reduced,
            "proof": list(self.verified),
            "remarks": list(self.remarks),
            **self.shared,
        }

    def save(self, path: Path) -> None:
        """Write the split as JSON.  Raises :class:`InputError` where that cannot be."""
        write_split_file(path, {"digest": self.digest, **self.head, "dropped": self.dropped}, self.parts)

    @classmethod
    def load(cls, path: Path, store: LabelledStore) -> "Split":
        """Read a saved split and verify it again.  Raises :class:`InputError` for one of another store."""
        content = read_split_file(path)
        with naming(path):
            if content.store != store.digest:
                here = f"store {store.name} has digest {store.digest[:12]}"
                raise InputError(
                    "wrong-split-file", f"made for another store of {content.dataset}, {here}; make the split again"
                )
            _check_task(store, content.task)
            spec = content.spec
            parts = {name: getattr(content, name).samples(spec.windows.stride) for name in PARTS}
            split = _verified(store, content.task, spec, parts, content.dropped, content.shares)
            if content.digest not in (None, split.digest):
                raise InputError(
                    "wrong-split-file", "changed after it was saved; set its scheme to file and drop digest"
                )
        return split


def make_split(store: LabelledStore, task: str, spec: SplitSpec, *, shares: Shares | None = None) -> Split:
    """Divide a task's sessions into training, validation and test part, whose shares are ``shares``: the scheme's own
    by default.

    With folds, ``spec.fold`` is the test part, and validation takes its share of the rest.  ``spec.max_per_class``
    first reduces every class to that many samples drawn at random, in all parts alike (single ones, not groups: of a
    class with one huge group nothing else would be left); classes of fewer than ``spec.min_per_class`` samples are
    dropped before.  Raises :class:`InputError` for what cannot be divided so; a class that a part lacks is only in the
    summary.
    """
    _check_task(store, task)
    spec, _ = settled(store, task, spec)
    check_request(store, task, spec)
    if spec.folds is not None and spec.fold is None:
        raise InputError("bad-fold", "a fold needs the number of folds and the other way round; give both or neither")
    if spec.path is not None:
        split = Split.load(spec.path, store)
        if split.task != task:
            raise InputError(
                "wrong-split-file",
                f"{spec.file}: a split of task {split.task}, not of {task}; take that task or another file",
            )
        return split
    samples, dropped = _samples(store, task, spec)
    shares = shares or spec.shares
    rows = _divided(store, task, spec, samples, dropped, shares)
    return _verified(store, task, spec, {name: samples.take(kept) for name, kept in rows.items()}, dropped, shares)


def emptied_classes(store: LabelledStore, task: str, spec: SplitSpec) -> list[str]:
    """The names of the task's classes that have sessions, but none that filter and sampling leave."""
    _check_task(store, task)
    labels = np.asarray(store.labels(task))
    left = _samples(store, task, dataclasses.replace(spec, min_per_class=None))[0]
    lost = np.setdiff1d(labels[labels != NO_CLASS], labels[left.session])
    return [store.classes(task)[number] for number in lost]


def all_samples(store: LabelledStore, task: str, spec: SplitSpec) -> Samples:
    """All samples of a task that filter and sampling leave, by session and window.

    Raises :class:`InputError` where that is none.
    """
    return _samples(store, task, dataclasses.replace(spec, min_per_class=None))[0]


def check_request(store: LabelledStore, task: str, spec: SplitSpec) -> None:
    """Raises :class:`InputError` for what no split of that store can be, as far as that is told without making one."""
    if spec.scheme == "file" and spec.file is None:
        raise InputError("bad-options", "split file and a split's file belong together; give both or neither")
    _check_told(store, task, spec)
    if spec.folds is not None:
        number = int((np.asarray(store.labels(task)) != NO_CLASS).sum())
        if spec.folds > number:
            what = f"{spec.folds} folds need more than {counted(number, 'session')} of task {task}"
            raise InputError("bad-fold", f"{store.name}: {what}; use fewer")
    limit, number = spec.max_per_class or 0, len(store.classes(task))
    if spec.leaky and spec.balancing == "resample" and limit * number > LARGEST:
        raise InputError(
            "bad-class-size",
            f"max-per-class {limit}: split {spec.scheme} makes so many samples of each of {number} classes, more than "
            f"{LARGEST} in all; give {LARGEST // number} or less",
        )


def _check_told(store: LabelledStore, task: str, spec: SplitSpec) -> None:
    """Raises :class:`InputError` where filter or split look at what the store's records do not tell."""
    for name in spec.filtering.split(","):
        if absent := [need for need in NEEDS.get(name, ()) if need in store.lacks]:
            what = f"filter {name} looks at {' and '.join(absent)}, which its records do not tell"
            remedy = "leave it out" if name in spec.filter.split(",") else "take split capture, or session"
            raise InputError("bad-options", f"{store.name}, split {spec.scheme}: {what}; {remedy}")
    if spec.scheme == "time" and len(np.unique(store.session("start"))) == 1 < int((store.labels(task) >= 0).sum()):
        raise InputError("bad-options", f"{store.name}, split time: no session tells when it began; take another split")


def _check_task(store: LabelledStore, task: str) -> None:
    if task not in store.tasks:
        raise InputError("unknown-task", f"{store.name} has no task {task!r}; {instead(task, store.tasks)}")


def _samples(store: LabelledStore, task: str, spec: SplitSpec) -> tuple[Samples, dict[str, int]]:
    """All samples of a task by session and window, and what was dropped to get there, counted by reason."""
    labels = np.asarray(store.labels(task))
    rows = np.flatnonzero(labels != NO_CLASS)
    if not len(rows):
        raise InputError(
            "nothing-left", f"{store.name}: task {task} has no session; look at what `bench prepare` says of its labels"
        )
    dropped: dict[str, int] = {}
    if spec.filtering != "none":
        stay, dropped = apply_filter(spec.filtering, {name: np.asarray(store.session(name))[rows] for name in COLUMNS})
        rows = rows[stay]
    samples = windows(spec.windows, rows, store)
    if spec.windows.window is not None:
        dropped["no window"] = len(rows) - len(np.unique(samples.session))
    if spec.min_per_class is not None:
        sizes = np.bincount(labels[samples.session], minlength=1)
        kept = np.flatnonzero(sizes[labels[samples.session]] >= spec.min_per_class)
        dropped["min_per_class"], samples = len(samples) - len(kept), samples.take(kept)
    if not len(samples):
        raise InputError("nothing-left", f"{store.name}: nothing of task {task} is left ({dropped}); ask for less")
    if spec.least_groups > 1:
        groups = np.asarray(store.capture_group())[samples.session]
        few = scarce(store, task, spec, labels[samples.session], groups)
        dropped[f"class with fewer than {spec.least_groups} capture groups"] = int(few.sum())
        samples = samples.take(np.flatnonzero(~few))
    return samples, dropped


def _divided(
    store: LabelledStore, task: str, spec: SplitSpec, samples: Samples, dropped: dict[str, int], shares: Shares
) -> dict[str, Rows]:
    """Positions of each part's samples; adds to ``dropped``."""
    labels = np.asarray(store.labels(task))[samples.session]

    def seed(*names: object) -> int:
        return named_seed(spec.seed, store.name, task, *names)

    kept = np.arange(len(samples))
    if spec.leaky and spec.balancing == "resample":
        kept = balanced(labels, "resample", spec.max_per_class, seed("balance"))
        dropped["balance"] = len(samples) - len(np.unique(kept))
    elif spec.max_per_class is not None:
        kept = limit_classes(kept, labels, spec.max_per_class, seed("max_per_class"))
        dropped["max_per_class"] = len(samples) - len(kept)
    if spec.leaky and spec.balancing == "undersample":
        kept = kept[balanced(labels[kept], "undersample", None, seed("balance"))]
        dropped["balance"] = len(samples) - len(kept)
    if spec.scheme == "time":
        start = np.asarray(store.session("start"))[samples.session[kept]]
        check_eras(store.name, store.classes(task), labels[kept], start)
    division = Division(shares, spec.fold, spec.folds, (spec.seed, store.name, task, spec.scheme))
    part, reason = _assign(store, spec, division, samples.session[kept], labels[kept])
    if reason:
        dropped[reason] = int((part == DROPPED).sum())
    rows = {name: kept[part == p] for p, name in enumerate(PARTS)}
    if not spec.leaky and spec.balancing != "keep":
        train = rows["train"]
        seed_of_balance = seed(spec.scheme, spec.fold, "balance")
        rows["train"] = train[balanced(labels[train], spec.balancing, None, seed_of_balance)]
        dropped["balance"] = len(train) - len(np.unique(rows["train"]))
    return rows


def _assign(
    store: LabelledStore, spec: SplitSpec, division: Division, rows: Rows, labels: NDArray[Any]
) -> tuple[Rows, str]:
    """Part of each sample, and why one may be dropped; empty where the scheme drops none."""
    conversation = np.asarray(store.session("conversation"))[rows]
    if spec.scheme == "time":
        start = np.asarray(store.session("start"))[rows]
        return assign_by_time(start, conversation, division.shares), "conversation in an earlier part"
    if spec.leaky:
        return assign_at_random(labels, division), ""
    groups = groups_of(store, spec, rows)[rows]
    if not (name := spec.attribute):
        _check_groups(store.name, spec, groups)
        return assign_groups(groups, labels, division), ""
    kept = np.flatnonzero(groups >= 0)
    number, needed = len(np.unique(groups[kept])), spec.folds or 2
    if number < needed:
        what = f"{name} has {number} values in this task, split {spec.scheme} needs {needed}"
        raise InputError(
            "split-impossible",
            f"{store.name}: {what}; use another attribute" + (" or fewer folds" if spec.folds else ""),
        )
    part = np.full(len(rows), DROPPED)
    part[kept] = assign_by_value(groups[kept], conversation[kept], labels[kept], division)
    return part, f"no {name}"


def _check_groups(name: str, spec: SplitSpec, groups: NDArray[Any]) -> None:
    number, needed = len(np.unique(groups)), spec.folds or len(PARTS)
    if number < needed:
        what = f"{spec.folds} folds" if spec.folds else "three parts"
        raise InputError(
            "split-impossible",
            f"{name}: {what} of split {spec.scheme} need more than {counted(number, 'group')}; "
            + ("use fewer folds" if spec.folds else "bring more captures")
            + ("" if spec.scheme == "session" else ", or take session"),
        )


def _verified(
    store: LabelledStore,
    task: str,
    spec: SplitSpec,
    parts: dict[str, Samples],
    dropped: Mapping[str, int],
    shares: Shares,
) -> Split:
    """Verify the parts, count what is in them, and make the split."""
    labels, start = np.asarray(store.labels(task)), np.asarray(store.session("start"))
    of_session = groups_of(store, spec, np.concatenate([part.session for part in parts.values()]))
    packets = np.asarray(store.session("packets"))
    for name, part in parts.items():
        check_windows(name, part, packets)
    groups = {name: of_session[part.session].astype(np.int64) for name, part in parts.items()}
    conversation = np.asarray(store.session("conversation"))
    verified = verify_split(spec, parts, groups, labels, start, conversation)
    classes = store.classes(task)
    counts = {name: np.bincount(labels[part.session], minlength=len(classes)) for name, part in parts.items()}
    shared = _shared("conversations", conversation, parts)
    shared |= _shared("capture_groups", np.asarray(store.capture_group()), parts)
    if spec.scheme == "capture+session":
        shared |= {"groups_with_broadcasts": _groups_with_broadcasts(store, task)}
    shared |= count_shared_windows(parts, packets) if spec.leaky else {}
    shared |= {"repeated": _repeated(parts, packets)} if spec.balancing == "resample" else {}
    torn_ones, unseen = _torn(store, spec, parts)
    years = other_years(classes, labels, start, parts) if spec.scheme == "time" else ""
    return Split(
        dataset=store.name,
        store=store.digest,
        task=task,
        spec=spec,
        shares=tuple(shares),
        parts=parts,
        groups=groups,
        dropped={name: int(number) for name, number in dropped.items()},
        counts={name: {part: int(counts[part][c]) for part in PARTS} for c, name in enumerate(classes)},
        verified=verified,
        shared=shared | torn_ones,
        scored=tuple(np.flatnonzero(sum(counts.values())).tolist()),
        remarks=tuple(filter(None, (unseen, years))),
    )


def _torn(store: LabelledStore, spec: SplitSpec, parts: dict[str, Samples]) -> tuple[dict[str, int], str]:
    """Counts of connections that may be torn, and why there are none; of a split that promises nothing neither."""
    if spec.leaky:
        return {}, ""
    if "payload" in store.lacks:
        return {}, "connections torn between training and test: not looked at, the data set holds no payload"
    try:
        return {f"{SEEN}{kind}": number for kind, number in torn(store, parts).items()}, ""
    except InputError as error:
        return {}, f"connections torn between training and test: not looked at, the captures cannot be read ({error})"


def _groups_with_broadcasts(store: LabelledStore, task: str) -> int:
    """How few groups ``capture+session`` would have if broadcast conversations joined captures, too."""
    rows = np.flatnonzero(np.asarray(store.labels(task)) != NO_CLASS)
    return len(np.unique(groups_of(store, SplitSpec("capture+session"), rows)[rows]))


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
