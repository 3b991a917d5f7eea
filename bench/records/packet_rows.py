"""Tables with one row a packet, as tshark writes them: the packets of one 5-tuple in one file are a record."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from bench.records.cells import numbers, single, texts
from bench.records.convert import moments
from bench.records.layout import Layout


def records_of_packets(batches: Iterable[Any], layout: Layout, labels: Mapping[str, str]) -> Any:
    """The records of a file's rows as one Arrow batch with the columns of `Layout.of_records`, and of ``labels``.

    Rows without addresses are left out.  The first packet's sender is the source; a label (name -> path) is that of the
    first packet.  Raises BadCell for a cell that cannot be read.
    """
    import pyarrow as pa

    table = pa.Table.from_batches(list(batches)).combine_chunks()
    batch = pa.RecordBatch.from_arrays([_one(column) for column in table.columns], names=table.column_names)
    addresses = [texts(single(batch, path)) for path in (layout.endpoints[0], layout.endpoints[2])]
    batch = batch.filter(pa.array([bool(a and b) for a, b in zip(*addresses, strict=True)], pa.bool_()))
    ends = [texts(single(batch, path)) for path in layout.endpoints]
    source, destination = (list(zip(*ends[place : place + 2], strict=True)) for place in (0, 2))
    words = texts(single(batch, layout.protocol)) if layout.protocol and not layout.one_protocol else [""] * len(source)
    known: dict[Any, int] = {}
    record = np.array(
        [
            known.setdefault((*sorted((a, b)), p), len(known))
            for a, b, p in zip(source, destination, words, strict=True)
        ],
        np.int64,
    )
    order = np.argsort(record, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(record, minlength=len(known)))]).astype(np.int32)
    first = order[offsets[:-1]]
    forward = np.array([source[row] == source[first[number]] for row, number in enumerate(record.tolist())], bool)
    times = moments(single(batch, layout.times), layout.times, layout.time_unit)
    lists = {
        "lengths": numbers(single(batch, layout.lengths), layout.lengths)[order],
        "times": times[order],
        "directions": np.where(forward, 1, -1)[order],
    }
    columns: dict[str, Any] = {
        name: pa.ListArray.from_arrays(pa.array(offsets), pa.array(values)) for name, values in lists.items()
    }
    columns |= {"start": pa.array(times[first]), "protocol": pa.array([words[row] for row in first])}
    for name, cells in zip(("source", "sport", "destination", "dport"), ends, strict=True):
        columns[name] = pa.array([cells[row] for row in first])
    columns |= {name: single(batch, path).take(pa.array(first)) for name, path in labels.items()}
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _one(column: Any) -> Any:
    """A column's chunks as one array."""
    import pyarrow as pa

    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0) if column.num_chunks else pa.array([])
