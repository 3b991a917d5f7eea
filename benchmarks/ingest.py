"""Ingest against dpkt and scapy on one large capture made here: packets a second, memory a packet.

    python benchmarks/ingest.py [--packets N] [--alone N] [--dpkt N] [--scapy N] [--folder DIR]

All three do the same job: read records, decode Ethernet/IP/TCP/UDP, group packets into sessions (unordered end
points and protocol), count each session's packets and sum its payload bytes.  dpkt and scapy do it on the first N
packets (the rate does not depend on N); there the sessions that all three find must be equal.  The capture is in the
page cache for all.  Memory is the peak of RssAnon (/proc/self/status: anonymous memory alone, so the mapped capture
does not count), sampled each 2 ms by a thread of a fresh process that has read a small capture before, less its value
at the start.  Memory is measured once more on a capture of which every packet is a session of its own.
"""

import argparse
import multiprocessing
import os
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dpkt
import numpy as np
from processes import in_new_process

from bench.ingest import CaptureIndex, read_capture

Key = tuple[Any, ...]  # an end point, or a session's two with the protocol
Sessions = dict[Key, list[int]]  # (end point, end point, protocol) -> [packets, payload bytes]

SESSIONS = 5000
PAYLOAD = 470  # mean payload, bytes: 1,000,000 packets make somewhat over 500 MB


def write_capture(path: Path, packets: int, seed: int = 0) -> None:
    """A pcap of TCP and UDP sessions, interleaved at random, both directions; lengths are what headers say."""
    rng = np.random.default_rng(seed)
    padding = rng.bytes(1500)
    session = rng.integers(0, SESSIONS, packets)
    back = rng.random(packets) < 0.5
    sizes = rng.integers(0, 2 * PAYLOAD + 1, packets)
    with path.open("wb", buffering=1 << 20) as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        for i, (one, reply, size) in enumerate(zip(session.tolist(), back.tolist(), sizes.tolist(), strict=True)):
            client = (b"\x0a\x00" + struct.pack(">H", one % 251), 20000 + one)
            server = (b"\xc0\xa8\x01" + bytes([one % 19]), 443)
            (source, sport), (target, dport) = (server, client) if reply else (client, server)
            udp = one % 3 == 0
            header = 8 if udp else 20
            frame = (
                b"\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x08\x00"
                + struct.pack(">BBHHHBBH", 0x45, 0, 20 + header + size, i & 0xFFFF, 0, 64, 17 if udp else 6, 0)
                + source
                + target
                + (
                    struct.pack(">HHHH", sport, dport, 8 + size, 0)
                    if udp
                    else struct.pack(">HHIIBBHHH", sport, dport, i, 0, 0x50, 0x18, 64, 0, 0)
                )
            )
            length = len(frame) + size
            file.write(struct.pack("<IIII", 1_700_000_000 + i // 10_000, i % 10_000 * 100, length, length))
            file.write(frame)
            file.write(padding[:size])


def write_lone_packets(path: Path, packets: int) -> None:
    """A pcap of UDP packets without payload, each of end points of its own."""
    frames = np.zeros((packets, 16 + 42), np.uint8)
    number = np.arange(packets, dtype=np.int64)
    frames[:, 0:4] = (1_700_000_000 + number // 10_000).astype("<u4").view(np.uint8).reshape(-1, 4)
    frames[:, 4:8] = (number % 10_000 * 100).astype("<u4").view(np.uint8).reshape(-1, 4)
    frames[:, 8] = frames[:, 12] = 42
    frames[:, 28], frames[:, 30], frames[:, 33], frames[:, 38], frames[:, 39] = 8, 0x45, 28, 64, 17
    frames[:, 42], frames[:, 46] = 10, 192
    frames[:, 47:50] = number.astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:]
    frames[:, 51], frames[:, 53], frames[:, 55] = 80, 53, 8
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        frames.tofile(file)


def with_bench(index: CaptureIndex) -> Sessions:
    """The sessions of an index in the common form."""
    columns = dict(index.sessions)
    found: Sessions = {}
    for row in range(len(columns["packets"])):
        size = 4 if columns["ip_version"][row] == 4 else 16
        ends = sorted(
            (columns[f"{side}_ip"][row].ljust(16, b"\0")[:size], int(columns[f"{side}_port"][row]))
            for side in ("client", "server")
        )
        key = (*ends, int(columns["protocol"][row]))
        found[key] = [int(columns["packets"][row]), int(columns["payload_bytes"][row])]
    return found


def group(packets: Iterator[tuple[Key, Key, int, int]]) -> Sessions:
    """Sessions from (sender, receiver, protocol, payload bytes) packets."""
    found: Sessions = {}
    for sender, receiver, protocol, size in packets:
        key = (sender, receiver, protocol) if sender <= receiver else (receiver, sender, protocol)
        entry = found.setdefault(key, [0, 0])
        entry[0] += 1
        entry[1] += size
    return found


def with_dpkt(path: Path) -> Sessions:
    """The same job by dpkt."""

    def packets() -> Iterator[tuple[Key, Key, int, int]]:
        with path.open("rb") as file:
            for _, frame in dpkt.pcap.Reader(file):
                ip = dpkt.ethernet.Ethernet(frame).data
                if isinstance(ip, dpkt.ip.IP | dpkt.ip6.IP6) and isinstance(ip.data, dpkt.tcp.TCP | dpkt.udp.UDP):
                    segment = ip.data
                    yield (ip.src, segment.sport), (ip.dst, segment.dport), ip.p, len(segment.data)

    return group(packets())


def with_scapy(path: Path) -> Sessions:
    """The same job by scapy, which dissects each packet in full."""
    from scapy.layers.inet import IP, TCP, UDP
    from scapy.utils import PcapReader

    def packets() -> Iterator[tuple[Key, Key, int, int]]:
        with PcapReader(str(path)) as reader:
            for packet in reader:
                for protocol, layer in ((6, TCP), (17, UDP)):
                    if IP in packet and layer in packet:
                        ip, segment = packet[IP], packet[layer]
                        source, target = (socket.inet_aton(address) for address in (ip.src, ip.dst))
                        yield (source, segment.sport), (target, segment.dport), protocol, len(segment.payload)

    return group(packets())


def head(path: Path, packets: int) -> Path:
    """A capture beside `path` with its first ``packets`` records."""
    with path.open("rb") as file:
        size = 24
        file.seek(size)
        for _ in range(packets):
            size += 16 + struct.unpack("<IIII", file.read(16))[2]
            file.seek(size)
        file.seek(0)
        subset = path.with_name(f"head-{packets}.pcap")
        subset.write_bytes(file.read(size))
    return subset


def timed(job: Callable[[Path], object], path: Path) -> tuple[float, float, object]:
    """Seconds by the clock and of this process's CPU that a job on a file took, and what it gave."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = job(path)
    return time.perf_counter() - wall, time.process_time() - cpu, result


def peak_memory(path: Path, warm: Path, answer: "multiprocessing.Queue[int]") -> None:
    """Put into ``answer`` how far anonymous memory rises while `path` is read, in bytes."""

    def resident() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

    read_capture(warm)
    before, done, peak = resident(), threading.Event(), [0]

    def sample() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], resident())

    thread = threading.Thread(target=sample)
    thread.start()
    index = read_capture(path)
    done.set()
    thread.join()
    answer.put(max(peak[0], resident()) - before)
    del index


def first_run(path: Path, answer: "multiprocessing.Queue[float]") -> None:
    """Put into ``answer`` the seconds that a new process's first capture takes."""
    answer.put(timed(read_capture, path)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packets", type=int, default=1_050_000, help="packets of the capture")
    parser.add_argument("--alone", type=int, default=2_000_000, help="packets of the capture of lone packets")
    parser.add_argument("--dpkt", type=int, default=100_000, help="packets that dpkt reads")
    parser.add_argument("--scapy", type=int, default=10_000, help="packets that scapy reads")
    parser.add_argument("--folder", type=Path, default=None, help="where the capture is made (default: temporary)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measure(Path(folder) / "large.pcap", options.packets, {"dpkt": options.dpkt, "scapy": options.scapy})
        lone = Path(folder) / "lone.pcap"
        write_lone_packets(lone, options.alone)
        peak = in_new_process(peak_memory, lone, head(lone, 10))
        print(f"{options.alone:,} packets, each a session of its own: {peak / options.alone:.1f} bytes a packet")


def measure(path: Path, packets: int, subsets: dict[str, int]) -> None:
    write_capture(path, packets)
    print(f"capture: {packets:,} packets, {path.stat().st_size / 1e6:,.0f} MB, {SESSIONS:,} sessions")
    few = head(path, 10)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["NUMBA_CACHE_DIR"] = cache
        print(f"first capture of a new process, nothing compiled yet: {in_new_process(first_run, few):.2f} s")
        print(f"first capture of a new process, from numba's cache: {in_new_process(first_run, few):.2f} s")
        peak = in_new_process(peak_memory, path, few)
        del os.environ["NUMBA_CACHE_DIR"]
    print(f"peak anonymous memory beyond the mapping: {peak / 1e6:.1f} MB, {peak / packets:.1f} bytes a packet")
    read_capture(path)
    ours = median_rates("read_capture", read_capture, path, packets, repeats=5)
    for name, job in (("dpkt", with_dpkt), ("scapy", with_scapy)):
        subset = head(path, subsets[name])
        job(few)  # imports, first use
        assert job(subset) == with_bench(read_capture(subset)), f"{name} finds other sessions"
        theirs = median_rates(name, job, subset, subsets[name], repeats=3)
        print(f"read_capture / {name}: {ours[0] / theirs[0]:,.0f} by the clock, {ours[1] / theirs[1]:,.0f} by CPU time")
    print("all three find the same sessions, packet counts and payload bytes on those packets")


def median_rates(
    name: str, job: Callable[[Path], object], path: Path, packets: int, repeats: int
) -> tuple[float, float]:
    """Packets a second of the median run, by the clock and by CPU time."""
    runs = [timed(job, path)[:2] for _ in range(repeats)]
    wall, cpu = (sorted(column)[repeats // 2] for column in zip(*runs, strict=True))
    print(f"{name}: {packets:,} packets in {wall:.3f} s ({cpu:.3f} s CPU), median of {repeats}: ", end="")
    print(f"{packets / wall:,.0f} packets/s by the clock, {packets / cpu:,.0f} by CPU time")
    return packets / wall, packets / cpu


if __name__ == "__main__":
    main()
