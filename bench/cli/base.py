"""What the commands share: the group, options, and how things are printed."""

import dataclasses
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import click

from bench import __version__
from bench.cli.help import Choice, Command, Program, grouped, hinted, list_option, listed, pairs
from bench.cli.progress import ALWAYS, DETAIL, NOTE, loudness
from bench.errors import InputError, instead, near
from bench.ingest.options import CLIENT_RULES, PACKET_FILTERS, SESSION_RULES, TUNNELS, IngestOptions
from bench.render.table import Table, json_text, one_line, render, to_dict
from bench.spec import BALANCES, FILTERS, PROTOCOLS, SAMPLING_SYNTAX, RunSpec, Settings, SplitSpec
from bench.tracking.address import RESULTS

if TYPE_CHECKING:
    from bench.data.cards import Card
    from bench.data.store import Store
    from bench.suites.suite import Suite
    from bench.tracking.tracker import Tracker


def emit(as_json: bool, data: Any, text: str) -> None:
    """Print the text, or with ``--json`` the data."""
    click.echo(json_text(data) if as_json else hinted(text))


def print_table(table: Table, form: str) -> None:
    """Print a table in a form of `bench.render.table`."""
    click.echo(render(table.reworded(hinted), form))


def print_tables(tables: Sequence[Table], form: str) -> None:
    """Print several tables, in JSON as one object, however many they are."""
    if form == "json":
        emit(True, {"tables": [to_dict(table.reworded(hinted)) for table in tables]}, "")
    else:
        click.echo("\n".join(render(table.reworded(hinted), form) for table in tables))


def tell(line: str, level: int = ALWAYS) -> None:
    """Print a line on standard error: one line, whatever names are in it; a `NOTE` not with -q, a `DETAIL` with -v."""
    if loudness() >= level:
        click.echo(one_line(hinted(line)), err=True)


def note(line: str) -> None:
    """Tell of progress, or of how to go on; what begins with WARNING is said always."""
    tell(line, ALWAYS if line.startswith("WARNING") else NOTE)


#: the filter of whatever shows runs; `bench.tracking.selection` says what the words mean
which_runs: tuple[Command, ...] = (
    list_option("--method", "methods", metavar="M,...", help="Only these methods; mine also means mine.py:Mine."),
    list_option("--dataset", "datasets", metavar="D,...", help="Only these data sets, by name, card or folder."),
    click.option("--task", help="Only this task."),
    click.option("--split", metavar="S", help="Only this split: a scheme, or in full, like 'capture, 5 folds'."),
)


def method_named(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """A method as runs carry it: of a file the shortest path."""
    from bench.runs.registry import spelled

    return value and spelled(value)


def methods_named(context: click.Context, option: click.Parameter, values: Sequence[str]) -> list[str]:
    """`-x a,b -x c` as [a, b, c], each once, and as `method_named` has it."""
    from bench.runs.registry import spelled

    return list(dict.fromkeys(map(spelled, listed(context, option, values))))


_ingest_options: tuple[Command, ...] = (
    click.option("--idle-timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
                 help="Split a session after so long without a packet; never by default."),
    click.option("--sessions", type=Choice(SESSION_RULES), default="tcp", show_default=True,
                 help="tcp: a new connection on the same ports is a new session; 5tuple: it is not."),
    click.option("--client", type=Choice(CLIENT_RULES), default="handshake", show_default=True,
                 help="Who is the client if no handshake was captured: the sender of the first packet, or with ports "
                      "the side without a port below 1024, if there is one."),
    list_option("--decap", metavar="KIND,...",
                help=f"Read the packets inside tunnels instead of the tunnels: {', '.join(TUNNELS)}."),
    click.option("--drop-copies", type=click.FloatRange(min=0), metavar="MS",
                 help="Drop packets that repeat another packet of their session within so many milliseconds."),
    list_option("--filter", metavar="KIND,...",
                help=f"Drop packets of a kind: {', '.join(PACKET_FILTERS)}."),
    click.option("--by-vlan", is_flag=True, help="Treat the same end points in two VLANs as two sessions."),
)  # fmt: skip


ingest_options = grouped("ingest", IngestOptions, *_ingest_options)
results_option = click.option(
    "--results", type=click.Path(path_type=Path, file_okay=False), default=RESULTS, show_default=True,
    envvar="BENCH_RESULTS", show_envvar=True, help="Folder of the MLflow and Optuna databases.",
)  # fmt: skip


def runs_in(results: Path) -> "Tracker":
    """The store of runs of a results folder, for commands that only read it.

    Raises :class:`InputError` where there is none: a mistyped folder is told and not made.
    """
    return _there(results, reading=True)


def runs_to_change(results: Path) -> "Tracker":
    """The store of runs of a results folder, for commands that change what is there.

    Raises :class:`InputError` as :func:`runs_in` does.
    """
    return _there(results, reading=False)


def runs_beside(results: Path) -> "Tracker":
    """As :func:`runs_in`, where runs are only looked at beside something else: a folder without any is no mistake."""
    from bench.tracking.tracker import Tracker

    source = click.get_current_context().get_parameter_source("results")
    alone = source is click.core.ParameterSource.DEFAULT or results.is_dir()
    return Tracker(results, reading=True) if alone else runs_in(results)


def runs_into(results: Path) -> "Tracker":
    """The store of runs of a results folder, for commands that add to it; a line says if it is new."""
    from bench.tracking.tracker import Tracker

    tracker = Tracker(results)
    if not tracker.is_there:
        _tell_new(tracker)
    return tracker


@contextmanager
def proved_into(results: Path) -> Iterator["Tracker"]:
    """As `runs_into`, for commands that prove what they are given: what is refused makes no folder, and no line."""
    from bench.tracking.tracker import Tracker

    tracker = Tracker(results)
    is_new = not tracker.is_there
    yield tracker
    if is_new:
        _tell_new(tracker)


def _tell_new(tracker: "Tracker") -> None:
    note(f"{tracker.address.at}: a new results folder")


def _there(results: Path, *, reading: bool) -> "Tracker":
    from bench.tracking.address import near_results
    from bench.tracking.selection import NEW_RUN
    from bench.tracking.tracker import Tracker

    tracker = Tracker(results, reading=reading)
    if tracker.is_there:
        tell(f"reads the store of runs {tracker.address.shown}", DETAIL)
        return tracker
    near = near_results(tracker.address.folder)
    hint = f"did you mean {near}?" if near else f"name a folder by --results or BENCH_RESULTS; {NEW_RUN} makes one"
    raise InputError("no-results", f"there are no results in {tracker.address.at}; {hint}")


@dataclass(frozen=True)
class SampleOptions:
    """How sessions become samples, and how many of a class, as it was typed."""

    max_per_class: int | None
    min_per_class: int | None
    filter: str | None
    sampling: str | None
    balance: str | None
    min_groups: int | None

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of a `SplitSpec`: those that were typed."""
        typed = {field.name: getattr(self, field.name) for field in dataclasses.fields(SampleOptions)}
        return {name: value for name, value in typed.items() if value is not None}


_sample_options: tuple[Command, ...] = (
    click.option("--max-per-class", type=click.IntRange(min=1),
                 help="Reduced scale: at most N samples per class; with --split paper, N of each."),
    click.option("--min-per-class", type=click.IntRange(min=1), help="Leave out classes with fewer than N samples."),
    click.option("--min-groups", type=click.IntRange(min=1),
                 help="Leave out classes with fewer than N capture groups; 2 with --split capture, else 1."),
    click.option("--filter", "filter", show_default="none", metavar="F,...",
                 help=f"Sessions to leave out: {', '.join(FILTERS)}."),
    click.option("--sampling", show_default="session", help=f"What a sample is: {SAMPLING_SYNTAX}."),
    click.option("--balance", help=f"Balance the training part: {', '.join(BALANCES)}; paper resamples first."),
)  # fmt: skip
sample_options = grouped("samples", SampleOptions, *_sample_options)


@dataclass(frozen=True)
class SplitOptions(SampleOptions):
    """A split, as it was typed."""

    task: str | None
    scheme: str
    folds: int | None
    fold: int | None
    strict: bool

    def spec(self, *, seed: int = 0) -> SplitSpec:
        """The split.  Raises :class:`InputError` for what none can be."""
        return SplitSpec.typed(self.scheme, seed=seed, fold=self.fold, folds=self.folds, **self.fields)

    @property
    def of_one_fold(self) -> Self:
        """The same of the first fold, where there are several and none is named."""
        return self if self.folds is None or self.fold is not None else dataclasses.replace(self, fold=0)


split_options = grouped(
    "split", SplitOptions,
    click.option("--task", help="Task of the data set; its default task if not given; of a suite this one alone."),
    click.option("--split", "scheme", default="auto", show_default=True, metavar="S",
                 help="session, capture, capture+session, time, attribute:NAME, paper or random (leaky on purpose), "
                 f"file:PATH, or auto: capture if every class has enough capture groups, else session.  "
                 f"{', '.join(PROTOCOLS)} are random with that paper's samples and filter."),
    click.option("--folds", type=click.IntRange(min=2), help="Test on each of N groups of sessions in turn."),
    click.option("--fold", type=click.IntRange(min=0), help="Only this one of --folds, counted from 0."),
    *_sample_options,
    click.option("--strict", is_flag=True, help="Refuse a filter that leaves a class without sessions."),
)  # fmt: skip


settings_options = grouped(
    "settings", Settings,
    click.option("--preset", help="Named parameter values of the method."),
    click.option("--set", "values", multiple=True, callback=pairs, metavar="NAME=VALUE", help="Set a parameter."),
    click.option("--params", "file", type=click.Path(path_type=Path), metavar="FILE",
                 help="Read parameters from a JSON file, as `bench tune` writes it."),
    click.option("--epochs", type=click.IntRange(min=1), help="Training epochs; ignored by methods that have none."),
)  # fmt: skip


def check_runs_store(results: Path) -> None:
    """Refuse a store of runs that does not answer, before anything is computed for it."""
    from bench.tracking.address import address_of

    address_of(results).check()


device_option = click.option(
    "--device", default="cpu", show_default=True, help="Where torch computes: cpu, cuda, cuda:1."
)


#: with ``color`` click lets colours through also to what is no terminal: the guard writes them out, they are no text
#: that may vanish from a name
_SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 110, "color": True}


@click.group(cls=Program, context_settings=_SETTINGS)
@click.version_option(__version__, prog_name="bench")
def cli() -> None:
    """How well does each published encrypted-traffic classifier do, on the same traffic, under the same split?"""


def _allow_download(context: click.Context, option: click.Parameter, value: bool) -> None:
    context.meta[_DOWNLOAD] = value


_DOWNLOAD: Final = "bench.download"
download_option = click.option(
    "--download", is_flag=True, expose_value=False, callback=_allow_download,
    help="Fetch and prepare a data set that is missing, if its card says where from; on a terminal you are asked.",
)  # fmt: skip


def _fetched(card: "Card") -> bool:
    """Fetch and prepare a data set with downloads, if the user says so; whether that was done."""
    size = sum(one.bytes for one in card.downloads) / 1e6
    hosts = sorted({one.url.split("/")[2] for one in card.downloads})
    listed, _ = card.listed(card.choose({}))
    whole = card.expected.captures or len(listed)
    of = f" of {whole} captures" if whole > len(card.downloads) else ""
    what = f"{len(card.downloads)} files{of}, {size:,.0f} MB, from {', '.join(hosts)}; licence: {card.licence}"
    if not click.get_current_context().meta.get(_DOWNLOAD):
        if not sys.stdin.isatty() or not sys.stderr.isatty():
            return False
        if not click.confirm(f"{card.name} is not prepared. Fetch it? ({what})", err=True):
            return False
    note(f"{card.name}: {what}")
    from bench.cli.progress import DownloadProgress, PrepareProgress
    from bench.data.download import fetch
    from bench.data.prepare import prepare_dataset

    with DownloadProgress() as shown:
        folder = fetch(card, progress=shown)
    with PrepareProgress() as progress:
        prepare_dataset(card, folder, progress=progress)
    return True


def opened(dataset: str) -> "Store":
    """The store of a data set, fetched and prepared where that can be done unasked; its shortcomings are told."""
    from bench.cli.progress import PrepareProgress
    from bench.cli.text import made_of_records, shortcomings
    from bench.data.build import code_of_stores
    from bench.data.names import find_card
    from bench.data.prepare import open_dataset

    def open_() -> "Store":
        with PrepareProgress() as progress:
            return open_dataset(dataset, progress=progress, tell=tell)

    try:
        store = open_()
    except InputError as error:
        card = find_card(dataset) if error.code == "not-prepared" else None
        if card is None or not card.downloads:
            raise
        if not _fetched(card):
            raise error.with_remedy("or add --download, which fetches it") from None
        store = open_()
    if problems := shortcomings(store.manifest):
        tell(f"{store.name}: {problems}; `{store.command(word=dataset)}` lists them")
    if told := made_of_records(store.manifest):
        tell(told)
    if (code := code_of_stores()) != store.manifest.code:
        tell(other_code(dataset, store, code))
    tell(f"reads {store.path}: {store.manifest.sessions} sessions, digest {store.digest[:8]}", DETAIL)
    return store


def found(dataset: str) -> "Store":
    """The store of a data set that is prepared; nothing is written."""
    from bench.data.names import find_card
    from bench.data.store import Store

    return Store.find(find_card(dataset).name, word=dataset)


def other_code(dataset: str, store: "Store", now: str) -> str:
    """A line: a store was made by other code than the current one, with the command that makes it again."""
    command = store.command("--rebuild", word=dataset)
    remedy = f"`{command}` makes it again; if its content stays the same, finished runs stay valid"
    bare = "" if store.manifest.columns else " that kept no checksums of its columns"
    made = f"its store was made by other code ({store.manifest.code or 'unknown'}, now {now}){bare}"
    return f"{store.name}: {made}; {remedy}"


def check_classes(store: "Store", task: str | None, split: SplitSpec, strict: bool) -> None:
    """Tell loudly of classes that filter and sampling empty, or refuse them."""
    from bench.splits.split import emptied_classes

    task = task or store.default_task
    asked = {"filter": split.filtering, "sampling": split.sampling, "min-groups": split.least_groups}
    words = [f"--{name} {value}" for name, value in asked.items() if value not in ("none", "session", 1)]
    if not words or not (lost := emptied_classes(store, task, split)):
        return
    what = f"{' '.join(words)} (split {split.scheme}) leaves no sample of {', '.join(lost)}"
    if strict:
        remedy = "change the options, or leave out --strict: the task then loses them"
        raise InputError("emptied-class", f"{store.name}, task {task}: {what}; {remedy}")
    of = len(store.classes(task))
    tell(f"WARNING: {store.name}, task {task}: {what}; the task loses {len(lost)} of {of} classes")


def settle(store: "Store", task: str | None, split: SplitSpec) -> SplitSpec:
    """The split that is meant on a store; where that is not by capture, why is told."""
    from bench.splits.groups import settled
    from bench.splits.split import check_request

    task = task or store.default_task
    store.classes(task)
    spec, why = settled(store, task, split)
    check_request(store, task, spec)  # what cannot be needs no advice
    if why:
        tell(why)
    return spec


def check_task(dataset: str, task: str | None) -> "Card":
    """The card of a data set; refuses one that there is not, and a task that it does not have.  Asks no store."""
    from bench.data.names import find_card

    card = find_card(dataset)
    if task is not None and task not in card.tasks:
        raise InputError("unknown-task", f"{card.name} has no task {task!r}; {instead(task, card.tasks)}")
    return card


def check_words(
    methods: Sequence[str], datasets: Sequence[str], task: str | None, split: SplitSpec, settings: Settings
) -> dict[str, dict[str, Any]]:
    """Refuse what no data set can mend, before anything is fetched, prepared or computed; parameters by method."""
    from bench.runs.registry import describe, twins

    for method in methods:
        describe(method)
        for twin in twins(method):
            tell(f"{method} is the shipped method; that of {twin.package} {twin.reason}")
    words: dict[str, str] = {}
    for dataset in datasets:
        name = check_task(dataset, task).name
        if (other := words.setdefault(name, dataset)) != dataset:
            command = shlex.join(["bench", "prepare", dataset, "--name", "NAME"])
            what = f"{other} and {dataset} have the same name, {name}, and would share a store"
            raise InputError("same-name", f"{what}; leave one out, or give a folder another name: `{command}`")
    from bench.runs.plan import settled_words

    _, parameters, _ = settled_words(methods, split, settings)
    return parameters


def specs_of(
    methods: list[str],
    datasets: list[str],
    split: SplitOptions,
    settings: Settings,
    seeds: Sequence[int],
    *,
    open_: Callable[[str], "Store"] | None = None,
) -> list[RunSpec]:
    """The matrix that the options ask for; ``open_`` gives the store of a data set, `opened` by default."""
    asked = split.spec()
    check_words(methods, datasets, split.task, asked, settings)
    from bench.runs.plan import expand

    stores = [(open_ or opened)(dataset) for dataset in datasets]
    for store in stores:
        check_classes(store, split.task, settle(store, split.task, asked), split.strict)
    return expand(methods, stores, asked, task=split.task, seeds=seeds, settings=settings)


def suite_option(help_: str) -> Command:
    """``--suite``, or ``--plan``: a name or a file."""
    return click.option("--suite", "--plan", "suite", metavar="NAME|FILE.toml", help=help_)


def suite_named(word: str | None) -> "Suite | None":
    """The suite that is meant, None where none is asked for."""
    if word is None:
        return None
    from bench.suites.suite import read_suite

    return read_suite(word)


#: what a suite says itself, by the name of the parameter of a command
_OF_SUITES: Final = ("scheme", "folds", "fold", "strict", "seed", "seeds", "preset", "values", "file", "epochs",
                     *(field.name for field in dataclasses.fields(SampleOptions)))  # fmt: skip


def suite_specs(
    suite: "Suite", methods: list[str], datasets: list[str], task: str | None, open_: Callable[[str], "Store"]
) -> list[RunSpec]:
    """The matrix of a suite.  Refuses options that the suite answers itself."""
    context = click.get_current_context()
    given = {
        option.opts[0]
        for option in context.command.params
        if option.name in _OF_SUITES
        and context.get_parameter_source(option.name) is click.core.ParameterSource.COMMANDLINE
    }
    if given:
        what = f"a suite says itself what {', '.join(sorted(given))} would say"
        raise InputError("bad-options", f"{what}; leave it out, or change the suite's file")
    from bench.suites.contents import cells, chosen_portions

    for one in (portions := chosen_portions(suite, datasets, task)):
        with suite.at(one):
            check_task(one.name, one.task)
    specs = cells(suite, open_, methods, datasets, task)
    for one in portions:
        check_classes(open_(one.name), one.task, next(filter(one.is_of, specs)).split, strict=False)
    return specs


def check_device(device: str) -> None:
    """Refuse a device that torch does not have; asked only where it is not the processor."""
    if device == "cpu":
        return
    if not re.fullmatch(r"cuda(:\d+)?|cpu:0", device):  # before torch, which takes seconds
        what = "neither a processor nor a CUDA card"
        remedy = "did you mean cuda?" if near(device, ("gpu", "cuda", "nvidia")) else "give cpu, cuda or cuda:N"
        raise InputError("bad-device", f"--device {device}: {what}; {remedy}")
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError("bad-device", f"--device {device}: {reason}; give cpu, cuda or cuda:N") from None
