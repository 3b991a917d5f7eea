"""Captures read on a Dask cluster, a task each: what `bench prepare --scheduler` gives to workers.

They read what all see: the captures and, for what is unpacked, ``BENCH_HOME``.  The store is written here.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from bench.data.build import Pool, Read
from bench.data.sources import CaptureFile
from bench.environment import code_digest
from bench.errors import InputError
from bench.matrix import cluster
from bench.tracking.claims import here


@contextmanager
def on_cluster(scheduler: str) -> Iterator[tuple[Pool, int]]:
    """The workers of a cluster as :data:`bench.data.build.Readers`.

    Raises :class:`InputError` where there is no scheduler or no worker, or one has other code or lacks a capture.
    """
    with cluster.connected(scheduler) as client:
        threads = sum(one["nthreads"] for one in cluster.workers_of(client, scheduler).values())
        for worker, code in client.run(version, on_error="return").items():
            if code != version():
                raise cluster.no_cluster(scheduler, f"worker {worker} has other code; install the same etc-bench there")
        yield _Workers(client, scheduler), threads


class _Workers:
    """Workers as a pool."""

    def __init__(self, client: Any, scheduler: str) -> None:
        self._client, self._scheduler = client, scheduler

    def submit(self, work: Callable[[CaptureFile], Read], file: CaptureFile, /) -> "_Reading":
        """Begin to read a capture on one of them."""
        key = f"read {file.path} {secrets.token_hex(4)}"
        return _Reading(self._client, self._scheduler, self._client.submit(_read, work, file, key=key, pure=False))


class _Reading:
    """A capture that is being read."""

    def __init__(self, client: Any, scheduler: str, future: Any) -> None:
        self._client, self._scheduler, self._future = client, scheduler, future

    def result(self) -> Read:
        """Wait for it.  Raises :class:`InputError` where nobody is left to read it, or it was unpacked elsewhere."""
        from distributed import CancelledError, KilledWorker

        try:
            self._wait()
            read: Read = self._future.result()
        except CancelledError:
            raise cluster.no_cluster(self._scheduler, "the scheduler went away") from None
        except KilledWorker as error:
            why = f"a worker died at {error.task} each time; was there too little memory?"
            raise cluster.no_cluster(self._scheduler, why) from None
        if not isinstance(index := read[2], str) and not index.bytes_path.is_file():
            why = f"{index.bytes_path}, as a worker unpacked it, is not here; let BENCH_HOME be a path that all share"
            raise cluster.no_cluster(self._scheduler, why)
        return read

    def _wait(self) -> None:
        from distributed import wait

        seen = time.monotonic()  # when there was a worker last
        while True:
            try:
                wait([self._future], timeout=cluster.LOOK_SECONDS)
                return
            except TimeoutError:
                if self._client.scheduler_info(n_workers=-1)["workers"]:
                    seen = time.monotonic()
                elif time.monotonic() - seen > cluster.GONE_SECONDS:
                    raise cluster.no_cluster(self._scheduler, "no worker is left to read captures; start one") from None


@cache
def version() -> str:
    """Digest of the code that reads captures."""
    return code_digest("bench.matrix.readers")


def _read(work: Callable[[CaptureFile], Read], file: CaptureFile) -> Read:
    """On a worker: read a capture that is the one that was found."""
    path = file.root / file.path
    if not path.exists() or (path.is_file() and path.stat().st_size != file.size):
        what = "is not there, or is another file there"
        raise InputError("no-cluster", f"worker {here()}: {path} {what}; put captures on a path that all share")
    return work(file)
