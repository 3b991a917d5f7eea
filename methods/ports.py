"""Ports: the classes that training saw on the same transport protocol and service port."""

import json
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bench.method import Inputs, Method, Monitor, Part
from bench.readers import View

PORTS = 1 << 16


class Ports(Method):
    """Class frequencies by protocol and port: a detector of data sets that give their classes away by port.

    The service's port is the lower of a session's two, because a capture that starts in the middle of a
    session takes the server for the client.
    """

    name = "ports"
    reference = "a shortcut detector, not a published method"
    family = "baseline"
    reads = frozenset({"ports", "protocol"})
    deviations = ()

    services: NDArray[np.int64]  # sorted, [services]: protocol * 65536 + port
    table: NDArray[np.float64]  # [services + 1, classes]; the last row answers for a service never seen

    def represent(self, view: View) -> Inputs:
        """``service`` int64 ``[samples]``: protocol * 65536 + the lower port."""
        return {"service": view.protocol().astype(np.int64) * PORTS + view.ports().min(axis=1)}

    def fit(self, train: Part, validation: Part, monitor: Monitor) -> Self:
        """Count the classes of each service, and one sample of the overall frequencies with them."""
        counts = np.bincount(train.labels, minlength=self.classes)
        self.services, row = np.unique(train.inputs["service"], return_inverse=True)
        self.table = np.tile(counts / counts.sum(), (len(self.services) + 1, 1))
        np.add.at(self.table, (row, train.labels), 1)
        self.table /= self.table.sum(axis=1, keepdims=True)
        return self

    def predict_proba(self, inputs: Inputs) -> NDArray[np.float32]:
        """Float32 ``[samples, classes]``."""
        row = np.searchsorted(self.services, inputs["service"])
        seen = np.append(self.services, -1)[row] == inputs["service"]
        return self.table[np.where(seen, row, -1)].astype(np.float32)

    def save_state(self, folder: Path) -> None:
        """Write ``ports.json``."""
        state = {"services": self.services.tolist(), "table": self.table.tolist()}
        (folder / "ports.json").write_text(json.dumps(state) + "\n")

    def load_state(self, folder: Path) -> None:
        """Read ``ports.json``."""
        state = json.loads((folder / "ports.json").read_text())
        self.services = np.array(state["services"], np.int64)
        self.table = np.array(state["table"])
