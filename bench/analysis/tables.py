"""Tables of runs and comparisons of two: pure functions of records.

A row holds the runs that differ in nothing but seed and fold.  Of several runs it tells mean ± standard deviation
(of the sample, n - 1), of a single one the value and its 95 % interval, with a sign where that is not to be trusted.
"""

import dataclasses
import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Final

from bench.errors import InputError, instead, some
from bench.render.table import Table
from bench.runs.run_labels import (
    MARKS,
    interval_meanings,
    interval_sign,
    left_out,
    marked,
    marks,
    meanings,
    method_label,
    of_records,
    origin_of,
    provenance,
    seen_in_training,
    with_interval,
)
from bench.scores.metrics import MACRO
from bench.spec import NEW_FIELDS, RunSpec, command_lines
from bench.tracking.record import ELSEWHERE, Record
from bench.tracking.selection import NO_RUNS

COLUMNS: Final = (*MACRO, "training_accuracy", "chosen_step", "seconds")
SEARCH_COSTS: Final = ("search_trials", "seconds_search")  # beside a row whose parameters were searched
PLACE: Final = ("dataset", "task", "split")  # in the caption where all rows agree, else columns
#: whole numbers
COUNTS: Final = (
    "abstentions",
    "training_samples",
    "model_parameters",
    "optimiser_steps",
    "pretraining_optimiser_steps",
    "pretraining_samples_seen",
    "chosen_step",
    "search_trials",
    "samples_seen",
    "packets_read",
    "samples_kept",
)
GROUPS: Final = ("interval_groups", "interval_groups_total")  # behind intervals: of the smallest class, and all


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
        return self.head.spec.split.label

    @property
    def method(self) -> str:
        """The method with what tells it from its defaults and, of one that is not shipped, where it is from."""
        return method_label(self.head.spec, origin_of(self.head), self.apart)

    @property
    def contender(self) -> str:
        """The same without the most samples a class, which in a suite are the task's."""
        spec = self.head.spec
        bare = dataclasses.replace(spec, split=dataclasses.replace(spec.split, max_per_class=None))
        return method_label(bare, origin_of(self.head), self.apart)

    @property
    def marks(self) -> list[str]:
        """Keys of `bench.runs.run_labels.MARKS` that hold for any of its runs, in their order."""
        holding = {mark for record in self.done or self.other for mark in marks(record)}
        return [mark for mark in MARKS if mark in holding]

    @property
    def runs(self) -> str:
        """How many are done; of how many, where folds are missing."""
        expected = len({record.spec.split.seed for record in self.done}) * (self.head.spec.split.folds or 1)
        return f"{len(self.done)}" + (f" of {expected}" if len(self.done) != expected else "")

    def command(self, more: Sequence[str] = ()) -> str:
        """The command line that computes its runs, those that are not done too; ``more`` are words behind it."""
        if self.head.origin == ELSEWHERE:
            words = ["PREDICTIONS.csv", "--split", "SPLIT.json", "--name", self.head.spec.method, *more]
            return shlex.join(["bench", "score", *words])
        if self.head.spec.tuned:  # each fold has parameters of its own
            runs = sorted((*self.done, *self.other), key=lambda one: (one.spec.split.seed, one.spec.split.fold or 0))
            return "\n".join(line for one in runs for line in command_lines(one.spec, [], [*_fold(one.spec), *more]))
        seeds = [record.spec.split.seed for record in (*self.done, *self.other)]
        return "\n".join(command_lines(self.head.spec, seeds, more))

    def value(self, metric: str) -> dict[str, float]:
        """`metric`, with ``_sd`` of several runs or ``_low``, ``_high`` and `GROUPS` of one; empty where no run has it.

        Runs of earlier versions have no `GROUPS`.
        """
        values = [record.metrics[metric] for record in self.done if metric in record.metrics]
        if not values:
            return {}
        if not all(map(math.isfinite, values)):  # a diverged loss: nothing to be averaged
            return {metric: math.nan}
        if len(values) > 1:
            return {metric: fmean(values), f"{metric}_sd": stdev(values)}
        known, low = self.done[0].metrics, f"{metric}_low"
        names = (low, f"{metric}_high", *GROUPS) if low in known else ()
        return {metric: values[0], **{name: known[name] for name in names if name in known}}

    def cell(self, metric: str) -> str:
        """`value` for people."""
        value = self.value(metric)
        if not value:
            return "–"
        if metric == "classes_tested":
            return self._classes_tested()
        digits = 1 if metric.startswith("seconds") else 0 if metric in COUNTS else 3
        text = f"{value[metric]:.{digits}f}"
        if f"{metric}_sd" in value:
            return text + f" ± {value[f'{metric}_sd']:.{digits}f}"
        if f"{metric}_low" in value:
            sign = interval_sign(value.get(GROUPS[0]))
            return with_interval(value[metric], value[f"{metric}_low"], value[f"{metric}_high"], f".{digits}f", sign)
        return text

    def _classes_tested(self) -> str:
        """The least of its runs, of how many: ``9 of 12``."""
        known = [record.metrics for record in self.done if "classes_tested" in record.metrics]
        counts = [(int(metrics["classes_tested"]), int(metrics["classes"])) for metrics in known]
        return "{} of {}".format(*min(counts)) if counts else "–"

    def to_dict(self, metrics: Sequence[str]) -> dict[str, Any]:
        """Ready for JSON."""
        values = {key: value for metric in metrics for key, value in self.value(metric).items()}
        return {
            **described(self.head.spec),
            "origin": origin_of(self.head),
            "store": self.head.spec.store,
            "runs": len(self.done),
            "seeds": sorted({record.spec.split.seed for record in self.done}),
            **values,
            "leaky": self.head.leaky,
            "scale": self.head.scale,
            "deviations": list(self.head.deviations),
            "run_ids": [record.run_id for record in self.done],
            "not_done": [{"run_id": r.run_id, "status": r.status, "reason": r.reason} for r in self.other],
        }


def described(spec: RunSpec) -> dict[str, Any]:
    """What a row's runs share, for programs: all options, also those that are as usual."""
    split = spec.split
    return {
        "dataset": spec.dataset,
        "task": spec.task,
        "split": split.scheme,
        "folds": split.folds,
        "method": spec.method,
        "parameters": dict(spec.but_place.parameters),  # of a tuned row none: each fold has its own
        **({"tuned": spec.tuned} if spec.tuned else {}),
        "max_per_class": split.max_per_class,
        **{name: getattr(split, name) for name in NEW_FIELDS},
    }


def _fold(spec: RunSpec) -> list[str]:
    return [] if spec.split.fold is None else ["--fold", str(spec.split.fold)]


def group(records: Sequence[Record], kept_apart: Callable[[Record], str] = lambda record: "") -> list[Row]:
    """Records as rows, sorted by data set, task and split, then by macro-F1, best first.

    No row has records of which ``kept_apart`` says different words.
    """
    alike: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        alike.setdefault((kept_apart(record), record.spec.but_place.digest), []).append(record)
    rows = _told_apart(
        [
            Row([r for r in group if r.status == "done"], [r for r in group if r.status != "done"])
            for group in alike.values()
        ]
    )
    return sorted(
        rows, key=lambda r: (*(field_of(r, p) for p in PLACE), -r.value("macro_f1").get("macro_f1", -1), r.method)
    )


def _told_apart(rows: Sequence[Row]) -> list[Row]:
    """Rows of one place and one label differ in store, split file or source: say in which, by its digest.

    Two stores of one data set's name are told apart wherever both are in the table.
    """
    stores: dict[str, set[str]] = {}
    alike: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        stores.setdefault(row.head.spec.dataset, set()).add(row.head.spec.store)
        alike.setdefault((*(field_of(row, name) for name in PLACE), row.method), []).append(row)
    labelled = []
    for twins in alike.values():
        digests = [_digests(row.head.spec) for row in twins]
        several = {"store"} if len(stores[twins[0].head.spec.dataset]) > 1 else set()
        names = [name for name in digests[0] if name in several or len({one[name] for one in digests}) > 1]
        for row, own in zip(twins, digests, strict=True):
            label = ", ".join(f"{name}={str(own[name])[:8]}" for name in names)
            labelled.append(dataclasses.replace(row, apart=label))
    return labelled


def _digests(spec: RunSpec) -> dict[str, str | None]:
    return {"store": spec.store, "split_digest": spec.split.file_digest, "source": spec.source}


def siblings(record: Record, records: Sequence[Record]) -> list[Record]:
    """Those of ``records`` that are done and differ from ``record`` in nothing but seed and fold."""
    wanted = record.spec.but_place
    return [r for r in records if r.status == "done" and r.spec.but_place == wanted]


def results_table(
    records: Sequence[Record],
    *,
    metrics: Sequence[str] = COLUMNS,
    columns: str | None = None,
    footnotes: bool = False,
) -> Table:
    """Records as a table.

    ``columns`` names a field of the specification ("dataset", "task" or "split") to spread over columns, which
    then hold the first metric (for people only: CSV and JSON stay tidy).  ``footnotes`` adds every
    method's deviations from its paper.  Raises :class:`InputError` for another field.
    """
    if columns is not None and columns not in PLACE:
        raise InputError("unknown-column", f"cannot spread a table over {columns!r}; {instead(columns, PLACE)}")
    rows = group(records)
    if any(row.value("abstentions").get("abstentions") for row in rows):
        metrics = [*metrics, "abstentions"]
    if any("class-missing" in row.marks for row in rows):
        metrics = [*metrics, "macro_f1_tested", "classes_tested"]
    if any(row.value(SEARCH_COSTS[0]) for row in rows):
        metrics = [*metrics, *SEARCH_COSTS]
    metrics = list(dict.fromkeys(metrics))  # some were asked for
    numbers = [row.to_dict(metrics) for row in rows]
    if not rows:
        return Table("", [], [], empty=NO_RUNS)
    title, cells = _cells(rows, metrics) if columns is None else _spread(rows, metrics[0], columns)
    shown = metrics if columns is None else metrics[:1]
    notes = [*notes_of(rows, footnotes), *interval_notes(rows), *kept_notes(rows, shown)]
    return Table(title, cells[0], cells[1:], notes, numbers)


def field_of(row: Row, name: str) -> str:
    """A row's data set, task or split."""
    return row.split if name == "split" else str(getattr(row.head.spec, name))


def _cells(rows: Sequence[Row], metrics: Sequence[str]) -> tuple[str, list[list[str]]]:
    """Caption and cells, the first row the head."""
    varying = [name for name in PLACE if len({field_of(row, name) for row in rows}) > 1]
    caption = " · ".join(field_of(rows[0], name) for name in PLACE if name not in varying)
    head = [*varying, "method", "runs", *metrics]
    lines = [
        [*(field_of(r, p) for p in varying), marked(r.method, r.marks), r.runs, *(r.cell(m) for m in metrics)]
        for r in rows
    ]
    return caption, [head, *lines]


def _spread(rows: Sequence[Row], metric: str, columns: str) -> tuple[str, list[list[str]]]:
    """Caption and cells of one metric: a line a method (and place), a column for each value of ``columns``."""
    rest = [name for name in PLACE if name != columns]
    varying = [name for name in rest if len({field_of(row, name) for row in rows}) > 1]
    across = list(dict.fromkeys(field_of(row, columns) for row in rows))
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        line = lines.setdefault((*(field_of(row, p) for p in varying), row.method), {})
        # one line for a method, whatever a split is worth
        line[field_of(row, columns)] = marked(row.cell(metric), row.marks)
    caption = " · ".join([metric, *(field_of(rows[0], name) for name in rest if name not in varying)])
    cells = [[*key, *(line.get(value, "–") for value in across)] for key, line in lines.items()]
    return caption, [[*varying, "method", *across], *cells]


def notes_of(rows: Sequence[Row], footnotes: bool) -> list[str]:
    """Marks that occur, runs that are not done, and on request the deviations; each line once."""
    notes = [*meanings(mark for row in rows for mark in row.marks), *seen_notes(rows), *seed_notes(rows)]
    notes += provenance(record for row in rows for record in row.done)
    if older := [record.run_id[:8] for row in rows for record in row.done if record.deleted]:
        what = "shown since newer runs of the same were deleted on MLflow's page; `bench results rm --run ID` removes"
        notes.append(f"older runs, {what} them too: {some(older, 5)}")
    for row in rows:
        missing = [r for r in row.other if r.spec.place not in numbered(row.done)]
        notes += [
            f"{row.method}: {record.status}" + (f", {record.reason}" if record.reason else "") for record in missing
        ]
        if footnotes:
            notes += [f"{row.head.spec.method}: {text}" for text in row.head.deviations]
    return list(dict.fromkeys(notes))


def seed_notes(rows: Sequence[Row]) -> list[str]:
    """Of which seeds rows are, where that is not all from 0 on; a seed that was looked for looks like any other."""
    notes = []
    for row in rows:
        seeds = sorted({record.spec.split.seed for record in row.done})
        if seeds != list(range(len(seeds))):
            notes.append(f"{row.method}: seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}")
    return notes


def seen_notes(rows: Sequence[Row]) -> list[str]:
    """For each split, the share of test samples that training has seen, and how many classes have no sample."""
    runs: dict[str, list[Mapping[str, float]]] = {}
    for row in rows:
        runs.setdefault(row.split, []).extend(record.metrics for record in row.done)
    told = {split: (seen_in_training(known), *left_out(known), *of_records(known)) for split, known in runs.items()}
    return [f"{split}: {line}" for split, lines in told.items() for line in lines if line]


def interval_notes(rows: Sequence[Row]) -> list[str]:
    """How many groups stand behind the intervals of single runs, and what their signs mean."""
    values = [value for row in rows for value in [row.value("macro_f1")] if "macro_f1_low" in value]
    known = [(value[GROUPS[0]], value[GROUPS[1]]) for value in values if GROUPS[0] in value]
    return group_notes(known) + interval_meanings(interval_sign(value.get(GROUPS[0])) for value in values)


def kept_notes(rows: Sequence[Row], metrics: Sequence[str]) -> list[str]:
    """How many runs found kept arrays, where seconds are shown that would be others without."""
    done = [record for row in rows for record in row.done]
    found = sum(record.metrics.get("samples_kept", 0) > 0 for record in done)
    if not found or not {"seconds", "seconds_represent"} & set(metrics):
        return []
    what = "arrays that an earlier run had kept; their seconds_represent, a part of seconds, is mostly reading them"
    return [f"{found} of {len(done)} runs found {what} (samples_kept)"]


def group_notes(counts: Iterable[tuple[float, float]]) -> list[str]:
    """How many groups stand behind intervals: of the tested class with the fewest, and in all."""
    shown = ", ".join(f"{smallest:.0f} ({total:.0f} in all)" for smallest, total in sorted(set(counts)))
    return [f"[ ] 95 %: jackknife over groups; of the tested class with the fewest: {shown}"] if shown else []


def numbered(records: Sequence[Record]) -> dict[tuple[int, int | None], Record]:
    """Records by seed and fold."""
    return {record.spec.place: record for record in records}
