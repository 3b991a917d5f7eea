"""nDPI's result files as a file of session labels: what its detection printed of each flow, and the family of it.

The result files of its regression tests (``NAME.pcap.out``) have a line a flow.  Families are our choice, made for the
card ``ndpi-services``.
"""

import csv
import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.errors import InputError
from bench.files import written

COLUMNS: Final = ("capture", "label", "ndpi_encrypted", "l4", "client_ip", "client_port", "server_ip", "server_port")

_FLOW: Final = re.compile(r"\t\d+\t(TCP|UDP)\S* (\S+) (?:<->|->|<-) (\S+) (\[.*)")
_END: Final = re.compile(r"\[?(.+?)\]?:(\d+)")
_PROTOCOL: Final = re.compile(r"\[proto: (?:\w+:)?[\d.]+/([^\]]*)\]")
_WORDS: Final = {
    "encrypted": re.compile(r"\[(ClearText|Encrypted)\]"),
    "confidence": re.compile(r"\[Confidence: ([^\]]*)\]"),
    "category": re.compile(r"\[cat: ([^/\]]*)/\d+\]"),
}

#: family -> parts of a protocol's name of which one is there; the first family that fits, after the rules of `_family`
_PARTS: Final = {
    "p2p": {"BitTorrent", "Gnutella", "eDonkey", "Syncthing"},
    "encrypted_dns": {"DoH_DoT", "DNScrypt", "AVASTSecureDNS"},
}
_CALLS: Final = {"STUN", "DTLS", "RTP", "SRTP", "RTCP", "Zoom", "Webex", "Skype_Teams", "LineCall"}
_MESSENGERS: Final = {
    *("WhatsApp", "Telegram", "Signal", "Threema", "WeChat", "KakaoTalk", "FacebookMessenger", "Line", "Viber"),
}
_FIRST: Final = {"QUIC": "quic_web", "TLS": "tls_web", "HTTP": "plain_http"}


def write_labels(folder: Path, target: Path) -> int:
    """Write the labels of the flows in ``folder``'s result files as CSV; returns how many lines had no address.

    Raises :class:`InputError` where there is no result file.
    """
    files = sorted(folder.glob("*.out"))
    if not files:
        raise InputError("missing-file", f"{folder}: has no result file of nDPI (NAME.out); fetch them again")
    lost = 0
    with written(target) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for path in files:
            for row in _flows(path):
                lost += row is None
                if row:
                    writer.writerow([f"captures/{path.name.removesuffix('.out')}", *row])
    return lost


def _flows(path: Path) -> Iterator[list[str] | None]:
    """The flows of a result file, but for the capture; None of one whose addresses nDPI wrote wrongly."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if (match := _FLOW.fullmatch(line)) and (protocol := _PROTOCOL.search(match[4])):
            said = {name: ((found := pattern.search(match[4])) and found[1]) or "" for name, pattern in _WORDS.items()}
            ends = [end for text in (match[2], match[3]) for end in _end(text)]
            label = _family(protocol[1], said["category"], said["confidence"])
            yield [label, said["encrypted"], match[1], *ends] if all(ends) else None


def _end(text: str) -> tuple[str, str]:
    """Address and port; empty where it is no address."""
    match = _END.fullmatch(text)
    try:
        return (str(ipaddress.ip_address(match[1])), match[2]) if match else ("", "")
    except ValueError:
        return "", ""


def _family(protocol: str, category: str, confidence: str) -> str:
    """The service family of a flow; empty for none, and where nDPI did not look into the packets."""
    if not confidence.startswith("DPI"):
        return ""
    parts = protocol.split(".")
    first, names = parts[0], set(parts)
    for family, own in _PARTS.items():
        if names & own:
            return family
    if first == "DNS":
        return "plain_dns"
    if category == "VPN":
        return "vpn_tunnel"
    if names & _CALLS or protocol == "Viber":
        return "rtc_voip"
    if category == "Chat" and names & _MESSENGERS and first not in ("QUIC", "HTTP_Proxy"):
        return "messenger"
    return _FIRST.get(first, "game" if category == "Game" else "")
