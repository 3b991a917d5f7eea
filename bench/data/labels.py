"""Labels of sessions: label columns from paths or a CSV file, and the classes of a card's tasks.

Labels stand in a table with one row a capture (from its path) or one row a session (from a CSV file); every
session points at one row or at none.
"""

import functools
import ipaddress
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, DecimalException
from pathlib import Path
from re import compile as compile_pattern
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.data.card_tables import PatternLabels, SessionLabels, Task, check_apart, check_classes, filled
from bench.data.file_list import capture_key
from bench.data.manifest import TaskEntry
from bench.errors import InputError, all_wrong
from bench.files import csv_rows
from bench.records.layout import PROTOCOLS
from bench.schema import NO_CLASS, numbered

Columns = Mapping[str, NDArray[Any]]

NO_ROW: Final = -1
TUPLE: Final = 38  # bytes of a row of five_tuples
CHUNK: Final = 1 << 16
FEW: Final = 3  # cells of a column that a refusal names
LISTED: Final = 20  # how many of a kind a report names
TOLERANCE: Final = 1000  # ns; label files round times to microseconds at least
CONSTANT: Final = 1.0  # s; times are off by a constant where they are by more, and nearly all by so little else
NEARLY_ALL: Final = 0.95  # of the 5-tuples: a file that leaves out some sessions shows others' times for theirs
FAR: Final = 3600.0  # s; sessions and rows so far apart are told to people


@dataclass(frozen=True)
class LabelTable:
    """Label columns by row, and int64 ``[sessions]`` the row of each session, NO_ROW where it has none."""

    row: NDArray[np.int64]
    columns: dict[str, Sequence[str]]
    report: dict[str, Any]


@dataclass(frozen=True)
class _Keyed:
    """What rows or sessions are matched by: int64 ``[n]`` numbers of capture and 5-tuple, and start in ns."""

    key: NDArray[np.int64]
    start: NDArray[np.int64]


@dataclass(frozen=True)
class LabelFile:
    """A CSV file of sessions, read and checked: all columns as texts, and what sessions are matched by."""

    columns: dict[str, Sequence[str]]
    tuples: NDArray[np.uint8]  # five_tuples of the rows
    start: NDArray[np.int64]  # ns since the epoch, [rows]; 0 where the card names no column
    counts: dict[str, NDArray[np.int64]]  # session column -> what the file says it is, [rows]


def read_label_file(labels: SessionLabels, path: Path, tasks: Mapping[str, Task]) -> LabelFile:
    """Read a label file.  Raises :class:`InputError` with all that is not what the card describes."""
    columns = _read_csv(labels, path, tasks)
    problems: list[str] = []

    def numbers(name: str, read: Callable[[str], Any], what: str) -> list[Any]:
        return _column(name, columns[name], read, what, problems)

    protocol = [PROTOCOLS.get(text.lower(), 0) for text in columns[labels.protocol]]
    version = [6 if ":" in text else 4 for text in columns[labels.endpoints[0]]]
    ends = [
        (numbers(ip, _packed, "not an address"), numbers(port, _integer(65535), "not a number within 0…65535"))
        for ip, port in (labels.endpoints[:2], labels.endpoints[2:])
    ]
    most = 2**63 - 1
    counts = {name: numbers(one, _integer(most), f"not a number within 0…{most}") for name, one in labels.check.items()}
    start = numbers(labels.start, _nanoseconds, "not a time in seconds") if labels.start else [0] * len(protocol)
    if problems:
        raise all_wrong("bad-label-file", path, problems)
    tuples = five_tuples(protocol, version, [(np.array(ip, "S16"), np.array(port, np.int64)) for ip, port in ends])
    checked = {name: np.array(values, np.int64) for name, values in counts.items()}
    return LabelFile(columns, tuples, np.array(start, np.int64), checked)


def _column(name: str, texts: Sequence[str], read: Callable[[str], Any], what: str, problems: list[str]) -> list[Any]:
    """The values of a column; cells that cannot be read go to the problems, of each column the first few."""
    values, wrong = [], []
    for row, text in enumerate(texts, 2):
        try:
            values.append(read(text))
        except (DecimalException, OverflowError, ValueError):
            wrong.append(f"column {name}: {text!r:.80} is {what} (row {row})")
    more = len(wrong) - FEW
    problems += wrong[:FEW] + ([f"column {name}: {more:,} further cells like these"] if more > 0 else [])
    return values


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
    file's own counts.  The report is of JSON types; :func:`label_remarks` says what of it people should know.
    """
    if isinstance(labels, SessionLabels):
        assert file is not None
        return _from_file(labels, file, captures, sessions, check)
    return _from_paths(labels, captures, sessions)


def list_table(rows: Sequence[Mapping[str, str]], sessions: Columns) -> LabelTable:
    """The labels of all sessions by their captures' label columns; ``sessions["capture"]`` counts ``rows``."""
    columns = {name: [row[name] for row in rows] for name in sorted(rows[0])}
    return LabelTable(np.asarray(sessions["capture"], np.int64), dict(columns), {})


def with_observed(table: LabelTable, name: str, holds: NDArray[np.bool_]) -> LabelTable:
    """The table with a column more: "1" for sessions that it ``holds`` for, bool ``[sessions]``, "0" for others."""
    row = np.where(table.row == NO_ROW, NO_ROW, 2 * table.row + holds)
    columns: dict[str, Sequence[str]] = {
        key: [cell for cell in cells for _ in "01"] for key, cells in table.columns.items()
    }
    rows = len(next(iter(table.columns.values())))
    return LabelTable(row, columns | {name: ["0", "1"] * rows}, table.report)


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
    """The :func:`five_tuples` of session columns, ``[sessions, bytes]``; made by parts, to take little beside them."""
    table = np.zeros((len(sessions["protocol"]), TUPLE), np.uint8)
    for rows in (slice(begin, begin + CHUNK) for begin in range(0, len(table), CHUNK)):
        ends = [(sessions[f"{side}_ip"][rows], sessions[f"{side}_port"][rows]) for side in ("client", "server")]
        table[rows] = five_tuples(sessions["protocol"][rows], sessions["ip_version"][rows], ends)
    return table


def task_labels(task: Task, table: LabelTable, sessions: Columns) -> tuple[NDArray[np.int16], TaskEntry]:
    """int16 ``[sessions]`` classes of a task (NO_CLASS where unused), and its entry in the manifest.

    Raises :class:`InputError` for more classes than int16 numbers, and names that nobody could tell apart.
    """
    names = row_classes(task, table.columns)
    classes = sorted({name for name in names if name})
    remedy = "mend the labels, or name one of the two in `merge` of the card's task"
    check_classes("bad-card", f"label {task.label!r}", classes, remedy)
    number = {name: i for i, name in enumerate(classes)}
    by_row = np.array([number.get(name, NO_CLASS) for name in names] + [NO_CLASS], np.int64)  # the last: NO_ROW
    labels = by_row[table.row]
    if task.payload:
        labels = np.where(sessions["payload_packets"] > 0, labels, NO_CLASS)

    used = np.flatnonzero(labels >= 0)
    pairs = np.unique(np.stack([labels[used], sessions["capture"][used]]), axis=1)
    captures = np.bincount(pairs[0], minlength=len(classes))
    kept = np.flatnonzero(captures >= task.minimum_captures)
    if len(kept) > np.iinfo(np.int16).max:
        what = f"label {task.label!r} has {len(kept):,} classes, more than {np.iinfo(np.int16).max:,}"
        raise InputError("bad-card", f"{what}; name a column of classes, not of single sessions")
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
    """Class name of every row of label columns, empty where the task does not use it.

    Raises :class:`InputError` where rows of other values have one name.
    """
    rows = list(zip(*(columns[name] for name in task.columns), strict=True))
    texts = [filled(task, row) if all(row) else "" for row in rows]
    values = [task.merge.get(text, text) for text in texts]
    for column, kept in task.where.items():
        values = [name if value in kept else "" for name, value in zip(values, columns[column], strict=True)]
    check_apart(task, [(text, row) for text, row, value in zip(texts, rows, values, strict=True) if value])
    return values


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


def label_remarks(report: Mapping[str, Any]) -> list[str]:
    """Lines for people on how a label file and the sessions met, each with what to do; none where all is well.

    ``report`` is a :class:`LabelTable`'s; one of labels that come from paths or a list has no line.
    """
    if "rows" not in report:
        return []
    lines, unmatched = _time_remarks(report.get("times", {})), report["unmatched"]
    if unmatched["count"]:
        lines.append(
            f"{unmatched['count']:,} of {report['rows']:,} rows have no session, first {unmatched['first'][0]}: see "
            f"whether captures are missing ({report['missing_captures']['count']:,} are), end points are written "
            "otherwise, or one session has several rows (sessions by TCP connection or an idle timeout part it)"
        )
    if report.get("unlabelled_payload"):
        lines.append(
            f"{report['unlabelled_payload']:,} sessions with payload have no row and so no label: the file does not "
            "list them, or all rows of their 5-tuple start later; labels.unlabelled in the manifest names the first"
        )
    return [f"label file: {line}" for line in lines]


def _time_remarks(times: Mapping[str, Any]) -> list[str]:
    """What the distances of sessions and rows say."""
    lines = []
    if constant := times.get("constant_s"):
        lines.append(
            f"nearly all rows are {abs(constant):,.0f} s {'later' if constant > 0 else 'earlier'} than their sessions, "
            "so that sessions may have other rows' labels: is the label file of another time zone? Put its start "
            "column right and prepare again"
        )
    elif times.get("far"):
        lines.append(
            f"{times['far']:,} sessions start over an hour from their row (at most {times['largest_s']:,.0f} s, the "
            f"median of all is {times['median_s']:,.0f} s): see whether the file's start column is in UTC and of these "
            "captures, and whether a row's label still holds so much later"
        )
    if times.get("earlier"):
        lines.append(
            f"{times['earlier']:,} sessions start before the only row of their 5-tuple and keep its label: see "
            "whether the file's start column is in UTC and of these captures, or the file leaves out their first packet"
        )
    return lines


def _from_file(
    labels: SessionLabels, file: LabelFile, captures: Sequence[str], sessions: Columns, check: bool
) -> LabelTable:
    names = file.columns[labels.capture]
    capture = _named(names, captures)
    in_capture = [capture[name] for name in names]
    places = np.concatenate([np.array(in_capture, ">i4"), np.asarray(sessions["capture"], ">i4")])
    tuples = np.concatenate([file.tuples, session_tuples(sessions)])
    key = numbered(np.concatenate([tuples, _bytes_of(places)], axis=1))
    start = np.asarray(sessions["start"], np.int64)
    rows = _Keyed(key[: len(names)], file.start)
    ours = _Keyed(key[len(names) :], start if labels.start else np.zeros_like(start))
    rounding = _rounding(file.start)
    row = _match(rows, ours, rounding)

    free = np.ones(len(names), bool)
    free[row[row != NO_ROW]] = False
    missing = sorted(name for name, number in capture.items() if number < 0)
    _, first = np.unique(np.stack([rows.key, rows.start]), axis=1, return_index=True)
    double = np.setdiff1d(np.arange(len(names)), first)  # of one session and one time: at most one of them can be right
    bare = np.flatnonzero(row == NO_ROW)
    quiet = sessions["payload_packets"][bare] == 0
    report = {
        "rows": len(names),
        "missing_captures": _listed(missing),
        "double": _listed(double, lambda i: _row_text(labels, file, i)),
        "unmatched": _listed(np.flatnonzero(free), lambda i: _row_text(labels, file, i)),
        "unlabelled": _listed(bare[np.argsort(quiet, kind="stable")], lambda i: _session_text(captures, sessions, i)),
        "unlabelled_payload": int((~quiet).sum()),  # the first of the listed: most tasks miss no others
    }
    if labels.start:
        report["times"] = _times(rows, ours, row, rounding)
    if check:
        compared = np.flatnonzero((np.bincount(rows.key)[rows.key] == 1) & ~free)
        report["compared"] = len(compared)
        report["differences"] = _differences(file, row, compared, captures, sessions)
    return LabelTable(row, file.columns, report)


def _named(names: Sequence[str], captures: Sequence[str]) -> dict[str, int]:
    """Captures' numbers by a label file's names, also of one packed or converted since if none is alike; else -1."""
    exact = {path: i for i, path in enumerate(captures)}
    alike = Counter(map(capture_key, captures))
    alone = {key: i for path, i in exact.items() if alike[key := capture_key(path)] == 1}
    return {name: exact.get(name, alone.get(capture_key(name), -1)) for name in set(names)}


def _rounding(start: NDArray[np.int64]) -> int:
    """How far at most, in ns, a file's times ``[rows]`` are rounded, by the times themselves.

    Less than the largest of 1 s, 0.1 s, … of which all are multiples; TOLERANCE where that is not more.
    """
    units = (10**digits for digits in range(9, 3, -1))
    return next((unit - 1 for unit in units if not (start % unit).any()), TOLERANCE)


def _match(rows: _Keyed, sessions: _Keyed, rounding: int) -> NDArray[np.int64]:
    """Each session's row, int64 ``[sessions]``: of the rows with its key the last that starts no later than it.

    So one row labels all sessions that a timeout or a reused port makes of its 5-tuple.  Times may be rounded:

    - a row at most TOLERANCE later is no later;
    - where that leaves no row within ``rounding`` ns before the session, one so little later is taken.  So a file of
      whole seconds may round down, up or to the nearest, and sessions of one 5-tuple that start two seconds apart
      are still told apart.

    A row that is the only one of its key is unambiguous and taken whatever its time.  Else a session that starts
    before all rows has NO_ROW.
    """
    order = np.lexsort([rows.start, rows.key])
    ordered = _Keyed(rows.key[order], rows.start[order])
    place = _last_until(ordered, sessions.key, sessions.start + TOLERANCE)
    close = (place != NO_ROW) & (np.append(ordered.start, 0)[place] >= sessions.start - rounding)
    place = np.where(close, place, _last_until(ordered, sessions.key, sessions.start + rounding))
    low, high = (np.searchsorted(ordered.key, sessions.key, side) for side in ("left", "right"))
    place = np.where(high - low == 1, low, place)
    return np.append(order, NO_ROW)[place]


def _last_until(rows: _Keyed, key: NDArray[np.int64], time: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 ``[times]``: place of the last of the sorted rows with that key that starts by that time, or NO_ROW."""
    n = len(rows.key)
    order = np.lexsort([np.concatenate([rows.start, time]), np.concatenate([rows.key, key])])  # stable: rows go first
    before = np.empty(len(order), np.int64)
    before[order] = np.cumsum(order < n)
    place = before[n:] - 1
    return np.where(np.append(rows.key, NO_ROW)[place] == key, place, NO_ROW)


def _times(rows: _Keyed, sessions: _Keyed, row: NDArray[np.int64], rounding: int) -> dict[str, Any]:
    """How far in seconds sessions and their rows ``[sessions]`` start apart, how many by much, how many earlier."""
    found = np.flatnonzero(row != NO_ROW)
    ours, theirs = sessions.start[found], rows.start[row[found]]
    apart = np.abs(_later(theirs, ours))
    return {
        "median_s": round(float(np.median(apart)), 6) if len(found) else None,
        "largest_s": round(float(apart.max()), 6) if len(found) else None,
        "constant_s": _constant(rows, sessions),
        "far": int((apart > FAR).sum()),
        "earlier": int((theirs > ours + rounding).sum()),
    }


def _constant(rows: _Keyed, sessions: _Keyed) -> float | None:
    """Seconds by which nearly all rows are later than their sessions (negative: earlier); None: by no one constant.

    Of each key the first row and the first session are compared: with a clock that is off, sessions have the wrong
    row or none, but the first is still the first.
    """
    (row_key, row_start), (key, start) = _firsts(rows), _firsts(sessions)
    _, i, j = np.intersect1d(row_key, key, assume_unique=True, return_indices=True)
    later = _later(row_start[i], start[j])
    middle = float(np.median(later)) if len(later) else 0.0
    constant = abs(middle) > CONSTANT and np.mean(np.abs(later - middle) <= CONSTANT) >= NEARLY_ALL
    return round(middle, 6) if constant else None


def _firsts(of: _Keyed) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The keys, each once, and the earliest start of each in ns: int64 ``[keys]``."""
    order = np.lexsort([of.start, of.key])
    key, first = np.unique(of.key[order], return_index=True)
    return key, of.start[order][first]


def _later(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float64]:
    """Seconds by which times in ns ``a`` are later than ``b``, right to a microsecond."""
    return (a.astype(np.float64) - b.astype(np.float64)) / 1e9  # as integers, a nonsense time would overflow


def _differences(
    file: LabelFile,
    row: NDArray[np.int64],
    compared: NDArray[np.int64],
    captures: Sequence[str],
    sessions: Columns,
) -> dict[str, Any]:
    """Where the label file's counts are not those of the ingest, by column.

    A row of ``compared`` is the only one of its 5-tuple, so that all the sessions of this have it: it counts what
    they do together.
    """
    has_row = np.flatnonzero(row != NO_ROW)
    first = np.zeros(len(file.start), np.int64)
    first[row[has_row[::-1]]] = has_row[::-1]

    def column(name: str, expected: NDArray[np.int64]) -> dict[str, Any]:
        found = np.zeros_like(expected)
        np.add.at(found, row[has_row], sessions[name][has_row])

        def describe(i: int) -> dict[str, Any]:
            text = _session_text(captures, sessions, int(first[i]))
            return {"session": text, "expected": int(expected[i]), "found": int(found[i])}

        return _listed(compared[expected[compared] != found[compared]], describe)

    return {name: column(name, expected) for name, expected in file.counts.items()}


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
        table = list(csv_rows(path))
    except (OSError, ValueError) as error:
        raise InputError("bad-label-file", f"{path}: cannot be read as a label file: {error}") from error
    if not table:
        raise InputError("bad-label-file", f"{path}: is empty; give a CSV file with a head and a row a session")
    (_, head), *rest = table
    rows = [row for _, row in rest]
    problems = [
        f"row {line} has {len(row)} columns, the head has {len(head)}" for line, row in rest if len(row) != len(head)
    ]
    needed = [labels.capture, labels.protocol, *labels.endpoints, *labels.check.values(), *filter(None, [labels.start])]
    for task in tasks.values():
        needed += [*task.columns, *task.where]
    if absent := [repr(name) for name in dict.fromkeys(needed) if name not in head]:
        problems.append(f"has no column {', '.join(absent)}, which the card names; it has: {', '.join(head)}")
    if problems:
        raise all_wrong("bad-label-file", path, problems)
    return dict(zip(head, zip(*rows, strict=True) if rows else [()] * len(head), strict=True))


def _nanoseconds(text: str) -> int:
    """Seconds as ns.  Raises ValueError for what is no time: a huge exponent would take minutes to be seen as such."""
    seconds = Decimal(text)
    if not seconds.is_finite() or seconds.adjusted() > 11:
        raise ValueError(text)
    return int(seconds.scaleb(9))


def _integer(most: int) -> Callable[[str], int]:
    """A reader of whole numbers up to ``most``."""

    def read(text: str) -> int:
        if not 0 <= (value := int(text)) <= most:
            raise ValueError(text)
        return value

    return read


@functools.lru_cache(maxsize=1 << 16)
def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def _bytes_of(values: NDArray[Any]) -> NDArray[np.uint8]:
    """uint8 ``[rows, itemsize]``."""
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), values.dtype.itemsize)
