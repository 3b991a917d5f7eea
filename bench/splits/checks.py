"""What a split promises, verified on its arrays: the same checks when it is made and when it is loaded."""

from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bench.errors import InputError
from bench.schema import NO_CLASS, Samples
from bench.spec import SplitSpec
from bench.splits.assignment import Rows


class SplitViolation(InputError):
    """A split that does not keep its promise."""

    def __init__(self, message: str) -> None:
        super().__init__("split-violation", message)

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:  # type: ignore[override]
        return type(self), (str(self),)

    def within(self, where: object) -> "SplitViolation":
        """The same with the place before its line."""
        return SplitViolation(f"{where}: {self}")


def verify_split(
    spec: SplitSpec,
    parts: dict[str, Samples],
    groups: dict[str, Rows],
    labels: NDArray[Any],
    start: NDArray[np.int64],
    conversation: NDArray[Any],
) -> tuple[str, ...]:
    """Check a split's promise and return it in words.  Raises :class:`SplitViolation`.

    ``parts`` and ``groups [samples]`` are by part, in the order of time; ``labels``, ``start`` and ``conversation``,
    all int, are of all ``[sessions]`` of the store.  Where training is re-sampled it may hold a window several times.
    """
    scheme = spec.scheme
    for name, part in parts.items():
        if not len(part):
            raise SplitViolation(f"split {scheme}: the {name} part is empty; use another split or more data")
    sessions = [part.session for part in parts.values()]
    if (labels[np.concatenate(sessions)] == NO_CLASS).any():
        raise SplitViolation("the split names a session that its task does not use; make the split again")
    if spec.leaky:
        return ("nothing: samples are assigned at random, and parts share sessions on purpose",)
    statements = [_verify_once(parts, repeats=spec.balancing == "resample")]
    if scheme != "file":
        statements.append(_verify_groups(spec, groups))
    of_sample = {name: conversation[part.session] for name, part in parts.items()}
    if spec.attribute:
        distinct = _count_apart(scheme, "conversation", {name: of_sample[name] for name in ("train", "validation")})
        statements.append(f"each of {distinct} conversations of training and validation is in one of them")
    if scheme == "capture+session":
        statements.append(f"each of {_count_apart(scheme, 'conversation', of_sample)} conversations is in one part")
    if scheme == "time":
        statements.append(_verify_times([start[part] for part in sessions]))
    return tuple(statements)


def _verify_times(starts: list[NDArray[np.int64]]) -> str:
    """Check that each part starts after the one before, and say so."""
    for early, late in pairwise(starts):
        if early.max() >= late.min():
            raise SplitViolation("split time: a session starts before the last of an earlier part; make it again")
    return "every session of a part starts after all sessions of the part before"


def _verify_once(parts: dict[str, Samples], *, repeats: bool) -> str:
    """Check that a session is in one part and a window there once, and say so."""
    number = 0
    for name, part in parts.items():
        keys = part.session * (part.first.max(initial=0) + 1) + part.first
        distinct, at, times = np.unique(keys, return_index=True, return_counts=True)
        if len(distinct) < len(keys) and not (repeats and name == "train"):
            row = at[times > 1][0]
            window = f"from packet {part.first[row]} of session {part.session[row]}"
            raise SplitViolation(f"the window {window} is twice in the {name} part; keep it once")
        number += len(distinct)
    every = np.concatenate([np.unique(part.session) for part in parts.values()])
    distinct, times = np.unique(every, return_counts=True)
    if len(distinct) != len(every):
        raise SplitViolation(f"session {distinct[times > 1][0]} is twice in the split, in two parts; keep it in one")
    return (
        f"each of {number} " + ("" if number == len(every) else f"windows of {len(every)} ") + "sessions is in one part"
    )


def _verify_groups(spec: SplitSpec, groups: dict[str, Rows]) -> str:
    """Check that no group is in two parts, and say so."""
    scheme, name = spec.scheme, spec.attribute
    kind = {"capture": "capture groups", "capture+session": "groups of captures and conversations"}.get(
        scheme, "conversations"
    )
    promise = f"values of {name} is learned or tested" if name else f"{kind} is in one part"
    if name and min(numbers.min() for numbers in groups.values()) < 0:
        raise SplitViolation(f"split {scheme}: a session's capture has no value of {name}; make the split again")
    if name:  # validation is of the values that were learned
        groups = {"learned": np.concatenate([groups["train"], groups["validation"]]), "test": groups["test"]}
    return f"each of {_count_apart(scheme, 'group', groups)} {promise}"


def _count_apart(scheme: str, kind: str, groups: dict[str, Rows]) -> int:
    """How many groups there are, of which none may be in two parts."""
    in_parts = np.concatenate([np.unique(numbers) for numbers in groups.values()])
    distinct, times = np.unique(in_parts, return_counts=True)
    if len(in_parts) != len(distinct):
        raise SplitViolation(f"split {scheme}: {kind} {distinct[times > 1][0]} is in two parts; make the split again")
    return len(distinct)


def check_windows(name: str, part: Samples, length: NDArray[np.int64]) -> None:
    """Raises :class:`SplitViolation` for a window outside its session; ``length`` int64 ``[sessions]``, packets."""
    session, first, count = part.session, part.first, part.count
    if len(unknown := session[(session < 0) | (session >= len(length))]):
        raise SplitViolation(
            f"{name} names session {unknown[0]}, outside the store's {len(length)}; make the split again"
        )
    # by division: a huge count times the stride would overflow
    wrong = (first < 0) | (count < 1) | (count - 1 > (length[session] - 1 - first) // part.stride)
    if wrong.any():
        row = np.flatnonzero(wrong)[0]
        window = f"window outside its session, {count[row]} packets from packet {first[row]} of session {session[row]}"
        raise SplitViolation(f"{name} has a {window}; make the split again")
