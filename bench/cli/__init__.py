"""The command line: parse, call, print.

Enters: words.  Leaves: text or JSON on standard output, progress and warnings on standard error, an exit status.
May import everything below it, and is imported by nothing.

`base` has the options that commands share, `help` how commands show themselves and what options are made of.  The
commands stand in `data`, `runs`, `results`, `stored`, `paper`, `pages`, `doctor` and `completion`; `help.SECTIONS` says
which in which.  `progress` shows bars on a terminal and plain lines elsewhere, `text` lays out records.

The module of a command is imported when the command is called, and heavy packages inside it, so that `bench --help`,
the listing commands and wrong words stay quick.
With ``--json`` a result is one JSON object.  Exit status: 0 done, 1 some runs failed, 2 bad input (one line), 3 some
runs are left since the time of --budget was used up, 130 interrupted, 143 terminated, or its terminal closed.
"""

import os
import signal
import sys

import click

from bench.cli.base import cli
from bench.cli.help import COMPLETION, Program
from bench.environment import PACKAGES_OF_OURS
from bench.errors import InputError, Terminated
from bench.files import remedy_of

__all__ = ["cli", "main"]


def main() -> None:
    """Entry point of `bench`: turns bad input into one line and an exit status."""
    try:
        Terminated.listen()
        status = _program().main(standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except InputError as error:
        _fail(f"{error} [{error.code}]", 2)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "bench"
        _fail(f"{error.format_message()} (see {command} --help)", 2)
    except click.ClickException as error:
        _fail(error.format_message(), 2)
    except (KeyboardInterrupt, click.Abort):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # who presses twice gets the same line
        _fail("interrupted; what was finished is kept, the same command does the rest", 130)
    except Terminated:
        _fail("terminated; what was finished is kept, the same command does the rest", 143)
    except BrokenPipeError:  # `bench table | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except ModuleNotFoundError as error:
        if (error.name or "bench").partition(".")[0] in PACKAGES_OF_OURS:
            raise  # our own fault, not a package that is missing
        remedy = "install it (what bench itself needs: .venv/bin/pip install -c constraints.txt -e . in the checkout)"
        _fail(f"the Python package {error.name} is not installed; {remedy}", 2)
    except OSError as error:  # a folder that cannot be written, a full disk, a name that is too long
        place = f"{error.filename}: " if error.filename else ""
        remedy = remedy_of(error, "fix this")
        _fail(f"{place}{error.strerror or error}; nothing is half written; {remedy} and run the command again", 2)


def _program() -> Program:
    """All commands; where a shell asks, they know what completes a word."""
    if COMPLETION in os.environ:
        from bench.cli.completion import teach

        teach(cli.whole())
    return cli


def _fail(message: str, status: int) -> None:
    click.echo("bench: " + " ".join(message.split()), err=True, color=True)
    sys.exit(status)
