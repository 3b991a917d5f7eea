"""CESNET's 1-D CNN over packet sequences: the sequence branch of their multi-modal network, without flow statistics.

J. Luxemburk, T. Čejka: "Fine-grained TLS services classification with reject option", Computer Networks 220, 2023,
109467.  Sizes and limits are those of the authors' code (mm_cesnet_v1 of CESNET/cesnet-models and its
weights for CESNET-TLS22, BSD-3-Clause).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.errors import InputError
from bench.method import COUNT, POSITIVE, SHARE, Inputs, Part, Range, parameter
from bench.readers import View
from bench.training.budget import SHARED, TrainingParameters
from bench.training.loop import TorchMethod

CODE: Final = "authors' code"
SIZES: Final = (1, 1460)  # bytes; smaller and larger packets count as these
GAPS: Final = (1, 15_000)  # ms, likewise


@dataclass(frozen=True)
class Parameters(TrainingParameters):
    """Sizes of the authors' code; the budget is our choice."""

    packets: int = parameter(30, "packets with payload, from the first; 12 or more", CODE, (16, 30), allowed=COUNT)
    channels: int = parameter(72, "filters of the first layers", CODE, (36, 72, 144), allowed=COUNT)
    wide_channels: int = parameter(128, "filters of the last layers", CODE, (64, 128, 256), allowed=COUNT)
    blocks: int = parameter(2, "layers that keep one place per packet, after the first", CODE, (1, 2, 3), allowed=COUNT)
    hidden: int = parameter(480, "features of both layers before the classes", CODE, (120, 240, 480), allowed=COUNT)
    dropout: float = parameter(
        0.2, "dropout before and after each of these layers", CODE, Range(0.0, 0.5), allowed=SHARE
    )
    learning_rate: float = parameter(
        1e-3, "Adam's step size", "our choice", Range(1e-4, 1e-2, log=True), allowed=POSITIVE
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        ending(self.packets)


def ending(packets: int) -> int:
    """Places that the last layers leave of so many packets.  Raises :class:`InputError` where it is none."""
    places = (packets - 8 - 4) // 2 + 1
    if places < 1:
        raise InputError(
            "bad-parameter", f"parameter packets={packets}: the last layers leave nothing; take 12 or more"
        )
    return places


class CesnetCnn(TorchMethod):
    """CESNET's 1-D CNN over sizes, directions and gaps of the first packets with payload.

    A session without payload is an abstention.
    """

    name: ClassVar[str] = "cesnet-cnn"
    reference: ClassVar[str] = "Luxemburk, Čejka: Fine-grained TLS services, Computer Networks 220, 2023, 109467"
    reads: ClassVar[frozenset[str]] = frozenset({"payload_lengths", "directions", "times"})
    Parameters: ClassVar[type] = Parameters
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"shared": {"packets": 16, **SHARED}}
    tiny: ClassVar[Mapping[str, Any]] = {
        "packets": 12,
        "channels": 8,
        "wide_channels": 12,
        "blocks": 1,
        "hidden": 24,
        "dropout": 0.0,
        "batch_size": 8,
        "epochs": 20,
    }
    deviations: ClassVar[tuple[str, ...]] = (
        "the branch of flow statistics is left out: a session has no such record (the authors' network joins both)",
        "sizes are payload lengths of packets with payload, as the authors' exporter has them",
        "means and deviations of sizes and gaps are those of the split's training part",
        "budget and step size are ours: 30 passes, batches of 64, Adam at 0.001",
        "epoch chosen by validation macro-F1",
    )

    def represent(self, view: View) -> Inputs:
        """``sequence`` float32 ``[samples, 3, packets]``: gaps in ms, directions, payload bytes; 0 padded."""
        packets = self.parameters.packets
        times = view.times(packets, payload_only=True)
        gaps = np.diff(times, axis=1, prepend=times[:, :1]) * 1000.0
        directions = view.directions(packets, payload_only=True)
        sizes = view.payload_lengths(packets)
        held = directions != 0
        channels = [gaps.clip(*GAPS) * held, directions, sizes.clip(*SIZES) * held]
        return {"sequence": np.stack(channels, axis=1).astype(np.float32)}

    def can_classify(self, inputs: Inputs) -> NDArray[np.bool_]:
        """Bool ``[samples]``: False for a session without payload."""
        return np.asarray(inputs["sequence"][:, 1].any(axis=1))

    def network(self) -> nn.Module:
        """A fresh :class:`Network`."""
        return Network(self.parameters, self.classes)

    def before_training(self, network: nn.Module, train: Part, rows: NDArray[np.int64]) -> None:
        """Mean and deviation of gaps and sizes over the packets of ``rows [some]``, where there is a packet."""
        sequence = train.inputs["sequence"][rows]
        held = sequence[:, 1] != 0
        for channel in (0, 2):
            values = sequence[:, channel][held].astype(np.float64)
            network.get_buffer("mean")[channel] = float(values.mean())
            network.get_buffer("deviation")[channel] = float(values.std()) or 1.0


class Network(nn.Module):
    """Convolutions over packets, two layers on all their places, the classes."""

    def __init__(self, settings: Parameters, classes: int) -> None:
        super().__init__()
        narrow, wide = settings.channels, settings.wide_channels
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("deviation", torch.ones(3))
        self.layers = nn.Sequential(
            *convolved(3, narrow, 7, padding=3),
            *(layer for _ in range(settings.blocks) for layer in convolved(narrow, narrow, 5, padding=2)),
            *convolved(narrow, wide, 5),
            *convolved(wide, wide, 5),
            nn.Conv1d(wide, wide, 4, stride=2),
            nn.ReLU(),
        )
        flat, hidden = wide * ending(settings.packets), settings.hidden
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.BatchNorm1d(flat),
            nn.Dropout(settings.dropout),
            *(nn.Linear(flat, hidden), nn.ReLU(), nn.BatchNorm1d(hidden), nn.Dropout(settings.dropout)),
            *(nn.Linear(hidden, hidden), nn.ReLU(), nn.BatchNorm1d(hidden), nn.Dropout(settings.dropout)),
            nn.Linear(hidden, classes),
        )

    def forward(self, sequence: Tensor) -> Tensor:
        """Logits ``[N, classes]`` of gaps, directions and sizes ``[N, 3, packets]``; padding stays 0."""
        scaled = (sequence - self.get_buffer("mean")[:, None]) / self.get_buffer("deviation")[:, None]
        result: Tensor = self.head(self.layers(scaled * (sequence[:, 1:2] != 0)))
        return result


def convolved(inputs: int, outputs: int, kernel: int, padding: int = 0) -> tuple[nn.Module, ...]:
    """A convolution, ReLU and batch normalisation, in this order."""
    return nn.Conv1d(inputs, outputs, kernel, padding=padding), nn.ReLU(), nn.BatchNorm1d(outputs)
