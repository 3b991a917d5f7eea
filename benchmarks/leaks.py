"""What the paper's order of operations is worth: macro-F1 under `paper` less that under clean splits, in points.

    python benchmarks/leaks.py [--results results ...] [--metric macro_f1]

Reads finished runs on windows (`bench run --sampling window=…` under --split paper, session, capture; results/README.md
has the commands) and sets each method's runs under `paper` against those under every clean split, at the same number
of samples a class where there are such, else without a limit.  The test parts differ, so the interval is Welch's over
seeds.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.stats import ttest_ind

from bench.sheets import Sheet, render
from bench.tracking import Record, Tracker
from bench.words import settings


def scores_of(records: list[Record], metric: str) -> dict[tuple[str, ...], list[float]]:
    """Scores by data set, method, split and samples a class, over seeds."""
    found: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for record in records:
        spec = record.spec
        if (
            record.status != "done"
            or not spec.get("sampling", "session").startswith("window")
            or spec["fold"] is not None
        ):
            continue
        words = [w for w in settings(spec) if not w.startswith("max_per_class")]
        name = spec["method"] + (f" ({', '.join(words)})" if words else "")
        found[spec["dataset"], name, spec["split"], str(spec["max_per_class"] or "all")].append(record.metrics[metric])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, nargs="+", default=[Path("results")])
    parser.add_argument("--metric", default="macro_f1")
    parser.add_argument("--format", default="md")
    options = parser.parse_args()
    found = scores_of([record for place in options.results for record in Tracker(place).search()], options.metric)
    rows = []
    for (dataset, method, split, most), leaky in sorted(found.items()):
        if split != "paper" or method == "majority":
            continue
        for clean in ("session", "capture"):
            others = found.get((dataset, method, clean, most)) or found.get((dataset, method, clean, "all"))
            if not others or min(len(leaky), len(others)) < 2:
                continue
            apart = 100 * (np.mean(leaky) - np.mean(others))
            low, high = (100 * end for end in ttest_ind(leaky, others, equal_var=False).confidence_interval(0.95))
            rows.append([dataset, method, most, f"{len(leaky)}, {len(others)}", f"{100 * np.mean(leaky):.1f}", clean,
                         f"{100 * np.mean(others):.1f}", f"{apart:+.1f} [{low:+.1f}, {high:+.1f}]"])  # fmt: skip
    head = ["data set", "method", "N", "runs", "paper *", "clean split", "clean", "leak in points [95 %]"]
    print(
        render(
            Sheet(f"{options.metric}, percent", head, rows, ["* leaky on purpose; † reduced scale: all rows"]),
            options.format,
        )
    )


if __name__ == "__main__":
    main()
