"""What each experiment would cost on this machine, and what of it is done: the list of `bench reproduce`."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from bench.data.names import find_card
from bench.data.store import Store
from bench.errors import InputError, counted
from bench.files import shipped_folder
from bench.paper.declaration import Arm, Experiment, Paper
from bench.paper.plan import Scale, check_preset, chosen_arms, plan
from bench.render.table import Table
from bench.runs.plan import duration, rates_of, samples_seen
from bench.runs.registry import describe
from bench.spec import SplitSpec
from bench.tracking.tracker import Tracker


@dataclass(frozen=True)
class Cost:
    """What a mode of an experiment would cost."""

    runs: int
    done: int
    hours: float | None  # None: no rate was measured for one of its methods


def overview(
    paper: Paper,
    tracker: Tracker,
    scale: Scale,
    experiments: Sequence[Experiment] = (),
    dataset: str | None = None,
    task: str | None = None,
) -> Table:
    """Every experiment, or those given: data, whether they are here, runs, what is done, and the estimated time left.

    ``dataset`` takes the place of the paper's data, ``task`` that of its default task.
    """
    check_preset(paper, scale.preset)
    reckoner = _Reckoner(paper, scale, task, rates_of(shipped_folder("results") / "rates.csv"), _finished(tracker))
    rows, records = [], []
    for experiment in experiments or paper.experiments:
        name = dataset or experiment.dataset
        store = _store(name)
        cells = [experiment.id, experiment.title, name + ("" if store else " (not prepared)")]
        record: dict[str, Any] = {"id": experiment.id, "title": experiment.title, "dataset": name}
        record |= {"prepared": store is not None, "published": paper.has_numbers(experiment.id)}
        for mode in ("paper", "clean"):
            cost = reckoner.cost(experiment, mode, name, store)
            cells += [f"{cost.done} of {cost.runs}", "?" if cost.hours is None else duration(3600 * cost.hours)]
            record |= {f"{mode}_{key}": value for key, value in dataclasses.asdict(cost).items()}
        rows.append(cells)
        records.append(record)
    head = ["id", "what", "data set", "paper: done", "time left", "clean: done", "time left"]
    return Table("", head, rows, _remarks(scale, reckoner.rates), records)


def _remarks(scale: Scale, rates: Mapping[str, float]) -> list[str]:
    """What the times are worth."""
    told = {key: value for key, value in scale.unusual.items() if key != "seeds"}
    words = [f"{key} {', '.join(value) if isinstance(value, tuple) else value}" for key, value in told.items()]
    how = "from the rates that benchmarks/rates.py measured on two slow cores, each method at its default size"
    return [
        f"scale: {', '.join(words) or 'full'}; {counted(scale.seeds, 'seed')}",
        f"time left: {how}; runs that several tables share count in each" if rates else
        "time left: unknown, benchmarks/rates.py has measured no rates here",
        "clean, where the data set is not prepared: as many samples as under paper; what is timed has no runs",
    ]  # fmt: skip


def _finished(tracker: Tracker) -> set[str]:
    """Digests of the runs that are done."""
    return {record.digest for record in tracker.search() if record.status == "done"}


def _store(name: str) -> Store | None:
    try:
        return Store.find(name)
    except InputError:
        return None


@dataclass(frozen=True)
class _Reckoner:
    """What costs are reckoned from."""

    paper: Paper
    scale: Scale
    task: str | None  # None: the data set's default task
    rates: Mapping[str, float]  # samples a second, by method
    finished: set[str]  # digests of runs

    def cost(self, experiment: Experiment, mode: str, dataset: str, store: Store | None) -> Cost:
        """Runs, finished ones, and hours of the rest."""
        known = {arm.method for arm in experiment.arms}
        kept = tuple(name for name in self.scale.methods if experiment.kind == "systems" or name in known)
        if experiment.kind == "timing" or (self.scale.methods and not kept):
            return Cost(0, 0, 0.0)
        scale = replace(self.scale, methods=kept)
        arms = chosen_arms(experiment, scale)
        done = [0] * len(arms)
        if store is not None and self.finished:
            planned = plan(experiment, mode, store, scale, self.task)
            done = [sum(spec.digest in self.finished for spec in one.specs) for one in planned]
        each = scale.seeds * (scale.folds if mode == "clean" and scale.folds else 1)
        samples = self._samples(experiment, mode, dataset, store)
        if samples is None or any(arm.method not in self.rates for arm in arms):
            return Cost(each * len(arms), sum(done), None)
        seconds = sum(
            (each - have) * self._seen(experiment, arm, self.paper.trained * samples) / self.rates[arm.method]
            for arm, have in zip(arms, done, strict=True)
        )
        return Cost(each * len(arms), sum(done), seconds / 3600)

    def _seen(self, experiment: Experiment, arm: Arm, trained: float) -> float:
        """Samples that training sees, of ``trained`` ones: with repetitions, at its whole budget."""
        values = {**describe(arm.method).presets.get(self.scale.preset or "", {}), **arm.values}
        return samples_seen(arm.method, values, trained, self.scale.epochs or experiment.epochs)

    def _samples(self, experiment: Experiment, mode: str, dataset: str, store: Store | None) -> float | None:
        """Samples of a run before they are divided; None where neither store nor card knows the classes."""
        limit = self.scale.max_per_class or (experiment.per_class if mode == "paper" else experiment.limit)
        if store is None:
            classes = _expected(dataset, self.task)
            return None if classes is None else classes * (limit or experiment.per_class)
        task = store.manifest.tasks[self.task or store.default_task]
        if mode == "paper" and not _of_whole_sessions(experiment.protocol):
            return len(task.classes) * (limit or experiment.per_class)
        return sum(min(count, limit or count) for count in task.class_sessions)


def _of_whole_sessions(protocol: str) -> bool:
    """Whether it draws sessions, of which classes have so many; others re-sample, or draw from many more packets."""
    return bool(protocol) and SplitSpec.typed(protocol).windows.window is None


@cache
def _expected(dataset: str, task: str | None) -> int | None:
    """Classes of a task, as the card expects them; None where it does not say."""
    card = find_card(dataset)
    expected = card.expected.tasks.get(task or card.default_task)
    return None if expected is None else expected.classes
