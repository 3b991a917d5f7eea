"""Names to methods: a file in `methods/`, an entry point of the group `bench.methods`, or `file.py:Class`.

Listings and look-ups of finished runs must not pay for torch.  So :func:`describe` does not import a method:
it runs only those statements of its source that its declarations need (:class:`_Source`).
"""

import ast
import copy
import dataclasses
import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import methods
from bench.errors import InputError
from bench.method import Method, Range

OWN: Final = ("bench", "methods")  # packages whose source is read rather than imported


@dataclass(frozen=True)
class Outline:
    """What a method declares, without its code; fields are named as in :class:`bench.method.Method`."""

    name: str
    title: str  # first line of the class's docstring
    reference: str
    family: str
    unit: str
    reads: frozenset[str]
    deviations: tuple[str, ...]
    presets: Mapping[str, Mapping[str, Any]]
    Parameters: type  # equal to the method's own, but not the same class object
    source: Path
    digest: str  # of the source file and of the methods that it is built from: SHA-256, 16 hex digits

    @property
    def defaults(self) -> dict[str, Any]:
        """Every parameter's default value."""
        return {f.name: f.default for f in dataclasses.fields(self.Parameters)}

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; parameters with type, default, meaning, source and search space."""
        plain = ("name", "title", "family", "unit", "reference", "deviations", "presets")
        head = {key: getattr(self, key) for key in plain} | {"reads": sorted(self.reads)}
        return head | {"parameters": [_parameter(f) for f in dataclasses.fields(self.Parameters)]}


def names() -> list[str]:
    """Every known method, sorted; imports none."""
    return sorted({_name(path) for path in _files()} | set(_entries()))


def summary(name: str) -> tuple[str, str, str]:
    """A method's name, family and title, for listings: of the source no more is evaluated than that.

    Raises :class:`InputError` as :func:`describe` does for unknown names.
    """
    path, wanted = _locate(name)
    source = _Source(path)
    wanted = wanted or source.method_class()
    return name, source.constant(wanted, "family"), source.docstring(wanted).partition("\n")[0]


@functools.cache
def describe(name: str) -> Outline:
    """The declarations of a method, read from its source.

    Raises :class:`InputError` for an unknown name and for a file that holds no method.
    """
    path, wanted = _locate(name)
    source = _Source(path)
    wanted = wanted or source.method_class()
    try:
        found = source.value(wanted, declarations=True)
    except Exception:  # defined in some way that a slice does not see, or wrong: pay for the import, which tells
        found = load(name)
    if not (inspect.isclass(found) and issubclass(found, Method)):
        raise InputError(f"{path}: {wanted} is no subclass of bench.method.Method; docs/ says how to add a method")
    return Outline(
        name=getattr(found, "name", _name(path)),
        title=source.docstring(wanted).partition("\n")[0],
        reference=getattr(found, "reference", ""),
        family=getattr(found, "family", ""),
        unit=found.unit,
        reads=frozenset(getattr(found, "reads", ())),
        deviations=tuple(found.deviations),
        presets=found.presets,
        Parameters=found.Parameters,
        source=path,
        digest=source.digest,
    )


def load(name: str) -> type[Method]:
    """The class itself; imports its file and no other method.  Raises :class:`InputError` as `describe` does."""
    path, wanted = _locate(name)
    try:
        if name in _entries():
            module = importlib.import_module(_entries()[name].module)
        elif ".py:" in name:
            module = _import_file(path)
        else:
            module = importlib.import_module(f"methods.{path.stem}")
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be imported ({type(error).__name__}: {reason}); correct the file") from error
    found = getattr(module, wanted or _Source(path).method_class(), None)
    if not (inspect.isclass(found) and issubclass(found, Method)):
        raise InputError(f"{path}: {wanted} is no subclass of bench.method.Method; docs/ says how to add a method")
    return found


def _files() -> Iterator[Path]:
    for folder in methods.__path__:
        yield from (path for path in Path(folder).glob("*.py") if not path.stem.startswith("_"))


def _name(path: Path) -> str:
    return path.stem.replace("_", "-")


@functools.cache
def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="bench.methods")}


def _locate(name: str) -> tuple[Path, str | None]:
    """A method's file and, where the name says it, its class."""
    if ".py:" in name:
        file, _, wanted = name.rpartition(":")
        if not Path(file).is_file():
            raise InputError(f"--method {name}: no file {file}; give FILE.py:CLASS")
        return Path(file).resolve(), wanted
    if name in _entries():
        entry = _entries()[name]
        spec = importlib.util.find_spec(entry.module)
        if spec is None or spec.origin is None:
            raise InputError(f"method {name}: its package has no module {entry.module}; install it again")
        return Path(spec.origin), entry.attr
    found = {_name(path): path for path in _files()}
    if name not in found:
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names())}, or FILE.py:CLASS"
        raise InputError(f"unknown method {name!r}; {hint}")
    return found[name], None


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


class _Source:
    """A source file of which single top-level names can be evaluated.

    Only the statements that a name needs are run, imports included; names that come from modules of ours
    that are not loaded yet are evaluated from their source in the same way.
    """

    def __init__(self, path: Path, module: str = "") -> None:
        self.path = path
        text = path.read_bytes()
        try:
            self.tree = ast.parse(text, str(path))
        except SyntaxError as error:
            raise InputError(f"{path}:{error.lineno}: not Python ({error.msg}); correct the file") from None
        self.digest = hashlib.sha256(text + b"".join(self._foundations())).hexdigest()[:16]
        self.scope: dict[str, Any] = {"__name__": module or path.stem, "__file__": str(path)}
        self.statements = {name: statement for statement in self.tree.body for name in _defined(statement)}

    def _foundations(self) -> Iterator[bytes]:
        """Digests of the methods that this one imports from: a change there is a change here."""
        for statement in self.tree.body:
            if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("methods."):
                stem = (statement.module or "").partition(".")[2]
                yield from (_Source(path).digest.encode() for path in _files() if path.stem == stem)

    def method_class(self) -> str:
        """The one class that assigns ``name``."""
        classes = [s for s in self.tree.body if isinstance(s, ast.ClassDef)]
        found = [c.name for c in classes if any("name" in _defined(s) for s in c.body)]
        if len(found) != 1:
            raise InputError(f"{self.path}: expected one class with a `name`, found {len(found)}; see bench/method.py")
        return found[0]

    def docstring(self, name: str) -> str:
        """Of a class of the file."""
        statement = self.statements.get(name)
        return (ast.get_docstring(statement) if isinstance(statement, ast.ClassDef) else None) or ""

    def constant(self, name: str, member: str) -> str:
        """A text that a class assigns to a member, or the first of its bases that does; empty where none does."""
        statement = self.statements.get(name)
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").partition(".")[0] in OWN:
            spec = importlib.util.find_spec(statement.module or "")
            if spec is not None and spec.origin is not None:
                original = next(a.name for a in statement.names if (a.asname or a.name) == name)
                return _foundation(Path(spec.origin), statement.module or "").constant(original, member)
        if not isinstance(statement, ast.ClassDef):
            return ""
        for line in statement.body:
            if member in _defined(line) and isinstance(getattr(line, "value", None), ast.Constant):
                return str(line.value.value)  # type: ignore[attr-defined]
        found = (self.constant(base.id, member) for base in statement.bases if isinstance(base, ast.Name))
        return next(filter(None, found), "")

    def value(self, name: str, *, declarations: bool = False) -> Any:
        """What a top-level name stands for; with ``declarations``, a class and its bases without their functions."""
        if name not in self.scope and name in self.statements:
            statement = self.statements[name]
            if isinstance(statement, ast.ImportFrom):
                self.scope[name] = self._imported(statement, name, declarations)
                return self.scope[name]
            if declarations and isinstance(statement, ast.ClassDef):
                for base in statement.bases:
                    if isinstance(base, ast.Name):
                        self.value(base.id, declarations=True)
                statement = _without_functions(statement)
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and node.id != name:
                    self.value(node.id)
            exec(compile(ast.Module([statement], []), str(self.path), "exec", dont_inherit=True), self.scope)
        return self.scope.get(name)

    def _imported(self, statement: ast.ImportFrom, name: str, declarations: bool) -> Any:
        """What ``from module import name`` gives."""
        module = statement.module or ""
        original = next(a.name for a in statement.names if (a.asname or a.name) == name)
        if module.partition(".")[0] in OWN and module not in sys.modules:
            spec = importlib.util.find_spec(module)
            if spec is not None and spec.origin is not None:
                return _foundation(Path(spec.origin), module).value(original, declarations=declarations)
        return getattr(importlib.import_module(module), original)


@functools.cache
def _foundation(path: Path, module: str) -> _Source:
    """A module of ours that methods import from: read and evaluated once for all of them."""
    return _Source(path, module)


def _defined(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement binds, where it is of a plain kind."""
    if isinstance(statement, ast.Assign):
        yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
        yield statement.target.id
    elif isinstance(statement, ast.ClassDef | ast.FunctionDef):
        yield statement.name
    elif isinstance(statement, ast.Import):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in statement.names)
    elif isinstance(statement, ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in statement.names)


def _without_functions(node: ast.ClassDef) -> ast.ClassDef:
    """The class with its assignments and inner classes alone; annotations are dropped, they may need an import."""
    body: list[ast.stmt] = []
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            body.append(ast.Assign([statement.target], statement.value))
        elif isinstance(statement, ast.Assign | ast.ClassDef):
            body.append(statement)
    slim = copy.copy(node)
    slim.body, slim.decorator_list = body or [ast.Pass()], []
    return ast.fix_missing_locations(slim)


def _parameter(field: Any) -> dict[str, Any]:
    """One parameter, ready for JSON."""
    search = field.metadata.get("search")
    return {
        "name": field.name,
        "type": getattr(field.type, "__name__", None) if inspect.isclass(field.type) else str(field.type),
        "default": field.default,
        "help": field.metadata.get("help", ""),
        "source": field.metadata.get("source", ""),
        "search": dataclasses.asdict(search) if isinstance(search, Range) else search and list(search),
    }
