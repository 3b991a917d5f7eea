"""A batch of records as packets and sessions: what a capture of the same traffic would give, as far as they tell."""

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.records.cells import BadCell, Lists, lists, numbers, or_zero, single, texts
from bench.records.joining import sort_by_time, sums
from bench.records.layout import PROTOCOLS, UNITS, Layout
from bench.schema import CLIENT_BY, MARK_BOUNDED, PACKET_COLUMNS, SESSION_COLUMNS

Columns = dict[str, NDArray[Any]]
Ints = NDArray[np.int64]

TCP: Final = 6
_ETHERNET: Final = 14  # bytes of header
_SHORTEST_FRAME: Final = 60  # without its checksum; shorter ones are padded to it
_MOST: Final = 1 << 24  # bytes; a greater length of one packet is a slip
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ISO: Final = re.compile(r"((\d{4})-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?)(?:Z|\+00:?00)?")
_FIRST_YEAR, _LAST_YEAR = 1678, 2261  # int64 ns do not reach further
#: as tshark prints a frame's time, such as "Apr 30, 2019 19:07:17.184823000 CDT"; the zone is left out
_SPOKEN: Final = re.compile(r"([A-Z][a-z]{2}) +(\d+), (\d{4}) (\d\d:\d\d:\d\d(?:\.\d{1,9})?)(?: .*)?")
_LATEST: Final = float(1 << 62)  # ns


@dataclass(frozen=True)
class Converted:
    """The records of a batch that are sessions, and what became of the others."""

    packets: Columns  # `schema.PACKET_COLUMNS`, [packets], by session and time
    sessions: Columns  # `schema.SESSION_COLUMNS`, [sessions]; capture, conversation and first_packet are yet to be told
    capture: list[str]  # by session; empty: the file
    labels: dict[str, list[str]]  # label column -> text of each session
    listed: Ints  # packets that the record has, listed or not, [sessions]; -1: not known
    late: int  # sessions whose packets were not listed by time
    unsized: int  # packets without a length
    skipped: dict[str, int] = field(default_factory=dict)  # records that are no session, by reason


def converted(batch: Any, layout: Layout, label_columns: Sequence[str] = ()) -> Converted:
    """The sessions of an Arrow record batch.  Raises BadCell, with the row in the batch, for what cannot be read."""
    length, held = _listed(batch, layout)
    sizes, rows = length.sizes, np.arange(batch.num_rows)
    protocol = _protocol(batch, layout)
    kept = sizes > 0
    skipped = {"no packet listed": int((~kept).sum())}
    if layout.protocol:
        other = ~np.isin(protocol, (6, 17))
        skipped["not TCP or UDP"] = int((kept & other).sum())
        kept &= ~other
    of_packet, unsized = np.repeat(kept, sizes), np.asarray(length.values.is_null())
    bytes_, direction = _directed(batch, layout, length, held)
    time = _start(batch, layout, kept)[rows.repeat(sizes)] + _since_start(batch, layout, length, held)
    ends = _ends(batch, layout, kept)
    of_session = np.repeat(np.arange(int(kept.sum())), sizes[kept])
    packets: Columns = {name: np.zeros(len(of_session), kind) for name, kind in PACKET_COLUMNS.items()}
    packets |= {"time": time[of_packet], "direction": direction[of_packet]}
    headers = _headers(protocol[kept], ends["ip_version"])[of_session]
    packets |= _lengths(bytes_[of_packet], layout, headers, protocol[kept][of_session])
    packets["marks"] = np.where(unsized[of_packet], MARK_BOUNDED, packets["marks"])
    packets = {name: np.asarray(packets[name], kind) for name, kind in PACKET_COLUMNS.items()}
    late = sort_by_time(packets, sizes[kept])
    sessions: Columns = {name: np.zeros(int(kept.sum()), kind) for name, kind in SESSION_COLUMNS.items()}
    sessions |= ends | {"protocol": protocol[kept], "packets": sizes[kept]} | sums(packets, sizes[kept])
    sessions["client_by"][:] = CLIENT_BY.index("record")
    return Converted(
        packets=packets,
        sessions={name: np.asarray(sessions[name], kind) for name, kind in SESSION_COLUMNS.items()},
        capture=_captures(batch, layout, kept),
        labels={name: _kept(texts(single(batch, name)), kept) for name in label_columns},
        listed=_totals(batch, layout, sizes)[kept],
        late=late,
        unsized=int(np.count_nonzero(unsized[of_packet])),
        skipped={reason: count for reason, count in skipped.items() if count},
    )


def _listed(batch: Any, layout: Layout) -> tuple[Lists, NDArray[np.bool_] | None]:
    """The lengths of the packets, and which places of the lists are packets: None where all are."""
    length = lists(batch, layout.lengths)
    if not layout.padding:
        return length, None
    found = _equally_long(lists(batch, layout.directions), length, layout.directions, layout.lengths)
    held = ~_is(found, layout.padding, layout.directions)
    return length.where(held), held


def _kept(values: Sequence[str], kept: NDArray[np.bool_]) -> list[str]:
    return [value for value, keep in zip(values, kept.tolist(), strict=True) if keep]


def _protocol(batch: Any, layout: Layout) -> Ints:
    """6, 17 or another number of each record, 0 where none is known: int64 ``[rows]``."""
    if layout.one_protocol or not layout.protocol:
        return np.full(batch.num_rows, layout.one_protocol or 0, np.int64)
    words = texts(single(batch, layout.protocol))
    known = {word: PROTOCOLS.get(word.strip().lower().removesuffix(".0"), -1) for word in set(words)}
    return np.array([known[word] for word in words], np.int64)


def _directed(
    batch: Any, layout: Layout, length: Lists, held: NDArray[np.bool_] | None
) -> tuple[Ints, NDArray[np.int8]]:
    """Bytes of each packet, int64, and its direction, int8, +1 from the source or where none is known."""
    values = length.filled(layout.without_length).numbers(layout.lengths)
    if not layout.signed and len(values) and values.min() < 0:
        place = int(values.argmin())
        raise BadCell(length.row(place), f"{layout.lengths} has {values[place]}; are lengths signed = true?")
    direction = np.ones(len(values), np.int8)
    if layout.signed:
        if not values.all():
            raise BadCell(length.row(int((values == 0).argmax())), f"{layout.lengths} has 0, which has no sign")
        direction[values < 0] = -1
        values = np.abs(values)
    elif layout.directions:
        found = _equally_long(_where(lists(batch, layout.directions), held), length, layout.directions, layout.lengths)
        direction[~_is(found, layout.forward, layout.directions)] = -1
        if layout.returned:  # Joy writes "<" throughout where nothing came back
            one_way = numbers(or_zero(single(batch, layout.returned)), layout.returned) == 0
            direction[np.repeat(one_way, length.sizes)] = 1
    if len(values) and values.max() > _MOST:
        place = int(values.argmax())
        raise BadCell(length.row(place), f"{layout.lengths} has {values[place]}, more than a packet holds")
    if (cut := np.flatnonzero(values != np.rint(values))).size:
        raise BadCell(length.row(int(cut[0])), f"{layout.lengths} has {values[cut[0]]}, no whole number of bytes")
    return values.astype(np.int64), direction


def _is(found: Lists, word: str, path: str) -> NDArray[np.bool_]:
    """Which values are what the card's word says; numbers are compared as numbers."""
    try:
        wanted = float(word)
    except ValueError:
        wanted_word = word.strip().lower()
        return np.array([one.strip().lower() == wanted_word for one in texts(found.values)], np.bool_)
    same: NDArray[np.bool_] = found.numbers(path) == wanted
    return same


def _where(found: Lists, held: NDArray[np.bool_] | None) -> Lists:
    """The values that are of packets."""
    return found if held is None else found.where(held)


def _equally_long(one: Lists, other: Lists, name: str, of: str) -> Lists:
    if (differs := np.flatnonzero(one.sizes != other.sizes)).size:
        row = int(differs[0])
        raise BadCell(row, f"{of} lists {other.sizes[row]} packets, {name} {one.sizes[row]}")
    return one


def _start(batch: Any, layout: Layout, kept: NDArray[np.bool_]) -> Ints:
    """Ns since the epoch of each kept record, 0 of others, and where the card names no column: int64 ``[rows]``."""
    start = np.zeros(batch.num_rows, np.int64)
    if layout.start:
        rows = np.flatnonzero(kept)
        cells = single(batch, layout.start).filter(_mask(kept))
        start[kept] = moments(cells, layout.start, layout.start_unit, lambda place: int(rows[place]))
    return start


def moments(cells: Any, path: str, unit: str, row: Callable[[int], int] = int) -> Ints:
    """Times of an Arrow array as ns since the epoch: int64 ``[values]``; ``row`` gives a value's row.

    Numbers are of the unit; a text is a time of UTC as in ISO 8601, or as tshark prints it.  Raises BadCell for what is
    none.
    """
    import pyarrow as pa

    if cells.null_count:
        raise BadCell(row(int(np.flatnonzero(np.asarray(cells.is_null()))[0])), f"{path} is empty")
    if pa.types.is_timestamp(cells.type):
        return np.asarray(cells.cast(pa.timestamp("ns")).cast(pa.int64())).astype(np.int64)
    if not pa.types.is_string(cells.type) or not _ISO.match(next(iter(cells.to_pylist()), "").strip()):
        if not pa.types.is_string(cells.type) or not _SPOKEN.match(next(iter(cells.to_pylist()), "").strip()):
            return _nanoseconds(numbers(cells, path, row), unit, row)
    times = np.empty(len(cells), "datetime64[ns]")
    for place, text in enumerate(cells.to_pylist()):
        times[place] = _time(text.strip(), path, row(place))
    return times.view(np.int64)


def _time(text: str, path: str, row: int) -> np.datetime64:
    """A time that is written out."""
    if (match := _SPOKEN.fullmatch(text)) and match[1] in _MONTHS:
        text = f"{match[3]}-{_MONTHS.index(match[1]) + 1:02}-{int(match[2]):02}T{match[4]}"
    match = _ISO.fullmatch(text)
    if not match or not _FIRST_YEAR <= int(match[2]) <= _LAST_YEAR:
        raise BadCell(row, f"{path} is {text!r:.40}, not a time of UTC such as 2022-10-31T00:00:00.25")
    try:
        return np.datetime64(match[1], "ns")
    except ValueError:
        raise BadCell(row, f"{path} is {text!r:.40}, which is not a date") from None


def _nanoseconds(values: NDArray[Any], unit: str, row: Callable[[int], int] = int) -> Ints:
    """Times as whole ns; of a fraction of a second as a double holds it, microseconds are kept."""
    scale, size = UNITS[unit], np.abs(values.astype(np.float64))
    if len(values) and size.max() * scale > _LATEST:
        place = int(size.argmax())
        raise BadCell(row(place), f"{values[place]} {unit} is not a time; is it in another unit?")
    if values.dtype == np.int64:
        return np.asarray(values * scale, np.int64)
    whole = np.floor(values)
    fraction = np.rint((values - whole) * scale / 1000) * 1000 if scale >= 1000 else (values - whole) * scale
    return np.asarray(whole.astype(np.int64) * scale + fraction.astype(np.int64), np.int64)


def _since_start(batch: Any, layout: Layout, length: Lists, held: NDArray[np.bool_] | None) -> Ints:
    """Ns from each record's start to each of its packets: int64 ``[packets]``."""
    name = layout.times or layout.gaps
    if not name:
        return np.zeros(int(length.sizes.sum()), np.int64)
    found = _equally_long(_where(lists(batch, name), held), length, name, layout.lengths)
    values = _nanoseconds(found.numbers(name), layout.time_unit, found.row)
    first = (np.cumsum(found.sizes) - found.sizes)[found.sizes > 0]
    sizes = found.sizes[found.sizes > 0]
    if layout.gaps:
        reach = np.add.reduceat(np.abs(values.astype(np.float64)), first) if len(first) else np.zeros(0)
        if (far := np.flatnonzero(reach > _LATEST)).size:
            raise BadCell(found.row(int(first[far[0]])), f"{name} sum up to no time; are they in another unit?")
        total = np.cumsum(values)
        return np.asarray(total - np.repeat(total[first] - values[first], sizes), np.int64)
    return np.asarray(values - np.repeat(values[first] * bool(layout.start), sizes), np.int64)


def _ends(batch: Any, layout: Layout, kept: NDArray[np.bool_]) -> Columns:
    """The session columns of end points of the records that are kept, the source as the client."""
    count = int(kept.sum())
    if not layout.endpoints:
        return {"ip_version": np.full(count, 4, np.uint8)}
    found: Columns = {}
    for side, ip, port in (("client", *layout.endpoints[:2]), ("server", *layout.endpoints[2:])):
        words = np.array(_kept(texts(single(batch, ip)), kept), object)
        known = {word: _address(word) for word in set(words.tolist())}
        if wrong := next((word for word, packed in known.items() if packed is None), None):
            raise BadCell(int(np.flatnonzero(kept)[words == wrong][0]), f"{ip} is {wrong!r:.40}, not an IP address")
        if "" in known:
            raise BadCell(int(np.flatnonzero(kept)[words == ""][0]), f"{ip} is empty")
        found[f"{side}_ip"] = np.array([known[word] for word in words.tolist()], "S16")
        rows = np.flatnonzero(kept)
        ports = numbers(single(batch, port).filter(_mask(kept)), port, lambda place, rows=rows: int(rows[place]))
        wrong = (ports < 0) | (ports > 65535) | (ports != np.rint(ports))
        if wrong.any():
            place = int(wrong.argmax())
            raise BadCell(int(rows[place]), f"{port} is {ports[place]}, not a port")
        found[f"{side}_port"] = ports.astype(np.uint16)
        version = np.array([6 if ":" in word else 4 for word in words.tolist()], np.uint8)
        if (mixed := np.flatnonzero(found.setdefault("ip_version", version) != version)).size:
            row = int(np.flatnonzero(kept)[mixed[0]])
            raise BadCell(row, f"{ip} is {words[mixed[0]]}, and the other address of another IP version")
    return found


def _mask(kept: NDArray[np.bool_]) -> Any:
    import pyarrow as pa

    return pa.array(kept)


def _address(word: str) -> bytes | None:
    """An IP address in network order; None for what is none, empty for nothing."""
    try:
        return ipaddress.ip_address(word).packed if word else b""
    except ValueError:
        return None


def _captures(batch: Any, layout: Layout, kept: NDArray[np.bool_]) -> list[str]:
    """The name of each kept record's capture; empty where each file is one."""
    if not layout.capture:
        return [""] * int(kept.sum())
    columns = {name: _kept(texts(single(batch, name)), kept) for name in layout.capture_columns}
    if layout.capture in columns:
        return columns[layout.capture]
    names = []
    for cells in zip(*columns.values(), strict=True):
        name = layout.capture
        for column, cell in zip(columns, cells, strict=True):
            name = name.replace(f"{{{column}}}", cell)
        names.append(name)
    return names


def _totals(batch: Any, layout: Layout, sizes: Ints) -> Ints:
    """How many packets each record has, listed or not; -1 where nobody knows: int64 ``[rows]``."""
    if layout.totals:
        parts = [numbers(or_zero(single(batch, name)), name) for name in layout.totals]
        return np.maximum(np.asarray(np.sum(parts, axis=0), np.int64), sizes)  # what is listed is there
    if layout.limit:
        return np.where(sizes >= layout.limit, -1, sizes)
    return np.full(len(sizes), -1, np.int64)


@dataclass(frozen=True)
class _Headers:
    """Bytes of the headers of packets, int64 ``[packets]`` each."""

    ip: Ints
    transport: Ints  # the least that it can have

    def __getitem__(self, some: Ints) -> "_Headers":
        return _Headers(self.ip[some], self.transport[some])


def _headers(protocol: Ints, version: NDArray[np.uint8]) -> _Headers:
    """Headers without options, by session."""
    return _Headers(np.where(version == 6, 40, 20), np.where(protocol == TCP, 20, 8) * (protocol > 0))


def _lengths(bytes_: Ints, layout: Layout, headers: _Headers, protocol: Ints) -> Columns:
    """IP and payload lengths, and a mark on packets of which one of these is a bound.

    A TCP header has 20 to 60 bytes, which no record tells: of a payload the IP length is a lower bound, of an IP or
    TCP length the payload is an upper bound.  A frame of the least size may be padding.
    """
    tcp, both = protocol == TCP, headers.ip + headers.transport
    if layout.layer == "payload":
        length, payload, bounded = bytes_ + both, bytes_, tcp
    else:
        length = {"frame": bytes_ - _ETHERNET, "ip": bytes_, "transport": bytes_ + headers.ip}[layout.layer]
        payload = np.maximum(length - both, 0) * (protocol > 0)
        bounded = tcp & (payload > 0)
        if layout.layer == "frame":
            bounded |= bytes_ <= _SHORTEST_FRAME
    marks = np.where(bounded, MARK_BOUNDED, 0)
    return {"length": np.maximum(length, 0), "payload_length": payload, "marks": marks}
