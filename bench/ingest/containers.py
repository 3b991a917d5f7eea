"""Walks over the records of pcap and pcapng captures, in batches, from a memory map.

Formats: draft-ietf-opsawg-pcap (µs, ns and the "modified" layout, both byte orders) and
draft-ietf-opsawg-pcapng (several sections and interfaces, ``if_tsresol``, ``if_tsoffset``; enhanced, simple
and obsolete packet blocks; other blocks are stepped over).  The compiled walkers see nothing but fixed-size
headers; file headers, sections and interfaces are rare and are read in Python.  A length in a header is
believed only as far as the file goes: nothing is ever allocated from one.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bench.schema import CAPTURE_MAGICS

#: records of one batch; small enough that headers met by the walk are still in the cache when they are decoded
BATCH: Final = 2048

#: columns of a batch, int64 ``[BATCH, 6]``: position of the record, time (ns since the Unix epoch), position and
#: end of its bytes in the file, length on the wire (bytes), link type
AT, TIME, FRAME, END, WIRE, LINK = range(6)

#: columns of pcapng's interfaces: link type, snap length, and how its clock becomes ns (see `_clock`)
_TYPE, _SNAP, _COARSE, _UNITS, _MULTIPLY, _DIVIDE, _OFFSET = range(7)

#: the longest record that capture tools write (libpcap's MAXIMUM_SNAPLEN); a longer one is damage
_LONGEST: Final = 262_144

#: magic -> (byte order, ns a tick, bytes of a record header)
_PCAP: Final = {
    struct.pack(order + "I", magic): (order, tick, header)
    for order in "<>"
    for magic, tick, header in ((0xA1B2C3D4, 1000, 16), (0xA1B23C4D, 1, 16), (0xA1B2CD34, 1000, 24))
}

_ZEROS_AT_ONCE: Final = 1 << 20  # bytes looked at for a hole's end

#: bytes of an interface block that are looked at; the clock stands among the first options, comments may be long
_INTERFACE_BYTES: Final = 1 << 16

_int: Any = np.int64
_SECTION_BLOCK: Final = 0x0A0D0D0A
_SIMPLE_BLOCK: Final = 3  # a packet without a time

#: seconds from the epoch at which times are held, so that a difference of two times fits int64
_ERA: Final = 2**62 // 10**9 - 1

#: where a walk stands: position, byte order; for pcapng interfaces of the section, time of the last packet; how far
#: the file was touched, and a sum that keeps the compiler from leaving that out; fractions of a second beyond one
_POSITION, _LITTLE, _KNOWN, _LAST, _AHEAD, _TOUCHED, _ODD = range(7)
_DISTANCE: Final = 4096  # bytes touched ahead of the position

# why a walker returned
_FULL, _END, _INTERFACE, _CUT, _TOO_LONG, _BAD_LENGTH, _UNEQUAL, _NO_INTERFACE, _BEYOND, _NO_ORDER, _ZEROS = range(11)
_REASONS: Final = {
    _CUT: "the file ends inside a record",
    _TOO_LONG: f"a record claims more than {_LONGEST} bytes",
    _BAD_LENGTH: "a block claims fewer bytes than its own fields take",
    _UNEQUAL: "the two lengths of a block differ",
    _NO_INTERFACE: "a packet names an interface that its section does not have",
    _BEYOND: "a packet is longer than its block",
    _NO_ORDER: "a section header has no byte order",
}


@dataclass(frozen=True)
class Damage:
    """Where reading stopped.

    ``offset`` and ``bytes_lost`` count bytes of the unpacked capture; where a compressed stream itself is broken,
    ``offset`` is the length of what could be unpacked and ``bytes_lost`` counts compressed bytes.
    """

    offset: int
    reason: str
    bytes_lost: int


@dataclass
class Walk:
    """What a walk has met so far: the capture's own set-up, and damage."""

    links: list[int] = field(default_factory=list)  # link types, as found
    snap_lengths: list[int] = field(default_factory=list)  # bytes, by interface; 0: none named
    resolutions: list[str] = field(default_factory=list)  # of the clocks, by interface
    tools: list[str] = field(default_factory=list)  # what says that it wrote the file (pcapng)
    odd_fractions: int = 0  # times whose fraction is a second or more
    zeros: int = 0  # records of zeros, which are stepped over
    damage: list[Damage] = field(default_factory=list)

    def stop(self, data: NDArray[np.uint8], offset: int, reason: str) -> None:
        """Note that reading of ``data [bytes]`` ended at ``offset``."""
        if offset and reason != _REASONS[_NO_ORDER] and data[offset : offset + 4].tobytes() in CAPTURE_MAGICS:
            reason = "another capture begins here: files were joined by `cat`; join them by `mergecap` instead"
        self.damage.append(Damage(offset, reason, len(data) - offset))


def capture_format(data: NDArray[np.uint8]) -> str | None:
    """``"pcap"``, ``"pcapng"`` or None, by the first four of ``data [bytes]`` alone."""
    return CAPTURE_MAGICS.get(data[:4].tobytes())


def frames(data: NDArray[np.uint8], record: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the frames of records begin, behind the records' headers: int64 ``[records]``.

    ``data`` is the whole capture, uint8 ``[bytes]``, ``record`` int64 ``[records]`` where its records begin.
    """
    if capture_format(data) == "pcap":
        return record + _PCAP[data[:4].tobytes()][2]
    kind = data[record] | data[record + 3]  # a small number in either byte order
    return record + np.where(kind == _SIMPLE_BLOCK, 12, 28)


def joined(parts: Sequence[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """The bytes of one capture that holds the records of all, each part uint8 ``[bytes]``, in their order.

    Raises ValueError where they are not of one format, and of pcap files where their clocks or link types differ.
    """
    heads = {bytes(part[:4]) + bytes(part[20:24]) if capture_format(part) == "pcap" else b"" for part in parts}
    if len(heads) > 1:
        raise ValueError("their formats, clocks or link types differ")
    yield parts[0]
    for part in parts[1:]:
        yield part[24:] if capture_format(part) == "pcap" else part


def first_time(data: NDArray[np.uint8], notes: Walk) -> int | None:
    """Time of a sound capture's first record, ns since the Unix epoch, 0 where it has none; None where it is damaged.

    ``data`` uint8 ``[bytes]`` is walked to its end.
    """
    first = None
    for batch in walk(data, notes):
        first = int(batch[0, TIME]) if first is None else first
    return None if notes.damage else first or 0


def walk(data: NDArray[np.uint8], notes: Walk) -> Iterator[NDArray[np.int64]]:
    """Batches of records, int64 ``[<= BATCH, 6]``, in the file's order; each is overwritten by the next.

    ``data`` is the whole capture, uint8 ``[bytes]``, of a known format; ends at the first damage, noted in ``notes``.
    """
    return (_pcapng if capture_format(data) == "pcapng" else _pcap)(data, notes)


def _pcap(data: NDArray[np.uint8], notes: Walk) -> Iterator[NDArray[np.int64]]:
    """`walk` over a pcap file."""
    if len(data) < 24:
        return notes.stop(data, 0, "the file ends inside its header")
    order, tick, header = _PCAP[data[:4].tobytes()]
    snap, link = struct.unpack(order + "II", data[16:24].tobytes())
    link &= 0xFFFF  # the upper half tells of frame check sums
    notes.links.append(link)
    notes.snap_lengths.append(snap)
    notes.resolutions.append("1 ns" if tick == 1 else "1 µs")
    batch = np.empty((BATCH, 6), np.int64)
    state = np.array([24, order == "<", 0, 0, 0, 0, 0])
    stop = _FULL
    while stop in (_FULL, _ZEROS):
        count, stop = _walk_pcap(data, state, header, tick, link, batch)
        if count:
            yield batch[:count]
        if stop == _ZEROS and not _behind_zeros(data, state, header, notes):
            stop = _END
    notes.odd_fractions = int(state[_ODD])
    if stop != _END:
        notes.stop(data, int(state[_POSITION]), _REASONS[stop])


def _behind_zeros(data: NDArray[np.uint8], state: NDArray[np.int64], header: int, notes: Walk) -> bool:
    """Go on behind records that are nothing but zeros; False where the file ends with them.

    A file made in advance and never filled ends so; a hole in one is stepped over and told.
    """
    position = at = int(state[_POSITION])
    while at < len(data) and not data[at : at + _ZEROS_AT_ONCE].any():
        at += _ZEROS_AT_ONCE
    if at >= len(data):
        notes.stop(data, position, "nothing but zeros from here on: the file was made in advance and not filled")
        return False
    first = at + int(np.flatnonzero(data[at : at + _ZEROS_AT_ONCE])[0])
    records = max((first - position) // header, 1)
    notes.zeros += records
    if records > 1:
        notes.damage.append(Damage(position, "a hole of zeros between records", records * header))
    state[_POSITION] += records * header
    return True


def _pcapng(data: NDArray[np.uint8], notes: Walk) -> Iterator[NDArray[np.int64]]:
    """`walk` over a pcapng file: the compiled walker hands interfaces back to be read here."""
    notes.tools += _tools(data)
    batch = np.empty((BATCH, 6), np.int64)
    interfaces = np.zeros((16, 7), np.int64)
    state = np.zeros(7, np.int64)
    while True:
        count, stop = _walk_pcapng(data, state, interfaces, batch)
        if count:
            yield batch[:count]
        if stop == _INTERFACE:
            known, order = state[_KNOWN], "><"[state[_LITTLE]]
            if known == len(interfaces):
                interfaces = np.concatenate([interfaces, np.zeros_like(interfaces)])
            interfaces[known], length = _read_interface(data, int(state[_POSITION]), order)
            notes.links.append(int(interfaces[known, _TYPE]))
            notes.snap_lengths.append(int(interfaces[known, _SNAP]))
            notes.resolutions.append(_resolution(interfaces[known]))
            state[_KNOWN] += 1
            state[_POSITION] += length
        elif stop != _FULL:
            break
    if stop != _END:
        notes.stop(data, int(state[_POSITION]), _REASONS[stop])


def _tools(data: NDArray[np.uint8]) -> list[str]:
    """The application that the first section's header says wrote it; nothing where it does not say."""
    head = data[: 24 + _INTERFACE_BYTES].tobytes()
    if len(head) < 28:
        return []
    order = "<" if head[8:12] == b"\x4d\x3c\x2b\x1a" else ">"
    end = min(struct.unpack_from(order + "I", head, 4)[0] - 4, len(head))
    return [value.decode("utf-8", "replace") for code, value in _options(head[:end], 24, order) if code == 4]


def _options(block: bytes, at: int, order: str) -> Iterator[tuple[int, bytes]]:
    """Code and value of a block's options from ``at`` on; one that runs over the end ends them."""
    while at + 4 <= len(block):
        code, size = struct.unpack_from(order + "HH", block, at)
        if code == 0:
            return
        yield code, block[at + 4 : at + 4 + size]
        at += 4 + -(-size // 4) * 4


def _read_interface(data: NDArray[np.uint8], position: int, order: str) -> tuple[list[int], int]:
    """The row of `interfaces` that a whole interface block describes, and the block's padded length.

    Options beyond `_INTERFACE_BYTES` are not read: a block may claim the whole file.
    """
    length = -(-struct.unpack(order + "I", data[position + 4 : position + 8].tobytes())[0] // 4) * 4
    block = data[position : position + min(length - 4, _INTERFACE_BYTES)].tobytes()
    link, _, snap = struct.unpack_from(order + "HHI", block, 8)
    resolution, offset = 6, 0
    for code, value in _options(block, 16, order):
        if code == 9 and len(value) == 1:
            resolution = value[0]
        elif code == 14 and len(value) == 8:
            offset = struct.unpack(order + "q", value)[0]
    return [link, snap, *_clock(resolution), max(-_ERA, min(_ERA, offset))], length


def _resolution(interface: NDArray[np.int64]) -> str:
    """The unit of an interface's clock, for people."""
    units = int(interface[_UNITS])
    known = {1: "1 s", 10**3: "1 ms", 10**6: "1 µs", 10**9: "1 ns", 10**12: "1 ps"}
    return known.get(units, f"1/{units} s") if interface[_COARSE] == 1 else "finer than 1 as"


def _clock(resolution: int) -> tuple[int, int, int, int]:
    """How ticks become time: ``ticks / coarse`` holds `units` a second; the rest ``* multiply / divide`` is ns.

    ``resolution`` is if_tsresol: a power of ten, or of two where the top bit is set.  Resolutions beyond 1e-18 s
    and 2**-34 s, which no clock has, lose their finest digits (all of them past int64).
    """
    power = resolution & 0x7F
    if resolution & 0x80:
        return 2 ** min(max(power - 34, 0), 62), 2 ** min(power, 34), 10**9, 2 ** min(power, 34)
    kept = min(power, 18)
    return 10 ** min(power - kept, 18), 10**kept, 10 ** max(9 - kept, 0), 10 ** max(kept - 9, 0)


@njit(cache=True, nogil=True)
def _walk_pcap(data: Any, state: Any, header: int, tick: int, link: int, batch: Any) -> tuple[int, int]:
    """Fill ``batch`` from the state's position on; returns records and why it returned."""
    big = state[_LITTLE] == 0
    for row in range(len(batch)):
        position, left = state[_POSITION], len(data) - state[_POSITION]
        _touch(data, state)
        if left < header:
            return row, _END if left == 0 else _CUT
        captured, seconds, fraction = (
            _u32(data, position + 8, big),
            _u32(data, position, big),
            _u32(data, position + 4, big) * tick,
        )
        if captured == 0:
            if seconds == 0 and fraction == 0 and _u32(data, position + 12, big) == 0:
                return row, _ZEROS
            if seconds == 0xA1B2C3D4 or seconds == 0xA1B23C4D:  # a file header: its time zone stands there
                return row, _TOO_LONG
        if captured > _LONGEST:
            return row, _TOO_LONG
        if captured > left - header:
            return row, _CUT
        batch[row, AT] = position
        batch[row, TIME] = seconds * 1_000_000_000 + fraction
        state[_ODD] += fraction >= 1_000_000_000
        batch[row, FRAME] = position + header
        batch[row, END] = position + header + captured
        batch[row, WIRE] = max(captured, _u32(data, position + 12, big))
        batch[row, LINK] = link
        state[_POSITION] = position + header + captured
    return len(batch), _FULL


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _touch(data: Any, state: Any) -> None:
    """Read a byte of each cache line up to some distance ahead.

    A walk by lengths waits for memory at every record; lines read in order come early, which is 3 times as fast.
    """
    ahead, stop = max(state[_AHEAD], state[_POSITION]), min(state[_POSITION] + _DISTANCE, len(data))
    touched = 0
    while ahead < stop:
        touched += data[ahead]
        ahead += 64
    state[_AHEAD] = ahead
    state[_TOUCHED] += touched


@njit(cache=True, nogil=True)
def _walk_pcapng(data: Any, state: Any, interfaces: Any, batch: Any) -> tuple[int, int]:
    """Fill ``batch``; returns records and why it returned.  ``state`` is where it goes on."""
    row = 0
    while row < len(batch):
        position = state[_POSITION]
        _touch(data, state)
        kind, length, fault = _block(data, state)
        if fault != _FULL:
            return row, fault
        if kind == 1:
            return row, _INTERFACE
        if kind == 2 or kind == 3 or kind == 6:
            fault = _packet(data, state, kind, length, interfaces, batch[row])
            if fault != _FULL:
                return row, fault
            row += 1
        elif kind == _SECTION_BLOCK:
            state[_KNOWN] = 0
        state[_POSITION] = position + length
    return row, _FULL


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _block(data: Any, state: Any) -> tuple[int, int, int]:
    """Type and padded length of the block at the state's position, and what is wrong with it, else `_FULL`.

    A section header sets the byte order, which the block's own length is already written in.
    """
    position, left = state[_POSITION], len(data) - state[_POSITION]
    if left < 12:
        return 0, 0, _END if left == 0 else _CUT
    kind = _u32(data, position, state[_LITTLE] == 0)
    if kind == _SECTION_BLOCK:
        magic = _u32(data, position + 8, state[_LITTLE] == 0)
        if magic == 0x4D3C2B1A:
            state[_LITTLE] ^= 1
        elif magic != 0x1A2B3C4D:
            return kind, 0, _NO_ORDER
    big = state[_LITTLE] == 0
    length = _u32(data, position + 4, big)
    if length < 12 or (kind == _SECTION_BLOCK and length < 28) or (kind == 1 and length < 20):
        return kind, length, _BAD_LENGTH
    padded = (length + 3) & ~3  # some writers count no padding
    if padded > left:
        return kind, padded, _CUT
    if _u32(data, position + padded - 4, big) != length:
        return kind, padded, _UNEQUAL
    return kind, padded, _FULL


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _packet(data: Any, state: Any, kind: int, length: int, interfaces: Any, record: Any) -> int:
    """Describe a packet block (2 obsolete, 3 simple, 6 enhanced) in ``record``; what is wrong with it, else `_FULL`."""
    position, big = state[_POSITION], state[_LITTLE] == 0
    header = 12 if kind == 3 else 28
    if length < header + 4:
        return _BAD_LENGTH
    room = length - header - 4
    if kind == 3:
        interface, wire = 0, _u32(data, position + 8, big)
        captured = min(wire, room)
    else:
        interface = _u32(data, position + 8, big)
        if kind == 2:
            interface = interface >> 16 if big else interface & 0xFFFF
        captured, wire = _u32(data, position + 20, big), _u32(data, position + 24, big)
    if interface >= state[_KNOWN]:
        return _NO_INTERFACE
    if captured > room:
        return _BEYOND
    if kind == 3 and interfaces[0, _SNAP] > 0:
        captured = min(captured, interfaces[0, _SNAP])
    if captured > _LONGEST:
        return _TOO_LONG
    if kind != 3:  # a simple packet has no time: it keeps its predecessor's, and so its place
        high, low = _u32(data, position + 12, big), _u32(data, position + 16, big)
        state[_LAST] = _nanoseconds(high, low, interfaces[interface])
    record[AT] = position
    record[TIME] = state[_LAST]
    record[FRAME] = position + header
    record[END] = position + header + captured
    record[WIRE] = max(captured, wire)
    record[LINK] = interfaces[interface, _TYPE]
    return _FULL


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _nanoseconds(high: int, low: int, clock: Any) -> int:
    """Ns since the Unix epoch of a 64-bit time stamp; times 146 years and more from the epoch are held there."""
    ticks = (np.uint64(high) << np.uint64(32)) | np.uint64(low)
    ticks //= np.uint64(clock[_COARSE])
    seconds = np.int64(min(ticks // np.uint64(clock[_UNITS]), np.uint64(_ERA)))
    rest = (ticks % np.uint64(clock[_UNITS])) * np.uint64(clock[_MULTIPLY]) // np.uint64(clock[_DIVIDE])
    return max(-_ERA, min(_ERA, seconds + clock[_OFFSET])) * 1_000_000_000 + np.int64(rest)


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _u32(data: Any, at: int, big: bool) -> int:
    """The unsigned 32-bit number at ``at``, as int64."""
    a, b, c, d = _int(data[at]), _int(data[at + 1]), _int(data[at + 2]), _int(data[at + 3])
    if big:
        return a << 24 | b << 16 | c << 8 | d
    return d << 24 | c << 16 | b << 8 | a
