"""A method that learns nothing but shares, and a store in which nothing else can be had: cheats are held against it."""

import numpy as np
from asked import run_spec

from bench.method import Method
from bench.runs.attempt import AttemptMonitor, attempt

SESSIONS, CLASSES = 600, 3


class Honest(Method):
    """Answers with the shares of the classes in training."""

    name, reference, family, reads = "honest", "a test", "baseline", frozenset()

    def represent(self, view):
        return {"counts": view.counts()}

    def fit(self, train, validation, monitor):
        self.shares = np.bincount(train.labels, minlength=self.classes) / len(train)
        return self

    def predict_proba(self, inputs):
        return np.tile(self.shares.astype(np.float32), (len(inputs["counts"]), 1))

    def save_state(self, folder): ...
    def load_state(self, folder): ...


def sorted_store(make_store):
    """As stores are: sorted by capture, and so by class; nothing but the place tells one session from another."""
    row = np.arange(SESSIONS)
    sessions = {
        "capture": row // 20,
        "conversation": row,
        "start": row,
        "packets": 2 + 0 * row,
        "first_packet": 2 * row,
    }
    return make_store(sessions, {"time": np.arange(2 * SESSIONS) ** 2}, labels=row * CLASSES // SESSIONS)


def attempted(kind, store, **fields):
    return attempt(run_spec(kind.name, store.name, "task", **fields), store, kind, AttemptMonitor())


def scores(kind, store, **fields):
    return attempted(kind, store, **fields).scores
