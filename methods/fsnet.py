"""FS-Net: a recurrent encoder reads a flow's packet lengths, a decoder writes them down again, both are classified.

C. Liu, L. He, G. Xiong, Z. Cao, Z. Li: "FS-Net: A Flow Sequence Network For Encrypted Traffic Classification", IEEE
INFOCOM 2019, 1171-1179.  "Code" below is the authors' own (WSPTTH/FS-Net, 2020), not one of its later copies.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from bench.method import COUNT, NOT_NEGATIVE, POSITIVE, SHARE, Inputs, Range, parameter
from bench.readers import View
from bench.training.budget import SHARED, TrainingParameters
from bench.training.loop import TorchMethod
from bench.training.packed import packed_gru

PAPER = "INFOCOM paper, as two public ports give it"
CODE = "the authors' code"
OURS = "our choice"
PAD: Final = 0
START: Final = 1
END: Final = 2
LENGTHS: Final = 3  # the word of a packet of n bytes is LENGTHS + n


@dataclass(frozen=True)
class Parameters(TrainingParameters):
    """The paper's sizes; the preset ``code`` has those of the authors' code."""

    packets: int = parameter(100, "packets, from the first", OURS, (16, 50, 100, 200), allowed=COUNT)
    longest: int = parameter(1500, "bytes at which a packet's length is cut", OURS, allowed=COUNT)
    signed: bool = parameter(False, "distinguish lengths of the server from those of the client", OURS)
    payload_only: bool = parameter(False, "leave out packets without payload", OURS)
    embedding: int = parameter(128, "features of an embedded length", PAPER, (16, 64, 128), allowed=COUNT)
    embedding_init: str = parameter(
        "normal",
        "initial rows of the embedding: normal (standard) or glorot (uniform)",
        OURS,
        ("normal", "glorot"),
        allowed=("normal", "glorot"),
    )
    hidden: int = parameter(128, "state of each direction of a GRU layer", PAPER, (64, 128, 256), allowed=COUNT)
    layers: int = parameter(2, "bidirectional GRU layers of encoder and decoder each", PAPER, (1, 2), allowed=COUNT)
    head: str = parameter(
        "product",
        "classified features: product (states, their product and difference, two layers) or plain (states, one layer)",
        PAPER,
        allowed=("product", "plain"),
    )
    alpha: float = parameter(1.0, "weight of the reconstruction's loss", PAPER, (0.0, 0.5, 1.0), allowed=NOT_NEGATIVE)
    dropout: float = parameter(
        0.3, "dropout on embedded lengths, between layers and in the head", PAPER, Range(0.1, 0.5), allowed=SHARE
    )
    batch_size: int = parameter(128, "samples an optimiser step", CODE, allowed=COUNT)
    learning_rate: float = parameter(5e-4, "Adam's step size", PAPER, Range(1e-4, 2e-3, log=True), allowed=POSITIVE)

    @property
    def vocabulary(self) -> int:
        """Words: padding, start, end, and a length of 0 to `longest` (twice but for 0 where signed)."""
        return LENGTHS + 1 + self.longest * (2 if self.signed else 1)


class FSNet(TorchMethod):
    """FS-Net on the IP lengths of a session's packets, pure acknowledgements among them.

    A session without such a packet is an abstention (only with ``payload_only``).
    """

    name: ClassVar[str] = "fsnet"
    reference: ClassVar[str] = "Liu, He, Xiong, Cao, Li: FS-Net, IEEE INFOCOM 2019, 1171-1179"
    reads: ClassVar[frozenset[str]] = frozenset({"lengths", "directions"})
    Parameters: ClassVar[type] = Parameters
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "code": {
            "packets": 200,
            "longest": 5000,
            "embedding": 16,
            "embedding_init": "glorot",
            "head": "plain",
            "alpha": 0.5,
            "dropout": 0.2,
            "learning_rate": 1e-3,
            "steps": 120_000,
            "epochs": 24,  # the code tests every 5,000 steps
        },
        "signed": {"signed": True},
        "shared": {"packets": 16, **SHARED},
    }
    tiny: ClassVar[Mapping[str, Any]] = {
        "packets": 8,
        "embedding": 16,
        "hidden": 16,
        "dropout": 0.1,
        "learning_rate": 5e-3,
        "batch_size": 8,
        "epochs": 8,
    }
    clip_norm: ClassVar[float | None] = 5.0  # the authors' code
    scoring_batch: ClassVar[int] = 256
    deviations: ClassVar[tuple[str, ...]] = (
        "bytes of the IP packet up to 1500 (preset code: 5000); the code begins with sequences of lengths, read "
        "elsewhere: its README's example (2920, 167, 51, 78, 968, 38) fits neither frames nor IP packets",
        "longer sessions are cut at 100 packets (preset code: 200); the code drops flows over 200 packets in training "
        "and over 2,000 in tests",
        "sessions of one packet are kept; the code drops them",
        "the head's second hidden layer has 128 features (not in what is public)",
        "the embedding begins as torch's, rows of norm 11; as the code's (Glorot) they would have 0.4 (preset code); "
        "GRUs and linear layers begin as torch's, too (the code: as TensorFlow's)",
        "GRUs start from zero and stop at the end of the flow; the code learns their first states, and its CuDNN "
        "layers (the default) read a batch's padding, too",
        "dropout on embedded lengths, between GRU layers and after the head's hidden layers, in training alone; the "
        "code has none between layers, and checks a TensorFlow variable in Python for training, so it seems to drop "
        "in tests, too",
        "the learning rate is constant, as it is in effect in the code, which computes a decay (half every two "
        "passes) and gives Adam the constant rate",
        "30 epochs; the code makes 120,000 steps (preset code) and keeps the last",
        "epoch chosen by validation macro-F1 (silent)",
    )

    def represent(self, view: View) -> Inputs:
        """``words`` int16 ``[samples, packets + 2]``: start, a word a packet, end, padding."""
        p = self.parameters
        lengths = view.lengths(p.packets, payload_only=p.payload_only).clip(max=p.longest)
        if p.signed:  # the server's lengths follow the client's; 0 has no side
            served = view.directions(p.packets, payload_only=p.payload_only) < 0
            lengths = np.where(served & (lengths > 0), lengths + p.longest, lengths)
        packets = np.minimum(view.counts(payload_only=p.payload_only), p.packets)
        words = np.zeros((len(view), p.packets + 2), np.int16 if p.vocabulary <= 2**15 else np.int32)
        words[:, 0] = START
        words[:, 1:-1] = np.where(np.arange(p.packets) < packets[:, None], lengths + LENGTHS, PAD)
        words[np.arange(len(view)), packets + 1] = END
        return {"words": words}

    def can_classify(self, inputs: Inputs) -> NDArray[np.bool_]:
        """``[samples]``: False for a session without a packet."""
        return np.asarray(inputs["words"][:, 1] != END)

    def batch(self, rows: Inputs) -> dict[str, Tensor]:
        """The words, on the device, and their number ``sizes`` int64 ``[samples]``, which stays on the CPU."""
        sizes = (rows["words"] != PAD).sum(1)
        return super().batch(rows) | {"sizes": torch.from_numpy(sizes)}

    def network(self) -> nn.Module:
        """A fresh :class:`Network`."""
        return Network(self.parameters, self.classes)

    def loss_divisor(self, labels: Tensor) -> None:
        """None for any ``labels [batch]``: the loss of the reconstruction is a mean over words, not over samples."""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the classes, and ``alpha`` times that of the reconstructed words."""
        reconstruction: Any = self._fitted().reconstruction
        result: Tensor = super().loss(logits, labels) + self.parameters.alpha * reconstruction
        return result


class Network(nn.Module):
    """Encoder, decoder, reconstruction and classifier.

    All of it works on packed sequences: there is no padding to keep out of states or loss.
    """

    reconstruction: Tensor | None = None  # the loss of the last batch in training, mean over words

    def __init__(self, settings: Parameters, classes: int) -> None:
        super().__init__()
        hidden, states = settings.hidden, 2 * settings.layers * settings.hidden
        self.product = settings.head == "product"
        self.embedding = nn.Embedding(settings.vocabulary, settings.embedding)
        if settings.embedding_init == "glorot":
            nn.init.xavier_uniform_(self.embedding.weight)
        self.dropout = nn.Dropout(settings.dropout)
        self.encoder = StackedGru(settings.embedding, settings)
        self.decoder = StackedGru(states, settings)
        self.words = nn.Sequential(nn.Linear(states, hidden), nn.SELU(), nn.Linear(hidden, settings.vocabulary))
        widths = [4 * states, 2 * hidden, hidden] if self.product else [2 * states, 2 * hidden]
        layers = [
            nn.Sequential(nn.Linear(wide, narrow), nn.SELU(), nn.Dropout(settings.dropout))
            for wide, narrow in pairwise(widths)
        ]
        self.classifier = nn.Sequential(*layers, nn.Linear(widths[-1], classes))

    def forward(self, words: Tensor, sizes: Tensor) -> Tensor:
        """Logits ``[samples, classes]`` of words ``[samples, words]``, the first ``sizes [samples]`` of each row."""
        samples = torch.arange(len(words), device=words.device)[:, None].expand_as(words)
        packed = pack_padded_sequence(torch.stack([words.long(), samples], 2), sizes, True, enforce_sorted=False)
        word, sample = packed.data.unbind(1)
        _, encoded = self.encoder(packed._replace(data=self.dropout(self.embedding(word))))
        outputs, decoded = self.decoder(packed._replace(data=encoded[sample]))
        self.reconstruction = F.cross_entropy(self.words(outputs).float(), word) if self.training else None
        features = [encoded, decoded]
        if self.product:
            features += [encoded * decoded, (encoded - decoded).abs()]
        result: Tensor = self.classifier(torch.cat(features, 1))
        return result

    def diagnostics(self) -> dict[str, Tensor]:
        """The reconstruction's loss of the last batch, a scalar, nats a word."""
        return {} if self.reconstruction is None else {"reconstruction_loss": self.reconstruction.detach()}


class StackedGru(nn.Module):
    """Bidirectional GRU layers of which every layer's outputs and final states are used."""

    def __init__(self, inputs: int, settings: Parameters) -> None:
        super().__init__()
        hidden = settings.hidden
        widths = [inputs, *[2 * hidden] * (settings.layers - 1)]
        self.layers = nn.ModuleList(nn.GRU(width, hidden, bidirectional=True) for width in widths)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, sequence: PackedSequence) -> tuple[Tensor, Tensor]:
        """Outputs ``[words, 2 * layers * hidden]`` in packed order and states ``[samples, 2 * layers * hidden]``."""
        outputs: list[Tensor] = []
        states: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            if number:
                sequence = sequence._replace(data=self.dropout(sequence.data))
            sequence, final = packed_gru(cast(nn.GRU, layer), sequence)
            outputs.append(sequence.data)
            states += final.unbind(0)
        return torch.cat(outputs, 1), torch.cat(states, 1)
