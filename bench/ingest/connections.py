"""What the packets of a 5-tuple tell of each other, in the order in which they were captured, in compiled code.

Where a TCP connection ends and another begins on the same ports; which packets are copies, retransmissions or
keep-alives; and, of a finished session, who is the client.
"""

from typing import Any, Final

import numpy as np
from numba import njit

from bench.ingest.headers import transport_offset
from bench.ingest.links import u32
from bench.schema import MARK_COPY, MARK_KEEPALIVE, MARK_RETRANSMISSION

#: SHA-256 of headers and schema, 16 hex digits: see `headers.COMPILED_IN`
COMPILED_IN: Final = "97d161de61c083c8"

COPY_WINDOW: Final = 5_000_000  # ns: an equal packet so soon is a second capture of it (our choice)
REORDERED: Final = 3_000_000  # ns: bytes out of order so soon are a packet that was overtaken (tshark's threshold)

_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_TCP: Final = 6
_RECENT: Final = 256  # prints of a session's packets by which a copy is looked for (our choice)
_WAYS: Final = 4  # packets of one print: others of that print may stand between a packet and its copy (our choice)
_BEGINS: Final = 128  # a bit of a packet's marks while sessions are cut; no mark of the schema

#: how the client of a session is known: places in `schema.CLIENT_BY`
_BY_SYN, _BY_SYN_ACK, _BY_FIRST, _BY_PORT = 1, 2, 3, 4
_WELL_KNOWN: Final = 1024
_int: Any = np.int64


@njit(cache=True, nogil=True)
def follow(data: Any, packets: Any, ends: Any, starts: Any, cut: bool, window: int) -> int:
    """Mark the packets of all sessions; returns how many more sessions there are where TCP connections are parted.

    ``data`` uint8 ``[bytes]``, the capture; ``packets`` are the columns time, record, ip, payload_length, captured,
    direction, flags, sequence number, answer and marks, ``[packets]`` by 5-tuple in the file's order, as ``starts``
    int64 ``[sessions + 1]`` says; ``ends`` int64 ``[sessions]`` is the last word of their keys.  Marks are written;
    with ``cut`` the first packet of each further connection, too, for `cuts`.  A copy comes within ``window`` ns.
    """
    recent = np.full((_RECENT, _WAYS), -1, np.int64)  # the last packets with numbers like these, the latest first
    ahead, last, known = np.zeros(2, np.int64), np.zeros(2, np.int64), np.zeros(2, np.bool_)
    heard = np.zeros(2, np.int64)
    more = 0
    for one in range(len(ends)):
        begin, end = starts[one], starts[one + 1]
        if end - begin > 1:
            _copies(data, packets, begin, end, recent, window)
            if ends[one] >> 8 & 0xFF == _TCP:
                known[:] = False
                heard[:] = -1
                more += _connections(data, packets, begin, end, cut, (ahead, last, known, heard))
    return more


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _copies(data: Any, packets: Any, begin: int, end: int, recent: Any, window: int) -> None:
    """Mark what repeats a packet of the session among the last ones."""
    time, _, _, payload_length, _, direction, flags, sequence, answer, marks = packets
    for row in range(begin, end):
        # other factors than 1: the packet after one with payload begins where that ends
        place = (_int(sequence[row]) + 7 * _int(answer[row]) + 13 * _int(payload_length[row])) & (_RECENT - 1)
        for way in range(_WAYS):
            before = recent[place, way]
            if before < begin:
                break
            if (
                sequence[before] == sequence[row]
                and answer[before] == answer[row]
                and payload_length[before] == payload_length[row]
                and direction[before] == direction[row]
                and flags[before] == flags[row]
                and abs(time[row] - time[before]) <= window
                and _equal(data, packets, before, row)
            ):
                marks[row] |= MARK_COPY
                break
        for way in range(_WAYS - 1, 0, -1):
            recent[place, way] = recent[place, way - 1]
        recent[place, 0] = row


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _equal(data: Any, packets: Any, one: int, other: int) -> bool:
    """Whether two packets have the same bytes but for TTL and checksums."""
    _, record, ip_at, _, captured, _, _, _, _, _ = packets
    size = _int(captured[one])
    if size != captured[other]:
        return False
    a, b = record[one] + ip_at[one], record[other] + ip_at[other]
    version_4 = data[a] >> 4 == 4
    segment = transport_offset(data, a, size)
    tcp = segment < size and (data[a + 9] if version_4 else data[a + 6]) == _TCP
    checksum = segment + (16 if tcp else 6)
    for i in range(size):
        if data[a + i] != data[b + i]:
            hop = i == 8 or i == 10 or i == 11 if version_4 else i == 7
            if not hop and i != checksum and i != checksum + 1:
                return False
    return True


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _connections(data: Any, packets: Any, begin: int, end: int, cut: bool, sides: Any) -> int:
    """Mark retransmissions and keep-alives of one 5-tuple of TCP, and with ``cut`` where connections begin; how many.

    ``sides`` is what is known of both, all ``[2]``: the bytes of a side are ``known`` up to ``ahead``, since the row
    ``last``, and the row ``heard``, or -1, is the last that acknowledges some; what begins below ``ahead`` was sent
    before.  Copies are none.
    """
    time, record, ip_at, payload_length, captured, direction, flags, sequence, _, marks = packets
    ahead, last, known, heard = sides
    first, opened, closed, more = _int(0), False, False, 0
    for row in range(begin, end):
        if marks[row] & MARK_COPY:
            continue
        side, bits, number = (1 if direction[row] > 0 else 0), flags[row], _int(sequence[row])
        if bits & (_SYN | _ACK) == _SYN:
            if number != first or not opened:  # another connection: its numbers have nothing to do with those before
                known[:] = False
                heard[:] = -1
                if cut and closed:
                    marks[row] |= _BEGINS
                    more += 1
                    closed = False
            first, opened = number, True
        span = _int(payload_length[row]) + (1 if bits & _SYN else 0) + (1 if bits & _FIN else 0)
        if known[side]:
            behind = _distance(ahead[side], number)
            again = late = abs(time[row] - time[last[side]]) >= REORDERED
            if behind > 0 and not late and heard[side] >= 0:
                ip = record[heard[side]] + ip_at[heard[side]]
                acked = u32(data, ip + transport_offset(data, ip, _int(captured[heard[side]])) + 8)
                again = _distance(acked, number + span) >= 0
            marks[row] |= _sent_before(behind, span, bits, again, late and not flags[last[side]] & _FIN)
        if not bits & _RST and (not known[side] or _distance(number + span, ahead[side]) > 0):
            ahead[side], known[side] = (number + span) & 0xFFFFFFFF, True
            last[side] = row
        if bits & _ACK:
            heard[1 - side] = row
        closed = closed or bits & (_FIN | _RST) != 0
    return more


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _sent_before(behind: int, span: int, bits: int, again: bool, silent: bool) -> int:
    """The mark, by tshark's rules, of a packet of ``span`` numbers that begins ``behind`` the next one of its side.

    A keep-alive where it is the last byte or none, a retransmission where it was surely sent ``again`` (later than a
    packet that was overtaken would come, or acknowledged before), or ends where all ended before.  The last byte but
    one is a keep-alive, too, on a side that was ``silent`` and has not ended (tshark: a retransmission).
    """
    if span <= 1 and not bits & (_SYN | _FIN | _RST) and (behind == 1 or (behind == 2 and span == 1 and silent)):
        return MARK_KEEPALIVE
    return MARK_RETRANSMISSION if span > 0 and behind > 0 and (again or behind == span) else 0


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _distance(a: int, b: int) -> int:
    """How far sequence number ``a`` is ahead of ``b``, int64 within ±2**31; both may have wrapped."""
    apart = (a - b) & 0xFFFFFFFF
    return apart - (_int(1) << 32) if apart >> 31 else apart


@njit(cache=True, nogil=True)
def cuts(marks: Any, starts: Any, out: Any) -> None:
    """Write where sessions begin into ``out`` int64 ``[more sessions + 1]``, those that `follow` found among them; the
    bits that say so go.
    """
    one, found = 0, 0
    for row in range(len(marks)):
        begins = starts[one] == row
        one += begins
        if begins or marks[row] & _BEGINS:
            marks[row] &= _BEGINS - 1
            out[found] = row
            found += 1
    out[found] = len(marks)


@njit(cache=True, nogil=True)
def handshakes(flags: Any, direction: Any, ends: Any, starts: Any, forward: Any, known: Any) -> int:
    """Who opened each session: ``forward`` bool and ``known`` uint8 ``[sessions]``, 0 where no handshake tells.

    ``flags`` and ``direction`` ``[packets]`` are sorted by session, as ``starts`` says; ``ends`` int64 ``[sessions]``
    is the last word of their keys.  Returns how many sessions tell both ways.
    """
    contradictions = 0
    for one in range(len(ends)):
        opened, answered = 0, 0  # +1 where the lower end point did so first, -1 where the higher one
        both = False
        if ends[one] >> 8 & 0xFF == _TCP:
            for row in range(starts[one], starts[one + 1]):
                bits = flags[row] & (_SYN | _ACK)
                if bits == _SYN:
                    both = both or opened == -direction[row]
                    opened = opened if opened else direction[row]
                elif bits == _SYN | _ACK:
                    both = both or answered == -direction[row]
                    answered = answered if answered else direction[row]
        known[one] = _BY_SYN if opened else _BY_SYN_ACK if answered else 0
        forward[one] = (opened if opened else -answered) > 0
        contradictions += both or (opened != 0 and opened == answered)
    return contradictions


@njit(cache=True, nogil=True)
def clients(direction: Any, ends: Any, firsts: Any, by_port: bool, forward: Any, known: Any) -> None:
    """Who is the client where no handshake tells; completes what `handshakes` wrote.

    ``ends`` int64 ``[sessions]`` is the last word of the sessions' keys, ``firsts`` their first rows.
    """
    for one in range(len(known)):
        if known[one]:
            continue
        lower, higher = ends[one] >> 32 & 0xFFFF < _WELL_KNOWN, ends[one] >> 16 & 0xFFFF < _WELL_KNOWN
        if by_port and lower != higher:
            forward[one], known[one] = higher, _BY_PORT
        else:
            forward[one], known[one] = direction[firsts[one]] > 0, _BY_FIRST
