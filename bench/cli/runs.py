"""Commands that run methods or look at them."""

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.base import (
    SplitOptions,
    check_device,
    check_runs_store,
    check_words,
    cli,
    device_option,
    download_option,
    emit,
    found,
    method_named,
    methods_named,
    note,
    opened,
    print_table,
    results_option,
    runs_into,
    runs_to_change,
    settings_options,
    specs_of,
    split_options,
    suite_named,
    suite_option,
    suite_specs,
    tell,
)
from bench.cli.help import Choice, examples, grouped, json_option, list_option, pairs, seconds_of, words_of_results
from bench.cli.text import columns, next_steps, outcome_table, outline, parameter_table, plan_table, rows_of
from bench.environment import CPU
from bench.errors import InputError, counted
from bench.files import plain, typed_path
from bench.spec import RunSpec, Settings, command_lines

if TYPE_CHECKING:
    from bench.runs.execute import Outcome
    from bench.runs.plan import Plan
    from bench.suites.suite import Suite
    from bench.tracking.record import Record
    from bench.tracking.tracker import Tracker


@cli.command(epilog=examples("bench methods", "bench methods forest"))
@click.argument("name", required=False)
@json_option
def methods(name: str | None, as_json: bool) -> None:
    """List the methods, or show one with its parameters."""
    from bench.runs import registry

    if name is None:
        if as_json:
            outlines, faults = registry.seen(registry.describe)
            data = {"methods": [one.to_dict() for one in outlines.values()], "broken": list(map(plain, faults))}
            emit(as_json, data, "")
            return
        rows, faults = registry.seen(registry.summary)
        broken = [(one.name, "broken", f"{one.reason} [{one.package}]") for one in faults]
        click.echo(columns([*rows.values(), registry.FOREST_ON_ANY, *broken]))
    else:
        method = registry.describe(registry.spelled(name)).to_dict()
        head = {key: value for key, value in method.items() if key != "parameters"}
        head["presets"] = {  # a preset that takes a default away says so
            name: {key: "none" if value is None else value for key, value in values.items()}
            for name, values in method["presets"].items()
        }
        emit(as_json, method, f"{outline(head)}\n{parameter_table(method['parameters'])}")


@dataclass(frozen=True)
class CellOptions:
    """Which methods on which data sets, or which suite."""

    names: list[str]
    datasets: list[str]
    suite: str | None
    save_plan: Path | None

    def check(self) -> None:
        """Refuse what is missing, and a place where no plan can be written, before anything is prepared."""
        if self.suite is None:
            _check_both(self.names, self.datasets)
        if (file := self.save_plan) is not None and not file.parent.is_dir():
            raise InputError("unwritable-file", f"{file}: there is no folder {file.parent}; make it first")


@dataclass(frozen=True)
class MatrixOptions:
    """Which runs, how many at once, and where."""

    seed: int | None
    seeds: int | None
    jobs: int | None
    scheduler: str | None
    rerun: bool
    dry_run: bool
    budget: float | None
    device: str
    keep_models: str

    def check(self) -> None:
        """Refuse what does not go together or is not there, before anything is prepared."""
        if self.seed is not None and self.seeds is not None:
            raise InputError("bad-options", "--seed and --seeds exclude each other; give one")
        if self.scheduler is None:
            check_device(self.device)
            return
        if self.jobs is not None:
            raise InputError("bad-options", "--jobs is for this machine, --scheduler for a cluster; give one")
        from bench.matrix.cluster import check_scheduler

        check_scheduler(self.scheduler)


@cli.command(
    epilog=examples(
        "bench run --method forest,knn --dataset demo",
        "bench run --method mine.py:Mine --dataset captures/ --folds 5 --jobs 2",
        "bench run --method fsnet --preset shared --set batch_size=64 --dataset demo --seeds 3 --dry-run",
        "bench run --suite etc-2026 --dataset demo --budget 2h",
    )
)
@grouped("cells", CellOptions,
         click.option("--method", "names", multiple=True, callback=methods_named, metavar="M,...",
                      help="Methods, by name or FILE.py:CLASS; of a suite these alone, or others beside it."),
         list_option("--dataset", "datasets", metavar="D,...",
                     help="Data sets, by name, card or folder; of a suite these alone."),
         suite_option("Run what a suite asks for, by its name or its file; digests that differ are refused."),
         click.option("--save-plan", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.toml",
                      help="Write this matrix as a suite with digests of stores and splits, then run it."))  # fmt: skip
@split_options
@grouped("matrix", MatrixOptions,
         click.option("--seed", type=int, help="One seed; 0 by default."),
         click.option("--seeds", type=click.IntRange(min=1), help="Seeds 0 to N-1."),
         click.option("--jobs", type=click.IntRange(min=1),
                      help="Runs at once, each in its own process; one per core by default, if it takes minutes."),
         click.option("--scheduler", metavar="tcp://HOST:PORT", help="Run on a Dask cluster, one task per run."),
         click.option("--rerun", is_flag=True, help="Compute finished runs again."),
         click.option("--dry-run", is_flag=True, help="Show the plan and its cost; run nothing, write no run."),
         click.option("--budget", callback=seconds_of, metavar="TIME",
                      help="Start no run that would not finish within this time (8h, 90m, 45s); first seeds first."),
         device_option,
         click.option("--keep-models", type=Choice(("all", "best", "none")), default="all", show_default=True,
                      help="Fitted methods to store for `bench classify`: all (a forest takes 6 to 186 MB, a deep one "
                      "up to 47), none, or the best of each table row by validation macro-F1."))  # fmt: skip
@settings_options
@download_option
@results_option
@json_option
def run(
    cells: CellOptions,
    split: SplitOptions,
    matrix: MatrixOptions,
    settings: Settings,
    results: Path,
    as_json: bool,
) -> int:
    """Run methods on data sets, all on the same split; finished runs are not computed again."""
    matrix.check()
    check_runs_store(results)
    cells.check()
    open_ = found if matrix.dry_run else opened
    suite = suite_named(cells.suite)
    if suite is not None:
        _check_plan(suite, cells.save_plan)
        specs = suite_specs(suite, cells.names, cells.datasets, split.task, open_)
    else:
        seeds = range(matrix.seeds) if matrix.seeds else [matrix.seed or 0]
        specs = specs_of(cells.names, cells.datasets, split, settings, seeds, open_=open_)
    specs = [spec.on(matrix.device) for spec in specs]
    if cells.save_plan is not None:
        _save_plan(suite, cells.names, specs, cells.save_plan, matrix.device)
    from bench.render.table import render
    from bench.runs.plan import planned
    from bench.tracking.tracker import Tracker

    tracker = Tracker(results, reading=True) if matrix.dry_run else runs_into(results)
    plan = planned(specs, tracker, rerun=matrix.rerun, jobs=1 if matrix.scheduler else matrix.jobs)
    if matrix.dry_run:
        print_table(plan_table(plan, matrix.budget), "json" if as_json else "text")
        return 0
    outcomes = _executed(plan, tracker, matrix)
    done = list(tracker.finished_of([spec.digest for spec in plan.specs]).values())
    rows = rows_of(done)
    text = outcome_table(outcomes)
    if len(done) > len(rows.records):  # else it would say the same
        text = f"{text}\n\n{render(rows)}"
    emit(as_json, {"runs": [outcome.to_dict() for outcome in outcomes], "rows": list(rows.records)}, text)
    _tell_how_to_go_on(done, tracker)
    left = sum(outcome.status == "left" for outcome in outcomes)
    if left:
        tell(f"{left} of {len(outcomes)} runs are left; the same command continues with them")
    return 1 if any(outcome.status == "failed" for outcome in outcomes) else 3 * bool(left)


def _check_plan(suite: "Suite", path: Path | None) -> None:
    if path is not None and suite.path and path.exists() and path.samefile(suite.path):
        what = "is the suite that is read; it would hold no more than what is run now"
        raise InputError("bad-options", f"--save-plan {path}: {what}; name another file")


def _save_plan(
    suite: "Suite | None", methods: Sequence[str], specs: Sequence[RunSpec], path: Path, device: str
) -> None:
    """Write a matrix, or what is run of a suite, with the digests of this machine's stores and splits.

    It says what is run; the device, which is part of each run's identity, is the command's.
    """
    from bench.data.store import Store
    from bench.suites.contents import contenders_of, held, narrowed_to, suite_with_digests

    stores = {spec.dataset: Store.find(spec.dataset) for spec in specs}
    if suite is None:
        plan = suite_with_digests(path.stem, specs)
    else:
        asked = [one for one in suite.datasets if any(map(one.is_of, specs))]
        plan = held(narrowed_to(suite, asked, contenders_of(suite, methods)), stores)
    plan.save(path)
    words = ["bench", "run", "--suite", str(path), *([] if device == CPU else ["--device", device])]
    note(f"{path}: the plan; `{shlex.join(words)}` runs it anywhere")


def _check_both(names: Sequence[str], datasets: Sequence[str]) -> None:
    for option, given in (("--method", names), ("--dataset", datasets)):
        if not given:
            raise click.UsageError(f"Missing option '{option}', or '--suite' for both.", click.get_current_context())


def _tell_how_to_go_on(done: "Sequence[Record]", tracker: "Tracker") -> None:
    """Where runs that are done went, and commands for them."""
    if not done:
        return
    note(f"results are in {tracker.address.at}; next:")
    for line in next_steps(done, words_of_results()):
        note(f"  {line}")


def _executed(plan: "Plan", tracker: "Tracker", matrix: MatrixOptions) -> "list[Outcome]":
    """Outcomes of a matrix, in its order; each is told as it comes."""
    from bench.cli.progress import DETAIL, RunProgress
    from bench.matrix.cells import run_matrix
    from bench.runs.execute import RunOptions

    specs, outcomes = plan.specs, []
    where = f"on {matrix.scheduler}" if matrix.scheduler else f"{plan.jobs} at once" if plan.jobs > 1 else ""
    note(f"{counted(len(specs), 'run')}: {plan.words}" + (f"; {where}, each is reported when it ends" if where else ""))
    with RunProgress(len(specs), plan) as progress:
        options = RunOptions(
            matrix.device,
            matrix.rerun,
            progress,
            plan.jobs,
            budget=matrix.budget,
            forecast=plan.forecast,
            scheduler=matrix.scheduler,
            say=note,
            models=matrix.keep_models,
        )
        for outcome in run_matrix(specs, tracker, options):
            progress.outcome(outcome)
            outcomes.append(outcome)
            if outcome.status == "failed" and outcome.run_id:
                tell(f"  the trace is in {tracker.load(outcome.run_id).folder}/traceback.txt", DETAIL)
    order = {spec.digest: number for number, spec in enumerate(specs)}
    return sorted(outcomes, key=lambda outcome: order[outcome.spec.digest])


@cli.command(epilog=examples("bench sync"))
@results_option
@json_option
def sync(results: Path, as_json: bool) -> None:
    """Log finished runs that wait in --results because the store of runs was unreachable when they ended."""
    tracker = runs_to_change(results)
    logged = tracker.sync()
    for store in tracker.waiting_elsewhere():
        tell(f"other runs wait for {store}; name it in MLFLOW_TRACKING_URI and sync again")
    emit(
        as_json,
        {"logged": logged},
        "\n".join([*(f"logged {name}" for name in logged), f"{counted(len(logged), 'run')} logged"]),
    )


@dataclass(frozen=True)
class Searched:
    """Of what parameters are searched."""

    method: str | None
    dataset: str | None
    suite: str | None

    @property
    def methods(self) -> list[str]:
        """The method, if one is named."""
        return [self.method] if self.method else []

    @property
    def datasets(self) -> list[str]:
        """The data set, if one is named."""
        return [self.dataset] if self.dataset else []


@dataclass(frozen=True)
class StudyOptions:
    """What a study searches, and how."""

    seed: int
    param: dict[str, str]
    trials: int | None
    sampler: str
    no_prune: bool
    storage: str | None
    jobs: int
    device: str


@cli.command(
    epilog=examples(
        "bench tune --method knn --dataset demo --param neighbours=1,3,5 --sampler grid",
        "bench tune --suite etc-2026 --dataset demo --trials 5",
    )
)
@grouped("what", Searched,
         click.option("--method", callback=method_named,
                      help="Method, by name or FILE.py:CLASS; of a suite this one alone."),
         click.option("--dataset", help="Data set, by name, card or folder; of a suite this one alone."),
         suite_option("Search for every run of a suite in its own fold, then run it."))  # fmt: skip
@split_options
@grouped("study", StudyOptions,
         click.option("--seed", default=0, show_default=True, help="Seed of all random draws; --fold is 0 by default."),
         click.option("--param", multiple=True, callback=pairs, metavar="NAME=SPACE",
                      help="4,9,16 or 1:800:20 or 0.1:0.6 or 1e-4:1e-3:log; the method's own spaces by default."),
         click.option("--trials", type=click.IntRange(min=1), help="Finished trials to reach: 20, or the whole grid."),
         click.option("--sampler", default="tpe", show_default=True, type=Choice(["tpe", "grid"]),
                      help="How points are chosen: tpe learns from earlier trials, grid tries all."),
         click.option("--no-prune", is_flag=True, help="Do not stop bad trials early."),
         click.option("--storage",
                      help="Database URL of the study; else the PostgreSQL server of runs, or a file in --results."),
         click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Trials at once."),
         device_option)  # fmt: skip
@settings_options
@download_option
@results_option
@json_option
def tune(
    what: Searched,
    split: SplitOptions,
    study: StudyOptions,
    settings: Settings,
    results: Path,
    as_json: bool,
) -> int:
    """Search parameters with Optuna, by macro-F1 on the validation part; a stopped study continues."""
    from bench.runs.plan import chosen
    from bench.runs.registry import describe
    from bench.tracking.address import Address
    from bench.tuning.spaces import grid_values, spaces_for

    check_device(study.device)
    if what.suite is not None:
        return _tune_suite(what, split.task, study, results, as_json)
    _check_both(what.methods, what.datasets)
    (method,), (dataset,) = what.methods, what.datasets
    split = split.of_one_fold
    check_words([method], [dataset], split.task, split.spec(), settings)
    spaces = spaces_for(method, study.param, chosen(method, {method: describe(method)}, settings))
    if study.sampler == "grid":
        grid_values(spaces)
    Address(study.storage or "", results, "the storage of studies").check()
    (spec,) = specs_of([method], [dataset], split, settings, [study.seed])
    from bench.cli.text import study_text
    from bench.tuning.search import Search
    from bench.tuning.share import TuneOptions
    from bench.tuning.studies import storage_of
    from bench.tuning.study import check_runs, tune

    spec = spec.on(study.device)
    check_runs(spec)
    search = Search(spec, spaces, study.sampler, prune=not study.no_prune)
    tracker = runs_into(results)
    results.mkdir(parents=True, exist_ok=True)
    storage = storage_of(tracker, study.storage)
    summary = tune(search, tracker, TuneOptions(storage, results, study.trials, study.device, note, study.jobs))
    if summary["best"]:
        more = ["--params", summary["file"], *words_of_results()]
        (summary["command"],) = command_lines(dataclasses.replace(spec, dataset=dataset, parameters={}), more=more)
    emit(as_json, summary, study_text(summary))
    return 0


def _tune_suite(what: Searched, task: str | None, study: StudyOptions, results: Path, as_json: bool) -> int:
    """Tune every run of a suite and run it."""
    suite = suite_named(what.suite)
    assert suite is not None
    if study.param or study.sampler != "tpe":
        raise InputError(
            "bad-options", "a suite searches each method's own spaces by tpe; leave --param and --sampler out"
        )
    trials = study.trials or suite.trials
    if not trials:
        raise InputError("bad-options", f"{suite.name} says nothing of trials; give --trials")
    check_runs_store(results)
    specs = [spec.on(study.device) for spec in
             suite_specs(suite, what.methods, what.datasets, task, opened)]  # fmt: skip
    from bench.suites.contents import fixed_in
    from bench.tuning.nested import tune_each
    from bench.tuning.share import TuneOptions
    from bench.tuning.studies import storage_of

    tracker = runs_into(results)
    results.mkdir(parents=True, exist_ok=True)
    options = TuneOptions(storage_of(tracker, study.storage), results, trials, study.device, note, study.jobs)
    outcomes = []
    for outcome in tune_each(
        specs, tracker, options, prune=not study.no_prune, fixed=lambda spec: fixed_in(suite, spec)
    ):
        outcomes.append(outcome)
        note(f"  {outcome.status}" + (f": {outcome.reason}" if outcome.reason else ""))
    rows = rows_of(list(tracker.finished_of([one.spec.digest for one in outcomes]).values()))
    data = {"runs": [outcome.to_dict() for outcome in outcomes], "rows": list(rows.records)}
    emit(as_json, data, outcome_table(outcomes))
    return int(any(outcome.status == "failed" for outcome in outcomes))


@cli.command(epilog=examples("bench check forest", "bench check mine.py:Mine", "bench check my-card.toml"))
@click.argument("subject", metavar="METHOD|CARD")
@json_option
def check(subject: str, as_json: bool) -> int:
    """Check a method (by name or FILE.py:CLASS) against the contract, or a data set's card (a .toml file or a folder).

    A failure names the line of your file; checks that depend on it are skipped. Ends with status 1 if anything fails.
    """
    if subject.endswith(".toml") or typed_path(subject).is_dir():
        return _check_card(subject, as_json)
    from bench.conformance.checks import check
    from bench.runs.registry import spelled

    method = spelled(subject)
    checks = check(method)
    skipped = sum(bool(c.needs) for c in checks)
    failed = sum(not c.passed for c in checks) - skipped
    counts = f"{len(checks) - failed - skipped} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "")
    emit(as_json, {"method": method, "checks": [plain(c) for c in checks]}, "\n".join([*map(str, checks), counts]))
    return int(failed > 0)


def _check_card(subject: str, as_json: bool) -> int:
    """All that is wrong with a card, a line each."""
    from bench.data.names import find_card

    problems: list[str] = []
    try:
        card = find_card(subject)
        text = f"ok   {card.name}: tasks {', '.join(card.tasks)}; `bench prepare` checks it against captures"
    except InputError as error:
        if error.code not in ("bad-card", "bad-file-list"):
            raise
        problems = [one.removeprefix(f"{subject}: ") for one in error.problems]
        text = "\n".join([*(f"FAIL {one}" for one in problems), f"{subject}: {len(problems)} wrong"])
    emit(as_json, {"card": subject, "problems": problems}, text)
    return int(bool(problems))
