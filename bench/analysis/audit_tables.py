"""What an audit found, as tables for people and programs."""

from collections.abc import Sequence
from typing import Any

from bench.analysis.audit_record import Audit, Ceiling, ScoredRun, SplitAudit
from bench.analysis.data_quality import FEW_GROUPS, PAYLOAD, SEEN
from bench.files import plain
from bench.render.table import Table, render
from bench.runs.run_labels import (
    MARKS,
    interval_meanings,
    interval_sign,
    marked,
    meanings,
    parameter_labels,
    store_notes,
    unverified_note,
    with_interval,
)


def audit_text(audit: Audit) -> str:
    """The findings for people: all tables."""
    return "\n\n".join(render(table) for table in audit_tables(audit))


def audit_tables(audit: Audit) -> list[Table]:
    """An audit as tables: classes, content and duplicates, ceilings, splits, scores."""
    return [table(audit) for table in (_classes, _content, _ceilings, _splits, _scores)]


def _title(audit: Audit, what: str, of_split: bool = False) -> str:
    """What it is of: data set, task and the options that are not as usual; those of splits and the seed, too."""
    words = [*audit.option_labels(of_split), *([f"seed {audit.seed}"] if of_split else [])]
    return " · ".join([f"{audit.dataset}, task {audit.task}: {what}", *words])


def _classes(audit: Audit) -> Table:
    kinds = ("samples", "sessions", "conversations", "captures")
    few = [row.class_ for row in audit.classes if row.few]
    notes = [f"fewer than {FEW_GROUPS} capture groups: {', '.join(few)}"] if few else []
    notes += store_notes({audit.dataset: {audit.store}})
    return Table(
        title=_title(audit, "classes"),
        head=("class", "samples", "sessions", "conversations", "capture groups"),
        rows=[(row.class_, *(str(getattr(row, kind)) for kind in kinds)) for row in audit.classes],
        notes=notes,
        records=plain(audit.classes),
    )


def _content(audit: Audit) -> Table:
    names = {"empty": "none", "tls": "a TLS record", "text": "readable text", "other": "anything else"}
    whole, full = audit.duplicates
    lines: list[tuple[str, Any, Any]] = [
        (f"share of sessions whose first payload bytes are {names[kind]}", share, None)
        for kind, share in audit.content.items()
    ]
    shares = {
        "repeated": "share of samples whose payload equals another's",
        "of_several_classes": "share of samples whose payload equals one's of another class",
        "ceiling": "best accuracy from payload alone",
    }
    lines += [(t, getattr(whole, name), getattr(full, name) if full.samples else None) for name, t in shares.items()]
    kinds = {"conversations": "conversations (5-tuples)", "captures": "capture groups"}
    lines += [(f"{kinds[kind]} of several classes", n, None) for kind, n in audit.of_several_classes.items()]
    return Table(
        title=_title(audit, "content and duplicates"),
        head=("", f"all {whole.samples} samples", f"{full.samples} with payload"),
        rows=[(text, _number(one), _number(other)) for text, one, other in lines],
        notes=[f"payload: the first {PAYLOAD[1]} bytes of the first {PAYLOAD[0]} packets that have any"],
        records=[{"finding": text, "all": one, "with_payload": other} for text, one, other in lines],
    )


def _ceilings(audit: Audit) -> Table:
    rows, splits = audit.ceilings, [row.split for row in audit.splits if not row.impossible]
    cells = [
        (_label(row), _number(row.all), _number(row.with_payload), *(_number(row.test[split]) for split in splits))
        for row in rows
    ]
    return Table(
        title=_title(audit, "ceilings, the best accuracy that any classifier can have on what a method sees", True),
        head=("method", "all samples", "with payload", *(f"{split}: test part" for split in splits)),
        rows=cells,
        notes=[f"{_label(row)}: {row.reason}" for row in rows if row.reason],
        records=plain(rows),
        empty="no ceilings: name methods with --method, or run some",
    )


def _splits(audit: Audit) -> Table:
    possible = [row for row in audit.splits if not row.impossible]
    parts = ("train", "validation", "test")
    rows = []
    for row in possible:
        shares = [f"{row.shared[f'test_in_training_{kind}'] / max(row.test, 1):.1%}" for kind in SEEN.values()]
        repeated = ((row.repeated_train, row.train), (row.repeated_test, row.test))
        within = [f"{number / max(size, 1):.1%}" for number, size in repeated]
        rows.append((marked(row.split, _marks(row)), *(str(getattr(row, part)) for part in parts), *shares, *within))
    notes = [
        "window to capture: share of test samples whose window, one over it, one beside it, session, 5-tuple or "
        "capture group is in training",
        "payload, and class: share of test samples whose payload is in training, and under the same class",
        "twice: share of the part's samples whose payload another one of it has",
    ]
    notes += [f"split {row.split}: {row.impossible}" for row in audit.splits if row.impossible]
    return Table(
        title=_title(audit, "what test parts share with training", True),
        head=("split", *parts, *SEEN, "twice in train", "in test"),
        rows=rows,
        notes=notes + meanings(mark for row in possible for mark in _marks(row)),
        records=[row.to_dict() for row in audit.splits],
        empty="no split is possible",
    )


def _scores(audit: Audit) -> Table:
    rows = [_score_cells(row) for row in audit.scores]
    signs = [interval_sign(row.interval_groups) for row in audit.scores if row.status == "done"]
    how = "taken away: from all samples alike, to see what the rest tells; [95 % interval]; abstentions are errors"
    return Table(
        title=_title(audit, "baselines and finished runs, and the gap to the ceiling of their test part", True),
        head=("split", "method", "sees", "taken away", "macro-F1", "accuracy", "ceiling", "gap", "abstained", "status"),
        rows=rows,
        notes=[how, *_notes(audit.scores), *interval_meanings(signs)] if rows else (),
        records=plain(audit.scores),
        empty="no runs of these splits",
    )


def _notes(scores: Sequence[ScoredRun]) -> list[str]:
    """Marks that occur, and whose files nothing vouches for."""
    done = [row for row in scores if row.status == "done"]
    notes = meanings(mark for row in scores for mark in _marks(row))
    return [*notes, *unverified_note(sum(row.unverified for row in done), len(done))]


def _score_cells(row: ScoredRun) -> tuple[str, ...]:
    """A run's line; of one that is not done, why."""
    marks = _marks(row)
    split, label = marked(row.split, marks & {"leaky"}), marked(_label(row), marks - {"leaky"})
    sees = ", ".join(row.sees) or ("nothing" if row.family else "not known")
    head = (split, label, sees, ", ".join(row.without) or "–")
    if row.status != "done":
        return (*head, *("–" for _ in range(5)), f"{row.status}: {row.reason}")
    sign = interval_sign(row.interval_groups)
    values = [[getattr(row, f"{name}{end}") for end in ("", "_low", "_high")] for name in ("macro_f1", "accuracy")]
    scores = [with_interval(value, low, high, sign=sign) for value, low, high in values]
    abstained = int(row.abstentions or 0)
    return (*head, *scores, _number(row.ceiling), _number(row.gap), str(abstained) if abstained else "–", "done")


def _label(row: Ceiling | ScoredRun) -> str:
    """A method with its preset or its parameters, as tables have it; most samples a class are in the title."""
    words = [*parameter_labels(row.method, row.parameters), *filter(None, [row.origin])]
    return row.method + (f" ({', '.join(words)})" if words else "")


def _number(value: float | None) -> str:
    return "–" if value is None else str(value) if isinstance(value, int) else f"{value:.4f}"


def _marks(row: SplitAudit | ScoredRun) -> set[str]:
    """Keys of `MARKS` that hold for a line of splits or of scores."""
    if isinstance(row, SplitAudit):
        holds = {"leaky": row.leaky, "reduced": row.reduced}
    else:
        holds = {"leaky": row.leaky, "reduced": row.scale != "full", "reconstructed": row.reconstructed}
    return {mark for mark in MARKS if holds.get(mark)}
