"""CMTSNN: a two-layer LSTM over packets, convolutions over its states, and a cost matrix in the loss.

Reconstructed from secondary sources: the paper's text was not available, and the results here are ours, not its.
S. Zhu, X. Xu, H. Gao, F. Xiao: "CMTSNN: A Deep Learning Model for Multiclassification of Abnormal and Encrypted
Traffic of Internet of Things", IEEE Internet of Things Journal 10(13), 2023, 11773-11791.

Secondary sources say: bidirectional LSTM, CNN, a cost-penalty matrix with a modified cross-entropy, no attention,
10 packets of 1000 bytes, 4.81 M parameters at 8 classes.  This network has 4,685,608 at 8 (4,685,868 at 12).

The matrix C[i, j], the cost of answering j for a sample of class i, depends on i alone off its diagonal, so one number
a class holds it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import InputError
from bench.method import COUNT, NOT_NEGATIVE, POSITIVE, SHARE, Part, Range, parameter
from bench.training.budget import SHARED, TrainingParameters
from bench.training.lstm import lstm_states
from bench.training.units import HeaderBytesMethod

SECOND_HAND = "input as TrafficAudio (2026) describes it"
OURS = "our choice (reconstructed)"
INHERITED = "our choice: as in TSCRNN, from the same laboratory"


@dataclass(frozen=True)
class Parameters(TrainingParameters):
    """Two values at second hand, all others ours."""

    packets: int = parameter(10, "packets a session", SECOND_HAND, allowed=COUNT)
    bytes: int = parameter(1000, "bytes a packet, from the IP header on", SECOND_HAND, allowed=COUNT)
    mask_ports: bool = parameter(False, "hide the ports too", OURS)
    payload_only: bool = parameter(False, "leave out packets without payload, bare acknowledgements", OURS)
    hidden: int = parameter(256, "hidden state of each LSTM direction; at least 2", OURS, (128, 256), allowed=COUNT)
    layers: int = parameter(2, "LSTM layers", OURS, (1, 2), allowed=COUNT)
    channels: int = parameter(
        32, "channels of the first convolution; the second has twice as many", OURS, (16, 32, 64), allowed=COUNT
    )
    head: int = parameter(64, "features of the hidden layer before the classes", OURS, (64, 128, 256), allowed=COUNT)
    dropout: float = parameter(
        0.1, "dropout between the LSTM layers and on the hidden layer", OURS, Range(0.0, 0.6), allowed=SHARE
    )
    cost: str = parameter(
        "softmax",
        "softmax (costs scale the wrong classes in training) or expected (the answer has the least expected cost)",
        OURS,
        ("softmax", "expected"),
        allowed=("softmax", "expected"),
    )
    strength: float = parameter(
        1.0, "how fast costs grow with a class's rarity; 0: all alike", OURS, Range(0.0, 1.0), allowed=NOT_NEGATIVE
    )
    epochs: int = parameter(50, "passes over the training part", INHERITED, allowed=COUNT)
    batch_size: int = parameter(128, "samples an optimiser step", INHERITED, allowed=COUNT)
    learning_rate: float = parameter(
        1e-3, "Adam's step size before the cuts", INHERITED, Range(3e-4, 3e-3, log=True), allowed=POSITIVE
    )
    step_size: int = parameter(10, "epochs between two cuts of the learning rate", INHERITED, allowed=COUNT)
    gamma: float = parameter(0.3, "factor of each cut of the learning rate", INHERITED, allowed=POSITIVE)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden < 2:
            raise InputError(
                "bad-parameter", f"parameter hidden={self.hidden}: the two poolings leave nothing of it; take 2 or more"
            )


class Cmtsnn(HeaderBytesMethod):
    """CMTSNN, reconstructed from secondary sources."""

    name: ClassVar[str] = "cmtsnn"
    reference: ClassVar[str] = "Zhu, Xu, Gao, Xiao: CMTSNN, IEEE Internet of Things Journal 10(13), 2023, 11773-11791"
    Parameters: ClassVar[type] = Parameters
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "expected": {"cost": "expected"},
        "shared": {"packets": 16, "mask_ports": True, **SHARED},
    }
    tiny: ClassVar[Mapping[str, Any]] = {
        "packets": 8,
        "bytes": 24,
        "hidden": 32,
        "layers": 1,
        "channels": 16,
        "head": 32,
        "dropout": 0.1,
        "learning_rate": 1e-3,
        "batch_size": 8,
        "epochs": 20,
    }
    deviations: ClassVar[tuple[str, ...]] = (
        "reconstructed from secondary sources: the paper's layers, sizes, costs and training are not known here",
        "4.69 M parameters at 8 classes; a secondary source says 4.81 M, and no usual sizes give that number",
        "costs 1 + ln(n_max / n_c), scaled to a mean of 1 over the classes of the training part (reconstructed)",
        "costs scale the wrong classes' exponentials in the training softmax, after Khan et al., arXiv 1508.03422;"
        " cost=expected is the other reading: weighted cross-entropy and the answer of least expected cost",
        "dropout of 0.1 (our choice) between the LSTM layers and on the hidden layer, not before the batch"
        " normalisation, whose statistics it would shift between training and test (reconstructed)",
        "bytes begin at the IP header, addresses and checksums zero; bare acknowledgements count among the packets "
        "(unknown; payload_only)",
        "Adam 1e-3, batches of 128, 50 epochs, 0.3 of the rate every 10: as in TSCRNN, from the same laboratory",
        "with cost=expected probabilities are shifted by the costs; its cross-entropy is a weighted mean over a batch",
        "epoch chosen by validation macro-F1 (unknown)",
    )

    def network(self) -> nn.Module:
        """A fresh :class:`Network`."""
        return Network(self.parameters, self.classes)

    def before_training(self, network: nn.Module, train: Part, rows: NDArray[np.int64]) -> None:
        """Costs from the classes' numbers in the training rows."""
        costs = class_costs(train.labels[rows], self.classes, self.parameters.strength)
        network.get_buffer("costs").copy_(costs)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of p_k ~ C[y, k] exp(z_k) with C[y, y] = 1, or weighted by the costs."""
        costs = self._fitted().get_buffer("costs")
        if self.parameters.cost == "expected":
            return F.cross_entropy(logits, labels, costs)
        wrong = 1 - F.one_hot(labels, self.classes)
        return F.cross_entropy(logits + wrong * costs.log()[labels, None], labels)


def class_costs(labels: NDArray[np.int64], classes: int, strength: float) -> Tensor:
    """Float32 ``[classes]``, C[i, j] for any j but i: 1 + strength ln(n_max / n_i), over the mean of the classes held.

    A class without a training sample costs 1, the mean: nothing is known of its rarity.
    """
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    costs = np.ones(classes)
    costs[present] += strength * np.log(counts.max() / counts[present])
    costs[present] /= costs[present].mean()
    return torch.tensor(costs, dtype=torch.float32)


class Network(nn.Module):
    """Time (LSTM), space (convolutions) and the cost layer."""

    def __init__(self, settings: Parameters, classes: int) -> None:
        super().__init__()
        channels, dropout = settings.channels, settings.dropout
        self.expected = settings.cost == "expected"
        self.lstm = nn.LSTM(
            settings.bytes,
            settings.hidden,
            settings.layers,
            batch_first=True,
            bidirectional=True,
            dropout=dropout if settings.layers > 1 else 0.0,  # torch's acts between layers alone
        )
        self.convolutions = nn.Sequential(*_block(settings.packets, channels), *_block(channels, 2 * channels))
        values = 2 * channels * (2 * settings.hidden // 4)
        self.head = nn.Sequential(
            nn.Linear(values, settings.head), nn.ReLU(), nn.Dropout(dropout), nn.Linear(settings.head, classes)
        )
        self.register_buffer("costs", torch.ones(classes))

    def forward(self, packets: Tensor) -> Tensor:
        """Logits ``[samples, classes]`` of bytes, uint8 ``[samples, packets, bytes]``.

        With cost=expected and outside training, p_j weighted by c_j: answering j costs sum_i p_i c_i - p_j c_j, so
        the least expected cost is the largest p_j c_j.
        """
        states = lstm_states(self.lstm, packets.float() / 255)
        logits = self.head(self.convolutions(states).flatten(1))
        result: Tensor = logits if self.training or not self.expected else logits + self.get_buffer("costs").log()
        return result


def _block(inputs: int, channels: int) -> tuple[nn.Module, ...]:
    """Convolution along the LSTM's features, batch normalisation, ReLU, and half the length."""
    return nn.Conv1d(inputs, channels, 3, padding=1), nn.BatchNorm1d(channels), nn.ReLU(), nn.MaxPool1d(2)
