"""Logistic regression on the first packets' sizes, directions and gaps: what a straight line can tell apart."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.estimator import EstimatorMethod, first_packets
from bench.method import COUNT, POSITIVE, Inputs, NoParameters, Range, parameter
from bench.readers import View

OURS = "our choice"
CLOSE = 1e-6  # gradient at the end; at scikit-learn's own 1e-4 answers hang on how a machine rounds


@dataclass(frozen=True)
class Parameters(NoParameters):
    """All our choice."""

    packets: int = parameter(
        32, "packets, from the first, with payload or without", OURS, (8, 16, 32, 64), allowed=COUNT
    )
    strength: float = parameter(
        1.0, "inverse of the penalty on the squares of the weights", OURS, Range(1e-3, 1e2, log=True), allowed=POSITIVE
    )
    iterations: int = parameter(3000, "most steps of the solver (L-BFGS)", OURS, allowed=COUNT)


class LogReg(EstimatorMethod):
    """Logistic regression on what is seen of a session without opening its packets, scaled on the training part."""

    name = "logreg"
    reference = "Cox: The regression analysis of binary sequences, 1958; features are ours"
    reads = frozenset({"lengths", "directions", "times"})
    Parameters = Parameters
    presets = {"shared": {"packets": 16}}  # noqa: RUF012
    tiny = {"packets": 8}  # noqa: RUF012

    def represent(self, view: View) -> Inputs:
        """``features`` float32 ``[samples, 3 * packets]``: bytes, directions, log gaps."""
        return {"features": first_packets(view, self.parameters.packets)}

    def features(self, inputs: Inputs) -> Any:
        """The same as float64, in which the solver gets as close as it is asked to."""
        return inputs["features"].astype(np.float64)

    def estimator(self) -> Any:
        """Scaler and regression, classes weighted alike; in float64, to the optimum, of which there is one."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        p = self.parameters
        regression = LogisticRegression(
            C=p.strength,
            max_iter=p.iterations,
            tol=CLOSE,
            class_weight="balanced",
            random_state=self.random_state,
        )
        return make_pipeline(StandardScaler(), regression)
