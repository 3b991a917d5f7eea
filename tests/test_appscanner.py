"""AppScanner against scipy, session by session; flows, selection, ambiguity, threshold, abstentions."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from scipy import stats

from bench.method import Monitor, Part, make_parameters
from bench.readers import Ragged, View, offsets_of
from bench.schema import Samples
from methods import appscanner
from methods.appscanner import NO_VOTE, AppScanner, Parameters, flow_statistics

DECILES = range(10, 100, 10)
FEW = settings(max_examples=30)


def population(x):
    """The statistics of one series by numpy and scipy."""
    if not len(x):
        return np.zeros(18)
    shape = (0.0, 0.0) if len(set(x)) == 1 else (stats.skew(x), stats.kurtosis(x))
    moments = (x.mean(), stats.median_abs_deviation(x), x.std(), x.var(), *shape)
    return np.array([x.min(), x.max(), *moments, *np.percentile(x, DECILES), len(x)])


def sample(x):
    """The statistics of one series by pandas, NaN as 0."""
    if not len(x):
        return np.zeros(18)
    s = pd.Series(x, dtype=float)
    moments = (s.mean(), (s - s.mean()).abs().mean(), s.std(), s.var(), s.skew(), s.kurt())
    return np.nan_to_num([s.min(), s.max(), *moments, *np.percentile(x, DECILES), len(x)])


def obvious(flow, kind):
    """The 54 numbers of one flow of signed lengths."""
    parts = (flow[flow < 0], flow[flow > 0], flow)
    return np.concatenate([sample(x) if kind == "sample" else population(np.abs(x)) for x in parts])


def view_of(make_store, sessions, times=None):
    """A view of sessions of signed lengths (+ out), packets a tenth of a second apart unless times are given."""
    signed = np.array([length for session in sessions for length in session])
    sizes = [len(session) for session in sessions]
    seconds = np.concatenate([np.arange(n) / 10 for n in sizes] if times is None else times)
    store = make_store(
        {"packets": sizes, "first_packet": offsets_of(sizes)[:-1]},
        {"length": np.abs(signed), "direction": np.sign(signed), "time": np.rint(seconds * 1e9) + 10**18},
    )
    rows = np.arange(len(sizes))
    return View(store, Samples(rows, np.zeros_like(rows), np.array(sizes)), AppScanner.reads)


def method(classes=2, seed=0, **values):
    return AppScanner(make_parameters(AppScanner, {"trees": 10} | values), classes=classes, seed=seed)


def toy(sessions=60, noise=0, seed=0):
    """Inputs of one flow a session, whose lengths tell the class; of the first ``noise`` nothing does."""
    draw = np.random.default_rng(seed)
    labels = np.arange(sessions) % 2
    kind = np.where(np.arange(sessions) < noise, 2, labels)
    flows = [draw.integers(1 + 500 * k, 400 + 500 * k, 9) * draw.choice([-1, 1], 9) for k in kind]
    return Ragged(np.stack([obvious(flow, "population") for flow in flows]), np.arange(sessions + 1)), labels


def fitted(flows, labels, **values):
    part = Part({"flows": flows}, labels)
    return method(**values).fit(part, part, Monitor())


def test_the_worked_example_of_the_specification(make_store):
    features = method().represent(view_of(make_store, [[100, -1500, -1500, 60, -40]]))["flows"].values
    expected = [
        *(40, 1500, 1013.3333, 0, 688.2506, 473688.8889, -0.7071, -1.5),
        *(332, 624, 916, 1208, 1500, 1500, 1500, 1500, 1500, 3),
        *(60, 100, 80, 20, 20, 400, 0, -2),
        *(64, 68, 72, 76, 80, 84, 88, 92, 96, 2),
        *(40, 1500, 640, 60, 702.4528, 493440, 0.4059, -1.8321),
        *(48, 56, 68, 84, 100, 660, 1220, 1500, 1500, 5),
    ]
    assert features.dtype == np.float64 and features.shape == (1, 54)
    np.testing.assert_allclose(features[0], expected, atol=5e-5)


lengths = st.lists(st.integers(-1500, 1500).filter(bool), min_size=1, max_size=12)
lying = st.sampled_from([-(2**31) + 1, 2**31 - 1, 2**31 - 2, 1, -1])  # headers may say anything


@pytest.mark.parametrize("kind", ["population", "sample"])
@FEW
@given(flows=st.lists(lengths, max_size=8), block=st.sampled_from([1, 5, 1000]))
def test_the_fast_statistics_are_those_of_scipy_and_pandas(kind, flows, block):
    signed = np.array([length for flow in flows for length in flow], np.int64)
    ragged = Ragged(np.abs(signed).astype(np.int32), offsets_of([len(flow) for flow in flows]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(appscanner, "BLOCK", block)
        found = flow_statistics(ragged, signed > 0, kind == "sample")
    expected = [obvious(np.array(flow), kind) for flow in flows]
    np.testing.assert_allclose(found, np.reshape(expected, (len(flows), 54)), rtol=1e-6, atol=1e-6)


@FEW
@given(flow=st.lists(lying, min_size=1, max_size=6))
def test_lengths_of_any_size_are_sorted_right(flow):
    signed = np.array(flow, np.int64)
    found = flow_statistics(
        Ragged(np.abs(signed).astype(np.int32), np.array([0, len(flow)])), signed > 0, sample=False
    )[0]
    both = np.abs(signed)
    np.testing.assert_allclose(found[36:40], [both.min(), both.max(), both.mean(), stats.median_abs_deviation(both)])
    np.testing.assert_allclose(found[44:53], np.percentile(both, DECILES))


gaps = st.lists(st.tuples(st.integers(1, 1500), st.sampled_from([0.0, 0.4, 1.0, 1.5, 9.0])), min_size=1, max_size=12)


@FEW
@given(sessions=st.lists(gaps, min_size=1, max_size=6), low=st.integers(1, 3), room=st.integers(0, 3))
def test_flows_end_at_gaps_and_have_the_right_size(make_store, sessions, low, room):
    times = [np.cumsum([gap for _, gap in session]) for session in sessions]
    view = view_of(make_store, [[length for length, _ in session] for session in sessions], times)
    flows = method(burst_gap=1.0, min_packets=low, max_packets=low + room).represent(view)["flows"]
    expected, counts = [], []
    for session in sessions:
        cut = [[session[0][0]]]
        for length, gap in session[1:]:
            cut.append([length]) if gap > 1.0 else cut[-1].append(length)
        kept = [flow for flow in cut if low <= len(flow) <= low + room]
        counts.append(len(kept))
        expected += [obvious(np.array(flow), "population") for flow in kept]
    assert flows.sizes.tolist() == counts
    np.testing.assert_allclose(flows.values, np.reshape(expected, (-1, 54)), atol=1e-6)


def test_the_first_packets_and_those_with_payload(make_store):
    view = view_of(make_store, [[100, -200, 300]])
    assert method(packets=2).represent(view)["flows"].values[0, -1] == 2
    assert method(payload_only=True).represent(view)["flows"].sizes.tolist() == [0]  # this store holds no payload


def test_times_are_read_only_where_bursts_are_cut(make_store):
    view = view_of(make_store, [[100, -200]])
    method().represent(view)
    assert view.used == {"lengths", "directions"}
    method(burst_gap=1.0).represent(view)
    assert view.used == AppScanner.reads


def test_a_session_of_one_flow_gets_the_forests_answer_and_of_two_their_geometric_mean():
    flows, labels = toy(noise=20)
    fit = fitted(flows, labels)
    single = fit.predict_proba({"flows": flows})
    forest = fit.model.predict_proba(flows.values)
    np.testing.assert_allclose(single, np.maximum(forest, NO_VOTE) / np.maximum(forest, NO_VOTE).sum(1)[:, None])
    paired = fit.predict_proba({"flows": Ragged(flows.values, np.arange(0, 61, 2))})
    logs = np.log(np.maximum(forest, NO_VOTE)).reshape(30, 2, 2).mean(1)
    expected = np.exp(logs) / np.exp(logs).sum(1, keepdims=True)
    np.testing.assert_allclose(paired, expected, rtol=1e-5)


def test_a_session_without_flow_abstains_and_trains_nothing():
    flows, labels = toy()
    offsets = flows.offsets.copy()
    offsets[31:] -= 1  # session 30 has no flow
    gappy = Ragged(np.delete(flows.values, 30, axis=0), offsets)
    fit = fitted(gappy, labels)
    probabilities = fit.predict_proba({"flows": gappy})
    assert np.flatnonzero(np.isnan(probabilities).any(axis=1)).tolist() == [30]
    rest = np.delete(np.arange(60), 30)
    again = fitted(gappy[rest], labels[rest])
    np.testing.assert_array_equal(probabilities[rest], again.predict_proba({"flows": gappy[rest]}))


def test_without_any_flow_training_is_bad_input():
    nothing = Ragged(np.zeros((0, 54)), np.zeros(4, np.int64))
    with refused("cannot-train", "3 training sessions"):
        fitted(nothing, np.arange(3))
    flows, labels = toy(1)
    with refused("cannot-train", "ambiguity=false"):
        fitted(flows, labels, ambiguity=True)


def test_an_uncertain_flow_counts_for_nothing():
    flows, labels = toy(noise=30)
    plain, strict = (fitted(flows, labels, threshold=t) for t in (None, 0.9))
    forest = plain.model.predict_proba(flows.values)
    unsure = forest.max(axis=1) < 0.9
    found = strict.predict_proba({"flows": flows})
    assert 0 < unsure.sum() < 60
    np.testing.assert_array_equal(np.isnan(found[:, 0]), unsure)
    paired = strict.predict_proba({"flows": Ragged(flows.values, np.arange(0, 61, 2))})
    np.testing.assert_array_equal(np.isnan(paired[:, 0]), unsure.reshape(30, 2).all(axis=1))
    alone = np.flatnonzero(unsure.reshape(30, 2).sum(axis=1) == 1)  # the pair's other flow decides alone
    sure = 2 * alone + unsure.reshape(30, 2)[alone].argmin(axis=1)
    np.testing.assert_allclose(paired[alone], found[sure])


def test_ambiguous_flows_are_told_apart_and_left_out():
    flows, labels = toy(sessions=200, noise=80)
    fit = fitted(flows, labels, ambiguity=True, trees=30)
    assert fit.model.classes_.tolist() == [0, 1, 2]  # the last one: ambiguous
    probabilities = fit.predict_proba({"flows": flows})
    assert probabilities.shape == (200, 2)
    abstained = np.isnan(probabilities[:, 0])
    assert abstained[:80].mean() > 0.2 and not abstained[80:].any()
    assert (probabilities[80:].argmax(1) == labels[80:]).all()
    np.testing.assert_allclose(probabilities[~abstained].sum(1), 1, atol=1e-6)


def test_where_all_is_ambiguous_every_session_abstains():
    flows = Ragged(np.ones((4, 54)), np.arange(5))
    fit = fitted(flows, np.arange(4), classes=4, ambiguity=True)  # no half knows the other's classes
    assert fit.model.classes_.tolist() == [4]
    assert np.isnan(fit.predict_proba({"flows": flows})).all()


@pytest.mark.parametrize("values", [{"select": 5}, {"ambiguity": True}, {"depth": 2, "min_leaf": 3}])
def test_saved_and_loaded_it_answers_the_same(values, tmp_path):
    flows, labels = toy(noise=20)
    fit = fitted(flows, labels, **values)
    fit.save(tmp_path)
    inputs = {"flows": flows}
    np.testing.assert_array_equal(AppScanner.load(tmp_path).predict_proba(inputs), fit.predict_proba(inputs))


def test_selection_keeps_the_most_important_features_of_training():
    draw = np.random.default_rng(0)
    labels = np.arange(100) % 2
    values = draw.random((100, 54))
    values[:, [7, 33]] += 3 * labels[:, None]
    fit = fitted(Ragged(values, np.arange(101)), labels, select=2, trees=50)
    assert fit.columns.tolist() == [7, 33] and fit.model.n_features_in_ == 2
    assert fitted(Ragged(values, np.arange(101)), labels).columns.tolist() == list(range(54))


def test_the_forest_is_that_of_its_parameters():
    forest = AppScanner(classes=2, seed=2**33 + 5).estimator()
    assert (forest.n_estimators, forest.criterion, forest.max_features) == (150, "gini", "sqrt")
    assert (forest.max_depth, forest.min_samples_leaf, forest.random_state) == (None, 1, 5)
    shallow = method(depth=3, min_leaf=4).estimator()
    assert (shallow.max_depth, shallow.min_samples_leaf) == (3, 4)


def test_limits_that_exclude_everything_are_bad_input():
    with refused("bad-parameter", "min_packets=9:", "max_packets=3"):
        Parameters(min_packets=9, max_packets=3)
    assert dataclasses.asdict(make_parameters(AppScanner, AppScanner.presets["paper"]))["max_packets"] == 260
