"""Where cells are computed: one after the other here, in processes of this machine, or on a cluster.

An engine is given all cells that are to do and an iterator over those that there is time for, takes from it when it has
room for one more, and yields outcomes as they come.  Whatever it is, a cell is `execute` with the same store of runs:
claims, retries and going on hold for all of them.
"""

from collections.abc import Callable, Iterator, Sequence

from bench.matrix.cluster import cluster
from bench.matrix.workers import Workers
from bench.runs.execute import Outcome, RunOptions, execute
from bench.spec import RunSpec
from bench.tracking.tracker import Tracker

Engine = Callable[[Sequence[RunSpec], Iterator[RunSpec], Tracker, RunOptions], Iterator[Outcome]]


def engine_for(options: RunOptions, cells: int) -> Engine:
    """What the options ask for."""
    if options.scheduler is not None:
        return cluster
    return processes if min(options.jobs, cells) > 1 else serial


def serial(
    todo: Sequence[RunSpec], specs: Iterator[RunSpec], tracker: Tracker, options: RunOptions
) -> Iterator[Outcome]:
    """Outcomes in order; progress is told from inside."""
    yield from (execute(spec, tracker, options) for spec in specs)


def processes(
    todo: Sequence[RunSpec], specs: Iterator[RunSpec], tracker: Tracker, options: RunOptions
) -> Iterator[Outcome]:
    """Outcomes of processes of their own, which share the cores and end with this one."""
    yield from Workers(min(options.jobs, len(todo)), tracker, options).executed(specs)
