"""GraphDApp: a graph isomorphism network on the traffic interaction graph of signed packet lengths.

M. Shen, J. Zhang, L. Zhu, K. Xu, X. Du: "Accurate Decentralized Application Identification via Encrypted Traffic
Analysis Using Graph Neural Networks", IEEE Transactions on Information Forensics and Security 16, 2021, 2367-2380.

The paper was not at hand.  "Public code" below is a re-implementation that others published
(jmhIcoding/traffic_classification_utils); what only that code says has "public code" as its source.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.graphs import GraphMethod, RoundNorm, start_round
from bench.method import COUNT, POSITIVE, Inputs, Range, parameter
from bench.readers import View
from bench.schema import StoreTraits
from bench.training.budget import SHARED, TrainingParameters

LONGEST: Final = 1500  # bytes; longer packets count as so long
ROWS: Final = 3100  # of the length table, as in the public code; 3001 can be used


@dataclass(frozen=True)
class Parameters(TrainingParameters):
    """The graph is the paper's; sizes and training are the public code's."""

    packets: int = parameter(100, "packets a session, from the first", "our choice", (16, 50, 100, 200), allowed=COUNT)
    payload_only: bool = parameter(False, "leave out packets without payload", "our choice")
    directed: bool = parameter(
        False, "edges from earlier to later packets only, as in the public code; else both ways", "our choice"
    )
    vertex: str = parameter(
        "embedding",
        "embedding (of the signed length) or scalar (the signed length / 1500)",
        "public code",
        ("embedding", "scalar"),
        allowed=("embedding", "scalar"),
    )
    iterations: int = parameter(3, "rounds of messages", "public code", (1, 2, 3, 4), allowed=COUNT)
    hidden: int = parameter(
        64, "features of a vertex and of the MLP's layers", "public code", (32, 64, 128), allowed=COUNT
    )
    mlp_layers: int = parameter(3, "linear layers of an MLP", "public code", (1, 2, 3), allowed=COUNT)
    shared_mlp: bool = parameter(
        True,
        "one MLP for all iterations; with scalar vertices for all but the first, whose input is one number",
        "public code",
        (True, False),
    )
    epochs: int = parameter(200, "passes over the training part", "public code", allowed=COUNT)
    batch_size: int = parameter(128, "samples an optimiser step", "public code", allowed=COUNT)
    learning_rate: float = parameter(
        5e-4, "Adam's step size", "public code", Range(1e-4, 2e-3, log=True), allowed=POSITIVE
    )


class Graphdapp(GraphMethod):
    """GraphDApp: GIN on graphs of packets, joined within bursts and between neighbouring ones."""

    name: ClassVar[str] = "graphdapp"
    reference: ClassVar[str] = "Shen, Zhang, Zhu, Xu, Du: GraphDApp, IEEE TIFS 16, 2021, 2367-2380"
    reads: ClassVar[frozenset[str]] = frozenset({"lengths", "directions"})
    Parameters: ClassVar[type] = Parameters
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "scalar": {"vertex": "scalar", "shared_mlp": False},  # what is remembered of the paper's network
        "shared": {"packets": 16, **SHARED},
    }
    tiny: ClassVar[Mapping[str, Any]] = {
        "packets": 12,
        "iterations": 2,
        "hidden": 16,
        "mlp_layers": 2,
        "learning_rate": 1e-2,
        "batch_size": 16,
        "epochs": 12,
    }
    deviations: ClassVar[tuple[str, ...]] = (
        "the paper was not re-read: vertex embedding, one MLP for all iterations, sizes and training follow public "
        "code by others; preset scalar is the paper from memory (scalar vertices, one MLP for each iteration)",
        "edges go both ways; the public code's go from earlier to later packets only (option directed)",
        "two neighbouring bursts of one packet are joined by one edge; the public code joins them twice",
        "the first 100 packets (public code: 200), with payload or without",
        "packets longer than 1500 bytes count as 1500, a declared length of 0 as 1; the public code loses packets of "
        "exactly 1500 bytes and the rest of longer ones",
        "sessions without an edge are kept; the public code drops them",
        "scalar vertices are divided by 1500 (silent)",
        "the client is the sender of the session's first captured packet",
        "batch normalisation has statistics for each iteration, for evaluation estimated after each epoch from at most "
        "2,000 training samples; the public code keeps one running mean for all that share an MLP, which fits no "
        "iteration (accuracy on the training sessions of demo: 0.59, with separate statistics 0.99)",
        "epoch chosen by validation macro-F1; the public code looks at one batch and keeps the last epoch",
        "the GIN layers are trained; the public code keeps them in a plain list, where neither optimiser nor "
        "checkpoint finds them",
    )

    def represent(self, view: View) -> Inputs:
        """``lengths`` int16 ``[samples, packets]``: bytes 1 ... 1500, negative from the server, 0 padded."""
        packets, payload_only = self.parameters.packets, self.parameters.payload_only
        lengths = view.lengths(packets, payload_only=payload_only).clip(1, LONGEST).astype(np.int16)
        return {"lengths": lengths * view.directions(packets, payload_only=payload_only)}  # no direction in the padding

    def can_classify(self, inputs: Inputs) -> NDArray[np.bool_]:
        """``[samples]``: False for a session without a packet (``payload_only``: without payload)."""
        return np.asarray(inputs["lengths"].any(axis=1))

    def batch(self, rows: Inputs) -> dict[str, Tensor]:
        """``lengths`` int16 ``[N]`` of vertices, ``edges`` int64 ``[2, E]``, ``sizes`` int64 ``[S]`` of the graphs."""
        lengths = rows["lengths"]
        edges = interactions(lengths)
        if not self.parameters.directed:
            edges = np.concatenate([edges, edges[::-1]], axis=1)
        arrays = {"lengths": lengths[lengths != 0], "edges": edges, "sizes": np.count_nonzero(lengths, axis=1)}
        return self.to_device(arrays)

    @classmethod
    def skip(cls, traits: StoreTraits) -> str | None:
        """Where torch-geometric, which the plain install brings, is not there."""
        there = importlib.util.find_spec("torch_geometric") is not None
        return None if there else "needs torch-geometric; `pip install torch-geometric` brings it"

    def network(self) -> nn.Module:
        """A fresh :class:`Network`."""
        return Network(self.parameters, self.classes)


def interactions(lengths: NDArray[np.int16]) -> NDArray[np.int64]:
    """Edges int64 ``[2, E]`` from earlier to later packets of signed lengths ``[samples, packets]``, 0 padded.

    Packets are numbered over the whole batch, padding left out.  Consecutive packets of a burst are joined, and of
    two neighbouring bursts of a session the first packets and the last ones: once where those are the same.
    """
    session, _ = lengths.nonzero()
    if not len(session):
        return np.zeros((2, 0), np.int64)
    sign = lengths[lengths != 0] > 0
    other_session = session[1:] != session[:-1]
    begins = other_session | (sign[1:] != sign[:-1])  # whether packets 1, 2, ... begin a burst
    first = np.concatenate(([0], begins.nonzero()[0] + 1))
    last = np.append(first[1:], len(session)) - 1
    within = (~begins).nonzero()[0]
    left = (~other_session[first[1:] - 1]).nonzero()[0]  # bursts that have a right neighbour
    right = left + 1
    longer = (first[left] != last[left]) | (first[right] != last[right])
    senders = (within, first[left], last[left][longer])
    receivers = (within + 1, first[right], last[right][longer])
    return np.stack([np.concatenate(senders), np.concatenate(receivers)]).astype(np.int64, copy=False)


class Network(nn.Module):
    """Vertices, iterations of GIN, sum pooling after each of them, one linear layer on all sums."""

    def __init__(self, settings: Parameters, classes: int) -> None:
        super().__init__()
        from torch_geometric.nn import GINConv, global_add_pool

        width, iterations = settings.hidden, settings.iterations
        self.pool = global_add_pool
        self.embedding = nn.Embedding(ROWS, width) if settings.vertex == "embedding" else None
        inputs = [1 if settings.vertex == "scalar" else width] + [width] * (iterations - 1)
        kinds = list(dict.fromkeys(inputs)) if settings.shared_mlp else inputs
        rounds = [inputs.count(size) if settings.shared_mlp else 1 for size in kinds]
        mlps = (mlp(*sizes, settings) for sizes in zip(kinds, rounds, strict=True))
        self.convolutions = nn.ModuleList(GINConv(mlp, train_eps=True) for mlp in mlps)
        self.uses = [(number, turn) for number, turns in enumerate(rounds) for turn in range(turns)]
        self.head = nn.Linear(iterations * width, classes)

    def forward(self, lengths: Tensor, edges: Tensor, sizes: Tensor) -> Tensor:
        """Logits ``[S, classes]`` of signed lengths ``[N]``, edges ``[2, E]`` and the graphs' vertices ``[S]``."""
        graph = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes, output_size=len(lengths))
        if self.embedding is not None:
            vertices = self.embedding(lengths.int() + LONGEST)
        else:
            vertices = lengths.float()[:, None] / LONGEST
        sums = []
        for number, turn in self.uses:
            start_round(self.convolutions[number], turn)
            vertices = self.convolutions[number](vertices, edges).float()  # sums of many vertices need float32
            sums.append(self.pool(vertices, graph, len(sizes)))
        result: Tensor = self.head(torch.cat(sums, dim=1))
        return result


def mlp(inputs: int, rounds: int, settings: Parameters) -> nn.Sequential:
    """Linear layers with ReLU after each, then batch normalisation; used in so many ``rounds``."""
    layers: list[nn.Module] = []
    for size in [inputs] + [settings.hidden] * (settings.mlp_layers - 1):
        layers += [nn.Linear(size, settings.hidden), nn.ReLU()]
    return nn.Sequential(*layers, RoundNorm(settings.hidden, rounds))
