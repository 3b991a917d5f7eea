"""LSTMs and GRUs under mixed precision."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


def recurrent_in_float32(network: nn.Module) -> nn.Module:
    """The network, its LSTMs and GRUs out of mixed precision from now on: they take and answer float32.

    Under autocast cuDNN runs them in float16 whatever the type that was asked for, where small gradients become 0.
    """
    enabled: list[tuple[str, bool]] = []

    def before(layer: nn.Module, inputs: Any, named: Any) -> Any:
        kind = next(layer.parameters()).device.type
        enabled.append((kind, torch.is_autocast_enabled(kind)))
        torch.set_autocast_enabled(kind, False)
        return _float32(inputs), {name: _float32(value) for name, value in named.items()}

    def after(*_: Any) -> None:
        torch.set_autocast_enabled(*enabled.pop())

    for layer in network.modules():
        if isinstance(layer, nn.RNNBase):
            layer.register_forward_pre_hook(before, with_kwargs=True)
            layer.register_forward_hook(after, always_call=True)
    return network


def _float32(value: Any) -> Any:
    """Tensors and packed sequences as float32, tuples of them too (first states), anything else as it is."""
    if isinstance(value, Tensor | PackedSequence):  # a packed sequence is a tuple, too
        return value.float()
    return tuple(map(_float32, value)) if isinstance(value, tuple) else value
