"""A reproducibility benchmark for encrypted-traffic classifiers.

From Python: :func:`open_dataset` gives a store of labelled sessions, :func:`make_split` divides it under a
:class:`SplitSpec`, :func:`run` runs methods by name and stores the runs, a class of your own derives from
:class:`Method`, :func:`evaluate` scores probabilities.  docs/python.md shows all of this on one page.

The flat modules of this package are those that the author of a method imports, and the basis of everything else:

- the contract: `method`, `readers` (arrays from the store), `estimator` (scikit-learn), `graphs`,
  `wrapping` (a notebook's own); the room `conformance` checks it, on what `contract_captures` writes
- the ground: `spec` (what is asked: split, settings, run), `schema` (columns of the store), `files` (written whole,
  locked), `structure` (raw JSON or TOML into records), `environment` (the machine, and the digest of code), `errors`

Everything else has a room, whose docstring says what enters, what leaves and what it may import: `ingest` (captures to
packets and sessions), `records` (tables of flow records to the same), `generators` (captures of our own), `data`
(cards to stores), `splits` (who is in which part), `training` (what torch methods share), `scores` (metrics and
tests), `tracking` (the store of runs), `runs` (one method on one split, remembered), `matrix` (many of them), `suites`
(a whole experiment in one file), `tuning` (their parameters searched), `analysis` (tables, comparisons, audits),
`stress` (how a fitted method fails), `render` (tables and plots), `report` (the page), `paper` (a published paper made
again), `cli` (the command line).
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
