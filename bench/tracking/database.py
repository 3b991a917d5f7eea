"""The tracking database in SQL: rows of runs in one query each, a run written in one go, the way in for our own tables.

MLflow's own search builds an object for each number of each run: 5,000 runs take it 18 s, this a second.  Its client
ends a run in six transactions, this in one.  The tables are its format on disk, which its migrations keep; tests hold
both readings, and both writings, equal.
"""

import dataclasses
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import sqlalchemy as sa

from bench.tracking.address import ANSWER_SECONDS, Address

BUSY_SECONDS: Final = 60  # that a writer of an SQLite file waits for others
IN: Final = 500  # values of one query's list
DIGEST: Final = "bench.digest"
ACTIVE, DELETED = 1, 2  # MLflow's ViewType

_runs = sa.table("runs", *map(sa.column, ("run_uuid", "status", "start_time", "end_time", "artifact_uri",
                                          "lifecycle_stage", "name", "experiment_id")))  # fmt: skip
_experiments = sa.table(
    "experiments", *map(sa.column, ("experiment_id", "name", "lifecycle_stage", "artifact_location"))
)
_experiment_tags = sa.table("experiment_tags", *map(sa.column, ("experiment_id", "key")))
_tags = sa.table("tags", *map(sa.column, ("run_uuid", "key", "value")))
_parameters = sa.table("params", *map(sa.column, ("run_uuid", "key", "value")))
_POINT: Final = ("key", "value", "timestamp", "step", "is_nan")
_points = sa.table("metrics", *map(sa.column, ("run_uuid", *_POINT)))
_metrics = sa.table("latest_metrics", *map(sa.column, ("run_uuid", *_POINT)))

OURS: Final = "bench/"  # how the names of our experiments begin
VIEW: Final = "bench"  # what our choice of columns is called on MLflow's page
VIEW_TAG: Final = f"mlflow.sharedViewState.{VIEW}"  # of an experiment: where MLflow keeps that choice
Point = tuple[str, float, int, int, bool]  # as the tables have it: `_POINT`


@dataclass(frozen=True)
class Row:
    """A run as the store has it."""

    run_id: str
    name: str
    status: str  # MLflow's word
    started: int  # milliseconds since the epoch
    ended: int | None
    artefacts: str  # address of its folder
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)  # newest values


@dataclass(frozen=True)
class Experiment:
    """What MLflow keeps runs of one data set and task together in."""

    id: str
    name: str
    newest: int  # when its newest run began, in milliseconds since the epoch
    view: str  # the name of its choice of columns; empty: of an earlier version, which made none


def engine_of(address: Address) -> sa.Engine:
    """A way into the database.  Raises :class:`InputError` where a server does not answer or a driver is missing."""
    address.check()
    try:
        return sa.create_engine(address.url, **connection_options(address))
    except (ImportError, sa.exc.SQLAlchemyError) as error:
        raise address.failed(error) from None


def reading_engine_of(address: Address) -> sa.Engine:
    """As :func:`engine_of`, for reading alone: an SQLite file and its folder need no rights to write.

    What a killed process left half written is rolled back first, where that can be: else the file does not open.
    """
    return engine_of(dataclasses.replace(address, uri=reading_uri(address)))


def reading_uri(address: Address) -> str:
    """See :func:`reading_engine_of`."""
    file = address.file
    if not address.is_sqlite or file.with_name(f"{file.name}-journal").exists():
        return address.uri
    return f"sqlite:///file:{quote(str(file))}?mode=ro&uri=true"


def connection_options(address: Address) -> dict[str, Any]:
    """How long a database is waited for, and that a connection is tried before it is used, as SQLAlchemy takes it."""
    patience = {"sqlite": {"timeout": BUSY_SECONDS}, "postgresql": {"connect_timeout": round(ANSWER_SECONDS)}}
    return {"connect_args": patience.get(address.scheme, {}), "pool_pre_ping": not address.is_sqlite}


def rows_of(
    engine: sa.Engine,
    *,
    digests: Sequence[str] | None = None,
    begins: str | None = None,
    tag: tuple[str, str] | None = None,
    stage: str = "active",
) -> list[Row]:
    """Runs of ours, newest first: all, those of ``digests``, those whose id ``begins`` so, or those with a ``tag``.

    ``stage`` "deleted" asks for those in MLflow's bin.

    Empty where the database has no tables yet.
    """
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("runs"):
            return []
        chosen = _chosen(connection, digests, begins, tag)
        rows = {
            run.run_uuid: _row(run) for part in _parts(chosen) for run in connection.execute(_select_runs(part, stage))
        }
        for part in _parts(None if chosen is None and stage == "active" else list(rows)):
            for run_id, key, value in connection.execute(_of(part, _tags, "value")):
                if run_id in rows:
                    rows[run_id].tags[key] = value
            for run_id, key, value, nan in connection.execute(_of(part, _metrics, "value", "is_nan")):
                if run_id in rows:
                    rows[run_id].metrics[key] = math.nan if nan else value
    return sorted((row for row in rows.values() if DIGEST in row.tags), key=lambda row: row.started, reverse=True)


def ids_of(engine: sa.Engine) -> list[str]:
    """Ids of runs of ours, newest first."""
    asked = sa.select(_runs.c.run_uuid).join(_tags, _tags.c.run_uuid == _runs.c.run_uuid)
    ours = asked.where(_tags.c.key == DIGEST, _runs.c.lifecycle_stage == "active")
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("runs"):
            return []
        return list(connection.execute(ours.order_by(_runs.c.start_time.desc())).scalars())


def experiments_of(engine: sa.Engine) -> list[Experiment]:
    """Experiments of ours that hold runs, that with the newest run first; none where there are no tables yet."""
    one, run, tag = _experiments.c, _runs.c, _experiment_tags.c
    newest = sa.func.max(run.start_time)
    asked = (
        sa.select(one.experiment_id, one.name, newest)
        .join_from(_experiments, _runs, one.experiment_id == run.experiment_id)
        .where(one.name.startswith(OURS), one.lifecycle_stage == "active", run.lifecycle_stage == "active")
        .group_by(one.experiment_id, one.name)
        .order_by(newest.desc())
    )
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("runs"):
            return []
        viewed = set(connection.execute(sa.select(tag.experiment_id).where(tag.key == VIEW_TAG)).scalars())
        return [
            Experiment(str(number), name, at or 0, VIEW if number in viewed else "")
            for number, name, at in connection.execute(asked)
        ]


def _chosen(
    connection: sa.Connection, digests: Sequence[str] | None, begins: str | None, tag: tuple[str, str] | None
) -> list[str] | None:
    """Ids of the runs asked for; None: all."""
    if tag is not None:
        named = (_tags.c.key == tag[0]) & (_tags.c.value == tag[1])
        return list(connection.execute(sa.select(_tags.c.run_uuid).where(named)).scalars())
    if begins is not None:
        found = connection.execute(
            sa.select(_runs.c.run_uuid).where(_runs.c.run_uuid.startswith(begins, autoescape=True))
        )
        return list(found.scalars())
    if digests is None:
        return None
    wanted, asked = set(digests), sa.select(_tags.c.run_uuid, _tags.c.value).where(_tags.c.key == DIGEST)
    few = asked.where(_tags.c.value.in_(wanted)) if len(wanted) <= IN else asked
    return [run_id for run_id, digest in connection.execute(few) if digest in wanted]


def _parts(chosen: list[str] | None) -> Iterator[list[str] | None]:
    """Lists short enough for one query; None asks for all."""
    if chosen is None:
        yield None
        return
    yield from (chosen[start : start + IN] for start in range(0, len(chosen), IN))


def _select_runs(part: list[str] | None, stage: str) -> sa.Select[Any]:
    asked = sa.select(_runs).where(_runs.c.lifecycle_stage == stage)
    return asked if part is None else asked.where(_runs.c.run_uuid.in_(part))


def _of(part: list[str] | None, table: sa.TableClause, *columns: str) -> sa.Select[Any]:
    asked = sa.select(table.c.run_uuid, table.c.key, *(table.c[name] for name in columns))
    return asked if part is None else asked.where(table.c.run_uuid.in_(part))


def _row(run: Any) -> Row:
    return Row(run.run_uuid, run.name or "", run.status, run.start_time or 0, run.end_time, run.artifact_uri or "")


def points_of(engine: sa.Engine, run_id: str) -> list[Point]:
    """All points of a run's curves; asked for all at once, since SQLite looks one curve up among those of all runs."""
    columns = [_points.c[name] for name in _POINT]
    with engine.connect() as connection:
        found = connection.execute(sa.select(*columns).where(_points.c.run_uuid == run_id))
        return [(key, value, at, step, bool(nan)) for key, value, at, step, nan in found]


def keep_artefacts_in(engine: sa.Engine, experiment: str, place: str) -> None:
    """Put the artefacts of an experiment's new runs at an address; those of runs that are there stay where they are."""
    change = sa.update(_experiments).where(_experiments.c.experiment_id == int(experiment))
    with engine.begin() as connection:
        connection.execute(change.where(_experiments.c.artifact_location != place).values(artifact_location=place))


def artefacts_of(engine: sa.Engine, run_id: str) -> str:
    """Address of a run's artefacts."""
    with engine.connect() as connection:
        asked = sa.select(_runs.c.artifact_uri).where(_runs.c.run_uuid == run_id)
        return str(connection.execute(asked).scalar_one())


@dataclass(frozen=True)
class Ending:
    """What is written when a run ends."""

    points: Sequence[Sequence[Any]]  # name, value, milliseconds since the epoch, step
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    status: str  # MLflow's word
    ended: int | None


def complete(engine: sa.Engine, run_id: str, ending: Ending) -> None:
    """Write how a run ended in one transaction; what already exists stays, so that doing it again changes nothing.

    Raises LookupError where the run is not there.
    """
    known = points_of(engine, run_id)
    every = dict.fromkeys([*known, *map(_stored, ending.points)])
    newest = {point[0]: point for point in sorted(every, key=lambda point: (point[3], point[2], point[1]))}
    with engine.begin() as connection:
        closed = sa.update(_runs).where(_runs.c.run_uuid == run_id)
        if not connection.execute(closed.values(status=ending.status, end_time=ending.ended)).rowcount:
            raise LookupError(f"run {run_id} is gone")
        for table, words in ((_parameters, ending.parameters), (_tags, ending.tags)):
            _write(connection, table, run_id, [{"key": key, "value": value} for key, value in words.items()])
        _write(connection, _metrics, run_id, [_named(point) for point in newest.values()])
        if added := [_named(point) | {"run_uuid": run_id} for point in list(every)[len(known) :]]:
            connection.execute(sa.insert(_points), added)


def _write(connection: sa.Connection, table: sa.TableClause, run_id: str, rows: Sequence[dict[str, Any]]) -> None:
    """Rows of a run in place of those of the same key."""
    keys = [row["key"] for row in rows]
    for start in range(0, len(keys), IN):
        part = keys[start : start + IN]
        connection.execute(sa.delete(table).where(table.c.run_uuid == run_id, table.c.key.in_(part)))
    if rows:
        connection.execute(sa.insert(table), [row | {"run_uuid": run_id} for row in rows])


def _stored(point: Sequence[Any]) -> Point:
    """A point as MLflow stores it: no number is 0 with a mark, what is infinite the largest number."""
    key, value, at, step = point
    nan = math.isnan(value)
    return str(key), 0.0 if nan else min(max(value, -sys.float_info.max), sys.float_info.max), at, step, nan


def _named(point: Point) -> dict[str, Any]:
    return dict(zip(_POINT, point, strict=True))


def parameters_of(engine: sa.Engine, run_id: str) -> dict[str, str]:
    """A run's parameters."""
    with engine.connect() as connection:
        asked = sa.select(_parameters.c.key, _parameters.c.value).where(_parameters.c.run_uuid == run_id)
        return {key: value for key, value in connection.execute(asked)}


def history_of_server(client: Any, run_id: str) -> tuple[list[list[Any]], dict[str, str]]:
    """Every point of a run's curves (name, value, milliseconds, step), and its parameters: a question a curve."""
    data = client.get_run(run_id).data
    found = (point for name in data.metrics for point in client.get_metric_history(run_id, name))
    return [[point.key, point.value, point.timestamp, point.step] for point in found], dict(data.params)


def rows_of_server(client: Any, *, digests: Sequence[str] | None = None, deleted: bool = False) -> list[Row]:
    """As :func:`rows_of`, of an MLflow server, which is asked a thousand runs at a time."""
    stage = DELETED if deleted else ACTIVE
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    wanted = None if digests is None else set(digests)
    asked = f"tags.`{DIGEST}` LIKE '%'"
    if wanted is not None and len(wanted) == 1:
        asked = f"tags.`{DIGEST}` = '{next(iter(wanted))}'"
    found: list[Row] = []
    token = None
    while experiments:
        order = ["attributes.start_time DESC"]
        page = client.search_runs(experiments, asked, stage, max_results=1000, order_by=order, page_token=token)
        found += map(row_of_run, page)
        token = page.token
        if not token:
            break
    return [row for row in found if wanted is None or row.tags[DIGEST] in wanted]


def experiments_of_server(client: Any) -> list[Experiment]:
    """As :func:`experiments_of`, of an MLflow server."""
    found = []
    for one in client.search_experiments(filter_string=f"name LIKE '{OURS}%'"):
        newest = client.search_runs([one.experiment_id], max_results=1, order_by=["attributes.start_time DESC"])
        view = VIEW if VIEW_TAG in one.tags else ""
        found += [Experiment(one.experiment_id, one.name, run.info.start_time or 0, view) for run in newest]
    return sorted(found, key=lambda one: one.newest, reverse=True)


def row_of_run(run: Any) -> Row:
    """MLflow's own object as a row."""
    info, data = run.info, run.data
    place = info.artifact_uri or ""
    return Row(info.run_id, info.run_name or "", info.status, info.start_time or 0, info.end_time, place,
               dict(data.tags), dict(data.metrics))  # fmt: skip
