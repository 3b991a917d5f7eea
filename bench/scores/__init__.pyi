from .metrics import Scores as Scores
from .metrics import evaluate as evaluate
from .metrics import intervals as intervals
from .significance import mcnemar as mcnemar
from .significance import nemenyi as nemenyi
from .significance import welch as welch
