"""What is remembered of runs: one MLflow store, and the only code that knows MLflow.

The default is a SQLite file and an artefact folder below ``results/``; ``MLFLOW_TRACKING_URI`` names another
store, a server for instance.  Opening costs about two seconds (MLflow's import and its database), so nothing is
opened before the first question.
"""

import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlparse

import numpy as np
from numpy.typing import NDArray

from bench.data.store import Store
from bench.errors import InputError
from bench.files import file_sha256, locked
from bench.runs.results import Predictions, RunResult, digests_of
from bench.spec import RunSpec

Kept = TypeVar("Kept")

BATCH: Final = (1000, 100)  # metrics, and parameters or tags, that MLflow takes at once
DIGEST: Final = "bench.digest"
SPEC: Final = "bench.spec"
STUDY: Final = "bench.study"
DEVIATION: Final = "deviation."  # and a number: one tag each, a tag is short
FILE: Final = "file."  # and a number: SHA-256 and path of a file, as sha256sum writes them
TEXT: Final = 4000  # characters of a tag; MLflow's own limit is 8000
FLUSH_SECONDS: Final = 10.0  # so that the page of a long run shows how it goes
PAGE: Final = {  # of an experiment: what MLflow's page shows of it, and how
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": "A run is one method, seed and fold. Group by the tag `row` for means over seeds and folds: "
    "its runs differ in nothing else. Tags `leaky` and `scale` mark what is no clean or no full result. Metrics "
    "without a prefix are of the test part, `validation_` ones are not. `bench table` and `bench report` tell more.",
}
ENDS: Final = {"done": "FINISHED", "failed": "FAILED", "skipped": "FINISHED", "killed": "KILLED"}


@dataclass(frozen=True)
class Record:
    """One run as the store remembers it."""

    run_id: str
    status: str  # done, failed, skipped, killed, running (or killed without a trace)
    reason: str
    spec: RunSpec
    metrics: dict[str, float]
    leaky: bool = False
    scale: str = "full"  # or what is reduced
    transductive: bool = False
    source: str = ""  # digest of the code that made it: `bench.runs.execute.code_of`
    origin: str = ""  # where its method is from: `bench.runs.registry.origin`
    deviations: tuple[str, ...] = ()
    started: float = 0.0  # seconds since the epoch
    files: Mapping[str, str] = field(default_factory=dict)  # SHA-256 by path; empty: made before files had digests
    folder: Path | None = field(default=None, compare=False)  # its artefacts, where `Tracker.load` fetched them

    @property
    def digest(self) -> str:
        """Digest of the run's specification."""
        return self.spec.digest

    @property
    def verifiable(self) -> bool:
        """Whether it has digests to hold its files against."""
        return bool(self.files)

    def predictions(self) -> Predictions:
        """Answers for the test part.  Raises :class:`InputError` where the run has none, or other ones than it made."""
        return self._read("predictions.npz", "predictions", Predictions.load)

    def result(self) -> RunResult:
        """Its scores, timings, environment and split.  Raises :class:`InputError` as :meth:`predictions` does."""
        return self._read("result.json", "result", RunResult.load)

    def model_folder(self) -> Path:
        """The folder of its fitted method.  Raises :class:`InputError` as :meth:`predictions` does."""
        folder = self._place("model/method.json", "model").parent
        there = {f"model/{name}" for name in digests_of(folder)}
        for name in sorted(there | {name for name in self.files if name.startswith("model/")}):
            self._check(name)
        return folder

    def check(self) -> None:
        """Raises :class:`InputError` for a file that is there and not the one that the run wrote, or unreadable."""
        for name in self.files:
            if self.folder is not None and (self.folder / name).is_file():
                self._check(name)
        if self.folder is not None and (self.folder / "result.json").is_file():
            self.result()

    def damaged(self, what: str, error: object = "") -> InputError:
        """That something of the run is not, or cannot be read as, what it wrote."""
        reason = f" ({type(error).__name__}: {' '.join(str(error).split()):.200})" if error else ""
        remedy = "put back what it wrote or run it again with --rerun"
        return InputError("run-damaged", f"run {self.run_id[:8]}: {what}{reason}; {remedy}")

    def _place(self, name: str, what: str) -> Path:
        if self.folder is None or not (self.folder / name).is_file():
            raise InputError(
                "missing-artefact", f"run {self.run_id[:8]} ({self.status}) has no {what}; run it again with --rerun"
            )
        return self.folder / name

    def _check(self, name: str) -> None:
        """Hold a file against its digest, if the run recorded any."""
        assert self.folder is not None
        path, recorded = self.folder / name, self.files.get(name, "none")
        found = file_sha256(path) if path.is_file() else "gone"
        if self.files and found != recorded:
            raise self.damaged(f"{path} is not what it wrote (SHA-256 {found[:16]}, recorded {recorded[:16]})")

    def _read(self, name: str, what: str, load: Callable[[Path], Kept]) -> Kept:
        path = self._place(name, what)
        self._check(name)
        try:
            return load(path)
        except Exception as error:  # of a zip file, JSON, an array; whatever a foreign file brings about
            raise self.damaged(f"its {what} cannot be read", error) from error

    def check_store(self, store: Store) -> None:
        """Raises :class:`InputError` unless the store has the rows that the run names."""
        if self.spec.store not in ("", store.digest):
            raise InputError(
                "store-changed", f"{store.name} was prepared anew since run {self.run_id[:8]}; run it again"
            )


class Run:
    """A run that is being written."""

    def __init__(self, client: Any, run_id: str) -> None:
        self._client = client
        self.run_id = run_id
        self._curves: list[Any] = []
        self._files = 0  # that have a tag
        self._flushed = time.monotonic()

    def metrics(self, values: Mapping[str, float]) -> None:
        """Record single numbers, in one batch."""
        self._log([_metric(name, value, 0) for name, value in values.items()])

    def curve(self, step: int, values: Mapping[str, float]) -> None:
        """Record a step of some curves; kept back and written in batches."""
        self._curves += [_metric(name, value, step) for name, value in values.items()]
        if len(self._curves) >= BATCH[0] or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the curves kept back."""
        self._log(self._curves)
        self._curves, self._flushed = [], time.monotonic()

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Record parameters."""
        from mlflow.entities import Param

        rows = [Param(name, str(value)[:TEXT]) for name, value in values.items()]
        for start in range(0, len(rows), BATCH[1]):
            self._client.log_batch(self.run_id, params=rows[start : start + BATCH[1]])

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        rows = [RunTag(name, value[:TEXT]) for name, value in values.items()]
        for start in range(0, len(rows), BATCH[1]):
            self._client.log_batch(self.run_id, tags=rows[start : start + BATCH[1]])

    @contextmanager
    def artefacts(self) -> Iterator[Path]:
        """An empty folder; what is written into it becomes the run's artefacts, each with its digest in the record."""
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
            digests = digests_of(Path(folder))
            lines = (f"{digest}  {name}" for name, digest in digests.items())
            self.tags({f"{FILE}{self._files + number:03d}": line for number, line in enumerate(lines)})
            self._files += len(digests)
            self._client.log_artifacts(self.run_id, folder)

    def end(self, status: str, reason: str = "") -> None:
        """Close the run as one of `ENDS`."""
        self.flush()
        self.tags({"status": status, "reason": reason})
        self._client.set_terminated(self.run_id, ENDS[status])

    def _log(self, rows: Sequence[Any]) -> None:
        for start in range(0, len(rows), BATCH[0]):
            self._client.log_batch(self.run_id, metrics=rows[start : start + BATCH[0]])


class Study(Run):
    """A hyper-parameter study: a run whose trials are runs nested under it."""

    def __init__(self, client: Any, run_id: str, experiment: str, tags: Mapping[str, str]) -> None:
        super().__init__(client, run_id)
        self._experiment = experiment
        self._shared = tags

    @contextmanager
    def trial(self, number: int, parameters: Mapping[str, Any]) -> Iterator[Callable[[Mapping[str, float]], None]]:
        """A nested run; yields what records its metrics.  An exception ends it as failed and goes on its way."""
        tags = {"mlflow.parentRunId": self.run_id, "trial": str(number), **self._shared}
        name = f"{self._shared['method']} · trial {number}"
        info = self._client.create_run(self._experiment, run_name=name, tags=tags).info
        with closing(Run(self._client, info.run_id)) as run:
            run.parameters(parameters)
            yield run.metrics


@contextmanager
def closing(run: Run) -> Iterator[Run]:
    """End a run as done, failed or killed, by the way the block ends."""
    try:
        yield run
    except Exception as error:
        run.end("failed", f"{type(error).__name__}: {error}")
        raise
    except BaseException:
        run.end("killed", "interrupted")
        raise
    run.end("done")


class Tracker:
    """The store of all runs.

    ``results`` is the folder of the default store, ``uri`` names another one (as ``MLFLOW_TRACKING_URI`` does).
    """

    def __init__(self, results: str | Path = Path("results"), uri: str | None = None) -> None:
        self.results = Path(results).absolute()
        self.uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.results / 'mlflow.db'}"

    def __reduce__(self) -> tuple[Any, ...]:  # workers open the store themselves
        return type(self), (self.results, self.uri)

    @property
    def _beside(self) -> Path | None:
        """The folder of an SQLite file, where artefacts and the lock belong; None for a server."""
        return (
            Path(self.uri.removeprefix("sqlite:///")).absolute().parent if self.uri.startswith("sqlite:///") else None
        )

    @cached_property
    def _client(self) -> Any:
        os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        wait = "?timeout=60" if self.uri.startswith("sqlite:") and "?" not in self.uri else ""  # others write too
        try:
            with self._alone():
                client = MlflowClient(self.uri + wait)
                client.search_experiments(max_results=1)  # a server is not asked before
        except OSError:
            raise
        except Exception as error:  # MLflow's own, SQLAlchemy's, a network's
            line = (str(error).splitlines() or [""])[0]
            raise InputError(
                "storage-failed", f"{self.uri}: MLflow cannot open it ({line}); give a sqlite:/// file or a server"
            ) from None
        return client

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time makes or migrates the tables of an SQLite file; they get in each other's way."""
        if self._beside is None:
            yield
            return
        with locked(self._beside / "mlflow"):
            yield

    def finished(self, digest: str) -> Record | None:
        """The newest run of that digest which is done."""
        done = [run for run in self._runs(digest) if run.info.status == "FINISHED" and _status(run) == "done"]
        return _record(done[0]) if done else None

    def start(self, spec: RunSpec, name: str, tags: Mapping[str, str]) -> Run:
        """Begin a run.  Older runs of the same digest that were left running are closed as killed."""
        for stale in self._runs(spec.digest):
            if stale.info.status == "RUNNING":
                self._client.set_terminated(stale.info.run_id, ENDS["killed"])
        fields = spec.to_dict()
        plain = {key: str(fields[key]) for key in ("method", "dataset", "task", "split", "seed", "fold")
                 if fields[key] is not None}  # fmt: skip
        own = {DIGEST: spec.digest, SPEC: json.dumps(fields, sort_keys=True)}
        short = {key: value[:TEXT] for key, value in tags.items()}
        info = self._client.create_run(self._experiment(spec), run_name=name, tags=plain | short | own).info
        return Run(self._client, info.run_id)

    @contextmanager
    def study(self, name: str, spec: RunSpec) -> Iterator[Study]:
        """A hyper-parameter study of ``spec`` by its name, taken up again where it exists."""
        experiment = self._experiment(spec)
        known = self._client.search_runs([experiment], f"tags.`{STUDY}` = '{name}'", max_results=1)
        fields = spec.to_dict()
        plain = {key: str(fields[key]) for key in ("method", "dataset", "task", "split", "seed")}
        plain["row"] = f"study {name}"
        if known:
            run_id = known[0].info.run_id
            self._client.update_run(run_id, status="RUNNING")
        else:
            run_id = self._client.create_run(experiment, run_name=name, tags={STUDY: name, **plain}).info.run_id
        study = Study(self._client, run_id, experiment, plain)
        with closing(study):
            yield study

    def search(self, *, latest: bool = True, **wanted: Any) -> list[Record]:
        """Records, oldest first, whose specification has the wanted values (a value, or several to choose from).

        ``wanted`` are fields as `RunSpec.to_dict` names them.  With ``latest``, one a digest: the newest that is done,
        else the newest.
        """
        records = [_record(run) for run in self._runs(None)]  # newest first
        if latest:
            best: dict[str, Record] = {}
            for record in sorted(records, key=lambda r: r.status != "done"):
                best.setdefault(record.digest, record)
            records = list(best.values())
        chosen = [record for record in records if _matches(record.spec, wanted)]
        return sorted(chosen, key=lambda record: record.started)

    def load(self, run_id: str) -> Record:
        """A run by its id or the start of it, with its artefacts.  Raises :class:`InputError`."""
        runs = self._whole(run_id) or [run for run in self._runs(None) if run.info.run_id.startswith(run_id)]
        if len(runs) != 1 or not run_id:
            what = "no run has" if not runs else f"{len(runs)} runs have"
            raise InputError(
                "unknown-run",
                f"{what} an id that starts with {run_id!r} ({self.uri}); `bench run` and `bench table --json` show ids",
            )
        return _record(runs[0], self._folder(runs[0]))

    def curve(self, run_id: str, name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Steps ``[n]``, ascending, and values ``[n]`` of a curve ("step/loss", "epoch/accuracy"); empty: none kept."""
        points = sorted((point.step, point.value) for point in self._client.get_metric_history(run_id, name))
        steps, values = zip(*points, strict=True) if points else ((), ())
        return np.array(steps, np.int64), np.array(values, np.float64)

    def _whole(self, run_id: str) -> list[Any]:
        """The run of ours with that whole id, found without reading all others; or none."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(run_id) if len(run_id) == 32 else None
        except MlflowException:
            return []
        return [run] if run is not None and SPEC in run.data.tags else []

    def _folder(self, run: Any) -> Path:
        """A local folder with the run's artefacts; an SQLite file and its artefacts may have been moved together."""
        place = urlparse(run.info.artifact_uri)
        if place.scheme in ("", "file"):
            recorded = Path(unquote(place.path))
            if recorded.is_dir() or self._beside is None:
                return recorded
            result: Path = self._beside / "artifacts" / run.info.run_id / "artifacts"
            return result
        return Path(self._client.download_artifacts(run.info.run_id, "", tempfile.mkdtemp()))

    def _experiment(self, spec: RunSpec) -> str:
        """Id of the data set's and task's experiment, made where it is missing."""
        from mlflow.exceptions import MlflowException

        name = f"bench/{spec.dataset}/{spec.task}"
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        place = (self._beside / "artifacts").as_uri() if self._beside else None
        try:
            return str(self._client.create_experiment(name, artifact_location=place, tags=PAGE))
        except MlflowException:  # another process was quicker
            return str(self._client.get_experiment_by_name(name).experiment_id)

    def _runs(self, digest: str | None) -> list[Any]:
        """MLflow's runs that are ours, of one digest or all, newest first."""
        experiments = [e.experiment_id for e in self._client.search_experiments()]
        wanted = f"tags.`{DIGEST}` = '{digest}'" if digest else f"tags.`{DIGEST}` LIKE '%'"
        runs: list[Any] = []
        token = None
        while experiments:
            order = ["attributes.start_time DESC"]
            page = self._client.search_runs(experiments, wanted, max_results=1000, order_by=order, page_token=token)
            runs += page
            token = page.token
            if not token:
                break
        return runs


def _metric(name: str, value: float, step: int) -> Any:
    from mlflow.entities import Metric

    return Metric(re.sub(r"[^\w\-. :/]", "_", name), float(value), int(time.time() * 1000), step)


def _status(run: Any) -> str:
    """The word of `ENDS` where the run was closed by us, else what MLflow says."""
    if run.info.status in ("RUNNING", "KILLED"):
        return str(run.info.status).lower()
    return str(run.data.tags.get("status", "failed"))


def _record(run: Any, folder: Path | None = None) -> Record:
    tags, run_id = run.data.tags, run.info.run_id
    try:
        spec = RunSpec.from_dict(json.loads(tags[SPEC]))
    except (InputError, ValueError, TypeError, KeyError, AttributeError) as error:
        what = f"its record cannot be read ({type(error).__name__}: {error})"
        raise InputError("run-damaged", f"run {run_id[:8]}: {what}; delete that run (`bench ui`)") from error
    lines = (tags[key].partition("  ") for key in tags if key.startswith(FILE))
    return Record(
        run_id=run_id,
        status=_status(run),
        reason=tags.get("reason", ""),
        spec=spec,
        metrics=dict(run.data.metrics),
        leaky=tags.get("leaky") == "true",
        scale=tags.get("scale", "full"),
        transductive=tags.get("transductive") == "true",
        source=tags.get("source", ""),
        origin=tags.get("origin", ""),
        deviations=tuple(tags[key] for key in sorted(tags) if key.startswith(DEVIATION)),
        started=run.info.start_time / 1000,
        files={name: digest for digest, _, name in lines},
        folder=folder,
    )


def _matches(spec: RunSpec, wanted: Mapping[str, Any]) -> bool:
    """Whether a specification has all wanted values; None asks nothing."""
    fields = spec.to_dict()
    return all(
        fields.get(key) in (value if isinstance(value, list | tuple | set) else [value])
        for key, value in wanted.items()
        if value is not None
    )
