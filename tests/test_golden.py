"""What earlier code gave, kept: today's code gives the same stores, splits and arrays, and finds the same runs done."""

import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from asked import changed
from split_tables import split_of

from bench.data.cards import card_names
from bench.data.names import find_card
from bench.data.prepare import open_dataset
from bench.errors import InputError
from bench.method import make_parameters
from bench.readers import Ragged, View
from bench.runs import registry
from bench.runs.execute import execute
from bench.schema import PACKET_COLUMNS, SESSION_COLUMNS, Samples
from bench.tracking.tracker import Tracker

KEPT = Path(__file__).parent / "kept"
GOLDEN = json.loads((KEPT / "golden.json").read_text())


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield open_dataset("demo")


def unpacked(name, folder):
    with tarfile.open(KEPT / name) as archive:
        archive.extractall(folder, filter="data")
    return folder


#: methods whose answers changed since then, for a reason that CHANGELOG.md gives
OTHER_ANSWERS = {"first-bytes"}  # which of equally near sessions answers


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of the twenty runs."""
    return unpacked("runs.tar.xz", tmp_path_factory.mktemp("kept"))


def sha(array):
    array = np.ascontiguousarray(array)
    return hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode() + array.tobytes()).hexdigest()[:16]


def near_sha(array):
    """Of float64 their first nine digits: a sum's last ones differ with the width of the processor's vectors."""
    if array.dtype != np.float64:
        return sha(array)
    text = " ".join([str(array.shape), *(f"{value:.8e}" for value in array.ravel().tolist())])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_the_store_is_the_one_of_then(demo):
    columns = {f"packet {name}": sha(demo.packet(name)) for name in PACKET_COLUMNS}
    columns |= {f"session {name}": sha(demo.session(name)) for name in SESSION_COLUMNS}
    columns |= {f"task {name}": sha(demo.labels(name)) for name in demo.tasks}
    assert columns == GOLDEN["columns"]
    assert demo.digest == GOLDEN["store"]


@pytest.mark.parametrize("case", GOLDEN["splits"], ids=lambda case: " ".join(map(str, case["asked"].values())))
def test_splits_are_those_of_then(demo, case):
    asked = dict(case["asked"])
    scheme = asked.pop("scheme")
    made = [split_of(demo, demo.default_task, scheme, seed=seed, **asked).digest for seed in (0, 1)]
    assert made == case["digests"]


def test_a_saved_split_is_the_one_of_then(demo, runs):
    assert split_of(demo, demo.default_task, "file", file=runs / "split.json").digest == GOLDEN["file"]


@pytest.mark.parametrize("name", registry.names())
def test_arrays_are_those_of_then(demo, name):
    labels = demo.labels(demo.default_task)
    rows = np.sort(np.random.default_rng(0).choice(np.flatnonzero(labels >= 0), 20, replace=False))
    samples = Samples(rows, np.zeros(20, np.int64), demo.session("packets")[rows].astype(np.int64))
    kind = registry.load(name)
    for preset, values in {"": {}, **kind.presets}.items():
        inputs = kind(make_parameters(kind, values), classes=6).represent(View(demo, samples, kind.reads))
        state = hashlib.sha256()
        for key in sorted(inputs):
            held = inputs[key]
            for array in (held.values, held.offsets) if isinstance(held, Ragged) else (held,):
                state.update((key + near_sha(array)).encode())
        assert state.hexdigest()[:16] == GOLDEN["arrays"][f"{name} {preset}".strip()], preset


def test_cards_are_those_of_then():
    assert {name: find_card(name).digest for name in card_names()} == GOLDEN["cards"]


def then(runs):
    """The store of the kept runs; MLflow opens no database of a later version than its own."""
    tracker = Tracker(runs, f"sqlite:///{runs / 'mlflow.db'}")
    try:
        tracker.search()
    except InputError as error:
        if "schema" not in str(error):
            raise
        pytest.skip("the runs were kept by a later MLflow than this one")
    return tracker


def test_twenty_runs_of_then_are_found_done(demo, runs):
    tracker = then(runs)
    kept = tracker.search()
    assert len(kept) == 20 and {record.status for record in kept} == {"done"}
    for record in kept:
        spec = spec_of(record)
        assert spec.digest == record.digest and spec.store == demo.digest
        outcome = execute(spec, tracker)
        assert (outcome.status, outcome.run_id) == ("cached", record.run_id)
        assert outcome.metrics == record.metrics


@pytest.fixture
def one_thread():
    """Sums of several threads differ in their last digits, and training carries that on."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_twenty_runs_are_the_same_today(demo, runs, tmp_path):
    """Computed again: the same samples, and the same probabilities but for the last digits of other processors."""
    old, new = then(runs), Tracker(tmp_path)
    for record in old.search():
        spec = spec_of(record, split_file=runs / "split.json")
        outcome = execute(spec, new)
        assert outcome.status == "done", outcome.reason
        before, now = (tracker.load(run_id) for tracker, run_id in ((old, record.run_id), (new, outcome.run_id)))
        assert now.digest == before.digest
        first, second = before.predictions(), now.predictions()
        for name in ("classes", "session", "first", "truth", "groups"):
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=spec.name)
        if record.spec.method in OTHER_ANSWERS:
            continue
        np.testing.assert_allclose(first.probabilities, second.probabilities, atol=1e-3, err_msg=spec.name)
        for name in ("accuracy", "macro_f1", "macro_f1_low", "validation_macro_f1", "training_accuracy"):
            assert outcome.metrics[name] == pytest.approx(record.metrics[name], abs=1e-3), (spec.name, name)


def spec_of(record, split_file=None):
    given = record.spec.split.file and split_file
    return changed(record.spec, split_file=str(split_file)) if given else record.spec
