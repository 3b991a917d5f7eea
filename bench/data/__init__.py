"""Data sets: from a card and a folder of captures to a store of labelled sessions.

Enters: a card (who published what, and which file or session is of which class) and the captures, or tables of flow
records.  Leaves: a :class:`Store`, memory-mapped Arrow tables of sessions and packets with a manifest that says how
they were made.  May import ingest, records and the ground below them; it knows neither splits nor methods.

`cards` reads a card, `card_tables` are its tables of labels and tasks, `names` finds the card that a word means,
`file_list` reads its list of captures, `labels` its labels of sessions; `download` fetches, `sources` finds the
captures; `prepare` decides whether there is something to do, `build` makes the store of captures and `record_build` of
records; `store` opens it, `manifest` is what it says of itself.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
