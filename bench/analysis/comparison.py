"""Two runs, or two sets of runs, on the same test samples; many methods are ranked by `bench.analysis.ranking`."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from bench.analysis.tables import Row, notes_of, numbered
from bench.errors import InputError
from bench.render.table import Sheet
from bench.runs.run_labels import FIVE_TUPLES, marked, resampled, with_interval
from bench.runs.tracking import Predictions, Record
from bench.scores.metrics import decide, difference, macro_f1, mcnemar

METRICS: Final = ("accuracy", "macro_f1")


def compare(a: Sequence[Record], b: Sequence[Record], *, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Two runs, or two sets of runs over the same seeds and folds, on the same test samples.

    Differences are a - b, on the pooled answers, with paired 95 % bootstrap intervals over the split's groups, which
    ``resampled`` names.  ``samples`` are distinct ones, each tested up to ``times`` times.  ``mcnemar`` is None where
    a sample was tested more than once (several seeds): its answers would not be independent.  Records come from
    ``Tracker.load``.  Raises :class:`InputError` where the test samples differ.
    """
    pairs = _pairs(a, b)
    first, second = (pooled_parts([pair[i] for pair in pairs]) for i in (0, 1))
    truth, groups, classes = first.truth, first.groups, len(first.classes)
    answers = decide(first.probabilities), decide(second.probabilities)
    samples, times = tested(first)
    result: dict[str, Any] = {
        "a": _who(a),
        "b": _who(b),
        "samples": samples,
        "times": times,
        "groups": len(np.unique(groups)),
        "resampled": unit_of(a[0]),
    }
    for metric in METRICS:
        apart, low, high = difference(truth, answers, groups, classes=classes, metric=metric, draws=draws, seed=seed)
        values = [_score(metric, truth, answer, classes) for answer in answers]
        result[metric] = {"a": values[0], "b": values[1], "difference": apart, "low": low, "high": high}
    result["mcnemar"] = mcnemar(answers[0] == truth, answers[1] == truth) if times == 1 else None
    result["notes"] = notes_of([Row(list(records), []) for records in (a, b)], False)
    return result


def sheet(result: dict[str, Any]) -> Sheet:
    """What `compare` found as a table; its JSON has all that was found, too."""
    sides = {side: {name: result[side][name] for name in ("method", "parameters", "runs")} for side in "ab"}
    place = {name: result["a"][name] for name in ("dataset", "task", "split", "folds")}
    of_side = {f"{side}_{name}": value for side, who in sides.items() for name, value in who.items()}
    rows, records = [], []
    for metric in METRICS:
        value = result[metric]
        apart = with_interval(value["difference"], value["low"], value["high"], "+.3f")
        rows.append([metric, f"{value['a']:.3f}", f"{value['b']:.3f}", apart])
        records.append({"metric": metric, **value, **place, **of_side, "resampled": result["resampled"]})
    who = [f"{side}: {_named(result[side])}" for side in "ab"]
    often = f", each tested up to {result['times']} times" if result["times"] > 1 else ""
    counts = f"{result['samples']} test samples{often}, in {result['groups']} {result['resampled']}"
    title = " · ".join(str(place[name]) for name in ("dataset", "task", "split"))
    notes = [*who, counts, f"[ ] 95 %: {bootstrap_words(result['resampled'])}", _mcnemar_words(result["mcnemar"])]
    more = {name: value for name, value in result.items() if name != "notes"}
    return Sheet(title, ["metric", "a", "b", "a - b [95 %]"], rows, [*notes, *result["notes"]], records, more=more)


def bootstrap_words(unit: str) -> str:
    """What intervals of that resampled unit stand for."""
    words = f"bootstrap over {unit}, those of the split"
    if FIVE_TUPLES not in unit:
        return words
    return f"{words}; it does not cover the choice of captures and is narrower than one that does"


def unit_of(record: Record) -> str:
    """What `Predictions.groups` of a run, as `Tracker.load` gives it, number: a split file keeps the scheme it had."""
    scheme = record.spec["split"]
    return resampled(record.result()["split"]["scheme"] if scheme == "file" else scheme)


def tested(pooled: Predictions) -> tuple[int, int]:
    """How many distinct samples were tested, and how often the most frequent one."""
    times = np.unique(np.stack((pooled.session, pooled.first)), axis=1, return_counts=True)[1]
    return len(times), int(times.max())


def test_train_ratio(record: Record) -> float:
    """Test samples over distinct training samples of a run, as `Tracker.load` gives it.

    What re-sampling repeats says nothing new.  Under a leaky split all parts repeat alike, so counts are taken as
    they are.
    """
    split = record.result()["split"]
    again = 0 if record.leaky else split.get("repeated", 0)
    return float(split["samples"]["test"] / (split["samples"]["train"] - again))


def _named(who: dict[str, Any]) -> str:
    return f"{marked(who['method'], who['marks'])}  ({', '.join(run[:8] for run in who['runs'])})"


def _mcnemar_words(test: dict[str, float] | None) -> str:
    if test is None:
        return "McNemar: not for samples that were tested more than once"
    counts = f"only a right {test['only_a']}, only b right {test['only_b']}"
    return f"McNemar: {counts}, p = {test['p']:.3g}  (takes samples as independent)"


def _who(records: Sequence[Record]) -> dict[str, Any]:
    row = Row(list(records), [])
    names = ("dataset", "task", "split", "folds", "parameters")
    told = {name: row.head.spec[name] for name in names}
    return {"method": row.method, "marks": row.marks, **told, "runs": [r.run_id for r in records]}


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
