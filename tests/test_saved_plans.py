"""Plans that are saved: they run from anywhere, never over what was read, and only where they can be."""

import dataclasses

import pytest
from refusals import refused
from tiny_store import tiny_home

from bench.data.store import Store
from bench.matrix.cells import run_matrix
from bench.suites.contents import cells, of_suite
from bench.suites.suite import FORMAT, Contender, Portion, Suite, read_suite
from bench.tracking.tracker import Tracker

MINE = """
from methods.majority import Majority

class Mine(Majority):
    name = "mine"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with tiny_home(tmp_path_factory, "plans") as folder:
        yield folder


def test_a_plan_names_a_method_s_file_as_seen_from_its_folder(bench_in, tmp_path, monkeypatch):
    bench = bench_in(tmp_path)
    (tmp_path / "of_a_plan.py").write_text(MINE)
    (tmp_path / "plans").mkdir()
    words = ("--method", "of_a_plan.py:Mine", "--dataset", "demo", "--split", "session")
    assert bench("run", *words, "--save-plan", "plans/p.toml")[0] == 0
    text = (tmp_path / "plans" / "p.toml").read_text()
    assert 'name = "../of_a_plan.py:Mine"' in text and str(tmp_path) not in text
    (tmp_path / "on.toml").write_text(text.replace('"../of_a_plan.py', '"forest-on:of_a_plan.py'))
    assert [read_suite(name).methods[0].name for name in ("plans/p.toml", "on.toml")] == [
        "of_a_plan.py:Mine", "forest-on:of_a_plan.py:Mine"
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path / "plans")
    status, _, err = bench("run", "--suite", "p.toml", "--results", "here")
    assert status == 0, err


def test_a_plan_is_not_saved_over_the_suite_that_is_read(bench_in, tmp_path):
    bench, text = bench_in(tmp_path), (
        f'# mine\nformat = "{FORMAT}"\nname = "s"\nmethods = [{{name = "majority"}}, {{name = "knn"}}]\n'
        '[[datasets]]\nname = "demo"\ntask = "service"\nsplit = "session"\n'
    )  # fmt: skip
    (tmp_path / "s.toml").write_text(text)
    (tmp_path / "link.toml").symlink_to("s.toml")
    for name in ("s.toml", "link.toml"):
        words = ("run", "--suite", "s.toml", "--method", "majority", "--dry-run", "--save-plan", name)
        status, out, err = bench(*words)
        assert (status, out) == (2, "") and "name another file" in err
        assert (tmp_path / "s.toml").read_text() == text


def test_a_suite_that_leaves_nothing_is_refused_before_anything_runs(place):
    suite = Suite(FORMAT, "s", (Portion("tiny", "kind", "session", min_groups=99),), (Contender("majority"),))
    with refused("split-impossible", "datasets[0]", "fewer than 99 capture groups", "ask for fewer"):
        cells(suite, Store.find)


def test_a_split_file_that_cannot_be_is_told(bench_in, tmp_path):
    (tmp_path / "s.toml").write_text(
        f'format = "{FORMAT}"\nname = "s"\nmethods = [{{name = "majority"}}]\n'
        '[[datasets]]\nname = "demo"\ntask = "service"\nsplit = "file"\nfile = "\\u0000"\n'
    )
    status, out, err = bench_in(tmp_path)("run", "--suite", "s.toml")
    assert (status, out) == (2, "") and "s.toml: datasets[0]" in err and "there is no such file" in err


def test_runs_on_another_store_than_the_suite_names_are_counted(place, tmp_path):
    tracker = Tracker(tmp_path / "results")
    suite = Suite(FORMAT, "s", (Portion("tiny", "kind", "capture", folds=3),), (Contender("majority"),))
    assert {one.status for one in run_matrix(cells(suite, Store.find), tracker)} == {"done"}
    held = suite.changed(datasets=(dataclasses.replace(suite.datasets[0], store="0" * 16),))
    kept, notes = of_suite(held, tracker.search())
    assert kept == [] and "tiny: 3 runs on another state of the data set left out" in notes
