"""Which session is in which part.

A split is made from (store, task, scheme, seed, fold) alone, never from the method, and proves itself when
it is made or loaded: :func:`prove`.  Schemes and what they promise:

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
``file``
    Given by a file.  A file that :meth:`Split.save` wrote keeps its scheme and its promise; one made by
    hand says ``"scheme": "file"`` and promises only that no session is in two parts.

A part holds whole sessions, sorted by row.  A file addresses sessions by row, together with the digest of
the store: the same digest means the same rows.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.dealing import DROPPED, PARTS, Rows, by_groups, by_time, by_value, cap, named_seed
from bench.errors import InputError
from bench.schema import NO_CLASS, Samples

SCHEMES: Final = ("session", "capture", "time", "attribute", "file")  # "attribute" is followed by ":" and its name
FORMAT: Final = "bench-split-1"
_FIELDS: Final[dict[str, tuple[type, ...]]] = {  # of a file, with the types that JSON may give
    "store": (str,),
    "dataset": (str,),
    "task": (str,),
    "seed": (int,),
    "shares": (list,),
    "dropped": (dict,),
    **dict.fromkeys(("fold", "folds", "max_per_class"), (int, type(None))),
}


class LabelledStore(Protocol):
    """What a split needs of a store (see ``bench.store``)."""

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

    def classes(self, task: str) -> list[str]:
        """The names of a task's classes."""

    def labels(self, task: str) -> NDArray[np.int16]:
        """Class of each session, ``NO_CLASS`` where the task does not use it, ``[sessions]``."""

    def capture_group(self) -> NDArray[np.int32]:
        """The group of each session's capture, ``[sessions]``."""

    def capture_attribute(self, name: str) -> NDArray[np.int32]:
        """Number of the attribute's value of each session's capture, -1 where it has none, ``[sessions]``."""


class BrokenSplit(InputError):
    """A split that does not keep its promise."""


@dataclass(frozen=True)
class Split:
    """Three parts of a task's sessions, and int64 ``[samples]`` groups for each part.

    ``fold`` and ``folds`` are None for a single division.  ``dropped`` counts the task's sessions that are in
    no part, by reason.
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

    @property
    def parts(self) -> dict[str, Samples]:
        """The parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def head(self) -> dict[str, Any]:
        """What the split was made from; JSON types."""
        names = ("dataset", "store", "task", "scheme", "seed", "fold", "folds", "max_per_class")
        return {name: getattr(self, name) for name in names} | {"shares": list(self.shares)}

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
            "groups": {name: len(np.unique(groups)) for name, groups in self.groups.items()},
            "classes": self.counts,
            "shortfalls": [
                {"class": name, "part": part} for name, n in self.counts.items() for part in PARTS if not n[part]
            ],
            "dropped": self.dropped,
            "reduced_scale": self.max_per_class is not None,
            "proof": list(self.proof),
            **self.shared,
        }

    def save(self, path: Path) -> None:
        """Write the split as JSON, aside and renamed.  Raises :class:`InputError` where that cannot be."""
        parts = {
            name: {"session": part.session.tolist(), "first": part.first.tolist(), "count": part.count.tolist()}
            for name, part in self.parts.items()
        }
        text = json.dumps({"format": FORMAT, "digest": self.digest, **self.head, "dropped": self.dropped, **parts})
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            aside.write_text(text + "\n")
            aside.replace(path)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise InputError(f"{path}: cannot be written ({error.strerror}); name another file") from None

    @classmethod
    def load(cls, path: Path, store: LabelledStore) -> "Split":
        """Read a saved split and prove it again.  Raises :class:`InputError` for one of another store."""
        content = _read(path)
        if content["store"] != store.digest:
            here = f"store {store.name} has digest {store.digest[:12]}"
            raise InputError(f"{path}: made for another store of {content['dataset']}, {here}; make the split again")
        _check_task(store, content["task"])
        parts = {name: _samples(path, content[name]) for name in PARTS}
        request = {name: content.get(name) for name in ("fold", "folds", "max_per_class")} | {"seed": content["seed"]}
        dropped, shares = content["dropped"], tuple(content["shares"])
        split = _finish(store, content["task"], content["scheme"], parts, dropped, shares, request)
        if content.get("digest", split.digest) != split.digest:
            raise InputError(f"{path}: changed after it was saved; set its scheme to file and drop digest")
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
) -> Split:
    """Divide a task's sessions into training, validation and test part, whose shares are ``parts``.

    With ``folds``, fold ``fold`` of that many is the test part, and validation takes its share of the rest.
    ``max_per_class`` first reduces every class to that many sessions drawn at random, in all parts alike (single
    sessions, not groups: of a class with one huge group nothing else would be left).  Raises
    :class:`InputError` for what cannot be divided so; a class that a part lacks is only in the summary.
    """
    check_scheme(scheme)
    _check_task(store, task)
    _check_request(scheme, fold, folds, max_per_class, file)
    if file is not None:
        split = Split.load(file, store)
        if split.task != task:
            raise InputError(f"{file}: a split of task {split.task}, not of {task}; take that task or another file")
        return split
    labels = np.asarray(store.labels(task))
    used = np.flatnonzero(labels != NO_CLASS)
    if not len(used):
        raise InputError(f"{store.name}: task {task} has no session; look at what `bench prepare` says of its labels")
    rows, dropped = used, {}
    if max_per_class is not None:
        rows = cap(rows, labels[rows], max_per_class, named_seed(seed, store.name, task, "max_per_class"))
        dropped["max_per_class"] = len(used) - len(rows)
    part, reason = _deal(store, scheme, rows, labels[rows], parts, fold, folds, (seed, store.name, task, scheme))
    if reason:
        dropped[reason] = int((part == DROPPED).sum())
    length = np.asarray(store.session("packets"), np.int64)
    samples = {name: _whole(rows[part == p], length) for p, name in enumerate(PARTS)}
    request = {"seed": seed, "fold": fold, "folds": folds, "max_per_class": max_per_class}
    return _finish(store, task, scheme, samples, dropped, parts, request)


def check_scheme(scheme: str) -> None:
    """Raises :class:`InputError` for a split that there is not."""
    kind, colon, name = scheme.partition(":")
    if kind not in SCHEMES or (kind == "attribute") != bool(colon and name):
        known = ", ".join("attribute:NAME" if one == "attribute" else one for one in SCHEMES)
        raise InputError(f"unknown split {scheme!r}; there are: {known}")


def _attribute(scheme: str) -> str:
    """The attribute's name of such a scheme, else an empty text."""
    return scheme.removeprefix("attribute:") if scheme.startswith("attribute:") else ""


def prove(
    scheme: str, parts: dict[str, Samples], groups: dict[str, Rows], labels: NDArray[Any], start: NDArray[np.int64]
) -> tuple[str, ...]:
    """Check a split's promise and return it in words.  Raises :class:`BrokenSplit`.

    ``parts`` and ``groups [samples]`` are by part, in the order of time; ``labels`` and ``start`` are of all
    ``[sessions]`` of the store.
    """
    for name, part in parts.items():
        if not len(part):
            raise BrokenSplit(f"split {scheme}: the {name} part is empty; use another split or more data")
    sessions = [part.session for part in parts.values()]
    every = np.concatenate(sessions)
    if (labels[every] == NO_CLASS).any():
        raise BrokenSplit("the split names a session that its task does not use; make the split again")
    if len(np.unique(every)) != len(every):
        raise BrokenSplit("a session is twice in the split; keep it in one part, once")
    statements = [f"each of {len(every)} sessions is in one part"]
    if scheme != "file":
        statements.append(_prove_groups(scheme, groups))
    if scheme == "time":
        for early, late in pairwise(sessions):
            if start[early].max() >= start[late].min():
                raise BrokenSplit("split time: a session starts before the last of an earlier part; make it again")
        statements.append("every session of a part starts after all sessions of the part before")
    return tuple(statements)


def _prove_groups(scheme: str, groups: dict[str, Rows]) -> str:
    """Check that no group is in two parts, and say so."""
    name = _attribute(scheme)
    kind = "capture groups" if scheme == "capture" else "conversations"
    statement = "each of {} " + (f"values of {name} is learned or tested" if name else f"{kind} is in one part")
    if name:  # validation is of the values that were learned
        groups = {"learned": np.concatenate([groups["train"], groups["validation"]]), "test": groups["test"]}
    in_parts = np.concatenate([np.unique(numbers) for numbers in groups.values()])
    distinct, times = np.unique(in_parts, return_counts=True)
    if len(in_parts) != len(distinct):
        raise BrokenSplit(f"split {scheme}: group {distinct[times > 1][0]} is in two parts; make the split again")
    return statement.format(len(distinct))


def _check_task(store: LabelledStore, task: str) -> None:
    if task not in store.tasks:
        raise InputError(f"{store.name} has no task {task!r}; it has: {', '.join(store.tasks)}")


def _check_request(
    scheme: str, fold: int | None, folds: int | None, max_per_class: int | None, file: Path | None
) -> None:
    if (scheme == "file") != (file is not None):
        raise InputError("split file and a split's file belong together; give both or neither")
    if (fold is None) != (folds is None):
        raise InputError("a fold needs the number of folds and the other way round; give both or neither")
    if fold is not None and folds is not None:
        if scheme in ("time", "file"):
            raise InputError(f"split {scheme} has no folds; leave --folds out or take session or capture")
        if folds < 2 or not 0 <= fold < folds:
            raise InputError(f"fold {fold} of {folds} does not exist; folds are 2 or more, counted from 0")
    if max_per_class is not None and (max_per_class < 1 or file is not None):
        raise InputError("max-per-class is 1 or more, and does not go with a split from a file")


def _check_groups(name: str, scheme: str, groups: NDArray[Any], labels: NDArray[Any], folds: int | None) -> None:
    pairs = np.unique(np.stack([labels, groups]), axis=1)
    if scheme == "capture" and np.unique(pairs[0], return_counts=True)[1].max(initial=0) < 2:
        raise InputError(f"{name}: every class has one capture group, so no split by capture is possible; use session")
    number, needed = len(np.unique(groups)), folds or len(PARTS)
    if number < needed:
        what = f"{folds} folds" if folds else "three parts"
        raise InputError(f"{name}: {number} groups are too few for {what} of split {scheme}; use fewer, or session")


def _check_windows(name: str, part: Samples, length: NDArray[np.int64]) -> None:
    session, first, count = part.session, part.first, part.count
    if ((session < 0) | (session >= len(length))).any():
        raise BrokenSplit(f"{name} names a session outside the store's {len(length)}; make the split again")
    if ((first < 0) | (count < 1) | (first + count > length[session])).any():
        raise BrokenSplit(f"{name} has a window outside its session; make the split again")


def _groups(store: LabelledStore, scheme: str) -> NDArray[Any]:
    """The group of each session of the store."""
    if name := _attribute(scheme):
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
    groups = _groups(store, scheme)[rows]
    if not (name := _attribute(scheme)):
        _check_groups(store.name, scheme, groups, labels, folds)
        return by_groups(groups, labels, shares, fold, folds, names), ""
    kept = np.flatnonzero(groups >= 0)
    number, needed = len(np.unique(groups[kept])), folds or 2
    if number < needed:
        raise InputError(f"{store.name}: {name} has {number} values in this task, split {scheme} needs {needed}")
    part = np.full(len(rows), DROPPED)
    part[kept] = by_value(groups[kept], conversation[kept], labels[kept], shares, fold, folds, names)
    return part, f"no {name}"


def _whole(rows: Rows, length: Rows) -> Samples:
    return Samples(rows, np.zeros(len(rows), np.int64), length[rows])


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
    for name, part in parts.items():
        _check_windows(name, part, np.asarray(store.session("packets")))
    groups = {name: of_session[part.session].astype(np.int64) for name, part in parts.items()}
    proof = prove(scheme, parts, groups, labels, start)
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
        shared=_shared("conversations", np.asarray(store.session("conversation")), parts)
        | _shared("capture_groups", np.asarray(store.capture_group()), parts),
    )


def _shared(kind: str, of_session: NDArray[Any], parts: dict[str, Samples]) -> dict[str, int]:
    """How many groups stand in more than one part, and how many test samples are of one also in training."""
    in_parts = np.concatenate([np.unique(of_session[part.session]) for part in parts.values()])
    leaked = np.isin(of_session[parts["test"].session], of_session[parts["train"].session])
    return {
        f"shared_{kind}": int((np.unique(in_parts, return_counts=True)[1] > 1).sum()),
        f"test_in_training_{kind}": int(leaked.sum()),
    }


def _read(path: Path) -> dict[str, Any]:
    """A split file's content with the keys that every file needs."""
    try:
        content = json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such split file; make one with bench split") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not a split file ({error}); make one with bench split") from None
    needed = ("format", "store", "dataset", "task", "scheme", *PARTS)
    missing = [key for key in needed if not isinstance(content, dict) or key not in content]
    if missing or content["format"] != FORMAT or not isinstance(content["scheme"], str):
        raise InputError(f"{path}: not a split file of format {FORMAT} (lacks {missing}); make one with bench split")
    check_scheme(content["scheme"])
    content = {"seed": 0, "shares": [], "dropped": {}, "fold": None, "folds": None, "max_per_class": None} | content
    for key, kinds in _FIELDS.items():
        if not isinstance(content[key], kinds):
            raise InputError(f"{path}: {key} = {content[key]!r} cannot be; make the file with bench split")
    if not all(isinstance(n, int) for n in content["dropped"].values()):
        raise InputError(f"{path}: dropped = {content['dropped']!r} must hold counts; make the file with bench split")
    return content


def _samples(path: Path, part: Any) -> Samples:
    """A part of a split file."""
    try:
        columns = [np.asarray(part[column]) for column in ("session", "first", "count")]
        arrays = [column.astype(np.int64, casting="safe") for column in columns]
    except (TypeError, ValueError, KeyError, OverflowError):
        arrays = []
    if not arrays or any(array.shape != (arrays[0].size,) for array in arrays):
        raise InputError(f"{path}: a part lacks its lists session, first, count; make the file with bench split")
    return Samples(*arrays)
