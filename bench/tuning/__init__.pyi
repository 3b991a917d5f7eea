from .nested import tune_each as tune_each
from .search import Search as Search
from .share import TuneOptions as TuneOptions
from .study import tune as tune
