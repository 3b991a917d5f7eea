"""What a run says about its machine."""

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import environment as environment_module
from bench.environment import _revision, code_digest, cores, environment


def test_environment_is_json_and_names_versions():
    told = environment("cpu")
    json.dumps(told)
    assert told["packages"]["numpy"] == np.__version__ and told["python"] == platform.python_version()
    assert told["device"] == "cpu" and told["cores"] == cores() >= 1 and told["threads"] >= 1


def test_the_commit_is_the_checkouts():
    _revision.cache_clear()
    root = Path(__file__).parents[1]
    asked = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True)
    assert environment("cpu")["commit"] == (asked.stdout.strip() or None)


def test_torch_is_not_imported():
    code = "import sys; from bench.environment import environment; environment('cpu'); print('torch' in sys.modules)"
    root = Path(__file__).parents[1]
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=root) == "False\n"


def test_peak_memory_sees_what_is_gone_again():
    code = (  # in a process of its own: where the kernel resets no peak, that of earlier tests would hide it
        "import numpy as np; from bench.environment import peak_memory, reset_peak_memory\n"
        "reset_peak_memory(); before = peak_memory(); block = np.ones(64 << 20, np.uint8); del block\n"
        "print(peak_memory() - before > 50 << 20)"
    )
    root = Path(__file__).parents[1]
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=root) == "True\n"


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A copy of the packages, in which files can be changed."""
    for package in ("bench", "methods"):
        shutil.copytree(
            environment_module.ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    monkeypatch.setattr(environment_module, "ROOT", tmp_path)
    return tmp_path


def matters(tree, module, path):
    """Whether a change of a file is a change of the digest of a module's code."""
    before = code_digest(module)
    file = tree / path
    text = file.read_text()
    file.write_text(text + "\n# changed\n")
    changed = code_digest(module) != before
    file.write_text(text)
    assert code_digest(module) == before
    return changed


RESULTS = [  # what a result rests on
    *("runs/attempt", "tracking/results", "method", "readers", "schema", "spec", "errors", "environment", "files"),
    *("scores/metrics", "splits/split", "splits/assignment", "splits/assignment_kernel", "splits/checks"),
    *("splits/filters", "splits/sampling", "splits/split_file", "ingest/packet_bytes", "ingest/headers", "data/store"),
]
NO_RESULTS = [
    "cli/base",
    "tracking/tracker",
    "tracking/writing",
    "matrix/cells",
    "runs/execute",
    "analysis/tables",
    "render/table",
    "report/page",
    "paper/plan",
]
INGEST = ("capture", "compressed", "connections", "containers", "headers", "links", "options", "sessions", "tunnels")
STORES = [*(f"ingest/{name}" for name in INGEST), "schema"]
STORES += [
    *(f"data/{name}" for name in ("prepare", "build", "record_build", "cards", "file_list", "labels", "manifest")),
    *(f"records/{name}" for name in ("layout", "tables", "cells", "convert", "joining", "packet_rows")),
    *("data/sources", "data/store", "generators/demo"),
]


@pytest.mark.parametrize("name", RESULTS)
def test_the_code_of_a_result_is_all_that_it_imports(tree, name):
    assert matters(tree, "bench.runs.attempt", f"bench/{name}.py")


@pytest.mark.parametrize("name", NO_RESULTS)
def test_what_only_shows_or_keeps_results_is_no_code_of_them(tree, name):
    assert not matters(tree, "bench.runs.attempt", f"bench/{name}.py")


@pytest.mark.parametrize("name", STORES)
def test_the_code_of_a_store_is_all_that_it_imports(tree, name):
    assert matters(tree, "bench.data.prepare", f"bench/{name}.py")


def test_a_face_stands_for_what_it_names(tree):
    """Somebody else's method may import from `bench` itself."""
    mine = tree / "mine.py"
    mine.write_text("from bench import Method\n")
    before = code_digest(files=[mine])
    (tree / "bench" / "method.py").write_text((tree / "bench" / "method.py").read_text() + "\n# changed\n")
    assert code_digest(files=[mine]) != before


def test_a_method_s_foundation_is_part_of_its_code(tree):
    file = tree / "methods" / "attlstm.py"
    before = code_digest(files=[file])
    (tree / "methods" / "han.py").write_text((tree / "methods" / "han.py").read_text() + "\n# changed\n")
    assert code_digest(files=[file]) != before


def test_imports_for_type_checkers_do_not_count(tree):
    (tree / "bench" / "one.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from bench.cli import base\n"
    )
    assert not matters(tree, "bench.one", "bench/cli/base.py") and matters(tree, "bench.one", "bench/one.py")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's settings")
def test_freed_memory_is_given_out_again_and_goes_back_afterwards():
    code = (  # in a process of its own: the settings are the process's
        "import resource; from bench.environment import freed_memory_kept\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    block = b'x' * (64 << 20); del block\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "faults(); first = faults()\n"
        "with freed_memory_kept():\n"
        "    faults(); within = faults()\n"
        "print(first, within, faults())"
    )
    root = Path(__file__).parents[1]
    first, within, after = map(int, subprocess.check_output([sys.executable, "-c", code], text=True, cwd=root).split())
    assert within < 100 < first and after > 100
