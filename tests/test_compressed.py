"""Packed captures: what is unpacked and how far, what a broken stream leaves, which archives are named."""

import bz2
import errno
import gzip
import hashlib
import io
import lzma
import resource
import shutil
import subprocess
import tarfile
import tracemalloc
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import zstandard
from capture_bytes import ether, ipv4, pcap
from refusals import refused

from bench.data.cards import find_card
from bench.data.prepare import prepare_dataset
from bench.data.sources import find_captures
from bench.ingest import Damage, compressed, read_capture
from bench.ingest.compressed import is_compressed, unpack

SHARED = Path(__file__).parents[2] / "shared" / "cases" / "files"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared captures, which are not in the project")

STREAMS = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "xz": lzma.compress,
    "bzip2": partial(bz2.compress, compresslevel=1),  # blocks of 100 kB: of a block that is cut nothing is left
}
of_each_stream = pytest.mark.parametrize("pack", STREAMS.values(), ids=STREAMS)


def zipped(*files, method=zipfile.ZIP_DEFLATED):
    """A zip archive of files: (name, data)."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method) as packed:
        for name, data in files:
            packed.writestr(name, data)
    return archive.getvalue()


def tarred(*files, mode="w"):
    """A tar archive of files: (name, data)."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode=mode) as packed:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            packed.addfile(entry, io.BytesIO(data))
    return archive.getvalue()


def patched(data, *bytes_at):
    """The same with other bytes: (place, value)."""
    other = bytearray(data)
    for place, value in bytes_at:
        other[place] = value
    return bytes(other)


@of_each_stream
def test_compressed_captures(tmp_path, pack):
    rng = np.random.default_rng(2)
    plain = pcap([ether(ipv4(payload=rng.bytes(1000))) for _ in range(400)])
    path, work = tmp_path / "capture.pcap", tmp_path / "work"  # the name does not matter
    path.write_bytes(pack(plain[:5000]) + pack(plain[5000:]))  # two members
    index = read_capture(path, work=work)
    assert index.records == 400 and not index.damage
    assert index.bytes_path.parent == work and index.bytes_path.read_bytes() == plain
    assert index.bytes_path.stat().st_mtime_ns == path.stat().st_mtime_ns
    assert read_capture(path, work=work).bytes_path == index.bytes_path and len(list(work.iterdir())) == 1

    index = read_capture(path)
    unpacked = index.bytes_path
    assert unpacked.read_bytes() == plain
    del index
    assert not unpacked.exists()

    path.write_bytes(pack(plain)[:-20_000])
    index = read_capture(path)
    assert 0 < index.records < 400
    assert [d.reason for d in index.damage] == ["the compressed stream ends early", "the file ends inside a record"]
    assert index.damage[0].offset == index.size


def test_broken_stream_keeps_what_came_before(tmp_path):
    rng = np.random.default_rng(3)
    plain = pcap([ether(ipv4(payload=rng.bytes(1000))) for _ in range(100)])
    packed = gzip.compress(plain)
    path = tmp_path / "capture.gz"
    path.write_bytes(packed + b"garbage")
    index = read_capture(path)
    assert index.records == 100
    assert index.damage == (Damage(len(plain), "the compressed stream is broken", 7),)
    path.write_bytes(packed + bytes(100))
    assert not read_capture(path).damage


@pytest.mark.parametrize("size", [3, 300])
def test_a_wrong_checksum_costs_no_packet(tmp_path, size):
    rng = np.random.default_rng(6)
    plain = pcap([ether(ipv4(payload=rng.bytes(1000))) for _ in range(size)])
    path = tmp_path / "capture"
    checked = zstandard.ZstdCompressor(write_checksum=True).compress(plain)
    for packed, flip in ((gzip.compress(plain), -8), (checked, -1)):
        other = bytearray(packed)
        other[flip] ^= 1
        path.write_bytes(packed + bytes(other) + packed)  # a fault in the second of three members
        index = read_capture(path)
        assert index.bytes_path.read_bytes() == plain * 2
        assert index.damage[0].offset == 2 * len(plain)
        assert index.damage[0].reason == "the compressed stream is broken"
        assert 0 <= index.damage[0].bytes_lost - len(packed) <= 16  # what follows, and the second's end
        path.write_bytes(other)
        assert read_capture(path).records == size


def test_a_fault_within_a_stream_keeps_what_came_before_it(tmp_path):
    rng = np.random.default_rng(7)
    plain = pcap([ether(ipv4(payload=rng.bytes(1000))) for _ in range(100)])
    packed = bytearray(gzip.compress(plain, 0))  # stored blocks of at most 64 KB: a bad length is a fault
    second = 10 + 5 + int.from_bytes(packed[11:13], "little")
    packed[second + 1] ^= 1
    (tmp_path / "capture").write_bytes(packed)
    index = read_capture(tmp_path / "capture")
    assert index.size == second - 15 and index.bytes_path.read_bytes() == plain[: index.size]
    assert index.damage[0] == Damage(index.size, "the compressed stream is broken", len(packed) - second)


@pytest.mark.parametrize("window", [27, 28, 31])
def test_large_windows_of_zstd(tmp_path, window):
    plain = pcap([ether(ipv4(payload=b"abc"))] * 3)
    frame = b"\x28\xb5\x2f\xfd\0" + bytes([(window - 10) << 3]) + (len(plain) << 3 | 1).to_bytes(3, "little") + plain
    (tmp_path / "capture").write_bytes(frame)
    index = read_capture(tmp_path / "capture")
    assert index.records == 3 and not index.damage


def test_a_long_name_can_be_unpacked(tmp_path):
    path = tmp_path / ("n" * 242 + ".pcap.gz")
    path.write_bytes(gzip.compress(pcap([ether(ipv4())])))
    index = read_capture(path, work=tmp_path / "work")
    assert index.records == 1 and index.bytes_path.name == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_cannot_be_unpacked_is_no_fault_of_the_capture(tmp_path, monkeypatch):
    path, work = tmp_path / "capture.gz", tmp_path / "work"
    path.write_bytes(gzip.compress(bytes(100_000)))
    with pytest.raises(NotADirectoryError):
        read_capture(path, work=path / "work")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # as a full disk would
    try:
        with pytest.raises(OSError) as caught:
            read_capture(path, work=work)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG and list(work.iterdir()) == []

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("hashlib.file_digest", fail)
    with refused("unreadable-file", "capture.gz", "Input/output error"):
        read_capture(path, work=work)
    assert list(work.iterdir()) == []


# --- xz and bzip2


def test_zeros_between_streams_are_padding(tmp_path):
    plain = pcap([ether(ipv4(payload=b"abc"))] * 3)
    packed = lzma.compress(plain[:50]) + bytes(8) + lzma.compress(plain[50:]) + bytes(4)
    (tmp_path / "capture").write_bytes(packed)
    index = read_capture(tmp_path / "capture")
    assert index.bytes_path.read_bytes() == plain and not index.damage


@pytest.mark.parametrize("name", ["xz", "bzip2"])
def test_a_fault_in_a_later_stream_keeps_what_came_before_it(tmp_path, name):
    """In the head of xz's fourth chunk, or in the second block of bzip2."""
    path, plain = tmp_path / "noise", np.random.default_rng(8).bytes(500_000)
    packed = STREAMS[name](plain)
    fault, kept = 150_000, 99_981
    if name == "xz":
        fault, kept = 24, 0
        for _ in range(3):  # noise stays as it is: one byte, two of the size
            size = int.from_bytes(packed[fault + 1 : fault + 3], "big") + 1
            fault, kept = fault + 3 + size, kept + size
    path.write_bytes(packed + patched(packed, (fault, packed[fault] ^ 0x70)) + packed)
    unpacked, [damage] = unpack(path, tmp_path / "work")
    assert abs(unpacked.stat().st_size - len(plain) - kept) < 100
    assert unpacked.read_bytes() == (plain * 2)[: damage.offset]
    assert damage.reason == "the compressed stream is broken"
    assert len(packed) < damage.bytes_lost < 2 * len(packed) - kept + 1000
    path.write_bytes(packed + b"garbage" * 3)
    assert unpack(path, tmp_path / "work")[1] == (Damage(len(plain), "the compressed stream is broken", 21),)


def test_a_block_of_bzip2_with_another_checksum_is_left_out(tmp_path):
    """However much it unpacks to; that of the whole stream costs nothing."""
    plain = bytes([1]) * 6_000_000 + bytes([2]) * 6_000_000
    packed = bz2.compress(plain, 1)  # three blocks
    first = len(bz2.BZ2Decompressor().decompress(packed[:60]))
    assert 5_000_000 < first < 6_000_000
    for flip, kept in ((-3, len(plain)), (70, first)):
        (tmp_path / "a").write_bytes(patched(packed, (flip, packed[flip] ^ 4)))
        unpacked, [damage] = unpack(tmp_path / "a", tmp_path / "work")
        assert unpacked.stat().st_size == kept and unpacked.read_bytes() == plain[:kept]
        assert damage.offset == kept


def test_a_full_disk_is_no_broken_stream(tmp_path):
    """bz2 and the file system both raise OSError."""
    (tmp_path / "capture").write_bytes(bz2.compress(bytes(100_000)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            read_capture(tmp_path / "capture", work=tmp_path / "work")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG and list((tmp_path / "work").iterdir()) == []


def test_a_frame_that_is_skipped_begins_a_zstd_file(tmp_path):
    plain = pcap([ether(ipv4(payload=b"abc"))] * 3)
    (tmp_path / "capture").write_bytes(b"\x50\x2a\x4d\x18\4\0\0\0pzst" + zstandard.compress(plain))
    assert read_capture(tmp_path / "capture").records == 3


@needs_shared
@pytest.mark.parametrize("name", ["38.pcap.bz2", "38.pcap.xz", "38.pcap.zip"])
def test_shared_cases(name):
    index = read_capture(SHARED / name)
    assert index.bytes_path.read_bytes() == (SHARED / "00_base.pcap").read_bytes()
    assert index.records == 13 and not index.damage


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
        (ONE[:-30], "a damaged zip archive (File is not a zip file)", "get it again, or unpack it: `7z x"),
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


# --- the limit


BOMBS = STREAMS | {"zip": lambda plain: zipped(("a.pcap", plain)), "bzip2": bz2.compress}
of_each_bomb = pytest.mark.parametrize("pack", BOMBS.values(), ids=BOMBS)


@of_each_bomb
def test_unpacking_stops_at_a_limit(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(compressed, "LIMIT_BYTES", 1 << 20)
    plain = pcap([]) + bytes((1 << 22) - 24)
    path, work = tmp_path / "bomb.pcap.packed", tmp_path / "work"
    path.write_bytes(pack(plain))
    assert compressed.LIMIT_RATIO * path.stat().st_size < len(plain)
    with refused("unpacks-too-large", f"{path}: unpacks to more than 1,", "1,048,576 bytes", "200 times", "unpack it"):
        read_capture(path, work=work)
    assert list(work.iterdir()) == []
    path.write_bytes(pack(plain[: 1 << 20]))  # as much as may be
    assert unpack(path, work)[0].stat().st_size == 1 << 20
    path.write_bytes(pack(plain[: (1 << 20) + 1]))
    with refused("unpacks-too-large"):
        unpack(path, work)


def test_the_limit_grows_with_the_packed_file(tmp_path, monkeypatch):
    monkeypatch.setattr(compressed, "LIMIT_BYTES", 1000)
    (tmp_path / "a").write_bytes(gzip.compress(np.random.default_rng(1).bytes(100_000)))
    assert unpack(tmp_path / "a", tmp_path / "work")[0].stat().st_size == 100_000
    (tmp_path / "b").write_bytes(gzip.compress(bytes(100_000)))
    size = 200 * (tmp_path / "b").stat().st_size
    with refused("unpacks-too-large", f"more than {size:,} bytes"):
        unpack(tmp_path / "b", tmp_path / "work")
    assert (compressed.LIMIT_BYTES, compressed.LIMIT_RATIO) == (1000, 200)


def test_the_limit_holds_for_a_broken_stream(tmp_path, monkeypatch):
    monkeypatch.setattr(compressed, "LIMIT_BYTES", 50_000)
    monkeypatch.setattr(compressed, "LIMIT_RATIO", 0)
    (tmp_path / "a").write_bytes(gzip.compress(bytes(100_000))[:-8] + bytes(8))
    with refused("unpacks-too-large"):
        unpack(tmp_path / "a", tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []


@of_each_bomb
def test_memory_is_bounded(tmp_path, monkeypatch, pack):
    pieces = []
    write = compressed._Target.write
    monkeypatch.setattr(
        compressed._Target, "write", lambda self, plain: (pieces.append(len(plain)), write(self, plain))
    )
    (tmp_path / "a").write_bytes(pack(bytes(1 << 26)))
    tracemalloc.start()
    try:
        unpack(tmp_path / "a", tmp_path / "work")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(pieces) == 1 << 26 and max(pieces) <= 17 << 20
    assert peak < 40 << 20


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
