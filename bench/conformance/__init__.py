"""Does a method keep the contract?  The same questions for a method of ours and of anybody else.

Enters: a class, or its name.  Leaves: an answer to every question; of what fails, the author's file and line.  May
import runs, training and what lies below them; it asks no method that is not named.

`questions` are what is asked, `case` is what they are asked of, `checks` asks and says which failure comes first: the
others that rest on it are skipped.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
