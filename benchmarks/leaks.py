"""What the paper's order of operations is worth: macro-F1 under `paper` less that under clean splits, in points.

    python benchmarks/leaks.py [--results results ...] [--metric macro_f1]

Reads finished runs on windows (`bench run --sampling window=…` under --split paper, session, capture; results/README.md
has the commands) and sets each method's runs under `paper` against those under every clean split, at the same number
of samples a class where there are such, else without a limit.  The test parts differ, so the interval is Welch's over
seeds, with each variance enlarged as in the corrected resampled t-test, since runs share training data
(docs/statistics.md).
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from bench.render.table import Table, render
from bench.runs.run_labels import settings_of
from bench.runs.tracking import Record, Tracker
from bench.scores.significance import welch

RATIO = 0.2 / 0.7  # test over training samples, of all these splits


def scores_of(records: list[Record], metric: str) -> dict[tuple[str, ...], list[float]]:
    """Scores by data set, method, split and samples a class, over seeds."""
    found: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for record in records:
        spec = record.spec
        split = spec.split
        if record.status != "done" or split.windows is None or split.fold is not None:
            continue
        words = [w for w in settings_of(spec) if not w.startswith("max_per_class")]
        name = spec.method + (f" ({', '.join(words)})" if words else "")
        found[spec.dataset, name, split.scheme, str(split.max_per_class or "all")].append(record.metrics[metric])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, nargs="+", default=[Path("results")])
    parser.add_argument("--metric", default="macro_f1")
    parser.add_argument("--format", default="md")
    options = parser.parse_args()
    found = scores_of([record for place in options.results for record in Tracker(place).search()], options.metric)
    rows, records = [], []
    for (dataset, method, split, most), leaky in sorted(found.items()):
        for clean in ("session", "capture"):
            kept = most if (dataset, method, clean, most) in found else "all"
            others = found.get((dataset, method, clean, kept), [])
            if split != "paper" or method == "majority" or min(len(leaky), len(others)) < 2:
                continue
            low, high = (100 * end for end in welch(np.array(leaky), np.array(others), (RATIO, RATIO)))
            means = 100 * np.mean(leaky), 100 * np.mean(others)
            middle = means[0] - means[1]
            rows.append([dataset, method, most, f"{means[0]:.1f} ({len(leaky)})", clean, kept,
                         f"{means[1]:.1f} ({len(others)})", f"{middle:+.1f} [{low:+.1f}, {high:+.1f}]"])  # fmt: skip
            records.append({"dataset": dataset, "method": method, "paper_per_class": most, "paper": means[0],
                            "split": clean, "clean_per_class": kept, "clean": means[1], "difference": middle,
                            "low": low, "high": high})  # fmt: skip
    head = ["data set", "method", "N", "paper * (runs)", "clean split", "N", "clean (runs)", "leak in points [95 %]"]
    notes = [
        "* leaky on purpose; every row is at a reduced scale: N samples a class instead of 10,000, and few epochs",
        "interval: Welch's over seeds, variances enlarged by test/train = 0.29 as in the corrected resampled t-test",
    ]
    print(render(Table(f"{options.metric}, percent", head, rows, notes, records), options.format))


if __name__ == "__main__":
    main()
