"""Gradient boosting by LightGBM on the first packets' sizes, directions and gaps: the library that papers take.

`histgb` is the same on scikit-learn alone; LightGBM is an extra.
"""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bench.estimator import EstimatorMethod, first_packets
from bench.method import COUNT, NOT_NEGATIVE, PART, POSITIVE, Inputs, Monitor, NoParameters, Part, Range, parameter
from bench.readers import View
from bench.schema import StoreTraits

OURS = "our choice"
DEFAULT = "LightGBM's default"


@dataclass(frozen=True)
class Parameters(NoParameters):
    """As `histgb` has them, and the shares of features and sessions that a tree sees."""

    packets: int = parameter(
        32, "packets, from the first, with payload or without", OURS, (8, 16, 32, 64), allowed=COUNT
    )
    rounds: int = parameter(100, "rounds of boosting; each grows a tree for every class", DEFAULT, (50, 100, 200, 400),
                            allowed=COUNT)  # fmt: skip
    rate: float = parameter(
        0.1, "part of each tree that is added", DEFAULT, Range(0.02, 0.3, log=True), allowed=POSITIVE
    )
    leaves: int = parameter(31, "leaves of a tree", DEFAULT, (7, 15, 31, 63), allowed=COUNT)
    min_leaf: int = parameter(5, "least training sessions in a leaf", OURS, (1, 5, 20), allowed=COUNT)
    l2: float = parameter(
        0.0, "penalty on the squares of a leaf's values", DEFAULT, (0.0, 1.0, 10.0), allowed=NOT_NEGATIVE
    )
    features: float = parameter(1.0, "share of the features that a tree may use", DEFAULT, (0.5, 1.0), allowed=PART)
    sessions: float = parameter(1.0, "share of the training sessions of a tree", DEFAULT, (0.5, 1.0), allowed=PART)


class Boosted:
    """A fitted booster, and the class of each of its answers."""

    def __init__(self, text: str, classes: NDArray[np.int64]) -> None:
        import lightgbm

        self.text, self.classes_ = text, classes
        self._booster = lightgbm.Booster(model_str=text)

    def predict_proba(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Float64 ``[samples, classes]`` of float32 ``[samples, features]``."""
        if len(self.classes_) == 1:
            return np.ones((len(features), 1))
        answers = np.asarray(self._booster.predict(features, num_threads=1), np.float64)
        return np.stack([1 - answers, answers], axis=1) if answers.ndim == 1 else answers


class Lgbm(EstimatorMethod):
    """Gradient boosting (LightGBM's) on what is seen of a session without opening its packets."""

    name = "lgbm"
    reference = "Ke et al.: LightGBM, NIPS 2017, 3146-3154; features are ours"
    reads = frozenset({"lengths", "directions", "times"})
    Parameters = Parameters
    presets = {"shared": {"packets": 16}}  # noqa: RUF012
    tiny = {"packets": 8, "rounds": 10}  # noqa: RUF012

    @classmethod
    def skip(cls, traits: StoreTraits) -> str | None:
        """Where LightGBM is not installed."""
        if importlib.util.find_spec("lightgbm") is None:
            return "needs LightGBM; `pip install 'etc-bench[lightgbm]'` brings it"
        return None

    def represent(self, view: View) -> Inputs:
        """``features`` float32 ``[samples, 3 * packets]``: bytes, directions, log gaps."""
        return {"features": first_packets(view, self.parameters.packets)}

    def estimator(self) -> Any:
        """The boosting: as many rounds as asked; the same trees for any number of threads."""
        from lightgbm import LGBMClassifier

        p = self.parameters
        return LGBMClassifier(
            learning_rate=p.rate,
            n_estimators=p.rounds,
            num_leaves=max(2, p.leaves),
            min_child_samples=p.min_leaf,
            reg_lambda=p.l2,
            colsample_bytree=p.features,
            subsample=p.sessions,
            subsample_freq=1,
            random_state=self.random_state % 2**31,  # LightGBM's seeds are signed
            deterministic=True,
            force_row_wise=True,
            verbose=-1,
        )

    def fit(self, train: Part, validation: Part, monitor: Monitor) -> Self:
        """As every estimator; of the fitted one its trees are kept, as text.  Raises :class:`InputError` likewise."""
        super().fit(train, validation, monitor)
        self.model = Boosted(self.model.booster_.model_to_string(), np.asarray(self.model.classes_, np.int64))
        return self

    def save_state(self, folder: Path) -> None:
        """Write ``model.txt``, in LightGBM's own format, and ``classes.json``."""
        (folder / "model.txt").write_text(self.model.text)
        (folder / "classes.json").write_text(json.dumps(self.model.classes_.tolist()) + "\n")

    def load_state(self, folder: Path) -> None:
        """Read what :meth:`save_state` wrote."""
        classes = np.array(json.loads((folder / "classes.json").read_text()), np.int64)
        self.model = Boosted((folder / "model.txt").read_text(), classes)
