"""Confusion of sessions that hold a single packet with payload (Figs 12 and 13 of the paper).

The paper is silent on what such a sample learned from.  Two arms: runs on whole sessions, of whose test part the
sessions of one packet are taken; and runs on windows of one packet, all of whose test samples count.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.data.store import Store
from bench.errors import InputError
from bench.scores.jackknife import count_groups, interval
from bench.scores.metrics import ABSTAINED, confusion, decide
from bench.tracking.record import Record

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class OnePacket:
    """Test samples of one packet, pooled over runs; a session that several runs tested counts for each."""

    classes: list[str]  # with such a sample
    columns: list[str]  # those and what they were taken for, in the task's order; last "abstained"
    counts: Ints  # [classes, columns]
    shares: NDArray[np.float64]  # [classes, columns], a row adds up to 1
    accuracy: float  # mean of the classes' own shares, as the paper's mean diagonal
    interval: tuple[float, float]  # its 95 % interval, over groups
    few_groups: bool  # too few of them for the interval to be trusted
    sessions: int  # different ones
    samples: int  # in all runs


def one_packet(records: Sequence[Record], store: Store) -> OnePacket:
    """Confusion of one-packet samples of finished runs, as `Tracker.load` gives them, on one data set and task.

    Raises :class:`InputError` for runs that do not belong together, a store prepared anew, or no such sample.
    """
    _check(records, store)
    lonely = np.asarray(store.session("payload_packets")) == 1
    kept: list[tuple[Ints, ...]] = []
    for record in records:
        answers = record.predictions()
        all_are = record.result().split.windows.window == 1
        rows = np.flatnonzero(lonely[answers.session] | all_are)
        predicted = decide(answers.probabilities[rows])
        kept.append((answers.truth[rows], predicted, answers.groups[rows], answers.session[rows]))
    truth, predicted, groups, sessions = (np.concatenate(column) for column in zip(*kept, strict=True))
    if not len(truth):
        what = "no test session of these runs holds a single packet with payload"
        remedy = "run on windows of one packet (--sampling window=1)"
        raise InputError("no-such-session", f"{store.name}: {what}; {remedy}")
    classes = records[0].predictions().classes
    table = confusion(truth, predicted, len(classes))
    present = np.flatnonzero(table.sum(axis=1))
    seen = np.flatnonzero(table[:, :-1].sum(axis=0) + table.sum(axis=1))
    counts = table[np.ix_(present, np.append(seen, len(classes)))]
    recalls = table[present, present] / table.sum(axis=1)[present]
    return OnePacket(
        classes=[classes[c] for c in present],
        columns=[*(classes[c] for c in seen), "abstained"],
        counts=counts,
        shares=counts / counts.sum(axis=1, keepdims=True),
        accuracy=float(recalls.mean()),
        interval=_interval(truth, predicted, groups, present, len(classes)),
        few_groups=count_groups(truth, groups, len(classes)).few,
        sessions=len(np.unique(sessions)),
        samples=len(truth),
    )


def _interval(truth: Ints, predicted: Ints, groups: Ints, present: Ints, classes: int) -> tuple[float, float]:
    """Of the mean recall over the classes that are there; an answer of another class is as wrong as none."""
    number = np.full(classes + 1, ABSTAINED)  # by class; the last, at -1, is for abstentions
    number[present] = np.arange(len(present))
    return interval(number[truth], number[predicted], groups, classes=len(present), metric="macro_recall")


def _check(records: Sequence[Record], store: Store) -> None:
    """Runs of one data set, task and set of classes, on this store."""
    if not records:
        raise InputError("no-runs", "no finished run to take sessions of one packet from; run some first")
    for record in records:
        record.check_store(store)
        first = records[0].spec
        alike = (record.spec.dataset, record.spec.task) == (first.dataset, first.task)
        if not alike or record.predictions().classes != records[0].predictions().classes:
            raise InputError(
                "run-mismatch", f"run {record.run_id[:8]}: not of the first run's data set, task and classes"
            )
