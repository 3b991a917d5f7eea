"""The ingest against scapy: captures made at random, read by both."""

import socket
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.config import conf
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import (
    ARP,
    GRE,
    LLC,
    SNAP,
    CookedLinux,
    CookedLinuxV2,
    Dot1AD,
    Dot1Q,
    Dot3,
    Ether,
    Loopback,
)
from scapy.layers.ppp import PPP, PPPoE
from scapy.packet import NoPayload, Raw
from scapy.utils import EDecimal, RawPcapNgWriter, RawPcapWriter

from bench.ingest import read_capture

MAC = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}

# link type -> the layers below IP, for either version
LINKS = {
    1: [
        lambda v: Ether(**MAC),
        lambda v: Ether(**MAC) / Dot1Q(vlan=5),
        lambda v: Ether(**MAC) / Dot1AD(vlan=7) / Dot1Q(vlan=5),
        lambda v: Ether(**MAC) / MPLS(label=1, s=0) / MPLS(label=2, s=1),
        lambda v: Ether(**MAC) / PPPoE(sessionid=1) / PPP(proto={4: 0x21, 6: 0x57}[v]),
        lambda v: Dot3(**MAC) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0, code={4: 0x800, 6: 0x86DD}[v]),
    ],
    101: [lambda v: None],
    113: [lambda v: CookedLinux(proto={4: 0x800, 6: 0x86DD}[v])],
    276: [lambda v: CookedLinuxV2(proto={4: 0x800, 6: 0x86DD}[v])],
    9: [lambda v: PPP(proto={4: 0x21, 6: 0x57}[v])],
    0: [lambda v: Loopback(type={4: 2, 6: socket.AF_INET6}[v])],
}
EXTENSIONS = (IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting)

PACKETS = st.fixed_dictionaries(
    {
        "link": st.sampled_from(sorted(LINKS)),
        "below": st.integers(0, 5),
        "version": st.sampled_from([4, 4, 6]),
        "kind": st.sampled_from(["tcp", "tcp", "udp", "udp", "icmp", "gre", "arp"]),
        "hosts": st.sampled_from([(1, 2), (2, 1), (1, 3), (3, 3)]),
        "ports": st.sampled_from([(1, 2), (2, 1), (40000, 443)]),
        "size": st.integers(0, 60),
        "options": st.integers(0, 2),
        "fragment": st.sampled_from([(False, 0)] * 8 + [(True, 0), (True, 3), (False, 5)]),
        "flags": st.integers(0, 255),
        "sequence": st.sampled_from([0, 2**31]),
        "step": st.integers(-2, 50),  # µs
        "cut": st.none() | st.integers(0, 120),
    }
)


def build(want):
    """The frame's bytes, as scapy makes them."""
    version, (a, b), (sport, dport) = want["version"], want["hosts"], want["ports"]
    data, nops = Raw(bytes(range(want["size"]))), 4 * want["options"]
    upper = {
        "tcp": TCP(sport=sport, dport=dport, flags=want["flags"], seq=want["sequence"], options=[("NOP", None)] * nops)
        / data,
        "udp": UDP(sport=sport, dport=dport) / data,
        "icmp": ICMP() / data,
        "gre": GRE() / IP(src="1.1.1.1", dst="2.2.2.2") / UDP() / data,
        "arp": data,
    }[want["kind"]]
    more, offset = want["fragment"]
    if version == 4:
        options = [IPOption_NOP()] * nops
        network = IP(src=f"10.0.0.{a}", dst=f"10.0.0.{b}", flags="MF" if more else 0, frag=offset, options=options)
    else:
        network = IPv6(src=f"fd00::{a}", dst=f"fd00::{b}")
        for extension in (IPv6ExtHdrHopByHop(), IPv6ExtHdrRouting(), IPv6ExtHdrDestOpt())[: want["options"]]:
            network /= extension
        if more or offset:
            network /= IPv6ExtHdrFragment(m=int(more), offset=offset)
    below = LINKS[want["link"]][want["below"] % len(LINKS[want["link"]])](version)
    if want["kind"] == "arp" and want["link"] == 1:
        return bytes(Ether(**MAC) / ARP())
    frame = network / upper if below is None else below / network / upper
    return bytes(frame) + (bytes(6) if want["link"] == 1 else b"")  # Ethernet pads


def header_length(layer):
    alone = layer.copy()
    alone.remove_payload()
    return len(alone)


def dissect(frame, link, cut):
    """What scapy sees: a packet's row and its end points, or None; ``cut`` is what was captured."""
    kinds = {101: IP if frame[0] >> 4 == 4 else IPv6}
    layer = kinds.get(link, conf.l2types.num2layer.get(link))(frame)
    start = 0
    while not isinstance(layer, IP | IPv6):
        if isinstance(layer, NoPayload):
            return None
        start += header_length(layer)
        layer = layer.payload
    ip, at, first = layer, start + header_length(layer), False
    if isinstance(ip, IP):
        total, later, first = ip.len, ip.frag > 0, bool(ip.flags.MF)
        protocol, version, size = ip.proto, 4, 20
    else:
        total, later, version, size = 40 + ip.plen, False, 6, 40
        while isinstance(layer.payload, EXTENSIONS):
            layer = layer.payload
            at += header_length(layer)
            if isinstance(layer, IPv6ExtHdrFragment):
                first, later = layer.m == 1, layer.offset > 0
        protocol = layer.nh
    segment = layer.payload
    if later or protocol not in (6, 17) or cut < max(start + size, at + (14 if protocol == 6 else 6)):
        return None
    header = 4 * segment.dataofs if protocol == 6 else 8
    payload = segment.len - 8 if protocol == 17 and not first else start + total - at - header
    packed = [socket.inet_pton(socket.AF_INET if version == 4 else socket.AF_INET6, x) for x in (ip.src, ip.dst)]
    row = {
        "length": total,
        "payload_length": payload,
        "captured": min(cut - start, total),
        "payload": at + header - start,
        "flags": int(segment.flags) if protocol == 6 else 0,
        "sequence": segment.seq if protocol == 6 else 0,
        "bytes": frame[start : min(cut, start + total)],
    }
    return row, (packed[0], segment.sport), (packed[1], segment.dport), protocol, version


def expect(packets):
    """Sessions from (time, frame, link, cut): [(client, server, protocol, version, rows)] by first appearance."""
    found = {}
    for time, frame, link, cut in packets:
        seen = dissect(frame, link, cut)
        if seen is not None:
            row, sender, receiver, protocol, version = seen
            key = (*sorted([sender, receiver]), protocol, version)
            found.setdefault(key, []).append({**row, "time": time, "sender": sender, "receiver": receiver})
    sessions = []
    for (_, _, protocol, version), packets in found.items():
        for rows in connections(packets):
            rows.sort(key=lambda row: row["time"])
            client, server = client_of(rows)
            for row in rows:
                row["direction"] = 1 if row["sender"] == client else -1
            sessions.append((client, server, protocol, version, rows))
    return sessions


def connections(packets):
    """The packets of one 5-tuple, parted where a SYN with another number comes after FIN or RST."""
    parts, number, closed = [[]], None, False
    for place, packet in enumerate(packets):
        if is_copy(packet, packets[:place]):
            parts[-1].append(packet)
            continue
        if packet["flags"] & 0x12 == 2:
            if closed and packet["sequence"] != number:
                parts.append([])
                closed = False
            number = packet["sequence"]
        closed = closed or packet["flags"] & 5 > 0
        parts[-1].append(packet)
    return parts


def is_copy(packet, before):
    """Whether a packet was captured already within 5 ms; scapy gives all the same TTL, and checksums by content."""
    same = [one for one in before if (one["bytes"], one["sender"]) == (packet["bytes"], packet["sender"])]
    return bool(same) and abs(packet["time"] - same[-1]["time"]) <= 5_000_000


def client_of(rows):
    """Client and server: who sends a SYN, else who gets a SYN-ACK, else who sends first."""
    for kind, ends in ((2, ("sender", "receiver")), (0x12, ("receiver", "sender"))):
        for row in rows:
            if row["flags"] & 0x12 == kind:
                return tuple(row[end] for end in ends)
    return rows[0]["sender"], rows[0]["receiver"]


def write(path, packets, form):
    """Write a capture in one of three forms; only pcapng can mix link types."""
    if form == "pcapng":
        with RawPcapNgWriter(str(path)) as writer:
            writer.linktype = packets[0][2]
            writer.write_header(b"")
            for time, frame, link, cut in packets:
                seconds = EDecimal(time) / 10**9
                name = b"if%d" % link
                writer._write_packet(frame[:cut], linktype=link, sec=seconds, wirelen=len(frame), ifname=name)
    else:
        with RawPcapWriter(str(path), nano=True, endianness=form) as writer:
            writer.linktype = packets[0][2]  # the constructor takes 0 for "not given"
            writer.write_header(b"")
            for time, frame, _, cut in packets:
                writer.write_packet(frame[:cut], sec=time // 10**9, usec=time % 10**9, caplen=cut, wirelen=len(frame))


@settings(max_examples=40, deadline=None)
@given(st.lists(PACKETS, min_size=1, max_size=12), st.sampled_from(["<", ">", "pcapng"]))
def test_agrees_with_scapy(wanted, form):
    time, packets = 1_700_000_000 * 10**9, []
    for want in wanted:
        if form != "pcapng":
            want = {**want, "link": wanted[0]["link"]}
        frame = build(want)
        time += 1000 * want["step"]
        cut = len(frame) if want["cut"] is None else max(1, min(len(frame), want["cut"]))
        packets.append((time, frame, want["link"], cut))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made"
        write(path, packets, form)
        index, data = read_capture(path), path.read_bytes()
    assert not index.damage and index.records == len(packets)
    expected = expect(packets)
    assert len(index.sessions["start"]) == len(expected)
    assert sum(index.skipped.values()) == len(packets) - sum(len(rows) for *_, rows in expected)
    for at, (client, server, protocol, version, rows) in enumerate(expected):
        session = {name: column[at] for name, column in index.sessions.items()}
        assert (session["protocol"], session["ip_version"]) == (protocol, version)
        for side, (address, port) in (("client", client), ("server", server)):
            assert session[f"{side}_ip"].ljust(16, b"\0") == address.ljust(16, b"\0")
            assert session[f"{side}_port"] == port
        assert session["packets"] == len(rows) and session["start"] == rows[0]["time"]
        assert session["duration"] == rows[-1]["time"] - rows[0]["time"]
        assert session["payload_bytes"] == sum(row["payload_length"] for row in rows)
        assert session["payload_packets"] == sum(row["payload_length"] > 0 for row in rows)
        first = int(session["first_packet"])
        for row, place in zip(rows, range(first, first + len(rows)), strict=True):
            packet = {name: int(column[place]) for name, column in index.packets.items()}
            for name in ("time", "length", "payload_length", "captured", "payload", "flags", "direction"):
                assert packet[name] == row[name], name
            begin = packet["record"] + packet["ip"]
            assert data[begin : begin + packet["captured"]] == row["bytes"]
    counts = index.sessions["packets"]
    assert np.array_equal(np.cumsum(counts) - counts, index.sessions["first_packet"])
