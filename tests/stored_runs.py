"""Stores of runs for tests of what leaves and enters them: empty ones that cost nothing, and forged bundles."""

import hashlib
import json
import shutil
import zipfile
from contextlib import contextmanager

from tiny_store import tiny_home

from bench.data.store import Store
from bench.matrix.cells import run_matrix
from bench.runs.execute import RunOptions
from bench.runs.plan import expand
from bench.spec import SplitSpec
from bench.tracking.bundle import INDEX, STAMP, in_order, write_bundle
from bench.tracking.selection import stored_runs
from bench.tracking.tracker import Tracker

METHODS = """
import numpy as np
from methods.majority import Majority

class Curved(Majority):
    name = "curved"
    deviations = ("does not learn",)
    def fit(self, train, validation, monitor):
        for epoch in range(1, 4):
            monitor.log(epoch, loss=1 / epoch)
            monitor.epoch(epoch, 3, train_loss=1 / epoch, validation_macro_f1=0.1 * epoch)
        return super().fit(train, validation, monitor)
    def predict_proba(self, inputs):
        answers = super().predict_proba(inputs)
        return np.roll(answers, self.seed % 3, axis=1)

class Broken(Majority):
    name = "broken"
    def fit(self, train, validation, monitor):
        raise FloatingPointError("loss is nan")
"""


class Place:
    """A home with a store of sessions, own methods, and an empty database of runs to copy."""

    def __init__(self, folder, empty):
        self.folder, self.empty = folder, empty
        (folder / "own.py").write_text(METHODS)
        Tracker(empty)._client  # noqa: B018 (making a database takes seconds)
        self.number = 0

    def tracker(self):
        """An empty store of runs."""
        self.number += 1
        results = self.folder / f"results-{self.number}"
        results.mkdir()
        shutil.copy(self.empty / "mlflow.db", results)
        return Tracker(results)

    def copy(self, tracker):
        """The same store elsewhere."""
        self.number += 1
        results = self.folder / f"results-{self.number}"
        shutil.copytree(tracker.results, results)
        return Tracker(results)

    def file(self):
        """A path where nothing is."""
        self.number += 1
        return self.folder / f"bundle-{self.number}.zip"

    def bundle_of(self, tracker):
        """A bundle of all runs of a store."""
        file = self.file()
        write_bundle(tracker, stored_runs(tracker), file)
        return file

    def specs(self, *methods, seeds=range(3)):
        names = [f"{self.folder / 'own.py'}:{name}" if name[0].isupper() else name for name in methods]
        return expand(names, [Store.find("tiny")], SplitSpec("capture"), seeds=seeds)

    def run(self, tracker, *methods, seeds=range(3), **options):
        return list(run_matrix(self.specs(*methods, seeds=seeds), tracker, RunOptions(**options)))

    def filled(self):
        """A store: three runs of a method with curves, three of another, one that failed."""
        tracker = self.tracker()
        self.run(tracker, "Curved", "majority")
        self.run(tracker, "Broken", seeds=[0])
        return tracker


@contextmanager
def place_in(factory):
    """A `Place` while the block lasts; the empty database is shared by test files."""
    with tiny_home(factory, "stored") as folder:
        yield Place(folder, factory.getbasetemp() / "empty-store")


def members_of(file):
    with zipfile.ZipFile(file) as source:
        return {name: source.read(name) for name in source.namelist()}


def write_members(file, members, packing=zipfile.ZIP_STORED):
    """A bundle of these members in their order, whatever its index says."""
    with zipfile.ZipFile(file, "w", packing) as target:
        for name, content in members.items():
            target.writestr(zipfile.ZipInfo(name, STAMP), content, packing)
    return file


def indexed(members):
    """The members with an index whose digests are theirs, as one who forges a bundle writes it."""
    index = json.loads(members[INDEX])
    rest = {name: members[name] for name in in_order(members) if name != INDEX}
    index["members"] = {n: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in rest.items()}
    return {**rest, INDEX: json.dumps(index).encode()}


def forged(members, run, **files):
    """Members with other files of a run, whose record names their digests."""
    home = f"runs/{run}/"
    members = members | {f"{home}{name.replace('_', '.')}": content for name, content in files.items()}
    record = json.loads(members[f"{home}run.json"])
    for key, line in record["tags"].items():
        if key.startswith("file.") and f"{home}{line.partition('  ')[2]}" in members:
            name = line.partition("  ")[2]
            record["tags"][key] = f"{hashlib.sha256(members[home + name]).hexdigest()}  {name}"
    members[f"{home}run.json"] = json.dumps(record).encode()
    return indexed(members)
