from .declaration import Experiment as Experiment
from .declaration import Paper as Paper
from .declaration import find_paper as find_paper
from .plan import Scale as Scale
from .reproduction import Request as Request
from .reproduction import reproduce as reproduce
