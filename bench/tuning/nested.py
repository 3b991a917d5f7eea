"""Nested tuning: every run of a suite after a search of its own, of as many trials for every method.

The search sees the training and validation part of the run's own split, seed and fold, and nothing else.  So each fold
has parameters of its own, and its test part has judged none of them.
"""

import dataclasses
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.errors import InputError
from bench.runs.execute import Outcome, RunOptions, execute
from bench.runs.plan import resolve
from bench.runs.registry import describe
from bench.runs.run_labels import parameter_labels
from bench.spec import RunSpec, Settings
from bench.tuning.search import Search
from bench.tuning.share import TuneOptions
from bench.tuning.spaces import own_spaces
from bench.tuning.study import check_runs, tune

if TYPE_CHECKING:
    from bench.tracking.tracker import Tracker


def tune_each(
    specs: Sequence[RunSpec],
    tracker: "Tracker",
    options: TuneOptions,
    *,
    prune: bool = True,
    fixed: Callable[[RunSpec], Container[str]] = lambda spec: spec.parameters,
) -> Iterator[Outcome]:
    """Search parameters for each run, from its own on, then execute it with the best; outcomes in order.

    Of a study that was longer before, the first ``options.trials`` count.  What is ``fixed`` of a run is not searched.

    A method that has nothing to search, or cannot run on the data set, is an outcome ``skipped`` with the reason.  A
    study that has its trials, and a run that is done, are not computed again.
    """
    for spec in specs:
        try:
            spaces = own_spaces(spec.method, fixed(spec))
            check_runs(spec)
        except InputError as error:
            if error.code not in ("bad-space", "method-cannot-run"):
                raise
            yield Outcome(spec, "skipped", str(error))
            continue
        options.progress(f"{spec.dataset} {spec.name}: {options.trials} trials")
        summary = tune(Search(spec, spaces, prune=prune), tracker, options)
        timed = zip(summary["trials"], summary["seconds"], strict=True)
        ended = [(one, took) for one, took in timed if one["state"] in ("complete", "pruned")][: options.trials]
        best = max((one for one, _ in ended if one["state"] == "complete"), key=_rank, default=None)
        if best is None:
            yield Outcome(spec, "failed", f"no trial of study {summary['study']} was completed")
            continue
        cost = {"search_trials": float(len(ended)), "seconds_search": sum(took for _, took in ended)}
        run = tuned(spec, best["parameters"], options.trials or len(ended))
        yield execute(run, tracker, RunOptions(options.device, say=options.progress, beside=cost))


def _rank(trial: Mapping[str, Any]) -> tuple[float, int]:
    """By value; of equal ones the first, which is that of the default parameters where the space holds them."""
    return trial["value"], -trial["number"]


def tuned(spec: RunSpec, best: Mapping[str, Any], trials: int) -> RunSpec:
    """The run with the best parameters, marked by what it took: one row of a table for all its folds."""
    start = ", ".join(parameter_labels(spec.method, spec.parameters))
    words = f"{trials} trials a fold" + (f", from {start}" if start else "")
    values = resolve(spec.method, {spec.method: describe(spec.method)}, Settings(values={**spec.parameters, **best}))
    return dataclasses.replace(spec, parameters=values, tuned=words)
