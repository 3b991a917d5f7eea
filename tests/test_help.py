"""The help of every command: grouped by the way of work, an example each, a text for every option."""

import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from bench.cli import cli, help
from bench.cli.help import SECTIONS


def commands(group, above=()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*above, name))
        else:
            yield " ".join((*above, name)), command


COMMANDS = dict(commands(cli.whole()))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_text_and_every_command_an_example(name):
    command = COMMANDS[name]
    options = [one for one in command.params if isinstance(one, click.Option)]
    assert [one.opts for one in options if not one.help or one.help == "How."] == []
    lines = re.findall(r"^  bench (.*)$", command.epilog or "", re.M)
    assert lines and command.help
    known = {word for one in options for word in (*one.opts, *one.secondary_opts)}
    for line in lines:
        words = shlex.split(line)
        assert " ".join(words[: len(name.split())]) == name
        assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("name", COMMANDS)
def test_an_example_is_not_wrapped(name, command_line):
    status, out, err = command_line(*name.split(), "--help")
    assert (status, err) == (0, "")
    for line in re.findall(r"^  (bench .*)$", COMMANDS[name].epilog, re.M):
        assert f"    {line}\n" in out


def test_every_command_stands_by_the_way_of_work():
    placed = [name for _, names in SECTIONS.values() for name in names]
    modules = {path.stem for path in Path(help.__file__).parent.glob("*.py")} - {"__init__"}
    for module in modules:
        import_module(f"bench.cli.{module}")
    assert sorted(placed) == sorted(cli.commands)


@pytest.mark.parametrize("words", [["datasets"], ["run", "--method", "nope", "--dataset", "demo"], ["nonsense"]])
def test_the_module_of_no_other_command_is_imported(words):
    code = (
        f"import sys; sys.argv = ['bench', *{words!r}]\n"
        "from bench.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "names = {name.removeprefix('bench.cli.') for name in sys.modules}\n"
        "print(sorted(names & {'data', 'results', 'paper', 'pages'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(["data"] if words == ["datasets"] else [])


def test_all_but_writers_of_pages_take_json():
    """As docs/commands.md says."""
    without = {name.split()[0] for name, one in COMMANDS.items() if all("--json" not in o.opts for o in one.params)}
    assert without == {"new", "report", "leaderboard", "ui", "completion"}


def test_names_of_options_agree():
    """One name for one thing; what shows a table knows --format and --json, what makes runs --jobs."""
    options = {name: {word for one in command.params for word in one.opts} for name, command in COMMANDS.items()}
    assert [name for name, words in options.items() if words & {"--methods", "--datasets", "--metrics"}] == []
    for name in ("table", "compare", "published", "reproduce", "inspect", "results show"):
        assert {"--format", "--json"} <= options[name], name
    for name in ("run", "tune", "audit", "reproduce"):
        assert "--jobs" in options[name], name
    for name in ("run", "tune", "split"):
        assert {"--seed", "--folds", "--fold"} <= options[name], name


def test_without_a_word_the_help_is_shown(command_line):
    for words in ((), ("results",), ("new",)):
        status, out, err = command_line(*words)
        assert (status, err) == (0, "") and out == command_line(*words, "--help")[1] and out.count("\n") > 8


def test_json_is_the_same_as_format_json(command_line):
    plain = command_line("published", "--method", "appscanner", "--format", "json")
    assert plain == command_line("published", "--method", "appscanner", "--json") and plain[0] == 0
