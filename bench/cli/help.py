"""How the command line shows itself: commands by the way of work, each with examples, and what there is in place of a
word that is none; and the bricks of which options are made.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import click

from bench.cli.progress import ALWAYS, DETAIL, LOUDNESS, guard
from bench.errors import InputError, instead
from bench.render.table import FORMATS
from bench.tracking.address import in_results, results_words

if TYPE_CHECKING:
    _Words = click.Choice[str]
else:  # before click 8.2 it takes no type
    _Words = click.Choice

COMPLETION: Final = "_BENCH_COMPLETE"  # variable by which click knows that a shell asks for words

#: the way of work: heading -> an example, and the commands, each with the module of `bench.cli` that it stands in
SECTIONS: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "Look": (
        "bench inspect captures/",
        {"methods": "runs", "datasets": "data", "inspect": "data", "published": "paper"},
    ),
    "Prepare": (
        "bench prepare captures/",
        {"new": "data", "prepare": "data", "split": "data", "audit": "results"},
    ),
    "Run": (
        "bench run --method forest --dataset demo",
        {
            "check": "runs",
            "run": "runs",
            "tune": "runs",
            "reproduce": "paper",
            "score": "results",
            "classify": "results",
            "sync": "runs",
        },
    ),
    "Compare": ("bench table --dataset demo", {"table": "results", "compare": "results", "stress": "results"}),
    "Publish": ("bench report", {"report": "pages", "ui": "pages", "results": "stored", "leaderboard": "pages"}),
    "Set up": ("bench doctor", {"doctor": "doctor", "completion": "completion"}),
}
MODULES: Final[Mapping[str, str]] = {name: where for _, of in SECTIONS.values() for name, where in of.items()}
_EMPTY: Final = re.compile(r"--[a-z-]+=")  # an option without its value


def _set_loudness(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        context.meta[LOUDNESS] = DETAIL if option.name == "verbose" else ALWAYS


class Heard(click.Command):
    """A command with -q and -v."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        for short, name, text in (("-q", "quiet", "Print only results, warnings and errors."),
                                  ("-v", "verbose", "Print more: stages, files read, where traces are.")):  # fmt: skip
            option = click.Option(
                [short, f"--{name}"], is_flag=True, is_eager=True, expose_value=False, callback=_set_loudness, help=text
            )
            self.params.append(option)

    def invoke(self, ctx: click.Context) -> Any:
        """See click.  Commands in an error's line go to the results folder of this one."""
        try:
            return super().invoke(ctx)
        except InputError as error:
            raise InputError(error.code, hinted(str(error)), list(map(hinted, error.problems))) from error

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click.  Of an option without its value, too, the error knows the command, whose help it names.

        An empty value, as a shell makes it of a variable that is not set, is not taken for one that is left out.
        """
        for before, word in pairwise(("", *args)):
            if not ctx.resilient_parsing and (not word or _EMPTY.fullmatch(word)):
                named = word.rstrip("=") or (before if before.startswith("-") else "an argument")
                raise click.UsageError(f"{named} is empty; give a value, or leave it out", ctx)
        try:
            self._refuse_repeats(ctx, args)
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def _refuse_repeats(self, ctx: click.Context, args: list[str]) -> None:
        """An option of one value that is there twice is refused: click takes the last and says nothing."""
        order = self.make_parser(ctx).parse_args([*args])[2]
        single = [one for one in order if isinstance(one, click.Option) and not (one.multiple or one.is_flag)]
        if twice := [one for one in single if single.count(one) > 1]:
            raise click.UsageError(f"{twice[0].opts[-1]} is there twice; give it once", ctx)


class Commands(click.Group):
    """A group of commands; what they print, and what is said of their errors later, is guarded."""

    command_class = Heard

    def main(self, *given: Any, **more: Any) -> Any:
        """See click."""
        guard()
        return super().main(*given, **more)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click.  Without a word the help is shown."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See click.  A word that is no command is refused with those that there are."""
        word = args[0]
        if not ctx.resilient_parsing and not word.startswith("-") and self.get_command(ctx, word) is None:
            raise click.UsageError(f"there is no command {word!r}; {instead(word, self.list_commands(ctx))}", ctx)
        return super().resolve_command(ctx, args)


class Program(Commands):
    """`bench` itself: the module of a command is imported when the command is asked for."""

    group_class = Commands

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click."""
        return sorted(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See click."""
        if cmd_name in MODULES:
            import_module(f"bench.cli.{MODULES[cmd_name]}")
        return super().get_command(ctx, cmd_name)

    def whole(self) -> "Program":
        """The same with all commands in it."""
        for module in sorted(set(MODULES.values())):
            import_module(f"bench.cli.{module}")
        return self

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click.  They stand by the way of work."""
        for heading, (example, names) in SECTIONS.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(f"{heading}, as in `{example}`"):
                formatter.write_dl([(name, one.get_short_help_str(limit=300)) for name, one in commands if one])


class Choice(_Words):
    """One of several words; another one is refused with what there is."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click."""
        if value not in self.choices:
            self.fail(f"{value!r}; {instead(str(value), self.choices)}", param, ctx)
        return value


def words_of_results() -> list[str]:
    """The words of `--results` for a further command; none where this one has the usual folder, or takes none."""
    context = click.get_current_context(silent=True)
    results = context and context.params.get("results")
    return results_words(results) if results else []


def hinted(text: str) -> str:
    """A text whose commands, in backticks, can be pasted: they go to the results folder of the command that runs."""
    return in_results(text, words_of_results())


def examples(*commands: str) -> str:
    """The end of a command's help: commands as they are typed."""
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)


# --- bricks of options ----------------------------------------------------------------------------------------

Command = Callable[..., Any]
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")


def form_options(command: Command) -> Command:
    """``form`` of a table, by ``--format`` or ``--json``; checked before anything is read or computed."""

    @functools.wraps(command)
    def call(*given: Any, as_json: bool, form: str, **values: Any) -> Any:
        return command(*given, form="json" if as_json else form, **values)

    form = click.option(
        "--format", "form", type=Choice(list(FORMATS)), default="text", show_default=True, help="Form of the table."
    )
    return form(click.option("--json", "as_json", is_flag=True, help="The same as --format json.")(call))


def listed(context: click.Context, option: click.Parameter, values: Sequence[str]) -> list[str]:
    """`-x a,b -x c` as [a, b, c], each once."""
    found = list(dict.fromkeys(name.strip() for value in values for name in value.split(",") if name.strip()))
    if values and not found:
        raise InputError("bad-options", f"{option.opts[0]} {values[0]!r} names nothing; give a value, or leave it out")
    return found


def pairs(context: click.Context, option: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """`-x k=v -x l=w` as a dict."""
    for value in values:
        if "=" not in value:
            raise InputError("bad-pair", f"{option.opts[0]} {value!r}: expected name=value")
    names = [value.partition("=")[0] for value in values]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError("bad-pair", f"{option.opts[0]}: {twice[0]} is there twice; give it once")
    return dict(value.split("=", 1) for value in values)


def grouped(name: str, record: type, *options: Command) -> Command:
    """Click options as one argument ``name`` of the command: a record, whose fields they fill."""

    def apply(command: Command) -> Command:
        own = {field.name for field in dataclasses.fields(record)}

        @functools.wraps(command)
        def call(*given: Any, **values: Any) -> Any:
            filled = record(**{key: values.pop(key) for key in list(values) if key in own})
            return command(*given, **values, **{name: filled})

        for option in reversed(options):
            call = option(call)
        return call

    return apply


def list_option(*words: str, **more: Any) -> Command:
    """An option that takes several words, by comma or by repetition."""
    return click.option(*words, multiple=True, callback=listed, **more)


_UNITS: Final = {"h": 3600, "m": 60, "s": 1}


def seconds_of(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """``8h``, ``90m``, ``1h30m`` or ``45s`` in seconds."""
    if value is None:
        return None
    if not re.fullmatch(r"(\d+(\.\d+)?[hms])+", value):
        raise InputError("bad-options", f"{option.opts[0]} {value!r}: give a time such as 8h, 90m, 1h30m or 45s")
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)([hms])", value))
