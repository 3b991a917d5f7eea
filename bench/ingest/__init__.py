"""Captures to packets and sessions: one pass over a memory map, in compiled code.

Enters: a pcap or pcapng file, plain or compressed.  Leaves: a :class:`CaptureIndex`, in which every packet and session
is a row and every packet's bytes are a place in the file; damage is told, not thrown away.  May import the schema,
files and errors; it knows no label, no class and no data set.

`containers` reads records and the clocks of interfaces, `headers` finds the IP and transport header of a packet,
`sessions` gathers packets by 5-tuple, `compressed` unpacks, `capture` is all of it.  `packet_bytes` goes the other way:
from an index back to the bytes and series that methods read.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
