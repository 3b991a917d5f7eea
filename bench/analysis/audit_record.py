"""What an audit finds, as one record that is saved, read again and printed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Self

from bench.analysis.capture_setup import ClassSetUp
from bench.files import plain, read_json
from bench.spec import NEW_FIELDS
from bench.tracking.results import SHARED

METRICS: Final = ("accuracy", "macro_f1")  # that are told of runs


@dataclass(frozen=True)
class ClassCount:
    """One class, counted before any split."""

    class_: str
    samples: int
    sessions: int
    conversations: int
    captures: int  # capture groups
    few: bool  # too few of these to divide by capture


@dataclass(frozen=True)
class Duplicates:
    """Equal payload in a set of samples."""

    of: str  # which samples: "all", "with payload"
    samples: int
    repeated: float  # share of samples that equal another one
    of_several_classes: float  # share that equal one of another class
    ceiling: float | None  # the best accuracy from payload alone; None of no sample


@dataclass(frozen=True)
class Ceiling:
    """The best accuracy that any classifier can have on what a method reads; None where there is none to tell."""

    method: str
    parameters: dict[str, Any]
    reason: str = ""  # why there is none
    preset: str = ""  # that the parameters are
    origin: str = ""  # where a method that is not shipped is from
    all: float | None = None  # samples
    with_payload: float | None = None
    test: dict[str, float | None] = field(default_factory=dict)  # by split: of its test part


@dataclass(frozen=True)
class SplitAudit:
    """What training and test part of a split share, in samples."""

    split: str
    impossible: str = ""  # why there is no such split; then nothing else holds
    train: int = 0
    validation: int = 0
    test: int = 0
    leaky: bool = False
    reduced: bool = False
    proof: list[str] = field(default_factory=list)
    shared: dict[str, int] = field(default_factory=dict)  # ``test_in_training_...``: windows, sessions, payload ...
    repeated_train: int = 0  # samples whose payload another one of the part has
    repeated_test: int = 0

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote."""
        names = {one.name for one in fields(cls)}
        own = {name: value for name, value in content.items() if name in names}
        shared = {name: value for name, value in content.items() if name.startswith(SHARED) and name not in names}
        return cls(**own | {"shared": shared})

    def to_dict(self) -> dict[str, Any]:
        """Flat, ready for JSON."""
        if self.impossible:
            return {"split": self.split, "impossible": self.impossible}
        flat = {one.name: getattr(self, one.name) for one in fields(self)}
        result: dict[str, Any] = flat | flat.pop("shared")
        return result


@dataclass(frozen=True)
class ScoredRun:
    """A run of a split: what it saw, what became of it, and how far it is from the ceiling of its test part."""

    split: str
    method: str
    parameters: dict[str, Any]
    preset: str = ""
    family: str = ""
    sees: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)  # what is taken away
    status: str = "done"
    reason: str = ""
    run_id: str = ""
    scale: str = "full"
    leaky: bool = False
    reconstructed: bool = False
    origin: str = ""  # where a method that is not shipped is from
    unverified: bool = False  # its files have no digests to hold them against
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    macro_f1: float | None = None
    macro_f1_low: float | None = None
    macro_f1_high: float | None = None
    interval_groups: float | None = None  # of the tested class that has the fewest; None: a run of an earlier version
    abstentions: float | None = None
    ceiling: float | None = None
    gap: float | None = None


@dataclass(frozen=True)
class SetUpScore:
    """What the capture set-up alone, or one feature of it, scores on a split's test part."""

    split: str
    feature: str  # a name of `bench.analysis.setup_features.FEATURES`, or its `ALL`
    values: int  # how many it has in training
    accuracy: float
    macro_f1: float
    f1: dict[str, float]  # by class
    chance_accuracy: float  # of training's most frequent class
    chance_macro_f1: float  # of that, or of guessing by frequency, which has 1 / classes
    best: float | None = None  # macro-F1 of the split's best run, if that is above chance
    best_method: str = ""

    @property
    def reach(self) -> float:
        """Of the way from chance to the best run's macro-F1 (to 1 where none is known): the share that it goes."""
        way = (1.0 if self.best is None else self.best) - self.chance_macro_f1
        return (self.macro_f1 - self.chance_macro_f1) / way if way > 0 else 0.0


@dataclass(frozen=True)
class Audit:
    """Everything that an audit finds."""

    dataset: str
    task: str
    store: str  # digest
    seed: int = 0
    filter: str = "none"
    sampling: str = "session"
    balance: str | None = None
    min_per_class: int | None = None
    min_groups: int | None = None
    max_per_class: int | None = None
    samples: int = 0  # that filter and sampling leave; the next four are about these, before any split
    classes: list[ClassCount] = field(default_factory=list)
    of_several_classes: dict[str, int] = field(default_factory=dict)  # conversations and captures with several classes
    capture_set_up: list[ClassSetUp] = field(default_factory=list)  # of all sessions of the task; none: not looked at
    silent_captures: int = 0  # that hold no session, and so count for no class
    compared: str = "payload"  # by what samples are copies of each other
    content: dict[str, float] = field(default_factory=dict)  # shares of sessions by their first payload bytes
    duplicates: list[Duplicates] = field(default_factory=list)
    ceilings: list[Ceiling] = field(default_factory=list)
    splits: list[SplitAudit] = field(default_factory=list)
    set_up_scores: list[SetUpScore] = field(default_factory=list)
    scores: list[ScoredRun] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        content: dict[str, Any] = plain(self)
        return content | {"splits": [row.to_dict() for row in self.splits]}

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a saved audit.  Raises :class:`InputError` where the file is none."""
        return read_json(path, cls, "an audit; run `bench audit …` again or remove the file")

    def option_labels(self, of_split: bool = True) -> list[str]:
        """The options that are not as usual, a text each; those of splits, too, if ``of_split``."""
        names = ("filter", *(("balance", "min_per_class", "min_groups", "max_per_class") if of_split else ()))
        words = [f"{name}={getattr(self, name)}" for name in names if getattr(self, name) != NEW_FIELDS.get(name)]
        return [*([self.sampling] if self.sampling != NEW_FIELDS["sampling"] else []), *words]

    @property
    def labels(self) -> list[str]:
        """Data set, task and all that is not as usual: two audits of one list are one audit."""
        seed = [f"seed={self.seed}"] if self.seed else []
        return [self.dataset, self.task, *self.option_labels(), *seed]
