"""LSTMs over packets' bytes on the CPU: torch's numbers in less time.

torch's LSTM gives its inputs a gradient though nobody asks for that of bytes, and multiplies the zeros behind short
packets.  Here inputs and weights' gradients take one product for all steps together, without either.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from bench.training.products import FEW, linear, outer, padded_linear, product

_sigmoid_backward = torch.ops.aten.sigmoid_backward


def lstm_states(layer: nn.LSTM, values: Tensor) -> Tensor:
    """As ``layer(values)[0]``: states ``[N, steps, directions * hidden]`` of ``[N, steps, inputs]``.

    ``layer`` has biases, its batch first and no projection.  On a GPU, in mixed precision, in other types than float32
    and of few sequences whose gradient nobody asks for it is torch's own.
    """
    here = values.device.type == "cpu" and values.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if not (here and (torch.is_grad_enabled() or len(values) >= FEW)):
        result: Tensor = layer(values)[0]
        return result
    states = values.transpose(0, 1)
    for k in range(layer.num_layers):
        if k and layer.dropout:
            states = F.dropout(states, layer.dropout, layer.training)
        project = linear if k or values.requires_grad else padded_linear
        directions = []
        for suffix in (f"_l{k}", f"_l{k}_reverse")[: 1 + layer.bidirectional]:
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            read, weight, bias, bias_hh = (getattr(layer, name + suffix) for name in names)
            gates = project(states, read, bias + bias_hh)
            directions.append(_Scan.apply(gates, weight, suffix.endswith("_reverse")))  # type: ignore[no-untyped-call]
        states = torch.cat(directions, 2)
    return states.transpose(0, 1)


class _Scan(torch.autograd.Function):
    """States ``[steps, N, hidden]`` of one direction, of the gates' inputs ``[steps, N, 4 * hidden]``.

    The gates are written over their inputs, which nobody else may keep.  tanh(x) is 2 sigmoid(2x) - 1, so that all four
    gates are one sigmoid; torch's tanh takes several times as long.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, reverse: bool) -> Tensor:
        hidden = weight.shape[1]
        states, cells = (gates.new_empty(*gates.shape[:2], hidden) for _ in range(2))
        first = gates.new_zeros(gates.shape[1], hidden)
        for before, t in _steps(len(gates), reverse):
            if before is not None:
                gates[t] += product(states[before], weight)
            gates[t, :, 2 * hidden : 3 * hidden] *= 2
            i, f, g, o = gates[t].sigmoid_().chunk(4, 1)
            past = first if before is None else cells[before]
            cell = torch.mul(f, past, out=cells[t]).addcmul_(i, g, value=2).sub_(i)
            torch.addcmul(-o, o, (cell * 2).sigmoid_(), value=2, out=states[t])
        ctx.save_for_backward(gates, cells, states, weight)
        ctx.reverse = reverse
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Any, ...]:
        gates, cells, states, weight = ctx.saved_tensors
        of_gates, first = torch.empty_like(gates), torch.zeros_like(cells[0])
        carried, cell = first, torch.zeros_like(first)  # what later steps ask of the state and the cell
        for before, t in _steps(len(gates), ctx.reverse)[::-1]:
            past = first if before is None else cells[before]
            gate_gradients(gates[t], cells[t], past, carried + above[t], cell, of_gates[t])
            if before is not None:
                carried = product(of_gates[t], weight.T)
        if len(gates) == 1:  # no step has a state before it
            return of_gates, torch.zeros_like(weight), None
        later, earlier = (of_gates[:-1], states[1:]) if ctx.reverse else (of_gates[1:], states[:-1])
        return of_gates, outer(later.flatten(0, 1), earlier.flatten(0, 1)), None


def _steps(steps: int, reverse: bool) -> list[tuple[int | None, int]]:
    """Steps in the order of reading, each with the one that is read before it."""
    order = range(steps)[:: -1 if reverse else 1]
    return list(zip([None, *order[:-1]], order, strict=True))


def gate_gradients(gates: Tensor, after: Tensor, before: Tensor, state: Tensor, cell: Tensor, out: Tensor) -> None:
    """Gradients of a step's gates' inputs into ``out``, of those of the state and the cell ``after`` it.

    ``gates`` and ``out`` are float32 ``[N, 4 * hidden]``, all others ``[N, hidden]``.  ``before`` is the cell before
    the step; its gradient is written over ``cell``, that of the cell ``after``.  The third gate is sigmoid(2x).
    """
    i, f, g, o = gates.chunk(4, 1)
    of_i, of_f, of_g, of_o = out.chunk(4, 1)
    squashed = (after * 2).sigmoid_()
    cell.add_(_sigmoid_backward(state * o, squashed), alpha=4)
    torch.addcmul(-state, state, squashed, value=2, out=of_o)
    torch.addcmul(-cell, cell, g, value=2, out=of_i)
    torch.mul(cell, before, out=of_f)
    torch.mul(cell, i, out=of_g).mul_(4)
    _sigmoid_backward.grad_input(out, gates, grad_input=out)
    cell.mul_(f)
