"""The leaderboard: what bundles hold, the same bytes for the same bundles, and nothing that cannot be believed."""

import csv
import dataclasses
import html
import io
import json
import lzma
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from refusals import refused
from stored_runs import forged, indexed, members_of, write_members

from bench.data.store import Store
from bench.matrix.cells import run_matrix
from bench.report.leaderboard import write
from bench.report.submissions import Submissions, held_against_data
from bench.runs.plan import expand
from bench.scores.jackknife import count_groups, intervals
from bench.scores.metrics import decide, evaluate
from bench.spec import SplitSpec
from bench.suites.contents import suite_with_digests
from bench.tracking.bundle import import_bundle, write_bundle
from bench.tracking.results import Predictions
from bench.tracking.selection import Wanted, chosen, stored_runs

COMMITTED = Path(__file__).parents[1] / "results" / "leaderboard"


@pytest.fixture(scope="module")
def bundles(place, filled):
    """A bundle a method."""
    made = {}
    for method in ("majority", "Curved", "Broken"):
        made[method] = place.file()
        write_bundle(filled, chosen(stored_runs(filled), Wanted(methods=[method])), made[method])
    return made


@pytest.fixture
def folder(bundles, tmp_path):
    """A folder of two people's bundles."""
    made = tmp_path / "board"
    made.mkdir()
    shutil.copy(bundles["majority"], made / "ann.zip")
    shutil.copy(bundles["Curved"], made / "bob.zip")
    return made


def lines_of(folder):
    return list(csv.DictReader((folder / "leaderboard.csv").read_text().splitlines()))


def test_each_line_has_its_scores_cost_origin_and_bundle(folder, filled, command_line):
    status, out, _ = command_line("leaderboard", folder)
    assert status == 0 and "2 lines of 2 bundles" in out
    lines = {line["bundle"]: line for line in lines_of(folder)}
    scores = [run.metrics["macro_f1"] for run in filled.search(method="majority")]
    assert float(lines["ann.zip"]["macro_f1"]) == pytest.approx(np.mean(scores))
    assert float(lines["ann.zip"]["macro_f1_sd"]) == pytest.approx(np.std(scores, ddof=1))
    assert (lines["ann.zip"]["origin"], lines["ann.zip"]["runs"]) == ("shipped", "3")
    assert lines["bob.zip"]["origin"].startswith("file ") and lines["bob.zip"]["label"].endswith("own.py:Curved")
    assert all(float(line["seconds_fit"]) >= 0 and len(line["bundle_sha256"]) == 64 for line in lines.values())
    page = html.unescape((folder / "index.html").read_text())
    for told in ("majority", "own.py:Curved", "ann.zip", lines["bob.zip"]["bundle_sha256"], "±", "macro_f1"):
        assert told in page


def test_the_interval_of_a_line_is_that_of_its_pooled_test_parts(folder, filled, command_line):
    assert command_line("leaderboard", folder)[0] == 0
    runs = {}
    for one in stored_runs(filled):
        if one.record.status == "done":
            runs.setdefault(one.record.spec.method, []).append(filled.load(one.record.run_id).predictions())
    for line in lines_of(folder):
        parts = next(
            parts for method, parts in runs.items() if method.rpartition(":")[2] == line["method"].rpartition(":")[2]
        )
        assert len(parts) == int(line["runs"]) > 1
        truth, groups = (np.concatenate([getattr(part, name) for part in parts]) for name in ("truth", "groups"))
        probabilities = np.concatenate([part.probabilities for part in parts])
        scores = evaluate(truth, probabilities, parts[0].classes)
        for name in ("macro_f1", "accuracy"):
            low, value, high = (float(line[f"{name}_pooled{end}"]) for end in ("_low", "", "_high"))
            assert value == pytest.approx(scores.metrics()[name]) and low <= value <= high
        assert int(line["interval_groups"]) == count_groups(truth, groups, len(parts[0].classes)).smallest
    page = (folder / "index.html").read_text()
    assert "macro_f1 pooled [95 %]" in page and "the test parts of all runs of a line as one" in page


def test_the_same_bundles_give_the_same_bytes(folder, tmp_path, monkeypatch):
    write(Submissions(folder), tmp_path / "one")
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "a machine without data"))
    write(Submissions(folder), tmp_path / "other")
    for name in ("index.html", "leaderboard.csv"):
        text = (tmp_path / "one" / name).read_text()
        assert text == (tmp_path / "other" / name).read_text()
        assert not re.search(r"20\d\d-\d\d-\d\d|\d\d:\d\d", text) and str(tmp_path) not in text


def test_the_page_fetches_nothing_and_its_links_lead_somewhere(folder):
    write(Submissions(folder), folder)
    text = (folder / "index.html").read_text()
    links, names = re.findall(r'href="([^"]*)"', text), re.findall(r' id="([^"]*)"', text)
    assert "default-src 'none'" in html.unescape(text) and len(names) == len(set(names))
    assert all(link[0] == "#" and link[1:] in names for link in links)


def test_a_run_in_two_bundles_is_one_line(folder, place, filled):
    write_bundle(filled, stored_runs(filled), folder / "zoe.zip")
    found = Submissions(folder)
    assert write(found, folder) == 2
    assert {line["bundle"] for line in lines_of(folder)} == {"ann.zip", "bob.zip"}
    assert found.notes == ["zoe.zip: 6 runs also in a bundle before it, shown once"]


def test_the_same_settings_of_two_people_are_two_lines(folder, place):
    again = place.tracker()
    place.run(again, "majority")
    write_bundle(again, stored_runs(again), folder / "zoe.zip")
    write(Submissions(folder), folder)
    assert sorted(line["bundle"] for line in lines_of(folder)) == ["ann.zip", "bob.zip", "zoe.zip"]


def test_the_same_runs_with_other_scores_are_told(folder, place, command_line, monkeypatch):
    again = place.tracker()
    place.run(again, "majority")
    place.run(again, "majority", rerun=True)
    write_bundle(again, stored_runs(again), folder / "zoe.zip")
    found = Submissions(folder)
    assert found.apart == []
    older = [one for name, one in found.runs.items() if found.bundle_of[name] == "zoe.zip"]
    for number, one in enumerate(older):
        one.record.metrics["macro_f1"] += 0.001 * (number + 1)
    (note,) = found.apart
    monkeypatch.setattr(Submissions, "apart", [note])
    assert note in command_line("leaderboard", folder, "--check")[2]
    monkeypatch.undo()
    assert "majority: 3 runs of ann.zip and zoe.zip are the same with other scores, macro_f1 up to 0.0" in note
    write(found, folder)
    page = html.unescape((folder / "index.html").read_text())
    assert note in page and "majority: 3 runs had another score when computed before" in page


def test_the_same_answers_under_two_names_are_told(folder, command_line):
    """`Curved` answers with the most frequent class, as `majority` does."""
    (note,) = Submissions(folder).alike
    assert note.startswith("majority of ann.zip and ") and note.endswith("gave the very same answers in 3 runs")
    assert note in command_line("leaderboard", folder, "--check")[2]
    (folder / "bob.zip").unlink()
    assert not Submissions(folder).alike


def test_every_damaged_bundle_has_a_line_and_nothing_is_written(folder, command_line):
    for name, cut in (("cut.zip", 1000), ("empty.zip", 0)):
        (folder / name).write_bytes((folder / "ann.zip").read_bytes()[:cut])
    for words in ([], ["--check"]):
        status, out, err = command_line("leaderboard", folder, *words)
        assert (status, out) == (2, "") and len(err.splitlines()) == 3, err
        assert [line.split(": ")[1] for line in err.splitlines()[:2]] == ["cut.zip", "empty.zip"]
        assert "2 of 4 bundles refused" in err and "[bad-bundle]" in err
    assert not (folder / "index.html").exists()


def test_scores_that_do_not_follow_from_answers_are_refused(folder):
    members = members_of(folder / "ann.zip")
    run = next(name.split("/")[1] for name in members)
    result = json.loads(members[f"runs/{run}/result.json"])
    result["metrics"]["macro_f1"] = 0.99
    write_members(folder / "ann.zip", forged(members, run, result_json=json.dumps(result).encode()))
    (fault,) = Submissions(folder).faults
    assert fault.startswith("ann.zip: ") and "macro_f1" in fault


def changed(file, change, **tags):
    """A bundle whose first run has other answers or tags, and scores and records that follow from these."""
    members = members_of(file)
    home = next(name.rpartition("/")[0] for name in members)
    kept = Predictions.load(io.BytesIO(members[f"{home}/predictions.npz"]))
    told = dataclasses.replace(kept, probabilities=change(kept))
    scores = evaluate(told.truth, told.probabilities, told.classes)
    ends = intervals(told.truth, decide(told.probabilities), told.groups, classes=len(told.classes))
    numbers = scores.metrics() | {f"f1/{name}": one["f1"] for name, one in scores.per_class.items()}
    numbers |= {f"{name}_{end}": pair[n] for name, pair in ends.items() for n, end in enumerate(("low", "high"))}
    told.save(answers := io.BytesIO())
    result, record = (json.loads(members[f"{home}/{name}.json"]) for name in ("result", "run"))
    result["metrics"] = {name: numbers.get(name, value) for name, value in result["metrics"].items()}
    record["points"] = [[name, numbers.get(name, value), *when] for name, value, *when in record["points"]]
    record["tags"] = {k: v for k, v in record["tags"].items() if not k.startswith("file.")} | tags
    contents = {"predictions.npz": answers.getvalue(), "run.json": json.dumps(record).encode()}
    contents["result.json"] = json.dumps(result | {"scores": scores.to_dict()}).encode()
    write_members(file, indexed(members | {f"{home}/{name}": content for name, content in contents.items()}))


def test_a_run_that_names_no_digests_does_not_stand_for_another_of_its_name(folder, place, tmp_path):
    shutil.copy(folder / "ann.zip", folder / "aaa.zip")
    changed(folder / "aaa.zip", lambda kept: np.eye(len(kept.classes), dtype=np.float32)[kept.truth])
    (fault,) = Submissions(folder).faults
    assert fault.startswith("ann.zip: ") and "is not the one that aaa.zip has by this name" in fault
    (bundle := folder / "ann.zip").rename(tmp_path / "ann.zip")
    assert not Submissions(folder).faults
    tracker = place.tracker()
    assert len(import_bundle(tracker, folder / "aaa.zip").imported) == 3
    with refused("run-mismatch", bundle.name, "is not the one that the store has by this name"):
        import_bundle(tracker, tmp_path / "ann.zip")
    assert import_bundle(tracker, folder / "aaa.zip").there == 3


def test_a_bundle_cannot_take_a_mark_off_its_runs(place, tmp_path):
    tracker = place.tracker()
    list(run_matrix(expand(["majority"], [Store.find("tiny")], SplitSpec("random")), tracker))
    shutil.copy(place.bundle_of(tracker), tmp_path / "ann.zip")
    assert not Submissions(tmp_path).faults
    changed(tmp_path / "ann.zip", lambda kept: kept.probabilities, leaky="false")
    (fault,) = Submissions(tmp_path).faults
    assert "its tag leaky or scale hides what its specification says" in fault


@pytest.mark.parametrize(
    "name, told",
    [(b"bob.zip", "bob.zip: is a link that leads nowhere"), (b"\xff\n.zip", r"'\udcff\n.zip': has signs that no page")],
)
def test_what_is_named_as_a_bundle_and_is_none_is_told(folder, name, told, command_line):
    (folder / "bob.zip").unlink()
    (folder / os.fsdecode(name)).symlink_to("nowhere")
    status, _, err = command_line("leaderboard", folder)
    assert status == 2 and told in err and not (folder / "index.html").exists()


def test_a_packed_bundle_is_not_passed_over(folder, place, command_line):
    """It was: a contributor who packs as the project does was told that all is sound."""
    (folder / "carl.zip.xz").write_bytes(lzma.compress((folder / "bob.zip").read_bytes()))
    status, _, err = command_line("leaderboard", folder, "--check")
    assert status == 2 and "carl.zip.xz: is packed and was not read; unpack it" in err
    with refused("bad-bundle", "carl.zip.xz: is packed", "`xz -dk carl.zip.xz`"):
        import_bundle(place.tracker(), folder / "carl.zip.xz")


def test_a_finished_run_without_answers_is_refused(folder):
    members = members_of(folder / "ann.zip")
    home = next(name.rpartition("/")[0] for name in members)
    del members[f"{home}/predictions.npz"]
    record = json.loads(members[f"{home}/run.json"])
    record["tags"] = {k: v for k, v in record["tags"].items() if not v.endswith("  predictions.npz")}
    members[f"{home}/run.json"] = json.dumps(record).encode()
    write_members(folder / "ann.zip", indexed(members))
    (fault,) = Submissions(folder).faults
    assert fault.startswith("ann.zip: ") and "keeps no answers" in fault


@pytest.fixture(scope="module")
def lie(place, filled):
    """A bundle whose run says that other classes were right: all in it follows from its answers."""
    tracker = place.tracker()
    (one, *_) = chosen(stored_runs(filled), Wanted(methods=["majority"]))
    record, row = filled.opened(one.record), one.row
    kept, result = record.predictions(), record.result()
    told = dataclasses.replace(kept, truth=np.roll(kept.truth, 1))
    scores = evaluate(told.truth, told.probabilities, told.classes)
    ends = intervals(told.truth, decide(told.probabilities), told.groups, classes=len(told.classes))
    metrics = result.metrics | scores.metrics() | {f"f1/{name}": one["f1"] for name, one in scores.per_class.items()}
    metrics |= {f"{name}_{end}": pair[n] for name, pair in ends.items() for n, end in enumerate(("low", "high"))}
    counts = count_groups(told.truth, told.groups, len(told.classes))
    metrics |= {"interval_groups": float(counts.smallest), "interval_groups_total": float(counts.total)}
    tags = {name: value for name, value in row.tags.items() if name.startswith(("bench.s", "source", "leaky", "scale"))}
    run = tracker.start(record.spec, "a lie", tags | {"bench.split": record.split})
    run.metrics(metrics)
    with run.artefacts() as folder:
        told.save(folder / "predictions.npz")
        dataclasses.replace(result, metrics=metrics, scores=scores).save(folder / "result.json")
    run.end("done")
    return place.bundle_of(tracker)


def test_other_test_samples_on_the_same_split_are_refused(folder, lie):
    shutil.copy(lie, folder / "lie.zip")
    (fault,) = Submissions(folder).faults
    assert fault.startswith("lie.zip: ") and "ann.zip" in fault


def test_the_check_compares_with_the_data_set_here(folder, lie, tmp_path, command_line, monkeypatch):
    status, out, _ = command_line("leaderboard", folder, "--check")
    assert status == 0 and "2 bundles, 6 runs, all sound" in out and not (folder / "index.html").exists()
    for file in folder.iterdir():
        file.unlink()
    shutil.copy(lie, folder / "lie.zip")
    assert not Submissions(folder).faults
    status, _, err = command_line("leaderboard", folder, "--check")
    assert status == 2 and "lie.zip" in err and "not those of the data set here" in err
    monkeypatch.setenv("BENCH_HOME", str(tmp_path))
    found = Submissions(folder)
    assert not list(held_against_data(found, None)) and "1 run not held against" in found.notes[0]


def test_of_a_suite_its_own_places_count_and_what_is_missing(folder, place, command_line, tmp_path):
    suite = tmp_path / "mine.toml"
    suite_with_digests("mine", place.specs("majority", "forest", seeds=range(2))).save(suite)
    assert command_line("leaderboard", folder, "--suite", suite)[0] == 0
    assert [line["runs"] for line in lines_of(folder)] == ["2", "2"]
    page = html.unescape((folder / "index.html").read_text())
    assert "forest: 2 of 2 runs of the suite are not done" in page and "2 runs left out: of other data" in page


def test_a_bundle_without_a_run_of_the_suite_fails_its_check(folder, place, command_line, tmp_path):
    suite = tmp_path / "mine.toml"
    suite_with_digests("mine", place.specs("majority", seeds=[7])).save(suite)
    status, _, err = command_line("leaderboard", folder, "--check", "--suite", suite)
    assert status == 2 and "ann.zip: none of its finished runs is of suite mine" in err
    status, _, err = command_line("leaderboard", folder, "--suite", suite)
    assert status == 2 and "[no-runs]" in err and not (folder / "index.html").exists()


def test_a_submission_is_exactly_the_runs_of_the_suite(place, filled, folder, command_line, tmp_path):
    suite = tmp_path / "mine.toml"
    suite_with_digests("mine", place.specs("majority", "Broken", seeds=[0, 1, 7])).save(suite)
    words = ("results", "export", "--results", filled.results, "--suite", suite)
    status, out, err = command_line(*words, tmp_path / "all.zip", "--json")
    runs = {one.uid: one.record for one in stored_runs(filled)}
    exported = {name: runs[name].spec for name in json.loads(out)["runs"]}
    assert status == 0 and {spec.split.seed for spec in exported.values()} == {0, 1}
    assert sorted({spec.method.rpartition(":")[2] for spec in exported.values()}) == ["Curved", "majority"]
    assert "majority: 1 of 3 runs of the suite are not done" in err and "Broken: 3 of 3 runs" in err

    status, out, err = command_line(*words, tmp_path / "one.zip", "--method", "majority", "--json")
    assert status == 0 and len(json.loads(out)["runs"]) == 2 and "majority: 1 of 3" in err and "Broken" not in err
    status, out, err = command_line(*words, tmp_path / "failed.zip", "--status", "failed", "--json")
    assert status == 0 and len(json.loads(out)["runs"]) == 1
    suite_with_digests("other", place.specs("majority", seeds=[7])).save(suite)
    status, _, err = command_line(*words, tmp_path / "none.zip")
    assert status == 2 and "[no-runs]" in err and "suite other" in err and not (tmp_path / "none.zip").exists()


def test_a_check_counts_what_a_submission_lacks_and_has_beside(folder, place, command_line, tmp_path):
    suite = tmp_path / "mine.toml"
    suite_with_digests("mine", place.specs("majority", seeds=[0, 1, 7])).save(suite)
    status, out, err = command_line("leaderboard", folder, "--check", "--suite", suite)
    assert status == 0, err
    assert "ann.zip: majority: 1 of 3 runs of the suite are not done" in out + err
    assert "ann.zip: 1 finished run not of suite mine" in out + err
    assert "bob.zip: " in out + err


def test_a_folder_without_bundles_is_refused(tmp_path, command_line):
    for name in (tmp_path, tmp_path / "none"):
        with refused("missing-file", name):
            Submissions(name)
    assert command_line("leaderboard", tmp_path, "--check", "--output", tmp_path)[0] == 2


def test_the_committed_page_is_made_of_the_committed_bundles(tmp_path):
    from bench.suites.suite import read_suite

    write(Submissions(COMMITTED), tmp_path, read_suite("etc-2026"))
    for name in ("index.html", "leaderboard.csv"):
        assert (tmp_path / name).read_text() == (COMMITTED / name).read_text()
