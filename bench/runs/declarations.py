"""What a class declares, read from its source without running the module: its assignments, and what these need.

Only a *plain* module is read so: at its top level nothing but imports, functions, classes and assignments of
expressions that call nothing unknown, every name bound once, and classes changed nowhere but in their own body.  Then a
slice of it says what the whole would.  Anything else raises :class:`NotPlain`, and the caller imports the module.
"""

import ast
import copy
import functools
import importlib
import importlib.util
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench.errors import InputError, instead
from bench.files import from_here

OWN: Final = ("bench", "methods")  # packages whose source is read rather than imported
#: what an assignment may call: constructors of values, and the contract's own
CALLS: Final = frozenset(
    "abs bool dict enumerate float frozenset int len list max min range reversed round set slice sorted str sum "
    "tuple zip Range parameter super fields replace field dataclass fromkeys keys values items union join split "
    "astype".split()
)
#: of the standard library and NumPy, what may be called as `module.name(...)`
MODULES: Final = ("math", "np", "numpy", "dataclasses", "operator", "itertools", "functools")


class NotPlain(Exception):
    """A module of which a slice may not say what the whole does."""


@functools.lru_cache(256)
def _parsed(text: bytes, path: str) -> tuple[ast.Module, dict[str, ast.stmt]]:
    """A source as a tree, and its statements by what they bind.

    Parsed once: a listing asks for the bases that methods share once a method.
    """
    tree = ast.parse(text, path)
    return tree, {name: statement for statement in tree.body for name in _bound(statement)}


class SourceFile:
    """A source file of which single top-level names can be evaluated.

    Only the statements that a name needs are run, imports included; names that come from modules of ours that are not
    loaded yet are evaluated from their source in the same way.
    """

    def __init__(self, path: Path, module: str = "") -> None:
        self.path, self.module = path, module
        self.text = path.read_bytes()
        try:
            self.tree, self._statements = _parsed(self.text, str(path))
        except SyntaxError as error:
            raise InputError(
                "bad-method", f"{path}:{error.lineno}: not Python ({error.msg}); correct the file"
            ) from None
        self._scope: dict[str, Any] = {"__name__": module or path.stem, "__file__": str(path)}

    @property
    def foundations(self) -> list[str]:
        """Stems of the methods that it imports from."""
        imports = [s.module or "" for s in self.tree.body if isinstance(s, ast.ImportFrom)]
        return [module.partition(".")[2] for module in imports if module.startswith("methods.")]

    @property
    def _classes(self) -> list[ast.ClassDef]:
        return [statement for statement in self.tree.body if isinstance(statement, ast.ClassDef)]

    def method_class(self) -> str:
        """The one class that assigns ``name``.  Raises :class:`InputError` where there is none, or several."""
        names = [c.name for c in self._classes if any("name" in _bound(s) for s in c.body)]
        if len(names) != 1:
            raise InputError(
                "bad-method", f"{self.path}: expected one class with a `name`, found {len(names)}; see bench/method.py"
            )
        return names[0]

    def refusal(self, name: str) -> InputError:
        """The error for a name that is not a method: the file has no such class, or it is something else."""
        if name in self._statements:
            what = f"{name} is not a subclass of bench.method.Method; docs/adding.md has one"
        else:
            what = f"there is no class {name!r}; {instead(name, [c.name for c in self._classes])}"
        return InputError("bad-method", f"{from_here(self.path)}: {what}")

    def docstring(self, name: str) -> str:
        """Of a class of the file."""
        statement = self._statements.get(name)
        return (ast.get_docstring(statement) if isinstance(statement, ast.ClassDef) else None) or ""

    def constant(self, name: str, member: str) -> str:
        """A text that a class assigns to a member, or the first of its bases that does; empty where none does."""
        statement = self._statements.get(name)
        if isinstance(statement, ast.ImportFrom) and (foreign := _foreign(statement, name, self.module)):
            source, original = foreign
            return source.constant(original, member)
        if not isinstance(statement, ast.ClassDef):
            return ""
        for line in statement.body:
            value = getattr(line, "value", None)
            if member in _bound(line) and isinstance(value, ast.Constant):
                return str(value.value)
        inherited = (self.constant(base.id, member) for base in statement.bases if isinstance(base, ast.Name))
        return next(filter(None, inherited), "")

    def declarations(self, name: str) -> Any:
        """A class and its bases without their functions.  Raises :class:`NotPlain`."""
        self.check_plain()
        importlib.import_module("bench.estimator")  # with `bench.method`: what is declared are real classes of theirs
        try:
            return self._value(name, slim=True)
        except NotPlain:
            raise
        except Exception as error:  # the import will tell what is wrong, or that nothing is
            raise NotPlain(f"{self.path}: {error}") from error

    def check_plain(self) -> None:
        """Raises :class:`NotPlain` with the first statement that a slice could miss."""
        bound = Counter(name for statement in self.tree.body for name in _bound(statement))
        for name, times in bound.items():
            if times > 1:
                raise NotPlain(f"{self.path}: {name} is bound {times} times")
        for statement in self.tree.body:
            _check_statement(statement, self.path)

    def _value(self, name: str, *, slim: bool = False) -> Any:
        """What a top-level name stands for; ``slim``: of a class and its bases without their functions."""
        if name not in self._scope and name in self._statements:
            statement = self._statements[name]
            if isinstance(statement, ast.ImportFrom):
                self._scope[name] = _imported(statement, name, self.module, slim=slim)
                return self._scope[name]
            if slim and isinstance(statement, ast.ClassDef):
                for base in statement.bases:
                    if isinstance(base, ast.Name):
                        self._value(base.id, slim=True)
                statement = _without_functions(statement)
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and node.id != name:
                    self._value(node.id)
            exec(compile(ast.Module([statement], []), str(self.path), "exec", dont_inherit=True), self._scope)
        return self._scope.get(name)


@functools.cache
def _foundation(path: Path, module: str) -> SourceFile:
    """A module of ours that methods import from: read and evaluated once for all of them."""
    source = SourceFile(path, module)
    source.check_plain()
    return source


def _foreign(statement: ast.ImportFrom, name: str, package: str) -> tuple[SourceFile, str] | None:
    """The source that a name is imported from, and its name there; None for other people's modules."""
    module = _module(statement, package)
    if module.partition(".")[0] not in OWN:
        return None
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return None
    return SourceFile(_face(Path(spec.origin)), module), _original(statement, name)


def _face(path: Path) -> Path:
    """A package's stub, which says where its names are from, in place of the package's file; else the file."""
    stub = path.with_suffix(".pyi")
    return stub if path.name == "__init__.py" and stub.is_file() else path


def _module(statement: ast.ImportFrom, package: str) -> str:
    """The module that is imported from; a stub names those of its ``package`` by a dot before."""
    return f"{package}.{statement.module}" if statement.level else statement.module or ""


def _original(statement: ast.ImportFrom, name: str) -> str:
    return next(alias.name for alias in statement.names if (alias.asname or alias.name) == name)


def _imported(statement: ast.ImportFrom, name: str, package: str, *, slim: bool) -> Any:
    """What ``from module import name`` gives."""
    module, original = _module(statement, package), _original(statement, name)
    if module.partition(".")[0] in OWN and module not in sys.modules:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise NotPlain(f"no module {module}")
        return _foundation(_face(Path(spec.origin)), module)._value(original, slim=slim)
    return getattr(importlib.import_module(module), original)


def _bound(statement: ast.stmt) -> Iterator[str]:
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


def _check_statement(statement: ast.stmt, path: Path, *, inside: bool = False) -> None:
    """Refuse a statement of a module, or of a class body, that may change what another one bound."""
    place = f"{path}:{statement.lineno}"
    if isinstance(statement, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.Pass):
        if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
            raise NotPlain(f"{place}: import *")
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        pass  # a docstring
    elif isinstance(statement, ast.ClassDef):
        _check_class(statement, path)
    elif isinstance(statement, ast.Assign | ast.AnnAssign):
        _check_assignment(statement, place)
    elif not (isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.dump(statement.test) and not inside):
        raise NotPlain(f"{place}: {type(statement).__name__}")


def _check_class(statement: ast.ClassDef, path: Path) -> None:
    if statement.keywords or not all(_is_known_call(one) for one in statement.decorator_list):
        raise NotPlain(f"{path}:{statement.lineno}: class {statement.name} is made in a way of its own")
    for line in statement.body:
        _check_statement(line, path, inside=True)


def _check_assignment(statement: ast.Assign | ast.AnnAssign, place: str) -> None:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    if not all(isinstance(target, ast.Name) for target in targets):
        raise NotPlain(f"{place}: assigns to a part of something")
    if statement.value is not None:
        _check_expression(statement.value, place)


def _check_expression(expression: ast.expr, place: str) -> None:
    for node in ast.walk(expression):
        if isinstance(node, ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom):
            raise NotPlain(f"{place}: {type(node).__name__}")
        if isinstance(node, ast.Call) and not _is_known_call(node):
            raise NotPlain(f"{place}: calls {ast.unparse(node.func)}")


def _is_known_call(node: ast.expr) -> bool:
    """Whether a call, or a decorator's name, is of something that changes nothing."""
    function = node.func if isinstance(node, ast.Call) else node
    if isinstance(function, ast.Name):
        return function.id in CALLS
    if isinstance(function, ast.Attribute):
        module = function.value.id if isinstance(function.value, ast.Name) else ""
        return module in MODULES or function.attr in CALLS
    return False


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
