"""Splits as JSON files: written aside and renamed, read strictly.  What a split promises is `bench.splits.split`'."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.errors import InputError
from bench.schema import Samples
from bench.splits.assignment import PARTS

FORMAT: Final = "bench-split-1"
REMEDY: Final = "make the file with bench split"
MOST_SEED: Final = 2**63 - 1
#: options that came after the format, and what they are where a file does not name them
OPTIONS: Final[dict[str, Any]] = {"filter": "none", "sampling": "session", "balance": "keep", "min_per_class": None}
_FIELDS: Final[dict[str, tuple[type, ...]]] = {  # of a file, with the types that JSON may give
    "store": (str,),
    "dataset": (str,),
    "task": (str,),
    "scheme": (str,),
    "seed": (int,),
    "shares": (list,),
    "dropped": (dict,),
    **dict.fromkeys(("filter", "sampling", "balance"), (str,)),
    **dict.fromkeys(("fold", "folds", "max_per_class", "min_per_class"), (int, type(None))),
}


def write_split_file(path: Path, head: Mapping[str, Any], parts: Mapping[str, Samples]) -> None:
    """Write a split.  Raises :class:`InputError` where that cannot be."""
    _check_seed(head["seed"])
    lists = {
        name: {"session": part.session.tolist(), "first": part.first.tolist(), "count": part.count.tolist()}
        for name, part in parts.items()
    }
    aside = path.parent / f".{path.name}.{os.getpid()}"
    try:
        aside.write_text(json.dumps({"format": FORMAT, **head, **lists}) + "\n")
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error.strerror}); name another file") from None


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have every :class:`InputError` from inside name the file."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{path}: {error}") from None


def read_split_file(path: Path) -> dict[str, Any]:
    """A split file's content with all keys of a split, checked for their types; the parts still as lists."""
    try:
        content = json.loads(Path(path).read_text("utf-8-sig"), object_pairs_hook=_once)
    except FileNotFoundError:
        raise InputError("no such split file; make one with bench split") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"not a split file ({error}); make one with bench split") from None
    needed = ("format", "store", "dataset", "task", "scheme", *PARTS)
    missing = [key for key in needed if not isinstance(content, dict) or key not in content]
    if missing or content["format"] != FORMAT:
        what = f"lacks {', '.join(missing)}" if missing else f"has {content['format']!r:.40}"
        raise InputError(f"not a split file of format {FORMAT} ({what}); make one with bench split")
    _check_keys(content, ("format", "digest", *_FIELDS, *PARTS), "")
    content = {"seed": 0, "shares": [], "dropped": {}, "fold": None, "folds": None, "max_per_class": None} | content
    content = OPTIONS | content
    for key, kinds in _FIELDS.items():
        if type(content[key]) not in kinds or len(str(content[key]).splitlines()) > 1:
            raise InputError(f"{key} = {content[key]!r:.40} cannot be; {REMEDY}")
    _check_values(content)
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, which holds every key once: of two values nobody can say which one is meant."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in content if names.count(name) > 1)
        raise InputError(f"key {twice!r:.40} stands twice; take one out, or {REMEDY}")
    return content


def _check_keys(content: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    if unknown := [key for key in content if key not in known]:
        raise InputError(f"unknown key {unknown[0]!r}{where}; known are {', '.join(known)}; take it out")


def _check_values(content: Mapping[str, Any]) -> None:
    """Refuse numbers that no split has."""
    _check_seed(content["seed"])
    fold, folds, shares = (content[key] for key in ("fold", "folds", "shares"))
    if any(type(n) is not int or n < 0 for n in content["dropped"].values()):
        raise InputError(f"dropped = {content['dropped']!r:.40} must hold counts; {REMEDY}")
    numbers = set(map(type, shares)) <= {int, float} and all(0 <= share <= 1 for share in shares)
    if not numbers or len(shares) not in (0, len(PARTS)):
        raise InputError(f"shares = {shares!r:.40} must be three numbers from 0 to 1, or none; {REMEDY}")
    if (fold is None) != (folds is None) or (fold is not None and not 0 <= fold < folds >= 2):
        raise InputError(f"fold {fold} of {folds} cannot be; {REMEDY}, or leave out both where there are no folds")
    for key in ("max_per_class", "min_per_class"):
        if content[key] is not None and content[key] < 1:
            raise InputError(f"{key} = {content[key]} must be 1 or more, or null; {REMEDY}")


def _check_seed(seed: int) -> None:
    if not 0 <= seed <= MOST_SEED:
        raise InputError(f"seed = {seed!r:.40} must be from 0 to {MOST_SEED}; {REMEDY}, with such a seed")


def read_samples(name: str, part: Any, stride: int) -> Samples:
    """A part of a split file.  Raises :class:`InputError` where its lists cannot be windows."""
    columns = ("session", "first", "count")
    lists: list[Any] = [part.get(column) for column in columns] if isinstance(part, dict) else []
    if not lists or not all(isinstance(one, list) for one in lists) or len(set(map(len, lists))) > 1:
        raise InputError(f"the {name} part lacks its lists {', '.join(columns)}, of one length; {REMEDY}")
    _check_keys(part, columns, f" in the {name} part")
    session, first, count = (_whole(f"the {name} part's {c}", one) for c, one in zip(columns, lists, strict=True))
    return Samples(session, first, count, stride)


def _whole(what: str, numbers: list[Any]) -> NDArray[np.int64]:
    """A list of whole numbers, JSON's true and false not among them, as int64."""
    if set(map(type, numbers)) <= {int}:
        with suppress(OverflowError):
            return np.array(numbers, np.int64)
    wrong = next(n for n in numbers if type(n) is not int or not -(2**63) <= n < 2**63)
    raise InputError(f"{what} holds {wrong!r:.40}, where only whole numbers can be; {REMEDY}")
