"""The states of an LSTM's last step, for which the backward direction reads one step, against torch's whole layer."""

import pytest
import torch
from torch import nn
from trained import lstm_in_bfloat16

from bench.training.recurrent import last_step

pytestmark = pytest.mark.usefixtures("torch_seeded")


def answers_and_gradients(read, layer, values):
    """States, and gradients of inputs and weights."""
    values.grad = None
    layer.zero_grad()
    states = read(layer, values)
    (states * torch.linspace(-1, 1, states.numel()).view(states.shape)).sum().backward()
    return [states.detach(), values.grad, *(weights.grad for weights in layer.parameters())]


@pytest.mark.parametrize(
    ("rows", "steps", "inputs", "hidden"), [(3, 5, 7, 6), (1, 1, 1, 1), (4, 1, 3, 8), (2, 30, 4, 5)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_states_and_every_gradient_are_those_of_the_whole_layer(rows, steps, inputs, hidden, dtype):
    layer = nn.LSTM(inputs, hidden, batch_first=True, bidirectional=True).to(dtype)
    values = torch.randn(rows, steps, inputs, dtype=dtype, requires_grad=True)
    expected = answers_and_gradients(lambda layer, values: layer(values)[0][:, -1], layer, values)
    found = answers_and_gradients(last_step, layer, values)
    for one, two in zip(expected, found, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-6)


def test_the_backward_direction_reads_the_last_step_alone(monkeypatch):
    layer, values, read, lstm = (
        nn.LSTM(2, 3, batch_first=True, bidirectional=True),
        torch.randn(4, 9, 2),
        [],
        torch.lstm,
    )
    monkeypatch.setattr(torch, "lstm", lambda values, *rest: (read.append(values), lstm(values, *rest))[1])
    assert last_step(layer, values).shape == (4, 6)
    assert len(read) == 2 and torch.equal(read[0], values) and torch.equal(read[1], values[:, -1:])


def test_evaluation():
    layer, values = nn.LSTM(2, 3, batch_first=True, bidirectional=True).eval(), torch.randn(4, 9, 2)
    with torch.inference_mode():
        expected = layer(values)[0][:, -1]
        torch.testing.assert_close(last_step(layer, values), expected)


def test_mixed_precision():
    lstm_in_bfloat16()
    layer, values = nn.LSTM(2, 3, batch_first=True, bidirectional=True).eval(), torch.randn(4, 9, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(last_step(layer, values), layer(values)[0][:, -1])
