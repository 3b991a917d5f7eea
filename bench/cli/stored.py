"""Commands on the store of runs itself: what is in it, what leaves it, what comes into it."""

import dataclasses
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bench.cli.base import (
    cli,
    emit,
    note,
    print_table,
    proved_into,
    results_option,
    runs_in,
    runs_to_change,
    suite_named,
    suite_option,
    tell,
    which_runs,
)
from bench.cli.help import Choice, examples, form_options, grouped, json_option, list_option, listed
from bench.cli.text import file_size, outline
from bench.errors import InputError, counted, instead

if TYPE_CHECKING:
    from bench.render.table import Table
    from bench.suites.suite import Suite
    from bench.tracking.pruning import Plan
    from bench.tracking.record import Record
    from bench.tracking.selection import Stored
    from bench.tracking.tracker import Tracker

STATUSES: Final = ("done", "failed", "skipped", "killed", "running")


@dataclasses.dataclass(frozen=True)
class Filter:
    """Which runs are meant, as it was typed."""

    methods: list[str]
    datasets: list[str]
    task: str | None
    split: str | None
    runs: list[str]
    statuses: list[str]


def _statuses(context: click.Context, option: click.Parameter, values: Sequence[str]) -> list[str]:
    """Words of `STATUSES`, by comma or by repetition."""
    words = listed(context, option, values)
    if unknown := [word for word in words if word not in STATUSES]:
        raise InputError(
            "bad-options", f"--status {unknown[0]}: no run has this status; {instead(unknown[0], STATUSES)}"
        )
    return words


filter_options = grouped(
    "asked", Filter,
    *which_runs,
    list_option("--run", "runs", metavar="ID,...", help="Only these runs, by their ids or the start of them."),
    click.option("--status", "statuses", multiple=True, callback=_statuses, metavar="S,...",
                 help=f"Only runs with this status: {', '.join(STATUSES)}."),
)  # fmt: skip
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


@cli.group(name="results")
def results_group() -> None:
    """Manage the store of runs: show, export, import, rm, prune; `bench table` shows scores."""


def _chosen(tracker: "Tracker", asked: Filter) -> "list[Stored]":
    """The runs that are asked for."""
    from bench.tracking.selection import Wanted, chosen, stored_runs

    return chosen(stored_runs(tracker), Wanted(**vars(asked)))


def _of_suite(tracker: "Tracker", asked: Filter, suite: "Suite") -> "list[Stored]":
    """The runs of a suite that are asked for, as tables show them; what it lacks of them is told.

    One that could not be done is among them, one that failed only where its status is asked for.
    """
    from bench.suites.contents import of_suite, part_of
    from bench.tracking.record import asked_for
    from bench.tracking.selection import Wanted, chosen, narrowed, stored_runs

    asked = asked if asked.statuses else dataclasses.replace(asked, statuses=["done", "skipped"])
    records, meant = narrowed(tracker.search(), Wanted(asked.methods, asked.datasets, asked.task, asked.split))
    records, notes = of_suite(part_of(suite, meant.methods, meant.datasets, meant.task), records)
    records, left_out = asked_for(records)
    for line in [*notes, *filter(None, [left_out])]:
        tell(line)
    there = {one.run_id for one in records if one.status in asked.statuses}
    wanted = Wanted(runs=asked.runs)
    return [one for one in chosen(stored_runs(tracker), wanted) if one.row.run_id in there]


@results_group.command(
    name="export",
    epilog=examples(
        "bench results export --dataset demo runs.zip", "bench results export --suite etc-2026 --method knn knn.zip"
    ),
)
@filter_options
@suite_option("Only runs of this suite, as `bench table --suite` shows them; what is missing of these is counted.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--models", is_flag=True, help="Include the fitted methods, which `bench classify` needs.")
@click.option("--licence", default="", metavar="SPDX",
              help="Licence that you publish it under, as CC-BY-4.0 or MIT; not stated by default.")  # fmt: skip
@results_option
@json_option
def export_runs(
    asked: Filter, suite: str | None, file: Path, models: bool, licence: str, results: Path, as_json: bool
) -> None:
    """Write runs into a bundle: one zip with records, curves, answers and checksums, for `bench results import`."""
    from bench.files import file_sha256
    from bench.tracking.bundle import check_new, write_bundle
    from bench.tracking.selection import NO_RUNS

    check_new(file, licence)
    plan = suite_named(suite)
    tracker = runs_in(results)
    found = _chosen(tracker, asked) if plan is None else _of_suite(tracker, asked, plan)
    if not found:
        what = (
            NO_RUNS if plan is None else f"none of these runs is of suite {plan.name}; `bench run --suite` makes them"
        )
        raise InputError("no-runs", what)
    runs = [one for one in found if one.record.status != "running"]
    if not runs:
        raise InputError("no-runs", "none of these runs has ended; export them when they have")
    if lasting := len(found) - len(runs):
        tell(f"{lasting} runs that have not ended are left out")
    index = write_bundle(tracker, runs, file, models=models, licence=licence)
    having = {name.split("/")[1] for name in index.members if "/model/" in name}
    if lacking := sum(one.record.status == "done" and one.uid not in having for one in runs) if models else 0:
        tell(f"{lacking} of these runs have no model here: not kept, removed, or left behind when they were imported")
    size, digest = file.stat().st_size, file_sha256(file)
    data = {"file": str(file), "bytes": size, "sha256": digest, "runs": [one.name for one in index.runs]}
    emit(
        as_json,
        data,
        f"{file}: {counted(len(runs), 'run')}, {counted(len(index.members), 'file')}, "
        f"{file_size(size)}, SHA-256 {digest}",
    )


@results_group.command(name="import", epilog=examples("bench results import runs.zip"))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@results_option
@json_option
def import_runs(file: Path, results: Path, as_json: bool) -> None:
    """Check a bundle, then add the runs that are missing here; the same command resumes an import that broke off."""
    from bench.tracking.bundle import import_bundle

    with proved_into(results) as tracker:
        arrived = import_bundle(tracker, file, note)
    if arrived.unproved:
        tell(f"not checked, without answers or scores: {counted(arrived.unproved, 'run')}")
    text = f"{counted(len(arrived.imported), 'run')} imported, {arrived.there} were there"
    emit(as_json, dataclasses.asdict(arrived), text)


@results_group.command(
    epilog=examples("bench results show --status failed", "bench results show 1f0c22 --figures figures/")
)
@click.argument("run", required=False)
@filter_options
@click.option("--figures", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Draw the confusion matrix and learning curves of one RUN into this folder.")  # fmt: skip
@click.option("--predictions", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.csv",
              help="Write the answers of one RUN, as `bench score` reads them.")  # fmt: skip
@form_options
@results_option
def show(
    run: str | None, asked: Filter, figures: Path | None, predictions: Path | None, form: str, results: Path
) -> None:
    """List runs and their sizes, or show one RUN in full, with its files checked against their checksums."""
    if run is not None and any(vars(asked).values()):
        raise InputError("bad-options", "show takes a RUN, or options that choose among all; leave one out")
    if run is None and (option := "--figures" if figures else "--predictions" if predictions else ""):
        raise InputError("bad-options", f"{option} needs one RUN; name it (`bench results show` lists ids)")
    asked = asked if run is None else dataclasses.replace(asked, runs=[run])
    tracker = runs_in(results)
    runs = _chosen(tracker, asked)
    if run is None:
        print_table(_runs_table(tracker, runs), form)
        return
    (one,) = runs
    shown = _in_full(tracker, one)
    if figures is not None:
        shown["figures"] = [str(path) for path in _draw(tracker, one, figures)]
    if predictions is not None:
        shown["predictions"] = str(_write_predictions(tracker, one, predictions))
    emit(form == "json", shown, outline(shown))


def _runs_table(tracker: "Tracker", runs: "Sequence[Stored]") -> "Table":
    """A row a run, with the bytes of its files and of its model, and the sums below."""
    from bench.render.table import Table
    from bench.runs.run_labels import method_label, origin_of
    from bench.tracking.pruning import total
    from bench.tracking.record import after_deletion
    from bench.tracking.selection import NO_RUNS

    records: list[dict[str, Any]] = []
    rows, deleted = [], tracker.deleted()
    for one in runs:
        record, spec, sizes = after_deletion(one.record, deleted), one.record.spec, tracker.files.sizes(one.row)
        line: dict[str, Any] = {
            "id": record.run_id,
            "method": method_label(spec, origin_of(record)),
            "dataset": spec.dataset,
        }
        line |= {"task": spec.task, "split": spec.split.label, "seed": spec.split.seed, "fold": spec.split.fold}
        line |= {"status": record.status, "macro_f1": record.metrics.get("macro_f1"), "date": _date(one.row.started)}
        line |= {"bytes": total(sizes), "model_bytes": total(sizes, model=True), "imported": record.imported}
        line |= {"purpose": record.purpose, "deleted": record.deleted}
        records.append(line)
        score = "–" if line["macro_f1"] is None else f"{line['macro_f1']:.3f}"
        fold = "–" if spec.split.fold is None else str(spec.split.fold)
        place = [spec.dataset, spec.task, spec.split.label, str(spec.split.seed), fold]
        own = [file_size(line["bytes"]), file_size(line["model_bytes"]), _remarks(record)]
        rows.append([record.run_id[:8], line["method"], *place, record.status, score, line["date"], *own])
    sums = [sum(line[name] for line in records) for name in ("bytes", "model_bytes")]
    note = f"{counted(len(runs), 'run')}, {file_size(sums[0])} of files, of these {file_size(sums[1])} models"
    head = "id method dataset task split seed fold status macro_f1 date files model remarks".split()
    return Table("", head, rows, [note] if rows else [], records, NO_RUNS, {"bytes": sums[0], "model_bytes": sums[1]})


def _remarks(record: "Record") -> str:
    """What a run is beside one that the user ran."""
    words = ["imported"] * bool(record.imported) + [record.purpose] * bool(record.purpose)
    return ", ".join([*words, *([f"newer {record.deleted[:8]} was deleted"] if record.deleted else [])])


def _in_full(tracker: "Tracker", one: "Stored") -> dict[str, Any]:
    """All that is kept of a run, for people and programs."""
    from bench.runs.run_labels import method_label, origin_of
    from bench.tracking.record import DEVIATION, FILE, SPEC, after_deletion

    record, row = after_deletion(one.record, tracker.deleted()), one.row
    ended = None if row.ended is None else _date(row.ended)
    shown: dict[str, Any] = {"id": record.run_id, "name": one.uid, "title": row.name}
    shown |= {"method": method_label(record.spec, origin_of(record)), "status": record.status, "reason": record.reason}
    shown |= {"started": _date(row.started), "ended": ended, "imported": record.imported, "model": record.model}
    shown |= {"purpose": record.purpose, "deleted": record.deleted and f"newer run {record.deleted}, on MLflow's page"}
    kept = {name: value for name, value in sorted(row.tags.items()) if not name.startswith((FILE, DEVIATION))}
    kept.pop(SPEC, None)
    shown |= {"spec": record.spec.to_dict(), "metrics": dict(sorted(record.metrics.items()))}
    return shown | {"tags": kept, "deviations": list(record.deviations), "files": _files(tracker, one)}


def _files(tracker: "Tracker", one: "Stored") -> dict[str, str]:
    """Size of every file of a run, and whether it is what the run wrote."""
    from bench.tracking.results import digests_of

    record, found = one.record, {}
    with tracker.files.read(one.row) as folder:
        there = digests_of(folder)
        for name in sorted({**there, **record.files}):
            if name not in there:
                left = "removed" if record.model else "left behind" if record.imported else "GONE"
                found[name] = left if name.startswith("model/") else "GONE"
                continue
            wrote = record.files.get(name, "none")
            state = "as it was written" if wrote == there[name] else "CHANGED" if record.files else "unverified"
            found[name] = f"{file_size((folder / name).stat().st_size)}, {state}"
    return found


def _write_predictions(tracker: "Tracker", one: "Stored", path: Path) -> Path:
    """Write a run's answers; its data set and split have to be here."""
    from bench.data.store import Store
    from bench.runs.scored import write_predictions
    from bench.splits.split import make_split

    record = tracker.opened(one.record)
    store = Store.find(record.spec.dataset)
    record.check_store(store)
    write_predictions(path, record, store, make_split(store, record.spec.task, record.spec.split))
    return path


def _draw(tracker: "Tracker", one: "Stored", figures: Path) -> list[Path]:
    """Draw what a run has, and give the files that were written."""
    from bench.render.plots import draw_confusion, draw_curves

    with tracker.files.read(one.row) as folder:
        scores = dataclasses.replace(one.record, folder=folder).result().scores
    paths = [figures / f"{one.row.run_id[:8]}-{name}.png" for name in ("confusion", "curves")]
    draw_confusion(scores, paths[0])
    epochs: dict[int, dict[str, float]] = {}
    for name, value, _, step in sorted(tracker.history(one.row)[0], key=lambda point: point[3]):
        if name.startswith("epoch/"):
            epochs.setdefault(step, {})[name.removeprefix("epoch/")] = value
    draw_curves(list(epochs.items()), paths[1])
    return paths if epochs else paths[:1]


@results_group.command(epilog=examples("bench results rm --status killed", "bench results rm --run 1f0c22 --yes"))
@filter_options
@yes_option
@results_option
@json_option
def rm(asked: Filter, yes: bool, results: Path, as_json: bool) -> None:
    """Remove runs with all their files, for good; never a run that a living process computes."""
    from bench.tracking.pruning import plan_removal

    if not any(vars(asked).values()):
        raise InputError("bad-options", "rm needs a filter: --run, --method, --dataset, --status, …")
    tracker = runs_to_change(results)
    _carry_out(tracker, plan_removal(tracker, _chosen(tracker, asked)), "", yes, as_json)


@results_group.command(epilog=examples("bench results prune --models best"))
@filter_options
@click.option("--models", type=Choice(("best", "none")),
              help="Remove models, too: all (none stays), or all but the best of each row of the table.")  # fmt: skip
@yes_option
@results_option
@json_option
def prune(asked: Filter, models: str | None, yes: bool, results: Path, as_json: bool) -> None:
    """Remove runs that no table shows (superseded, failed before a success), and leftovers of killed processes."""
    from bench.tracking.pruning import plan_pruning
    from bench.tracking.selection import Wanted, chosen, stored_runs

    tracker, wanted = runs_to_change(results), Wanted(**vars(asked))
    everything = stored_runs(tracker)
    runs = everything if wanted.is_everything else chosen(everything, wanted)
    plan = plan_pruning(tracker, everything, runs, models or "all", leftovers=wanted.is_everything)
    _carry_out(tracker, plan, f"removed by prune --models {models}", yes, as_json)


def _carry_out(tracker: "Tracker", plan: "Plan", why: str, yes: bool, as_json: bool) -> None:
    """Tell what goes, ask where that can be, remove it, and tell what was removed."""
    from bench.tracking.pruning import carry_out, total

    sizes = [total(tracker.files.sizes(one.row)) for one in plan.runs]
    models = [total(tracker.files.sizes(one.row), model=True) for one in plan.models]
    folders = [sum(path.stat().st_size for path in one.rglob("*") if path.is_file()) for one in plan.folders]
    parts = [(counted(len(sizes), "run"), sum(sizes)), (counted(len(models), "model"), sum(models))]
    parts += [(counted(len(plan.binned), "run") + " in MLflow's bin", 0)]
    parts += [(counted(len(folders), "unfinished folder"), sum(folders))]
    what = ", ".join(
        f"{name} ({file_size(size)})" if size else name for name, size in parts if not name.startswith("0 ")
    )
    for one in plan.claimed:
        tell(f"run {one.row.run_id[:8]} stays: a living process computes it")
    data = {"runs": [one.row.run_id for one in plan.runs], "models": [one.row.run_id for one in plan.models]}
    data |= {"binned": [row.run_id for row in plan.binned], "folders": [str(path) for path in plan.folders]}
    if plan.is_empty:
        emit(as_json, {**data, "bytes": 0}, "nothing to remove")
        return
    if not yes:
        if not sys.stdin.isatty() or not sys.stderr.isatty():
            raise InputError("bad-options", f"this removes {what} for good; add --yes")
        if not click.confirm(f"Remove {what} for good?", err=True):
            return
    if kept := carry_out(tracker, plan, why, tell):
        tell(kept)
    emit(as_json, {**data, "bytes": sum(sizes) + sum(models) + sum(folders)}, f"removed {what}")


def _date(milliseconds: int) -> str:
    """A time of a store, to the second, in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
