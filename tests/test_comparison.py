"""Two runs on the same test samples."""

import csv
import io
import json

import numpy as np
import pytest
from records import answered, of_spec, record, write_result
from refusals import refused

from bench.analysis.comparison import compare, comparison_table
from bench.analysis.paired import test_train_ratio as ratio_of
from bench.render.table import render


def test_comparison_by_hand(tmp_path):
    right = np.ones(40, bool)
    a, b = right.copy(), right.copy()
    a[[3]], b[10:19] = False, False  # a alone is right 9 times, b alone once
    first = record("forest", 0.9, folder=answered(tmp_path / "a", a))
    second = record("knn", 0.9, folder=answered(tmp_path / "b", b))
    compared = compare([first], [second])
    found = compared.to_dict()
    # groups of two: b alone is right in group 1 once, a alone in groups 5 to 8 twice and in group 9 once
    assert found["permutation"] == {"only_a": 9, "only_b": 1, "groups": 6, "p": pytest.approx(2 * 3 / 64)}
    assert (found["samples"], found["times"], found["groups"], found["resampled"]) == (40, 1, 20, "5-tuples")
    accuracy = found["accuracy"]
    assert (accuracy["a"], accuracy["b"], accuracy["difference"]) == (39 / 40, 31 / 40, pytest.approx(8 / 40))
    assert accuracy["low"] < 8 / 40 < accuracy["high"]
    text = render(comparison_table(compared)).splitlines()
    assert text[0] == "demo · service · session" and text[4].split()[:4] == ["accuracy", "0.975", "0.775", "+0.200"]
    assert text[6].startswith("a: forest  (forest-0") and text[7].startswith("b: knn")
    assert text[8] == "40 test samples, in 20 5-tuples"
    assert text[9].startswith("[ ] 95 %: jackknife over 5-tuples, those of the split, at least 20 of each tested class")
    assert text[9].endswith("; it does not cover the choice of captures and is narrower than one that does")
    assert text[-1] == "permutation by group, accuracy: only a right 9, only b right 1, 6 groups differ: p = 0.0938"


def test_folds_are_pooled_and_seeds_keep_their_groups(tmp_path):
    def runs(method, wrong, **field):
        return [
            record(
                method,
                0.5,
                folder=answered(tmp_path / f"{method}{n}", np.arange(20) >= wrong, session=20 * n * by + np.arange(20)),
                **{key: n},
            )
            for n in range(2)
            for key, by in field.items()
        ]

    a, b = runs("forest", 2, fold=1), runs("knn", 4, fold=1)
    found = compare(a, b[::-1]).to_dict()
    assert found["samples"] == 40 and found["permutation"]["only_a"] == 4
    compared = compare(runs("tree", 2, seed=0), runs("rule", 4, seed=0))
    again = compared.to_dict()
    assert (again["samples"], again["times"], again["groups"]) == (20, 2, 10)
    assert again["permutation"] == {"only_a": 4, "only_b": 0, "groups": 1, "p": None}  # both seeds in one group
    assert "1 groups differ: not testable with fewer than 6" in render(comparison_table(compared))
    assert "20 test samples, each tested up to 2 times, in 10 5-tuples" in render(comparison_table(compared))
    with refused("different-tests", "seed 0 fold 1"):
        compare(a, b[:1])


@pytest.mark.parametrize("change", ["session", "truth", "store", "missing"])
def test_only_equal_test_sessions_are_compared(tmp_path, change):
    right = np.ones(10, bool)
    a = record("forest", 0.9, folder=answered(tmp_path / "a", right))
    session = np.arange(10) + (change == "session")
    truth = np.arange(10) % 2 if change != "truth" else np.zeros(10, int)
    b = record("knn", 0.9, folder=answered(tmp_path / "b", right, truth=truth, session=session))
    if change == "store":
        b = of_spec(b, store="other")
    if change == "missing":
        (b.folder / "predictions.npz").unlink()
    with refused("missing-artefact" if change == "missing" else "different-tests"):
        compare([a], [b])


def test_a_comparison_names_its_unit_its_marks_and_its_place_in_every_form(tmp_path):
    right = np.arange(10) > 0
    a = record("forest", 0.9, split="capture", folder=answered(tmp_path / "a", right), scale="trees=2")
    b = record("knn", 0.9, split="capture", folder=answered(tmp_path / "b", ~right))
    found = comparison_table(compare([a], [b]))
    text = render(found)
    assert "in 5 capture groups" in text and "§" not in text and "narrower" not in text
    assert "a: forest †  (" in text and "† reduced scale" in text
    told = json.loads(render(found, "json"))
    assert told["accuracy"]["a"] == 0.9 and told["a"]["marks"] == ["reduced"] and len(told["rows"]) == 2
    lines = list(csv.DictReader(io.StringIO(render(found, "csv"))))
    assert [line["metric"] for line in lines] == ["accuracy", "macro_f1"]
    assert (lines[0]["a_method"], lines[0]["split"], lines[0]["task"]) == ("forest", "capture", "service")
    assert lines[0]["resampled"] == "capture groups"


def test_a_split_file_resamples_the_groups_of_the_scheme_it_had(tmp_path):
    runs = [record(name, 0.9, split="file", folder=answered(tmp_path / name, np.ones(6, bool))) for name in ("a", "b")]
    for run in runs:
        write_result(run.folder, scheme="attribute:version=v(\\d)")
    assert compare([runs[0]], [runs[1]]).resampled == "values of version"


@pytest.mark.parametrize(("leaky", "ratio"), [(False, 30 / 60), (True, 30 / 100)])
def test_repeated_training_samples_do_not_count(tmp_path, leaky, ratio):
    run = record("forest", 0.9, folder=tmp_path, leaky=leaky)
    write_result(tmp_path, samples={"train": 100, "test": 30}, repeated=40)
    assert ratio_of(run) == ratio
