"""Reading needs no writing, finds no store of runs where none is, and tells what is not as it seems."""

import io
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from refusals import refused
from small_captures import write_captures

from bench.analysis.tables import results_table
from bench.cli.base import note, tell
from bench.cli.help import Heard
from bench.cli.progress import DETAIL, LiveBars, PlainLines, RunProgress
from bench.matrix.cells import run_matrix
from bench.render.table import Table, render
from bench.runs.execute import Outcome, RunOptions
from bench.spec import RunSpec
from bench.tracking.record import AUDIT, asked_for
from bench.tracking.tracker import Tracker

ROOT = Path(__file__).parents[1]


@pytest.fixture
def bench(tmp_path, bench_in):
    write_captures(tmp_path / "apps", 5)
    return bench_in(tmp_path)


def state(folder):
    """Names, sizes and times of all that is there; a folder's time tells of files that came and went."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in [folder, *folder.rglob("*")]}


@pytest.mark.slow
def test_reading_writes_nothing(bench, tmp_path):
    asked = ["--dataset", "apps", "--split", "capture"]
    runs = json.loads(bench("run", "--method", "majority,ports", *asked, "--json")[1])["runs"]
    first, second = (run["run_id"] for run in runs)
    study = ["tune", "--method", "knn", *asked, "--param", "neighbours=1,3", "--sampler", "grid"]
    found = bench(*study, "--json")
    assert found[0] == 0
    capture = next((tmp_path / "apps").rglob("*.pcap"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    before = state(tmp_path / "results")
    for words in (
        ["table"],
        ["compare", first, second],
        ["compare", "--dataset", "apps"],
        ["report", "--output", elsewhere / "page.html"],
        ["classify", capture, "--run", second],
        ["results", "show"],
        ["results", "show", first],
        ["results", "export", elsewhere / "runs.zip"],
        ["run", "--method", "majority,forest", *asked, "--dry-run"],
        ["reproduce", "--list"],
        ["doctor"],
    ):
        status, _, err = bench(*words)
        assert status == 0 or words[:2] == ["compare", "--dataset"], (words, err)  # too little to rank
        assert state(tmp_path / "results") == before, words
    again = bench(*study, "--json")
    assert again[0] == 0 and json.loads(again[1]) == json.loads(found[1])
    assert state(tmp_path / "results") == before


READING = {
    "table": [],
    "compare": ["a", "b"],
    "report": [],
    "classify": ["apps/chat/chat-0.pcap", "--run", "a"],
    "results show": [],
    "results export": ["runs.zip"],
    "results rm": ["--run", "a", "--yes"],
    "results prune": ["--yes"],
    "reproduce": ["--list"],
    "sync": [],
    "ui": [],
}


@pytest.mark.parametrize("command", READING)
def test_a_mistyped_results_folder_is_told_and_not_made(command, bench, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "mlflow.db").touch()
    capture = next((tmp_path / "apps").rglob("*.pcap"))
    words = [capture if str(word).endswith(".pcap") else word for word in READING[command]]
    before = state(tmp_path)
    status, out, err = bench(*command.split(), *words, "--results", "resutls")
    assert (status, out) == (2, "") and len(err.splitlines()) == 1
    assert "there are no results in resutls; did you mean results? [no-results]" in err
    assert state(tmp_path) == before
    status, _, err = bench(*command.split(), *words, "--results", "far/away")
    assert status == 2 and "--dataset demo --results far/away` makes one" in err and state(tmp_path) == before


def test_the_results_folder_has_a_variable(bench, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_RESULTS", str(tmp_path / "mine of old"))
    status, _, err = bench("run", "--method", "majority", "--dataset", "apps", "--split", "capture")
    assert status == 0 and "mine of old: a new results folder" in err and "results are in mine of old" in err
    assert err.count(f"--results '{tmp_path}/mine of old'") == 3  # it may be set for this command alone
    assert not (tmp_path / "results").exists()
    assert "majority" in bench("table")[1]
    assert bench("table", "--results", "results")[0] == 2
    assert "a new results folder" not in bench("run", "--method", "majority", "--dataset", "apps")[2]


def test_a_run_ends_with_means_and_with_commands_that_can_be_pasted(bench, tmp_path):
    words = ["run", "--method", "majority,ports", "--dataset", "apps", "--split", "capture", "--results", "two words"]
    status, out, err = bench(*words)
    assert status == 0 and "±" not in out  # a run a row: the table of runs has it all
    status, out, err = bench(*words, "--seeds", "2")
    rows = out.split("\n\n", 1)[1]
    assert status == 0 and rows.count("±") == 6 and "ports" in rows and "majority" in rows
    commands = [shlex.split(line) for line in err.splitlines() if line.startswith("  bench ")]
    assert [words[1] for words in commands] == ["table", "compare", "report", "ui"]
    assert all(words[-2:] == ["--results", "two words"] for words in commands)
    shown = bench(*commands[0][1:])[1]
    assert shown.count("±") >= 6
    assert {line for line in rows.splitlines() if "±" in line}  # the same numbers in both, by the same code
    for line in (line.split() for line in rows.splitlines() if "±" in line):
        assert any(" ".join(line[:5]) in " ".join(other.split()) for other in shown.splitlines())
    assert bench(*commands[1][1:])[0] == 0 and bench(*commands[2][1:])[0] == 0
    found = json.loads(bench(*words, "--seeds", "2", "--json")[1])
    assert {row["method"]: row["runs"] for row in found["rows"]} == {"majority": 2, "ports": 2}


def test_how_much_is_said_can_be_chosen(bench, tmp_path):
    (tmp_path / "own.py").write_text(
        "from methods.majority import Majority\n\n\nclass Broken(Majority):\n    name = 'broken'\n\n"
        "    def fit(self, train, validation, monitor):\n        raise FloatingPointError('loss is nan')\n"
    )
    words = ["run", "--method", "majority,own.py:Broken", "--dataset", "apps", "--split", "capture"]
    status, out, err = bench(*words, "-q")
    assert status == 1 and "loss is nan" in out and err == ""
    status, out, err = bench(*words, "-v", "--rerun")
    assert status == 1 and "[1/2] apps majority-capture-seed0 fit" in err and "reads" in err
    (trace,) = [line for line in err.splitlines() if "the trace is in" in line]
    assert "FloatingPointError" in Path(trace.split("the trace is in ")[1]).read_text()
    assert bench("results", "show", "-q")[2] == "" and "reads the store of runs" in bench("results", "show", "-v")[2]


@pytest.mark.parametrize(("words", "heard"), [(["-q"], "tell, WARNING note"), ([], "tell, note, WARNING note"),
                                              (["-v"], "tell, note, WARNING note, detail")])  # fmt: skip
def test_warnings_are_told_however_little_is_wanted(words, heard, capsys):
    @click.command(cls=Heard)
    def command():
        tell("tell")
        note("note")
        note("WARNING note")
        tell("detail", DETAIL)

    command.main(words, standalone_mode=False)
    assert ", ".join(capsys.readouterr().err.splitlines()) == heard


# --- runs that were deleted, and runs that nobody asked for ---


def test_an_older_run_does_not_silently_take_the_place_of_a_deleted_one(place, command_line):
    tracker = place.tracker()
    place.run(tracker, "majority", seeds=[0, 1])
    older = {record.spec.split.seed: record.run_id for record in tracker.search()}[0]
    place.run(tracker, "majority", seeds=[0], rerun=True)
    newer = {record.spec.split.seed: record.run_id for record in tracker.search()}[0]
    assert newer != older and not any(record.deleted for record in tracker.search())
    tracker._client.delete_run(newer)  # as its page does
    records = {record.spec.split.seed: record for record in tracker.search()}
    assert (records[0].run_id, records[0].deleted, records[1].deleted) == (older, newer, "")
    (note,) = [line for line in results_table(list(records.values())).notes if "deleted" in line]
    assert older[:8] in note and records[1].run_id[:8] not in note
    (outcome,) = run_matrix(place.specs("majority", seeds=[0]), tracker)
    assert outcome.status == "cached" and newer[:8] in outcome.reason and "deleted" in outcome.reason
    shown = command_line("results", "show", "--results", tracker.results)[1]
    (line,) = [line for line in shown.splitlines() if line.startswith(older[:8])]
    assert f"newer {newer[:8]} was deleted" in line and shown.count("was deleted") == 1
    assert f"deleted: newer run {newer}" in command_line("results", "show", older, "--results", tracker.results)[1]
    tracker._client.restore_run(newer)
    assert {record.run_id for record in tracker.search()} == {newer, records[1].run_id}
    assert not any(record.deleted for record in tracker.search())
    tracker._client.delete_run(older)
    assert not any(record.deleted for record in tracker.search())  # a newer one is there


def test_runs_of_an_audit_are_not_the_user_s_until_they_ask_for_them(place, command_line):
    tracker = place.tracker()
    place.run(tracker, "majority", "ports", seeds=[0], purpose=AUDIT)
    place.run(tracker, "knn", seeds=[0])
    words = ("table", "--results", tracker.results)
    out = command_line(*words)[1]
    assert "knn" in out and "majority" not in out and "2 more runs were made by an audit" in out
    out = command_line(*words, "--audits")[1]
    assert all(name in out for name in ("knn", "majority", "ports")) and "bench audit" not in out
    shown = json.loads(command_line("results", "show", "--json", "--results", tracker.results)[1])["rows"]
    assert {row["method"]: row["purpose"] for row in shown} == {"knn": "", "majority": AUDIT, "ports": AUDIT}
    place.run(tracker, "majority", seeds=[0], purpose=AUDIT)
    assert len(asked_for(tracker.search())[0]) == 1  # an audit adopts nothing
    (outcome,) = place.run(tracker, "majority", seeds=[0])
    assert outcome.status == "cached"
    out = command_line(*words)[1]
    assert "majority" in out and "1 more run was made by an audit" in out
    out = command_line("report", "--results", tracker.results)
    assert out[0] == 0 and "1 more run" in out[2]


# --- progress ---


SPEC = RunSpec("knn", "demo", "service", parameters={"neighbours": 3})


class Terminal(io.StringIO):
    """Standard error, as a terminal."""

    def isatty(self):
        return True


def test_a_terminal_shows_a_bar_for_all_and_one_a_run_and_ends_at_100_percent(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "160")
    with RunProgress(2) as progress:
        assert isinstance(progress._display, LiveBars)
        specs = [SPEC, RunSpec("knn", "demo", "service", parameters={"neighbours": 5})]
        for spec in specs:
            progress(spec, "begins", {})
        assert len(progress._display._bars) == 3
        for spec in specs:
            progress.outcome(Outcome(spec, "done"))
    seen = terminal.getvalue()
    assert "(neighbours=3) begins" in seen and "(neighbours=5) done" in seen
    last = seen.replace("\x1b[?25h", "").rstrip().splitlines()[-1]
    assert "100%" in last and "2 of 2 runs" in last


def test_the_last_line_of_progress_is_told_where_there_is_no_terminal(capsys):
    display = PlainLines()
    for done in (1, 2, 3, 3):
        display.show(f"{done} of 3", done, 3)
    assert capsys.readouterr().err == "1 of 3\n3 of 3\n"


def test_workers_tell_which_run_they_begin(place):
    tracker, seen = place.tracker(), []
    options = RunOptions(jobs=2, progress=lambda spec, stage, values: seen.append((spec.split.seed, stage)))
    assert {outcome.status for outcome in run_matrix(place.specs("majority", seeds=[0, 1]), tracker, options)} == {
        "done"
    }
    assert sorted(seen) == [(0, "begins"), (1, "begins")]


# --- words ---


def test_long_names_are_shortened_for_people_alone():
    names = ["a" * 70 + "1" + "b" * 70, "a" * 70 + "2" + "b" * 70, "c" * 100]
    for kept in (names[::2], names):  # of the second the middle is what tells them apart
        table = Table("", ["class", "n"], [[name, "1"] for name in kept], (), [{"class": name} for name in kept])
        assert all(name in render(table, form) for name in kept for form in ("csv", "json", "md", "html", "tex"))
        assert ("…" in render(table)) == (kept != names)
    assert render(Table("", ["class", "n"], [["x", "c" * 100]])).endswith("c" * 100)  # nothing stands behind it


def test_a_split_is_a_table_with_its_warnings_on_top(bench, tmp_path):
    status, out, _ = bench("split", "apps", "--split", "capture")
    lines = out.splitlines()
    head = next(number for number, line in enumerate(lines) if line.split() == ["class", "train", "validation", "test"])
    assert status == 0 and all(line.startswith("WARNING") for line in lines[:head])
    names = [line.split()[0] for line in lines[head + 2 :]]
    assert names[:2] == sorted(path.name for path in (tmp_path / "apps").iterdir())[:2]
    assert "all samples" in out and "all groups" in out and "proof" in out


def test_the_package_is_a_command():
    done = subprocess.run([sys.executable, "-m", "bench", "--version"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and done.stdout.startswith("bench, version")
    done = subprocess.run([sys.executable, "-m", "bench", "table", "--results", "no"], capture_output=True, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.startswith(b"bench: ")


def test_a_store_opened_for_reading_takes_nothing(place):
    tracker = place.tracker()
    place.run(tracker, "majority", seeds=[0])
    reading = Tracker(tracker.results, reading=True)
    assert len(reading.rows()) == 1 and reading.ids() == [row.run_id for row in reading.rows()]
    with refused("storage-failed", "mlflow.db"), reading._answering(), reading._engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM runs")
    shutil.copy(tracker.address.file, tracker.results / "mlflow.db-journal")  # left by a killed process: not hot
    assert len(Tracker(tracker.results, reading=True).rows()) == 1
