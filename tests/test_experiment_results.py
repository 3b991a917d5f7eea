"""What is told of the runs of an experiment, and how sure it is."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import ttest_ind

from bench.analysis.comparison import Difference
from bench.paper import experiment_results
from bench.paper.declaration import Arm, Experiment, find_paper
from bench.paper.experiment_results import (
    ArmResult,
    ExperimentResults,
    fits_of,
    minus,
    notes_of,
    paired_notes,
    percent,
    scores,
)
from bench.paper.tables_and_figures import _chosen, _mean_diagonal
from bench.scores.significance import welch
from bench.spec import RunSpec, SplitSpec
from bench.tracking.record import Record
from bench.tracking.results import SplitSummary

ARMS = (Arm("A", "atvitsc", key="a"), Arm("B", "atvitsc", key="b", preset="pvt"))
EXPERIMENT = Experiment("table-0", "Two arms", "demo", "arms", "A > B", arms=ARMS, pairs=(("A", "B"),))


def record(score, seed=0, split="session", scale="full", **metrics):
    place = SplitSpec(split, seed, max_per_class=7)
    spec = RunSpec("atvitsc", "demo", "service", place)
    values = {name: score for name in ("accuracy", "macro_f1", "macro_precision", "macro_recall")}
    made = Record(f"run{seed}", "done", "", spec, values | metrics, leaky=split == "paper", scale=scale)
    kept = SplitSummary.from_dict({"samples": {"train": 70, "test": 20}})
    object.__setattr__(made, "result", lambda: SimpleNamespace(split=kept))
    return made


def results(*found, modes=("published", "paper", "clean"), original=True):
    printed = {"a": {"f1": "90.10", "accuracy": "91.00"}, "b": {"f1": "80.0"}}
    store = SimpleNamespace(name="demo")
    return ExperimentResults(find_paper(), EXPERIMENT, found, modes, None, store, original, "title · data", printed)


def runs(arm, mode, *values, **more):
    split = "paper" if mode == "paper" else "session"
    return ArmResult(ARMS[arm], mode, tuple(record(v, seed, split, **more) for seed, v in enumerate(values)))


def test_percent_tells_what_its_uncertainty_is():
    assert percent({"f1": 0.5, "f1_sd": 0.01}, "f1") == "50.00 ± 1.00"
    ends = {"f1": 0.5, "f1_low": 0.4, "f1_high": 0.61}
    shown = [percent(ends | more, "f1") for more in ({"interval_groups": 3.0}, {"interval_groups": 2.0}, {})]
    assert shown == ["50.00 [40.00, 61.00]", "50.00 [40.00, 61.00] §", "50.00 [40.00, 61.00] ¶"]
    assert percent({}, "f1") == "–"


def test_scores_stand_beside_the_papers_with_marks_of_their_mode():
    table = scores(results(runs(0, "paper", 0.95, scale="epochs=1"), runs(0, "clean", 0.90)), ("macro_f1",))
    told = ["published", "paper", "clean", "paper − published", "clean − published", "paper − clean"]
    heads = ["system", *(f"f1: {what}" for what in told)]
    assert table.head == heads
    assert table.rows == [["A", "90.10", "95.00 *†", "90.00", "+4.90", "-0.10", "+5.00"]]


def test_what_was_fitted_stands_beside_the_scores():
    told = {"training_accuracy": 0.984, "chosen_step": 20.0, "optimiser_steps": 31.0}
    found = results(runs(0, "paper", 0.9), runs(0, "clean", 0.8, 0.7, **told), runs(1, "clean", 0.9), modes=("clean",))
    table = scores(found, ("macro_f1",))
    assert table.head == ["system", "f1: clean", "training: clean"]
    assert [row[2] for row in table.rows] == ["98.40 at 20 of 31", "–"]
    assert any(note.startswith("training: percent") for note in table.notes)
    assert table.records[0]["clean_training_accuracy"] == 0.984 and "clean_optimiser_steps" not in table.records[1]
    assert fits_of(found)[0] == "A, clean: training 98.40 at 20 of 31" and len(fits_of(found)) == 2
    without_steps = results(runs(0, "clean", 0.8, training_accuracy=1.0), modes=("clean",))
    assert scores(without_steps, ("macro_f1",)).rows[0][2] == "100.00" and fits_of(results()) == []


def test_differences_to_the_paper_are_for_its_own_data_alone():
    table = scores(results(runs(0, "clean", 0.9), modes=("published", "clean"), original=False), ("macro_f1",))
    assert table.head == ["system", "f1: published", "f1: clean"]
    assert "published numbers are for other data: compare the order, not the height" in table.notes


def test_a_difference_of_single_runs_claims_no_interval():
    one, several = [record(0.9)], [record(0.8), record(0.82, 1)]
    assert minus(one, several, "macro_f1") == "+9.00" and minus([], several, "macro_f1") == "–"
    assert minus(several, [record(0.7), record(0.72, 1)], "macro_f1").startswith("+10.00 [")


def test_welchs_interval_is_scipys_where_nothing_is_shared():
    one, other = np.array([0.8, 0.85, 0.83, 0.9]), np.array([0.7, 0.72, 0.79])
    known = ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert welch(one, other, (0, 0)) == pytest.approx(tuple(known))
    low, high = welch(one, other, (0.3, 0.3))
    assert low < known.low and high > known.high


def test_couples_are_separable_only_if_interval_and_test_agree(monkeypatch):
    apart = {m: Difference(0, 0, 0.1, 0.05, 0.15) for m in ("accuracy", "macro_f1")}
    compared = SimpleNamespace(differences=apart, few=False)
    monkeypatch.setattr(experiment_results, "compare", lambda one, other: compared)
    sure = results(runs(0, "clean", 0.9, 0.91, 0.92), runs(1, "clean", 0.8, 0.81, 0.815), modes=("clean",))
    line, how = paired_notes(sure, [ARMS])
    assert line.startswith("clean: A − B: accuracy +10.00 [+5.00, +15.00], f1 +10.00") and line.endswith(": separable")
    assert "Holm" in how
    compared.few = True
    assert paired_notes(sure, [ARMS])[0].endswith(": not separable")
    compared.few = False
    noisy = results(runs(0, "clean", 0.9, 0.7, 0.9), runs(1, "clean", 0.8, 0.81, 0.7), modes=("clean",))
    assert paired_notes(noisy, [ARMS])[0].endswith(": not separable")
    few = results(runs(0, "clean", 0.9), runs(1, "clean", 0.8), modes=("clean",))
    assert paired_notes(few, [ARMS])[0].endswith("or no spread over them): not separable")


def test_couples_without_the_same_seeds_are_told_not_dropped():
    odd = results(runs(0, "clean", 0.9, 0.8), runs(1, "clean", 0.8), modes=("clean",))
    assert paired_notes(odd, [ARMS])[0] == "clean: A − B: not the same seeds and folds are done"


def test_notes_say_how_each_mode_makes_its_parts_and_what_failed():
    failed = ArmResult(ARMS[1], "clean", (), ("seed 0 failed, ValueError: no",))
    notes = notes_of(results(runs(0, "paper", 0.9), runs(0, "clean", 0.9), failed))
    assert "mode paper: paper, max_per_class=7" in notes and "mode clean: session; at most 7 samples a class" in notes
    assert notes[-1] == "B, clean: seed 0 failed, ValueError: no"


def test_what_is_drawn_is_the_strictest_mode_with_runs():
    assert results(runs(0, "paper", 0.9), ArmResult(ARMS[0], "clean", ())).drawn == "paper"
    assert results(runs(0, "paper", 0.9), runs(0, "clean", 0.9)).drawn == "clean" and results().drawn == ""
    assert results(runs(0, "paper", 0.9, scale="epochs=1")).headed("paper") == "paper *†"


def test_a_sweep_is_set_against_what_seeds_alone_would_give():
    found = [
        runs(arm, "clean", *values, validation_macro_f1=arm) for arm, values in enumerate([(0.5, 0.6), (0.7, 0.8)])
    ]
    chosen, spread = _chosen(results(*found, modes=("clean",)))
    assert chosen == "clean: validation chooses B, whose accuracy on the test part is 75.00 ± 7.07"
    assert "standard deviation of 14.14 points; seeds alone would give 5.00" in spread


def test_few_sessions_make_no_interval():
    seen = SimpleNamespace(accuracy=1.0, interval=(1.0, 1.0), samples=4, sessions=1, classes=["x"], few_groups=False)
    assert "(too few sessions or groups for an interval)" in _mean_diagonal(seen)
    assert "[90.00, 95.00]" in _mean_diagonal(
        SimpleNamespace(**{**vars(seen), "sessions": 10, "interval": (0.9, 0.95)})
    )
