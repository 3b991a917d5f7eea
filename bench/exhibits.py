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

from bench import charts
from bench.attention import attention_maps
from bench.errors import InputError
from bench.experiments import BYTES, PACKETS, Arm
from bench.onepacket import one_packet
from bench.published import published
from bench.scenes import Scene, notes_of, pairs, percent, printed_value, scores, spread
from bench.sheets import Sheet
from bench.tracking import Record

Draw = Callable[[Path], None]


@dataclass(frozen=True)
class Exhibit:
    """A sheet, and what draws its picture."""

    sheet: Sheet
    draw: Draw | None = None


def exhibit(scene: Scene) -> Exhibit:
    """The experiment's table or figure."""
    return KINDS[scene.experiment.kind](scene)


def _systems(scene: Scene) -> Exhibit:
    return Exhibit(scores(scene, ("macro_f1", "accuracy")))


def _arms(scene: Scene) -> Exhibit:
    """Arms best first as the paper has them, each against the next."""
    sheet = scores(scene, ("accuracy", "macro_f1"))
    ordered = sorted(scene.arms, key=lambda arm: -(printed_value(scene, arm, "accuracy") or 0))
    return Exhibit(_with_notes(sheet, pairs(scene, ordered)))


def _with_notes(sheet: Sheet, notes: Sequence[str]) -> Sheet:
    return Sheet(**{**sheet.__dict__, "notes": [*sheet.notes, *notes]})


def _classes(scene: Scene) -> Exhibit:
    """Precision, recall and F1 of each class."""
    (arm,) = scene.arms
    results = {mode: [r.result()["scores"]["per_class"] for r in scene.of(arm, mode).records] for mode in scene.ours}
    names = list(dict.fromkeys([*(scene.printed if scene.against or not scene.ours else ()),
                                *(name for runs in results.values() for run in runs for name in run)]))  # fmt: skip
    head, rows, records = ["class"], [], []
    shown = [m for m in scene.modes if m != "published" or scene.against or not scene.ours]
    head += [f"{kind}: {mode}" for mode in shown for kind in ("precision", "recall", "f1")]
    for name in names:
        cells, record = [name], {"class": name}
        for mode in shown:
            for kind in ("precision", "recall", "f1"):
                if mode == "published":
                    cells.append(scene.printed.get(name, {}).get(kind, "–"))
                    record[f"published_{kind}"] = cells[-1]
                    continue
                values = [run[name][kind] for run in results[mode] if name in run]
                value = {kind: fmean(values)} if values else {}
                value |= {f"{kind}_sd": stdev(values)} if len(values) > 1 else {}
                cells.append(percent(value, kind))
                record |= {f"{mode}_{key}": number for key, number in value.items()}
        rows.append(cells)
        records.append(record)
    return Exhibit(Sheet(scene.title, head, rows, notes_of(scene), records))


def _point(scene: Scene, arm: Arm) -> tuple[float, float, float] | None:
    """Accuracy of an arm under the strictest mode shown, with its bar; None without runs."""
    value = scene.of(arm, scene.ours[-1]).row.value(scene.experiment.metric) if scene.ours else {}
    return spread(value, scene.experiment.metric) if value else None


def _caption(scene: Scene) -> str:
    """A picture's heading, and below it data, scale and mode."""
    head, _, rest = scene.title.partition(" · ")
    return "\n".join([head, *([" · ".join([rest, f"mode {scene.ours[-1]}"])] if scene.ours else [])])


def _grid(scene: Scene) -> Exhibit:
    """Fig. 6: accuracy by packets and bytes."""
    found = {(arm.values["packets"], arm.values["bytes"]): _point(scene, arm) for arm in scene.arms}
    printed = {
        (n, m): float(scene.printed[key]["accuracy"]) / 100
        for n in PACKETS
        for m in BYTES
        if (key := f"{n},{m}") in scene.printed
    }
    values = {key: point for key, point in found.items() if point is not None}
    draw = partial(charts.draw_grid, values, printed, title=_caption(scene))
    return Exhibit(scores(scene, ("accuracy", "macro_f1")), draw)


def _sweep(scene: Scene) -> Exhibit:
    """Fig. 7: accuracy by temperature, and what it is worth against the spread between seeds."""
    points = [(arm.values["temperature"], *point) for arm in scene.arms if (point := _point(scene, arm)) is not None]
    printed = [(float(key), float(row["accuracy"]) / 100) for key, row in scene.printed.items()]
    draw = partial(charts.draw_sweep, points, printed, title=_caption(scene), xlabel="temperature τ", ylabel="accuracy")
    ends = [arm for arm in (_nearest(scene, 500), _nearest(scene, 1)) if arm is not None]
    notes = [*pairs(scene, ends if len(set(ends)) == 2 else []), *_chosen(scene)]
    return Exhibit(_with_notes(scores(scene, ("accuracy", "macro_f1")), notes), draw)


def _nearest(scene: Scene, temperature: float) -> Arm | None:
    return min(scene.arms, key=lambda arm: abs(arm.values["temperature"] - temperature), default=None)


def _chosen(scene: Scene) -> list[str]:
    """The arm that the validation part would choose, and how the spread over arms compares with that over seeds."""
    lines = []
    for mode in scene.ours:
        rows = [(arm, scene.of(arm, mode).row) for arm in scene.arms]
        rows = [(arm, row) for arm, row in rows if row.done]
        if len(rows) < 2:
            continue
        best, row = max(rows, key=lambda pair: pair[1].value("validation_macro_f1").get("validation_macro_f1", 0))
        means = [row.value("accuracy")["accuracy"] for _, row in rows]
        seeds = [row.value("accuracy").get("accuracy_sd") for _, row in rows]
        within = [sd for sd in seeds if sd is not None]
        lines.append(
            f"{mode}: validation chooses {best.label}, with {percent(row.value('accuracy'), 'accuracy')} accuracy"
        )
        if within:
            lines.append(
                f"{mode}: standard deviation of the {len(means)} means {100 * stdev(means):.2f} points, "
                f"over the seeds of one value {100 * fmean(within):.2f}"
            )
    return lines


def _attention(scene: Scene) -> Exhibit:
    """Fig. 8: which packets four packets of one session look at."""
    (arm,) = scene.arms
    found = [record for mode in scene.ours for record in scene.of(arm, mode).records]
    if not found or scene.store is None:
        return Exhibit(Sheet(scene.title, ["figure"], [["no numbers are printed in the paper"]], notes_of(scene)))
    seen = attention_maps(found[-1], scene.store)
    packets = seen.maps.shape[1]
    head = ["query packet", *(str(n + 1) for n in range(packets))]
    rows = [[str(q + 1), *(f"{100 * w:.1f}" for w in line)] for q, line in zip(seen.queries, seen.maps, strict=True)]
    records = [
        {"query": int(q), "weights": [float(w) for w in line]} for q, line in zip(seen.queries, seen.maps, strict=True)
    ]
    notes = [
        *notes_of(scene),
        f"session {seen.session} ({seen.class_name}) of the test part, run {found[-1].run_id[:8]}; last layer, mean "
        "over heads, percent of the attention between packets",
    ]
    side = int(np.ceil(np.sqrt(packets)))
    grids = np.zeros((len(rows), side * side))
    grids[:, :packets] = seen.maps
    draw = partial(
        charts.draw_attention,
        grids.reshape(-1, side, side),
        list(seen.queries),
        title=_caption(scene),
        filled=seen.filled,
    )
    return Exhibit(Sheet(scene.title, head, rows, notes, records), draw)


def _curve(scene: Scene, records: Sequence[Record], name: str) -> charts.Series | None:
    """Steps, mean, lowest and highest of a curve over runs, as far as all of them go; None where there is none."""
    curves = [scene.tracker.curve(record.run_id, name) for record in records]
    curves = [curve for curve in curves if len(curve[0])]
    if not curves:
        return None
    length = min(len(steps) for steps, _ in curves)
    values = np.stack([values[:length] for _, values in curves])
    return curves[0][0][:length], values.mean(0), values.min(0), values.max(0)


def _weights(scene: Scene) -> Exhibit:
    """Figs 9 and 10: the mean weight of each branch in every step's batch."""
    (arm,) = scene.arms
    head = [
        "branch",
        "mode",
        "runs",
        "first step",
        "lowest",
        "highest",
        "mean of the last tenth",
        "sd of that over runs",
    ]
    rows, records, series = [], [], {}
    for mode in scene.ours:
        runs = scene.of(arm, mode).records
        for branch in ("global", "spatiotemporal"):
            curve = _curve(scene, runs, f"step/alpha_{branch}")
            if curve is None:
                continue
            last = max(1, len(curve[0]) // 10)
            ends = [scene.tracker.curve(r.run_id, f"step/alpha_{branch}")[1][-last:].mean() for r in runs]
            sd = stdev(ends) if len(ends) > 1 else float("nan")
            numbers = [curve[1][0], curve[2].min(), curve[3].max(), fmean(ends), sd]
            rows.append([branch, mode, str(len(runs)), *(f"{number:.3f}" for number in numbers)])
            names = ("first", "lowest", "highest", "last_tenth", "last_tenth_sd")
            records.append({"branch": branch, "mode": mode, **dict(zip(names, map(float, numbers), strict=True))})
            if mode == scene.ours[-1]:
                series[f"{branch} branch"] = curve
    draw = partial(charts.draw_series, series, title=_caption(scene), xlabel="optimiser step", ylabel="weight α")
    rows = rows or [["no numbers are printed in the paper", *[""] * (len(head) - 1)]]
    return Exhibit(Sheet(scene.title, head, rows, notes_of(scene), records), draw if series else None)


def _training(scene: Scene) -> Exhibit:
    """Fig. 11: training accuracy by epoch."""
    series = {}
    for arm in scene.arms:
        curve = _curve(scene, scene.of(arm, scene.ours[-1]).records, "epoch/accuracy") if scene.ours else None
        if curve is not None:
            series[arm.label] = curve
    epochs = sorted({int(step) for curve in series.values() for step in curve[0]})
    head = ["epoch", *(f"{name}: training accuracy (lowest, highest)" for name in series)]
    rows, records = [], []
    for epoch in epochs:
        cells, record = [str(epoch)], {"epoch": float(epoch)}
        for name, (steps, mean, low, high) in series.items():
            place = np.flatnonzero(steps == epoch)
            cells.append(f"{mean[place[0]]:.3f} ({low[place[0]]:.3f}, {high[place[0]]:.3f})" if len(place) else "–")
            ends = (("mean", mean), ("lowest", low), ("highest", high))
            record |= {f"{name} {kind}": float(values[place[0]]) for kind, values in ends if len(place)}
        rows.append(cells)
        records.append(record)
    draw = partial(charts.draw_series, series, title=_caption(scene), xlabel="epoch", ylabel="training accuracy")
    rows = rows or [["no numbers are printed in the paper", *[""] * (len(head) - 1)]]
    return Exhibit(Sheet(scene.title, head, rows, notes_of(scene), records), draw if series else None)


def _single(scene: Scene) -> Exhibit:
    """Figs 12 and 13: confusion of sessions that hold one packet with payload."""
    rows: list[list[str]] = []
    records: list[dict[str, Any]] = []
    notes, draw = notes_of(scene), None
    for mode in scene.ours:
        for arm in scene.arms:
            runs = scene.of(arm, mode).records
            if not runs or scene.store is None:
                continue
            try:
                seen = one_packet(runs, scene.store)
            except InputError as error:
                notes.append(f"{mode}, {arm.label}: {error}")
                continue
            low, high = seen.interval
            notes.append(
                f"{mode}, {arm.label}: accuracy {100 * seen.accuracy:.2f} [{100 * low:.2f}, {100 * high:.2f}], "
                f"{seen.samples} test samples of one packet ({seen.sessions} sessions) in {len(runs)} runs"
            )
            told = zip(seen.classes, seen.shares, seen.counts.sum(1), strict=True)
            for name, shares, count in told:
                wrong = [(share, other) for other, share in zip(seen.columns, shares, strict=True) if other != name]
                share, other = max(wrong, default=(0.0, ""))
                own = shares[list(seen.columns).index(name)]
                rows.append([mode, arm.label, name, str(int(count)), f"{own:.2f}", f"{other} {share:.2f}"])
                records.append({"mode": mode, "arm": arm.label, "class": name, "samples": int(count),
                                "shares": dict(zip(seen.columns, map(float, shares), strict=True))})  # fmt: skip
            if draw is None or mode == "clean":
                draw = _shares(scene, seen) if arm == scene.arms[0] else draw
    head = ["mode", "system", "class", "samples", "right", "most taken for"]
    rows = rows or [["no run", *[""] * (len(head) - 1)]]
    return Exhibit(Sheet(scene.title, head, rows, notes, records), draw)


def _shares(scene: Scene, seen: Any) -> Draw:
    printed = {(row["true"], row["predicted"]): float(row["share"]) for row in published(scene.experiment.id)}
    return partial(
        charts.draw_shares,
        seen.shares,
        seen.classes,
        seen.columns,
        title=_caption(scene),
        published=printed if scene.original else {},
    )


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
