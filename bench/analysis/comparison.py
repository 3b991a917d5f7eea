"""Two runs, or two sets of runs, on the same test samples; many methods are ranked by `bench.analysis.ranking`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from bench.analysis.paired import (
    count_tested,
    group_label_of,
    interval_note,
    paired_runs,
    pooled_parts,
    same_tests,
)
from bench.analysis.tables import Row, notes_of
from bench.render.table import Table
from bench.runs.run_labels import interval_meanings, interval_sign, marked, with_interval
from bench.scores.jackknife import FEWEST_GROUPS, count_groups, difference
from bench.scores.metrics import decide, macro_f1
from bench.scores.significance import FEWEST_SIGNS, permute_groups
from bench.tracking.record import Record
from bench.tracking.results import Predictions

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
    """A metric of both sides, and a - b with its paired 95 % interval."""

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
    interval_groups: int  # of the tested class that has the fewest
    resampled: str  # what a group is
    differences: dict[str, Difference]  # by `METRICS`
    permutation: dict[str, float | None]  # of accuracy, as `permute_groups` gives it
    notes: list[str]

    @property
    def few(self) -> bool:
        """Whether there are too few groups for the intervals to be trusted."""
        return self.interval_groups < FEWEST_GROUPS

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        content = asdict(self)
        return {**{k: v for k, v in content.items() if k != "differences"}, **content["differences"]}


def compare(a: Sequence[Record], b: Sequence[Record]) -> Comparison:
    """Two runs, or two sets of runs over the same seeds and folds, on the same test samples.

    Differences are a - b, on the pooled answers, with paired intervals over the split's groups.  Records come
    from ``Tracker.load``.  Raises :class:`InputError` where the test samples differ.
    """
    first, second = (pooled_parts(parts) for parts in zip(*_predictions(a, b), strict=True))
    truth, classes = first.truth, len(first.classes)
    answers = decide(first.probabilities), decide(second.probabilities)
    tested, times = count_tested(first)
    counts = count_groups(truth, first.groups, classes)
    differences = {}
    for metric in METRICS:
        one, other = (_score(metric, truth, answer, classes) for answer in answers)
        observed, low, high = difference(truth, answers, first.groups, classes=classes, metric=metric)
        differences[metric] = Difference(one, other, observed, low, high)
    return Comparison(
        a=_side(a),
        b=_side(b),
        samples=int(tested.sum()),
        times=times,
        groups=counts.total,
        interval_groups=counts.smallest,
        resampled=group_label_of(a[0]),
        differences=differences,
        permutation=permute_groups(answers[0] == truth, answers[1] == truth, first.groups),
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
    rows, records, sign = [], [], interval_sign(comparison.interval_groups)
    groups = {name: getattr(comparison, name) for name in ("resampled", "interval_groups")}
    for metric, value in comparison.differences.items():
        cell = with_interval(value.difference, value.low, value.high, "+.3f", sign)
        rows.append([metric, f"{value.a:.3f}", f"{value.b:.3f}", cell])
        records.append({"metric": metric, **asdict(value), **place, **of_side, **groups})
    often = f", each tested up to {comparison.times} times" if comparison.times > 1 else ""
    counts = f"{comparison.samples} test samples{often}, in {comparison.groups} {comparison.resampled}"
    notes = [
        f"a: {comparison.a.label}",
        f"b: {comparison.b.label}",
        counts,
        f"[ ] 95 %: {interval_note(comparison.resampled, comparison.interval_groups)}",
    ]
    title = " · ".join(str(place[name]) for name in ("dataset", "task", "split"))
    more = {name: value for name, value in comparison.to_dict().items() if name != "notes"}
    notes += [*interval_meanings(sign), _permutation_note(comparison.permutation), *comparison.notes]
    return Table(title, ["metric", "a", "b", "a - b [95 %]"], rows, notes, records, more=more)


def _permutation_note(test: Mapping[str, float | None]) -> str:
    """What the permutation by group found, or why it could find nothing."""
    counts = f"only a right {test['only_a']:.0f}, only b right {test['only_b']:.0f}, {test['groups']:.0f} groups differ"
    p = f"not testable with fewer than {FEWEST_SIGNS}" if test["p"] is None else f"p = {test['p']:.3g}"
    return f"permutation by group, accuracy: {counts}: {p}"


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
