"""Who can be ranked: the methods with finished runs on the same data sets, task and split, and the blocks they have."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.analysis.tables import Row, group, numbered
from bench.errors import InputError, counted
from bench.runs.run_labels import marked
from bench.scores.significance import FEWEST
from bench.suites.contents import of_suite
from bench.suites.suite import Suite
from bench.tracking.record import Record
from bench.tracking.selection import split_words

Block = tuple[int, int, int | None]  # number of the data set, seed, fold


@dataclass(frozen=True)
class Entry:
    """A method with its finished runs."""

    label: str  # the method and its settings
    rows: Sequence[Row]  # one a data set
    runs: Mapping[Block, Record]

    @property
    def marked(self) -> str:
        """The label with the signs of `bench.runs.run_labels.MARKS` that hold for any of its rows."""
        return marked(self.label, (mark for row in self.rows for mark in row.marks))


def ranking_entries(
    records: Sequence[Record], datasets: Sequence[str], *, split: str | None = None, methods: Sequence[str] = ()
) -> tuple[list[Entry], list[str]]:
    """The methods that can be ranked against each other on all ``datasets``, and notes on what is left out.

    ``split`` is a scheme, or a split's whole text as the refusal lists it; no ``methods`` are all.  Raises
    :class:`InputError` where runs are missing, or where several tasks or splits could be meant.
    """
    notes: list[str] = []
    if missing := set(methods) - {record.spec.method for record in records if record.status == "done"}:
        raise InputError("no-runs", f"compare: no finished runs of {', '.join(sorted(missing))} with these options")
    chosen = [record for record in records if not methods or record.spec.method in methods]
    by_dataset = [_rows(chosen, dataset, notes) for dataset in datasets]
    place = _place([{split_of(row) for row in rows} for rows in by_dataset], split, ", ".join(datasets))
    by_dataset = [[row for row in rows if split_of(row) == place] for rows in by_dataset]
    for dataset, rows in zip(datasets, by_dataset, strict=True):
        if len(tasks := {row.head.spec.task for row in rows}) > 1:
            there = ", ".join(sorted(tasks))
            raise InputError(
                "ambiguous-task", f"compare: {dataset}, {place}: several tasks; choose with --task: {there}"
            )
    return _entries(by_dataset, datasets, notes, lambda row: row.method), notes


def suite_entries(records: Sequence[Record], suite: Suite) -> tuple[list[Entry], list[str]]:
    """The methods that can be ranked against each other on all that is in a suite and has runs, and notes likewise.

    Raises :class:`InputError` where runs are missing.
    """
    of_all, notes = of_suite(suite, records)
    by_portion = [group([record for record in of_all if one.is_of(record.spec)]) for one in suite.datasets]
    done = [[row for row in rows if row.done] for rows in by_portion]
    notes += _of_one_data_set([one.name for one, rows in zip(suite.datasets, done, strict=True) if rows])
    there = [(f"{one.name}/{one.task}", rows) for one, rows in zip(suite.datasets, done, strict=True) if rows]
    notes += [
        f"{one.name}/{one.task}: not ranked on, it has no finished runs"
        for one, rows in zip(suite.datasets, done, strict=True)
        if not rows
    ]
    if not there:
        what = f"no finished runs of suite {suite.name}"
        raise InputError("no-runs", f"compare: {what}; `bench run --suite …` makes them")
    return _entries([rows for _, rows in there], [name for name, _ in there], notes, lambda row: row.contender), notes


def _of_one_data_set(names: Sequence[str]) -> list[str]:
    """What to know of data sets that are there several times: their tasks and splits share captures, even sessions."""
    return [
        f"{name}: {number} tasks or splits are of this data set; tests and intervals take them as independent, which "
        "they are not"
        for name, number in Counter(names).items()
        if number > 1
    ]


def _entries(
    by_dataset: Sequence[Sequence[Row]], names: Sequence[str], notes: list[str], label_of: Callable[[Row], str]
) -> list[Entry]:
    """The complete ones of rows by data set; what is left out is noted."""
    labels = dict.fromkeys(label_of(row) for rows in by_dataset for row in rows)
    entries = [
        _entry(label, [[row for row in rows if label_of(row) == label] for rows in by_dataset]) for label in labels
    ]
    return _complete(entries, names, notes)


def _rows(records: Sequence[Record], dataset: str, notes: list[str]) -> list[Row]:
    """Finished rows on the state of the data set that was used last: others may hold other sessions."""
    mine = [record for record in records if record.spec.dataset == dataset]
    done = [record for record in mine if record.status == "done"]
    if not done:
        raise InputError("no-runs", f"compare: no finished runs on {dataset} with these options; see `bench table`")
    store = max(done, key=lambda record: record.started).spec.store
    if older := sum(record.spec.store != store for record in done):
        notes.append(f"{dataset}: {older} runs on another state of the data set are left out")
    return [row for row in group([record for record in mine if record.spec.store == store]) if row.done]


def split_of(row: Row) -> str:
    """All that decides the test samples: split, folds, sampling, scale, file."""
    return split_words(row.head.spec.split)


def _place(places: Sequence[set[str]], split: str | None, datasets: str) -> str:
    """The one split of those asked for that all data sets have."""
    common = sorted(set.intersection(*places))
    meant = [place for place in common if split is None or f"{place}, ".startswith(f"{split}, ")]
    if split in meant or len(meant) == 1:
        return str(split if split in meant else meant[0])
    what = "several splits" if meant else "no such split that all have"
    there = "; ".join(f"'{place}'" for place in meant or common) or "none"
    raise InputError("ambiguous-split", f"compare: {datasets}: {what}; choose with --split: {there}")


def _entry(label: str, rows: Sequence[Sequence[Row]]) -> Entry:
    runs = {
        (number, *key): record
        for number, of_dataset in enumerate(rows)
        for row in of_dataset
        for key, record in numbered(row.done).items()
    }
    return Entry(label, [row for of_dataset in rows for row in of_dataset], runs)


def _complete(entries: Sequence[Entry], datasets: Sequence[str], notes: list[str]) -> list[Entry]:
    """Those that have all data sets, learned them, and have not so few blocks that nobody could be tested any more."""
    most = max(len(entry.runs) for entry in entries)
    kept = []
    for entry in entries:
        lacking = [name for n, name in enumerate(datasets) if not any(block[0] == n for block in entry.runs)]
        if lacking:
            notes.append(f"{entry.label}: left out, no runs on {', '.join(lacking)}")
        elif any("did-not-fit" in row.marks for row in entry.rows):
            notes.append(f"{entry.label}: not ranked, it did not fit its training samples{_accuracies(entry)}")
        elif len(entry.runs) < min(FEWEST, most):
            notes.append(f"{entry.label}: left out, {len(entry.runs)} of {most} blocks")
        else:
            kept.append(entry)
    if len(kept) < 2:
        raise InputError(
            "no-runs",
            f"compare: {counted(len(kept), 'method')} can be ranked on {', '.join(datasets)}, a ranking needs two"
            + "".join(f"; {note}" for note in notes if note.partition(":")[0] in {one.label for one in entries}),
        )
    return kept


def _accuracies(entry: Entry) -> str:
    """On training samples, from the least to the most of the runs."""
    known = [run.metrics["training_accuracy"] for run in entry.runs.values() if "training_accuracy" in run.metrics]
    return f" (accuracy {min(known):.2f} to {max(known):.2f} on them)" if known else ""
