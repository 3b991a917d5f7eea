"""One page of all results: everything that the store of runs and the results folder hold, in one file of HTML.

Enters: the store of runs, and what `bench reproduce` and `bench audit` left beside it.  Leaves: one HTML
file, which `page` writes.  May import analysis and all below it; the room `paper`, beside it, meets it in files alone.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
