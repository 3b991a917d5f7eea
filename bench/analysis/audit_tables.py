"""What an audit found, as tables for people and programs."""

from collections.abc import Sequence
from typing import Any

from bench.analysis.audit_record import Audit, Ceiling, ScoredRun, SetUpScore, SplitAudit
from bench.analysis.capture_setup import differences, set_up_table
from bench.analysis.data_quality import FEW_GROUPS, PAYLOAD, SEEN
from bench.analysis.setup_features import ALL, FEATURES, REACH
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
    """An audit as tables: classes, capture set-up, content and duplicates, ceilings, splits, scores."""
    tables = (_classes, _set_up, _content, _ceilings, _splits, _set_up_scores, _scores)
    return [table(audit) for table in tables]


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


def _set_up(audit: Audit) -> Table:
    head, *rows = set_up_table(audit.capture_set_up) or [("class",)]
    notes = [f"differs by class: {line}" for line in differences(audit.capture_set_up)]
    notes += ["of all sessions of the task; a capture with several classes counts in full for each"]
    notes += [f"captures without a session, which count for no class: {audit.silent_captures}"] * bool(
        audit.silent_captures
    )
    return Table(
        title=_title(audit, "capture set-up by class"),
        head=head,
        rows=rows,
        notes=notes if rows else (),
        records=plain(audit.capture_set_up),
        empty="capture set-up: the version that made this audit did not look at it",
    )


def _content(audit: Audit) -> Table:
    names = {"empty": "none", "tls": "a TLS record", "text": "readable text", "other": "anything else"}
    whole, full = audit.duplicates
    lines: list[tuple[str, Any, Any]] = [
        (f"share of sessions whose first payload bytes are {names[kind]}", share, None)
        for kind, share in audit.content.items()
    ]
    what = audit.compared
    shares = {
        "repeated": f"share of samples whose {what} equal{'s' * (what == 'payload')} another's",
        "of_several_classes": f"share of samples whose {what} equal{'s' * (what == 'payload')} one's of another class",
        "ceiling": f"best accuracy from {what} alone",
    }
    lines += [(t, getattr(whole, name), getattr(full, name) if full.samples else None) for name, t in shares.items()]
    kinds = {"conversations": "conversations (5-tuples)", "captures": "capture groups"}
    lines += [(f"{kinds[kind]} of several classes", n, None) for kind, n in audit.of_several_classes.items()]
    return Table(
        title=_title(audit, "content and duplicates"),
        head=("", f"all {whole.samples} samples", f"{full.samples} with payload"),
        rows=[(text, _number(one), _number(other)) for text, one, other in lines],
        notes=[_of_what(audit)],
        records=[{"finding": text, "all": one, "with_payload": other} for text, one, other in lines],
    )


def _of_what(audit: Audit) -> str:
    """A note on what copies are equal in."""
    if audit.compared == "payload":
        return f"payload: the first {PAYLOAD[1]} bytes of the first {PAYLOAD[0]} packets that have any"
    return f"the data set holds no payload: {audit.compared} of the first {PAYLOAD[0]} packets are compared instead"


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
        known = [row.shared.get(f"test_in_training_{kind}") for kind in SEEN.values()]
        shares = ["–" if number is None else f"{number / max(row.test, 1):.1%}" for number in known]
        repeated = ((row.repeated_train, row.train), (row.repeated_test, row.test))
        within = [f"{number / max(size, 1):.1%}" for number, size in repeated]
        rows.append((marked(row.split, _marks(row)), *(str(getattr(row, part)) for part in parts), *shares, *within))
    notes = [
        "window to capture: share of test samples whose window, one over it, one beside it, session, 5-tuple or "
        "capture group is in training",
        "payload, and class: share of test samples whose payload is in training, and under the same class",
        "QUIC ID, QUIC on, twin: share of test samples that may be the other half of a training session's connection "
        "under another 5-tuple (one connection ID, a session that goes on at its server, equal payload); –: not looked "
        "at",
        "twice: share of samples whose payload another sample of the same part has",
        *([_of_what(audit)] if audit.compared != "payload" else ()),
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
    how = "taken away: from all samples alike, to see what the rest reveals; [95 % interval]; abstentions are errors"
    return Table(
        title=_title(audit, "baselines and finished runs, and the gap to the ceiling of their test part", True),
        head=("split", "method", "sees", "taken away", "macro-F1", "accuracy", "ceiling", "gap", "abstained", "status"),
        rows=rows,
        notes=[how, *_notes(audit.scores), *interval_meanings(signs)] if rows else (),
        records=plain(audit.scores),
        empty="no runs of these splits",
    )


def _set_up_scores(audit: Audit) -> Table:
    """Of each split what the set-up scores, the best first; what is the same in all of training is a note."""
    rows, notes = [], []
    for split in dict.fromkeys(row.split for row in audit.set_up_scores):
        here = [row for row in audit.set_up_scores if row.split == split]
        varied = [row for row in here if row.values > 1]
        rows += [_set_up_cells(row) for row in sorted(varied, key=lambda row: (row.feature != ALL, -row.macro_f1))]
        rows += [(split, "chance", "–", f"{here[0].chance_macro_f1:.3f}", f"{here[0].chance_accuracy:.3f}", "–", "–")]
        alike = [row.feature for row in here if row.values <= 1 and row.feature != ALL]
        notes += [f"split {split}, the same in all training samples: {', '.join(alike)}"] if alike else []
        best = "no run yet, 1 instead" if here[0].best is None else f"{here[0].best_method} {here[0].best:.3f}"
        notes += [f"split {split}, macro-F1 of the best run: {best}"]
    how = [
        "each feature alone, by a decision tree; all together by a forest; fitted to training, scored on the test part",
        "chance: training's most frequent class; macro-F1 also of guessing by frequency, 1 / classes",
        f"of the way: from chance to the best run, in macro-F1; !: over {REACH:.0%}, it may be what methods learn",
    ]
    shown = {row.feature for row in audit.set_up_scores if row.values > 1} - {ALL}
    how += [f"{name}: {meaning}" for name, meaning in FEATURES.items() if name in shown]
    return Table(
        title=_title(audit, "what the capture set-up alone reveals, without any traffic", True),
        head=("split", "feature", "values", "macro-F1", "accuracy", "of the way", "class told best"),
        rows=rows,
        notes=[*how, *notes] if rows else (),
        records=[plain(row) | {"reach": row.reach} for row in audit.set_up_scores],
        empty="scores of the capture set-up: the version that made this audit did not compute them",
    )


def _set_up_cells(row: SetUpScore) -> tuple[str, ...]:
    name, f1 = max(row.f1.items(), key=lambda item: item[1])
    way = f"{max(row.reach, 0):.0%}" + (" !" if row.reach > REACH else "")
    best = f"{name} ({f1:.3f})" if f1 else "–"
    return (row.split, row.feature, str(row.values), f"{row.macro_f1:.3f}", f"{row.accuracy:.3f}", way, best)


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
