"""Runs in processes of their own: who kills one of them, above all the kernel for want of memory, ends one run.

Each worker is a pool of one, so that the end of a process is the end of what it was at and of nothing else.
"""

import os
import signal
import warnings
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import Final

from bench.environment import GRACE_SECONDS, cores, limit_of_threads, live_with
from bench.errors import InputError, Terminated
from bench.files import remove_left_behind
from bench.runs.execute import Outcome, RunOptions, execute, recalled, tags_of, title_of
from bench.spec import RunSpec
from bench.tracking.tracker import Tracker

KILLED: Final = "its process was killed twice, most likely because memory ran out; try fewer --jobs, or less data"


class Workers:
    """So many processes, each with its share of the threads, that execute runs and end with this one."""

    def __init__(self, number: int, tracker: Tracker, options: RunOptions) -> None:
        self._tracker, self._options, self._progress = tracker, options.quiet, options.progress
        self._threads = cores() // number
        self._all = [_Worker(self._threads) for _ in range(number)]
        self._idle = self._all.copy()
        self._at: dict[Future[Outcome], tuple[RunSpec, _Worker]] = {}
        self._again: list[RunSpec] = []  # whose process was killed once
        self._tried: set[str] = set()

    def executed(self, specs: Iterator[RunSpec]) -> Iterator[Outcome]:
        """Outcomes as they come.  A run whose process was killed is tried once more, then it has failed.

        Raises :class:`InputError` where a run does, after the others that are at it have come to their ends: what they
        find is kept.
        """
        error: InputError | None = None
        try:
            while True:
                while error is None and self._idle and (spec := self._next(specs)) is not None:
                    worker = self._idle.pop()
                    self._at[worker.begin(spec, self._tracker, self._options)] = spec, worker
                    self._progress(spec, "begins", {})
                if not self._at:
                    break
                for future in wait(self._at, return_when=FIRST_COMPLETED).done:
                    try:
                        outcome = self._outcome(future, *self._at.pop(future))
                    except InputError as raised:
                        error = raised
                    else:
                        if outcome is not None:
                            yield outcome
        finally:
            self._end()
        if error is not None:
            raise error

    def _next(self, specs: Iterator[RunSpec]) -> RunSpec | None:
        return self._again.pop() if self._again else next(specs, None)

    def _outcome(self, future: "Future[Outcome]", spec: RunSpec, worker: "_Worker") -> Outcome | None:
        """What came of a run, None where it is to be tried again; its worker, or another one, has nothing to do."""
        try:
            return future.result()
        except BrokenProcessPool:
            worker.kill()
            self._all.remove(worker)
            worker = _Worker(self._threads)
            self._all.append(worker)
            return self._of_a_killed(spec)
        finally:
            self._idle.append(worker)

    def _of_a_killed(self, spec: RunSpec) -> Outcome | None:
        self._tracker.sync()  # it may have been killed when all was found
        if not self._options.rerun and (known := self._tracker.finished(spec.digest)) is not None:
            return recalled(spec, known, self._tracker, self._options)
        if spec.digest not in self._tried:
            self._tried.add(spec.digest)
            self._again.append(spec)
            return None
        if (holder := self._tracker.claims.take(spec.digest)) is not None:
            return Outcome(spec, "elsewhere", f"running on {holder}")
        try:
            run = self._tracker.start(spec, title_of(spec), tags_of(spec, self._options.purpose))
            run.end("failed", KILLED)
        finally:
            self._tracker.claims.let_go(spec.digest)
        return Outcome(spec, "failed", KILLED, run.run_id)

    def _end(self) -> None:
        """Let workers that are at a run close it, and leave no process; what one could not close is closed for it."""
        for worker in self._all:
            if worker not in self._idle:  # one may have begun that an interrupt kept from `_at`
                worker.terminate()
        wait(self._at, GRACE_SECONDS)
        for worker in self._all:
            worker.kill()
        for spec, _ in self._at.values():
            with suppress(InputError):  # the store is away
                self._close(spec.digest)
        remove_left_behind(self._tracker.address.pending)

    def _close(self, digest: str) -> None:
        if self._tracker.claims.take(digest) is None:
            self._tracker.close_left(digest)
            self._tracker.claims.let_go(digest)


class _Worker:
    """One process, made when it gets its first run."""

    def __init__(self, threads: int) -> None:
        from joblib.externals.loky import ProcessPoolExecutor  # a process of its need not import what calls us

        warnings.filterwarnings("ignore", "A worker stopped while")  # one that has grown makes room for a new one
        environment = limit_of_threads(threads)
        self._pool = ProcessPoolExecutor(1, env=environment, initializer=live_with, initargs=(os.getpid(),))

    def begin(self, spec: RunSpec, tracker: Tracker, options: RunOptions) -> "Future[Outcome]":
        """Execute a run there."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # it inherits that: Ctrl-C is for us
        try:
            begun: Future[Outcome] = self._pool.submit(_in_worker, spec, tracker, options)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return begun

    def terminate(self) -> None:
        """Tell it to close its run and end."""
        for process in list(self._pool._processes):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)

    def kill(self) -> None:
        """End it, whatever it is at."""
        self._pool.shutdown(kill_workers=True)


def _in_worker(spec: RunSpec, tracker: Tracker, options: RunOptions) -> Outcome:
    """Execute it; SIGTERM ends the run as killed, and the process."""
    Terminated.listen()
    try:
        return execute(spec, tracker, options)
    except Terminated:
        os._exit(128 + signal.SIGTERM)
    finally:
        Terminated.listen_no_more()
