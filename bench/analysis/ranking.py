"""Which method is better: all methods of a data set, or of several, ranked.

A ranking stands on blocks, (data set, seed, fold), that all its methods have.  Beside the mean over blocks stand the
score of the pooled test parts with its interval over groups (`bench.scores.jackknife`), and what tests say of the
blocks (`bench.scores.significance`).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.analysis.paired import (
    AND,
    count_tested,
    group_label_of,
    interval_note,
    mean_ratio,
    paired_tests,
    pooled_parts,
    same_tests,
)
from bench.analysis.ranking_entries import Block, Entry, split_of
from bench.analysis.tables import described, notes_of
from bench.errors import InputError, instead
from bench.render.plots import draw_critical_difference
from bench.render.table import Table
from bench.runs.run_labels import interval_meanings, interval_sign, with_interval
from bench.scores import significance
from bench.scores.jackknife import FEWEST_GROUPS, GroupJackknife, mean_estimate
from bench.scores.metrics import MACRO, decide
from bench.scores.significance import FEWEST, LEVEL
from bench.spec import NEW_FIELDS
from bench.tracking.record import Record

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Load = Callable[[str], Record]  # a run with its artefacts, by its id

SETS: Final = 5  # data sets from which each is one block (Demšar 2006); of fewer, seeds and folds are (our choice)
SAME: Final = "~"  # cannot be told from the best


@dataclass(frozen=True)
class Standing:
    """What a ranking says of one method; differences are to the best, 0 for itself."""

    entry: Entry
    mean: float  # over the blocks; of several data sets, the mean of their means
    deviation: float  # over seeds and folds within a data set; NaN where there is one block
    rank: float  # mean over the blocks, 1 is the best
    pooled: float  # of all test parts as one; of several data sets, their mean
    interval: tuple[float, float]  # of `pooled`: 95 %, jackknife over groups
    difference: float  # of `pooled`
    difference_interval: tuple[float, float]  # paired, simultaneous for all pairs of methods
    p: float | None = None  # Holm over the comparisons with the best; None: no test, or the best itself
    p_single: float | None = None  # before Holm
    dz: float | None = None  # of several data sets, their mean, as is the next one
    dominance: float | None = None
    level: bool = False  # cannot be told from the best


@dataclass(frozen=True)
class Ranking:
    """Methods, best first."""

    title: str
    metric: str
    standings: Sequence[Standing]
    scores: Floats  # [blocks, methods] that the tests saw, in the order of `standings`
    tests: Mapping[str, Any]  # ready for JSON
    notes: Sequence[str]


@dataclass(frozen=True)
class _Pool:
    """All test parts of one data set, and every method's answers to them."""

    jackknife: GroupJackknife  # of every method's answers
    unit: str  # what a group is
    samples: tuple[int, int]  # distinct ones, and how often the most frequent one was tested
    ratio: float  # test samples / distinct training samples, mean over blocks
    repeated: bool  # all blocks, several, have one test part


def check_metric(metric: str) -> None:
    """Raises :class:`InputError` for a metric that nothing is ranked by."""
    if metric not in MACRO:
        raise InputError("unknown-metric", f"compare: unknown metric {metric!r}; {instead(metric, MACRO)}")


def rank(entries: Sequence[Entry], load: Load, *, metric: str = "macro_f1", notes: Sequence[str] = ()) -> Ranking:
    """Rank methods by the mean of ``metric`` (of `MACRO`) over the blocks that all have.

    ``load`` is `Tracker.load`; ``notes`` are put below.  Raises :class:`InputError` where methods have no block in
    common, or test sessions differ.
    """
    check_metric(metric)
    common = set.intersection(*(set(entry.runs) for entry in entries))
    blocks = sorted(common, key=lambda block: (block[0], block[1], block[2] or 0))
    strata, sets = np.array([block[0] for block in blocks]), len(entries[0].rows)
    if len(np.unique(strata)) < sets:
        raise InputError(
            "different-tests",
            "compare: no seed and fold that all methods have; run all with the same --seeds and --folds",
        )
    scores = np.array([[entry.runs[block].metrics[metric] for entry in entries] for block in blocks])
    order = np.argsort(-_over_sets(scores, strata, np.mean).mean(axis=0), kind="stable")
    entries, scores = [entries[number] for number in order], scores[:, order]
    pools = [_pool(entries, [block for block in blocks if block[0] == n], load) for n in range(sets)]
    seen, tests, of_best = _tested(scores, strata, pools)
    standings = _standings(entries, scores, strata, pools, metric)
    standings = _judged(standings, of_best, tests["few_groups"])
    said = [*_said(tests, pools, standings), *_left(entries, len(blocks)), *notes]
    return Ranking(_title(metric, entries[0], tests), metric, standings, seen, tests, said)


def _title(metric: str, entry: Entry, tests: Mapping[str, Any]) -> str:
    """What is ranked, and where, and on how many blocks."""
    datasets, tasks = (
        dict.fromkeys(getattr(row.head.spec, name) for row in entry.rows) for name in ("dataset", "task")
    )
    splits = dict.fromkeys(map(split_of, entry.rows))
    words = [metric, " + ".join(datasets), " + ".join(tasks), " + ".join(splits)]
    if len(splits) > 1:
        places = (f"{row.head.spec.dataset}/{row.head.spec.task} ({split_of(row)})" for row in entry.rows)
        words = [metric, " + ".join(places)]
    blocks, each = tests["blocks"], ", one a data set" * (tests["unit"] == "data set")
    return " · ".join([*words, f"{blocks} block" + "s" * (blocks > 1) + each])


def _over_sets(scores: Floats, strata: Ints, reduce: Callable[..., Any]) -> Floats:
    """``reduce`` over the blocks of each data set, [sets, methods]."""
    return np.array([reduce(scores[strata == number], axis=0) for number in np.unique(strata)])


def _pool(entries: Sequence[Entry], blocks: Sequence[Block], load: Load) -> _Pool:
    """The test parts of a data set's blocks, proved to be the same for all methods."""
    first = [load(entries[0].runs[block].run_id) for block in blocks]
    known = [record.predictions() for record in first]
    whole = pooled_parts(known)
    answers = []
    for entry in entries:
        parts = []
        for block, record, part in zip(blocks, first, known, strict=True):
            other = load(entry.runs[block].run_id)
            parts.append(other.predictions())
            same_tests((record, part), (other, parts[-1]))
        answers.append(decide(pooled_parts(parts).probabilities))
    ratio = mean_ratio(first)
    repeated = len(known) > 1 and len({part.session.tobytes() for part in known}) == 1
    tested, times = count_tested(whole)
    jackknife = GroupJackknife(whole.truth, answers, whole.groups, classes=len(whole.classes), different=tested)
    return _Pool(jackknife, group_label_of(first[0]), (int(tested.sum()), times), ratio, repeated)


def _tested(
    scores: Floats, strata: Ints, pools: Sequence[_Pool]
) -> tuple[Floats, dict[str, Any], dict[str, Sequence[float | None]]]:
    """Scores of the blocks that are tested, what the tests say of all, and of each method against the best."""
    ratios = np.array([pool.ratio for pool in pools])
    repeated = any(pool.repeated for pool in pools)
    if len(pools) >= SETS:  # data sets are independent of each other: nothing to correct
        scores, repeated = _over_sets(scores, strata, np.mean), False
        strata, ratios = np.zeros(len(scores), np.int64), np.zeros(1)
    tests: dict[str, Any] = {
        "unit": "data set" if len(pools) >= SETS else "data set, seed and fold",
        "blocks": len(scores),
        "one_test_part": repeated,
        "resampled": AND.join(dict.fromkeys(pool.unit for pool in pools)),
        "groups": sum(pool.jackknife.counts.total for pool in pools),
        "interval_groups": min(pool.jackknife.counts.smallest for pool in pools),
        "few_groups": any(pool.jackknife.counts.few for pool in pools),
        "test_train_ratios": ratios.tolist(),
        "t_test": len(scores) >= FEWEST and bool(np.bincount(strata).min() > 1) and not repeated,
        "friedman": None,
    }
    of_best: dict[str, Sequence[float | None]] = {}
    if tests["t_test"]:
        columns = vars(paired_tests(scores[:, 1:] - scores[:, :1], ratios, strata))
        of_best = {name: [None, *(_number(value) for value in column)] for name, column in columns.items()}
    if min(scores.shape) >= FEWEST and not repeated:
        statistic, p = significance.friedman(scores)
        apart_by = significance.critical_difference(scores.shape[1], len(scores))
        tests["friedman"] = {"statistic": statistic, "p": p, "critical_difference": apart_by}
    return scores, tests, of_best


def _number(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return None if math.isnan(value) else float(value)


def _standings(
    entries: Sequence[Entry], scores: Floats, strata: Ints, pools: Sequence[_Pool], metric: str
) -> list[Standing]:
    """Means, ranks and intervals of each method; data sets are independent of each other."""
    means = _over_sets(scores, strata, np.mean)
    single = np.bincount(strata).min() < 2
    spread = np.full(means.shape, np.nan) if single else _over_sets(scores, strata, lambda x, axis: x.var(axis, ddof=1))
    places = significance.ranks(means if len(pools) >= SETS else scores).mean(axis=0)
    standings = []
    for number, entry in enumerate(entries):
        pooled = mean_estimate([pool.jackknife.score(number, metric) for pool in pools])
        apart = mean_estimate([pool.jackknife.difference(number, 0, metric) for pool in pools])
        standings.append(
            Standing(
                entry=entry,
                mean=float(means[:, number].mean()),
                deviation=float(np.sqrt(spread[:, number].mean())),
                rank=float(places[number]),
                pooled=pooled.value,
                interval=pooled.score_interval(),
                difference=apart.value,
                difference_interval=apart.interval(len(entries)) if number else (0.0, 0.0),
            )
        )
    return standings


def _judged(standings: Sequence[Standing], of_best: Mapping[str, Sequence[Any]], few: bool) -> list[Standing]:
    """With what the tests say, and who cannot be told from the best; the best is level where another one is.

    Without a test the simultaneous interval decides alone, and over ``few`` groups nothing can.
    """
    judged = []
    for number, standing in enumerate(standings):
        standing = dataclasses.replace(standing, **{name: column[number] for name, column in of_best.items()})
        low, high = standing.difference_interval
        untold = few if standing.p is None else standing.p >= LEVEL
        judged.append(dataclasses.replace(standing, level=number > 0 and (untold or low <= 0 <= high)))
    return [dataclasses.replace(judged[0], level=any(standing.level for standing in judged)), *judged[1:]]


def _said(tests: Mapping[str, Any], pools: Sequence[_Pool], standings: Sequence[Standing]) -> list[str]:
    """How the numbers came about, a line each."""
    said, unit = [], tests["resampled"]
    if any(standing.level for standing in standings):
        said.append(
            f"{SAME} not separable from the best: p ≥ {LEVEL}, the difference's interval contains 0, or not testable"
        )
    samples, groups, smallest = sum(pool.samples[0] for pool in pools), tests["groups"], tests["interval_groups"]
    times = max(pool.samples[1] for pool in pools)
    often = f", each tested up to {times} times" if times > 1 else ""
    said.append(f"pooled: all test parts as one, {samples} samples in {groups} {unit}{often}")
    said.append(f"[ ] 95 %: {interval_note(unit, smallest)}")
    said += interval_meanings(interval_sign(smallest))
    if len(standings) > 2:
        said.append(f"to the best: intervals that hold at once for all pairs of {len(standings)} methods")
    said += _said_of_t(tests, standings)
    if friedman := tests["friedman"]:
        shared = "" if tests["unit"] == "data set" else "; both ignore that blocks share training data"
        said.append(
            f"Friedman: χ² = {friedman['statistic']:.1f}, p = {friedman['p']:.2g}; Nemenyi: mean ranks "
            f"{friedman['critical_difference']:.2f} apart differ{shared}"
        )
    return said


def _said_of_t(tests: Mapping[str, Any], standings: Sequence[Standing]) -> list[str]:
    """Which test p is of, and why there is none."""
    blocks = tests["blocks"]
    if tests["one_test_part"]:
        why = "no t-test: blocks with the same test part compare seeds, not other traffic"
    elif not tests["t_test"]:
        why = f"no t-test with fewer than {FEWEST} blocks or a single one of a data set"
    if tests["one_test_part"] or not tests["t_test"]:
        few = f"not testable over fewer than {FEWEST_GROUPS} groups of a tested class"
        return [f"{why}: {few if tests['few_groups'] else 'the intervals of the differences decide'}"]
    number = sum(standing.p is not None for standing in standings)
    holm = f"Holm over {number} comparisons with the best" if number > 1 else "one comparison, nothing to correct for"
    if tests["unit"] == "data set":
        said = [f"p: paired t-test on {blocks} data sets, one block each; {holm}"]
    else:
        ratios = ", ".join(f"{ratio:.2f}" for ratio in tests["test_train_ratios"])
        said = [f"p: corrected resampled t-test, test/train {ratios}, on {blocks} blocks; {holm}"]
    if number < len(standings) - 1:
        said.append("no p where the difference is the same in all blocks: there is no deviation to test by")
    if blocks < significance.FEWEST_SIGNS:
        said.append(f"a Wilcoxon signed-rank test cannot reach p < {LEVEL} on {blocks} blocks and is not used")
    return said


def _left(entries: Sequence[Entry], blocks: int) -> list[str]:
    """Marks, runs that are missing, blocks that not all have, scales that differ."""
    rows = [row for entry in entries for row in entry.rows]
    notes = notes_of(rows, False)
    scales: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        spec = row.head.spec
        scales.setdefault((spec.dataset, spec.task, split_of(row)), set()).add(row.head.scale)
    notes += [
        f"scales differ ({'; '.join(sorted(several))}): a difference may come from the scale"
        for several in scales.values()
        if len(several) > 1
    ]
    if unused := sum(len(entry.runs) > blocks for entry in entries):
        notes.append(f"{unused} methods have more runs than the {blocks} that all have; those are not counted")
    return notes


def ranking_table(ranking: Ranking) -> Table:
    """The ranking as a table."""
    head = ["method", "runs", "steps", "on training", ranking.metric, "rank", "pooled [95 %]", "to the best [95 %]",
            "p", "d_z", "dominance"]  # fmt: skip
    return Table(
        ranking.title,
        head,
        [
            _cells(standing, standing is ranking.standings[0], interval_sign(ranking.tests["interval_groups"]))
            for standing in ranking.standings
        ],
        ranking.notes,
        [
            _record(standing, ranking.metric, standing is ranking.standings[0], ranking.tests)
            for standing in ranking.standings
        ],
        more={"metric": ranking.metric, "tests": ranking.tests},
    )


def _cells(standing: Standing, best: bool, sign: str) -> list[str]:
    entry = standing.entry
    spread = "" if math.isnan(standing.deviation) else f" ± {standing.deviation:.3f}"
    return [
        entry.marked,
        " + ".join(row.runs for row in entry.rows),
        *_of_training(entry),
        f"{standing.mean:.3f}{spread}" + f" {SAME}" * standing.level,
        f"{standing.rank:.1f}",
        with_interval(standing.pooled, *standing.interval, sign=sign),
        "best" if best else with_interval(standing.difference, *standing.difference_interval, "+.3f", sign),
        "–" if standing.p is None else "<0.0001" if standing.p < 0.0001 else f"{standing.p:.4f}",
        "–" if standing.dz is None else f"{standing.dz:+.1f}",
        "–" if standing.dominance is None else f"{standing.dominance:+.1f}",
    ]


def _of_training(entry: Entry) -> list[str]:
    """Optimiser steps, of several runs from the fewest to the most, and mean accuracy on training samples."""
    steps, accuracy = (_known(entry, name) for name in ("optimiser_steps", "training_accuracy"))
    ends = list(dict.fromkeys(f"{one:,.0f}" for one in (min(steps), max(steps)))) if steps else ["–"]
    return [" to ".join(ends), f"{np.mean(accuracy):.2f}" if accuracy else "–"]


def _known(entry: Entry, metric: str) -> list[float]:
    """A metric of the runs that have it."""
    return [run.metrics[metric] for run in entry.runs.values() if metric in run.metrics]


def _record(standing: Standing, metric: str, best: bool, tests: Mapping[str, Any]) -> dict[str, Any]:
    """Ready for JSON; a line says itself where it holds."""
    entry = standing.entry
    spec = entry.rows[0].head.spec
    options = described(spec)
    marks = {mark for row in entry.rows for mark in row.marks}
    return {
        "method": entry.label,
        "datasets": [row.head.spec.dataset for row in entry.rows],
        "tasks": [row.head.spec.task for row in entry.rows],
        **{name: options[name] for name in ("split", "folds", "max_per_class", "parameters", *NEW_FIELDS)},
        "split_digest": spec.split.file_digest,
        "metric": metric,
        "blocks": tests["blocks"],
        "resampled": tests["resampled"],
        "interval_groups": tests["interval_groups"],
        "runs": len(entry.runs),
        "training_accuracy": float(np.mean(known)) if (known := _known(entry, "training_accuracy")) else None,
        "optimiser_steps": float(np.mean(known)) if (known := _known(entry, "optimiser_steps")) else None,
        metric: standing.mean,
        f"{metric}_sd": _number(standing.deviation),
        "rank": standing.rank,
        "pooled": standing.pooled,
        "pooled_low": standing.interval[0],
        "pooled_high": standing.interval[1],
        "difference": standing.difference,
        "difference_low": standing.difference_interval[0],
        "difference_high": standing.difference_interval[1],
        **{name: getattr(standing, name) for name in ("p", "p_single", "dz", "dominance")},
        "separable_from_best": None if best else not standing.level,
        "leaky": "leaky" in marks,
        "reconstructed": "reconstructed" in marks,
        "scale": ", ".join(dict.fromkeys(row.head.scale for row in entry.rows)),
        "run_ids": [record.run_id for record in entry.runs.values()],
    }


def check_figure(path: Path) -> None:
    """Raises :class:`InputError` for a file that `draw` cannot write, before anything is ranked."""
    if path.suffix not in (".svg", ".png"):
        raise InputError("bad-picture", f"--figure {path}: give a name that ends in .svg or .png")


def draw(ranking: Ranking, path: Path) -> None:
    """The critical-difference diagram as SVG or PNG.  Raises :class:`InputError` where there is none to draw."""
    check_figure(path)
    if not ranking.tests["friedman"]:
        several = " with test parts of their own" if ranking.tests["one_test_part"] else ""
        raise InputError(
            "cannot-draw",
            f"--figure: a critical-difference diagram takes {FEWEST} methods and {FEWEST} blocks{several}",
        )
    labels = [standing.entry.marked for standing in ranking.standings]
    draw_critical_difference(ranking.scores, labels, ranking.title, path)
