from .checks import SplitViolation as SplitViolation
from .checks import verify_split as verify_split
from .split import Split as Split
from .split import make_split as make_split
