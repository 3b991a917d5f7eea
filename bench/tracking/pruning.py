"""What a store need not keep: removed runs, runs that no table shows, models, and what killed processes left behind."""

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.files import left_behind
from bench.spec import RunSpec
from bench.tracking.claims import process_lives
from bench.tracking.database import Row
from bench.tracking.record import Record, shown
from bench.tracking.selection import Stored, stored_runs
from bench.tracking.tracker import PROCESS, Tracker

POLICIES: Final = ("best", "none")  # models that stay: of each row of a table the best run's, or none
MODEL: Final = "model/"  # how paths of a model's files begin


@dataclass(frozen=True)
class Plan:
    """What would be removed."""

    runs: list[Stored] = field(default_factory=list)  # with all of their files
    models: list[Stored] = field(default_factory=list)  # of these runs the models alone
    binned: list[Row] = field(default_factory=list)  # in MLflow's bin
    folders: list[Path] = field(default_factory=list)  # of processes that are gone
    claimed: list[Stored] = field(default_factory=list)  # stay: a living process computes them

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be removed."""
        return not (self.runs or self.models or self.binned or self.folders)


def total(sizes: Mapping[str, int], *, model: bool = False) -> int:
    """Bytes of a run's files, or of its model alone."""
    return sum(size for name, size in sizes.items() if not model or name.startswith(MODEL))


def plan_removal(tracker: Tracker, runs: Sequence[Stored]) -> Plan:
    """To remove runs, but those that a living process computes."""
    held = set(tracker.claims.elsewhere([one.record.digest for one in runs])) if runs else set()
    claimed = [one for one in runs if _is_claimed(tracker, one, held)]
    mine = {one.row.run_id for one in claimed}
    return Plan(runs=[one for one in runs if one.row.run_id not in mine], claimed=claimed)


def plan_pruning(
    tracker: Tracker, everything: Sequence[Stored], wanted: Sequence[Stored], policy: str, *, leftovers: bool
) -> Plan:
    """To remove of the ``wanted`` runs those that no table shows, and of what stays models by a policy ("all": none).

    ``leftovers``: also what is in MLflow's bin, and what killed processes left in the folder of runs that wait.
    """
    staying = shown_runs(everything)
    there = {one.row.run_id for one in staying}
    asked = {one.row.run_id for one in wanted}
    superseded = [one for one in wanted if one.row.run_id not in there]
    plan = plan_removal(tracker, superseded)
    models = [one for one in spare_models(tracker, staying, policy) if one.row.run_id in asked]
    binned = tracker.binned() if leftovers else []
    folders = left_behind(tracker.address.pending) if leftovers else []
    return Plan(plan.runs, models, binned, folders, plan.claimed)


def shown_runs(runs: Sequence[Stored]) -> list[Stored]:
    """Of each digest the run that tables show, as `Tracker.search` chooses it, and all that still last."""
    newest_first = sorted((one.record for one in runs), key=lambda record: record.started, reverse=True)
    there = {record.run_id for record in shown(newest_first)}
    return [one for one in runs if one.row.run_id in there or one.record.status == "running"]


def spare_models(tracker: Tracker, runs: Sequence[Stored], policy: str) -> list[Stored]:
    """Runs whose model a policy does not keep; of runs that differ in seed and fold alone the best one keeps it."""
    if policy == "all":
        return []
    having = [one for one in runs if one.record.status == "done" and total(tracker.files.sizes(one.row), model=True)]
    best: dict[RunSpec, Record] = {}
    for one in having if policy == "best" else []:
        place = one.record.spec.but_place
        best[place] = max(best.get(place, one.record), one.record, key=_rank)
    keeping = {record.run_id for record in best.values()}
    return [one for one in having if one.row.run_id not in keeping]


def _rank(record: Record) -> tuple[Any, ...]:
    """The best validation score, else the first seed and fold; of equals the newest."""
    score = record.metrics.get("validation_macro_f1", math.nan)
    seed, fold = record.spec.place
    return (-1.0 if math.isnan(score) else score), -seed, -(fold or 0), record.started, record.run_id


def carry_out(tracker: Tracker, plan: Plan, why: str, tell: Callable[[str], None] = lambda line: None) -> str:
    """Remove what a plan names; why the store keeps its size, or nothing.

    A run that a process claimed since then stays, and ``tell`` hears of it.
    """
    for one in plan.runs:
        with _claimed(tracker, one) as ours:
            if ours:
                tracker.files.remove(one.row)
            else:
                tell(f"run {one.row.run_id[:8]} stays: another process has begun to compute it")
    for one in plan.models:
        tracker.files.remove_model(one.row, why)
    for row in plan.binned:
        tracker.files.remove(row)
    for folder in plan.folders:
        shutil.rmtree(folder, ignore_errors=True)
    return tracker.shrink() if plan.runs or plan.binned else ""


def keep_best(tracker: Tracker, spec: RunSpec, row: str) -> None:
    """Remove the models of a run's row but the best run's; ``row`` is the tag that its runs share.

    Processes that do so at once remove no model too many: each keeps the best that it sees, and all agree which of two
    is better.
    """
    runs = [one for one in stored_runs(tracker, ("row", row)) if one.record.spec.but_place == spec.but_place]
    for one in spare_models(tracker, runs, "best"):
        tracker.files.remove_model(one.row, "removed by --keep-models best")


def _is_claimed(tracker: Tracker, one: Stored, held: set[str]) -> bool:
    """Whether a living process computes a run, as far as anybody here can know."""
    if one.record.digest in held:
        return True
    unseen = not tracker.shares_claims and one.record.status == "running"
    return unseen and process_lives(one.row.tags.get(PROCESS, "")) is not False


@contextmanager
def _claimed(tracker: Tracker, one: Stored) -> Iterator[bool]:
    """Hold a run's claim, so that nobody begins to compute it meanwhile; whether that was to be had."""
    name = one.record.digest
    if tracker.claims.has(name) or tracker.claims.take(name) is not None:
        yield False
        return
    try:
        yield True
    finally:
        tracker.claims.let_go(name)
