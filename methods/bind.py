"""BIND: histograms of packets, of bursts and of pairs of neighbouring bursts, and a support vector machine.

K. Al-Naami, S. Chandra, A. Mustafa, L. Khan, Z. Lin, K. Hamlen, B. Thuraisingham: "Adaptive Encrypted Traffic
Fingerprinting With Bi-Directional Dependence", ACSAC 2016, 177-188.  "Code" below is the authors' own
(khaled-alnaami/NetworkTrafficFingerprinting, AdversarialClassifierBiDirectionFeaturesOnly.py).

A burst is a maximal run of packets in one direction.  Every value of a family (a packet's length, a burst's size, ...)
is one whole number; a session is the number of times that each value known from training occurs in it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from bench.errors import InputError
from bench.estimator import EstimatorMethod
from bench.method import COUNT, POSITIVE, Inputs, Monitor, NoParameters, Part, Range, parameter, take
from bench.readers import Ragged, View
from bench.splits.assignment import rank_in_class

CODE = "authors' code"
OURS = "our choice"
LARGEST: Final = 2**30 - 1  # the largest size or time, in bins, that is told apart: two of them fit into 63 bits
SCORED: Final = 1024  # sessions scored at once: bounds the memory of dense features
CACHE: Final = 500  # MB of kernel values that the SVM may keep
VALUES: Final = "values.json"

#: lengths of packets; size, time and packets of bursts; sizes and times of pairs of neighbouring bursts
FAMILIES: Final = ("packet", "size", "time", "count", "up_down_size", "up_down_time", "down_up_size", "down_up_time")

#: what a burst of so many packets counts as; longer ones as they are
GROUPS: Final = np.array([0, 1, 2, 3, 3, 3, 6, 6, 6, 9, 9, 9, 9, 9])
LOOKED_UP = 1 << 20  # codes below this are looked up in a table, others searched for


@dataclass(frozen=True)
class Parameters(NoParameters):
    """The authors' code where it speaks."""

    packets: int | None = parameter(None, "packets a session, from the first; none: all", OURS, allowed=COUNT)
    payload_only: bool = parameter(False, "leave out packets without payload", CODE)
    size_bin: int = parameter(
        600, "bytes: sizes of bursts are rounded to multiples of this", CODE, (1, 16, 32, 64, 128, 600), allowed=COUNT
    )
    time_bin: float = parameter(
        0.001,
        "seconds: times of bursts are rounded to multiples of this",
        CODE,
        (0.001, 0.01, 0.1, 1.0),
        allowed=POSITIVE,
    )
    vocabulary: int = parameter(
        512, "values of a family that are kept, the most frequent in training", OURS, (128, 512, 2048), allowed=COUNT
    )
    sessions: int | None = parameter(
        20_000, "training sessions to learn from, divided over classes as in training; none: all", OURS, allowed=COUNT
    )
    classifier: str = parameter(
        "svm", "svm, forest or boosted", CODE, ("svm", "forest", "boosted"), allowed=("svm", "forest", "boosted")
    )
    cost: float = parameter(2.0**17, "C of the SVM", CODE, Range(2.0**5, 2.0**20, log=True), allowed=POSITIVE)
    gamma: float = parameter(
        2.0**-19, "gamma of the SVM's RBF kernel", CODE, Range(2.0**-25, 2.0**-5, log=True), allowed=POSITIVE
    )
    trees: int = parameter(100, "trees of the forest, rounds of the boosted trees", CODE, allowed=COUNT)


class Bind(EstimatorMethod):
    """BIND without ADABIND, the paper's retraining over time.  A session without packets is an abstention."""

    name: ClassVar[str] = "bind"
    reference: ClassVar[str] = "Al-Naami, Chandra, Mustafa, Khan, Lin, Hamlen, Thuraisingham: ACSAC 2016, 177-188"
    family: ClassVar[str] = "features"
    reads: ClassVar[frozenset[str]] = frozenset({"lengths", "directions", "times"})
    Parameters: ClassVar[type] = Parameters
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fine": {"size_bin": 1, "time_bin": 0.01},  # as rebuilt in jmhIcoding/traffic_classification_utils
        "forest": {"classifier": "forest"},
        "boosted": {"classifier": "boosted"},
        "shared": {"packets": 16},
    }
    tiny: ClassVar[Mapping[str, Any]] = {"vocabulary": 64, "trees": 20}
    deviations: ClassVar[tuple[str, ...]] = (
        "a sample is a session; the paper's is a trace of a web page or of an app",
        "length is the IP packet's, without the code's 14 bytes of Ethernet; every kept packet counts, pure ACKs too",
        "the first packet of the session gives the direction; the code finds the server by its port",
        "a burst's time is rounded once, to 1 ms; the code rounds each packet's time to 1 ms and subtracts",
        "uni-burst count is the histogram of packets a burst, grouped as in the code (4, 5 count as 3; 7, 8 as 6; "
        "10 to 13 as 9)",
        "at most 512 values of a family, the most frequent in training (the code keeps every value of training and "
        "test); values that do not occur in training are dropped",
        "the SVM learns from at most 20,000 sessions, drawn by class with the method's seed, because its time grows "
        "with their square; the vocabulary is learned from the same sessions",
        "the SVM's probabilities are the softmax of its one-vs-rest decision function (silent): they rank the classes "
        "as the SVM does, but for votes that are equal, and are not calibrated",
        "classifier=forest is the code's random forest of 100 trees, for its open world; boosted trees are ours",
        "ADABIND, retraining when the traffic drifts, is left out",
    )
    trusted = ("scipy.sparse._csr.csr_matrix", "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor")
    values: Mapping[str, NDArray[np.int64]]  # of each family, those that count; sorted

    def represent(self, view: View) -> Inputs:
        """Codes of every value that occurs, by family: ragged, int64.

        The lowest bit of a packet's or a burst's code is 1 for the client's; a pair's code is the first burst's
        size or time times 2**31 and the second's.  Sizes and times are counted in bins.
        """
        p = self.parameters
        lengths = view.ragged("lengths", packets=p.packets, payload_only=p.payload_only)
        up = view.ragged("directions", packets=p.packets, payload_only=p.payload_only).values > 0
        times = view.ragged("times", packets=p.packets, payload_only=p.payload_only).values
        return families(lengths, up, np.rint(times * 1e9).astype(np.int64), p.size_bin, round(p.time_bin * 1e9) or 1)

    def can_classify(self, inputs: Inputs) -> NDArray[np.bool_]:
        """``[samples]``: False for a session without packets."""
        return np.asarray(inputs["packet"].sizes > 0)

    def fit(self, train: Part, validation: Part, monitor: Monitor) -> Self:
        """Fit on at most ``sessions`` of the training part that have packets."""
        usable, most = np.flatnonzero(self.can_classify(train.inputs)), self.parameters.sessions
        if most is not None and len(usable) > most:
            usable = usable[drawn(train.labels[usable], most, np.random.default_rng(self.seed))]
        return super().fit(Part(take(train.inputs, usable), train.labels[usable]), validation, monitor)

    def before_training(self, train: Part) -> None:
        """Learn the values that count: the most frequent of each family, of equally frequent ones the smallest."""
        if self.parameters.classifier == "svm" and len(np.unique(train.labels)) < 2:
            raise InputError(
                "cannot-train", f"{self.name}: training holds one class, and an SVM needs two; set classifier=forest"
            )
        self.values = {}
        for name in FAMILIES:
            values, counts = np.unique(train.inputs[name].values, return_counts=True)
            self.values[name] = np.sort(values[np.argsort(-counts, kind="stable")[: self.parameters.vocabulary]])

    def features(self, inputs: Inputs) -> Any:
        """How often each value that counts occurs: float64 CSR ``[samples, values]``; dense for boosted trees."""
        from scipy.sparse import csr_matrix

        samples, width = len(inputs["packet"]), sum(map(len, self.values.values()))
        kind = np.dtype("int32" if samples * width < 2**31 else "int64")  # half the size sorts in half the time
        places, begin = [], 0
        for name in FAMILIES:
            codes, values = inputs[name], self.values[name]
            at = columns_of(codes.values, values)
            rows = np.repeat((np.arange(samples) * width + begin).astype(kind), codes.sizes)
            places.append((rows + at)[at >= 0])
            begin += len(values)
        place = np.sort(np.concatenate(places))  # faster than scipy's way from unsorted entries
        first = np.flatnonzero(np.diff(place, prepend=-1))
        times, place = np.diff(first, append=len(place)).astype(float), place[first]
        begins = np.searchsorted(place, np.arange(samples + 1) * width)
        counts = csr_matrix((times, place % max(width, 1), begins), shape=(samples, width))
        return counts.toarray() if self.parameters.classifier == "boosted" else counts

    def estimator(self) -> Any:
        """The classifier, classes as frequent as they are."""
        p = self.parameters
        if p.classifier == "svm":
            from sklearn.svm import SVC

            shape = {"decision_function_shape": "ovr", "break_ties": True}  # whose arg max is what `predict` says
            return SVC(C=p.cost, gamma=p.gamma, cache_size=CACHE, random_state=self.random_state, **shape)
        from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

        if p.classifier == "forest":
            return RandomForestClassifier(p.trees, random_state=self.random_state)
        return HistGradientBoostingClassifier(max_iter=p.trees, random_state=self.random_state)

    def predict_proba(self, inputs: Inputs) -> NDArray[np.float32]:
        """Float32 ``[samples, classes]``; 0 for a class that training did not hold, NaN for abstentions."""
        answered = np.flatnonzero(self.can_classify(inputs))
        probabilities = np.full((len(inputs["packet"]), self.classes), np.nan, np.float32)
        probabilities[answered] = 0.0
        for start in range(0, len(answered), SCORED):
            rows = answered[start : start + SCORED]
            features = self.features(take(inputs, rows))
            probabilities[np.ix_(rows, self.model.classes_)] = self._shares(features)
        return probabilities

    def _shares(self, features: Any) -> NDArray[np.float64]:
        """Probabilities of the classes that training held: ``[samples, classes held]``."""
        if self.parameters.classifier != "svm":
            return np.asarray(self.model.predict_proba(features))
        scores = self.model.decision_function(features)
        if scores.ndim == 1:  # two classes: the second's side of the one plane
            scores = np.stack((np.zeros(len(scores)), scores), axis=1)
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    def save_state(self, folder: Path) -> None:
        """Write ``model.skops`` and ``values.json``."""
        super().save_state(folder)
        (folder / VALUES).write_text(json.dumps({name: values.tolist() for name, values in self.values.items()}))

    def load_state(self, folder: Path) -> None:
        """Read what :meth:`save_state` wrote."""
        super().load_state(folder)
        values = json.loads((folder / VALUES).read_text())
        self.values = {name: np.array(values[name], np.int64) for name in FAMILIES}


def columns_of(codes: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int32]:
    """Place of each code among sorted ``values``, -1 where it is none of them: int32 ``[codes]``."""
    last = values[-1] if len(values) else -1
    if last >= LOOKED_UP:
        at = np.searchsorted(values, codes)
        return np.where(np.append(values, -1)[at] == codes, at, -1).astype(np.int32)
    table = np.full(last + 2, -1, np.int32)
    table[values] = np.arange(len(values))
    return table[np.minimum(codes, last + 1)]


def drawn(labels: NDArray[np.int64], most: int, draw: np.random.Generator) -> NDArray[np.int64]:
    """Rows of ``labels [N]``, sorted: ``most`` of them, each class its share and at least one if there is room."""
    order, rank, sizes = rank_in_class(labels, draw.permutation(len(labels)))
    return np.sort(order[np.argsort(rank / np.repeat(sizes, sizes), kind="stable")[:most]])


def families(
    lengths: Ragged, up: NDArray[np.bool_], times: NDArray[np.int64], size_bin: int, time_bin: int
) -> dict[str, Ragged]:
    """The codes of every value, by family (see :meth:`Bind.represent`).

    ``lengths`` in bytes, ``up [N]`` marks the client's packets, ``times [N]`` and ``time_bin`` in nanoseconds.
    """
    n = len(up)
    change = np.ones(n + 1, bool)  # where a burst begins; the end counts as a beginning
    change[1:n] = up[1:] != up[:-1]
    change[lengths.offsets] = True
    ends = np.flatnonzero(change)
    begins, counts = ends[:-1], np.diff(ends)
    bursts = np.searchsorted(begins, lengths.offsets)  # the offsets of each session's bursts
    volume = np.append(0, np.cumsum(lengths.values, dtype=np.int64))
    size = _rounded(volume[ends[1:]] - volume[begins], size_bin)
    time = _rounded(times[ends[1:] - 1] - times[begins], time_bin)
    grouped = np.where(counts < len(GROUPS), GROUPS[np.minimum(counts, len(GROUPS) - 1)], counts)
    way = up[begins]
    followed = np.ones(len(begins), bool)  # by another burst of its session
    followed[bursts[1:][np.diff(bursts) > 0] - 1] = False
    codes = {
        "packet": Ragged(2 * lengths.values.astype(np.int64) + up, lengths.offsets),
        "size": Ragged(2 * size + way, bursts),
        "time": Ragged(2 * time + way, bursts),
        "count": Ragged(2 * grouped + way, bursts),
    }
    for name, pairs in {"up_down": np.flatnonzero(followed & way), "down_up": np.flatnonzero(followed & ~way)}.items():
        offsets = np.searchsorted(pairs, bursts)
        for kind, values in {"size": size, "time": time}.items():
            codes[f"{name}_{kind}"] = Ragged((values[pairs] << 31) | values[pairs + 1], offsets)
    return codes


def _rounded(values: NDArray[np.int64], bin: int) -> NDArray[np.int64]:
    """To the nearest bin, half a bin up; at most `LARGEST`."""
    return np.minimum((2 * values + bin) // (2 * bin), LARGEST)
