from .contents import cells as cells
from .contents import of_suite as of_suite
from .suite import Suite as Suite
from .suite import read_suite as read_suite
