"""How layers begin where a paper's framework begins them otherwise than torch."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def begin(network: nn.Module, draw: Callable[[Tensor], Any]) -> nn.Module:
    """The network, weights ``[...]`` of its linear and convolutional layers by ``draw`` (of `nn.init`), biases 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
            draw(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network
