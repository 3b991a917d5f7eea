"""What is changed of test samples: each change, what of `bench.readers.READS` it touches, and how it is made.

Draws are alike for all packets and windows of a session where a network would have them so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.errors import InputError
from bench.stress.sampled import PacketBytes, SampledStore, big_endian
from bench.stress.server_names import mask_server_names

LARGEST: Final = 1500  # bytes of an IP packet up to which padding goes: Ethernet's
MOST: Final = 255  # bytes of random padding: Dyer and others, IEEE S&P 2012
LOSSES: Final = (0.01, 0.05, 0.1)
_PACKETS: Final = frozenset({"payload", "payload_lengths", "lengths", "directions", "times", "flags", "ip_bytes"})
_PADDED: Final = frozenset({"payload", "payload_lengths", "lengths", "ip_bytes"})
_TIMESTAMPS: Final = 8  # the TCP option: RFC 7323
_LONGEST: Final = 60  # bytes of a TCP header

Draw = np.random.Generator


@dataclass(frozen=True)
class Change:
    """One change.  ``make`` gets the samples and a generator of its own."""

    name: str
    touches: frozenset[str]  # of `READS`; a method that reads none of them answers alike
    make: Callable[[SampledStore, Draw], SampledStore]


def changes(multiple: int = 128) -> list[Change]:
    """All changes; ``multiple``, bytes, is what packet lengths are padded to.

    Raises :class:`InputError` for a multiple that pads nothing.
    """
    if not 2 <= multiple <= LARGEST:
        raise InputError("bad-options", f"--pad {multiple}: give a number of bytes from 2 to {LARGEST}")
    checksums = frozenset({"checksums"})
    return [
        Change("ports random", checksums | {"ports"}, random_ports),
        Change("addresses random", checksums | {"addresses"}, random_addresses),
        Change("other header fields shifted", frozenset({"ip_bytes"}), shifted_fields),
        Change("server names masked", frozenset({"payload", "ip_bytes"}), masked_names),
        Change(f"padding to multiples of {multiple} bytes", _PADDED, partial(padded_to, multiple=multiple)),
        Change(f"padding of 0 to {MOST} bytes", _PADDED, randomly_padded),
        *(Change(f"{share:.0%} of packets lost", _PACKETS, partial(lossy, share=share)) for share in LOSSES),
    ]


def random_ports(store: SampledStore, draw: Draw) -> SampledStore:
    """Both ports of each session anew, 1 to 65535."""
    ports = store.drawn(draw, 65535, 2) + 1

    def edit(packets: PacketBytes) -> None:
        client, server = ports[packets.sample].T
        sent = packets.direction > 0
        for place, numbers in ((0, np.where(sent, client, server)), (2, np.where(sent, server, client))):
            packets.write(packets.transport + place, big_endian(numbers, 2), sent | ~sent)

    changed = store.with_sessions(client_port=ports[:, 0], server_port=ports[:, 1])
    return changed.edited(edit).edited(_random_checksums(draw))


def random_addresses(store: SampledStore, draw: Draw) -> SampledStore:
    """Both addresses of each session anew, and of IPv6 the flow label, which is made from them."""
    drawn = store.drawn(draw, 256, 2 * 16 + 3).astype(np.uint8)

    def edit(packets: PacketBytes) -> None:
        values, start = drawn[packets.sample], np.zeros(len(packets.sample), np.int64)
        sent = (packets.direction > 0)[:, None]
        client, server = values[:, :16], values[:, 16:32]
        source, target = np.where(sent, client, server), np.where(sent, server, client)
        four = packets.ip_version == 4
        packets.write(start + 12, source[:, :4], four)
        packets.write(start + 16, target[:, :4], four)
        packets.write(start + 8, source, ~four)
        packets.write(start + 24, target, ~four)
        label = values[:, 32:].astype(np.int64)
        label[:, 0] = packets.read(start + 1, 1) & 0xF0 | label[:, 0] & 0x0F
        packets.write(start + 1, label.astype(np.uint8), ~four)

    return store.edited(edit).edited(_random_checksums(draw))


def shifted_fields(store: SampledStore, draw: Draw) -> SampledStore:
    """Type of service, TTL, IP id, TCP's sequence and acknowledgement numbers, window and timestamps, each shifted.

    To each field of a session one number is added, modulo the field's size: differences within the session stay.
    Sequence and acknowledgement numbers are shifted alike.  Of IPv6 it is traffic class and hop limit.
    """
    shifts = store.drawn(draw, 1 << 32, 6)

    def edit(packets: PacketBytes) -> None:
        service, life, number, sequence, window, stamp = shifts[packets.sample].T
        start, at = np.zeros(len(packets.sample), np.int64), packets.transport
        four, tcp = packets.ip_version == 4, packets.protocol == 6
        _add(packets, start + 1, 1, service, four)
        _add(packets, start + 8, 1, life, four)
        _add(packets, start + 4, 2, number, four)
        _add(packets, start, 2, (service & 0xFF) << 4, ~four, 0x0FF0)
        _add(packets, start + 7, 1, life, ~four)
        _add(packets, at + 4, 4, sequence, tcp)
        _add(packets, at + 8, 4, sequence, tcp)
        _add(packets, at + 14, 2, window, tcp)
        option = _timestamps(packets)
        _add(packets, option + 2, 4, stamp, option > 0)
        _add(packets, option + 6, 4, stamp, option > 0)

    return store.edited(edit).edited(_random_checksums(draw))


def masked_names(store: SampledStore, draw: Draw) -> SampledStore:
    """Names of servers in TLS ClientHellos as zeros."""
    return store.edited(mask_server_names)


def padded_to(store: SampledStore, draw: Draw, multiple: int) -> SampledStore:
    """Packets with payload as long as the next multiple, bytes, of IP; never beyond `LARGEST`."""
    length = store.packets["length"].astype(np.int64)
    return _padded(store, -length % multiple, draw)


def randomly_padded(store: SampledStore, draw: Draw) -> SampledStore:
    """Packets with payload longer by 0 to `MOST` bytes, drawn for each; never beyond `LARGEST`."""
    return _padded(store, draw.integers(0, MOST + 1, len(store.sample)), draw)


def _padded(store: SampledStore, more: NDArray[np.int64], draw: Draw) -> SampledStore:
    room = np.maximum(LARGEST - store.packets["length"].astype(np.int64), 0)
    more = np.where(store.packets["payload_length"] > 0, np.minimum(more, room), 0)
    return store.padded(more, int(draw.integers(1 << 62)))


def lossy(store: SampledStore, draw: Draw, share: float) -> SampledStore:
    """Without packets that a capture would have lost, each with the probability ``share``.

    A sample that would lose all keeps its first one: of nothing no capture tells.
    """
    keep = draw.random(len(store.sample)) >= share
    left = np.bincount(store.sample, keep, minlength=len(store.origin))
    first = np.flatnonzero(np.diff(store.sample, prepend=-1))
    keep[first[left[store.sample[first]] == 0]] = True
    return store.kept(keep)


def _random_checksums(draw: Draw) -> Callable[[PacketBytes], None]:
    """Checksums would tell what the fields were."""
    seed = int(draw.integers(1 << 62))

    def edit(packets: PacketBytes) -> None:
        number = len(packets.sample)
        values = np.random.default_rng(seed).integers(0, 256, (2, number, 2), np.uint8)
        tcp = packets.protocol == 6
        packets.write(np.full(number, 10), values[0], packets.ip_version == 4)
        packets.write(packets.transport + np.where(tcp, 16, 6), values[1], tcp | ~tcp)

    return edit


def _add(
    packets: PacketBytes,
    at: NDArray[np.int64],
    bytes: int,
    shift: NDArray[np.int64],
    where: NDArray[np.bool_],
    mask: int = -1,
) -> None:
    """Add to the bits ``mask`` of a field, modulo their size; a field that was not captured whole stays."""
    mask &= (1 << 8 * bytes) - 1
    where = where & (at + bytes <= packets.size)
    old = packets.read(at, bytes)
    packets.write(at, big_endian(old & ~mask | old + (shift & mask) & mask, bytes), where)


def _timestamps(packets: PacketBytes) -> NDArray[np.int64]:
    """Where TCP's option of timestamps stands, from the IP header: int64 ``[packets]``, 0 where there is none."""
    transport, found = packets.transport, np.zeros(len(packets.sample), np.int64)
    end = np.minimum(transport + (packets.read(transport + 12, 1) >> 4) * 4, packets.size)
    at = transport + 20
    looking = (packets.protocol == 6) & (at + 10 <= end)
    for _ in range(_LONGEST - 20):
        kind, size = packets.read(at, 1), packets.read(at + 1, 1)
        here = looking & (kind == _TIMESTAMPS) & (size == 10)
        found[here] = at[here]
        at = at + np.where(kind == 1, 1, np.maximum(size, 2))
        looking &= ~here & (kind != 0) & (at + 10 <= end)
        if not looking.any():
            break
    return found
