"""A reproducibility benchmark for encrypted-traffic classifiers.

From Python: :func:`open_dataset` gives a store of labelled sessions, :func:`make_split` divides it under a
:class:`SplitSpec`, :func:`run` runs methods by name and remembers them, a class of your own derives from
:class:`Method`, :func:`evaluate` scores probabilities.  docs/python.md shows all of it in one sitting.

What stands flat in this package is what the author of a method imports; everything else has a room, whose docstring
says what enters, what leaves and what it may import.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
