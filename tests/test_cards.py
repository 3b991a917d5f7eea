import dataclasses
import json
import os
import pickle
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner
from refusals import refused

from bench.cli import cli
from bench.data.cards import card_folder, card_names, describe_card, summary
from bench.data.names import find_card

GOOD = """
name = "mine"
title = "Mine"
[captures]
include = ["**/*.pcap"]
group = '^(.*)_[ab]'
[labels]
kind = "pattern"
pattern = '(?P<app>[a-z]+)(?P<side>[ab])?\\.pcap'
[tasks.app]
label = "app"
default = true
merge = { x = "y" }
[tasks.side]
label = "side"
where = { app = ["x", "z"] }
[expected]
captures = 3
tasks = { app = { classes = 2 } }
"""


def card_file(folder, text, name="mine"):
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", card_names())
def test_shipped_cards_are_right_and_say_what_they_are(name):
    card = find_card(name)
    assert card.name == name
    assert card.title and card.licence
    assert card.generator or (card.citation and card.home.startswith("https://"))
    assert card.default_task in card.tasks
    assert describe_card(card)["labels"]["kind"] in ("pattern", "sessions", "files", "columns")


def test_the_shipped_cards_are_all_there():
    assert {"demo", "iot-sentinel", "ustc-sessions"} <= set(card_names())


def test_a_card_by_path(tmp_path):
    card = find_card(card_file(tmp_path, GOOD))
    assert card.captures.include == ("**/*.pcap",)
    assert card.default_task == "app"
    assert card.tasks["side"].where == {"app": ("x", "z")}
    assert card.expected.tasks["app"].classes == 2
    assert card.labels.columns == {"app", "side"}


@pytest.mark.parametrize(
    ("old", "new", "place", "known"),
    [
        ('title = "Mine"', "title = 3", "title = 3", "must be str, is int"),
        ('title = "Mine"', "", "title", ""),
        ('title = "Mine"', 'title = "a"\ncolour = "red"', "colour = 'red'", "known: name, title"),
        ('name = "mine"', 'name = "../mine"', "name = '../mine'", ""),
        ('name = "mine"', 'name = "other"', "name = 'other'", "'mine'"),
        ("captures = 3", "captures = true", "expected.captures = True", "must be int, is bool"),
        ('["x", "z"]', '["x", 1]', "tasks.side.where.app[1] = 1", "must be str"),
        ('["x", "z"]', '"x"', "tasks.side.where.app = 'x'", "must be list"),
        ("where = { app", "where = { ap", "tasks.side.where.ap = ['x', 'z']", "'ap'"),
        ('label = "side"', 'label = "sid"', "tasks.side.label = 'sid'", "app, side"),
        ("default = true", "", "tasks", ""),
        ('kind = "pattern"', 'kind = "paths"', "labels.kind = 'paths'", "pattern, sessions"),
        ("^(.*)_[ab]", "^(.*_", "captures.group = '^(.*_'", ""),
        ("(?P<app>[a-z]+)(?P<side>[ab])?", "x", "labels.pattern", ""),
        ("{ app = { classes", "{ ap = { classes", "expected.tasks.ap", ""),
        ("default = true", "default = true\nminimum_captures = 0", "tasks.app.minimum_captures = 0", "1"),
        ('title = "Mine"', 'title = "a"\ngenerator = "x"', "generator = 'x'", "demo"),
        ("[tasks.app]", "tasks.app = [", "", ""),
    ],
)
def test_a_wrong_card_is_refused_with_field_value_and_reason(tmp_path, old, new, place, known):
    assert old in GOOD
    path = card_file(tmp_path, GOOD.replace(old, new))
    with refused("bad-card", path, place, known):
        find_card(path)


FAULTY = """
name = "other"
title = 3
generator = "x"
[captures]
group = '^(.*'
[labels]
kind = "pattern"
pattern = '(?P<app>[a-z]+)'
[tasks.app]
lable = "app"
[tasks.side]
label = "side"
minimum_captures = 0
[tasks.two]
label = "tow"
[attributes]
day = '('
[expected]
tasks = { ap = { classes = 2 } }
"""


def test_all_that_is_wrong_with_a_card_is_told_at_once(tmp_path):
    """Types, unknown fields, rules of one field, and rules of several fields as far as these can be read."""
    path = card_file(tmp_path, FAULTY)
    with refused("bad-card", path) as caught:
        find_card(path)
    wrong = {re.split(" = |: ", problem)[0] for problem in caught.value.problems}
    of_fields = {"name", "title", "tasks.app.lable", "tasks.side.minimum_captures", "captures.group"}
    of_rules = {"generator", "tasks.app.label", "tasks.two.label", "attributes.day"}  # a task that cannot be read: none
    assert wrong == of_fields | of_rules
    assert all(problem in str(caught.value) for problem in caught.value.problems)
    assert caught.value.__context__ is None  # what is behind an error travels with it from a Dask worker
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.problems == caught.value.problems


def test_check_lists_all_that_is_wrong_a_line_each(tmp_path):
    path = card_file(tmp_path, FAULTY)
    done = CliRunner().invoke(cli, ["check", str(path)], standalone_mode=False)
    *lines, last = done.output.splitlines()
    assert (done.return_value, last) == (1, f"{path}: 9 wrong")
    assert "FAIL tasks.two.label = 'tow': no label column 'tow'; there are: app" in lines and len(lines) == 9
    told = json.loads(CliRunner().invoke(cli, ["check", str(path), "--json"]).output)
    assert len(told["problems"]) == 9
    (tmp_path / "right").mkdir()
    done = CliRunner().invoke(cli, ["check", str(card_file(tmp_path / "right", GOOD))], standalone_mode=False)
    assert (done.return_value, done.output.partition(";")[0]) == (0, "ok   mine: tasks app, side")
    (tmp_path / "folder" / "a").mkdir(parents=True)
    assert CliRunner().invoke(cli, ["check", str(tmp_path / "folder")]).exit_code == 0


def test_what_a_card_takes_over_is_not_missed_where_that_cannot_be_had(tmp_path):
    path = card_file(tmp_path, 'name = "mine"\nlike = "nothing"\ntitle = 1\n')
    with refused("bad-card", path, "like = 'nothing'", "title = 1") as caught:
        find_card(path)
    assert len(caught.value.problems) == 2


def test_a_list_that_cannot_be_read_is_told_beside_the_rest(tmp_path):
    text = 'name = "mine"\ntitle = 1\n[labels]\nkind = "files"\ntable = "no.csv"\n[tasks.a]\nlabel = "app"\n'
    with refused("bad-card", "title = 1", "labels.table = 'no.csv'", "cannot be read as a list"):
        find_card(card_file(tmp_path, text))
    with refused("bad-file-list", "no.csv"):  # alone
        find_card(card_file(tmp_path, text.replace("title = 1", 'title = "t"')))


def test_label_file_rules(tmp_path):
    text = 'name = "mine"\ntitle = "Mine"\ntasks.a.label = "l"\n[labels]\nkind = "sessions"\n'
    with refused("bad-card", "labels.file: is missing"):
        find_card(card_file(tmp_path, text))
    with refused("bad-card", "labels.endpoints = ['a', 'b']"):
        find_card(card_file(tmp_path, text + 'file = "l.csv"\nendpoints = ["a", "b"]\n'))
    with refused("bad-card", "labels.check.flags = 'x'"):
        find_card(card_file(tmp_path, text + 'file = "l.csv"\ncheck = { flags = "x" }\n'))
    assert find_card(card_file(tmp_path, text + 'file = "l.csv"\n')).labels.protocol == "protocol"


def test_a_folder_needs_no_card(tmp_path):
    folder = tmp_path / "my apps"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
    card = find_card(folder)
    assert (card.name, list(card.tasks), card.source) == ("my-apps", ["label"], str(folder))
    (tmp_path / "flat").mkdir()
    with refused("bad-folder", "flat"):
        find_card(tmp_path / "flat")
    for names, told in (
        (["caf\u00e9", "cafe\u0301"], r"'cafe\u0301' and 'caf\xe9' are one"),
        ([b"x\xff"], r"'x\udcff'"),
    ):
        for name in names:
            (tmp_path / told / os.fsdecode(name)).mkdir(parents=True)
        with refused("bad-folder", told):
            find_card(tmp_path / told)
    (tmp_path / "demo" / "a").mkdir(parents=True)
    with refused("same-name", "demo"):
        find_card(tmp_path / "demo")


def test_an_unknown_name_is_answered_with_the_closest():
    with refused("unknown-dataset", "did you mean iot-sentinel?"):
        find_card("iot_sentinel")
    with refused("unknown-dataset", "zzzz", "cross-platform", "demo"):
        find_card("zzzz")


def test_the_digest_is_of_what_decides_the_store(tmp_path):
    card = find_card(card_file(tmp_path, GOOD))
    assert dataclasses.replace(card, title="Other", source="/x").digest == card.digest
    assert find_card(card_file(tmp_path, GOOD.replace('x = "y"', 'x = "w"'))).digest != card.digest
    assert dataclasses.replace(card, expected=type(card.expected)(captures=4)).digest != card.digest


@pytest.mark.parametrize("name", card_names())
def test_a_listing_says_of_a_card_what_the_whole_of_it_says(name):
    card = find_card(name)
    whole = {"name": card.name, "title": card.title, "tasks": list(card.tasks), "licence": card.licence}
    assert summary(name) == whole


def test_listing_cards_imports_nothing_heavy():
    code = "import bench.data.names as c, sys; c.card_names(); c.find_card('demo'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "pyarrow", "numba", "torch", "sklearn", "mlflow", "scapy"} & set(done.stdout.split())


@pytest.mark.parametrize("name", ["demo", "Demo"])
def test_a_shipped_name_is_not_for_another_card(tmp_path, name):
    with refused("same-name", card_file(tmp_path, GOOD, "mine").parent, name, "rename"):
        find_card(card_file(tmp_path, GOOD.replace('name = "mine"', f'name = "{name}"'), name))
    assert find_card("demo").generator == "demo"


def test_a_shipped_card_may_be_copied_and_its_prose_changed(tmp_path):
    text = (card_folder() / "demo.toml").read_text().replace("Demo: synthetic", "Ours: synthetic")
    copied = find_card(card_file(tmp_path, text, "demo"))
    assert copied.title.startswith("Ours") and copied.digest == find_card("demo").digest


def test_a_folder_has_no_shipped_name_in_whatever_case(tmp_path):
    (tmp_path / "Demo" / "a").mkdir(parents=True)
    with refused("same-name", "Demo"):
        find_card(tmp_path / "Demo")


def test_a_source_that_is_no_path_is_told_and_hides_no_other_card(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = 'name = "nul"\ntitle = "x"\nsource = "\\u0000"\n[tasks.label]\nlabel = "label"\n'
    (tmp_path / "nul.toml").write_text(text)
    with refused("bad-card", "nul.toml", "source", "is no path"):
        find_card("nul.toml")
