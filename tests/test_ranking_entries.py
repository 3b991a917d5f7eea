"""Who can be ranked."""

import dataclasses

import pytest
from records import of_spec, record
from refusals import refused

from bench.analysis.ranking_entries import ranking_entries, suite_entries
from bench.suites.suite import FORMAT, Contender, Portion, Suite
from bench.tracking.selection import Wanted, narrowed


def rows(method, scores, **more):
    return [record(method, f1, fold=fold, folds=5, **more) for fold, f1 in enumerate(scores)]


def test_contestants_are_the_rows_of_one_split():
    records = [*rows("forest", [0.8] * 5), *rows("knn", [0.7] * 5), *rows("ports", [0.1] * 2)]
    records += [record("forest", 0.9, split="capture"), record("forest", 0.5, max_per_class=9)]
    entries, notes = ranking_entries(records, ["demo"], split="session, 5 folds")
    assert [(entry.label, len(entry.runs)) for entry in entries] == [("forest", 5), ("knn", 5)]
    assert notes == ["ports: left out, 2 of 5 blocks"]
    assert [entry.label for entry in ranking_entries(records[:10], ["demo"], split="session")[0]] == ["forest", "knn"]


def test_of_several_stores_the_last_used_counts():
    old, new = (
        rows("forest", [0.8] * 5, started=1.0),
        [*rows("knn", [0.7] * 5, started=2.0), *rows("forest", [0.6] * 5)],
    )
    old = [of_spec(r, store="ff") for r in old]
    entries, notes = ranking_entries([*old, *new], ["demo"])
    assert [entry.label for entry in entries] == ["knn", "forest"]
    assert notes == ["demo: 5 runs on another state of the data set are left out"]


def test_methods_that_lack_a_data_set_are_left_out():
    records = [*rows("forest", [0.8] * 5), *rows("knn", [0.7] * 5), *rows("tree", [0.7] * 5)]
    iot = {"dataset": "iot", "task": "device"}
    records += [*rows("forest", [0.8] * 5, **iot), *rows("tree", [0.7] * 5, **iot)]
    entries, notes = ranking_entries(records, ["demo", "iot"])
    assert [entry.label for entry in entries] == ["forest", "tree"] and len(entries[0].runs) == 10
    assert notes == ["knn: left out, no runs on iot"]


def test_tasks_of_one_data_set_are_said_to_be_no_independent_ones():
    portions = [Portion("demo", task, "session", folds=5) for task in ("service", "apps")]
    suite = Suite(FORMAT, "s", (*portions, Portion("iot", "device", "session", folds=5)), (Contender("forest"),))
    places = [{"task": "service"}, {"task": "apps"}, {"dataset": "iot", "task": "device"}]
    records = [one for name in ("forest", "knn") for place in places for one in rows(name, [0.5] * 5, **place)]
    notes = suite_entries(records, suite)[1]
    assert [note.split(";")[0] for note in notes if "independent" in note] == [
        "demo: 2 tasks or splits are of this data set"
    ]
    assert "independent" not in "".join(
        suite_entries(records, dataclasses.replace(suite, datasets=suite.datasets[1:]))[1]
    )


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        ({}, "ambiguous-split", "'capture'; 'session'; 'session, 5 folds'"),
        ({"split": "session"}, None, ""),  # an exact name
        ({"split": "paper"}, "ambiguous-split", "'capture'; 'session'"),
        ({"split": "session, 5 folds"}, "ambiguous-task", "apps, service"),
        ({"split": "capture"}, "no-runs", "demo"),
        ({"methods": ["knn", "bind"]}, "no-runs", "bind, knn"),
    ],
)
def test_what_is_ambiguous_or_missing_is_refused_with_the_choice(options, code, named):
    records = [
        *rows("forest", [0.8] * 5),
        *rows("tree", [0.8] * 5, task="apps"),
        record("forest", 0.5, split="capture"),
    ]
    records += [record("forest", 0.5), record("tree", 0.5), record("knn", None, status="failed")]
    if code is None:
        assert len(ranking_entries(records, ["demo"], **options)[0]) == 2
        return
    with refused(code, named):
        ranking_entries(records, ["demo"], **options)
    with refused("no-runs", "nowhere"):
        ranking_entries(records, ["nowhere"])


def test_who_did_not_fit_is_named_and_not_ranked():
    unfitted = {"training_majority": 0.1, "training_accuracy": 0.31}
    records = [*rows("forest", [0.8] * 5), *rows("knn", [0.7] * 5), *rows("cmtsnn", [0.2] * 5)]
    for number, run in enumerate(records[10:]):
        run.metrics.update(unfitted | {"training_accuracy": 0.31 + number / 100})
    entries, notes = ranking_entries(records, ["demo"])
    assert [entry.label for entry in entries] == ["forest", "knn"]
    assert notes == ["cmtsnn: not ranked, it did not fit its training samples (accuracy 0.31 to 0.35 on them)"]
    with refused("no-runs", "a ranking needs two"):
        ranking_entries(records[5:], ["demo"])


def test_a_split_is_called_what_tables_call_it_and_what_rankings_do():
    records = [*rows("forest", [0.8] * 5, max_per_class=60), *rows("tree", [0.7] * 5, max_per_class=60)]
    whole = "session, 5 folds, max_per_class=60"
    for word in ("session", "session, 5 folds", whole):
        assert len(ranking_entries(records, ["demo"], split=word)[0]) == 2
        assert len(narrowed(records, Wanted(split=word))[0]) == 10
    with refused("ambiguous-split", f"'{whole}'"):
        ranking_entries(records, ["demo"], split="session, 5")


def test_a_method_of_one_block_does_not_cut_the_others_to_it():
    records = [one for name in ("forest", "tree") for one in rows(name, [0.8] * 2)]
    entries, notes = ranking_entries([*records, *rows("mine", [0.5])], ["demo"])
    assert [entry.label for entry in entries] == ["forest", "tree"] and notes == ["mine: left out, 1 of 2 blocks"]
    unfitted = [
        dataclasses.replace(one, metrics=one.metrics | {"training_accuracy": 0.2, "training_majority": 0.2})
        for one in rows("tree", [0.1] * 2)
    ]
    with refused("no-runs", "1 method can be ranked on demo", "tree: not ranked, it did not fit"):
        ranking_entries([*rows("forest", [0.8] * 2), *unfitted], ["demo"])
