"""The command that reproduces a paper."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.base import (
    check_device,
    check_runs_store,
    check_task,
    cli,
    device_option,
    download_option,
    methods_named,
    note,
    opened,
    print_table,
    print_tables,
    results_option,
    runs_beside,
    runs_into,
)
from bench.cli.help import examples, form_options, grouped, list_option, words_of_results
from bench.errors import InputError

if TYPE_CHECKING:
    from bench.cli.progress import RunProgress
    from bench.paper.declaration import Experiment, Paper
    from bench.paper.plan import Scale
    from bench.paper.reproduction import Request
    from bench.render.table import Table
    from bench.tracking.tracker import Tracker


@dataclass(frozen=True)
class ReproduceOptions:
    """What is reproduced, on which data and at which scale, as it was typed."""

    modes: list[str]
    dataset: str | None
    task: str | None
    split: str
    folds: int | None
    sampling: str | None
    max_per_class: int | None
    epochs: int | None
    seeds: int
    methods: list[str]
    preset: str | None
    every: int

    @property
    def scale(self) -> "Scale":
        """What makes it smaller or other than the paper's."""
        from bench.paper.plan import Scale

        plain = ("max_per_class", "epochs", "seeds", "folds", "preset", "every", "split", "sampling")
        return Scale(**{name: getattr(self, name) for name in plain}, methods=tuple(self.methods))


@dataclass(frozen=True)
class ActionOptions:
    """What to do instead of reproducing, and how to run."""

    overview: bool
    check: bool
    paper: str | None
    jobs: int
    device: str


@cli.command(
    epilog=examples(
        "bench reproduce --list",
        "bench reproduce table-VI --mode published",
        "bench reproduce table-VI fig-9 --dataset demo --method forest,knn --seeds 1",
    )
)
@click.argument("ids", nargs=-1, metavar="TABLE|FIGURE...")
@grouped("action", ActionOptions,
         click.option("--list", "overview", is_flag=True, help="List them all: data, runs, what is done, time left."),
         click.option("--check", is_flag=True,
                      help="Check the paper's own numbers: which are impossible or copied."),
         click.option("--paper", help="Another paper: its name, or the folder that declares it."),
         click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Runs at once."),
         device_option)  # fmt: skip
@grouped("asked", ReproduceOptions,
         list_option("--mode", "modes", metavar="MODE,...",
                     help="published, paper (its order of operations, leaky), clean; all three by default."),
         click.option("--dataset", help="Use other data than the paper's; all output says so."),
         click.option("--task", help="Task of the data set; its default task if not given."),
         click.option("--split", default="auto", show_default=True,
                      help="The clean split: auto, session, capture, time, …"),
         click.option("--folds", type=click.IntRange(min=2), help="Folds of the clean split."),
         click.option("--sampling", help="Windows of mode paper; without overlap by default."),
         click.option("--max-per-class", type=click.IntRange(min=1),
                      help="Samples per class; 10,000 by default in mode paper."),
         click.option("--epochs", type=click.IntRange(min=1), help="Training epochs; each method's own by default."),
         click.option("--seeds", default=5, show_default=True, type=click.IntRange(min=1), help="Seeds 0 to N-1."),
         click.option("--method", "methods", multiple=True, callback=methods_named, metavar="M,...",
                      help="Only these methods; a table of systems takes others, too."),
         click.option("--preset", help="Named parameter values, where a method has them: shared, small."),
         click.option("--every", default=1, show_default=True, type=click.IntRange(min=1),
                      help="Take every Nth value of a grid or sweep."))  # fmt: skip
@form_options
@download_option
@results_option
def reproduce(ids: tuple[str, ...], action: ActionOptions, asked: ReproduceOptions, form: str, results: Path) -> int:
    """Reproduce Tables II-XII and Figures 6-13 of the ATVITSC paper: its numbers, and ours, both under its own order of
    operations and under a clean split.  Results are saved in RESULTS/reproduced/; finished runs are not computed again.
    """
    from bench.cli.progress import RunProgress
    from bench.paper.declaration import find_paper
    from bench.paper.plan import check_modes, check_scale, check_splits

    paper = find_paper(action.paper)
    if action.check:
        from bench.paper.recompute import findings_table

        print_table(findings_table(paper), form)
        return 0
    experiments = [paper.experiment(name) for name in exhibits(ids)]
    papers_own = sorted({one.dataset for one in experiments or paper.experiments})
    used = [check_task(name, asked.task).name for name in ([asked.dataset] if asked.dataset else papers_own)]
    check_scale(paper, experiments, asked.scale)
    check_splits(asked.scale)
    if action.overview:
        from bench.paper.costs import overview

        instead = used[0] if asked.dataset else None
        print_table(overview(paper, runs_beside(results), asked.scale, experiments, instead, asked.task), form)
        return 0
    if not ids:
        raise InputError(
            "bad-options", "name a table or figure, table-VI for instance; `bench reproduce --list` shows all"
        )
    check_modes(asked.modes)
    check_device(action.device)
    check_runs_store(results)
    requests = [_request(paper, experiment, asked) for experiment in experiments]
    specs = {spec.digest for request in requests for one in request.plan() for spec in one.specs}
    tracker = runs_into(results)
    tables: list[Table] = []
    with RunProgress(len(specs)) as progress:  # planned before the first run, so that bad words cost nothing
        status = max(_one(request, tracker, action, progress, tables, form) for request in requests)
    if form == "json":  # one object, however many were asked for
        print_tables(tables, form)
    return status


def exhibits(words: Sequence[str]) -> list[str]:
    """Tables and figures of the words of a command line, of which `table 6` takes two."""
    names: list[str] = []
    for word in words:
        if names and names[-1].lower() in ("table", "figure", "fig"):
            names[-1] += f"-{word}"
        else:
            names.append(word)
    return names


def _request(paper: "Paper", experiment: "Experiment", asked: ReproduceOptions) -> "Request":
    """Without data of the paper's own, and no wish for them in particular, the published numbers alone."""
    from bench.paper.plan import MODES
    from bench.paper.reproduction import Request

    wanted = tuple(mode for mode in MODES if not asked.modes or mode in asked.modes)
    if wanted == ("published",):
        return Request(paper, experiment, wanted, asked.scale)
    try:
        store = opened(asked.dataset or experiment.dataset)
    except InputError as error:
        if asked.dataset or asked.modes:
            raise
        return Request(paper, experiment, wanted, asked.scale, missing=f"{error}; or give --dataset demo")
    return Request(paper, experiment, wanted, asked.scale, store, asked.task)


def _one(
    request: "Request",
    tracker: "Tracker",
    action: ActionOptions,
    progress: "RunProgress",
    tables: "list[Table]",
    form: str,
) -> int:
    """Show and save one, and add it to the tables; status 1 where a run failed.  JSON is shown when all are done."""
    from bench.paper.reproduction import reproduce, save
    from bench.runs.execute import Outcome, RunOptions

    statuses = set()

    def on_outcome(outcome: Outcome) -> None:
        statuses.add(outcome.status)
        if outcome.status != "cached":
            progress.outcome(outcome)

    options = RunOptions(action.device, progress=progress, jobs=action.jobs)
    shown = reproduce(request, tracker, options, on_outcome=on_outcome)
    progress.pause()  # a table is no place for a bar
    tables.append(shown.table)
    if form != "json":
        print_table(shown.table, form)
    more = [] if "--results" in " ".join(sys.argv) else words_of_results()
    command = shlex.join(["bench", *sys.argv[1:], *more])
    note(f"saved in {save(shown, request, command, tracker.results / 'reproduced')}")
    return int("failed" in statuses)


@cli.command(
    epilog=examples(
        "bench published --dataset iscx-vpn --metric macro_f1", "bench published --method appscanner --json"
    )
)
@click.option("--dataset", help="Only numbers on this data set, by its card's name.")
@list_option("--method", "methods", metavar="M,...", help="Only of these methods.")
@list_option("--metric", "metrics", metavar="M,...", help="accuracy, precision, recall, macro_f1, weighted_f1.")
@form_options
def published(dataset: str | None, methods: list[str], metrics: list[str], form: str) -> None:
    """Show the scores that papers print for a data set, side by side, and what does not add up."""
    from bench.paper.literature import published_numbers

    print_table(published_numbers(dataset, methods, metrics), form)
