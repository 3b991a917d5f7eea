"""What the ATVITSC paper prints, as it prints it, and what its numbers say when they are recomputed.

The numbers lie in ``results/paper`` with their provenance (its README says where each file is from).  Arithmetic on
them is decimal and exact: a printed value stands for an interval as wide as its last digit.
"""

import csv
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from decimal import ROUND_DOWN, Decimal
from itertools import groupby
from pathlib import Path
from typing import Final

from bench.errors import InputError
from bench.render.table import Sheet

HOLDS, WITHIN, COPIED = "holds", "within rounding", "copied"
IMPOSSIBLE, DIFFERS = "impossible", "differs"
MACRO: Final = ("precision", "recall", "f1")  # the paper's order of columns; accuracy last
CELL: Final = Decimal("0.01")  # the last printed digit
#: a value that was rounded is at most half a last digit below what is printed, one that was cut less than a whole one
#: above; which of them was done differs from row to row, so two printed values may be off by this many digits together
SLACK: Final = Decimal("1.5")
LARGEST_CLASS: Final = 4000  # test samples: how far class sizes are searched


_MACRO_UNIT = "macro averages and accuracy in percent"
_CLASSES = "the paper's own; rounded, while Tables II to VIII cut digits off"
_DIGITISED = "read off the figure: ± 0.003"
_BY_EYE = "read off the figure: about"
_CELLS = "the diagonal and the main errors, not the whole matrix"
#: what a table or figure shows, then its notes
_EXHIBITS: Final[dict[str, tuple[str, ...]]] = {
    "table-I": ("ATVITSC's configuration",),
    "table-II": (f"eleven systems on USTC-TFC2016, 20 classes; {_MACRO_UNIT}",),
    "table-III": ("ATVITSC on USTC-TFC2016, by class; percent", _CLASSES),
    "table-IV": (f"eleven systems on ISCX-Tor2016, 16 classes; {_MACRO_UNIT}",),
    "table-V": ("ATVITSC on ISCX-Tor2016, by class; percent", _CLASSES),
    "table-VI": (f"eleven systems on ISCX-VPN2016, 12 classes; {_MACRO_UNIT}",),
    "table-VII": ("ATVITSC on ISCX-VPN2016, by class; percent", _CLASSES),
    "table-VIII": (f"eleven systems on Cross-Platform (US Android), 59 classes; {_MACRO_UNIT}",),
    "table-IX": ("ATVITSC on Cross-Platform (US Android), by class; percent", _CLASSES),
    "table-X": (
        "time of a batch of 16; milliseconds",
        "the paper's own; it names neither the machine nor the number of repetitions: compare ranks only",
    ),
    "table-XI": ("input by packet or by session, 1D-CNN on ISCX-VPN2016; percent", "the paper's own"),
    "table-XII": (
        "parts of ATVITSC on ISCX-Tor2016; percent, mean and standard deviation",
        "the paper's own; it does not say over what, or over how many runs, the deviation is taken",
    ),
    "fig-6": (
        "accuracy (0 to 1) by packets and bytes a packet on ISCX-VPN2016",
        _DIGITISED,
        "the text gives 0.9436 for 16 packets of 256 bytes, where the figure shows 0.953",
    ),
    "fig-7": (
        "accuracy (0 to 1) by temperature",
        _DIGITISED,
        "neighbouring points differ by ± 0.015: the best temperature cannot be told",
    ),
    "fig-9": ("weights of the two branches in training at temperature 1, ISCX-Tor2016", _BY_EYE),
    "fig-10": ("weights of the two branches in training at temperature 500, ISCX-Tor2016", _BY_EYE),
    "fig-11": ("training accuracy with and without weighting, ISCX-Tor2016", _BY_EYE),
    "fig-12": ("confusion of PVT on sessions of one packet, six classes of USTC-TFC2016; shares", _CELLS),
    "fig-13": ("confusion of STFE on sessions of one packet, six classes of USTC-TFC2016; shares", _CELLS),
}
#: a comparison: the table of ATVITSC's classes on the same data, and the data set's name in ET-BERT's Tables 2 and 3
_COMPARED: Final = {
    "table-II": ("table-III", "USTC-TFC"),
    "table-IV": ("table-V", "ISCX-Tor"),
    "table-VI": ("table-VII", "ISCX-VPN-Service"),
    "table-VIII": ("table-IX", "Cross-Platform (Android)"),
}
_BALANCED: Final = {"table-IV": "table-V", "table-VI": "table-VII"}  # whose test sets have equal classes
_PROVENANCE: Final = {
    "copied:et-bert": "equal to ET-BERT's Tables 2 and 3, measured on other, smaller samples",
    "likely-copied:cmtsnn": "three digits, as other papers print it: probably CMTSNN's own table",
    "likely-copied:flowgnn": "fits Flow-GNN's own study of 6 classes, split 60/40",
    "own": "the paper's own measurement",
    "unknown": "no source found; whether the paper measured it, it does not say",
}


@dataclass(frozen=True)
class Finding:
    """One recomputation from printed numbers."""

    exhibit: str  # an id of `names`
    where: str  # the row's name, or what the rows are
    check: str
    printed: str
    expected: str  # what it would have to be
    verdict: str  # HOLDS, WITHIN, COPIED, IMPOSSIBLE or DIFFERS


def folder() -> Path:
    """Where the numbers lie: ``results/paper`` in a checkout, else under the environment's prefix."""
    beside = Path(__file__).resolve().parents[2] / "results" / "paper"
    return beside if beside.is_dir() else Path(sys.prefix) / "share" / "etc-bench" / "results" / "paper"


def names() -> list[str]:
    """Tables and figures whose numbers are here, as the command line has them, in the paper's order."""
    return [name for name in _EXHIBITS if (folder() / f"{_file(name)}.csv").is_file()]


def published(name: str) -> list[dict[str, str]]:
    """The rows of a table or figure, every cell as it is printed.

    Raises :class:`InputError` where there are no numbers of that name.
    """
    if name not in (known := names()):
        raise InputError(f"no published numbers of {name!r}; there are: {', '.join(known)}")
    return _read(_file(name))


def _file(name: str) -> str:
    """`table_II` of table-II, `fig_06` of fig-6."""
    kind, numeral = name.split("-")
    return f"{kind}_{numeral.zfill(2) if kind == 'fig' else numeral}"


def _read(file: str) -> list[dict[str, str]]:
    with (folder() / f"{file}.csv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def number(text: str) -> float | None:
    """The number in a printed cell, without its percent sign; None for a dash, a range or words."""
    try:
        return float(text.removesuffix("%"))
    except ValueError:
        return None


def sheet(name: str) -> Sheet:
    """The printed table or figure; its notes say where rows come from and what does not add up.

    Raises :class:`InputError` as :func:`published` does.
    """
    rows, (title, *notes) = published(name), _EXHIBITS[name]
    head = [column for column in rows[0] if column not in ("id", "note")]
    wrong = [one for one in faults() if one.exhibit == name]
    known = {one.where for one in wrong}  # recomputed, which says more than a row's note
    noted = [f"{_label(row)}: {row['note']}" for row in rows if row.get("note") and _label(row) not in known]
    sources = [
        f"{source}: {_PROVENANCE.get(source, 'see results/paper/README.md')}"
        for source in dict.fromkeys(row["provenance"] for row in rows if "provenance" in row)
    ]
    recomputed = [f"{one.where}: {one.check}: {one.printed}; {one.expected}: {one.verdict}" for one in wrong]
    kind, numeral = name.split("-")
    return Sheet(
        f"{'Table' if kind == 'table' else 'Figure'} {numeral} of the paper: {title}",
        head,
        [[row[column] for column in head] for row in rows],
        [*notes, *sources, *noted, *recomputed],
        [{key: text if (value := number(text)) is None else value for key, text in row.items()} for row in rows],
    )


def _label(row: Mapping[str, str]) -> str:
    return row.get("name") or next(iter(row.values()))


def findings() -> list[Finding]:
    """Everything that can be recomputed from the printed numbers, with what came out."""
    return [*_macro_f1(), *_class_f1(), *_class_means(), *_sources(), *_test_sets(), *_ablation()]


def faults() -> list[Finding]:
    """The findings that do not add up."""
    return [one for one in findings() if one.verdict in (IMPOSSIBLE, DIFFERS)]


def faults_sheet() -> Sheet:
    """All findings: where, what is printed, what it would have to be, and the verdict."""
    found = findings()
    head = ["exhibit", "where", "check", "printed", "expected", "verdict"]
    records = [asdict(one) for one in found]
    counts = Counter(one.verdict for one in found)
    return Sheet(
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


def _macro_f1() -> Iterator[Finding]:
    """No class has an F1 above the mean of its precision and recall, so neither have their averages."""
    for name in _COMPARED:
        rows = published(name)
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


def _class_f1() -> Iterator[Finding]:
    """A class's F1 is the harmonic mean of its precision and recall, as far as their printed digits tell."""
    half = CELL / 2
    for name, _ in _COMPARED.values():
        rows, exact, near = published(name), 0, 0
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


def _class_means() -> Iterator[Finding]:
    """The paper's own row is the mean over its classes, cut (not rounded) after two digits."""
    for name, (classes, _) in _COMPARED.items():
        own, rows = _own(published(name)), published(classes)
        means = [sum(column, Decimal(0)) / len(rows) for column in zip(*map(_values, rows), strict=True)]
        same = _values(own) == [mean.quantize(CELL, ROUND_DOWN) for mean in means]
        printed = " ".join(own[column] for column in MACRO)
        expected = f"the mean of {classes}'s classes, cut: {' '.join(f'{mean:.3f}' for mean in means)}"
        yield Finding(name, own["name"], "P, R, F1", printed, expected, HOLDS if same else DIFFERS)


def _sources() -> Iterator[Finding]:
    """Rows against ET-BERT's own, cell by cell: those said to be copied are, the others are not."""
    theirs = {(row["dataset"], row["id"]): row for row in _read("et_bert")}
    for name, (_, data) in _COMPARED.items():
        same, cells = Counter[str](), Counter[str]()
        rows = {row["name"]: row for row in published(name) if (data, row["id"]) in theirs}
        for label, row in rows.items():
            for column in (*MACRO, "accuracy"):
                if (share := theirs[data, row["id"]][column]) == "-":
                    continue
                cells[label] += 1
                equal = Decimal(row[column]) == (source := 100 * Decimal(share))
                same[label] += equal
                if not equal and row["provenance"] == "copied:et-bert":
                    yield Finding(name, label, f"source of {column}", row[column], f"{source:.2f} in ET-BERT", DIFFERS)
        copied = {label for label in rows if same[label] >= len(MACRO)}
        tagged = {row["name"] for row in published(name) if row["provenance"] == "copied:et-bert"}
        printed = f"{same.total()} of {cells.total()} cells equal, in {len(copied)} rows"
        expected = f"ET-BERT's, {len(tagged)} rows" if tagged else "none of ET-BERT's"
        verdict = DIFFERS if copied != tagged else COPIED if copied else HOLDS
        yield Finding(name, "rows that ET-BERT has", "source of rows", printed, expected, verdict)


def _test_sets() -> Iterator[Finding]:
    """What recalls and precisions tell of the test set, and whether all systems can have had the same."""
    for name, classes in _BALANCED.items():
        rows = published(classes)
        sizes = class_sizes([int(100 * Decimal(row["recall"])) for row in rows])
        steps = sum(Decimal(row["recall"]) % Decimal("0.05") == 0 for row in rows)
        printed = f"{steps} of {len(rows)} are multiples of 0.05"
        expected = f"classes of {_spans(sizes)} test samples (of up to {LARGEST_CLASS})"
        verdict = HOLDS if steps == len(rows) and 2000 in sizes else DIFFERS
        yield Finding(classes, "the classes", "recall", printed, expected, verdict)
        answers = sum(round(2000 * Decimal(row["recall"]) / Decimal(row["precision"])) for row in rows)
        verdict = HOLDS if answers == 2000 * len(rows) else DIFFERS
        expected = f"{2000 * len(rows)}, as many as test samples"
        yield Finding(classes, "the classes", "predictions at 2000 a class", f"{answers}", expected, verdict)
        yield _other_test_set(name, classes)


def _other_test_set(name: str, classes: str) -> Finding:
    """Accuracy is macro recall on classes of one size; rows where it is not are of another test set."""
    rows = published(name)
    gaps = [abs(Decimal(row["accuracy"]) - Decimal(row["recall"])) for row in rows]
    other = sum(gap >= _slack(_values(row)) for row, gap in zip(rows, gaps, strict=True))
    printed = f"differs from macro recall by up to {max(gaps)}"
    expected = f"equal to it on {classes}'s test set, of classes of one size"
    return Finding(name, f"{other} of {len(rows)} rows", "accuracy", printed, expected, DIFFERS if other else HOLDS)


def class_sizes(recalls: list[int]) -> list[int]:
    """Numbers of test samples a class, up to `LARGEST_CLASS`, with which all recalls (in 0.01 %) are rounded shares."""
    return [
        n
        for n in range(1, LARGEST_CLASS + 1)
        if all(abs(10000 * ((2 * recall * n + 10000) // 20000) - recall * n) * 2 <= n for recall in recalls)
    ]


def _spans(numbers: list[int]) -> str:
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _ablation() -> Iterator[Finding]:
    """Accuracy is macro recall on classes of one size, run by run, so mean and deviation are one, too."""
    rows = {(row["variant"], row["metric"]): row for row in published("table-XII")}
    for variant in dict.fromkeys(variant for variant, _ in rows):
        accuracy, recall = rows[variant, "accuracy"], rows[variant, "recall"]
        gap = max(abs(a - b) for a, b in zip(*(_values(r, ("mean", "sd")) for r in (accuracy, recall)), strict=True))
        printed = f"accuracy {accuracy['mean']} ± {accuracy['sd']}, recall {recall['mean']} ± {recall['sd']}"
        verdict = HOLDS if gap < SLACK * CELL else IMPOSSIBLE
        expected = "equal on table-V's test set, of classes of one size"
        yield Finding("table-XII", variant, "accuracy and recall", printed, expected, verdict)
    own, columns = _own(published("table-IV")), (*MACRO, "accuracy")
    means = [rows[variant, column]["mean"] for column in columns]  # of the last variant, the whole model
    verdict = HOLDS if means == [own[column] for column in columns] else DIFFERS
    yield Finding("table-XII", variant, "P, R, F1, accuracy", " ".join(means), "table-IV's row", verdict)
