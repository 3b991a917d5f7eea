"""What the audit finds, counted by hand on small tables and read off the demo through the command line."""

import json

import numpy as np
import pytest

from bench import audit
from bench.cli import cli
from bench.errors import InputError
from bench.readers import Ragged
from bench.schema import Samples


def test_rows_are_equal_where_all_their_arrays_are():
    ragged = Ragged(np.array([1, 2, 3, 1, 2, 3, 1, 2]), np.array([0, 3, 5, 6, 8]))  # 123 12 3 12
    same = np.array([[5, 6], [7, 8], [5, 6], [7, 8]])
    keys = audit.content_keys({"a": ragged, "b": same})
    assert keys[1] == keys[3] and len(set(keys)) == 3
    assert len(set(audit.content_keys({"a": ragged, "b": same + np.arange(4)[:, None]}))) == 4
    shifted = Ragged(np.array([1, 2, 3]), np.array([0, 1, 3]))  # 1 | 23 is not 12 | 3
    assert len(set(audit.content_keys({"a": shifted, "b": np.array([[2], [2]])}))) == 2


def test_the_ceiling_is_the_best_rule_of_equal_answers():
    keys, labels = np.array([0, 0, 0, 1, 1, 2]), np.array([4, 4, 1, 0, 2, 3])
    assert audit.ceiling(keys, labels) == (2 + 1 + 1) / 6
    found = audit.duplicates(keys, labels)
    assert found == {"repeated": 5 / 6, "of_several_classes": 5 / 6, "ceiling": 4 / 6}
    assert audit.duplicates(np.arange(4), np.zeros(4, int)) == {"repeated": 0, "of_several_classes": 0, "ceiling": 1}


def test_conversations_under_two_labels_are_counted(make_store):
    store = make_store({"conversation": [5, 5, 6, 6, 7], "capture": [0, 1, 1, 1, 2]}, labels=[0, 1, 1, 1, 0])
    samples = Samples(np.arange(5), np.zeros(5, int), np.ones(5, int))
    found = audit.several(store, samples, store.label.astype(np.int64))
    assert found == {"conversations": 1, "captures": 0}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield tmp_path_factory.getbasetemp() / "results"  # that of other tests: making one takes seconds


def test_the_demo_through_the_command_line(home, capsys):
    asked = ["--split", "session,capture", "--method", "atvitsc,graphdapp,ports", "--no-runs", "--json"]
    cli.main(["audit", "demo", *asked], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert found["sessions"] == sum(c["sessions"] for c in found["classes"].values())
    assert all(c["few"] and c["captures"] == 6 for c in found["classes"].values())
    assert found["of_several_classes"] == {"conversations": 0, "captures": 0}
    assert sum(found["content"].values()) == pytest.approx(1)
    assert found["duplicates"]["ceiling"] == found["ceilings"]["atvitsc"] == 1  # payload is random
    assert found["ceilings"]["ports"] < 0.5  # one service port for all
    for scheme, kind in (("session", "conversations"), ("capture", "capture_groups")):
        assert found["splits"][scheme][f"test_in_training_{kind}"] == 0
        assert found["splits"][scheme]["test_equal_in_training"] == 0
    cli.main(["audit", "demo", "--split", "time,file", "--no-runs"], standalone_mode=False)
    told = capsys.readouterr().out
    assert "split time: train" in told and "split file: split file and a split's file belong together" in told


def test_runs_are_set_against_their_ceilings(home, monkeypatch, capsys):
    monkeypatch.setattr(audit, "floor_methods", lambda: [("majority", {}), ("ports", {})])
    arguments = ["audit", "demo", "--split", "session", "--results", str(home), "--json"]
    cli.main(arguments, standalone_mode=False)
    split = json.loads(capsys.readouterr().out)["splits"]["session"]
    assert [(row["method"], row["status"]) for row in split["floor"]] == [("majority", "done"), ("ports", "done")]
    gaps = {row["method"]: row for row in split["gaps"]}
    assert {"majority", "ports"} <= gaps.keys()
    for row in gaps.values():
        assert row["accuracy"] <= row["ceiling"] and row["gap"] == row["ceiling"] - row["accuracy"]


def test_the_floor_is_what_methods_declare():
    found = audit.floor_methods()
    assert ("majority", {}) in found and ("first-bytes", {"mask_server_name": True}) in found
    assert ("forest", {"leave_out": "times"}) in found and not any("packets" in values for _, values in found)


def test_a_split_that_there_is_not_is_bad_input(home):
    with pytest.raises(InputError, match="unknown split 'nonsense'"):
        cli.main(["audit", "demo", "--split", "session,nonsense", "--no-runs"], standalone_mode=False)
