"""Tables as texts, comparisons by hand."""

import csv
import dataclasses
import io
import json

import pytest
from records import of_spec, record
from refusals import refused

from bench.analysis.tables import group, results_table, siblings
from bench.environment import ROOT
from bench.render.table import Table, render
from bench.runs.run_labels import INTERVAL_SIGNS, MARKS, remarks
from bench.tracking.record import shown
from bench.tracking.selection import NO_RUNS
from bench.training.budget import SHARED

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
    assert render(results_table(RECORDS, metrics=("macro_f1", "seconds"), footnotes=True)) == "\n".join(
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
            "[ ] 95 %: jackknife over groups; of the tested class with the fewest: 9 (40 in all)",
        ]
    )


def test_markdown_table_word_for_word():
    assert render(results_table([*RECORDS[:3], RECORDS[4]], metrics=("macro_f1",)), "md") == "\n".join(
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
            "- [ ] 95 %: jackknife over groups; of the tested class with the fewest: 9 (40 in all)",
        ]
    )


def test_an_interval_over_few_groups_is_marked_and_so_is_one_of_an_earlier_version():
    records = [
        record("majority", 0.05, interval=(0.04, 0.06), groups=(2.0, 11.0)),
        record("forest", 0.8, interval=(0.7, 0.9), groups=(3.0, 11.0)),
        record("knn", 0.7, interval=(0.6, 0.8), groups=None),
        record("bind", 0.6, seed=0, interval=(0.5, 0.7), groups=(1.0, 5.0)),
        record("bind", 0.7, seed=1, interval=(0.5, 0.7), groups=(1.0, 5.0)),
    ]
    found = results_table(records, metrics=("macro_f1",))
    lines = render(found).splitlines()
    shown = {line.split()[0]: line.split("  ")[-1].strip() for line in lines[4:8]}
    assert shown["forest"] == "0.800 [0.700, 0.900]" and shown["bind"] == "0.650 ± 0.071"
    assert shown["majority"] == "0.050 [0.040, 0.060] §" and shown["knn"] == "0.700 [0.600, 0.800] ¶"
    assert (
        lines[8] == "[ ] 95 %: jackknife over groups; of the tested class with the fewest: 2 (11 in all), 3 (11 in all)"
    )
    assert lines[9] == "§ do not trust the interval: a tested class has fewer than 3 groups"
    assert (
        lines[10].startswith("¶ interval of an earlier version, a percentile bootstrap over groups")
        and len(lines) == 11
    )
    told = {row["method"]: row for row in found.records}
    assert told["forest"]["interval_groups"] == 3 and told["forest"]["interval_groups_total"] == 11
    assert "interval_groups" not in told["knn"] and "interval_groups" not in told["bind"]


def test_json_and_csv_hold_numbers():
    told = json.loads(render(results_table(RECORDS), "json"))
    forest = next(row for row in told["rows"] if row["method"] == "forest")
    assert forest["macro_f1"] == pytest.approx(0.82) and forest["macro_f1_sd"] == pytest.approx(0.0282843, rel=1e-4)
    assert (forest["runs"], forest["seeds"], forest["run_ids"]) == (2, [0, 1], ["forest-0-None", "forest-1-None"])
    knn = next(row for row in told["rows"] if row["method"] == "knn")
    assert knn["not_done"] == [{"run_id": "knn-0-None", "status": "failed", "reason": "ValueError: no neighbours"}]
    lines = list(csv.DictReader(io.StringIO(render(results_table(RECORDS), "csv"))))
    assert [line["method"] for line in lines] == ["atvitsc", "forest", "majority", "knn"]
    assert float(lines[2]["macro_f1_high"]) == 0.06 and lines[3]["macro_f1"] == ""


def test_places_that_differ_become_columns_and_specifications_are_not_mixed():
    records = [
        record("forest", 0.5),
        record("forest", 0.7, split="capture", leaky=True),
        record("forest", 0.9, parameters={"trees": 9}),
    ]
    lines = render(results_table(records, metrics=("macro_f1",))).splitlines()
    assert lines[0] == "demo · service"
    assert [line.split() for line in lines[4:7]] == [
        ["capture", "forest", "*", "1", "0.700"],
        ["session", "forest", "(trees=9)", "1", "0.900"],
        ["session", "forest", "1", "0.500"],
    ]
    assert lines[7].startswith("* the split lets parts share")


def test_a_table_spread_over_data_sets():
    records = [record("forest", 0.5), record("forest", 0.7, dataset="iot"), record("knn", 0.6, dataset="iot")]
    assert render(results_table(records, metrics=("macro_f1",), columns="dataset")).splitlines() == [
        "macro_f1 · service · session",
        "",
        "method  demo   iot",
        "------------------",
        "forest  0.500  0.700",
        "knn     –      0.600",
        "data set iot is not a shipped one (store 0f)",
    ]


def test_two_stores_of_one_name_are_told_apart_wherever_both_are_shown():
    """Also where no method has runs on both: each row alone would look like one of the other store."""
    records = [record("forest", 0.9), of_spec(record("knn", 0.5), store="1e" * 32)]
    shown = results_table(records, metrics=("macro_f1",))
    assert [row[0] for row in shown.rows] == ["forest (store=0f)", "knn (store=1e1e1e1e)"]
    assert [row["store"] for row in shown.records] == ["0f", "1e" * 32]
    same = results_table([records[0], of_spec(record("forest", 0.5), store="1e" * 32)], metrics=("macro_f1",))
    assert [row[0] for row in same.rows] == ["forest (store=0f)", "forest (store=1e1e1e1e)"]


def test_a_method_that_is_not_shipped_says_where_it_is_from():
    records = [
        of_spec(record("mine.py:Mine", 0.9), source="12ab34cd56ef7890"),
        record("theirs", 0.8, origin="their-package 1.2"),
        record("forest", 0.7, origin="a package that says so"),
        record("older", 0.6),
    ]
    shown = results_table(records, metrics=("macro_f1",))
    labels = ["mine.py:Mine (file 12ab34cd)", "theirs (their-package 1.2)", "forest", "older △"]
    assert [row[0] for row in shown.rows] == labels
    assert [row["origin"] for row in shown.records] == ["file 12ab34cd", "their-package 1.2", "", ""]
    assert shown.notes[-1] == "method older is not a shipped one; its runs name no package"
    assert shown.notes[0].startswith("△ answers of another program")


def test_runs_without_digests_are_said_to_be_unverified():
    records = [record("forest", 0.9), record("knn", 0.5, files={}), record("ports", None, status="failed", files={})]
    notes = results_table(records, metrics=("macro_f1",)).notes
    assert [note for note in notes if "unverified" in note] == [
        "1 of 2 runs: files are unverified, made before runs recorded digests of them; --rerun makes them again"
    ]


def test_a_run_that_scored_something_else_before_is_told():
    now, same, other = record("forest", 0.9), record("forest", 0.9), record("forest", 0.8)
    failed = record("forest", None, status="failed")
    assert shown([now, same, failed]) == [now]
    (kept,) = shown([now, failed, other, same])
    assert kept.before == (0.8,)
    alone = record("knn", 0.7, seed=1)
    notes = results_table([kept, alone], metrics=("macro_f1",)).notes
    assert [note for note in notes if "before" in note] == [
        "forest: 1 run had another score when computed before, macro_f1 up to 0.100 apart; the newest counts "
        "(`bench results show` lists all)"
    ]


def test_of_two_searches_of_one_fold_the_newest_run_counts():
    """They found other parameters, so that their runs have other digests."""
    runs = [
        of_spec(record("knn", f1, fold=fold, folds=2, parameters={"neighbours": k}), tuned="3 trials a fold")
        for f1, fold, k in ((0.9, 0, 1), (0.7, 0, 3), (0.5, 1, 5))
    ]
    kept = shown(runs)
    assert [(one.metrics["macro_f1"], one.before) for one in kept] == [(0.9, (0.7,)), (0.5, ())]
    (row,) = results_table(kept, metrics=("macro_f1",)).rows
    assert row[1:] == ["2", "0.700 ± 0.283"]


def test_seeds_that_do_not_begin_at_0_are_told():
    records = [record("forest", 0.9), record("knn", 0.8, seed=7), record("ports", 0.1, seed=1), record("ports", 0.1)]
    notes = results_table(records, metrics=("macro_f1",)).notes
    assert [note for note in notes if "seed" in note] == ["knn: seed 7"]


def test_what_rounds_apart_is_no_other_score():
    (kept,) = shown([record("forest", 0.9), record("forest", 0.9 + 1e-12)])
    assert kept.before == ()


def test_a_fit_that_was_cut_short_is_marked():
    cut = dataclasses.replace(record("logreg", 0.5), metrics=record("logreg", 0.5).metrics | {"not_converged": 1.0})
    text = render(results_table([cut], metrics=("macro_f1",)))
    assert "logreg ○" in text and "○ its fit did not converge" in text
    assert any("did not converge" in line for line in remarks(cut.spec, cut.metrics))


def test_runs_that_may_have_ended_too_early_are_counted():
    falling = {"still_improving": 1.0}
    runs = [record("fsnet", 0.5, seed=seed) for seed in range(3)]
    runs[1:] = [dataclasses.replace(run, metrics=run.metrics | falling) for run in runs[1:]]
    notes = results_table([*runs, record("forest", 0.9)], metrics=("macro_f1",)).notes
    assert [note for note in notes if "more steps may score higher" in note] == [
        "loss on validation lowest in the last tenth of the steps, so more steps may score higher: fsnet 2 of 3 runs"
    ]
    assert any("more steps" in line for line in remarks(runs[1].spec, runs[1].metrics))
    assert not any("more steps" in line for line in remarks(runs[0].spec, runs[0].metrics))


def test_every_mark_is_explained_and_can_be_set_in_tex():
    page = (ROOT / "docs/reading.md").read_text()
    for sign in [*MARKS.values(), *INTERVAL_SIGNS]:
        assert f"| `{sign}` |" in page
        assert render(Table("", ["method"], [[sign]]), "tex").isascii(), sign


def test_missing_folds_are_told():
    records = [record("forest", 0.5, fold=f, folds=5) for f in (0, 1, 3)]
    text = render(results_table(records, metrics=("macro_f1",)))
    assert "session, 5 folds" in text and "3 of 5" in text


def test_no_runs_and_unknown_formats():
    assert render(results_table([])) == NO_RUNS
    assert json.loads(render(results_table([]), "json"))["rows"] == []
    with refused("unknown-format", "'latex'"):
        render(results_table([]), "latex")
    with refused("unknown-column", "'seed'"):
        results_table([], columns="seed")


def test_siblings_share_all_but_seed_and_fold():
    records = [record("forest", 0.5, seed=s) for s in range(3)] + [record("forest", 0.5, parameters={"trees": 1})]
    records.append(record("forest", None, seed=4, status="failed"))
    assert [r.spec.split.seed for r in siblings(records[0], records)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("method", "parameters", "expected"),
    [
        ("atvitsc", {}, "atvitsc"),
        ("atvitsc", dict(SHARED), "atvitsc (shared)"),
        ("atvitsc", {**SHARED, "steps": 9}, "atvitsc (shared, steps=9)"),
        ("atvitsc", {"epochs": 3}, "atvitsc (epochs=3)"),
        ("atvitsc", {"branches": "global", "epochs": 3}, "atvitsc (pvt, epochs=3)"),
        ("forest", {"packets": 16, "count": "kept", "trees": 9}, "forest (shared, trees=9)"),
        ("theirs.py:Theirs", {"b": 2, "a": 1}, "theirs.py:Theirs (a=1, b=2, file without a digest)"),
    ],
)
def test_a_row_says_its_settings_in_the_shortest_words(method, parameters, expected):
    assert group([record(method, 0.5, parameters=parameters)])[0].method == expected
