"""An LSTM and attention over long sequences on the CPU: the same numbers, with a bound on what the gradient keeps.

torch's LSTM keeps some ten values a unit and step, and attention a few more: 13 GB for HAN's batch of 64 x 10 packets
of 1500 bytes.  Here states and cells alone are kept; all else is worked out again, many steps in one product.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bench.training.lstm import gate_gradients
from bench.training.products import BLOCK, outer, product

_sigmoid_backward = torch.ops.aten.sigmoid_backward


def scan_lstm(
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
            i, f, g, o = product(joined[before, :n], weight, bias).sigmoid_().chunk(4, 1)
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
        back = _scaled(weight[:, joined.shape[2] - hidden :], 0.5).T.contiguous()
        of_rest = cells.new_zeros(2, steps, hidden) if ctx.needs_input_grad[3] else None
        of_weight, of_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        carried = cells.new_zeros(2, rows, hidden)  # what later steps ask of the state and the cell
        above = [(k, values) for k, values in enumerate((for_states, for_cells)) if values is not None]
        for some in _blocks(cells[1:])[:: 1 if reverse else -1]:
            read = joined[some.start + reverse : some.stop + reverse].flatten(0, 1)
            gates = product(read, weight, bias).sigmoid_().unflatten(0, (-1, rows))
            of_gates = torch.zeros_like(gates)
            for t in range(steps)[some][:: 1 if reverse else -1]:
                n, out = ctx.active[t], of_gates[t - some.start]
                for k, values in above:
                    carried[k] += values[t]
                if of_rest is not None:
                    of_rest[:, t] = carried[:, n:].sum(1)
                    carried[:, n:] = 0
                around = cells[t + (not reverse), :n], cells[t + reverse, :n]
                gate_gradients(gates[t - some.start, :n], *around, carried[0, :n], carried[1, :n], out[:n])
                carried[0, :n] = product(out[:n], back)
            of_weight += outer(of_gates.flatten(0, 1), read)
            of_bias += of_gates.sum((0, 1))
        return None, of_weight, of_bias, of_rest, None, None


def attend(states: Sequence[Tensor], weight: Tensor, bias: Tensor, context: Tensor) -> Tensor:
    """``[N, features]``: sums of states weighted by softmax(context . tanh(weight state + bias)) over the steps.

    ``states`` are several float32 ``[steps, N, some]`` with ``features`` in all; ``weight [width, features]``,
    ``bias [width]``, ``context [1, width]``.  Keeps nothing wider than one weight a step.
    """
    parts = weight.split([part.shape[2] for part in states], 1)
    return torch.cat(_Attention.apply(bias, context, *states, *parts), 1)  # type: ignore[no-untyped-call]


class _Attention(torch.autograd.Function):
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
                of_weights[k] += outer(inner, part[some].flatten(0, 1))
                torch.addcmul(
                    product(inner, backs[k]).unflatten(0, (-1, shares.shape[1])),
                    shares[some, :, None],
                    above[k],
                    out=of_states[k][some],
                )
        return of_bias, of_context, *of_states, *of_weights


def _squashed(states: Sequence[Tensor], some: slice, bias: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """``[steps * N, width]``: sigmoid of twice the inner products of some steps."""
    inner = product(states[0][some].flatten(0, 1), 2 * weights[0], 2 * bias)
    for part, weight in zip(states[1:], weights[1:], strict=True):
        inner += product(part[some].flatten(0, 1), 2 * weight)
    return inner.sigmoid_()


def _blocks(values: Tensor) -> list[slice]:
    """Slices of the steps of ``[steps, N, ...]``, of some :data:`BLOCK` rows each."""
    steps, at_once = len(values), max(1, BLOCK // values.shape[1])
    return [slice(begin, min(begin + at_once, steps)) for begin in range(0, steps, at_once)]


def _scaled(gates: Tensor, times: float) -> Tensor:
    """A copy of ``[4 * hidden, ...]`` with the third gate's values, the only one that is a tanh, ``times`` as large."""
    gates = gates.clone()
    gates.chunk(4)[2].mul_(times)
    return gates
