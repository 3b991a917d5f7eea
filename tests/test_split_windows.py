"""Splits of windows: who keeps a session together, and the split that does not."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused
from split_tables import QUIET, attempt, split_of, tables

from bench.schema import Samples
from bench.spec import SplitSpec
from bench.splits.assignment import balanced
from bench.splits.checks import SplitViolation, check_windows, verify_split
from bench.splits.split import Split


@pytest.fixture(scope="session")
def window_store(make_store):
    """Sessions of many sizes, all packets with payload, of a table's columns."""

    def make(table, seed=0):
        sizes = np.random.default_rng(seed).integers(1, 40, len(table["labels"]))
        sessions = {name: table[name] for name in ("conversation", "capture", "start")}
        sessions |= {"packets": sizes, "payload_packets": sizes, "first_packet": np.cumsum(sizes) - sizes}
        names = [f"class {c}" for c in range(max(table["labels"].max() + 1, 1))]
        packets = {"payload_length": np.ones(sizes.sum())}
        return make_store(sessions, packets, labels=table["labels"], classes=names, attributes={"a": table["capture"]})

    return make


WINDOWS = "window=4,step=2"


@QUIET
@given(
    table=tables(),
    scheme=st.sampled_from(["session", "capture", "time", "attribute:a"]),
    balance=st.sampled_from(["keep", "undersample", "resample"]),
    least=st.none() | st.integers(1, 40),
    seed=st.integers(0, 5),
)
def test_windows_of_a_session_stay_in_one_part(window_store, table, scheme, balance, least, seed):
    store = window_store(table)
    options = {"sampling": WINDOWS, "min_per_class": least}
    split = attempt(store, "task", scheme, seed=seed, balance=balance, **options)
    plain = split_of(store, "task", scheme, seed=seed, **options)
    sessions = [set(part.session.tolist()) for part in split.parts.values()]
    assert not (sessions[0] & sessions[1] or sessions[0] & sessions[2] or sessions[1] & sessions[2])
    for name in ("validation", "test"):  # balancing is training's alone
        for column in ("session", "first", "count"):
            assert (getattr(split.parts[name], column) == getattr(plain.parts[name], column)).all()
    made = [n for counts in plain.counts.values() if (n := sum(counts.values()))]
    assert scheme in ("time", "attribute:a") or min(made) >= (least or 1)
    trained = [counts["train"] for counts in plain.counts.values() if counts["train"]]
    wanted = {"keep": trained, "undersample": [min(trained)], "resample": [max(trained)]}[balance]
    now = [counts["train"] for counts in split.counts.values() if counts["train"]]
    assert now == trained if balance == "keep" else set(now) == set(wanted)
    assert split.scored == tuple(c for c, n in enumerate(plain.counts.values()) if sum(n.values()))


@QUIET
@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=60), most=st.none() | st.integers(1, 40))
def test_resampling_repeats_all_rows_equally(labels, most):
    labels = np.array(labels)
    sizes = np.bincount(labels)[np.unique(labels)]
    rows = balanced(labels, "resample", most, 7)
    assert (np.diff(rows) >= 0).all()
    for c in np.unique(labels):
        times = np.bincount(rows, minlength=len(labels))[labels == c]
        assert times.sum() == (most or sizes.max()) and times.max() - times.min() <= 1
    fewer = balanced(labels, "undersample", None, 7)
    assert len(np.unique(fewer)) == len(fewer)
    assert (np.bincount(labels[fewer])[np.unique(labels)] == sizes.min()).all()
    assert (balanced(labels, "keep", None, 7) == np.arange(len(labels))).all()


def test_windows_are_saved_and_loaded(window_store, simple, tmp_path):
    store, path = window_store(simple), tmp_path / "split.json"
    for options in (
        {"scheme": "session", "sampling": WINDOWS, "balance": "resample", "min_per_class": 3},
        {"scheme": "paper", "sampling": "window=3,stride=2", "max_per_class": 70},
    ):
        split = split_of(store, "task", **options)
        split.save(path)
        loaded = split_of(store, "task", "file", file=path)
        assert loaded.digest == split.digest and loaded.summary() == split.summary()
        assert [part.stride for part in loaded.parts.values()] == [split.test.stride] * 3
        assert split.head.items() >= options.items()
    content = json.loads(path.read_text()) | {"sampling": "window"}
    path.write_text(json.dumps(content))
    with refused("bad-sampling"):
        Split.load(path, store)


def test_the_paper_s_split_is_balanced_random_and_counts_what_leaks(window_store, simple):
    store = window_store(simple)
    split = split_of(store, "task", "paper", sampling=WINDOWS, max_per_class=300)
    assert split.counts == {f"class {c}": {"train": 210, "validation": 30, "test": 60} for c in range(2)}
    assert split.spec.balancing == "resample" and split.verified == (
        "nothing: samples are assigned at random, and parts share sessions on purpose",
    )
    windows = {
        name: list(zip(p.session.tolist(), p.first.tolist(), p.count.tolist(), strict=True))
        for name, p in split.parts.items()
    }
    every = sorted({window for part in windows.values() for window in part})
    held = {(s, packet) for s, first, count in windows["train"] for packet in range(first, first + count)}
    train, sessions = set(windows["train"]), {s for s, _, _ in windows["train"]}
    overlaps = [any((s, p) in held for p in range(f, f + n)) for s, f, n in windows["test"]]
    beside = [
        any(w in train and w[0] == window[0] for w in every[max(at - 1, 0) : at + 2])
        for window in windows["test"]
        for at in [every.index(window)]
    ]
    conversations = {simple["conversation"][s] for s in sessions}
    summary = split.summary()
    counted = {
        "windows": sum(w in train for w in windows["test"]),
        "overlapping_windows": sum(overlaps),
        "neighbours": sum(map(max, overlaps, beside)),
        "sessions": sum(s in sessions for s, _, _ in windows["test"]),
        "conversations": sum(simple["conversation"][s] in conversations for s, _, _ in windows["test"]),
    }
    assert {name: summary[f"test_in_training_{name}"] for name in counted} == counted
    assert summary["repeated"] == 600 - len(every) and min(counted.values()) > 0
    assert summary["reduced_scale"]
    assert not split_of(store, "task", "paper", max_per_class=10_000).summary()["reduced_scale"]
    assert (split.groups["test"] == simple["conversation"][split.test.session]).all()


@pytest.mark.parametrize("fold", [0, 3])
def test_folds_of_the_paper_s_split_have_its_share_of_validation(window_store, simple, fold):
    """A fold is tested; of the rest an eighth is validation, as 10 is of 80."""
    options = {"sampling": WINDOWS, "max_per_class": 160, "fold": fold, "folds": 4}
    split = split_of(window_store(simple), "task", "paper", **options)
    assert split.counts == {f"class {c}": {"train": 105, "validation": 15, "test": 40} for c in range(2)}


@pytest.mark.parametrize(
    ("scheme", "balance"), [("paper", "resample"), ("paper", "undersample"), ("session", "undersample")]
)
def test_what_balancing_drops_is_counted(window_store, simple, scheme, balance):
    store = window_store(simple)
    split = split_of(store, "task", scheme, sampling=WINDOWS, balance=balance)
    whole = split_of(store, "task", scheme, sampling=WINDOWS, balance="keep")
    kept, there = (
        {(s, f) for part in one.parts.values() for s, f in zip(part.session.tolist(), part.first.tolist(), strict=True)}
        for one in (split, whole)
    )
    gone = len(there - kept)
    assert split.dropped["balance"] == gone and (balance == "resample" or gone > 0)


def test_windows_with_a_stride_end_within_their_session():
    length = np.array([10])
    fits = Samples(np.array([0]), np.array([1]), np.array([5]), 2)  # packets 1, 3, 5, 7, 9
    check_windows("train", fits, length)
    for first, count, stride in ((2, 5, 2), (1, 6, 2), (0, 4, 4), (9, 2, 1), (0, 0, 1), (-1, 2, 1)):
        with pytest.raises(SplitViolation, match=f"train has a window outside its session, {count} packets"):
            check_windows("train", Samples(np.array([0]), np.array([first]), np.array([count]), stride), length)
    for session in (-1, 1):
        with pytest.raises(SplitViolation, match=f"session {session}, outside the store's 1"):
            check_windows("test", Samples(np.array([session]), np.array([0]), np.array([1])), length)


def test_a_split_says_what_was_verified_with_its_numbers(window_store, simple):
    windows = split_of(window_store(simple), "task", "session", sampling=WINDOWS)
    sessions = sum(len(np.unique(part.session)) for part in windows.parts.values())
    number = sum(len(part) for part in windows.parts.values())
    groups = sum(len(np.unique(numbers)) for numbers in windows.groups.values())
    assert windows.verified == (
        f"each of {number} windows of {sessions} sessions is in one part",
        f"each of {groups} conversations is in one part",
    )
    whole = split_of(window_store(simple), "task", "capture")
    groups = sum(len(np.unique(numbers)) for numbers in whole.groups.values())
    assert whole.verified == ("each of 40 sessions is in one part", f"each of {groups} capture groups is in one part")


def test_folds_of_the_paper_s_split_test_every_window_once(window_store, simple):
    store = window_store(simple)
    parts = [split_of(store, "task", "paper", sampling=WINDOWS, balance="keep", fold=f, folds=4) for f in range(4)]
    tested = sorted((s, f) for split in parts for s, f in zip(split.test.session, split.test.first, strict=True))
    whole = split_of(store, "task", "session", sampling=WINDOWS)
    made = sorted((s, f) for p in whole.parts.values() for s, f in zip(p.session, p.first, strict=True))
    assert tested == made


def test_a_splitter_that_deals_windows_is_caught_under_a_clean_name(window_store, simple, monkeypatch):
    """The paper's dealing behind the scheme `session`: the proof does not believe the name."""
    store = window_store(simple)
    monkeypatch.setattr("bench.splits.split.groups_of", lambda store, *rest: np.asarray(store.session("conversation")))
    monkeypatch.setattr("bench.splits.split.assign_groups", lambda groups, labels, *rest: np.arange(len(labels)) % 3)
    with pytest.raises(SplitViolation, match="session 0 is twice in the split, in two parts"):
        split_of(store, "task", "session", sampling=WINDOWS)
    broken = {"train": Samples(*np.array([[0, 0], [0, 0], [4, 4]]))} | {
        name: Samples(*np.array([[row], [0], [4]])) for row, name in ((2, "validation"), (4, "test"))
    }
    groups = {name: part.session // 2 for name, part in broken.items()}
    with pytest.raises(SplitViolation, match="the window from packet 0 of session 0 is twice in the train part"):
        verify_split(SplitSpec(), broken, groups, simple["labels"], simple["start"], simple["conversation"])
    repeated = SplitSpec(balance="resample")
    assert verify_split(repeated, broken, groups, simple["labels"], simple["start"], simple["conversation"])
