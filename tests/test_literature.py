"""Numbers of other papers: each can be, each is of a paper that is named, and what does not add up is found."""

import csv
import dataclasses
import json
from pathlib import Path

import pytest

from bench.data.cards import card_names
from bench.errors import InputError
from bench.paper.literature import Printed, _read, faults, printed_numbers, published_numbers

PAPERS = Path(__file__).parents[1] / "results" / "papers"


def number(metric, value, paper="one", **more):
    usual = {"card": "iscx-vpn", "dataset": "ISCX", "task": "12 services", "split": "random", "method": "bind"}
    usual |= {"sd": None, "source": "Table 1", "note": "", "step": 0.01} | more
    return Printed(metric=metric, value=value, paper=paper, **usual)


def test_every_number_has_a_source_and_a_card_that_there_is():
    rows = printed_numbers()
    assert len(rows) > 1400
    text = (PAPERS / "README.md").read_text()
    for row in rows:
        assert row.source and row.dataset and row.task and row.method
        assert row.card in ("", *card_names())
        assert row.paper == "atvitsc" or f"`{row.paper}.csv`" in text


def test_et_bert_is_what_the_checker_of_the_paper_has():
    """Two readings of one paper, made at different times."""
    ours = {(r.dataset, r.method, r.metric): r.value for r in printed_numbers() if r.source == "ET-BERT Table 2"}
    names = {"f1": "macro_f1"}
    with (PAPERS.parent / "paper" / "et_bert.csv").open(newline="") as file:
        cells = [
            (row["dataset"].replace(" ", ""), row["id"], names.get(column, column), float(row[column]))
            for row in csv.DictReader(file)
            for column in ("accuracy", "precision", "recall", "f1")
            if row[column] not in ("", "-")
        ]
    found = {(d.replace(" ", ""), m, c): v for (d, m, c), v in ours.items()}
    compared = [(found[d, m, c], value) for d, m, c, value in cells if (d, m, c) in found]
    assert len(compared) > 40
    assert all(one == pytest.approx(100 * other) for one, other in compared)


def test_what_is_known_of_tc_transfer():
    rows = {
        (r.task, r.method): r.value for r in printed_numbers()
        if r.paper == "tc-transfer" and r.dataset == "ISCXVPN2016" and r.metric == "accuracy" and r.method == "knn"
    }  # fmt: skip
    assert [round(rows[task, "knn"], 1) for task in ("application", "traffic type", "VPN or not")] == [70.9, 73.0, 90.4]


def test_an_f1_above_the_mean_of_precision_and_recall_is_impossible():
    rows = [number("precision", 80.0), number("recall", 60.0), number("macro_f1", 70.03)]
    assert faults(rows) == {2: ["impossible: above 70.00"]}
    assert faults([*rows[:2], number("macro_f1", 70.02)]) == {}
    coarse = [number("precision", 77.0, step=1.0), number("recall", 78.0, step=1.0)]
    assert faults([*coarse, number("macro_f1", 78.0, step=1.0)]) == {}  # 0.7749, 0.7849 and 0.7751 print so
    assert faults([*coarse, number("macro_f1", 80.0, step=1.0)]) != {}
    assert faults([*rows[:2], number("macro_f1", 99.0, note="another row of the table")]) == {}
    assert faults([*rows[:2], number("macro_f1", 99.0, source="Table 2")]) == {}


def test_one_thing_printed_apart_is_told_by_both():
    rows = [number("accuracy", 71.8), number("accuracy", 91.8, "other"), number("accuracy", 71.9, "third")]
    assert faults(rows) == {
        0: ["elsewhere 91.8 (other)"], 1: ["elsewhere 71.8 (one), 71.9 (third)"], 2: ["elsewhere 91.8 (other)"]
    }  # fmt: skip
    assert faults([rows[0], dataclasses.replace(rows[1], task="6 services")]) == {}
    assert faults([rows[0], dataclasses.replace(rows[1], card="")]) == {}


def test_the_impossible_cells_of_the_paper_are_found():
    rows = printed_numbers()
    wrong = {(rows[n].paper, rows[n].card, rows[n].method) for n, why in faults(rows).items() if "impossible" in why[0]}
    assert {("atvitsc", "ustc-tfc", "flowpic"), ("atvitsc", "iscx-tor", "flowpic")} <= wrong
    assert ("et-bert", "cross-platform", "deeppacket") in wrong
    assert not any(paper == "vnat" for paper, _, _ in wrong)
    apart = {(rows[n].paper, rows[n].card, rows[n].method) for n, why in faults(rows).items() if "elsewhere" in why[-1]}
    assert {("atvitsc", "ustc-tfc", "flowpic"), ("trafficaudio", "ustc-tfc", "flowpic")} <= apart


def test_the_command(bench_in, tmp_path):
    call = bench_in(tmp_path)
    status, out, _ = call("published", "--dataset", "iscx-vpn-sequences", "--method", "appscanner")
    assert status == 0 and "published numbers on iscx-vpn" in out and "et-bert" in out and "read data set, task" in out
    assert max(map(len, out.splitlines())) <= 120 and "[2] data set: ISCX-VPN" in out
    _, whole, _ = call("published", "--dataset", "iscx-vpn-sequences", "--method", "appscanner", "--format", "md")
    assert "[2]" not in whole and "| ISCX-VPN" in whole
    status, out, _ = call("published", "--dataset", "vnat-sequences", "--metric", "macro_f1", "--format", "json")
    assert status == 0 and {row["metric"] for row in json.loads(out)["rows"]} == {"macro_f1"}
    status, _, err = call("published", "--dataset", "demo")
    assert status == 2 and "there are: cesnet-tls22" in err
    status, _, err = call("published", "--dataset", "iscx-vpm")
    assert status == 2 and "did you mean" in err


@pytest.mark.parametrize("cell", ["value", "unit", "metric"])
def test_a_wrong_cell_is_a_line(tmp_path, cell):
    row = {"card": "", "dataset": "d", "task": "t", "split": "s", "method": "m", "metric": "accuracy", "value": "1",
           "sd": "", "unit": "share", "source": "x", "note": ""} | {cell: "7x"}  # fmt: skip
    with (tmp_path / "p.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    with pytest.raises(InputError, match=r"p\.csv: row 2"):
        _read(tmp_path / "p.csv")
    with pytest.raises(InputError, match="no published numbers"):
        published_numbers(None, ["nobody"])
