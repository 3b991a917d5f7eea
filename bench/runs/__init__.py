"""Runs: one method on one split under one seed, done once and remembered.

Enters: names and settings of methods, stores, a split's specification.  Leaves: outcomes, and in the store of runs for
each its result, predictions and model.  May import methods (by name, when one is needed), splits, readers, data and the
ground; it compares no two runs.

`registry` finds methods and what they declare without importing them (`declarations` reads their source), `plan` makes
the matrix of runs and says what it would cost, `attempt` is one run from split to scores, `guards` what it asks of its
method, `kept_arrays` what it need not represent again, `execute` claims a run, makes the attempt and has it remembered;
`models` gives back a run's fitted method and says whose code may run, `classify` lets it answer for a new capture,
`scored` makes runs of predictions from elsewhere, `run_labels` says in words what tells runs apart, `model_card` what a
saved model is.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
