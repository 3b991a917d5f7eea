"""A file of parameters: what a study found, ready for `bench run --params`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.errors import InputError


def write_parameters(summary: Mapping[str, Any], fixed: Mapping[str, Any], path: Path) -> None:
    """Write the best parameters of a study's summary, with those that were `fixed` in all of its trials."""
    content = {
        "method": summary["method"],
        "parameters": {**fixed, **summary["best"]["parameters"]},
        "study": summary["study"],
        "dataset": summary["dataset"],
        "validation_macro_f1": summary["best"]["value"],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(content, indent=1) + "\n")
    aside.replace(path)


def read_parameters(path: Path, method: str) -> dict[str, Any]:
    """The parameters in such a file.  Raises :class:`InputError` where it is none, or of another method."""
    try:
        content = json.loads(path.read_text())
        of, parameters = content["method"], dict(content["parameters"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"--params {path}: not a parameter file ({error}); `bench tune` writes one") from None
    if of != method:
        raise InputError(f"--params {path}: holds parameters of {of}, not of {method}; give --method {of}")
    return parameters
