"""A suite as a TOML file: what is run on what, so that another machine can run exactly that.

Shipped ones are files of the folder ``suites/``; ``bench run --save-plan FILE`` writes one of any matrix.
"""

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.errors import InputError, instead
from bench.files import read_toml, shipped_folder, typed_path, write_text
from bench.method import file_parameters
from bench.runs.plan import split_digest
from bench.runs.registry import describe, moved, spelled
from bench.spec import NEW_FIELDS, RunSpec, Settings, SplitSpec
from bench.structure import FieldError, Ruled, rule, structured

FORMAT: Final = "bench-suite-1"
DIGITS: Final = 16  # hex digits of a digest that a suite names
FIELD_OF: Final = {  # what of a portion an error of its split is about
    "bad-fold": "folds",
    "bad-class-size": "max_per_class",
    "unknown-filter": "filter",
    "bad-sampling": "sampling",
    "unknown-balance": "balance",
}
HELD: Final = re.compile(r"[0-9a-f]{8,64}")  # the start of a digest that holds something to it
HELD_WORDS: Final = "must be the first 8 to 64 hexadecimal digits of a digest, or left out"


@dataclass(frozen=True)
class Portion(Ruled):
    """A task of a data set, and its splits: one a seed and fold."""

    name: str
    task: str
    split: str  # a scheme
    store: str = ""  # digest, or the start of it; empty: whatever state of the data set is here
    seeds: tuple[int, ...] = (0,)
    folds: int | None = None
    fold: int | None = None  # of these one alone
    max_per_class: int | None = None
    min_per_class: int | None = None
    min_groups: int | None = None
    filter: str = "none"
    sampling: str = "session"
    balance: str | None = None
    file: str | None = None  # of scheme "file", as seen from the suite's
    splits: dict[str, str] = field(default_factory=dict)  # digests by `place_of`; empty: not held to any

    @rule("split", "seeds", "folds", "fold", "filter", "sampling", "balance", "file", "max_per_class")
    def _split_can_be(self) -> Iterator[FieldError]:
        if self.split.partition(":")[0] == "auto":
            yield FieldError("split", "auto says not which; give the scheme (`bench split` tells it)")
            return
        try:
            _ = self.spec
        except InputError as error:
            yield FieldError(FIELD_OF.get(error.code, "split"), str(error))
        if self.split == "file" and self.file is None:
            yield FieldError("file", 'is missing: name the split\'s file, or take another split than "file"')
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            yield FieldError("seeds", "must be one or more, each once")

    @rule("store", "splits")
    def _digests_hold(self) -> Iterator[FieldError]:
        named = {f"splits.{place}": digest for place, digest in self.splits.items()}
        for name, digest in (named | ({"store": self.store} if self.store else {})).items():
            if not HELD.fullmatch(digest):
                yield FieldError(name, HELD_WORDS)

    @rule("splits", "seeds", "folds", "fold", "split", "filter", "sampling", "balance", "file", "max_per_class")
    def _digests_are_of_its_splits(self) -> Iterator[FieldError]:
        try:
            places = [place_of(one) for one in self.each]
        except InputError:  # `_split_can_be` tells it
            return
        for place in self.splits.keys() - set(places):
            yield FieldError(f"splits.{place}", f"is none of its splits; {instead(place, places)}")
        if self.splits and (missing := [place for place in places if place not in self.splits]):
            yield FieldError("splits", f"has no digest of {', '.join(missing)}; give all, or none")

    @property
    def spec(self) -> SplitSpec:
        """The split, for all seeds and folds.  Raises :class:`InputError` for what none can be."""
        names = ("folds", "fold", "max_per_class", "file", *NEW_FIELDS)
        digest = split_digest(Path(self.file)) if self.file and Path(self.file).is_file() else None
        return SplitSpec(self.split, **{name: getattr(self, name) for name in names}, file_digest=digest)

    @property
    def each(self) -> list[SplitSpec]:
        """A split for each seed and fold."""
        return [dataclasses.replace(one, seed=seed) for seed in self.seeds for one in self.spec.each_fold()]

    def is_of(self, spec: RunSpec) -> bool:
        """Whether a run is of this task, state of the data set and one of these splits."""
        same = (spec.dataset, spec.task) == (self.name, self.task) and spec.store.startswith(self.store)
        return same and any(_in_place(one) == _in_place(spec.split) for one in self.each)


def _in_place(split: SplitSpec) -> SplitSpec:
    """Without where a split file lies; its content has a digest."""
    return dataclasses.replace(split, file=None)


def place_of(split: SplitSpec) -> str:
    """What a suite calls one of the splits of a portion.

    >>> place_of(SplitSpec("capture", seed=1, folds=5, fold=0))
    'seed 1, fold 0'
    """
    return f"seed {split.seed}" + ("" if split.fold is None else f", fold {split.fold}")


@dataclass(frozen=True)
class Contender(Ruled):
    """A method and its settings."""

    name: str
    preset: str | None = None
    set: dict[str, Any] = field(default_factory=dict)
    epochs: int | None = None
    source: str = ""  # digest of its file, where it is not shipped; empty: whatever the file holds
    datasets: tuple[str, ...] = ()  # only on these; on all by default
    files: dict[str, str] = field(default_factory=dict)  # digests of what parameters name; empty: whatever is there

    @rule("files", "set")
    def _files_are_named(self) -> Iterator[FieldError]:
        for name, digest in self.files.items():
            if name not in self.set:
                yield FieldError(f"files.{name}", "is no parameter that `set` has; name its file there")
            elif not HELD.fullmatch(digest):
                yield FieldError(f"files.{name}", HELD_WORDS)

    @rule("epochs")
    def _epochs_can_be(self) -> Iterator[FieldError]:
        if self.epochs is not None and self.epochs < 1:
            yield FieldError("epochs", "must be 1 or more")

    @property
    def label(self) -> str:
        """The method and its settings."""
        words = [*filter(None, [self.preset]), *(f"{name}={value}" for name, value in self.set.items())]
        words += [f"epochs={self.epochs}"] if self.epochs else []
        return self.name + (f" ({', '.join(words)})" if words else "")

    def placed(self, place: Callable[[str], str]) -> "Contender":
        """With its file, and those that its parameters name, where ``place`` has them.

        Of a method that is not there no parameters are known; who uses the suite tells it.
        """
        texts = {name: text for name, text in self.set.items() if isinstance(text, str) and text not in ("", "none")}
        try:
            named = file_parameters(describe(self.name)) if texts else []
        except InputError:
            named = []
        files = {name: place(text) for name, text in texts.items() if name in named}
        return dataclasses.replace(self, name=moved(self.name, place), set=self.set | files)

    @property
    def settings(self) -> Settings:
        """As `bench run` takes them."""
        return Settings(preset=self.preset, values=self.set, epochs=self.epochs)


@dataclass(frozen=True)
class Suite(Ruled):
    """All of an experiment."""

    format: str
    name: str
    datasets: tuple[Portion, ...]
    methods: tuple[Contender, ...]
    title: str = ""
    about: str = ""
    metrics: tuple[str, ...] = ()  # columns of its table
    trials: int = 0  # of each search of parameters, of every method alike; 0: it says nothing of tuning
    made_by: str = ""  # version of bench
    path: str = field(default="", init=False, compare=False)  # of its file; empty: it was not read from one

    @rule("format")
    def _format_is_known(self) -> Iterator[FieldError]:
        if self.format != FORMAT:
            yield FieldError("format", f"must be {FORMAT}")

    @rule("trials")
    def _trials_can_be(self) -> Iterator[FieldError]:
        if self.trials < 0:
            yield FieldError("trials", "must be 1 or more, or left out")

    @rule("datasets", "methods")
    def _contents_are_apart(self) -> Iterator[FieldError]:
        if not self.datasets:
            yield FieldError("datasets", "must name one or more")
        first: dict[tuple[str, str, str, SplitSpec], int] = {}
        for number, one in enumerate(self.datasets):
            owners = {first.setdefault((one.name, one.store, one.task, split), number) for split in one.each}
            if owners := owners - {number}:
                yield FieldError(f"datasets.{number}", f"has splits of datasets[{min(owners)}]; name each split once")
        for number, method in enumerate(self.methods):
            if method in self.methods[:number]:
                yield FieldError(f"methods.{number}", "is there twice")
            known = [one.name for one in self.datasets]
            for name in method.datasets:
                if name not in known:
                    yield FieldError(f"methods.{number}.datasets", f"{name!r} is none; {instead(name, known)}")

    @property
    def called(self) -> str:
        """Its name; of a file that has a shipped suite's, with what tells the two apart."""
        if self.path in ("", str(_shipped(self.name))) or self.name not in suite_names():
            return self.name
        if self.text() == read_suite(self.name).text():
            return self.name
        digest = hashlib.sha256(self.text().encode()).hexdigest()[:8]
        return f"{self.name} (of {Path(self.path).name}, {digest}; not the shipped one)"

    def changed(self, **fields: Any) -> "Suite":
        """The suite of the same file with other fields."""
        made = dataclasses.replace(self, **fields)
        object.__setattr__(made, "path", self.path)
        return made

    def portion_of(self, spec: RunSpec) -> Portion | None:
        """The portion that a run belongs to."""
        return next((one for one in self.datasets if one.is_of(spec)), None)

    @contextmanager
    def at(self, one: Portion | Contender) -> Iterator[None]:
        """Have every :class:`InputError` from inside name the suite's file and, of what is in it, the place there."""
        try:
            yield
        except InputError as error:
            for name, entries in (("datasets", self.datasets), ("methods", self.methods)):
                if one in entries:
                    raise error.within(f"{self.path or self.name}: {name}[{entries.index(one)}]") from None
            raise

    def text(self, folder: Path | None = None) -> str:
        """The suite as TOML, without what is as by default.

        Files of splits and methods, and those that parameters name, are named as seen from the ``folder`` that it is
        for; without one by no more than their names.
        """
        import tomli_w

        def named(file: str) -> str:
            return Path(file).name if folder is None else os.path.relpath(file, folder)

        told = _told(dataclasses.replace(self, methods=tuple(one.placed(named) for one in self.methods)))
        for one in told.get("datasets", ()):
            if "file" in one:
                one["file"] = named(one["file"])
        last = {name: told.pop(name) for name in ("methods", "datasets") if name in told}
        return tomli_w.dumps(told | last, multiline_strings=True)

    def save(self, path: Path) -> None:
        """Write the suite as TOML.  Raises :class:`InputError` where that cannot be."""
        write_text(path, self.text(path.parent))


def _told(record: Any) -> dict[str, Any]:
    """The fields of a record that are not as by default, as TOML has them."""
    fields = {one.name: (getattr(record, one.name), one) for one in dataclasses.fields(record)}
    return {
        name: _plain(value)
        for name, (value, one) in fields.items()
        if one.init
        and value != one.default
        and not (one.default_factory is not dataclasses.MISSING and value == one.default_factory())
    }


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return _told(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, str | int | float | bool) else "none" if value is None else str(value)


def suite_names() -> list[str]:
    """The shipped suites."""
    return sorted(path.stem for path in shipped_folder("suites").glob("*.toml"))


def _shipped(name: str) -> Path:
    return shipped_folder("suites") / f"{name}.toml"


def read_suite(word: str) -> Suite:
    """A suite by its name, of the shipped ones, or by its file.

    Raises :class:`InputError` where there is none, with all that is wrong with the file.
    """
    names = suite_names()
    path = _shipped(word) if word in names else typed_path(word)
    if not path.is_file():
        what = "there is no such file" if path.suffix == ".toml" else f"there is no such suite; {instead(word, names)}"
        raise InputError("unknown-suite", f"{word}: {what}; `bench run … --save-plan FILE` writes one")
    try:
        raw = read_toml(path)
    except (OSError, ValueError) as error:
        raise InputError("wrong-suite", f"{path}: cannot be read as TOML ({error})") from None
    suite = structured(raw, Suite, str(path), code="wrong-suite")
    object.__setattr__(suite, "path", str(path))
    here = [one.placed(lambda file: str(path.parent / file)) for one in suite.methods]
    methods = [dataclasses.replace(one, name=spelled(one.name)) for one in here]
    return suite.changed(datasets=tuple(_placed(one, path.parent) for one in suite.datasets), methods=tuple(methods))


def _placed(portion: Portion, folder: Path) -> Portion:
    """With its split file as seen from here."""
    return portion if portion.file is None else dataclasses.replace(portion, file=str(folder / portion.file))


def suite_of(name: str, specs: Sequence[RunSpec], digests: Mapping[RunSpec, str]) -> Suite:
    """The suite of these runs, with the digests of their splits as far as ``digests`` has them.

    Methods that are run on some of the data sets alone say so.
    """
    from bench import __version__

    portions: dict[Any, list[RunSpec]] = {}
    methods: dict[Any, list[RunSpec]] = {}
    for spec in specs:
        portions.setdefault((spec.dataset, spec.task, spec.store, spec.but_place.split), []).append(spec)
        values = tuple(sorted(_plain(spec.parameters).items(), key=str))
        methods.setdefault((spec.method, spec.source, values), []).append(spec)
    datasets = tuple(_portion(runs, digests) for runs in portions.values())
    everywhere = {spec.dataset for spec in specs}
    contenders = []
    for (method, source, values), runs in methods.items():
        on = tuple(dict.fromkeys(spec.dataset for spec in runs))
        only = on if set(on) != everywhere else ()
        contenders.append(Contender(method, set=dict(values), source=source or "", datasets=only))
    return Suite(FORMAT, name, datasets, tuple(contenders), made_by=__version__)


def _portion(runs: Sequence[RunSpec], digests: Mapping[RunSpec, str]) -> Portion:
    """The portion of runs that differ in method, seed and fold alone."""
    head, split = runs[0], runs[0].split
    folds = {spec.split.fold for spec in runs}
    known = {place_of(spec.split): digests[spec][:DIGITS] for spec in runs if spec in digests}
    portion = Portion(
        name=head.dataset,
        task=head.task,
        split=split.scheme,
        store=head.store[:DIGITS],
        seeds=tuple(dict.fromkeys(spec.split.seed for spec in runs)),
        folds=split.folds,
        fold=split.fold if len(folds) == 1 else None,
        max_per_class=split.max_per_class,
        file=split.file,
        **split.unusual,
    )
    wanted = {place_of(one) for one in portion.each}
    return dataclasses.replace(portion, splits=known) if known.keys() == wanted else portion
