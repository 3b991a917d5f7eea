"""Runs that travel: the same there as here, once, and nothing else is let in."""

import json
import re
import shutil
import sqlite3

import pytest
from refusals import refused

from bench.analysis.comparison import compare, comparison_table
from bench.analysis.tables import results_table
from bench.render.table import FORMATS, render
from bench.report.page import write as write_report
from bench.runs.models import fitted
from bench.tracking import writing
from bench.tracking.bundle import import_bundle, write_bundle
from bench.tracking.pruning import shown_runs
from bench.tracking.selection import Wanted, chosen, stored_runs
from bench.tracking.tracker import Tracker


@pytest.fixture(scope="module")
def arrived(place, bundle):
    tracker = place.tracker()
    assert len(import_bundle(tracker, bundle).imported) == 7
    return tracker


def without_ids(text, tracker):
    for number, one in enumerate(stored_runs(tracker)):
        text = text.replace(one.row.run_id, f"run {number}").replace(one.row.run_id[:8], f"run {number}")
    return text


@pytest.mark.parametrize("form", FORMATS)
def test_tables_there_are_those_here_to_the_byte(filled, arrived, form):
    here, there = (render(results_table(tracker.search(), footnotes=True), form) for tracker in (filled, arrived))
    assert without_ids(here, filled) == without_ids(there, arrived) and "curved" in here.lower()
    assert here == there or form in ("json", "csv")  # which name run ids


def test_what_a_run_is_comes_along(filled, arrived):
    for here, there in zip(stored_runs(filled), stored_runs(arrived), strict=True):
        assert (here.row.started, here.row.ended, here.row.name) == (there.row.started, there.row.ended, there.row.name)
        assert here.uid == there.uid and here.row.run_id != there.row.run_id
        assert here.record.metrics == there.record.metrics and here.record.spec == there.record.spec
        assert there.record.imported.startswith("bundle-") and not here.record.imported
        assert sorted(filled.history(here.row)[0]) == sorted(arrived.history(there.row)[0])
        assert filled.history(here.row)[1] == arrived.history(there.row)[1]
        arrived.load(there.row.run_id).check()


def test_imported_runs_are_compared_and_reported(filled, arrived, tmp_path):
    texts = []
    for tracker in (filled, arrived):
        ids = [one.row.run_id for one in stored_runs(tracker) if one.record.status == "done"]
        table = comparison_table(compare([tracker.load(ids[0])], [tracker.load(ids[3])]))
        texts.append((without_ids(render(table), tracker), without_ids(render(table, "json"), tracker)))
        write_report(tracker, tmp_path / "page.html")
        page = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "", (tmp_path / "page.html").read_text())
        texts[-1] += (without_ids(page.replace(f" --results {tracker.results.name}", ""), tracker),)
    assert texts[0] == texts[1]


def test_the_same_runs_give_the_same_bytes_also_from_where_they_came_to(place, filled, arrived, bundle):
    for tracker in (filled, arrived):
        file = place.file()
        write_bundle(tracker, stored_runs(tracker), file)
        assert file.read_bytes() == bundle.read_bytes()
    assert str(filled.results).encode() not in bundle.read_bytes()  # nor a machine's path


def test_the_order_in_which_a_store_tells_things_is_none_of_a_bundle_s(place, filled, bundle, monkeypatch):
    def backwards(tracker, row):
        points, parameters = told(tracker, row)
        return points[::-1], dict(reversed(parameters.items()))

    told, file = Tracker.history, place.file()
    monkeypatch.setattr(Tracker, "history", backwards)
    write_bundle(filled, stored_runs(filled), file)
    assert file.read_bytes() == bundle.read_bytes()


def test_runs_of_one_moment_keep_their_order(place, filled):
    here, there = place.copy(filled), place.tracker()
    with sqlite3.connect(here.address.file) as database:
        database.execute("UPDATE runs SET start_time = 1000, end_time = 2000")
    files = [place.file(), place.file()]
    write_bundle(here, stored_runs(here), files[0])
    import_bundle(there, files[0])
    write_bundle(there, stored_runs(there), files[1])
    assert files[0].read_bytes() == files[1].read_bytes()
    names = [[(run.spec.method, run.spec.split.seed) for run in tracker.search()] for tracker in (here, there)]
    assert names[0] == names[1]
    assert {one.row.run_id for one in shown_runs(stored_runs(there))} == {run.run_id for run in there.search()}


def test_a_second_import_adds_nothing(arrived, bundle):
    again = import_bundle(arrived, bundle)
    assert (again.imported, again.there, len(stored_runs(arrived))) == ([], 7, 7)


def test_what_another_process_brought_meanwhile_is_there_once(place, bundle):
    tracker = place.tracker()
    take, others = tracker.claims.take, []

    def late(name):
        if not others:
            others.append(import_bundle(Tracker(tracker.results), bundle))
        return take(name)

    tracker.claims.take = late
    ours = import_bundle(tracker, bundle)
    assert (len(others[0].imported), ours.imported, ours.there, len(stored_runs(tracker))) == (7, [], 7, 7)


def test_models_travel_on_request(place, filled, arrived, command_line):
    (run, *_) = chosen(stored_runs(filled), Wanted(methods=["majority"]))
    file, tracker = place.file(), place.tracker()
    write_bundle(filled, [run], file, models=True)
    assert len(import_bundle(tracker, file).imported) == 1
    (there,) = stored_runs(tracker)
    assert fitted(tracker.load(there.row.run_id)).name == "majority"
    (without,) = chosen(stored_runs(arrived), Wanted(runs=[run.uid]))
    with refused("missing-artefact", "stayed behind", "--models"):
        fitted(arrived.load(without.row.run_id))
    words = ["results", "export", place.file(), "--models", "--method", "majority", "--results"]
    assert "3 of these runs have no model here" in command_line(*words, arrived.results)[2]
    words[2] = place.file()
    assert command_line(*words, filled.results)[2] == ""


def test_runs_of_before_are_called_by_their_ids(place, filled):
    old, tracker = place.copy(filled), place.tracker()
    with sqlite3.connect(old.address.file) as database:
        database.execute("DELETE FROM tags WHERE key = 'bench.uid'")
    file = place.file()
    write_bundle(old, stored_runs(old), file)
    import_bundle(tracker, file)
    assert {one.uid for one in stored_runs(tracker)} == {one.row.run_id for one in stored_runs(filled)}
    assert import_bundle(old, file).there == 7 and import_bundle(tracker, file).there == 7


@pytest.mark.parametrize("broken", ["_begin", "_hand_over", "complete"])
@pytest.mark.parametrize("by_sync", [False, True])
def test_an_import_that_was_broken_off_goes_on(place, filled, bundle, broken, by_sync, monkeypatch):
    tracker, step, calls = place.tracker(), getattr(writing, broken), []

    def goes_away(*given):
        calls.append(given)
        if len(calls) > 2:
            raise ConnectionError("no route")
        return step(*given)

    with monkeypatch.context() as patch:
        patch.setattr(writing, broken, goes_away)
        with refused("storage-failed", "again to continue"):
            import_bundle(tracker, bundle)
    again = Tracker(tracker.results)
    if by_sync:
        assert len(again.sync()) == 1
    assert len(import_bundle(again, bundle).imported) + by_sync + 2 >= 7
    ours = {one.uid: one.record.metrics for one in stored_runs(filled)}
    assert {one.uid: one.record.metrics for one in stored_runs(again)} == ours and len(stored_runs(again)) == 7
    assert {one.record.status for one in stored_runs(again)} == {"done", "failed"}
    assert not list((again.results / "pending").iterdir()) and not again.claims.holders()


def test_of_two_runs_by_one_name_neither_is_lost(arrived, place, bundle):
    tracker = place.copy(arrived)
    with sqlite3.connect(tracker.address.file) as database:
        database.execute("UPDATE tags SET value = 'z' || substr(value, 2) WHERE key = 'file.000'")

    with refused("run-mismatch", "results rm"):
        import_bundle(tracker, bundle)


def test_a_run_that_is_not_what_it_was_does_not_leave(place):
    tracker = place.tracker()
    place.run(tracker, "majority", seeds=[0])
    (run,) = stored_runs(tracker)
    with tracker.files.read(run.row) as folder:
        (folder / "result.json").write_text("{}")
    with refused("run-damaged", "result.json"):
        write_bundle(tracker, [run], file := place.file())
    with tracker.files.read(run.row) as folder:
        (folder / "result.json").unlink()
    with refused("run-damaged", "gone"):
        write_bundle(tracker, [run], file)
    assert not file.exists() and not list(file.parent.glob(".*zip"))


def test_a_method_of_a_file_stays_a_name(place, bundle, command_line, monkeypatch):
    """Not even where the file is there: it is never opened."""
    tracker, own = place.tracker(), place.folder / "own.py"
    kept, loud = own.read_text(), place.folder / "loud"
    own.write_text(f"open({str(loud)!r}, 'w')\n")
    try:
        for words in (
            ["import", bundle],
            ["show"],
            ["show", "--status", "failed"],
            ["prune", "--models", "none", "--yes"],
        ):
            status, _, err = command_line("results", *words, "--results", tracker.results)
            assert status == 0, err
        assert command_line("table", "--results", tracker.results)[0] == 0
    finally:
        own.write_text(kept)
    assert not loud.exists()


# --- the commands ------------------------------------------------------------------------------------------------


def test_export_and_import_by_command(place, filled, command_line):
    file, results = place.file(), place.tracker().results
    asked = ["results", "export", file, "--results", filled.results]
    status, out, err = command_line(*asked, "--method", "majority", "--json")
    assert (status, len(json.loads(out)["runs"])) == (0, 3), err
    status, _, err = command_line(*asked)
    assert status == 2 and "already exists" in err
    status, out, _ = command_line("results", "import", file, "--results", results)
    assert (status, out) == (0, "3 runs imported, 0 were there\n")
    shutil.copy(file, cut := place.file())
    cut.write_bytes(cut.read_bytes()[:-9])
    for at in (results, unmade := results / "unmade"):
        status, out, err = command_line("results", "import", cut, "--results", at)
        assert (status, out, len(err.splitlines())) == (2, "", 1) and "[bad-bundle]" in err
    assert not unmade.exists()
    status, out, err = command_line("results", "import", file, "--results", unmade)
    assert (status, out) == (0, "3 runs imported, 0 were there\n") and "unmade: a new results folder" in err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--method", "nothing"], ["majority", "no-runs"]),
        (["--dataset", "nothing"], ["tiny"]),
        (["--status", "skipped"], ["done", "failed"]),
        (["--status", "splendid"], ["killed", "bad-options"]),
        (["--run", "zz"], ["unknown-run"]),
        (["--split", "session"], ["capture"]),
    ],
)
@pytest.mark.parametrize("command", ["export", "show", "rm", "prune"])
def test_a_filter_that_matches_nothing_says_what_there_is(filled, place, command_line, command, words, named):
    file = place.file()
    more = [file] if command == "export" else []
    status, out, err = command_line("results", command, *more, *words, "--results", filled.results)
    assert (status, out, len(err.splitlines())) == (2, "", 1) and all(name in err for name in named)
    assert not file.exists()
