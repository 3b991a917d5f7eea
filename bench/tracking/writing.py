"""A run that is being written: first whole into a folder of its own, then into the store of runs.

The folder is what a run is: ``run.json`` and its files.  A store that is away when a run ends finds it there later; a
bundle holds the same folders.  Curves go to the store while a run lasts, as far as it answers.
"""

import contextlib
import errno
import json
import os
import platform
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.errors import InputError
from bench.files import NO_ROOM, begun_folder, put_in_place, read_json, write_json
from bench.scores.metrics import plain_name
from bench.spec import RunSpec
from bench.tracking.address import Address, local
from bench.tracking.database import VIEW_TAG, Ending, Row, artefacts_of, complete
from bench.tracking.record import ENDS, FILE, IMPORTED, Record
from bench.tracking.results import digests_of

POINTS: Final = 800  # metrics in one call: MLflow takes 1,000 things in all
WORDS: Final = 100  # parameters or tags in one call, MLflow's limit
TEXT: Final = 4000  # characters of a tag; MLflow's own limit is 8000
FLUSH_SECONDS: Final = 10.0  # so that the page of a long run shows how it goes
WAITS: Final = (0.5, 2.0, 8.0, 15.0)  # seconds before the next try, where the store does not answer
NOTE: Final = "mlflow.note.content"  # that a reader wrote to a run on MLflow's page
COLUMNS: Final = {  # of MLflow's table of runs: the best first, and what their numbers cannot be read without
    "tags": ("split", "settings", "leaky", "scale"),
    "metrics": ("macro_f1", "macro_f1_low", "macro_f1_high", "accuracy", "seconds"),
}
PAGE: Final = {  # of an experiment: what MLflow's page shows of it, and how
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": "A run is one method, seed and fold. Group by the tag `row` for means over seeds and folds: "
    "its runs differ in nothing else. Tags `leaky` and `scale` mark results that are leaky or reduced. Metrics "
    "without a prefix are of the test part, `validation_` ones are not. `bench table` and `bench report` tell more.",
    VIEW_TAG: json.dumps(
        {
            "orderByKey": "metrics.`macro_f1`",
            "orderByAsc": False,
            "selectedColumns": [f"{kind}.`{name}`" for kind, names in COLUMNS.items() for name in names],
        }
    ),
}
HOST: Final = "bench.host"  # of an experiment: where its artefacts lie, if that is a folder
UID: Final = "bench.uid"  # what a run is called in every store that has it


@dataclass
class Content:
    """All of a run but its files: what ``run.json`` holds."""

    experiment: str
    name: str
    started: int  # milliseconds since the epoch
    store: str  # that it was begun in, without its password
    tags: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    points: list[list[Any]] = field(default_factory=list)  # name, value, milliseconds since the epoch, step
    status: str = "running"
    ended: int | None = None
    run_id: str | None = None  # where it was begun; a store that it is brought to gives another one
    format: int = 1

    @property
    def uid(self) -> str:
        """What the run is called in every store."""
        return self.tags[UID]

    def close_as(self, status: str, reason: str) -> None:
        """End it, as one of `ENDS`."""
        self.tags |= {"status": status, "reason": reason[:TEXT]}
        self.status, self.ended = status, max(now(), self.started)  # the clock may have been set back

    def give_way(self, other: Record | None) -> None:
        """Close it as killed where another process, which did not see its folder, has computed the same since."""
        is_newer = other is not None and other.started > self.started / 1000
        if other is not None and is_newer and self.status == "done" and IMPORTED not in self.tags:
            self.close_as("killed", f"run {other.run_id[:8]} computed it while this one waited")

    def save(self, folder: Path) -> None:
        """Write it into the run's folder."""
        write_json(folder / "run.json", self.__dict__, indent=None, allow_nan=True)

    @classmethod
    def load(cls, folder: Path) -> "Content":
        """Read what :meth:`save` wrote.  Raises :class:`InputError` where it is something else."""
        return read_json(folder / "run.json", cls, "a run's content")


def uid_of(row: Row) -> str:
    """What a run is called in every store; of before, when runs had no such name, its id stands for it."""
    return row.tags.get(UID, row.run_id)


@dataclass(frozen=True)
class Target:
    """Where runs are written: MLflow's client of an address, and how to come by an experiment."""

    client: Any
    address: Address
    experiment: Callable[[str], str]  # id by name, made where it is missing
    engine: Any = None  # of a database, where runs end in SQL; None: a server


class Run:
    """A run that is being written, begun in the store so that others see it."""

    def __init__(self, target: Target, content: Content, key: str) -> None:
        content.tags.setdefault(UID, secrets.token_hex(16))
        self._target, self.content = target, content
        self._place = target.address.pending / key
        with _writing(target.address.pending):
            self._folder = begun_folder(self._place)
        self._flushed, self._last = 0, time.monotonic()
        try:
            self.run_id: str = content.run_id or _begin(target, content)
        except BaseException:  # interrupted, it may have been begun, and nobody would end it
            shutil.rmtree(self._folder, ignore_errors=True)
            _end_begun(target, content)
            raise
        content.run_id = self.run_id

    def metrics(self, values: Mapping[str, float]) -> None:
        """Record single numbers."""
        self._add(0, values)

    def curve(self, step: int, values: Mapping[str, float]) -> None:
        """Record a step of some curves, and let the store know now and then."""
        self._add(step, values)
        if len(self.content.points) - self._flushed >= POINTS or time.monotonic() - self._last > FLUSH_SECONDS:
            self._last = time.monotonic()
            with contextlib.suppress(Exception):  # it is away: all is written at the end
                self.flush()

    def flush(self) -> None:
        """Send the store what it does not have yet of the curves."""
        points = self.content.points
        for start in range(self._flushed, len(points), POINTS):
            self._target.client.log_batch(self.run_id, list(map(_metric, points[start : start + POINTS])))
        self._flushed = len(points)

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Record parameters."""
        self.content.parameters |= {name: str(value)[:TEXT] for name, value in values.items()}

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        self.content.tags |= {name: value[:TEXT] for name, value in values.items()}

    @contextmanager
    def artefacts(self) -> Iterator[Path]:
        """The folder whose files become the run's artefacts, each with its digest in the record.

        Raises `Unwritable` where the block is refused to write.
        """
        with _writing(self._target.address.pending):
            self._folder.mkdir(parents=True, exist_ok=True)  # the results folder may have gone meanwhile
            yield self._folder

    def end(self, status: str, reason: str = "") -> None:
        """Close the run as one of `ENDS`: write it whole into its folder, then into the store.

        Raises :class:`InputError` where the store does not answer for a while: the folder waits for it; and
        `Unwritable` where that cannot be written.  What is killed leaves nothing but the word.
        """
        self.content.close_as(status, reason)
        if status == "killed":
            self._forget()
            return
        try:
            with self.artefacts() as folder:
                files = enumerate(digests_of(folder).items())
                self.tags({f"{FILE}{number:03d}": f"{digest}  {name}" for number, (name, digest) in files})
                self.content.save(folder)
                if self._place.exists():  # of another store, or of one that was away
                    self._place = self._place.with_name(f"{self._place.name}-{self.content.uid[:12]}")
                put_in_place(folder, self._place)
        except BaseException as error:  # an interrupt, too
            self.content.close_as("killed", str(error) or "interrupted")
            self._forget()
            raise
        self._deliver()

    def _forget(self) -> None:
        """Leave nothing of it, and tell the store as far as that answers."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(Exception):
            _log(self._target, self.run_id, self.content, self._flushed)

    def _deliver(self) -> None:
        """Bring the folder to the store, several times if need be."""
        for wait in (*WAITS, None):
            try:
                publish(self._target, self._place, self.content, since=self._flushed)
                return
            except Exception as error:  # MLflow's own, SQLAlchemy's, a network's
                if wait is None:
                    kept = f"the result of {self.content.name!r} is kept in {self._place}; the next `bench run …`"
                    raise self._target.address.failed(error).with_remedy(f"{kept} or `bench sync` logs it") from None
                time.sleep(wait)

    def _add(self, step: int, values: Mapping[str, float]) -> None:
        at = now()
        self.content.points += [[plain_name(name), float(value), at, step] for name, value in values.items()]


class Study(Run):
    """A hyper-parameter study: a run whose trials are runs nested under it.

    Several processes may write it: ``leaving`` lets one of them out at a time, and says whether nobody else is left.
    """

    def __init__(
        self, target: Target, content: Content, key: str, leaving: Callable[[], AbstractContextManager[bool]]
    ) -> None:
        super().__init__(target, content, key)
        self._leaving = leaving

    def end(self, status: str, reason: str = "") -> None:
        """As of any run, where nobody else is at it; else they end it."""
        with self._leaving() as is_last:
            if is_last:
                super().end(status, reason)
            else:
                shutil.rmtree(self._folder, ignore_errors=True)

    def close_trial(self, number: int | str) -> None:
        """Close the nested run of a trial whose process is gone."""
        asked = f"tags.`mlflow.parentRunId` = '{self.run_id}' AND tags.trial = '{number}'"
        with contextlib.suppress(Exception):  # the store is away
            place = self._target.experiment(self.content.experiment)
            for run in self._target.client.search_runs([place], f"{asked} AND attributes.status = 'RUNNING'"):
                self._target.client.set_terminated(run.info.run_id, ENDS["killed"])

    @contextmanager
    def trial(
        self, number: int | str, parameters: Mapping[str, Any]
    ) -> Iterator[Callable[[Mapping[str, float]], None]]:
        """A nested run; yields what records its metrics.  An exception ends it as failed and goes on its way."""
        shared = {key: value for key, value in self.content.tags.items() if not key.startswith("bench.")}
        tags = {"mlflow.parentRunId": self.run_id, "trial": str(number), **shared}
        name = f"{shared['method']} · trial {number}"
        content = Content(self.content.experiment, name, now(), self.content.store, tags)
        with closing(Run(self._target, content, f"{self.run_id}-{number}")) as run:
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


class Unwritable(InputError):
    """The results folder takes no more: what a run found cannot be kept."""


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    """Want of room or rights in the block is Unwritable, with the place that takes no more."""
    try:
        yield
    except (OSError, InputError) as error:
        refused = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(refused, OSError) or refused.errno not in (*NO_ROOM, errno.EACCES):
            raise
        what = f"{place}: cannot be written ({os.strerror(refused.errno)})"
        remedy = "make room or check its permissions, then start again; finished runs stay"
        raise Unwritable("unwritable-file", f"{what}; {remedy}") from error


def publish(target: Target, folder: Path, content: Content, *, since: int = 0) -> str:
    """Write a run's folder into the store and remove it there; the id that the run has in the store.

    A run that was begun there is completed, from the point ``since`` on.  Doing it again changes nothing.
    """
    if content.run_id is None:
        content.run_id = _begin(target, content)
        content.save(folder)  # who is killed from here on does not begin it again
    run_id = content.run_id
    _hand_over(target, run_id, folder)
    _log(target, run_id, content, since)
    shutil.rmtree(folder)
    return run_id


def _hand_over(target: Target, run_id: str, folder: Path) -> None:
    """Make the folder's files the run's artefacts; the folder keeps them until the store has the run whole."""
    place = None if target.engine is None else local(artefacts_of(target.engine, run_id))
    if place is not None:
        own = {str(folder): {"run.json"}}
        ignored = lambda at, names: own.get(str(at), set())  # noqa: E731
        shutil.copytree(folder, place, copy_function=_linked, ignore=ignored, dirs_exist_ok=True)
        return
    for path in (path for path in folder.iterdir() if path.name != "run.json"):
        one = target.client.log_artifacts if path.is_dir() else target.client.log_artifact
        one(run_id, str(path), *([path.name] if path.is_dir() else []))


def _linked(source: str, place: str) -> None:
    """A second name for a file; where that cannot be, on another file system, a copy."""
    Path(place).unlink(missing_ok=True)
    try:
        os.link(source, place)
    except OSError:
        shutil.copyfile(source, place)


def _begin(target: Target, content: Content) -> str:
    """Id of a new run in the store, with its tags."""
    place = target.experiment(content.experiment)
    made = target.client.create_run(place, start_time=content.started, run_name=content.name, tags=content.tags)
    return str(made.info.run_id)


def _end_begun(target: Target, content: Content) -> None:
    """Close as killed a run that was begun, whose id nobody has heard; as far as the store answers."""
    with contextlib.suppress(Exception):
        place = target.experiment(content.experiment)
        for run in target.client.search_runs([place], f"tags.`{UID}` = '{content.uid}'"):
            target.client.set_terminated(run.info.run_id, ENDS["killed"])


def _log(target: Target, run_id: str, content: Content, since: int) -> None:
    """Send points, parameters and tags and close the run: in one go, or as many at once as a server takes."""
    if target.engine is not None:
        status = ENDS[content.status]
        complete(target.engine, run_id, Ending(content.points, content.parameters, content.tags, status, content.ended))
        return
    from mlflow.entities import Param, RunTag

    client = target.client
    points = [_metric(point) for point in content.points[since:]]
    parameters = [Param(name, value) for name, value in content.parameters.items()]
    tags = [RunTag(name, value) for name, value in content.tags.items()]
    while points or parameters or tags:
        client.log_batch(run_id, points[:POINTS], parameters[:WORDS], tags[:WORDS])
        points, parameters, tags = points[POINTS:], parameters[WORDS:], tags[WORDS:]
    client.set_terminated(run_id, ENDS[content.status], content.ended)


def _metric(point: Sequence[Any]) -> Any:
    from mlflow.entities import Metric

    return Metric(*point)


def experiment_of(spec: RunSpec) -> str:
    """Where runs of a specification stand on MLflow's page."""
    return f"bench/{spec.dataset}/{spec.task}"


def experiment_in(client: Any, address: Address, name: str) -> str:
    """Id of an experiment, made where it is missing; artefacts of a database lie in the results folder.

    Raises :class:`InputError` where they lie on another machine, in a folder that is not here: they are not scattered.
    """
    from mlflow.exceptions import MlflowException

    host = platform.node() or "this machine"
    found = client.get_experiment_by_name(name)
    if found is None:
        place = (address.folder / "artifacts").as_uri() if address.is_database else None
        with contextlib.suppress(MlflowException):  # another process was quicker
            client.create_experiment(name, artifact_location=place, tags=PAGE | {HOST: host})
        found = client.get_experiment_by_name(name)
    folder, owner = local(found.artifact_location), found.tags.get(HOST)
    if folder is not None and owner not in (None, host) and not address.is_sqlite and not folder.is_dir():
        where = f"artefacts of {name} are in {folder} of {owner}, which is not here"
        remedy = "share that folder, or let an `mlflow server --artifacts-destination` stand in front of the database"
        raise InputError("no-artefact-store", f"{address.shown}: {where}; {remedy}")
    if VIEW_TAG not in found.tags:  # made by an earlier version
        client.set_experiment_tag(found.experiment_id, VIEW_TAG, PAGE[VIEW_TAG])
    return str(found.experiment_id)


def now() -> int:
    """Milliseconds since the epoch."""
    return int(time.time() * 1000)
