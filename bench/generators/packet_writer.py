"""Captures that the harness makes itself: packets of TCP and UDP sessions as bytes, and capture files of them.

Headers are scapy's, built once for each side of a session; what differs from packet to packet is patched in, as scapy
builds slowly.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.files import written

ETHERNET: Final = 1  # link types of pcap
RAW_IP: Final = 101
FLAGS: Final = {"S": 0x02, "SA": 0x12, "A": 0x10, "PA": 0x18, "FA": 0x11}
_MACS: Final = ("02:00:00:00:00:01", "02:00:00:00:00:02")

EndPoint = tuple[str, int]  # IPv4 address and port


@dataclass(frozen=True)
class Heading:
    """Ethernet, IP and transport header of all that one side of a session sends."""

    content: bytes
    is_tcp: bool
    corrupt_checksums: bool = False

    def frame(self, payload: bytes, index: int, flags: str = "A", sent: int = 0, received: int = 0) -> bytes:
        """An Ethernet frame with ``payload``; ``index`` counts the session's packets.

        Of TCP, ``sent`` and ``received`` are the bytes of payload that this side and the other sent before.
        """
        from scapy.utils import checksum

        head = self.content
        frame = bytearray(head + payload)
        struct.pack_into("!HH", frame, 16, len(frame) - 14, (int.from_bytes(head[18:20]) + index) & 0xFFFF)
        if self.is_tcp:
            opened = 0 if flags in ("S", "SA") else 1  # SYN counts as one byte
            sequence, acknowledged = struct.unpack_from("!II", head, 38)
            sequence = (sequence + sent + opened) & 0xFFFFFFFF
            acknowledged = 0 if flags == "S" else (acknowledged + received + 1) & 0xFFFFFFFF
            struct.pack_into("!IIBB", frame, 38, sequence, acknowledged, 0x50, FLAGS[flags])
        else:
            struct.pack_into("!H", frame, 38, len(frame) - 34)
        wrong = 0x5A5A if self.corrupt_checksums else 0
        transport = 50 if self.is_tcp else 40
        frame[24:26] = frame[transport : transport + 2] = b"\0\0"
        pseudo = frame[26:34] + struct.pack("!HH", frame[23], len(frame) - 34)
        struct.pack_into("!H", frame, 24, checksum(bytes(frame[14:34])) ^ wrong)
        # A sum of 0 over UDP is sent as its complement (RFC 768): 0 says that there is none.
        struct.pack_into("!H", frame, transport, (checksum(bytes(pseudo + frame[34:])) or 0xFFFF) ^ wrong)
        return bytes(frame)


def heading(
    ends: tuple[EndPoint, EndPoint], *, numbers: tuple[int, int] | None, ttl: int, identification: int, client: bool
) -> Heading:
    """The headers from the first to the second of ``ends``.

    ``numbers`` are where the sequence numbers of the sender and the receiver start, None for UDP; ``identification`` is
    the first packet's; ``client`` says which side's Ethernet address sends.
    """
    from scapy.layers.inet import IP, TCP, UDP
    from scapy.layers.l2 import Ether

    (source, sport), (target, dport) = ends
    if numbers is None:
        transport = UDP(sport=sport, dport=dport)
    else:
        transport = TCP(sport=sport, dport=dport, seq=numbers[0], ack=numbers[1], window=64_240)
    macs = _MACS if client else _MACS[::-1]
    ip = IP(src=source, dst=target, ttl=ttl, id=identification & 0xFFFF)
    return Heading(bytes(Ether(src=macs[0], dst=macs[1]) / ip / transport), numbers is not None)


def write_capture(
    path: Path, packets: Iterable[tuple[int, bytes]], *, link_type: int = ETHERNET, pcapng: bool = False
) -> None:
    """Write (time in µs since the Unix epoch, frame) as pcap (little-endian, µs) or pcapng.

    ``link_type`` RAW_IP leaves the Ethernet header out.
    """
    from scapy.utils import RawPcapNgWriter, RawPcapWriter

    first = 14 if link_type == RAW_IP else 0
    with written(path) as aside:
        writer = RawPcapNgWriter(str(aside)) if pcapng else RawPcapWriter(str(aside), endianness="<", bufsz=1 << 16)
        writer.linktype = link_type
        with writer:
            writer.write_header(b"")
            for time, frame in packets:
                seconds, micros = divmod(time, 1_000_000)
                writer.write_packet(frame[first:], sec=seconds, usec=micros)
