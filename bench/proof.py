"""What a split promises, checked on its arrays: the same check when it is made and when it is loaded."""

from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.dealing import Rows
from bench.errors import InputError
from bench.schema import NO_CLASS, Samples

LEAKY: Final = ("paper",)  # schemes that let parts share groups on purpose


class BrokenSplit(InputError):
    """A split that does not keep its promise."""


def prove(
    scheme: str,
    parts: dict[str, Samples],
    groups: dict[str, Rows],
    labels: NDArray[Any],
    start: NDArray[np.int64],
    *,
    repeats: bool = False,
) -> tuple[str, ...]:
    """Check a split's promise and return it in words.  Raises :class:`BrokenSplit`.

    ``parts`` and ``groups [samples]`` are by part, in the order of time; ``labels`` and ``start`` are of all
    ``[sessions]`` of the store.  With ``repeats`` training may hold a window several times.
    """
    for name, part in parts.items():
        if not len(part):
            raise BrokenSplit(f"split {scheme}: the {name} part is empty; use another split or more data")
    sessions = [part.session for part in parts.values()]
    if (labels[np.concatenate(sessions)] == NO_CLASS).any():
        raise BrokenSplit("the split names a session that its task does not use; make the split again")
    if scheme in LEAKY:
        return ("nothing: windows are dealt at random, and parts share sessions on purpose",)
    statements = [_prove_once(parts, repeats)]
    if scheme != "file":
        statements.append(_prove_groups(scheme, groups))
    if scheme == "time":
        for early, late in pairwise(sessions):
            if start[early].max() >= start[late].min():
                raise BrokenSplit("split time: a session starts before the last of an earlier part; make it again")
        statements.append("every session of a part starts after all sessions of the part before")
    return tuple(statements)


def _prove_once(parts: dict[str, Samples], repeats: bool) -> str:
    """Check that a session is in one part and a window there once, and say so."""
    number = 0
    for name, part in parts.items():
        keys = part.session * (part.first.max(initial=0) + 1) + part.first
        distinct = len(np.unique(keys))
        if distinct < len(keys) and not (repeats and name == "train"):
            raise BrokenSplit(f"a window is twice in the {name} part; keep it once")
        number += distinct
    every = np.concatenate([np.unique(part.session) for part in parts.values()])
    if len(np.unique(every)) != len(every):
        raise BrokenSplit("a session is twice in the split, in two parts; keep it in one")
    return (
        f"each of {number} " + ("" if number == len(every) else f"windows of {len(every)} ") + "sessions is in one part"
    )


def _prove_groups(scheme: str, groups: dict[str, Rows]) -> str:
    """Check that no group is in two parts, and say so."""
    name = attribute_of(scheme)
    kind = "capture groups" if scheme == "capture" else "conversations"
    promise = f"values of {name} is learned or tested" if name else f"{kind} is in one part"
    if name:  # validation is of the values that were learned
        groups = {"learned": np.concatenate([groups["train"], groups["validation"]]), "test": groups["test"]}
    in_parts = np.concatenate([np.unique(numbers) for numbers in groups.values()])
    distinct, times = np.unique(in_parts, return_counts=True)
    if len(in_parts) != len(distinct):
        raise BrokenSplit(f"split {scheme}: group {distinct[times > 1][0]} is in two parts; make the split again")
    return f"each of {len(distinct)} {promise}"


def attribute_of(scheme: str) -> str:
    """The attribute's name of such a scheme, else an empty text."""
    return scheme.removeprefix("attribute:") if scheme.startswith("attribute:") else ""


def check_windows(name: str, part: Samples, length: NDArray[np.int64]) -> None:
    """Raises :class:`BrokenSplit` for a window outside its session; ``length`` int64 ``[sessions]``, packets."""
    session, first, count = part.session, part.first, part.count
    if ((session < 0) | (session >= len(length))).any():
        raise BrokenSplit(f"{name} names a session outside the store's {len(length)}; make the split again")
    if ((first < 0) | (count < 1) | (first + (count - 1) * part.stride >= length[session])).any():
        raise BrokenSplit(f"{name} has a window outside its session; make the split again")
