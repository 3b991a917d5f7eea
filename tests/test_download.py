"""Downloads from a server on the loopback address: whole, broken off, wrong, not there."""

import dataclasses
import hashlib
import io
import json
import stat
import struct
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from refusals import refused

from bench.data import demo, download
from bench.data.cards import Card, Download, Task, find_card
from bench.data.download import CHUNK, fetch

DATA = np.random.default_rng(0).bytes(3 * CHUNK + 1000)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves ``files``; counts what it sends; may know no Range, or break off."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {}
        self.ranges = True
        self.break_after = None  # bytes of the next body, once
        self.wrong_range = False
        self.asked = []  # path and Range of each request
        self.sent = 0

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server, name, asked = self.server, self.path[1:], self.headers["Range"]
        server.asked.append((name, asked))
        if name not in server.files:
            return self.send_error(404)
        data, start = server.files[name], 0
        if asked and server.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            begin = start + server.wrong_range
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        body = data[start:][: server.break_after]
        server.break_after = None
        server.sent += len(body)  # before the client can have it and look
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def card_of(server, files, **changed):
    """A card whose downloads are these files of the server: name -> (data, path, unpack)."""
    server.files |= {name: data for name, (data, _, _) in files.items()}
    downloads = tuple(Download(server.url(n), sha256(d), path, unpack) for n, (d, path, unpack) in files.items())
    home = "https://example.org/data"
    card = Card("mine", "Mine", {"label": Task()}, licence="CC0", home=home, downloads=downloads)
    return dataclasses.replace(card, **changed)


def whole(server):
    return card_of(server, {"data.bin": (DATA, "a/data.pcap", "")})


def left_over(home):
    """Everything below the hidden folder but its lock."""
    return sorted(path.name for path in (home / "downloads" / ".mine").iterdir() if path.name != "lock")


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


def zipped(files):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return target.getvalue()


def tarred(files, mode="w:xz"):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


@pytest.mark.parametrize(("pack", "unpack"), [(zipped, "zip"), (tarred, "tar")])
def test_archives_are_unpacked_once_and_again_where_a_file_is_gone(server, tmp_path, pack, unpack):
    files = {"x/1.pcap": DATA[:100], "2.pcap": DATA[:50]}
    card = card_of(server, {"data": (pack(files), "part one", unpack)})
    place = fetch(card, home=tmp_path) / "part one"
    assert {p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*.pcap")} == files
    assert [name[64:] for name in left_over(tmp_path)] == [".json"]  # what is in it; the archive is gone
    fetch(card, home=tmp_path)
    assert len(server.asked) == 1
    (place / "2.pcap").unlink()
    fetch(card, home=tmp_path)
    assert (place / "2.pcap").read_bytes() == files["2.pcap"]

    newer = card_of(server, {"data": (pack({"3.pcap": b"3"}), "part one", unpack)})
    fetch(newer, home=tmp_path)
    assert [path.name for path in place.iterdir()] == ["3.pcap"]
    assert len(server.asked) == 3


def deflate64(files):
    """A zip file that says of its first member that it has compression method 9."""
    data = bytearray(zipped(files))
    central = data.index(b"PK\1\2")
    struct.pack_into("<H", data, 8, 9)
    struct.pack_into("<H", data, central + 10, 9)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "unpack"),
    [
        (b"not an archive", "zip"),
        (b"not an archive", "tar"),
        (deflate64({"a": b"a"}), "zip"),
        (tarred({"a": DATA[:5000]})[:-2000], "tar"),
        (zipped({"a": b"", "a/b": b""}), "zip"),
        (tarred({"a": b"", "a/b": b""}), "tar"),
        (tarred({"a": b"", ".": b""}), "tar"),
        (tarred({"é\0b": b""}), "tar"),
    ],
    ids=["no zip", "no tar", "Deflate64", "cut", "zip of a file in a file", "tar of a file in a file", "dot", "NUL"],
)
def test_an_archive_that_cannot_be_unpacked(server, tmp_path, data, unpack):
    refuses(server, tmp_path, data, unpack)


def refuses(server, place, data, unpack, *named):
    """An archive is refused in one line, is kept for the hand, and nothing of it lies anywhere."""
    card = card_of(server, {"data": (data, "part", unpack)})
    before = {path for path in place.parent.rglob("*") if place not in (path, *path.parents)}
    with refused("bad-archive", f"as {unpack}", *named, "unpack it by hand"):
        fetch(card, home=place)
    assert left_over(place) == [sha256(data)]
    assert list((place / "downloads" / "mine").iterdir()) == []
    assert [path.name for path in place.iterdir()] == ["downloads"]
    assert {path.name for path in (place / "downloads").iterdir()} <= {"mine", ".mine", "..mine.lock"}
    assert {path for path in place.parent.rglob("*") if place not in (path, *path.parents)} == before


def member(name, kind=tarfile.REGTYPE, size=0, **more):
    """A tar member of any kind, as a header says it."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    for key, value in more.items():
        setattr(info, key, value)
    return info


def tar_of(*members, mode="w:xz", content=b""):
    """A tar file of these members, whatever they are; the content follows each one's header."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as archive:
        for info in members:
            archive.addfile(info, io.BytesIO(content) if content else None)
    return target.getvalue()


@pytest.fixture(params=["with data_filter", "without data_filter"])
def any_python(request, monkeypatch):
    """Debian 12's Python 3.11.2 has no filter of tar members."""
    if request.param == "without data_filter":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
        monkeypatch.delattr(tarfile.TarFile, "extraction_filter", raising=False)


OUTSIDE = ["../../../X", "a/../../X", "{tmp}/X", "a/../b", ".."]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_no_member_of_a_tar_file_leaves_its_folder(server, tmp_path, any_python, name, mode):
    name = name.format(tmp=tmp_path)
    data = tarred({"good.pcap": b"good", name: b"bad"}, mode)
    refuses(server, tmp_path / "1" / "2" / "home", data, "tar", repr(name))
    assert not (tmp_path / "X").exists()


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_member_of_a_zip_file_leaves_its_folder(server, tmp_path, name):
    """`zipfile` would silently take it for another name inside."""
    name = name.format(tmp=tmp_path)
    data = zipped({"good.pcap": b"good", name: b"bad"})
    refuses(server, tmp_path / "1" / "2" / "home", data, "zip", repr(name))
    assert not (tmp_path / "X").exists()


@pytest.mark.parametrize(
    "info",
    [
        member("link", tarfile.SYMTYPE, linkname="../../.."),
        member("link", tarfile.SYMTYPE, linkname="good.pcap"),
        member("link", tarfile.LNKTYPE, linkname="/etc/passwd"),
        member("link", tarfile.FIFOTYPE),
        member("link", tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("link", tarfile.BLKTYPE, devmajor=1, devminor=3),
        member("link", b"V"),
    ],
    ids=["link outside", "link inside", "hard link", "fifo", "character device", "block device", "volume"],
)
def test_no_link_or_device_is_made(server, tmp_path, any_python, info):
    refuses(server, tmp_path / "home", tar_of(member("good.pcap"), info), "tar", "'link' is no plain file or folder")


def test_no_link_of_a_zip_file_is_taken_for_a_capture(server, tmp_path):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "../../..")
    refuses(server, tmp_path / "home", target.getvalue(), "zip", "'link' is no plain file or folder")


def test_a_sparse_file_is_left_to_the_hand(server, tmp_path):
    headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "1000000000000"}
    data = tar_of(member("hole", size=1, pax_headers=headers), content=b"x")
    refuses(server, tmp_path / "home", data, "tar", "'hole'")


@pytest.mark.parametrize("unpack", ["zip", "tar"])
@pytest.mark.parametrize("mode", ["one large", "many empty"])
def test_an_archive_unpacks_to_so_much_and_no_more(server, tmp_path, monkeypatch, unpack, mode):
    pack = {"zip": zipped, "tar": tarred}[unpack]
    files = {"a": bytes(1 << 20)} if mode == "one large" else {str(number): b"" for number in range(300)}
    data = pack(files)
    monkeypatch.setattr(download, "MOST_TIMES", 1)
    monkeypatch.setattr(download, "MOST_BYTES", (1 << 20) - 1)
    refuses(server, tmp_path / "home", data, unpack, f"more than {(1 << 20) - 1} bytes")
    monkeypatch.setattr(download, "MOST_TIMES", (1 << 21) // len(data) + 1)
    place = fetch(card_of(server, {"data": (data, "part", unpack)}), home=tmp_path / "home") / "part"
    assert {path.name: path.read_bytes() for path in place.iterdir()} == files


def test_a_tar_file_is_not_decompressed_beyond_the_bound(server, tmp_path, monkeypatch):
    """What is no member's content counts, too: here headers of the next member, one after the other."""
    monkeypatch.setattr(download, "MOST_TIMES", 1)
    monkeypatch.setattr(download, "MOST_BYTES", 1 << 20)
    headers = {f"note{number}": "x" * 50_000 for number in range(10)}
    data = tar_of(*(member(str(number), pax_headers=headers) for number in range(3)))
    refuses(server, tmp_path / "home", data, "tar", f"more than {1 << 20} bytes")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME], ids=["pax", "GNU"])
@pytest.mark.parametrize("size", [1 << 40, 1 << 20, -512])
def test_a_header_of_a_tar_file_is_not_read_whatever_its_size(server, tmp_path, kind, size):
    """One below nothing some Pythons refuse by themselves; others would read all that there is."""
    header = member("long", kind, size).tobuf(tarfile.GNU_FORMAT)
    said = "a header of more than 1048576 bytes" if size > 0 else ""
    refuses(server, tmp_path / "home", header + bytes(1 << 21), "tar", said)


def test_many_small_members_are_no_large_header(server, tmp_path):
    data = tarred({str(number): b"" for number in range(2100)}, "w")
    place = fetch(card_of(server, {"data": (data, "part", "tar")}), home=tmp_path) / "part"
    assert len(list(place.iterdir())) == 2100


def test_nothing_is_written_of_an_archive_with_a_bad_member(tmp_path):
    members = [download._Member(name, stat.S_IFREG, 1, lambda: io.BytesIO(b"1")) for name in ("good", "../bad")]
    with pytest.raises(download._Refused, match="leave"):
        download._extract(members, tmp_path, 1 << 20)
    assert list(tmp_path.iterdir()) == []


def test_a_tar_file_with_a_size_below_nothing(server, tmp_path):
    data = member("less", size=-512).tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    refuses(server, tmp_path / "home", data, "tar")


def test_no_more_is_written_than_was_declared(tmp_path):
    liar = download._Member("a", stat.S_IFREG, 10, lambda: io.BytesIO(bytes(11)))
    with pytest.raises(download._Refused, match="larger"):
        download._extract([liar], tmp_path, 1 << 20)
    assert not (tmp_path / "a").exists() or (tmp_path / "a").stat().st_size <= 10


def test_folders_names_and_rights_of_an_archive(server, tmp_path, any_python):
    """Folders come without being named, empty ones too; what an archive says of rights and owners is not taken on."""
    infos = [
        member("./", tarfile.DIRTYPE, mode=0o000),
        member("./empty/", tarfile.DIRTYPE),
        member("a/b/c.pcap", uid=9),
    ]
    infos += [member("set", mode=0o6777), member("-x =\x1b[31m.pcap")]
    place = fetch(card_of(server, {"data": (tar_of(*infos), "part", "tar")}), home=tmp_path) / "part"
    found = {path.relative_to(place).as_posix() for path in place.rglob("*")}
    assert found == {"empty", "a", "a/b", "a/b/c.pcap", "set", "-x =\x1b[31m.pcap"}
    assert not (place / "set").stat().st_mode & 0o6111


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
    server.files = {"one.pcap": one.read_bytes(), "two.zip": zipped({two.name: two.read_bytes()})}
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
        (["iot-sentinel"], "iot-sentinel: its card has no downloads; ask for the captures at https://"),
        (["demo"], "demo: its card has no downloads; leave out --download"),
        (["iot-sentinel", "--source", "."], "--download and --source exclude each other"),
    ],
)
def test_what_download_cannot_do_is_one_line(bench, words, said):
    status, out, err = bench("prepare", *words, "--download")
    assert (status, out) == (2, "")
    assert err.startswith(f"bench: {said}") and err.count("\n") == 1
