import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from refusals import refused
from small_captures import pcap, talk

import bench.ingest.capture
from bench.data.names import find_card
from bench.data.prepare import PrepareOptions, open_dataset, prepare_dataset
from bench.data.sources import _matches, source_folder
from bench.data.store import Store
from bench.ingest import IngestOptions

RULES = ("idle_timeout", "sessions", "client", "decap", "drop_copies", "filter", "by_vlan")
ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared captures, which are not in the project")


@pytest.fixture
def source(tmp_path):
    """Classes x (two captures, one nested) and y (one); 5-tuple 5001 is in a capture of each."""
    folder = tmp_path / "apps"
    for name, packets in {
        "x/1.pcap": talk(5000, b"abc") + talk(5001, b"de", 1001.0),
        "x/more/2.pcap": talk(5002, b"") + talk(5003, b"f"),
        "y/1.pcap": talk(5001, b"ghij", 2000.0),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(pcap(packets))
    return folder


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def made(source, home, **options):
    """Prepare; options of `PrepareOptions` and others by their names."""
    own = {name: options.pop(name) for name in ("switches", "strict", "jobs", "rebuild") if name in options}
    rules = {name: options.pop(name) for name in list(options) if name in RULES}
    asked = PrepareOptions(ingest=IngestOptions(**rules), **own)
    return prepare_dataset(find_card(source), options=asked, home=home, **options)


def content(path):
    return {p.name: p.read_bytes() for p in path.iterdir() if p.name != "sources.json"}


def test_a_folder_of_classes_becomes_a_store(source, home):
    done = made(source, home)
    store = Store.find("apps", home)
    assert (done.store_path, done.unchanged) == (store.path, False)
    assert store.classes("label") == ["x", "y"]
    assert [c.path for c in store.manifest.captures] == ["x/1.pcap", "x/more/2.pcap", "y/1.pcap"]
    assert store.session("client_port").tolist() == [5000, 5001, 5002, 5003, 5001]
    assert store.session("capture").tolist() == [0, 0, 1, 1, 2]
    assert store.session("first_packet").tolist() == [0, 2, 4, 6, 8]
    assert store.labels("label").tolist() == [0, 0, -1, 0, 1]  # one session has no payload
    conversation = store.session("conversation")
    assert conversation[1] == conversation[4]
    assert len(set(conversation.tolist())) == 4
    assert store.capture_group().tolist() == [0, 0, 1, 1, 2]
    assert done.report["captures"] == 3
    assert done.report["tasks"]["label"]["class_captures"] == [2, 1]
    assert (done.report["packets"], done.report["sessions"]) == (10, 5)


def test_payload_is_read_back_from_the_captures(source, home):
    made(source, home)
    store = Store.find("apps", home)
    found = []
    for session in range(5):
        data = store.capture_bytes(store.session("capture")[session])
        for row in range(store.session("first_packet")[session], store.session("first_packet")[session] + 2):
            at = sum(int(store.packet(name)[row]) for name in ("record", "ip", "payload"))
            found.append(data[at : at + store.packet("payload_length")[row]].tobytes())
    assert found == [b"abc", b"cba", b"de", b"ed", b"", b"", b"f", b"f", b"ghij", b"jihg"]


def test_the_same_captures_give_the_same_bytes(source, home, tmp_path):
    (source / "x" / "text.pcap").write_text("not a capture")
    one = made(source, home, jobs=1)
    shutil.copytree(source, tmp_path / "elsewhere" / "apps")
    two = made(tmp_path / "elsewhere" / "apps", tmp_path / "home2", jobs=4)
    assert content(one.store_path) == content(two.store_path)
    assert set(content(one.store_path)) == {"packets.arrow", "sessions.arrow", "manifest.json"}
    assert str(tmp_path) not in (one.store_path / "manifest.json").read_text()


def test_a_store_of_other_code_is_told_and_made_anew_on_demand(source, home, monkeypatch):
    first = made(source, home)
    assert not first.other_code and first.manifest.code
    before = content(first.store_path)
    for module in ("build", "prepare"):
        monkeypatch.setattr(f"bench.data.{module}.code_of_stores", lambda: "0123456789abcdef")
    again = made(source, home)
    assert again.unchanged and again.other_code and content(again.store_path) == before
    rebuilt = made(source, home, rebuild=True)
    assert not rebuilt.unchanged and rebuilt.manifest.code == "0123456789abcdef"
    assert Store.find("apps", home).digest == Store.open(first.store_path).digest  # the code is no part of it
    assert made(source, home).unchanged and not made(source, home).other_code


def test_the_command_line_tells_of_other_code(source, home, monkeypatch, command_line):
    monkeypatch.setenv("BENCH_HOME", str(home))
    made(source, home)
    for module in ("build", "prepare"):
        monkeypatch.setattr(f"bench.data.{module}.code_of_stores", lambda: "0123456789abcdef")
    for words in (("prepare", source), ("split", source)):
        status, _, err = command_line(*words)
        assert status == 0 and "made by other code" in err and f"bench prepare {source} --rebuild" in err
    assert "made by other code" not in command_line("prepare", source, "--rebuild")[2]
    assert "made by other code" not in command_line("split", source)[2]


def test_unchanged_input_is_not_read_again(source, home, monkeypatch):
    first = made(source, home)
    with monkeypatch.context() as patch:
        patch.setattr(bench.ingest.capture, "read_capture", None)
        again = made(source, home)
        assert again.unchanged
        assert again.report == first.report
        os.utime(source / "x" / "1.pcap")
        assert made(source, home).unchanged  # the content decides
    data = bytearray((source / "y" / "1.pcap").read_bytes())
    data[-1] ^= 1
    digest = Store.find("apps", home).digest
    (source / "y" / "1.pcap").write_bytes(data)  # the size stays
    second = made(source, home)
    assert not second.unchanged
    assert Store.open(second.store_path).digest != digest
    assert not made(source, home, idle_timeout=0.1).unchanged
    assert not made(source, home).unchanged
    (source / "y" / "2.pcap").write_bytes(pcap(talk(1, b"x")))
    assert not made(source, home).unchanged
    (source / "y" / "note.txt").write_text("no capture")
    assert not made(source, home).unchanged
    assert made(source, home).unchanged


def test_moved_captures_are_found_again_by_preparing(source, home):
    made(source, home)
    moved = source.parent / "moved" / "apps"
    moved.parent.mkdir()
    source.rename(moved)
    with refused("capture-changed"):
        Store.find("apps", home).capture_bytes(0)
    assert made(moved, home).unchanged
    assert Store.find("apps", home).capture_bytes(0).tobytes() == (moved / "x" / "1.pcap").read_bytes()


def test_a_failed_preparation_leaves_the_store_of_before(source, home, monkeypatch):
    before = content(made(source, home).store_path)

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(source, home, idle_timeout=1.0, progress=interrupt)
    assert content(home / "stores" / "apps") == before
    assert not list((home / "stores").glob(".*-*-*"))


def test_a_killed_preparation_leaves_nothing_that_is_taken_for_whole(source, home):
    code = (
        "import os, signal, sys; from pathlib import Path; from bench.data.prepare import open_dataset\n"
        "kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "open_dataset(sys.argv[1], home=Path(sys.argv[2]), progress=kill)"
    )
    done = subprocess.run([sys.executable, "-c", code, source, home], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list((home / "stores").glob(".*-*-*"))
    with refused("not-prepared"):
        Store.find("apps", home)
    assert not made(source, home).unchanged
    assert not list((home / "stores").glob(".*-*-*"))
    assert Store.find("apps", home).session("start").shape == (5,)


def test_a_file_that_cannot_be_opened_is_looked_at_again_when_it_can(source, home):
    link, there = source / "x" / "link.pcap", source.parent / "there.pcap"
    link.symlink_to(there)
    assert [one["path"] for one in made(source, home).report["unreadable"]] == ["x/link.pcap"]
    assert made(source, home).unchanged
    there.write_bytes(pcap(talk(6000, b"1")))
    assert not made(source, home).unchanged


def test_bad_files_are_reported_and_do_not_stop_the_rest(source, home):
    (source / "x" / "text.pcap").write_text("not a capture")
    (source / "x" / "empty.pcap").write_bytes(b"")
    (source / "x" / "notes.txt").write_text("hello")
    whole = pcap(talk(6000, b"1") + talk(6001, b"2"))
    (source / "y" / "cut.pcap").write_bytes(whole[:-3])
    (source / "y" / "odd-suffix.dat").write_bytes(whole)
    (source / "y" / "copy.pcapng").write_bytes(whole)
    report = made(source, home).report
    assert [entry["path"] for entry in report["unreadable"]] == ["x/empty.pcap", "x/text.pcap"]
    assert report["ignored"] == {".txt": 1}
    assert report["copies"] == [["y/copy.pcapng", "y/odd-suffix.dat"]]
    groups = {capture.path: capture.group for capture in Store.find("apps", home).manifest.captures}
    assert groups["y/copy.pcapng"] == groups["y/odd-suffix.dat"]
    [damaged] = report["damaged"]
    assert damaged["path"] == "y/cut.pcap"
    assert damaged["damage"][0]["bytes_lost"] > 0
    assert report["captures"] == 6
    assert made(source, home).unchanged


def test_nothing_usable_is_an_input_error(source, home, tmp_path):
    for path in source.rglob("*.pcap"):
        path.write_text("no capture")
    with refused("no-capture", "1.pcap", "check what is there"):
        made(source, home)
    for path in source.rglob("*.pcap"):
        path.write_bytes(pcap([(1.0, bytes(60))]))
    with refused("no-packets", "apps"):
        made(source, home)
    with refused("no-capture", "none of ", "is captures/**/*", "give the folder that its card means"):
        prepare_dataset(find_card("iot-sentinel"), source=source, home=home)
    with refused("missing-source"):
        prepare_dataset(find_card("iot-sentinel"), home=home)
    with refused("missing-source"):
        prepare_dataset(find_card("iot-sentinel"), tmp_path / "none", home=home)
    with refused("bad-options"):
        prepare_dataset(find_card("demo"), tmp_path, home=home)
    with refused("missing-file", "labels.csv", "ndpi-services"):
        prepare_dataset(find_card("ndpi-services"), source, home=home)
    assert not list((home / "stores").glob("[!.]*"))


def test_compressed_captures_are_unpacked_beside_the_store(source, home):
    plain = (source / "x" / "1.pcap").read_bytes()
    for folder in ("x", "y"):  # two of the same name
        data = (source / folder / "1.pcap").read_bytes()
        (source / folder / "1.pcap.gz").write_bytes(gzip.compress(data))
        (source / folder / "1.pcap").unlink()
    made(source, home)
    store = Store.find("apps", home)
    assert store.session("client_port").tolist() == [5000, 5001, 5002, 5003, 5001]
    assert store.capture_bytes(0).tobytes() == plain
    assert store.capture_path(0).is_relative_to(home / "unpacked")
    assert made(source, home).unchanged
    store.capture_path(0).unlink()
    with refused("capture-changed"):
        Store.find("apps", home).capture_bytes(0)
    assert not made(source, home).unchanged
    shutil.rmtree(source / "y")
    made(source, home)
    assert len(list((home / "unpacked" / "apps").iterdir())) == 1


def test_progress_ends_at_the_whole(source, home):
    calls = []
    made(source, home, progress=lambda *values: calls.append(values))
    size = sum(p.stat().st_size for p in source.rglob("*.pcap"))
    assert [call[2:4] for call in calls] == [(1, 3), (2, 3), (3, 3)]
    assert calls[-1] == (size, size, 3, 3, 10)


def test_open_dataset_prepares_what_it_can(source, home, tmp_path):
    made(source, home, idle_timeout=0.1)
    assert open_dataset(str(source), home=home).manifest.options.to_dict() == {
        "idle_timeout": 0.1
    }  # the user's choice stays
    (source / "y" / "2.pcap").write_bytes(pcap(talk(1, b"x")))
    assert len(open_dataset(str(source), home=home).manifest.captures) == 4
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\ntitle = "M"\n[tasks.label]\n')
    with refused("not-prepared"):
        open_dataset(str(path), home=home)
    prepare_dataset(find_card(str(path)), source, home=home)
    assert open_dataset(str(path), home=home).name == "mine"
    path.write_text('name = "mine"\ntitle = "M"\n[tasks.label]\npayload = false\n')
    with refused("card-changed", f"bench prepare {path} --source {source}"):
        open_dataset(str(path), home=home)


# --- labels from a file


# --- the real sets


#: where the labels of the two shared sets stand, session by session: tasks and cards are those that are shipped
BY_SESSION = """[labels]
kind = "sessions"
file = "labels.csv"
protocol = "l4"
start = "first_ts"
check = { packets = "packets", payload_packets = "payload_packets", payload_bytes = "payload_bytes" }
"""


@needs_shared
def test_iot_sentinel_agrees_with_labels_that_others_made(home, tmp_path):
    """The card reads the device off the path and TLS off the payload; labels.csv says it session by session."""
    report = prepare_dataset(find_card("iot-sentinel"), SHARED / "iot_sentinel", home=home).report
    assert report["unexpected"] == []
    assert (report["captures"], report["sessions"]) == (550, 15_074)
    store = Store.find("iot-sentinel", home)
    assert (store.labels("tls") >= 0).sum() == 1413
    assert len(store.classes("tls")) == 12
    assert "WeMoSwitch2" not in json.dumps(store.manifest.to_dict()["tasks"])
    text = (ROOT / "datasets" / "iot-sentinel.toml").read_text().replace('name = "iot', 'name = "labelled-iot')
    text = re.sub(r"\[download_list\].*?(?=\[captures\])", "", text, flags=re.S)
    text = re.sub(r"\[labels\].*?(?=\[attributes\])", BY_SESSION, text, flags=re.S)
    (tmp_path / "labelled-iot-sentinel.toml").write_text(text)
    card = find_card(tmp_path / "labelled-iot-sentinel.toml")
    told = prepare_dataset(card, SHARED / "iot_sentinel", home=home).report["labels"]
    assert told["compared"] == told["rows"] == 14_081 and told["unmatched"]["count"] == 0
    assert {d["count"] for d in told["differences"].values()} == {0}
    other = Store.find("labelled-iot-sentinel", home)
    for task in ("tls", "all"):
        assert store.classes(task) == other.classes(task)
        np.testing.assert_array_equal(store.labels(task), other.labels(task))


@needs_shared
def test_ustc_sessions_agree_with_their_labels(home):
    report = prepare_dataset(find_card("ustc-sessions"), SHARED / "ustc_tfc2016" / "sessions784", home=home).report
    assert report["unexpected"] == []
    assert (report["captures"], report["sessions"]) == (20, 14_480)
    assert report["tasks"]["paper"]["class_captures"] == [1] * 20


def test_a_damaged_store_is_made_anew(source, home):
    path = made(source, home).store_path
    whole = content(path)
    for name in ("packets.arrow", "sessions.arrow", "sources.json"):
        (path / name).write_bytes((path / name).read_bytes()[:50])
        assert not made(source, home).unchanged
        assert content(path) == whole
        assert made(source, home).unchanged


def test_a_full_disk_ends_the_preparation(source, home, monkeypatch):
    def full(path, *given, **options):
        raise OSError(28, "No space left on device", "work")

    monkeypatch.setattr(bench.ingest.capture, "read_capture", full)
    with refused("unwritable-file", "No space", home / "stores" / "apps", "make room"):
        made(source, home)
    assert not (home / "stores" / "apps").exists() and not list((home / "stores").glob(".*-*"))
    monkeypatch.undo()
    assert not made(source, home).unchanged


def test_a_source_is_kept_without_points_but_with_its_links(source, tmp_path):
    card = replace(find_card(source), source="")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er")
    (tmp_path / "deep" / "apps").symlink_to(source)
    for given, kept in {
        source: source,
        tmp_path / "deep" / ".." / "apps": source,
        tmp_path / "link" / ".." / "apps": tmp_path / "deep" / "apps",  # as the system goes, not as the text reads
        tmp_path / "deep" / "apps": tmp_path / "deep" / "apps",
        tmp_path / "deep" / "apps" / "x" / "..": source,
    }.items():
        assert source_folder(card, given, tmp_path) == kept
    (tmp_path / "loop").symlink_to("loop")
    with refused("missing-source"):
        source_folder(card, tmp_path / "loop" / ".." / "x", tmp_path)


def test_links_that_lead_back_are_not_followed_and_others_are(source, home, tmp_path):
    (source / "x" / "self").symlink_to(source / "x")
    (source / "x" / "up").symlink_to(source)
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "3.pcap").write_bytes(pcap(talk(5009, b"k")))
    (source / "y" / "far").symlink_to(tmp_path / "far")
    (source / "y" / ".hidden.pcap").write_bytes(pcap(talk(5010, b"k")))
    report = made(source, home).report
    assert report["captures"] == 4
    assert report["ignored"] == {"hidden": 1}


def test_two_folders_of_one_name_do_not_share_a_store(source, home, tmp_path):
    made(source, home)
    other = tmp_path / "elsewhere" / "apps"
    shutil.copytree(source, other)
    with refused("same-name"):
        made(other, home)
    shutil.move(source, tmp_path / "gone")  # a folder that moved is the same folder
    assert made(other, home).store_path.is_dir()


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("**/*", "a/b/c.pcap", True),
        ("captures/**/*", "captures/x.pcap", True),
        ("*.pcap", "a/x.pcap", False),
        ("*/*.pcap", "a/x.pcap", True),
        ("a/[xy].pcap", "a/y.pcap", True),
        ("a/**/z/*", "a/z/1", True),
    ],
)
def test_globs(pattern, path, matches):
    assert _matches(path.split("/"), pattern.split("/")) is matches
