"""Deep Packet (CNN): every packet alone, its bytes from the IP header on, through two convolutions.

M. Lotfollahi, M. Jafari Siavoshani, R. Shirali Hossein Zade, M. Saberian: "Deep Packet: a novel approach for
encrypted traffic classification using deep learning", Soft Computing 24, 2020, 1999-2012; arXiv 1709.02656.

The paper classifies packets.  Here the split is by session, packets of training sessions train, and a session's
answer is made from its packets' (`bench.training.aggregate_packets`), so that all methods share one test set.
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
from bench.readers import View
from bench.training.balance import balanced
from bench.training.budget import SHARED, TrainingParameters
from bench.training.initial import begin
from bench.training.units import PacketMethod, aggregate_packets, eligible_rows, samples_of

UDP: Final = 17
UDP_HEADER: Final = 8  # bytes
INSERTED: Final = 12  # zeros that make a UDP header as long as TCP's
DNS: Final = 53
HEADERS: Final = 28  # IPv4 and UDP: less holds nothing to tell packets apart
BLOCK: Final = 1 << 14  # packets whose bytes are moved at once: bounds the copy to some 25 MB

#: what both networks of the paper differ in from it
DEVIATIONS: Final[tuple[str, ...]] = (
    "split by session before packets are taken; the paper splits packets at random, so that one flow can be on both "
    "sides",
    "the first packets of each session train, 16 by default; the paper takes all of the capture",
    "scores are of sessions alone; the paper's are of packets",
    "packets without payload are dropped: also RST without ACK and empty UDP datagrams, which the paper's rule "
    "(SYN, ACK or FIN without payload) keeps",
    "DNS is recognised by port 53; with masked ports it cannot be recognised and is kept",
    "checksums are masked together with the addresses, because they would reveal them (the paper masks only the "
    "addresses)",
    "IPv6 with both addresses masked, IP options as they are, both within the first 1500 bytes (silent)",
    "a UDP header behind AH or an IPv6 extension header is not lengthened",
    "a session's answer is the mean log probability of its packets, or their vote (the paper has no sessions)",
    "under-sampling to at most three times the smallest class, on training packets alone (paper: until relatively "
    "balanced, part unsaid)",
    "weights begin as in the authors' framework, Keras (Glorot, zero biases; silent)",
    "batches of 256 packets, step size 1e-3, dropout after each hidden layer's ReLU, early stop after 5 epochs "
    "without improvement (silent)",
    "the best epoch by validation macro-F1 of sessions; the paper stops by validation loss",
)


@dataclass(frozen=True)
class PacketParameters(TrainingParameters):
    """What both networks of the paper share: packets, their bytes, and training."""

    packets: int = parameter(16, "packets with payload a session", "our choice", (1, 4, 16), allowed=COUNT)
    bytes: int = parameter(1500, "bytes a packet, from the IP header on", "pre-processing", allowed=COUNT)
    mask_ports: bool = parameter(False, "hide ports; DNS can then not be recognised", "pre-processing")
    balance: str = parameter(
        "undersample",
        "training packets: undersample (at most balance_ratio times the smallest class) or keep",
        "pre-processing",
        allowed=("undersample", "keep"),
    )
    balance_ratio: float = parameter(
        3.0,
        "most training packets of a class, as a multiple of those of the smallest class",
        "our choice",
        (1.0, 3.0, 10.0),
        allowed=COUNT,
    )
    aggregate: str = parameter(
        "mean",
        "a session's answer: mean log probability of its packets, or their vote",
        "our choice",
        ("mean", "vote"),
        allowed=("mean", "vote"),
    )
    dropout: float = parameter(0.05, "dropout after each hidden layer", "architectures", Range(0.0, 0.3), allowed=SHARE)
    epochs: int = parameter(300, "passes over the training packets", "architectures", allowed=COUNT)
    batch_size: int = parameter(256, "packets an optimiser step", "our choice", allowed=COUNT)
    learning_rate: float = parameter(
        1e-3, "Adam's step size", "our choice", Range(3e-4, 3e-3, log=True), allowed=POSITIVE
    )
    patience: int | None = parameter(
        5,
        "stop after so many epochs in which neither validation score nor loss gets better; none: never",
        "our choice",
        allowed=COUNT,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bytes < HEADERS:
            raise InputError(
                "bad-parameter", f"parameter bytes={self.bytes}: shorter than the headers; take {HEADERS} or more"
            )


@dataclass(frozen=True)
class Parameters(PacketParameters):
    """The CNN for traffic characterisation (12 services); preset `applications` is the other one."""

    filters: int = parameter(200, "filters of each convolution", "architectures", (100, 200), allowed=COUNT)
    first_kernel: int = parameter(5, "bytes that a first filter covers", "architectures", (3, 4, 5), allowed=COUNT)
    first_stride: int = parameter(3, "stride of the first filters", "architectures", (1, 2, 3), allowed=COUNT)
    second_kernel: int = parameter(4, "places that a second filter covers", "architectures", (3, 4, 5), allowed=COUNT)
    second_stride: int = parameter(3, "stride of the second filters", "architectures", (1, 2, 3), allowed=COUNT)
    batch_norm: bool = parameter(
        True, "normalise each convolution before its ReLU", "architectures; place: our choice", (True, False)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooled < 1:
            raise InputError(
                "bad-parameter", f"parameter bytes={self.bytes}: too few for these kernels and strides; take more"
            )

    @property
    def pooled(self) -> int:
        """Places left after both convolutions and the pooling by two."""
        first = (self.bytes - self.first_kernel) // self.first_stride + 1
        return ((first - self.second_kernel) // self.second_stride + 1) // 2


class DeepPacket(PacketMethod):
    """Deep Packet's CNN on single packets, lifted to sessions.

    A session without an eligible packet (handshake alone, DNS) is an abstention.
    """

    name: ClassVar[str] = "deeppacket"
    reference: ClassVar[str] = "Lotfollahi et al.: Deep Packet, Soft Computing 24, 2020, 1999-2012, arXiv:1709.02656"
    reads: ClassVar[frozenset[str]] = frozenset({"ip_bytes", "ports"})
    Parameters: ClassVar[type] = Parameters
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "applications": {"first_kernel": 4, "first_stride": 3, "second_kernel": 5, "second_stride": 1},
        "shared": {"packets": 16, "mask_ports": True, **SHARED},
        "small": {"packets": 8},  # our choice: reduced, for machines without a GPU
    }
    tiny: ClassVar[Mapping[str, Any]] = {
        "packets": 4,
        "bytes": 96,
        "filters": 16,
        "batch_size": 32,
        "epochs": 8,
        "learning_rate": 3e-3,
    }
    deviations: ClassVar[tuple[str, ...]] = (
        *DEVIATIONS,
        "batch normalisation after each convolution, before its ReLU (the paper uses it and does not say where), with "
        "torch's constants",
        "the paper chose kernels and strides on its test set, 116 models; they are kept as they are",
    )

    def represent(self, view: View) -> Inputs:
        """``bytes`` uint8 ``[samples, packets, bytes]`` of packets with payload, UDP headers lengthened to 20 bytes.

        ``eligible`` bool ``[samples, packets]``: packets of which the capture holds something, and not DNS.
        """
        p = self.parameters
        mask = ("addresses", "checksums", "ports") if p.mask_ports else ("addresses", "checksums")
        packets = view.ip_bytes(p.packets, p.bytes, mask=mask, payload_only=True)
        eligible = packets[:, :, 0] > 0  # IP's version and header length, never 0
        if not p.mask_ports:
            eligible &= ~(view.ports() == DNS).any(axis=1)[:, None]
        lengthen_udp(packets.reshape(-1, p.bytes))
        return {"bytes": packets, "eligible": eligible}

    def sample_rows(self, labels: NDArray[np.int64], draw: np.random.Generator) -> NDArray[np.int64]:
        """The packets to train on: all, or of each class at most ``balance_ratio`` times what the smallest has."""
        return balanced(labels, draw, self.parameters.balance, self.parameters.balance_ratio)

    def network(self) -> nn.Module:
        """A fresh :class:`PacketNetwork` over the convolutions."""
        return PacketNetwork(convolutions(self.parameters, self.classes), self.parameters.aggregate)


def lengthen_udp(packets: NDArray[np.uint8]) -> None:
    """Insert 12 zeros behind the UDP headers of IP packets uint8 ``[N, bytes]``, in place; the ends are cut off."""
    size = packets.shape[1]
    for block in (packets[start : start + BLOCK] for start in range(0, len(packets), BLOCK)):
        version4 = block[:, 0] >> 4 == 4
        header = np.where(version4, (block[:, 0] & 15).astype(np.intp) * 4, 40)
        is_udp = np.where(version4, block[:, 9], block[:, 6]) == UDP
        for length in np.unique(header[is_udp]):
            rows = np.flatnonzero(is_udp & (header == length))
            payload = length + UDP_HEADER
            moved = block[rows, payload : max(payload, size - INSERTED)]
            block[rows, payload : payload + INSERTED] = 0
            block[rows, payload + INSERTED :] = moved


def convolutions(settings: Parameters, classes: int) -> nn.Sequential:
    """Logits ``[N, classes]`` of packets ``[N, bytes]``: two convolutions, pooling, 200-100-50."""
    layers: list[nn.Module] = [nn.Unflatten(1, (1, settings.bytes))]
    for inputs, kernel, stride in (
        (1, settings.first_kernel, settings.first_stride),
        (settings.filters, settings.second_kernel, settings.second_stride),
    ):
        layers.append(nn.Conv1d(inputs, settings.filters, kernel, stride))
        if settings.batch_norm:
            layers.append(nn.BatchNorm1d(settings.filters))
        layers.append(nn.ReLU())
    layers += [nn.MaxPool1d(2), nn.Flatten()]
    width = settings.filters * settings.pooled
    for hidden in (200, 100, 50):
        layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(settings.dropout)]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, classes))


class PacketNetwork(nn.Module):
    """A classifier of packets, ``body``, whose answers are lifted to sessions."""

    def __init__(self, body: nn.Module, aggregate: str) -> None:
        super().__init__()
        self.body = begin(body, nn.init.xavier_uniform_)  # as Keras
        self.aggregate = aggregate

    def forward(self, bytes: Tensor, eligible: Tensor) -> Tensor:
        """Logits ``[samples, classes]`` of packets uint8 ``[samples, packets, bytes]``, of those eligible."""
        logits = self.body(eligible_rows(bytes, eligible).float() / 255)
        if self.aggregate == "vote" and not self.training:  # a vote has no gradient; training packets are alone
            return votes(logits, eligible).log()
        return aggregate_packets(logits, eligible)


def votes(logits: Tensor, eligible: Tensor) -> Tensor:
    """Share ``[samples, classes]`` of a sample's eligible packets whose best class it is; as `aggregate_packets`."""
    ballots = F.one_hot(logits.argmax(1), logits.shape[1]).float()
    counts = torch.zeros(len(eligible), logits.shape[1], device=logits.device)
    return counts.index_add(0, samples_of(eligible, len(ballots)), ballots) / eligible.sum(1, keepdim=True)
