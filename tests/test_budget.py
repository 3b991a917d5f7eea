"""How long a method trains: batches, steps, epochs, and the rate of each step."""

import dataclasses
import itertools

import numpy as np
import pytest
from refusals import refused
from trained import Linear, Listening, Recorder, make, part

from bench.method import Monitor, Part, make_parameters
from bench.training.budget import TrainingParameters, batches, steps_an_epoch


def test_batches_cover_the_rows_and_none_holds_one():
    for samples, size in itertools.product((2, 5, 8, 9, 16, 17, 23), (2, 3, 8)):
        found = list(batches(np.arange(samples), size))
        assert np.array_equal(np.concatenate(found), np.arange(samples))
        assert min(map(len, found)) > 1
        assert len(found) == steps_an_epoch(samples, size)
    assert steps_an_epoch(3, 1) == 3
    assert [len(b) for b in batches(np.arange(3), 1)] == [1, 1, 1]


def test_learning_rate_rises_linearly_then_falls_by_epochs():
    settings = TrainingParameters(epochs=40, learning_rate=1.0, warmup=0.1, step_size=10, gamma=0.1)
    rates = [settings.learning_rate_at(step, 5) for step in range(200)]
    assert rates[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])  # a tenth of 200 steps
    assert rates[20:70] == pytest.approx([1.0] * 50)  # 10 epochs of 5 steps
    assert rates[70:120] == pytest.approx([0.1] * 50)
    assert rates[120:170] == pytest.approx([0.01] * 50)
    flat = dataclasses.replace(settings, warmup=0.0, gamma=1.0)
    assert {flat.learning_rate_at(step, 5) for step in range(200)} == {1.0}


@pytest.mark.parametrize("samples", [5, 60, 333])
def test_a_budget_in_steps_is_one_number_of_steps_and_of_validations_for_every_size(samples):
    monitor = Recorder()
    make(steps=50, epochs=4).fit(part(samples), part(seed=1), monitor)
    assert len(monitor.steps) == 50 == monitor.notes["optimiser_steps"]
    assert [(e["epoch"], e["epochs"]) for e in monitor.epochs] == [(i, 4) for i in range(1, 5)]
    assert monitor.notes["samples_seen"] == sum(len(b) for b in itertools.islice(passes(samples), 50))


def passes(samples):
    """The batches of one pass after the other."""
    while True:
        yield from batches(np.arange(samples), 8)


def test_steps_go_on_with_a_pass_where_an_epoch_ended():
    each = Part(part(24).inputs, np.arange(24))
    none = Part({"points": np.empty((0, 2), np.int32)}, np.empty(0, np.int64))
    method = Listening(make(steps=7, epochs=2).parameters, classes=24, seed=5).fit(each, none, Monitor())
    assert [sorted(heard) for heard in (method.heard[:24], method.heard[24:48])] == [list(range(24))] * 2
    assert len(method.heard) == 56  # 7 steps of 8: two passes of 3 steps, and one step more


def test_the_schedule_follows_the_epochs_of_a_budget_in_steps():
    settings = TrainingParameters(epochs=4, steps=10, step_size=1, gamma=0.5, learning_rate=1.0, batch_size=8)
    each = settings.steps_an_epoch(1000)
    assert each == 2.5
    assert [settings.learning_rate_at(step, each) for step in range(10)] == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25] + [
        0.125
    ] * 2


def test_fewer_steps_than_epochs_cannot_be():
    with refused("bad-parameter", "steps=3: fewer than the 30 epochs"):
        TrainingParameters(steps=3)


@pytest.mark.parametrize(("name", "value"), [("epochs", 0), ("learning_rate", -1.0), ("warmup", 1.0), ("gamma", 0.0)])
def test_parameters_out_of_range_are_bad_input(name, value):
    with refused("bad-parameter", name):
        TrainingParameters(**{name: value})


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"epochs": 0}, "linear: parameter epochs=0: must be at least 1"),
        ({"learning_rate": 0.0}, "linear: parameter learning_rate=0.0: must be above 0"),
        ({"warmup": 1.0}, "linear: parameter warmup=1.0: must be at least 0 and below 1"),
        ({"patience": 0}, "linear: parameter patience=0: must be at least 1"),
    ],
)
def test_values_that_are_not_allowed(values, complaint):
    with refused("bad-parameter") as caught:
        make_parameters(Linear, values)
    assert str(caught.value) == complaint


def test_the_optimiser_gets_the_scheduled_rate():
    monitor = Recorder()
    method = make(epochs=4, warmup=0.5, step_size=1, gamma=0.5)
    method.fit(part(16), part(seed=1), monitor)
    expected = [method.parameters.learning_rate_at(step, 2) for step in range(8)]
    assert [s["learning_rate"] for s in monitor.steps] == expected
