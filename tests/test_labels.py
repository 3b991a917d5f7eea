"""Labels from a file of sessions."""

import gzip
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused
from small_captures import packet, pcap, talk

from bench.cli.text import unused
from bench.data.cards import read_card
from bench.data.labels import (
    LISTED,
    NO_ROW,
    TOLERANCE,
    _Keyed,
    _match,
    _rounding,
    five_tuples,
    label_remarks,
    label_table,
    read_label_file,
)
from bench.data.prepare import PrepareOptions, prepare_dataset
from bench.data.store import Store
from bench.ingest import IngestOptions
from bench.schema import numbered


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


CARD = """
name = "mine"
title = "Mine"
[captures]
include = ["*.pcap"]
group = '^[a-z]+'
[labels]
kind = "sessions"
file = "labels.csv"
protocol = "l4"
start = "start"
check = { packets = "packets", payload_bytes = "bytes" }
[tasks.all]
default = true
merge = { b2 = "b", gone = "" }
[tasks.two]
where = { tls = ["1", "yes"] }
minimum_captures = 2
payload = false
[expected]
captures = 9
sessions = 6
tasks = { all = { sessions = 1, classes = 2 } }
"""
HEAD = "capture,l4,client_ip,client_port,server_ip,server_port,start,packets,bytes,label,tls\n"


def labelled(folder, rows, captures):
    folder.mkdir(exist_ok=True)
    (folder / "mine.toml").write_text(CARD)
    (folder / "labels.csv").write_text(HEAD + "".join(row + "\n" for row in rows))
    for name, packets in captures.items():
        (folder / name).write_bytes(pcap(packets))
    return read_card(folder / "mine.toml")


CAPTURES = {
    "p1.pcap": talk(5000, b"abc") + talk(5001, b"de", 1001.0),
    "p2.pcap": [*talk(5000, b"xyz"), packet(1000, ("fe80::1", 7), ("fe80::2", 8), b"six", "tcp")],
    "q1.pcap": talk(5000, b"abc") + talk(5009, b"zz"),
}
ROWS = [
    "p1.pcap,UDP,10.0.0.1,5000,10.0.0.2,443,1000.0,2,6,a,1",
    "p1.pcap,udp,10.0.0.2,443,10.0.0.1,5001,1001.0,2,5,b2,0",  # the other way round, another count
    "p2.pcap,17,10.0.0.1,5000,10.0.0.2,443,1000.0,2,6,b,1",
    "p2.pcap,TCP,fe80::1,7,fe80:0::2,8,1000.0,1,3,gone,yes",
    "p2.pcap,UDP,fe80::1,7,fe80::2,8,1000.0,1,3,a,yes",  # no such session
    "q1.pcap,UDP,10.0.0.1,5000,10.0.0.2,443,1000.0,2,6,a,1",
    "r1.pcap,UDP,10.0.0.1,5000,10.0.0.2,443,1000.0,2,6,a,1",  # no such capture
]


def test_labels_by_session(tmp_path, home):
    card = labelled(tmp_path / "set", ROWS, CAPTURES)
    report = prepare_dataset(card, tmp_path / "set", home=home).report
    store = Store.find("mine", home)
    assert store.session("client_port").tolist() == [5000, 5001, 5000, 7, 5000, 5009]
    assert store.default_task == "all"
    assert store.classes("all") == ["a", "b"]
    assert store.labels("all").tolist() == [0, 1, 1, -1, 0, -1]
    assert store.classes("two") == ["a"]
    assert store.labels("two").tolist() == [0, -1, -1, -1, 0, -1]
    assert report["tasks"]["two"]["dropped"] == {"b": 1, "gone": 1}
    assert store.capture_group().tolist() == [0, 0, 0, 0, 1, 1]
    labels = report["labels"]
    assert labels["missing_captures"] == {"count": 1, "first": ["r1.pcap"]}
    assert labels["unmatched"]["count"] == 2
    assert labels["unmatched"]["first"][0] == "p2.pcap UDP fe80::1 7 - fe80::2 8"
    assert labels["unlabelled"] == {"count": 1, "first": ["q1.pcap UDP 10.0.0.1 5009 - 10.0.0.2 443"]}
    assert labels["unlabelled_payload"] == 1
    assert labels["times"] == {"median_s": 0.0, "largest_s": 0.0, "constant_s": None, "far": 0, "earlier": 0}
    assert labels["compared"] == 5
    wrong = {"session": "p1.pcap UDP 10.0.0.1 5001 - 10.0.0.2 443", "expected": 5, "found": 4}
    assert labels["differences"] == {
        "packets": {"count": 0, "first": []},
        "payload_bytes": {"count": 1, "first": [wrong]},
    }
    assert report["unexpected"] == [
        {"what": "captures", "expected": 9, "found": 3},
        {"what": "sessions of task all", "expected": 1, "found": 4},
    ]


def test_captures_that_were_packed_or_converted_since_have_their_labels(tmp_path, home):
    folder = tmp_path / "set"
    labelled(folder, ROWS, CAPTURES)
    (folder / "mine.toml").write_text(CARD.replace('["*.pcap"]', '["*.pcap*", "*.cap"]'))
    card = read_card(folder / "mine.toml")
    plain = prepare_dataset(card, folder, home=home).report["labels"]
    for name, packed in (("p1.pcap", "P1.pcap.gz"), ("p2.pcap", "p2.pcap.gz")):
        (folder / packed).write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
    (folder / "q1.pcap").rename(folder / "q1.cap")
    packed = prepare_dataset(card, folder, home=home / "packed").report["labels"]
    assert packed["missing_captures"] == plain["missing_captures"]
    assert Store.find("mine", home / "packed").labels("all").tolist() == [0, 1, 1, -1, 0, -1]
    (folder / "q1.pcap.gz").write_bytes(gzip.compress(pcap(talk(5000, b"abd"))))  # now either may be meant
    report = prepare_dataset(card, folder, home=home / "two").report["labels"]
    assert report["missing_captures"] == {"count": 2, "first": ["q1.pcap", "r1.pcap"]}


def test_a_changed_label_file_is_a_changed_input(tmp_path, home):
    folder = tmp_path / "set"
    card = labelled(folder, ROWS, CAPTURES)
    prepare_dataset(card, folder, home=home)
    assert prepare_dataset(card, folder, home=home).unchanged
    labelled(folder, ROWS[:3], CAPTURES)
    assert not prepare_dataset(card, folder, home=home).unchanged


def test_start_times_tell_sessions_of_one_five_tuple_apart(tmp_path, home):
    times = {"a": 1000.0, "b": 1100.0, "c": 1200.0}
    captures = {"p1.pcap": [one for t in times.values() for one in talk(5000, b"abc", t)]}
    rows = [f"p1.pcap,UDP,10.0.0.1,5000,10.0.0.2,443,{t},2,6,{name},1" for name, t in times.items()]
    card = labelled(tmp_path / "set", rows[::-1], captures)
    timeout = PrepareOptions(IngestOptions(idle_timeout=50.0))
    report = prepare_dataset(card, tmp_path / "set", options=timeout, home=home).report
    assert Store.find("mine", home).labels("all").tolist() == [0, 1, 2]
    assert report["labels"]["unmatched"]["count"] == 0
    assert report["labels"]["compared"] == 0  # several rows of one 5-tuple: no sum is theirs
    assert [entry["what"] for entry in report["unexpected"]] == ["captures"]

    report = prepare_dataset(card, tmp_path / "set", home=home).report  # one session, three rows
    assert Store.find("mine", home).classes("all") == ["a"]
    assert (report["labels"]["unmatched"]["count"], report["labels"]["compared"]) == (2, 0)

    card = labelled(tmp_path / "set", rows[:1], captures)  # three sessions, one row
    prepare_dataset(card, tmp_path / "set", options=timeout, home=home)
    assert Store.find("mine", home).labels("all").tolist() == [0, 0, 0]


# --- times


SECOND = 10**9
DAY = 1_700_000_000  # seconds since the epoch
ADDRESSES = np.array([bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])], "S16")


def made(sessions, payload):
    """Session columns of one capture, of (client port, start in seconds) with two packets of three bytes each."""
    ports, starts = zip(*sessions, strict=True)
    same = {"capture": 0, "server_port": 443, "protocol": 17, "ip_version": 4}
    same |= {"packets": 2, "payload_packets": payload, "payload_bytes": 6}
    columns = {name: np.broadcast_to(value, len(ports)) for name, value in same.items()}
    columns |= {"client_ip": ADDRESSES[:1].repeat(len(ports)), "server_ip": ADDRESSES[1:].repeat(len(ports))}
    return columns | {"client_port": np.array(ports), "start": np.array([round(t * SECOND) for t in starts])}


def met(folder, rows, sessions, card=CARD, check=True, payload=2):
    """Labels ("" for none) and report of a label file with rows (port, start as text, label, packets, bytes)."""
    lines = [f"p.pcap,UDP,10.0.0.1,{port},10.0.0.2,443,{t},{n},{size},{label},1\n" for port, t, label, n, size in rows]
    folder.mkdir(exist_ok=True)
    (folder / "mine.toml").write_text(card)
    (folder / "labels.csv").write_text(HEAD + "".join(lines))
    card = read_card(folder / "mine.toml")
    file = read_label_file(card.labels, folder / "labels.csv", card.tasks)
    table = label_table(card.labels, file, ["p.pcap"], made(sessions, payload), check=check)
    return [table.columns["label"][row] if row != NO_ROW else "" for row in table.row], table.report


TALKS = [(5000, DAY), (5000, DAY + 100), (5001, DAY + 0.25), (5002, DAY + 7000.125), (5002, DAY + 7050)]


def shifted(seconds):
    """Label rows of TALKS, with a clock that is off."""
    return [(port, f"{t + seconds:.3f}", "abcde"[i], 2, 6) for i, (port, t) in enumerate(TALKS)]


def test_a_label_file_on_time_says_nothing(tmp_path):
    labels, report = met(tmp_path, shifted(0), TALKS)
    assert labels == list("abcde")
    assert report["times"] == {"median_s": 0.0, "largest_s": 0.0, "constant_s": None, "far": 0, "earlier": 0}
    assert label_remarks(report) == []


def test_a_label_file_three_hours_late_takes_no_other_row_and_is_told(tmp_path):
    labels, report = met(tmp_path, shifted(10_800), TALKS)
    assert labels == ["", "", "c", "", ""]  # the only row of a 5-tuple is no other's
    times = {"median_s": 10_800.0, "largest_s": 10_800.0, "constant_s": 10_800.0, "far": 1, "earlier": 1}
    assert report["times"] == times
    assert (report["unlabelled"]["count"], report["unlabelled_payload"], report["unmatched"]["count"]) == (4, 4, 4)
    constant, earlier, unmatched, unlabelled = label_remarks(report)
    assert "rows are 10,800 s later than their sessions" in constant and "time zone" in constant
    assert "1 sessions start before the only row" in earlier
    assert "4 of 5 rows have no session, first p.pcap UDP 10.0.0.1 5000" in unmatched
    assert "4 sessions with payload have no row" in unlabelled


def test_a_label_file_three_hours_early_is_told(tmp_path):
    labels, report = met(tmp_path, shifted(-10_800), TALKS)
    assert labels == list("bbcee")  # the last of all: wrong, and loud
    assert report["times"] == {
        "median_s": 10_800.0, "largest_s": 10_800.0, "constant_s": -10_800.0, "far": 5, "earlier": 0
    }  # fmt: skip
    assert "rows are 10,800 s earlier than their sessions" in label_remarks(report)[0]


def test_a_constant_is_one_of_nearly_all(tmp_path):
    ports = range(5000, 5040)
    rows = [(port, str(DAY + (3000 if port > 5001 else 40 + port)), "a", 2, 6) for port in ports]
    sessions = [(port, DAY) for port in ports]
    assert met(tmp_path, rows, sessions)[1]["times"]["constant_s"] == 3000.0
    assert met(tmp_path, rows[:30], sessions[:30])[1]["times"]["constant_s"] is None  # two of thirty are too many
    within = [(port, str(DAY + 1), "a", 2, 6) for port in ports]  # a second is none
    assert met(tmp_path, within, sessions)[1]["times"]["constant_s"] is None


def test_far_and_early_sessions_keep_the_only_row_and_are_told(tmp_path):
    rows = [(5000, str(DAY), "a", 2, 6), (5001, str(DAY + 9), "b", 2, 6)]
    labels, report = met(tmp_path, rows, [(5000, DAY), (5000, DAY + 7200), (5001, DAY)])
    assert labels == ["a", "a", "b"]
    assert report["times"] == {"median_s": 9.0, "largest_s": 7200.0, "constant_s": None, "far": 1, "earlier": 1}
    far, earlier = label_remarks(report)
    assert "1 sessions start over an hour from their row (at most 7,200 s" in far
    assert "1 sessions start before the only row" in earlier


def test_no_session_has_a_row_of_nothing(tmp_path):
    labels, report = met(tmp_path, [], [(5000, DAY)])
    assert (labels, report["compared"]) == ([""], 0)
    assert report["times"] == {"median_s": None, "largest_s": None, "constant_s": None, "far": 0, "earlier": 0}
    assert len(label_remarks(report)) == 1
    assert label_remarks({}) == label_remarks({"unlabelled": {"count": 3, "captures": {}}}) == []  # of paths


def test_without_a_start_column_times_say_nothing(tmp_path):
    rows = [(5000, "x", "a", 2, 6), (5000, "y", "b", 2, 6), (5001, "z", "c", 2, 6)]
    sessions = [(5000, DAY), (5000, -1), (5001, DAY)]
    labels, report = met(tmp_path, rows, sessions, CARD.replace('start = "start"', ""))
    assert labels == ["b", "b", "c"]
    assert "times" not in report
    assert [line for line in label_remarks(report) if "rows have no session" not in line] == []


@pytest.mark.parametrize(
    ("seconds", "rounding"),
    [
        ([0, 1, 60], SECOND - 1),
        ([], SECOND - 1),
        ([0, 1.5], SECOND // 10 - 1),
        ([1.234], 10**6 - 1),
        ([1.234567], TOLERANCE),
        ([1.23456], 10**4 - 1),
        ([1.234567891, 2], TOLERANCE),
    ],
)
def test_a_file_says_how_it_rounds(seconds, rounding):
    assert _rounding(np.array([round(t * SECOND) for t in seconds], np.int64)) == rounding


@pytest.mark.parametrize("rounded", [np.floor, np.round, np.ceil])
def test_whole_seconds_are_rounded_times(tmp_path, rounded):
    starts = [DAY + t for t in (0.75, 2.76, 4.77, 100.2)]
    rows = [(5000, str(int(rounded(t))), label, 2, 6) for t, label in zip(starts, "abcd", strict=True)]
    labels, report = met(tmp_path, rows, [(5000, t) for t in starts])
    assert labels == list("abcd")
    assert (report["times"]["earlier"], report["times"]["constant_s"]) == (0, None)
    assert label_remarks(report) == []


def test_whole_seconds_may_be_exact(tmp_path):
    labels, _ = met(tmp_path, [(5000, str(DAY + i), "abc"[i], 2, 6) for i in range(3)], [(5000, DAY), (5000, DAY + 1)])
    assert labels == ["a", "b"]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12)), max_size=12),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=12),
    st.sampled_from([TOLERANCE, 5000]),
    st.sampled_from([500, 1000, 1001, 2499]),
)
def test_matches_are_those_of_a_slow_search(rows, sessions, rounding, step):
    def last(mine, time):
        return max(((start, i) for start, i in mine if start <= time), default=None)

    def slow(key, start):
        mine = [(step * t, i) for i, (k, t) in enumerate(rows) if k == key]
        if len(mine) == 1:
            return mine[0][1]
        found = last(mine, start + TOLERANCE)
        if found is None or found[0] < start - rounding:
            found = last(mine, start + rounding)
        return found[1] if found else NO_ROW

    columns = [np.array(one, np.int64).reshape(-1, 2).T for one in (rows, sessions)]
    row = _match(*(_Keyed(key, step * t) for key, t in columns), rounding)
    assert row.tolist() == [slow(key, step * t) for key, t in sessions]


# --- counts


def test_sessions_without_payload_are_missed_by_nobody(tmp_path):
    row, sessions = (5000, str(DAY), "a", 2, 6), [(5000, DAY), (5001, DAY), (5002, DAY)]
    _, report = met(tmp_path, [row], sessions[:2], payload=[2, 0])
    assert (report["unlabelled"]["count"], report["unlabelled_payload"], label_remarks(report)) == (1, 0, [])
    _, report = met(tmp_path, [row], sessions, payload=[2, 0, 1])
    assert report["unlabelled_payload"] == 1
    assert [line.split()[3] for line in report["unlabelled"]["first"]] == ["5002", "5001"]  # the missed first


def test_counts_are_compared_by_five_tuple(tmp_path):
    rows = [(5000, str(DAY), "a", 6, 18), (5001, str(DAY), "b", 4, 13)]
    rows += [(5002, str(DAY), "c", 2, 6), (5002, str(DAY + 50), "c", 2, 6)]  # two rows share their sessions
    sessions = [(5000, DAY), (5001, DAY), (5000, DAY + 1), (5000, DAY - 1), (5001, DAY + 2), (5002, DAY)]
    labels, report = met(tmp_path, rows, sessions)
    assert labels == list("abaabc")
    assert report["compared"] == 2
    wrong = {"session": "p.pcap UDP 10.0.0.1 5001 - 10.0.0.2 443", "expected": 13, "found": 12}
    assert report["differences"] == {
        "packets": {"count": 0, "first": []},
        "payload_bytes": {"count": 1, "first": [wrong]},
    }
    assert "compared" not in met(tmp_path, rows, sessions, check=False)[1]


def test_only_the_first_differences_are_named(tmp_path):
    rows = [(5000 + i, str(DAY), "a", 3, 6) for i in range(LISTED + 5)]
    packets = met(tmp_path, rows, [(5000 + i, DAY) for i in range(LISTED + 5)])[1]["differences"]["packets"]
    assert (packets["count"], len(packets["first"])) == (LISTED + 5, LISTED)


# --- the file


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("label,tls", "label,ssl", "'tls'"),
        ("10.0.0.1,5000,", "10.0.0.256,5000,", "column client_ip: '10.0.0.256'"),
        (",5000,", ",http,", "column client_port"),
        ("5000,", "", "row 2 has 10 columns"),
        (",1000.0,", ",noon,", "column start"),
        ("10.0.0.1,", '"10.0.0.1,', "row 2: a quote does not close"),
        ("10.0.0.1,", "10.0.0.1\0,", "row 2: holds a NUL byte"),
        (",2,6,", ",two,6,", "column packets"),
        (",5000,", ",65536,", "column client_port: '65536'"),
    ],
)
def test_a_wrong_label_file_is_an_input_error(tmp_path, home, old, new, message):
    folder = tmp_path / "set"
    card = labelled(folder, ROWS, CAPTURES)
    path = folder / "labels.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with refused("bad-label-file", path, message):
        prepare_dataset(card, folder, home=home)


def test_all_that_is_wrong_with_a_label_file_is_told_at_once(tmp_path, home):
    folder = tmp_path / "set"
    card = labelled(folder, ROWS, CAPTURES)
    path = folder / "labels.csv"
    text = path.read_text()
    for old, new in ((",5000,", ",http,"), (",1000.0,", ",noon,"), (",2,6,", ",two,6,")):
        text = text.replace(old, new, 1)
    path.write_text(text)
    with refused("bad-label-file", "'http' is not a number", "'noon' is not a time", "'two'", "(row 2)"):
        prepare_dataset(card, folder, home=home)


ends = st.tuples(st.sampled_from([b"\1\2\3\4", b"\1\2\3\5", b"\2", b"", b"\xff" * 16]), st.integers(0, 3))
tuples = st.lists(st.tuples(st.sampled_from([6, 17]), st.sampled_from([4, 6]), ends, ends), min_size=1, max_size=20)


@given(tuples)
def test_five_tuples_are_equal_where_they_should_be(rows):
    protocol, version, a, b = zip(*rows, strict=True)
    columns = [(np.array([ip for ip, _ in end], "S16"), np.array([port for _, port in end])) for end in (a, b)]
    number = numbered(five_tuples(np.array(protocol), np.array(version), columns))
    known = [(p, v, *sorted(two)) for p, v, *two in rows]
    for i, one in enumerate(known):
        for j, other in enumerate(known):
            assert (number[i] == number[j]) == (one == other)
    assert sorted(set(number.tolist())) == list(range(len(set(known))))


def test_a_class_of_too_few_captures_is_named_where_sessions_are_not_used():
    task = SimpleNamespace(sessions=5, dropped={"Solo": 1, "Pair": 2})
    told = unused(SimpleNamespace(sessions=8, tasks={"kind": task}), "kind")
    assert told.startswith("3 of 8 sessions are not used")
    assert told.endswith("; Solo is left out, in 1 capture; Pair is left out, in 2 captures")
