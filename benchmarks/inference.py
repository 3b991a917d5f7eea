"""Table X: milliseconds to classify a batch of 16 sessions, for every deep method, beside the paper's values.

    python benchmarks/inference.py [--dataset demo] [--device cpu] [--method a,b] [--format text] [--against CHECKOUT]

See `bench.analysis.latency`; `bench reproduce table-X` gives the same for the nine methods of the paper.  FlowPic's
first layer works on filled cells alone, which the paper's surely did not.  A quick look: --calls 5 --seconds 1.

With --against the network alone is timed, beside that of another checkout: each code in a process of its own, in turns,
of which the first is not counted.  The median of a turn's calls counts.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from processes import Child, in_turns, ratios, tell, wait_for_a_turn

import bench
from bench.data.prepare import open_dataset
from bench.method import take
from bench.readers import View
from bench.render.table import FORMATS
from bench.runs import registry

ROOT = Path(__file__).resolve().parents[1]
TURNS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--method", help="names, by comma; default: all deep methods")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--least", type=int, default=16, help="packets of a session")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0, help="at most for each step of a method, or for a turn")
    parser.add_argument("--format", choices=FORMATS, default="text", help="not with --against")
    parser.add_argument("--against", type=Path, help="another checkout of this repository")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options)
    families = {name: registry.describe(name).family for name in sorted(registry.shipped())}
    deep = [name for name, family in families.items() if family in ("deep", "graph")]
    names = options.method.split(",") if options.method else deep
    return beside(names, options) if options.against else of_this_code(names, options)


def of_this_code(names: list[str], options: argparse.Namespace) -> None:
    from bench.analysis.latency import TimingOptions, timing_table, timings
    from bench.paper.declaration import find_paper
    from bench.render.table import render

    found = timings(
        names,
        open_dataset(options.dataset),
        TimingOptions(options.batch, options.least, options.calls, options.seconds),
        device=options.device,
        progress=lambda timed: print(f"{timed.name}: {timed.latency.infer.median:.2f} ms", file=sys.stderr),
    )
    paper = {row["id"]: float(row["milliseconds"]) for row in find_paper().rows("table-X")}
    print(render(timing_table(found, paper), options.format))


def beside(names: list[str], options: argparse.Namespace) -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.device}, {options.dataset}\n")
    print("| method | samples | ms | before | before / now (lowest … highest) |\n" + "|---" * 5 + "|")
    for name in names:
        words = ["--method", name, "--dataset", options.dataset, "--device", options.device]
        words += ["--batch", str(options.batch), "--least", str(options.least)]
        words += ["--calls", str(options.calls), "--seconds", str(options.seconds)]
        now, before = (Child(__file__, checkout, *words) for checkout in (ROOT, options.against.resolve()))
        cells = ["failed, see above", "", ""]
        if in_turns([now, before], TURNS):
            times = [f"{statistics.median(one.values):.2f}" for one in (now, before)]
            cells = [*times, ratios(before, now)]
        print("| " + " | ".join([name, str(options.batch), *cells]) + " |", flush=True)


def child(options: argparse.Namespace) -> None:
    """Train for one pass, then time the same batch once for each line on standard input."""
    from bench.analysis.latency import batch_of, fitted

    assert Path(bench.__file__).resolve().is_relative_to(options.child), f"{bench.__file__}: not of {options.child}"
    wait_for_a_turn()
    store, kind = open_dataset(options.dataset), registry.load(options.method)
    samples, labels = batch_of(store, options.batch, options.least)
    view = View(store, samples, kind.reads)
    method: Any = fitted(kind, view, labels, len(store.classes(store.default_task)), options.device)
    model, inputs = method.model.eval(), method.represent(view)
    with torch.inference_mode():
        tensors = method.batch(take(inputs, np.flatnonzero(method.can_classify(inputs))))
        while True:
            taken, began = list[float](), time.perf_counter()
            while len(taken) < 3 or (len(taken) < options.calls and time.perf_counter() - began < options.seconds):
                start = time.perf_counter()
                model(**tensors)
                taken.append((time.perf_counter() - start) * 1e3)
            tell(statistics.median(taken))


if __name__ == "__main__":
    main()
