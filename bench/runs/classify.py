"""Labels for the sessions of a new capture, by the model of a finished run."""

import dataclasses
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.data.card_tables import Task
from bench.data.cards import Card
from bench.data.prepare import PrepareOptions, prepare_dataset
from bench.data.store import Store
from bench.errors import InputError
from bench.ingest.inspection import inspect
from bench.ingest.options import IngestOptions
from bench.readers import View
from bench.runs.models import fitted
from bench.schema import Samples, asked_in_drawn_order
from bench.spec import named_seed
from bench.splits.filters import COLUMNS, apply_filter
from bench.splits.sampling import windows
from bench.tracking.record import Record

_SESSIONS = "sessions"  # the only task of the passing store


EARLIER: Final = {"sessions": "5tuple"}  # how captures were read by the code of runs that do not tell
UNTOLD: Final = (
    "the run does not say how its captures were read: sessions are cut by 5-tuple, and their client is found by the "
    "handshake, where it was the first sender; train again to use one rule for both"
)


@dataclass(frozen=True)
class Classified:
    """The sessions of a capture and what a model says of them."""

    rows: list[dict[str, Any]]  # a session each: end points, packets, class and probability
    left_out: dict[str, int]  # sessions that the run's filter leaves out, by reason
    notes: tuple[str, ...] = ()  # what its answers cannot be read without


def classify(capture: Path, record: Record, named: Sequence[str] = (), *, device: str = "cpu") -> Classified:
    """Label the sessions with payload of a capture, in its order; ``class`` is None where the method abstains.

    The capture is read by the very rules of the run's store, and filter and sampling are the run's.  ``named`` are
    methods in files that the user allows to run.  Raises :class:`InputError` for a run without a model, and as
    `bench.runs.models.fitted` does.
    """
    result = record.result()
    told = result.ingest is not None
    rules = IngestOptions(**(result.ingest if result.ingest is not None else EARLIER))
    seen = inspect(capture, rules)  # says it better than a preparation does where this is no capture
    if not seen["conversations_with_payload"]:
        raise InputError(
            "no-packets", f"{capture}: no TCP or UDP session with payload, so nothing to classify; give another capture"
        )
    method = fitted(record, named, device=device)
    classes = record.predictions().classes
    card = Card(name="capture", title="a capture to classify", tasks={_SESSIONS: Task(label="label")})
    with tempfile.TemporaryDirectory() as home:
        source = Path(home) / "source"  # of this capture alone, whatever lies beside it; its bytes tell what it is
        source.mkdir()
        (source / "capture.pcap").symlink_to(capture.absolute())
        store = Store.open(prepare_dataset(card, source, PrepareOptions(ingest=rules), home=Path(home)).store_path)
        rows = np.flatnonzero(store.session("payload_packets") > 0)
        filtering = record.spec.split.filtering
        stay, left_out = apply_filter(filtering, {name: np.asarray(store.session(name))[rows] for name in COLUMNS})
        rows = rows[stay]
        sampling = dataclasses.replace(result.split.windows, per_session=1)  # as it learned; a session's first window
        samples = windows(sampling, rows, store)
        rows = samples.session

        def ask(some: Samples) -> NDArray[np.float32]:
            return method.predict_proba(method.represent(View(store, some, method.reads)))

        seed = named_seed(record.spec.digest, "order")
        answers: Any = asked_in_drawn_order(samples, seed, ask) if len(samples) else []
        labelled = [_row(store, int(s), answer, classes) for s, answer in zip(rows, answers, strict=True)]
        short = int(stay.sum()) - len(rows)
        left_out |= {"no window": short} if short else {}
        notes = [] if told else [UNTOLD]
        notes += [
            f"{capture}: damaged at byte {one['offset']}: {one['reason']}; what comes after is not classified"
            for one in seen["damage"]
        ]
        return Classified(labelled, {reason: n for reason, n in left_out.items() if n}, tuple(notes))


def _row(store: Store, session: int, answer: NDArray[np.float32], classes: list[str]) -> dict[str, Any]:
    abstains = bool(np.isnan(answer).any())
    best = 0 if abstains else int(answer.argmax())
    return {
        "protocol": {6: "TCP", 17: "UDP"}[int(store.session("protocol")[session])],
        "client": _end(store, session, "client"),
        "server": _end(store, session, "server"),
        "start": int(store.session("start")[session]) / 1e9,
        "packets": int(store.session("packets")[session]),
        "class": None if abstains else classes[best],
        "probability": None if abstains else round(float(answer[best]), 4),
    }


def _end(store: Store, session: int, side: str) -> str:
    """``address:port``, an IPv6 address in brackets."""
    packed = bytes(store.session(f"{side}_ip")[session]).ljust(16, b"\0")
    port = int(store.session(f"{side}_port")[session])
    if int(store.session("ip_version")[session]) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, packed[:4])}:{port}"
    return f"[{socket.inet_ntop(socket.AF_INET6, packed)}]:{port}"


def lines(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The rows as text cells, head first."""
    head = ("protocol", "client", "server", "packets", "class", "probability")
    return [head, *(tuple("abstains" if row[k] is None else str(row[k]) for k in head) for row in rows)]
