"""How long a torch method takes to answer one batch, preprocessing apart (the measure of the paper's Table X)."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import quantiles
from typing import Any

import numpy as np
import torch

from bench.method import Inputs, take
from bench.readers import View
from bench.training import TorchMethod


@dataclass(frozen=True)
class Timing:
    """Quartiles of repeated calls, milliseconds."""

    low: float
    median: float
    high: float
    calls: int


@dataclass(frozen=True)
class Latency:
    """The steps from sessions to probabilities for one batch."""

    represent: Timing  # captures to arrays
    assemble: Timing  # arrays to the network's tensors on the device: pictures, graphs, the copy
    infer: Timing  # the network alone


def latency(
    method: TorchMethod, view: Callable[[], View], *, warmup: int = 5, calls: int = 50, seconds: float = 30.0
) -> Latency:
    """Time a fitted method on one batch, the samples of ``view()``, each step by itself.

    Every step is called ``warmup`` times, then timed ``calls`` times or, where that takes longer, for ``seconds``
    (five calls at least).  Samples from which the method abstains are represented and no more.  On CUDA the device
    is waited for within the timed part.
    """
    assert method.model is not None, "latency takes a fitted method"
    model = method.model.eval()
    inputs: Inputs = method.represent(view())
    inputs = take(inputs, np.flatnonzero(method.answers(inputs)))
    limits = (warmup, calls, seconds)
    with torch.inference_mode(), method.precision():
        tensors = method.batch(inputs)
        return Latency(
            _time(lambda: method.represent(view()), "cpu", *limits),
            _time(lambda: method.batch(inputs), method.device, *limits),
            _time(lambda: model(**tensors), method.device, *limits),
        )


def _time(action: Callable[[], Any], device: str, warmup: int, calls: int, seconds: float) -> Timing:
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    for _ in range(warmup):
        action()
    wait()
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < 5 or (len(taken) < calls and time.perf_counter() - began < seconds):
        start = time.perf_counter()
        action()
        wait()
        taken.append((time.perf_counter() - start) * 1e3)
    low, median, high = quantiles(taken, n=4)
    return Timing(low, median, high, len(taken))
