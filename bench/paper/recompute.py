"""What a paper's printed numbers imply: what cannot be, what is copied, what was measured on another test set.

Arithmetic is decimal and exact: a printed value stands for an interval as wide as its last digit.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from decimal import ROUND_DOWN, Decimal
from functools import cache
from itertools import groupby
from typing import Final

from bench.paper.declaration import Comparison, Paper
from bench.render.table import Table

HOLDS, WITHIN, COPIED = "holds", "within rounding", "copied"
IMPOSSIBLE, DIFFERS = "impossible", "differs"
MACRO: Final = ("precision", "recall", "f1")  # the order of columns; accuracy last
CELL: Final = Decimal("0.01")  # the last printed digit
#: a value that was rounded is at most half a last digit below what is printed, one that was cut less than a whole one
#: above; which of them was done differs from row to row, so two printed values may be off by this many digits together
SLACK: Final = Decimal("1.5")
LARGEST_CLASS: Final = 4000  # test samples: how far class sizes are searched


@dataclass(frozen=True)
class Finding:
    """One recomputation from printed numbers."""

    exhibit: str  # a table or figure
    where: str  # the row's name, or what the rows are
    check: str
    printed: str
    expected: str  # what it would have to be
    verdict: str  # HOLDS, WITHIN, COPIED, IMPOSSIBLE or DIFFERS


def findings(paper: Paper) -> list[Finding]:
    """Everything that can be recomputed from the printed numbers, with what came out."""
    checks = (_macro_f1, _class_f1, _class_means, _sources, _test_sets, _ablation)
    return [finding for check in checks for finding in check(paper)]


def faults(paper: Paper) -> list[Finding]:
    """The findings that do not add up."""
    return [one for one in findings(paper) if one.verdict in (IMPOSSIBLE, DIFFERS)]


def findings_table(paper: Paper) -> Table:
    """All findings: where, what is printed, what it would have to be, and the verdict."""
    all_findings = findings(paper)
    head = ["exhibit", "where", "check", "printed", "expected", "verdict"]
    records = [asdict(one) for one in all_findings]
    counts = Counter(one.verdict for one in all_findings)
    return Table(
        "The paper's printed numbers, recomputed",
        head,
        [[record[column] for column in head] for record in records],
        [
            "verdicts: " + ", ".join(f"{counts[verdict]} {verdict}" for verdict in sorted(counts)),
            "impossible: not even if some values of a row were rounded and others cut (1.5 of the last digit together)",
        ],
        records,
    )


def _values(row: Mapping[str, str], columns: tuple[str, ...] = MACRO) -> list[Decimal]:
    return [Decimal(row[column]) for column in columns]


def _slack(values: list[Decimal]) -> Decimal:
    """How far two of a row's printed values can be off together; a row that always ends in 0 has one digit less."""
    return SLACK * (CELL if any(value % (10 * CELL) for value in values) else 10 * CELL)


def _macro_f1(paper: Paper) -> Iterator[Finding]:
    """No class has an F1 above the mean of its precision and recall, so neither have their averages."""
    for name in (one.table for one in paper.comparisons):
        rows = paper.rows(name)
        over = 0
        for row in rows:
            values = precision, recall, f1 = _values(row)
            bound, slack = (precision + recall) / 2, _slack(values)
            if f1 > bound:
                over += 1
                verdict = WITHIN if f1 - bound < slack else IMPOSSIBLE
                expected = f"at most (P + R) / 2 = {bound:f}, or {slack:f} more by rounding"
                yield Finding(name, row["name"], "macro F1", f"{f1}", expected, verdict)
        rest = f"{len(rows) - over} of {len(rows)}"
        yield Finding(name, "the other rows", "macro F1", rest, "at most (P + R) / 2", HOLDS)


def _class_f1(paper: Paper) -> Iterator[Finding]:
    """A class's F1 is the harmonic mean of its precision and recall, as far as their printed digits tell."""
    half = CELL / 2
    for name in (one.classes for one in paper.comparisons):
        rows, exact, near = paper.rows(name), 0, 0
        for row in rows:
            precision, recall, f1 = _values(row)
            middle = _harmonic(precision, recall)
            low = _harmonic(precision - half, recall - half) - half
            high = _harmonic(precision + half, recall + half) + half
            exact += (same := middle.quantize(CELL) == f1)
            near += not same and low <= f1 <= high
            if not low <= f1 <= high:
                yield Finding(name, row["class"], "class F1", f"{f1}", f"2PR / (P + R) = {middle:.3f}", IMPOSSIBLE)
        printed = f"{exact + near} of {len(rows)}"
        expected = f"2PR / (P + R): {exact} to the last digit, {near} within the digits of P and R"
        verdict = HOLDS if exact + near == len(rows) else IMPOSSIBLE
        yield Finding(name, "the classes", "class F1", printed, expected, verdict)


def _harmonic(a: Decimal, b: Decimal) -> Decimal:
    return 2 * a * b / (a + b)


def _own(rows: list[dict[str, str]]) -> dict[str, str]:
    return next(row for row in rows if row["provenance"] == "own")


def _class_means(paper: Paper) -> Iterator[Finding]:
    """The paper's own row is the mean over its classes, cut (not rounded) after two digits."""
    for name, classes in ((one.table, one.classes) for one in paper.comparisons):
        own, rows = _own(paper.rows(name)), paper.rows(classes)
        means = [sum(column, Decimal(0)) / len(rows) for column in zip(*map(_values, rows), strict=True)]
        same = _values(own) == [mean.quantize(CELL, ROUND_DOWN) for mean in means]
        printed = " ".join(own[column] for column in MACRO)
        expected = f"the mean of {classes}'s classes, cut: {' '.join(f'{mean:.3f}' for mean in means)}"
        yield Finding(name, own["name"], "P, R, F1", printed, expected, HOLDS if same else DIFFERS)


def _sources(paper: Paper) -> Iterator[Finding]:
    """Rows against the other paper's own, cell by cell: those said to be copied are, the others are not."""
    if paper.source is None:
        return
    other, tag = paper.source.name, paper.source.tag
    theirs = {(row["dataset"], row["id"]): row for row in paper.read(paper.source.file)}
    for name, data in ((one.table, one.elsewhere) for one in paper.comparisons):
        same, cells = Counter[str](), Counter[str]()
        rows = {row["name"]: row for row in paper.rows(name) if (data, row["id"]) in theirs}
        for label, row in rows.items():
            for column in (*MACRO, "accuracy"):
                if (share := theirs[data, row["id"]][column]) == "-":
                    continue
                cells[label] += 1
                equal = Decimal(row[column]) == (source := 100 * Decimal(share))
                same[label] += equal
                if not equal and row["provenance"] == tag:
                    yield Finding(name, label, f"source of {column}", row[column], f"{source:.2f} in {other}", DIFFERS)
        copied = {label for label in rows if same[label] >= len(MACRO)}
        tagged = {row["name"] for row in paper.rows(name) if row["provenance"] == tag}
        printed = f"{same.total()} of {cells.total()} cells equal, in {len(copied)} rows"
        expected = f"{other}'s, {len(tagged)} rows" if tagged else f"none of {other}'s"
        verdict = DIFFERS if copied != tagged else COPIED if copied else HOLDS
        yield Finding(name, f"rows that {other} has", "source of rows", printed, expected, verdict)


def _test_sets(paper: Paper) -> Iterator[Finding]:
    """What recalls and precisions tell of the test set, and whether all systems can have had the same."""
    for one in paper.comparisons:
        if one.balanced is None:
            continue
        classes, rows, size = one.classes, paper.rows(one.classes), one.balanced
        sizes = class_sizes(tuple(int(100 * Decimal(row["recall"])) for row in rows))
        step = Decimal(100) / size
        steps = sum(Decimal(row["recall"]) % step == 0 for row in rows)
        printed = f"{steps} of {len(rows)} are multiples of {step.normalize()}"
        expected = f"classes of {_spans(sizes)} test samples (of up to {LARGEST_CLASS})"
        verdict = HOLDS if steps == len(rows) and size in sizes else DIFFERS
        yield Finding(classes, "the classes", "recall", printed, expected, verdict)
        answers = sum(round(size * Decimal(row["recall"]) / Decimal(row["precision"])) for row in rows)
        verdict = HOLDS if answers == size * len(rows) else DIFFERS
        expected = f"{size * len(rows)}, as many as test samples"
        yield Finding(classes, "the classes", f"predictions at {size} a class", f"{answers}", expected, verdict)
        yield _other_test_set(paper, one)


def _other_test_set(paper: Paper, one: Comparison) -> Finding:
    """Accuracy is macro recall on classes of one size; rows where it is not are of another test set."""
    rows = paper.rows(one.table)
    gaps = [abs(Decimal(row["accuracy"]) - Decimal(row["recall"])) for row in rows]
    other = sum(gap >= _slack(_values(row)) for row, gap in zip(rows, gaps, strict=True))
    printed = f"differs from macro recall by up to {max(gaps)}"
    expected = f"equal to it on {one.classes}'s test set, of classes of one size"
    return Finding(
        one.table, f"{other} of {len(rows)} rows", "accuracy", printed, expected, DIFFERS if other else HOLDS
    )


@cache
def class_sizes(recalls: tuple[int, ...]) -> list[int]:
    """Numbers of test samples a class, up to `LARGEST_CLASS`, with which all recalls (in 0.01 %) are rounded shares."""
    return [
        n
        for n in range(1, LARGEST_CLASS + 1)
        if all(abs(10000 * ((2 * recall * n + 10000) // 20000) - recall * n) * 2 <= n for recall in recalls)
    ]


def _spans(numbers: list[int]) -> str:
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _ablation(paper: Paper) -> Iterator[Finding]:
    """Accuracy is macro recall on classes of one size, run by run, so mean and deviation are one, too."""
    if paper.ablation is None:
        return
    table = paper.ablation.table
    (compared,) = (one for one in paper.comparisons if one.table == paper.ablation.comparison)
    rows = {(row["variant"], row["metric"]): row for row in paper.rows(table)}
    for variant in dict.fromkeys(variant for variant, _ in rows):
        accuracy, recall = rows[variant, "accuracy"], rows[variant, "recall"]
        gap = max(abs(a - b) for a, b in zip(*(_values(r, ("mean", "sd")) for r in (accuracy, recall)), strict=True))
        printed = f"accuracy {accuracy['mean']} ± {accuracy['sd']}, recall {recall['mean']} ± {recall['sd']}"
        verdict = HOLDS if gap < SLACK * CELL else IMPOSSIBLE
        expected = f"equal on {compared.classes}'s test set, of classes of one size"
        yield Finding(table, variant, "accuracy and recall", printed, expected, verdict)
    own, columns = _own(paper.rows(compared.table)), (*MACRO, "accuracy")
    means = [rows[variant, column]["mean"] for column in columns]  # of the last variant, the whole model
    verdict = HOLDS if means == [own[column] for column in columns] else DIFFERS
    yield Finding(table, variant, "P, R, F1, accuracy", " ".join(means), f"{compared.table}'s row", verdict)
