"""Attention-based LSTM: one packet a step, the simpler and better of the two models of HAN's paper.

H. Yao, C. Liu, P. Zhang, S. Wu, C. Jiang, S. Yu: "Identification of Encrypted Traffic Through Attention Mechanism
Based Long Short Term Memory", IEEE Transactions on Big Data 8(1), 2022, 241-252.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from bench.method import COUNT, parameter
from methods.han import DEVIATIONS, AttentionMethod, PacketClassifier
from methods.han import Parameters as HanParameters


@dataclass(frozen=True)
class Parameters(HanParameters):
    """As HAN's, but for the LSTM's size."""

    hidden: int = parameter(100, "hidden state of each LSTM direction", "section 5", (64, 100, 128, 200), allowed=COUNT)


class Attlstm(AttentionMethod):
    """Attention-based LSTM: a packet's bytes are the input of one step."""

    name: ClassVar[str] = "attlstm"
    Parameters: ClassVar[type] = Parameters
    tiny: ClassVar[Mapping[str, Any]] = {
        "packets": 2,
        "bytes": 40,
        "hidden": 32,
        "learning_rate": 5e-3,
        "batch_size": 8,
        "epochs": 12,
    }
    deviations: ClassVar[tuple[str, ...]] = DEVIATIONS
    scoring_batch: ClassVar[int] = 256

    def network(self) -> nn.Module:
        """A fresh :class:`Network`."""
        return Network(self.parameters.bytes, self.parameters, self.classes)


class Network(PacketClassifier):
    """The packet level alone."""

    def forward(self, packets: Tensor) -> Tensor:
        """Logits ``[samples, classes]`` of bytes, uint8 ``[samples, packets, bytes]``."""
        return self.classify(packets.float() / 255)
