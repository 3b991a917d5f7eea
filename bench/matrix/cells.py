"""Many runs: each cell once, whoever else computes the same matrix, here or in several processes."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.matrix.engines import engine_for
from bench.runs.execute import DEFAULT_OPTIONS, Outcome, RunOptions, recalled
from bench.runs.plan import DEFAULTS, WHOLE, Forecast, duration, expand, first_places_first
from bench.spec import RunSpec, Settings, SplitSpec
from bench.tracking.record import Record
from bench.tracking.tracker import Tracker

LOOK_SECONDS: Final = 1.0  # between two looks at what others compute


def run(
    methods: str | Sequence[str],
    datasets: str | Sequence[str],
    splits: str | SplitSpec | Sequence[str | SplitSpec] = WHOLE,
    *,
    task: str | None = None,
    settings: Settings = DEFAULTS,
    results: str | Path = "results",
    options: RunOptions = DEFAULT_OPTIONS,
) -> list[Outcome]:
    """`bench run` from Python: every method on every data set and split, finished runs from the store of runs.

    ``methods`` and ``datasets`` are names as on the command line, a folder of captures, or ``FILE.py:CLASS``; each of
    ``splits``, words of ``--split`` or `SplitSpec`, stands for all its folds.  The outcomes come as in
    :func:`run_matrix`; that a run failed or was skipped is an outcome with a reason.  Raises :class:`InputError` for
    what cannot be, before the first run.

    >>> spec = SplitSpec("capture").each_seed(3)  # three runs a method
    """
    from bench.data.prepare import open_dataset  # not needed by `bench run`, which has its stores

    names, asked = _listed(methods), [splits] if isinstance(splits, str | SplitSpec) else splits
    split_specs = [SplitSpec.typed(one) if isinstance(one, str) else one for one in asked]
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
    where that process ends without it.  With several jobs beginnings and outcomes alone are told, with a scheduler
    outcomes.  With a budget every method gets its first seed and fold before any gets a second, and what cannot be done
    in time is an outcome ``left``.  Raises :class:`InputError` where the store of runs, or the scheduler, does not
    answer.
    """
    tracker.sync()
    specs = [spec.on(options.device) for spec in specs]
    known = {} if options.rerun else tracker.finished_of([spec.digest for spec in specs])
    yield from (recalled(spec, known[spec.digest], tracker, options) for spec in specs if spec.digest in known)
    todo = [spec for spec in specs if spec.digest not in known]
    forecast = options.forecast or Forecast(tracker)
    time_left = _TimeLeft(options.budget, forecast)
    todo = todo if options.budget is None else first_places_first(todo)
    while todo:
        compute = engine_for(options, len(todo))
        elsewhere: list[RunSpec] = []
        for outcome in compute(todo, time_left.enough_for(todo), tracker, options):
            if outcome.status == "elsewhere":
                elsewhere.append(outcome.spec)
                continue
            if outcome.status == "done" and (options.budget is not None or options.forecast is not None):
                forecast.add(outcome.spec, outcome.seconds)
            yield outcome
        yield from time_left.refused()
        known = _waited_for(elsewhere, time_left.until, tracker, options)
        done = [spec for spec in elsewhere if spec.digest in known]
        yield from (recalled(spec, known[spec.digest], tracker, options) for spec in done)
        todo = [spec for spec in elsewhere if spec.digest not in known]


@dataclass
class _TimeLeft:
    """The time of a budget, and the runs that it is too short for."""

    budget: float | None  # seconds from now on
    forecast: Forecast
    until: float | None = field(init=False)
    _refused: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.until = None if self.budget is None else time.monotonic() + self.budget

    def enough_for(self, specs: Sequence[RunSpec]) -> Iterator[RunSpec]:
        """Those that, one after the other, can be expected to be done in time; one of unknown length is begun."""
        for spec in specs:
            if reason := self._too_short_for(spec):
                self._refused.append(Outcome(spec, "left", reason))
            else:
                yield spec

    def refused(self) -> Iterator[Outcome]:
        """The others, each once."""
        while self._refused:
            yield self._refused.pop(0)

    def _too_short_for(self, spec: RunSpec) -> str:
        if self.until is None:
            return ""
        now = time.monotonic()
        if now >= self.until:
            return "the time of --budget was used up"
        needs = self.forecast.of(spec).seconds
        if needs is None or now + needs <= self.until:
            return ""
        return f"it takes about {duration(needs)}, more than was left of --budget"


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
