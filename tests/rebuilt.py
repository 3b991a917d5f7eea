"""Captures written from flow records: headers with the recorded lengths, no payload; and which session is which."""

import ipaddress
import struct
from collections import defaultdict

import numpy as np

SYN_ACK, ACK = 0x12, 0x10


def captures_of(records, layer):
    """Capture name -> a nanosecond pcap of bare IP packets, of which the headers alone were captured.

    ``records`` have source and destination, protocol, start in ns, and lists; a TCP record that begins with a packet to
    its source begins with a SYN-ACK, so that both ways know the same client.
    """
    packets = defaultdict(list)
    for record in records:
        protocol, ends = record["protocol"], (record["source"], record["destination"])
        transport = 20 if protocol == 6 else 8
        time = record["start"]
        for number, (length, gap, direction) in enumerate(
            zip(record["lengths"], record["gaps"], record["directions"], strict=True)
        ):
            time += gap
            segment = length + transport if layer == "payload" else max(length, transport)
            flags = SYN_ACK if number == 0 and direction != 1 else ACK
            frame = head(ends if direction == 1 else ends[::-1], protocol, segment, flags)
            packets[record["capture"]].append((time, frame))
    return {name: pcap(sorted(some, key=lambda one: one[0])) for name, some in packets.items()}


def head(ends, protocol, segment, flags):
    """IP and transport header from the first to the second end point, and how long the packet was."""
    (source, sport), (target, dport) = ends
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    if len(addresses) == 8:
        start = struct.pack(">BBHHHBBH", 0x45, 0, 20 + segment, 0, 0, 64, protocol, 0) + addresses
    else:
        start = struct.pack(">IHBB", 6 << 28, segment, protocol, 64) + addresses
    if protocol == 17:
        return start + struct.pack(">4H", sport, dport, segment, 0), segment + len(start)
    return start + struct.pack(">2H2I2B3H", sport, dport, 0, 0, 5 << 4, flags, 0, 0, 0), segment + len(start)


def pcap(packets):
    content = [struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 101)]  # ns, raw IP
    for time, (data, length) in packets:
        content.append(struct.pack("<4I", time // 10**9, time % 10**9, len(data), length) + data)
    return b"".join(content)


def sessions_of(store):
    """(capture without a suffix, 5-tuple in either order, start) -> row."""
    columns = [store.session(f"{side}_{what}") for side in ("client", "server") for what in ("ip", "port")]
    names = [capture.path.rpartition("/")[2].removesuffix(".pcap") for capture in store.manifest.captures]
    ends = list(zip(*(column.tolist() for column in columns), strict=True))
    capture, protocol = store.session("capture").tolist(), store.session("protocol").tolist()
    start = store.session("start").tolist()
    keys = [
        (names[c], p, t, *sorted([(a, b), (x, y)]))
        for c, p, t, (a, b, x, y) in zip(capture, protocol, start, ends, strict=True)
    ]
    rows = {key: row for row, key in enumerate(keys)}
    assert len(rows) == len(np.unique(store.session("first_packet")))
    return rows
