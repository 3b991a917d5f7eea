"""The leaderboard: one page and one CSV of the runs of submitted bundles, the same bytes for the same bundles."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

from bench import __version__
from bench.analysis.paired import count_tested, pooled_parts
from bench.analysis.tables import GROUPS, SEARCH_COSTS, Row, described, group, group_notes, seed_notes, seen_notes
from bench.errors import InputError, counted
from bench.files import write_text
from bench.render.html import Html, el, table
from bench.render.table import Table, render
from bench.report.frame import Names, by_place, chart, framed, how_to_read
from bench.report.submissions import Submissions
from bench.runs.registry import is_shipped
from bench.runs.run_labels import (
    again_notes,
    improving_notes,
    interval_meanings,
    interval_sign,
    marked,
    meanings,
    method_label,
    origin_of,
    store_notes,
    with_interval,
)
from bench.scores.jackknife import GroupJackknife
from bench.scores.metrics import decide
from bench.suites.contents import of_suite
from bench.suites.suite import Suite

SCORES: Final = ("macro_f1", "accuracy")
COSTS: Final = ("seconds_fit", "seconds_predict", "model_parameters")
PAGE: Final = "index.html"
CSV: Final = "leaderboard.csv"


def write(found: Submissions, output: Path, suite: Suite | None = None) -> int:
    """Write the page and the CSV of bundles into a folder; the number of lines.

    With a suite only runs at its places count, and what is missing of it is told.  Raises :class:`InputError` where
    there is nothing to show.
    """
    records, notes = found.records, found.remarks
    if suite is not None:
        elsewhere = sum(suite.portion_of(record.spec) is None for record in records)
        records, told = of_suite(suite, records)
        notes = [*told, *notes, *_left_out(elsewhere, "of other data, tasks or splits than the suite's")]
    rows = [row for row in group(records, lambda record: found.bundle_of[record.run_id]) if row.done]
    if not rows:
        what = f" at the places of suite {suite.called}" if suite else ""
        raise InputError("no-runs", f"leaderboard: no finished run{what} in these bundles; no page is written")
    notes += _left_out(sum(record.status != "done" for record in records), "not finished")
    searched = SEARCH_COSTS if any(row.value(SEARCH_COSTS[0]) for row in rows) else ()
    board = _Board(found, tuple(dict.fromkeys((*SCORES, *(suite.metrics if suite else ()), *COSTS, *searched))), rows)
    lines = [board.line(row) for row in rows]
    write_text(output / PAGE, board.page(rows, [*notes, *store_notes(_stores(rows))], suite))
    write_text(output / CSV, render(Table("", [], [], records=lines), "csv") + "\n")
    return len(rows)


def _left_out(number: int, what: str) -> list[str]:
    return [f"{counted(number, 'run')} left out: {what}"] if number else []


def _stores(rows: Sequence[Row]) -> dict[str, set[str]]:
    """Digests of stores by data set."""
    stores: dict[str, set[str]] = {}
    for row in rows:
        stores.setdefault(row.head.spec.dataset, set()).add(row.head.spec.store or "unknown")
    return stores


class _Board:
    """Bundles and the columns of their table."""

    def __init__(self, found: Submissions, metrics: Sequence[str], rows: Sequence[Row]) -> None:
        self.found, self.metrics = found, metrics
        self.pools = {row.head.run_id: _pooled(found, row) for row in rows}  # by a row's first run

    def bundle(self, row: Row) -> str:
        return self.found.bundle_of[row.head.run_id]

    def line(self, row: Row) -> dict[str, Any]:
        """A row for programs; every row has the same columns."""
        values: dict[str, Any] = {}
        for metric in self.metrics:
            value = row.value(metric)
            values |= {f"{metric}{end}": value.get(f"{metric}{end}") for end in ("", "_sd")}
        jackknife = self.pools[row.head.run_id]
        for metric in SCORES:
            estimate = jackknife.score(0, metric)
            ends = zip(("", "_low", "_high"), (estimate.value, *estimate.score_interval()), strict=True)
            values |= {f"{metric}_pooled{end}": value for end, value in ends}
        values |= dict(zip(GROUPS, (jackknife.counts.smallest, jackknife.counts.total), strict=True))
        bundle = self.bundle(row)
        return {
            **described(row.head.spec),
            "store": row.head.spec.store,
            "label": _label(row),
            "runs": len(row.done),
            "seeds": sorted({record.spec.split.seed for record in row.done}),
            "tested_folds": sorted({record.spec.split.fold for record in row.done} - {None}, key=int),
            **values,
            "marks": " ".join(row.marks),
            "scale": row.head.scale,
            "origin": _origin(row),
            "bundle": bundle,
            "bundle_sha256": self.found.digests[bundle],
        }

    def page(self, rows: Sequence[Row], notes: Sequence[str], suite: Suite | None) -> str:
        """The whole page."""
        sections = list(by_place(rows, Names(), self.place))
        ends = [*([("Missing, and left out", "missing")] if notes else []), ("Bundles", "bundles")]
        entries = [
            *(entry for entry, _ in sections),
            *(el("li", el("a", text, href=f"#{name}")) for text, name in ends),
        ]
        told = el("section", el("h2", "Missing, and left out", id="missing"), el("ul", *(el("li", n) for n in notes)))
        runs = sum(len(row.done) for row in rows)
        bundles = counted(len(self.found.digests), "bundle")
        title = f"leaderboard of {suite.called}" if suite else "leaderboard"
        about = (
            f"Made by etc-bench {__version__} from {counted(runs, 'run')} of {bundles}. Scores and intervals were "
            "computed again from the answers in the bundles. Times are of each submitter's machine."
        )
        header = el(
            "header",
            el("h1", f"Encrypted-traffic classification: {title}"),
            el("p", about),
            how_to_read(),
        )
        return framed(
            f"etc-bench: {title}",
            header,
            el("nav", el("h2", "Contents"), el("ul", *entries), aria_label="Contents"),
            el("main", *(markup for _, markup in sections), id="results"),
            told if notes else None,
            el("section", el("h2", "Bundles", id="bundles"), self.bundles(), *_how_to_join()),
        )

    def place(self, rows: Sequence[Row]) -> list[Html]:
        """Table and chart of the rows of one split."""
        first, *others = self.metrics
        head = ("method", first, f"{first} pooled [95 %]", *others, "runs", "origin", "bundle")
        pools = [self.pools[row.head.run_id] for row in rows]
        cells = [
            (marked(_label(r), r.marks), _cell(r, first), _interval(pool), *(_cell(r, name) for name in others), r.runs,
             _origin(r), self.bundle(r))
            for r, pool in zip(rows, pools, strict=True)
        ]  # fmt: skip
        notes = [*meanings(chain.from_iterable(row.marks for row in rows)), *seen_notes(rows), *seed_notes(rows)]
        done = [record for row in rows for record in row.done]
        notes += _pool_notes(pools) + again_notes(done) + improving_notes(done)
        scored = [(marked(_label(row), row.marks), row) for row in rows if row.value("macro_f1")]
        title = f"Split {rows[0].split}"
        return [table(Table("", head, cells, list(dict.fromkeys(notes))), title), *([chart(scored)] if scored else [])]

    def bundles(self) -> Html:
        """Each bundle with its number of runs and its digest."""
        held = list(self.found.bundle_of.values())
        rows = [(name, str(held.count(name)), digest) for name, digest in self.found.digests.items()]
        return table(Table("", ("bundle", "runs", "SHA-256"), rows), "bundles")


def _pooled(found: Submissions, row: Row) -> GroupJackknife:
    """The row's answers to all of its test parts as one."""
    kept = [found.runs[record.run_id].answers for record in row.done]
    whole = pooled_parts([answers for answers in kept if answers is not None])
    tested, _ = count_tested(whole)
    decided = [decide(whole.probabilities)]
    return GroupJackknife(whole.truth, decided, whole.groups, classes=len(whole.classes), different=tested)


def _cell(row: Row, metric: str) -> str:
    """A mean with its deviation; an interval stands in a column of its own, and short times have their digits."""
    value = row.value(metric)
    if not value or metric == "classes_tested":
        return row.cell(metric)
    if not (metric.startswith("seconds") and value[metric] < 1):
        return row.cell(metric).partition(" [")[0]
    return " ± ".join(f"{value[name]:.2g}" for name in (metric, f"{metric}_sd") if name in value)


def _interval(pool: GroupJackknife) -> str:
    estimate = pool.score(0, SCORES[0])
    return with_interval(estimate.value, *estimate.score_interval(), sign=interval_sign(pool.counts.smallest))


def _pool_notes(pools: Sequence[GroupJackknife]) -> list[str]:
    """What stands behind the intervals, and what their signs mean."""
    return [
        "pooled: the test parts of all runs of a line as one",
        *group_notes((pool.counts.smallest, pool.counts.total) for pool in pools),
        *interval_meanings(interval_sign(pool.counts.smallest) for pool in pools),
    ]


def _label(row: Row) -> str:
    """The method with its settings; where it is from stands in a column of its own."""
    return method_label(row.head.spec, row.apart)


def _origin(row: Row) -> str:
    return origin_of(row.head) or ("shipped" if is_shipped(row.head.spec.method) else "unknown")


def _how_to_join() -> tuple[Html, Html]:
    """What a reader does with a bundle, and how another line comes in."""
    check = el("p", "To check a bundle and look into its runs: ", el("code", "bench results import BUNDLE.zip"), ".")
    join = "To add a line, hand in a bundle of your runs; CONTRIBUTING.md of the project says how."
    return check, el("p", join)
