"""Deep Packet (SAE): every packet alone through a stacked auto-encoder, pre-trained layer by layer.

The second network of the paper behind ``deeppacket``, which shares the packets, the under-sampling and the aggregation
to sessions with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from bench.method import COUNT, NOT_NEGATIVE, Part, parameter, take
from bench.training.budget import SHARED, batches
from bench.training.initial import begin
from bench.training.loop import TrainingDiverged
from methods.deeppacket import DEVIATIONS, DeepPacket, PacketNetwork, PacketParameters

WIDTHS: Final = (400, 300, 200, 100, 50)


@dataclass(frozen=True)
class Parameters(PacketParameters):
    """The auto-encoder; 200 epochs for each layer and 200 more with labels."""

    epochs: int = parameter(200, "passes over the training packets, with labels", "architectures", allowed=COUNT)
    pretraining_epochs: int = parameter(
        200,
        "passes over the training packets to pre-train each of the five layers; --epochs does not change it",
        "architectures",
        (0, 10, 50, 200),
        allowed=NOT_NEGATIVE,
    )


class DeepPacketSae(DeepPacket):
    """Deep Packet's stacked auto-encoder on single packets, lifted to sessions.

    A session without an eligible packet (handshake alone, DNS) is an abstention.
    """

    name: ClassVar[str] = "deeppacket-sae"
    Parameters: ClassVar[type] = Parameters
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "shared": {"packets": 16, "mask_ports": True, "pretraining_epochs": 10, **SHARED},
    }
    tiny: ClassVar[Mapping[str, Any]] = {
        "packets": 4,
        "bytes": 96,
        "pretraining_epochs": 1,
        "batch_size": 16,
        "epochs": 12,
        "learning_rate": 1e-3,
    }
    deviations: ClassVar[tuple[str, ...]] = (
        *DEVIATIONS,
        "no batch normalisation: the paper uses it and does not say in which of its two networks",
        "ReLU after every encoder (silent)",
        "decoders are one linear layer each and thrown away; while a later layer is pre-trained, earlier ones "
        "are frozen and have no dropout (silent)",
        "pre-training uses the under-sampled packets, Adam, and the step size of the other training (silent)",
        "preset shared pre-trains each layer for 10 epochs, a twentieth of what the paper does",
    )

    def network(self) -> nn.Module:
        """A fresh :class:`PacketNetwork` over five encoders and the softmax layer."""
        p = self.parameters
        encoders = (
            nn.Sequential(nn.Linear(wide, narrow), nn.ReLU(), nn.Dropout(p.dropout))
            for wide, narrow in pairwise((p.bytes, *WIDTHS))
        )
        return PacketNetwork(nn.Sequential(*encoders, nn.Linear(WIDTHS[-1], self.classes)), p.aggregate)

    def before_training(self, network: nn.Module, train: Part, rows: NDArray[np.int64]) -> None:
        """Greedy pre-training: each encoder with a decoder of its own gives back the layer below (squared error)."""
        body: Any = network.body
        draw = np.random.default_rng((self.seed, 1))  # the loop's shuffles come from the seed alone
        for depth, encoder in enumerate(body[:-1]):
            if not np.isfinite(self._pretrain(encoder.train(), body[:depth].eval(), train, rows, draw)):
                raise TrainingDiverged(
                    f"{self.name}: encoder {depth + 1} diverged in pre-training; lower learning_rate"
                )

    def _pretrain(
        self, encoder: Any, below: nn.Module, train: Part, rows: NDArray[np.int64], draw: np.random.Generator
    ) -> float:
        """Train one encoder on what the layers ``below`` make of the packets; its last loss."""
        p, loss = self.parameters, torch.zeros(())
        decoder = nn.Linear(encoder[0].out_features, encoder[0].in_features)
        begin(decoder, nn.init.xavier_uniform_).to(self.device)
        optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=p.learning_rate, fused=True)
        for _ in range(p.pretraining_epochs):
            for some in batches(draw.permutation(rows), p.batch_size):
                packets = self.batch(take(train.inputs, some))["bytes"].flatten(1).float() / 255
                with self.precision():
                    with torch.no_grad():
                        seen = below(packets)
                    loss = F.mse_loss(decoder(encoder(seen)).float(), seen.float())
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
        return loss.item()
