"""Commands on what runs found."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bench.cli.base import (
    check_classes,
    cli,
    emit,
    format_option,
    json_option,
    listed,
    opened,
    results_option,
    sample_options,
)
from bench.cli.text import columns
from bench.errors import InputError


@cli.command()
@click.option("--method", "methods", multiple=True, callback=listed, metavar="M,...", help="Only these methods.")
@click.option("--dataset", "datasets", multiple=True, callback=listed, metavar="D,...", help="Only these data sets.")
@click.option("--task", help="Only this task.")
@click.option("--split", help="Only this split scheme.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    callback=listed,
    metavar="NAME,...",
    help="Columns; accuracy, macro precision, recall and F1, and seconds by default.",
)
@click.option("--columns", "spread", help="Spread the first metric over dataset, task or split.")
@format_option
@click.option("--deviations", is_flag=True, help="Add how each method deviates from its paper.")
@results_option
@json_option
def table(methods: list[str], datasets: list[str], task: str | None, split: str | None, metrics: list[str],
          spread: str | None, form: str, deviations: bool, results: Path, as_json: bool) -> None:  # fmt: skip
    """A table of runs: mean and standard deviation over seeds and folds, or a value with its 95 % interval."""
    from bench.analysis import tables
    from bench.render.table import render
    from bench.runs.tracking import Tracker

    records = Tracker(results).search(method=methods or None, dataset=datasets or None, task=task, split=split)
    known = {name for record in records for name in record.metrics} or set(metrics)
    if unknown := [name for name in metrics if name not in known]:
        raise InputError(f"--metric {unknown[0]}: no run has it; there are: {', '.join(sorted(known))}")
    form = "json" if as_json else form
    sheet = tables.table(records, metrics=metrics or tables.COLUMNS, columns=spread, footnotes=deviations)
    click.echo(render(sheet, form))


@cli.command()
@click.argument("runs", nargs=-1, metavar="[RUN RUN]")
@click.option("--pool", is_flag=True, help="Two runs: take in all seeds and folds of each.")
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    callback=listed,
    metavar="D,...",
    help="Rank the methods with finished runs on these data sets.",
)
@click.option("--task", help="Rank on this task.")
@click.option("--split", metavar="S", help="Rank on this split: a scheme, or in full, like 'capture, 5 folds'.")
@click.option("--method", "methods", multiple=True, callback=listed, metavar="M,...", help="Rank only these methods.")
@click.option("--metric", help="Rank by this one: macro_f1 by default, accuracy, macro_precision or macro_recall.")
@format_option
@click.option("--figure", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.svg",
              help="Draw the ranking's critical-difference diagram (.svg or .png).")  # fmt: skip
@results_option
@json_option
def compare(runs: tuple[str, ...], pool: bool, datasets: list[str], results: Path, as_json: bool,
            form: str, **asked: Any) -> None:  # fmt: skip
    """Two runs on the same test samples (paired bootstrap over groups, McNemar's test), or a ranking of methods."""
    from bench.analysis import comparison, ranking
    from bench.analysis.contestants import contestants
    from bench.analysis.tables import siblings
    from bench.render.table import render
    from bench.runs.tracking import Tracker

    if len(runs) != (0 if datasets else 2) or (runs and any(asked.values())):
        raise InputError("compare takes two runs, or --dataset (with its options) to rank the methods")
    if datasets and pool:
        raise InputError("--pool is for two runs: a ranking takes in all seeds and folds anyway; leave it out")
    if asked["figure"] is not None:
        ranking.check_figure(asked["figure"])
    tracker = Tracker(results)
    form = "json" if as_json else form
    if datasets:
        records = tracker.search(dataset=datasets, task=asked["task"])
        entries, notes = contestants(records, datasets, split=asked["split"], methods=asked["methods"])
        ranked = ranking.rank(entries, tracker.load, metric=asked["metric"] or "macro_f1", notes=notes)
        if asked["figure"] is not None:
            ranking.draw(ranked, asked["figure"])
        click.echo(render(ranking.sheet(ranked), form))
        return
    sides = [[tracker.load(run)] for run in runs]
    if pool:
        everything = tracker.search()
        sides = [[tracker.load(r.run_id) for r in siblings(side[0], everything)] for side in sides]
    click.echo(render(comparison.sheet(comparison.compare(*sides)), form))


@cli.command()
@click.argument("capture", type=click.Path(path_type=Path))
@click.option("--run", required=True, metavar="RUN", help="Id of a finished run, or the start of it.")
@results_option
@json_option
def classify(capture: Path, run: str, results: Path, as_json: bool) -> None:
    """Label the sessions of a new capture with the model of a run."""
    from bench.runs.classify import classify, lines
    from bench.runs.tracking import Tracker

    rows = classify(capture, Tracker(results).load(run))
    emit(as_json, {"capture": str(capture), "run": run, "sessions": rows}, columns(lines(rows)))


def schemes_listed(context: click.Context, option: click.Parameter, values: Sequence[str]) -> list[str]:
    """`-x a,b -x c,d:e,f` as [a, b, c, "d:e,f"], each once: from a colon on, all belongs to one split."""
    found = []
    for value in values:
        plain, colon, pattern = value.partition(":")
        *names, last = plain.split(",")
        found += [*names, last + colon + pattern]
    return list(dict.fromkeys(name.strip() for name in found if name.strip()))


@cli.command()
@click.argument("dataset")
@click.option("--task", help="The data set's task; its default one where not given.")
@click.option(
    "--split",
    "schemes",
    multiple=True,
    callback=schemes_listed,
    metavar="S,...",
    help="session,capture,paper by default; attribute:NAME=PATTERN may hold commas: last, or in a --split of its own.",
)
@click.option(
    "--method",
    "names",
    multiple=True,
    callback=listed,
    metavar="M,...",
    help="Tell the ceilings of these methods' inputs too; those of finished runs are told anyway.",
)
@sample_options
@click.option("--seed", default=0, show_default=True)
@click.option("--no-runs", is_flag=True, help="Do not run the methods of the floor; tell only what has run.")
@results_option
@json_option
def audit(dataset: str, task: str | None, schemes: list[str], names: list[str], seed: int, no_runs: bool,
          results: Path, as_json: bool, **options: Any) -> None:  # fmt: skip
    """What a data set gives away: copies, equal inputs of different classes, shortcuts, what splits share."""
    from bench.analysis.audit import audit, audit_text, save
    from bench.runs.tracking import Tracker

    store = opened(dataset)
    check_classes(store, task, options["filter"], options["sampling"], strict=False)
    found = audit(
        store,
        task or store.default_task,
        Tracker(results),
        schemes=schemes or ("session", "capture", "paper"),
        methods=names,
        run_floor=not no_runs,
        seed=seed,
        progress=lambda line: click.echo(line, err=True),
        **options,
    )
    click.echo(f"saved as {save(found, results)}", err=True)
    emit(as_json, found, audit_text(found))
