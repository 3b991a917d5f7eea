"""Compiled loops over packets and groups.  Importing this module imports numba: do so inside functions.

All kernels release the GIL, write into arrays that the caller allocated and check no bounds:
:mod:`bench.readers` and :mod:`bench.splits.split` see to it that rows are in range.
"""

import numba
import numpy as np
from numpy.typing import NDArray

_TCP = 6
_UDP = 17
#: IPv6 extension headers that may stand before TCP or UDP (RFC 8200, 4302, 6275, 7401, 5533)
_FRAGMENT = 44
_AUTHENTICATION = 51
_NOTHING = 59
_EXTENSIONS = (0, 43, _FRAGMENT, _AUTHENTICATION, 60, 135, 139, 140)


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
    """Count the packets with payload of every window, whose rows are ``stride`` apart."""
    for s in range(len(begin)):
        out[s] = 0
        for row in range(begin[s], begin[s] + count[s] * stride, stride):
            out[s] += payload_length[row] > 0


@numba.njit(nogil=True, cache=True)
def copy_payload(
    data: NDArray[np.uint8],
    places: NDArray[np.int64],
    rows: NDArray[np.int64],
    offsets: NDArray[np.int64],
    record: NDArray[np.int64],
    ip: NDArray[np.uint16],
    captured: NDArray[np.uint32],
    payload: NDArray[np.uint16],
    payload_length: NDArray[np.uint32],
    out: NDArray[np.uint8],
) -> None:
    """Copy the captured payload of ``rows[offsets[p]:offsets[p + 1]]``, packet after packet, to ``out[p]``.

    ``places`` are those of one capture; a row below 0 is none.
    """
    for p in places:
        at = 0
        for row in rows[offsets[p] : offsets[p + 1]]:
            if row < 0:
                break
            size = _payload_size(captured[row], payload[row], payload_length[row])
            at += _copy(data, record[row] + np.int64(ip[row]) + np.int64(payload[row]), size, out[p, at:])


@numba.njit(nogil=True, cache=True)
def _payload_size(captured: int, payload: int, payload_length: int) -> int:
    """Captured payload bytes; a packet cut inside its headers has fewer bytes than its payload's offset."""
    held = np.int64(captured) - np.int64(payload)
    return max(0, int(min(held, np.int64(payload_length))))


@numba.njit(nogil=True, cache=True)
def copy_ip(
    data: NDArray[np.uint8],
    places: NDArray[np.int64],
    rows: NDArray[np.int64],
    offsets: NDArray[np.int64],
    record: NDArray[np.int64],
    ip: NDArray[np.uint16],
    captured: NDArray[np.uint32],
    protocol: NDArray[np.uint8],
    hide: tuple[bool, bool, bool],
    out: NDArray[np.uint8],
) -> None:
    """As `copy_payload`, the captured IP packets; hidden fields (addresses, ports, checksums) become zero."""
    for p in places:
        at = 0
        for row in rows[offsets[p] : offsets[p + 1]]:
            if row < 0:
                break
            begin = record[row] + np.int64(ip[row])
            held = min(np.int64(captured[row]), len(data) - begin)
            size = _copy(data, begin, held, out[p, at:])
            if size > 0:
                _hide(data, begin, held, protocol[p], hide, out[p, at : at + size])
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
def _hide(
    data: NDArray[np.uint8], begin: int, held: int, protocol: int, hide: tuple[bool, bool, bool], out: NDArray[np.uint8]
) -> None:
    """Zero the fields of the packet at ``begin`` in its copy ``out``."""
    addresses, ports, checksums = hide
    if data[begin] >> 4 == 4:
        if addresses:
            _zero(out, 12, 20)
        if checksums:
            _zero(out, 10, 12)
    elif addresses:
        _zero(out, 8, 40)
        _zero(out, 2, 4)  # the flow label is often a hash of the addresses and ports
        if len(out) > 1:
            out[1] &= 0xF0
    transport = _transport(data, begin, held)
    if ports:
        _zero(out, transport, transport + 4)
    if checksums and protocol == _TCP:
        _zero(out, transport + 16, transport + 18)
    if checksums and protocol == _UDP:
        _zero(out, transport + 6, transport + 8)


@numba.njit(nogil=True, cache=True)
def _zero(out: NDArray[np.uint8], begin: int, end: int) -> None:
    for b in range(min(begin, len(out)), min(end, len(out))):
        out[b] = 0


@numba.njit(nogil=True, cache=True)
def _transport(data: NDArray[np.uint8], begin: int, held: int) -> int:
    """Return the offset of the transport header from the IP header, or where the captured bytes end before it.

    Steps over all that the ingest steps over: AH and, in IPv6, the extension headers.
    """
    extensions = data[begin] >> 4 != 4
    at = 40 if extensions else int(data[begin] & 15) * 4
    place = 6 if extensions else 9
    following = np.int64(data[begin + place]) if held > place else _NOTHING
    while following == _AUTHENTICATION or (extensions and following in _EXTENSIONS):
        if at + 2 > held:
            return held
        words = int(data[begin + at + 1])
        if following == _FRAGMENT:
            size = 8
        elif following == _AUTHENTICATION:
            size = (words + 2) * 4
        else:
            size = (words + 1) * 8
        following = np.int64(data[begin + at])
        at += size
    return at
