"""A paper's printed tables and figures, with where rows come from and what does not add up."""

from collections.abc import Mapping
from typing import Final

from bench.paper.declaration import Experiment, Paper
from bench.paper.recompute import faults
from bench.render.table import Table

METRICS: Final = ("accuracy", "precision", "recall", "f1")  # columns that may be shares


def number(text: str) -> float | None:
    """The number in a printed cell, without its percent sign; None for a dash, a range or words.

    >>> number("97.89"), number("0.30-0.70")
    (97.89, None)
    """
    try:
        return float(text.removesuffix("%"))
    except ValueError:
        return None


def percent(share: str) -> str:
    """A printed share as percent, with its digits and at least one after the point; words stay.

    >>> percent("0.8954"), percent("0.97"), percent("-")
    ('89.54', '97.0', '-')
    """
    if (value := number(share)) is None:
        return share
    return f"{100 * value:.{max(1, len(share.partition('.')[2]) - 2)}f}"


def published_table(paper: Paper, name: str) -> Table:
    """The printed table or figure; its notes say where rows come from and what does not add up.

    Raises :class:`InputError` where there are no numbers of that name.
    """
    declared, rows = paper.printed(name), paper.rows(name)
    head = [column for column in rows[0] if column not in ("id", "note")]
    wrong = [one for one in faults(paper) if one.exhibit == name]
    known = {one.where for one in wrong}  # recomputed, which says more than a row's note
    noted = [f"{_label(row)}: {row['note']}" for row in rows if row.get("note") and _label(row) not in known]
    sources = [
        f"{source}: {paper.provenance.get(source, 'not explained')}"
        for source in dict.fromkeys(row["provenance"] for row in rows if "provenance" in row)
    ]
    recomputed = [f"{one.where}: {one.check}: {one.printed}; {one.expected}: {one.verdict}" for one in wrong]
    kind, numeral, *words = name.split("-")
    return Table(
        f"{'Table' if kind == 'table' else 'Figure'} {' '.join([numeral, *words])} of the paper: {declared.title}",
        head,
        [[row[column] for column in head] for row in rows],
        [*declared.notes, *sources, *noted, *recomputed],
        [{key: text if (value := number(text)) is None else value for key, text in row.items()} for row in rows],
    )


def _label(row: Mapping[str, str]) -> str:
    return row.get("name") or next(iter(row.values()))


def rows_by_key(paper: Paper, experiment: Experiment) -> dict[str, dict[str, str]]:
    """Published rows by what names their arm, metrics as columns, in percent.

    Empty where the paper prints no numbers of arms.
    """
    if not paper.has_numbers(experiment.id):
        return {}
    declared, rows = paper.printed(experiment.id), paper.rows(experiment.id)
    if not declared.keys:
        return {}
    if declared.long:
        arms: dict[str, dict[str, str]] = {}
        for row in rows:
            cells = arms.setdefault(row[declared.keys[0]], {})
            cells |= {row["metric"]: row["mean"], f"{row['metric']}_sd": row["sd"]}
        return arms
    if declared.shares:
        rows = [row | {name: percent(row[name]) for name in METRICS if name in row} for row in rows]
    return {",".join(row[name] for name in declared.keys): row for row in rows}
