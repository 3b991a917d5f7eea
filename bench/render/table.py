"""One printed table in six formats: for people as text, Markdown, LaTeX or HTML, for programs as CSV or JSON."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any, Final

from bench.errors import InputError


@dataclass(frozen=True)
class Sheet:
    """A table: cells as people read them, and the same as numbers."""

    title: str  # what it shows, on which data, at which scale; may be empty
    head: Sequence[str]
    rows: Sequence[Sequence[str]]  # as many cells each as the head has
    notes: Sequence[str] = ()  # a line each
    records: Sequence[Mapping[str, Any]] = ()  # JSON types, a mapping a line; what CSV and JSON give
    empty: str = "nothing to show"  # instead of a table without rows
    more: Mapping[str, Any] = field(default_factory=dict)  # further keys of the JSON object

    def noted(self, *notes: str) -> "Sheet":
        """The same with more notes below; empty ones are none."""
        return replace(self, notes=[*self.notes, *filter(None, notes)])


def render(sheet: Sheet, form: str = "text") -> str:
    """The sheet in one of `FORMATS`.  Raises :class:`InputError` for another one."""
    if form not in FORMATS:
        raise InputError(f"unknown table format {form!r}; there are: {', '.join(FORMATS)}")
    return FORMATS[form](sheet)


def _cells(sheet: Sheet, escaped: Callable[[str], str] = str) -> list[list[str]]:
    """Head and rows, each cell ``escaped`` and on one line."""
    return [[escaped(" ".join(cell.splitlines())) for cell in line] for line in [sheet.head, *sheet.rows]]


def _text(sheet: Sheet) -> str:
    if not sheet.rows:
        return "\n".join([sheet.empty, *sheet.notes])
    cells = _cells(sheet)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([*_titled(sheet), lines[0], "-" * len(lines[0]), *lines[1:], *sheet.notes])


def _markdown(sheet: Sheet) -> str:
    if not sheet.rows:
        return _text(sheet)
    escapes = str.maketrans({"|": r"\|", "\\": r"\\"})  # a backslash before a bar would end the cell
    lines = ["| " + " | ".join(line) + " |" for line in _cells(sheet, lambda cell: cell.translate(escapes))]
    notes = ["", *(f"- {note}" for note in sheet.notes)] if sheet.notes else []
    return "\n".join([*_titled(sheet), lines[0], "|" + "---|" * len(sheet.head), *lines[1:], *notes])


def _titled(sheet: Sheet) -> list[str]:
    return [" ".join(sheet.title.splitlines()), ""] if sheet.title else []


def _latex(sheet: Sheet) -> str:
    """A booktabs tabular with its caption; notes as comments, which no compiler can trip over."""
    told = sheet.notes if sheet.rows else [sheet.empty, *sheet.notes]
    comments = [f"% {line}" for text in told for line in text.splitlines()]
    if not sheet.rows:
        return "\n".join(comments)
    lines = [_guarded(" & ".join(line)) + r" \\" for line in _cells(sheet, _tex)]
    return "\n".join(
        [
            *comments,
            r"\begin{table}",
            r"\centering",
            *([rf"\caption{{{_tex(sheet.title)}}}"] if sheet.title else []),
            rf"\begin{{tabular}}{{{'l' * len(sheet.head)}}}",
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


def _html(sheet: Sheet) -> str:
    """A table element with its caption, or a paragraph where it is empty, and its notes as a list; all escaped."""
    notes = "".join(f"<li>{escape(note)}</li>" for note in sheet.notes)
    below = f"\n<ul>{notes}</ul>" if notes else ""
    if not sheet.rows:
        return f"<p>{escape(sheet.empty)}</p>{below}"
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in sheet.head)
    body = "\n".join(
        f'<tr><th scope="row">{escape(line[0])}</th>' + "".join(f"<td>{escape(c)}</td>" for c in line[1:]) + "</tr>"
        for line in sheet.rows
    )
    caption = f"<caption>{escape(sheet.title)}</caption>\n" if sheet.title else ""
    return f"<table>\n{caption}<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>{below}"


def _csv(sheet: Sheet) -> str:
    """One line a record; lists and mappings as JSON texts; without records no line."""
    import pandas

    lines = [
        {key: json.dumps(v) if isinstance(v, list | dict) else v for key, v in record.items()}
        for record in sheet.records
    ]
    return str(pandas.DataFrame(lines, dtype=object).to_csv(index=False, lineterminator="\n")).rstrip("\n")


def _json(sheet: Sheet) -> str:
    title = {"title": sheet.title} if sheet.title else {}
    return json.dumps({**title, "rows": list(sheet.records), "notes": list(sheet.notes), **sheet.more}, indent=1)


FORMATS: Final[dict[str, Callable[[Sheet], str]]] = {
    "text": _text,
    "md": _markdown,
    "csv": _csv,
    "tex": _latex,
    "html": _html,
    "json": _json,
}
