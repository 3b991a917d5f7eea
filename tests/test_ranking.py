"""Rankings: by hand, in all formats, and from the command line."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from records import answered, record

from bench import demo
from bench.cli import cli
from bench.comparison import contestants
from bench.errors import InputError
from bench.metrics import evaluate, interval
from bench.ranking import draw, rank, sheet
from bench.sheets import render

SIZE = 40


class Runs:
    """A store of runs whose predictions are right where asked, with their real scores."""

    def __init__(self, folder):
        self.folder, self.records = folder, []

    def add(self, method, wrong, *, fold=0, seed=0, dataset="demo", same_test=False, session=None, **more):
        number = len(self.records)
        start = 0 if same_test else SIZE * fold
        session = start + np.arange(SIZE) if session is None else session
        folder = answered(self.folder / f"{number}", ~np.isin(np.arange(SIZE), wrong), session=session)
        counts = {"train": 2 * SIZE, "validation": 10, "test": SIZE}
        (folder / "result.json").write_text(json.dumps({"split": {"samples": counts}}))
        made = record(method, 0.0, fold=fold, seed=seed, folds=5, dataset=dataset, folder=folder, **more)
        answers = made.predictions()
        made.metrics.update(evaluate(answers.truth, answers.probabilities, answers.classes).metrics())
        self.records.append(dataclasses.replace(made, run_id=f"run{number}"))

    def load(self, run_id):
        return self.records[int(run_id.removeprefix("run"))]

    def rank(self, *datasets, **options):
        entries, notes = contestants(self.records, datasets or ("demo",))
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
    parts = [r.predictions() for r in runs.records if r.spec["method"] == "forest"]
    truth, groups, probabilities = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("truth", "groups", "probabilities")
    )
    scores = evaluate(truth, probabilities, ["a", "b"])
    assert best.pooled == pytest.approx(scores.macro_f1)
    low, high = interval(truth, probabilities.argmax(axis=1), groups, classes=2, seed=1)
    assert best.interval == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))


def test_what_cannot_be_told_from_the_best_is_marked_and_so_is_the_best(runs):
    three_methods(runs)
    for fold in range(5):
        runs.add("tree", [fold, 20, 21][: 1 + (fold + 1) % 3], fold=fold)
    found = runs.rank()
    assert [(standing.entry.label, standing.level) for standing in found.standings] == [
        ("forest", True), ("tree", True), ("knn", found.standings[2].level), ("majority", False),
    ]  # fmt: skip
    lines = render(sheet(found)).splitlines()
    assert [" ~ " in line for line in lines[4:6]] == [True, True] and " ~ " not in lines[7]
    assert sum(line.startswith("~ not separable") for line in lines) == 1


def test_a_significant_test_alone_does_not_separate(runs):
    """One session more right in every fold: no deviation, p = 0, yet the intervals overlap."""
    for fold in range(5):
        runs.add("forest", [1, 2], fold=fold)
        runs.add("knn", [1, 2, 30], fold=fold)
    second = runs.rank(metric="accuracy").standings[1]
    assert second.p == 0 and second.dz is None and second.level


def test_two_blocks_have_intervals_and_no_test(runs):
    three_methods(runs, folds=2)
    found = runs.rank()
    assert {standing.p for standing in found.standings} == {None} and found.tests["friedman"] is None
    assert not found.standings[2].level and found.standings[2].interval[1] < found.standings[0].interval[0]
    text = render(sheet(found))
    assert "no test with fewer than 3 blocks" in text and "Wilcoxon" not in text
    with pytest.raises(InputError, match="takes 3 methods and 3 blocks"):
        draw(found, runs.folder / "a.svg")


def test_common_blocks_count_and_notes_tell(runs):
    three_methods(runs)
    for fold in range(4):
        runs.add("bind", [3, 4], fold=fold, scale="epochs=2", leaky=True)
    runs.add("ports", [3, 4], fold=0)
    found = runs.rank()
    text = render(sheet(found))
    assert found.tests["blocks"] == 4 and "4 blocks" in found.title
    assert "3 methods have more runs than the 4 blocks that all have; those are not counted" in text
    assert "ports: left out, 1 of 5 blocks" in text
    assert "scales differ (epochs=2; full): a difference may be the scale's" in text
    assert "bind *†" in text and "† reduced scale" in text and "* the split lets parts share" in text
    assert "4 of 5" in text


def test_seeds_on_one_test_part_speak_of_seeds(runs):
    for seed in range(3):
        runs.add("forest", [seed], seed=seed, same_test=True)
        runs.add("knn", [seed, 8, 9], seed=seed, same_test=True)
    text = render(sheet(runs.rank()))
    assert "blocks with one and the same test part: p speaks of seeds" in text


def test_different_test_sessions_are_refused(runs):
    runs.add("forest", [1])
    runs.add("knn", [1], session=np.arange(SIZE) + 1)
    with pytest.raises(InputError, match="run0 and run1 were tested on different sessions"):
        runs.rank()
    with pytest.raises(InputError, match="unknown metric 'f1'; there are: accuracy, macro_precision"):
        runs.rank(metric="f1")


def test_methods_without_a_common_seed_are_refused(runs):
    for seed in range(3):
        runs.add("forest", [1], seed=seed)
        runs.add("knn", [1], seed=seed + 3)
    with pytest.raises(InputError, match="no seed and fold that all methods have"):
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
    assert "3 of 5 + 3 of 5" in render(sheet(found))


def test_five_data_sets_are_a_block_each(runs):
    names = [f"set{number}" for number in range(5)]
    for number, name in enumerate(names):
        for fold in range(2):
            runs.add("forest", [fold, number][: 1 + number % 2], fold=fold, dataset=name)
            runs.add("knn", [1, 2, 3, fold + 5], fold=fold, dataset=name)
            runs.add("majority", range(20 - number), fold=fold, dataset=name)
    found = runs.rank(*names)
    assert found.scores.shape == (5, 3) and found.tests["unit"] == "data set"
    text = render(sheet(found))
    assert "p: paired t-test on 5 data sets, one block each; Holm over 2 comparisons with the best" in text
    assert "both ignore" not in text and "10 blocks" in found.title


def test_programs_get_numbers(runs):
    three_methods(runs)
    found = sheet(runs.rank())
    told = json.loads(render(found, "json"))
    assert told["metric"] == "macro_f1" and told["tests"]["t_test"] is True and told["tests"]["blocks"] == 5
    first, *_, last = told["rows"]
    assert first["method"] == "forest" and first["p"] is None and len(first["run_ids"]) == 5
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
    with pytest.raises(InputError, match=r"ends in \.svg or \.png"):
        draw(found, runs.folder / "cd.pdf")


@pytest.mark.parametrize(
    "words", [[], ["a"], ["a", "b", "--dataset", "demo"], ["a", "b", "--metric", "accuracy"], ["a", "b", "--task", "x"]]
)
def test_the_command_takes_two_runs_or_data_sets(words, tmp_path):
    with pytest.raises(InputError, match="two runs, or --dataset"):
        cli.main(["compare", *words, "--results", str(tmp_path)], standalone_mode=False)


def test_the_command_ranks_draws_and_refuses(runs, tmp_path, monkeypatch, command_line):
    three_methods(runs)
    runs.search = lambda *, dataset, task: [r for r in runs.records if r.spec["dataset"] in dataset]
    monkeypatch.setattr("bench.tracking.Tracker", lambda results: runs)
    ask = ("compare", "--dataset", "demo", "--figure", tmp_path / "cd.png")
    status, out, _ = command_line(*ask, "--method", "forest,knn,majority", "--json")
    assert status == 0 and [row["method"] for row in json.loads(out)["rows"]] == ["forest", "knn", "majority"]
    assert (tmp_path / "cd.png").read_bytes().startswith(b"\x89PNG")
    assert command_line(*ask, "--format", "md", "--metric", "accuracy")[1].startswith("accuracy · demo")
    runs.add("forest", [1], split="capture")
    status, _, err = command_line(*ask)
    assert status == 2 and err.count("\n") == 1 and "--split: 'capture, 5 folds'; 'session, 5 folds'" in err
    assert command_line(*ask, "--split", "session")[0] == 0


@pytest.mark.slow
def test_the_command_ranks_real_runs(tmp_path, monkeypatch, command_line):
    demo.write(tmp_path / "traffic", sessions=20, captures=4, classes=3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    command_line("run", "--method", "majority,ports", "--dataset", "traffic")
    status, out, _ = command_line("compare", "--dataset", "traffic", "--json")
    told = json.loads(out)
    assert status == 0 and {row["method"] for row in told["rows"]} == {"majority", "ports"}
    assert told["tests"]["test_train_ratios"] == [pytest.approx(2 / 7, abs=0.1)]
    assert told["tests"]["t_test"] is False
