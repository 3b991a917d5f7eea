"""Splits: what they promise, over random stores."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused
from split_tables import QUIET, attempt, part_of_row, split_of, tables

from bench.schema import NO_CLASS, Samples
from bench.spec import SplitSpec, named_seed
from bench.splits import assignment, groups
from bench.splits.assignment import PARTS, assign_evenly
from bench.splits.checks import SplitViolation, verify_split
from bench.splits.split import Split, make_split


def groups_of(table, scheme):
    return table["capture" if scheme == "capture" else "conversation"]


def divided_rows(table, scheme):
    """Sessions of the task; by capture, of classes that are in two captures or more."""
    labels = table["labels"]
    captures = {c: len(set(table["capture"][labels == c])) for c in set(labels.tolist()) - {NO_CLASS}}
    return np.array([c != NO_CLASS and (scheme == "session" or captures[c] > 1) for c in labels.tolist()])


@QUIET
@given(table=tables(), scheme=st.sampled_from(["session", "capture"]), seed=st.integers(0, 5))
def test_groups_stay_together_and_every_sample_has_a_part(table_store, table, scheme, seed):
    split = attempt(table_store(table), "task", scheme, seed=seed)
    part = part_of_row(split, len(table["labels"]))
    assert ((part >= 0) == divided_rows(table, scheme)).all()
    used = part >= 0
    for group in np.unique(groups_of(table, scheme)[used]):
        assert len(np.unique(part[used & (groups_of(table, scheme) == group)])) == 1
    for name, samples in split.parts.items():
        assert (split.groups[name] == groups_of(table, scheme)[samples.session]).all()
        assert split.groups[name].dtype == np.int64


@QUIET
@given(table=tables(), scheme=st.sampled_from(["session", "capture"]), folds=st.integers(2, 6))
def test_test_parts_of_folds_partition_the_samples(table_store, table, scheme, folds):
    splits = [attempt(table_store(table), "task", scheme, fold=f, folds=folds) for f in range(folds)]
    tests = np.concatenate([split.test.session for split in splits])
    assert (np.sort(tests) == np.flatnonzero(divided_rows(table, scheme))).all()
    for split in splits:
        assert sum(map(len, split.parts.values())) == len(tests)


@QUIET
@given(table=tables())
def test_time_trains_on_the_past(table_store, table):
    split = attempt(table_store(table), "task", "time")
    start, conversation = table["start"], table["conversation"]
    assert start[split.train.session].max() < start[split.validation.session].min()
    assert start[split.validation.session].max() < start[split.test.session].min()
    part = part_of_row(split, len(start))
    seen = [set(conversation[part == p]) for p in range(3)]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    # what is dropped has a conversation that an earlier part holds
    dropped = np.flatnonzero((part == -1) & (table["labels"] != NO_CLASS))
    assert split.dropped == {"conversation in an earlier part": len(dropped)}
    for row in dropped:
        earlier = part[(conversation == conversation[row]) & (part >= 0)]
        assert len(earlier)
        assert start[row] > start[(conversation == conversation[row]) & (part >= 0)].min()


def components(capture, conversation, rows):
    """Sets of captures that conversations join, by merging pairs until nothing changes."""
    sets = [{c} for c in sorted(set(capture.tolist()))]
    for one in sorted(set(conversation[rows].tolist())):
        held = set(capture[rows][conversation[rows] == one].tolist())
        joined = set.union(*(s for s in sets if s & held))
        sets = [s for s in sets if not s & held] + [joined]
    return sets


@QUIET
@given(number=st.integers(0, 2**32))
def test_joined_captures_are_those_of_a_slow_reference(number):
    rng = np.random.default_rng(number)
    size = int(rng.integers(1, 60))
    capture, conversation = rng.integers(0, 12, size), rng.integers(0, 40, size)
    rows = np.flatnonzero(rng.random(size) < 0.7)
    found = groups.joined(capture, conversation, rows)
    expected = components(capture, conversation, rows)
    number_of = {c: n for n, s in enumerate(expected) for c in s}
    pairs = {(number_of[c], f) for c, f in zip(capture.tolist(), found.tolist(), strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def broadcasting(table_store, **ports):
    """Six captures of two classes, each with a talk of its own and one DHCP conversation that all have."""
    row = np.arange(24)
    table = {
        "labels": row % 4 // 2,
        "conversation": np.where(row % 2, 100, row),
        "capture": row // 2 % 12,
        "start": row,
    }
    store = table_store(table)
    store.sessions["protocol"] = np.full(24, 17, np.uint8)
    store.sessions["server_port"] = np.where(row % 2, ports.get("port", 67), 443).astype(np.uint16)
    for end in ("client_ip", "server_ip"):
        store.sessions[end] = np.array([bytes([10, 0, 0, 1])] * 24, "S16")
    store.sessions["ip_version"] = np.full(24, 4, np.uint8)
    return store


def test_capture_and_session_keeps_both_apart_and_drops_what_would_join_all(table_store):
    store = broadcasting(table_store)
    split = attempt(store, "task", "capture+session")
    assert split.dropped["filter: dhcp"] == 12
    assert split.shared["shared_conversations"] == split.shared["shared_capture_groups"] == 0
    assert split.shared["groups_with_broadcasts"] == 1
    assert any("conversations is in one part" in line for line in split.verified)
    by_capture = attempt(store, "task", "capture")
    assert by_capture.shared["shared_conversations"] == 1  # what the new scheme is for
    with refused("split-impossible", "1 groups are too few"):
        make_split(broadcasting(table_store, port=9999), "task", SplitSpec("capture+session"))


def test_addresses_of_all_are_broadcasts_too(table_store):
    store = broadcasting(table_store, port=9999)
    row = np.arange(24)
    to_all = np.array([bytes([10, 0, 0, 2]), bytes([224, 0, 0, 251])], "S16")
    store.sessions["server_ip"] = to_all[row % 2]
    split = attempt(store, "task", "capture+session")
    assert split.dropped["filter: other broadcast or multicast"] == 12
    store.sessions["ip_version"] = np.full(24, 6, np.uint8)  # there 224… is a usual address
    with refused("split-impossible"):
        make_split(store, "task", SplitSpec("capture+session"))


def test_a_class_of_one_capture_stays_out_unless_asked_for(table_store):
    row = np.arange(60)
    table = {"labels": np.minimum(row // 20, 2), "conversation": row, "capture": np.where(row < 40, row // 4, 99)}
    store = table_store(table | {"start": row})
    split = make_split(store, "task", SplitSpec("capture"))
    assert split.counts["class 2"] == {"train": 0, "validation": 0, "test": 0}
    assert split.dropped == {"class with fewer than 2 capture groups": 20}
    assert split.summary()["emptied"] == ["class 2"] and split.scored == (0, 1)
    asked = make_split(store, "task", SplitSpec("capture", min_groups=1))
    assert sum(asked.counts["class 2"].values()) == 20 and asked.dropped == {}


def test_auto_is_by_capture_where_every_class_has_captures_enough(table_store):
    row = np.arange(60)
    table = {"labels": row // 30, "conversation": row, "capture": row // 10, "start": row}
    assert groups.settled(table_store(table), "task", SplitSpec()) == (SplitSpec("capture"), "")
    assert make_split(table_store(table), "task", SplitSpec()).spec == SplitSpec("capture")
    spec, why = groups.settled(table_store(table), "task", SplitSpec(folds=4))
    assert spec == SplitSpec("session", folds=4) and "fewer than 4 capture groups" in why
    table["capture"] = np.where(row < 30, row // 10, 9)
    spec, why = groups.settled(table_store(table), "task", SplitSpec(seed=3))
    assert spec == SplitSpec("session", seed=3)
    assert "class 1 of 2 classes have fewer than 3 capture groups" in why


def test_time_cuts_at_the_shares_and_keeps_equal_starts_together(table_store):
    rows = np.arange(100)
    table = {"labels": rows * 0, "conversation": rows, "capture": rows, "start": rows[::-1]}
    split = split_of(table_store(table), "task", "time")
    assert [len(part) for part in split.parts.values()] == [70, 10, 20]
    assert split.test.session.tolist() == list(range(20))
    split = split_of(table_store(table | {"start": rows // 25}), "task", "time", parts=(0.5, 0.25, 0.25))
    assert [len(part) for part in split.parts.values()] == [50, 25, 25]


@QUIET
@given(table=tables(), scheme=st.sampled_from(["session", "capture", "time"]), seed=st.integers(0, 5))
def test_same_request_same_split_and_the_order_of_rows_does_not_matter(table_store, table, scheme, seed):
    split = attempt(table_store(table), "task", scheme, seed=seed)
    again = split_of(table_store(table), "task", scheme, seed=seed)
    assert split.digest == again.digest
    shuffle = np.random.default_rng(seed).permutation(len(table["labels"]))
    other = split_of(table_store({k: v[shuffle] for k, v in table.items()}), "task", scheme, seed=seed)
    size = len(shuffle)
    assert (part_of_row(other, size) == part_of_row(split, size)[shuffle]).all()


@QUIET
@given(
    seed=st.integers(0, 2**32),
    groups=st.lists(st.integers(20, 60), min_size=1, max_size=8),
    largest=st.integers(1, 12),
    scheme=st.sampled_from(["session", "capture"]),
)
def test_parts_and_classes_have_their_shares(table_store, seed, groups, largest, scheme):
    """Off by no more than a few of the largest groups, per class and part, and no class missing."""
    rng = np.random.default_rng(seed)
    sizes = [rng.integers(1, largest + 1, n) for n in groups]
    labels = np.repeat(np.arange(len(groups)), [s.sum() for s in sizes])
    group = np.repeat(np.arange(sum(groups)), np.concatenate(sizes))
    table = {"labels": labels, "conversation": group, "capture": group, "start": group}
    part = part_of_row(split_of(table_store(table), "task", scheme, seed=seed), len(labels))
    for c in range(len(groups)):
        counts = np.bincount(part[labels == c], minlength=3)
        assert (counts > 0).all()
        assert np.abs(counts - np.array([0.7, 0.1, 0.2]) * counts.sum()).max() <= 1.0 * largest + 1
    total = np.bincount(part, minlength=3)
    assert np.abs(total - np.array([0.7, 0.1, 0.2]) * len(part)).max() <= 2 * largest + len(groups)


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


def test_five_folds_are_70_10_20(table_store):
    labels = np.repeat(np.arange(4), 100)
    table = dict.fromkeys(("conversation", "capture", "start"), np.arange(400)) | {"labels": labels}
    for fold in range(5):
        split = split_of(table_store(table), "task", "session", fold=fold, folds=5)
        assert [len(part) for part in split.parts.values()] == [280, 40, 80]
        assert all(counts == {"train": 70, "validation": 10, "test": 20} for counts in split.counts.values())


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


def test_seeds_differ_and_test_every_group(table_store):
    """Repeats by seed would be of little use if the largest groups were in training each time."""
    group = np.repeat(np.arange(40), np.arange(1, 41))
    table = dict.fromkeys(("conversation", "capture", "start"), group) | {"labels": group % 2}
    splits = [split_of(table_store(table), "task", "session", seed=seed) for seed in range(60)]
    assert len({split.digest for split in splits}) == 60
    tested, times = np.unique(np.concatenate([np.unique(split.groups["test"]) for split in splits]), return_counts=True)
    assert len(tested) == 40
    assert times[-10:].mean() >= 0.15 * 60, "large groups are tested about as often as the test part's share"


def test_dataset_task_scheme_and_fold_have_their_own_draws(table_store):
    seeds = {
        named_seed(0, "demo", "task", "session"),
        named_seed(0, "demo", "task", "capture"),
        named_seed("0demo", "task"),
    }
    assert len(seeds) == 3 and all(0 <= seed < 2**63 for seed in seeds)
    assert named_seed("a", 1) == named_seed("a", "1")


@QUIET
@given(table=tables(), most=st.integers(1, 30))
def test_cap_is_nested_and_the_same_for_all_folds(table_store, table, most):
    store = table_store(table)
    split = attempt(store, "task", "session", max_per_class=most)
    larger = split_of(store, "task", "session", max_per_class=most + 5)
    kept, more = (set(np.flatnonzero(part_of_row(s, len(table["labels"])) >= 0)) for s in (split, larger))
    assert kept <= more
    for c in range(max(table["labels"].max() + 1, 0)):
        have = (table["labels"] == c).sum()
        assert sum(split.counts[f"class {c}"].values()) == min(have, most)
    assert split.summary()["reduced_scale"]
    assert split.dropped["max_per_class"] == (table["labels"] >= 0).sum() - len(kept)
    folds = [attempt(store, "task", "session", fold=f, folds=2, max_per_class=most).test.session for f in range(2)]
    assert set(np.concatenate(folds)) == kept


def test_digests_of_splits_without_the_later_options_stay(table_store, simple):
    """As they were before there were filters, windows and balances: finished runs and saved splits hang on them."""
    store = table_store(simple)
    for digest, scheme, options in [
        ("8310ae5bf4a61a0d393a96f6df2f4d8d85dc2294cba68c1d790a79714c127188", "session", {}),
        ("676399c616c7f2411792fe5eeee0d13d50856a9238683e730f2d4dea8c70be8e", "capture", {"seed": 3}),
        ("6edea8fdcff9499dae5a60d2a4e1af818cde5b9fc3f070101d43ba7209e77521", "time", {}),
        (
            "747a8e4681c8a10e2ea302d2b1888edbeddcebcd61f9a51409c1752212b9c103",
            "session",
            {"fold": 1, "folds": 4, "max_per_class": 15},
        ),
    ]:
        split = split_of(store, "task", scheme, **options)
        assert split.digest == digest
        usual = {"filter": "none", "sampling": "session", "balance": "keep", "min_per_class": None}
        assert split_of(store, "task", scheme, **options, **usual).digest == digest


def test_sharing_is_measured(table_store, simple):
    split = split_of(table_store(simple), "task", "capture")
    summary = split.summary()
    part = part_of_row(split, 40)
    straddling = [c for c in range(20) if len(set(part[simple["conversation"] == c])) > 1]
    assert summary["shared_conversations"] == len(straddling) > 0
    assert summary["shared_capture_groups"] == 0 == summary["test_in_training_capture_groups"]
    by_session = split_of(table_store(simple), "task", "session")
    part = part_of_row(by_session, 40)
    straddling = [c for c in range(4) if len(set(part[simple["capture"] == c])) > 1]
    assert by_session.summary()["shared_capture_groups"] == len(straddling) > 0
    part = part_of_row(split, 40)
    in_training = set(simple["conversation"][part == 0])
    assert summary["test_in_training_conversations"] == sum(c in in_training for c in simple["conversation"][part == 2])
    assert json.loads(json.dumps(summary)) == summary
    assert by_session.summary()["shared_conversations"] == 0


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
        cells = ((counts - expected) ** 2 / expected).ravel().tolist()  # added one by one: ties fall as they do there
        share = expected[:, -1:] / expected[:, -1].sum()
        lack = (counts == 0) * (1 + share) * np.where(np.arange(counts.shape[1]) < len(classes), 1, len(classes) + 1)
        distance = reduce(add, cells) + 1e6 * lack.sum()
        if best is None or distance < best[0]:
            best = distance, part
    return [best[1][g] for g in group]


@QUIET
@given(st.integers(0, 2**32), st.sampled_from([(0.7, 0.1, 0.2), (0.2,) * 5, (0.5, 0.5)]))
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


def move(samples_from, samples_to, row):
    """Both parts after a session went over."""
    at = samples_from.session == row
    union = np.sort(np.append(samples_to.session, row))
    ones = np.ones(len(union), np.int64)
    return samples_from.take(np.flatnonzero(~at)), Samples(union, ones * 0, ones)


@pytest.mark.parametrize("scheme", ["session", "capture", "time"])
def test_a_broken_assignment_is_caught(table_store, simple, scheme):
    simple["capture"] = simple["conversation"]
    store = table_store(simple)
    split = split_of(store, "task", scheme)

    def again(parts):
        groups = {name: simple["conversation"][part.session] for name, part in parts.items()}
        columns = store.labels("task"), store.session("start"), store.session("conversation")
        return verify_split(SplitSpec(scheme), parts, groups, *columns)

    assert again(split.parts) == split.verified
    train, test = move(split.train, split.test, split.train.session[0])
    with pytest.raises(SplitViolation, match="two parts"):
        again(split.parts | {"train": train, "test": test})
    double = split.train.take(np.append(np.arange(len(split.train)), 0))
    with pytest.raises(SplitViolation, match="twice"):
        again(split.parts | {"train": double})
    with pytest.raises(SplitViolation, match="empty"):
        again(split.parts | {"test": split.test.take(np.arange(0))})
    if scheme == "time":
        swapped = {"train": split.test, "validation": split.validation, "test": split.train}
        with pytest.raises(SplitViolation, match="starts before"):
            again(swapped)
        last = store.session("start")[split.validation.session].max()
        columns = store.labels("task"), np.where(store.session("start") > last, last, store.session("start"))
        with pytest.raises(SplitViolation, match="starts before"):  # at the same moment is not after
            groups = {name: simple["conversation"][part.session] for name, part in split.parts.items()}
            verify_split(SplitSpec(scheme), split.parts, groups, *columns, store.session("conversation"))
    store.label = np.where(np.arange(40) == split.test.session[0], NO_CLASS, store.label)
    with pytest.raises(SplitViolation, match="does not use"):
        again(split.parts)


def test_a_class_of_just_enough_samples_stays(table_store, simple):
    sizes = np.bincount(simple["labels"])
    least = int(sizes.min())
    kept = split_of(table_store(simple), "task", "session", min_per_class=least)
    assert kept.dropped["min_per_class"] == 0 and len(kept.scored) == len(sizes)
    if least < sizes.max():
        fewer = split_of(table_store(simple), "task", "session", min_per_class=least + 1)
        assert fewer.dropped["min_per_class"] == sizes[sizes == least].sum()


def test_a_violation_names_the_session_and_the_group(table_store, simple):
    simple["capture"] = simple["conversation"]
    store = table_store(simple)
    split = split_of(store, "task", "session")
    columns = store.labels("task"), store.session("start"), store.session("conversation")
    row = int(split.train.session[-1])
    train, test = move(split.train, split.test, row)
    parts = split.parts | {"train": train, "test": test}
    groups = {name: simple["conversation"][part.session] for name, part in parts.items()}
    torn = set(groups["train"]) & set(groups["test"])
    if torn:
        with pytest.raises(SplitViolation, match=f"group {min(torn)} is in two parts"):
            verify_split(SplitSpec(), parts, groups, *columns)
    both = split.parts | {"test": Samples(np.append(split.test.session, row), *np.ones((2, len(split.test) + 1), int))}
    with pytest.raises(SplitViolation, match=f"session {row} is twice"):
        verify_split(SplitSpec(), both, {n: simple["conversation"][p.session] for n, p in both.items()}, *columns)


@pytest.mark.parametrize("values", [1, 2, 3])
def test_an_attribute_needs_as_many_values_as_folds(table_store, simple, values):
    store = table_store(simple, attributes={"person": np.unique(simple["capture"], return_inverse=True)[1] % values})
    for folds in (None, 2, 3):
        needed = folds or 2
        options = {} if folds is None else {"fold": 0, "folds": folds}
        if values < needed:
            with refused("split-impossible", f"needs {needed}"):
                split_of(store, "task", "attribute:person", **options)
        else:
            split_of(store, "task", "attribute:person", **options)


def test_saved_and_loaded(table_store, simple, tmp_path):
    store, path = table_store(simple), tmp_path / "split.json"
    split = split_of(store, "task", "session", fold=1, folds=4, max_per_class=15)
    split.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["split.json"]
    loaded = split_of(store, "task", "file", file=path)
    assert loaded.digest == split.digest and loaded.summary() == split.summary()
    assert (loaded.spec.fold, loaded.spec.folds, loaded.spec.scheme) == (1, 4, "session")
    with refused("wrong-split-file", "split.json"):
        Split.load(path, replace(store, digest="1" * 64))


def test_files_that_are_refused(table_store, simple, tmp_path):
    store, path = table_store(simple), tmp_path / "split.json"
    split_of(store, "task", "session").save(path)
    good = json.loads(path.read_text())

    def load(**changes):
        path.write_text(json.dumps(good | changes))
        return Split.load(path, store)

    def doubled(name, other):
        return {name: {k: [*v, good[other][k][0]] for k, v in good[name].items()}}

    one = {"session": [0], "first": [0], "count": [1]}
    wrong, violated = "wrong-split-file", "split-violation"
    for code, named, changes in [
        (violated, "session 0", {"test": one, "train": one}),
        (violated, "packet 0", doubled("train", "train")),
        (violated, "two parts", doubled("train", "test")),
        (wrong, "changed", {"seed": 5}),
        ("unknown-task", "'other'", {"task": "other"}),
        (violated, "session 40", {"test": one | {"session": [40]}}),
        (violated, "session -1", {"test": one | {"session": [-1]}}),
        (wrong, "test.first", {"test": {"session": [1]}}),
        (wrong, "test.session", {"test": {"session": [1, 2], "first": [0], "count": [1]}}),
        (wrong, "test = []", {"test": []}),
        (wrong, "test.weight", {"test": one | {"weight": [1]}}),
        (wrong, "note", {"note": "mine"}),
        (wrong, "'x'", {"format": "x"}),
        (violated, "packet -1 of session 0", {"test": one | {"first": [-1]}}),
        (violated, "2 packets from packet 0", {"test": one | {"count": [2]}}),
        (violated, "0 packets", {"test": one | {"count": [0]}}),
        (violated, "9223372036854775807", {"test": one | {"count": [2**63 - 1]}}),
        (violated, "the test part is empty", {"test": {"session": [], "first": [], "count": []}}),
        (wrong, "seed = True", {"seed": True}),
        (wrong, r"dataset = 'a\nb'", {"dataset": "a\nb"}),
        (wrong, "another store of other, store fake", {"dataset": "other", "store": "1" * 64}),
        ("bad-fold", "fold 3 of 3", {"fold": 3, "folds": 3}),
        (wrong, "fold = 0", {"fold": 0}),
        ("bad-class-size", "max-per-class", {"max_per_class": 0}),
        (wrong, "shares = [0.5, 0.5]", {"shares": [0.5, 0.5]}),
        (wrong, "dropped", {"dropped": {"x": -1}}),
        ("unknown-filter", "'x'", {"filter": "x"}),
        ("unknown-balance", "'x'", {"balance": "x"}),
        ("bad-sampling", "'x'", {"sampling": "x"}),
    ]:
        with refused(code, f"{path}: ", named):
            load(**changes)
    for number in (1.5, "1", None, True, [1]):
        with refused(wrong, "test.session[0]"):
            load(test=one | {"session": [number]})
    with refused(wrong, path):
        load(test=one | {"session": [2**70]})
    for text in ('{"seed": 0, ' + json.dumps(good)[1:], json.dumps(good).replace('"first"', '"session"', 1)):
        path.write_text(text)
        with refused(wrong, path, "stands twice"):
            Split.load(path, store)
    (tmp_path / "file").touch()
    with refused("unwritable-file", "split.json"):
        split_of(store, "task", "session").save(tmp_path / "file" / "split.json")
    for text in ("", "[]", "{}", "\0", "[" * 100_000, "1" * 5000):
        path.write_text(text)
        with refused(wrong, path):
            Split.load(path, store)
    with refused("missing-file", tmp_path / "none"):
        Split.load(tmp_path / "none", store)


def test_a_file_may_begin_with_a_byte_order_mark(table_store, simple, tmp_path):
    store, path = table_store(simple), tmp_path / "split.json"
    split = split_of(store, "task", "session", seed=2**63 - 1)
    split.save(path)
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert Split.load(path, store).digest == split.digest


def test_a_hand_made_file_may_part_conversations_but_says_so(table_store, simple, tmp_path):
    path, store = tmp_path / "mine.json", table_store(simple)
    parts = [np.arange(0, 40, 2), np.arange(1, 20, 2), np.arange(21, 40, 2)]
    lists = {
        n: {"session": p.tolist(), "first": [0] * len(p), "count": [1] * len(p)}
        for n, p in zip(PARTS, parts, strict=True)
    }
    head = {"format": "bench-split-1", "store": store.digest, "dataset": "fake", "task": "task", "scheme": "file"}
    path.write_text(json.dumps(head | lists))
    split = split_of(store, "task", "file", file=path)
    assert split.spec.scheme == "file" and split.summary()["shared_conversations"] == 20
    assert (split.test.session == parts[2]).all()


def test_bad_requests(table_store, simple, tmp_path):
    store = table_store(simple)
    for code, named, arguments, options in [
        ("unknown-split", "random", ("task", "random"), {}),
        ("unknown-filter", "'x'", ("task", "session"), {"filter": "sugar,x"}),
        ("bad-sampling", "'window'", ("task", "session"), {"sampling": "window"}),
        ("unknown-balance", "'x'", ("task", "session"), {"balance": "x"}),
        ("bad-class-size", "min-per-class", ("task", "session"), {"min_per_class": 0}),
        ("nothing-left", "task task", ("task", "session"), {"min_per_class": 21}),
        ("bad-options", "filter, sampling", ("task", "file"), {"file": tmp_path, "sampling": "window=2"}),
        ("unknown-split", "'attribute'", ("task", "attribute"), {}),
        ("unknown-split", "'time:x'", ("task", "time:x"), {}),
        ("unknown-task", "'x'", ("x", "session"), {}),
        ("bad-fold", "5", ("task", "session"), {"fold": 5, "folds": 5}),
        ("bad-fold", "1", ("task", "session"), {"fold": 0, "folds": 1}),
        ("bad-fold", "", ("task", "session"), {"fold": 0}),
        ("split-impossible", "5 folds", ("task", "capture"), {"fold": 0, "folds": 5}),
        ("bad-fold", "time", ("task", "time"), {"fold": 0, "folds": 5}),
        ("bad-options", "file", ("task", "file"), {}),
        ("bad-options", "file", ("task", "session"), {"file": tmp_path}),
        ("bad-class-size", "max-per-class", ("task", "session"), {"max_per_class": 0}),
    ]:
        with refused(code, named):
            split_of(store, *arguments, **options)


def test_one_capture_group_a_class_cannot_be_split_by_capture(table_store, simple):
    with refused("split-impossible"):
        split_of(table_store(simple | {"capture": simple["labels"]}), "task", "capture")


def test_one_start_for_all_cannot_be_split_by_time(table_store, simple):
    with refused("split-violation", "empty"):
        split_of(table_store(simple | {"start": simple["start"] * 0}), "task", "time")


@QUIET
@given(table=tables(), folds=st.none() | st.integers(2, 4), seed=st.integers(0, 5))
def test_an_attribute_is_learned_on_some_values_and_tested_on_others(table_store, make_store, table, folds, seed):
    value = table["capture"] % 5 - 1  # -1: no value
    store = table_store(table)
    store.attributes["person"] = value
    fold = None if folds is None else seed % folds
    split = attempt(store, "task", "attribute:person", seed=seed, fold=fold, folds=folds)
    part = part_of_row(split, len(value))
    used = table["labels"] != NO_CLASS
    assert split.dropped == {"no person": int((used & (value < 0)).sum())}
    assert ((part >= 0) == (used & (value >= 0))).all()
    assert not set(value[(part == 0) | (part == 1)]) & set(value[part == 2])
    assert not set(table["conversation"][part == 0]) & set(table["conversation"][part == 1])
    if folds:
        parts = [attempt(store, "task", "attribute:person", seed=seed, fold=f, folds=folds) for f in range(folds)]
        tested = np.concatenate([one.test.session for one in parts])
        assert (np.sort(tested) == np.flatnonzero(used & (value >= 0))).all()


def test_a_value_on_both_sides_is_caught(table_store, simple):
    store = table_store(simple)
    store.attributes["person"] = simple["capture"]
    split = split_of(store, "task", "attribute:person")
    groups = dict(split.groups, test=split.groups["train"][:1])
    with pytest.raises(SplitViolation, match="split attribute:person: group"):
        verify_split(split.spec, split.parts, groups, simple["labels"], simple["start"], simple["conversation"])


def test_an_attribute_keeps_conversations_of_training_out_of_validation(table_store, simple, tmp_path):
    """Test may share one with training, as it is of another value: that is counted."""
    store, path = table_store(simple), tmp_path / "split.json"
    store.attributes["person"] = simple["start"] % 3
    split = split_of(store, "task", "attribute:person")
    assert "conversations of training and validation is in one of them" in split.verified[-1]
    assert split.summary()["test_in_training_conversations"] > 0
    both = np.sort(np.concatenate([split.train.session, split.validation.session]))
    parts = {"train": both[::2], "validation": both[1::2], "test": split.test.session}
    assert set(simple["conversation"][parts["train"]]) & set(simple["conversation"][parts["validation"]])
    split.save(path)
    content = json.loads(path.read_text())
    for name, rows in parts.items():
        content[name] = {"session": rows.tolist(), "first": [0] * len(rows), "count": [1] * len(rows)}
    path.write_text(json.dumps(content))
    with pytest.raises(SplitViolation, match=r"split.json: split attribute:person: conversation .* is in two parts"):
        Split.load(path, store)
    store.attributes["person"] = np.full(40, -1)
    split.save(path)
    with pytest.raises(SplitViolation, match="capture has no value of person"):
        Split.load(path, store)


def test_resampling_to_a_number_has_a_bound_and_so_have_folds(table_store, simple):
    store = table_store(simple)
    assert split_of(store, "task", "paper", max_per_class=5_000).counts["class 0"]["train"] == 3_500
    for most in (5_000_001, 10**12, 10**30):
        with refused("bad-class-size", f"max-per-class {most}", "2 classes", "5000000"):
            split_of(store, "task", "paper", max_per_class=most)
        for scheme, balance in (("paper", "undersample"), ("session", "resample")):  # which make no more of it
            split_of(store, "task", scheme, balance=balance, max_per_class=most)
    with refused("bad-fold", "40 sessions", "1000000000"):
        split_of(store, "task", "paper", fold=0, folds=10**9)


def test_an_attribute_may_be_a_pattern_with_braces(table_store, simple):
    store = table_store(simple)
    store.attributes["x=^(.{1,2})"] = simple["capture"]
    split = split_of(store, "task", "attribute:x=^(.{1,2})")
    assert "each of 4 values of x=^(.{1,2}) is learned or tested" in split.verified


def test_an_attribute_needs_two_values(table_store, simple):
    store = table_store(simple)
    store.attributes["person"] = simple["capture"] * 0
    with refused("split-impossible", "person", "attribute:person"):
        split_of(store, "task", "attribute:person")


def test_import_is_light():
    heavy = ("numba", "sklearn", "torch", "pyarrow", "pandas")
    code = f"import bench.splits.split, bench.method, sys; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
