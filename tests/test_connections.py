"""Which packets of a 5-tuple are copies, retransmissions and keep-alives; and tshark, where it is, thinks so, too."""

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from capture_bytes import CLIENT, SERVER, ether, ipv4, pcap

from bench.ingest import IngestOptions, read_capture
from bench.schema import MARK_COPY, MARK_KEEPALIVE, MARK_RETRANSMISSION

ROOT = Path(__file__).parents[1]
CASES = ROOT.parent / "shared" / "cases" / "files"
WHAT = {0: "", MARK_COPY: "copy", MARK_KEEPALIVE: "keep-alive", MARK_RETRANSMISSION: "retransmission"}


def segment(number, payload=b"", *, answer=500, flags=0x10, back=False):
    """A TCP packet; what is equal in all its bytes is a copy."""
    packet = bytearray(ipv4(*((SERVER, CLIENT) if back else (CLIENT, SERVER)), payload=payload, flags=flags))
    packet[24:32] = struct.pack(">II", number, answer)
    return ether(bytes(packet))


@pytest.fixture
def called(tmp_path):
    """What the packets of (ms, frame) are called, in the file's order."""

    def read(*timed):
        times = [(1000 + int(ms // 1000), round(ms % 1000 * 1000)) for ms, _ in timed]
        (tmp_path / "capture").write_bytes(pcap([frame for _, frame in timed], times=times))
        packets = read_capture(tmp_path / "capture", IngestOptions(sessions="5tuple")).packets
        return [WHAT[marks] for _, marks in sorted(zip(packets["record"], packets["marks"], strict=True))]

    return read


FIRST = segment(1000, bytes(100))  # 1000 to 1099


@pytest.mark.parametrize(
    ("late", "frame", "what"),
    [
        (900, segment(1099), "keep-alive"),
        (900, segment(1099, b"x"), "keep-alive"),
        (900, segment(1098, b"x"), "keep-alive"),  # the last byte but one, of stacks that count so
        (1, segment(1098, b"x"), ""),  # overtaken by what follows it
        (900, segment(1098), ""),
        (900, segment(1097, b"x"), "retransmission"),
        (900, segment(1098, b"xy"), "retransmission"),
        (900, segment(1099, b"x", flags=0x11), "retransmission"),
        (900, segment(1099, flags=0x14), ""),
        (900, segment(1100), ""),
        (900, segment(1100, b"x"), ""),
        (900, segment(1000, bytes(100), answer=501), "retransmission"),
        (1, segment(1000, bytes(100), answer=501), "retransmission"),  # ends where all ended
        (1, segment(1000, bytes(50)), ""),
        (-1, segment(1000, bytes(50)), ""),  # captured by another queue
        (-900, segment(1000, bytes(50)), "retransmission"),  # a clock that was set back
        (2, segment(1000, bytes(100)), "copy"),
    ],
)
def test_what_begins_below_what_was_sent(called, late, frame, what):
    assert called((1000, FIRST), (1000 + late, frame)) == ["", what]


def test_a_byte_that_its_fin_overtook_is_no_keep_alive(called):
    end = segment(1101, flags=0x11)
    assert called((0, FIRST), (0.5, end), (0.49, segment(1100, b"]"))) == ["", "", ""]
    assert called((0, FIRST), (0.5, end), (300, segment(1100, b"]"))) == ["", "", "retransmission"]


def test_what_was_acknowledged_was_not_overtaken(called):
    answer, more = segment(500, answer=1100, back=True), segment(1100, bytes(100))
    again = segment(1000, bytes(100), answer=501)
    assert called((0, FIRST), (1, answer), (1.1, more), (1.2, again)) == ["", "", "", "retransmission"]
    assert called((0, FIRST), (1.1, more), (1.2, again)) == ["", "", ""]


def udp(text):
    packet = bytearray(ipv4(protocol=17, payload=text))
    packet[4:6] = b"\0\0"
    return ether(bytes(packet))


def test_copies_are_found_behind_others_that_look_like_them(called):
    alike = [udp(b"NOTIFY * NT: urn:%d" % number) for number in range(4)]
    frames = [*alike, *alike, alike[0]]
    assert called(*((place / 10, frame) for place, frame in enumerate(frames))) == [""] * 4 + ["copy"] * 5
    data, end = segment(1000, bytes(100), flags=0x18), segment(1100, flags=0x18)
    assert called((0, data), (0.1, end), (0.2, data), (0.3, end)) == ["", "", "copy", "copy"]
    assert called((0, data), (6, data)) == ["", "retransmission"]


def compare(*words, path=None):
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | ({"PATH": path} if path else {})
    command = [sys.executable, str(ROOT / "benchmarks" / "captures.py"), *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_without_tshark_the_comparison_says_what_to_install(tmp_path):
    done = compare(tmp_path, path=str(tmp_path))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "apt-get install tshark" in done.stderr


@pytest.mark.skipif(not shutil.which("tshark"), reason="no tshark")
def test_tshark_agrees(tmp_path):
    frames = [FIRST, segment(500, answer=1100, back=True), FIRST, segment(1099), udp(b"abc"), ether(bytes(40), 0x0806)]
    (tmp_path / "a.pcap").write_bytes(pcap(frames))
    done = compare(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("sums") and done.stdout.endswith("in all 1\n"), done.stdout
    assert "records 6 | 6, TCP conversations 1 | 1, UDP conversations 1 | 1, payload bytes 203 | 203" in done.stdout
    assert "retransmissions 1 | 1, keep-alives 1 | 1" in done.stdout


@pytest.mark.skipif(not shutil.which("tshark") or not CASES.exists(), reason="no tshark, or no cases in ../shared")
def test_tshark_agrees_on_the_cases_but_for_what_is_defined_otherwise():
    done = compare(CASES)
    assert done.returncode == 0, done.stdout + done.stderr
    listed = {tuple(line.split()[:2]) for line in done.stdout.splitlines() if line[:2].isdigit() and "." in line[:30]}
    copies = [("01_span_duplicates.pcap", "retransmissions"), ("02_pktmon_4x.pcap", "retransmissions")]
    copies += [("40_pktmon_4_components.pcapng", "retransmissions")]
    late = [("18_keepalives.pcap", "retransmissions"), ("18_keepalives.pcap", "keep-alives")]
    assert listed == {*copies, *late, ("32_trailing_zeros.pcap", "records")}
