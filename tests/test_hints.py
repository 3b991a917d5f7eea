"""The commands that messages propose are typed as they stand, for a folder with a blank in its name."""

import ast
import html
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import click
import pytest
from stored_runs import place_in

import bench as package
from bench.cli import cli
from bench.data.manifest import Options
from bench.generators import demo
from bench.tracking.address import OF_RESULTS, in_results, results_words
from bench.tracking.record import AUDIT

COMMAND = re.compile(r"`bench ([^`]+)`")


@pytest.fixture
def place(tmp_path):
    demo.write(tmp_path / "my captures", sessions=20, captures=4, classes=3)
    return tmp_path


@pytest.fixture
def bench(place, bench_in):
    call = bench_in(place)
    return lambda line: call(*shlex.split(line))


def proposed(text):
    """The one command in a text."""
    (command,) = set(COMMAND.findall(text))
    return command


def test_what_is_not_prepared_is_prepared_by_the_command_that_is_told(bench):
    run = "run --method majority --dataset 'my captures' --dry-run"
    status, out, err = bench(run)
    assert (status, out) == (2, "") and "[not-prepared]" in err
    assert bench(proposed(err))[0] == 0 and bench(run)[0] == 0


def test_two_folders_of_one_name_in_one_command_are_told_before_anything_is_made(bench, place):
    demo.write(place / "other" / "my captures", sessions=4, captures=2, classes=2)
    run = "run --method majority --split session --dataset 'my captures','other/my captures'"
    status, out, err = bench(run)
    assert (status, out) == (2, "") and "[same-name]" in err and not (place / "home" / "stores").exists()
    assert bench(proposed(err).replace("NAME", "second"))[0] == 0 and bench(run)[0] == 0


def test_a_store_of_other_code_is_made_anew_as_it_was_made(bench, place):
    assert bench("prepare 'my captures' --idle-timeout 2.5 --client ports --filter keepalives --by-vlan")[0] == 0
    path = place / "home" / "stores" / "my-captures" / "manifest.json"
    was = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in was.items() if name != "sha256"} | {"code": "other"}))
    status, _, err = bench("split 'my captures' --split session")
    assert status == 0 and "made by other code" in err
    assert bench(proposed(err))[0] == 0
    assert json.loads(path.read_text()) == was  # no option was lost
    path.write_text(json.dumps({name: value for name, value in was.items() if name != "sha256"} | {"code": "other"}))
    assert bench(proposed(bench("split my-captures --split session")[2]))[0] == 0  # by its name
    assert json.loads(path.read_text()) == was


def test_damage_is_mended_by_the_command_that_is_told(bench, place):
    assert bench("prepare 'my captures'")[0] == 0
    store = place / "home" / "stores" / "my-captures"
    content = (store / "sessions.arrow").read_bytes()
    (store / "sessions.arrow").write_bytes(content[:-9])
    status, _, err = bench("prepare 'my captures' --verify")
    assert status == 2 and "[store-damaged]" in err
    assert bench(proposed(err))[0] == 0 and (store / "sessions.arrow").read_bytes() == content


def test_a_capture_that_changed_is_read_again_by_the_command_that_is_told(bench, place):
    assert bench("prepare 'my captures'")[0] == 0
    one, other = sorted((place / "my captures").glob("*/*.pcap"))[:2]
    shutil.copy(other, one)
    os.utime(one, (1, 1))
    status, _, err = bench("prepare 'my captures' --verify")
    assert status == 2 and "[capture-changed]" in err
    assert bench(proposed(err))[0] == 0 and bench("prepare 'my captures' --verify")[0] == 0


def test_the_commands_of_the_page_and_of_a_study_run(bench, place):
    assert bench("run --method majority --dataset 'my captures' --split session --seed 3")[0] == 0
    assert bench("report")[0] == 0
    page = html.unescape((place / "results" / "report.html").read_text())
    (line,) = {one for one in re.findall(r"<code>bench (run [^<]+)</code>", page) if "--suite" not in one}
    status, out, _ = bench(f"{line} --json")
    assert status == 0 and [run["status"] for run in json.loads(out)["runs"]] == ["cached"]
    study = "tune --method knn --dataset 'my captures' --split session --param neighbours=1,3 --sampler grid"
    status, out, _ = bench(study)
    line = next(line for line in out.splitlines() if line.startswith("bench run"))
    status, out, _ = bench(f"{line.removeprefix('bench ')} --json")
    assert status == 0 and [run["status"] for run in json.loads(out)["runs"]] == ["done"]


def test_every_option_of_a_preparation_can_be_typed_again():
    options = Options(decap=("gre", "vxlan"), drop_copies=1.5, sessions="5tuple", switches={"a": "b"})
    assert shlex.join(options.words) == "--sessions 5tuple --decap gre,vxlan --drop-copies 1.5 --switch a=b"
    assert Options(join_captures=True).words == ["--join-captures"]
    assert Options().words == [] and Options(asked_to_join=False).words == ["--no-join-records"]


def of_results(group):
    """Commands below a group that take --results, by their first word."""
    return {name for name, command in group.commands.items()
            if (of_results(command) if isinstance(command, click.Group) else
                any(option.name == "results" for option in command.params))}  # fmt: skip


def test_the_commands_that_take_a_results_folder_are_known():
    assert of_results(cli.whole()) == set(OF_RESULTS)


def test_a_results_folder_is_named_where_it_is_not_the_usual_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_RESULTS", raising=False)
    for usual in ("results", "./results", tmp_path / "results"):
        assert results_words(Path(usual)) == []
    assert results_words(Path("mine")) == ["--results", "mine"]
    monkeypatch.setenv("BENCH_RESULTS", "mine")
    assert results_words(Path("mine")) == ["--results", "mine"]
    assert results_words(Path("results")) == ["--results", "results"]  # else it would be mine


def test_what_takes_no_results_folder_stays():
    text = "`bench run … --rerun`, `bench table --results x`, `bench prepare x`, bench ui"
    assert in_results(text, ["--results", "x y"]) == text


def messages():
    """All texts of the package but docstrings and help, each with its place."""
    for file in sorted(Path(package.__file__).parent.rglob("*.py")):
        tree, told = ast.parse(file.read_text()), set()
        for node in ast.walk(tree):
            is_help = isinstance(node, ast.keyword) and node.arg in ("help", "epilog")
            is_help |= isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            is_help |= isinstance(node, ast.Call) and getattr(node.func, "id", "") == "suite_option"
            told |= set(ast.walk(node)) if is_help else set()
        yield from ((f"{file.name}:{node.lineno}", node.value) for node in ast.walk(tree)
                    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in told)  # fmt: skip


def test_a_message_that_names_a_command_names_it_whole_or_says_that_more_belongs_to_it():
    """`bench stress` alone cannot be pasted: its end would be a results folder where the run belongs."""
    needs = "`bench (audit|classify|reproduce|run|score|stress|tune)`"
    assert [place for place, text in messages() if re.search(needs, text)] == []


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    with place_in(tmp_path_factory) as made:
        tracker = made.tracker()
        made.run(tracker, "majority", seeds=[0, 1])
        older = {record.spec.split.seed: record.run_id for record in tracker.search()}[0]
        made.run(tracker, "majority", seeds=[0], rerun=True)
        (newer,) = {record.run_id for record in tracker.search() if record.spec.split.seed == 0} - {older}
        tracker._client.delete_run(newer)  # as MLflow's page does
        made.run(tracker, "ports", seeds=[0], purpose=AUDIT)
        yield tracker.results, made.empty


#: lines whose output proposes commands, and how these begin
HINTS = {
    "compare abc def": ["results show"],
    "results show abc": ["results show"],
    "results show --figures pictures": ["results show"],
    "results rm --run abc --yes": ["results show"],
    "classify {capture} --run abc": ["results show"],
    "stress abc": ["results show"],
    "compare --suite etc-2026": [],
    "table --dataset tiny": ["results rm", "table --audits"],
    "table --dataset tiny --json": ["results rm", "table --audits"],
    "report --output page.html": ["table --audits"],
    "reproduce": ["reproduce --list"],
}
EMPTY = {
    line: ["run --method forest --dataset demo"]
    for line in ("table", "results show", "results export x.zip", "report", "ui --no-open",
                 "table --method knn")
}  # fmt: skip


def hints(text):
    """The commands in a text that take a results folder."""
    return [line for line in COMMAND.findall(text) if line.split()[0] in OF_RESULTS and "…" not in line]


@pytest.mark.parametrize(("line", "begin"), [*HINTS.items(), *EMPTY.items()])
def test_commands_go_to_the_results_folder_of_the_one_that_proposes_them(
    stored, line, begin, tmp_path, monkeypatch, command_line
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_RESULTS", raising=False)
    demo.write(tmp_path / "caps", sessions=4, captures=1, classes=2)
    capture = next((tmp_path / "caps").rglob("*.pcap"))
    shutil.copytree(stored[line in EMPTY], tmp_path / "my runs")
    words = shlex.split(line.format(capture=capture))
    _, out, err = command_line(*words, "--results", "my runs")
    found = hints(out + err)
    assert {next((one for one in begin if line.startswith(one)), line) for line in found} == set(begin), out + err
    assert all(line.endswith(" --results 'my runs'") for line in found)
    if line.startswith("report --output"):
        page = html.unescape((tmp_path / "page.html").read_text())
        assert "results rm --run ID --results 'my runs'" in COMMAND.findall(page)
    monkeypatch.setenv("BENCH_RESULTS", "my runs")
    _, out, err = command_line(*words)
    assert set(hints(out + err)) == set(found)
    (tmp_path / "my runs").rename(tmp_path / "results")
    monkeypatch.delenv("BENCH_RESULTS")
    _, out, err = command_line(*words)
    assert set(hints(out + err)) == {line.removesuffix(" --results 'my runs'") for line in found}
