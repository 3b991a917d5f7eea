"""Stand-ins for a published data set: small captures under the names of a card's list, with its documented defects.

They try a card from one end to the other without its data; results on them say nothing.  Every capture has a few
sessions of random payload.  One 5-tuple is shared by the captures of a group (two ends of a call) and one by all
captures (a resolver that everybody asks), so that splits have something to keep together.
"""

import csv
import hashlib
import re
import shutil
import struct
import tomllib
from pathlib import Path
from typing import Final

import numpy as np

from bench.data.cards import FileLabels, card_file, find_card
from bench.data.file_list import RESERVED, Listed, capture_key
from bench.errors import InputError

ETHERNET: Final = 1  # link types of pcap
RAW_IP: Final = 101
SESSIONS: Final = 3  # of a capture's own, over TCP and UDP in turn
START: Final = 1_430_000_000  # seconds since 1970

Record = tuple[int, bytes]  # µs since 1970, IP packet


def write_standins(
    name_or_path: str | Path, folder: Path, *, pcapng: str | None = None, raw: str | None = None
) -> Path:
    """Write all captures of a card's list into ``folder / "captures"``, and a copy of the card, given by its name or
    path, whose list has their numbers of packets into ``folder``; returns that copy's path.

    ``pcapng`` and ``raw`` are regular expressions over a listed file's name: captures that are pcapng whatever their
    name says, and captures of bare IP packets.  A name that ends in ``.pcapng`` is one anyway.  Of a capture that is
    listed as damaged the last record is cut.  Raises :class:`InputError` for a card without a list
    and for the folder of the card itself.
    """
    card, file = find_card(name_or_path), card_file(name_or_path)
    if file is None or not isinstance(card.labels, FileLabels):
        raise InputError(f"{name_or_path}: its card has no list of captures; stand-ins need one")
    if (copy := folder / file.name).resolve() == file.resolve():
        raise InputError(f"{folder}: holds the card itself, whose list stand-ins would replace; give another folder")
    table = folder / tomllib.loads(file.read_text(encoding="utf-8"))["labels"]["table"]
    if not table.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{file}: its list does not lie beside it or below; stand-ins of both need one folder")
    files, packets = card.labels.table.files, {}
    originals = {capture_key(listed.file): listed for listed in files if not listed.copy_of}
    for listed in files:
        one = originals.get(capture_key(listed.copy_of), listed)
        records = _records(one)
        packets[listed.file] = len(records) - (one.damaged == "yes")
        new = one.file.endswith(".pcapng") or (pcapng is not None and re.search(pcapng, one.file))
        link = RAW_IP if raw is not None and re.search(raw, one.file) else ETHERNET
        data = (_pcapng if new else _pcap)(records, link)
        path = folder / "captures" / listed.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data[:-7] if one.damaged == "yes" else data)
    table.parent.mkdir(parents=True, exist_ok=True)
    _write_list(table, files, packets)
    return Path(shutil.copyfile(file, copy))


def _write_list(path: Path, files: tuple[Listed, ...], packets: dict[str, int]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*RESERVED, *files[0].labels], lineterminator="\n")
        writer.writeheader()
        writer.writerows(listed.flat() | {"packets": packets[listed.file]} for listed in files)


def _records(listed: Listed) -> list[Record]:
    """The packets of a capture, by time."""
    own, shared = _draw(listed.file), _draw(listed.group or listed.file)
    names = [(own, True), (own, False)] * SESSIONS
    records = [record for draw, tcp in names[:SESSIONS] for record in _session(draw, tcp)]
    records += _session(shared, False) + _session(_draw(""), True)
    return sorted(records, key=lambda record: record[0])


def _draw(name: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:16]))


def _session(draw: np.random.Generator, tcp: bool) -> list[Record]:
    """Two to eight packets with payload, from the client first."""
    client, server = (bytes([10, net, *draw.integers(1, 255, 2).tolist()]) for net in (1, 2))
    port = int(draw.integers(20_000, 60_000))
    time = START * 1_000_000 + int(draw.integers(3_600_000_000))
    records: list[Record] = []
    for number in range(int(draw.integers(2, 9))):
        sender, receiver = ((client, port), (server, 443))[:: -1 if number % 2 else 1]
        records.append((time, _packet(sender, receiver, draw.bytes(int(draw.integers(1, 200))), tcp, number)))
        time += int(draw.integers(1, 500_000))
    return records


def _packet(a: tuple[bytes, int], b: tuple[bytes, int], payload: bytes, tcp: bool, number: int) -> bytes:
    """An IPv4 packet; checksums are left zero."""
    if tcp:
        segment = struct.pack(">2H2I2B3H", a[1], b[1], number, 0, 5 << 4, 0x18, 64_240, 0, 0) + payload
    else:
        segment = struct.pack(">4H", a[1], b[1], 8 + len(payload), 0) + payload
    head = struct.pack(">2B3H2BH", 0x45, 0, 20 + len(segment), number, 0, 64, 6 if tcp else 17, 0)
    return head + a[0] + b[0] + segment


def _frame(packet: bytes, link: int) -> bytes:
    return packet if link == RAW_IP else bytes(12) + b"\x08\0" + packet


def _pcap(records: list[Record], link: int) -> bytes:
    parts = [struct.pack("<I2H4I", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, link)]
    for time, packet in records:
        frame = _frame(packet, link)
        parts.append(struct.pack("<4I", *divmod(time, 1_000_000), len(frame), len(frame)) + frame)
    return b"".join(parts)


def _pcapng(records: list[Record], link: int) -> bytes:
    parts = [_block(0x0A0D0D0A, struct.pack("<I2Hq", 0x1A2B3C4D, 1, 0, -1)), _block(1, struct.pack("<2HI", link, 0, 0))]
    for time, packet in records:
        frame = _frame(packet, link)
        head = struct.pack("<5I", 0, time >> 32, time & 0xFFFFFFFF, len(frame), len(frame))
        parts.append(_block(6, head + frame + bytes(-len(frame) % 4)))
    return b"".join(parts)


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + length + body + length
