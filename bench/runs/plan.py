"""From what is asked of methods and data sets to the runs: names to declarations, texts to values, one matrix."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.data.store import Store
from bench.errors import InputError
from bench.files import file_sha256, plain, read_json, write_json
from bench.method import make_parameters
from bench.runs.registry import Outline, describe, is_shipped
from bench.schema import NO_CLASS
from bench.spec import RunSpec, Settings, SplitSpec
from bench.splits.groups import settled
from bench.splits.split import check_request, make_split

WHOLE: Final = SplitSpec()  # whole sessions, split as the data set can be
DEFAULTS: Final = Settings()


def expand(
    methods: Sequence[str],
    stores: Sequence[Store],
    split: SplitSpec = WHOLE,
    *,
    task: str | None = None,
    seeds: Sequence[int] = (0,),
    settings: Settings = DEFAULTS,
) -> list[RunSpec]:
    """The matrix, in the order data set, method, seed, fold.

    ``split`` stands for all its folds and all ``seeds``, and ``auto`` for what it is on each store; ``task`` is each
    data set's default one where not given.
    Raises :class:`InputError` for a parameter or preset that no method has, and for what cannot be for any run.
    """
    outlines = {name: describe(name) for name in methods}
    if settings.file is not None and len(outlines) != 1:
        raise InputError("bad-options", f"{settings.file} holds the parameters of one method; give one method")
    parameters = {name: resolve(name, outlines, settings) for name in outlines}
    sources = {name: None if is_shipped(name) else outline.digest for name, outline in outlines.items()}
    if split.path is not None:
        split = dataclasses.replace(split, file=str(split.path.absolute()), file_digest=_file_digest(split.path))
    splits = {store.name: settled(store, task or store.default_task, split)[0] for store in stores}
    for store in stores:  # what cannot be for any run is told before the first
        _check(store, task or store.default_task, splits[store.name])
    return [
        RunSpec(
            method=method,
            dataset=store.name,
            task=task or store.default_task,
            split=dataclasses.replace(one, seed=seed),
            parameters=parameters[method],
            store=store.digest,
            source=sources[method],
        )
        for store in stores
        for method, seed, one in product(methods, seeds, splits[store.name].each_fold())
    ]


def resolve(method: str, outlines: Mapping[str, Outline], settings: Settings) -> dict[str, Any]:
    """Parameters of one method of a matrix that differ from its defaults, by name and in their types.

    Raises :class:`InputError` for a preset that no method of the matrix has, and for a value that cannot be.
    """
    outline, preset = outlines[method], settings.preset
    known = {name for other in outlines.values() for name in other.defaults}
    if preset is not None and not any(preset in other.presets for other in outlines.values()):
        listed = "; ".join(f"{name} has {', '.join(o.presets) or 'none'}" for name, o in outlines.items())
        raise InputError("unknown-preset", f"no preset {preset!r}: {listed}")
    chosen = dict(outline.presets.get(preset, {})) if preset else {}
    chosen |= read_parameters(settings.file, method) if settings.file else {}
    chosen |= {name: v for name, v in settings.values.items() if name in outline.defaults or name not in known}
    if settings.epochs is not None and "epochs" in outline.defaults:
        chosen["epochs"] = settings.epochs
        if "steps" in outline.defaults and "steps" not in settings.values:
            chosen["steps"] = None  # passes over the training part were asked for
    parameters = make_parameters(outline, chosen)
    return {
        name: getattr(parameters, name)
        for name, default in outline.defaults.items()
        if getattr(parameters, name) != default
    }


def _check(store: Store, task: str, split: SplitSpec) -> None:
    if len(present := np.setdiff1d(store.labels(task), [NO_CLASS])) < 2:
        names = ", ".join(store.classes(task)[number] for number in present) or "none"
        raise InputError(
            "one-class",
            f"{store.name}: task {task} has sessions of one class at most ({names}), which any answer gets right; "
            f"`bench prepare` shows what became of the others",
        )
    check_request(store, task, split)
    if split.attribute:
        store.capture_attribute(split.attribute)
    if split.file is not None:
        make_split(store, task, split)


def _file_digest(path: Path) -> str:
    try:
        return file_sha256(path)[:16]
    except OSError as error:
        what = f"cannot be read as a split ({error.strerror})"
        raise InputError("missing-file", f"{path}: {what}; `bench split --save` makes one") from None


@dataclass(frozen=True)
class ParameterFile:
    """What such a file holds."""

    method: str
    parameters: dict[str, Any] = field(default_factory=dict)  # the best ones, and those that were fixed in all trials
    study: str = ""
    dataset: str = ""
    task: str = ""
    store: str = ""  # the data set's, digest
    split: SplitSpec | None = None  # on whose validation part they are the best; None: an earlier version's file
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
