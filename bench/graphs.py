"""What graph methods share: networks of torch-geometric layers, a normalisation for weights used in rounds."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.training import TorchMethod


class GraphMethod(TorchMethod):
    """A torch method whose network is made of torch-geometric layers, imported where the network is made.

    :meth:`batch` builds the graphs of one batch: node values ``[N, ...]``, ``edges`` int64 ``[2, E]`` and the
    graph of each node, ``graph`` int64 ``[N]``.
    """

    family: ClassVar[str] = "graph"


class RoundNorm(nn.Module):
    """Batch normalisation inside weights that are used several times in one pass: statistics for every round.

    Scale and shift are those of the weights.  The sums of a graph grow from round to round, so one running mean of all
    rounds would fit none.  The running statistics begin as the first batch's and not at 0 and 1, from which they
    would need some fifty steps to depart.  A batch of one row or none is normalised by them in training too.
    """

    mean: Tensor
    variance: Tensor
    round = 0  # see `start_round`

    def __init__(self, width: int, rounds: int = 1) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(rounds, width))
        self.register_buffer("variance", torch.ones(rounds, width))
        self.batches = [0] * rounds

    def forward(self, rows: Tensor) -> Tensor:
        """Rows ``[N, width]``, normalised."""
        learn, momentum = self.training and len(rows) > 1, 0.0
        if learn:
            self.batches[self.round] += 1
            momentum = max(0.1, 1 / self.batches[self.round])
        running = self.mean[self.round], self.variance[self.round]
        return F.batch_norm(rows, *running, self.weight, self.bias, learn, momentum)


def start_round(weights: nn.Module, number: int) -> None:
    """Tell all norms of some weights the round, from 0, in which they are used next."""
    for module in weights.modules():
        if isinstance(module, RoundNorm):
            module.round = number
