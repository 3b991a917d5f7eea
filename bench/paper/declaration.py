"""A paper as it declares itself: a folder with ``paper.toml`` and a CSV file for each table or figure with numbers.

The next paper is such a folder; docs/reproducing.md describes every field.  Reading is strict: an unknown field or a
wrong type is refused with the file, the field and the reason.  Only the standard library and cattrs are imported.
"""

import csv
import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from bench.errors import InputError, all_wrong, instead
from bench.files import read_toml, shipped_folder, typed_path
from bench.spec import PAPER_PER_CLASS, PROTOCOLS
from bench.structure import FieldError, Ruled, rule, structured

FILE: Final = "paper.toml"
KINDS: Final = (
    "systems", "classes", "timing", "arms", "grid", "sweep", "attention", "weights", "training", "single",
)  # fmt: skip  # what is shown: see `bench.paper.tables_and_figures`
SWEPT: Final = ("grid", "sweep")  # those that are over values of parameters
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
ID: Final = re.compile(r"(table|fig)(-[A-Za-z0-9]+)+")
_WRITTEN: Final = re.compile(r"(tab|fig)(?:le|ure)?[\s._-]*(\d+|[ivxlc]+)", re.I)  # `table 6`, `Figure 7`, `Table VI`
_ROMAN: Final = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}


def _exhibit_of(word: str, ids: Iterable[str]) -> str | None:
    """The id that a word means: itself, or the table or figure of the same number, Roman or not."""
    known = list(ids)
    if word in known:
        return word
    number = _numbered(word)
    return next((one for one in known if number is not None and _numbered(one) == number), None)


def _numbered(word: str) -> tuple[str, int] | None:
    """Kind and number of a table or a figure."""
    if (found := _WRITTEN.fullmatch(word.strip())) is None:
        return None
    kind, numeral = found[1].lower(), found[2].lower()
    if numeral.isdigit():
        return kind, int(numeral)
    digits = [_ROMAN[letter] for letter in numeral]
    return kind, sum(-one if one < following else one for one, following in zip(digits, [*digits[1:], 0], strict=True))


def _bad_id(name: str) -> Iterator[FieldError]:
    if not ID.fullmatch(name):
        yield FieldError(
            "id", "must be table-NUMBER or fig-NUMBER, and -WORD after it if need be: it names files and folders"
        )


def _bad_method(field_: str, name: str) -> Iterator[FieldError]:
    """A declaration is data: whoever reproduces a paper runs no file that only the paper's folder names."""
    if ".py:" in name:
        yield FieldError(
            field_, "must be a shipped or installed method; `bench run --method FILE.py:CLASS …` runs a file"
        )


def _twice(field_: str, names: list[str]) -> Iterator[FieldError]:
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield FieldError(field_, f"{name} appears twice")


@dataclass(frozen=True)
class Arm(Ruled):
    """One system of an experiment."""

    label: str  # as the paper names it
    method: str
    key: str = ""  # by which its published numbers are found; the label where empty
    values: dict[str, Any] = field(default_factory=dict, hash=False)
    preset: str | None = None
    sampling: str | None = None  # how sessions become its samples, in every mode; None: the mode's own way

    @rule("method")
    def _method_is_no_file(self) -> Iterator[FieldError]:
        yield from _bad_method("method", self.method)

    @property
    def published(self) -> str:
        """The key of its published numbers."""
        return self.key or self.label


@dataclass(frozen=True)
class Over(Ruled):
    """Arms for every combination of parameter values."""

    method: str
    parameters: dict[str, tuple[Any, ...]]
    label: str  # with the values in braces
    key: str  # likewise
    axes: tuple[str, ...]  # what a picture calls the parameters
    taken: dict[str, Any] = field(default_factory=dict)  # what the paper takes, though it is not among those it tries

    @rule("method")
    def _method_is_no_file(self) -> Iterator[FieldError]:
        yield from _bad_method("method", self.method)

    def arms(self, every: int = 1) -> list[Arm]:
        """An arm for each combination; of each parameter one of every so many values, and what is taken."""
        values = [self._values(name, every) for name in self.parameters]
        combined = (dict(zip(self.parameters, one, strict=True)) for one in itertools.product(*values))
        return [Arm(self.label.format(**one), self.method, self.key.format(**one), one) for one in combined]

    def _values(self, name: str, every: int) -> list[Any]:
        taken = {self.taken[name]} if name in self.taken else set()
        return sorted({*self.parameters[name][::every], *taken})


@dataclass(frozen=True)
class Experiment(Ruled):
    """A table or a figure that can be made again."""

    id: str  # as on the command line
    title: str
    dataset: str  # the paper's
    kind: str  # of `KINDS`
    target: str  # what the paper finds
    systems: str | tuple[str, ...] = ()  # methods, each an arm under its name in the paper; or "all"
    arms: tuple[Arm, ...] = ()
    over: Over | None = None
    per_class: int = 0  # samples a class under the paper's order; 0: the paper's own number
    protocol: str = ""  # the paper's order, of `bench.spec.PROTOCOLS`; empty: windows, balanced, divided at random
    limit: int | None = None  # samples a class at most where the split is clean
    epochs: int | None = None  # None: each method's own
    metric: str = "accuracy"
    pairs: tuple[tuple[str, ...], ...] = ()  # labels of arms that are set against each other, the first less the second
    curves: dict[str, str] = field(default_factory=dict)  # name -> curve of a run, for kind weights

    @rule("id")
    def _id_is_one(self) -> Iterator[FieldError]:
        yield from _bad_id(self.id)

    @rule("kind")
    def _kind_is_known(self) -> Iterator[FieldError]:
        if self.kind not in KINDS:
            yield FieldError("kind", f"must be one of: {', '.join(KINDS)}")

    @rule("protocol")
    def _protocol_is_known(self) -> Iterator[FieldError]:
        if self.protocol and self.protocol not in PROTOCOLS:
            yield FieldError("protocol", f"must be one of: {', '.join(PROTOCOLS)}")

    @rule("pairs")
    def _pairs_are_two(self) -> Iterator[FieldError]:
        if any(len(pair) != 2 for pair in self.pairs):
            yield FieldError("pairs", "must hold pairs of labels")

    @rule("kind", "over")
    def _sweep_is_over_values(self) -> Iterator[FieldError]:
        if self.kind in SWEPT and self.over is None:
            yield FieldError("over", f"is missing: a {self.kind} is over values of parameters")

    @rule("kind", "curves")
    def _weights_have_curves(self) -> Iterator[FieldError]:
        if self.kind == "weights" and not self.curves:
            yield FieldError("curves", "is missing: weights are drawn from curves of runs")

    def arm(self, label: str) -> Arm:
        """The arm of that label."""
        return next(arm for arm in self.arms if arm.label == label)


@dataclass(frozen=True)
class Published(Ruled):
    """What the paper prints in a table or figure; the numbers stand in a CSV file."""

    id: str
    title: str
    notes: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()  # columns that name an arm; none where the numbers are not of arms
    long: bool = False  # a row a metric, with its standard deviation
    shares: bool = False  # numbers are shares, where other tables have percent

    @rule("id")
    def _id_is_one(self) -> Iterator[FieldError]:
        yield from _bad_id(self.id)

    @property
    def file(self) -> str:
        """`table_II` of table-II, `fig_06` of fig-6, `table_3_flow` of table-3-flow."""
        kind, *words = self.id.split("-")
        return "_".join([kind, words[0].zfill(2) if kind == "fig" else words[0], *words[1:]])


@dataclass(frozen=True)
class Comparison:
    """A table of several systems on one data set, for what its numbers imply."""

    table: str
    classes: str  # the table of the own system's classes on the same data
    elsewhere: str = ""  # the data set's name in the other paper
    balanced: int | None = None  # test samples of each class, where the paper says that they are equally many


@dataclass(frozen=True)
class OtherPaper:
    """Another paper, of which rows are copied; its numbers are shares, by ``dataset`` and ``id``."""

    file: str
    name: str
    tag: str  # of the rows that are said to be copied


@dataclass(frozen=True)
class Ablation:
    """A table of one system's parts on the balanced test set of a comparison."""

    table: str
    comparison: str


@dataclass(frozen=True)
class Paper(Ruled):
    """One paper: all of its folder's ``paper.toml``."""

    name: str
    title: str
    reference: str
    systems: dict[str, str]  # method -> its name in the paper, in the paper's order
    experiments: tuple[Experiment, ...]
    per_class: int = PAPER_PER_CLASS  # samples a class that its numbers imply
    trained: float = 0.7  # share of the samples that train
    provenance: dict[str, str] = field(default_factory=dict)  # tag of published rows -> what it means
    published: tuple[Published, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    source: OtherPaper | None = None
    ablation: Ablation | None = None
    folder: str = ""  # where it was read from

    @rule("name")
    def _name_names_folders(self) -> Iterator[FieldError]:
        if not NAME.fullmatch(self.name):
            yield FieldError("name", "must be letters, digits and -: it names folders")

    @rule(each="systems")
    def _system_is_no_file(self, method: str, _: str) -> Iterator[FieldError]:
        yield from _bad_method(f"systems.{method}", method)

    @rule("experiments")
    def _experiments_are_told_apart(self) -> Iterator[FieldError]:
        yield from _twice("experiments", [one.id for one in self.experiments])

    @rule("published")
    def _published_are_told_apart(self) -> Iterator[FieldError]:
        yield from _twice("published", [one.id for one in self.published])

    @rule("published", "comparisons")
    def _comparisons_are_of_tables(self) -> Iterator[FieldError]:
        for number, one in enumerate(self.comparisons):
            yield from self._no_table(f"comparisons.{number}", one.table, one.classes)

    @rule("published", "ablation")
    def _ablation_is_of_tables(self) -> Iterator[FieldError]:
        if self.ablation is not None:
            yield from self._no_table("ablation", self.ablation.table, self.ablation.comparison)

    def _no_table(self, field_: str, *names: str) -> Iterator[FieldError]:
        for name in names:
            if not self.has_numbers(name):
                yield FieldError(field_, f"{name} is none of the published tables")

    def experiment(self, name: str) -> Experiment:
        """An experiment by its id, however that is written (``table 6``).  Raises :class:`InputError`."""
        known = {one.id: one for one in self.experiments}
        if (meant := _exhibit_of(name, known)) is None:
            what = f"{self.name} has no {name!r} that can be reproduced"
            raise InputError("unknown-experiment", f"{what}; {instead(name, known)}")
        return known[meant]

    def printed(self, name: str) -> Published:
        """What is declared of published numbers.  Raises :class:`InputError` where there are none of that name."""
        known = {one.id: one for one in self.published if self.has_numbers(one.id)}
        if name not in known:
            raise InputError("unknown-experiment", f"no published numbers of {name!r}; {instead(name, known)}")
        return known[name]

    def has_numbers(self, name: str) -> bool:
        """Whether there are published numbers of that table or figure."""
        return any(one.id == name for one in self.published)

    def rows(self, name: str) -> list[dict[str, str]]:
        """The rows of a table or figure, every cell as it is printed.  Raises :class:`InputError` as `printed` does."""
        return self.read(self.printed(name).file)

    def read(self, file: str) -> list[dict[str, str]]:
        """The rows of one of the paper's CSV files."""
        with (Path(self.folder) / f"{file}.csv").open(encoding="utf-8", newline="") as lines:
            return list(csv.DictReader(lines))


def paper_folders() -> dict[str, Path]:
    """The folders of the shipped papers, by the name that each declares."""
    paths = sorted(shipped_folder("results").glob(f"*/{FILE}"))
    return {str(read_toml(path)["name"]): path.parent for path in paths}


def find_paper(name_or_folder: str | Path | None = None) -> Paper:
    """A shipped paper by its name (the only one where none is given), or that of a folder.

    Raises :class:`InputError` where there is none, its declaration is wrong, or it is called as a shipped one.
    """
    folders = paper_folders()
    if name_or_folder is None:
        return read_paper(next(iter(folders.values())))
    if str(name_or_folder) in folders:
        return read_paper(folders[str(name_or_folder)])
    folder = typed_path(name_or_folder)
    if (folder / FILE).is_file():
        paper = read_paper(folder)
        if paper.name in folders and replace(paper, folder="") != replace(read_paper(folders[paper.name]), folder=""):
            what = f"name = {paper.name!r} is that of a shipped paper, which declares something else"
            raise InputError("same-name", f"{folder / FILE}: {what}; give it another name")
        return paper
    raise InputError(
        "unknown-paper",
        f"no paper {str(name_or_folder)!r}; {instead(str(name_or_folder), folders)} (or give a folder with {FILE})",
    )


@functools.cache
def read_paper(folder: Path) -> Paper:
    """The paper of a folder.  Raises :class:`InputError` naming all that is wrong with the declaration."""
    path = folder / FILE
    try:
        raw = read_toml(path)
    except (OSError, ValueError) as error:
        raise InputError("bad-paper", f"{path}: cannot be read as a paper: {error}") from error
    paper = structured(raw, Paper, str(path), code="bad-paper")
    problems = [fault for one in paper.published for fault in _faults_of_numbers(folder, one)]
    experiments = []
    for one in paper.experiments:
        arms, faults = _arms_of(one, paper.systems)
        problems += [f"{one.id}: {fault}" for fault in faults]
        usual = PROTOCOLS[one.protocol]["max_per_class"] if one.protocol else paper.per_class
        experiments.append(replace(one, arms=arms, per_class=one.per_class or usual))
    if problems:
        raise all_wrong("bad-paper", path, problems)
    return replace(paper, experiments=tuple(experiments), folder=str(folder))


def _faults_of_numbers(folder: Path, published: Published) -> Iterator[str]:
    """Printed numbers that are not there, or lack what names their rows."""
    path = folder / f"{published.file}.csv"
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            head = next(csv.reader(lines), [])
    except (OSError, UnicodeDecodeError) as error:
        yield f"the printed numbers of {published.id} cannot be read ({error}); write them into {path.name}"
        return
    wanted = [*published.keys, *(("metric", "mean", "sd") if published.long else ())]
    if lacking := [repr(column) for column in wanted if column not in head]:
        yield f"{path.name} has no column {', '.join(lacking)}; its rows are named by {', '.join(wanted)}"


def _arms_of(experiment: Experiment, systems: Mapping[str, str]) -> tuple[tuple[Arm, ...], list[str]]:
    """The arms of an experiment, written out, and what is wrong with them."""
    names = tuple(systems) if experiment.systems == "all" else experiment.systems
    faults = [f"no system {name!r}; there are: {', '.join(systems)}" for name in names if name not in systems]
    arms = [*(Arm(systems[name], name, key=name) for name in names if name in systems), *experiment.arms]
    try:
        arms += experiment.over.arms() if experiment.over else []
    except (KeyError, IndexError, ValueError) as error:
        return (), [*faults, f"over.label or over.key names {error}, which is none of its parameters"]
    labels = [arm.label for arm in arms]
    strange = dict.fromkeys(label for pair in experiment.pairs for label in pair if label not in labels)
    if not faults:  # else a label is that of a system that is wrong itself
        faults += [f"pairs names {label!r}, which is not an arm's label" for label in strange]
    if not arms and not faults:
        faults.append("has no arm; give systems, arms or over")
    return tuple(arms), faults
