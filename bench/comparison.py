"""What can be set against what: runs of the same test sessions, two of them or all methods of a data set.

Two are compared here; many are ranked by `bench.ranking`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.errors import InputError
from bench.metrics import decide, difference, macro_f1, mcnemar
from bench.splits import LEAKY
from bench.statistics import FEWEST
from bench.tables import Row, group, numbered
from bench.tracking import Predictions, Record
from bench.words import signs

Block = tuple[int, int, int | None]  # number of the data set, seed, fold


@dataclass(frozen=True)
class Entry:
    """A method with its finished runs."""

    rows: Sequence[Row]  # one a data set
    runs: Mapping[Block, Record]

    @property
    def label(self) -> str:
        """The method and its settings."""
        return self.rows[0].method

    @property
    def signs(self) -> str:
        """Signs of `bench.words.MARKS` that hold for any of its rows."""
        return signs(mark for row in self.rows for mark in row.marks)


def compare(a: Sequence[Record], b: Sequence[Record], *, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Two runs, or two sets of runs over the same seeds and folds, on the same test sessions.

    Differences are a - b, on the pooled sessions, with paired 95 % bootstrap intervals over groups.  ``mcnemar`` is
    None where a session was tested more than once (several seeds): its sessions would not be independent.
    Records come from ``Tracker.load``.  Raises :class:`InputError` where the test sessions differ.
    """
    pairs = _pairs(a, b)
    first, second = (pooled_parts([pair[i] for pair in pairs]) for i in (0, 1))
    truth, groups, classes = first.truth, first.groups, len(first.classes)
    answers = decide(first.probabilities), decide(second.probabilities)
    result: dict[str, Any] = {
        "a": _who(a),
        "b": _who(b),
        "sessions": len(truth),
        "groups": len(np.unique(groups)),
    }
    for metric in ("accuracy", "macro_f1"):
        apart, low, high = difference(truth, answers, groups, classes=classes, metric=metric, draws=draws, seed=seed)
        values = [_score(metric, truth, answer, classes) for answer in answers]
        result[metric] = {"a": values[0], "b": values[1], "difference": apart, "low": low, "high": high}
    windows = np.unique(np.stack((first.session, first.first)), axis=1).shape[1]
    once = windows == len(truth)
    result["mcnemar"] = mcnemar(answers[0] == truth, answers[1] == truth) if once else None
    return result


def compare_text(result: dict[str, Any]) -> str:
    """What `compare` found, for people."""
    lines = [
        f"{side}: {result[side]['method']}  ({', '.join(run[:8] for run in result[side]['runs'])})" for side in "ab"
    ]
    lines.append(f"{result['sessions']} test sessions in {result['groups']} groups")
    for metric in ("accuracy", "macro_f1"):
        value = result[metric]
        lines.append(
            f"{metric:9} a {value['a']:.3f}  b {value['b']:.3f}  a - b {value['difference']:+.3f} "
            f"[{value['low']:+.3f}, {value['high']:+.3f}]  (95 %, resampling groups)"
        )
    test = result["mcnemar"]
    if test is None:
        lines.append("McNemar: not for sessions that were tested more than once")
    else:
        counts = f"only a right {test['only_a']}, only b right {test['only_b']}"
        lines.append(f"McNemar: {counts}, p = {test['p']:.3g}  (takes sessions as independent)")
    return "\n".join(lines)


def _who(records: Sequence[Record]) -> dict[str, Any]:
    row = Row(list(records), [])
    names = ("dataset", "task", "split", "folds", "parameters")
    return {"method": row.method, **{n: row.head.spec[n] for n in names}, "runs": [r.run_id for r in records]}


def _pairs(a: Sequence[Record], b: Sequence[Record]) -> list[tuple[Predictions, Predictions]]:
    """Predictions of both for each seed and fold, proved to be of the same test sessions."""
    by_number = numbered(a), numbered(b)
    if len(a) == len(b) == 1:
        pairs = [(a[0], b[0])]
    elif by_number[0].keys() != by_number[1].keys() or not a:
        odd = sorted(by_number[0].keys() ^ by_number[1].keys(), key=str)
        shown = ", ".join(f"seed {seed}" + ("" if fold is None else f" fold {fold}") for seed, fold in odd)
        raise InputError(f"compare: only one side has {shown or 'runs'}; run both with the same --seeds and --folds")
    else:
        pairs = [(by_number[0][number], by_number[1][number]) for number in sorted(by_number[0], key=str)]
    loaded = []
    for one, other in pairs:
        first, second = one.predictions(), other.predictions()
        same_tests((one, first), (other, second))
        loaded.append((first, second))
    return loaded


def same_tests(one: tuple[Record, Predictions], other: tuple[Record, Predictions]) -> None:
    """Raise :class:`InputError` where two runs were tested on different samples."""
    (a, first), (b, second) = one, other
    same = a.spec["store"] == b.spec["store"] and first.classes == second.classes
    arrays = ("session", "first", "truth")
    if not (same and all(np.array_equal(getattr(first, name), getattr(second, name)) for name in arrays)):
        raise InputError(
            f"compare: {a.run_id[:8]} and {b.run_id[:8]} were tested on different sessions; run both with "
            "the same --dataset, --task, --split, --seed, --folds and --max-per-class"
        )


def pooled_parts(parts: Sequence[Predictions]) -> Predictions:
    """Test parts one after the other; group numbers mean the same in all, they are of the store."""
    arrays = ("session", "first", "truth", "groups", "probabilities")
    return Predictions(parts[0].classes, *(np.concatenate([getattr(part, name) for part in parts]) for name in arrays))


def _score(metric: str, truth: Any, answers: Any, classes: int) -> float:
    """Accuracy or macro-F1 of decided answers."""
    return float((truth == answers).mean()) if metric == "accuracy" else macro_f1(truth, answers, classes)


def contestants(
    records: Sequence[Record], datasets: Sequence[str], *, split: str | None = None, methods: Sequence[str] = ()
) -> tuple[list[Entry], list[str]]:
    """The methods that can be ranked against each other on all ``datasets``, and notes on what is left out.

    ``split`` is a scheme, or a split's whole text as the refusal lists it; no ``methods`` are all.  Raises
    :class:`InputError` where runs are missing, or where several tasks or splits could be meant.
    """
    notes: list[str] = []
    if missing := set(methods) - {record.spec["method"] for record in records if record.status == "done"}:
        raise InputError(f"compare: no finished runs of {', '.join(sorted(missing))} with these options")
    chosen = [record for record in records if not methods or record.spec["method"] in methods]
    found = [_rows(chosen, dataset, notes) for dataset in datasets]
    place = _place([{split_of(row) for row in rows} for rows in found], split, ", ".join(datasets))
    found = [[row for row in rows if split_of(row) == place] for rows in found]
    for dataset, rows in zip(datasets, found, strict=True):
        if len(tasks := {row.head.spec["task"] for row in rows}) > 1:
            there = ", ".join(sorted(tasks))
            raise InputError(f"compare: {dataset}, {place}: several tasks; choose with --task: {there}")
    labels = dict.fromkeys(row.method for rows in found for row in rows)
    entries = [_entry([[row for row in rows if row.method == label] for rows in found]) for label in labels]
    return _complete(entries, datasets, notes), notes


def _rows(records: Sequence[Record], dataset: str, notes: list[str]) -> list[Row]:
    """Finished rows on the state of the data set that was used last: others may hold other sessions."""
    mine = [record for record in records if record.spec["dataset"] == dataset]
    done = [record for record in mine if record.status == "done"]
    if not done:
        raise InputError(f"compare: no finished runs on {dataset} with these options; see `bench table`")
    store = max(done, key=lambda record: record.started).spec["store"]
    if older := sum(record.spec["store"] != store for record in done):
        notes.append(f"{dataset}: {older} runs on another state of the data set are left out")
    return [row for row in group([record for record in mine if record.spec["store"] == store]) if row.done]


def split_of(row: Row) -> str:
    """All that decides the test samples: split, folds, sampling, scale, file."""
    spec = row.head.spec
    most = [f"max_per_class={spec['max_per_class']}"] if spec["max_per_class"] and spec["split"] not in LEAKY else []
    file = [str(spec["split_digest"])[:8]] if spec["split_digest"] else []
    return ", ".join([row.split, *most, *file])


def _place(places: Sequence[set[str]], split: str | None, datasets: str) -> str:
    """The one split of those asked for that all data sets have."""
    common = sorted(set.intersection(*places))
    meant = [place for place in common if split in (None, place, place.split(", ")[0])]
    if split in meant or len(meant) == 1:
        return str(split if split in meant else meant[0])
    what = "several splits" if meant else "no such split that all have"
    there = "; ".join(f"'{place}'" for place in meant or common) or "none"
    raise InputError(f"compare: {datasets}: {what}; choose with --split: {there}")


def _entry(rows: Sequence[Sequence[Row]]) -> Entry:
    runs = {
        (number, *key): record
        for number, found in enumerate(rows)
        for row in found
        for key, record in numbered(row.done).items()
    }
    return Entry([row for found in rows for row in found], runs)


def _complete(entries: Sequence[Entry], datasets: Sequence[str], notes: list[str]) -> list[Entry]:
    """Those that have all data sets, and not so few blocks that nobody could be tested any more."""
    most = max(len(entry.runs) for entry in entries)
    kept = []
    for entry in entries:
        lacking = [name for n, name in enumerate(datasets) if not any(block[0] == n for block in entry.runs)]
        if lacking:
            notes.append(f"{entry.label}: left out, no runs on {', '.join(lacking)}")
        elif len(entry.runs) < FEWEST <= most:
            notes.append(f"{entry.label}: left out, {len(entry.runs)} of {most} blocks")
        else:
            kept.append(entry)
    if len(kept) < 2:
        raise InputError(f"compare: {len(kept)} methods with finished runs on {', '.join(datasets)}; it takes two")
    return kept
