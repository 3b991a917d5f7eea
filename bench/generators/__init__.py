"""Captures that the harness writes itself.

Enters: a seed and sizes.  Leaves: capture files, the same bytes for the same arguments.  May import files and errors;
it knows no card and no store.

`demo` writes the shipped data set's sessions of six services, `packet_writer` puts packets into captures (scapy).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
