"""One printed table in six formats: for people as text, Markdown, LaTeX or HTML, for programs as CSV or JSON."""

import json
import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any, Final, Self

from bench.errors import InputError, instead
from bench.files import read_json
from bench.structure import FieldError


@dataclass(frozen=True)
class Table:
    """A table: cells as people read them, and the same as numbers."""

    title: str  # what it shows, on which data, at which scale; may be empty
    head: Sequence[str]
    rows: Sequence[Sequence[str]]  # as many cells each as the head has
    notes: Sequence[str] = ()  # a line each
    records: Sequence[Mapping[str, Any]] = ()  # JSON types, a mapping a line; what CSV and JSON give
    empty: str = "nothing to show"  # instead of a table without rows
    more: Mapping[str, Any] = field(default_factory=dict)  # further keys of the JSON object
    below: Sequence[str] = ()  # columns of long cells that rows share: text tells them once, under the table

    def noted(self, *notes: str) -> "Table":
        """The same with more notes below; empty ones are none."""
        return replace(self, notes=[*self.notes, *filter(None, notes)])

    def reworded(self, change: Callable[[str], str]) -> "Table":
        """The same with its sentences changed: the notes, and what stands in place of rows."""
        return replace(self, notes=list(map(change, self.notes)), empty=change(self.empty))


@dataclass(frozen=True)
class SavedTable:
    """A table as `bench reproduce` left it in a file, with the command that made it."""

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str]
    empty: str = "nothing to show"
    command: str = ""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.head) for row in self.rows):
            raise FieldError("rows", "have other numbers of cells than the head")

    @property
    def table(self) -> Table:
        """As it is shown."""
        return Table(self.title, self.head, self.rows, self.notes, empty=self.empty)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file.  Raises :class:`InputError` where it is none."""
        return read_json(path, cls, "a table; run `bench reproduce …` again or remove the file")


#: what a terminal obeys: control characters, but those that lay out our own text, marks that turn the order of what
#: follows, separators of lines; and surrogates, which no stream can write (names that are not UTF-8 have them)
_OBEYED: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""The text with all that a terminal would obey written out; line ends and tabs are layout and stay.

    >>> printable("a\x1b[31mb\n")
    'a\\x1b[31mb\n'
    """
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """As `printable`, for what has no layout of its own, such as a name: line ends and tabs are written out, too."""
    return printable(text).replace("\n", r"\n").replace("\t", r"\t")


def render(table: Table, form: str = "text") -> str:
    """The table in one of `FORMATS`.  Raises :class:`InputError` for another one."""
    if form not in FORMATS:
        raise InputError("unknown-format", f"unknown table format {form!r}; {instead(form, FORMATS)}")
    return FORMATS[form](table)


WIDEST: Final = 120  # letters of a line under a table
LONGEST: Final = 60  # letters of a cell that others stand behind


def shortened(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    """Lines of cells as a terminal has room for them: of long ones the middle is left out.

    A column whose cells could not be told apart any more stays, and so does the last one, which pushes nothing aside.

    >>> shortened([["a" * 40 + "b" * 40, "1"]])[0][0]
    'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…bbbbbbbbbbbbbbbbbbbbbbbbbbbbb'
    """
    columns = [list(column) for column in zip(*lines, strict=True)]
    for number, column in enumerate(columns[:-1]):
        short = [
            cell if len(cell) <= LONGEST else f"{cell[: LONGEST // 2]}…{cell[1 - LONGEST // 2 :]}" for cell in column
        ]
        if len(set(short)) == len(set(column)):
            columns[number] = short
    return [list(line) for line in zip(*columns, strict=True)]


def _cells(table: Table, escaped: Callable[[str], str] = str) -> list[list[str]]:
    """Head and rows, each cell ``escaped`` and on one line."""
    return [[escaped(" ".join(cell.splitlines())) for cell in line] for line in [table.head, *table.rows]]


def _text(table: Table) -> str:
    if not table.rows:
        return "\n".join([table.empty, *table.notes])
    cells, told = _with_numbers(_cells(table, one_line), table.below)
    cells = shortened(cells)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([*_titled(table), lines[0], "-" * len(lines[0]), *lines[1:], *told, *table.notes])


def _with_numbers(cells: list[list[str]], below: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """Lines of cells with a number in place of the columns ``below``, and what each number stands for."""
    if not below:
        return cells, []
    head, *rows = cells
    places = [head.index(name) for name in below]
    numbers: dict[tuple[str, ...], int] = {}
    lines = [[name for name in head if name not in below] + ["of"]]
    for row in rows:
        number = numbers.setdefault(tuple(row[place] for place in places), len(numbers) + 1)
        lines.append([cell for place, cell in enumerate(row) if place not in places] + [f"[{number}]"])
    told = []
    for values, number in numbers.items():
        text = "; ".join(f"{name}: {value}" for name, value in zip(below, values, strict=True) if value)
        told += textwrap.wrap(f"[{number}] {text}", WIDEST, subsequent_indent="    ")
    return lines, told


def _markdown(table: Table) -> str:
    if not table.rows:
        return _text(table)
    escapes = str.maketrans({"|": r"\|", "\\": r"\\"})  # a backslash before a bar would end the cell
    lines = ["| " + " | ".join(line) + " |" for line in _cells(table, lambda cell: cell.translate(escapes))]
    notes = ["", *(f"- {note}" for note in table.notes)] if table.notes else []
    return "\n".join([*_titled(table), lines[0], "|" + "---|" * len(table.head), *lines[1:], *notes])


def _titled(table: Table) -> list[str]:
    return [" ".join(table.title.splitlines()), ""] if table.title else []


def _latex(table: Table) -> str:
    """A booktabs tabular with its caption; notes as comments, which no compiler can trip over."""
    texts = table.notes if table.rows else [table.empty, *table.notes]
    comments = [f"% {line}" for text in texts for line in text.splitlines()]
    if not table.rows:
        return "\n".join(comments)
    lines = [_guarded(" & ".join(line)) + r" \\" for line in _cells(table, _tex)]
    return "\n".join(
        [
            *comments,
            r"\begin{table}",
            r"\centering",
            *([rf"\caption{{{_tex(table.title)}}}"] if table.title else []),
            rf"\begin{{tabular}}{{{'l' * len(table.head)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


_SPECIAL: Final = str.maketrans(
    {c: rf"\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"±": r"$\pm$", "†": r"$\dagger$", "‡": r"$\ddagger$", "–": "--", "−": "$-$", "×": r"$\times$", "τ": r"$\tau$"}
    | {"§": r"\S{}", "¶": r"\P{}", "‖": r"$\|$", "◇": r"$\diamond$", "○": r"$\circ$", "△": r"$\triangle$"}
    | {
        "α": r"$\alpha$",
        "≤": r"$\leq$",
        "≥": r"$\geq$",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
    }
)


def _tex(text: str) -> str:
    return " ".join(text.translate(_SPECIAL).split())


def _guarded(line: str) -> str:
    """What begins a line: after a row's end or a rule, TeX would take "[" or "*" for its argument."""
    return "{}" + line if line.startswith(("[", "*")) else line


def _html(table: Table) -> str:
    """A table element with its caption, or a paragraph where it is empty, and its notes as a list; all escaped."""
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    below = f"\n<ul>{notes}</ul>" if notes else ""
    if not table.rows:
        return f"<p>{escape(table.empty)}</p>{below}"
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.head)
    body = "\n".join(
        f'<tr><th scope="row">{escape(line[0])}</th>' + "".join(f"<td>{escape(c)}</td>" for c in line[1:]) + "</tr>"
        for line in table.rows
    )
    caption = f"<caption><span>{escape(table.title)}</span></caption>\n" if table.title else ""
    return f"<table>\n{caption}<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>{below}"


def _csv(table: Table) -> str:
    """One line a record; lists and mappings as JSON texts, texts no formulas; without records no line."""
    import pandas

    lines = [
        {_plain(key): json.dumps(v) if isinstance(v, list | dict) else _plain(v) for key, v in record.items()}
        for record in table.records
    ]
    return str(pandas.DataFrame(lines, dtype=object).to_csv(index=False, lineterminator="\n")).rstrip("\n")


_FORMULA: Final = tuple("=+-@\t\n＝＋－＠")  # how texts begin that a spreadsheet computes
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def _plain(cell: Any) -> Any:
    """A text as no more than a text, all else as it is: before what a spreadsheet would compute comes an apostrophe.

    A carriage return, which Python leaves without quotes and others take for the end of a line, is written out.
    """
    if not isinstance(cell, str):
        return cell
    computed = cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell)
    return f"'{printable(cell)}" if computed else printable(cell)


def to_dict(table: Table) -> dict[str, Any]:
    """The table as JSON types."""
    title = {"title": table.title} if table.title else {}
    return {**title, "rows": list(table.records), "notes": list(table.notes), **table.more}


def _json(table: Table) -> str:
    return json_text(to_dict(table))


def json_text(data: Any) -> str:
    """JSON of plain values, with null for a number that is none: no NaN is JSON."""
    return json.dumps(_finite(data), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


FORMATS: Final[dict[str, Callable[[Table], str]]] = {
    "text": _text,
    "md": _markdown,
    "csv": _csv,
    "tex": _latex,
    "html": _html,
    "json": _json,
}
