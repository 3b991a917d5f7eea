"""What the documents show is what the program does."""

import re
import shlex
from pathlib import Path

import click
import pytest

from bench.cli import cli
from bench.conformance import check
from bench.errors import CODES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "datasets" / "README.md"]
COMMAND = re.compile(r"(?:^|`|\$ |bin/)bench ([a-z]+ [^`#\n]*|[a-z]+)", re.M)


def shown():
    return [(page.name, words) for page in PAGES for words in COMMAND.findall(page.read_text())]


@pytest.mark.parametrize(("page", "words"), shown(), ids=str)
def test_every_command_shown_exists_with_its_options(page, words):
    name, *rest = shlex.split(words.strip().rstrip(".,;:"))
    assert name in cli.commands
    known = {option for p in cli.commands[name].params if isinstance(p, click.Option) for option in p.opts}
    assert {word for word in rest if word.startswith("--")} <= known


def test_every_command_is_in_the_readme():
    text = (ROOT / "README.md").read_text()
    assert [name for name in cli.commands if f"bench {name}" not in text] == []


def test_every_error_code_is_told_with_its_remedy():
    rows = re.findall(r"^\| `(.*?)` \| (.*?) \| (.+?) \|$", (ROOT / "docs" / "errors.md").read_text(), re.M)
    assert {code: what for code, what, _ in rows} == CODES and len(rows) == len(CODES)


def test_every_error_code_is_used():
    sources = "".join(path.read_text() for d in ("bench", "methods") for path in (ROOT / d).rglob("*.py"))
    assert [code for code in CODES if sources.count(f'"{code}"') < 2] == []  # in `CODES` and where it is raised


def test_the_example_method_keeps_the_contract(tmp_path):
    code = re.search(r"```python\n# mine.py\n(.*?)```", (ROOT / "docs" / "adding.md").read_text(), re.S)
    (tmp_path / "mine.py").write_text(code.group(1))
    checks = check(f"{tmp_path / 'mine.py'}:Mine")
    assert [(c.name, c.detail) for c in checks if not c.passed] == []


def test_the_gate_runs_the_readmes_test_command():
    command = re.search(r"^python3 -m venv .*/tox$", (ROOT / "README.md").read_text(), re.M).group(0)
    gate = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if "venv" in line]
    assert [line.replace(" -q", "") for line in gate] == [command]


def test_links_between_documents_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
