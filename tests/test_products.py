"""Linear layers by oneDNN: the same numbers and gradients as torch's, in every shape that layers have."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench.training import products
from bench.training.products import Linear, by_onednn, linear, padded_linear

needs_onednn = pytest.mark.skipif(products.onednn_product() is None, reason="torch has no oneDNN product here")


def test_a_private_operator_that_answers_otherwise_is_not_used(monkeypatch):
    def raising(*_):
        raise RuntimeError("another signature")

    for operator in (raising, lambda rows, weight, *_: rows @ weight.T + 1, None):
        monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", operator)
        assert products.onednn_product() is None
    monkeypatch.undo()
    assert products.onednn_product() is not None or not torch.backends.mkldnn.is_available()


@pytest.fixture
def every_size(monkeypatch):
    """Products of any size go through oneDNN, their weights' gradients in several blocks."""
    monkeypatch.setattr(products, "is_large", lambda rows, _: rows.numel() > 0)
    monkeypatch.setattr(products, "BLOCK", 7)


@pytest.mark.usefixtures("torch_seeded", "every_size")
@pytest.mark.parametrize("shape", [(1, 5), (40, 5), (3, 4, 5), (2, 3, 2, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_answers_and_gradients_are_torchs_own(shape, bias):
    layer, rows = nn.Linear(5, 3, bias=bias), torch.randn(shape, requires_grad=True)
    above = torch.randn(*shape[:-1], 3)
    found = []
    for answer in (lambda: layer(rows), lambda: linear(rows, layer.weight, layer.bias)):
        layer.zero_grad()
        rows.grad = None
        result = answer()
        result.backward(above)
        found.append([result.detach(), rows.grad, *(weights.grad for weights in layer.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@needs_onednn
@pytest.mark.usefixtures("torch_seeded", "every_size")
def test_parts_and_transposed_inputs_are_taken(monkeypatch):
    calls = []
    monkeypatch.setattr(
        products, "product", lambda *given, product=products.product: calls.append(1) or product(*given)
    )
    weight, rows = torch.randn(4, 9)[:, 2:7], torch.randn(5, 6).T
    torch.testing.assert_close(linear(rows, weight), F.linear(rows, weight), rtol=1e-5, atol=1e-6)
    assert calls


@needs_onednn
@pytest.mark.usefixtures("torch_seeded")
def test_small_steps_of_recurrent_layers_stay_torchs(monkeypatch):
    asked = []
    monkeypatch.setattr(products, "_onednn", lambda *given: asked.append(len(given[0])) or given[0] @ given[1].T)
    for rows in (16, 128, 0):
        assert products.product(torch.randn(rows, 128), torch.randn(384, 128)).shape == (rows, 384)
    assert asked == [128]


@needs_onednn
@pytest.mark.usefixtures("torch_seeded")
def test_small_products_and_other_types_stay_torchs(monkeypatch):
    def never(*_):
        raise AssertionError

    monkeypatch.setattr(products, "product", never)
    assert linear(torch.randn(3, 5), torch.randn(2, 5)).shape == (3, 2)
    large = torch.randn(2048, 64, dtype=torch.float64)
    assert linear(large, torch.randn(64, 64, dtype=torch.float64)).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(large.float(), torch.randn(64, 64)).dtype == torch.bfloat16
    with pytest.raises(AssertionError):
        linear(large.float(), torch.randn(64, 64))


@pytest.mark.usefixtures("torch_seeded", "every_size")
def test_a_network_keeps_its_names_weights_and_answers():
    network = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    rows, state = torch.randn(3, 5), {name: values.clone() for name, values in network.state_dict().items()}
    expected = network(rows)
    assert by_onednn(network) is network and all(type(layer) is Linear for layer in (network[0], network[2]))
    assert network.state_dict().keys() == state.keys()
    assert all(np.array_equal(network.state_dict()[name], values) for name, values in state.items())
    torch.testing.assert_close(network(rows), expected, rtol=1e-5, atol=1e-6)


@needs_onednn
@pytest.mark.usefixtures("torch_seeded", "every_size")
def test_two_passes_give_the_same_bits():
    layer, rows = by_onednn(nn.Linear(64, 64)), torch.randn(500, 64)
    gradients = []
    for _ in range(2):
        layer.zero_grad()
        layer(rows).square().sum().backward()
        gradients.append(layer.weight.grad.clone())
    assert torch.equal(*gradients)


def zero_behind(lengths, inputs):
    return torch.randn(len(lengths), inputs) * (torch.arange(inputs) < torch.tensor(lengths)[:, None])


@pytest.mark.parametrize("path", ["oneDNN", "no oneDNN"])
@pytest.mark.parametrize(
    "lengths", [[3, 0, 7, 7, 1, 5, 2, 4, 6, 0, 3, 7], [0, 0, 0], [7] * 20, [2], [5, 4] * 9], ids=len
)
@pytest.mark.usefixtures("torch_seeded")
def test_rows_that_end_in_zeros_give_what_whole_rows_do(monkeypatch, lengths, path):
    if path == "no oneDNN":
        monkeypatch.setattr(products, "_onednn", None)
    layer, rows, above = nn.Linear(7, 4), zero_behind(lengths, 7), torch.randn(len(lengths), 4)
    answers = []
    for product in (F.linear, padded_linear):
        layer.zero_grad()
        made = product(rows, layer.weight, layer.bias)
        made.backward(above)
        answers.append([made, layer.weight.grad, layer.bias.grad])
    for one, two in zip(*answers, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("torch_seeded")
def test_zeros_behind_rows_are_not_multiplied(monkeypatch):
    sizes, product = [], products.product
    monkeypatch.setattr(
        products, "product", lambda rows, weight, *bias: (sizes.append(rows.numel()), product(rows, weight, *bias))[1]
    )
    rows = zero_behind([100] * 10 + [10] * 70, 100)
    padded_linear(rows.view(8, 10, 100), torch.randn(5, 100), torch.zeros(5))
    assert sum(sizes) == int((rows != 0).sum()) == 1700
