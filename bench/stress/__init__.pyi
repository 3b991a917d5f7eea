from .stress import StressRequest as StressRequest
from .stress import stress as stress
from .stress_record import Stress as Stress
from .stress_tables import stress_tables as stress_tables
