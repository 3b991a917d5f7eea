"""How sure answers are: likelihood, temperature, and whether confidence tells what is known from what is not."""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.scores.metrics import BINS, Floats, Ints, binned
from bench.scores.significance import student

FLOOR: Final = 1e-7  # least probability that is taken: a forest answers 0, whose logarithm says nothing (our choice)
TEMPERATURES: Final = (0.01, 100.0)  # between which one is looked for (our choice)
SHARE: Final = 0.95  # of known samples that are taken for known, where the others are counted
HIGHEST: Final = {"log_loss": -float(np.log(FLOOR)), "calibration_error": 1.0}  # that each can be; the lowest is 0

Probabilities = NDArray[np.floating[Any]]


def log_loss(truth: Ints, probabilities: Probabilities) -> float:
    """Mean negative log likelihood, nats, of ``truth [samples]`` under ``[samples, classes]``; NaN without answers.

    Abstentions, rows of NaN, are left out; a probability below `FLOOR` counts as `FLOOR`.

    >>> round(log_loss(np.array([0, 1]), np.array([[0.5, 0.5], [0.5, 0.5]])), 4)
    0.6931
    """
    losses = _losses(truth, probabilities)
    return float(losses[~np.isnan(losses)].mean()) if not np.isnan(losses).all() else float("nan")


def _losses(truth: Ints, probabilities: Probabilities) -> Floats:
    """Of each sample, NaN of an abstention: float64 ``[samples]``."""
    losses = -_logarithms(probabilities)[np.arange(len(truth)), truth]
    return np.asarray(np.where(np.isnan(probabilities).any(axis=1), np.nan, losses), np.float64)


def without_each(truth: Ints, probabilities: Probabilities, groups: Ints) -> dict[str, Floats]:
    """`log_loss` and the calibration error, both float64 ``[1 + groups]``: of all samples, then without each group.

    ``groups`` int64 ``[samples]`` are any labels; what nothing is left for is NaN.
    """
    kinds, group = np.unique(groups, return_inverse=True)
    losses = _losses(truth, probabilities)
    answered = ~np.isnan(losses)
    bins, confidence, right = binned(truth, np.asarray(probabilities, np.float32))
    gaps = np.bincount(group * BINS + bins, right - confidence, len(kinds) * BINS).reshape(-1, BINS)
    with np.errstate(invalid="ignore"):
        return {
            "log_loss": _left(np.bincount(group, np.where(answered, losses, 0))) / _left(np.bincount(group, answered)),
            "calibration_error": np.abs(_left(gaps)).sum(axis=1) / _left(np.bincount(group)),
        }


def _left(parts: NDArray[Any]) -> Floats:
    """The sum over groups of ``[groups, …]``, then the same without each of them: ``[1 + groups, …]``."""
    total = parts.sum(axis=0)
    return np.concatenate((total[None], total - parts), dtype=np.float64)


def over_groups(values: Floats, lowest: float, highest: float) -> tuple[float, float, float]:
    """A value and its 95 % interval for other groups: a jackknife with Student's t over ``[1 + groups]``.

    ``values`` are that of all samples, then those without each group.  The interval goes from ``lowest`` to
    ``highest`` where there is a single group, and stays between them.

    >>> over_groups(np.array([0.5, 0.25, 0.75]), 0.0, 1.0)
    (0.5, 0.0, 1.0)
    """
    value, others = float(values[0]), values[1:]
    if len(others) < 2 or np.isnan(others).any():
        return value, lowest, highest
    half = student(len(others) - 1) * float(np.sqrt((_deviations(others) ** 2).sum()))
    return value, max(value - half, lowest), min(value + half, highest)


def _deviations(others: Floats) -> Floats:
    """What values without each group ``[groups]`` say of their part in the whole; the sum of squares is a variance."""
    return np.asarray((others - others.mean()) * np.sqrt((len(others) - 1) / len(others)), np.float64)


def tempered(probabilities: Probabilities, temperature: float) -> NDArray[np.float32]:
    """Probabilities ``[samples, classes]`` whose logarithms are divided by a temperature: float32, rows sum to 1.

    Above 1 answers become less sure; which class is the most probable stays.  Guo et al., ICML 2017.

    >>> tempered(np.array([[0.8, 0.2]]), 2.0).round(3).tolist()
    [[0.6669999957084656, 0.3330000042915344]]
    """
    scaled = _logarithms(probabilities) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def fit_temperature(truth: Ints, probabilities: Probabilities) -> float:
    """The temperature within `TEMPERATURES` under which ``truth [samples]`` is the most likely.

    Abstentions are left out.  Raises ValueError where there is no answer.
    """
    from scipy.optimize import minimize_scalar

    answered = ~np.isnan(probabilities).any(axis=1)
    if not answered.any():
        raise ValueError("no temperature without an answer")
    logs, right = _logarithms(probabilities[answered]), truth[answered]

    def loss(log_temperature: float) -> float:
        scaled = logs / np.exp(log_temperature)
        most = scaled.max(axis=1)
        total = most + np.log(np.exp(scaled - most[:, None]).sum(axis=1))
        return float((total - scaled[np.arange(len(right)), right]).mean())

    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def _logarithms(probabilities: Probabilities) -> Floats:
    return np.log(np.maximum(probabilities.astype(np.float64), FLOOR))


@dataclass(frozen=True)
class Separation:
    """Whether confidence tells samples of known classes from those of an unknown one."""

    auroc: float
    low: float  # 95 % interval; 0 and 1 where one side has a single group, of which nothing is known
    high: float
    fpr: float  # of unknown samples, the share that is at least as sure as the least sure of 95 % of the known ones
    fpr_low: float
    fpr_high: float


def confidences(probabilities: Probabilities) -> Floats:
    """The greatest probability of each row of ``[samples, classes]``, 0 of an abstention: float64 ``[samples]``.

    >>> confidences(np.array([[0.5, 0.25, 0.25], [np.nan, 0.5, 0.5]])).tolist()
    [0.5, 0.0]
    """
    abstained = np.isnan(probabilities).any(axis=1, keepdims=True)
    return np.asarray(np.where(abstained, 0.0, probabilities).max(axis=1), np.float64)


def separation(known: tuple[Floats, Ints], unknown: tuple[Floats, Ints]) -> Separation:
    """Confidences ``[samples]`` and groups ``[samples]`` of both sides (Hendrycks and Gimpel, ICLR 2017).

    The intervals are for other groups of both sides, with Student's t of the smaller number of groups: that of the
    area as Obuchowski has it (Biometrics 53, 1997), that of the false-positive rate as Woodruff has it of what follows
    from a quantile, here the threshold.  Raises ValueError where one side is empty.

    >>> both = separation((np.array([0.9, 0.8]), np.array([0, 1])), (np.array([0.8, 0.1]), np.array([2, 3])))
    >>> both.auroc, both.fpr
    (0.875, 0.5)
    """
    (sure, _), (unsure, _) = known, unknown
    if not (len(sure) and len(unsure)):
        raise ValueError("both sides need a sample")
    above, below = _placed(sure, unsure), 1 - _placed(unsure, sure)
    area, taken = float(above.mean()), _share_taken(sure, unsure)
    least = min(len(np.unique(groups)) for _, groups in (known, unknown))
    if least < 2:
        return Separation(area, 0.0, 1.0, taken, 0.0, 1.0)
    half = student(least - 1) * math.sqrt(_variance((above, known[1]), (below, unknown[1])))
    low, high = max(area - half, 0.0), min(area + half, 1.0)
    return Separation(area, low, high, taken, *_taken_interval(known, unknown, student(least - 1)))


def _threshold(sure: Floats, share: float) -> float:
    """The least sure of that share of the known."""
    place = max(0, len(sure) - max(1, int(np.ceil(share * len(sure)))))
    return float(np.partition(sure, place)[place])


def _share_taken(sure: Floats, unsure: Floats, share: float = SHARE) -> float:
    """Of the unknown, those that are at least as sure as the least sure of ``share`` of the known."""
    return float((unsure >= _threshold(sure, share)).mean())


def _taken_interval(known: tuple[Floats, Ints], unknown: tuple[Floats, Ints], t: float) -> tuple[float, float]:
    """The ends of `_share_taken`, by groups that both sides may have.

    The threshold is a quantile, for which a jackknife is too narrow: its ends are those of the share of the known below
    it (Woodruff, Journal of the American Statistical Association 47, 1952).  They and the interval of the unknown side
    are put together as Zou and Donner do (Statistics in Medicine 27, 2008).
    """
    (sure, one), (unsure, other) = known, unknown
    threshold, taken = _threshold(sure, SHARE), _share_taken(sure, unsure)
    below, above = (sure < threshold).astype(np.float64), (unsure >= threshold).astype(np.float64)
    of_known, of_unknown = _variance((below, one)), _variance((above, other))
    both = math.sqrt(of_known * of_unknown)
    alike = (_variance((below, one), (above, other)) - of_known - of_unknown) / 2 / both if both else 0.0
    reach = t * math.sqrt(max(of_known, SHARE * (1 - SHARE) / len(sure)))
    more, less = (
        _share_taken(sure, unsure, min(SHARE + reach, 1.0)),
        _share_taken(sure, unsure, max(SHARE - reach, 0.0)),
    )
    wide = t * math.sqrt(of_unknown)
    down, up = (math.sqrt(max(x * x + wide * wide + 2 * alike * x * wide, 0.0)) for x in (taken - less, more - taken))
    return max(taken - down, 0.0), min(taken + up, 1.0)


def _placed(values: Floats, others: Floats) -> Floats:
    """The share of ``others`` that each value is above, equals counted half: float64 ``[values]``."""
    ordered = np.sort(others)
    both = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return np.asarray(both / (2 * len(others)), np.float64)


def _variance(*sides: tuple[Floats, Ints]) -> float:
    """Of the mean of the sides' placements, by groups that both sides may have."""
    number = int(max(groups.max() for _, groups in sides)) + 1
    parts = np.zeros(number)
    for values, groups in sides:
        kinds = len(np.unique(groups))
        centred = (values - values.mean()) / len(values) * np.sqrt(kinds / max(kinds - 1, 1))
        parts += np.bincount(groups, centred, minlength=number)
    return float((parts**2).sum())
