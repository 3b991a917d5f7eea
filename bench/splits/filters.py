"""Which sessions are traffic of the class at all: named filters, each with its reasons counted.

A filter is a list of reasons, and a reason a mask over session columns.  Ingest keeps TCP and UDP alone, so ARP, ICMP,
IGMP, STP and LLDP, which others filter too, are never sessions here; `bench inspect` counts them.

Services are told by protocol and port of either end, as dissectors do (the answer to a multicast question is a
session whose client has the service's port).  So what runs on ports of its own is not seen: RTCP beside its RTP port,
STUN inside a call.  A filter sees no label: it is no place to clean by class.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

SessionColumns = Mapping[str, NDArray[Any]]  # columns of schema.SESSION_COLUMNS, [sessions]
Mask = NDArray[np.bool_]
#: what filters look at
COLUMNS: Final = ("protocol", "client_port", "server_port", "payload_packets", "client_ip", "server_ip", "ip_version")
_TCP, _UDP = 6, 17


@dataclass(frozen=True)
class Service:
    """A service and where the IANA registry puts it."""

    name: str
    family: str
    protocols: tuple[int, ...]
    ports: tuple[int, ...]


#: what Sugar (SIGCOMM 2025) calls extraneous, by its families, as far as TCP and UDP carry it; and DNS, which it keeps
SERVICES: Final = (
    Service("llmnr", "name service", (_TCP, _UDP), (5355,)),
    Service("nbns", "name service", (_UDP,), (137,)),
    Service("mdns", "name service", (_UDP,), (5353,)),
    Service("lsd", "name service", (_UDP,), (6771,)),  # BitTorrent's local service discovery
    Service("dhcp", "network management", (_UDP,), (67, 68, 546, 547)),  # of IPv4 and IPv6
    Service("snmp", "network management", (_UDP,), (161, 162)),
    Service("stun", "NAT traversal", (_TCP, _UDP), (3478, 5349)),  # a TURN relay's media too: same ports
    Service("rsip", "NAT traversal", (_TCP, _UDP), (4555,)),
    Service("db-lsp-disc", "discovery", (_UDP,), (17500,)),
    Service("ssdp", "discovery", (_UDP,), (1900,)),
    Service("srvloc", "discovery", (_TCP, _UDP), (427,)),
    Service("rtcp", "RTCP", (_UDP,), (5005,)),
    Service("ntp", "NTP", (_UDP,), (123,)),
    Service("dns", "DNS", (_TCP, _UDP), (53,)),
)


def _of_family(family: str, sessions: SessionColumns) -> Mask:
    """Sessions of a family's services."""
    matches = np.zeros(len(sessions["protocol"]), bool)
    for service in SERVICES:
        if service.family == family:
            ends = [np.isin(sessions[f"{end}_port"], service.ports) for end in ("client", "server")]
            matches |= np.isin(sessions["protocol"], service.protocols) & (ends[0] | ends[1])
    return matches


#: what is sent to all on a network, by port; hosts that never meet have such conversations in common
BROADCAST: Final = {
    "dhcp": (67, 68, 546, 547),
    "mdns": (5353,),
    "ssdp": (1900,),
    "netbios": (137, 138),
    "llmnr": (5355,),
}


def _at_ports(ports: tuple[int, ...], sessions: SessionColumns) -> Mask:
    """UDP sessions with such a port at either end."""
    ends = [np.isin(sessions[f"{end}_port"], ports) for end in ("client", "server")]
    return np.asarray((sessions["protocol"] == _UDP) & (ends[0] | ends[1]))


def sent_to_all(sessions: SessionColumns) -> Mask:
    """Sessions with a multicast, broadcast or no address at either end."""
    version_4 = sessions["ip_version"] == 4
    matches = np.zeros(len(version_4), bool)
    for end in ("client_ip", "server_ip"):
        octets = np.ascontiguousarray(sessions[end]).view(np.uint8).reshape(-1, 16)
        multicast = np.where(version_4, octets[:, 0] >> 4 == 14, octets[:, 0] == 255)
        broadcast = version_4 & (octets[:, :4] == 255).all(axis=1)
        matches |= multicast | broadcast | ~octets.any(axis=1)
    return matches


def _families(*names: str) -> dict[str, Callable[[SessionColumns], Mask]]:
    return {name: partial(_of_family, name) for name in names}


#: filter -> what it looks at beside payload, of `bench.readers.READS`
NEEDS: Final = {
    "sugar": ("ports", "protocol"),
    "dns": ("ports", "protocol"),
    "tcp": ("protocol",),
    "broadcast": ("ports",),
}

#: filter -> reason -> the sessions that go for it; the filters are those of `spec.FILTERS`
RULES: Final[dict[str, dict[str, Callable[[SessionColumns], Mask]]]] = {
    "none": {},
    # ATVITSC drops "irrelevant packets" and names none: what has no payload goes, DNS stays (our reading).  A task with
    # `payload = true` has done so already, and then this filter finds nothing; readers leave out the single packets.
    "paper": {"no payload": lambda sessions: sessions["payload_packets"] == 0},
    "sugar": _families("name service", "network management", "NAT traversal", "discovery", "RTCP", "NTP"),
    "dns": _families("DNS"),
    "tcp": {"not TCP": lambda sessions: sessions["protocol"] != _TCP},
    "broadcast": {
        **{name: partial(_at_ports, ports) for name, ports in BROADCAST.items()},
        "other broadcast or multicast": sent_to_all,
    },
}


def apply_filter(text: str, sessions: SessionColumns) -> tuple[Mask, dict[str, int]]:
    """Which sessions stay, bool ``[sessions]``, and how many go for which reason (the first that holds).

    ``text`` is as :func:`bench.spec.parse_filter` writes it, ``sessions`` has the columns `COLUMNS`.
    """
    stay = np.ones(len(sessions["protocol"]), bool)
    counts = {}
    for reason, rule in _reasons(text.split(",")).items():
        gone = stay & rule(sessions)
        counts[f"filter: {reason}"] = int(gone.sum())
        stay &= ~gone
    return stay, counts


def _reasons(names: Sequence[str]) -> dict[str, Callable[[SessionColumns], Mask]]:
    return {reason: rule for name in names for reason, rule in RULES[name].items()}
