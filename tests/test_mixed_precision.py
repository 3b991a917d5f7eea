"""Every torch method under autocast, as on CUDA: here with the CPU's bfloat16, as far as that tells."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from bench.conformance import Case
from bench.method import take
from bench.runs import registry

TORCH = sorted(name for name in registry.shipped() if registry.describe(name).family in {"deep", "graph"})


def mixed(self):
    return torch.autocast("cpu", torch.bfloat16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "conformance"  # shared with other files: the traffic is made once
    path.mkdir(exist_ok=True)
    return path


def test_all_deep_methods_are_asked():
    assert len(TORCH) == 14


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
