"""How the captures of each class were made, set side by side: what differs there tells classes apart without their
traffic.

Counts are of a store's columns and of what its manifest says of each capture.  `bench.analysis.setup_features`
classifies by the set-up alone, session by session.
"""

import collections
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.data.manifest import CaptureEntry
from bench.data.store import Store
from bench.ingest.inspection import ETHERNET_PACKET
from bench.schema import (
    MARK_COPY,
    MARK_FRAGMENT,
    MARK_KEEPALIVE,
    MARK_RETRANSMISSION,
    MARK_TUNNELLED,
    NO_CLASS,
    is_cut,
)

#: shares of which a line tells where classes differ by more -> words (our choice)
APART: Final = 0.1
SHARES: Final = {
    "cut": "packets with payload that is cut",
    "copies": "packets captured twice",
    "tunnelled": "packets in tunnels",
    "large": f"packets above {ETHERNET_PACKET:,} bytes",
    "mid_stream": "TCP sessions without a handshake",
    "clock_back": "captures whose clock steps back",
}
#: counts of `bench.ingest.inspection.details` that captures are asked for
_OF_CAPTURES: Final = ("lost_fragment_bytes", "steps_back", "odd_fractions", "contradictions", "turned")

_GUESSED: Final = (3, 4)  # `schema.CLIENT_BY`: neither SYN nor SYN-ACK


@dataclass(frozen=True)
class ClassSetUp:
    """One class's captures; of captures that hold several classes the whole captures count for each."""

    name: str
    captures: int
    sessions: int
    packets: int
    bytes: int  # of IP packets, as declared
    shares: dict[str, float] = field(default_factory=dict)  # by `SHARES`
    marks: dict[str, int] = field(default_factory=dict)  # retransmissions, keep-alives, first fragments: packets
    of_captures: dict[str, int] = field(default_factory=dict)  # by `_OF_CAPTURES`, and records skipped by reason
    link_types: tuple[str, ...] = ()
    snap_lengths: tuple[int, ...] = ()  # bytes; 0: none named
    clocks: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()


def set_up_by_class(store: Store, task: str) -> list[ClassSetUp]:
    """What each class's captures are like, in the order of the classes."""
    labels = np.asarray(store.labels(task)).astype(np.int64)
    names = store.classes(task)
    rows = np.flatnonzero(labels != NO_CLASS)
    sums = _sums(store, labels, rows, len(names))
    return [_row(store, name, number, labels, sums) for number, name in enumerate(names)]


def _sums(store: Store, labels: NDArray[np.int64], rows: NDArray[np.int64], classes: int) -> dict[str, NDArray[Any]]:
    """Sums over the packets, and over the sessions, of each class: int64 ``[classes]`` by name."""
    packets = np.asarray(store.session("packets"))
    of_packet = np.full(store.manifest.packets, NO_CLASS, np.int64)
    order = np.argsort(store.session("first_packet"), kind="stable")
    of_packet[: int(packets.sum())] = np.repeat(labels[order], packets[order])
    marks, length = np.asarray(store.packet("marks")), np.asarray(store.packet("length"))
    payload = np.asarray(store.packet("payload_length")) > 0
    tcp = np.asarray(store.session("protocol")) == 6
    of_packets = {
        "packets": np.ones(len(marks), bool),
        "with payload": payload,
        "cut": cut_packets(store),
        "large": length > ETHERNET_PACKET,
        "copies": marks & MARK_COPY > 0,
        "tunnelled": marks & MARK_TUNNELLED > 0,
        "retransmissions": marks & MARK_RETRANSMISSION > 0,
        "keepalives": marks & MARK_KEEPALIVE > 0,
        "first_fragments": marks & MARK_FRAGMENT > 0,
    }
    used = of_packet != NO_CLASS
    sums: dict[str, NDArray[Any]] = {
        name: np.bincount(of_packet[used & where], minlength=classes) for name, where in of_packets.items()
    }
    sums["bytes"] = np.bincount(of_packet[used], length[used], minlength=classes).astype(np.int64)
    sums["sessions"] = np.bincount(labels[rows], minlength=classes)
    sums["tcp"] = np.bincount(labels[rows][tcp[rows]], minlength=classes)
    late = tcp[rows] & (np.isin(np.asarray(store.session("client_by"))[rows], _GUESSED))
    return sums | {"mid_stream": np.bincount(labels[rows][late], minlength=classes)}


def cut_packets(store: Store) -> NDArray[np.bool_]:
    """Which packets lack payload that their headers declare: bool ``[packets]``; none of records, which hold none."""
    if store.of_records:
        return np.zeros(store.manifest.packets, bool)
    return is_cut(*(np.asarray(store.packet(name)) for name in ("captured", "payload", "payload_length")))


def said(capture: CaptureEntry, remark: str) -> tuple[str, ...]:
    """What a capture says of its ``clocks`` or ``tools``, texts, sorted."""
    return tuple(sorted(capture.remarks.get(remark, [])))


def _row(
    store: Store, name: str, number: int, labels: NDArray[np.int64], sums: Mapping[str, NDArray[Any]]
) -> ClassSetUp:
    held = np.unique(np.asarray(store.session("capture"))[labels == number])
    captures = [store.manifest.captures[one] for one in held]
    counts: collections.Counter[str] = collections.Counter()
    for capture in captures:
        counts.update({key: capture.remarks.get(key, 0) for key in _OF_CAPTURES} | capture.skipped)
    of = {"cut": "with payload", "mid_stream": "tcp"}
    shares = {key: _share(sums[key][number], sums[of.get(key, "packets")][number]) for key in SHARES if key in sums}
    shares["clock_back"] = _share(sum(capture.remarks.get("steps_back", 0) > 0 for capture in captures), len(captures))
    return ClassSetUp(
        name=name,
        captures=len(captures),
        sessions=int(sums["sessions"][number]),
        packets=int(sums["packets"][number]),
        bytes=int(sums["bytes"][number]),
        shares=shares,
        marks={key: int(sums[key][number]) for key in ("retransmissions", "keepalives", "first_fragments")},
        of_captures={key: value for key, value in counts.items() if value},
        link_types=tuple(sorted({kind for capture in captures for kind in capture.link_types})),
        snap_lengths=tuple(sorted({capture.remarks.get("snaplen", 0) for capture in captures})),
        clocks=tuple(sorted({clock for capture in captures for clock in said(capture, "clocks")})),
        tools=tuple(sorted({tool for capture in captures for tool in said(capture, "tools")})),
    )


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else 0.0


def differences(rows: Sequence[ClassSetUp]) -> list[str]:
    """What tells classes apart before their traffic does, a line each; empty where they were captured alike."""
    known = [row for row in rows if row.packets]
    if len(known) < 2:
        return []
    lines = []
    for key, words in SHARES.items():
        low, high = (choose(known, key=lambda row: row.shares[key]) for choose in (min, max))
        if high.shares[key] - low.shares[key] > APART:
            ends = f"{100 * low.shares[key]:.0f} % ({low.name}) to {100 * high.shares[key]:.0f} % ({high.name})"
            lines.append(f"{words}: {ends}")
    return lines + _sets_apart(known)


def _sets_apart(rows: Sequence[ClassSetUp]) -> list[str]:
    """A line for each property of captures of which two classes share nothing, with the first such two."""
    lines = []
    properties: dict[str, Callable[[ClassSetUp], tuple[Any, ...]]] = {
        "link types": lambda row: row.link_types,
        "snap lengths": lambda row: row.snap_lengths,
        "clocks": lambda row: row.clocks,
        "capture tools": lambda row: row.tools or (("none named",) if row.clocks else ()),
    }
    for words, of in properties.items():
        told = [row for row in rows if of(row)]  # records tell none of them
        apart = [pair for pair in combinations(told, 2) if not set(of(pair[0])) & set(of(pair[1]))]
        if apart:
            texts = [f"{', '.join(map(str, of(one)))} ({one.name})" for one in apart[0]]
            lines.append(f"{words}: {' and '.join(texts)}")
    return lines


def set_up_table(rows: Sequence[ClassSetUp]) -> list[tuple[str, ...]]:
    """The classes as text cells, head first; columns of zeros alone are left out."""
    columns: dict[str, list[str]] = {
        "class": [row.name for row in rows],
        "captures": [str(row.captures) for row in rows],
        "sessions": [str(row.sessions) for row in rows],
        "packets": [str(row.packets) for row in rows],
        "bytes": [str(row.bytes) for row in rows],
        "link types": [", ".join(row.link_types) for row in rows],
        "snap length": [", ".join(map(str, row.snap_lengths)) if row.clocks else "" for row in rows],
        "clock": [", ".join(row.clocks) for row in rows],
        "tool": [", ".join(row.tools) for row in rows],
    }
    for key in SHARES:
        columns[key.replace("_", "-")] = [f"{100 * row.shares[key]:.1f} %" if row.shares[key] else "" for row in rows]
    for key in ("retransmissions", "keepalives", "first_fragments"):
        columns[key.replace("_", " ")] = [str(row.marks[key] or "") for row in rows]
    for key in sorted({key for row in rows for key in row.of_captures}):
        columns[key.replace("_", " ")] = [f"{row.of_captures.get(key, '')}" for row in rows]
    kept = {name: cells for name, cells in columns.items() if any(cells)}
    return list(zip(*([name, *cells] for name, cells in kept.items()), strict=True))
