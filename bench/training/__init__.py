"""What torch methods share: the training loop, its budget, and how packets become sessions.

Enters: a network, and the parts of a split as arrays with labels.  Leaves: a fitted method.  May import torch, the
contract of methods and the ground below it; it knows no method.

`budget` says how long to train, and has the parameters that all torch methods have; `loop` is the training loop, of
:class:`TorchMethod`, which `feed` gives its batches; `fitting` finds after how many steps it fits; `units` has methods
that read the first bytes of packets, or single packets; `balance` is for unequal classes, `recurrent` for LSTMs and
GRUs under mixed precision, `lstm` for LSTMs over bytes, `long_sequences` for those that would not fit into memory,
`packed` for GRUs over packed sequences; `products` are matrix products; `initial` is how
weights begin: drawn, pre-trained without labels (:class:`PretrainedMethod`) or read from a file of the authors.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
