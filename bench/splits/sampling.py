"""Samples of sessions: whole, or as windows that start at a fixed step.  Nothing here knows a label or a part."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.schema import Samples, SessionStore
from bench.spec import Sampling


def windows(sampling: Sampling, rows: NDArray[np.int64], store: SessionStore) -> Samples:
    """The samples of sessions ``rows [some]``, in that order and by start.

    A session that is shorter than a window gives one, which readers pad; further ones start only where a whole window
    fits.  A session without any packet to count gives none.  Time and memory grow with packets and windows.
    """
    packets = np.asarray(store.session("packets"), np.int64)[rows]
    if sampling.window is None:
        return Samples(rows, np.zeros(len(rows), np.int64), packets)
    begin = np.asarray(store.session("first_packet"))[rows]
    lowest, number = begin, packets
    if sampling.payload:
        places = np.flatnonzero(np.asarray(store.packet("payload_length")))  # rows of the packets that count
        lowest = np.searchsorted(places, begin)
        number = np.searchsorted(places, begin + packets) - lowest
    starts = np.where(number > 0, 1 + np.maximum(number - sampling.extent, 0) // sampling.distance, 0)
    if sampling.per_session is not None:
        starts = np.minimum(starts, sampling.per_session)
    of = np.repeat(np.arange(len(rows)), starts)
    first = (np.arange(len(of)) - np.repeat(np.cumsum(starts) - starts, starts)) * sampling.distance
    count = -(-np.minimum(number[of] - first, sampling.extent) // sampling.stride)
    if sampling.payload:
        start = lowest[of] + first
        first, count = places[start] - begin[of], places[start + count - 1] - places[start] + 1
    return Samples(rows[of], first, count, sampling.stride)


def window_keys(samples: Samples, packets: NDArray[Any]) -> NDArray[np.int64]:
    """Where each window begins when the store's sessions lie one after the other: int64 ``[samples]``, in packets."""
    length = np.asarray(packets, np.int64)
    return (np.cumsum(length) - length)[samples.session] + samples.first


def count_shared_windows(parts: Mapping[str, Samples], packets: NDArray[Any]) -> dict[str, int]:
    """Test samples that training has seen, by how; each number holds the ones before it.

    The very window; one that overlaps it, from first to last packet; one that overlaps it or is the next on either
    side, of all windows of its session in the split; one of its session.  ``packets``, int ``[sessions]``, are the
    store's.
    """
    begins = {name: window_keys(part, packets) for name, part in parts.items()}
    train, test = begins["train"], begins["test"]
    ends = {name: begins[name] + (part.count - 1) * part.stride + 1 for name, part in parts.items()}
    same = np.isin(test, train)
    order = np.argsort(train)
    reach = np.maximum.accumulate(ends["train"][order])  # no window reaches into the next session
    before = np.searchsorted(train[order], ends["test"])  # training windows that begin before the test window ends
    overlapping = same | ((before > 0) & (reach[np.maximum(before - 1, 0)] > test))
    every, at = np.unique(np.concatenate(list(begins.values())), return_index=True)
    session = np.concatenate([part.session for part in parts.values()])[at]
    learned, place = np.isin(every, train), np.searchsorted(every, test)
    beside = overlapping.copy()
    for neighbour in (np.maximum(place - 1, 0), np.minimum(place + 1, len(every) - 1)):
        beside |= learned[neighbour] & (session[neighbour] == session[place])
    kinds = {"windows": same, "overlapping_windows": overlapping, "neighbours": beside}
    kinds["sessions"] = np.isin(parts["test"].session, parts["train"].session)
    return {f"test_in_training_{kind}": int(marks.sum()) for kind, marks in kinds.items()}
