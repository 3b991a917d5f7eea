"""The forest on what another method reads: the same arrays, the same abstentions, nothing more."""

import numpy as np
import pytest
from refusals import refused

from bench import conformance
from bench.estimator import forest_on
from bench.method import Method, Monitor, Part, make_parameters
from bench.readers import Ragged
from bench.runs import registry
from bench.runs.plan import resolve
from bench.spec import Settings


class Reading(Method):
    """Reads bytes, a time and a list of cells."""

    name = "reading"
    reference = "none"
    family = "deep"
    reads = frozenset({"lengths"})

    def represent(self, view):
        return view

    def can_classify(self, inputs):
        return inputs["bytes"].any(axis=(1, 2))

    def fit(self, train, validation, monitor):
        raise NotImplementedError

    def predict_proba(self, inputs):
        raise NotImplementedError

    def save_state(self, folder):
        raise NotImplementedError

    def load_state(self, folder):
        raise NotImplementedError


def some(cells=True):
    draw = np.random.default_rng(1)
    bytes_ = draw.integers(1, 256, (30, 2, 3), dtype=np.uint8)
    inputs = {"bytes": bytes_, "time": draw.random(30).astype(np.float32)}
    if cells:
        inputs["cells"] = Ragged(np.tile([4, 1, 4], 30).astype(np.int32), np.arange(0, 91, 3))
    return Part(inputs, np.arange(30) % 3)


def test_its_features_are_the_arrays_of_the_method():
    part = some(cells=False)
    forest = forest_on(Reading)(classes=3)
    features = forest.features(part.inputs)
    assert features.dtype == np.float32 and features.shape == (30, 7)
    np.testing.assert_array_equal(features[:, :6], part.inputs["bytes"].reshape(30, 6))
    np.testing.assert_array_equal(features[:, 6], part.inputs["time"])


def test_lists_are_counted_and_values_that_training_lacks_are_left_out():
    part = some()
    forest = forest_on(Reading)(classes=3).fit(part, part, Monitor())
    test = {name: values[:1] for name, values in part.inputs.items()}
    test["cells"] = Ragged(np.array([4, 4, 9, 0], np.int32), np.array([0, 4]))
    row = forest.features(test).toarray()[0]
    assert row[6:8].tolist() == [0, 2] and len(row) == 9  # bytes, cells 1 and 4, the time


def test_it_abstains_where_the_method_does(tmp_path):
    part = some()
    part.inputs["bytes"][:5] = 0
    forest = forest_on(Reading)(classes=3).fit(part, part, Monitor())
    assert np.isnan(forest.predict_proba(part.inputs)).all(axis=1).tolist() == [True] * 5 + [False] * 25
    forest.save(tmp_path)
    again = forest_on(Reading).load(tmp_path)
    np.testing.assert_array_equal(again.predict_proba(part.inputs), forest.predict_proba(part.inputs))


@pytest.mark.parametrize("name", ["atvitsc", "mini-flowpic", "deeppacket", "flowgnn"])
def test_it_keeps_the_contract(name, tmp_path):
    answers = conformance.check(f"forest-on:{name}", folder=tmp_path)
    assert [answer for answer in answers if not answer.passed] == []


def test_a_preset_of_the_method_sets_what_both_read():
    names = ("atvitsc", "forest-on:atvitsc")
    outlines = {name: registry.describe(name) for name in names}
    method, forest = (resolve(name, outlines, Settings(preset="shared", values={"packets": 9})) for name in names)
    assert method == forest and forest["packets"] == 9
    kind = registry.load("forest-on:atvitsc")
    assert make_parameters(kind, forest) == make_parameters(registry.load("atvitsc"), method)
    assert outlines["forest-on:atvitsc"].family == kind.family == "baseline"


def test_its_code_is_the_method_s_and_its_own():
    one, other = (registry.describe(name).sources for name in ("atvitsc", "forest-on:atvitsc"))
    assert set(one) < set(other) and {path.name for path in set(other) - set(one)} == {"estimator.py"}
    assert registry.is_shipped("forest-on:atvitsc") and not registry.is_shipped("forest-on:theirs")


@pytest.mark.parametrize(("name", "complaint"), [("bind", "family features"), ("atvits", "did you mean atvitsc")])
def test_what_has_no_network_has_no_such_forest(name, complaint):
    with refused("unknown-method", complaint):
        registry.describe(f"forest-on:{name}")
