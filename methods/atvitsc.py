"""ATVITSC: a packet vision transformer and a convolutional LSTM over the same packet images, fused by a gate.

Y. Liu, X. Wang, B. Qu, F. Zhao: "ATVITSC: A Novel Encrypted Traffic Classification Method Based on Deep
Learning", IEEE Transactions on Information Forensics and Security 19, 2024, 9374-9389.

The paper tiles the packet images into one session image and embeds it by a convolution whose kernel and stride
are one packet image.  That convolution is a linear map of each packet's bytes, so no image is ever tiled here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import InputError
from bench.method import COUNT, POSITIVE, SHARE, Inputs, Range, parameter
from bench.readers import View
from bench.training.budget import SHARED, TrainingParameters
from bench.training.loop import TorchMethod

LENGTHS = 1500  # rows of the length table: 0 ... 1499 bytes
PIXELS = 1 << 13  # whose maps are made at a time


@dataclass(frozen=True)
class Parameters(TrainingParameters):
    """Table I where the paper speaks; elsewhere the choices listed in ``deviations``."""

    packets: int = parameter(16, "packets with payload a session", "IV-C-1", (4, 9, 16, 25, 36, 49), allowed=COUNT)
    bytes: int = parameter(256, "payload bytes a packet; a square number", "IV-C-1", allowed=COUNT)
    branches: str = parameter(
        "both", "both, global or spatiotemporal", "IV-F", allowed=("both", "global", "spatiotemporal")
    )
    width: int = parameter(256, "features of each branch", "Table I", allowed=COUNT)
    layers: int = parameter(2, "encoder layers", "Table I", (1, 2, 3), allowed=COUNT)
    heads: int = parameter(12, "attention heads", "Table I", allowed=COUNT)
    head_width: int = parameter(64, "features of one attention head", "our choice", (21, 32, 64), allowed=COUNT)
    feedforward: int = parameter(
        2048, "hidden features of an encoder layer", "Table I", (512, 1024, 2048), allowed=COUNT
    )
    length_init: str = parameter(
        "normal",
        "initial rows of the length embedding: normal (standard, an embedding's own, of norm 16) or linear (uniform "
        "within 1 / sqrt(1500), those of a linear layer on one-hot lengths, of norm 0.24)",
        "our choice",
        ("normal", "linear"),
        allowed=("normal", "linear"),
    )
    mask_padding: bool = parameter(False, "keep attention from packets that are padding", "our choice")
    final_norm: bool = parameter(True, "LayerNorm after the last encoder layer", "our choice")
    encoder_dropout: float = parameter(0.1, "dropout inside the encoder", "our choice", Range(0.0, 0.5), allowed=SHARE)
    resatconv_layers: int = parameter(1, "ResAtConv blocks", "III-C-1", (1, 2), allowed=COUNT)
    channels: int = parameter(64, "channels of a ResAtConv block", "our choice", (16, 32, 64, 128), allowed=COUNT)
    map_channels: int = parameter(
        1, "channels after a block's 1x1 convolution", "our choice", (1, 2, 4, 8), allowed=COUNT
    )
    activation: str = parameter(
        "identity",
        "activation after convolution and norm: identity or leaky_relu",
        "III-C-1",
        allowed=("identity", "leaky_relu"),
    )
    attention_activation: str = parameter(
        "leaky_relu",
        "activation of the two layers on average and maximum in the channel attention: leaky_relu or sigmoid",
        "III-C-1: S-shaped, without saying for which layers; the last one is always a sigmoid",
        ("leaky_relu", "sigmoid"),
        allowed=("leaky_relu", "sigmoid"),
    )
    lstm_hidden: int = parameter(
        128, "hidden state of each LSTM direction", "our choice", (64, 128, 256), allowed=COUNT
    )
    read_out: str = parameter(
        "final",
        "LSTM states used: final, last_step or sum_all",
        "our choice",
        allowed=("final", "last_step", "sum_all"),
    )
    fusion: str = parameter("weighted", "weighted (the gate) or concat", "III-D", allowed=("weighted", "concat"))
    temperature: float = parameter(
        500.0,
        "divides the gate's scores before softmax",
        "IV-C-2",
        (1.0, 10.0, 50.0, 100.0, 200.0, 500.0, 800.0),
        allowed=POSITIVE,
    )
    head_dropout: float = parameter(
        0.5,
        "dropout on the spatiotemporal features and the head's hidden layer",
        "Table I",
        Range(0.1, 0.6),
        allowed=SHARE,
    )
    epochs: int = parameter(30, "passes over the training part", "Table I", allowed=COUNT)
    batch_size: int = parameter(16, "samples an optimiser step", "Table I", allowed=COUNT)
    learning_rate: float = parameter(
        5e-4, "Adam's step size after the warm-up", "Table I", Range(1e-4, 1e-3, log=True), allowed=POSITIVE
    )
    warmup: float = parameter(
        0.1, "part of all steps over which the learning rate rises linearly", "Table I", (0.0, 0.05, 0.1), allowed=SHARE
    )
    step_size: int = parameter(
        10, "epochs after the warm-up between two cuts of the learning rate", "our choice", (5, 10, 15), allowed=COUNT
    )
    gamma: float = parameter(
        0.1, "factor of each cut of the learning rate", "our choice", (0.1, 0.3, 0.5), allowed=POSITIVE
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        side = math.isqrt(self.bytes)
        if side * side != self.bytes:
            near = f"{side * side} or {(side + 1) ** 2}"
            raise InputError("bad-parameter", f"parameter bytes={self.bytes} makes no square packet image; take {near}")
        if self.width % 2:
            raise InputError("bad-parameter", f"parameter width={self.width}: must be even, for sines and cosines")


class Atvitsc(TorchMethod):
    """ATVITSC with every ablation of the paper as a parameter.

    A session without payload is an abstention: the paper's filter leaves nothing of it.
    """

    name: ClassVar[str] = "atvitsc"
    reference: ClassVar[str] = "Liu, Wang, Qu, Zhao: ATVITSC, IEEE TIFS 19, 2024, 9374-9389"
    reads: ClassVar[frozenset[str]] = frozenset({"payload", "payload_lengths"})
    Parameters: ClassVar[type] = Parameters
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "pvt": {"branches": "global"},  # Table XII
        "stfe": {"branches": "spatiotemporal"},  # Table XII
        "concat": {"fusion": "concat"},  # Table XII: without dynamic weights
        "dh21": {"head_width": 21},  # 12 heads share the 256 features, rounded down
        "heads8": {"heads": 8, "head_width": 32},
        "last-step": {"read_out": "last_step"},  # h_b,n as III-C-2 prints it
        "two-blocks": {"resatconv_layers": 2},  # Table I against III-C-1
        "shared": {"packets": 16, **SHARED},
    }
    tiny: ClassVar[Mapping[str, Any]] = {
        "packets": 9,
        "bytes": 64,
        "width": 32,
        "layers": 1,
        "heads": 3,
        "head_width": 8,
        "feedforward": 64,
        "channels": 8,
        "lstm_hidden": 16,
        "head_dropout": 0.1,
        "learning_rate": 5e-3,
        "batch_size": 8,
        "epochs": 15,
    }
    deviations: ClassVar[tuple[str, ...]] = (
        "heads of 64 features each: the paper's 12 heads do not divide its 256 features",
        "query, key and value without bias, LayerNorm after the last encoder layer (silent)",
        "length is the L4 payload length, cut to 1499: the paper's table of 1500 rows has no row 1500",
        "the length embedding begins as torch's (rows of norm 16 beside 4 of an embedded packet); as the paper's "
        "linear layer its rows would have 0.24 (length_init=linear)",
        "LeakyReLU on average and maximum inside the channel attention, a sigmoid behind their sum (the paper: a layer "
        "with an S-shaped activation; attention_activation=sigmoid)",
        "one ResAtConv block, as III-C-1 says; Table I has two layers (preset two-blocks)",
        "the class token gets no position and no length (Fig. 1 draws 0 for both), and begins with a norm of 16, too",
        "dropout 0.5 on the spatiotemporal features and the head, 0.1 in the encoder, none on attention (the paper "
        "does not say where)",
        "ResAtConv: 3x3 convolution to 64 channels, 1x1 back to one (sizes silent)",
        "BiLSTM of 128 a direction, read at each direction's own last packet (the printed state has seen one packet)",
        "gate and hidden layer of 256 features (silent)",
        "warm-up linear over the first tenth of the steps, then a tenth of the rate every 10 epochs (silent)",
        "epoch chosen by validation macro-F1 (silent)",
        "the number of packets need not be a square: the tiling changes nothing",
        "DNS and similar traffic is kept; the paper drops irrelevant packets without naming them",
        "consecutive packets from the session's start, no fixed-step re-sampling before the split",
    )

    def represent(self, view: View) -> Inputs:
        """``payload`` uint8 ``[samples, packets, bytes]`` and ``lengths`` int32 ``[samples, packets]``, 0 padded."""
        packets, bytes_ = self.parameters.packets, self.parameters.bytes
        return {"payload": view.payload(packets, bytes_), "lengths": view.payload_lengths(packets)}

    def can_classify(self, inputs: Inputs) -> NDArray[np.bool_]:
        """``[samples]``: False for a session without payload."""
        return np.asarray(inputs["lengths"].any(axis=1))

    def network(self) -> nn.Module:
        """A fresh :class:`Network`."""
        return Network(self.parameters, self.classes)

    def attention(self, inputs: Inputs) -> NDArray[np.float32]:
        """Weights of the last encoder layer, mean over heads (Fig. 8): float32 ``[samples, 1 + packets, 1 + packets]``.

        Row: the token that looks; column: the one looked at; the class token first.  A row adds up to 1.  Raises
        :class:`InputError` without the global branch.
        """
        branch = cast(Network, self._fitted().eval()).pvt
        if branch is None:
            raise InputError(
                "no-attention",
                f"{self.name}: branches={self.parameters.branches} has no attention; take both or global",
            )
        with torch.inference_mode():
            tensors = self.batch(inputs)
            return branch.attention(tensors["payload"].float() / 255, tensors["lengths"]).cpu().numpy()


class Network(nn.Module):
    """Both branches, or one, and the classifier (Fig. 1)."""

    padding: Tensor | None = None  # share of padded packets in the last training batch

    def __init__(self, settings: Parameters, classes: int) -> None:
        super().__init__()
        both, width = settings.branches == "both", settings.width
        self.pvt = PacketVisionTransformer(settings) if settings.branches != "spatiotemporal" else None
        self.stfe = SpatiotemporalFeatures(settings) if settings.branches != "global" else None
        self.gate = Gate(width, settings.temperature) if both and settings.fusion == "weighted" else None
        fused = 2 * width if both and settings.fusion == "concat" else width
        self.head = nn.Sequential(
            nn.Linear(fused, width), nn.LeakyReLU(), nn.Dropout(settings.head_dropout), nn.Linear(width, classes)
        )

    def forward(self, payload: Tensor, lengths: Tensor) -> Tensor:
        """Logits ``[samples, classes]`` of payload bytes ``[samples, packets, bytes]`` and int lengths."""
        packets = payload.float() / 255
        if self.training:  # what is asked leaves nothing behind
            self.padding = (lengths == 0).float().mean()
        features = []
        if self.pvt is not None:
            features.append(self.pvt(packets, lengths))
        if self.stfe is not None:
            features.append(self.stfe(packets))
        fused = self.gate(*features) if self.gate is not None else torch.cat(features, dim=1)
        result: Tensor = self.head(fused)
        return result

    def diagnostics(self) -> dict[str, Tensor]:
        """Of the last training batch, a scalar each: weights of the branches (Figs 9 and 10), share of padded packets.

        Batch normalisation takes in padded packets too, so its statistics depend on that share.
        """
        values = {} if self.padding is None else {"padding_share": self.padding}
        if self.gate is not None and self.gate.weights is not None:
            values["alpha_global"], values["alpha_spatiotemporal"] = self.gate.weights.mean(0).unbind()
        return values


class PacketVisionTransformer(nn.Module):
    """PVT, III-B: packets, positions and lengths embedded and added, a class token, pre-norm encoder layers."""

    def __init__(self, settings: Parameters) -> None:
        super().__init__()
        width = settings.width
        self.mask_padding = settings.mask_padding
        self.packet = nn.Linear(settings.bytes, width)
        self.length = nn.Embedding(LENGTHS, width)
        if settings.length_init == "linear":
            nn.init.uniform_(self.length.weight, -(LENGTHS**-0.5), LENGTHS**-0.5)
        self.register_buffer("position", sinusoids(1 + settings.packets, width)[1:], persistent=False)
        self.token = nn.Parameter(torch.randn(width))
        self.encoder = nn.ModuleList(EncoderLayer(settings) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(width) if settings.final_norm else nn.Identity()

    def forward(self, packets: Tensor, lengths: Tensor) -> Tensor:
        """Global features ``[samples, width]``: the class token after the last layer."""
        tokens, mask = self._before_last(packets, lengths)
        result: Tensor = self.norm(self.encoder[-1](tokens, mask, outputs=1)[:, 0])
        return result

    def attention(self, packets: Tensor, lengths: Tensor) -> Tensor:
        """Weights of the last layer, ``[samples, 1 + packets, 1 + packets]``."""
        return cast(EncoderLayer, self.encoder[-1]).weights(*self._before_last(packets, lengths))

    def _before_last(self, packets: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the last layer gets: tokens ``[samples, 1 + packets, width]`` and the mask of padding."""
        embedded = self.packet(packets) + self.position + self.length(lengths.clamp(0, LENGTHS - 1))
        tokens = torch.cat([self.token.expand(len(packets), 1, -1).to(embedded), embedded], dim=1)
        mask = None
        if self.mask_padding:
            mask = F.pad(lengths > 0, (1, 0), value=True)[:, None, None]
        for layer in self.encoder[:-1]:
            tokens = layer(tokens, mask)
        return tokens, mask


class EncoderLayer(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual."""

    def __init__(self, settings: Parameters) -> None:
        super().__init__()
        width, inner = settings.width, settings.heads * settings.head_width
        self.heads = settings.heads
        self.attention_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, inner, bias=False)
        self.key_value = nn.Linear(width, 2 * inner, bias=False)
        self.out = nn.Linear(inner, width)
        self.dropout = nn.Dropout(settings.encoder_dropout)
        self.feedforward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, settings.feedforward),
            nn.LeakyReLU(),
            nn.Dropout(settings.encoder_dropout),
            nn.Linear(settings.feedforward, width),
            nn.Dropout(settings.encoder_dropout),
        )

    def forward(self, tokens: Tensor, mask: Tensor | None, outputs: int | None = None) -> Tensor:
        """Tokens ``[samples, tokens, width]``; ``outputs`` asks for the first tokens alone, which saves the rest."""
        normed = self.attention_norm(tokens)
        attended = self._attended(normed, mask) if outputs is None else self._attended_by(normed, mask, outputs)
        tokens = tokens[:, :outputs] + self.dropout(self.out(attended))
        result: Tensor = tokens + self.feedforward(tokens)
        return result

    def weights(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Attention ``[samples, tokens, tokens]``, mean over heads; :meth:`forward` has none of it at hand."""
        query, key, _ = self._projected(self.attention_norm(tokens))
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(3).mean(1)

    def _attended(self, normed: Tensor, mask: Tensor | None) -> Tensor:
        """What every token gets of the others, ``[samples, tokens, heads * head width]``."""
        return F.scaled_dot_product_attention(*self._projected(normed), mask).transpose(1, 2).flatten(2)

    def _attended_by(self, normed: Tensor, mask: Tensor | None, first: int) -> Tensor:
        """The same for the first tokens alone, where no token needs a key and a value of its own.

        ``q . (K x) = (K' q) . x`` and ``sum a (V x) = V (sum a x)``: queries and sums are projected instead.
        """
        query = self.query(normed[:, :first]).unflatten(2, (self.heads, -1))
        key, value = self.key_value.weight.unflatten(0, (2, self.heads, -1))
        asked = torch.einsum("nohd,hdw->nhow", query, key).flatten(1, 2)[:, None]
        shared = normed[:, None]
        seen = F.scaled_dot_product_attention(asked, shared, shared, mask, scale=query.shape[3] ** -0.5)
        return torch.einsum("nhow,hdw->nohd", seen[:, 0].unflatten(1, (self.heads, first)), value).flatten(2)

    def _projected(self, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, ``[samples, heads, tokens, head width]``."""
        query = self.query(normed).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(normed).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return query, key, value


class SpatiotemporalFeatures(nn.Module):
    """STFE, III-C: ResAtConv on every packet image, then a BiLSTM over the packets."""

    def __init__(self, settings: Parameters) -> None:
        super().__init__()
        inputs = [1] + [settings.map_channels] * (settings.resatconv_layers - 1)
        self.blocks = nn.Sequential(*(ResAtConv(n, settings) for n in inputs))
        self.lstm = nn.LSTM(
            settings.map_channels * settings.bytes, settings.lstm_hidden, batch_first=True, bidirectional=True
        )
        self.read_out = settings.read_out
        self.out = nn.Sequential(nn.Linear(2 * settings.lstm_hidden, settings.width), nn.LeakyReLU())
        self.dropout = nn.Dropout(settings.head_dropout)

    def forward(self, packets: Tensor) -> Tensor:
        """Spatiotemporal features ``[samples, width]`` of packets ``[samples, packets, bytes]`` in 0 ... 1."""
        side = math.isqrt(packets.shape[2])
        images = packets.reshape(-1, 1, side, side)
        states, (final, _) = self.lstm(self.blocks(images).reshape(*packets.shape[:2], -1))
        if self.read_out == "final":
            features = self.out(torch.cat([final[0], final[1]], dim=1))
        elif self.read_out == "last_step":  # the backward state has seen the last packet alone
            features = self.out(states[:, -1])
        else:  # Fig. 1: the layer on every state, then their sum
            features = self.out(states).sum(1)
        result: Tensor = self.dropout(features)
        return result


class ResAtConv(nn.Module):
    """Convolution, channel attention with a residual, 1x1 convolution (III-C-1, Fig. 5)."""

    def __init__(self, inputs: int, settings: Parameters) -> None:
        super().__init__()
        channels = settings.channels
        self.convolution = nn.Conv2d(inputs, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.activation = nn.LeakyReLU() if settings.activation == "leaky_relu" else nn.Identity()
        inner = nn.Sigmoid if settings.attention_activation == "sigmoid" else nn.LeakyReLU
        self.average = nn.Sequential(nn.Linear(channels, channels), inner())
        self.maximum = nn.Sequential(nn.Linear(channels, channels), inner())
        self.combine = nn.Sequential(nn.Linear(channels, channels), nn.Sigmoid())
        self.project = nn.Linear(channels, settings.map_channels)  # the 1x1 convolution

    def forward(self, images: Tensor) -> Tensor:
        """Maps ``[images, map channels, side, side]`` of images ``[images, inputs, side, side]``."""
        if isinstance(self.activation, nn.Identity):
            with torch.autocast(images.device.type, enabled=False):
                return self._linear(images.to(self.project.weight))
        maps = self.activation(self.norm(self.convolution(images))).flatten(2)
        weights = self.combine(self.average(maps.mean(2)) + self.maximum(maps.max(2).values))
        # project(w * F + F), with the scale put into the projection: spares a pass over the maps
        kernel = self.project.weight * (1 + weights)[:, None]
        result: Tensor = torch.baddbmm(self.project.bias[:, None], kernel, maps).unflatten(2, images.shape[2:])
        return result

    def _linear(self, images: Tensor) -> Tensor:
        """The same without an activation: everything but the maximum is linear in the patches, so no map is kept."""
        patches = patches_of(images)
        kernel = self._folded(patches)
        rows = patches.unflatten(1, (len(images), -1))
        # the gradient of a maximum reaches the pixel that has it and no other
        highest = patches[:, winners(patches.detach(), kernel.detach(), len(images))]
        weights = self.combine(self.average(rows.mean(2).T @ kernel) + self.maximum((highest * kernel[:, None]).sum(0)))
        kernels = (self.project.weight * (1 + weights)[:, None]) @ kernel.T
        maps = torch.baddbmm(self.project.bias[:, None], kernels, rows.transpose(0, 1))
        result: Tensor = maps.unflatten(2, images.shape[2:])
        return result

    def _folded(self, patches: Tensor) -> Tensor:
        """Convolution and norm as one product: ``[9 * inputs + 1, channels]``, the last row for the patches' one.

        In training, mean and variance of each channel follow from mean and covariance of ``patches``.
        """
        norm, weight, bias = self.norm, self.convolution.weight.flatten(1), cast(Tensor, self.convolution.bias)
        mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        if self.training:
            middle = patches[:-1].mean(1)
            centred = patches[:-1] - middle[:, None]
            covariance = centred @ centred.T / patches.shape[1]
            mean = weight @ middle + bias
            variance = (weight @ covariance * weight).sum(1).clamp(min=0)
            self._track(mean.detach(), variance.detach(), patches.shape[1])
        scale = norm.weight * (variance + norm.eps).rsqrt()
        offset = (bias - mean) * scale + norm.bias
        return torch.cat([weight.T * scale, offset[None]])

    def _track(self, mean: Tensor, variance: Tensor, pixels: int) -> None:
        """Move the running statistics as :class:`nn.BatchNorm2d` does; its running variance is the unbiased one."""
        norm = self.norm
        cast(Tensor, norm.running_mean).lerp_(mean, cast(float, norm.momentum))
        cast(Tensor, norm.running_var).lerp_(variance * (pixels / max(pixels - 1, 1)), cast(float, norm.momentum))
        cast(Tensor, norm.num_batches_tracked).add_(1)


def patches_of(images: Tensor) -> Tensor:
    """What a 3x3 convolution sees at each pixel: ``[9 * inputs + 1, images * side * side]``, the last row ones."""
    side = images.shape[2]
    padded = F.pad(images, (1, 1, 1, 1)).transpose(0, 1)
    shifted = [padded[..., i : i + side, j : j + side] for i in range(3) for j in range(3)]
    taps = torch.stack(shifted, dim=1).flatten(0, 1).flatten(1)
    return torch.cat([taps, taps.new_ones(1, taps.shape[1])])


def winners(patches: Tensor, kernel: Tensor, images: int) -> Tensor:
    """The pixel where each image's map is highest, int64 ``[images, channels]``, counted through all images.

    ``patches [taps, images * pixels]`` and ``kernel [taps, channels]`` without gradients.  The maps are made for a few
    images at a time, which stay in the cache.
    """
    pixels = patches.shape[1] // images
    side, size = math.isqrt(pixels), pixels * min(images, max(1, PIXELS // pixels))
    channel = torch.arange(kernel.shape[1], device=patches.device)
    space = patches.new_empty(size, kernel.shape[1])  # one for all: fresh memory costs as much as the product
    found = []
    for some in patches.split(size, dim=1):
        maps = torch.mm(some.T, kernel, out=space[: some.shape[1]]).unflatten(0, (-1, side, side))
        image = torch.arange(len(maps), device=patches.device)[:, None]
        row = maps.amax(2).max(1).indices  # the row first: `max` is slow along an axis that is not the last
        column = maps[image, row, :, channel].max(2).indices
        found.append(row * side + column)
    first = torch.arange(images, device=patches.device)[:, None] * pixels
    return torch.cat(found) + first


class Gate(nn.Module):
    """Dynamic weighting, III-D: the branches' features added with weights that depend on the session."""

    weights: Tensor | None = None  # [samples, 2], of the last call

    def __init__(self, width: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.score = nn.Sequential(nn.Linear(2 * width, width), nn.Tanh(), nn.Linear(width, 2))

    def forward(self, of_session: Tensor, of_packets: Tensor) -> Tensor:
        """Fused features ``[samples, width]`` of the global and the spatiotemporal ones."""
        scores = self.score(torch.cat([of_session, of_packets], dim=1))
        alpha = (scores.float() / self.temperature).softmax(1)
        if self.training:
            self.weights = alpha.detach()
        result: Tensor = alpha[:, :1] * of_session + alpha[:, 1:] * of_packets
        return result


def sinusoids(positions: int, width: int) -> Tensor:
    """Fixed position codes ``[positions, width]``: sines at even places, cosines at odd ones, base 10000."""
    angle = torch.arange(positions)[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)
