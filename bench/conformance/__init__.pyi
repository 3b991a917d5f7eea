from .case import Case as Case
from .checks import Check as Check
from .checks import ask as ask
from .checks import check as check
from .questions import CHECKS as CHECKS
