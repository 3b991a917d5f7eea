"""Scores of class probabilities; `jackknife` tells how sure one can be of them.

An *abstention* is a row of NaN: it counts as an error with confidence 0, and stays visible.  Macro averages
run over all classes of the task, also over one that the test part lacks (its scores are 0), as scikit-learn's do with
``labels=range(classes), zero_division=0``; those over the classes that are there stand beside (`Scores.tested`).
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Counts = Ints | Floats

ABSTAINED: Final = -1  # what `decide` answers for a row of NaN
MACRO: Final = ("accuracy", "macro_precision", "macro_recall", "macro_f1")  # in the order of every table
CLOSE: Final = 1e-3  # of a row's sum to 1
LONGEST: Final = 200  # signs of a class in the name of its number; MLflow takes 250 in all
BINS: Final = 15  # of the calibration error: Guo et al., ICML 2017


def plain_name(name: str) -> str:
    """The name of a number in signs that MLflow takes."""
    return re.sub(r"[^\w\-. :/]", "_", name)


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
    def f1_by_class(self) -> dict[str, float]:
        """F1 of each class by names of its own, in signs and of a length that MLflow takes."""
        plain = {name: plain_name(name)[:LONGEST] for name in self.per_class}
        shared = Counter(plain.values())
        for name, short in plain.items():
            if shared[short] > 1 or len(name) > LONGEST:
                plain[name] = f"{short}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
        return {f"f1/{plain[name]}": row["f1"] for name, row in self.per_class.items()}

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


def are_probabilities(answers: NDArray[np.floating[Any]]) -> bool:
    """Whether each row of ``[samples, classes]`` that does not abstain (NaN) is not negative and sums to 1.

    >>> are_probabilities(np.array([[0.5, 0.5], [np.nan, 1.0]])), are_probabilities(np.array([[1.5, -0.5]]))
    (True, False)
    """
    answered = answers[~np.isnan(answers).any(axis=1)]
    return not (answered < 0).any() and np.allclose(answered.sum(axis=1), 1, atol=CLOSE)


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
    precision, recall, f1 = precision_recall_f1(hits, predicted, support)
    columns = {"precision": precision, "recall": recall, "f1": f1, "support": support}
    return Scores(
        classes=list(classes),
        sessions=len(truth),
        accuracy=float(hits.sum() / len(truth)),
        macro_precision=float(precision.mean()),
        macro_recall=float(recall.mean()),
        macro_f1=float(f1.mean()),
        calibration_error=reliability(truth, probabilities).error,
        brier=_brier(truth, probabilities),
        abstentions=int((predictions == ABSTAINED).sum()),
        per_class={name: {key: float(v[row]) for key, v in columns.items()} for row, name in enumerate(classes)},
        confusion=table.tolist(),
    )


@dataclass(frozen=True)
class Reliability:
    """How often answers are right, by how sure they are, in `BINS` bins of equal width; all ``[bins]``.

    An abstention is a wrong answer of confidence 0.
    """

    count: Ints  # int64: answers
    sure: Floats  # float64: sum of their confidences
    right: Floats  # float64: how many are right

    @property
    def error(self) -> float:
        """Mean over answers of the distance between how sure their bin is and how often it is right."""
        return float(np.abs(self.right - self.sure).sum() / self.count.sum())


def reliability(truth: Ints, probabilities: NDArray[np.float32]) -> Reliability:
    """Bin answers, float32 ``[samples, classes]``, to ``truth``, int64 ``[samples]``.

    >>> found = reliability(np.array([0, 0]), np.array([[0.75, 0.25], [0.25, 0.75]], np.float32))
    >>> found.count[11].item(), found.sure[11].item(), found.right[11].item(), found.error
    (2, 1.5, 1.0, 0.25)
    """
    bins, confidence, correct = binned(truth, probabilities)
    count = np.bincount(bins, minlength=BINS).astype(np.int64)
    right = np.bincount(bins, weights=correct, minlength=BINS).astype(np.float64)
    return Reliability(count, np.bincount(bins, weights=confidence, minlength=BINS).astype(np.float64), right)


def binned(truth: Ints, probabilities: NDArray[np.float32]) -> tuple[Ints, Floats, NDArray[np.bool_]]:
    """Each answer's bin as in `reliability`, int64, its confidence, float64, and whether it is right: ``[samples]``."""
    predictions = decide(probabilities)
    confidence = np.where(predictions == ABSTAINED, 0, np.nan_to_num(probabilities).max(axis=1)).astype(np.float64)
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return bins, confidence, predictions == truth


def is_fitted(accuracy: float, majority: float) -> bool:
    """Whether an accuracy on training samples closes a third of the gap between the most frequent class and 1.

    ``majority`` is that class's share of the training samples; a third is our choice.  A score of a method that has not
    learned what it was shown says little of the method.

    >>> is_fitted(0.6, 0.5), is_fitted(0.7, 0.5)
    (False, True)
    """
    return accuracy - majority >= (1 - majority) / 3


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
    return float(precision_recall_f1(*counts(truth, predictions, classes))[2].mean())


def precision_recall_f1(hits: Counts, predicted: Counts, support: Counts) -> tuple[Floats, Floats, Floats]:
    """Of counts ``[…, classes]``, whole or weighted by 1 or more: float64 of that shape.

    0 where nothing could be right.
    """
    return (
        hits / np.maximum(predicted, 1),
        hits / np.maximum(support, 1),
        2 * hits / np.maximum(predicted + support, 1),
    )


def _brier(truth: Ints, probabilities: NDArray[np.float32]) -> float:
    """An abstention, all zeros, scores 1."""
    rows = np.where(np.isnan(probabilities).any(axis=1, keepdims=True), 0, probabilities).astype(np.float64)
    rows[np.arange(len(truth)), truth] -= 1
    return float((rows**2).sum(axis=1).mean())
