"""The page: its sections, from the store of runs and the files of the results folder."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from bench import __version__
from bench.analysis.audit_record import Audit
from bench.analysis.audit_tables import audit_tables
from bench.analysis.tables import Row, group, results_table
from bench.environment import CPU, environment
from bench.errors import InputError, counted
from bench.files import from_here, write_text
from bench.render.html import Html, el, facts, picture, table
from bench.render.table import SavedTable
from bench.report.details import divided, flat, found
from bench.report.frame import Names, by_place, chart, framed, how_to_read
from bench.runs.run_labels import marked
from bench.stress.stress_record import Stress
from bench.stress.stress_tables import stress_tables
from bench.suites.contents import of_suite
from bench.suites.suite import Suite, suite_of
from bench.tracking.address import RESULTS, in_results
from bench.tracking.record import ELSEWHERE, Record, asked_for
from bench.tracking.results import RunResult
from bench.tracking.selection import NO_RUNS, Wanted, narrowed
from bench.tracking.tracker import Tracker


def write(
    tracker: Tracker,
    output: Path,
    *,
    datasets: Sequence[str] = (),
    suite: Suite | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> int:
    """Write the page of all runs (or of some data sets, or of a suite); the number of runs in it.

    A run of which a file changed since it was written, or cannot be read, is left out: the page and ``tell`` say so.

    ``datasets`` are words as `bench.tracking.selection` has them.  Reads ``reproduced/*/sheet.json``, ``audits/*.json``
    and ``stress/*.json`` beside the runs too.  Raises :class:`InputError` for a file there that is not what it should
    be, for a data set without runs, and where there is nothing to show.
    """
    everything, notes = tracker.search(), list[str]()
    if suite is not None:
        everything, notes = of_suite(suite, everything)
    records, wanted = narrowed(everything, Wanted(datasets=datasets))
    records, left_out = asked_for(records)
    records, damaged = _sound(tracker, records)
    for line in damaged:
        tell(f"left out: {line}")
    if left_out:
        tell(left_out)
    digests = {one.spec: one.split for one in records if one.split}
    own = [one.spec for one in records if one.origin != ELSEWHERE and not one.spec.tuned]
    if suite is None and (others := len(records) - len(own)):
        notes.append(f"{counted(others, 'run')} of other programs, or tuned fold by fold, not in the plan")
    if suite is None and (devices := sorted({spec.device for spec in own} - {CPU})):
        notes.append(f"some runs are of {', '.join(devices)}: the plan names no device, `--device` does")
    plan = suite or (suite_of("runs", own, digests) if own else None)
    write_text(output, _Page(tracker, wanted.datasets, damaged, (plan, notes)).markup(records))
    return len(records)


def _sound(tracker: Tracker, records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """The records without runs whose files are not those that they wrote, and a line on each of these."""
    kept, damaged = [], []
    for record in records:
        try:
            if record.status == "done":
                tracker.opened(record).check()
        except InputError as error:
            if error.code != "run-damaged":
                raise
            damaged.append(str(error))
        else:
            kept.append(record)
    return kept, damaged


class _Page:
    """A page on its way: where things come from, and the names in it."""

    def __init__(
        self,
        tracker: Tracker,
        datasets: Sequence[str],
        damaged: Sequence[str],
        plan: tuple[Suite | None, Sequence[str]],
    ) -> None:
        self.tracker = tracker
        self.datasets = datasets
        self.damaged = damaged
        self.plan = plan
        self.name = Names()

    def markup(self, records: Sequence[Record]) -> str:
        """The whole page.  Raises :class:`InputError` where there is nothing to show."""
        sections = [
            *by_place(group(records), self.name, self.results),
            *self.stressed(records),
            *self.reproduced(),
            *self.audits(),
        ]
        if not sections and not self.damaged:
            raise InputError("no-runs", f"report: nothing to show, no page is written; {NO_RUNS}")
        contents = [link for link, _ in sections] + [
            el("li", el("a", title, href=f"#{name}"))
            for title, name in [*([("The plan", "plan")] if self.plan[0] else []), ("Environment", "environment")]
        ]
        return framed(
            "etc-bench: results",
            _header(records),
            _left_out(self.damaged, self.tracker.results),
            el("nav", el("h2", "Contents"), el("ul", *contents), aria_label="Contents"),
            el("main", *(markup for _, markup in sections), id="results"),
            None if self.plan[0] is None else _plan(self.plan[0], self.plan[1], self.where),
            _footer(),
        )

    @property
    def where(self) -> list[str]:
        """Words of a command that name the results folder, where that is not the usual one.

        Of what lies elsewhere than below the working folder it has the name alone: the page may be published.
        """
        results = from_here(self.tracker.results)
        shown = results.name if results.is_absolute() else str(results)
        return [] if results == RESULTS else ["--results", shown]

    def command(self, row: Row) -> Html:
        """The command that computes a row."""
        file, line = row.head.spec.split.file, row.command(self.where)
        return el("pre", el("code", line.replace(f"{Path(file).parent}/", "") if file else line))

    def results(self, rows: Sequence[Row]) -> Iterator[Html]:
        """Table, chart, split and details of the rows of one split."""
        shown = results_table([record for row in rows for record in (*row.done, *row.other)])
        yield table(shown.reworded(lambda text: in_results(text, self.where)))
        scored = [(row, *self.first(row)) for row in rows if row.value("macro_f1")]
        if not scored:
            return
        yield chart([(_marked(row), row) for row, *_ in scored])
        known = ((run, split) for _, run, one in scored if isinstance(one, RunResult) and (split := divided(one.split)))
        for run, split in islice(known, 1):  # that of a seed and fold is the same for all rows
            told = el("p", f"Counted in {_which(run)}.", class_="muted")
            yield el("details", el("summary", "The split: what training shares with test, and its parts"), told, split)
        yield from (self.details(*one) for one in scored)

    def first(self, row: Row) -> tuple[Record, RunResult | str]:
        """The run of a row with the lowest seed and fold, and its result, or why there is none."""
        run = self.tracker.opened(min(row.done, key=lambda r: (r.spec.split.seed, r.spec.split.fold or 0)))
        try:
            return run, run.result()
        except InputError as error:
            what = "gone" if error.code == "missing-artefact" else "not readable"
            return run, f"The run's files are {what}; run it again with --rerun."

    def details(self, row: Row, run: Record, result: RunResult | str) -> Html:
        """What one run of a row found, unfolded on demand."""
        summary = el("summary", f"{_marked(row)}: macro-F1 {row.cell('macro_f1')}")
        if isinstance(result, str):
            return el("details", summary, el("p", result), self.command(row), class_="run")
        more = f", the first of {len(row.done)}" if len(row.done) > 1 else ""
        told = el("p", f"Below: {_which(run)}{more}; {result.scores.sessions} test samples.", class_="muted")
        known = [name for name in run.metrics if name.startswith(("epoch/", "step/"))]
        curves = self.tracker.curves(run.run_id, sorted(known)) if known else {}
        return el(
            "details", summary, self.command(row), told, found(run, result, curves, self.name("run")), class_="run"
        )

    def reproduced(self) -> Iterator[tuple[Html, Html]]:
        """The paper's tables and figures, published against ours, as `bench reproduce --save` left them."""
        parts, links = [], []
        for path in sorted(self.tracker.results.glob("reproduced/*/sheet.json")):
            saved = SavedTable.load(path)
            title = saved.title or path.parent.name
            name, figure = self.name(path.parent.name), path.with_name("figure.svg")
            links.append(el("li", el("a", path.parent.name, href=f"#{name}")))
            drawn = picture(figure.read_bytes(), "image/svg+xml", f"Picture of: {title}") if figure.is_file() else None
            shown = el("pre", el("code", saved.command)) if saved.command else None
            parts.append(el("section", el("h3", path.parent.name, id=name), table(saved.table), drawn, shown))
        if parts:
            entry = el("li", el("a", "Published against ours", href="#published"), el("ul", *links))
            yield entry, el("section", el("h2", "Published against ours", id="published"), *parts)

    def stressed(self, records: Sequence[Record]) -> Iterator[tuple[Html, Html]]:
        """How runs of the page fail, as `bench stress` left it."""
        parts, shown = [], {record.run_id for record in records}
        for path in sorted(self.tracker.results.glob("stress/*.json")):
            found = Stress.load(path)
            if found.run in shown:
                title = f"{found.method} · {found.dataset} · {found.task} · {found.split} · run {found.run[:8]}"
                tables = map(table, stress_tables(found))
                parts.append(el("section", el("h3", title, id=self.name(f"stress {title}")), *tables))
        if parts:
            entry = el("li", el("a", "How methods fail", href="#stress"))
            yield entry, el("section", el("h2", "How methods fail", id="stress"), *parts)

    def audits(self) -> Iterator[tuple[Html, Html]]:
        """What data sets give away, as `bench audit` left it."""
        parts = []
        for path in sorted(self.tracker.results.glob("audits/*.json")):
            audit = Audit.load(path)
            if self.datasets and audit.dataset not in self.datasets:
                continue
            title = " · ".join(audit.labels)
            parts.append(
                el("section", el("h3", title, id=self.name(f"audit {title}")), *map(table, audit_tables(audit)))
            )
        if parts:
            entry = el("li", el("a", "What data sets give away", href="#audits"))
            yield entry, el("section", el("h2", "What data sets give away", id="audits"), *parts)


def _header(records: Sequence[Record]) -> Html:
    done = sum(record.status == "done" for record in records)
    other = f", {len(records) - done} failed, skipped, killed or running" if done < len(records) else ""
    return el(
        "header",
        el("h1", "Encrypted-traffic classification: results"),
        el("p", "How well published classifiers do on the same traffic under the same split. Made by etc-bench "
           f"{__version__} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC from {done} finished runs{other}."),
        how_to_read(),
    )  # fmt: skip


def _left_out(damaged: Sequence[str], results: Path) -> Html | None:
    """Which runs are not on the page, and why; without the place of the results, the page may be published."""
    if not damaged:
        return None
    lines = [el("li", line.replace(f"{results}/", "")) for line in damaged]
    return el("section", el("h2", "Left out", id="left-out"), el("ul", *lines))


def _plan(suite: Suite, notes: Sequence[str], where: Sequence[str]) -> Html:
    """The whole experiment in one file, and what is missing of it.

    Of a split file's place no more than its name is shown: the page may be published.
    """
    free = [one for one in suite.datasets if not one.splits]
    told = el(
        "p",
        "Methods, data sets and splits of this page in one file. ",
        el("code", shlex.join(["bench", "run", "--suite", f"{suite.name}.toml", *where])),
        " computes every method on all of them and refuses data sets and splits of other digests.",
        f" Of {len(free)} of its {counted(len(suite.datasets), 'task')} it has all folds and seeds, of which some were "
        "not run here, and holds none to a digest."
        if free
        else "",
    )
    shown = el("details", el("summary", f"{suite.name}.toml"), el("pre", el("code", suite.text())))
    lines = el("ul", *(el("li", note) for note in notes)) if notes else None
    return el("section", el("h2", "The plan", id="plan"), told, lines, shown)


def _footer() -> Html:
    steps = (
        "Each result names the command that computes it. In the same results folder, the command reads finished runs "
        "from the store of runs. Elsewhere, prepare the data set first (bench prepare); the command then computes the "
        "numbers again. Seeds and versions are below; another kind of processor may change the last digits of trained "
        "networks."
    )
    return el(
        "footer",
        el("h2", "Environment", id="environment"),
        el("p", steps),
        facts("Where this page was made", flat(environment("cpu"))),
    )


def _marked(row: Row) -> str:
    return marked(row.method, row.marks)


def _which(run: Record) -> str:
    """The run, with what tells it from others of its row."""
    seed, fold = run.spec.place
    return f"run {run.run_id[:8]}, seed {seed}" + ("" if fold is None else f", fold {fold}")
