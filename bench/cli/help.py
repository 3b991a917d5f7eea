"""How the command line shows itself: commands by the way of work, each with examples, and what there is in place of a
word that is none.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from bench.cli.progress import ALWAYS, DETAIL, LOUDNESS, guard
from bench.errors import instead

if TYPE_CHECKING:
    _Words = click.Choice[str]
else:  # before click 8.2 it takes no type
    _Words = click.Choice

#: the way of work: heading -> an example, and the commands
SECTIONS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "Look": ("bench inspect captures/", ("methods", "datasets", "inspect", "published")),
    "Prepare": ("bench prepare captures/", ("new", "prepare", "split", "audit")),
    "Run": (
        "bench run --method forest --dataset demo",
        ("check", "run", "tune", "reproduce", "score", "classify", "sync"),
    ),
    "Compare": ("bench table --dataset demo", ("table", "compare")),
    "Publish": ("bench report", ("report", "ui", "results")),
    "Set up": ("bench doctor", ("doctor", "completion")),
}


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

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click.  Of an option without its value, too, the error knows the command, whose help it names."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise


class Commands(click.Group):
    """A group of commands; what they print, and what is said of their errors later, is guarded."""

    command_class = Heard
    group_class = type  # a group in it is one of these, too

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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click.  The commands of `bench` itself stand by the way of work."""
        if ctx.parent is not None:
            super().format_commands(ctx, formatter)
            return
        left = self.list_commands(ctx)
        for heading, (example, names) in SECTIONS.items():
            self._write(ctx, formatter, f"{heading}, as in `{example}`", [name for name in names if name in left])
            left = [name for name in left if name not in names]
        if left:
            self._write(ctx, formatter, "More", left)

    def _write(self, ctx: click.Context, formatter: click.HelpFormatter, heading: str, names: list[str]) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in names]
        with formatter.section(heading):
            formatter.write_dl([(name, command.get_short_help_str(limit=300)) for name, command in commands if command])


class Choice(_Words):
    """One of several words; another one is refused with what there is."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click."""
        if value not in self.choices:
            self.fail(f"{value!r}; {instead(str(value), self.choices)}", param, ctx)
        return value


def examples(*commands: str) -> str:
    """The end of a command's help: commands as they are typed."""
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)
