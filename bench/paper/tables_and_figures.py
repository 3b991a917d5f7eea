"""A table or figure of a paper from what its runs found: numbers, and a picture where the paper has one.

Everything here is a function of finished runs and published numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.errors import InputError
from bench.paper.attention import attention_maps
from bench.paper.declaration import Arm, Over
from bench.paper.experiment_results import (
    COMPARED,
    ExperimentResults,
    fits_of,
    notes_of,
    paired_notes,
    percent,
    scores,
    spread,
)
from bench.paper.single_packets import OnePacket, one_packet
from bench.render import plots
from bench.render.table import Table
from bench.tracking.record import Record

Draw = Callable[[Path], None]
NO_INTERVAL: Final = "(too few sessions or groups for an interval)"
FEW: Final = 10  # sessions below which an interval would feign certainty (our choice)


@dataclass(frozen=True)
class Reproduced:
    """A table, and what draws its picture."""

    table: Table
    draw: Draw | None = None


def table_or_figure(results: ExperimentResults) -> Reproduced:
    """What an experiment shows."""
    return BY_KIND[results.experiment.kind](results)


def _systems(results: ExperimentResults) -> Reproduced:
    return Reproduced(scores(results))


def _arms(results: ExperimentResults) -> Reproduced:
    """Arms with the differences that the paper is about."""
    couples = [(results.experiment.arm(one), results.experiment.arm(other)) for one, other in results.experiment.pairs]
    return Reproduced(scores(results).noted(*paired_notes(results, couples)))


def _classes(results: ExperimentResults) -> Reproduced:
    """Precision, recall and F1 of each class."""
    (arm,) = results.arms
    kinds = ("precision", "recall", "f1")
    by_mode = {mode: [r.result().scores.per_class for r in results.of(arm, mode).records] for mode in results.ours}
    ours = [name for runs in by_mode.values() for run in runs for name in run]
    names = list(dict.fromkeys([*(results.printed if results.against else ()), *ours]))
    shown = [mode for mode in results.modes if mode != "published" or results.against]
    rows, records = [], []
    for name in names:
        cells, record = [name], {"class": name}
        for mode in shown:
            if mode == "published":
                printed = [results.printed.get(name, {}).get(kind, "–") for kind in kinds]
                cells += printed
                record |= {f"published_{kind}": text for kind, text in zip(kinds, printed, strict=True)}
                continue
            values = {
                kind: _over_runs([run[name][kind] for run in by_mode[mode] if name in run], kind) for kind in kinds
            }
            cells += [percent(value, kind) for kind, value in values.items()]
            record |= {f"{mode}_{key}": number for value in values.values() for key, number in value.items()}
        rows.append(cells)
        records.append(record)
    head = ["class", *(f"{kind}: {results.headed(mode)}" for mode in shown for kind in kinds)]
    alone = any(len(runs) == 1 for runs in by_mode.values())
    notes = [*notes_of(results), *fits_of(results), *(["classes: one run shows no spread"] if alone else [])]
    return Reproduced(Table(results.title, head, rows, notes, records))


def _over_runs(values: Sequence[float], name: str) -> dict[str, float]:
    """Mean and, of several, standard deviation, as `Row.value` has them."""
    if not values:
        return {}
    return {name: fmean(values), **({f"{name}_sd": stdev(values)} if len(values) > 1 else {})}


def _point(results: ExperimentResults, arm: Arm) -> tuple[float, float, float] | None:
    """Accuracy of an arm under the mode that is drawn, with its bar; None without runs."""
    metric = results.experiment.metric
    value = results.of(arm, results.drawn).row.value(metric)
    return spread(value, metric) if value else None


def _caption(results: ExperimentResults, *more: str, mode: str | None = None) -> str:
    """A picture's heading, and below it data, scale, and the mode that is drawn with its marks."""
    head, _, rest = results.title.partition(" · ")
    drawn = results.drawn if mode is None else mode
    return "\n".join([head, " · ".join([rest, *([f"mode {results.headed(drawn)}"] if drawn else []), *more])])


def _bars(results: ExperimentResults) -> str:
    """What the bars of `_point` are."""
    several = any(len(f.records) > 1 for f in results.arm_results if f.mode == results.drawn)
    return "bars: one standard deviation over runs" if several else "bars: 95 % interval over groups"


def _over(results: ExperimentResults) -> Over:
    """What a grid or sweep goes over."""
    over = results.experiment.over
    assert over is not None, f"{results.experiment.id}: a {results.experiment.kind} declares [experiments.over]"
    return over


def _grid(results: ExperimentResults) -> Reproduced:
    """A metric by two parameters, such as Fig. 6's packets and bytes."""
    over, arms = _over(results), results.experiment.arms
    of_arm = {arm.label: tuple(arm.values.values()) for arm in arms}
    points = {of_arm[arm.label]: _point(results, arm) for arm in results.arms}
    printed = {
        of_arm[arm.label]: float(results.printed[arm.published]["accuracy"]) / 100
        for arm in arms
        if arm.published in results.printed and "published" in results.modes
    }
    values = {key: point for key, point in points.items() if point is not None}
    title = _caption(results, _bars(results))
    draw = partial(plots.draw_grid, values, printed, title=title, labels=over.axes)
    return Reproduced(scores(results, COMPARED), draw if values else None)


def _sweep(results: ExperimentResults) -> Reproduced:
    """A metric by one parameter, such as Fig. 7's temperature, and what it is worth against the spread of seeds."""
    over = _over(results)
    (name,) = over.parameters
    points = [(arm.values[name], *point) for arm in results.arms if (point := _point(results, arm)) is not None]
    rows = results.printed.items() if "published" in results.modes else ()
    printed = [(float(key), float(row["accuracy"]) / 100) for key, row in rows]
    title = _caption(results, _bars(results))
    labels = (over.axes[0], results.experiment.metric)
    draw = partial(plots.draw_sweep, points, printed, title=title, labels=labels)
    lowest = min(results.arms, key=lambda arm: arm.values[name])
    taken = [arm for arm in results.arms if arm.values[name] == over.taken.get(name)]
    notes = [*paired_notes(results, [(arm, lowest) for arm in taken]), *_chosen(results)]
    return Reproduced(scores(results, COMPARED).noted(*notes), draw if points else None)


def _chosen(results: ExperimentResults) -> list[str]:
    """The arm that the validation part would choose, and whether arms differ more than seeds alone would make them."""
    lines = []
    for mode in results.ours:
        rows = [(arm, row) for arm in results.arms if (row := results.of(arm, mode).row).done]
        if len(rows) < 2:
            continue
        best, row = max(rows, key=lambda pair: pair[1].value("validation_macro_f1").get("validation_macro_f1", 0))
        tested = percent(row.value("accuracy"), "accuracy")
        lines.append(f"{mode}: validation chooses {best.label}, whose accuracy on the test part is {tested}")
        variances = [row.value("accuracy").get("accuracy_sd", np.nan) ** 2 / len(row.done) for _, row in rows]
        if not np.isnan(variances).any():
            means = [row.value("accuracy")["accuracy"] for _, row in rows]
            lines.append(
                f"{mode}: the {len(means)} means have a standard deviation of {100 * stdev(means):.2f} points; "
                f"seeds alone would give {100 * np.sqrt(fmean(variances)):.2f} if every value were as good"
            )
    return lines


def _attention(results: ExperimentResults) -> Reproduced:
    """Fig. 8: which packets four packets of one session look at."""
    (arm,) = results.arms
    runs = results.of(arm, results.drawn).records
    if not runs or results.store is None:
        return _nothing(results)
    seen = attention_maps(runs[0], results.store)
    packets = seen.maps.shape[1]
    maps_by_query = list(zip(seen.queries, seen.maps, strict=True))
    rows = [[str(query + 1), *(f"{100 * weight:.1f}" for weight in line)] for query, line in maps_by_query]
    records = [{"query": query, "weights": line.tolist()} for query, line in maps_by_query]
    run = f"run {runs[0].run_id[:8]}, seed {runs[0].spec.split.seed}, mode {results.headed(results.drawn)}"
    answer = "taken for it" if seen.predicted == seen.class_name else f"taken for {seen.predicted}"
    notes = [
        *notes_of(results),
        *fits_of(results),
        f"one session of the test part: number {seen.session}, {seen.class_name}, {answer}; {run}",
        "percent of the attention between packets: last layer, mean over heads, class token left out; no uncertainty: "
        "one session, one model",
    ]
    side = int(np.ceil(np.sqrt(packets)))
    grids = np.zeros((len(rows), side * side))
    grids[:, :packets] = seen.maps
    title = _caption(results, f"seed {runs[0].spec.split.seed}", seen.class_name)
    maps = grids.reshape(-1, side, side)
    draw = partial(plots.draw_attention, maps, list(seen.queries), title=title, filled=seen.filled)
    head = ["query packet", *(str(n + 1) for n in range(packets))]
    return Reproduced(Table(results.title, head, rows, notes, records), draw)


def _nothing(results: ExperimentResults, *notes: str) -> Reproduced:
    """Without a finished run, or anything in them to show."""
    return Reproduced(Table(results.title, ["result"], [["no finished run"]], notes_of(results)).noted(*notes))


def _curves(
    results: ExperimentResults, records: Sequence[Record], name: str
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Steps and values of a curve in each run that has it."""
    curves = [results.tracker.curve(record.run_id, name) for record in records]
    return [curve for curve in curves if len(curve[0])]


def _banded(curves: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> plots.Series:
    """Steps, mean, lowest and highest of curves, as far as all of them go."""
    length = min(len(steps) for steps, _ in curves)
    values = np.stack([values[:length] for _, values in curves])
    return curves[0][0][:length], values.mean(0), values.min(0), values.max(0)


def _weights(results: ExperimentResults) -> Reproduced:
    """Figs 9 and 10: the mean weight of each branch in every step's batch."""
    (arm,) = results.arms
    rows, records, series = [], [], {}
    for mode in results.ours:
        runs = results.of(arm, mode).records
        for branch, curve_name in results.experiment.curves.items():
            curves = _curves(results, runs, curve_name)
            if not curves:
                continue
            curve = _banded(curves)
            if mode == results.drawn:
                series[f"{branch} branch"] = curve
            ends = [float(values[-max(1, len(values) // 10) :].mean()) for _, values in curves]
            last = _over_runs(ends, "last_tenth")
            numbers = {"first": curve[1][0], "lowest": curve[2].min(), "highest": curve[3].max(), **last}
            deviation = f"{last['last_tenth_sd']:.3f}" if "last_tenth_sd" in last else "one run"
            cells = [f"{numbers[name]:.3f}" for name in ("first", "lowest", "highest", "last_tenth")]
            rows.append([branch, results.headed(mode), str(len(runs)), *cells, deviation])
            records.append(
                {"branch": branch, "mode": mode, "runs": len(runs), **{k: float(v) for k, v in numbers.items()}}
            )
    if not rows:
        return _nothing(results)
    head = ["branch", "mode", "runs", "first step", "lowest", "highest", "mean of the last tenth", "its sd over runs"]
    title = _caption(results, "mean over runs, lowest to highest")
    draw = partial(plots.draw_series, series, title=title, labels=("optimiser step", "weight α"))
    notes = [
        *notes_of(results),
        *fits_of(results),
        "a step's value is the mean over its batch; lowest and highest of all steps and runs",
    ]
    return Reproduced(Table(results.title, head, rows, notes, records), draw)


def _training(results: ExperimentResults) -> Reproduced:
    """Fig. 11: training accuracy by epoch."""
    curves = {
        arm.label: _curves(results, results.of(arm, results.drawn).records, "epoch/accuracy") for arm in results.arms
    }
    series = {label: _banded(of_runs) for label, of_runs in curves.items() if of_runs}
    if not series:
        return _nothing(results)
    rows, records = [], []
    for epoch in sorted({int(step) for curve in series.values() for step in curve[0]}):
        cells, record = [str(epoch)], {"epoch": float(epoch)}
        for name, curve in series.items():
            at = np.flatnonzero(curve[0] == epoch)
            mean, low, high = (float(values[at[0]]) if len(at) else np.nan for values in curve[1:])
            spread_of = f" ({100 * low:.1f}, {100 * high:.1f})" if low != high else ""
            cells.append(f"{100 * mean:.1f}{spread_of}" if len(at) else "–")
            record |= {f"{name} mean": mean, f"{name} lowest": low, f"{name} highest": high} if len(at) else {}
        rows.append(cells)
        records.append(record)
    head = ["epoch", *(f"{name}: {results.headed(results.drawn)}" for name in series)]
    notes = [*notes_of(results), *fits_of(results), "training accuracy, percent: mean over runs (lowest, highest)"]
    title = _caption(results, "mean over runs, lowest to highest")
    draw = partial(plots.draw_series, series, title=title, labels=("epoch", "training accuracy"))
    return Reproduced(Table(results.title, head, rows, notes, records), draw)


def _single(results: ExperimentResults) -> Reproduced:
    """Figs 12 and 13: confusion of sessions that hold one packet with payload."""
    rows: list[list[str]] = []
    records: list[dict[str, Any]] = []
    notes: list[str] = []
    draw = None
    for mode in results.ours:
        for arm in results.arms:
            try:
                seen = one_packet(results.of(arm, mode).records, results.store) if results.store else None
            except InputError as error:
                notes.append(f"{mode}, {arm.label}: {error}")
                continue
            if seen is None:
                continue
            notes.append(f"{mode}, {arm.label}: {_mean_diagonal(seen)}")
            lines, numbers = _confused(seen)
            rows += [[results.headed(mode), arm.label, *line] for line in lines]
            records += [{"mode": mode, "arm": arm.label, **line} for line in numbers]
            if draw is None or (mode == results.drawn and arm == results.arms[0]):
                draw = _shares(results, seen, mode, arm)
    if not rows:
        return _nothing(results, *notes)
    head = ["mode", "system", "class", "samples", "right", "most taken for"]
    return Reproduced(Table(results.title, head, rows, [*notes_of(results), *fits_of(results), *notes], records), draw)


def _mean_diagonal(seen: OnePacket) -> str:
    """Mean diagonal with its interval, where there are sessions and groups enough for one."""
    low, high = seen.interval
    interval = f"[{100 * low:.2f}, {100 * high:.2f}]" if seen.sessions >= FEW and not seen.few_groups else NO_INTERVAL
    return (
        f"mean of the classes' shares {100 * seen.accuracy:.2f} {interval}, {seen.samples} test samples of one packet, "
        f"{seen.sessions} sessions, {len(seen.classes)} classes"
    )


def _confused(seen: OnePacket) -> tuple[list[list[str]], list[dict[str, Any]]]:
    """A line a class: samples, share that is right, and the class that it is most often taken for."""
    lines, records = [], []
    for name, shares, count in zip(seen.classes, seen.shares, seen.counts.sum(axis=1), strict=True):
        own = shares[seen.columns.index(name)]
        share, other = max((s, o) for o, s in zip(seen.columns, shares, strict=True) if o != name)
        lines.append([name, str(int(count)), f"{own:.2f}", f"{other} {share:.2f}" if share else "–"])
        by_column = dict(zip(seen.columns, map(float, shares), strict=True))
        records.append({"class": name, "samples": int(count), "shares": by_column})
    return lines, records


def _shares(results: ExperimentResults, seen: OnePacket, mode: str, arm: Arm) -> Draw:
    printed = {
        (row["true"], row["predicted"]): float(row["share"]) for row in results.paper.rows(results.experiment.id)
    }
    title = _caption(results, arm.label, f"{seen.samples} samples of {seen.sessions} sessions", mode=mode)
    shown = printed if results.against else {}
    return partial(plots.draw_shares, seen.shares, seen.classes, seen.columns, title=title, published=shown)


BY_KIND: Final[dict[str, Callable[[ExperimentResults], Reproduced]]] = {
    "systems": _systems,
    "classes": _classes,
    "arms": _arms,
    "grid": _grid,
    "sweep": _sweep,
    "attention": _attention,
    "weights": _weights,
    "training": _training,
    "single": _single,
}
