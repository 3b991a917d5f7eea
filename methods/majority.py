"""Majority: the training part's class frequencies, whatever the session."""

import json
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from bench.method import Inputs, Method, Monitor, Part
from bench.readers import View


class Majority(Method):
    """Answers the class frequencies of the training part; what every other method has to beat."""

    name = "majority"
    reference = "a floor, not a published method"
    family = "baseline"
    reads: ClassVar[frozenset[str]] = frozenset()
    deviations = ()

    frequencies: NDArray[np.float64]  # [classes], sums to 1

    def represent(self, view: View) -> Inputs:
        """``nothing`` uint8 ``[samples]``, all zero: it only says how many samples there are."""
        return {"nothing": np.zeros(len(view), np.uint8)}

    def fit(self, train: Part, validation: Part, monitor: Monitor) -> Self:
        """Count the classes."""
        counts = np.bincount(train.labels, minlength=self.classes)
        self.frequencies = counts / counts.sum()
        return self

    def predict_proba(self, inputs: Inputs) -> NDArray[np.float32]:
        """Float32 ``[samples, classes]``, every row the same."""
        return np.tile(self.frequencies.astype(np.float32), (len(inputs["nothing"]), 1))

    def save_state(self, folder: Path) -> None:
        """Write ``frequencies.json``."""
        (folder / "frequencies.json").write_text(json.dumps(self.frequencies.tolist()) + "\n")

    def load_state(self, folder: Path) -> None:
        """Read ``frequencies.json``."""
        self.frequencies = np.array(json.loads((folder / "frequencies.json").read_text()))
