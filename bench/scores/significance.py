"""Tests between methods; most are pure functions of ``scores``, float64 [blocks, methods].

A block is what all methods were measured on alike: a fold, a seed, a data set.  docs/statistics.md tells what each
number means and when not to use it.  A higher score is better; rank 1 is the best.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

LEVEL: Final = 0.05  # of significance, everywhere
FEWEST: Final = 3  # blocks for any test: with fewer, a deviation over them means nothing (our choice)
FEWEST_SIGNS: Final = 6  # blocks or groups from which signs can reach 0.05, two-sided: 2 / 2**5 = 0.0625
ROUNDING: Final = 1e-12  # a p-value below it is not told from 0


def permute_groups(correct_a: NDArray[np.bool_], correct_b: NDArray[np.bool_], groups: Ints) -> dict[str, float | None]:
    """Exact permutation test by group of two methods' accuracy on the same samples, ``[samples]`` each.

    Were the methods equal, each group's difference, samples that only one gets right, could as well have the other
    sign: p is the share of all choices of signs whose sum is as far from 0 (two-sided; Pitman, Supplement to the
    Journal of the Royal Statistical Society 4, 1937).  McNemar's test is the same with a group for every sample.
    Returns the samples that only one of them gets right, the groups where these differ in number, and p; None with
    fewer than `FEWEST_SIGNS` such groups.
    """
    only_a, only_b = correct_a & ~correct_b, correct_b & ~correct_a
    _, group = np.unique(groups, return_inverse=True)
    apart = np.bincount(group, only_a).astype(np.int64) - np.bincount(group, only_b).astype(np.int64)
    apart = apart[apart != 0]
    p = _signs_p(apart) if len(apart) >= FEWEST_SIGNS else None
    return {"only_a": float(only_a.sum()), "only_b": float(only_b.sum()), "groups": float(len(apart)), "p": p}


def _signs_p(apart: Ints) -> float:
    """Share of all 2^n choices of signs of ``apart [n]`` that bring its sum as far from 0 as it is.

    The distribution of the sum is found from its characteristic function, the product of cos(v t): exact, but for
    rounding, with any number of groups.
    """
    sizes, times = np.unique(np.abs(apart), return_counts=True)
    most, observed = int((sizes * times).sum()), abs(int(apart.sum()))
    length = 2 * most + 2  # even, and none of the sums -most to most falls on another
    angle = 2 * np.pi * np.arange(length // 2 + 1) / length
    characteristic = np.prod([np.cos(size * angle) ** count for size, count in zip(sizes, times, strict=True)], axis=0)
    tail = np.fft.irfft(characteristic, length)[observed : most + 1].sum()
    return 1.0 if not observed else float(np.clip(2 * tail, max(2.0 ** (1 - len(apart)), ROUNDING), 1))


def corrected_t(differences: Floats, ratios: Floats, strata: Ints | None = None) -> Floats:
    """Two-sided p-values, [pairs], of the corrected resampled t-test for paired ``differences``, [blocks, pairs].

    Folds and seeds share training data, so their differences vary less than those of fresh data would: the
    variance of the mean of J differences is (1/J + test/train) times their sample variance instead of 1/J times
    (Nadeau and Bengio, Machine Learning 52, 2003).  ``ratios``, [strata], are the test/train ratios.  ``strata``, int
    [blocks], numbers each block's data set: the mean over data sets is tested, their variances are added (our
    extension; a single data set gives the test of the paper).  1 where all differences are 0, NaN where they are equal
    but not 0 (no deviation to test by).  Raises ValueError where a stratum has one block.
    """
    from scipy.stats import t

    strata = np.zeros(len(differences), np.int64) if strata is None else strata
    parts = [differences[strata == number] for number in range(len(ratios))]
    if min(map(len, parts)) < 2:
        raise ValueError("a deviation needs two blocks of each data set")
    mean = np.mean([part.mean(axis=0) for part in parts], axis=0)
    variances = [(1 / len(part) + ratio) * part.var(axis=0, ddof=1) for part, ratio in zip(parts, ratios, strict=True)]
    error = np.sqrt(np.sum(variances, axis=0)) / len(parts)
    return np.asarray(2 * t.sf(np.abs(_over(mean, error)), len(differences) - len(parts)), np.float64)


def welch(one: Floats, other: Floats, ratios: tuple[float, float]) -> tuple[float, float]:
    """95 % interval of the difference of means of two groups of runs, [runs] each, on different test parts.

    Welch's interval, with each variance (1/J + test/train) times that over the J runs, as in `corrected_t`: runs of a
    group share training data (our extension).  Needs two runs a group.
    """
    groups = (one, other)
    variances = [(1 / len(runs) + ratio) * runs.var(ddof=1) for runs, ratio in zip(groups, ratios, strict=True)]
    total, middle = sum(variances), one.mean() - other.mean()
    if not total:
        return float(middle), float(middle)
    freedom = total**2 / sum(v**2 / (len(runs) - 1) for v, runs in zip(variances, groups, strict=True))
    half = student(freedom) * np.sqrt(total)
    return float(middle - half), float(middle + half)


def student(freedom: float) -> float:
    """Half of a 95 % interval in standard errors, by so many degrees of freedom: Student's quantile.

    >>> round(student(4), 3)
    2.776
    """
    from scipy.stats import t

    return float(t.ppf(1 - LEVEL / 2, freedom))


def holm(p: Floats) -> Floats:
    """p-values, [comparisons], corrected for their number: Holm, Scandinavian Journal of Statistics 6, 1979.

    NaN is no test: it stays, and does not count.

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")[: int((~np.isnan(p)).sum())]  # NaN comes last
    stepped = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1))
    corrected = np.full_like(p, np.nan)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def cohens_dz(differences: Floats, strata: Ints | None = None) -> Floats:
    """Mean over standard deviation of paired ``differences``, [blocks, pairs]: float64 [pairs].

    0 where all are 0, NaN where all are equal but not 0 (no deviation to measure by).  ``strata``, int [blocks],
    numbers each block's data set: the mean of those of the data sets, as data sets differ for other reasons.
    """
    return _mean_of_strata(lambda part: _over(part.mean(axis=0), part.std(axis=0, ddof=1)), differences, strata)


def _mean_of_strata(effect: Callable[[Floats], Floats], differences: Floats, strata: Ints | None) -> Floats:
    """An effect size of each stratum's blocks, averaged: float64 [pairs]."""
    strata = np.zeros(len(differences), np.int64) if strata is None else strata
    effects = [effect(differences[strata == number]) for number in np.unique(strata)]
    return np.asarray(np.mean(effects, axis=0), np.float64)


def _over(mean: Floats, deviation: Floats) -> Floats:
    """Mean over deviation; where there is none but rounding, 0 of a mean of 0 and NaN of another one."""
    flat = deviation <= 1e-12 * np.abs(mean)
    return np.where(flat, np.where(mean == 0, 0.0, np.nan), mean / np.where(flat, 1.0, deviation))


def dominance(differences: Floats, strata: Ints | None = None) -> Floats:
    """Cliff's delta for paired data, [pairs]: share of blocks won less share lost, in [-1, 1].

    Cliff's d_w (Psychological Bulletin 114, 1993); within blocks, as hard and easy blocks are no matter of the method.
    ``strata`` as in :func:`cohens_dz`.
    """
    return _mean_of_strata(lambda part: np.sign(part).mean(axis=0), differences, strata)


def ranks(scores: Floats) -> Floats:
    """Rank of each method in each block, [blocks, methods], 1 for the highest score; equals share their mean rank."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(-scores, axis=1), np.float64)


def friedman(scores: Floats) -> tuple[float, float]:
    """Statistic (chi-squared, methods - 1 degrees of freedom) and p-value of the hypothesis that all rank alike.

    ``scores [blocks, methods]``: at least `FEWEST` methods, independent blocks.  (0, 1) where all methods are equal in
    all blocks.
    """
    from scipy.stats import friedmanchisquare

    if (scores == scores[:, :1]).all():
        return 0.0, 1.0
    result = friedmanchisquare(*scores.T)
    return float(result.statistic), float(result.pvalue)


def nemenyi(scores: Floats) -> Floats:
    """p-value of each pair, [methods, methods], by their mean ranks, corrected for all pairs (Demšar 2006, 3.2.2)."""
    from scikit_posthocs import posthoc_nemenyi_friedman

    return np.asarray(posthoc_nemenyi_friedman(ranks(scores)), np.float64)


def critical_difference(methods: int, blocks: int, level: float = LEVEL) -> float:
    """Mean ranks further apart than this differ by Nemenyi's test (Demšar, JMLR 7, 2006, section 3.2.2)."""
    from scipy.stats import studentized_range

    quantile = studentized_range.ppf(1 - level, methods, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(methods * (methods + 1) / (6 * blocks)))
