"""What is removed from a store, what never is, and what remains of what."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys

import pytest
from refusals import refused

from bench.analysis.tables import results_table
from bench.files import begun_folder
from bench.render.table import render
from bench.runs.models import fitted
from bench.spec import RunSpec
from bench.tracking.claims import Claims
from bench.tracking.pruning import POLICIES, carry_out, plan_pruning, plan_removal, shown_runs
from bench.tracking.selection import Wanted, chosen, stored_runs
from bench.tracking.tracker import Tracker

TABLES = ("runs", "tags", "params", "metrics", "latest_metrics")


def add(tracker, *, status="done", model=b"weights", validation=None, **fields):
    """A run written by hand."""
    spec = RunSpec.from_dict({"method": "majority", "dataset": "tiny", "task": "kind"} | fields)
    run = tracker.start(spec, spec.name, {"row": spec.but_place.name})
    run.metrics({"macro_f1": 0.5} | ({} if validation is None else {"validation_macro_f1": validation}))
    run.parameters({"packets": 4})
    with run.artefacts() as folder:
        (folder / "note.txt").write_text("what it found")
        if model:
            (folder / "model").mkdir()
            (folder / "model" / "weights").write_bytes(model)
    run.end(status, "" if status == "done" else "because")
    return run.run_id


def ids(runs):
    return [one.row.run_id for one in runs]


def held(tracker):
    """Ids that any table or folder of a store has."""
    with sqlite3.connect(tracker.address.file) as database:
        found = {table: {row[0] for row in database.execute(f"SELECT run_uuid FROM {table}")} for table in TABLES}
    return found | {"files": {path.name for path in (tracker.results / "artifacts").iterdir()}}


def test_what_is_removed_is_nowhere_any_more_and_the_rest_is_whole(place):
    tracker = place.tracker()
    gone, stays = add(tracker, seed=1, model=bytes(10**6)), add(tracker, seed=2)
    study = RunSpec("majority", "tiny", "kind")
    with tracker.study("s", study) as of_study, of_study.trial(0, {"packets": 4}) as log:
        log({"validation_macro_f1": 0.3})
    with sqlite3.connect(tracker.address.file) as database:
        rows = ((gone, "step/loss", step, step, step, 0) for step in range(20_000))
        database.executemany(
            "INSERT INTO metrics (run_uuid, key, value, timestamp, step, is_nan) VALUES (?,?,?,?,?,?)", rows
        )
    before = tracker.address.file.stat().st_size
    plan = plan_removal(tracker, chosen(stored_runs(tracker), Wanted(runs=[gone])))
    assert carry_out(tracker, plan, "") == ""
    assert all(gone not in having for having in held(tracker).values())
    assert all(stays in having for having in held(tracker).values())
    assert of_study.run_id in held(tracker)["runs"] and len(held(tracker)["runs"]) == 3  # the trial, too
    assert tracker.address.file.stat().st_size < before - 500_000
    tracker.load(stays).check()


def test_what_a_living_process_computes_stays(place):
    tracker = place.tracker()
    add(tracker, seed=1)
    add(tracker, seed=2)
    other, (first, second) = Claims(tracker.address), stored_runs(tracker)
    assert other.take(first.record.digest) is None
    plan = plan_removal(tracker, [first, second])
    assert (ids(plan.runs), ids(plan.claimed)) == ([second.row.run_id], [first.row.run_id])
    told = []
    assert other.take(second.record.digest) is None  # after the plan
    carry_out(tracker, plan, "", told.append)
    assert len(stored_runs(tracker)) == 2 and second.row.run_id[:8] in told[0]
    other.let_go(first.record.digest)
    carry_out(tracker, plan_removal(tracker, [first]), "")
    assert ids(stored_runs(tracker)) == [second.row.run_id] and other.holders().keys() == {second.record.digest}


def test_pruning_changes_no_table(place):
    tracker = place.tracker()
    old, new = add(tracker, seed=1), add(tracker, seed=1)
    later_failed = add(tracker, seed=1, status="failed")
    only_failed, killed = add(tracker, seed=2, status="failed"), add(tracker, seed=3, status="killed")
    failed_again = add(tracker, seed=2, status="failed")
    before, runs = render(results_table(tracker.search()), "json"), stored_runs(tracker)
    assert ids(shown_runs(runs)) == [new, killed, failed_again] and only_failed not in ids(shown_runs(runs))
    plan = plan_pruning(tracker, runs, runs, "all", leftovers=True)
    assert sorted(ids(plan.runs)) == sorted([old, later_failed, only_failed]) and not plan.models
    few = plan_pruning(tracker, runs, chosen(runs, Wanted(statuses=["failed"])), "none", leftovers=False)
    assert sorted(ids(few.runs)) == sorted([later_failed, only_failed]) and not few.models
    carry_out(tracker, plan, "")
    assert render(results_table(tracker.search()), "json") == before
    assert ids(stored_runs(tracker)) == [new, killed, failed_again]
    again = stored_runs(tracker)
    assert plan_pruning(tracker, again, again, "all", leftovers=True).is_empty


def test_a_run_that_has_not_ended_is_never_pruned(place):
    tracker = place.tracker()
    done = add(tracker, seed=1)
    (one,) = stored_runs(tracker)
    begun = tracker.start(one.record.spec, "again", {})  # whose claim nobody here sees
    runs = stored_runs(tracker)
    assert sorted(ids(shown_runs(runs))) == sorted([done, begun.run_id])
    assert plan_pruning(tracker, runs, runs, "all", leftovers=True).is_empty


def test_leftovers_of_killed_processes_and_mlflow_s_bin_are_emptied(place):
    tracker = place.tracker()
    binned, stays = add(tracker, seed=1), add(tracker, seed=2)
    tracker._client.delete_run(binned)
    ours = begun_folder(tracker.results / "pending" / "ours")
    code = "import sys; from pathlib import Path; from bench.files import begun_folder; begun_folder(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(ours.parent / "x")], check=True, env=os.environ)
    runs = stored_runs(tracker)
    plan = plan_pruning(tracker, runs, runs, "all", leftovers=True)
    assert [row.run_id for row in plan.binned] == [binned] and len(plan.folders) == 1 and ours not in plan.folders
    carry_out(tracker, plan, "")
    assert all(having == {stays} for having in held(tracker).values()) and list(ours.parent.iterdir()) == [ours]


def test_a_folder_that_is_no_run_s_is_never_removed(place, tmp_path):
    """A database may be anybody's, and say that a run's files are in somebody's home."""
    tracker = place.tracker()
    run = add(tracker, seed=1)
    (tmp_path / "home" / "model").mkdir(parents=True)
    with sqlite3.connect(tracker.address.file) as database:
        database.execute("UPDATE runs SET artifact_uri = ?", [(tmp_path / "home").as_uri()])
    shutil.rmtree(tracker.results / "artifacts")
    (one,) = stored_runs(tracker)
    for act in (tracker.files.remove, lambda row: tracker.files.remove_model(row, "x")):
        with refused("run-damaged", run[:8], tmp_path / "home"):
            act(one.row)
    assert (tmp_path / "home" / "model").is_dir()
    with sqlite3.connect(tracker.address.file) as database:
        database.execute("UPDATE runs SET artifact_uri = ?", [tracker.results.as_uri()])
    (one,) = stored_runs(tracker)
    with refused("run-damaged", tracker.results):
        tracker.files.remove(one.row)


def test_removing_from_a_copy_leaves_the_first_store_whole(place):
    tracker = place.tracker()
    run = add(tracker, seed=1)
    copied = place.copy(tracker)
    alone = place.tracker()
    shutil.copy(tracker.address.file, alone.address.file)  # without its files
    carry_out(copied, plan_removal(copied, stored_runs(copied)), "")
    assert not stored_runs(copied) and not list((copied.results / "artifacts").iterdir())
    with refused("run-damaged", tracker.results):
        carry_out(alone, plan_removal(alone, stored_runs(alone)), "")
    assert (tracker.load(run).folder / "note.txt").is_file() and len(stored_runs(alone)) == 1


@pytest.mark.parametrize("policy", POLICIES)
def test_models_go_by_policy_and_the_record_says_so(place, policy):
    tracker = place.tracker()
    worse, best = add(tracker, seed=0, validation=0.2), add(tracker, seed=1, validation=0.7)
    add(tracker, seed=2, validation=float("nan"))
    first, _ = add(tracker, method="forest", seed=0), add(tracker, method="forest", seed=1)
    alone = add(tracker, method="knn", seed=3)
    add(tracker, method="ports", seed=0, model=None)
    runs = stored_runs(tracker)
    plan = plan_pruning(tracker, runs, runs, policy, leftovers=True)
    carry_out(tracker, plan, f"removed by prune --models {policy}")
    having = [one.row.run_id for one in stored_runs(tracker) if "model/weights" in tracker.files.sizes(one.row)]
    assert having == ([best, first, alone] if policy == "best" else []) and not plan.runs
    record = tracker.load(worse)
    record.check()
    assert record.model == f"removed by prune --models {policy}" and "model/weights" in record.files
    with refused("missing-artefact", worse[:8], f"--models {policy}", "--rerun"):
        fitted(record)
    again = stored_runs(tracker)
    assert plan_pruning(tracker, again, again, policy, leftovers=True).is_empty


@pytest.mark.parametrize(("keep", "left"), [("none", 0), ("best", 1), ("all", 3)])
def test_a_matrix_keeps_the_models_that_it_is_told_to(place, keep, left):
    tracker = place.tracker()
    outcomes = place.run(tracker, "majority", models=keep)
    assert [outcome.status for outcome in outcomes] == ["done"] * 3
    runs = stored_runs(tracker)
    having = [one for one in runs if any(name.startswith("model/") for name in tracker.files.sizes(one.row))]
    assert len(having) == left
    for one in runs:
        record = tracker.load(one.row.run_id)
        record.check()
        assert record.result().scores.macro_f1 == record.metrics["macro_f1"]
        if one in having:
            assert fitted(record).name == "majority"
        else:
            with refused("missing-artefact", f"--keep-models {keep}"):
                fitted(record)
    scores = {one.record.metrics["validation_macro_f1"] for one in runs}
    assert keep != "best" or having[0].record.metrics["validation_macro_f1"] == max(scores)


def test_the_commands_ask_and_tell(place, command_line):
    tracker = place.tracker()
    first, second = add(tracker, seed=1), add(tracker, seed=1)
    where = ["--results", tracker.results]
    for words, named in ((["rm"], "--method"), (["rm", "--run", first], "--yes"), (["prune"], "--yes")):
        status, out, err = command_line("results", *words, *where)
        assert (status, out, len(err.splitlines())) == (2, "", 1) and named in err and "[bad-options]" in err
    assert len(stored_runs(tracker)) == 2
    status, out, _ = command_line("results", "prune", "--models", "none", "--yes", "--json", *where)
    told = json.loads(out)
    assert (status, told["runs"], told["models"]) == (0, [first], [second]) and told["bytes"] == 20 + 7
    assert command_line("results", "prune", *where)[:2] == (0, "nothing to remove\n")
    assert command_line("results", "rm", "--run", second[:12], "--yes", *where)[1].startswith("removed 1 run (13 B)")
    assert command_line("results", "show", *where)[1].startswith("there are no runs yet")


def test_show_lists_runs_with_sums_and_one_in_full(place, command_line, tmp_path):
    tracker = place.tracker()
    place.run(tracker, "Curved", seeds=[0])
    run = stored_runs(tracker)[0].row.run_id
    where = ["--results", tracker.results]
    _, out, _ = command_line("results", "show", *where)
    assert run[:8] in out and "1 run," in out and "models" in out
    told = json.loads(command_line("results", "show", *where, "--json")[1])
    (row,) = told["rows"]
    assert row["id"] == run and 0 < row["model_bytes"] < row["bytes"] == told["bytes"]
    assert row["bytes"] == sum(tracker.files.sizes(stored_runs(tracker)[0].row).values())
    status, out, err = command_line("results", "show", run[:10], "--figures", tmp_path / "drawn", "--json", *where)
    shown = json.loads(out)
    assert status == 0 and all(line.endswith("as it was written") for line in shown["files"].values()), err
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == [
        f"{run[:8]}-{n}.png" for n in ("confusion", "curves")
    ]
    with tracker.files.read(stored_runs(tracker)[0].row) as folder:
        (folder / "result.json").write_text("{}")
        (folder / "predictions.npz").unlink()
    files = json.loads(command_line("results", "show", run, "--json", *where)[1])["files"]
    assert files["result.json"].endswith("CHANGED") and files["predictions.npz"] == "GONE"
    status, _, err = command_line("results", "show", run, "--method", "x", *where)
    assert status == 2 and "[bad-options]" in err
    assert command_line("results", "show", "--figures", tmp_path, *where)[0] == 2


def test_nothing_is_made_where_nothing_is(command_line, tmp_path):
    for words in (["show"], ["rm", "--run", "a", "--yes"], ["export", tmp_path / "b.zip"]):
        assert command_line("results", *words, "--results", tmp_path / "none")[0] == 2
    assert command_line("results", "prune", "--results", tmp_path / "none")[:2] == (2, "")
    assert not (tmp_path / "none").exists() and Tracker(tmp_path / "none").binned() == []
