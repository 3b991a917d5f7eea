"""Pages of all results: our own, everything that the store of runs and the results folder hold in one file of HTML,
and MLflow's.

Enters: the store of runs, and what `bench reproduce` and `bench audit` left beside it; or a folder of bundles.  Leaves:
one HTML file, for a leaderboard a CSV beside it, or a server on the loopback address.  May import analysis and all
below it; the room `paper`, beside it, meets it in files alone.

`page` writes the file, of which `details` is what is unfolded on demand; `submissions` reads and verifies bundles that
were handed in, `leaderboard` writes their page; `frame` is what both pages share; `croissant` describes a data set to
other programs; `mlflow_server` runs MLflow's server and knows where its page shows runs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
