"""Statistics of norms for evaluation: estimated from the rows trained on, the same whatever training has drawn."""

import copy

import numpy as np
import pytest
import torch

from bench import graphs
from bench.graphs import RoundNorm, estimate_statistics
from bench.method import Monitor, Part, make_parameters, take
from bench.training.budget import batches
from methods.flowgnn import Flowgnn
from methods.graphdapp import Graphdapp

KINDS = {Flowgnn: {"dropout": 0.3, "shared_cores": True}, Graphdapp: {}}


@pytest.fixture(autouse=True)
def _random_state():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def method(kind, **values):
    return kind(make_parameters(kind, dict(kind.tiny) | KINDS[kind] | values), classes=3)


def part_of(kind, samples=40):
    draw = np.random.default_rng(0)
    labels = np.arange(samples) % 3
    if kind is Graphdapp:
        lengths = draw.integers(1, 1500, (samples, 12)) * np.where(np.arange(12) % (labels + 2)[:, None], 1, -1)
        return Part({"lengths": lengths.astype(np.int16)}, labels)
    inputs = {
        "bytes": draw.integers(0, 256, (samples, 8, 64)).astype(np.uint8),
        "times": np.sort(draw.exponential(3, (samples, 8))),
        "counts": (2 + labels).astype(np.int32),
        "globals": draw.uniform(0, 1500, (samples, 5)).astype(np.float32),
    }
    return Part(inputs, labels)


def norms_of(network):
    return {name: module for name, module in network.named_modules() if isinstance(module, RoundNorm)}


def slow_statistics(one, network, part, rows):
    """The mean of each batch's mean and variance by norm and round, from what reaches the norms without dropout."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    seen = {}
    for name, norm in norms_of(network).items():
        norm.register_forward_pre_hook(
            lambda norm, inputs, name=name: seen.setdefault((name, norm.round), []).append(inputs[0].double())
        )
    for batch in batches(rows, one.parameters.batch_size):
        network.train()(**one.batch(take(part.inputs, batch)))
    return {
        key: (torch.stack([r.mean(0) for r in each]).mean(0), torch.stack([r.var(0) for r in each]).mean(0))
        for key, each in seen.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_the_means_of_the_batches(kind, monkeypatch):
    monkeypatch.setattr(graphs, "ESTIMATED", 20)
    one, part = method(kind), part_of(kind)
    one.model = network = one.network()
    rows = np.arange(30)
    one.before_validation(network, part, np.random.default_rng(5).permutation(rows))  # of any order of the rows
    drawn = np.random.default_rng((one.seed, 1)).permutation(rows)[:20]
    expected = slow_statistics(one, network, part, drawn)
    norms = norms_of(network)
    assert {(name, turn) for name, norm in norms.items() for turn in range(len(norm.mean))} == set(expected)
    for (name, turn), (mean, variance) in expected.items():
        torch.testing.assert_close(norms[name].mean[turn].double(), mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norms[name].variance[turn].double(), variance, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_estimating_changes_nothing_in_training(kind, monkeypatch):
    part, seen = part_of(kind), []
    for estimated in (True, False):
        if not estimated:
            monkeypatch.setattr(kind, "before_validation", lambda *_: None)
        one = method(kind, epochs=3)
        losses = []
        monitor = Monitor()
        monitor.log = lambda step, losses=losses, **values: losses.append(values["loss"])
        seen.append((losses, one.fit(part, part, monitor)))
    (losses, one), (plain_losses, plain) = seen
    assert losses == plain_losses
    for norm in norms_of(plain.model).values():  # no statistics from training alone
        assert torch.equal(norm.mean, torch.zeros_like(norm.mean))
    for norm in norms_of(one.model).values():  # the kept epoch's
        assert norm.mean.any()


def test_a_round_without_rows_keeps_its_statistics():
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = RoundNorm(2)

        def forward(self, rows):
            return self.norm(rows)

    network = Two()
    estimate_statistics(network, [{"rows": torch.ones(1, 2)}, {"rows": torch.zeros(0, 2)}])
    assert network.norm.mean.tolist() == [[0, 0]]
    estimate_statistics(network, [{"rows": torch.ones(1, 2)}, {"rows": torch.tensor([[1.0, 2.0], [3.0, 6.0]])}])
    assert network.norm.mean.tolist() == [[2, 4]]
    assert network.norm.variance.tolist() == [[2, 8]]
    network.norm.epsilon = 2.0
    assert network(torch.tensor([[4.0, 4.0]])).tolist() == [[1.0, 0.0]]
    assert not network.training
    assert torch.equal(network(torch.full((1, 2), 2.0)), network.norm(torch.full((1, 2), 2.0)))
    assert network.norm.mean.tolist() == [[2, 4]]
