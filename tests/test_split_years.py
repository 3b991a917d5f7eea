"""Classes whose captures were years apart: a split by time says nothing about drift between them."""

import json

import numpy as np
import pytest
from refusals import refused
from split_tables import split_of

from bench.splits.assignment import PARTS
from bench.splits.clocks import YEAR


def years(*starts_by_class):
    """A table of sessions, each a conversation and capture of its own, at times in years since 1970."""
    starts = np.concatenate([np.array(starts, float) for starts in starts_by_class])
    labels = np.repeat(np.arange(len(starts_by_class)), [len(starts) for starts in starts_by_class])
    row = np.arange(len(starts))
    return {"labels": labels, "conversation": row, "capture": row, "start": np.round(starts * YEAR).astype(np.int64)}


def spread(begin, end, number=20):
    return np.linspace(begin, end, number)


def test_classes_of_other_years_are_not_divided_by_time(table_store):
    store = table_store(years(spread(45, 45.5), spread(45.2, 45.9), spread(47, 47.1)))
    with refused("split-impossible", "fake: split time", "class 0 (2014-12-21 to 2015-06-2", "class 2 (2016-12-20 to"):
        split_of(store, "task", "time")
    assert split_of(store, "task", "session").remarks == ()
    many = table_store(years(*[spread(45, 45.5)] * 5, spread(50, 51)))
    with refused("split-impossible", "class 2 (", " and 2 more; class 5 ("):
        split_of(many, "task", "time")


@pytest.mark.parametrize("apart", [0.9, 1.0])
def test_a_year_between_classes_is_not_too_much(table_store, apart):
    split = split_of(table_store(years(spread(45, 46), spread(46 + apart, 47.1))), "task", "time")
    assert len(split.train) == 28
    with refused("split-impossible"):
        split_of(table_store(years(spread(45, 46), spread(47.0001, 48))), "task", "time")


def test_a_class_of_all_years_lets_the_others_be_divided_and_named(table_store):
    """Nobody can train on the last class or test the second, and that is said: the first one stands in both."""
    split = split_of(table_store(years(spread(45, 55, 60), spread(45, 45.5), spread(54.5, 55))), "task", "time")
    (remark,) = split.remarks
    train, test = remark.split("; ")
    assert train.startswith("train part (2014-12-21 to ") and "class 2 (2024-06-" in train and "class 1" not in train
    assert test.startswith("test part (") and "class 1 (2014-12-21 to 2015-06-2" in test and "class 2" not in test
    assert split.summary()["remarks"] == [remark]
    lacks = [(row["class"], row["part"]) for row in split.summary()["shortfalls"]]
    assert ("class 1", "test") in lacks and ("class 2", "train") in lacks


def test_classes_that_a_part_lacks_within_a_year_are_no_matter_of_clocks(table_store):
    split = split_of(table_store(years(spread(45, 45.5), spread(45.6, 45.7, 5))), "task", "time")
    assert split.remarks == () and split.summary()["shortfalls"]


def test_a_filter_may_take_the_class_of_other_years(table_store):
    store = table_store(years(spread(45, 46), spread(45, 46), spread(50, 50.1, 2)))
    with refused("split-impossible"):
        split_of(store, "task", "time")
    assert [len(part) for part in split_of(store, "task", "time", min_per_class=3).parts.values()] == [28, 4, 8]


def test_what_is_saved_by_time_is_read_without_being_divided_anew(table_store, tmp_path):
    store = table_store(years(spread(45, 46), spread(50, 51)))
    parts = [np.arange(20), np.arange(20, 25), np.arange(25, 40)]
    lists = {
        name: {"session": rows.tolist(), "first": [0] * len(rows), "count": [1] * len(rows)}
        for name, rows in zip(PARTS, parts, strict=True)
    }
    head = {"format": "bench-split-1", "store": store.digest, "dataset": "fake", "task": "task", "scheme": "time"}
    (tmp_path / "time.json").write_text(json.dumps(head | lists))
    (remark,) = split_of(store, "task", "file", file=tmp_path / "time.json").remarks
    assert "train part" in remark and "test part" in remark
    (tmp_path / "time.json").write_text(json.dumps(head | {"scheme": "file"} | lists))
    assert split_of(store, "task", "file", file=tmp_path / "time.json").remarks == ()
