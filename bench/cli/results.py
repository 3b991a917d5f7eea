"""Commands on what runs found."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.base import (
    SampleOptions,
    check_classes,
    check_device,
    check_runs_store,
    check_words,
    cli,
    device_option,
    download_option,
    emit,
    found,
    methods_named,
    note,
    opened,
    print_table,
    print_tables,
    proved_into,
    results_option,
    runs_in,
    runs_into,
    sample_options,
    suite_named,
    suite_option,
    tell,
    which_runs,
)
from bench.cli.help import Choice, examples, form_options, grouped, json_option, list_option, listed
from bench.cli.text import columns
from bench.errors import InputError, instead
from bench.files import instead_of_file, typed_path
from bench.spec import Settings, SplitSpec, check_scheme

if TYPE_CHECKING:
    from bench.analysis.ranking import Ranking
    from bench.data.store import Store
    from bench.suites.suite import Suite
    from bench.tracking.record import Record
    from bench.tracking.tracker import Tracker


@dataclass(frozen=True)
class TableOptions:
    """Which runs a table shows, and how."""

    methods: list[str]
    datasets: list[str]
    task: str | None
    split: str | None
    metrics: list[str]
    spread: str | None
    deviations: bool
    audits: bool
    suite: str | None


@cli.command(
    epilog=examples(
        "bench table --dataset demo", "bench table --method forest,mine.py:Mine --split session --format md"
    )
)
@grouped("asked", TableOptions,
         *which_runs,
         list_option("--metric", "metrics", metavar="NAME,...",
                     help="Columns; accuracy, macro precision, recall and F1, and seconds by default."),
         click.option("--columns", "spread", type=Choice(["dataset", "task", "split"]),
                      help="Spread the first metric over dataset, task or split."),
         click.option("--deviations", is_flag=True, help="Add how each method deviates from its paper."),
         click.option("--audits", is_flag=True, help="Also show the baselines of `bench audit`."),
         suite_option("Only runs of this suite, whatever their method; what it lacks is counted."))  # fmt: skip
@form_options
@results_option
def table(asked: TableOptions, form: str, results: Path) -> None:
    """Print a table of runs: mean and standard deviation over seeds and folds, or one value with its 95 % interval."""
    suite = suite_named(asked.suite)
    tracker = runs_in(results)
    from bench.analysis.tables import COLUMNS, results_table
    from bench.tracking.record import asked_for
    from bench.tracking.selection import Wanted, narrowed

    wanted = Wanted(asked.methods, asked.datasets, asked.task, asked.split)
    everything, notes = tracker.search(), list[str]()
    if suite is not None:  # first: what is missing is counted of the whole suite, whatever is shown
        from bench.suites.contents import of_suite

        everything, notes = of_suite(suite, everything)
    found, _ = narrowed(everything, wanted)
    records, left_out = asked_for(found, audits=asked.audits)
    metrics = asked.metrics or (suite.metrics if suite else ()) or COLUMNS
    known = {name for record in records for name in record.metrics} or set(asked.metrics)
    if unknown := [name for name in asked.metrics if name not in known]:
        raise InputError(
            "unknown-metric", f"--metric {unknown[0]}: no run has it; {instead(unknown[0], sorted(known))}"
        )
    shown = results_table(records, metrics=metrics, columns=asked.spread, footnotes=asked.deviations)
    print_table(shown.noted(left_out, *notes), form)


@dataclass(frozen=True)
class RankingOptions:
    """What is ranked."""

    datasets: list[str]
    task: str | None
    split: str | None
    methods: list[str]
    metric: str | None
    figure: Path | None
    suite: str | None
    each: bool


@cli.command(
    epilog=examples(
        "bench compare 1f0c22 9ab31e",
        "bench compare --dataset demo --metric accuracy --figure ranking.svg",
        "bench compare --suite etc-2026",
        "bench compare --suite etc-2026 --each --dataset iot-sentinel",
    )
)
@click.argument("runs", nargs=-1, metavar="[RUN RUN]")
@click.option("--pool", is_flag=True, help="With two runs: use all seeds and folds of each.")
@grouped("asked", RankingOptions,
         list_option("--dataset", "datasets", metavar="D,...",
                     help="Rank the methods with finished runs on these data sets."),
         click.option("--task", help="Rank on this task; of a suite on this one alone."),
         click.option("--split", metavar="S",
                      help="Rank on this split: a scheme, or in full, like 'capture, 5 folds'."),
         list_option("--method", "methods", metavar="M,...", help="Rank only these methods."),
         suite_option("Rank on all that is in this suite and has runs, or on its --dataset alone."),
         click.option("--each", is_flag=True, help="With --suite: rank on each of its tasks by itself."),
         click.option("--metric",
                      help="Metric to rank by: macro_f1 by default, accuracy, macro_precision or macro_recall."),
         click.option("--figure", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.svg",
                      help="Draw the critical-difference diagram of the ranking (.svg or .png)."))  # fmt: skip
@form_options
@results_option
def compare(runs: tuple[str, ...], pool: bool, asked: RankingOptions, form: str, results: Path) -> None:
    """Compare two runs on the same test samples (paired interval, permutation by group), or rank methods."""
    ranked = bool(asked.datasets or asked.suite)
    if len(runs) != (0 if ranked else 2) or (runs and any(vars(asked).values())):
        what = "compare takes two runs, or --dataset or --suite (with its options) to rank the methods"
        raise InputError("bad-options", what)
    if asked.suite and asked.split:
        raise InputError("bad-options", "a suite has its own splits; leave --split out")
    if asked.each and (asked.figure or not asked.suite):
        raise InputError("bad-options", "--each goes with --suite and without --figure: it makes several tables")
    if ranked and pool:
        raise InputError(
            "bad-options", "--pool is for two runs: a ranking always uses all seeds and folds; leave it out"
        )
    suite = suite_named(asked.suite)
    if ranked:
        from bench.analysis import ranking

        if asked.figure is not None:
            ranking.check_figure(asked.figure)
        if asked.metric is not None:
            ranking.check_metric(asked.metric)
    tracker = runs_in(results)
    sides = [[tracker.load(run)] for run in runs]
    from bench.analysis.comparison import compare, comparison_table
    from bench.analysis.tables import siblings

    if ranked:
        _print_ranked(tracker, asked, suite, form)
        return
    if pool:
        everything = tracker.search()
        sides = [[tracker.opened(r) for r in siblings(side[0], everything)] for side in sides]
    print_table(comparison_table(compare(*sides)), form)


def _print_ranked(tracker: "Tracker", asked: RankingOptions, suite: "Suite | None", form: str) -> None:
    """One ranking, with its figure, or one on each of a suite's portions."""
    from bench.analysis.ranking import draw, ranking_table

    if asked.each and suite is not None:
        print_tables([ranking_table(one) for one in _ranked_on_each(tracker, asked, suite)], form)
        return
    order = _ranked(tracker, asked, suite, tracker.search())
    if asked.figure is not None:
        draw(order, asked.figure)
    print_table(ranking_table(order), form)


def _ranked(
    tracker: "Tracker", asked: RankingOptions, suite: "Suite | None", everything: "Sequence[Record]"
) -> "Ranking":
    """The ranking that is asked for, of ``everything`` that is stored."""
    from bench.analysis.ranking import rank
    from bench.analysis.ranking_entries import ranking_entries, suite_entries
    from bench.suites.contents import part_of
    from bench.tracking.record import asked_for
    from bench.tracking.selection import Wanted, narrowed

    found, wanted = narrowed(everything, Wanted(asked.methods, asked.datasets, asked.task))
    records, left_out = asked_for(found)
    if suite is None:
        entries, notes = ranking_entries(records, wanted.datasets, split=asked.split, methods=wanted.methods)
    else:
        entries, notes = suite_entries(records, part_of(suite, wanted.methods, wanted.datasets, wanted.task))
    return rank(entries, tracker.load, metric=asked.metric or "macro_f1", notes=[*notes, *filter(None, [left_out])])


def _ranked_on_each(tracker: "Tracker", asked: RankingOptions, suite: "Suite") -> "list[Ranking]":
    """A ranking on each portion of a suite; a line says on which there are not two methods to rank.

    Raises :class:`InputError` where that is all.
    """
    from bench.suites.contents import chosen_portions, narrowed_to

    rankings, everything = [], tracker.search()
    for one in chosen_portions(suite, asked.datasets, asked.task):
        alone = replace(asked, datasets=[], task=None)
        try:
            rankings.append(_ranked(tracker, alone, narrowed_to(suite, [one], suite.methods), everything))
        except InputError as error:
            tell(f"{one.name}/{one.task}: {error}")
    if not rankings:
        raise InputError(
            "no-runs", f"compare: nothing of suite {suite.name} can be ranked; `bench run --suite …` makes runs"
        )
    return rankings


@cli.command(epilog=examples("bench score answers.csv --split fold0.json --name my-tool"))
@click.argument("predictions", type=click.Path(path_type=Path), metavar="PREDICTIONS.csv")
@click.option(
    "--split",
    "split_file",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE.json",
    help="The split that was answered, as `bench split --save` wrote it.",
)
@click.option("--name", required=True, help="What the program is called in tables.")  # fmt: skip
@results_option
@json_option
def score(predictions: Path, split_file: Path, name: str, results: Path, as_json: bool) -> None:
    """Score another program's predictions for the test part of a split, and remember them as a run.

    Predictions are a CSV with the column `sample`, as `bench split --samples` names samples, and `prediction` or a
    probability for each class.
    """
    from bench.splits.split_file import read_split_file

    for file in (predictions, split_file):
        if not file.is_file():
            raise InputError("missing-file", f"{file}: {instead_of_file(file)}; give the file")
    store = found(read_split_file(split_file).dataset)
    from bench.runs.scored import check_name, score

    check_name(name)
    with proved_into(results) as tracker:
        outcome = score(predictions, split_file, store, name, tracker)
    if outcome.reason:
        note(f"{name}: {outcome.reason}")
    emit(as_json, outcome.to_dict(), _shown(tracker.load(outcome.run_id or "")))


def _shown(record: "Record") -> str:
    """A table of one run, as text."""
    from bench.analysis.tables import COLUMNS, results_table
    from bench.render.table import render

    return render(results_table([record], metrics=COLUMNS))


@cli.command(epilog=examples("bench classify new.pcap --run 1f0c22"))
@click.argument("capture", type=click.Path(path_type=Path))
@click.option("--run", required=True, metavar="RUN", help="Id of a finished run, or the start of it.")
@click.option("--method", "named", multiple=True, callback=methods_named, metavar="FILE.py:CLASS",
              help="The file of the run's method, which you name: no results folder can make a file run.")  # fmt: skip
@results_option
@json_option
def classify(capture: Path, run: str, named: list[str], results: Path, as_json: bool) -> None:
    """Label the sessions of a new capture with the model of a run."""
    if not capture.is_file():
        raise InputError("missing-file", f"{capture}: there is no such capture; give a pcap or pcapng file")
    from bench.runs.registry import digest_of

    for method in named:
        digest_of(method)  # is there
    record = runs_in(results).load(run)
    from bench.runs.classify import classify, lines
    from bench.runs.run_labels import provenance

    done = classify(capture, record, named)
    for line in (*provenance([record]), *done.notes):
        tell(line)
    for reason, number in done.left_out.items():
        tell(f"{capture}: {number} sessions are not classified, as none like them was learned ({reason})")
    data = {"capture": str(capture), "run": run, "sessions": done.rows, "left_out": done.left_out}
    emit(as_json, data, columns(lines(done.rows)))


def counts_listed(context: click.Context, option: click.Parameter, values: Sequence[str]) -> list[int]:
    """`-x 1,5 -x 10` as [1, 5, 10], each once."""
    words = listed(context, option, values)
    if wrong := [word for word in words if not word.isascii() or not word.isdigit()]:
        raise InputError("bad-options", f"{option.opts[0]} {wrong[0]}: give whole numbers, as in 1,5,10")
    return list(dict.fromkeys(map(int, words)))


@dataclass(frozen=True)
class StressOptions:
    """What is asked of a stress test beside changes and calibration."""

    labels: list[int]
    open_set: list[str]
    multiple: int
    other: list[str]
    device: str


@cli.command(
    epilog=examples(
        "bench stress 1f0c22",
        "bench stress 1f0c22 --labels 1,5,10,20 --open-set all",
        "bench stress 1f0c22 --other elsewhere/service",
    )
)
@click.argument("run")
@grouped("asked", StressOptions,
         click.option("--labels", multiple=True, callback=counts_listed, metavar="K,...",
                      help="Fit anew on so many training samples of each class."),
         list_option("--open-set", "open_set", metavar="CLASS,...",
                     help="Fit anew without this class and tell it from the others by confidence; all: each in turn."),
         click.option("--pad", "multiple", default=128, show_default=True, metavar="BYTES",
                      help="Pad packets to multiples of so many bytes."),
         list_option("--other", "other", metavar="DATASET[/TASK],...",
                     help="Also ask about another prepared data set, by its classes of the same names."),
         device_option)  # fmt: skip
@click.option("--method", "named", multiple=True, callback=methods_named, metavar="FILE.py:CLASS",
              help="The file of the run's method, which you name: no results folder can make a file run.")  # fmt: skip
@form_options
@results_option
def stress(run: str, asked: StressOptions, named: list[str], form: str, results: Path) -> None:
    """Test how a run's fitted method fails: header fields, server names, padding, lost packets; and its calibration.

    Test samples alone are changed; the method stays as it was fitted. --labels and --open-set fit it anew.
    """
    from bench.stress.stress import StressRequest, stress

    check_device(asked.device)
    others = tuple(map(_other_dataset, asked.other))
    request = StressRequest(tuple(asked.labels), tuple(asked.open_set), asked.multiple, asked.device, others)
    record = runs_in(results).load(run)
    from bench.stress.stress_tables import stress_text

    done = stress(record, found(record.spec.dataset), request, named, note)
    click.echo(stress_text(done, form))  # first: it may have taken hours, and the folder may be on a read-only disk
    note(f"saved as {done.with_earlier(results).save(results)}")


def _other_dataset(word: str) -> "tuple[Store, str]":
    """The store and the task, empty where none is named, of DATASET[/TASK]; DATASET may be a folder."""
    dataset, slash, task = word.rpartition("/")
    return (found(dataset), task) if slash and not typed_path(word).exists() else (found(word), "")


def schemes_listed(context: click.Context, option: click.Parameter, values: Sequence[str]) -> list[str]:
    """`-x a,b -x c,d:e,f` as [a, b, c, "d:e,f"], each once: from a colon on, all belongs to one split."""
    schemes = []
    for value in values:
        plain, colon, pattern = value.partition(":")
        *names, last = plain.split(",")
        schemes += [*names, last + colon + pattern]
    found = list(dict.fromkeys(name.strip() for name in schemes if name.strip()))
    return found if found else listed(context, option, values)


@dataclass(frozen=True)
class AuditOptions:
    """What an audit looks at."""

    task: str | None
    schemes: list[str]
    methods: list[str]
    seed: int
    jobs: int
    no_runs: bool


@cli.command(epilog=examples("bench audit demo", "bench audit demo --split session,capture --method fsnet --no-runs"))
@click.argument("dataset")
@grouped("asked", AuditOptions,
         click.option("--task", help="Task of the data set; its default task if not given."),
         click.option("--split", "schemes", multiple=True, callback=schemes_listed, metavar="S,...",
                      help="session,capture,paper by default; attribute:NAME=PATTERN may contain commas: put it last, "
                           "or in a --split of its own."),
         click.option("--method", "methods", multiple=True, callback=methods_named, metavar="M,...",
                      help="Tell the ceilings of these methods' inputs too; those of finished runs are told anyway, of "
                           "a FILE.py:CLASS only if it is named here."),
         click.option("--seed", default=0, show_default=True, help="Seed of all draws, for splits and baselines."),
         click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Baselines at once."),
         click.option("--no-runs", is_flag=True,
                      help="Do not run the baselines; show only finished ones."))  # fmt: skip
@sample_options
@download_option
@results_option
@json_option
def audit(dataset: str, asked: AuditOptions, samples: SampleOptions, results: Path, as_json: bool) -> None:
    """Show what a data set gives away: copies, equal inputs of different classes, shortcuts, what splits share."""
    spec = SplitSpec.typed("auto", filter=samples.filter, sampling=samples.sampling)
    for scheme in asked.schemes:
        check_scheme(scheme)
    check_words(asked.methods, [dataset], asked.task, spec, Settings())
    check_runs_store(results)
    from bench.analysis.audit import AuditRequest, audit_dataset, save
    from bench.analysis.audit_tables import audit_text

    request = AuditRequest(
        schemes=tuple(asked.schemes) or ("session", "capture", "paper"),
        methods=tuple(asked.methods),
        run_baselines=not asked.no_runs,
        seed=asked.seed,
        jobs=asked.jobs,
        options=samples.fields,
    )
    store = opened(dataset)
    check_classes(store, asked.task, spec, strict=False)
    record = audit_dataset(
        store,
        asked.task or store.default_task,
        runs_into(results),
        request,
        note,
    )
    note(f"saved as {save(record, results)}")
    emit(as_json, record.to_dict(), audit_text(record))
