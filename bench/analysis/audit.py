"""What a data set gives away: copies, identical inputs with different labels, shortcuts, and what splits share.

All of it holds before any deep method is trained.  Identical inputs with different labels set a ceiling: the best
accuracy that any classifier can have on them, since it must answer alike.  It depends on what a method reads.
"""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.analysis.data_quality import FEW_GROUPS, PAYLOAD, SEEN, Pool, ceiling, content_keys, contents, split_row
from bench.data.store import Store
from bench.errors import InputError
from bench.method import make_parameters
from bench.readers import View
from bench.render.table import Sheet, render
from bench.runs.execute import LATER, expand, registry, run_matrix
from bench.runs.run_labels import MARKS, marked, meanings, method_words, reconstructed, with_interval
from bench.runs.tracking import Record, Tracker
from bench.splits.filters import parse_filter
from bench.splits.sampling import parse_sampling
from bench.splits.split import SCHEMES, Split, balance_of, make_split

ENDED: Final = ("done", "failed", "skipped")  # runs that the audit tells of
SCORES: Final = tuple(f"{name}{end}" for name in ("accuracy", "macro_f1") for end in ("", "_low", "_high"))
OFFERED: Final = tuple(scheme for scheme in SCHEMES if scheme != "file")  # splits that it can make
Progress = Callable[[str], None]


def audit(
    store: Store,
    task: str,
    tracker: Tracker,
    *,
    schemes: Sequence[str] = ("session", "capture", "paper"),
    methods: Sequence[str] = (),
    run_floor: bool = True,
    seed: int = 0,
    progress: Progress = lambda line: None,
    **options: Any,
) -> dict[str, Any]:
    """Every finding as JSON types; :func:`audit_sheets` makes tables of it.  Raises :class:`InputError`, also where
    no split is possible.

    Ceilings are told of ``methods``, with default parameters, and of finished runs; ``run_floor`` runs the methods of
    the floor on every split first.  ``options`` of `make_split`: ``filter``, ``sampling``, ``balance``,
    ``max_per_class``, ``min_per_class``.  A run is one of a split if it agrees in them, seed and store, and is no fold.
    Keys besides what was asked; those with "one a" hold lists of mappings:

    ``samples`` that filter and sampling leave; the next five keys are about these, before any split
    ``classes``: one a ``class``: ``samples``, ``sessions``, ``conversations``, ``captures`` (groups), ``few`` of these
    ``of_several_classes``: how many ``conversations`` and ``captures`` have sessions of several classes
    ``content``: shares of sessions by their first payload bytes: ``empty``, ``tls``, ``text``, ``other``
    ``duplicates``: one a set ``of`` samples ("all", "with payload"): ``samples``, shares that are ``repeated`` (payload
    equals another's) and ``of_several_classes`` (one's of another class), ``ceiling`` from payload alone
    ``ceilings``: one a ``method`` and ``parameters`` (``preset``: that these are, or ""): best accuracy on ``all``
    samples, on those ``with_payload``, on each split's ``test`` part (a mapping); null where none, with a ``reason``
    ``splits``: one a ``split``: only ``impossible`` (why), or that empty and ``train``, ``validation``, ``test``
    (samples), ``leaky``, ``reduced``, ``proof``, ``repeated_train``, ``repeated_test`` (equal payload within), and
    ``test_in_training_...``: test samples whose sessions, conversations, neighbours, payload ... training holds
    ``scores``: one a run: ``split``, ``method``, ``parameters``, ``preset``, ``family``, ``sees``, ``without`` (what is
    taken away), ``status`` (`ENDED`), ``reason``, ``run_id``, ``scale``, ``leaky``, ``reconstructed``; of those done
    `SCORES`, ``abstentions``, ``ceiling`` of the test part and ``gap`` to it
    """
    asked = _asked(schemes, methods, options)
    pool = Pool.of(store, task, asked["filter"], asked["sampling"])
    splits, tests, runs = [], {}, []
    for scheme in schemes:
        progress(f"split {scheme}")
        try:
            split = make_split(store, task, scheme, seed=seed, **asked)
        except InputError as error:
            splits.append({"split": scheme, "impossible": str(error)})
            continue
        splits.append(split_row(pool, split))
        tests[scheme] = pool.rows(split.test)
        if run_floor:
            floor(store, split, asked, tracker, progress)
        runs += runs_of(split, tracker)
    if splits and not tests:
        raise InputError(f"no split to audit: {splits[0]['impossible']}")
    ceilings = ceilings_of(pool, tests, methods, runs, progress)
    head = {"dataset": store.name, "task": task, "store": store.digest, "seed": seed, **asked, **contents(pool)}
    scores = [score_row(run, ceilings.get(_key(**run.spec))) for run in runs]
    return head | {"ceilings": list(ceilings.values()), "splits": splits, "scores": scores}


def _asked(schemes: Sequence[str], methods: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options in their one spelling, those not given as ever; bad ones are refused before any work."""
    asked = {**LATER, "max_per_class": None, **options}
    asked |= {"filter": parse_filter(asked["filter"]), "sampling": str(parse_sampling(asked["sampling"]))}
    for scheme in schemes:
        kind, colon, name = scheme.partition(":")
        if kind not in OFFERED or (kind == "attribute") != bool(colon and name):
            known = ", ".join("attribute:NAME" if one == "attribute" else one for one in OFFERED)
            raise InputError(f"split {scheme!r} cannot be audited; these can: {known}")
        balance_of(scheme, asked["balance"])
    for method in methods:
        registry.describe(method)
    return asked


def floor_methods() -> list[tuple[str, Mapping[str, Any]]]:
    """Methods of the floor with their parameters: as they are, and with one thing taken away (their presets)."""
    outlines = [registry.describe(name) for name in registry.names()]
    return [
        (outline.name, values)
        for outline in outlines
        if outline.family == "floor"
        for values in ({}, *(v for preset, v in outline.presets.items() if preset != "shared"))
    ]


def floor(store: Store, split: Split, asked: Mapping[str, Any], tracker: Tracker, progress: Progress) -> None:
    """Run the methods of the floor on a split that was ``asked`` for so; finished runs are not run again."""
    for method, values in floor_methods():
        progress(f"split {split.scheme}: {method} {' '.join(f'{k}={v}' for k, v in values.items())}".rstrip())
        place: dict[str, Any] = {"task": split.task, "split": split.scheme, "seeds": [split.seed]}
        for outcome in run_matrix(expand([method], [store], values=values, **place, **asked), tracker):
            if outcome.status not in ("done", "cached"):
                progress(f"  {outcome.status}: {outcome.reason}")


def runs_of(split: Split, tracker: Tracker) -> list[Record]:
    """Every run of this very split that ended, the best first."""
    found = []
    for record in tracker.search(dataset=split.dataset, task=split.task, split=split.scheme, seed=split.seed):
        spec = {**LATER, **record.spec}
        spec["balance"] = balance_of(split.scheme, spec["balance"])
        same = all(spec[name] == getattr(split, name) for name in ("store", "fold", "max_per_class", *LATER))
        if same and record.status in ENDED:
            found.append(record)
    return sorted(found, key=lambda record: -record.metrics.get("macro_f1", -1))


def ceilings_of(
    pool: Pool,
    tests: Mapping[str, NDArray[np.int64]],
    methods: Sequence[str],
    runs: Sequence[Record],
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """Ceilings of methods as they are and of what is done, by method and parameters; each is represented once."""
    wanted: list[Mapping[str, Any]] = [{"method": name, "parameters": {}} for name in methods]
    wanted += [run.spec for run in runs if run.status == "done"]
    found: dict[str, dict[str, Any]] = {}
    for spec in wanted:
        if (key := _key(**spec)) not in found:
            progress(f"ceiling of {key}")
            found[key] = ceiling_row(pool, tests, spec["method"], spec["parameters"])
    return found


def _key(method: str, parameters: Mapping[str, Any], **other: Any) -> str:
    """A method with parameters, in one spelling."""
    return " ".join([method, *(f"{name}={value}" for name, value in sorted(parameters.items()))])


def ceiling_row(
    pool: Pool, tests: Mapping[str, NDArray[np.int64]], method: str, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """The ceilings of a method's representation of all samples, of those with payload, and of the test parts."""
    row: dict[str, Any] = {"method": method, "parameters": dict(parameters), "reason": ""}
    row["preset"] = _seen(method, parameters)["preset"]
    row |= {"all": None, "with_payload": None, "test": dict.fromkeys(tests)}
    try:
        kind = registry.load(method)
        if reason := kind.skip(pool.store.manifest):
            return row | {"reason": reason}
        made = kind(make_parameters(kind, parameters), classes=1)
        keys = content_keys(made.represent(View(pool.store, pool.samples, kind.reads)))
    except InputError as error:  # a method of somebody's that is not here any more, a package that is not
        return row | {"reason": str(error)}
    full = pool.has_payload
    whole = {"all": ceiling(keys, pool.labels), "with_payload": ceiling(keys[full], pool.labels[full])}
    return row | whole | {"test": {name: ceiling(keys[rows], pool.labels[rows]) for name, rows in tests.items()}}


def score_row(run: Record, ceilings: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a run saw, what became of it, and how far it is from the ceiling of its test part."""
    row = {name: run.spec[name] for name in ("split", "method", "parameters")} | _seen(**run.spec)
    row |= {"status": run.status, "reason": run.reason, "run_id": run.run_id, "scale": run.scale, "leaky": run.leaky}
    row["reconstructed"] = reconstructed(run.deviations)
    if run.status != "done":
        return row
    row |= {name: run.metrics[name] for name in (*SCORES, "abstentions") if name in run.metrics}
    best = ceilings["test"][run.spec["split"]] if ceilings else None
    return row | {"ceiling": best, "gap": None if best is None else best - run.metrics["accuracy"]}


def _seen(method: str, parameters: Mapping[str, Any], **other: Any) -> dict[str, Any]:
    """The preset that parameters are, the method's family, what it sees, and what is taken away.

    A preset ``no-lengths`` takes lengths away; a method of the floor that opens no packet goes without payload.
    """
    try:
        outline = registry.describe(method)
    except InputError:  # not here any more
        return {"preset": "", "family": "", "sees": [], "without": []}
    values = outline.defaults | dict(parameters)
    alike = [name for name, changes in outline.presets.items() if outline.defaults | dict(changes) == values]
    preset = alike[0] if alike and parameters else ""
    away = [preset.removeprefix("no-").replace("-", " ")] if preset.startswith("no-") else []
    if outline.family == "floor" and outline.reads and not outline.reads & {"payload", "ip_bytes"}:
        away.insert(0, "payload")
    return {"preset": preset, "family": outline.family, "sees": sorted(outline.reads - set(away)), "without": away}


def save(found: Mapping[str, Any], results: Path) -> Path:
    """Write what :func:`audit` found, over what it found before under the same options but splits and methods.

    The file's name has those that are not as ever.  Raises :class:`InputError` where it cannot be written.
    """
    asked = [re.sub(r"[^\w.,=+-]+", "_", word) for word in (*_options(found), *_seed(found))]
    path = results / "audits" / f"{'-'.join([found['dataset'], found['task'], *asked])}.json"
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(found, indent=1) + "\n")
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error.strerror}); give another folder as --results") from None
    return path


def audit_text(found: Mapping[str, Any]) -> str:
    """The findings for people: all sheets."""
    return "\n\n".join(render(sheet) for sheet in audit_sheets(found))


def audit_sheets(found: Mapping[str, Any]) -> list[Sheet]:
    """What :func:`audit` found as tables: classes, content and duplicates, ceilings, splits, scores."""
    made = (_classes_sheet, _content_sheet, _ceilings_sheet, _splits_sheet, _scores_sheet)
    return [sheet(found) for sheet in made]


def _title(found: Mapping[str, Any], what: str, split: bool = False) -> str:
    """What it is of: data set, task and the options that are not as ever; those of splits and the seed if ``split``."""
    words = [*_options(found, split), *([f"seed {found['seed']}"] if split else [])]
    return " · ".join([f"{found['dataset']}, task {found['task']}: {what}", *words])


def heading(found: Mapping[str, Any]) -> str:
    """What an audit is of, in one line: two of one name are one audit."""
    return " · ".join([found["dataset"], found["task"], *_options(found), *_seed(found)])


def _options(found: Mapping[str, Any], split: bool = True) -> list[str]:
    """The options that are not as ever, one word each; those of splits, too, if ``split``."""
    names = ("filter", *(("balance", "min_per_class", "max_per_class") if split else ()))
    words = [f"{name}={found[name]}" for name in names if found[name] != LATER.get(name)]
    return [*([found["sampling"]] if found["sampling"] != LATER["sampling"] else []), *words]


def _seed(found: Mapping[str, Any]) -> list[str]:
    return [f"seed={found['seed']}"] if found["seed"] else []


def _classes_sheet(found: Mapping[str, Any]) -> Sheet:
    kinds = ("samples", "sessions", "conversations", "captures")
    few = [row["class"] for row in found["classes"] if row["few"]]
    notes = [f"fewer than {FEW_GROUPS} capture groups: {', '.join(few)}"] if few else []
    return Sheet(
        title=_title(found, "classes"),
        head=("class", "samples", "sessions", "conversations", "capture groups"),
        rows=[(row["class"], *(str(row[kind]) for kind in kinds)) for row in found["classes"]],
        notes=notes,
        records=found["classes"],
    )


def _content_sheet(found: Mapping[str, Any]) -> Sheet:
    names = {"empty": "none", "tls": "a TLS record", "text": "readable text", "other": "anything else"}
    whole, full = found["duplicates"]
    lines: list[tuple[str, Any, Any]] = [
        (f"share of sessions whose first payload bytes are {names[kind]}", share, None)
        for kind, share in found["content"].items()
    ]
    told = {
        "repeated": "share of samples whose payload equals another's",
        "of_several_classes": "share of samples whose payload equals one's of another class",
        "ceiling": "best accuracy from payload alone",
    }
    lines += [(text, whole[name], full[name] if full["samples"] else None) for name, text in told.items()]
    kinds = {"conversations": "conversations (5-tuples)", "captures": "capture groups"}
    lines += [(f"{kinds[kind]} of several classes", n, None) for kind, n in found["of_several_classes"].items()]
    return Sheet(
        title=_title(found, "content and duplicates"),
        head=("", f"all {whole['samples']} samples", f"{full['samples']} with payload"),
        rows=[(text, _number(one), _number(other)) for text, one, other in lines],
        notes=[f"payload: the first {PAYLOAD[1]} bytes of the first {PAYLOAD[0]} packets that have any"],
        records=[{"finding": text, "all": one, "with_payload": other} for text, one, other in lines],
    )


def _ceilings_sheet(found: Mapping[str, Any]) -> Sheet:
    rows, splits = found["ceilings"], [row["split"] for row in found["splits"] if not row["impossible"]]
    cells = [
        (_label(row), _number(row["all"]), _number(row["with_payload"]),
         *(_number(row["test"][split]) for split in splits))
        for row in rows
    ]  # fmt: skip
    return Sheet(
        title=_title(found, "ceilings, the best accuracy that any classifier can have on what a method sees", True),
        head=("method", "all samples", "with payload", *(f"{split}: test part" for split in splits)),
        rows=cells,
        notes=[f"{_label(row)}: {row['reason']}" for row in rows if row["reason"]],
        records=rows,
        empty="no ceilings: name methods with --method, or run some",
    )


def _splits_sheet(found: Mapping[str, Any]) -> Sheet:
    made = [row for row in found["splits"] if not row["impossible"]]
    parts = ("train", "validation", "test")
    rows = []
    for row in made:
        shares = [f"{row[f'test_in_training_{kind}'] / max(row['test'], 1):.1%}" for kind in SEEN.values()]
        within = [f"{row[f'repeated_{part}'] / max(row[part], 1):.1%}" for part in ("train", "test")]
        rows.append((marked(row["split"], _marks(row)), *(str(row[part]) for part in parts), *shares, *within))
    notes = [
        "window to capture: share of test samples whose window, one over it, one beside it, session, 5-tuple or "
        "capture group is in training",
        "payload, and class: share of test samples whose payload is in training, and under the same class",
        "twice: share of the part's samples whose payload another one of it has",
    ]
    notes += [f"split {row['split']}: {row['impossible']}" for row in found["splits"] if row["impossible"]]
    return Sheet(
        title=_title(found, "what test parts share with training", True),
        head=("split", *parts, *SEEN, "twice in train", "in test"),
        rows=rows,
        notes=notes + meanings(mark for row in made for mark in _marks(row)),
        records=found["splits"],
        empty="no split is possible",
    )


def _scores_sheet(found: Mapping[str, Any]) -> Sheet:
    rows = [_score_cells(row) for row in found["scores"]]
    told = "taken away: from all samples alike, to see what the rest tells; [95 % interval]; abstentions are errors"
    return Sheet(
        title=_title(found, "the floor and finished runs, and the gap to the ceiling of their test part", True),
        head=("split", "method", "sees", "taken away", "macro-F1", "accuracy", "ceiling", "gap", "abstained", "status"),
        rows=rows,
        notes=[told, *meanings(mark for row in found["scores"] for mark in _marks(row))] if rows else (),
        records=found["scores"],
        empty="no runs of these splits",
    )


def _score_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A run's line; of one that is not done, why."""
    marks = _marks(row)
    split, label = marked(row["split"], marks & {"leaky"}), marked(_label(row), marks - {"leaky"})
    head = (split, label, ", ".join(row["sees"]) or "nothing",
            ", ".join(row["without"]) or "–")  # fmt: skip
    if row["status"] != "done":
        return (*head, *("–" for _ in range(5)), f"{row['status']}: {row['reason']}")
    scores = [with_interval(row[n], row[f"{n}_low"], row[f"{n}_high"]) for n in ("macro_f1", "accuracy")]
    abstained = int(row.get("abstentions", 0))
    return (*head, *scores, _number(row["ceiling"]), _number(row["gap"]), str(abstained) if abstained else "–", "done")


def _label(row: Mapping[str, Any]) -> str:
    """A method with its preset or its parameters, as tables have it; most samples a class are in the title."""
    return method_words({**row, "split": "", "max_per_class": None})


def _number(value: float | None) -> str:
    return "–" if value is None else str(value) if isinstance(value, int) else f"{value:.4f}"


def _marks(row: Mapping[str, Any]) -> set[str]:
    """Keys of `MARKS` that hold for a line of splits or of scores."""
    reduced = row.get("reduced", row.get("scale", "full") != "full")
    holds = {"leaky": row["leaky"], "reduced": reduced, "reconstructed": row.get("reconstructed", False)}
    return {mark for mark in MARKS if holds[mark]}
