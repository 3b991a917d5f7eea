"""Rankings: by hand, in all formats, and from the command line."""

import csv
import dataclasses
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from records import answered, record, write_result
from refusals import refused
from scipy import stats

from bench.analysis.ranking import draw, rank, ranking_table
from bench.analysis.ranking_entries import ranking_entries
from bench.cli import cli
from bench.generators import demo
from bench.render.table import render
from bench.scores.jackknife import difference, interval
from bench.scores.metrics import evaluate

SIZE = 40


class Runs:
    """A store of runs whose predictions are right where asked, with their real scores."""

    is_there, address = True, SimpleNamespace(shown="sqlite:///mlflow.db")

    def __init__(self, folder):
        self.folder, self.records = folder, []

    def add(
        self,
        method,
        wrong,
        *,
        fold=0,
        seed=0,
        dataset="demo",
        same_test=False,
        session=None,
        repeated=0,
        groups=2,
        **more,
    ):
        number = len(self.records)
        start = 0 if same_test else SIZE * fold
        session = start + np.arange(SIZE) if session is None else session
        folder = answered(self.folder / f"{number}", ~np.isin(np.arange(SIZE), wrong), session=session, each=groups)
        counts = {"train": 2 * SIZE, "validation": 10, "test": SIZE}
        write_result(folder, samples=counts, repeated=repeated)
        made = record(method, 0.0, fold=fold, seed=seed, folds=5, dataset=dataset, folder=folder, **more)
        answers = made.predictions()
        made.metrics.update(evaluate(answers.truth, answers.probabilities, answers.classes).metrics())
        self.records.append(dataclasses.replace(made, run_id=f"run{number}"))

    def load(self, run_id):
        return self.records[int(run_id.removeprefix("run"))]

    def rank(self, *datasets, **options):
        entries, notes = ranking_entries(self.records, datasets or ("demo",))
        return rank(entries, self.load, notes=notes, **options)


@pytest.fixture
def runs(tmp_path):
    (tmp_path / "runs").mkdir()
    return Runs(tmp_path / "runs")


def three_methods(runs, folds=5, **more):
    for fold in range(folds):
        runs.add("majority", range(20 + fold % 2), fold=fold, **more)
        runs.add("knn", [0, 5, 7, fold + 9], fold=fold, **more)
        runs.add("forest", [fold, 12, 13][: 1 + fold % 3], fold=fold, **more)


def test_a_ranking_by_hand(runs):
    three_methods(runs)
    found = runs.rank(metric="accuracy")
    assert [standing.entry.label for standing in found.standings] == ["forest", "knn", "majority"]
    best, second, last = found.standings
    right = np.array([39, 38, 37, 39, 38]) / 40
    assert (best.mean, best.deviation) == (pytest.approx(right.mean()), pytest.approx(right.std(ddof=1)))
    assert (best.rank, second.rank, last.rank) == (1, 2, 3)
    apart = 0.9 - right
    assert second.difference == pytest.approx(apart.mean())
    assert second.dz == pytest.approx(apart.mean() / apart.std(ddof=1)) and second.dominance == -1
    assert second.p == pytest.approx(second.p_single) and last.p == pytest.approx(2 * last.p_single)
    assert last.p < 0.001 and not last.level
    assert best.p is None and best.dz is None and best.difference_interval == (0, 0)
    assert found.tests["blocks"] == 5 and found.tests["test_train_ratios"] == [0.5]
    assert found.tests["friedman"]["p"] == pytest.approx(np.exp(-5))  # chi-squared 10, 2 degrees of freedom
    assert found.title == "accuracy · demo · service · session, 5 folds · 5 blocks"


def test_pooled_scores_and_their_intervals_are_those_of_the_pooled_sessions(runs):
    three_methods(runs)
    best = runs.rank().standings[0]
    parts = [r.predictions() for r in runs.records if r.spec.method == "forest"]
    truth, groups, probabilities = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("truth", "groups", "probabilities")
    )
    scores = evaluate(truth, probabilities, ["a", "b"])
    assert best.pooled == pytest.approx(scores.macro_f1)
    assert best.interval == pytest.approx(interval(truth, probabilities.argmax(axis=1), groups, classes=2))


def test_what_cannot_be_told_from_the_best_is_marked_and_so_is_the_best(runs):
    three_methods(runs)
    for fold in range(5):
        runs.add("tree", [fold, 20, 21][: 1 + (fold + 1) % 3], fold=fold)
    found = runs.rank()
    told = [(standing.entry.label, standing.level) for standing in found.standings]
    assert told == [("forest", True), ("tree", True), ("knn", True), ("majority", False)]
    knn = found.standings[2]
    assert knn.p == pytest.approx(0.0688, abs=1e-4)
    lines = render(ranking_table(found)).splitlines()
    assert [" ~ " in line for line in lines[4:6]] == [True, True] and " ~ " not in lines[7]
    assert sum(line.startswith("~ not separable") for line in lines) == 1


def test_without_a_deviation_there_is_no_test(runs):
    """One session more right in every fold: intervals alone decide."""
    for fold in range(5):
        runs.add("forest", [1, 2], fold=fold)
        runs.add("knn", [1, 2, 30], fold=fold)
        runs.add("majority", range(20 + fold % 2), fold=fold)
    found = runs.rank(metric="accuracy")
    second, last = found.standings[1:]
    assert second.p is None and second.p_single is None and second.dz is None and second.level
    assert last.p == last.p_single and not last.level  # the only one that was tested
    text = render(ranking_table(found))
    assert "one comparison, nothing to correct for" in text and "no p where the difference is the same" in text


def test_a_significant_test_alone_does_not_separate(runs):
    """Three of 200 answers more are wrong; the scores of the folds, made up, differ by about as much in each."""
    for fold in range(5):
        runs.add("forest", [1], fold=fold)
        runs.add("knn", [1, 30][: 1 + fold // 2], fold=fold)
        runs.records[-1].metrics["accuracy"] = 0.95 - fold * 1e-4
    found = runs.rank(metric="accuracy")
    low, high = found.standings[1].difference_interval
    assert found.standings[1].p < 0.001 and low < 0 < high and found.standings[1].level
    assert "on 5 blocks; one comparison, nothing to correct for" in render(ranking_table(found))


def test_an_interval_without_0_alone_does_not_separate(runs):
    """Ten more are wrong on the mean, in two folds of five: t = 2.1."""
    for fold, wrong in enumerate((1, 1, 26, 1, 21)):
        runs.add("forest", [1], fold=fold)
        runs.add("knn", range(1, 1 + wrong), fold=fold)
    second = runs.rank(metric="accuracy").standings[1]
    assert second.p > 0.05 and second.difference_interval[1] < 0 and second.level


def test_over_few_groups_two_blocks_are_not_testable(runs):
    """All samples of a fold are of two groups; with five folds a class has ten, and the t-test decides."""
    for fold in range(5):
        for method, wrong in (("forest", [fold]), ("knn", range(20 + fold % 2))):
            runs.add(method, wrong, fold=fold, groups=SIZE // 2)
    several = runs.rank(metric="accuracy")
    assert several.tests["interval_groups"] == 10 and not several.standings[1].level
    runs.records = [record for record in runs.records if record.spec.split.fold == 0]
    few = runs.rank(metric="accuracy")
    assert few.tests["few_groups"] and not several.tests["few_groups"] and few.standings[1].level
    text = render(ranking_table(few))
    assert "a single one of a data set: not testable over fewer than 3 groups of a tested class" in text
    assert "] §" in text and "§ do not trust the interval" in text and "at least 2 of each tested class" in text
    assert "§" not in render(ranking_table(several))
    assert json.loads(render(ranking_table(few), "json"))["rows"][1]["separable_from_best"] is False


def test_equal_methods_are_not_parted_by_luck(runs):
    """Twelve methods on one test part, wrong in 12 of 40 by chance: old intervals parted some from the best."""
    generator = np.random.default_rng(1)
    for number in range(12):
        runs.add(f"m{number}", np.flatnonzero(generator.random(SIZE) < 0.3))
    found = runs.rank(metric="accuracy")
    assert all(standing.level for standing in found.standings)
    single = [interval_of_the_difference(runs, standing, found.standings[0]) for standing in found.standings[1:]]
    assert any(high < 0 for _, _, high in single)
    assert "to the best: intervals that hold at once for all pairs of 12 methods" in found.notes


def interval_of_the_difference(runs, standing, best):
    """On its own."""
    one, other = (next(iter(s.entry.runs.values())).predictions() for s in (standing, best))
    answers = one.probabilities.argmax(axis=1), other.probabilities.argmax(axis=1)
    return difference(one.truth, answers, one.groups, classes=2, metric="accuracy")


def test_two_blocks_have_intervals_and_no_test(runs):
    three_methods(runs, folds=2)
    found = runs.rank()
    assert {standing.p for standing in found.standings} == {None} and found.tests["friedman"] is None
    assert not found.standings[2].level and found.standings[2].interval[1] < found.standings[0].interval[0]
    text = render(ranking_table(found))
    assert (
        "no t-test with fewer than 3 blocks or a single one of a data set: the intervals of the differences decide"
        in text
        and "Wilcoxon" not in text
    )
    with refused("cannot-draw", "3 blocks"):
        draw(found, runs.folder / "a.svg")


def test_common_blocks_count_and_notes_tell(runs):
    three_methods(runs)
    for fold in range(4):
        runs.add("bind", [3, 4], fold=fold, scale="epochs=2", leaky=True)
    runs.add("ports", [3, 4], fold=0)
    found = runs.rank()
    text = render(ranking_table(found))
    assert found.tests["blocks"] == 4 and "4 blocks" in found.title
    assert "3 methods have more runs than the 4 that all have; those are not counted" in text
    assert "ports: left out, 1 of 5 blocks" in text
    assert "scales differ (epochs=2; full): a difference may come from the scale" in text
    assert "bind *†" in text and "† reduced scale" in text and "* the split lets parts share" in text
    assert "4 of 5" in text


def test_seeds_on_one_test_part_are_not_tested(runs):
    for seed in range(3):
        for method, wrong in (("forest", [seed]), ("knn", [seed, 8, 9]), ("tree", range(20 + seed % 2))):
            runs.add(method, wrong, seed=seed, same_test=True)
    found = runs.rank()
    assert {(standing.p, standing.dz, standing.dominance) for standing in found.standings} == {(None, None, None)}
    assert found.tests["friedman"] is None and not found.standings[2].level
    text = render(ranking_table(found))
    assert "no t-test: blocks with the same test part compare seeds" in text and "χ²" not in text
    assert "all test parts as one, 40 samples in 20 5-tuples, each tested up to 3 times" in text
    with refused("cannot-draw", "3 blocks"):
        draw(found, runs.folder / "a.svg")


def test_a_sample_that_several_seeds_test_makes_a_score_no_surer(runs, tmp_path):
    """Every other group is right and the rest wrong in one class; three seeds with the same answers say it thrice."""
    once = Runs(tmp_path)
    for method, wrong in (("forest", range(0, SIZE, 2)), ("knn", range(0, SIZE, 1))):
        once.add(method, wrong, same_test=True)
        for seed in range(3):
            runs.add(method, wrong, seed=seed, same_test=True)
    for one, thrice in zip(once.rank().standings, runs.rank().standings, strict=True):
        assert one.pooled == thrice.pooled and one.interval == pytest.approx(thrice.interval)


def test_repeated_training_samples_do_not_make_a_test_surer(runs):
    three_methods(runs, repeated=SIZE)
    assert runs.rank().tests["test_train_ratios"] == [1.0]  # 40 tested, 80 trained on, 40 of them once more


@pytest.mark.parametrize(
    ("split", "unit", "narrower"),
    [
        ("session", "5-tuples", True),
        ("capture", "capture groups", False),
        ("capture+session", "groups of captures that share 5-tuples", False),
        ("attribute:os=(w|l)", "values of os", False),
    ],
)
def test_the_unit_of_the_intervals_is_named(runs, split, unit, narrower):
    three_methods(runs, split=split)
    found = ranking_table(runs.rank())
    text = render(found)
    assert (
        f"200 samples in 100 {unit}\n" in text
        and f"jackknife over {unit}, those of the split, at least 100 of each tested class" in text
    )
    assert ("does not cover the choice of captures" in text) == narrower
    assert found.records[0]["resampled"] == unit


def test_different_test_sessions_are_refused(runs):
    runs.add("forest", [1])
    runs.add("knn", [1], session=np.arange(SIZE) + 1)
    with refused("different-tests"):
        runs.rank()
    with refused("unknown-metric", "'f1'", "macro_precision"):
        runs.rank(metric="f1")


def test_methods_without_a_common_seed_are_refused(runs):
    for seed in range(3):
        runs.add("forest", [1], seed=seed)
        runs.add("knn", [1], seed=seed + 3)
    with refused("different-tests"):
        runs.rank()


def test_few_data_sets_keep_their_folds_as_blocks(runs):
    three_methods(runs, folds=3)
    for fold in range(3):
        runs.add("majority", range(20), fold=fold, dataset="iot", task="device")
        runs.add("knn", [fold, 3], fold=fold, dataset="iot", task="device")
        runs.add("forest", [fold, 3, 4, 5, 6, 7][: 4 + fold % 2], fold=fold, dataset="iot", task="device")
    found = runs.rank("demo", "iot", metric="accuracy")
    assert found.tests["blocks"] == 6 and found.tests["unit"] == "data set, seed and fold"
    knn = next(standing for standing in found.standings if standing.entry.label == "knn")
    assert (knn.mean, knn.deviation) == (pytest.approx((0.9 + 0.95) / 2), pytest.approx(0))
    assert found.title.startswith("accuracy · demo + iot · service + device · session, 5 folds · 6 blocks")
    assert "3 of 5 + 3 of 5" in render(ranking_table(found))


def test_effects_of_unequal_data_sets_weigh_alike(runs):
    """Five folds in one, two in the other: each data set's d_z and dominance by hand, then their mean."""
    three_methods(runs)
    for fold in range(2):
        runs.add("forest", range(8 - fold), fold=fold, dataset="iot")
        runs.add("knn", range(5), fold=fold, dataset="iot")
        runs.add("majority", range(20), fold=fold, dataset="iot")
    found = runs.rank("demo", "iot", metric="accuracy")
    best, second, _ = found.standings
    assert (best.entry.label, second.entry.label) == ("knn", "forest")
    apart = [np.array([39, 38, 37, 39, 38]) / 40 - 0.9, np.array([-3, -2]) / 40]
    assert second.dz == pytest.approx(np.mean([part.mean() / part.std(ddof=1) for part in apart]))
    assert second.dominance == 0  # 1 in the one, -1 in the other


def test_five_data_sets_are_a_block_each(runs):
    names = [f"set{number}" for number in range(5)]
    for number, name in enumerate(names):
        for fold in range(2):
            runs.add("forest", [fold, number][: 1 + number % 2], fold=fold, dataset=name)
            runs.add("knn", [1, 2, 3, fold + 5], fold=fold, dataset=name)
            runs.add("majority", range(20 - number), fold=fold, dataset=name)
    found = runs.rank(*names)
    assert found.scores.shape == (5, 3) and found.tests["unit"] == "data set"
    text = render(ranking_table(found))
    assert "p: paired t-test on 5 data sets, one block each; Holm over 2 comparisons with the best" in text
    assert "both ignore" not in text and found.title.endswith(" · 5 blocks, one a data set")


def test_five_data_sets_by_hand(runs):
    """Wrong of 40: a 2 everywhere; b 3, 4, 5, 6, 7; c as b, but 1 on the first set."""
    names = [f"set{number}" for number in range(5)]
    for number, name in enumerate(names):
        for fold in range(2):  # the mean of the folds counts
            runs.add("a", range(1 + 2 * fold), fold=fold, dataset=name)
            runs.add("b", range(3 + number), fold=fold, dataset=name)
            runs.add("c", range(3 + number if number else 1), fold=fold, dataset=name)
    found = runs.rank(*names, metric="accuracy")
    labels = {standing.entry.label: standing for standing in found.standings}
    assert list(labels) == ["a", "c", "b"]
    assert [standing.mean for standing in found.standings] == pytest.approx([1 - 2 / 40, 1 - 4.6 / 40, 1 - 5 / 40])
    assert [standing.rank for standing in found.standings] == pytest.approx([1.2, 2.2, 2.6])
    b, c = np.array([1, 2, 3, 4, 5]) / 40, np.array([-1, 2, 3, 4, 5]) / 40
    single = [stats.ttest_1samp(apart, 0).pvalue for apart in (c, b)]
    assert [labels[name].p_single for name in "cb"] == pytest.approx(single)
    assert [labels[name].p for name in "cb"] == pytest.approx([single[0], 2 * single[1]])
    assert labels["b"].dz == pytest.approx(-3 / np.sqrt(2.5)) and labels["c"].dominance == pytest.approx(-0.6)


def test_programs_get_numbers(runs):
    three_methods(runs)
    found = ranking_table(runs.rank())
    told = json.loads(render(found, "json"))
    assert told["metric"] == "macro_f1" and told["tests"]["t_test"] is True and told["tests"]["blocks"] == 5
    first, *_, last = told["rows"]
    assert first["method"] == "forest" and first["p"] is None and len(first["run_ids"]) == 5
    assert first["separable_from_best"] is None and last["separable_from_best"] is True
    place = {"tasks": ["service"], "split": "session", "folds": 5, "metric": "macro_f1", "reconstructed": False}
    assert place.items() <= first.items()
    assert last["difference_low"] < last["difference"] < last["difference_high"] < 0
    lines = list(csv.DictReader(io.StringIO(render(found, "csv"))))
    assert [line["rank"] for line in lines] == ["1.0", "2.0", "3.0"] and lines[0]["p"] == ""
    assert "±" in render(found, "md") and r"\toprule" in render(found, "tex") and "<caption>" in render(found, "html")


def test_the_diagram_names_methods_with_their_marks(runs):
    three_methods(runs, scale="epochs=2")
    found = runs.rank()
    draw(found, runs.folder / "cd.svg")
    text = (runs.folder / "cd.svg").read_text()
    assert "forest † (1.0)" in text and "accuracy" not in text and "macro_f1 · demo" in text
    with refused("bad-picture"):
        draw(found, runs.folder / "cd.pdf")


@pytest.mark.parametrize(
    "words", [[], ["a"], ["a", "b", "--dataset", "demo"], ["a", "b", "--metric", "accuracy"], ["a", "b", "--task", "x"]]
)
def test_the_command_takes_two_runs_or_data_sets(words, tmp_path):
    with refused("bad-options", "--dataset"):
        cli.main(["compare", *words, "--results", str(tmp_path)], standalone_mode=False)


def test_the_command_ranks_draws_and_refuses(runs, tmp_path, monkeypatch, command_line):
    three_methods(runs)
    runs.search = lambda: runs.records
    monkeypatch.setattr("bench.tracking.tracker.Tracker", lambda results, **_: runs)
    ask = ("compare", "--dataset", "demo", "--figure", tmp_path / "cd.png")
    status, out, _ = command_line(*ask, "--method", "forest,knn,majority", "--json")
    assert status == 0 and [row["method"] for row in json.loads(out)["rows"]] == ["forest", "knn", "majority"]
    assert (tmp_path / "cd.png").read_bytes().startswith(b"\x89PNG")
    assert command_line(*ask, "--format", "md", "--metric", "accuracy")[1].startswith("accuracy · demo")
    runs.add("forest", [1], split="capture")
    status, _, err = command_line(*ask)
    assert status == 2 and err.count("\n") == 1 and "--split: 'capture, 5 folds'; 'session, 5 folds'" in err
    assert command_line(*ask, "--split", "session")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--dataset", "demo", "--pool"), "--pool is for two runs"),
        (("--dataset", "demo", "--figure", "a.pdf"), "--figure a.pdf: give a name that ends in .svg or .png"),
        (("--dataset", "demo", "--format", "pdf"), "'--format': 'pdf'; there are: text, md"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(words, said, monkeypatch, command_line):
    monkeypatch.setattr("bench.tracking.tracker.Tracker.search", lambda *_, **__: pytest.fail("runs were read"))
    status, _, err = command_line("compare", *words)
    assert status == 2 and said in err and err.count("\n") == 1


def test_two_runs_come_in_all_forms(runs, monkeypatch, command_line):
    three_methods(runs, folds=1)
    monkeypatch.setattr("bench.tracking.tracker.Tracker", lambda results, **_: runs)
    assert "| accuracy | 0.500 | 0.900 | -0.400 [" in command_line("compare", "run0", "run1", "--format", "md")[1]
    assert json.loads(command_line("compare", "run0", "run1", "--json")[1])["samples"] == SIZE


@pytest.mark.slow
def test_the_command_ranks_real_runs(tmp_path, monkeypatch, command_line):
    demo.write(tmp_path / "traffic", sessions=20, captures=4, classes=3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    command_line("run", "--method", "majority,ports", "--dataset", "traffic", "--split", "session")
    status, out, _ = command_line("compare", "--dataset", "traffic", "--json")
    told = json.loads(out)
    assert status == 0 and {row["method"] for row in told["rows"]} == {"majority", "ports"}
    assert told["tests"]["test_train_ratios"] == [pytest.approx(2 / 7, abs=0.1)]
    assert told["tests"]["t_test"] is False
