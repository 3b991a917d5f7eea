"""The whole contract between the harness and a method.

A method is one class in one file of ``methods/``.  It declares what it reads, turns a view of sessions
into arrays (:meth:`Method.represent`, nothing learned), learns from them (:meth:`Method.pretrain` without labels,
then :meth:`Method.fit`, choosing on the validation part alone) and answers with class probabilities.  Nothing here
imports a heavy package.
"""

import dataclasses
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, Self, get_type_hints

import numpy as np
from numpy.typing import NDArray

from bench.errors import InputError, instead
from bench.files import file_sha256
from bench.readers import NotHeld, PacketStore, View
from bench.schema import Samples, StoreTraits

Inputs = dict[str, Any]  # NumPy arrays or `Ragged`s, whose first axis counts the samples


@dataclass(frozen=True)
class Range:
    """A numeric search range, both ends included; give ``step`` or ``log``, not both."""

    low: float
    high: float
    step: float | None = None
    log: bool = False


Space = Range | tuple[Any, ...]  # a range, or the choices


#: what a parameter's ``allowed`` may say of a number
COUNT: Final = "at least 1"
POSITIVE: Final = "above 0"
SHARE: Final = "at least 0 and below 1"
PART: Final = "above 0 and at most 1"
NOT_NEGATIVE: Final = "at least 0"


def parameter(
    default: Any,
    help: str,
    source: str,
    search: Space | None = None,
    *,
    allowed: str | tuple[str, ...] = (),
    file: bool = False,
) -> Any:
    """A field of a method's ``Parameters``: its default, meaning with unit, source and search space.

    ``source`` is a section of the paper or "our choice".  ``allowed`` is a tuple of choices, or `COUNT`,
    `POSITIVE`, `NOT_NEGATIVE`, `SHARE` or `PART`; None is allowed if the type includes it.  With ``file`` the value is
    the path of a file, which must be there before a run begins, and whose digest the run records.
    """
    metadata = {"help": help, "source": source, "search": search, "allowed": allowed, "file": file}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class NoParameters:
    """For methods without parameters, and the base of every ``Parameters``: it checks ``allowed``.

    Raises :class:`InputError`.  A class that has more to check calls ``super().__post_init__()`` first.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            allowed, value = field.metadata.get("allowed"), getattr(self, field.name)
            if not allowed or value is None:
                continue
            if isinstance(allowed, tuple):
                if value not in allowed:
                    what = f"parameter {field.name}={value}"
                    raise InputError("bad-parameter", f"{what}; {instead(str(value), allowed)}")
            elif not _is_allowed(value, allowed):
                raise InputError("bad-parameter", f"parameter {field.name}={value}: must be {allowed}")


def _is_allowed(value: float, allowed: str) -> bool:
    """Whether a number is what one of the words above says."""
    holds = {
        COUNT: value >= 1,
        POSITIVE: value > 0,
        NOT_NEGATIVE: value >= 0,
        SHARE: 0 <= value < 1,
        PART: 0 < value <= 1,
    }
    return math.isfinite(value) and holds[allowed]


@dataclass(frozen=True)
class Part:
    """A part of a split as a method sees it: its arrays and, int64 ``[samples]``, its labels."""

    inputs: Inputs
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def take(inputs: Inputs, rows: NDArray[np.int64]) -> Inputs:
    """The inputs of the samples ``rows [some]``: arrays ``[some, ...]`` of the same dtypes, int, float or bool."""
    return {name: values[rows] for name, values in inputs.items()}


def count(inputs: Inputs) -> int:
    """The number of samples: the length of any array ``[samples, ...]``, whatever its dtype (int, float, bool)."""
    return len(next(iter(inputs.values())))


class Monitor:
    """What training reports to the harness.  This one keeps only facts; runs and studies override it."""

    @cached_property
    def facts(self) -> dict[str, float]:
        """The facts that :meth:`log_fact` recorded."""
        return {}

    def log(self, step: int, **values: float) -> None:
        """Record values at an optimiser step (curves such as a gate's weights)."""

    def log_fact(self, **values: float) -> None:
        """Record facts of the fit, the newest value of each: what a budget counts.

        ``training_samples`` were trained on, ``samples_seen`` with repetitions, in ``optimiser_steps``.
        """
        self.facts.update(values)

    def epoch(self, epoch: int, epochs: int, **values: float) -> None:
        """Record the end of an epoch (1-based).  May raise to end training (a pruned trial)."""


#: hooks by the names that they had before, or have elsewhere
RENAMED: Final = {
    "optimizer": "optimiser",
    "answers": "can_classify",
    "begin": "before_training",
    "select": "sample_rows",
    "lift": "aggregate_packets",
}


#: what makes a fit short, of the parameters that a method may have
_ONE_PASS: Final = {"epochs": 1, "steps": None, "pretraining_epochs": 1, "pretraining_steps": 1}


#: attributes of every method from the start
_GIVEN: Final = ("parameters", "classes", "seed", "device")


class Method(ABC):
    """One classifier.  Parameters default to the values of the original paper."""

    name: ClassVar[str]  # the file's stem, '_' for '-'
    reference: ClassVar[str] = "our own"  # paper, year, DOI or arXiv id
    family: ClassVar[str] = "features"  # "baseline" (what any method has to beat) | "features" | "deep" | "graph"
    unit: ClassVar[str] = "session"  # or "packet": lifted to sessions inside predict_proba
    reads: ClassVar[frozenset[str]]  # see readers.READS; all that any parameters read
    deviations: ClassVar[tuple[str, ...]] = ()  # every known difference from the paper
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # named parameter values, for --preset
    transductive: ClassVar[bool] = False  # True: an answer may depend on the other samples asked; tables mark it
    tiny: ClassVar[Mapping[str, Any]] = {}  # parameter values that make it quick, for `bench check`
    Parameters: ClassVar[type] = NoParameters  # a frozen dataclass of `parameter` fields

    def __init__(self, parameters: Any = None, *, classes: int, seed: int = 0, device: str = "cpu") -> None:
        """Store the arguments; do no work, draw nothing at random, open no file."""
        self.parameters = self.Parameters() if parameters is None else parameters
        self.classes = classes
        self.seed = seed
        self.device = device

    @classmethod
    def skip(cls, traits: StoreTraits) -> str | None:
        """Why this method cannot run on a store with these traits; None if it can."""
        return None

    @abstractmethod
    def represent(self, view: View) -> Inputs:
        """Arrays ``[samples, ...]``, int, float or bool, from the view's readers; unequal rows as ``readers.Ragged``.

        Pure: nothing learned, a subset's arrays are the subset of the arrays, order does not matter.
        """

    def pretrain(self, unlabelled: Inputs, monitor: Monitor) -> None:  # noqa: B027 (few methods need it)
        """Learn from the training part without labels; by default nothing.  Starts afresh.

        ``unlabelled`` are its arrays ``[samples, ...]`` as `represent` made them, int, float or bool.  The harness
        calls it once before every `fit`, when no label and no other part is there yet, and refuses it later.  Its time
        and what it tells ``monitor`` are recorded apart.
        """

    @abstractmethod
    def fit(self, train: Part, validation: Part, monitor: Monitor) -> Self:
        """Learn from ``train``; choose (epoch, threshold) on ``validation`` alone.  Starts where `pretrain` ended."""

    def trained_rows(self, train: Part) -> NDArray[np.int64]:
        """Rows of ``train``, int64 ``[some]``, that :meth:`fit` will learn from: all, unless it leaves some out.

        Asked before :meth:`fit`, with the same part; a result tells the accuracy on some of them.
        """
        return np.arange(len(train))

    @abstractmethod
    def predict_proba(self, inputs: Inputs) -> NDArray[np.float32]:
        """Float32 ``[samples, classes]``; rows sum to 1.  A row of NaN is an abstention (an error)."""

    def save(self, folder: Path) -> None:
        """Write the fitted method into an existing folder; no pickle."""
        head = {
            "method": self.name,
            "parameters": dataclasses.asdict(self.parameters),
            "classes": self.classes,
            "seed": self.seed,
        }
        (folder / "method.json").write_text(json.dumps(head, indent=1, sort_keys=True) + "\n")
        self.save_state(folder)

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> Self:
        """Read back what :meth:`save` wrote.  Raises :class:`InputError` for a model of another method."""
        head = json.loads((folder / "method.json").read_text())
        if head["method"] != cls.name:
            raise InputError("wrong-model", f"{folder}: holds a model of {head['method']}, not of {cls.name}")
        parameters = make_parameters(cls, head["parameters"])
        method = cls(parameters, classes=head["classes"], seed=head["seed"], device=device)
        method.load_state(folder)
        return method

    def save_state(self, folder: Path) -> None:
        """Write what `fit` learned (safetensors, skops, JSON); here the attributes, if all are arrays or numbers.

        Raises TypeError for an attribute of another kind: such a method writes its own state.
        """
        state = {name: np.asarray(value) for name, value in vars(self).items() if name not in _GIVEN}
        if other := [name for name, value in state.items() if value.dtype.kind not in "biufU"]:
            raise TypeError(f"{', '.join(other)}: neither arrays nor numbers; write save_state and load_state")
        np.savez(folder / "state.npz", allow_pickle=False, **state)

    def load_state(self, folder: Path) -> None:
        """Read what `save_state` wrote."""
        with np.load(folder / "state.npz", allow_pickle=False) as state:
            vars(self).update({name: value if value.ndim else value.item() for name, value in state.items()})


def pretrains(kind: type[Method]) -> bool:
    """Whether the method has a pre-training of its own."""
    return kind.pretrain is not Method.pretrain


def learn(method: Method, train: Part, validation: Part, monitor: Monitor) -> Method:
    """Pre-train on the training part without its labels, then fit: what a run does, outside of a run."""
    method.pretrain(train.inputs, Monitor())
    return method.fit(train, validation, monitor)


def reason_to_skip(kind: type[Method], parameters: Any, store: PacketStore) -> str:
    """Why a method with these parameters cannot run on a store; empty if it can.

    Either the method says so, or it reads what the store does not hold: one session is represented to find out.
    """
    if reason := kind.skip(store.traits):
        return reason
    if not store.lacks:
        return ""
    one = np.zeros(1, np.int64)
    samples = Samples(one, one, np.asarray(store.session("packets"), np.int64)[:1])
    try:
        kind(parameters, classes=2).represent(View(store, samples, kind.reads))
    except NotHeld as error:
        return str(error)
    return ""


def refuse_old_hooks(method: type[Method]) -> None:
    """Raises TypeError for a class that defines a hook under another name (`RENAMED`)."""
    for old, new in RENAMED.items():
        if old in vars(method):
            raise TypeError(f"{method.__name__}.{old}: this hook is called {new}; rename it")


class DeclaresParameters(Protocol):
    """A method, or what is known about one without importing its code."""

    @property
    def name(self) -> str:
        """The name on the command line."""

    @property
    def Parameters(self) -> type:
        """A frozen dataclass of `parameter` fields."""


def file_parameters(method: DeclaresParameters | type[Method]) -> list[str]:
    """Names of the parameters that name a file."""
    return [one.name for one in dataclasses.fields(method.Parameters) if one.metadata.get("file")]


def files_of(method: DeclaresParameters | type[Method], values: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 and name, as sha256sum writes them, of each file that a parameter of these values names, by parameter.

    Raises :class:`InputError` where one cannot be read.
    """
    given = {name: Path(values[name]) for name in file_parameters(method) if values.get(name)}
    found = {}
    for name, path in given.items():
        try:
            found[name] = f"{file_sha256(path)}  {path.name}"
        except OSError as error:
            what = f"{method.name}: parameter {name}={path}: cannot be read ({error.strerror})"
            raise InputError("missing-file", f"{what}; name the file that its authors published") from None
    return found


def one_pass(method: DeclaresParameters | type[Method]) -> dict[str, Any]:
    """Parameter values, of those that the method has, that make a fit one pass over the training part."""
    known = {field.name for field in dataclasses.fields(method.Parameters)}
    return {name: value for name, value in _ONE_PASS.items() if name in known}


def search_spaces(method: DeclaresParameters | type[Method]) -> dict[str, Space]:
    """The default search space of every parameter that has one."""
    return {f.name: f.metadata["search"] for f in dataclasses.fields(method.Parameters) if f.metadata["search"]}


def typed_values(method: DeclaresParameters | type[Method], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values in the types of the method's parameters.  Raises :class:`InputError` as :func:`make_parameters`."""
    parameters = make_parameters(method, values)
    return {name: getattr(parameters, name) for name in values}


def make_parameters(method: DeclaresParameters | type[Method], values: Mapping[str, Any]) -> Any:
    """A method's parameters from names and values; texts are read as the field's type.

    Raises :class:`InputError` for an unknown name or a value that is not of the type.
    """
    hints = get_type_hints(method.Parameters)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        known = instead(unknown[0], sorted(hints))
        raise InputError("unknown-parameter", f"{method.name} has no parameter {unknown[0]!r}; {known}")
    converted = {name: _convert(method.name, name, hints[name], value) for name, value in values.items()}
    try:
        return method.Parameters(**converted)
    except InputError as error:
        raise error.within(method.name) from None


def _convert(method: str, name: str, kind: Any, value: Any) -> Any:
    """`value` as `kind` (bool, int, float, str, or one of these | None)."""
    kinds = getattr(kind, "__args__", (kind,))
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        if type(None) in kinds:
            return None
    elif bool in kinds:
        if str(value).lower() in ("true", "false", "1", "0", "yes", "no"):
            return str(value).lower() in ("true", "1", "yes")
    else:
        for one in (k for k in (int, float, str) if k in kinds and not isinstance(value, bool | list | dict)):
            try:
                number = one(value)
                if one is str or number == float(value):  # 2.5 is not an int
                    return number
            except (ValueError, TypeError, OverflowError):
                continue
    names = " or ".join(k.__name__ for k in kinds)
    raise InputError("bad-parameter", f"{method}: parameter {name}={value!r} is not of type {names}")
