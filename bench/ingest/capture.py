"""One capture file to one index of its packets and sessions."""

import mmap
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.errors import InputError
from bench.ingest.compressed import is_compressed, reading, unpack
from bench.ingest.containers import BATCH, Damage, Walk, capture_format, walk
from bench.ingest.headers import KEY_WORDS, LINK_NAMES, REASONS, decode
from bench.ingest.sessions import Columns, SessionTable, describe_sessions, sort_packets
from bench.schema import PACKET_COLUMNS

_MOST_PACKETS: Final = 2**32 - 1  # rows are sorted by 32-bit numbers
_LONGEST_TIMEOUT: Final = 9e9  # seconds; more does not fit int64 as ns


@dataclass(frozen=True, eq=False)
class CaptureIndex:
    """What one capture holds; positions are bytes in ``bytes_path``."""

    path: Path
    bytes_path: Path  # the capture, or what it was unpacked to; a temporary file lives as long as this index
    size: int  # of bytes_path, bytes
    format: str  # "pcap" or "pcapng"
    link_types: tuple[str, ...]  # names, sorted
    records: int  # that could be read; each is a packet or is counted in `skipped`
    damage: tuple[Damage, ...]
    skipped: dict[str, int]  # records that gave no packet, by reason; no zeros
    packets: Columns  # schema.PACKET_COLUMNS, [packets], sorted by session and time
    sessions: Columns  # schema.SESSION_COLUMNS but capture and conversation, [sessions], by first appearance
    _folder: Any = field(default=None, repr=False)  # keeps the temporary file


def read_capture(path: str | Path, *, idle_timeout: float | None = None, work: Path | None = None) -> CaptureIndex:
    """Index the packets and sessions of a pcap or pcapng capture, plain or packed by gzip or zstd.

    A session is silent for at most ``idle_timeout`` seconds (None: for any time).  Packed captures are unpacked into
    the folder ``work``, else into a temporary file.  Reads up to the first damage.  Runs without Python's lock for
    the most part: callers may read several captures in threads.

    Raises InputError where there is no file, or no capture in it, or the timeout is out of range; OSError where a
    packed capture cannot be unpacked for lack of space or rights, which is no fault of the capture.
    """
    if idle_timeout is not None and not 0 < idle_timeout <= _LONGEST_TIMEOUT:  # nor is nan
        raise InputError(
            "bad-timeout",
            f"idle timeout: {idle_timeout} is no number of seconds above 0 and up to {_LONGEST_TIMEOUT:g}; "
            "leave it out for none",
        )
    path = Path(path)
    bytes_path, data, damage, folder = _load(path, work)
    kind = capture_format(data)
    if kind is None:
        why = damage[0].reason if damage else "by its first bytes"
        raise InputError(
            "not-a-capture", f"{path}: is no pcap or pcapng capture ({why}); give a capture, or convert it"
        )
    notes = Walk()
    packets, session, keys, skipped = _collect(path, data, notes)
    starts = sort_packets(packets, session, len(keys))
    return CaptureIndex(
        path=path,
        bytes_path=bytes_path,
        size=len(data),
        format=kind,
        link_types=tuple(sorted({LINK_NAMES.get(link, f"link type {link}") for link in notes.links})),
        records=len(packets["time"]) + int(skipped.sum()),
        damage=damage + tuple(notes.damage),
        skipped={reason: int(n) for reason, n in zip(REASONS, skipped, strict=True) if n},
        sessions=describe_sessions(packets, keys, starts, idle_timeout),
        packets=packets,
        _folder=folder,
    )


def inspect(path: str | Path) -> dict[str, Any]:
    """What the ingest sees in one capture: the object that ``bench inspect --json`` prints.

    Conversations are unordered pairs of (address, port) with protocol over the whole file; ``payload_bytes`` is
    their TCP and UDP payload as headers declare it; ``bytes`` is the size of the unpacked capture.
    """
    index = read_capture(path)
    protocol = index.sessions["protocol"]
    return {
        "capture": str(path),
        "format": index.format,
        "bytes": index.size,
        "link_types": list(index.link_types),
        "packets": index.records,
        "tcp_conversations": int((protocol == 6).sum()),
        "udp_conversations": int((protocol == 17).sum()),
        "conversations_with_payload": int((index.sessions["payload_packets"] > 0).sum()),
        "payload_bytes": int(index.sessions["payload_bytes"].sum()),
        "skipped": index.skipped,
        "damage": [{"offset": d.offset, "reason": d.reason, "bytes_lost": d.bytes_lost} for d in index.damage],
    }


def _load(path: Path, work: Path | None) -> tuple[Path, NDArray[np.uint8], tuple[Damage, ...], Any]:
    """The file that holds a capture's bytes, the bytes, damage met in unpacking, and what keeps a temporary file."""
    with reading(path):
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for, and cannot be mapped
            raise InputError(
                "unreadable-file", f"{path}: cannot be read (it is no regular file); give a readable capture file"
            )
        if not is_compressed(path):
            return path, _map(path), (), None
    folder = None
    if work is None:
        folder = tempfile.TemporaryDirectory(prefix="bench-capture-")
        work = Path(folder.name)
    unpacked, damage = unpack(path, work)
    return unpacked, _map(unpacked), damage, folder


def _map(path: Path) -> NDArray[np.uint8]:
    """The bytes of a file, read-only uint8 ``[bytes]``, memory-mapped."""
    with path.open("rb") as file:
        if file.seek(0, 2) == 0:
            return np.frombuffer(b"", np.uint8)
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(view, np.uint8)


def _collect(
    path: Path, data: NDArray[np.uint8], notes: Walk
) -> tuple[Columns, NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Walk and decode a capture: its packets in file order, their sessions int32 ``[packets]``, the sessions' keys and
    what was left out (as `headers.decode` counts it).

    Columns grow in place (realloc moves pages, it does not copy them) by what the file is seen to hold.
    """
    packets: Columns = {name: np.empty(BATCH, dtype) for name, dtype in PACKET_COLUMNS.items()}
    session = np.empty(BATCH, np.int32)
    ends = np.empty((BATCH, KEY_WORDS), np.int64)
    skipped = np.zeros(len(REASONS), np.int64)
    table, count = SessionTable(), 0
    for batch in walk(data, notes):
        if count + len(batch) > len(session):
            if count + len(batch) > _MOST_PACKETS:
                raise InputError(
                    "too-many-packets", f"{path}: has more than {_MOST_PACKETS} packets; split it (editcap -c)"
                )
            for column in (*packets.values(), session):
                column.resize(count + BATCH + count // 4, refcheck=False)
        rows = slice(count, count + len(batch))
        new = decode(data, batch, tuple(column[rows] for column in packets.values()), ends, skipped)
        table.number(ends[:new], session[count : count + new])
        count += new
    for column in (*packets.values(), session):
        column.resize(count, refcheck=False)
    return packets, session, table.close(), skipped
