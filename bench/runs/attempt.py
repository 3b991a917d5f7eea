"""One attempt at a run: split, represent, fit, predict, score.  It remembers nothing and prints nothing.

What a result rests on is what this module imports; a run's record carries the digest of that code
(`bench.environment.code_digest`).
"""

import dataclasses
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from bench.data.store import Store
from bench.environment import peak_memory, reset_peak_memory
from bench.errors import InputError
from bench.method import Inputs, Method, Monitor, Part, pretrains, take
from bench.readers import View
from bench.runs.guards import (
    ASKED,
    ContractBroken,
    FitMonitor,
    PretrainMonitor,
    anew,
    chance_from,
    content_of,
    first_surroundings,
    forget,
    pretraining_over,
    same_answers,
    same_inputs,
    state_of,
    surroundings_of,
    unchanged,
)
from bench.runs.kept_arrays import KeptArrays, Represented, keeping
from bench.schema import MARK_BOUNDED, Samples, drawn_order, is_cut
from bench.scores.jackknife import count_groups, intervals
from bench.scores.metrics import MACRO, Scores, are_probabilities, decide, evaluate
from bench.spec import RunSpec, named_seed
from bench.splits.split import Split, make_split
from bench.tracking.results import Predictions

Rows = NDArray[np.int64]

BYTES: Final = frozenset({"payload", "ip_bytes"})  # reads that end early where a capture cuts packets
HALVES: Final = ("quic_ids", "quic_continued", "equal_payloads")  # of `bench.splits.connections`
WORK: Final = ("represent", "pretrain", "fit", "predict")  # stages that are the method's
REMEMBERS: Final = "its module or class remembers something of a run; keep it in the object"
#: names under which what a method says of itself does not count; scores stand above it anyway
OURS: Final = re.compile(
    r"seconds.*|f1/.*|(test|validation|search)_.*|model_parameters|peak_memory_bytes|packets_read|samples_kept"
)
TRAINING_ASKED: Final = 256  # training samples that are asked how well they were learned


class AttemptMonitor(Monitor):
    """A `Monitor` that hears of the attempt itself, too."""

    def stage(self, name: str) -> None:
        """A stage begins: "split", "represent", "pretrain", "fit", "predict", "check" or "score"."""

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

    monitor: Monitor
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        if isinstance(self.monitor, AttemptMonitor):
            self.monitor.stage(name)
        started = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    @property
    def metrics(self) -> dict[str, float]:
        """Seconds by stage, and in all of the method's work."""
        total = sum(seconds for name, seconds in self.seconds.items() if name in WORK)
        return {f"seconds_{name}": value for name, value in self.seconds.items()} | {"seconds": total}


def attempt(
    spec: RunSpec, store: Store, kind: type[Method], monitor: AttemptMonitor, *, device: str = "cpu", code: str = ""
) -> Attempt:
    """Do it.  Raises :class:`InputError` for what cannot be, ContractBroken (`bench.runs.guards`) for what no method
    may do, and whatever the method raises.

    ``code`` is the digest of what decides the result: with it arrays are shared with other attempts (`KeptArrays`).
    """
    with keeping(spec, store, kind, code, device) as kept:
        done = _attempted(spec, store, kind, monitor, device, kept)
        kept.keep(done.method)
    return done


def _attempted(
    spec: RunSpec, store: Store, kind: type[Method], monitor: AttemptMonitor, device: str, kept: KeptArrays
) -> Attempt:
    reset_peak_memory()
    clock = _Clock(monitor)
    with clock.stage("split"):
        split = make_split(store, spec.task, spec.split)
    monitor.divided(split)
    classes = scored_classes(split, store)
    method = new_method(spec, kind, len(classes), device)
    surroundings = first_surroundings(method)
    samples = _Parts(store, split, kept)
    validation, trained, training = _learn(method, samples, clock)
    state = state_of(method)
    with clock.stage("represent"):
        test, tested = samples.represent(method, "test", learned=True)
    state = unchanged(state, state_of(method), "represent changes the object; keep nothing of what is represented")
    with clock.stage("predict"):
        answers = method.predict_proba(test.inputs)
    unchanged(state, state_of(method), "predict_proba changes the object; keep nothing of what is asked")
    predictions = _put_back(split, classes, test.labels, answers)
    with clock.stage("check"):
        _check(spec, method, store, split, test.inputs, answers)
        samples.confirm(method, "test", test)
        kept.add(method, store, samples.of("test"))
        unchanged(surroundings, surroundings_of(method), REMEMBERS)
    with clock.stage("score"):
        scores, numbers = scores_of(predictions, split)
        metrics = {name: value for name, value in monitor.facts.items() if not OURS.fullmatch(name)}
        metrics |= numbers | _training_scores(method, trained) | _validation_scores(method, validation, classes)
    metrics |= {"peak_memory_bytes": float(peak_memory()), "packets_read": float(training.packets.sum())}
    metrics |= clock.metrics | _size(method) | ({"samples_kept": float(kept.found)} if kept.found else {})
    used = training.used | tested.used
    metrics |= _cut(store, split.test) if used & BYTES else {}
    metrics |= _bounded(store, split.test) if store.of_records else {}
    return Attempt(method, split, predictions, scores, metrics, used)


@dataclass(frozen=True)
class _Parts:
    """The parts of a split as methods get them."""

    store: Store
    split: Split
    kept: KeptArrays

    def represent(self, method: Method, name: str, *, learned: bool = False) -> tuple[Part, Represented]:
        """A part, and what was read for it; the samples come in the order of `Split.order`."""
        samples = self.of(name)
        labels = self.split.to_scored_classes(self.store.labels(self.split.task)[samples.session])
        done = self.kept.represent(method, self.store, samples, learned=learned)
        return Part(done.inputs, labels), done

    def write(self, *done: Represented) -> None:
        """Keep arrays aside before `fit` can change them."""
        self.kept.write(done, sum(map(len, self.split.parts.values())))

    def confirm(self, method: Method, name: str, part: Part) -> None:
        """See `KeptArrays.confirm`."""
        self.kept.confirm(method, self.store, self.of(name), part.inputs)

    def of(self, name: str) -> Samples:
        """The samples of a part, in the order in which methods get them."""
        return self.split.parts[name].take(self.split.order(name))


def _learn(method: Method, samples: _Parts, clock: _Clock) -> tuple[Part, Part, Represented]:
    """Pre-train, where the method does, and fit: the validation part, `_some` of the training part, what it read.

    While a method pre-trains nothing but the training part is represented, and its labels are not at hand.  It knows
    nothing of other runs of this process.
    """
    forget(type(method))
    with chance_from(method.seed):
        return _learned(method, samples, clock)


def _learned(method: Method, samples: _Parts, clock: _Clock) -> tuple[Part, Part, Represented]:
    with clock.stage("represent"):
        train, trained_on = samples.represent(method, "train")
        trained = _some(method, train)
        if not pretrains(type(method)):
            validation, judged_on = samples.represent(method, "validation")
    if pretrains(type(method)):
        samples.write(trained_on)
        with clock.stage("pretrain"):
            method.pretrain(dict(train.inputs), PretrainMonitor(clock.monitor))
        with clock.stage("represent"):
            validation, _ = samples.represent(method, "validation", learned=True)
    else:
        samples.write(trained_on, judged_on)
    judging = content_of(validation)
    with clock.stage("fit"), pretraining_over(method):
        method.fit(train, validation, FitMonitor(clock.monitor))
    unchanged(judging, content_of(validation), "fit changes the validation part; change a copy")
    return validation, trained, dataclasses.replace(trained_on, inputs={})  # which take memory


def _packets_of(store: Store, samples: Samples) -> Rows:
    """Packet rows of the samples' whole sessions, int64 ``[packets]``."""
    sessions = np.unique(samples.session)
    sizes = np.asarray(store.session("packets"))[sessions]
    first = np.asarray(store.session("first_packet"))[sessions]
    return np.asarray(np.arange(sizes.sum()) + np.repeat(first - np.cumsum(sizes) + sizes, sizes), np.int64)


def _bounded(store: Store, test: Samples) -> dict[str, float]:
    """The share of packets whose IP or payload length is a bound, of a store made of records."""
    marks = np.asarray(store.packet("marks"))[_packets_of(store, test)]
    return {"test_bounded_lengths": float(np.count_nonzero(marks & MARK_BOUNDED) / max(1, len(marks)))}


def _cut(store: Store, test: Samples) -> dict[str, float]:
    """The share of packets with payload that the capture cut: what a method that reads bytes finds zeros in."""
    rows = _packets_of(store, test)
    captured, payload, length = (
        np.asarray(store.packet(name))[rows] for name in ("captured", "payload", "payload_length")
    )
    cut = np.count_nonzero(is_cut(captured, payload, length))
    return {"test_cut_packets": cut / np.count_nonzero(length)} if cut else {}


def _check(
    spec: RunSpec, method: Method, store: Store, split: Split, inputs: Inputs, answers: NDArray[np.float32]
) -> None:
    """Ask for a drawn sample of the test part once more: a new object to represent it, the fitted one to answer."""
    rows = drawn_order(len(answers), named_seed(spec.digest, "check"))[:ASKED]
    if not len(rows):
        return
    samples = split.test.take(split.order("test")[rows])
    again = anew(method).represent(View(store, samples, method.reads))
    same_inputs(take(inputs, rows), again, "of a part of the samples")
    if not type(method).transductive:
        same_answers(method, inputs, answers, rows)


def _put_back(split: Split, classes: list[str], labels: Rows, answers: NDArray[np.float32]) -> Predictions:
    """Answers and truth in the split's order, from the order in which the method got the test part."""
    if answers.shape != (len(labels), len(classes)):
        raise ContractBroken(f"predict_proba answers {answers.shape}, expected {(len(labels), len(classes))}")
    if not are_probabilities(answers):
        raise ContractBroken("predict_proba answers with no probabilities: a row is negative or does not sum to 1")
    truth, probabilities = np.empty_like(labels), np.empty_like(answers)
    truth[split.order("test")], probabilities[split.order("test")] = labels, answers
    return Predictions(classes, split.test.session, split.test.first, truth, split.groups["test"], probabilities)


def fit_and_validate(
    spec: RunSpec, store: Store, kind: type[Method], monitor: Monitor, *, device: str = "cpu", code: str = ""
) -> Scores:
    """Scores on the validation part of a fresh fit.  The test part is not even represented: this is for tuning.

    ``code`` as in :func:`attempt`.  Raises :class:`InputError` for a split without a validation part.
    """
    split = make_split(store, spec.task, spec.split)
    if not len(split.validation):
        raise InputError(
            "no-validation", f"{spec.name}: the split has no validation part to judge by; take another split"
        )
    classes = scored_classes(split, store)
    method = new_method(spec, kind, len(classes), device)
    surroundings = first_surroundings(method)
    with keeping(spec, store, kind, code, device) as kept:
        samples = _Parts(store, split, kept)
        validation, *_ = _learn(method, samples, _Clock(monitor))
        answers = method.predict_proba(validation.inputs)
        samples.confirm(method, "validation", validation)
        unchanged(surroundings, surroundings_of(method), REMEMBERS)
        kept.keep(method)
    return evaluate(validation.labels, answers, classes)


def represent_parts(method: Method, store: Store, split: Split, names: Sequence[str]) -> dict[str, Part]:
    """The named parts of a split as the method sees them: through a view of what it declares, and labels.

    The samples come in the order of `Split.order`.
    """
    samples = _Parts(store, split, KeptArrays())
    return {name: samples.represent(method, name)[0] for name in names}


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


def _some(method: Method, train: Part) -> Part:
    """Drawn samples of those that the method learns from, copied before `fit` can change them."""
    rows = method.trained_rows(train)
    rows = rows[drawn_order(len(rows), named_seed(method.seed, "training"))[:TRAINING_ASKED]]
    return Part(take(train.inputs, rows), train.labels[rows])


def _training_scores(method: Method, trained: Part) -> dict[str, float]:
    """Accuracy on training samples, and what answering with their most frequent class would give."""
    accuracy = float((decide(method.predict_proba(trained.inputs)) == trained.labels).mean())
    return {"training_accuracy": accuracy, "training_majority": float(np.bincount(trained.labels).max() / len(trained))}


def scores_of(test: Predictions, split: Split) -> tuple[Scores, dict[str, float]]:
    """Scores of answers for the test part, and by name these, their intervals, and what they cannot be read without."""
    scores = evaluate(test.truth, test.probabilities, test.classes)
    return scores, scores.metrics() | _split_numbers(split) | _interval_ends(test)


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


def _split_numbers(split: Split) -> dict[str, float]:
    """What a score cannot be read without: classes that training has, and shares of test samples that it has seen."""
    trained = sum(bool(counts["train"]) for counts in split.counts.values())
    numbers = {"classes_trained": float(trained), "classes_left_out": float(len(split.counts) - len(split.scored))}
    seen = split.seen
    numbers["test_in_training_captures"] = seen["capture_groups"]
    numbers["test_in_training_conversations"] = seen["conversations"]
    numbers |= {f"test_in_training_{kind}": seen[kind] for kind in HALVES if seen.get(kind)}
    if split.spec.leaky:  # each of the shares holds the ones before it
        same, overlapping, sessions = (seen[kind] for kind in ("windows", "overlapping_windows", "sessions"))
        numbers |= {"test_identical_windows": same, "test_overlapping_windows": overlapping - same}
        numbers["test_other_windows_of_training_sessions"] = sessions - overlapping
    return numbers


def _size(method: Method) -> dict[str, float]:
    """The number of trainable parameters, of torch methods (no other model has ``parameters()``)."""
    model = getattr(method, "model", None)
    if not callable(getattr(model, "parameters", None)):
        return {}
    weights = cast(Any, model).parameters()
    return {"model_parameters": float(sum(p.numel() for p in weights if p.requires_grad))}


def parameters_of(spec: RunSpec, kind: type[Method]) -> dict[str, Any]:
    """Every parameter of the method as the run has it."""
    return dataclasses.asdict(kind.Parameters(**spec.parameters))
