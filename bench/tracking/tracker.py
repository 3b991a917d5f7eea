"""What is remembered of runs: one MLflow store, asked and written.

The default is a SQLite file and an artefact folder below ``results/``; ``MLFLOW_TRACKING_URI`` names another store, a
database or a server.  Reading asks a database in SQL and imports no MLflow, which takes seconds; nothing is opened
before the first question.
"""

import contextlib
import json
import logging
import os
import platform
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlparse

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from bench.errors import InputError
from bench.files import locked
from bench.spec import RunSpec
from bench.tracking.address import Address, address_of
from bench.tracking.claims import Claims, process_lives, this_process
from bench.tracking.database import BUSY_SECONDS, DIGEST, Row, engine_of, rows_of, rows_of_server
from bench.tracking.record import ENDS, SPEC, Record, matches, record_of, status_of
from bench.tracking.writing import TEXT, Content, Run, Study, Target, closing, now, publish

STUDY: Final = "bench.study"
PROCESS: Final = "bench.process"  # that writes a run
HOST: Final = "bench.host"  # of an experiment: where its artefacts lie, if that is a folder
HTTP: Final = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}  # of a server's answer
PAGE: Final = {  # of an experiment: what MLflow's page shows of it, and how
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": "A run is one method, seed and fold. Group by the tag `row` for means over seeds and folds: "
    "its runs differ in nothing else. Tags `leaky` and `scale` mark what is no clean or no full result. Metrics "
    "without a prefix are of the test part, `validation_` ones are not. `bench table` and `bench report` tell more.",
}


class Tracker:
    """The store of all runs.

    ``results`` is the folder of the default store, ``uri`` names another one (as ``MLFLOW_TRACKING_URI`` does).
    """

    def __init__(self, results: str | Path = Path("results"), uri: str | None = None) -> None:
        self.results = Path(results).absolute()
        self.address = address_of(self.results, uri)

    def __reduce__(self) -> tuple[Any, ...]:  # workers open the store themselves
        return type(self), (self.results, self.address.uri)

    @cached_property
    def claims(self) -> Claims:
        """Who computes what: in the tracking database, or, of a server, in the one that ``BENCH_CLAIMS`` names."""
        return Claims(self.address if self.address.is_database else self._beside_a_server)

    @property
    def _beside_a_server(self) -> Address:
        """Where claims are, since a server has none: a database of the user's, or a file of this results folder."""
        own = os.environ.get("BENCH_CLAIMS") or f"sqlite:///{self.results / 'claims.db'}"
        return Address(own, self.results)

    @property
    def shares_claims(self) -> bool:
        """Whether everybody who writes into the store sees the same claims."""
        return self.address.is_database or bool(os.environ.get("BENCH_CLAIMS"))

    @cached_property
    def _client(self) -> Any:
        os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false")
        for name, value in HTTP.items():
            os.environ.setdefault(name, value)
        self.address.check()
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        wait = f"?timeout={BUSY_SECONDS}" if self.address.is_sqlite and "?" not in self.address.uri else ""
        try:
            with self._alone():
                client = MlflowClient(self.address.uri + wait)
                client.search_experiments(max_results=1)  # a server is not asked before
        except OSError:
            raise
        except Exception as error:  # MLflow's own, SQLAlchemy's, a network's
            raise self.address.failed(error) from None
        return client

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
        return engine_of(self.address)

    def _rows(self, digests: Sequence[str] | None = None, begins: str | None = None) -> list[Row]:
        """Rows of runs that are ours, newest first; nothing is written, not even a store that is not there."""
        if not self.address.is_database:
            found = rows_of_server(self._client, digests=digests)
            return found if begins is None else [row for row in found if row.run_id.startswith(begins)]
        if self.address.is_sqlite and not self.address.file.is_file():
            return []
        try:
            return rows_of(self._engine, digests=digests, begins=begins)
        except sa.exc.SQLAlchemyError as error:
            raise self.address.failed(getattr(error, "orig", None) or error) from None

    def finished(self, digest: str) -> Record | None:
        """The newest run of that digest which is done."""
        return self.finished_of([digest]).get(digest)

    def finished_of(self, digests: Sequence[str]) -> dict[str, Record]:
        """Of each of these digests that has a run which is done the newest; one question for all."""
        found: dict[str, Row] = {}
        for row in self._rows(digests):
            if row.status == "FINISHED" and status_of(row) == "done":
                found.setdefault(row.tags[DIGEST], row)
        return {digest: record_of(row) for digest, row in found.items()}

    def start(self, spec: RunSpec, name: str, tags: Mapping[str, str]) -> Run:
        """Begin a run.  The caller has claimed its digest: older runs of it that are open have nobody any more.

        Where not everybody sees the claims, those of living processes and of other machines are left alone.
        """
        for stale in self._rows([spec.digest]):
            here_and_gone = process_lives(stale.tags.get(PROCESS, "")) is False
            if stale.status == "RUNNING" and (self.shares_claims or here_and_gone):
                self._client.set_terminated(stale.run_id, ENDS["killed"])
        fields = spec.to_dict()
        plain = {key: str(fields[key]) for key in ("method", "dataset", "task", "split", "seed", "fold")
                 if fields[key] is not None}  # fmt: skip
        own = {DIGEST: spec.digest, SPEC: json.dumps(fields, sort_keys=True), PROCESS: this_process()}
        short = {key: value[:TEXT] for key, value in tags.items()}
        content = Content(_experiment_of(spec), name, now(), self.address.shown, plain | short | own)
        return Run(self._target, content, spec.digest)

    @contextmanager
    def study(self, name: str, spec: RunSpec) -> Iterator[Study]:
        """A hyper-parameter study of ``spec`` by its name, taken up again where it exists.

        Several processes may be at it; the last one closes it.
        """
        fields = spec.to_dict()
        plain = {key: str(fields[key]) for key in ("method", "dataset", "task", "split", "seed")}
        tags = {STUDY: name, **plain, "row": f"study {name}"}
        content = Content(_experiment_of(spec), name, now(), self.address.shown, tags)
        experiment = self._experiment(content.experiment)
        key = f"{name}-{secrets.token_hex(4)}"  # of this process's part
        with self.claims.alone(f"study {name}"):
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
                if folder in self.waiting():
                    content = Content.load(folder)
                    begun = self._rows(begins=content.run_id) if content.run_id else []
                    content.run_id = begun[0].run_id if begun else None  # deleted since
                    publish(self._target, folder, content)
                    logged.append(content.name)
            finally:
                self.claims.let_go(folder.name)
        return logged

    def waiting(self) -> list[Path]:
        """Folders of runs in the results folder that this store has not logged; those of another one are left out."""
        found = []
        for path in sorted((self.address.folder / "pending").glob("*/run.json")):
            try:
                found += [path.parent] if Content.load(path.parent).store == self.address.shown else []
            except InputError:
                if path.exists():  # else its process has just logged it
                    raise
        return found

    @cached_property
    def _target(self) -> Target:
        return Target(self._client, self.address, self._experiment)

    def search(self, *, latest: bool = True, **wanted: Any) -> list[Record]:
        """Records, oldest first, whose specification has the wanted values (a value, or several to choose from).

        ``wanted`` are fields as `RunSpec.to_dict` names them.  With ``latest``, one a digest: the newest that is done,
        else the newest.
        """
        records = [record_of(row) for row in self._rows()]  # newest first
        if latest:
            best: dict[str, Record] = {}
            for record in sorted(records, key=lambda r: r.status != "done"):
                best.setdefault(record.digest, record)
            records = list(best.values())
        chosen = [record for record in records if matches(record.spec, wanted)]
        return sorted(chosen, key=lambda record: record.started)

    def load(self, run_id: str) -> Record:
        """A run by its id or the start of it, with its artefacts.  Raises :class:`InputError`."""
        rows = self._rows(begins=run_id) if run_id else []
        if len(rows) != 1:
            what = "no run has" if not rows else f"{len(rows)} runs have"
            raise InputError(
                "unknown-run",
                f"{what} an id that starts with {run_id!r} ({self.address.shown}); `bench table --json` shows ids",
            )
        return record_of(rows[0], self._folder(rows[0]))

    def curve(self, run_id: str, name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Steps ``[n]``, ascending, and values ``[n]`` of a curve ("step/loss", "epoch/accuracy"); empty: none kept."""
        points = sorted((point.step, point.value) for point in self._client.get_metric_history(run_id, name))
        steps, values = zip(*points, strict=True) if points else ((), ())
        return np.array(steps, np.int64), np.array(values, np.float64)

    def _folder(self, row: Row) -> Path:
        """A local folder with the run's artefacts; an SQLite file and its artefacts may have been moved together."""
        place = urlparse(row.artefacts)
        if place.scheme in ("", "file"):
            recorded = Path(unquote(place.path))
            beside = self.address.folder / "artifacts" / row.run_id / "artifacts"
            return recorded if recorded.is_dir() or not self.address.is_database else beside
        return Path(self._client.download_artifacts(row.run_id, "", tempfile.mkdtemp()))

    def _experiment(self, name: str) -> str:
        """Id of an experiment, made where it is missing; artefacts of a database lie in the results folder.

        Raises :class:`InputError` where they lie on another machine.
        """
        from mlflow.exceptions import MlflowException

        if name in self._experiments:
            return self._experiments[name]
        found = self._client.get_experiment_by_name(name)
        if found is None:
            place = (self.address.folder / "artifacts").as_uri() if self.address.is_database else None
            with contextlib.suppress(MlflowException):  # another process was quicker
                self._client.create_experiment(name, artifact_location=place, tags=PAGE | {HOST: _machine_name()})
            found = self._client.get_experiment_by_name(name)
        self._check_artefacts(found)
        self._experiments[name] = str(found.experiment_id)
        return self._experiments[name]

    @cached_property
    def _experiments(self) -> dict[str, str]:
        return {}

    def _check_artefacts(self, experiment: Any) -> None:
        """Refuse to scatter artefacts: a folder of another machine that is not shared is none of ours."""
        place, host = urlparse(experiment.artifact_location), experiment.tags.get(HOST)
        if place.scheme not in ("", "file") or host in (None, _machine_name()) or self.address.is_sqlite:
            return
        if not Path(unquote(place.path)).is_dir():
            where = f"artefacts of {experiment.name} are in {unquote(place.path)} of {host}, which is not here"
            remedy = "share that folder, or let an `mlflow server --artifacts-destination` stand before the database"
            raise InputError("no-artefact-store", f"{self.address.shown}: {where}; {remedy}")


def _experiment_of(spec: RunSpec) -> str:
    return f"bench/{spec.dataset}/{spec.task}"


def _machine_name() -> str:
    return platform.node() or "this machine"
