"""From packets in file order to sessions: a hash table of 5-tuples, then a linear sort by session and time.

A session is an unordered pair of (address, port) with protocol and IP version.  Both the table and the sort work in
place on columns, so that a capture of any size costs the index itself and at most 30 bytes a packet beside it.
"""

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bench.ingest.containers import BATCH
from bench.ingest.headers import KEY_WORDS

_int: Any = np.int64
Columns = dict[str, NDArray[Any]]

#: rows moved at once where a column is put in order; bounds what numpy's own index copies take
_CHUNK: Final = 1 << 16


class SessionTable:
    """Sessions met so far, numbered in order of first appearance."""

    def __init__(self) -> None:
        self.count = 0
        self._keys = np.empty((BATCH, KEY_WORDS), np.int64)
        self._slots = np.zeros(4 * BATCH, np.int32)  # 0 empty, else session + 1; a power of two, at most half full

    def number(self, keys: NDArray[np.int64], sessions: NDArray[np.int32]) -> None:
        """Write the session of each of at most BATCH keys, int64 ``[packets, 5]``, into ``sessions``."""
        most = self.count + len(keys)
        if most > len(self._keys):
            self._keys.resize((most + most // 4, KEY_WORDS), refcheck=False)
        if 2 * most > len(self._slots):
            self._slots = np.zeros(2 * len(self._slots), np.int32)
            _refill(self._keys[: self.count], self._slots)
        self.count = _number(keys, self._keys, self._slots, self.count, sessions)

    def close(self) -> NDArray[np.int64]:
        """The sessions' keys as `headers.decode` writes them, int64 ``[sessions, 5]``; the table takes no more."""
        self._slots = self._slots[:0].copy()
        self._keys.resize((self.count, KEY_WORDS), refcheck=False)
        return self._keys


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _hash(key: Any) -> int:
    """A well-mixed 63-bit number of a session key (multiply and fold, our choice)."""
    mixed = _int(0)
    for word in range(len(key)):
        mixed = (mixed ^ key[word]) * _int(-7046029254386353131)  # 2**64 / golden ratio, odd
        mixed ^= mixed >> 32
    return mixed & _int(0x7FFFFFFFFFFFFFFF)


@njit(cache=True, nogil=True)
def _number(keys: Any, known: Any, slots: Any, count: int, sessions: Any) -> int:
    """`SessionTable.number` with room for all; returns the sessions now known."""
    mask = len(slots) - 1
    for i in range(len(keys)):
        key = keys[i]
        slot = _hash(key) & mask
        while True:
            session = slots[slot] - 1
            if session < 0:
                session = count
                for word in range(len(key)):
                    known[count, word] = key[word]
                count += 1
                slots[slot] = count
                break
            other = known[session]
            if (
                other[0] == key[0]
                and other[4] == key[4]
                and other[2] == key[2]
                and other[1] == key[1]
                and other[3] == key[3]
            ):
                break
            slot = (slot + 1) & mask
        sessions[i] = session
    return count


@njit(cache=True, nogil=True)
def _refill(keys: Any, slots: Any) -> None:
    """Enter all sessions into empty slots."""
    mask = len(slots) - 1
    for session in range(len(keys)):
        slot = _hash(keys[session]) & mask
        while slots[slot]:
            slot = (slot + 1) & mask
        slots[slot] = session + 1


def sort_packets(packets: Columns, session: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Sort ``packets`` by session and time, in place; equal times keep their order.

    ``session`` int32 ``[packets]`` is consumed (resized to nothing).  Returns the sessions' first rows and the number
    of packets, int64 ``[sessions + 1]``.
    """
    starts = np.zeros(count + 1, np.int64)
    order = np.empty(len(session), np.uint32)
    _group(session, starts, order)
    session.resize(0, refcheck=False)
    late = np.zeros(count, np.bool_)
    _settle(packets["time"], starts, order, late)
    for one in np.flatnonzero(late):
        rows = order[starts[one] : starts[one + 1]]
        rank = np.argsort(packets["time"][rows], kind="stable")
        rows[:] = rows[rank]
    for name in packets:
        column, packets[name] = packets[name], np.empty_like(packets[name])
        for at in range(0, len(order), _CHUNK):
            np.take(column, order[at : at + _CHUNK], out=packets[name][at : at + _CHUNK], mode="clip")
    return starts


@njit(cache=True, nogil=True)
def _group(session: Any, starts: Any, order: Any) -> None:
    """Counting sort: ``order`` becomes the rows by session, ``starts`` where each session begins."""
    for row in range(len(session)):
        starts[session[row] + 1] += 1
    for one in range(1, len(starts)):
        starts[one] += starts[one - 1]
    for row in range(len(session)):
        order[starts[session[row]]] = row
        starts[session[row]] += 1
    for one in range(len(starts) - 1, 0, -1):
        starts[one] = starts[one - 1]
    starts[0] = 0


@njit(cache=True, nogil=True)
def _settle(time: Any, starts: Any, order: Any, late: Any) -> None:
    """Insertion sort of each session by time, which costs nothing where times never go back.

    A session that would take more than some moves a packet is left to a better sort and marked in ``late``.
    """
    for one in range(len(late)):
        moves = 16 * (starts[one + 1] - starts[one] + 16)
        for at in range(starts[one] + 1, starts[one + 1]):
            row, to = order[at], at
            while to > starts[one] and time[order[to - 1]] > time[row]:
                order[to] = order[to - 1]
                to -= 1
            order[to] = row
            moves -= at - to
            if moves < 0:
                late[one] = True
                break


def describe_sessions(
    packets: Columns, keys: NDArray[np.int64], starts: NDArray[np.int64], idle_timeout: float | None
) -> Columns:
    """The session columns (schema.SESSION_COLUMNS but ``capture`` and ``conversation``), ``[sessions]``, of packets.

    ``packets [packets]`` are sorted by session and time; ``keys [sessions, 5]`` are `headers.KEY_WORDS` of each,
    ``starts [sessions + 1]`` where its packets begin.
    Where a session is silent for more than ``idle_timeout`` seconds a new one begins; the parts of one conversation
    stand together.  Turns ``direction`` (+1 from the lower end point) into +1 from the client, in place.
    """
    if idle_timeout is not None:
        gaps = np.diff(packets["time"]) > round(idle_timeout * 1e9)
        firsts = np.union1d(starts[:-1], np.flatnonzero(gaps) + 1)
        # a gap between two sessions is no cut: their first rows are in `starts` already
        keys = keys[np.searchsorted(starts, firsts, side="right") - 1]
        starts = np.append(firsts, starts[-1])
    first, last = starts[:-1], starts[1:] - 1
    forward = packets["direction"][first] > 0
    packets["direction"] *= np.repeat(np.where(forward, np.int8(1), np.int8(-1)), np.diff(starts))
    lower, higher = _addresses(keys[:, 0:2]), _addresses(keys[:, 2:4])
    lower_port, higher_port = (keys[:, 4] >> 32).astype(np.uint16), (keys[:, 4] >> 16).astype(np.uint16)
    return {
        "client_ip": np.where(forward, lower, higher),
        "server_ip": np.where(forward, higher, lower),
        "client_port": np.where(forward, lower_port, higher_port),
        "server_port": np.where(forward, higher_port, lower_port),
        "protocol": (keys[:, 4] >> 8).astype(np.uint8),
        "ip_version": keys[:, 4].astype(np.uint8),
        "start": packets["time"][first],
        "duration": packets["time"][last] - packets["time"][first],
        "packets": np.diff(starts),
        "payload_packets": _total(packets["payload_length"] > 0, first),
        "payload_bytes": _total(packets["payload_length"], first),
        "first_packet": first.copy(),
    }


def _total(column: NDArray[Any], first: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums of a packet column over sessions that begin at rows ``first``."""
    if len(first) == 0:
        return np.zeros(0, np.int64)
    return np.add.reduceat(column, first, dtype=np.int64)


def _addresses(words: NDArray[np.int64]) -> NDArray[np.bytes_]:
    """Two big-endian words a row, int64 ``[sessions, 2]``, as the 16 bytes they are made of."""
    return words.astype(">i8").view("S16").reshape(-1)
