"""A finished run's fitted method on changed test samples, calibrated, and fitted anew on less.

Nothing is remembered in the store of runs: the run stays what it is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.analysis.paired import group_label_of
from bench.analysis.tables import Row, notes_of
from bench.data.store import Store
from bench.errors import InputError
from bench.method import Inputs, Method, files_of, reason_to_skip
from bench.readers import Ragged, View
from bench.runs.attempt import represent_parts
from bench.runs.models import fitted
from bench.runs.run_labels import marked
from bench.scores.confidence import HIGHEST, fit_temperature, over_groups, tempered, without_each
from bench.scores.jackknife import GroupJackknife
from bench.scores.metrics import decide
from bench.spec import named_seed
from bench.splits.split import Split, make_split
from bench.stress.changes import Change, changes
from bench.stress.other_setups import OtherTask, on_other
from bench.stress.refits import Refits, left_out_classes
from bench.stress.sampled import SampledStore
from bench.stress.stress_record import (
    FAILED,
    METRICS,
    NOT_READ,
    SAME,
    SCORED,
    Calibration,
    Changed,
    Compared,
    FewLabels,
    Stress,
    Unknown,
)
from bench.tracking.record import Record

CLOSE: Final = 1e-3  # how far answers may be from the run's: another processor rounds otherwise
Answers = NDArray[np.float32]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class StressRequest:
    """What is asked beside changes and calibration.  Raises :class:`InputError` for what cannot be."""

    labels: tuple[int, ...] = ()  # a refit for each: training samples of each class
    open_set: tuple[str, ...] = ()  # a refit for each class, or ("all",)
    multiple: int = 128  # bytes that packet lengths are padded to
    device: str = "cpu"
    other: tuple[tuple[Store, str], ...] = ()  # other data sets to ask about, each with a task or "" for its default

    def __post_init__(self) -> None:
        if any(number < 1 for number in self.labels):
            raise InputError("bad-options", f"--labels {min(self.labels)}: give 1 or more labels a class")
        changes(self.multiple)


@dataclass(frozen=True)
class _Tested:
    """The test part as the fitted method got it, with its answers."""

    method: Method
    store: SampledStore
    inputs: Inputs
    used: frozenset[str]
    truth: NDArray[np.int64]
    groups: NDArray[np.int64]
    answers: Answers

    def compared(self, answers: Answers) -> dict[str, Compared]:
        """Scores of other answers beside those of the run's own."""
        both = [decide(answers), decide(self.answers)]
        jackknife = GroupJackknife(self.truth, both, self.groups, classes=answers.shape[1])
        scores = {}
        for metric in METRICS:
            score, difference = jackknife.score(0, metric), jackknife.difference(0, 1, metric)
            scores[metric] = Compared(score.value, *score.score_interval(), difference.value, *difference.interval())
        return scores


def stress(
    record: Record,
    store: Store,
    request: StressRequest,
    named: Sequence[str] = (),
    progress: Progress = lambda line: None,
) -> Stress:
    """Put a run that `Tracker.load` gave to the test; ``named`` are methods in files that the user allows to run.

    Raises :class:`InputError` for a run without a model, a store or split that is not the run's, and a model that does
    not answer as the run did.
    """
    record.check_store(store)
    method, kept = fitted(record, named, device=request.device), record.predictions()
    split = make_split(store, record.spec.task, record.spec.split)
    left_out = left_out_classes(request.open_set, kept.classes)
    others = [OtherTask.of(other, task, store, kept.classes) for other, task in request.other]
    for one in others:
        if reason := reason_to_skip(type(method), method.parameters, one.store):
            raise InputError("method-cannot-run", f"--other {one.store.name}: {record.spec.method}: {reason}")
    asked = [one.samples(store, split.spec) for one in others]  # now: it refuses where nothing is left
    tested = _tested(record, method, store, split)
    jackknife = GroupJackknife(tested.truth, [decide(tested.answers)], tested.groups, classes=len(kept.classes))
    own = {metric: jackknife.score(0, metric) for metric in METRICS}
    changed = [_changed(record, tested, one, progress) for one in changes(request.multiple)]
    progress("calibration")
    calibration = _calibration(tested, store, split)
    own_answers = (tested.truth, decide(tested.answers), tested.groups)
    elsewhere = []
    for one, some_ in zip(others, asked, strict=True):
        progress(f"on {one.store.name}")
        elsewhere.append(on_other(one, some_, method, (split.spec, kept.classes), own_answers))
    few, unknown = _refitted(record, tested, store, split, (request, left_out), progress)
    spec, row = record.spec, Row([record], [])
    return Stress(
        run=record.run_id,
        method=marked(row.method, row.marks),
        dataset=spec.dataset,
        task=spec.task,
        split=spec.split.label,
        seed=spec.split.seed,
        fold=spec.split.fold,
        samples=len(tested.truth),
        groups=group_label_of(record),
        interval_groups=jackknife.counts.smallest,
        reads=sorted(tested.used),
        own={metric: [score.value, *score.score_interval()] for metric, score in own.items()},
        changed=changed,
        calibration=calibration,
        few_labels=few,
        unknown=unknown,
        other=elsewhere,
        notes=notes_of([row], False),
    )


def _tested(record: Record, method: Method, store: Store, split: Split) -> _Tested:
    """Represent the test part and ask.  Raises :class:`InputError` where the run was tested on, or answered, else."""
    kept, order = record.predictions(), split.order("test")
    same = np.array_equal(kept.session, split.test.session) and np.array_equal(kept.first, split.test.first)
    if not same or record.split not in ("", split.digest):
        what = f"run {record.run_id[:8]} had another split than is made today"
        raise InputError("run-mismatch", f"{what}; run it again with --rerun")
    sampled = SampledStore.of(store, split.test.take(order))
    view = View(sampled, sampled.samples, method.reads)
    inputs = method.represent(view)
    answers, known = method.predict_proba(inputs), kept.probabilities[order]
    if not np.allclose(answers, known, atol=CLOSE, equal_nan=True):
        what = f"run {record.run_id[:8]}: its model does not answer as the run did"
        raise InputError("run-mismatch", f"{what}, other code or another processor may have made it; --rerun the run")
    return _Tested(method, sampled, inputs, view.used, kept.truth[order], kept.groups[order], answers)


def _changed(record: Record, tested: _Tested, change: Change, progress: Progress) -> Changed:
    """One change: answered anew only where it changes what the method reads."""
    if not tested.used & change.touches:
        return Changed(change.name, NOT_READ)
    progress(change.name)
    draw = np.random.default_rng(named_seed(record.spec.digest, "stress", change.name))
    store = change.make(tested.store, draw)
    try:
        inputs = tested.method.represent(View(store, store.samples, tested.method.reads))
        number = int(differing(tested.inputs, inputs).sum())
        if not number:
            return Changed(change.name, SAME, 0)
        return Changed(change.name, SCORED, number, tested.compared(tested.method.predict_proba(inputs)))
    except InputError:  # of captures
        raise
    except Exception as error:  # whatever a method says of what it has never seen
        return Changed(change.name, FAILED, reason=f"{type(error).__name__}: {' '.join(str(error).split())}")


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Of which samples the inputs, arrays ``[samples, …]`` or `Ragged`, differ: bool ``[samples]``."""
    found = [_rows_differ(one[name], other[name]) for name in one]
    differ: NDArray[np.bool_] = np.any(found, axis=0)
    return differ


def _rows_differ(one: Any, other: Any) -> NDArray[np.bool_]:
    if not isinstance(one, Ragged):
        unequal = ~((one == other) | ((one != one) & (other != other)))  # NaN is not NaN
        differ: NDArray[np.bool_] = unequal.reshape(len(one), -1).any(axis=1)
        return differ
    out: NDArray[np.bool_] = one.sizes != other.sizes
    alike = np.flatnonzero(~out)
    values, others = one[alike], other[alike]
    rows = values.rows[_rows_differ(values.values, others.values)] if len(values.values) else np.zeros(0, np.int64)
    out[alike[np.unique(rows)]] = True
    return out


def _calibration(tested: _Tested, store: Store, split: Split) -> Calibration:
    """A temperature of the validation part, and what it does to the test part."""
    if not len(split.validation):
        return Calibration("the split has no validation part")
    part = represent_parts(tested.method, store, split, ["validation"])["validation"]
    known = tested.method.predict_proba(part.inputs)
    if np.isnan(known).any(axis=1).all() or np.isnan(tested.answers).any(axis=1).all():
        return Calibration("the method abstains from all")
    temperature = fit_temperature(part.labels, known)
    before, after = (
        without_each(tested.truth, answers, tested.groups)
        for answers in (tested.answers, tempered(tested.answers, temperature))
    )
    intervals = {}
    for name, most in HIGHEST.items():
        intervals[name] = [*over_groups(before[name], 0.0, most)]
        intervals[f"{name}_after"] = [*over_groups(after[name], 0.0, most)]
        intervals[f"{name}_difference"] = [*over_groups(after[name] - before[name], -most, most)]
    return Calibration(
        validation=len(part),
        temperature=temperature,
        log_loss=intervals["log_loss"][0],
        log_loss_after=intervals["log_loss_after"][0],
        calibration_error=intervals["calibration_error"][0],
        calibration_error_after=intervals["calibration_error_after"][0],
        intervals=intervals,
    )


def _refitted(
    record: Record,
    tested: _Tested,
    store: Store,
    split: Split,
    asked: tuple[StressRequest, list[str]],
    progress: Progress,
) -> tuple[list[FewLabels], list[Unknown]]:
    """What the method is worth with few labels, and against classes that it does not know."""
    request, left_out = asked
    if not (request.labels or left_out):
        return [], []
    if others := record.other_files(files_of(type(tested.method), record.spec.parameters)):
        what = f"run {record.run_id[:8]} was made from other files ({others})"
        raise InputError("run-mismatch", f"{what}; run it again with --rerun")
    refits = Refits.of(record.spec, type(tested.method), store, split, request.device)
    few, unknown = [], []
    for number in request.labels:
        progress(f"{number} labels a class")
        few.append(refits.few_labels(number, tested.compared))
    for name in left_out:
        progress(f"without {name}")
        unknown.append(refits.without(name))
    return few, unknown
