"""The training loop that torch methods share.

A torch method gives :meth:`TorchMethod.network` and inherits the rest of the contract.  The loop is the usual
one: shuffled batches, Adam, linear warm-up then steps down, the epoch with the best validation macro-F1 kept,
early stop.  On the CPU two fits with one seed give identical predictions; a GPU adds no such promise.
"""

import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import InputError
from bench.method import Inputs, Method, Monitor, Part, parameter
from bench.metrics import ABSTAINED, decide, macro_f1

SCORING_BATCH = 256  # samples; bounds memory, does not change the answers
STATE = "model.safetensors"


class TrainingDiverged(ArithmeticError):
    """The loss became infinite or not a number: the run has failed, other runs may go on."""


@dataclass(frozen=True)
class TrainingParameters:
    """What every torch method can set; a method repeats a field to give its paper's default."""

    epochs: int = parameter(30, "passes over the training part", "our choice")
    batch_size: int = parameter(64, "samples an optimiser step", "our choice")
    learning_rate: float = parameter(1e-3, "Adam's step size after the warm-up", "our choice")
    warmup: float = parameter(0.0, "part of all steps over which the learning rate rises linearly", "our choice")
    step_size: int = parameter(10, "epochs after the warm-up between two cuts of the learning rate", "our choice")
    gamma: float = parameter(1.0, "factor of each cut of the learning rate", "our choice")
    patience: int | None = parameter(None, "epochs without a better validation before the end; none: all", "our choice")

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "step_size", "learning_rate", "gamma"):
            if not getattr(self, name) > 0:
                raise InputError(f"parameter {name}={getattr(self, name)}: must be above 0")
        if self.patience is not None and self.patience < 1:
            raise InputError(f"parameter patience={self.patience}: must be at least 1, or none")
        if not 0 <= self.warmup < 1:
            raise InputError(f"parameter warmup={self.warmup}: must be at least 0 and below 1, a part of all steps")

    def learning_rate_at(self, step: int, steps_an_epoch: int) -> float:
        """The learning rate of a step (from 0): linear up to its full value, then StepLR by epochs."""
        warm = round(self.warmup * self.epochs * steps_an_epoch)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        return float(self.learning_rate * self.gamma ** ((step - warm) // steps_an_epoch // self.step_size))


class TorchMethod(Method):
    """A method whose model is one torch module, trained by the loop of this file."""

    family: ClassVar[str] = "deep"
    Parameters: ClassVar[type] = TrainingParameters
    model: nn.Module | None = None  # what `fit` or `load` made

    @abstractmethod
    def network(self) -> nn.Module:
        """A fresh module; called with :meth:`batch`'s tensors as keywords, answers logits ``[samples, classes]``.

        A module may have ``diagnostics() -> dict[str, float]``, read and logged after every training step.
        """

    def batch(self, rows: Inputs) -> dict[str, Tensor]:
        """The tensors of one batch, on the device; types stay as they are, the network expands them."""
        return {name: torch.from_numpy(values).to(self.device) for name, values in rows.items()}

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The scalar to minimise."""
        return F.cross_entropy(logits, labels)

    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """Adam; the loop sets its learning rate before every step."""
        return torch.optim.Adam(network.parameters(), lr=self.parameters.learning_rate, fused=True)

    def answers(self, inputs: Inputs) -> NDArray[np.bool_]:
        """``[samples]``: False where the method abstains; such samples train nothing and are scored NaN."""
        return np.ones(_count(inputs), bool)

    def fit(self, train: Part, validation: Part, monitor: Monitor) -> Self:
        """Train afresh and keep the epoch with the best validation macro-F1 (then the lowest validation loss).

        With an empty validation part the last epoch is kept.  Raises :class:`InputError` for fewer than two
        samples to train on and :class:`TrainingDiverged` for a loss that is not finite.
        """
        usable = np.flatnonzero(self.answers(train.inputs))
        if len(usable) < 2:
            raise InputError(f"{self.name}: {len(usable)} usable training samples; give at least 2")
        with self._seeded():
            self.model = self.network().to(self.device)
            self._loop(self.model, train, usable, validation, monitor)
        self.model.eval()
        return self

    def _loop(self, model: nn.Module, train: Part, usable: NDArray[Any], validation: Part, monitor: Monitor) -> None:
        settings = self.parameters
        shuffle = np.random.default_rng(self.seed)
        optimiser = self.optimiser(model)
        steps = steps_an_epoch(len(usable), settings.batch_size)
        best_score, best_epoch, best_state, step = (-1.0, 0.0), 0, {}, 0
        for epoch in range(1, settings.epochs + 1):
            model.train()
            started, loss_sum, correct = time.perf_counter(), 0.0, 0
            for rows in batches(shuffle.permutation(usable), settings.batch_size):
                for group in optimiser.param_groups:
                    group["lr"] = settings.learning_rate_at(step, steps)
                loss, hits = self._step(model, optimiser, _take(train.inputs, rows), train.labels[rows])
                step, loss_sum, correct = step + 1, loss_sum + loss * len(rows), correct + hits
                if not np.isfinite(loss):
                    raise TrainingDiverged(
                        f"{self.name}: loss {loss} at step {step}, epoch {epoch}; lower the learning rate"
                    )
                diagnostics = model.diagnostics() if hasattr(model, "diagnostics") else {}  # type: ignore[operator]
                monitor.log(step, loss=loss, learning_rate=optimiser.param_groups[0]["lr"], **diagnostics)
            curve = {"loss": loss_sum / len(usable), "accuracy": correct / len(usable)}
            curve["samples_a_second"] = len(usable) / (time.perf_counter() - started)
            scores = self._validate(validation)
            monitor.epoch(epoch, settings.epochs, **curve, **{f"validation_{k}": v for k, v in scores.items()})
            score = (scores["macro_f1"], -scores["loss"]) if scores else (0.0, float(epoch))
            if score > best_score:
                best_score, best_epoch = score, epoch
                best_state = {name: values.clone() for name, values in model.state_dict().items()}
            elif settings.patience is not None and epoch - best_epoch >= settings.patience:
                break
        model.load_state_dict(best_state)

    def _step(self, model: nn.Module, optimiser: Any, rows: Inputs, labels: NDArray[np.int64]) -> tuple[float, int]:
        """One optimiser step; the loss and how many of the rows the model had right."""
        truth = torch.from_numpy(labels).to(self.device)
        with self._precision():
            logits = model(**self.batch(rows))
            loss = self.loss(logits.float(), truth)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return loss.item(), int((logits.argmax(1) == truth).sum())

    def _validate(self, part: Part) -> dict[str, float]:
        """Loss, accuracy and macro-F1 of a part; nothing of an empty one.  An abstention is an error."""
        if not len(part):
            return {}
        probabilities = self.predict_proba(part.inputs)
        predicted = decide(probabilities)
        chosen = probabilities[np.arange(len(part)), part.labels][predicted != ABSTAINED]
        return {
            "loss": float(-np.log(np.maximum(chosen, 1e-12)).mean()) if len(chosen) else 0.0,
            "accuracy": float((predicted == part.labels).mean()),
            "macro_f1": macro_f1(part.labels, predicted, self.classes),
        }

    def predict_proba(self, inputs: Inputs) -> NDArray[np.float32]:
        """Float32 ``[samples, classes]``: softmax of the logits, NaN where :meth:`answers` says no."""
        model = self._fitted().eval()
        probabilities = np.full((_count(inputs), self.classes), np.nan, np.float32)
        rows = np.flatnonzero(self.answers(inputs))
        for start in range(0, len(rows), SCORING_BATCH):
            some = rows[start : start + SCORING_BATCH]
            with torch.inference_mode(), self._precision():
                logits = model(**self.batch(_take(inputs, some)))
            probabilities[some] = logits.float().softmax(1).cpu().numpy()
        return probabilities

    def save_state(self, folder: Path) -> None:
        """Write the module's tensors (safetensors)."""
        state = {name: values.contiguous().cpu() for name, values in self._fitted().state_dict().items()}
        safetensors.torch.save_file(state, folder / STATE)

    def load_state(self, folder: Path) -> None:
        """Read what :meth:`save_state` wrote."""
        with self._seeded():
            self.model = self.network().to(self.device)
        self.model.load_state_dict(safetensors.torch.load_file(folder / STATE, device=self.device))
        self.model.eval()

    def _fitted(self) -> nn.Module:
        if self.model is None:
            raise RuntimeError(f"{self.name} is not fitted: call fit or load first")
        return self.model

    @contextmanager
    def _seeded(self) -> Iterator[None]:
        """Torch's generators seeded by the method's seed, and put back afterwards."""
        device = torch.device(self.device)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            yield

    def _precision(self) -> torch.autocast:
        """Mixed precision where it pays: bfloat16 on CUDA, which needs no loss scaling."""
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda")


def steps_an_epoch(samples: int, batch_size: int) -> int:
    """Optimiser steps of one epoch; a last batch of one sample joins the one before it."""
    return max(1, samples // batch_size + (samples % batch_size > (batch_size > 1)))


def batches(rows: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """The rows in batches; none holds a single sample, which batch normalisation cannot digest."""
    steps = steps_an_epoch(len(rows), batch_size)
    for step in range(steps):
        yield rows[step * batch_size : (step + 1) * batch_size if step < steps - 1 else len(rows)]


def _take(inputs: Inputs, rows: NDArray[np.int64]) -> Inputs:
    return {name: values[rows] for name, values in inputs.items()}


def _count(inputs: Mapping[str, NDArray[Any]]) -> int:
    return len(next(iter(inputs.values())))
