"""A file of parameters: what a study found, ready for `bench run --params`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import InputError
from bench.files import plain, read_json, write_json


@dataclass(frozen=True)
class ParameterFile:
    """What such a file holds."""

    method: str
    parameters: dict[str, Any] = field(default_factory=dict)  # the best ones, and those that were fixed in all trials
    study: str = ""
    dataset: str = ""
    validation_macro_f1: float | None = None

    def save(self, path: Path) -> None:
        """Write it.  Raises :class:`InputError` where that cannot be."""
        write_json(path, plain(self))


def read_parameters(path: Path, method: str) -> dict[str, Any]:
    """The parameters in such a file.  Raises :class:`InputError` where it is none, or of another method."""
    content = read_json(path, ParameterFile, "a parameter file; `bench tune` writes one")
    if content.method != method:
        what = f"holds parameters of {content.method}, not of {method}"
        raise InputError("wrong-file", f"--params {path}: {what}; give --method {content.method}")
    return content.parameters
