"""Names to methods, and declarations read without an import."""

import dataclasses
import importlib
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from refusals import refused

import methods
from bench.environment import imported_beside
from bench.method import Method, Range, make_parameters
from bench.runs import execute, plan, registry, run_labels

ROOT = Path(__file__).parents[1]
MINIMAL = '''
"""A file."""
import nowhere_to_be_found
from bench.method import Method, parameter
from dataclasses import dataclass

DEFAULT = 3

@dataclass(frozen=True)
class Parameters:
    """Its parameters."""
    size: int = parameter(DEFAULT, "a size", "our choice", (1, 2))

class Net(nowhere_to_be_found.Module):
    pass

class Mine(Method):
    """Mine: a title.

    More.
    """
    name = "mine"
    reference = "nobody"
    family = "deep"
    reads = frozenset({"lengths"})
    Parameters = Parameters
    def represent(self, view): ...
'''


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINIMAL)
    return path


@pytest.mark.parametrize("name", registry.names())
def test_declarations_are_those_of_the_class(name):
    outline, method = registry.describe(name), registry.load(name)
    assert method.name == outline.name == name
    for field in ("reference", "family", "unit", "reads", "deviations", "presets"):
        assert getattr(outline, field) == getattr(method, field), field
    own, real = dataclasses.fields(outline.Parameters), dataclasses.fields(method.Parameters)
    assert [(f.name, f.type, f.default, f.metadata) for f in own] == [
        (f.name, f.type, f.default, f.metadata) for f in real
    ]
    assert dataclasses.asdict(make_parameters(outline, {})) == dataclasses.asdict(make_parameters(method, {}))
    assert outline.title


def test_names_are_sorted_and_written_with_hyphens(tmp_path, monkeypatch):
    for stem in ("two_words", "one", "_private"):
        (tmp_path / f"{stem}.py").write_text("")
    monkeypatch.setattr(registry.methods, "__path__", [str(tmp_path)])
    monkeypatch.setattr(registry, "_files", registry._files.__wrapped__)
    assert registry.names() == ["one", "two-words"]
    assert registry._locate("two-words") == (tmp_path / "two_words.py", None)


def test_listing_imports_nothing_heavy():
    code = (
        "import sys; from bench.runs import registry\n"
        "[registry.describe(name).to_dict() for name in registry.names()]\n"
        "print([m for m in ('torch', 'sklearn', 'mlflow', 'numba', 'pandas', 'scipy') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout.strip() == "[]"


def test_a_file_is_described_without_its_imports(mine):
    described = registry.describe(f"{mine}:Mine")
    assert described.title == "Mine: a title."
    assert described.to_dict()["parameters"] == [
        {"name": "size", "type": "int", "default": 3, "help": "a size", "source": "our choice", "search": [1, 2]}
    ]
    with refused("bad-method", "mine.py", "nowhere_to_be_found"):
        registry.load(f"{mine}:Mine")


def test_a_file_is_loaded_once(mine):
    mine.write_text(MINIMAL.replace("import nowhere_to_be_found\n", "").replace("nowhere_to_be_found.Module", "object"))
    method = registry.load(f"{mine}:Mine")
    assert issubclass(method, Method) and method.name == "mine"
    assert registry.load(f"{mine}:Mine") is method


def test_what_a_slice_cannot_see_is_imported(mine):
    text = MINIMAL.replace("import nowhere_to_be_found\n", "").replace("nowhere_to_be_found.Module", "object")
    mine.write_text(text.replace("DEFAULT = 3", "if True:\n    DEFAULT = 3"))
    assert registry.describe(f"{mine}:Mine").defaults == {"size": 3}


PLAIN = MINIMAL.replace("import nowhere_to_be_found\n", "").replace("nowhere_to_be_found.Module", "object")
CHANGED = {  # what follows the declarations, and the default, presets and deviations that it leaves
    "DEFAULT *= 2": ("DEFAULT = 3\n", "DEFAULT = 3\nDEFAULT *= 2\n", 6, {}),
    "append": ("DEFAULT = 3\n", "SIZES = [3]\nSIZES.append(4)\nDEFAULT = SIZES[-1]\n", 4, {}),
    "loop": ("DEFAULT = 3\n", "for DEFAULT in range(6): pass\n", 5, {}),
    "function": ("DEFAULT = 3\n", "def seven(): return 7\nDEFAULT = seven()\n", 7, {}),
    "preset below": ("", "\nMine.presets = {'code': {'size': 9}}\n", 3, {"code": {"size": 9}}),
    "setattr below": ("", "\nsetattr(Mine, 'presets', {'code': {'size': 8}})\n", 3, {"code": {"size": 8}}),
    "update below": ("", "\nPRESETS.update(code={'size': 7})\n", 3, {"code": {"size": 7}}),
}


@pytest.mark.parametrize("case", CHANGED)
def test_what_changes_a_declaration_is_seen(mine, case):
    """A slice of the source would miss these; the whole module says what is."""
    old, new, size, presets = CHANGED[case]
    text = PLAIN.replace('    family = "deep"\n', '    family = "deep"\n    presets = PRESETS\n')
    text = text.replace("DEFAULT = 3\n", "DEFAULT = 3\nPRESETS = {}\n")
    old = old and "DEFAULT = 3\n"
    mine.write_text(text.replace(old, new) if old else text + new)
    described = registry.describe(f"{mine}:Mine")
    assert (described.defaults, described.presets) == ({"size": size}, presets)
    assert described.defaults == {"size": registry.load(f"{mine}:Mine").Parameters().size}


def test_a_plain_file_is_not_imported(mine):
    mine.write_text(PLAIN.replace('"""A file."""', '"""A file."""\nimport sys'))
    registry.describe(f"{mine}:Mine")
    assert not [
        name for name in sys.modules if name.startswith("_method_mine_") and str(mine) in str(sys.modules[name])
    ]


def test_an_entry_point_is_a_method(mine, monkeypatch):
    mine.write_text(MINIMAL.replace("import nowhere_to_be_found\n", "").replace("nowhere_to_be_found.Module", "object"))
    entry = EntryPoint("theirs", "mine:Mine", "bench.methods")
    monkeypatch.syspath_prepend(mine.parent)
    monkeypatch.setattr(registry, "_plug_ins", lambda: registry._PlugIns({"theirs": entry}, []))
    assert "theirs" in registry.names()
    assert registry.describe("theirs").title == "Mine: a title."
    assert registry.load("theirs").name == "mine"
    del sys.modules["mine"]


class Package:
    """What `importlib.metadata` gives of an installed package."""

    def __init__(self, name, version):
        self.name, self.version = name, version


def entries(monkeypatch, *named):
    """Entry points as if these packages were installed: name, package, version."""
    points = []
    for name, package, version in named:
        points.append(EntryPoint(name, "mine:Mine", "bench.methods"))
        vars(points[-1]).update(dist=Package(package, version))
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    monkeypatch.setattr(registry, "_plug_ins", registry._plug_ins.__wrapped__)
    monkeypatch.setattr(registry, "describe", registry.describe.__wrapped__)


@pytest.mark.parametrize("name", ["forest", "Forest", "mini_flowpic", "x.py:Mine"])
def test_a_shipped_name_cannot_be_taken(name, mine, monkeypatch):
    """What is shipped keeps its name and goes on; the plug-in that claims it is told of, and run by nobody."""
    mine.write_text(PLAIN)
    monkeypatch.syspath_prepend(mine.parent)
    entries(monkeypatch, ("fine", "good", "1"), (name, "evil", "1.2"))
    found, (fault,) = registry.seen(registry.summary)
    assert (fault.name, fault.package) == (name, "evil 1.2") and "uninstall" in fault.reason
    assert set(found) == registry.shipped() | {"fine"}
    assert registry.load("forest").__module__ == "methods.forest" and registry.describe("forest").origin == ""
    if name not in ("forest", "x.py:Mine"):
        with refused("same-name", name, "evil 1.2", "uninstall"):
            registry.describe(name)


def test_who_names_a_method_hears_of_a_plug_in_that_claims_its_name(monkeypatch):
    entries(monkeypatch, ("Forest", "evil", "1.2"))
    assert [fault.package for fault in registry.twins("forest")] == ["evil 1.2"] and registry.twins("knn") == []


def test_of_two_packages_neither_has_the_name_that_both_claim(monkeypatch):
    entries(monkeypatch, ("theirs", "one", "1"), ("theirs", "two", "2"))
    assert registry.names() == sorted(registry.shipped())
    assert [fault.package for fault in registry.seen(registry.summary)[1]] == ["one 1", "two 2"]
    with refused("same-name", "theirs", "one 1", "two 2"):
        registry.describe("theirs")


BROKEN = {  # what an installed package may have in place of a method, what is looked at, and what is said
    "no module": (None, "summary", "no source of mine"),
    "no Python": ("def broken(:", "summary", "mine.py:1: not Python"),
    "no class": ("x = 1", "describe", "there is no class"),
    "no import": (MINIMAL, "load", "No module named 'nowhere_to_be_found'"),
    "an exit": ("raise SystemExit(3)\nclass Mine:\n    name = 'mine'", "load", "SystemExit: 3"),
    "not UTF-8": (b"\xff\x00".decode("latin-1"), "summary", "mine"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plug_in_takes_nothing_else_away(case, mine, monkeypatch):
    text, look, said = BROKEN[case]
    sys.modules.pop("mine", None)
    mine.unlink() if text is None else mine.write_bytes(text.encode("latin-1"))
    monkeypatch.syspath_prepend(mine.parent)
    importlib.invalidate_caches()
    entries(monkeypatch, ("theirs", "their-package", "1.2"))
    found, (fault,) = registry.seen(getattr(registry, look))
    assert set(found) == registry.shipped()
    assert (fault.name, fault.package) == ("theirs", "their-package 1.2") and said in fault.reason
    sys.modules.pop("mine", None)


def test_a_broken_package_around_a_plug_in_takes_nothing_else_away(tmp_path, monkeypatch):
    (tmp_path / "broken_package").mkdir()
    (tmp_path / "broken_package" / "__init__.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    points = [EntryPoint("theirs", "broken_package.mine:Mine", "bench.methods")]
    points.append(EntryPoint("worse", "no module at all", "bench.methods"))
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    monkeypatch.setattr(registry, "_plug_ins", registry._plug_ins.__wrapped__)
    found, faults = registry.seen(registry.summary)
    assert set(found) == registry.shipped() and [fault.name for fault in faults] == ["theirs", "worse"]
    assert "ZeroDivisionError" in faults[0].reason
    with refused("bad-method", "theirs", "ZeroDivisionError"):
        registry.load("theirs")


def test_what_is_not_shipped_says_where_it_is_from(mine, monkeypatch):
    mine.write_text(PLAIN)
    monkeypatch.syspath_prepend(mine.parent)
    entries(monkeypatch, ("theirs", "their-package", "1.2"))
    described = registry.describe("theirs")
    assert described.origin == described.to_dict()["origin"] == registry.origin("theirs") == "their-package 1.2"
    assert registry.summary("theirs")[2] == "Mine: a title. [their-package 1.2]"
    assert registry.origin("forest") == "" and "[" not in registry.summary("forest")[2]
    file = f"{mine}:Mine"
    assert registry.origin(file) == f"file {registry.digest_of(file)[:8]}"


def test_what_a_method_imports_beside_its_file_is_its_code(mine, tmp_path):
    folder = mine.parent
    mine.write_text("from helper_of_mine import TREES\nimport numpy\n" + PLAIN)
    alone = registry.digest_of(f"{mine}:Mine")
    (folder / "helper_of_mine.py").write_text("from deeper import TREES\n")
    (folder / "deeper").mkdir()
    (folder / "deeper" / "__init__.py").write_text("TREES = 10\n")
    (folder / "stranger.py").write_text("x = 1\n")
    first = registry.digest_of(f"{mine}:Mine")
    assert first != alone
    (folder / "stranger.py").write_text("x = 2\n")
    assert registry.digest_of(f"{mine}:Mine") == first
    (folder / "deeper" / "__init__.py").write_text("TREES = 1\n")
    assert registry.digest_of(f"{mine}:Mine") != first


def test_what_a_package_imports_of_itself_is_its_code_and_its_neighbours_are_not(tmp_path):
    top = tmp_path / "site-packages"
    for name in ("theirs/inner", "numpy"):
        (top / name).mkdir(parents=True)
    for name, text in {
        "theirs/__init__.py": "",
        "theirs/inner/__init__.py": "",
        "theirs/method.py": "import numpy\nfrom .inner import layers\nfrom theirs.inner.parts import part\n",
        "theirs/inner/layers.py": "from ..shared import x\n",
        "theirs/inner/parts.py": "",
        "theirs/shared.py": "",
        "numpy/__init__.py": "",
        "single.py": "import numpy\n",
    }.items():
        (top / name).write_text(text)
    found = {path.relative_to(top).as_posix() for path in imported_beside(top / "theirs" / "method.py")}
    assert found == {"theirs/__init__.py"} & found | {f"theirs/{name}" for name in
        ("inner/__init__.py", "inner/layers.py", "inner/parts.py", "shared.py")}  # fmt: skip
    assert imported_beside(top / "single.py") == []


def test_a_run_of_an_installed_method_is_bound_to_its_code(mine, monkeypatch, make_store):
    """The name alone would answer for another version of the package from the store of runs."""
    mine.write_text(PLAIN)
    monkeypatch.syspath_prepend(mine.parent)
    entries(monkeypatch, ("theirs", "their-package", "1.2"))
    uncached = registry.describe
    for module in (registry, plan, run_labels):
        monkeypatch.setattr(module, "describe", uncached)
    monkeypatch.setattr(plan, "_check", lambda *_: None)
    store = make_store({"conversation": [0, 1]})
    theirs, ours = plan.expand(["theirs", "forest"], [store])
    assert theirs.source == registry.digest_of("theirs") and ours.source is None
    tags = execute.tags_of(theirs)
    assert (tags["origin"], tags["family"], tags["row"]) == (
        "their-package 1.2",
        "deep",
        "theirs (their-package 1.2) · session",
    )
    assert "origin" not in execute.tags_of(ours)
    mine.write_text(PLAIN + "# another version")
    assert plan.expand(["theirs"], [store])[0].digest != theirs.digest


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("atvits", "atvitsc"),
        ("x", "majority"),
        ("nowhere.py:Class", "nowhere.py"),
    ],
)
def test_unknown_names_are_refused_with_a_remedy(name, said):
    for ask in (registry.describe, registry.load):
        with refused("unknown-method", said):
            ask(name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class Mine:\n    name = 'mine'", "Mine"),
        ("class Other:\n    pass", "Mine"),
        ("def broken(:", "mine.py:1: not Python"),
    ],
)
def test_files_without_a_method_are_refused(mine, text, said):
    mine.write_text(text)
    with refused("bad-method", said):
        registry.describe(f"{mine}:Mine")


def test_search_ranges_become_json():
    field = dataclasses.make_dataclass(
        "P", [("x", float | None, dataclasses.field(default=1.0, metadata={"search": Range(1, 2)}))]
    )
    described = registry._parameter(dataclasses.fields(field)[0])
    assert described["search"] == {"low": 1, "high": 2, "step": None, "log": False}
    assert described["type"] == "float | None"


def test_a_method_changes_with_the_method_it_is_built_from(tmp_path, monkeypatch):
    for name in ("flowpic", "mini_flowpic", "knn"):
        (tmp_path / f"{name}.py").write_text((Path(methods.__path__[0]) / f"{name}.py").read_text())
    monkeypatch.setattr(methods, "__path__", [str(tmp_path)])
    monkeypatch.setattr(registry, "_files", registry._files.__wrapped__)
    monkeypatch.setattr(registry, "describe", registry.describe.__wrapped__)
    before = {name: registry.describe(name).digest for name in ("flowpic", "mini-flowpic", "knn")}
    (tmp_path / "flowpic.py").write_text((tmp_path / "flowpic.py").read_text() + "# changed\n")
    after = {name: registry.describe(name).digest for name in before}
    assert [name for name in before if before[name] != after[name]] == ["flowpic", "mini-flowpic"]


def test_a_summary_says_what_the_outline_says():
    for name in registry.names():
        outline = registry.describe(name)
        assert registry.summary(name) == (outline.name, outline.family, outline.title)


FROM_A_FACE = '''
"""A method whose author imports from the room, as the documents say."""

from dataclasses import dataclass

from bench.method import parameter
from bench.training import SHARED, TorchMethod, TrainingParameters


@dataclass(frozen=True)
class Parameters(TrainingParameters):
    """One more."""

    width: int = parameter(3, "features", "our choice")


class Faced(TorchMethod):
    """Faced."""

    name = "faced"
    reference = "none"
    reads = frozenset({"lengths"})
    Parameters = Parameters
    presets = {"shared": {**SHARED}}
'''


def test_what_a_room_shows_of_itself_is_read_without_torch(tmp_path):
    path = tmp_path / "faced.py"
    path.write_text(FROM_A_FACE)
    program = (
        "import sys; from bench.runs import registry\n"
        f"outline = registry.describe({f'{path}:Faced'!r})\n"
        "assert outline.defaults['width'] == 3 and outline.defaults['epochs'] == 30, outline.defaults\n"
        "assert outline.family == 'deep' and outline.presets['shared']['steps'] == 2000\n"
        "assert 'torch' not in sys.modules and 'bench.training.loop' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_file_without_a_class_is_told_as_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with refused("unknown-method", "method nothing.py: no such file; give FILE.py:CLASS"):
        registry.load("nothing.py")
    (tmp_path / "mine.py").write_text("")
    with refused("unknown-method", "which class of the file"):
        registry.load("mine.py")
