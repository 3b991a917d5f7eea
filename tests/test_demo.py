"""The demo's captures: the same bytes every time, and salts that change only what they say."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from refusals import refused
from scapy.layers.inet import IP, TCP, UDP
from scapy.utils import rdpcap

from bench.generators import demo

SMALL = {"sessions": 8, "captures": 2, "classes": 3}


def digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.pcap")}


def parsed(folder: Path) -> list[dict]:
    """Every packet of every capture, taken apart by scapy."""
    rows = []
    for path in sorted(folder.rglob("*.pcap")):
        for packet in rdpcap(str(path)):
            transport = packet[TCP] if TCP in packet else packet[UDP]
            rows.append(
                {
                    "time": float(packet.time),
                    "addresses": (packet[IP].src, packet[IP].dst),
                    "ports": (transport.sport, transport.dport),
                    "checksums": (packet[IP].chksum, transport.chksum),
                    "rest": (
                        path.name,
                        packet[IP].len,
                        packet[IP].ttl,
                        packet[IP].id,
                        str(packet.payload.payload.name),
                    ),
                    "tcp": (transport.seq, transport.ack, str(transport.flags)) if TCP in packet else None,
                    "payload": bytes(transport.payload),
                }
            )
    return rows


def sessions(rows: list[dict]) -> dict[tuple, list[dict]]:
    table: dict[tuple, list[dict]] = {}
    for row in rows:
        ends = frozenset(zip(row["addresses"], row["ports"], strict=True))
        table.setdefault((row["rest"][0], ends, row["tcp"] is None), []).append(row)
    return table


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    demo.write(folder, **SMALL)
    return folder, parsed(folder)


def test_same_seed_same_bytes_other_seed_other_bytes(plain, tmp_path):
    demo.write(tmp_path / "again", **SMALL)
    demo.write(tmp_path / "other", **SMALL, seed=1)
    first, again, other = digests(plain[0]), digests(tmp_path / "again"), digests(tmp_path / "other")
    assert first == again
    assert first.keys() == other.keys() and not set(first.values()) & set(other.values())


def test_one_more_service_or_capture_leaves_the_others_alone(plain, tmp_path):
    demo.write(tmp_path, **SMALL | {"classes": 4})
    assert digests(plain[0]).items() < digests(tmp_path).items()


@pytest.mark.parametrize(
    ("salt", "changed"),
    [
        ({"subnet": 7}, {"addresses", "checksums"}),
        ({"ports": 3}, {"ports", "checksums"}),
        ({"start": demo.START + 1e6}, {"time"}),
        ({"corrupt_checksums": True}, {"checksums"}),
    ],
)
def test_salts_change_what_they_say_and_nothing_else(plain, tmp_path, salt, changed):
    demo.write(tmp_path, **SMALL, salt=demo.Salt(**salt))
    before, after = plain[1], parsed(tmp_path)
    assert len(before) == len(after)
    for key in before[0]:
        same = [a[key] == b[key] for a, b in zip(before, after, strict=True)]
        if key in changed:
            assert sum(same) < 0.01 * len(same), key  # two checksums may be equal by chance
        else:
            assert all(same), key
    steps = [np.diff([row["time"] for row in rows]) for rows in (before, after)]
    np.testing.assert_allclose(*steps, atol=1e-6)
    assert len(sessions(before)) == len(sessions(after))


def test_checksums_and_lengths_are_those_that_scapy_computes(plain):
    for path in plain[0].rglob("*.pcap"):
        for packet in rdpcap(str(path)):
            fresh = packet.copy()
            for layer, field in ((IP, "chksum"), (IP, "len"), (TCP, "chksum"), (UDP, "chksum"), (UDP, "len")):
                if layer in fresh:
                    fresh[layer].delfieldval(field)
            assert bytes(fresh) == bytes(packet)


def test_sequence_numbers_let_each_stream_be_put_together(plain):
    """Every TLS byte stream reads as whole records once retransmissions are dropped."""
    streams = 0
    for packets in sessions(plain[1]).values():
        if packets[0]["tcp"] is None or packets[0]["tcp"][2] != "S":
            continue
        for ports in {row["ports"] for row in packets}:
            mine = [row for row in packets if row["ports"] == ports]
            first = mine[0]["tcp"][0] + 1
            stream = bytearray()
            for row in mine:
                offset = (row["tcp"][0] - first) % 2**32
                if row["payload"]:
                    assert offset <= len(stream)
                    stream[offset : offset + len(row["payload"])] = row["payload"]
            at = 0
            while at + 5 <= len(stream):
                assert stream[at] in (20, 22, 23) and stream[at + 1 : at + 3] == b"\3\3"
                at += 5 + int.from_bytes(stream[at + 3 : at + 5])
            streams += at > 0
    assert streams > 10


def test_quic_like_sessions_start_with_an_initial_packet_of_at_least_1200_bytes(plain):
    first = [packets[0]["payload"] for packets in sessions(plain[1]).values() if packets[0]["tcp"] is None]
    assert first
    for payload in first:
        assert payload[0] & 0xF0 == 0xC0 and payload[1:5] == b"\0\0\0\1" and len(payload) >= 1200
        head = 6 + payload[5] + 2  # connection ids and an empty token
        assert int.from_bytes(payload[head : head + 2]) & 0x3FFF == len(payload) - head - 2


def test_the_default_size_is_what_the_docstring_promises():
    """Counts, shares and bounds, from the sessions before they are written."""
    sizes, packets, empty, ports = Counter(), [], 0, set()
    for service in demo.PROFILES:
        for capture in range(6):
            for talk in demo._capture(service, capture, 20, seed=0):
                sizes[service] += 1
                packets.append(len(talk.packets))
                empty += not any(p.payload for p in talk.packets)
                ports.add(talk.port)
                assert max(len(p.payload) for p in talk.packets) <= demo.SEGMENT
                times = [p.time for p in talk.packets]
                assert times == sorted(times)
    assert len(sizes) == 6
    assert min(packets) >= 1 and max(packets) <= demo.LONGEST
    assert 0.02 < np.mean(np.array(packets) <= 3) < 0.10
    assert 0 < empty / len(packets) < 0.03
    assert len(ports) > 0.9 * len(packets)


def test_captures_and_sessions_are_counted_as_asked(plain):
    names = sorted(p.name for p in plain[0].rglob("*.pcap"))
    assert names == [f"{s}-{i}.pcap" for s in ("browsing", "chat", "file-transfer") for i in range(2)]
    per_service = Counter(name.rsplit("-", 1)[0] for name, *_ in sessions(plain[1]))
    assert all(round(8 * 5 / 6) <= n <= 10 for n in per_service.values())
    servers = {min(row["ports"]) for row in plain[1]}
    assert servers == {demo.SERVER_PORT}


@pytest.mark.parametrize("bad", [{"classes": 7}, {"sessions": 0}, {"captures": 0}, {"salt": demo.Salt(subnet=256)}])
def test_bad_arguments_are_refused_in_one_line(tmp_path, bad):
    with refused("bad-size", "demo"):
        demo.write(tmp_path, **bad)
    assert not list(tmp_path.iterdir())
