"""What `bench doctor` finds, and what it keeps to itself."""

import getpass
import json
from importlib.metadata import EntryPoint
from pathlib import Path

from bench.cli import doctor
from bench.runs import registry


def test_all_that_a_bug_report_needs(place, command_line, monkeypatch):
    tracker = place.filled()
    monkeypatch.setenv("BENCH_RESULTS", str(tracker.results))
    monkeypatch.setattr(registry, "_plug_ins", registry._plug_ins.__wrapped__)
    monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint("theirs", "no_module:Mine", group)])
    status, out, err = command_line("doctor", "--json")
    found = json.loads(out)
    assert status == 0 and err == ""
    assert {"version", "python", "cpu", "threads", "memory", "cards"} <= set(found["bench"])
    assert found["packages"]["click"] and found["packages"]["torch"]
    assert "120 sessions" in found["home"]["stores"]["tiny"] and "made by other code" in found["home"]["stores"]["tiny"]
    assert found["results"]["runs"] == {"done": 6, "failed": 1} and found["results"]["named by"] == "environment"
    assert found["results"]["state"] == "it answers" and found["results"]["waiting"] == 0
    (fault,) = found["plug-ins"]
    assert fault["name"] == "theirs" and "no_module" in fault["reason"]
    text = command_line("doctor")[1]
    assert "stores:" in text and "theirs" in text and "sqlite:///" in text


def test_what_is_not_there_is_said_and_not_made(command_line, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://somebody:secret@127.0.0.1:1/runs")
    status, out, _ = command_line("doctor", "--json", "--results", tmp_path / "results")
    found = json.loads(out)
    assert status == 0 and "does not open" in found["results"]["state"]
    assert "secret" not in out and "somebody" not in out and list(tmp_path.iterdir()) == []
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    found = json.loads(command_line("doctor", "--json", "--results", tmp_path / "results")[1])
    assert found["results"]["state"] == "there is none yet" and list(tmp_path.iterdir()) == []


def test_no_name_of_a_user_leaves(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/jane"))
    monkeypatch.setattr(getpass, "getuser", lambda: "jane")
    said = {
        "a": "/home/jane/x /home/jane",
        "b": ["/data/jane/y", "/data/janet"],
        "c": "postgresql://jane:pw@host/db",
        1: 2,
    }
    assert doctor.nameless(said) == {
        "a": "~/x ~",
        "b": ["/data/***/y", "/data/janet"],
        "c": "postgresql://***@host/db",
        1: 2,
    }
