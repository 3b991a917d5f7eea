"""From what is asked of methods and data sets to the runs: names to declarations, texts to values, one matrix.

And what that matrix would cost here: what is done, who else is at it, how long the rest takes (`Plan`, `Forecast`).
"""

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bench.data.store import Store
from bench.environment import cores, memory
from bench.errors import InputError, counted, instead
from bench.files import file_sha256, instead_of_file, plain, read_json, shipped_folder, write_json
from bench.method import files_of, make_parameters
from bench.runs.registry import Outline, describe, is_shipped
from bench.schema import NO_CLASS
from bench.spec import PAPER_PER_CLASS, RunSpec, Settings, SplitSpec
from bench.splits.groups import settled
from bench.splits.split import check_request, make_split

if TYPE_CHECKING:  # words are checked here, too, without the store of runs
    from bench.tracking.claims import Holder
    from bench.tracking.tracker import Tracker

WORTH_PROCESSES: Final = 120.0  # seconds of a matrix on one core
MEMORY_EACH: Final = 4 << 30  # bytes of a process; a network's training takes up to 1.6 GB, a large forest more
MOST_RUNS: Final = 1_000_000  # of one matrix, which is in memory
WHOLE: Final = SplitSpec()  # whole sessions, split as the data set can be
DEFAULTS: Final = Settings()


def expand(
    methods: Sequence[str],
    stores: Sequence[Store],
    split: SplitSpec = WHOLE,
    *,
    task: str | None = None,
    seeds: Sequence[int] = (0,),
    settings: Settings = DEFAULTS,
) -> list[RunSpec]:
    """The matrix, in the order data set, method, seed, fold.

    ``split`` stands for all its folds and all ``seeds``, and ``auto`` for what it is on each store; ``task`` is each
    data set's default one where not given.
    Raises :class:`InputError` for a parameter or preset that no method has, and for what cannot be for any run.
    """
    outlines, parameters, split = settled_words(methods, split, settings)
    sources = {name: None if is_shipped(name) else outline.digest for name, outline in outlines.items()}
    splits = {store.name: settled(store, task or store.default_task, split)[0] for store in stores}
    for store in stores:  # what cannot be for any run is told before the first
        _check(store, task or store.default_task, splits[store.name])
    number = len(methods) * len(seeds) * sum(len(one.each_fold()) for one in splits.values())
    if number > MOST_RUNS:
        what = f"{counted(number, 'run')} are more than the {MOST_RUNS:,} that one command takes"
        raise InputError("bad-options", f"{what}; ask for fewer seeds or folds")
    return [
        RunSpec(
            method=method,
            dataset=store.name,
            task=task or store.default_task,
            split=dataclasses.replace(one, seed=seed),
            parameters=parameters[method],
            store=store.digest,
            source=sources[method],
        )
        for store in stores
        for method, seed, one in product(methods, seeds, splits[store.name].each_fold())
    ]


def settled_words(
    methods: Sequence[str], split: SplitSpec, settings: Settings
) -> tuple[dict[str, Outline], dict[str, dict[str, Any]], SplitSpec]:
    """Declarations and parameters by method, and the split with its file's digest: what needs no data set.

    Raises :class:`InputError` as :func:`expand` does, and for a file that a parameter names and that is not there.
    """
    outlines = {name: describe(name) for name in methods}
    if settings.file is not None and len(outlines) != 1:
        raise InputError("bad-options", f"{settings.file} holds the parameters of one method; give one method")
    parameters = {name: resolve(name, outlines, settings) for name in outlines}
    for name, outline in outlines.items():
        files_of(outline, parameters[name])
    if split.path is not None:
        split = dataclasses.replace(split, file=str(split.path.absolute()), file_digest=split_digest(split.path))
    return outlines, parameters, split


def chosen(method: str, outlines: Mapping[str, Outline], settings: Settings) -> dict[str, Any]:
    """Parameters of one method of a matrix that the settings name, by name, at their defaults or not.

    Raises :class:`InputError` for a preset that no method of the matrix has.
    """
    outline, preset = outlines[method], settings.preset
    known = {name for other in outlines.values() for name in other.defaults}
    if preset is not None and not any(preset in other.presets for other in outlines.values()):
        there = dict.fromkeys(name for other in outlines.values() for name in other.presets)
        what = f"{', '.join(outlines)}: no preset {preset!r}; {instead(preset, there)}"
        raise InputError("unknown-preset", f"{what} (`bench methods NAME` shows those of each)")
    named = dict(outline.presets.get(preset, {})) if preset else {}
    named |= read_parameters(settings.file, method) if settings.file else {}
    named |= {name: v for name, v in settings.values.items() if name in outline.defaults or name not in known}
    if settings.epochs is not None and "epochs" in outline.defaults:
        named["epochs"] = settings.epochs
        if "steps" in outline.defaults and "steps" not in settings.values:
            named["steps"] = None  # passes over the training part were asked for
    return named


def resolve(method: str, outlines: Mapping[str, Outline], settings: Settings) -> dict[str, Any]:
    """Parameters of one method of a matrix that differ from its defaults, by name and in their types.

    Raises :class:`InputError` as :func:`chosen` does, and for a value that cannot be.
    """
    outline = outlines[method]
    parameters = make_parameters(outline, chosen(method, outlines, settings))
    return {
        name: getattr(parameters, name)
        for name, default in outline.defaults.items()
        if getattr(parameters, name) != default
    }


def _check(store: Store, task: str, split: SplitSpec) -> None:
    if len(present := np.setdiff1d(store.labels(task), [NO_CLASS])) < 2:
        names = ", ".join(store.classes(task)[number] for number in present) or "none"
        raise InputError(
            "one-class",
            f"{store.name}: task {task} has sessions of one class at most ({names}), which any answer gets right; "
            f"`{store.command()}` shows what became of the others",
        )
    check_request(store, task, split)
    if split.attribute:
        store.capture_attribute(split.attribute)
    if split.file is not None:
        make_split(store, task, split)


def split_digest(path: Path) -> str:
    """What a specification knows a split file by, 16 hex digits.  Raises :class:`InputError` where it is not there."""
    try:
        if path.is_file():
            return file_sha256(path)[:16]
        reason = instead_of_file(path)
    except OSError as error:
        reason = f"cannot be read as a split ({error.strerror})"
    raise InputError("missing-file", f"{path}: {reason}; `bench split --save` makes one")


@dataclass(frozen=True)
class ParameterFile:
    """What such a file holds."""

    method: str
    parameters: dict[str, Any] = field(default_factory=dict)  # the best ones, and those that were fixed in all trials
    study: str = ""
    dataset: str = ""
    task: str = ""
    store: str = ""  # the data set's, digest
    split: SplitSpec | None = None  # on whose validation part they are the best; None: an earlier version's file
    validation_macro_f1: float | None = None

    def save(self, path: Path) -> None:
        """Write it.  Raises :class:`InputError` where that cannot be."""
        write_json(path, plain(self))

    def is_in(self, path: Path) -> bool:
        """Whether a file holds just this."""
        try:
            return bool(json.loads(path.read_bytes()) == json.loads(json.dumps(plain(self))))
        except (OSError, ValueError):
            return False


def read_parameters(path: Path, method: str) -> dict[str, Any]:
    """The parameters in such a file.  Raises :class:`InputError` where it is none, or of another method."""
    content = read_json(path, ParameterFile, "a parameter file; `bench tune …` writes one")
    if content.method != method:
        what = f"holds parameters of {content.method}, not of {method}"
        raise InputError("wrong-file", f"--params {path}: {what}; give --method {content.method}")
    return content.parameters


# --- what a matrix costs ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """How long a run takes, and on what that rests."""

    seconds: float | None  # None: unknown
    basis: str


UNKNOWN: Final = Estimate(None, "unknown")


class Forecast:
    """How long runs take: as those of the same row did that are done here, else by rates of training.

    A row is what differs in nothing but seed and fold.  The store of runs is read at the first question.
    """

    def __init__(self, tracker: "Tracker") -> None:
        self._tracker = tracker
        self._by_rate: dict[RunSpec, Estimate] = {}

    def of(self, spec: RunSpec) -> Estimate:
        """Of one run."""
        if taken := self._taken.get(row_of(spec)):
            return Estimate(median(taken), f"{len(taken)} done")
        if spec not in self._by_rate:
            self._by_rate[spec] = _by_rate(spec, self._rates)
        return self._by_rate[spec]

    def add(self, spec: RunSpec, seconds: float) -> None:
        """Take in that a run is done."""
        self._taken.setdefault(row_of(spec), []).append(seconds)

    @cached_property
    def _taken(self) -> dict[str, list[float]]:
        """Seconds of finished runs by row."""
        found: dict[str, list[float]] = {}
        for record in self._tracker.search():
            if record.status == "done" and record.seconds is not None:
                found.setdefault(row_of(record.spec), []).append(record.seconds)
        return found

    @cached_property
    def _rates(self) -> dict[str, float]:
        return rates_of(shipped_folder("results") / "rates.csv")


def row_of(spec: RunSpec) -> str:
    """What a run shares with those of other seeds and folds."""
    return spec.but_place.digest


def rates_of(path: Path) -> dict[str, float]:
    """Samples a second of each method, as ``benchmarks/rates.py`` wrote them; empty without the file."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        return {row["method"]: float(row["samples_a_second"]) for row in csv.DictReader(file)}


def samples_seen(method: str, values: Mapping[str, Any], trained: float, epochs: int | None = None) -> float:
    """Samples that training sees, of ``trained`` ones: with repetitions, at its whole budget or in so many ``epochs``.

    Those of pre-training are among them.  A batch of single packets counts as the samples that they are of: rates are
    of samples with the default's packets.
    """
    return seen_without_labels(method, values, trained) + _seen_with_labels(method, values, trained, epochs)


def _seen_with_labels(method: str, values: Mapping[str, Any], trained: float, epochs: int | None) -> float:
    outline = describe(method)
    settings = outline.defaults | dict(values)
    if "epochs" not in settings:
        return trained
    if epochs is None and (steps := settings.get("steps")):
        each = outline.defaults.get("packets") if outline.unit == "packet" else 1
        return float(steps * settings["batch_size"] / (each or 1))
    return trained * int(epochs or settings["epochs"])


def seen_without_labels(method: str, values: Mapping[str, Any], trained: float) -> float:
    """Samples that pre-training sees, with repetitions, of ``trained`` ones; 0 where there is none.

    >>> seen_without_labels("et-bert", {"pretraining_steps": 10}, 99.0)
    320.0
    >>> seen_without_labels("et-bert", {"pretraining": "scratch"}, 99.0)
    0.0
    """
    settings = describe(method).defaults | dict(values)
    if settings.get("pretraining") == "scratch" or settings.get("weights"):
        return 0.0
    if steps := settings.get("pretraining_steps"):
        return float(steps * settings["pretraining_batch"])
    return float(trained * settings.get("pretraining_epochs", 0))


def _by_rate(spec: RunSpec, rates: Mapping[str, float]) -> Estimate:
    """From the rate of its method's training, at whatever size, where samples are sessions or of a given number."""
    samples = _samples(spec)
    if spec.method not in rates or samples is None:
        return UNKNOWN
    split = spec.split
    train, validation, _ = split.shares
    share = train if split.folds is None else (1 - 1 / split.folds) * train / (train + validation)
    seen = samples_seen(spec.method, spec.parameters, share * samples)
    return Estimate(seen / rates[spec.method], "rate of training")


def _samples(spec: RunSpec) -> float | None:
    """Samples before they are divided, as far as the store's counts tell."""
    split, task = spec.split, Store.find(spec.dataset).manifest.tasks[spec.task]
    if split.scheme == "paper":
        return len(task.classes) * (split.max_per_class or PAPER_PER_CLASS)
    if split.sampling != "session" or split.file is not None:
        return None
    return sum(min(count, split.max_per_class or count) for count in task.class_sessions) or None


@dataclass
class Plan:
    """A matrix as it stands: each run is done, computed elsewhere, or to do here."""

    specs: Sequence[RunSpec]
    done: set[str]  # digests
    elsewhere: "Mapping[str, Holder]"  # by digest
    forecast: Forecast
    jobs: int = 1

    @cached_property
    def rows(self) -> dict[str, dict[str, RunSpec]]:
        """Runs by row and digest."""
        found: dict[str, dict[str, RunSpec]] = {}
        for spec in self.specs:
            found.setdefault(row_of(spec), {})[spec.digest] = spec
        return found

    @cached_property
    def left(self) -> dict[str, set[str]]:
        """Digests that are to do here, by row."""
        return {row: specs.keys() - self.done - self.elsewhere.keys() for row, specs in self.rows.items()}

    def ended(self, spec: RunSpec) -> None:
        """Take in that a run came to its end, whatever that is."""
        self.done.add(spec.digest)
        self.left[row_of(spec)].discard(spec.digest)

    def estimate(self, row: str) -> Estimate:
        """Of one run of a row."""
        return self.forecast.of(next(iter(self.rows[row].values())))

    @property
    def words(self) -> str:
        """One line: how many are done, run elsewhere (where), are to do, and the time that takes."""
        away = self.elsewhere.keys() - self.done
        where = ", ".join(sorted({str(self.elsewhere[digest]) for digest in away}))
        parts = [f"{len(self.done)} done", *([f"{len(away)} running elsewhere ({where})"] if away else [])]
        return ", ".join([*parts, f"{sum(map(len, self.left.values()))} to do"]) + self.time_left

    @property
    def time_left(self) -> str:
        """The time that what is to do takes, for the end of a line; empty where nothing is."""
        seconds, unknown = self.seconds
        more = [f"about {duration(seconds)}"] if seconds else []
        more += [f"{unknown} of unknown length"] if unknown else []
        return f"; {' and '.join(more)} left" if more else ""

    @property
    def jobs_here(self) -> int:
        """Runs at once that this machine is best used by: one of one thread a core, as far as memory goes.

        Two of one thread are 1.5 times as fast as one of two for ATVITSC, and as fast for GraphDApp; a matrix of less
        than `WORTH_PROCESSES` is done before processes have imported what they need.
        """
        seconds, _ = self.seconds
        if seconds * self.jobs < WORTH_PROCESSES or any(spec.device != "cpu" for spec in self.specs):
            return 1
        return max(1, min(cores(), memory() // MEMORY_EACH, sum(map(len, self.left.values()))))

    @property
    def seconds(self) -> tuple[float, int]:
        """Seconds that what is to do takes, and how many runs of unknown length are beside them."""
        rows = [(len(left), self.estimate(row).seconds) for row, left in self.left.items() if left]
        known = sum(number * each for number, each in rows if each is not None) / self.jobs
        return known, sum(number for number, each in rows if each is None)


def planned(specs: Sequence[RunSpec], tracker: "Tracker", *, rerun: bool = False, jobs: int | None = 1) -> Plan:
    """Where a matrix stands, with ``jobs`` at once; None: as `Plan.jobs_here` has it.

    Writes nothing, not even a store of runs that is not there.
    """
    digests = [spec.digest for spec in specs]
    done = set() if rerun else set(tracker.finished_of(digests))
    away = tracker.claims.seen([digest for digest in digests if digest not in done])
    plan = Plan(specs, done, away, Forecast(tracker), jobs or 1)
    plan.jobs = jobs or plan.jobs_here
    return plan


def first_places_first(specs: Sequence[RunSpec]) -> list[RunSpec]:
    """The same in another order: of each row the first seed and fold, then of each the second."""
    numbers: dict[str, int] = {}
    turns = []
    for spec in specs:
        row = row_of(spec)
        numbers[row] = turn = numbers.get(row, -1) + 1
        turns.append(turn)
    return [spec for _, spec in sorted(zip(turns, specs, strict=True), key=lambda pair: pair[0])]


def duration(seconds: float) -> str:
    """A time for people.

    >>> duration(0.1), duration(40), duration(3000), duration(9000), duration(10**6)
    ('1 s', '40 s', '50 min', '2.5 h', '12 days')
    """
    hours = seconds / 3600
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if hours < 1.5:
        return f"{seconds / 60:.0f} min"
    return f"{hours:.{int(hours < 10)}f} h" if hours < 48 else f"{hours / 24:.0f} days"
