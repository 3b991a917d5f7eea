"""How fast tables of records become a store, in how much memory, against pandas doing the same.

    python benchmarks/prepare_records.py [--packets 10000000]

Writes Parquet tables of a fourth, a half and all of the packets, then measures each as a process of its own, one after
the other: `prepare_dataset`, and pandas (read the table, explode the lists, compute times, lengths and sums by session,
write the same columns to Parquet).  Prints rows and packets a second and the peak of anonymous memory (RssAnon in
/proc/self/status, sampled each 2 ms: pages of mapped files do not count); ``empty`` imports what either does.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

MEAN = 30  # packets a record
CARD = """name = "made"
title = "made records"
kind = "records"
[records]
capture = "capture"
endpoints = ["src", "sport", "dst", "dport"]
protocol = "proto"
start = "start"
lengths = "sizes"
directions = "dirs"
gaps = "gaps"
time_unit = "ms"
[labels]
kind = "columns"
paths = { label = "label" }
[tasks.label]
"""


def write(path: Path, packets: int) -> int:
    """A table with about so many packets; returns its rows."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, draw, chunk = packets // MEAN, np.random.default_rng(0), 50_000
    with pq.ParquetWriter(path, _schema(pa)) as writer:
        for first in range(0, rows, chunk):
            n = min(chunk, rows - first)
            sizes = draw.integers(1, 2 * MEAN, n)
            offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))
            total = int(sizes.sum())
            number = np.arange(first, first + n)
            columns = {
                "capture": [f"capture-{i // 500}" for i in number],
                "src": [f"10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}" for i in number],
                "sport": 1024 + number % 60_000,
                "dst": [f"192.0.2.{i % 250}" for i in number],
                "dport": np.full(n, 443),
                "proto": np.where(number % 3, 6, 17),
                "start": 1.6e9 + number / 10,
                "sizes": pa.ListArray.from_arrays(offsets, draw.integers(0, 1460, total).astype(np.int32)),
                "dirs": pa.ListArray.from_arrays(offsets, draw.choice(np.array([1, -1], np.int8), total)),
                "gaps": pa.ListArray.from_arrays(offsets, draw.integers(0, 100, total).astype(np.int32)),
                "label": [f"app-{i % 20}" for i in number],
            }
            writer.write_table(pa.table(columns, schema=_schema(pa)))
    return rows


def _schema(pa: Any) -> Any:
    kinds = {"capture": pa.string(), "src": pa.string(), "sport": pa.int32(), "dst": pa.string(), "dport": pa.int32()}
    kinds |= {"proto": pa.int8(), "start": pa.float64(), "sizes": pa.list_(pa.int32()), "dirs": pa.list_(pa.int8())}
    return pa.schema(kinds | {"gaps": pa.list_(pa.int32()), "label": pa.string()})


def ours(folder: Path, home: Path) -> None:
    """As `bench prepare` does it."""
    from bench.data.names import find_card
    from bench.data.prepare import prepare_dataset

    prepare_dataset(find_card(folder / "made.toml"), folder / "table", home=home)


def pandas_(folder: Path, home: Path) -> None:
    """The same columns by pandas."""
    import numpy as np
    import pandas as pd

    table = pd.read_parquet(folder / "table" / "made.parquet")
    packets = table[["proto", "start", "sizes", "dirs", "gaps"]].explode(["sizes", "dirs", "gaps"])
    packets["gaps"] = packets["gaps"].astype("int64")
    packets["time"] = (packets["start"] * 1e9).astype("int64") + packets.groupby(level=0)["gaps"].cumsum() * 10**6
    packets["payload_length"] = packets["sizes"].astype("uint32")
    packets["length"] = packets["payload_length"] + np.where(packets["proto"] == 6, 40, 28).astype("uint32")
    packets["direction"] = packets["dirs"].astype("int8")
    grouped = packets.groupby(level=0)
    sessions = table[["capture", "src", "sport", "dst", "dport", "proto", "label"]].copy()
    sessions["packets"], sessions["payload_bytes"] = grouped.size(), grouped["payload_length"].sum()
    sessions["payload_packets"] = (packets["payload_length"] > 0).groupby(level=0).sum()
    sessions["start"], sessions["duration"] = grouped["time"].min(), grouped["time"].max() - grouped["time"].min()
    ends = [np.minimum(sessions.src, sessions.dst), np.maximum(sessions.src, sessions.dst)]
    sessions["conversation"] = sessions.assign(a=ends[0], b=ends[1]).groupby(["a", "b", "sport", "dport"]).ngroup()
    home.mkdir(parents=True, exist_ok=True)
    packets[["time", "length", "payload_length", "direction"]].to_parquet(home / "packets.parquet")
    sessions.to_parquet(home / "sessions.parquet")


def empty(folder: Path, home: Path) -> None:
    """What either imports."""
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    import bench.data.prepare  # noqa: F401


WORK = {"ours": ours, "pandas": pandas_, "empty": empty}


def watch(peak: list[int]) -> None:
    """Keep the most anonymous memory, in kB, that this process has had."""
    status = Path("/proc/self/status")
    while True:
        peak[0] = max(peak[0], int(re.search(r"RssAnon:\s*(\d+)", status.read_text())[1]))  # type: ignore[index]
        time.sleep(0.002)


def measured(what: str, folder: Path) -> dict[str, float]:
    """Seconds and peak memory in MB of one of `WORK` in a process of its own."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as home:
        command = [sys.executable, __file__, "--one", what, "--folder", str(folder), "--home", f"{home}/home"]
        out = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    result: dict[str, float] = json.loads(out.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--packets", type=int, default=10_000_000)
    parser.add_argument("--one")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--home", type=Path)
    asked = parser.parse_args()
    if asked.one:
        peak = [0]
        threading.Thread(target=watch, args=(peak,), daemon=True).start()
        started = time.perf_counter()
        WORK[asked.one](asked.folder, asked.home)
        print(json.dumps({"seconds": time.perf_counter() - started, "mb": peak[0] / 1024}))
        return
    print(
        f"{'packets':>12} {'records':>9} {'what':>8} {'seconds':>8} {'records/s':>10} {'packets/s':>11} {'peak MB':>8}"
    )
    for part in (4, 2, 1):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "data"
            (folder / "table").mkdir(parents=True)
            (folder / "made.toml").write_text(CARD)
            packets = asked.packets // part
            rows = write(folder / "table" / "made.parquet", packets)
            for what in ("empty", "ours", "pandas", "ours", "pandas"):
                got = measured(what, folder)
                rates = (
                    f"{rows / got['seconds']:10.0f} {packets / got['seconds']:11.0f}" if what != "empty" else " " * 22
                )
                print(f"{packets:>12,} {rows:>9,} {what:>8} {got['seconds']:8.1f} {rates} {got['mb']:8.0f}", flush=True)


if __name__ == "__main__":
    main()
