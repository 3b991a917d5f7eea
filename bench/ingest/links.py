"""From the link layer to the outermost IP header, in compiled code.

Link types and their numbers: https://www.tcpdump.org/linktypes.html.  VLAN, VN and provider backbone tags, MPLS labels,
PPPoE and LLC/SNAP are looked through; so are the headers that capture tools put before a frame (radiotap, PPI, Prism,
AVS, PKTAP, NFLOG, PFLOG).  Every function gives a position or a negative reason: `reason` packs one with the number
that explains it, `REASONS` and `CARRIED_NAMES` unpack it.
"""

from typing import Any, Final

import numpy as np
from numba import njit

#: why a record gives no packet; counts are int64 ``[6]`` in this order
REASONS: Final = ("unknown_link", "non_ip", "other_protocol", "later_fragment", "truncated_header", "bad_header")
UNKNOWN_LINK, NON_IP, OTHER_PROTOCOL, LATER_FRAGMENT, TRUNCATED, BAD_HEADER = range(-1, -7, -1)

#: link types that are read
LINK_NAMES: Final = {
    0: "null",
    1: "Ethernet",
    6: "Token Ring",
    9: "PPP",
    10: "FDDI",
    12: "raw IP",
    14: "raw IP",
    50: "PPP in HDLC framing",
    101: "raw IP",
    104: "Cisco HDLC",
    105: "802.11",
    108: "loop",
    113: "Linux cooked",
    117: "PFLOG",
    119: "802.11 with Prism",
    127: "802.11 with radiotap",
    163: "802.11 with AVS",
    192: "PPI",
    228: "IPv4",
    229: "IPv6",
    239: "NFLOG",
    242: "IP over InfiniBand",
    258: "PKTAP",
    276: "Linux cooked 2",
}

#: link types that are known and not read: no IP packet can be found in them without more than headers
OTHER_LINKS: Final = {
    187: "Bluetooth HCI",
    189: "USB",
    195: "802.15.4",
    197: "ERF",
    201: "Bluetooth HCI with direction",
    220: "USB",
    227: "CAN",
    230: "802.15.4",
    249: "USBPcap",
    251: "Bluetooth LE",
    253: "netlink",
    281: "Broadcom switch tag",
    282: "Broadcom switch tag",
    283: "Marvell DSA tag",
    284: "Marvell EDSA tag",
}

#: what a frame without IP carries, by EtherType; below 1,501 numbers of ours
_WIRELESS, _LLC_NUMBER, _PPP_NUMBER, _MPLS_NUMBER = range(1, 5)
CARRIED_NAMES: Final = {
    0: "unknown",
    _WIRELESS: "802.11 without data or encrypted",
    _LLC_NUMBER: "802.2 LLC",
    _PPP_NUMBER: "PPP without plain IP",
    _MPLS_NUMBER: "MPLS without IP",
    0x0806: "ARP",
    0x0842: "wake on LAN",
    0x22F3: "TRILL",
    0x8035: "RARP",
    0x809B: "AppleTalk",
    0x80F3: "AppleTalk ARP",
    0x8137: "IPX",
    0x8863: "PPPoE discovery",
    0x888E: "802.1X",
    0x88A2: "ATA over Ethernet",
    0x88A4: "EtherCAT",
    0x88B5: "local experimental",
    0x88B8: "GOOSE",
    0x88CC: "LLDP",
    0x88E1: "HomePlug",
    0x88E5: "MACsec",
    0x88F7: "PTP",
    0x8906: "FCoE",
    0x8915: "RoCE",
    0x8926: "VN-tag",
    0x9000: "loopback",
    0xDADA: "EDSA",
}

_TYPED: Final = (1, 113, 276)  # link types whose header names an EtherType
_RAW: Final = (12, 14, 101, 228, 229)
_SHORT: Final = (0, 9, 50, 104, 105, 108, 117, 127, 239)  # link types that have four bytes at least
_WRAPPING: Final = (192, 258, 119, 163)
VLAN_TAGS: Final = (0x8100, 0x88A8, 0x9100)
_FAMILIES: Final = (2, 10, 24, 28, 30)  # AF_INET and what systems call AF_INET6
_AVS: Final = (0x80211001, 0x80211002)  # the first word of an AVS header
_NFLOG_PAYLOAD: Final = 9
_MOST_WRAPS: Final = 4  # headers in each other (our choice)
_MOST_ITEMS: Final = 64  # of an NFLOG header (our choice)
_int: Any = np.int64


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def reason(why: int, number: int) -> int:
    """A negative reason with the number that explains it: an EtherType or a protocol."""
    return why - (_int(number) << 8)


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def network(data: Any, at: int, end: int, link: int) -> int:
    """Position of the IP header in the frame at ``at``, or a negative reason."""
    for _ in range(_MOST_WRAPS):
        if link in _TYPED:
            header = 14 if link == 1 else 16 if link == 113 else 20
            if at + header > end:
                return TRUNCATED
            return ethertype(data, at + header, end, u16(data, at if link == 276 else at + header - 2))
        if link in _RAW:
            return at
        if link not in _WRAPPING:
            return _rarer(data, at, end, link)
        skip, link = _wrapped(data, at, end, link)
        if skip < 0:
            return skip
        at += skip
    return BAD_HEADER


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _wrapped(data: Any, at: int, end: int, link: int) -> tuple[int, int]:
    """Length (or a reason) of a capture tool's header that another link type is behind, and that type."""
    if at + 8 > end:
        return TRUNCATED, link
    if link == 192:
        length, inner = _le16(data, at + 2), _le32(data, at + 4)
    elif link == 258:
        if at + 12 > end:
            return TRUNCATED, link
        length, inner = _le32(data, at), _le32(data, at + 8)
    else:
        avs = u32(data, at) in _AVS
        length, inner = u32(data, at + 4) if avs else _le32(data, at + 4), _int(105)
        if not avs and length > 0xFFFF:  # in the order of the machine that captured
            length = u32(data, at + 4)
    if length < 8:
        return BAD_HEADER, link
    return (length if at + length <= end else _int(TRUNCATED)), inner


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _rarer(data: Any, at: int, end: int, link: int) -> int:
    """`network` of link types that are neither Ethernet's kind nor raw IP."""
    if link == 242:
        return ethertype(data, at + 44, end, u16(data, at + 40)) if at + 44 <= end else TRUNCATED
    if link == 10:
        return _llc(data, at + 13, end)
    if link == 6:
        route = _int(data[at + 14] & 0x1F) if at + 16 <= end and data[at + 8] & 0x80 else 0
        return _llc(data, at + 14 + route, end)
    if at + 4 > end:
        return TRUNCATED if link in _SHORT else UNKNOWN_LINK
    if link == 105:
        return _wireless(data, at, end)
    if link == 127:
        return _wireless(data, at + _le16(data, at + 2), end)
    return _shortest(data, at, end, link)


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _shortest(data: Any, at: int, end: int, link: int) -> int:
    """`network` of link types whose header's first four bytes, which are there, tell what follows."""
    if link == 0 or link == 108:
        family = u16(data, at) | u16(data, at + 2)  # four bytes in either order hold one small number
        family = family if family & 0xFF else family >> 8
        return at + 4 if family in _FAMILIES else NON_IP
    if link == 104:
        return ethertype(data, at + 4, end, u16(data, at + 2))
    if link == 9 or link == 50:
        if data[at] & 0x7F == 0x0F and data[at + 1] == 0:  # Cisco HDLC
            return ethertype(data, at + 4, end, u16(data, at + 2))
        return ppp(data, at, end)
    if link == 117:
        return at + (_int(data[at]) + 3 & ~3) if _int(data[at + 1]) in _FAMILIES else NON_IP
    return _nflog(data, at, end) if link == 239 else UNKNOWN_LINK


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _nflog(data: Any, at: int, end: int) -> int:
    """Position of the packet among the items (length, type, value) of an NFLOG header, in the machine's own order."""
    if _int(data[at]) not in _FAMILIES:
        return NON_IP
    at += 4
    for _ in range(_MOST_ITEMS):
        if at + 4 > end:
            break
        little = data[at + 2] != 0 or data[at + 3] == 0  # types are small numbers
        length = _le16(data, at) if little else u16(data, at)
        kind = _le16(data, at + 2) if little else u16(data, at + 2)
        if kind == _NFLOG_PAYLOAD:
            return at + 4
        if length < 4:
            return BAD_HEADER
        at += length + 3 & ~3
    return TRUNCATED


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def ethertype(data: Any, at: int, end: int, kind: int) -> int:
    """Position of the IP header behind an EtherType (or 802.3 length) ``kind`` that ends at ``at``, or a reason."""
    while True:
        if kind in VLAN_TAGS:
            skip = 4
        elif kind == 0x8926:  # VN-tag
            skip = 6
        elif kind == 0x88E7:  # provider backbone: a service tag, then a whole Ethernet header
            skip = 18
        elif kind == 0xDADA:  # Marvell EDSA
            skip = 8
        else:
            break
        if at + skip > end:
            return TRUNCATED
        kind = u16(data, at + skip - 2)
        at += skip
    return _llc(data, at, end) if kind <= 1500 else _carried(data, at, end, kind)


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def vlan(data: Any, frame: int, end: int, link: int) -> int:
    """The VLAN of the outermost tag of an Ethernet or cooked frame, 0 where it has none."""
    for _ in range(_MOST_WRAPS):
        if link not in _WRAPPING:
            break
        skip, link = _wrapped(data, frame, end, link)
        frame += max(skip, 0)
    if link not in _TYPED:
        return 0
    header = 14 if link == 1 else 16 if link == 113 else 20
    at = frame + header
    if at + 2 > end or u16(data, frame if link == 276 else at - 2) not in VLAN_TAGS:
        return 0
    return u16(data, at) & 0xFFF


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def outer_end(data: Any, ip: int, frame: int, wire: int) -> int:
    """Where the layer below an IP header without a length of its own says that the packet ends, else ``wire``.

    Padding and check sums of Ethernet and what is behind a PPPoE or 802.3 frame are no part of it.
    """
    if ip - 10 >= frame and u16(data, ip - 10) == 0x8864 and u16(data, ip - 2) in (0x21, 0x57):
        return min(wire, ip - 2 + u16(data, ip - 4))
    if ip - 10 >= frame and u16(data, ip - 8) == 0xAAAA and u16(data, ip - 10) <= 1500:
        return min(wire, ip - 8 + u16(data, ip - 10))
    return wire


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _llc(data: Any, at: int, end: int) -> int:
    """Position of the IP header behind an 802.2 header, or a reason."""
    if at + 2 > end:
        return TRUNCATED
    if u16(data, at) != 0xAAAA and u16(data, at) != 0x0606:
        return reason(NON_IP, _LLC_NUMBER)
    if at + 8 > end:
        return TRUNCATED
    if u16(data, at) == 0x0606 and data[at + 2] == 3:
        return at + 3
    if u16(data, at + 2) != 0x0300 or u16(data, at + 4) != 0:
        return reason(NON_IP, _LLC_NUMBER)
    return _carried(data, at + 8, end, u16(data, at + 6))


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _carried(data: Any, at: int, end: int, kind: int) -> int:
    """Position of the IP header in what EtherType ``kind`` carries, or a reason."""
    if kind == 0x0800 or kind == 0x86DD:
        return at
    if kind == 0x8847 or kind == 0x8848:
        return _mpls(data, at, end)
    return ppp(data, at + 6, end) if kind == 0x8864 else reason(NON_IP, kind)  # PPPoE session


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _mpls(data: Any, at: int, end: int) -> int:
    """Position of the IP header below a stack of MPLS labels, or a reason; the nibble tells IP (RFC 4928)."""
    while at + 4 < end:
        at += 4
        if data[at - 2] & 1:
            nibble = data[at] >> 4
            return at if nibble == 4 or nibble == 6 else reason(NON_IP, _MPLS_NUMBER)
    return TRUNCATED


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def ppp(data: Any, at: int, end: int) -> int:
    """Position of the IP header in a PPP frame (RFC 1661, RFC 1662), or a reason."""
    if at + 4 > end:
        return TRUNCATED
    if data[at] == 0xFF and data[at + 1] == 3:
        at += 2
    if data[at] & 1:  # compressed protocol field
        kind, at = _int(data[at]), at + 1
    elif at + 2 > end:
        return TRUNCATED
    else:
        kind, at = u16(data, at), at + 2
    if kind == 0x21 or kind == 0x57:
        return at
    return _mpls(data, at, end) if kind == 0x281 else reason(NON_IP, _PPP_NUMBER)


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _wireless(data: Any, at: int, end: int) -> int:
    """Position of the IP header in an 802.11 data frame, or a reason; encrypted and aggregated frames are non-IP."""
    if at + 2 > end:
        return TRUNCATED
    control, bits = _int(data[at]), _int(data[at + 1])
    if control & 0x0F != 0x08 or control & 0x40 or bits & 0x40:  # not data, without data, or encrypted
        return reason(NON_IP, _WIRELESS)
    header = 30 if bits & 3 == 3 else 24
    if at + header + 2 > end:
        return TRUNCATED
    if control & 0x80:  # quality of service
        if data[at + header] & 0x80:
            return reason(NON_IP, _WIRELESS)
        header += 6 if bits & 0x80 else 2
    body = at + header
    if header & 3 and body + 8 <= end and data[body] == 0 and u16(data, body + 2) == 0xAAAA:
        body += 2  # some drivers pad the header to four bytes
    return _llc(data, body, end)


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def u16(data: Any, at: int) -> int:
    """The big-endian number in two bytes, as int64."""
    return _int(data[at]) << 8 | _int(data[at + 1])


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def u32(data: Any, at: int) -> int:
    """The big-endian number in four bytes, as int64."""
    return u16(data, at) << 16 | u16(data, at + 2)


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def u64(data: Any, at: int) -> int:
    """The eight bytes at ``at`` as one big-endian word, int64."""
    return u32(data, at) << 32 | u32(data, at + 4)


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _le16(data: Any, at: int) -> int:
    """The little-endian number in two bytes, as int64."""
    return _int(data[at]) | _int(data[at + 1]) << 8


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _le32(data: Any, at: int) -> int:
    """The little-endian number in four bytes, as int64."""
    return _le16(data, at) | _le16(data, at + 2) << 16
