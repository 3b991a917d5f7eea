"""Samples divided at random, and the protocols of other papers that stand on it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused
from split_tables import QUIET, attempt, split_of, tables

from bench.paper.declaration import find_paper
from bench.spec import PAPER_PER_CLASS, PROTOCOLS, SplitSpec

PRINTED = Path(__file__).parents[1] / "results" / "papers" / "et-bert.csv"
ET_BERT = find_paper("et-bert")


@QUIET
@given(table=tables(), limit=st.none() | st.integers(1, 30), seed=st.integers(0, 5))
def test_each_class_is_divided_eight_to_one_to_one_and_no_sample_is_in_two_parts(table_store, table, limit, seed):
    split = attempt(table_store(table), "task", "random", seed=seed, max_per_class=limit)
    rows = np.concatenate([part.session for part in split.parts.values()])
    assert len(np.unique(rows)) == len(rows) and split.spec.leaky and split.spec.balancing == "keep"
    sizes = np.bincount(table["labels"][table["labels"] >= 0], minlength=len(split.counts))
    for counts, size in zip(split.counts.values(), sizes, strict=True):
        number = min(size, limit or size)
        wanted = {"train": round(0.8 * number), "validation": round(0.9 * number) - round(0.8 * number)}
        assert counts == {**wanted, "test": number - round(0.9 * number)}


def test_what_the_parts_share_is_counted_and_nothing_is_promised(table_store):
    labels = np.repeat([0, 1], 50)
    table = {"labels": labels, "conversation": np.arange(100) // 10, "capture": labels, "start": np.arange(100)}
    split = split_of(table_store(table), "task", "random")
    assert split.verified == ("nothing: samples are assigned at random, and parts share sessions on purpose",)
    learned = set(table["conversation"][split.train.session])
    seen = sum(one in learned for one in table["conversation"][split.test.session])
    assert split.shared["test_in_training_conversations"] == seen > 0
    assert split.shared["test_in_training_capture_groups"] == len(split.test) == 10
    assert split.shares == (0.8, 0.1, 0.1)
    assert split_of(table_store(table), "task", "session").shares == (0.7, 0.1, 0.2)


def test_a_protocol_is_a_word_for_its_options_and_what_is_typed_goes_over_it():
    flow, packet, whole, limited = (SplitSpec.typed(name) for name in PROTOCOLS)
    assert flow == SplitSpec("random", max_per_class=500, filter="sugar")
    assert packet == SplitSpec("random", max_per_class=5_000, filter="sugar", sampling="window=1")
    assert whole == SplitSpec("random")
    assert limited == SplitSpec("random", min_per_class=500, max_per_class=2_000)
    assert SplitSpec.typed("et-bert-flow", filter="dns", seed=3) == SplitSpec(
        "random", max_per_class=500, filter="dns", seed=3
    )
    assert SplitSpec.typed("et-bert-packet", filter="none", sampling="session") == SplitSpec(
        "random", max_per_class=5_000
    )
    with refused("unknown-split", "several options", "scheme=random, max_per_class=500, filter=sugar"):
        SplitSpec("et-bert-flow")
    assert SplitSpec.typed("file:a.json", seed=1) == SplitSpec("file", file="a.json", seed=1)
    assert SplitSpec.typed("capture", folds=5) == SplitSpec("capture", folds=5)
    with refused("unknown-split", "et-bert-flow"):
        SplitSpec.typed("et-bert-flo")


@pytest.mark.parametrize(
    ("spec", "reduced"),
    [
        (SplitSpec.typed("et-bert-flow"), False),
        (SplitSpec.typed("et-bert-flow", max_per_class=499), True),
        (SplitSpec.typed("et-bert-packet", max_per_class=500), True),
        (SplitSpec("random", max_per_class=500), True),  # without its filter it is nobody's protocol
        (SplitSpec.typed("netmamba-flow"), False),
        (SplitSpec.typed("netmamba-flow", max_per_class=1_999), True),
        (SplitSpec("random", max_per_class=2_000), True),
        (SplitSpec("random"), False),
        (SplitSpec("paper", max_per_class=PAPER_PER_CLASS), False),
        (SplitSpec("paper", max_per_class=PAPER_PER_CLASS - 1), True),
        (SplitSpec("session", max_per_class=PAPER_PER_CLASS), True),
    ],
)
def test_a_papers_own_number_of_samples_is_no_reduced_scale(spec, reduced):
    assert spec.reduced == reduced


@pytest.mark.parametrize("name", [one.id for one in ET_BERT.published])
def test_every_cell_that_stands_beside_ours_is_as_it_was_read_from_the_paper(name):
    datasets = {"vpn": "ISCX-VPN-Service", "tor": "ISCX-Tor", "ustc": "USTC-TFC"}
    number, short, unit = name.split("-")[1:]
    with PRINTED.open(newline="") as lines:
        printed = [
            row
            for row in csv.DictReader(lines)
            if row["dataset"] == datasets[short] and row["source"] == f"ET-BERT Table {number}"
        ]
    wanted = {
        (
            row["method"].removesuffix(f"({unit})").replace("ET-BERT", "et-bert"),
            row["metric"].removeprefix("macro_"),
        ): row["value"]
        for row in printed
        if ("unit: packet" in row["note"]) == (unit == "packet")
    }
    here = {
        (row["id"], metric): row[metric]
        for row in ET_BERT.rows(name)
        for metric in ("accuracy", "precision", "recall", "f1")
        if row[metric] != "-"
    }
    assert here == wanted and here


def test_its_rows_are_measured_under_the_order_that_they_come_from(command_line, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    words = ("table-3-ustc-flow", "--paper", "et-bert", "--dataset", "demo", "--method", "appscanner,forest")
    status, out, err = command_line(
        "reproduce", *words, "--mode", "published,paper", "--seeds", "1", "--json", "--results", tmp_path / "results"
    )
    assert status == 0, err
    table = json.loads(out)["tables"][0]
    assert [row["system"] for row in table["rows"]] == ["AppScanner", "forest (not in the paper's table)"]
    assert table["rows"][0]["published_accuracy"] == 89.54
    assert table["rows"][0]["paper_runs"] == 1
    assert any("random, filter=sugar, max_per_class=500" in note for note in table["notes"])


def test_what_is_typed_as_without_a_protocol_goes_over_it(bench_in, tmp_path):
    words = ("split", "demo", "--split", "et-bert-packet", "--max-per-class", "12", "--json")
    bench = bench_in(tmp_path)
    as_it_is, over = (
        json.loads(bench(*words, *more)[1]) for more in ((), ("--filter", "none", "--sampling", "session"))
    )
    assert (as_it_is["filter"], as_it_is["sampling"]) == ("sugar", "window=1")
    assert "filter" not in over and "sampling" not in over  # as ever
    status, _, err = bench("audit", "demo", "--split", "et-bert-flow", "--no-runs")
    assert status == 2 and "did you mean" not in err and "filter=sugar" in err


@pytest.mark.parametrize(("classes", "each", "folds"), [(30, 8, 5), (30, 12, 10), (6, 25, 10), (3, 31, 2)])
def test_folds_at_random_have_one_size_and_every_class_alike(table_store, classes, each, folds):
    labels = np.repeat(np.arange(classes), each)
    rows = np.arange(len(labels))
    store = table_store({"labels": labels, "conversation": rows, "capture": rows % 7, "start": rows})
    tested = [split_of(store, "task", "random", folds=folds, fold=fold).test.session for fold in range(folds)]
    assert sorted(np.concatenate(tested).tolist()) == rows.tolist()
    sizes = [len(part) for part in tested]
    assert max(sizes) - min(sizes) <= 1
    for part in tested:
        counts = np.bincount(labels[part], minlength=classes)
        assert {each // folds, -(-each // folds)} >= set(counts.tolist())
