"""A stress test as tables."""

from collections.abc import Sequence
from typing import Any, Final

from bench.analysis.paired import interval_note
from bench.errors import some
from bench.files import plain
from bench.render.table import Table, json_text, render
from bench.runs.run_labels import interval_meanings, interval_sign, with_interval
from bench.scores.confidence import TEMPERATURES
from bench.stress.stress_record import METRICS, SCORED, Calibration, Changed, Compared, FewLabels, OtherSetup, Stress

NAMED: Final = 12  # classes that a note names
FEW: Final = 100  # known samples, below which an interval of the false-positive rate is too narrow
HEAD = [word for metric in METRICS for word in (f"{metric} [95 %]", "difference [95 %]")]


def stress_tables(found: Stress) -> list[Table]:
    """Changes, calibration and, where they were asked for, few labels and unknown classes."""
    tables = [_changes(found), _calibration(found)]
    tables += [_labels(found)] if found.few_labels else []
    tables += [_open_set(found)] if found.unknown else []
    return [*tables, *map(_other, found.other)]


def _other(one: OtherSetup) -> Table:
    rows = []
    for name, samples, scores, groups in (
        ("its own test part", one.own_samples, one.own, one.own_interval_groups),
        (f"{one.dataset}/{one.task}", one.samples, one.scores, one.interval_groups),
    ):
        sign = interval_sign(groups)
        told = [with_interval(value, low, high, ".3f", sign) for value, low, high in map(scores.__getitem__, METRICS)]
        rows.append([name, str(samples), *told])
    left_out = [f"{number:,} sessions {reason}" for reason, number in one.sessions_left_out.items()]
    notes = [
        f"by the {len(one.classes)} classes of the same name: {some(one.classes, NAMED)}; another answer is an error",
        f"left out of {one.dataset}: {', '.join(left_out) or 'nothing'}",
        *([f"classes of {one.dataset} alone: {some(one.classes_unknown, NAMED)}"] if one.classes_unknown else []),
        *([f"classes of the run alone: {some(one.classes_missing, NAMED)}"] if one.classes_missing else []),
        f"[ ] 95 %: of {one.dataset} a jackknife over its capture groups, at least {one.interval_groups} of each class",
        *([f"{one.dataset} was {one.rules}"] if one.rules else []),
        *interval_meanings(interval_sign(min(one.interval_groups, one.own_interval_groups))),
    ]
    head = ["tested on", "samples", *(f"{metric} [95 %]" for metric in METRICS)]
    return Table("Another capture set-up", head, rows, notes, [{"test": "other data set", **_flat_ends(one)}])


def _flat_ends(one: OtherSetup) -> dict[str, Any]:
    """A line for programs: scores as ``macro_f1``, ``macro_f1_low``, …, the run's own with ``own_`` before them."""
    line: dict[str, Any] = plain(one)
    for before, scores in (("", line.pop("scores")), ("own_", line.pop("own"))):
        for metric, ends in scores.items():
            names = (f"{before}{metric}{end}" for end in ("", "_low", "_high"))
            line |= dict(zip(names, ends, strict=True))
    return line


def stress_text(found: Stress, form: str) -> str:
    """The tables in a form of `bench.render.table`; as CSV one table, as JSON the record itself."""
    tables = stress_tables(found)
    if form == "json":
        return json_text(found.to_dict())
    if form == "csv":
        tables = [Table("", [], [], records=[line for one in tables for line in one.records])]
    return "\n\n".join(render(one, form) for one in tables)


def _changes(found: Stress) -> Table:
    sign = interval_sign(found.interval_groups)
    own = [with_interval(value, low, high, ".3f", sign) for value, low, high in map(found.own.__getitem__, METRICS)]
    rows: list[list[str]] = [["none", str(found.samples), own[0], "", own[1], ""]]
    records: list[dict[str, Any]] = [{"test": "change", "change": "none", "samples": found.samples}]
    for metric, ends in found.own.items():
        records[0] |= dict(zip((metric, f"{metric}_low", f"{metric}_high"), ends, strict=True))
    for one in found.changed:
        number = "–" if one.samples is None else str(one.samples)
        said = f"failed, {one.reason}" if one.reason else one.status
        rows.append([one.change, number, *(_scores(one.scores, sign) if one.status == SCORED else [said, "", "", ""])])
        records.append({"test": "change", **_flat(one)})
    seed = f"seed {found.seed}" + ("" if found.fold is None else f", fold {found.fold}")
    title = f"{found.method} · {found.dataset} · {found.task} · {found.split} · run {found.run[:8]}, {seed}"
    notes = [
        "samples: test samples of which the method's inputs changed; it was fitted on unchanged ones",
        f"[ ] 95 %: {interval_note(found.groups, found.interval_groups)}; differences from the first row are paired",
        f"the method reads {', '.join(found.reads) or 'nothing of the packets'}",
        *interval_meanings(sign),
        *found.notes,
    ]
    return Table(title, ["change", "samples", *HEAD], rows, notes, records)


def _flat(one: Changed | FewLabels) -> dict[str, Any]:
    """A line for programs: scores as ``macro_f1``, ``macro_f1_low``, …"""
    line: dict[str, Any] = plain(one)
    for metric, values in line.pop("scores").items():
        line |= {metric if name == "value" else f"{metric}_{name}": number for name, number in values.items()}
    return line


def _scores(scores: dict[str, Compared], sign: str) -> list[str]:
    cells = []
    for metric in METRICS:
        one = scores[metric]
        cells.append(with_interval(one.value, one.low, one.high, ".3f", sign))
        cells.append(with_interval(one.difference, one.difference_low, one.difference_high, "+.3f", sign))
    return cells


def _calibration(found: Stress) -> Table:
    one, sign = found.calibration, interval_sign(found.interval_groups)
    head, records = ["", "log loss [95 %]", "calibration error [95 %]"], [_flat_calibration(one)]
    if one.reason:
        return Table("", head, [], records=records, empty=f"no temperature: {one.reason}")
    numbers = plain(one)

    def row(name: str, end: str, form: str = ".3f") -> list[str]:
        cells = []
        for metric in (f"log_loss{end}", f"calibration_error{end}"):
            if known := one.intervals.get(metric):
                value, low, high = known
                cells.append(with_interval(value, low, high, form, sign))
            else:
                cells.append(f"{numbers[metric]:{form}}")
        return [name, *cells]

    rows = [row("as it answers", ""), row(f"temperature {one.temperature:.3g}", "_after")]
    notes = [f"the temperature is fitted on the {one.validation} samples of the validation part; nats, test part"]
    if one.intervals:
        rows.append(row("difference", "_difference", "+.3f"))
        notes.append(f"[ ] 95 %: over {found.groups}, at this temperature; few samples make a calibration error larger")
    if not TEMPERATURES[0] * 1.01 < one.temperature < TEMPERATURES[1] / 1.01:
        notes.append("the temperature stands at an end of what is looked through: a better one may lie beyond")
    return Table("Calibration before and after temperature scaling", head, rows, notes, records)


def _flat_calibration(one: Calibration) -> dict[str, Any]:
    """A line for programs: ``log_loss``, ``log_loss_low``, …"""
    line: dict[str, Any] = {"test": "calibration", **plain(one)}
    for name, (value, low, high) in line.pop("intervals").items():
        line |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return line


def _labels(found: Stress) -> Table:
    sign = interval_sign(found.interval_groups)
    rows = [
        [str(one.labels), str(one.samples), *([one.reason, "", "", ""] if one.reason else _scores(one.scores, sign))]
        for one in found.few_labels
    ]
    records = [{"test": "few labels", **_flat(one)} for one in found.few_labels]
    notes = ["fitted anew with the run's settings; the validation part has all its labels; one draw, fewer among more"]
    return Table("Few labels", ["labels a class", "training samples", *HEAD], rows, notes, records)


def _open_set(found: Stress) -> Table:
    rows: list[Sequence[str]] = []
    for one in found.unknown:
        scores = [with_interval(one.auroc, one.auroc_low, one.auroc_high)]
        scores.append(with_interval(one.fpr, one.fpr_low, one.fpr_high))
        told = [one.reason, "", "", ""] if one.reason else [str(one.known), str(one.unknown), *scores]
        rows.append([one.class_, *told])
    records = [{"test": "open set", **plain(one)} for one in found.unknown]
    notes = [
        "fitted anew without the class; score: the greatest probability",
        "FPR: of samples of the class, the share taken for known where 95 % of the others are",
        f"[ ] 95 %: over {found.groups}; [0, 1] where one side has a single one",
    ]
    if any(one.known < FEW for one in found.unknown if not one.reason):
        notes.append(
            f"fewer than {FEW} known samples: where 95 % of them are is not sure, the FPR's interval too narrow"
        )
    head = ["class left out", "known", "unknown", "AUROC [95 %]", "FPR at 95 % TPR [95 %]"]
    return Table("Unknown classes", head, rows, notes, records)
