"""How batches reach a GPU without making it wait: from arrays that it holds, or made ahead of the step."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.environment import is_gpu as is_gpu
from bench.method import Inputs
from bench.readers import Ragged

HELD: Final = 0.25  # of a GPU's free memory, that training arrays may take: the rest is for the model and its gradients

Made = TypeVar("Made")


def to_device(arrays: Mapping[str, NDArray[Any]], device: str) -> dict[str, Tensor]:
    """The arrays as tensors of the same shapes and dtypes (int, float or bool) on a device.

    To a GPU they go by way of pinned memory, so that the copy runs beside what the GPU is at.
    """
    tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
    if not is_gpu(device):
        return {name: values.to(device) for name, values in tensors.items()}
    return {name: values.pin_memory().to(device, non_blocking=True) for name, values in tensors.items()}


def can_hold(inputs: Inputs, device: str) -> bool:
    """Whether a GPU has room for all arrays ``[samples, ...]`` (int, float or bool), none of which is ragged."""
    if not is_gpu(device) or any(isinstance(values, Ragged) for values in inputs.values()):
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return bool(sum(values.nbytes for values in inputs.values()) <= HELD * free)


def rows_of(tensors: Mapping[str, Tensor], rows: NDArray[np.int64]) -> dict[str, Tensor]:
    """The rows ``[some]`` of tensors ``[samples, ...]``, gathered where these are."""
    device = str(next(iter(tensors.values())).device)
    index = to_device({"rows": rows}, device)["rows"]
    return {name: values.index_select(0, index) for name, values in tensors.items()}


def ahead(made: Iterator[Made]) -> Iterator[Made]:
    """The same, each made by a thread while the one before it is used."""
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(next, made, None)
        while (one := waiting.result()) is not None:
            waiting = thread.submit(next, made, None)
            yield one
