"""Captures to packets and sessions: one pass over a memory map, in compiled code.

Enters: a pcap or pcapng file, plain or compressed.  Leaves: a :class:`CaptureIndex`, in which every packet and session
is a row and every packet's bytes are a place in the file; damage is told, not thrown away.  May import the schema,
files and errors; it knows no label, no class and no data set.

`options` are the rules of a reading, `compressed` unpacks, `foreign` names what is no capture.  `containers` reads
records and the clocks of interfaces, `links` finds the outermost IP header of a frame, `tunnels` what is inside,
`headers` the transport header; `sessions` gathers packets by 5-tuple, `connections` follows what they tell of each
other: where a TCP connection ends, who is the client, what was captured or sent twice.  `capture` is all of it,
`inspection` says it to people.  `packet_bytes` goes the other way: from an index back to the bytes and series that
methods read.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
