"""Packets and captures as bytes, for tests of the ingest."""

import socket
import struct

CLIENT, SERVER = ("10.0.0.1", 40000), ("10.0.0.2", 443)
SECOND = 1_000_000_000


def ipv4(source=CLIENT, target=SERVER, *, payload=b"", protocol=6, fragment=0, total=None, options=b"", flags=0x18):
    """An IPv4 packet with TCP, UDP or nothing known in it."""
    ports = struct.pack(">HH", source[1], target[1])
    if protocol == 6:
        segment = ports + struct.pack(">IIBBHHH", 1, 2, 0x50, flags, 64, 0, 0)
    else:
        segment = ports + struct.pack(">HH", 8 + len(payload), 0)
    body = segment + payload
    length = 20 + len(options) + len(body) if total is None else total
    head = struct.pack(">BBHHHBBH", 0x45 + len(options) // 4, 0, length, 7, fragment, 64, protocol, 0)
    return head + socket.inet_aton(source[0]) + socket.inet_aton(target[0]) + options + body


def ether(packet, kind=0x0800, tags=b""):
    return bytes(12) + tags + struct.pack(">H", kind) + packet


def pcap(frames, *, order="<", magic=0xA1B2C3D4, link=1, times=None, wire=None):
    """A pcap file; ``times`` are (seconds, fraction)."""
    out = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 0xFFFFFFFF, link)
    for i, frame in enumerate(frames):
        head = (*(times[i] if times else (i, 0)), len(frame), wire or len(frame))
        out += struct.pack(order + "IIII", *head) + (bytes(8) if magic == 0xA1B2CD34 else b"") + frame
    return out


def block(order, kind, body):
    body += bytes(-len(body) % 4)
    return struct.pack(order + "II", kind, 12 + len(body)) + body + struct.pack(order + "I", 12 + len(body))


def section(order):
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order, link=1, snap=0, resolution=None, offset=None):
    options = b""
    if resolution is not None:
        options += struct.pack(order + "HHBxxx", 9, 1, resolution)
    if offset is not None:
        options += struct.pack(order + "HHq", 14, 8, offset)
    return block(order, 1, struct.pack(order + "HHI", link, 0, snap) + options)


def enhanced(order, frame, ticks=0, interface=0):
    head = struct.pack(order + "IIIII", interface, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
    return block(order, 6, head + frame)
