"""The captures that `benchmarks/fuzz.py` breaks: small ones of every kind that the tests build, and others.

The builders are those of the tests, so that a kind that tests learn is fuzzed, too.
"""

import bz2
import gzip
import importlib
import io
import lzma
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from bench.ingest import IngestOptions, read_capture
from bench.ingest.containers import AT, FRAME, Walk, walk
from bench.ingest.options import TUNNELS
from bench.schema import CAPTURE_MAGICS

ROOT = Path(__file__).parents[1]
SHARED = (ROOT.parent / "shared" / "cases" / "files", ROOT.parent / "shared" / "captures" / "files")
LARGEST = 1 << 16  # bytes of a capture of the corpus; others are cut there

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda data: gzip.compress(data, 1, mtime=0),
    "bz2": bz2.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "zst": lambda data: zstandard.ZstdCompressor(1).compress(data),
    "zip": lambda data: _zipped(data),
}


def _zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("a.pcap"), data)
    return out.getvalue()


@dataclass(frozen=True)
class Seed:
    """A sound capture."""

    name: str
    data: bytes
    fields: NDArray[np.int64]  # positions of headers in it, bytes; those of records and of IP and TCP or UDP headers
    records: NDArray[np.int64]  # positions of records


def captures(folder: Path | None) -> list[tuple[str, bytes]]:
    """The made captures and those of ``folder`` (else those of ../shared, where they are), by name."""
    found = dict(made())
    for place in SHARED if folder is None else (folder,):
        for path in sorted(place.rglob("*")) if place.is_dir() else ():
            if path.is_file():
                with path.open("rb") as file:
                    found[path.name] = file.read(LARGEST)
    return sorted(found.items())


def made() -> Iterator[tuple[str, bytes]]:
    """Small captures of every kind, by name; the builders are those of the tests."""
    sys.path.insert(0, str(ROOT / "tests"))
    b: Any = importlib.import_module("capture_bytes")
    links: dict[str, Any] = importlib.import_module("test_ingest").LINKS
    payloads = (b"abc", bytes(40))
    by_link: dict[int, list[bytes]] = {}
    for link, wrap in links.values():
        by_link.setdefault(link, []).extend(wrap(b.ipv4(payload=payload)) for payload in payloads)
    for link, frames in by_link.items():
        yield f"link {link}", b.pcap(frames, link=link)
    plain = [b.ether(packet) for packet in _connection(b)]
    for order in "<>":
        for magic in (0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34):
            yield f"pcap {order} {magic:x}", b.pcap(plain[:6], order=order, magic=magic)
        interfaces = b"".join(b.interface(order, link, 96, 9, 3) for link in by_link)
        blocks = [b.enhanced(order, frame, 9, i) for i, group in enumerate(by_link.values()) for frame in group]
        simple = b.block(order, 3, struct.pack(order + "I", len(plain[0])) + plain[0])
        old = b.block(order, 2, struct.pack(order + "HHIIII", 1, 0, 0, 2000, 60, 60) + plain[3][:60])
        first = b.section(order) + b.interface(order) + simple + old[:0] + b.enhanced(order, plain[1], 5)
        yield f"pcapng {order}", b.section(order) + interfaces + b"".join(blocks) + simple + old
        other = ">" if order == "<" else "<"
        yield f"pcapng {order} of two sections", first + b.section(other) + b.interface(other, 101, 0, 0x83)
    kinds = {
        "connection": plain,
        "tunnels": [b.ether(packet) for packet in _tunnels(b)],
        "VLANs": [b.ether(p, 0x0800, struct.pack(">HH", 0x8100, i % 3) if i % 3 else b"") for i, p in _numbered(b)],
        "fragments": [b.ether(packet) for packet in _fragments(b)],
        "IPv6": [b.ether(packet, 0x86DD) for packet in _version_6()],
    }
    for name, frames in kinds.items():
        times = [(i // 3, i * 1000 % 999_999) for i in range(len(frames))]
        yield name, b.pcap(frames, times=times)
        yield f"{name}, cut", b.pcap([frame[:70] for frame in frames], times=times, wire=1514)
    yield "zeros", b.pcap(plain[:4]) + bytes(160) + b.pcap(plain[:4])[24:] + bytes(64)
    for suffix, pack in PACKERS.items():
        yield f"connection.{suffix}", pack(b.pcap(plain))


def _numbered(b: Any) -> Iterator[tuple[int, bytes]]:
    return enumerate(_connection(b))


def _connection(b: Any) -> list[bytes]:
    """IPv4 packets of two TCP connections on the same ports: with copies, retransmissions and keep-alives."""

    def segment(there: bool, number: int, answer: int, flags: int, payload: bytes = b"") -> bytes:
        ends = (b.CLIENT, b.SERVER) if there else (b.SERVER, b.CLIENT)
        packet = bytearray(b.ipv4(*ends, flags=flags, payload=payload))
        packet[24:32] = struct.pack(">II", number & 0xFFFFFFFF, answer & 0xFFFFFFFF)
        return bytes(packet)

    packets = []
    for start in (0xFFFFFFF0, 7000):
        packets += [segment(True, start, 0, 2), segment(False, 90, start + 1, 0x12), segment(True, start + 1, 91, 0x10)]
        data = segment(True, start + 1, 91, 0x18, b"x" * 60)
        packets += [data, data, segment(False, 91, start + 61, 0x18, b"y" * 30), data]
        packets += [segment(True, start + 60, 121, 0x10, b"x"), segment(True, start + 60, 121, 0x10)] * 2
        packets += [segment(False, 121, start + 61, 0x11), segment(True, start + 61, 122, 0x14)]
    return packets


def _tunnels(b: Any) -> list[bytes]:
    """IPv4 packets that carry others, one of each kind that can be unwrapped, and some in each other."""
    inner = b.ipv4(("192.0.2.1", 5000), ("192.0.2.2", 443), payload=b"inner")
    frame = b.ether(inner)
    six = _version_6()[0]

    def udp(port: int, body: bytes) -> bytes:
        return bytes(b.ipv4(("10.0.0.1", 40000), ("10.0.0.2", port), payload=body, protocol=17))

    def ip(protocol: int, body: bytes) -> bytes:
        packet = bytearray(b.ipv4(protocol=99, payload=b""))[:20] + body
        packet[2:4], packet[9] = struct.pack(">H", len(packet)), protocol
        return bytes(packet)

    vxlan = udp(4789, b"\x08" + bytes(7) + frame)
    return [
        vxlan,
        udp(8472, b"\x08" + bytes(7) + b.ether(vxlan)),
        udp(6081, b"\x01\0\x65\x58" + bytes(8) + frame),
        udp(6081, b"\0\0\x08\0" + bytes(4) + inner),
        udp(2152, b"\x30\xff" + struct.pack(">HI", len(inner), 1) + inner),
        udp(2152, b"\x34\xff" + struct.pack(">HI", len(inner) + 8, 1) + b"\0\0\0\x85\x01\0\0\0" + inner),
        udp(3544, six),
        udp(3544, b"\0\x01\x02\x02" + bytes(13) + bytes(8) + six),
        ip(47, b"\0\0\x08\0" + inner),
        ip(47, b"\xb0\0\x65\x58" + bytes(12) + frame),
        ip(47, b"\x10\0\x88\xbe" + bytes(12) + frame),
        ip(47, b"\x10\0\x22\xeb" + bytes(4) + bytes(11) + b"\x01" + bytes(8) + frame),
        ip(47, b"\x30\x81\x88\x0b" + bytes(12) + b"\xff\x03\0\x21" + inner),
        ip(4, ip(4, inner)),
        ip(41, six),
    ]


def _fragments(b: Any) -> list[bytes]:
    """First and later fragments of IPv4, and a packet behind an authentication header."""
    later = [b.ipv4(protocol=17, payload=bytes(24), fragment=0x2000 * (place < 2) + place * 4) for place in range(3)]
    header = bytearray(b.ipv4(payload=b"abc"))
    header[9], body = 51, b"\x06\x04" + bytes(22) + bytes(header[20:])
    header[2:4] = struct.pack(">H", 20 + len(body))
    return [*later, bytes(header[:20]) + body, b.ipv4(protocol=6, payload=bytes(16), fragment=0x2000)]


def _version_6() -> list[bytes]:
    """IPv6 packets: plain, with extension headers, fragments, a jumbogram."""
    ends = bytes.fromhex("20010db8" + "00" * 11 + "01") + bytes.fromhex("20010db8" + "00" * 11 + "02")
    udp = struct.pack(">HHHH", 5000, 443, 16, 0) + bytes(8)
    tcp = struct.pack(">HHIIBBHHH", 5000, 443, 1, 2, 0x50, 0x18, 64, 0, 0) + b"abc"

    def packet(following: int, body: bytes, length: int | None = None) -> bytes:
        return struct.pack(">IHBB", 6 << 28, len(body) if length is None else length, following, 64) + ends + body

    options, fragment = b"\x3c\0" + bytes(6) + b"\x06\x01" + bytes(14), b"\x11\0\0\x01" + bytes(4)
    return [
        packet(17, udp),
        packet(6, tcp),
        packet(0, options + tcp),
        packet(44, fragment + udp),
        packet(44, b"\x11\0\x01\0" + bytes(4) + bytes(16)),
        packet(51, b"\x11\x04" + bytes(22) + udp),
        packet(6, tcp, 0),
    ]


def seed_of(name: str, data: bytes) -> Seed:
    """A capture with the places of its headers; of what is packed or none, its first bytes."""
    if data[:4] not in CAPTURE_MAGICS:
        return Seed(name, data, np.arange(min(len(data), 40)), np.arange(0))
    batches = [batch[:, [AT, FRAME]].copy() for batch in walk(np.frombuffer(data, np.uint8), Walk())]
    record, frame = np.concatenate([np.zeros((0, 2), np.int64), *batches]).T
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "capture"
        path.write_bytes(data)
        packets = read_capture(path, IngestOptions(decap=TUNNELS)).packets
    ip = packets["record"] + packets["ip"]
    payload = ip + packets["payload"]
    places = [np.arange(24), *(record + step for step in range(0, 28, 2)), *(frame + step for step in range(64))]
    places += [*(ip + step for step in range(0, 48)), *(payload - step for step in range(0, 24))]
    found = np.unique(np.concatenate(places))
    return Seed(name, data, found[(found >= 0) & (found < len(data))], record)
