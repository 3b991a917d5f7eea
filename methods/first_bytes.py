"""First bytes: nearest neighbour on a session's first payload bytes, a detector of clear text and of server names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.estimator import EstimatorMethod
from bench.method import COUNT, Inputs, NoParameters, parameter
from bench.readers import View

OURS = "our choice"
SERVER_NAME = 0  # type of the TLS extension that carries it (RFC 6066)
ONE_LEAF = 1 << 31  # sessions at most; a leaf is searched in their order
EXTENSIONS = 64  # as many are looked through at most


@dataclass(frozen=True)
class Parameters(NoParameters):
    """All our choice."""

    bytes: int = parameter(512, "payload bytes of a session, packet after packet", OURS, allowed=COUNT)
    mask_server_name: bool = parameter(False, "set the server name of a TLS ClientHello to zero", OURS)


class FirstBytes(EstimatorMethod):
    """Nearest neighbour (one, by the number of bytes that differ, the earlier training session of several).

    A session without payload is an abstention.
    """

    name: ClassVar[str] = "first-bytes"
    reference: ClassVar[str] = "a shortcut detector, not a published method"
    family: ClassVar[str] = "baseline"
    reads: ClassVar[frozenset[str]] = frozenset({"payload"})
    deviations: ClassVar[tuple[str, ...]] = ()
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"no-server-name": {"mask_server_name": True}}
    Parameters: ClassVar[type] = Parameters
    trusted = (
        "sklearn.metrics._dist_metrics.HammingDistance64",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._ball_tree.BallTree64",
    )

    def represent(self, view: View) -> Inputs:
        """``features`` uint8 ``[samples, bytes]`` and ``held`` bool ``[samples]``: whether there is any payload."""
        features = view.payload_stream(self.parameters.bytes)
        if self.parameters.mask_server_name:
            hide_server_names(features)
        return {"features": features, "held": view.counts(payload_only=True) > 0}

    def can_classify(self, inputs: Inputs) -> NDArray[np.bool_]:
        """``[samples]``: False for a session without payload."""
        return np.asarray(inputs["held"])

    def estimator(self) -> Any:
        """Exhaustive search by a tree of one leaf: there is no order in bytes that a tree could use.

        Sessions are often equally near here.  scikit-learn's brute force leaves it to NumPy which of them comes first,
        and NumPy to the processor: on one machine 0.38 of IoT Sentinel were right, on another 0.42.
        """
        from sklearn.neighbors import KNeighborsClassifier

        return KNeighborsClassifier(1, metric="hamming", algorithm="ball_tree", leaf_size=ONE_LEAF)


def hide_server_names(streams: NDArray[np.uint8]) -> None:
    """Set the server name extension to zero in streams ``[S, bytes]`` that begin with a TLS ClientHello.

    Fields are walked in step for all streams: record (5 bytes), handshake (4), version (2), random (32), then session
    id, cipher suites and compression methods with their lengths, then one extension after the other.
    """
    width = streams.shape[1]
    at = np.zeros(len(streams), np.int64)

    def number(size: int) -> NDArray[np.int64]:
        """Read a number of that many bytes everywhere and step over it; 0 beyond the end."""
        nonlocal at
        value = np.zeros(len(streams), np.int64)
        for _ in range(size):
            byte = np.take_along_axis(streams, np.minimum(at, width - 1)[:, None], 1)[:, 0]
            value, at = value * 256 + np.where(at < width, byte, 0), at + 1
        return value

    hello = (number(1) == 0x16) & (number(1) == 3)
    at = at + 1
    size_of_record = number(2)
    record = at + size_of_record
    hello &= number(1) == 1
    at = at + 3 + 2 + 32
    for size in (1, 2, 1):
        length = number(size)  # apart: `at += number(size)` would add to the place before the step
        at = at + length
    size_of_all = number(2)
    end = np.minimum(at + size_of_all, record)  # extensions end with their block, at the latest with the record
    place = np.arange(width)
    for _ in range(EXTENSIONS):
        hello &= at < np.minimum(end, width)
        if not hello.any():
            break
        kind, length = number(2), number(2)
        named = np.flatnonzero(hello & (kind == SERVER_NAME) & (length > 0))
        inside = (place >= at[named, None]) & (place < (at + length)[named, None])
        streams[named] = np.where(inside, 0, streams[named])
        at = at + length
