"""AppScanner: 54 statistics of a flow's packet lengths and a random forest.

V. F. Taylor, R. Spolaor, M. Conti, I. Martinovic: "AppScanner: Automatic Fingerprinting of Smartphone Apps From
Encrypted Network Traffic", EuroS&P 2016, 439-454; "Robust Smartphone App Identification Via Encrypted Network Traffic
Analysis", IEEE TIFS 13(1), 2018, 63-78, which adds the selection of features, the ambiguity detection and the
threshold.  Three public builds were read: the authors' scripts (vftaylor/appscanner, features already extracted),
that of the FlowPrint paper (Thijsvanede/AppScanner) and jmhIcoding/traffic_classification_utils.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from bench.environment import threads
from bench.errors import InputError
from bench.estimator import EstimatorMethod
from bench.method import COUNT, PART, POSITIVE, Inputs, Monitor, NoParameters, Part, parameter
from bench.readers import Ragged, View, offsets_of

STATISTICS: Final = 18  # of one series of lengths
NO_VOTE: Final = 1e-6  # stands for probability 0 in the mean over a session's flows
BLOCK: Final = 1 << 16  # packets whose statistics are worked out at once, about: bounds memory and suits caches


@dataclass(frozen=True)
class Parameters(NoParameters):
    """A session is one flow unless ``burst_gap`` cuts it; the papers' own cuts are the preset ``paper``."""

    packets: int | None = parameter(None, "packets a session, from the first; none: all", "our choice", allowed=COUNT)
    payload_only: bool = parameter(False, "leave out packets without payload", "our choice")
    burst_gap: float | None = parameter(
        None, "seconds without a packet that end a flow; none: a session is one flow", "our choice", allowed=POSITIVE
    )
    min_packets: int | None = parameter(
        None, "packets of the shortest flow that is kept; none: any", "our choice", allowed=COUNT
    )
    max_packets: int | None = parameter(
        None, "packets of the longest flow that is kept; none: any", "our choice", allowed=COUNT
    )
    statistics: str = parameter(
        "population",
        "population (numpy, scipy) or sample (pandas; mean absolute deviation, signed lengths)",
        "our choice; sample: Thijsvanede/AppScanner",
        allowed=("population", "sample"),
    )
    trees: int = parameter(150, "trees", "EuroS&P 2016; Thijsvanede/AppScanner", (100, 150, 300, 600), allowed=COUNT)
    depth: int | None = parameter(None, "levels of a tree; none: all", "our choice", (None, 10, 20, 40), allowed=COUNT)
    min_leaf: int = parameter(1, "least training flows in a leaf", "our choice", (1, 2, 5), allowed=COUNT)
    select: int | None = parameter(
        None, "features kept, by Gini importance in training; none: all", "TIFS 2018: 40", (None, 20, 40), allowed=COUNT
    )
    threshold: float | None = parameter(
        None, "least probability of a flow's class, or it is unknown; none: 0", "TIFS 2018", allowed=PART
    )
    ambiguity: bool = parameter(False, "learn which flows are ambiguous, and leave them out", "TIFS 2018")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_packets is not None and self.max_packets is not None and self.min_packets > self.max_packets:
            raise InputError(
                "bad-parameter", f"parameter min_packets={self.min_packets}: above max_packets={self.max_packets}"
            )


class AppScanner(EstimatorMethod):
    """AppScanner: learns flows, answers for a session by the mean log probability of its flows.

    A session without a flow of the right size, or whose flows are all ambiguous or unknown, is an abstention.
    """

    name: ClassVar[str] = "appscanner"
    reference: ClassVar[str] = "Taylor, Spolaor, Conti, Martinovic: AppScanner, EuroS&P 2016, 439-454; TIFS 13, 2018"
    family: ClassVar[str] = "features"
    reads: ClassVar[frozenset[str]] = frozenset({"lengths", "directions", "times"})
    Parameters: ClassVar[type] = Parameters
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"burst_gap": 1.0, "min_packets": 7, "max_packets": 260},
        "code": {"statistics": "sample", "burst_gap": 1.0, "threshold": 0.9},
        "shared": {"packets": 16},
    }
    tiny: ClassVar[Mapping[str, Any]] = {"trees": 20}
    deviations: ClassVar[tuple[str, ...]] = (
        "a sample is a session, and the whole session, of any size, is one flow; the papers cut at gaps of 1 s and "
        "keep flows of 7 to 260 packets (preset paper)",
        "bursts are cut in each session alone; the papers cut the traffic of the whole device",
        "a session's answer is the mean log probability of its flows; probability 0 counts as 1e-6",
        "the first packet of the session gives the direction; the papers know the device by its address",
        "packets count with or without payload, and retransmissions count too",
        "statistics as numpy and scipy define them (the papers do not say): population variance, biased skewness and "
        "excess kurtosis, linear percentiles; a constant series has skewness and kurtosis 0, an empty one is all "
        "zeros",
        "ambiguity halves the flows, not the sessions: with burst_gap, flows of one session are in both halves",
        "selection, ambiguity and threshold of the 2018 paper are off; the threshold acts on flows, and the features "
        "are selected after the ambiguous flows are found",
        "preset code follows Thijsvanede/AppScanner: 1 s, threshold 0.9, signed lengths, pandas' sample moments and "
        "mean (not median) absolute deviation, no limit on a flow's size; it loses the first packet of a capture, we "
        "do not",
        "the authors' published scripts grow scikit-learn's default forest (10 trees then) on extracted features; the "
        "rebuild in jmhIcoding/traffic_classification_utils replaces the forest by LightGBM: we follow neither",
    )
    columns: NDArray[np.int64]  # the features that the forest sees

    def represent(self, view: View) -> Inputs:
        """``flows``: the flows of each session, ragged, float64 ``[flows, 54]``.

        Minimum, maximum, mean, median absolute deviation, standard deviation, variance, skewness, kurtosis, nine
        percentiles and number of the lengths (bytes) that come in, that go out and of both.
        """
        p = self.parameters
        lengths = view.ragged("lengths", packets=p.packets, payload_only=p.payload_only)
        out = view.ragged("directions", packets=p.packets, payload_only=p.payload_only).values > 0
        begins, session = lengths.offsets[:-1][lengths.sizes > 0], np.flatnonzero(lengths.sizes)
        if p.burst_gap is not None:
            times = view.ragged("times", packets=p.packets, payload_only=p.payload_only).values
            cut = np.diff(np.rint(times * 1e9), prepend=0.0) > p.burst_gap * 1e9  # whole nanoseconds: exact
            cut[begins] = True
            begins, session = np.flatnonzero(cut), lengths.rows[cut]
        flows = Ragged(lengths.values, np.append(begins, len(out)))
        kept = np.flatnonzero(
            (flows.sizes >= (p.min_packets or 1)) & (flows.sizes <= (p.max_packets or np.iinfo(np.int64).max))
        )
        statistics = flow_statistics(flows[kept], Ragged(out, flows.offsets)[kept].values, p.statistics == "sample")
        return {"flows": Ragged(statistics, offsets_of(np.bincount(session[kept], minlength=len(view))))}

    def can_classify(self, inputs: Inputs) -> NDArray[np.bool_]:
        """``[samples]``: False for a session without a flow; of the flows themselves, all."""
        return np.asarray(inputs["flows"].sizes > 0) if "flows" in inputs else super().can_classify(inputs)

    def estimator(self) -> Any:
        """The forest, classes as frequent as they are."""
        from sklearn.ensemble import RandomForestClassifier

        p = self.parameters
        return RandomForestClassifier(
            p.trees,
            max_features="sqrt",
            max_depth=p.depth,
            min_samples_leaf=p.min_leaf,
            random_state=self.random_state,
        )

    def fit(self, train: Part, validation: Part, monitor: Monitor) -> Self:
        """Fit on the flows of the training part.  Raises :class:`InputError` where it has none."""
        flows = train.inputs["flows"]
        if not len(flows.values):
            raise InputError(
                "cannot-train",
                f"{self.name}: no flow of the {len(train)} training sessions is kept; relax the packet limits",
            )
        lifted = Part({"features": flows.values}, train.labels[flows.rows])
        return super().fit(self._with_ambiguous(lifted) if self.parameters.ambiguity else lifted, validation, monitor)

    def _with_ambiguous(self, flows: Part) -> Part:
        """One half of the flows; what a forest of the other half gets wrong has the label ``classes``."""
        known, rest = np.array_split(np.random.default_rng(self.seed).permutation(len(flows)), 2)
        features = flows.inputs["features"]
        if not len(rest):
            raise InputError(
                "cannot-train", f"{self.name}: one training flow cannot be halved; give more or set ambiguity=false"
            )
        forest = self.estimator().set_params(n_jobs=threads()).fit(features[known], flows.labels[known])
        wrong = forest.set_params(n_jobs=1).predict(features[rest]) != flows.labels[rest]
        return Part({"features": features[rest]}, np.where(wrong, self.classes, flows.labels[rest]))

    def before_training(self, train: Part) -> None:
        """Select the features by the Gini importance of a forest of all; ties fall to the earlier one."""
        features, select = train.inputs["features"], self.parameters.select
        self.columns = np.arange(features.shape[1])
        if select is not None:
            forest = self.estimator().set_params(n_jobs=threads()).fit(features, train.labels)
            order = np.argsort(-forest.set_params(n_jobs=1).feature_importances_, kind="stable")
            self.columns = np.sort(order[:select])

    def features(self, inputs: Inputs) -> NDArray[np.float64]:
        """The selected features of flows: ``[flows, features]``."""
        return np.asarray(inputs["features"][:, self.columns])

    def predict_proba(self, inputs: Inputs) -> NDArray[np.float32]:
        """Float32 ``[samples, classes]``: normalised geometric mean over a session's flows; NaN where none counts."""
        flows, known = inputs["flows"], self.model.classes_
        answers = np.zeros((len(flows.values), len(known)))
        if len(answers):  # scikit-learn refuses an empty array
            answers = self.model.predict_proba(self.features({"features": flows.values}))
        clear = (known[answers.argmax(axis=1)] < self.classes) & (
            answers.max(axis=1) >= (self.parameters.threshold or 0.0)
        )
        apps, rows = known[known < self.classes], flows.rows[clear]
        logs = np.log(np.maximum(answers[np.ix_(clear, known < self.classes)], NO_VOTE))
        answered, begins, counts = np.unique(rows, return_index=True, return_counts=True)
        shares = np.exp(np.add.reduceat(logs, begins, axis=0) / counts[:, None])
        probabilities = np.full((len(flows), self.classes), np.nan, np.float32)
        probabilities[answered] = 0.0
        probabilities[np.ix_(answered, apps)] = shares / shares.sum(axis=1, keepdims=True)
        return probabilities

    def save_state(self, folder: Path) -> None:
        """Write ``model.skops`` and ``columns.npy``."""
        super().save_state(folder)
        np.save(folder / "columns.npy", self.columns)

    def load_state(self, folder: Path) -> None:
        """Read what :meth:`save_state` wrote."""
        super().load_state(folder)
        self.columns = np.load(folder / "columns.npy")


def flow_statistics(lengths: Ragged, out: NDArray[np.bool_], sample: bool) -> NDArray[np.float64]:
    """The statistics of incoming, outgoing and all lengths of each flow: float64 ``[flows, 54]``.

    ``lengths`` int ``[packets]`` in bytes; ``out [packets]`` marks those that go out.  ``sample``: pandas' moments,
    mean absolute deviation, and incoming lengths negative.
    """
    result = np.empty((len(lengths), 3 * STATISTICS))
    for first, last in pairwise(_blocks(lengths.offsets)):
        some, outgoing = lengths[first:last], out[lengths.offsets[first] : lengths.offsets[last]]
        values = some.values.astype(np.int64)
        if sample:
            values = np.where(outgoing, values, -values)
        ways = _statistics(values, 2 * some.rows + outgoing, 2 * len(some), sample)
        both = _statistics(values, some.rows, len(some), sample)
        result[first:last] = np.hstack((ways.reshape(len(some), -1), both))
    return result


def _blocks(offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Flows at which to cut, so that blocks of whole flows have about `BLOCK` packets each."""
    return np.unique(np.append(np.searchsorted(offsets, np.arange(0, offsets[-1], BLOCK)), len(offsets) - 1))


def _statistics(values: NDArray[np.int64], series: NDArray[np.int64], count: int, sample: bool) -> NDArray[np.float64]:
    """The statistics of each of ``count`` series, ``[count, 18]``; ``series [N]`` says where a value belongs."""
    sizes = np.bincount(series, minlength=count)
    n = sizes[sizes > 0]
    begins = offsets_of(n)[:-1]
    x = _sorted_within(series, values)
    mean = np.add.reduceat(x, begins) / n
    deviations = x - np.repeat(mean, n)
    squares = deviations * deviations
    second, third, fourth = (np.add.reduceat(d, begins) / n for d in (squares, squares * deviations, squares * squares))
    if sample:
        spread = np.add.reduceat(np.abs(deviations), begins) / n
    else:
        doubled = np.abs(2 * x - np.repeat(_doubled_median(x, begins, n), n))
        spread = _doubled_median(_sorted_within(np.repeat(np.arange(len(n)), n), doubled), begins, n) / 4
    moments = _moments(n, second, third, fourth, sample)
    result = np.zeros((count, STATISTICS))
    result[sizes > 0] = np.column_stack(
        (x[begins], x[begins + n - 1], mean, spread, *moments, _deciles(x, begins, n), n)
    )
    return result


def _sorted_within(series: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Series after series, each sorted: one sort of series and value in one integer; ``values`` within ±2**32."""
    return (np.sort((series << 34) + values + (1 << 33)) & ((1 << 34) - 1)) - (1 << 33)


def _doubled_median(x: NDArray[np.int64], begins: NDArray[np.int64], n: NDArray[np.int64]) -> NDArray[np.int64]:
    """Twice the median of each sorted series, a whole number."""
    result: NDArray[np.int64] = x[begins + (n - 1) // 2] + x[begins + n // 2]
    return result


def _deciles(x: NDArray[np.int64], begins: NDArray[np.int64], n: NDArray[np.int64]) -> NDArray[np.float64]:
    """Percentiles 10 ... 90 of each sorted series, linear between neighbours: ``[series, 9]``."""
    whole, tenths = np.divmod((n - 1)[:, None] * np.arange(1, 10), 10)
    low = x[begins[:, None] + whole]
    return low + (x[begins[:, None] + whole + (tenths > 0)] - low) * (tenths / 10)


def _moments(
    n: NDArray[np.int64],
    second: NDArray[np.float64],
    third: NDArray[np.float64],
    fourth: NDArray[np.float64],
    sample: bool,
) -> tuple[NDArray[np.float64], ...]:
    """Standard deviation, variance, skewness and excess kurtosis from the central moments; 0 where not defined."""
    spread = np.where(second > 0, second, 1.0)
    skewness, kurtosis = third / spread**1.5, np.where(second > 0, fourth / spread**2 - 3, 0.0)
    if sample:  # as pandas: 0 for fewer than two, three or four values
        second = second * n / np.maximum(n - 1, 1)
        skewness = np.where(n > 2, skewness * np.sqrt(n * (n - 1)) / np.maximum(n - 2, 1), 0.0)
        scale = (n - 1) / np.maximum((n - 2) * (n - 3), 1)
        kurtosis = np.where((n > 3) & (second > 0), scale * ((n + 1) * kurtosis + 6), 0.0)
    return np.sqrt(second), second, skewness, kurtosis
