from .demo import write as write
