"""The smallest of torch methods, points to learn, a monitor that remembers, and what a processor has of bfloat16."""

import numpy as np
import pytest
import torch
from torch import nn

from bench.method import Monitor, Part
from bench.training.budget import TrainingParameters
from bench.training.loop import TorchMethod


class Linear(TorchMethod):
    """Softmax regression with batch normalisation."""

    name = "linear"
    reference = "none"
    reads = frozenset()

    def represent(self, view):
        raise NotImplementedError

    def network(self):
        return Points(self.classes)


class Points(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.1), nn.Linear(2, classes))
        self.calls = 0

    def forward(self, points):
        self.calls += self.training
        return self.layers(points.float())

    def diagnostics(self):
        return {"calls": float(self.calls)}


class Recorder(Monitor):
    def __init__(self):
        self.steps, self.epochs, self.notes = [], [], {}

    def log(self, step, **values):
        self.steps.append({"step": step, **values})

    def log_fact(self, **values):
        self.notes |= values

    def epoch(self, epoch, epochs, **values):
        self.epochs.append({"epoch": epoch, "epochs": epochs, **values})


def part(samples=60, seed=0, classes=3):
    """Classes around points of a circle."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, samples)
    angle = 2 * np.pi * labels / classes
    points = 100 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + draw.normal(0, 10, (samples, 2))
    return Part({"points": points.astype(np.int32)}, labels)


def make(seed=0, classes=3, **parameters):
    parameters = TrainingParameters(**{"epochs": 5, "batch_size": 8, "learning_rate": 0.05} | parameters)
    return Linear(parameters, classes=classes, seed=seed)


class Listening(Linear):
    """Notes the labels of every training step: with a class a sample, the samples."""

    def loss(self, logits, labels):
        self.heard = [*getattr(self, "heard", []), *labels.tolist()]
        return super().loss(logits, labels)


def lstm_in_bfloat16():
    """Skip the test, and say why, on a processor for which oneDNN has no LSTM of bfloat16 (one without AVX-512)."""
    try:
        with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
            nn.LSTM(2, 3)(torch.randn(4, 1, 2))
    except RuntimeError as error:
        pytest.skip(f"torch's own LSTM has no bfloat16 on this processor: {str(error).partition('.')[0]}")


def sizes(module, *without):
    """Numbers in a module's parameters, but for those whose names begin so."""
    return sum(one.numel() for name, one in module.named_parameters() if not name.startswith(without))
