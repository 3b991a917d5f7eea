"""Steps whose samples are not in memory together: the gradients of parts add up to those of the whole batch."""

import numpy as np
import pytest
import torch
from refusals import refused
from trained import Linear, Recorder, make, part

from bench.contract_captures import five_services
from bench.method import Monitor, Part, learn, make_parameters
from bench.readers import View
from bench.runs import registry
from bench.schema import NO_CLASS
from bench.spec import Sampling
from bench.splits.sampling import windows

#: methods without norms over a batch, with values that leave no chance: another division of a batch draws otherwise
SPLITTABLE = {
    "attlstm": {"dropout": 0.0},
    "han": {"dropout": 0.0},
    "wang1d": {"dropout": 0.0},
    "wang2d": {"dropout": 0.0},
    "et-bert": {"dropout": 0.0, "pretraining": "scratch"},
    "yatc": {"drop_path": 0.0, "pretraining": "scratch"},
    "flowpic": {"dropout": 0.0},
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    store = five_services(tmp_path_factory.mktemp("demo"))
    labels = store.labels(store.default_task).astype(np.int64)
    return store, labels, windows(Sampling(), np.flatnonzero(labels != NO_CLASS)[::7], store)


def fitted(name, demo, **values):
    store, labels, samples = demo
    kind = registry.load(name)
    known = {field: value for field, value in SPLITTABLE.get(name, {}).items() if field in kind.Parameters.__dict__}
    settings = {**kind.tiny, **known, "epochs": 2, "steps": None, "batch_size": 11, **values}
    method = kind(make_parameters(kind, settings), classes=5, seed=7)
    every = Part(method.represent(View(store, samples, kind.reads)), labels[samples.session])
    learn(method, every, every, monitor := Recorder())
    return method, monitor


@pytest.mark.parametrize("name", SPLITTABLE)
def test_parts_of_a_batch_train_as_the_whole(name, demo):
    whole, heard = fitted(name, demo)
    parts, told = fitted(name, demo, micro_batch=3)
    assert [one["step"] for one in heard.steps] == [one["step"] for one in told.steps]
    for one, other in zip(heard.steps, told.steps, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=2e-3)
    for one, other in zip(heard.epochs, told.epochs, strict=True):
        assert other["accuracy"] == pytest.approx(one["accuracy"], abs=0.06)
    state = parts.model.state_dict()
    for place, values in whole.model.state_dict().items():
        if values.dtype.is_floating_point:  # Adam divides by gradients' sizes: of those that are nought, by rounding
            assert (state[place] - values).abs().median() < 1e-4, place


def test_the_first_gradient_is_that_of_the_whole_batch_where_classes_weigh_differently(demo):
    """HAN's mean is weighted: a part counts by the weights of its classes, not by its samples."""
    values = {"epochs": 1, "batch_size": 1000, "learning_rate": 1e-12, "loss": "weighted_ce", "warmup": 0.0}
    store, labels, samples = demo
    unequal = samples.take(np.flatnonzero((labels[samples.session] != 0) | (np.arange(len(samples)) % 3 == 0)))
    gradients = []
    for most in (None, 2):
        kind = registry.load("han")
        settings = {**kind.tiny, "dropout": 0.0, **values, "micro_batch": most}
        method = kind(make_parameters(kind, settings), classes=5, seed=7)
        every = Part(method.represent(View(store, unequal, kind.reads)), labels[unequal.session])
        update = method._update

        def kept(model, optimiser, update=update):
            gradients.append(torch.cat([weights.grad.flatten() for weights in model.parameters()]))
            return update(model, optimiser)

        method._update = kept
        learn(method, every, every, Monitor())
    whole, parts = gradients
    assert (parts - whole).norm() < 1e-5 * whole.norm()


@pytest.mark.parametrize("name", ["atvitsc", "graphdapp", "deeppacket", "fsnet", "flowgnn"])
def test_what_looks_at_a_whole_batch_is_refused(name, demo):
    with refused("bad-parameter", f"{name}: micro_batch=3", "look at a whole batch", "leave it out"):
        fitted(name, demo, micro_batch=3)


def test_a_part_is_at_most_as_large_as_asked(monkeypatch):
    sizes = []
    method = make(epochs=1, batch_size=10, micro_batch=4)
    monkeypatch.setattr(type(method), "_check_micro_batch", lambda self, model: None)
    batch = method.batch
    method.batch = lambda rows: sizes.append(len(rows["points"])) or batch(rows)
    method.fit(part(40), Part({"points": np.empty((0, 2), np.int32)}, np.empty(0, np.int64)), Monitor())
    assert sizes == [4, 3, 3] * 4


def test_a_loss_that_does_not_say_what_it_divides_by_is_refused():
    class Summed(Plain):
        def loss(self, logits, labels):
            return super().loss(logits, labels) * len(labels)

    class Said(Summed):
        def loss_divisor(self, labels):
            return torch.tensor(1.0)

    nobody = Part({"points": np.empty((0, 2), np.int32)}, np.empty(0, np.int64))
    settings = make(epochs=1, batch_size=10, micro_batch=4).parameters
    with refused("bad-parameter", "micro_batch=4", "its norms or its loss"):
        Summed(settings, classes=3).fit(part(40), nobody, Monitor())
    Said(settings, classes=3).fit(part(40), nobody, Monitor())


class Plain(Linear):
    """Without norms."""

    def network(self):
        return Points()


class Points(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 3)

    def forward(self, points):
        return self.layer(points.float())
