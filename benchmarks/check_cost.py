"""What the questions that every run asks its method cost, beside the run.

    python benchmarks/check_cost.py [--dataset demo] [--method forest appscanner ...] [--epochs 30]

Prints, for each method, seconds of its own work (represent, fit, predict) and of the check (`bench.runs.guards`), and
the share.  Nothing is kept.  On a quiet machine, please.
"""

import argparse

from bench.data.prepare import open_dataset
from bench.runs import registry
from bench.runs.attempt import AttemptMonitor, attempt
from bench.runs.plan import expand
from bench.spec import Settings, SplitSpec

METHODS = ("forest", "knn", "appscanner", "bind", "mini-flowpic", "graphdapp", "fsnet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--method", nargs="+", default=METHODS)
    parser.add_argument("--epochs", type=int)
    options = parser.parse_args()
    store = open_dataset(options.dataset)
    print(f"{'method':16} {'work s':>8} {'check s':>8} {'share':>7}")
    for spec in expand(options.method, [store], SplitSpec(), settings=Settings(epochs=options.epochs)):
        metrics = attempt(spec, store, registry.load(spec.method), AttemptMonitor()).metrics
        work, check = metrics["seconds"], metrics["seconds_check"]
        print(f"{spec.method:16} {work:8.2f} {check:8.3f} {100 * check / (work + check):6.2f} %", flush=True)


if __name__ == "__main__":
    main()
