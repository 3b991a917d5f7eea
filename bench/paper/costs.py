"""What each experiment would cost on this machine, and what of it is done: the list of `bench reproduce`."""

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from bench.data.cards import find_card
from bench.data.store import Store
from bench.errors import InputError
from bench.paper.experiments import EXPERIMENTS, Arm, Experiment, Scale, chosen, plan
from bench.paper.published import folder, names
from bench.render.table import Sheet
from bench.runs.registry import describe
from bench.runs.tracking import Tracker

TRAINED: Final = 0.7  # share of the samples that train (IV-A)


@dataclass(frozen=True)
class Cost:
    """What a mode of an experiment would cost."""

    runs: int
    done: int
    hours: float | None  # None: no rate was measured for one of its methods


def overview(
    tracker: Tracker, scale: Scale, experiments: Sequence[Experiment] = (), dataset: str | None = None
) -> Sheet:
    """Every experiment, or those given: data, whether they are here, runs, what is done, and the estimated time left.

    ``dataset`` takes the place of the paper's data.
    """
    finished, rates = _finished(tracker), rates_of(folder().parent / "rates.csv")
    rows, records = [], []
    for experiment in experiments or EXPERIMENTS.values():
        name = dataset or experiment.dataset
        store = _store(name)
        cells = [experiment.id, experiment.title, name + ("" if store else " (not prepared)")]
        record: dict[str, Any] = {"id": experiment.id, "title": experiment.title, "dataset": name,
                                  "prepared": store is not None, "published": experiment.id in names()}  # fmt: skip
        for mode in ("paper", "clean"):
            cost = _cost(experiment, mode, name, store, scale, rates, finished)
            cells += [f"{cost.done} of {cost.runs}", "?" if cost.hours is None else _hours(cost.hours)]
            record |= {f"{mode}_{key}": value for key, value in dataclasses.asdict(cost).items()}
        rows.append(cells)
        records.append(record)
    head = ["id", "what", "data set", "paper: done", "time left", "clean: done", "time left"]
    return Sheet("", head, rows, _remarks(scale, rates), records)


def _remarks(scale: Scale, rates: Mapping[str, float]) -> list[str]:
    """What the times are worth."""
    words = [f"{key} {value}" for key, value in scale.asked.items()]
    how = "from the rates that benchmarks/rates.py measured on two slow cores, each method at its default size"
    return [
        f"scale: {', '.join(words) or 'full'}; {scale.seeds} seeds",
        f"time left: {how}; runs that several exhibits share count in each" if rates else
        "time left: unknown, benchmarks/rates.py has measured no rates here",
        "clean, where the data set is not prepared: as many samples as under paper; table-X is timed, it has no runs",
    ]  # fmt: skip


def _finished(tracker: Tracker) -> set[str]:
    """Digests of the runs that are done; MLflow, which takes seconds to load, is not asked where it has nothing."""
    if tracker.uri.startswith("sqlite:///") and not Path(tracker.uri.removeprefix("sqlite:///")).is_file():
        return set()
    return {record.digest for record in tracker.search() if record.status == "done"}


def _hours(hours: float) -> str:
    return f"{hours * 60:.0f} min" if hours < 1.5 else f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def _store(name: str) -> Store | None:
    try:
        return Store.find(name)
    except InputError:
        return None


def _cost(
    experiment: Experiment,
    mode: str,
    dataset: str,
    store: Store | None,
    scale: Scale,
    rates: Mapping[str, float],
    finished: set[str],
) -> Cost:
    """Runs, finished ones, and hours of the rest."""
    kept = tuple(arm.method for arm in experiment.arms if arm.method in scale.methods)
    if experiment.kind == "timing" or (scale.methods and not kept):
        return Cost(0, 0, 0.0)
    scale = replace(scale, methods=kept)
    arms = chosen(experiment, scale)
    done = [0] * len(arms)
    if store is not None and finished:
        planned = plan(experiment, mode, store, scale)
        done = [sum(spec.digest in finished for spec in one.specs) for one in planned]
    each = scale.seeds * (scale.folds if mode == "clean" and scale.folds else 1)
    samples = _samples(experiment, mode, dataset, store, scale)
    if samples is None or any(arm.method not in rates for arm in arms):
        return Cost(each * len(arms), sum(done), None)
    seconds = sum(
        (each - have) * TRAINED * samples * _epochs(experiment, arm, scale) / rates[arm.method]
        for arm, have in zip(arms, done, strict=True)
    )
    return Cost(each * len(arms), sum(done), seconds / 3600)


def _epochs(experiment: Experiment, arm: Arm, scale: Scale) -> int:
    """Passes over the training part; one for methods without epochs."""
    defaults = describe(arm.method).defaults
    return int(scale.epochs or experiment.epochs or defaults["epochs"]) if "epochs" in defaults else 1


def _samples(experiment: Experiment, mode: str, dataset: str, store: Store | None, scale: Scale) -> float | None:
    """Samples of a run before they are divided; None where neither store nor card knows the classes."""
    most = scale.max_per_class or (experiment.per_class if mode == "paper" else experiment.limit)
    if store is None:
        classes = _expected(dataset)
        return None if classes is None else classes * (most or experiment.per_class)
    task = store.manifest["tasks"][store.default_task]
    if mode == "paper":
        return len(task["classes"]) * (most or experiment.per_class)
    return sum(min(count, most or count) for count in task["class_sessions"])


@cache
def _expected(dataset: str) -> int | None:
    """Classes of the default task, as the card expects them; None where it does not say."""
    card = find_card(dataset)
    task = card.expected.tasks.get(card.default_task)
    return None if task is None else task.classes


def rates_of(path: Path) -> dict[str, float]:
    """Samples a second of each method, as ``benchmarks/rates.py`` wrote them; empty without the file."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        return {row["method"]: float(row["samples_a_second"]) for row in csv.DictReader(file)}
