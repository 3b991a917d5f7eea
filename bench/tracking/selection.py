"""Which stored runs are meant: the one filter of everything that shows, sends or removes them."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.errors import InputError, some
from bench.tracking.database import Row
from bench.tracking.record import Record, matches, record_of
from bench.tracking.tracker import Tracker
from bench.tracking.writing import uid_of


@dataclass(frozen=True)
class Wanted:
    """What is asked of runs; what is empty asks nothing."""

    methods: Sequence[str] = ()
    datasets: Sequence[str] = ()
    task: str | None = None
    split: str | None = None  # a scheme
    runs: Sequence[str] = ()  # ids, or what runs are called in every store, or the start of either
    statuses: Sequence[str] = ()

    @property
    def is_everything(self) -> bool:
        """Whether nothing is asked."""
        return not any(vars(self).values())


@dataclass(frozen=True)
class Stored:
    """A run as the store has it, and as it is read."""

    row: Row
    record: Record

    @property
    def uid(self) -> str:
        """What the run is called in every store."""
        return uid_of(self.row)


def stored_runs(tracker: Tracker, tag: tuple[str, str] | None = None) -> list[Stored]:
    """All runs, or those with a tag, oldest first; of the same moment as `Tracker.search` has them.

    Studies and their trials are none.
    """
    return [Stored(row, record_of(row)) for row in sorted(tracker.rows(tag=tag), key=lambda row: row.started)]


def chosen(runs: Sequence[Stored], wanted: Wanted) -> list[Stored]:
    """Those that are wanted, in their order.

    Raises :class:`InputError` where there are none, or where an id of ``wanted`` is of none or of several.
    """
    named = {one.row.run_id for start in wanted.runs for one in [_run_of(runs, start)]}
    fields = {"method": wanted.methods or None, "dataset": wanted.datasets or None}
    fields |= {"task": wanted.task, "split": wanted.split}
    found = [
        one
        for one in runs
        if matches(one.record.spec, fields)
        and (not named or one.row.run_id in named)
        and (not wanted.statuses or one.record.status in wanted.statuses)
    ]
    if not found:
        raise InputError("no-runs", f"no run is so; {_there(runs)}")
    return found


def _run_of(runs: Sequence[Stored], start: str) -> Stored:
    """The run whose id, or name in every store, starts so."""
    found = [one for one in runs if one.row.run_id.startswith(start) or one.uid.startswith(start)]
    if len(found) != 1:
        what = "no run has" if not found else f"{len(found)} runs have"
        raise InputError("unknown-run", f"{what} an id that starts with {start!r}; `bench results show` lists ids")
    return found[0]


def _there(runs: Sequence[Stored]) -> str:
    """What runs there are, in words."""
    if not runs:
        return "there are none at all; `bench run` makes some"
    specs = [one.record.spec for one in runs]
    kinds = {
        "methods": [spec.method for spec in specs],
        "data sets": [spec.dataset for spec in specs],
        "tasks": [spec.task for spec in specs],
        "splits": [spec.split.scheme for spec in specs],
        "status": [one.record.status for one in runs],
    }
    return "there are " + "; ".join(f"{kind} {some(sorted(set(values)), 8)}" for kind, values in kinds.items())
