"""How long a torch method takes to answer one batch, preprocessing apart (the measure of the paper's Table X).

The paper names neither its machine nor its repetitions nor its sessions, so only the order of the methods can be
compared.  The cost of a method that reads whole sessions grows with their packets, that of the others does not:
sessions of few packets are left out.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import quantiles
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from bench.data.store import Store
from bench.errors import InputError
from bench.method import Inputs, Method, Monitor, Part, learn, make_parameters, one_pass, take
from bench.readers import View
from bench.render.table import Table
from bench.runs import registry
from bench.runs.run_labels import is_reconstructed, marked, meanings
from bench.schema import NO_CLASS, Samples
from bench.training.loop import TorchMethod


@dataclass(frozen=True)
class Timing:
    """Quartiles of repeated calls, milliseconds."""

    low: float
    median: float
    high: float
    calls: int


@dataclass(frozen=True)
class Latency:
    """The steps from sessions to probabilities for one batch."""

    represent: Timing  # captures to arrays
    assemble: Timing  # arrays to the network's tensors on the device: pictures, graphs, the copy
    infer: Timing  # the network alone


def latency(
    method: TorchMethod, view: Callable[[], View], *, warmup: int = 5, calls: int = 50, seconds: float = 30.0
) -> Latency:
    """Time a fitted method on one batch, the samples of ``view()``, each step by itself.

    Every step is called ``warmup`` times, then timed ``calls`` times or, where that takes longer, for ``seconds``
    (five calls at least).  Samples from which the method abstains are represented and no more.  On CUDA the device
    is waited for within the timed part.
    """
    assert method.model is not None, "latency takes a fitted method"
    model = method.model.eval()
    inputs: Inputs = method.represent(view())
    inputs = take(inputs, np.flatnonzero(method.can_classify(inputs)))
    limits = (warmup, calls, seconds)
    with torch.inference_mode(), method.precision():
        tensors = method.batch(inputs)
        return Latency(
            _time(lambda: method.represent(view()), "cpu", *limits),
            _time(lambda: method.batch(inputs), method.device, *limits),
            _time(lambda: model(**tensors), method.device, *limits),
        )


def _time(action: Callable[[], Any], device: str, warmup: int, calls: int, seconds: float) -> Timing:
    wait: Callable[[], None] = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    for _ in range(warmup):
        action()
    wait()
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < 5 or (len(taken) < calls and time.perf_counter() - began < seconds):
        start = time.perf_counter()
        action()
        wait()
        taken.append((time.perf_counter() - start) * 1e3)
    low, median, high = quantiles(taken, n=4)
    return Timing(low, median, high, len(taken))


@dataclass(frozen=True)
class Timed:
    """A method's latency, and what was asked of it."""

    name: str
    parameters: int  # trainable ones
    sessions: int  # of the batch
    packets: float  # of these sessions, the median
    device: str
    latency: Latency


def batch_of(store: Store, size: int, least: int) -> tuple[Samples, NDArray[np.int64]]:
    """``size`` whole sessions with payload and at least so many packets, drawn at random, and their labels ``[size]``.

    Raises :class:`InputError` where the default task has fewer.
    """
    labels = store.labels(store.default_task)
    packets = np.asarray(store.session("packets"))
    long_enough = (np.asarray(store.session("payload_packets")) > 0) & (packets >= least)
    usable = np.flatnonzero((labels != NO_CLASS) & long_enough)
    if len(usable) < size:
        what = f"{store.name} has {len(usable)} labelled sessions with payload and {least} packets or more"
        raise InputError("too-few-sessions", f"{what}, {size} are asked for; take a smaller batch or fewer packets")
    session = np.sort(np.random.default_rng(0).choice(usable, size, replace=False))
    samples = Samples(session, np.zeros(size, np.int64), packets[session].astype(np.int64))
    return samples, labels[session].astype(np.int64)


def fitted(kind: type[Method], view: View, labels: NDArray[np.int64], classes: int, device: str = "cpu") -> Method:
    """The method with its default parameters after one epoch on the view's samples, int64 ``labels [samples]``."""
    parameters = make_parameters(kind, one_pass(kind))
    method = kind(parameters, classes=classes, device=device)
    part = Part(method.represent(view), labels)
    nothing = Part({name: values[:0] for name, values in part.inputs.items()}, labels[:0])
    return learn(method, part, nothing, Monitor())


@dataclass(frozen=True)
class TimingOptions:
    """How methods are timed."""

    batch: int = 16  # sessions
    least: int = 16  # packets that each has
    calls: int = 50  # of each of a method's steps at most
    seconds: float = 30.0  # for each of these steps at most


DEFAULT_OPTIONS: Final = TimingOptions()


def timings(
    names: Sequence[str],
    store: Store,
    options: TimingOptions = DEFAULT_OPTIONS,
    *,
    device: str = "cpu",
    progress: Callable[[Timed], None] = lambda timed: None,
) -> list[Timed]:
    """`latency` of methods in their original size, on one batch of the store's sessions (:func:`batch_of`).

    ``progress`` is told each method when it is done.  Raises :class:`InputError` for a method without a network, before
    anything is timed.
    """
    kinds = {name: registry.load(name) for name in names}
    for name, kind in kinds.items():
        if not issubclass(kind, TorchMethod):
            raise InputError(
                "method-cannot-run", f"{name} has no network to time; take methods of family deep or graph"
            )
    samples, labels = batch_of(store, options.batch, options.least)
    classes, packets = len(store.classes(store.default_task)), float(np.median(samples.count))
    timed = []
    for name, kind in kinds.items():
        method = fitted(kind, View(store, samples, kind.reads), labels, classes, device)
        assert isinstance(method, TorchMethod) and method.model is not None
        size = sum(weights.numel() for weights in method.model.parameters() if weights.requires_grad)
        times = latency(method, partial(View, store, samples, kind.reads), calls=options.calls, seconds=options.seconds)
        timed.append(Timed(name, size, options.batch, packets, device, times))
        progress(timed[-1])
    return timed


def timing_table(timed: Sequence[Timed], paper: Mapping[str, float]) -> Table:
    """Table X, in the order of the paper's milliseconds by method: median and quartiles of every step.

    The last note is Spearman's rank correlation of `infer` with ``paper`` over the methods that both have.
    """
    ordered = sorted(timed, key=lambda one: (paper.get(one.name, np.inf), one.name))
    steps = ("infer", "assemble", "represent")
    rows, records = [], []
    for one in ordered:
        times = {step: getattr(one.latency, step) for step in steps}
        cells = [f"{t.median:.2f} ({t.low:.2f}, {t.high:.2f})" for t in times.values()]
        printed = f"{paper[one.name]:.2f}" if one.name in paper else "–"
        rows.append(
            [marked(one.name, _marks(one.name)), f"{one.parameters:,}", printed, *cells, str(times["infer"].calls)]
        )
        record = {"method": one.name, "parameters": one.parameters, "published_milliseconds": paper.get(one.name)}
        for step, t in times.items():
            record |= {f"{step}_{key}": value for key, value in dataclasses.asdict(t).items()}
        records.append(record)
    head = ["method", "parameters", "published ms", *(f"{step} ms" for step in steps), "calls"]
    notes = [*_conditions(ordered), *_correlation(ordered, paper)]
    return Table("milliseconds to classify a batch of sessions", head, rows, notes, records)


def _marks(name: str) -> list[str]:
    """The only mark that a method has without a run."""
    return ["reconstructed"] if is_reconstructed(registry.describe(name).deviations) else []


def _conditions(timed: Sequence[Timed]) -> list[str]:
    """What holds for all rows."""
    notes = ["ms: median (quartiles) of repeated calls after a warm-up"]
    notes += meanings(mark for one in timed for mark in _marks(one.name))
    for batch, packets, device in dict.fromkeys((one.sessions, one.packets, one.device) for one in timed):
        where = f"{device}, torch {torch.__version__}" + f", {torch.get_num_threads()} threads" * (device == "cpu")
        notes.append(f"batch of {batch} sessions, {packets:g} packets in the median; {where}")
    notes.append("infer: the network alone, as Table X; assemble: arrays to tensors; represent: captures to arrays")
    return notes


def _correlation(timed: Sequence[Timed], paper: Mapping[str, float]) -> list[str]:
    """Nothing for fewer than three methods, whose order says nothing."""
    both = [one for one in timed if one.name in paper]
    if len(both) < 3:
        return []
    from scipy.stats import spearmanr

    rho, p = spearmanr([paper[one.name] for one in both], [one.latency.infer.median for one in both])
    return [f"rank correlation with the paper (Spearman) over {len(both)} methods: {rho:.2f}, p = {p:.2g}"]
