"""Latency: what is called how often, on a method that counts."""

from collections import Counter

import numpy as np
import pytest
from torch import nn

from bench import latency
from bench.training import TorchMethod

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

    def answers(self, inputs):
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
