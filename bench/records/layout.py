"""Which column of a table of flow records is what, and what such records cannot tell.

A column is named by its path: ``packets.b`` is the key ``b`` of every packet in the list ``packets``, ``PPI[2]`` the
third list in the column ``PPI``, also where that is text.  Only the standard library is imported here, as listing
commands read cards.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bench.files import FieldError

#: of which layer a length counts the bytes: the frame with its Ethernet header, the IP packet, TCP or UDP with their
#: header, the payload
LAYERS: Final = ("frame", "ip", "transport", "payload")
#: units of times -> ns
UNITS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
PROTOCOLS: Final = {"tcp": 6, "udp": 17, "6": 6, "17": 17}
PATH: Final = re.compile(r"([^.\[\]{}]+)((?:\.[^.\[\]{}]+|\[\d+\])*)")

_BYTES: Final = "records hold no bytes of packets"


@dataclass(frozen=True)
class Layout:
    """The columns of a table with one row a record; what is empty, the table does not have.

    Lists of one record are equally long.  The source of a record is the end point that sent its first packet.
    """

    lengths: str  # list of bytes a packet
    layer: str = "payload"  # of `LAYERS`: which bytes lengths count
    signed: bool = False  # a length is negative where the packet goes to the source
    directions: str = ""  # list
    forward: str = "1"  # what stands there for a packet from the source; any other value is one to it
    times: str = ""  # list: since the start of the record, or since any other time
    gaps: str = ""  # list: since the packet before, the first since the start of the record
    time_unit: str = "s"  # of `UNITS`; of times or gaps
    start: str = ""  # number or time; text as in ISO 8601
    start_unit: str = "s"  # of a number
    capture: str = ""  # what the record was captured in, or a text with "{column}" in it; "": each file is one capture
    endpoints: tuple[str, ...] = ()  # address and port of the source, address and port of the destination
    protocol: str = ""  # 6, 17, TCP or UDP; or one of these words, which then holds for all records
    totals: tuple[str, ...] = ()  # numbers whose sum is how many packets the record has, listed or not
    limit: int = 0  # how many packets are listed at most, where `totals` do not tell; 0: not known
    payload_only: bool = False  # packets without payload are not listed
    join: bool = False  # records of one 5-tuple of a capture are one session, which a time-out cut

    def __post_init__(self) -> None:
        """Refuse words that are none, and paths that lead nowhere."""
        choices = {"layer": LAYERS, "time_unit": tuple(UNITS), "start_unit": tuple(UNITS)}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise FieldError(name, f"there are: {', '.join(known)}")
        if self.times and self.gaps:
            raise FieldError("gaps", "cannot stand beside times; name one of them")
        if self.signed and self.directions:
            raise FieldError("directions", "cannot stand beside signed = true; name one of them")
        if len(self.endpoints) not in (0, 4):
            raise FieldError("endpoints", "four columns are needed: address, port, address, port")
        if self.join and not self.can_join:
            raise FieldError("join", "needs endpoints, start, and times or gaps")
        if self.limit < 0:
            raise FieldError("limit", "must be 0 or more")
        for column in self.paths:
            if not PATH.fullmatch(column):
                raise FieldError("", f"column {column!r}: write NAME, NAME.KEY or NAME[N]")

    @property
    def can_join(self) -> bool:
        """Whether records tell which of them are of one 5-tuple, and when."""
        return bool(self.endpoints and self.start and (self.times or self.gaps))

    @property
    def single(self) -> tuple[str, ...]:
        """Paths of columns with one value a record."""
        return tuple(dict.fromkeys(self._single()))

    def _single(self) -> Iterator[str]:
        yield from (*self.endpoints, *self.totals, *self.capture_columns)
        yield from (one for one in (self.start, "" if self.one_protocol else self.protocol) if one)

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of all columns that are read of the table."""
        lists = (self.lengths, self.directions, self.times, self.gaps)
        return (*(one for one in lists if one), *self.single)

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
            "directions": self.directions or self.signed,
            "times": self.times or self.gaps,
            "ports": self.endpoints,
            "protocol": self.protocol,
            "payload_lengths": self.layer == "payload" or self.protocol,
        }
        lacking |= {name: f"the card names no column for {name}" for name, there in absent.items() if not there}
        if "payload_lengths" in lacking:
            lacking["payload_lengths"] = "without a protocol the length of headers is not known"
        return lacking


def top_level(path: str) -> str:
    """The table's own column in a path."""
    match = PATH.fullmatch(path)
    return match[1] if match else path


def steps(path: str) -> list[str | int]:
    """What follows the table's own column: keys, and numbers of list entries.

    >>> steps("packets.b"), steps("PPI[2]")
    (['b'], [2])
    """
    match = PATH.fullmatch(path)
    parts = re.findall(r"\.([^.\[\]{}]+)|\[(\d+)\]", match[2] if match else "")
    return [key or int(number) for key, number in parts]
