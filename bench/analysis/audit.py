"""What a data set gives away: copies, identical inputs with different labels, shortcuts, and what splits share.

All of it holds before any deep method is trained.  Identical inputs with different labels set a ceiling: the best
accuracy that any classifier can have on them, since it must answer alike.  It depends on what a method reads.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.analysis.audit_record import METRICS, Audit, Ceiling, ScoredRun, SetUpScore, SplitAudit
from bench.analysis.capture_setup import ClassSetUp, differences, set_up_by_class
from bench.analysis.data_quality import (
    Pool,
    audit_split,
    ceiling,
    class_counts,
    equal_input_keys,
    find_duplicates,
    groups_of_several_classes,
    payload_kinds,
)
from bench.analysis.setup_features import set_up_scores, setup_features, told
from bench.data.store import Store
from bench.errors import InputError, instead
from bench.files import write_json
from bench.matrix.cells import run_matrix
from bench.method import make_parameters, reason_to_skip
from bench.readers import View
from bench.render.table import one_line
from bench.runs import registry
from bench.runs.execute import RunOptions
from bench.runs.models import method_of
from bench.runs.plan import expand
from bench.runs.run_labels import is_reconstructed, origin_of, parameter_labels
from bench.schema import asked_in_drawn_order
from bench.spec import SCHEMES, RunSpec, Settings, SplitSpec, named_seed
from bench.splits.split import Split, make_split
from bench.tracking.record import AUDIT, Record
from bench.tracking.tracker import Tracker

UNKNOWN: Final = ("unknown-method", "unnamed-code", "other-code")  # why nothing is known of a run's method
ENDED_STATUSES: Final = ("done", "failed", "skipped")  # runs that the audit tells of
SCHEMES_OF_AUDITS: Final = tuple(
    scheme for scheme in SCHEMES if scheme not in ("auto", "file")
)  # splits that it can make
Progress = Callable[[str], None]
Tests = Mapping[str, NDArray[np.int64]]  # split -> rows of its test part in the pool


@dataclass(frozen=True)
class AuditRequest:
    """What is asked of an audit.  Raises :class:`InputError` for what no audit can be."""

    schemes: tuple[str, ...] = ("session", "capture", "paper")
    methods: tuple[str, ...] = ()  # whose ceilings are told with default parameters, beside those of finished runs
    run_baselines: bool = True  # run the baselines on every split first
    seed: int = 0
    jobs: int = 1  # baselines that run at once
    options: Mapping[str, Any] = field(default_factory=dict)  # of `SplitSpec`: filter, sampling, balance, class sizes

    def __post_init__(self) -> None:
        for scheme in self.schemes:
            kind, colon, name = scheme.partition(":")
            if kind not in SCHEMES_OF_AUDITS or (kind == "attribute") != bool(colon and name):
                known = ["attribute:NAME" if one == "attribute" else one for one in SCHEMES_OF_AUDITS]
                raise InputError("unknown-split", f"split {scheme!r} cannot be audited; {instead(scheme, known)}")
            self.split(scheme)
        for method in self.methods:
            registry.describe(method)

    def split(self, scheme: str = "session") -> SplitSpec:
        """The split of a scheme under the options."""
        return SplitSpec(scheme, seed=self.seed, **self.options)


def audit_dataset(
    store: Store,
    task: str,
    tracker: Tracker,
    request: AuditRequest = AuditRequest(),
    progress: Progress = lambda line: None,
) -> Audit:
    """Find everything.  Raises :class:`InputError`, also where no split is possible.

    A run is one of a split if it agrees in the specification and the store, and is no fold.  ``progress`` also hears,
    as warnings, what the capture set-up tells of the classes.
    """
    plain = request.split()
    pool = Pool.of(store, task, plain)
    set_up = set_up_by_class(store, task)
    features = setup_features(store, pool.samples.session)
    splits, tests, runs, set_up_told = [], {}, [], []
    for scheme in request.schemes:
        progress(f"split {scheme}")
        try:
            split = make_split(store, task, request.split(scheme))
        except InputError as error:
            splits.append(SplitAudit(scheme, str(error)))
            continue
        splits.append(audit_split(pool, split))
        tests[scheme] = pool.rows(split.test)
        if request.run_baselines:
            run_baselines(store, task, split.spec, tracker, progress, request.jobs)
        found = runs_of(split, tracker)
        set_up_told += set_up_scores(pool, split, features, best_of(found))
        runs += found
    if splits and not tests:
        raise InputError("split-impossible", f"no split to audit: {splits[0].impossible}")
    ceilings = ceilings_of(pool, tests, request.methods, runs, progress)
    _warn(store, set_up, set_up_told, progress)
    keys, labels, full = pool.payload_keys, pool.labels, pool.has_payload
    return Audit(
        dataset=store.name,
        task=task,
        store=store.digest,
        seed=request.seed,
        filter=plain.filter,
        sampling=plain.sampling,
        balance=request.options.get("balance"),
        min_per_class=plain.min_per_class,
        min_groups=plain.min_groups,
        max_per_class=plain.max_per_class,
        samples=len(pool.samples),
        classes=class_counts(pool),
        of_several_classes=groups_of_several_classes(pool),
        capture_set_up=set_up,
        silent_captures=sum(not capture.sessions for capture in store.manifest.captures),
        compared=pool.compared,
        content=payload_kinds(store, np.unique(pool.samples.session)),
        duplicates=[find_duplicates(keys, labels), find_duplicates(keys[full], labels[full], "with payload")],
        ceilings=list(ceilings.values()),
        splits=splits,
        set_up_scores=set_up_told,
        scores=[scored(run, ceilings.get(_key(run.spec)), request.methods) for run in runs],
    )


def _warn(store: Store, set_up: Sequence[ClassSetUp], scores: Sequence[SetUpScore], progress: Progress) -> None:
    """Tell what the capture set-up gives away of the classes."""
    lines = [f"the capture set-up differs by class: {line}" for line in differences(set_up)]
    for line in (*lines, *told(scores)):
        progress(one_line(f"WARNING: {store.name}: {line}"))


def baselines() -> list[tuple[str, Mapping[str, Any]]]:
    """Baseline methods with their parameters: as they are, and with one thing taken away (their presets)."""
    outlines, _ = registry.seen(registry.describe)  # a plug-in that is broken is no baseline
    return [
        (name, values)
        for name, outline in outlines.items()
        if outline.family == "baseline"
        for values in ({}, *(v for preset, v in outline.presets.items() if preset != "shared"))
    ]


def run_baselines(
    store: Store, task: str, split: SplitSpec, tracker: Tracker, progress: Progress, jobs: int = 1
) -> None:
    """Run the baselines on a split, ``jobs`` at once; finished runs are not run again."""
    specs: list[RunSpec] = []
    for method, values in baselines():
        specs += expand([method], [store], split, task=task, seeds=[split.seed], settings=Settings(values=values))
    for outcome in run_matrix(specs, tracker, RunOptions(jobs=jobs, purpose=AUDIT)):
        words = [f"{name}={value}" for name, value in outcome.spec.parameters.items()]
        why = f": {outcome.reason}" if outcome.reason else ""
        progress(f"split {split.scheme}: {' '.join([outcome.spec.method, *words])}: {outcome.status}{why}")


def runs_of(split: Split, tracker: Tracker) -> list[Record]:
    """Every run of this very split that ended, the best first."""
    records = tracker.search(dataset=split.dataset, task=split.task, split=split.spec.scheme, seed=split.spec.seed)
    same = [
        r for r in records if r.spec.store == split.store and r.spec.split == split.spec and r.status in ENDED_STATUSES
    ]
    return sorted(same, key=lambda record: -record.metrics.get("macro_f1", -1))


def best_of(runs: Sequence[Record]) -> tuple[str, float] | None:
    """Method, with its preset or parameters, and macro-F1 of the best of a split's runs that are done; or None."""
    done = [run for run in runs if run.status == "done" and "macro_f1" in run.metrics]
    best = max(done, key=lambda run: run.metrics["macro_f1"], default=None)
    if best is None:
        return None
    words = parameter_labels(best.spec.method, best.spec.parameters)
    return best.spec.method + (f" ({', '.join(words)})" if words else ""), best.metrics["macro_f1"]


def ceilings_of(
    pool: Pool, tests: Tests, methods: Sequence[str], runs: Sequence[Record], progress: Progress
) -> dict[str, Ceiling]:
    """Ceilings of methods as they are and of what is done, by `_key`; each is represented once."""
    wanted = [_as_it_is(name, pool) for name in methods] + [run.spec for run in runs if run.status == "done"]
    origins = {_key(run.spec): origin_of(run) for run in runs}
    ceilings: dict[str, Ceiling] = {}
    for spec in wanted:
        if (key := _key(spec)) not in ceilings:
            progress(f"ceiling of {key}")
            origin = origins[key] if key in origins else registry.origin(spec.method)
            ceilings[key] = dataclasses.replace(ceiling_of(pool, tests, spec, methods), origin=origin)
    return ceilings


def _as_it_is(method: str, pool: Pool) -> RunSpec:
    """A method with its default parameters, as a run would name it."""
    source = None if registry.is_shipped(method) else registry.digest_of(method)
    return RunSpec(method, pool.store.name, pool.task, source=source)


def _key(spec: RunSpec) -> str:
    """A method with parameters and, where it is not shipped, the digest of its code, in one spelling."""
    words = [f"{name}={value}" for name, value in sorted(spec.parameters.items())]
    return " ".join([spec.method, *words, *([f"source={spec.source}"] if spec.source else [])])


def ceiling_of(pool: Pool, tests: Tests, spec: RunSpec, named: Sequence[str] = ()) -> Ceiling:
    """The ceilings of a method's representation of all samples, of those with payload, and of the test parts.

    Of a method in a file only where the user ``named`` that file.
    """
    method, parameters = spec.method, spec.parameters
    preset = seen_by(spec, named)["preset"]
    try:
        kind = registry.load(method_of(spec, named))
        made = make_parameters(kind, parameters)
        if reason := reason_to_skip(kind, made, pool.store):
            return Ceiling(method, dict(parameters), reason, preset, test=dict.fromkeys(tests))
        new = kind(made, classes=1)
        keys = asked_in_drawn_order(
            pool.samples,
            named_seed(pool.store.digest, "order"),
            lambda some: equal_input_keys(new.represent(View(pool.store, some, kind.reads))),
        )
    except InputError as error:  # a method of somebody's that is not here any more, a package that is not
        return Ceiling(method, dict(parameters), str(error), preset, test=dict.fromkeys(tests))
    full = pool.has_payload
    return Ceiling(
        method=method,
        parameters=dict(parameters),
        preset=preset,
        all=ceiling(keys, pool.labels),
        with_payload=ceiling(keys[full], pool.labels[full]),
        test={name: ceiling(keys[rows], pool.labels[rows]) for name, rows in tests.items()},
    )


def scored(run: Record, best: Ceiling | None, named: Sequence[str] = ()) -> ScoredRun:
    """What a run saw, what became of it, and how far it is from the ceiling of its test part."""
    spec = run.spec
    known = {name: getattr(run, name) for name in ("status", "reason", "run_id", "scale", "leaky")}
    known |= {"reconstructed": is_reconstructed(run.deviations), **seen_by(spec, named)}
    known |= {"origin": origin_of(run), "unverified": run.status == "done" and not run.verifiable}
    if run.status == "done":
        names = [
            *(f"{name}{end}" for name in METRICS for end in ("", "_low", "_high")),
            "interval_groups",
            "abstentions",
        ]
        known |= {name: run.metrics[name] for name in names if name in run.metrics}
        limit = best.test[spec.split.scheme] if best else None
        known |= {"ceiling": limit, "gap": None if limit is None else limit - run.metrics["accuracy"]}
    return ScoredRun(spec.split.scheme, spec.method, dict(spec.parameters), **known)


def seen_by(spec: RunSpec, named: Sequence[str] = ()) -> dict[str, Any]:
    """The preset that parameters are, the method's family, what it sees, and what is taken away.

    A preset ``no-lengths`` takes lengths away; a baseline that opens no packet goes without payload.  Nothing is known
    of a method that is not here any more, and of a file that the user has not ``named``.
    """
    try:
        outline = registry.describe(method_of(spec, named))
    except InputError as error:
        if error.code not in UNKNOWN:
            raise
        return {"preset": "", "family": "", "sees": [], "without": []}
    parameters = spec.parameters
    values = outline.defaults | dict(parameters)
    alike = [name for name, changes in outline.presets.items() if outline.defaults | dict(changes) == values]
    preset = alike[0] if alike and parameters else ""
    away = [preset.removeprefix("no-").replace("-", " ")] if preset.startswith("no-") else []
    if outline.family == "baseline" and outline.reads and not outline.reads & {"payload", "ip_bytes"}:
        away.insert(0, "payload")
    return {"preset": preset, "family": outline.family, "sees": sorted(outline.reads - set(away)), "without": away}


def _is_of_others(path: Path, head: Sequence[str]) -> bool:
    """Whether another data set and task have an audit there."""
    try:
        return path.is_file() and Audit.load(path).labels[:2] != head
    except InputError:  # damaged: it is written anew
        return False


def save(record: Audit, results: Path) -> Path:
    """Write an audit, over what was found before under the same options but splits and methods.

    The file's name has those that are not as usual.  Raises :class:`InputError` where it cannot be written.
    """
    head = record.labels[:2]
    asked = [re.sub(r"[^\w.,=+-]+", "_", word) for word in record.labels[2:]]
    path = results / "audits" / f"{'-'.join([*head, *asked])}.json"
    if _is_of_others(path, head):  # a-b of c, and a of b-c
        path = path.with_name(f"{'-'.join([','.join(head), *asked])}.json")
    write_json(path, record.to_dict())
    return path
