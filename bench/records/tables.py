"""Tables of records by batches, so that a file of any size takes the memory of a few thousand rows.

Parquet, Arrow (file or stream), CSV and JSON (a row a line, or one list or object of rows), plain or compressed.
"""

import bz2
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from csv import reader as text_rows
from functools import cache, partial
from pathlib import Path
from typing import IO, Any, Final

from bench.errors import InputError

#: how a table's name ends -> its format
FORMATS: Final = {
    **dict.fromkeys((".parquet", ".pq"), "Parquet"),
    **dict.fromkeys((".arrow", ".feather", ".ipc"), "Arrow"),
    **dict.fromkeys((".csv", ".tsv"), "CSV"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "JSON"),
}
#: how a compressed one's ends (CSV and JSON alone: the others compress themselves)
OPENERS: Final[dict[str, Callable[[Path], Any]]] = {
    ".gz": lambda path: gzip.open(path, "rb"),
    ".bz2": lambda path: bz2.open(path, "rb"),
    ".xz": lambda path: lzma.open(path, "rb"),
    ".zst": lambda path: _zstandard(path),
}
ROWS: Final = 8192  # a batch
BLOCK: Final = 1 << 23  # bytes of text read at once
_NO_OBJECT: Final = re.compile(rb"(?m)^[ \t\r]*([^{\s][^\n]*)")  # of JSON lines
LONGEST: Final = 1 << 29  # bytes of a row, and of a file that is one JSON value: it is read as a whole
KEY: Final = "_key"  # the column of the keys, where a JSON file is one object of rows


def table_format(name: str) -> str:
    """The format of a table by its file's name; empty where it is none."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    packed = bool(suffixes) and suffixes[-1] in OPENERS
    kind = FORMATS.get("".join(suffixes[-2:-1] if packed else suffixes[-1:]), "")
    return "" if packed and kind not in ("CSV", "JSON") else kind


def batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """The rows of a table, `ROWS` or less at once, as Arrow record batches of the named columns (None: of all).

    Cells of CSV are text.  Raises :class:`InputError` for what is no such table and for a column that it does not have.
    """
    kind = table_format(path.name)
    if not kind:
        raise InputError("bad-table", f"{path}: is not a table of records; give {', '.join(FORMATS)}")
    if not path.is_file():  # a pipe would be waited for
        raise InputError("bad-table", f"{path}: is not a regular file; give a table")
    with _refusing(path, kind):
        for batch in _READERS[kind](path, columns):
            if columns is not None:
                _check_columns(path, batch.schema.names, columns)
                batch = batch.select(list(dict.fromkeys(columns)))
            for begin in range(0, batch.num_rows, ROWS):
                yield batch.slice(begin, ROWS)


@contextmanager
def _refusing(path: Path, kind: str) -> Iterator[None]:
    """Whatever a reader says of a damaged file becomes a line."""
    import pyarrow as pa

    try:
        yield
    except InputError:
        raise
    except (*_UNREADABLE, pa.ArrowException) as error:
        why = " ".join((getattr(error, "strerror", None) or str(error) or "it ends early").split())[:200]
        raise InputError("bad-table", f"{path}: cannot be read as {kind} ({why}); give a whole file") from error


#: what readers raise for files that are damaged or made to harm
_UNREADABLE: Final = (
    *(OSError, EOFError, ValueError, TypeError, OverflowError, RecursionError, lzma.LZMAError, zlib.error),
)


def _check_columns(path: Path, there: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in there:
            has = f"it has: {', '.join(there)}" if there else "it is empty"
            raise InputError("bad-table", f"{path}: has no column {name!r}, which the card names; {has}")
        if list(there).count(name) > 1:
            raise InputError("bad-table", f"{path}: column {name!r} appears twice; rename one")


def _parquet(path: Path, columns: Sequence[str] | None) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        there = file.schema_arrow.names
        if columns is not None:
            _check_columns(path, there, columns)
        yield from file.iter_batches(ROWS, columns=None if columns is None else list(dict.fromkeys(columns)))


def _arrow(path: Path, columns: Sequence[str] | None) -> Iterator[Any]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        if source.size() >= 6 and source.read(6) == b"ARROW1":
            reader = pa.ipc.open_file(source)
            yield from map(_whole_batch, (reader.get_batch(number) for number in range(reader.num_record_batches)))
        else:
            source.seek(0)
            yield from map(_whole_batch, pa.ipc.open_stream(source))


def _whole_batch(batch: Any) -> Any:
    """The batch; ArrowInvalid where a buffer is shorter than its rows say, which compiled code would follow."""
    batch.validate(full=True)
    return batch


def _csv(path: Path, columns: Sequence[str] | None) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow import csv

    separator = "\t" if ".tsv" in path.name.lower() else ","
    with _opened(path) as file:
        head = file.readline(BLOCK).decode("utf-8-sig").rstrip("\r\n")
    names = next(text_rows([head], delimiter=separator), [])
    if columns is not None:
        _check_columns(path, names, columns)
    with _opened(path) as file:
        reader = csv.open_csv(
            file,
            read_options=csv.ReadOptions(block_size=BLOCK),
            parse_options=csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=list(dict.fromkeys(columns)) if columns is not None else None,
                strings_can_be_null=False,
            ),
        )
        yield from reader


def _json(path: Path, columns: Sequence[str] | None) -> Iterator[Any]:
    import pyarrow as pa

    if (rows := _whole(path)) is not None:
        names = list(dict.fromkeys(name for row in rows for name in row))
        if columns is not None:
            _check_columns(path, names, columns)
            names = list(dict.fromkeys(columns))  # payload bytes and the like are never looked at
        for begin in range(0, len(rows), ROWS):
            some = [{name: row.get(name) for name in names} for row in rows[begin : begin + ROWS]]
            yield from pa.Table.from_pylist(some).to_batches()
        return
    is_named = cache(partial(_is_named, path))
    with _opened(path) as file:
        while block := file.read(BLOCK):
            block += file.readline(LONGEST)  # a block ends with a row
            if len(block) >= LONGEST:
                raise ValueError(f"a row has more than {LONGEST >> 20} MiB")
            if match := _NO_OBJECT.search(block):
                raise ValueError(f"a line begins with {match[1][:20].decode(errors='replace')!r}, not with an object")
            if block.strip():
                yield from _block(block, [name for name in columns or () if is_named(name)])


def _block(block: bytes, columns: Sequence[str]) -> Iterator[Any]:
    """The rows of JSON lines: texts stay texts, and one of the file's ``columns`` that no row of them has is null.

    Arrow takes texts for times where all of a block look so: then one name would have two spellings in two blocks.
    """
    import pyarrow as pa
    from pyarrow import json as arrow_json

    reading = arrow_json.ReadOptions(block_size=len(block) + 1, use_threads=False)
    table = arrow_json.read_json(io.BytesIO(block), read_options=reading)
    told = pa.schema([pa.field(one.name, _without_times(one.type)) for one in table.schema])
    if told != table.schema:
        parsing = arrow_json.ParseOptions(explicit_schema=told)
        table = arrow_json.read_json(io.BytesIO(block), read_options=reading, parse_options=parsing)
    for name in columns:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows))
    yield from table.to_batches()


def _without_times(kind: Any) -> Any:
    """A type of Arrow's with texts in the place of times."""
    import pyarrow as pa

    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(one.name, _without_times(one.type)) for one in kind])
    return pa.list_(_without_times(kind.value_type)) if pa.types.is_list(kind) else kind


def _is_named(path: Path, name: str) -> bool:
    """Whether any row of JSON lines has, it seems, a key of that name."""
    key = json.dumps(name, ensure_ascii=False).encode()
    with _opened(path) as file:
        return any(key in line for line in file)


def _whole(path: Path) -> list[dict[str, Any]] | None:
    """The rows of a JSON file that is one list or object of them; None where every line is a row."""
    with _opened(path) as file:
        first, more = file.readline(BLOCK), file.readline(BLOCK)
    if len(first) < BLOCK:  # no row is longer
        try:
            row = json.loads(first)
        except ValueError:  # goes on, or is damaged
            if first.strip()[-1:] == b"}" and first.lstrip()[:1] == b"{":
                return None
        else:
            if more.strip() or not (isinstance(row, list) or _is_rows(row)):
                return None
    with _opened(path) as file:
        text = file.read(LONGEST)
    if len(text) == LONGEST:
        raise ValueError(f"is one JSON value of {LONGEST >> 20} MiB or more; write a row a line")
    content = json.loads(text)
    rows = [{KEY: key, **row} for key, row in content.items()] if _is_rows(content) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("is neither a list nor an object of rows")
    return rows


def _is_rows(content: Any) -> bool:
    """Whether an object's values are rows, and it is none itself: of a row some value is a list or a plain one."""
    return isinstance(content, dict) and bool(content) and all(isinstance(row, dict) for row in content.values())


def _opened(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked on the way."""
    opener = OPENERS.get(path.suffix.lower())
    opened: IO[bytes] = opener(path) if opener else path.open("rb")
    return opened


def _zstandard(path: Path) -> IO[bytes]:
    """By Arrow: zstandard's own reader does not tell that a file ends early."""
    import pyarrow as pa

    return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path), "rb"), "zstd"))


_READERS: Final = {"Parquet": _parquet, "Arrow": _arrow, "CSV": _csv, "JSON": _json}
