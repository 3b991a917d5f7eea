"""A run as it is remembered, and the files that it left, held against the digests that it recorded."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from bench.data.store import Store
from bench.errors import InputError
from bench.files import file_sha256, is_of_machine
from bench.spec import RunSpec
from bench.tracking.database import Row
from bench.tracking.results import Predictions, RunResult, digests_of

Kept = TypeVar("Kept")

SPEC: Final = "bench.spec"
DEVIATION: Final = "deviation."  # and a number: one tag each, a tag is short
PURPOSE: Final = "bench.purpose"  # whom it was computed for, where the user did not ask for it: see `AUDIT`
AUDIT: Final = "audit"  # `bench audit`, for its baselines
ELSEWHERE: Final = "elsewhere"  # origin of a run whose answers another program gave: `bench.runs.scored`
IMPORTED: Final = "bench.imported"  # from which bundle; a tag of this store alone
STATE: Final = "bench.store"  # how its data set was prepared: `bench.data.manifest.Manifest.state`
SPLIT: Final = "bench.split"  # digest of its split
GIVEN: Final = "bench.given"  # `bench.method.files_of`: digests of the files that its parameters name
MODEL: Final = "bench.model"  # what became of the fitted method, where it is not kept
FILE: Final = "file."  # and a number: SHA-256 and path of a file, as sha256sum writes them
ENDLESS: Final = 1e308  # a store keeps an infinite number as its largest one
AGAIN: Final = "put back what it wrote or run it again with --rerun"
SCORED: Final = ("result.json", "predictions.npz")  # files of a run that its scores rest on
ENDS: Final = {"done": "FINISHED", "failed": "FAILED", "skipped": "FINISHED", "killed": "KILLED"}


@dataclass(frozen=True)
class Record:
    """One run as the store remembers it."""

    run_id: str
    status: str  # done, failed, skipped, killed, running (or killed without a trace)
    reason: str
    spec: RunSpec
    metrics: dict[str, float]
    leaky: bool = False
    scale: str = "full"  # or what is reduced
    transductive: bool = False
    source: str = ""  # digest of the code that made it: `bench.runs.execute.code_of`
    origin: str = ""  # where its method is from: `bench.runs.registry.origin`
    deviations: tuple[str, ...] = ()
    started: float = 0.0  # seconds since the epoch
    purpose: str = ""  # whom it was computed for, where the user did not ask for it
    deleted: str = ""  # id of a newer run of the same, which was done and was deleted on MLflow's page
    before: tuple[float, ...] = ()  # macro-F1 of older runs of the same that are done and scored something else
    imported: str = ""  # from which bundle
    model: str = ""  # what became of its fitted method, where it is not kept
    ended: float | None = None  # seconds since the epoch
    split: str = ""  # digest of its split; empty: an earlier version's run, or one that has none yet
    state: Mapping[str, str] = field(default_factory=dict)  # of its data set's store; empty: an earlier version's run
    given: Mapping[str, str] = field(default_factory=dict)  # `bench.method.files_of`; empty: its parameters name none
    files: Mapping[str, str] = field(default_factory=dict)  # SHA-256 by path; empty: made before files had digests
    artefacts: str = field(default="", compare=False)  # address of their folder
    folder: Path | None = field(default=None, compare=False)  # its artefacts, where `Tracker.load` fetched them

    @property
    def digest(self) -> str:
        """Digest of the run's specification."""
        return self.spec.digest

    @property
    def seconds(self) -> float | None:
        """Seconds from its start to its end, all told; None where it has no end."""
        return None if self.ended is None else self.ended - self.started

    @property
    def verifiable(self) -> bool:
        """Whether it has digests to hold its files against."""
        return bool(self.files)

    def other_files(self, now: Mapping[str, str]) -> str:
        """Which of the files that its parameters name are not as ``now`` (`bench.method.files_of`); empty: none."""
        names = sorted(name for name in {*self.given, *now} if self.given.get(name) != now.get(name))
        return ", ".join(f"{name} {self.given.get(name, '')[:12]}, now {now.get(name, '')[:12]}" for name in names)

    def predictions(self) -> Predictions:
        """Answers for the test part.  Raises :class:`InputError` where the run has none, or other ones than it made."""
        return self._read("predictions.npz", "predictions", Predictions.load)

    def result(self) -> RunResult:
        """Its scores, timings, environment and split.  Raises :class:`InputError` as :meth:`predictions` does."""
        return self._read("result.json", "result", RunResult.load)

    def model_folder(self) -> Path:
        """The folder of its fitted method.  Raises :class:`InputError` as :meth:`predictions` does."""
        if self.origin == ELSEWHERE:
            what = f"run {self.run_id[:8]} has no model: its answers come from elsewhere"
            raise InputError("missing-artefact", f"{what}; take a run that `bench run …` made")
        if self.folder is not None and not (self.folder / "model").exists() and (self.model or self.imported):
            gone = self.model or f"it stayed behind when {self.imported} was written"
            remedy = "run it again with --rerun" if self.model else "export it with --models, or --rerun the run"
            raise InputError("missing-artefact", f"run {self.run_id[:8]} has no model ({gone}); {remedy}")
        folder = self._place("model/method.json", "model").parent
        there = {f"model/{name}" for name in digests_of(folder)}
        for name in sorted(there | {name for name in self.files if name.startswith("model/")}):
            self._check(name)
        return folder

    def check(self) -> None:
        """Raises :class:`InputError` where what its scores rest on is there and not what the run wrote, or unreadable.

        A fitted method, which may be large, is held against its digests where it is loaded.
        """
        there = [name for name in SCORED if self.folder is not None and (self.folder / name).is_file()]
        for name in there:
            self._check(name)
        if not self.verifiable and "result.json" in there:
            self.result()

    def damaged(self, what: str, error: object = "") -> InputError:
        """That something of the run is not, or cannot be read as, what it wrote."""
        reason = f" ({type(error).__name__}: {' '.join(str(error).split()):.200})" if error else ""
        return InputError("run-damaged", f"run {self.run_id[:8]}: {what}{reason}; {AGAIN}")

    def _place(self, name: str, what: str) -> Path:
        if self.folder is None or not (self.folder / name).is_file():
            raise InputError(
                "missing-artefact", f"run {self.run_id[:8]} ({self.status}) has no {what}; run it again with --rerun"
            )
        return self.folder / name

    def _check(self, name: str) -> None:
        """Hold a file against its digest, if the run recorded any."""
        assert self.folder is not None
        path, recorded = self.folder / name, self.files.get(name, "none")
        found = file_sha256(path) if path.is_file() else "gone"
        if self.files and found != recorded:
            raise self.damaged(f"{path} is not what it wrote (SHA-256 {found[:16]}, recorded {recorded[:16]})")

    def _read(self, name: str, what: str, load: Callable[[Path], Kept]) -> Kept:
        path = self._place(name, what)
        self._check(name)
        try:
            return load(path)
        except Exception as error:  # of a zip file, JSON, an array; whatever a foreign file brings about
            if is_of_machine(error):
                raise
            raise self.damaged(f"its {what} cannot be read", error) from error

    def check_store(self, store: Store) -> None:
        """Raises :class:`InputError` unless the store has the rows that the run names."""
        if self.spec.store not in ("", store.digest):
            raise InputError(
                "store-changed", f"{store.name} was prepared again since run {self.run_id[:8]}; run it again"
            )


def status_of(row: Row) -> str:
    """The word of `ENDS` where the run was closed by us, else what MLflow says."""
    return row.status.lower() if row.status in ("RUNNING", "KILLED") else row.tags.get("status", "failed")


def record_of(row: Row) -> Record:
    """A row of the store as a record.  Raises :class:`InputError` where it cannot be read."""
    try:
        return _record_of(row)
    except (InputError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        what = f"its record cannot be read ({type(error).__name__}: {error})"
        raise InputError("run-damaged", f"run {row.run_id[:8]}: {what}; delete that run (`bench ui`)") from error


def _record_of(row: Row) -> Record:
    tags = row.tags
    lines = (tags[key].partition("  ") for key in tags if key.startswith(FILE))
    for time in (row.started, row.ended or 0):
        datetime.fromtimestamp(time / 1000)  # raises for what no calendar has
    return Record(
        run_id=row.run_id,
        status=status_of(row),
        reason=tags.get("reason", ""),
        spec=RunSpec.from_dict(json.loads(tags[SPEC])),
        metrics={name: _whole(value) for name, value in row.metrics.items()},
        leaky=tags.get("leaky") == "true",
        scale=tags.get("scale", "full"),
        transductive=tags.get("transductive") == "true",
        source=tags.get("source", ""),
        origin=tags.get("origin", ""),
        deviations=tuple(tags[key] for key in sorted(tags) if key.startswith(DEVIATION)),
        started=row.started / 1000,
        purpose=tags.get(PURPOSE, ""),
        imported=tags.get(IMPORTED, ""),
        model=tags.get(MODEL, ""),
        ended=None if row.ended is None else row.ended / 1000,
        split=tags.get(SPLIT, ""),
        state=_texts(tags.get(STATE, "")),
        given=_texts(tags.get(GIVEN, "")),
        files={name: digest for digest, _, name in lines},
        artefacts=row.artefacts,
    )


def _whole(value: float) -> float:
    """A number as it was recorded."""
    return math.copysign(math.inf, value) if abs(value) >= ENDLESS else value


def _texts(text: str) -> dict[str, str]:
    try:
        return {str(name): str(value) for name, value in json.loads(text).items()}
    except (ValueError, AttributeError):
        return {}


def shown(records: Iterable[Record]) -> list[Record]:
    """Of each run that was asked for the one that tables show, of records newest first: the newest that is done, else
    the newest.

    It keeps what older ones scored that came to another score: on another machine, or by other code.
    """
    runs: dict[Any, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.status != "done"):
        runs.setdefault(_asked(record.spec), []).append(record)
    return [dataclasses.replace(newest, before=_other_scores(newest, older)) for newest, *older in runs.values()]


def _asked(spec: RunSpec) -> Any:
    """What a run is the answer to: its specification; where a search found its parameters, without these."""
    return (spec.but_place.digest, spec.place) if spec.tuned else spec.digest


def _other_scores(newest: Record, older: Iterable[Record]) -> tuple[float, ...]:
    done = [record.metrics.get("macro_f1", math.nan) for record in older if record.status == "done"]
    return tuple(score for score in done if differs(score, newest.metrics.get("macro_f1", math.nan)))


def differs(one: float, other: float) -> bool:
    """Whether two scores of a run are two: further apart than sums round; none is no other."""
    return not (math.isnan(one) or math.isnan(other) or math.isclose(one, other, abs_tol=1e-6))


def after_deletion(record: Record, deleted: Mapping[str, Row]) -> Record:
    """The record, marked where a newer run of its digest is among the ``deleted`` ones."""
    gone = deleted.get(record.digest)
    is_newer = gone is not None and record.status == "done" and gone.started / 1000 > record.started
    return dataclasses.replace(record, deleted=gone.run_id) if gone is not None and is_newer else record


def asked_for(records: Sequence[Record], *, audits: bool = False) -> tuple[list[Record], str]:
    """Records without those that only an audit asked for, unless they are wanted; and a note on how many that are."""
    kept = [record for record in records if audits or record.purpose != AUDIT]
    left = len(records) - len(kept)
    what = "more run was made by an audit and is" if left == 1 else "more runs were made by an audit and are"
    return kept, f"{left} {what} left out; `bench table --audits` shows all" if left else ""


def matches(spec: RunSpec, wanted: Mapping[str, Any]) -> bool:
    """Whether a specification has all wanted values; None asks nothing."""
    fields = spec.to_dict()
    return all(
        fields.get(key) in (value if isinstance(value, list | tuple | set) else [value])
        for key, value in wanted.items()
        if value is not None
    )
