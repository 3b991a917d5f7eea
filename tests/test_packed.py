"""GRUs over packed sequences: outputs, last states and gradients are those of torch's own layer."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from bench.training import packed
from bench.training.packed import packed_gru

SIZES = ([3, 7, 1, 7, 5], [4, 4, 4], [1], [9, 1, 1])


def answers(read, layer, inputs, sizes):
    """Outputs, last states, and the gradients of all weights and of the inputs for a loss that looks at both."""
    layer.zero_grad()
    given = inputs.clone().requires_grad_()
    outputs, final = read(pack_padded_sequence(given, torch.tensor(sizes), True, enforce_sorted=False))
    draw = torch.Generator().manual_seed(3)
    weights = [torch.randn(values.shape, generator=draw) for values in (outputs.data, final)]
    ((outputs.data * weights[0]).sum() + (final * weights[1]).sum()).backward()
    gradients = [values.grad.clone() for values in layer.parameters()]
    return [outputs.data.detach(), final.detach(), given.grad, *gradients]


@pytest.mark.usefixtures("torch_seeded")
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("block", [2048, 3])
def test_it_is_torch_s_own_layer(sizes, block, monkeypatch):
    monkeypatch.setattr("bench.training.products.BLOCK", block)
    layer, inputs = nn.GRU(6, 5, bidirectional=True), torch.randn(len(sizes), max(sizes), 6)
    expected = answers(layer, layer, inputs, sizes)
    found = answers(lambda sequence: packed_gru(layer, sequence), layer, inputs, sizes)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("torch_seeded")
@pytest.mark.parametrize("looked_at", ["outputs", "final"])
def test_a_loss_may_look_at_one_of_the_two(looked_at):
    sizes = SIZES[0]
    layer, inputs = nn.GRU(6, 5, bidirectional=True), torch.randn(5, 7, 6)
    gradients = []
    for read in (layer, lambda sequence: packed_gru(layer, sequence)):
        layer.zero_grad()
        outputs, final = read(pack_padded_sequence(inputs, torch.tensor(sizes), True, enforce_sorted=False))
        (outputs.data if looked_at == "outputs" else final).square().sum().backward()
        gradients.append([values.grad.clone() for values in layer.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("torch_seeded")
def test_two_passes_give_the_same_bits():
    layer, inputs = nn.GRU(6, 5, bidirectional=True), torch.randn(5, 7, 6)
    first, second = (answers(lambda sequence: packed_gru(layer, sequence), layer, inputs, SIZES[0]) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.usefixtures("torch_seeded")
def test_other_types_and_mixed_precision_stay_torch_s(monkeypatch):
    def never(*_):
        raise AssertionError

    monkeypatch.setattr(packed._Scan, "apply", never)
    layer, sequence = (
        nn.GRU(6, 5, bidirectional=True),
        pack_padded_sequence(torch.randn(3, 4, 6), torch.tensor([4, 2, 1]), True),
    )
    assert packed_gru(layer.double(), sequence._replace(data=sequence.data.double()))[0].data.dtype == torch.float64
    with pytest.raises(AssertionError):
        packed_gru(layer.float(), sequence)
