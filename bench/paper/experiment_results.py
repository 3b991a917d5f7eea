"""What runs found for an experiment, arm by arm and mode by mode, and the numbers that every table and figure tells.

Percent, as the paper prints.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from bench.analysis.comparison import Comparison, compare
from bench.analysis.paired import is_separable, mean_ratio, paired_p
from bench.analysis.tables import GROUPS, Row, interval_notes
from bench.data.store import Store
from bench.paper.declaration import Arm, Experiment, Paper
from bench.paper.published import published_table
from bench.render.table import Table
from bench.runs.attempt import TRAINING_ASKED
from bench.runs.run_labels import interval_sign, marked, meanings, origin_of, provenance, with_interval
from bench.scores.significance import FEWEST, holm, welch
from bench.tracking.record import Record
from bench.tracking.tracker import Tracker

COMPARED: Final = ("macro_f1", "accuracy")  # metrics whose differences are shown
TRAINING: Final = (
    f"training: percent of {TRAINING_ASKED} training samples, drawn, that are right at the end, means over runs; of "
    "networks after how many optimiser steps the kept weights stood, of how many that were made"
)
NAMES: Final = {"macro_precision": "precision", "macro_recall": "recall", "macro_f1": "f1", "accuracy": "accuracy"}


@dataclass(frozen=True)
class ArmResult:
    """The finished runs of an arm under one mode."""

    arm: Arm
    mode: str
    records: tuple[Record, ...]  # as `Tracker.load` gives them
    problems: tuple[str, ...] = ()  # what became of the others

    @property
    def row(self) -> Row:
        """The runs as tables know them."""
        return Row(list(self.records), [])

    @property
    def on_training(self) -> str:
        """Means over the runs that know it: percent of the training samples that are right, at which step, of how many.

        Empty where none does.
        """
        names = ("training_accuracy", "chosen_step", "optimiser_steps")
        accuracy, chosen, steps = (self.row.value(name).get(name) if self.records else None for name in names)
        at = "" if chosen is None or steps is None else f" at {chosen:.0f} of {steps:.0f}"
        return "" if accuracy is None else f"{100 * accuracy:.2f}{at}"

    @property
    def places(self) -> set[tuple[int, int | None]]:
        """Seeds and folds that are done."""
        return {record.spec.place for record in self.records}

    @property
    def marks(self) -> str:
        """Signs of the marks that hold, with a space before; empty without runs."""
        return marked("", self.row.marks) if self.records else ""


@dataclass(frozen=True)
class ExperimentResults:
    """An experiment with what its runs found."""

    paper: Paper
    experiment: Experiment
    arm_results: Sequence[ArmResult]
    modes: Sequence[str]  # of `bench.paper.plan.MODES`, those that are shown
    tracker: Tracker
    store: Store | None = None  # None: nothing was run
    original: bool = True  # the data are the paper's, so that differences to it mean something
    title: str = ""
    printed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # published rows by key

    @property
    def drawn(self) -> str:
        """The strictest mode that has finished runs; empty where none has."""
        return next(
            (mode for mode in reversed(self.ours) if any(f.records for f in self.arm_results if f.mode == mode)), ""
        )

    def headed(self, mode: str) -> str:
        """The mode with the marks that hold for any of its runs."""
        marks = {mark for f in self.arm_results if f.mode == mode and f.records for mark in f.row.marks}
        return marked(mode, marks)

    def of(self, arm: Arm, mode: str) -> ArmResult:
        """What was found for an arm under a mode."""
        return next((f for f in self.arm_results if f.arm == arm and f.mode == mode), ArmResult(arm, mode, ()))

    @property
    def arms(self) -> list[Arm]:
        """Arms in the paper's order; without runs all of the experiment."""
        return list(dict.fromkeys(f.arm for f in self.arm_results)) or list(self.experiment.arms)

    @property
    def against(self) -> bool:
        """Whether differences to published numbers are shown."""
        return self.original and "published" in self.modes

    @property
    def ours(self) -> list[str]:
        """The modes that run something."""
        return [mode for mode in self.modes if mode != "published"]


def percent(value: Mapping[str, float], metric: str) -> str:
    """A value of `Row.value` in percent, with its uncertainty."""
    if metric not in value:
        return "–"
    text = f"{100 * value[metric]:.2f}"
    if f"{metric}_sd" in value:
        return f"{text} ± {100 * value[f'{metric}_sd']:.2f}"
    if f"{metric}_low" in value:
        middle, low, high = (100 * value[f"{metric}{end}"] for end in ("", "_low", "_high"))
        return with_interval(middle, low, high, ".2f", interval_sign(value.get(GROUPS[0])))
    return text


def spread(value: Mapping[str, float], metric: str) -> tuple[float, float, float]:
    """A value with the ends of its bar: one standard deviation, or the 95 % interval of a single run."""
    middle = value[metric]
    if f"{metric}_sd" in value:
        return middle, middle - value[f"{metric}_sd"], middle + value[f"{metric}_sd"]
    return middle, value.get(f"{metric}_low", middle), value.get(f"{metric}_high", middle)


def minus(one: Sequence[Record], other: Sequence[Record], metric: str) -> str:
    """Points between runs on different test parts, with the 95 % interval over seeds and folds where both have two."""
    if not one or not other:
        return "–"
    scores = [np.array([record.metrics[metric] for record in records]) for records in (one, other)]
    middle = f"{100 * (scores[0].mean() - scores[1].mean()):+.2f}"
    if min(map(len, scores)) < 2:
        return middle
    low, high = (100 * end for end in welch(scores[0], scores[1], (mean_ratio(one), mean_ratio(other))))
    return with_interval(float(middle), low, high, "+.2f")


def printed_value(results: ExperimentResults, arm: Arm, metric: str) -> float | None:
    """The published value of an arm, in percent."""
    text = results.printed.get(arm.published, {}).get(NAMES[metric])
    return float(text) if text else None


def _shown(results: ExperimentResults, arm: Arm, metric: str) -> str:
    """The published value as it is printed."""
    row = results.printed.get(arm.published, {})
    deviation = row.get(f"{NAMES[metric]}_sd")
    return row.get(NAMES[metric], "–") + (f" ± {deviation}" if deviation else "")


def scores(
    results: ExperimentResults, metrics: Sequence[str] = tuple(NAMES), against: Sequence[str] = COMPARED
) -> Table:
    """A row an arm: the paper's value and ours under each mode, for ``metrics``; what lies between, for ``against``."""
    heads = ["system"]
    for metric in metrics:
        heads += [f"{NAMES[metric]}: {mode}" for mode in results.modes]
        if metric in against:
            heads += [f"{NAMES[metric]}: {mode} − published" for mode in results.ours if results.against]
            heads += [f"{NAMES[metric]}: paper − clean"] if _both(results) else []
    sourced = any("provenance" in row for row in results.printed.values()) and "published" in results.modes
    fitted = [mode for mode in results.ours if any(f.on_training for f in results.arm_results if f.mode == mode)]
    rows, records = [], []
    for arm in results.arms:
        source = results.printed.get(arm.published, {}).get("provenance", "")
        cells = [cell for metric in metrics for cell in _score_cells(results, arm, metric, metric in against)]
        cells += [results.of(arm, mode).on_training or "–" for mode in fitted]
        rows.append([arm.label, *cells, *([source] if sourced else [])])
        records.append({"system": arm.label, "published_source": source, **_numbers(results, arm)})
    heads += [f"training: {mode}" for mode in fitted]
    head = [*heads, *(["source of the published"] if sourced else [])]
    how = [
        "percent; ± standard deviation over seeds and folds; [ ] 95 % interval: of a single run over its groups, of "
        "paper − clean over seeds (Welch, variances enlarged by test/train: runs share training data)"
    ]
    how += [TRAINING] if fitted else []
    groups = interval_notes([f.row for f in results.arm_results if f.records])
    return Table(results.title, head, rows, [*notes_of(results), *how, *groups], records)


def fits_of(results: ExperimentResults) -> list[str]:
    """What the columns ``training`` of :func:`scores` say, for a table without them."""
    told = [f"{f.arm.label}, {f.mode}: training {f.on_training}" for f in results.arm_results if f.on_training]
    return [*told, *([TRAINING] if told else [])]


def _both(results: ExperimentResults) -> bool:
    return {"paper", "clean"} <= set(results.modes)


def _score_cells(results: ExperimentResults, arm: Arm, metric: str, against: bool) -> list[str]:
    """Cells of one arm and one metric, as `scores` heads them."""
    by_mode = {mode: results.of(arm, mode) for mode in results.ours}
    values = {mode: one.row.value(metric) for mode, one in by_mode.items()}
    cells = [_shown(results, arm, metric)] if "published" in results.modes else []
    cells += [percent(value, metric) + by_mode[mode].marks for mode, value in values.items()]
    if not against:
        return cells
    printed = printed_value(results, arm, metric)
    for value in values.values():
        known = metric in value and printed is not None
        cells += [f"{100 * value[metric] - (printed or 0):+.2f}" if known else "–"] if results.against else []
    return cells + ([minus(by_mode["paper"].records, by_mode["clean"].records, metric)] if _both(results) else [])


def _numbers(results: ExperimentResults, arm: Arm) -> dict[str, Any]:
    """All numbers of an arm, for programs: published in percent, ours as shares."""
    numbers: dict[str, Any] = {
        f"published_{name}": printed_value(results, arm, metric) for metric, name in NAMES.items() if results.printed
    }
    for mode in results.ours:
        result = results.of(arm, mode)
        for metric in NAMES:
            numbers |= {f"{mode}_{name}": value for name, value in result.row.value(metric).items()}
        for metric in ("training_accuracy", "chosen_step", "optimiser_steps") if result.records else ():
            numbers |= {f"{mode}_{name}": value for name, value in result.row.value(metric).items()}
        numbers |= {f"{mode}_runs": len(result.records), f"{mode}_run_ids": [r.run_id for r in result.records]}
    return numbers


def notes_of(results: ExperimentResults) -> list[str]:
    """What stands below every table."""
    paper, experiment = results.paper, results.experiment
    present = {mark for f in results.arm_results if f.records for mark in f.row.marks}
    notes = [f"the paper: {experiment.target}"]
    notes += [f"mode {mode}: {protocol}" for mode in results.ours if (protocol := _protocol(results, mode))]
    if not results.original and "published" in results.modes:
        notes.append("published numbers are for other data: compare the order, not the height")
    if "published" in results.modes and paper.has_numbers(experiment.id):
        rows = paper.rows(experiment.id)
        read_off = [f"the paper's figure, {row['what']}: {row['value']}" for row in rows if "what" in row]
        notes += read_off or published_table(paper, experiment.id).notes
    notes += meanings(present)
    runs = [record for f in results.arm_results for record in f.records]
    notes += provenance(runs)
    notes += [f"{where}: {record.spec.method}" for record in runs if (where := origin_of(record))]
    own = (experiment.limit, experiment.per_class)[: 2 if experiment.limit else 0]
    if any(r.spec.split.max_per_class in own for f in results.arm_results for r in f.records[:1]):
        notes.append(f"† also marks {experiment.limit} samples a class, which are the paper's own in this experiment")
    problems = [f"{f.arm.label}, {f.mode}: {problem}" for f in results.arm_results for problem in f.problems]
    return list(dict.fromkeys([*notes, *problems]))


def _protocol(results: ExperimentResults, mode: str) -> str:
    """How a mode makes its parts, in the words of tables; arms may have samplings of their own."""
    splits = [record.spec.split for f in results.arm_results if f.mode == mode for record in f.records[:1]]
    limits = [
        f"at most {split.max_per_class} samples a class" for split in splits if mode == "clean" and split.max_per_class
    ]
    return "; ".join(dict.fromkeys([*(split.label for split in splits), *limits]))


def paired_notes(results: ExperimentResults, couples: Sequence[tuple[Arm, Arm]]) -> list[str]:
    """The first arm of each couple less the second on the same test sessions, seed by seed and fold by fold.

    The interval is of all test samples taken as one and over groups; the p-value is of the corrected resampled
    t-test on the scores of each seed and fold, corrected for the number of couples (Holm).
    """
    lines = []
    for mode in results.ours:
        known = [(results.of(one, mode), results.of(other, mode)) for one, other in couples]
        whole = [(one, other) for one, other in known if one.records and one.places == other.places]
        lines += [f"{mode}: {one.arm.label} − {other.arm.label}: not the same seeds and folds are done"
                  for one, other in known if (one, other) not in whole]  # fmt: skip
        corrected = holm(np.array([paired_p(one.records, other.records, "macro_f1") for one, other in whole]))
        for (one, other), p in zip(whole, corrected, strict=True):
            words = _difference_label(compare(one.records, other.records), float(p))
            lines.append(f"{mode}: {one.arm.label} − {other.arm.label}: {words}")
    if lines:
        lines.append(
            "differences in points of all test samples taken as one [95 % over groups]; p: corrected resampled "
            "t-test on the f1 of each seed and fold, Holm; not separable unless both agree"
        )
    return lines


def _difference_label(comparison: Comparison, p: float) -> str:
    """A difference with all that is known of it; not separable unless both the interval and the test say so.

    An interval over too few groups says nothing.
    """
    shown = []
    for metric in ("accuracy", "macro_f1"):
        difference = comparison.differences[metric]
        interval = with_interval(100 * difference.difference, 100 * difference.low, 100 * difference.high, "+.2f")
        shown.append(f"{NAMES[metric]} {interval}")
    words = ", ".join(shown)
    if np.isnan(p):
        return f"{words}; no test (fewer than {FEWEST} seeds and folds, or no spread over them): not separable"
    separable = not comparison.few and is_separable(vars(comparison.differences["macro_f1"]), p)
    verdict = "separable" if separable else "not separable"
    return f"{words}; p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}: {verdict}"
