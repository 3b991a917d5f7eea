"""How long a method trains: so many passes over its training part, or so many optimiser steps.

Either is divided into epochs, each of which ends with a validation.  Schedule and patience count epochs, whatever these
are.  Read without torch: listings show parameters.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.errors import InputError
from bench.method import COUNT, POSITIVE, SHARE, NoParameters, parameter

#: the budget of every method's preset "shared", in steps whatever a method's batch; each adds the number of packets
SHARED: Final = {"steps": 2000, "epochs": 40, "patience": 10}


@dataclass(frozen=True)
class TrainingParameters(NoParameters):
    """What every torch method can set; a method repeats a field to give its paper's default."""

    epochs: int = parameter(30, "passes over the training part", "our choice", allowed=COUNT)
    steps: int | None = parameter(
        None,
        "optimiser steps, divided evenly into epochs, each of which ends with a validation; none: as many as passes "
        "over the training part take",
        "our choice",
        allowed=COUNT,
    )
    batch_size: int = parameter(64, "samples an optimiser step", "our choice", allowed=COUNT)
    micro_batch: int | None = parameter(
        None,
        "samples of a step with labels that are in memory at a time: their gradients are added up; none: all of them",
        "our choice",
        allowed=COUNT,
    )
    learning_rate: float = parameter(
        1e-3, "the optimiser's step size after the warm-up", "our choice", allowed=POSITIVE
    )
    warmup: float = parameter(
        0.0, "part of all steps over which the learning rate rises linearly", "our choice", allowed=SHARE
    )
    step_size: int = parameter(
        10, "epochs after the warm-up between two cuts of the learning rate", "our choice", allowed=COUNT
    )
    gamma: float = parameter(1.0, "factor of each cut of the learning rate", "our choice", allowed=POSITIVE)
    patience: int | None = parameter(
        None,
        "stop after so many epochs in which neither score nor loss of the validation part improves; none: never",
        "our choice",
        allowed=COUNT,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps is not None and self.steps < self.epochs:
            raise InputError(
                "bad-parameter",
                f"parameter steps={self.steps}: fewer than the {self.epochs} epochs that they are divided into; "
                "set epochs, too",
            )

    def steps_an_epoch(self, samples: int) -> float:
        """Optimiser steps between two validations of a training part of so many samples; 12.5: 12 and 13 in turns."""
        return steps_an_epoch(samples, self.batch_size) if self.steps is None else self.steps / self.epochs

    def learning_rate_at(self, step: int, steps_an_epoch: float) -> float:
        """The learning rate of a step (from 0): linear up to its full value, then StepLR by epochs."""
        warm = round(self.warmup * self.epochs * steps_an_epoch)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        return float(self.learning_rate * self.gamma ** ((step - warm) // steps_an_epoch // self.step_size))


@dataclass(frozen=True)
class PretrainingParameters(TrainingParameters):
    """What every method that is pre-trained can set, too."""

    pretraining: str = parameter(
        "fine-tuned",
        "what becomes of pre-trained weights: fine-tuned or frozen (the head alone learns); scratch: there are none",
        "our choice",
        ("scratch", "frozen", "fine-tuned"),
        allowed=("scratch", "frozen", "fine-tuned"),
    )
    pretraining_steps: int = parameter(2000, "optimiser steps without labels", "our choice", allowed=COUNT)
    pretraining_batch: int = parameter(128, "samples a step without labels", "our choice", allowed=COUNT)
    pretraining_rate: float = parameter(
        1e-3,
        "highest learning rate without labels: linear up to it, then a half cosine to 0",
        "our choice",
        allowed=POSITIVE,
    )
    pretraining_warmup: float = parameter(
        0.1, "part of the steps without labels over which the learning rate rises", "our choice", allowed=SHARE
    )
    weights: str | None = parameter(
        None,
        "file of the authors' pre-trained weights, in place of pre-training; none: pre-train here",
        "our choice",
        file=True,
    )
    weights_licence: str | None = parameter(None, "licence of that file, as its authors state it", "our choice")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights and not (self.weights_licence or "").strip():
            what = "name its licence, weights_licence=TEXT (unknown, where its authors state none)"
            raise InputError("bad-parameter", f"parameter weights={self.weights}: {what}")
        if self.weights and self.pretraining == "scratch":
            what = "pretraining=scratch begins from no weights; leave one of the two out"
            raise InputError("bad-parameter", f"parameter weights={self.weights}: {what}")

    def pretraining_rate_at(self, step: int) -> float:
        """The learning rate of a step without labels (from 0)."""
        warm = round(self.pretraining_warmup * self.pretraining_steps)
        if step < warm:
            return self.pretraining_rate * (step + 1) / warm
        done = (step - warm) / max(1, self.pretraining_steps - warm)
        return self.pretraining_rate * (1 + math.cos(math.pi * done)) / 2


def epochs_of_batches(
    rows: NDArray[np.int64], settings: TrainingParameters, draw: np.random.Generator
) -> Iterator[Iterator[NDArray[np.int64]]]:
    """For each epoch its steps' rows: one pass after the other over ``rows [rows]``, each in a drawn order.

    An epoch is a pass or, with ``steps``, an equal share of them, wherever in a pass it begins.
    """
    passes = chain.from_iterable(batches(draw.permutation(rows), settings.batch_size) for _ in repeat(None))
    each = settings.steps_an_epoch(len(rows))
    for epoch in range(settings.epochs):
        yield islice(passes, round(each * (epoch + 1)) - round(each * epoch))


def steps_an_epoch(samples: int, batch_size: int) -> int:
    """Optimiser steps of one pass; a last batch of one sample joins the one before it."""
    return max(1, samples // batch_size + (samples % batch_size > (batch_size > 1)))


def micro_batches(rows: NDArray[np.int64], most: int | None) -> list[NDArray[np.int64]]:
    """The rows ``[rows]`` of a step in as few parts of at most ``most`` as there can be, of almost equal sizes.

    >>> [len(part) for part in micro_batches(np.arange(9), 4)]
    [3, 3, 3]
    """
    return np.array_split(rows, 1 if most is None else -(-len(rows) // most))


def batches(rows: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """The rows ``[rows]`` in batches; unless asked for, none holds one alone: batch normalisation cannot digest it.

    >>> [len(batch) for batch in batches(np.arange(17), 8)]
    [8, 9]
    """
    steps = steps_an_epoch(len(rows), batch_size)
    for step in range(steps):
        yield rows[step * batch_size : (step + 1) * batch_size if step < steps - 1 else len(rows)]
