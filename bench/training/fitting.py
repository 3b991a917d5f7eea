"""How many optimiser steps a torch method takes to fit samples: whether it can learn at all, and after how long."""

import dataclasses
from typing import Any, Final

import numpy as np

from bench.method import Monitor, Part, take
from bench.training.loop import TorchMethod

MOST: Final = 10_000  # optimiser steps
EVERY: Final = 25  # steps between two looks


class _Fitted(Exception):
    """The samples are fitted; ends training."""


class _Watch(Monitor):
    """Ends training at an accuracy on what is given as the validation part."""

    def __init__(self, accuracy: float) -> None:
        self.wanted, self.best, self.step = accuracy, 0.0, 0

    def log(self, step: int, **values: float) -> None:
        """Count."""
        self.step = step

    def epoch(self, epoch: int, epochs: int, **values: float) -> None:
        """Look."""
        self.best = max(self.best, values["validation_accuracy"])
        if self.best >= self.wanted:
            raise _Fitted


def steps_to_fit(method: TorchMethod, part: Part, accuracy: float) -> tuple[int, float]:
    """Optimiser steps until that share of a part's samples is answered rightly, and the share reached.

    The learning rate is not cut and nothing stops it before `MOST` steps.  Samples that the method abstains from are
    left out.  ``method`` is not fitted afterwards.
    """
    settings: Any = dataclasses.replace(
        method.parameters, steps=MOST, epochs=MOST // EVERY, patience=None, warmup=0.0, gamma=1.0
    )
    fresh = type(method)(settings, classes=method.classes, seed=method.seed, device=method.device)
    rows = np.flatnonzero(fresh.can_classify(part.inputs))
    answered = Part(take(part.inputs, rows), part.labels[rows])
    watch = _Watch(accuracy)
    try:
        fresh.fit(answered, answered, watch)
    except _Fitted:
        pass
    return watch.step, watch.best
