"""What a shell is told when it asks for words."""

import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete

from bench.cli import cli
from bench.cli.completion import SHELLS, teach
from bench.cli.help import COMPLETION
from bench.data.cards import card_names
from bench.runs import registry

teach(cli.whole())


@pytest.fixture
def completed(monkeypatch):
    def ask(words, begun=""):
        items = ShellComplete(cli, {}, "bench", COMPLETION).get_completions(words.split(), begun)
        return [item.value for item in items if item.type == "plain"]

    return ask


@pytest.mark.parametrize("words", ["run --method", "tune --method", "methods", "check", "table --method"])
def test_methods(completed, words):
    assert completed(words) == registry.names()
    assert completed(words, "atv") == ["atvitsc"]


def test_the_last_of_several_words_is_completed(completed):
    assert completed("run --method", "forest,atv") == ["forest,atvitsc"]
    assert completed("run --dataset", "demo,iot") == ["demo,iot-sentinel"]


@pytest.mark.parametrize("words", ["run --dataset", "table --dataset", "prepare", "split", "audit", "datasets"])
def test_data_sets_are_shipped_prepared_or_cards_of_this_folder(completed, place, tmp_path, monkeypatch, words):
    (tmp_path / "mine.toml").write_text('like = "demo"\n')
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n')  # is no card
    monkeypatch.chdir(tmp_path)
    assert set(completed(words)) == {*card_names(), "tiny", "mine.toml"}


def test_splits_presets_tables_and_figures(completed):
    for words in ("run --split", "table --split", "audit demo --split"):
        assert {"capture", "capture+session", "attribute:"} <= set(completed(words))
    assert {"shared", "last-step"} <= set(completed("run --method atvitsc,forest --preset"))
    assert completed("run --method majority --preset") == []
    assert "table-VI" in completed("reproduce") and completed("reproduce", "fig-13") == ["fig-13"]


def test_runs(completed, place):
    tracker = place.tracker()
    place.run(tracker, "majority", seeds=[0, 1])
    ids = sorted(row.run_id[:8] for row in tracker.rows())
    for words in ("compare", "results show", "classify x.pcap --run", "results rm --run"):
        name, *rest = words.split()
        asked = " ".join([name, *rest])
        where = f"--results {tracker.results}"
        before = asked.replace(" --run", f" {where} --run") if "--run" in asked else f"{asked} {where}"
        assert completed(before) == ids, words
    assert completed(f"compare --results {tracker.results / 'nowhere'}") == []


def test_files_stand_in_where_nothing_is_known():
    (item,) = ShellComplete(cli, {}, "bench", COMPLETION).get_completions(["run", "--method"], "./mine")
    assert (item.type, item.value) == ("file", "./mine")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_asks_bench(shell, command_line):
    status, out, _ = command_line("completion", shell)
    assert status == 0 and COMPLETION in out and f"{shell}_complete" in out


def test_a_shell_gets_words_without_heavy_packages():
    code = (
        "import os, sys\n"
        f"os.environ |= {{'{COMPLETION}': 'bash_complete', 'COMP_CWORD': '3'}}\n"
        "os.environ['COMP_WORDS'] = 'bench run --method atv'\n"
        "sys.argv = ['bench']\nfrom bench.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'mlflow', 'sklearn', 'optuna', 'numba', 'pandas', 'pyarrow', 'scipy', 'sqlalchemy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["plain,atvitsc", "[]"]
