"""Two runs, or two sets of runs, on the same test samples; many methods are ranked by `bench.analysis.ranking`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from bench.analysis.paired import (
    bootstrap_note,
    count_tested,
    group_label_of,
    paired_runs,
    pooled_parts,
    same_tests,
)
from bench.analysis.tables import Row, notes_of
from bench.render.table import Table
from bench.runs.results import Predictions
from bench.runs.run_labels import marked, with_interval
from bench.runs.tracking import Record
from bench.scores.metrics import decide, difference, macro_f1
from bench.scores.significance import mcnemar

METRICS: Final = ("accuracy", "macro_f1")


@dataclass(frozen=True)
class Side:
    """One of two methods that are compared."""

    method: str  # with its settings
    marks: list[str]
    dataset: str
    task: str
    split: str
    folds: int | None
    parameters: dict[str, Any]
    runs: list[str]  # their ids

    @property
    def label(self) -> str:
        """The method with its marks and the runs' short ids."""
        return f"{marked(self.method, self.marks)}  ({', '.join(run[:8] for run in self.runs)})"


@dataclass(frozen=True)
class Difference:
    """A metric of both sides, and a - b with its paired 95 % bootstrap interval."""

    a: float
    b: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """What sets two methods apart on the same test samples."""

    a: Side
    b: Side
    samples: int  # distinct ones
    times: int  # that the most frequent one was tested
    groups: int
    resampled: str  # what a group is
    differences: dict[str, Difference]  # by `METRICS`
    mcnemar: dict[str, float] | None  # None where a sample was tested more than once: answers would not be independent
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        content = asdict(self)
        return {**{k: v for k, v in content.items() if k != "differences"}, **content["differences"]}


def compare(a: Sequence[Record], b: Sequence[Record], *, draws: int = 1000, seed: int = 0) -> Comparison:
    """Two runs, or two sets of runs over the same seeds and folds, on the same test samples.

    Differences are a - b, on the pooled answers, with paired bootstrap intervals over the split's groups.  Records come
    from ``Tracker.load``.  Raises :class:`InputError` where the test samples differ.
    """
    first, second = (pooled_parts(parts) for parts in zip(*_predictions(a, b), strict=True))
    truth, classes = first.truth, len(first.classes)
    answers = decide(first.probabilities), decide(second.probabilities)
    samples, times = count_tested(first)
    differences = {}
    for metric in METRICS:
        one, other = (_score(metric, truth, answer, classes) for answer in answers)
        observed, low, high = difference(
            truth, answers, first.groups, classes=classes, metric=metric, draws=draws, seed=seed
        )
        differences[metric] = Difference(one, other, observed, low, high)
    return Comparison(
        a=_side(a),
        b=_side(b),
        samples=samples,
        times=times,
        groups=len(np.unique(first.groups)),
        resampled=group_label_of(a[0]),
        differences=differences,
        mcnemar=mcnemar(answers[0] == truth, answers[1] == truth) if times == 1 else None,
        notes=notes_of([Row(list(records), []) for records in (a, b)], False),
    )


def comparison_table(comparison: Comparison) -> Table:
    """The comparison as a table; its JSON has all that was found, too."""
    place = {name: getattr(comparison.a, name) for name in ("dataset", "task", "split", "folds")}
    of_side = {
        f"{side}_{name}": getattr(who, name)
        for side, who in (("a", comparison.a), ("b", comparison.b))
        for name in ("method", "parameters", "runs")
    }
    rows, records = [], []
    for metric, value in comparison.differences.items():
        cell = with_interval(value.difference, value.low, value.high, "+.3f")
        rows.append([metric, f"{value.a:.3f}", f"{value.b:.3f}", cell])
        records.append({"metric": metric, **asdict(value), **place, **of_side, "resampled": comparison.resampled})
    often = f", each tested up to {comparison.times} times" if comparison.times > 1 else ""
    counts = f"{comparison.samples} test samples{often}, in {comparison.groups} {comparison.resampled}"
    notes = [
        f"a: {comparison.a.label}",
        f"b: {comparison.b.label}",
        counts,
        f"[ ] 95 %: {bootstrap_note(comparison.resampled)}",
    ]
    title = " · ".join(str(place[name]) for name in ("dataset", "task", "split"))
    more = {name: value for name, value in comparison.to_dict().items() if name != "notes"}
    notes += [_mcnemar_note(comparison.mcnemar), *comparison.notes]
    return Table(title, ["metric", "a", "b", "a - b [95 %]"], rows, notes, records, more=more)


def _mcnemar_note(test: dict[str, float] | None) -> str:
    if test is None:
        return "McNemar: not for samples that were tested more than once"
    counts = f"only a right {test['only_a']}, only b right {test['only_b']}"
    return f"McNemar: {counts}, p = {test['p']:.3g}  (takes samples as independent)"


def _side(records: Sequence[Record]) -> Side:
    row = Row(list(records), [])
    spec = row.head.spec
    return Side(
        method=row.method,
        marks=row.marks,
        dataset=spec.dataset,
        task=spec.task,
        split=spec.split.scheme,
        folds=spec.split.folds,
        parameters=dict(spec.parameters),
        runs=[record.run_id for record in records],
    )


def _predictions(a: Sequence[Record], b: Sequence[Record]) -> list[tuple[Predictions, Predictions]]:
    """Predictions of both for each seed and fold, proved to be of the same test samples."""
    loaded = []
    for one, other in paired_runs(a, b):
        first, second = one.predictions(), other.predictions()
        same_tests((one, first), (other, second))
        loaded.append((first, second))
    return loaded


def _score(metric: str, truth: Any, answers: Any, classes: int) -> float:
    """Accuracy or macro-F1 of decided answers."""
    return float((truth == answers).mean()) if metric == "accuracy" else macro_f1(truth, answers, classes)
