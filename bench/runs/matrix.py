"""Many runs: each cell once, whoever else computes the same matrix, here or in several processes."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.runs.engines import engine_for
from bench.runs.execute import DEFAULT_OPTIONS, Outcome, RunOptions, answered
from bench.runs.plan import DEFAULTS, WHOLE, expand
from bench.spec import RunSpec, Settings, SplitSpec
from bench.tracking.record import Record
from bench.tracking.tracker import Tracker

LOOK_SECONDS: Final = 1.0  # between two looks at what others compute


def run(
    methods: str | Sequence[str],
    datasets: str | Sequence[str],
    splits: SplitSpec | Sequence[SplitSpec] = WHOLE,
    *,
    task: str | None = None,
    settings: Settings = DEFAULTS,
    results: str | Path = "results",
    options: RunOptions = DEFAULT_OPTIONS,
) -> list[Outcome]:
    """`bench run` from Python: every method on every data set and split, finished runs from the store of runs.

    ``methods`` and ``datasets`` are names as on the command line, a folder of captures, or ``FILE.py:CLASS``; each of
    ``splits`` stands for all its folds.  The outcomes come as in :func:`run_matrix`; that a run failed or was skipped
    is an outcome with a reason.  Raises :class:`InputError` for what cannot be, before the first run.

    >>> spec = SplitSpec("capture").each_seed(3)  # three runs a method
    """
    from bench.data.prepare import open_dataset  # not needed by `bench run`, which has its stores

    names, split_specs = _listed(methods), [splits] if isinstance(splits, SplitSpec) else splits
    stores = [open_dataset(name) for name in _listed(datasets)]
    specs = [
        spec
        for split in split_specs
        for spec in expand(names, stores, split, task=task, seeds=[split.seed], settings=settings)
    ]
    return list(run_matrix(specs, Tracker(Path(results)), options))


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def run_matrix(specs: Sequence[RunSpec], tracker: Tracker, options: RunOptions = DEFAULT_OPTIONS) -> Iterator[Outcome]:
    """Execute all, yielding each outcome as it comes: first the finished ones, with one job the rest in order.

    Runs that wait for the store are logged first.  What another process computes is waited for, and computed here
    where that process ends without it.  With several jobs or a scheduler only outcomes are told.  Raises
    :class:`InputError` where the store of runs, or the scheduler, does not answer.
    """
    tracker.sync()
    specs = [spec.on(options.device) for spec in specs]
    known = {} if options.rerun else tracker.finished_of([spec.digest for spec in specs])
    yield from (answered(spec, known[spec.digest]) for spec in specs if spec.digest in known)
    todo = [spec for spec in specs if spec.digest not in known]
    until = None if options.budget is None else time.monotonic() + options.budget
    while todo:
        compute = engine_for(options, len(todo))
        begun: list[RunSpec] = []
        elsewhere: list[RunSpec] = []
        for outcome in compute(todo, _in_time(todo, until, begun), tracker, options):
            if outcome.status == "elsewhere":
                elsewhere.append(outcome.spec)
            else:
                yield outcome
        yield from (Outcome(spec, "left", "the time of --budget was over") for spec in todo[len(begun) :])
        known = _waited_for(elsewhere, until, tracker, options)
        yield from (answered(spec, known[spec.digest]) for spec in elsewhere if spec.digest in known)
        todo = [spec for spec in elsewhere if spec.digest not in known]


def _in_time(specs: Sequence[RunSpec], until: float | None, begun: list[RunSpec]) -> Iterator[RunSpec]:
    """Specifications as long as there is time to begin one, noted in ``begun``."""
    for spec in specs:
        if until is not None and time.monotonic() > until:
            return
        begun.append(spec)
        yield spec


def _waited_for(
    specs: Sequence[RunSpec], until: float | None, tracker: Tracker, options: RunOptions
) -> dict[str, Record]:
    """Those of these runs, which others compute, that are done, as soon as one is or has nobody any more."""
    digests = [spec.digest for spec in specs]
    while specs:
        held = tracker.claims.elsewhere(digests)  # first: what ends between the two questions is done
        known = tracker.finished_of(digests)
        if known or len(held) < len(digests) or (until is not None and time.monotonic() > until):
            return known
        spec = next(spec for spec in specs if spec.digest in held)
        options.progress(spec, f"waits for {held[spec.digest]}", {})
        time.sleep(LOOK_SECONDS)
    return {}
