"""mini-FlowPic: the FlowPic of a session's first 15 seconds in 32 x 32 cells, and LeNet-5.

E. Horowicz, T. Shapira, Y. Shavitt: "A few shots traffic classification with mini-FlowPic augmentations", ACM IMC
2022, 647-654.  A. Finamore et al. replicated it (ACM IMC 2023; code: tcbenchstack/tcbench, "replication" below), with
the network that is built here.  The authors published a notebook of their contrastive learning alone
(eyalho/mini-flowpic-traffic-classification): another LeNet, with tanh and mean pooling.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from bench.method import COUNT, POSITIVE, SHARE, Inputs, Range, parameter
from bench.training.budget import SHARED
from bench.training.initial import begin
from bench.training.units import aggregate_packets, number_of
from methods.flowpic import FlowPic, pictures
from methods.flowpic import Parameters as FlowPicParameters

PAPER = "IMC 2022"
REPLICATION = "replication, IMC 2023"
OURS = "our choice"


@dataclass(frozen=True)
class Parameters(FlowPicParameters):
    """Those of FlowPic with the values of the mini-FlowPic."""

    resolution: int = parameter(
        32, "cells of the picture along size and along time, 32 to 1500", PAPER, (32, 64), allowed=COUNT
    )
    window: float = parameter(15.0, "seconds that a picture shows", PAPER, (15.0, 60.0), allowed=POSITIVE)
    most_count: int = parameter(255, "most packets that a cell counts", PAPER, allowed=COUNT)
    scaled: bool = parameter(
        False, "divide counts by most_count, as the replication does", "authors' notebook", (False, True)
    )
    initial: str = parameter(
        "he",
        "initial weights: he (uniform, zero biases) or torch (its own)",
        REPLICATION,
        ("he", "torch"),
        allowed=("he", "torch"),
    )
    spatial_dropout: bool = parameter(
        True, "dropout after the second convolution drops whole maps, not single values", REPLICATION, (True, False)
    )
    dropout: float = parameter(
        0.25, "dropout after the second convolution", REPLICATION, Range(0.0, 0.5), allowed=SHARE
    )
    head_dropout: float = parameter(
        0.5, "dropout on the last hidden layer", REPLICATION, Range(0.0, 0.6), allowed=SHARE
    )
    balance: str = parameter(
        "keep",
        "training sessions: undersample (at most balance_ratio times the smallest class) or keep",
        OURS,
        allowed=("undersample", "keep"),
    )
    epochs: int = parameter(50, "passes over the training part, at most", REPLICATION, allowed=COUNT)
    steps: int | None = parameter(
        None, "optimiser steps; none: as many as the passes of `epochs` take", REPLICATION, allowed=COUNT
    )
    batch_size: int = parameter(32, "samples an optimiser step", PAPER, allowed=COUNT)
    learning_rate: float = parameter(1e-3, "Adam's step size", PAPER, Range(1e-4, 3e-3, log=True), allowed=POSITIVE)
    patience: int | None = parameter(
        5,
        "stop after so many epochs in which neither validation score nor loss gets better; none: never",
        REPLICATION,
        allowed=COUNT,
    )


class MiniFlowPic(FlowPic):
    """mini-FlowPic, trained without the paper's augmentations."""

    name: ClassVar[str] = "mini-flowpic"
    reference: ClassVar[str] = "Horowicz, Shapira, Shavitt: mini-FlowPic augmentations, ACM IMC 2022, 647-654"
    Parameters: ClassVar[type] = Parameters
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "one-way": {"direction": "up"},
        "replication": {"scaled": True},
        "shared": {"packets": 16, **SHARED},
    }
    tiny: ClassVar[Mapping[str, Any]] = {
        "dropout": 0.1,
        "head_dropout": 0.1,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "epochs": 15,
    }
    scoring_batch: ClassVar[int] = 256
    deviations: ClassVar[tuple[str, ...]] = (
        "the network and its initial weights are the replication's of 2023; its pictures run from 0 to 1 (scaled), "
        "here from 0 to 255 as in the authors' notebook, which uses contrastive learning and another LeNet, and leaves "
        "out each flow's first packet",
        "the replication's dropout before the last layer drops all features of half the samples (torch's Dropout1d "
        "of a matrix); here single features, as in the paper",
        "no augmentation of pictures or flows: the paper studies it, but it is not part of the classifier",
        "all training sessions, not 100 flows a class (balance=undersample makes the classes equal), of any size: the "
        "notebook takes flows of more than 10 packets in their first 15 s",
        "packets over 1500 bytes fall in the last row, as in the replication (the paper is silent)",
        "counts over 255 are cut, as the paper says (in the authors' notebook they wrap before the cut)",
        "with several blocks, the loss is that of their mean log probability",
        "early stop after 5 epochs in which neither macro-F1 nor loss of the validation part gets better, by however "
        "little; the epoch of the best macro-F1 is kept (the paper watches the loss, the replication wants 0.001 less)",
    )

    def batch(self, rows: Inputs) -> dict[str, Tensor]:
        """As :meth:`FlowPic.batch`, the counts cut at ``most_count``; 0 ... 1 if ``scaled``."""
        p, tensors = self.parameters, super().batch(rows)
        tensors["counts"] = tensors["counts"].clamp(max=p.most_count) / (p.most_count if p.scaled else 1)
        return tensors

    def network(self) -> nn.Module:
        """A fresh :class:`LeNet`."""
        return LeNet(self.parameters, self.classes)


class LeNet(nn.Module):
    """LeNet-5 with ReLU, maximum pooling and dropout, and the blocks of a session lifted to it."""

    def __init__(self, settings: Parameters, classes: int) -> None:
        super().__init__()
        self.resolution = settings.resolution
        side = ((settings.resolution - 4) // 2 - 4) // 2
        self.layers = nn.Sequential(
            nn.Conv2d(1, 6, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.Dropout2d(settings.dropout) if settings.spatial_dropout else nn.Dropout(settings.dropout),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * side**2, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Dropout(settings.head_dropout),
            nn.Linear(84, classes),
        )
        if settings.initial == "he":
            begin(self.layers, nn.init.kaiming_uniform_)

    def forward(self, cells: Tensor, counts: Tensor, eligible: Tensor) -> Tensor:
        """Logits ``[samples, classes]`` of the pictures that ``FlowPic.batch`` describes."""
        shown = pictures(cells, counts, number_of(eligible), self.resolution)
        return aggregate_packets(self.layers(shown), eligible)
