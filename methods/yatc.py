"""YaTC: a masked auto-encoder over a matrix of five packets, and a transformer within packets and over them.

R. Zhao, M. Zhan, X. Deng, Y. Wang, Y. Wang, G. Gui, Z. Xue: "Yet Another Traffic Classifier: A Masked Autoencoder Based
Traffic Transformer with Multi-Level Flow Representation", AAAI 37(4), 2023, 5420-5427.  Sizes and steps are those of
the authors' code (NSSL-SJTU/YaTC), which has no licence: nothing here is copied from it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import InputError
from bench.method import COUNT, NOT_NEGATIVE, PART, POSITIVE, SHARE, Inputs, Range, parameter
from bench.readers import MASKS, View
from bench.training.budget import SHARED, PretrainingParameters
from bench.training.initial import PretrainedMethod, begin

PACKETS: Final = 5
HEADER: Final = 80  # bytes of a packet's headers, from IP on
PAYLOAD: Final = 240
LONGEST: Final = 120  # bytes of headers after which payload is looked for: IPv4 and TCP with all their options
SIDE: Final = 40  # of the matrix; a packet has 8 of its rows
PATCHES: Final = SIDE // 2  # a side; a packet has 4 rows of them
CODE: Final = "authors' code"
#: of all methods that read :func:`flow_matrix` and pre-train as a masked auto-encoder does
DEVIATIONS: Final[tuple[str, ...]] = (
    "pre-trained on the training part of the split alone; the authors pre-trained on whole public data sets",
    "headers are separated from payload by their declared length; after 120 bytes of headers payload is cut (the "
    "authors' code takes the payload's bytes out of the packet's wherever they recur)",
    "in fine-tuning step sizes stay constant after the warm-up; those of the authors fall by half a cosine",
    "pre-training warms up over a tenth of its steps; that of the authors over 25 passes over their data",
    "a pass's last batch may be smaller (the authors': dropped)",
)


@dataclass(frozen=True)
class MaskedParameters(PretrainingParameters):
    """What masked auto-encoders over :func:`flow_matrix` have in common, as their authors' codes have it."""

    layers: int = parameter(4, "encoder layers", CODE, allowed=COUNT)
    decoder_width: int = parameter(128, "features of a token in the decoder", CODE, allowed=COUNT)
    decoder_layers: int = parameter(2, "decoder layers", CODE, allowed=COUNT)
    mask_ratio: float = parameter(
        0.9, "part of the tokens that is hidden from the encoder", CODE, Range(0.5, 0.95), allowed=PART
    )
    drop_path: float = parameter(
        0.1, "part of the samples that skip the last encoder layer; less in those before", CODE, (0.0, 0.1, 0.2),
        allowed=SHARE,
    )  # fmt: skip
    smoothing: float = parameter(0.1, "part of a label that is shared among all classes", CODE, allowed=SHARE)
    weight_decay: float = parameter(0.05, "AdamW's, of weights that are no biases or norms", CODE, allowed=NOT_NEGATIVE)
    layer_decay: float = parameter(
        0.75, "factor of the step size from each encoder layer to the one below", CODE, Range(0.5, 1.0), allowed=PART
    )
    batch_size: int = parameter(64, "samples an optimiser step", CODE, allowed=COUNT)
    learning_rate: float = parameter(
        5e-4, "step size of the head after the warm-up", CODE, Range(1e-4, 3e-3, log=True), allowed=POSITIVE
    )
    pretraining_steps: int = parameter(150_000, "optimiser steps without labels", CODE, allowed=COUNT)
    pretraining_rate: float = parameter(
        5e-4, "highest learning rate without labels: linear up to it, then a half cosine to 0", CODE, allowed=POSITIVE
    )


@dataclass(frozen=True)
class Parameters(MaskedParameters):
    """Those of the authors' code."""

    mask: str = parameter(
        "all",
        "what of the headers is set to zero: all (addresses, ports, checksums), addresses (and checksums), or nothing",
        "our choice",
        allowed=("all", "addresses", "nothing"),
    )
    width: int = parameter(192, "features of a token, a patch of 2x2 bytes", CODE, allowed=COUNT)
    layers: int = parameter(4, "encoder layers, the same ones within packets and over them", CODE, allowed=COUNT)
    heads: int = parameter(16, "attention heads, of encoder and decoder", CODE, allowed=COUNT)
    epochs: int = parameter(200, "passes over the training part", CODE, allowed=COUNT)
    warmup: float = parameter(
        0.1, "part of all steps over which the learning rate rises linearly", CODE, (0.0, 0.1), allowed=SHARE
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "decoder_width"):
            if getattr(self, name) % (parts := math.lcm(4, self.heads)):
                what = f"must be a multiple of {parts}, for positions and {self.heads} heads"
                raise InputError("bad-parameter", f"parameter {name}={getattr(self, name)}: {what}")


class Yatc(PretrainedMethod):
    """YaTC: five packets as a 40x40 matrix, masked auto-encoding first, then attention in packets and over them.

    A session without a captured byte is an abstention.
    """

    name: ClassVar[str] = "yatc"
    reference: ClassVar[str] = "Zhao, Zhan, Deng, Wang, Wang, Gui, Xue: YaTC, AAAI 37(4), 2023, 5420-5427"
    reads: ClassVar[frozenset[str]] = frozenset(
        {"ip_bytes", "lengths", "payload_lengths", "addresses", "ports", "checksums"}
    )
    Parameters: ClassVar[type] = Parameters
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "code": {"mask": "nothing"},
        "scratch": {"pretraining": "scratch"},
        "frozen": {"pretraining": "frozen"},
        "shared": {"pretraining_steps": 2000, **SHARED},
        "small": {"pretraining_steps": 500, "pretraining_batch": 64, "epochs": 20},  # our choice: without a GPU
    }
    tiny: ClassVar[Mapping[str, Any]] = {
        "width": 24,
        "layers": 1,
        "heads": 2,
        "decoder_width": 8,
        "decoder_layers": 1,
        "drop_path": 0.0,
        "smoothing": 0.0,
        "layer_decay": 1.0,
        "pretraining_steps": 5,
        "pretraining_batch": 16,
        "batch_size": 16,
        "epochs": 30,
        "learning_rate": 3e-3,
    }
    deviations: ClassVar[tuple[str, ...]] = (
        "addresses, ports and checksums are set to zero (the authors' code keeps all: preset code)",
        *DEVIATIONS,
        "sessions of any transport protocol and of IPv6 (the authors' code stops at a packet without IPv4)",
        "epoch chosen by validation macro-F1 (the authors' code: by test accuracy)",
        "positions are fixed while it pre-trains and learned afterwards, as in the authors' code; from scratch they "
        "begin as sines and cosines, too (there: as its library's)",
        "in pre-training neither class token nor mask token decays (the authors' do)",
    )

    def represent(self, view: View) -> Inputs:
        """``matrix`` uint8 ``[samples, 40, 40]``: of each of five packets 80 bytes of headers and 240 of payload."""
        mask = {"all": MASKS, "addresses": ("addresses", "checksums"), "nothing": ()}[self.parameters.mask]
        captured = view.ip_bytes(PACKETS, LONGEST + PAYLOAD, mask=mask)
        payload = view.payload_lengths(PACKETS, payload_only=False)
        return {"matrix": flow_matrix(captured, view.lengths(PACKETS) - payload, payload)}

    def can_classify(self, inputs: Inputs) -> NDArray[np.bool_]:
        """Bool ``[samples]``: False for a session without a captured byte."""
        return np.asarray(inputs["matrix"].any(axis=(1, 2)))

    def network(self) -> nn.Module:
        """A fresh :class:`TrafficTransformer`; over pre-trained layers its head begins near 0, as the authors' does."""
        network = TrafficTransformer(self.parameters, self.classes)
        if self.encoded:
            nn.init.trunc_normal_(network.head.weight, std=2e-5)
        return network

    def pretraining_network(self) -> nn.Module:
        """A fresh :class:`MaskedAutoencoder`."""
        return MaskedAutoencoder(self.parameters)

    def loss_divisor(self, labels: Tensor) -> Tensor | None:
        """The samples of ``labels [batch]``: a scalar, int."""
        return super().loss_divisor(labels)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy with smoothed labels."""
        return F.cross_entropy(logits, labels, label_smoothing=self.parameters.smoothing)

    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """AdamW; each encoder layer's step is smaller than that of the one above it."""
        p = self.parameters

        def depth(name: str) -> int:
            """Layers above: none for the head and the last norm, all for what embeds patches."""
            parts = name.split(".")
            if parts[0] != "encoder" or parts[1] == "norm":
                return 0
            below = int(parts[2]) if parts[1] == "blocks" else -1
            return int(p.layers) - below

        named = [(name, weights) for name, weights in network.named_parameters() if weights.requires_grad]
        return torch.optim.AdamW([
            {"params": [weights], "share": p.layer_decay ** depth(name),
             "weight_decay": p.weight_decay if decays(name, weights) else 0.0}
            for name, weights in named
        ])  # fmt: skip

    def pretraining_optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """AdamW with the shorter memory of masked auto-encoders."""
        named = [(name, weights) for name, weights in network.named_parameters() if weights.requires_grad]
        groups = [
            {"params": [weights for name, weights in named if decays(name, weights) == long], "weight_decay": decay}
            for long, decay in ((True, self.parameters.weight_decay), (False, 0.0))
        ]
        return torch.optim.AdamW(groups, betas=(0.9, 0.95))

    def authors_name(self, name: str) -> str:
        """As their checkpoints have it, with timm's names."""
        theirs = {"patch": "patch_embed.proj", "token": "cls_token", "position": "pos_embed"}
        theirs |= {"in_norm": "norm1", "mixed": "attn.qkv", "output": "attn.proj", "out_norm": "norm2"}
        return ".".join((theirs | {"wide": "mlp.fc1", "narrow": "mlp.fc2"}).get(part, part) for part in name.split("."))


def decays(name: str, weights: Tensor) -> bool:
    """Whether weight decay holds for weights ``[...]``: not for biases, norms, the class token and positions."""
    return weights.ndim > 1 and not name.endswith(("token", "position"))


def flow_matrix(
    captured: NDArray[np.uint8], headers: NDArray[np.int32], payload: NDArray[np.int32]
) -> NDArray[np.uint8]:
    """uint8 ``[S, 40, 40]`` of bytes from the IP header on ``[S, 5, LONGEST + 240]`` and both lengths ``[S, 5]``.

    A packet fills eight rows: its headers, cut or padded with zeros to 80 bytes, then its payload, to 240.
    """
    begin_at = headers.clip(0, LONGEST)[..., None].astype(np.int64)
    place = np.arange(PAYLOAD)
    head = np.where(place[:HEADER] < begin_at, captured[..., :HEADER], 0)
    body = np.where(place < payload[..., None], np.take_along_axis(captured, begin_at + place, axis=2), 0)
    matrix: NDArray[np.uint8] = np.concatenate([head, body], axis=2).astype(np.uint8).reshape(-1, SIDE, SIDE)
    return matrix


def patches(pixels: Tensor) -> Tensor:
    """``[N, 400, 4]``: the 2x2 patches of matrices ``[N, 40, 40]``, row after row."""
    cut = pixels.unflatten(1, (PATCHES, 2)).unflatten(3, (PATCHES, 2)).transpose(2, 3)
    result: Tensor = cut.flatten(1, 2).flatten(2)
    return result


class SkipPath(nn.Dropout):
    """Stochastic depth: with probability ``p`` a sample's part is 0, else scaled up."""

    def forward(self, values: Tensor) -> Tensor:
        """``[N, tokens, width]`` of the same."""
        result: Tensor = values * super().forward(values.new_ones(len(values), 1, 1))
        return result


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual."""

    def __init__(self, width: int, heads: int, skip: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.in_norm = nn.LayerNorm(width, eps=1e-6)
        self.mixed = nn.Linear(width, 3 * width)  # queries, keys and values
        self.output = nn.Linear(width, width)
        self.out_norm = nn.LayerNorm(width, eps=1e-6)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.skip = SkipPath(skip)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[N, tokens, width]`` of the same."""
        split = self.mixed(self.in_norm(tokens)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(split[0], split[1], split[2])
        tokens = tokens + self.skip(self.output(seen.transpose(1, 2).flatten(2)))
        result: Tensor = tokens + self.skip(self.narrow(F.gelu(self.wide(self.out_norm(tokens)))))
        return result


class Encoder(nn.Module):
    """What both networks share: patches embedded, their positions, the class token, the layers."""

    def __init__(self, settings: Parameters, skip: float = 0.0) -> None:
        super().__init__()
        width, last = settings.width, max(1, settings.layers - 1)
        self.patch = nn.Linear(4, width)
        self.token = nn.Parameter(torch.randn(width) * 0.02)
        self.position = nn.Parameter(grid_positions(width))
        self.blocks = nn.ModuleList(
            Block(width, settings.heads, skip * depth / last) for depth in range(settings.layers)
        )

    def embedded(self, pixels: Tensor) -> Tensor:
        """Tokens ``[N, 400, width]`` of bytes as shares of 255, ``[N, 40, 40]``; without the class token."""
        tokens: Tensor = self.patch(2 * patches(pixels) - 1) + self.position[1:]
        return tokens

    def with_token(self, tokens: Tensor) -> Tensor:
        """``[N, 1 + tokens, width]``: the class token before them, through all layers."""
        first = (self.token + self.position[0]).expand(len(tokens), 1, -1)
        return self.through(torch.cat([first.to(tokens), tokens], dim=1))

    def through(self, tokens: Tensor) -> Tensor:
        """``[N, tokens, width]`` of the same, through all layers."""
        for block in self.blocks:
            tokens = block(tokens)
        return tokens

    def forward(self, pixels: Tensor) -> Tensor:
        """Features ``[N, width]`` of bytes as shares of 255, ``[N, 40, 40]``.

        Within a packet: its patches and a class token; then each packet's token and its patches, averaged over its four
        rows of them, through the same layers; the mean of the packets' tokens.
        """
        tokens = self.with_token(self.embedded(pixels).unflatten(1, (PACKETS, -1)).flatten(0, 1))
        pooled = tokens[:, 1:].unflatten(1, (-1, PATCHES)).mean(1)
        flow = torch.cat([tokens[:, :1], pooled], dim=1).unflatten(0, (-1, PACKETS)).flatten(1, 2)
        result: Tensor = self.through(flow).unflatten(1, (PACKETS, -1))[:, :, 0].mean(1)
        return result


class TrafficTransformer(nn.Module):
    """The classifier."""

    def __init__(self, settings: Parameters, classes: int) -> None:
        super().__init__()
        self.encoder = begin(Encoder(settings, settings.drop_path), nn.init.xavier_uniform_)
        self.norm = nn.LayerNorm(settings.width, eps=1e-6)
        self.head = nn.Linear(settings.width, classes)

    def forward(self, matrix: Tensor) -> Tensor:
        """Logits ``[N, classes]`` of bytes, uint8 ``[N, 40, 40]``."""
        result: Tensor = self.head(self.norm(self.encoder(matrix.float() / 255)))
        return result


class MaskedNetwork(nn.Module):
    """What masked auto-encoders share: which of ``count`` tokens are seen, and the error over the hidden ones."""

    hidden: nn.Parameter  # the mask token

    def __init__(self, mask_ratio: float, count: int) -> None:
        super().__init__()
        self.seen = max(1, int(count * (1 - mask_ratio)))  # 39 of 400 at 0.9: floats, as in the authors' codes

    def visible(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens that are seen of ``[N, 400, width]``, drawn anew for each sample: ``[N, seen, width]``, places."""
        place = torch.rand(tokens.shape[:2], device=tokens.device).argsort(1)[:, : self.seen]
        return tokens.gather(1, place[..., None].expand(-1, -1, tokens.shape[2])), place

    def filled(self, seen: Tensor, place: Tensor, count: int) -> Tensor:
        """``[N, count, width]``: those seen ``[N, seen, width]`` at their places, the mask token at all others."""
        return self.hidden.to(seen).repeat(len(seen), count, 1).index_put((_row(place), place), seen)

    def error(self, found: Tensor, expected: Tensor, place: Tensor) -> Tensor:
        """Mean squared error over the tokens ``[N, count, bytes]`` at no place ``[N, seen]``: a scalar."""
        error = (found.float() - expected).square().mean(2)
        masked = torch.ones_like(error).index_put((_row(place), place), error.new_zeros(()))
        result: Tensor = (error * masked).sum() / masked.sum().clamp(min=1)
        return result


def _row(place: Tensor) -> Tensor:
    return torch.arange(len(place), device=place.device)[:, None]


class MaskedAutoencoder(MaskedNetwork):
    """Gives hidden patches back from those that are seen."""

    def __init__(self, settings: Parameters) -> None:
        wide, narrow = settings.width, settings.decoder_width
        super().__init__(settings.mask_ratio, PATCHES**2)
        self.encoder = Encoder(settings)
        self.encoder.position.requires_grad_(False)
        self.norm = nn.LayerNorm(wide, eps=1e-6)
        self.narrow = nn.Linear(wide, narrow)
        self.hidden = nn.Parameter(torch.randn(narrow) * 0.02)
        self.position = nn.Parameter(grid_positions(narrow), requires_grad=False)
        self.blocks = nn.Sequential(*(Block(narrow, settings.heads) for _ in range(settings.decoder_layers)))
        self.last = nn.LayerNorm(narrow, eps=1e-6)
        self.bytes = nn.Linear(narrow, 4)
        begin(self, nn.init.xavier_uniform_)

    def forward(self, matrix: Tensor) -> Tensor:
        """Mean squared error over the hidden patches of bytes, uint8 ``[N, 40, 40]``: a scalar."""
        pixels = matrix.float() / 255
        seen, place = self.visible(self.encoder.embedded(pixels))
        tokens = self.narrow(self.norm(self.encoder.with_token(seen)))
        filled = self.filled(tokens[:, 1:], place, PATCHES**2)
        decoded = self.last(self.blocks(torch.cat([tokens[:, :1], filled], dim=1) + self.position))
        return self.error(self.bytes(decoded[:, 1:]), 2 * patches(pixels) - 1, place)


def grid_positions(width: int) -> Tensor:
    """Position codes ``[401, width]``, 0 for the class token: columns in the first half, rows in the second.

    Sines, then cosines, base 10000.
    """
    angle = torch.arange(PATCHES)[:, None] / 10000 ** (torch.arange(width // 4) / (width // 4))
    codes = torch.cat([angle.sin(), angle.cos()], dim=1)
    across, down = codes.repeat(PATCHES, 1), codes.repeat_interleave(PATCHES, 0)
    return F.pad(torch.cat([across, down], dim=1), (0, 0, 1, 0))
