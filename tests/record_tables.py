"""Small tables of flow records in every format, and the stores that they become."""

import bz2
import gzip
import json
import lzma
import tomllib

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import zstandard

from bench.data.names import find_card
from bench.data.prepare import PrepareOptions, prepare_dataset
from bench.data.store import Store
from bench.schema import PACKET_COLUMNS, SESSION_COLUMNS, Samples

CARD = """
name = "mine"
title = "records of mine"
kind = "records"
[records]
capture = "capture"
endpoints = ["src", "sport", "dst", "dport"]
protocol = "proto"
start = "start"
lengths = "sizes"
directions = "dirs"
gaps = "gaps"
time_unit = "ms"
{more}
[labels]
kind = "columns"
paths = {{ label = "label" }}
[tasks.label]
{task}
"""
BARE = """
name = "bare"
title = "records of nobody and no time"
kind = "records"
[records]
capture = "capture"
lengths = "sizes"
signed = true
[labels]
kind = "columns"
paths = { label = "label" }
[tasks.label]
"""
PLAIN = CARD.format(more="", task="")
ROWS = [
    {"capture": "b", "src": "10.0.0.1", "sport": 1000, "dst": "10.0.0.2", "dport": 443, "proto": 6, "start": 100.5,
     "sizes": [517, 1400, 20], "dirs": [1, -1, 1], "gaps": [3, 20, 1], "label": "web"},
    {"capture": "a", "src": "2001:db8::1", "sport": 53000, "dst": "2001:db8::2", "dport": 53, "proto": 17,
     "start": 90.0, "sizes": [40, 300], "dirs": [1, -1], "gaps": [0, 7], "label": "dns"},
    {"capture": "a", "src": "10.0.0.3", "sport": 7, "dst": "10.0.0.4", "dport": 8, "proto": 1, "start": 91.0,
     "sizes": [8], "dirs": [1], "gaps": [0], "label": "dns"},
    {"capture": "a", "src": "10.0.0.3", "sport": 7, "dst": "10.0.0.4", "dport": 8, "proto": 6, "start": 92.0,
     "sizes": [], "dirs": [], "gaps": [], "label": "dns"},
]  # fmt: skip


def text_rows(rows):
    return [{key: str(value) for key, value in row.items()} for row in rows]


def csv(rows, separator=","):
    lines = [separator.join(rows[0])]
    lines += [separator.join(f'"{value}"' for value in row.values()) for row in text_rows(rows)]
    return "\n".join(lines).encode() + b"\n"


def lines(rows):
    return "\n".join(json.dumps(row) for row in rows).encode() + b"\n"


def arrow(path, rows, stream=False):
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as sink:
        kind = pa.ipc.new_stream if stream else pa.ipc.new_file
        with kind(sink, table.schema) as writer:
            writer.write_table(table)


WRITERS = {
    "t.parquet": lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path),
    "t.feather": lambda path, rows: pyarrow.feather.write_feather(pa.Table.from_pylist(rows), path),
    "t.arrow": arrow,
    "stream.arrow": lambda path, rows: arrow(path, rows, stream=True),
    "t.csv": lambda path, rows: path.write_bytes(csv(rows)),
    "t.tsv": lambda path, rows: path.write_bytes(csv(rows, "\t")),
    "t.csv.gz": lambda path, rows: path.write_bytes(gzip.compress(csv(rows))),
    "t.csv.xz": lambda path, rows: path.write_bytes(lzma.compress(csv(rows))),
    "t.jsonl": lambda path, rows: path.write_bytes(lines(rows)),
    "t.jsonl.bz2": lambda path, rows: path.write_bytes(bz2.compress(lines(rows))),
    "t.jsonl.zst": lambda path, rows: path.write_bytes(zstandard.compress(lines(rows))),
    "list.json": lambda path, rows: path.write_text(json.dumps(rows)),
    "indented.json": lambda path, rows: path.write_text(json.dumps(rows, indent=1)),
    "object.json": lambda path, rows: path.write_text(json.dumps({f"flow {i}": row for i, row in enumerate(rows)})),
}


def made(folder, rows=ROWS, more="", task="", table="t.parquet", home=None, **options):
    """The store of a table with those rows."""
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    WRITERS[table](folder / "tables" / table, rows)
    return store_of(folder, CARD.format(more=more, task=task), home, **options)


def store_of(folder, card, home=None, **options):
    """The store of the folder's `tables` under a card, given as its text."""
    path = folder / f"{tomllib.loads(card)['name']}.toml"
    path.write_text(card)
    prepared = prepare_dataset(
        find_card(path), folder / "tables", PrepareOptions(**options), home=home or folder / "home"
    )
    return Store.open(prepared.store_path)


def columns(store):
    return {name: np.array(store.session(name)) for name in SESSION_COLUMNS} | {
        f"packet {name}": np.array(store.packet(name)) for name in PACKET_COLUMNS
    }


def whole(store):
    rows = np.arange(store.manifest.sessions)
    return Samples(rows, np.zeros_like(rows), np.array(store.session("packets")))
