"""What the documents show is what the program does."""

import dataclasses
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from refusals import refused

import bench
from bench.cli import cli
from bench.data.cards import card_names
from bench.errors import CODES
from bench.paper.declaration import Arm, Experiment, Over, Paper, Published, read_paper
from bench.paper.published import rows_by_key
from bench.runs import registry

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "datasets/README.md", "results/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md")),
]
COMMAND = re.compile(r"(?:^|`|\$ |bin/)bench ([a-z]+ [^`#\n]*|[a-z]+)", re.M)


def shown():
    return [(page.name, words) for page in PAGES for words in COMMAND.findall(page.read_text())]


@pytest.mark.parametrize(("page", "words"), shown(), ids=str)
def test_every_command_shown_exists_with_its_options(page, words):
    name, *rest = shlex.split(words.strip().rstrip(".,;:"))
    assert name in cli.whole().commands
    command = cli.commands[name]
    if isinstance(command, click.Group):
        command = command.commands[rest[0]] if rest else command
    known = {option for p in command.params if isinstance(p, click.Option) for option in p.opts}
    assert {word for word in rest if word.startswith("--")} <= known


def test_every_command_is_on_the_page_of_commands():
    text = (ROOT / "docs" / "commands.md").read_text()
    assert [name for name in cli.whole().commands if f"bench {name}" not in text] == []


def test_the_smallest_paper_in_the_documents_is_read(tmp_path):
    text = re.search(r"```toml\n(.*?)```", (ROOT / "docs" / "reproducing.md").read_text(), re.S)[1]
    (tmp_path / "paper.toml").write_text(text)
    with refused("bad-paper", "table_1.csv"):
        read_paper(tmp_path)
    numbers = re.search(r"```csv\n(.*?)```", (ROOT / "docs" / "reproducing.md").read_text(), re.S)[1]
    (tmp_path / "table_1.csv").write_text(numbers.replace("id,", "name,"))
    with refused("bad-paper", "no column 'id'"):
        read_paper(tmp_path)
    (tmp_path / "table_1.csv").write_text(numbers)
    paper = read_paper(tmp_path)
    assert rows_by_key(paper, paper.experiment("table-1"))["forest"]["f1"] == "83.6"
    assert [arm.label for arm in paper.experiment("table-1").arms] == ["Neighbour", "Forest"]


def test_every_field_of_a_paper_is_in_the_documents():
    text = (ROOT / "docs" / "reproducing.md").read_text()
    kinds = (Paper, Experiment, Published, Over, Arm)
    names = {field.name for kind in kinds for field in dataclasses.fields(kind)} - {"folder"}
    assert {
        name
        for name in names
        if f"`{name}`" not in text
        and f"{name} =" not in text
        and f"[{name}]" not in text
        and f"experiments.{name}]" not in text
    } == set()


def test_every_error_code_is_told_with_its_remedy():
    rows = re.findall(r"^\| `(.*?)` \| (.*?) \| (.+?) \|$", (ROOT / "docs" / "errors.md").read_text(), re.M)
    assert {code: what for code, what, _ in rows} == CODES and len(rows) == len(CODES)


def test_every_error_code_is_used():
    sources = "".join(path.read_text() for d in ("bench", "methods") for path in (ROOT / d).rglob("*.py"))
    assert [code for code in CODES if sources.count(f'"{code}"') < 2] == []  # in `CODES` and where it is raised


@pytest.mark.slow
def test_the_first_hour_runs_from_top_to_bottom(tmp_path):
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "first-hour.md").read_text(), re.S)
    (tmp_path / "bench").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m bench "$@"\n')
    (tmp_path / "bench").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    home = {"BENCH_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT), "PATH": path}
    script = "set -e\n" + "\n".join(blocks)
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | home,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    assert "forest *" in done.stdout and (tmp_path / "results" / "report.html").is_file()


@pytest.mark.slow
def test_the_page_for_python_runs_from_top_to_bottom(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.S)
    (tmp_path / "page.py").write_text("\n".join(blocks) + "\nprint(type(scores.accuracy), scores.macro_f1 > 0.2)\n")
    home = {"BENCH_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True, env=os.environ | home
    )
    assert done.returncode == 0, done.stderr
    assert "forest-capture-seed0 done" in done.stdout and "| forest" in done.stdout
    assert done.stdout.splitlines()[-2:][0].startswith("unknown-split") and done.stdout.splitlines()[-1].endswith(
        "True"
    )


def test_the_front_door_is_light_and_typed():
    code = "import bench, sys; dir(bench); bench.SplitSpec; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT)
    assert not [
        name for name in ("torch", "sklearn", "mlflow", "numba", "pandas", "pyarrow", "scipy") if f"'{name}'" in loaded
    ]
    assert (ROOT / "bench" / "py.typed").is_file() and (ROOT / "methods" / "py.typed").is_file()


def test_the_gate_runs_the_readmes_test_command():
    command = re.search(r"^python3 -m venv .*/tox p$", (ROOT / "README.md").read_text(), re.M).group(0)
    gate = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("python3 -m venv")]
    assert [line.replace(" -q", "") for line in gate] == [command]


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_the_pictures_are_drawn_from_the_committed_results():
    for name, content in module(ROOT / "docs" / "pictures.py").drawings().items():
        assert (ROOT / "docs" / "images" / name).read_text() == content, f"{name}: run python docs/pictures.py"


def test_what_the_readme_says_of_results_is_committed():
    text = (ROOT / "README.md").read_text().replace("−", "-")
    table = (ROOT / "results" / "leaks-in-points.md").read_text()
    rows = re.findall(r"^\| [^|]* \| (\d+\.\d) \| (\d+\.\d) \| (\d+\.\d|impossible) \| ([^|]*) \|$", text, re.M)
    assert len(rows) == 3
    for paper, session, capture, leak in rows:
        end = [line for line in table.splitlines() if f"| {leak} |" in line]
        assert len(end) == 1 and f"| {paper} | {session} | {capture.replace('impossible', '–')} |" in end[0]
    matrix = (ROOT / "results" / "matrix" / "README.md").read_text()
    assert re.search(r"^\| graphdapp \| .* -0\.125 \[-0\.157, -0\.094\]", matrix, re.M)
    assert re.search(r"^\| atvitsc \| .* -0\.143 \[-0\.177, -0\.109\]", matrix, re.M)
    told = " ".join(text.split())
    assert "it is 0.125 macro-F1 above GraphDApp" in told and "0.094 to 0.157" in told
    assert "0.143 above ATVITSC (0.109 to 0.177)" in told
    one_budget = (ROOT / "results" / "etc-2026" / "iot-sentinel-tls.md").read_text()
    scores = dict(re.findall(r"^\| ([a-z0-9-]+)[^|]*\| 5 \| (0\.\d+) ±", one_budget, re.M))
    trained = {name: score for name, score in scores.items() if registry.describe(name).family in ("deep", "graph")}
    assert max(trained, key=trained.get) == "atvitsc"
    assert scores["atvitsc"] < scores["knn"]
    by_capture = [float(score) for score in re.findall(r"^\| capture[^|]*\|[^|]*\|[^|]*\|[^|]*\| (\d\.\d+) ±",
                  (ROOT / "results" / "iscx-vpn-sequences.md").read_text(), re.M)]  # fmt: skip
    assert len(by_capture) > 30 and 0.36 < max(by_capture) < 0.37 and "no method passes 37 %" in text


def test_generated_pages_have_every_method_parameter_and_data_set():
    pages = module(ROOT / "docs" / "site" / "generated.py").pages()
    for name in registry.names():
        assert f"[{name}](methods/{name}.md)" in pages["methods.md"]
        outline = registry.describe(name)
        assert [one for one in outline.defaults if f"| `{one}` |" not in pages[f"methods/{name}.md"]] == []
        assert pages[f"methods/{name}.md"].count("\n- ") >= 3 + len(outline.deviations)
    assert [name for name in card_names() if f"\n## {name}\n" not in pages["datasets.md"]] == []


def test_the_version_stands_in_the_citation_too():
    assert f"\nversion: {bench.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_what_catalogues_of_software_read_is_made_of_the_project():
    text = (ROOT / "codemeta.json").read_text()
    assert text == module(ROOT / "docs" / "codemeta.py").codemeta(), "run python docs/codemeta.py"
    assert f'"version": "{bench.__version__}"' in text and '"name": "torch"' in text


def test_links_between_documents_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
