"""What graph methods share: networks of torch-geometric layers, a normalisation for weights used in rounds."""

from collections.abc import Iterable
from typing import ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from bench.method import Part, take
from bench.training.budget import batches
from bench.training.loop import TorchMethod

#: training samples from which norms' statistics are estimated: 16 batches of 128 leave a mean little to gain
ESTIMATED: Final = 2_000


class GraphMethod(TorchMethod):
    """A torch method on graphs; layers of torch-geometric are imported where the network is made.

    :meth:`batch` builds the graphs of one batch: node values ``[N, ...]``, ``edges`` int64 ``[2, E]`` and which nodes
    are whose.
    """

    family: ClassVar[str] = "graph"

    def loss_divisor(self, labels: Tensor) -> None:
        """None for any ``labels [batch]``: a `RoundNorm` looks at the whole batch."""

    def before_validation(self, network: nn.Module, train: Part, rows: NDArray[np.int64]) -> None:
        """Statistics of all norms from ``rows [some]``, at most `ESTIMATED` of them, in batches as in training."""
        if any(isinstance(module, RoundNorm) for module in network.modules()):
            drawn = np.random.default_rng((self.seed, 1)).permutation(np.sort(rows))[:ESTIMATED]
            with self.precision():
                some = batches(drawn, self.parameters.batch_size)
                estimate_statistics(network, (self.batch(take(train.inputs, batch)) for batch in some))


class RoundNorm(nn.Module):
    """Batch normalisation inside weights that are used several times in one pass: statistics for every round.

    Scale and shift are those of the weights.  The sums of a graph grow from round to round, so one mean of all rounds
    would fit none.  Training uses each batch's own statistics and learns none: those of evaluation are estimated
    afterwards (:func:`estimate_statistics`), for weights that stand still.  A batch of one row or none, which has no
    variance, is normalised by them in training too.
    """

    mean: Tensor
    variance: Tensor
    round = 0  # see `start_round`
    batches: list[int] | None = None  # of each round, while statistics are estimated

    def __init__(self, width: int, rounds: int = 1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(rounds, width))
        self.register_buffer("variance", torch.ones(rounds, width))

    def forward(self, rows: Tensor) -> Tensor:
        """Rows ``[N, width]``, normalised."""
        own = self.training and len(rows) > 1
        momentum = 0.0
        if own and self.batches is not None:
            self.batches[self.round] += 1
            momentum = 1 / self.batches[self.round]  # the running mean is then that of all batches
        running = self.mean[self.round], self.variance[self.round]
        return F.batch_norm(rows, *running, self.weight, self.bias, own, momentum, self.epsilon)


def estimate_statistics(network: nn.Module, batches: Iterable[dict[str, Tensor]]) -> None:
    """Give all norms of a network the means over ``batches`` of each batch's mean and variance.

    A batch is the network's keywords, tensors ``[N, ...]`` as :meth:`GraphMethod.batch` makes them.  Dropout is off, as
    it is where the statistics are used.  The network is left in evaluation mode.
    """
    norms = [module for module in network.eval().modules() if isinstance(module, RoundNorm)]
    for norm in norms:
        norm.train()
        norm.batches = [0] * len(norm.mean)
    with torch.no_grad():
        for batch in batches:
            network(**batch)
    for norm in norms:
        norm.eval()
        norm.batches = None


def start_round(weights: nn.Module, number: int) -> None:
    """Tell all norms of some weights the round, from 0, in which they are used next."""
    for module in weights.modules():
        if isinstance(module, RoundNorm):
            module.round = number
