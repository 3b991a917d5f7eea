"""FlowPic: a picture of when a session's packets come and how large they are, and a small LeNet that looks at it.

T. Shapira, Y. Shavitt: "FlowPic: Encrypted Internet Traffic Classification is as Easy as Image Recognition", IEEE
INFOCOM Workshops 2019, 680-687; with a second round of experiments in IEEE TNSM 18(2), 2021, 1218-1232.

A picture of 1500 x 1500 cells is nearly empty, so none is stored: a session is the list of the cells that its
packets fall in, and the first convolution, which would cost more than all the rest, is worked out from that list.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import InputError
from bench.method import COUNT, POSITIVE, SHARE, Inputs, Range, parameter
from bench.readers import Ragged, View
from bench.training.balance import balanced
from bench.training.budget import SHARED, TrainingParameters
from bench.training.initial import begin
from bench.training.loop import TorchMethod
from bench.training.units import aggregate_packets, number_of

CODE = "the authors' code"
OURS = "our choice"
MTU: Final = 1500  # bytes; a longer packet counts as one of this length
LEAST: Final = 32  # cells a side; fewer leave nothing after the poolings
MOST: Final = 1500  # more would part no two lengths


@dataclass(frozen=True)
class Parameters(TrainingParameters):
    """The authors' published code where it speaks; elsewhere the choices listed in ``deviations``."""

    resolution: int = parameter(
        1500, "cells of the picture along size and along time, 32 to 1500", CODE, (32, 64, 256, 1500), allowed=COUNT
    )
    window: float = parameter(60.0, "seconds that a picture shows", CODE, (15.0, 60.0), allowed=POSITIVE)
    blocks: int = parameter(
        1, "pictures of a session, from its start, one window each; memory grows with them", OURS, allowed=COUNT
    )
    time: str = parameter(
        "window",
        "the time axis is the window, or runs from the picture's first packet to its last (relative)",
        OURS,
        ("window", "relative"),
        allowed=("window", "relative"),
    )
    direction: str = parameter("both", "packets of both, up (client) or down", OURS, allowed=("both", "up", "down"))
    packets: int | None = parameter(
        None, "packets of the session, from its first; none: all of the window", OURS, allowed=COUNT
    )
    payload_only: bool = parameter(False, "leave out packets without payload", OURS)
    balance: str = parameter(
        "undersample",
        "training sessions: undersample (at most balance_ratio times the smallest class) or keep",
        "INFOCOM paper",
        allowed=("undersample", "keep"),
    )
    balance_ratio: float = parameter(
        1.0,
        "most training sessions of a class, as a multiple of those of the smallest class",
        OURS,
        (1.0, 3.0, 10.0),
        allowed=COUNT,
    )
    dropout: float = parameter(
        0.25, "dropout after the second convolution", CODE, Range(0.0, 0.5, step=0.05), allowed=SHARE
    )
    head_dropout: float = parameter(
        0.5, "dropout on the head's hidden layer", CODE, Range(0.0, 0.6, step=0.1), allowed=SHARE
    )
    epochs: int = parameter(40, "parts of the steps, or passes over the training part", CODE, allowed=COUNT)
    steps: int | None = parameter(
        400,
        "optimiser steps, ten an epoch in the code; none: as many as the passes of `epochs` take",
        CODE,
        allowed=COUNT,
    )
    batch_size: int = parameter(128, "samples an optimiser step", CODE, allowed=COUNT)
    learning_rate: float = parameter(1e-3, "Adam's step size", CODE, Range(1e-4, 3e-3, log=True), allowed=POSITIVE)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not LEAST <= self.resolution <= MOST:
            raise InputError(
                "bad-parameter", f"parameter resolution={self.resolution}: take {LEAST} to {MOST} cells a side"
            )
        if self.blocks > (most := 2**31 // self.resolution**2):
            raise InputError(
                "bad-parameter", f"parameter blocks={self.blocks}: take at most {most} at resolution {self.resolution}"
            )


class FlowPic(TorchMethod):
    """FlowPic, from the cells of each session to the network of the authors' code.

    A session without a packet in its pictures is an abstention (one direction alone, or payload alone).
    """

    name: ClassVar[str] = "flowpic"
    reference: ClassVar[str] = "Shapira, Shavitt: FlowPic, IEEE INFOCOM Workshops 2019, 680-687"
    reads: ClassVar[frozenset[str]] = frozenset({"lengths", "times", "directions"})
    Parameters: ClassVar[type] = Parameters
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "one-way": {"direction": "up", "time": "relative"},  # the picture of the authors' code
        "shared": {"packets": 16, **SHARED},
    }
    tiny: ClassVar[Mapping[str, Any]] = {
        "resolution": 32,
        "dropout": 0.1,
        "head_dropout": 0.1,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "epochs": 15,
        "steps": None,
    }
    scoring_batch: ClassVar[int] = 64  # maps of 0.9 MB a picture after the first convolution
    deviations: ClassVar[tuple[str, ...]] = (
        "one picture a session of both directions; the paper has one for every 60 s of a one-way flow",
        "short sessions are kept: the code takes pictures of more than 10 packets and more than 50 s only",
        "the time axis is the window; the code stretches it over the packets of each picture (time=relative)",
        "packets over 1500 bytes fall in the last row; the code leaves them out",
        "with several blocks, the loss is that of their mean log probability; in the paper each is a sample",
        "the harness splits, and no session is on both sides; the paper splits 60 s pictures at random",
        "under-sampling to the smallest class, drawn once for each fit (the paper does not give the size; the code "
        "thins one large class to some 2,000 pictures; balance_ratio)",
        "the convolutions are padded by 3 cells a side; the code's framework pads 2 before and 3 after",
        "resolutions below 89 have convolutions of stride 2: stride 5 would leave nothing",
        "weights begin as in the code's framework (Glorot, zero biases)",
        "epoch chosen by validation macro-F1; the code reports its last, and saves those of best loss and accuracy",
    )

    def represent(self, view: View) -> Inputs:
        """``cells``, `Ragged` int32: the cell of each packet in the pictures, (block * size + row) * size + column.

        ``size`` is the resolution, a row stands for a length, a column for a time.
        """
        p = self.parameters

        def read(column: str) -> Ragged:
            return view.ragged(column, packets=p.packets, payload_only=p.payload_only)

        lengths, times = read("lengths"), read("times")
        if p.direction != "both":
            kept = read("directions").values == (1 if p.direction == "up" else -1)
            lengths, times = pick(lengths, kept), pick(times, kept)
            times = Ragged(times.values - times.values[times.offsets[times.rows]], times.offsets)
        return {"cells": cells(lengths, times, p.resolution, p.window, p.blocks, relative=p.time == "relative")}

    def can_classify(self, inputs: Inputs) -> NDArray[np.bool_]:
        """``[samples]``: False for a session whose pictures are all empty."""
        return np.asarray(inputs["cells"].sizes > 0)

    def sample_rows(self, labels: NDArray[np.int64], draw: np.random.Generator) -> NDArray[np.int64]:
        """The sessions to train on: all, or of each class at most ``balance_ratio`` times what the smallest has."""
        return balanced(labels, draw, self.parameters.balance, self.parameters.balance_ratio)

    def batch(self, rows: Inputs) -> dict[str, Tensor]:
        """The filled cells of the batch's pictures, on the device.

        ``cells`` int64 ``[N]``, sorted, counted through the pictures one after the other; ``counts`` float32 ``[N]``;
        ``eligible`` bool ``[samples, blocks]``: the blocks that have packets, each a picture, in this order.
        """
        drawn, blocks, area = rows["cells"], self.parameters.blocks, self.parameters.resolution**2
        block, eligible = drawn.rows * blocks + drawn.values // area, np.zeros(len(drawn) * blocks, bool)
        eligible[block] = True
        picture = eligible.cumsum()[block] - 1
        filled, counts = np.unique(picture * area + drawn.values % area, return_counts=True)
        arrays = {"cells": filled, "counts": counts.astype(np.float32), "eligible": eligible.reshape(-1, blocks)}
        return self.to_device(arrays)

    def network(self) -> nn.Module:
        """A fresh :class:`Network`."""
        return Network(self.parameters, self.classes)


def pick(values: Ragged, kept: NDArray[np.bool_]) -> Ragged:
    """The values ``[N]`` that ``kept [N]`` marks, in the rows they were in."""
    return Ragged(values.values[kept], np.concatenate(([0], np.cumsum(kept)))[values.offsets])


def cells(
    lengths: Ragged, times: Ragged, resolution: int, window: float, blocks: int = 1, *, relative: bool = False
) -> Ragged:
    """The cells, int32, of packets with these lengths in bytes and seconds since their session's first.

    Lengths run over 0 ... 1500 and times over a block of ``window`` seconds or, if ``relative``, from the block's
    first packet to its last; the last row and column are closed.  Packets after the last block have no cell.
    """
    span = max(1.0, np.rint(window * 1e9))
    times = Ragged(np.rint(times.values * 1e9), times.offsets)  # whole nanoseconds: seconds miss a window's very end
    inside = times.values <= blocks * span
    lengths, times = pick(lengths, inside), pick(times, inside)
    block = np.minimum(times.values // span, blocks - 1)
    begin, extent = block * span, span
    if relative:
        firsts = np.flatnonzero(np.diff(times.rows * blocks + block, prepend=-1))
        sizes = np.diff(firsts, append=len(block))
        begin = np.repeat(times.values[firsts], sizes)
        length = np.repeat(times.values[firsts + sizes - 1], sizes) - begin
        extent = np.maximum(length, 1.0)  # all at one instant: the first column
    row = np.minimum(np.minimum(lengths.values, MTU) * resolution // MTU, resolution - 1)
    column = np.minimum((times.values - begin) * resolution // extent, resolution - 1)
    return Ragged(((block * resolution + row) * resolution + column).astype(np.int32), times.offsets)


def pictures(cells: Tensor, counts: Tensor, number: int, resolution: int) -> Tensor:
    """Float32 ``[number, 1, resolution, resolution]``: the counts in their cells (:meth:`FlowPic.batch`), else 0."""
    drawn = torch.zeros(number * resolution**2, device=cells.device).index_copy_(0, cells, counts)
    return drawn.view(number, 1, resolution, resolution)


class CellConvolution(nn.Module):
    """Convolution, ReLU and 2 x 2 maximum pooling of pictures given by their filled cells, at the price of these.

    What no filled cell reaches is the bias after its ReLU.  The stride must divide the kernel, so that each cell is
    seen by the same number of outputs.
    """

    def __init__(self, resolution: int, channels: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.resolution, self.kernel, self.stride, self.padding = resolution, kernel, stride, padding
        self.side = ((resolution + 2 * padding - kernel) // stride + 1) // 2  # of the maps after the pooling
        self.weight = nn.Parameter(torch.empty(kernel**2, channels))  # [taps, channels]
        self.bias = nn.Parameter(torch.zeros(channels))
        bound = (6 / (kernel**2 * (1 + channels))) ** 0.5
        nn.init.uniform_(self.weight, -bound, bound)  # Glorot's for a convolution of one channel

    def forward(self, cells: Tensor, counts: Tensor, number: int) -> Tensor:
        """Maps ``[number, channels, side, side]`` of cells ``[N]`` and their counts (:meth:`FlowPic.batch`).

        On a GPU they are those of the whole pictures: which outputs a cell reaches would have to be waited for.
        """
        if cells.device.type != "cpu":
            return self.of_whole(pictures(cells, counts, number, self.resolution))
        picture, place = cells // self.resolution**2, cells % self.resolution**2
        y, above = self._outputs(place // self.resolution)
        x, left = self._outputs(place % self.resolution)
        y, above, x, left = y[:, :, None], above[:, :, None], x[:, None], left[:, None]
        inside = (y >= 0) & (y < 2 * self.side) & (x >= 0) & (x < 2 * self.side)
        pool, corner = ((picture[:, None, None] * self.side + y // 2) * self.side + x // 2)[inside], y % 2 * 2 + x % 2
        seen = self.weight[(above * self.kernel + left)[inside]] * counts[:, None, None].expand_as(inside)[inside, None]
        reached, at = torch.unique(pool, return_inverse=True)
        corners = self.bias.expand(4 * len(reached), -1).index_add(0, 4 * at + corner[inside], seen)
        pooled = corners.unflatten(0, (-1, 4)).amax(1).relu()
        maps = self.bias.relu().expand(number * self.side**2, -1).index_copy(0, reached, pooled)
        return maps.view(number, self.side, self.side, -1).permute(0, 3, 1, 2)

    def of_whole(self, shown: Tensor) -> Tensor:
        """Maps ``[number, channels, side, side]`` of pictures float32 ``[number, 1, resolution, resolution]``."""
        kernel = self.weight.T.unflatten(1, (1, self.kernel, self.kernel))
        with torch.autocast(shown.device.type, enabled=False):  # bfloat16 has no counts above 256
            maps = F.conv2d(shown, kernel, self.bias, self.stride, self.padding)
        return F.max_pool2d(maps.relu(), 2)

    def _outputs(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """Along one axis: the outputs that see the places ``[N]``, and at which tap; int64 ``[N, outputs]`` each."""
        padded = place[:, None] + self.padding
        output = padded // self.stride - torch.arange(self.kernel // self.stride, device=place.device)
        return output, padded - output * self.stride


class Network(nn.Module):
    """Two convolutions of 10 x 10 cells, a hidden layer of 64, and the blocks of a session lifted to it."""

    def __init__(self, settings: Parameters, classes: int) -> None:
        super().__init__()
        stride = 5 if settings.resolution >= 89 else 2  # the least whose maps survive stride 5
        self.convolution = CellConvolution(settings.resolution, 10, 10, stride, 3)
        side = ((self.convolution.side + 2 * 3 - 10) // stride + 1) // 2
        self.layers = nn.Sequential(
            nn.Conv2d(10, 20, 10, stride, 3),
            nn.ReLU(),
            nn.Dropout(settings.dropout),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(20 * side**2, 64),
            nn.ReLU(),
            nn.Dropout(settings.head_dropout),
            nn.Linear(64, classes),
        )
        # as the authors' framework begins: torch's own biases drown a nearly empty picture
        begin(self.layers, nn.init.xavier_uniform_)

    def forward(self, cells: Tensor, counts: Tensor, eligible: Tensor) -> Tensor:
        """Logits ``[samples, classes]`` of the pictures that :meth:`FlowPic.batch` describes."""
        maps = self.convolution(cells, counts, number_of(eligible))
        return aggregate_packets(self.layers(maps), eligible)
