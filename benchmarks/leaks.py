"""What the paper's order of operations is worth: macro-F1 under `paper`, `session` and `capture`, in points.

    python benchmarks/leaks.py [--results results ...] [--metric macro_f1]

Reads finished runs on windows (`bench run --sampling window=…` under --split paper, session, capture; results/README.md
has the commands) and sets each method's runs against each other at the same number N of samples a class on both sides:

- *leak*: `paper` less `session`, what it is worth that training has seen test windows, parts of them, or others of
  their sessions (their shares stand beside);
- *other captures*: `session` less `capture`, a shift of the domain and no leak of windows.

The test parts differ, so the interval is Welch's over seeds, with each variance enlarged as in the corrected resampled
t-test, since runs share training data (docs/statistics.md).
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from bench.render.table import Table, render
from bench.runs.run_labels import settings_of
from bench.scores.significance import welch
from bench.tracking.record import Record
from bench.tracking.tracker import Tracker

RATIO = 0.2 / 0.7  # test over training samples, of all these splits


SEEN = ("test_identical_windows", "test_overlapping_windows", "test_other_windows_of_training_sessions")
STEPS = (("leak", "paper", "session"), ("other captures", "session", "capture"))

Key = tuple[str, str, int, str]  # data set, method, samples a class, split


def runs_of(records: list[Record]) -> dict[Key, list[Record]]:
    """Finished runs on windows with so many samples a class, over seeds."""
    found: dict[Key, list[Record]] = defaultdict(list)
    for record in records:
        spec = record.spec
        split = spec.split
        whole = split.windows.window is None or split.fold is not None or not split.max_per_class
        if record.status != "done" or whole or spec.method == "majority":
            continue
        words = [w for w in settings_of(spec) if not w.startswith("max_per_class")]
        name = spec.method + (f" ({', '.join(words)})" if words else "")
        found[spec.dataset, name, split.max_per_class or 0, split.scheme].append(record)
    return found


def step(runs: dict[str, list[Record]], metric: str, one: str, other: str) -> dict[str, float]:
    """Points between two splits, with its interval; empty where one has fewer than two runs."""
    scores = [100 * np.array([r.metrics[metric] for r in runs.get(split, [])]) for split in (one, other)]
    if min(map(len, scores)) < 2:
        return {}
    low, high = welch(scores[0], scores[1], (RATIO, RATIO))
    return {"points": float(scores[0].mean() - scores[1].mean()), "low": low, "high": high}


def row_of(
    key: tuple[str, str, int], runs: dict[str, list[Record]], metric: str
) -> tuple[list[str], dict[str, object]]:
    """Cells and record of one data set, method and N."""
    means = {split: 100 * float(np.mean([r.metrics[metric] for r in some])) for split, some in runs.items()}
    seen = [100 * float(np.mean([r.metrics.get(name, np.nan) for r in runs["paper"]])) for name in SEEN]
    steps = {name: step(runs, metric, one, other) for name, one, other in STEPS}
    cells = [
        *key[:2],
        str(key[2]),
        *(f"{means[s]:.1f}" if s in means else "–" for s in ("paper", "session", "capture")),
    ]
    cells += [" / ".join(f"{share:.0f}" for share in seen)]
    cells += ["{points:+.1f} [{low:+.1f}, {high:+.1f}]".format(**one) if one else "–" for one in steps.values()]
    record = {"dataset": key[0], "method": key[1], "per_class": key[2], **means, **dict(zip(SEEN, seen, strict=True))}
    record |= {f"{name}_{end}": value for name, one in steps.items() for end, value in one.items()}
    return cells, record | {"seeds": {split: len(some) for split, some in runs.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, nargs="+", default=[Path("results")])
    parser.add_argument("--metric", default="macro_f1")
    parser.add_argument("--format", default="md")
    options = parser.parse_args()
    found = runs_of([record for place in options.results for record in Tracker(place).search()])
    rows, records = [], []
    for key in sorted({key[:3] for key in found}):
        runs = {split: found[*key, split] for split in ("paper", "session", "capture") if (*key, split) in found}
        if {"paper", "session"} <= runs.keys():
            cells, record = row_of(key, runs, options.metric)
            rows.append(cells)
            records.append(record)
    head = ["data set", "method", "N", "paper *", "session", "capture", "same / overlapping / other, %"]
    head += ["leak [95 %]", "other captures [95 %]"]
    notes = [
        "* leaky on purpose; every row is at a reduced scale: N samples a class, under every split, and few epochs",
        "same / overlapping / other: test windows under paper that training has, that overlap one of training, and "
        "that are others of a training session",
        "leak: paper less session; other captures: session less capture, a shift of the domain; in points",
        "interval: Welch's over seeds, variances enlarged by test/train = 0.29 as in the corrected resampled t-test",
    ]
    print(render(Table(f"{options.metric}, percent", head, rows, notes, records), options.format))


if __name__ == "__main__":
    main()
