"""What a suite holds besides words: files that parameters name, and copies of what is shipped."""

import shutil
from hashlib import sha256
from pathlib import Path

from bench.files import shipped_folder
from bench.suites.suite import read_suite


def test_files_that_parameters_name_belong_to_the_plan(bench_in, tmp_path, monkeypatch):
    bench = bench_in(tmp_path)
    for place, content in (("", b"one"), ("below", b"")):
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / "weights.pth").write_bytes(content)
    assert bench("prepare", "demo")[0] == 0
    words = ("--method", "yatc", "--set", "weights=weights.pth", "--set", "weights_licence=unknown", "--dry-run")
    assert bench("run", *words, "--dataset", "demo", "--split", "session", "--save-plan", "plan.toml")[0] == 0
    (one,) = read_suite("plan.toml").methods
    assert one.files == {"weights": sha256(b"one").hexdigest()[:16]} and one.set["weights"] == "weights.pth"
    monkeypatch.chdir(tmp_path / "below")  # it is as seen from the plan, wherever it is called from
    assert bench("run", "--suite", "../plan.toml", "--dry-run")[0] == 0
    (tmp_path / "weights.pth").write_bytes(b"two")
    status, _, told = bench("run", "--suite", "../plan.toml", "--dry-run")
    assert status == 2 and "weights=../weights.pth is not the file that the suite names" in told
    text = (tmp_path / "plan.toml").read_text()
    for found, wrong in ((one.files["weights"], "no digest"), ("weights = ", "weight = ")):
        (tmp_path / "wrong.toml").write_text(text.replace(found, wrong))
        assert bench("run", "--suite", "../wrong.toml", "--dry-run")[0] == 2


def test_a_copy_of_a_shipped_suite_is_that_suite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy = Path(shutil.copy(shipped_folder("suites") / "etc-2026.toml", tmp_path))
    assert read_suite(str(copy)).called == "etc-2026"
    copy.write_text(copy.read_text().replace("trials = 10", "trials = 11"))
    assert "not the shipped one" in read_suite(str(copy)).called


def test_a_report_says_which_splits_its_plan_does_not_hold(bench_in, tmp_path):
    bench = bench_in(tmp_path)
    words = ("run", "--method", "majority", "--dataset", "demo", "--split", "session", "--folds", "3")
    for fold, told in (("0", False), ("1", True), ("2", False)):
        assert bench(*words, "--fold", fold)[0] == 0
        assert bench("report", "--output", "page.html")[0] == 0
        page = (tmp_path / "page.html").read_text()
        assert ("holds none to a digest" in page) is told and ("[datasets.splits]" in page) is not told


METHOD = """
from methods.majority import Majority

class Mine(Majority):
    \"\"\"Somebody's.\"\"\"

    name = "mine"
"""


def test_a_plan_of_a_suite_by_hand_holds_the_files_of_its_methods(bench_in, tmp_path):
    bench = bench_in(tmp_path)
    assert bench("prepare", "demo")[0] == 0
    (tmp_path / "own.py").write_text(METHOD)
    (tmp_path / "draft.toml").write_text(
        'format = "bench-suite-1"\nname = "draft"\nmethods = [{name = "own.py:Mine"}, {name = "ports"}]\n'
        '[[datasets]]\nname = "demo"\ntask = "service"\nsplit = "session"\n'
    )
    assert bench("run", "--suite", "draft.toml", "--dry-run", "--save-plan", "held.toml")[0] == 0
    assert [bool(one.source) for one in read_suite("held.toml").methods] == [True, False]
    (source,) = [one.source for one in read_suite("held.toml").methods if one.source]
    held = tmp_path / "held.toml"
    held.write_text(held.read_text().replace(source, "0" * len(source)))  # as of a file that changed since
    status, _, told = bench("run", "--suite", "held.toml", "--dry-run")
    assert status == 2 and "own.py:Mine is not the file that the suite names" in told
