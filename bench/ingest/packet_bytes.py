"""Compiled loops over packets and groups.  Importing this module imports numba: do so inside functions.

All kernels release the GIL, write into arrays that the caller allocated and check no bounds:
:mod:`bench.readers` sees to it that samples are in range, and :mod:`bench.data.store` that sessions and packets are.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

_TCP = 6
_UDP = 17


class Rows(NamedTuple):
    """Packet rows of places: those of place ``i`` are ``values[offsets[i]:offsets[i + 1]]``; a row below 0 is none."""

    values: NDArray[np.int64]
    offsets: NDArray[np.int64]


class Columns(NamedTuple):
    """Packet columns, by row (`schema.PACKET_COLUMNS`)."""

    record: NDArray[np.int64]
    ip: NDArray[np.uint16]
    captured: NDArray[np.uint32]
    payload: NDArray[np.uint16]
    payload_length: NDArray[np.uint32]


class Segments(NamedTuple):
    """What is known of the packets of `Rows` beyond their columns."""

    transport: NDArray[np.int64]  # [rows] of the transport header from the IP header (`headers.transport_offsets`)
    protocol: NDArray[np.uint8]  # [places]


class Mask(NamedTuple):
    """Fields that become zero."""

    addresses: bool
    ports: bool
    checksums: bool


@numba.njit(nogil=True, cache=True)
def select(
    begin: NDArray[np.int64],
    count: NDArray[np.int64],
    stride: int,
    payload_length: NDArray[np.uint32],
    payload_only: bool,
    offsets: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> None:
    """Write the packet rows of window ``s`` to ``rows[offsets[s]:offsets[s + 1]]``; -1 where it has no more.

    The window is ``count[s]`` rows from ``begin[s]`` on, ``stride`` apart.
    """
    for s in range(len(begin)):
        slot = offsets[s]
        end = offsets[s + 1]
        row = begin[s]
        while slot < end and row < begin[s] + count[s] * stride:
            if not payload_only or payload_length[row] > 0:
                rows[slot] = row
                slot += 1
            row += stride
        while slot < end:
            rows[slot] = -1
            slot += 1


@numba.njit(nogil=True, cache=True)
def count_payload(
    begin: NDArray[np.int64],
    count: NDArray[np.int64],
    stride: int,
    payload_length: NDArray[np.uint32],
    out: NDArray[np.int64],
) -> None:
    """Write how many packets of every window have payload to ``out [windows]``; its rows are ``stride`` apart."""
    for s in range(len(begin)):
        out[s] = 0
        for row in range(begin[s], begin[s] + count[s] * stride, stride):
            out[s] += payload_length[row] > 0


@numba.njit(nogil=True, cache=True)
def copy_payload(
    data: NDArray[np.uint8], places: NDArray[np.int64], rows: Rows, columns: Columns, out: NDArray[np.uint8]
) -> None:
    """Copy the captured payload of the packets of place ``i``, one after the other, to ``out[places[i]]``."""
    for i in range(len(places)):
        at = 0
        for row in rows.values[rows.offsets[i] : rows.offsets[i + 1]]:
            if row < 0:
                break
            payload = np.int64(columns.payload[row])
            size = _payload_size(columns.captured[row], payload, columns.payload_length[row])
            at += _copy(data, columns.record[row] + np.int64(columns.ip[row]) + payload, size, out[places[i], at:])


@numba.njit(nogil=True, cache=True)
def any_payload(data: NDArray[np.uint8], columns: Columns) -> bool:
    """Whether a payload byte of some packet ``[packets]`` is not zero in the capture's bytes."""
    for row in range(len(columns.record)):
        payload = np.int64(columns.payload[row])
        size = _payload_size(columns.captured[row], payload, columns.payload_length[row])
        begin = columns.record[row] + np.int64(columns.ip[row]) + payload
        for at in range(begin, min(begin + size, len(data))):
            if data[at]:
                return True
    return False


@numba.njit(nogil=True, cache=True)
def _payload_size(captured: int, payload: int, payload_length: int) -> int:
    """Captured payload bytes; a packet cut inside its headers has fewer bytes than its payload's offset."""
    rest = np.int64(captured) - np.int64(payload)
    return max(0, int(min(rest, np.int64(payload_length))))


@numba.njit(nogil=True, cache=True)
def copy_ip(
    data: NDArray[np.uint8],
    places: NDArray[np.int64],
    rows: Rows,
    columns: Columns,
    segments: Segments,
    mask: Mask,
    out: NDArray[np.uint8],
) -> None:
    """As `copy_payload`, the captured IP packets to ``out[places[i]]``, with masked fields zero."""
    for i in range(len(places)):
        at = 0
        for slot in range(rows.offsets[i], rows.offsets[i + 1]):
            row = rows.values[slot]
            if row < 0:
                break
            begin = columns.record[row] + np.int64(columns.ip[row])
            size = _copy(data, begin, np.int64(columns.captured[row]), out[places[i], at:])
            if size > 0:
                copied = out[places[i], at : at + size]
                _mask_network(copied, data[begin] >> 4 == 4, mask)
                _mask_transport(copied, segments.transport[slot], segments.protocol[i], mask)
            at += size


@numba.njit(nogil=True, cache=True)
def _copy(data: NDArray[np.uint8], begin: int, size: int, out: NDArray[np.uint8]) -> int:
    """Copy as many bytes as there are and as fit; return how many."""
    source = data[begin:]  # `data[begin + b]` is four times slower: it asks at every byte whether the index is negative
    size = max(0, min(size, len(out), len(source)))
    for b in range(size):
        out[b] = source[b]
    return size


@numba.njit(nogil=True, cache=True)
def _mask_network(out: NDArray[np.uint8], version_4: bool, mask: Mask) -> None:
    """Zero the fields of the IP header at the begin of ``out``."""
    if version_4:
        if mask.addresses:
            _zero(out, 12, 20)
        if mask.checksums:
            _zero(out, 10, 12)
    elif mask.addresses:
        _zero(out, 8, 40)
        _zero(out, 2, 4)  # the flow label is often a hash of the addresses and ports
        if len(out) > 1:
            out[1] &= 0xF0


@numba.njit(nogil=True, cache=True)
def _mask_transport(out: NDArray[np.uint8], at: int, protocol: int, mask: Mask) -> None:
    """Zero the fields of the transport header at ``at``."""
    if mask.ports:
        _zero(out, at, at + 4)
    if mask.checksums and protocol == _TCP:
        _zero(out, at + 16, at + 18)
    if mask.checksums and protocol == _UDP:
        _zero(out, at + 6, at + 8)


@numba.njit(nogil=True, cache=True)
def _zero(out: NDArray[np.uint8], begin: int, end: int) -> None:
    for b in range(min(begin, len(out)), min(end, len(out))):
        out[b] = 0
