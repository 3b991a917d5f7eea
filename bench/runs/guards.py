"""What every run asks of its method, and `bench check` at leisure: does an answer rest on its own sample alone?

Cheap questions about the run's own traffic: of a drawn sample of rows, not of all.  Python cannot stop a method that
wants to cheat; what is here turns an accident, a cache or a look at the neighbours into a failed run with a reason.
"""

import dataclasses
import hashlib
import pickle
import random
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from types import CellType, FunctionType, ModuleType
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from bench.method import Inputs, Method, Monitor, Part, count, take
from bench.readers import Ragged

ASKED: Final = 32  # samples that are represented and answered once more
ALONE: Final = 2  # of these, how many also by themselves
#: in modules and classes; the second grows by warnings, the third by the first pickle
PYTHON_S_OWN: Final = frozenset({"__builtins__", "__warningregistry__", "__slotnames__"})
CLOSE: Final = 1e-3  # of probabilities; in other batches, sums have another order, with 16 bits on CUDA


State = Mapping[str, str]  # name -> SHA-256, hex, of what stands there, or its type's name
Seen = frozenset[int]  # ids of what is being told, as it may hold itself


class ContractBroken(Exception):
    """A method does what no method may; one line."""


def same_inputs(expected: Inputs, inputs: Inputs, when: str) -> None:
    """Raises :class:`ContractBroken` unless both hold equal arrays ``[samples, ...]``, int, float or bool."""
    if expected.keys() != inputs.keys():
        raise ContractBroken(f"represent: other arrays {when}")
    for name, values in expected.items():
        for one, other in zip(arrays_of(values), arrays_of(inputs[name]), strict=True):
            if one.dtype != other.dtype:
                raise ContractBroken(f"represent: {name} has another dtype {when}")
            if not np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
                raise ContractBroken(f"represent: {name} has other values {when}")


def arrays_of(values: NDArray[Any] | Ragged) -> tuple[NDArray[Any], ...]:
    """The arrays of one input (int, float or bool): ``[samples, ...]``, or values and offsets of unequal rows."""
    return (values.values, values.offsets) if isinstance(values, Ragged) else (values,)


def same_answers(
    method: Method, inputs: Inputs, answers: NDArray[np.float32], rows: NDArray[np.int64], *, close: float = CLOSE
) -> None:
    """Raises :class:`ContractBroken` where answers change with the samples that are asked with them, or their order.

    ``answers``, float32 ``[samples, classes]``, are what the method said of all ``inputs``; ``rows [some]`` are asked
    again, together and the first `ALONE` one by one; probabilities may differ by ``close``.
    """
    for some in (rows, *rows[:ALONE, None]):
        again = method.predict_proba(take(inputs, some))
        if answers[some].shape != again.shape or not np.allclose(answers[some], again, 0, close, equal_nan=True):
            raise ContractBroken(
                f"predict_proba answers {len(some)} of {count(inputs)} samples otherwise when they are asked without "
                "the others or in another order; rest an answer on its own sample, or declare transductive = True"
            )


def state_of(method: Method) -> State:
    """What the object remembers: its attributes, a model and its weights among them."""
    own = _modules_of(type(method))
    return {name: _kept(value, own) for name, value in _flat(vars(method), frozenset(), set())}


def surroundings_of(method: Method) -> State:
    """What could remember beside the object: data of its modules, their classes, functions' defaults.

    Not what its modules import, and not what a memoised or compiled function keeps: both are common and fair.  What a
    memoised one keeps does not outlast the run (`forget`).
    """
    modules = _modules_of(type(method))
    values = {name: vars(sys.modules[name]) for name in modules}
    return {name: _kept(value, modules) for name, value in _flat(values, modules, set())}


def first_surroundings(method: Method) -> State:
    """`surroundings_of` before the first run of its class in this process.

    A run that left something there is failed; the ones after it would find it there from their beginning.
    """
    kind = type(method)
    if kind not in _FIRST:
        _FIRST[kind] = surroundings_of(method)
    return _FIRST[kind]


def content_of(part: Part) -> State:
    """What a part holds: its labels and arrays."""
    arrays = {name: arrays_of(values) for name, values in part.inputs.items()}
    return {name: _kept(value, frozenset()) for name, value in {"labels": part.labels, **arrays}.items()}


def forget(kind: type[Method]) -> None:
    """Empty what memoised functions of its modules keep: what they learned of another run is no knowledge of this."""
    modules = _modules_of(kind)
    for _, value in _flat({name: vars(sys.modules[name]) for name in modules}, modules, set()):
        if callable(clear := getattr(value, "cache_clear", None)):
            clear()


@contextmanager
def chance_from(seed: int) -> Iterator[None]:
    """Within, Python's, NumPy's and torch's own generators begin at the seed; afterwards they go on where they were.

    A method that draws from these, and not from its own seed, draws the same in every run of one specification.
    """
    torch = sys.modules.get("torch")
    before = random.getstate(), np.random.get_state(), torch and torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (scikit-learn draws from it where it has no seed)
    if torch:
        torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        if torch:
            torch.set_rng_state(before[2])


def anew(method: Method) -> Method:
    """A new object of the same parameters, seed and device, which has learned nothing."""
    return type(method)(method.parameters, classes=method.classes, seed=method.seed, device=method.device)


def chance_now() -> str:
    """A digest of where Python's, NumPy's and torch's own generators are."""
    torch = sys.modules.get("torch")
    drawn = torch.get_rng_state().numpy().tobytes() if torch else b""
    return _kept([random.getstate(), np.random.get_state(legacy=False), drawn], frozenset())  # noqa: NPY002


def noted(parameters: Any, read: set[str]) -> Any:
    """Equal parameters that note the names of their fields that are read.

    Pickles, copies and a look at their dictionary read all; so does what `__post_init__` left there beside the fields.
    """
    kind: Any = type(parameters)
    names = {one.name for one in dataclasses.fields(parameters)}
    whole = {"__dict__", "__getstate__", *(getattr(parameters, "__dict__", {}).keys() - names)}

    def get(self: Any, name: str) -> Any:
        if name == "__class__":  # what compares itself with another of its class goes on doing so
            return kind
        read.update(names if name in whole else {name} & names)
        return kind.__getattribute__(self, name)

    def reduce(self: Any, protocol: Any) -> Any:
        read.update(names)
        return parameters.__reduce_ex__(protocol)

    its_own = type(kind.__name__, (kind,), {"__getattribute__": get, "__reduce_ex__": reduce, "__slots__": ()})
    new: Any = object.__new__(its_own)
    values = {name: getattr(parameters, name) for name in names} | getattr(parameters, "__dict__", {})
    for name, value in values.items():
        object.__setattr__(new, name, value)
    return new


@contextmanager
def noting(method: Method, read: set[str]) -> Iterator[None]:
    """Within, the method's parameters note what is read of them."""
    before = method.parameters
    method.parameters = during = noted(before, read)
    try:
        yield
    finally:
        if method.parameters is during:
            method.parameters = before


def _modules_of(kind: type[Method]) -> frozenset[str]:
    """Its class's modules, and those of its bases that are methods, too."""
    return frozenset(one.__module__ for one in kind.__mro__ if issubclass(one, Method))


def unchanged(before: State, after: State, complaint: str) -> State:
    """``after``; raises :class:`ContractBroken` with the first name that is not as ``before``."""
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            raise ContractBroken(f"{complaint} ({name} is not what it was)")
    return after


class FitMonitor(Monitor):
    """What `fit` gets to tell: all goes on to the run's monitor, but no attribute leads there, or to its tags."""

    def __init__(self, monitor: Monitor) -> None:
        _BEHIND[self] = monitor

    def log(self, step: int, **values: float) -> None:
        """See `Monitor.log`."""
        _BEHIND[self].log(step, **values)

    def log_fact(self, **values: float) -> None:
        """See `Monitor.log_fact`."""
        _BEHIND[self].log_fact(**values)

    def epoch(self, epoch: int, epochs: int, **values: float) -> None:
        """See `Monitor.epoch`."""
        _BEHIND[self].epoch(epoch, epochs, **values)


class PretrainMonitor(FitMonitor):
    """What `pretrain` gets to tell: the same, under names of its own."""

    def log(self, step: int, **values: float) -> None:
        """See `Monitor.log`."""
        super().log(step, **_pretraining(values))

    def log_fact(self, **values: float) -> None:
        """See `Monitor.log_fact`."""
        super().log_fact(**_pretraining(values))

    def epoch(self, epoch: int, epochs: int, **values: float) -> None:
        """See `Monitor.epoch`."""
        super().epoch(epoch, epochs, **_pretraining(values))


def _pretraining(values: Mapping[str, float]) -> dict[str, float]:
    return {f"pretraining_{name}": value for name, value in values.items()}


@contextmanager
def pretraining_over(method: Method) -> Iterator[None]:
    """From now on labels and another part are there: `pretrain` raises :class:`ContractBroken`."""

    def refuse(*_: Any, **__: Any) -> None:
        raise ContractBroken("pretrain is called by the method itself; the harness calls it, before there are labels")

    vars(method)["pretrain"] = refuse
    try:
        yield
    finally:
        vars(method).pop("pretrain", None)


#: of each class that has run
_FIRST: Final[WeakKeyDictionary[type[Method], State]] = WeakKeyDictionary()
#: where a method's monitor passes things on to
_BEHIND: Final[WeakKeyDictionary[FitMonitor, Monitor]] = WeakKeyDictionary()


def _flat(values: Mapping[str, Any], modules: frozenset[str], seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Names and values; those of inner dictionaries, and of classes of the modules, apart.

    What cannot be pickled must not hide what stands beside.
    """
    for name, value in values.items():
        if name in PYTHON_S_OWN:
            continue
        inner = dict(vars(value)) if isinstance(value, type) and value.__module__ in modules else value
        if isinstance(inner, dict) and all(isinstance(key, str) for key in inner):
            yield name, sorted(set(inner) - PYTHON_S_OWN)
            if id(value) not in seen:
                seen.add(id(value))
                yield from ((f"{name}.{key}", one) for key, one in _flat(inner, modules, seen))
        else:
            yield name, _function_of(value)


def _function_of(value: Any) -> Any:
    """The function within a static method, class method or property; anything else as it is."""
    if isinstance(value, staticmethod | classmethod):
        return value.__func__
    return value.fget if isinstance(value, property) else value


def _kept(value: Any, own: frozenset[str], seen: Seen = frozenset()) -> str:
    """A digest of a value; code counts by its type alone, and what cannot be pickled by its parts.

    ``own`` are the method's modules, of whose classes and functions every attribute counts.
    """
    if isinstance(value, FunctionType):  # a default, a cell or an attribute that is changed in place is a memory
        cells, attributes = value.__closure__ or (), vars(value)
        if value.__module__ not in own or id(value) in seen:
            cells, attributes = (), {}
        seen |= {id(value)}
        inner = [cell.cell_contents for cell in cells if cell != CellType()]
        value = ["function", value.__defaults__, value.__kwdefaults__, attributes, *inner]
    compiled = type(value).__module__.startswith("numba.")  # its pickle names the types that it was called with
    if compiled or isinstance(value, ModuleType | type) or hasattr(value, "cache_info"):
        return type(value).__name__
    state = _Sha256File()
    try:
        pickle.Pickler(state, protocol=5).dump(value)
    except Exception:  # whatever a foreign __reduce__ raises
        return _of_parts(value, own, seen | {id(value)}) if id(value) not in seen else type(value).__name__
    return state.sha.hexdigest()


def _of_parts(value: Any, own: frozenset[str], seen: Seen) -> str:
    """A digest of the items and own attributes of what cannot be pickled; its type's name where it has none."""
    parts = [vars(value)] if type(value).__module__ in own and hasattr(value, "__dict__") else []
    if isinstance(value, Mapping):
        parts += [item for pair in value.items() for item in pair]
    elif isinstance(value, list | tuple | Set | deque):
        parts += value
    told = [_kept(part, own, seen) for part in parts]
    told = sorted(told) if isinstance(value, Set) else told
    name = type(value).__name__
    return hashlib.sha256(" ".join([name, *told]).encode()).hexdigest() if told else name


class _Sha256File:
    """A file that keeps nothing but the digest of what is written to it."""

    def __init__(self) -> None:
        self.sha = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha.update(data)
        return len(data)
