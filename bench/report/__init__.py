"""One page of all results: everything that the store of runs and the results folder hold, in one file of HTML.

`elements` makes markup in which no text of the data can become markup, `charts` the pictures, `page` the sections.
"""

from bench.report.page import write

__all__ = ["write"]
