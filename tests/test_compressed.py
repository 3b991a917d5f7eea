"""Compressed captures: what is unpacked, what a broken stream leaves."""

import errno
import gzip
import hashlib
import resource

import numpy as np
import pytest
import zstandard
from capture_bytes import ether, ipv4, pcap
from refusals import refused

from bench.ingest import Damage, read_capture


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
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
