"""Tests for methods on blocks, against hand-worked examples, SciPy and a small simulation."""

import itertools
import struct

import numpy as np
import pytest
from scipy import stats

from bench.render.plots import draw_critical_difference
from bench.scores.significance import (
    ROUNDING,
    cohens_dz,
    corrected_t,
    critical_difference,
    dominance,
    friedman,
    holm,
    nemenyi,
    permute_groups,
    ranks,
    welch,
)

# Demšar 2006, table 6: AUC of C4.5, with m, with cf, with both, on 14 data sets; his ranks part the two 0.975
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975], [0.957, 0.978, 0.946, 0.970],
    ]
)  # fmt: skip


def test_the_corrected_t_test_by_hand():
    """d = 1, 2, 3, 4, 5: mean 3, variance 2.5; test/train 1/4: error = sqrt((1/5 + 1/4) 2.5) = 1.0607, t = 2.8284."""
    differences = np.arange(1.0, 6)[:, None]
    assert corrected_t(differences, np.array([0.25])) == pytest.approx([2 * stats.t.sf(2.8284271, 4)])
    assert corrected_t(differences, np.array([0.25])) == pytest.approx([0.04742065558], rel=1e-6)
    assert corrected_t(differences, np.zeros(1)) == pytest.approx([stats.ttest_1samp(differences[:, 0], 0).pvalue])
    assert corrected_t(-differences, np.array([0.25])) == corrected_t(differences, np.array([0.25]))


def test_of_several_data_sets_the_variances_of_their_means_are_added():
    """Sets (0, 2) and (1, 3, 5): means 1, 3, variances 2, 4; error = sqrt(2 (1/2 + 1/2) + 4 (1/3 + 1/6)) / 2 = 1."""
    differences, strata = np.array([[0.0], [2], [1], [3], [5]]), np.array([0, 0, 1, 1, 1])
    assert corrected_t(differences, np.array([0.5, 1 / 6]), strata) == pytest.approx([2 * stats.t.sf(2.0, 3)])
    with pytest.raises(ValueError, match="two blocks of each"):
        corrected_t(differences[:4], np.array([0.5, 0.5]), np.array([0, 0, 0, 1]))


def test_equal_methods_differ_with_p_1():
    assert corrected_t(np.zeros((4, 1)), np.array([0.2])).tolist() == [1.0]
    assert np.isnan(corrected_t(np.array([[0.1, 0.5]] * 4) * 3, np.array([0.2]))).all()  # the same in all: no test


@pytest.mark.parametrize("seed", range(5))
def test_welchs_interval_is_scipys_where_no_training_data_are_shared(seed):
    draw = np.random.default_rng(seed)
    one, other = draw.normal(0.8, 0.05, 4), draw.normal(0.7, 0.02, 7)
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert welch(one, other, (0.0, 0.0)) == pytest.approx(tuple(expected), rel=1e-12)


def test_welchs_interval_by_hand_with_shared_training_data():
    one, other = np.array([0.8, 0.9, 1.0]), np.array([0.5, 0.7])
    variances = (1 / 3 + 2 / 7) * 0.01, (1 / 2 + 1 / 4) * 0.02  # of the means, with test/train 2/7 and 1/4
    total = sum(variances)
    freedom = total**2 / (variances[0] ** 2 / 2 + variances[1] ** 2 / 1)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(total)
    assert welch(one, other, (2 / 7, 1 / 4)) == pytest.approx((0.3 - half, 0.3 + half), rel=1e-12)
    assert welch(other, one, (1 / 4, 2 / 7)) == pytest.approx((-0.3 - half, -0.3 + half), rel=1e-12)
    assert welch(np.array([0.5, 0.5]), np.array([0.25, 0.25]), (0.2, 0.2)) == (0.25, 0.25)


def test_holm_by_hand():
    """0.01 · 4, 0.015 · 3 = 0.045, 0.02 · 2 = 0.04 (not below its forerunner: 0.045), 0.8 · 1; never above 1."""
    assert holm(np.array([0.02, 0.01, 0.8, 0.015])) == pytest.approx([0.045, 0.04, 0.8, 0.045])
    assert holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0]
    assert holm(np.array([np.nan, 0.02, 0.01])) == pytest.approx([np.nan, 0.02, 0.02], nan_ok=True)


def test_effects_by_hand():
    apart = np.array([[1.0, -1, 0, 2], [2, 1, 0, 2], [3, -1, 0, 2], [2, 0, 0, 2]])
    assert cohens_dz(apart)[:3] == pytest.approx([2 / np.sqrt(2 / 3), -0.25 / np.sqrt(2.75 / 3), 0])
    assert np.isnan(cohens_dz(apart)[3])
    assert dominance(apart).tolist() == [1.0, -0.25, 0.0, 1.0]


def test_effects_of_several_data_sets_are_the_mean_of_theirs():
    """Sets (1, 3) and (10, 10, 10, 10, 16, 16, -9): d_z 2 / sqrt 2 and 9 / sqrt 71; wins less losses 1 and 5/7."""
    apart, strata = np.array([1.0, 3, 10, 10, 10, 10, 16, 16, -9])[:, None], np.repeat([0, 1], (2, 7))
    second = apart[2:, 0]
    assert second.mean() == 9 and second.var(ddof=1) == pytest.approx(426 / 6)
    assert cohens_dz(apart, strata) == pytest.approx([(np.sqrt(2) + 9 / np.sqrt(71)) / 2])
    assert dominance(apart, strata) == pytest.approx([(1 + 5 / 7) / 2])
    assert cohens_dz(apart) != pytest.approx(cohens_dz(apart, strata))


def test_ranks_share_ties_and_the_highest_is_first():
    assert ranks(np.array([[0.9, 0.5, 0.9, 0.1]])).tolist() == [[1.5, 3, 1.5, 4]]


def test_demsars_example():
    """Average ranks 3.143, 2.000, 2.893, 1.964; Friedman 9.28 (without SciPy's correction for ties); CD 1.25."""
    assert ranks(DEMSAR).mean(axis=0) == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=5e-3)
    assert critical_difference(4, 14, 0.10) == pytest.approx(1.12, abs=5e-3)  # q = 2.291
    statistic, p = friedman(DEMSAR)
    ties = 1 - sum(float((n**3 - n).sum()) for row in DEMSAR for n in [np.unique(row, return_counts=True)[1]]) / (
        14 * 4 * 15
    )
    assert statistic * ties == pytest.approx(9.28, abs=0.02) and p == pytest.approx(stats.chi2.sf(statistic, 3))
    assert (nemenyi(DEMSAR) > 0.05).all()  # his 3.2.4: the largest difference, 1.18, is below 1.25
    assert nemenyi(DEMSAR)[0, 3] < 0.10  # and above 1.12


def test_nemenyi_and_the_critical_difference_agree():
    scores = np.random.default_rng(0).normal(size=(12, 6)) + np.linspace(0, 2.5, 6)
    mean = ranks(scores).mean(axis=0)
    apart = np.abs(mean[:, None] - mean) > critical_difference(6, 12)
    assert np.array_equal(nemenyi(scores) < 0.05, apart) and apart.any() and not apart.all()


def test_friedman_is_scipys_and_bears_equal_methods():
    scores = np.random.default_rng(1).normal(size=(7, 4))
    found = stats.friedmanchisquare(*scores.T)
    assert friedman(scores) == pytest.approx((found.statistic, found.pvalue))
    assert friedman(np.ones((5, 3))) == (0.0, 1.0)


def test_the_correction_keeps_the_level_where_folds_share_their_noise():
    """Differences of equal correlation r, as of folds with test/(test + train) = r: without it half are found."""
    generator, blocks, share = np.random.default_rng(2), 10, 0.3
    noise = generator.normal(size=(blocks, 4000)) * np.sqrt(1 - share) + generator.normal(size=4000) * np.sqrt(share)
    found = (corrected_t(noise, np.array([share / (1 - share)])) < 0.05).mean()
    plain = (corrected_t(noise, np.zeros(1)) < 0.05).mean()
    assert found == pytest.approx(0.05, abs=0.015) and plain > 0.3


def signs_one_by_one(apart):
    """The definition: every choice of signs, written out."""
    sums = np.array(list(itertools.product((1, -1), repeat=len(apart)))) @ np.abs(apart)
    return (np.abs(sums) >= abs(apart.sum())).mean()


def answers_of(apart, both=3):
    """Right answers of two methods in groups where only one is right ``apart`` times, and both ``both`` times."""
    rows = [(g, d > 0, d < 0) for g, d in enumerate(apart) for _ in range(abs(d))]
    rows += [(g, True, True) for g in range(len(apart)) for _ in range(both)]
    groups, a, b = (np.array(column) for column in zip(*rows, strict=True))
    return a, b, groups


def test_the_permutation_by_group_by_hand():
    """Differences 3, 1, 1, 1, 1, 1: of 64 choices of signs 2 have a sum of 8, the next ones 6: p = 2/64."""
    found = permute_groups(*answers_of([3, 1, 1, 1, 1, 1]))
    assert found == {"only_a": 8, "only_b": 0, "groups": 6, "p": pytest.approx(2 / 64)}
    found = permute_groups(*answers_of([3, 1, 1, 1, 1, -1]))  # sums of 6 or more: 8 once, 6 five times, on both sides
    assert found == {"only_a": 7, "only_b": 1, "groups": 6, "p": pytest.approx(2 * 6 / 64)}


def test_fewer_than_six_groups_that_differ_are_not_testable():
    """2 / 2**5 = 0.0625: nothing could be found."""
    found = permute_groups(*answers_of([90, 80, 70, 60, 50, 0, 0, 0]))
    assert (found["groups"], found["p"], found["only_a"]) == (5, None, 350)


@pytest.mark.parametrize("seed", range(8))
def test_p_is_the_share_of_all_choices_of_signs(seed):
    generator = np.random.default_rng(seed)
    apart = generator.integers(1, 40, 11) * generator.choice((-1, 1), 11)
    assert permute_groups(*answers_of(apart))["p"] == pytest.approx(signs_one_by_one(apart), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_permutation_is_mcnemars_where_every_sample_is_a_group(seed):
    a, b = np.random.default_rng(seed).random((2, 200)) < [[0.7], [0.6]]
    only = int((a & ~b).sum()), int((b & ~a).sum())
    found = permute_groups(a, b, np.arange(200))
    assert (found["only_a"], found["only_b"]) == only
    assert found["p"] == pytest.approx(stats.binomtest(only[0], sum(only)).pvalue, rel=1e-9)
    swapped = permute_groups(b, a, np.arange(200) * 3 - 7)  # neither order nor names of groups matter
    assert swapped["p"] == pytest.approx(found["p"]) and swapped["only_a"] == found["only_b"]


def test_a_very_small_p_is_no_rounding_error():
    every = np.ones(5000, bool)
    assert permute_groups(every, ~every, np.arange(5000))["p"] == ROUNDING
    assert permute_groups(every, every, np.arange(5000))["p"] is None


def test_the_permutation_keeps_its_level_where_mcnemar_does_not():
    """Two methods that are equally good, each with luck of its own in each of 20 groups of 15: 400 worlds."""
    generator, groups, found = np.random.default_rng(4), np.repeat(np.arange(20), 15), []
    for _ in range(400):
        a, b = generator.random((2, 300)) < generator.beta(4, 2, (2, 20))[:, groups]
        only = int((a & ~b).sum()), int((b & ~a).sum())
        found.append((permute_groups(a, b, groups)["p"] < 0.05, stats.binomtest(only[0], sum(only)).pvalue < 0.05))
    by_group, by_sample = np.mean(found, axis=0)
    assert by_group <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400) and by_sample > 0.15


def test_the_diagram_is_drawn_as_svg_and_png_and_leaves_pyplot_alone(tmp_path):
    from matplotlib import pyplot

    labels = ["forest", "a_b $x$ (c=1) †", "<knn>", "majority"]
    for name in ("a.svg", "b.svg", "c.png"):
        draw_critical_difference(DEMSAR, labels, "macro_f1 · demo", tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert all(word in text for word in ("a_b $x$ (c=1) † (2.0)", "&lt;knn&gt;", "critical difference 1.25"))
    assert text == (tmp_path / "b.svg").read_text()
    head = (tmp_path / "c.png").read_bytes()[:24]
    assert min(struct.unpack(">II", head[16:24])) > 100
    assert pyplot.get_fignums() == [] and len(list(tmp_path.iterdir())) == 3
