"""Matrix products on the CPU by oneDNN where torch would take MKL's, which is half as fast on AMD: the same sums.

torch hands linear layers to MKL, which keeps its best kernels for Intel.  oneDNN, which torch has beside it, uses what
the processor can do; the operator is the one that `torch.compile` calls.  Elsewhere (a GPU, mixed precision, a torch
without the operator, products so small that Python's part of the work would show) layers are torch's own.
"""

import itertools
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LEAST: Final = 1 << 22  # multiplications of a product: some 80 us; each call of oneDNN's has a cost of its own
FEW: Final = 32  # rows: of fewer, torch's own takes half as long to as long
BLOCK: Final = 2048  # rows of a sum over rows: oneDNN's gradient of a weight slows down beyond

LENGTHS: Final = 8  # groups of rows of about one length


def onednn_product() -> Any:
    """OneDNN's product, a private operator of torch; None where it is not there or is not what it was."""
    operator = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
    rows, weight = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3)
    try:
        good = operator is not None and torch.equal(operator(rows, weight, None, "none", [], ""), rows @ weight.T)
    except Exception:
        good = False
    return operator if good else None


_onednn = onednn_product()


def is_large(rows: Tensor, weight: Tensor) -> bool:
    """Whether the product of ``[..., inputs]`` and ``[outputs, inputs]`` is one for oneDNN."""
    return rows.numel() >= FEW * rows.shape[-1] and rows.numel() * len(weight) >= LEAST


def product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``[N, outputs]`` of float32 ``[N, inputs]`` and ``[outputs, inputs]`` on the CPU, outside of autograd.

    A matrix may be the transposed of a whole one; that of a part goes through oneDNN's slow reference: copy it.
    """
    if _onednn is not None and is_large(rows, weight):
        result: Tensor = _onednn(rows, weight, bias, "none", [], "")
        return result
    return rows @ weight.T if bias is None else torch.addmm(bias, rows, weight.T)


def outer(above: Tensor, inputs: Tensor) -> Tensor:
    """Gradients ``[outputs, inputs]`` of a product's weights, of those of its outputs and its inputs, ``[N, ...]``.

    They are summed over blocks of rows in their order.
    """
    sums = (
        product(two.contiguous().T, one.T).T for one, two in zip(above.split(BLOCK), inputs.split(BLOCK), strict=True)
    )
    total = next(sums)
    for one in sums:
        total += one
    return total


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As `torch.nn.functional.linear`: ``[..., outputs]`` of ``[..., inputs]``, by oneDNN where that is faster."""
    here = rows.device.type == "cpu" and rows.dtype == weight.dtype == torch.float32
    if _onednn is None or not (here and is_large(rows, weight)) or torch.is_autocast_enabled("cpu"):
        return F.linear(rows, weight, bias)
    flat: Tensor = _Product.apply(rows.flatten(0, -2).contiguous(), weight, bias)  # type: ignore[no-untyped-call]
    result: Tensor = flat.unflatten(0, rows.shape[:-1])
    return result


class _Product(torch.autograd.Function):
    """:func:`product` with its gradients."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        weight = weight.contiguous()
        ctx.save_for_backward(rows, weight)
        return product(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        of_rows, of_weight, of_bias = None, None, None
        above = above.contiguous()
        if ctx.needs_input_grad[0]:
            of_rows = product(above, weight.T)
        if ctx.needs_input_grad[1]:
            of_weight = outer(above, rows)
        if ctx.needs_input_grad[2]:
            of_bias = above.sum(0)
        return of_rows, of_weight, of_bias


def padded_linear(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """As :func:`linear` of rows whose gradient nobody asks for, without the zeros at their ends.

    ``[..., outputs]`` of float32 ``[..., inputs]`` on the CPU; weights ``[outputs, inputs]``, bias ``[outputs]``.
    """
    flat: Tensor = _Padded.apply(rows.flatten(0, -2), weight, bias)  # type: ignore[no-untyped-call]
    result: Tensor = flat.unflatten(0, rows.shape[:-1])
    return result


class _Padded(torch.autograd.Function):
    """Rows in the order of their lengths, :data:`LENGTHS` groups of them: each is cut to its longest row."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        places = torch.arange(1, rows.shape[1] + 1, dtype=torch.int32)
        ends, order = ((rows != 0) * places).amax(1).sort(descending=True, stable=True)
        groups = order.chunk(LENGTHS)
        starts = [0, *itertools.accumulate(map(len, groups))]
        widths = [int(ends[start]) for start in starts[:-1]]
        rows, turned = rows.index_select(0, order), weight.T.contiguous()
        result = rows.new_empty(len(rows), len(weight))
        for group, start, width in zip(groups, starts, widths, strict=False):
            part = rows[start : start + len(group), :width].contiguous()
            result.index_copy_(
                0, group, product(part, turned[:width].T, bias) if width else bias.expand(len(group), -1)
            )
        ctx.save_for_backward(rows, order)
        ctx.groups = list(zip(widths, [*widths[1:], 0], starts[1:], strict=True))
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Any, ...]:
        rows, order = ctx.saved_tensors
        of_bias, above = above.sum(0), above.index_select(0, order)
        of_weight = above.new_zeros(above.shape[1], rows.shape[1])
        for width, next_width, stop in ctx.groups:  # the columns that rows up to `stop` alone have
            if next_width < width:
                of_weight[:, next_width:width] = outer(above[:stop], rows[:stop, next_width:width].contiguous())
        return None, of_weight, of_bias


class Linear(nn.Linear):
    """torch's layer by :func:`linear`."""

    def forward(self, rows: Tensor) -> Tensor:
        """``[..., outputs]`` of ``[..., inputs]``."""
        return linear(rows, self.weight, self.bias)


def by_onednn(network: nn.Module) -> nn.Module:
    """The network, its linear layers' products by oneDNN from now on; names and weights are as they were."""
    for layer in network.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = Linear
    return network
