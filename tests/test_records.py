"""Tables of flow records: every format gives the same store; layers, units, directions and joins by hand."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_tables import CARD, ROWS, WRITERS, columns, lines, made, store_of, whole

from bench.data.names import find_card
from bench.data.prepare import PrepareOptions, open_dataset, prepare_dataset
from bench.errors import InputError
from bench.ingest.options import IngestOptions
from bench.method import make_parameters, reason_to_skip
from bench.readers import NotHeld, View
from bench.records.joining import CHUNK, join, joined_packets
from bench.runs import registry
from bench.schema import MARK_BOUNDED


def test_a_record_by_hand(tmp_path):
    store = made(tmp_path)
    assert store.manifest.sessions == 2 and store.manifest.packets == 5
    assert store.manifest.skipped == {"no packet listed": 1, "not TCP or UDP": 1}
    assert [capture.path for capture in store.manifest.captures] == ["a", "b"]
    assert store.session("capture").tolist() == [1, 0]
    assert store.session("start").tolist() == [100_503_000_000, 90_000_000_000]
    assert store.session("duration").tolist() == [21_000_000, 7_000_000]
    assert store.session("payload_bytes").tolist() == [1937, 340]
    assert store.session("ip_version").tolist() == [4, 6]
    assert store.packet("length").tolist() == [517 + 40, 1440, 60, 40 + 48, 348]
    assert store.packet("payload_length").tolist() == [517, 1400, 20, 40, 300]
    assert store.packet("direction").tolist() == [1, -1, 1, 1, -1]
    assert (store.packet("marks") & MARK_BOUNDED).astype(bool).tolist() == [True] * 3 + [False] * 2
    assert store.classes("label") == ["dns", "web"] and store.labels("label").tolist() == [1, 0]
    assert bytes(store.session("client_ip")[0]) == bytes([10, 0, 0, 1])


@pytest.mark.parametrize("table", WRITERS)
def test_every_format_gives_the_same_store(tmp_path, table):
    expected, got = made(tmp_path / "one"), made(tmp_path / "two", table=table)
    for name, column in columns(expected).items():
        np.testing.assert_array_equal(column, columns(got)[name], name)
    assert got.labels("label").tolist() == expected.labels("label").tolist()
    got.verify()


@pytest.mark.parametrize(
    ("layer", "protocol", "length", "payload", "bounded"),
    [
        ("payload", 6, 140, 100, True),
        ("payload", 17, 128, 100, False),
        ("transport", 6, 120, 80, True),
        ("transport", 17, 120, 92, False),
        ("ip", 6, 100, 60, True),
        ("ip", 17, 100, 72, False),
        ("frame", 6, 86, 46, True),
        ("frame", 17, 86, 58, False),
    ],
)
def test_of_which_layer_a_length_is(tmp_path, layer, protocol, length, payload, bounded):
    row = ROWS[0] | {"proto": protocol, "sizes": [100], "dirs": [1], "gaps": [0]}
    store = made(tmp_path, [row], more=f'layer = "{layer}"')
    assert store.packet("length").tolist() == [length]
    assert store.packet("payload_length").tolist() == [payload]
    assert bool(store.packet("marks")[0] & MARK_BOUNDED) is bounded


def test_a_length_without_payload_is_no_bound_but_padding_is(tmp_path):
    row = ROWS[0] | {"proto": 6, "sizes": [40, 20], "dirs": [1, 1], "gaps": [0, 0]}
    store = made(tmp_path / "ip", [row, ROWS[1]], more='layer = "ip"')
    assert store.packet("payload_length")[:2].tolist() == [0, 0]
    assert not (store.packet("marks")[:2] & MARK_BOUNDED).any()
    row |= {"sizes": [60, 61]}
    store = made(tmp_path / "frame", [row, ROWS[1]], more='layer = "frame"')
    assert (store.packet("marks")[:2] & MARK_BOUNDED > 0).tolist() == [True, True]
    store = made(tmp_path / "udp", [row | {"proto": 17}, ROWS[1]], more='layer = "frame"')
    assert (store.packet("marks")[:2] & MARK_BOUNDED > 0).tolist() == [True, False]


@pytest.mark.parametrize(("unit", "scale"), [("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1)])
def test_times_have_their_unit(tmp_path, unit, scale):
    more = f'start_unit = "{unit}"'
    card = CARD.replace('time_unit = "ms"', f'time_unit = "{unit}"')
    (tmp_path / "tables").mkdir()
    pq.write_table(pa.Table.from_pylist([row | {"start": 1000} for row in ROWS[:2]]), tmp_path / "tables" / "t.parquet")
    store = store_of(tmp_path, card.format(more=more, task=""))
    assert store.session("start")[1] == 1000 * scale
    assert store.session("duration").tolist() == [21 * scale, 7 * scale]


@pytest.mark.parametrize(
    "start", ["2022-10-31T00:00:00.25", "2022-10-31 00:00:00.250Z", "1667174400.25", 1667174400.25]
)
def test_a_start_is_a_number_or_a_time(tmp_path, start):
    store = made(tmp_path, [row | {"start": start} for row in ROWS[:2]])
    assert store.session("start")[1] == 1_667_174_400_250_000_000


def test_times_in_place_of_gaps_may_have_any_origin(tmp_path):
    rows = [row | {"gaps": [50.0 + 0.125 * i for i in range(len(row["sizes"]))]} for row in ROWS[:2]]
    card = CARD.replace("gaps =", "times =").replace('"ms"', '"s"')
    (tmp_path / "tables").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "tables" / "t.parquet")
    store = store_of(tmp_path, card.format(more="", task=""))
    assert store.session("start").tolist() == [100_500_000_000, 90_000_000_000]
    assert np.diff(store.packet("time")[:3]).tolist() == [125_000_000, 125_000_000]


@pytest.mark.parametrize(
    ("words", "forward"),
    [([0, 1], "0"), (["<", ">"], "<"), ([True, False], "1"), ([1.0, -1.0], "1"), (["out", "in"], "out")],
)
def test_directions_in_other_words(tmp_path, words, forward):
    rows = [row | {"dirs": [words[0] if one == 1 else words[1] for one in row["dirs"]]} for row in ROWS[:2]]
    store = made(tmp_path, rows, more=f'forward = "{forward}"')
    assert store.packet("direction").tolist() == [1, -1, 1, 1, -1]


def test_signed_lengths_and_nothing_else(tmp_path):
    (tmp_path / "tables").mkdir()
    rows = [{"s": [40, -1500, 52], "y": "x"}, {"s": [60], "y": "z"}]
    (tmp_path / "tables" / "some.jsonl").write_bytes(lines(rows))
    text = (
        'name = "bare"\ntitle = "t"\nkind = "records"\n[records]\nlengths = "s"\nlayer = "ip"\nsigned = true\n'
        '[labels]\nkind = "columns"\npaths = { label = "y" }\n[tasks.label]\npayload = false\n'
    )
    store = store_of(tmp_path, text)
    assert store.packet("length").tolist() == [40, 1500, 52, 60]
    assert store.packet("direction").tolist() == [1, -1, 1, 1]
    assert store.session("conversation").tolist() == [0, 1]
    assert store.session("capture").tolist() == [0, 0] and store.manifest.captures[0].path == "some.jsonl"
    assert {"times", "ports", "protocol", "payload_lengths", "payload", "flags"} <= set(store.lacks)
    view = View(store, whole(store), {"lengths", "directions", "times", "payload_lengths"})
    assert view.lengths(2).tolist() == [[40, 1500], [60, 0]]
    for ask in (lambda: view.times(2), lambda: view.payload_lengths(2), lambda: view.lengths(2, payload_only=True)):
        with pytest.raises(NotHeld, match="does not hold"):
            ask()
    (tmp_path / "bare.toml").write_text(text.replace("payload = false", ""))
    with pytest.raises(InputError, match="do not show payload"):
        find_card(tmp_path / "bare.toml")


def test_nested_cells_by_path(tmp_path):
    rows = [
        {"flow": {"sa": "10.0.0.1", "sp": 5, "da": "10.0.0.2", "dp": 6, "pr": 17}, "time_start": 12.0,
         "packets": [{"b": 10, "dir": ">", "ipt": 0}, {"b": 20, "dir": "<", "ipt": 9}], "app": {"name": "x"}},
        {"flow": {"sa": "10.0.0.1", "sp": 7, "da": "10.0.0.2", "dp": 8, "pr": 6}, "time_start": 13.0,
         "packets": [], "app": {"name": "x"}},
        {"flow": {"sa": "10.0.0.9", "sp": 7, "da": "10.0.0.2", "dp": 8, "pr": 6}, "time_start": 13.0,
         "packets": [{"b": 30, "dir": ">", "ipt": 0}], "app": {"name": "y"}},
    ]  # fmt: skip
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "joy.json.gz").write_bytes(gzip.compress(lines(rows)))
    card = (
        'name = "joy"\ntitle = "t"\nkind = "records"\n[records]\nlengths = "packets.b"\ndirections = "packets.dir"\n'
        'forward = ">"\ngaps = "packets.ipt"\ntime_unit = "ms"\nstart = "time_start"\nprotocol = "flow.pr"\n'
        'endpoints = ["flow.sa", "flow.sp", "flow.da", "flow.dp"]\n'
        '[labels]\nkind = "columns"\npaths = { label = "app.name" }\n[tasks.label]\n'
    )
    store = store_of(tmp_path, card)
    assert store.packet("payload_length").tolist() == [10, 20, 30]
    assert store.packet("direction").tolist() == [1, -1, 1]
    assert store.packet("time").tolist() == [12_000_000_000, 12_009_000_000, 13_000_000_000]
    assert store.manifest.skipped == {"no packet listed": 1}
    assert store.classes("label") == ["x", "y"]


def test_lists_in_text_and_keys_of_an_object(tmp_path):
    """As CESNET writes lists (all in one cell), and MIRAGE end points (in the name of the record)."""
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "a.json").write_text(
        json.dumps(
            {
                "10.0.0.1,5,10.0.0.2,443,6": {"ppi": "[[0, 4], [1, -1], [100, 200]]", "l": "x"},
                "10.0.0.1,6,10.0.0.2,53,17": {"ppi": "[[0], [1], [30]]", "l": "y"},
                "10.0.0.1,7,10.0.0.2,53,17": {"ppi": "[[], [], []]", "l": "y"},
            }
        )
    )
    card = (
        'name = "ppi"\ntitle = "t"\nkind = "records"\n[records]\nlengths = "ppi[2]"\ndirections = "ppi[1]"\n'
        'gaps = "ppi[0]"\ntime_unit = "ms"\nprotocol = "_key[4]"\n'
        'endpoints = ["_key[0]", "_key[1]", "_key[2]", "_key[3]"]\n'
        '[labels]\nkind = "columns"\npaths = { label = "l" }\n[tasks.label]\n'
    )
    store = store_of(tmp_path, card)
    assert store.packet("payload_length").tolist() == [100, 200, 30]
    assert store.packet("direction").tolist() == [1, -1, 1]
    assert store.session("client_port").tolist() == [5, 6] and store.session("protocol").tolist() == [6, 17]
    assert store.manifest.skipped == {"no packet listed": 1}


# --- joining ---------------------------------------------------------------------------------------------------


def parted(turned=False):
    """One session in three records, the last first in the table, and another one."""
    last = ROWS[0] | {"start": 120.0, "sizes": [7], "dirs": [1], "gaps": [0], "total": 1}
    middle = ROWS[0] | {"start": 110.0, "sizes": [5, 6], "dirs": [1, -1], "gaps": [0, 1], "total": 9}
    if turned:
        middle |= {"src": "10.0.0.2", "sport": 443, "dst": "10.0.0.1", "dport": 1000, "dirs": [-1, 1]}
    return [last, ROWS[1] | {"total": 2}, ROWS[0] | {"total": 3}, middle]


@pytest.mark.parametrize("turned", [False, True])
def test_records_of_one_session_are_joined(tmp_path, turned):
    store = made(tmp_path, parted(turned), more='join = true\ntotals = ["total"]')
    assert store.session("packets").tolist() == [6, 2]
    assert store.packet("payload_length").tolist() == [517, 1400, 20, 5, 6, 7, 40, 300]
    assert store.packet("direction").tolist() == [1, -1, 1, 1, -1, 1, 1, -1]
    assert store.session("start").tolist() == [100_503_000_000, 90_000_000_000]
    assert store.session("duration")[0] == 120_000_000_000 - 100_503_000_000
    assert store.session("client_port").tolist() == [1000, 53000]
    limits = " ".join(store.manifest.limits)
    assert "joined to an earlier one of their 5-tuple: 2" in limits and "because an earlier record is cut: 1" in limits
    assert ("records whose source is the other's: 1" in limits) is turned
    apart = made(tmp_path / "apart", parted(turned), more="join = true", join_records=False)
    assert apart.session("packets").tolist() == [1, 2, 3, 2]
    assert apart.manifest.options.to_dict()["join_records"] is False


def test_records_of_other_captures_are_not_joined(tmp_path):
    rows = parted()
    rows[0] |= {"capture": "elsewhere"}
    store = made(tmp_path, rows, more="join = true")
    assert sorted(store.session("packets").tolist()) == [1, 2, 5]
    assert len(set(store.session("conversation").tolist())) == 2


def test_a_store_knows_how_it_was_joined(tmp_path):
    first = made(tmp_path, parted(), more="join = true", join_records=False)
    card = str(tmp_path / "mine.toml")
    assert open_dataset(card, home=tmp_path / "home").digest == first.digest
    again = made(tmp_path, parted(), more="join = true")
    assert again.digest != first.digest
    for options, reason in (
        ({"ingest": IngestOptions(idle_timeout=5.0)}, "is made of records"),
        ({"join_captures": True}, "is made of records"),
    ):
        with pytest.raises(InputError, match=reason):
            made(tmp_path, parted(), more="join = true", **options)
    with pytest.raises(InputError, match="no end points and times"):
        (tmp_path / "bare.toml").write_text(
            'name = "bare"\ntitle = "t"\nkind = "records"\n[records]\nlengths = "sizes"\n[tasks.label]\n'
        )
        prepare_dataset(find_card(tmp_path / "bare.toml"), tmp_path / "tables", PrepareOptions(join_records=True))


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 20), st.lists(st.integers(0, 9), min_size=1, max_size=4)),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from([1, 3, CHUNK]),
)
def test_joining_is_what_a_loop_does(records, chunk):
    """(key, start, gaps): the fast way by chunks against dictionaries and sorted()."""
    key, start = (np.array([record[i] for record in records], np.int64) for i in (0, 1))
    sizes = np.array([len(record[2]) for record in records], np.int64)
    times = [start[i] + np.cumsum(record[2]) for i, record in enumerate(records)]
    numbers = np.arange(sizes.sum())
    packets = {"time": np.concatenate(times), "length": numbers, "direction": np.ones(len(numbers), np.int8)}
    turned = np.arange(len(records)) % 3 == 1
    joined = join(key, start)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.records.joining.CHUNK", chunk)
        parts = list(joined_packets(packets, np.cumsum(sizes) - sizes, sizes, turned, joined))
    got = {name: np.concatenate([columns[name] for columns, _ in parts]) for name in packets}
    sessions, first = {}, np.cumsum(sizes) - sizes
    for i in sorted(range(len(records)), key=lambda i: (start[i], i)):
        sessions.setdefault(int(key[i]), []).append(i)
    ordered = sorted(sessions.values(), key=lambda some: min(some))
    expected = []
    for some in ordered:
        rows = [(int(first[i] + j), -1 if turned[i] else 1) for i in some for j in range(sizes[i])]
        expected.append(sorted(rows, key=lambda row: packets["time"][row[0]]))
    assert got["length"].tolist() == [row for some in expected for row, _ in some]
    assert got["direction"].tolist() == [sign for some in expected for _, sign in some]
    assert np.concatenate([counts for _, counts in parts]).tolist() == [len(some) for some in expected]
    assert joined.first.tolist() == [some[0] for some in ordered]


def test_packets_that_are_not_listed_by_time_are_sorted_and_counted(tmp_path):
    rows = [ROWS[0] | {"gaps": [5, -3, 10]}, ROWS[1]]
    store = made(tmp_path, rows)
    assert store.packet("payload_length")[:3].tolist() == [1400, 517, 20]
    assert any("records that did not list their packets by time, sorted: 1" in line for line in store.manifest.limits)


def test_what_is_cut_is_counted(tmp_path):
    rows = [ROWS[0] | {"out": 30, "back": 20}, ROWS[1] | {"out": 1, "back": 1}]
    store = made(tmp_path, rows, more='totals = ["out", "back"]')
    assert store.manifest.limits[0] == "1 of 2 sessions have more packets than are listed (9.6% of all packets are)"
    store = made(tmp_path / "limit", ROWS, more="limit = 3\npayload_only = true")
    assert store.manifest.limits[:2] == [
        "packets without payload are not listed",
        "1 of 2 sessions of 3 packets or more may have more packets than are listed",
    ]


# --- many rows -------------------------------------------------------------------------------------------------


def test_more_rows_than_a_batch(tmp_path):
    rows = [
        ROWS[0] | {"capture": f"c{i % 7}", "sport": 1 + i, "label": "ab"[i % 2], "sizes": [i % 1400, 1],
                   "dirs": [1, -1], "gaps": [0, 1]}
        for i in range(20_000)
    ]  # fmt: skip
    store = made(tmp_path, rows)
    assert store.manifest.sessions == 20_000 and len(store.manifest.captures) == 7
    assert store.packet("payload_length")[::2].tolist() == [i % 1400 for i in range(20_000)]
    assert store.labels("label").tolist() == [i % 2 for i in range(20_000)]
    assert (
        made(tmp_path / "json", rows, table="t.jsonl").packet("payload_length").tolist()
        == store.packet("payload_length").tolist()
    )


def test_every_method_that_reads_no_bytes_takes_records(tmp_path):
    store = made(tmp_path)
    for name in registry.shipped():
        kind = registry.load(name)
        reason = reason_to_skip(kind, make_parameters(kind, {}), store)
        needs = kind.reads & {"payload", "ip_bytes"}
        assert bool(needs) == bool(reason), (name, reason)
