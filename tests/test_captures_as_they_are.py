"""What people's captures bring with them: nothing vanishes without a word, and set-ups are told by class."""

import gzip
import json
import struct

import numpy as np
import pytest
from capture_bytes import CLIENT, SERVER, ether, ipv4, pcap
from refusals import refused

from bench.data import demo
from bench.data.store import Store
from bench.ingest import IngestOptions, inspect, read_capture
from bench.ingest.capture import join_captures

GRE = ipv4(protocol=47)


@pytest.fixture
def bench(tmp_path, monkeypatch, command_line):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return command_line


@pytest.fixture
def folder(tmp_path):
    """Two classes of a demo and room for more."""
    demo.write(tmp_path / "traffic", sessions=4, captures=2, classes=2)
    return tmp_path / "traffic"


# --- nothing vanishes ---------------------------------------------------------------------------------------------

LOST = {
    "unknown link type": ("a.pcap", pcap([ether(ipv4())], link=147), "1 of link type 147 (not read)"),
    "tunnels alone": ("a.pcap", pcap([ether(GRE)] * 3), "3 packets: 3 neither TCP nor UDP (GRE 47: 3)"),
    "no IP": ("a.pcap", pcap([ether(bytes(28), 0x0806), ether(bytes(40), 0x88E5)]), "ARP: 1, MACsec: 1"),
    "later fragments": ("a.pcap", pcap([ether(ipv4(protocol=17, fragment=5))]), "1 later fragments"),
    "cut headers": ("a.pcap", pcap([ether(ipv4())[:30]]), "1 cut within their headers"),
    "no packet": ("a.pcap", pcap([]), "no packet in it"),
    "a web page": ("a.pcap", b"<!DOCTYPE html><html></html>", "a web page"),
    "a pointer": ("a.pcap", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "a snoop capture": ("a.cap", b"snoop\0\0\0" + bytes(20), "editcap"),
    "an archive": ("a.7z", b"7z\xbc\xaf\x27\x1c" + bytes(40), "7z x"),
    "a lz4 file": ("a.pcap.lz4", b"\x04\x22\x4d\x18" + bytes(40), "lz4"),
    "no capture": ("notes.txt", b"hello", "is no capture"),
    "an empty folder": (None, b"", "an empty folder"),
}


@pytest.mark.parametrize("kind", LOST)
def test_a_class_without_a_session_is_a_loud_line_and_refused_under_strict(bench, folder, kind):
    name, content, words = LOST[kind]
    (folder / "lost").mkdir()
    if name:
        (folder / "lost" / name).write_bytes(content)
    status, out, err = bench("prepare", "traffic")
    assert status == 0 and "class lost: no session" in err and words in err
    assert "2 classes" in out
    assert bench("prepare", "traffic")[2].count("class lost: no session") == 1  # also where nothing is done
    status, out, err = bench("prepare", "traffic", "--strict")
    assert status == 2 and "lost" in err and words in err and "nothing is written" in err


def test_a_capture_without_a_session_is_told_beside_others_of_its_class(bench, folder):
    held = sorted(path.name for path in folder.iterdir())[0]
    (folder / held / "zz.pcap").write_bytes(pcap([ether(GRE)]))
    err = bench("prepare", "traffic")[2]
    assert f"{held}/zz.pcap: no session: 1 packets: 1 neither TCP nor UDP (GRE 47: 1)" in err
    assert bench("prepare", "traffic", "--strict")[0] == 2


def test_captures_without_any_packet_are_named_with_what_is_in_them(bench, tmp_path):
    (tmp_path / "bare" / "x").mkdir(parents=True)
    (tmp_path / "bare" / "x" / "a.pcap").write_bytes(pcap([ether(ipv4())] * 2, link=147))
    status, _, err = bench("prepare", "bare")
    assert status == 2 and "2 of link type 147 (not read)" in err


def test_many_lost_captures_are_counted(bench, folder):
    held = sorted(path.name for path in folder.iterdir())[0]
    for number in range(9):
        (folder / held / f"lost{number}.pcap").write_bytes(pcap([]))
    err = bench("prepare", "traffic")[2]
    assert err.count(": no session") == 5 and "4 more captures without a session" in err


# --- looking at a folder ------------------------------------------------------------------------------------------


def test_inspect_walks_a_folder_with_bad_captures_as_rows(bench, folder):
    (folder / "bad.pcap").write_bytes(b"<html>")
    (folder / "packed.pcap.gz").write_bytes(gzip.compress(pcap([ether(ipv4(payload=b"abc"))])))
    status, out, _ = bench("inspect", "traffic")
    assert status == 1 and "a web page" in out and "6 captures" in out and "1 could not be read" in out
    (folder / "bad.pcap").unlink()
    status, out, _ = bench("inspect", "traffic", "--json")
    seen = json.loads(out)["captures"]
    assert status == 0 and len(seen) == 5 and sum(one["payload_bytes"] for one in seen) > 0
    status, out, _ = bench("inspect", "traffic", "--format", "csv")
    rows = out.strip().splitlines()
    assert len(rows) == 6 and rows[0].startswith("capture,link types,bytes,packets,sessions")
    assert bench("inspect", "traffic", "--full")[1].count("\nclocks:") == 5
    assert bench("inspect", str(folder / "packed.pcap.gz"))[1].count("capture: ") == 1
    assert not list((folder.parent / "home").glob("inspect-*"))  # nothing unpacked stays
    (folder.parent / "nothing").mkdir()
    status, _, err = bench("inspect", "nothing")
    assert status == 2 and "no capture" in err


# --- how captures were made ---------------------------------------------------------------------------------------


def session(number, payload=b"x" * 400, copies=1, cut=None):
    """Frames of one made TCP connection: handshake, one packet each way, close."""
    a, b = (CLIENT[0], 40000 + number), SERVER
    frames = [
        ipv4(a, b, flags=2), ipv4(b, a, flags=0x12), ipv4(a, b, payload=payload), ipv4(b, a, payload=payload),
        ipv4(a, b, flags=0x11),
    ]  # fmt: skip
    return [(ether(frame)[:cut], len(ether(frame))) for frame in frames for _ in range(copies)]


def capture_of(frames):
    """A pcap file of frames and their lengths on the wire, ten milliseconds apart."""
    out = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    for place, (frame, wire) in enumerate(frames):
        seconds, rest = divmod(place * 1000, 1_000_000)  # a millisecond apart
        out += struct.pack("<IIII", seconds, rest, len(frame), wire) + frame
    return out


def set_up(tmp_path, **other):
    """Classes ``plain`` and ``other`` of the same traffic, two captures each, the second made otherwise."""
    for name, options in (("plain", {}), ("other", other)):
        for number in range(3):
            path = tmp_path / "traffic" / name / f"{number}.pcap"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(capture_of([one for n in range(8) for one in session(10 * number + n, **options)]))


def test_captures_that_repeat_every_packet_are_told_by_class(bench, tmp_path):
    set_up(tmp_path, copies=2)
    status, out, err = bench("prepare", "traffic", "--strict")  # a warning: strict refuses only what is missing
    assert (
        status == 0
        and "the capture set-up differs by class: packets captured twice: 0 % (plain) to 50 % (other)" in err
    )
    assert "50.0 %" in out
    err = bench("prepare", "traffic", "--drop-copies", "5")[2]
    assert "captured twice" not in err
    store = Store.find("traffic", tmp_path / "home")
    assert np.bincount(store.labels("label"), store.session("packets")).tolist() == [120, 120]


def test_captures_that_cut_packets_are_told_by_class_and_by_runs_that_read_bytes(bench, tmp_path):
    set_up(tmp_path, cut=96)
    err = bench("prepare", "traffic")[2]
    assert "packets with payload that is cut: 0 % (plain) to 100 % (other)" in err
    words = ("--dataset", "traffic", "--split", "session")
    status, out, _ = bench("run", "--method", "first-bytes", *words)
    assert status == 0 and "of the packets with payload are cut in the capture" in out
    assert "are cut" not in bench("run", "--method", "majority", *words)[1]


def test_alike_captures_bring_no_warning(bench, tmp_path):
    set_up(tmp_path)
    assert "set-up differs" not in bench("prepare", "traffic")[2]


def test_one_capture_under_two_names_is_one_group_however_it_is_packed(bench, folder, tmp_path):
    held = sorted(folder.glob("*/*.pcap"))[0]
    held.with_name("again.pcap.gz").write_bytes(gzip.compress(held.read_bytes()))
    err = bench("prepare", "traffic")[2]
    assert f"hold what {held.parent.name}/" in err and "one capture group" in err
    store = Store.find("traffic", tmp_path / "home")
    assert len(store.manifest.captures) == 5 and len(set(store.capture_group())) == 4


# --- rules of sessions --------------------------------------------------------------------------------------------


def test_a_reused_port_is_a_session_of_its_own_unless_asked_otherwise(tmp_path):
    again = b"\0\0\0\x09"  # another initial sequence number
    second = [(frame[:38] + again + frame[42:], wire) for frame, wire in session(1)]
    path = tmp_path / "a.pcap"
    path.write_bytes(capture_of(session(1) + second))
    assert read_capture(path).sessions["packets"].tolist() == [5, 5]
    assert read_capture(path, IngestOptions(sessions="5tuple")).sessions["packets"].tolist() == [10]
    assert inspect(path)["tcp_conversations"] == 1 and inspect(path)["sessions"] == 2
    path.write_bytes(capture_of(session(1) + session(1)))  # the same number: sent again
    assert len(read_capture(path).sessions["start"]) == 1
    path.write_bytes(capture_of(session(1)[:4] + second))  # not closed
    assert len(read_capture(path).sessions["start"]) == 1


CARD = """
name = "rotated"
title = "Rotated"
[captures]
group = '^([^/]+/[a-z]+)'
[labels]
kind = "pattern"
[tasks.label]
default = true
"""


@pytest.mark.parametrize("packed", [False, True])
def test_a_session_that_goes_on_in_the_next_file_is_one_on_request(bench, tmp_path, packed):
    frames = capture_of(session(1) + session(2))
    cut = 24 + sum(16 + len(frame) for frame, _ in session(1)[:3])
    parts = {"b_1.pcap": frames[:cut], "b_0.pcap": frames[:24] + frames[cut:], "c_0.pcap": capture_of(session(3))}
    for name, content in parts.items():
        path = tmp_path / "set" / "x" / (name + ".gz" * packed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if packed else content)
    (tmp_path / "rotated.toml").write_text(CARD)
    words = ("prepare", "rotated.toml", "--source", "set")
    assert bench(*words)[0] == 0
    store = Store.find("rotated", tmp_path / "home")
    assert sorted(store.session("packets").tolist()) == [2, 3, 5, 5]
    for expected in ("written", "unchanged"):
        status, out, _ = bench(*words, "--join-captures")
        assert status == 0 and expected in out
    store = Store.find("rotated", tmp_path / "home")
    assert store.session("packets").tolist() == [5, 5, 5] and len(store.manifest.captures) == 2
    assert set(store.session("client_by").tolist()) == {1}
    assert bench("prepare", "rotated.toml", "--verify")[0] == 0
    (tmp_path / "rotated.toml").write_text(CARD.replace("group = '^([^/]+/[a-z]+)'", ""))
    status, _, err = bench(*words, "--join-captures")
    assert status == 2 and "no two captures of rotated are of one group" in err


def test_files_of_two_kinds_are_not_joined(tmp_path):
    (tmp_path / "a.pcap").write_bytes(pcap([ether(ipv4())]))
    (tmp_path / "b.pcap").write_bytes(pcap([ipv4()], link=101))
    with refused("bad-options", "a.pcap, b.pcap cannot be joined", "mergecap"):
        join_captures([tmp_path / "a.pcap", tmp_path / "b.pcap"], tmp_path / "out")


def tagged(packet, number):
    return ether(packet, 0x0800, struct.pack(">HH", 0x8100, number) if number else b"")


@pytest.mark.parametrize(
    ("vlans", "expected"),
    [
        ([5, 5, 6, 6], [2, 2]),  # two tenants
        ([5, 0, 5, 0], [4]),  # one direction tagged
        ([0, 5, 0, 5], [4]),
        ([0, 5, 0, 6], [2, 1, 1]),  # untagged, and nobody says whose
        ([0, 0, 0, 0], [4]),
    ],
)
def test_end_points_in_two_vlans_are_two_sessions_on_request(tmp_path, vlans, expected):
    ends = [(CLIENT, SERVER), (SERVER, CLIENT)] * 2
    frames = [tagged(ipv4(*pair), number) for pair, number in zip(ends, vlans, strict=True)]
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(frames))
    assert read_capture(path).sessions["packets"].tolist() == [4]
    assert read_capture(path, IngestOptions(by_vlan=True)).sessions["packets"].tolist() == expected


def test_the_bytes_of_sessions_do_not_depend_on_the_table_s_salt(tmp_path):
    frames = [one for number in range(300) for one in session(number)]
    path = tmp_path / "a.pcap"
    path.write_bytes(capture_of(frames))
    first, second = read_capture(path), read_capture(path)
    for name in first.packets:
        assert np.array_equal(first.packets[name], second.packets[name])
    for name in first.sessions:
        assert np.array_equal(first.sessions[name], second.sessions[name])


def test_packets_of_a_kind_are_left_out_on_request(tmp_path):
    a, b = CLIENT, SERVER
    sent = [(ether(ipv4(a, b, payload=b"x" * 50)), 104)] * 3
    late = [(frame, wire) for frame, wire in sent for _ in range(1)]
    path = tmp_path / "a.pcap"
    out = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    for seconds, (frame, wire) in enumerate(late):
        out += struct.pack("<IIII", seconds, 0, len(frame), wire) + frame
    path.write_bytes(out)
    assert inspect(path)["retransmissions"] == 2
    kept = inspect(path, IngestOptions(filter=("retransmissions",)))
    assert (kept["payload_bytes"], kept["dropped"], kept["packets"]) == (50, 2, 3)
    with refused("unknown-filter", "bench run --filter"):
        IngestOptions(filter=("tcp",))


@pytest.mark.parametrize("options", [{"sessions": "x"}, {"client": "x"}, {"decap": ("x",)}, {"drop_copies": -1.0}])
def test_rules_that_are_none_are_refused(options):
    with refused("bad-options"):
        IngestOptions(**options)


def test_a_model_cuts_new_captures_by_the_rules_of_its_own_store(bench, tmp_path, folder):
    bench("prepare", "traffic", "--idle-timeout", "0.05", "--drop-copies", "3")
    words = ("--dataset", "traffic", "--split", "session", "--filter", "tcp")
    run = json.loads(bench("run", "--method", "forest", "--set", "trees=5", *words, "--json")[1])["runs"][0]
    capture = next(folder.glob("*/*.pcap"))
    status, out, err = bench("classify", capture, "--run", run["run_id"], "--json")
    assert status == 0
    rows = json.loads(out)["sessions"]
    index = read_capture(capture, IngestOptions(idle_timeout=0.05, drop_copies=3))
    kept = (index.sessions["payload_packets"] > 0) & (index.sessions["protocol"] == 6)
    assert [row["packets"] for row in rows] == index.sessions["packets"][kept].tolist()
    assert "sessions are not classified" in err or not json.loads(out)["left_out"]
