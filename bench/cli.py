"""The command line: parse, call, print.

Heavy packages are imported inside the commands, so that `bench --help` and the listing commands stay quick.
Results go to standard output (one JSON object with ``--json``), progress and warnings to standard error.
Exit status: 0 done, 1 some runs failed, 2 bad input (one line), 130 interrupted.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench import __version__
from bench.errors import InputError
from bench.text import brief, columns, outcome_table, outline, parameter_table, shortcomings

if TYPE_CHECKING:
    from bench.store import Store

Command = Callable[..., Any]
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")


def main() -> None:
    """Entry point of `bench`: turns bad input into one line and an exit status."""
    try:
        status = cli.main(standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except InputError as error:
        _fail(str(error), 2)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "bench"
        _fail(f"{error.format_message()} (see {command} --help)", 2)
    except click.ClickException as error:
        _fail(error.format_message(), 2)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted; the same command goes on where it stopped", 130)
    except BrokenPipeError:  # `bench table | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # a folder that cannot be written, a full disk, a name that is too long
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror or error}; nothing was left half done, mend it and run the command again", 2)


def _fail(message: str, status: int) -> None:
    click.echo("bench: " + " ".join(message.split()), err=True)
    sys.exit(status)


def _emit(as_json: bool, data: Any, text: str) -> None:
    click.echo(json.dumps(data, indent=1) if as_json else text)


def _listed(context: click.Context, option: click.Parameter, values: Sequence[str]) -> list[str]:
    """`-x a,b -x c` as [a, b, c], each once."""
    return list(dict.fromkeys(name.strip() for value in values for name in value.split(",") if name.strip()))


def _pairs(context: click.Context, option: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """`-x k=v -x l=w` as a dict."""
    for value in values:
        if "=" not in value:
            raise InputError(f"--{option.name} {value!r}: expected name=value")
    return dict(value.split("=", 1) for value in values)


def _options(*options: Command) -> Command:
    """Several click options as one decorator."""

    def apply(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return apply


results_option = click.option(
    "--results", type=click.Path(path_type=Path, file_okay=False), default=Path("results"), show_default=True,
    help="Folder of the MLflow and Optuna databases.",
)  # fmt: skip
split_options = _options(
    click.option("--task", help="The data set's task; its default one where not given."),
    click.option("--split", "scheme", default="session", show_default=True, metavar="S",
                 help="session, capture, time, or file:PATH."),
    click.option("--folds", type=click.IntRange(min=2), help="Test on each of N groups of sessions in turn."),
    click.option("--max-per-class", type=click.IntRange(min=1), help="Reduced scale: at most N sessions a class."),
)  # fmt: skip
training_options = _options(
    click.option("--preset", help="Named parameter values of the method."),
    click.option("--set", "set", multiple=True, callback=_pairs, metavar="NAME=VALUE", help="Set a parameter."),
    click.option("--params", "params_file", type=click.Path(path_type=Path), metavar="FILE",
                 help="Parameters from a JSON file, as `bench tune` writes it."),
    click.option("--epochs", type=click.IntRange(min=1), help="Training epochs; ignored by methods without."),
    click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1."),
)  # fmt: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="bench")
def cli() -> None:
    """How well does each published encrypted-traffic classifier do, on the same traffic, under the same split?"""


# --- what there is


@cli.command()
@click.argument("name", required=False)
@json_option
def datasets(name: str | None, as_json: bool) -> None:
    """List the data sets, or show one card in full."""
    from bench.cards import card_names, describe_card, find_card

    if name is None:
        cards = {n: find_card(n) for n in card_names()}
        rows = [{"name": n, "title": c.title, "tasks": list(c.tasks), "licence": c.licence} for n, c in cards.items()]
        text = columns([(name, ", ".join(card.tasks), card.title) for name, card in cards.items()])
        _emit(as_json, {"datasets": rows}, text)
    else:
        card = describe_card(find_card(name))
        _emit(as_json, card, outline(card))


@cli.command()
@click.argument("name", required=False)
@json_option
def methods(name: str | None, as_json: bool) -> None:
    """List the methods, or show one with its parameters."""
    from bench import registry

    if name is None:
        rows = [registry.describe(n) for n in registry.names()]
        text = columns([(row.name, row.family, row.title) for row in rows])
        _emit(as_json, {"methods": [row.to_dict() for row in rows]}, text)
    else:
        method = registry.describe(name).to_dict()
        head = {key: value for key, value in method.items() if key != "parameters"}
        _emit(as_json, method, f"{outline(head)}\n{parameter_table(method['parameters'])}")


# --- from captures to samples


@cli.command()
@click.argument("captures", nargs=-1, required=True, type=click.Path(path_type=Path))
@json_option
def inspect(captures: Sequence[Path], as_json: bool) -> None:
    """What the ingest sees in each capture."""
    from bench.ingest import inspect as inspect_capture

    seen = [inspect_capture(path) for path in captures]
    text = "\n\n".join(outline(capture) for capture in seen)
    _emit(as_json, {"captures": seen}, text)


@cli.command()
@click.argument("dataset")
@click.option("--source", type=click.Path(path_type=Path), help="Folder of the captures.")
@click.option(
    "--idle-timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Cut a session where no packet comes for so long; none by default.",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Captures read at once; one a core by default.")
@json_option
def prepare(dataset: str, source: Path | None, idle_timeout: float | None, jobs: int | None, as_json: bool) -> None:
    """Check captures against the card, read them once, write the session store."""
    from bench.prepare import prepare_dataset
    from bench.progress import PrepareProgress

    with PrepareProgress() as progress:
        prepared = prepare_dataset(dataset, source, idle_timeout=idle_timeout, jobs=jobs, progress=progress)
    state = "unchanged, nothing done" if prepared.unchanged else "written"
    data = {"store": str(prepared.store_path), "unchanged": prepared.unchanged, **prepared.report}
    _emit(as_json, data, f"{prepared.store_path}: {state}\n{outline(brief(prepared.report))}")


@cli.command()
@click.argument("dataset")
@split_options
@click.option("--seed", default=0, show_default=True)
@click.option("--fold", type=click.IntRange(min=0), help="With --folds: the fold to make, from 0.")
@click.option("--save", type=click.Path(path_type=Path), help="Write the split to a file for --split file:PATH.")
@json_option
def split(dataset: str, task: str | None, scheme: str, folds: int | None, max_per_class: int | None,
          seed: int, fold: int | None, save: Path | None, as_json: bool) -> None:  # fmt: skip
    """Make a split, prove that no group stands in two parts, describe and save it."""
    from bench.splits import make_split

    store = _store(dataset)
    name, file = _scheme(scheme)
    made = make_split(store, task or store.default_task, name, seed=seed, fold=fold if folds is None else fold or 0,
                      folds=folds, max_per_class=max_per_class, file=file)  # fmt: skip
    if save is not None:
        made.save(save)
    summary = made.summary()
    _emit(as_json, summary, outline(summary))


def _scheme(text: str) -> tuple[str, Path | None]:
    """`file:PATH` as ("file", PATH), anything else as it is."""
    if text.startswith("file:"):
        return "file", Path(text.removeprefix("file:"))
    return text, None


def _store(dataset: str) -> "Store":
    from bench.prepare import open_dataset
    from bench.progress import PrepareProgress

    with PrepareProgress() as progress:
        store = open_dataset(dataset, progress=progress)
    if told := shortcomings(store.manifest):
        click.echo(f"{store.name}: {told}; `bench prepare {dataset}` lists them", err=True)
    return store


# --- runs


@cli.command()
@click.option(
    "--method",
    "names",
    multiple=True,
    required=True,
    callback=_listed,
    metavar="M,...",
    help="Methods, by name or FILE.py:CLASS.",
)
@click.option(
    "--dataset",
    "dataset_names",
    multiple=True,
    required=True,
    callback=_listed,
    metavar="D,...",
    help="Data sets, by name, card or folder.",
)
@split_options
@click.option("--seed", type=int, help="One seed; 0 by default.")
@click.option("--seeds", type=click.IntRange(min=1), help="Seeds 0 to N-1.")
@training_options
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Runs at once.")
@click.option("--rerun", is_flag=True, help="Compute again what is done.")
@results_option
@json_option
def run(names: list[str], dataset_names: list[str], scheme: str, seed: int | None,
        seeds: int | None, jobs: int, rerun: bool, device: str, results: Path, as_json: bool,
        **asked: Any) -> int:  # fmt: skip
    """Run methods on data sets, all on the same split; finished runs are not run again."""
    from bench.progress import RunProgress
    from bench.runs import run_matrix
    from bench.tracking import Tracker

    if seed is not None and seeds is not None:
        raise InputError("--seed and --seeds exclude each other; give one")
    _check_device(device)
    specs = _specs(names, dataset_names, scheme, range(seeds) if seeds else [seed or 0], asked)
    outcomes = []
    if jobs > 1:
        click.echo(f"{len(specs)} runs, {jobs} at once; each is told when it ends", err=True)
    with RunProgress(len(specs)) as progress:
        for outcome in run_matrix(specs, Tracker(results), jobs=jobs, device=device, progress=progress, rerun=rerun):
            progress.outcome(outcome)
            outcomes.append(outcome)
    order = {spec.digest: number for number, spec in enumerate(specs)}
    outcomes.sort(key=lambda outcome: order[outcome.spec.digest])
    _emit(as_json, {"runs": [outcome.to_dict() for outcome in outcomes]}, outcome_table(outcomes))
    return int(any(outcome.status == "failed" for outcome in outcomes))


def _specs(
    names: list[str], datasets: list[str], scheme: str, seeds: Sequence[int], asked: dict[str, Any]
) -> list[Any]:
    """The matrix that the options ask for; parameters from a preset, then a file, then ``--set``."""
    from bench.runs import expand

    split, file = _scheme(scheme)
    values = dict(asked["set"])
    if asked["params_file"] is not None:
        if len(names) != 1:
            raise InputError("--params holds the parameters of one method; give one --method")
        from bench.parameters import read_parameters

        values = read_parameters(asked["params_file"], names[0]) | values
    stores = [_store(dataset) for dataset in datasets]
    if len({store.name for store in stores}) < len(stores):
        raise InputError("two data sets have one name, and so one store; rename a folder, or run one after the other")
    return expand(names, stores, task=asked["task"], split=split, split_file=file, seeds=seeds, folds=asked["folds"],
                  max_per_class=asked["max_per_class"], values=values, preset=asked["preset"],
                  epochs=asked["epochs"])  # fmt: skip


def _check_device(device: str) -> None:
    """Refuse a device that torch does not have; asked only where it is not the processor."""
    if device == "cpu":
        return
    import torch

    try:
        known = torch.empty(0, device=device).device.type in ("cpu", "cuda")
        reason = "not a processor or a CUDA card"
    except (RuntimeError, AssertionError) as error:
        known, reason = False, str(error).splitlines()[0]
    if not known:
        raise InputError(f"--device {device}: {reason}; give cpu, cuda or cuda:N")


@cli.command()
@click.option("--method", required=True, help="Method, by name or FILE.py:CLASS.")
@click.option("--dataset", required=True, help="Data set, by name, card or folder.")
@split_options
@click.option("--seed", default=0, show_default=True)
@click.option("--fold", type=click.IntRange(min=0), help="With --folds: the fold to search on, from 0.")
@click.option(
    "--param",
    "params",
    multiple=True,
    callback=_pairs,
    metavar="NAME=SPACE",
    help="4,9,16 or 1:800:20 or 0.1:0.6 or 1e-4:1e-3:log; the method's own spaces by default.",
)
@click.option("--trials", type=click.IntRange(min=1), help="Finished trials to reach: 20, or the whole grid.")
@click.option("--sampler", default="tpe", show_default=True, help="tpe or grid.")
@click.option("--no-prune", is_flag=True, help="Let bad trials train to the end.")
@click.option("--storage", help="Database URL of the study; a SQLite file in --results by default.")
@training_options
@results_option
@json_option
def tune(method: str, dataset: str, scheme: str, seed: int, fold: int | None, params: dict[str, str],
         trials: int | None, sampler: str, no_prune: bool, storage: str | None, device: str, results: Path,
         as_json: bool, **asked: Any) -> None:  # fmt: skip
    """Search parameters with Optuna, by macro-F1 on the validation part; a study goes on where it stopped."""
    _check_device(device)
    specs = _specs([method], [dataset], scheme, [seed], asked)
    if (fold or 0) >= len(specs):
        raise InputError(f"--fold {fold}: there are {len(specs)} folds, counted from 0; see --folds")

    from bench.tracking import Tracker
    from bench.tuning import Search, spaces_for, tune

    search = Search(specs[fold or 0], spaces_for(method, params), sampler, prune=not no_prune)
    results.mkdir(parents=True, exist_ok=True)
    url = storage or f"sqlite:///{(results / 'optuna.db').absolute()}"
    summary = tune(search, Tracker(results), storage=url, trials=trials, device=device, results=results,
                   progress=lambda line: click.echo(line, err=True))  # fmt: skip
    best = summary["best"]
    text = f"study {summary['study']}: {len(summary['trials'])} trials"
    if best:
        text += f"\nbest validation macro-F1 {best['value']:.4f} (trial {best['trial']})\n{outline(best['parameters'])}"
        text += f"\nbench run --method {method} --dataset {dataset} --params {summary['file']}"
    _emit(as_json, summary, text)


@cli.command()
@click.argument("method")
@json_option
def check(method: str, as_json: bool) -> int:
    """Hold a method (by name or FILE.py:CLASS) against the contract."""
    from bench.conformance import check

    checks = check(method)
    lines = [f"{'ok  ' if c.passed else 'FAIL'} {c.name}{': ' + c.detail if c.detail else ''}" for c in checks]
    failed = sum(not c.passed for c in checks)
    lines.append(f"{len(checks) - failed} passed, {failed} failed")
    _emit(as_json, {"method": method, "checks": [dataclasses.asdict(c) for c in checks]}, "\n".join(lines))
    return int(failed > 0)


# --- what runs found


@cli.command()
@click.option("--method", "methods", multiple=True, callback=_listed, metavar="M,...", help="Only these methods.")
@click.option("--dataset", "datasets", multiple=True, callback=_listed, metavar="D,...", help="Only these data sets.")
@click.option("--task", help="Only this task.")
@click.option("--split", help="Only this split scheme.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    callback=_listed,
    metavar="NAME,...",
    help="Columns; accuracy, macro precision, recall and F1, and seconds by default.",
)
@click.option("--columns", "spread", help="Spread the first metric over dataset, task or split.")
@click.option("--format", "form", default="text", show_default=True, help="text, md, csv or json.")
@click.option("--deviations", is_flag=True, help="Add how each method deviates from its paper.")
@results_option
@json_option
def table(methods: list[str], datasets: list[str], task: str | None, split: str | None, metrics: list[str],
          spread: str | None, form: str, deviations: bool, results: Path, as_json: bool) -> None:  # fmt: skip
    """A table of runs: mean and standard deviation over seeds and folds, or a value with its 95 % interval."""
    from bench import tables
    from bench.tracking import Tracker

    records = Tracker(results).search(method=methods or None, dataset=datasets or None, task=task, split=split)
    known = {name for record in records for name in record.metrics} or set(metrics)
    if unknown := [name for name in metrics if name not in known]:
        raise InputError(f"--metric {unknown[0]}: no run has it; there are: {', '.join(sorted(known))}")
    form = "json" if as_json else form
    click.echo(tables.table(records, metrics=metrics or tables.COLUMNS, columns=spread, format=form,
                            footnotes=deviations))  # fmt: skip


@cli.command()
@click.argument("runs", nargs=2, metavar="RUN RUN")
@click.option("--pool", is_flag=True, help="Take in all seeds and folds of each.")
@results_option
@json_option
def compare(runs: tuple[str, str], pool: bool, results: Path, as_json: bool) -> None:
    """Two runs on the same test sessions: paired bootstrap over groups, and McNemar's test."""
    from bench import tables
    from bench.tracking import Tracker

    tracker = Tracker(results)
    sides = [[tracker.load(run)] for run in runs]
    if pool:
        everything = tracker.search()
        sides = [[tracker.load(r.run_id) for r in tables.siblings(side[0], everything)] for side in sides]
    found = tables.compare(*sides)
    _emit(as_json, found, tables.compare_text(found))


@cli.command()
@click.argument("capture", type=click.Path(path_type=Path))
@click.option("--run", required=True, metavar="RUN", help="Id of a finished run, or the start of it.")
@results_option
@json_option
def classify(capture: Path, run: str, results: Path, as_json: bool) -> None:
    """Label the sessions of a new capture with the model of a run."""
    from bench.classify import classify, lines
    from bench.tracking import Tracker

    rows = classify(capture, Tracker(results).load(run))
    _emit(as_json, {"capture": str(capture), "run": run, "sessions": rows}, columns(lines(rows)))


@cli.command()
@click.option("--port", default=5000, show_default=True)
@results_option
def ui(port: int, results: Path) -> None:
    """Serve the MLflow page of all runs on the loopback address."""
    from bench.tracking import Tracker

    command = ["-m", "mlflow", "ui", "--backend-store-uri", Tracker(results).uri, "--host", "127.0.0.1"]
    click.echo(f"http://127.0.0.1:{port}", err=True)
    os.execv(sys.executable, [sys.executable, *command, "--port", str(port)])
