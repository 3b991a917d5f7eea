from .execute import Outcome as Outcome
from .execute import RunOptions as RunOptions
from .plan import expand as expand
