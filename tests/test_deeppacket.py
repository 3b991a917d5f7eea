"""Deep Packet, both networks: sizes, what of a packet is seen, under-sampling, sessions, pre-training."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from bench.method import Monitor, Part, make_parameters
from bench.readers import View
from bench.schema import Samples
from methods.deeppacket import BLOCK, DeepPacket, convolutions, lengthen_udp, votes
from methods.deeppacket_sae import DeepPacketSae

pytestmark = pytest.mark.usefixtures("torch_seeded")
TCP, UDP = 6, 17
SMALL = {"packets": 3, "bytes": 64, "filters": 8, "batch_size": 16, "epochs": 2, "patience": None}
SMALL_SAE = {"packets": 3, "bytes": 64, "batch_size": 16, "epochs": 1, "pretraining_epochs": 2}


def make(method, classes=3, seed=0, **values):
    return method(make_parameters(method, values), classes=classes, seed=seed)


def size(network):
    return sum(weights.numel() for weights in network.parameters())


# --- sizes ----------------------------------------------------------------------------------------------------


def test_parameter_counts_are_those_of_the_specification():
    applications = DeepPacket.presets["applications"]
    assert size(make(DeepPacket, 12, batch_norm=False).network()) == 3_507_362
    assert size(make(DeepPacket, 12).network()) == 3_507_362 + 800
    assert size(make(DeepPacket, 17, batch_norm=False, **applications).network()) == 10_107_417
    assert size(make(DeepPacketSae, 12).network()) == 806_662


def test_lengths_behind_the_convolutions():
    assert make(DeepPacket).parameters.pooled == 83
    assert make(DeepPacket, **DeepPacket.presets["applications"]).parameters.pooled == 247


@pytest.mark.parametrize(
    "values", [{"bytes": 27}, {"bytes": 28, "first_kernel": 28}, {"aggregate": "sum"}, {"balance_ratio": 0.9}]
)
def test_parameters_out_of_range_are_bad_input(values):
    with refused("bad-parameter", f"{next(iter(values))}="):
        make(DeepPacket, **values)


# --- what is seen of a packet ---------------------------------------------------------------------------------


def ip_packet(rng, protocol, payload, *, version=4, options=0, ports=(443, 50_000), hide=()):
    """One IP packet without what ``hide`` names; TCP headers of 20 bytes."""
    if version == 4:
        head = bytearray(rng.bytes(20 + 4 * options))
        head[0], head[9] = 0x45 + options, protocol
        if "addresses" in hide:
            head[12:20] = bytes(8)
        if "checksums" in hide:
            head[10:12] = bytes(2)
    else:
        head = bytearray(b"\x60" + rng.bytes(39))
        head[6] = protocol
        if "addresses" in hide:  # and the flow label
            head[1] &= 0xF0
            head[2:4], head[8:40] = bytes(2), bytes(32)
    transport = bytearray(rng.bytes(20 if protocol == TCP else 8))
    transport[:4] = bytes(4) if "ports" in hide else b"".join(p.to_bytes(2, "big") for p in ports)
    if "checksums" in hide:
        at = 16 if protocol == TCP else 6
        transport[at : at + 2] = bytes(2)
    return bytes(head + transport + payload)


def with_zeros(packet):
    """The packet with 12 zeros between UDP header and payload, as the paper says it."""
    version4 = packet[0] >> 4 == 4
    if packet[9 if version4 else 6] != UDP:
        return packet
    payload = ((packet[0] & 15) * 4 if version4 else 40) + 8
    return packet[:payload] + bytes(12) + packet[payload:]


def padded(packets, width):
    return np.stack([np.frombuffer(p[:width].ljust(width, b"\0"), np.uint8) for p in packets])


def test_a_udp_header_gets_twelve_zeros_before_the_payload():
    rng = np.random.default_rng(0)
    packet = ip_packet(rng, UDP, b"payload")
    array = padded([packet], 60)
    lengthen_udp(array)
    assert array[0].tobytes() == packet[:28] + bytes(12) + b"payload" + bytes(13)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    width=st.integers(28, 130),
    kinds=st.lists(st.tuples(st.sampled_from([4, 6]), st.sampled_from([TCP, UDP]), st.integers(0, 10)), max_size=12),
)
def test_lengthening_is_that_of_packets_one_by_one(seed, width, kinds):
    rng = np.random.default_rng(seed)
    packets = [
        ip_packet(rng, protocol, rng.bytes(int(rng.integers(0, 60))), version=version, options=options)
        for version, protocol, options in kinds
    ]
    packets.append(b"")  # padding
    array = padded(packets, width)
    lengthen_udp(array)
    np.testing.assert_array_equal(array, padded([with_zeros(p) if p else p for p in packets], width))


def test_lengthening_goes_beyond_one_block():
    packet = ip_packet(np.random.default_rng(0), UDP, b"abc")
    array = np.repeat(padded([packet], 48), BLOCK + 1, axis=0)
    lengthen_udp(array)
    np.testing.assert_array_equal(array, np.repeat(padded([with_zeros(packet)], 48), BLOCK + 1, axis=0))


@pytest.fixture(scope="session")
def traffic(make_store):
    """Sessions of random packets, some DNS, some without payload; the store and what each packet is made of."""

    def build(seed, sessions):
        rng = np.random.default_rng(seed)
        data, rows, of_session, made = bytearray(), [], [], []
        for _ in range(sessions):
            version, protocol = int(rng.choice([4, 6])), int(rng.choice([TCP, UDP]))
            ports = int(rng.choice([53, 443, 5353])), int(rng.choice([53, 50_000, 50_001, 50_002]))
            packets, first = [], len(rows)
            for _ in range(int(rng.integers(1, 30))):
                payload = rng.bytes(int(rng.integers(1, 50))) if rng.random() < 0.4 else b""
                kind = {"version": version, "options": int(rng.integers(3)), "ports": ports}
                draws = int(rng.integers(2**32))
                whole = ip_packet(np.random.default_rng(draws), protocol, payload, **kind)
                rows.append((len(data), len(whole), len(payload), len(whole), len(whole) - len(payload)))
                data += whole
                packets.append((draws, protocol, payload, kind))
            of_session.append((protocol, *ports, len(packets), first))
            made.append(packets)
        columns = ("record", "length", "payload_length", "captured", "payload")
        names = ("protocol", "client_port", "server_port", "packets", "first_packet")
        store = make_store(
            dict(zip(names, np.array(of_session).T, strict=True)),
            dict(zip(columns, np.array(rows).T, strict=True)),
            [data],
        )
        whole = Samples(np.arange(sessions), np.zeros(sessions, np.int64), np.full(sessions, 1000))
        return store, whole, made

    return build


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), packets=st.integers(1, 20), width=st.integers(28, 110), mask_ports=st.booleans())
def test_represent_is_that_of_packets_one_by_one(traffic, seed, packets, width, mask_ports):
    store, samples, made = traffic(seed, 6)
    method = make(DeepPacket, packets=packets, bytes=width, mask_ports=mask_ports)
    view = View(store, samples, DeepPacket.reads)
    inputs = method.represent(view)
    assert view.used == ({"ip_bytes"} if mask_ports else {"ip_bytes", "ports"})
    hide = {"addresses", "checksums"} | ({"ports"} if mask_ports else set())
    bytes_, eligible = np.zeros((6, packets, width), np.uint8), np.zeros((6, packets), bool)
    for s, session in enumerate(made):
        kept = [packet for packet in session if packet[2]][:packets]
        for p, (draws, protocol, payload, kind) in enumerate(kept):
            whole = ip_packet(np.random.default_rng(draws), protocol, payload, hide=hide, **kind)
            bytes_[s, p] = padded([with_zeros(whole)], width)
            eligible[s, p] = mask_ports or 53 not in kind["ports"]
    np.testing.assert_array_equal(inputs["bytes"], bytes_)
    np.testing.assert_array_equal(inputs["eligible"], eligible)
    assert inputs["bytes"].dtype == np.uint8 and inputs["eligible"].dtype == bool


# --- networks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values", [{}, {"batch_norm": False}, {"bytes": 100}, dict(DeepPacket.presets["applications"]), {"dropout": 0.0}]
)
def test_the_convolutions_give_logits_for_every_option(values):
    settings = make(DeepPacket, **{"filters": 8} | values).parameters
    body = convolutions(settings, 5)
    kinds = [type(layer).__name__ for layer in body]
    assert body(torch.rand(2, settings.bytes)).shape == (2, 5)
    norm = ["BatchNorm1d"] * settings.batch_norm
    assert kinds[:8] == ["Unflatten", *["Conv1d", *norm, "ReLU"] * 2, "MaxPool1d", "Flatten", "Linear"][:8]
    assert [layer.p for layer in body if isinstance(layer, torch.nn.Dropout)] == [settings.dropout] * 3


@pytest.mark.parametrize("method", [DeepPacket, DeepPacketSae])
def test_weights_begin_as_in_keras(method):
    for layer in make(method).network().modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv1d):
            taps = layer.weight[0, 0].numel()
            bound = (6 / (taps * sum(layer.weight.shape[:2]))) ** 0.5
            assert (layer.bias == 0).all()
            assert 0.9 * bound < layer.weight.abs().max() <= bound
        elif isinstance(layer, torch.nn.BatchNorm1d):
            assert (layer.weight == 1).all()


class Echo(torch.nn.Module):
    """Packets' first bytes as logits."""

    def forward(self, packets):
        return packets[:, :3] * 255


@pytest.mark.parametrize("method", [DeepPacket, DeepPacketSae])
def test_sessions_by_mean_and_by_vote(method):
    packets = torch.tensor([[[3, 2, 0], [3, 2, 0], [0, 9, 0]], [[1, 0, 0], [0, 0, 5], [0, 0, 0]]], dtype=torch.uint8)
    eligible = torch.tensor([[True, True, True], [True, False, False]])
    found = {}
    for aggregate in ("mean", "vote"):
        network = make(method, aggregate=aggregate).network()
        network.body = Echo()
        found[aggregate] = network.eval()(packets, eligible).softmax(1)
        alone = network.train()(packets[1:, :1], eligible[1:, :1]).softmax(1)  # votes would have no gradient
        assert torch.allclose(alone, torch.tensor([[1.0, 0.0, 0.0]]).softmax(1))
    logs = packets[0].float().log_softmax(1).mean(0)
    assert torch.allclose(found["mean"][0], logs.softmax(0))
    assert torch.allclose(found["mean"][1], torch.tensor([1.0, 0.0, 0.0]).softmax(0))
    assert torch.allclose(found["vote"], torch.tensor([[2 / 3, 1 / 3, 0.0], [1.0, 0.0, 0.0]]))
    assert found["mean"][0].argmax() == 1 and found["vote"][0].argmax() == 0


def test_a_tie_of_votes_goes_to_the_lower_class():
    shares = votes(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.ones(1, 2, dtype=torch.bool))
    assert shares.tolist() == [[0.5, 0.5]] and shares.argmax(1).tolist() == [0]


# --- training -------------------------------------------------------------------------------------------------


def packets_of_classes(samples=24, width=64, seed=0):
    """Each class has a byte of its own; two packets of three are eligible, of the last session none."""
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.arange(samples) % 3)
    bytes_ = draw.integers(0, 60, (samples, 3, width), dtype=np.uint8)
    bytes_[:, :, 20:40] += (90 * labels).astype(np.uint8)[:, None, None]
    eligible = np.tile([True, False, True], (samples, 1))
    eligible[-1] = False
    return Part({"bytes": bytes_, "eligible": eligible}, labels)


@pytest.mark.parametrize(
    ("method", "values"),
    [
        (DeepPacket, {**SMALL, "epochs": 25}),
        (DeepPacket, {**SMALL, "epochs": 25, "aggregate": "vote", "balance": "keep", "batch_norm": False}),
        (DeepPacketSae, {**SMALL_SAE, "epochs": 30}),
        (DeepPacketSae, {**SMALL_SAE, "epochs": 30, "pretraining_epochs": 0}),
    ],
)
def test_it_learns_packets_and_abstains_where_there_are_none(method, values):
    part = packets_of_classes()
    probabilities = make(method, **values, learning_rate=3e-3).fit(part, part, Monitor()).predict_proba(part.inputs)
    assert np.isnan(probabilities[-1]).all()
    assert (probabilities[:-1].argmax(1) == part.labels[:-1]).mean() > 0.9


def test_only_training_packets_are_under_sampled():
    method, draw = make(DeepPacket), np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [50, 7, 20])
    rows = method.sample_rows(labels, draw)
    assert np.bincount(labels[rows]).tolist() == [21, 7, 20]  # at most three times the smallest class
    equal = make(DeepPacket, balance_ratio=1).sample_rows(labels, draw)
    assert np.bincount(labels[equal]).tolist() == [7, 7, 7]
    assert make(DeepPacket, balance="keep").sample_rows(labels, draw).tolist() == list(range(77))

    class Watching(DeepPacket):
        def _validate(self, part):
            self.validated = len(part)
            return super()._validate(part)

        def before_training(self, network, train, rows):
            self.trained = np.bincount(train.labels[rows]).tolist()

    packets = np.random.default_rng(1).integers(1, 256, (77, 3, 64), dtype=np.uint8)
    part = Part({"bytes": packets, "eligible": np.ones((77, 3), bool)}, labels)
    fit = make(Watching, **SMALL).fit(part, part, Monitor())
    assert fit.trained == [63, 21, 60] and fit.validated == 77  # three packets a session; validation is whole


# --- pre-training ---------------------------------------------------------------------------------------------


def pretrained(rows, part, seed=0, **values):
    method = make(DeepPacketSae, seed=seed, **SMALL_SAE | values)
    torch.manual_seed(5)
    network = method.network()
    before = {name: weights.clone() for name, weights in network.state_dict().items()}
    method.before_training(network, part, rows)
    return before, network.state_dict()


def one_packet_samples():
    part = packets_of_classes(40)
    return Part({k: v[:, :1] for k, v in part.inputs.items()}, part.labels)


def test_pretraining_moves_the_encoders_and_not_the_classifier():
    before, after = pretrained(np.arange(40), one_packet_samples())
    assert sorted(name for name in before if torch.equal(before[name], after[name])) == ["body.5.bias", "body.5.weight"]
    before, after = pretrained(np.arange(40), one_packet_samples(), pretraining_epochs=0)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_pretraining_sees_the_given_rows_alone_and_repeats_under_its_seed():
    part, rows = one_packet_samples(), np.arange(0, 40, 2)
    other = Part({**part.inputs, "bytes": part.inputs["bytes"].copy()}, part.labels[::-1])
    other.inputs["bytes"][1::2] ^= 255
    state = repr(np.random.get_state())  # noqa: NPY002
    first, second, reseeded = (pretrained(rows, p, seed)[1] for p, seed in ((part, 0), (other, 0), (part, 1)))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["body.0.0.weight"], reseeded["body.0.0.weight"])
    assert state == repr(np.random.get_state())  # noqa: NPY002


def test_each_layer_in_turn_learns_to_give_back_the_layer_below(monkeypatch):
    steps = []

    def recorded(given, wanted):
        loss = ((given - wanted) ** 2).mean()
        steps.append((wanted.shape[1], loss.item()))
        return loss

    monkeypatch.setattr("methods.deeppacket_sae.F.mse_loss", recorded)
    pretrained(np.arange(40), one_packet_samples(), pretraining_epochs=10)
    assert [width for width, _ in steps] == [w for w in (64, 400, 300, 200, 100) for _ in range(30)]  # 3 batches of 40
    for first in range(0, 150, 30):
        losses = [loss for _, loss in steps[first : first + 30]]
        assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])
