"""Broken captures by the thousand against the ingest, with the bounds of arrays checked: nothing may crash or lie.

    python benchmarks/fuzz.py [--seconds S] [--seed N] [--first N] [--corpus DIR] [--keep DIR]

A corpus of small captures (pcap and pcapng in both byte orders, every link type that tests know, tunnels, VLANs,
fragments, TCP with copies, retransmissions and keep-alives, compressed files; those of ../shared where they are) is
mutated: bits flipped, bytes and length fields set to extremes, files cut, spliced, parts doubled, taken out or zeroed.
Each case is read by `read_capture` with drawn `IngestOptions`; whatever the bytes, it must refuse them by an
InputError or give an index that is consistent (`broken`).  Case ``i`` of a seed depends on these two numbers and the
corpus alone: ``--first i`` begins with it.

The cases run in a second process with NUMBA_BOUNDSCHECK=1, which compiles the ingest anew into .fuzz_cache (a minute,
once), so that a crash or a hang (20 s) of compiled code is a finding, too.  The seconds count from the first case on.
A finding is a folder in ``--keep`` (default: fuzz-findings) with the capture, made smaller as far as it still fails,
``case.json`` (seed, case, options, what happened) and the trace; the script ends there with status 1.  After the mend
it is kept as a case: tests/kept/fuzz/README.md.
"""

import argparse
import contextlib
import dataclasses
import faulthandler
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fuzz_corpus import LARGEST, PACKERS, ROOT, Seed, captures, seed_of

from bench.errors import InputError
from bench.ingest import CaptureIndex, IngestOptions, inspect, read_capture
from bench.ingest.containers import AT, Walk, walk
from bench.ingest.options import CLIENT_RULES, PACKET_FILTERS, SESSION_RULES, TUNNELS
from bench.schema import CAPTURE_MAGICS, CLIENT_BY, MARK_COPY, PACKET_COLUMNS, SESSION_COLUMNS

KEPT = ROOT / "tests" / "kept" / "fuzz"
CACHE = ROOT / ".fuzz_cache"
FOUND = 3  # what the second process ends with
TWICE = 8  # so many cases a case that is read again
HANG = 20  # seconds that a case may take at most; most take a millisecond
COMPILING = 300  # and what is read before the first case: then all is compiled
SMALLER = 10.0  # seconds in which a finding is made smaller

#: what length fields are set to: bounds of types, of headers and of the ingest's own limits
EXTREMES = (
    *(0, 1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 15, 16, 19, 20, 21, 27, 28, 29, 32, 39, 40, 41, 127, 128, 255, 256, 1500),
    *(0x7FFF, 0x8000, 0xFFEF, 0xFFFE, 0xFFFF, 0x10000, 262_144, 262_145, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF),
)


# --- cases ---


@dataclass
class Case:
    """A capture that is to be read, and how."""

    number: int
    seed: str  # name of the capture that it was made from
    data: bytes
    options: IngestOptions


def case(seeds: list[Seed], seed: int, number: int) -> Case:
    """Case ``number`` of a seed."""
    rng = np.random.default_rng([seed, number])
    start = seeds[rng.integers(len(seeds))]
    data = bytearray(start.data)
    if len(start.records) and CAPTURE_MAGICS[start.data[:4]] == "pcap" and rng.random() < 0.5:
        _end_early(data, start, rng)
    for _ in range(rng.integers(0, 5)):
        if len(data) < 8:
            break
        _MUTATIONS[rng.integers(len(_MUTATIONS))](data, start, seeds, rng)
    if rng.random() < 0.05:
        data = bytearray(list(PACKERS.values())[rng.integers(len(PACKERS))](bytes(data)))
    return Case(number, start.name, bytes(data[: 4 * LARGEST]), _options(rng))


def _options(rng: np.random.Generator) -> IngestOptions:
    return IngestOptions(
        idle_timeout=[None, None, 1e-9, 0.001, 1.0, 9e9][rng.integers(6)],
        sessions=SESSION_RULES[rng.integers(2)],
        client=CLIENT_RULES[rng.integers(2)],
        decap=tuple(word for word in TUNNELS if rng.random() < 0.6) if rng.random() < 0.6 else (),
        drop_copies=[None, None, 0.0, 5.0, 9e9][rng.integers(5)],
        filter=tuple(word for word in PACKET_FILTERS if rng.random() < 0.25),
        by_vlan=bool(rng.random() < 0.3),
    )


def _place(data: bytearray, start: Seed, rng: np.random.Generator) -> int:
    """A position, more often than not one of a header; those of a file that was changed before are a little off."""
    if len(start.fields) and rng.random() < 0.7:
        return int(min(start.fields[rng.integers(len(start.fields))], len(data) - 1))
    return int(rng.integers(len(data)))


def _end_early(data: bytearray, start: Seed, rng: np.random.Generator) -> None:
    """End a pcap file within one of its packets, as its record says: what is read beyond it is read beyond the file."""
    at = int(start.records[rng.integers(len(start.records))])
    begin = at + (24 if 0xCD in data[1:3] else 16)
    left = int(rng.integers(min(len(data) - begin, 120 if rng.random() < 0.8 else LARGEST) + 1))
    data[at + 8 : at + 12] = left.to_bytes(4, "little" if data[0] in (0xD4, 0x4D, 0x34) else "big")
    del data[begin + left :]


def _flip(data: bytearray, start: Seed, seeds: list[Seed], rng: np.random.Generator) -> None:
    for _ in range(rng.integers(1, 9)):
        data[_place(data, start, rng)] ^= 1 << rng.integers(8)


def _set(data: bytearray, start: Seed, seeds: list[Seed], rng: np.random.Generator) -> None:
    for _ in range(rng.integers(1, 5)):
        data[_place(data, start, rng)] = (0, 1, 0x0F, 0x45, 0x60, 0x7F, 0x80, 0xFF, rng.integers(256))[rng.integers(9)]


def _length(data: bytearray, start: Seed, seeds: list[Seed], rng: np.random.Generator) -> None:
    """Set a number of two or four bytes to an extreme, or near what is left of the file."""
    size = (2, 4)[rng.integers(2)]
    at = min(_place(data, start, rng), len(data) - size)
    near = len(data) - at + int(rng.integers(-40, 9))
    value = near if rng.random() < 0.2 else EXTREMES[rng.integers(len(EXTREMES))]
    data[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "big" if rng.random() < 0.5 else "little")


def _cut(data: bytearray, start: Seed, seeds: list[Seed], rng: np.random.Generator) -> None:
    del data[_place(data, start, rng) :]


def _part(data: bytearray, rng: np.random.Generator) -> slice:
    """A part of the bytes, short more often than long."""
    at = int(rng.integers(len(data)))
    return slice(at, at + int(2 ** (rng.random() * np.log2(len(data)))))


def _take_out(data: bytearray, start: Seed, seeds: list[Seed], rng: np.random.Generator) -> None:
    del data[_part(data, rng)]


def _double(data: bytearray, start: Seed, seeds: list[Seed], rng: np.random.Generator) -> None:
    part = data[_part(data, rng)]
    at = _place(data, start, rng)
    data[at:at] = part


def _fill(data: bytearray, start: Seed, seeds: list[Seed], rng: np.random.Generator) -> None:
    part = _part(data, rng)
    data[part] = bytes([(0, 0, 0xFF)[rng.integers(3)]]) * len(data[part])


def _splice(data: bytearray, start: Seed, seeds: list[Seed], rng: np.random.Generator) -> None:
    """The rest, or the whole, of another capture from some place on."""
    other = seeds[rng.integers(len(seeds))]
    at = int(other.fields[rng.integers(len(other.fields))]) if len(other.fields) else 0
    data[_place(data, start, rng) :] = other.data[0 if rng.random() < 0.2 else at :]


_MUTATIONS = (_flip, _flip, _set, _set, _length, _length, _length, _cut, _take_out, _double, _fill, _splice)


# --- what must hold ---


def broken(index: CaptureIndex, options: IngestOptions) -> str:
    """What does not hold of an index that must hold of each; empty where all does."""
    return next((what for what, holds in _claims(index, options) if not holds), "")


def _claims(index: CaptureIndex, options: IngestOptions) -> Iterator[tuple[str, bool]]:
    packets, sessions, remarks = index.packets, index.sessions, index.remarks
    columns = {name: sessions[name] for name in sessions}
    count, parts = len(packets["time"]), len(columns["start"])
    yield (
        "packet columns",
        {name: (c.dtype, len(c)) for name, c in packets.items()}
        == {name: (dtype, count) for name, dtype in PACKET_COLUMNS.items()},
    )
    yield (
        "session columns",
        {name: (c.dtype, len(c)) for name, c in columns.items()}
        == {name: (dtype, parts) for name, dtype in SESSION_COLUMNS.items() if name in columns},
    )
    yield "records", index.records == count + sum(index.skipped.values()) + remarks.dropped
    leaves_out = options.drop_copies is not None or bool(options.filter)
    yield "dropped", remarks.dropped >= 0 if leaves_out else remarks.dropped == 0
    copies = int(np.count_nonzero(packets["marks"] & MARK_COPY))
    yield "copies", copies == (remarks.copies if options.drop_copies is None else 0)
    numbers = [*index.skipped.values(), *remarks.other_protocols.values(), *remarks.non_ip.values()]
    numbers += [*remarks.tunnelled.values(), remarks.lost_fragment_bytes, remarks.copies, remarks.odd_fractions]
    yield "counts", min([*numbers, remarks.sorted_sessions, remarks.contradictions, *remarks.times.values()]) >= 0
    yield "protocols", sum(remarks.other_protocols.values()) == index.skipped.get("other_protocol", 0)
    yield "carried", sum(remarks.non_ip.values()) == index.skipped.get("non_ip", 0)
    yield "damage", all(0 <= one.offset <= index.size and one.bytes_lost >= 0 for one in index.damage)
    yield from _packet_claims(index)
    first, starts = columns["first_packet"], np.append(columns["first_packet"], count)
    yield "first packets", bool((first == np.cumsum(columns["packets"]) - columns["packets"]).all())
    yield "packets of sessions", bool((columns["packets"] > 0).all()) and int(columns["packets"].sum()) == count
    if not parts:
        return
    lengths = packets["payload_length"].astype(np.int64)
    yield "payload bytes", bool((columns["payload_bytes"] == np.add.reduceat(lengths, first)).all())
    yield "payload packets", bool((columns["payload_packets"] == np.add.reduceat(lengths > 0, first, dtype=int)).all())
    time_of = packets["time"]
    inside = np.ones(count, bool)
    inside[first] = False
    yield "order", bool((np.diff(time_of)[inside[1:]] >= 0).all())
    yield "start", bool((columns["start"] == time_of[first]).all())
    lasted = columns["duration"]
    yield "duration", bool((lasted == time_of[starts[1:] - 1] - time_of[first]).all() and (lasted >= 0).all())
    yield "protocol", bool(np.isin(columns["protocol"], (6, 17)).all() and np.isin(columns["ip_version"], (4, 6)).all())
    yield "client", bool((columns["client_by"] > 0).all() and (columns["client_by"] < len(CLIENT_BY)).all())
    flags = np.repeat(columns["protocol"] == 17, columns["packets"])
    yield "flags of UDP", not packets["flags"][flags].any()
    unknown = (columns["client_by"] == 3) & (options.idle_timeout is None)
    yield "direction of the first", bool((packets["direction"][first[unknown]] == 1).all())


def _packet_claims(index: CaptureIndex) -> Iterator[tuple[str, bool]]:
    packets = {name: column.astype(np.int64) for name, column in index.packets.items()}
    begin = packets["record"] + packets["ip"]
    yield "place", bool((packets["record"] >= 24).all() and (begin + packets["captured"] <= index.size).all())
    yield "one place each", len(np.unique(packets["record"])) == len(begin)
    yield "captured", bool((packets["captured"] >= 20).all() and (packets["captured"] <= packets["length"]).all())
    yield "payload", bool((packets["payload"] >= 28).all())
    yield "length", bool((packets["payload"] + packets["payload_length"] <= packets["length"]).all())
    yield "direction", bool((np.abs(packets["direction"]) == 1).all())


def read(path: Path, options: IngestOptions, *, twice: bool) -> str:
    """What is wrong with the reading of a capture, else empty; with ``twice`` also whether it gives the same again."""
    try:
        index = read_capture(path, options)
    except InputError:
        return ""
    if (what := broken(index, options)) or not twice:
        return what
    seen, again = inspect(path, options), read_capture(path, options)  # each under another salt
    same = all(np.array_equal(index.sessions[name], again.sessions[name]) for name in index.sessions)
    same = same and all(np.array_equal(column, again.packets[name]) for name, column in index.packets.items())
    json.dumps(seen)
    return "" if same and seen["packets"] == index.records else "another reading gives something else"


def outcome(path: Path, data: bytes, options: IngestOptions, *, twice: bool = True) -> tuple[str, str]:
    """What is wrong with a capture, which is written to ``path``, and the trace of an exception; both empty if none."""
    path.write_bytes(data)
    try:
        return read(path, options, twice=twice), ""
    except Exception as error:
        return f"{type(error).__name__}: {error}", traceback.format_exc()


def kept_cases() -> Iterator[tuple[str, bytes, IngestOptions]]:
    """Name, capture and options of the findings that are kept."""
    for path in sorted(KEPT.glob("*.json")):
        described = json.loads(path.read_text())
        yield path.stem, path.with_suffix(".bin").read_bytes(), IngestOptions(**described["options"])


# --- the run ---


def smaller(path: Path, data: bytes, options: IngestOptions, what: str) -> bytes:
    """The capture without records, then without parts, that the finding does not need, as far as some seconds reach."""
    end = time.monotonic() + SMALLER

    def without(part: slice) -> bool:
        nonlocal data
        shorter = data[: part.start] + data[part.stop :]
        if time.monotonic() > end or outcome(path, shorter, options)[0] != what:
            return False
        data = shorter
        return True

    if data[:4] in CAPTURE_MAGICS:
        starts: list[int] = []
        with contextlib.suppress(Exception):  # perhaps the finding
            for batch in walk(np.frombuffer(data, np.uint8), Walk()):
                starts += batch[:, AT].tolist()
        for begin, stop in reversed(list(itertools.pairwise([*starts, len(data)]))):
            without(slice(begin, stop))
    for size in (1 << power for power in range(20, -1, -1)):
        at = 0
        while at < len(data) and time.monotonic() < end:
            at += 0 if without(slice(at, at + size)) else size
    return data


def keep(folder: Path, one: Case, seed: int, what: str, trace: str) -> None:
    """Write a finding and say where it is."""
    folder = folder / f"{seed}-{one.number}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "case.bin").write_bytes(one.data)
    described = {"seed": seed, "case": one.number, "from": one.seed, "what": what, "options": one.options.unusual}
    (folder / "case.json").write_text(json.dumps(described, indent=1) + "\n")
    (folder / "trace.txt").write_text(trace)
    print(f"seed {seed}, case {one.number} (from {one.seed!r}): {what}; {folder}", flush=True)


def work(options: argparse.Namespace) -> int:
    """The second process: `FOUND` where something was found."""
    path: Path = options.worker / "capture"
    tempfile.tempdir = str(options.worker)
    trace = (options.worker / "trace.txt").open("w")
    faulthandler.enable(trace)

    def found(one: Case, *, twice: bool) -> bool:
        (options.worker / "case.json").write_text(json.dumps([one.number, one.seed, one.options.unusual]))
        if twice:  # often enough, and not for every case: it takes a millisecond
            faulthandler.dump_traceback_later(HANG if one.number >= 0 else COMPILING, exit=True, file=trace)
        what, lines = outcome(path, one.data, one.options, twice=twice)
        if what:
            faulthandler.cancel_dump_traceback_later()
            data = smaller(path, one.data, one.options, what)
            keep(options.keep, dataclasses.replace(one, data=data), options.seed, what, lines)
        return bool(what)

    raw = captures(options.corpus)
    for name, data, rules in kept_cases():
        if found(Case(-1, name, data, rules), twice=True):
            return FOUND
    if any(found(Case(-1, name, data, IngestOptions()), twice=True) for name, data in raw):
        return FOUND
    seeds = [seed_of(name, data) for name, data in raw]
    number, begin = options.first, time.monotonic()
    while (passed := time.monotonic() - begin) < options.seconds:
        if found(case(seeds, options.seed, number), twice=number % TWICE == 0):
            return FOUND
        number += 1
    cases = number - options.first
    print(f"seed {options.seed}: {cases:,} cases from {len(seeds)} captures in {passed:.0f} s, ", end="")
    print(f"{cases / max(passed, 1e-9):,.0f} a second; nothing found")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--first", type=int, default=0, help="the case to begin with")
    parser.add_argument(
        "--corpus", type=Path, default=None, metavar="DIR", help="captures instead of those of ../shared"
    )
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), metavar="DIR", help="where findings go")
    parser.add_argument("--worker", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options)
    environment = os.environ | {
        "NUMBA_BOUNDSCHECK": "1",
        "NUMBA_CACHE_DIR": str(CACHE),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
    }
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="bench-fuzz-", dir=memory) as folder:
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", folder]
        status = subprocess.run(command, env=environment).returncode
        if status in (0, FOUND):
            return int(status == FOUND)
        described = Path(folder) / "case.json"
        if not described.is_file():
            print(f"no case was read: the process that reads them ended with {status}", file=sys.stderr)
            return 2
        number, name, rules = json.loads(described.read_text())
        data, trace = (Path(folder) / "capture").read_bytes(), (Path(folder) / "trace.txt").read_text()
        what = f"ended by signal {-status}" if status < 0 else f"took too long, or ended with {status}"
        keep(options.keep, Case(number, name, data, IngestOptions(**rules)), options.seed, what, trace)
    return 1


if __name__ == "__main__":
    sys.exit(main())
