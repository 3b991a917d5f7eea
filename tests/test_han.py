"""HAN and the attention-based LSTM of the same paper: sizes, attention, the loss, what the short cut may not change."""

import numpy as np
import pytest
import torch
from refusals import refused
from torch.nn import functional as F

from bench.method import Monitor, Part, make_parameters
from bench.readers import UndeclaredRead, View
from bench.schema import Samples
from bench.training import long_sequences, products
from bench.training.balance import class_weights
from methods import attlstm, han
from methods.attlstm import Attlstm
from methods.han import Attention, ByteReader, Han, Reader, one_sided_regression

pytestmark = pytest.mark.usefixtures("torch_seeded")
METHODS = pytest.mark.parametrize("method", [Han, Attlstm], ids=lambda m: m.name)


def make(method, classes=12, **values):
    return method(make_parameters(method, values), classes=classes)


def small(method, classes=3, **values):
    sizes = {"packets": 4, "bytes": 12, "hidden": 8, "epochs": 2, "batch_size": 8, "learning_rate": 1e-2}
    return make(method, classes, **sizes | values)


def traffic(samples=6, packets=4, bytes=12, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (samples, packets, bytes), dtype=np.uint8)


def answered(network, packets):
    """Logits of packets ``[samples, packets, bytes]``, handed over as a batch is."""
    if not isinstance(network, han.Network):
        return network(packets)
    return network(**{name: torch.from_numpy(values) for name, values in han.distinct(packets.numpy()).items()})


def parameters_of(module):
    return sum(weights.numel() for weights in module.parameters())


def test_parameter_counts_are_those_of_the_specification():
    assert parameters_of(make(Han).network()) == 695_948
    assert parameters_of(make(Attlstm).network()) == 1_349_276
    assert parameters_of(make(Attlstm, attention=100).network()) == 1_329_076


@METHODS
@pytest.mark.parametrize("packets", [1, 10, 16])
def test_every_size_gives_logits(method, packets):
    network = small(method, packets=packets, attention=5).network()
    assert answered(network, torch.from_numpy(traffic(3, packets))).shape == (3, 3)


@METHODS
@pytest.mark.parametrize(
    "values", [{"packets": 0}, {"bytes": 0}, {"hidden": 0}, {"attention": 0}, {"dropout": 1.0}, {"loss": "costs"}]
)
def test_parameters_out_of_range_are_bad_input(method, values):
    with refused("bad-parameter", next(iter(values))):
        make(method, **values)


def test_attention_is_that_of_the_equations():
    attention = Attention(6, 5)
    states = torch.randn(2, 4, 6)
    u_s, project = attention.context.weight[0], attention.project
    for row, found in zip(states, attention(states), strict=True):
        u = [torch.tanh(project.weight @ h + project.bias) for h in row]
        alpha = torch.stack([u_i @ u_s for u_i in u]).softmax(0)
        assert torch.allclose(found, sum(a * h for a, h in zip(alpha, row, strict=True)), atol=1e-6)


def test_han_reads_every_packet_by_itself():
    network = small(Han).network().eval()
    packets = torch.from_numpy(traffic(3))
    packets[0, 2:] = packets[1, 1] = 0  # padding, and an empty packet between two others
    vectors = torch.stack(
        [network.over_bytes(packets[:, p, :, None].float() / 255) for p in range(packets.shape[1])], dim=1
    )
    assert torch.allclose(answered(network, packets), network.head(network.over_packets(vectors)), atol=1e-6)


def test_the_empty_packet_is_the_first_row_and_the_place_of_all_padding():
    packets = np.zeros((2, 3, 2), np.uint8)
    packets[0, 0], packets[0, 2], packets[1, 1] = (7, 0), (0, 8), (9, 9)
    found = han.distinct(packets)
    assert found["packets"].tolist() == [[0, 0], [7, 0], [0, 8], [9, 9]]
    assert found["place"].tolist() == [[1, 0, 2], [0, 3, 0]]


def test_reading_empty_packets_once_leaves_gradients_alone():
    network = small(Han, dropout=0.0).network()
    packets = torch.from_numpy(traffic(4))
    packets[:3, 1:] = 0
    gradients = []
    for short in (True, False):
        network.zero_grad()
        vectors = network.over_bytes(packets.flatten(0, 1)[..., None].float() / 255).unflatten(0, (4, 4))
        logits = answered(network, packets) if short else network.classify(vectors)
        F.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
        gradients.append([weights.grad.clone() for weights in network.parameters()])
    assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(*gradients, strict=True))


def padded(samples=5, packets=4, bytes=30):
    """Packets of all lengths, with zeros inside; one is full, one ends with its first byte, two are equal."""
    values = torch.from_numpy(traffic(samples, packets, bytes, seed=3))
    ends = torch.from_numpy(np.random.default_rng(4).integers(0, bytes + 1, (samples, packets, 1)))
    ends[0, :3, 0] = torch.tensor([bytes, 1, 0])
    values[..., 5] = 0
    values[1, 0], ends[1, 0] = values[1, 1], ends[1, 1]
    return values * (torch.arange(bytes) < ends)


def plainly(network, packets):
    """Logits by torch's own layers, every packet of its full length, padding included."""
    vectors = Reader.forward(network.over_bytes, packets.flatten(0, 1)[..., None].float() / 255)
    return network.classify(vectors.unflatten(0, packets.shape[:2]))


def answer_and_gradients(network, logits):
    network.zero_grad()
    F.cross_entropy(logits, torch.arange(len(logits)) % 3).backward()
    return [logits.detach(), *(weights.grad.clone() for weights in network.parameters())]


@pytest.mark.parametrize("path", ["few", "oneDNN", "no oneDNN", "chunks"])
@pytest.mark.parametrize("packets", [padded(), padded() | 1, torch.zeros(3, 2, 30, dtype=torch.uint8)])
def test_reading_in_chunks_is_torchs_own_lstm_and_attention(monkeypatch, path, packets):
    monkeypatch.setattr(han, "CHUNK", 6)  # several chunks, and several blocks of steps each
    monkeypatch.setattr(long_sequences, "BLOCK", 20)
    if path != "few":
        monkeypatch.setattr(han, "FEW", 0)
    if path == "no oneDNN":
        monkeypatch.setattr(products, "_onednn", None)
    monkeypatch.setattr(products, "is_large", lambda rows, _: rows.numel() > 0)
    if path == "chunks":  # as on CUDA
        monkeypatch.setattr(ByteReader, "on_cpu", ByteReader.in_chunks)
    network = small(Han, bytes=30, dropout=0.0, attention=5).network()
    expected = answer_and_gradients(network, plainly(network, packets))
    found = answer_and_gradients(network, answered(network, packets))
    for one, two in zip(expected, found, strict=True):
        assert (one - two).norm() <= 1e-4 * one.norm() + 1e-7
    with torch.inference_mode():
        torch.testing.assert_close(answered(network, packets), found[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("few", [0, 1 << 20])
def test_two_passes_give_the_same_bits(monkeypatch, few):
    monkeypatch.setattr(han, "FEW", few)
    network, packets = small(Han, bytes=30, dropout=0.0).network(), padded()
    first, second = (answer_and_gradients(network, answered(network, packets)) for _ in range(2))
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


@pytest.mark.parametrize("few", [0, 1 << 20])
def test_the_byte_level_stays_out_of_mixed_precision(monkeypatch, few):
    monkeypatch.setattr(han, "FEW", few)
    network, steps = small(Han).network(), padded().flatten(0, 1)[..., None] / 255
    exact = network.over_bytes(steps)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network.over_bytes(steps), exact)


def kept_for_the_gradient(read, steps):
    """Float32 values that autograd keeps a byte read; storages that are shared count once."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = (tensor, tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        assert read(steps).requires_grad
    return sum(size for _, size in kept.values()) / 4 / steps.numel()


def test_what_is_kept_for_the_gradient_is_bounded():
    """On the CPU states and cells of both directions, four a hidden unit, and a little; elsewhere next to nothing."""
    reader, steps = small(Han, hidden=32).network().over_bytes, torch.rand(40, 100, 1)
    assert kept_for_the_gradient(lambda steps: Reader.forward(reader, steps), steps) > 9 * 32
    assert kept_for_the_gradient(reader.on_cpu, steps) < 5 * 32
    assert kept_for_the_gradient(reader.in_chunks, steps) < 32


@METHODS
def test_sessions_that_are_all_padding_or_all_packets_are_taken(method):
    network = small(method).network().eval()
    full = torch.from_numpy(traffic(2) | 1)
    for packets in (full, torch.zeros_like(full)):
        assert answered(network, packets).isfinite().all()


def test_attlstm_takes_a_packet_a_step():
    network = small(Attlstm).network().eval()
    packets = torch.from_numpy(traffic(2))
    states = network.over_packets.lstm(packets / 255)[0]
    assert states.shape == (2, 4, 16)
    assert torch.allclose(answered(network, packets), network.head(network.over_packets.attention(states)), atol=1e-6)


def test_one_sided_regression_by_hand():
    costs, weights = torch.tensor([[0.5, -1.0, 2.0], [0.0, 3.0, 1.0]]), torch.tensor([4.0, 2.0, 1.0])
    expected = 0.0
    for row, true in zip(costs.tolist(), (2, 0), strict=True):
        for k, r in enumerate(row):
            z, c = (1, 0.0) if k == true else (-1, float(weights[true]))
            expected += np.log1p(np.exp(z * (r - c)))
    found = one_sided_regression(costs, torch.tensor([2, 0]), weights)
    assert found.item() == pytest.approx(expected / 2, rel=1e-6)


def part(labels):
    """Classes that differ in every byte of every packet."""
    labels = np.asarray(labels)
    packets = traffic(len(labels)) // 8
    return Part({"packets": (packets + 70 * labels[:, None, None]).astype(np.uint8)}, labels)


@METHODS
@pytest.mark.parametrize("loss", ["ce", "weighted_ce", "sosr"])
def test_every_loss_learns_and_an_absent_class_does_no_harm(method, loss):
    train = part(np.arange(40) % 2)  # class 2 is absent
    fitted = small(method, loss=loss, epochs=25, learning_rate=2e-2, batch_size=40).fit(train, train, Monitor())
    probabilities = fitted.predict_proba(train.inputs)
    assert np.isfinite(probabilities).all()
    assert (probabilities.argmax(1) == train.labels).mean() > 0.9


@METHODS
def test_weights_come_from_the_training_rows_alone_and_are_saved(method, tmp_path):
    labels = np.array([0] * 30 + [1] * 2)
    fitted = small(method).fit(part(labels), part(np.ones(8, int)), Monitor())
    weights = fitted.model.weights
    assert torch.allclose(weights, class_weights(labels, 3, 10.0))
    assert weights.tolist() == pytest.approx([32 / 90, 32 / 6, 0.0])
    fitted.save(tmp_path)
    assert torch.equal(method.load(tmp_path).model.weights, weights)
    plain = small(method, loss="ce").fit(part(labels), part(labels), Monitor())
    assert plain.model.weights.tolist() == [1, 1, 1]


def test_a_rare_class_weighs_ten_at_most():
    labels = np.array([0] * 200 + [1])
    method = small(Han)
    network = method.network()
    method.before_training(network, Part({}, labels), np.arange(201))
    assert network.weights[1] == 10


def test_the_least_cost_is_the_answer_of_sosr():
    method = small(Attlstm, loss="sosr")
    method.model = method.network()
    costs = -method.model.eval()(torch.from_numpy(traffic()))
    assert (method.predict_proba({"packets": traffic()}).argmax(1) == costs.argmin(1).numpy()).all()


@METHODS
@pytest.mark.parametrize("mask_ports", [False, True])
def test_represent_hides_addresses_checksums_and_on_demand_ports(method, mask_ports, make_store):
    """Against IPv4 and TCP headers zeroed by hand."""
    draw = np.random.default_rng(1)
    header = bytearray(draw.integers(1, 256, 45, dtype=np.uint8).tobytes())
    header[0], header[9], header[32] = 0x45, 6, 0x50
    store = make_store(
        {"packets": [2], "first_packet": [0], "protocol": [6]},
        {"record": [0, 0], "ip": [3, 3], "captured": [45, 30], "length": [45, 45], "payload": [40, 40]},
        captures=[b"xyz" + header],
    )
    view = View(store, Samples(np.array([0]), np.array([0]), np.array([2])), method.reads)
    found = small(method, packets=3, bytes=48, mask_ports=mask_ports).represent(view)["packets"]
    expected = np.zeros((3, 48), np.uint8)
    expected[0, :45] = np.frombuffer(header, np.uint8)
    for begin, end in [(10, 12), (12, 20), (36, 38), *([(20, 24)] if mask_ports else [])]:
        expected[0, begin:end] = 0
    expected[1, :30] = expected[0, :30]
    assert found.dtype == np.uint8 and np.array_equal(found[0], expected)
    assert view.used == {"ip_bytes"} | (set() if mask_ports else {"ports"})


def test_the_common_budget_reads_no_port(make_store):
    store = make_store({"packets": [0]}, {"record": np.zeros(0)}, captures=[b""])
    view = View(store, Samples(np.array([0]), np.array([0]), np.array([0])), {"ip_bytes"})
    for method in (Han, Attlstm):
        make(method, **method.presets["shared"]).represent(view)
        with pytest.raises(UndeclaredRead, match="ports"):
            make(method).represent(view)


def test_the_sibling_differs_in_name_size_and_network_alone():
    assert Attlstm.presets == Han.presets and set(Attlstm.deviations) < set(Han.deviations)
    assert attlstm.Parameters().hidden == 100 and han.Parameters().hidden == 128


def test_a_lone_byte_is_heard_from_the_start():
    """The spread of packet vectors, several times that under torch's own starting weights."""
    network = make(Han).network()
    lstm = network.over_bytes.lstm
    assert lstm.weight_ih_l0.abs().max() > 0.9 and lstm.weight_hh_l0_reverse.shape == (512, 128)
    for gate in lstm.weight_hh_l0_reverse.chunk(4):
        assert torch.allclose(gate @ gate.T, torch.eye(128), atol=1e-5)
    steps = torch.rand(20, 30, 1)
    ours = network.over_bytes(steps).std(0).mean()
    lstm.reset_parameters()
    assert ours > 5 * network.over_bytes(steps).std(0).mean()
