"""Table X: milliseconds to classify a batch of 16 sessions, for every deep method, beside the paper's values.

    python benchmarks/inference.py [--dataset demo] [--device cpu] [--method a,b] [--format text]

See `bench.analysis.latency`; `bench reproduce table-X` gives the same for the nine methods of the paper.  FlowPic's
first layer works on filled cells alone, which the paper's surely did not.  A quick look: --calls 5 --seconds 1.
"""

import argparse
import sys

from bench.analysis.latency import Timed, TimingOptions, timing_table, timings
from bench.data.prepare import open_dataset
from bench.paper.declaration import find_paper
from bench.render.table import FORMATS, render
from bench.runs import registry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--method", help="names, by comma; default: all deep methods")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--least", type=int, default=16, help="packets of a session")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0, help="at most for each step of a method")
    parser.add_argument("--format", choices=FORMATS, default="text")
    options = parser.parse_args()
    deep = [name for name in registry.names() if registry.describe(name).family in ("deep", "graph")]
    found = timings(
        options.method.split(",") if options.method else deep,
        open_dataset(options.dataset),
        TimingOptions(options.batch, options.least, options.calls, options.seconds),
        device=options.device,
        progress=tell,
    )
    paper = {row["id"]: float(row["milliseconds"]) for row in find_paper().rows("table-X")}
    print(render(timing_table(found, paper), options.format))


def tell(timed: Timed) -> None:
    print(f"{timed.name}: {timed.latency.infer.median:.2f} ms", file=sys.stderr)


if __name__ == "__main__":
    main()
