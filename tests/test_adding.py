"""docs/adding.md word for word, and what `bench new` writes: every kind keeps its contract as it is."""

import ast
import dataclasses
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from refusals import refused

from bench import conformance
from bench.cli import cli
from bench.contract_captures import three_services, windows_of_services
from bench.data.names import find_card
from bench.estimator import EstimatorMethod
from bench.method import Method
from bench.readers import READS, View
from bench.runs import registry
from bench.training.budget import TrainingParameters
from bench.training.loop import TorchMethod

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "adding.md").read_text()
SHOWN = ("my-trees", "my-net", "my-mean", "notebook", "my_nets.py", "notebook, further")
BLOCKS = dict(zip(SHOWN, re.findall(r"```python\n(.*?)```", PAGE, re.S), strict=True))
FILES = {name: BLOCKS[name] for name in SHOWN[:3]}
KINDS = {"my-trees": "sklearn", "my-net": "torch", "my-mean": "plain"}


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(cli, words, standalone_mode=False, catch_exceptions=False)


def lines_of_code(text):
    """Lines without blank ones, comments and docstrings."""
    tree = ast.parse(text)
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    said = [node.body[0] for node in ast.walk(tree) if isinstance(node, kinds) and ast.get_docstring(node)]
    documented = {line for one in said for line in range(one.lineno, one.end_lineno + 1)}
    lines = enumerate(text.splitlines(), 1)
    return sum(bool(line.strip()) and not line.strip().startswith("#") and n not in documented for n, line in lines)


@pytest.mark.parametrize("name", KINDS)
def test_what_new_writes_is_what_the_document_shows_in_at_most_25_lines(name, bench):
    done = bench("new", "method", name, "--kind", KINDS[name])
    file = Path(f"{name.replace('-', '_')}.py")
    assert file.read_text() == FILES[name] and f"bench check {file}:" in done.output
    assert lines_of_code(FILES[name]) <= 25
    assert registry.describe(registry.spelled(str(file))).name == name


@pytest.mark.parametrize("name", KINDS)
def test_what_new_writes_passes_its_check_at_once(name, folder, bench):
    bench("new", "method", name, "--kind", KINDS[name], "--output", "here.py")
    answers = conformance.check(registry.spelled("here.py"), folder=folder)
    assert [str(answer) for answer in answers if not answer.passed] == []


def test_state_that_is_neither_array_nor_number_is_not_saved_by_itself(tmp_path):
    class Mine(Method):
        name, reads = "mine", frozenset()
        represent = fit = predict_proba = None

    one, other = Mine(classes=2), Mine(classes=2)
    one.means, one.scale, one.unit = np.ones((2, 3)), 0.5, "ms"
    one.save_state(tmp_path)
    other.load_state(tmp_path)
    assert np.array_equal(other.means, one.means) and (other.scale, other.unit) == (0.5, "ms")
    one.words = {"a": 1}
    with pytest.raises(TypeError, match="words: neither arrays nor numbers; write save_state"):
        one.save_state(tmp_path)


@pytest.mark.slow
def test_the_commands_of_the_document_do_what_it_says(tmp_path):
    """As they stand there, in an empty folder."""
    commands = [line for block in re.findall(r"```\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
    commands = [line for line in commands if "my_trees" in line or "new method" in line]
    assert len(commands) == 5
    code = "import sys; from bench.cli import main; sys.argv[0] = 'bench'; main()"
    where = os.environ | {"BENCH_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    for command in commands:
        words = [sys.executable, "-c", code, *command.split()[1:]]
        done = subprocess.run(words, cwd=tmp_path, env=where, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert done.stdout.count(" done ") == 4
    assert {name: (tmp_path / f"{name.replace('-', '_')}.py").read_text() for name in FILES} == FILES


@pytest.mark.parametrize("words", [
    ("My_Trees",), ("1d",), ("none",), ("a/b",), ("x", "--output", "x.txt"), ("x", "--output", "no/x.py"), ("forest",),
])  # fmt: skip
def test_a_method_of_a_name_that_cannot_be_is_refused(words, bench):
    with pytest.raises(Exception) as caught:
        bench("new", "method", *words)
    assert len(str(caught.value).splitlines()) == 1 and words[-1] in str(caught.value)
    assert list(Path().iterdir()) == []


def test_a_file_that_is_there_stays_as_it_is(bench):
    for words, file in ((("method", "mine"), "mine.py"), (("dataset", "mine"), "mine.toml")):
        Path(file).write_text("mine")
        with refused("unwritable-file", file, "already exists"):
            bench("new", *words)
        assert Path(file).read_text() == "mine"


def test_a_card_of_a_name_alone_passes_its_check(bench):
    done = bench("new", "dataset", "my-set")
    assert "bench prepare my-set.toml --source DIR" in done.output
    assert bench("check", "my-set.toml").return_value == 0
    assert list(find_card("my-set.toml").tasks) == ["label"]
    with refused("missing-file", "flows.csv"):
        bench("new", "dataset", "flows.csv")
    with refused("bad-options", "demo"):
        bench("new", "dataset", "demo")


@pytest.mark.parametrize(("paths", "tasks", "classes"), [
    (("web/a.pcap", "chat's/b.pcap"), ["label"], "\"chat's\" (1), 'web' (1)"),
    (("vpn/web/a.pcap", "vpn/chat/b.pcap", "no/web/c.pcap"), ["label", "inner"], "'chat' (1), 'web' (2)"),
    (("web_1.pcap", "web_2.pcap", "chat1.pcap"), ["label"], "'chat' (1), 'web' (2)"),
])  # fmt: skip
def test_a_card_for_a_folder_says_which_classes_its_paths_name(paths, tasks, classes, bench):
    for path in paths:
        file = Path("My captures") / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    done = bench("new", "dataset", "My captures")
    assert "bench prepare my-captures.toml`" in done.output and bench("check", "my-captures.toml").return_value == 0
    card, text = find_card("my-captures.toml"), Path("my-captures.toml").read_text()
    assert list(card.tasks) == tasks and card.source == str(Path("My captures").resolve())
    assert classes in text and "GUESSED" in text
    assert {name for path in paths if (m := re.search(card.labels.pattern, path)) for name in m.groupdict()} == {*tasks}


def rows_under(head):
    """Cells of the rows of the table with that head."""
    lines = PAGE.partition(f"\n{head}\n")[2].splitlines()[1:]
    end = next(number for number, line in enumerate(lines) if not line)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:end]]


def test_the_table_of_readers_is_what_they_give(folder):
    store = three_services(folder / "plain")
    samples, seen, read = windows_of_services(store), set(), set()
    for call, dtype, shape, reads in rows_under("| call | dtype | shape | `reads` |"):
        view = View(store, samples, READS)
        array = eval(call.strip("`"), {"view": view})
        sizes = shape.strip("`[]").replace("S", str(len(samples))).replace("N", str(len(array))).split(", ")
        assert (str(array.dtype), array.shape) == (dtype, tuple(map(int, sizes))), call
        assert sorted(view.used) == re.findall(r"`(\w+)`", reads), call
        seen.add(re.match(r"`view\.(\w+)", call)[1])
        read |= view.used
    readers = {name for name, value in vars(View).items() if inspect.isfunction(value) and not name.startswith("_")}
    assert (seen, read) == (readers, set(READS))


def test_the_tables_of_attributes_and_functions_are_complete():
    """All that an author may write, and which of it is needed."""
    bases = (Method, EstimatorMethod, TorchMethod)
    machinery = {"save", "load", "model", "random_state", "to_device", "precision"}
    members = {name: value for kind in bases for name, value in vars(kind).items() if not name.startswith("_")}
    hooks = {name for name, value in members.items() if inspect.isroutine(value)} - machinery
    rows = rows_under("| function | for | returns |")
    assert {name for row in rows for name in re.findall(r"(\w+)\(", row[0])} == hooks
    needed = {name for row in rows if "required" in row[1] for name in re.findall(r"(\w+)\(", row[0])}
    assert needed == {name for kind in bases for name in kind.__abstractmethods__}
    attributes = rows_under("| attribute | default | meaning |")
    annotated = {name for kind in bases for name in kind.__annotations__ if not name.startswith("_")} - machinery
    assert {row[0].strip("`") for row in attributes} == annotated
    for name, default, _ in attributes:
        there = next((getattr(kind, name.strip("`")) for kind in bases if hasattr(kind, name.strip("`"))), "required")
        said = {"required": "required", "none": Method.Parameters}.get(default)
        assert there == (ast.literal_eval(default.strip("`")) if said is None else said), name


def test_the_table_of_training_parameters_is_theirs():
    def words(kind):
        return getattr(kind, "__name__", str(kind)).replace(" | ", " or ")

    fields = [[f"`{f.name}`", words(f.type), str(f.default)] for f in dataclasses.fields(TrainingParameters)]
    assert rows_under("| parameter | type | default |") == fields
