"""A network's four folds by `--jobs 2`, a thread each, and by `--jobs 1` with all threads, in turns, on two cores.

    python benchmarks/jobs.py [--dataset demo] [--method a,b] [--steps 60] [--turns 3]

Whole commands, from the start of Python on: the seconds that a user waits, less those of a command with one step.
Each has a results folder of its own, and no arrays are kept.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.runs import registry

ROOT = Path(__file__).resolve().parents[1]


def seconds(jobs: int, method: str, dataset: str, steps: int) -> float:
    """Of one command."""
    fitted = ["--set", f"steps={steps}", "--set", "epochs=1"]
    if (packets := registry.describe(method).presets.get("shared", {}).get("packets")) is not None:
        fitted += ["--set", f"packets={packets}"]
    words = ["run", "--method", method, "--dataset", dataset, "--split", "session", "--folds", "4", *fitted]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "BENCH_KEPT_ARRAYS": "0"}
    environment.pop("OMP_NUM_THREADS", None)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = [sys.executable, "-m", "bench", *words, "--jobs", str(jobs), "--keep-models", "none"]
        subprocess.run([*command, "--results", folder, "--quiet"], env=environment, check=True, stdout=subprocess.PIPE)
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--method", default="atvitsc,fsnet,cmtsnn,flowgnn,deeppacket-sae,mini-flowpic")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    print("| method | steps | `--jobs 2`, s | `--jobs 1`, s | ratio (lowest … highest) |\n" + "|---" * 5 + "|")
    for method in options.method.split(","):
        both = [
            [seconds(jobs, method, options.dataset, options.steps) - seconds(jobs, method, options.dataset, 1)
             for jobs in ((2, 1), (1, 2))[turn % 2]][:: -1 if turn % 2 else 1]
            for turn in range(options.turns)
        ]  # fmt: skip
        ratios = [alone / side for side, alone in both]
        medians = [f"{statistics.median(one):.1f}" for one in zip(*both, strict=True)]
        ends = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})"
        print(f"| {method} | {options.steps} | {' | '.join(medians)} | {ends} |", flush=True)


if __name__ == "__main__":
    main()
