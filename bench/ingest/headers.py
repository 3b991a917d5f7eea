"""Headers from the link layer to TCP and UDP, in compiled code: one record in, one packet row or a reason out.

Link types and their numbers: https://www.tcpdump.org/linktypes.html.  VLAN tags, MPLS labels, PPPoE and LLC/SNAP
are looked through; what starts a second IP layer (GRE, IP in IP, VXLAN, GTP, Teredo) is not: a packet belongs to
its outermost IP header.
"""

from typing import Any, Final

import numpy as np
from numba import njit

from bench.ingest.containers import AT, END, FRAME, LINK, TIME, WIRE

#: why a record gives no packet; `skipped` is int64 ``[6]`` in this order
REASONS: Final = ("unknown_link", "non_ip", "other_protocol", "later_fragment", "truncated_header", "bad_header")
_UNKNOWN_LINK, _NON_IP, _OTHER_PROTOCOL, _LATER_FRAGMENT, _TRUNCATED, _BAD_HEADER = range(-1, -7, -1)

LINK_NAMES: Final = {
    0: "null",
    1: "Ethernet",
    9: "PPP",
    12: "raw IP",
    14: "raw IP",
    50: "PPP in HDLC framing",
    101: "raw IP",
    105: "802.11",
    108: "loop",
    113: "Linux cooked",
    127: "802.11 with radiotap",
    228: "IPv4",
    229: "IPv6",
    276: "Linux cooked 2",
}

#: words of a session key: lower end point's address, higher end point's, then ports, protocol, IP version
KEY_WORDS: Final = 5

_TCP, _UDP = 6, 17
_TYPED: Final = (1, 113, 276)  # link types whose header names an EtherType
_KNOWN: Final = tuple(LINK_NAMES)
_RAW: Final = (12, 14, 101, 228, 229)
_VLAN: Final = (0x8100, 0x88A8, 0x9100)
_FAMILIES: Final = (2, 10, 24, 28, 30)  # AF_INET and what systems call AF_INET6
_int: Any = np.int64
_MOST_EXTENSIONS: Final = 16  # IPv6 extension headers looked through; more are an attack or noise (our choice)


@njit(cache=True, nogil=True)
def decode(data: Any, batch: Any, columns: Any, keys: Any, skipped: Any) -> int:
    """Decode a batch of records; returns the packets found.

    ``data`` uint8 ``[bytes]``; ``batch`` int64 ``[records, 6]`` of `containers.walk`.  Packets are written from row
    0 on into ``columns`` (arrays ``[>= records]`` of schema.PACKET_COLUMNS, in that order; ``direction`` is +1 where
    the sender is the lower end point) and ``keys`` int64 ``[>= records, 5]``; other records are counted in
    ``skipped``.
    """
    time, record, length, payload_length, captured, ip_at, payload_at, direction, flags = columns
    row = 0
    for i in range(len(batch)):
        at, frame, end = batch[i, AT], batch[i, FRAME], batch[i, END]
        ip = _network(data, frame, end, batch[i, LINK])
        if ip < 0:
            skipped[-1 - ip] += 1
            continue
        protocol, segment, total, fragment = _internet(data, ip, end, frame + batch[i, WIRE])
        if protocol < 0:
            skipped[-1 - protocol] += 1
            continue
        payload, size, bits = _transport(data, segment, end, ip + total, protocol, fragment)
        if payload < 0 or ip - at > 0xFFFF or payload - ip > 0xFFFF:
            skipped[-1 - (payload if payload < 0 else _BAD_HEADER)] += 1
            continue
        time[row] = batch[i, TIME]
        record[row] = at
        length[row] = total
        payload_length[row] = size
        captured[row] = min(end - ip, total)
        ip_at[row] = ip - at
        payload_at[row] = payload - ip
        flags[row] = bits
        direction[row] = _end_points(data, ip, segment, protocol, keys[row])
        row += 1
    return row


@njit(cache=True, nogil=True)
def transport_offsets(data: Any, begin: Any, size: Any, out: Any) -> None:
    """Where the TCP or UDP header begins in packets that `decode` took, from their IP headers on.

    ``begin`` int64 ``[packets]`` is where their IP headers lie in ``data``, ``size`` int64 how many bytes of each were
    captured; written to ``out`` int64.  Of what is no such packet it is the size: no byte of it is a transport header.
    """
    for i in range(len(begin)):
        ip, out[i] = begin[i], size[i]
        if size[i] < 20:
            continue
        version_4 = data[ip] >> 4 == 4
        header, protocol = (_int(data[ip] & 15) * 4, data[ip + 9]) if version_4 else (_int(40), data[ip + 6])
        protocol, at, _, _ = _upper(data, ip + header, ip + size[i], _int(protocol), 0, 0, not version_4)
        if protocol >= 0:
            out[i] = at - ip


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _network(data: Any, at: int, end: int, link: int) -> int:
    """Position of the IP header in the frame at ``at``, or a negative reason."""
    if link in _TYPED:
        header = 14 if link == 1 else 16 if link == 113 else 20
        if at + header > end:
            return _TRUNCATED
        return _ethertype(data, at + header, end, _u16(data, at if link == 276 else at + header - 2))
    if link in _RAW:
        return at
    if link not in _KNOWN:
        return _UNKNOWN_LINK
    if at + 4 > end:
        return _TRUNCATED
    if link == 0 or link == 108:
        family = _u16(data, at) | _u16(data, at + 2)  # four bytes in either order hold one small number
        family = family if family & 0xFF else family >> 8
        return at + 4 if family in _FAMILIES else _NON_IP
    if link == 9 or link == 50:
        if data[at] & 0x7F == 0x0F and data[at + 1] == 0:  # Cisco HDLC
            return _ethertype(data, at + 4, end, _u16(data, at + 2))
        return _ppp(data, at, end)
    if link == 105:
        return _wireless(data, at, end)
    return _wireless(data, at + (_int(data[at + 2]) | _int(data[at + 3]) << 8), end)


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _ethertype(data: Any, at: int, end: int, kind: int) -> int:
    """Position of the IP header behind an EtherType (or 802.3 length) ``kind`` that ends at ``at``, or a reason."""
    while kind in _VLAN:
        if at + 4 > end:
            return _TRUNCATED
        kind = _u16(data, at + 2)
        at += 4
    return _llc(data, at, end) if kind <= 1500 else _carried(data, at, end, kind)


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _llc(data: Any, at: int, end: int) -> int:
    """Position of the IP header behind an 802.2 header, or a reason."""
    if at + 8 > end:
        return _TRUNCATED
    if _u16(data, at) == 0x0606 and data[at + 2] == 3:
        return at + 3
    if _u16(data, at) != 0xAAAA or _u16(data, at + 2) != 0x0300 or _u16(data, at + 4) != 0:
        return _NON_IP
    return _carried(data, at + 8, end, _u16(data, at + 6))


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _carried(data: Any, at: int, end: int, kind: int) -> int:
    """Position of the IP header in what EtherType ``kind`` carries, or a reason."""
    if kind == 0x0800 or kind == 0x86DD:
        return at
    if kind == 0x8847 or kind == 0x8848:
        return _mpls(data, at, end)
    return _ppp(data, at + 6, end) if kind == 0x8864 else _NON_IP  # PPPoE session


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _mpls(data: Any, at: int, end: int) -> int:
    """Position of the IP header below a stack of MPLS labels, or a reason; the nibble tells IP (RFC 4928)."""
    while at + 4 < end:
        at += 4
        if data[at - 2] & 1:
            nibble = data[at] >> 4
            return at if nibble == 4 or nibble == 6 else _NON_IP
    return _TRUNCATED


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _ppp(data: Any, at: int, end: int) -> int:
    """Position of the IP header in a PPP frame (RFC 1661, RFC 1662), or a reason."""
    if at + 4 > end:
        return _TRUNCATED
    if data[at] == 0xFF and data[at + 1] == 3:
        at += 2
    if data[at] & 1:  # compressed protocol field
        kind, at = _int(data[at]), at + 1
    elif at + 2 > end:
        return _TRUNCATED
    else:
        kind, at = _u16(data, at), at + 2
    if kind == 0x21 or kind == 0x57:
        return at
    return _mpls(data, at, end) if kind == 0x281 else _NON_IP


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _wireless(data: Any, at: int, end: int) -> int:
    """Position of the IP header in an 802.11 data frame, or a reason; encrypted and aggregated frames are non-IP."""
    if at + 2 > end:
        return _TRUNCATED
    control, bits = _int(data[at]), _int(data[at + 1])
    if control & 0x0F != 0x08 or control & 0x40 or bits & 0x40:  # not data, without data, or encrypted
        return _NON_IP
    header = 30 if bits & 3 == 3 else 24
    if at + header + 2 > end:
        return _TRUNCATED
    if control & 0x80:  # quality of service
        if data[at + header] & 0x80:
            return _NON_IP
        header += 6 if bits & 0x80 else 2
    body = at + header
    if header & 3 and body + 8 <= end and data[body] == 0 and _u16(data, body + 2) == 0xAAAA:
        body += 2  # some drivers pad the header to four bytes
    return _llc(data, body, end)


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _internet(data: Any, ip: int, end: int, wire: int) -> tuple[int, int, int, bool]:
    """Protocol (or a reason), position of its header, declared length of the IP packet, whether a first fragment.

    ``wire`` is where the frame ended on the wire: where the length field is 0 (segmentation offload, jumbograms)
    the packet goes on to there.
    """
    version = _int(data[ip] >> 4) if ip < end else _int(0)
    header, place = 40, _int(0)
    if version == 4:
        header = _int(data[ip] & 15) * 4
    if ip + max(header, 20) > end:
        return _TRUNCATED, 0, 0, False
    if version == 4:
        protocol, total, place = _int(data[ip + 9]), _u16(data, ip + 2), _u16(data, ip + 6)
    elif version == 6:
        protocol, total = _int(data[ip + 6]), _u16(data, ip + 4)
        total = total + 40 if total else total
    else:
        return _BAD_HEADER, 0, 0, False
    if total == 0:
        total = wire - ip
    if header < 20 or total < header:
        return _BAD_HEADER, 0, 0, False
    return _upper(data, ip + header, end, protocol, total, place, version == 6)


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _upper(
    data: Any, at: int, end: int, protocol: int, total: int, place: int, extensions: bool
) -> tuple[int, int, int, bool]:
    """`_internet`, from the end of the IP header on: steps over AH and, in IPv6, the extension headers.

    ``place`` is IPv4's field of fragment offset and flags, 0 in IPv6.
    """
    offset, more = place & 0x1FFF, place & 0x2000 != 0
    for _ in range(_MOST_EXTENSIONS):
        if protocol == _TCP or protocol == _UDP:
            return (_LATER_FRAGMENT if offset else protocol), at, total, more
        options = extensions and (protocol == 0 or protocol == 43 or protocol == 60)
        fragment = extensions and protocol == 44
        if not options and not fragment and protocol != 51:
            return _OTHER_PROTOCOL, at, total, more
        if offset:  # what follows is the middle of something
            return _LATER_FRAGMENT, at, total, more
        if at + 8 > end:
            return _TRUNCATED, at, total, more
        if fragment:
            offset, more = _u16(data, at + 2) & 0xFFF8, data[at + 3] & 1 != 0
        length = _int(data[at + 1])
        protocol = _int(data[at])
        at += 8 if fragment else length * 8 + 8 if options else length * 4 + 8
    return _BAD_HEADER, at, total, more


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _transport(data: Any, at: int, end: int, stop: int, protocol: int, fragment: bool) -> tuple[int, int, int]:
    """Position of the payload (or a reason), its declared length, TCP flags.  ``stop`` is the IP packet's end.

    A UDP length that contradicts IP's is not believed; nor is that of a first fragment, which counts what the
    later ones carry.  The payload may start beyond what was captured.
    """
    if at + (14 if protocol == _TCP else 6) > end:
        return _TRUNCATED, 0, 0
    if protocol == _TCP:
        header = (data[at + 12] >> 4) * _int(4)
        if header < 20 or at + header > stop:
            return _BAD_HEADER, 0, 0
        return at + header, stop - at - header, _int(data[at + 13])
    room, size = stop - at - 8, _u16(data, at + 4) - 8
    if room < 0:
        return _BAD_HEADER, 0, 0
    return at + 8, size if 0 <= size <= room and not fragment else room, 0


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _end_points(data: Any, ip: int, segment: int, protocol: int, key: Any) -> int:
    """Write the session key of a packet; +1 where its sender is the lower end point, else -1."""
    version = data[ip] >> _int(4)
    if version == 4:
        source, source_low = _u32(data, ip + 12) << 32, _int(0)
        target, target_low = _u32(data, ip + 16) << 32, _int(0)
    else:
        source, source_low = _u64(data, ip + 8), _u64(data, ip + 16)
        target, target_low = _u64(data, ip + 24), _u64(data, ip + 32)
    sender, receiver = _u16(data, segment), _u16(data, segment + 2)
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


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _u16(data: Any, at: int) -> int:
    """The big-endian number in two bytes, as int64."""
    return _int(data[at]) << 8 | _int(data[at + 1])


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _u32(data: Any, at: int) -> int:
    """The big-endian number in four bytes, as int64."""
    return _u16(data, at) << 16 | _u16(data, at + 2)


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _u64(data: Any, at: int) -> int:
    """The eight bytes at ``at`` as one big-endian word, int64."""
    return _u32(data, at) << 32 | _u32(data, at + 4)
