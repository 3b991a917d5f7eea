"""What the packets of one session look at: attention of a finished run's model (Fig. 8 of the paper).

The paper is silent on layer, heads and class token.  Our choice: the last layer, the mean over heads, rows of packet
tokens; the class token's column is dropped and each row divided by what is left, so that it adds up to 1 again.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.store import Store
from bench.errors import InputError
from bench.readers import View
from bench.runs import registry
from bench.runs.models import fitted, method_of
from bench.schema import Samples
from bench.scores.metrics import decide
from bench.splits.sampling import window_keys, windows
from bench.tracking.record import Record
from bench.tracking.results import Predictions


@dataclass(frozen=True)
class Attention:
    """Attention of some packets of one sample of a run's test part."""

    session: int  # row of the store
    class_name: str  # its true class
    predicted: str | None  # None: the method abstained
    queries: tuple[int, ...]  # packets that look, counted from 0 among those with payload
    maps: NDArray[np.float64]  # [queries, packets], each row adds up to 1
    filled: int  # packets that the sample has: columns from here on are padding, which is looked at all the same


def attention_maps(record: Record, store: Store, *, session: int | None = None, queries: int = 4) -> Attention:
    """Attention between the packets of a test session, by the model of a run that `Tracker.load` gave.

    Without ``session`` (a row of the store) it is the first sample that is classified rightly and fills all packets
    that the model reads, else the one with the most, rightly classified ones before others.  ``queries`` packets are
    spread over the sample's own.  Raises :class:`InputError` for a run whose model has no attention between packets,
    a store prepared anew, or a session outside the test part.
    """
    method, answers = _model(record), record.predictions()
    record.check_store(store)
    samples = _samples_of(record, answers, store)
    packets = View(store, samples, method.reads).counts(payload_only=True).clip(max=method.parameters.packets)
    chosen = _choose(answers, packets, session, record)
    filled = int(packets[chosen])
    if not filled:
        raise InputError(
            "no-such-session",
            f"session {int(answers.session[chosen])} has no packet with payload; take another session",
        )
    inputs = method.represent(View(store, samples.take(np.array([chosen])), method.reads))
    weights = method.attention(inputs)[0].astype(np.float64)
    asked = np.unique(np.linspace(0, filled - 1, max(queries, 1)).round().astype(np.int64))
    rows = weights[1 + asked, 1:]
    best = int(decide(answers.probabilities[[chosen]])[0])
    return Attention(
        session=int(answers.session[chosen]),
        class_name=answers.classes[answers.truth[chosen]],
        predicted=answers.classes[best] if best >= 0 else None,
        queries=tuple(int(query) for query in asked),
        maps=rows / rows.sum(axis=1, keepdims=True),
        filled=filled,
    )


def _model(record: Record) -> Any:
    """The run's fitted method, on the CPU."""
    if not hasattr(registry.load(method_of(record.spec)), "attention"):
        raise InputError(
            "no-attention", f"{record.spec.method} has no attention between packets; take a method that has it"
        )
    return fitted(record)


def _choose(answers: Predictions, packets: NDArray[Any], session: int | None, record: Record) -> int:
    """Row of the sample to show."""
    right = decide(answers.probabilities) == answers.truth
    if session is None:
        return int(np.lexsort((~right, -packets))[0])
    rows = np.flatnonzero(answers.session == session)
    if not len(rows):
        raise InputError(
            "no-such-session", f"session {session} is not in the test part of run {record.run_id[:8]}; take one that is"
        )
    return int(rows[0])


def _samples_of(record: Record, answers: Predictions, store: Store) -> Samples:
    """The windows that a run answered for, in the order of its predictions."""
    sampling = record.result().split.windows
    packets = np.asarray(store.session("packets"))
    candidates = windows(sampling, np.unique(answers.session), store)
    wanted = Samples(answers.session, answers.first, np.zeros_like(answers.first))
    known, keys = window_keys(candidates, packets), window_keys(wanted, packets)
    at = np.searchsorted(known, keys).clip(max=len(known) - 1)
    if (known[at] != keys).any():
        raise InputError(
            "run-mismatch", f"run {record.run_id[:8]}: its windows are not those of {sampling}; run it again"
        )
    return candidates.take(at)
