"""What a packet carries inside: the headers of tunnels and mirrors, in compiled code.

A packet belongs to its outermost IP header unless its kind of tunnel is asked for (`IngestOptions.decap`); what is in a
tunnel is counted either way.
"""

from typing import Any, Final

import numpy as np
from numba import njit

from bench.ingest.links import u16
from bench.ingest.options import TUNNELS

#: kinds that are counted, by the number that `tunnel` gives; ERSPAN is a kind of GRE and asked for by its own word
TUNNEL_NAMES: Final = ("VXLAN", "Geneve", "GRE", "GTP-U", "IP in IP", "6in4", "Teredo")
_VXLAN, _GENEVE, _GRE, _GTP, _IPIP, _6IN4, _TEREDO = range(7)
NO_TUNNEL: Final = -1

#: what stands where the inner packet begins
INNER_IP, INNER_ETHERNET, INNER_PPP = range(3)

#: the word that asks for a kind, as a bit of `wanted_tunnels`
_BITS: Final = {word: 1 << place for place, word in enumerate(TUNNELS)}
_BIT_OF_GRE, _BIT_OF_ERSPAN, _BIT_OF_GTP = _BITS["gre"], _BITS["erspan"], _BITS["gtp-u"]
_BIT_OF_VXLAN, _BIT_OF_GENEVE, _BIT_OF_TEREDO = _BITS["vxlan"], _BITS["geneve"], _BITS["teredo"]
_BIT_OF_IPIP, _BIT_OF_6IN4 = _BITS["ipip"], _BITS["6in4"]

_UDP: Final = 17
_TEREDO_PORT: Final = 3544
_PORTS: Final = (4789, 8472, 6081, 2152, _TEREDO_PORT)  # VXLAN twice, Geneve, GTP-U
_MOST_EXTENSIONS: Final = 8  # of a GTP-U header (our choice)
_int: Any = np.int64


def wanted_tunnels(decap: tuple[str, ...]) -> int:
    """The words of `IngestOptions.decap` as bits."""
    return sum(_BITS[word] for word in set(decap))


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def may_be_tunnel(data: Any, at: int, end: int, protocol: int) -> bool:
    """Whether `tunnel` need be asked; quick, as it is asked of every packet that is not TCP."""
    if protocol != _UDP:
        return protocol == 47 or protocol == 4 or protocol == 41
    if at + 16 > end:
        return False
    source, target = u16(data, at), u16(data, at + 2)
    return target in _PORTS or source == _TEREDO_PORT


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def tunnel(data: Any, at: int, end: int, protocol: int) -> tuple[int, int, int, int]:
    """The tunnel whose header a packet's IP payload at ``at`` begins with: kind, the bit that asks for it, where the
    inner packet begins, and with what.

    The kind is `NO_TUNNEL` where it is none; what is cut before the inner packet is one whose inner packet begins at
    ``end``.
    """
    if protocol == _UDP:
        return _in_udp(data, at, end)
    if protocol == 47:
        return _in_gre(data, at, end)
    if protocol == 4:
        return _IPIP, _BIT_OF_IPIP, at, INNER_IP
    if protocol == 41:
        return _6IN4, _BIT_OF_6IN4, at, INNER_IP
    return NO_TUNNEL, 0, at, INNER_IP


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _in_udp(data: Any, at: int, end: int) -> tuple[int, int, int, int]:
    """`tunnel` of a UDP header at ``at``: by port, and by what a header of that kind must begin with."""
    none = (NO_TUNNEL, 0, at, INNER_IP)
    if at + 16 > end:
        return none
    source, target, body = u16(data, at), u16(data, at + 2), at + 8
    if target == 4789 or target == 8472:
        if data[body] & 0x08 and u16(data, body + 1) == 0 and data[body + 7] == 0:
            return _VXLAN, _BIT_OF_VXLAN, body + 8, INNER_ETHERNET
        return none
    if target == 6081:
        kind, header = u16(data, body + 2), 8 + _int(data[body] & 0x3F) * 4
        if data[body] & 0xC0:
            return none
        if kind == 0x6558:
            return _GENEVE, _BIT_OF_GENEVE, min(body + header, end), INNER_ETHERNET
        ip = kind == 0x0800 or kind == 0x86DD
        return (_GENEVE, _BIT_OF_GENEVE, min(body + header, end), INNER_IP) if ip else none
    if target == 2152 and data[body] & 0xF0 == 0x30 and data[body + 1] == 255:
        return _GTP, _BIT_OF_GTP, _behind_gtp(data, body, end), INNER_IP
    if target == _TEREDO_PORT or source == _TEREDO_PORT:
        inner = _behind_teredo(data, body, end, at + u16(data, at + 4))
        return (_TEREDO, _BIT_OF_TEREDO, inner, INNER_IP) if inner >= 0 else none
    return none


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _behind_gtp(data: Any, at: int, end: int) -> int:
    """Where the packet behind a GTP-U header begins; ``end`` where that is cut."""
    flags, at = data[at], at + 8
    if not flags & 0x07:
        return at
    at += 4
    if not flags & 0x04:  # the last of the four bytes names an extension only then (3GPP TS 29.281, 5.1)
        return min(at, end)
    for _ in range(_MOST_EXTENSIONS):
        if at > end or data[at - 1] == 0:
            break
        if at >= end:
            return end
        at += max(_int(data[at]), 1) * 4
    return min(at, end)


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _behind_teredo(data: Any, at: int, end: int, stop: int) -> int:
    """Where the IPv6 packet behind Teredo's indications begins, or -1 where none fits before ``stop`` (RFC 4380)."""
    if at + 4 <= end and u16(data, at) == 1:  # authentication: lengths of identifier and value, then 9 bytes
        at += 13 + _int(data[at + 2]) + _int(data[at + 3])
    if at + 8 <= end and u16(data, at) == 0:  # origin
        at += 8
    if at + 40 > end or data[at] >> 4 != 6 or at + 40 + u16(data, at + 4) > stop:
        return -1
    return at


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _in_gre(data: Any, at: int, end: int) -> tuple[int, int, int, int]:
    """`tunnel` of a GRE header at ``at`` (RFC 2784, 2890; version 1 is PPTP's, RFC 2637)."""
    if at + 4 > end:
        return _GRE, _BIT_OF_GRE, end, INNER_IP
    flags, kind = u16(data, at), u16(data, at + 2)
    header = 4 + 4 * (_int((flags >> 15 | flags >> 14) & 1) + _int(flags >> 13 & 1) + _int(flags >> 12 & 1))
    if flags & 0x4000:  # a route stands before the packet (RFC 1701), which nobody sends
        return _GRE, 0, end, INNER_IP
    if flags & 7 == 1:
        header += 4 * _int(flags >> 7 & 1)  # an acknowledgement
    inner = min(at + header, end)
    if kind == 0x0800 or kind == 0x86DD:
        return _GRE, _BIT_OF_GRE, inner, INNER_IP
    if kind == 0x6558:
        return _GRE, _BIT_OF_GRE, inner, INNER_ETHERNET
    if kind == 0x880B:
        return _GRE, _BIT_OF_GRE, inner, INNER_PPP
    if kind == 0x88BE:  # type I has no header of its own, type II comes with sequence numbers
        return _GRE, _BIT_OF_ERSPAN, min(inner + (8 if flags & 0x1000 else 0), end), INNER_ETHERNET
    if kind == 0x22EB:  # type III; the last bit tells of eight bytes more
        whole = inner + 12 <= end
        more = whole and data[inner + 11] & 1
        frame = INNER_IP if whole and u16(data, inner + 10) >> 10 & 31 == 2 else INNER_ETHERNET
        return _GRE, _BIT_OF_ERSPAN, min(inner + (20 if more else 12), end), frame
    return _GRE, 0, inner, INNER_IP
