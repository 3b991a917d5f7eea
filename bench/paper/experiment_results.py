"""What was found for an experiment, arm by arm and mode by mode, and the numbers that every exhibit tells.

Percent, as the paper prints.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from bench.analysis.comparison import compare, test_train_ratio
from bench.analysis.tables import Row
from bench.data.store import Store
from bench.paper.experiments import Arm, Experiment
from bench.paper.published import names, published
from bench.paper.published import sheet as published_sheet
from bench.render.table import Sheet
from bench.runs.run_labels import marked, meanings, split_words, with_interval
from bench.runs.tracking import Record, Tracker
from bench.scores.significance import FEWEST, LEVEL, corrected_t, holm, welch

TOLD: Final = ("macro_f1", "accuracy")  # metrics whose differences are told
NAMES: Final = {"macro_precision": "precision", "macro_recall": "recall", "macro_f1": "f1", "accuracy": "accuracy"}


@dataclass(frozen=True)
class Found:
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
    def marks(self) -> str:
        """Signs of the marks that hold, with a space before; empty without runs."""
        return marked("", self.row.marks) if self.records else ""


@dataclass(frozen=True)
class Scene:
    """An experiment with what was found."""

    experiment: Experiment
    found: Sequence[Found]
    modes: Sequence[str]  # of `bench.paper.experiments.MODES`, those that are shown
    tracker: Tracker
    store: Store | None = None  # None: nothing was run
    original: bool = True  # the data are the paper's, so that differences to it mean something
    title: str = ""
    printed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # published rows by key

    @property
    def drawn(self) -> str:
        """The strictest mode that has finished runs; empty where none has."""
        return next((mode for mode in reversed(self.ours) if any(f.records for f in self.found if f.mode == mode)), "")

    def headed(self, mode: str) -> str:
        """The mode with the marks that hold for any of its runs."""
        marks = {mark for f in self.found if f.mode == mode and f.records for mark in f.row.marks}
        return marked(mode, marks)

    def of(self, arm: Arm, mode: str) -> Found:
        """What was found for an arm under a mode."""
        return next((f for f in self.found if f.arm == arm and f.mode == mode), Found(arm, mode, ()))

    @property
    def arms(self) -> list[Arm]:
        """Arms in the paper's order; without runs all of the experiment."""
        return list(dict.fromkeys(f.arm for f in self.found)) or list(self.experiment.arms)

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
        return with_interval(middle, low, high, ".2f")
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
    low, high = (
        100 * end for end in welch(scores[0], scores[1], (test_train_ratio(one[0]), test_train_ratio(other[0])))
    )
    return with_interval(float(middle), low, high, "+.2f")


def printed_value(scene: Scene, arm: Arm, metric: str) -> float | None:
    """The published value of an arm, in percent."""
    text = scene.printed.get(arm.published, {}).get(NAMES[metric])
    return float(text) if text else None


def _shown(scene: Scene, arm: Arm, metric: str) -> str:
    """The published value as it is printed."""
    row = scene.printed.get(arm.published, {})
    deviation = row.get(f"{NAMES[metric]}_sd")
    return row.get(NAMES[metric], "–") + (f" ± {deviation}" if deviation else "")


def scores(scene: Scene, metrics: Sequence[str] = tuple(NAMES), against: Sequence[str] = TOLD) -> Sheet:
    """A row an arm: the paper's value and ours under each mode, for ``metrics``; what lies between, for ``against``."""
    heads = ["system"]
    for metric in metrics:
        heads += [f"{NAMES[metric]}: {mode}" for mode in scene.modes]
        if metric in against:
            heads += [f"{NAMES[metric]}: {mode} − published" for mode in scene.ours if scene.against]
            heads += [f"{NAMES[metric]}: paper − clean"] if _both(scene) else []
    sourced = any("provenance" in row for row in scene.printed.values()) and "published" in scene.modes
    rows, records = [], []
    for arm in scene.arms:
        source = scene.printed.get(arm.published, {}).get("provenance", "")
        cells = [cell for metric in metrics for cell in _score_cells(scene, arm, metric, metric in against)]
        rows.append([arm.label, *cells, *([source] if sourced else [])])
        records.append({"system": arm.label, "published_source": source, **_numbers(scene, arm)})
    head = [*heads, *(["source of the published"] if sourced else [])]
    how = [
        "percent; ± standard deviation over seeds and folds; [ ] 95 % interval: of a single run over its groups, of "
        "paper − clean over seeds (Welch, variances enlarged by test/train: runs share training data)"
    ]
    return Sheet(scene.title, head, rows, [*notes_of(scene), *how], records)


def _both(scene: Scene) -> bool:
    return {"paper", "clean"} <= set(scene.modes)


def _score_cells(scene: Scene, arm: Arm, metric: str, against: bool) -> list[str]:
    """Cells of one arm and one metric, as `scores` heads them."""
    found = {mode: scene.of(arm, mode) for mode in scene.ours}
    values = {mode: one.row.value(metric) for mode, one in found.items()}
    cells = [_shown(scene, arm, metric)] if "published" in scene.modes else []
    cells += [percent(value, metric) + found[mode].marks for mode, value in values.items()]
    if not against:
        return cells
    printed = printed_value(scene, arm, metric)
    for value in values.values():
        known = metric in value and printed is not None
        cells += [f"{100 * value[metric] - (printed or 0):+.2f}" if known else "–"] if scene.against else []
    return cells + ([minus(found["paper"].records, found["clean"].records, metric)] if _both(scene) else [])


def _numbers(scene: Scene, arm: Arm) -> dict[str, Any]:
    """All numbers of an arm, for programs: published in percent, ours as shares."""
    numbers: dict[str, Any] = {
        f"published_{name}": printed_value(scene, arm, metric) for metric, name in NAMES.items() if scene.printed
    }
    for mode in scene.ours:
        found = scene.of(arm, mode)
        for metric in NAMES:
            numbers |= {f"{mode}_{name}": value for name, value in found.row.value(metric).items()}
        numbers |= {f"{mode}_runs": len(found.records), f"{mode}_run_ids": [r.run_id for r in found.records]}
    return numbers


def notes_of(scene: Scene) -> list[str]:
    """What every sheet tells below its table."""
    experiment = scene.experiment
    present = {mark for f in scene.found if f.records for mark in f.row.marks}
    notes = [f"the paper: {experiment.target}"]
    notes += [f"mode {mode}: {protocol}" for mode in scene.ours if (protocol := _protocol(scene, mode))]
    if not scene.original and "published" in scene.modes:
        notes.append("published numbers are of other data: compare orders, not heights")
    if "published" in scene.modes and experiment.id in names():
        read_off = [
            f"the paper's figure, {row['what']}: {row['value']}" for row in published(experiment.id) if "what" in row
        ]
        notes += read_off or published_sheet(experiment.id).notes
    notes += meanings(present)
    own = (experiment.limit, experiment.per_class)[: 2 if experiment.limit else 0]
    if any(r.spec["max_per_class"] in own for f in scene.found for r in f.records[:1]):
        notes.append(f"† also marks {experiment.limit} samples a class, which are the paper's own in this experiment")
    problems = [f"{f.arm.label}, {f.mode}: {problem}" for f in scene.found for problem in f.problems]
    return notes + list(dict.fromkeys(problems))


def _protocol(scene: Scene, mode: str) -> str:
    """How a mode makes its parts, in the words of tables; arms may have samplings of their own."""
    specs = [record.spec for f in scene.found if f.mode == mode for record in f.records[:1]]
    limits = [
        f"at most {spec['max_per_class']} samples a class"
        for spec in specs
        if mode == "clean" and spec["max_per_class"]
    ]
    return "; ".join(dict.fromkeys([*map(split_words, specs), *limits]))


def pairs(scene: Scene, couples: Sequence[tuple[Arm, Arm]]) -> list[str]:
    """The first arm of each couple less the second on the same test sessions, seed by seed and fold by fold.

    The interval is of all test samples taken as one and resamples groups; the p-value is of the corrected resampled
    t-test on the scores of each seed and fold, corrected for the number of couples (Holm).
    """
    lines = []
    for mode in scene.ours:
        known = [(scene.of(one, mode), scene.of(other, mode)) for one, other in couples]
        whole = [(one, other) for one, other in known if one.records and _places(one) == _places(other)]
        lines += [f"{mode}: {one.arm.label} − {other.arm.label}: not the same seeds and folds are done"
                  for one, other in known if (one, other) not in whole]  # fmt: skip
        tests = [_test(one.records, other.records) for one, other in whole]
        corrected = iter(holm(np.array([p for p in tests if p is not None])))
        for (one, other), test in zip(whole, tests, strict=True):
            p = None if test is None else float(next(corrected))
            lines.append(
                f"{mode}: {one.arm.label} − {other.arm.label}: {_apart(compare(one.records, other.records), p)}"
            )
    if lines:
        lines.append(
            "differences in points of all test samples taken as one [95 % over groups]; p: corrected resampled "
            "t-test on the f1 of each seed and fold, Holm; not separable unless both agree"
        )
    return lines


def _apart(found: Mapping[str, Any], p: float | None) -> str:
    """A difference with all that is known of it; not separable unless both the interval and the test say so."""
    ends = {m: [100 * found[m][end] for end in ("difference", "low", "high")] for m in ("accuracy", "macro_f1")}
    told = ", ".join(f"{NAMES[m]} {with_interval(apart, low, high, '+.2f')}" for m, (apart, low, high) in ends.items())
    if p is None:
        return f"{told}; no test (fewer than {FEWEST} seeds and folds, or no spread over them): not separable"
    apart = found["macro_f1"]["low"] > 0 or found["macro_f1"]["high"] < 0
    verdict = "separable" if apart and p < LEVEL else "not separable"
    return f"{told}; p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}: {verdict}"


def _test(one: Sequence[Record], other: Sequence[Record]) -> float | None:
    """p-value of the difference in macro-F1 over seeds and folds; None for too few of them."""
    if len(one) < FEWEST:
        return None
    scores = [{_place(r): r.metrics["macro_f1"] for r in records} for records in (one, other)]
    apart = np.array([[scores[0][place] - scores[1][place]] for place in sorted(scores[0], key=str)])
    p = float(corrected_t(apart, np.array([test_train_ratio(one[0])]))[0])
    return None if np.isnan(p) else p  # every seed and fold differs by the same


def _places(found: Found) -> set[tuple[Any, ...]]:
    return {_place(record) for record in found.records}


def _place(record: Record) -> tuple[Any, ...]:
    return record.spec["seed"], record.spec["fold"]
