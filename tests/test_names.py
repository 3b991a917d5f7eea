"""One name for a data set and for a method in every command, however a user writes it."""

import dataclasses
import json
import shlex
import shutil

import pytest
from refusals import refused
from working_folder import MINE, write_working_folder

from bench.data.cards import card_names
from bench.data.manifest import names_there
from bench.data.names import find_card, folder_card
from bench.data.store import Store
from bench.generators import demo
from bench.runs.registry import spelled
from bench.runs.run_labels import state_notes
from bench.tracking.selection import Wanted, narrowed
from bench.tracking.tracker import Tracker

FOLDER = ("my captures", "./my captures", "my captures/", "other/../my captures", "{here}/my captures", "~/my captures",
          "my-captures")  # fmt: skip
METHOD = ("mine.py:Mine", "./mine.py:Mine", "{here}/mine.py:Mine", "~/mine.py:Mine", "mine.py", "mine")
ROWS = "table --json --dataset {} --method {}"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return write_working_folder(tmp_path_factory.mktemp("names"), others={"sessions": 12, "captures": 3})


@pytest.fixture
def bench(place, bench_in, monkeypatch):
    """Call `bench` with a line in a folder where a shipped and an own method have run on the folder of captures."""
    call = bench_in(place)
    monkeypatch.setenv("HOME", str(place))

    def typed(line, *words):
        return call(*shlex.split(line.format(*(shlex.quote(word.format(here=place)) for word in words))))

    if not (place / "results").exists():
        assert typed("run --method majority,mine.py:Mine --dataset 'my captures' --split session")[0] == 0
    return typed


@pytest.mark.parametrize("word", FOLDER)
def test_a_folder_is_one_data_set_however_it_is_written(bench, place, word):
    status, out, err = bench("run --method majority --dataset {} --split session --json", word)
    assert status == 0, err
    assert [(run["status"], run["spec"]["dataset"]) for run in json.loads(out)["runs"]] == [("cached", "my-captures")]
    assert [row["method"] for row in json.loads(bench(ROWS, word, "majority")[1])["rows"]] == ["majority"]
    assert len(json.loads(bench("results show --json --dataset {}", word)[1])["rows"]) == 2
    assert json.loads(bench("split {} --split session --json", word)[1])["dataset"] == "my-captures"
    assert json.loads(bench("prepare {} --json", word)[1])["unchanged"]
    report = bench("report --dataset {} --output page.html", word)[1]
    assert report.startswith("page.html: 2 runs, ") and report.endswith(" kB\n")
    assert bench("results export --dataset {} out.zip", word)[0] == 0
    (place / "out.zip").unlink()
    status, out, err = bench("compare --dataset {} --json", word)
    assert (status, out) == (2, "") and "on my-captures" in err  # of one seed each nothing can be ranked


def test_own_data_sets_are_listed_beside_the_shipped_ones(bench, place):
    rows = {row["name"]: row for row in json.loads(bench("datasets --json")[1])["datasets"]}
    own = rows.pop("my-captures")
    assert (own["shipped"], own["prepared"], own["tasks"]) == (False, True, ["label"])
    assert own["made_of"] == str((place / "my captures").resolve())
    assert {name for name, row in rows.items() if row["shipped"]} == set(card_names())
    (line,) = [line for line in bench("datasets")[1].splitlines() if line.startswith("my-captures")]
    assert line.endswith("[yours, of my captures, prepared]")
    away = (place / "my captures").rename(place / "gone")
    try:
        (line,) = [line for line in bench("datasets")[1].splitlines() if line.startswith("my-captures")]
        assert "cannot be used: my-captures: its store was made of" in line and "which is gone" in line
    finally:
        away.rename(place / "my captures")


def test_cards_of_this_folder_are_listed_with_the_command_that_prepares_them(bench, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    task = '[tasks.label]\nlabel = "label"\n'
    (tmp_path / "mine set.toml").touch()  # no tasks: it is no card
    (tmp_path / "mine.toml").write_text(f'name = "mine"\ntitle = "Mine"\n{task}')
    (tmp_path / "near.toml").write_text(f'name = "near"\ntitle = "Near"\nsource = "{place}/my captures"\n{task}')
    (tmp_path / "slip.toml").write_text("name = \n")

    def listed():
        return {row["name"]: row for row in json.loads(bench("datasets --json")[1])["datasets"]}

    rows = listed()
    own = {name: row["next"] for name, row in rows.items() if name.endswith(".toml")}
    assert own == {"mine.toml": "bench prepare mine.toml --source DIR", "near.toml": "bench prepare near.toml",
                   "slip.toml": "bench check slip.toml"}  # fmt: skip
    assert not any(rows[name]["prepared"] or rows[name]["shipped"] for name in own)
    assert "cannot be used: slip.toml" in rows["slip.toml"]["title"] and rows["near.toml"]["tasks"] == ["label"]
    (line,) = [line for line in bench("datasets")[1].splitlines() if line.startswith("near.toml")]
    assert line.endswith("Near [yours, not prepared: `bench prepare near.toml`]")
    for word, meant in (("near", "the card near.toml"), ("mime.toml", "mine.toml")):
        status, _, err = bench(f"split {word}")
        assert status == 2 and f"did you mean {meant}?" in err
    assert bench(own["near.toml"].removeprefix("bench "))[0] == 0
    rows = listed()
    assert "near.toml" not in rows and rows["near"]["prepared"] and rows["near"]["next"] == ""
    shutil.rmtree(place / "home" / "stores" / "near")


@pytest.mark.parametrize("word", METHOD)
def test_a_method_of_ones_own_is_one_however_it_is_written(bench, word):
    status, out, err = bench("run --method {} --dataset 'my captures' --split session --json", word)
    assert status == 0, err
    assert [(run["status"], run["spec"]["method"]) for run in json.loads(out)["runs"]] == [("cached", "mine.py:Mine")]
    assert [row["method"] for row in json.loads(bench(ROWS, "my-captures", word)[1])["rows"]] == ["mine.py:Mine"]
    assert len(json.loads(bench("results show --json --method {}", word)[1])["rows"]) == 1
    assert bench("methods {}", word)[1].startswith("name: mine")
    assert bench("audit 'my captures' --split session --no-runs --method {}", word)[0] == 0


def test_a_class_alone_names_a_method_of_runs_where_no_other_is_called_so(bench, place):
    assert [row["method"] for row in json.loads(bench(ROWS, "my-captures", "Mine")[1])["rows"]] == ["mine.py:Mine"]
    own = next(one for one in Tracker(place / "results").search() if one.spec.method == "mine.py:Mine")
    files = [own, dataclasses.replace(own, spec=dataclasses.replace(own.spec, method="lab/mine.py:Mine"))]
    with refused("unknown-method", "mine.py:Mine, lab/mine.py:Mine"):
        narrowed(files, Wanted(methods=["Mine"]))
    found, meant = narrowed(files, Wanted(methods=["lab/mine.py:Mine"]))
    assert meant.methods == ["lab/mine.py:Mine"] and len(found) == 1


def test_a_file_outside_of_here_keeps_its_whole_path(tmp_path, monkeypatch):
    (tmp_path / "lab").mkdir()
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path / "lab")
    assert spelled("../mine.py:Mine") == f"{tmp_path}/mine.py:Mine"
    assert spelled("forest-on:../mine.py:Mine") == f"forest-on:{tmp_path}/mine.py:Mine"
    assert spelled("forest") == "forest" and spelled("nothing.py:X") == "nothing.py:X"


def test_a_filter_narrows_word_by_word(bench, place):
    records = Tracker(place / "results").search()
    assert narrowed([], Wanted()) == ([], Wanted())
    with refused("no-runs", "there are no runs yet", "bench run --method forest --dataset demo"):
        narrowed([], Wanted(task="label"))
    with refused("no-runs", "no run of data set my-captures and split session has method 'forest'", "majority"):
        narrowed(records, Wanted(["forest"], ["my-captures"], split="session"))
    with refused("no-runs", "nowhere.py:Mine"):
        narrowed(records, Wanted(["./nowhere.py:Mine"]))


def test_a_page_is_not_written_over_for_a_wrong_word_or_an_empty_store(bench, place, tmp_path):
    page = place / "page.html"
    page.write_text("kept")
    assert Tracker(place / "empty", f"sqlite:///{place}/empty/mlflow.db")._client  # makes the tables
    for words in ("report --dataset tpyo --output page.html", "report --results empty --output page.html"):
        status, out, err = bench(words)
        assert (status, out, len(err.splitlines())) == (2, "", 1) and "[no-runs]" in err
    assert page.read_text() == "kept"


def test_an_empty_store_is_told_with_the_command_that_makes_runs(bench, place):
    line = "there are no runs yet; `bench run --method forest --dataset demo --results empty` makes the first"
    assert Tracker(place / "empty", f"sqlite:///{place}/empty/mlflow.db")._client
    for words in ("table", "results show"):
        assert bench(f"{words} --results empty") == (0, f"{line}\n", "")
        assert json.loads(bench(f"{words} --results empty --json")[1])["rows"] == []
        assert bench(f"{words} --results empty --method forest")[0] == 2
        assert bench(f"{words} --results nowhere")[0] == 2  # a store that is not there is no empty one
    assert not (place / "nowhere").exists()


def test_a_folder_can_have_another_name_and_is_found_by_it(bench, place):
    """Two folders are called alike: the second one is told with the command that gives it another name."""
    other = "other/my captures"
    status, _, err = bench("prepare {}", other)
    assert status == 2 and f"is that of {place}/my captures" in err
    assert bench("table --dataset {}", other)[0] == 2  # the runs are of the other folder
    command = err.split("`")[1].removeprefix("bench ").replace("NAME", "home-lab")
    assert bench(command)[0] == 0 and names_there()["home-lab"] == str(place / other)
    for word in ("home-lab", other, f"./{other}/", f"{place}/{other}"):
        assert bench("split {} --split session --json", word)[0] == 0
        assert find_card(word).name == "home-lab"
    status, out, _ = bench("run --method majority --dataset 'my captures',{} --split session --json", other)
    assert status == 0
    assert [run["spec"]["dataset"] for run in json.loads(out)["runs"]] == ["my-captures", "home-lab"]
    for word in ("home-lab", other):
        assert len(json.loads(bench(ROWS, word, "majority")[1])["rows"]) == 1
    assert bench("prepare {} --name home-lab", other)[0] == 0  # once more: the same
    assert bench("prepare {} --name my-captures", other)[0] == 2
    assert bench("prepare {} --name second", other)[0] == 0
    with refused("same-name", "several names", "home-lab, second"):
        find_card(place / other)


def test_a_card_of_ones_own_is_found_by_the_name_that_runs_carry(bench, place, tmp_path):
    (place / "set.toml").write_text('name = "set"\ntitle = "A set"\n[tasks.app]\nlabel = "label"\n')
    assert bench("prepare set.toml --source 'my captures'")[0] == 0
    assert find_card("set").place == str(place / "set.toml")
    assert bench("split set --split session --json")[0] == 0
    (place / "set.toml").unlink()
    with refused("unknown-dataset", "set.toml, which is gone"):
        find_card("set")


def test_a_store_of_an_earlier_version_learns_what_it_was_made_of(place, tmp_path, bench):
    path = place / "home" / "stores" / "my-captures" / "sources.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in content.items() if key != "made_of"}))
    with refused("unknown-dataset", "my-captures", "give the path of its card or folder once"):
        find_card("my-captures")
    assert bench("table --dataset my-captures")[0] == 0  # runs have it
    assert bench("prepare 'my captures' --json")[0] == 0
    assert json.loads(path.read_text()) == content and find_card("my-captures").source == str(place / "my captures")


def test_a_name_must_be_one_and_belongs_to_a_folder(place, tmp_path):
    for name, why in (("two words", "has signs that no name has"), ("demo", "shipped"), ("Demo", "shipped")):
        with refused("same-name", name, why, "--name NAME"):
            folder_card(place / "my captures", name=name, home=tmp_path)
    with refused("bad-options", "--name x"):
        find_card("demo", name="x")


def test_runs_of_two_preparations_are_told_apart_by_what_changed(tmp_path, bench_in):
    demo.write(tmp_path / "caps", sessions=20, captures=4, classes=3)
    call = bench_in(tmp_path)
    run = ("run", "--method", "majority", "--dataset", "caps", "--split", "session")
    assert call(*run)[0] == 0
    first = Store.find("caps").digest[:8]
    assert call("prepare", "caps", "--client", "ports", "--idle-timeout", "0.5")[0] == 0
    now = Store.find("caps")
    assert "prepared again" not in call("table")[1]  # all runs are of one store
    assert call(*run)[0] == 0
    notes = call("table")[1]
    assert f"data set caps was prepared again: store={now.digest[:8]} is the current one\n" in notes
    line = next(one for one in notes.splitlines() if one.startswith(f"data set caps, store={first}: "))
    assert f"(now {now.manifest.sessions})" in line and "options none (now --idle-timeout 0.5 --client ports)" in line
    assert "captures" not in line.partition(": ")[2]  # as many as before
    assert call("report")[0] == 0 and f"store={first}: " in (tmp_path / "results" / "report.html").read_text()
    shutil.rmtree(now.path)
    assert "data set caps: its runs belong to 2 preparations, and none of them is here" in call("table")[1]


def test_a_run_that_does_not_say_how_its_store_was_made_is_read(tmp_path, bench_in):
    demo.write(tmp_path / "caps", sessions=20, captures=4, classes=3)
    call = bench_in(tmp_path)
    assert call("run", "--method", "majority", "--dataset", "caps", "--split", "session")[0] == 0
    (record,) = Tracker(tmp_path / "results").search()
    old = dataclasses.replace(record, state={}, spec=dataclasses.replace(record.spec, store="ab" * 32))
    assert state_notes([record, old])[1] == "data set caps, store=abababab: its runs do not say what it held"
