"""Which column of a table of flow records is what, and what such records cannot tell.

A column is named by its path: ``packets.b`` is the key ``b`` of every packet in the list ``packets``, ``PPI[2]`` the
third list in the column ``PPI``, also where that is text; a name with a dot in it stands in backquotes: ```ip.len```;
``a|b`` is the first of two single values that is not empty.  Only the standard library is imported here, as listing
commands read cards.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from bench.structure import FieldError, Ruled, rule

#: of which layer a length counts the bytes: the frame with its Ethernet header, the IP packet, TCP or UDP with their
#: header, the payload
LAYERS: Final = ("frame", "ip", "transport", "payload")
#: units of times -> ns
UNITS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
PROTOCOLS: Final = {"tcp": 6, "udp": 17, "6": 6, "17": 17}
_ONE: Final = r"(`[^`]+`|[^.\[\]{}|`]+)((?:\.[^.\[\]{}|`]+|\[\d+\])*)"
PATH: Final = re.compile(f"{_ONE}(?:[|]{_ONE})*")

_BYTES: Final = "records hold no bytes of packets"


@dataclass(frozen=True)
class Layout(Ruled):
    """The columns of a table with one row a record; what is empty, the table does not have.

    Lists of one record are equally long.  The source of a record is the end point that sent its first packet.
    """

    lengths: str  # list of bytes a packet
    rows: str = "records"  # or "packets": a row is one packet, and records are those of one 5-tuple in one file
    without_length: int = -1  # bytes that a packet without a length is taken for, and marked; -1: it is refused
    layer: str = "payload"  # of `LAYERS`: which bytes lengths count
    signed: bool = False  # a length is negative where the packet goes to the source
    directions: str = ""  # list
    forward: str = "1"  # what stands there for a packet from the source; any other value is one to it
    padding: str = ""  # what stands there where there is no packet, in lists that are all equally long
    times: str = ""  # list: since the start of the record, or since any other time
    gaps: str = ""  # list: since the packet before, the first since the start of the record
    time_unit: str = "s"  # of `UNITS`; of times or gaps
    start: str = ""  # number or time; text as in ISO 8601
    start_unit: str = "s"  # of a number
    capture: str = ""  # what the record was captured in, or a text with "{column}" in it; "": each file is one capture
    endpoints: tuple[str, ...] = ()  # address and port of the source, address and port of the destination
    protocol: str = ""  # 6, 17, TCP or UDP; or one of these words, which then holds for all records
    returned: str = ""  # number of packets that came back; where there is none, all packets are from the source
    totals: tuple[str, ...] = ()  # numbers whose sum is how many packets the record has, listed or not
    limit: int = 0  # how many packets are listed at most, where `totals` do not tell; 0: not known
    payload_only: bool = False  # packets without payload are not listed
    join: bool = False  # records of one 5-tuple of a capture are one session, which a time-out cut

    @rule("rows", "layer", "time_unit", "start_unit")
    def _words_are_known(self) -> Iterator[FieldError]:
        units = tuple(UNITS)
        choices = {"rows": ("records", "packets"), "layer": LAYERS, "time_unit": units, "start_unit": units}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                yield FieldError(name, f"there are: {', '.join(known)}")

    @rule("lengths", "directions", "times", "gaps", "endpoints", "totals", "capture", "start", "returned", "protocol")
    def _paths_lead_somewhere(self) -> Iterator[FieldError]:
        for column in self.paths:
            if not PATH.fullmatch(column):
                yield FieldError("", f"column {column!r}: write NAME, NAME.KEY or NAME[N]")

    @rule(*"lengths rows without_length signed directions padding times gaps start capture endpoints".split(),
          *"returned totals limit join".split())  # fmt: skip
    def _columns_go_together(self) -> Iterator[FieldError]:
        yield from (FieldError(name, reason) for name, wrong, reason in self._combinations() if wrong)

    def _combinations(self) -> Iterator[tuple[str, bool, str]]:
        """Fields, whether they are wrong, and why."""
        yield "gaps", bool(self.times and self.gaps), "cannot be used with times; name one of them"
        yield "directions", bool(self.signed and self.directions), "cannot be used with signed = true; name one of them"
        yield "endpoints", len(self.endpoints) not in (0, 4), "four columns are needed: address, port, address, port"
        yield "join", self.join and not self.can_join, "needs endpoints, start, and times or gaps"
        yield "padding", bool(self.padding and not self.directions), "stands among directions; name their column"
        yield "without_length", self.without_length < -1, "must be 0 or more, or -1 to refuse such packets"
        yield "returned", bool(self.returned and not self.directions), "mends directions; name their column"
        series = (self.lengths, *filter(None, (self.directions, self.times, self.gaps)))
        alone = all(re.fullmatch(_ONE, name) for name in series)
        yield "lengths", not alone, "lists are columns, each named alone"
        yield "limit", self.limit < 0, "must be 0 or more"
        of_records = (self.directions, self.gaps, self.totals, self.start, self.capture, self.signed)
        bare = any(of_records) or not (self.endpoints and self.times)
        words = "of packets need endpoints and times, and have no directions, gaps, totals, start, capture or signed"
        yield "rows", self.rows == "packets" and bare, words

    @property
    def can_join(self) -> bool:
        """Whether records tell which of them are of one 5-tuple, and when."""
        return bool(self.endpoints and (self.start or self.rows == "packets") and (self.times or self.gaps))

    @property
    def single(self) -> tuple[str, ...]:
        """Paths of columns with one value a record."""
        return tuple(dict.fromkeys(self._single()))

    def _single(self) -> Iterator[str]:
        yield from (*self.endpoints, *self.totals, *self.capture_columns)
        yield from (one for one in (self.start, self.returned, "" if self.one_protocol else self.protocol) if one)

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of all columns that are read of the table."""
        lists = (self.lengths, self.directions, self.times, self.gaps)
        return (*(one for one in lists if one), *self.single)

    @property
    def of_records(self) -> "Layout":
        """What `bench.records.packet_rows` makes of a table with one row a packet."""
        names = {"lengths": "lengths", "times": "times", "directions": "directions", "start": "start"}
        made: dict[str, Any] = names | {"endpoints": ("source", "sport", "destination", "dport")}
        made |= {"protocol": "" if not self.protocol else self.protocol if self.one_protocol else "protocol"}
        return replace(self, rows="records", time_unit="ns", start_unit="ns", forward="1", **made)

    @property
    def capture_columns(self) -> tuple[str, ...]:
        """The columns of which a capture's name is made."""
        return tuple(re.findall(r"\{([^{}]*)\}", self.capture)) or ((self.capture,) if self.capture else ())

    @property
    def one_protocol(self) -> int | None:
        """The protocol of all records, where the card names it."""
        return PROTOCOLS.get(self.protocol.lower())

    @property
    def lacks(self) -> dict[str, str]:
        """What methods may declare to read and these records cannot tell -> why."""
        lacking = dict.fromkeys(("payload", "ip_bytes", "addresses", "checksums"), _BYTES)
        lacking |= {"flags": "records hold no TCP flags"}
        absent = {
            "directions": self.directions or self.signed or self.rows == "packets",
            "times": self.times or self.gaps,
            "ports": self.endpoints,
            "protocol": self.protocol,
            "payload_lengths": self.layer == "payload" or self.protocol,
        }
        lacking |= {name: f"the card names no column for {name}" for name, there in absent.items() if not there}
        if "payload_lengths" in lacking:
            lacking["payload_lengths"] = "without a protocol the length of headers is not known"
        return lacking


def alternatives(path: str) -> list[str]:
    """The paths of which the first that is not empty counts.

    >>> alternatives("`tcp.port`|port")
    ['`tcp.port`', 'port']
    """
    return path.split("|")


def top_level(path: str) -> str:
    """The table's own column in a path without alternatives.

    >>> top_level("packets.b"), top_level("`ip.len`")
    ('packets', 'ip.len')
    """
    match = re.fullmatch(_ONE, path)
    return match[1].strip("`") if match else path


def steps(path: str) -> list[str | int]:
    """What follows the table's own column: keys, and numbers of list entries.

    >>> steps("packets.b"), steps("PPI[2]"), steps("`ip.len`")
    (['b'], [2], [])
    """
    match = re.fullmatch(_ONE, path)
    parts = re.findall(r"\.([^.\[\]{}]+)|\[(\d+)\]", match[2] if match else "")
    return [key or int(number) for key, number in parts]
