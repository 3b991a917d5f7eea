"""Intervals over groups: by hand, against slow references, and in simulations that the percentile bootstrap fails."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.scores.jackknife import (
    FEWEST_GROUPS,
    Estimate,
    GroupJackknife,
    _Design,
    count_groups,
    difference,
    interval,
    intervals,
    mean_estimate,
)
from bench.scores.metrics import ABSTAINED, MACRO, evaluate

ROOT = Path(__file__).parents[1]


def case(seed, sessions=200, classes=5, groups=40, present=None):
    """Truth (of the first ``present`` classes), answers right in about seven of ten cases, groups across classes."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, present or classes, sessions)
    answers = np.where(generator.random(sessions) < 0.6, truth, generator.integers(ABSTAINED, classes, sessions))
    return truth, answers, generator.integers(0, groups, sessions)


def scored(metric, truth, answers, classes):
    """The metric as `evaluate` has it."""
    probabilities = np.full((len(truth), classes), np.nan, np.float32)
    probabilities[answers != ABSTAINED] = np.eye(classes, dtype=np.float32)[answers[answers != ABSTAINED]]
    return getattr(evaluate(truth, probabilities, [str(number) for number in range(classes)]), metric)


def percentile_bootstrap(truth, answers, groups, draws=400):
    """What earlier versions took, of accuracy."""
    right, size = (np.bincount(groups, weights) for weights in (truth == answers, None))
    drawn = np.random.default_rng(0).multinomial(len(size), np.full(len(size), 1 / len(size)), draws)
    return np.percentile(drawn @ right / (drawn @ size), (2.5, 97.5))


def test_an_interval_by_hand():
    """Two classes of three groups of two; accuracy 3/4, groups right (2, 2, 0) and (2, 1, 2) times.

    Without a group the others of its class count 3/2: accuracy 9, 9, 12 and 8.5, 10, 8.5 of 12, less 9 of 12.  Around
    the class means (-1, -1, 2 and 0.5·(-1, 2, -1), twelfths): 2/3 (6 + 1.5) / 144 = 5/144.
    """
    truth, groups = np.repeat([0, 1], 6), np.repeat(np.arange(6), 2)
    answers = np.where([1, 1, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1], truth, 1 - truth)
    found = GroupJackknife(truth, [answers], groups, classes=2).score(0, "accuracy")
    assert (found.value, found.sessions, found.groups) == (0.75, 12, 6)
    assert found.variance == pytest.approx(5 / 144)
    # within classes 6 sessions, 4 and 5 right: spread 4/3 and 5/6; three equal groups of a class have 2 degrees
    assert found.freedom == pytest.approx((4 / 3 + 5 / 6) ** 2 / ((4 / 3) ** 2 / 2 + (5 / 6) ** 2 / 2))
    number = 0.75 * 0.25 / (5 / 144)
    square = stats.t.ppf(0.975, found.freedom) ** 2
    middle = (0.75 + square / 2 / number) / (1 + square / number)
    half = np.sqrt(square * (0.75 * 0.25 / number + square / 4 / number**2)) / (1 + square / number)
    assert found.score_interval() == pytest.approx((middle - half, middle + half))


@pytest.mark.parametrize("metric", MACRO)
@pytest.mark.parametrize("seed", range(3))
def test_the_variance_is_that_of_leaving_groups_out_one_by_one(metric, seed):
    """Repeating what is left of the class G - 1 ... times instead of weighing it; groups of a single class."""
    truth, answers, _ = case(seed, sessions=90, classes=3)
    groups = 10 * truth + np.arange(90) % (2 + truth)  # two, three and four groups of a class
    variance = 0.0
    for kind in range(3):
        mine, changes = np.unique(groups[truth == kind]), []
        for group in mine:
            times = np.where(truth == kind, np.where(groups == group, 0, len(mine)), len(mine) - 1)
            rows = np.repeat(np.arange(90), times)
            changes.append(scored(metric, truth[rows], answers[rows], 3))
        variance += (1 - 1 / len(mine)) * ((np.array(changes) - np.mean(changes)) ** 2).sum()
    found = GroupJackknife(truth, [answers], groups, classes=3).score(0, metric)
    assert found.value == pytest.approx(scored(metric, truth, answers, 3)) and variance > 0
    assert found.variance == pytest.approx(variance, rel=1e-9)


def test_degrees_of_freedom_are_those_of_the_whole_matrix():
    """The working model's covariance of groups' contributions, written out; groups of several classes and of one."""
    truth, _, groups = case(3, sessions=300, classes=4, groups=12)
    groups[truth == 3] = 20 + np.arange((truth == 3).sum()) % 3
    influence = np.random.default_rng(1).normal(size=300) * (1 + truth)
    number, matrix = int(groups.max()) + 1, 0.0
    for kind in range(4):
        share = np.bincount(groups[truth == kind], minlength=number) / (truth == kind).sum()
        there = share > 0
        weight = share / (1 - share) * np.sqrt(1 - 1 / there.sum())
        deviation = np.diag(there.astype(float)) - np.outer(there, share)
        part = np.outer(weight, weight) * (deviation @ deviation.T)
        matrix += part / np.trace(part) * influence[truth == kind].var() * (truth == kind).sum()
    expected = np.trace(matrix) ** 2 / (matrix**2).sum()
    assert _Design(truth, groups, 4).freedom(influence) == pytest.approx(expected, rel=1e-9)


def test_degrees_of_freedom_count_groups_and_not_classes():
    """Ten equal groups of all four classes have nine; ten of each class, alike in all, four times nine."""
    truth, luck = np.tile(np.arange(4), 30), np.tile([1.0, -1, 1, -1], 30) * np.repeat([1, -1], 60)
    assert _Design(truth, np.repeat(np.arange(10), 12), 4).freedom(luck) == pytest.approx(9)
    assert _Design(truth, np.repeat(np.arange(10), 12) + 10 * truth, 4).freedom(luck) == pytest.approx(36)


@pytest.mark.parametrize("metric", MACRO)
@pytest.mark.parametrize("name", ["one answer to all", "varied in a class of one group alone"])
def test_degrees_of_freedom_do_not_come_from_rounding(metric, name):
    """No class of several groups varies: all weigh alike, whatever the influence of its samples is."""
    truth, number = np.repeat([0, 1, 2], [13, 31, 60]), np.arange(104)
    groups = np.where(truth == 2, 7, number % 7)
    answers = 0 * truth if name == "one answer to all" else np.where(truth == 2, number % 3, truth)
    found = GroupJackknife(truth, [answers, number % 3], groups, classes=3)
    assert found.score(0, metric).freedom == _Design(truth, groups, 3).freedom(np.zeros(104))
    assert found.varies(1, metric) and not found.varies(0, metric)


@pytest.mark.parametrize("metric", MACRO)
def test_all_intervals_at_once_are_those_one_by_one(metric):
    """Also where a class is in nobody's truth: it scores 0 and is averaged over all the same."""
    truth, answers, groups = case(4, sessions=300, present=3)
    alone = interval(truth, answers, groups, classes=5, metric=metric)
    assert intervals(truth, answers, groups, classes=5)[metric] == alone
    assert alone[0] < scored(metric, truth, answers, 5) < alone[1]


@pytest.mark.parametrize("metric", MACRO)
def test_names_of_groups_and_the_order_of_samples_do_not_matter(metric):
    truth, answers, groups = case(5)
    order = np.random.default_rng(0).permutation(len(truth))
    one = interval(truth, answers, groups, classes=5, metric=metric)
    other = interval(truth[order], answers[order], groups[order] * 7 - 3, classes=5, metric=metric)
    assert one == pytest.approx(other, rel=1e-9)


def test_many_groups_are_taken_in_steps(monkeypatch):
    truth, answers, groups = case(6, sessions=500, groups=90)
    whole = interval(truth, answers, groups, classes=5)
    monkeypatch.setattr("bench.scores.jackknife.CELLS", 24)
    assert interval(truth, answers, groups, classes=5) == pytest.approx(whole, rel=1e-12)


def test_a_perfect_score_is_as_sure_as_its_groups():
    """Fifty of fifty groups right: that one in fifteen is wrong would not be strange."""
    truth, groups = np.zeros(5000, np.int64), np.repeat(np.arange(50), 100)
    low, high = interval(truth, truth, groups, classes=1, metric="accuracy")
    quantile = stats.t.ppf(0.975, 49) ** 2
    assert (low, high) == (pytest.approx(50 / (50 + quantile)), 1.0)
    assert interval(truth, truth + 1, groups, classes=2, metric="accuracy") == pytest.approx((0, 1 - low), abs=1e-12)


def test_nothing_is_known_where_every_class_has_one_group():
    truth = np.repeat([0, 1], 50)
    assert interval(truth, 0 * truth, truth, classes=2) == (0, 1)
    assert difference(truth, (truth, 0 * truth), truth, classes=2)[1:] == (-1, 1)
    assert count_groups(truth, truth, 2).few


def test_groups_are_counted_by_class():
    truth, groups = np.array([0, 0, 0, 1, 1, 1, 1]), np.array([1, 2, 3, 3, 4, 5, 5])
    counts = count_groups(truth, groups, 4)
    assert (counts.total, counts.smallest, counts.few) == (5, 3, False) and FEWEST_GROUPS == 3
    assert count_groups(truth, np.minimum(groups, 4), 4).few


def test_a_difference_is_paired():
    truth, a, groups = case(7, sessions=400, groups=100)
    b = np.where(np.arange(400) % 20 == 0, (a + 1) % 5, a)
    assert difference(truth, (a, a), groups, classes=5) == (0, 0, 0)
    apart, low, high = difference(truth, (a, b), groups, classes=5, metric="accuracy")
    assert apart == pytest.approx((a == truth).mean() - (b == truth).mean()) and low < apart < high
    alone = interval(truth, a, groups, classes=5, metric="accuracy")
    assert high - low < (alone[1] - alone[0]) / 1.5  # what pairing is for
    assert difference(truth, (b, a), groups, classes=5, metric="accuracy") == pytest.approx((-apart, -high, -low))


def test_no_difference_of_scores_is_beyond_one():
    assert Estimate(0.3, 0.4**2, 2.0, 100, 3).interval(methods=9) == (-1, 1)


def test_intervals_for_all_pairs_are_tukeys_and_wider():
    estimate = Estimate(0.1, 0.02**2, 12.0, 100, 20)
    half = stats.t.ppf(0.975, 12) * 0.02
    assert estimate.interval() == pytest.approx((0.1 - half, 0.1 + half))
    half = stats.studentized_range.ppf(0.95, 5, 12) / np.sqrt(2) * 0.02
    assert estimate.interval(5) == pytest.approx((0.1 - half, 0.1 + half))
    ends = [estimate.interval(methods)[1] for methods in (2, 3, 5, 20)]
    assert ends == sorted(ends)


def test_the_mean_of_data_sets_by_hand():
    found = mean_estimate([Estimate(0.8, 0.04, 4, 100, 10), Estimate(0.6, 0.02, 8, 300, 30)])
    assert (found.value, found.variance) == (pytest.approx(0.7), pytest.approx(0.015))
    assert found.freedom == pytest.approx(0.06**2 / (0.04**2 / 4 + 0.02**2 / 8))
    assert (found.sessions, found.groups) == (pytest.approx(300), pytest.approx(30))
    assert mean_estimate([found]) == found


def worlds(generator, number, groups, methods=1):
    """Five classes of so many groups of ten; a method's chance in a group is drawn around 0.8 (correlation 1/3)."""
    truth = np.repeat(np.arange(5), 10 * groups)
    group = np.repeat(np.arange(5 * groups), 10)
    for _ in range(number):
        chance = generator.beta(1.6, 0.4, (methods, 5 * groups))[:, group]
        right = generator.random((methods, len(truth))) < chance
        yield truth, np.where(right, truth, (truth + 1) % 5), group


@pytest.mark.parametrize("groups", [2, 3])
def test_intervals_over_few_groups_hold_their_level_where_the_percentile_bootstrap_does_not(groups):
    held, bootstrap = [], []
    for truth, (answers,), group in worlds(np.random.default_rng(groups), 300, groups):
        low, high = interval(truth, answers, group, classes=5, metric="accuracy")
        held.append(low <= 0.8 <= high)
        low, high = percentile_bootstrap(truth, answers, group)
        bootstrap.append(low <= 0.8 <= high)
    error = np.sqrt(0.05 * 0.95 / 300)
    assert 0.95 - 2 * error <= np.mean(held) <= 0.99
    assert np.mean(bootstrap) < 0.95 - 2 * error


def test_sessions_one_by_one_would_feign_certainty():
    held = {"group": 0, "session": 0}
    for truth, (answers,), group in worlds(np.random.default_rng(0), 200, 12):
        for kind, by in (("group", group), ("session", np.arange(len(truth)))):
            low, high = interval(truth, answers, by, classes=5, metric="accuracy")
            held[kind] += low <= 0.8 <= high
    assert 0.92 <= held["group"] / 200 <= 0.98
    assert held["session"] / 200 < 0.85


def test_equal_methods_are_not_parted_from_the_best_where_single_intervals_part_them():
    """Eight equal methods, the best picked by its score: 95 % intervals one by one find a difference in every third."""
    single, simultaneous = [], []
    for truth, answers, group in worlds(np.random.default_rng(2), 200, 4, methods=8):
        jackknife = GroupJackknife(truth, list(answers), group, classes=5)
        best = max(range(8), key=lambda method: jackknife.value(method, "macro_f1"))
        apart = [jackknife.difference(method, best, "macro_f1") for method in range(8) if method != best]
        single.append(any(estimate.interval()[1] < 0 for estimate in apart))
        simultaneous.append(any(estimate.interval(8)[1] < 0 for estimate in apart))
    assert np.mean(simultaneous) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200) and np.mean(single) > 0.15


def committed():
    return pd.read_csv(ROOT / "results" / "coverage.csv")


def test_the_committed_simulation_says_what_the_documents_say():
    """No usual cell is far below 0.95 (standard error 0.01), where the bootstrap is in many."""
    rows = committed()
    usual = rows[(rows.table == "coverage") & (rows.right == "usual")]
    lowest = usual.groupby("interval").coverage.min()
    assert lowest["taken here"] >= 0.93 and lowest["difference, taken here"] >= 0.92
    assert lowest["percentile bootstrap"] < 0.5 and lowest["BCa"] < 0.5 and lowest["jackknife, t(G − 1)"] < 0.9
    assert len(usual[usual.interval == "taken here"]) == 120
    false = rows[(rows.table == "false findings") & (rows.rule == "taken here")]
    highest = false.groupby("what").share.max()
    error = {worlds: np.sqrt(0.05 * 0.95 / worlds) for worlds in (200, 500)}
    kinds = ("5 methods, one or two blocks", "20 methods, one or two blocks", "5 methods, five blocks")  # 20: documents
    assert max(highest[f"{kind}, macro-F1"] for kind in kinds) <= 0.05 + 2 * error[200]
    assert highest["two runs, accuracy"] <= 0.05 + 2 * error[500]


@pytest.mark.slow
def test_the_simulation_runs_and_is_the_same_under_a_seed(tmp_path):
    command = [sys.executable, "benchmarks/interval_coverage.py", "--quick", "--csv", str(tmp_path / "a.csv")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(tmp_path / "a.csv")
    assert set(committed().columns) == set(rows.columns) and "## False findings" in done.stdout
    subprocess.run([*command[:-1], str(tmp_path / "b.csv")], cwd=ROOT, check=True, capture_output=True,
                   env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_a_difference_that_is_alike_in_all_groups_is_not_sure():
    """Of three groups a class that one method has right and the other wrong, the next may be otherwise."""
    truth, groups = np.repeat(np.arange(3), 30), np.arange(90) // 10
    low, high = difference(truth, (truth, (truth + 1) % 3), groups, classes=3, metric="accuracy")[1:]
    assert 0.3 < low < 0.9 and high == 1
    assert difference(truth, ((truth + 1) % 3, truth), groups, classes=3, metric="accuracy")[1:] == (-high, -low)


def test_a_single_group_of_a_single_class_warns_of_nothing(recwarn):
    ones = np.ones(4, np.int64)
    assert interval(0 * ones, 0 * ones, 0 * ones, classes=1, metric="accuracy") == (0, 1)
    assert not recwarn.list
