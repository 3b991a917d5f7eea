"""What a split keeps together: captures, conversations, both, values of an attribute; and which classes can be."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused
from split_tables import QUIET, attempt, part_of_row, split_of, tables

from bench.schema import NO_CLASS
from bench.spec import SplitSpec
from bench.splits import groups
from bench.splits.checks import SplitViolation, verify_split
from bench.splits.split import Split, make_split


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
    with refused("split-impossible", "more than 1 group;"):
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


@pytest.mark.parametrize(
    ("few", "words"),
    [
        (3, "class 0, class 1, class 2 of 5 classes"),
        (4, "class 0, class 1, class 2 and 1 more of 5 classes"),
        (5, "class 0, class 1, class 2 and 2 more of 5 classes"),
    ],
)
def test_auto_names_three_classes_with_few_captures_and_counts_the_others(table_store, few, words):
    row = np.arange(50)
    capture = np.where(row // 10 < few, row // 10 * 10, row)  # one capture a class, or ten
    store = table_store({"labels": row // 10, "conversation": row, "capture": capture, "start": row})
    assert f"not by capture: {words} have fewer than 3 " in groups.settled(store, "task", SplitSpec())[1]


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


def test_one_capture_group_a_class_cannot_be_split_by_capture(table_store, simple):
    with refused("split-impossible"):
        split_of(table_store(simple | {"capture": simple["labels"]}), "task", "capture")


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
