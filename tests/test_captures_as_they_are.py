"""What people's captures bring with them: nothing vanishes without a word, and set-ups are told by class."""

import gzip
import json
import os
import struct

import numpy as np
import pytest
from capture_bytes import CLIENT, SERVER, ether, ipv4, pcap
from refusals import refused

from bench.data.store import Store
from bench.generators import demo
from bench.ingest import IngestOptions, inspect, read_capture
from bench.ingest.capture import join_captures
from bench.schema import MARK_FRAGMENT, MARK_TUNNELLED

GRE = ipv4(protocol=47)


@pytest.fixture
def bench(tmp_path, bench_in):
    return bench_in(tmp_path)


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
    "no capture": ("notes.txt", b"hello", "is not a capture"),
    "an empty folder": (None, b"", "no capture in the folder"),
    "a hidden capture": (".a.pcap", pcap([ether(ipv4())]), "no capture in the folder"),
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


def test_a_damaged_capture_is_told_where_it_is_prepared(bench, folder):
    held = sorted(folder.glob("*/*.pcap"))[0]
    size = held.stat().st_size
    held.write_bytes(held.read_bytes()[:-3])
    err = bench("prepare", "traffic")[2]
    assert f"{held.parent.name}/{held.name}: damaged at byte " in err and "the file ends inside a record" in err
    assert held.stat().st_size == size - 3


def test_many_lost_captures_are_counted(bench, folder):
    held = sorted(path.name for path in folder.iterdir())[0]
    for number in range(9):
        (folder / held / f"lost{number}.pcap").write_bytes(pcap([]))
    err = bench("prepare", "traffic")[2]
    assert err.count(": no session") == 5 and "4 more classes and captures without a session" in err


def test_what_is_no_file_is_told_like_one_that_cannot_be_read(bench, folder):
    held = sorted(path.name for path in folder.iterdir())[0]
    (folder / held / "gone.pcap").symlink_to("/nowhere/annex.pcap")
    os.mkfifo(folder / held / "pipe.pcap")
    (folder / "broken").mkdir()
    (folder / "broken" / "x.pcap").symlink_to("/nowhere")
    (folder / "loop").mkdir()
    (folder / "loop" / "up").symlink_to("..")
    err = bench("prepare", "traffic")[2]
    for words in (
        f"{held}/gone.pcap: could not be read: No such file",
        f"{held}/pipe.pcap: could not be read: is not a regular file",
        "class broken: no session: broken/x.pcap: No such file",
        "class loop: no session: loop: no capture in the folder",
    ):
        assert words in err
    assert "(and 1 more)" not in err and bench("prepare", "traffic", "--strict")[0] == 2
    status, out, _ = bench("inspect", "traffic")
    assert status == 1 and "3 could not be read" in out


def test_a_refused_preparation_leaves_nothing_unpacked_or_joined(bench, tmp_path):
    for n in range(3):
        path = tmp_path / "set" / "a" / f"x_{n}.pcap.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(capture_of(session(n))))
    (tmp_path / "set" / "b").mkdir()
    (tmp_path / "rotated.toml").write_text(CARD)
    words = ("prepare", "rotated.toml", "--source", "set", "--strict")
    assert bench(*words)[0] == bench(*words, "--join-captures")[0] == 2
    home = tmp_path / "home"
    assert not [path for name in ("unpacked", "joined") for path in (home / name).glob("*/*")]


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
    assert bench("inspect", str(folder / "packed.pcap.gz"), "--format", "csv")[1].count("\n") == 2
    assert bench("inspect", "traffic", "--full")[1].count("\nclocks:") == 5
    assert bench("inspect", str(folder / "packed.pcap.gz"))[1].count("capture: ") == 1
    assert not list((folder.parent / "home").glob("inspect-*"))  # nothing unpacked stays
    (folder.parent / "nothing").mkdir()
    status, _, err = bench("inspect", "nothing")
    assert status == 2 and "no capture" in err


def test_processes_of_a_pktap_capture_are_counted(tmp_path):
    frames = []
    for number, name in enumerate((b"Safari", b"Mail", b"Safari")):
        head = struct.pack("<III", 108, 1, 1) + bytes(44) + name.ljust(17, b"\0") + bytes(35)
        frames.append(head + ether(ipv4((CLIENT[0], 40000 + number), SERVER, payload=b"x")))
    (tmp_path / "a.pcap").write_bytes(pcap(frames, link=258))
    assert inspect(tmp_path / "a.pcap")["processes"] == {"Safari": 2, "Mail": 1}


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


def test_one_capture_under_two_labels_is_told_as_a_contradiction_wherever_it_is_used(bench, folder, tmp_path):
    held, other = sorted(folder.glob("*/*.pcap"))[0], sorted(folder.iterdir())[1]
    assert "several labels" not in bench("prepare", "traffic")[2]
    (other / "again.pcap").write_bytes(held.read_bytes())
    one = held.parent.name
    told = f"{one}/{held.name} is {one}, {other.name}/again.pcap is {other.name}; one of them is wrong"
    assert f"the same capture has several labels of task label: {told}" in bench("prepare", "traffic")[2]
    assert len(Store.find("traffic", tmp_path / "home").manifest.contradictions) == 1
    err = bench("run", "--method", "majority", "--dataset", "traffic", "--split", "capture")[2]
    assert "1 contradictions, one capture under several labels" in err


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
    (tmp_path / "rotated.toml").write_text(CARD.replace("title", 'source = "set"\ntitle'))
    assert bench(*words[:2], "--join-captures")[0] == 0
    assert bench("run", "--method", "majority", "--dataset", "rotated.toml", "--split", "session")[0] in (0, 1, 2)
    status, _, err = bench("split", "rotated.toml")
    assert "same-name" not in err  # the folder that was named owns the store, not the one of joined captures
    (tmp_path / "rotated.toml").write_text(CARD.replace("group = '^([^/]+/[a-z]+)'", ""))
    status, _, err = bench(*words, "--join-captures")
    assert status == 2 and "no two captures of rotated are of one group" in err


def rotated(tmp_path, captures, group):
    for name, content in captures.items():
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "rotated.toml").write_text(CARD.replace("^([^/]+/[a-z]+)", group))
    return ("prepare", "rotated.toml", "--source", "set", "--join-captures")


def sizes(tmp_path):
    store = Store.find("rotated", tmp_path / "home")
    names = [capture.path for capture in store.manifest.captures]
    return {names[n]: int((store.session("capture") == n).sum()) for n in range(len(names))}


def test_captures_of_two_classes_are_never_joined(bench, tmp_path):
    captures = {f"{name}.pcap": capture_of(session(n)) for n, name in enumerate(("a/day1", "b/day1", "b/day1b"))}
    words = rotated(tmp_path, captures, "/(day[0-9])")
    assert bench(*words)[0] == 0
    assert sizes(tmp_path) == {"a/day1.pcap": 1, "b/day1.pcap": 2}


def test_a_damaged_part_is_not_joined_and_nothing_of_the_others_is_lost(bench, tmp_path):
    whole = {f"a/x_{n}.pcap": capture_of([one for k in range(4) for one in session(10 * n + k)]) for n in range(3)}
    whole["a/x_0.pcap"] = whole["a/x_0.pcap"][:-10]
    words = rotated(tmp_path, whole | {"a/x_3.pcap": b"<html>", "c/notes.txt": b"hello"}, "^([^/]+/[a-z]+)")
    status, out, err = bench(*words)
    assert status == 0 and "damaged" in out and "a/x_3.pcap: could not be read" in err and "class c: no session" in err
    assert sizes(tmp_path) == {"a/x_0.pcap": 4, "a/x_1.pcap": 8}


def test_another_grouping_joins_anew(bench, tmp_path):
    captures = {f"a/{name}.pcap": capture_of(session(n)) for n, name in enumerate(("x_1", "x_2", "y_2"))}
    assert bench(*rotated(tmp_path, captures, "^([^/]+/[a-z])_"))[0] == 0
    assert sizes(tmp_path) == {"a/x_1.pcap": 2, "a/y_2.pcap": 1}
    assert bench(*rotated(tmp_path, captures, "^([^/]+/)[xy]_"))[0] == 0
    assert sizes(tmp_path) == {"a/x_1.pcap": 3}


def test_equal_captures_join_groups_and_tear_none(bench, tmp_path):
    same = capture_of(session(1))
    captures = {"a/aa_1.pcap": same, "a/x_1.pcap": same, "a/x_2.pcap": capture_of(session(2))}
    assert bench(*rotated(tmp_path, captures, "^([^/]+/[a-z]+)")[:-1])[0] == 0
    assert len(set(Store.find("rotated", tmp_path / "home").capture_group())) == 1


def test_a_class_that_comes_later_without_a_session_is_told_too(bench, folder):
    assert "class late" not in bench("prepare", "traffic")[2]
    (folder / "late").mkdir()
    assert "class late: no session" in bench("prepare", "traffic")[2]
    assert bench("prepare", "traffic", "--strict")[0] == 2


def test_the_order_of_words_makes_no_other_store(bench, folder):
    assert "written" in bench("prepare", "traffic", "--decap", "vxlan,gre")[1]
    assert "unchanged" in bench("prepare", "traffic", "--decap", "gre,vxlan,gre")[1]


def test_files_of_two_kinds_are_not_joined(tmp_path):
    (tmp_path / "a.pcap").write_bytes(pcap([ether(ipv4())]))
    (tmp_path / "b.pcap").write_bytes(pcap([ipv4()], link=101))
    with refused("bad-options", "a.pcap, b.pcap cannot be joined", "mergecap"):
        join_captures([tmp_path / "a.pcap", tmp_path / "b.pcap"], tmp_path / "out")


@pytest.mark.parametrize("rule", ["tcp", "5tuple"])
@pytest.mark.parametrize("closed", [True, False])
def test_another_connection_sends_nothing_again(tmp_path, rule, closed):
    """Its numbers are below those of the one before, and have nothing to do with them."""
    frames = session(1)
    high = [(frame[:38] + b"\0\x0f\x42\x40" + frame[42:], wire) for frame, wire in frames]
    path = tmp_path / "a.pcap"
    path.write_bytes(capture_of((high if closed else high[:4]) + frames))
    seen = inspect(path, IngestOptions(sessions=rule))
    # the made frames of one side all carry one number: what repeats it within a connection does so in both
    alone = tmp_path / "b.pcap"
    alone.write_bytes(capture_of(high if closed else high[:4]))
    once = inspect(alone)["retransmissions"]
    alone.write_bytes(capture_of(frames))
    assert seen["retransmissions"] == once + inspect(alone)["retransmissions"]


def test_later_fragments_of_a_tunnel_are_lost_bytes(tmp_path):
    inner = ipv4(payload=b"x" * 1000)
    whole = ipv4(protocol=47)[:20]
    gre = struct.pack(">HH", 0, 0x0800) + inner

    def fragment(offset, more, part):
        head = bytearray(whole)
        head[2:4] = struct.pack(">H", 20 + len(part))
        head[6:8] = struct.pack(">H", (0x2000 if more else 0) | offset // 8)
        return ether(bytes(head) + part)

    path = tmp_path / "a.pcap"
    path.write_bytes(pcap([fragment(0, True, gre[:800]), fragment(800, False, gre[800:])]))
    index = read_capture(path, IngestOptions(decap=("gre",)))
    assert index.skipped == {"later_fragment": 1} and index.remarks.lost_fragment_bytes == len(gre) - 800
    assert index.packets["marks"].tolist() == [MARK_FRAGMENT | MARK_TUNNELLED]


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
    capture = folder / "new.pcap"
    talk = pcap([ether(ipv4(CLIENT, SERVER, protocol=17, payload=b"hello"))], times=[(1_600_000_000, 0)])
    capture.write_bytes(next(folder.glob("*/*.pcap")).read_bytes() + talk[24:])
    status, out, err = bench("classify", capture, "--run", run["run_id"], "--json")
    assert status == 0
    rows = json.loads(out)["sessions"]
    index = read_capture(capture, IngestOptions(idle_timeout=0.05, drop_copies=3))
    kept = (index.sessions["payload_packets"] > 0) & (index.sessions["protocol"] == 6)
    assert [row["packets"] for row in rows] == index.sessions["packets"][kept].tolist()
    left_out = int(((index.sessions["payload_packets"] > 0) & (index.sessions["protocol"] == 17)).sum())
    assert json.loads(out)["left_out"] == {"filter: not TCP": left_out} and left_out
    assert f"{left_out} sessions are not classified" in err
