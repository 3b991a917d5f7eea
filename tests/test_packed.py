"""GRUs over packed sequences on the CPU against torch's own layer: outputs, last states and every gradient."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from bench.training import packed, products
from bench.training.packed import packed_gru

pytestmark = pytest.mark.usefixtures("torch_seeded")
LENGTHS = [[3, 7, 1, 7, 12, 5], [4, 4, 4], [1, 1], [9], [2, 5, 30, 5]]


def pack(lengths, inputs=5):
    """Values that take a gradient, and their packed sequence, not sorted by length."""
    values = torch.randn(len(lengths), max(lengths), inputs, requires_grad=True)
    return values, pack_padded_sequence(values, lengths, True, enforce_sorted=False)


def answers_and_gradients(run, layer, lengths, ask=(True, True)):
    """Outputs, last states and gradients of inputs and weights, of a loss of the outputs, the last states or both."""
    torch.manual_seed(3)
    values, sequence = pack(lengths)
    outputs, final = run(layer, sequence)
    layer.zero_grad()
    answers = [outputs.data, final]
    sum((one * torch.randn_like(one)).sum() for one, asked in zip(answers, ask, strict=True) if asked).backward()
    return [*(one.detach() for one in answers), values.grad, *(weights.grad for weights in layer.parameters())]


@pytest.mark.parametrize("path", ["oneDNN", "no oneDNN"])
@pytest.mark.parametrize("ask", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_outputs_last_states_and_gradients_are_torchs(monkeypatch, lengths, ask, path):
    monkeypatch.setattr(products, "BLOCK", 7)  # weights' gradients of several blocks
    if path == "no oneDNN":
        monkeypatch.setattr(products, "_onednn", None)
    monkeypatch.setattr(products, "is_large", lambda rows, _: rows.numel() > 0)
    layer = nn.GRU(5, 6, bidirectional=True)
    expected = answers_and_gradients(lambda layer, sequence: layer(sequence), layer, lengths, ask)
    found = answers_and_gradients(packed_gru, layer, lengths, ask)
    for one, two in zip(expected, found, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-5)


def test_a_sorted_sequence_is_taken():
    layer, values = nn.GRU(5, 6, bidirectional=True).eval(), torch.randn(3, 8, 5)
    sequence = pack_padded_sequence(values, [8, 4, 2], True)
    assert sequence.sorted_indices is None
    (expected, last), (found, final) = layer(sequence), packed_gru(layer, sequence)
    torch.testing.assert_close(found.data, expected.data, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(final, last, rtol=1e-5, atol=1e-6)


def test_gates_far_from_zero_saturate():
    layer, (values, sequence) = nn.GRU(5, 6, bidirectional=True), pack([6, 2, 4])
    for weights in layer.parameters():
        weights.data *= 300
    (expected, _), (found, _) = layer(sequence), packed_gru(layer, sequence)
    torch.testing.assert_close(found.data, expected.data, rtol=1e-5, atol=1e-5)
    found.data.sum().backward()
    assert values.grad.isfinite().all()


def test_two_passes_give_the_same_bits():
    layer = nn.GRU(5, 64, bidirectional=True)
    first, second = (answers_and_gradients(packed_gru, layer, LENGTHS[4]) for _ in range(2))
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def test_other_types_mixed_precision_and_answers_alone_stay_torchs(monkeypatch):
    def never(*_):
        raise AssertionError

    monkeypatch.setattr(packed, "product", never)
    layer, (_, sequence) = nn.GRU(5, 6, bidirectional=True), pack([3, 1])
    with torch.autocast("cpu", torch.bfloat16):
        packed_gru(layer, sequence)
    assert packed_gru(layer.double(), sequence.double())[1].dtype == torch.float64
    with torch.no_grad():  # of few sequences, torch's own takes half as long
        packed_gru(layer.float(), sequence)
    with pytest.raises(AssertionError):
        packed_gru(layer.float(), sequence)
