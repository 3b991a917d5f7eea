"""What can be set against what, and two runs."""

import json

import numpy as np
import pytest
from records import answered, record

from bench.comparison import compare, compare_text, contestants
from bench.errors import InputError


def test_comparison_by_hand(tmp_path):
    right = np.ones(40, bool)
    a, b = right.copy(), right.copy()
    a[[3]], b[10:19] = False, False  # a alone is right 9 times, b alone once
    first = record("forest", 0.9, folder=answered(tmp_path / "a", a))
    second = record("knn", 0.9, folder=answered(tmp_path / "b", b))
    found = compare([first], [second])
    assert found["mcnemar"] == {"only_a": 9, "only_b": 1, "p": pytest.approx(22 / 1024)}
    assert (found["sessions"], found["groups"]) == (40, 20)
    accuracy = found["accuracy"]
    assert (accuracy["a"], accuracy["b"], accuracy["difference"]) == (39 / 40, 31 / 40, pytest.approx(8 / 40))
    assert accuracy["low"] < 8 / 40 < accuracy["high"]
    text = compare_text(found).splitlines()
    assert text[0].startswith("a: forest") and text[1].startswith("b: knn")
    assert text[-1] == "McNemar: only a right 9, only b right 1, p = 0.0215  (takes sessions as independent)"
    json.dumps(found)


def test_folds_are_pooled_and_seeds_have_no_mcnemar(tmp_path):
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
    found = compare(a, b[::-1])
    assert found["sessions"] == 40 and found["mcnemar"]["only_a"] == 4
    again = compare(runs("tree", 2, seed=0), runs("rule", 4, seed=0))
    assert again["sessions"] == 40 and again["mcnemar"] is None and again["groups"] == 10
    with pytest.raises(InputError, match="only one side has seed 0 fold 1"):
        compare(a, b[:1])


@pytest.mark.parametrize("change", ["session", "truth", "store", "missing"])
def test_only_equal_test_sessions_are_compared(tmp_path, change):
    right = np.ones(10, bool)
    a = record("forest", 0.9, folder=answered(tmp_path / "a", right))
    session = np.arange(10) + (change == "session")
    truth = np.arange(10) % 2 if change != "truth" else np.zeros(10, int)
    b = record("knn", 0.9, folder=answered(tmp_path / "b", right, truth=truth, session=session))
    if change == "store":
        b.spec["store"] = "other"
    if change == "missing":
        (b.folder / "predictions.npz").unlink()
    said = (
        "has no predictions; run it again"
        if change == "missing"
        else "different sessions; run both with the same --dataset"
    )
    with pytest.raises(InputError, match=said):
        compare([a], [b])


def rows(method, scores, **more):
    return [record(method, f1, fold=fold, folds=5, **more) for fold, f1 in enumerate(scores)]


def test_contestants_are_the_rows_of_one_split():
    records = [*rows("forest", [0.8] * 5), *rows("knn", [0.7] * 5), *rows("ports", [0.1] * 2)]
    records += [record("forest", 0.9, split="capture"), record("forest", 0.5, max_per_class=9)]
    entries, notes = contestants(records, ["demo"], split="session, 5 folds")
    assert [(entry.label, len(entry.runs)) for entry in entries] == [("forest", 5), ("knn", 5)]
    assert notes == ["ports: left out, 2 of 5 blocks"]
    assert [entry.label for entry in contestants(records[:10], ["demo"], split="session")[0]] == ["forest", "knn"]


def test_of_several_stores_the_last_used_counts():
    old, new = (
        rows("forest", [0.8] * 5, started=1.0),
        [*rows("knn", [0.7] * 5, started=2.0), *rows("forest", [0.6] * 5)],
    )
    for r in old:
        r.spec["store"] = "ff"
    entries, notes = contestants([*old, *new], ["demo"])
    assert [entry.label for entry in entries] == ["knn", "forest"]
    assert notes == ["demo: 5 runs on another state of the data set are left out"]


def test_methods_that_lack_a_data_set_are_left_out():
    records = [*rows("forest", [0.8] * 5), *rows("knn", [0.7] * 5), *rows("tree", [0.7] * 5)]
    iot = {"dataset": "iot", "task": "device"}
    records += [*rows("forest", [0.8] * 5, **iot), *rows("tree", [0.7] * 5, **iot)]
    entries, notes = contestants(records, ["demo", "iot"])
    assert [entry.label for entry in entries] == ["forest", "tree"] and len(entries[0].runs) == 10
    assert notes == ["knn: left out, no runs on iot"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "several splits; choose with --split: 'capture'; 'session'; 'session, 5 folds'"),
        ({"split": "session"}, None),  # an exact name
        ({"split": "paper"}, "no such split that all have; choose with --split: 'capture'; 'session'"),
        ({"split": "session, 5 folds"}, "several tasks; choose with --task: apps, service"),
        ({"split": "capture"}, "1 methods with finished runs on demo"),
        ({"methods": ["knn", "bind"]}, "no finished runs of bind, knn"),
    ],
)
def test_what_is_ambiguous_or_missing_is_refused_with_the_choice(options, said):
    records = [
        *rows("forest", [0.8] * 5),
        *rows("tree", [0.8] * 5, task="apps"),
        record("forest", 0.5, split="capture"),
    ]
    records += [record("forest", 0.5), record("tree", 0.5), record("knn", None, status="failed")]
    if said is None:
        assert len(contestants(records, ["demo"], **options)[0]) == 2
        return
    with pytest.raises(InputError, match=said):
        contestants(records, ["demo"], **options)
    with pytest.raises(InputError, match="no finished runs on nowhere"):
        contestants(records, ["nowhere"])
