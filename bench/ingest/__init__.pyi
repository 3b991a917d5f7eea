from .capture import CaptureIndex as CaptureIndex
from .capture import inspect as inspect
from .capture import read_capture as read_capture
from .containers import Damage as Damage
