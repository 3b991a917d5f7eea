"""The command that reproduces the paper."""

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from bench.cli.base import check_device, cli, format_option, listed, opened, results_option
from bench.errors import InputError


@cli.command()
@click.argument("ids", nargs=-1, metavar="TABLE|FIGURE...")
@click.option("--list", "overview", is_flag=True, help="All of them: data, runs, what is done, time left.")
@click.option("--check", is_flag=True, help="Recompute what the paper's own numbers imply: impossible, copied.")
@click.option("--mode", "modes", multiple=True, callback=listed, metavar="MODE,...",
              help="published, paper (its order of operations, leaky), clean; all three by default.")  # fmt: skip
@click.option("--dataset", help="Other data than the paper's, named in all output.")
@click.option("--task", help="The data set's task; its default one where not given.")
@click.option("--split", default="session", show_default=True, help="The clean split: session, capture, time, …")
@click.option("--folds", type=click.IntRange(min=2), help="Folds of the clean split.")
@click.option("--sampling", help="Windows of mode paper; without overlap by default.")
@click.option("--max-per-class", type=click.IntRange(min=1), help="Samples a class; 10,000 by default in mode paper.")
@click.option("--epochs", type=click.IntRange(min=1), help="Training epochs; each method's own by default.")
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(min=1), help="Seeds 0 to N-1.")
@click.option("--methods", multiple=True, callback=listed, metavar="M,...", help="Only these.")
@click.option("--preset", help="Named parameter values, for the methods that have them: shared, small.")
@click.option("--every", default=1, show_default=True, type=click.IntRange(min=1),
              help="Only each so many-th value of a grid or sweep.")  # fmt: skip
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Runs at once.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1.")
@format_option
@results_option
def reproduce(ids: tuple[str, ...], overview: bool, check: bool, modes: list[str], dataset: str | None,
              task: str | None, split: str, folds: int | None, sampling: str | None, max_per_class: int | None,
              epochs: int | None, seeds: int, methods: list[str], preset: str | None, every: int, jobs: int,
              device: str, form: str, results: Path) -> int:  # fmt: skip
    """Tables II-XII and Figures 6-13 of the ATVITSC paper: its numbers, ours under its own order of operations and
    under a clean split.  What is shown is saved under RESULTS/reproduced/; finished runs are not run again.
    """
    from bench.cli.progress import RunProgress
    from bench.paper.experiments import Scale, find
    from bench.render.table import render
    from bench.runs.tracking import Tracker

    scale = Scale(max_per_class, epochs, seeds, folds, tuple(methods), preset, every, split, sampling)
    if check:
        from bench.paper.published import faults_sheet

        click.echo(render(faults_sheet(), form))
        return 0
    if overview:
        from bench.paper.costs import overview as listing

        click.echo(render(listing(Tracker(results), scale, [find(name) for name in ids], dataset), form))
        return 0
    if not ids:
        raise InputError("name a table or figure, table-VI for instance; `bench reproduce --list` shows all")
    check_device(device)
    asked = [_request(find(name), modes, dataset, task, scale) for name in ids]
    specs = {spec.digest for request in asked for one in request.plan() for spec in one.specs}
    with RunProgress(len(specs)) as progress:  # planned before the first run, so that bad words cost nothing
        return max(_one(request, results, jobs, device, form, progress) for request in asked)


def _request(experiment: Any, modes: list[str], dataset: str | None, task: str | None, scale: Any) -> Any:
    """Without data of the paper's own, and no wish for them in particular, the published numbers alone."""
    from bench.paper.experiments import MODES
    from bench.paper.reproduction import Request
    from bench.splits.split import LEAKY

    if strange := [mode for mode in modes if mode not in MODES]:
        raise InputError(f"--mode {strange[0]}: choose of {', '.join(MODES)}")
    if scale.split in LEAKY or scale.split.startswith("file"):
        raise InputError(f"--split {scale.split}: mode clean takes session, capture, time or attribute:NAME")
    wanted = tuple(mode for mode in MODES if not modes or mode in modes)
    if wanted == ("published",):
        return Request(experiment, wanted, scale)
    try:
        store = opened(dataset or experiment.dataset)
    except InputError as error:
        if dataset or modes:
            raise
        return Request(experiment, wanted, scale, missing=f"{error}; or give --dataset demo")
    return Request(experiment, wanted, scale, store, task)


def _one(request: Any, results: Path, jobs: int, device: str, form: str, progress: Any) -> int:
    """Show and save one; status 1 where a run failed."""
    from bench.paper.reproduction import reproduce, save
    from bench.render.table import render
    from bench.runs.tracking import Tracker

    statuses = set()

    def told(outcome: Any) -> None:
        statuses.add(outcome.status)
        if outcome.status != "cached":
            progress.outcome(outcome)

    shown = reproduce(request, Tracker(results), jobs=jobs, device=device, progress=progress, told=told)
    click.echo(render(shown.sheet, form))
    command = " ".join(["bench", *map(shlex.quote, sys.argv[1:])])
    click.echo(f"saved in {save(shown, request, command, results / 'reproduced')}", err=True)
    return int("failed" in statuses)
