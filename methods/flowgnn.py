"""Flow-GNN: a graph network over all pairs of a flow's packets, read out from its global attribute.

T.-L. Huoh, Y. Luo, P. Li, T. Zhang: "Flow-Based Encrypted Network Traffic Classification With Graph Neural
Networks", IEEE Transactions on Network and Service Management 20(2), 2023, 1224-1237.

k packets make k (k - 1) / 2 edges, each of which passes six five-layer MLPs: in a batch of 128 sessions of 100 packets
633,600 edges.  What large batches keep for the backward pass is bounded by computing it twice (`RECOMPUTED`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from bench.graphs import GraphMethod, RoundNorm, start_round
from bench.method import COUNT, POSITIVE, SHARE, Inputs, Part, Range, parameter
from bench.readers import Ragged, View, offsets_of
from bench.training.balance import class_weights
from bench.training.budget import SHARED, TrainingParameters
from bench.training.products import linear

#: edges of a batch from which on blocks are computed again in the backward pass: an edge keeps some 25 KB for it, so
#: that smaller batches, which need 2.5 GB at most, are spared the third of a step that it takes
RECOMPUTED: Final = 100_000


@dataclass(frozen=True)
class Parameters(TrainingParameters):
    """The paper where it speaks, its authors' notebooks or our choice elsewhere."""

    packets: int = parameter(
        100, "packets a session, from the first", "authors' code", (10, 16, 32, 100), allowed=COUNT
    )
    bytes: int = parameter(1500, "bytes a packet, from the IP header on", "the paper", (100, 256, 1500), allowed=COUNT)
    global_packets: str = parameter(
        "all",
        "packets that the global attribute summarises: all of the session, or the kept ones",
        "authors' code",
        allowed=("all", "kept"),
    )
    ports_in_globals: bool = parameter(False, "client and server port in the global attribute", "authors' code")
    edge_times: str = parameter(
        "log", "log1p of seconds, divided by the training maximum; or seconds", "our choice", allowed=("log", "seconds")
    )
    cores: int = parameter(5, "core blocks", "the paper", (1, 3, 5), allowed=COUNT)
    shared_cores: bool = parameter(False, "one set of weights for all core blocks", "our choice", (True, False))
    hidden: int = parameter(128, "features of every MLP layer", "the paper", (64, 128), allowed=COUNT)
    mlp_layers: int = parameter(5, "linear layers of an MLP", "the paper", (2, 3, 5), allowed=COUNT)
    norm: str = parameter(
        "batch", "after each MLP but the decoder's", "the paper", ("batch", "layer"), allowed=("batch", "layer")
    )
    epsilon: float = parameter(1e-5, "added to the variance of a norm", "our choice", allowed=POSITIVE)
    pooling: str = parameter(
        "sum", "of edges into nodes, of both into globals", "the paper", ("sum", "mean"), allowed=("sum", "mean")
    )
    dropout: float = parameter(
        0.1, "after each norm; the paper gives no rate", "our choice", Range(0.0, 0.4), allowed=SHARE
    )
    icf: str | None = parameter(
        "batch",
        "inverse class frequencies that weight the loss: of the batch, of the training part (global), or none",
        "the paper",
        (None, "batch", "global"),
        allowed=("batch", "global"),
    )
    epochs: int = parameter(300, "passes over the training part", "the paper", allowed=COUNT)
    batch_size: int = parameter(128, "samples an optimiser step", "the paper", allowed=COUNT)
    learning_rate: float = parameter(
        3e-4, "Adam's step size", "the paper", Range(1e-4, 1e-3, log=True), allowed=POSITIVE
    )


class Flowgnn(GraphMethod):
    """Flow-GNN: encode-process-decode on the complete directed graph of a session's packets."""

    name: ClassVar[str] = "flowgnn"
    reference: ClassVar[str] = "Huoh, Luo, Li, Zhang: Flow-GNN, IEEE TNSM 20(2), 2023, 1224-1237"
    reads: ClassVar[frozenset[str]] = frozenset({"ip_bytes", "lengths", "payload_lengths", "times", "ports"})
    scoring_batch: ClassVar[int] = 16  # 79,200 edges at most with 100 packets each
    Parameters: ClassVar[type] = Parameters
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "code": {  # the authors' notebooks, as far as they can be followed without their split and their models.py
            "bytes": 100,
            "ports_in_globals": True,
            "edge_times": "seconds",
            "icf": "global",
            "learning_rate": 3.5e-4,
        },
        "shared": {"packets": 16, "global_packets": "kept", **SHARED},
        "small": {"packets": 8},  # our choice: reduced, for machines without a GPU
    }
    tiny: ClassVar[Mapping[str, Any]] = {
        "packets": 8,
        "bytes": 64,
        "cores": 2,
        "hidden": 16,
        "mlp_layers": 2,
        "learning_rate": 5e-3,
        "batch_size": 16,
        "epochs": 8,
    }
    deviations: ClassVar[tuple[str, ...]] = (
        "addresses, ports and checksums are zeroed in place (the paper removes addresses and ports); TTL, "
        "IP id, TCP sequence numbers and options are read",
        "at most 100 packets a session, as in the authors' code (the paper gives no limit); 16 in preset shared",
        "globals are statistics of all packets of the session, as in the authors' code; in preset shared of the kept",
        "globals are divided by their training maxima (authors' code: by those of training and validation)",
        "edge times are log1p of seconds, divided by the training maximum (paper silent, authors' code unscaled)",
        "each core block has its own weights, there are no skip connections, and dropout 0.1 follows each norm "
        "(silent)",
        "no decoders of edges and nodes: the classes are read from the globals alone, so that those two (165,120 "
        "weights of the paper's network) can neither learn nor change an answer",
        "batch normalisation uses in evaluation, and in training where a batch has only one edge, statistics estimated "
        "after each epoch: means over batches of at most 2,000 training samples, without dropout; blocks that share "
        "weights have their own (silent; the authors' notebook sets one flag for both, their models.py is missing)",
        "epsilon of batch normalisation is 1e-5 (silent; the authors' library Sonnet has 1e-4, Keras 1e-3)",
        "an epoch's last batch may be smaller (authors' code: dropped)",
        "class weights are normalised within a batch: they do not scale the loss, in preset code either (the authors' "
        "code divides by the batch's size, so that a batch of rare classes counts more)",
        "one training, one validation and one test part; epoch chosen by validation macro-F1 (paper: 60 % and 40 %, "
        "authors' code reports its best epoch on the latter)",
        "sessions of one packet are kept, with no edge; the authors' code drops them",
        "preset code: 100 bytes from the IP header (authors' code: of a frame with zeroed MAC addresses and unmasked "
        "checksums), real payload lengths (there: packet length less 14), class weights of our training part (there: "
        "constants, the inverse class shares of its data); cores and MLPs as in the paper, as its models.py is missing",
        "standard deviations of the globals are the sample's (n - 1), as in the authors' code, and 0 for one packet",
        "batch sizes count sessions, not edges; the blocks of large batches are computed twice, with equal results",
    )

    def represent(self, view: View) -> Inputs:
        """Of each sample: packets' ``bytes`` uint8 ``[S, packets, bytes]``, ``times`` float64 ``[S, packets]`` in
        seconds, ``counts`` int32 ``[S]`` of its nodes and ``globals`` float32 ``[S, 5 or 7]``.

        Globals are mean and standard deviation of payload length and of packet length (bytes), duration (seconds)
        and, if asked for, both ports.
        """
        settings = self.parameters
        kept = settings.packets if settings.global_packets == "kept" else None
        columns = [view.ragged(name, packets=kept) for name in ("payload_lengths", "lengths")]
        times = view.ragged("times", packets=kept)
        duration = np.where(times.sizes > 0, np.append(times.values, 0.0)[times.offsets[1:] - 1], 0.0)  # the last time
        ports = [view.ports()] if settings.ports_in_globals else []
        return {
            "bytes": view.ip_bytes(settings.packets, settings.bytes),
            "times": view.times(settings.packets),
            "counts": np.minimum(view.counts(), settings.packets),
            "globals": np.column_stack([*map(moments, columns), duration, *ports]).astype(np.float32),
        }

    def can_classify(self, inputs: Inputs) -> NDArray[np.bool_]:
        """``[samples]``: False for a session without a packet."""
        return np.asarray(inputs["counts"] > 0)

    def before_training(self, network: nn.Module, train: Part, rows: NDArray[np.int64]) -> None:
        """The largest edge time and globals, and the class weights, of the training rows."""
        assert isinstance(network, Network)
        longest = train.inputs["times"][rows].max(initial=0.0)
        if self.parameters.edge_times == "log" and longest > 0:
            network.time_scale.fill_(np.log1p(longest))
        largest = torch.from_numpy(train.inputs["globals"][rows].max(axis=0))
        network.global_scale.copy_(torch.where(largest > 0, largest, 1))
        if self.parameters.icf == "global":
            network.class_weights.copy_(class_weights(train.labels[rows], self.classes))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, the mean weighted by the inverse class frequencies that ``icf`` names."""
        model = self._fitted()
        assert isinstance(model, Network)
        weights = model.class_weights
        if self.parameters.icf == "batch":
            weights = 1 / F.one_hot(labels, self.classes).sum(0).clamp(min=1)
        return F.cross_entropy(logits, labels, weights)

    def batch(self, rows: Inputs) -> dict[str, Tensor]:
        """The packets that are there as ``nodes`` uint8 ``[N, bytes]`` and their graph; edges with their seconds."""
        counts = rows["counts"]
        there = np.arange(rows["times"].shape[1]) < counts[:, None]
        edges, times = pairs(counts), rows["times"][there]
        arrays = {
            "nodes": rows["bytes"][there],
            "edges": edges,
            "times": (times[edges[1]] - times[edges[0]]).astype(np.float32),
            "globals": rows["globals"],
            "graph": there.nonzero()[0],
        }
        return self.to_device(arrays)

    def network(self) -> nn.Module:
        """A fresh :class:`Network`."""
        return Network(self.parameters, self.classes)


def pairs(counts: NDArray[Any]) -> NDArray[np.int64]:
    """Edges int64 ``[2, E]`` from every packet to each later one of its session; ``counts [S]`` are the packets.

    Packets are numbered session after session; a session's edges are sorted by receiver, so that those of a shorter
    session are the first ones of a longer session's.
    """
    places = np.arange(counts.max(initial=0))
    receivers = np.repeat(places, places)
    senders = np.arange(len(receivers)) - np.repeat(offsets_of(places)[:-1], places)
    sizes = counts.astype(np.int64) * (counts - 1) // 2
    edge = np.arange(sizes.sum()) - np.repeat(offsets_of(sizes)[:-1], sizes)
    return np.stack([senders[edge], receivers[edge]]) + np.repeat(offsets_of(counts)[:-1], sizes)


def moments(values: Ragged) -> NDArray[np.float64]:
    """Mean and standard deviation (of a sample: n - 1) of each row, 0 where there is none: ``[rows, 2]``."""
    sizes, rows = values.sizes, values.rows
    mean = np.bincount(rows, values.values, len(values)) / np.maximum(sizes, 1)
    squares = np.bincount(rows, (values.values - mean[rows]) ** 2, len(values))
    return np.column_stack([mean, np.sqrt(squares / np.maximum(sizes - 1, 1))])


class Network(nn.Module):
    """Encoder, core blocks of full message passing, decoder of the globals, linear layer to the classes."""

    time_scale: Tensor  # what the training part tells
    global_scale: Tensor
    class_weights: Tensor

    def __init__(self, settings: Parameters, classes: int) -> None:
        super().__init__()
        width, globals_ = settings.hidden, 7 if settings.ports_in_globals else 5
        self.register_buffer("time_scale", torch.ones(()))
        self.register_buffer("global_scale", torch.ones(globals_))
        self.register_buffer("class_weights", torch.ones(classes))
        self.in_seconds = settings.edge_times == "seconds"
        self.encoder = nn.ModuleDict(
            {name: Mlp(size, settings) for name, size in (("edge", 1), ("node", settings.bytes), ("global", globals_))}
        )
        blocks, self.rounds = (1, settings.cores) if settings.shared_cores else (settings.cores, 1)
        self.cores = nn.ModuleList(Core(settings, self.rounds) for _ in range(blocks))
        self.decoder = Mlp(width, settings, last=True)
        self.head = nn.Linear(width, classes)

    def forward(self, nodes: Tensor, edges: Tensor, times: Tensor, globals: Tensor, graph: Tensor) -> Tensor:
        """Logits ``[S, classes]`` of packet bytes ``[N, bytes]``, edges ``[2, E]`` with seconds ``[E]``, globals
        ``[S, 5 or 7]`` and each packet's session ``[N]``.
        """
        times = times if self.in_seconds else times.log1p() / self.time_scale
        x = self.encoder["node"](nodes.float() / 255)
        again = torch.is_grad_enabled() and len(times) >= RECOMPUTED
        e = run(again, self.encoder["edge"], times[:, None])
        u = self.encoder["global"](globals / self.global_scale)
        for number in range(self.rounds):
            for block in self.cores:
                x, e, u = run(again, block, number, x, edges, e, u, graph)
        result: Tensor = self.head(self.decoder(u))
        return result


class Mlp(nn.Sequential):
    """Linear layers with ReLU between them, then norm and dropout unless it is the ``last``."""

    def __init__(self, inputs: int, settings: Parameters, *, rounds: int = 1, last: bool = False) -> None:
        width = settings.hidden
        layers: list[nn.Module] = [nn.Linear(inputs, width)]
        for _ in range(settings.mlp_layers - 1):
            layers += [nn.ReLU(inplace=True), nn.Linear(width, width)]
        if not last:
            of_batch = settings.norm == "batch"
            norm = RoundNorm(width, rounds, settings.epsilon) if of_batch else nn.LayerNorm(width, settings.epsilon)
            layers += [norm, nn.Dropout(settings.dropout, inplace=True)]
        super().__init__(*layers)

    def parts(self, *inputs: Tensor) -> list[Tensor]:
        """What the first layer makes of each part of its input, ``[.., width]`` each; their sum is its answer."""
        first = self[0]
        assert isinstance(first, nn.Linear)
        weights = first.weight.split([rows.shape[1] for rows in inputs], dim=1)
        biases = [first.bias] + [None] * (len(inputs) - 1)
        return [linear(*part) for part in zip(inputs, weights, biases, strict=True)]

    def rest(self, rows: Tensor) -> Tensor:
        """What the layers after the first make of its answer ``[N, width]``: ``[N, width]``."""
        for layer in list(self)[1:]:
            rows = layer(rows)
        return rows


class Update(nn.Module):
    """The MLP of a block's edges, nodes or globals, under the name that saved models have for it."""

    def __init__(self, mlp: Mlp) -> None:
        super().__init__()
        self.mlp = mlp


class Core(nn.Module):
    """A full graph-network block: edges, then nodes, then globals, each from all that it touches.

    An MLP's first layer is linear: what it makes of a node or of a graph's globals is worked out once and given to all
    edges that touch them, so that no edge needs a row of four attributes.
    """

    def __init__(self, settings: Parameters, rounds: int) -> None:
        super().__init__()
        edges, nodes, globals_ = (Mlp(parts * settings.hidden, settings, rounds=rounds) for parts in (4, 3, 3))
        self.edge_model, self.node_model, self.global_model = Update(edges), Update(nodes), Update(globals_)
        self.mean = settings.pooling == "mean"

    def forward(
        self, number: int, x: Tensor, edges: Tensor, e: Tensor, u: Tensor, graph: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Nodes ``[N, width]``, edges ``[E, width]`` and globals ``[S, width]`` after round ``number``.

        ``edges [2, E]`` has each edge's sender and receiver, ``graph [N]`` each node's session.
        """
        start_round(self, number)
        edge, node, whole = self.edge_model.mlp, self.node_model.mlp, self.global_model.mlp
        senders, receivers = edges
        own, sender, receiver, session = edge.parts(e, x, x, u)
        sender = sender + spread(session, graph)  # a sender's session is the edge's
        e = edge.rest(own.add_(spread(sender, senders)).add_(spread(receiver, receivers)))

        incoming = sums(e, receivers, len(x))
        own, pooled, session = node.parts(x, self._pooled(incoming, receivers), u)
        x = node.rest(own + pooled + spread(session, graph))

        of_nodes = self._pooled(sums(x, graph, len(u)), graph)
        of_edges = self._pooled(sums(incoming, graph, len(u)), graph[receivers])
        return x, e, whole(torch.cat([u, of_nodes, of_edges], dim=1))

    def _pooled(self, totals: Tensor, index: Tensor) -> Tensor:
        """The sums, or the means where these are wanted; ``index`` has the row of each thing that was summed."""
        if not self.mean:
            return totals
        return totals / sums(totals.new_ones(len(index), 1), index, len(totals)).clamp(min=1)


def run(again: bool, block: nn.Module, *inputs: Any) -> Any:
    """What a block answers; if it may be computed ``again``, only its inputs are kept for the backward pass.

    Results are the same: norms learn no statistics in training (:class:`RoundNorm`), dropout repeats its draw.
    """
    return checkpoint(block, *inputs, use_reentrant=False) if again else block(*inputs)


def spread(rows: Tensor, index: Tensor) -> Tensor:
    """``rows[index]``, ``[N, width]`` for an ``index [N]``; the gradient sums many and so is taken in float32."""
    return rows.float().index_select(0, index).to(rows.dtype)


def sums(rows: Tensor, index: Tensor, size: int) -> Tensor:
    """Float32 ``[size, width]``: the sum of the ``rows [N, width]`` of each ``index [N]``."""
    return rows.new_zeros(size, rows.shape[1], dtype=torch.float32).index_add(0, index, rows.float())
