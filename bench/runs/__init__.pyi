from .execute import Outcome as Outcome
from .execute import RunOptions as RunOptions
from .matrix import run as run
from .matrix import run_matrix as run_matrix
from .plan import expand as expand
