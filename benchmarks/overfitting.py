"""Can every deep and graph method fit what it is trained on, and after how many steps?

    python benchmarks/overfitting.py [--method NAME ...] [--size tiny|own] [--set NAME=VALUE ...]

On 5 x 40 sessions of the demo, without end until 0.95 of the sessions that the method answers are right, or 10,000
steps have passed: what `bench check` asks.  ``tiny`` are the quick settings of a method, ``own``
its defaults; a slow method takes --set.  A Markdown table.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from bench.method import make_parameters
from bench.runs import registry
from bench.training.fitting import MOST, steps_on_demo


def row(name: str, folder: Path, size: str, asked: dict[str, str]) -> str:
    """One method's line."""
    kind = registry.load(name)
    values = {**(kind.tiny if size == "tiny" else {}), **asked}
    started = time.perf_counter()
    steps, accuracy = steps_on_demo(kind, values, folder)
    seconds = time.perf_counter() - started
    settings = ", ".join([size, *(f"{key}={value}" for key, value in asked.items())])
    parts = [settings, make_parameters(kind, values).batch_size, steps]
    return "| " + " | ".join(map(str, [name, *parts, f"{accuracy:.3f}", f"{seconds:.0f}"])) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", nargs="+", help="names; default: every shipped deep and graph method")
    parser.add_argument("--size", choices=("tiny", "own"), default="tiny")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the methods")
    options = parser.parse_args()
    families = {name: registry.describe(name).family for name in sorted(registry.shipped())}
    names = options.method or [name for name, family in families.items() if family in ("deep", "graph")]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; at most {MOST} steps\n")
    print("| method | settings | batch | steps | training accuracy | seconds |\n" + "|---" * 6 + "|")
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            print(row(name, Path(folder), options.size, dict(word.split("=", 1) for word in options.set)), flush=True)


if __name__ == "__main__":
    main()
