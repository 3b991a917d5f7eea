"""What a suite means here: its matrix, held against this machine's stores and splits, and its runs of those stored."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from bench import __version__
from bench.data.names import find_card
from bench.data.store import Store
from bench.errors import InputError, counted, instead
from bench.method import files_of
from bench.runs.plan import WHOLE, chosen, expand, resolve, settled_words
from bench.runs.registry import describe, is_shipped
from bench.spec import RunSpec
from bench.splits.split import emptied_classes, make_split
from bench.suites.suite import DIGITS, Contender, Portion, Suite, place_of, suite_of
from bench.tracking.record import Record

REMEDY: Final = "other data give other scores; prepare it as the suite has it, or leave it out by --dataset"


def cells(
    suite: Suite,
    open_: Callable[[str], Store],
    methods: Sequence[str] = (),
    datasets: Sequence[str] = (),
    task: str | None = None,
) -> list[RunSpec]:
    """The runs of a suite, of some methods, data sets and a task alone where those are given.

    A method that the suite does not name runs at its defaults on all that is in it.  ``open_`` gives the store of a
    data set.  Raises :class:`InputError` for a data set or task that the suite does not have, a setting that cannot be,
    and a store, split or method file that is not the one whose digest the suite names, before anything is computed.
    """
    portions = chosen_portions(suite, datasets, task)
    contenders = contenders_of(suite, methods)
    for one in contenders:
        with suite.at(one):
            _check_contender(one)
    specs = []
    for portion in portions:
        with suite.at(portion):
            store = open_(portion.name)
            _check_store(portion, store)
            _check_splits(portion, store)
            if portion.spec.unusual:  # they may leave nothing
                emptied_classes(store, portion.task, portion.spec)
            specs += [
                spec
                for one in contenders
                if not one.datasets or portion.name in one.datasets
                for spec in expand([one.name], [store], portion.spec, task=portion.task, seeds=portion.seeds,
                                   settings=one.settings)
            ]  # fmt: skip
    if not specs:
        where = {f"{one.name} on {', '.join(one.datasets)}" for one in contenders}
        what = f"nothing is left of {suite.name}: it has {'; '.join(sorted(where))} alone"
        raise InputError("bad-options", f"{what}; choose that data set, or another method")
    return specs


def chosen_portions(suite: Suite, datasets: Sequence[str], task: str | None = None) -> list[Portion]:
    """The portions of these data sets, of all where none is given, and of them those of a task, if one is given.

    Raises :class:`InputError` for a data set that the suite does not have, and a task that it has not of these.
    """
    known = dict.fromkeys(one.name for one in suite.datasets)
    names = {word: word if word in known else find_card(word).name for word in datasets}
    for word, name in names.items():
        if name not in known:
            raise InputError("unknown-dataset", f"{suite.name} has no data set {word!r}; {instead(word, known)}")
    portions = [one for one in suite.datasets if not names or one.name in names.values()]
    if task is None:
        return portions
    for word in names or [""]:  # each that is named has it, else any
        tasks = dict.fromkeys(one.task for one in portions if not word or one.name == names[word])
        if task not in tasks:
            of = f" of {word}" if word else ""
            raise InputError("unknown-task", f"{suite.name} has no task {task!r}{of}; {instead(task, tasks)}")
    return [one for one in portions if one.task == task]


def contenders_of(suite: Suite, methods: Sequence[str]) -> list[Contender]:
    """The suite's own with these names, and others at their defaults; all of the suite where none is given.

    Raises :class:`InputError` where that is nobody.
    """
    if not methods and not suite.methods:
        raise InputError("bad-options", f"{suite.name} names no methods; give some by --method")
    own = [one for one in suite.methods if not methods or one.name in methods]
    return own + [Contender(name) for name in methods if name not in {one.name for one in own}]


def _check_contender(one: Contender) -> None:
    """That there is such a method with such settings, and that its file is the one that the suite names."""
    outlines, _, _ = settled_words([one.name], WHOLE, one.settings)
    outline = outlines[one.name]
    now = "" if is_shipped(one.name) else outline.digest
    if one.source and one.source != now:
        what = (
            f"{one.name} is not the file that the suite names (digest {one.source}, here {now or 'a shipped method'})"
        )
        raise InputError("suite-mismatch", f"{what}; take that file, or its source out of the suite")
    given = _files_of(one) if one.files else {}
    for name, digest in one.files.items():
        if not given.get(name, "").startswith(digest[:DIGITS]):
            what = f"{one.name}: {name}={one.set[name]} is not the file that the suite names (digest {digest})"
            raise InputError("suite-mismatch", f"{what}; take that file, or its digest out of the suite")


def _check_store(portion: Portion, store: Store) -> None:
    if not store.digest.startswith(portion.store):
        what = f"{portion.name} here has store {store.digest[: len(portion.store)]}, the suite names {portion.store}"
        raise InputError("suite-mismatch", f"{what}; {REMEDY}")


def _check_splits(portion: Portion, store: Store) -> None:
    for split in portion.each if portion.splits else ():
        wanted = portion.splits[place_of(split)]
        if not (here := make_split(store, portion.task, split).digest).startswith(wanted):
            what = f"{portion.name}, {split.label}, {place_of(split)}: its split is {here[: len(wanted)]} here"
            raise InputError("suite-mismatch", f"{what}, the suite names {wanted}; {REMEDY}")


def suite_with_digests(name: str, specs: Sequence[RunSpec]) -> Suite:
    """The suite of a matrix on the stores of this machine, with the digests of all its splits.

    Raises :class:`InputError` where a split cannot be made.
    """
    bare = suite_of(name, specs, {})
    return held(bare, {one.name: Store.find(one.name) for one in bare.datasets})


def held(suite: Suite, stores: Mapping[str, Store]) -> Suite:
    """The suite with the digests of these stores, by name, of their splits, and of files that methods are and name.

    Its data sets are those of the stores.

    Raises :class:`InputError` where a split cannot be made.
    """
    portions = []
    for one in suite.datasets:
        if (store := stores.get(one.name)) is not None:
            made = {place_of(split): make_split(store, one.task, split).digest[:DIGITS] for split in one.each}
            portions.append(dataclasses.replace(one, store=store.digest[:DIGITS], splits=made))
    sources = {one.name: "" if is_shipped(one.name) else describe(one.name).digest for one in suite.methods}
    contenders = [dataclasses.replace(one, files=_files_of(one), source=sources[one.name]) for one in suite.methods]
    return dataclasses.replace(narrowed_to(suite, portions, contenders), made_by=__version__)


def _files_of(one: Contender) -> dict[str, str]:
    """The start of the digest of each file that its settings name."""
    outlines = {one.name: describe(one.name)}
    given = files_of(outlines[one.name], resolve(one.name, outlines, one.settings))
    return {name: digest[:DIGITS] for name, digest in given.items() if name in one.set}


def part_of(suite: Suite, methods: Sequence[str], datasets: Sequence[str], task: str | None = None) -> Suite:
    """The suite of some methods, data sets and a task alone, where those are given; other methods join it.

    Raises :class:`InputError` for a data set or task that the suite does not have.
    """
    contenders = contenders_of(suite, methods) if methods else suite.methods
    return narrowed_to(suite, chosen_portions(suite, datasets, task), contenders)


def narrowed_to(suite: Suite, portions: Sequence[Portion], contenders: Sequence[Contender]) -> Suite:
    """The suite with these, of the contenders those that have something to do on the portions."""
    names = {one.name for one in portions}
    methods = [
        dataclasses.replace(one, datasets=tuple(name for name in one.datasets if name in names))
        for one in contenders
        if not one.datasets or names & set(one.datasets)
    ]
    return suite.changed(datasets=tuple(portions), methods=tuple(methods))


def of_suite(suite: Suite, records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """The records that belong to a suite, in their order, and notes on what is left out or missing.

    A run belongs to it whatever its method and settings, if its data set, store, task and split are the suite's; one
    whose split has another digest than the suite names, or none, is left out and counted.  So is one on another state
    of a data set than the one that was used last, where the suite names none.
    """
    kept, other, elsewhere = [], 0, Counter[str]()
    for record in records:
        if (portion := suite.portion_of(record.spec)) is None:
            spec = record.spec
            stores = [one.store for one in suite.datasets if (one.name, one.task) == (spec.dataset, spec.task)]
            elsewhere[spec.dataset] += bool(stores) and not any(map(spec.store.startswith, stores))
            continue
        wanted = portion.splits.get(place_of(record.spec.split), "")
        if record.status == "done" and not record.split.startswith(wanted):
            other += 1
            continue
        kept.append(record)
    kept, older = _of_one_state(suite, kept)
    notes = [f"suite {suite.called}{f': {suite.title}' if suite.title else ''}"]
    if other:
        notes.append(f"{counted(other, 'run')} on splits of other digests than the suite names left out")
    elsewhere.update(dict(older))
    notes += [
        f"{name}: {counted(number, 'run')} on another state of the data set left out"
        for name, number in elsewhere.items()
        if number
    ]
    known = {name for record in kept for name in record.metrics}
    if strange := [name for name in suite.metrics if known and name not in known]:
        notes.append(f"no run has {', '.join(strange)}, which the suite names as metrics")
    return kept, notes + _missing(suite, kept)


def _of_one_state(suite: Suite, records: Sequence[Record]) -> tuple[list[Record], list[tuple[str, int]]]:
    """The records, of a data set of which the suite names no store those on the state that was used last.

    And how many others each such data set has: on two states a number would be of two things.
    """
    free = {one.name for one in suite.datasets if not one.store}
    done = sorted((one for one in records if one.status == "done"), key=lambda one: one.started)
    last = {one.spec.dataset: one.spec.store for one in done if one.spec.dataset in free}
    kept = [one for one in records if last.get(one.spec.dataset, one.spec.store) == one.spec.store]
    other = Counter(one.spec.dataset for one in records)
    other.subtract(one.spec.dataset for one in kept)
    return kept, [(name, number) for name, number in other.items() if number]


def _missing(suite: Suite, records: Sequence[Record]) -> list[str]:
    """A note a contender on its runs that are not done, at its settings; one that cannot be done counts as done."""
    notes = []
    for one in suite.methods:
        with suite.at(one):
            wanted = _settings_of(one)
        cells = [(number, split.seed, split.fold) for number, portion in enumerate(suite.datasets)
                 if not one.datasets or portion.name in one.datasets for split in portion.each]  # fmt: skip
        there = {
            (number, *record.spec.place)
            for record in records
            if record.spec.method == one.name and record.status in ("done", "skipped") and not record.spec.tuned
            if wanted in (None, _plain(record.spec.parameters))
            for number, portion in enumerate(suite.datasets)
            if portion.is_of(record.spec)
        }
        if lacking := len(set(cells) - there):
            notes.append(f"{one.label}: {lacking} of {len(cells)} runs of the suite are not done")
    return notes


def fixed_in(suite: Suite, spec: RunSpec) -> frozenset[str]:
    """Parameters that the suite sets of a run of it, at their defaults or not: no search changes them."""
    outlines = {spec.method: describe(spec.method)}
    return frozenset(
        name
        for one in suite.methods
        if one.name == spec.method and resolve(one.name, outlines, one.settings) == spec.parameters
        for name in chosen(one.name, outlines, one.settings)
    )


def _settings_of(one: Contender) -> str | None:
    """A contender's parameters; None of a method that is not shipped, whose file is not read for a table."""
    if not is_shipped(one.name):
        return None
    return _plain(resolve(one.name, {one.name: describe(one.name)}, one.settings))


def _plain(parameters: Mapping[str, object]) -> str:
    return json.dumps(dict(parameters), sort_keys=True)
