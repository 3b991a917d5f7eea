"""Random forest on the first packets' signed lengths and gaps, with a few counts and moments."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.estimator import EstimatorMethod, random_forest
from bench.method import COUNT, PART, Inputs, NoParameters, Range, parameter
from bench.readers import View

OURS = "our choice"


@dataclass(frozen=True)
class Parameters(NoParameters):
    """All our choice: the yardstick that a deep method should beat."""

    packets: int = parameter(
        32, "packets, from the first, with payload or without", OURS, (8, 16, 32, 64), allowed=COUNT
    )
    count: str = parameter(
        "session",
        "the feature that counts packets counts those of the session, or the kept ones",
        OURS,
        allowed=("session", "kept"),
    )
    leave_out: str | None = parameter(
        None,
        "lengths, times or directions: made equal for all sessions, to see what they contribute; none: nothing",
        OURS,
        allowed=("lengths", "times", "directions"),
    )
    trees: int = parameter(300, "trees", OURS, Range(100, 500, step=100), allowed=COUNT)
    max_features: float | None = parameter(
        None,
        "share of the features that a split considers; none: the square root of their number",
        OURS,
        Range(0.05, 0.5),
        allowed=PART,
    )
    min_leaf: int = parameter(1, "least training sessions in a leaf", OURS, Range(1, 8), allowed=COUNT)


class Forest(EstimatorMethod):
    """Random forest (Breiman 2001) on what is seen of a session without opening its packets."""

    name = "forest"
    reference = "Random Forests, 2001, doi:10.1023/A:1010933404324; features are ours"
    family = "baseline"
    reads = frozenset({"lengths", "directions", "times"})
    deviations = ()
    Parameters = Parameters
    presets = {  # noqa: RUF012
        "no-lengths": {"leave_out": "lengths"},
        "no-times": {"leave_out": "times"},
        "no-directions": {"leave_out": "directions"},
        "shared": {"packets": 16, "count": "kept"},
    }

    def represent(self, view: View) -> Inputs:
        """``features`` float32 ``[samples, 2 * packets + 24]``: signed bytes, log gaps, statistics."""
        packets, counts = self.parameters.packets, view.counts()
        if self.parameters.count == "kept":
            counts = np.minimum(counts, packets)
        lengths, directions = view.lengths(packets), view.directions(packets)
        times = view.times(packets)
        left = self.parameters.leave_out
        if left == "lengths":
            lengths = np.minimum(lengths, 1)
        elif left == "times":
            times = np.zeros_like(times)
        elif left == "directions":
            directions = np.abs(directions)
        gaps = np.diff(times, axis=1, prepend=times[:, :1]).clip(min=0)  # the step into the padding is negative: 0
        columns = (
            lengths * directions,
            np.log10(gaps + 1e-6),  # a microsecond is the captures' resolution
            counts[:, None],
            times.max(axis=1, initial=0.0)[:, None],
            *(_moments(values, kept) for kept in (directions > 0, directions < 0) for values in (lengths, gaps)),
            *(_shares(lengths, kept) for kept in (directions > 0, directions < 0)),
        )
        return {"features": np.hstack(columns).astype(np.float32)}

    def estimator(self) -> Any:
        """The forest, classes weighted alike."""
        p = self.parameters
        features = "sqrt" if p.max_features is None else p.max_features
        return random_forest(self.random_state, p.trees, max_features=features, min_samples_leaf=p.min_leaf)


def _moments(values: NDArray[Any], kept: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Sum, mean and standard deviation of the kept values of each row, 0 where there are none: ``[rows, 3]``."""
    total = np.where(kept, values, 0).sum(axis=1, dtype=float)
    count = np.maximum(kept.sum(axis=1), 1)
    mean = total / count
    spread = np.sqrt(np.where(kept, (values - mean[:, None]) ** 2, 0.0).sum(axis=1) / count)
    return np.stack((total, mean, spread), axis=1)


def _shares(lengths: NDArray[Any], kept: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How many kept packets of each row are tiny, small, medium, large and full: ``[rows, 5]``."""
    bounds = (0, 80, 250, 600, 1300, np.inf)
    between = [kept & (lengths > low) & (lengths <= high) for low, high in pairwise(bounds)]
    return np.stack([b.sum(axis=1, dtype=float) for b in between], axis=1)
