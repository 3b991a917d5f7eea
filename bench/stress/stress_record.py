"""What a stress test finds, as one record that is saved, read again and printed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

from bench.errors import InputError
from bench.files import plain, read_json, write_json
from bench.structure import FieldError

METRICS: Final = ("macro_f1", "accuracy")
CALIBRATION: Final = ("log_loss", "log_loss_after", "calibration_error", "calibration_error_after")
SCORED: Final = "scored"
NOT_READ: Final = "not read"  # the method reads nothing of what is changed
FAILED: Final = "failed"  # it raised an error
SAME: Final = "no input changes"  # it reads it, and what it makes of it stays


@dataclass(frozen=True)
class Compared:
    """A score, and its difference from the run's own on the same samples; 95 % intervals."""

    value: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float


def _check_ends(name: str, scores: Mapping[str, list[float]]) -> None:
    if sorted(scores) != sorted(METRICS) or any(len(ends) != 3 for ends in scores.values()):
        raise FieldError(name, f"must have a score and two ends of each of {', '.join(METRICS)}")


@dataclass(frozen=True)
class Changed:
    """The fitted method on changed test samples."""

    change: str
    status: str  # `SCORED`, `NOT_READ`, `SAME` or `FAILED`
    samples: int | None = None  # of which the inputs changed; None: not looked at
    scores: dict[str, Compared] = field(default_factory=dict)  # by `METRICS`; empty: the run's own, or none
    reason: str = ""  # of a failure


@dataclass(frozen=True)
class Calibration:
    """Before and after a temperature that is fitted on the validation part; all but it on the test part."""

    reason: str = ""  # why there is none; then nothing else holds
    validation: int = 0  # samples
    temperature: float = 1.0
    log_loss: float = 0.0  # nats
    log_loss_after: float = 0.0
    calibration_error: float = 0.0
    calibration_error_after: float = 0.0
    intervals: dict[str, list[float]] = field(default_factory=dict)  # with a value and two ends: of these four and
    # of their differences; empty: tested by an earlier version

    def __post_init__(self) -> None:
        names = [*CALIBRATION, *(f"{name}_difference" for name in CALIBRATION[::2])]
        if self.intervals and sorted(self.intervals) != sorted(names):
            raise FieldError("intervals", f"must be of {', '.join(names)}")
        if any(len(ends) != 3 for ends in self.intervals.values()):
            raise FieldError("intervals", "must have a value and two ends each")


@dataclass(frozen=True)
class FewLabels:
    """The method fitted anew on few labelled training samples of each class."""

    labels: int  # of each class at most
    reason: str = ""  # why there is no score
    samples: int = 0  # training samples in all
    scores: dict[str, Compared] = field(default_factory=dict)


@dataclass(frozen=True)
class Unknown:
    """The method fitted anew without a class, which is then to be told from the others by confidence."""

    class_: str
    reason: str = ""  # why there is no score
    known: int = 0  # test samples of the other classes
    unknown: int = 0  # of this one
    auroc: float = 0.0
    auroc_low: float = 0.0
    auroc_high: float = 1.0
    fpr: float = 1.0  # where 95 % of the known are taken for known
    fpr_low: float = 0.0
    fpr_high: float = 1.0


@dataclass(frozen=True)
class OtherSetup:
    """The fitted method on another data set, by the classes that both have; scores with the ends of their intervals."""

    dataset: str
    task: str
    store: str  # digest
    classes: list[str]  # that both have
    classes_missing: list[str]  # of the run alone
    classes_unknown: list[str]  # of the other data set alone
    sessions_left_out: dict[str, int]  # of the other data set, by reason
    samples: int
    interval_groups: int  # of its tested class that has the fewest
    scores: dict[str, list[float]]
    own_samples: int  # of the run's test part that are of these classes
    own_interval_groups: int
    own: dict[str, list[float]]
    rules: str = ""  # how its captures were read otherwise than the run's

    def __post_init__(self) -> None:
        for name in ("scores", "own"):
            _check_ends(name, getattr(self, name))


@dataclass(frozen=True)
class Stress:
    """All of it, for one run."""

    run: str
    method: str  # with settings and marks, as tables call it
    dataset: str
    task: str
    split: str
    seed: int
    fold: int | None
    samples: int  # of the test part
    groups: str  # over which intervals are taken
    interval_groups: int  # of the tested class that has the fewest
    reads: list[str]
    own: dict[str, list[float]]  # by metric the run's score and the ends of its interval
    changed: list[Changed]
    calibration: Calibration
    few_labels: list[FewLabels] = field(default_factory=list)
    unknown: list[Unknown] = field(default_factory=list)
    other: list[OtherSetup] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        _check_ends("own", self.own)
        scored = [one.scores for one in self.changed if one.status == SCORED]
        scored += [one.scores for one in self.few_labels if not one.reason]
        if any(sorted(scores) != sorted(METRICS) for scores in scored):
            raise FieldError("scores", f"must be of {', '.join(METRICS)}")

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        content: dict[str, Any] = plain(self)
        return content

    def with_earlier(self, results: Path) -> Self:
        """With what an earlier test of the run, as far as one is saved that can be read, found beside this one."""
        try:
            before = self.load(self._place(results))
        except InputError:
            return self
        few = {one.labels: one for one in (*before.few_labels, *self.few_labels)}
        unknown = {one.class_: one for one in (*before.unknown, *self.unknown)}
        other = {(one.dataset, one.task): one for one in (*before.other, *self.other)}
        return replace(
            self,
            few_labels=[few[labels] for labels in sorted(few)],
            unknown=list(unknown.values()),
            other=list(other.values()),
            notes=list(dict.fromkeys([*self.notes, *before.notes])),
        )

    def save(self, results: Path) -> Path:
        """Write it below a results folder, over what is there of the run; gives the file.

        Raises :class:`InputError` where it cannot be written.
        """
        path = self._place(results)
        write_json(path, self.to_dict())
        return path

    def _place(self, results: Path) -> Path:
        return results / "stress" / f"{self.run}.json"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a saved one.  Raises :class:`InputError` where the file is none."""
        return read_json(path, cls, "a stress test; run `bench stress …` again or remove the file")
