"""Raw JSON or TOML into records: dataclasses that are what they say, all that is wrong told at once.

A record's fields have types; what else must hold are its rules (:class:`Ruled`).  Nothing is converted.  cattrs does
the work, and is imported with the first record.
"""

import dataclasses
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import UnionType
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

from bench.errors import LISTED, InputError, all_wrong

Record = TypeVar("Record")
LISTED_PROBLEMS: Final = 3  # problems of a file of ours that a message tells


def structured(raw: Any, kind: type[Record], where: str, *, strict: bool = True, code: str = "wrong-file") -> Record:
    """Parsed JSON or TOML as a record: a dataclass of dataclasses, tuples, lists, mappings, texts and numbers.

    Nothing is converted: a text is not a number.  With ``strict`` an unknown key is refused, as is fit for what people
    write; without it, it is passed over.  A union of dataclasses is told apart by the key ``kind``; a class that has
    ``from_dict`` reads itself.  Raises :class:`InputError` of that ``code``, which begins with ``where`` and names each
    place, its value and the reason; its ``problems`` are all of them.
    """
    from cattrs import BaseValidationError

    try:
        record: Record = _converter(strict).structure(raw, kind)
        return record
    except (BaseValidationError, TypeError, ValueError) as error:
        found = dict.fromkeys(_problems(error, ()))
    # raised out here, without cattrs' error behind it: that cannot be sent home from a Dask worker
    problems = [f"{_at(place)}{_value_at(raw, place)}: {reason}" for place, reason in found if reason]
    raise InputError(code, str(all_wrong(code, where, problems, LISTED if strict else LISTED_PROBLEMS)), problems)


class FieldError(ValueError):
    """A rule of a record that does not hold, for its ``__post_init__``: the field below it and the reason."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


class FieldErrors(ValueError):
    """All rules of a record that do not hold."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("; ".join(f"{error.name}: {error}" for error in errors))
        self.errors = errors


@dataclasses.dataclass(frozen=True)
class Wrong:
    """In place of a raw value of which the reader knows already that it is wrong; without a reason none is told."""

    value: Any = None
    reason: str = ""

    def __repr__(self) -> str:
        return repr(self.value)


Rule = Callable[..., Iterator[FieldError]]


def rule(*needs: str, each: str = "") -> Callable[[Rule], Rule]:
    """Mark a method of a :class:`Ruled` record that yields what is wrong with its fields ``needs``.

    With ``each``, a field that is a mapping, it is asked for every entry, by key and value.
    """

    def mark(method: Rule) -> Rule:
        method.needs, method.each = needs, each  # type: ignore[attr-defined]
        return method

    return mark


class Ruled:
    """A dataclass whose fields have rules: all that do not hold are told at once.

    Of a raw record of which some fields cannot be read, :func:`structured` asks those rules that need none of them.
    """

    def __post_init__(self) -> None:
        if errors := list(_broken_rules(self)):
            raise FieldErrors(errors)


def _broken_rules(record: Any, broken: Collection[str] = ()) -> Iterator[FieldError]:
    """What the rules of a record say; of its fields the ``broken`` ones are missing, or lack some of their entries."""
    for method in list(vars(type(record)).values()):
        if not hasattr(method, "needs") or any(name in broken for name in method.needs):
            continue
        if not method.each:
            yield from method(record)
            continue
        for key, value in vars(record).get(method.each, {}).items():
            yield from method(record, key, value)


def _rules_of_rest(raw: Mapping[str, Any], kind: type[Any]) -> list[FieldError]:
    """What the rules say of as much of a raw record as can be read; unknown keys are passed over."""
    record, broken = object.__new__(kind), set[str]()
    hints = get_type_hints(kind)
    for one in dataclasses.fields(kind):
        key, hint = one.name.removesuffix("_"), hints[one.name]
        if key not in raw:
            if one.default is not dataclasses.MISSING:
                vars(record)[one.name] = one.default
            elif one.default_factory is not dataclasses.MISSING:
                vars(record)[one.name] = one.default_factory()
            else:
                broken.add(one.name)
            continue
        if (read := _read(raw[key], hint)) is not _UNREAD:
            vars(record)[one.name] = read
            continue
        broken.add(one.name)
        if _is_mapping(hint) and isinstance(raw[key], dict):
            entries = {name: _read(value, get_args(hint)[1]) for name, value in raw[key].items()}
            vars(record)[one.name] = {name: value for name, value in entries.items() if value is not _UNREAD}
    return list(_broken_rules(record, broken))


_UNREAD: Final = object()


def _read(raw: Any, kind: Any) -> Any:
    """The value, or `_UNREAD`."""
    from cattrs import BaseValidationError

    try:
        return _converter(False).structure(raw, kind)
    except (BaseValidationError, TypeError, ValueError):
        return _UNREAD


_CONVERTERS: dict[bool, Any] = {}


def _converter(strict: bool) -> Any:
    """The one converter: cattrs, taught to convert nothing."""
    if strict not in _CONVERTERS:
        _CONVERTERS[strict] = _made_converter(strict)
    return _CONVERTERS[strict]


def _made_converter(strict: bool) -> Any:
    from cattrs import Converter
    from cattrs.gen import make_dict_structure_fn

    converter = Converter(forbid_extra_keys=strict)
    for plain in (str, int, bool):
        converter.register_structure_hook(plain, lambda value, kind: _checked(value, kind, (kind,)))
    converter.register_structure_hook(float, lambda value, kind: float(_checked(value, kind, (int, float))))
    converter.register_structure_hook_func(lambda kind: kind is Any, lambda value, _: value)
    converter.register_structure_hook_func(
        lambda kind: isinstance(kind, UnionType), lambda value, kind: _of_union(converter, value, kind)
    )
    for predicate, wanted in ((dataclasses.is_dataclass, dict), (_is_mapping, dict), (_is_sequence, list)):
        plain_hook = make_dict_structure_fn if predicate is dataclasses.is_dataclass else None
        converter.register_structure_hook_factory(predicate, _container_factory(converter, wanted, plain_hook, strict))
    converter.register_structure_hook_func(
        lambda kind: hasattr(kind, "from_dict"), lambda value, kind: kind.from_dict(_checked(value, dict, (dict,)))
    )
    return converter


def _container_factory(converter: Any, wanted: type, generate: Any, strict: bool) -> Callable[[Any], Any]:
    """Hooks for dataclasses, mappings and sequences that first look whether the value is of the kind at all."""
    from cattrs import override
    from cattrs.cols import homogenous_tuple_structure_factory, list_structure_factory, mapping_structure_factory

    def factory(kind: Any) -> Any:
        if generate is not None:  # a name that Python keeps for itself, such as class, has an underscore behind it
            names = [one.name for one in dataclasses.fields(kind) if one.name.endswith("_")]
            renamed = {name: override(rename=name.removesuffix("_")) for name in names}
            inner = generate(kind, converter, _cattrs_forbid_extra_keys=strict, **renamed)
        elif wanted is dict:
            inner = mapping_structure_factory(kind, converter, structure_to=dict)
        elif get_origin(kind) is tuple:
            inner = homogenous_tuple_structure_factory(kind, converter)
        else:
            inner = list_structure_factory(kind, converter)
        if inspect.isclass(kind) and issubclass(kind, Ruled):
            return lambda value, _: _ruled(inner, _checked(value, wanted, (wanted,)), kind)
        return lambda value, _: inner(_checked(value, wanted, (wanted,)), kind)

    return factory


def _ruled(inner: Any, value: dict[str, Any], kind: type[Any]) -> Any:
    """The record; where fields of it cannot be read, what its rules say of the others is told with that."""
    from cattrs import BaseValidationError, ClassValidationError

    try:
        return inner(value, kind)
    except BaseValidationError as error:
        if any(isinstance(one, FieldErrors) for one in error.exceptions) or not (more := _rules_of_rest(value, kind)):
            raise
        raise ClassValidationError(error.message, [*error.exceptions, FieldErrors(more)], kind) from error


def _is_mapping(kind: Any) -> bool:
    return get_origin(kind) in (dict, Mapping)


def _is_sequence(kind: Any) -> bool:
    return get_origin(kind) in (tuple, list, Sequence)


def _checked(value: Any, kind: type, kinds: tuple[type, ...]) -> Any:
    """The value, if it is of one of the types itself: JSON's true is not a number."""
    if isinstance(value, Wrong):
        raise ValueError(value.reason)
    if type(value) not in kinds:
        raise TypeError(
            f"must be {_NAMES.get(kind, kind.__name__)}, is {_NAMES.get(type(value), type(value).__name__)}"
        )
    return value


_NAMES: Final = {dict: "table", type(None): "nothing"}


def _of_union(converter: Any, value: Any, kind: Any) -> Any:
    """A value that may be missing, or one of several kinds: dataclasses by their ``kind``, others by their type."""
    kinds = [one for one in get_args(kind) if one is not type(None)]
    if value is None and len(kinds) < len(get_args(kind)):
        return None
    if len(kinds) == 1:
        return converter.structure(value, kinds[0])
    if not all(dataclasses.is_dataclass(one) for one in kinds):
        by_type = {list if _is_sequence(one) else dict if _is_mapping(one) else one: one for one in kinds}
        _checked(value, kinds[0], tuple(by_type))
        return converter.structure(value, by_type[type(value)])
    tagged = {one.kind: one for one in kinds}
    name = _checked(value, dict, (dict,)).get("kind")
    if not isinstance(name, str) or name not in tagged:
        raise FieldError("kind", f"must be one of: {', '.join(tagged)}")
    return converter.structure({key: v for key, v in value.items() if key != "kind"}, tagged[name])


Place = tuple[str | int, ...]


def _problems(error: BaseException, place: Place) -> Iterator[tuple[Place, str]]:
    """Every place of a value that does not fit, and why."""
    from cattrs import BaseValidationError, ForbiddenExtraKeysError

    if isinstance(error, BaseValidationError):
        for inner in error.exceptions:
            yield from _problems(inner, (*place, *_step(inner)))
    elif isinstance(error, ForbiddenExtraKeysError):
        known = ", ".join(field.name.removesuffix("_") for field in dataclasses.fields(error.cl) if field.init)
        yield from (((*place, name), f"unknown field; known: {known}") for name in sorted(error.extra_fields))
    elif isinstance(error, KeyError):
        yield place, "is missing"
    elif isinstance(error, FieldErrors):
        for one in error.errors:
            yield from _problems(one, place)
    elif isinstance(error, FieldError):
        yield (*place, *(int(step) if step.isdecimal() else step for step in error.name.split("."))), str(error)
    else:
        yield place, str(error)


def _step(error: BaseException) -> Place:
    """The field, key or index at which an inner error stands."""
    from cattrs.errors import AttributeValidationNote, IterableValidationNote

    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return (note.name.removesuffix("_"),)
        if isinstance(note, IterableValidationNote):
            return (note.index,)
    return ()


def _at(place: Place) -> str:
    """`a.b[0]`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    return text.removeprefix(".") or "all of it"


def _value_at(raw: Any, place: Place) -> str:
    """` = 1`; empty where there is no value, or a whole table."""
    for step in place:
        try:
            raw = raw[step]
        except (KeyError, IndexError, TypeError):
            return ""
    return "" if isinstance(raw, Mapping) and raw else f" = {raw!r:.80}"
