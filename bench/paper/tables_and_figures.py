"""A table or figure of the paper from what was found: a sheet of numbers, and a picture where the paper has one.

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
from bench.paper import charts
from bench.paper.attention import attention_maps
from bench.paper.experiment_results import TOLD, Scene, notes_of, pairs, percent, scores, spread
from bench.paper.experiments import BYTES, PACKETS, TAKEN, Arm
from bench.paper.published import published
from bench.paper.single_packets import OnePacket, one_packet
from bench.render.table import Sheet
from bench.runs.tracking import Record

Draw = Callable[[Path], None]
FEW: Final = 10  # sessions below which an interval would feign certainty (our choice)


@dataclass(frozen=True)
class Exhibit:
    """A sheet, and what draws its picture."""

    sheet: Sheet
    draw: Draw | None = None


def exhibit(scene: Scene) -> Exhibit:
    """The experiment's table or figure."""
    return KINDS[scene.experiment.kind](scene)


def _systems(scene: Scene) -> Exhibit:
    return Exhibit(scores(scene))


def _arms(scene: Scene) -> Exhibit:
    """Arms with the differences that the paper is about."""
    couples = [(scene.experiment.arm(one), scene.experiment.arm(other)) for one, other in scene.experiment.pairs]
    return Exhibit(scores(scene).noted(*pairs(scene, couples)))


def _classes(scene: Scene) -> Exhibit:
    """Precision, recall and F1 of each class."""
    (arm,) = scene.arms
    kinds = ("precision", "recall", "f1")
    results = {mode: [r.result()["scores"]["per_class"] for r in scene.of(arm, mode).records] for mode in scene.ours}
    ours = [name for runs in results.values() for run in runs for name in run]
    names = list(dict.fromkeys([*(scene.printed if scene.against else ()), *ours]))
    shown = [mode for mode in scene.modes if mode != "published" or scene.against]
    rows, records = [], []
    for name in names:
        cells, record = [name], {"class": name}
        for mode in shown:
            if mode == "published":
                printed = [scene.printed.get(name, {}).get(kind, "–") for kind in kinds]
                cells += printed
                record |= {f"published_{kind}": text for kind, text in zip(kinds, printed, strict=True)}
                continue
            values = {
                kind: _over_runs([run[name][kind] for run in results[mode] if name in run], kind) for kind in kinds
            }
            cells += [percent(value, kind) for kind, value in values.items()]
            record |= {f"{mode}_{key}": number for value in values.values() for key, number in value.items()}
        rows.append(cells)
        records.append(record)
    head = ["class", *(f"{kind}: {scene.headed(mode)}" for mode in shown for kind in kinds)]
    alone = any(len(runs) == 1 for runs in results.values())
    notes = [*notes_of(scene), *(["classes: one run shows no spread"] if alone else [])]
    return Exhibit(Sheet(scene.title, head, rows, notes, records))


def _over_runs(values: Sequence[float], name: str) -> dict[str, float]:
    """Mean and, of several, standard deviation, as `Row.value` has them."""
    if not values:
        return {}
    return {name: fmean(values), **({f"{name}_sd": stdev(values)} if len(values) > 1 else {})}


def _point(scene: Scene, arm: Arm) -> tuple[float, float, float] | None:
    """Accuracy of an arm under the mode that is drawn, with its bar; None without runs."""
    metric = scene.experiment.metric
    value = scene.of(arm, scene.drawn).row.value(metric)
    return spread(value, metric) if value else None


def _caption(scene: Scene, *more: str, mode: str | None = None) -> str:
    """A picture's heading, and below it data, scale, and the mode that is drawn with its marks."""
    head, _, rest = scene.title.partition(" · ")
    drawn = scene.drawn if mode is None else mode
    return "\n".join([head, " · ".join([rest, *([f"mode {scene.headed(drawn)}"] if drawn else []), *more])])


def _bars(scene: Scene) -> str:
    """What the bars of `_point` are."""
    several = any(len(f.records) > 1 for f in scene.found if f.mode == scene.drawn)
    return "bars: one standard deviation over runs" if several else "bars: 95 % interval over groups"


def _grid(scene: Scene) -> Exhibit:
    """Fig. 6: accuracy by packets and bytes."""
    found = {(arm.values["packets"], arm.values["bytes"]): _point(scene, arm) for arm in scene.arms}
    printed = {
        (n, m): float(scene.printed[key]["accuracy"]) / 100
        for n in PACKETS
        for m in BYTES
        if (key := f"{n},{m}") in scene.printed and "published" in scene.modes
    }
    values = {key: point for key, point in found.items() if point is not None}
    draw = partial(charts.draw_grid, values, printed, title=_caption(scene, _bars(scene)))
    return Exhibit(scores(scene, TOLD), draw if values else None)


def _sweep(scene: Scene) -> Exhibit:
    """Fig. 7: accuracy by temperature, and what it is worth against the spread between seeds."""
    points = [(arm.values["temperature"], *point) for arm in scene.arms if (point := _point(scene, arm)) is not None]
    rows = scene.printed.items() if "published" in scene.modes else ()
    printed = [(float(key), float(row["accuracy"]) / 100) for key, row in rows]
    title = _caption(scene, _bars(scene))
    draw = partial(charts.draw_sweep, points, printed, title=title, xlabel="temperature τ", ylabel="accuracy")
    taken = next(arm for arm in scene.arms if arm.values["temperature"] == TAKEN)
    lowest = min(scene.arms, key=lambda arm: arm.values["temperature"])
    notes = [*pairs(scene, [(taken, lowest)]), *_chosen(scene)]
    return Exhibit(scores(scene, TOLD).noted(*notes), draw if points else None)


def _chosen(scene: Scene) -> list[str]:
    """The arm that the validation part would choose, and whether arms differ more than seeds alone would make them."""
    lines = []
    for mode in scene.ours:
        rows = [(arm, row) for arm in scene.arms if (row := scene.of(arm, mode).row).done]
        if len(rows) < 2:
            continue
        best, row = max(rows, key=lambda pair: pair[1].value("validation_macro_f1").get("validation_macro_f1", 0))
        told = percent(row.value("accuracy"), "accuracy")
        lines.append(f"{mode}: validation chooses {best.label}, whose accuracy on the test part is {told}")
        variances = [row.value("accuracy").get("accuracy_sd", np.nan) ** 2 / len(row.done) for _, row in rows]
        if not np.isnan(variances).any():
            means = [row.value("accuracy")["accuracy"] for _, row in rows]
            lines.append(
                f"{mode}: the {len(means)} means have a standard deviation of {100 * stdev(means):.2f} points; "
                f"seeds alone would give {100 * np.sqrt(fmean(variances)):.2f} if every value were as good"
            )
    return lines


def _attention(scene: Scene) -> Exhibit:
    """Fig. 8: which packets four packets of one session look at."""
    (arm,) = scene.arms
    found = scene.of(arm, scene.drawn).records
    if not found or scene.store is None:
        return _nothing(scene)
    seen = attention_maps(found[0], scene.store)
    packets = seen.maps.shape[1]
    told = list(zip(seen.queries, seen.maps, strict=True))
    rows = [[str(query + 1), *(f"{100 * weight:.1f}" for weight in line)] for query, line in told]
    records = [{"query": query, "weights": line.tolist()} for query, line in told]
    run = f"run {found[0].run_id[:8]}, seed {found[0].spec['seed']}, mode {scene.headed(scene.drawn)}"
    answer = "taken for it" if seen.predicted == seen.class_name else f"taken for {seen.predicted}"
    notes = [
        *notes_of(scene),
        f"one session of the test part: number {seen.session}, {seen.class_name}, {answer}; {run}",
        "percent of the attention between packets: last layer, mean over heads, class token left out; no uncertainty: "
        "one session, one model",
    ]
    side = int(np.ceil(np.sqrt(packets)))
    grids = np.zeros((len(rows), side * side))
    grids[:, :packets] = seen.maps
    title = _caption(scene, f"seed {found[0].spec['seed']}", seen.class_name)
    maps = grids.reshape(-1, side, side)
    draw = partial(charts.draw_attention, maps, list(seen.queries), title=title, filled=seen.filled)
    head = ["query packet", *(str(n + 1) for n in range(packets))]
    return Exhibit(Sheet(scene.title, head, rows, notes, records), draw)


def _nothing(scene: Scene, *notes: str) -> Exhibit:
    """Without a finished run, or anything in them to show."""
    return Exhibit(Sheet(scene.title, ["result"], [["no finished run"]], notes_of(scene)).noted(*notes))


def _curves(scene: Scene, records: Sequence[Record], name: str) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Steps and values of a curve in each run that has it."""
    curves = [scene.tracker.curve(record.run_id, name) for record in records]
    return [curve for curve in curves if len(curve[0])]


def _banded(curves: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> charts.Series:
    """Steps, mean, lowest and highest of curves, as far as all of them go."""
    length = min(len(steps) for steps, _ in curves)
    values = np.stack([values[:length] for _, values in curves])
    return curves[0][0][:length], values.mean(0), values.min(0), values.max(0)


def _weights(scene: Scene) -> Exhibit:
    """Figs 9 and 10: the mean weight of each branch in every step's batch."""
    (arm,) = scene.arms
    rows, records, series = [], [], {}
    for mode in scene.ours:
        runs = scene.of(arm, mode).records
        for branch in ("global", "spatiotemporal"):
            curves = _curves(scene, runs, f"step/alpha_{branch}")
            if not curves:
                continue
            curve = _banded(curves)
            if mode == scene.drawn:
                series[f"{branch} branch"] = curve
            ends = [float(values[-max(1, len(values) // 10) :].mean()) for _, values in curves]
            last = _over_runs(ends, "last_tenth")
            numbers = {"first": curve[1][0], "lowest": curve[2].min(), "highest": curve[3].max(), **last}
            deviation = f"{last['last_tenth_sd']:.3f}" if "last_tenth_sd" in last else "one run"
            told = [f"{numbers[name]:.3f}" for name in ("first", "lowest", "highest", "last_tenth")]
            rows.append([branch, scene.headed(mode), str(len(runs)), *told, deviation])
            records.append(
                {"branch": branch, "mode": mode, "runs": len(runs), **{k: float(v) for k, v in numbers.items()}}
            )
    if not rows:
        return _nothing(scene)
    head = ["branch", "mode", "runs", "first step", "lowest", "highest", "mean of the last tenth", "its sd over runs"]
    title = _caption(scene, "mean over runs, lowest to highest")
    draw = partial(charts.draw_series, series, title=title, xlabel="optimiser step", ylabel="weight α")
    notes = [*notes_of(scene), "a step's value is the mean over its batch; lowest and highest of all steps and runs"]
    return Exhibit(Sheet(scene.title, head, rows, notes, records), draw)


def _training(scene: Scene) -> Exhibit:
    """Fig. 11: training accuracy by epoch."""
    curves = {arm.label: _curves(scene, scene.of(arm, scene.drawn).records, "epoch/accuracy") for arm in scene.arms}
    series = {label: _banded(found) for label, found in curves.items() if found}
    if not series:
        return _nothing(scene)
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
    head = ["epoch", *(f"{name}: {scene.headed(scene.drawn)}" for name in series)]
    notes = [*notes_of(scene), "training accuracy, percent: mean over runs (lowest, highest)"]
    title = _caption(scene, "mean over runs, lowest to highest")
    draw = partial(charts.draw_series, series, title=title, xlabel="epoch", ylabel="training accuracy")
    return Exhibit(Sheet(scene.title, head, rows, notes, records), draw)


def _single(scene: Scene) -> Exhibit:
    """Figs 12 and 13: confusion of sessions that hold one packet with payload."""
    rows: list[list[str]] = []
    records: list[dict[str, Any]] = []
    told: list[str] = []
    draw = None
    for mode in scene.ours:
        for arm in scene.arms:
            try:
                seen = one_packet(scene.of(arm, mode).records, scene.store) if scene.store else None
            except InputError as error:
                told.append(f"{mode}, {arm.label}: {error}")
                continue
            if seen is None:
                continue
            told.append(f"{mode}, {arm.label}: {_sure(seen)}")
            lines, numbers = _confused(seen)
            rows += [[scene.headed(mode), arm.label, *line] for line in lines]
            records += [{"mode": mode, "arm": arm.label, **line} for line in numbers]
            if draw is None or (mode == scene.drawn and arm == scene.arms[0]):
                draw = _shares(scene, seen, mode, arm)
    if not rows:
        return _nothing(scene, *told)
    head = ["mode", "system", "class", "samples", "right", "most taken for"]
    return Exhibit(Sheet(scene.title, head, rows, [*notes_of(scene), *told], records), draw)


def _sure(seen: OnePacket) -> str:
    """Mean diagonal with its interval, where there are sessions enough for one."""
    low, high = seen.interval
    interval = f"[{100 * low:.2f}, {100 * high:.2f}]" if seen.sessions >= FEW else "(too few sessions for an interval)"
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
        found = dict(zip(seen.columns, map(float, shares), strict=True))
        records.append({"class": name, "samples": int(count), "shares": found})
    return lines, records


def _shares(scene: Scene, seen: OnePacket, mode: str, arm: Arm) -> Draw:
    printed = {(row["true"], row["predicted"]): float(row["share"]) for row in published(scene.experiment.id)}
    title = _caption(scene, arm.label, f"{seen.samples} samples of {seen.sessions} sessions", mode=mode)
    shown = printed if scene.against else {}
    return partial(charts.draw_shares, seen.shares, seen.classes, seen.columns, title=title, published=shown)


KINDS: Final[dict[str, Callable[[Scene], Exhibit]]] = {
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
