"""What stands beside a score so that it can be read."""

from dataclasses import replace

import pytest
from records import record

from bench.analysis.tables import group, results_table
from bench.cli.text import outcome_table
from bench.render.table import render
from bench.runs import registry
from bench.runs.execute import Outcome
from bench.runs.run_labels import marks, reductions, remarks

WHOLE = {"classes": 12.0, "classes_tested": 12.0, "classes_trained": 12.0}
WHOLE |= {"training_majority": 0.1, "training_accuracy": 0.41}


def run(method="fsnet", f1=0.5, split="session", seed=0, **metrics):
    one = record(method, f1, split=split, seed=seed)
    one.metrics.update(WHOLE | metrics)
    return one


@pytest.mark.parametrize(
    ("metrics", "mark", "remark"),
    [
        ({}, [], []),
        ({"classes_tested": 9.0}, ["class-missing"], ["9 of 12 classes tested; macro scores count the others as 0"]),
        (
            {"classes_trained": 11.0},
            ["class-missing"],
            ["11 of 12 classes trained; macro scores count the others as 0"],
        ),
        ({"classes_left_out": 1.0}, [], ["1 class of the task left out: no sample in any part"]),
        ({"classes_left_out": 2.0}, [], ["2 classes of the task left out: no sample in any part"]),
        (
            {"training_accuracy": 0.39},
            ["did-not-fit"],
            ["did not fit its training samples (accuracy 0.39 on them)"],
        ),
        (
            {"test_in_training_captures": 0.974},
            [],
            ["of the test samples, 97 % come from captures that are also in training"],
        ),
        (
            {"test_identical_windows": 0.77, "test_overlapping_windows": 0.05},
            [],
            [
                "of the test samples, 77 % are windows that are also in training; "
                "5 % are windows that overlap one in training"
            ],
        ),
    ],
)
def test_what_a_run_must_be_read_with(metrics, mark, remark):
    one = run(**metrics)
    assert marks(one) == mark and remarks(one.spec, one.metrics) == remark
    table = outcome_table(
        [Outcome(one.spec, "done", metrics=one.metrics | {"macro_f1_low": 0.1, "macro_f1_high": 0.9})]
    )
    assert all(line in table for line in remark)


def test_marks_that_a_method_that_is_here_makes_cannot_be_taken_off():
    """A record from elsewhere may say nothing, or the contrary."""
    steps = {"steps": 2000, "epochs": 40, "patience": 10}
    few = replace(run("wang1d", training_samples=1000.0), spec=replace(run("wang1d").spec, parameters=steps))
    assert marks(few) == ["reduced"] and marks(run("wang1d", training_samples=1000.0)) == []
    assert marks(run("cmtsnn")) == ["reconstructed"]
    assert marks(replace(run("my-tool"), origin="")) == ["elsewhere"]
    assert marks(replace(run("my-tool"), origin="pack 1.0")) == [] and marks(run("own.py:Own")) == []


def test_a_number_that_is_none_is_shown_as_that():
    """A diverged loss, which a method may tell of itself."""
    records = [run(seed=0, loss=float("nan")), run(seed=1, loss=0.5)]
    assert group(records)[0].cell("loss") == "nan" and "nan" in render(results_table(records, metrics=["loss"]), "text")
    told = render(results_table(records, metrics=["loss"]), "json")
    assert "NaN" not in told
    assert group([run(seed=0, loss=float("inf")), run(seed=1, loss=0.5)])[0].cell("loss") == "nan"


def test_a_baseline_need_not_fit():
    assert marks(run("majority", training_accuracy=0.1)) == []


def test_runs_of_before_say_nothing_of_it():
    assert marks(record("forest", 0.5)) == [] and remarks(record("forest", 0.5).spec, {}) == []


def test_a_table_tells_the_worst_of_its_runs():
    records = [run(seed=0), run(seed=1, classes_tested=9.0, macro_f1_tested=0.7), run(seed=2, classes_tested=10.0)]
    (row,) = group(records)
    assert row.marks == ["class-missing"] and row.cell("classes_tested") == "9 of 12"
    text = render(results_table(records), "text")
    assert "9 of 12" in text and "macro_f1_tested" in text
    assert "‖ training or test lacks a class of the task; macro scores count it as 0" in text
    asked = results_table(records, metrics=["macro_f1_tested", "classes_tested"])
    assert asked.head[-2:] == ["macro_f1_tested", "classes_tested"] and len(set(asked.head)) == len(asked.head)


def test_a_table_tells_what_training_has_seen_of_each_split():
    records = [run(test_in_training_captures=0.97), run(seed=1, test_in_training_captures=1.0)]
    records += [run(split="capture", test_in_training_captures=0.0)]
    text = render(results_table(records), "text")
    assert "session: of the test samples, 97 to 100 % come from captures that are also in training" in text
    assert "capture: of the test" not in text
    assert "capture: 1 class of the task left out" in render(
        results_table([run(split="capture", classes_left_out=1.0)]), "text"
    )


def test_a_forest_on_a_methods_input_is_not_reduced_by_its_training():
    """Its fits have no epochs; before, three of them made it one of a reduced scale."""
    outline = registry.describe("fsnet")
    forest = registry.describe("forest-on:fsnet")
    assert reductions(outline, {"epochs": 3}, None) == ["epochs=3"] and reductions(forest, {"epochs": 3}, None) == []
