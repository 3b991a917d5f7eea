"""HAN: a hierarchical attention network; LSTMs with attention over a packet's bytes, then over the packets.

H. Yao, C. Liu, P. Zhang, S. Wu, C. Jiang, S. Yu: "Identification of Encrypted Traffic Through Attention Mechanism
Based Long Short Term Memory", IEEE Transactions on Big Data 8(1), 2022, 241-252.  Its other model is ``attlstm``.

Padding repeats one packet: all its bytes are zero.  The network reads it once a batch and hands the vector to every
empty place, which is the same sum with fewer terms to work out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from bench.method import COUNT, POSITIVE, SHARE, Part, Range, parameter
from bench.training.balance import class_weights
from bench.training.budget import SHARED, TrainingParameters
from bench.training.units import HeaderBytesMethod

HEAD = 128  # features of the hidden layer before the classes
CHUNK: Final = 128  # packets that are read together: bounds memory
MOST = 10.0  # largest weight of a class: our choice

#: of both models of the paper
DEVIATIONS: Final[tuple[str, ...]] = (
    "addresses are set to zero, and the checksums with them (the paper removes addresses, how is silent)",
    "the attention layer has twice the LSTM's features (silent)",
    "dropout 0.2: the paper's 0.8 is the share that is kept",
    "cross-entropy weighted by N / (K n_c), at most 10: the paper's costs are not printed; loss=sosr is its loss,"
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
        "our choice: the paper's costs are not printed",
        ("ce", "weighted_ce", "sosr"),
        allowed=("ce", "weighted_ce", "sosr"),
    )
    epochs: int = parameter(30, "passes over the training part", "section 5", allowed=COUNT)
    batch_size: int = parameter(64, "samples an optimiser step", "section 5", allowed=COUNT)
    learning_rate: float = parameter(
        1e-3, "Adam's step size", "section 5", Range(3e-4, 3e-3, log=True), allowed=POSITIVE
    )


class Han(HeaderBytesMethod):
    """HAN, the byte-level model: one byte a step, then one packet vector a step."""

    name: ClassVar[str] = "han"
    reference: ClassVar[str] = "Yao, Liu, Zhang, Wu, Jiang, Yu: attention-based LSTM, IEEE Trans. Big Data 8(1), 2022"
    Parameters: ClassVar[type] = Parameters
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "sosr": {"loss": "sosr"},  # the paper's loss, under our costs
        "shared": {"packets": 16, "mask_ports": True, **SHARED},
        "small": {"packets": 8, "bytes": 64, "batch_size": 16},  # our choice: reduced, for machines without a GPU
    }
    tiny: ClassVar[Mapping[str, Any]] = {
        "packets": 2,
        "bytes": 40,
        "hidden": 16,
        "learning_rate": 3e-3,
        "batch_size": 16,
        "epochs": 30,
    }
    deviations: ClassVar[tuple[str, ...]] = (
        *DEVIATIONS,
        "starting weights: input weights scaled by the inputs, orthogonal recurrent ones, forget bias 1 (silent); with"
        " torch's own, training stands still several times longer",
    )
    scoring_batch: ClassVar[int] = 64  # packets are read in chunks: more samples take no more memory

    def network(self) -> nn.Module:
        """A fresh :class:`Network`."""
        return Network(self.parameters, self.classes)

    def before_training(self, network: nn.Module, train: Part, rows: NDArray[np.int64]) -> None:
        """Class weights from the training rows; all 1 for plain cross-entropy."""
        if self.parameters.loss != "ce":
            network.get_buffer("weights").copy_(class_weights(train.labels[rows], self.classes, MOST))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, or the regression of costs whose negatives are the logits."""
        weights = self._fitted().get_buffer("weights")
        if self.parameters.loss == "sosr":
            return one_sided_regression(-logits, labels, weights)
        return F.cross_entropy(logits, labels, weights)


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
        result: Tensor = self.attention(self.lstm(steps)[0])
        return result


class ByteReader(Reader):
    """A reader of many long packets: the same vectors, the states of one chunk of packets at a time in memory."""

    def forward(self, steps: Tensor) -> Tensor:
        """``[N, 2 * hidden]`` of ``[N, steps, 1]``."""
        return self.on_cpu(steps) if steps.device.type == "cpu" else self.in_chunks(steps)

    def in_chunks(self, steps: Tensor) -> Tensor:
        """``[N, 2 * hidden]`` of ``[N, steps, 1]`` by torch's own layers; for the gradient all is worked out again."""

        def read(some: Tensor) -> Any:
            return checkpoint(super(ByteReader, self).forward, some, use_reentrant=False, preserve_rng_state=False)

        return torch.cat([read(some) for some in steps.split(CHUNK)])

    def on_cpu(self, steps: Tensor) -> Tensor:
        """The same by the functions at the end of this file, float32 ``[N, 2 * hidden]`` of ``[N, steps, 1]``.

        Read backwards, the padding of all packets is one run of zeros, that of an empty packet: it is read once.
        Packets of about one length share a chunk: a step takes those alone whose padding is over.
        """
        project, context, vectors = self.attention.project, self.attention.context, []
        at = torch.arange(1, steps.shape[1] + 1)
        ends = ((steps[..., 0] != 0) * at).amax(1)  # steps before the padding
        order = ends.argsort(descending=True, stable=True)
        with torch.autocast("cpu", enabled=False):
            rest = torch.stack(_scan(self.lstm, torch.zeros(len(at), 1, 1), "_l0_reverse"))[:, :, 0]
            for rows in order.split(CHUNK):
                some, active = steps[rows].transpose(0, 1), (ends[rows] >= at[:, None]).sum(1).tolist()
                states = _scan(self.lstm, some)[0], _scan(self.lstm, some, "_l0_reverse", rest, active)[0]
                vectors.append(_attend(states, project.weight, project.bias, context.weight))
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

    def forward(self, packets: Tensor) -> Tensor:
        """Logits ``[samples, classes]`` of bytes, uint8 ``[samples, packets, bytes]``."""
        filled = (packets != 0).any(2)
        rows = torch.cat([packets.new_zeros(1, packets.shape[2]), packets[filled]])  # row 0: the empty packet
        vectors = self.over_bytes(rows[..., None].float() / 255)
        place = (filled.flatten().cumsum(0) * filled.flatten()).long()
        # index_select: its gradient is added up in one order, that of vectors[place] in the threads' order
        return self.classify(vectors.index_select(0, place).unflatten(0, filled.shape))


@torch.no_grad()
def initialise(lstm: nn.LSTM) -> None:
    """Input weights uniform within 1 / sqrt(inputs), orthogonal recurrent ones, forget gates that begin open.

    torch scales input weights by the states, not the inputs: a lone byte then changes next to nothing, and training
    stands still for hundreds of steps.
    """
    for name, values in lstm.named_parameters():
        if name.startswith("weight_ih"):
            values.uniform_(-(lstm.input_size**-0.5), lstm.input_size**-0.5)
        elif name.startswith("weight_hh"):
            for gate in values.chunk(4):
                nn.init.orthogonal_(gate)
        elif name.startswith("bias_ih"):
            values.chunk(4)[1].add_(1)


# --- long sequences on the CPU --------------------------------------------------------------------------------
#
# torch's LSTM keeps some ten values a unit and step for the gradient, and attention a few more: 13 GB for 64 x 10
# packets of 1500 bytes.  Here states and cells alone are kept; all else is worked out again, many steps in one product.

BLOCK: Final = 2048  # rows of a product over several steps: what it takes and gives stays in the processor's cache

_sigmoid_backward = torch.ops.aten.sigmoid_backward
_onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``[N, outputs]`` of float32 ``[N, inputs]`` and ``[outputs, inputs]`` on the CPU, outside of autograd.

    By oneDNN where torch has it, through the operator that `torch.compile` calls: torch's own product is MKL's, half
    as fast on AMD.  A matrix that is a transposed part of another goes through oneDNN's slow reference: copy it.
    """
    if _onednn is not None and len(rows):
        result: Tensor = _onednn(rows, weight, bias, "none", [], "")
        return result
    return rows @ weight.T if bias is None else torch.addmm(bias, rows, weight.T)


def _scan(
    lstm: nn.LSTM, inputs: Tensor, suffix: str = "_l0", rest: Tensor | None = None, active: Sequence[int] = ()
) -> tuple[Tensor, Tensor]:
    """States and cells, float32 ``[steps, N, hidden]``, of one direction of a layer over ``[steps, N, inputs]``.

    ``suffix`` is that of the weights' names: ``_l0``, ``_l0_reverse``.  With ``active``, step t reads the first
    ``active[t]`` rows, never fewer than the step before it in the direction; all others are in the given states and
    cells, ``rest [2, steps, hidden]``, and go on from them when their time comes.
    """
    of = {name: getattr(lstm, name + suffix) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    weight, bias = torch.cat([of["weight_ih"], of["weight_hh"]], 1), of["bias_ih"] + of["bias_hh"]
    active = active or [inputs.shape[1]] * len(inputs)
    reverse = suffix.endswith("_reverse")
    result: tuple[Tensor, Tensor] = _Scan.apply(  # type: ignore[no-untyped-call]
        inputs, weight, bias, rest, active, reverse
    )
    return result


class _Scan(torch.autograd.Function):
    """One direction.  Row t of ``joined [steps + 1, N, inputs + hidden]`` is an input and the state before it.

    tanh(x) is 2 sigmoid(2x) - 1, so that all four gates are one sigmoid; torch's tanh takes ten times as long.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor,
        rest: Tensor | None,
        active: Sequence[int],
        reverse: bool,
    ) -> tuple[Tensor, Tensor]:
        steps, rows, width = inputs.shape
        hidden, start = len(weight) // 4, steps if reverse else 0
        joined = inputs.new_empty(steps + 1, rows, width + hidden)
        states, cells = joined[..., width:], inputs.new_empty(steps + 1, rows, hidden)
        states[start], cells[start], joined[steps - start, :, :width] = 0, 0, 0
        (joined[1:] if reverse else joined[:-1])[..., :width] = inputs
        weight, bias = _scaled(weight, 2), _scaled(bias, 2)
        for t in range(steps)[:: -1 if reverse else 1]:
            before, after, n = t + reverse, t + (not reverse), active[t]
            i, f, g, o = _product(joined[before, :n], weight, bias).sigmoid_().chunk(4, 1)
            cell = torch.mul(f, cells[before, :n], out=cells[after, :n]).addcmul_(i, g, value=2).sub_(i)
            torch.addcmul(-o, o, (cell * 2).sigmoid_(), value=2, out=states[after, :n])
            if rest is not None:
                states[after, n:], cells[after, n:] = rest[0, t], rest[1, t]
        ctx.save_for_backward(joined, cells, weight, bias)
        ctx.active, ctx.reverse = active, reverse
        ctx.set_materialize_grads(False)
        known = slice(0, steps) if reverse else slice(1, None)
        return states[known], cells[known]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, for_states: Tensor | None, for_cells: Tensor | None) -> tuple[Any, ...]:
        joined, cells, weight, bias = ctx.saved_tensors
        steps, rows, hidden, reverse = len(cells) - 1, cells.shape[1], cells.shape[2], ctx.reverse
        back = _scaled(weight[:, joined.shape[2] - hidden :], 2).T.contiguous()
        of_rest = cells.new_zeros(2, steps, hidden) if ctx.needs_input_grad[3] else None
        of_weight, of_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        carried = cells.new_zeros(2, rows, hidden)  # what later steps ask of the state and the cell
        above = [(k, values) for k, values in enumerate((for_states, for_cells)) if values is not None]
        for some in _blocks(cells[1:])[:: 1 if reverse else -1]:
            read = joined[some.start + reverse : some.stop + reverse].flatten(0, 1)
            gates = _product(read, weight, bias).sigmoid_().unflatten(0, (-1, rows))
            of_gates = torch.zeros_like(gates)
            for t in range(steps)[some][:: 1 if reverse else -1]:
                n, out = ctx.active[t], of_gates[t - some.start]
                for k, values in above:
                    carried[k] += values[t]
                if of_rest is not None:
                    of_rest[:, t] = carried[:, n:].sum(1)
                    carried[:, n:] = 0
                around = cells[t + (not reverse), :n], cells[t + reverse, :n]
                _gradients(gates[t - some.start, :n], *around, carried[0, :n], carried[1, :n], out[:n])
                carried[0, :n] = _product(out[:n], back)
            of_weight += _outer(of_gates.flatten(0, 1), read)
            of_bias += of_gates.sum((0, 1))
        return None, _scaled(of_weight, 4), _scaled(of_bias, 4), of_rest, None, None


def _attend(states: Sequence[Tensor], weight: Tensor, bias: Tensor, context: Tensor) -> Tensor:
    """``[N, features]``: sums of states weighted by softmax(context . tanh(weight state + bias)) over the steps.

    ``states`` are several float32 ``[steps, N, some]`` with ``features`` in all; ``weight [width, features]``,
    ``bias [width]``, ``context [1, width]``.  Keeps nothing wider than one weight a step.
    """
    parts = weight.split([part.shape[2] for part in states], 1)
    return torch.cat(_Attend.apply(bias, context, *states, *parts), 1)  # type: ignore[no-untyped-call]


class _Attend(torch.autograd.Function):
    """tanh(x) as 2 sigmoid(2x) - 1; the softmax does not see what the 1 adds."""

    @staticmethod
    def forward(ctx: Any, bias: Tensor, context: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        states, weights = inputs[: len(inputs) // 2], inputs[len(inputs) // 2 :]
        blocks = _blocks(states[0])
        scores = torch.cat([_squashed(states, some, bias, weights) @ (2 * context[0]) for some in blocks])
        shares = scores.unflatten(0, states[0].shape[:2]).softmax(0)
        ctx.save_for_backward(shares, bias, context, *inputs)
        return tuple(torch.stack([(shares[b, :, None] * part[b]).sum(0) for b in blocks]).sum(0) for part in states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor, ...]:
        shares, bias, context, *inputs = ctx.saved_tensors
        states, weights = inputs[: len(above)], inputs[len(above) :]
        of_states = [torch.empty(part.shape) for part in states]  # not laid out as they are: they are parts
        of_weights = [torch.zeros_like(part) for part in weights]
        of_bias, of_context = torch.zeros_like(bias), torch.zeros_like(context)
        of_shares = torch.empty_like(shares)
        for some in _blocks(shares):
            parts = [(part[some] * one).sum(2) for part, one in zip(states, above, strict=True)]
            of_shares[some] = torch.stack(parts).sum(0)
        of_scores = shares * (of_shares - (shares * of_shares).sum(0))
        backs = [part.T.contiguous() for part in weights]
        for some in _blocks(shares):
            squashed, score = _squashed(states, some, bias, weights), of_scores[some].flatten()
            of_context += 2 * score @ squashed
            inner = _sigmoid_backward(score[:, None] * (4 * context), squashed)
            of_bias += inner.sum(0)
            for k, part in enumerate(states):
                of_weights[k] += _outer(inner, part[some].flatten(0, 1))
                torch.addcmul(
                    _product(inner, backs[k]).unflatten(0, (-1, shares.shape[1])),
                    shares[some, :, None],
                    above[k],
                    out=of_states[k][some],
                )
        return of_bias, of_context, *of_states, *of_weights


def _squashed(states: Sequence[Tensor], some: slice, bias: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """``[steps * N, width]``: sigmoid of twice the inner products of some steps."""
    inner = _product(states[0][some].flatten(0, 1), 2 * weights[0], 2 * bias)
    for part, weight in zip(states[1:], weights[1:], strict=True):
        inner += _product(part[some].flatten(0, 1), 2 * weight)
    return inner.sigmoid_()


def _blocks(values: Tensor) -> list[slice]:
    """Slices of the steps of ``[steps, N, ...]``, of some :data:`BLOCK` rows each."""
    steps, at_once = len(values), max(1, BLOCK // values.shape[1])
    return [slice(begin, min(begin + at_once, steps)) for begin in range(0, steps, at_once)]


def _outer(above: Tensor, inputs: Tensor) -> Tensor:
    """Gradients ``[outputs, inputs]`` of a product's weights, of those of its outputs and its inputs, ``[N, ...]``."""
    return _product(inputs.contiguous().T, above.T).T


def _gradients(gates: Tensor, after: Tensor, before: Tensor, state: Tensor, cell: Tensor, out: Tensor) -> None:
    """Of a step's gates into ``out``, from those of the state and the cell ``after`` it; ``cell`` becomes that before.

    Of the third gate, whose input the forward pass doubles, it is half and has to be doubled twice.
    """
    i, f, g, o = gates.chunk(4, 1)
    of_i, of_f, of_g, of_o = out.chunk(4, 1)
    squashed = (after * 2).sigmoid_()
    cell.add_(_sigmoid_backward(state * o, squashed), alpha=4)
    torch.addcmul(-state, state, squashed, value=2, out=of_o)
    torch.addcmul(-cell, cell, g, value=2, out=of_i)
    torch.mul(cell, before, out=of_f)
    torch.mul(cell, i, out=of_g)
    _sigmoid_backward.grad_input(out, gates, grad_input=out)
    cell.mul_(f)


def _scaled(gates: Tensor, times: float) -> Tensor:
    """A copy of ``[4 * hidden, ...]`` with the third gate's values, the only one that is a tanh, ``times`` as large."""
    gates = gates.clone()
    gates.chunk(4)[2].mul_(times)
    return gates
