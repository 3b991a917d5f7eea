"""A bundle as RO-Crate: what it says of its files and runs, and what the validator says of it."""

import json
import zipfile
from pathlib import Path

import pytest
from refusals import refused
from stored_runs import indexed, members_of, write_members

from bench.tracking.bundle import CRATE, INDEX, checked_runs, import_bundle, opened, write_bundle
from bench.tracking.selection import stored_runs

OF_BEFORE = Path(__file__).parent / "kept" / "bundle-1.zip"


@pytest.fixture
def graph(bundle):
    return {one["@id"]: one for one in json.loads(members_of(bundle)[CRATE])["@graph"]}


def test_all_files_are_described_with_their_checksums(bundle, graph):
    members = json.loads(members_of(bundle)[INDEX])["members"]
    files = {name: one for name, one in graph.items() if one["@type"] == "File" and name != INDEX}
    assert files.keys() == members.keys() - {CRATE}
    assert all(one["sha256"] == members[name]["sha256"] for name, one in files.items())
    assert all(int(one["contentSize"]) == members[name]["bytes"] for name, one in files.items())
    reached = {part["@id"] for home in graph["./"]["hasPart"] for part in graph[home["@id"]].get("hasPart", ())}
    assert reached == files.keys()


def test_every_run_says_how_it_was_made_and_nobody_is_named(filled, graph):
    runs = stored_runs(filled)
    made = [one for one in graph.values() if one["@type"] == "CreateAction"]
    assert {one["result"]["@id"] for one in made} == {f"runs/{one.uid}/" for one in runs}
    assert sum("Failed" in one["actionStatus"]["@id"] for one in made) == 1
    assert all(graph[one["instrument"]["@id"]]["name"] == "etc-bench" for one in made)
    assert all(graph[one["object"]["@id"]]["identifier"] == runs[0].record.spec.store for one in made)
    last = max(one["endTime"] for one in made)
    assert graph["./"]["datePublished"] == last[:10] and "author" not in graph["./"]
    assert graph[graph["./"]["license"]["@id"]]["name"] == "not stated"


def test_a_licence_is_the_one_that_is_given(place, filled, command_line):
    words = ("results", "export", "--results", filled.results, "--licence")
    file = place.file()
    assert command_line(*words, "CC-BY-4.0", file)[0] == 0
    root = next(one for one in json.loads(members_of(file)[CRATE])["@graph"] if one["@id"] == "./")
    assert root["license"]["@id"] == "https://spdx.org/licenses/CC-BY-4.0" and len(checked_runs(file)) == 7
    status, _, err = command_line(*words, "all rights", place.file())
    assert status == 2 and "SPDX" in err


def test_a_bundle_of_before_has_none_and_is_read(place, bundle):
    with opened(OF_BEFORE) as old:
        assert old.index.format == 1 and CRATE not in old.index.members
    members = {name: content for name, content in members_of(bundle).items() if name != CRATE}
    old = json.loads(indexed(members)[INDEX]) | {"format": 1}
    file = write_members(place.file(), indexed(members) | {INDEX: json.dumps(old).encode()})
    assert len(import_bundle(place.tracker(), file).imported) == 7


@pytest.mark.parametrize("change", ["of before", "another", "none"])
def test_a_description_that_is_not_the_bundle_s_is_refused(change, place, bundle):
    members = members_of(bundle)
    if change == "of before":
        members[INDEX] = members[INDEX].replace(b'"format": 2', b'"format": 1')
    elif change == "another":
        members[CRATE] = members[CRATE].replace(b"Runs of", b"Ruin of")
    else:
        members = indexed({name: content for name, content in members.items() if name != CRATE})
    with refused("bad-bundle"):
        checked_runs(write_members(place.file(), members))


#: of the 1.1 context what a bundle uses; the context itself is 160 kB on another machine
VOCABULARY = {"@vocab": "http://schema.org/", "File": "http://schema.org/MediaObject",
              "conformsTo": "http://purl.org/dc/terms/conformsTo"}  # fmt: skip


@pytest.mark.parametrize("licence", ["", "CC-BY-4.0"])
def test_the_validator_of_ro_crates_takes_it(licence, place, filled, tmp_path, monkeypatch):
    """All that the profile requires, on the unpacked files; only whether the context can be fetched is not asked."""
    services = pytest.importorskip(
        "rocrate_validator.services", reason="roc-validator is not installed: it takes no rich as new as the gate's"
    )
    models, loader = (pytest.importorskip(f"rocrate_validator.{name}") for name in ("models", "utils.document_loader"))
    monkeypatch.setattr(loader, "_fetch_json_ld", lambda url: {"@context": VOCABULARY})
    write_bundle(filled, stored_runs(filled), file := place.file(), licence=licence)
    with zipfile.ZipFile(file) as source:
        source.extractall(tmp_path / "crate")

    def issues():
        asked = {"profile_identifier": "ro-crate-1.1", "requirement_severity": models.Severity.REQUIRED}
        found = services.validate(services.ValidationSettings(rocrate_uri=tmp_path / "crate", **asked)).get_issues()
        return [one.message for one in found if "ro/crate/1.1/context" not in one.message]

    assert issues() == []
    told = tmp_path / "crate" / CRATE
    told.write_text(told.read_text().replace("datePublished", "datePublicized"))
    assert any("datePublished" in message for message in issues())  # it does look
