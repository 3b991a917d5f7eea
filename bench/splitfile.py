"""Splits as JSON files: written aside and renamed, read strictly.  What a split promises is `bench.splits`'."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.dealing import PARTS
from bench.errors import InputError
from bench.schema import Samples

FORMAT: Final = "bench-split-1"
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
    lists = {
        name: {"session": part.session.tolist(), "first": part.first.tolist(), "count": part.count.tolist()}
        for name, part in parts.items()
    }
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(json.dumps({"format": FORMAT, **head, **lists}) + "\n")
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error.strerror}); name another file") from None


def read_split_file(path: Path) -> dict[str, Any]:
    """A split file's content with all keys of a split, checked for their types; the parts still as lists."""
    try:
        content = json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such split file; make one with bench split") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not a split file ({error}); make one with bench split") from None
    needed = ("format", "store", "dataset", "task", "scheme", *PARTS)
    missing = [key for key in needed if not isinstance(content, dict) or key not in content]
    if missing or content["format"] != FORMAT:
        raise InputError(f"{path}: not a split file of format {FORMAT} (lacks {missing}); make one with bench split")
    content = {"seed": 0, "shares": [], "dropped": {}, "fold": None, "folds": None, "max_per_class": None} | content
    content = OPTIONS | content
    for key, kinds in _FIELDS.items():
        if not isinstance(content[key], kinds):
            raise InputError(f"{path}: {key} = {content[key]!r} cannot be; make the file with bench split")
    if not all(isinstance(n, int) for n in content["dropped"].values()):
        raise InputError(f"{path}: dropped = {content['dropped']!r} must hold counts; make the file with bench split")
    return content


def read_samples(path: Path, part: Any, stride: int) -> Samples:
    """A part of a split file.  Raises :class:`InputError` where its lists cannot be windows."""
    try:
        columns = [np.asarray(part[column]) for column in ("session", "first", "count")]
        arrays = [column.astype(np.int64, casting="safe") for column in columns]
    except (TypeError, ValueError, KeyError, OverflowError):
        arrays = []
    if not arrays or any(array.shape != (arrays[0].size,) for array in arrays):
        raise InputError(f"{path}: a part lacks its lists session, first, count; make the file with bench split")
    return Samples(arrays[0], arrays[1], arrays[2], stride)
