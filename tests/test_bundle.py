"""Runs that travel: the same there as here, once, and nothing else is let in."""

import io
import json
import re
import shutil
import sqlite3
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refused
from stored_runs import forged, indexed, members_of, place_in, write_members

from bench.analysis.comparison import compare, comparison_table
from bench.analysis.tables import results_table
from bench.errors import InputError
from bench.render.table import FORMATS, render
from bench.report.page import write as write_report
from bench.runs.models import fitted
from bench.tracking.bundle import INDEX, import_bundle, opened, write_bundle
from bench.tracking.proof import latest_of
from bench.tracking.results import Predictions
from bench.tracking.selection import Wanted, chosen, stored_runs
from bench.tracking.tracker import Tracker


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with place_in(tmp_path_factory) as made:
        yield made


@pytest.fixture(scope="module")
def filled(place):
    """Three runs of a method with curves, three of another, one that failed."""
    tracker = place.tracker()
    place.run(tracker, "Curved", "majority")
    place.run(tracker, "Broken", seeds=[0])
    return tracker


@pytest.fixture(scope="module")
def bundle(place, filled):
    file = place.file()
    write_bundle(filled, stored_runs(filled), file)
    return file


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
        texts[-1] += (without_ids(page.replace(str(tracker.results), ""), tracker),)
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


class Broken:
    """A client of a store that goes away when asked for the n-th time to do one thing."""

    def __init__(self, client, name, number):
        self.client, self.name, self.left = client, name, number

    def __getattr__(self, name):
        if name == self.name:
            self.left -= 1
            if self.left < 0:
                raise ConnectionError("no route")
        return getattr(self.client, name)


@pytest.mark.parametrize("broken", ["create_run", "log_artifact", "log_batch", "set_terminated"])
@pytest.mark.parametrize("by_sync", [False, True])
def test_an_import_that_was_broken_off_goes_on(place, filled, bundle, broken, by_sync):
    tracker = place.tracker()
    tracker._client = Broken(tracker._client, broken, 2)
    with refused("storage-failed", "goes on"):
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
        database.execute("UPDATE tags SET value = '0' || substr(value, 2) WHERE key = 'file.000'")

    with refused("run-mismatch", "results rm"):
        import_bundle(tracker, bundle)


def test_a_run_that_is_not_what_it_was_does_not_leave(place):
    tracker = place.tracker()
    place.run(tracker, "majority", seeds=[0])
    (run,) = stored_runs(tracker)
    with tracker.files(run.row) as folder:
        (folder / "result.json").write_text("{}")
    with refused("run-damaged", "result.json"):
        write_bundle(tracker, [run], file := place.file())
    with tracker.files(run.row) as folder:
        (folder / "result.json").unlink()
    with refused("run-damaged", "gone"):
        write_bundle(tracker, [run], file)
    assert not file.exists() and not list(file.parent.glob(".*zip"))


# --- what is let in ----------------------------------------------------------------------------------------------


def not_imported(place, file, *named, code="bad-bundle"):
    """Refused in one line, before anything is written."""
    results = file.with_suffix(".none")
    with refused(code, file, *named):
        import_bundle(Tracker(results), file)
    assert not results.exists()


def first_run(members):
    return json.loads(members[INDEX])["runs"][0]["name"]


def packed(members):
    return members, zipfile.ZIP_DEFLATED


def altered(change):
    def apply(members):
        home = f"runs/{first_run(members)}"
        return change(dict(members), home)

    return apply


def of_record(**fields):
    """Another run.json, and an index that knows its digest."""

    def change(members, home):
        record = json.loads(members[f"{home}/run.json"])
        for name, value in fields.items():
            if isinstance(value, dict):
                record[name] |= value
            else:
                record[name] = value
        return indexed(members | {f"{home}/run.json": json.dumps(record).encode()})

    return altered(change)


FOREIGN = {
    "no member": altered(lambda m, home: {n: c for n, c in m.items() if n != f"{home}/result.json"}),
    "one more": altered(lambda m, home: {f"{home}/more.txt": b"x", **m}),
    "another content": altered(lambda m, home: m | {f"{home}/result.json": b"{}"}),
    "another word": altered(
        lambda m, home: m | {f"{home}/run.json": m[f"{home}/run.json"].replace(b'"reason": ""', b'"reason": "x"')}
    ),
    "out of its folder": altered(lambda m, home: indexed(m | {f"{home}/../../../slip.txt": b"x"})),
    "an absolute path": altered(lambda m, home: indexed(m | {"/tmp/slip.txt": b"x"})),
    "a backslash": altered(lambda m, home: indexed(m | {f"{home}/..\\slip.txt": b"x"})),
    "a file that is a folder": altered(lambda m, home: indexed(m | {f"{home}/result.json/x": b"x"})),
    "a file that the run did not write": altered(lambda m, home: indexed(m | {f"{home}/more.txt": b"x"})),
    "no index": lambda m: {n: c for n, c in m.items() if n != INDEX},
    "an index of nothing": lambda m: m | {INDEX: b"[]"},
    "an index of tomorrow": lambda m: m | {INDEX: m[INDEX].replace(b'"format": 1', b'"format": 2')},
    "no run.json": altered(lambda m, home: indexed({n: c for n, c in m.items() if n != f"{home}/run.json"})),
    "a run.json of nothing": altered(lambda m, home: indexed(m | {f"{home}/run.json": b"[]"})),
    "a run.json too deep": altered(lambda m, home: indexed(m | {f"{home}/run.json": b"[" * 100_000})),
    "another run's name": of_record(tags={"bench.uid": "other"}),
    "another digest": of_record(tags={"bench.digest": "0" * 16}),
    "a specification of nothing": of_record(tags={"bench.spec": "{"}),
    "another seed on the page": of_record(tags={"seed": "99"}),
    "a tag of MLflow": of_record(tags={"mlflow.parentRunId": "0" * 32}),
    "another experiment": of_record(experiment="bench/other/task"),
    "a status of its own": of_record(status="excellent"),
    "a run that lasts": of_record(status="running"),
    "a time that is none": of_record(started="yesterday"),
    "a time beyond all": of_record(ended=10**30),
    "a point of nothing": of_record(points=[["macro_f1"]]),
    "a point that is no number": of_record(points=[["macro_f1", "1", 0, 0]]),
    "a number beyond all": of_record(points=[["macro_f1", 10**400, 0, 0]]),
    "a name that no store takes": of_record(parameters={"a\nb": "1"}),
    "a file of another folder": of_record(tags={"file.900": f"{'0' * 64}  model/../../../x"}),
    "packed members": packed,
    "answers that are none": altered(lambda m, home: forged(m, home.removeprefix("runs/"), predictions_npz=b"PK")),
}


WORDS = {  # by which rule it is refused, where another one would do it, too
    "another word": "not what the index says",
    "one more": "not those that its index names",
    "out of its folder": "leads out",
    "an absolute path": "leads out",
    "a backslash": "leads out",
    "an index of tomorrow": "format 2",
    "a run.json too deep": "recursion",
    "another run's name": "another run",
    "another digest": "digest",
    "another seed on the page": "tag seed",
    "a tag of MLflow": "MLflow's own",
    "a run that lasts": "status",
    "a time beyond all": "a time or step",
    "a point of nothing": "is no name, number",
    "a name that no store takes": "too long, or has signs",
    "a file of another folder": "no file of a run",
    "packed members": "is packed",
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_no_sound_bundle_is_refused_before_anything_is_written(place, bundle, what):
    made = FOREIGN[what](members_of(bundle))
    members, packing = made if isinstance(made, tuple) else (made, zipfile.ZIP_STORED)
    not_imported(place, write_members(place.file(), members, packing), WORDS.get(what, ""))
    assert not list(place.folder.rglob("slip*"))


def test_answers_that_unpack_without_end_are_not_unpacked(place, bundle, monkeypatch):
    monkeypatch.setattr("bench.tracking.bundle.ANSWERS", 1 << 20)
    held, members = io.BytesIO(), members_of(bundle)
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as arrays:
        arrays.writestr("truth.npy", bytes(1 << 21))
    file = write_members(place.file(), forged(members, first_run(members), predictions_npz=held.getvalue()))
    not_imported(place, file, f"unpacks to {1 << 21} bytes")


def test_no_file_and_no_zip_are_refused(place):
    not_imported(place, place.file(), code="missing-file")
    file = place.file()
    for content in (b"", b"PK", b"x" * 1000):
        file.write_bytes(content)
        not_imported(place, file)


def proved_content(file):
    """All that a bundle's reader gives on: index, records and digests of files."""
    with opened(file) as source:
        return [source.index, [source.checked(run) for run in source.index.runs]]


@pytest.fixture(scope="module")
def small(place, filled):
    file = place.file()
    runs = [one for one in stored_runs(filled) if one.record.status == "failed"] + stored_runs(filled)[:1]
    write_bundle(filled, runs, file)
    return file.read_bytes(), proved_content(file)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_refused_or_harmless(small, tmp_path, data):
    whole, content = small
    kind = data.draw(st.sampled_from(["flip", "cut", "middle", "swap", "longer"]))
    first, second = sorted(data.draw(st.tuples(*[st.integers(0, len(whole) - 1)] * 2)))
    other = data.draw(st.binary(min_size=1, max_size=40))
    damaged = {
        "flip": whole[:first] + bytes([whole[first] ^ (1 << second % 8)]) + whole[first + 1 :],
        "cut": whole[:first],
        "middle": whole[:first] + whole[second:],
        "swap": whole[:first] + other + whole[first + len(other) :],
        "longer": whole[:first] + other + whole[first:],
    }[kind]
    file = tmp_path / "damaged.zip"
    file.write_bytes(damaged)
    try:
        found = proved_content(file)
    except InputError as error:
        assert error.code == "bad-bundle" and len(str(error).splitlines()) == 1
    else:
        assert found == content


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_members_that_change_places_are_refused(bundle, tmp_path, data):
    members = members_of(bundle)
    one, other = data.draw(st.lists(st.sampled_from(sorted(members)), min_size=2, max_size=2, unique=True))
    swapped = dict(members) | {one: members[other], other: members[one]}
    if swapped == members:
        return  # two runs answered alike
    file = tmp_path / "swapped.zip"
    file.unlink(missing_ok=True)
    with pytest.raises(InputError) as caught:
        proved_content(write_members(file, swapped))
    assert caught.value.code == "bad-bundle"


# --- cheats ------------------------------------------------------------------------------------------------------


def better(record, name="macro_f1", value=0.999):
    return {**record, "points": [[n, value if n == name else v, at, s] for n, v, at, s in record["points"]]}


@pytest.mark.parametrize("name", ["macro_f1", "accuracy", "macro_f1_low", "f1/chat", "training_accuracy"])
def test_a_better_score_in_the_record_alone_is_refused(place, bundle, name):
    members = members_of(bundle)
    path = f"runs/{first_run(members)}/run.json"
    changed = better(json.loads(members[path]), name)
    file = write_members(place.file(), indexed(members | {path: json.dumps(changed).encode()}))
    not_imported(place, file, name)


@pytest.mark.parametrize("name", ["macro_f1", "brier", "macro_recall_high"])
def test_a_better_score_in_record_and_result_is_refused_by_the_answers(place, bundle, name):
    members = members_of(bundle)
    run = first_run(members)
    result = json.loads(members[f"runs/{run}/result.json"])
    result["metrics"][name] = 0.999
    result["scores"] |= {name: 0.999} if name in result["scores"] else {}
    record = better(json.loads(members[f"runs/{run}/run.json"]), name)
    members[f"runs/{run}/run.json"] = json.dumps(record).encode()
    file = write_members(place.file(), forged(members, run, result_json=json.dumps(result).encode()))
    not_imported(place, file, name, "by what the run answered")


def test_a_confusion_matrix_that_does_not_follow_from_the_answers_is_refused(place, bundle):
    members = members_of(bundle)
    run = first_run(members)
    result = json.loads(members[f"runs/{run}/result.json"])
    result["scores"]["confusion"] = np.diag([9, 9, 9]).tolist()
    file = write_members(place.file(), forged(members, run, result_json=json.dumps(result).encode()))
    not_imported(place, file, "confusion")


def test_other_answers_need_other_scores(place, bundle, tmp_path):
    """Who forges all of it alike is not found out, and is told apart by being imported alone."""
    members = members_of(bundle)
    run = first_run(members)
    (tmp_path / "p.npz").write_bytes(members[f"runs/{run}/predictions.npz"])
    answers = Predictions.load(tmp_path / "p.npz")
    answers.probabilities[:] = np.eye(len(answers.classes), dtype=np.float32)[answers.truth]
    answers.save(tmp_path / "p.npz")
    file = write_members(place.file(), forged(members, run, predictions_npz=(tmp_path / "p.npz").read_bytes()))
    not_imported(place, file, "does not follow")


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


def test_the_newest_point_is_what_a_store_takes_for_it():
    points = [["a", 1.0, 5, 0], ["a", 3.0, 4, 1], ["a", 2.0, 5, 1], ["b", float("nan"), 0, 0], ["b", 1.0, 0, 0]]
    assert latest_of(points) == {"a": 2.0, "b": 1.0}


# --- the commands ------------------------------------------------------------------------------------------------


def test_export_and_import_by_command(place, filled, command_line):
    file, results = place.file(), place.tracker().results
    asked = ["results", "export", file, "--results", filled.results]
    status, out, err = command_line(*asked, "--method", "majority", "--json")
    assert (status, len(json.loads(out)["runs"])) == (0, 3), err
    status, _, err = command_line(*asked)
    assert status == 2 and "is there already" in err
    status, out, _ = command_line("results", "import", file, "--results", results)
    assert (status, out) == (0, "3 runs imported, 0 were there\n")
    shutil.copy(file, cut := place.file())
    cut.write_bytes(cut.read_bytes()[:-9])
    status, out, err = command_line("results", "import", cut, "--results", results)
    assert (status, out, len(err.splitlines())) == (2, "", 1) and "[bad-bundle]" in err


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
