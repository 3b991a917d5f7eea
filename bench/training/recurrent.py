"""LSTMs and GRUs under mixed precision, and LSTMs of which one step's states are asked for."""

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


def last_step(lstm: nn.LSTM, values: Tensor) -> Tensor:
    """As ``lstm(values)[0][:, -1]`` of one bidirectional layer with biases, batch first: ``[N, 2 * hidden]``.

    ``values`` are ``[N, steps, inputs]``.  On the CPU the backward direction reads the last step alone, which is the
    first one that it comes to; on a GPU, where a layer is one call, it is torch's own.
    """
    if values.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        result: Tensor = lstm(values)[0][:, -1]
        return result
    zero = values.new_zeros(1, len(values), lstm.hidden_size)

    def end(read: Tensor, suffix: str) -> Tensor:
        weights = [getattr(lstm, name + suffix) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        states: Tensor = torch.lstm(read, (zero, zero), weights, True, 1, 0.0, lstm.training, False, True)[0]
        return states[:, -1]

    return torch.cat([end(values, "_l0"), end(values[:, -1:], "_l0_reverse")], 1)


def _float32(value: Any) -> Any:
    """Tensors and packed sequences as float32, tuples of them too (first states), anything else as it is."""
    if isinstance(value, Tensor | PackedSequence):  # a packed sequence is a tuple, too
        return value.float()
    return tuple(map(_float32, value)) if isinstance(value, tuple) else value
