"""Yardsticks of a table: boosting, regression, a perceptron on bytes, CESNET's network on packet sequences."""

import importlib.util

import numpy as np
import pytest
import torch
from refusals import refused
from test_estimators import toy

from bench.estimator import first_packets
from bench.method import Monitor, Part, make_parameters
from methods.cesnet_cnn import CesnetCnn, Parameters, ending
from methods.graphdapp import Graphdapp
from methods.histgb import HistGb
from methods.lgbm import Lgbm
from methods.logreg import LogReg
from methods.mlp_bytes import MlpBytes

pytestmark = pytest.mark.usefixtures("torch_seeded")


def make(kind, classes=3, **values):
    return kind(make_parameters(kind, dict(kind.tiny) | values), classes=classes, seed=3)


def test_the_first_packets_are_bytes_directions_and_log_gaps():
    view, _ = toy(sessions=4)
    found = first_packets(view, 10).reshape(4, 3, 10)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[:, 0] * found[:, 1], view._lengths)
    held = view._lengths != 0
    assert (found[:, 2][held] >= -6).all() and not found[:, 2][~held].any()
    gap = view._times[0, 1] - view._times[0, 0]
    assert found[0, 2, 1] == pytest.approx(np.log10(gap + 1e-6), rel=1e-5)


@pytest.mark.parametrize("kind", [HistGb, Lgbm, LogReg, CesnetCnn], ids=lambda kind: kind.name)
def test_sequences_tell_the_class_and_files_keep_it(kind, tmp_path):
    if kind is Lgbm:
        pytest.importorskip("lightgbm")
    view, labels = toy()
    method = make(kind, packets=10 if kind is not CesnetCnn else 12)
    if kind is CesnetCnn:
        view = Padded(view)
    part = Part(method.represent(view), labels)
    method.fit(part, part, Monitor())
    probabilities = method.predict_proba(part.inputs)
    assert (probabilities.argmax(1) == labels).mean() > 0.9
    method.save(tmp_path)
    np.testing.assert_allclose(kind.load(tmp_path).predict_proba(part.inputs), probabilities, atol=1e-6)


def test_a_regression_that_is_cut_short_says_so_and_a_whole_one_is_at_its_only_optimum():
    view, labels = toy()
    found = {}
    for iterations in (2, 3000):
        method, told = make(LogReg, packets=10, iterations=iterations), Monitor()
        part = Part(method.represent(view), labels)
        found[iterations] = method.fit(part, part, told).predict_proba(part.inputs)
        assert ("not_converged" in told.facts) == (iterations == 2)
    scaler, regression = method.model
    rows, classes = scaler.transform(method.features(part.inputs)), np.eye(3)[labels]
    weights = len(labels) / (3 * classes.sum(0))
    slope = ((found[3000] - classes) * weights[labels, None]).T @ rows + regression.coef_
    assert np.abs(slope).max() < 1e-3 * len(labels)  # the gradient of what it minimises, by hand
    assert not np.array_equal(found[2], found[3000])


def test_lightgbm_answers_two_classes_one_class_and_the_same_for_any_threads(monkeypatch):
    pytest.importorskip("lightgbm")
    view, labels = toy()
    inputs = make(Lgbm, packets=10).represent(view)
    answers = []
    for threads in (1, 2):
        monkeypatch.setattr("bench.estimator.threads", lambda number=threads: number)
        two = Part(inputs, labels % 2)
        method = make(Lgbm, packets=10, classes=2).fit(two, two, Monitor())
        answers.append(method.predict_proba(inputs))
    assert (answers[0].argmax(1) == labels % 2).mean() > 0.8 and np.array_equal(*answers)
    one = Part(inputs, np.full(len(labels), 2))
    assert make(Lgbm, packets=10).fit(one, one, Monitor()).predict_proba(inputs)[:, 2].min() == 1


@pytest.mark.parametrize("kind, package, remedy", [
    (Lgbm, "lightgbm", "pip install 'etc-bench[lightgbm]'"),
    (Graphdapp, "torch_geometric", "pip install torch-geometric"),
])  # fmt: skip
def test_without_its_package_a_method_is_skipped_with_the_remedy(
    kind, package, remedy, monkeypatch, bench_in, tmp_path
):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == package else find(name, *more))
    monkeypatch.setattr(kind, "represent", lambda self, view: pytest.fail("its work begins"))
    status, out, err = bench_in(tmp_path)("run", "--method", kind.name, "--dataset", "demo", "--split", "session")
    assert status == 0 and "skipped" in out + err and remedy in out + err


class Padded:
    """The toy's view with room for 12 packets."""

    def __init__(self, view):
        self._view = view

    def __getattr__(self, name):
        asked = getattr(self._view, name)
        return lambda packets, **more: np.pad(asked(packets, **more), ((0, 0), (0, 2)))


def test_cesnets_network_is_the_published_one_without_flow_statistics():
    with torch.device("meta"):
        network = CesnetCnn(Parameters(), classes=191).network()
    statistics = (17 * 64 + 64 + 128) + 2 * (64 * 64 + 64 + 128) + (64 * 32 + 32 + 64)
    assert sum(one.numel() for one in network.parameters()) + statistics + 32 * 480 == 1_217_903
    assert ending(30) == 10


def test_cesnets_sequence_is_gaps_directions_sizes_and_padding_stays_zero():
    view, labels = toy()
    method = make(CesnetCnn)
    sequence = method.represent(Padded(view))["sequence"]
    assert sequence.shape == (len(view), 3, 12) and sequence.dtype == np.float32
    held = view._lengths != 0
    assert sequence[0, 0, 1] == pytest.approx(1000 * (view._times[0, 1] - view._times[0, 0]), rel=1e-5)
    assert set(np.unique(sequence[:, 1])) == {-1, 0, 1} and sequence[:, 0][sequence[:, 1] != 0].min() == 1  # ms
    network = method.network()
    method.before_training(network, Part({"sequence": sequence}, labels), np.arange(len(view)))
    sizes = view.payload_lengths(10)[held]
    assert network.mean.tolist() == pytest.approx([sequence[:, 0, :10][held].mean(), 0, sizes.mean()], rel=1e-4)
    assert network.deviation[2] == pytest.approx(sizes.std(), rel=1e-4)
    heard = []
    network.layers[0].register_forward_pre_hook(lambda module, given: heard.append(given[0]))
    network.eval()(torch.from_numpy(sequence))
    assert not heard[0][:, :, :10].transpose(1, 2)[torch.from_numpy(~held)].any()


def test_cesnets_sizes_and_gaps_have_the_limits_of_its_published_weights():
    view, _ = toy(sessions=1)
    view._lengths[0, :3], view._times[0, :3] = [1540, -41, 5000], [0, 20, 20.5]
    sequence = make(CesnetCnn).represent(Padded(view))["sequence"][0]
    assert sequence[2, :3].tolist() == [1460, 1, 1460] and sequence[0, :3].tolist() == [1, 15_000, 500]


def test_the_perceptron_reads_shares_of_255_and_fits():
    draw = np.random.default_rng(0)
    labels = np.arange(30) % 3
    bytes_ = draw.integers(0, 256, (30, 64), dtype=np.uint8)
    bytes_[:, 5] = 100 * labels
    part = Part({"bytes": bytes_, "held": np.ones(30, bool)}, labels)
    method = make(MlpBytes, epochs=60).fit(part, part, Monitor())
    assert (method.predict_proba(part.inputs).argmax(1) == labels).mean() > 0.9
    shares = torch.from_numpy(bytes_).float() / 255
    assert torch.equal(method.model.layers(shares), method.model(**method.batch(part.inputs)))
    part.inputs["held"][0] = False
    assert np.isnan(method.predict_proba(part.inputs)[0]).all()


@pytest.mark.parametrize(
    ("kind", "values"), [(CesnetCnn, {"packets": 11}), (HistGb, {"rate": 0.0}), (LogReg, {"strength": 0})]
)
def test_parameters_out_of_range_are_bad_input(kind, values):
    with refused("bad-parameter", next(iter(values))):
        make(kind, **values)
