"""What is remembered of runs: one MLflow store, asked and written.

The default is a SQLite file and an artefact folder below ``results/``; ``MLFLOW_TRACKING_URI`` names another store, a
database or a server.  Reading asks a database in SQL and imports no MLflow, which takes seconds; nothing is opened
before the first question.
"""

import dataclasses
import json
import logging
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from bench.errors import InputError
from bench.files import aside_of, locked
from bench.spec import RunSpec
from bench.tracking.address import Address, address_of
from bench.tracking.claims import Claims, process_lives, this_process
from bench.tracking.database import (
    BUSY_SECONDS,
    DIGEST,
    Experiment,
    Row,
    engine_of,
    experiments_of,
    experiments_of_server,
    history_of_server,
    ids_of,
    keep_artefacts_in,
    parameters_of,
    points_of,
    reading_engine_of,
    rows_of,
    rows_of_server,
)
from bench.tracking.record import (
    ENDS,
    PURPOSE,
    SPEC,
    Record,
    after_deletion,
    matches,
    record_of,
    shown,
    status_of,
)
from bench.tracking.run_files import RunFiles
from bench.tracking.writing import (
    TEXT,
    UID,
    Content,
    Run,
    Study,
    Target,
    closing,
    experiment_in,
    experiment_of,
    now,
    publish,
)

Curve = tuple[NDArray[np.int64], NDArray[np.float64]]  # steps and values, both [n]
STUDY: Final = "bench.study"
PROCESS: Final = "bench.process"  # that writes a run
QUIET: Final = {  # standard output is ours
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
HTTP: Final = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}  # of a server's answer


class Tracker:
    """The store of all runs.

    ``results`` is the folder of the default store, ``uri`` names another one (as ``MLFLOW_TRACKING_URI`` does),
    ``claims`` the database of who computes what where that is a server (as ``BENCH_CLAIMS`` does).  With ``reading``
    an SQLite file is opened for reading alone.
    """

    def __init__(
        self, results: str | Path = Path("results"), uri: str | None = None, claims: str = "", *, reading: bool = False
    ) -> None:
        self.results = Path(results).absolute()
        self.reading = reading
        self.address = address_of(self.results, uri)
        self._own_claims = claims or os.environ.get("BENCH_CLAIMS", "")

    def __reduce__(self) -> tuple[Any, ...]:  # workers open the store themselves, each once
        return _opened, (self.results, self.address.uri, self._own_claims)

    @property
    def is_there(self) -> bool:
        """Whether there is a store to read, or runs that wait for one; a server is there until it is asked."""
        return not self.address.is_sqlite or self.address.file.is_file() or self.address.pending.is_dir()

    @cached_property
    def claims(self) -> Claims:
        """Who computes what: in the tracking database, or, of a server, in the one that ``BENCH_CLAIMS`` names."""
        if self.address.is_sqlite:  # its tables come first, whole: see `_client`
            return Claims(self.address, lambda: self._client)
        return Claims(self.address if self.address.is_database else self._beside_a_server)

    @property
    def _beside_a_server(self) -> Address:
        """Where claims are, since a server has none: a database of the user's, or a file of this results folder."""
        own = self._own_claims or f"sqlite:///{self.results / 'claims.db'}"
        return Address(own, self.results)

    @property
    def shares_claims(self) -> bool:
        """Whether everybody who writes into the store sees the same claims."""
        return self.address.is_database or bool(self._own_claims)

    @cached_property
    def _client(self) -> Any:
        os.environ.update(QUIET)
        for name, value in HTTP.items():
            os.environ.setdefault(name, value)
        self.address.check()
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger("mlflow.store").setLevel(logging.CRITICAL)  # traces of what it raises as well
        wait = f"?timeout={BUSY_SECONDS}" if self.address.is_sqlite and "?" not in self.address.uri else ""
        with self._answering(), self._alone():
            if self.address.is_sqlite and not self.address.file.is_file():  # MLflow cannot go on with half its tables
                with aside_of(self.address.file) as aside:
                    made = MlflowClient(f"sqlite:///{aside}")
                    made.search_experiments(max_results=1)
                    made._tracking_client.store.engine.dispose()
            client = MlflowClient(self.address.url + wait)
            client.search_experiments(max_results=1)  # a server is not asked before
        return client

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """What a library raises in the block is that the store does not answer."""
        try:
            yield
        except (InputError, OSError):
            raise
        except Exception as error:  # MLflow's own, SQLAlchemy's, a network's
            raise self.address.failed(getattr(error, "orig", None) or error) from None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time makes or migrates the tables; they get in each other's way."""
        if self.address.is_sqlite:
            with locked(self.address.file.parent / "mlflow"):
                yield
        elif self.address.is_database:
            with self.claims.alone("tables of MLflow"):
                yield
        else:
            yield

    @cached_property
    def _engine(self) -> Any:
        return reading_engine_of(self.address) if self.reading else engine_of(self.address)

    def rows(
        self, digests: Sequence[str] | None = None, begins: str | None = None, tag: tuple[str, str] | None = None
    ) -> list[Row]:
        """Rows of runs that are ours, newest first; nothing is written, not even a store that is not there."""
        if not self.address.is_database:
            found = rows_of_server(self._client, digests=digests)
            found = found if tag is None else [row for row in found if row.tags.get(tag[0]) == tag[1]]
            return found if begins is None else [row for row in found if row.run_id.startswith(begins)]
        return self._read(rows_of, digests=digests, begins=begins, tag=tag)

    def ids(self) -> list[str]:
        """Ids of runs that are ours, newest first; of a database in one small question."""
        return self._read(ids_of) if self.address.is_database else [row.run_id for row in self.rows()]

    def experiments(self) -> list[Experiment]:
        """Experiments of ours on MLflow's page, that with the newest run first; of a store that is not there none."""
        if self.address.is_database:
            return self._read(experiments_of)
        with self._answering():
            return experiments_of_server(self._client)

    def _read(self, asked: Callable[..., list[Any]], **more: Any) -> list[Any]:
        """What the database answers; of a file that is not there nothing."""
        if self.address.is_sqlite and not self.address.file.is_file():
            return []
        with self._answering():
            return asked(self._engine, **more)

    def finished(self, digest: str) -> Record | None:
        """The newest run of that digest which is done."""
        return self.finished_of([digest]).get(digest)

    def finished_of(self, digests: Sequence[str]) -> dict[str, Record]:
        """Of each of these digests that has a run which is done the newest; one question for all."""
        found: dict[str, Row] = {}
        for row in self.rows(digests):
            if row.status == "FINISHED" and status_of(row) == "done":
                found.setdefault(row.tags[DIGEST], row)
        deleted = self.deleted() if found else {}
        return {digest: after_deletion(record_of(row), deleted) for digest, row in found.items()}

    def adopt(self, record: Record) -> None:
        """Make a run one that the user asked for, whomever it was computed for."""
        with self._answering():
            self._client.delete_tag(record.run_id, PURPOSE)

    def close_left(self, digest: str) -> list[Row]:
        """Close as killed the open runs of a digest that the caller has claimed: they have nobody any more.

        Where not everybody sees the claims, those of living processes and of other machines are left alone.  Gives all
        runs of the digest as they were.
        """
        rows = self.rows([digest])
        for stale in rows:
            here_and_gone = process_lives(stale.tags.get(PROCESS, "")) is False
            if stale.status == "RUNNING" and (self.shares_claims or here_and_gone):
                with self._answering():
                    self._client.set_terminated(stale.run_id, ENDS["killed"])
        return rows

    def start(self, spec: RunSpec, name: str, tags: Mapping[str, str]) -> Run:
        """Begin a run.  The caller has claimed its digest."""
        newest = max((row.started for row in self.close_left(spec.digest)), default=0)
        fields = spec.to_dict()
        plain = {key: str(fields[key]) for key in ("method", "dataset", "task", "split", "seed", "fold")
                 if fields[key] is not None}  # fmt: skip
        own = {DIGEST: spec.digest, SPEC: json.dumps(fields, sort_keys=True), PROCESS: this_process()}
        short = {key: value[:TEXT] for key, value in tags.items()}
        started = max(now(), newest + 1)  # the clock may have been set back, and the newest run is the one that counts
        content = Content(experiment_of(spec), name, started, self.address.shown, plain | short | own)
        with self._answering():
            return Run(self._target, content, spec.digest)

    @contextmanager
    def study(self, name: str, spec: RunSpec) -> Iterator[Study]:
        """A hyper-parameter study of ``spec`` by its name, taken up again where it exists.

        Several processes may be at it; the last one closes it.
        """
        fields = spec.to_dict()
        plain = {key: str(fields[key]) for key in ("method", "dataset", "task", "split", "seed")}
        tags = {STUDY: name, **plain, "row": f"study {name}"}
        content = Content(experiment_of(spec), name, now(), self.address.shown, tags)
        key = f"{name}-{secrets.token_hex(4)}"  # of this process's part
        with self.claims.alone(f"study {name}"), self._answering():
            experiment = self._experiment(content.experiment)
            known = self._client.search_runs([experiment], f"tags.`{STUDY}` = '{name}'", max_results=1)
            if known:
                content.run_id = known[0].info.run_id
                self._client.update_run(content.run_id, status="RUNNING")
            study = Study(self._target, content, key, lambda: self._leaving(name, key))
            self.claims.take(key)
        with closing(study):
            yield study

    @contextmanager
    def _leaving(self, name: str, key: str) -> Iterator[bool]:
        """One process at a time leaves a study; whether no other one that lives is at it."""
        with self.claims.alone(f"study {name}"):
            try:
                others = [one for one in self.claims.holders() if one.startswith(f"{name}-") and one != key]
                gone = [one for one in others if self.claims.take(one) is None]
                for one in gone:
                    self.claims.let_go(one)
                yield gone == others
            finally:
                self.claims.let_go(key)

    def sync(self) -> list[str]:
        """Log the runs that wait in the results folder because the store was away when they ended; their names."""
        logged = []
        for folder in self.waiting():
            if self.claims.take(folder.name) is not None:
                continue  # its process is at it
            try:
                if folder in self.waiting():  # else its process was quicker
                    content = Content.load(folder)
                    content.give_way(self.finished(content.tags.get(DIGEST, "")))
                    with self._answering():
                        self.bring(folder, content)
                    logged.append(content.name)
            finally:
                self.claims.let_go(folder.name)
        return logged

    def bring(self, folder: Path, content: Content) -> str:
        """Log the folder of a run, which the caller has claimed, and remove it; the id that the run has here.

        What is here already in part, begun by a process that is gone, is completed.  MLflow's errors pass.
        """
        here = self.rows(tag=(UID, content.uid))
        content.run_id = here[0].run_id if here else None
        return publish(self._target, folder, content)

    def waiting(self) -> list[Path]:
        """Folders of runs in the results folder that this store has not logged; those of another one are left out."""
        return [folder for folder, store in self._pending() if store == self.address.place]

    def waiting_elsewhere(self) -> list[str]:
        """The stores, without their passwords, that other runs in the results folder wait for."""
        return sorted({store for _, store in self._pending()} - {self.address.place})

    def _pending(self) -> Iterator[tuple[Path, str]]:
        """Folders of runs that wait, and for what store."""
        for path in sorted(self.address.pending.glob("[!.]*/run.json")):
            try:
                yield path.parent, Address(Content.load(path.parent).store).place
            except InputError as error:
                if path.exists():  # else its process has just logged it
                    raise error.with_remedy("move that folder away") from None

    @cached_property
    def _target(self) -> Target:
        engine = self._engine if self.address.is_database else None
        return Target(self._client, self.address, self._experiment, engine)

    def search(self, *, latest: bool = True, **wanted: Any) -> list[Record]:
        """Records, oldest first, whose specification has the wanted values (a value, or several to choose from).

        ``wanted`` are fields as `RunSpec.to_dict` names them.  With ``latest``, one a digest: the newest that is done,
        else the newest; where a newer one was deleted on MLflow's page, it is marked so.
        """
        records = [record_of(row) for row in self.rows()]  # newest first
        if latest:
            deleted = self.deleted() if records else {}
            records = [after_deletion(record, deleted) for record in shown(records)]
        chosen = [record for record in records if matches(record.spec, wanted)]
        return sorted(chosen, key=lambda record: record.started)

    def load(self, run_id: str) -> Record:
        """A run by its id or the start of it, with its artefacts.  Raises :class:`InputError`."""
        rows = self.rows(begins=run_id) if run_id else []
        if len(rows) != 1:
            what = "no run has" if not rows else f"{len(rows)} runs have"
            raise InputError(
                "unknown-run",
                f"{what} an id that starts with {run_id!r} ({self.address.shown}); `bench results show` lists ids",
            )
        return self.opened(record_of(rows[0]))

    def binned(self) -> list[Row]:
        """Of a database the runs in MLflow's bin: deleted on its page, or by a removal that was broken off."""
        there = self.address.is_database and (not self.address.is_sqlite or self.address.file.is_file())
        with self._answering():
            return rows_of(self._engine, stage="deleted") if there else []

    def deleted(self) -> dict[str, Row]:
        """By digest the newest run that was done and was deleted on MLflow's page."""
        gone = self.binned() if self.address.is_database else rows_of_server(self._client, deleted=True)
        found: dict[str, Row] = {}
        for row in gone:  # newest first
            if row.status == "FINISHED" and status_of(row) == "done":
                found.setdefault(row.tags[DIGEST], row)
        return found

    def history(self, row: Row) -> tuple[list[list[Any]], dict[str, str]]:
        """Every point of a run's curves (name, value, milliseconds since the epoch, step), and its parameters."""
        if self.address.is_database:
            with self._answering():
                return self._points(row.run_id), parameters_of(self._engine, row.run_id)
        return history_of_server(self._client, row.run_id)

    def opened(self, record: Record) -> Record:
        """A record that :meth:`search` found, with its artefacts."""
        return dataclasses.replace(record, folder=self.files.folder(record))

    def curve(self, run_id: str, name: str) -> Curve:
        """Steps ``[n]`` int64, ascending, and values ``[n]`` float64 of a curve ("step/loss"); empty: none kept."""
        return self.curves(run_id, [name])[name]

    def curves(self, run_id: str, names: Sequence[str]) -> dict[str, Curve]:
        """Curves of a run by name, each as :meth:`curve` gives it, steps and values ``[n]``."""
        if self.address.is_database:
            known = self._points(run_id)
        else:
            with self._answering():
                history = [point for name in names for point in self._client.get_metric_history(run_id, name)]
            known = [[point.key, point.value, point.timestamp, point.step] for point in history]
        found: dict[str, list[tuple[int, float]]] = {name: [] for name in names}
        for name, value, _, step in sorted(known, key=lambda point: (point[3], point[1])):
            if name in found:
                found[name].append((step, value))
        return {name: (np.array([step for step, _ in points], np.int64), np.array([value for _, value in points]))
                for name, points in found.items()}  # fmt: skip

    def _points(self, run_id: str) -> list[list[Any]]:
        """Every point of a run's curves in a database: name, value, milliseconds since the epoch, step."""
        with self._answering():
            stored = points_of(self._engine, run_id)
        return [[key, math.nan if nan else value, at, step] for key, value, at, step, nan in stored]

    @cached_property
    def files(self) -> RunFiles:
        """The files of runs."""
        return RunFiles(self.address, lambda: self._client, self._answering)

    def shrink(self) -> str:
        """Give the space of removed runs back to the file system; why that could not be, or nothing."""
        if not self.address.is_sqlite:
            return "" if self.address.is_database else "a server keeps removed runs in its bin: `mlflow gc` there"
        try:
            with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(sa.text("VACUUM"))
        except sa.exc.SQLAlchemyError as error:
            return f"{self.address.shown} keeps its size for now ({getattr(error, 'orig', None) or error})"
        return ""

    def _experiment(self, name: str) -> str:
        """Id of an experiment; each is asked for once."""
        if name not in self._experiments:
            self._experiments[name] = experiment_in(self._client, self.address, name)
            if self.address.is_sqlite:  # a copied folder names the place of the first one
                keep_artefacts_in(self._engine, self._experiments[name], (self.address.folder / "artifacts").as_uri())
        return self._experiments[name]

    @cached_property
    def _experiments(self) -> dict[str, str]:
        return {}


@cache
def _opened(results: Path, uri: str, claims: str) -> Tracker:
    """One store for all cells of a worker."""
    return Tracker(results, uri, claims)
