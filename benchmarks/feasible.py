"""What two slow cores can do of the paper's experiment: hours of a run, and what fits into a night.

    python benchmarks/feasible.py [--samples 96000] [--hours 8]

A run trains on --samples windows of 16 packets, which the paper's 10,000 of each of twelve classes leave for training,
at the method's own budget, as `results/rates.csv` has its rate on one core.  "runs": how many two cores end in --hours.
Where one run takes longer, "samples" is how many it may train on to end in time; a budget of steps does not change
with them.
"""

import argparse

from bench.files import shipped_folder
from bench.runs import registry
from bench.runs.plan import rates_of, samples_seen

CORES = 2


def line(name: str, rate: float, samples: int, hours: float) -> str:
    """A line of the table."""
    seen = samples_seen(name, {}, samples)
    of_none = samples_seen(name, {}, 0)  # whatever the samples
    taken = seen / rate / 3600
    runs = int(hours / taken) * CORES
    left = (hours * 3600 * rate - of_none) / ((seen - of_none) / samples) if seen > of_none else 0
    fits = "all" if runs else f"{left:,.0f}" if left > 0 else "none: its steps are fixed"
    return f"| {name} | {taken:,.2f} | {runs or '–'} | {fits} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=96_000)
    parser.add_argument("--hours", type=float, default=8.0)
    options = parser.parse_args()
    rates = rates_of(shipped_folder("results") / "rates.csv")
    print(f"| method | hours a run | runs in {options.hours:g} h on two cores | training samples that fit |")
    print("|---|---|---|---|")
    for name in registry.names():
        if registry.describe(name).family in ("deep", "graph") and name in rates:
            print(line(name, rates[name], options.samples, options.hours))


if __name__ == "__main__":
    main()
