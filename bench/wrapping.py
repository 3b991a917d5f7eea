"""A scikit-learn classifier or a torch network of a notebook as a method: it is written into a file of a few lines.

That file is a method like any other (``FILE.py:CLASS``), so there is no second way to run, check or load one.  It holds
import paths, the parameters that were changed, and the packages' versions; code of the user's own file is copied into
it.  Its name tells its content: another estimator is another file, and runs keep naming what they were made by.
"""

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import math
import re
import site
import sys
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NoReturn

import numpy as np

from bench.errors import InputError, instead
from bench.files import from_here, write_text
from bench.readers import READS

FOLDER: Final = "wrapped"  # of the files, below the working folder
CLASS: Final = "Wrapped"
PER_PACKET: Final = ("lengths", "payload_lengths", "directions", "times", "flags")  # a column each
BYTES: Final = ("payload", "ip_bytes")  # a column a byte
PER_SESSION: Final = ("ports", "protocol")
PLAIN: Final = "give numbers, texts, lists of them, estimators, or what can be imported by name; or write a class"
OWN_FILE: Final = "put it into a file beside the notebook, as in my_models.py, and import it from there"
ONE_FILE: Final = "put all into one file, or install it as a package"


def wrap(
    estimator: Any,
    reads: Iterable[str],
    *,
    packets: int = 16,
    bytes: int = 64,
    name: str = "",
    trusted: Iterable[str] = (),
) -> str:
    """A method made of a classifier or a network, by the name ``FILE.py:CLASS`` that `bench.run` takes.

    ``estimator`` is a scikit-learn classifier (a class, an instance or a pipeline, of which the parameters count and
    nothing that it learned), or a class or function that builds a torch module: it is called with the shape of a sample
    and the number of classes, and keywords come by ``functools.partial``.  Every ``random_state`` is the run's seed,
    and ``n_jobs`` is left out: the harness shares out threads.

    ``reads`` are words of `bench.readers.READS`.  Of the first ``packets`` of a session (those with payload, where
    ``payload`` is read) each gives a column, in packets' own units, ``payload`` and ``ip_bytes`` one a byte: float32
    ``[samples, packets, columns]``, in the order of `PER_PACKET` and `BYTES`.  A network gets them so, a scikit-learn
    classifier ``[samples, packets * columns]``, with ``ports`` and ``protocol`` behind them.

    ``name`` is the method's, by default the class's or function's; ``trusted`` is as of `EstimatorMethod`.  The file
    lies in ``wrapped/`` of the working folder.  Raises :class:`InputError` for what cannot be written into a file.

    >>> trees = wrap(ExtraTreesClassifier(50), reads=["lengths", "directions"])  # doctest: +SKIP
    """
    columns = _Columns.of(reads, packets, bytes)
    write = _estimator_method if hasattr(estimator, "get_params") else _torch_method
    label, body, code = write(estimator, columns, trusted)
    name = name or _kebab(label)
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        refuse(f"name={name!r}", "take a-z, 0-9 and '-', as in name=\"my-trees\"")
    text = f'''{code.head}

class {CLASS}({code.base}):
    """{label} on {columns.words} of the first {packets} packets."""

    name = "{name}"
    reads = frozenset({{{", ".join(map(repr, columns.reads))}}})'''
    text += body
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    file = Path.cwd() / FOLDER / f"{name.replace('-', '_')}_{digest}.py"
    if not file.exists():
        write_text(file, text)
    elif file.read_text(encoding="utf-8") != text:
        raise InputError("unwritable-file", f"{file}: was changed by hand; rename it, and wrap again")
    return f"{from_here(file)}:{CLASS}"


def _kebab(name: str) -> str:
    """A class's or function's name as a method's.

    >>> _kebab("ExtraTreesClassifier"), _kebab("SVC"), _kebab("small_net")
    ('extra-trees-classifier', 'svc', 'small-net')
    """
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name)
    return apart.replace("_", "-").strip("-").lower()


def refuse(what: str, remedy: str) -> NoReturn:
    """Raises :class:`InputError`: the line that says why something cannot be written into a file."""
    raise InputError("cannot-wrap", f"bench.wrap: {what}; {remedy}")


# --- what is read -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Columns:
    """What a method reads, and the code that makes arrays of it."""

    reads: tuple[str, ...]  # in the order of the three kinds above
    packets: int
    bytes: int

    @classmethod
    def of(cls, reads: Iterable[str], packets: int, bytes: int) -> "_Columns":
        words = [reads] if isinstance(reads, str) else list(reads)
        known = (*PER_PACKET, *BYTES, *PER_SESSION)
        for word in words:
            if word not in known:
                remedy = "they are masked here; write a class for them" if word in READS else instead(str(word), known)
                refuse(f"reads {word!r}", remedy)
        if not words:
            refuse("reads nothing", f"name some of {', '.join(known)}")
        for what, number in (("packets", packets), ("bytes", bytes)):
            if type(number) is not int or number < 1:
                refuse(f"{what}={number!r}", "give a whole number, at least 1")
        return cls(tuple(word for word in known if word in words), packets, bytes)

    @property
    def words(self) -> str:
        *others, last = self.reads
        return f"{', '.join(others)} and {last}" if others else last

    @property
    def of_packets(self) -> list[str]:
        return [word for word in self.reads if word not in PER_SESSION]

    @property
    def of_sessions(self) -> list[str]:
        return [word for word in self.reads if word in PER_SESSION]

    @property
    def width(self) -> int:
        """Columns of a packet."""
        return sum(self.bytes if word in BYTES else 1 for word in self.of_packets)

    @property
    def block(self) -> str:
        """An expression of shape [samples, packets, columns]."""
        calls = []
        for word in self.of_packets:
            sizes = f"{self.packets}, {self.bytes}" if word in BYTES else f"{self.packets}"
            only = ", payload_only=True" if "payload" in self.reads and word != "payload" else ""
            calls.append(f"view.{word}({sizes}{only})")
        return f"np.dstack([{', '.join(calls)}])"


# --- code ---------------------------------------------------------------------------------------------------------


@dataclass
class _Code:
    """Imports of the file that is written, and the user's own file that is copied into it."""

    base: str  # the class that a method derives from, and its module
    home: str
    imports: dict[str, str] = field(default_factory=dict)  # name -> module
    packages: set[str] = field(default_factory=set)  # with versions
    own: ModuleType | None = None
    used: set[str] = field(default_factory=set)  # names of it

    @property
    def head(self) -> str:
        """All that stands above the class."""
        lines = ["import numpy as np", f"from {self.home} import {self.base}"]
        lines += [f"from {module} import {name}" for name, module in self.imports.items()]
        note = f"# Written by `bench.wrap` with {', '.join(sorted(self.packages))}."
        if self.own is None:
            return "\n".join([note, "", *lines, ""])
        self._check_names(self.own)
        file = _file_of(self.own)
        copied = file.read_text(encoding="utf-8").rstrip()
        return "\n".join([copied, "", "", f"{note} Above is {file.name} as it was then.", "", *lines, ""])

    def _check_names(self, own: ModuleType) -> None:
        """Refuse a copied file in which a name of ours means something else."""
        names = {"np": "numpy", self.base: self.home, CLASS: "", **self.imports}
        for name, module in names.items():
            bound = getattr(own, name, None)
            meant = sys.modules.get(module) if name == "np" else getattr(sys.modules.get(module), name, None)
            if bound is not None and bound is not meant:
                refuse(f"{_file_of(own)} has a {name!r} of its own, which the file needs", "rename it there")

    def name_of(self, thing: Any, where: str) -> str:
        """A class or function as the file names it, which imports it or holds a copy."""
        module, path = (getattr(thing, one, None) for one in ("__module__", "__qualname__"))
        path = path or getattr(thing, "__name__", None)
        if not module or not path:
            refuse(f"{where} is {thing!r:.60}, which cannot be written into a file", PLAIN)
        if "<lambda>" in path:
            refuse(f"{where} is a lambda, which has no name to import it by", f"write it with def; {OWN_FILE}")
        if module == "__main__" or "<locals>" in path:
            place = "a function" if "<locals>" in path else "a notebook or script"
            refuse(f"{where} is {path}, defined in {place}, where no file can import it from", OWN_FILE)
        home = importlib.import_module(module)
        if attrgetter(path)(home) is not thing:
            refuse(f"{where} is {path} of {module}, which is another one there now", "import it again")
        if _is_installed(_file_of(home)):
            self._import(module, path.partition(".")[0], where)
        else:
            self._copy(home)
            self.used.add(path)
        return str(path)

    def _import(self, module: str, name: str, where: str) -> None:
        self.packages |= _versions(module)
        thing, parts = getattr(sys.modules[module], name), module.split(".")
        homes = (".".join(parts[:number]) for number in range(1, len(parts) + 1))  # sklearn.svm before sklearn.svm._x
        module = next(one for one in homes if getattr(sys.modules.get(one), name, None) is thing)
        if self.imports.setdefault(name, module) != module:
            refuse(f"{where} is {name} of {module}; {self.imports[name]} has a {name}, too", "write a class by hand")

    def _copy(self, own: ModuleType) -> None:
        if self.own is None:
            _check_alone(_file_of(own))
        if self.own not in (None, own):
            refuse(f"code of two files is needed, of {_file_of(self.own)} and {_file_of(own)}", ONE_FILE)
        self.own = own


def _file_of(module: ModuleType | None) -> Path:
    """A module's file; of a part of Python without one, the library's folder."""
    return Path(getattr(module, "__file__", None) or sysconfig.get_path("stdlib"))


def _is_installed(file: Path) -> bool:
    """Whether a file came with Python or with an installed package, and so with a version."""
    places = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    places.append(site.getusersitepackages())
    return any(file.resolve().is_relative_to(Path(place).resolve()) for place in places)


def _versions(module: str) -> set[str]:
    top = module.partition(".")[0]
    packages = importlib.metadata.packages_distributions().get(top, ())
    return {f"{name} {importlib.metadata.version(name)}" for name in packages}


def _check_alone(file: Path) -> None:
    """Refuse a file of the user's own that needs another of theirs."""
    for node in ast.walk(ast.parse(file.read_bytes(), str(file))):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.ImportFrom) and node.level:
            refuse(f"{file}:{node.lineno} imports what lies beside it", ONE_FILE)
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
        for name in (one.partition(".")[0] for one in names):
            found = importlib.util.find_spec(name)
            if found is None or name in ("bench", "methods") or found.origin in ("built-in", "frozen"):
                continue
            origin = found.origin or next(iter(found.submodule_search_locations or ()), "")
            if not _is_installed(Path(origin)):
                refuse(f"{file}:{node.lineno} imports {name}, which is not installed: {origin}", ONE_FILE)


# --- scikit-learn -------------------------------------------------------------------------------------------------


def _estimator_method(estimator: Any, columns: _Columns, trusted: Iterable[str]) -> tuple[str, str, _Code]:
    """A classifier's label, the body of its class, and what that needs."""
    code = _Code("EstimatorMethod", "bench.estimator")
    from sklearn.base import is_classifier

    if inspect.isclass(estimator):
        try:
            estimator = estimator()
        except TypeError as error:
            refuse(f"{estimator.__name__} cannot be made without arguments ({error})", "give an instance")
    steps = getattr(estimator, "steps", None)
    label = type(steps[-1][1] if steps else estimator).__name__
    if not is_classifier(estimator):
        refuse(f"{label} is no classifier", "give one that scikit-learn's is_classifier knows")
    if not hasattr(estimator, "predict_proba"):
        remedy = "SVC takes probability=True, sklearn.calibration.CalibratedClassifierCV goes around others"
        refuse(f"{label} has no predict_proba, which gives probabilities", remedy)
    made = _expression(estimator, label, code)
    types = [*map(repr, trusted), *(f'f"{{__name__}}.{name}"' for name in sorted(code.used))]
    arrays = [f"{columns.block}.reshape(len(view), {columns.packets * columns.width})"] if columns.of_packets else []
    arrays += [f"view.{word}()" for word in columns.of_sessions]
    body = f"""
    trusted = ({"".join(f"{one}, " for one in types)})

    def represent(self, view):
        return {{"features": np.column_stack([{", ".join(arrays)}]).astype(np.float32)}}

    def estimator(self):
        return {made}
"""
    return label, body, code


def _expression(value: Any, where: str, code: _Code) -> str:
    """A parameter's value, or an estimator, as Python writes it."""
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) in (type(None), bool, int, str):
        return repr(value)
    if type(value) is float:
        return repr(value) if math.isfinite(value) else f'float("{value}")'
    if type(value) in (list, tuple):
        inner = [_expression(one, where, code) for one in value]
        return f"[{', '.join(inner)}]" if type(value) is list else f"({''.join(f'{one}, ' for one in inner)})"
    if type(value) is dict:
        pairs = [(_expression(key, where, code), _expression(one, where, code)) for key, one in value.items()]
        return f"{{{', '.join(f'{key}: {one}' for key, one in pairs)}}}"
    if hasattr(value, "get_params") and not inspect.isclass(value):
        return _call(value, where, code)
    return code.name_of(value, where)


def _call(estimator: Any, where: str, code: _Code) -> str:
    """The call that makes an estimator afresh: parameters that are not its defaults, and the run's seed."""
    kind = type(estimator)
    name = code.name_of(kind, where)
    defaults = {one.name: one.default for one in inspect.signature(kind).parameters.values()}
    words = []
    for key, value in estimator.get_params(deep=False).items():
        if key == "random_state":
            words.append(f"{key}=self.random_state")
        elif key != "n_jobs" and not _equal(value, defaults.get(key, inspect.Parameter.empty)):
            words.append(f"{key}={_expression(value, f'{key} of {kind.__name__}', code)}")
    return f"{name}({', '.join(words)})"


def _equal(value: Any, default: Any) -> bool:
    if value is default:
        return True
    plain = type(value) is type(default) and isinstance(value, bool | int | float | str | tuple)
    return plain and (value == default or value != value != default != default)


# --- torch --------------------------------------------------------------------------------------------------------


def _torch_method(build: Any, columns: _Columns, trusted: Iterable[str]) -> tuple[str, str, _Code]:
    """A network's label, the body of its class, and what that needs."""
    code = _Code("TorchMethod", "bench.training")
    words = build.keywords if isinstance(build, functools.partial) else {}
    build = build.func if isinstance(build, functools.partial) and not build.args else build
    if not (inspect.isclass(build) or inspect.isfunction(build)):
        what = f"{build!r:.60} is neither a scikit-learn classifier nor a class or function that builds a network"
        refuse(what, "give one that is called with the shape of a sample and the number of classes")
    if columns.of_sessions:
        refuse(f"reads {columns.of_sessions[0]!r}", "a network gets what packets have; write a class for it")
    if tuple(trusted):
        refuse("trusted is for scikit-learn", "leave it out: the tensors of a network are stored, no types")
    label, name, shape = build.__name__, code.name_of(build, build.__name__), (columns.packets, columns.width)
    more = "".join(f", {key}={_expression(value, f'{key} of {label}', code)}" for key, value in words.items())
    code.packages |= _versions("torch")
    key = _input_of(functools.partial(build, **words), label, shape)
    body = f"""
    tiny = {{"batch_size": 8}}

    def represent(self, view):
        return {{"{key}": {columns.block}.astype(np.float32)}}

    def network(self):
        return {name}({shape}, self.classes{more})
"""
    return label, body, code


def _input_of(build: Callable[[tuple[int, int], int], Any], label: str, shape: tuple[int, int]) -> str:
    """The name of what the network's `forward` takes.  Tries it on two samples of three classes."""
    import torch

    call = f"{label}({shape}, 3)"
    with torch.random.fork_rng([]), torch.inference_mode():
        try:
            network = build(shape, 3)
            if not isinstance(network, torch.nn.Module):
                refuse(f"{call} gives {type(network).__name__}, no torch.nn.Module", "return the network")
            inputs = list(inspect.signature(network.forward).parameters)
            logits = network.eval()(**{inputs[0]: torch.zeros(2, *shape)})
        except InputError:
            raise
        except Exception as error:
            what = f"{call} fails on two samples ({type(error).__name__}: {' '.join(str(error).split())})"
            refuse(what, "it is called with a sample's shape and the number of classes, and gives a network")
    if getattr(logits, "shape", None) != (2, 3):
        found = tuple(getattr(logits, "shape", ())) or type(logits).__name__
        refuse(f"{call} answers two samples with {found}", "give logits of shape (2, 3), a column a class")
    return inputs[0]
