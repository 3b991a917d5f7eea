"""What predictions are worth: metrics with intervals, and tests between methods, on plain arrays.

Enters: true classes, class probabilities, groups of samples that belong together.  Leaves: :class:`Scores`, intervals,
p-values and effect sizes.  May import numpy, scipy and scikit-learn, and nothing of ours: what a score means must not
depend on where it came from.

`metrics` has the scores of one run; `jackknife` how sure they are, by leaving out groups; `significance` the tests
between runs and methods; `confidence` likelihood, temperature, and how well confidence tells unknown classes.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
