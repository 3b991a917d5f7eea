"""Small captures of two packets a talk, for tests of stores and labels."""

import socket
import struct

CLIENT, SERVER = ("10.0.0.1", 40000), ("10.0.0.2", 443)


def packet(seconds, a, b, payload=b"", protocol="udp"):
    """A time and an Ethernet frame from a to b, each (address, port)."""
    if protocol == "udp":
        segment = struct.pack(">4H", a[1], b[1], 8 + len(payload), 0)
    else:
        segment = struct.pack(">2H2I2B3H", a[1], b[1], 0, 0, 5 << 4, 0x10, 0, 0, 0)
    number, segment = {"udp": 17, "tcp": 6}[protocol], segment + payload
    if ":" in a[0]:
        head = struct.pack(">IHBB", 6 << 28, len(segment), number, 64)
        head += socket.inet_pton(socket.AF_INET6, a[0]) + socket.inet_pton(socket.AF_INET6, b[0])
        return seconds, bytes(12) + b"\x86\xdd" + head + segment
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, number, 0)
    head += socket.inet_aton(a[0]) + socket.inet_aton(b[0])
    return seconds, bytes(12) + b"\x08\0" + head + segment


def pcap(packets):
    records = [struct.pack("<4I", int(t), round(t % 1 * 1e6), len(data), len(data)) + data for t, data in packets]
    return struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + b"".join(records)


def talk(port, payload, start=1000.0):
    """Two packets there and back."""
    client = (CLIENT[0], port)
    return [packet(start, client, SERVER, payload), packet(start + 0.5, SERVER, client, payload[::-1])]


def write_captures(folder, talks=1):
    """Two classes of three captures, so many talks of two packets each."""
    for number, name in enumerate(f"{kind}/{n}.pcap" for kind in "ab" for n in range(3)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        ports = range(1000 * (number + 1), 1000 * (number + 1) + talks)
        path.write_bytes(pcap([two for port in ports for two in talk(port, name.encode() * 20)]))
    return folder
