"""Hyper-parameter search: one Optuna study of one method on one split, by one process or many.

Enters: a run's specification, search spaces, a database for studies.  Leaves: trials, each a nested run in the store of
runs; the best parameters as a file; how they stand to the default ones.  May import runs and what they may; it compares
no two finished runs, and nothing of the test part comes in.

`spaces` reads search spaces and walks through them, `search` is what a study asks and how points are drawn, `studies`
says where studies are and opens them, `share` is what one process does of a study, `summary` says what came of it,
`study` brings one to its end, with several processes if asked, `nested` tunes every run of a suite and
executes it.  The room is the one home of Optuna.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
