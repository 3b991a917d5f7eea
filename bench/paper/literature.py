"""Numbers that other papers print, as tidy rows, and what does not add up between them.

``results/papers/`` has one CSV file a paper; the tables of the paper that is reproduced come as such rows, too.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from bench.data.names import find_card
from bench.errors import InputError, instead
from bench.files import shipped_folder
from bench.paper.declaration import Paper, find_paper
from bench.render.table import Table

METRICS: Final = ("accuracy", "precision", "recall", "macro_f1", "weighted_f1", "f1")
APART: Final = 5.0  # points by which two papers' numbers of one thing are told (our choice)
NAMES: Final = {"f1": "macro_f1"}  # of columns in the reproduced paper's tables


@dataclass(frozen=True)
class Printed:
    """One number."""

    card: str  # the data set's card here; empty: none
    dataset: str
    task: str
    split: str
    method: str
    metric: str
    value: float  # percent
    sd: float | None  # likewise
    source: str
    note: str
    step: float  # percent: one unit of the last digit that is printed
    paper: str  # the file's name

    @property
    def place(self) -> tuple[str, ...]:
        """What numbers of one row of a table share."""
        return (self.paper, self.dataset, self.task, self.split, self.method, self.source, self.note)

    @property
    def subject(self) -> tuple[str, ...]:
        """What the same number of two papers is of, as far as papers say: card, number of classes, method, metric."""
        classes = re.search(r"(\d+) (?:classes|services|applications)", self.task)
        return (self.card, classes[1] if classes else self.task, self.method, self.metric)


def printed_numbers() -> list[Printed]:
    """All of them, paper by paper.  Raises :class:`InputError` for a file that is not as it should be."""
    rows = _own(find_paper())
    for path in sorted((shipped_folder("results") / "papers").glob("*.csv")):
        rows += _read(path)
    return rows


def _read(path: Path) -> list[Printed]:
    head = [one.name for one in fields(Printed) if one.name not in ("paper", "step")]
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if sorted(reader.fieldnames or ()) != sorted([*head, "unit"]):
            raise InputError("wrong-file", f"{path}: its columns must be {', '.join([*head, 'unit'])}")
        return [_number(path, reader.line_num, row) for row in reader]


def _number(path: Path, line: int, row: dict[str, str]) -> Printed:
    scale = {"share": 100.0, "percent": 1.0}.get(row["unit"])
    try:
        value, sd = float(row["value"]), float(row["sd"]) if row["sd"] else None
    except ValueError:
        scale = None
    if scale is None or row["metric"] not in METRICS or not 0 <= value * scale <= 100:
        raise InputError(
            "wrong-file", f"{path}: row {line}: value, unit or metric cannot be; see results/papers/README.md"
        )
    return Printed(
        card=row["card"],
        dataset=row["dataset"],
        task=row["task"],
        split=row["split"],
        method=row["method"],
        metric=row["metric"],
        value=value * scale,
        sd=None if sd is None else sd * scale,
        source=row["source"],
        note=row["note"],
        step=scale * _step(row["value"]),
        paper=path.stem,
    )


def _step(text: str) -> float:
    """One unit of the last digit of a printed number.

    >>> _step("0.77"), _step("85")
    (0.01, 1.0)
    """
    return float(10.0 ** -len(text.partition(".")[2]))


def _own(paper: Paper) -> list[Printed]:
    """The comparison tables of the reproduced paper."""
    tables = [one for one in paper.experiments if one.kind == "systems" and paper.has_numbers(one.id)]
    return [
        Printed(
            card=table.dataset,
            dataset=table.dataset,
            task=paper.printed(table.id).title,
            split="windows at random",
            method=row["id"],
            metric=NAMES.get(column, column),
            value=float(row[column]),
            sd=None,
            source=f"{paper.name} {table.id}",
            note="",
            step=_step(row[column]),
            paper=paper.name,
        )
        for table in tables
        for row in paper.rows(table.id)
        for column in ("accuracy", "precision", "recall", "f1")
        if row.get(column)
    ]


def faults(rows: Sequence[Printed]) -> dict[int, list[str]]:
    """What does not add up, by the place of a number in ``rows``."""
    found: dict[int, list[str]] = {}
    by_place: dict[tuple[str, ...], dict[str, tuple[int, Printed]]] = {}
    for number, row in enumerate(rows):
        by_place.setdefault(row.place, {})[row.metric] = number, row
    for cells in by_place.values():
        if {"precision", "recall", "macro_f1"} <= cells.keys():
            precision, recall = (cells[name][1] for name in ("precision", "recall"))
            most, (number, f1) = (precision.value + recall.value) / 2, cells["macro_f1"]
            cut = f1.step + (precision.step + recall.step) / 2  # digits may be cut off, not rounded
            if f1.value > most + cut + 1e-9:
                found.setdefault(number, []).append(f"impossible: above {most:.2f}")
    by_subject: dict[tuple[str, ...], list[tuple[int, Printed]]] = {}
    for number, row in enumerate(rows):
        if row.card:
            by_subject.setdefault(row.subject, []).append((number, row))
    for same in by_subject.values():
        for number, row in same:
            others = [o for _, o in same if o.paper != row.paper and abs(o.value - row.value) > APART]
            if others:
                told = ", ".join(f"{one.value:.1f} ({one.paper})" for one in others[:3])
                found.setdefault(number, []).append(f"elsewhere {told}")
    return found


def published_numbers(dataset: str | None, methods: Iterable[str] = (), metrics: Iterable[str] = ()) -> Table:
    """The numbers of a data set, or of all, as a table.  Raises :class:`InputError` where there is none."""
    rows = printed_numbers()
    wrong = faults(rows)
    card = _card(dataset) if dataset else None
    kept = list(range(len(rows)))
    for field, words in (("card", [card] if card else []), ("method", list(methods)), ("metric", list(metrics))):
        there = sorted({str(getattr(rows[number], field)) for number in kept} - {""})
        if strange := [word for word in words if word not in there]:
            what = {"card": "data set"}.get(field, field)
            line = f"no published numbers of {what} {strange[0]!r}; {instead(strange[0], there)}"
            raise InputError("unknown-metric" if field == "metric" else "no-runs", line)
        kept = [number for number in kept if not words or getattr(rows[number], field) in words]
    head = ["paper", "method", "metric", "percent", "what does not add up", "task", "data set", "split"]
    cells, records = [], []
    for number in kept:
        row = rows[number]
        text = f"{row.value:.2f}" + (f" ± {row.sd:.2f}" if row.sd is not None else "")
        told = "; ".join(wrong.get(number, ()))
        cells.append([row.paper, row.method, row.metric, text, told, row.task, row.dataset, row.split])
        records.append({**vars(row), "faults": wrong.get(number, [])})
    notes = ["as printed: read data set, task and split before comparing; results/papers/README.md names the sources"]
    if any("impossible" in cell for _, _, _, _, cell, *_ in cells):
        notes.append("impossible: macro-F1 is at most the mean of precision and recall, the number told")
    title = f"published numbers{f' on {card}' if card else ''}"
    return Table(title, head, cells, notes, records, below=("data set", "task", "split"))


def _card(dataset: str) -> str:
    """The card under which a data set's numbers stand: of flow records that of the captures."""
    card = find_card(dataset)
    return card.like or card.name
