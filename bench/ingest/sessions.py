"""From packets in file order to sessions: a hash table of 5-tuples, then a linear sort by session and time.

A session is an unordered pair of (address, port) with protocol and IP version.  Both the table and the sort work in
place on columns, so that a capture of any size costs the index itself and at most 30 bytes a packet beside it.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bench.ingest.containers import BATCH
from bench.ingest.headers import KEY_WORDS, VLAN_SHIFT
from bench.schema import SESSION_COLUMNS

_int: Any = np.int64
Columns = dict[str, NDArray[Any]]

#: rows moved at once where a column is put in order; bounds what numpy's own index copies take
_CHUNK: Final = 1 << 16
_LATE: Final = 2


class SessionTable:
    """Sessions met so far, numbered in order of first appearance.

    Keys are hashed under a number that each table draws: captures made so that their keys collide are read no slower.
    """

    def __init__(self) -> None:
        self.count = 0
        self._salt = int.from_bytes(os.urandom(8), "little", signed=True)
        self._keys = np.empty((BATCH, KEY_WORDS), np.int64)
        self._slots = np.zeros(4 * BATCH, np.int32)  # 0 empty, else session + 1; a power of two, at most half full

    def number(self, keys: NDArray[np.int64], sessions: NDArray[np.int32]) -> None:
        """Write the session of each of at most BATCH keys, int64 ``[packets, 5]``, into ``sessions``."""
        most = self.count + len(keys)
        if most > len(self._keys):
            self._keys.resize((most + most // 4, KEY_WORDS), refcheck=False)
        if 2 * most > len(self._slots):
            self._slots = np.zeros(2 * len(self._slots), np.int32)
            _refill(self._keys[: self.count], self._slots, self._salt)
        self.count = _number(keys, self._keys, self._slots, self.count, sessions, self._salt)

    def close(self) -> NDArray[np.int64]:
        """The sessions' keys as `headers.decode` writes them, int64 ``[sessions, 5]``; the table takes no more."""
        self._slots = self._slots[:0].copy()
        self._keys.resize((self.count, KEY_WORDS), refcheck=False)
        return self._keys


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _hash(key: Any, salt: int) -> int:
    """A well-mixed 63-bit number of a session key (multiply and fold, our choice)."""
    mixed = _int(salt)
    for word in range(len(key)):
        mixed = (mixed ^ key[word]) * _int(-7046029254386353131)  # 2**64 / golden ratio, odd
        mixed ^= mixed >> 32
    return mixed & _int(0x7FFFFFFFFFFFFFFF)


@njit(cache=True, nogil=True)
def _number(keys: Any, known: Any, slots: Any, count: int, sessions: Any, salt: int) -> int:
    """`SessionTable.number` with room for all; returns the sessions now known."""
    mask = len(slots) - 1
    for i in range(len(keys)):
        key = keys[i]
        slot = _hash(key, salt) & mask
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
def _refill(keys: Any, slots: Any, salt: int) -> None:
    """Enter all sessions into empty slots."""
    mask = len(slots) - 1
    for session in range(len(keys)):
        slot = _hash(keys[session], salt) & mask
        while slots[slot]:
            slot = (slot + 1) & mask
        slots[slot] = session + 1


def joined_vlans(keys: NDArray[np.int64], session: NDArray[np.int32]) -> NDArray[np.int64]:
    """Sessions by VLAN without those whose other direction has a tag: one session, as the tagged one.

    ``keys`` int64 ``[sessions, 5]`` with the VLAN above the ports; an untagged 5-tuple joins the tagged one where there
    is one VLAN alone.  Returns the keys that are left and changes ``session`` int32 ``[packets]`` in place.
    """
    bare = keys.copy()
    bare[:, 4] &= (1 << VLAN_SHIFT) - 1
    _, tuples = np.unique(bare, axis=0, return_inverse=True)
    tuples = tuples.ravel()
    tagged = keys[:, 4] != bare[:, 4]
    into = np.arange(len(keys))
    first = np.full(len(keys), -1, np.int64)  # the tagged session of a 5-tuple
    first[tuples[tagged]] = np.flatnonzero(tagged)
    alone = np.bincount(tuples[tagged], minlength=len(keys)) == 1
    joins = ~tagged & alone[tuples]
    into[joins] = first[tuples[joins]]
    kept, number = np.unique(np.minimum(into, _earliest(into)), return_inverse=True)
    session[:] = number.astype(np.int32)[session]
    return keys[kept]


def _earliest(into: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of sessions that become one, the number of the earliest, so that sessions stay in order of appearance."""
    first = np.full(len(into), len(into), np.int64)
    np.minimum.at(first, into, np.arange(len(into)))
    return first[into]


def group(session: NDArray[np.int32], count: int) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Where each of ``count`` sessions begins among rows put by session, int64 ``[sessions + 1]``, and these rows.

    ``session`` int32 ``[packets]`` is consumed (resized to nothing).  Rows are uint32 ``[packets]``, of a session in
    the order they have.
    """
    starts = np.zeros(count + 1, np.int64)
    order = np.empty(len(session), np.uint32)
    _group(session, starts, order)
    session.resize(0, refcheck=False)
    return starts, order


def gather(packets: Columns, order: NDArray[np.uint32]) -> None:
    """Put the columns of ``packets`` in the order of their rows ``order`` uint32 ``[packets]``."""
    for name in packets:
        column = packets[name]
        packets[name] = np.empty(len(order), column.dtype)
        for at in range(0, len(order), _CHUNK):
            np.take(column, order[at : at + _CHUNK], out=packets[name][at : at + _CHUNK], mode="clip")


def without(packets: Columns, starts: NDArray[np.int64], marks: int) -> NDArray[np.int64]:
    """Take packets that have one of the ``marks`` (bits) out of ``packets [packets]``.

    ``starts`` int64 ``[sessions + 1]`` is where sessions begin; returns the same for what is left.
    A session's first packet repeats nothing, so that no session is lost.
    """
    kept = packets["marks"] & marks == 0
    for name in packets:
        packets[name] = packets[name][kept]
    begins = np.zeros(len(starts), np.int64)
    begins[1:] = np.cumsum(kept)[starts[1:] - 1]
    return begins


def sort_by_time(packets: Columns, starts: NDArray[np.int64]) -> int:
    """Sort the packets of each session by time; equal times keep the file's order.

    ``starts`` int64 ``[sessions + 1]`` is where sessions begin.  Returns how many were not in that order.
    """
    moved = np.zeros(len(starts) - 1, np.uint8)
    if not _out_of_order(packets["time"], starts, moved):
        return 0
    order = np.arange(len(packets["time"]), dtype=np.uint32)
    _settle(packets["time"], starts, order, moved)
    for one in np.flatnonzero(moved == _LATE):
        rows = order[starts[one] : starts[one + 1]]
        rank = np.argsort(packets["time"][rows], kind="stable")
        rows[:] = rows[rank]
    gather(packets, order)
    return int(np.count_nonzero(moved))


@njit(cache=True, nogil=True)
def _out_of_order(time: Any, starts: Any, moved: Any) -> bool:
    """Mark in ``moved`` the sessions in which times go back; whether there is one."""
    found = False
    for one in range(len(moved)):
        for row in range(starts[one] + 1, starts[one + 1]):
            if time[row] < time[row - 1]:
                moved[one] = 1
                found = True
                break
    return found


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
def _settle(time: Any, starts: Any, order: Any, moved: Any) -> None:
    """Insertion sort by time of each session that is marked in ``moved``.

    One that would take more than some moves a packet is left to a better sort and marked `_LATE`.
    """
    for one in range(len(moved)):
        if not moved[one]:
            continue
        moves = 16 * (starts[one + 1] - starts[one] + 16)
        for at in range(starts[one] + 1, starts[one + 1]):
            row, to = order[at], at
            while to > starts[one] and time[order[to - 1]] > time[row]:
                order[to] = order[to - 1]
                to -= 1
            order[to] = row
            moves -= at - to
            if moves < 0:
                moved[one] = _LATE
                break


class SessionColumns(Mapping[str, NDArray[Any]]):
    """The session columns (schema.SESSION_COLUMNS but ``capture`` and ``conversation``), ``[sessions]``.

    A column is made when it is asked for: all of them take more than all that they are made from.
    """

    def __init__(
        self,
        packets: Columns,
        keys: NDArray[np.int64],
        starts: NDArray[np.int64],
        forward: NDArray[np.bool_],
        client_by: NDArray[np.uint8],
    ) -> None:
        """Keep what columns are made from.

        ``packets [packets]`` are sorted by session and time, ``keys [sessions, 5]`` are `headers.KEY_WORDS` of each,
        ``starts [sessions + 1]`` where its packets begin, ``forward [sessions]`` whether the client is the lower end
        point, ``client_by [sessions]`` how that is known.
        """
        self._packets, self._keys, self._starts = packets, keys, starts
        self._forward, self._client_by = forward, client_by

    def __getitem__(self, name: str) -> NDArray[Any]:
        """A column."""
        dtype = SESSION_COLUMNS[name]
        return np.ascontiguousarray(self._column(name), dtype)

    def __iter__(self) -> Iterator[str]:
        """The names of the columns."""
        return (name for name in SESSION_COLUMNS if name not in ("capture", "conversation"))

    def __len__(self) -> int:
        """How many columns there are."""
        return len(SESSION_COLUMNS) - 2

    def _column(self, name: str) -> NDArray[Any]:
        first, last, ends = self._starts[:-1], self._starts[1:] - 1, self._keys[:, 4]
        if name in ("client_ip", "server_ip"):
            lower, higher = _addresses(self._keys[:, 0:2]), _addresses(self._keys[:, 2:4])
            return np.where(self._forward == (name == "client_ip"), lower, higher)
        if name in ("client_port", "server_port"):
            return np.where(self._forward == (name == "client_port"), ends >> 32 & 0xFFFF, ends >> 16 & 0xFFFF)
        if name in ("payload_packets", "payload_bytes"):
            lengths = self._packets["payload_length"]
            return _total(lengths > 0 if name == "payload_packets" else lengths, first)
        time = self._packets["time"]
        if name == "duration":
            return time[last] - time[first]
        columns: dict[str, NDArray[Any]] = {"first_packet": first, "client_by": self._client_by}
        columns |= {"protocol": ends >> 8 & 0xFF, "ip_version": ends & 0xFF}
        if name in columns:
            return columns[name]
        return time[first] if name == "start" else np.diff(self._starts)


def _total(column: NDArray[Any], first: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums of a packet column over sessions that begin at rows ``first``."""
    if len(first) == 0:
        return np.zeros(0, np.int64)
    return np.add.reduceat(column, first, dtype=np.int64)


def _addresses(words: NDArray[np.int64]) -> NDArray[np.bytes_]:
    """Two big-endian words a row, int64 ``[sessions, 2]``, as the 16 bytes they are made of."""
    return words.astype(">i8").view("S16").reshape(-1)
