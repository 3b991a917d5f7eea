"""TSCRNN: convolutions with a session's packets as channels, then two bidirectional LSTMs.

K. Lin, X. Xu, H. Gao: "TSCRNN: A novel classification scheme of encrypted traffic based on flow spatiotemporal
features for efficient management of IIoT", Computer Networks 190, 2021, 107974.

The parameter counts of Table I settle what the prose leaves open: the LSTM has 375 inputs, the quarter of a packet's
1500 bytes, so that its steps are the 64 channels of the convolutions and not, as the prose has it, the packets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from bench.errors import InputError
from bench.method import COUNT, POSITIVE, SHARE, Range, parameter
from bench.training.budget import SHARED, TrainingParameters
from bench.training.recurrent import last_step
from bench.training.units import HeaderBytesMethod


@dataclass(frozen=True)
class Parameters(TrainingParameters):
    """Table I and section 4 where the paper speaks; elsewhere the choices listed in ``deviations``."""

    packets: int = parameter(15, "packets a session", "section 4", (5, 10, 15, 16), allowed=COUNT)
    bytes: int = parameter(
        1500, "bytes a packet, from the IP header on; at least 4", "section 4", (256, 500, 1000, 1500), allowed=COUNT
    )
    mask_ports: bool = parameter(False, "hide the ports too", "our choice")
    payload_only: bool = parameter(
        False, "leave out packets without payload, bare acknowledgements", "our choice: silent"
    )
    channels: int = parameter(64, "channels of both convolutions", "Table I", allowed=COUNT)
    hidden: int = parameter(256, "hidden state of each LSTM direction", "Table I", (128, 256), allowed=COUNT)
    recurrent_axis: str = parameter(
        "channels",
        "steps of the LSTMs: channels (375 values each) or length (64 values each)",
        "Table I",
        ("channels", "length"),
        allowed=("channels", "length"),
    )
    read_out: str = parameter(
        "last_step",
        "LSTM states used: last_step, or final (each direction's own last)",
        "Table I",
        allowed=("last_step", "final"),
    )
    dropout: float = parameter(0.5, "dropout after each LSTM", "Table I", Range(0.2, 0.6), allowed=SHARE)
    epochs: int = parameter(50, "passes over the training part", "section 4: 30 and 20 more", allowed=COUNT)
    batch_size: int = parameter(128, "samples an optimiser step", "section 4", allowed=COUNT)
    learning_rate: float = parameter(
        1e-3, "Adam's step size before the cuts", "section 4", Range(3e-4, 3e-3, log=True), allowed=POSITIVE
    )
    first_cut: int = parameter(30, "epochs before the first cut of the learning rate", "section 4", allowed=COUNT)
    step_size: int = parameter(5, "epochs between two further cuts", "our choice", allowed=COUNT)
    gamma: float = parameter(0.3, "factor of each cut of the learning rate", "section 4", allowed=POSITIVE)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bytes < 4:
            raise InputError(
                "bad-parameter", f"parameter bytes={self.bytes}: the two poolings leave nothing of it; take 4 or more"
            )

    def learning_rate_at(self, step: int, steps_an_epoch: float) -> float:
        """The inherited schedule with its first cut after ``first_cut`` epochs."""
        warm = round(self.warmup * self.epochs * steps_an_epoch)
        if step >= warm:
            step = max(warm, step - round((self.first_cut - self.step_size) * steps_an_epoch))
        return super().learning_rate_at(step, steps_an_epoch)


class Tscrnn(HeaderBytesMethod):
    """TSCRNN, the layers of its Table I."""

    name: ClassVar[str] = "tscrnn"
    reference: ClassVar[str] = "Lin, Xu, Gao: TSCRNN, Computer Networks 190, 2021, 107974"
    Parameters: ClassVar[type] = Parameters
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "length": {"recurrent_axis": "length"},  # the LSTMs run along the bytes
        "final": {"read_out": "final"},
        "shared": {"packets": 16, "mask_ports": True, **SHARED},
        "small": {"bytes": 500},  # our choice: reduced, for machines without a GPU
    }
    tiny: ClassVar[Mapping[str, Any]] = {
        "packets": 2,
        "bytes": 24,
        "channels": 16,
        "hidden": 32,
        "dropout": 0.1,
        "learning_rate": 3e-3,
        "batch_size": 8,
        "epochs": 20,
    }
    deviations: ClassVar[tuple[str, ...]] = (
        "bytes begin at the IP header, addresses and checksums zero (silent; the link layer is never read)",
        "bidirectional sessions; bare acknowledgements count among their packets (silent; payload_only)",
        "consecutive packets from the sample's start, no random start points inside long flows: the split chooses them",
        "Table I prints a length of 325 after the poolings; its parameter counts need 375",
        "the LSTMs' steps are the channels, as the counts of Table I need, although the text says otherwise; see "
        "recurrent_axis=length",
        "the backward state of the last step has seen one step only (Table I); see read_out=final",
        "30 epochs at the full rate, then 20 with cuts every 5: the paper says 30, then 'a total of 20'",
        "epoch chosen by validation macro-F1 instead of the paper's early stopping, whose rule the paper does not give",
    )

    def network(self) -> nn.Module:
        """A fresh :class:`Network`."""
        return Network(self.parameters, self.classes)


class Network(nn.Module):
    """Table I."""

    def __init__(self, settings: Parameters, classes: int) -> None:
        super().__init__()
        channels, hidden = settings.channels, settings.hidden
        self.along_length = settings.recurrent_axis == "length"
        self.read_out = settings.read_out
        self.convolutions = nn.Sequential(*_block(settings.packets, channels), *_block(channels, channels))
        inputs = channels if self.along_length else settings.bytes // 4
        # two modules: torch's own dropout between layers does not act after the last one
        self.first = nn.LSTM(inputs, hidden, batch_first=True, bidirectional=True)
        self.second = nn.LSTM(2 * hidden, hidden, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(settings.dropout)
        self.out = nn.Linear(2 * hidden, classes)

    def forward(self, packets: Tensor) -> Tensor:
        """Logits ``[samples, classes]`` of bytes, uint8 ``[samples, packets, bytes]``."""
        maps = self.convolutions(packets.float() / 255)  # [samples, channels, bytes // 4]
        if self.along_length:
            maps = maps.transpose(1, 2)
        states = self.dropout(self.first(maps)[0])
        if self.read_out == "last_step":
            features = last_step(self.second, states)
        else:
            features = self.second(states)[1][0].transpose(0, 1).flatten(1)
        result: Tensor = self.out(self.dropout(features))
        return result


def _block(inputs: int, channels: int) -> tuple[nn.Module, ...]:
    """Convolution, batch normalisation, ReLU, and half the length."""
    return nn.Conv1d(inputs, channels, 3, padding=1), nn.BatchNorm1d(channels), nn.ReLU(), nn.MaxPool1d(2)
