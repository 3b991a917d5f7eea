"""Packed captures: what is unpacked and how far, what a broken stream leaves, which archives are named."""

import bz2
import errno
import gzip
import hashlib
import lzma
import resource
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import zstandard
from archives import patched, zipped
from capture_bytes import ether, ipv4, pcap
from refusals import refused

from bench.ingest import Damage, compressed, read_capture
from bench.ingest.compressed import unpack

SHARED = Path(__file__).parents[2] / "shared" / "cases" / "files"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared captures, which are not in the project")

STREAMS = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "xz": lzma.compress,
    "bzip2": partial(bz2.compress, compresslevel=1),  # blocks of 100 kB: of a block that is cut nothing is left
}
of_each_stream = pytest.mark.parametrize("pack", STREAMS.values(), ids=STREAMS)


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
