"""What tells one run from another, in the shortest labels, and its marks: for tables, and for MLflow's page."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from bench.errors import InputError
from bench.runs.registry import describe
from bench.runs.tracking import Record
from bench.scores.jackknife import FEWEST_GROUPS
from bench.spec import RunSpec

MARKS: Final = {"leaky": "*", "reduced": "†", "reconstructed": "‡"}
MEANING: Final = {
    "leaky": "the split lets parts share sessions or captures, on purpose",
    "reduced": "reduced scale",
    "reconstructed": "reconstructed where the paper is silent",
}
FEW_SIGN: Final = "§"
EARLIER_SIGN: Final = "¶"
INTERVAL_SIGNS: Final = {
    FEW_SIGN: f"interval not to be trusted: a tested class has fewer than {FEWEST_GROUPS} groups",
    EARLIER_SIGN: "interval of an earlier version, a percentile bootstrap over groups: too narrow where a class has "
    "few; `bench run … --rerun` takes today's",
}


def marks(record: Record) -> list[str]:
    """Keys of `MARKS` that hold for a run, in their order."""
    holds = {
        "leaky": record.leaky,
        "reduced": record.scale != "full",
        "reconstructed": is_reconstructed(record.deviations),
    }
    return [mark for mark in MARKS if holds[mark]]


def is_reconstructed(deviations: Iterable[str]) -> bool:
    """Whether a method that says so of itself had to be guessed in places."""
    return any(text.startswith("reconstructed") for text in deviations)


def signs(marks: Iterable[str]) -> str:
    """Signs of some of `MARKS`, each once, in their order."""
    holding = set(marks)
    return "".join(sign for mark, sign in MARKS.items() if mark in holding)


def marked(text: str, marks: Iterable[str]) -> str:
    """The text with the `signs`, where any holds, behind a space."""
    return f"{text} {signs(marks)}".rstrip()


def meanings(marks: Iterable[str]) -> list[str]:
    """What some of `MARKS` mean: a note each, once, in their order."""
    holding = set(marks)
    return [f"{MARKS[mark]} {meaning}" for mark, meaning in MEANING.items() if mark in holding]


def with_interval(value: float, low: float, high: float, form: str = ".3f", sign: str = "") -> str:
    """A number with its interval in brackets, all in one format (``+.1f``: a difference in percent), and its sign."""
    return f"{value:{form}} [{low:{form}}, {high:{form}}] {sign}".rstrip()


def interval_sign(groups: float | None) -> str:
    """The sign of `INTERVAL_SIGNS`, or none, of an interval over so many ``groups`` of the smallest tested class.

    None: a run of an earlier version, which did not record their number.
    """
    if groups is None:
        return EARLIER_SIGN
    return FEW_SIGN if groups < FEWEST_GROUPS else ""


def interval_meanings(signs: Iterable[str]) -> list[str]:
    """What signs of intervals mean: a note each, once, in the order of `INTERVAL_SIGNS`."""
    there = set(signs)
    return [f"{sign} {meaning}" for sign, meaning in INTERVAL_SIGNS.items() if sign in there]


def method_label(spec: RunSpec, *more: str) -> str:
    """The method with its settings and ``more``."""
    words = [*settings_of(spec), *more]
    return spec.method + (f" ({', '.join(words)})" if words else "")


def settings_of(spec: RunSpec) -> list[str]:
    """The preset and the parameters that tell a method from its defaults, and how many samples a class it may have."""
    words = parameter_labels(spec.method, spec.parameters)
    if spec.split.max_per_class and not spec.split.leaky:  # there it is the split's own
        words.append(f"max_per_class={spec.split.max_per_class}")
    return words


def parameter_labels(method: str, parameters: Mapping[str, Any]) -> list[str]:
    """The shortest labels of parameters that differ from the defaults: a preset and what differs from that."""
    try:
        outline = describe(method)
    except InputError:  # a method of somebody's that is not here any more
        return [f"{name}={value}" for name, value in sorted(parameters.items())]
    values = outline.defaults | dict(parameters)
    labels = []
    for preset, changes in {**outline.presets, "": {}}.items():  # of two that are as short, the preset
        start = outline.defaults | dict(changes)
        different = [f"{name}={value}" for name, value in sorted(values.items()) if start.get(name) != value]
        labels.append([preset, *different] if preset else different)
    return min(labels, key=len)
