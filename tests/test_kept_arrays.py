"""Arrays that are kept: a session is represented once, and nothing else about a result changes."""

import dataclasses
import errno
import json
import math
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from asked import planned, run_spec
from refusals import refused
from telling import (
    Classes,
    Drawing,
    Failing,
    Handing,
    Leaves,
    Looking,
    Masked,
    Parameters,
    Remembering,
    Seeded,
    Sharing,
    Smuggling,
    Strided,
    Telling,
)
from tiny_store import write_store

from bench import readers
from bench.analysis.tables import kept_notes
from bench.method import Monitor
from bench.readers import Ragged
from bench.runs import guards, kept_arrays, registry
from bench.runs.attempt import AttemptMonitor, attempt, fit_and_validate
from bench.runs.execute import execute
from bench.runs.guards import ContractBroken
from bench.schema import Samples
from bench.tracking.tracker import Tracker

pytestmark = pytest.mark.usefixtures("no_run_was_before")  # of all classes here, which share this module
SESSIONS, CLASSES, FOLDS = 150, 3, 5
TESTED = 30  # of a fold; the fitted object represents them whatever is kept
FIRST = SESSIONS + TESTED  # that are asked for where arrays are kept: the tested ones by a new object, too
CODE = "the code"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.delenv("BENCH_KEPT_ARRAYS", raising=False)
    monkeypatch.setattr(kept_arrays, "WORTH_SECONDS", 0)
    monkeypatch.setattr(kept_arrays, "READ_BYTES", math.inf)
    monkeypatch.setattr(kept_arrays, "is_shipped", lambda kind: True)
    return tmp_path / "home"


def made(make_store, digest="0" * 64):
    row, random = np.arange(SESSIONS), np.random.default_rng(0)
    sizes = 1 + row % 7
    sessions = {"capture": row // 10, "conversation": row, "start": row, "packets": sizes}
    sessions["first_packet"] = np.cumsum(sizes) - sizes
    label = row % CLASSES
    packets = {"length": 100 * np.repeat(label, sizes) + random.integers(40, 400, sizes.sum())}
    packets |= {"time": np.arange(sizes.sum()) ** 2, "direction": random.choice([-1, 1], sizes.sum())}
    packets |= {"payload_length": packets["length"] - 40}
    return make_store(sessions, packets, [bytes(64)] * 15, labels=label, digest=digest)


@pytest.fixture
def store(make_store):
    return made(make_store)


def attempted(kind, store, *, code=CODE, **fields):
    fields = {"split": "session", "folds": FOLDS, "fold": 0} | fields
    spec = run_spec(kind.name, store.name, "task", **fields)
    return attempt(spec, store, kind, AttemptMonitor(), code=code)


def calls():
    """The numbers of samples that were asked for since the last question, without those of checks."""
    file = Path(os.environ["CALLS"])
    told = [int(line) for line in file.read_text().split()] if file.exists() else []
    file.unlink(missing_ok=True)
    return [number for number in told if number > guards.ASKED]


@pytest.fixture(autouse=True)
def checks_ask_for_few(monkeypatch):
    """Few enough to be told from a part."""
    monkeypatch.setattr(guards, "ASKED", 5)
    monkeypatch.setattr(kept_arrays, "ASKED", 5)
    monkeypatch.setattr("bench.runs.attempt.ASKED", 5)


def entries(home):
    return sorted((home / "represented").glob("[!.]*/*"))


def nothing_is_left(home):
    return not list(home.rglob("*.npy")) and not list(home.glob("represented/.[0-9a-f]*"))


def same(one, other):
    """Whether two attempts say the same, to the bit."""
    assert one.predictions.probabilities.tobytes() == other.predictions.probabilities.tobytes()
    assert one.scores.to_dict() == other.scores.to_dict() and one.reads == other.reads
    costs = ("seconds", "peak_memory", "samples_kept")
    numbers = [{k: v for k, v in a.metrics.items() if not k.startswith(costs)} for a in (one, other)]
    assert numbers[0] == numbers[1]


def test_five_folds_represent_each_session_once(store, home):
    plain = [attempted(Telling, store, fold=fold, code="") for fold in range(FOLDS)]
    assert sum(calls()) == FOLDS * SESSIONS and not (home / "represented").exists()
    done = [attempted(Telling, store, fold=fold) for fold in range(FOLDS)]
    assert sum(calls()) == 2 * SESSIONS  # once, and once more where a session is tested, by the fitted object
    for one, other in zip(plain, done, strict=True):
        same(one, other)
    assert "samples_kept" not in done[0].metrics
    assert [one.metrics["samples_kept"] for one in done[1:]] == [SESSIONS - TESTED] * 4
    attempted(Telling, store, seed=7)
    assert calls() == [TESTED] and len(entries(home)) == 1
    plain_order = attempted(Telling, store, split="paper", folds=None, fold=None, code="")
    calls()
    same(plain_order, attempted(Telling, store, split="paper", folds=None, fold=None))
    assert calls() == [len(plain_order.split.test)]  # other samples more than once, all of them sessions that are known


@pytest.mark.parametrize("name", ["flowgnn", "bind", "cesnet-cnn"])
def test_what_is_found_gives_the_same_to_the_bit(store, name):
    """A network on ragged rows, trees on ragged rows, a network on arrays."""
    kind = registry.load(name)
    known = {one.name for one in dataclasses.fields(kind.Parameters)}
    values = {**kind.tiny, **{key: 1 for key in ("epochs", "pretraining_epochs") if key in known}}
    first, plain, again = (attempted(kind, store, parameters=values, code=code) for code in (CODE, "", CODE))
    assert again.metrics["samples_kept"] == SESSIONS - TESTED
    same(first, plain)
    same(plain, again)


def test_parameters_that_represent_reads_decide(store):
    attempted(Telling, store)
    calls()
    attempted(Telling, store, parameters={"step": 2})
    assert calls() == [TESTED]
    for other in ({"packets": 3}, {"width": 3}):  # one is read in represent, one in __init__
        attempted(Telling, store, parameters=other)
        assert sum(calls()) == FIRST
    attempted(Telling, store, parameters={"packets": 3, "step": 5})
    assert calls() == [TESTED]


def test_every_parameter_of_another_s_method_decides(store, monkeypatch):
    """What it reads may be hidden: an alias of its parameters, of which rare samples alone make use."""
    monkeypatch.setattr(kept_arrays, "is_shipped", lambda kind: kind.__module__.startswith("methods."))
    attempted(Telling, store)
    calls()
    attempted(Telling, store, parameters={"step": 2})
    assert sum(calls()) == FIRST
    attempted(Telling, store, fold=1)
    assert calls() == [TESTED]


def test_shipped_methods_read_parameters_by_one_name():
    """No alias, and no object of theirs that holds them: what `represent` reads is noted."""
    for name in registry.names():
        kind = registry.load(name)
        method = kind(kind.Parameters(), classes=3)
        assert not [key for key, value in vars(method).items() if key != "parameters" and value is method.parameters]


def test_parameters_that_another_object_reads_decide(store):
    attempted(Handing, store)
    calls()
    attempted(Handing, store, parameters={"step": 2})
    assert sum(calls()) == FIRST


def test_what_reads_all_parameters_is_noted():
    values = Parameters(step=3)
    for reads, names in [
        (lambda p: p.step, {"step"}),
        (lambda p: vars(p), {"packets", "width", "step"}),
        (dataclasses.asdict, {"packets", "width", "step"}),
        (lambda p: p == values and hash(p) == hash(values), {"packets", "width", "step"}),
        (lambda p: isinstance(p, Parameters) and p.__class__ is Parameters, set()),
    ]:
        read = set()
        assert reads(guards.noted(values, read)) and read == names


@pytest.mark.parametrize("change", ["store", "code", "method"])
def test_another_store_code_or_method_has_arrays_of_its_own(make_store, store, change):
    attempted(Telling, store)
    calls()
    other = made(make_store, "1" * 64) if change == "store" else store
    kind = type("Other", (Telling,), {"name": "other"}) if change == "method" else Telling
    attempted(kind, other, code="other code" if change == "code" else CODE)
    assert sum(calls()) == FIRST


@pytest.mark.parametrize("kind", [Seeded, Classes, Leaves, Drawing, Strided, Sharing, Masked])
def test_what_rests_on_more_than_samples_is_not_kept(store, home, kind):
    same(attempted(kind, store), attempted(kind, store))
    assert sum(calls()) == 2 * SESSIONS and nothing_is_left(home)


def test_what_a_fitted_object_says_of_samples_reaches_no_other_run(store):
    """Arrays of the test part are made by it; those that are kept of these samples are a new object's."""
    for fold in range(FOLDS):
        attempted(Smuggling, store, fold=fold)


@pytest.mark.parametrize(("kind", "error"), [(Failing, ArithmeticError), (Remembering, ContractBroken)])
def test_a_failed_run_keeps_nothing(store, home, kind, error):
    for _ in range(2):
        with pytest.raises(error):
            attempted(kind, store)
        assert nothing_is_left(home)
    Remembering.seen.clear()


def test_an_interrupt_keeps_nothing(store, home, monkeypatch):
    def stop(*_):
        assert list(home.rglob("*.npy"))
        raise KeyboardInterrupt

    monkeypatch.setattr(Telling, "predict_proba", stop)
    with pytest.raises(KeyboardInterrupt):
        attempted(Telling, store)
    assert nothing_is_left(home)


def damage_array(entry):
    file = entry / "0.0.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def damage_list(entry):
    about = json.loads((entry / "entry.json").read_text())
    about["parts"][0]["used"] = []
    (entry / "entry.json").write_text(json.dumps(about))


DAMAGE = {
    "array": damage_array,
    "list": damage_list,
    "shortened": lambda entry: os.truncate(entry / "0.1.npy", 100),
    "half": lambda entry: (entry / "entry.json").unlink(),
    "missing": lambda entry: (entry / "0.windows.npy").unlink(),
    "foreign": lambda entry: shutil.copytree(entry, entry.with_name("foreign")) and shutil.rmtree(entry),
    "file": lambda entry: (shutil.rmtree(entry), entry.write_text("")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_entry_is_none(store, home, damage):
    first = attempted(Telling, store)
    calls()
    (entry,) = entries(home)
    damage(entry)
    same(first, attempted(Telling, store))
    assert sum(calls()) == FIRST
    attempted(Telling, store, fold=2)
    assert calls() == [TESTED] and len(entries(home)) == 1


def test_kept_arrays_that_are_not_what_the_method_makes_are_removed(store, home, monkeypatch):
    """It looks at what nothing notes; samples are asked for again before what was found is used."""
    attempted(Looking, store)
    calls()
    monkeypatch.setenv("SHIFT", "1")
    same(attempted(Looking, store, fold=1), attempted(Looking, store, fold=1, code=""))
    assert sum(calls()) == FIRST + SESSIONS and len(entries(home)) == 1


def test_a_link_or_a_pipe_among_entries_is_none(store, home, tmp_path):
    """What a link leads to is somebody's; a pipe would be waited for."""
    attempted(Telling, store)
    (entry,) = entries(home)
    theirs = tmp_path / "precious"
    shutil.copytree(entry, theirs)
    entry.with_name("0" * 32).symlink_to(theirs)
    entry.with_name("1" * 32).mkdir()
    os.mkfifo(entry.with_name("1" * 32) / "entry.json")
    calls()
    attempted(Telling, store)
    assert calls() == [TESTED] and (theirs / "entry.json").is_file() and entries(home) == [entry]


def test_what_was_used_least_recently_goes_first(store, home, monkeypatch):
    attempted(Telling, store)
    size = sum(file.stat().st_size for file in entries(home)[0].iterdir())
    monkeypatch.setenv("BENCH_KEPT_ARRAYS", str(2.5 * size / 2**30))
    os.utime(entries(home)[0], ns=(1, 1))
    attempted(Telling, store, code="second")
    attempted(Telling, store)  # found, and so used
    calls()
    os.utime(next(one for one in entries(home) if one.stat().st_mtime_ns > 1), None)
    attempted(Telling, store)
    attempted(Telling, store, code="third")
    assert len(entries(home)) == 2 and sum(calls()) == FIRST + TESTED
    attempted(Telling, store)
    assert calls() == [TESTED]
    monkeypatch.setenv("BENCH_KEPT_ARRAYS", str(size / 4 / 2**30))
    attempted(Telling, store, code="too large")
    assert sum(calls()) == SESSIONS and len(entries(home)) == 2


def test_the_limit(store, home, monkeypatch):
    monkeypatch.setenv("BENCH_KEPT_ARRAYS", "0")
    attempted(Telling, store)
    assert not (home / "represented").exists()
    for word in ("much", "-1", "nan", "inf", "1e308"):
        monkeypatch.setenv("BENCH_KEPT_ARRAYS", word)
        with refused("bad-variable", f"BENCH_KEPT_ARRAYS={word}", "GiB"):
            execute(run_spec("telling", "fake", "task"), None)
    monkeypatch.setenv("BENCH_KEPT_ARRAYS", "0.5")
    assert kept_arrays.limit() == 2**29


def test_a_full_disk_or_a_home_that_cannot_be_written_keeps_nothing(store, home, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "no space")

    plain = attempted(Telling, store, code="")
    for name in ("_save", "begun_folder", "put_in_place"):
        with monkeypatch.context() as patch:
            patch.setattr(kept_arrays, name, full)
            same(plain, attempted(Telling, store))
        assert nothing_is_left(home)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
    same(plain, attempted(Telling, store))
    assert nothing_is_left(home)


def test_what_is_quick_or_large_is_not_kept(store, home, monkeypatch):
    for name, value in [("WORTH_SECONDS", 1000), ("READ_BYTES", 1)]:
        with monkeypatch.context() as patch:
            patch.setattr(kept_arrays, name, value)
            attempted(Telling, store)
        assert nothing_is_left(home)


def test_what_is_worth_a_file_is_asked_of_all_parts_together(store, home, monkeypatch):
    """Three representations of 0.1 s are worth it; the share of the tested samples was taken of themselves alone."""
    ticks = iter(np.arange(0, 99, 0.1))
    monkeypatch.setattr(kept_arrays, "WORTH_SECONDS", 0.2)
    monkeypatch.setattr(kept_arrays.time, "perf_counter", lambda: next(ticks))
    attempted(Telling, store)
    assert len(entries(home)) == 1


def test_trials_and_runs_share(store, home):
    spec = run_spec("telling", store.name, "task", split="session", folds=FOLDS, fold=0)
    fits = [
        fit_and_validate(dataclasses.replace(spec, parameters={"step": step}), store, Telling, Monitor(), code=CODE)
        for step in (1, 1, 2)
    ]
    parts = calls()
    assert len(parts) == 2 and sum(parts) < SESSIONS  # no test part
    plain = fit_and_validate(spec, store, Telling, Monitor())
    assert plain.to_dict() == fits[0].to_dict() == fits[1].to_dict()
    calls()
    done = attempted(Telling, store)
    assert calls() == [TESTED, TESTED] and done.metrics["samples_kept"] == sum(parts) == SESSIONS - TESTED
    attempted(Telling, store, fold=3)  # of both entries
    assert calls() == [TESTED] and len(entries(home)) == 2


def test_runs_that_are_remembered_share(home, tmp_path, monkeypatch):
    """`execute` hands over the code's digest; without other code the second seed finds what the first kept."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = Tracker(tmp_path / "results")
    specs = planned(["ports"], [write_store(home)], split="capture", seeds=range(2))
    first, second = [execute(spec, tracker) for spec in specs]
    assert (first.status, second.status) == ("done", "done"), (first.reason, second.reason)
    assert "samples_kept" not in first.metrics and second.metrics["samples_kept"] == 90
    assert tracker.load(second.run_id).metrics["samples_kept"] == 90  # of 120, without the test part


def _in_a_process(store, fold, barrier):
    barrier.wait()
    attempted(Telling, store, fold=fold)


def test_two_processes(store, home):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    both = [context.Process(target=_in_a_process, args=(store, fold, barrier)) for fold in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert [one.exitcode for one in both] == [0, 0] and len(entries(home)) in (1, 2)
    calls()
    same(attempted(Telling, store, fold=4), attempted(Telling, store, fold=4, code=""))


def test_what_a_killed_process_left_goes(store, home):
    attempted(Telling, store)
    aside = kept_arrays.begun_folder(home / "represented" / "begun")
    parts = aside.name.split("-")
    left = aside.with_name("-".join([parts[0], parts[1], "4194999", *parts[3:]]))
    aside.rename(left)
    attempted(Telling, store, code="other code")
    assert not left.exists() and len(entries(home)) == 2


@pytest.mark.parametrize("size", [0, 1, 5])
def test_rows_come_back_in_any_order(monkeypatch, size):
    """In pieces of two rows, of arrays and of rows of unequal length, some of them empty."""
    monkeypatch.setattr(readers, "CHUNK_ROWS", 2)
    monkeypatch.setattr(readers, "CHUNK_BYTES", 16)
    random = np.random.default_rng(size)
    array, sizes = random.integers(0, 9, (20, 3)), random.integers(0, 3, 20)
    ragged = Ragged(random.random((sizes.sum(), 2)), kept_arrays.offsets_of(sizes))
    asked = random.integers(0, 20, 3 * size)
    part = np.arange(3 * size) % 2
    pieces = [(values, np.flatnonzero(part == one), asked[part == one]) for one in (0, 1) for values in [array]]
    np.testing.assert_array_equal(readers.gathered(pieces, len(asked)), array[asked])
    pieces = [(ragged, places, rows) for _, places, rows in pieces]
    found = readers.gathered_ragged(pieces, len(asked))
    np.testing.assert_array_equal(found.offsets, ragged[asked].offsets)
    np.testing.assert_array_equal(found.values, ragged[asked].values)


def test_windows_are_told_apart_by_all_that_they_are():
    known = np.array([[3, 3, 1, 3], [0, 0, 0, 2], [5, 4, 4, 4]])
    assert kept_arrays._first_places(known, known[:, [2, 0, 0, 3]]).tolist() == [2, 0, 0, 3]
    assert kept_arrays._first_places(known, np.array([[1], [0], [5]])) is None


def test_a_stride_is_another_window(store):
    one = np.arange(3)
    kept = kept_arrays.KeptArrays(kept_arrays.kept_path() / ("k" * 32), 1 << 30)
    method = Telling(classes=3)
    whole, every_other = Samples(one, 0 * one, 4 + 0 * one), Samples(one, 0 * one, 4 + 0 * one, 2)
    kept.write([kept.represent(method, store, whole)], 3)
    kept.confirm(method, store, whole, kept.represent(method, store, whole).inputs)
    kept.keep(method)
    again = kept_arrays.KeptArrays(kept_arrays.kept_path() / ("k" * 32), 1 << 30)
    assert not again.represent(method, store, whole).made and again.represent(method, store, every_other).made


def test_a_table_says_where_seconds_are_of_arrays_that_were_kept():
    def row(*kept):
        records = [type("R", (), {"metrics": {"samples_kept": float(one)} if one else {}}) for one in kept]
        return type("Row", (), {"done": records})

    assert kept_notes([row(0, 0)], ["seconds"]) == kept_notes([row(0, 5)], ["macro_f1"]) == []
    (note,) = kept_notes([row(0, 5), row(7)], ["macro_f1", "seconds_represent"])
    assert note.startswith("2 of 3 runs found arrays")
