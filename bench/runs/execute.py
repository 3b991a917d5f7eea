"""A run that is remembered: claimed, done once, told as it goes, and what goes wrong is an outcome with a reason.

Nothing here imports a method, torch or scikit-learn before it is known that something has to be computed.
"""

import dataclasses
import json
import math
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Final

from bench.data.store import Store
from bench.environment import code_digest, environment
from bench.errors import InputError
from bench.method import files_of, reason_to_skip
from bench.runs import registry
from bench.runs.attempt import Attempt, AttemptMonitor, attempt, parameters_of
from bench.runs.kept_arrays import limit
from bench.runs.model_card import CARD, model_card
from bench.runs.plan import Forecast
from bench.runs.run_labels import method_label, reductions, settings_of
from bench.spec import RunSpec
from bench.splits.split import Split
from bench.tracking.claims import Claims
from bench.tracking.pruning import keep_best
from bench.tracking.record import DEVIATION, GIVEN, MODEL, PURPOSE, SPLIT, STATE, Record, differs
from bench.tracking.results import RunResult, SplitSummary
from bench.tracking.tracker import Tracker
from bench.tracking.writing import Run, Unwritable

#: called with the run, a stage ("split", "represent", "pretrain", "fit", "epoch", "predict", "check", "score"; of a
#: run in a process of its own "begins" alone) and its numbers
Progress = Callable[[RunSpec, str, Mapping[str, float]], None]


def silent(spec: RunSpec, stage: str, values: Mapping[str, float]) -> None:
    """Progress that nobody sees."""


def unsaid(line: str) -> None:
    """A line for people, where nobody reads."""


@dataclass(frozen=True)
class Outcome:
    """What became of a run."""

    spec: RunSpec
    status: str  # done, cached, skipped, failed; elsewhere: another process is at it; left: no time for it
    reason: str = ""
    run_id: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        plain = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        return {**plain, "metrics": dict(self.metrics), "spec": self.spec.to_dict()}


@dataclass(frozen=True)
class RunOptions:
    """How runs are executed; of all this the kind of device alone changes a result."""

    device: str = "cpu"
    rerun: bool = False  # also what is done
    progress: Progress = silent
    jobs: int = 1  # runs at once, each in a process of its own with its share of the threads
    budget: float | None = None  # seconds in which runs have to be done; None: no end
    forecast: Forecast | None = None  # that hears what runs took; None: nobody asks
    scheduler: str | None = None  # of a Dask cluster, which computes them in place of this machine
    say: Callable[[str], None] = unsaid  # lines for people
    models: str = "all"  # fitted methods that are kept: all, or by one of `bench.tracking.pruning.POLICIES`
    beside: Mapping[str, float] = field(default_factory=dict)  # numbers that are kept with the run's: its search's cost
    purpose: str = ""  # whom they are computed for, where the user did not ask for them: `bench.tracking.record.AUDIT`

    @property
    def quiet(self) -> "RunOptions":
        """The same for another process, from which outcomes alone are told."""
        return dataclasses.replace(self, progress=silent, say=unsaid, forecast=None)


DEFAULT_OPTIONS: Final = RunOptions()


class Superseded(Exception):
    """Another process took the run over while this one was asleep."""


def execute(spec: RunSpec, tracker: Tracker, options: RunOptions = DEFAULT_OPTIONS) -> Outcome:
    """Run it, unless the tracker has it done or another process is at it.

    An interrupt ends the run as killed and goes on its way.  Raises :class:`InputError` where the store of runs does
    not answer: what was computed is kept beside it, and logged by `Tracker.sync`; where the results folder cannot
    be written: other runs had no better luck; and where the limit of kept arrays is none.
    """
    limit()
    spec = spec.on(options.device)
    if not options.rerun and (known := tracker.finished(spec.digest)) is not None:
        return recalled(spec, known, tracker, options)
    if (holder := tracker.claims.take(spec.digest)) is not None:
        return Outcome(spec, "elsewhere", f"running on {holder}")
    try:
        if (known := tracker.finished(spec.digest)) is not None and not options.rerun:  # just now
            return recalled(spec, known, tracker, options)
        return _beside(_computed(spec, tracker, options), known)
    except Superseded:
        return Outcome(spec, "elsewhere", "another process took it over")
    finally:
        with suppress(InputError):  # the store is away; the claim ends with this process
            tracker.claims.let_go(spec.digest)


def _beside(outcome: Outcome, before: Record | None) -> Outcome:
    """The outcome, which says where the run had another score before."""
    score = before.metrics.get("macro_f1", math.nan) if before is not None else math.nan
    if before is None or outcome.status != "done" or not differs(score, outcome.metrics["macro_f1"]):
        return outcome
    return dataclasses.replace(outcome, reason=f"run {before.run_id[:8]} of the same had macro F1 {score:.4f}")


def _computed(spec: RunSpec, tracker: Tracker, options: RunOptions) -> Outcome:
    """What comes of a claimed run, written into the store."""
    started = time.perf_counter()
    run = tracker.start(spec, title_of(spec), tags_of(spec, options.purpose))
    status, reason, metrics = "done", "", {}
    try:
        kind, store = registry.load(spec.method), store_of(spec)
        run.tags({STATE: json.dumps(store.manifest.state)})
        if reason := reason_to_skip(kind, kind.Parameters(**spec.parameters), store):
            status = "skipped"
        else:
            run.parameters(parameters_of(spec, kind))
            given = files_of(kind, spec.parameters)
            run.tags({GIVEN: json.dumps(given)} if given else {})
            monitor = RunMonitor(spec, run, options.progress, tracker.claims)
            result = attempt(spec, store, kind, monitor, device=options.device, code=code_of(spec))
            result.metrics.update(options.beside)
            told = dataclasses.replace(result_of(spec, store, result, options.device), given=given)
            _keep(run, result, told, model=options.models != "none")
            metrics = result.metrics
            run.tags({"scale": _scale(spec, result)})
    except Superseded:
        run.end("killed", "another process took it over")
        raise
    except Unwritable as error:
        run.end("killed", str(error))
        raise
    except Exception as error:
        status, reason = "failed", _reason(error)
        with suppress(Unwritable), run.artefacts() as folder:
            (folder / "traceback.txt").write_text(traceback.format_exc(), "utf-8", "backslashreplace")
    except BaseException:
        run.end("killed", "interrupted")
        raise
    with suppress(InputError):  # the store is away: what was found is kept
        if not tracker.claims.still_has(spec.digest):  # taken over while this process slept, and yet it was quicker
            tracker.claims.take(spec.digest, force=True)
    run.end(status, reason)
    if options.models == "best":
        keep_best(tracker, spec, run.content.tags["row"])
    return Outcome(spec, status, reason, run.run_id, metrics, time.perf_counter() - started)


def store_of(spec: RunSpec) -> Store:
    """The store that a run names.  Raises :class:`InputError` where it is not there or was prepared anew."""
    store = Store.find(spec.dataset)
    if spec.store and store.digest != spec.store:
        raise InputError(
            "store-changed", f"{store.path}: prepared again since the run was planned; start the run again"
        )
    return store


class RunMonitor(AttemptMonitor):
    """Sends curves and marks to the run, stages and epochs to whoever shows progress."""

    def __init__(self, spec: RunSpec, run: Run, progress: Progress, claims: Claims) -> None:
        self._spec, self._run, self._claims = spec, run, claims
        self._tell = partial(progress, spec)

    def stage(self, name: str) -> None:
        """Show the stage, and end the run where another process took it over."""
        self._check()
        self._tell(name, {})

    def divided(self, split: Split) -> None:
        """Mark the run by what only its split tells."""
        self._run.tags(_split_marks(self._spec, split))

    def log(self, step: int, **values: float) -> None:
        """Record values at an optimiser step."""
        self._run.curve(step, {f"step/{name}": value for name, value in values.items()})

    def epoch(self, epoch: int, epochs: int, **values: float) -> None:
        """Record the end of an epoch."""
        self._check()
        self._run.curve(epoch, {f"epoch/{name}": value for name, value in values.items()})
        self._tell("epoch", {"epoch": epoch, "epochs": epochs, **values})

    def _check(self) -> None:
        if not self._claims.has(self._spec.digest):
            raise Superseded


def _keep(run: Run, attempted: Attempt, result: RunResult, *, model: bool) -> None:
    """Write all of an attempt into the store of runs, its ``model`` only where that is kept."""
    run.metrics(attempted.metrics | attempted.scores.f1_by_class)
    with run.artefacts() as folder:
        if model:
            (folder / "model").mkdir()
            attempted.method.save(folder / "model")
            (folder / "model" / CARD).write_text(model_card(result), encoding="utf-8")
        else:
            run.tags({MODEL: "not kept, by --keep-models none"})
        result.save(folder / "result.json")  # after the method's own code: it writes nothing over them
        attempted.predictions.save(folder / "predictions.npz")


def result_of(spec: RunSpec, store: Store, attempted: Attempt, device: str) -> RunResult:
    """What is written of an attempt in words and numbers."""
    return RunResult(
        spec=spec,
        metrics=attempted.metrics,
        scores=attempted.scores,
        parameters=dataclasses.asdict(attempted.method.parameters),
        deviations=list(attempted.method.deviations),
        environment=environment(device),
        split=SplitSummary.from_dict(attempted.split.summary()),
        reads=sorted(attempted.reads),
        ingest=store.manifest.options.unusual,
    )


def tags_of(spec: RunSpec, purpose: str = "") -> dict[str, str]:
    """What a table marks and what the MLflow page filters by."""
    outline = registry.describe(spec.method)
    tags = {"leaky": str(spec.split.leaky).lower(), "scale": _scale(spec), "source": code_of(spec)}
    tags |= {"transductive": "true"} if outline.transductive else {}
    tags |= {"family": outline.family} | ({"origin": outline.origin} if outline.origin else {})
    tags |= {"row": f"{method_label(spec, outline.origin)} · {spec.split.label}"}
    tags |= {"settings": ", ".join(settings_of(spec)) or "default"} | ({PURPOSE: purpose} if purpose else {})
    return tags | {f"{DEVIATION}{number:02d}": text for number, text in enumerate(outline.deviations)}


def title_of(spec: RunSpec) -> str:
    """A run's name on MLflow's page, what tells it from others first: its column is narrow."""
    fold = "" if spec.split.fold is None else f" fold {spec.split.fold}"
    return f"{method_label(spec)} · seed {spec.split.seed}{fold} · {spec.split.label}"


def code_of(spec: RunSpec) -> str:
    """Digest of the code that decides the run's result: the method's, and what an attempt imports."""
    return _code_of_method(spec.method)


@cache  # as the declarations of a method are: what a process has imported stays as it was
def _code_of_method(method: str) -> str:
    sources = registry.describe(method).sources
    return f"{code_digest(files=sources)}-{code_digest('bench.runs.attempt')}"


def _split_marks(spec: RunSpec, split: Split) -> dict[str, str]:
    """Tags that only the split knows: one from a file may share groups unproved."""
    marks = {SPLIT: split.digest, "test_in_training_captures": f"{split.seen['capture_groups']:.0%}"}
    unproved = split.spec.scheme == "file" and split.shared["test_in_training_conversations"]
    if unproved or split.spec.leaky:
        marks["leaky"] = "true"
    return marks


def _scale(spec: RunSpec, done: Attempt | None = None) -> str:
    """In what a run is smaller than its paper's or data set's own, ``full`` where in nothing.

    What rests on a split file or on the number of training samples is known when it is done.
    """
    split = done.split.spec if done and spec.split.max_per_class is None else spec.split
    reduced = [f"max_per_class={split.max_per_class}"] if split.reduced else []
    samples = done.metrics.get("training_samples") if done else None
    return ", ".join([*reduced, *reductions(registry.describe(spec.method), spec.parameters, samples)]) or "full"


def recalled(spec: RunSpec, known: Record, tracker: Tracker, options: RunOptions) -> Outcome:
    """The outcome of a run that is done; one that an audit computed is the user's from the moment they ask for it."""
    if known.purpose and not options.purpose:
        tracker.adopt(known)
    return answered(spec, known)


def answered(spec: RunSpec, known: Record) -> Outcome:
    """The outcome of a run that is done; says so where it is not what it was taken for."""
    code, reasons = code_of(spec), []
    if known.deleted:
        reasons.append(f"an older run: a newer one, {known.deleted[:8]}, was deleted on MLflow's page")
    if known.imported:
        reasons.append(f"imported from {known.imported}")
    if known.source != code:
        reasons.append(f"made by other code ({known.source or 'unknown'}, now {code})")
    if others := known.other_files(files_of(registry.describe(spec.method), spec.parameters)):
        reasons.append(f"made from other files ({others})")
    reason = "; ".join([*reasons, "--rerun computes it again"]) if reasons else ""
    return Outcome(spec, "cached", reason, known.run_id, known.metrics)


def _reason(error: Exception) -> str:
    """One line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"
