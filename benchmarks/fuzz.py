"""Broken captures by the thousand against the ingest, with the bounds of arrays checked: nothing may crash or lie.

    python benchmarks/fuzz.py [--seconds S] [--seed N] [--first N] [--corpus DIR] [--keep DIR]

A corpus of small captures (pcap and pcapng in both byte orders, every link type that tests know, tunnels, VLANs,
fragments, TCP with copies, retransmissions and keep-alives, compressed files; those of ../shared where they are) is
mutated: bits flipped, bytes and length fields set to extremes, files cut, spliced, parts doubled, taken out or zeroed.
Each case is read by `read_capture` with drawn `IngestOptions`; whatever the bytes, it must refuse them by an
InputError or give an index that is consistent (`broken`).  Case ``i`` of a seed depends on these two numbers and the
corpus alone: ``--first i`` begins with it.

The cases run in a second process with NUMBA_BOUNDSCHECK=1, which compiles the ingest anew into .fuzz_cache (a minute,
once), so that a crash or a hang (20 s) of compiled code is a finding, too.  The seconds count from the first case on.
A finding is a folder in ``--keep`` (default: fuzz-findings) with the capture, made smaller as far as it still fails,
``case.json`` (seed, case, options, what happened) and the trace; the script ends there with status 1.  After the mend
it is kept as a case: tests/kept/fuzz/README.md.
"""

import argparse
import bz2
import contextlib
import dataclasses
import faulthandler
import gzip
import importlib
import io
import itertools
import json
import lzma
import os
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from bench.errors import InputError
from bench.ingest import CaptureIndex, IngestOptions, inspect, read_capture
from bench.ingest.containers import AT, FRAME, Walk, walk
from bench.ingest.options import CLIENT_RULES, PACKET_FILTERS, SESSION_RULES, TUNNELS
from bench.schema import CAPTURE_MAGICS, CLIENT_BY, MARK_COPY, PACKET_COLUMNS, SESSION_COLUMNS

ROOT = Path(__file__).parents[1]
SHARED = (ROOT.parent / "shared" / "cases" / "files", ROOT.parent / "shared" / "captures" / "files")
KEPT = ROOT / "tests" / "kept" / "fuzz"
CACHE = ROOT / ".fuzz_cache"
FOUND = 3  # what the second process ends with
TWICE = 8  # so many cases a case that is read again
HANG = 20  # seconds that a case may take at most; most take a millisecond
COMPILING = 300  # and what is read before the first case: then all is compiled
LARGEST = 1 << 16  # bytes of a capture of the corpus; others are cut there
SMALLER = 10.0  # seconds in which a finding is made smaller

#: what length fields are set to: bounds of types, of headers and of the ingest's own limits
EXTREMES = (
    *(0, 1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 15, 16, 19, 20, 21, 27, 28, 29, 32, 39, 40, 41, 127, 128, 255, 256, 1500),
    *(0x7FFF, 0x8000, 0xFFEF, 0xFFFE, 0xFFFF, 0x10000, 262_144, 262_145, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF),
)
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


# --- the corpus ---


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


# --- cases ---


@dataclass
class Case:
    """A capture that is to be read, and how."""

    number: int
    seed: str  # name of the capture that it was made from
    data: bytes
    options: IngestOptions


def case(seeds: list[Seed], seed: int, number: int) -> Case:
    """Case ``number`` of a seed."""
    rng = np.random.default_rng([seed, number])
    start = seeds[rng.integers(len(seeds))]
    data = bytearray(start.data)
    if len(start.records) and CAPTURE_MAGICS[start.data[:4]] == "pcap" and rng.random() < 0.5:
        _end_early(data, start, rng)
    for _ in range(rng.integers(0, 5)):
        if len(data) < 8:
            break
        _MUTATIONS[rng.integers(len(_MUTATIONS))](data, start, seeds, rng)
    if rng.random() < 0.05:
        data = bytearray(list(PACKERS.values())[rng.integers(len(PACKERS))](bytes(data)))
    return Case(number, start.name, bytes(data[: 4 * LARGEST]), _options(rng))


def _options(rng: np.random.Generator) -> IngestOptions:
    return IngestOptions(
        idle_timeout=[None, None, 1e-9, 0.001, 1.0, 9e9][rng.integers(6)],
        sessions=SESSION_RULES[rng.integers(2)],
        client=CLIENT_RULES[rng.integers(2)],
        decap=tuple(word for word in TUNNELS if rng.random() < 0.6) if rng.random() < 0.6 else (),
        drop_copies=[None, None, 0.0, 5.0, 9e9][rng.integers(5)],
        filter=tuple(word for word in PACKET_FILTERS if rng.random() < 0.25),
        by_vlan=bool(rng.random() < 0.3),
    )


def _place(data: bytearray, start: Seed, rng: np.random.Generator) -> int:
    """A position, more often than not one of a header; those of a file that was changed before are a little off."""
    if len(start.fields) and rng.random() < 0.7:
        return int(min(start.fields[rng.integers(len(start.fields))], len(data) - 1))
    return int(rng.integers(len(data)))


def _end_early(data: bytearray, start: Seed, rng: np.random.Generator) -> None:
    """End a pcap file within one of its packets, as its record says: what is read beyond it is read beyond the file."""
    at = int(start.records[rng.integers(len(start.records))])
    begin = at + (24 if 0xCD in data[1:3] else 16)
    left = int(rng.integers(min(len(data) - begin, 120 if rng.random() < 0.8 else LARGEST) + 1))
    data[at + 8 : at + 12] = left.to_bytes(4, "little" if data[0] in (0xD4, 0x4D, 0x34) else "big")
    del data[begin + left :]


def _flip(data: bytearray, start: Seed, seeds: list[Seed], rng: np.random.Generator) -> None:
    for _ in range(rng.integers(1, 9)):
        data[_place(data, start, rng)] ^= 1 << rng.integers(8)


def _set(data: bytearray, start: Seed, seeds: list[Seed], rng: np.random.Generator) -> None:
    for _ in range(rng.integers(1, 5)):
        data[_place(data, start, rng)] = (0, 1, 0x0F, 0x45, 0x60, 0x7F, 0x80, 0xFF, rng.integers(256))[rng.integers(9)]


def _length(data: bytearray, start: Seed, seeds: list[Seed], rng: np.random.Generator) -> None:
    """Set a number of two or four bytes to an extreme, or near what is left of the file."""
    size = (2, 4)[rng.integers(2)]
    at = min(_place(data, start, rng), len(data) - size)
    near = len(data) - at + int(rng.integers(-40, 9))
    value = near if rng.random() < 0.2 else EXTREMES[rng.integers(len(EXTREMES))]
    data[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "big" if rng.random() < 0.5 else "little")


def _cut(data: bytearray, start: Seed, seeds: list[Seed], rng: np.random.Generator) -> None:
    del data[_place(data, start, rng) :]


def _part(data: bytearray, rng: np.random.Generator) -> slice:
    """A part of the bytes, short more often than long."""
    at = int(rng.integers(len(data)))
    return slice(at, at + int(2 ** (rng.random() * np.log2(len(data)))))


def _take_out(data: bytearray, start: Seed, seeds: list[Seed], rng: np.random.Generator) -> None:
    del data[_part(data, rng)]


def _double(data: bytearray, start: Seed, seeds: list[Seed], rng: np.random.Generator) -> None:
    part = data[_part(data, rng)]
    at = _place(data, start, rng)
    data[at:at] = part


def _fill(data: bytearray, start: Seed, seeds: list[Seed], rng: np.random.Generator) -> None:
    part = _part(data, rng)
    data[part] = bytes([(0, 0, 0xFF)[rng.integers(3)]]) * len(data[part])


def _splice(data: bytearray, start: Seed, seeds: list[Seed], rng: np.random.Generator) -> None:
    """The rest, or the whole, of another capture from some place on."""
    other = seeds[rng.integers(len(seeds))]
    at = int(other.fields[rng.integers(len(other.fields))]) if len(other.fields) else 0
    data[_place(data, start, rng) :] = other.data[0 if rng.random() < 0.2 else at :]


_MUTATIONS = (_flip, _flip, _set, _set, _length, _length, _length, _cut, _take_out, _double, _fill, _splice)


# --- what must hold ---


def broken(index: CaptureIndex, options: IngestOptions) -> str:
    """What does not hold of an index that must hold of each; empty where all does."""
    return next((what for what, holds in _claims(index, options) if not holds), "")


def _claims(index: CaptureIndex, options: IngestOptions) -> Iterator[tuple[str, bool]]:
    packets, sessions, remarks = index.packets, index.sessions, index.remarks
    columns = {name: sessions[name] for name in sessions}
    count, parts = len(packets["time"]), len(columns["start"])
    yield (
        "packet columns",
        {name: (c.dtype, len(c)) for name, c in packets.items()}
        == {name: (dtype, count) for name, dtype in PACKET_COLUMNS.items()},
    )
    yield (
        "session columns",
        {name: (c.dtype, len(c)) for name, c in columns.items()}
        == {name: (dtype, parts) for name, dtype in SESSION_COLUMNS.items() if name in columns},
    )
    yield "records", index.records == count + sum(index.skipped.values()) + remarks.dropped
    leaves_out = options.drop_copies is not None or bool(options.filter)
    yield "dropped", remarks.dropped >= 0 if leaves_out else remarks.dropped == 0
    copies = int(np.count_nonzero(packets["marks"] & MARK_COPY))
    yield "copies", copies == (remarks.copies if options.drop_copies is None else 0)
    numbers = [*index.skipped.values(), *remarks.other_protocols.values(), *remarks.non_ip.values()]
    numbers += [*remarks.tunnelled.values(), remarks.lost_fragment_bytes, remarks.copies, remarks.odd_fractions]
    yield "counts", min([*numbers, remarks.sorted_sessions, remarks.contradictions, *remarks.times.values()]) >= 0
    yield "protocols", sum(remarks.other_protocols.values()) == index.skipped.get("other_protocol", 0)
    yield "carried", sum(remarks.non_ip.values()) == index.skipped.get("non_ip", 0)
    yield "damage", all(0 <= one.offset <= index.size and one.bytes_lost >= 0 for one in index.damage)
    yield from _packet_claims(index)
    first, starts = columns["first_packet"], np.append(columns["first_packet"], count)
    yield "first packets", bool((first == np.cumsum(columns["packets"]) - columns["packets"]).all())
    yield "packets of sessions", bool((columns["packets"] > 0).all()) and int(columns["packets"].sum()) == count
    if not parts:
        return
    lengths = packets["payload_length"].astype(np.int64)
    yield "payload bytes", bool((columns["payload_bytes"] == np.add.reduceat(lengths, first)).all())
    yield "payload packets", bool((columns["payload_packets"] == np.add.reduceat(lengths > 0, first, dtype=int)).all())
    time_of = packets["time"]
    inside = np.ones(count, bool)
    inside[first] = False
    yield "order", bool((np.diff(time_of)[inside[1:]] >= 0).all())
    yield "start", bool((columns["start"] == time_of[first]).all())
    yield "duration", bool((columns["duration"] == time_of[starts[1:] - 1] - time_of[first]).all())
    yield "protocol", bool(np.isin(columns["protocol"], (6, 17)).all() and np.isin(columns["ip_version"], (4, 6)).all())
    yield "client", bool((columns["client_by"] > 0).all() and (columns["client_by"] < len(CLIENT_BY)).all())
    flags = np.repeat(columns["protocol"] == 17, columns["packets"])
    yield "flags of UDP", not packets["flags"][flags].any()
    unknown = (columns["client_by"] == 3) & (options.idle_timeout is None)
    yield "direction of the first", bool((packets["direction"][first[unknown]] == 1).all())


def _packet_claims(index: CaptureIndex) -> Iterator[tuple[str, bool]]:
    packets = {name: column.astype(np.int64) for name, column in index.packets.items()}
    begin = packets["record"] + packets["ip"]
    yield "place", bool((packets["record"] >= 24).all() and (begin + packets["captured"] <= index.size).all())
    yield "one place each", len(np.unique(packets["record"])) == len(begin)
    yield "captured", bool((packets["captured"] >= 20).all() and (packets["captured"] <= packets["length"]).all())
    yield "payload", bool((packets["payload"] >= 28).all())
    yield "length", bool((packets["payload"] + packets["payload_length"] <= packets["length"]).all())
    yield "direction", bool((np.abs(packets["direction"]) == 1).all())


def read(path: Path, options: IngestOptions, *, twice: bool) -> str:
    """What is wrong with the reading of a capture, else empty; with ``twice`` also whether it gives the same again."""
    try:
        index = read_capture(path, options)
    except InputError:
        return ""
    if (what := broken(index, options)) or not twice:
        return what
    seen, again = inspect(path, options), read_capture(path, options)  # each under another salt
    same = all(np.array_equal(index.sessions[name], again.sessions[name]) for name in index.sessions)
    same = same and all(np.array_equal(column, again.packets[name]) for name, column in index.packets.items())
    json.dumps(seen)
    return "" if same and seen["packets"] == index.records else "another reading gives something else"


def outcome(path: Path, data: bytes, options: IngestOptions, *, twice: bool = True) -> tuple[str, str]:
    """What is wrong with a capture, which is written to ``path``, and the trace of an exception; both empty if none."""
    path.write_bytes(data)
    try:
        return read(path, options, twice=twice), ""
    except Exception as error:
        return f"{type(error).__name__}: {error}", traceback.format_exc()


def kept_cases() -> Iterator[tuple[str, bytes, IngestOptions]]:
    """Name, capture and options of the findings that are kept."""
    for path in sorted(KEPT.glob("*.json")):
        described = json.loads(path.read_text())
        yield path.stem, path.with_suffix(".bin").read_bytes(), IngestOptions(**described["options"])


# --- the run ---


def smaller(path: Path, data: bytes, options: IngestOptions, what: str) -> bytes:
    """The capture without records, then without parts, that the finding does not need, as far as some seconds reach."""
    end = time.monotonic() + SMALLER

    def without(part: slice) -> bool:
        nonlocal data
        shorter = data[: part.start] + data[part.stop :]
        if time.monotonic() > end or outcome(path, shorter, options)[0] != what:
            return False
        data = shorter
        return True

    if data[:4] in CAPTURE_MAGICS:
        starts: list[int] = []
        with contextlib.suppress(Exception):  # perhaps the finding
            for batch in walk(np.frombuffer(data, np.uint8), Walk()):
                starts += batch[:, AT].tolist()
        for begin, stop in reversed(list(itertools.pairwise([*starts, len(data)]))):
            without(slice(begin, stop))
    for size in (1 << power for power in range(20, -1, -1)):
        at = 0
        while at < len(data) and time.monotonic() < end:
            at += 0 if without(slice(at, at + size)) else size
    return data


def keep(folder: Path, one: Case, seed: int, what: str, trace: str) -> None:
    """Write a finding and say where it is."""
    folder = folder / f"{seed}-{one.number}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "case.bin").write_bytes(one.data)
    described = {"seed": seed, "case": one.number, "from": one.seed, "what": what, "options": one.options.unusual}
    (folder / "case.json").write_text(json.dumps(described, indent=1) + "\n")
    (folder / "trace.txt").write_text(trace)
    print(f"seed {seed}, case {one.number} (from {one.seed!r}): {what}; {folder}", flush=True)


def work(options: argparse.Namespace) -> int:
    """The second process: `FOUND` where something was found."""
    path: Path = options.worker / "capture"
    tempfile.tempdir = str(options.worker)
    trace = (options.worker / "trace.txt").open("w")
    faulthandler.enable(trace)

    def found(one: Case, *, twice: bool) -> bool:
        (options.worker / "case.json").write_text(json.dumps([one.number, one.seed, one.options.unusual]))
        if twice:  # often enough, and not for every case: it takes a millisecond
            faulthandler.dump_traceback_later(HANG if one.number >= 0 else COMPILING, exit=True, file=trace)
        what, lines = outcome(path, one.data, one.options, twice=twice)
        if what:
            faulthandler.cancel_dump_traceback_later()
            data = smaller(path, one.data, one.options, what)
            keep(options.keep, dataclasses.replace(one, data=data), options.seed, what, lines)
        return bool(what)

    raw = captures(options.corpus)
    for name, data, rules in kept_cases():
        if found(Case(-1, name, data, rules), twice=True):
            return FOUND
    if any(found(Case(-1, name, data, IngestOptions()), twice=True) for name, data in raw):
        return FOUND
    seeds = [seed_of(name, data) for name, data in raw]
    number, begin = options.first, time.monotonic()
    while (passed := time.monotonic() - begin) < options.seconds:
        if found(case(seeds, options.seed, number), twice=number % TWICE == 0):
            return FOUND
        number += 1
    cases = number - options.first
    print(f"seed {options.seed}: {cases:,} cases from {len(seeds)} captures in {passed:.0f} s, ", end="")
    print(f"{cases / max(passed, 1e-9):,.0f} a second; nothing found")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--first", type=int, default=0, help="the case to begin with")
    parser.add_argument(
        "--corpus", type=Path, default=None, metavar="DIR", help="captures instead of those of ../shared"
    )
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), metavar="DIR", help="where findings go")
    parser.add_argument("--worker", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options)
    environment = os.environ | {
        "NUMBA_BOUNDSCHECK": "1",
        "NUMBA_CACHE_DIR": str(CACHE),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
    }
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="bench-fuzz-", dir=memory) as folder:
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", folder]
        status = subprocess.run(command, env=environment).returncode
        if status in (0, FOUND):
            return int(status == FOUND)
        described = Path(folder) / "case.json"
        if not described.is_file():
            print(f"no case was read: the process that reads them ended with {status}", file=sys.stderr)
            return 2
        number, name, rules = json.loads(described.read_text())
        data, trace = (Path(folder) / "capture").read_bytes(), (Path(folder) / "trace.txt").read_text()
        what = f"ended by signal {-status}" if status < 0 else f"took too long, or ended with {status}"
        keep(options.keep, Case(number, name, data, IngestOptions(**rules)), options.seed, what, trace)
    return 1


if __name__ == "__main__":
    sys.exit(main())
