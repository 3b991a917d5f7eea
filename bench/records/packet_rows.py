"""Tables with one row a packet, as tshark writes them: the packets of one 5-tuple in one file are a record.

A file is read as a whole: captures are small beside data sets.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.records.cells import numbers, single, texts
from bench.records.convert import moments
from bench.records.layout import PROTOCOLS, Layout

Skipped = dict[str, int]  # rows that are in no record, by reason


def records_of_packets(batches: Iterable[Any], layout: Layout, labels: Mapping[str, str]) -> tuple[Any, Skipped]:
    """The records of a file's rows as one Arrow batch with the columns of `Layout.of_records` and of ``labels``.

    Rows without addresses, and of other protocols than TCP and UDP, are left out and counted; None where none is left.
    The sender of the earliest packet is the source; a label (name -> path) is that of the record's first row.  Raises
    BadCell for a cell that cannot be read, by its place among the rows that are left.
    """
    import pyarrow as pa

    some = list(batches)
    if not some:
        return None, {}
    table = pa.Table.from_batches(some).combine_chunks()
    batch = pa.RecordBatch.from_arrays([_one(column) for column in table.columns], names=table.column_names)
    batch, skipped = _of_sessions(batch, layout)
    if not batch.num_rows:
        return None, skipped
    times = moments(single(batch, layout.times), layout.times, layout.time_unit)
    ends = [_alike(texts(single(batch, path)), is_port=bool(place % 2)) for place, path in enumerate(layout.endpoints)]
    record, forward = _grouped(ends, np.array(_words(batch, layout), object))
    order = np.lexsort((np.arange(len(record)), times, record))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(record))]).astype(np.int32)
    first = order[offsets[:-1]]
    lists = {
        "lengths": _lengths(single(batch, layout.lengths), layout).take(pa.array(order)),
        "times": times[order],
        "directions": np.where(forward == forward[first][record], 1, -1)[order],
    }
    columns: dict[str, Any] = {
        name: pa.ListArray.from_arrays(pa.array(offsets), pa.array(values)) for name, values in lists.items()
    }
    columns |= {"start": pa.array(times[first]), "protocol": pa.array(_words(batch, layout)).take(pa.array(first))}
    for name, cells in zip(("source", "sport", "destination", "dport"), ends, strict=True):
        columns[name] = pa.array(cells[first].tolist())
    for number, path in enumerate(labels.values()):
        columns[label_column(number)] = single(batch, path).take(pa.array(first))
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)), skipped


def _lengths(cells: Any, layout: Layout) -> Any:
    """The length of each row as an Arrow array; null for one without, where the card says what to take it for."""
    import pyarrow as pa
    from pyarrow import compute as pc

    if layout.without_length >= 0 and pa.types.is_string(cells.type):  # of CSV, where nothing is null
        cells = pc.if_else(pc.equal(pc.utf8_trim_whitespace(cells), ""), None, cells)
    missing = np.asarray(cells.is_null()) & (layout.without_length >= 0)
    there = np.flatnonzero(~missing)
    found = numbers(cells.take(pa.array(there)), layout.lengths, lambda place: int(there[place]))
    lengths = np.zeros(len(missing), found.dtype)
    lengths[there] = found
    return pa.array(lengths, mask=missing)


def label_column(number: int) -> str:
    """What a label's column is called there."""
    return f"label {number}"


def _of_sessions(batch: Any, layout: Layout) -> tuple[Any, Skipped]:
    """The rows that a session can have, and how many are none."""
    import pyarrow as pa

    addresses = [
        np.array(texts(single(batch, path)), object) != "" for path in (layout.endpoints[0], layout.endpoints[2])
    ]
    there = addresses[0] & addresses[1]
    spoken = np.array([word in PROTOCOLS for word in _words(batch, layout)], bool) | (layout.protocol == "")
    skipped = {"packet without addresses": int((~there).sum()), "packet not TCP or UDP": int((there & ~spoken).sum())}
    kept = batch.filter(pa.array(there & spoken))
    return kept, {reason: count for reason, count in skipped.items() if count}


def _words(batch: Any, layout: Layout) -> list[str]:
    """The protocol of each row, as the table has it, or as the card says."""
    if layout.one_protocol or not layout.protocol:
        return [layout.protocol.lower()] * batch.num_rows
    words = [word.strip().lower().removesuffix(".0") for word in texts(single(batch, layout.protocol))]
    return [str(PROTOCOLS.get(word, word)) for word in words]


def _alike(words: list[str], *, is_port: bool) -> NDArray[Any]:
    """End points in one spelling: ports without a fraction, addresses as the standard library writes them."""
    known = {}
    for word in set(words):
        known[word] = word.strip().removesuffix(".0") if is_port else word.strip()
        with suppress(ValueError):
            known[word] = known[word] if is_port else str(ipaddress.ip_address(known[word]))
    return np.array([known[word] for word in words], object)


def _grouped(ends: list[NDArray[Any]], words: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The record of each row, by first appearance, and whether its sender is the lesser end point."""
    codes = [np.unique(np.concatenate([ends[place], ends[place + 2]]), return_inverse=True)[1] for place in (0, 1)]
    rows = len(words)
    both = codes[0].astype(np.int64) * (int(codes[1].max()) + 1) + codes[1]
    source, destination = both[:rows], both[rows:]
    lesser = source <= destination
    protocol = np.unique(words, return_inverse=True)[1]
    keys = np.stack([np.minimum(source, destination), np.maximum(source, destination), protocol], axis=1)
    _, first, number = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return rank[number.ravel()].astype(np.int64), lesser


def _one(column: Any) -> Any:
    """A column's chunks as one array."""
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
