"""What the capture set-up alone tells of the classes: features of how captures were made, and what they score.

No feature looks at what a session says.  Where one of them scores well, a method may have learned the set-up: whichever
it sees (cut and doubled packets, TTL and IP id with whole packets) it can use, and what it does not see still says that
classes were captured apart.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.analysis.audit_record import SetUpScore
from bench.analysis.capture_setup import cut_packets, said
from bench.analysis.data_quality import Pool
from bench.data.store import Store
from bench.errors import some
from bench.ingest.containers import frames
from bench.ingest.links import VLAN_TAGS
from bench.schema import MARK_COPY, by_capture
from bench.scores.metrics import counts, precision_recall_f1
from bench.splits.split import Split

Ints = NDArray[np.int64]
Features = dict[str, NDArray[Any]]

#: name -> what it is; one number a session, -1 (VLAN: 0) where there is none
FEATURES: Final = {
    "link type": "of its capture",
    "snap length": "of its capture, bytes",
    "clock": "resolution of its capture's times",
    "capture tool": "format of its capture, and the tool that pcapng names",
    "capture length": "seconds from first to last packet of its capture",
    "capture sessions": "how many its capture holds",
    "time of day": "hour of its start, UTC",
    "client known by": "SYN, SYN-ACK, the first packet or the port",
    "copies": "share of its packets that were captured twice",
    "cut packets": "share of its packets whose payload is cut",
    "VLAN": "of its first packet",
    "MAC vendor": "first three bytes of the client's Ethernet address, in its first packet",
    "client TTL": "or hop limit, of the client's first packet",
    "server TTL": "or hop limit, of the server's first packet",
    "IP id": "of its first packet, IPv4",
}
ALL: Final = "all of the set-up"
REACH: Final = 0.5  # of the way to the best run: who goes further is marked (our choice)

NONE: Final = -1
_DEPTH: Final = 20  # of a tree on one feature (our choice): one of 10 does not tell 36 captures by their lengths
_TREES: Final = 100  # of the forest on all (our choice)


def setup_features(store: Store, session: Ints) -> Features:
    """The `FEATURES` of sessions, whose rows are int64 ``[n]`` (one may stand there twice): int64 or float64 ``[n]``.

    Raises :class:`InputError` where a capture is gone or changed.
    """
    found = _of_captures(store, session) | _of_columns(store, session) | _of_headers(store, session)
    return {name: found[name] for name in FEATURES}


def _of_captures(store: Store, session: Ints) -> Features:
    """What a session has of its capture: int64 or float64 ``[sessions]``."""
    captures, capture = store.manifest.captures, np.asarray(store.session("capture"), np.int64)
    start = np.asarray(store.session("start"))
    first, last = np.full(len(captures), np.iinfo(np.int64).max), np.full(len(captures), np.iinfo(np.int64).min)
    np.minimum.at(first, capture, start)
    np.maximum.at(last, capture, start + store.session("duration"))
    values: dict[str, Any] = {
        "link type": _numbered([", ".join(one.link_types) for one in captures]),
        "snap length": [one.remarks.get("snaplen", 0) for one in captures],
        "clock": _numbered([", ".join(said(one, "clocks")) for one in captures]),
        "capture tool": _numbered([", ".join((one.format, *said(one, "tools"))) for one in captures]),
        "capture sessions": np.bincount(capture, minlength=len(captures)),
    }
    of = {name: np.asarray(column, np.int64)[capture[session]] for name, column in values.items()}
    return of | {"capture length": (last[capture[session]] - first[capture[session]]) / 1e9}


def _numbered(texts: Sequence[str]) -> Ints:
    """Texts as numbers, in the order of the alphabet: int64 ``[texts]``."""
    return np.unique(texts, return_inverse=True)[1].astype(np.int64)


def _of_columns(store: Store, session: Ints) -> Features:
    """What the store says of a session's own packets: int64 or float64 ``[sessions]``."""
    first, size = (np.asarray(store.session(name), np.int64)[session] for name in ("first_packet", "packets"))

    def share(of_packet: NDArray[np.bool_]) -> NDArray[np.float64]:
        until = np.concatenate([[0], np.cumsum(of_packet)])
        return np.asarray((until[first + size] - until[first]) / size)

    return {
        "time of day": np.asarray(store.session("start"))[session] / 1e9 % 86_400 / 3600,
        "client known by": np.asarray(store.session("client_by"), np.int64)[session],
        "copies": share(np.asarray(store.packet("marks")) & MARK_COPY > 0),
        "cut packets": share(cut_packets(store)),
    }


def _of_headers(store: Store, session: Ints) -> Features:
    """What stands in the headers of a session's first packets: int64 ``[sessions]``."""
    first = np.asarray(store.session("first_packet"), np.int64)[session]
    sides = [_first_of_side(store, session, side) for side in (1, -1)]
    capture = np.asarray(store.session("capture"))[session]
    names = ("VLAN", "MAC vendor", "client TTL", "server TTL", "IP id")
    found = {name: np.full(len(session), NONE, np.int64) for name in names}
    if store.of_records:  # records have no headers
        return found
    for number, here in by_capture(capture):
        packets = _Packets(store, number)
        for name, side in zip(("client TTL", "server TTL"), sides, strict=True):
            found[name][here] = packets.hops(side[here])
        found["IP id"][here] = packets.identification(first[here])
        if store.manifest.captures[number].link_types == ["Ethernet"]:
            found["VLAN"][here], found["MAC vendor"][here] = packets.vlan(first[here]), packets.vendor(first[here])
    return found


def _first_of_side(store: Store, session: Ints, side: int) -> Ints:
    """Row of each session's first packet in a direction, NONE where it has none: int64 ``[sessions]``."""
    first, size = (np.asarray(store.session(name), np.int64)[session] for name in ("first_packet", "packets"))
    rows = np.flatnonzero(np.asarray(store.packet("direction")) == side)
    row = np.append(rows, np.iinfo(np.int64).max)[np.searchsorted(rows, first)]
    return np.where(row < first + size, row, NONE)


class _Packets:
    """Headers of packets of one capture, by row; a row of NONE has none."""

    def __init__(self, store: Store, capture: int) -> None:
        self.store, self.data = store, store.capture_bytes(capture)

    def number(self, at: Ints, size: int) -> Ints:
        """The big-endian number in so many bytes; NONE where these are not in the file."""
        inside = (at >= 0) & (at + size <= len(self.data))
        at, total = np.where(inside, at, 0), np.zeros(len(at), np.int64)
        for byte in range(size):
            total = total << 8 | self.data[at + np.where(inside, byte, 0)]
        return np.where(inside, total, NONE)

    def ip(self, row: Ints) -> tuple[Ints, Ints]:
        """Where the IP header begins, and its version."""
        at = np.asarray(self.store.packet("record"))[row] + np.asarray(self.store.packet("ip"))[row]
        at = np.where(row == NONE, NONE, at)
        return at, self.number(at, 1) >> 4

    def frame(self, row: Ints) -> Ints:
        """Where the frame begins, behind the record's header."""
        return frames(self.data, np.asarray(self.store.packet("record"))[row])

    def hops(self, row: Ints) -> Ints:
        """TTL or hop limit."""
        at, version = self.ip(row)
        return self.number(np.where(at == NONE, NONE, at + np.where(version == 4, 8, 7)), 1)

    def identification(self, row: Ints) -> Ints:
        """IP id; NONE in IPv6."""
        at, version = self.ip(row)
        return self.number(np.where(version == 4, at + 4, NONE), 2)

    def vlan(self, row: Ints) -> Ints:
        """VLAN of an Ethernet frame's outermost tag, 0 without one."""
        frame = self.frame(row)
        tagged = np.isin(self.number(frame + 12, 2), VLAN_TAGS)
        return np.where(tagged, self.number(frame + 14, 2) & 0xFFF, 0)

    def vendor(self, row: Ints) -> Ints:
        """First three bytes of the client's Ethernet address: it sends the packet or receives it."""
        sends = np.asarray(self.store.packet("direction"))[row] > 0
        return self.number(self.frame(row) + np.where(sends, 6, 0), 3)


def set_up_scores(
    pool: Pool, split: Split, features: Mapping[str, NDArray[Any]], best: tuple[str, float] | None = None
) -> list[SetUpScore]:
    """What each feature alone, and at last all together, score on a split's test part.

    ``features`` are int64 or float64 ``[samples of the pool]``; ``best`` is the method and the macro-F1 of the split's
    best run.  Nothing of a test part without samples.
    """
    train, test = pool.rows(split.train), pool.rows(split.test)
    if not len(train) or not len(test):
        return []
    known, truth = (split.to_scored_classes(pool.labels[rows]) for rows in (train, test))
    names = [pool.store.classes(pool.task)[number] for number in split.scored]
    accuracy, f1 = _scores(truth, np.full(len(test), np.bincount(known).argmax()), len(names))
    chance = max(float(f1.mean()), 1 / len(names))
    method, top = best if best and best[1] > chance else ("", None)
    columns = {name: np.asarray(column, np.float64)[:, None] for name, column in features.items()}
    varied = [column for column in columns.values() if np.ptp(column[train])]
    columns[ALL] = np.hstack(varied) if varied else np.zeros((len(pool.samples), 1))
    rows = []
    for name, column in columns.items():
        answers = _answers(_forest if name == ALL else _tree, column[train], known, column[test])
        right, f1 = _scores(truth, answers, len(names))
        rows.append(
            SetUpScore(
                split=split.spec.scheme,
                feature=name,
                values=len(np.unique(column[train], axis=0)),
                accuracy=right,
                macro_f1=float(f1.mean()),
                f1=dict(zip(names, f1.tolist(), strict=True)),
                chance_accuracy=accuracy,
                chance_macro_f1=chance,
                best=top,
                best_method=method,
            )
        )
    return rows


def _scores(truth: Ints, answers: Ints, classes: int) -> tuple[float, NDArray[np.float64]]:
    """Accuracy, and the F1 of each class, ``[classes]``."""
    hits, predicted, support = counts(truth, answers, classes)
    return float((truth == answers).mean()), precision_recall_f1(hits, predicted, support)[2]


def _answers(made: Callable[[], Any], train: NDArray[np.float64], labels: Ints, test: NDArray[np.float64]) -> Ints:
    """The classes of ``test [samples, features]`` by an estimator that is fitted to the training samples."""
    answers: Ints = made().fit(train, labels).predict(test)
    return answers


def _tree() -> Any:
    """One mechanism for all: of a feature with few values, numbers or names, a tree makes a table."""
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_depth=_DEPTH, random_state=0)


def _forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(_TREES, random_state=0)


def told(scores: Sequence[SetUpScore]) -> list[str]:
    """A line for each split in which the set-up alone goes more than half of the way to the best run."""
    lines = []
    for split in dict.fromkeys(row.split for row in scores):
        marked = sorted((row for row in scores if row.split == split and row.reach > REACH), key=lambda r: -r.macro_f1)
        if marked:
            first = marked[0]
            found = some([f"{row.feature} {row.macro_f1:.3f}" for row in marked], 4)
            top = "no run is known" if first.best is None else f"best run, {first.best_method}: {first.best:.3f}"
            lines.append(
                f"split {split}: the capture set-up alone reveals classes: macro-F1 {found} "
                f"(chance {first.chance_macro_f1:.3f}; {top})"
            )
    return lines
