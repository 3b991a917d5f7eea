"""ATVITSC against the paper: sizes, the tiling, the gate, each ablation."""

import copy
import math

import numpy as np
import pytest
import torch
from refusals import refused
from torch.nn import functional as F

from bench.method import Monitor, Part, make_parameters
from methods import atvitsc
from methods.atvitsc import (
    Atvitsc,
    Gate,
    Network,
    PacketVisionTransformer,
    Parameters,
    ResAtConv,
    patches_of,
    sinusoids,
    winners,
)


def network(classes=12, seed=0, **values):
    torch.manual_seed(seed)
    return Network(make_parameters(Atvitsc, values), classes)


def small(**values):
    """A network that is quick to run."""
    sizes = {"width": 32, "heads": 2, "head_width": 8, "feedforward": 64, "channels": 8, "lstm_hidden": 16}
    return network(**sizes | {"packets": 4, "bytes": 64} | values)


def traffic(samples=6, packets=4, bytes=64, seed=0):
    draw = torch.Generator().manual_seed(seed)
    payload = torch.randint(0, 256, (samples, packets, bytes), dtype=torch.uint8, generator=draw)
    return payload, torch.randint(1, 1500, (samples, packets), dtype=torch.int32, generator=draw)


@pytest.fixture(autouse=True)
def _random_state():
    with torch.random.fork_rng():
        yield


def parameters_of(module):
    return sum(weights.numel() for weights in module.parameters())


def test_parameter_counts_are_those_of_the_specification():
    whole = network()
    assert parameters_of(whole) == 4_802_831
    assert parameters_of(whole.pvt) == 4_127_744
    assert parameters_of(whole.stfe) == 474_369
    assert parameters_of(whole.gate) + parameters_of(whole.head) == 200_718
    assert parameters_of(network(head_width=21)) == 3_746_063
    heads8 = network(**Atvitsc.presets["heads8"])
    assert parameters_of(heads8.pvt) == 3_079_168


@pytest.mark.parametrize("packets", [1, 4, 16, 25])
@pytest.mark.parametrize("bytes", [16, 256, 400])
def test_every_image_size_gives_logits(packets, bytes):
    payload, lengths = traffic(3, packets, bytes)
    assert small(packets=packets, bytes=bytes)(payload, lengths).shape == (3, 12)


def test_a_packet_image_that_is_no_square_is_bad_input():
    with refused("bad-parameter", "bytes=200", "196", "225"):
        Parameters(bytes=200)


@pytest.mark.parametrize(
    "values", [{"branches": "local"}, {"fusion": "sum"}, {"read_out": "all"}, {"temperature": 0.0}, {"width": 33}]
)
def test_parameters_out_of_range_are_bad_input(values):
    with refused("bad-parameter", next(iter(values))):
        Parameters(**values)


def tiled(packets):
    """The session image of III-A: packet images, row by row, in rows of as many packets."""
    grid, side = math.isqrt(packets.shape[0]), math.isqrt(packets.shape[1])
    return packets.reshape(grid, grid, side, side).permute(0, 2, 1, 3).reshape(grid * side, grid * side)


def test_the_tiling_of_numbered_bytes():
    image = tiled(torch.arange(16).reshape(4, 4))  # 4 packets of 4 bytes: P1 P2 / P3 P4
    assert image.tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


@pytest.mark.parametrize(("packets", "bytes"), [(4, 16), (16, 256), (9, 64)])
def test_the_packet_embedding_is_the_convolution_over_the_session_image(packets, bytes):
    side = math.isqrt(bytes)
    pvt = PacketVisionTransformer(Parameters(packets=packets, bytes=bytes, width=32))
    payload = torch.rand(1, packets, bytes)
    kernel = pvt.packet.weight.reshape(32, 1, side, side)
    literal = F.conv2d(tiled(payload[0])[None, None], kernel, pvt.packet.bias, stride=side)
    assert torch.allclose(pvt.packet(payload)[0], literal[0].flatten(1).T, atol=1e-5)


def test_positions_begin_at_one():
    pvt = PacketVisionTransformer(Parameters(packets=4, bytes=16, width=4))
    expected = [[math.sin(p), math.cos(p), math.sin(p / 100), math.cos(p / 100)] for p in (1, 2, 3, 4)]
    assert np.allclose(pvt.position, expected)
    assert sinusoids(3, 4)[0].tolist() == [0, 1, 0, 1]


def test_lengths_of_any_size_are_taken():
    net = small().eval()
    payload, _ = traffic(2)
    lengths = torch.tensor([[0, 1499, 1500, 70_000], [0, 1499, 1499, 1499]], dtype=torch.int32)
    # one after the other: two rows of one batch may be summed in another order
    large, cut = (net.pvt(payload[:1] / 255, row[None]) for row in lengths)
    assert torch.equal(large, cut)


def test_the_order_of_packets_matters_through_position_alone():
    pvt = small().eval().pvt
    payload, lengths = traffic(2)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        given, permuted = (pvt(payload[:, o] / 255, lengths[:, o]) for o in (torch.arange(4), order))
        assert not torch.allclose(given, permuted, atol=1e-4)
        pvt.position.zero_()
        given, permuted = (pvt(payload[:, o] / 255, lengths[:, o]) for o in (torch.arange(4), order))
        assert torch.allclose(given, permuted, atol=1e-5)


def test_computing_the_class_token_alone_changes_nothing():
    pvt = small().eval().pvt
    tokens = torch.randn(3, 5, 32)
    for layer in pvt.encoder:
        assert torch.allclose(layer(tokens, None)[:, :1], layer(tokens, None, outputs=1), atol=1e-5)


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_layer_of_the_first_tokens_has_the_gradients_of_the_whole_one(outputs):
    layer = small().double().eval().pvt.encoder[0]
    tokens = torch.randn(3, 5, 32, dtype=torch.double)
    mask = torch.ones(3, 1, 1, 5, dtype=torch.bool)
    mask[1, ..., 3:] = False
    slope = torch.randn(3, outputs, 32, dtype=torch.double)
    for hidden in (None, mask):
        whole = answer_and_gradients(lambda x, m=hidden: layer(x, m)[:, :outputs], layer, tokens, slope)
        alone = answer_and_gradients(lambda x, m=hidden: layer(x, m, outputs=outputs), layer, tokens, slope)
        for name, values in whole.items():
            assert torch.allclose(alone[name], values, rtol=1e-9, atol=1e-9), name


def test_attention_is_that_of_the_equations():
    layer = small().eval().pvt.encoder[0]
    tokens = torch.randn(2, 5, 32)
    x = layer.attention_norm(tokens)
    key, value = layer.key_value(x).chunk(2, dim=-1)
    parts = []
    for head in range(2):
        q, k, v = (a[..., head * 8 : head * 8 + 8] for a in (layer.query(x), key, value))
        parts.append((q @ k.transpose(1, 2) / math.sqrt(8)).softmax(-1) @ v)
    attended = tokens + layer.out(torch.cat(parts, dim=-1))
    assert torch.allclose(layer(tokens, None), attended + layer.feedforward(attended), atol=1e-5)


def test_told_weights_are_those_that_the_layer_uses():
    layer = small(heads=1).eval().pvt.encoder[0]
    tokens = torch.randn(2, 5, 32)
    mask = torch.ones(2, 1, 1, 5, dtype=torch.bool)
    mask[1, ..., 3:] = False
    for hidden in (None, mask):
        weights = layer.weights(tokens, hidden)
        value = layer.key_value(layer.attention_norm(tokens)).chunk(2, dim=-1)[1]
        attended = tokens + layer.out(weights @ value)
        assert torch.allclose(layer(tokens, hidden), attended + layer.feedforward(attended), atol=1e-5)
        assert torch.allclose(weights.sum(2), torch.ones(2, 5))
    assert (weights[1, :, 3:] == 0).all() and (weights[0] > 0).all()


def test_asking_for_attention_changes_no_prediction():
    method = Atvitsc(make_parameters(Atvitsc, dict(Atvitsc.tiny)), classes=3)
    method.model = method.network()
    payload, lengths = traffic(5, 9, 64)
    inputs = {"payload": payload.numpy(), "lengths": lengths.numpy()}
    before = method.predict_proba(inputs)
    assert method.attention(inputs).shape == (5, 10, 10)
    assert np.array_equal(method.predict_proba(inputs), before)


def test_mask_padding_hides_empty_packets_from_attention():
    payload, lengths = traffic(2)
    lengths[:, 2:] = 0
    other = payload.clone()
    other[:, 2:] = 77  # would be seen if padding took part
    for masked in (True, False):
        pvt = small(mask_padding=masked).eval().pvt
        with torch.no_grad():
            same = torch.allclose(pvt(payload / 255, lengths), pvt(other / 255, lengths), atol=1e-5)
        assert same == masked


def literal_block(block, images):
    """ResAtConv with every map written out (III-C-1)."""
    maps = block.norm(block.convolution(images))
    g, q = maps.mean((2, 3)), maps.amax((2, 3))
    weights = block.combine(block.average(g) + block.maximum(q))[:, :, None, None]
    return F.conv2d(weights * maps + maps, block.project.weight[:, :, None, None], block.project.bias)


def block_of(inputs, **values):
    """A block of double precision, as rounding would hide small faults, whose norm has scales of both signs."""
    block = ResAtConv(inputs, Parameters(**{"channels": 8, "map_channels": 2} | values)).double()
    with torch.no_grad():
        block.norm.weight.copy_(torch.linspace(-1.5, 1.5, 8))
        block.norm.bias.normal_()
    return block


def answer_and_gradients(forward, block, images, slope):
    """What came of a step: the answer, the images' gradient, those of the weights, the norm's statistics."""
    images = images.clone().requires_grad_()
    block.zero_grad()
    answer = forward(images)
    (answer * slope).sum().backward()
    gradients = {name: weights.grad.clone() for name, weights in block.named_parameters()}
    statistics = {name: values.clone() for name, values in block.named_buffers()}
    return {"answer": answer.detach(), "images": images.grad, **gradients, **statistics}


@pytest.mark.parametrize("inputs", [1, 3])
@pytest.mark.parametrize("training", [True, False])
def test_the_folded_block_is_the_formula(monkeypatch, inputs, training):
    torch.manual_seed(1)
    monkeypatch.setattr(atvitsc, "PIXELS", 200)  # three images at a time, and one at last
    block = block_of(inputs)
    other = copy.deepcopy(block)
    slope = torch.randn(10, 2, 8, 8, dtype=torch.double)
    for _ in range(2):  # the second time from running statistics that have moved
        images = torch.rand(10, inputs, 8, 8, dtype=torch.double) * 3 + 1
        block.train(), other.train()
        block(images), literal_block(other, images)
    for one in (block, other):
        one.train(training)
    made = answer_and_gradients(block, block, images, slope)
    expected = answer_and_gradients(lambda x: literal_block(other, x), other, images, slope)
    assert made.keys() == expected.keys()
    for name, values in expected.items():
        assert torch.allclose(made[name], values, rtol=1e-9, atol=1e-9), name


def test_the_folded_block_is_exact_enough_in_float32():
    torch.manual_seed(1)
    block = block_of(1).float()
    images = torch.rand(64, 1, 16, 16) * 0.01 + 0.5  # a spread that is small beside the mean
    other = copy.deepcopy(block).double()
    exact = literal_block(other, images.double())
    assert torch.allclose(block(images).double(), exact, atol=2e-4)
    assert torch.allclose(block.norm.running_var.double(), other.norm.running_var, rtol=1e-5)


def test_an_empty_image_has_one_winner_a_map():
    block = block_of(1)
    images = torch.zeros(4, 1, 8, 8, dtype=torch.double)
    images[0] = torch.rand(8, 8)
    patches = patches_of(images)
    found = winners(patches, torch.randn(10, 8, dtype=torch.double), 4)
    assert found.shape == (4, 8) and (found // 64 == torch.arange(4)[:, None]).all()
    assert block(images).isfinite().all()


def test_the_folded_block_keeps_no_map():
    block = ResAtConv(1, Parameters(channels=64))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        block(torch.rand(8, 1, 16, 16))
    assert max(kept) < 8 * 16 * 16 * 64 / 4


def test_the_folded_block_takes_no_part_in_mixed_precision():
    block, images = ResAtConv(1, Parameters()).eval(), torch.rand(4, 1, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = block(images)
    assert mixed.dtype == torch.float32 and torch.equal(mixed, block(images))


def test_read_outs():
    payload, _ = traffic(3)
    packets = payload / 255
    features = {}
    for read_out in ("final", "last_step", "sum_all"):
        stfe = small(read_out=read_out).eval().stfe
        features[read_out] = stfe(packets)
        maps = stfe.blocks(packets.reshape(-1, 1, 8, 8)).reshape(3, 4, -1)
        states = stfe.lstm(maps)[0]
        forward, backward = states[..., :16], states[..., 16:]
        if read_out == "final":
            expected = stfe.out(torch.cat([forward[:, -1], backward[:, 0]], dim=1))
        elif read_out == "last_step":
            expected = stfe.out(torch.cat([forward[:, -1], backward[:, -1]], dim=1))
        else:
            expected = stfe.out(states).sum(1)
        assert torch.allclose(features[read_out], expected, atol=1e-6)
    assert not torch.allclose(features["final"], features["last_step"], atol=1e-4)


def test_the_gate_by_hand():
    gate = Gate(2, temperature=2.0)
    one, two = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    with torch.no_grad():
        gate.score[2].weight.zero_()
        gate.score[2].bias.zero_()
        assert gate(one, two).tolist() == [[0.5, 0.5]]
        gate.score[2].bias.copy_(torch.tensor([2 * math.log(3), 0.0]))  # 3 : 1 after the temperature
        assert torch.allclose(gate(one, two), torch.tensor([[0.75, 0.25]]))
    assert torch.allclose(gate.weights.sum(1), torch.ones(1))


def test_the_gate_starts_in_the_middle_and_both_branches_learn():
    net = network()
    payload, lengths = traffic(4, 16, 256)
    F.cross_entropy(net(payload, lengths), torch.tensor([0, 1, 2, 3])).backward()
    assert net.diagnostics()["alpha_global"] == pytest.approx(0.5, abs=2e-3)
    assert sum(net.diagnostics().values()) == pytest.approx(1)
    for name, weights in net.named_parameters():
        assert weights.grad is not None and weights.grad.isfinite().all(), name
    for branch in (net.pvt.packet, net.pvt.length, net.stfe.lstm, net.gate.score[0]):
        assert max(weights.grad.abs().max() for weights in branch.parameters()) > 0


def test_ablations_have_the_parts_they_name():
    concat, pvt, stfe = (network(**Atvitsc.presets[name]) for name in ("concat", "pvt", "stfe"))
    assert concat.gate is None and concat.head[0].in_features == 512
    assert pvt.stfe is None and pvt.gate is None and pvt.head[0].in_features == 256
    assert stfe.pvt is None and stfe.gate is None and stfe.diagnostics() == {}
    payload, lengths = traffic(2, 16, 256)
    assert {net(payload, lengths).shape for net in (concat, pvt, stfe)} == {(2, 12)}


@pytest.mark.parametrize(
    "values", [{"resatconv_layers": 2, "map_channels": 2}, {"activation": "leaky_relu"}, {"final_norm": False}]
)
def test_further_flags_change_the_network(values):
    payload, lengths = traffic()
    plain, changed = (small(**v).eval()(payload, lengths) for v in ({}, values))
    assert changed.shape == plain.shape
    assert not torch.equal(changed, plain)


class Curve(Monitor):
    def __init__(self):
        self.steps = []

    def log(self, step, **values):
        self.steps.append(values)


def test_it_overfits_random_samples_and_alpha_moves():
    draw = np.random.default_rng(0)
    payload = draw.integers(0, 256, (64, 4, 256), dtype=np.uint8)
    lengths = draw.integers(1, 70_000, (64, 4), dtype=np.int32)
    part = Part({"payload": payload, "lengths": lengths}, draw.integers(0, 4, 64))
    curve = Curve()
    method = Atvitsc(Parameters(packets=4, epochs=12, warmup=0.0, head_dropout=0.1), classes=4, seed=1)
    method.fit(part, part, curve)
    assert (method.predict_proba(part.inputs).argmax(1) == part.labels).mean() > 0.9
    alpha = [values["alpha_global"] for values in curve.steps]
    assert len(alpha) == 48
    assert alpha[0] == pytest.approx(0.5, abs=2e-3)
    assert abs(alpha[-1] - 0.5) > 3e-3


def test_a_session_without_payload_is_an_abstention():
    method = Atvitsc(make_parameters(Atvitsc, dict(Atvitsc.tiny) | {"epochs": 1}), classes=2)
    draw = np.random.default_rng(0)
    inputs = {
        "payload": draw.integers(0, 256, (8, 9, 64), dtype=np.uint8),
        "lengths": draw.integers(1, 1500, (8, 9), dtype=np.int32),
    }
    inputs["payload"][3], inputs["lengths"][3] = 0, 0
    part = Part(inputs, np.arange(8) % 2)
    probabilities = method.fit(part, part, Monitor()).predict_proba(inputs)
    assert np.isnan(probabilities[3]).all()
    assert np.isfinite(np.delete(probabilities, 3, axis=0)).all()


def test_the_length_embedding_begins_as_an_embedding_or_as_a_linear_layer():
    normal, linear = (
        network(length_init=kind).pvt.length.weight.norm(dim=1).mean().item() for kind in ("normal", "linear")
    )
    assert normal == pytest.approx(16, rel=0.02) and linear == pytest.approx(0.239, rel=0.02)
    as_layer = torch.nn.Linear(1500, 256, bias=False).weight
    assert as_layer.T.norm(dim=1).mean().item() == pytest.approx(linear, rel=0.02)


def test_the_channel_attention_s_inner_layers_may_be_s_shaped():
    block = network(attention_activation="sigmoid").stfe.blocks[0]
    inner = [branch(torch.full((1, 64), 1e3)) for branch in (block.average, block.maximum)]
    assert all(((0 <= values) & (values <= 1)).all() for values in inner)
    assert (network().stfe.blocks[0].average(torch.full((1, 64), 1e3)).abs() > 1).any()
    counts = {
        sum(w.numel() for w in network(**values).parameters()) for values in ({}, {"attention_activation": "sigmoid"})
    }
    assert counts == {4_802_831}
