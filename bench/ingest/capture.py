"""One capture file to one index of its packets and sessions."""

import mmap
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.errors import InputError
from bench.files import mapped
from bench.ingest.compressed import is_compressed, reading, unpack
from bench.ingest.connections import COPY_WINDOW, clients, cuts, follow, handshakes
from bench.ingest.containers import BATCH, Damage, Walk, capture_format, first_time, joined, walk
from bench.ingest.foreign import what_it_is
from bench.ingest.headers import KEY_WORDS, Tally, decode
from bench.ingest.links import LINK_NAMES, OTHER_LINKS, REASONS
from bench.ingest.options import IngestOptions
from bench.ingest.sessions import (
    Columns,
    SessionColumns,
    SessionTable,
    gather,
    group,
    joined_vlans,
    sort_by_time,
    without,
)
from bench.ingest.tunnels import wanted_tunnels
from bench.schema import MARK_COPY, MARK_KEEPALIVE, MARK_RETRANSMISSION, PACKET_COLUMNS

_MOST_PACKETS: Final = 2**32 - 1  # rows are sorted by 32-bit numbers
_DEFAULT: Final = IngestOptions()

#: what a packet can be besides itself -> its mark
_MARKS: Final = {"copies": MARK_COPY, "retransmissions": MARK_RETRANSMISSION, "keepalives": MARK_KEEPALIVE}

#: columns that only the reading of a capture needs
_SCRATCH: Final[dict[str, np.dtype[Any]]] = {"sequence": np.dtype("uint32"), "answer": np.dtype("uint16")}
_FOLLOWED: Final = (
    *("time", "record", "ip", "payload_length", "captured", "direction", "flags", "sequence", "answer", "marks"),
)


@dataclass(frozen=True)
class Remarks:
    """What is remarkable of a capture and its records: how it was made, what was left out, how its clock went."""

    link_types: tuple[str, ...]  # names, sorted
    snap_lengths: tuple[int, ...]  # bytes, each once, sorted; those of interfaces that name one
    resolutions: tuple[str, ...]  # of the clocks, each once
    tools: tuple[str, ...]  # that wrote it, as it says
    skipped: dict[str, int]  # records that gave no packet, by reason; no zeros
    other_protocols: dict[str, int]  # of these, by protocol
    non_ip: dict[str, int]  # and by what the frame carries
    tunnelled: dict[str, int]  # packets whose outermost IP header carries a tunnel, by kind
    lost_fragment_bytes: int  # of IP payload in later fragments
    copies: int  # packets that repeat one of their session; here and below also those that were left out
    retransmissions: int
    keepalives: int
    dropped: int  # packets that were left out, as copies or by a filter
    odd_fractions: int  # times whose fraction is a second or more
    times: dict[str, float]  # see `headers.Tally.times`
    sorted_sessions: int  # whose packets were not in the order of their times
    contradictions: int  # sessions whose SYNs and SYN-ACKs tell both end points to be the client


@dataclass(frozen=True, eq=False)
class CaptureIndex:
    """What one capture holds; positions are bytes in ``bytes_path``."""

    path: Path
    bytes_path: Path  # the capture, or what it was unpacked to; a temporary file lives as long as this index
    size: int  # of bytes_path, bytes
    format: str  # "pcap" or "pcapng"
    records: int  # that could be read; each is a packet, is counted in `skipped` or was left out on request
    damage: tuple[Damage, ...]
    remarks: Remarks
    packets: Columns  # schema.PACKET_COLUMNS, [packets], sorted by session and time
    sessions: SessionColumns  # schema.SESSION_COLUMNS but capture and conversation, [sessions], by first appearance
    _folder: Any = field(default=None, repr=False)  # keeps the temporary file

    @property
    def link_types(self) -> tuple[str, ...]:
        """Names of its link types, sorted."""
        return self.remarks.link_types

    @property
    def skipped(self) -> dict[str, int]:
        """Records that gave no packet, by reason; no zeros."""
        return self.remarks.skipped


@dataclass
class _Records:
    """The decoded records of a capture, in file order."""

    packets: Columns  # of `PACKET_COLUMNS` and `_SCRATCH`, [packets]
    session: NDArray[np.int32]  # [packets]
    keys: NDArray[np.int64]  # [sessions, KEY_WORDS]
    tally: Tally


def read_capture(path: str | Path, options: IngestOptions = _DEFAULT, *, work: Path | None = None) -> CaptureIndex:
    """Index the packets and sessions of a pcap or pcapng capture, plain or compressed.

    Compressed captures are unpacked into the folder ``work``, else into a temporary file.  Reads up to the first
    damage.  Runs without Python's lock for the most part: callers may read several captures in threads.

    Raises InputError where there is no file, or no capture in it; OSError where a compressed capture cannot be unpacked
    for lack of space or rights, which is no fault of the capture.
    """
    path = Path(path)
    bytes_path, data, damage, folder = _load(path, work)
    kind = capture_format(data)
    if kind is None:
        why, remedy = (damage[0].reason, "give a capture") if damage else what_it_is(data[:4096].tobytes())
        raise InputError("not-a-capture", f"{path}: is not a pcap or pcapng capture ({why}); {remedy}")
    notes = Walk()
    records = _collect(path, data, notes, options)
    count = len(records.packets["time"])
    packets, sessions, found = _sessions(data, records, options)
    names = records.tally.named()
    remarks = Remarks(
        link_types=tuple(sorted({link_name(link) for link in notes.links})),
        snap_lengths=tuple(sorted({snap for snap in notes.snap_lengths if snap})),
        resolutions=tuple(sorted(set(notes.resolutions))),
        tools=tuple(sorted(set(notes.tools))),
        skipped=names["skipped"],
        other_protocols=names["other_protocols"],
        non_ip=names["non_ip"],
        tunnelled=names["tunnelled"],
        lost_fragment_bytes=int(records.tally.lost[0]),
        dropped=count - len(packets["time"]),
        odd_fractions=notes.odd_fractions,
        times=records.tally.times(),
        copies=found["copies"],
        retransmissions=found["retransmissions"],
        keepalives=found["keepalives"],
        sorted_sessions=found["sorted_sessions"],
        contradictions=found["contradictions"],
    )
    return CaptureIndex(
        path=path,
        bytes_path=bytes_path,
        size=len(data),
        format=kind,
        records=count + sum(names["skipped"].values()),
        damage=damage + tuple(notes.damage),
        remarks=remarks,
        packets=packets,
        sessions=sessions,
        _folder=folder,
    )


def join_captures(paths: Sequence[Path], target: Path) -> tuple[Path, ...]:
    """Write the captures that one file was rotated into as one, by the times of their first records.

    Returns those that were left out, as they are damaged or no captures: what comes after a damaged record would be
    lost.  Nothing is written where less than two are left.  Raises :class:`InputError` where these are not of one kind.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        parts = []
        for path in paths:
            try:
                _, data, damage, _ = _load(path, Path(work))
            except InputError:
                continue
            notes = Walk()
            if not damage and capture_format(data) and (time := first_time(data, notes)) is not None:
                parts.append((time, path, data))
        parts.sort(key=lambda part: part[0])
        if len(parts) > 1:
            try:
                with target.open("wb") as file:
                    for piece in joined([data for _, _, data in parts]):
                        file.write(piece.data)
            except ValueError as error:
                names = ", ".join(path.name for path in paths)
                raise InputError(
                    "bad-options", f"{paths[0].parent}: {names} cannot be joined ({error}); join them by mergecap"
                ) from error
    kept = {path for _, path, _ in parts} if len(parts) > 1 else set()
    return tuple(path for path in paths if path not in kept)


def link_name(link: int) -> str:
    """A link type for people, by its number; one that is not read says so."""
    if link in LINK_NAMES:
        return LINK_NAMES[link]
    return f"{OTHER_LINKS[link]} ({link}, not read)" if link in OTHER_LINKS else f"link type {link} (not read)"


def _sessions(
    data: NDArray[np.uint8], records: _Records, options: IngestOptions
) -> tuple[Columns, SessionColumns, dict[str, int]]:
    """Packets by session and time, the sessions, and what of `Remarks` is found on the way; consumes the records."""
    packets, keys = records.packets, records.keys
    starts, order = group(records.session, len(keys))
    gather(packets, order)
    del order
    window = COPY_WINDOW if options.drop_copies is None else round(options.drop_copies * 1e6)
    followed = tuple(packets[name] for name in _FOLLOWED)
    more = follow(data, followed, keys[:, 4], starts, options.sessions == "tcp", window)
    del followed
    for name in _SCRATCH:
        del packets[name]
    counts = {name: int(np.count_nonzero(packets["marks"] & mark)) for name, mark in _MARKS.items()}
    dropped = [*options.filter, *(["copies"] if options.drop_copies is not None else [])]
    if dropped:
        starts = without(packets, starts, sum(_MARKS[name] for name in set(dropped)))
    if more:
        begins = np.empty(len(keys) + more + 1, np.int64)
        cuts(packets["marks"], starts, begins)
        keys = keys[np.searchsorted(starts, begins[:-1], side="right") - 1]
        starts = begins
    moved = sort_by_time(packets, starts)
    sessions, contradictions = _described(packets, keys, starts, options)
    return packets, sessions, counts | {"sorted_sessions": moved, "contradictions": contradictions}


def _described(
    packets: Columns, keys: NDArray[np.int64], starts: NDArray[np.int64], options: IngestOptions
) -> tuple[SessionColumns, int]:
    """The sessions, cut where they are silent for too long, and how many handshakes contradict themselves.

    Parts of one session stand together and have the client that its handshake tells.  Turns ``direction`` (+1 from the
    lower end point) into +1 from the client, in place.
    """
    forward, client_by = np.zeros(len(keys), np.bool_), np.zeros(len(keys), np.uint8)
    contradictions = handshakes(packets["flags"], packets["direction"], keys[:, 4], starts, forward, client_by)
    if options.idle_timeout is not None:
        gaps = np.diff(packets["time"]) > round(options.idle_timeout * 1e9)
        firsts = np.union1d(starts[:-1], np.flatnonzero(gaps) + 1)
        # a gap between two sessions is no cut: their first rows are in `starts` already
        whole = np.searchsorted(starts, firsts, side="right") - 1
        keys, forward, client_by = keys[whole], forward[whole], client_by[whole]
        starts = np.append(firsts, starts[-1])
    clients(packets["direction"], keys[:, 4], starts, options.client == "ports", forward, client_by)
    packets["direction"] *= np.repeat(np.where(forward, np.int8(1), np.int8(-1)), np.diff(starts))
    return SessionColumns(packets, keys, starts, forward, client_by), contradictions


def _load(path: Path, work: Path | None) -> tuple[Path, NDArray[np.uint8], tuple[Damage, ...], Any]:
    """The file that holds a capture's bytes, the bytes, damage met in unpacking, and what keeps a temporary file."""
    with reading(path):
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for, and cannot be mapped
            raise InputError(
                "unreadable-file", f"{path}: cannot be read (it is not a regular file); give a readable capture file"
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
    with mapped(path).open("rb") as file:
        if file.seek(0, 2) == 0:
            return np.frombuffer(b"", np.uint8)
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(view, np.uint8)


def _collect(path: Path, data: NDArray[np.uint8], notes: Walk, options: IngestOptions) -> _Records:
    """Walk and decode a capture.

    Columns grow in place (realloc moves pages, it does not copy them) by what the file is seen to hold.
    """
    kinds: dict[str, np.dtype[Any]] = {**PACKET_COLUMNS, **_SCRATCH}
    packets: Columns = {name: np.empty(BATCH, dtype) for name, dtype in kinds.items()}
    session = np.empty(BATCH, np.int32)
    ends = np.empty((BATCH, KEY_WORDS), np.int64)
    table, count, tally, wanted = SessionTable(), 0, Tally(), wanted_tunnels(options.decap)
    for batch in walk(data, notes):
        if count + len(batch) > len(session):
            if count + len(batch) > _MOST_PACKETS:
                raise InputError(
                    "too-many-packets", f"{path}: has more than {_MOST_PACKETS} packets; split it (editcap -c)"
                )
            for column in (*packets.values(), session):
                column.resize(count + BATCH + count // 4, refcheck=False)
        rows = slice(count, count + len(batch))
        columns = tuple(column[rows] for column in packets.values())
        new = decode(data, batch, columns, ends, tally.arrays, wanted, options.by_vlan)
        table.number(ends[:new], session[count : count + new])
        count += new
    for column in (*packets.values(), session):
        column.resize(count, refcheck=False)
    tally.skipped[REASONS.index("truncated_header")] += notes.zeros
    keys = table.close()
    if options.by_vlan:
        keys = joined_vlans(keys, session)
    return _Records(packets, session, keys, tally)
