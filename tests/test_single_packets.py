"""Sessions of one packet, counted by hand."""

import numpy as np
import pytest
from records import of_spec, write_result
from refusals import refused

from bench.paper.single_packets import one_packet
from bench.spec import RunSpec
from bench.tracking.record import Record
from bench.tracking.results import Predictions

CLASSES = ["chat", "mail", "voip", "web"]
#: session: payload packets 1, but for 2 and 5
HELD = np.array([1, 1, 7, 1, 1, 0, 1, 1])
TRUTH = np.array([0, 0, 0, 2, 2, 2, 3, 1])
NONE = 9  # abstained


@pytest.fixture(scope="module")
def store(make_store):
    return make_store({"payload_packets": HELD, "packets": HELD + 1}, labels=TRUTH, classes=CLASSES)


@pytest.fixture
def make_run(store, tmp_path):
    def make(sessions, answers, sampling="session", name="run", groups=None, **spec):
        folder = tmp_path / name
        folder.mkdir()
        session = np.array(sessions)
        wide = np.eye(10, dtype=np.float32)[answers]
        wide[wide[:, NONE] == 1] = np.nan
        groups = session if groups is None else np.array(groups)
        Predictions(CLASSES, session, session * 0, TRUTH[session], groups, wide[:, :4]).save(folder / "predictions.npz")
        write_result(folder, sampling=sampling)
        spec = RunSpec(**({"method": "m", "store": store.digest, "dataset": "fake", "task": "task"} | spec))
        return Record(f"{name}-0123456789", "done", "", spec, {}, folder=folder)

    return make


def test_confusion_by_hand(store, make_run):
    run = make_run([0, 1, 2, 3, 4, 5], [0, 2, 1, 1, NONE, 3])
    found = one_packet([run], store)
    assert found.classes == ["chat", "voip"]  # nothing of mail and web has one packet in this test part
    assert found.columns == ["chat", "mail", "voip", "abstained"]  # mail is an answer
    assert found.counts.tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]
    assert found.shares.tolist() == [[0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5]]
    assert (found.accuracy, found.sessions, found.samples) == (0.25, 4, 4)


def test_runs_are_pooled_and_sessions_counted_once(store, make_run):
    runs = [make_run([0, 1, 6], [0, 0, 3], name="a"), make_run([1, 3, 7], [3, 2, 1], name="b")]
    found = one_packet(runs, store)
    assert found.classes == CLASSES and found.columns == [*CLASSES, "abstained"]
    assert found.counts.tolist() == [[2, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0]]
    assert found.accuracy == pytest.approx((2 / 3 + 3) / 4)
    assert (found.sessions, found.samples) == (5, 6)


def test_of_windows_of_one_packet_all_count(store, make_run):
    sessions, answers = [2, 2, 2, 0, 3], [0, 1, 0, 0, 2]
    assert one_packet([make_run(sessions, answers, name="whole")], store).samples == 2
    assert one_packet([make_run(sessions, answers, "window=16", name="long")], store).samples == 2
    found = one_packet([make_run(sessions, answers, "window=1,per_session=3", name="short")], store)
    assert (found.samples, found.sessions) == (5, 3)
    assert found.counts.tolist() == [[3, 1, 0, 0], [0, 0, 1, 0]]


def test_the_interval_is_over_groups(store, make_run):
    sure = one_packet([make_run([0, 1, 3, 4], [0, 0, 2, 2], name="right")], store)
    assert sure.interval[1] == 1 > sure.interval[0] > 0 and sure.accuracy == 1 and sure.few_groups
    half = one_packet([make_run([0, 1, 3, 4], [0, 1, 2, 2], name="half")], store)
    low, high = half.interval
    assert half.accuracy == 0.75 and 0 < low < 0.75 < high < 1
    one_group = one_packet([make_run([0, 1, 3, 4], [0, 1, 2, 2], name="group", groups=[5, 5, 5, 5])], store)
    assert one_group.interval == (0, 1) and one_group.few_groups  # one group tells nothing of others


def test_a_wrong_class_that_is_absent_lowers_the_interval_as_an_abstention_does(store, make_run):
    absent = one_packet([make_run([0, 1, 3, 4], [0, 3, 2, 2], name="absent")], store)
    silent = one_packet([make_run([0, 1, 3, 4], [0, NONE, 2, 2], name="silent")], store)
    assert absent.interval == silent.interval and absent.accuracy == silent.accuracy


def test_what_cannot_be_pooled_is_bad_input(store, make_run):
    run = make_run([0, 3], [0, 2])
    with refused("no-runs"):
        one_packet([], store)
    with refused("no-such-session", "fake", "--sampling window=1"):
        one_packet([make_run([2, 5], [0, 2], name="none")], store)
    with refused("store-changed", "run-0123"):
        one_packet([of_spec(run, store="f" * 64)], store)
    with refused("run-mismatch", "other-01"):
        one_packet([run, make_run([0], [0], name="other", task="another")], store)
