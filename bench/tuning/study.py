"""One study from its first trial to the file of its best parameters.

The test part is neither represented nor scored.  Every trial is a nested run under the study's own run.
"""

import dataclasses
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import optuna

from bench.environment import GRACE_SECONDS, limit_of_threads, live_with, threads
from bench.errors import InputError, Terminated, some
from bench.method import reason_to_skip
from bench.runs import registry
from bench.runs.execute import store_of, unsaid
from bench.runs.kept_arrays import limit
from bench.runs.plan import ParameterFile
from bench.spec import RunSpec
from bench.tuning.search import Look, Search
from bench.tuning.share import Share, TuneOptions, is_full, wanted_trials
from bench.tuning.spaces import check_words, grid_values
from bench.tuning.studies import answering, by_other_code, stored_study
from bench.tuning.summary import summarise, write_plots

if TYPE_CHECKING:
    from bench.tracking.tracker import Tracker


def tune(search: Search, tracker: "Tracker", options: TuneOptions) -> dict[str, Any]:
    """Bring the study to its finished trials and describe it.

    Returns the study's name, the default parameters' value and the best one with its parameters, all trials and the
    parameter file's path.  Raises :class:`InputError` as :func:`open_study` does, where no trial can be made, and where
    the limit of kept arrays is none.
    """
    limit()
    check_words(search.sampler, {})
    if search.sampler == "grid":
        grid_values(search.spaces)
    if (known := finished(search, options)) is not None:
        return known
    with answering(options.storage):
        shares = _shares(search, options)
        others = by_other_code(search, options.storage)
        if others and not shares[0].study.get_trials(deepcopy=False):
            options.progress(f"begins anew: what other code found does not count (study {some(others, 3)})")
        with tracker.study(search.name, search.spec) as run:
            if options.jobs > 1:
                with _closed_when_interrupted(shares, run):
                    _side_by_side(search, tracker, options)
            _work(shares, run)
            summary = summarise(search, *(share.study for share in shares))
            if best := summary["best"]:
                summary["file"] = str(_file(search, options))
            with run.artefacts() as folder:
                write_plots(shares[0].study, folder)
                (folder / "study.json").write_text(json.dumps(summary, indent=1) + "\n")
        if best:  # last: where it is, the study is closed
            parameter_file(search, best).save(_file(search, options))
    return summary


def finished(search: Search, options: TuneOptions) -> dict[str, Any] | None:
    """A study that has its trials, as :func:`tune` describes it, else None; nothing is written, nor need it be."""
    studies: list[optuna.Study] = []
    for one, its_options in _parts(search, options):
        if (study := stored_study(one, options.storage)) is None:
            return None
        trials = study.get_trials(deepcopy=False)
        look = Look(trials, len(trials))
        if look.running or (look.left(wanted_trials(one, its_options)) > 0 and not is_full(one, look)):
            return None
        studies.append(study)
    summary, file = summarise(search, *studies), _file(search, options)
    if best := summary["best"]:
        if not parameter_file(search, best).is_in(file):  # a call with fewer trials may have left another one
            return None
        return summary | {"file": str(file)}
    return summary


def _file(search: Search, options: TuneOptions) -> Path:
    """Where the best parameters of a study are written."""
    return options.results / "params" / f"{search.name}.json"


def _parts(search: Search, options: TuneOptions) -> list[tuple[Search, TuneOptions]]:
    """The study, and that of the default parameters where the space does not hold them."""
    aside = [(search.of_default, dataclasses.replace(options, trials=1))] if search.default is None else []
    return [(search, options), *aside]


def _shares(search: Search, options: TuneOptions) -> list[Share]:
    """What this process does of each."""
    return [Share(*part) for part in _parts(search, options)]


def _work(shares: Sequence[Share], run: Any) -> None:
    """Do what is to be done, the default first; what others are at is waited for in the end."""
    for share in reversed(shares):
        share.work(run, wait=False)
    for share in shares:
        share.work(run)


@contextmanager
def _closed_when_interrupted(shares: Sequence[Share], run: Any) -> Iterator[None]:
    """Close trials of processes that an interrupt ended and that had to be killed, deaf or slow."""
    try:
        yield
    except (KeyboardInterrupt, Terminated):
        for share in shares:
            share.close_the_dead(run)
        raise


def _side_by_side(search: Search, tracker: "Tracker", options: TuneOptions) -> None:
    """Let processes work on the study and tell what they tell; they end when there is nothing left, or with this one.

    What they must know goes by a pipe, since it may hold a password.
    """
    job = pickle.dumps((os.getpid(), search, tracker, dataclasses.replace(options, jobs=1, progress=unsaid)))
    surroundings = os.environ | limit_of_threads(threads() // options.jobs)
    words = [sys.executable, "-c", f"from {__name__} import help_out; help_out()"]
    reading, writing = os.pipe()
    helpers: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(options.jobs):  # in sessions of their own: an interrupt is for this process alone
            helper = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=writing, env=surroundings, start_new_session=True
            )
            helpers.append(helper)
            with suppress(BrokenPipeError), cast(IO[bytes], helper.stdin) as pipe:
                pipe.write(job)
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8") as lines:
            for line in lines:
                options.progress(line.rstrip("\n"))
        for helper in helpers:
            if status := helper.wait():
                how = f"signal {-status}" if status < 0 else f"status {status}"
                options.progress(f"a process ended with {how}: its trial is tried once more")
    finally:
        _stop(helpers)


def _stop(helpers: Sequence["subprocess.Popen[bytes]"]) -> None:
    """End processes, each after it closed its trial."""
    until = time.monotonic() + GRACE_SECONDS
    try:
        for helper in helpers:
            helper.terminate()
        for helper in helpers:
            with suppress(subprocess.TimeoutExpired):
                helper.wait(max(0.0, until - time.monotonic()))
    finally:
        for helper in helpers:
            helper.kill()
            helper.wait()


def help_out() -> None:
    """What a process of `_side_by_side` does: work on the study that it is told of, and end when it is told so."""
    Terminated.listen()
    parent, search, tracker, options = pickle.load(sys.stdin.buffer)
    live_with(parent)
    options = dataclasses.replace(options, progress=partial(print, flush=True))
    try:
        with answering(options.storage):
            shares = _shares(search, options)
            with tracker.study(search.name, search.spec) as run:
                _work(shares, run)
    except InputError as error:
        options.progress(f"a process ends: {error}")
    except Terminated:
        pass


def check_runs(spec: RunSpec) -> None:
    """Raises :class:`InputError` for a method that cannot run on the data set: every trial would fail."""
    kind = registry.load(spec.method)
    if reason := reason_to_skip(kind, kind.Parameters(**spec.parameters), store_of(spec)):
        raise InputError("method-cannot-run", f"{spec.method} on {spec.dataset}: {reason}; take another method")


def parameter_file(search: Search, best: Mapping[str, Any]) -> ParameterFile:
    """The best parameters of a study, and all that they are the best of."""
    spec = search.spec
    return ParameterFile(
        method=spec.method,
        parameters={**spec.parameters, **best["parameters"]},
        study=search.name,
        dataset=spec.dataset,
        task=spec.task,
        store=spec.store,
        split=spec.split,
        validation_macro_f1=best["value"],
    )
