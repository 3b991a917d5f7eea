"""How fast ATVITSC trains, and how fast its matrix products alone would allow.

The products (matrix, batched matrix, convolution, LSTM and attention kernels of one training step, forward and
backward) are recorded from a real step and replayed alone, on tensors of the same shapes.  Both are measured in
turns, epoch by epoch, so that other load on the machine hits both.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.method import Monitor, Part
from methods.atvitsc import Atvitsc, Parameters

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "rnn_layer", "attention")
CLASSES = 12


class Recorder(TorchDispatchMode):
    """Keeps every product that is called within."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Callable[[], Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the call, then make it."""
        kwargs = kwargs or {}
        name = str(function)
        if any(f"{product}." in name or f"{product}_" in name for product in PRODUCTS):
            kept = [a.detach().clone(memory_format=torch.preserve_format) if torch.is_tensor(a) else a for a in args]
            self.calls.append(lambda: function(*kept, **kwargs))
        return function(*args, **kwargs)


def samples(count: int, seed: int = 0) -> Part:
    """Random bytes, lengths and labels."""
    random = np.random.default_rng(seed)
    payload = random.integers(0, 256, (count, 16, 256), dtype=np.uint8)
    lengths = random.integers(1, 1500, (count, 16), dtype=np.int32)
    return Part({"payload": payload, "lengths": lengths}, random.integers(0, CLASSES, count))


def products(batch: int) -> list[Callable[[], Any]]:
    """The products of one training step."""
    recorder = Recorder()
    with recorder:
        Atvitsc(Parameters(epochs=1, batch_size=batch), classes=CLASSES).fit(samples(batch), samples(0), Monitor())
    return recorder.calls


class Turns(Monitor):
    """After each epoch of training, as many steps of products alone."""

    def __init__(self, calls: list[Callable[[], Any]], steps: int, batch: int) -> None:
        self.calls, self.steps, self.batch = calls, steps, batch
        self.trained: list[float] = []
        self.multiplied: list[float] = []

    def epoch(self, epoch: int, epochs: int, **values: float) -> None:
        """Samples a second of both."""
        start = time.perf_counter()
        with torch.no_grad():
            for _ in range(self.steps):
                for call in self.calls:
                    call()
        self.trained.append(values["samples_a_second"])
        self.multiplied.append(self.steps * self.batch / (time.perf_counter() - start))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=15, help="steps an epoch")
    parser.add_argument("--epochs", type=int, default=9, help="turns; the first is not counted")
    options = parser.parse_args()
    calls = products(options.batch)
    turns = Turns(calls, options.steps, options.batch)
    part = samples(options.batch * options.steps)
    Atvitsc(Parameters(epochs=options.epochs, batch_size=options.batch), classes=CLASSES).fit(part, samples(0), turns)
    trained, multiplied = (statistics.median(rates[1:]) for rates in (turns.trained, turns.multiplied))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {options.batch}")
    spread = f"({min(turns.trained[1:]):.1f} ... {max(turns.trained[1:]):.1f})"
    print(f"training steps            {trained:8.1f} samples/s  {spread}")
    print(f"its {len(calls):3d} products alone    {multiplied:8.1f} samples/s")
    print(f"training / products alone {trained / multiplied:8.2f}")


if __name__ == "__main__":
    main()
