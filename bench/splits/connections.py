"""Connections that a split may have torn: what can be seen of them, between sessions of other 5-tuples.

A session is no connection.  QUIC goes on from another port or address (RFC 9000, section 9: migration, and a NAT that
binds anew), and where both sides of a NAT are captured every connection is two sessions; no proof by 5-tuples sees
either.  Three things give halves away, and each is counted: a connection ID of QUIC, equal payload, and a session that
begins in the middle of QUIC where another one with its server has just ended.  A connection may be torn without any,
and two of them are no proof: a device may say the same in two connections, and another one's may begin at that moment.

Only the first packets with payload of a session are looked at, and of these only what the capture holds.  What goes to
all on a network is no connection and left out.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.schema import (
    MARK_COPY,
    MARK_KEEPALIVE,
    MARK_RETRANSMISSION,
    Samples,
    SessionStore,
    by_capture,
    held_payload,
    numbered,
)
from bench.splits.filters import sent_to_all

PACKETS: Final = 8  # with payload, that are looked at of a session, among its first `WITHIN` (our choice, both)
WITHIN: Final = 32
LEAST_PACKETS: Final = 4  # with payload, and bytes of it, that two sessions must share to be halves (our choice, both)
LEAST_BYTES: Final = 512
TAIL: Final = 16  # bytes at the end of each payload that are compared before all of it is read
NEAR: Final = 2_000_000_000  # ns between the end of one half and the start of the other (our choice)

#: QUIC whose long headers are read, by its version, lowest and highest: 1, 2, drafts from 22 on, Google's from Q050 and
#: T050 on, Meta's.  Were any number taken, DNS would have long headers, too: it begins with a transaction's number
VERSIONS: Final = (
    (0x00000001, 0x00000001),
    (0x6B3343CF, 0x6B3343CF),
    (0xFF000016, 0xFF0000FF),
    (0x51303530, 0x51303539),
    (0x54303530, 0x54303539),
    (0xFACEB001, 0xFACEB00F),
)
RESERVED, RESERVED_BITS = 0x0A0A0A0A, 0x0F0F0F0F  # versions that only ask which ones there are (RFC 9000, 15)
FORM, LONG, SHORT = 0xC0, 0xC0, 0x40  # of a packet's first byte: the form of its header, and a bit that is set
LONGEST_ID: Final = 20  # bytes of a connection ID (RFC 9000, 17.2)
SHORTEST_ID: Final = 4  # bytes; shorter ones are equal by chance
SHORTEST_BARE: Final = 8  # bytes, in a short header: it does not say how long its ID is, so chance has more tries
HEAD: Final = 7 + 2 * LONGEST_ID  # bytes of a long header up to the end of its IDs

_UDP: Final = 17
_SEEN_BEFORE: Final = MARK_COPY | MARK_RETRANSMISSION | MARK_KEEPALIVE
_AT_ONCE: Final = 8192  # sessions whose bytes are picked together: it bounds memory

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
Bytes = NDArray[np.uint8]


class CapturedStore(SessionStore, Protocol):
    """What is needed of a store to look for halves (see ``bench.data.store``)."""

    def capture_group(self) -> NDArray[np.int32]:
        """The group of each session's capture, ``[sessions]``."""

    def capture_bytes(self, capture: int) -> Bytes:
        """The whole capture: uint8 ``[bytes]``.  Raises :class:`InputError` where it is gone or another one."""


def torn(store: CapturedStore, parts: Mapping[str, Samples]) -> dict[str, int]:
    """How many test samples are of a session that may be the other half of one in training, by how that is seen.

    ``quic_ids``: a QUIC connection ID of the one stands in the other.  ``equal_payloads``: the first packets of both
    carry the same bytes.  ``quic_continued``: one is QUIC, and the other begins at its server without a handshake,
    within `NEAR` of its end.  The two are always of other 5-tuples.  Raises :class:`InputError` where a capture is
    gone.
    """
    sessions = {name: np.unique(parts[name].session) for name in ("train", "test")}
    looked = _Sessions.of(store, np.union1d(sessions["train"], sessions["test"]))
    train = np.isin(looked.rows, sessions["train"])
    quic = _Quic.of(looked)
    halves = {
        "quic_ids": _sharing(quic.session, quic.number, looked.conversation, train),
        "equal_payloads": _of_equal_payload(looked, train),
        "quic_continued": _continued(looked, quic, train),
    }
    of_sample = parts["test"].session
    return {kind: int(np.isin(of_sample, looked.rows[marks]).sum()) for kind, marks in halves.items()}


@dataclass(frozen=True)
class _Sessions:
    """Some sessions and where the payload of their first packets lies; ``some`` are int64 positions in them."""

    store: CapturedStore
    rows: Rows  # [sessions], sorted
    conversation: Rows  # [sessions]
    at: Rows  # [sessions, PACKETS] of the payload in its capture, bytes
    size: Rows  # [sessions, PACKETS] how much of it the capture holds, bytes; 0 where there is no such packet

    @classmethod
    def of(cls, store: CapturedStore, rows: Rows) -> "_Sessions":
        """Those of ``rows [some]`` that have payload and are between two hosts."""
        ends = {name: np.asarray(store.session(name))[rows] for name in ("client_ip", "server_ip", "ip_version")}
        rows = rows[(np.asarray(store.session("payload_packets"))[rows] > 0) & ~sent_to_all(ends)]
        if not len(store.packet("record")):  # a table of sessions alone has nothing to look at
            rows = rows[:0]
        places = [_first_payloads(store, rows[i : i + _AT_ONCE]) for i in range(0, len(rows), _AT_ONCE)]
        none = np.zeros((0, PACKETS), np.int64)
        at, size = (np.concatenate([none, *(place[i] for place in places)]) for i in range(2))
        return cls(store, rows, np.asarray(store.session("conversation"))[rows].astype(np.int64), at, size)

    def column(self, name: str) -> NDArray[Any]:
        """A column of the store, ``[sessions]``."""
        return np.asarray(self.store.session(name))[self.rows]

    def end_points(self, end: str, some: Rows) -> Bytes:
        """Where the client or server of ``some`` is, in its capture group: uint8 ``[some, 22]``."""
        rows = self.rows[some]
        columns = [np.asarray(self.store.session(f"{end}_{name}"))[rows] for name in ("ip", "port")]
        columns.append(np.asarray(self.store.capture_group())[rows])
        parts = [np.ascontiguousarray(one).view(np.uint8).reshape(len(some), one.itemsize) for one in columns]
        return np.concatenate(parts, axis=1)

    def sizes(self, some: Rows) -> Rows:
        """How much payload packets have: int64 ``[some, PACKETS]``."""
        return self.size[some]

    def heads(self, some: Rows) -> Bytes:
        """How the payload of packets begins, zero beyond its end: uint8 ``[some, PACKETS, HEAD]``."""
        return self._picked(some, self.at[some], self.size[some], HEAD)

    def tails(self, some: Rows) -> Bytes:
        """How the payload of packets ends: uint8 ``[some, PACKETS * TAIL]``."""
        size = np.minimum(self.size[some], TAIL)
        tails = self._picked(some, self.at[some] + self.size[some] - size, size, TAIL)
        return tails.reshape(len(some), PACKETS * TAIL)

    def digests(self, some: Rows) -> Bytes:
        """BLAKE2 of the payload of each session's packets, and of its sizes: uint8 ``[some, 16]``."""
        out = np.zeros((len(some), 16), np.uint8)
        for data, part in self._by_capture(some):
            for one in part.tolist():
                at, size = self.at[some[one]], self.size[some[one]]
                state = hashlib.blake2b(size.tobytes(), digest_size=16)
                for begin, length in zip(at.tolist(), size.tolist(), strict=True):
                    state.update(data[begin : begin + length].tobytes())
                out[one] = np.frombuffer(state.digest(), np.uint8)
        return out

    def _picked(self, some: Rows, at: Rows, size: Rows, width: int) -> Bytes:
        """``size`` bytes from ``at`` on, but ``width`` at most, and zeros behind: uint8 ``[some, PACKETS, width]``."""
        out, place = np.zeros((*at.shape, width), np.uint8), np.arange(width)
        for data, part in self._by_capture(some):
            inside = place < size[part, :, None]
            out[part] = np.where(inside, data[np.where(inside, at[part, :, None] + place, 0)], 0)
        return out

    def _by_capture(self, some: Rows) -> Iterator[tuple[Bytes, Rows]]:
        """The bytes of each capture, and the places in ``some`` of its sessions, `_AT_ONCE` at most."""
        capture = self.column("capture")[some]
        for number, of_capture in by_capture(capture):
            data = np.asarray(self.store.capture_bytes(number))
            for i in range(0, len(of_capture), _AT_ONCE):
                yield data, of_capture[i : i + _AT_ONCE]


def _first_payloads(store: CapturedStore, rows: Rows) -> tuple[Rows, Rows]:
    """Where the payload of the first packets of sessions lies, and how much there is: as `_Sessions` has them."""
    first = np.asarray(store.session("first_packet"))[rows].astype(np.int64)[:, None]
    inside = np.arange(WITHIN) < np.asarray(store.session("packets"))[rows][:, None]
    packet = np.where(inside, first + np.arange(WITHIN), first)

    def column(name: str) -> Rows:
        return np.asarray(store.packet(name))[packet].astype(np.int64)

    new = inside & (column("payload_length") > 0) & (column("marks") & _SEEN_BEFORE == 0)
    chosen = np.argsort(~new, axis=1, kind="stable")[:, :PACKETS]  # packets that count, in their order, then others
    packet, new = np.take_along_axis(packet, chosen, axis=1), np.take_along_axis(new, chosen, axis=1)
    held = held_payload(column("captured"), column("payload"), column("payload_length"))
    return column("record") + column("ip") + column("payload"), np.where(new, held, 0)


def _sharing(session: Rows, number: Rows, conversation: Rows, train: Mask) -> Mask:
    """Which sessions have something that a training session of another conversation has, too: bool ``[sessions]``.

    Session ``session[i]`` has the thing ``number[i]``, both int64 ``[things]``; ``conversation`` int64 and ``train``
    are ``[sessions]``.
    """
    kinds = int(number.max(initial=-1)) + 1
    least, most = np.full(kinds, np.iinfo(np.int64).max), np.full(kinds, -1)  # conversation in training, by thing
    trained, own = train[session], conversation[session]
    np.minimum.at(least, number[trained], own[trained])
    np.maximum.at(most, number[trained], own[trained])
    others = (most[number] >= 0) & ((least[number] != own) | (most[number] != own))
    result = np.zeros(len(train), bool)
    result[session[others]] = True
    return result


# --- connection IDs -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Quic:
    """What the first packets of sessions show of QUIC."""

    session: Rows  # [IDs], positions in `_Sessions`
    number: Rows  # [IDs], equal where the IDs are
    shook: Mask  # [sessions] a long header is among the packets: a handshake
    amid: Mask  # [sessions] none is, and the first packet looks like a short header

    @classmethod
    def of(cls, looked: _Sessions) -> "_Quic":
        """Look at the first packets of the UDP sessions."""
        udp = np.flatnonzero(looked.column("protocol") == _UDP)
        heads = looked.heads(udp)
        packets, size, of_packet = heads.reshape(-1, HEAD), looked.size[udp].ravel(), np.repeat(udp, PACKETS)
        long, ids = _long_headers(packets, size)
        told = ids[:, 0] >= SHORTEST_ID
        bare, possible = _bare_ids(packets, size, np.unique(ids[told, 0]))
        session = of_packet[np.concatenate([long[told], bare])]
        number = numbered(np.concatenate([ids[told], possible]))
        known = np.isin(number, number[: told.sum()])  # of what short headers may have only what a long one has
        shook, amid = np.zeros((2, len(looked.rows)), bool)
        shook[of_packet[long]] = True
        amid[udp] = (heads[:, 0, 0] & FORM == SHORT) & ~shook[udp]
        return cls(session[known], number[known], shook, amid)


def _long_headers(heads: Bytes, size: Rows) -> tuple[Rows, Bytes]:
    """The IDs in QUIC's long headers: which packet has each, int64 ``[IDs]``, and uint8 ``[IDs, 1 + LONGEST_ID]``.

    An ID stands behind its length, which may be 0.  ``heads`` are uint8 ``[packets, HEAD]`` and ``size`` int64
    ``[packets]``, bytes.
    """
    version = np.ascontiguousarray(heads[:, 1:5]).view(">u4").ravel()
    known = version & RESERVED_BITS == RESERVED
    for low, high in VERSIONS:
        known |= (low <= version) & (version <= high)
    rows = np.flatnonzero((heads[:, 0] & FORM == LONG) & known)
    at = np.full(len(rows), 5)  # where the next ID's length stands
    found = []
    for _ in ("destination", "source"):
        length = heads[rows, at].astype(np.int64)
        fits = (length <= LONGEST_ID) & (at + length < size[rows])
        rows, at, length = rows[fits], at[fits], length[fits]
        found.append((rows, _cut(heads, rows, at + 1, length)))
        at = at + 1 + length
    of_packet, ids = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    whole = np.isin(of_packet, rows)  # a header whose second ID does not fit is none
    return of_packet[whole], ids[whole]


def _bare_ids(heads: Bytes, size: Rows, lengths: Bytes) -> tuple[Rows, Bytes]:
    """What may be IDs in QUIC's short headers, as `_long_headers` gives them: of all ``lengths``, uint8 ``[few]``."""
    short = np.flatnonzero(heads[:, 0] & FORM == SHORT)
    found = [(short[:0], np.zeros((0, 1 + LONGEST_ID), np.uint8))]
    for length in lengths[lengths >= SHORTEST_BARE].tolist():
        rows = short[size[short] > length]
        found.append((rows, _cut(heads, rows, np.ones_like(rows), np.full_like(rows, length))))
    of_packet, ids = zip(*found, strict=True)
    return np.concatenate(of_packet), np.concatenate(ids)


def _cut(heads: Bytes, rows: Rows, at: Rows, length: Rows) -> Bytes:
    """The IDs of ``length`` at ``at`` in ``heads[rows]``, behind their lengths: uint8 ``[rows, 1 + LONGEST_ID]``."""
    place = np.arange(LONGEST_ID)
    inside = place < length[:, None]
    ids = np.where(inside, heads[rows[:, None], np.where(inside, at[:, None] + place, 0)], 0)
    return np.concatenate([length[:, None], ids], axis=1).astype(np.uint8)


# --- equal payload --------------------------------------------------------------------------------------------


def _of_equal_payload(looked: _Sessions, train: Mask) -> Mask:
    """Which sessions begin with the payload of a training session of another conversation: bool ``[sessions]``.

    Sizes are compared first, then how each payload ends (where ciphers put their tags), and only then all of it.
    """
    enough = ((looked.size > 0).sum(axis=1) >= LEAST_PACKETS) & (looked.size.sum(axis=1) >= LEAST_BYTES)
    some = np.flatnonzero(enough)
    number = np.zeros_like(some)
    for keys in (looked.sizes, looked.tails, looked.digests):
        number = numbered(keys(some))
        shared = _sharing(np.arange(len(some)), number, looked.conversation[some], np.ones(len(some), bool))
        some, number = some[shared], number[shared]
    return _sharing(some, number, looked.conversation, train)


# --- another half at the same server --------------------------------------------------------------------------


def _continued(looked: _Sessions, quic: _Quic, train: Mask) -> Mask:
    """Which sessions go on where a training session ends, or the other way round: bool ``[sessions]``.

    The earlier one has a handshake of QUIC and the later one begins without; one of its end points is the earlier
    one's server, in the same capture group.
    """
    start = looked.column("start").astype(np.int64)
    end = start + looked.column("duration")
    before, after = np.flatnonzero(quic.shook), np.flatnonzero(quic.amid)
    ends = [("server", before), ("client", after), ("server", after)]  # a half may begin with a packet of its server
    number = numbered(np.concatenate([looked.end_points(name, some) for name, some in ends]))
    of_before, of_after, after = number[: len(before)], number[len(before) :], np.tile(after, 2)
    result = np.zeros(len(train), bool)
    for server in np.intersect1d(of_before, of_after):
        ended, began = before[of_before == server], after[of_after == server]
        ended = ended[np.argsort(end[ended], kind="stable")]
        low, high = (np.searchsorted(end[ended], start[began] + by) for by in (-NEAR, NEAR + 1))
        for one, first, last in zip(began.tolist(), low.tolist(), high.tolist(), strict=True):
            near = ended[first:last]
            near = near[(start[near] < start[one]) & (looked.conversation[near] != looked.conversation[one])]
            result[near] |= train[one]
            result[one] |= train[near].any()
    return result
