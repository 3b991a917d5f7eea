"""The fuzzing of the ingest: what it found stays mended, and it notices what it is there to notice."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from capture_bytes import CLIENT, SERVER, ether, ipv4, pcap

from bench.ingest import IngestOptions, read_capture

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz", ROOT / "benchmarks" / "fuzz.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(ROOT / "benchmarks"))  # its corpus stands there
    sys.modules["fuzz"] = module  # its data classes look there
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(ROOT / "benchmarks"))
    del sys.modules["fuzz"]


@pytest.fixture(scope="module")
def seeds(fuzz, tmp_path_factory):
    """The made captures alone."""
    return [fuzz.seed_of(*one) for one in fuzz.captures(tmp_path_factory.mktemp("empty"))]


def test_what_was_found_stays_mended(fuzz, tmp_path):
    for name, data, options in fuzz.kept_cases():
        assert fuzz.outcome(tmp_path / "capture", data, options) == ("", ""), name


@pytest.mark.slow
def test_two_seconds_find_nothing(tmp_path):
    command = [sys.executable, "benchmarks/fuzz.py", "--seconds", "2", "--seed", "7", "--keep", str(tmp_path / "found")]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (0, "", []), done.stdout
    assert done.stdout.startswith("seed 7: ") and "nothing found" in done.stdout


def test_captures_of_the_corpus_are_sound(fuzz, seeds, tmp_path):
    for one in seeds:
        assert fuzz.outcome(tmp_path / "capture", one.data, IngestOptions()) == ("", ""), one.name
    tunnels = next(one for one in seeds if one.name == "tunnels")
    (tmp_path / "capture").write_bytes(tunnels.data)
    index = read_capture(tmp_path / "capture", IngestOptions(decap=fuzz.TUNNELS))
    assert index.records == len(index.packets["time"]) == 15  # each is unwrapped
    assert sum(index.remarks.tunnelled.values()) == 15


def test_a_case_depends_on_its_numbers_alone(fuzz, seeds):
    cases = [fuzz.case(seeds, 3, number) for number in range(200)]
    assert cases == [fuzz.case(seeds, 3, number) for number in range(200)]
    assert len({one.data for one in cases}) > 150 and len({str(one.options) for one in cases}) > 50
    assert fuzz.case(seeds, 4, 0) != cases[0]


def test_a_finding_is_made_small_and_kept(fuzz, tmp_path, monkeypatch, capsys):
    def read(path, options, twice):
        if b"needle" in path.read_bytes():
            raise IndexError("beyond")
        return ""

    monkeypatch.setattr(fuzz, "read", read)
    data = pcap([ether(ipv4(payload=b"needle" if number == 7 else b"hay")) for number in range(20)])
    options = IngestOptions(decap=("gre",), drop_copies=5.0)
    what, trace = fuzz.outcome(tmp_path / "capture", data, options)
    assert what == "IndexError: beyond" and "in read" in trace
    small = fuzz.smaller(tmp_path / "capture", data, options, what)
    assert small == b"needle"
    fuzz.keep(tmp_path, fuzz.Case(5, "x", small, options), 1, what, trace)
    assert "seed 1, case 5 (from 'x'): IndexError: beyond" in capsys.readouterr().out
    monkeypatch.setattr(fuzz, "KEPT", tmp_path / "1-5")
    assert list(fuzz.kept_cases()) == [("case", small, options)]
    assert json.loads((tmp_path / "1-5" / "case.json").read_text())["what"] == what


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("record", 10**6, "place"),
        ("captured", 10**6, "place"),
        ("captured", 0, "captured"),
        ("payload", 20, "payload"),
        ("payload_length", 5000, "length"),
        ("direction", 0, "direction"),
        ("marks", 1, "copies"),
        ("time", -1, "order"),
    ],
)
def test_a_wrong_column_is_noticed(fuzz, tmp_path, column, value, what):
    path = tmp_path / "capture"
    path.write_bytes(pcap([ether(ipv4(payload=b"abc")), ether(ipv4(SERVER, CLIENT, payload=b"d"))] * 2))
    index = read_capture(path)
    assert fuzz.broken(index, IngestOptions()) == ""
    packets = {name: values.copy() for name, values in index.packets.items()}
    packets[column][1] = value
    assert fuzz.broken(dataclasses.replace(index, packets=packets), IngestOptions()) == what
    assert fuzz.broken(dataclasses.replace(index, records=9), IngestOptions()) == "records"
