"""What was found for an experiment, arm by arm and mode by mode, and the numbers that every exhibit tells.

Percent, as the paper prints.  ± is the standard deviation over seeds and folds, [ ] the 95 % interval of a single run,
resampling groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import hypot
from typing import Any, Final

import numpy as np

from bench.comparison import compare
from bench.experiments import Arm, Experiment
from bench.published import names
from bench.published import sheet as published_sheet
from bench.sheets import Sheet
from bench.statistics import FEWEST, LEVEL, corrected_t, holm
from bench.store import Store
from bench.tables import Row
from bench.tracking import Record, Tracker
from bench.words import MARKS, MEANING

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
        """Signs of `bench.words.MARKS` that hold, with a space before; empty without runs."""
        signs = "".join(MARKS[mark] for mark in self.row.marks) if self.records else ""
        return f" {signs}" if signs else ""


@dataclass(frozen=True)
class Scene:
    """An experiment with what was found."""

    experiment: Experiment
    found: Sequence[Found]
    modes: Sequence[str]  # of `bench.experiments.MODES`, those that are shown
    tracker: Tracker
    store: Store | None = None  # None: nothing was run
    original: bool = True  # the data are the paper's, so that differences to it mean something
    title: str = ""
    printed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # published rows by key

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
        return f"{text} [{100 * value[f'{metric}_low']:.2f}, {100 * value[f'{metric}_high']:.2f}]"
    return text


def spread(value: Mapping[str, float], metric: str) -> tuple[float, float, float]:
    """A value with the ends of its bar: one standard deviation, or the 95 % interval of a single run."""
    middle = value[metric]
    if f"{metric}_sd" in value:
        return middle, middle - value[f"{metric}_sd"], middle + value[f"{metric}_sd"]
    return middle, value.get(f"{metric}_low", middle), value.get(f"{metric}_high", middle)


def minus(one: Mapping[str, float], other: Mapping[str, float], metric: str) -> str:
    """Points between two independent values, ± the root of the sum of squares of what each is sure to."""
    if metric not in one or metric not in other:
        return "–"
    halves = [(high - low) / 2 for _, low, high in (spread(one, metric), spread(other, metric))]
    return f"{100 * (one[metric] - other[metric]):+.2f} ± {100 * hypot(*halves):.2f}"


def printed_value(scene: Scene, arm: Arm, metric: str) -> float | None:
    """The published value of an arm, in percent."""
    text = scene.printed.get(arm.published, {}).get(NAMES[metric])
    return float(text) if text else None


def scores(scene: Scene, metrics: Sequence[str]) -> Sheet:
    """A row an arm: the paper's value, ours under each mode, what lies between."""
    heads, rows, records = ["system"], [], []
    for metric in metrics:
        name = NAMES[metric]
        heads += [f"{name}: published"] if "published" in scene.modes else []
        for mode in scene.ours:
            heads += [f"{name}: {mode}", *([f"{mode} − published"] if scene.against else [])]
        heads += ["paper − clean"] if {"paper", "clean"} <= set(scene.modes) else []
    sources = any("provenance" in row for row in scene.printed.values()) and "published" in scene.modes
    for arm in scene.arms:
        cells = [arm.label]
        for metric in metrics:
            cells += _score_cells(scene, arm, metric)
        source = scene.printed.get(arm.published, {}).get("provenance", "")
        rows.append(cells + ([source] if sources else []))
        records.append({"system": arm.label, "published_source": source, **_numbers(scene, arm)})
    return Sheet(scene.title, heads + (["source of the published"] if sources else []), rows, notes_of(scene), records)


def _score_cells(scene: Scene, arm: Arm, metric: str) -> list[str]:
    """Cells of one arm and one metric, as `_scores` heads them."""
    printed = printed_value(scene, arm, metric)
    spread_of = scene.printed.get(arm.published, {}).get(f"{NAMES[metric]}_sd")
    shown = "–" if printed is None else f"{printed:.2f}" + (f" ± {spread_of}" if spread_of else "")
    cells = [shown] if "published" in scene.modes else []
    values = {mode: scene.of(arm, mode).row.value(metric) for mode in scene.ours}
    for mode, value in values.items():
        cells.append(percent(value, metric) + scene.of(arm, mode).marks)
        if scene.against:
            known = metric in value and printed is not None
            cells.append(f"{100 * value[metric] - (printed or 0):+.2f}" if known else "–")
    if {"paper", "clean"} <= set(values):
        cells.append(minus(values["paper"], values["clean"], metric))
    return cells


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
    present = {mark for f in scene.found if f.records for mark in f.row.marks}
    notes = [f"the paper: {scene.experiment.target}"]
    if scene.ours:
        notes.append("percent; ± standard deviation over seeds and folds, [ ] 95 % interval of a single run")
    if scene.store is not None and not scene.original:
        notes.append(f"run on {scene.store.name}, not on the paper's data: published numbers are there for their order")
    if "published" in scene.modes and scene.experiment.id in names():
        notes += published_sheet(scene.experiment.id).notes
    notes += [f"{MARKS[mark]} {text}" for mark, text in MEANING.items() if mark in present]
    problems = [f"{f.arm.label}, {f.mode}: {problem}" for f in scene.found for problem in f.problems]
    return notes + list(dict.fromkeys(problems))


def pairs(scene: Scene, arms: Sequence[Arm]) -> list[str]:
    """Each arm less the next on the same test sessions, in points, for as many seeds and folds as both have.

    The interval of that difference resamples groups; the p-value is of the corrected resampled t-test over seeds and
    folds, corrected for the number of pairs (Holm).
    """
    lines = []
    for mode in scene.ours:
        couples = [(scene.of(one, mode), scene.of(other, mode)) for one, other in pairwise(arms)]
        couples = [(one, other) for one, other in couples if one.records and _places(one) == _places(other)]
        tests = [_test(one.records, other.records) for one, other in couples]
        known = [p for p in tests if p is not None]
        corrected = iter(holm(np.array(known)))
        for (one, other), test in zip(couples, tests, strict=True):
            p = None if test is None else float(next(corrected))
            lines.append(
                f"{mode}: {one.arm.label} − {other.arm.label}: {_apart(compare(one.records, other.records), p)}"
            )
    return lines


def _apart(found: Mapping[str, Any], p: float | None) -> str:
    """A difference with all that is known of it; not separable unless both the interval and the test say so."""
    told = ", ".join(
        f"{NAMES[m]} {100 * found[m]['difference']:+.2f} [{100 * found[m]['low']:+.2f}, {100 * found[m]['high']:+.2f}]"
        for m in ("accuracy", "macro_f1")
    )
    apart = found["macro_f1"]["low"] > 0 or found["macro_f1"]["high"] < 0
    if p is None:
        return f"{told}; no test on fewer than {FEWEST} seeds and folds" + ("" if apart else "; not separable")
    return f"{told}; f1: p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}" + (
        "" if apart and p < LEVEL else "; not separable"
    )


def _test(one: Sequence[Record], other: Sequence[Record]) -> float | None:
    """p-value of the difference in macro-F1 over seeds and folds; None for too few of them."""
    if len(one) < FEWEST:
        return None
    scores = [{_place(r): r.metrics["macro_f1"] for r in records} for records in (one, other)]
    apart = np.array([[scores[0][place] - scores[1][place]] for place in sorted(scores[0], key=str)])
    samples = one[0].result()["split"]["samples"]
    return float(corrected_t(apart, np.array([samples["test"] / samples["train"]]))[0])


def _places(found: Found) -> set[tuple[Any, ...]]:
    return {_place(record) for record in found.records}


def _place(record: Record) -> tuple[Any, ...]:
    return record.spec["seed"], record.spec["fold"]
