"""Table X: milliseconds to classify a batch of 16 sessions, for every deep method, beside the paper's values.

    python benchmarks/inference.py [--dataset demo] [--device cpu] [--method a,b] [--json FILE]

Each method has its original size (default parameters) and the classes of the data set; it is fitted for one epoch on
that one batch, since weights do not change how long an answer takes.  Preprocessing is told apart: `represent` makes
arrays from the captures, `assemble` pictures, graphs and tensors from the arrays; `infer` is the network alone, the
measure of Table X.  Median and quartiles of repeated calls after a warm-up.  The paper names neither its machine nor
its repetitions nor its sessions, so only the order of the methods can be compared: Spearman's rank correlation at the
end.  The cost of FS-Net, GraphDApp, Flow-GNN and FlowPic grows with a session's packets, that of the others does not;
sessions of fewer than --least packets are left out.  FlowPic's first layer works on filled cells alone, which the
paper's surely did not.  ‡ marks a reconstructed method.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from bench import registry
from bench.latency import Latency, latency
from bench.method import Method, Monitor, Part, make_parameters
from bench.prepare import open_dataset
from bench.readers import View
from bench.schema import NO_CLASS, Samples
from bench.store import Store
from bench.training import TorchMethod

#: Table X of the paper, ms
PAPER = {
    "fsnet": 18.67,
    "deeppacket": 21.84,
    "cmtsnn": 28.09,
    "atvitsc": 32.54,
    "graphdapp": 58.49,
    "flowpic": 71.52,
    "flowgnn": 125.36,
    "tscrnn": 297.98,
    "han": 323.25,
}
QUICK = {"epochs": 1, "pretraining_epochs": 1}


def batch_of(store: Store, size: int, least: int) -> tuple[Samples, np.ndarray]:
    """Whole sessions with payload and at least so many packets, drawn at random, and their labels."""
    labels = store.labels(store.default_task)
    packets = np.asarray(store.session("packets"))
    held = (np.asarray(store.session("payload_packets")) > 0) & (packets >= least)
    usable = np.flatnonzero((labels != NO_CLASS) & held)
    session = np.sort(np.random.default_rng(0).choice(usable, size, replace=False))
    return Samples(session, np.zeros(size, np.int64), packets[session].astype(np.int64)), labels[session]


def fitted(kind: type[Method], view: View, labels: np.ndarray, classes: int, device: str) -> Method:
    """The method after one epoch on the batch."""
    known = {field.name for field in dataclasses.fields(kind.Parameters)}
    parameters = make_parameters(kind, {name: value for name, value in QUICK.items() if name in known})
    method = kind(parameters, classes=classes, device=device)
    part = Part(method.represent(view), labels.astype(np.int64))
    return method.fit(part, Part({n: v[:0] for n, v in part.inputs.items()}, part.labels[:0]), Monitor())


def row(name: str, size: int, found: Latency) -> str:
    """One line of the table."""
    cells = [f"{t.median:9.2f} ({t.low:.2f} ... {t.high:.2f})" for t in (found.infer, found.assemble, found.represent)]
    paper = f"{PAPER[name]:8.2f}" if name in PAPER else " " * 8  # before the mark
    name = name + " ‡" * any(line.startswith("reconstructed") for line in registry.describe(name).deviations)
    return f"{name:14} {size:>11,} {paper}  " + "  ".join(f"{cell:32}" for cell in cells) + f"{found.infer.calls:4d}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--method", help="names, by comma; default: all deep methods")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--least", type=int, default=16, help="packets of a session")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0, help="at most for each step of a method")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    store = open_dataset(options.dataset)
    samples, labels = batch_of(store, options.batch, options.least)
    classes = len(store.classes(store.default_task))
    packets = np.median(samples.count)
    print(f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads; batch {options.batch}")
    print(f"{options.dataset}: {classes} classes, {packets:g} packets a session (median)")
    print("milliseconds a batch: median (quartiles)")
    print(f"{'method':14} {'parameters':>11} {'paper':>8}  {'infer':32}  {'assemble':32}  {'represent':32}calls")
    names = options.method.split(",") if options.method else registry.names()
    results = {}
    for name in names:
        if registry.describe(name).family not in ("deep", "graph"):
            continue
        kind = registry.load(name)
        method = fitted(kind, View(store, samples, kind.reads), labels, classes, options.device)
        assert isinstance(method, TorchMethod) and method.model is not None
        found = latency(
            method, lambda kind=kind: View(store, samples, kind.reads), calls=options.calls, seconds=options.seconds
        )
        size = sum(p.numel() for p in method.model.parameters() if p.requires_grad)
        results[name] = {"parameters": size, "paper_ms": PAPER.get(name), **dataclasses.asdict(found)}
        print(row(name, size, found), flush=True)
    both = [name for name in results if name in PAPER]
    if len(both) > 2:
        rho = spearmanr([PAPER[n] for n in both], [results[n]["infer"]["median"] for n in both]).statistic
        print(f"rank correlation with the paper's Table X over {len(both)} methods (Spearman): {rho:.2f}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
