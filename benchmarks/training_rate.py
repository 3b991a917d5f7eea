"""How fast methods train, beside another checkout's code and beside their matrix products alone.

    python benchmarks/training_rate.py [--method NAME ...] [--against CHECKOUT] [--dataset demo] [--set NAME=VALUE ...]

Real samples of the data set's default task, repeated to whole batches, go through the method's own `fit`; an epoch of a
few steps is a turn.  Each code trains in a process of its own, which imports that checkout's packages and waits for its
turn, so that other load on the machine hits all alike; the first turn is not counted.  The bound: the products (matrix,
convolution, recurrent and attention kernels) of one training step of this code, forward and backward, are recorded from
a real step and replayed alone in a third process.  Of some methods a sample is a packet.  Memory is the process's
peak from training on, with the packages that it has loaded.  A slow method takes --batch, --set or --steps 1.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from processes import Child, in_turns, ratios, tell, wait_for_a_turn
from torch.utils._python_dispatch import TorchDispatchMode

import bench
from bench.data.prepare import open_dataset
from bench.environment import reset_peak_memory
from bench.method import Method, Monitor, Part, make_parameters, take
from bench.runs import registry
from bench.runs.attempt import represent_parts, scored_classes
from bench.spec import SplitSpec
from bench.splits.split import make_split

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "linear_pointwise", "rnn_layer", "lstm", "gru", "attention")
ROOT = Path(__file__).resolve().parents[1]
A_CLASS = 32  # samples of a class at most: batches are repeated anyway
HEAD = "| method | batch | samples/s | before | ratio (lowest … highest) | products alone | share | MiB | before |"


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
            # a product into given memory is replayed into memory of its own
            kept = {key: value for key, value in kwargs.items() if key != "out"}
            copies = [_copied(value) for value in args]
            replayed = getattr(function.overloadpacket, "default", function) if "out" in kwargs else function
            self.calls.append(lambda: replayed(*copies, **kept))
        return function(*args, **kwargs)


def _copied(value: Any) -> Any:
    """A tensor's copy in the same layout, of lists too; anything else as it is."""
    if isinstance(value, list | tuple):
        return [_copied(one) for one in value]
    return value.detach().clone(memory_format=torch.preserve_format) if torch.is_tensor(value) else value


class Turns(Monitor):
    """After each epoch, says how fast it was and waits for the next turn; without one the process ends."""

    def epoch(self, epoch: int, epochs: int, **values: float) -> None:
        """Samples a second and the peak memory so far."""
        tell(values["samples_a_second"])


def method_and_part(options: argparse.Namespace) -> tuple[Method, Part]:
    """The method, and real samples for one epoch: the steps of a turn, or the one that is recorded."""
    steps, epochs = (1, 1) if options.products else (options.steps, 10**6)
    kind = registry.load(options.method[0])
    store = open_dataset(options.dataset)
    split = make_split(store, store.default_task, SplitSpec(max_per_class=A_CLASS))
    method = kind(
        make_parameters(kind, settings(options) | {"epochs": epochs}),
        classes=len(scored_classes(split, store)),
        device=options.device,
    )
    train = represent_parts(method, store, split, ["train"])["train"]
    usable = np.flatnonzero(cast(Any, method).can_classify(train.inputs))
    each = method.parameters.packets if kind.unit == "packet" else 1
    rows = np.resize(usable, max(2, method.parameters.batch_size * steps // each))
    return method, Part(take(train.inputs, rows), train.labels[rows])


def learn(method: Method, train: Part, validation: Part, monitor: Monitor) -> None:
    """`bench.method.learn`, which an older checkout lacks, as its methods lack ``pretrain``."""
    if pretrain := getattr(method, "pretrain", None):
        pretrain(train.inputs, Monitor())
    method.fit(train, validation, monitor)


def child(options: argparse.Namespace) -> None:
    """Train, or replay products, a turn for each line on standard input."""
    assert Path(bench.__file__).resolve().is_relative_to(options.child), f"{bench.__file__}: not of {options.child}"
    wait_for_a_turn()
    method, part = method_and_part(options)
    nothing = Part(take(part.inputs, np.arange(0)), part.labels[:0])
    reset_peak_memory()
    if not options.products:
        learn(method, part, nothing, Turns())
    recorder, monitor, before = Recorder(), Monitor(), cast(Any, method).before_training

    def before_training(*given: Any) -> None:
        before(*given)
        recorder.calls.clear()  # pre-training is no step

    cast(Any, method).before_training = before_training
    with recorder:
        learn(method, part, nothing, monitor)
    while True:
        start = time.perf_counter()
        with torch.no_grad():
            for _ in range(options.steps):
                for call in recorder.calls:
                    call()
        tell(options.steps * monitor.facts["training_samples"] / (time.perf_counter() - start))


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """The parameters that were asked for; pre-training is no part of the measure and is made short."""
    known = registry.describe(options.method[0]).defaults  # in an older checkout, too: not by `one_pass`
    short = {
        name: value
        for name, value in {"pretraining_epochs": 1, "pretraining_steps": 1, "steps": None}.items()
        if name in known
    }
    batch = {"batch_size": options.batch} if options.batch else {}
    return {"batch_size": known["batch_size"]} | short | batch | dict(word.split("=", 1) for word in options.set)


def started(name: str, checkout: Path, options: argparse.Namespace, *more: str) -> Child:
    """A process that trains one method with one checkout's code, or replays its products."""
    kept = ["--dataset", options.dataset, "--device", options.device, "--steps", str(options.steps)]
    kept += ["--batch", str(options.batch), *(f"--set={word}" for word in options.set)]
    return Child(__file__, checkout, "--method", name, *kept, *more)


def row(name: str, options: argparse.Namespace) -> str:
    """Measure one method; a row of the table."""
    ours = started(name, ROOT, options)
    others = [started(name, options.against.resolve(), options)] if options.against else []
    alone = started(name, ROOT, options, "--products")
    if not in_turns([ours, *others, alone], options.turns):
        return f"| {name} | failed, see above |" + " |" * 7
    rate, bound = (statistics.median(one.values) for one in (ours, alone))
    before, ratio, memory = "–", "–", "–"
    for other in others:
        before, memory = f"{statistics.median(other.values):.1f}", f"{other.mebibytes:.0f}"
        ratio = ratios(ours, other)
    batch = settings(argparse.Namespace(**vars(options) | {"method": [name]}))["batch_size"]
    cells = [name, batch, f"{rate:.1f}", before, ratio, f"{bound:.1f}", f"{rate / bound:.0%}"]
    return "| " + " | ".join(map(str, [*cells, f"{ours.mebibytes:.0f}", memory])) + " |"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", nargs="+", help="names; default: every shipped deep and graph method")
    parser.add_argument("--against", type=Path, help="another checkout of this repository")
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=0, help="samples a step; default: the method's own")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the methods")
    parser.add_argument("--steps", type=int, default=5, help="steps a turn")
    parser.add_argument("--turns", type=int, default=9, help="turns, beside a first one that is not counted")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--products", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.child:
        return child(options)
    families = {name: registry.describe(name).family for name in sorted(registry.shipped())}
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.device}, {options.dataset}\n")
    print(HEAD + "\n" + "|---" * 9 + "|")
    for name in options.method or [name for name, family in families.items() if family in ("deep", "graph")]:
        print(row(name, options), flush=True)


if __name__ == "__main__":
    main()
