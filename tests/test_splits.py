"""Splits: what they promise, over random stores."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused
from split_tables import QUIET, attempt, part_of_row, split_of, tables

from bench.schema import NO_CLASS, Samples
from bench.spec import SplitSpec, named_seed
from bench.splits.checks import SplitViolation, verify_split


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


def test_five_folds_are_70_10_20(table_store):
    labels = np.repeat(np.arange(4), 100)
    table = dict.fromkeys(("conversation", "capture", "start"), np.arange(400)) | {"labels": labels}
    for fold in range(5):
        split = split_of(table_store(table), "task", "session", fold=fold, folds=5)
        assert [len(part) for part in split.parts.values()] == [280, 40, 80]
        assert all(counts == {"train": 70, "validation": 10, "test": 20} for counts in split.counts.values())


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


def test_bad_requests(table_store, simple, tmp_path):
    store = table_store(simple)
    for code, named, arguments, options in [
        ("unknown-split", "randomly", ("task", "randomly"), {}),
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


def test_one_start_for_all_cannot_be_split_by_time(table_store, simple):
    with refused("bad-options", "no session tells when it began"):
        split_of(table_store(simple | {"start": simple["start"] * 0}), "task", "time")


def test_resampling_to_a_number_has_a_bound_and_so_have_folds(table_store, simple):
    store = table_store(simple)
    assert split_of(store, "task", "paper", max_per_class=5_000).counts["class 0"]["train"] == 3_500
    for most in (5_000_001, 10**12, 10**30):
        with refused("bad-class-size", f"max-per-class {most}", "2 classes", "5000000"):
            split_of(store, "task", "paper", max_per_class=most)
        for scheme, balance in (("paper", "undersample"), ("session", "resample")):  # which make no more of it
            split_of(store, "task", scheme, balance=balance, max_per_class=most)
    with refused("bad-fold", "40 sessions", "5000"):
        split_of(store, "task", "paper", fold=0, folds=5_000)
    with refused("bad-fold", "1000000000", "2 to 10,000"):
        split_of(store, "task", "paper", fold=0, folds=10**9)


def test_import_is_light():
    heavy = ("numba", "sklearn", "torch", "pyarrow", "pandas")
    code = f"import bench.splits.split, bench.method, sys; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
