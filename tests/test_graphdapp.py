"""GraphDApp: the graph against a packet loop, the network against the equation, each option."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.graphs import RoundNorm, estimate_statistics
from bench.method import Monitor, Part, make_parameters
from bench.readers import View
from bench.schema import Samples
from methods.graphdapp import Graphdapp, Network, interactions


def network(classes=12, **values):
    torch.manual_seed(0)
    return Network(make_parameters(Graphdapp, values), classes)


def method(**values):
    return Graphdapp(make_parameters(Graphdapp, values), classes=3)


def parameters_of(module):
    return sum(weights.numel() for weights in module.parameters())


@pytest.fixture(autouse=True)
def _random_state():
    with torch.random.fork_rng():
        yield


def slow_interactions(lengths):
    """One packet after the other: edges as a set, none twice."""
    edges, packet = [], 0
    for session in lengths:
        bursts = []
        for length in session[session != 0]:
            if bursts and (length > 0) == bursts[-1]["up"]:
                edges.append((packet - 1, packet))
                bursts[-1]["last"] = packet
            else:
                bursts.append({"up": length > 0, "first": packet, "last": packet})
            packet += 1
        for left, right in pairwise(bursts):
            edges.append((left["first"], right["first"]))
            if (left["last"], right["last"]) != (left["first"], right["first"]):
                edges.append((left["last"], right["last"]))
    return edges


def random_lengths(seed, sessions, packets):
    draw = np.random.default_rng(seed)
    sizes = draw.integers(0, packets + 1, sessions)
    signed = draw.integers(1, 1501, (sessions, packets)) * draw.choice([-1, 1], (sessions, packets))
    return np.where(np.arange(packets) < sizes[:, None], signed, 0).astype(np.int16)


def test_parameter_counts_are_those_of_the_specification():
    assert parameters_of(network()) == 213_325
    assert parameters_of(network(**Graphdapp.presets["scalar"])) == 36_111


@pytest.mark.parametrize(
    ("directions", "edges"),
    [
        ([1, 1, -1, -1, -1, 1], [(0, 1), (2, 3), (3, 4), (0, 2), (2, 5), (1, 4), (4, 5)]),
        ([1, -1], [(0, 1)]),
        ([1], []),
        ([], []),
    ],
)
def test_the_worked_example(directions, edges):
    lengths = np.zeros((1, 8), np.int16)
    lengths[0, : len(directions)] = np.array(directions) * 100
    assert list(map(tuple, interactions(lengths).T)) == edges


@given(seed=st.integers(0, 2**32), sessions=st.integers(0, 6), packets=st.integers(1, 12))
def test_edges_are_those_of_a_packet_loop(seed, sessions, packets):
    lengths = random_lengths(seed, sessions, packets)
    edges = interactions(lengths)
    assert edges.dtype == np.int64
    assert sorted(map(tuple, edges.T)) == sorted(slow_interactions(lengths))


@given(seed=st.integers(0, 2**32), payload_only=st.booleans())
def test_lengths_are_those_of_a_packet_loop(make_store, seed, payload_only):
    draw = np.random.default_rng(seed)
    sizes = draw.integers(1, 9, 5)
    first = np.cumsum(sizes) - sizes
    length = draw.choice([0, 1, 40, 1499, 1500, 1501, 40_000, 2**32 - 1], sizes.sum())
    direction, payload = draw.choice([-1, 1], sizes.sum()), draw.integers(0, 2, sizes.sum())
    store = make_store(
        {"packets": sizes, "first_packet": first},
        {"length": length, "direction": direction, "payload_length": payload},
    )
    expected = np.zeros((5, 6), np.int64)
    for session in range(5):
        rows = [r for r in range(first[session], first[session] + sizes[session]) if payload[r] or not payload_only]
        for place, row in enumerate(rows[:6]):
            expected[session, place] = direction[row] * min(max(int(length[row]), 1), 1500)
    samples = Samples(np.arange(5), np.zeros(5, np.int64), sizes)
    one = method(packets=6, payload_only=payload_only)
    inputs = one.represent(View(store, samples, Graphdapp.reads))
    assert inputs["lengths"].dtype == np.int16
    np.testing.assert_array_equal(inputs["lengths"], expected)
    np.testing.assert_array_equal(one.can_classify(inputs), expected.any(axis=1))


def test_edges_go_both_ways_unless_directed():
    lengths = random_lengths(1, 4, 8)
    there = interactions(lengths)
    batch, directed = (method(directed=d).batch({"lengths": lengths}) for d in (False, True))
    assert directed["edges"].tolist() == there.tolist()
    assert batch["edges"].tolist() == np.hstack([there, there[::-1]]).tolist()
    assert batch["sizes"].tolist() == [sum(length != 0 for length in of) for of in lengths]
    assert batch["lengths"].tolist() == [length for of in lengths for length in of if length]


def test_an_iteration_is_the_equation():
    lengths = random_lengths(2, 3, 7)
    lengths[0] = [100, -1500, 1500, 0, 0, 0, 0]
    batch = method().batch({"lengths": lengths})
    net = network(hidden=8, mlp_layers=2).eval()
    convolution = net.convolutions[0]
    with torch.no_grad():
        convolution.eps.fill_(0.25)
        count = len(batch["lengths"])
        adjacency = torch.zeros(count, count)
        adjacency[batch["edges"][1], batch["edges"][0]] = 1
        member = torch.nn.functional.one_hot(torch.arange(3).repeat_interleave(batch["sizes"]), 3).T.float()
        vertices, sums = net.embedding.weight[batch["lengths"].long() + 1500], []
        for _ in range(3):
            vertices = convolution.nn(1.25 * vertices + adjacency @ vertices)
            sums.append(member @ vertices)
        assert torch.allclose(net(**batch), net.head(torch.hstack(sums)), atol=1e-4)


@pytest.mark.parametrize(
    ("values", "convolutions"),
    [
        ({}, 1),
        ({"shared_mlp": False}, 3),
        ({"vertex": "scalar"}, 2),  # the first MLP takes one number
        ({"vertex": "scalar", "shared_mlp": False, "iterations": 4}, 4),
        ({"vertex": "scalar", "iterations": 1, "mlp_layers": 1}, 1),
        ({"hidden": 32, "iterations": 2}, 1),
    ],
)
def test_options_give_the_networks_they_name(values, convolutions):
    batch = method().batch({"lengths": random_lengths(3, 5, 9) | 1})
    net = network(4, **values)
    assert len(net.convolutions) == convolutions
    net(**batch).sum().backward()
    assert all(weights.grad.isfinite().all() for weights in net.parameters())
    rounds = sum(len(norm.mean) for norm in net.modules() if isinstance(norm, RoundNorm))
    assert rounds == make_parameters(Graphdapp, values).iterations


def test_scalar_vertices_are_parts_of_the_longest_packet():
    net = network(vertex="scalar", iterations=1, mlp_layers=1, hidden=2).eval()
    with torch.no_grad():
        net.convolutions[0].nn[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        net.convolutions[0].nn[0].bias.zero_()
        net.head.weight.copy_(torch.eye(12, 2))
        net.head.bias.zero_()
        logits = net(**method().batch({"lengths": np.array([[750, 0], [-1500, 0]], np.int16)}))
    assert logits[:, :2].tolist() == [pytest.approx([0.5, 0], abs=1e-4), pytest.approx([0, 1], abs=1e-4)]


def test_iterations_that_share_weights_have_statistics_of_their_own():
    net = network(hidden=8)
    batch = method().batch({"lengths": random_lengths(4, 32, 20)})
    estimate_statistics(net, [batch])
    norm = net.convolutions[0].nn[-1]
    assert norm.mean.shape == (3, 8)
    assert len(norm.mean.unique(dim=0)) == 3
    # evaluation answers as training does (but for n / (n - 1) in the variance)
    assert torch.allclose(net(**batch), net.train()(**batch), rtol=0.05, atol=0.1)


def test_it_learns_and_abstains_from_an_empty_session():
    lengths = random_lengths(5, 90, 8)
    labels = np.arange(90) % 3
    lengths[:, 0] = np.array([60, -700, 1400], np.int16)[labels]
    lengths[4] = 0
    part = Part({"lengths": lengths}, labels)
    one = method(**dict(Graphdapp.tiny) | {"packets": 8, "epochs": 8})
    probabilities = one.fit(part, part, Monitor()).predict_proba(part.inputs)
    assert np.isnan(probabilities).any(axis=1).nonzero()[0].tolist() == [4]
    assert (np.delete(probabilities, 4, axis=0).argmax(1) == np.delete(labels, 4)).mean() > 0.9
