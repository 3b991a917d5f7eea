"""Tables of flow records to packets and sessions: lists of lengths, directions and times in place of captures.

Enters: a Parquet, Arrow, CSV or JSON file with one row a record, and a card's words for its columns.  Leaves: the same
columns of packets and sessions that the ingest makes of captures, with what a record cannot tell.  May import the
schema, files and errors; it knows no label, no class and no data set.

`layout` says which column is what, `tables` reads rows by batches, `cells` turns their cells into arrays, `convert` a
batch into packets and sessions, `packet_rows` makes records of tables with one row a packet, `joining` makes one
session of the records of one 5-tuple, `guess` writes the words for a table that nobody has described yet.  `ndpi` makes
labels of nDPI's result files.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
