"""The words of a card for a table that nobody has described yet, guessed from names and values: to be read over.

What is guessed is said as a comment beside it, with what else there was.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.errors import InputError, counted
from bench.records.cells import BadCell, is_list, lists, single, texts
from bench.records.layout import PROTOCOLS, top_level
from bench.records.tables import KEY, batches

MOST_CLASSES: Final = 500  # more distinct texts are names of single flows (our choice)

_SMALLEST_IP, _ETHERNET = 28, 1500  # bytes of an IP packet on Ethernet

#: what a column's name says it is; the first that matches, in this order
_LISTS: Final = (
    ("directions", r"dir"),
    ("gaps", r"gap|ipt|iat|interval|delta|inter_?arrival"),
    ("times", r"time|stamp|^ts?$|\.ts?$"),
    ("lengths", r"len|size|byte|^b$|\.b$|_ps$|payload"),
)
_SINGLE: Final = {
    "source address": r"^(source|src|client|orig|s)_?(ip|addr|address|a)$|^sa$|^ip_?(src|source)$",
    "source port": r"^(source|src|client|orig|s)_?(port|p)$|^sp$|^sport$",
    "destination address": r"^(destination|dest|dst|server|resp|d)_?(ip|addr|address|a)$|^da$|^ip_?(dst|dest)$",
    "destination port": r"^(destination|dest|dst|server|resp|d)_?(port|p)$|^dp$|^dport$",
    "protocol": r"^(proto|protocol|pr|l4|ip_?proto(col)?)$",
    "start": r"start|first|unix_?time|^begin|^timestamp$|^ts$",
    "capture": r"capture|pcap|^file(name)?$|^trace$|^session(_id)?$",
}
_LABELS: Final = r"label|^app|class|categor|service|^type|^target$|^y$"
_TOTALS: Final = r"^(num_?)?(packets|pkts)(_|$)|(packets|pkts)_?(out|in|rev|fwd|bwd)?$"
_LAYER: Final = (("payload", "payload|l4"), ("transport", "transport|tcp|udp"), ("ip", r"(^|_)ip"), ("frame", "frame"))


@dataclass
class Guess:
    """A card's table ``[records]``: values, and what to say beside them."""

    values: dict[str, Any] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)

    def take(self, name: str, value: Any, remark: str = "") -> None:
        """Set one."""
        self.values[name] = value
        self.remarks[name] = f"GUESSED: {remark}" if remark else "GUESSED"


def guessed_card(path: Path, name: str) -> str:
    """The text of a card, named ``name``, for the table at a path.

    Raises :class:`InputError` for what is no table, or has no list of numbers.
    """
    batch = next(batches(path), None)
    if batch is None or not batch.num_rows:
        raise InputError("bad-table", f"{path}: has no row to guess from; give a table of records")
    of_lists = {one: found for one in _paths(batch.schema) if (found := _numbers_of(batch, one)) is not None}
    if not of_lists:
        raise InputError("bad-table", f"{path}: has no column of lists of numbers, such as lengths of packets")
    guess, cells = Guess(), _texts_of(batch, of_lists)
    _guess_lists(guess, of_lists)
    _guess_single(guess, cells)
    labels = [one for one in cells if re.search(_LABELS, one, re.I) and one not in _used(guess)]
    few = [one for one, words in cells.items() if 2 <= len(set(words)) <= MOST_CLASSES and not _are_numbers(words)]
    labels = [one for one in labels or few if one not in _used(guess) and len(set(cells[one])) <= MOST_CLASSES]
    unused = [one for one in of_lists if one not in _used(guess)]
    return _written(path, name, guess, labels, cells, unused)


def _paths(schema: Any) -> Iterator[str]:
    """Paths of all columns, and of what is inside of objects and lists of objects."""
    import pyarrow as pa

    def below(prefix: str, kind: Any) -> Iterator[str]:
        if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
            kind = kind.value_type
        if not pa.types.is_struct(kind):
            yield prefix
            return
        for one in kind:
            yield from below(f"{prefix}.{one.name}", one.type)

    for one in schema:
        yield from below(f"`{one.name}`" if re.search(r"[.\[\]{}|]", one.name) else one.name, one.type)


@dataclass(frozen=True)
class _Numbers:
    """A column of lists: its values, how many a row has, and texts where they are no numbers."""

    values: NDArray[Any]
    sizes: NDArray[np.int64]
    words: tuple[str, ...] = ()  # distinct, where they are texts
    firsts: tuple[str, ...] = ()  # the first value of each row, as a text

    @property
    def forward(self) -> str:
        """The commonest first value: the source of a record sends its first packet."""
        return max(sorted(set(self.firsts)), key=self.firsts.count, default="1")


def _numbers_of(batch: Any, path: str) -> _Numbers | None:
    """The lists at a path; None where there are none, or of too many words."""
    import pyarrow as pa

    try:
        found, kind = lists(batch, path), batch.schema.field(top_level(path)).type
        words = [] if is_list(kind) or pa.types.is_struct(kind) else texts(single(batch, path))[:50]
        if pa.types.is_struct(kind):
            words = [] if is_list(single(batch, path).type) else ["no list"]
        if not all(_is_listed(word) for word in words):
            return None
    except (BadCell, pa.ArrowException, TypeError):
        return None
    try:
        values = found.numbers(path)
        return _Numbers(
            values, found.sizes, firsts=tuple(f"{value:g}" for value in values[_begins(found.sizes)].tolist())
        )
    except (BadCell, pa.ArrowException, TypeError):
        distinct = tuple(sorted(set(texts(found.values))))
        firsts = tuple(texts(found.values.take(_begins(found.sizes))))
        return _Numbers(np.zeros(0), found.sizes, distinct, firsts) if len(distinct) <= 3 else None


def _begins(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the first values of rows stand that have some."""
    return (np.cumsum(sizes) - sizes)[sizes > 0]


def _leaf(path: str) -> str:
    """The last name in a path."""
    return path.strip("`").split(".")[-1]


def _is_listed(text: str) -> bool:
    """Whether a text looks like a list: brackets, or several numbers."""
    return bool(re.match(r"\s*[\[(]", text) or re.fullmatch(r"\s*[-+\d.]+([\s,;|]+[-+\d.]+)+\s*", text))


def _texts_of(batch: Any, of_lists: dict[str, _Numbers]) -> dict[str, list[str]]:
    """Columns with one value a row, as texts."""
    import pyarrow as pa

    found: dict[str, list[str]] = {}
    for path in _paths(batch.schema):
        if path not in of_lists and path != KEY:
            try:
                found[path] = texts(single(batch, path))
            except (BadCell, pa.ArrowException, TypeError):  # lists of objects, maps: nothing that a card could name
                continue
    return found


def _kind(path: str, found: _Numbers) -> str:
    """What a list is, by its values where these tell, else by its name."""
    values = set(np.unique(found.values).tolist()) if len(found.values) else set()
    if found.words or (values and values <= {-1, 0, 1} and len(values) > 1):
        return "directions"
    leaf = _leaf(path)
    return next((kind for kind, pattern in _LISTS if re.search(pattern, leaf, re.I)), "lengths")


def _guess_lists(guess: Guess, of_lists: dict[str, _Numbers]) -> None:
    kinds: dict[str, list[str]] = {}
    for path, found in of_lists.items():
        kinds.setdefault(_kind(path, found), []).append(path)
    if "lengths" not in kinds:
        kinds["lengths"] = [next(iter(of_lists))]
    for kind in ("lengths", "directions", "times", "gaps"):
        if kind in kinds and not (kind == "times" and "gaps" in kinds):
            more = f"; or {', '.join(kinds[kind][1:])}" if len(kinds[kind]) > 1 else ""
            guess.take(kind, kinds[kind][0], f"by its values or its name{more}")
    length = of_lists[guess.values["lengths"]]
    size = np.abs(length.values) if len(length.values) else np.zeros(1)
    usual = "ip" if size.min() >= _SMALLEST_IP and size.max() <= _ETHERNET else "payload"
    layer = next((one for one, word in _LAYER if re.search(word, guess.values["lengths"], re.I)), usual)
    guess.take("layer", layer, "which bytes do lengths count? frame, ip, transport or payload")
    if len(length.values) and length.values.min() < 0:
        guess.take("signed", True, "some lengths are negative: packets to the source")
        guess.values.pop("directions", None)
    elif "directions" in guess.values:
        found = of_lists[guess.values["directions"]]
        words = found.words or tuple(f"{value:g}" for value in np.unique(found.values).tolist())
        guess.take("forward", found.forward, f"there are: {', '.join(words)}; most records begin with it")
    if time := guess.values.get("times") or guess.values.get("gaps"):
        unit, why = _unit(time, of_lists[time].values)
        guess.take("time_unit", unit, why)


def _unit(path: str, values: NDArray[Any]) -> tuple[str, str]:
    """The unit of differences of times, and why."""
    if match := re.search(r"_(s|ms|us|ns)$", path, re.I):
        return match[1].lower(), "by the column's name"
    return ("ms", "whole numbers") if values.dtype == np.int64 else ("s", "fractions")


def _guess_single(guess: Guess, cells: dict[str, list[str]]) -> None:
    found: dict[str, str] = {}
    for what, pattern in _SINGLE.items():
        match = [one for one in cells if re.search(pattern, _leaf(one), re.I) and one not in found.values()]
        if match:
            found[what] = match[0]
    ends = [found.get(f"{side} {what}") for side in ("source", "destination") for what in ("address", "port")]
    if all(ends):
        guess.take("endpoints", ends, "address and port of the source, of the destination")
    if "protocol" in found and {word.lower() for word in cells[found["protocol"]]} & set(PROTOCOLS):
        guess.take("protocol", found["protocol"])
    if "start" in found:
        _guess_start(guess, found["start"], cells[found["start"]])
    if "capture" in found:
        guess.take("capture", found["capture"], "what must not part in a split by capture")
    totals = [one for one in cells if re.search(_TOTALS, one, re.I) and _are_numbers(cells[one])]
    if totals:
        guess.take("totals", totals, "their sum is how many packets a record has")


def _are_numbers(words: Sequence[str]) -> bool:
    """Whether texts are whole numbers or empty."""
    return all(word.replace(".0", "").isdecimal() or not word for word in words)


def _guess_start(guess: Guess, path: str, words: Sequence[str]) -> None:
    try:
        size = max(abs(float(word)) for word in words[:50])
    except ValueError:
        guess.take("start", path, "as text")
        return
    unit = next((one for one, least in (("ns", 1e17), ("us", 1e14), ("ms", 1e11)) if size >= least), "s")
    guess.take("start", path)
    guess.take("start_unit", unit, "by its size")


def _used(guess: Guess) -> set[str]:
    values = [one for value in guess.values.values() for one in (value if isinstance(value, list) else [value])]
    return {one for one in values if isinstance(one, str)}


def _written(
    path: Path, name: str, guess: Guess, labels: Sequence[str], cells: dict[str, list[str]], unused: Sequence[str]
) -> str:
    """The card's text; ``unused`` are columns of lists that nothing of it reads."""
    payload = guess.values.get("layer") == "payload" or "protocol" in guess.values
    lines = [f'name = "{name}"', f'title = "Flow records of {path.name}"', 'kind = "records"',
             f"source = {_quoted(str(path.absolute().parent))} # folder of the table", "", "[captures]",
             f"include = [{_quoted(path.name)}]", "", "[records]"]  # fmt: skip
    for key, value in guess.values.items():
        text = str(value).lower() if isinstance(value, bool) else _listed(value)
        lines.append(f"{key} = {text} # {' '.join(guess.remarks[key].split())}")
    for key in ("endpoints", "protocol", "start", "capture"):
        if key not in guess.values:
            lines.append(f"# {key}: nothing found; datasets/README.md says what it is for")
    if unused:
        lines.append(f"# not read: {', '.join(unused)}; name one above where it is what is meant")
    taken = list({_key(one): one for one in reversed(labels)}.values())[::-1] or [
        guess.values.get("capture") or next(iter(cells), "label")
    ]
    lines += ["", "[labels]", 'kind = "columns"', "", "[labels.paths]"]
    for one in taken:
        words = cells.get(one, ())
        empty = f", {counted(words.count(''), 'row')} without one" if "" in words else ""
        number = len(set(words) - {""})
        lines.append(f"{_key(one)} = {_quoted(one)} # GUESSED: {number} values in the first rows{empty}")
    for number, one in enumerate(taken):
        lines += ["", f"[tasks.{_key(one)}]", f"label = {_quoted(_key(one))}"]
        lines += ["default = true # GUESSED"] if number == 0 and len(taken) > 1 else []
        lines += [] if payload else ["payload = false # these records do not show payload"]
    return "\n".join(lines) + "\n"


def _key(column: str) -> str:
    """A column's name as a bare key."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", column).strip("-") or "label"


def _quoted(text: str) -> str:
    """A TOML string."""
    text = re.sub(r"[\x00-\x1f\x7f]", " ", text)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _listed(value: Any) -> str:
    return f"[{', '.join(map(_quoted, value))}]" if isinstance(value, list) else _quoted(str(value))
