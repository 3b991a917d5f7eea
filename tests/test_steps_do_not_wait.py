"""No training step asks the device for a value: a GPU would have to be waited for.

Steps run on torch's meta device, which has shapes and no values, and so raises where one is asked for.  As on CUDA,
what is faster on the CPU alone is not taken.
"""

import contextlib

import numpy as np
import pytest
import torch

from bench.conformance import Case
from bench.method import Part, take
from bench.runs import registry
from bench.training.units import PacketMethod, aggregate_packets, eligible_rows, number_of, packets_of, samples_of

TORCH = sorted(name for name in registry.shipped() if registry.describe(name).family in {"deep", "graph"})


@pytest.fixture
def meta(monkeypatch):
    """The meta device knows no mixed precision, about which layers ask."""
    asked, told, autocast = torch.is_autocast_enabled, torch.set_autocast_enabled, torch.autocast
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *kind: kind != ("meta",) and asked(*kind))
    monkeypatch.setattr(torch, "set_autocast_enabled", lambda kind, on: None if kind == "meta" else told(kind, on))

    class Autocast(autocast):
        def __new__(cls, kind, *more, **named):
            return contextlib.nullcontext() if kind == "meta" else autocast(kind, *more, **named)

    monkeypatch.setattr(torch, "autocast", Autocast)
    return "meta"


def step(method, part, rows):
    """A step's gradients, as the loop asks for them."""
    tensors = method.batch(take(part.inputs, rows))
    told = method._backward(method.model.train(), tensors, method.to_device({"of": part.labels[rows]})["of"], None)
    assert set(told) == {"loss", "accuracy"} and told["loss"].device.type == method.device
    assert all(weights.grad is not None for weights in method.model.parameters() if weights.requires_grad)


def prepared(name, folder):
    """A method with a network, what it trains on, and rows of that."""
    case = Case(registry.load(name), folder)
    part = Part(take(case.inputs, case.rows[0]), case.labels[case.rows[0]])
    method = case.make()
    part = packets_of(part) if isinstance(method, PacketMethod) else part
    method.model = method._made()
    return method, part, np.flatnonzero(method.can_classify(part.inputs))[:6]


@pytest.mark.parametrize("name", TORCH)
def test_a_step_asks_the_device_for_nothing(name, folder, meta):
    method, part, rows = prepared(name, folder)
    step(method, part, rows)
    method.device = meta
    method.model.to(meta).zero_grad(set_to_none=True)
    step(method, part, rows)


@pytest.mark.parametrize("name", ["yatc", "netmamba"])  # et-bert's pairs of bursts are as long as their longest
def test_a_step_without_labels_asks_for_nothing_either(name, folder, meta):
    method, part, rows = prepared(name, folder)
    method.device = meta
    network = method.pretraining_network().to(meta).train()
    network(**method.batch(take(part.inputs, rows))).backward()
    assert any(weights.grad is not None for weights in network.parameters())


def test_what_asks_is_noticed(folder, meta, monkeypatch):
    method, part, rows = prepared("mlp-bytes", folder)
    method.device = meta
    method.model.to(meta)
    monkeypatch.setattr(type(method), "loss", lambda self, logits, labels: logits.sum() * logits.max().item())
    with pytest.raises(RuntimeError, match="meta"):
        step(method, part, rows)


def test_packets_of_samples_are_those_that_a_mask_marks():
    eligible = torch.tensor([[True, False, True], [False, True, False]])
    values = torch.arange(12).reshape(2, 3, 2)
    assert samples_of(eligible, 3).tolist() == [0, 0, 1] and number_of(eligible) == 3
    assert eligible_rows(values, eligible).tolist() == values[eligible].tolist()
    alone = torch.ones(2, 1, dtype=torch.bool)
    assert eligible_rows(values[:, :1], alone).tolist() == values[:, 0].tolist() and number_of(alone) == 2
    logits = torch.randn(3, 4)
    found = aggregate_packets(logits, eligible)
    torch.testing.assert_close(found[0], logits[:2].log_softmax(1).mean(0))
    torch.testing.assert_close(found[1], logits[2].log_softmax(0))
