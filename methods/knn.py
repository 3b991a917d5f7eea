"""k-NN: nearest neighbour on the first packets' sizes, directions and gaps, without any learning."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.estimator import EstimatorMethod
from bench.method import COUNT, Inputs, NoParameters, Range, parameter
from bench.readers import View

CODE = "authors' code (CESNET/tc-transfer, input_space_baseline.py)"


@dataclass(frozen=True)
class Parameters(NoParameters):
    """Defaults are those of the authors' code; the paper then tunes them for each data set."""

    packets: int = parameter(10, "packets with payload, from the first", CODE, Range(3, 30), allowed=COUNT)
    neighbours: int = parameter(
        1, "nearest training sessions that vote, with equal weights", CODE, Range(1, 15, step=2), allowed=COUNT
    )
    direction_scale: float = parameter(1.0, "weight of a direction (±1) relative to a byte", CODE, Range(0.0, 500.0))
    interval_scale: float = parameter(
        0.1, "weight of a millisecond relative to a byte", CODE, Range(0.001, 1.0, log=True)
    )
    interval_clip: float = parameter(1000.0, "longest gap that counts, ms", CODE, Range(10.0, 10000.0, log=True))


class KNearest(EstimatorMethod):
    """The input-space baseline: L1 distance between packet sequences (arXiv 2506.08655)."""

    name = "knn"
    reference = "When Simple Model Just Works: Is Network Traffic Classification in Crisis?, 2025, arXiv:2506.08655"
    family = "baseline"
    reads = frozenset({"payload_lengths", "directions", "times"})
    deviations = (
        "parameters are not tuned for each data set unless `bench tune` does it",
        "a packet's size is its payload length; packets without payload are left out (our choice)",
    )
    Parameters = Parameters
    presets = {"shared": {"packets": 16}}  # noqa: RUF012

    def represent(self, view: View) -> Inputs:
        """``features`` float32 ``[samples, 3 * packets]``: directions, payload bytes, gaps; weighted, 0 padded."""
        p = self.parameters
        times = view.times(p.packets, payload_only=True)
        gaps = np.diff(times, axis=1, prepend=times[:, :1]) * 1000.0
        columns = (
            view.directions(p.packets, payload_only=True) * p.direction_scale,
            view.payload_lengths(p.packets, payload_only=True).clip(0, 1500),
            gaps.clip(0, p.interval_clip) * p.interval_scale,  # the step into the padding is negative: 0
        )
        return {"features": np.hstack(columns).astype(np.float32)}

    def estimator(self) -> Any:
        """Exhaustive search: exact, and ties fall to the earlier training session."""
        from sklearn.neighbors import KNeighborsClassifier

        return KNeighborsClassifier(self.parameters.neighbours, metric="manhattan", algorithm="brute")
