"""Column names, types and units of the session store, written once, and that their rows point inside.

A *packet* row is one TCP or UDP packet; rows are sorted by session and, within a session, by time
(equal times keep the capture's order).  A *session* row is one bidirectional 5-tuple of one capture.
Everything an experiment needs from the capture itself is addressed by the packet row, so the store
holds no traffic bytes.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

#: one row a packet; 35 bytes
PACKET_COLUMNS: Final[dict[str, np.dtype[Any]]] = {
    "time": np.dtype("int64"),  # ns since the Unix epoch, UTC
    "record": np.dtype("int64"),  # position of the record (its header) in the capture, bytes
    "length": np.dtype("uint32"),  # IP packet on the wire, bytes, as its header declares
    "payload_length": np.dtype("uint32"),  # TCP or UDP payload on the wire, bytes, as declared
    "captured": np.dtype("uint32"),  # bytes of the IP packet that the capture holds, from its first
    "ip": np.dtype("uint16"),  # from the record to the IP header, bytes
    "payload": np.dtype("uint16"),  # from the IP header to the payload, bytes
    "direction": np.dtype("int8"),  # +1 client to server, -1 server to client
    "flags": np.dtype("uint8"),  # TCP flags, 0 for UDP
    "marks": np.dtype("uint8"),  # what is remarkable of it: the sum of `MARK_…`
}

#: bits of a packet's ``marks``
MARK_COPY: Final = 1  # repeats a packet of its session within milliseconds, but for TTL and checksums
MARK_RETRANSMISSION: Final = 2  # TCP bytes that its side has sent before
MARK_KEEPALIVE: Final = 4  # the last byte once more, or none: only to hear an answer
MARK_FRAGMENT: Final = 8  # the first fragment of an IP packet, whose later ones are not read
MARK_TUNNELLED: Final = 16  # its outermost IP header carries a tunnel
MARK_BOUNDED: Final = 32  # of a flow record: its IP length or payload length is a bound, as no record tells headers

#: how a session's client is known, by the number in ``client_by``
CLIENT_BY: Final = ("", "SYN", "SYN-ACK", "first packet", "port", "record")

#: one row a session; see `CLIENT_BY` for who the client is
SESSION_COLUMNS: Final[dict[str, np.dtype[Any]]] = {
    "capture": np.dtype("int32"),  # row of the manifest's list of captures
    "conversation": np.dtype("int32"),  # same unordered 5-tuple, over all captures of the store
    "client_ip": np.dtype("S16"),  # network order; IPv4 in the first four bytes, rest zero
    "server_ip": np.dtype("S16"),
    "client_port": np.dtype("uint16"),
    "server_port": np.dtype("uint16"),
    "protocol": np.dtype("uint8"),  # 6 TCP, 17 UDP
    "ip_version": np.dtype("uint8"),  # 4 or 6
    "start": np.dtype("int64"),  # time of the first packet, ns since the Unix epoch
    "duration": np.dtype("int64"),  # ns
    "packets": np.dtype("int64"),
    "payload_packets": np.dtype("int64"),  # packets with at least one byte of declared payload
    "payload_bytes": np.dtype("int64"),
    "first_packet": np.dtype("int64"),  # row of the session's first packet
    "client_by": np.dtype("uint8"),  # place in `CLIENT_BY`
}

#: first four bytes of a file that ingest reads -> its format; here, so that files can be told apart without numba
CAPTURE_MAGICS: Final[dict[bytes, str]] = {
    bytes.fromhex("a1b2c3d4"): "pcap",  # µs, then ns, then the "modified" layout, each in both byte orders
    bytes.fromhex("d4c3b2a1"): "pcap",
    bytes.fromhex("a1b23c4d"): "pcap",
    bytes.fromhex("4d3cb2a1"): "pcap",
    bytes.fromhex("a1b2cd34"): "pcap",
    bytes.fromhex("34cdb2a1"): "pcap",
    bytes.fromhex("0a0d0d0a"): "pcapng",
}

NO_CLASS: Final = -1  # a session that a task does not use


def held_payload(captured: NDArray[Any], payload: NDArray[Any], payload_length: NDArray[Any]) -> NDArray[np.int64]:
    """How much payload of packets was captured, bytes, by these packet columns, int or uint: int64 ``[packets]``."""
    held: NDArray[np.int64] = np.clip(captured.astype(np.int64) - payload, 0, payload_length)
    return held


def is_cut(captured: NDArray[Any], payload: NDArray[Any], payload_length: NDArray[Any]) -> NDArray[np.bool_]:
    """Which packets lack payload that their headers declare, by these packet columns, int or uint: ``[packets]``."""
    cut: NDArray[np.bool_] = held_payload(captured, payload, payload_length) < payload_length
    return cut


def by_capture(capture: NDArray[Any], *then: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each capture's number, and the positions of what is of it: int64 ``[some]``, in the order of ``then``.

    ``capture`` and ``then`` are int ``[all]``; where ``then`` tells nothing positions stay in order.
    """
    order = np.lexsort((*then, capture))
    numbers, begins = np.unique(capture[order], return_index=True)
    yield from zip(numbers.tolist(), np.split(order, begins[1:]), strict=False)  # without a capture: one empty part


def numbered(table: NDArray[Any]) -> NDArray[np.int64]:
    """int64 ``[rows]``: equal rows of an int or uint ``[rows, columns]`` get equal numbers, from 0 on.

    Numbers follow the order of the rows' bytes.

    >>> numbered(np.array([[1, 2], [0, 2], [1, 2]], np.uint8)).tolist()
    [1, 0, 1]
    """
    if not len(table):
        return np.zeros(0, np.int64)
    # equally long byte strings compare like the rows: NumPy's stripped trailing zeros change nothing
    text = np.ascontiguousarray(table).view(f"S{table.itemsize * table.shape[1]}").ravel()
    return np.unique(text, return_inverse=True)[1].astype(np.int64)


@dataclass(frozen=True)
class Samples:
    """Windows of sessions: what a method classifies.  All arrays int64 ``[samples]``.

    ``session`` is a session row; ``first`` the window's first packet, counted from the session's
    own first packet; ``count`` its number of packets (all packets, with payload or without).
    Of the session's packets from ``first`` on, a window holds every ``stride``-th.
    """

    session: NDArray[np.int64]
    first: NDArray[np.int64]
    count: NDArray[np.int64]
    stride: int = 1

    def __len__(self) -> int:
        return len(self.session)

    def take(self, rows: NDArray[np.int64]) -> "Samples":
        """The samples at ``rows [some]``, in that order."""
        return replace(self, session=self.session[rows], first=self.first[rows], count=self.count[rows])


def drawn_order(size: int, seed: int) -> NDArray[np.int64]:
    """The numbers below ``size`` in an order drawn by a seed: int64 ``[size]``.

    Methods get samples in such an order, never in the store's: sorted by capture, a place would tell the class.
    """
    # from the bit generator: NumPy promises its stream, not that of `permutation`
    return np.argsort(np.random.PCG64(seed).random_raw(size), kind="stable")


def asked_in_drawn_order(samples: Samples, seed: int, ask: Callable[[Samples], NDArray[Any]]) -> NDArray[Any]:
    """What ``ask`` says, ``[samples, ...]`` of any dtype (int, float), of samples in a drawn order, put back."""
    order = drawn_order(len(samples), seed)
    said = ask(samples.take(order))
    back = np.empty_like(said)
    back[order] = said
    return back


@dataclass(frozen=True)
class StoreTraits:
    """What a method may know of a store before it runs: nothing that tells a label."""

    packets: int
    sessions: int
    link_types: tuple[str, ...]  # of the captures, each once, sorted
    lacks: Mapping[str, str] = field(default_factory=dict)  # of `bench.readers.READS`, what cannot be read -> why


class SessionStore(Protocol):
    """What samples and arrays need of a store at least (see ``bench.data.store``)."""

    @property
    def lacks(self) -> Mapping[str, str]:
        """What of `bench.readers.READS` it does not hold -> why."""

    @property
    def traits(self) -> "StoreTraits":
        """What methods may know of it."""

    def session(self, column: str) -> NDArray[Any]:
        """A column of `SESSION_COLUMNS`, int or uint ``[sessions]``."""

    def packet(self, column: str) -> NDArray[Any]:
        """A column of `PACKET_COLUMNS`, int or uint ``[packets]``."""


# --- columns that point somewhere: every row must point inside, for compiled code follows them without asking --
#
# A store is a file, which may be damaged, cut or made by somebody who means ill.  One pass over the sessions when they
# are opened, and one over a capture's packets when its bytes are first asked for, costs less than reading them does.

CHUNK: Final = 1 << 17  # rows looked at at once: what is computed of them stays in the processor's cache


def check_sessions(columns: Mapping[str, NDArray[Any]], packets: int, captures: int, tasks: Mapping[str, int]) -> None:
    """Hold the session columns, int ``[sessions]``, against what they point into.

    ``packets`` and ``captures`` are how many the store has, ``tasks`` the number of classes by column of labels.
    Raises ValueError with the column, the row and its value.
    """
    count, first = columns["packets"], columns["first_packet"]
    _check_range("packets", count, 0, packets)
    _check_range("first_packet", first, 0, packets)
    for begin in range(0, len(count), CHUNK):
        rows = slice(begin, begin + CHUNK)
        beyond = first[rows] > packets - count[rows]  # a sum of both may be too large for a number
        if beyond.any():
            row = begin + int(beyond.argmax())
            what = f"first_packet {first[row]} and packets {count[row]} of session {row}"
            raise ValueError(f"{what} lead beyond the {packets} packets of the store")
    _check_range("capture", columns["capture"], 0, captures - 1)
    _check_range("conversation", columns["conversation"], 0, len(count) - 1)
    for name, classes in tasks.items():
        _check_range(name, columns[name], NO_CLASS, classes - 1)


def _check_range(name: str, values: NDArray[Any], least: int, most: int) -> None:
    """Raises ValueError for a value, int ``[rows]``, outside of ``least`` to ``most``."""
    if len(values) and not (least <= values.min() and values.max() <= most):
        row = int(((values < least) | (values > most)).argmax())
        raise ValueError(f"{name} of session {row} is {values[row]}, must be {least} to {most}")


def check_packets(
    record: NDArray[np.int64],
    ip: NDArray[np.uint16],
    captured: NDArray[np.uint32],
    *,
    within: int,
    name: str,
    first: int = 0,
) -> None:
    """Hold the places of packets ``[rows]``, which begin at row ``first`` of the store, against a capture's bytes.

    Raises ValueError where one does not lie in the ``within`` bytes of the capture ``name``.
    """
    for begin in range(0, len(record), CHUNK):
        rows = slice(begin, begin + CHUNK)
        at = record[rows]
        # first the record alone: added up, a number that is too large would turn negative
        inside = (at >= 0) & (at <= within)
        inside &= np.where(inside, at, 0) + ip[rows] + captured[rows] <= within
        if not inside.all():
            row = begin + int((~inside).argmax())
            what = f"packet {first + row} (record {record[row]}, ip {ip[row]}, captured {captured[row]})"
            raise ValueError(f"{what} lies outside of {name}, which has {within} bytes")
