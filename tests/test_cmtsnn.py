"""CMTSNN as reconstructed: its size, the cost matrix and both of its uses."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from bench.method import Monitor, Part, make_parameters
from methods import cmtsnn
from methods.cmtsnn import Cmtsnn, Network, Parameters, class_costs

pytestmark = pytest.mark.usefixtures("torch_seeded")


def small(classes=3, **values):
    sizes = {"packets": 4, "bytes": 12, "hidden": 8, "channels": 4, "head": 8, "epochs": 2, "batch_size": 8}
    return Cmtsnn(make_parameters(Cmtsnn, sizes | values), classes=classes)


def traffic(samples=6, packets=4, bytes=12):
    return np.random.default_rng(0).integers(0, 256, (samples, packets, bytes), dtype=np.uint8)


def part(labels):
    """Classes that differ in every byte of every packet."""
    labels = np.asarray(labels)
    return Part({"packets": (traffic(len(labels)) // 8 + 70 * labels[:, None, None]).astype(np.uint8)}, labels)


def parameters_of(module):
    return sum(weights.numel() for weights in module.parameters())


def test_parameter_counts_are_those_of_the_reconstruction():
    whole = Network(Parameters(), 8)
    assert parameters_of(whole) == 4_685_608
    assert parameters_of(whole.lstm) == 4_153_344
    assert parameters_of(Network(Parameters(), 12)) == 4_685_868
    assert parameters_of(Network(Parameters(head=128), 8)) == 5_210_472


def test_it_says_everywhere_that_it_is_reconstructed():
    assert "econstructed" in cmtsnn.__doc__ and "reconstructed" in Cmtsnn.__doc__
    assert "reconstructed" in Cmtsnn.deviations[0]


@pytest.mark.parametrize("values", [{}, {"layers": 1}, {"packets": 1, "hidden": 2}, {"bytes": 1, "cost": "expected"}])
def test_every_size_gives_logits(values):
    method = small(**values)
    p = method.parameters
    assert method.network()(torch.from_numpy(traffic(2, p.packets, p.bytes))).shape == (2, 3)


@pytest.mark.parametrize("values", [{"hidden": 1}, {"cost": "focal"}, {"strength": -0.1}, {"layers": 0}, {"head": 0}])
def test_parameters_out_of_range_are_bad_input(values):
    with refused("bad-parameter", next(iter(values))):
        Parameters(**values)


def test_costs_by_hand():
    labels = np.array([0] * 8 + [1] * 2 + [3])  # class 2 is absent
    raw = [1.0, 1 + np.log(4), 1 + np.log(8)]
    mean = sum(raw) / 3
    assert class_costs(labels, 4, 1.0).tolist() == pytest.approx([raw[0] / mean, raw[1] / mean, 1.0, raw[2] / mean])
    assert class_costs(labels, 4, 0.0).tolist() == [1, 1, 1, 1]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=50), st.floats(0, 5))
def test_costs_are_finite_average_to_one_and_grow_with_rarity(labels, strength):
    costs = class_costs(np.array(labels), 7, strength).numpy()
    counts = np.bincount(labels, minlength=7)
    held = np.flatnonzero(counts)
    assert np.isfinite(costs).all() and (costs > 0).all()
    assert costs[held].mean() == pytest.approx(1, rel=1e-5)
    assert (costs[counts == 0] == 1).all()
    by_rarity = held[np.argsort(-counts[held], kind="stable")]
    assert (np.diff(costs[by_rarity]) >= -1e-6).all()


def matrix(costs, diagonal):
    full = costs[:, None].repeat(1, len(costs))
    return full.fill_diagonal_(diagonal)


def with_costs(**values):
    method = small(**values)
    method.model = method.network()
    method.model.costs.copy_(torch.tensor([0.5, 1.0, 1.5]))
    return method


def test_the_training_softmax_is_that_of_the_matrix():
    method = with_costs()
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 0])
    rows = matrix(method.model.costs, 1.0)[labels]
    shares = rows * logits.exp()
    literal = -(shares[range(5), labels] / shares.sum(1)).log().mean()
    assert torch.allclose(method.loss(logits, labels), literal, atol=1e-6)
    alike = with_costs()
    alike.model.costs.fill_(1)
    assert torch.allclose(alike.loss(logits, labels), torch.nn.functional.cross_entropy(logits, labels))


def test_the_answer_of_least_expected_cost():
    network = with_costs(cost="expected").model.eval()
    logits = torch.randn(40, 3)
    network.head.register_forward_hook(lambda module, given, made: logits)
    plain = logits.softmax(1)
    risks = plain @ matrix(network.costs, 0.0)  # sum over i of p_i C[i, j]
    assert (network(torch.from_numpy(traffic(40))).argmax(1) == risks.argmin(1)).all()
    assert (plain.argmax(1) != risks.argmin(1)).any()


def test_expected_trains_on_weighted_cross_entropy():
    method = with_costs(cost="expected", dropout=0.0)
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 0])
    weights = method.model.costs[labels]
    losses = -logits.log_softmax(1)[range(5), labels]
    assert torch.allclose(method.loss(logits, labels), (weights * losses).sum() / weights.sum())
    packets = torch.from_numpy(traffic())
    network = method.model.train()
    one = network(packets)
    network.expected = False
    assert torch.equal(one, network(packets))  # costs shape the loss there, not the logits


@pytest.mark.parametrize("cost", ["softmax", "expected"])
def test_it_learns_and_an_absent_class_does_no_harm(cost):
    train = part(np.arange(40) % 2)  # class 2 is absent
    method = small(cost=cost, epochs=25, learning_rate=1e-2, dropout=0.1)
    probabilities = method.fit(train, train, Monitor()).predict_proba(train.inputs)
    assert np.isfinite(probabilities).all()
    assert (probabilities.argmax(1) == train.labels).mean() > 0.9


def test_costs_come_from_the_training_rows_alone_and_are_saved(tmp_path):
    labels = np.array([0] * 30 + [1] * 2)
    fitted = small().fit(part(labels), part(np.ones(8, int)), Monitor())
    assert torch.equal(fitted.model.costs, class_costs(labels, 3, 1.0))
    fitted.save(tmp_path)
    assert torch.equal(Cmtsnn.load(tmp_path).model.costs, fitted.model.costs)


def test_the_rate_falls_every_ten_epochs():
    rates = [Parameters().learning_rate_at(epoch * 3, 3) for epoch in (0, 9, 10, 49)]
    assert rates == pytest.approx([1e-3, 1e-3, 3e-4, 1e-3 * 0.3**4])
