"""Captures of records that are the same under other names, and what a table's blocks must not change."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from record_tables import BARE, ROWS, made, store_of
from refusals import refused

from bench.records import tables
from bench.schema import MARK_BOUNDED
from bench.spec import SplitSpec
from bench.splits.split import make_split

TWO = [row for row in ROWS if row["sizes"] and row["proto"] != 1]


def renamed(rows, name, **more):
    return [{**row, "capture": f"{name} {row['capture']}", **more} for row in rows]


def test_a_capture_under_another_name_is_told_and_not_parted(tmp_path):
    rows = renamed(TWO, "one") + renamed(TWO, "two") + renamed(TWO, "later", start=7.0)
    store = made(tmp_path, rows)
    assert store.manifest.copies == [["one a", "two a"], ["one b", "two b"]]
    groups = [capture.group for capture in store.manifest.captures]
    assert groups == ["later a", "later b", "one a", "one b", "one a", "one b"]
    assert store.manifest.contradictions == []


def test_the_order_of_rows_of_several_captures_does_not_matter(tmp_path):
    rows = [renamed(TWO, name)[place] for place in (0, 1) for name in ("one", "two")]
    more = [{**rows[0], "capture": "one b", "start": 300.0}, {**rows[0], "capture": "two b", "start": 300.0}]
    store = made(tmp_path, [*rows[:2], more[0], *rows[2:], more[1]])
    assert store.manifest.copies == [["one a", "two a"], ["one b", "two b"]]


def test_labels_that_contradict_each_other_are_told(tmp_path):
    store = made(tmp_path, renamed(TWO, "one") + renamed(TWO, "two", label="dns"))
    (line,) = store.manifest.contradictions
    assert line == "the same capture has several labels of task label: one b is web, two b is dns"


@pytest.mark.parametrize(("packets", "copies"), [(9, []), (10, [["one", "two"]])])
def test_few_packets_of_nobody_are_the_same_by_chance(tmp_path, packets, copies):
    (tmp_path / "tables").mkdir()
    rows = [{"capture": name, "sizes": [60, -60] * 5, "label": name} for name in ("one", "two")]
    rows = [{**row, "sizes": row["sizes"][:packets]} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "tables" / "t.parquet")
    assert store_of(tmp_path, BARE).manifest.copies == copies


# --- blocks ----------------------------------------------------------------------------------------------------


@pytest.fixture
def short_blocks(monkeypatch):
    monkeypatch.setattr(tables, "BLOCK", 300)  # two rows each


def test_names_that_look_like_dates_stay_what_they_are_in_every_block(tmp_path, short_blocks):
    names = ["2019-04-01", "2019-04-02 10:00", "unknown", "2019-04-01"]
    rows = [{**TWO[0], "capture": name, "start": float(place)} for place, name in enumerate(names)]
    store = made(tmp_path, rows, table="t.jsonl")
    assert [capture.path for capture in store.manifest.captures] == sorted(set(names))
    listed = made(tmp_path / "list", rows, table="list.json")
    assert [one.path for one in listed.manifest.captures] == sorted(set(names))


def test_times_that_are_texts_are_read_as_before(tmp_path, short_blocks):
    texts = ["1970-01-01T00:01:40.500Z", "1970-01-01 00:01:30"]
    store = made(tmp_path, [{**row, "start": text} for row, text in zip(TWO, texts, strict=True)], table="t.jsonl")
    assert store.session("start").tolist() == [100_500_000_000 + 3_000_000, 90_000_000_000]


def test_nested_names_stay_texts(tmp_path):
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"a": {"b": ["2019-04-01"]}}) + "\n" for _ in range(2)))
    (batch,) = tables.batches(tmp_path / "t.jsonl")
    assert batch.to_pylist() == [{"a": {"b": ["2019-04-01"]}}] * 2


def test_a_key_may_be_missing_in_a_block_as_in_a_row(tmp_path, short_blocks):
    rows = [{name: value for name, value in TWO[0].items() if name != "label"} for _ in range(2)] + [TWO[1]]
    store = made(tmp_path, rows, table="t.jsonl")
    assert sorted(store.labels("label").tolist()) == [-1, -1, 0] and store.classes("label") == ["dns"]
    rows = [{name: value for name, value in row.items() if name != "label"} for row in rows]
    with refused("bad-table", "has no column 'label'"):
        made(tmp_path / "none", rows, table="t.jsonl")


PACKETS = """
name = "packets"
title = "a row a packet"
kind = "records"
[records]
rows = "packets"
endpoints = ["src", "sport", "dst", "dport"]
protocol = "proto"
times = "time"
lengths = "len"
without_length = {least}
[labels]
kind = "columns"
paths = {{ label = "label" }}
[tasks.label]
"""


@pytest.mark.parametrize("table", ["t.parquet", "t.csv"])
def test_packets_without_a_length_are_taken_for_what_the_card_says(tmp_path, table):
    (tmp_path / "tables").mkdir()
    ends = {"src": "10.0.0.1", "sport": 1, "dst": "10.0.0.2", "dport": 2, "proto": 6, "label": "web"}
    rows = [{**ends, "time": place / 10, "len": size} for place, size in enumerate((100, None, 300))]
    if table == "t.csv":
        text = "".join(",".join("" if value is None else str(value) for value in row.values()) + "\n" for row in rows)
        (tmp_path / "tables" / table).write_text(",".join(rows[0]) + "\n" + text)
    else:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "tables" / table)
    store = store_of(tmp_path, PACKETS.format(least=0))
    assert (np.asarray(store.packet("marks")) & MARK_BOUNDED > 0)[1]
    assert "packets without a length, taken for 0 bytes: 1" in store.manifest.limits
    with refused("bad-record", "record 2: len is"):
        store_of(tmp_path, PACKETS.format(least=-1).replace('"packets"\ntitle', '"refused"\ntitle'))


def test_a_split_by_capture_keeps_copies_together(tmp_path):
    rows = [row for number in range(12) for name in ("one", "two")
            for row in renamed(TWO, f"{name} {number}", start=float(number))]  # fmt: skip
    store = made(tmp_path, rows)
    split = make_split(store, "label", SplitSpec("capture"))
    start = np.asarray(store.session("start"))
    parts = [set(start[part.session].tolist()) for part in (split.train, split.validation, split.test)]
    assert all(parts) and sum(map(len, parts)) == len(set.union(*parts)) == 24
