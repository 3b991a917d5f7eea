"""Cells on a Dask cluster, a task each: nothing is computed before every worker has been asked for the same code, the
data sets and the store of runs.
"""

import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import islice
from typing import Any, Final
from urllib.parse import urlsplit

from bench.data.manifest import store_path
from bench.data.store import COLUMN_FILES, Store
from bench.environment import code_digest, is_gpu
from bench.errors import InputError
from bench.files import locked, written_folder
from bench.runs.execute import Outcome, RunOptions, code_of, execute, store_of
from bench.spec import RunSpec
from bench.tracking.address import ANSWER_SECONDS
from bench.tracking.claims import here
from bench.tracking.tracker import Tracker

LOOK_SECONDS: Final = 1.0  # between two looks at whether a worker for each cell is there
WORKER_SECONDS: Final = 30.0  # for the first worker to come
GONE_SECONDS: Final = 60.0  # that cells wait for a worker that could compute them
SENT_BYTES: Final = 500e6  # of a store's tables that are sent to workers
DASK: Final = "`pip install 'etc-bench[dask]'` brings dask.distributed"
GPU: Final = "GPU"  # resources as workers declare them: cards,
MEMORY: Final = "MEMORY"  # and bytes

Needs = Mapping[str, float]


def cluster(
    todo: Sequence[RunSpec], specs: Iterator[RunSpec], tracker: Tracker, options: RunOptions
) -> Iterator[Outcome]:
    """Outcomes of a Dask cluster, which has as many cells at a time as it has workers.

    Raises :class:`InputError` where there is no scheduler or no worker, or one lacks what the cells need.
    """
    with connected(str(options.scheduler)) as client, _sign(tracker) as sign:
        asked = Asked.of(todo, sign, options)
        _make_ready(client, asked, tracker, options)
        cells = _Cells(client, asked, tracker, options, _peaks(client, todo, tracker))
        while cells.begin(specs):
            yield from cells.ended()


class _Cells:
    """The cells that a cluster is at."""

    def __init__(
        self, client: Any, asked: "Asked", tracker: Tracker, options: RunOptions, peaks: Mapping[tuple[str, str], float]
    ) -> None:
        self._client, self._asked, self._tracker, self._options, self._peaks = client, asked, tracker, options, peaks
        self._cells: dict[Any, tuple[RunSpec, Needs]] = {}
        self._fit = time.monotonic()  # when last each of them had a worker that could compute it

    def begin(self, specs: Iterator[RunSpec]) -> bool:
        """Give each worker that has nothing to do a cell; whether there is any left to wait for."""
        workers = list(_resources(self._client).values())
        for spec in islice(specs, max(0, max(1, len(workers)) - len(self._cells))):
            needs = needs_of(spec, workers, self._peaks, self._options)
            words = (spec, self._tracker, self._options.quiet, self._asked)
            key = f"{spec.name}-{secrets.token_hex(4)}"
            work = self._client.submit(_on_worker, *words, key=key, pure=False, resources=dict(needs))
            self._cells[work] = spec, needs
        if all(any(_has(one, needs) for one in workers) for _, needs in self._cells.values()):
            self._fit = time.monotonic()
        elif time.monotonic() - self._fit > GONE_SECONDS:
            raise no_cluster(self._options.scheduler, "no worker is left that could compute a cell; start one")
        return bool(self._cells)

    def ended(self) -> Iterator[Outcome]:
        """Outcomes of those that end within `LOOK_SECONDS`."""
        from distributed import CancelledError, wait

        try:
            done = wait(list(self._cells), timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED").done
        except CancelledError:
            raise no_cluster(
                self._options.scheduler, "the scheduler is gone; workers finish their current runs"
            ) from None
        except TimeoutError:
            return
        for work in done:
            spec, _ = self._cells.pop(work)
            yield self._outcome(spec, work)

    def _outcome(self, spec: RunSpec, work: Any) -> Outcome:
        from distributed import KilledWorker

        error = work.exception()
        if error is None:
            outcome: Outcome = work.result()
            return outcome
        if isinstance(error, InputError):
            raise error
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if isinstance(error, KilledWorker):
            reason = (
                f"its worker died each time, the last was {error.last_worker.address}; was there too little memory?"
            )
        return Outcome(spec, "failed", reason)


@dataclass(frozen=True)
class Asked:
    """What a worker must have before it is given a cell, and what is looked at there."""

    version: str  # digest of our code
    methods: tuple[tuple[RunSpec, str], ...]  # a cell of each method, and the digest of its code
    stores: tuple[RunSpec, ...]  # a cell of each data set
    sign: str  # a claim that everybody must see who writes into the same store of runs
    device: str

    @classmethod
    def of(cls, todo: Sequence[RunSpec], sign: str, options: RunOptions) -> "Asked":
        """What these cells ask for."""
        methods = {spec.method: (spec, code_of(spec)) for spec in todo}
        stores = {spec.dataset: spec for spec in todo}
        return cls(version(), tuple(methods.values()), tuple(stores.values()), sign, options.device)


@dataclass(frozen=True)
class Seen:
    """What a worker lacks."""

    problem: str = ""
    stores: tuple[str, ...] = ()  # names of data sets that it has no store of


def look(asked: Asked, tracker: Tracker) -> Seen:
    """On a worker: whether all is there that is asked for."""
    lacking = []
    try:
        if (own := version()) != asked.version:
            remedy = "install the same etc-bench there"
            return Seen(f"its code is {own} where ours is {asked.version}; {remedy}")
        for spec, digest in asked.methods:
            if code_of(spec) != digest:
                return Seen(f"{spec.method} is other code there; put the same file at the same path")
        if (problem := _store_of_runs(asked, tracker)) or (problem := _device(asked.device)):
            return Seen(problem)
        for spec in asked.stores:
            if not (store_path(spec.dataset) / "manifest.json").is_file():
                lacking.append(spec.dataset)
            elif problem := _captures(store_of(spec)):
                return Seen(problem)
    except InputError as error:
        return Seen(str(error))
    return Seen(stores=tuple(lacking))


def _store_of_runs(asked: Asked, tracker: Tracker) -> str:
    """What keeps a worker from writing into the store of runs."""
    folder = tracker.address.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"{folder} cannot be made there ({error.strerror}); name --results that can"
    if not os.access(folder, os.W_OK):
        return f"{folder} cannot be written there; name --results that can"
    tracker.address.check()
    if tracker.claims.sees(asked.sign):
        return ""
    if tracker.address.is_server:
        return "it does not see who computes what; name one database for all in BENCH_CLAIMS (docs/scaling.md)"
    return f"{tracker.address.shown} is another one there; name a database server in MLFLOW_TRACKING_URI"


def _device(device: str) -> str:
    """What keeps a worker from computing on a device."""
    if not is_gpu(device):
        return ""
    import torch

    return "" if torch.cuda.is_available() else f"torch has no {device} there; let workers with a card declare GPU=1"


def _captures(store: Store) -> str:
    """What a store lacks of its captures."""
    for number in range(0 if store.of_records else len(store.manifest.captures)):
        if store.manifest.captures[number].bytes and not (path := store.capture_path(number)).is_file():
            return f"{path}: capture of {store.name} is not there; put captures and stores on a path that all share"
    return ""


def _make_ready(client: Any, asked: Asked, tracker: Tracker, options: RunOptions) -> None:
    """Look at all workers, and send those the tables of a data set of records that lack them.

    Raises :class:`InputError` for the first worker that lacks something else.
    """
    workers = workers_of(client, str(options.scheduler))
    if is_gpu(options.device) and any(GPU in one["resources"] for one in workers.values()):
        workers = {name: one for name, one in workers.items() if GPU in one["resources"]}
    for name, one in workers.items():
        if one["nthreads"] > 1:
            why = "cells of one process share its random numbers; start it with --nthreads 1, and several by --nworkers"
            raise no_cluster(options.scheduler, f"worker {name} has {one['nthreads']} threads: {why}")
    for worker, seen in client.run(look, asked, tracker, workers=list(workers), on_error="return").items():
        if not isinstance(seen, Seen):
            seen = Seen(f"{type(seen).__name__}: {seen}; install the same etc-bench there")
        for name in seen.stores if not seen.problem else ():
            seen = _sent(client, worker, Store.find(name), options)
        if seen.problem:
            raise no_cluster(options.scheduler, f"worker {worker}: {' '.join(seen.problem.split())}")


def workers_of(client: Any, scheduler: str) -> dict[str, Any]:
    """What the scheduler knows of each worker.  Raises :class:`InputError` where there is none."""
    try:
        client.wait_for_workers(1, timeout=WORKER_SECONDS)
    except TimeoutError:
        raise no_cluster(scheduler, f"it has no worker; start one: `dask worker {scheduler} --nthreads 1`") from None
    workers: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    return workers


def _sent(client: Any, worker: str, store: Store, options: RunOptions) -> Seen:
    """Send a worker the tables of a data set that has no captures; what keeps it from that."""
    size = sum((store.path / name).stat().st_size for name in COLUMN_FILES)
    remedy = f"put {store.path} where all see it and start workers with BENCH_HOME naming its home"
    if not store.of_records or size > SENT_BYTES:
        why = f"the {size / 1e6:.0f} MB of its tables are not sent" if store.of_records else "captures are not sent"
        return Seen(f"data set {store.name!r} is not prepared there, and {why}; {remedy}")
    files = {name: (store.path / name).read_bytes() for name in (*COLUMN_FILES, "sources.json", "manifest.json")}
    options.say(f"{store.name}: {size / 1e6:.1f} MB of tables sent to {worker}")
    done = client.run(received, store.name, files, workers=[worker], on_error="return")[worker]
    return Seen("" if done == store.digest else f"data set {store.name!r} could not be sent ({done}); {remedy}")


def received(name: str, files: Mapping[str, bytes]) -> str:
    """On a worker: keep a store that was sent, unless another worker of this machine was quicker; its digest."""
    place = store_path(name)
    with locked(place):
        if not (place / "manifest.json").is_file():
            with written_folder(place) as folder:
                for file, content in files.items():
                    (folder / file).write_bytes(content)
    return Store.open(place).digest


def _peaks(client: Any, todo: Sequence[RunSpec], tracker: Tracker) -> dict[tuple[str, str], float]:
    """Bytes that earlier runs of a method took on a data set, where any worker declares how many it has."""
    if not any(MEMORY in one for one in _resources(client).values()):
        return {}
    asked = {name: sorted({getattr(spec, name) for spec in todo}) for name in ("method", "dataset")}
    peaks: dict[tuple[str, str], float] = {}
    for record in tracker.search(latest=False, **asked):
        key = record.spec.method, record.spec.dataset
        peaks[key] = max(peaks.get(key, 0.0), record.metrics.get("peak_memory_bytes", 0.0))
    return peaks


def needs_of(
    spec: RunSpec, workers: Sequence[Needs], peaks: Mapping[tuple[str, str], float], options: RunOptions
) -> dict[str, float]:
    """What a cell asks of a worker: never what none of them declares, which it would wait for to no end."""
    needs: dict[str, float] = {}
    if is_gpu(options.device) and (cards := [one for one in workers if GPU in one]):
        needs, workers = {GPU: 1.0}, cards
    most = max((one.get(MEMORY, 0.0) for one in workers), default=0.0)
    if most and (peak := peaks.get((spec.method, spec.dataset))):
        needs[MEMORY] = min(peak, most)
        if peak > most:
            have = f"workers declare {most / 1e9:.1f} GB at most"
            options.say(f"{spec.dataset} {spec.name}: such runs took {peak / 1e9:.1f} GB, {have}; it is tried there")
    return needs


def _has(worker: Needs, needs: Needs) -> bool:
    return all(worker.get(name, 0.0) >= value for name, value in needs.items())


def _resources(client: Any) -> dict[str, Needs]:
    """What each worker declares, by its address."""
    return {name: one["resources"] for name, one in client.scheduler_info(n_workers=-1)["workers"].items()}


def check_scheduler(address: str) -> None:
    """Raises :class:`InputError` unless a scheduler takes connections at a text like ``tcp://HOST:PORT``."""
    if find_spec("distributed") is None:
        raise no_cluster(address, f"dask.distributed is not installed; {DASK}")
    try:
        parts = urlsplit(address)
        if parts.scheme not in ("tcp", "tls") or not parts.hostname or not parts.port:
            raise ValueError("not an address like tcp://HOST:8786")
        with socket.create_connection((parts.hostname, parts.port), ANSWER_SECONDS) as one:
            if parts.scheme == "tcp" and not one.recv(1):  # a scheduler speaks first; dask's client waits for ever
                raise ConnectionError("it hangs up")
    except (OSError, ValueError) as error:
        raise no_cluster(address, f"no scheduler answers ({error}); start one: `dask scheduler`") from None


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """A client of the scheduler.  Raises :class:`InputError` where there is none."""
    check_scheduler(address)
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what it would tell is told by us, in a line
    try:
        client = Client(address, timeout=ANSWER_SECONDS)
    except (OSError, ValueError) as error:
        raise no_cluster(address, f"no scheduler answers ({error}); start one: `dask scheduler`") from None
    try:
        yield client
    finally:
        client.close()


@contextmanager
def _sign(tracker: Tracker) -> Iterator[str]:
    """The name of a claim that is there as long as the block lasts."""
    name = f"scheduler {secrets.token_hex(8)}"
    tracker.claims.take(name)
    try:
        yield name
    finally:
        with suppress(InputError):  # the database is away; the claim ends with this process
            tracker.claims.let_go(name)


def no_cluster(address: str | None, why: str) -> InputError:
    """That a cluster cannot compute cells."""
    return InputError("no-cluster", f"--scheduler {address}: {why}")


@cache
def version() -> str:
    """Digest of the code that computes cells."""
    return code_digest("bench.matrix.cluster")


_LOOKED: Final[set[str]] = set()  # signs of those for whom this process was found fit


def _on_worker(spec: RunSpec, tracker: Tracker, options: RunOptions, asked: Asked) -> Outcome:
    """Execute it; a worker that came later is looked at with its first cell."""
    if asked.sign not in _LOOKED:
        seen = look(asked, tracker)
        if seen.problem or seen.stores:
            problem = seen.problem or f"{', '.join(seen.stores)} not prepared there; start again: tables are sent then"
            raise no_cluster(options.scheduler, f"worker {here()}, which came later: {problem}")
        _LOOKED.add(asked.sign)
    return execute(spec, tracker, options)
