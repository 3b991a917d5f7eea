"""Questions put to runs and data: tables, comparisons with tests, and what a data set gives away.

Enters: finished runs from the store of runs, and stores of sessions.  Leaves: records, and a
:class:`~bench.render.Table` of each.  May import runs and all below it; it starts no run but the audit's baselines.

`tables` has the rows of results, `paired` which runs are of the same test samples, `comparison` two methods, `ranking`
(with `ranking_entries`, who takes part) all methods of several data sets; `audit` looks for leaks and shortcuts with
`data_quality`, `capture_setup` (how each class was captured) and `setup_features` (what that alone scores),
`audit_record` is what it finds, `audit_tables` shows that; `latency` times networks.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
