"""TSCRNN against its Table I."""

import numpy as np
import pytest
import torch
from refusals import refused

from bench.method import Monitor, Part, make_parameters
from bench.training.budget import SHARED
from methods.tscrnn import Network, Parameters, Tscrnn

pytestmark = pytest.mark.usefixtures("torch_seeded")


def network(classes=16, **values):
    return Network(make_parameters(Tscrnn, values), classes)


def small(**values):
    return network(3, **{"packets": 4, "bytes": 20, "channels": 8, "hidden": 6} | values)


def traffic(samples=5, packets=4, bytes=20):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (samples, packets, bytes), dtype=np.uint8))


def parameters_of(*modules):
    return sum(weights.numel() for module in modules for weights in module.parameters())


def test_parameter_counts_are_those_of_table_1():
    whole = network()
    assert parameters_of(whole) == 2_897_104
    assert parameters_of(network(12)) == 2_895_052
    assert parameters_of(network(20)) == 2_899_156
    first, norm, _, _, second, *_ = whole.convolutions
    assert [parameters_of(layer) for layer in (first, norm, second)] == [2_944, 128, 12_352]
    assert parameters_of(whole.first, whole.second) == 2_873_344


def test_a_packet_of_1500_bytes_leaves_375_values_of_64_channels():
    assert network().convolutions(torch.rand(2, 15, 1500)).shape == (2, 64, 375)


@pytest.mark.parametrize(("packets", "bytes"), [(1, 4), (15, 500), (16, 257)])
def test_every_size_gives_logits(packets, bytes):
    assert small(packets=packets, bytes=bytes)(traffic(2, packets, bytes)).shape == (2, 3)


@pytest.mark.parametrize(
    "values", [{"bytes": 3}, {"packets": 0}, {"recurrent_axis": "packets"}, {"read_out": "mean"}, {"first_cut": 0}]
)
def test_parameters_out_of_range_are_bad_input(values):
    with refused("bad-parameter", next(iter(values))):
        Parameters(**values)


@pytest.mark.parametrize("axis", ["channels", "length"])
@pytest.mark.parametrize("read_out", ["last_step", "final"])
def test_recurrent_axis_and_read_out(axis, read_out):
    net = small(recurrent_axis=axis, read_out=read_out).eval()
    packets = traffic()
    maps = net.convolutions(packets / 255)  # [5, 8, 5]
    if axis == "length":
        maps = maps.transpose(1, 2)
    states = net.second(net.first(maps)[0])[0]
    assert states.shape == (5, 8 if axis == "channels" else 5, 12)
    forward, backward = states[:, -1, :6], states[:, -1 if read_out == "last_step" else 0, 6:]
    expected = net.out(torch.cat([forward, backward], dim=1))
    assert torch.allclose(net(packets), expected, atol=1e-6)


def test_dropout_acts_after_both_lstms():
    net = small(dropout=0.5)
    dropped = []
    net.dropout.register_forward_hook(lambda module, given, made: dropped.append((given[0] != 0) & (made == 0)))
    net.train()(traffic())
    assert len(dropped) == 2 and all(lost.float().mean() > 0.2 for lost in dropped)


@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_the_rate_falls_after_30_epochs_and_then_every_5(warmup):
    settings, steps = Parameters(warmup=warmup), 7
    late = round(warmup * 50)  # the cuts count from the end of the warm-up, as everywhere
    rates = [settings.learning_rate_at((epoch + late) * steps, steps) for epoch in range(50)]
    expected = [1e-3 if epoch < 30 else 1e-3 * 0.3 ** (1 + (epoch - 30) // 5) for epoch in range(50)]
    assert rates == pytest.approx(expected)
    if warmup:
        assert settings.learning_rate_at(0, steps) == pytest.approx(1e-3 / (warmup * 50 * steps))


@pytest.mark.parametrize("first_cut", [1, 3])
def test_a_first_cut_before_the_others_distance(first_cut):
    settings = Parameters(first_cut=first_cut)
    rates = [settings.learning_rate_at(epoch, 1) for epoch in range(first_cut + 6)]
    assert rates == pytest.approx([1e-3] * first_cut + [3e-4] * 5 + [9e-5])


def test_it_learns_and_an_absent_class_does_no_harm():
    labels = np.arange(40) % 2
    packets = (traffic(40).numpy() // 8 + 70 * labels[:, None, None]).astype(np.uint8)
    part = Part({"packets": packets}, labels)
    values = {"packets": 4, "bytes": 20, "channels": 8, "hidden": 6, "epochs": 12, "batch_size": 8}
    method = Tscrnn(make_parameters(Tscrnn, values | {"learning_rate": 1e-2, "dropout": 0.1}), classes=3)
    probabilities = method.fit(part, part, Monitor()).predict_proba(part.inputs)
    assert (probabilities.argmax(1) == labels).mean() > 0.9


def test_presets_are_the_two_other_readings_and_the_common_budget():
    assert network(3, **Tscrnn.presets["length"]).first.input_size == 64
    assert network(3, **Tscrnn.presets["final"]).read_out == "final"
    shared = make_parameters(Tscrnn, Tscrnn.presets["shared"])
    assert (shared.packets, shared.mask_ports) == (16, True)
    assert {name: getattr(shared, name) for name in SHARED} == SHARED
