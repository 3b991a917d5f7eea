"""Suites: a whole experiment in one file, held to digests.

Enters: a TOML file, or runs.  Leaves: specifications of runs, and which of stored runs belong to the suite.  May import
runs and what is below them; it computes nothing.

`suite` is the file: data sets with their stores, tasks and splits, methods with their settings; `contents` holds it
against what is here and makes the matrix of it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
