"""Nested tuning: every run of a suite after a search of its own, of as many trials for every method.

The search sees the training and validation part of the run's own split, seed and fold, and nothing else.  So each fold
has parameters of its own, and its test part has judged none of them.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bench.errors import InputError
from bench.runs.execute import Outcome, RunOptions, execute
from bench.runs.run_labels import parameter_labels
from bench.spec import RunSpec
from bench.tuning.search import Search
from bench.tuning.share import TuneOptions
from bench.tuning.spaces import spaces_for
from bench.tuning.study import check_runs, tune

if TYPE_CHECKING:
    from bench.tracking.tracker import Tracker


def tune_each(
    specs: Sequence[RunSpec], tracker: "Tracker", options: TuneOptions, *, prune: bool = True
) -> Iterator[Outcome]:
    """Search parameters for each run, from its own on, then execute it with the best; outcomes in order.

    A method that has nothing to search, or cannot run on the data set, is an outcome ``skipped`` with the reason.  A
    study that has its trials, and a run that is done, are not computed again.
    """
    for spec in specs:
        try:
            spaces = spaces_for(spec.method, {}, spec.parameters)
            check_runs(spec)
        except InputError as error:
            if error.code not in ("bad-space", "method-cannot-run"):
                raise
            yield Outcome(spec, "skipped", str(error))
            continue
        options.progress(f"{spec.dataset} {spec.name}: {options.trials} trials")
        summary = tune(Search(spec, spaces, prune=prune), tracker, options)
        run = tuned(spec, summary["best"]["parameters"] if summary["best"] else {}, options.trials or 0)
        cost = {"search_trials": float(len(summary["trials"])), "seconds_search": summary["seconds"]}
        yield execute(run, tracker, RunOptions(options.device, say=options.progress, beside=cost))


def tuned(spec: RunSpec, best: dict[str, object], trials: int) -> RunSpec:
    """The run with the best parameters, marked by what it took: one row of a table for all its folds."""
    start = ", ".join(parameter_labels(spec.method, spec.parameters))
    words = f"{trials} trials a fold" + (f", from {start}" if start else "")
    return dataclasses.replace(spec, parameters={**spec.parameters, **best}, tuned=words)
