from .convert import converted as converted
from .layout import Layout as Layout
from .tables import batches as batches
