"""FlowPic and mini-FlowPic: the worked example, pictures against numpy.histogram2d, the convolution of filled cells."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from torch.nn import functional as F

from bench.method import Monitor, Part, make_parameters
from bench.readers import Ragged, View
from bench.schema import Samples
from bench.training.balance import undersample
from methods.flowpic import CellConvolution, FlowPic, cells, pictures
from methods.mini_flowpic import MiniFlowPic

pytestmark = pytest.mark.usefixtures("torch_seeded")


def make(kind=FlowPic, classes=12, **values):
    return kind(make_parameters(kind, values), classes=classes, seed=1)


def small(kind=FlowPic, classes=2, **values):
    return make(kind, classes, **{**kind.tiny, **values})


def parameters_of(module):
    return sum(weights.numel() for weights in module.parameters())


def draw_sessions(seed, sessions=8):
    """Of each session its packets: (ns, length, direction, payload length); some at one instant, some for minutes."""
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(sessions):
        size, pace = int(rng.integers(1, 40)), int(rng.choice([1, 10**7, 10**9, 10**10]))
        gaps = rng.integers(0, pace, size) * rng.integers(0, 2, size)
        times = 10**18 + np.cumsum(gaps)
        columns = (times, rng.choice([40, 52, 700, 1499, 1500, 9000], size), rng.choice([-1, 1], size))
        drawn.append(list(zip(*columns, rng.integers(0, 2, size), strict=True)))
    return drawn


def view_of(make_store, sessions, reads=FlowPic.reads):
    sizes = [len(session) for session in sessions]
    names = ("time", "length", "direction", "payload_length")
    columns = dict(zip(names, zip(*[packet for session in sessions for packet in session], strict=True), strict=True))
    store = make_store({"packets": sizes, "first_packet": np.cumsum(sizes) - sizes}, columns)
    whole = Samples(np.arange(len(sizes)), np.zeros(len(sizes), np.int64), np.full(len(sizes), 10**6))
    return View(store, whole, reads)


def slow_pictures(session, p):
    """Of one session the picture of each block, by numpy.histogram2d."""
    kept = session[: p.packets]
    if p.payload_only:
        kept = [packet for packet in session if packet[3]][: p.packets]
    kept = [packet for packet in kept if p.direction == "both" or packet[2] == (1 if p.direction == "up" else -1)]
    shown = []
    for block in range(p.blocks):
        begin, end, last = block * p.window * 1e9, (block + 1) * p.window * 1e9, block == p.blocks - 1
        times = [packet[0] - kept[0][0] for packet in kept]  # ns
        inside = [i for i, t in enumerate(times) if begin <= t < end or (last and t == end)]
        t, length = np.array([times[i] for i in inside]), [min(kept[i][1], 1500) for i in inside]
        extent = [begin, end]
        if p.time == "relative" and inside:
            t, extent = (t - t[0]) / (t[-1] - t[0] if t[-1] > t[0] else 1), [0, 1]
        shown.append(np.histogram2d(length, t, p.resolution, [[0, 1500], extent])[0])
    return np.stack(shown)


def fast_pictures(method, inputs):
    """``[answered, blocks, resolution, resolution]``, of the sessions that are answered."""
    p = method.parameters
    tensors = method.batch({"cells": inputs["cells"][method.can_classify(inputs)]})
    eligible = tensors["eligible"]
    drawn = torch.zeros(*eligible.shape, p.resolution, p.resolution)
    drawn[eligible] = pictures(tensors["cells"], tensors["counts"], int(eligible.sum()), p.resolution)[:, 0]
    return drawn.numpy()


# --- pictures -------------------------------------------------------------------------------------------------


def test_worked_example():
    one = np.array([0, 4])
    drawn = cells(Ragged(np.array([100, 1500, 1500, 700]), one), Ragged(np.array([0, 0, 29, 59.9]), one), 4, 60.0)
    picture = np.bincount(drawn.values, minlength=16).reshape(4, 4)
    assert drawn.values.dtype == np.int32
    assert np.argwhere(picture).tolist() == [[0, 0], [1, 3], [3, 0], [3, 1]]
    assert picture.sum() == 4


options = st.fixed_dictionaries(
    {
        "resolution": st.sampled_from([32, 64]),
        "window": st.sampled_from([15.0, 60.0]),
        "blocks": st.integers(1, 3),
        "time": st.sampled_from(["window", "relative"]),
        "direction": st.sampled_from(["both", "up", "down"]),
        "packets": st.sampled_from([None, 1, 16]),
        "payload_only": st.booleans(),
    }
)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), values=options)
def test_pictures_are_those_of_histogram2d(make_store, seed, values):
    method, sessions = make(**values), draw_sessions(seed)
    inputs = method.represent(view_of(make_store, sessions))
    slow = np.stack([slow_pictures(session, method.parameters) for session in sessions])
    answered = slow.any(axis=(1, 2, 3))
    np.testing.assert_array_equal(method.can_classify(inputs), answered)
    if answered.any():
        np.testing.assert_array_equal(fast_pictures(method, inputs), slow[answered])


def test_pictures_of_the_full_size(make_store):
    method, sessions = make(), draw_sessions(3, 6)
    slow = np.stack([slow_pictures(session, method.parameters) for session in sessions])
    np.testing.assert_array_equal(fast_pictures(method, method.represent(view_of(make_store, sessions))), slow)


def test_packets_at_one_instant_fall_in_the_first_column(make_store):
    view = view_of(make_store, [[(5, 0, 1, 0), (5, 1500, 1, 0)]])
    for time in ("window", "relative"):
        drawn = make(resolution=32, time=time).represent(view)["cells"]
        assert drawn.values.tolist() == [0, 31 * 32]


def test_a_block_ends_where_the_next_begins_and_the_last_one_is_closed(make_store):
    view = view_of(make_store, [[(second * 10**9, 0, 1, 0) for second in (0, 60, 120, 121)]])
    assert make(resolution=32).represent(view)["cells"].values.tolist() == [0, 31]
    assert make(resolution=32, blocks=2).represent(view)["cells"].values.tolist() == [0, 1024, 1024 + 31]


# --- networks -------------------------------------------------------------------------------------------------


def test_parameter_counts_are_those_of_the_specification():
    assert parameters_of(make().network()) == 309_874
    assert parameters_of(make(classes=5).network()) == 309_094 + 65 * 5
    assert parameters_of(make(MiniFlowPic).network()) == 61_876
    assert parameters_of(make(MiniFlowPic, 5).network()) == 60_856 + 85 * 5


def filled(resolution, packets, number):
    """Filled cells, counts and the dense pictures of random packets, some in corners and many in one cell."""
    spots = [torch.randint(0, number * resolution**2, (packets,)), torch.tensor([0, 0, number * resolution**2 - 1])]
    where, counts = torch.unique(torch.cat(spots), return_counts=True)
    return where, counts.float(), pictures(where, counts.float(), number, resolution)


@pytest.mark.parametrize(("resolution", "stride"), [(32, 2), (64, 2), (89, 5), (256, 5), (1500, 5)])
@pytest.mark.parametrize("whole", [False, True])  # True: as on a GPU
def test_the_convolution_of_filled_cells_is_that_of_the_picture_pooled(resolution, stride, whole):
    layer = CellConvolution(resolution, 10, 10, stride, 3)
    where, counts, dense = filled(resolution, 200, 2)
    weight = layer.weight.T.reshape(10, 1, 10, 10)
    layer.bias.data.uniform_(-0.1, 0.1)
    expected = F.max_pool2d(F.conv2d(dense, weight, layer.bias, stride, 3).relu(), 2)
    found = layer.of_whole(dense) if whole else layer(where, counts, 2)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-5)
    down = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, [layer.weight, layer.bias], down)
    got = torch.autograd.grad(found, [layer.weight, layer.bias], down)
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(wanted, got, strict=True))


def test_the_network_is_that_of_the_code():
    network = make().network().eval()
    where, counts, dense = filled(1500, 300, 1)
    first, second = network.convolution, network.layers[0]
    maps = F.max_pool2d(F.conv2d(dense, first.weight.T.reshape(10, 1, 10, 10), first.bias, 5, 3).relu(), 2)
    assert maps.shape == (1, 10, 150, 150)
    maps = F.max_pool2d(F.conv2d(maps, second.weight, second.bias, 5, 3).relu(), 2)
    assert maps.flatten(1).shape == (1, 4500)
    literal = network.layers[8](network.layers[5](maps.flatten(1)).relu())
    found = network(where, counts, torch.ones(1, 1, dtype=torch.bool))
    assert torch.allclose(found.softmax(1), literal.softmax(1), atol=1e-5)


@pytest.mark.parametrize("kind", [FlowPic, MiniFlowPic])
@pytest.mark.parametrize("resolution", [32, 64, 88, 89, 100])
def test_every_resolution_gives_logits(kind, resolution):
    where, counts, _ = filled(resolution, 50, 3)
    eligible = torch.ones(3, 1, dtype=torch.bool)
    assert make(kind, resolution=resolution).network()(where, counts, eligible).shape == (3, 12)


@pytest.mark.parametrize(
    "values",
    [{"resolution": 31}, {"resolution": 1501}, {"blocks": 955}, {"time": "log"}, {"direction": "in"}, {"balance": "x"}],
)
def test_parameters_out_of_range_are_bad_input(values):
    with refused("bad-parameter", next(iter(values))):
        make(**values)


@pytest.mark.parametrize("kind", [FlowPic, MiniFlowPic])
def test_blocks_are_lifted_by_their_mean_log_probability(make_store, kind):
    method = small(kind, blocks=3, window=10.0)
    seconds = [[0, 1, 25], [0, 12, 29], [3]]  # the first session has nothing in its second block
    sessions = [[(int(t * 1e9), 100 + 300 * i, 1, 1) for i, t in enumerate(times)] for times in seconds]
    batch = method.batch(method.represent(view_of(make_store, sessions)))
    assert batch["eligible"].tolist() == [[True, False, True], [True, True, True], [True, False, False]]
    network = method.network().eval()
    single = network(batch["cells"], batch["counts"], torch.ones(6, 1, dtype=torch.bool)).log_softmax(1)
    means = [single[a:b].mean(0) for a, b in pairwise([0, 2, 5, 6])]
    assert torch.allclose(network(**batch), torch.stack(means), atol=1e-6)


def test_mini_flowpic_cuts_its_counts_and_flowpic_does_not(make_store):
    packets = [(0, 100, 1, 1)] * 300 + [(10**9, 1400, -1, 1)] * 51
    inputs = {kind: make(kind).represent(view_of(make_store, [packets])) for kind in (FlowPic, MiniFlowPic)}
    assert make().batch(inputs[FlowPic])["counts"].tolist() == [300, 51]
    assert make(MiniFlowPic).batch(inputs[MiniFlowPic])["counts"].tolist() == [255, 51]
    scaled = make(MiniFlowPic, scaled=True).batch(inputs[MiniFlowPic])
    assert scaled["counts"].tolist() == [1, pytest.approx(0.2)]


def test_mini_flowpic_begins_with_the_weights_of_the_replication():
    for layer in make(MiniFlowPic).network().layers:
        if hasattr(layer, "weight"):
            bound = (6 / layer.weight[0].numel()) ** 0.5
            assert (layer.bias == 0).all()
            assert 0.9 * bound < layer.weight.abs().max() <= bound
    assert (make(MiniFlowPic, initial="torch").network().layers[0].bias != 0).any()


@pytest.mark.parametrize("spatial", [True, False])
def test_spatial_dropout_drops_whole_maps(spatial):
    dropout = make(MiniFlowPic, spatial_dropout=spatial, dropout=0.5).network().layers[5]
    share = (dropout(torch.ones(50, 16, 10, 10)) == 0).float().mean((2, 3))
    assert ((share == 0) | (share == 1)).all() == spatial
    assert share.mean() == pytest.approx(0.5, abs=0.05)


# --- training -------------------------------------------------------------------------------------------------


def part_of(make_store, method, sessions, labels):
    return Part(method.represent(view_of(make_store, sessions)), np.asarray(labels))


def two_classes(number):
    """Short packets at once, or long packets over a minute."""
    rng = np.random.default_rng(number)
    quick = [[(i, 60, 1, 0) for i in range(int(rng.integers(2, 9)))] for _ in range(number)]
    slow = [[(i * 5 * 10**9, 1400, -1, 1) for i in range(int(rng.integers(2, 9)))] for _ in range(number)]
    return quick + slow, [0] * number + [1] * number


@pytest.mark.parametrize("kind", [FlowPic, MiniFlowPic])
@pytest.mark.parametrize("values", [{}, {"blocks": 2, "time": "relative"}])
def test_it_learns(make_store, kind, values):
    method = small(kind, **values)
    part = part_of(make_store, method, *two_classes(16))
    method.fit(part, part, Monitor())
    assert (method.predict_proba(part.inputs).argmax(1) == part.labels).mean() > 0.9


def test_a_session_without_a_packet_in_its_pictures_is_an_abstention(make_store):
    method = small(direction="down", epochs=1, balance="keep")
    sessions, labels = two_classes(4)
    sessions[0].append((10**9, 500, -1, 1))
    sessions[1].append((10**9, 900, -1, 1))
    part = part_of(make_store, method, sessions, labels)
    probabilities = method.fit(part, part, Monitor()).predict_proba(part.inputs)
    assert np.isnan(probabilities).all(axis=1).tolist() == [False, False, True, True] + [False] * 4
    with refused("cannot-train", "0 usable"):
        small(direction="down").fit(part_of(make_store, method, sessions[2:4], [0, 1]), part, Monitor())


def test_an_epoch_of_flowpic_is_ten_steps_as_in_the_code():
    assert make().parameters.steps_an_epoch(3350) == 10
    assert make(MiniFlowPic).parameters.steps_an_epoch(640) == 20  # passes


def test_training_takes_as_many_of_each_class_as_of_the_smallest():
    labels = np.repeat([0, 1, 2], [50, 7, 20])
    rows = make().sample_rows(labels, np.random.default_rng(0))
    assert np.bincount(labels[rows]).tolist() == [7, 7, 7]
    np.testing.assert_array_equal(rows, undersample(labels, np.random.default_rng(0)))
    some = make(balance_ratio=2.0).sample_rows(labels, np.random.default_rng(0))
    assert np.bincount(labels[some]).tolist() == [14, 7, 14]
    assert len(make(balance="keep").sample_rows(labels, np.random.default_rng(0))) == 77
    assert make(MiniFlowPic).parameters.balance == "keep"
