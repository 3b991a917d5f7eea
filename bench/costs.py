"""What each experiment would cost on this machine, and what of it is done: the list of `bench reproduce`."""

import csv
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.cards import find_card
from bench.errors import InputError
from bench.experiments import EXPERIMENTS, Experiment, Scale, chosen, plan
from bench.published import names
from bench.registry import describe
from bench.sheets import Sheet
from bench.store import Store
from bench.tracking import Tracker

TRAINED: Final = 0.7  # share of the samples that train (IV-A)


@dataclass(frozen=True)
class Cost:
    """What a mode of an experiment would cost."""

    runs: int
    done: int
    hours: float | None  # None: no rate was measured for one of its methods


def overview(tracker: Tracker, scale: Scale, rates: Mapping[str, float]) -> Sheet:
    """Every experiment: its data, whether they are here, runs, what is done, and the estimated time of what is not."""
    finished = _finished(tracker)
    rows, records = [], []
    for experiment in EXPERIMENTS.values():
        store = _store(experiment.dataset)
        cells = [experiment.id, experiment.title, experiment.dataset + ("" if store else " (not prepared)")]
        record: dict[str, Any] = {"id": experiment.id, "title": experiment.title, "dataset": experiment.dataset,
                                  "prepared": store is not None, "published": experiment.id in names()}  # fmt: skip
        for mode in ("paper", "clean"):
            cost = _cost(experiment, mode, store, scale, rates, finished)
            hours = "?" if cost.hours is None else _hours(cost.hours)
            cells += [f"{cost.done} of {cost.runs}", hours]
            record |= {f"{mode}_{name}": value for name, value in dataclasses.asdict(cost).items()}
        rows.append(cells)
        records.append(record)
    head = ["id", "what", "data set", "paper: done", "time left", "clean: done", "time left"]
    notes = [
        f"at {', '.join(scale.words())}; time from the rates that benchmarks/rates.py measured on two slow cores "
        "(results/rates.csv); clean: where the data set is not prepared, as many samples as under paper",
    ]
    return Sheet("", head, rows, notes, records)


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
    store: Store | None,
    scale: Scale,
    rates: Mapping[str, float],
    finished: set[str],
) -> Cost:
    """Runs, finished ones, and hours of the rest."""
    arms = chosen(experiment, scale)
    folds = scale.folds if mode == "clean" and scale.folds else 1
    if experiment.kind == "timing":
        return Cost(0, 0, 0.0)
    done = [0] * len(arms)
    if store is not None and finished:
        done = [sum(s.digest in finished for s in one.specs) for one in plan(experiment, mode, store, scale)]
    each = scale.seeds * folds
    samples = TRAINED * _samples(experiment, mode, store, scale)
    seconds = 0.0
    for arm, have in zip(arms, done, strict=True):
        if arm.method not in rates:
            return Cost(each * len(arms), sum(done), None)
        defaults = describe(arm.method).defaults
        epochs = (scale.epochs or experiment.epochs or defaults["epochs"]) if "epochs" in defaults else 1
        seconds += (each - have) * samples * epochs / rates[arm.method]
    return Cost(each * len(arms), sum(done), seconds / 3600)


def _samples(experiment: Experiment, mode: str, store: Store | None, scale: Scale) -> float:
    """Samples of a run before they are divided."""
    most = scale.max_per_class or (experiment.per_class if mode == "paper" else experiment.limit)
    if store is None:
        card = find_card(experiment.dataset)
        return (card.expected.tasks[card.default_task].classes or 1) * (most or experiment.per_class)
    task = store.manifest["tasks"][store.default_task]
    if mode == "paper":
        return len(task["classes"]) * (most or experiment.per_class)
    return sum(min(count, most or count) for count in task["class_sessions"])


def rates_of(path: Path) -> dict[str, float]:
    """Samples a second of each method, as ``benchmarks/rates.py`` wrote them; empty without the file."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        return {row["method"]: float(row["samples_a_second"]) for row in csv.DictReader(file)}
