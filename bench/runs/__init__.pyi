from .execute import Outcome as Outcome
from .execute import RunOptions as RunOptions
from .plan import expand as expand
from .tuning import Search as Search
from .tuning import TuneOptions as TuneOptions
from .tuning import tune as tune
