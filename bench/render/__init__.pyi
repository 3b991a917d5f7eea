from .table import FORMATS as FORMATS
from .table import Table as Table
from .table import render as render
