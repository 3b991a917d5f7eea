"""Values for a shell's completion: methods, data sets, splits, tables and figures, runs, presets.

A shell asks at every press of the key, so nothing heavy is imported; what goes wrong completes nothing.
"""

from collections.abc import Callable, Iterable
from typing import Final

import click
from click.shell_completion import CompletionItem, get_completion_class

from bench.cli.base import cli
from bench.cli.help import COMPLETION, Choice, examples
from bench.errors import InputError
from bench.spec import PROTOCOLS, SCHEMES
from bench.tracking.address import RESULTS

Values = Callable[[click.Context], Iterable[str]]
SHELLS: Final = ("bash", "zsh", "fish")
SHOWN: Final = 8  # letters of a run's id


@cli.command(epilog=examples("bench completion bash"))
@click.argument("shell", type=Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion script for a shell; eval "$(bench completion bash)" switches it on."""
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "bench", COMPLETION).source())


class Word(click.types.StringParamType):
    """A text for which values are known; the last of several, behind a comma, is completed."""

    def __init__(self, values: Values) -> None:
        self._values = values

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Known values that begin so; else files, which may stand in their place."""
        before, comma, begun = incomplete.rpartition(",")
        try:
            found = sorted({value for value in self._values(ctx) if value.startswith(begun)})
        except InputError:
            found = []
        listed = [CompletionItem(before + comma + value) for value in found]
        return listed or [CompletionItem(incomplete, type="file")]


def _methods(context: click.Context) -> Iterable[str]:
    from bench.runs.registry import names

    return names()


def _datasets(context: click.Context) -> Iterable[str]:
    """Shipped ones, prepared ones, and cards of the working folder."""
    from bench.data.cards import card_names, cards_here
    from bench.data.manifest import bench_home

    prepared = [path.parent.name for path in (bench_home() / "stores").glob("*/manifest.json")]
    return [*card_names(), *prepared, *map(str, cards_here())]


def _splits(context: click.Context) -> Iterable[str]:
    return [*(f"{name}:" if name in ("attribute", "file") else name for name in SCHEMES), *PROTOCOLS]


def _exhibits(context: click.Context) -> Iterable[str]:
    from bench.paper.declaration import find_paper

    return [experiment.id for experiment in find_paper(context.params.get("paper")).experiments]


def _runs(context: click.Context) -> Iterable[str]:
    from bench.tracking.tracker import Tracker

    results = context.params.get("results") or RESULTS
    return [run_id[:SHOWN] for run_id in Tracker(results, reading=True).ids()]


def _presets(context: click.Context) -> Iterable[str]:
    """Of the methods that are named before, else of all."""
    from bench.runs.registry import describe, names

    named = context.params.get("names") or context.params.get("method") or names()
    chosen = [named] if isinstance(named, str) else named
    return [preset for name in chosen for preset in describe(name).presets]


#: by what an argument or an option is called in the code of commands
VALUES: Final[dict[str, Values]] = {
    "method": _methods,
    "methods": _methods,
    "subject": _methods,
    "names": _methods,
    "dataset": _datasets,
    "datasets": _datasets,
    "scheme": _splits,
    "schemes": _splits,
    "split": _splits,
    "ids": _exhibits,
    "run": _runs,
    "runs": _runs,
    "preset": _presets,
}
#: of single commands
OF_COMMANDS: Final[dict[tuple[str, str], Values]] = {("methods", "name"): _methods, ("datasets", "name"): _datasets}


def teach(command: click.Command) -> None:
    """Let all texts of a command, and of those below it, for which values are known complete them."""
    for parameter in command.params:
        values = OF_COMMANDS.get((command.name or "", parameter.name or "")) or VALUES.get(parameter.name or "")
        if values is not None and parameter.type is click.STRING:
            parameter.type = Word(values)
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        teach(below)
