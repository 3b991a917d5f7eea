"""Five folds of a method with kept arrays and without, in turns: seconds of representing, fold by fold.

    python benchmarks/represent_once.py [--dataset demo] [--method a,b] [--rounds 3]
    python benchmarks/represent_once.py --method benchmarks/represent_once.py:BytePairs

Each round begins without arrays: the first fold makes and writes them, the others read them.  Nothing is learned and
every answer is the same, for only representing is timed (`seconds_represent`).  The store is in the page cache and
everything is compiled, for a fold that is not timed goes before.  Medians of rounds; of a fold, of rounds and folds.
"""

import argparse
import statistics
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from bench.data.prepare import open_dataset
from bench.data.store import Store
from bench.method import Inputs, Method, count
from bench.readers import View
from bench.runs import kept_arrays, registry
from bench.runs.attempt import AttemptMonitor, attempt
from bench.runs.plan import expand
from bench.spec import RunSpec, SplitSpec

FOLDS = 5
PACKETS, BYTES, BINS = 8, 128, 1024  # of `BytePairs`
COLUMNS = ("method", "sessions", "MiB", "a fold", "first fold, kept", "later fold, kept", "five folds", "kept", "ratio")


class BytePairs(Method):
    """A representation in plain Python, as a first draft often is: what kept arrays are for."""

    name: ClassVar[str] = "byte-pairs"
    reads: ClassVar[frozenset[str]] = frozenset({"payload"})

    def represent(self, view: View) -> Inputs:
        """``pairs`` float32 ``[samples, BINS]``: how often two bytes are neighbours, modulo the bins."""
        rows = np.zeros((len(view), BINS), np.float32)
        for row, packets in zip(rows, view.payload(PACKETS, BYTES).tolist(), strict=True):
            for place, number in Counter((256 * a + b) % BINS for one in packets for a, b in pairwise(one)).items():
                row[place] = number
        return {"pairs": rows}


def representing_alone(kind: type[Method]) -> type[Method]:
    """The method, which learns nothing."""

    def fit(self: Method, *_: Any) -> Method:
        return self

    def predict_proba(self: Method, inputs: Inputs) -> NDArray[np.float32]:
        return np.full((count(inputs), self.classes), 1 / self.classes, np.float32)

    return type(kind.__name__, (kind,), {"pretrain": Method.pretrain, "fit": fit, "predict_proba": predict_proba})


def five_folds(specs: list[RunSpec], store: Store, kind: type[Method], code: str) -> tuple[list[float], int]:
    """Seconds of representing by fold, and samples whose arrays were kept."""
    metrics = [attempt(spec, store, kind, AttemptMonitor(), code=code).metrics for spec in specs]
    return [one["seconds_represent"] for one in metrics], sum(int(one.get("samples_kept", 0)) for one in metrics)


def measured(method: str, dataset: str, rounds: int) -> list[str]:
    """Cells of a row."""
    store, kind = open_dataset(dataset), representing_alone(registry.load(method))
    specs = expand([method], [store], SplitSpec("session", folds=FOLDS))
    five_folds(specs[:1], store, kind, "")
    without, kept, found, size = [], [], 0, 0
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            with patch.object(kept_arrays, "kept_path", lambda place=place: place):
                without.append(five_folds(specs, store, kind, "")[0])
                seconds, found = five_folds(specs, store, kind, "benchmark")
            kept.append(seconds)
            size = sum(file.stat().st_size for file in place.rglob("*.npy"))
    whole, whole_kept = (statistics.median(map(sum, told)) for told in (without, kept))
    numbers = [
        statistics.median(fold for folds in without for fold in folds),
        statistics.median(folds[0] for folds in kept),
        statistics.median(fold for folds in kept for fold in folds[1:]),
        *(whole, whole_kept),
    ]
    head = [method, f"{found // (FOLDS - 1):,}", f"{size / 2**20:.1f}"]
    return [*head, *(f"{one:.2f}" for one in numbers), f"{whole / whole_kept:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--method", default="et-bert,yatc")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for method in options.method.split(","):
        print(f"| {' | '.join(measured(method, options.dataset, options.rounds))} |", flush=True)


if __name__ == "__main__":
    main()
