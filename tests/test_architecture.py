"""The shape of the code as tests: sizes, import budget, where things may live."""

import ast
import doctest
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "bench").rglob("*.py"), *(ROOT / "methods").glob("*.py")])
ROOMS = sorted(path.parent for path in (ROOT / "bench").glob("*/__init__.py"))
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
HEAVY = {"torch", "mlflow", "sklearn", "optuna", "numba", "pandas", "pyarrow", "scipy", "scapy", "matplotlib", "pooch"}


def functions(path):
    tree = ast.parse(path.read_text())
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def length(node):
    return node.end_lineno - node.lineno + 1


def test_no_module_is_over_500_lines():
    assert {p.name: n for p in SOURCES if (n := len(p.read_text().splitlines())) > 500} == {}


def test_functions_are_short():
    lengths = {f"{p.name}:{f.name}": length(f) for p in SOURCES for f in functions(p)}
    assert {name: n for name, n in lengths.items() if n > 60} == {}
    assert sorted(lengths.values())[int(len(lengths) * 0.9)] <= 35


def test_no_function_has_more_than_seven_arguments():
    def arguments(node):
        names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        return sum(name not in ("self", "cls") for name in names)

    assert {f"{p.name}:{f.name}": n for p in SOURCES for f in functions(p) if (n := arguments(f)) > 7} == {}


def test_a_room_has_at_most_twelve_modules_and_says_what_each_is_for():
    for room in [ROOT / "bench", *ROOMS]:
        modules = {path.stem for path in room.glob("*.py")} - {"__init__", "__main__"}
        text = ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
        assert len(modules) <= 12, room.name
        assert {name for name in modules if f"`{name}`" not in text} == set(), room.name
        if room.parent != ROOT:
            assert [word for word in ("Enters:", "Leaves:", "May import") if word not in " ".join(text.split())] == []
    assert {room.name for room in ROOMS if f"`{room.name}`" not in importlib.import_module("bench").__doc__} == set()


def test_the_picture_in_the_documents_is_the_contract():
    picture = re.search(r"```\n(bench\.cli\n.*?)```", (ROOT / "docs" / "architecture.md").read_text(), re.S)[1]
    (layers,) = (contract["layers"] for contract in CONTRACTS if contract["id"] == "layers")
    assert picture.splitlines() == layers
    placed = {name.strip() for layer in layers for name in layer.split("|")}
    there = {f"bench.{path.stem}" for path in (ROOT / "bench").glob("*.py")} - {"bench.__init__", "bench.__main__"}
    assert placed == there | {f"bench.{room.name}" for room in ROOMS} | {"methods"}


def test_every_room_of_some_size_has_a_contract_of_its_own():
    own = {container for contract in CONTRACTS for container in contract.get("containers", ())}
    assert {f"bench.{room.name}" for room in ROOMS if len(list(room.glob("*.py"))) > 3} == own
    assert all(contract["exhaustive"] for contract in CONTRACTS if "containers" in contract)


def test_code_imports_modules_and_not_faces():
    """A face hides from a reader, and from the digest of code, which module is used."""
    faces = {f"bench.{room.name}" for room in ROOMS} | {"bench"}
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in SOURCES} | faces
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in faces:
                taken = [f"{node.module}.{alias.name}" for alias in node.names]
                found += [f"{path.name}: {name}" for name in taken if name not in modules and "__version__" not in name]
    assert found == []


@pytest.mark.parametrize("room", ["bench", *(f"bench.{room.name}" for room in ROOMS if room.name != "cli")])
def test_every_name_of_a_face_is_there(room):
    face = importlib.import_module(room)
    assert face.__all__ and all(getattr(face, name) is not None for name in face.__all__)


def questions():
    rows = (ROOT / "docs" / "finding.md").read_text().splitlines()
    return [re.fullmatch(r"\| (.*\?) \| `(.*)` \| `(.*)` \|", row).groups() for row in rows if "? |" in row]


@pytest.mark.parametrize(("question", "module", "name"), questions(), ids=lambda value: value)
def test_a_reader_finds_the_answer_by_docstrings(question, module, name):
    """The docstring of `bench` names the room or flat module, the room's its module."""
    assert hasattr(importlib.import_module(module), name)
    package, *rest = module.split(".")
    for part in rest:
        assert f"`{part}`" in importlib.import_module(package).__doc__
        package = f"{package}.{part}"


def test_there_are_twenty_questions_and_the_walks_pass_what_is_there():
    assert len(questions()) == 20
    text = (ROOT / "docs" / "architecture.md").read_text()
    walks = [block for block in re.findall(r"```\n(.*?)```", text, re.S) if "runs.attempt.attempt" in block]
    assert len(walks) == 2
    for name in re.findall(r"[\w.]+", " ".join(walks).replace("─▶", " ")):
        parts = name.split(".") if name.startswith("methods") else ["bench", *name.split(".")]
        depth = next(n for n in range(len(parts), 0, -1) if _is_module(".".join(parts[:n])))
        value = importlib.import_module(".".join(parts[:depth]))
        for attribute in parts[depth:]:
            value = getattr(value, attribute)


def _is_module(name):
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def test_every_function_is_typed():
    untyped = [f"{p.name}:{f.name}" for p in SOURCES for f in functions(p) if f.returns is None]
    assert untyped == []


def public_functions():
    """Every public function and method, with the class it is in."""

    def visit(node, kind):
        for inner in ast.iter_child_nodes(node):
            if isinstance(inner, ast.ClassDef) and not inner.name.startswith("_"):
                yield from visit(inner, inner)
            elif isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                yield inner, kind

    for path in SOURCES:
        for function, kind in visit(ast.parse(path.read_text()), None):
            if kind is None or path.parent.name != "methods" or function.name not in CONTRACT:
                yield path, function


#: hooks that methods override; what they take and give is said once, in `bench.method`, `training` and `estimator`
CONTRACT = {
    *("represent", "fit", "predict_proba", "save_state", "load_state", "network", "batch", "loss", "features"),
    *("can_classify", "before_training", "before_validation", "sample_rows", "estimator"),
}
ARRAYS = re.compile(r"NDArray|\b(Ints|Floats|Rows|Tensor|Inputs|Series)\b")
OURS = re.compile(
    r"(InputError|ValueError|TypeError|IndexError|SplitViolation|NotPlain|UndeclaredRead|TrainingDiverged)\b"
)


def test_every_public_docstring_says_shapes_and_types():
    """A shape for every array; the type, too, where the annotation does not have it."""
    found = []
    for path, function in public_functions():
        text = ast.get_docstring(function) or ""
        arguments = [a.annotation for a in (*function.args.args, *function.args.kwonlyargs) if a.annotation]
        types = [ast.unparse(a) for a in (*arguments, *([function.returns] if function.returns else ()))]
        open_types = any("NDArray[Any]" in one or one == "Inputs" for one in types)
        shaped = re.search(r"\[[^\]\n]*\]|of the same shape|scalar", text)
        typed = not open_types or re.search(r"u?[Ii]nt|[Ff]loat|[Bb]ool", text)
        if any(ARRAYS.search(one) for one in types) and not (shaped and typed):
            found.append(f"{path.name}:{function.name}")
    assert found == []


def test_every_public_docstring_says_what_is_raised():
    found = []
    for path, function in public_functions():
        raised = [ast.unparse(n.exc) for n in ast.walk(function) if isinstance(n, ast.Raise) and n.exc is not None]
        if any(OURS.match(one) for one in raised) and "aises" not in (ast.get_docstring(function) or ""):
            found.append(f"{path.name}:{function.name}")
    commands = {f"{path.name}:{f.name}" for path in (ROOT / "bench" / "cli").glob("*.py") for f in functions(path)}
    assert [name for name in found if name not in commands] == []  # of the commands bad input is the point


EXAMPLES = [path for path in SOURCES if ">>>" in path.read_text()]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_in_docstrings_are_right(path):
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


def test_data_folders_hold_no_code():
    assert [p for d in ("datasets", "results") for p in (ROOT / d).rglob("*.py")] == []


def called(command, folder):
    """Exit status of a command, called in a folder with stores of its own there, and the packages that it imported."""
    code = (
        "import sys, json, contextlib, io\n"
        f"sys.argv = ['bench', *{command!r}]\n"
        "from bench.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    try: main()\n"
        "    except SystemExit as end: status = end.code\n"
        "print(json.dumps([status, sorted({m.split('.')[0] for m in sys.modules})]))"
    )
    where = os.environ | {"BENCH_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=where, cwd=folder
    )
    status, modules = json.loads(done.stdout)
    return status, set(modules)


@pytest.mark.parametrize("command", [["--help"], ["methods"], ["datasets"], ["run", "--help"]])
def test_listing_commands_import_nothing_heavy(command, tmp_path):
    status, modules = called(command, tmp_path)
    assert (status, (HEAVY | {"numpy"}) & modules) == (0, set())


ON_DEMO = "--method forest --dataset demo"
WRONG = [
    "nonsense",
    "run --method forrest --dataset demo",
    "run --method forest --dataset nowhere",
    *(f"run {ON_DEMO} --{words}" for words in (
        "task x", "split x", "split file:none", "sampling x", "filter x", "device gpu9", "preset x", "set trees=x",
        "set treees=1", "params none.json", "budget 8", "results file", "balance x", "keep-models x",
        "folds 3 --fold 7")),
    *(f"tune {ON_DEMO} --{words}" for words in ("task x", "sampler x", "set trees=x")),
    "run --method nix,forest --dataset demo", "run --method forest --dataset demo,nowhere",
    "tune --method nix --dataset demo",
    "audit nowhere", "audit demo --task x", "audit demo --method x", "audit demo --split x", "audit demo --filter x",
    "split demo --task x", "split demo --folds 3 --fold 7",
    "prepare demo --name x", "prepare demo --decap x", "prepare nowhere", "prepare demo --source nowhere",
    "inspect nowhere",
    "classify nowhere --run a", "classify file --run a",
    "classify file --run a --method nix.py:Nix", "compare --dataset demo --metric x",
    "compare a", "compare a b", "table --columns x",
    "reproduce nothing", "reproduce table-VI --mode x", "reproduce table-VI --method x",
    "reproduce table-VI --dataset demo --sampling x", "reproduce table-VI --dataset demo --split time --folds 3",
    "reproduce table-VI fig-99 --dataset demo", "table --dataset x", "results rm --method x --yes",
    "reproduce table-VI --preset x", "reproduce table-VI --split x", "reproduce table-VI --dataset demo --task x",
    "published --dataset nowhere", "check nothing", "report --results file",
]  # fmt: skip


@pytest.mark.parametrize("command", WRONG)
def test_wrong_words_cost_nothing(command, tmp_path):
    """Neither an import that takes seconds, nor a data set that is prepared, nor a file that is written."""
    (tmp_path / "file").write_text("")
    status, modules = called(command.split(), tmp_path)
    assert (status, HEAVY & modules) == (2, set())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_method_or_data_set_is_named_in_the_harness():
    """A branch for the sake of one method or data set is the sign of a missing hook (demo is the harness's own).

    A paper's declaration, which names its systems and data, is a folder beside the code.
    """
    names = {p.stem for p in (ROOT / "methods").glob("*.py")} - {"__init__"}
    names |= {p.stem for p in (ROOT / "datasets").glob("*.toml")} - {"demo"}
    found = []
    for path in (ROOT / "bench").rglob("*.py"):
        texts = [n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)]
        found += [f"{path.name}: {t}" for t in texts if isinstance(t, str) and t in names]
    assert [f for f in found if not f.endswith(": ports")] == []  # `ports` is also a reader's word


def test_no_script_hides_a_package():
    """A script's folder comes first on its path: `benchmarks/coverage.py` kept numba from finding the package."""
    names = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert {name for name in names - sys.modules.keys() if importlib.util.find_spec(name)} == set()
