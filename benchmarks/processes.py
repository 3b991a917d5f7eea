"""A measurement in a process of its own: nothing imported, compiled or held before."""

import multiprocessing
from collections.abc import Callable
from typing import Any


def in_new_process(job: Callable[..., None], *arguments: object) -> Any:
    """What `job` puts into its queue, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=job, args=(*arguments, answer))
    process.start()
    value = answer.get()
    process.join()
    return value
