"""The shape of the code as tests: sizes, import budget, where things may live."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "bench").rglob("*.py"), *(ROOT / "methods").glob("*.py")])
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


def test_every_function_is_typed():
    untyped = [f"{p.name}:{f.name}" for p in SOURCES for f in functions(p) if f.returns is None]
    assert untyped == []


def test_data_folders_hold_no_code():
    assert [p for d in ("datasets", "results") for p in (ROOT / d).rglob("*.py")] == []


@pytest.mark.parametrize("command", [["--help"], ["methods"], ["datasets"], ["run", "--help"]])
def test_listing_commands_import_nothing_heavy(command):
    code = (
        "import sys, json, contextlib, io\n"
        f"sys.argv = ['bench', *{command!r}]\n"
        "from bench.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    try: main()\n"
        "    except SystemExit as end: status = end.code\n"
        "print(json.dumps([status, sorted({m.split('.')[0] for m in sys.modules})]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status, modules = json.loads(done.stdout)
    assert status == 0
    assert HEAVY & set(modules) == set()


def test_no_method_or_data_set_is_named_in_the_harness():
    """A branch for the sake of one method or data set is the sign of a missing hook (demo is the harness's own).

    The paper's experiments are about its systems and its data: their declaration is the one place that names them.
    """
    names = {p.stem for p in (ROOT / "methods").glob("*.py")} - {"__init__"}
    names |= {p.stem for p in (ROOT / "datasets").glob("*.toml")} - {"demo"}
    found = []
    for path in set((ROOT / "bench").rglob("*.py")) - {ROOT / "bench" / "paper" / "experiments.py"}:
        texts = [n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)]
        found += [f"{path.name}: {t}" for t in texts if isinstance(t, str) and t in names]
    assert [f for f in found if not f.endswith(": ports")] == []  # `ports` is also a reader's word
