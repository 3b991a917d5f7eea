"""The packets of some samples as a store of their own, which a view reads as any other, and in which they can change.

Each sample is a session, its packets are the window's.  Nothing else of the store is there: no label, no capture that
the samples are not of.  Unchanged, a view of it reads what a view of the store reads of the samples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from bench.readers import PacketStore
from bench.schema import PACKET_COLUMNS, Samples, StoreTraits
from bench.spec import named_seed

Rows = NDArray[np.int64]

SESSIONS: Final = ("capture", "protocol", "ip_version", "client_port", "server_port")  # what a view, or a change, reads
ADDED: Final = ("added", "padding")  # bytes that a packet's headers declare more, and that stand there for them
STEP: Final = 1 << 24  # bytes that are copied at once


@dataclass(frozen=True)
class PacketBytes:
    """Captured IP packets of one capture, for a change: ``data`` is written to, all else int64 ``[packets]``."""

    data: NDArray[np.uint8]  # packet after packet, from their IP headers on
    begin: Rows  # of each packet in it
    size: Rows  # captured bytes, padding included
    transport: Rows  # of the TCP or UDP header, from the IP header; `size` where it was not captured
    payload: Rows  # of the payload, from the IP header
    payload_length: Rows  # as declared, padding included
    direction: Rows
    marks: Rows
    added: Rows  # bytes of padding that are declared
    protocol: Rows
    ip_version: Rows
    sample: Rows

    def write(self, at: Rows, values: NDArray[np.uint8], where: NDArray[np.bool_]) -> None:
        """Put bytes ``values [packets, bytes]`` at ``at [packets]`` from the IP headers of packets ``where``.

        Of what was not captured nothing is written.
        """
        for number in range(values.shape[1]):
            there = where & (at + number < self.size)
            self.data[(self.begin + at + number)[there]] = values[there, number]

    def read(self, at: Rows, bytes: int) -> Rows:
        """The numbers of so many bytes, big-endian, at ``at [packets]``: int64 ``[packets]``; not captured is 0."""
        out = np.zeros(len(at), np.int64)
        for number in range(bytes):
            there = at + number < self.size
            out[there] = out[there] << 8 | self.data[(self.begin + at + number)[there]]
        return out


Edit = Callable[[PacketBytes], None]


@dataclass(frozen=True, eq=False)
class SampledStore:
    """See the module.  ``samples`` of a view of it are `SampledStore.samples`."""

    source: PacketStore
    origin: Rows  # [samples] session rows of the source: windows of one session change alike
    sessions: Mapping[str, NDArray[Any]]  # `SESSIONS`, [samples]
    sample: Rows  # [packets] ascending
    packets: Mapping[str, NDArray[Any]]  # `PACKET_COLUMNS` of the source and `ADDED`, [packets], some changed
    edits: tuple[Edit, ...] = ()
    seed: int = 0  # of the bytes of padding
    lacks: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, store: PacketStore, samples: Samples) -> Self:
        """The samples of a store, in their order."""
        left = -(-(np.asarray(store.session("packets"))[samples.session] - samples.first) // samples.stride)
        count = np.clip(left, 0, samples.count)
        sample = np.repeat(np.arange(len(samples)), count)
        place = np.arange(len(sample)) - np.repeat(np.cumsum(count) - count, count)
        begin = np.asarray(store.session("first_packet"))[samples.session] + samples.first
        rows = begin[sample] + place * samples.stride
        sessions = {name: np.asarray(store.session(name))[samples.session] for name in SESSIONS}
        packets = {name: np.asarray(store.packet(name))[rows] for name in PACKET_COLUMNS}
        packets |= {name: np.zeros(len(rows), np.int64) for name in ADDED}
        return cls(store, samples.session, sessions, sample, packets, lacks=store.lacks)

    @property
    def samples(self) -> Samples:
        """Every session of it, whole."""
        number = len(self.origin)
        return Samples(np.arange(number), np.zeros(number, np.int64), self._counts)

    @property
    def traits(self) -> StoreTraits:
        """What methods may know of it."""
        return replace(self.source.traits, packets=len(self.sample), sessions=len(self.origin))

    def drawn(self, draw: np.random.Generator, below: int, number: int) -> Rows:
        """Numbers below a limit for each sample, alike for windows of one session: int64 ``[samples, number]``."""
        sessions, place = np.unique(self.origin, return_inverse=True)
        return np.asarray(draw.integers(0, below, (len(sessions), number))[place], np.int64)

    def with_sessions(self, **columns: NDArray[Any]) -> "SampledStore":
        """The same with other session columns ``[samples]``, in the types that they have."""
        own = {name: values.astype(self.sessions[name].dtype) for name, values in columns.items()}
        return replace(self, sessions={**self.sessions, **own})

    def edited(self, edit: Edit) -> "SampledStore":
        """The same, with bytes that ``edit`` changes once more."""
        return replace(self, edits=(*self.edits, edit))

    def kept(self, keep: NDArray[np.bool_]) -> "SampledStore":
        """The same with the packets that ``keep [packets]`` says."""
        packets = {name: values[keep] for name, values in self.packets.items()}
        return replace(self, sample=self.sample[keep], packets=packets)

    def padded(self, more: Rows, seed: int) -> "SampledStore":
        """The same with so many more random bytes ``[packets]`` of payload in each packet, as headers declare, too.

        A packet that the capture cut becomes longer without having more bytes.
        """
        packets, kinds = self.packets, PACKET_COLUMNS
        whole = packets["captured"] == packets["payload"].astype(np.int64) + packets["payload_length"]
        longer = {name: (packets[name] + more).astype(kinds[name]) for name in ("length", "payload_length")}
        longer |= {"added": packets["added"] + more, "padding": packets["padding"] + np.where(whole, more, 0)}
        return replace(self, packets={**packets, **longer}, seed=seed).edited(_declare_lengths)

    # --- what a view reads ---------------------------------------------------------------------------------------

    def session(self, column: str) -> NDArray[Any]:
        """One of `SESSIONS`, "packets" or "first_packet", int or uint ``[samples]``."""
        if column == "packets":
            return self._counts
        return np.cumsum(self._counts) - self._counts if column == "first_packet" else self.sessions[column]

    def packet(self, column: str) -> NDArray[Any]:
        """A column of `PACKET_COLUMNS`, int or uint ``[packets]``."""
        if column in ("record", "captured", "ip"):
            return self._places[column]
        return self.packets[column]

    def capture_bytes(self, capture: int) -> NDArray[np.uint8]:
        """The changed packets of a capture, one behind the other: uint8 ``[bytes]``."""
        rows = self._order[slice(*np.searchsorted(self._captures, (capture, capture + 1)))]
        begin, size = self._places["record"][rows], self._places["captured"][rows].astype(np.int64)
        total = int(size.sum())
        draw = np.random.default_rng(named_seed(self.seed, "padding", capture))
        padding = self.packets["padding"][rows]
        data = draw.integers(0, 256, total, np.uint8) if padding.any() else np.zeros(total, np.uint8)
        source = self.source.capture_bytes(capture)
        start = self.packets["record"][rows] + self.packets["ip"][rows].astype(np.int64)
        _copy(source, start, size - padding, data, begin)
        if self.edits:
            packets = self._packet_bytes(data, rows, begin, size)
            for edit in self.edits:
                edit(packets)
        return data

    def _packet_bytes(self, data: NDArray[np.uint8], rows: Rows, begin: Rows, size: Rows) -> PacketBytes:
        from bench.ingest.headers import transport_offsets

        transport, seen = np.zeros(len(rows), np.int64), data.view()
        seen.flags.writeable = False  # as readers do: compiled once
        transport_offsets(seen, begin, size, transport)
        names = ("payload", "payload_length", "direction", "marks", "added")
        columns = {name: self.packets[name][rows].astype(np.int64) for name in names}
        sample = self.sample[rows]
        columns |= {name: self.sessions[name][sample].astype(np.int64) for name in ("protocol", "ip_version")}
        return PacketBytes(data, begin, size, transport, **columns, sample=sample)

    @cached_property
    def _counts(self) -> Rows:
        return np.bincount(self.sample, minlength=len(self.origin)).astype(np.int64)

    @cached_property
    def _order(self) -> Rows:
        """Packets by capture."""
        return np.argsort(self.sessions["capture"][self.sample], kind="stable")

    @cached_property
    def _captures(self) -> NDArray[Any]:
        """The capture of each packet, in that order."""
        return np.asarray(self.sessions["capture"][self.sample[self._order]])

    @cached_property
    def _places(self) -> dict[str, NDArray[Any]]:
        """Where each packet begins in the bytes of its capture, and how many bytes it has there."""
        captured = self.packets["captured"] + self.packets["padding"]
        ends = np.cumsum(captured[self._order])
        first = np.searchsorted(self._captures, self._captures)  # of the packet's capture, in order
        begin = ends - captured[self._order]
        record = np.empty(len(captured), np.int64)
        record[self._order] = begin - begin[first]
        kinds = PACKET_COLUMNS
        return {
            "record": record,
            "captured": captured.astype(kinds["captured"]),
            "ip": np.zeros(len(captured), kinds["ip"]),
        }


def _copy(source: NDArray[np.uint8], start: Rows, size: Rows, data: NDArray[np.uint8], begin: Rows) -> None:
    """Copy ``size`` bytes of each packet ``[packets]`` from ``start`` in the source to ``begin`` in ``data``."""
    cuts = np.searchsorted(np.cumsum(size), np.arange(0, max(int(size.sum()), 1), STEP), "left").tolist()
    for first, last in zip(cuts, [*cuts[1:], len(size)], strict=True):
        some = slice(first, last)
        inner = np.arange(size[some].sum()) - np.repeat(np.cumsum(size[some]) - size[some], size[some])
        data[np.repeat(begin[some], size[some]) + inner] = source[np.repeat(start[some], size[some]) + inner]


def _declare_lengths(packets: PacketBytes) -> None:
    """Let the headers say how long IP packets and UDP datagrams are."""
    longer = packets.added > 0
    four, udp = packets.ip_version == 4, packets.protocol == 17
    declared = packets.payload + packets.payload_length
    everywhere = np.zeros(len(four), np.int64)
    packets.write(everywhere + 2, big_endian(declared, 2), longer & four)
    packets.write(everywhere + 4, big_endian(declared - 40, 2), longer & ~four)
    packets.write(packets.transport + 4, big_endian(declared - packets.transport, 2), longer & udp)


def big_endian(numbers: Rows, bytes: int) -> NDArray[np.uint8]:
    """Numbers ``[packets]`` as uint8 ``[packets, bytes]``, the highest byte first."""
    return np.stack([numbers >> 8 * (bytes - 1 - n) & 0xFF for n in range(bytes)], axis=1).astype(np.uint8)
