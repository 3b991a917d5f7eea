"""How many samples a second each method trains on, at its default size: what `bench reproduce --list` reckons with.

    python benchmarks/rates.py [--dataset demo] [--seconds 5] [--method a,b] [--output results/rates.csv]

Windows of 16 packets with payload, as the paper samples them.  One epoch over twice as many samples each time, until
it takes --seconds; the last epoch counts, without its validation.  Methods without epochs: their whole fit.  A first
epoch, in which packages are imported and kernels are compiled, does not count.
"""

import argparse
import csv
import dataclasses
import time
from pathlib import Path

from bench.data.prepare import open_dataset
from bench.data.store import Store
from bench.method import Monitor, learn, make_parameters, one_pass
from bench.runs import registry
from bench.runs.attempt import represent_parts
from bench.spec import SplitSpec
from bench.splits.split import make_split


def rate(name: str, store: Store, seconds: float) -> tuple[int, float]:
    """Samples of the last epoch, and samples a second."""
    kind = registry.load(name)
    parameters = make_parameters(kind, one_pass(kind))
    classes, warm = len(store.classes(store.default_task)), False
    for per_class in (10, *(10 * 2**doubling for doubling in range(9))):
        spec = SplitSpec("paper", max_per_class=per_class, sampling="window=16")
        split = make_split(store, store.default_task, spec)
        method = kind(parameters, classes=classes)
        train = represent_parts(method, store, split, ("train", "validation"))
        nothing = dataclasses.replace(train["validation"], labels=train["validation"].labels[:0],
                                      inputs={k: v[:0] for k, v in train["validation"].inputs.items()})  # fmt: skip
        started = time.perf_counter()
        learn(method, train["train"], nothing, Monitor())
        taken = time.perf_counter() - started
        if warm and taken >= seconds:
            break
        warm = True
    return len(train["train"]), len(train["train"]) / taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--method", help="names, by comma; default: all")
    parser.add_argument("--output", type=Path, default=Path("results/rates.csv"))
    options = parser.parse_args()
    store = open_dataset(options.dataset)
    lines = []
    for name in options.method.split(",") if options.method else registry.names():
        samples, speed = rate(name, store, options.seconds)
        lines.append({"method": name, "samples_a_second": f"{speed:.3g}", "samples": samples})
        print(f"{name:16} {speed:10.3g} samples/s over {samples}", flush=True)
    with options.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["method", "samples_a_second", "samples"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    main()
