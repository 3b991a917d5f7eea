"""What `bench inspect` counts against what tshark counts, over any folder of captures: only differences are listed.

    python benchmarks/captures.py DIR [--limit N] [--jobs N] [--json]

Compared for every capture: records, TCP and UDP conversations (5-tuples of the outermost IP header), their payload
bytes, TCP sessions (tshark: streams), retransmissions (tshark: also fast and spurious ones), keep-alives, and copies
(tshark: TCP and UDP frames with the MD5 of another within 5 ms).  Then, packet by packet, what the two call a TCP
packet where they disagree.  Status 1 if conversations or payload differ in a capture, 2 if tshark is missing.

Differences that come from definitions, not from faults (ours: bench/ingest/connections.py, bench/ingest/headers.py):

- records: zeros in a file that was made in advance are damage for us, empty records for tshark; a record that claims
  more than 262,144 bytes ends our reading before it, tshark's behind it.
- sessions: ours begin where a SYN with another sequence number follows a FIN or RST of the 5-tuple; tshark begins a
  stream at any SYN with another number, and where a dissector (VNC) makes a conversation of its own.
- copies: ours compare from the IP header on, but for TTL and checksums, so that what a router or another interface
  repeats is a copy, too; tshark's frames are equal in all.  An acknowledgement that is sent twice with the same IP
  identification (0, mostly) is a copy for both.
- retransmissions: a copy is none of ours (``copy | retransmission``).  Bytes out of order are a packet that was
  overtaken, for us within 3 ms and until they are acknowledged, for tshark within the handshake's round trip
  (``retransmission | out of order``), not where the clock stepped back between the two or the other side has asked for
  them twice (``- | retransmission``).
- keep-alives: tshark's rule (at most one byte, one before the next), and for us also the last byte but one, sent late
  on a side that has not ended (``keep-alive | retransmission``).
- payload: where IP's length goes beyond the frame's, we believe the header, tshark the frame; where UDP's goes beyond
  IP's, we believe IP, tshark UDP.  Both count of a first fragment what it carries.
- conversations: a TCP header below 20 bytes or beyond its packet is a bad header and no packet of ours.
- tunnels: both count the outermost IP header.  tshark knows link layers that we do not look through (Cisco FabricPath).

tshark runs on the unpacked capture with settings of its own: no IP reassembly, an empty configuration.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.sources import captures_below
from bench.errors import InputError
from bench.ingest import CaptureIndex, inspect, read_capture
from bench.ingest.connections import COPY_WINDOW
from bench.ingest.containers import AT, Walk, walk
from bench.render.table import printable
from bench.schema import MARK_COPY, MARK_KEEPALIVE, MARK_RETRANSMISSION

#: what is compared, for people
COUNTS = {
    "records": "records",
    "tcp": "TCP conversations",
    "udp": "UDP conversations",
    "payload": "payload bytes",
    "sessions": "TCP sessions",
    "retransmissions": "retransmissions",
    "keepalives": "keep-alives",
    "copies": "copies",
}
#: of these, what must not differ
STRICT = ("tcp", "udp", "payload")

FIELDS = (
    *("frame.number", "frame.time_epoch", "frame.protocols", "frame.md5_hash"),
    *("ip.src", "ip.dst", "ip.len", "ip.hdr_len", "ip.flags.mf", "ipv6.src", "ipv6.dst", "ipv6.plen"),
    *("ipv6.fraghdr.more", "tcp.srcport", "tcp.dstport", "tcp.len", "udp.srcport", "udp.dstport", "udp.length"),
    *("tcp.stream", "tcp.analysis.keep_alive", "tcp.analysis.retransmission", "tcp.analysis.out_of_order"),
)
SETTINGS = (
    *("ip.defragment:FALSE", "ipv6.defragment:FALSE", "tcp.desegment_tcp_streams:FALSE"),
    *("tcp.analyze_sequence_numbers:TRUE", "frame.generate_md5_hash:TRUE"),
)
#: what may stand between an IP header and TCP or UDP
BETWEEN = ("ipv6.hopopts", "ipv6.routing", "ipv6.dstopts", "ipv6.fraghdr", "ah")
#: what a TCP packet is called, by the first of these that it has; all else is `PLAIN`
OURS = {MARK_COPY: "copy", MARK_KEEPALIVE: "keep-alive", MARK_RETRANSMISSION: "retransmission"}
THEIRS = {
    "tcp.analysis.keep_alive": "keep-alive",
    "tcp.analysis.retransmission": "retransmission",
    "tcp.analysis.out_of_order": "out of order",
}
PLAIN = "-"

INSTALL = "tshark is not here; install it: apt-get install tshark (Debian, Ubuntu), or Wireshark from wireshark.org"


@dataclass
class Seen:
    """What one of the two counts in a capture."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    packets: dict[int, str] = field(default_factory=dict)  # number of the record, from 1 -> what a TCP packet is called
    error: str = ""


@dataclass
class Compared:
    """A capture by both."""

    capture: str
    bench: Seen
    tshark: Seen

    @property
    def differing(self) -> list[str]:
        """The names of counts that are not equal."""
        return [name for name in COUNTS if self.bench.counts[name] != self.tshark.counts[name]]

    @property
    def called(self) -> Counter[tuple[str, str]]:
        """How many packets the two call differently, by what each says; of those that both know."""
        both = self.bench.packets.keys() & self.tshark.packets.keys()
        pairs = Counter((self.bench.packets[number], self.tshark.packets[number]) for number in both)
        return Counter({pair: count for pair, count in pairs.items() if pair[0] != pair[1]})


def with_bench(path: Path, work: Path) -> tuple[Seen, Path]:
    """What `inspect` counts, and the file that tshark is to read."""
    try:
        index = read_capture(path, work=work)
    except InputError as error:
        return Seen(error=str(error).removeprefix(f"{path}: ")), path
    seen = inspect(index.bytes_path)
    counts = {
        "records": seen["packets"],
        "tcp": seen["tcp_conversations"],
        "udp": seen["udp_conversations"],
        "payload": seen["payload_bytes"],
        "sessions": int(np.count_nonzero(index.sessions["protocol"] == 6)),
        "retransmissions": seen["retransmissions"],
        "keepalives": seen["keepalives"],
        "copies": seen["copies"],
    }
    return Seen(counts, _called(index)), index.bytes_path


def _called(index: CaptureIndex) -> dict[int, str]:
    """`Seen.packets` of an index; none where records of zeros were stepped over: tshark numbers them, too."""
    notes = Walk()
    data = np.fromfile(index.bytes_path, np.uint8)
    batches = [batch[:, AT].copy() for batch in walk(data, notes)]
    if notes.zeros or not batches:
        return {}
    numbers = np.searchsorted(np.concatenate(batches), index.packets["record"]) + 1
    tcp = np.repeat(index.sessions["protocol"] == 6, index.sessions["packets"])
    packets = zip(numbers[tcp].tolist(), index.packets["marks"][tcp].tolist(), strict=True)
    return {number: next((OURS[one] for one in OURS if marks & one), PLAIN) for number, marks in packets}


def with_tshark(path: Path, settings: Path) -> Seen:
    """What tshark counts; ``settings`` is an empty folder in the place of the user's own."""
    seen, ends, streams = Seen(), set(), set()
    last: dict[str, int] = {}  # MD5 of a frame -> when it was there last, ns
    for row in _rows(path, settings, seen):
        seen.counts["records"] += 1
        outer, transport = outermost(row["frame.protocols"].split(":"))
        if not row.get(f"{transport}.srcport"):
            continue
        sides = sorted((row[f"{outer}.{side}"], row[f"{transport}.{side}port"]) for side in ("src", "dst"))
        ends.add((transport, *sides))
        seen.counts["payload"] += payload(row, outer, transport)
        digest, time = row["frame.md5_hash"], int(Decimal(row["frame.time_epoch"] or 0).scaleb(9))
        seen.counts["copies"] += digest in last and abs(time - last[digest]) <= COPY_WINDOW
        last[digest] = time
        if transport == "tcp":
            streams.add(row["tcp.stream"])
            seen.packets[int(row["frame.number"])] = next((THEIRS[one] for one in THEIRS if row[one]), PLAIN)
    called = Counter(seen.packets.values())
    seen.counts |= {
        "tcp": sum(one[0] == "tcp" for one in ends),
        "udp": sum(one[0] == "udp" for one in ends),
        "sessions": len(streams),
        "retransmissions": called["retransmission"],
        "keepalives": called["keep-alive"],
    }
    return seen


def _rows(path: Path, settings: Path, seen: Seen) -> Iterator[Mapping[str, str]]:
    """The records of a capture as tshark tells them, by field; what it ends with goes to ``seen``."""
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "occurrence=f"]
    command += [word for one in SETTINGS for word in ("-o", one)] + [word for one in FIELDS for word in ("-e", one)]
    environment = os.environ | {"WIRESHARK_CONFIG_DIR": str(settings)}
    silent = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=silent, text=True, env=environment) as process:
        assert process.stdout
        for line in process.stdout:
            yield dict(zip(FIELDS, line.rstrip("\n").split("\t"), strict=True))
    seen.error = f"tshark ended with {process.returncode}" if process.returncode else ""


def outermost(protocols: Sequence[str]) -> tuple[str, str]:
    """The outermost IP header's protocol and what it carries, as tshark calls them; empty where there is no IP."""
    for place, name in enumerate(protocols):
        if name in ("ip", "ipv6"):
            return name, next((one for one in protocols[place + 1 :] if one not in BETWEEN), "")
    return "", ""


def payload(row: Mapping[str, str], outer: str, transport: str) -> int:
    """Payload bytes of a TCP or UDP packet; of a first fragment those that it carries."""
    if transport == "tcp":
        return int(row["tcp.len"] or 0)
    size = max(int(row["udp.length"] or 0) - 8, 0)
    if outer == "ip" and row["ip.flags.mf"] in ("1", "True"):
        return min(size, int(row["ip.len"]) - int(row["ip.hdr_len"]) - 8)
    if outer == "ipv6" and row["ipv6.fraghdr.more"] in ("1", "True"):
        return min(size, int(row["ipv6.plen"]) - 16)
    return size


def compared(path: Path, folder: Path) -> Compared:
    """A capture by both; compressed ones are unpacked for a while."""
    with tempfile.TemporaryDirectory(prefix="bench-captures-") as work:
        (settings := Path(work) / "settings").mkdir()
        bench, plain = with_bench(path, Path(work))
        return Compared(str(path.relative_to(folder)), bench, with_tshark(plain, settings))


def differences(all_of: Sequence[Compared]) -> Iterator[tuple[str, ...]]:
    """Rows of a table, the head first: capture, what, by us, by tshark, remarks."""
    yield "capture", "what", "bench", "tshark", "remarks"
    for one in all_of:
        remarks = "; ".join(filter(None, (one.bench.error, one.tshark.error)))
        for name in one.differing:
            yield one.capture, COUNTS[name], f"{one.bench.counts[name]:,}", f"{one.tshark.counts[name]:,}", remarks
            remarks = ""


def agreement(all_of: Sequence[Compared]) -> str:
    """How many captures agree in what, a line."""
    agree = (f"{what} {sum(name not in one.differing for one in all_of)}" for name, what in COUNTS.items())
    return f"{len(all_of)} captures; equal in {', '.join(agree)}; in all {sum(not one.differing for one in all_of)}"


def as_text(all_of: Sequence[Compared]) -> str:
    """What is printed for people."""
    rows = [tuple(printable(cell) for cell in row) for row in differences(all_of)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines = lines if len(lines) > 1 else []
    for (ours, theirs), count in sorted(sum((one.called for one in all_of), Counter[tuple[str, str]]()).items()):
        lines.append(f"TCP packets: {ours} | {theirs} (bench | tshark): {count:,}")
    totals = (
        f"{what} {sum(one.bench.counts[name] for one in all_of):,} | {sum(one.tshark.counts[name] for one in all_of):,}"
        for name, what in COUNTS.items()
    )
    return "\n".join([*lines, f"sums (bench | tshark): {', '.join(totals)}", agreement(all_of)])


def as_json(all_of: Sequence[Compared]) -> str:
    """What is printed for programs: every capture, not those that differ alone."""
    captures: list[dict[str, Any]] = [
        {
            "capture": one.capture,
            "bench": one.bench.counts,
            "tshark": one.tshark.counts,
            "differing": one.differing,
            "packets": {f"{ours} | {theirs}": count for (ours, theirs), count in sorted(one.called.items())},
            "errors": {"bench": one.bench.error, "tshark": one.tshark.error},
        }
        for one in all_of
    ]
    return json.dumps({"captures": captures, "equal": agreement(all_of)}, indent=1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="captures, in it and below")
    parser.add_argument("--limit", type=int, default=None, help="so many captures at most, the first by name")
    parser.add_argument("--jobs", type=int, default=1, help="captures at a time")
    parser.add_argument("--json", action="store_true", help="every capture's counts, as JSON")
    options = parser.parse_args()
    if shutil.which("tshark") is None:
        print(INSTALL, file=sys.stderr)
        return 2
    try:
        paths = captures_below(options.folder)[: options.limit]
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    with ThreadPoolExecutor(options.jobs) as pool:
        all_of = list(pool.map(lambda path: compared(path, options.folder), paths))
    print(as_json(all_of) if options.json else as_text(all_of))
    return int(any(name in STRICT for one in all_of for name in one.differing))


if __name__ == "__main__":
    sys.exit(main())
