"""Stress tests: how a finished run's method fails when traffic, labels or classes are not those that it was fitted on.

Enters: a finished run with its model, and the store that it ran on.  Leaves: a record of scores beside the run's own,
and its tables.  May import analysis and all below it; it changes nothing in the store of runs.

`stress` does all; `sampled` has test samples as a store in which packets can change, `changes` what is changed,
`server_names` where names of servers stand; `refits` fits anew on few labels or without a class; `other_setups` asks
about another data set; `stress_record` is what is found, `stress_tables` shows that.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
