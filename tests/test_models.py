"""Whose code may run: a results folder names methods, and only the user decides which files are code."""

import dataclasses
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from records import of_spec, record, write_result
from refusals import refused

from bench.analysis import audit
from bench.analysis.audit_record import Audit
from bench.analysis.audit_tables import _scores
from bench.analysis.comparison import compare
from bench.analysis.tables import results_table
from bench.generators import demo
from bench.paper.declaration import find_paper, read_paper
from bench.render.table import render
from bench.runs import registry
from bench.runs.models import fitted, method_of
from bench.runs.run_labels import is_baseline, method_label
from bench.schema import StoreTraits
from bench.spec import RunSpec
from bench.tracking.results import Predictions, digests_of

EVIL = """
import pathlib
from methods.majority import Majority
pathlib.Path(__file__).with_name("ran").write_text("the code of the file ran")
class Evil(Majority):
    name = "evil"
    presets = {"all": {}}
"""


@pytest.fixture
def evil(tmp_path):
    """A file that leaves a trace when it runs, in full or a part of it, and its name as a method."""
    path = tmp_path / "evil.py"
    path.write_text(EVIL)
    return f"{path}:Evil"


@pytest.fixture
def ran(tmp_path):
    return (tmp_path / "ran").is_file


@pytest.fixture
def made_by(tmp_path):
    """A done run of a method, with its files."""

    def make(name, source=None):
        folder = tmp_path / "run"
        (folder / "model").mkdir(parents=True)
        rows = np.arange(40)
        Predictions(["a", "b"], rows, rows, rows % 2, rows // 2, np.full((40, 2), 0.5, np.float32)).save(
            folder / "predictions.npz"
        )
        write_result(folder, samples={"test": 40, "train": 80})
        head = {"method": "evil", "parameters": {}, "classes": 2, "seed": 0}
        (folder / "model" / "method.json").write_text(json.dumps(head))
        (folder / "model" / "frequencies.json").write_text("[0.5, 0.5]")
        run = record(name, 0.5, folder=folder, files=digests_of(folder))
        return of_spec(run, source=source)

    return make


def test_tables_comparisons_and_audits_run_no_file_that_a_store_names(evil, ran, made_by):
    run = made_by(evil, registry.digest_of(evil))
    assert evil in render(results_table([run]), "csv")  # text shortens a path
    assert f"file {run.spec.source[:8]}" in render(results_table([run]))
    assert method_label(run.spec) == evil and not is_baseline(run.spec.method)
    assert compare([run], [run]).samples == 40
    ends = {f"{name}_{end}": 0.5 for name in ("accuracy", "macro_f1") for end in ("low", "high")}
    scored = audit.scored(dataclasses.replace(run, metrics=run.metrics | ends), None)
    assert (scored.family, scored.sees) == ("", [])
    assert "not known" in render(_scores(Audit("d", "t", "0f", scores=[scored])))
    assert not ran()


def test_a_file_runs_only_if_the_user_names_it_and_it_is_the_one_of_the_run(evil, ran, made_by, tmp_path):
    run = made_by(evil, registry.digest_of(evil))
    with refused("unnamed-code", evil, f"--method {evil}"):
        fitted(run)
    with refused("unnamed-code"):
        fitted(run, ["forest", f"{tmp_path / 'evil.py'}:Other"])
    changed = tmp_path / "changed.py"
    changed.write_text(EVIL + "# changed")
    named = f"{changed}:Evil"
    with refused("other-code", named, registry.digest_of(named), run.spec.source):
        fitted(run, [named])
    with refused("other-code", "without a recorded digest"):
        method_of(of_spec(run, source=None).spec, [evil])
    assert not ran()
    moved = tmp_path / "moved" / "elsewhere.py"
    moved.parent.mkdir()
    moved.write_text(EVIL)  # a results folder of another machine names a path of that machine
    assert fitted(run, [named, f"{moved}:Evil"]).frequencies.tolist() == [0.5, 0.5]
    assert (moved.parent / "ran").is_file() and not ran()


def test_a_named_file_gives_an_audit_its_ceiling_and_another_one_does_not(evil, ran, make_store):
    store = make_store({"conversation": [0, 1]}, labels=[0, 0])
    store.traits = StoreTraits(0, 2, ())
    pool, tests = audit.Pool.of(store, "task", audit.SplitSpec()), {"session": np.array([0])}
    run = of_spec(record(evil, 0.5), source=registry.digest_of(evil))
    other = of_spec(run, source="0" * 16)
    unnamed = audit.ceilings_of(pool, tests, [], [run], lambda line: None)
    assert not ran() and [one.all for one in unnamed.values()] == [None]
    assert "--method" in next(iter(unnamed.values())).reason
    known = audit.ceilings_of(pool, tests, [evil], [run, other], lambda line: None)
    assert [one.all for one in known.values()] == [1.0, None]  # the run of other code has not this code's ceiling
    assert "0000000000000000" in list(known.values())[1].reason
    assert {one.origin for one in known.values()} == {f"file {run.spec.source[:8]}", "file 00000000"}


def test_a_paper_runs_no_file_that_only_its_folder_names(tmp_path):
    (tmp_path / "paper.toml").write_text(
        'name = "p"\ntitle = "P"\nreference = "nobody"\n[systems]\nforest = "Forest"\n'
        '[[experiments]]\nid = "table-I"\ntitle = "t"\ndataset = "demo"\nkind = "arms"\ntarget = "x"\n'
        'arms = [{ label = "E", method = "evil.py:Evil" }]\n'
    )
    with refused("bad-paper", "evil.py:Evil", "experiments[0].arms[0].method"):
        read_paper(tmp_path)


def test_a_paper_has_no_shipped_name_unless_it_says_the_same(tmp_path):
    """What is reproduced of it would lie where the shipped paper's tables lie."""
    shutil.copytree(find_paper().folder, tmp_path / "paper")
    assert find_paper(tmp_path / "paper").experiments == find_paper().experiments
    declaration = tmp_path / "paper" / "paper.toml"
    declaration.write_text(declaration.read_text().replace("title = ", "title = 'Another' # ", 1))
    read_paper.cache_clear()
    with refused("same-name", declaration, find_paper().name):
        find_paper(tmp_path / "paper")


def test_classify_by_a_model_of_a_file(tmp_path, command_line, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    demo.write(tmp_path / "traffic", sessions=20, captures=4, classes=3)
    Path("evil.py").write_text(EVIL)
    status, out, _ = command_line(
        "run", "--method", "evil.py:Evil", "--dataset", "traffic", "--split", "session", "--json"
    )
    table = command_line("run", "--method", "evil.py:Evil", "--dataset", "traffic", "--split", "session")[1]
    assert f"(file {registry.digest_of('evil.py:Evil')[:8]})" in table
    (run,) = json.loads(out)["runs"]
    assert status == 0
    Path("ran").unlink()
    capture = next(Path("traffic").rglob("*.pcap"))
    words = ("classify", capture, "--run", run["run_id"][:8])
    status, out, err = command_line(*words)
    assert (status, out, len(err.splitlines())) == (2, "", 1) and "[unnamed-code]" in err
    for command in ("table", "report"):
        assert command_line(command)[0] == 0
    assert not Path("ran").exists()
    status, out, err = command_line(*words, "--method", "evil.py:Evil", "--json")
    assert status == 0 and json.loads(out)["sessions"] and "data set traffic is not a shipped one" in err
    Path("evil.py").write_text(EVIL + "\n# changed")
    status, out, err = command_line(*words, "--method", "evil.py:Evil")
    assert (status, out, len(err.splitlines())) == (2, "", 1) and "[other-code]" in err
    assert run["spec"]["source"] in err


def test_the_remedy_is_a_command_that_works(made_by, tmp_path):
    """A path with a space in it: what is printed is what one has to type."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "evil.py").write_text(EVIL)
    name = f"{folder / 'evil.py'}:Evil"
    with refused("unnamed-code") as caught:
        method_of(RunSpec(name, "d", "t", source="0f"))
    assert shlex.split(str(caught.value).partition("name it: ")[2]) == ["--method", name]
