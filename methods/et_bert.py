"""ET-BERT: a transformer over bigrams of a session's bytes, pre-trained to fill in masked ones and to match bursts.

X. Lin, G. Xiong, G. Gou, Z. Li, J. Shi, J. Yu: "ET-BERT: A Contextualized Datagram Representation with Pre-training
Transformers for Encrypted Traffic Classification", The Web Conference, 2022, 633-642, arXiv:2202.06335.  Sizes, token
numbers and budgets are those of the authors' code (linwhitehat/ET-BERT, MIT).

A bigram is two bytes, one after the other, as one number; the next begins a byte later.  A burst is a run of packets in
one direction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import InputError
from bench.method import COUNT, NOT_NEGATIVE, POSITIVE, SHARE, Inputs, Range, parameter
from bench.readers import MASKS, View
from bench.training.budget import SHARED, PretrainingParameters
from bench.training.initial import PretrainedMethod

PAD: Final = 0  # the authors' numbers
SEP: Final = 1
CLS: Final = 2
UNKNOWN: Final = 3
MASK: Final = 4
SPECIAL: Final = 5  # how many of these there are; behind them come bigrams
BIGRAMS: Final = 1 << 16
POSITIONS: Final = 512
SKIPPED: Final = 24  # bytes of a packet before the first: an IPv4 header without options, and the ports
CODE: Final = "authors' code"
SMALL: Final = "our choice, for two cores; preset paper has theirs"


@dataclass(frozen=True)
class Parameters(PretrainingParameters):
    """A small size; preset ``paper`` has the authors'."""

    packets: int = parameter(5, "packets of a session, from the first", CODE, (3, 5, 10), allowed=COUNT)
    headers: bool = parameter(
        False,
        "begin at the IP header and hide nothing in it, as the authors' released flows do (those at the frame's); "
        "else behind the ports",
        CODE,
    )
    bigrams: int = parameter(128, "bigrams of a packet at most", CODE, (32, 64, 128), allowed=COUNT)
    tokens: int = parameter(128, "tokens of a session at most, the class token among them", CODE, allowed=COUNT)
    vocabulary: int = parameter(4096, "bigrams that have a token of their own, the most frequent", SMALL, allowed=COUNT)
    vocabulary_file: str | None = parameter(
        None,
        "the authors' list of tokens, one a line; none: the most frequent bigrams of the training part",
        CODE,
        file=True,
    )
    width: int = parameter(128, "features of a token", SMALL, (64, 128, 256), allowed=COUNT)
    layers: int = parameter(2, "encoder layers", SMALL, (1, 2, 4), allowed=COUNT)
    heads: int = parameter(2, "attention heads", SMALL, allowed=COUNT)
    feedforward: int = parameter(512, "hidden features of an encoder layer", SMALL, allowed=COUNT)
    dropout: float = parameter(0.1, "dropout while it learns with labels", SMALL, Range(0.0, 0.5), allowed=SHARE)
    pretraining_dropout: float = parameter(0.1, "dropout while it learns without", CODE, allowed=SHARE)
    masked: float = parameter(0.15, "part of the bigrams that is to be filled in", CODE, Range(0.1, 0.3), allowed=SHARE)
    weight_decay: float = parameter(
        0.01,
        "AdamW's, of weights that are no biases or norms",
        "authors' code, whose optimiser does not read it",
        allowed=NOT_NEGATIVE,
    )
    epochs: int = parameter(10, "passes over the training part", CODE, allowed=COUNT)
    batch_size: int = parameter(32, "samples an optimiser step", CODE, allowed=COUNT)
    learning_rate: float = parameter(
        5e-4, "AdamW's step size after the warm-up", SMALL, Range(1e-5, 1e-3, log=True), allowed=POSITIVE
    )
    warmup: float = parameter(
        0.1, "part of all steps over which the learning rate rises linearly", CODE, (0.0, 0.1), allowed=SHARE
    )
    pretraining_steps: int = parameter(2000, "optimiser steps without labels", SMALL, allowed=COUNT)
    pretraining_batch: int = parameter(32, "samples a step without labels", CODE, allowed=COUNT)
    pretraining_rate: float = parameter(
        5e-4, "highest learning rate without labels: linear up to it, then a half cosine to 0", SMALL, allowed=POSITIVE
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens > POSITIONS:
            raise InputError("bad-parameter", f"parameter tokens={self.tokens}: at most {POSITIONS}, as positions are")
        if self.vocabulary > BIGRAMS:
            what = f"there are {BIGRAMS} bigrams"
            raise InputError("bad-parameter", f"parameter vocabulary={self.vocabulary}: {what}")
        if self.width % self.heads:
            what = f"must be a multiple of the {self.heads} heads"
            raise InputError("bad-parameter", f"parameter width={self.width}: {what}")
        if self.weights and not self.vocabulary_file:
            what = "set vocabulary_file, too: the rows of its embedding are numbered by the authors' list"
            raise InputError("bad-parameter", f"parameter weights={self.weights}: {what}")


class EtBert(PretrainedMethod):
    """ET-BERT on whole sessions, at a small size; preset paper has the authors' 132 million parameters.

    A session of which no packet has two bytes behind its ports is an abstention.
    """

    name: ClassVar[str] = "et-bert"
    reference: ClassVar[str] = "Lin, Xiong, Gou, Li, Shi, Yu: ET-BERT, WWW 2022, 633-642, arXiv:2202.06335"
    reads: ClassVar[frozenset[str]] = frozenset({"ip_bytes", "directions", *MASKS})
    Parameters: ClassVar[type] = Parameters
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "vocabulary": 60_000,
            "width": 768,
            "layers": 12,
            "heads": 12,
            "feedforward": 3072,
            "dropout": 0.5,
            "learning_rate": 2e-5,
            "pretraining_steps": 500_000,
            "pretraining_rate": 2e-5,
        },
        "scratch": {"pretraining": "scratch"},
        "frozen": {"pretraining": "frozen"},
        "released": {"headers": True},
        "shared": {"packets": 16, **SHARED},
    }
    tiny: ClassVar[Mapping[str, Any]] = {
        "packets": 3,
        "tokens": 96,
        "vocabulary": 512,
        "width": 32,
        "layers": 1,
        "heads": 2,
        "feedforward": 64,
        "dropout": 0.0,
        "pretraining_steps": 5,
        "batch_size": 16,
        "learning_rate": 3e-3,
        "epochs": 15,
    }
    deviations: ClassVar[tuple[str, ...]] = (
        "default sizes are ours, small enough for two cores; preset paper has the paper's, 12 layers of 768",
        "tokens are the most frequent bigrams of the training part, others share one (the authors': a word-piece list "
        "learned from their corpus, 60,005 lines; vocabulary_file reads it)",
        "pre-trained on the split's training part alone: the paper's on 30 GB of other traffic",
        "bursts are found among the packets that are classified, at most 5; a short one counts, too",
        "a sample is a session, of its first packets: the paper has packets and flows, at most 5,000 a class",
        "checksums are set to zero and the first 24 bytes of every packet left out, of IPv6 as well (in the flows that "
        "the authors released both are there: headers=true)",
        "15 % of the bigrams are masked by a draw for each of them (the authors' code: a fixed number a sample)",
        "while it pre-trains the rate falls by half a cosine, afterwards it stays (the authors': linear to 0, both)",
        "AdamW corrects its moments for their start (the authors' does not: its steps are 6.5 times as long at step "
        "10, 3.2 times at step 100), with epsilon 1e-8 (theirs: 1e-6)",
        "preset paper has dropout 0.5 with labels, as the paper says (in the authors' code a file of sizes sets 0.1)",
        "short sessions are kept (the authors' preparation drops flows of under 3 packets and captures under 5 kB)",
        "norms divide by the biased deviation (the authors' library: by the unbiased one)",
        "epoch chosen by validation macro-F1 (the authors' code: by accuracy)",
    )

    def represent(self, view: View) -> Inputs:
        """``bigrams`` int32 ``[samples, tokens - 1]``, -1 behind the last, and ``bursts`` int16 of each, from 0."""
        p = self.parameters
        skipped = 0 if p.headers else SKIPPED
        captured = view.ip_bytes(p.packets, skipped + p.bigrams + 1, mask=() if p.headers else MASKS)
        held = view.captured_lengths(p.packets) - skipped
        return bigrams_of(captured[:, :, skipped:], held, view.directions(p.packets), p.tokens - 1)

    def can_classify(self, inputs: Inputs) -> NDArray[np.bool_]:
        """Bool ``[samples]``: False for a session without a bigram."""
        return np.asarray((inputs["bigrams"] >= 0).any(axis=1))

    def network(self) -> nn.Module:
        """A fresh :class:`Classifier`."""
        return Classifier(self.parameters, self.classes)

    def batch(self, rows: Inputs) -> dict[str, Tensor]:
        """Both arrays of :meth:`represent`, int ``[batch, T]`` on the device, as long as the batch's longest sample."""
        longest = int((rows["bigrams"] >= 0).sum(1).max(initial=0))
        return super().batch({name: np.ascontiguousarray(values[:, :longest]) for name, values in rows.items()})

    def pretraining_network(self) -> nn.Module:
        """A fresh :class:`BurstModel`."""
        return BurstModel(self.parameters)

    def before_pretraining(self, network: nn.Module, unlabelled: Inputs, rows: NDArray[np.int64]) -> None:
        """Number the bigrams: as the authors' list does, else the most frequent of ``rows [some]``, int."""
        p = self.parameters
        if p.vocabulary_file:
            table = listed(Path(p.vocabulary_file), p.vocabulary)
        else:
            table = most_frequent(unlabelled["bigrams"][rows], p.vocabulary)
        network.get_buffer("encoder.table").copy_(torch.from_numpy(table))

    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """AdamW, without decay of biases and norms."""
        learning = [weights for weights in network.parameters() if weights.requires_grad]
        decay = self.parameters.weight_decay
        groups = [
            {"params": [w for w in learning if (w.ndim > 1) == matrix], "weight_decay": decay if matrix else 0.0}
            for matrix in (True, False)
        ]
        return torch.optim.AdamW(groups, lr=self.parameters.learning_rate)

    def pretraining_optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """The same."""
        return self.optimiser(network)

    def authors_name(self, name: str) -> str:
        """As their library has it."""
        words = {"words": "word_embedding", "positions": "position_embedding", "segments": "segment_embedding"}
        layers = {"query": "self_attn.linear_layers.0", "key": "self_attn.linear_layers.1"}
        layers |= {"value": "self_attn.linear_layers.2", "output": "self_attn.final_linear"}
        layers |= {"in_norm": "layer_norm_1", "out_norm": "layer_norm_2"}
        layers |= {"wide": "feed_forward.linear_1", "narrow": "feed_forward.linear_2"}
        *place, kind = name.split(".")
        if "norm" in place[-1]:
            kind = {"weight": "gamma", "bias": "beta"}[kind]
        if place[0] == "blocks":
            return f"encoder.transformer.{place[1]}.{layers[place[2]]}.{kind}"
        return f"embedding.{words.get(place[0], 'layer_norm')}.{kind}"


def bigrams_of(
    captured: NDArray[np.uint8], lengths: NDArray[np.int32], directions: NDArray[np.int8], tokens: int
) -> Inputs:
    """Arrays as `EtBert.represent` gives them, int, of packets' bytes ``[S, packets, bytes]``.

    ``lengths [S, packets]`` are how many bytes of each there are, ``directions [S, packets]`` are 1, -1 and, for none,
    0.
    """
    first = captured.astype(np.int32)
    pairs = first[:, :, :-1] * 256 + first[:, :, 1:]
    held = np.arange(pairs.shape[2]) + 1 < lengths[..., None]
    turns = np.cumsum(np.diff(directions, axis=1, prepend=directions[:, :1]) != 0, axis=1)
    bursts = np.broadcast_to(turns[..., None], pairs.shape)
    flat = held.reshape(len(held), pairs.shape[1] * pairs.shape[2])
    order = np.argsort(~flat, axis=1, kind="stable")[:, :tokens]  # those that are there first, in their order
    kept = np.take_along_axis(flat, order, 1)
    out = {}
    for name, values, kind in (("bigrams", pairs, np.int32), ("bursts", bursts, np.int16)):
        row = np.full((len(flat), tokens), -1, kind)
        row[:, : order.shape[1]] = np.where(kept, np.take_along_axis(values.reshape(flat.shape), order, 1), -1)
        out[name] = row
    return out


def most_frequent(bigrams: NDArray[np.int32], most: int) -> NDArray[np.int64]:
    """Token of each of the 65,536 bigrams: from `SPECIAL` on for the most frequent in ``[S, T]``, else `UNKNOWN`."""
    counts = np.bincount(bigrams[bigrams >= 0], minlength=BIGRAMS)
    order = np.argsort(-counts, kind="stable")[:most]
    order = order[counts[order] > 0]
    table = np.full(BIGRAMS, UNKNOWN, np.int64)
    table[order] = SPECIAL + np.arange(len(order))
    return table


def listed(path: Path, size: int) -> NDArray[np.int64]:
    """Token of each of the 65,536 bigrams ``[65536]`` by a list of tokens, one a line; its other words have no bigram.

    Raises :class:`InputError` where it cannot be read or has not ``size`` words behind the special ones.
    """
    try:
        words = path.read_text().splitlines()
    except (OSError, ValueError):
        raise InputError("bad-weights", f"vocabulary_file={path}: cannot be read; give the authors' list") from None
    if len(words) != size + SPECIAL or words[CLS] != "[CLS]":
        what = f"has {len(words)} lines; set vocabulary={len(words) - SPECIAL}, and give a list that begins with"
        raise InputError("bad-weights", f"vocabulary_file={path}: {what} [PAD], [SEP], [CLS], [UNK], [MASK]")
    table = np.full(BIGRAMS, UNKNOWN, np.int64)
    for number, word in enumerate(words):
        if len(word) == 4 and all(digit in "0123456789abcdef" for digit in word):
            table[int(word, 16)] = number
    return table


class Block(nn.Module):
    """Post-norm attention and feed-forward, each with a residual."""

    def __init__(self, settings: Parameters, dropout: float) -> None:
        super().__init__()
        width = settings.width
        self.heads = settings.heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.in_norm, self.out_norm = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.wide, self.narrow = nn.Linear(width, settings.feedforward), nn.Linear(settings.feedforward, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, held: Tensor) -> Tensor:
        """``[N, T, width]`` of the same; nothing looks at tokens that ``held [N, 1, 1, T]`` leaves out."""
        query, key, value = (
            layer(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        dropout = self.drop.p if self.training else 0.0
        seen = F.scaled_dot_product_attention(query, key, value, held, dropout).transpose(1, 2).flatten(2)
        tokens = self.in_norm(tokens + self.drop(self.output(seen)))
        result: Tensor = self.out_norm(tokens + self.drop(self.narrow(F.gelu(self.wide(tokens)))))
        return result


class Encoder(nn.Module):
    """What both networks share: the numbers of bigrams, embeddings, the layers."""

    def __init__(self, settings: Parameters, dropout: float) -> None:
        super().__init__()
        self.words = nn.Embedding(SPECIAL + settings.vocabulary, settings.width)
        self.positions = nn.Embedding(POSITIONS, settings.width)
        self.segments = nn.Embedding(3, settings.width)
        self.norm = nn.LayerNorm(settings.width, eps=1e-6)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(settings, dropout) for _ in range(settings.layers))
        self.register_buffer("table", torch.full((BIGRAMS,), UNKNOWN))

    def numbered(self, bigrams: Tensor) -> Tensor:
        """Tokens of bigrams, int64 ``[N, T]``; `PAD` for -1."""
        return torch.where(bigrams >= 0, self.get_buffer("table")[bigrams.long().clamp(min=0)], PAD)

    def forward(self, tokens: Tensor, segments: Tensor) -> Tensor:
        """``[N, T, width]`` of tokens and their segments, int64 ``[N, T]``: 1 or 2, and 0 for padding."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        states: Tensor = self.drop(self.norm(self.words(tokens) + self.positions(places) + self.segments(segments)))
        held = (segments > 0)[:, None, None]
        for block in self.blocks:
            states = block(states, held)
        return states


class Classifier(nn.Module):
    """The class token's state, through two layers."""

    def __init__(self, settings: Parameters, classes: int) -> None:
        super().__init__()
        self.encoder = Encoder(settings, settings.dropout)
        self.hidden, self.last = nn.Linear(settings.width, settings.width), nn.Linear(settings.width, classes)
        drawn(self)

    def forward(self, bigrams: Tensor, bursts: Tensor) -> Tensor:
        """Logits ``[N, classes]`` of bigrams, int ``[N, T]``, -1 where there is none; bursts are not looked at."""
        tokens = F.pad(self.encoder.numbered(bigrams), (1, 0), value=CLS)
        states = self.encoder(tokens, (tokens != PAD).long())
        result: Tensor = self.last(torch.tanh(self.hidden(states[:, 0])))
        return result


class BurstModel(nn.Module):
    """Masked bigrams of two half bursts are filled in; are the halves of one burst?"""

    def __init__(self, settings: Parameters) -> None:
        super().__init__()
        width = settings.width
        self.masked = settings.masked
        self.encoder = Encoder(settings, settings.pretraining_dropout)
        self.fill = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=1e-6),
            nn.Linear(width, SPECIAL + settings.vocabulary),
        )  # fmt: skip
        self.same = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2))
        drawn(self)

    def forward(self, bigrams: Tensor, bursts: Tensor) -> Tensor:
        """The sum of both tasks' cross-entropies, a scalar, of bigrams and their bursts, int ``[N, T]``."""
        tokens, segments, other = self.pairs(self.encoder.numbered(bigrams), bursts)
        asked, given = self.hide(tokens)
        states = self.encoder(given, segments)
        loss: Tensor = F.cross_entropy(self.same(states[:, 0]).float(), other)
        if asked.any():
            loss = loss + F.cross_entropy(self.fill(states[asked]).float(), tokens[asked])
        return loss

    def pairs(self, tokens: Tensor, bursts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A burst of each sample as two halves, the second of another sample's burst for half of them.

        Tokens ``[CLS] first [SEP] second [SEP]`` and segments, int64 ``[N, T]``, and whether the halves are of two
        bursts, int64 ``[N]``.
        """
        samples, device = len(tokens), tokens.device
        number = bursts.amax(1) + 1  # numbers may be left out where a burst has no bigram: such a draw takes the first
        chosen = (torch.rand(samples, device=device) * number).long().to(bursts.dtype)
        chosen = torch.where((bursts == chosen[:, None]).any(1), chosen, bursts[:, 0])
        inside = bursts == chosen[:, None]
        begin, size = inside.int().argmax(1), inside.sum(1)
        first, second = (size + 1) // 2, size // 2
        other = torch.rand(samples, device=device) < 0.5
        source = torch.where(other, torch.arange(samples, device=device).roll(1), torch.arange(samples, device=device))
        first, second, middle = first[:, None], second[source, None], (begin + first)[source, None]
        place = torch.arange(int((first + second).max()) + 3, device=device)
        left = tokens.gather(1, (begin[:, None] + place - 1).clamp(0, tokens.shape[1] - 1))
        right = tokens[source].gather(1, (middle + place - first - 2).clamp(0, tokens.shape[1] - 1))
        end = first + second + 2
        pair = torch.where(place <= first, left, torch.where(place < end, right, PAD))
        pair = torch.where((place == first + 1) | (place == end), SEP, pair)
        pair[:, 0] = CLS
        segments = torch.where(place <= first + 1, 1, 2) * (place <= end)
        return pair, segments, other.long()

    def hide(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Which of ``[N, T]`` are asked for, bool, and what is given: `MASK` for 8 of 10, any bigram, or themselves."""
        draw, how = torch.rand(tokens.shape, device=tokens.device), torch.rand(tokens.shape, device=tokens.device)
        asked = (draw < self.masked) & ((tokens == UNKNOWN) | (tokens >= SPECIAL))
        any_bigram = torch.randint(SPECIAL, self.encoder.words.num_embeddings, tokens.shape, device=tokens.device)
        given = torch.where(asked & (how < 0.8), MASK, tokens)
        return asked, torch.where(asked & (how >= 0.9), any_bigram, given)


def drawn(network: nn.Module) -> None:
    """Weights normal with deviation 0.02, biases 0, norms 1."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Embedding):
            nn.init.normal_(layer.weight, std=0.02)
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
