"""Another paper is a folder: declarations and printed numbers, and not a line of code."""

import json

import pytest
from refusals import refused

from bench.paper.declaration import find_paper, read_paper

PAPER = """
name = "other"
title = "OTHER"
reference = "nobody, 2026"
per_class = 50

[systems]
majority = "Guess"
knn = "Neighbour"
forest = "Forest"

[[published]]
id = "table-1"
title = "three systems on the demo; percent"
keys = ["id"]

[[published]]
id = "fig-2"
title = "accuracy by neighbours"
keys = ["neighbours"]
shares = true

[[experiments]]
id = "table-1"
title = "Three systems"
dataset = "demo"
kind = "systems"
target = "Forest the best"
systems = "all"
pairs = [["Forest", "Guess"]]

[[experiments]]
id = "fig-2"
title = "Neighbours"
dataset = "demo"
kind = "sweep"
target = "three are best"
[experiments.over]
method = "knn"
label = "{neighbours} neighbours"
key = "{neighbours}"
axes = ["neighbours"]
parameters = { neighbours = [1, 3] }
"""
TABLE = "id,name,precision,recall,f1,accuracy,provenance\n" + "".join(
    f"{key},{name},{p},{r},{f},{a},own\n"
    for key, name, p, r, f, a in (
        ("majority", "Guess", 3.0, 16.7, 5.1, 20.0),
        ("knn", "Neighbour", 80.0, 81.0, 80.4, 82.0),
        ("forest", "Forest", 90.0, 91.0, 90.4, 92.0),
    )
)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "other"
    place.mkdir()
    (place / "paper.toml").write_text(PAPER)
    (place / "table_1.csv").write_text(TABLE)
    (place / "fig_02.csv").write_text("neighbours,accuracy\n1,0.8\n3,0.85\n")
    return place


@pytest.fixture
def bench(command_line, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return lambda *words: command_line(*words, "--results", tmp_path / "results")


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def test_its_tables_and_figures_are_made_again_beside_its_numbers(folder, bench, tmp_path):
    words = ("table-1", "fig-2", "--paper", folder, "--max-per-class", "20", "--seeds", "2", "--format", "json")
    status, out, err = bench("reproduce", *words)
    assert status == 0, err
    table, figure = json.loads(out)["tables"]
    rows = {row["system"]: row for row in table["rows"]}
    assert list(rows) == ["Guess", "Neighbour", "Forest"]
    assert rows["Forest"]["published_accuracy"] == 92.0 and rows["Forest"]["clean_runs"] == 2
    assert rows["Guess"]["clean_accuracy"] < rows["Forest"]["clean_accuracy"]
    assert "samples a class 20, 2 seeds" in table["title"] and "instead of" not in table["title"]
    assert len(figure["rows"]) >= 2
    saved = sorted(path.name for path in (tmp_path / "results" / "reproduced").iterdir())
    assert [name.partition("-max")[0] for name in saved] == ["other-fig-2", "other-table-1"]  # beside another's table-1
    sheet = json.loads((tmp_path / "results" / "reproduced" / saved[1] / "sheet.json").read_text())
    assert f"--paper {folder}" in sheet["command"]


def test_its_numbers_are_shown_checked_and_listed_without_data(folder, bench):
    status, out, _ = bench("reproduce", "table-1", "--paper", folder, "--mode", "published")
    assert status == 0 and "Neighbour  80.0" in out
    status, out, _ = bench("reproduce", "--check", "--paper", folder)
    assert status == 0 and "GraphDApp" not in out
    status, out, _ = bench("reproduce", "--list", "--paper", folder, "--format", "json")
    assert [row["id"] for row in json.loads(out)["rows"]] == ["table-1", "fig-2"]
    status, _, err = bench("reproduce", "table-VI", "--paper", folder)
    assert status == 2 and "[unknown-experiment]" in err and "table-1, fig-2" in err


def test_a_paper_that_is_not_there(bench, tmp_path):
    status, _, err = bench("reproduce", "table-1", "--paper", tmp_path / "nowhere")
    assert status == 2 and "[unknown-paper]" in err and find_paper().name in err


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ('kind = "systems"', 'kind = "all"', "experiments[0].kind = 'all'"),
        ('id = "table-1"', 'id = "tab.1"', "id = 'tab.1'"),
        ('id = "fig-2"\ntitle = "acc', 'id = "table-1"\ntitle = "acc', "table-1"),
        ('systems = "all"', 'systems = ["svm"]', "'svm'"),
        ('["Forest", "Guess"]', '["Forest", "SVM"]', "'SVM'"),
        ('["Forest", "Guess"]', '["Forest"]', "experiments[0].pairs"),
        ("{neighbours} neighbours", "{trees} neighbours", "'trees'"),
        ("[experiments.over]", "[experiments.other]", "experiments[1].other"),
        ('kind = "sweep"', 'kind = "weights"', "experiments[1].curves"),
        ('systems = "all"', "systems = []", "table-1"),
        ('title = "OTHER"', "title = 3", "title = 3"),
        ('name = "other"', 'name = "../other"', "name = '../other'"),
        ("per_class = 50", "per_class = '50'", "per_class = '50'"),
        ("[systems]", "[systems", ""),
        ("per_class = 50", 'ablation = { table = "table-9", comparison = "table-1" }', "table-9"),
    ],
)
def test_a_wrong_declaration_is_refused_with_its_place(folder, old, new, place):
    assert old in PAPER
    (folder / "paper.toml").write_text(PAPER.replace(old, new))
    with refused("bad-paper", folder / "paper.toml", place):
        read_paper(folder)


def test_all_that_is_wrong_with_a_declaration_is_told_at_once(folder):
    changes = {'kind = "systems"': 'kind = "all"', 'name = "other"': 'name = "../other"'}
    changes |= {'id = "fig-2"': 'id = "fig 2"'}
    text = PAPER
    for old, new in changes.items():
        text = text.replace(old, new, 1)
    (folder / "paper.toml").write_text(text)
    with refused("bad-paper", "name = '../other'", "experiments[0].kind = 'all'", ".id = 'fig 2'") as caught:
        read_paper(folder)
    assert len(caught.value.problems) == 3


def test_all_that_lacks_beside_a_declaration_is_told_at_once(folder):
    (folder / "paper.toml").write_text(PAPER.replace('systems = "all"', 'systems = ["svm", "tree"]'))
    (folder / "table_1.csv").write_text("nothing\n")
    (folder / "fig_02.csv").unlink()
    with refused("bad-paper", "table_1.csv has no column", "'svm'", "'tree'", "fig_02.csv"):
        read_paper(folder)
