"""Which sample goes to which part, from labels, groups and a seed; what a split promises is `bench.splits.checks`'.

Arrays are over the samples of a task, sessions or windows, so that a group weighs as much as it has samples; a part
is a number, a position in `PARTS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.spec import Shares, named_seed

PARTS: Final = ("train", "validation", "test")
DROPPED: Final = -1  # the part of a sample that goes to none
STARTS: Final = 8  # random orders of the groups that are tried; the most even assignment is kept
SWEEPS: Final = 4  # times that an assignment goes over all groups

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Division:
    """How many samples go to which part, and by which seed."""

    shares: Shares  # of training, validation and test part
    fold: int | None  # with `folds`: the test part is that fold, and validation takes its share of the rest
    folds: int | None
    names: tuple[object, ...]  # what the seeds are drawn from: seed, data set, task, scheme

    def seed(self, *more: object) -> int:
        """A seed for this division and that purpose alone."""
        return named_seed(*self.names, *more)


def limit_classes(rows: Rows, labels: NDArray[Any], limit: int, seed: int) -> Rows:
    """At most ``limit`` of ``rows [some]`` of each class, sorted; those of a smaller limit are among a larger one's.

    ``labels`` are of any int dtype, ``[some]``.
    """
    order, rank, _ = _shuffled(labels, seed)
    return np.sort(rows[order[rank < limit]])


def balanced(labels: NDArray[Any], mode: str, limit: int | None, seed: int) -> Rows:
    """Positions in ``labels [samples]`` (int), sorted, some twice: every class equally often, as `spec.BALANCES` says.

    Re-sampling repeats each of a class's rows as often as any other, to one; ``limit`` is the size of a class, by
    default the largest one's.
    """
    if mode == "keep" or not len(labels):
        return np.arange(len(labels))
    order, rank, sizes = _shuffled(labels, seed)
    if mode == "undersample":
        return np.sort(order[rank < sizes.min()])
    turn = np.arange(limit or sizes.max()) % sizes[:, None]
    return np.sort(order[((np.cumsum(sizes) - sizes)[:, None] + turn).ravel()])


def _shuffled(labels: NDArray[Any], seed: int) -> tuple[Rows, Rows, Rows]:
    """Positions in ``labels`` by class and at random within it, the place of each in its class, the classes' sizes."""
    return rank_in_class(labels, np.argsort(_raw(len(labels), seed), kind="stable"))


def rank_in_class(labels: NDArray[Any], order: Rows) -> tuple[Rows, Rows, Rows]:
    """``order``, int64 positions in ``labels``, by class; the place of each in its class; the classes' sizes.

    >>> rank_in_class(np.array([1, 0, 1]), np.array([2, 1, 0]))
    (array([1, 2, 0]), array([0, 0, 1]), array([1, 2]))
    """
    order = order[np.argsort(labels[order], kind="stable")]
    sizes = np.unique(labels, return_counts=True)[1]
    return order, np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes), sizes


def assign_by_time(start: NDArray[np.int64], conversation: NDArray[Any], shares: Shares) -> Rows:
    """Part of each sample by the time of its start, DROPPED where its conversation stands in an earlier part.

    All arrays are int ``[samples]``, as is what is returned; ``start`` in any unit.
    """
    ordered = np.sort(start)
    last = len(start) - 1
    cuts = [ordered[min(round(share * len(start)), last)] for share in np.cumsum(shares)[:-1]] if len(start) else []
    part = np.searchsorted(cuts, start, side="right").astype(np.int64)
    conversation = np.unique(conversation, return_inverse=True)[1]
    earliest = np.full(conversation.max(initial=-1) + 1, len(PARTS))
    np.minimum.at(earliest, conversation, part)
    return np.where(part > earliest[conversation], DROPPED, part)


def assign_at_random(labels: NDArray[Any], division: Division) -> Rows:
    """Part of each sample, at random within its class, which has its shares to one.  Nothing stays together.

    Folds have as many samples to one, too.  ``labels`` int ``[samples]``, as is what is returned.
    """
    fold, folds = division.fold, division.folds
    if fold is None or folds is None:
        return _cut(labels, division.shares, division.seed())
    order, _, _ = _shuffled(labels, division.seed(folds))
    tested = np.zeros(len(labels), bool)
    tested[order[fold::folds]] = True  # classes stand one behind the other
    seed = division.seed(folds, fold)
    return _with_validation(tested, division.shares, lambda rest, learning: _cut(labels[rest], learning, seed))


def _cut(labels: NDArray[Any], shares: Shares, seed: int) -> Rows:
    """Part of each sample: every class, shuffled, cut at the shares."""
    order, rank, sizes = _shuffled(labels, seed)
    part = np.zeros(len(labels), np.int64)
    for share in np.cumsum(shares)[:-1]:
        part[order] += rank >= np.repeat(np.round(share * sizes), sizes)
    return part


def assign_groups(groups: NDArray[Any], labels: NDArray[Any], division: Division) -> Rows:
    """Part of each sample; samples of one group stay together and classes are spread as evenly as groups allow.

    All arrays are int ``[samples]``.
    """
    fold, folds, shares = division.fold, division.folds, division.shares
    if fold is None or folds is None:
        return assign_evenly(groups, labels, shares, division.seed())
    of_fold = assign_evenly(groups, labels, (1 / folds,) * folds, division.seed(folds))
    seed = division.seed(folds, fold)
    return _with_validation(
        of_fold == fold, shares, lambda rest, learning: assign_evenly(groups[rest], labels[rest], learning, seed)
    )


def assign_by_value(value: NDArray[Any], conversation: NDArray[Any], labels: NDArray[Any], division: Division) -> Rows:
    """Part of each sample; the test part's values are of no other, a conversation is in one part of the rest.

    All arrays are int ``[samples]``.
    """
    shares, fold, folds = division.shares, division.fold, division.folds
    sides = (1 / folds,) * folds if folds else (shares[2], shares[0] + shares[1])
    tested = assign_evenly(value, labels, sides, division.seed(folds)) == (fold or 0)
    seed = division.seed(folds, fold)
    return _with_validation(
        tested, shares, lambda rest, learning: assign_evenly(conversation[rest], labels[rest], learning, seed)
    )


def _with_validation(tested: NDArray[np.bool_], shares: Shares, divide: Callable[[Rows, Shares], Rows]) -> Rows:
    """Part of each sample: the test part as given, the rest divided into training and validation."""
    part = np.full(len(tested), PARTS.index("test"))
    rest = np.flatnonzero(~tested)
    learn = shares[0] + shares[1]
    part[rest] = divide(rest, (shares[0] / learn, shares[1] / learn))
    return part


def assign_evenly(groups: NDArray[Any], labels: NDArray[Any], shares: Shares, seed: int) -> Rows:
    """Part of each sample: the most even of several greedy assignments of whole groups, larger groups first.

    All arrays are int ``[samples]``; ``shares`` of the samples are wanted in each part.
    Groups whose sizes are within a factor of two come in random order: strictly by size, the largest groups would
    stand in training under every seed.  `benchmarks/evenness.py` compares it with scikit-learn's
    StratifiedGroupKFold.
    """
    from bench.splits import assignment_kernel

    group, class_ = (np.unique(a, return_inverse=True)[1].astype(np.int64) for a in (groups, labels))
    classes = class_.max(initial=-1) + 1
    # every sample counts for its class and, in one more column, for the size of the part
    keys = np.concatenate([group * (classes + 1) + class_, group * (classes + 1) + classes])
    cells, counts = np.unique(keys, return_counts=True)
    number = group.max(initial=-1) + 1
    begin = np.searchsorted(cells, np.arange(number + 1) * (classes + 1))
    column = cells % (classes + 1)
    wanted = np.outer(shares, np.bincount(column, counts, classes + 1))
    octave = -np.frexp(np.bincount(group))[1]
    best, least = np.zeros(number, np.int64), np.inf
    for start in range(STARTS):
        order = np.lexsort((_raw(number, named_seed(seed, start)), octave))
        part = np.empty(number, np.int64)
        distance = assignment_kernel.assign(order, begin, column, counts, wanted, SWEEPS, part)
        if distance < least:
            best, least = part, distance
    return best[group]


def _raw(size: int, seed: int) -> NDArray[np.uint64]:
    """Random numbers from the bit generator: NumPy promises their stream, not that of ``permutation``."""
    return np.random.PCG64(seed).random_raw(size)
