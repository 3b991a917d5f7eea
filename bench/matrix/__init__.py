"""Matrices of runs: each cell once, wherever it is computed.

Enters: specifications of runs, the store of runs.  Leaves: outcomes as they come.  May import runs and what is below
them; it knows nothing of what a run is made of.

`cells` is the whole matrix: what is done, what others are at, what there is time for; `engines` says where cells are
computed: here, in processes of their own by `workers`, on a Dask cluster by `cluster`.  `readers` lets such a
cluster read captures.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
