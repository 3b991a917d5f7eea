"""Captures of made-up services: what `bench` runs on when nothing has been downloaded.

Six services speak TLS-like TCP and QUIC-like UDP to one server port.  They share hosts, ports, the
proportion of TCP and the random bytes of their payload; what tells them apart is what encryption leaves:
record sizes, who speaks how much and when, and the handshake.  All numbers here are our choice, set so that
ports and class frequencies fail, a forest on lengths and times does well and nothing is perfect.
"""

import hashlib
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from bench.errors import InputError
from bench.generators.packet_writer import Heading, heading, write_capture

START: Final = 1_700_000_000.0  # seconds since the Unix epoch
SERVER_PORT: Final = 443
SEGMENT: Final = 1460  # most payload bytes of a TCP packet: 1500 - 20 - 20
DATAGRAM: Final = 1350  # most payload bytes of a UDP packet, as QUIC stacks use
RECORDS: Final = (1024, 2048, 4096, 8192, 16384)  # most bytes of a TLS record, as servers are set up
LONGEST: Final = 56  # packets a session

CONFUSED: Final = 0.04  # share of sessions that speak like the service's neighbour
BACKGROUND: Final = 0.03  # ... like telemetry, which every service sends
SHORT: Final = 0.03  # ... of which the capture holds 1 to 3 packets
TRUNCATED: Final = 0.06  # ... cut off at a random packet
UNANSWERED: Final = 0.02  # ... of TCP: a SYN and no more
UDP: Final = 0.3
LOST: Final = 0.02  # share of TCP segments sent twice


@dataclass(frozen=True)
class Profile:
    """How a service speaks: medians of log-normal draws, in bytes and seconds."""

    hello: float  # ClientHello
    flight: float  # server's encrypted handshake (certificates)
    up: float  # one message of the client
    down: float  # one message of the server
    spread: float  # of one message's length (sigma)
    record: int  # most bytes of a TLS record, for three sessions in four
    turns: float  # exchanges, mean
    pushed: float  # share of the exchanges that the server opens, without being asked
    think: float  # between two exchanges
    pace: float  # between two packets of one message


PROFILES: Final = {  # a service's neighbour, with which it is confused, is the next one (the last's: the first)
    "browsing": Profile(
        560, 2900, up=420, down=4600, spread=0.40, record=4096, turns=4, pushed=0.05, think=0.35, pace=0.0012
    ),
    "chat": Profile(
        330, 2100, up=150, down=190, spread=0.40, record=1024, turns=8, pushed=0.45, think=2.20, pace=0.0030
    ),
    "file-transfer": Profile(
        290, 3300, up=7200, down=110, spread=0.30, record=16384, turns=4, pushed=0.02, think=0.06, pace=0.0020
    ),
    "mail": Profile(
        250, 2500, up=700, down=310, spread=0.35, record=2048, turns=6, pushed=0.20, think=0.20, pace=0.0022
    ),
    "streaming": Profile(
        520, 2700, up=330, down=9500, spread=0.25, record=8192, turns=3, pushed=0.10, think=1.30, pace=0.0008
    ),
    "voip": Profile(
        380, 1900, up=170, down=175, spread=0.15, record=1024, turns=14, pushed=0.50, think=0.03, pace=0.0200
    ),
}
TELEMETRY: Final = Profile(
    400, 2500, up=600, down=180, spread=0.40, record=4096, turns=2, pushed=0.10, think=0.60, pace=0.0020
)


@dataclass(frozen=True)
class Salt:
    """What may change without any session saying something else: absolute times, addresses, ports and checksums."""

    start: float = START  # s since the Unix epoch
    subnet: int = 0  # 0…255
    ports: int = 0  # of both sides
    corrupt_checksums: bool = False


UNSALTED: Final = Salt()


def write(
    folder: Path,
    salt: Salt = UNSALTED,
    *,
    seed: int = 0,
    sessions: int = 120,
    captures: int = 6,
    classes: int = 6,
) -> None:
    """Write ``folder/<service>/<service>-<i>.pcap`` (Ethernet, µs): the same arguments give the same bytes.

    Of each service about ``sessions`` (5/6 to 5/4 of it) in ``captures`` captures.  Existing captures of these names
    are replaced.  Raises :class:`InputError` for numbers that it cannot write.
    """
    if not 1 <= classes <= len(PROFILES):
        raise InputError(
            "bad-size", f"demo: classes={classes} is not within 1…{len(PROFILES)}, the services it can write"
        )
    if sessions < 1 or captures < 1 or not 0 <= salt.subnet <= 255:
        raise InputError("bad-size", "demo: sessions and captures must be 1 or more, and subnet within 0…255")
    for service in list(PROFILES)[:classes]:
        (folder / service).mkdir(parents=True, exist_ok=True)
        total = max(captures, round(sessions * _generator(seed, service).uniform(5 / 6, 5 / 4)))
        for capture in range(captures):
            count = (total + capture) // captures  # these sum to `total`
            talks = _capture(service, capture, count, seed)
            wire = Wire(round(salt.start * 1e6), salt.subnet, salt.ports, salt.corrupt_checksums)
            wire.write(folder / service / f"{service}-{capture}.pcap", talks)


def _generator(*names: object) -> np.random.Generator:
    """A generator for that purpose alone: one more service, capture or session shifts no other draw."""
    text = "\0".join(map(str, ("demo", *names)))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16]))


# --- what is said ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Packet:
    """One packet of a session; ``time`` in µs since the captures' start, ``direction`` +1 from the client."""

    time: int
    direction: int
    flags: str  # empty for UDP
    sequence: int  # bytes of payload that its sender sent before
    acknowledged: int  # bytes of payload that its receiver sent before
    payload: bytes = field(repr=False)


class Talk:
    """One session being spoken: a clock, the bytes sent so far and the packets."""

    def __init__(self, draw: np.random.Generator, profile: Profile, begin: int, haste: float, bulk: float) -> None:
        """``begin`` in µs; ``haste`` and ``bulk`` scale all times and sizes (the capture's shift)."""
        self.draw, self.profile, self.clock = draw, profile, float(begin)
        self.udp = draw.random() < UDP
        self.haste = haste * draw.lognormal(0, 0.25)  # a slow or a fast path, for the whole session
        self.bulk = bulk * draw.lognormal(0, 0.08)
        self.trip = self.haste * draw.lognormal(math.log(0.018), 0.4)  # one way and back, seconds
        self.sent = {+1: 0, -1: 0}
        self.packets: list[Packet] = []
        self.connection = draw.bytes(8)  # QUIC's connection id
        # Hosts and ports are drawn for every service alike, so they give nothing away.
        self.client, self.server = int(draw.integers(1, 120)), int(draw.integers(1, 60))
        self.port, self.hops = int(draw.integers(28_000)), int(draw.integers(46, 60))
        self.record = profile.record if draw.random() < 0.75 else int(draw.choice(RECORDS))
        self.isn = {side: int(draw.integers(2**32)) for side in (+1, -1)}

    def wait(self, seconds: float, spread: float = 0.5) -> None:
        """Let about that much time pass."""
        self.clock += 1e6 * seconds * float(self.draw.lognormal(0, spread)) + 1

    def size(self, median: float, spread: float, least: int) -> int:
        """A message's length in bytes."""
        return max(least, round(median * self.bulk * float(self.draw.lognormal(0, spread))))

    def send(self, direction: int, payload: bytes = b"", flags: str = "A") -> None:
        """One packet, now."""
        own, other = self.sent[direction], self.sent[-direction]
        self.packets.append(Packet(round(self.clock), direction, "" if self.udp else flags, own, other, payload))
        self.sent[direction] += len(payload)

    def message(self, direction: int, payload: bytes) -> None:
        """Payload cut into packets; over TCP with acknowledgements and the odd retransmission."""
        pace = self.profile.pace * self.haste
        for first in range(0, len(payload), SEGMENT):
            segment = payload[first : first + SEGMENT]
            self.send(direction, segment, "PA" if first + SEGMENT >= len(payload) else "A")
            if self.draw.random() < LOST:
                self.wait(0.2)
                self.packets.append(replace(self.packets[-1], time=round(self.clock)))
            if self.draw.random() < 0.35:  # delayed acknowledgement, most of them ride on data
                self.wait(self.trip / 2, 0.1)
                self.send(-direction)
            self.wait(pace)

    def records(self, length: int) -> bytes:
        """Application-data records (5-byte header, random content) that hold ``length`` bytes."""
        parts = [min(self.record, length - done) for done in range(0, length, self.record)]
        return b"".join(_record(23, self.draw.bytes(part)) for part in parts)

    def datagrams(self, direction: int, length: int) -> None:
        """QUIC packets with a short header that hold ``length`` bytes, the other side acknowledging some."""
        for done in range(0, length, DATAGRAM - 30):
            part = min(DATAGRAM - 30, length - done)
            self.send(direction, self._short(direction) + self.draw.bytes(part + 17))  # 17: frame and tag
            if self.draw.random() < 0.2:
                self.wait(self.trip / 2, 0.1)
                self.send(-direction, self._short(-direction) + self.draw.bytes(int(self.draw.integers(22, 30))))
            self.wait(self.profile.pace * self.haste)

    def _short(self, direction: int) -> bytes:
        """First byte of a short header and, towards the server, its connection id."""
        first = bytes([0x40 | int(self.draw.integers(64))])
        return first + self.connection if direction > 0 else first

    def _long(self, kind: int, direction: int, length: int) -> bytes:
        """A QUIC version 1 packet with a long header (RFC 9000, section 17.2), ``length`` bytes in all."""
        ids = bytes([8, *self.connection, 0]) if direction > 0 else bytes([0, 8, *self.connection])
        head = bytes([0xC0 | kind << 4 | int(self.draw.integers(4)), 0, 0, 0, 1]) + ids + (b"\0" if kind == 0 else b"")
        rest = length - len(head) - 2
        return head + (0x4000 | rest).to_bytes(2) + self.draw.bytes(rest)

    def speak(self) -> None:
        """The whole session: handshake, exchanges, and for half of TCP a close."""
        if self.udp:
            self._quic_handshake()
        elif not self._tls_handshake():
            return
        for _ in range(1 + int(self.draw.poisson(self.profile.turns))):
            if len(self.packets) >= LONGEST:
                break
            self._exchange()
        if not self.udp and self.draw.random() < 0.5:
            for side in (+1, -1):
                self.send(side, b"", "FA")
                self.wait(self.trip / 2, 0.1)

    def _tls_handshake(self) -> bool:
        """TCP's and TLS 1.3's; False where nobody answers."""
        self.send(+1, b"", "S")
        if self.draw.random() < UNANSWERED:
            return False
        self.wait(self.trip, 0.1)
        self.send(-1, b"", "SA")
        self.wait(0.0002)
        self.send(+1)
        self.wait(0.001)
        self.message(+1, _client_hello(self.draw, self.size(self.profile.hello, 0.12, 220)))
        self.wait(self.trip, 0.1)
        resumed = self.draw.random() < 0.25
        flight = self.size(140 if resumed else self.profile.flight, 0.15, 80)
        self.message(-1, _server_hello(self.draw) + _record(20, b"\1") + self.records(flight))
        self.wait(self.trip, 0.1)
        self.message(+1, _record(20, b"\1") + self.records(53))
        return True

    def _quic_handshake(self) -> None:
        """Initial and Handshake packets; the client's Initial is padded, the server's flight has its size."""
        self.send(+1, self._long(0, +1, 1200 + int(self.draw.integers(0, 3)) * 50))
        if self.profile.hello * self.bulk * self.draw.lognormal(0, 0.12) > 420:  # a long hello fills a second one
            self.send(+1, self._long(0, +1, 1200))
        self.wait(self.trip, 0.1)
        self.send(-1, self._long(0, -1, 1200))
        flight = self.size(self.profile.flight, 0.15, 400)
        for done in range(0, flight, 1180):
            self.wait(0.0003)
            self.send(-1, self._long(2, -1, max(60, min(1200, flight - done))))
        self.wait(self.trip, 0.1)
        self.send(+1, self._long(2, +1, 60 + int(self.draw.integers(30))))

    def _exchange(self) -> None:
        """One message, and the answer to it; a message that was pushed may have none."""
        self.wait(self.profile.think * self.haste, 0.8)
        pushed = self.draw.random() < self.profile.pushed
        sizes = {
            +1: self.size(self.profile.up, self.profile.spread, 24),
            -1: self.size(self.profile.down, self.profile.spread, 24),
        }
        for direction in (-1, +1) if pushed else (+1, -1):
            if self.udp:
                self.datagrams(direction, sizes[direction])
            else:
                self.message(direction, self.records(sizes[direction] + 17))  # 17: type and tag
            if pushed and self.draw.random() < 0.6:
                return
            self.wait(self.trip, 0.2)


def _record(kind: int, content: bytes) -> bytes:
    """A TLS record: 20 ChangeCipherSpec, 22 Handshake, 23 Application Data."""
    return bytes([kind, 3, 3]) + len(content).to_bytes(2) + content


def _hello(kind: int, body: bytes) -> bytes:
    return _record(22, bytes([kind]) + len(body).to_bytes(3) + body)


def _client_hello(draw: np.random.Generator, length: int) -> bytes:
    """A ClientHello record of ``length`` bytes, its name encrypted (an encrypted_client_hello extension)."""
    ciphers = b"\x13\x01\x13\x02\x13\x03"
    versions = b"\x00\x2b\x00\x03\x02\x03\x04"
    fixed = b"\3\3" + draw.bytes(32) + b"\x20" + draw.bytes(32) + len(ciphers).to_bytes(2) + ciphers + b"\1\0"
    rest = length - 9 - len(fixed) - 2 - len(versions) - 4
    extensions = versions + b"\xfe\x0d" + rest.to_bytes(2) + draw.bytes(rest)
    return _hello(1, fixed + len(extensions).to_bytes(2) + extensions)


def _server_hello(draw: np.random.Generator) -> bytes:
    """A ServerHello record of TLS 1.3 (RFC 8446, section 4.1.3), 127 bytes."""
    extensions = b"\x00\x2b\x00\x02\x03\x04\x00\x33\x00\x24\x00\x1d\x00\x20" + draw.bytes(32)
    fixed = b"\3\3" + draw.bytes(32) + b"\x20" + draw.bytes(32) + b"\x13\x01\0"
    return _hello(2, fixed + len(extensions).to_bytes(2) + extensions)


def _capture(service: str, capture: int, count: int, seed: int) -> list[Talk]:
    """The sessions of one capture, made one after the other and independent of one another."""
    shift = _generator(seed, service, capture)
    haste, bulk = float(shift.lognormal(0, 0.15)), float(shift.lognormal(0, 0.06))
    names = list(PROFILES)
    neighbour = names[(names.index(service) + 1) % len(names)]
    talks = []
    for session in range(count):
        draw = _generator(seed, service, capture, session)
        speaks = draw.choice(["self", "neighbour", "telemetry"], p=[1 - CONFUSED - BACKGROUND, CONFUSED, BACKGROUND])
        profile = {"self": PROFILES[service], "neighbour": PROFILES[neighbour], "telemetry": TELEMETRY}[str(speaks)]
        # A capture an hour, twenty minutes long: every service is there in every hour, so time tells nothing.
        begin = capture * 3_600_000_000 + int(draw.integers(1_200_000_000))
        talk = Talk(draw, profile, begin, haste, bulk)
        talk.speak()
        talk.packets = _held(talk.packets[:LONGEST], draw)
        talks.append(talk)
    return talks


def _held(packets: list[Packet], draw: np.random.Generator) -> list[Packet]:
    """The packets of a session that the capture holds: all, all up to one, or a few."""
    fate, cut = draw.random(), draw.random()
    payload = [i for i, packet in enumerate(packets) if packet.payload]
    if not payload:
        return packets
    if fate < SHORT:  # the capture began in the middle of the session
        return packets[payload[0] : payload[0] + 1 + int(cut * 3)]
    if fate < SHORT + TRUNCATED:
        return packets[: payload[0] + 1 + int(cut * (len(packets) - payload[0]))]
    return packets


# --- how it looks on the wire ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wire:
    """Puts sessions into captures.  All that a salt may change is decided here, without a random draw."""

    start: int  # µs since the Unix epoch
    subnet: int
    ports: int
    corrupt_checksums: bool

    def write(self, path: Path, talks: list[Talk]) -> None:
        """One capture."""
        order = sorted((p.time, s, i) for s, talk in enumerate(talks) for i, p in enumerate(talk.packets))
        heads = [{side: self.head(talk, side) for side in (+1, -1)} for talk in talks]
        packets = ((talks[session].packets[index], session, index) for _, session, index in order)
        write_capture(
            path,
            (
                (
                    self.start + p.time,
                    heads[session][p.direction].frame(p.payload, index, p.flags, p.sequence, p.acknowledged),
                )
                for p, session, index in packets
            ),
        )

    def head(self, talk: Talk, direction: int) -> Heading:
        """What all that one side sends begins with; sequence numbers where they start."""
        hosts = (f"10.{self.subnet}.0.{talk.client}", f"198.18.{self.subnet}.{talk.server}")
        server = SERVER_PORT if self.ports == 0 else 1024 + (self.ports * 7919) % 30_000
        ports = (32_768 + (talk.port + self.ports * 104_729) % 28_000, server)
        client, server_end = zip(hosts, ports, strict=True)
        as_computed = heading(
            (client, server_end) if direction > 0 else (server_end, client),
            numbers=None if talk.udp else (talk.isn[direction], talk.isn[-direction]),
            ttl=64 if direction > 0 else talk.hops,
            identification=talk.isn[direction],
            client=direction > 0,
        )
        return replace(as_computed, corrupt_checksums=self.corrupt_checksums)
