"""BIND against a loop over packets; the vocabulary, each classifier, the cap on training, files."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from bench.method import Monitor, Part, make_parameters
from bench.readers import Ragged, View, offsets_of
from bench.schema import Samples
from methods.bind import FAMILIES, LARGEST, Bind, drawn

FINE = Bind.presets["fine"]
GROUPED = {4: 3, 5: 3, 7: 6, 8: 6, 10: 9, 11: 9, 12: 9, 13: 9}


def view_of(make_store, sessions):
    """A view of sessions of (signed length, microseconds since the packet before); + is the client's."""
    sizes = [len(session) for session in sessions]
    signed = np.array([length for session in sessions for length, _ in session], np.int64)
    time = [
        10**18 + 1000 * sum(gap for _, gap in session[: i + 1]) for session in sessions for i in range(len(session))
    ]
    columns = {"length": np.abs(signed), "direction": np.sign(signed), "time": np.array(time, np.int64)}
    store = make_store({"packets": sizes, "first_packet": offsets_of(sizes)[:-1]}, columns)
    rows = np.arange(len(sizes))
    return View(store, Samples(rows, np.zeros_like(rows), np.array(sizes, np.int64)), Bind.reads)


def rounded(value, bin):
    return min(int(value / bin + 0.5), LARGEST)


def obvious(session, size_bin=600, time_bin=1000):
    """The codes of one session, packet by packet; times in microseconds."""
    codes, bursts, now = {name: [] for name in FAMILIES}, [], 0
    for length, gap in session:
        now += gap
        codes["packet"].append(2 * abs(length) + (length > 0))
        if bursts and bursts[-1]["up"] == (length > 0):
            bursts[-1]["size"] += abs(length)
            bursts[-1]["end"] = now
            bursts[-1]["packets"] += 1
        else:
            bursts.append({"up": length > 0, "size": abs(length), "begin": now, "end": now, "packets": 1})
    before = None
    for burst in bursts:
        size, time = rounded(burst["size"], size_bin), rounded(burst["end"] - burst["begin"], time_bin)
        codes["size"].append(2 * size + burst["up"])
        codes["time"].append(2 * time + burst["up"])
        codes["count"].append(2 * GROUPED.get(burst["packets"], burst["packets"]) + burst["up"])
        if before is not None:
            order = "down_up" if burst["up"] else "up_down"
            codes[f"{order}_size"].append(before[0] * 2**31 + size)
            codes[f"{order}_time"].append(before[1] * 2**31 + time)
        before = (size, time)
    return codes


def method(classes=3, seed=0, **values):
    return Bind(make_parameters(Bind, {"trees": 5} | values), classes=classes, seed=seed)


def toy(sessions=60, seed=0):
    """Inputs whose packets tell one of three classes."""
    draw = np.random.default_rng(seed)
    labels = np.arange(sessions) % 3
    inputs = {
        name: Ragged(
            np.concatenate([draw.integers(0, 6, 6) + 3 * label for label in labels]), np.arange(sessions + 1) * 6
        )
        for name in FAMILIES
    }
    return inputs, labels


def pick(inputs, rows):
    return {name: values[rows] for name, values in inputs.items()}


def fitted(inputs, labels, monitor=None, **values):
    part = Part(inputs, labels)
    return method(**values).fit(part, part, monitor or Monitor())


def test_the_worked_example_of_the_specification(make_store):
    session = [(100, 0), (-1500, 10_000), (-1500, 20_000), (60, 20_000), (-40, 150_000)]
    found = {n: codes.values.tolist() for n, codes in method(**FINE).represent(view_of(make_store, [session])).items()}
    ways = {name: [divmod(code, 2) for code in found[name]] for name in ("packet", "size", "time", "count")}
    assert ways["packet"] == [(100, 1), (1500, 0), (1500, 0), (60, 1), (40, 0)]
    assert ways["size"] == [(100, 1), (3000, 0), (60, 1), (40, 0)]
    assert ways["time"] == [(0, 1), (2, 0), (0, 1), (0, 0)]  # hundredths of a second
    assert ways["count"] == [(1, 1), (2, 0), (1, 1), (1, 0)]
    pairs = {name: [divmod(code, 2**31) for code in found[name]] for name in FAMILIES if "_" in name}
    assert pairs["up_down_size"] == [(100, 3000), (60, 40)]
    assert pairs["down_up_size"] == [(3000, 60)]
    assert pairs["up_down_time"] == [(0, 2), (0, 0)]
    assert pairs["down_up_time"] == [(2, 0)]


packets = st.tuples(
    st.sampled_from([40, 300, 900, 1500, 2**31 - 1]), st.booleans(), st.sampled_from([0, 499, 500, 7000])
)
sessions = st.lists(st.lists(packets, min_size=1, max_size=20), min_size=1, max_size=5)


@settings(max_examples=40)
@given(sessions=sessions, bins=st.sampled_from([(600, 0.001), (1, 0.01), (64, 1.0), (1, 1e-6)]))
def test_the_codes_are_those_of_a_loop_over_packets(make_store, sessions, bins):
    signed = [[(length if up else -length, gap) for length, up, gap in session] for session in sessions]
    found = method(size_bin=bins[0], time_bin=bins[1]).represent(view_of(make_store, signed))
    expected = [obvious(session, bins[0], round(bins[1] * 1e6)) for session in signed]
    assert tuple(found) == FAMILIES
    for name in FAMILIES:
        assert found[name].values.dtype == np.int64 and (found[name].values >= 0).all()
        assert found[name].sizes.tolist() == [len(codes[name]) for codes in expected]
        assert found[name].values.tolist() == [code for codes in expected for code in codes[name]]


def test_one_packet_and_none(make_store):
    view = view_of(make_store, [[(100, 0)], [], [(-100, 0)]])
    found = method().represent(view)
    assert {name: codes.sizes.tolist() for name, codes in found.items()} == {
        name: [0, 0, 0] if "_" in name else [1, 0, 1] for name in FAMILIES
    }
    fit = fitted(found, np.array([0, 1, 2]))  # the session without packets trains nothing
    probabilities = fit.predict_proba(found)
    assert np.isnan(probabilities[:, 0]).tolist() == [False, True, False]
    assert probabilities[[0, 2]].argmax(1).tolist() == [0, 2] and fit.model.classes_.tolist() == [0, 2]


def test_the_first_packets_and_those_with_payload(make_store):
    view = view_of(make_store, [[(100, 0), (-200, 5), (300, 5)]])
    assert method(packets=2).represent(view)["packet"].values.tolist() == [201, 400]
    assert method(payload_only=True).represent(view)["packet"].sizes.tolist() == [0]  # this store holds no payload


def test_the_vocabulary_is_the_most_frequent_values_of_training():
    codes = np.array([5, 5, 9, 9, 9, 7, 3, 3, 8])
    inputs = {name: Ragged(codes, np.array([0, 4, 9])) for name in FAMILIES}
    fit = fitted(inputs, np.array([0, 1]), vocabulary=3)
    assert {name: values.tolist() for name, values in fit.values.items()} == {name: [3, 5, 9] for name in FAMILIES}
    few = fitted(inputs, np.array([0, 1]), vocabulary=4)
    assert few.values["size"].tolist() == [3, 5, 7, 9]  # of those seen once, the smallest


def test_features_count_what_training_knows():
    codes = Ragged(np.array([5, 5, 9, 4, 100, 9]), np.array([0, 4, 4, 6]))
    learner = method()
    learner.values = dict.fromkeys(FAMILIES, np.array([], np.int64)) | {
        "packet": np.array([5, 9]),
        "down_up_time": np.array([4, 100]),
    }
    found = learner.features(dict.fromkeys(FAMILIES, codes))
    assert found.format == "csr"
    assert found.toarray().tolist() == [[2, 1, 1, 0], [0, 0, 0, 0], [0, 1, 0, 1]]


def test_the_svm_is_that_of_the_authors():
    svm = Bind(classes=2, seed=3).estimator()
    assert (svm.C, svm.gamma, svm.kernel, svm.class_weight) == (131072.0, 0.0000019073486328125, "rbf", None)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_most_likely_class_is_what_the_svm_predicts(classes):
    inputs, labels = toy()
    rows = np.flatnonzero(labels < classes)
    fit = fitted(pick(inputs, rows), labels[rows], gamma=0.01, cost=1.0)
    other, _ = toy(seed=1)
    probabilities = fit.predict_proba(other)
    np.testing.assert_array_equal(probabilities.argmax(1), fit.model.predict(fit.features(other)))
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
    assert not probabilities[:, classes:].any()


@pytest.mark.parametrize("classifier", ["svm", "forest", "boosted"])
def test_each_classifier_learns_and_comes_back(classifier, tmp_path, monkeypatch):
    inputs, labels = toy(150)
    fit = fitted(inputs, labels, classifier=classifier, trees=10, gamma=0.001)
    other, truth = toy(seed=1)
    probabilities = fit.predict_proba(other)
    assert (probabilities.argmax(1) == truth).mean() > 0.8
    fit.save(tmp_path)
    monkeypatch.setattr("methods.bind.SCORED", 7)  # blocks change nothing
    np.testing.assert_array_equal(Bind.load(tmp_path).predict_proba(other), probabilities)
    assert set(json.loads((tmp_path / "values.json").read_text())) == set(FAMILIES)


def test_one_class_is_too_few_for_the_svm():
    inputs, labels = toy(6)
    with refused("cannot-train", "classifier=forest"):
        fitted(inputs, labels * 0)
    forest = fitted(inputs, labels * 0 + 1, classifier="forest")
    assert forest.predict_proba(inputs).tolist() == [[0, 1, 0]] * 6


@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=5).filter(any),
    part=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_drawn_sessions_are_each_class_its_share(sizes, part, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    most = max(1, round(part * len(labels)))
    rows = drawn(labels, most, np.random.default_rng(seed))
    assert len(np.unique(rows)) == len(rows) == most and (np.diff(rows) > 0).all()
    found = np.bincount(labels[rows], minlength=len(sizes))
    if most >= 2 * len(sizes):  # with fewer, that each class has one comes before its share
        assert (np.abs(found - np.array(sizes) * most / len(labels)) <= len(sizes)).all()
    if most >= np.count_nonzero(sizes):
        assert (found > 0).tolist() == (np.array(sizes) > 0).tolist()


class Log(Monitor):
    def __init__(self):
        self.values = {}

    def log_fact(self, **values):
        self.values |= values


def test_training_is_capped_and_says_so():
    inputs, labels = toy(sessions=90)
    log = Log()
    fit = fitted(inputs, labels, log, sessions=30, classifier="forest")
    rows = drawn(labels, 30, np.random.default_rng(0))
    assert log.values == {"training_samples": 30, "samples_seen": 30}
    assert np.bincount(labels[rows]).tolist() == [10, 10, 10]
    same = fitted(pick(inputs, rows), labels[rows], sessions=None, classifier="forest")
    np.testing.assert_array_equal(fit.predict_proba(inputs), same.predict_proba(inputs))
    assert not np.array_equal(rows, drawn(labels, 30, np.random.default_rng(1)))


def test_sessions_without_packets_do_not_use_up_the_cap():
    inputs, labels = toy(sessions=30)
    padded = {
        name: Ragged(values.values, np.append(values.offsets, np.full(60, values.offsets[-1])))
        for name, values in inputs.items()
    }
    assert all(len(values) == 90 for values in padded.values())
    log = Log()
    fitted(padded, np.append(labels, np.zeros(60, int)), log, sessions=30, classifier="forest")
    assert log.values == {"training_samples": 30, "samples_seen": 30}
