"""Where TLS ClientHellos name the server: the host names of the extension server_name (RFC 6066, section 3).

A hello may go over several packets; it is followed through those of its direction in the order of the capture, without
retransmissions.  Names in QUIC's Initial packets are encrypted there, and are no bytes that stand for themselves.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.schema import MARK_COPY, MARK_RETRANSMISSION
from bench.stress.sampled import PacketBytes

_HEAD: Final = 5  # bytes of a TLS record's header
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_FIXED: Final = 34  # bytes of version and random
_SERVER_NAME, _HOST = 0, 0


def mask_server_names(packets: PacketBytes) -> None:
    """Let the bytes of the names be zero; all lengths stay."""
    held = np.clip(packets.size - packets.payload, 0, packets.payload_length)
    kind, version, length, message = (
        np.where(held > _HEAD, packets.read(packets.payload + at, size), -1)
        for at, size in ((0, 1), (1, 1), (3, 2), (_HEAD, 1))
    )
    for first in np.flatnonzero((kind == _HANDSHAKE) & (version == 3) & (message == _CLIENT_HELLO)).tolist():
        places = _places(packets, held, first, _HEAD + int(length[first]))
        for begin, end in server_names(packets.data[places]):
            packets.data[places[begin:end]] = 0


def _places(packets: PacketBytes, held: NDArray[np.int64], first: int, wanted: int) -> NDArray[np.int64]:
    """Where the bytes of a record that begins with a packet's payload stand in the data: int64 ``[bytes]``.

    ``held [packets]`` is how much of its payload each packet has, bytes.
    """
    places = []
    for row in range(first, len(packets.begin)):
        if wanted <= 0 or packets.sample[row] != packets.sample[first]:
            break
        again = packets.marks[row] & (MARK_COPY | MARK_RETRANSMISSION) and row != first
        if packets.direction[row] != packets.direction[first] or again:
            continue
        begin = int(packets.begin[row] + packets.payload[row])
        places.append(np.arange(begin, begin + min(wanted, int(held[row]))))
        wanted -= int(packets.payload_length[row])
        if held[row] < packets.payload_length[row]:
            break  # what comes behind a cut packet's payload cannot be placed
    return np.concatenate(places)


def server_names(hello: NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    """First and last (exclusive) byte of each host name in a record with a ClientHello, uint8 ``[bytes]``.

    Nothing of what is no such record; of one that is cut what is there.
    """
    data = hello.tobytes()

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], "big") if at + size <= len(data) else len(data)

    at = _HEAD + 4 + _FIXED
    at += 1 + number(at, 1)  # session id
    at += 2 + number(at, 2)  # cipher suites
    at += 1 + number(at, 1)  # compression
    end = min(at + 2 + number(at, 2), len(data))
    at += 2
    while at + 4 <= end:
        kind, size = number(at, 2), number(at + 2, 2)
        if kind == _SERVER_NAME:
            name, last = at + 6, min(at + 4 + size, end)
            while name + 3 <= last:
                long = number(name + 1, 2)
                if data[name] == _HOST:
                    yield name + 3, min(name + 3 + long, last)
                name += 3 + long
        at += 4 + size
