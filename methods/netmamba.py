"""NetMamba: a masked auto-encoder over the bytes of five packets whose layers are selective state spaces.

T. Wang, X. Xie, W. Wang, C. Wang, Y. Zhao, Y. Cui: "NetMamba: Efficient Network Traffic Classification via Pre-training
Unidirectional Mamba", ICNP 2024.  Sizes and steps are those of the authors' code (wangtz19/NetMamba), which has no
licence: nothing here is copied from it.  Their layers need CUDA; here the scan is torch alone, on any device.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.method import COUNT, SHARE, parameter
from methods.yatc import CODE, DEVIATIONS, SIDE, MaskedNetwork, MaskedParameters, SkipPath, Yatc

STRIDE: Final = 4  # bytes of a token
TOKENS: Final = SIDE**2 // STRIDE
CHUNK: Final = 16  # steps of the scan whose states are in memory at once


@dataclass(frozen=True)
class Parameters(MaskedParameters):
    """Those of the authors' code."""

    mask: str = parameter(
        "all",
        "what of the headers is set to zero: all (addresses, ports, checksums), or addresses (and checksums)",
        "our choice",
        allowed=("all", "addresses"),
    )
    width: int = parameter(256, "features of a token, four bytes in a row", CODE, allowed=COUNT)
    states: int = parameter(16, "states of each channel", CODE, allowed=COUNT)
    epochs: int = parameter(120, "passes over the training part", CODE, allowed=COUNT)
    warmup: float = parameter(
        1 / 6, "part of all steps over which the learning rate rises linearly", CODE, (0.0, 1 / 6), allowed=SHARE
    )


class NetMamba(Yatc):
    """NetMamba: 400 tokens of four bytes from five packets, masked auto-encoding first, Mamba layers in one direction.

    A session without a captured byte is an abstention.
    """

    name: ClassVar[str] = "netmamba"
    reference: ClassVar[str] = "Wang, Xie, Wang, Wang, Zhao, Cui: NetMamba, ICNP 2024"
    reads: ClassVar[frozenset[str]] = frozenset({"ip_bytes", "lengths", "payload_lengths", "ports"})
    Parameters: ClassVar[type] = Parameters
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {**Yatc.presets, "code": {"mask": "addresses"}}
    tiny: ClassVar[Mapping[str, Any]] = {
        "width": 16,
        "layers": 1,
        "states": 2,
        "decoder_width": 8,
        "decoder_layers": 1,
        "drop_path": 0.0,
        "smoothing": 0.0,
        "layer_decay": 1.0,
        "pretraining_steps": 5,
        "pretraining_batch": 40,
        "batch_size": 40,
        "epochs": 40,
        "learning_rate": 1e-2,
        "warmup": 0.0,
    }
    deviations: ClassVar[tuple[str, ...]] = (
        "addresses, ports and checksums are set to zero (the authors' code: addresses alone; preset code: addresses, "
        "and checksums, which tell them)",
        *DEVIATIONS,
        "sessions of any transport protocol and of IPv6 (the authors' code makes zeros of a packet without IPv4)",
        "in pre-training neither class token, mask token nor positions decay (the authors' do)",
        "no layer is skipped at random in pre-training, where the authors' code keeps their share of 0.1",
        "epoch chosen by validation macro-F1 (the authors' code: by validation accuracy)",
    )

    def network(self) -> nn.Module:
        """A fresh :class:`TrafficMamba`; beside pre-trained layers its head begins near zero, as the authors' does."""
        return TrafficMamba(self.parameters, self.classes, 2e-5 if self.encoded else 0.02)

    def pretraining_network(self) -> nn.Module:
        """A fresh :class:`MaskedMamba`."""
        return MaskedMamba(self.parameters)

    def authors_name(self, name: str) -> str:
        """As their checkpoints have it, with Mamba's names."""
        theirs = {"patch": "patch_embed.proj", "token": "cls_token", "position": "pos_embed", "norm": "norm_f"}
        layer = {"both": "mixer.in_proj", "recent": "mixer.conv1d", "chosen": "mixer.x_proj", "pace": "mixer.dt_proj"}
        layer |= {"log_rate": "mixer.A_log", "direct": "mixer.D", "out": "mixer.out_proj", "norm": "norm"}
        names = layer if name.startswith("blocks.") else theirs
        return ".".join(names.get(part, part) for part in name.split("."))


class _Scan(torch.autograd.Function):
    """The states of a selective state space, step after step, and what is read of them.

    Of the states a backward pass needs, it keeps one in `CHUNK` and computes the others anew: memory does not grow with
    steps times states.
    """

    @staticmethod
    def forward(ctx: Any, pace: Tensor, drive: Tensor, rate: Tensor, write: Tensor, read: Tensor) -> Tensor:
        """See :func:`selective_scan`."""
        before, starts, answers = pace.new_zeros(*pace.shape[1:], rate.shape[1]), [], []
        for some in _chunks(len(pace)):
            starts.append(before)
            states, _ = _states(pace[some], drive[some], rate, write[some], before)
            answers.append((states @ read[some][..., None]).squeeze(-1))
            before = states[-1].clone()
        ctx.save_for_backward(pace, drive, rate, write, read, *starts)
        return torch.cat(answers)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        """Of each input; the recurrence runs back from the last step."""
        pace, drive, rate, write, read, *starts = ctx.saved_tensors
        of_pace, of_drive, of_rate = torch.empty_like(pace), torch.empty_like(drive), torch.zeros_like(rate)
        of_write, of_read = torch.empty_like(write), torch.empty_like(read)
        carried = torch.zeros_like(starts[0])
        for some, start in reversed(list(zip(_chunks(len(pace)), starts, strict=True))):
            states, kept = _states(pace[some], drive[some], rate, write[some], start)
            asked = gradients[0][some].contiguous()
            of_read[some] = (asked[:, :, None] @ states).squeeze(2)
            of_states = asked[..., None] * read[some][:, :, None]
            for step in reversed(range(len(of_states))):
                carried = of_states[step].add_(carried) * kept[step]
            of_drive[some] = (of_states @ write[some][..., None]).squeeze(-1)
            of_write[some] = (drive[some][:, :, None] @ of_states).squeeze(2)
            of_kept = of_states.mul_(kept)  # times the state before, of its logarithm
            of_kept[0] *= start
            of_kept[1:] *= states[:-1]
            of_pace[some] = (of_kept * rate).sum(3)
            of_rate += of_kept.mul_(pace[some][..., None]).sum((0, 1))
        return of_pace, of_drive, of_rate, of_write, of_read


def _chunks(steps: int) -> Iterator[slice]:
    return (slice(first, first + CHUNK) for first in range(0, steps, CHUNK))


def _states(pace: Tensor, drive: Tensor, rate: Tensor, write: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """The states after each step, and what part of each is kept at a step: ``[steps, N, channels, states]``, both."""
    kept = (pace[..., None] * rate).exp_()
    states = drive[..., None] * write[:, :, None]
    for step in range(len(states)):
        before = states[step].addcmul_(kept[step], before)
    return states, kept


def selective_scan(pace: Tensor, drive: Tensor, rate: Tensor, write: Tensor, read: Tensor) -> Tensor:
    """What is read of the states after each step, ``[steps, N, channels]``.

    ``state = exp(pace * rate) * state + drive * write`` and ``answer = sum(state * read)``, with ``pace`` and ``drive``
    ``[steps, N, channels]``, ``rate`` ``[channels, states]``, ``write`` and ``read`` ``[steps, N, states]``; the first
    state is 0.  Mixed precision does not reach it: decays near 1 would be 1.
    """
    kind = pace.device.type
    with torch.autocast(kind, enabled=False):
        result: Tensor = _Scan.apply(*(  # type: ignore[no-untyped-call]
            values if values.dtype == torch.float64 else values.float() for values in (pace, drive, rate, write, read)
        ))  # fmt: skip
    return result


class Mamba(nn.Module):
    """A selective state space layer behind its norm, with a residual."""

    def __init__(self, width: int, states: int, depth: int, skip: float = 0.0) -> None:
        super().__init__()
        channels, self.ranks, self.states = 2 * width, math.ceil(width / 16), states
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.both = nn.Linear(width, 2 * channels, bias=False)  # what is scanned, and its gate
        self.recent = nn.Conv1d(channels, channels, 4, groups=channels, padding=3)  # each channel's last four steps
        self.chosen = nn.Linear(channels, self.ranks + 2 * states, bias=False)  # pace, write and read
        self.pace = nn.Linear(self.ranks, channels)
        self.log_rate = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(channels, 1))
        self.direct = nn.Parameter(torch.ones(channels))
        self.out = nn.Linear(channels, width, bias=False)
        self.skip = SkipPath(skip)
        nn.init.uniform_(self.pace.weight, -(self.ranks**-0.5), self.ranks**-0.5)
        first = torch.empty(channels).uniform_(math.log(0.001), math.log(0.1)).exp_()
        self.pace.bias.data = first + (-(-first).expm1()).log()  # softplus of it is `first`
        self.out.weight.data /= math.sqrt(depth)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[N, tokens, width]`` of the same."""
        scanned, gate = self.both(self.norm(tokens)).chunk(2, dim=2)
        scanned = F.silu(self.recent(scanned.transpose(1, 2))[..., : tokens.shape[1]]).permute(2, 0, 1).contiguous()
        pace, write, read = self.chosen(scanned).split([self.ranks, self.states, self.states], dim=2)
        pace = F.softplus(self.pace(pace))
        answer = selective_scan(pace, pace * scanned, -self.log_rate.exp(), write.contiguous(), read.contiguous())
        answer = (answer + self.direct * scanned).transpose(0, 1) * F.silu(gate)
        result: Tensor = tokens + self.skip(self.out(answer))
        return result


class Encoder(nn.Module):
    """What both networks share: tokens embedded, their positions, the class token behind them, the layers."""

    def __init__(self, settings: Parameters, skip: float = 0.0) -> None:
        super().__init__()
        width, last = settings.width, max(1, settings.layers - 1)
        self.patch = nn.Linear(STRIDE, width)
        self.token = nn.Parameter(torch.randn(width) * 0.02)
        self.position = nn.Parameter(torch.randn(TOKENS + 1, width) * 0.02)
        self.blocks = nn.Sequential(*(
            Mamba(width, settings.states, settings.layers, skip * depth / last) for depth in range(settings.layers)
        ))  # fmt: skip
        self.norm = nn.RMSNorm(width, eps=1e-5)
        nn.init.trunc_normal_(self.patch.weight, std=STRIDE**-0.5)
        nn.init.zeros_(self.patch.bias)

    def embedded(self, strides: Tensor) -> Tensor:
        """Tokens ``[N, 400, width]`` of bytes between -1 and 1, ``[N, 400, 4]``; without the class token."""
        tokens: Tensor = self.patch(strides) + self.position[:-1]
        return tokens

    def through(self, tokens: Tensor) -> Tensor:
        """``[N, tokens + 1, width]`` of ``[N, tokens, width]``: the class token behind them, through all layers."""
        last = (self.token + self.position[-1]).expand(len(tokens), 1, -1)
        result: Tensor = self.norm(self.blocks(torch.cat([tokens, last.to(tokens)], dim=1)))
        return result

    def forward(self, pixels: Tensor) -> Tensor:
        """Features ``[N, width]`` of bytes as shares of 255, ``[N, 40, 40]``: the class token's, which has read all."""
        features: Tensor = self.through(self.embedded(strides_of(pixels)))[:, -1]
        return features


def strides_of(pixels: Tensor) -> Tensor:
    """``[N, 400, 4]``, between -1 and 1, of bytes as shares of 255, ``[N, 40, 40]``, four by four in their order."""
    strides: Tensor = 2 * pixels.flatten(1).unflatten(1, (TOKENS, STRIDE)) - 1
    return strides


class TrafficMamba(nn.Module):
    """The classifier."""

    def __init__(self, settings: Parameters, classes: int, head: float) -> None:
        super().__init__()
        self.encoder = Encoder(settings, settings.drop_path)
        self.head = nn.Linear(settings.width, classes)
        nn.init.trunc_normal_(self.head.weight, std=head)
        nn.init.zeros_(self.head.bias)

    def forward(self, matrix: Tensor) -> Tensor:
        """Logits ``[N, classes]`` of bytes, uint8 ``[N, 40, 40]``."""
        result: Tensor = self.head(self.encoder(matrix.float() / 255))
        return result


class MaskedMamba(MaskedNetwork):
    """Gives hidden bytes back from those that are seen."""

    def __init__(self, settings: Parameters) -> None:
        wide, narrow = settings.width, settings.decoder_width
        super().__init__(settings.mask_ratio, TOKENS)
        self.encoder = Encoder(settings)
        self.narrow = nn.Linear(wide, narrow)
        self.hidden = nn.Parameter(torch.randn(narrow) * 0.02)
        self.position = nn.Parameter(torch.randn(TOKENS + 1, narrow) * 0.02)
        self.blocks = nn.Sequential(*(
            Mamba(narrow, settings.states, settings.layers) for _ in range(settings.decoder_layers)
        ))  # fmt: skip
        self.last = nn.RMSNorm(narrow, eps=1e-5)
        self.bytes = nn.Linear(narrow, STRIDE)
        for layer in (self.narrow, self.bytes):
            nn.init.zeros_(layer.bias)

    def forward(self, matrix: Tensor) -> Tensor:
        """Mean squared error over the hidden tokens of bytes, uint8 ``[N, 40, 40]``: a scalar."""
        strides = strides_of(matrix.float() / 255)
        seen, place = self.visible(self.encoder.embedded(strides))
        tokens = self.narrow(self.encoder.through(seen))
        filled = self.filled(tokens[:, :-1], place, TOKENS)
        decoded = self.last(self.blocks(torch.cat([filled, tokens[:, -1:]], dim=1) + self.position))
        return self.error(self.bytes(decoded[:, :-1]), strides, place)
