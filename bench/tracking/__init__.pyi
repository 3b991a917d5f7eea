from .claims import Claims as Claims
from .record import Record as Record
from .results import Predictions as Predictions
from .results import RunResult as RunResult
from .tracker import Tracker as Tracker
