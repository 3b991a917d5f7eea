from .execute import Outcome as Outcome
from .execute import RunOptions as RunOptions
from .matrix import run as run
from .matrix import run_matrix as run_matrix
from .plan import expand as expand
from .tuning import Search as Search
from .tuning import TuneOptions as TuneOptions
from .tuning import tune as tune
