import csv
import gzip
import hashlib
import os
import re
import socket
import struct
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from capture_bytes import CLIENT, SECOND, SERVER, block, enhanced, ether, interface, ipv4, pcap, section
from refusals import refused

from bench import schema
from bench.ingest import (
    Damage,
    IngestOptions,
    connections,
    containers,
    headers,
    inspect,
    links,
    options,
    read_capture,
    tunnels,
)
from bench.ingest.sessions import SessionTable, gather, group, sort_by_time
from bench.schema import CAPTURE_MAGICS, PACKET_COLUMNS, SESSION_COLUMNS

CAPTURES = Path(__file__).parents[2] / "shared" / "captures"


@pytest.fixture
def read(tmp_path):
    def write_and_read(data, **rules):
        path = tmp_path / "capture"
        path.write_bytes(data)
        return read_capture(path, IngestOptions(**rules))

    return write_and_read


def truth():
    if not (CAPTURES / "truth.csv").exists():
        return [pytest.param({}, marks=pytest.mark.skip(reason="no captures in ../shared"))]
    with (CAPTURES / "truth.csv").open() as file:
        return [pytest.param(row, id=row["file"][:40]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("row", truth())
def test_agrees_with_two_other_readers(row):
    seen = inspect(CAPTURES / "files" / row["file"])
    assert seen["packets"] == int(row["packets"])
    assert seen["tcp_conversations"] == int(row["tcp_conv_outer"])
    assert seen["udp_conversations"] == int(row["udp_conv_outer"])
    assert seen["conversations_with_payload"] == int(row["conv_outer_with_payload"])
    assert seen["payload_bytes"] == int(row["payload_bytes_outer"])
    assert bool(seen["damage"]) == (row["tshark_rc"] != "0")


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("magic", "tick"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1), (0xA1B2CD34, 1000)])
def test_pcap_layouts(read, order, magic, tick):
    frames = [ether(ipv4(payload=b"abc")), ether(ipv4(SERVER, CLIENT, flags=0x12))]
    index = read(pcap(frames, order=order, magic=magic, times=[(5, 7), (4_000_000_000, 8)]))
    assert index.format == "pcap" and index.link_types == ("Ethernet",) and index.records == 2
    packets = index.packets
    assert packets["time"].tolist() == [5 * SECOND + 7 * tick, 4_000_000_000 * SECOND + 8 * tick]
    assert packets["direction"].tolist() == [1, -1]
    assert packets["payload_length"].tolist() == [3, 0] and packets["length"].tolist() == [43, 40]
    assert packets["flags"].tolist() == [0x18, 0x12]
    data = index.bytes_path.read_bytes()
    start = int(packets["record"][0]) + int(packets["ip"][0])
    assert data[start : start + int(packets["captured"][0])] == ipv4(payload=b"abc")
    assert data[start + int(packets["payload"][0]) :].startswith(b"abc")


def test_columns_are_those_of_the_schema(read):
    index = read(pcap([ether(ipv4())]))
    assert {name: column.dtype for name, column in index.packets.items()} == PACKET_COLUMNS
    expected = {name: kind for name, kind in SESSION_COLUMNS.items() if name not in ("capture", "conversation")}
    assert {name: column.dtype for name, column in index.sessions.items()} == expected


@pytest.mark.parametrize("order", "<>")
def test_pcapng_sections_interfaces_and_blocks(read, order):
    frame, raw = ether(ipv4(payload=b"abcd")), ipv4(SERVER, CLIENT, payload=b"xy")
    other = ">" if order == "<" else "<"
    old = struct.pack(order + "HHIIII", 1, 0, 0, 2000, len(raw), len(raw)) + raw
    data = (
        section(order)
        + interface(order)
        + interface(order, link=101, resolution=9, offset=10)
        + enhanced(order, frame, ticks=1_500_000)
        + block(order, 0xBAD, b"skip me")
        + block(order, 2, old)
        + block(order, 3, struct.pack(order + "I", len(frame)) + frame)
        + section(other)
        + interface(other, link=101, resolution=0x80 | 1)
        + enhanced(other, raw, ticks=61)
    )
    index = read(data)
    assert index.format == "pcapng" and not index.damage and index.link_types == ("Ethernet", "raw IP")
    assert index.records == 4 and len(index.sessions["start"]) == 1
    # the simple packet has no time of its own and takes that of the packet before it
    times = [1_500_000_000, 10 * SECOND + 2000, 10 * SECOND + 2000, 30_500_000_000]
    assert index.packets["time"].tolist() == times
    assert index.packets["direction"].tolist() == [1, -1, 1, -1]


@pytest.mark.parametrize(
    ("resolution", "ticks", "expected"),
    [
        (0, 3, 3 * SECOND),
        (3, 1_234, 1_234_000_000),
        (12, 5_000_000_001_999, 5 * SECOND + 1),
        (127, 2**63, 0),
        (0x80 | 10, 1536, 1_500_000_000),
        (0x80 | 63, 2**62, SECOND // 2),
        (0x80 | 127, 2**63, 0),
        (0, 2**63, (2**62 // 10**9 - 1) * SECOND),
    ],
)
def test_clock_resolutions(read, resolution, ticks, expected):
    data = section("<") + interface("<", resolution=resolution) + enhanced("<", ether(ipv4()), ticks=ticks)
    assert read(data).packets["time"].tolist() == [expected]


@pytest.mark.parametrize("size", [100, 0xFF00])
def test_options_of_an_interface_are_read_up_to_a_bound(read, size):
    """A block may claim the whole file; a copy of it would take as much memory."""
    comment = struct.pack("<HH", 1, size) + bytes(size)
    options = comment + struct.pack("<HHBxxx", 9, 1, 3) + comment * (1 + 2**25 // size)
    body = struct.pack("<HHI", 1, 0, 0) + options
    small, packet = section("<") + interface("<", resolution=3), enhanced("<", ether(ipv4()), 5000)
    read(small + packet)  # compiles
    data = section("<") + block("<", 1, body) + packet
    tracemalloc.start()
    index = read(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not index.damage and peak < 2**22
    assert index.packets["time"].tolist() == [5 * SECOND]
    # behind more options than that, a clock is not seen
    late = struct.pack("<HHI", 1, 0, 0) + comment * (1 + 2**16 // size) + struct.pack("<HHBxxx", 9, 1, 3)
    assert read(section("<") + block("<", 1, late) + packet).packets["time"].tolist() == [5_000_000]


def test_the_magics_are_known_without_numba(read):
    assert len(CAPTURE_MAGICS) == 7
    for magic, kind in CAPTURE_MAGICS.items():
        assert read(magic + bytes(40)).format == kind
    code = "import sys, bench.schema; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0


def llc(packet):
    return b"\xaa\xaa\x03\0\0\0\x08\0" + packet


def nflog_payload(packet, order="<"):
    return struct.pack(order + "HH", 4 + len(packet), 9) + packet


LINKS = {
    "vlan": (1, lambda p: ether(p, 0x0800, b"\x81\0\0\x05")),
    "qinq": (1, lambda p: ether(p, 0x0800, b"\x88\xa8\0\x05\x91\0\0\x01\x81\0\0\x05")),
    "mpls": (1, lambda p: ether(b"\0\0\x10\x40\0\0\x21\x40" + p, 0x8847)),
    "pppoe": (1, lambda p: ether(b"\x11\0\0\x01\0\x40\0\x21" + p, 0x8864)),
    "snap": (1, lambda p: ether(llc(p), 8 + len(p))),
    "raw": (101, lambda p: p),
    "raw 12": (12, lambda p: p),
    "ipv4": (228, lambda p: p),
    "null": (0, lambda p: b"\x02\0\0\0" + p),
    "null, other order": (0, lambda p: b"\0\0\0\x02" + p),
    "loop": (108, lambda p: b"\0\0\0\x02" + p),
    "cooked": (113, lambda p: bytes(14) + b"\x08\0" + p),
    "cooked 2": (276, lambda p: b"\x08\0" + bytes(18) + p),
    "ppp": (9, lambda p: b"\0\x21" + p),
    "ppp, compressed": (9, lambda p: b"\xff\x03\x21" + p),
    "hdlc": (50, lambda p: b"\xff\x03\0\x21" + p),
    "cisco": (50, lambda p: b"\x0f\0\x08\0" + p),
    "802.11": (105, lambda p: b"\x08\x01" + bytes(22) + llc(p)),
    "802.11 between access points": (105, lambda p: b"\x08\x03" + bytes(28) + llc(p)),
    "802.11 with quality of service": (105, lambda p: b"\x88\x01" + bytes(24) + llc(p)),
    "802.11 padded": (105, lambda p: b"\x88\x01" + bytes(26) + llc(p)),
    "virtual network tag": (1, lambda p: ether(p, 0x0800, b"\x89\x26\x80\x01\0\0")),
    "provider backbone": (1, lambda p: ether(bytes(4) + ether(p), 0x88E7)),
    "EDSA": (1, lambda p: ether(p, 0x0800, b"\xda\xda\0\0\x40\0\0\0")),
    "FDDI": (10, lambda p: bytes(13) + llc(p)),
    "Token Ring": (6, lambda p: bytes(14) + llc(p)),
    "Token Ring with a route": (6, lambda p: bytes(8) + b"\x80" + bytes(5) + b"\x04" + bytes(3) + llc(p)),
    "Cisco HDLC": (104, lambda p: b"\x0f\0\x08\0" + p),
    "InfiniBand": (242, lambda p: bytes(40) + b"\x08\0\0\0" + p),
    "PFLOG": (117, lambda p: b"\x3d\x02" + bytes(62) + p),
    "NFLOG": (239, lambda p: b"\x02\0\0\0" + b"\x05\0\x05\0\xff" + bytes(3) + nflog_payload(p)),
    "NFLOG, other order": (239, lambda p: b"\x02\0\0\0" + b"\0\x05\0\x05\xff" + bytes(3) + nflog_payload(p, ">")),
    "PKTAP": (258, lambda p: struct.pack("<III", 108, 1, 1) + bytes(96) + ether(p)),
    "PPI": (192, lambda p: struct.pack("<BBHI", 0, 0, 8, 1) + ether(p)),
    "PPI of 802.11": (192, lambda p: struct.pack("<BBHI", 0, 0, 12, 105) + bytes(4) + b"\x08\x01" + bytes(22) + llc(p)),
    "Prism": (119, lambda p: struct.pack("<II", 0x44, 144) + bytes(136) + b"\x08\x01" + bytes(22) + llc(p)),
    "AVS": (163, lambda p: struct.pack(">II", 0x80211001, 64) + bytes(56) + b"\x08\x01" + bytes(22) + llc(p)),
    "radiotap": (127, lambda p: b"\0\0\x0a\0" + bytes(6) + b"\x08\x02" + bytes(22) + llc(p)),
}


@pytest.mark.parametrize("name", LINKS)
def test_link_types(read, name):
    link, wrap = LINKS[name]
    frame = wrap(ipv4(payload=b"abc")) + b"trailer"
    index = read(pcap([frame], link=link))
    assert index.packets["ip"].tolist() == [16 + len(wrap(b""))]
    assert index.packets["captured"].tolist() == [43] and index.packets["payload_length"].tolist() == [3]
    # every shorter frame is cut somewhere, and is counted
    cut = read(pcap([frame[:size] for size in range(len(frame))], link=link))
    assert cut.records == len(frame) == len(cut.packets["time"]) + sum(cut.skipped.values())
    assert set(cut.skipped) <= {"truncated_header", "non_ip", "bad_header"}


def test_no_compiled_code_is_older_than_what_it_takes_in():
    """numba compiles a file again when that file changes; of what it imports it knows nothing."""
    for module, parts in ((headers, (links, tunnels, containers, options, schema)), (connections, (headers, schema))):
        text = "".join(Path(part.__file__).read_text() for part in parts)
        digest = hashlib.sha256(re.sub('COMPILED_IN: Final = "[0-9a-f]*"', "", text).encode()).hexdigest()[:16]
        assert module.COMPILED_IN == digest, f"set COMPILED_IN in {module.__file__} to {digest}"


def test_what_gives_no_packet_is_counted(read):
    frames = [
        ether(bytes(28), 0x0806),
        ether(ipv4(protocol=1)),
        ether(ipv4(protocol=17, payload=b"first", fragment=0x2000)),
        ether(ipv4(protocol=17, fragment=0x2001)),
        ether(ipv4(total=19)),
        ether(ipv4(total=39)),
        ether(b"\x55" + bytes(60)),
        ether(ipv4()[:33]),
        ether(b"\x00" + bytes(60), 0x88B5),
    ]
    index = read(pcap(frames))
    assert index.skipped == {
        "non_ip": 2,
        "other_protocol": 1,
        "later_fragment": 1,
        "bad_header": 3,
        "truncated_header": 1,
    }
    assert index.packets["payload_length"].tolist() == [5]
    assert read(pcap(frames, link=147)).skipped == {"unknown_link": 9}


def test_lengths_follow_the_headers(read):
    frames = [
        ether(ipv4(payload=b"x" * 100, total=0)),  # segmentation offload
        ether(ipv4(payload=b"x" * 100)[:60]),
        ether(ipv4(payload=b"x", options=b"\1" * 8)) + bytes(20),
    ]
    packets = read(pcap(frames)).packets
    assert packets["length"].tolist() == [140, 140, 49]
    assert packets["payload_length"].tolist() == [100, 100, 1]
    assert packets["captured"].tolist() == [140, 60, 49]
    assert packets["payload"].tolist() == [40, 40, 48]


def ipv6(next_header, body, plen=None):
    head = struct.pack(">IHBB", 0x60000000, len(body) if plen is None else plen, next_header, 64)
    return head + bytes(15) + b"\1" + bytes(15) + b"\2" + body


def test_ipv6_extension_headers(read):
    udp = struct.pack(">HHHH", 1000, 2000, 11, 0) + b"abc"
    hop, route, ah = b"\x2b\0" + bytes(6), b"\x33\0" + bytes(6), b"\x11\x04" + bytes(22)
    first, later = b"\x11\0\0\x01" + bytes(4), b"\x11\0\0\x08" + bytes(4)
    endless = (b"\0\0" + bytes(6)) * 40
    frames = [
        ipv6(17, udp),
        ipv6(0, hop + route + ah + udp),
        ipv6(44, first + udp),
        ipv6(44, later + udp),
        ipv6(0, endless),
        ipv6(50, udp),
        ipv6(17, udp, plen=0),
    ]
    index = read(pcap(frames, link=229))
    assert index.skipped == {"later_fragment": 1, "bad_header": 1, "other_protocol": 1}
    assert index.packets["payload"].tolist() == [48, 88, 56, 48]
    assert index.packets["payload_length"].tolist() == [3, 3, 3, 3]
    assert index.sessions["client_ip"].view("u1").reshape(-1, 16)[0].tolist() == [0] * 15 + [1]


def test_sessions_their_client_and_order(read):
    other = ("10.0.0.3", 53)
    frames = [
        ether(ipv4(SERVER, CLIENT, payload=b"ab")),
        ether(ipv4(CLIENT, other, protocol=17, payload=b"q")),
        ether(ipv4(CLIENT, SERVER)),
        ether(ipv4(CLIENT, SERVER, protocol=17)),  # same end points, other protocol
        ether(ipv4(other, CLIENT, protocol=17, payload=b"answer")),
    ]
    sessions = read(pcap(frames)).sessions
    assert sessions["client_port"].tolist() == [443, 40000, 40000]
    assert sessions["server_port"].tolist() == [40000, 53, 443]
    assert sessions["client_ip"][0] == socket.inet_aton("10.0.0.2")
    assert sessions["protocol"].tolist() == [6, 17, 17] and sessions["ip_version"].tolist() == [4, 4, 4]
    assert sessions["packets"].tolist() == [2, 2, 1] and sessions["first_packet"].tolist() == [0, 2, 4]
    assert sessions["payload_packets"].tolist() == [1, 2, 0] and sessions["payload_bytes"].tolist() == [2, 7, 0]
    assert sessions["start"].tolist() == [0, SECOND, 3 * SECOND]
    assert sessions["duration"].tolist() == [2 * SECOND, 3 * SECOND, 0]


def test_time_going_back(read):
    frames = [ether(ipv4(payload=b"x" * n)) for n in (1, 2, 3)] + [ether(ipv4(SERVER, CLIENT))]
    index = read(pcap(frames, times=[(5, 0), (3, 0), (5, 0), (1, 0)]))
    assert index.packets["payload_length"].tolist() == [0, 2, 1, 3]  # equal times keep their order
    assert index.packets["direction"].tolist() == [1, -1, -1, -1]  # the earliest packet names the client
    assert index.sessions["client_port"].tolist() == [443] and index.sessions["duration"].tolist() == [4 * SECOND]


def test_idle_timeout(read):
    times = [(0, 0), (10, 0), (20, 1), (20, 2), (40, 0)]
    ends = [(CLIENT, SERVER), (CLIENT, SERVER), (SERVER, CLIENT), (CLIENT, ("10.0.0.9", 1)), (SERVER, CLIENT)]
    data = pcap([ether(ipv4(*pair)) for pair in ends], times=times)
    assert read(data).sessions["packets"].tolist() == [4, 1]
    index = read(data, idle_timeout=10)
    assert index.sessions["packets"].tolist() == [2, 1, 1, 1]  # exactly 10 s is no cut
    assert index.sessions["first_packet"].tolist() == [0, 2, 3, 4]
    assert index.sessions["client_port"].tolist() == [40000, 443, 443, 40000]
    assert index.packets["direction"].tolist() == [1, 1, 1, 1, 1]
    assert read(data, idle_timeout=9e9).sessions["packets"].tolist() == [4, 1]
    for bad in (0, -1, float("nan"), float("inf"), 1e10, 1e300):
        with refused("bad-timeout"):
            read(data, idle_timeout=bad)


@pytest.mark.parametrize("count", [3, 70_000])
def test_sort_is_a_stable_sort_by_session_and_time(count):
    rng = np.random.default_rng(0)
    session = np.concatenate([[0], np.minimum(rng.integers(0, 8, count), 1)]).astype(np.int32)  # one holds most
    session[session > 0] = 1
    packets = {"time": rng.integers(0, count // 2, count + 1), "record": np.arange(count + 1)}
    order = np.lexsort([packets["record"], packets["time"], session])
    expected = {name: column[order] for name, column in packets.items()}
    starts, rows = group(session.copy(), 2)
    gather(packets, rows)
    late = sum((np.diff(packets["time"][a:b]) < 0).any() for a, b in pairwise(starts))
    assert sort_by_time(packets, starts) == late
    assert starts.tolist() == [0, int((session == 0).sum()), count + 1]
    assert all((packets[name] == expected[name]).all() for name in packets)


def test_session_table_grows():
    rng = np.random.default_rng(1)
    keys = rng.integers(0, 9, (60_000, 5))
    table, seen = SessionTable(), {}
    for at in range(0, len(keys), 1000):
        numbers = np.empty(1000, np.int32)
        table.number(keys[at : at + 1000], numbers)
        assert numbers.tolist() == [seen.setdefault(tuple(key), len(seen)) for key in keys[at : at + 1000].tolist()]
    assert table.close().tolist() == [list(key) for key in seen]


def test_many_packets_in_many_batches(read):
    frames = [ether(ipv4(("10.0.0.1", 1 + i % 7), payload=bytes(i % 5))) for i in range(5000)]
    index = read(pcap(frames))
    assert index.sessions["packets"].tolist() == [715, 715, 714, 714, 714, 714, 714]
    assert index.sessions["payload_bytes"].sum() == sum(i % 5 for i in range(5000))
    ng = read(section("<") + interface("<") + b"".join(enhanced("<", f, i * 10**6) for i, f in enumerate(frames)))
    assert (ng.packets["time"] == index.packets["time"]).all() and ng.records == 5000


def test_damage_in_pcap(read):
    good = pcap([ether(ipv4())] * 2)
    cut = read(good[:-3])
    assert cut.damage == (Damage(94, "the file ends inside a record", 67),)
    assert cut.records == 1
    assert read(good + b"tail").damage == (Damage(len(good), "the file ends inside a record", 4),)
    huge = struct.pack("<IIII", 0, 0, 0xFFFFFFF0, 0xFFFFFFF0)
    assert read(good + huge + bytes(99)).damage[0].bytes_lost == 115
    assert read(good[:20]).damage == (Damage(0, "the file ends inside its header", 20),)
    assert read(good[:24]).damage == () and read(good[:24]).records == 0


@pytest.mark.parametrize("order", "<>")
def test_damage_in_pcapng(read, order):
    good = section(order) + interface(order) + enhanced(order, ether(ipv4()))
    packet = enhanced(order, ether(ipv4()))
    faults = {
        "ends inside": packet[:-5],
        "fewer bytes": struct.pack(order + "II", 6, 0) + packet[8:],
        "two lengths": packet[:-4] + bytes(4),
        "does not have": enhanced(order, ether(ipv4()), interface=1),
        "longer than its block": block(order, 6, struct.pack(order + "IIIII", 0, 0, 0, 999, 999) + bytes(40)),
        "byte order": section(order)[:8] + b"oops" + section(order)[12:],
    }
    for reason, bad in faults.items():
        rest = b"" if reason == "ends inside" else packet
        index = read(good + bad + rest)
        (damage,) = index.damage
        assert index.records == 1 and damage.offset == len(good)
        assert damage.bytes_lost == len(bad + rest)
        assert reason in damage.reason
    assert read(good[:20]).damage[0].offset == 0


def test_what_is_no_capture_is_refused(tmp_path, read):
    for data in (b"", b"\xa1", b"no capture at all, but text", gzip.compress(b"text")):
        with refused("not-a-capture"):
            read(data)
    with refused("unreadable-file", "missing.pcap"):
        read_capture(tmp_path / "missing.pcap")
    with refused("unreadable-file"):
        read_capture(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    keep = os.open(tmp_path / "pipe", os.O_RDWR)  # or opening it to read would wait for ever
    os.write(keep, bytes(64))
    with refused("unreadable-file"):
        read_capture(tmp_path / "pipe")
    os.close(keep)


def test_a_capture_without_packets_has_empty_columns(read):
    for rules in ({}, {"idle_timeout": 1.0}):
        index = read(section("<"), **rules)
        assert index.records == 0 and index.link_types == ()
        assert {len(column) for column in (*index.packets.values(), *index.sessions.values())} == {0}


def test_captures_read_in_threads_are_the_same(tmp_path):
    path = tmp_path / "capture.pcap"
    path.write_bytes(pcap([ether(ipv4(("10.0.0.1", 1 + i % 97), payload=bytes(i % 50))) for i in range(10_000)]))
    with ThreadPoolExecutor(4) as pool:
        indices = list(pool.map(read_capture, [path] * 8))
    for name in PACKET_COLUMNS:
        assert all((index.packets[name] == indices[0].packets[name]).all() for index in indices)


def check(index):
    """What holds of every index, of whatever bytes."""
    packets, sessions = index.packets, index.sessions
    assert index.records == len(packets["time"]) + sum(index.skipped.values())
    start = packets["record"] + packets["ip"]
    assert (start + packets["captured"] <= index.size).all()
    assert sessions["packets"].sum() == len(packets["time"])
    assert (np.diff(packets["time"])[np.setdiff1d(np.arange(1, len(start)), sessions["first_packet"]) - 1] >= 0).all()
    assert all(0 <= d.offset <= index.size and d.bytes_lost > 0 for d in index.damage)


def test_broken_bytes_never_crash(read):
    rng = np.random.default_rng(4)
    wrapped = {name: wrap(ipv4(payload=b"abcdef")) for name, (_, wrap) in LINKS.items()}
    by_link = {}
    for name, frame in wrapped.items():
        by_link.setdefault(LINKS[name][0], []).append(frame)
    seeds = [pcap([*frames, ipv6(0, b"\x2c\0" + bytes(14))], link=link) for link, frames in by_link.items()]
    for order in "<>":
        interfaces = [interface(order, link=link, resolution=9, offset=3) for link in by_link]
        frames = [enhanced(order, f, 9, i) for i, group in enumerate(by_link.values()) for f in group]
        seeds.append(section(order) + b"".join(interfaces + frames) + block(order, 3, bytes(4) + frames[0]))
    for seed in seeds:
        for _ in range(25):
            data = bytearray(seed)
            for at in rng.integers(4, len(data), rng.integers(1, 8)):
                data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.integers(256)])
            check(read(bytes(data[: rng.integers(4, len(data) + 1)] if rng.random() < 0.3 else data)))


@pytest.mark.skipif(not CAPTURES.exists(), reason="no captures in ../shared")
def test_broken_captures_never_crash(read):
    rng = np.random.default_rng(5)
    for path in sorted((CAPTURES / "files").iterdir()):
        if path.suffix == ".gz" or path.stat().st_size > 40_000:
            continue
        for _ in range(5):
            data = np.frombuffer(path.read_bytes(), np.uint8).copy()
            at = rng.integers(4, len(data), 1 + len(data) // 200)
            data[at] = rng.integers(0, 256, len(at))
            check(read(data.tobytes()))
