"""A published paper, made again: what it prints, its experiments, and what they show when they are run.

Enters: a folder that declares a paper (`results/paper/paper.toml` and its printed numbers), a store, a scale.  Leaves:
a table and a picture beside the printed numbers.  May import analysis, runs and all below; it names no method and no
data set itself, the folder does.

`declaration` reads the folder, `recompute` says which printed numbers cannot be, `published` shows them; `plan` makes
runs of an experiment, `experiment_results` gathers what they found, `tables_and_figures` (with `attention` and
`single_packets`) shows it; `reproduction` is all of it, `costs` what it would take.  `literature` shows what other
papers print.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
