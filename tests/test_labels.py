"""Labels from a file of sessions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused
from small_captures import packet, pcap, talk

from bench.data.cards import read_card
from bench.data.labels import five_tuples, numbers
from bench.data.prepare import PrepareOptions, prepare_dataset
from bench.data.store import Store


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
    report = prepare_dataset(card, tmp_path / "set", options=PrepareOptions(idle_timeout=50.0), home=home).report
    assert Store.find("mine", home).labels("all").tolist() == [0, 1, 2]
    assert report["labels"]["unmatched"]["count"] == 0
    assert "differences" not in report["labels"]  # counts of other sessions than these
    assert [entry["what"] for entry in report["unexpected"]] == ["captures"]

    report = prepare_dataset(card, tmp_path / "set", home=home).report  # one session, three rows
    assert Store.find("mine", home).classes("all") == ["a"]
    assert (report["labels"]["unmatched"]["count"], report["labels"]["compared"]) == (2, 0)

    card = labelled(tmp_path / "set", rows[:1], captures)  # three sessions, one row
    prepare_dataset(card, tmp_path / "set", options=PrepareOptions(idle_timeout=50.0), home=home)
    assert Store.find("mine", home).labels("all").tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("label,tls", "label,ssl", "'tls'"),
        ("10.0.0.1,5000,", "10.0.0.256,5000,", "column client_ip: '10.0.0.256'"),
        (",5000,", ",http,", "column client_port"),
        ("5000,", "", "row 2 has 10 columns"),
        (",1000.0,", ",noon,", "column start"),
        (",2,6,", ",two,6,", "column packets"),
        (",5000,", ",65536,", "column client_port: 65536"),
    ],
)
def test_a_wrong_label_file_is_an_input_error(tmp_path, home, old, new, message):
    folder = tmp_path / "set"
    card = labelled(folder, ROWS, CAPTURES)
    path = folder / "labels.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with refused("bad-label-file", path, message):
        prepare_dataset(card, folder, home=home)


ends = st.tuples(st.sampled_from([b"\1\2\3\4", b"\1\2\3\5", b"\2", b"", b"\xff" * 16]), st.integers(0, 3))
tuples = st.lists(st.tuples(st.sampled_from([6, 17]), st.sampled_from([4, 6]), ends, ends), min_size=1, max_size=20)


@given(tuples)
def test_five_tuples_are_equal_where_they_should_be(rows):
    protocol, version, a, b = zip(*rows, strict=True)
    columns = [(np.array([ip for ip, _ in end], "S16"), np.array([port for _, port in end])) for end in (a, b)]
    number = numbers(five_tuples(np.array(protocol), np.array(version), columns))
    known = [(p, v, *sorted(two)) for p, v, *two in rows]
    for i, one in enumerate(known):
        for j, other in enumerate(known):
            assert (number[i] == number[j]) == (one == other)
    assert sorted(set(number.tolist())) == list(range(len(set(known))))
