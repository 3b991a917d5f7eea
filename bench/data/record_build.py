"""From tables of flow records to a store: the same columns as of captures, and a word for what records cannot tell.

Tables are read by batches, and packets spooled as they come: memory holds a batch, and some hundred bytes a session (of
a table with one row a packet, a whole file).
"""

import collections
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.data.build import Build, Columns, Progress, Readers
from bench.data.card_tables import ColumnLabels, FileLabels
from bench.data.file_list import match_captures
from bench.data.labels import LabelTable, label_table, list_table, session_tuples
from bench.data.manifest import CONTENT, CaptureEntry, FilesReport, TableEntry
from bench.data.sources import CaptureFile, capture_attributes, capture_group
from bench.data.store import path_value
from bench.errors import InputError
from bench.files import file_sha256
from bench.records.cells import BadCell
from bench.records.convert import Converted, converted
from bench.records.joining import Joined, join, joined_packets, sums
from bench.records.layout import Layout, alternatives, top_level
from bench.records.packet_rows import label_column, records_of_packets
from bench.records.tables import batches
from bench.schema import MARK_BOUNDED, PACKET_COLUMNS, numbered

Ints = NDArray[np.int64]


FEW: Final = 10  # packets that may be the same in two captures, where nothing tells when and between whom they were

#: what a batch raises whose columns are of kinds that no layout fits; ArrowException is a ValueError or one of these
_UNFIT: Final = (BadCell, ValueError, TypeError, NotImplementedError, KeyError)


class Coded:
    """Texts as numbers, in the order in which they were met first."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def __call__(self, texts: Iterable[str]) -> list[int]:
        """The number of each text."""
        return [self.numbers.setdefault(text, len(self.numbers)) for text in texts]

    @property
    def texts(self) -> list[str]:
        """The texts by number."""
        return list(self.numbers)


class RecordBuild(Build):
    """Tables are read one after the other, a batch at a time."""

    def __init__(self, *where: Any) -> None:
        super().__init__(*where)
        assert self.card.records is not None
        self.layout: Layout = self.card.records
        self.tables: list[TableEntry] = []
        self.skipped: collections.Counter[str] = collections.Counter()
        self.names = Coded()
        self.columns = dict(self.card.labels.paths) if isinstance(self.card.labels, ColumnLabels) else {}
        self.labels = [Coded() for _ in self.columns]
        self.codes: list[Ints] = []  # by batch, [sessions, label columns]
        self.listed: list[Ints] = []  # likewise, [sessions]
        self.late = self.bounded = self.joined = self.unsized = self.nameless = 0
        self.report: FilesReport | None = None
        self.told: dict[str, int] = {}  # what joining met

    def read(self, sinks: Mapping[str, Any], readers: Readers, progress: Progress | None) -> None:
        """Read the tables; ``readers`` do not matter, as pyarrow has threads of its own."""
        files = self.source.files
        size, done = sum(file.size for file in files), 0
        for number, file in enumerate(files, 1):
            records = 0
            for batch in self._batches(file):
                self._add(file, self._converted(file, batch, records), sinks)
                records += batch.num_rows
                if progress:
                    progress(done, size, number - 1, len(files), self.packets)
            digest = file_sha256(file.root / file.path)
            self.tables.append(TableEntry(file.path, file.size, digest, records))
            done += file.size
            if progress:
                progress(done, size, number, len(files), self.packets)

    def _batches(self, file: CaptureFile) -> Iterable[Any]:
        """The records of a table."""
        rows = batches(file.root / file.path, self._wanted())
        if self.layout.rows == "records":
            return rows
        with self._placed(file, 0):
            batch, skipped = records_of_packets(rows, self.layout, self.columns)
        self.skipped.update(skipped)
        return [] if batch is None else [batch]

    def _wanted(self) -> list[str]:
        """The columns of the table that are needed."""
        paths = (*self.layout.paths, *self.columns.values())
        return list(dict.fromkeys(top_level(one) for path in paths for one in alternatives(path)))

    def _converted(self, file: CaptureFile, batch: Any, before: int) -> Converted:
        with self._placed(file, before):
            if self.layout.rows == "packets":
                names = tuple(map(label_column, range(len(self.columns))))
                return converted(batch, self.layout.of_records, names)
            return converted(batch, self.layout, tuple(self.columns.values()))

    @contextmanager
    def _placed(self, file: CaptureFile, before: int) -> Iterator[None]:
        """A bad cell becomes a line with its place in the file, of which so many rows stand ``before``."""
        try:
            yield
        except _UNFIT as error:
            place, why = (
                (error.row, error.reason) if isinstance(error, BadCell) else (0, f"its columns do not fit: {error}")
            )
            what = f"{file.root / file.path}: record {before + place + 1}: {' '.join(why.split())[:200]}"
            raise InputError("bad-record", f"{what}; correct the table or the card of {self.card.name}") from error

    def _add(self, file: CaptureFile, new: Converted, sinks: Mapping[str, Any]) -> None:
        """Append a batch."""
        for name, kind in PACKET_COLUMNS.items():
            sinks[name].write(np.ascontiguousarray(new.packets[name], kind))  # tofile() hides a full disk
        sessions = new.sessions
        first = np.cumsum(sessions["packets"]) - sessions["packets"]
        sessions["first_packet"] = first + self.packets
        self.nameless += sum(not name for name in new.capture) if self.layout.capture else 0
        of_file = path_value(self.card.captures.name, file.path) if self.card.captures.name else ""
        sessions["capture"] = np.array(self.names(name or of_file or file.path for name in new.capture), np.int32)
        self.sessions.append(sessions)
        codes = [coded(cells) for coded, cells in zip(self.labels, new.labels.values(), strict=True)]
        self.codes.append(np.array(codes, np.int64).reshape(len(codes), len(first)).T)
        self.listed.append(new.listed)
        self.packets += len(new.packets["time"])
        self.skipped.update(new.skipped)
        self.late += new.late
        self.unsized += new.unsized

    def arrange(self) -> None:
        """Leave out captures that the card does not list, join records, and number the captures by name.

        Raises :class:`InputError` where nothing is left.
        """
        if not self.source.files:
            raise InputError(
                "no-capture", f"{self.source.root}: no table of records for {self.card.name}; check what is there"
            )
        if not self.packets:
            what = ", ".join(f"{count} records: {reason}" for reason, count in self.skipped.items()) or "no record"
            raise InputError("no-packets", f"{self.source.root}: nothing for {self.card.name} ({what}); check its card")
        sessions = {name: np.concatenate([part.pop(name) for part in self.sessions]) for name in [*self.sessions[0]]}
        self._check_directions()
        kept = self._known(sessions["capture"])
        if not kept.any():
            raise InputError("no-packets", f"{self.source.root}: no record is of a listed capture; check what is there")
        self.sessions, self.codes = [sessions], [np.concatenate(self.codes)]
        self.listed = [np.concatenate(self.listed)]
        if self.options.join_records or not kept.all():
            self._rearrange(sessions, np.flatnonzero(kept))
        self._number_captures()
        self._compare()
        self.join_groups()
        self._describe()

    def _check_directions(self) -> None:
        """Refuse a word for packets from the source that never stands there: all would go to the source."""
        if self.layout.directions and not (self.spooled()["direction"] > 0).any():
            what = f"forward = {self.layout.forward!r} is never in {self.layout.directions}"
            raise InputError("bad-card", f"{self.card.name}: {what}; say in its card what does")

    def _known(self, capture: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which records are of captures that count: all, or those that the card lists; bool ``[records]``."""
        if not isinstance(self.card.labels, FileLabels):
            return np.ones(len(capture), bool)
        match = match_captures(*self.card.listed(self.options.switches), self.source.root, self.names.texts, ())
        self.report = match.report
        self.source.rows.update(match.rows)
        known = np.array([name in match.rows for name in self.names.texts], bool)
        if lost := int((~known[capture]).sum()):
            self.skipped["of a capture that is not listed"] += lost
        return known[capture]

    def _rearrange(self, sessions: Columns, kept: Ints) -> None:
        """Sessions of the records ``kept``, those of one 5-tuple of a capture together where that is asked for."""
        some = {name: column[kept] for name, column in sessions.items()}
        if self.options.join_records:
            places = np.ascontiguousarray(some["capture"].astype(">i4")).view(np.uint8).reshape(-1, 4)
            key = numbered(np.concatenate([places, session_tuples(some)], axis=1))
        else:
            key = np.arange(len(kept))
        joined = join(key, some["start"])
        first = {name: column[joined.first] for name, column in some.items()}
        turned = np.zeros(len(kept), bool)
        for name in ("client_ip", "client_port"):
            turned[joined.records] |= some[name][joined.records] != first[name][joined.session]
        packets, old = self.spooled(), [self.column_file(name) for name in PACKET_COLUMNS]
        where = np.asarray(some["first_packet"], np.int64), np.asarray(some["packets"], np.int64)
        parts: list[Columns] = []
        with ExitStack() as stack:
            sinks = {n: stack.enter_context(self.folder.joinpath(f"{n}.new").open("wb")) for n in PACKET_COLUMNS}
            for columns, sizes in joined_packets(packets, *where, turned, joined):
                for name, kind in PACKET_COLUMNS.items():
                    sinks[name].write(np.ascontiguousarray(columns[name], kind).data)
                parts.append(sums(columns, sizes) | {"packets": sizes})
        for name, path in zip(PACKET_COLUMNS, old, strict=True):
            self.folder.joinpath(f"{name}.new").replace(path)
        new = first | {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        new["first_packet"] = np.cumsum(new["packets"]) - new["packets"]
        self.packets = int(new["packets"].sum())
        self.sessions = [{name: np.asarray(new[name], column.dtype) for name, column in sessions.items()}]
        self._keep_first(kept, joined, where[1], turned)

    def _keep_first(self, kept: Ints, joined: Joined, sizes: Ints, turned: NDArray[np.bool_]) -> None:
        """Of a session of several records the labels of the first, and how many packets they have in all."""
        listed, codes = self.listed[0][kept], self.codes[0][kept]
        unlisted = (listed > sizes)[joined.records] & (not self.layout.payload_only)  # the rest may have no payload
        last = np.zeros(len(kept), bool)
        last[joined.begins[1:] - 1] = True
        differs = (codes[joined.records] != codes[joined.first][joined.session]).any(axis=1)
        several = np.diff(joined.begins) > 1
        known = np.where(listed < 0, -(1 << 40), listed)[joined.records]
        total = np.add.reduceat(known, joined.begins[:-1])
        self.listed, self.codes = [np.where(total < 0, -1, total)], [codes[joined.first]]
        self.joined = int(len(kept) - len(several))
        self.told = {
            "sessions of several records": int(several.sum()),
            "records whose source is the other's": int(turned.sum()),
            "sessions with a gap inside, because an earlier record is cut": len(
                np.unique(joined.session[unlisted & ~last])
            ),
            "records of another label than their session": int(differs.sum()),
        }

    def _number_captures(self) -> None:
        """Captures in the order of their names; those without a session are none."""
        (sessions,), names = self.sessions, self.names.texts
        held = np.unique(sessions["capture"]).tolist()
        order = sorted(held, key=lambda number: names[number])
        number = np.zeros(len(names), np.int32)
        number[order] = np.arange(len(order))
        sessions["capture"] = number[sessions["capture"]]
        counts = np.bincount(sessions["capture"], minlength=len(order))
        packets = np.bincount(sessions["capture"], sessions["packets"], minlength=len(order))
        for place, name in enumerate(names[number] for number in order):
            row = self.source.rows.get(name)
            self.captures.append(
                CaptureEntry(
                    path=name,
                    group=capture_group(self.card, name, row),
                    attributes=capture_attributes(self.card, name, row),
                    format="records",
                    records=int(packets[place]),
                    packets=int(packets[place]),
                    sessions=int(counts[place]),
                )
            )

    def _compare(self) -> None:
        """Find captures whose records are the same, whatever their names and labels, by digests of their columns."""
        (sessions,), packets = self.sessions, self.spooled()
        own = {name: column for name, column in sessions.items() if name not in ("capture", "first_packet")}
        names = [*packets, *(f"of {name}" for name in own)]
        digests = [{name: hashlib.sha256() for name in names} for _ in self.captures]
        begins = np.flatnonzero(np.diff(sessions["capture"], prepend=-1))
        first = np.append(sessions["first_packet"][begins], self.packets)
        ends = np.append(begins[1:], len(sessions["capture"]))
        for run, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True)):
            digest = digests[sessions["capture"][begin]]
            for name, column in packets.items():
                digest[name].update(np.ascontiguousarray(column[first[run] : first[run + 1]]).data)
            for name, column in own.items():
                digest[f"of {name}"].update(np.ascontiguousarray(column[begin:end]).data)
        for row, (capture, digest) in enumerate(zip(self.captures, digests, strict=True)):
            content = hashlib.sha256(b"".join(one.digest() for one in digest.values())).hexdigest()
            if self.layout.endpoints or self.layout.start or capture.packets >= FEW:
                self.of_content.setdefault(content, []).append(row)
                self.captures[row] = replace(capture, remarks={CONTENT: content})

    def _describe(self) -> None:
        """Count what the sessions do not show."""
        marks = self.spooled()["marks"]
        step = 1 << 22
        for begin in range(0, len(marks), step):
            self.bounded += int(np.count_nonzero(marks[begin : begin + step] & MARK_BOUNDED))

    def labelled(self, columns: Columns) -> LabelTable:
        """By the card's list, the records' columns or the captures' names."""
        paths = [capture.path for capture in self.captures]
        if isinstance(self.card.labels, FileLabels):
            return list_table([self.source.rows[path].labels for path in paths], columns)
        if isinstance(self.card.labels, ColumnLabels):
            texts = [coded.texts for coded in self.labels]
            return column_table(self.card.labels, paths, columns, self.codes[0], texts)
        return label_table(self.card.labels, None, paths, columns, check=False)

    def conversations(self, columns: Columns) -> NDArray[np.int32]:
        """By end points, where records have them; else each session is its own: int32 ``[sessions]``."""
        if self.layout.endpoints:
            return super().conversations(columns)
        return np.arange(len(columns["start"]), dtype=np.int32)

    def files_report(self) -> FilesReport | None:
        """How the captures that records name meet the card's list."""
        return self.report

    def facts(self) -> dict[str, Any]:
        """The tables, what was skipped, and what records cannot tell."""
        return {
            "tables": self.tables,
            "skipped": dict(sorted(self.skipped.items())),
            "copies": self.copies(),
            "lacks": self.layout.lacks,
            "limits": list(self._limits()),
        }

    def _limits(self) -> Iterable[str]:
        """What the sessions do not show, a line each."""
        (sessions,), (listed,) = self.sessions, self.listed
        packets = np.asarray(sessions["packets"], np.int64)
        if self.layout.payload_only:
            yield "packets without payload are not listed"
        if unknown := int((listed < 0).sum()):
            limit = f"of {self.layout.limit} packets or more " if self.layout.limit else ""
            yield f"{unknown:,} of {len(listed):,} sessions {limit}may have more packets than are listed"
        if cut := int((listed > packets).sum()):
            share = packets[listed >= 0].sum() / np.maximum(listed, packets)[listed >= 0].sum()
            bare = ", some of them without payload" if self.layout.payload_only else ""
            words = f"have more packets than are listed{bare} ({share:.1%} of all packets are)"
            yield f"{cut:,} of {len(listed):,} sessions {words}"
        if self.unsized:
            yield f"packets without a length, taken for {self.layout.without_length} bytes: {self.unsized:,}"
        if self.bounded:
            what = {"payload": "IP length is a lower bound", "frame": "length is a bound"}
            words = what.get(self.layout.layer, "payload length is an upper bound")
            yield f"{self.bounded / self.packets:.1%} of packets: their {words}; records have no TCP headers"
        if self.options.join_records:
            yield f"records joined to an earlier one of their 5-tuple: {self.joined:,}"
            yield from (f"{what}: {count:,}" for what, count in self.told.items() if count)
        if self.nameless:
            yield f"records that name no capture, taken for one of their file: {self.nameless:,}"
        if self.late:
            yield f"records that did not list their packets by time, sorted: {self.late:,}"


def column_table(
    labels: ColumnLabels,
    captures: Sequence[str],
    sessions: Columns,
    codes: NDArray[np.int64],
    texts: Sequence[Sequence[str]],
) -> LabelTable:
    """The labels of all sessions by columns of their records, and by the captures' names.

    ``codes`` int64 ``[sessions, columns]`` are places in the ``texts`` of each of ``labels.paths``.
    """
    keys = np.column_stack([codes, np.asarray(sessions["capture"], np.int64)]) if labels.pattern else codes
    distinct, row = np.unique(keys, axis=0, return_inverse=True)
    columns: dict[str, Sequence[str]] = {
        name: [texts[place][code] for code in distinct[:, place].tolist()] for place, name in enumerate(labels.paths)
    }
    if labels.pattern:
        pattern = re.compile(labels.pattern)
        found = [match.groupdict("") if (match := pattern.search(name)) else {} for name in captures]
        columns |= {
            name: [found[capture].get(name, "") for capture in distinct[:, -1].tolist()]
            for name in sorted(pattern.groupindex)
        }
    return LabelTable(row.ravel().astype(np.int64), columns, {})
