"""Fixtures that several test files share."""

import contextlib
import importlib
import pkgutil
import sys
import threading
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import settings

import bench
import methods
from bench.schema import PACKET_COLUMNS, SESSION_COLUMNS

settings.register_profile("bench", deadline=None)  # no test asserts a time: machines are slow and shared
settings.load_profile("bench")

#: before any test: what is first imported while a name is patched that it takes would keep the patch, in some orders
for package in (bench, methods):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ModuleNotFoundError):  # later Pythons are tested without torch
                importlib.import_module(module.name)


@pytest.fixture(autouse=True)
def nothing_patched_outlives_its_test(monkeypatch):
    """What a test patches is as before when it ends, wherever else it was put meanwhile."""
    yield
    first = {}
    for at, name, was in monkeypatch._setattr:
        if hasattr(at, "__dict__"):
            first.setdefault((id(at), name), (vars(at).get(name), was))
    fakes = [now for now, was in first.values() if callable(now) and now is not was]
    assert not [name for (_, name), (_, was) in first.items() if any(was is fake for fake in fakes)]
    for module in [module for module in sys.modules if module.startswith(("bench.", "methods."))] if fakes else ():
        for name, value in list(vars(sys.modules[module]).items()):
            known = (id(sys.modules[module]), name) in first
            assert known or not any(value is fake for fake in fakes), f"{module}.{name} keeps a patch"


@dataclass
class FakeStore:
    """A store in memory, with the surface that readers and splits use."""

    sessions: dict[str, np.ndarray]
    packets: dict[str, np.ndarray]
    captures: list[np.ndarray]
    label: np.ndarray
    class_names: list[str]
    group: np.ndarray
    attributes: dict[str, np.ndarray]
    name: str
    digest: str
    tasks = ("task",)
    lacks: ClassVar = {}
    of_records = False
    traits = None
    default_task = "task"

    def session(self, column):
        return self.sessions[column]

    def packet(self, column):
        return self.packets[column]

    def capture_bytes(self, capture):
        return self.captures[capture]

    def classes(self, task):
        return self.class_names

    def labels(self, task):
        return self.label

    def capture_group(self):
        return self.group

    def capture_attribute(self, name):
        return self.attributes[name]


def _columns(kinds, given, size):
    unknown = set(given) - set(kinds)
    assert not unknown, unknown
    columns = {name: np.asarray(given.get(name, np.zeros(size)), kind) for name, kind in kinds.items()}
    for column in columns.values():
        assert len(column) == size
        column.flags.writeable = False
    return columns


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where the conformance suite keeps its traffic, which is made once for all files that ask methods."""
    return tmp_path_factory.mktemp("conformance", numbered=False)


@pytest.fixture(scope="session")
def make_store():
    """Build a store from columns; those not given are zero (packets of a session: 1)."""

    def make(
        sessions,
        packets=None,
        captures=(),
        labels=None,
        classes=None,
        capture_group=None,
        attributes=None,
        name="fake",
        digest="0" * 64,
    ):
        size = len(next(iter(sessions.values())))
        sessions = {"packets": np.ones(size)} | dict(sessions)
        packets = packets or {}
        packet_count = len(next(iter(packets.values()))) if packets else 0
        labels = np.asarray(np.zeros(size) if labels is None else labels, np.int16)
        columns = _columns(SESSION_COLUMNS, sessions, size)
        if classes is None:
            classes = [f"class {c}" for c in range(labels.max(initial=-1) + 1)]
        group = columns["capture"] if capture_group is None else np.asarray(capture_group, np.int32)
        return FakeStore(
            sessions=columns,
            packets=_columns(PACKET_COLUMNS, packets, packet_count),
            captures=[np.frombuffer(bytes(c), np.uint8) for c in captures],
            label=labels,
            class_names=list(classes),
            group=group,
            attributes={key: np.asarray(value, np.int32) for key, value in (attributes or {}).items()},
            name=name,
            digest=digest,
        )

    return make


@pytest.fixture(scope="session")
def table_store(make_store):
    def make(table, **changes):
        sessions = {name: table[name] for name in ("conversation", "capture", "start")}
        names = [f"class {c}" for c in range(max(table["labels"].max() + 1, 1))]
        return make_store(sessions, labels=table["labels"], classes=names, **changes)

    return make


@pytest.fixture
def simple(table_store):
    """Two classes, ten conversations each of two sessions, in four captures."""
    row = np.arange(40)
    return {"labels": row % 4 // 2, "conversation": row // 2, "capture": row % 4, "start": row}


@pytest.fixture
def command_line(monkeypatch, capsys):
    """Call `bench` with words; gives exit status, standard output and standard error."""
    from bench import cli

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        out = capsys.readouterr()
        return end.value.code, out.out, out.err

    return call


@pytest.fixture
def torch_seeded():
    """Torch's generator at a known place, and put back afterwards."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def server(monkeypatch):
    """A server on the loopback address that stops with the test."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    from loopback import Server

    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def bench_in(monkeypatch, command_line):
    """Call `bench` with words in a folder, with stores of its own there; gives what `command_line` does."""

    def within(folder):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("BENCH_HOME", str(folder / "home"))
        for name in ("MLFLOW_TRACKING_URI", "BENCH_RESULTS"):
            monkeypatch.delenv(name, raising=False)
        return command_line

    return within


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A home with a store of sessions, and empty stores of runs that cost nothing."""
    from stored_runs import place_in

    with place_in(tmp_path_factory) as made:
        yield made


@pytest.fixture(scope="module")
def filled(place):
    """A store of seven runs."""
    return place.filled()


@pytest.fixture(scope="module")
def bundle(place, filled):
    """A bundle of them."""
    return place.bundle_of(filled)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results folder that the tests of pages show."""
    from reported import results_folder

    return results_folder(tmp_path_factory)


@pytest.fixture
def tracker(results, monkeypatch):
    """The store of runs in it."""
    from bench.tracking.tracker import Tracker

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Tracker(results)


@pytest.fixture
def no_run_was_before(monkeypatch):
    """No method has run in this process: the state of its module is taken anew."""
    from weakref import WeakKeyDictionary

    from bench.runs import guards

    monkeypatch.setattr(guards, "_FIRST", WeakKeyDictionary())
