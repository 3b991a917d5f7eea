"""GRUs over packed sequences on the CPU: torch's numbers in a fraction of its time.

torch's GRU makes two small products a step, by MKL, and in the backward pass adds up each weight's gradient a step at a
time.  Here a direction takes one small product a step; inputs and weights' gradients take one for all steps together.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import PackedSequence

from bench.training.products import outer, product

_sigmoid_backward = torch.ops.aten.sigmoid_backward
_tanh_backward = torch.ops.aten.tanh_backward


def packed_gru(layer: nn.GRU, sequence: PackedSequence) -> tuple[PackedSequence, Tensor]:
    """As ``layer(sequence)``, of one bidirectional layer with biases: outputs and last states ``[2, batch, hidden]``.

    ``sequence.data`` is ``[words, inputs]``.  On a GPU, in mixed precision, in other types than float32 and where
    nobody asks for a gradient it is torch's own.
    """
    data = sequence.data
    here = data.device.type == "cpu" and data.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if not (here and torch.is_grad_enabled()):
        result: tuple[PackedSequence, Tensor] = layer(sequence)
        return result
    sizes = sequence.batch_sizes.tolist()
    states: list[Tensor] = []
    ends: list[Tensor] = []
    for suffix in ("_l0", "_l0_reverse"):
        weights = (getattr(layer, name + suffix) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        state, end = _Scan.apply(data.contiguous(), *weights, (sizes, bool(ends)))  # type: ignore[no-untyped-call]
        states.append(state)
        ends.append(end)
    final: Tensor = layer.permute_hidden(torch.stack(ends), sequence.unsorted_indices)
    return sequence._replace(data=torch.cat(states, 1)), final


class _Scan(torch.autograd.Function):
    """States ``[words, hidden]`` and last states ``[batch, hidden]`` of one direction, in packed order.

    ``order`` are ``sizes``, and whether they are read backwards: step t is of the first ``sizes[t]`` sequences.  A
    sequence has the state 0 until its first step and keeps that of its last, so that one array has the state of all in
    both directions.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor,
        bias_hh: Tensor,
        order: tuple[Sequence[int], bool],
    ) -> tuple[Tensor, Tensor]:
        sizes, reverse = ctx.order = order
        hidden = weight_hh.shape[1]
        gates = product(inputs, weight_ih, bias_ih)  # reset, update and new, of the input's part alone at first
        state, before = gates.new_zeros(sizes[0], hidden), gates.new_empty(len(gates), hidden)
        states = torch.empty_like(before)
        for both, new, old, after in _steps(sizes, reverse, *gates.split([2 * hidden, hidden], 1), before, states):
            current = state[: len(old)]
            asked = product(old.copy_(current), weight_hh, bias_hh)
            reset, update = both.add_(asked[:, : 2 * hidden]).sigmoid_().chunk(2, 1)
            _tanh_(new.addcmul_(reset, asked[:, 2 * hidden :]))
            current.copy_(torch.lerp(new, old, update, out=after))
        ctx.save_for_backward(inputs, weight_ih, weight_hh, bias_hh, gates, before)
        ctx.set_materialize_grads(False)
        return states, state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, for_states: Tensor | None, for_last: Tensor | None) -> tuple[Any, ...]:
        inputs, weight_ih, weight_hh, bias_hh, gates, before = ctx.saved_tensors
        hidden, (sizes, reverse) = weight_hh.shape[1], ctx.order
        of_new, of_gates = _slopes(gates, before, product(before, weight_hh[2 * hidden :], bias_hh[2 * hidden :]))
        of_states = torch.zeros_like(before) if for_states is None else for_states.clone()
        carried = before.new_zeros(sizes[0], hidden) if for_last is None else for_last.clone()
        update, back = gates[:, hidden : 2 * hidden], weight_hh.T
        for keep, slope, above in _steps(sizes, not reverse, update, of_gates, of_states):
            before_it = carried[: len(above)]
            slope.unflatten(1, (3, hidden)).mul_(above.add_(before_it)[:, None])
            torch.addcmul(product(slope, back), above, keep, out=before_it)
        of_weight_hh, of_bias_hh = outer(of_gates, before), of_gates.sum(0)
        torch.mul(of_states, of_new, out=of_gates[:, 2 * hidden :])
        return (
            product(of_gates, weight_ih.T),
            outer(of_gates, inputs),
            of_weight_hh,
            of_gates.sum(0),
            of_bias_hh,
            None,
        )


def _steps(sizes: Sequence[int], backwards: bool, *values: Tensor) -> list[tuple[Tensor, ...]]:
    """The rows of each step of several ``[words, ...]``."""
    steps = list(zip(*(one.split(sizes) for one in values), strict=True))
    return steps[::-1] if backwards else steps


def _slopes(gates: Tensor, before: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """What a state's gradient is multiplied by to be that of the new gate's input ``[words, hidden]``, and ``[words,
    3 * hidden]`` of the products of the state before it; ``asked`` is the third.
    """
    reset, update, new = gates.chunk(3, 1)
    slopes = torch.empty_like(gates)
    of_reset, of_update, of_asked = slopes.chunk(3, 1)
    of_new = _tanh_backward(1 - update, new)
    _sigmoid_backward.grad_input(of_new * asked, reset, grad_input=of_reset)
    _sigmoid_backward.grad_input(before - new, update, grad_input=of_update)
    torch.mul(of_new, reset, out=of_asked)
    return of_new, slopes


def _tanh_(values: Tensor) -> Tensor:
    """2 sigmoid(2x) - 1 in place; torch's tanh takes several times as long."""
    return values.mul_(2).sigmoid_().mul_(2).sub_(1)
