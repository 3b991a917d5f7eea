"""Who goes where: whole groups shared out evenly, against a slow reference."""

from collections import Counter
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from split_tables import QUIET, split_of

from bench.spec import named_seed
from bench.splits import assignment
from bench.splits.assignment import PARTS, assign_evenly


def test_a_class_of_three_groups_reaches_every_part(table_store):
    labels = np.repeat([0, 1, 2], [300, 3, 2])
    group = np.arange(len(labels))
    split = split_of(
        table_store(dict.fromkeys(("conversation", "capture", "start"), group) | {"labels": labels}), "task", "session"
    )
    counts = split.summary()["classes"]
    assert counts["class 1"] == {"train": 1, "validation": 1, "test": 1}
    assert counts["class 2"] == {"train": 1, "validation": 0, "test": 1}
    assert split.summary()["shortfalls"] == [{"class": "class 2", "part": "validation"}]


def test_stratification_is_not_worse_than_a_bound_of_the_slow_reference(table_store):
    """scikit-learn's StratifiedGroupKFold: a greedy search in plain Python.  Random labels are ten times worse."""
    from sklearn.model_selection import StratifiedGroupKFold

    ours, reference, blind = 0.0, 0.0, 0.0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        group = np.sort(rng.integers(0, 120, 2000))
        labels = (group % 9 + rng.integers(0, 2, 2000)) % 9
        table = dict.fromkeys(("conversation", "capture", "start"), group) | {"labels": labels}
        want = np.bincount(labels) / 5

        def distance(tests, labels=labels, want=want):
            return sum(((np.bincount(labels[test], minlength=9) - want) ** 2 / want).sum() for test in tests)

        store = table_store(table)
        ours += distance([split_of(store, "task", "session", fold=f, folds=5).test.session for f in range(5)])
        reference += distance([test for _, test in StratifiedGroupKFold(5).split(labels, labels, group)])
        blind += distance([np.flatnonzero(rng.integers(0, 5, 120)[group] == f) for f in range(5)])
    assert ours <= 1.3 * reference
    assert ours <= 0.1 * blind


def slow_assignment(group, label, shares, seed):
    """`assign_evenly` by its description, in plain Python: eight random orders, four sweeps, the most even one."""
    groups, classes = sorted(set(group)), sorted(set(label))
    held = {g: Counter(sorted(label[i] for i in range(len(group)) if group[i] == g)) for g in groups}
    total = Counter(label)
    wanted = [{c: share * total[c] for c in classes} | {"all": share * len(group)} for share in shares]
    for g in groups:
        held[g]["all"] = sum(held[g].values())
    best = None
    for start in range(8):
        draws = np.random.PCG64(named_seed(seed, start)).random_raw(len(groups))
        order = sorted(range(len(groups)), key=lambda n: (-int(np.log2(held[groups[n]]["all"])), draws[n]))
        have = [Counter() for _ in shares]
        left = Counter(c for g in groups for c in held[g])
        part = {}
        for sweep in range(4):
            for g in (groups[n] for n in order):
                if sweep:
                    have[part[g]].subtract(held[g])
                    left.update(held[g].keys())
                lacking = {c: sum(h[c] == 0 for h in have) for c in [*classes, "all"]}
                costs = []
                for p in range(len(shares)):
                    before = {
                        c: sum(h[c] == 0 and w[c] > wanted[p][c] for h, w in zip(have, wanted, strict=True))
                        for c in held[g]
                    }
                    short = [c for c in held[g] if have[p][c] == 0 and before[c] < left[c] <= lacking[c]]
                    need = sum(1 + len(classes) * (c == "all") for c in short)
                    terms = [n * (n + 2 * (have[p][c] - wanted[p][c])) / wanted[p][c] for c, n in held[g].items()]
                    cost = reduce(add, terms, 0.0)
                    costs.append((-need, cost, p))
                part[g] = min(costs)[2]
                have[part[g]].update(held[g])
                left.subtract(held[g].keys())
        counts, expected = (np.array([[one[c] for c in wanted[0]] for one in table], float) for table in (have, wanted))
        cells = (counts - expected) ** 2 / expected
        share = expected[:, -1:] / expected[:, -1].sum()
        lack = (counts == 0) * (1 + share) * np.where(np.arange(counts.shape[1]) < len(classes), 1, len(classes) + 1)
        # added one by one: NumPy's own sum takes another order, and ties would fall elsewhere
        distance = reduce(add, cells.ravel().tolist()) + 1e6 * reduce(add, lack.ravel().tolist())
        if best is None or distance < best[0]:
            best = distance, part
    return [best[1][g] for g in group]


@QUIET
@given(st.integers(0, 2**32), st.sampled_from([(0.7, 0.1, 0.2), (0.2,) * 5, (0.5, 0.5)]))
@example(138380258, (0.2,) * 5)  # two starts that lack the same share: a tie but for rounding
def test_the_most_even_assignment_is_that_of_a_slow_reference(number, shares):
    rng = np.random.default_rng(number)
    size = int(rng.integers(5, 60))
    group, label = rng.integers(0, size // 2, size), rng.integers(0, 3, size)
    expected = slow_assignment(group.tolist(), label.tolist(), shares, number)
    assert assign_evenly(group, label, shares, number).tolist() == expected


@pytest.mark.parametrize("seed", range(20))
def test_a_class_is_trained_and_tested_before_it_is_validated(seed):
    """Of two groups one is tested, of three each part has one, whatever else the groups hold."""
    rng = np.random.default_rng(seed)
    groups = {0: 2, 1: 3, 2: 20, 3: 2}
    label = np.repeat(list(groups), list(groups.values()))
    sizes = rng.integers(1, 30, len(label))
    group, label = np.repeat(np.arange(len(label)), sizes), np.repeat(label, sizes)
    part = assign_evenly(group, label, (0.7, 0.1, 0.2), seed)
    held = {c: {PARTS[p] for p in part[label == c]} for c in groups}
    assert held == {0: {"train", "test"}, 1: set(PARTS), 2: set(PARTS), 3: {"train", "test"}}


def test_more_starts_and_sweeps_are_more_even(monkeypatch):
    """What the two constants are for, over a hundred random tables."""
    rng = np.random.default_rng(0)
    tables = [(rng.integers(0, 25, 120), rng.integers(0, 4, 120)) for _ in range(100)]

    def unevenness(starts, sweeps):
        monkeypatch.setattr(assignment, "STARTS", starts)
        monkeypatch.setattr(assignment, "SWEEPS", sweeps)
        total = 0.0
        for seed, (group, label) in enumerate(tables):
            part = assign_evenly(group, label, (0.7, 0.1, 0.2), seed)
            counts = np.zeros((3, 4))
            np.add.at(counts, (part, label), 1)
            wanted = np.outer((0.7, 0.1, 0.2), np.bincount(label, minlength=4))
            total += ((counts - wanted) ** 2 / wanted).sum()
        return total / len(tables)

    usual = unevenness(8, 4)
    assert usual < 0.8 * unevenness(1, 4) and usual < 0.95 * unevenness(8, 1)
