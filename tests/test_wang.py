"""Wang et al., both networks: sizes, TensorFlow's padding and weights, what is read of a session, the step size."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from bench.method import Monitor, Part, make_parameters
from bench.readers import View
from bench.schema import Samples
from bench.training.budget import SHARED
from methods.wang1d import Wang1D, pooled, pooling
from methods.wang2d import Wang2D

pytestmark = pytest.mark.usefixtures("torch_seeded")
TCP, UDP = 6, 17
SMALL = {"bytes": 36, "kernel": 3, "hidden": 32, "batch_size": 8, "steps": None}


def make(method, classes=3, seed=0, **values):
    return method(make_parameters(method, values), classes=classes, seed=seed)


def size(method, classes, **values):
    with torch.device("meta"):  # counts alone: no weight is drawn
        return sum(weights.numel() for weights in make(method, classes, **values).network().parameters())


# --- networks -------------------------------------------------------------------------------------------------


def test_parameter_counts_are_those_of_the_specification():
    assert size(Wang1D, 12) == 5_832_588
    assert size(Wang2D, 20) == 3_284_884
    assert size(Wang1D, 12, **Wang1D.presets["packet-level"]) == 7_536_524
    for name in ("session-level", "session-raw"):
        assert size(Wang1D, 12, **Wang1D.presets[name]) == 11_730_828
    assert size(Wang1D, 12, **Wang1D.presets["session-1024"]) == 7_536_524  # as packet-level: the input alone differs


def test_table_xis_arms_differ_in_what_they_read_alone(traffic):
    store, samples, _ = traffic(1, 3)
    arms = {name: make(Wang1D, **Wang1D.presets[name]) for name in Wang1D.presets if "-" in name}
    assert set(arms) == {"packet-level", "session-level", "session-1024", "session-raw"}
    rest = [
        {k: v for k, v in vars(arm.parameters).items() if k not in ("layers", "bytes", "packets", "packet_bytes")}
        for arm in arms.values()
    ]
    assert all(values == rest[0] for values in rest)
    views = {name: View(store, samples, Wang1D.reads) for name in arms}
    read = {name: arm.represent(views[name])["bytes"] for name, arm in arms.items()}
    assert {name: view.used for name, view in views.items()} == {
        name: {"ip_bytes", "ports"} if name == "session-raw" else {"payload"} for name in arms
    }
    assert np.array_equal(read["session-level"][:, :1024], read["session-1024"])
    assert not np.array_equal(read["packet-level"], read["session-1024"])


def test_places_behind_each_pooling():
    for places in ((784, 262, 88), (1024, 342, 114), (1600, 534, 178)):
        assert (pooled(places[0], 3), pooled(places[1], 3)) == places[1:]


@pytest.mark.parametrize("places", range(1, 14))
def test_pooling_pads_as_tensorflow_does(places):
    signal = torch.randn(2, 4, places)
    padding = -places % 3
    padded = torch.nn.functional.pad(signal, (padding // 2, padding - padding // 2), value=-torch.inf)
    expected = torch.stack([padded[:, :, at : at + 3].amax(2) for at in range(0, padded.shape[2], 3)], dim=2)
    assert torch.equal(pooling(places)(signal), expected)
    assert expected.shape[2] == pooled(places, 3)


@pytest.mark.parametrize(("method", "name"), [(Wang1D, "Conv1d"), (Wang2D, "Conv2d")])
def test_layers_and_initial_weights(method, name):
    network = make(method).network()
    kinds = [type(layer).__name__ for layer in network]
    pool = name.replace("Conv", "MaxPool")
    assert kinds == ["Unflatten", *[name, "ReLU", pool] * 2, "Flatten", "Linear", "ReLU", "Dropout", "Linear"]
    for parameter, values in network.named_parameters():
        if parameter.endswith("bias"):
            assert (values == 0.1).all()
        else:
            assert values.abs().max() <= 0.2
            assert values.std().item() == pytest.approx(0.088, rel=0.1)  # of a normal cut at two deviations


def test_the_image_holds_the_bytes_row_by_row():
    network = make(Wang2D).network()
    assert network[0](torch.arange(784)[None])[0, 0, 3, 5] == 3 * 28 + 5


@pytest.mark.parametrize("method", [Wang1D, Wang2D])
@pytest.mark.parametrize("values", [{}, {"bytes": 49, "kernel": 5}, {"bytes": 100, "hidden": 7, "dropout": 0.0}])
def test_every_size_gives_logits_of_scaled_bytes(method, values):
    method = make(method, **SMALL | values)
    network = method.network().eval()
    bytes_ = torch.randint(0, 256, (2, method.parameters.bytes), dtype=torch.uint8)
    logits = network(bytes_)
    assert logits.shape == (2, 3)
    scaled = bytes_ / 255
    for layer in network:
        scaled = layer(scaled)
    assert torch.allclose(logits, scaled)


# --- parameters -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"bytes": 1024, "packet_bytes": 256},
        {"bytes": 1024, "packet_bytes": 256, "packets": 3},
        {"layers": "l7"},
        {"optimiser": "rmsprop"},
    ],
)
def test_parameters_out_of_range_are_bad_input(values):
    with refused("bad-parameter", f"{next(iter(values))}="):
        make(Wang1D, **values)


def test_bytes_that_make_no_square_are_bad_input():
    with refused("bad-parameter", "bytes=800", "784", "841"):
        make(Wang2D, bytes=800)


@pytest.mark.parametrize("preset", Wang2D.presets)
def test_every_preset_makes_an_image(preset):
    assert size(Wang2D, 12, **Wang2D.presets[preset]) > 3_000_000


# --- what is read ---------------------------------------------------------------------------------------------


def ip_packet(rng, protocol, payload, hide):
    """An IPv4 packet without what ``hide`` names."""
    head, transport = bytearray(rng.bytes(20)), bytearray(rng.bytes(20 if protocol == TCP else 8))
    head[0], head[9] = 0x45, protocol
    head[10:12], head[12:20] = bytes(2), bytes(8)
    at = 16 if protocol == TCP else 6
    transport[at : at + 2] = bytes(2)
    if "ports" in hide:
        transport[:4] = bytes(4)
    return bytes(head + transport + payload)


@pytest.fixture(scope="session")
def traffic(make_store):
    """Sessions of random IPv4 packets, some without payload; the store and a function that makes packets again."""

    def build(seed, sessions):
        rng = np.random.default_rng(seed)
        data, rows, of_session, made = bytearray(), [], [], []
        for _ in range(sessions):
            protocol, packets, first = int(rng.choice([TCP, UDP])), [], len(rows)
            for _ in range(int(rng.integers(1, 8))):
                payload = rng.bytes(int(rng.integers(1, 40))) if rng.random() < 0.6 else b""
                packet = int(rng.integers(2**32)), protocol, payload
                packets.append(packet)
                whole = ip_packet(np.random.default_rng(packet[0]), protocol, payload, ())
                rows.append((len(data), len(whole), len(payload), len(whole), len(whole) - len(payload)))
                data += whole
            of_session.append((protocol, len(packets), first))
            made.append(packets)
        columns = ("record", "length", "payload_length", "captured", "payload")
        store = make_store(
            dict(zip(("protocol", "packets", "first_packet"), np.array(of_session).T, strict=True)),
            dict(zip(columns, np.array(rows).T, strict=True)),
            [data],
        )
        return store, Samples(np.arange(sessions), np.zeros(sessions, int), np.full(sessions, 1000)), made

    return build


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    layers=st.sampled_from(["all", "payload"]),
    mask_ports=st.booleans(),
    packets=st.none() | st.integers(1, 8),
    packet_bytes=st.none() | st.integers(1, 60),
    size=st.integers(1, 200),
)
def test_represent_is_that_of_packets_one_by_one(traffic, seed, layers, mask_ports, packets, packet_bytes, size):
    store, samples, made = traffic(seed, 5)
    if packet_bytes is not None:
        packets = packets or 3
        size = packets * packet_bytes
    values = {"layers": layers, "mask_ports": mask_ports, "packets": packets, "packet_bytes": packet_bytes}
    view = View(store, samples, Wang1D.reads)
    inputs = make(Wang1D, bytes=size, **values).represent(view)
    assert view.used == ({"payload"} if layers == "payload" else {"ip_bytes"} if mask_ports else {"ip_bytes", "ports"})
    assert inputs["bytes"].dtype == np.uint8 and inputs["bytes"].shape == (5, size)
    hide = ("ports",) if mask_ports else ()
    for s, session in enumerate(made):
        if layers == "payload":
            seen = [payload for _, _, payload in session if payload][:packets]
        else:
            seen = [ip_packet(np.random.default_rng(d), protocol, p, hide) for d, protocol, p in session][:packets]
        if packet_bytes is not None:
            seen = [packet[:packet_bytes].ljust(packet_bytes, b"\0") for packet in seen]
        assert inputs["bytes"][s].tobytes() == b"".join(seen)[:size].ljust(size, b"\0")


# --- training -------------------------------------------------------------------------------------------------


def sessions_of_classes(samples=30, seed=0):
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.arange(samples) % 3)
    bytes_ = draw.integers(0, 40, (samples, 36), dtype=np.uint8)
    bytes_[np.arange(36) // 12 == labels[:, None]] += 200
    return Part({"bytes": bytes_}, labels)


@pytest.mark.parametrize("method", [Wang1D, Wang2D])
@pytest.mark.parametrize(
    "values", [{"learning_rate": 1e-2, "epochs": 40}, {"optimiser": "adam", "learning_rate": 1e-3}]
)
def test_it_learns_and_abstains_from_sessions_without_bytes(method, values):
    part = sessions_of_classes()
    part.inputs["bytes"][4] = 0
    method = make(method, **SMALL | {"hidden": 128, "dropout": 0.1, "epochs": 15} | values)
    found = method.fit(part, part, Monitor()).predict_proba(part.inputs)
    assert np.isnan(found[4]).all()
    assert (np.delete(found, 4, axis=0).argmax(1) == np.delete(part.labels, 4)).mean() > 0.9


@pytest.mark.parametrize("method", [Wang1D, Wang2D])
def test_the_budget_is_that_of_the_code_and_adam_has_its_own(method):
    assert make(method).parameters.steps_an_epoch(986) == 500  # 40 times: 20,000 steps, whatever the data
    adam = make(method, **method.presets["adam"]).parameters
    assert (adam.optimiser, adam.learning_rate, adam.steps_an_epoch(986)) == ("adam", 1e-3, 20)  # passes
    shared = make(method, **method.presets["shared"]).parameters
    assert (shared.optimiser, shared.learning_rate, shared.steps) == ("adam", 1e-3, SHARED["steps"])


def test_a_default_step_is_that_of_the_code():
    """Its loss is the sum over a batch of 50, its step size 1e-4."""
    method = make(Wang1D, dropout=0.0, **{k: v for k, v in SMALL.items() if k != "batch_size"}, epochs=1)
    part = sessions_of_classes(50)
    with method._seeded():
        network = method.network()
    bytes_, labels = torch.from_numpy(part.inputs["bytes"]), torch.from_numpy(part.labels)
    torch.nn.functional.cross_entropy(network(bytes_), labels, reduction="sum").backward()
    method.fit(part, Part({"bytes": part.inputs["bytes"][:0]}, part.labels[:0]), Monitor())
    for weights, trained in zip(network.parameters(), method.model.parameters(), strict=True):
        assert torch.allclose(weights - 1e-4 * weights.grad, trained, atol=1e-5)
        assert not torch.equal(weights, trained)
