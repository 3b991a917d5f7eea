"""Requests by their flat options, as tests name them."""

import dataclasses

from bench.runs.plan import expand
from bench.spec import RunSpec, Settings, SplitSpec

SPLIT = {field.name for field in dataclasses.fields(SplitSpec)} - {"scheme", "file", "file_digest"}


def run_spec(method, dataset, task, **fields):
    """A RunSpec by the fields that its JSON has."""
    return RunSpec.from_dict({"method": method, "dataset": dataset, "task": task, **fields})


def changed(spec, **fields):
    """The same with other fields, by the names of its JSON."""
    return RunSpec.from_dict(spec.to_dict() | fields)


def planned(methods, stores, *, task=None, seeds=(0,), split="session", split_file=None, **options):
    """A matrix by its flat options."""
    settings = {name: options.pop(name) for name in ("values", "preset", "epochs") if name in options}
    spec = SplitSpec(split, file=None if split_file is None else str(split_file), **options)
    return expand(methods, stores, spec, task=task, seeds=seeds, settings=Settings(**settings))
