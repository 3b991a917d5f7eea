from .cards import Card as Card
from .names import find_card as find_card
from .prepare import Prepared as Prepared
from .prepare import PrepareOptions as PrepareOptions
from .prepare import open_dataset as open_dataset
from .prepare import prepare_dataset as prepare_dataset
from .store import Store as Store
