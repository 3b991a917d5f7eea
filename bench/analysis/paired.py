"""Runs in pairs: on the same seeds and folds, proved to be of the same test samples, and what tests say of them.

The one place where runs are put beside each other; `comparison`, `ranking` and the papers' tables stand on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.analysis.tables import numbered
from bench.errors import InputError
from bench.scores.significance import FEWEST, LEVEL, cohens_dz, corrected_t, dominance, holm
from bench.spec import FIVE_TUPLES, SplitSpec
from bench.tracking.record import Record
from bench.tracking.results import Predictions

AND: Final = " and "  # between group labels

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def paired_runs(a: Sequence[Record], b: Sequence[Record]) -> list[tuple[Record, Record]]:
    """The runs of both for each seed and fold; two single runs are a pair whatever theirs are.

    Raises :class:`InputError` where one side has a seed or fold that the other lacks.
    """
    if len(a) == len(b) == 1:
        return [(a[0], b[0])]
    first, second = numbered(a), numbered(b)
    if first.keys() != second.keys() or not a:
        odd = sorted(first.keys() ^ second.keys(), key=str)
        shown = ", ".join(f"seed {seed}" + ("" if fold is None else f" fold {fold}") for seed, fold in odd)
        raise InputError(
            "different-tests",
            f"compare: only one side has {shown or 'runs'}; run both with the same --seeds and --folds",
        )
    return [(first[place], second[place]) for place in sorted(first, key=str)]


def same_tests(one: tuple[Record, Predictions], other: tuple[Record, Predictions]) -> None:
    """Raises :class:`InputError` where two runs were tested on different samples."""
    (a, first), (b, second) = one, other
    same = a.spec.store == b.spec.store and first.classes == second.classes
    arrays = ("session", "first", "truth")
    if not (same and all(np.array_equal(getattr(first, name), getattr(second, name)) for name in arrays)):
        raise InputError(
            "different-tests",
            f"compare: {a.run_id[:8]} and {b.run_id[:8]} were tested on different sessions; run both with "
            "the same --dataset, --task, --split, --seed, --folds and --max-per-class",
        )


def pooled_parts(parts: Sequence[Predictions]) -> Predictions:
    """Test parts one after the other; group numbers mean the same in all, they are of the store."""
    arrays = ("session", "first", "truth", "groups", "probabilities")
    return Predictions(parts[0].classes, *(np.concatenate([getattr(part, name) for part in parts]) for name in arrays))


def count_tested(pooled: Predictions) -> tuple[Ints, int]:
    """How many distinct samples of each class were tested, int64 ``[classes]``, and how often the most frequent one."""
    keys = np.stack((pooled.session, pooled.first))
    _, first, times = np.unique(keys, axis=1, return_index=True, return_counts=True)
    return np.bincount(pooled.truth[first], minlength=len(pooled.classes)).astype(np.int64), int(times.max())


def mean_ratio(records: Sequence[Record]) -> float:
    """The mean of :func:`test_train_ratio` over runs, which may be folds of unequal sizes."""
    return float(np.mean([test_train_ratio(record) for record in records]))


def test_train_ratio(record: Record) -> float:
    """Test samples over distinct training samples of a run, as `Tracker.load` gives it.

    What re-sampling repeats says nothing new.  Under a leaky split all parts repeat alike, so counts are taken as
    they are.
    """
    split = record.result().split
    return split.samples["test"] / (split.samples["train"] if record.leaky else split.distinct_training_samples)


def group_label_of(record: Record) -> str:
    """What `Predictions.groups` of a run, as `Tracker.load` gives it, number: a split file keeps the scheme it had."""
    if record.spec.split.scheme != "file":
        return record.spec.split.group_label
    return SplitSpec(record.result().split.fields["scheme"]).group_label


def interval_note(group_label: str, smallest: int) -> str:
    """What intervals over such groups stand for, and how many the smallest tested class has.

    ``group_label`` is of a split, or of several joined by `AND`.
    """
    words = f"jackknife over {group_label}, those of the split, at least {smallest} of each tested class"
    if FIVE_TUPLES not in group_label.split(AND):  # captures that share 5-tuples are captures
        return words
    which = "it" if group_label == FIVE_TUPLES else f"over {FIVE_TUPLES} it"
    return f"{words}; {which} does not cover the choice of captures and is narrower than one that does"


@dataclass(frozen=True)
class PairedTests:
    """What tests say of paired differences: float64 ``[pairs]`` each, NaN where there is nothing to test by."""

    p_single: Floats  # corrected resampled t-test
    p: Floats  # the same, by Holm for all pairs
    dz: Floats
    dominance: Floats


def paired_tests(differences: Floats, ratios: Floats, strata: Ints) -> PairedTests:
    """Test differences ``[blocks, pairs]`` of blocks in data sets ``strata [blocks]`` with test/train ``ratios``."""
    single = corrected_t(differences, ratios, strata)
    return PairedTests(single, holm(single), cohens_dz(differences, strata), dominance(differences, strata))


def paired_p(one: Sequence[Record], other: Sequence[Record], metric: str) -> float:
    """p-value of the difference of two methods over seeds and folds; NaN for fewer than `FEWEST`, or without spread."""
    if len(one) < FEWEST:
        return float("nan")
    pairs = paired_runs(one, other)
    differences = np.array([[a.metrics[metric] - b.metrics[metric]] for a, b in pairs])
    return float(corrected_t(differences, np.array([mean_ratio(one)]))[0])


def is_separable(ends: Mapping[str, float], p: float) -> bool:
    """Whether both the interval ``low`` to ``high`` and the test say that two methods differ."""
    return (ends["low"] > 0 or ends["high"] < 0) and p < LEVEL
