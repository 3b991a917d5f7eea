"""Arrays from the session store: the only code that reads captures.

A method gets a :class:`View`: it refuses what the method has not declared, records what is used, and holds
no label.  Every row of every array depends on its own sample alone.  Importing this module is light;
numba is imported with the first array.
"""

import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import DTypeLike, NDArray

from bench.errors import InputError
from bench.files import writing
from bench.schema import Samples, SessionStore, by_capture

if TYPE_CHECKING:
    from bench.ingest import packet_bytes

#: what a method can declare in ``reads``, and what it means
READS: Final = {
    "payload": "captured TCP or UDP payload bytes",
    "payload_lengths": "payload length of each packet as its headers declare it, bytes",
    "lengths": "IP packet length of each packet as its header declares it, bytes",
    "directions": "+1 for packets of the client (sender of the session's first packet), -1 for the server's",
    "times": "seconds since the window's first kept packet; never absolute time",
    "flags": "TCP flags of each packet, 0 for UDP",
    "ip_bytes": "captured bytes from the IP header on (also TTL, IP id, TCP sequence numbers and options)",
    "ports": "client and server port, apart or within ip_bytes",
    "protocol": "6 TCP, 17 UDP",
    "addresses": "IP addresses within ip_bytes, and IPv6 flow labels, which are made from them",
    "checksums": "checksums of the IPv4, TCP and UDP headers within ip_bytes (they reveal masked fields)",
}

MASKS: Final = ("addresses", "ports", "checksums")

#: larger arrays live in an unlinked temporary file (in TMPDIR), whose space is free again with the array
SPILL_BYTES = 2 << 30

#: reader name -> packet column, dtype
_SERIES: Final[dict[str, tuple[str, DTypeLike]]] = {
    "lengths": ("length", np.int32),
    "payload_lengths": ("payload_length", np.int32),
    "directions": ("direction", np.int8),
    "flags": ("flags", np.uint8),
    "times": ("time", np.float64),
}
CHUNK_BYTES, CHUNK_ROWS = 16 << 20, 1 << 14  # that are copied at once, of rows of equal and of unequal length
_CAPTURED: Final = "captured_lengths"
_VALUES: Final[dict[str, tuple[str, DTypeLike]]] = {**_SERIES, _CAPTURED: ("captured", np.int32)}


@dataclass(frozen=True)
class Ragged:
    """Rows of unequal length: row ``s`` is ``values[offsets[s]:offsets[s + 1]]``.

    Counts and picks rows as an array does: ``len(ragged)``, ``ragged[rows]``.
    """

    values: NDArray[Any]  # [N, ...]
    offsets: NDArray[np.int64]  # [S + 1]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Values of each row: int64 ``[S]``."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The row of each value: int64 ``[N]``."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def __getitem__(self, rows: Any) -> "Ragged":
        """The rows that an integer or boolean array or a slice picks."""
        begin = self.offsets[:-1][rows]
        sizes = self.offsets[1:][rows] - begin
        offsets = offsets_of(sizes)
        return Ragged(self.values[np.arange(offsets[-1]) + np.repeat(begin - offsets[:-1], sizes)], offsets)


def offsets_of(sizes: NDArray[Any]) -> NDArray[np.int64]:
    """Where rows of these sizes begin and end when they lie one after the other: int64 ``[S + 1]``."""
    return np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)


class PacketStore(SessionStore, Protocol):
    """What a view needs of a store (see ``bench.data.store``)."""

    def capture_bytes(self, capture: int) -> NDArray[np.uint8]:
        """The whole capture: uint8 ``[bytes]``."""


class UndeclaredRead(Exception):
    """A method read something that its ``reads`` do not name: an error in the method."""


class NotHeld(InputError):
    """A method read something that the store does not hold: it cannot run there, through no fault of its own."""


class View:
    """The samples' packets, as far as ``reads`` allows; ``used`` collects the names that were read.

    ``S`` is the number of samples.  Packets beyond a window's end are zero in every array.  With
    ``payload_only`` the packets without payload are left out before the first ``packets`` are taken.  The packets of
    samples with a stride are every stride-th of the session's, and no reader sees those between.

    No attribute leads to the store, which knows labels, captures and groups; the reader of the store is kept elsewhere.
    """

    def __init__(self, store: PacketStore, samples: Samples, reads: Iterable[str]) -> None:
        declared = frozenset(reads)
        if unknown := sorted(declared - set(READS)):
            raise ValueError(f"unknown read {unknown[0]!r}; there are: {', '.join(READS)}")
        _BEHIND[self] = _Packets(store, samples)
        _BEHIND[self].declared = declared

    def __len__(self) -> int:
        return len(_BEHIND[self])

    @property
    def reads(self) -> frozenset[str]:
        """What the method declared."""
        return _BEHIND[self].declared

    @property
    def used(self) -> frozenset[str]:
        """The declared names that were read."""
        return frozenset(_BEHIND[self].used)

    @property
    def packets_read(self) -> NDArray[np.int64]:
        """The largest number of packets that one reader took of each sample, int64 ``[S]``: what a budget counts."""
        return _BEHIND[self].read.copy()

    def payload(self, packets: int, bytes: int) -> NDArray[np.uint8]:
        """First captured payload bytes of the first packets with payload: uint8 ``[S, packets, bytes]``."""
        self._declare("payload")
        behind = _BEHIND[self]
        out = behind.copied_payload(behind.apart(packets, payload_only=True), _positive("bytes", bytes), packets)
        return out.reshape(len(self), packets, bytes)

    def ip_bytes(
        self, packets: int, bytes: int, *, mask: Iterable[str] = MASKS, payload_only: bool = False
    ) -> NDArray[np.uint8]:
        """Captured bytes from the IP header on, masked fields zero: uint8 ``[S, packets, bytes]``.

        Addresses, ports and checksums that ``mask`` does not name count as read.  IPv4 source routes and IPv6
        routing headers are not masked.
        """
        hide, behind = self._masked(mask), _BEHIND[self]
        out = behind.copied_ip(behind.apart(packets, payload_only), _positive("bytes", bytes), hide, packets)
        return out.reshape(len(self), packets, bytes)

    def payload_stream(self, bytes: int, packets: int | None = None) -> NDArray[np.uint8]:
        """First captured payload bytes, packet after packet: uint8 ``[S, bytes]``, of the first ``packets`` if given.

        Packets are those with payload; at most ``bytes`` of them are looked at.
        """
        self._declare("payload")
        behind = _BEHIND[self]
        return behind.copied_payload(behind.stream(bytes, packets, payload_only=True), bytes)

    def ip_stream(self, bytes: int, packets: int | None = None, *, mask: Iterable[str] = MASKS) -> NDArray[np.uint8]:
        """First captured bytes from the IP headers on, one packet after the other: uint8 ``[S, bytes]``."""
        hide, behind = self._masked(mask), _BEHIND[self]
        return behind.copied_ip(behind.stream(bytes, packets, payload_only=False), bytes, hide)

    def payload_lengths(self, packets: int, *, payload_only: bool = True) -> NDArray[np.int32]:
        """Declared payload lengths, bytes: int32 ``[S, packets]``, at most 2**31 - 1."""
        return self._series("payload_lengths", packets, payload_only)

    def lengths(self, packets: int, *, payload_only: bool = False) -> NDArray[np.int32]:
        """IP packet lengths on the wire, bytes: int32 ``[S, packets]``, at most 2**31 - 1."""
        return self._series("lengths", packets, payload_only)

    def captured_lengths(self, packets: int, *, payload_only: bool = False) -> NDArray[np.int32]:
        """Bytes of each packet from the IP header on that the capture holds: int32 ``[S, packets]``.

        Behind them `ip_bytes` has zeros that no packet sent.
        """
        self._declare("ip_bytes")
        return _BEHIND[self].series(_CAPTURED, packets, payload_only)

    def directions(self, packets: int, *, payload_only: bool = False) -> NDArray[np.int8]:
        """+1 client to server, -1 server to client: int8 ``[S, packets]``."""
        return self._series("directions", packets, payload_only)

    def times(self, packets: int, *, payload_only: bool = False) -> NDArray[np.float64]:
        """Seconds since the window's first kept packet: float64 ``[S, packets]``."""
        return self._series("times", packets, payload_only)

    def flags(self, packets: int, *, payload_only: bool = False) -> NDArray[np.uint8]:
        """TCP flags, 0 for UDP: uint8 ``[S, packets]``."""
        return self._series("flags", packets, payload_only)

    def ragged(self, column: str, *, packets: int | None = None, payload_only: bool = False) -> Ragged:
        """All kept packets of a column, or the first ``packets`` of each sample.

        ``column`` is lengths, payload_lengths, directions, times or flags; dtypes and units as there.  Raises
        ValueError for another one.
        """
        if column not in _SERIES:
            raise ValueError(f"unknown column {column!r}; there are: {', '.join(_SERIES)}")
        self._declare(column)
        behind = _BEHIND[self]
        kept = behind.kept(payload_only)
        offsets = offsets_of(kept if packets is None else np.minimum(kept, _positive("packets", packets)))
        first = np.repeat(offsets[:-1], np.diff(offsets))
        return Ragged(behind.values(column, behind.select(offsets, payload_only), first), offsets)

    def counts(self, *, payload_only: bool = False) -> NDArray[np.int32]:
        """Kept packets of each window: int32 ``[S]``.  Needs no declaration."""
        return _BEHIND[self].kept(payload_only).astype(np.int32)

    def ports(self) -> NDArray[np.int32]:
        """Client and server port: int32 ``[S, 2]``."""
        self._declare("ports")
        sides = [_BEHIND[self].of_session(f"{side}_port") for side in ("client", "server")]
        return np.stack(sides, axis=1).astype(np.int32)

    def protocol(self) -> NDArray[np.uint8]:
        """6 TCP, 17 UDP: uint8 ``[S]``."""
        self._declare("protocol")
        return _BEHIND[self].of_session("protocol")

    def _series(self, name: str, packets: int, payload_only: bool) -> NDArray[Any]:
        self._declare(name)
        return _BEHIND[self].series(name, packets, payload_only)

    def _declare(self, *names: str) -> None:
        behind = _BEHIND[self]
        for name in names:
            if name not in self.reads:
                declared = ", ".join(sorted(self.reads)) or "nothing"
                raise UndeclaredRead(f"{name!r} is read but not declared: add it to reads (declared: {declared})")
            behind.check_held(name)
        behind.used.update(names)

    def _masked(self, mask: Iterable[str]) -> tuple[bool, bool, bool]:
        """Which of `MASKS` to hide; the others count as read, as do the bytes."""
        mask = frozenset(mask)
        if unknown := sorted(mask - set(MASKS)):
            raise ValueError(f"unknown mask {unknown[0]!r}; there are: {', '.join(MASKS)}")
        self._declare("ip_bytes", *(name for name in MASKS if name not in mask))
        return "addresses" in mask, "ports" in mask, "checksums" in mask


class _Packets:
    """What lies behind a view: where its samples' packets stand in the store, and what copies them out."""

    def __init__(self, store: PacketStore, samples: Samples) -> None:
        packets = np.asarray(store.session("packets"))
        if len(samples) and not (0 <= samples.session.min() and samples.session.max() < len(packets)):
            raise IndexError(f"a sample's session is outside the store's {len(packets)} sessions")
        if samples.stride < 1 or (len(samples) and (samples.first.min() < 0 or samples.count.min() < 0)):
            raise IndexError("a sample's window begins before its session or has a negative count or no stride")
        self._store = store
        self._lacks = store.lacks
        self._session = samples.session
        self._begin = np.asarray(store.session("first_packet"))[samples.session] + samples.first
        self._stride = samples.stride
        left = -(-(packets[samples.session] - samples.first) // samples.stride)  # packets that the session still has
        self._count = np.clip(left, 0, samples.count)
        self.read = np.zeros(len(samples), np.int64)  # see `View.packets_read`
        self.declared: frozenset[str] = frozenset()
        self.used: set[str] = set()

    def __len__(self) -> int:
        return len(self._session)

    def check_held(self, name: str) -> None:
        """Raises NotHeld where the store cannot tell what is read."""
        if name in self._lacks:
            raise NotHeld("not-held", f"needs {name}, which the data set does not hold: {self._lacks[name]}")

    def stream(self, bytes: int, packets: int | None, payload_only: bool) -> Ragged:
        """Packet rows of each sample, for one place a sample."""
        limit = min(_positive("bytes", bytes), bytes if packets is None else _positive("packets", packets))
        offsets = offsets_of(np.minimum(self.kept(payload_only), limit))
        return Ragged(self.select(offsets, payload_only), offsets)

    def apart(self, packets: int, payload_only: bool) -> Ragged:
        """Packet rows of each sample, -1 beyond the window, for a place of its own each."""
        rows = self.rows(packets, payload_only).reshape(-1)
        return Ragged(rows, np.arange(len(rows) + 1))

    def copied_payload(self, rows: Ragged, bytes: int, each: int = 1) -> NDArray[np.uint8]:
        """Captured payload at the places of ``rows``, ``each`` of them a sample: uint8 ``[places, bytes]``."""
        from bench.ingest import packet_bytes as kernels

        columns = self.columns()
        out = zeros((len(rows), bytes))
        for data, places in self.each_capture(each):
            kernels.copy_payload(data, places, _rows_of(rows, places), columns, out)
        return out

    def copied_ip(self, rows: Ragged, bytes: int, hide: tuple[bool, bool, bool], each: int = 1) -> NDArray[np.uint8]:
        """As `copied_payload`, from the IP header on, with hidden fields."""
        from bench.ingest import packet_bytes as kernels
        from bench.ingest.headers import transport_offsets

        columns, protocol = self.columns(), np.repeat(self.of_session("protocol"), each)
        out = zeros((len(rows), bytes))
        for data, places in self.each_capture(each):
            picked = _rows_of(rows, places)
            kept = picked.values >= 0
            begin, size, transport = np.zeros((3, len(kept)), np.int64)
            begin[kept] = columns.record[picked.values[kept]] + columns.ip[picked.values[kept]]
            size[kept] = np.minimum(columns.captured[picked.values[kept]], len(data) - begin[kept])
            transport_offsets(data, begin, size, transport)
            segments = kernels.Segments(transport, _constant(protocol[places]))
            kernels.copy_ip(data, places, picked, columns, segments, kernels.Mask(*hide), out)
        return out

    def columns(self) -> "packet_bytes.Columns":
        """The columns that say where a packet's bytes lie."""
        from bench.ingest.packet_bytes import Columns

        return Columns(*(self.packet(name) for name in Columns._fields))

    def packet(self, column: str) -> NDArray[Any]:
        return _constant(self._store.packet(column))

    def of_session(self, column: str) -> NDArray[Any]:
        return np.asarray(self._store.session(column))[self._session]

    def kept(self, payload_only: bool) -> NDArray[np.int64]:
        if not payload_only:
            return self._count
        self.check_held("payload_lengths")
        from bench.ingest import packet_bytes as kernels

        out = np.empty(len(self), np.int64)
        kernels.count_payload(self._begin, self._count, self._stride, self.packet("payload_length"), out)
        return out

    def rows(self, packets: int, payload_only: bool) -> NDArray[np.int64]:
        """Packet rows int64 ``[S, packets]``, -1 beyond the window."""
        packets = _positive("packets", packets)
        return self.select(np.arange(len(self) + 1) * packets, payload_only).reshape(len(self), packets)

    def select(self, offsets: NDArray[np.int64], payload_only: bool) -> NDArray[np.int64]:
        from bench.ingest import packet_bytes as kernels

        if payload_only:
            self.check_held("payload_lengths")
        rows = zeros((int(offsets[-1]),), np.int64)
        lengths = self.packet("payload_length")
        kernels.select(self._begin, self._count, self._stride, lengths, payload_only, offsets, rows)
        some = np.flatnonzero(np.diff(offsets))  # the samples that have a place
        if len(some):
            taken = np.add.reduceat(rows >= 0, offsets[some], dtype=np.int64)
            self.read[some] = np.maximum(self.read[some], taken)
        return rows

    def series(self, name: str, packets: int, payload_only: bool) -> NDArray[Any]:
        rows = self.rows(packets, payload_only)
        first = np.arange(len(self)) * packets
        return self.values(name, rows.reshape(-1), np.repeat(first, packets)).reshape(rows.shape)

    def values(self, name: str, rows: NDArray[np.int64], first: NDArray[np.int64]) -> NDArray[Any]:
        """Column ``name`` of ``rows [N]``, 0 for -1; ``first [N]`` is where a row's window begins in ``rows``."""
        column, dtype = _VALUES[name]
        values, out = self.packet(column), zeros(rows.shape, dtype)
        kept = rows >= 0
        if name == "times":
            # subtract in whole nanoseconds: a double holds an absolute time to some 200 ns only
            out[kept] = (values[rows[kept]] - values[rows[first[kept]]]) * 1e-9
        else:
            taken = values[rows[kept]]
            if taken.dtype == np.uint32:  # only a header that lies counts so much; it must not turn negative
                np.minimum(taken, np.iinfo(np.int32).max, out=taken)
            out[kept] = taken
        return out

    def each_capture(self, each: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """Each capture's bytes, uint8, and the places of its samples, int64; a sample has ``each`` places.

        One after the other: memory decides the speed, and threads gained nothing in measurements (two cores).
        """
        capture = self.of_session("capture")
        for number, samples in by_capture(capture, self._begin):  # forwards through the file, whatever their order
            places = (samples[:, None] * each + np.arange(each)).reshape(-1)
            yield _constant(self._store.capture_bytes(number)), places


#: what reads the store, by view
_BEHIND: Final[WeakKeyDictionary[View, _Packets]] = WeakKeyDictionary()


def _rows_of(rows: Ragged, places: NDArray[np.int64]) -> "packet_bytes.Rows":
    """The rows of some places, as kernels take them."""
    from bench.ingest.packet_bytes import Rows

    picked = rows[places]
    return Rows(picked.values, picked.offsets)


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise InputError("bad-parameter", f"{name}={value}: nothing to read; set {name} to 1 or more")
    return value


def _constant(array: NDArray[Any]) -> NDArray[Any]:
    """`array` as a contiguous read-only one, so that a kernel is compiled once for store, memory map and test."""
    constant = np.ascontiguousarray(array).view(np.ndarray)
    constant.flags.writeable = False
    return constant


def zeros(shape: tuple[int, ...], dtype: DTypeLike = np.uint8) -> NDArray[Any]:
    """An array ``[...]`` of zeros (int, float or bool), in a temporary file where it is larger than `SPILL_BYTES`."""
    if int(np.prod(shape)) * np.dtype(dtype).itemsize <= SPILL_BYTES:
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile(prefix="bench-") as file:  # has no name any more; the map keeps it alive
        if hasattr(os, "posix_fallocate"):  # where there is no room is told now, not by SIGBUS
            with writing(Path(tempfile.gettempdir())):
                os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        return np.memmap(file, dtype, "w+", shape=shape)


def gathered(pieces: Sequence[tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]], size: int) -> NDArray[Any]:
    """Rows of arrays ``[N, ...]`` of one dtype (int, float or bool) in one ``[size, ...]``.

    A piece is an array, the places in the whole, int64 ``[some]``, and the rows there, int64 ``[some]``.
    """
    first = pieces[0][0]
    out = zeros((size, *first.shape[1:]), first.dtype)
    for values, places, rows in pieces:
        for some in chunks(out, len(places)):
            out[places[some]] = values[rows[some]]
    return out


def gathered_ragged(pieces: Sequence[tuple[Ragged, NDArray[np.int64], NDArray[np.int64]]], size: int) -> Ragged:
    """As :func:`gathered`, of rows of unequal length: values ``[N, ...]``, int, float or bool, of ``size`` rows."""
    sizes = np.zeros(size, np.int64)
    for values, places, rows in pieces:
        sizes[places] = values.sizes[rows]
    offsets, first = offsets_of(sizes), pieces[0][0].values
    out = zeros((int(offsets[-1]), *first.shape[1:]), first.dtype)
    for values, places, rows in pieces:
        for start in range(0, len(places), CHUNK_ROWS):
            some = slice(start, start + CHUNK_ROWS)
            taken, begin = values[rows[some]], offsets[places[some]]
            out[np.arange(len(taken.values)) + np.repeat(begin - taken.offsets[:-1], taken.sizes)] = taken.values
    return Ragged(out, offsets)


def chunks(array: NDArray[Any], rows: int) -> Iterator[slice]:
    """Slices over so many rows like those of an array ``[N, ...]`` (int, float or bool), of some MiB each."""
    step = max(1, CHUNK_BYTES // max(1, array.itemsize * math.prod(array.shape[1:])))
    return (slice(begin, begin + step) for begin in range(0, rows, step))
