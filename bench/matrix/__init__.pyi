from .cells import run as run
from .cells import run_matrix as run_matrix
