from .capture import CaptureIndex as CaptureIndex
from .capture import read_capture as read_capture
from .containers import Damage as Damage
from .inspection import inspect as inspect
from .options import IngestOptions as IngestOptions
