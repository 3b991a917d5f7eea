"""The methods built on scikit-learn or on nothing: fit, probabilities, files, seeds, and what they see."""

import json
import warnings

import numpy as np
import pytest
from refusals import refused

from bench.estimator import EstimatorMethod
from bench.method import Monitor, Part, make_parameters
from methods.forest import Forest
from methods.knn import KNearest
from methods.majority import Majority
from methods.ports import Ports

METHODS = [Majority, Ports, KNearest, Forest]
QUICK = {"forest": {"trees": 12, "packets": 8}, "knn": {"packets": 6}}


class ArrayView:
    """A view over arrays: what `bench.readers.View` offers, for sessions of at most ``width`` packets."""

    def __init__(self, lengths, times, server_port, protocol):
        self._lengths, self._times = lengths, times  # signed; 0 where there is no packet
        self._server_port, self._protocol = server_port, protocol

    def __len__(self):
        return len(self._lengths)

    def lengths(self, packets, *, payload_only=False):
        return np.abs(self._lengths[:, :packets]).astype(np.int32)

    def payload_lengths(self, packets, *, payload_only=True):
        return np.maximum(self.lengths(packets) - 40, 0)

    def directions(self, packets, *, payload_only=False):
        return np.sign(self._lengths[:, :packets]).astype(np.int8)

    def times(self, packets, *, payload_only=False):
        return self._times[:, :packets]

    def counts(self, *, payload_only=False):
        return np.count_nonzero(self._lengths, axis=1).astype(np.int32)

    def ports(self):
        return np.stack((np.full(len(self), 50_000), self._server_port), axis=1).astype(np.int32)

    def protocol(self):
        return self._protocol.astype(np.uint8)

    def take(self, rows):
        return ArrayView(self._lengths[rows], self._times[rows], self._server_port[rows], self._protocol[rows])


def toy(sessions=90, classes=3, seed=0):
    """Sessions whose sizes, directions and ports tell the class."""
    draw = np.random.default_rng(seed)
    labels = np.arange(sessions) % classes
    kept = np.arange(10)[None] < draw.integers(4, 11, sessions)[:, None]
    sign = np.where(np.arange(10)[None] % (labels[:, None] + 1) == 0, 1, -1)
    lengths = kept * sign * (100 + 300 * labels[:, None] + draw.integers(0, 200, (sessions, 10)))
    times = np.cumsum(draw.exponential(0.05, (sessions, 10)), axis=1)
    times = (times - times[:, :1]) * kept
    return ArrayView(lengths, times, 400 + labels, np.full(sessions, 6)), labels.astype(np.int64)


def fitted(kind, view, labels, *, classes=3, seed=0):
    method = kind(make_parameters(kind, QUICK.get(kind.name, {})), classes=classes, seed=seed)
    part = Part(method.represent(view), labels)
    return method.fit(part, part, Monitor())


@pytest.fixture(scope="module")
def data():
    return toy()


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.name)
def test_probabilities_are_float32_rows_that_sum_to_one(kind, data):
    view, labels = data
    method = fitted(kind, view, labels)
    probabilities = method.predict_proba(method.represent(view))
    assert probabilities.dtype == np.float32 and probabilities.shape == (len(view), 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert not np.isnan(probabilities).any()  # none abstains


@pytest.mark.parametrize("kind", [Ports, KNearest, Forest], ids=lambda kind: kind.name)
def test_learns_what_it_reads(kind, data):
    view, labels = data
    method = fitted(kind, view, labels)
    other, truth = toy(seed=1)
    assert np.mean(method.predict_proba(method.represent(other)).argmax(axis=1) == truth) > 0.9


@pytest.mark.parametrize("threads", [1, 2])
def test_a_fit_that_does_not_converge_is_told_from_whatever_thread(data, threads, monkeypatch):
    class Short(KNearest):
        def features(self, inputs):
            return data[1][:, None] + np.random.default_rng(0).normal(size=(len(data[1]), 4))

        def estimator(self):
            from sklearn.linear_model import LogisticRegression
            from sklearn.multiclass import OneVsRestClassifier

            return OneVsRestClassifier(LogisticRegression(max_iter=1))

    monkeypatch.setattr("bench.estimator.threads", lambda: threads)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    told, (view, labels) = Monitor(), data
    method = Short(make_parameters(Short, {}), classes=3)
    part = Part(method.represent(view), labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method.fit(part, part, told)
    assert told.facts["not_converged"] == 1


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.name)
def test_a_class_that_training_lacks_keeps_its_column(kind, data):
    view, labels = data
    rows = np.flatnonzero(labels != 1)
    method = fitted(kind, view.take(rows), labels[rows], classes=4)
    probabilities = method.predict_proba(method.represent(view))
    assert probabilities.shape == (len(view), 4)
    assert not probabilities[:, [1, 3]].any()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.name)
def test_saved_and_loaded_it_answers_the_same(kind, data, tmp_path):
    view, labels = data
    method = fitted(kind, view, labels, seed=2**40 + 5)
    method.save(tmp_path)
    again = kind.load(tmp_path)
    inputs = method.represent(view)
    np.testing.assert_array_equal(again.predict_proba(again.represent(view)), method.predict_proba(inputs))
    assert again.seed == method.seed and again.parameters == method.parameters
    assert {p.suffix for p in tmp_path.iterdir()} <= {".json", ".skops"}


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.name)
def test_a_subset_is_represented_as_the_subset_of_the_arrays(kind, data):
    view, _ = data
    method = kind(make_parameters(kind, QUICK.get(kind.name, {})), classes=3)
    rows = np.array([17, 3, 60])
    whole, part = method.represent(view), method.represent(view.take(rows))
    assert all(len(array) == len(view) for array in whole.values())
    for key in whole:
        np.testing.assert_array_equal(whole[key][rows], part[key])


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.name)
def test_nothing_to_predict_gives_no_rows(kind, data):
    view, labels = data
    method = fitted(kind, view, labels)
    empty = method.represent(view.take(np.array([], int)))
    assert method.predict_proba(empty).shape == (0, 3)


def test_majority_answers_the_training_frequencies(data):
    view, _ = data
    labels = np.repeat([0, 2], [60, 30])
    method = fitted(Majority, view, labels)
    np.testing.assert_allclose(method.predict_proba({"nothing": np.zeros(2)}), [[2 / 3, 0, 1 / 3]] * 2, rtol=1e-6)


def test_ports_fall_back_to_the_frequencies_and_tell_protocols_apart():
    method = Ports(classes=2)
    tcp, udp = 6 * 65536 + 443, 17 * 65536 + 443
    method.fit(
        Part({"service": np.array([tcp, tcp, tcp, udp])}, np.array([0, 0, 0, 1])), Part({}, np.array([])), Monitor()
    )
    answers = method.predict_proba({"service": np.array([tcp, udp, 6 * 65536 + 80, 200 * 65536])})
    np.testing.assert_allclose(answers[:, 0], [3.75 / 4, 0.75 / 2, 0.75, 0.75], rtol=1e-6)


def test_ports_take_the_lower_port_for_the_service(data):
    view, _ = data
    swapped = view.take(np.arange(len(view)))
    swapped.ports = lambda: view.ports()[:, ::-1]
    method = Ports(classes=3)
    np.testing.assert_array_equal(method.represent(view)["service"], method.represent(swapped)["service"])


def test_knn_weighs_sizes_directions_and_gaps_as_its_parameters_say():
    view = ArrayView(np.array([[140, -1540, 0]]), np.array([[0.0, 3.0, 0.0]]), np.array([443]), np.array([6]))
    method = KNearest(make_parameters(KNearest, {"packets": 3, "direction_scale": 5}), classes=2)
    np.testing.assert_allclose(method.represent(view)["features"], [[5, -5, 0, 100, 1500, 0, 0, 100, 0]])


def test_forest_features_of_a_session_worked_out_by_hand():
    view = ArrayView(np.array([[60, -1500, 100]]), np.array([[0.0, 0.01, 1.01]]), np.array([443]), np.array([6]))
    method = Forest(make_parameters(Forest, {"packets": 3}), classes=2)
    features = method.represent(view)["features"][0]
    np.testing.assert_allclose(features[:6], [60, -1500, 100, -6, -2, 0], atol=1e-3)
    np.testing.assert_allclose(features[6:8], [3, 1.01])  # packets, seconds
    np.testing.assert_allclose(features[8:14], [160, 80, 20, 1, 0.5, 0.5])  # client: bytes and gaps
    np.testing.assert_allclose(features[14:20], [1500, 1500, 0, 0.01, 0.01, 0], atol=1e-6)  # server
    np.testing.assert_array_equal(features[20:], [1, 1, 0, 0, 0, 0, 0, 0, 0, 1])
    for count, packets in {"session": 3, "kept": 2}.items():
        short = Forest(make_parameters(Forest, {"packets": 2, "count": count}), classes=2)
        assert short.represent(view)["features"][0, 4] == packets


def test_one_seed_one_forest_another_seed_another(data):
    view, labels = data
    noisy = np.random.default_rng(0).permutation(labels)
    answers = [(m := fitted(Forest, view, noisy, seed=s)).predict_proba(m.represent(view)) for s in (7, 7, 8)]
    np.testing.assert_array_equal(answers[0], answers[1])
    assert (answers[0] != answers[2]).any()


def test_the_number_of_threads_does_not_matter(data, monkeypatch):
    view, labels = data
    answers = []
    for threads in (1, 3):
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        method = fitted(Forest, view, labels)
        assert method.model.n_jobs == 1  # what is saved does not depend on the machine
        answers.append(method.predict_proba(method.represent(view)))
    np.testing.assert_array_equal(*answers)


def test_fit_starts_afresh(data):
    view, labels = data
    method = fitted(Forest, view, (labels + 1) % 3)
    part = Part(method.represent(view), labels)
    method.fit(part, part, Monitor())
    fresh = fitted(Forest, view, labels)
    np.testing.assert_array_equal(method.predict_proba(part.inputs), fresh.predict_proba(part.inputs))


class Scaled(EstimatorMethod):
    """A pipeline, as an author may write it."""

    name, reference, family, reads = "scaled", "", "features", frozenset({"lengths"})

    def represent(self, view):
        return {"features": view.lengths(5).astype(float)}

    def estimator(self):
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        return make_pipeline(StandardScaler(), LogisticRegression(random_state=self.random_state))


def test_a_pipeline_works_and_comes_back(data, tmp_path):
    view, labels = data
    method = fitted(Scaled, view, labels)
    method.save(tmp_path)
    inputs = method.represent(view)
    np.testing.assert_array_equal(Scaled.load(tmp_path).predict_proba(inputs), method.predict_proba(inputs))


class Foreign:
    """A type that no method stores."""


def test_a_model_with_a_foreign_type_is_refused_and_saving_it_says_so(data, tmp_path):
    view, labels = data
    method = fitted(Forest, view, labels)
    method.model.stowaway = Foreign()
    with pytest.warns(UserWarning, match=r"holds .*Foreign, and nothing loads it until forest names"):
        method.save_state(tmp_path)
    with refused("wrong-model", "model.skops", "Foreign"):
        Forest(classes=3).load_state(tmp_path)


def test_a_model_of_another_method_is_refused(data, tmp_path):
    view, labels = data
    fitted(Majority, view, labels).save(tmp_path)
    assert json.loads((tmp_path / "method.json").read_text())["method"] == "majority"
    with refused("wrong-model", "majority"):
        Ports.load(tmp_path)
