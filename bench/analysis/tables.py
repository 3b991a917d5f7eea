"""Tables of runs and comparisons of two: pure functions of records.

A row holds the runs that differ in nothing but seed and fold.  Of several runs it tells mean ± standard deviation
(of the sample, n - 1), of a single one the value and its 95 % interval.
"""

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Final

from bench.errors import InputError
from bench.render.table import Sheet
from bench.runs.execute import LATER
from bench.runs.run_labels import marked, marks, meanings, method_words, split_words, with_interval
from bench.runs.tracking import Record
from bench.scores.metrics import MACRO

COLUMNS: Final = (*MACRO, "seconds")
PLACE: Final = ("dataset", "task", "split")  # in the caption where all rows agree, else columns
COUNTS: Final = ("abstentions", "training_samples", "model_parameters")  # whole numbers


@dataclass(frozen=True)
class Row:
    """Runs of one specification but for seed and fold."""

    done: list[Record]
    other: list[Record]  # failed, skipped, killed, running
    apart: str = ""  # what tells it from a row that would look the same

    @property
    def head(self) -> Record:
        """Any of them, for what they share."""
        return (self.done or self.other)[0]

    @property
    def split(self) -> str:
        """The scheme, with the number of folds, and how sessions become samples where they are not whole."""
        return split_words(self.head.spec)

    @property
    def method(self) -> str:
        """The method with the preset and the parameters that tell it from its defaults."""
        return method_words(self.head.spec, *([self.apart] if self.apart else []))

    @property
    def marks(self) -> list[str]:
        """Keys of `bench.runs.run_labels.MARKS` that hold."""
        return marks(self.head)

    @property
    def runs(self) -> str:
        """How many are done; of how many, where folds are missing."""
        expected = len({record.spec["seed"] for record in self.done}) * (self.head.spec["folds"] or 1)
        return f"{len(self.done)}" + (f" of {expected}" if len(self.done) != expected else "")

    @property
    def command(self) -> str:
        """The command line that computes its runs, those that are not done too."""
        return command_of(self.head.spec, [record.spec["seed"] for record in (*self.done, *self.other)])

    def value(self, metric: str) -> dict[str, float]:
        """`metric`, with ``_sd`` of several runs or ``_low`` and ``_high`` of one; empty where no run has it."""
        found = [record.metrics[metric] for record in self.done if metric in record.metrics]
        if not found:
            return {}
        if len(found) > 1:
            return {metric: fmean(found), f"{metric}_sd": stdev(found)}
        ends = {
            key: self.done[0].metrics[key] for key in (f"{metric}_low", f"{metric}_high") if key in self.done[0].metrics
        }
        return {metric: found[0], **ends}

    def cell(self, metric: str) -> str:
        """`value` for people."""
        value = self.value(metric)
        if not value:
            return "–"
        digits = 1 if metric.startswith("seconds") else 0 if metric in COUNTS else 3
        text = f"{value[metric]:.{digits}f}"
        if f"{metric}_sd" in value:
            return text + f" ± {value[f'{metric}_sd']:.{digits}f}"
        if f"{metric}_low" in value:
            return with_interval(value[metric], value[f"{metric}_low"], value[f"{metric}_high"], f".{digits}f")
        return text

    def to_dict(self, metrics: Sequence[str]) -> dict[str, Any]:
        """Ready for JSON."""
        spec = self.head.spec
        plain = ("dataset", "task", "split", "folds", "method", "parameters", "max_per_class")
        found = {key: value for metric in metrics for key, value in self.value(metric).items()}
        return {
            **{name: spec[name] for name in plain},
            **{name: spec.get(name, usual) for name, usual in LATER.items()},
            "runs": len(self.done),
            "seeds": sorted({record.spec["seed"] for record in self.done}),
            **found,
            "leaky": self.head.leaky,
            "scale": self.head.scale,
            "deviations": list(self.head.deviations),
            "run_ids": [record.run_id for record in self.done],
            "not_done": [{"run_id": r.run_id, "status": r.status, "reason": r.reason} for r in self.other],
        }


def command_of(spec: Mapping[str, Any], seeds: Sequence[int] | None = None) -> str:
    """The `bench run` line of a specification (fields of a RunSpec), over all its folds, for a shell.

    ``seeds`` are the specification's own where not given; others than 0 to N-1 take a line each.  What a line cannot
    name is the store: it means the data set as it is prepared.
    """
    numbers = sorted({spec["seed"]} if seeds is None else set(seeds))
    if len(numbers) > 1 and numbers != list(range(len(numbers))):
        return "\n".join(command_of(spec, [seed]) for seed in numbers)
    file = spec["split_file"]
    options = {name: spec[name] for name in ("method", "dataset", "task")}
    options |= {"split": f"file:{file}" if file else spec["split"], "folds": spec["folds"]}
    options |= {"seeds": len(numbers)} if len(numbers) > 1 else {"seed": numbers[0]}
    options |= {name: spec.get(name) for name in ("max_per_class", *LATER) if spec.get(name) != LATER.get(name)}
    words = [w for name, v in options.items() if v is not None for w in (f"--{name.replace('_', '-')}", str(v))]
    words += [w for name, value in spec["parameters"].items() for w in ("--set", f"{name}={value}")]
    return shlex.join(["bench", "run", *words])


def group(records: Sequence[Record]) -> list[Row]:
    """Records as rows, sorted by data set, task and split, then by macro-F1, best first."""
    rows: dict[str, list[Record]] = {}
    for record in records:
        rows.setdefault(_but_seed_and_fold(record), []).append(record)
    made = [
        Row([r for r in found if r.status == "done"], [r for r in found if r.status != "done"])
        for found in rows.values()
    ]
    made = _told_apart(made)
    return sorted(
        made, key=lambda r: (*(_place(r, p) for p in PLACE), -r.value("macro_f1").get("macro_f1", -1), r.method)
    )


def _told_apart(rows: Sequence[Row]) -> list[Row]:
    """Rows of one place and one label differ in store, split file or source: say in which, by its digest."""
    alike: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        alike.setdefault((*(_place(row, name) for name in PLACE), row.method), []).append(row)
    made = []
    for twins in alike.values():
        names = [
            name for name in ("store", "split_digest", "source") if len({r.head.spec.get(name) for r in twins}) > 1
        ]
        for row in twins:
            apart = ", ".join(f"{name}={str(row.head.spec.get(name))[:8]}" for name in names)
            made.append(dataclasses.replace(row, apart=apart))
    return made


def siblings(record: Record, records: Sequence[Record]) -> list[Record]:
    """Those of ``records`` that are done and differ from ``record`` in nothing but seed and fold."""
    wanted = _but_seed_and_fold(record)
    return [r for r in records if r.status == "done" and _but_seed_and_fold(r) == wanted]


def table(
    records: Sequence[Record],
    *,
    metrics: Sequence[str] = COLUMNS,
    columns: str | None = None,
    footnotes: bool = False,
) -> Sheet:
    """Records as a table.

    ``columns`` names a field of the specification ("dataset", "task" or "split") to spread over columns, which
    then hold the first metric (for people only: CSV and JSON stay tidy).  ``footnotes`` adds every
    method's deviations from its paper.
    """
    if columns is not None and columns not in PLACE:
        raise InputError(f"cannot spread a table over {columns!r}; choose one of {', '.join(PLACE)}")
    rows = group(records)
    if any(row.value("abstentions").get("abstentions") for row in rows):
        metrics = [*metrics, "abstentions"]
    numbers, empty = [row.to_dict(metrics) for row in rows], "no runs; `bench run` makes some"
    if not rows:
        return Sheet("", [], [], empty=empty)
    title, cells = _cells(rows, metrics) if columns is None else _spread(rows, metrics[0], columns)
    return Sheet(title, cells[0], cells[1:], notes_of(rows, footnotes), numbers, empty)


def _but_seed_and_fold(record: Record) -> str:
    """What the runs of one row share."""
    apart = ("seed", "fold", "digest", "split_file")
    return json.dumps({name: value for name, value in record.spec.items() if name not in apart}, sort_keys=True)


def _place(row: Row, name: str) -> str:
    return row.split if name == "split" else str(row.head.spec[name])


def _cells(rows: Sequence[Row], metrics: Sequence[str]) -> tuple[str, list[list[str]]]:
    """Caption and cells, the first row the head."""
    varying = [name for name in PLACE if len({_place(row, name) for row in rows}) > 1]
    caption = " · ".join(_place(rows[0], name) for name in PLACE if name not in varying)
    head = [*varying, "method", "runs", *metrics]
    lines = [
        [*(_place(r, p) for p in varying), marked(r.method, r.marks), r.runs, *(r.cell(m) for m in metrics)]
        for r in rows
    ]
    return caption, [head, *lines]


def _spread(rows: Sequence[Row], metric: str, columns: str) -> tuple[str, list[list[str]]]:
    """Caption and cells of one metric: a line a method (and place), a column for each value of ``columns``."""
    rest = [name for name in PLACE if name != columns]
    varying = [name for name in rest if len({_place(row, name) for row in rows}) > 1]
    across = list(dict.fromkeys(_place(row, columns) for row in rows))
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        line = lines.setdefault((*(_place(row, p) for p in varying), row.method), {})
        # one line for a method, whatever a split is worth
        line[_place(row, columns)] = marked(row.cell(metric), row.marks)
    caption = " · ".join([metric, *(_place(rows[0], name) for name in rest if name not in varying)])
    cells = [[*key, *(line.get(value, "–") for value in across)] for key, line in lines.items()]
    return caption, [[*varying, "method", *across], *cells]


def notes_of(rows: Sequence[Row], footnotes: bool) -> list[str]:
    """Marks that occur, runs that are not done, and on request the deviations; each line once."""
    notes = meanings(mark for row in rows for mark in row.marks)
    for row in rows:
        missing = [r for r in row.other if (r.spec["seed"], r.spec["fold"]) not in numbered(row.done)]
        notes += [
            f"{row.method}: {record.status}" + (f", {record.reason}" if record.reason else "") for record in missing
        ]
        if footnotes:
            notes += [f"{row.head.spec['method']}: {text}" for text in row.head.deviations]
    return list(dict.fromkeys(notes))


def numbered(records: Sequence[Record]) -> dict[tuple[int, int | None], Record]:
    """Records by seed and fold."""
    return {(record.spec["seed"], record.spec["fold"]): record for record in records}
