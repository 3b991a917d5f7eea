"""Downloaded archives: unpacked once, and never beyond their folder, their size or what is a file."""

import io
import stat
import struct
import tarfile
import zipfile
from functools import partial

import pytest
from archives import tarred, zipped
from loopback import DATA, card_of, left_over, sha256
from refusals import refused

from bench.data import download
from bench.data.download import fetch

xz_tarred = partial(tarred, mode="w:xz")


@pytest.mark.parametrize(("pack", "unpack"), [(zipped, "zip"), (xz_tarred, "tar")])
def test_archives_are_unpacked_once_and_again_where_a_file_is_gone(server, tmp_path, pack, unpack):
    files = {"x/1.pcap": DATA[:100], "2.pcap": DATA[:50]}
    card = card_of(server, {"data": (pack(*files.items()), "part one", unpack)})
    place = fetch(card, home=tmp_path) / "part one"
    assert {p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*.pcap")} == files
    assert [name[64:] for name in left_over(tmp_path)] == [".json"]  # what is in it; the archive is gone
    fetch(card, home=tmp_path)
    assert len(server.asked) == 1
    (place / "2.pcap").unlink()
    fetch(card, home=tmp_path)
    assert (place / "2.pcap").read_bytes() == files["2.pcap"]

    newer = card_of(server, {"data": (pack(("3.pcap", b"3")), "part one", unpack)})
    fetch(newer, home=tmp_path)
    assert [path.name for path in place.iterdir()] == ["3.pcap"]
    assert len(server.asked) == 3


def deflate64(files):
    """A zip file that says of its first member that it has compression method 9."""
    data = bytearray(zipped(*files.items()))
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
        (xz_tarred(*{"a": DATA[:5000]}.items())[:-2000], "tar"),
        (zipped(*{"a": b"", "a/b": b""}.items()), "zip"),
        (xz_tarred(*{"a": b"", "a/b": b""}.items()), "tar"),
        (xz_tarred(*{"a": b"", ".": b""}.items()), "tar"),
        (xz_tarred(*{"é\0b": b""}.items()), "tar"),
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
    data = tarred(*{"good.pcap": b"good", name: b"bad"}.items(), mode=mode)
    refuses(server, tmp_path / "1" / "2" / "home", data, "tar", repr(name))
    assert not (tmp_path / "X").exists()


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_member_of_a_zip_file_leaves_its_folder(server, tmp_path, name):
    """`zipfile` would silently take it for another name inside."""
    name = name.format(tmp=tmp_path)
    data = zipped(*{"good.pcap": b"good", name: b"bad"}.items())
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
    refuses(server, tmp_path / "home", tar_of(member("good.pcap"), info), "tar", "'link' is not a plain file or folder")


def test_no_link_of_a_zip_file_is_taken_for_a_capture(server, tmp_path):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "../../..")
    refuses(server, tmp_path / "home", target.getvalue(), "zip", "'link' is not a plain file or folder")


def test_a_sparse_file_is_left_to_the_hand(server, tmp_path):
    headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "1000000000000"}
    data = tar_of(member("hole", size=1, pax_headers=headers), content=b"x")
    refuses(server, tmp_path / "home", data, "tar", "'hole'")


@pytest.mark.parametrize("unpack", ["zip", "tar"])
@pytest.mark.parametrize("mode", ["one large", "many empty"])
def test_an_archive_unpacks_to_so_much_and_no_more(server, tmp_path, monkeypatch, unpack, mode):
    pack = {"zip": zipped, "tar": xz_tarred}[unpack]
    files = {"a": bytes(1 << 20)} if mode == "one large" else {str(number): b"" for number in range(300)}
    data = pack(*files.items())
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
    data = tarred(*{str(number): b"" for number in range(2100)}.items(), mode="w")
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
