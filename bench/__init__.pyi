from .analysis.tables import results_table as results_table
from .data.prepare import open_dataset as open_dataset
from .data.store import Store as Store
from .errors import InputError as InputError
from .matrix.cells import run as run
from .method import Method as Method
from .method import Monitor as Monitor
from .readers import View as View
from .render.table import render as render
from .runs.attempt import represent_parts as represent_parts
from .runs.execute import Outcome as Outcome
from .runs.execute import RunOptions as RunOptions
from .scores.metrics import Scores as Scores
from .scores.metrics import evaluate as evaluate
from .spec import Settings as Settings
from .spec import SplitSpec as SplitSpec
from .splits.split import Split as Split
from .splits.split import make_split as make_split
from .tracking.tracker import Tracker as Tracker
from .wrapping import wrap as wrap

__version__: str
