"""Latency: what is called how often, on a method that counts."""

from collections import Counter

import numpy as np
import pytest
from refusals import refused
from torch import nn

from bench.analysis import latency
from bench.analysis.latency import Latency, Timed, Timing
from bench.data.prepare import open_dataset
from bench.training.loop import TorchMethod

CALLS = Counter()


class Net(nn.Module):
    def forward(self, points):
        CALLS["infer"] += 1
        CALLS["rows"] = len(points)
        return points


class Counting(TorchMethod):
    """Counts its steps; abstains from the first sample."""

    name = "counting"
    reference = "none"
    reads = frozenset()

    def represent(self, view):
        CALLS["represent"] += 1
        return {"points": np.zeros((3, 2), np.float32)}

    def can_classify(self, inputs):
        return np.arange(len(inputs["points"])) > 0

    def batch(self, rows):
        CALLS["assemble"] += 1
        return super().batch(rows)

    def network(self):
        return Net()


@pytest.fixture
def method():
    CALLS.clear()
    made = Counting(classes=2)
    made.model = made.network()
    return made


def test_every_step_is_warmed_up_and_timed_by_itself(method):
    found = latency.latency(method, lambda: None, warmup=2, calls=7, seconds=1e9)
    assert CALLS == {"represent": 1 + 2 + 7, "assemble": 1 + 2 + 7, "infer": 2 + 7, "rows": 2}
    for timing in (found.represent, found.assemble, found.infer):
        assert 0 <= timing.low <= timing.median <= timing.high and timing.calls == 7


def test_a_slow_step_is_called_five_times_at_least(method):
    found = latency.latency(method, lambda: None, warmup=0, calls=100, seconds=0)
    assert (found.represent.calls, found.infer.calls) == (5, 5)


# --- Table X --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_HOME", str(tmp_path_factory.mktemp("home")))
        yield open_dataset("demo")


def timed(name, milliseconds, parameters=1000):
    times = Timing(milliseconds - 0.5, milliseconds, milliseconds + 0.25, 50)
    return Timed(name, parameters, 16, 40.0, "cpu", Latency(times, times, times))


def test_a_batch_is_of_labelled_sessions_with_enough_packets(demo):
    samples, labels = latency.batch_of(demo, 20, 16)
    assert len(np.unique(samples.session)) == len(labels) == 20
    assert (samples.count >= 16).all() and (samples.first == 0).all() and labels.min() >= 0
    assert np.array_equal(samples.count, demo.session("packets")[samples.session])
    assert np.array_equal(labels, demo.labels(demo.default_task)[samples.session])
    assert np.array_equal(samples.session, latency.batch_of(demo, 20, 16)[0].session)
    with refused("too-few-sessions", "demo has 0", "100000 packets", "4 are"):
        latency.batch_of(demo, 4, 100_000)


def test_methods_are_timed_in_their_original_size(demo):
    told = []
    found = latency.timings(
        ["wang2d"], demo, latency.TimingOptions(batch=4, calls=5, seconds=0.1), progress=told.append
    )
    assert found == told
    (one,) = found
    assert one.name == "wang2d" and one.sessions == 4 and one.packets >= 16
    classes = len(demo.classes(demo.default_task))
    assert one.parameters == 3_284_884 - 1025 * (20 - classes)
    assert one.latency.infer.calls == 5 and one.latency.infer.median > 0


def test_a_method_without_a_network_is_bad_input(demo):
    with refused("method-cannot-run", "majority"):
        latency.timings(["majority"], demo)


def test_the_sheet_is_in_the_papers_order_and_correlates_ranks():
    found = [timed("han", 9), timed("wang1d", 1), timed("fsnet", 3), timed("cmtsnn", 4), timed("tscrnn", 7)]
    paper = {"fsnet": 18.67, "cmtsnn": 28.09, "tscrnn": 297.98, "han": 323.25}
    sheet = latency.timing_table(found, paper)
    assert [row[0] for row in sheet.rows] == ["fsnet", "cmtsnn ‡", "tscrnn", "han", "wang1d"]
    assert sheet.rows[0][1:] == ["1,000", "18.67", *["3.00 (2.50, 3.25)"] * 3, "50"]
    assert sheet.rows[-1][2] == "–" and sheet.records[-1]["published_milliseconds"] is None
    assert sheet.records[0]["infer_median"] == 3 and sheet.records[0]["represent_high"] == 3.25
    assert all(len(row) == len(sheet.head) for row in sheet.rows)
    assert "(Spearman) over 4 methods: 1.00" in sheet.notes[-1]
    assert any("batch of 16 sessions, 40 packets" in note and "cpu, torch" in note for note in sheet.notes)
    turned = latency.timing_table(found, {name: -ms for name, ms in paper.items()})
    assert "over 4 methods: -1.00" in turned.notes[-1]


def test_two_methods_have_no_rank_correlation():
    sheet = latency.timing_table([timed("han", 9), timed("fsnet", 3)], {"han": 323.25, "fsnet": 18.67})
    assert not any("Spearman" in note for note in sheet.notes)
