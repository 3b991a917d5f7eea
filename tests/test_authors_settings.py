"""Settings of the authors that no other test holds: each with its source."""

import pytest
import torch

from bench.method import make_parameters
from bench.runs import registry
from methods.han import initialise


@pytest.mark.parametrize(
    ("name", "parameter", "value"),
    [
        ("atvitsc", "warmup", 0.1),  # Table I
        ("mini-flowpic", "patience", 5),  # the replication of 2023
        ("flowpic", "epochs", 40),  # the authors' code
    ],
)
def test_defaults(name, parameter, value):
    kind = registry.load(name)
    assert getattr(make_parameters(kind, {}), parameter) == value


def test_fsnet_clips_gradients_as_its_authors_do():
    assert registry.load("fsnet").clip_norm == 5.0  # main.py: grad_clip


def test_atvitsc_drops_out_behind_attention():
    kind = registry.load("atvitsc")
    network = kind(make_parameters(kind, {}), classes=3, seed=1).network().train()
    layer = network.get_submodule("pvt.encoder.0")
    found = {name: one.p for name, one in layer.named_modules() if isinstance(one, torch.nn.Dropout)}
    assert found and set(found.values()) == {0.1}, found


def test_han_begins_with_open_forget_gates():
    torch.manual_seed(0)
    plain, ours = torch.nn.LSTM(3, 4), torch.nn.LSTM(3, 4)
    ours.load_state_dict(plain.state_dict())
    initialise(ours)
    difference = ours.bias_ih_l0 - plain.bias_ih_l0
    assert difference.chunk(4)[1].tolist() == pytest.approx([1] * 4)  # torch has them second
    assert not any(difference.chunk(4)[gate].any() for gate in (0, 2, 3))
