"""Labels of sessions: label columns from paths or a CSV file, and the classes of a card's tasks.

Labels stand in a table with one row a capture (from its path) or one row a session (from a CSV file); every
session points at one row or at none.
"""

import csv
import functools
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, DecimalException
from pathlib import Path
from re import compile as compile_pattern
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.data.cards import PatternLabels, SessionLabels, Task
from bench.data.manifest import TaskEntry
from bench.errors import InputError
from bench.schema import NO_CLASS

Columns = Mapping[str, NDArray[Any]]

PROTOCOLS: Final = {"tcp": 6, "udp": 17, "6": 6, "17": 17}
NO_ROW: Final = -1
LISTED: Final = 20  # how many of a kind a report names
TOLERANCE: Final = 1000  # ns; label files round times to microseconds


@dataclass(frozen=True)
class LabelTable:
    """Label columns by row, and int64 ``[sessions]`` the row of each session, NO_ROW where it has none."""

    row: NDArray[np.int64]
    columns: dict[str, Sequence[str]]
    report: dict[str, Any]


@dataclass(frozen=True)
class LabelFile:
    """A CSV file of sessions, read and checked: all columns as texts, and what sessions are matched by."""

    columns: dict[str, Sequence[str]]
    tuples: NDArray[np.uint8]  # five_tuples of the rows
    start: NDArray[np.int64]  # ns since the epoch, [rows]; 0 where the card names no column
    counts: dict[str, NDArray[np.int64]]  # session column -> what the file says it is, [rows]


def read_label_file(labels: SessionLabels, path: Path, tasks: Mapping[str, Task]) -> LabelFile:
    """Read a label file.  Raises :class:`InputError` where it is not what the card describes."""
    columns = _read_csv(labels, path, tasks)
    protocol = [PROTOCOLS.get(text.lower(), 0) for text in columns[labels.protocol]]
    version = [6 if ":" in text else 4 for text in columns[labels.endpoints[0]]]
    ends = []
    for ip, port in (labels.endpoints[:2], labels.endpoints[2:]):
        try:
            packed = np.array([_packed(text) for text in columns[ip]], "S16")
        except ValueError as error:
            raise InputError("bad-label-file", f"{path}: column {ip}: {error}") from error
        ends.append((packed, _integers(columns[port], port, path, most=65535)))
    counts = {name: _integers(columns[column], column, path) for name, column in labels.check.items()}
    return LabelFile(columns, five_tuples(protocol, version, ends), _starts(labels, columns, path), counts)


def label_table(
    labels: PatternLabels | SessionLabels,
    file: LabelFile | None,
    captures: Sequence[str],
    sessions: Columns,
    *,
    check: bool,
) -> LabelTable:
    """The labels of all sessions, by the captures' paths or from the label file.

    ``captures`` are the paths that ``sessions["capture"]`` counts; ``check`` compares sessions with the label
    file's own counts.
    """
    if isinstance(labels, SessionLabels):
        assert file is not None
        return _from_file(labels, file, captures, sessions, check)
    return _from_paths(labels, captures, sessions)


def list_table(rows: Sequence[Mapping[str, str]], sessions: Columns) -> LabelTable:
    """The labels of all sessions by their captures' label columns; ``sessions["capture"]`` counts ``rows``."""
    columns = {name: [row[name] for row in rows] for name in sorted(rows[0])}
    return LabelTable(np.asarray(sessions["capture"], np.int64), dict(columns), {})


def five_tuples(protocol: Any, version: Any, ends: Sequence[tuple[Any, Any]]) -> NDArray[np.uint8]:
    """uint8 ``[rows, 38]``, equal where protocol, IP version and the two (address, port) are, in either order."""
    n = len(protocol)
    a, b = (
        np.concatenate(
            [np.ascontiguousarray(ip, "S16").view(np.uint8).reshape(n, 16), _bytes_of(np.asarray(port, ">u2"))], axis=1
        )
        for ip, port in ends
    )
    first = (a != b).argmax(1)[:, None]  # the first byte that differs
    swap = np.take_along_axis(a, first, 1) > np.take_along_axis(b, first, 1)
    low, high = np.where(swap, b, a), np.where(swap, a, b)
    return np.concatenate([_bytes_of(np.asarray(protocol, "u1")), _bytes_of(np.asarray(version, "u1")), low, high], 1)


def session_tuples(sessions: Columns) -> NDArray[np.uint8]:
    """The :func:`five_tuples` of session columns, ``[sessions, bytes]``."""
    ends = [(sessions[f"{side}_ip"], sessions[f"{side}_port"]) for side in ("client", "server")]
    return five_tuples(sessions["protocol"], sessions["ip_version"], ends)


def numbers(keys: NDArray[np.uint8]) -> NDArray[np.int64]:
    """int64 ``[rows]``: equal rows of bytes get equal numbers, counted from 0 in the order of the bytes."""
    if not len(keys):
        return np.zeros(0, np.int64)
    # equally long byte strings compare like the rows: NumPy's stripped trailing zeros change nothing
    text = np.ascontiguousarray(keys).view(f"S{keys.shape[1]}").ravel()
    return np.unique(text, return_inverse=True)[1].astype(np.int64)


def task_labels(task: Task, table: LabelTable, sessions: Columns) -> tuple[NDArray[np.int16], TaskEntry]:
    """int16 ``[sessions]`` classes of a task (NO_CLASS where unused), and its entry in the manifest."""
    names = row_classes(task, table.columns)
    classes = sorted({name for name in names if name})
    number = {name: i for i, name in enumerate(classes)}
    by_row = np.array([number.get(name, NO_CLASS) for name in names] + [NO_CLASS], np.int64)  # the last: NO_ROW
    labels = by_row[table.row]
    if task.payload:
        labels = np.where(sessions["payload_packets"] > 0, labels, NO_CLASS)

    used = np.flatnonzero(labels >= 0)
    pairs = np.unique(np.stack([labels[used], sessions["capture"][used]]), axis=1)
    captures = np.bincount(pairs[0], minlength=len(classes))
    kept = np.flatnonzero(captures >= task.minimum_captures)
    renumber = np.full(len(classes) + 1, NO_CLASS, np.int16)
    renumber[kept] = np.arange(len(kept))
    final = renumber[labels]
    counts = np.bincount(final[final >= 0], minlength=len(kept))
    return final, TaskEntry(
        classes=[classes[i] for i in kept],
        sessions=int(counts.sum()),
        class_sessions=counts.tolist(),
        class_captures=captures[kept].tolist(),
        dropped={classes[i]: int(captures[i]) for i in np.flatnonzero(captures < task.minimum_captures)},
        notes=task.notes,
    )


def row_classes(task: Task, columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Class name of every row of label columns, empty where the task does not use it."""
    parts = zip(*(columns[name] for name in task.columns), strict=True)
    values = [_filled(task, row) if all(row) else "" for row in parts]
    values = [task.merge.get(value, value) for value in values]
    for column, kept in task.where.items():
        values = [name if value in kept else "" for name, value in zip(values, columns[column], strict=True)]
    return values


def _filled(task: Task, row: Sequence[str]) -> str:
    """The task's label for one row's values of ``task.columns``."""
    if task.columns == (task.label,):
        return row[0]
    return functools.reduce(
        lambda text, part: text.replace(f"{{{part[0]}}}", part[1]), zip(task.columns, row, strict=True), task.label
    )


def _listed(items: Sequence[Any] | NDArray[Any], describe: Callable[[Any], Any] = lambda item: item) -> dict[str, Any]:
    """A report's entry for things that are counted and of which the first are named."""
    return {"count": len(items), "first": [describe(item) for item in items[:LISTED]]}


def _from_paths(labels: PatternLabels, captures: Sequence[str], sessions: Columns) -> LabelTable:
    pattern = compile_pattern(labels.pattern)
    matches = [match.groupdict("") if (match := pattern.search(path)) else {} for path in captures]
    columns = {name: [groups.get(name, "") for groups in matches] for name in sorted(labels.columns)}
    unlabelled = [path for path, groups in zip(captures, matches, strict=True) if not groups]
    labelled = np.array([bool(groups) for groups in matches], bool)
    row = np.where(labelled[sessions["capture"]], sessions["capture"], NO_ROW).astype(np.int64)
    missing = int((row == NO_ROW).sum())
    return LabelTable(row, dict(columns), {"unlabelled": {"count": missing, "captures": _listed(unlabelled)}})


def _from_file(
    labels: SessionLabels, file: LabelFile, captures: Sequence[str], sessions: Columns, check: bool
) -> LabelTable:
    capture = {name: i for i, name in enumerate(captures)}
    names = file.columns[labels.capture]
    in_capture = [capture.get(name, -1) for name in names]
    places = np.concatenate([np.array(in_capture, ">i4"), np.asarray(sessions["capture"], ">i4")])
    tuples = np.concatenate([file.tuples, session_tuples(sessions)])
    key = numbers(np.concatenate([tuples, _bytes_of(places)], axis=1))
    rows = len(names)
    row, alone = _match(key[:rows], file.start, key[rows:], sessions["start"])

    free = np.ones(rows, bool)
    free[row[row != NO_ROW]] = False
    missing = sorted({name for name in names if name not in capture})
    _, first = np.unique(np.stack([key[:rows], file.start]), axis=1, return_index=True)
    double = np.setdiff1d(np.arange(rows), first)  # of one session and one time: at most one of them can be right
    report = {
        "rows": rows,
        "missing_captures": _listed(missing),
        "double": _listed(double, lambda i: _row_text(labels, file, i)),
        "unmatched": _listed(np.flatnonzero(free), lambda i: _row_text(labels, file, i)),
        "unlabelled": _listed(np.flatnonzero(row == NO_ROW), lambda i: _session_text(captures, sessions, i)),
    }
    if check:
        compared = np.flatnonzero(alone)
        report["compared"] = len(compared)
        report["differences"] = _differences(file, row, compared, captures, sessions)
    return LabelTable(row, file.columns, report)


def _match(
    row_key: NDArray[np.int64], row_start: NDArray[np.int64], key: NDArray[np.int64], start: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Each session's row: of the rows with its key the last that starts no later than it, else the first.

    So one row labels all sessions that an idle timeout makes of its 5-tuple.  Also says, bool ``[sessions]``,
    where one row and one session have the key to themselves and their counts can be compared.
    """
    order = np.lexsort([row_start, row_key])
    row_key, row_start = row_key[order], row_start[order]
    low, high = np.searchsorted(row_key, key, "left"), np.searchsorted(row_key, key, "right")
    place = low.copy()
    for i in np.flatnonzero(high - low > 1):
        earlier = np.searchsorted(row_start[low[i] : high[i]], start[i] + TOLERANCE, "right")
        place[i] += max(int(earlier) - 1, 0)
    row = np.full(len(key), NO_ROW, np.int64)
    has_row = high > low
    row[has_row] = order[place[has_row]]
    return row, (high - low == 1) & (np.bincount(key)[key] == 1) if len(key) else has_row


def _differences(
    file: LabelFile,
    row: NDArray[np.int64],
    compared: NDArray[np.int64],
    captures: Sequence[str],
    sessions: Columns,
) -> dict[str, Any]:
    """Where the label file's counts are not those of the ingest, by column."""

    def describe(i: int, name: str) -> dict[str, Any]:
        text = _session_text(captures, sessions, i)
        return {"session": text, "expected": int(file.counts[name][row[i]]), "found": int(sessions[name][i])}

    return {
        name: _listed(
            compared[counts[row[compared]] != sessions[name][compared]], functools.partial(describe, name=name)
        )
        for name, counts in file.counts.items()
    }


def _session_text(captures: Sequence[str], sessions: Columns, i: int) -> str:
    """A session for people: capture, protocol and end points."""
    size = 4 if sessions["ip_version"][i] == 4 else 16
    ends = []
    for side in ("client", "server"):
        address = bytes(sessions[f"{side}_ip"][i]).ljust(16, b"\0")[:size]  # NumPy strips trailing zeros
        ends.append(f"{ipaddress.ip_address(address)} {sessions[f'{side}_port'][i]}")
    protocol = "TCP" if sessions["protocol"][i] == 6 else "UDP"
    return f"{captures[sessions['capture'][i]]} {protocol} {' - '.join(ends)}"


def _row_text(labels: SessionLabels, file: LabelFile, i: int) -> str:
    capture, protocol, a, b, c, d = (
        file.columns[name][i] for name in (labels.capture, labels.protocol, *labels.endpoints)
    )
    return f"{capture} {protocol} {a} {b} - {c} {d}"


def _read_csv(labels: SessionLabels, path: Path, tasks: Mapping[str, Task]) -> dict[str, Sequence[str]]:
    """All columns of the label file as texts."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            head, *rows = (row for row in csv.reader(file) if row)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError("bad-label-file", f"{path}: cannot be read as a label file: {error}") from error
    for line, row in enumerate(rows, 2):
        if len(row) != len(head):
            raise InputError("bad-label-file", f"{path}: row {line} has {len(row)} columns, the head has {len(head)}")
    needed = [labels.capture, labels.protocol, *labels.endpoints, *labels.check.values(), *filter(None, [labels.start])]
    for task in tasks.values():
        needed += [*task.columns, *task.where]
    for name in needed:
        if name not in head:
            raise InputError(
                "bad-label-file", f"{path}: has no column {name!r}, which the card names; it has: {', '.join(head)}"
            )
    return dict(zip(head, zip(*rows, strict=True) if rows else [()] * len(head), strict=True))


def _starts(labels: SessionLabels, columns: Mapping[str, Sequence[str]], path: Path) -> NDArray[np.int64]:
    """int64 ``[rows]`` ns since the epoch; 0 where the card names no column."""
    if not labels.start:
        return np.zeros(len(columns[labels.capture]), np.int64)
    try:
        return np.array([int(Decimal(text).scaleb(9)) for text in columns[labels.start]], np.int64)
    except (DecimalException, OverflowError, ValueError) as error:
        raise InputError(
            "bad-label-file", f"{path}: column {labels.start} has a value that is no time in seconds"
        ) from error


def _integers(texts: Sequence[str], column: str, path: Path, most: int = 2**63 - 1) -> NDArray[np.int64]:
    try:
        values = [int(text) for text in texts]
    except ValueError as error:
        raise InputError("bad-label-file", f"{path}: column {column}: {error}") from error
    for value in values:
        if not 0 <= value <= most:
            raise InputError("bad-label-file", f"{path}: column {column}: {value} is not within 0…{most}")
    return np.array(values, np.int64)


@functools.lru_cache(maxsize=1 << 16)
def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def _bytes_of(values: NDArray[Any]) -> NDArray[np.uint8]:
    """uint8 ``[rows, itemsize]``."""
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), values.dtype.itemsize)
