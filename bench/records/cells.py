"""Cells of a table as arrays: single values, and lists one after the other with their sizes.

A cell of a list may be a list, a list of objects of which one key is meant, or text such as ``[1, 2]``, ``1;2`` and
``[[1, 2], [3, 4]]``.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.records.layout import alternatives, steps, top_level

_SEPARATORS: Final = r"\s*[,;|]\s*|\s+"
_NESTED: Final = r"^\s*[\[(]\s*[\[(]"
_OUTER: Final = r"(?s)^\s*[\[({]?\s*(.*?)\s*[\])}]?\s*$"  # one pair of brackets, if there is one
_BEGINS: Final = r"^\s*[\[({]"
_ENDS: Final = r"[\])}]\s*$"
_INNER: Final = r"\]\s*[,;]?\s*\["


class BadCell(ValueError):
    """A cell is not what its column should hold: the row in the batch, from 0, and the reason."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(reason)
        self.row = row
        self.reason = reason


@dataclass(frozen=True)
class Lists:
    """The lists of a column: Arrow values one after the other, and int64 ``[rows]`` how many each row has."""

    values: Any
    sizes: NDArray[np.int64]

    def row(self, value: int) -> int:
        """The row of a value's place."""
        return int(np.searchsorted(np.cumsum(self.sizes), value, side="right"))

    def where(self, held: NDArray[np.bool_]) -> "Lists":
        """The lists of the values that are ``held``, bool ``[values]``."""
        import pyarrow as pa

        sizes = np.bincount(np.repeat(np.arange(len(self.sizes)), self.sizes)[held], minlength=len(self.sizes))
        return Lists(self.values.filter(pa.array(held)), sizes.astype(np.int64))

    def filled(self, number: int) -> "Lists":
        """The lists with a number in place of empty values; -1: as they are."""
        return self if number < 0 or not self.values.null_count else Lists(self.values.fill_null(number), self.sizes)

    def numbers(self, path: str) -> NDArray[Any]:
        """The values as int64 or float64 ``[values]``.  Raises BadCell for what is not a number."""
        return numbers(self.values, path, self.row)

    def texts(self) -> Any:
        """The values as Arrow strings."""
        import pyarrow as pa

        return self.values.cast(pa.string())


def lists(batch: Any, path: str) -> Lists:
    """The lists at a path of a batch."""
    import pyarrow as pa

    cells, sizes = batch.column(top_level(path)), None
    _check_ends(cells, path)
    for step in steps(path):
        if isinstance(step, str) and is_list(cells.type):
            sizes, cells = _sizes(cells), cells.flatten()
        cells = _step(cells, step, path)
    if sizes is None:
        if pa.types.is_null(cells.type):
            return Lists(pa.array([], pa.int64()), np.zeros(len(cells), np.int64))
        if not is_list(cells.type):
            cells = _split(_as_text(cells))
        sizes, cells = _sizes(cells), cells.flatten()
    return Lists(_plain(cells), sizes)


def single(batch: Any, path: str) -> Any:
    """The values at a path of a batch, one a row, as an Arrow array."""
    first, *others = alternatives(path)
    cells = batch.column(top_level(first))
    for step in steps(first):
        cells = _step(cells, step, first)
    return _or_else(cells, single(batch, "|".join(others))) if others else _plain(cells)


def _plain(cells: Any) -> Any:
    """Other kinds of text, as pandas and polars write them, as plain text; what is coded as what it stands for."""
    import pyarrow as pa
    from pyarrow import compute as pc

    if pa.types.is_dictionary(cells.type):
        cells = pc.dictionary_decode(cells)
    return cells.cast(pa.string()) if pa.types.is_large_string(cells.type) or _is_view(cells.type) else cells


def _is_view(kind: Any) -> bool:
    import pyarrow as pa

    return bool(getattr(pa.types, "is_string_view", lambda _: False)(kind))


def _or_else(cells: Any, others: Any) -> Any:
    """Texts of the cells, or of the others where these are empty."""
    from pyarrow import compute as pc

    words = _as_text(cells)
    return pc.if_else(pc.equal(words, ""), _as_text(others), words)


def numbers(cells: Any, path: str, row: Any = int) -> NDArray[Any]:
    """Arrow values as int64 or float64 ``[values]``; ``row`` gives a value's row.

    Raises BadCell for an empty cell and for what is not a number.
    """
    import pyarrow as pa

    if not len(cells):  # a column of empty lists has no type
        return np.zeros(0, np.int64)
    if cells.null_count:
        raise BadCell(row(int(np.flatnonzero(cells.is_null())[0])), f"{path} is empty")
    if pa.types.is_string(cells.type):
        cells = _parsed(cells, path, row)
    if pa.types.is_boolean(cells.type):
        cells = cells.cast(pa.int8())
    if not (pa.types.is_integer(cells.type) or pa.types.is_floating(cells.type) or pa.types.is_decimal(cells.type)):
        raise BadCell(0, f"{path} is {cells.type}, not a number")
    if pa.types.is_uint64(cells.type) and np.asarray(cells).max() > np.iinfo(np.int64).max:
        raise BadCell(row(int(np.asarray(cells).argmax())), f"{path} has a number that is too large")
    kind = np.int64 if pa.types.is_integer(cells.type) else np.float64
    values = np.asarray(cells.to_numpy(zero_copy_only=False)).astype(kind)
    if kind is np.float64 and not np.isfinite(values).all():
        raise BadCell(row(int(np.flatnonzero(~np.isfinite(values))[0])), f"{path} is not a finite number")
    return values


def texts(cells: Any) -> list[str]:
    """Arrow values as texts; an empty cell is an empty text."""
    import pyarrow as pa

    return [text or "" for text in cells.cast(pa.string()).to_pylist()]


def or_zero(cells: Any) -> Any:
    """Arrow numbers, or texts of such, with 0 in empty cells."""
    import pyarrow as pa
    from pyarrow import compute as pc

    if not pa.types.is_string(cells.type):
        return pc.fill_null(cells, 0)
    filled = pc.fill_null(cells, "")
    return pc.if_else(pc.equal(filled, ""), "0", filled)


def _parsed(cells: Any, path: str, row: Any) -> Any:
    """Texts as integers, or else as other numbers."""
    import pyarrow as pa
    from pyarrow import compute as pc

    trimmed = pc.utf8_trim_whitespace(cells)
    for kind in (pa.int64(), pa.float64()):
        try:
            return trimmed.cast(kind)
        except pa.ArrowInvalid:
            continue
    for place, text in enumerate(trimmed.to_pylist()):
        if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
            raise BadCell(row(place), f"{path} is {text!r:.40}, not a number")
    raise BadCell(0, f"{path} has a number that is too large")


def _step(cells: Any, step: str | int, path: str) -> Any:
    """One key or list entry deeper."""
    import pyarrow as pa
    from pyarrow import compute as pc

    if isinstance(step, str):
        if not pa.types.is_struct(cells.type) or cells.type.get_field_index(step) < 0:
            raise BadCell(0, f"{path}: there is no {step!r} in {cells.type}")
        return pc.struct_field(cells, step)
    if not is_list(cells.type):
        words = _as_text(cells)
        cells = pc.if_else(
            pc.equal(words, ""), pa.scalar(None, pa.list_(pa.string())), _split(words)
        )  # nothing: no list
    short = np.flatnonzero((_sizes(cells) <= step) & np.asarray(cells.is_valid()))
    if len(short):
        raise BadCell(int(short[0]), f"{path}: there is no entry {step}")
    return pc.list_element(cells, step)


def is_list(kind: Any) -> bool:
    """Whether an Arrow type is one of lists."""
    import pyarrow as pa

    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _sizes(cells: Any) -> NDArray[np.int64]:
    from pyarrow import compute as pc

    return np.asarray(pc.list_value_length(cells).fill_null(0)).astype(np.int64)


def _as_text(cells: Any) -> Any:
    import pyarrow as pa

    return cells.cast(pa.string()).fill_null("")


def _check_ends(cells: Any, path: str) -> None:
    """Raises BadCell for a text that begins with a bracket and ends with none, or the other way: it was cut."""
    import pyarrow as pa
    from pyarrow import compute as pc

    if not pa.types.is_string(_plain(cells).type):
        return
    begins, ends = (np.asarray(pc.match_substring_regex(_as_text(cells), one)) for one in (_BEGINS, _ENDS))
    if len(cut := np.flatnonzero(begins != ends)):
        what = (
            "begins with a bracket and ends with none" if begins[cut[0]] else "ends with a bracket and begins with none"
        )
        raise BadCell(int(cut[0]), f"{path} {what}: it was cut")


def _split(cells: Any) -> Any:
    """Texts as lists of texts: of their inner lists where they begin with two brackets, else of their entries."""
    import pyarrow as pa
    from pyarrow import compute as pc

    nested = pc.match_substring_regex(cells, _NESTED)
    bare = pc.replace_substring_regex(cells, _OUTER, r"\1")
    bare = pc.if_else(nested, bare, pc.utf8_trim(bare, characters=" []"))
    parts = pc.if_else(nested, pc.split_pattern_regex(bare, _INNER), pc.split_pattern_regex(bare, _SEPARATORS))
    return pc.if_else(pc.equal(bare, ""), pa.scalar([], parts.type), parts)
