"""A card's words that hold for nothing are told at `prepare`, each by its place, and stay in the manifest."""

import json

import pytest
from click.testing import CliRunner

from bench.cli import cli
from bench.generators import demo

CARD = """
name = "mine"
title = "Mine"
source = "captures"
[captures]
include = ["**/*.pcap"]
group = '^(.*)-'
[labels]
kind = "pattern"
pattern = '^(?P<service>[^/]+)/'
[tasks.service]
label = "service"
where = { service = ["dns", "voip"] }
merge = { dns = "names" }
[attributes]
side = '([a-z])'
"""
FAULTS = [
    ('["**/*.pcap"]', '["**/*.pcap", "*.cap"]', "captures.include: '*.cap' names no capture"),
    ("'^(.*)-'", "'^(.*)@'", "captures.group: '^(.*)@' matches no capture, such as "),
    ("'([a-z])'", "'day([0-9])'", "attributes.side: 'day([0-9])' matches no capture, such as "),
    (
        '["dns", "voip"]',
        '["dns", "voip", "ftp"]',
        "tasks.service.where.service: nothing has 'ftp'; there are: 'dns', 'voip'",
    ),
    ('{ dns = "names" }', '{ dsn = "names" }', "tasks.service.merge: nothing has 'dsn'; there are: 'dns', 'voip'"),
    (
        '["dns", "voip"] }',
        '["dns", "voip"] }\nminimum_captures = 9',
        "task service has no session; its classes have too few",
    ),
    ("'^(?P<service>[^/]+)/'", "'^(?P<service>[^/]+)//'", "labels.pattern: '^(?P<service>[^/]+)//' matches no capture"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("idle")
    demo.write(folder / "captures", demo.UNSALTED, seed=5, sessions=6, captures=2, classes=2)
    for old, new in zip(sorted((folder / "captures").iterdir()), ("dns", "voip"), strict=True):
        old.rename(folder / "captures" / new)
    return folder


@pytest.fixture
def prepare(place, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(place / "home"))
    monkeypatch.chdir(place)

    def call(text):
        (place / "mine.toml").write_text(text)
        done = CliRunner().invoke(
            cli, ["prepare", "mine.toml", "--json"], standalone_mode=False, catch_exceptions=False
        )
        told = [line for line in done.stderr.splitlines() if "match nothing" in line]
        return told, json.loads(done.stdout).get("idle", []), json.loads(done.stdout)

    return call


def test_a_card_whose_words_hold_is_told_of_nothing(prepare):
    told, idle, _ = prepare(CARD)
    assert (told, idle) == ([], [])


@pytest.mark.parametrize(("old", "new", "line"), FAULTS)
def test_a_word_that_holds_for_nothing_is_a_loud_line(old, new, line, prepare):
    assert old in CARD
    told, idle, _ = prepare(CARD.replace(old, new))
    assert any(one.startswith(f"WARNING: mine: words of its card match nothing: {line}") for one in told), told
    assert any(one.startswith(line) for one in idle) and len(idle) == len(told)
    again, _, report = prepare(CARD.replace(old, new))  # nothing is done, and it is told all the same
    assert report["unchanged"] and again == told
