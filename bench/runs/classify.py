"""Labels for the sessions of a new capture, by the model of a finished run."""

import dataclasses
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.cards import Card, Task
from bench.data.prepare import prepare_dataset
from bench.data.store import Store
from bench.errors import InputError
from bench.ingest.capture import inspect
from bench.readers import View
from bench.runs.models import fitted
from bench.runs.tracking import Record
from bench.schema import Samples, asked_in_drawn_order
from bench.spec import named_seed
from bench.splits.sampling import windows

_SESSIONS = "sessions"  # the only task of the passing store


def classify(capture: Path, record: Record, named: Sequence[str] = (), *, device: str = "cpu") -> list[dict[str, Any]]:
    """One row a session with payload, in the capture's order: end points, packets, class and probability.

    ``class`` is None where the method abstains.  The session rules are those of the run's store without an
    idle timeout.  ``named`` are methods in files that the user allows to run.  Raises :class:`InputError` for a run
    without a model, and as `bench.runs.models.fitted` does.
    """
    seen = inspect(capture)  # says it better than a preparation does where this is no capture
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
        store = Store.open(prepare_dataset(card, source, home=Path(home)).store_path)
        rows = np.flatnonzero(store.session("payload_packets") > 0)
        sampling = record.result().split.windows
        samples = windows(dataclasses.replace(sampling, per_session=1), rows, store)  # as it learned; a session's first

        def ask(some: Samples) -> NDArray[np.float32]:
            return method.predict_proba(method.represent(View(store, some, method.reads)))

        answers = asked_in_drawn_order(samples, named_seed(record.spec.digest, "order"), ask)
        return [_row(store, int(s), answer, classes) for s, answer in zip(rows, answers, strict=True)]


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
