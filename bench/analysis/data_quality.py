"""What a task's samples give away before any method: copies, equal inputs of different classes, shared groups."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.analysis.audit_record import ClassCount, Duplicates, SplitAudit
from bench.data.store import Store
from bench.method import Inputs
from bench.readers import Ragged, View
from bench.schema import Samples
from bench.spec import SplitSpec
from bench.splits.sampling import count_shared_windows, window_keys
from bench.splits.split import Split, all_samples

FEW_GROUPS: Final = 10  # classes with fewer capture groups are named
PAYLOAD: Final = (16, 256)  # packets and bytes by which samples are compared: the payload that ATVITSC sees
SEEN: Final = {  # column of the table -> what stands behind `test_in_training_`
    "window": "windows",
    "overlapping": "overlapping_windows",
    "neighbour": "neighbours",
    "session": "sessions",
    "5-tuple": "conversations",
    "capture": "capture_groups",
    "payload": "payload",
    "and class": "payload_same_class",
    "QUIC ID": "quic_ids",
    "QUIC on": "quic_continued",
    "twin": "equal_payloads",
}


@dataclass(frozen=True)
class Pool:
    """All samples of a task that its splits draw from."""

    store: Store
    task: str
    samples: Samples  # by session and window
    labels: NDArray[np.int64]  # [samples]

    @classmethod
    def of(cls, store: Store, task: str, spec: SplitSpec) -> "Pool":
        """The samples that filter and sampling leave.  Raises :class:`InputError` where that is none."""
        samples = all_samples(store, task, spec)
        return cls(store, task, samples, np.asarray(store.labels(task))[samples.session].astype(np.int64))

    @cached_property
    def has_payload(self) -> NDArray[np.bool_]:
        """Whether the sample's session has any payload: bool ``[samples]``."""
        return np.asarray(self.store.session("payload_bytes"))[self.samples.session] > 0

    @property
    def compared(self) -> str:
        """By what samples are copies of each other: their payload, else what there is of them."""
        return "payload" if "payload" not in self.store.lacks else " and ".join(self._series)

    @property
    def _series(self) -> list[str]:
        return [name for name in ("lengths", "directions", "times") if name not in self.store.lacks]

    @cached_property
    def payload_keys(self) -> NDArray[np.int64]:
        """Equal where the first payload of two samples is, or what is `compared`: int64 ``[samples]``."""
        if self.compared == "payload":
            return equal_input_keys({"payload": View(self.store, self.samples, {"payload"}).payload(*PAYLOAD)})
        view = View(self.store, self.samples, self._series)
        return equal_input_keys({name: getattr(view, name)(PAYLOAD[0]) for name in self._series})

    def rows(self, part: Samples) -> NDArray[np.int64]:
        """Where a part's samples stand in the pool: int64 ``[samples of the part]``."""
        packets = self.store.session("packets")
        return np.searchsorted(window_keys(self.samples, packets), window_keys(part, packets))


def class_counts(pool: Pool) -> list[ClassCount]:
    """Of each class: samples, sessions, conversations, capture groups."""
    columns = {
        "sessions": pool.samples.session,
        "conversations": np.asarray(pool.store.session("conversation"))[pool.samples.session],
        "captures": pool.store.capture_group()[pool.samples.session],
    }
    counted = []
    for number, name in enumerate(pool.store.classes(pool.task)):
        mine = pool.labels == number
        counts = {kind: len(np.unique(values[mine])) for kind, values in columns.items()}
        counted.append(ClassCount(name, int(mine.sum()), **counts, few=counts["captures"] < FEW_GROUPS))
    return counted


def groups_of_several_classes(pool: Pool) -> dict[str, int]:
    """How many conversations and capture groups have sessions of more than one class."""
    columns = {"conversations": np.asarray(pool.store.session("conversation")), "captures": pool.store.capture_group()}
    counts = {}
    for kind, values in columns.items():
        pairs = np.unique(np.stack([values[pool.samples.session].astype(np.int64), pool.labels]), axis=1)
        counts[kind] = int((np.unique(pairs[0], return_counts=True)[1] > 1).sum())
    return counts


def payload_kinds(store: Store, session: NDArray[np.int64]) -> dict[str, float]:
    """Share of sessions, int64 ``[sessions]``, by what their first 64 payload bytes look like: our choice of rules.

    ``tls``: a TLS record; ``text``: nine tenths printable, so readable by anybody; ``empty``: no payload; ``cut``: the
    capture holds none of it (where there is such); ``other``.  Empty where the store holds no payload.
    """
    if "payload" in store.lacks:
        return {}
    samples = Samples(session, np.zeros_like(session), np.asarray(store.session("packets"), np.int64)[session])
    stream = View(store, samples, {"payload"}).payload_stream(64)
    payload_bytes = np.asarray(store.session("payload_bytes"))[session]
    held = _captured_payload(store, session)
    size = np.minimum(np.maximum(held, 1), 64)
    printable = ((stream >= 0x20) & (stream < 0x7F)) | np.isin(stream, (9, 10, 13))
    inside = np.arange(64) < size[:, None]
    text = (printable & inside).sum(axis=1) >= 0.9 * size
    tls = (stream[:, 0] >= 20) & (stream[:, 0] <= 23) & (stream[:, 1] == 3)
    kinds = {"empty": payload_bytes == 0, "tls": tls, "text": text & ~tls & (held > 0)}
    if (cut := (payload_bytes > 0) & (held == 0)).any():
        kinds["cut"] = cut
    shares = {name: float((marks & ((payload_bytes > 0) | (name == "empty"))).mean()) for name, marks in kinds.items()}
    return shares | {"other": max(0.0, 1 - sum(shares.values()))}


def _captured_payload(store: Store, session: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bytes of payload that captures hold of sessions, int64 ``[sessions]``."""
    captured, ahead, declared = (np.asarray(store.packet(name)) for name in ("captured", "payload", "payload_length"))
    held = np.minimum(np.where(captured > ahead, captured - ahead, 0), declared)
    whole = np.concatenate([[0], np.cumsum(held, dtype=np.int64)])
    first, packets = (np.asarray(store.session(name), np.int64)[session] for name in ("first_packet", "packets"))
    return np.asarray(whole[first + packets] - whole[first], np.int64)


def equal_input_keys(inputs: Inputs) -> NDArray[np.int64]:
    """Int64 ``[samples]``: equal where all arrays of two samples are."""
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(digest, len(numbers)) for digest in _row_digests(inputs)], np.int64)


def _row_digests(inputs: Inputs) -> Iterator[bytes]:
    """SHA-256 of each sample's arrays."""
    arrays = [inputs[name] for name in sorted(inputs)]
    for row in range(len(arrays[0])):
        state = hashlib.sha256()
        for values in arrays:
            inside = values.values[slice(*values.offsets[row : row + 2])] if isinstance(values, Ragged) else values[row]
            state.update(len(np.atleast_1d(inside)).to_bytes(8, "little") + np.ascontiguousarray(inside).tobytes())
        yield state.digest()


def ceiling(keys: NDArray[np.int64], labels: NDArray[np.int64]) -> float | None:
    """The best accuracy of any rule that answers alike for equal keys: each group's most frequent class.

    ``keys`` and ``labels`` are ``[samples]``; None of no sample.

    >>> ceiling(np.array([0, 0, 0, 1]), np.array([4, 4, 1, 0]))
    0.75
    """
    if not len(keys):
        return None
    pairs, counts = np.unique(np.stack([keys, labels]), axis=1, return_counts=True)
    most = np.zeros(keys.max() + 1, np.int64)
    np.maximum.at(most, pairs[0], counts)
    return float(most.sum() / len(keys))


def is_repeated(keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a sample equals another one: bool ``[samples]``."""
    return np.bincount(keys, minlength=1)[keys] > 1


def find_duplicates(keys: NDArray[np.int64], labels: NDArray[np.int64], of: str = "all") -> Duplicates:
    """Shares of samples that equal another one, or one of another class, by ``keys [samples]``; and the ceiling."""
    kinds = np.bincount(np.unique(np.stack([keys, labels]), axis=1)[0], minlength=1)
    number = max(len(keys), 1)
    return Duplicates(
        of=of,
        samples=len(keys),
        repeated=float(is_repeated(keys).sum() / number),
        of_several_classes=float((kinds[keys] > 1).sum() / number),
        ceiling=ceiling(keys, labels),
    )


def audit_split(pool: Pool, split: Split) -> SplitAudit:
    """What training and test part share: windows, groups, and equal payload under the same or any label."""
    keys = pool.payload_keys
    train, test = pool.rows(split.train), pool.rows(split.test)
    both = keys * (pool.labels.max() + 1) + pool.labels
    payload = {"payload": keys, "payload_same_class": both}
    counts = count_shared_windows(split.parts, pool.store.session("packets")) | split.shared
    counts |= {f"test_in_training_{kind}": int(np.isin(k[test], k[train]).sum()) for kind, k in payload.items()}
    return SplitAudit(
        split=split.spec.scheme,
        train=len(split.train),
        validation=len(split.validation),
        test=len(split.test),
        leaky=split.spec.leaky,
        reduced=split.spec.reduced,
        proof=list(split.verified),
        shared={
            f"test_in_training_{kind}": counts[f"test_in_training_{kind}"]
            for kind in SEEN.values()
            if f"test_in_training_{kind}" in counts
        },
        repeated_train=int(is_repeated(keys[train]).sum()),
        repeated_test=int(is_repeated(keys[test]).sum()),
    )
