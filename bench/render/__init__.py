"""What people see: a table in six formats, plots, and the parts of an HTML page.

Enters: a :class:`Table` (cells for people, records for programs), arrays to draw.  Leaves: text in the form that was
asked for, SVG and PNG files that are the same bytes for the same data.  May import scores, files and errors: it shows
what it is given and knows neither runs nor data sets.

`table` has the six formats, `plots` is the one home of matplotlib, `html` and `svg` are for the report's page, `crate`
describes a bundle of runs to others' programs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
