"""2D-CNN of Wang et al.: a session's first 784 bytes as a grey image of 28 x 28, a LeNet-like network.

W. Wang, M. Zhu, X. Zeng, X. Ye, Y. Sheng: "Malware traffic classification using convolutional neural network for
representation learning", International Conference on Information Networking (ICOIN), 2017, 712-717; code: DeepTraffic.
Input, training and initial weights are those of ``wang1d``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from bench.errors import InputError
from bench.method import COUNT, parameter
from bench.training.budget import SHARED
from methods.wang1d import ADAM, DEVIATIONS, Network, Wang1D, head, pooled
from methods.wang1d import Parameters as Wang1DParameters


@dataclass(frozen=True)
class Parameters(Wang1DParameters):
    """Those of ``wang1d`` but for the filters; ``bytes`` make a square image."""

    kernel: int = parameter(5, "height and width of a filter", "code", (3, 5, 7), allowed=COUNT)

    def __post_init__(self) -> None:
        super().__post_init__()
        side = math.isqrt(self.bytes)
        if side * side != self.bytes:
            raise InputError(
                "bad-parameter",
                f"parameter bytes={self.bytes} makes no square image; take {side * side} or {(side + 1) ** 2}",
            )


class Wang2D(Wang1D):
    """2D-CNN on a session's first bytes as an image.

    A session whose bytes are all zero, or that has none to read, is an abstention.
    """

    name: ClassVar[str] = "wang2d"
    reference: ClassVar[str] = "Wang, Zhu, Zeng, Ye, Sheng: malware traffic 2D-CNN, IEEE ICOIN 2017, 712-717"
    Parameters: ClassVar[type] = Parameters
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "l7": {"layers": "payload"},
        "adam": ADAM,
        "shared": {"packets": 16, "mask_ports": True, **ADAM, **SHARED},
    }
    deviations: ClassVar[tuple[str, ...]] = DEVIATIONS
    tiny: ClassVar[Mapping[str, Any]] = {**Wang1D.tiny, "bytes": 36, "kernel": 5, "hidden": 128, "dropout": 0.1}

    def network(self) -> nn.Module:
        """A fresh network: 28 x 28 pixels, 14 x 14 after the first pooling, 7 x 7 after the second."""
        p = self.parameters
        side = math.isqrt(p.bytes)
        return Network(
            nn.Unflatten(1, (1, side, side)),
            nn.Conv2d(1, 32, p.kernel, padding="same"),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(32, 64, p.kernel, padding="same"),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            *head(64 * pooled(side, 4) ** 2, p.hidden, p.dropout, self.classes),
        )
