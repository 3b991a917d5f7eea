"""FS-Net: sizes, words against a loop, packed sequences against torch's own GRU, both losses."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from torch import nn
from torch.nn import functional as F

from bench.method import Monitor, Part, make_parameters
from bench.readers import View
from bench.schema import Samples
from methods.fsnet import END, PAD, START, FSNet

pytestmark = pytest.mark.usefixtures("torch_seeded")


def make(classes=12, **values):
    return FSNet(make_parameters(FSNet, values), classes=classes, seed=1)


def small(classes=3, **values):
    return make(classes, **{**FSNet.tiny, **values})


def parameters_of(*modules):
    return sum(weights.numel() for module in modules for weights in module.parameters())


def draw_words(sizes, width, vocabulary=1504):
    """Words of sessions with these numbers of packets: start, packets, end, padding."""
    words = torch.zeros(len(sizes), width, dtype=torch.int16)
    for row, size in zip(words, sizes, strict=True):
        row[0], row[size + 1] = START, END
        row[1 : size + 1] = torch.randint(3, vocabulary, (size,))
    return words


def answered(network, words):
    return network(words, (words != PAD).sum(1))


def view_of(make_store, sessions, counts=None):
    """A view of sessions given as lists of (length, direction, payload length)."""
    sizes = [len(session) for session in sessions]
    columns = zip(*[packet for session in sessions for packet in session], strict=True)
    packets = dict(zip(("length", "direction", "payload_length"), columns, strict=True))
    store = make_store({"packets": sizes, "first_packet": np.cumsum(sizes) - sizes}, packets)
    counts = np.full(len(sizes), 10**6) if counts is None else np.asarray(counts)
    return View(store, Samples(np.arange(len(sizes)), np.zeros(len(sizes), np.int64), counts), FSNet.reads)


# --- sizes ----------------------------------------------------------------------------------------------------


def test_parameter_counts_are_those_of_the_specification():
    network = make().network()
    assert parameters_of(network) == 2_295_276
    assert parameters_of(network.embedding) == 192_512
    assert parameters_of(network.encoder) == 494_592
    assert parameters_of(network.decoder) == 789_504
    assert parameters_of(network.words) == 259_680
    assert parameters_of(network.classifier) == 558_988
    assert parameters_of(make(head="plain").network()) == 2_001_772
    assert parameters_of(make(**FSNet.presets["code"]).network()) == 2_254_808


def test_preset_code_tells_a_frame_of_1500_bytes_from_one_of_1001(make_store):
    """The authors' own repository cuts lengths at 5000; later copies of it cut at 1000."""
    sessions = [[(1001, 1, 1), (1500, -1, 1), (2920, -1, 1), (9000, -1, 1)]]
    method = make(**FSNet.presets["code"])
    words = method.represent(view_of(make_store, sessions))["words"]
    assert words[0, 1:6].tolist() == [1004, 1503, 2923, 5003, END]
    assert method.parameters.vocabulary == 5004
    assert method.parameters.steps_an_epoch(100) == 5000


def test_the_embedding_begins_as_torchs_and_in_preset_code_as_tensorflows():
    rows = make(embedding=128).network().embedding.weight.norm(dim=1)
    assert rows.mean().item() == pytest.approx(128**0.5, rel=0.05)
    weight = make(**FSNet.presets["code"]).network().embedding.weight
    assert weight.abs().max().item() == pytest.approx((6 / (5004 + 16)) ** 0.5, rel=0.01)


@pytest.mark.parametrize("values", [{"head": "gate"}, {"alpha": -1.0}, {"dropout": 1.0}, {"layers": 0}])
def test_parameters_out_of_range_are_bad_input(values):
    with refused("bad-parameter", next(iter(values))):
        make(**values)


# --- words ----------------------------------------------------------------------------------------------------


def slow_words(session, p):
    kept = [packet for packet in session if packet[2] or not p.payload_only][: p.packets]
    words = [START]
    for length, direction, _ in kept:
        word = 3 + min(length, p.longest)
        words.append(word + p.longest if p.signed and direction < 0 and length else word)
    return [*words, END] + [PAD] * (p.packets - len(kept))


@settings(max_examples=50)
@given(
    seed=st.integers(0, 2**32),
    packets=st.integers(1, 12),
    longest=st.sampled_from([1000, 1500, 20_000]),
    signed=st.booleans(),
    payload_only=st.booleans(),
)
def test_words_are_those_of_a_loop(make_store, seed, **values):
    rng = np.random.default_rng(seed)
    lengths = (0, 40, 999, 1000, 1001, 1500, 65_535)
    sessions = [
        [(int(rng.choice(lengths)), int(rng.choice([-1, 1])), int(rng.integers(2))) for _ in range(rng.integers(1, 15))]
        for _ in range(6)
    ]
    method = make(**values)
    inputs = method.represent(view_of(make_store, sessions))
    slow = [slow_words(session, method.parameters) for session in sessions]
    assert inputs["words"].tolist() == slow
    assert inputs["words"].max() < method.parameters.vocabulary
    assert method.can_classify(inputs).tolist() == [words[1] != END for words in slow]


def test_a_session_without_a_packet_is_an_abstention(make_store):
    method = small(classes=2, payload_only=True, epochs=1)
    sessions = [[(40, 1, 0)], [(100, 1, 60), (40, -1, 0)], [(1500, -1, 1460)], []]
    inputs = method.represent(view_of(make_store, sessions))
    part = Part(inputs, np.array([0, 0, 1, 1]))
    probabilities = method.fit(part, part, Monitor()).predict_proba(inputs)
    assert np.isnan(probabilities).all(axis=1).tolist() == [True, False, False, True]


# --- network --------------------------------------------------------------------------------------------------


def test_the_stacked_gru_is_torchs_with_the_outputs_of_every_layer():
    network = make().network().eval()
    literal = nn.GRU(128, 128, 2, batch_first=True, bidirectional=True)
    mine = network.encoder.layers[0].state_dict() | {
        name.replace("_l0", "_l1"): values for name, values in network.encoder.layers[1].state_dict().items()
    }
    literal.load_state_dict(mine)
    words = draw_words([7], 9).int()
    embedded = network.embedding(words)
    packed = nn.utils.rnn.pack_padded_sequence(embedded, [9], batch_first=True)
    outputs, states = network.encoder(packed)
    expected, final = literal(embedded)
    assert outputs.shape == (9, 512)
    assert torch.allclose(outputs[:, 256:], expected[0], atol=1e-6)
    assert torch.allclose(states, final.transpose(0, 1).flatten(1), atol=1e-6)  # of all layers and directions


@pytest.mark.parametrize("head", ["product", "plain"])
def test_padding_reaches_neither_states_nor_answers(head):
    network = small(head=head).network().eval()
    sizes = [1, 8, 3, 5]
    words = draw_words(sizes, 10)
    together = answered(network, words)
    for row, size in enumerate(sizes):
        assert torch.allclose(answered(network, words[row : row + 1, : size + 2]), together[row : row + 1], atol=1e-6)
    network.embedding.weight.data[PAD] = 1e3
    assert torch.equal(answered(network, words), together)


def test_reconstruction_is_the_masked_cross_entropy_of_every_word():
    network = small(dropout=0.0).network()
    words = draw_words([1, 8, 3], 10)
    answered(network, words)
    mask = words != PAD
    losses = []
    for row, size in zip(words, mask.sum(1).tolist(), strict=True):  # one sequence at a time, nothing to pad

        def packed(data, size=size):
            return nn.utils.rnn.pack_padded_sequence(data[None], [size], batch_first=True)

        _, states = network.encoder(packed(network.embedding(row[:size].int())))
        outputs, _ = network.decoder(packed(states.expand(size, -1)))
        losses.append(F.cross_entropy(network.words(outputs), row[:size].long(), reduction="sum"))
    assert torch.allclose(network.reconstruction, sum(losses) / mask.sum(), atol=1e-5)
    assert network.diagnostics() == {"reconstruction_loss": pytest.approx(network.reconstruction.item())}
    answered(network.eval(), words)
    assert network.reconstruction is None and network.diagnostics() == {}


def test_the_loss_adds_alpha_times_the_reconstruction():
    labels = torch.tensor([0, 1, 2])
    for alpha in (0.0, 0.5, 1.0):
        method = small(alpha=alpha)
        method.model = method.network()
        logits = answered(method.model, draw_words([1, 8, 3], 10))
        expected = F.cross_entropy(logits, labels) + alpha * method.model.reconstruction
        assert torch.allclose(method.loss(logits, labels), expected)


def test_the_product_head_sees_states_their_product_and_their_difference():
    network = small().network().eval()
    seen = []
    network.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    answered(network, draw_words([4, 6], 10))
    encoded, decoded, product, difference = seen[0].chunk(4, dim=1)
    assert torch.equal(product, encoded * decoded)
    assert torch.equal(difference, (encoded - decoded).abs())


@pytest.mark.parametrize("values", [{"layers": 1}, {"layers": 3, "head": "plain"}, {"signed": True, "longest": 100}])
def test_further_flags_change_the_network(values):
    method = small(**values)
    words = draw_words([2, 8], 10, method.parameters.vocabulary)
    assert answered(method.network(), words).shape == (2, 3)
    default = small()
    shapes = [{name: tuple(p.shape) for name, p in one.network().named_parameters()} for one in (method, default)]
    assert shapes[0] != shapes[1]


class Curve(Monitor):
    def __init__(self):
        self.steps = []

    def log(self, step, **values):
        self.steps.append(values)


def test_it_learns_classes_and_words():
    method, curve = small(classes=2, epochs=12), Curve()
    labels = np.arange(40) % 2
    words = np.tile(np.array([START, 43, 1503, 0, 0, 0, 0, 0, 0, 0], np.int16), (40, 1))
    words[labels == 1, 2:4] = 103, 603
    words[np.arange(40), (words != PAD).sum(1)] = END
    part = Part({"words": words}, labels)
    method.fit(part, part, curve)
    assert (method.predict_proba(part.inputs).argmax(1) == labels).all()
    assert curve.steps[-1]["reconstruction_loss"] < 0.5 * curve.steps[0]["reconstruction_loss"]


def test_on_the_cpu_no_layer_runs_torchs_gru(monkeypatch):
    monkeypatch.setattr(nn.GRU, "forward", None)
    assert answered(small().network(), draw_words([4, 8], 10)).shape == (2, 3)
