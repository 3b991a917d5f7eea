"""The tracking database asked in SQL: rows of runs in one query each, and the one way in for our own tables.

MLflow's own search builds an object for each number of each run: 5,000 runs take it 18 s, this a second.  Its tables
``runs``, ``tags`` and ``latest_metrics`` are its format on disk, which its migrations keep; a test holds both readings
equal.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from bench.tracking.address import ANSWER_SECONDS, Address

BUSY_SECONDS: Final = 60  # that a writer of an SQLite file waits for others
IN: Final = 500  # values of one query's list
DIGEST: Final = "bench.digest"

_runs = sa.table("runs", *map(sa.column, ("run_uuid", "status", "start_time", "end_time", "artifact_uri",
                                          "lifecycle_stage", "name")))  # fmt: skip
_tags = sa.table("tags", *map(sa.column, ("run_uuid", "key", "value")))
_metrics = sa.table("latest_metrics", *map(sa.column, ("run_uuid", "key", "value", "is_nan")))


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


def engine_of(address: Address) -> sa.Engine:
    """A way into the database.  Raises :class:`InputError` where a server does not answer or a driver is missing."""
    address.check()
    try:
        return sa.create_engine(address.uri, **connection_options(address))
    except (ImportError, sa.exc.SQLAlchemyError) as error:
        raise address.failed(error) from None


def connection_options(address: Address) -> dict[str, Any]:
    """How long a database is waited for, and that a connection is tried before it is used, as SQLAlchemy takes it."""
    patience = {"sqlite": {"timeout": BUSY_SECONDS}, "postgresql": {"connect_timeout": round(ANSWER_SECONDS)}}
    return {"connect_args": patience.get(address.scheme, {}), "pool_pre_ping": not address.is_sqlite}


def rows_of(engine: sa.Engine, *, digests: Sequence[str] | None = None, begins: str | None = None) -> list[Row]:
    """Runs of ours, newest first: all, those of ``digests``, or those whose id ``begins`` so.

    Empty where the database has no tables yet.
    """
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("runs"):
            return []
        chosen = _chosen(connection, digests, begins)
        rows = {run.run_uuid: _row(run) for part in _parts(chosen) for run in connection.execute(_select_runs(part))}
        for part in _parts(None if chosen is None else list(rows)):
            for run_id, key, value in connection.execute(_of(part, _tags, "value")):
                if run_id in rows:
                    rows[run_id].tags[key] = value
            for run_id, key, value, nan in connection.execute(_of(part, _metrics, "value", "is_nan")):
                if run_id in rows:
                    rows[run_id].metrics[key] = math.nan if nan else value
    return sorted((row for row in rows.values() if DIGEST in row.tags), key=lambda row: row.started, reverse=True)


def _chosen(connection: sa.Connection, digests: Sequence[str] | None, begins: str | None) -> list[str] | None:
    """Ids of the runs asked for; None: all."""
    if begins is not None:
        found = connection.execute(
            sa.select(_runs.c.run_uuid).where(_runs.c.run_uuid.startswith(begins, autoescape=True))
        )
        return list(found.scalars())
    if digests is None:
        return None
    wanted = set(digests)
    found = connection.execute(sa.select(_tags.c.run_uuid, _tags.c.value).where(_tags.c.key == DIGEST))
    return [run_id for run_id, digest in found if digest in wanted]


def _parts(chosen: list[str] | None) -> Iterator[list[str] | None]:
    """Lists short enough for one query; None asks for all."""
    if chosen is None:
        yield None
        return
    yield from (chosen[start : start + IN] for start in range(0, len(chosen), IN))


def _select_runs(part: list[str] | None) -> sa.Select[Any]:
    asked = sa.select(_runs).where(_runs.c.lifecycle_stage == "active")
    return asked if part is None else asked.where(_runs.c.run_uuid.in_(part))


def _of(part: list[str] | None, table: sa.TableClause, *columns: str) -> sa.Select[Any]:
    asked = sa.select(table.c.run_uuid, table.c.key, *(table.c[name] for name in columns))
    return asked if part is None else asked.where(table.c.run_uuid.in_(part))


def _row(run: Any) -> Row:
    return Row(run.run_uuid, run.name or "", run.status, run.start_time or 0, run.end_time, run.artifact_uri or "")


def rows_of_server(client: Any, *, digests: Sequence[str] | None = None) -> list[Row]:
    """As :func:`rows_of`, of an MLflow server, which is asked a thousand runs at a time."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    wanted = None if digests is None else set(digests)
    asked = f"tags.`{DIGEST}` LIKE '%'"
    if wanted is not None and len(wanted) == 1:
        asked = f"tags.`{DIGEST}` = '{next(iter(wanted))}'"
    found: list[Row] = []
    token = None
    while experiments:
        order = ["attributes.start_time DESC"]
        page = client.search_runs(experiments, asked, max_results=1000, order_by=order, page_token=token)
        found += map(row_of_run, page)
        token = page.token
        if not token:
            break
    return [row for row in found if wanted is None or row.tags[DIGEST] in wanted]


def row_of_run(run: Any) -> Row:
    """MLflow's own object as a row."""
    info, data = run.info, run.data
    place = info.artifact_uri or ""
    return Row(info.run_id, info.run_name or "", info.status, info.start_time or 0, info.end_time, place,
               dict(data.tags), dict(data.metrics))  # fmt: skip
