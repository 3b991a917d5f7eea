"""The capture set-up by class, counted by hand, and what it scores alone: on made captures of equal traffic."""

import struct

import numpy as np
import pytest
from capture_bytes import block, enhanced, interface, section
from capture_bytes import pcap as pcap_of
from small_captures import SERVER, packet

from bench.analysis import audit
from bench.analysis.audit_record import SetUpScore
from bench.analysis.capture_setup import ClassSetUp, differences, set_up_by_class, set_up_table
from bench.analysis.data_quality import Pool
from bench.analysis.setup_features import ALL, FEATURES, set_up_scores, setup_features, told
from bench.data.prepare import open_dataset
from bench.files import plain
from bench.spec import RunSpec, SplitSpec
from bench.splits.split import make_split
from bench.structure import structured
from bench.tracking.record import Record

CAPTURES, SESSIONS = 6, 8
CONSTANT = {"link type", "snap length", "clock", "capture tool", "client known by", "copies", "cut packets", "VLAN",
            "MAC vendor", "client TTL", "server TTL", "IP id"}  # fmt: skip


def frames_of(capture, protocol="udp"):
    """Times and frames of the same talks whatever the class: who is in a capture, what is said and when."""
    found = []
    for session in range(SESSIONS):
        client, start = ("10.0.0.1", 40_000 + 100 * capture + session), 10**6 + 5000 * capture + 10 * session
        payload = np.random.default_rng([capture, session]).bytes(400)
        for turn in range(4):
            ends = (client, SERVER) if turn % 2 == 0 else (SERVER, client)
            found.append(packet(start + turn, *ends, payload[turn * 90 : turn * 90 + 80], protocol))
    return found


def written(frames, snap=0xFFFF, magic=0xA1B2C3D4, link=1):
    """A pcap file of (seconds, frame), cut to the snap length."""
    tick = 10**9 if magic == 0xA1B23C4D else 10**6
    times = [(int(time), round(time % 1 * tick)) for time, _ in frames]
    out = struct.pack("<IHHiIII", magic, 2, 4, 0, 0, snap, link)
    for (second, fraction), (_, frame) in zip(times, frames, strict=True):
        out += struct.pack("<4I", second, fraction, len(frame[:snap]), len(frame)) + frame[:snap]
    return out


def patched(frames, at, new):
    return [(time, frame[:at] + new + frame[at + len(new) :]) for time, frame in frames]


def pcapng(frames, tool):
    option = struct.pack("<HH", 4, len(tool)) + tool.ljust(-(-len(tool) // 4) * 4, b"\0") + bytes(4)
    head = block("<", 0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + option)
    return head + interface("<") + b"".join(enhanced("<", frame, round(time * 1e6)) for time, frame in frames)


def doubled(frames):
    """Every packet twice, in half a millisecond; the capture lasts no longer."""
    *most, (time, last) = frames
    return [(time + gap, frame) for time, frame in most for gap in (0, 0.0005)] + [(time - 0.0005, last), (time, last)]


def data_set(folder, classes):
    """The store of a folder: of each class a list of captures, bytes."""
    for name, captures in classes.items():
        (folder / "traffic" / name).mkdir(parents=True)
        for number, content in enumerate(captures):
            (folder / "traffic" / name / f"{number}.pcap").write_bytes(content)
    return open_dataset(str(folder / "traffic"), home=folder / "home")


def scores(store, scheme="session", best=None):
    pool = Pool.of(store, store.default_task, SplitSpec(scheme))
    features = setup_features(store, pool.samples.session)
    assert features.keys() == FEATURES.keys() and all(len(f) == len(pool.samples) for f in features.values())
    split = make_split(store, store.default_task, SplitSpec(scheme))
    return {row.feature: row for row in set_up_scores(pool, split, features, best)}


def other_ttl(frames):
    return patched(frames, 22, bytes([63]))


def tagged(frames):
    return [(time, frame[:12] + bytes.fromhex("8100 0007") + frame[12:]) for time, frame in frames]


def other_vendor(frames):
    """The client's address begins with another maker's number, whether it sends or receives."""
    return [(t, patched([(t, f)], 6 if f[36:38] == b"\x01\xbb" else 0, b"\x00\x17\x88")[0][1]) for t, f in frames]


#: how the captures of one of two classes are made otherwise -> what tells it, and nothing else does
SET_UPS = {
    "cut": (lambda frames: written(frames, snap=96), {"snap length", "cut packets"}),
    "doubled": (lambda frames: written(doubled(frames)), {"copies"}),
    "TTL": (lambda frames: written(other_ttl(frames)), {"client TTL", "server TTL"}),
    "MAC": (lambda frames: written(other_vendor(frames)), {"MAC vendor"}),
    "VLAN": (lambda frames: written(tagged(frames)), {"VLAN"}),
    "IP id": (lambda frames: written(patched(frames, 18, b"\x12\x34")), {"IP id"}),
    "ns": (lambda frames: written(frames, magic=0xA1B23C4D), {"clock"}),
    "link": (
        lambda frames: written([(t, f[14:]) for t, f in frames], link=101), {"link type", "MAC vendor", "VLAN"}
    ),
    "hour": (lambda frames: written([(t + 12 * 3600, f) for t, f in frames]), {"time of day"}),
    "nothing": (written, set()),
}  # fmt: skip


@pytest.mark.parametrize("name", SET_UPS)
def test_equal_traffic_of_two_set_ups_is_told_by_the_set_up_alone(name, tmp_path):
    make, telling = SET_UPS[name]
    talks = [frames_of(number) for number in range(CAPTURES)]
    store = data_set(tmp_path, {"a": map(written, talks), "b": map(make, talks)})
    of = scores(store)
    assert {feature for feature, row in of.items() if row.macro_f1 == row.accuracy == 1} - {ALL} == telling
    # a session of the other class with the same talk is in the same part: whoever cannot tell them is right once
    assert {row.accuracy for feature, row in of.items() if feature not in {*telling, ALL}} <= {0.5}
    assert of[ALL].accuracy == (1 if telling else 0.5)
    assert all(row.chance_accuracy == row.chance_macro_f1 == 0.5 for row in of.values())
    told_of = {line.partition(":")[0] for line in differences(set_up_by_class(store, store.default_task))}
    assert told_of == {
        "cut": {"packets with payload that is cut", "snap lengths"},
        "doubled": {"packets captured twice"},
        "ns": {"clocks"},
        "link": {"link types"},
    }.get(name, set())
    assert bool(told(list(of.values()))) == bool(telling)


def test_tools_and_handshakes_tell_classes_apart(tmp_path):
    talks = [frames_of(number, "tcp") for number in range(CAPTURES)]
    opened = [[(t, f[:47] + b"\x02" + f[48:] if int(t) % 10 == 0 else f) for t, f in talk] for talk in talks]
    store = data_set(
        tmp_path, {"a": [pcapng(one, b"dumpcap 4") for one in talks], "b": [pcapng(one, b"tcpdump") for one in opened]}
    )
    of = scores(store, "capture")
    assert of["capture tool"].macro_f1 == of["client known by"].macro_f1 == of[ALL].macro_f1 == 1
    assert {of[name].macro_f1 for name in CONSTANT - {"capture tool", "client known by"}} == {1 / 3}
    assert differences(set_up_by_class(store, store.default_task)) == [
        "TCP sessions without a handshake: 0 % (b) to 100 % (a)", "capture tools: dumpcap 4 (a) and tcpdump (b)"
    ]  # fmt: skip


def test_the_set_up_of_classes_is_that_of_a_count_by_hand(tmp_path):
    talk, other = frames_of(0), frames_of(1)
    back = [*talk[:31], (talk[31][0] - 7000, talk[31][1])]
    arp = (10**6, bytes(12) + b"\x08\x06" + bytes(40))
    store = data_set(
        tmp_path,
        {
            "a": [written(doubled(talk[:4]) + talk[4:]), written([arp, *other], snap=100)],
            "b": [written(back)],
            "c": [written([arp])],
        },
    )
    a, b = set_up_by_class(store, store.default_task)
    size = 20 + 8 + 80
    # frames of 122 bytes; 100 of them are 58 bytes of payload
    assert (a.captures, a.sessions, a.packets, a.bytes) == (2, 16, 68, 68 * size)
    assert a.shares == {"cut": 32 / 68, "copies": 4 / 68, "tunnelled": 0, "large": 0, "mid_stream": 0, "clock_back": 0}
    assert a.of_captures == {"non_ip": 1} and a.link_types == ("Ethernet",)
    assert a.snap_lengths == (100, 65535) and a.clocks == ("1 µs",) and a.tools == ()
    assert (b.captures, b.sessions, b.packets) == (1, 8, 32)
    assert b.shares == dict.fromkeys(a.shares, 0) | {"clock_back": 1} and b.of_captures == {"steps_back": 1}
    assert differences([a, b]) == [
        "packets with payload that is cut: 0 % (b) to 47 % (a)", "captures whose clock steps back: 0 % (a) to 100 % (b)"
    ]  # fmt: skip
    head, *rows = set_up_table([a, b])
    assert dict(zip(head, rows[0], strict=True)) == {
        "class": "a", "captures": "2", "sessions": "16", "packets": "68", "bytes": str(68 * size),
        "link types": "Ethernet", "snap length": "100, 65535", "clock": "1 µs", "cut": "47.1 %", "copies": "5.9 %",
        "clock-back": "", "non ip": "1", "steps back": "",
    }  # fmt: skip
    read = structured(plain({"rows": [a, b]})["rows"], list[ClassSetUp], "rows")
    assert set_up_table(read) == set_up_table([a, b])
    assert sum(not one.sessions for one in store.manifest.captures) == 1


def test_any_two_classes_that_share_nothing_are_told():
    def row(name, links, packets=1, **shares):
        found = dict.fromkeys(("cut", "copies", "tunnelled", "large", "mid_stream", "clock_back"), 0.0)
        return ClassSetUp(name, 1, 1, packets, 1, found | shares, {}, {}, links, (96,), ("1 s",))

    both, x, y = row("both", ("x", "y")), row("x", ("x",)), row("y", ("y",))
    assert differences([both, x, y]) == ["link types: x (x) and y (y)"]
    assert differences([both, x]) == differences([x]) == differences([]) == []
    assert differences([x, row("none", (), packets=0)]) == []
    assert differences([x, row("z", ("x",), copies=0.1)]) == []
    assert differences([x, row("z", ("x",), copies=0.11)]) == ["packets captured twice: 0 % (x) to 11 % (z)"]


MACS = bytes.fromhex("aabbcc000001 001788000002")


def one_session(wrap):
    """Features of one session of two packets, whose frames ``wrap`` puts into a capture."""

    def frame(number, a, b, source):
        _, bare = packet(0, a, b, b"hello")
        macs = MACS if source else MACS[6:] + MACS[:6]
        return macs + bare[12:18] + bytes([0, number]) + bare[20:22] + bytes([60 + number]) + bare[23:]

    client = ("10.0.0.1", 40_000)
    return wrap([frame(1, client, SERVER, True), frame(2, SERVER, client, False)])


def simple(frames):
    return section("<") + interface("<") + b"".join(block("<", 3, struct.pack("<I", len(f)) + f) for f in frames)


def obsolete(frames):
    heads = [struct.pack(">HHIIII", 0, 0, 0, 5, len(f), len(f)) for f in frames]
    return section(">") + interface(">") + b"".join(block(">", 2, h + f) for h, f in zip(heads, frames, strict=True))


def with_tags(tags):
    return lambda frames: pcap_of([f[:12] + bytes.fromhex(tags) + f[12:] for f in frames])


@pytest.mark.parametrize(
    ("wrap", "vlan"),
    [
        (pcap_of, 0),
        (lambda frames: pcap_of(frames, order=">"), 0),
        (lambda frames: pcap_of(frames, magic=0xA1B2CD34), 0),
        (lambda frames: pcap_of(frames, magic=0xA1B2CD34, order=">"), 0),
        (lambda frames: section(">") + interface(">") + b"".join(enhanced(">", f) for f in frames), 0),
        (simple, 0),
        (obsolete, 0),
        (with_tags("8100 0007"), 7),
        (with_tags("88a8 e064 8100 0007"), 100),
        (with_tags("8100 2001"), 1),  # 802.1p's priority is no part of it
    ],
)  # fmt: skip
def test_headers_are_found_in_every_container(wrap, vlan, tmp_path):
    store = data_set(tmp_path, {"a": [one_session(wrap)]})
    found = {name: column.tolist() for name, column in setup_features(store, np.array([0, 0])).items()}
    assert found["MAC vendor"] == [0x001788] * 2 and found["VLAN"] == [vlan] * 2
    assert found["client TTL"] == [61] * 2 and found["server TTL"] == [62] * 2 and found["IP id"] == [1] * 2


def test_what_a_packet_does_not_have_is_none(tmp_path):
    six, asked = (("fd00::1", 40_000), ("fd00::2", 443)), (("10.0.0.1", 40_000), SERVER)
    answer = bytearray(packet(0, SERVER, asked[0], b"", "tcp")[1])
    answer[:12], answer[47] = MACS, 0x12  # a SYN-ACK: the client is the one that it goes to
    store = data_set(tmp_path, {"a": [pcap_of([packet(0, *six, b"x")[1]]), pcap_of([bytes(answer)])],
                                "b": [pcap_of([packet(0, *asked)[1][14:]], link=101)]})  # fmt: skip
    found = {name: column.tolist() for name, column in setup_features(store, np.arange(3)).items()}
    assert found["IP id"] == [-1, 0, 0] and found["client TTL"] == [64, -1, 64] and found["server TTL"] == [-1, 64, -1]
    assert found["MAC vendor"] == [0, 0xAABBCC, -1] and found["VLAN"] == [0, 0, -1]


def test_columns_of_the_store_become_features(tmp_path):
    late = [(t + 3600 * 5.5, f) for t, f in frames_of(0)[:8]]
    store = data_set(tmp_path, {"a": [written(doubled(late), snap=96)], "b": [written(frames_of(1)[:4])]})
    found = {name: column.tolist() for name, column in setup_features(store, np.array([2, 0, 1])).items()}
    assert found["capture length"] == pytest.approx([3, 13, 13])
    assert found["capture sessions"] == [1, 2, 2] and found["snap length"] == [65535, 96, 96]
    assert found["copies"] == [0, 0.5, 0.5] and found["cut packets"] == [0, 1, 1]
    hour = 10**6 / 3600 % 24
    assert found["time of day"] == pytest.approx([hour + 5000 / 3600, hour + 5.5, hour + 5.5 + 10 / 3600])


def row(feature, f1, best=None, split="session", **other):
    known = {"values": 2, "accuracy": f1, "f1": {"a": f1}, "chance_accuracy": 0.5, "chance_macro_f1": 0.5}
    return SetUpScore(split, feature, macro_f1=f1, best=best, best_method="m" if best else "", **known | other)


def test_more_than_half_of_the_way_to_the_best_run_is_told():
    rows = [row("copies", 0.7, 0.9), row("VLAN", 0.71, 0.9), row("IP id", 0.4), row("clock", 0.76, split="capture")]
    assert [round(one.reach, 2) for one in rows] == [0.5, 0.52, -0.2, 0.52]
    assert told(rows) == [
        "split session: the capture set-up alone reveals classes: "
        "macro-F1 VLAN 0.710 (chance 0.500; best run, m: 0.900)",
        "split capture: the capture set-up alone reveals classes: macro-F1 clock 0.760 (chance 0.500; no run is known)",
    ]
    many = [row(f"f{number}", 0.9 + number / 100) for number in range(6)]
    assert "macro-F1 f5 0.950, f4 0.940, f3 0.930, f2 0.920 and 2 more (" in told(many)[0]
    assert row("x", 1.0, chance_macro_f1=1.0).reach == 0


def test_a_run_that_is_not_above_chance_is_no_mark(tmp_path):
    talks = [frames_of(number) for number in range(CAPTURES)]
    store = data_set(tmp_path, {name: map(written, talks) for name in "ab"})
    assert scores(store, best=("majority", 0.33))["copies"].best is None
    kept = scores(store, best=("forest", 0.75))["copies"]
    assert (kept.best, kept.best_method) == (0.75, "forest")


def test_the_best_run_is_one_that_is_done():
    def run(method, status, parameters=None, **metrics):
        return Record(
            "f00", status, reason="", metrics=metrics, spec=RunSpec(method, "d", "t", parameters=parameters or {})
        )

    runs = [run("majority", "failed"), run("ports", "done", macro_f1=0.5), run("knn", "done")]
    assert audit.best_of(runs) == ("ports", 0.5) and audit.best_of(runs[:1]) is None
    runs.append(run("forest", "done", {"leave_out": "times"}, macro_f1=0.7))
    assert audit.best_of(runs) == ("forest (no-times)", 0.7)
