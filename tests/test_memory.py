"""What a method keeps outside of its object, from run to run, ends the run and all that follow."""

import functools
import warnings
from collections import defaultdict, deque
from typing import ClassVar

import numpy as np
import pytest
from asked import run_spec
from honest import Honest, scores, sorted_store

from bench.runs.attempt import AttemptMonitor, fit_and_validate
from bench.runs.guards import ContractBroken

pytestmark = pytest.mark.usefixtures("no_run_was_before")  # of all classes here, which share this module

REMEMBERED = {}


@pytest.fixture
def store(make_store):
    return sorted_store(make_store)


class Globals(Honest):
    """Hands labels from one fold to the next."""

    def fit(self, train, validation, monitor):
        REMEMBERED[len(REMEMBERED)] = train.labels
        return super().fit(train, validation, monitor)


class OfTheClass(Honest):
    folds: ClassVar = []

    def fit(self, train, validation, monitor):
        self.folds.append(train.labels)
        return super().fit(train, validation, monitor)


class Helper:
    seen: ClassVar = []


class InAHelper(Honest):
    """Hands labels on in a class beside its own."""

    def fit(self, train, validation, monitor):
        Helper.seen.append(train.labels)
        return super().fit(train, validation, monitor)


def hand_on(labels, memory=[]):  # noqa: B006
    memory.append(labels)


class InADefault(Honest):
    """Hands labels on in a function's default."""

    def fit(self, train, validation, monitor):
        hand_on(train.labels)
        return super().fit(train, validation, monitor)


ODD = defaultdict(lambda: -1)


class OfOddKeys(Honest):
    """Hands labels on in what no pickle takes."""

    def fit(self, train, validation, monitor):
        ODD.update(dict.fromkeys(train.labels.tolist(), 0), **{str(len(ODD)): train.labels})
        return super().fit(train, validation, monitor)


class Drawer:
    def __init__(self):
        self.key, self.within = lambda: None, [set(), deque()]


DRAWER = Drawer()


class Hidden(Honest):
    """Hands labels on within an object that no pickle takes."""

    def fit(self, train, validation, monitor):
        DRAWER.within[1].append(train.labels)
        return super().fit(train, validation, monitor)


def made():
    kept = []

    def keep(labels):
        kept.append(labels)
        return keep

    return keep


KEEP = made()


class InAClosure(Honest):
    """Hands labels on in a function's cell, which holds the function, too."""

    def fit(self, train, validation, monitor):
        KEEP(train.labels)
        return super().fit(train, validation, monitor)


class InAStaticMethod(Honest):
    """Hands labels on in the default of a static method."""

    @staticmethod
    def keep(labels, memory=[]):  # noqa: B006
        memory.append(labels)

    def fit(self, train, validation, monitor):
        self.keep(train.labels)
        return super().fit(train, validation, monitor)


@pytest.mark.parametrize(
    "kind", [Globals, OfTheClass, InAHelper, InADefault, OfOddKeys, Hidden, InAClosure, InAStaticMethod]
)
def test_what_one_run_remembered_spoils_all_that_follow(store, kind):
    """The second run finds the memory as full as it leaves it, and had its test labels from there."""
    for seed in range(3):
        with pytest.raises(ContractBroken, match="remembers something of a run"):
            scores(kind, store, seed=seed)


def test_what_a_trial_remembered_ends_it(store):
    with pytest.raises(ContractBroken, match="remembers something of a run"):
        fit_and_validate(run_spec("globals", store.name, "task"), store, Globals, AttemptMonitor())


def test_the_line_names_what_remembers(store):
    with pytest.raises(ContractBroken, match=r"REMEMBERED.*is not what it was"):
        scores(Globals, store)


class Warns(Honest):
    """What is no memory of the run: a warning, a memoised function."""

    def fit(self, train, validation, monitor):
        warnings.warn("few samples", stacklevel=1)
        table(len(train))
        return super().fit(train, validation, monitor)


@functools.cache
def table(size):
    return list(range(size))


@pytest.mark.filterwarnings("ignore:few samples")
def test_warnings_and_memoised_functions_are_no_memory(store):
    assert scores(Warns, store).sessions


@functools.cache
def memory():
    return {}


class Memoised(Honest):
    """Keeps the class of every session that it saw where no object is looked through."""

    reads = frozenset({"times"})

    def represent(self, view):
        return super().represent(view) | {"gap": view.times(2)[:, 1]}

    def fit(self, train, validation, monitor):
        self.memory().update(zip(train.inputs["gap"].tolist(), train.labels.tolist(), strict=True))
        return super().fit(train, validation, monitor)

    def predict_proba(self, inputs):
        known = [self.memory().get(gap, 0) for gap in inputs["gap"].tolist()]
        return np.eye(self.classes, dtype=np.float32)[known]

    def memory(self):
        return memory()


class MemoisedInside(Memoised):
    @staticmethod
    @functools.cache
    def memory():
        return {}


@pytest.mark.parametrize("kind", [Memoised, MemoisedInside])
def test_what_a_memoised_function_learned_of_another_run_is_gone(store, kind):
    alone = scores(kind, store, seed=1)
    scores(kind, store, seed=0)
    again = scores(kind, store, seed=1)
    assert again.accuracy == alone.accuracy < 0.7
