"""Scores of class probabilities, and how sure one can be of them.

An *abstention* is a row of NaN: it counts as an error with confidence 0, and stays visible.  Macro averages
run over all classes of the task, also over one that the test part lacks (its scores are 0), as scikit-learn's do with
``labels=range(classes), zero_division=0``; those over the classes that are there stand beside (`Scores.tested`).
Intervals resample groups, not sessions: sessions of one group (a capture, a 5-tuple) resemble each other, and to
resample them one by one would feign certainty.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ABSTAINED: Final = -1  # what `decide` answers for a row of NaN
MACRO: Final = ("accuracy", "macro_precision", "macro_recall", "macro_f1")  # in the order of every table
BINS: Final = 15  # of the calibration error: Guo et al., ICML 2017


@dataclass(frozen=True)
class Scores:
    """Scores of one part of a split; all but ``abstentions`` and the counts lie in [0, 1] (``brier``: [0, 2])."""

    classes: list[str]
    sessions: int
    accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    calibration_error: float  # expected, 15 bins of equal width
    brier: float  # squared distance to the one-hot truth, summed over classes, mean over sessions
    abstentions: int
    per_class: dict[str, dict[str, float]]  # precision, recall, f1, support
    confusion: list[list[int]]  # [classes][classes + 1]: rows truth, last column abstentions

    @property
    def tested(self) -> dict[str, float]:
        """Macro scores over the classes that the part holds alone, and how many these are of how many.

        A class that the part lacks scores 0 in `MACRO`, however good the method is.
        """
        rows = [row for row in self.per_class.values() if row["support"]]
        means = {name: sum(row[name] for row in rows) / max(len(rows), 1) for name in ("precision", "recall", "f1")}
        counts = {"classes": float(len(self.classes)), "classes_tested": float(len(rows))}
        return {**{f"macro_{name}_tested": value for name, value in means.items()}, **counts}

    def metrics(self) -> dict[str, float]:
        """The single numbers by name, as the store and JSON call them."""
        names = (*MACRO, "calibration_error", "brier", "abstentions")
        return {name: float(getattr(self, name)) for name in names} | self.tested

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return asdict(self)


def decide(probabilities: NDArray[np.floating[Any]]) -> Ints:
    """The most probable class of each row of ``[samples, classes]`` (the first of equals): int64 ``[samples]``.

    A row that holds NaN is `ABSTAINED`.

    >>> decide(np.array([[0.2, 0.8], [0.5, 0.5], [np.nan, 1.0]])).tolist()
    [1, 0, -1]
    """
    abstained = np.isnan(probabilities).any(axis=1)
    predictions = np.where(abstained[:, None], 0, probabilities).argmax(axis=1).astype(np.int64)
    predictions[abstained] = ABSTAINED
    result: Ints = predictions
    return result


def evaluate(truth: Ints, probabilities: NDArray[np.float32], classes: Sequence[str]) -> Scores:
    """Score probabilities, float32 ``[sessions, classes]``, against ``truth``, int64 ``[sessions]``.

    Raises ValueError for arrays that do not fit (a method's mistake, not a user's).

    >>> scores = evaluate(np.array([0, 1, 1]), np.eye(2, dtype=np.float32)[[0, 1, 0]], ["chat", "mail"])
    >>> scores.accuracy, scores.per_class["mail"]["recall"]
    (0.6666666666666666, 0.5)
    """
    if probabilities.shape != (len(truth), len(classes)):
        raise ValueError(f"probabilities are {probabilities.shape}, expected {(len(truth), len(classes))}")
    if not len(truth):
        raise ValueError("nothing to score: no sessions")
    predictions = decide(probabilities)
    table = confusion(truth, predictions, len(classes))
    hits, predicted, support = counts(truth, predictions, len(classes))
    precision, recall, f1 = _precision_recall_f1(hits, predicted, support)
    columns = {"precision": precision, "recall": recall, "f1": f1, "support": support}
    return Scores(
        classes=list(classes),
        sessions=len(truth),
        accuracy=float(hits.sum() / len(truth)),
        macro_precision=float(precision.mean()),
        macro_recall=float(recall.mean()),
        macro_f1=float(f1.mean()),
        calibration_error=_calibration_error(truth, predictions, probabilities),
        brier=_brier(truth, probabilities),
        abstentions=int((predictions == ABSTAINED).sum()),
        per_class={name: {key: float(v[row]) for key, v in columns.items()} for row, name in enumerate(classes)},
        confusion=table.tolist(),
    )


def is_fitted(accuracy: float, labels: Ints) -> bool:
    """Whether an accuracy on training samples closes half the gap between the most frequent class and 1 (our choice).

    ``labels``, int ``[samples]``, are those of the training part.  A score of a method that has not learned what it was
    shown says nothing of the method.

    >>> is_fitted(0.7, np.array([0, 0, 1, 2])), is_fitted(0.8, np.array([0, 0, 1, 2]))
    (False, True)
    """
    chance = np.bincount(labels).max() / len(labels)
    return bool(accuracy - chance >= (1 - chance) / 2)


def confusion(truth: Ints, predictions: Ints, classes: int) -> Ints:
    """Counts int64 ``[classes, classes + 1]``: rows truth, columns prediction, the last one abstentions."""
    columns = np.where(predictions == ABSTAINED, classes, predictions)
    flat = np.bincount(truth * (classes + 1) + columns, minlength=classes * (classes + 1))
    return flat.astype(np.int64).reshape(classes, classes + 1)


def counts(truth: Ints, predictions: Ints, classes: int) -> tuple[Ints, Ints, Ints]:
    """Hits, predictions and support of each class, int64 ``[classes]``: all that the scores need."""
    table = confusion(truth, predictions, classes)
    return table.diagonal(), table[:, :classes].sum(axis=0), table.sum(axis=1)


def macro_f1(truth: Ints, predictions: Ints, classes: int) -> float:
    """Mean F1 over all classes of the task, of answers ``[samples]``; an abstention is wrong.

    >>> macro_f1(np.array([0, 0, 1, 2]), np.array([0, 1, 1, ABSTAINED]), 3)
    0.4444444444444444
    """
    return float(_precision_recall_f1(*counts(truth, predictions, classes))[2].mean())


def interval(
    truth: Ints,
    predictions: Ints,
    groups: Ints,
    *,
    classes: int,
    metric: str = "macro_f1",
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a metric of `MACRO`, by resampling groups with replacement.

    ``predictions`` come from `decide`; ``groups``, int64 ``[sessions]``, are any labels.
    """
    drawn = bootstrap(truth, [predictions], groups, classes=classes, metric=metric, draws=draws, seed=seed)
    return percentiles(drawn[:, 0])


def bootstrap(
    truth: Ints,
    predictions: Sequence[Ints],
    groups: Ints,
    *,
    classes: int,
    metric: str = "macro_f1",
    draws: int = 1000,
    seed: int = 0,
) -> Floats:
    """A metric of `MACRO` under resampled groups, float64 ``[draws, methods]``: the same groups for all in a draw."""
    totals = _resample(_by_group(truth, predictions, groups, classes), draws, seed)
    return _metric(metric, totals, np.bincount(truth, minlength=classes) > 0)


def difference(
    truth: Ints,
    predictions: tuple[Ints, Ints],
    groups: Ints,
    *,
    classes: int,
    metric: str = "macro_f1",
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Metric of the first predictions ``[samples]`` less that of the second, with its paired 95 % bootstrap interval.

    Every draw takes the same groups for both.  An interval without 0 is a difference that the choice of
    groups does not explain.
    """
    table = _by_group(truth, list(predictions), groups, classes)
    present = np.bincount(truth, minlength=classes) > 0
    observed = _metric(metric, table.sum(axis=0)[None], present)[0]
    drawn = _metric(metric, _resample(table, draws, seed), present)
    return float(observed[0] - observed[1]), *percentiles(drawn[:, 0] - drawn[:, 1])


def intervals(truth: Ints, predictions: Ints, groups: Ints, *, classes: int, seed: int = 0) -> Mapping[str, Any]:
    """`interval` of every metric of `MACRO`, by its name; arrays are ``[samples]``."""
    totals = _resample(_by_group(truth, [predictions], groups, classes), 1000, seed)
    present = np.bincount(truth, minlength=classes) > 0
    return {name: percentiles(_metric(name, totals[:, 0], present)) for name in MACRO}


def _precision_recall_f1(hits: Ints, predicted: Ints, support: Ints) -> tuple[Floats, Floats, Floats]:
    """Of integer arrays of any equal shape; 0 where nothing could be right."""
    return (
        hits / np.maximum(predicted, 1),
        hits / np.maximum(support, 1),
        2 * hits / np.maximum(predicted + support, 1),
    )


def _by_group(truth: Ints, predictions: Sequence[Ints], groups: Ints, classes: int) -> Ints:
    """`counts` of every group, int64 ``[groups, methods, 3, classes]``."""
    kinds, group = np.unique(groups, return_inverse=True)
    tables = []
    for predicted in predictions:
        right, answered = predicted == truth, predicted != ABSTAINED
        for rows, column in ((right, truth), (answered, predicted), (slice(None), truth)):
            flat = np.bincount(group[rows] * classes + column[rows], minlength=len(kinds) * classes)
            tables.append(flat.reshape(len(kinds), classes))
    return np.stack(tables, axis=1).reshape(len(kinds), len(predictions), 3, classes)


def _resample(table: Ints, draws: int, seed: int) -> Ints:
    """Sums of as many groups as there are, drawn with replacement: int64 ``[draws, methods, 3, classes]``.

    Groups of equal counts are interchangeable, so it is enough to draw how often each kind of group comes;
    with a group for every session the kinds are few.
    """
    flat, times = np.unique(table.reshape(len(table), -1), axis=0, return_counts=True)
    weights = np.random.default_rng(seed).multinomial(len(table), times / len(table), size=draws)
    return (weights @ flat).reshape(draws, *table.shape[1:])


def _metric(name: str, totals: Ints, present: NDArray[np.bool_]) -> Floats:
    """A metric of totals ``[draws, …, 3, classes]``: float64 ``[draws, …]``.

    A class that the sample holds and a draw does not says nothing about the classifier: it is left out of
    that draw's mean.  A class that the sample lacks scores 0, as in `evaluate`.
    """
    hits, predicted, support = (totals[..., row, :] for row in range(3))
    if name == "accuracy":
        return np.asarray(hits.sum(axis=-1) / support.sum(axis=-1), np.float64)
    values = _precision_recall_f1(hits, predicted, support)[MACRO.index(name) - 1]
    drawn = support > 0
    return np.asarray((values * drawn).sum(axis=-1) / drawn.sum(axis=-1) * present.mean(), np.float64)


def percentiles(drawn: Floats) -> tuple[float, float]:
    """The middle 95 % of ``drawn``, ``[draws]``."""
    low, high = np.percentile(drawn, (2.5, 97.5))
    return float(low), float(high)


def _calibration_error(truth: Ints, predictions: Ints, probabilities: NDArray[np.float32]) -> float:
    """Mean over sessions of |accuracy - confidence| of the session's bin."""
    confidence = np.where(predictions == ABSTAINED, 0, np.nan_to_num(probabilities).max(axis=1)).astype(np.float64)
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    right = np.bincount(bins, weights=predictions == truth, minlength=BINS)
    sure = np.bincount(bins, weights=confidence, minlength=BINS)
    return float(np.abs(right - sure).sum() / len(truth))


def _brier(truth: Ints, probabilities: NDArray[np.float32]) -> float:
    """An abstention, all zeros, scores 1."""
    rows = np.where(np.isnan(probabilities).any(axis=1, keepdims=True), 0, probabilities).astype(np.float64)
    rows[np.arange(len(truth)), truth] -= 1
    return float((rows**2).sum(axis=1).mean())
