"""How even, and how fast, whole groups are shared out: `assign_evenly` against scikit-learn's StratifiedGroupKFold.

    python benchmarks/evenness.py [--dataset demo ...] [--task NAME] [--split session] [--folds 5] [--seeds 5]

Both divide the sessions of a data set into folds of whole groups, in turns, seed by seed.  Evenness is the chi-square
distance of the folds' class counts to equal ones (0 is perfectly even), the mean over seeds; speed a ratio of the
processor's seconds.  scikit-learn's makes equal folds alone; `assign_evenly` takes any shares, such as 70/10/20.
"""

import argparse
import time

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from bench.data.prepare import open_dataset
from bench.schema import NO_CLASS
from bench.splits.assignment import assign_evenly


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", nargs="+", default=["demo"])
    parser.add_argument("--task", help="each data set's default one")
    parser.add_argument("--split", choices=["session", "capture"], default="capture")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    for name in options.dataset:
        store = open_dataset(name)
        labels = np.asarray(store.labels(options.task or store.default_task))
        rows = np.flatnonzero(labels != NO_CLASS)
        groups = np.asarray(store.capture_group() if options.split == "capture" else store.session("conversation"))
        report(name, groups[rows], labels[rows].astype(np.int64), options.folds, options.seeds)


def report(name: str, groups: NDArray[np.int64], labels: NDArray[np.int64], folds: int, seeds: int) -> None:
    """Divide in turns and print one line."""
    assign_evenly(groups, labels, (1 / folds,) * folds, 0)  # compiled
    unevenness, seconds = np.zeros((2, seeds)), np.zeros((2, seeds))
    for seed in range(seeds):
        for way, divide in enumerate((ours, theirs)):
            started = time.process_time()
            part = divide(groups, labels, folds, seed)
            seconds[way, seed] = time.process_time() - started
            unevenness[way, seed] = chi_square(part, labels, folds)
    even, fast = unevenness.mean(axis=1), seconds.sum(axis=1)
    print(
        f"{name}: {len(labels)} sessions, {len(np.unique(groups))} groups, {folds} folds: chi-square {even[0]:.1f} "
        f"(scikit-learn {even[1]:.1f}); {fast[1] / fast[0]:.0f} times as fast"
    )


def ours(groups: NDArray[np.int64], labels: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each session."""
    return assign_evenly(groups, labels, (1 / folds,) * folds, seed)


def theirs(groups: NDArray[np.int64], labels: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """The same by scikit-learn."""
    part = np.empty(len(labels), np.int64)
    divider = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, tested) in enumerate(divider.split(labels, labels, groups)):
        part[tested] = fold
    return part


def chi_square(part: NDArray[np.int64], labels: NDArray[np.int64], folds: int) -> float:
    """The distance of the folds' class counts to equal ones."""
    counts = np.zeros((folds, labels.max() + 1))
    np.add.at(counts, (part, labels), 1)
    wanted = np.bincount(labels) / folds
    return float(((counts - wanted) ** 2 / np.maximum(wanted, 1e-9)).sum())


if __name__ == "__main__":
    main()
