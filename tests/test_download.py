"""Downloads from a server on the loopback address: whole, broken off, wrong, not there."""

import dataclasses
import json
from pathlib import Path

import pytest
from archives import zipped
from loopback import DATA, card_of, left_over, sha256
from refusals import refused

from bench.data.download import CHUNK, fetch
from bench.data.names import find_card
from bench.generators import demo


def whole(server):
    return card_of(server, {"data.bin": (DATA, "a/data.pcap", "")})


def test_a_whole_download_is_fetched_once(server, tmp_path):
    told = []
    card = whole(server)
    folder = fetch(card, home=tmp_path, progress=lambda *now: told.append(now))
    assert folder == tmp_path / "downloads" / "mine"
    assert (folder / "a" / "data.pcap").read_bytes() == DATA
    assert told[-1] == ("a/data.pcap", 1, 1, len(DATA), len(DATA))
    assert len(told) >= 4
    assert left_over(tmp_path) == []
    fetch(card, home=tmp_path)
    assert server.asked == [("data.bin", None)]

    (folder / "a" / "data.pcap").write_bytes(DATA[:-1])  # no longer what it was
    fetch(card, home=tmp_path)
    assert (folder / "a" / "data.pcap").read_bytes() == DATA
    assert len(server.asked) == 2


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    card = whole(server)
    server.files["data.bin"] = DATA[:-1] + b"?"
    with refused("wrong-checksum", "data.bin", sha256(server.files["data.bin"])):
        fetch(card, home=tmp_path)
    assert left_over(tmp_path) == []
    assert list((tmp_path / "downloads" / "mine").rglob("*.pcap")) == []


def broken_off(server, card, home, after):
    """A download that ends some bytes later than that, which do not fill another chunk."""
    server.break_after = after + 17
    with refused("download-failed", "data.bin", f"{after} bytes"):
        fetch(card, home=home)
    assert left_over(home) == [f"{card.downloads[0].sha256}.part"]
    assert list((home / "downloads" / "mine").rglob("*.pcap")) == []


def test_a_download_that_broke_off_goes_on(server, tmp_path):
    card = whole(server)
    broken_off(server, card, tmp_path, after=2 * CHUNK)
    told = []
    folder = fetch(card, home=tmp_path, progress=lambda *now: told.append(now[-2:]))
    assert (folder / "a" / "data.pcap").read_bytes() == DATA
    assert server.asked == [("data.bin", None), ("data.bin", f"bytes={2 * CHUNK}-")]
    assert server.sent == len(DATA) + 17  # no chunk twice
    assert told[-1] == (len(DATA), len(DATA))
    assert min(done for done, _ in told) > 2 * CHUNK
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("way", ["no ranges", "another range"])
def test_a_server_that_cannot_go_on_starts_again(server, tmp_path, way):
    server.ranges = way != "no ranges"
    card = whole(server)
    broken_off(server, card, tmp_path, after=CHUNK)
    server.wrong_range = way == "another range"
    folder = fetch(card, home=tmp_path)
    assert (folder / "a" / "data.pcap").read_bytes() == DATA
    assert server.asked[1] == ("data.bin", f"bytes={CHUNK}-")
    assert len(server.asked) == (2 if way == "no ranges" else 3)


@pytest.mark.parametrize("more", [b"", b"x"], ids=["whole", "too long"])
def test_a_part_that_is_whole_or_longer(server, tmp_path, more):
    """Killed while it was verified; or not a part of this file at all."""
    card = whole(server)
    work = tmp_path / "downloads" / ".mine"
    work.mkdir(parents=True)
    (work / f"{card.downloads[0].sha256}.part").write_bytes(DATA + more)
    (work / "tmpkilled").write_bytes(b"pooch's")
    folder = fetch(card, home=tmp_path)
    assert (folder / "a" / "data.pcap").read_bytes() == DATA
    assert server.sent == (len(DATA) if more else 0)
    assert left_over(tmp_path) == []


def test_a_part_of_another_file_is_not_gone_on_with(server, tmp_path):
    broken_off(server, whole(server), tmp_path, after=CHUNK)
    other = DATA[::-1]
    folder = fetch(card_of(server, {"data.bin": (other, "a/data.pcap", "")}), home=tmp_path)
    assert (folder / "a" / "data.pcap").read_bytes() == other
    assert server.asked[1] == ("data.bin", None)


def test_a_file_that_is_not_there(server, tmp_path):
    card = whole(server)
    del server.files["data.bin"]
    with refused("download-failed", "data.bin", "404 Not Found"):
        fetch(card, home=tmp_path)
    assert left_over(tmp_path) == []


def test_no_server(server, tmp_path):
    card = whole(server)
    server.shutdown()
    server.server_close()
    with refused("download-failed", "data.bin", "Connection refused"):
        fetch(card, home=tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk(server, tmp_path):
    card = whole(server)
    work = tmp_path / "downloads" / ".mine"
    work.mkdir(parents=True)
    (work / f"{card.downloads[0].sha256}.part").symlink_to("/dev/full")
    with refused("unwritable-file", "downloads/mine", "No space left"):
        fetch(card, home=tmp_path)
    assert list((tmp_path / "downloads" / "mine").rglob("*.pcap")) == []


def test_a_file_that_no_download_put_there_is_refused(server, tmp_path):
    folder = fetch(whole(server), home=tmp_path)
    (folder / ".DS_Store").write_bytes(b"")
    fetch(whole(server), home=tmp_path)
    (folder / "old.pcap").write_bytes(b"")
    with refused("foreign-file", "old.pcap"):
        fetch(whole(server), home=tmp_path)


# --- cards ---

GOOD = f"""
name = "mine"
title = "Mine"
licence = "CC0"
home = "https://example.org/data"
[tasks.label]
[[downloads]]
url = "https://example.org/a.zip"
sha256 = "{"0" * 64}"
path = "a"
unpack = "zip"
[[downloads]]
url = "https://example.org/b.csv"
sha256 = "{"1" * 64}"
path = "b/labels.csv"
"""


def card_file(folder, text):
    (folder / "mine.toml").write_text(text)
    return str(folder / "mine.toml")


def test_downloads_do_not_decide_what_a_store_holds(tmp_path):
    card = find_card(card_file(tmp_path, GOOD))
    assert [(one.path, one.unpack) for one in card.downloads] == [("a", "zip"), ("b/labels.csv", "")]
    assert dataclasses.replace(card, downloads=()).digest == card.digest


@pytest.mark.parametrize(
    ("old", "new", "place", "reason"),
    [
        ("https://example.org/a.zip", "ftp://example.org/a.zip", "downloads[0].url", "http"),
        ("0" * 64, "0" * 63, "downloads[0].sha256", "64"),
        ('path = "a"', 'path = "../a"', "downloads[0].path", ""),
        ('path = "a"', 'path = "/a"', "downloads[0].path", ""),
        ('"zip"', '"7z"', "downloads[0].unpack", "zip, tar"),
        ('"b/labels.csv"', '"A/labels.csv"', "downloads", ": a"),
        ('licence = "CC0"', "", "licence", ""),
        ('licence = "CC0"', 'licence = "CC0"\nsource = "x"', "downloads", "source"),
    ],
)
def test_a_wrong_download_is_refused(tmp_path, old, new, place, reason):
    with refused("bad-card", place, reason):
        find_card(card_file(tmp_path, GOOD.replace(old, new)))


# --- the command line ---


@pytest.fixture
def bench(tmp_path, monkeypatch, command_line):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    return command_line


def test_prepare_from_downloads_by_the_command_line(server, bench, tmp_path):
    demo.write(tmp_path / "made", sessions=3, captures=1, classes=2)
    one, two = sorted((tmp_path / "made").rglob("*.pcap"))
    server.files = {"one.pcap": one.read_bytes(), "two.zip": zipped(*{two.name: two.read_bytes()}.items())}
    text = "".join(
        f'[[downloads]]\nurl = "{server.url(name)}"\nsha256 = "{sha256(server.files[name])}"\n{rest}\n'
        for name, rest in [("one.pcap", 'path = "first/1.pcap"'), ("two.zip", 'path = "second"\nunpack = "zip"')]
    )
    head = 'name = "mine"\ntitle = "Mine"\nlicence = "CC0"\nhome = "https://example.org"\n[tasks.label]\n'
    card = card_file(tmp_path, head + text)

    status, _, err = bench("prepare", card)
    assert status == 2 and "--source DIR, or --download" in err

    server.break_after = 200
    status, out, err = bench("prepare", card, "--download")
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"bench: {server.url('one.pcap')}: the connection failed")
    assert not (tmp_path / "home" / "stores" / "mine").exists()

    status, out, err = bench("prepare", card, "--download", "--json", "--strict")
    report = json.loads(out)
    assert status == 0
    assert report["captures"] == 2 and report["ignored"] == {}
    assert report["tasks"]["label"]["classes"] == ["first", "second"]
    size = one.stat().st_size
    assert f"[1/2] first/1.pcap: {size / 1e6:.1f}/{size / 1e6:.1f} MB" in err and "[2/2] second: " in err
    assert "INFO" not in err and "Downloading" not in err  # pooch's own words

    asked = len(server.asked)
    status, out, _ = bench("prepare", card, "--download", "--json")
    assert status == 0 and json.loads(out)["unchanged"]
    assert len(server.asked) == asked


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["iscx-vpn"], "iscx-vpn: its card has no downloads; ask for the captures at https://"),
        (["demo"], "demo: its card has no downloads; leave out --download"),
        (["iot-sentinel", "--source", "."], "--download and --source exclude each other"),
    ],
)
def test_what_download_cannot_do_is_one_line(bench, words, said):
    status, out, err = bench("prepare", *words, "--download")
    assert (status, out) == (2, "")
    assert err.startswith(f"bench: {said}") and err.count("\n") == 1
