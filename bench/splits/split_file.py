"""Splits as JSON files.  What a split promises is verified by `bench.splits.checks` after it is read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.errors import InputError
from bench.files import read_json, write_json
from bench.schema import Samples
from bench.spec import NEW_FIELDS, SplitSpec
from bench.splits.assignment import PARTS
from bench.structure import FieldError

FORMAT: Final = "bench-split-1"
REMEDY: Final = "make the file with bench split"


@dataclass(frozen=True)
class Windows:
    """One part: lists of one length, a window each; fields as in `schema.Samples`."""

    session: list[int]
    first: list[int]
    count: list[int]

    def __post_init__(self) -> None:
        if not len(self.session) == len(self.first) == len(self.count):
            raise FieldError("session", f"is not as long as the part's other lists; {REMEDY}")

    def samples(self, stride: int) -> Samples:
        """The windows.  Raises :class:`InputError` for a number that is too large."""
        try:
            session, first, count = (np.array(numbers, np.int64) for numbers in vars(self).values())
        except OverflowError:
            raise InputError("wrong-split-file", f"a window's number is too large; {REMEDY}") from None
        return Samples(session, first, count, stride)


@dataclass(frozen=True)
class SplitFile:
    """What such a file holds; a file made by hand may leave out what has a default."""

    format: str
    store: str
    dataset: str
    task: str
    scheme: str
    train: Windows
    validation: Windows
    test: Windows
    digest: str | None = None
    seed: int = 0
    fold: int | None = None
    folds: int | None = None
    max_per_class: int | None = None
    shares: tuple[float, ...] = ()
    dropped: dict[str, int] = field(default_factory=dict)
    filter: str = "none"
    sampling: str = "session"
    balance: str = "keep"
    min_per_class: int | None = None
    min_groups: int | None = None

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise FieldError("format", f"must be {FORMAT}; {REMEDY}")
        if (self.fold is None) != (self.folds is None):
            raise FieldError("fold", f"stands with folds, or neither; {REMEDY}")
        if len(self.shares) not in (0, len(PARTS)) or not all(0 <= share <= 1 for share in self.shares):
            raise FieldError("shares", f"must be three numbers from 0 to 1, or none; {REMEDY}")
        if any(number < 0 for number in self.dropped.values()):
            raise FieldError("dropped", f"must hold counts; {REMEDY}")
        for name in ("store", "dataset", "task", "scheme"):
            if len(getattr(self, name).splitlines()) > 1:
                raise FieldError(name, f"must be one line; {REMEDY}")

    @property
    def spec(self) -> SplitSpec:
        """What the split was made from.  Raises :class:`InputError` for what no split can be."""
        names = ("scheme", "seed", "fold", "folds", "max_per_class", *NEW_FIELDS)
        return SplitSpec(**{name: getattr(self, name) for name in names})


def write_split_file(path: Path, head: Mapping[str, Any], parts: Mapping[str, Samples]) -> None:
    """Write a split.  Raises :class:`InputError` where that cannot be."""
    lists = {
        name: {"session": part.session.tolist(), "first": part.first.tolist(), "count": part.count.tolist()}
        for name, part in parts.items()
    }
    write_json(path, {"format": FORMAT, **head, **lists}, indent=None)


def read_split_file(path: Path) -> SplitFile:
    """A split file's content.  Raises :class:`InputError` with the place where a type or value is wrong."""
    if not path.is_file():
        raise InputError("missing-file", f"{path}: no such split file; {REMEDY}")
    return read_json(path, SplitFile, f"a split file of format {FORMAT}", strict=True, code="wrong-split-file")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have every :class:`InputError` from inside name the file."""
    try:
        yield
    except InputError as error:
        raise error.within(path) from None
