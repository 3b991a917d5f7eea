"""HAN: a hierarchical attention network; LSTMs with attention over a packet's bytes, then over the packets.

H. Yao, C. Liu, P. Zhang, S. Wu, C. Jiang, S. Yu: "Identification of Encrypted Traffic Through Attention Mechanism
Based Long Short Term Memory", IEEE Transactions on Big Data 8(1), 2022, 241-252.  Its other model is ``attlstm``.

Padding repeats one packet: all its bytes are zero.  The network reads it once a batch and hands the vector to every
empty place, which is the same sum with fewer terms to work out.
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

from bench.method import COUNT, POSITIVE, SHARE, Inputs, Part, Range, parameter
from bench.training.balance import class_weights
from bench.training.budget import SHARED, TrainingParameters
from bench.training.long_sequences import attend, scan_lstm
from bench.training.lstm import lstm_states
from bench.training.units import HeaderBytesMethod

HEAD = 128  # features of the hidden layer before the classes
CHUNK: Final = 128  # packets that are read together: bounds memory
FEW: Final = 1 << 20  # states up to which torch's own layers, which keep some 80 bytes of each, take less time
MOST = 10.0  # largest weight of a class: our choice

#: of both models of the paper
DEVIATIONS: Final[tuple[str, ...]] = (
    "addresses are set to zero, and the checksums with them (the paper removes addresses and does not say how)",
    "the attention layer has twice the LSTM's features (silent)",
    "dropout 0.2: the 0.8 of the paper is the share that is kept",
    "cross-entropy weighted by N / (K n_c), at most 10: the paper does not print its costs; loss=sosr is its loss,"
    " with 0 for the true class and that class's weight for all others",
    "with loss=sosr probabilities are the softmax of the negative costs: the paper takes the least cost and also"
    " speaks of probabilities",
    "DNS flows are kept: the paper removes them",
    "bare acknowledgements count among a session's packets (silent; payload_only)",
    "epoch chosen by validation macro-F1 (silent)",
    "weighted cross-entropy is a weighted mean over a batch",
)


@dataclass(frozen=True)
class Parameters(TrainingParameters):
    """Sections 4 and 5 where the paper speaks; elsewhere the choices listed in ``deviations``."""

    packets: int = parameter(10, "packets a session", "section 5", (5, 10, 16), allowed=COUNT)
    bytes: int = parameter(
        1500, "bytes a packet, from the IP header on", "section 5", (256, 500, 1000, 1500), allowed=COUNT
    )
    mask_ports: bool = parameter(False, "hide the ports too", "section 5: only the addresses are removed")
    payload_only: bool = parameter(
        False, "leave out packets without payload, bare acknowledgements", "our choice: silent"
    )
    hidden: int = parameter(128, "hidden state of each LSTM direction", "section 5", (64, 100, 128, 200), allowed=COUNT)
    attention: int | None = parameter(
        None, "features of the attention layer; none: twice hidden", "our choice", (None, 64, 128, 200), allowed=COUNT
    )
    dropout: float = parameter(
        0.2, "dropout on the hidden layer of the head", "section 5: kept at 0.8", Range(0.1, 0.5), allowed=SHARE
    )
    loss: str = parameter(
        "weighted_ce",
        "ce, weighted_ce or sosr (smooth one-sided regression of costs, the paper's)",
        "our choice: the paper does not print its costs",
        ("ce", "weighted_ce", "sosr"),
        allowed=("ce", "weighted_ce", "sosr"),
    )
    epochs: int = parameter(30, "passes over the training part", "section 5", allowed=COUNT)
    batch_size: int = parameter(64, "samples an optimiser step", "section 5", allowed=COUNT)
    learning_rate: float = parameter(
        1e-3, "Adam's step size", "section 5", Range(3e-4, 3e-3, log=True), allowed=POSITIVE
    )


class AttentionMethod(HeaderBytesMethod):
    """What both models of the paper share: costs of classes in the loss, and presets."""

    reference: ClassVar[str] = "Yao, Liu, Zhang, Wu, Jiang, Yu: attention-based LSTM, IEEE Trans. Big Data 8(1), 2022"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "sosr": {"loss": "sosr"},  # the paper's loss, under our costs
        "shared": {"packets": 16, "mask_ports": True, **SHARED},
        "small": {"packets": 8, "bytes": 64, "batch_size": 16},  # our choice: reduced, for machines without a GPU
    }

    def before_training(self, network: nn.Module, train: Part, rows: NDArray[np.int64]) -> None:
        """Class weights from the training rows; all 1 for plain cross-entropy."""
        if self.parameters.loss != "ce":
            network.get_buffer("weights").copy_(class_weights(train.labels[rows], self.classes, MOST))

    def loss_divisor(self, labels: Tensor) -> Tensor | None:
        """The samples, or the sum of their classes' weights: a scalar, float or int, of ``labels [batch]``."""
        weighted = self.parameters.loss != "sosr"
        return self._fitted().get_buffer("weights")[labels].sum() if weighted else super().loss_divisor(labels)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, or the regression of costs whose negatives are the logits."""
        weights = self._fitted().get_buffer("weights")
        if self.parameters.loss == "sosr":
            return one_sided_regression(-logits, labels, weights)
        return F.cross_entropy(logits, labels, weights)


class Han(AttentionMethod):
    """HAN, the byte-level model: one byte a step, then one packet vector a step."""

    name: ClassVar[str] = "han"
    Parameters: ClassVar[type] = Parameters
    tiny: ClassVar[Mapping[str, Any]] = {
        "packets": 2,
        "bytes": 40,
        "hidden": 32,
        "dropout": 0.0,
        "batch_size": 32,
        "epochs": 60,
    }
    deviations: ClassVar[tuple[str, ...]] = (
        *DEVIATIONS,
        "starting weights: input weights scaled by the number of inputs, orthogonal recurrent ones, forget bias 1 "
        "(silent); with torch's own, training needs several times as long before it improves",
    )
    scoring_batch: ClassVar[int] = 64  # packets are read in chunks: more samples take no more memory

    def network(self) -> nn.Module:
        """A fresh :class:`Network`."""
        return Network(self.parameters, self.classes)

    def batch(self, rows: Inputs) -> dict[str, Tensor]:
        """What :class:`Network` reads, on the device, which need not be asked how many packets there are."""
        return self.to_device(distinct(rows["packets"]))


def distinct(packets: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """The empty packet and all others, ``packets`` uint8 ``[N, bytes]`` of ``[samples, packets, bytes]``.

    ``place`` int64 ``[samples, packets]`` has the row of each.
    """
    filled = packets.any(axis=2)
    rows = np.concatenate([np.zeros((1, packets.shape[2]), np.uint8), packets[filled]])
    return {"packets": rows, "place": filled.cumsum().reshape(filled.shape) * filled}


def one_sided_regression(costs: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Smooth one-sided regression: mean over samples of the sum over classes of softplus(z (r - c)).

    ``costs [samples, classes]`` are the network's r.  The true class costs 0 and is to come out below (z = +1);
    all others cost ``weights [classes]`` of the true class and are to come out above (z = -1).
    """
    true = F.one_hot(labels, costs.shape[1]).bool()
    distance = torch.where(true, costs, weights[labels, None] - costs)
    return F.softplus(distance).sum(1).mean()


class Attention(nn.Module):
    """Section 4: weights softmax(u_i . u_s) with u_i = tanh(W h_i + b), and the states' weighted sum."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(features, width)
        self.context = nn.Linear(width, 1, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """``[N, features]`` of states ``[N, steps, features]``."""
        weights = self.context(torch.tanh(self.project(states))).softmax(1)
        result: Tensor = (weights.transpose(1, 2) @ states)[:, 0]  # no product of the size of the states
        return result


class Reader(nn.Module):
    """A bidirectional LSTM and attention over its states."""

    def __init__(self, inputs: int, settings: Parameters) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, settings.hidden, batch_first=True, bidirectional=True)
        self.attention = Attention(2 * settings.hidden, settings.attention or 2 * settings.hidden)

    def forward(self, steps: Tensor) -> Tensor:
        """``[N, 2 * hidden]`` of ``[N, steps, inputs]``."""
        result: Tensor = self.attention(lstm_states(self.lstm, steps))
        return result


class ByteReader(Reader):
    """A reader of many long packets: the same vectors, the states of one chunk of packets at a time in memory."""

    def forward(self, steps: Tensor) -> Tensor:
        """``[N, 2 * hidden]`` of ``[N, steps, 1]``."""
        if steps.device.type != "cpu":
            return self.in_chunks(steps)
        few = steps.numel() * self.lstm.hidden_size <= FEW
        with torch.autocast("cpu", enabled=False):
            return self.attention(self.lstm(steps)[0]) if few else self.on_cpu(steps)

    def in_chunks(self, steps: Tensor) -> Tensor:
        """``[N, 2 * hidden]`` of ``[N, steps, 1]`` by torch's own layers; for the gradient all is worked out again."""

        def read(some: Tensor) -> Any:
            return checkpoint(super(ByteReader, self).forward, some, use_reentrant=False, preserve_rng_state=False)

        return torch.cat([read(some) for some in steps.split(CHUNK)])

    def on_cpu(self, steps: Tensor) -> Tensor:
        """The same by functions that keep less for the gradient, float32 ``[N, 2 * hidden]`` of ``[N, steps, 1]``.

        Read backwards, the padding of all packets is one run of zeros, that of an empty packet: it is read once.
        Packets of about one length share a chunk: a step takes those alone whose padding is over.
        """
        project, context, vectors = self.attention.project, self.attention.context, []
        at = torch.arange(1, steps.shape[1] + 1)
        ends = ((steps[..., 0] != 0) * at).amax(1)  # steps before the padding
        order = ends.argsort(descending=True, stable=True)
        rest = torch.stack(scan_lstm(self.lstm, torch.zeros(len(at), 1, 1), "_l0_reverse"))[:, :, 0]
        for rows in order.split(CHUNK):
            some, active = steps[rows].transpose(0, 1), (ends[rows] >= at[:, None]).sum(1).tolist()
            states = scan_lstm(self.lstm, some)[0], scan_lstm(self.lstm, some, "_l0_reverse", rest, active)[0]
            vectors.append(attend(states, project.weight, project.bias, context.weight))
        return torch.cat(vectors).index_select(0, order.argsort())


class PacketClassifier(nn.Module):
    """The level that both models of the paper share: a reader over packet vectors, then the head."""

    def __init__(self, inputs: int, settings: Parameters, classes: int) -> None:
        super().__init__()
        self.over_packets = Reader(inputs, settings)
        self.head = nn.Sequential(
            nn.Linear(2 * settings.hidden, HEAD), nn.ReLU(), nn.Dropout(settings.dropout), nn.Linear(HEAD, classes)
        )
        self.register_buffer("weights", torch.ones(classes))

    def classify(self, vectors: Tensor) -> Tensor:
        """Logits ``[samples, classes]`` of packet vectors ``[samples, packets, inputs]``."""
        result: Tensor = self.head(self.over_packets(vectors))
        return result


class Network(PacketClassifier):
    """Both levels of HAN."""

    def __init__(self, settings: Parameters, classes: int) -> None:
        super().__init__(2 * settings.hidden, settings, classes)
        self.over_bytes = ByteReader(1, settings)
        for reader in (self.over_bytes, self.over_packets):
            initialise(reader.lstm)

    def forward(self, packets: Tensor, place: Tensor) -> Tensor:
        """Logits ``[samples, classes]`` of packets uint8 ``[N, bytes]`` and their places (:func:`distinct`)."""
        vectors = self.over_bytes(packets[..., None].float() / 255)
        # index_select: its gradient is added up in one order, that of vectors[place] in the threads' order
        return self.classify(vectors.index_select(0, place.flatten()).unflatten(0, place.shape))


@torch.no_grad()
def initialise(lstm: nn.LSTM) -> None:
    """Input weights uniform within 1 / sqrt(inputs), orthogonal recurrent ones, forget gates that begin open.

    torch scales input weights by the states, not the inputs: a lone byte then changes next to nothing, and training
    does not improve for hundreds of steps.
    """
    for name, values in lstm.named_parameters():
        if name.startswith("weight_ih"):
            values.uniform_(-(lstm.input_size**-0.5), lstm.input_size**-0.5)
        elif name.startswith("weight_hh"):
            for gate in values.chunk(4):
                nn.init.orthogonal_(gate)
        elif name.startswith("bias_ih"):
            values.chunk(4)[1].add_(1)
