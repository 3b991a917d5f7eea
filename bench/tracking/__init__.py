"""The store of runs: what is remembered, who computes what, and nothing lost between the two.

Enters: a run's specification, tags, numbers and files.  Leaves: records of finished runs, their files held against the
digests that they recorded.  May import the ground, scores, and stores of sessions (to hold a record against one); it
knows no method and computes nothing.

`results` is what a finished run leaves, `record` a run as it is remembered, `address` where the store is, `database`
asks it in SQL, `run_files` reads and removes the files of runs, `claims` says which process computes what, `writing`
brings a run whole into a folder and from there into the store, `tracker` (with `writing` the one home of MLflow) is the
store as everybody uses it.  `selection` is the filter of stored runs, `bundle` sends them from store to store, `proof`
holds what comes against itself, `pruning` removes what need not be kept.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
