"""Sessions of several records: those of one 5-tuple of a capture, which the exporter's time-outs cut.

Works on columns of any size by chunks of whole sessions, so that packets may lie in memory maps.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Columns = dict[str, NDArray[Any]]
Ints = NDArray[np.int64]

CHUNK: Final = 1 << 18  # packets put in order at once


@dataclass(frozen=True)
class Joined:
    """Which records make which session."""

    records: Ints  # session after session, by start: [records]
    begins: Ints  # where each session begins in `records`, and the end of the last: [sessions + 1]

    @property
    def first(self) -> Ints:
        """The earliest record of each session: int64 ``[sessions]``."""
        return self.records[self.begins[:-1]]

    @property
    def session(self) -> Ints:
        """The session of each of `records`: int64 ``[records]``."""
        return np.repeat(np.arange(len(self.begins) - 1), np.diff(self.begins))


def join(key: Ints, start: Ints) -> Joined:
    """Records with one key as one session; sessions in the order in which their first records stand.

    ``key`` and ``start``, in ns, are int64 ``[records]``.

    >>> join(np.array([7, 3, 7]), np.array([5, 0, 2])).records.tolist()
    [2, 0, 1]
    """
    place = np.arange(len(key))
    _, number = np.unique(key, return_inverse=True)
    earliest = np.full(number.max(initial=-1) + 1, len(key), np.int64)
    np.minimum.at(earliest, number, place)
    records = np.lexsort((place, start, earliest[number]))
    begins = np.flatnonzero(np.diff(earliest[number[records]], prepend=-1))
    return Joined(records, np.append(begins, len(key)).astype(np.int64))


def joined_packets(
    packets: Mapping[str, NDArray[Any]], first: Ints, sizes: Ints, turned: NDArray[np.bool_], joined: Joined
) -> Iterator[tuple[Columns, Ints]]:
    """The packets of the joined sessions by session and time, int or uint ``[packets]``, and how many each session has,
    int64 ``[sessions]``, chunk by chunk.

    ``first`` and ``sizes`` ``[records]`` say where each record's packets stand, ``turned`` whether its source is the
    other's: its directions are turned.
    """
    per_session = np.add.reduceat(sizes[joined.records], joined.begins[:-1]) if len(joined.records) else sizes
    chunk = np.cumsum(per_session) // CHUNK
    for sessions in np.split(np.arange(len(per_session)), np.flatnonzero(np.diff(chunk)) + 1):
        if not len(sessions):
            return
        records = joined.records[joined.begins[sessions[0]] : joined.begins[sessions[-1] + 1]]
        count = sizes[records]
        rows = np.arange(count.sum()) + np.repeat(first[records] - np.cumsum(count) + count, count)
        columns = {name: np.asarray(column[rows]) for name, column in packets.items()}
        columns["direction"] = np.where(np.repeat(turned[records], count), -columns["direction"], columns["direction"])
        sort_by_time(columns, per_session[sessions])
        yield columns, per_session[sessions]


def sort_by_time(packets: Columns, sizes: Ints) -> int:
    """Sort packets, int or uint ``[packets]``, of sessions of ``sizes``, by time; equal times stay in order.

    Returns how many sessions were not in that order.
    """
    session = np.repeat(np.arange(len(sizes)), sizes)
    back = (np.diff(packets["time"]) < 0) & (np.diff(session) == 0)
    if not back.any():
        return 0
    order = np.lexsort((packets["time"], session))
    for name in packets:
        packets[name] = packets[name][order]
    return len(np.unique(session[1:][back]))


def sums(packets: Mapping[str, NDArray[Any]], sizes: Ints) -> Columns:
    """What sessions of ``sizes`` packets are in all: columns of `schema.SESSION_COLUMNS`, int ``[sessions]``."""
    if not len(sizes):
        return {}
    first = np.cumsum(sizes) - sizes
    time, payload = packets["time"], packets["payload_length"].astype(np.int64)
    return {
        "start": time[first],
        "duration": time[first + sizes - 1] - time[first],
        "payload_packets": np.add.reduceat((payload > 0).astype(np.int64), first),
        "payload_bytes": np.add.reduceat(payload, first),
    }
