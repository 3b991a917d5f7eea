"""One run of the benchmark, and the matrix of many.

A run is a :class:`RunSpec`; its digest says whether the store of runs knows it already.  What goes wrong inside
a run is an :class:`Outcome` with a reason, not the end of the matrix.  Nothing here imports a method, torch or
scikit-learn before it is known that something has to be computed.
"""

import dataclasses
import hashlib
import json
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any, Final, cast

from bench.data.store import Store
from bench.environment import code_digest, cores, environment, peak_memory, reset_peak_memory
from bench.errors import InputError
from bench.method import Method, Monitor, Part, make_parameters
from bench.readers import View
from bench.render.plots import draw_confusion, draw_curves
from bench.runs import registry
from bench.runs.run_labels import method_words, sample_words, settings, split_words
from bench.runs.tracking import DEVIATION, Predictions, Record, Run, Tracker
from bench.scores.metrics import MACRO, Scores, decide, evaluate, intervals
from bench.splits.assignment import named_seed
from bench.splits.checks import attribute_of
from bench.splits.filters import parse_filter
from bench.splits.sampling import parse_sampling
from bench.splits.split import LEAKY, Split, balance_of, check_request, check_scheme, is_reduced, make_split

#: fields that came later, and the values that digests leave out, so that what was run before them stays done
LATER: Final[dict[str, Any]] = {"filter": "none", "sampling": "session", "balance": None, "min_per_class": None}

#: called with the run, a stage ("represent", "fit", "epoch", "score") and its numbers
Progress = Callable[["RunSpec", str, Mapping[str, float]], None]


def silent(spec: "RunSpec", stage: str, values: Mapping[str, float]) -> None:
    """Progress that nobody sees."""


@dataclass(frozen=True)
class RunSpec:
    """All that decides a run's result but the machine; ``parameters`` are those that differ from the defaults."""

    method: str
    dataset: str
    task: str
    split: str = "session"
    seed: int = 0
    fold: int | None = None
    folds: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    max_per_class: int | None = None
    store: str = ""  # the store's digest
    split_file: str | None = None  # with split "file"; its content counts, not its place
    split_digest: str | None = None  # SHA-256 of that file, 16 hex digits
    source: str | None = None  # of a FILE.py:CLASS, digest of the file: its author is still at work
    filter: str = "none"  # this and the next as `bench.splits.filters` and `bench.splits.sampling` write them
    sampling: str = "session"
    balance: str | None = None  # None: the scheme's own
    min_per_class: int | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of all fields but ``split_file`` and what of `LATER` is as ever; 16 digits."""
        fields = {name: value for name, value in self._fields().items() if name != "split_file"}
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """For people; not unique."""
        fold = "" if self.fold is None else f"-fold{self.fold}of{self.folds}"
        asked = "".join(f"-{word}" for word in sample_words(self._fields()))
        return f"{Path(self.method).name}-{self.split}{asked}-seed{self.seed}{fold}"

    def to_dict(self) -> dict[str, Any]:
        """The fields and the digest, ready for JSON; `LATER` ones only where they are asked for."""
        return self._fields() | {"digest": self.digest}

    def _fields(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if name not in LATER or value != LATER[name]}


@dataclass(frozen=True)
class Outcome:
    """What became of a run."""

    spec: RunSpec
    status: str  # done, cached, skipped, failed
    reason: str = ""
    run_id: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**dataclasses.asdict(self), "spec": self.spec.to_dict()}


def expand(
    methods: Sequence[str],
    stores: Sequence[Store],
    *,
    task: str | None = None,
    split: str = "session",
    split_file: Path | None = None,
    seeds: Sequence[int] = (0,),
    folds: int | None = None,
    max_per_class: int | None = None,
    values: Mapping[str, Any] | None = None,
    preset: str | None = None,
    epochs: int | None = None,
    filter: str = "none",
    sampling: str = "session",
    balance: str | None = None,
    min_per_class: int | None = None,
) -> list[RunSpec]:
    """The matrix, in the order data set, method, seed, fold.

    ``values`` (texts are read as the parameter's type) and ``preset`` go to the methods that have them; one that
    no method has is an :class:`InputError`.  ``epochs`` is ignored by methods without.
    """
    check_scheme(split)
    asked: dict[str, Any] = {"filter": parse_filter(filter), "sampling": str(parse_sampling(sampling))}
    asked["balance"] = None if balance_of(split, balance) == balance_of(split, None) else balance
    asked["min_per_class"] = min_per_class
    outlines = {name: registry.describe(name) for name in methods}
    chosen = {name: _resolve(outlines, name, values or {}, preset, epochs) for name in outlines}
    sources = {name: outline.digest if ".py:" in name else None for name, outline in outlines.items()}
    numbers: Sequence[int | None] = (None,) if folds is None else range(folds)
    file_digest = _file_digest(split_file) if split_file is not None else None
    request = asked | {"fold": None if folds is None else 0, "folds": folds, "max_per_class": max_per_class}
    request["balance"] = balance_of(split, balance)
    for store in stores:  # what cannot be for any run is told before the first
        store.classes(task or store.default_task)
        check_request(store, task or store.default_task, split, request, split_file)
        if attribute := attribute_of(split):
            store.capture_attribute(attribute)
        if split_file is not None:
            make_split(store, task or store.default_task, split, file=split_file, **asked)
    return [
        RunSpec(
            method=method,
            dataset=store.name,
            task=task or store.default_task,
            split=split,
            seed=seed,
            fold=fold,
            folds=folds,
            parameters=chosen[method],
            max_per_class=max_per_class,
            store=store.digest,
            split_file=None if split_file is None else str(split_file.absolute()),
            split_digest=file_digest,
            source=sources[method],
            **asked,
        )
        for store, method, seed, fold in product(stores, methods, seeds, numbers)
    ]


def execute(
    spec: RunSpec, tracker: Tracker, *, device: str = "cpu", progress: Progress = silent, rerun: bool = False
) -> Outcome:
    """Run it, unless the tracker has it done.  An interrupt ends the run as killed and goes on its way."""
    if not rerun and (known := tracker.finished(spec.digest)) is not None:
        return _cached(spec, known)
    started = time.perf_counter()
    run = tracker.start(spec.to_dict(), _title(spec), _tags(spec))
    status, reason, metrics = "done", "", {}
    try:
        method_class, store = registry.load(spec.method), _store(spec)
        if reason := method_class.skip(store.manifest) or "":
            status = "skipped"
        else:
            metrics = _Attempt(spec, run, store, method_class, device, progress).compute()
    except Exception as error:
        status, reason = "failed", _reason(error)
        with run.artefacts() as folder:
            (folder / "traceback.txt").write_text(traceback.format_exc())
    except BaseException:
        run.end("killed", "interrupted")
        raise
    run.end(status, reason)
    return Outcome(spec, status, reason, run.run_id, metrics, time.perf_counter() - started)


def run_matrix(
    specs: Sequence[RunSpec],
    tracker: Tracker,
    *,
    jobs: int = 1,
    device: str = "cpu",
    progress: Progress = silent,
    rerun: bool = False,
) -> Iterator[Outcome]:
    """Execute all, yielding each outcome as it comes: first the finished ones, with one job the rest in order.

    With several jobs each runs in a process of its own with its share of the threads, and only outcomes are told.
    """
    todo = []
    for spec in specs:
        known = None if rerun else tracker.finished(spec.digest)
        if known is None:
            todo.append(spec)
        else:
            yield _cached(spec, known)
    jobs = min(jobs, len(todo))
    if jobs <= 1:
        for spec in todo:
            yield execute(spec, tracker, device=device, progress=progress, rerun=rerun)
        return
    from joblib import Parallel, delayed, parallel_config

    with parallel_config("loky", inner_max_num_threads=max(1, cores() // jobs)):
        work = (delayed(execute)(spec, tracker, device=device, rerun=rerun) for spec in todo)
        yield from Parallel(n_jobs=jobs, return_as="generator_unordered")(work)


def fit_and_validate(spec: RunSpec, monitor: Monitor, *, device: str = "cpu") -> Scores:
    """Scores on the validation part of a fresh fit.  The test part is not even represented: this is for tuning."""
    store = _store(spec)
    split = _split(spec, store)
    if not len(split.validation):
        raise InputError(f"{spec.name}: the split has no validation part to judge by; take another split")
    classes = _classes(split, store)
    method = _method(spec, registry.load(spec.method), len(classes), device)
    parts = represent_parts(method, store, split, ("train", "validation"))
    method.fit(parts["train"], parts["validation"], monitor)
    answers = method.predict_proba(parts["validation"].inputs)
    return evaluate(parts["validation"].labels, answers, classes)


def represent_parts(
    method: Method, store: Store, split: Split, names: Sequence[str], used: set[str] | None = None
) -> dict[str, Part]:
    """The named parts of a split as the method sees them: through a view of what it declares, and labels.

    Adds to ``used`` what was read.
    """
    labels, parts = store.labels(split.task), {}
    for name in names:
        samples = split.parts[name]
        view = View(store, samples, method.reads)
        parts[name] = Part(method.represent(view), split.answers(labels[samples.session]))
        if used is not None:
            used |= view.used
    return parts


class RunMonitor(Monitor):
    """Sends curves to the run and epochs to whoever shows progress."""

    def __init__(self, run: Run, tell: Callable[[str, Mapping[str, float]], None]) -> None:
        self._run = run
        self._tell = tell
        self.epochs: list[tuple[int, dict[str, float]]] = []
        self.facts: dict[str, float] = {}

    def log(self, step: int, **values: float) -> None:
        """Record values at an optimiser step."""
        self._run.curve(step, {f"step/{name}": value for name, value in values.items()})

    def note(self, **values: float) -> None:
        """Record facts of the fit, as metrics of the run."""
        self.facts |= values

    def epoch(self, epoch: int, epochs: int, **values: float) -> None:
        """Record the end of an epoch."""
        self.epochs.append((epoch, values))
        self._run.curve(epoch, {f"epoch/{name}": value for name, value in values.items()})
        self._tell("epoch", {"epoch": epoch, "epochs": epochs, **values})


@dataclass
class _Attempt:
    """A run on its way: what its steps share."""

    spec: RunSpec
    run: Run
    store: Store
    method_class: type[Method]
    device: str
    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)  # by stage
    used: set[str] = field(default_factory=set)  # what the method read, of what it declares

    def __post_init__(self) -> None:
        self.monitor = RunMonitor(self.run, partial(self.progress, self.spec))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Tell that a stage begins, and time it."""
        self.progress(self.spec, name, {})
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started

    def compute(self) -> dict[str, float]:
        """Split, represent, fit, predict, score, record; the numbers that the outcome tells."""
        reset_peak_memory()
        self.run.parameters(dataclasses.asdict(make_parameters(self.method_class, self.spec.parameters)))
        with self.stage("split"):
            split = _split(self.spec, self.store)
        self.run.tags(_split_marks(self.spec, split))
        self.classes = _classes(split, self.store)
        self.method = _method(self.spec, self.method_class, len(self.classes), self.device)
        with self.stage("represent"):
            parts = represent_parts(self.method, self.store, split, tuple(split.parts), self.used)
        with self.stage("fit"):
            self.method.fit(parts["train"], parts["validation"], self.monitor)
        with self.stage("predict"):
            answers = self.method.predict_proba(parts["test"].inputs)
        metrics = self.validation_scores(parts["validation"]) | self.monitor.facts
        metrics |= {f"seconds_{name}": value for name, value in self.seconds.items()}
        self.seconds.pop("split")  # not the method's work
        metrics |= {"seconds": sum(self.seconds.values()), "peak_memory_bytes": float(peak_memory())}
        window, truth, groups = split.test, parts["test"].labels, split.groups["test"]
        test = Predictions(self.classes, window.session, window.first, truth, groups, answers)
        return self.record(test, metrics | self.size(), split)

    def record(self, test: Predictions, metrics: dict[str, float], split: Split) -> dict[str, float]:
        """Score the test part and write everything into the run; all numbers."""
        scores = evaluate(test.truth, test.probabilities, test.classes)
        metrics = scores.metrics() | metrics
        seed = named_seed(self.spec.digest, "intervals")
        sure = intervals(test.truth, decide(test.probabilities), test.groups, classes=len(test.classes), seed=seed)
        metrics |= {f"{name}_low": low for name, (low, _) in sure.items()}
        metrics |= {f"{name}_high": high for name, (_, high) in sure.items()}
        self.run.metrics(metrics | {f"f1/{name}": row["f1"] for name, row in scores.per_class.items()})
        result = {
            "spec": self.spec.to_dict(),
            "metrics": metrics,
            "scores": scores.to_dict(),
            "parameters": dataclasses.asdict(self.method.parameters),
            "reads": sorted(self.used),
            "deviations": list(self.method.deviations),
            "environment": environment(self.device),
            "split": split.summary(),
        }
        with self.run.artefacts() as folder:
            (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
            test.save(folder / "predictions.npz")
            draw_confusion(scores, folder / "confusion.png")
            draw_curves(self.monitor.epochs, folder / "curves.png")
            (folder / "model").mkdir()
            self.method.save(folder / "model")
        return metrics

    def validation_scores(self, part: Part) -> dict[str, float]:
        """Under names of their own, so that nobody takes them for test scores; none of an empty part."""
        if not len(part):
            return {}
        scores = evaluate(part.labels, self.method.predict_proba(part.inputs), self.classes)
        return {f"validation_{name}": getattr(scores, name) for name in MACRO}

    def size(self) -> dict[str, float]:
        """The number of trainable parameters, of torch methods (no other model has ``parameters()``)."""
        model = getattr(self.method, "model", None)
        if not hasattr(model, "parameters"):
            return {}
        return {"model_parameters": float(sum(p.numel() for p in cast(Any, model).parameters() if p.requires_grad))}


def _resolve(
    outlines: Mapping[str, registry.Outline],
    method: str,
    values: Mapping[str, Any],
    preset: str | None,
    epochs: int | None,
) -> dict[str, Any]:
    """Parameters of one method of a matrix that differ from its defaults, by name."""
    outline = outlines[method]
    known = {name for other in outlines.values() for name in other.defaults}
    if preset is not None and not any(preset in other.presets for other in outlines.values()):
        listed = "; ".join(f"{name} has {', '.join(o.presets) or 'none'}" for name, o in outlines.items())
        raise InputError(f"no preset {preset!r}: {listed}")
    chosen = dict(outline.presets.get(preset, {})) if preset else {}
    chosen |= {name: value for name, value in values.items() if name in outline.defaults or name not in known}
    if epochs is not None and "epochs" in outline.defaults:
        chosen["epochs"] = epochs
    made = make_parameters(cast(Any, outline), chosen)  # an outline has all that is asked: name and Parameters
    return {name: getattr(made, name) for name, default in outline.defaults.items() if getattr(made, name) != default}


def _store(spec: RunSpec) -> Store:
    store = Store.find(spec.dataset)
    if spec.store and store.digest != spec.store:
        raise InputError(f"{store.path}: prepared anew since the run was planned; start the run again")
    return store


def _split(spec: RunSpec, store: Store) -> Split:
    return make_split(
        store,
        spec.task,
        spec.split,
        seed=spec.seed,
        fold=spec.fold,
        folds=spec.folds,
        max_per_class=spec.max_per_class,
        file=None if spec.split_file is None else Path(spec.split_file),
        **{name: getattr(spec, name) for name in LATER},
    )


def _classes(split: Split, store: Store) -> list[str]:
    """The names of the classes that the split's samples can be of."""
    return [store.classes(split.task)[number] for number in split.scored]


def _method(spec: RunSpec, method: type[Method], classes: int, device: str) -> Method:
    """The method with its parameters and a seed of its own: one more draw elsewhere shifts none of its draws."""
    seed = named_seed(spec.seed, spec.dataset, spec.task, spec.split, spec.fold, spec.method, "fit")
    parameters = make_parameters(method, spec.parameters)
    return method(parameters, classes=classes, seed=seed, device=device)


def _tags(spec: RunSpec) -> dict[str, str]:
    """What a table marks and what the MLflow page filters by."""
    outline = registry.describe(spec.method)
    reduced = [f"max_per_class={spec.max_per_class}"] if is_reduced(spec.split, spec.max_per_class) else []
    epochs = spec.parameters.get("epochs")
    if epochs is not None and epochs < outline.defaults["epochs"]:
        reduced.append(f"epochs={epochs}")
    if (small := outline.presets.get("small")) and small.items() <= spec.parameters.items():
        reduced.append("preset small")
    tags = {"leaky": str(spec.split in LEAKY).lower(), "scale": ", ".join(reduced) or "full", "source": _code(outline)}
    tags |= {"row": _row(spec), "settings": ", ".join(settings(spec.to_dict())) or "default"}
    return tags | {f"{DEVIATION}{number:02d}": text for number, text in enumerate(outline.deviations)}


def _row(spec: RunSpec) -> str:
    """What the runs of one row of a table share: MLflow's page groups them by it."""
    return f"{method_words(spec.to_dict())} · {split_words(spec.to_dict())}"


def _title(spec: RunSpec) -> str:
    """A run's name on MLflow's page, what tells it from others first: its column is narrow."""
    fold = "" if spec.fold is None else f" fold {spec.fold}"
    return f"{method_words(spec.to_dict())} · seed {spec.seed}{fold} · {split_words(spec.to_dict())}"


@cache
def _shared_code() -> str:
    """Digest of what all methods stand on: a change there can change any result."""
    return code_digest("bench.splits.split", "bench.readers", "bench.scores.metrics", "bench.training", "bench.graphs")


def _code(outline: registry.Outline) -> str:
    return f"{outline.digest}-{_shared_code()}"


def _split_marks(spec: RunSpec, split: Split) -> dict[str, str]:
    """Tags that only the split knows: one from a file may be of reduced scale, or share groups unproved."""
    marks = {}
    if spec.max_per_class is None and is_reduced(split.scheme, split.max_per_class):
        marks["scale"] = f"max_per_class={split.max_per_class}"
    unproved = split.scheme == "file" and split.shared["test_in_training_conversations"]
    if unproved or split.scheme in LEAKY:
        marks["leaky"] = "true"
    return marks


def _cached(spec: RunSpec, known: Record) -> Outcome:
    """The outcome of a run that is done; says so where the method's code is not that of the run any more."""
    changed = known.source != _code(registry.describe(spec.method))
    reason = f"the code of {spec.method} has changed since; --rerun computes it again" if changed else ""
    return Outcome(spec, "cached", reason, known.run_id, known.metrics)


def _reason(error: Exception) -> str:
    """One line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def _file_digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read as a split ({error.strerror}); `bench split --save` makes one"
        ) from None
