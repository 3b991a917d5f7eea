"""How many optimiser steps a torch method takes to fit samples: whether it can learn at all, and after how long."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.contract_captures import five_services
from bench.method import Method, Monitor, Part, learn, make_parameters, take
from bench.readers import View
from bench.schema import NO_CLASS
from bench.spec import Sampling
from bench.splits.sampling import windows
from bench.training.loop import TorchMethod

FITTED: Final = 0.95  # accuracy on training samples that shows that a network can learn
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


def steps_on_demo(
    method: type[Method], values: Mapping[str, Any], folder: Path, *, device: str = "cpu"
) -> tuple[int, float]:
    """:func:`steps_to_fit` of a torch method with these parameters, on 5 x 40 sessions of the demo, to `FITTED`.

    ``folder`` keeps their captures for a further call.
    """
    store = five_services(folder)
    labels = store.labels(store.default_task).astype(np.int64)
    samples = windows(Sampling(), np.flatnonzero(labels != NO_CLASS), store)
    fresh: Any = method(make_parameters(method, values), classes=5, seed=7, device=device)
    inputs = fresh.represent(View(store, samples, method.reads))
    return steps_to_fit(fresh, Part(inputs, labels[samples.session]), FITTED)


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
        learn(fresh, answered, answered, watch)
    except _Fitted:
        pass
    return watch.step, watch.best
