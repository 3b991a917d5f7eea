"""A run's fitted method on another data set: the same classes, captured by others, elsewhere, or later.

Classes are the same where their names are.  Left out and counted are sessions of other classes, and those of captures
that the run's data set has, too.  An answer with a class that the other data set lacks is an error.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.data.store import Store
from bench.errors import InputError, instead, some
from bench.method import Method
from bench.readers import View
from bench.schema import Samples, asked_in_drawn_order
from bench.scores.jackknife import GroupJackknife
from bench.scores.metrics import ABSTAINED, decide
from bench.spec import SplitSpec, named_seed
from bench.splits.filters import COLUMNS, apply_filter
from bench.splits.sampling import windows
from bench.stress.stress_record import METRICS, OtherSetup

Ints = NDArray[np.int64]

NAMED: Final = 6  # classes that a message names
UNKNOWN: Final = "of classes that the run does not know"
SHARED: Final = "of captures that the run's data set has, too"


@dataclass(frozen=True)
class OtherTask:
    """A task of another data set, held against the run's classes."""

    store: Store
    task: str
    classes: list[str]  # that both have, in the run's order
    missing: list[str]  # of the run alone
    unknown: list[str]  # of the other data set alone
    rules: str  # how its captures were read otherwise than the run's; empty: alike

    @classmethod
    def of(cls, store: Store, task: str, own: Store, classes: list[str]) -> "OtherTask":
        """Raises :class:`InputError` for the run's own data set, and for fewer than two classes that both have.

        Without a ``task`` it is the default one.
        """
        if store.digest == own.digest:
            what = "is the data set of the run"
            remedy = "name another one; `bench run --split attribute:NAME` tests on other values of an attribute"
            raise InputError("bad-options", f"--other {store.name}: {what}; {remedy}")
        if task and task not in store.tasks:
            raise InputError("unknown-task", f"{store.name} has no task {task!r}; {instead(task, store.tasks)}")
        task = task or store.default_task
        theirs = [store.classes(task)[number] for number in np.unique(store.labels(task)) if number >= 0]
        both = [name for name in classes if name in theirs]
        if len(both) < 2:
            there = f"the run knows {some(classes, NAMED)}, {store.name}/{task} has {some(theirs, NAMED)}"
            what = f"{'one class' if both else 'no class'} of the same name: {there}"
            raise InputError("one-class", f"--other {store.name}: {what}; name a task with classes of the run")
        here, there = _rules(store), _rules(own)
        told = "" if here == there else f"read with {here}, the run's with {there}"
        missing = [name for name in classes if name not in both]
        return cls(store, task, both, missing, [name for name in theirs if name not in both], told)

    def samples(self, own: Store, spec: SplitSpec) -> tuple[Samples, dict[str, int]]:
        """Samples of the classes that both have, as the run's filter and sampling make them, and sessions that are not.

        Raises :class:`InputError` where there is none.
        """
        store = self.store
        labels = np.asarray(store.labels(self.task))
        rows = np.flatnonzero(labels >= 0)
        numbers = [store.classes(self.task).index(name) for name in self.classes]
        known = np.isin(labels[rows], numbers)
        left_out = {UNKNOWN: int((~known).sum())}
        rows = rows[known]
        ours = {one.content for one in own.manifest.captures if one.content}
        same = np.array([one.content in ours for one in store.manifest.captures], bool)[store.session("capture")[rows]]
        left_out[SHARED] = int(same.sum())
        rows = rows[~same]
        stay, dropped = apply_filter(spec.filtering, {name: np.asarray(store.session(name))[rows] for name in COLUMNS})
        rows = rows[stay]
        samples = windows(spec.windows, rows, store)
        left_out |= {**dropped, "no window": len(rows) - len(np.unique(samples.session))}
        if not len(samples):
            why = ", ".join(f"{number} {reason}" for reason, number in left_out.items() if number)
            what = f"no session of the run's classes is left ({why})"
            raise InputError("nothing-left", f"--other {store.name}/{self.task}: {what}; name another data set")
        return samples, left_out


def on_other(
    other: OtherTask,
    found: tuple[Samples, dict[str, int]],
    method: Method,
    asked: tuple[SplitSpec, list[str]],
    tested: tuple[Ints, Ints, Ints],
) -> OtherSetup:
    """Scores of a fitted method on all sessions of another task, and on the run's test part by the same classes.

    ``found`` is what :meth:`OtherTask.samples` gives, ``asked`` are the run's split and classes; ``tested`` are truth,
    predictions and groups of the run's test samples, int64 ``[samples]``.
    """
    spec, classes = asked
    samples, left_out = found

    def ask(some_: Samples) -> NDArray[np.float32]:
        return method.predict_proba(method.represent(View(other.store, some_, method.reads)))

    answers = asked_in_drawn_order(samples, named_seed(spec.seed, "stress", other.store.name, other.task), ask)
    names = other.store.classes(other.task)
    place = {name: number for number, name in enumerate(other.classes)}
    theirs = np.array([place.get(name, ABSTAINED) for name in names], np.int64)
    ours = np.array([*(place.get(name, ABSTAINED) for name in classes), ABSTAINED], np.int64)  # the last: abstained
    truth, predicted = theirs[other.store.labels(other.task)[samples.session]], ours[decide(answers)]
    groups = other.store.capture_group()[samples.session].astype(np.int64)
    there = GroupJackknife(truth, [predicted], groups, classes=len(place))
    common = ours[tested[0]] >= 0
    here = GroupJackknife(ours[tested[0]][common], [ours[tested[1]][common]], tested[2][common], classes=len(place))
    return OtherSetup(
        dataset=other.store.name,
        task=other.task,
        store=other.store.digest,
        classes=other.classes,
        classes_missing=other.missing,
        classes_unknown=other.unknown,
        sessions_left_out={reason: number for reason, number in left_out.items() if number},
        samples=len(truth),
        interval_groups=there.counts.smallest,
        scores=_ends(there),
        own_samples=int(common.sum()),
        own_interval_groups=here.counts.smallest,
        own=_ends(here),
        rules=other.rules,
    )


def _ends(jackknife: GroupJackknife) -> dict[str, list[float]]:
    """By metric the score and the ends of its interval."""
    scores = {metric: jackknife.score(0, metric) for metric in METRICS}
    return {metric: [one.value, *one.score_interval()] for metric, one in scores.items()}


def _rules(store: Store) -> str:
    """By which rules its captures were read, in words."""
    unusual = store.manifest.options.ingest.unusual
    return ", ".join(f"{name}={value}" for name, value in unusual.items()) or "the usual rules"
