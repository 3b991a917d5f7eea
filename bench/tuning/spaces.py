"""Search spaces: read from words, held against a method, counted, walked through; the same for every sampler.

A point has one value for each parameter.  A space is finite where every parameter has choices or steps.
"""

import itertools
import math
from collections.abc import Container, Iterator, Mapping
from typing import Any, Final

from bench.errors import InputError, instead
from bench.method import Range, Space, make_parameters, search_spaces
from bench.runs import registry

SAMPLERS: Final = ("tpe", "grid")


def check_words(sampler: str, asked: Mapping[str, str]) -> None:
    """Ask no method.  Raises :class:`InputError` for a sampler that there is not, and spaces that cannot be read."""
    if sampler not in SAMPLERS:
        raise InputError("unknown-sampler", f"--sampler {sampler!r}; {instead(sampler, SAMPLERS)}")
    for name, text in asked.items():
        parse_space(name, text)


def parse_space(name: str, text: str) -> Space:
    """A search space from the command line.

    ``4,9,16,25`` are choices; ``1:800:20`` is a range with a step (1, 21, … 781); ``0.1:0.6`` a plain and
    ``1e-4:1e-3:log`` a logarithmic one.  Raises :class:`InputError` for anything else.

    >>> parse_space("packets", "4,9,16"), parse_space("temperature", "1:800:20")
    ((4, 9, 16), Range(low=1, high=781, step=20, log=False))
    """
    try:
        if ":" not in text:
            return tuple(_value(choice) for choice in text.split(","))
        low, high, *rest = text.split(":")
        ends = float(low), float(high)
        if len(rest) > 1 or not (math.isfinite(ends[0]) and ends[0] < ends[1] < math.inf):
            raise ValueError
        if rest == ["log"]:
            if ends[0] <= 0:
                raise ValueError
            return Range(_number(low), _number(high), log=True)
        if not rest:
            return Range(_number(low), _number(high))
        return _stepped(_number(low), ends[1], _number(rest[0]))
    except ValueError:
        raise InputError(
            "bad-space",
            f"--param {name}={text}: expected choices (4,9,16), a range (0.1:0.6, 1e-4:1e-3:log) or steps (1:800:20)",
        ) from None


def _stepped(low: float, high: float, step: float) -> Range:
    """The range whose upper end is the last value that the steps reach."""
    if step <= 0:
        raise ValueError
    return Range(low, low + math.floor((high - low) / step + 1e-9) * step, step=step)


def _number(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() and "e" not in text.lower() and "." not in text else number


def _value(text: str) -> Any:
    """A choice: a number where it reads as one, else the text (`true` and `none` keep their text's meaning)."""
    word = text.strip()
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    if word.lower() == "none":
        return None
    try:
        return _number(word)
    except ValueError:
        if not word:
            raise
        return word


def own_spaces(name: str, fixed: Container[str]) -> dict[str, Space]:
    """The method's own spaces of what is not ``fixed``.  Raises :class:`InputError` where nothing is left."""
    method = registry.describe(name)
    own = search_spaces(method)
    spaces = {name: space for name, space in own.items() if name not in fixed}
    if not spaces:
        what = "all of its search space is fixed" if own else "it has no search space of its own"
        raise InputError("bad-space", f"{method.name}: {what}")
    return spaces


def spaces_for(name: str, asked: Mapping[str, str], fixed: Container[str]) -> dict[str, Space]:
    """The spaces that ``--param`` names, or the method's own of what is not ``fixed`` where it names none.

    Raises :class:`InputError` where an end or a choice is no value that the parameter can take.
    """
    if not asked:
        try:
            return own_spaces(name, fixed)
        except InputError as error:
            raise error.with_remedy("name a space with --param NAME=SPACE") from None
    method = registry.describe(name)
    parsed = {name: parse_space(name, text) for name, text in asked.items()}
    for name, space in parsed.items():
        if isinstance(space, Range) and space.step is None:
            values = [space.low, space.high]
        else:
            values = grid_values({name: space})[name]
        for value in values:
            make_parameters(method, {name: value})
    return parsed


def grid_values(spaces: Mapping[str, Space]) -> dict[str, list[Any]]:
    """Every value of each space.  Raises :class:`InputError` for a range without a step.

    >>> grid_values({"packets": (4, 9), "rate": Range(0.5, 1.0, step=0.25)})
    {'packets': [4, 9], 'rate': [0.5, 0.75, 1.0]}
    """
    grid: dict[str, list[Any]] = {}
    for name, space in spaces.items():
        if isinstance(space, Range) and space.step is None:
            raise InputError(
                "bad-space", f"the grid sampler needs choices or a step for {name}: --param {name}=LOW:HIGH:STEP"
            )
        grid[name] = [_value_at(space, place) for place in range(_count(space) or 0)]
    return grid


def is_whole(space: Range) -> bool:
    """Whether it has integers alone."""
    return all(isinstance(end, int) for end in (space.low, space.high)) and float(space.step or 1).is_integer()


def count_points(spaces: Mapping[str, Space]) -> int | None:
    """Number of different points; None where there is no end of them.

    >>> count_points({"packets": (4, 9), "rate": Range(0.5, 1.0, step=0.25)}), count_points({"rate": Range(0.5, 1.0)})
    (6, None)
    """
    counts = [_count(space) for space in spaces.values()]
    return None if None in counts else math.prod(count for count in counts if count is not None)


def _count(space: Space) -> int | None:
    if not isinstance(space, Range):
        return len(dict.fromkeys(space))
    step = _step(space)
    return None if step is None else math.floor((space.high - space.low) / step + 1e-9) + 1


def _step(space: Range) -> float | None:
    return space.step or (1 if is_whole(space) else None)


def _value_at(space: Space, place: int) -> Any:
    if not isinstance(space, Range):
        return tuple(dict.fromkeys(space))[place]
    return space.low + place * (_step(space) or 0)


def walk(spaces: Mapping[str, Space], seed: int) -> Iterator[dict[str, Any]]:
    """All points of finite spaces, each once, in an order that the seed shuffles; none is kept.

    >>> sorted(point["x"] for point in walk({"x": Range(1, 9, step=2)}, 7))
    [1, 3, 5, 7, 9]
    """
    number = count_points(spaces)
    assert number is not None
    step = next(step for step in itertools.count(1 + seed % number) if math.gcd(step, number) == 1)
    for turn in range(number):
        yield _point(spaces, (seed + turn * step) % number)


def _point(spaces: Mapping[str, Space], number: int) -> dict[str, Any]:
    """The point of that number, counted through the last parameter first."""
    point: dict[str, Any] = {}
    for name, space in reversed(list(spaces.items())):
        number, place = divmod(number, _count(space) or 1)
        point[name] = _value_at(space, place)
    return {name: point[name] for name in spaces}


def holds(space: Space, value: Any) -> bool:
    """Whether it has the value.

    >>> holds((4, 9), 9), holds(Range(1, 781, step=20), 500), holds(Range(0.1, 0.6), 0.5), holds(Range(1, 9), None)
    (True, False, True, False)
    """
    if not isinstance(space, Range):
        return value in space
    if isinstance(value, bool) or not isinstance(value, int | float) or not space.low <= value <= space.high:
        return False
    step = _step(space)
    steps = 0.0 if step is None else (value - space.low) / step
    return abs(steps - round(steps)) < 1e-8


def point_key(point: Mapping[str, Any]) -> tuple[Any, ...]:
    """What equal points have in common, whatever order and last digits their values come in."""
    rounded = {name: float(f"{one:.12g}") if isinstance(one, float) else one for name, one in point.items()}
    return tuple(sorted(rounded.items(), key=lambda item: item[0]))
