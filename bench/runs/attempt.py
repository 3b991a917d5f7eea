"""One attempt at a run: split, represent, fit, predict, score.  It remembers nothing and prints nothing.

What a result rests on is what this module imports; a run's record carries the digest of that code
(`bench.environment.code_digest`).
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from bench.data.store import Store
from bench.environment import peak_memory, reset_peak_memory
from bench.errors import InputError
from bench.method import Method, Monitor, Part
from bench.readers import View
from bench.runs.results import Predictions
from bench.scores.jackknife import count_groups, intervals
from bench.scores.metrics import MACRO, Scores, decide, evaluate
from bench.spec import RunSpec, named_seed
from bench.splits.split import Split, make_split


class AttemptMonitor(Monitor):
    """A `Monitor` that hears of the attempt itself, too."""

    def stage(self, name: str) -> None:
        """A stage begins: "split", "represent", "fit" or "predict"."""

    def divided(self, split: Split) -> None:
        """The split is made."""


@dataclass(frozen=True)
class Attempt:
    """What came of it."""

    method: Method  # fitted
    split: Split
    predictions: Predictions  # of the test part
    scores: Scores  # of the test part
    metrics: dict[str, float]  # of test and validation part, seconds by stage, sizes
    reads: frozenset[str]  # what the method read, of what it declares


@dataclass
class _Clock:
    """Tells stages and times them."""

    monitor: AttemptMonitor
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.monitor.stage(name)
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started

    @property
    def metrics(self) -> dict[str, float]:
        """Seconds by stage, and in all but the split, which is not the method's work."""
        total = sum(seconds for name, seconds in self.seconds.items() if name != "split")
        return {f"seconds_{name}": value for name, value in self.seconds.items()} | {"seconds": total}


def attempt(
    spec: RunSpec, store: Store, kind: type[Method], monitor: AttemptMonitor, *, device: str = "cpu"
) -> Attempt:
    """Do it.  Raises :class:`InputError` for what cannot be, and whatever the method raises."""
    reset_peak_memory()
    clock, reads = _Clock(monitor), set[str]()
    with clock.stage("split"):
        split = make_split(store, spec.task, spec.split)
    monitor.divided(split)
    classes = scored_classes(split, store)
    method = new_method(spec, kind, len(classes), device)
    with clock.stage("represent"):
        parts = represent_parts(method, store, split, tuple(split.parts), reads)
    with clock.stage("fit"):
        method.fit(parts["train"], parts["validation"], monitor)
    with clock.stage("predict"):
        probabilities = method.predict_proba(parts["test"].inputs)
    metrics = _validation_scores(method, parts["validation"], classes) | monitor.facts | clock.metrics
    metrics |= {"peak_memory_bytes": float(peak_memory())}
    test = parts["test"]
    answers = Predictions(
        classes, split.test.session, split.test.first, test.labels, split.groups["test"], probabilities
    )
    scores = evaluate(test.labels, probabilities, classes)
    metrics = scores.metrics() | metrics | _interval_ends(answers) | _size(method)
    return Attempt(method, split, answers, scores, metrics, frozenset(reads))


def fit_and_validate(
    spec: RunSpec, store: Store, kind: type[Method], monitor: Monitor, *, device: str = "cpu"
) -> Scores:
    """Scores on the validation part of a fresh fit.  The test part is not even represented: this is for tuning.

    Raises :class:`InputError` for a split without a validation part.
    """
    split = make_split(store, spec.task, spec.split)
    if not len(split.validation):
        raise InputError(
            "no-validation", f"{spec.name}: the split has no validation part to judge by; take another split"
        )
    classes = scored_classes(split, store)
    method = new_method(spec, kind, len(classes), device)
    parts = represent_parts(method, store, split, ("train", "validation"))
    method.fit(parts["train"], parts["validation"], monitor)
    return evaluate(parts["validation"].labels, method.predict_proba(parts["validation"].inputs), classes)


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
        parts[name] = Part(method.represent(view), split.to_scored_classes(labels[samples.session]))
        if used is not None:
            used |= view.used
    return parts


def scored_classes(split: Split, store: Store) -> list[str]:
    """The names of the classes that the split's samples can be of."""
    return [store.classes(split.task)[number] for number in split.scored]


def new_method(spec: RunSpec, kind: type[Method], classes: int, device: str) -> Method:
    """The method with its parameters and a seed of its own: one more draw elsewhere shifts none of its draws."""
    split = spec.split
    seed = named_seed(split.seed, spec.dataset, spec.task, split.scheme, split.fold, spec.method, "fit")
    return kind(kind.Parameters(**spec.parameters), classes=classes, seed=seed, device=device)


def _validation_scores(method: Method, part: Part, classes: Sequence[str]) -> dict[str, float]:
    """Under names of their own, so that nobody takes them for test scores; none of an empty part."""
    if not len(part):
        return {}
    scores = evaluate(part.labels, method.predict_proba(part.inputs), classes)
    return {f"validation_{name}": getattr(scores, name) for name in MACRO}


def _interval_ends(test: Predictions) -> dict[str, float]:
    """Lower and upper ends of the test scores' intervals, and how many groups stand behind them.

    ``interval_groups`` is the number of groups of the tested class that has the fewest.
    """
    classes = len(test.classes)
    ends_by_name = intervals(test.truth, decide(test.probabilities), test.groups, classes=classes)
    counts = count_groups(test.truth, test.groups, classes)
    ends = {f"{name}_low": low for name, (low, _) in ends_by_name.items()}
    ends |= {f"{name}_high": high for name, (_, high) in ends_by_name.items()}
    return ends | {"interval_groups": float(counts.smallest), "interval_groups_total": float(counts.total)}


def _size(method: Method) -> dict[str, float]:
    """The number of trainable parameters, of torch methods (no other model has ``parameters()``)."""
    model = getattr(method, "model", None)
    if not hasattr(model, "parameters"):
        return {}
    weights = cast(Any, model).parameters()
    return {"model_parameters": float(sum(p.numel() for p in weights if p.requires_grad))}


def parameters_of(spec: RunSpec, kind: type[Method]) -> dict[str, Any]:
    """Every parameter of the method as the run has it."""
    return dataclasses.asdict(kind.Parameters(**spec.parameters))
