"""Headers from the link layer to TCP and UDP, in compiled code: one record in, one packet row or a reason out.

`links` finds the outermost IP header, `tunnels` what it carries inside: a packet belongs to its outermost IP header
unless its kind of tunnel is asked for.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bench.ingest.containers import AT, END, FRAME, LINK, TIME, WIRE
from bench.ingest.links import (
    BAD_HEADER,
    CARRIED_NAMES,
    LATER_FRAGMENT,
    NON_IP,
    OTHER_PROTOCOL,
    REASONS,
    TRUNCATED,
    network,
    outer_end,
    ppp,
    reason,
    u16,
    u32,
    u64,
    vlan,
)
from bench.ingest.tunnels import INNER_ETHERNET, INNER_PPP, NO_TUNNEL, TUNNEL_NAMES, may_be_tunnel, tunnel
from bench.schema import MARK_FRAGMENT, MARK_TUNNELLED

#: SHA-256 of links, tunnels, containers, options and schema, 16 hex digits: numba compiles a file again when that file
#: changes, and knows nothing of the files whose functions and constants it takes in (a test compares)
COMPILED_IN: Final = "3a698a9d5efcb1e7"

#: words of a session key: lower end point's address, higher end point's, then ports, protocol, IP version, VLAN
KEY_WORDS: Final = 5
VLAN_SHIFT: Final = 48

_TCP, _UDP = 6, 17
_int: Any = np.int64
_MOST_EXTENSIONS: Final = 16  # IPv6 extension headers looked through; more are an attack or noise (our choice)
_MOST_TUNNELS: Final = 4  # in each other (our choice)
_WHOLE, _FIRST, _LATER = range(3)  # which fragment a packet is

#: IP protocols that are no TCP or UDP, by number, for people
PROTOCOL_NAMES: Final = {
    1: "ICMP",
    2: "IGMP",
    4: "IP in IP",
    41: "6in4",
    46: "RSVP",
    47: "GRE",
    50: "ESP",
    51: "AH",
    58: "ICMPv6",
    88: "EIGRP",
    89: "OSPF",
    97: "EtherIP",
    103: "PIM",
    112: "VRRP",
    115: "L2TP",
    132: "SCTP",
    136: "UDP-Lite",
}

# times from record to record, in ns: the last, steps back and the largest of them, jumps forward likewise
_LAST, _BACK, _MOST_BACK, _AHEAD, _MOST_AHEAD, _STARTED = range(6)
JUMP: Final = 3600 * 10**9  # ns: more than so much from one record to the next is a jump (our choice)


@dataclass(frozen=True, eq=False)
class Tally:
    """What is counted while records are decoded, int64 arrays filled in place."""

    skipped: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(REASONS), np.int64))
    protocols: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))  # that are not read
    carried: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1 << 16, np.int64))  # EtherTypes without IP
    tunnels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(TUNNEL_NAMES), np.int64))
    clock: NDArray[np.int64] = field(default_factory=lambda: np.zeros(6, np.int64))
    lost: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))  # bytes in later fragments

    @property
    def arrays(self) -> tuple[NDArray[np.int64], ...]:
        """As `decode` takes them: int64 ``[6]``, ``[256]``, ``[65536]``, ``[tunnels]``, ``[6]`` and ``[1]``."""
        return self.skipped, self.protocols, self.carried, self.tunnels, self.clock, self.lost

    def named(self) -> dict[str, dict[str, int]]:
        """Records that gave no packet by reason, protocol and EtherType, packets by tunnel; no zeros."""
        return {
            "skipped": {name: int(n) for name, n in zip(REASONS, self.skipped, strict=True) if n},
            "other_protocols": {
                f"{PROTOCOL_NAMES[number]} {number}" if number in PROTOCOL_NAMES else f"protocol {number}": int(
                    self.protocols[number]
                )
                for number in np.flatnonzero(self.protocols).tolist()
            },
            "non_ip": {
                CARRIED_NAMES.get(number, f"EtherType 0x{number:04x}"): int(self.carried[number])
                for number in np.flatnonzero(self.carried).tolist()
            },
            "tunnelled": {name: int(n) for name, n in zip(TUNNEL_NAMES, self.tunnels, strict=True) if n},
        }

    def times(self) -> dict[str, float]:
        """How often the clock of the records, in file order, steps back and jumps ahead, and the most, in seconds."""
        clock = self.clock.tolist()
        return {
            "steps_back": clock[_BACK],
            "largest_step_back_s": clock[_MOST_BACK] / 1e9,
            "jumps_ahead": clock[_AHEAD],
            "largest_jump_ahead_s": clock[_MOST_AHEAD] / 1e9,
        }


@njit(cache=True, nogil=True)
def decode(data: Any, batch: Any, columns: Any, keys: Any, tally: Any, wanted: int, by_vlan: bool) -> int:
    """Decode a batch of records; returns the packets found.

    ``data`` uint8 ``[bytes]``; ``batch`` int64 ``[records, 6]`` of `containers.walk`.  Packets are written from row
    0 on into ``columns`` (arrays ``[>= records]`` of schema.PACKET_COLUMNS in that order, ``direction`` +1 where the
    sender is the lower end point; then uint32 and uint16 by which a packet is known again: sequence number and what is
    acknowledged of TCP, first payload bytes and IP id of UDP) and ``keys`` int64 ``[>= records, 5]``; all else is
    counted in ``tally`` (`Tally.arrays`).  ``wanted`` are the bits of tunnels to unwrap (`tunnels.wanted_tunnels`).
    """
    time, record, length, payload_length, captured, ip_at, payload_at, direction, flags, marks, sequence, answer = (
        columns
    )
    skipped, protocols, carried, tunnels, clock, lost = tally
    row, last = 0, clock[_LAST] if clock[_STARTED] else batch[0, TIME]
    for i in range(len(batch)):
        at, frame, end = batch[i, AT], batch[i, FRAME], batch[i, END]
        if not last <= batch[i, TIME] <= last + JUMP:
            _step(batch[i, TIME] - last, clock)
        last = batch[i, TIME]
        ip, mark = network(data, frame, end, batch[i, LINK]), 0
        protocol, segment, total, part = ip, _int(0), _int(0), _WHOLE
        if ip >= 0:
            protocol, segment, total, part = _internet(data, ip, end, frame, frame + batch[i, WIRE])
            if part != _WHOLE or (protocol != _TCP and not _plain_udp(data, segment, end, protocol)):
                layer = (ip, protocol, segment, total, _int(part))
                ip, protocol, segment, total, part, mark = _unusual(data, layer, end, tunnels, wanted)
        if protocol >= 0:
            payload, size, bits = _transport(data, segment, end, ip + total, protocol, part == _FIRST)
            if payload < 0 or ip - at > 0xFFFF or payload - ip > 0xFFFF:
                protocol = min(payload, _int(BAD_HEADER)) if payload >= 0 else payload
        if protocol < 0:
            _skip(-protocol, skipped, protocols, carried, lost)
            continue
        time[row] = last
        record[row] = at
        length[row] = total
        payload_length[row] = size
        captured[row] = min(end - ip, total)
        ip_at[row] = ip - at
        payload_at[row] = payload - ip
        flags[row] = bits
        marks[row] = mark
        sequence[row], answer[row] = _known_by(data, ip, segment, payload, end, protocol)
        direction[row] = _end_points(data, ip, segment, protocol, keys[row])
        if by_vlan:
            keys[row, 4] |= vlan(data, frame, end, batch[i, LINK]) << VLAN_SHIFT
        row += 1
    clock[_LAST], clock[_STARTED] = last, 1
    return row


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _plain_udp(data: Any, segment: int, end: int, protocol: int) -> bool:
    """Whether a whole packet is UDP in which no tunnel can be."""
    return protocol == _UDP and not may_be_tunnel(data, segment, end, protocol)


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _unusual(
    data: Any, layer: tuple[int, int, int, int, int], end: int, tunnels: Any, wanted: int
) -> tuple[int, int, int, int, int, int]:
    """What counts of a packet that is no whole TCP packet, and its marks: `_unwrapped`, and no later fragment."""
    ip, protocol, segment, total, part = layer
    mark = MARK_FRAGMENT if part == _FIRST else 0
    if part != _LATER and may_be_tunnel(data, segment, end, protocol):
        ip, protocol, segment, total, part, tunnelled = _unwrapped(data, layer, end, tunnels, wanted)
        mark |= tunnelled
    if protocol == _TCP or protocol == _UDP:
        if part == _LATER:
            protocol = reason(LATER_FRAGMENT, max(ip + total - segment, 0))
        elif part == _FIRST:
            mark |= MARK_FRAGMENT
    elif part == _LATER and wanted and (protocol == 47 or protocol == 4 or protocol == 41):
        protocol = reason(LATER_FRAGMENT, max(ip + total - segment, 0))  # of a tunnel: it would have been unwrapped
    elif protocol >= 0:
        protocol = reason(OTHER_PROTOCOL, protocol)
    return ip, protocol, segment, total, part, mark


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _skip(why: int, skipped: Any, protocols: Any, carried: Any, lost: Any) -> None:
    """Count a record that gives no packet, for a reason ``-why``, and what explains it."""
    number, why = why >> 8, why & 0xFF
    skipped[why - 1] += 1
    if why == -NON_IP:
        carried[number & 0xFFFF] += 1
    elif why == -OTHER_PROTOCOL:
        protocols[number & 0xFF] += 1
    elif why == -LATER_FRAGMENT:
        lost[0] += number


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _known_by(data: Any, ip: int, segment: int, payload: int, end: int, protocol: int) -> tuple[int, int]:
    """Numbers of 32 and of 16 bits that are equal in equal packets and rarely in others."""
    if protocol == _TCP:
        return u32(data, segment + 4), u16(data, segment + 10)
    return u32(data, payload) if payload + 4 <= end else _int(0), u16(data, ip + 4)


@njit(cache=True, nogil=True)
def transport_offsets(data: Any, begin: Any, size: Any, out: Any) -> None:
    """Where the TCP or UDP header begins in packets that `decode` took, from their IP headers on.

    ``begin`` int64 ``[packets]`` is where their IP headers lie in ``data``, ``size`` int64 how many bytes of each were
    captured; written to ``out`` int64.  Of what is no such packet it is the size: no byte of it is a transport header.
    """
    for i in range(len(begin)):
        out[i] = transport_offset(data, begin[i], size[i])


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def transport_offset(data: Any, ip: int, size: int) -> int:
    """`transport_offsets` of one packet."""
    if size < 20:
        return size
    version_4 = data[ip] >> 4 == 4
    header, protocol = (_int(data[ip] & 15) * 4, data[ip + 9]) if version_4 else (_int(40), data[ip + 6])
    protocol, at, _, _ = _upper(data, ip + header, ip + size, _int(protocol), 0, 0, not version_4)
    return at - ip if protocol == _TCP or protocol == _UDP else size


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _step(passed: int, clock: Any) -> None:
    """Count a step of the clock by ``passed`` ns, back or ahead."""
    if passed < 0:
        clock[_BACK] += 1
        clock[_MOST_BACK] = max(clock[_MOST_BACK], -passed)
    else:
        clock[_AHEAD] += 1
        clock[_MOST_AHEAD] = max(clock[_MOST_AHEAD], passed)


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _unwrapped(
    data: Any, layer: tuple[int, int, int, int, int], end: int, tunnels: Any, wanted: int
) -> tuple[int, int, int, int, int, int]:
    """The packet that counts, of one that is no plain TCP packet: itself, or what is in tunnels that are ``wanted``.

    Position of its IP header (or a reason), protocol, position of that header, length, which fragment (such is
    ``layer``, too), and marks.
    """
    mark = 0
    ip, protocol, segment, total, part = layer
    for depth in range(_MOST_TUNNELS):
        kind, bit, place, what = tunnel(data, segment, end, protocol)
        if kind == NO_TUNNEL:
            break
        if depth == 0:
            tunnels[kind] += 1
            mark = MARK_TUNNELLED
        if not bit & wanted:
            break
        stop = min(end, ip + total)
        if what == INNER_ETHERNET:
            ip = network(data, place, stop, 1)
        else:
            ip = ppp(data, place, stop) if what == INNER_PPP else _int(place)
        if ip < 0:
            return ip, ip, segment, total, part, mark
        protocol, segment, total, part = _internet(data, ip, stop, place, ip + total)
        if protocol < 0 or part == _LATER or protocol == _TCP:
            break
    return ip, protocol, segment, total, part, mark


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _internet(data: Any, ip: int, end: int, frame: int, wire: int) -> tuple[int, int, int, int]:
    """Protocol (or a reason), position of its header, declared length of the IP packet, which fragment it is.

    ``wire`` is where the frame that began at ``frame`` ended on the wire: where the length field is 0 (segmentation
    offload, jumbograms) the packet goes on to there, or to where the layer between ends.
    """
    version = _int(data[ip] >> 4) if ip < end else _int(0)
    header, place = 40, _int(0)
    if version == 4:
        header = _int(data[ip] & 15) * 4
    if ip + max(header, 20) > end:
        return TRUNCATED, 0, 0, _WHOLE
    if version == 4:
        protocol, total, place = _int(data[ip + 9]), u16(data, ip + 2), u16(data, ip + 6)
    elif version == 6:
        protocol, total = _int(data[ip + 6]), u16(data, ip + 4)
        total = total + 40 if total else total
    else:
        return BAD_HEADER, 0, 0, _WHOLE
    if total == 0:
        total = outer_end(data, ip, frame, wire) - ip
    if header < 20 or total < header:
        return BAD_HEADER, 0, 0, _WHOLE
    return _upper(data, ip + header, end, protocol, total, place, version == 6)


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _upper(
    data: Any, at: int, end: int, protocol: int, total: int, place: int, extensions: bool
) -> tuple[int, int, int, int]:
    """`_internet`, from the end of the IP header on: steps over AH and, in IPv6, the extension headers.

    ``place`` is IPv4's field of fragment offset and flags, 0 in IPv6.
    """
    offset, more = place & 0x1FFF, place & 0x2000 != 0
    for _ in range(_MOST_EXTENSIONS):
        options = extensions and (protocol == 0 or protocol == 43 or protocol == 60)
        fragment = extensions and protocol == 44
        if not options and not fragment and protocol != 51:
            return protocol, at, total, _LATER if offset else _FIRST if more else _WHOLE
        if offset:  # what follows is the middle of something
            return _UDP, at, total, _LATER
        if at + 8 > end:
            return TRUNCATED, at, total, _WHOLE
        if fragment:
            offset, more = u16(data, at + 2) & 0xFFF8, data[at + 3] & 1 != 0
        length = _int(data[at + 1])
        protocol = _int(data[at])
        at += 8 if fragment else length * 8 + 8 if options else length * 4 + 8
    return BAD_HEADER, at, total, _WHOLE


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _transport(data: Any, at: int, end: int, stop: int, protocol: int, fragment: bool) -> tuple[int, int, int]:
    """Position of the payload (or a reason), its declared length, TCP flags.  ``stop`` is the IP packet's end.

    A UDP length that contradicts IP's is not believed; nor is that of a first fragment, which counts what the
    later ones carry.  The payload may start beyond what was captured.
    """
    if at + (14 if protocol == _TCP else 6) > end:
        return TRUNCATED, 0, 0
    if protocol == _TCP:
        header = (data[at + 12] >> 4) * _int(4)
        if header < 20 or at + header > stop:
            return BAD_HEADER, 0, 0
        return at + header, stop - at - header, _int(data[at + 13])
    room, size = stop - at - 8, u16(data, at + 4) - 8
    if room < 0:
        return BAD_HEADER, 0, 0
    return at + 8, size if 0 <= size <= room and not fragment else room, 0


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _end_points(data: Any, ip: int, segment: int, protocol: int, key: Any) -> int:
    """Write the session key of a packet; +1 where its sender is the lower end point, else -1."""
    version = data[ip] >> _int(4)
    if version == 4:
        source, source_low = u32(data, ip + 12) << 32, _int(0)
        target, target_low = u32(data, ip + 16) << 32, _int(0)
    else:
        source, source_low = u64(data, ip + 8), u64(data, ip + 16)
        target, target_low = u64(data, ip + 24), u64(data, ip + 32)
    sender, receiver = u16(data, segment), u16(data, segment + 2)
    forward = source < target or (
        source == target and (source_low < target_low or (source_low == target_low and sender <= receiver))
    )
    if not forward:
        source, target = target, source
        source_low, target_low = target_low, source_low
        sender, receiver = receiver, sender
    key[0], key[1], key[2], key[3] = source, source_low, target, target_low
    key[4] = sender << 32 | receiver << 16 | protocol << 8 | version
    return 1 if forward else -1
