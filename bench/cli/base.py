"""What the commands share: the group, options, and how things are printed."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench import __version__
from bench.cli.text import shortcomings
from bench.errors import InputError
from bench.render.table import FORMATS

if TYPE_CHECKING:
    from bench.data.store import Store

Command = Callable[..., Any]
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
format_option = click.option(  # checked before anything is read or computed
    "--format", "form", type=click.Choice(list(FORMATS)), default="text", show_default=True, help="Form of the table."
)


def emit(as_json: bool, data: Any, text: str) -> None:
    """Print the text, or with ``--json`` the data."""
    click.echo(json.dumps(data, indent=1) if as_json else text)


def listed(context: click.Context, option: click.Parameter, values: Sequence[str]) -> list[str]:
    """`-x a,b -x c` as [a, b, c], each once."""
    return list(dict.fromkeys(name.strip() for value in values for name in value.split(",") if name.strip()))


def pairs(context: click.Context, option: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """`-x k=v -x l=w` as a dict."""
    for value in values:
        if "=" not in value:
            raise InputError(f"--{option.name} {value!r}: expected name=value")
    return dict(value.split("=", 1) for value in values)


def option_group(*options: Command) -> Command:
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
SAMPLES = ("filter", "sampling", "balance", "min_per_class")  # options that make samples of sessions
sample_options = option_group(
    click.option("--max-per-class", type=click.IntRange(min=1),
                 help="Reduced scale: at most N samples a class; under paper, N samples of each."),
    click.option("--min-per-class", type=click.IntRange(min=1), help="Leave out classes of fewer than N samples."),
    click.option("--filter", "filter", default="none", show_default=True, metavar="F,...",
                 help="Sessions to leave out: none, paper, sugar, dns, tcp."),
    click.option("--sampling", default="session", show_default=True,
                 help="Whole sessions, or window=16[,step=2][,stride=1][,per_session=10][,payload=no]."),
    click.option("--balance", help="Training part: keep, undersample, resample; paper resamples before its split."),
)  # fmt: skip
split_options = option_group(
    click.option("--task", help="The data set's task; its default one where not given."),
    click.option("--split", "scheme", default="session", show_default=True, metavar="S",
                 help="session, capture, time, attribute:NAME, paper (leaky on purpose), or file:PATH."),
    click.option("--folds", type=click.IntRange(min=2), help="Test on each of N groups of sessions in turn."),
    sample_options,
    click.option("--strict", is_flag=True, help="Refuse a filter that leaves a class without any session."),
)  # fmt: skip
training_options = option_group(
    click.option("--preset", help="Named parameter values of the method."),
    click.option("--set", "set", multiple=True, callback=pairs, metavar="NAME=VALUE", help="Set a parameter."),
    click.option("--params", "params_file", type=click.Path(path_type=Path), metavar="FILE",
                 help="Parameters from a JSON file, as `bench tune` writes it."),
    click.option("--epochs", type=click.IntRange(min=1), help="Training epochs; ignored by methods without."),
    click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1."),
)  # fmt: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="bench")
def cli() -> None:
    """How well does each published encrypted-traffic classifier do, on the same traffic, under the same split?"""


def scheme_of(text: str) -> tuple[str, Path | None]:
    """`file:PATH` as ("file", PATH), anything else as it is."""
    if text.startswith("file:"):
        return "file", Path(text.removeprefix("file:"))
    return text, None


def opened(dataset: str) -> "Store":
    """The store of a data set, prepared where that can be done unasked; its shortcomings are told."""
    from bench.cli.progress import PrepareProgress
    from bench.data.prepare import open_dataset

    with PrepareProgress() as progress:
        store = open_dataset(dataset, progress=progress)
    if told := shortcomings(store.manifest):
        click.echo(f"{store.name}: {told}; `bench prepare {dataset}` lists them", err=True)
    return store


def check_classes(store: "Store", task: str | None, filter: str, sampling: str, strict: bool) -> None:
    """Tell loudly of classes that filter and sampling empty, or refuse them."""
    from bench.splits.split import emptied

    task = task or store.default_task
    if (filter, sampling) == ("none", "session") or not (lost := emptied(store, task, filter, sampling)):
        return
    text = f"{store.name}, task {task}: --filter {filter} --sampling {sampling} leaves no sample of {', '.join(lost)}"
    if strict:
        raise InputError(f"{text}; take another filter, or leave --strict out and the task loses them")
    click.echo(f"WARNING: {text}; the task loses {len(lost)} of {len(store.classes(task))} classes", err=True)


def specs_of(
    names: list[str], datasets: list[str], scheme: str, seeds: Sequence[int], asked: dict[str, Any]
) -> list[Any]:
    """The matrix that the options ask for; parameters from a preset, then a file, then ``--set``."""
    from bench.runs.execute import expand

    split, file = scheme_of(scheme)
    values = dict(asked["set"])
    if asked["params_file"] is not None:
        if len(names) != 1:
            raise InputError("--params holds the parameters of one method; give one --method")
        from bench.runs.parameters import read_parameters

        values = read_parameters(asked["params_file"], names[0]) | values
    stores = [opened(dataset) for dataset in datasets]
    if len({store.name for store in stores}) < len(stores):
        raise InputError("two data sets have one name, and so one store; rename a folder, or run one after the other")
    for store in stores:
        check_classes(store, asked["task"], asked["filter"], asked["sampling"], asked["strict"])
    plain = {name: asked[name] for name in ("task", "folds", "max_per_class", "preset", "epochs", *SAMPLES)}
    return expand(names, stores, split=split, split_file=file, seeds=seeds, values=values, **plain)


def check_device(device: str) -> None:
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
