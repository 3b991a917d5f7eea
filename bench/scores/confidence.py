"""How sure answers are: likelihood, temperature, and whether confidence tells what is known from what is not."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.scores.metrics import Floats, Ints

FLOOR: Final = 1e-7  # least probability that is taken: a forest answers 0, whose logarithm says nothing (our choice)
TEMPERATURES: Final = (0.01, 100.0)  # between which one is looked for (our choice)
SHARE: Final = 0.95  # of known samples that are taken for known, where the others are counted

Probabilities = NDArray[np.floating[Any]]


def log_loss(truth: Ints, probabilities: Probabilities) -> float:
    """Mean negative log likelihood, nats, of ``truth [samples]`` under ``[samples, classes]``; NaN without answers.

    Abstentions, rows of NaN, are left out; a probability below `FLOOR` counts as `FLOOR`.

    >>> round(log_loss(np.array([0, 1]), np.array([[0.5, 0.5], [0.5, 0.5]])), 4)
    0.6931
    """
    answered = ~np.isnan(probabilities).any(axis=1)
    if not answered.any():
        return float("nan")
    return float(-_logarithms(probabilities[answered])[np.arange(answered.sum()), truth[answered]].mean())


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


def confidences(probabilities: Probabilities) -> Floats:
    """The greatest probability of each row of ``[samples, classes]``, 0 of an abstention: float64 ``[samples]``.

    >>> confidences(np.array([[0.5, 0.25, 0.25], [np.nan, 0.5, 0.5]])).tolist()
    [0.5, 0.0]
    """
    abstained = np.isnan(probabilities).any(axis=1, keepdims=True)
    return np.asarray(np.where(abstained, 0.0, probabilities).max(axis=1), np.float64)


def separation(known: tuple[Floats, Ints], unknown: tuple[Floats, Ints]) -> Separation:
    """Confidences ``[samples]`` and groups ``[samples]`` of both sides (Hendrycks and Gimpel, ICLR 2017).

    The interval is of the area for other groups of both sides (Obuchowski, Biometrics 53, 1997), with Student's t of
    the smaller number of groups.  Raises ValueError where one side is empty.

    >>> both = separation((np.array([0.9, 0.8]), np.array([0, 1])), (np.array([0.8, 0.1]), np.array([2, 3])))
    >>> both.auroc, both.fpr
    (0.875, 0.5)
    """
    (sure, _), (unsure, _) = known, unknown
    if not (len(sure) and len(unsure)):
        raise ValueError("both sides need a sample")
    above, below = _placed(sure, unsure), 1 - _placed(unsure, sure)
    area = float(above.mean())
    variance, least = _variance((above, known[1]), (below, unknown[1]))
    low, high = 0.0, 1.0
    if least > 1:
        from scipy.stats import t

        half = float(t.ppf(0.975, least - 1)) * np.sqrt(variance)
        low, high = max(area - half, 0.0), min(area + half, 1.0)
    threshold = np.sort(sure)[::-1][int(np.ceil(SHARE * len(sure))) - 1]
    return Separation(area, float(low), float(high), float((unsure >= threshold).mean()))


def _placed(values: Floats, others: Floats) -> Floats:
    """The share of ``others`` that each value is above, equals counted half: float64 ``[values]``."""
    ordered = np.sort(others)
    both = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return np.asarray(both / (2 * len(others)), np.float64)


def _variance(*sides: tuple[Floats, Ints]) -> tuple[float, int]:
    """Of the mean of the sides' placements, by groups that both sides may have; and the fewest groups of a side."""
    number = int(max(groups.max() for _, groups in sides)) + 1
    parts, fewest = np.zeros(number), number
    for values, groups in sides:
        kinds = len(np.unique(groups))
        centred = (values - values.mean()) / len(values) * np.sqrt(kinds / max(kinds - 1, 1))
        parts += np.bincount(groups, centred, minlength=number)
        fewest = min(fewest, kinds)
    return float((parts**2).sum()), fewest
