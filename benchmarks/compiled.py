"""Whether `torch.compile` pays here, and whether a compiled network repeats itself.

    python benchmarks/compiled.py [--method NAME ...] [--steps 20] [--turns 3]

One real batch at a method's own defaults without dropout, trained on by the network as methods train it and by a
compiled one of plain layers in turns (our products by oneDNN cannot be traced), on as many threads as OMP_NUM_THREADS
says.  "first": seconds of the first compiled step, in which it is compiled; "ratio": seconds of a step as it is over
those of a compiled one; "apart": largest relative difference of the losses of all steps; "repeats": whether a second
compiled network has the same losses to the bit.
"""

import argparse
import copy
import statistics
import time
from typing import Any

import numpy as np
import torch
from equality import ready

NAMES = ("atvitsc", "attlstm", "cmtsnn", "wang1d", "wang2d", "flowpic", "deeppacket-sae", "cesnet-cnn")


class Trained:
    """A network, its optimiser, and the losses so far."""

    def __init__(self, method: Any, model: Any, forward: Any) -> None:
        self.method, self.model, self.forward = method, model, forward
        self.optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
        self.losses: list[float] = []

    def steps(self, tensors: Any, labels: Any, number: int) -> float:
        """Seconds of so many optimiser steps."""
        started = time.perf_counter()
        for _ in range(number):
            self.method.model = self.model
            loss = self.method.loss(self.forward(**tensors).float(), labels)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            self.losses.append(loss.item())
        return time.perf_counter() - started


def compared(name: str, dataset: str, steps: int, turns: int) -> str:
    """A line of the table."""
    method, part = ready(name, dataset)
    tensors, labels = method.batch(part.inputs), torch.from_numpy(part.labels)
    plain, *others = method.model, *(copy.deepcopy(method.network()).train() for _ in range(2))
    for model in others:
        model.load_state_dict(plain.state_dict())
    as_it_is = Trained(method, plain, plain)
    one, other = (Trained(method, model, torch.compile(model)) for model in others)
    first = one.steps(tensors, labels, 1)
    for trained in (as_it_is, other):
        trained.steps(tensors, labels, 1)
    taken = [[trained.steps(tensors, labels, steps) for trained in (as_it_is, one)] for _ in range(turns)]
    other.steps(tensors, labels, steps * turns)
    ratio = statistics.median(plainly / compiled for plainly, compiled in taken)
    apart = np.abs(np.divide(one.losses, as_it_is.losses) - 1).max()
    repeats = "yes" if one.losses == other.losses else "no"
    return f"| {name} | {len(part)} | {first:.0f} | {ratio:.2f} | {apart:.0e} | {repeats} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", nargs="+", default=NAMES)
    parser.add_argument("--dataset", default="iot-sentinel")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    print("| method | batch | first | ratio | apart | repeats |\n|---|---|---|---|---|---|", flush=True)
    for name in options.method:
        print(compared(name, options.dataset, options.steps, options.turns), flush=True)


if __name__ == "__main__":
    main()
