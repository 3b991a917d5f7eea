"""Unequal classes: fewer samples of the frequent ones, or weights of the loss."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.splits.assignment import rank_in_class


def undersample(labels: NDArray[np.int64], draw: np.random.Generator, times: float = 1.0) -> NDArray[np.int64]:
    """Rows of ``labels [N]``, sorted, at most ``times`` the smallest class's number of each class, at random."""
    most = max(1, round(times * np.unique(labels, return_counts=True)[1].min(initial=len(labels))))
    order, rank, _ = rank_in_class(labels, draw.permutation(len(labels)))
    return np.sort(order[rank < most])


def balanced(labels: NDArray[np.int64], draw: np.random.Generator, balance: str, times: float) -> NDArray[np.int64]:
    """Rows of ``labels [N]`` to train on, sorted: all where ``balance`` is keep, else those of :func:`undersample`."""
    return np.arange(len(labels)) if balance == "keep" else undersample(labels, draw, times)


def class_weights(labels: NDArray[np.int64], classes: int, most: float = np.inf) -> Tensor:
    """Float32 ``[classes]``: N / (classes * n_c), at most ``most``; 0 for a class that is absent."""
    counts = np.bincount(labels, minlength=classes)
    weights = np.where(counts > 0, len(labels) / (classes * np.maximum(counts, 1)), 0.0)
    return torch.tensor(weights.clip(max=most), dtype=torch.float32)
