"""What a finished run leaves: its answers for the test part and its scores, as records with files of their own."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from bench.files import file_sha256, read_json, reading, write_json
from bench.scores.metrics import Scores, are_probabilities
from bench.spec import RunSpec, Sampling, parse_sampling
from bench.splits.assignment import PARTS

SEEN: Final = "test_in_training_"  # and a kind: test samples that training has seen
SHARED: Final = (SEEN, "shared_", "repeated")  # how counts of what parts share begin


def digests_of(folder: Path) -> dict[str, str]:
    """SHA-256 (hex) of every file below a folder, by its path there.

    Raises :class:`InputError` for one that cannot be read.
    """
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with reading(path):
            found[path.relative_to(folder).as_posix()] = file_sha256(path)
    return found


@dataclass(frozen=True)
class Predictions:
    """What a run answered for its test part."""

    classes: list[str]
    session: NDArray[np.int64]  # [samples] session rows of the store
    first: NDArray[np.int64]  # [samples] first packet of the window, within the session
    truth: NDArray[np.int64]  # [samples]
    groups: NDArray[np.int64]  # [samples]; never parted by the split
    probabilities: NDArray[np.float32]  # [samples, classes]; NaN: abstained

    @property
    def questions(self) -> str:
        """Digest of all but the answers, the same for all runs of one split on one store; 16 hex digits."""
        state = hashlib.sha256("\0".join(self.classes).encode())
        for column in (self.session, self.first, self.truth, self.groups):
            state.update(column.astype("<i8").tobytes())
        return state.hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Write an .npz without pickle."""
        np.savez_compressed(path, **{**self.__dict__, "classes": np.array(self.classes, dtype=np.str_)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote.  Raises ValueError where its arrays do not fit together."""
        with np.load(path, allow_pickle=False) as file:
            made = cls(**{**dict(file), "classes": file["classes"].tolist()})
        rows = {made.session.shape, made.first.shape, made.truth.shape, made.groups.shape, made.probabilities.shape[:1]}
        if len(rows) != 1 or made.probabilities.shape[1:] != (len(made.classes),):
            raise ValueError("its arrays are not equally long")
        if len(made.truth) and not (0 <= made.truth.min() and made.truth.max() < len(made.classes)):
            raise ValueError("it names a class that it does not have")
        if len(set(made.classes)) < len(made.classes):
            raise ValueError("it has a class twice")
        made._check_probabilities()
        return made

    def _check_probabilities(self) -> None:
        """Raises ValueError where a row is neither that of an abstention nor of probabilities."""
        if self.probabilities.dtype.kind != "f" or {self.truth.dtype.kind, self.session.dtype.kind} != {"i"}:
            raise ValueError("its arrays are of other types")
        if not are_probabilities(self.probabilities):
            raise ValueError("its answers are no probabilities: a row is negative or does not sum to 1")


@dataclass(frozen=True)
class SplitSummary:
    """What is kept of a run's split; all that `Split.summary` tells stands in ``fields``."""

    samples: dict[str, int] = field(default_factory=dict)  # by part
    groups: dict[str, int] = field(default_factory=dict)  # by part
    sampling: str = "session"
    fields: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `Split.summary` gave."""
        own = {name: fields[name] for name in ("samples", "groups", "sampling") if name in fields}
        return cls(**own, fields=dict(fields))

    @property
    def shared(self) -> dict[str, int]:
        """Every count of what parts share."""
        return {name: value for name, value in self.fields.items() if name.startswith(SHARED)}

    @property
    def seen(self) -> dict[str, int]:
        """Test samples of which training has something, by what it has of them."""
        return {name.removeprefix(SEEN): n for name, n in self.shared.items() if name.startswith(SEEN) and _whole(n)}

    @property
    def classes(self) -> dict[str, dict[str, int]]:
        """Samples of each class by `PARTS`; empty where a run of an earlier version did not keep them."""
        found = self.fields.get("classes")
        whole = isinstance(found, dict) and all(
            isinstance(counts, dict) and all(_whole(counts.get(part)) for part in PARTS) for counts in found.values()
        )
        return dict(found or {}) if whole else {}

    @property
    def windows(self) -> Sampling:
        """How sessions became samples."""
        return parse_sampling(self.sampling)

    @property
    def distinct_training_samples(self) -> int:
        """Training samples without those that re-sampling repeats."""
        return self.samples["train"] - int(self.fields.get("repeated", 0))


def _whole(number: object) -> bool:
    return isinstance(number, int) and number >= 0


@dataclass(frozen=True)
class RunResult:
    """The content of a run's ``result.json``."""

    spec: RunSpec
    metrics: dict[str, float]
    scores: Scores
    parameters: dict[str, Any]  # all of the method's
    deviations: list[str]  # from its paper
    environment: dict[str, Any]  # see `bench.environment`
    split: SplitSummary
    reads: list[str] = field(default_factory=list)  # what the method read, of what it declares
    given: dict[str, str] = field(default_factory=dict)  # files that its parameters name: `bench.method.files_of`
    ingest: dict[str, Any] | None = None  # how the store's captures were read (`IngestOptions.unusual`); None: not told

    def save(self, path: Path) -> None:
        """Write JSON."""
        content = {"spec": self.spec.to_dict(), "metrics": self.metrics, "scores": self.scores.to_dict()}
        own = ("parameters", "reads", "deviations", "environment", "given", "ingest")
        content |= {name: getattr(self, name) for name in own}
        write_json(path, content | {"split": dict(self.split.fields)}, allow_nan=True)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote.  Raises :class:`InputError` naming the file where it is something else."""
        return read_json(path, cls, "a run's result")
