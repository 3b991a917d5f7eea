"""A clock that is set back: the run that was computed last counts, and none ends before it begins."""

import pytest

from bench.spec import RunSpec
from bench.tracking import tracker as tracker_module
from bench.tracking import writing
from bench.tracking.tracker import Tracker

HOUR = 3_600_000  # ms


@pytest.fixture
def clock(monkeypatch):
    """The stores' clock; a call sets it."""
    held = {"now": 1_700_000_000_000}
    for module in (tracker_module, writing):
        monkeypatch.setattr(module, "now", lambda: held["now"])

    def set_by(more):
        held["now"] += more

    return set_by


def run(tracker, score, clock, back=0):
    spec = RunSpec.from_dict({"method": "majority", "dataset": "clock", "task": "service"})
    one = tracker.start(spec, spec.name, {})
    one.metrics({"macro_f1": score})
    clock(back)
    one.end("done")
    return tracker.finished(spec.digest)


def test_the_run_that_was_computed_last_is_the_newest(place, clock):
    tracker = Tracker(place.file())
    clock(HOUR)
    run(tracker, 0.048, clock)
    clock(-HOUR)
    assert run(tracker, 1.0, clock).metrics["macro_f1"] == 1.0
    assert [one.metrics["macro_f1"] for one in tracker.search()] == [1.0]


def test_no_run_ends_before_it_begins(place, clock):
    found = run(Tracker(place.file()), 0.5, clock, back=-HOUR)
    assert found.ended >= found.started
