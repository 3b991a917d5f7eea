"""Which packets of a session make a sample: the whole session, or windows that start at a fixed step.

"Fixed-step sampling" means two things: Rezaei & Liu (2018) keep every l-th packet
(``window=45,stride=22,per_session=100``), TSCRNN puts starts at a fixed step and takes consecutive packets from there
(``window=16,step=2``).  ATVITSC says only that it samples a fixed number of packets at a fixed step.  Nothing here
knows a label or a part.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.errors import InputError
from bench.schema import Samples

SYNTAX: Final = "session, or window=16[,step=2][,stride=1][,per_session=10][,payload=no]"
_KEYS: Final = ("window", "step", "stride", "per_session", "payload")


class PacketStore(Protocol):
    """What windows need of a store (see ``bench.data.store``)."""

    def session(self, column: str) -> NDArray[Any]:
        """A column of ``schema.SESSION_COLUMNS``, ``[sessions]``."""

    def packet(self, column: str) -> NDArray[Any]:
        """A column of ``schema.PACKET_COLUMNS``, ``[packets]``."""


@dataclass(frozen=True)
class Sampling:
    """How sessions become samples.  All sizes in packets.

    With ``payload`` windows are counted over the packets with payload, as ATVITSC's are, and reach from their first
    to their last one; what lies between without payload belongs to them.  A stride counts all packets.
    """

    window: int | None = None  # None: the whole session is the sample
    step: int | None = None  # from one start to the next; None: no overlap
    stride: int = 1  # keep every so many-th packet
    per_session: int | None = None  # at most so many windows, the first ones (our choice)
    payload: bool = True

    @property
    def extent(self) -> int:
        """Packets from a window's first to its last."""
        return ((self.window or 1) - 1) * self.stride + 1

    @property
    def apart(self) -> int:
        """Packets from one start to the next."""
        return self.step or (self.window or 1) * self.stride

    def __str__(self) -> str:
        """The shortest text that :func:`parse_sampling` reads as this: equal texts, equal samplings."""
        if self.window is None:
            return "session"
        words = [f"window={self.window}"]
        words += [f"step={self.step}"] if self.apart != self.window * self.stride else []
        words += [f"stride={self.stride}"] if self.stride > 1 else []
        words += [f"per_session={self.per_session}"] if self.per_session else []
        return ",".join(words + (["payload=no"] if not self.payload and self.stride == 1 else []))


LARGEST: Final = 1_000_000  # packets of a window, a step or a stride


def parse_sampling(text: str) -> Sampling:
    """Read what the command line says.  Raises :class:`InputError` with the syntax for anything else."""
    if text == "session":
        return Sampling()
    words = [word.partition("=")[::2] for word in text.split(",")]
    given = dict(words)
    flag = given.pop("payload", None)
    digits = {
        name: value if value.isascii() and value.isdigit() and len(value) < 8 else "0" for name, value in given.items()
    }
    numbers = {name: int(value) for name, value in digits.items()}
    known = "window" in numbers and set(numbers) <= set(_KEYS) and len(words) == len(dict(words))
    sane = known and 1 <= min(numbers.values()) and max(numbers.values()) <= LARGEST
    if not sane or flag not in (None, "yes", "no"):
        raise InputError(f"sampling {text!r}: expected {SYNTAX}")
    strides = numbers.get("stride", 1) > 1
    if strides and flag == "yes":
        raise InputError(f"sampling {text!r}: a stride counts all packets; leave payload=yes out")
    return Sampling(**numbers, payload=flag != "no" and not strides)


def windows(sampling: Sampling, rows: NDArray[np.int64], store: PacketStore) -> Samples:
    """The samples of sessions ``rows``, in that order and by start.

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
    starts = np.where(number > 0, 1 + np.maximum(number - sampling.extent, 0) // sampling.apart, 0)
    if sampling.per_session is not None:
        starts = np.minimum(starts, sampling.per_session)
    of = np.repeat(np.arange(len(rows)), starts)
    first = (np.arange(len(of)) - np.repeat(np.cumsum(starts) - starts, starts)) * sampling.apart
    count = -(-np.minimum(number[of] - first, sampling.extent) // sampling.stride)
    if sampling.payload:
        start = lowest[of] + first
        first, count = places[start] - begin[of], places[start + count - 1] - places[start] + 1
    return Samples(rows[of], first, count, sampling.stride)


def window_keys(samples: Samples, packets: NDArray[Any]) -> NDArray[np.int64]:
    """Where each window begins when the store's sessions lie one after the other: int64 ``[samples]``, in packets."""
    length = np.asarray(packets, np.int64)
    return (np.cumsum(length) - length)[samples.session] + samples.first


def leaks(parts: Mapping[str, Samples], packets: NDArray[Any]) -> dict[str, int]:
    """Test samples that training has seen, by how; each number holds the ones before it.

    The very window; one that overlaps it, from first to last packet; one that overlaps it or is the next on either
    side, of all windows of its session in the split; one of its session.  ``packets`` are of the store's sessions.
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
