"""Tables as texts, comparisons by hand."""

import csv
import io
import json

import numpy as np
import pytest

from bench.errors import InputError
from bench.sheets import render
from bench.tables import compare, compare_text, group, siblings, table
from bench.tracking import Predictions, Record


def record(method, f1, *, seed=0, fold=None, folds=None, status="done", reason="", interval=None, folder=None, **more):
    spec = {
        "method": method, "dataset": "demo", "task": "service", "split": "session", "seed": seed, "fold": fold,
        "folds": folds, "parameters": more.pop("parameters", {}), "max_per_class": more.pop("max_per_class", None),
        "store": "0f", "split_file": None, "split_digest": None, "source": None,
    }  # fmt: skip
    spec |= {key: more.pop(key) for key in ("dataset", "task", "split") if key in more}
    metrics = {} if f1 is None else {n: f1 for n in ("accuracy", "macro_precision", "macro_recall", "macro_f1")}
    metrics |= {"abstentions": more.pop("abstentions", 0.0), "seconds": 12.34} if metrics else {}
    if interval:
        metrics |= {"macro_f1_low": interval[0], "macro_f1_high": interval[1]}
    run_id = f"{method}-{seed}-{fold}"
    spec["digest"] = run_id
    return Record(run_id, status, reason, spec, metrics, folder=folder, **more)


RECORDS = [
    record("majority", 0.05, interval=(0.04, 0.06)),
    record("forest", 0.80, seed=0),
    record("forest", 0.84, seed=1),
    record(
        "atvitsc",
        0.9,
        parameters={"epochs": 2},
        scale="epochs=2",
        deviations=("reconstructed: the fusion",),
        abstentions=3.0,
    ),
    record("knn", None, status="failed", reason="ValueError: no neighbours"),
]


def test_text_table_word_for_word():
    assert render(table(RECORDS, metrics=("macro_f1", "seconds"), footnotes=True)) == "\n".join(
        [
            "demo · service · session",
            "",
            "method                 runs  macro_f1              seconds     abstentions",
            "--------------------------------------------------------------------------",
            "atvitsc (epochs=2) †‡  1     0.900                 12.3        3",
            "forest                 2     0.820 ± 0.028         12.3 ± 0.0  0 ± 0",
            "majority               1     0.050 [0.040, 0.060]  12.3        0",
            "knn                    0     –                     –           –",
            "† reduced scale",
            "‡ reconstructed where the paper is silent",
            "atvitsc: reconstructed: the fusion",
            "knn: failed, ValueError: no neighbours",
        ]
    )


def test_markdown_table_word_for_word():
    assert render(table([*RECORDS[:3], RECORDS[4]], metrics=("macro_f1",)), "md") == "\n".join(
        [
            "demo · service · session",
            "",
            "| method | runs | macro_f1 |",
            "|---|---|---|",
            "| forest | 2 | 0.820 ± 0.028 |",
            "| majority | 1 | 0.050 [0.040, 0.060] |",
            "| knn | 0 | – |",
            "",
            "- knn: failed, ValueError: no neighbours",
        ]
    )


def test_json_and_csv_hold_numbers():
    told = json.loads(render(table(RECORDS), "json"))
    forest = next(row for row in told["rows"] if row["method"] == "forest")
    assert forest["macro_f1"] == pytest.approx(0.82) and forest["macro_f1_sd"] == pytest.approx(0.0282843, rel=1e-4)
    assert (forest["runs"], forest["seeds"], forest["run_ids"]) == (2, [0, 1], ["forest-0-None", "forest-1-None"])
    knn = next(row for row in told["rows"] if row["method"] == "knn")
    assert knn["not_done"] == [{"run_id": "knn-0-None", "status": "failed", "reason": "ValueError: no neighbours"}]
    lines = list(csv.DictReader(io.StringIO(render(table(RECORDS), "csv"))))
    assert [line["method"] for line in lines] == ["atvitsc", "forest", "majority", "knn"]
    assert float(lines[2]["macro_f1_high"]) == 0.06 and lines[3]["macro_f1"] == ""


def test_places_that_differ_become_columns_and_specifications_are_not_mixed():
    records = [
        record("forest", 0.5),
        record("forest", 0.7, split="capture", leaky=True),
        record("forest", 0.9, parameters={"trees": 9}),
    ]
    lines = render(table(records, metrics=("macro_f1",))).splitlines()
    assert lines[0] == "demo · service"
    assert [line.split() for line in lines[4:7]] == [
        ["capture", "forest", "*", "1", "0.700"],
        ["session", "forest", "(trees=9)", "1", "0.900"],
        ["session", "forest", "1", "0.500"],
    ]
    assert lines[7].startswith("* the split lets parts share")


def test_a_table_spread_over_data_sets():
    records = [record("forest", 0.5), record("forest", 0.7, dataset="iot"), record("knn", 0.6, dataset="iot")]
    assert render(table(records, metrics=("macro_f1",), columns="dataset")).splitlines() == [
        "macro_f1 · service · session",
        "",
        "method  demo   iot",
        "------------------",
        "forest  0.500  0.700",
        "knn     –      0.600",
    ]


def test_missing_folds_are_told():
    records = [record("forest", 0.5, fold=f, folds=5) for f in (0, 1, 3)]
    text = render(table(records, metrics=("macro_f1",)))
    assert "session, 5 folds" in text and "3 of 5" in text


def test_no_runs_and_unknown_formats():
    assert render(table([])) == "no runs; `bench run` makes some"
    assert json.loads(render(table([]), "json"))["rows"] == []
    with pytest.raises(InputError, match="unknown table format 'latex'"):
        render(table([]), "latex")
    with pytest.raises(InputError, match="cannot spread a table over 'seed'"):
        table([], columns="seed")


def answered(folder, correct, *, truth=None, session=None):
    """A run's folder whose predictions are right where ``correct``."""
    truth = np.arange(len(correct)) % 2 if truth is None else truth
    answers = np.where(correct, truth, 1 - truth)
    session = np.arange(len(correct)) if session is None else session
    folder.mkdir()
    made = Predictions(["a", "b"], session, 0 * session, truth, session // 2, np.eye(2, dtype=np.float32)[answers])
    made.save(folder / "predictions.npz")
    return folder


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


def test_siblings_share_all_but_seed_and_fold():
    records = [record("forest", 0.5, seed=s) for s in range(3)] + [record("forest", 0.5, parameters={"trees": 1})]
    records.append(record("forest", None, seed=4, status="failed"))
    assert [r.spec["seed"] for r in siblings(records[0], records)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("method", "parameters", "expected"),
    [
        ("atvitsc", {}, "atvitsc"),
        ("atvitsc", {"patience": 5}, "atvitsc (shared)"),
        ("atvitsc", {"patience": 5, "epochs": 3}, "atvitsc (shared, epochs=3)"),
        ("atvitsc", {"epochs": 3}, "atvitsc (epochs=3)"),
        ("atvitsc", {"branches": "global", "epochs": 3}, "atvitsc (pvt, epochs=3)"),
        ("forest", {"packets": 16, "trees": 9}, "forest (shared, trees=9)"),
        ("theirs.py:Theirs", {"b": 2, "a": 1}, "theirs.py:Theirs (a=1, b=2)"),
    ],
)
def test_a_row_says_its_settings_in_the_shortest_words(method, parameters, expected):
    assert group([record(method, 0.5, parameters=parameters)])[0].method == expected
