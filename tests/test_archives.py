"""Archives in place of captures: a zip of one file is read through, others are named with what unpacks them."""

import bz2
import errno
import gzip
import hashlib
import lzma
import shutil
import subprocess
import zipfile

import numpy as np
import pytest
import zstandard
from archives import patched, tarred, zipped
from capture_bytes import ether, ipv4, pcap
from refusals import refused

from bench.data.names import find_card
from bench.data.prepare import prepare_dataset
from bench.data.sources import find_captures
from bench.ingest import compressed, read_capture
from bench.ingest.compressed import is_compressed, unpack

# --- zip


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_of_one_file_is_read_through(tmp_path, method):
    plain = pcap([ether(ipv4(payload=np.random.default_rng(9).bytes(1000))) for _ in range(2000)])
    path, work = tmp_path / "capture.pcap", tmp_path / "work"  # the name does not matter
    shadow = ("__MACOSX/", b""), ("__MACOSX/sub/._a.pcap", b"Mac OS X")
    path.write_bytes(zipped(("sub/", b""), ("sub/a.pcap", plain), *shadow, method=method))
    index = read_capture(path, work=work)
    assert index.records == 2000 and not index.damage
    assert index.bytes_path == work / hashlib.sha256(path.read_bytes()).hexdigest()
    assert index.bytes_path.read_bytes() == plain
    assert index.bytes_path.stat().st_mtime_ns == path.stat().st_mtime_ns
    assert read_capture(path, work=work).bytes_path == index.bytes_path and len(list(work.iterdir())) == 1


CAPTURE = pcap([ether(ipv4(payload=b"abc"))] * 3)
ONE, TWO = zipped(("a.pcap", CAPTURE)), zipped(("a.pcap", CAPTURE), ("b.pcap", CAPTURE))
ENTRY = ONE.index(b"PK\1\2")  # of the directory; 8: flags, 10: method, 42: where the file begins


@pytest.mark.parametrize(
    ("packed", "what", "command"),
    [
        (TWO, "a zip archive of 2 files", "unzip 'my one.zip'"),
        (zipped(), "a zip archive of 0 files", "unzip"),
        (patched(ONE, (6, 1), (ENTRY + 8, 1)), "an encrypted zip archive of 1 file,", "7z x 'my one.zip'"),
        (patched(ONE, (8, 9), (ENTRY + 10, 9)), "a zip archive of 1 file packed by method 9", "7z x"),
        (zipped(("a", CAPTURE), method=zipfile.ZIP_BZIP2), "a zip archive of 1 file packed by method 12", "7z x"),
        (patched(ONE, (14, 255), (ENTRY + 16, 255)), "a damaged zip archive (Bad CRC-32", "7z x"),
        (ONE[:-30], "a damaged zip archive (File is not a zip file)", "get the file again, or unpack it: `7z x"),
        (patched(ONE, (ENTRY + 45, 127)), "a damaged zip archive", "7z x"),
        (patched(ONE, (len(ONE) - 3, 255)), "a damaged zip archive", "7z x"),
        (patched(ONE, (60, ONE[60] ^ 255), (61, ONE[61] ^ 255)), "a damaged zip archive", "7z x"),
        (zipped(("a.zip", TWO)), "a zip archive inside a zip archive", "unzip 'my one.zip'"),
        (zipped(("a.pcap.gz", gzip.compress(CAPTURE))), "gzip data inside a zip archive", "unzip 'my one.zip'"),
        (zipped(("a.tar", tarred(("a", CAPTURE)))), "a tar archive inside a zip archive", "unzip 'my one.zip'"),
    ],
)
def test_other_zips_are_named_with_their_remedy(tmp_path, packed, what, command):
    path, work = tmp_path / "my one.zip", tmp_path / "work"
    path.write_bytes(packed)
    with refused("unpack-by-hand", f"{path}: is {what}", command):
        read_capture(path, work=work)
    assert not work.exists() or list(work.iterdir()) == []


def test_a_zip_that_cannot_be_read_is_no_damaged_one(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "a.zip").write_bytes(ONE)
    monkeypatch.setattr(zipfile.ZipExtFile, "read", fail)
    with refused("unreadable-file", "a.zip", "Input/output error"):
        read_capture(tmp_path / "a.zip", work=tmp_path)


# --- what has to be unpacked by hand


@pytest.mark.parametrize(
    ("packed", "what", "command"),
    [
        (b"\x04\x22\x4d\x18" + bytes(100), "lz4 data", "lz4 -dc x.pcap > x"),
        (b"\x02\x21\x4c\x18" + bytes(100), "lz4 data", "lz4 -dc x.pcap > x"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(100), "a 7z archive", "7z x x.pcap"),
        (b"Rar!\x1a\x07\0" + bytes(100), "a rar archive", "7z x x.pcap"),
        (b"Rar!\x1a\x07\1\0" + bytes(100), "a rar archive", "7z x x.pcap"),
        (tarred(("a.pcap", CAPTURE)), "a tar archive", "tar xf x.pcap"),
        (tarred(("BZh91AY&SY.pcap", CAPTURE)), "a tar archive", "tar xf x.pcap"),
        (tarred(("a.pcap", CAPTURE), mode="w:gz"), "a tar archive inside gzip data", "tar xf x.pcap"),
        (tarred(("a.pcap", CAPTURE), mode="w:xz"), "a tar archive inside xz data", "tar xf x.pcap"),
        (tarred(("a.pcap", CAPTURE), mode="w:bz2"), "a tar archive inside bzip2 data", "tar xf x.pcap"),
        (zstandard.compress(tarred(("a", CAPTURE))), "a tar archive inside zstd data", "tar xf x.pcap"),
        (gzip.compress(TWO), "a zip archive inside gzip data", "gzip -dc x.pcap > x"),
        (lzma.compress(gzip.compress(CAPTURE)), "gzip data inside xz data", "xz -dc x.pcap > x"),
    ],
)
def test_archives_are_named_with_what_unpacks_them(tmp_path, packed, what, command):
    path, work = tmp_path / "x.pcap", tmp_path / "work"  # the name does not matter
    path.write_bytes(packed)
    assert is_compressed(path)
    with refused("unpack-by-hand", f"{path}: is {what}, ", f"`{command}`"):
        read_capture(path, work=work)
    assert not work.exists() or list(work.iterdir()) == []


def test_an_archive_is_told_before_it_is_unpacked(tmp_path, monkeypatch):
    """Also where its head comes in small pieces."""
    written = []
    write = compressed._Target.write
    monkeypatch.setattr(compressed._Target, "write", lambda self, plain: (written.append(plain), write(self, plain)))
    archive = tarred(("a.pcap", bytes(1 << 24)))
    (tmp_path / "a").write_bytes(b"".join(gzip.compress(archive[i : i + 200]) for i in range(0, 1000, 200)))
    with refused("unpack-by-hand", "a tar archive inside gzip data"):
        unpack(tmp_path / "a", tmp_path / "work")
    assert [len(plain) for plain in written] == [200, 200]
    (tmp_path / "a").write_bytes(zstandard.compress(archive))
    with refused("unpack-by-hand", "a tar archive inside zstd data"):
        unpack(tmp_path / "a", tmp_path / "work")
    assert len(written) == 3


def test_a_capture_is_no_archive_whatever_is_in_it(tmp_path):
    for start in (0, *range(160, 200)):  # tar's word stands somewhere in the first packet
        (tmp_path / "a").write_bytes(pcap([ether(ipv4(payload=bytes(start) + b"ustar\0" * 10))]))
        assert not is_compressed(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"BZhello, PK and Rar! are words")
    assert not is_compressed(tmp_path / "a")


@pytest.mark.parametrize("name", ["my x.pcap.{}", "x.pcap", "x"])
@pytest.mark.parametrize("tool", ["gzip", "bzip2", "xz", "zstd", "lz4", "zip"])
def test_the_commands_do_unpack(tmp_path, monkeypatch, tool, name):
    program = "unzip" if tool == "zip" else tool
    if not shutil.which(program):
        pytest.skip(f"needs {program}")
    monkeypatch.setattr(compressed, "LIMIT_BYTES", 10)
    monkeypatch.setattr(compressed, "LIMIT_RATIO", 0)
    path = tmp_path / name.format(tool)
    if tool == "zip":
        path.write_bytes(zipped(("plain", CAPTURE)))
    else:
        path.write_bytes(subprocess.run([tool, "-c"], input=CAPTURE, capture_output=True, check=True).stdout)
    with refused("unpack-by-hand" if tool == "lz4" else "unpacks-too-large") as caught:
        unpack(path, tmp_path / "work")
    before = path.read_bytes()
    subprocess.run(str(caught.value).split("`")[1], shell=True, cwd=tmp_path, check=True, capture_output=True)
    [plain] = [one for one in tmp_path.iterdir() if one.is_file() and one != path]
    assert plain.read_bytes() == CAPTURE and path.read_bytes() == before


# --- in a folder


NAMES = [
    *(f"a.{kind}" for kind in ("pcap.xz", "pcap.bz2", "PCAP.LZ4", "pcapng.gz", "cap.zst")),
    *(f"b.{kind}" for kind in ("zip", "7z", "RAR", "tar", "tgz", "txz", "tbz2")),
    *(f"c.tar.{kind}" for kind in ("gz", "xz", "bz2", "zst", "lz4")),
]
OTHERS = ["n.txt", "x.gz", "x.lz4", "x.xz", "x.doc", "no-suffix"]


def test_packed_captures_and_archives_are_never_ignored_in_a_folder(tmp_path):
    source = tmp_path / "apps"
    (source / "x").mkdir(parents=True)
    for name in (*NAMES, *OTHERS):
        (source / "x" / name).write_bytes(gzip.compress(CAPTURE))
    (source / "x" / "plain.bz2").write_bytes(CAPTURE)  # its first bytes tell
    found = find_captures(find_card(source), source, {})
    assert [file.path for file in found.files] == sorted(f"x/{name}" for name in (*NAMES, "plain.bz2"))
    assert found.ignored == {".doc": 1, ".gz": 1, ".lz4": 1, ".txt": 1, ".xz": 1, "no suffix": 1}


def test_a_folder_of_packed_captures_becomes_a_store(tmp_path, monkeypatch):
    monkeypatch.setattr(compressed, "LIMIT_BYTES", 1 << 20)
    source, home = tmp_path / "apps", tmp_path / "home"
    packed = {
        "x/1.pcap.xz": lzma.compress(CAPTURE),
        "x/2.zip": ONE,
        "x/3.zip": TWO,
        "x/4.7z": b"7z\xbc\xaf\x27\x1c" + bytes(100),
        "y/1.pcap.bz2": bz2.compress(CAPTURE),
        "y/2.pcap.zst": zstandard.compress(bytes(1 << 22)),
        "y/3.tgz": tarred(("a.pcap", CAPTURE), mode="w:gz"),
    }
    for name, data in packed.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    manifest = prepare_dataset(find_card(source), home=home).manifest
    assert [capture.path for capture in manifest.captures] == ["x/1.pcap.xz", "x/2.zip", "y/1.pcap.bz2"]
    reasons = {one.path: one.reason for one in manifest.unreadable}
    assert list(reasons) == ["x/3.zip", "x/4.7z", "y/2.pcap.zst", "y/3.tgz"] and manifest.ignored == {}
    for reason, remedy in zip(reasons.values(), ("unzip 3.zip", "7z x 4.7z", "zstd -dc", "tar xf 3.tgz"), strict=True):
        assert f"`{remedy}" in reason
    assert len(list((home / "unpacked" / "apps").iterdir())) == 3
    assert prepare_dataset(find_card(source), home=home).unchanged


def test_a_card_with_a_list_still_tells_of_archives_itself(tmp_path):
    source, card = tmp_path / "captures", tmp_path / "mine.toml"
    source.mkdir()
    for name in NAMES:
        (source / name).write_bytes(gzip.compress(CAPTURE))
    (tmp_path / "mine.csv").write_text("file,app\na,x\nb,y\nc,z\n")
    card.write_text(
        'name = "mine"\ntitle = "M"\nlabels = {kind = "files", table = "mine.csv"}\ntasks.t = {label = "app"}\n'
    )
    found = find_captures(find_card(card), source, {})
    assert [file.path for file in found.files] == ["a.PCAP.LZ4"]
    report = found.files_report
    assert [one["file"] for one in report.archives] == sorted(n for n in NAMES if not n.startswith("a"))
    assert [one["file"] for one in report.missing] == ["b", "c"]
