"""The compiled loop of `bench.splits.assignment`.  Importing this module imports numba: do so inside functions."""

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(nogil=True, cache=True)
def assign(
    order: NDArray[np.int64],
    begin: NDArray[np.int64],
    classes: NDArray[np.int64],
    counts: NDArray[np.int64],
    wanted: NDArray[np.float64],
    sweeps: int,
    part: NDArray[np.int64],
) -> float:
    """Assign groups to parts in ``order``, each where it lowers the chi-square distance most, and once more.

    Group ``g`` holds ``counts[i]`` samples of ``classes[i]`` for ``i`` in ``begin[g]:begin[g + 1]``; ``wanted
    [parts, classes]`` are the wanted counts, the last column of all samples.  A class with no more groups left than
    parts that still lack it goes to one of these parts first; with fewer, to those that want more: it is trained and
    tested before it is validated.  Later sweeps take up one group at a time and assign it anew.  Fills
    ``part [groups]``; returns the chi-square distance, plus a million or more for every class that a part lacks.
    """
    have = np.zeros(wanted.shape)
    left = np.zeros(wanted.shape[1], np.int64)  # groups not assigned yet, by class
    for c in classes:
        left[c] += 1
    lacking = np.full(wanted.shape[1], wanted.shape[0])  # parts without the class
    for sweep in range(sweeps):
        for g in order:
            cells = slice(begin[g], begin[g + 1])
            if sweep > 0:
                _place(classes[cells], -counts[cells], have[part[g]], left, lacking)
            part[g] = _best_part(classes[cells], counts[cells], have, wanted, left, lacking)
            _place(classes[cells], counts[cells], have[part[g]], left, lacking)
    share = wanted[:, -1:] / wanted[:, -1].sum()
    lack = (have == 0) * (1 + share)
    lack[:, -1] *= wanted.shape[1]
    return ((have - wanted) ** 2 / wanted).sum() + 1e6 * lack.sum()


@numba.njit(nogil=True, cache=True)
def _best_part(
    classes: NDArray[np.int64],
    counts: NDArray[np.int64],
    have: NDArray[np.float64],
    wanted: NDArray[np.float64],
    left: NDArray[np.int64],
    lacking: NDArray[np.int64],
) -> int:
    best, best_need, best_cost = 0, -1, 0.0
    for p in range(wanted.shape[0]):
        need, cost = 0, 0.0
        for c, n in zip(classes, counts):  # noqa: B905  (numba knows no strict)
            if have[p, c] == 0 and left[c] <= lacking[c]:
                before = 0  # parts that lack the class, too, and want more of it
                for q in range(wanted.shape[0]):
                    before += have[q, c] == 0 and wanted[q, c] > wanted[p, c]
                if before < left[c]:  # above all, no part may stay empty
                    need += wanted.shape[1] if c == wanted.shape[1] - 1 else 1
            cost += n * (n + 2 * (have[p, c] - wanted[p, c])) / wanted[p, c]
        if need > best_need or (need == best_need and cost < best_cost):
            best, best_need, best_cost = p, need, cost
    return best


@numba.njit(nogil=True, cache=True)
def _place(
    classes: NDArray[np.int64],
    counts: NDArray[np.int64],
    have: NDArray[np.float64],
    left: NDArray[np.int64],
    lacking: NDArray[np.int64],
) -> None:
    """Put a group into the part that has ``have [classes]``, or take it out where ``counts`` are negative."""
    for c, n in zip(classes, counts):  # noqa: B905
        lacking[c] -= have[c] == 0
        have[c] += n
        lacking[c] += have[c] == 0
        left[c] -= np.sign(n)
