"""What tells one run from another, in the shortest words: for tables, and for MLflow's page."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from bench.errors import InputError
from bench.runs.registry import describe
from bench.runs.tracking import Record
from bench.splits.split import LEAKY, attribute_of

MARKS: Final = {"leaky": "*", "reduced": "†", "reconstructed": "‡"}
MEANING: Final = {
    "leaky": "the split lets parts share sessions or captures, on purpose",
    "reduced": "reduced scale",
    "reconstructed": "reconstructed where the paper is silent",
}
FIVE_TUPLES: Final = "5-tuples"


def marks(record: Record) -> list[str]:
    """Keys of `MARKS` that hold for a run, in their order."""
    holds = {
        "leaky": record.leaky,
        "reduced": record.scale != "full",
        "reconstructed": reconstructed(record.deviations),
    }
    return [mark for mark in MARKS if holds[mark]]


def reconstructed(deviations: Iterable[str]) -> bool:
    """Whether a method that says so of itself had to be guessed in places."""
    return any(text.startswith("reconstructed") for text in deviations)


def signs(marks: Iterable[str]) -> str:
    """Signs of some of `MARKS`, each once, in their order."""
    held = set(marks)
    return "".join(sign for mark, sign in MARKS.items() if mark in held)


def marked(text: str, marks: Iterable[str]) -> str:
    """The text with the `signs`, where any holds, behind a space."""
    return f"{text} {signs(marks)}".rstrip()


def meanings(marks: Iterable[str]) -> list[str]:
    """What some of `MARKS` mean: a note each, once, in their order."""
    held = set(marks)
    return [f"{MARKS[mark]} {meaning}" for mark, meaning in MEANING.items() if mark in held]


def with_interval(value: float, low: float, high: float, form: str = ".3f") -> str:
    """A number with its interval in brackets, all in one format: ``+.1f`` for a difference in percent."""
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def method_words(spec: Mapping[str, Any], *more: str) -> str:
    """The method with its `settings` and ``more``; fields of a RunSpec."""
    words = [*settings(spec), *more]
    return spec["method"] + (f" ({', '.join(words)})" if words else "")


def settings(spec: Mapping[str, Any]) -> list[str]:
    """The preset and the parameters that tell a method from its defaults, and how many samples a class it may have."""
    words = _parameters(spec["method"], spec["parameters"])
    if spec["max_per_class"] and spec["split"] not in LEAKY:  # there it is the split's own
        words.append(f"max_per_class={spec['max_per_class']}")
    return words


def split_words(spec: Mapping[str, Any]) -> str:
    """The scheme, with the number of folds, and how sessions become samples where they are not whole."""
    folds = [f"{spec['folds']} folds"] if spec["folds"] else []
    return ", ".join([spec["split"], *folds, *sample_words(spec)])


def resampled(split: str) -> str:
    """The groups of a split's samples, which bootstrap intervals resample: what the scheme keeps together."""
    if name := attribute_of(split):
        return f"values of {name.partition('=')[0]}"
    return "capture groups" if split == "capture" else FIVE_TUPLES


def sample_words(spec: Mapping[str, Any]) -> list[str]:
    """What decides the samples besides split and task, where it is not as ever: one word each."""
    words = [f"{name}={spec[name]}" for name in ("filter", "balance", "min_per_class") if name in spec]
    words += [f"max_per_class={most}"] if (most := spec["max_per_class"]) and spec["split"] in LEAKY else []
    return [*([spec["sampling"]] if "sampling" in spec else []), *words]


def _parameters(method: str, parameters: Mapping[str, Any]) -> list[str]:
    """The shortest words for parameters that differ from the defaults: a preset and what differs from that."""
    try:
        outline = describe(method)
    except InputError:  # a method of somebody's that is not here any more
        return [f"{name}={value}" for name, value in sorted(parameters.items())]
    values = outline.defaults | dict(parameters)
    found = []
    for preset, changes in {**outline.presets, "": {}}.items():  # of two that are as short, the preset
        start = outline.defaults | dict(changes)
        different = [f"{name}={value}" for name, value in sorted(values.items()) if start.get(name) != value]
        found.append([preset, *different] if preset else different)
    return min(found, key=len)
