"""Names to methods: a file in `methods/`, an entry point of the group `bench.methods`, or `file.py:Class`.

A name means one thing: what is shipped keeps its name, and no two packages share one.

Listings must not pay for NumPy, nor look-ups of finished runs for torch.  So :func:`describe` reads what a method
declares from its source (`bench.runs.declarations`), where that is plain enough to say the same as the class; any other
file is imported.  `bench check` compares both.
"""

import contextlib
import dataclasses
import functools
import gc
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import methods
from bench.environment import imported_beside
from bench.errors import InputError, instead
from bench.files import from_here, typed_path
from bench.runs.declarations import NotPlain, SourceFile
from bench.spec import FOREST_ON

if TYPE_CHECKING:
    from bench.method import Method

Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Outline:
    """What a method declares, without its code; fields are named as in :class:`bench.method.Method`."""

    name: str
    title: str  # first line of the class's docstring
    reference: str
    family: str
    unit: str
    transductive: bool
    reads: frozenset[str]
    deviations: tuple[str, ...]
    presets: Mapping[str, Mapping[str, Any]]
    Parameters: type  # equal to the method's own, but not the same class object
    origin: str  # where it is from, for tables: see `origin`
    sources: tuple[Path, ...]
    digest: str  # of the source file and of the methods that it is built from: SHA-256, 16 hex digits

    @property
    def defaults(self) -> dict[str, Any]:
        """Every parameter's default value."""
        return {f.name: f.default for f in dataclasses.fields(self.Parameters)}

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; parameters with type, default, meaning, source and search space."""
        plain = ("name", "title", "family", "unit", "transductive", "origin", "reference", "deviations", "presets")
        head = {key: getattr(self, key) for key in plain} | {"reads": sorted(self.reads)}
        return head | {"parameters": [_parameter(f) for f in dataclasses.fields(self.Parameters)]}


@dataclass(frozen=True)
class Fault:
    """A plug-in that gives no method."""

    name: str  # of its entry point
    package: str
    reason: str


def names() -> list[str]:
    """Every known method, sorted; imports none.  A plug-in among them may turn out to be broken: see :func:`seen`."""
    return sorted(shipped() | set(_plug_ins().entries))


def seen(look: Callable[[str], Seen]) -> tuple[dict[str, Seen], list[Fault]]:
    """What a look at every method finds, by name, and the plug-ins at which there is nothing to be found.

    ``look`` is :func:`summary`, :func:`describe` or :func:`load`.  What is shipped must be sound: its errors pass.
    """
    found, faults = {}, list(_plug_ins().faults)
    with _uncollected():
        for name in names():
            try:
                found[name] = look(name)
            except Exception as error:  # a plug-in's own, too
                if name in shipped():
                    raise
                said = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
                faults.append(Fault(name, _package(_plug_ins().entries[name]), said + " ".join(str(error).split())))
    return found, faults


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage is looked for meanwhile, and later none among the objects that are there now.

    Those of syntax trees are many and stay as long as the process: looking through them takes a quarter of a listing.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was:
            gc.enable()


def twins(name: str) -> list[Fault]:
    """Plug-ins that claim the name of a shipped method, and are left out."""
    return [fault for fault in _plug_ins().faults if name in shipped() and _alike(fault.name) == name]


def shipped() -> frozenset[str]:
    """Names of the methods that come with the harness; nobody else can have them."""
    return frozenset(_files())


def is_shipped(name: str) -> bool:
    """Whether a method comes with the harness; a forest on the input of one that does is one, too."""
    return name.removeprefix(FOREST_ON) in shipped()


def is_file(name: str) -> bool:
    """Whether a name is ``FILE.py:CLASS``."""
    return ".py:" in name


def spelled(word: str) -> str:
    """A method's name as runs carry it, of a word as it is typed: of a file the shortest path from here, and the class.

    ``mine`` and ``mine.py`` are the one class with a name in the file ``mine.py`` here, where no method is called so.
    """
    prefix, file, wanted = _parts(word)
    if file in names():
        return word
    path = typed_path(file if file.endswith(".py") else f"{file}.py")
    if not path.is_file():
        return word
    wanted = wanted or SourceFile(path).method_class()
    return f"{prefix}{from_here(path.parent.resolve() / path.name)}:{wanted}"


def moved(name: str, place: Callable[[str], str]) -> str:
    """A method's name, of one in a file with that file where ``place`` has it."""
    prefix, file, wanted = _parts(name)
    return f"{prefix}{place(file)}:{wanted}" if is_file(name) else name


def _parts(word: str) -> tuple[str, str, str]:
    """`FOREST_ON` or nothing, the file or the name, and of a file the class, where it is there."""
    prefix = FOREST_ON if word.startswith(FOREST_ON) else ""
    name = word.removeprefix(prefix)
    file, _, wanted = name.rpartition(":") if is_file(name) else (name, "", "")
    return prefix, file, wanted


def origin(name: str) -> str:
    """Where a method that is not shipped is from: package and version, or a file's digest.  Empty for shipped ones.

    Raises :class:`InputError` as :func:`describe` does.
    """
    if is_file(name):
        return file_origin(digest_of(name))
    _locate(name)
    entry = _plug_ins().entries.get(name)
    return "" if entry is None else _package(entry)


def file_origin(digest: str | None) -> str:
    """The origin of a method in a file of that digest."""
    return f"file {digest[:8]}" if digest else "file without a digest"


def digest_of(name: str) -> str:
    """The digest of a method's source, read and not run.  Raises :class:`InputError` as :func:`describe` does."""
    path, _ = _locate(name)
    return _digest(path, SourceFile(path))


def summary(name: str) -> tuple[str, str, str]:
    """A method's name, family and title, for listings: of the source no more is evaluated than that.

    The title of one that is not shipped says where it is from.  Raises :class:`InputError` as :func:`describe` does for
    unknown names.
    """
    path, wanted = _locate(name)
    source = SourceFile(path)
    wanted = wanted or source.method_class()
    place = f" [{origin(name)}]" if name not in shipped() else ""
    return name, source.constant(wanted, "family"), source.docstring(wanted).partition("\n")[0] + place


#: how listings tell of the forests on what others read
FOREST_ON_ANY: Final = (f"{FOREST_ON}METHOD", "baseline", "Random forest on exactly what a deep or graph method reads.")


@functools.cache
def describe(name: str) -> Outline:
    """The declarations of a method, read from its source where that is plain, else from the imported class.

    Raises :class:`InputError` for an unknown name and for a file that holds no method.
    """
    if name.startswith(FOREST_ON):
        return _forest_outline(describe(name.removeprefix(FOREST_ON)))
    path, wanted = _locate(name)
    source = SourceFile(path)
    wanted = wanted or source.method_class()
    try:
        declared = source.declarations(wanted)
    except NotPlain:
        declared = load(name)
    return outline_of(declared, path, source, wanted, origin(name))


def _forest_outline(of: Outline) -> Outline:
    """Of the forest on a method's input.  Raises :class:`InputError` for a method that makes no input for networks."""
    from bench import estimator

    traits = estimator.forest_traits(of.name)
    if of.family not in ("deep", "graph"):
        raise InputError(
            "unknown-method",
            f"{traits['name']}: {of.name} is of family {of.family}; name a deep or graph method",
        )
    return dataclasses.replace(
        of,
        **traits,
        title=f"Random forest on exactly what {of.name} reads.",
        unit="session",
        transductive=False,
        sources=(*of.sources, Path(estimator.__file__)),
    )


def outline_of(declared: Any, path: Path, source: SourceFile, wanted: str, origin: str = "") -> Outline:
    """The outline of a class, or of its declarations alone.  Raises :class:`InputError` where it is no method."""
    from bench.method import Method

    if not (inspect.isclass(declared) and issubclass(declared, Method)):
        raise source.refusal(wanted)
    return Outline(
        name=getattr(declared, "name", _alike(path.stem)),
        title=source.docstring(wanted).partition("\n")[0],
        reference=getattr(declared, "reference", ""),
        family=getattr(declared, "family", ""),
        unit=declared.unit,
        transductive=declared.transductive,
        reads=frozenset(getattr(declared, "reads", ())),
        deviations=tuple(declared.deviations),
        presets=declared.presets,
        Parameters=declared.Parameters,
        origin=origin,
        sources=(path, *_own_modules(path)),
        digest=_digest(path, source),
    )


def load(name: str) -> "type[Method]":
    """The class itself; imports its file and no other method.  Raises :class:`InputError` as `describe` does."""
    from bench.estimator import forest_on
    from bench.method import Method

    if name.startswith(FOREST_ON):
        describe(name)
        return forest_on(load(name.removeprefix(FOREST_ON)))
    path, wanted = _locate(name)
    try:
        if is_file(name):
            module = _import_file(path)
        elif entry := _plug_ins().entries.get(name):
            module = importlib.import_module(entry.module)
        else:
            module = importlib.import_module(f"methods.{path.stem}")
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())
        lines = [
            f":{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
        ]
        raise InputError(
            "bad-method",
            f"{path}{lines[-1] if lines else ''}: cannot be imported ({type(error).__name__}: {reason}); "
            "correct the file",
        ) from error
    wanted = wanted or SourceFile(path).method_class()
    method = getattr(module, wanted, None)
    if not (inspect.isclass(method) and issubclass(method, Method)):
        raise SourceFile(path).refusal(wanted)
    return method


def _digest(path: Path, source: SourceFile) -> str:
    """Of a source file, what it imports of its own folder, and the methods that it imports from: a change there is a
    change here.
    """
    state = hashlib.sha256(source.text)
    for own in _own_modules(path):
        state.update(hashlib.sha256(own.read_bytes()).digest())
    for stem in source.foundations:
        if (other := _files().get(_alike(stem))) is not None:
            state.update(_digest(other, SourceFile(other)).encode())
    return state.hexdigest()[:16]


def _own_modules(path: Path) -> list[Path]:
    """Sources beside a method of somebody else's that it imports; `code_digest` finds those of a shipped one."""
    return [] if path.parent in map(Path, methods.__path__) else imported_beside(path)


@functools.cache
def _files() -> dict[str, Path]:
    """The files of shipped methods, by name."""
    paths = (path for folder in methods.__path__ for path in Path(folder).glob("*.py"))
    return {_alike(path.stem): path for path in paths if not path.stem.startswith("_")}


@dataclass(frozen=True)
class _PlugIns:
    """Entry points by name, and those whose name is not theirs alone."""

    entries: dict[str, EntryPoint]
    faults: list[Fault]


@functools.cache
def _plug_ins() -> _PlugIns:
    """What other packages bring.  Of two that claim one name neither has it, as nobody can say which is meant."""
    alike: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group="bench.methods"):
        alike.setdefault(_alike(entry.name), []).append(entry)
    found = _PlugIns({}, [])
    for name, entries in alike.items():
        for entry in entries:
            others = ["is shipped"] * (name in shipped())
            others += [f"is in package {_package(other)}" for other in entries if other is not entry]
            others += ["would be a file"] * is_file(entry.name)
            if others:
                reason = f"cannot be called so: a method of that name {others[0]}; uninstall one, or rename it there"
                found.faults.append(Fault(entry.name, _package(entry), reason))
            else:
                found.entries[entry.name] = entry
    return found


def _alike(name: str) -> str:
    """How a shipped file's name becomes a method's."""
    return name.lower().replace("_", "-")


def _package(entry: EntryPoint) -> str:
    """Name and version of the package of an entry point."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else f"of {entry.value}"


def _locate(name: str) -> tuple[Path, str | None]:
    """A method's file and, where the name says it, its class; of a forest on another's input, that one's."""
    name = name.removeprefix(FOREST_ON)
    if is_file(name):
        file, _, wanted = name.rpartition(":")
        if not Path(file).is_file():
            raise InputError("unknown-method", f"method {name}: no file {file}; give FILE.py:CLASS")
        return Path(file).resolve(), wanted
    if entry := _plug_ins().entries.get(name):
        return _locate_entry(entry)
    if name.endswith(".py"):
        what = "does not say which class of the file" if Path(name).is_file() else "no such file"
        raise InputError("unknown-method", f"method {name}: {what}; give FILE.py:CLASS")
    if name not in _files():
        for fault in _plug_ins().faults:
            if fault.name == name:
                what = f"the entry point bench.methods: {name} of package {fault.package}"
                raise InputError("same-name", f"{what} {fault.reason}")
        what = f"unknown method {name!r}; {instead(name, names())}"
        raise InputError("unknown-method", f"{what} (or FILE.py:CLASS for one of your own)")
    return _files()[name], None


def _locate_entry(entry: EntryPoint) -> tuple[Path, str | None]:
    """The file and class of a plug-in.  Raises :class:`InputError` where its package does not have them."""
    what = f"method {entry.name} of package {_package(entry)}"
    try:
        spec, wanted = importlib.util.find_spec(entry.module), entry.attr  # imports the packages around the module
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError("bad-method", f"{what}: cannot be found ({reason}); install or uninstall it") from error
    if spec is None or not (spec.origin or "").endswith(".py"):
        raise InputError("bad-method", f"{what}: there is no source of {entry.module}; install or uninstall it")
    return Path(str(spec.origin)), wanted


def _import_file(path: Path) -> ModuleType:
    """Import a file under a name of its own, once."""
    name = f"_method_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _parameter(field: Any) -> dict[str, Any]:
    """One parameter, ready for JSON."""
    from bench.method import Range

    search = field.metadata.get("search")
    return {
        "name": field.name,
        "type": getattr(field.type, "__name__", None) if inspect.isclass(field.type) else str(field.type),
        "default": field.default,
        "help": field.metadata.get("help", ""),
        "source": field.metadata.get("source", ""),
        "search": dataclasses.asdict(search) if isinstance(search, Range) else search and list(search),
    }
