"""Every torch method under autocast, as on CUDA: here with the CPU's bfloat16, as far as that tells."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from bench.conformance import Case
from bench.method import take
from bench.runs import registry
from bench.training.recurrent import recurrent_in_float32

TORCH = sorted(name for name in registry.shipped() if registry.describe(name).family in {"deep", "graph"})


def mixed(self):
    return torch.autocast("cpu", torch.bfloat16)


def test_all_deep_methods_are_asked():
    assert len(TORCH) == 19


@pytest.mark.parametrize("name", TORCH)
def test_a_method_answers_and_trains_in_mixed_precision_with_recurrent_layers_in_float32(monkeypatch, folder, name):
    kind, seen = registry.load(name), set()
    case = Case(kind, folder)
    test, short = take(case.inputs, case.rows[2]), {"epochs": 1, "pretraining_epochs": 1}
    exact = case.probabilities
    for layer in (nn.LSTM, nn.GRU):
        known = layer.forward

        def watched(self, inputs, *more, known=known):
            seen.add((inputs.data.dtype, torch.is_autocast_enabled("cpu")))
            return known(self, inputs, *more)

        monkeypatch.setattr(layer, "forward", watched)
    monkeypatch.setattr(kind, "precision", mixed)
    np.testing.assert_allclose(case.fitted.predict_proba(test), exact, rtol=0, atol=0.1)
    fields = {field.name for field in dataclasses.fields(kind.Parameters)}
    method = case.make(preset={field: value for field, value in short.items() if field in fields})
    trained = case.fit(method, case.labels).predict_proba(test)
    assert np.isfinite(trained).all()
    assert seen == ({(torch.float32, False)} if _is_recurrent(method) else set())


def _is_recurrent(method):
    return any(isinstance(layer, nn.RNNBase) for layer in method.model.modules())


class Mixed(nn.Module):
    """A product under mixed precision, then a recurrent layer, with first states or packed on request."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.product, self.layer = nn.Linear(3, 3), kind(3, 4, batch_first=True, bidirectional=True)

    def forward(self, steps, packed=False, states=False):
        steps = self.product(steps)
        if packed:
            steps = nn.utils.rnn.pack_padded_sequence(steps, torch.tensor([3, 2]), batch_first=True)
        zero = steps.data.new_zeros(2, 2, 4)
        first = {"hx": (zero, zero) if isinstance(self.layer, nn.LSTM) else zero} if states else {}
        outputs, _ = self.layer(steps, **first)
        return outputs.data


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("how", [{}, {"packed": True}, {"states": True}])
def test_recurrent_layers_stay_out_of_mixed_precision(kind, how):
    network, seen = recurrent_in_float32(Mixed(kind)), []
    network.product.register_forward_hook(lambda *all: seen.append(all[-1].dtype))
    steps = torch.rand(2, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network(steps, **how)
        assert torch.is_autocast_enabled("cpu")  # on again for what follows
    assert seen == [torch.bfloat16] and mixed.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        product = network.product(steps).detach()
    network.product = nn.Identity()
    torch.testing.assert_close(mixed, network(product.float(), **how), rtol=0, atol=0)


def test_an_error_in_a_recurrent_layer_leaves_mixed_precision_on():
    network = recurrent_in_float32(Mixed(nn.LSTM))
    network.product = nn.Identity()
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(RuntimeError):
            network(torch.rand(2, 3, 5))
        assert torch.is_autocast_enabled("cpu")
