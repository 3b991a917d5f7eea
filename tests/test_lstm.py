"""LSTMs on the CPU against torch's own layer: states, gradients of inputs and weights, and a case worked by hand."""

import math

import pytest
import torch
from torch import nn
from trained import lstm_in_bfloat16

from bench.method import make_parameters
from bench.training import lstm, products
from bench.training.lstm import lstm_states
from methods.attlstm import Attlstm
from methods.cmtsnn import Cmtsnn

pytestmark = pytest.mark.usefixtures("torch_seeded")


def torchs(layer, values):
    return layer(values)[0]


def states_and_gradients(read, layer, values):
    """States, and gradients of inputs (where they take one) and weights."""
    torch.manual_seed(3)
    values.grad = None
    layer.zero_grad()
    states = read(layer, values)
    (states * torch.randn_like(states)).sum().backward()
    gradients = [weights.grad for weights in layer.parameters()]
    return [states.detach(), *gradients, *([values.grad] if values.requires_grad else [])]


@pytest.mark.parametrize("path", ["oneDNN", "no oneDNN"])
@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("rows", "steps"), [(3, 5), (4, 1), (1, 9), (20, 12)])
def test_states_and_every_gradient_are_torchs(monkeypatch, rows, steps, layers, bidirectional, asked, path):
    monkeypatch.setattr(products, "BLOCK", 7)  # weights' gradients of several blocks
    if path == "no oneDNN":
        monkeypatch.setattr(products, "_onednn", None)
    monkeypatch.setattr(products, "is_large", lambda rows, _: rows.numel() > 0)
    dropout = 0.3 if layers > 1 else 0.0
    layer = nn.LSTM(5, 6, layers, batch_first=True, bidirectional=bidirectional, dropout=dropout)
    values = torch.randn(rows, steps, 5, requires_grad=asked)
    expected, found = (states_and_gradients(read, layer, values) for read in (torchs, lstm_states))
    for one, two in zip(expected, found, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-5)


def test_two_steps_by_hand():
    layer = nn.LSTM(1, 1, batch_first=True)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.tensor([[1.0], [2.0], [3.0], [4.0]]))  # input, forget, cell and output gate
        layer.weight_hh_l0.copy_(torch.tensor([[0.5], [-1.0], [2.0], [1.0]]))
        layer.bias_ih_l0.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
        layer.bias_hh_l0.fill_(0.1)
    state, cell, expected = 0.0, 0.0, []
    for value in (0.5, -0.25):
        i, f, o = (1 / (1 + math.exp(-x)) for x in (
            value + 0.5 * state + 0.2, 2 * value - state + 0.3, 4 * value + state + 0.5
        ))  # fmt: skip
        cell = f * cell + i * math.tanh(3 * value + 2 * state + 0.4)
        state = o * math.tanh(cell)
        expected.append(state)
    assert lstm_states(layer, torch.tensor([[[0.5], [-0.25]]])).flatten().tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_of_a_scan_are_those_of_small_differences(monkeypatch, reverse):
    monkeypatch.setattr(products, "_onednn", None)  # it takes no double precision
    gates, weight = (torch.randn(*size, dtype=torch.double, requires_grad=True) for size in ((4, 3, 8), (8, 2)))
    scan = lambda gates, weight: lstm._Scan.apply(gates.clone(), weight, reverse)  # noqa: E731
    assert torch.autograd.gradcheck(scan, (gates, weight))


def test_gates_far_from_zero_saturate():
    layer, values = nn.LSTM(5, 6, batch_first=True, bidirectional=True), torch.randn(4, 7, 5, requires_grad=True)
    for weights in layer.parameters():
        weights.data *= 300
    found = lstm_states(layer, values)
    torch.testing.assert_close(found, torchs(layer, values), rtol=1e-5, atol=1e-5)
    found.sum().backward()
    assert values.grad.isfinite().all()


def test_two_passes_give_the_same_bits_and_evaluation_the_same_states():
    layer, values = nn.LSTM(9, 64, batch_first=True, bidirectional=True), torch.randn(40, 6, 9)
    first, second = (states_and_gradients(lstm_states, layer, values) for _ in range(2))
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))
    with torch.inference_mode():
        assert torch.equal(lstm_states(layer.eval(), values), first[0])


@pytest.fixture
def never_ours(monkeypatch):
    """Our own products are not called."""

    def never(*_):
        raise AssertionError

    monkeypatch.setattr(lstm, "padded_linear", never)


def test_mixed_precision_stays_torchs(never_ours):
    lstm_in_bfloat16()
    layer, values = nn.LSTM(5, 6, batch_first=True), torch.randn(2, 3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        lstm_states(layer, values)


def test_answers_of_few_sequences_stay_torchs(never_ours):
    layer = nn.LSTM(5, 6, batch_first=True)
    with torch.no_grad():
        lstm_states(layer, torch.randn(31, 3, 5))
        with pytest.raises(AssertionError):
            lstm_states(layer, torch.randn(32, 3, 5))
    with pytest.raises(AssertionError):
        lstm_states(layer, torch.randn(2, 3, 5))


def test_other_types_stay_torchs(never_ours):
    layer, values = nn.LSTM(5, 6, batch_first=True), torch.randn(2, 3, 5)
    assert lstm_states(layer.double(), values.double()).dtype == torch.float64
    with pytest.raises(AssertionError):
        lstm_states(layer.float(), values)


@pytest.mark.parametrize("kind", [Cmtsnn, Attlstm])
def test_methods_that_read_bytes_take_it(monkeypatch, kind):
    def never(*_):
        raise AssertionError

    network = kind(make_parameters(kind, dict(kind.tiny)), classes=3).network()
    monkeypatch.setattr(nn.LSTM, "forward", never)
    settings = make_parameters(kind, dict(kind.tiny))
    packets = torch.randint(256, (4, settings.packets, settings.bytes), dtype=torch.uint8)
    network(packets=packets).sum().backward()
    assert all(weights.grad is not None for weights in network.parameters())
