"""A multi-layer perceptron on a session's first payload bytes: what a deep method on bytes has to beat."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.method import COUNT, POSITIVE, SHARE, Inputs, Range, parameter
from bench.readers import View
from bench.training.budget import SHARED, TrainingParameters
from bench.training.loop import TorchMethod

OURS = "our choice"


@dataclass(frozen=True)
class Parameters(TrainingParameters):
    """All our choice."""

    bytes: int = parameter(
        784, "payload bytes of a session, packet after packet", OURS, (256, 784, 1600), allowed=COUNT
    )
    packets: int | None = parameter(
        None, "packets with payload that the bytes come from; none: as many as needed", OURS, allowed=COUNT
    )
    hidden: int = parameter(256, "features of each of the two hidden layers", OURS, (64, 128, 256, 512), allowed=COUNT)
    dropout: float = parameter(0.3, "dropout after each hidden layer", OURS, Range(0.0, 0.6), allowed=SHARE)
    epochs: int = parameter(100, "passes over the training part", OURS, allowed=COUNT)
    batch_size: int = parameter(32, "samples an optimiser step", OURS, allowed=COUNT)
    learning_rate: float = parameter(1e-3, "Adam's step size", OURS, Range(1e-4, 1e-2, log=True), allowed=POSITIVE)


class MlpBytes(TorchMethod):
    """Two hidden layers on a session's first payload bytes; a session without payload is an abstention."""

    name: ClassVar[str] = "mlp-bytes"
    reference: ClassVar[str] = "a yardstick for methods on bytes, not a published one"
    reads: ClassVar[frozenset[str]] = frozenset({"payload"})
    Parameters: ClassVar[type] = Parameters
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"shared": {"packets": 16, **SHARED}}
    tiny: ClassVar[Mapping[str, Any]] = {"bytes": 64, "hidden": 32, "dropout": 0.0, "batch_size": 8, "epochs": 20}

    def represent(self, view: View) -> Inputs:
        """``bytes`` uint8 ``[samples, bytes]``, zeros behind the last, and ``held`` bool ``[samples]``: any payload."""
        payload = view.payload_stream(self.parameters.bytes, self.parameters.packets)
        return {"bytes": payload, "held": view.counts(payload_only=True) > 0}

    def can_classify(self, inputs: Inputs) -> NDArray[np.bool_]:
        """Bool ``[samples]``: False for a session without payload."""
        return np.asarray(inputs["held"])

    def network(self) -> nn.Module:
        """A fresh :class:`Network`."""
        p = self.parameters
        return Network(
            *(nn.Linear(p.bytes, p.hidden), nn.ReLU(), nn.Dropout(p.dropout)),
            *(nn.Linear(p.hidden, p.hidden), nn.ReLU(), nn.Dropout(p.dropout)),
            nn.Linear(p.hidden, self.classes),
        )


class Network(nn.Module):
    """Layers on bytes as shares of 255."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, bytes: Tensor, held: Tensor) -> Tensor:
        """Logits ``[N, classes]`` of uint8 ``[N, bytes]``; ``held`` is for abstentions."""
        result: Tensor = self.layers(bytes.float() / 255)
        return result
