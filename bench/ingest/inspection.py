"""What the ingest sees in a capture, for people: counts, how it was made, what is remarkable."""

import collections
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.errors import InputError
from bench.files import mapped
from bench.ingest.capture import CaptureIndex, read_capture
from bench.ingest.containers import frames
from bench.ingest.links import LINK_NAMES
from bench.ingest.options import IngestOptions
from bench.ingest.packet_bytes import Columns as PacketColumns
from bench.ingest.packet_bytes import any_payload
from bench.ingest.sessions import Columns
from bench.schema import CLIENT_BY, held_payload, is_cut

_DEFAULT: Final = IngestOptions()
_COMMAND, _COMMAND_BYTES = 56, 17  # where a PKTAP header has the process's name
ETHERNET_PACKET: Final = 1500  # bytes: what a packet of Ethernet has at most without jumbo frames

#: counts of `inspect` that a row of the table of several captures has, and that are summed
TABLED: Final = ("bytes", "packets", "sessions", "tcp_conversations", "udp_conversations", "payload_bytes")
#: counts that are named in such a row where they are not 0
REMARKED: Final = (
    *("cut_packets", "large_packets", "copies", "retransmissions", "keepalives", "contradictions", "turned"),
    *("odd_fractions", "steps_back", "jumps_ahead", "lost_fragment_bytes"),
)
#: called after each capture: bytes done, bytes in all, captures done, captures in all, packets so far
Progress = Callable[[int, int, int, int, int], None]


def inspect(path: str | Path, options: IngestOptions = _DEFAULT, *, work: Path | None = None) -> dict[str, Any]:
    """What the ingest sees in one capture: the object that ``bench inspect --json`` prints.

    Conversations are unordered pairs of (address, port) with protocol over the whole file; ``payload_bytes`` is
    their TCP and UDP payload as headers declare it; ``bytes`` is the size of the unpacked capture.  Raises as
    :func:`read_capture` does.
    """
    index = read_capture(path, options, work=work)
    conversations = _conversations(index)
    return {
        "capture": str(path),
        "format": index.format,
        "bytes": index.size,
        "link_types": list(index.link_types),
        "packets": index.records,
        "sessions": len(index.sessions["start"]),
        "tcp_conversations": conversations[6],
        "udp_conversations": conversations[17],
        "conversations_with_payload": conversations["payload"],
        "payload_bytes": int(index.sessions["payload_bytes"].sum()),
        "skipped": index.skipped,
        **details(index),
        "damage": [{"offset": d.offset, "reason": d.reason, "bytes_lost": d.bytes_lost} for d in index.damage],
    }


def inspected(
    files: Sequence[Path], options: IngestOptions, *, alone: bool, work: Path, progress: Progress
) -> list[dict[str, Any]]:
    """`inspect` of several captures; of one that is none ``capture`` and ``error``, unless it is ``alone``.

    Compressed ones are unpacked into folders in ``work`` that go again.  Raises :class:`InputError` for one that is
    alone and none.
    """
    sizes = [file.stat().st_size if file.is_file() else 0 for file in files]
    seen: list[dict[str, Any]] = []
    for number, file in enumerate(files, 1):
        try:
            with tempfile.TemporaryDirectory(dir=_room(work), prefix="inspect-") as folder:
                seen.append(inspect(file, options, work=Path(folder)))
        except InputError as error:
            if alone:
                raise
            seen.append({"capture": str(file), "error": str(error).removeprefix(f"{file}: ")})
        progress(sum(sizes[:number]), sum(sizes), number, len(files), sum(one.get("packets", 0) for one in seen))
    return seen


def remarks_of(seen: Mapping[str, Any]) -> str:
    """What a row of the table says of a capture beside its counts."""
    if "error" in seen:
        return str(seen["error"])
    words = [f"{name.replace('_', ' ')} {seen[name]}" for name in REMARKED if seen[name]]
    words += [f"{name.replace('_', ' ')} {number}" for name, number in seen["skipped"].items()]
    words += [f"in {name} {number}" for name, number in seen["tunnelled"].items()]
    return "; ".join([*words, *(f"{one['reason']} (at byte {one['offset']})" for one in seen["damage"])])


def _conversations(index: CaptureIndex) -> dict[int | str, int]:
    """How many 5-tuples there are by protocol, and with payload; a 5-tuple may hold several sessions."""
    columns = [np.asarray(index.sessions[name]) for name in ("client_ip", "server_ip")]
    ports = [np.asarray(index.sessions[name], np.int64) for name in ("client_port", "server_port")]
    ends = [np.char.add(ip, _texts(port)) for ip, port in zip(columns, ports, strict=True)] if len(ports[0]) else []
    if not ends:
        return {6: 0, 17: 0, "payload": 0}
    swap = ends[0] > ends[1]
    low, high = np.where(swap, ends[1], ends[0]), np.where(swap, ends[0], ends[1])
    protocol, payload = index.sessions["protocol"], index.sessions["payload_packets"] > 0
    table = np.rec.fromarrays([low, high, protocol, index.sessions["ip_version"]])
    distinct, number = np.unique(table, return_inverse=True)
    with_payload = np.bincount(number, payload, minlength=len(distinct)) > 0
    of_protocol = distinct["f2"]
    return {6: int((of_protocol == 6).sum()), 17: int((of_protocol == 17).sum()), "payload": int(with_payload.sum())}


def _texts(ports: Any) -> Any:
    """Ports as texts that no address ends with: bytes ``[sessions]``."""
    return np.char.add(b":", ports.astype("S5"))


def details(index: CaptureIndex) -> dict[str, Any]:
    """What is remarkable of a capture, JSON types: see `bench.ingest.capture.Remarks`, and counts over its packets."""
    remarks, packets = index.remarks, index.packets
    by = np.bincount(index.sessions["client_by"], minlength=len(CLIENT_BY)).tolist()
    return {
        "other_protocols": remarks.other_protocols,
        "non_ip": remarks.non_ip,
        "tunnelled": remarks.tunnelled,
        "lost_fragment_bytes": remarks.lost_fragment_bytes,
        "snaplen": max(remarks.snap_lengths, default=0),
        "captured_payload_bytes": captured_payload(packets),
        "cut_packets": int(is_cut(packets["captured"], packets["payload"], packets["payload_length"]).sum()),
        "large_packets": int(np.count_nonzero(packets["length"] > ETHERNET_PACKET)),
        "copies": remarks.copies,
        "retransmissions": remarks.retransmissions,
        "keepalives": remarks.keepalives,
        "dropped": remarks.dropped,
        "clients": {name: number for name, number in zip(CLIENT_BY, by, strict=True) if number},
        "contradictions": remarks.contradictions,
        "turned": int(np.count_nonzero(packets["direction"][index.sessions["first_packet"]] < 0)),
        "odd_fractions": remarks.odd_fractions,
        **remarks.times,
        "sorted_sessions": remarks.sorted_sessions,
        "clocks": list(remarks.resolutions),
        "tools": list(remarks.tools),
        **({"payload": bare} if (bare := bare_payload(index)) else {}),
        **({"processes": _processes(index)} if "PKTAP" in index.link_types else {}),
    }


def _room(work: Path) -> Path | None:
    """A folder to unpack into: the one that has room for stores, if it can be written, else the system's."""
    return work if os.access(work, os.W_OK) else None


def bare_payload(index: CaptureIndex) -> str:
    """What is wrong with all payload of a capture: ``cut`` or ``zeros``; empty where some can be read or is none.

    Captures are published so, or written from tables of lengths.
    """
    packets = index.packets
    if not packets["payload_length"].any():
        return ""
    if not captured_payload(packets):
        return "cut"
    data = np.memmap(mapped(index.bytes_path), np.uint8, mode="r")
    columns = PacketColumns(*(packets[name] for name in PacketColumns._fields))
    return "" if any_payload(data, columns) else "zeros"


def begins_tls(index: CaptureIndex) -> NDArray[np.bool_]:
    """Which sessions are TLS: of TCP, and the first payload of either side begins with a TLS record: ``[sessions]``.

    Our choice: it gives the sessions that others call TLS in IoT Sentinel (`tests/test_prepare.py`).
    """
    packets, count = index.packets, np.asarray(index.sessions["packets"])
    session = np.repeat(np.arange(len(count)), count)
    with_payload = np.flatnonzero(packets["payload_length"] > 0)
    side = session[with_payload] * 2 + (packets["direction"][with_payload] > 0)
    first = with_payload[np.unique(side, return_index=True)[1]]
    held = held_payload(packets["captured"][first], packets["payload"][first], packets["payload_length"][first])
    first = first[held >= len(_TLS_RECORD)]
    at = packets["record"][first] + packets["ip"][first] + packets["payload"][first]
    data = np.memmap(mapped(index.bytes_path), np.uint8, mode="r") if len(first) else np.zeros(0, np.uint8)
    record = np.ones(len(first), bool)
    for byte, (least, most) in enumerate(_TLS_RECORD):
        record &= (data[at + byte] >= least) & (data[at + byte] <= most)
    tls = np.zeros(len(count), bool)
    tls[session[first[record]]] = True
    return tls & (np.asarray(index.sessions["protocol"]) == 6)


def _processes(index: CaptureIndex) -> dict[str, int]:
    """Of a PKTAP capture: the sessions of each process (as the system calls it), by their first packets."""
    names: collections.Counter[str] = collections.Counter()
    data = (
        np.memmap(mapped(index.bytes_path), np.uint8, mode="r")
        if len(index.packets["record"])
        else np.zeros(4, np.uint8)
    )
    for frame in frames(data, index.packets["record"][index.sessions["first_packet"]]).tolist():
        command = data[frame + _COMMAND : frame + _COMMAND + _COMMAND_BYTES].tobytes()
        names[command.split(b"\0")[0].decode("utf-8", "replace")] += 1
    return dict(names.most_common())


def captured_payload(packets: Columns) -> int:
    """How many bytes of payload the packets hold that were captured."""
    return int(held_payload(packets["captured"], packets["payload"], packets["payload_length"]).sum())


def why_empty(index: CaptureIndex) -> str:
    """Why a capture gives no session, in words: what stands there instead."""
    remarks = index.remarks
    reasons = []
    for reason, number in sorted(remarks.skipped.items(), key=lambda item: -item[1]):
        what = _REASONS[reason]
        if reason == "unknown_link":
            unread = [name for name in remarks.link_types if name not in LINK_NAMES.values()]
            what = f"of {', '.join(unread)}"
        elif reason in ("other_protocol", "non_ip"):
            counts = remarks.other_protocols if reason == "other_protocol" else remarks.non_ip
            what += f" ({', '.join(f'{name}: {n}' for name, n in counts.items())})" if counts else ""
        reasons.append(f"{number} {what}")
    return f"{index.records} packets: {'; '.join(reasons)}" if reasons else "no packet in it"


_TLS_RECORD: Final = ((0x14, 0x17), (3, 3), (0, 4))  # least and most of its first bytes: content type, version

_REASONS: Final = {
    "unknown_link": "of another link type",
    "non_ip": "without IP",
    "other_protocol": "neither TCP nor UDP",
    "later_fragment": "later fragments",
    "truncated_header": "cut within their headers",
    "bad_header": "with invalid headers",
}
