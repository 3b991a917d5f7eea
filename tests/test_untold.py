"""Records that do not tell end points, protocol or times; and where a machine's locale is not UTF-8."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from record_tables import BARE, store_of
from refusals import refused
from small_captures import write_captures

from bench.analysis import paired
from bench.method import Part, make_parameters
from bench.runs import registry
from bench.runs.scored import write_samples
from bench.spec import SplitSpec
from bench.splits.split import make_split

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bare")
    (folder / "tables").mkdir()
    rows = [{"capture": f"c{place // 3}", "sizes": [60 + place, -100], "label": "ab"[place % 2]} for place in range(60)]
    (folder / "tables" / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return store_of(folder, BARE)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"filter": "sugar"}, "filter sugar looks at ports and protocol"),
        ({"filter": "dns"}, "leave it out"),
        ({"filter": "tcp"}, "filter tcp looks at protocol"),
        ({"scheme": "capture+session"}, "filter broadcast looks at ports, which its records do not tell; take split"),
        ({"scheme": "random", "filter": "sugar"}, "which its records do not tell"),
        ({"scheme": "time"}, "no session tells when it began"),
    ],
)
def test_what_records_do_not_tell_is_not_filtered_or_split_by(bare, options, told):
    with refused("bad-options", "bare", told):
        make_split(bare, "label", SplitSpec(**{"scheme": "session", **options}))


def test_samples_are_written_with_what_records_tell(bare, tmp_path):
    split = make_split(bare, "label", SplitSpec("capture"))
    write_samples(tmp_path / "s.csv", bare, split)
    rows = list(csv.DictReader((tmp_path / "s.csv").open()))
    assert len(rows) == 60 and rows[0]["capture"].startswith("c")
    untold = ("protocol", "client_ip", "client_port", "server_ip", "server_port")
    assert {row[name] for row in rows for name in untold} == {""}


BAD = """
from methods.majority import Majority

class Bad(Majority):
    name = "bad"
    def fit(self, train, validation, monitor):
        raise ValueError("Größe → 你好")
"""


@pytest.mark.slow
def test_a_message_in_any_letters_fails_one_run_in_any_locale(tmp_path):
    (tmp_path / "bad.py").write_text(BAD, "utf-8")
    words = ["run", "--method", "bad.py:Bad", "--dataset", write_captures(tmp_path / "apps", 6), "--results", "r"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "BENCH_HOME": str(tmp_path / "home"), "LC_ALL": "C"}
    env |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words, "--split", "session"],
        cwd=tmp_path, env=env, capture_output=True, check=False)  # fmt: skip
    assert done.returncode == 1 and b"Traceback" not in done.stderr, done.stderr
    (path,) = (tmp_path / "r").rglob("traceback.txt")
    assert "Größe → 你好" in path.read_text("utf-8")


def test_a_pvalue_hangs_on_no_order_of_runs(monkeypatch):
    """Folds of unequal sizes: the correction is by their mean ratio, not by that of whichever comes first."""
    from types import SimpleNamespace

    ratios = [1.125, 0.337, 0.141, 0.115, 0.098]
    runs = [[SimpleNamespace(metrics={"f1": value}, ratio=ratio) for value, ratio in zip(values, ratios, strict=True)]
            for values in ([0.5, 0.7, 0.6, 0.65, 0.7], [0.45, 0.71, 0.5, 0.6, 0.68])]  # fmt: skip
    monkeypatch.setattr(paired, "test_train_ratio", lambda run: run.ratio)
    monkeypatch.setattr(paired, "paired_runs", lambda one, other: list(zip(one, other, strict=True)))
    turned = [values[place:] + values[:place] for place in range(5) for values in runs]
    found = {round(paired.paired_p(turned[2 * place], turned[2 * place + 1], "f1"), 12) for place in range(5)}
    assert len(found) == 1
    assert paired.mean_ratio(runs[0]) == pytest.approx(np.mean(ratios))


@pytest.mark.parametrize(("name", "kept"), [("flowpic", 9), ("mlp-bytes", 15)])
def test_accuracy_on_training_samples_is_of_those_that_were_trained_on(name, kept):
    """FlowPic under-samples to the smallest class: what it never saw would tell how it generalises."""
    kind = registry.load(name)
    method = kind(make_parameters(kind, kind.tiny), classes=3, seed=5)
    labels = np.array([0] * 3 + [1] * 5 + [2] * 7)
    method.can_classify = lambda inputs: np.ones(15, bool)
    rows = method.trained_rows(Part({"x": np.zeros((15, 1))}, labels))
    assert len(set(rows.tolist())) == kept
    if name == "flowpic":
        assert np.bincount(labels[rows]).tolist() == [3, 3, 3]
