"""Intervals of scores and of differences of scores, by a jackknife over groups.

Sessions of one group (a capture, a 5-tuple) resemble each other, so the spread of a score is taken from what happens
when one group is left out of its class, not from sessions (the delete-one-group jackknife for strata: Rust and Rao,
Statistical Methods in Medical Research 5, 1996).  Classes are the strata: a test part has as many groups of each as the
split gave it.  Few groups make the spread itself unsure: the degrees of freedom of Student's t are those of
Satterthwaite under a working model (Bell and McCaffrey, Survey Methodology 28, 2002).  docs/statistics.md has a
simulation of what holds its level, and of what does not: the percentile bootstrap that earlier versions took.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.scores.metrics import ABSTAINED, MACRO, Counts, confusion, precision_recall_f1
from bench.scores.significance import LEVEL, student

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

FEWEST_GROUPS: Final = 3  # of every tested class, for an interval to be trusted (our choice, by the simulation)
ROUNDING: Final = 1e-18  # a variance below it is not told from 0
CELLS: Final = 2**20  # numbers that a step of the jackknife holds at once


@dataclass(frozen=True)
class GroupCounts:
    """How many groups stand behind a score."""

    total: int
    smallest: int  # of the tested class that has the fewest

    @property
    def few(self) -> bool:
        """Whether intervals over them are not to be trusted: a class's spread cannot be told from one or two groups."""
        return self.smallest < FEWEST_GROUPS


@dataclass(frozen=True)
class Estimate:
    """A score, or a difference of two, with what its interval is made of."""

    value: float
    variance: float
    freedom: float  # degrees of it; NaN where no class has two groups: then nothing is known of the variance
    sessions: float  # that a score of independent sessions would rest on: no score is surer than that
    groups: float  # the same of groups, for a score without any spread

    def score_interval(self) -> tuple[float, float]:
        """95 % interval of a score, within [0, 1]: Wilson's, for as many sessions as would have its variance.

        Wilson, Journal of the American Statistical Association 22, 1927, with Student's quantile and the effective
        number of sessions in place of the sessions (Korn and Graubard, Survey Methodology 24, 1998, do so for the
        exact interval).  A score of 0 or 1 has no spread to tell by: each group counts as one session.
        """
        if np.isnan(self.freedom):
            return 0.0, 1.0
        binomial = self.value * (1 - self.value)
        number = min(binomial / self.variance if self.variance > 0 else np.inf, self.sessions)
        return _wilson(self.value, self.groups if binomial < 1e-12 else number, student(self.freedom))

    def interval(self, methods: int = 2) -> tuple[float, float]:
        """95 % interval of a difference, within [-1, 1], simultaneous for all pairs of so many ``methods``.

        Student's t for two; for more, with the quantile of the studentised range in its place, so that all pairs hold
        at once whichever method came out best (Games and Howell, Journal of Educational Statistics 1, 1976).
        Where all groups differ, but alike, there is no spread to tell by: each counts as one session, as of a score
        (Wilson's interval of the difference's size; our choice).
        """
        if np.isnan(self.freedom):
            return -1.0, 1.0
        quantile = _studentised_range(methods, self.freedom)
        if not self.variance and self.value:
            low, high = _wilson(min(abs(self.value), 1.0), self.groups, quantile)
            return (low, high) if self.value > 0 else (-high, -low)
        half = quantile * np.sqrt(self.variance)
        return max(float(self.value - half), -1.0), min(float(self.value + half), 1.0)


def _wilson(value: float, number: float, quantile: float) -> tuple[float, float]:
    """Wilson's interval, within [0, 1], of a share ``value`` of so many sessions."""
    square = quantile**2 / number
    middle = (value + square / 2) / (1 + square)
    half = np.sqrt(square * (max(value * (1 - value), 0.0) + square / 4)) / (1 + square)
    return max(float(middle - half), 0.0), min(float(middle + half), 1.0)


def mean_estimate(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of ``estimates`` from data that are independent of each other, such as data sets."""
    number = len(estimates)
    variances = np.array([estimate.variance for estimate in estimates]) / number**2
    freedoms = np.array([estimate.freedom for estimate in estimates])
    total = variances.sum()
    freedom = total**2 / (variances**2 / freedoms).sum() if total else freedoms.min()
    return Estimate(
        value=float(np.mean([estimate.value for estimate in estimates])),
        variance=float(total),
        freedom=float(np.nan if np.isnan(freedoms).any() else freedom),
        sessions=number**2 / sum(1 / estimate.sessions for estimate in estimates),
        groups=number**2 / sum(1 / estimate.groups for estimate in estimates),
    )


def count_groups(truth: Ints, groups: Ints, classes: int) -> GroupCounts:
    """Groups of the tested classes; arrays are ``[samples]``.

    >>> count_groups(np.array([0, 0, 1, 1]), np.array([7, 8, 8, 8]), 3)
    GroupCounts(total=2, smallest=1)
    """
    kinds, group = np.unique(groups, return_inverse=True)
    each = np.bincount(np.unique(group * classes + truth) % classes)
    return GroupCounts(len(kinds), int(each[each > 0].min()))


def interval(
    truth: Ints, predictions: Ints, groups: Ints, *, classes: int, metric: str = "macro_f1"
) -> tuple[float, float]:
    """95 % interval of a metric of `MACRO` for other groups of the same classes.

    ``predictions`` come from `decide`; ``groups``, int64 ``[samples]``, are any labels.
    """
    return GroupJackknife(truth, [predictions], groups, classes=classes).score(0, metric).score_interval()


def intervals(truth: Ints, predictions: Ints, groups: Ints, *, classes: int) -> Mapping[str, tuple[float, float]]:
    """`interval` of every metric of `MACRO`, by its name; arrays are ``[samples]``."""
    jackknife = GroupJackknife(truth, [predictions], groups, classes=classes)
    return {name: jackknife.score(0, name).score_interval() for name in MACRO}


def difference(
    truth: Ints, predictions: tuple[Ints, Ints], groups: Ints, *, classes: int, metric: str = "macro_f1"
) -> tuple[float, float, float]:
    """Metric of the first predictions ``[samples]`` less that of the second, with its paired 95 % interval.

    The same groups are left out for both.  An interval without 0 is a difference that the choice of groups does not
    explain.
    """
    estimate = GroupJackknife(truth, predictions, groups, classes=classes).difference(0, 1, metric)
    return (estimate.value, *estimate.interval())


class GroupJackknife:
    """Several methods' answers to the same samples, with each group left out in turn.

    ``truth`` and ``groups``, int64 ``[samples]``; ``predictions``, one int64 ``[samples]`` of each method;
    ``different``, int64 ``[classes]``, how many samples there are, where some are tested several times.  Methods are
    named by their place, metrics as in `MACRO`; another one raises ValueError.
    """

    def __init__(
        self,
        truth: Ints,
        predictions: Sequence[Ints],
        groups: Ints,
        *,
        classes: int,
        different: Ints | None = None,
    ) -> None:
        self.truth, self.predictions = truth, predictions
        self.counts = count_groups(truth, groups, classes)
        self._design = _Design(truth, groups, classes)
        self._different = self._design.samples if different is None else different
        self._tables = [confusion(truth, predicted, classes) for predicted in predictions]
        self._known: dict[tuple[int, str], Floats] = {}

    def value(self, method: int, metric: str) -> float:
        """The metric of all samples."""
        return float(_score(metric, *_totals(self._tables[method])))

    def score(self, method: int, metric: str) -> Estimate:
        """The score of a method."""
        changes, influence = self._changes(method, metric), self._influence(method, metric)
        return self._estimate(self.value(method, metric), metric, changes, influence)

    def difference(self, one: int, other: int, metric: str) -> Estimate:
        """The score of one method less that of another."""
        changes = self._changes(one, metric) - self._changes(other, metric)
        influence = self._influence(one, metric) - self._influence(other, metric)
        return self._estimate(self.value(one, metric) - self.value(other, metric), metric, changes, influence)

    def varies(self, method: int, metric: str) -> bool:
        """Whether answers to a class of several groups differ in what they do to a score.

        Where none do, its degrees of freedom are those of classes that vary alike.
        """
        return self._design.varies(self._influence(method, metric))

    def _changes(self, method: int, metric: str) -> Floats:
        if (key := (method, metric)) not in self._known:
            self._known[key] = _changes(metric, self._design, self.predictions[method], self._tables[method])
        return self._known[key]

    def _influence(self, method: int, metric: str) -> Floats:
        """How much one more sample like each would move the score, but for a constant of its class: ``[samples]``."""
        hit, answered = _gradient(metric, self._tables[method])
        predicted = self.predictions[method]
        return np.asarray((predicted == self.truth) * hit[self.truth] - answered[predicted], np.float64)

    def _estimate(self, value: float, metric: str, changes: Floats, influence: Floats) -> Estimate:
        sessions, groups = (_independent(metric, counts) for counts in (self._different, self._design.groups))
        variance = float((changes**2).sum())
        variance = variance if variance > ROUNDING else 0.0
        return Estimate(value, variance, self._design.freedom(influence), sessions, groups)


class _Design:
    """Which groups hold how many samples of which classes: a row for each group and class that go together."""

    def __init__(self, truth: Ints, groups: Ints, classes: int) -> None:
        kinds, group = np.unique(groups, return_inverse=True)
        cells, self.row = np.unique(group * classes + truth, return_inverse=True)  # row: [samples]
        self.truth, self.number = truth, len(kinds)
        self.group, self.kind = cells // classes, cells % classes  # [rows]
        self.samples = np.bincount(truth, minlength=classes)  # [classes]
        self.groups = np.bincount(self.kind, minlength=classes)  # [classes]
        self.share = np.bincount(self.row) / self.samples[self.kind]  # [rows], of the class's samples
        self.several = self.groups[self.kind] > 1  # [rows]

    def by_class(self, values: Floats) -> Floats:
        """Sums of ``values [rows]``: float64 ``[classes]``."""
        return np.asarray(np.bincount(self.kind, values, minlength=len(self.samples)), np.float64)

    @cached_property
    def _model(self) -> tuple[Floats, Floats, Floats]:
        """Of the jackknife's contributions, if groups of a class were alike: ``[rows]``, ``[classes]`` and their Gram.

        A group whose own rate is x contributes w (x - sum of a x over the class), where a is its share of the class's
        samples and w = a / (1 - a) sqrt((G - 1) / G).  Returns w; the variance that all groups of a class have then;
        and the inner products over groups of the columns w and w a of all classes, ``[2 classes, 2 classes]``.
        """
        from scipy.sparse import csr_matrix  # 0.1 s to import

        number, share, classes = self.groups[self.kind], self.share, len(self.samples)
        weight = np.where(self.several, share / np.where(self.several, 1 - share, 1) * np.sqrt(1 - 1 / number), 0.0)
        variance = self.by_class(weight**2 * (1 - 2 * share + self.by_class(share**2)[self.kind]))
        places = np.tile(self.group, 2), np.concatenate((self.kind, self.kind + classes))
        both = np.concatenate((weight, weight * share))
        columns = csr_matrix((both, places), shape=(self.number, 2 * classes))
        return weight, variance, (columns.T @ columns).toarray()

    def freedom(self, influence: Floats) -> float:
        """Satterthwaite's degrees of freedom of the jackknife's variance, 1 or more; NaN without a class of two groups.

        Working model: the classes' shares of the variance are those of independent samples with this ``influence
        [samples]``, and groups of a class vary alike (our choice: the observed spread of few groups is too unsure to
        weigh by).  Twice the squared mean over the variance of a quadratic form: squared trace over the trace of the
        square of its matrix K = diag(spread) - sum over classes of k (w a w' + w w a' - S w w').
        """
        weight, variance, gram = self._model
        if not variance.any():
            return float("nan")
        scale = np.divide(self._within(influence), variance, where=variance > 0, out=np.zeros_like(variance))
        scale = scale if scale.any() else (variance > 0).astype(np.float64)  # no class to weigh by: all alike
        scale, square = scale / scale.max(), self.by_class(self.share**2)
        spread = np.bincount(self.group, scale[self.kind] * weight**2, minlength=self.number)
        minus = scale[self.kind] * weight**2 * (2 * self.share - square[self.kind])
        low = np.bincount(self.group, minus, minlength=self.number)
        above, below = np.split(gram, 2)
        product = np.concatenate((scale[:, None] * (below - square[:, None] * above), scale[:, None] * above))
        trace = (spread**2).sum() - 2 * (spread * low).sum() + (product * product.T).sum()
        return max(float((spread - low).sum() ** 2 / trace), 1.0)

    def varies(self, influence: Floats) -> bool:
        """Whether samples of a class with several groups differ in ``influence [samples]``: `freedom` weighs by it."""
        return bool((self._within(influence) * (self.groups > 1)).any())

    def _within(self, influence: Floats) -> Floats:
        """Sum of squares around the class's mean, float64 ``[classes]``; exactly 0 where all are equal."""
        size, any_of = np.maximum(self.samples, 1), np.zeros(len(self.samples))
        any_of[self.truth] = influence  # less one of them, equal ones have no rounding to be weighed by
        apart = influence - any_of[self.truth]
        mean = np.bincount(self.truth, apart, minlength=len(size)) / size
        return np.asarray(np.bincount(self.truth, (apart - mean[self.truth]) ** 2, minlength=len(size)), np.float64)


def _changes(metric: str, design: _Design, predicted: Ints, table: Ints) -> Floats:
    """The jackknife's contributions, float64 ``[groups]``: their squares add up to the variance of the score.

    Leaving a group out of a class gives its other groups the weight G / (G - 1); each change is set against the mean
    of its class and scaled by sqrt((G - 1) / G).  A class with a single group contributes nothing.
    """
    from scipy.sparse import csr_matrix

    classes = len(table)
    columns = np.where(predicted == ABSTAINED, classes, predicted)
    shape = (len(design.kind), classes + 1)
    rows = csr_matrix((np.ones(len(predicted)), (design.row, columns)), shape=shape)
    changes = np.zeros(len(design.kind))
    step = max(CELLS // (classes + 1), 1)
    for start in range(0, len(changes), step):
        part = slice(start, start + step)
        changes[part] = _without(metric, rows[part].toarray(), design.kind[part], design.groups, table)
    number = design.groups[design.kind]
    centred = changes - design.by_class(changes)[design.kind] / number
    scaled = np.where(design.several, centred * np.sqrt(1 - 1 / number), 0.0)
    return np.asarray(np.bincount(design.group, scaled, minlength=design.number), np.float64)


def _without(metric: str, rows: Floats, kind: Ints, groups: Ints, table: Ints) -> Floats:
    """The metric without each of ``rows``, float64 ``[rows, classes + 1]`` of classes ``kind``: ``[rows]``."""
    number, each = groups[kind], np.arange(len(rows))
    left = (table[kind] - rows) * (number / np.maximum(number - 1, 1))[:, None]
    hits, predicted, support = (np.tile(total.astype(np.float64), (len(rows), 1)) for total in _totals(table))
    predicted += left[:, :-1] - table[kind, :-1]
    hits[each, kind], support[each, kind] = left[each, kind], left.sum(axis=1)
    return _score(metric, hits, predicted, support)


def _totals(table: Ints) -> tuple[Ints, Ints, Ints]:
    """Hits, predictions and support of each class, ``[classes]``, of a `confusion` table."""
    return table.diagonal(), table[:, :-1].sum(axis=0), table.sum(axis=1)


def _score(metric: str, hits: Counts, predicted: Counts, support: Counts) -> Floats:
    """A metric of totals ``[…, classes]``: float64 ``[…]``."""
    if metric == "accuracy":
        samples = support.sum(axis=-1)  # none where the only group of the only class is left out
        return np.asarray(hits.sum(axis=-1) / np.where(samples, samples, 1), np.float64)
    scores = precision_recall_f1(hits, predicted, support)[MACRO.index(metric) - 1]
    return np.asarray(scores.mean(axis=-1), np.float64)


def _gradient(metric: str, table: Ints) -> tuple[Floats, Floats]:
    """What one more hit adds to the metric, ``[classes]``, and what one more answer takes from it, ``[classes + 1]``.

    The last answer is an abstention.  What every sample of a class takes alike is left out.
    """
    hits, predicted, support = _totals(table)
    classes = len(table)
    if metric == "accuracy":
        return np.full(classes, 1 / support.sum()), np.zeros(classes + 1)
    divisor, share = {  # of the hits, and how much of it an answer is
        "macro_precision": (predicted, 1.0),
        "macro_recall": (support, 0.0),
        "macro_f1": ((predicted + support) / 2, 0.5),
    }[metric]
    size = np.where(divisor > 0, divisor, 1).astype(np.float64)
    return 1 / size / classes, np.append(share * hits / size**2 / classes, 0.0)


def _independent(metric: str, counts: Ints) -> float:
    """How many independent samples have the variance that ``counts [classes]`` of them give the metric at most."""
    there = counts[counts > 0]
    return float(there.sum() if metric == "accuracy" else len(there) ** 2 / (1 / there).sum())


def _studentised_range(methods: int, freedom: float) -> float:
    """The quantile of the largest difference of so many equal methods, in standard errors of a difference."""
    if methods == 2:
        return student(freedom)
    # two digits, rounded down: few values to compute, and none too small
    digits = 10.0 ** (np.floor(np.log10(freedom)) - 1)
    return _range_quantile(methods, float(np.floor(freedom / digits) * digits))


@cache
def _range_quantile(methods: int, freedom: float) -> float:
    from scipy.stats import studentized_range  # 0.1 s a value

    return float(studentized_range.ppf(1 - LEVEL, methods, freedom) / np.sqrt(2))
