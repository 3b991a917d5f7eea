"""Bundles that were handed in: read, proved, and held against each other and against data sets that are here."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from bench.data.store import Store
from bench.errors import InputError, counted
from bench.files import file_sha256
from bench.splits.split import make_split
from bench.suites.contents import of_suite, part_of
from bench.suites.suite import Suite
from bench.tracking.bundle import UNPACK, Checked, checked_runs, is_same
from bench.tracking.record import Record, differs, shown
from bench.tracking.results import Predictions

SUFFIX: Final = ".zip"
ANSWERS: Final = "predictions.npz"

Place = tuple[str, ...]


class Submissions:
    """A folder of bundles, in the order of their names.

    A bundle that is damaged or doubtful is one line of ``faults``, and none of its runs is here.  Doubtful is one with
    a finished run that keeps no answers, with a run that another bundle has with other files, and with a run that had
    other test samples than another run of the same split.
    """

    def __init__(self, folder: Path) -> None:
        """Read it.  Raises :class:`InputError` where there is no bundle."""
        files = sorted(path for path in folder.glob("*") if path.suffix.lower() == SUFFIX)
        if not files:
            what = f"there is no bundle (*{SUFFIX}) in it" if folder.is_dir() else "there is no such folder"
            raise InputError("missing-file", f"{folder}: {what}; `bench results export FILE{SUFFIX}` writes a bundle")
        self.runs: dict[str, Checked] = {}  # by name, each once
        self.bundle_of: dict[str, str] = {}  # a bundle's file name, by the name of a run
        self.digests: dict[str, str] = {}  # SHA-256 of a bundle, by its file name
        packed = sorted(one.name for one in folder.glob("*") if one.suffix.lower() in UNPACK)
        self.faults: list[str] = [f"{name}: is packed and was not read; unpack it" for name in packed]
        self.notes: list[str] = []
        self._asked: dict[Place, tuple[str, str]] = {}  # where runs are alike: a bundle, and what it was asked
        for file in files:
            try:
                self._take(file)
            except InputError as error:
                self.faults.append(f"{file.name}: {str(error).removeprefix(f'{file}: ')}")

    @property
    def records(self) -> list[Record]:
        """The runs that tables show: of each bundle and specification one, oldest first."""
        return [record for bundle in self.digests for record in self.of(bundle)]

    def of(self, bundle: str) -> list[Record]:
        """Those of one bundle."""
        own = [one.record for name, one in self.runs.items() if self.bundle_of[name] == bundle]
        kept = {record.run_id: record for record in shown(own[::-1])}
        return [kept[record.run_id] for record in own if record.run_id in kept]

    @property
    def apart(self) -> list[str]:
        """A note for each method of which two bundles have the same run with two scores."""
        scores: dict[tuple[str, str], dict[str, float]] = {}
        for record in self.records:
            if record.status == "done":
                of_run = scores.setdefault((record.spec.method, record.digest), {})
                of_run[self.bundle_of[record.run_id]] = record.metrics["macro_f1"]
        found: dict[tuple[str, str, str], list[float]] = {}
        for (method, _), of_run in scores.items():
            for (one, first), (other, second) in itertools.combinations(of_run.items(), 2):
                if differs(first, second):
                    found.setdefault((method, one, other), []).append(abs(first - second))
        return [
            f"{method}: {counted(len(most), 'run')} of {one} and {other} are the same with other scores, macro_f1 up "
            f"to {max(most):.3f} apart"
            for (method, one, other), most in found.items()
        ]

    @property
    def alike(self) -> list[str]:
        """A note for each two methods that gave the very same answers: most likely one of them under two names."""
        first: dict[str, Record] = {}
        found: dict[tuple[str, ...], int] = {}
        for record in self.records:
            if (digest := record.files.get(ANSWERS)) is not None:
                one = first.setdefault(digest, record)
                pair = one.spec.method, self.bundle_of[one.run_id], record.spec.method, self.bundle_of[record.run_id]
                if one.spec.method != record.spec.method:
                    found[pair] = found.get(pair, 0) + 1
        return [
            f"{one} of {first_bundle} and {other} of {bundle} gave the very same answers in {counted(number, 'run')}"
            for (one, first_bundle, other, bundle), number in found.items()
        ]

    @property
    def remarks(self) -> list[str]:
        """All that is to be told of them."""
        return [*self.notes, *self.apart, *self.alike]

    def _take(self, file: Path) -> None:
        """Add a bundle whole, or raise :class:`InputError` and add nothing."""
        if not file.name.isprintable():  # such as bytes that are no UTF-8: the page could not tell it
            raise InputError("bad-bundle", f"{file.name!r}: has signs that no page shows; rename the file")
        asked, new = dict(self._asked), {}
        runs = checked_runs(file)
        for one in runs:
            name = one.record.run_id
            if one.record.status == "done":
                _check_asked(one, file.name, asked)
            if name not in self.runs:
                new[name] = one
            elif not is_same(self.runs[name].record, one.record):
                what = f"run {name[:8]} is not the one that {self.bundle_of[name]} has by this name"
                raise InputError("bad-bundle", f"{what}; remove one of the two")
        self._asked = asked
        self.runs |= new
        self.bundle_of |= dict.fromkeys(new, file.name)
        self.digests[file.name] = file_sha256(file)
        if double := len(runs) - len(new):
            self.notes.append(f"{file.name}: {counted(double, 'run')} also in a bundle before it, shown once")


def _check_asked(one: Checked, bundle: str, asked: dict[Place, tuple[str, str]]) -> None:
    """That a finished run keeps answers, to the same test samples as others of its split; it joins ``asked``."""
    record = one.record
    name = f"run {record.run_id[:8]}"
    if not one.questions:
        what = f"{name} keeps no answers, so that its scores cannot be computed again"
        raise InputError("bad-bundle", f"{what}; leave it out, or run it again")
    if "interval_groups" not in record.metrics:
        what = f"{name} has intervals of an earlier version, which cannot be computed again"
        raise InputError("bad-bundle", f"{what}; leave it out, or run it again")
    if not record.split:
        return
    place = (record.spec.dataset, record.spec.task, record.spec.store, record.split)
    other, questions = asked.setdefault(place, (bundle, one.questions))
    if questions != one.questions:
        what = f"{name} has other test samples or classes than a run of {other} on the same split"
        raise InputError("bad-bundle", f"{what}; --check tells which is wrong where the data set is prepared")


def held_against_data(found: Submissions, suite: Suite | None) -> Iterator[str]:
    """A line for each bundle with a run whose split or test samples are not those of the data set that is here, and for
    each that has nothing for the suite.

    Runs on what is not here in the same state, or on a split file, cannot be held against it: a note of ``found``
    counts them.
    """
    known: dict[Place, tuple[str, str]] = {}
    unknown = 0
    for bundle in found.digests:
        runs = [found.runs[record.run_id] for record in found.of(bundle) if record.status == "done"]
        if suite is not None:
            belong = [one.record for one in runs if suite.portion_of(one.record.spec)]
            if not belong:
                yield f"{bundle}: none of its finished runs is of suite {suite.name}"
            found.notes += [f"{bundle}: {line}" for line in _lacking(suite, belong, found.of(bundle))]
            if others := len(runs) - len(belong):
                found.notes.append(f"{bundle}: {counted(others, 'finished run')} not of suite {suite.name}")
        for one in runs:
            try:
                here = _asked_here(one.record, known)
            except InputError as error:
                yield f"{bundle}: run {one.record.run_id[:8]}: {error}"
                break
            unknown += here is None
            if here is not None and here != (one.record.split or here[0], one.questions):
                what = "its split or test samples are not those of the data set here"
                yield f"{bundle}: run {one.record.run_id[:8]}: {what}; run it again"
                break
    if unknown:
        what = "not held against their data sets: these are not prepared here in the same state, or have a split file"
        found.notes.append(f"{counted(unknown, 'run')} {what}")


def _lacking(suite: Suite, belong: Sequence[Record], records: Sequence[Record]) -> list[str]:
    """What a bundle has not of the suite, of each of its methods."""
    methods = list(dict.fromkeys(record.spec.method for record in belong))
    _, notes = of_suite(part_of(suite, methods, []), records) if methods else ([], [""])
    return notes[1:]


def _asked_here(record: Record, known: dict[Place, tuple[str, str]]) -> tuple[str, str] | None:
    """The digest of a run's split and what its test part asks, computed here; None where that cannot be."""
    from bench.runs.attempt import scored_classes

    spec = record.spec
    try:
        store = Store.find(spec.dataset)
    except InputError:
        return None
    if store.digest != spec.store or spec.split.file:
        return None
    place = (spec.dataset, spec.task, repr(spec.split))
    if place not in known:
        split = make_split(store, spec.task, spec.split)
        classes, test = scored_classes(split, store), split.test
        truth = split.to_scored_classes(store.labels(spec.task)[test.session])
        nothing = np.empty((len(truth), len(classes)), np.float32)
        asked = Predictions(classes, test.session, test.first, truth, split.groups["test"], nothing)
        known[place] = split.digest, asked.questions
    return known[place]
