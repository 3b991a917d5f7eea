from .jackknife import difference as difference
from .jackknife import interval as interval
from .jackknife import intervals as intervals
from .metrics import Scores as Scores
from .metrics import evaluate as evaluate
from .significance import nemenyi as nemenyi
from .significance import permute_groups as permute_groups
from .significance import welch as welch
