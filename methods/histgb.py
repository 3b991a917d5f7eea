"""Gradient boosting on the first packets' sizes, directions and gaps: what a table of a paper is asked for first."""

from dataclasses import dataclass
from typing import Any

from bench.estimator import EstimatorMethod, first_packets
from bench.method import COUNT, NOT_NEGATIVE, POSITIVE, Inputs, NoParameters, Range, parameter
from bench.readers import View

OURS = "our choice"


@dataclass(frozen=True)
class Parameters(NoParameters):
    """All our choice; rounds, rate and leaves are scikit-learn's defaults.

    The penalty is XGBoost's default.  At scikit-learn's, 0, leaves of vanishing second derivatives grow without bound:
    training accuracy falls to 0.07 on the 27 classes of IoT Sentinel's task ``all``.
    """

    packets: int = parameter(
        32, "packets, from the first, with payload or without", OURS, (8, 16, 32, 64), allowed=COUNT
    )
    rounds: int = parameter(100, "rounds of boosting; each grows a tree for every class", OURS, (50, 100, 200, 400),
                            allowed=COUNT)  # fmt: skip
    rate: float = parameter(
        0.1, "learning rate: share of each tree that is added", OURS, Range(0.02, 0.3, log=True), allowed=POSITIVE
    )
    leaves: int = parameter(31, "leaves of a tree", OURS, (7, 15, 31, 63), allowed=COUNT)
    min_leaf: int = parameter(5, "least training sessions in a leaf", OURS, (1, 5, 20), allowed=COUNT)
    l2: float = parameter(
        1.0, "penalty on the squares of a leaf's values", OURS, (0.1, 1.0, 10.0), allowed=NOT_NEGATIVE
    )


class HistGb(EstimatorMethod):
    """Gradient boosting (scikit-learn's, on histograms) on what is seen of a session without opening its packets."""

    name = "histgb"
    reference = "LightGBM, 2017, as scikit-learn's HistGradientBoostingClassifier; features are ours"
    reads = frozenset({"lengths", "directions", "times"})
    Parameters = Parameters
    presets = {"shared": {"packets": 16}}  # noqa: RUF012
    tiny = {"packets": 8, "rounds": 10}  # noqa: RUF012
    trusted = (
        "sklearn._loss._loss.CyHalfBinomialLoss",
        "sklearn._loss._loss.CyHalfMultinomialLoss",
        "sklearn._loss.link.Interval",
        "sklearn._loss.link.LogitLink",
        "sklearn._loss.link.MultinomialLogit",
        "sklearn._loss.loss.HalfBinomialLoss",
        "sklearn._loss.loss.HalfMultinomialLoss",
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    )

    def represent(self, view: View) -> Inputs:
        """``features`` float32 ``[samples, 3 * packets]``: bytes, directions, log gaps."""
        return {"features": first_packets(view, self.parameters.packets)}

    def estimator(self) -> Any:
        """The boosting: as many rounds as asked, whatever the number of samples.

        Classes are not weighted: with weights scikit-learn takes twenty seconds to bin a hundred features.
        """
        from sklearn.ensemble import HistGradientBoostingClassifier

        p = self.parameters
        return HistGradientBoostingClassifier(
            learning_rate=p.rate,
            max_iter=p.rounds,
            max_leaf_nodes=max(2, p.leaves),
            min_samples_leaf=p.min_leaf,
            l2_regularization=p.l2,
            early_stopping=False,
            random_state=self.random_state,
        )
