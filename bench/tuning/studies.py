"""Where studies are, and the way in for several processes at once.

The pruner is named with all its arguments, because Optuna's defaults change.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import optuna
import sqlalchemy as sa

from bench.tracking.address import Address
from bench.tracking.claims import Claims
from bench.tracking.database import connection_options, engine_of, reading_uri
from bench.tuning.search import Look, Search
from bench.tuning.spaces import point_key

if TYPE_CHECKING:
    from bench.tracking.tracker import Tracker

SCHEMA: Final = "optuna"  # in a PostgreSQL database of runs: MLflow and Optuna both keep a table alembic_version
AWAY: Final = (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError)  # Optuna's database does not answer


def storage_of(tracker: "Tracker", asked: str | None = None) -> Address:
    """Where studies are: as asked, else in the PostgreSQL server that has the claims of runs, else a file of `results`.

    Whoever shares runs through a server shares studies, too.  There they have a schema of their own, which is made.
    Raises :class:`InputError` for a server that does not answer.
    """
    what = "the storage of studies"
    shared = tracker.claims.address
    if asked is not None or shared.scheme != "postgresql":
        return Address(asked or f"sqlite:///{tracker.results / 'optuna.db'}", tracker.results, what)
    with tracker.claims.alone("tables of Optuna"):
        try:
            with engine_of(shared).begin() as connection:
                connection.execute(sa.schema.CreateSchema(SCHEMA, if_not_exists=True))
        except sa.exc.SQLAlchemyError as error:
            raise shared.failed(getattr(error, "orig", None) or error) from None
    own = sa.make_url(shared.uri).update_query_dict({"options": f"-csearch_path={SCHEMA}"})
    return Address(own.render_as_string(hide_password=False), tracker.results, what)


def open_study(search: Search, storage: Address, claims: Claims) -> optuna.Study:
    """The search's study in `storage`, made or taken up again; one process at a time makes its tables.

    Raises :class:`InputError` for a database that cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2, interval_steps=1, n_min_trials=3)
    with answering(storage), claims.alone("tables of Optuna"):
        try:
            database = optuna.storages.RDBStorage(storage.url, engine_kwargs=connection_options(storage))
            return optuna.create_study(
                study_name=search.name,
                storage=database,
                direction="maximize",
                load_if_exists=True,
                pruner=pruner if search.prune else optuna.pruners.NopPruner(),
            )
        except (ValueError, ImportError, RuntimeError) as error:  # no address, no driver, tables of another version
            raise storage.failed(error) from None


def stored_study(search: Search, storage: Address) -> optuna.Study | None:
    """The search's study as it is kept, opened for reading alone; None where there is none that can be read."""
    if storage.is_sqlite and not storage.file.is_file():
        return None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    place = dataclasses.replace(storage, uri=reading_uri(storage))
    options = connection_options(storage)
    try:
        if not _has_version(place):
            return None
        database = optuna.storages.RDBStorage(
            place.url, options, skip_compatibility_check=True, skip_table_creation=True
        )
        return optuna.load_study(study_name=search.name, storage=database)
    except (KeyError, ImportError, *AWAY):  # whoever opens it to work on it says what is wrong
        return None


def by_other_code(search: Search, storage: Address) -> list[str]:
    """Names of studies of the same question that other code answered: what they found does not count here."""
    column: sa.ColumnClause[str] = sa.column("study_name")
    with answering(storage), engine_of(storage).connect() as connection:
        known = connection.scalars(sa.select(column).select_from(sa.table("studies"))).all()
    return sorted(name for name in known if name.startswith(search.question) and name != search.name)


def _has_version(storage: Address) -> bool:
    """Whether Optuna's tables are whole: the version comes last.  Opening others writes it, and who makes them fails.

    SQLAlchemy's errors pass: there is no such table.
    """
    version: sa.Select[Any] = sa.select(sa.column("version_num")).select_from(sa.table("alembic_version"))
    with engine_of(storage).connect() as connection:
        return connection.execute(version).first() is not None


@contextmanager
def answering(storage: Address) -> Iterator[None]:
    """What goes wrong between Optuna and its database is one line."""
    try:
        yield
    except AWAY as error:
        raise storage.failed(getattr(error.__cause__ or error, "orig", None) or error) from None


def keep_runs(search: Search, scored: Sequence[tuple[Mapping[str, Any], float, str]], storage: Address) -> str:
    """Put finished runs into the search's study as trials, each once; returns the study's name.

    ``scored`` has for each run its drawn parameters, its validation macro-F1 and its id.  A later `bench tune` of the
    same question finds these trials done.
    """
    claims = Claims(storage)
    study = open_study(search, storage, claims)
    with answering(storage), claims.alone(draws_of(search)):
        known = Look(study.get_trials(deepcopy=False), 0).known
        for drawn, value, run_id in scored:
            if point_key(drawn) not in known:
                study.add_trial(
                    optuna.trial.create_trial(
                        params=dict(drawn),
                        distributions=search.distributions,
                        value=value,
                        user_attrs={"run": run_id},
                    )
                )
    return search.name


def draws_of(search: Search) -> str:
    """The claim of whoever adds trials to a study."""
    return f"draws of {search.name}"
