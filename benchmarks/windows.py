"""Windows of sessions: made, split and represented, in seconds and bytes; the cost must be linear in windows.

    python benchmarks/windows.py [--per-session N ...] [--sessions N] [--step N] [--folder DIR]

A synthetic capture of 10,000 sessions is written and prepared once (`bench prepare` on a folder of classes).  Each line
is a process of its own: windows of 16 packets with payload; a clean split by session of them; the paper's split; and
the clean split's payload, the first 256 bytes of each packet, uint8 [windows, 16, 256].  Memory is the peak of RssAnon
(anonymous memory alone, so that mapped captures and stores do not count) above its value before the step, sampled each
2 ms; an array of more than 2 GiB lies in a temporary file and does not count either.  Compiled code comes from numba's
cache: a small split and a small representation run first.
"""

import argparse
import multiprocessing
import os
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from processes import in_new_process

from bench.data.prepare import open_dataset
from bench.data.store import Store
from bench.readers import View
from bench.schema import NO_CLASS, Samples
from bench.spec import SplitSpec, parse_sampling
from bench.splits.sampling import windows
from bench.splits.split import make_split

CLASSES = 8
PAYLOAD = 300  # bytes of each packet; windows read 256 of them
PACKETS, BYTES = 16, 256


def write_captures(folder: Path, sessions: int, packets: int) -> None:
    """One capture a class of UDP sessions of ``packets`` packets each, interleaved, both directions."""
    noise = np.random.default_rng(0).bytes(PAYLOAD + 4096)
    for label in range(CLASSES):
        mine = range(label, sessions, CLASSES)
        path = folder / f"class{label}" / "all.pcap"
        path.parent.mkdir(parents=True)
        with path.open("wb", buffering=1 << 20) as file:
            file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 101))  # raw IP
            for turn in range(packets):
                for one in mine:
                    file.write(packet(one, turn, noise))


def packet(session: int, turn: int, noise: bytes) -> bytes:
    """A record: header, IPv4, UDP, payload."""
    client, server = (b"\x0a" + session.to_bytes(3), 40000), (b"\xc0\xa8\x01\x01", 443)
    (source, sport), (target, dport) = (server, client) if turn % 2 else (client, server)
    size = 28 + PAYLOAD
    record = struct.pack("<IIII", 1_700_000_000 + turn, session, size, size)
    ip = struct.pack(">BBHHHBBH", 0x45, 0, size, 0, 0, 64, 17, 0) + source + target
    udp = struct.pack(">HHHH", sport, dport, 8 + PAYLOAD, 0)
    at = (session * 31 + turn) % 4096
    return record + ip + udp + noise[at : at + PAYLOAD]


def anonymous() -> int:
    """Anonymous memory of this process, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


@contextmanager
def measured(name: str, found: dict[str, tuple[float, float]]) -> Iterator[None]:
    """Seconds and peak of anonymous memory, MB, of a block."""
    before, done, peak = anonymous(), threading.Event(), [0]

    def sample() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], anonymous())

    thread = threading.Thread(target=sample)
    thread.start()
    started = time.perf_counter()
    yield
    seconds = time.perf_counter() - started
    peak[0] = max(peak[0], anonymous())
    done.set()
    thread.join()
    found[name] = seconds, (peak[0] - before) / 1e6


def once(name: str, sampling: str, answer: "multiprocessing.Queue[Any]") -> None:
    """Put the number of windows and all measurements of one sampling into ``answer``."""
    store = Store.find(name)
    labels = np.asarray(store.labels("label"))
    rows = np.flatnonzero(labels != NO_CLASS)
    make_split(store, "label", SplitSpec(max_per_class=10))  # compiled, columns mapped
    View(store, Samples(rows[:4], rows[:4] * 0, rows[:4] * 0 + 4), {"payload"}).payload(PACKETS, BYTES)
    found: dict[str, tuple[float, float]] = {}
    with measured("made", found):
        made = windows(parse_sampling(sampling), rows, store)
    with measured("split", found):
        split = make_split(store, "label", SplitSpec(sampling=sampling))
    with measured("paper", found):
        leaky = make_split(store, "label", SplitSpec("paper", sampling=sampling, balance="keep"))
    with measured("represented", found):
        arrays = [View(store, part, {"payload"}).payload(PACKETS, BYTES) for part in split.parts.values()]
    assert sum(map(len, arrays)) == len(made) == sum(map(len, leaky.parts.values()))
    answer.put((len(made), found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-session", type=int, nargs="+", default=[5, 10, 20, 40], help="windows a session")
    parser.add_argument("--sessions", type=int, default=10_000, help="sessions of the synthetic capture")
    parser.add_argument("--step", type=int, default=2, help="packets between the starts of windows")
    parser.add_argument("--folder", type=Path, default=None, help="where captures and store are made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        os.environ["BENCH_HOME"] = f"{folder}/home"
        packets = PACKETS + options.step * (max(options.per_session) - 1)
        write_captures(Path(folder) / "synthetic", options.sessions, packets)
        store = open_dataset(str(Path(folder) / "synthetic"))
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.pcap"))
        print(
            f"{options.sessions:,} sessions, {options.sessions * packets:,} packets, {size / 1e6:,.0f} MB of captures"
        )
        for number in options.per_session:
            sampling = f"window={PACKETS},step={options.step},per_session={number}"
            total, found = in_new_process(once, store.name, sampling)
            told = "; ".join(f"{what} {s:.2f} s, {mb:.0f} MB" for what, (s, mb) in found.items())
            print(f"{total:,} windows ({total * PACKETS * BYTES / 1e6:,.0f} MB of arrays): {told}")


if __name__ == "__main__":
    main()
