"""Classes that were captured years apart: a split by time says nothing of how they drift."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.errors import InputError, some
from bench.schema import Samples

YEAR: Final = 365 * 24 * 3600 * 10**9  # ns
NAMED: Final = 3  # classes of each era, at most

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Times:
    """When the samples of some classes start, ns since the Unix epoch."""

    classes: Rows  # int64 [classes], sorted: those that have samples
    first: Rows  # int64 [classes]
    last: Rows

    @classmethod
    def of(cls, labels: NDArray[Any], start: NDArray[Any]) -> "Times":
        """The times of samples of classes ``labels``, int ``[samples]``; ``start`` int64 ``[samples]``, ns."""
        order = np.lexsort((start, labels))
        classes, begins, sizes = np.unique(labels[order], return_index=True, return_counts=True)
        return cls(classes.astype(np.int64), start[order][begins], start[order][begins + sizes - 1])

    @property
    def eras(self) -> list[Rows]:
        """The classes by era, int64 positions: more than a year without any class lies between two eras.

        >>> Times(np.arange(3), np.array([0, 5 * YEAR, 0]), np.array([1, 6 * YEAR, YEAR])).eras
        [array([0, 2]), array([1])]
        """
        order = np.argsort(self.first, kind="stable")
        until = np.maximum.accumulate(self.last[order])
        return np.split(order, np.flatnonzero(self.first[order][1:] - until[:-1] > YEAR) + 1)

    def told(self, chosen: Rows, names: Sequence[str]) -> str:
        """Classes at positions ``chosen``, int64 ``[chosen]``, by name and days; `NAMED` at most."""
        texts = [f"{names[self.classes[i]]} ({days(self.first[i], self.last[i])})" for i in chosen.tolist()]
        return some(texts, NAMED)


def days(first: int, last: int) -> str:
    """The days (UTC) of two times, in ns since the Unix epoch.

    >>> days(0, 10**9), days(0, 86400 * 10**9)
    ('1970-01-01', '1970-01-01 to 1970-01-02')
    """
    texts = [str(np.datetime64(int(time), "ns").astype("datetime64[D]")) for time in (first, last)]
    return " to ".join(dict.fromkeys(texts))


def check_eras(dataset: str, names: Sequence[str], labels: NDArray[Any], start: NDArray[Any]) -> None:
    """Refuse to divide classes by time that have no time in common, by years.

    Wherever it is cut, all classes of one era are on one side: trained and never tested, or the other way round.
    ``names`` are of all classes, ``labels`` (int) and ``start`` (int64, ns) ``[samples]``.  Raises :class:`InputError`.
    """
    times = Times.of(labels, start)
    if len(eras := times.eras) > 1:
        told = "; ".join(times.told(era, names) for era in eras)
        raise InputError(
            "split-impossible",
            f"{dataset}: split time: the classes' captures are of clocks more than a year apart, without overlap: "
            f"{told}; no date has all classes before and after it; use session or capture",
        )


def other_years(names: Sequence[str], labels: NDArray[Any], start: NDArray[Any], parts: Mapping[str, Samples]) -> str:
    """A line on classes that training or test lacks, and that are all of other years than it; empty without any.

    ``labels`` (int) and ``start`` (int64, ns) are of all ``[sessions]`` of the store.
    """
    every = np.unique(np.concatenate([part.session for part in parts.values()]))
    times = Times.of(labels[every], start[every])
    lines = []
    for name in ("train", "test"):
        begin, end = (int(ends(start[parts[name].session])) for ends in (np.min, np.max))
        # a class that is so far from all of a part's sessions has none in it
        far = np.flatnonzero((times.first - end > YEAR) | (begin - times.last > YEAR))
        if len(far):
            what = f"{name} part ({days(begin, end)}) lacks classes that were all captured over a year from it"
            lines.append(f"{what}: {times.told(far, names)}")
    return "; ".join(lines)
