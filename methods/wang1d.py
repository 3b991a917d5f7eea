"""1D-CNN of Wang et al.: a session's first 784 bytes as one signal, two wide convolutions.

W. Wang, M. Zhu, J. Wang, X. Zeng, Z. Yang: "End-to-end encrypted traffic classification with one-dimensional
convolution neural networks", IEEE International Conference on Intelligence and Security Informatics (ISI), 2017,
43-48; code: DeepTraffic ("code" below; a plain TensorFlow script).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.errors import InputError
from bench.method import COUNT, POSITIVE, SHARE, Inputs, Range, parameter
from bench.readers import View
from bench.training.budget import SHARED, TrainingParameters
from bench.training.loop import TorchMethod

SPREAD: Final = 0.1  # of initial weights, and the initial bias

#: our choice, where 20,000 steps are too many: 40 passes over the training part, as the paper says
ADAM: Final = {"optimiser": "adam", "learning_rate": 1e-3, "steps": None}

#: of both networks
DEVIATIONS: Final[tuple[str, ...]] = (
    "all layers begin with the IP header; the paper's are capture files, whose first 784 bytes also hold record "
    "headers with absolute times and MAC addresses, which give classes away",
    "addresses and checksums are masked (the paper keeps or randomises them)",
    "the mean cross-entropy with a step of 5e-3 in place of the code's sum over a batch of 50 with 1e-4: the same "
    "steps, but for a last batch of another size",
    "the softmax is part of the loss: the code takes the logarithm of a softmax, which can be minus infinity",
    "no removal of equal sessions and no cut to the 60,000 largest of a class: the split decides what is trained on",
    "20,000 steps as in the code's scripts, whatever the data, tested 40 times; the paper says some 40 epochs",
    "the best epoch by validation macro-F1 (the code keeps the last step)",
    "preset shared takes Adam: its steps are a tenth of those that the code's plain gradient descent needs",
)


@dataclass(frozen=True)
class Parameters(TrainingParameters):
    """Both networks of the authors; the defaults are the paper's best input, whole sessions with all layers."""

    layers: str = parameter(
        "all", "all: bytes from the IP headers on; payload: payload alone", "paper", allowed=("all", "payload")
    )
    bytes: int = parameter(784, "bytes a session", "paper", (784, 1024, 1600), allowed=COUNT)
    packets: int | None = parameter(
        None, "packets that these bytes may come from, from the first; none: all", "paper", allowed=COUNT
    )
    packet_bytes: int | None = parameter(
        None,
        "bytes of each packet, zeros where it is shorter; bytes = packets * packet_bytes; none: whole packets, one "
        "after the other",
        "our choice",
        allowed=COUNT,
    )
    mask_ports: bool = parameter(False, "hide ports where headers are read", "paper")
    kernel: int = parameter(25, "bytes that a filter covers", "paper", (9, 15, 25), allowed=COUNT)
    hidden: int = parameter(1024, "features of the hidden layer", "paper", (256, 1024), allowed=COUNT)
    dropout: float = parameter(0.5, "dropout on the hidden layer", "code", Range(0.3, 0.6), allowed=SHARE)
    optimiser: str = parameter("sgd", "sgd, without momentum, or adam", "code", allowed=("sgd", "adam"))
    epochs: int = parameter(40, "parts of the steps, or passes over the training part", "paper", allowed=COUNT)
    steps: int | None = parameter(
        20_000, "optimiser steps; none: as many as the passes of `epochs` take", "code", allowed=COUNT
    )
    batch_size: int = parameter(50, "samples an optimiser step", "code", allowed=COUNT)
    learning_rate: float = parameter(
        5e-3,
        "step size on the mean loss: 50 times the code's 1e-4 on the sum over a batch of 50; adam wants 1e-3 or less",
        "code",
        Range(1e-3, 1e-2, log=True),
        allowed=POSITIVE,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.packet_bytes is not None and self.bytes != self.packet_bytes * (self.packets or 0):
            raise InputError(
                "bad-parameter", f"parameter bytes={self.bytes}: must be packets * packet_bytes; set all three"
            )


class Wang1D(TorchMethod):
    """1D-CNN on a session's first bytes.

    A session whose bytes are all zero, or that has none to read, is an abstention.
    """

    name: ClassVar[str] = "wang1d"
    reference: ClassVar[str] = "Wang, Zhu, Wang, Zeng, Yang: end-to-end 1D-CNN, IEEE ISI 2017, 43-48"
    reads: ClassVar[frozenset[str]] = frozenset({"ip_bytes", "payload", "ports"})
    Parameters: ClassVar[type] = Parameters
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "l7": {"layers": "payload"},  # the paper's other input
        "adam": ADAM,
        # ATVITSC's Table XI, four packets of 256 bytes against the session's first 1600; and what sets the two apart:
        # as many bytes (session-1024), headers (session-raw)
        "packet-level": {"layers": "payload", "packets": 4, "packet_bytes": 256, "bytes": 1024, **ADAM},
        "session-level": {"layers": "payload", "bytes": 1600, **ADAM},
        "session-1024": {"layers": "payload", "bytes": 1024, **ADAM},
        "session-raw": {"bytes": 1600, **ADAM},
        "shared": {"packets": 16, "mask_ports": True, **ADAM, **SHARED},
    }
    tiny: ClassVar[Mapping[str, Any]] = {
        "bytes": 48,
        "kernel": 9,
        "hidden": 64,
        "dropout": 0.3,
        "optimiser": "adam",
        "learning_rate": 1e-3,
        "batch_size": 16,
        "epochs": 15,
        "steps": None,
    }
    deviations: ClassVar[tuple[str, ...]] = (
        *DEVIATIONS,
        "fixed bytes of each packet (packet_bytes) are for Table XI of the ATVITSC paper, which does not describe "
        "its input",
    )

    def represent(self, view: View) -> Inputs:
        """``bytes`` uint8 ``[samples, bytes]``, zeros behind a session's last byte."""
        p = self.parameters
        mask = ("addresses", "checksums", "ports") if p.mask_ports else ("addresses", "checksums")
        if p.packet_bytes is not None:
            split = p.packets, p.packet_bytes
            packets = view.payload(*split) if p.layers == "payload" else view.ip_bytes(*split, mask=mask)
            return {"bytes": packets.reshape(len(view), p.bytes)}
        if p.layers == "payload":
            return {"bytes": view.payload_stream(p.bytes, p.packets)}
        return {"bytes": view.ip_stream(p.bytes, p.packets, mask=mask)}

    def can_classify(self, inputs: Inputs) -> NDArray[np.bool_]:
        """``[samples]``: False for a session without a byte other than zero."""
        return np.asarray(inputs["bytes"].any(axis=1))

    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """Plain gradient descent as in the code, or Adam."""
        if self.parameters.optimiser == "adam":
            return super().optimiser(network)
        return torch.optim.SGD(network.parameters(), lr=self.parameters.learning_rate)

    def network(self) -> nn.Module:
        """A fresh network: 784 bytes, 262 places after the first pooling, 88 after the second."""
        p = self.parameters
        middle, end = pooled(p.bytes, 3), pooled(pooled(p.bytes, 3), 3)
        return Network(
            nn.Unflatten(1, (1, p.bytes)),
            nn.Conv1d(1, 32, p.kernel, padding="same"),
            nn.ReLU(),
            pooling(p.bytes),
            nn.Conv1d(32, 64, p.kernel, padding="same"),
            nn.ReLU(),
            pooling(middle),
            *head(64 * end, p.hidden, p.dropout, self.classes),
        )


class Network(nn.Sequential):
    """Layers on bytes scaled to 0 ... 1, their weights drawn as the code draws them."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        for name, values in self.named_parameters():
            if name.endswith("bias"):
                nn.init.constant_(values, SPREAD)
            else:  # drawn again beyond two standard deviations, as TensorFlow does
                nn.init.trunc_normal_(values, std=SPREAD, a=-2 * SPREAD, b=2 * SPREAD)

    def forward(self, bytes: Tensor) -> Tensor:
        """Logits ``[samples, classes]`` of uint8 ``[samples, bytes]``."""
        result: Tensor = super().forward(bytes.float() / 255)  # type: ignore[no-untyped-call]
        return result


def pooled(size: int, window: int) -> int:
    """Places that pooling with "same" padding leaves of ``size``."""
    return -(-size // window)


def pooling(size: int) -> nn.Module:
    """Largest of every three of ``size`` places, padded as TensorFlow pads: evenly, one more behind than before."""
    return nn.MaxPool1d(3, padding=(-size % 3) // 2, ceil_mode=True)


def head(width: int, hidden: int, dropout: float, classes: int) -> list[nn.Module]:
    """What both networks end with: one hidden layer, dropout, logits."""
    return [nn.Flatten(), nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, classes)]
