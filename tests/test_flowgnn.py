"""Flow-GNN: sizes, the graph against loops, message passing against the equations, weights of the loss, each option."""

import statistics
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from bench.graphs import RoundNorm, start_round
from bench.method import Monitor, Part, make_parameters
from bench.readers import View
from bench.schema import Samples
from methods.flowgnn import Flowgnn, Network, pairs

SMALL = {"packets": 6, "bytes": 40, "cores": 2, "hidden": 8, "mlp_layers": 2}


def network(classes=6, **values):
    torch.manual_seed(0)
    return Network(make_parameters(Flowgnn, values), classes)


def method(classes=3, **values):
    return Flowgnn(make_parameters(Flowgnn, SMALL | values), classes=classes)


def parameters_of(module):
    return sum(weights.numel() for weights in module.parameters())


def inputs_of(counts, seed=0, globals_=5):
    draw = np.random.default_rng(seed)
    counts = np.array(counts, np.int32)
    there = np.arange(6) < counts[:, None]
    return {
        "bytes": np.where(there[..., None], draw.integers(0, 256, (len(counts), 6, 40)), 0).astype(np.uint8),
        "times": np.where(there, np.sort(draw.exponential(3, (len(counts), 6))), 0),
        "counts": counts,
        "globals": draw.uniform(0, 1500, (len(counts), globals_)).astype(np.float32),
    }


@pytest.fixture(autouse=True)
def _random_state():
    with torch.random.fork_rng():
        yield


def test_parameter_counts_are_those_of_the_specification():
    separate, shared = network(), network(shared_cores=True)
    assert parameters_of(separate.encoder) == 392_064
    assert [parameters_of(core) for core in separate.cores] == [363_136] * 5
    assert len(shared.cores) == 1
    assert 3 * parameters_of(separate.decoder) == 247_680
    assert parameters_of(separate.head) == 128 * 6 + 6
    # the paper's two decoders that reach no answer are left out
    assert parameters_of(separate) == 2_456_198 - 2 * 82_560
    assert parameters_of(shared) == 1_003_654 - 2 * 82_560


@given(counts=st.lists(st.integers(0, 9), max_size=6))
def test_edges_are_those_of_a_loop(counts):
    expected, first = [], 0
    for count in counts:
        expected += [(first + i, first + j) for i in range(count) for j in range(i + 1, count)]
        first += count
    edges = pairs(np.array(counts, np.int32))
    assert edges.dtype == np.int64
    assert sorted(map(tuple, edges.T)) == sorted(expected)


def make_traffic(draw, sessions):
    """Columns, one capture of IPv4 UDP packets, and the bytes of each packet with what is masked set to zero."""
    sizes = draw.integers(1, 9, sessions)
    capture, packets, kept = bytearray(24), {c: [] for c in ("record", "captured", "length", "payload_length")}, []
    for _ in range(sizes.sum()):
        size = int(draw.integers(0, 40))
        packet = bytearray(draw.bytes(28 + size))
        packet[0], packet[9] = 0x45, 17
        for name, value in zip(packets, (len(capture), len(packet), len(packet), size), strict=True):
            packets[name].append(value)
        capture += bytes(10) + packet
        packet[10:12] = packet[26:28] = bytes(2)  # checksums
        packet[12:20], packet[20:24] = bytes(8), bytes(4)  # addresses, ports
        kept.append(np.frombuffer(bytes(packet[:40]).ljust(40, b"\0"), np.uint8))
    packets |= {"ip": [10] * sizes.sum(), "payload": [28] * sizes.sum(), "direction": [1] * sizes.sum()}
    packets["time"] = np.cumsum(draw.integers(0, 10**9, sizes.sum()))
    held = {"packets": sizes, "first_packet": np.cumsum(sizes) - sizes, "protocol": np.full(sessions, 17)}
    held |= {"client_port": draw.integers(0, 2**16, sessions), "server_port": draw.integers(0, 2**16, sessions)}
    return held, packets, [bytes(capture)], kept


@given(seed=st.integers(0, 2**32), ports=st.booleans(), kept_only=st.booleans())
def test_inputs_are_those_of_a_packet_loop(make_store, seed, ports, kept_only):
    held, packets, captures, kept = make_traffic(np.random.default_rng(seed), 4)
    samples = Samples(np.arange(4), np.zeros(4, np.int64), held["packets"])
    view = View(make_store(held, packets, captures), samples, Flowgnn.reads)
    one = method(ports_in_globals=ports, global_packets="kept" if kept_only else "all")
    inputs = one.represent(view)
    assert ("ports" in view.used) == ports
    for s, (first, size) in enumerate(zip(held["first_packet"], held["packets"], strict=True)):
        rows = range(first, first + min(size, 6))
        assert inputs["counts"][s] == len(rows)
        np.testing.assert_array_equal(inputs["bytes"][s, : len(rows)], [kept[r] for r in rows])
        since = [(packets["time"][r] - packets["time"][first]) / 1e9 for r in range(first, first + size)]
        np.testing.assert_allclose(inputs["times"][s, : len(rows)], since[: len(rows)], rtol=1e-12)
        rows = rows if kept_only else range(first, first + size)
        expected = []
        for column in ("payload_length", "length"):
            values = [packets[column][r] for r in rows]
            expected += [statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0]
        expected += [since[len(rows) - 1]] + [held["client_port"][s], held["server_port"][s]] * ports
        np.testing.assert_allclose(inputs["globals"][s], expected, rtol=1e-5, atol=1e-5)


def test_a_batch_holds_the_packets_that_are_there():
    inputs = inputs_of([3, 1, 2])
    batch = method().batch(inputs)
    assert batch["graph"].tolist() == [0, 0, 0, 1, 2, 2]
    assert torch.equal(batch["nodes"][4], torch.from_numpy(inputs["bytes"][2, 0]))
    assert batch["edges"].T.tolist() == [[0, 1], [0, 2], [1, 2], [4, 5]]
    first = inputs["times"][0]
    expected = [first[1] - first[0], first[2] - first[0], first[2] - first[1], inputs["times"][2, 1]]
    assert batch["times"].tolist() == pytest.approx([*expected[:3], expected[3] - inputs["times"][2, 0]])


@pytest.mark.parametrize("pooling", ["sum", "mean"])
@pytest.mark.parametrize("shared", [False, True])
def test_message_passing_is_that_of_the_equations(pooling, shared):
    one = method(pooling=pooling, shared_cores=shared)
    net = Network(one.parameters, 3).eval()
    net.time_scale.fill_(2.0)
    net.global_scale.fill_(1500.0)
    inputs = inputs_of([4])
    together = getattr(torch, pooling)
    with torch.no_grad():
        for norm in net.modules():  # each norm, in each round, different
            if isinstance(norm, RoundNorm):
                norm.mean.normal_()
        x = net.encoder["node"](torch.from_numpy(inputs["bytes"][0, :4]) / 255)
        t = inputs["times"][0]
        e = {
            (i, j): net.encoder["edge"](torch.tensor([[np.log1p(t[j] - t[i]) / 2]], dtype=torch.float32))[0]
            for j in range(4)
            for i in range(j)
        }
        u = net.encoder["global"](torch.from_numpy(inputs["globals"]) / 1500)[0]
        for number in range(2):
            core = net.cores[0 if shared else number]
            for norm in core.modules():
                if isinstance(norm, RoundNorm):
                    norm.round = number if shared else 0
            edge, node, whole = (update.mlp for update in (core.edge_model, core.node_model, core.global_model))
            e = {(i, j): edge(torch.cat([e[i, j], x[i], x[j], u])[None])[0] for i, j in e}
            incoming = [[e[i, j] for i in range(j)] or [torch.zeros(8)] for j in range(4)]
            x = torch.stack(
                [node(torch.cat([x[j], together(torch.stack(incoming[j]), 0), u])[None])[0] for j in range(4)]
            )
            u = whole(torch.cat([u, together(x, 0), together(torch.stack(list(e.values())), 0)])[None])[0]
        expected = net.head(net.decoder(u[None]))
        assert torch.allclose(net(**one.batch(inputs)), expected, rtol=1e-4, atol=1e-4)


def slow_core(core, number, x, edges, e, u, graph):
    """A core block that joins all attributes of an edge or a node into one row, as the equations have them."""

    def pooled(rows, index, size):
        groups = [rows[index == group] for group in range(size)]
        return torch.stack([g.mean(0) if core.mean and len(g) else g.sum(0) for g in groups])

    start_round(core, number)
    of_edges = graph[edges[0]]
    e = core.edge_model.mlp(torch.cat([e, x[edges[0]], x[edges[1]], u[of_edges]], dim=1))
    x = core.node_model.mlp(torch.cat([x, pooled(e, edges[1], len(x)), u[graph]], dim=1))
    of_all = pooled(x, graph, len(u)), pooled(e, of_edges, len(u))
    return x, e, core.global_model.mlp(torch.cat([u, *of_all], dim=1))


def learned(one, net, batch, labels):
    """Logits and the gradient of every weight; the same draws of dropout each time."""
    torch.manual_seed(1)
    one.model = net
    net.zero_grad()
    logits = net(**batch)
    one.loss(logits, labels).backward()
    return {"logits": logits.detach()} | {name: weights.grad.clone() for name, weights in net.named_parameters()}


@pytest.mark.parametrize("values", [{}, {"pooling": "mean"}, {"shared_cores": True}, {"norm": "layer", "dropout": 0}])
def test_gradients_are_those_of_joined_attributes(values):
    torch.manual_seed(0)
    one = method(**values)
    net = one.network()
    batch, labels = one.batch(inputs_of([6, 1, 4, 2, 5, 3, 6, 6])), torch.arange(8) % 3
    fast = learned(one, net, batch, labels)
    for core in net.cores:
        core.forward = partial(slow_core, core)
    slow = learned(one, net, batch, labels)
    whole = torch.stack([gradient.norm() for gradient in slow.values()]).norm()
    for name, gradient in fast.items():  # as a whole: one number may nearly cancel, a bias before a norm is 0
        off, size = (gradient - slow[name]).norm(), slow[name].norm()
        assert off <= 1e-4 * size + 3e-6 * whole, (name, off, size)


@pytest.mark.parametrize("values", [{}, {"shared_cores": True}])
def test_large_batches_are_computed_twice_and_learn_the_same(values, monkeypatch):
    one = method(dropout=0.4, **values)
    net = one.network()
    batch, labels = one.batch(inputs_of([6, 1, 4, 2])), torch.tensor([0, 1, 2, 0])
    buffers = {name: values.clone() for name, values in net.named_buffers()}
    calls = []
    for block in (*net.cores, net.encoder["edge"]):
        block.register_forward_pre_hook(lambda block, _: calls.append(block))
    once = learned(one, net, batch, labels)
    made = len(calls)
    for least, times in ((23, 1), (22, 2)):  # the batch has 22 edges
        monkeypatch.setattr("methods.flowgnn.RECOMPUTED", least)
        calls.clear()
        again = learned(one, net, batch, labels)
        assert len(calls) == times * made
        assert all(torch.equal(values, again[name]) for name, values in once.items())
        assert all(torch.equal(values, buffers[name]) for name, values in net.named_buffers())
    calls.clear()
    with torch.no_grad():
        net(**batch)
    assert len(calls) == made


def test_sessions_of_one_packet_can_be_trained_on():
    for counts in ([1, 1], [1, 2]):  # no edge at all; one edge, which has no variance
        one = method()
        one.model = one.network()
        before = {name: values.clone() for name, values in one.model.named_buffers()}
        one.loss(one.model(**one.batch(inputs_of(counts))), torch.tensor([0, 1])).backward()
        assert all(weights.grad.isfinite().all() for weights in one.model.parameters())
        for name, values in one.model.named_buffers():
            assert values.isfinite().all(), name
            if "edge" in name:
                assert torch.equal(values, before[name]), name


@pytest.mark.parametrize(
    ("icf", "weights"), [("batch", [1 / 3, 1, 1]), ("global", [1 / 5, 1 / 3, 1]), (None, [1, 1, 1])]
)
def test_the_loss_is_weighted_by_inverse_class_frequency(icf, weights):
    one = method(icf=icf)
    one.model = one.network()
    labels = np.repeat([0, 1, 2], [5, 3, 2])
    one.before_training(
        one.model, Part(inputs_of([2] * 10), labels), np.arange(9)
    )  # one of the last class is not trained on
    logits, truth = torch.randn(4, 3), torch.tensor([0, 0, 0, 1])
    each = F.cross_entropy(logits, truth, reduction="none")
    weight = torch.tensor(weights)[truth]
    assert torch.allclose(one.loss(logits, truth), (weight * each).sum() / weight.sum())


@pytest.mark.parametrize("edge_times", ["log", "seconds"])
def test_scales_are_those_of_the_training_rows(edge_times):
    one = method(edge_times=edge_times)
    inputs = inputs_of([6] * 5)
    inputs["times"][4], inputs["globals"][4] = 1e6, 1e6
    inputs["globals"][:, 2] = 0
    net = one.network()
    one.before_training(net, Part(inputs, np.zeros(5, np.int64)), np.arange(4))
    expected = np.log1p(inputs["times"][:4].max()) if edge_times == "log" else 1
    assert net.time_scale.item() == pytest.approx(expected)
    largest = inputs["globals"][:4].max(axis=0)
    assert net.global_scale.tolist() == pytest.approx(np.where(largest > 0, largest, 1).tolist())


@pytest.mark.parametrize(
    "values",
    [
        {"norm": "layer"},
        {"pooling": "mean"},
        {"edge_times": "seconds"},
        {"shared_cores": True},
        {"cores": 1},
        {"mlp_layers": 3},
        {"hidden": 16},
        {"dropout": 0.5},
    ],
)
def test_options_change_the_network(values):
    batch = method().batch(inputs_of([3, 6, 1, 2]))
    plain, changed = (network(3, **SMALL | v)(**batch) for v in ({}, values))
    assert changed.shape == plain.shape == (4, 3)
    assert not torch.equal(changed, plain)


def test_code_takes_seven_globals():
    settings = dict(Flowgnn.presets["code"])
    net = network(6, **settings)
    assert net.encoder["global"][0].in_features == 7
    assert net.encoder["node"][0].in_features == 100
    assert net.in_seconds


def test_it_learns_and_abstains_from_an_empty_session():
    labels = np.arange(60) % 3
    inputs = inputs_of(labels + 2)
    inputs["counts"][5] = 0
    inputs["times"][5] = inputs["bytes"][5] = 0
    part = Part(inputs, labels)
    one = method(batch_size=8, learning_rate=5e-3, epochs=15)
    probabilities = one.fit(part, part, Monitor()).predict_proba(inputs)
    assert np.isnan(probabilities).any(axis=1).nonzero()[0].tolist() == [5]
    assert (np.delete(probabilities, 5, axis=0).argmax(1) == np.delete(labels, 5)).mean() > 0.9
