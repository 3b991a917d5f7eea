"""Synthetic captures in place of a published data set's: small, under the names of its list, with its known defects.

They try a card from one end to the other without its data; results on them say nothing.  Every capture has a few
sessions of random payload.  One 5-tuple is shared by the captures of a group (two ends of a call) and one by all
captures (a resolver that everybody asks), so that splits have something to keep together.
"""

import csv
import hashlib
import re
import socket
import tomllib
from pathlib import Path
from typing import Final

import numpy as np

from bench.data.card_tables import FileLabels
from bench.data.cards import card_file
from bench.data.file_list import RESERVED, Listed, capture_key
from bench.data.names import find_card
from bench.errors import InputError
from bench.files import write_text, written
from bench.generators.packet_writer import ETHERNET, RAW_IP, heading, write_capture

PREFIX: Final = "synthetic-"  # of the copied card's name
SESSIONS: Final = 3  # of a capture's own, over TCP and UDP in turn
START: Final = 1_430_000_000  # seconds since 1970

Record = tuple[int, bytes]  # µs since 1970, Ethernet frame


def write_synthetic_captures(
    name_or_path: str | Path, folder: Path, *, pcapng: str | None = None, raw: str | None = None
) -> Path:
    """Write all captures of a card's list into ``folder / "captures"``, and a copy of the card, given by its name or
    path, whose list has their numbers of packets into ``folder``; returns that copy's path.

    The copy is called ``synthetic-`` and the card's name: a result on it is none of the published data set.
    ``pcapng`` and ``raw`` are regular expressions over a listed file's name: captures that are pcapng whatever their
    name says, and captures of bare IP packets.  A name that ends in ``.pcapng`` is one anyway.  Of a capture that is
    listed as damaged the last record is cut.  Raises :class:`InputError` for a card without a list
    and for the folder of the card itself.
    """
    card, file = find_card(name_or_path), card_file(name_or_path)
    if file is None or not isinstance(card.labels, FileLabels):
        raise InputError("bad-card", f"{name_or_path}: its card has no list of captures; synthetic captures need one")
    if folder.resolve() == file.resolve().parent:
        raise InputError(
            "bad-card",
            f"{folder}: holds the card itself, whose list synthetic captures would replace; give another folder",
        )
    text = file.read_text(encoding="utf-8")
    table = folder / tomllib.loads(text)["labels"]["table"]
    if not table.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            "bad-card", f"{file}: its list does not lie beside it or below; synthetic captures of both need one folder"
        )
    files, packets = card.labels.table.files, {}
    originals = {capture_key(listed.file): listed for listed in files if not listed.copy_of}
    for listed in files:
        one = originals.get(capture_key(listed.copy_of), listed)
        records = _records(one)
        packets[listed.file] = len(records) - (one.damaged == "yes")
        new = one.file.endswith(".pcapng") or (pcapng is not None and re.search(pcapng, one.file))
        link = RAW_IP if raw is not None and re.search(raw, one.file) else ETHERNET
        path = folder / "captures" / listed.file
        write_capture(path, records, link_type=link, pcapng=bool(new))
        if one.damaged == "yes":
            path.write_bytes(path.read_bytes()[:-7])
    _write_list(table, files, packets)
    copy = folder / f"{PREFIX}{file.name}"
    text = re.sub(r"(?ms)^\[download_list\]$.*?(?=^\[)", "", text)  # of the published files
    write_text(copy, re.sub(r"(?m)^(name\s*=\s*[\"'])", rf"\g<1>{PREFIX}", text, count=1))
    return copy


def _write_list(path: Path, files: tuple[Listed, ...], packets: dict[str, int]) -> None:
    with written(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
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
    ends = (socket.inet_ntoa(client), port), (socket.inet_ntoa(server), 443)
    numbers = (0, 0) if tcp else None
    heads = [
        heading(ends[::way], numbers=numbers, ttl=64, identification=0, client=way > 0)  # type: ignore[arg-type]
        for way in (1, -1)
    ]
    sent, records = [0, 0], []
    for number in range(int(draw.integers(2, 9))):
        side, payload = number % 2, draw.bytes(int(draw.integers(1, 200)))
        records.append((time, heads[side].frame(payload, number, "PA", sent[side], sent[1 - side])))
        sent[side] += len(payload)
        time += int(draw.integers(1, 500_000))
    return records
