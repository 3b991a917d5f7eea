"""Data sets as others' programs read them."""

import json

import pytest
from tiny_store import tiny_home

from bench.data.card_tables import Task
from bench.data.cards import Card, card_names
from bench.data.manifest import ColumnFile
from bench.data.names import find_card
from bench.data.store import Store
from bench.report.croissant import croissant
from bench.schema import PACKET_COLUMNS, SESSION_COLUMNS


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A card, and a store that knows the checksums of its files, as every one does that `bench prepare` makes."""
    with tiny_home(tmp_path_factory, "croissant"):
        store = Store.find("tiny")
        store.manifest.columns.update({f"{name}.arrow": ColumnFile(9, "0" * 64) for name in ("sessions", "packets")})
        yield croissant(Card("tiny", "Tiny", {"kind": Task("label")}), store.manifest, store.digest)


def accepted(content, folder):
    """That Croissant's own reader finds no error."""
    reader = pytest.importorskip("mlcroissant")
    (folder / "one.json").write_text(json.dumps(content))
    return reader.Dataset(jsonld=folder / "one.json").metadata


@pytest.mark.parametrize("name", card_names())
def test_every_card_has_what_it_says(name, tmp_path):
    card = find_card(name)
    made = croissant(card)
    assert made["name"] == name and made["description"].startswith(card.title)
    assert [one["contentUrl"] for one in made.get("distribution", ())] == [one.url for one in card.downloads]
    assert made.get("license", "") == card.licence and "recordSet" not in made


@pytest.mark.parametrize("name", card_names())
def test_croissants_own_reader_takes_every_card(name, tmp_path):
    assert accepted(croissant(find_card(name)), tmp_path).name == name


def test_a_store_has_its_files_columns_and_classes(prepared):
    sets = {one["name"]: one for one in prepared["recordSet"]}
    columns = [one["source"]["extract"]["column"] for one in sets["sessions"]["field"]]
    assert columns == [*SESSION_COLUMNS, "task:kind"] and len(sets["packets"]["field"]) == len(PACKET_COLUMNS)
    assert [one["classes-kind/class"] for one in sets["classes-kind"]["data"]] == ["chat", "mail", "web"]
    assert {one["name"]: one["sha256"] for one in prepared["distribution"]}["sessions.arrow"] == "0" * 64


def test_croissants_own_reader_takes_a_store(prepared, tmp_path):
    assert [one.uuid for one in accepted(prepared, tmp_path).record_sets] == ["sessions", "packets", "classes-kind"]


def test_the_command_prints_it_and_needs_a_name(prepared, command_line):
    status, out, _ = command_line("datasets", "demo", "--croissant")
    assert status == 0 and json.loads(out)["@type"] == "sc:Dataset"
    status, _, err = command_line("datasets", "--croissant")
    assert status == 2 and len(err.splitlines()) == 1 and "--croissant" in err
