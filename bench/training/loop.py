"""The training loop that torch methods share.

A torch method gives :meth:`TorchMethod.network` and inherits the rest of the contract.  The loop is the usual
one: shuffled batches, Adam, linear warm-up then steps down, the epoch with the best validation macro-F1 kept,
early stop.  On the CPU two fits with one seed give identical predictions; a GPU adds no such promise.
"""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from bench.environment import freed_memory_kept, precision_on
from bench.errors import InputError
from bench.method import (
    Inputs,
    Method,
    Monitor,
    Part,
    count,
    refuse_old_hooks,
    take,
)
from bench.readers import Ragged
from bench.scores.metrics import ABSTAINED, decide, macro_f1
from bench.training import feed
from bench.training.budget import TrainingParameters, epochs_of_batches, micro_batches
from bench.training.products import by_onednn
from bench.training.recurrent import recurrent_in_float32

TOLD_AT_ONCE: Final = 50  # steps whose numbers are fetched from the device together
LATE: Final = 0.9  # of the steps: a validation loss that is lowest after these may fall further

STATE = "model.safetensors"

#: a step or a part of one: a network's arguments, the labels, its share of the step's loss, and whether it is the last
Batch = tuple[dict[str, Tensor], Tensor, Tensor | None, bool]

Told = tuple[int, dict[str, Tensor]]  # samples of a batch, and scalars of it


class TrainingDiverged(ArithmeticError):
    """The loss became infinite or not a number: the run has failed, other runs may go on."""


class TorchMethod(Method):
    """A method whose model is one torch module, trained by the loop of this file."""

    family: ClassVar[str] = "deep"
    Parameters: ClassVar[type] = TrainingParameters
    scoring_batch: ClassVar[int] = 256  # samples; bounds memory, does not change the answers
    clip_norm: ClassVar[float | None] = None  # gradients longer than this are scaled down to it
    model: nn.Module | None = None  # what `fit` or `load` made

    def __init_subclass__(cls, **more: Any) -> None:
        """Refuse hooks under names of before: nobody would call them."""
        super().__init_subclass__(**more)
        refuse_old_hooks(cls)

    @abstractmethod
    def network(self) -> nn.Module:
        """A fresh module; called with :meth:`batch`'s tensors as keywords, answers logits ``[samples, classes]``.

        A module may have ``diagnostics() -> dict[str, Tensor]``, scalars that are logged for every training step.
        """

    def before_training(self, network: nn.Module, train: Part, rows: NDArray[np.int64]) -> None:
        """Learn before the first step what the training part alone tells, into the network's buffers or weights.

        Class weights, scales, layer-wise pre-training.  ``rows [some]`` of ``train`` are those that will be trained on.
        """

    def before_validation(self, network: nn.Module, train: Part, rows: NDArray[np.int64]) -> None:
        """Make the network ready for evaluation after an epoch on ``rows [some]`` of ``train``; draws no random number.

        What it writes into buffers is part of the epoch's state, and kept with the best.
        """

    def sample_rows(self, labels: NDArray[np.int64], draw: np.random.Generator) -> NDArray[np.int64]:
        """Rows of ``labels [N]`` to train on: all, or what a paper's under-sampling leaves (:func:`undersample`)."""
        return np.arange(len(labels))

    def batch(self, rows: Inputs) -> dict[str, Tensor]:
        """The tensors ``[batch, ...]`` of a batch, on the device; dtypes (int, float, bool) stay, networks expand them.

        A method with ragged inputs, or one that builds histograms or graphs, overrides this.
        """
        return self.to_device({name: values for name, values in rows.items() if not isinstance(values, Ragged)})

    def to_device(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
        """The arrays as tensors of the same shapes and dtypes (int, float or bool) on the device."""
        return feed.to_device(arrays, self.device)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The scalar to minimise, of float32 logits; a part that the network worked out itself may be added."""
        return F.cross_entropy(logits, labels)

    def loss_divisor(self, labels: Tensor) -> Tensor | None:
        """A scalar: what :meth:`loss` divides a sum over a batch's ``labels [batch]`` by, float or int.

        None where it is no such mean: then `micro_batch` is refused, as it is where a norm looks at the whole batch.
        """
        return torch.tensor(len(labels), device=labels.device)

    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """Adam; the loop sets its learning rate before every step, of a group with ``share`` that part of it."""
        return torch.optim.Adam(network.parameters(), lr=self.parameters.learning_rate, fused=True)

    def can_classify(self, inputs: Inputs) -> NDArray[np.bool_]:
        """Bool ``[samples]``: False where the method abstains; such samples train nothing and are scored NaN."""
        return np.ones(count(inputs), bool)

    def trained_rows(self, train: Part) -> NDArray[np.int64]:
        """Rows, int64 ``[some]``, of those that are not abstained from, and that :meth:`sample_rows` leaves."""
        usable = np.flatnonzero(self.can_classify(train.inputs))
        return usable[self.sample_rows(train.labels[usable], np.random.default_rng((self.seed, 0)))]

    def fit(self, train: Part, validation: Part, monitor: Monitor) -> Self:
        """Train afresh and keep the epoch with the best validation macro-F1 (then the lowest validation loss).

        Where no validation sample is answered the last epoch is kept.  That the loss on validation was lowest in the
        last tenth of the steps is a fact of the fit that tables tell.  Raises :class:`InputError` for fewer than two
        samples to train on and :class:`TrainingDiverged` for a loss that is not finite.
        """
        usable = TorchMethod.trained_rows(self, train)
        if len(usable) < 2:
            raise InputError("cannot-train", f"{self.name}: {len(usable)} usable training samples; give at least 2")
        monitor.log_fact(training_samples=len(usable))
        with self._seeded(), freed_memory_kept():
            self.model = self._made()
            self._check_micro_batch(self.model)
            self.before_training(self.model, train, usable)
            self._loop(self.model, train, usable, validation, monitor)
        self.model.eval()
        return self

    def _check_micro_batch(self, model: nn.Module) -> None:
        """Raises :class:`InputError` where the gradients of a batch's parts do not add up to its own."""
        if self.parameters.micro_batch is None:
            return
        norms = any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in model.modules())
        defines = [next(one for one in type(self).__mro__ if name in vars(one)) for name in ("loss_divisor", "loss")]
        norms |= not issubclass(*defines)  # a loss of its own that does not say what it divides by
        if norms or self.loss_divisor(torch.zeros(1, dtype=torch.int64, device=self.device)) is None:
            what = (
                f"{self.name}: micro_batch={self.parameters.micro_batch}: its norms or its loss look at a whole batch"
            )
            raise InputError("bad-parameter", f"{what}; leave it out")

    def _loop(
        self, model: nn.Module, train: Part, usable: NDArray[np.int64], validation: Part, monitor: Monitor
    ) -> None:
        """Train on rows ``usable`` of ``train``; see :meth:`fit`."""
        settings, step, seen = self.parameters, 0, 0
        optimiser, kept, told = self.optimiser(model), Kept(), StepLog(self.name, monitor)
        each = settings.steps_an_epoch(len(usable))
        epochs = epochs_of_batches(usable, settings, np.random.default_rng(self.seed))
        feeding = self._feeding(train)
        for epoch, rows_of_steps in enumerate(epochs, start=1):
            model.train()
            started, before, parts = time.perf_counter(), seen, list[Told]()
            for tensors, truth, share, last in feeding(rows_of_steps):
                if not parts:
                    optimiser.zero_grad(set_to_none=True)
                parts.append((len(truth), self._backward(model, tensors, truth, share)))
                if not last:
                    continue
                rate = settings.learning_rate_at(step, each)
                for group in optimiser.param_groups:
                    group["lr"] = rate * group.get("share", 1.0)
                values = _of_parts(parts) | self._update(model, optimiser)
                samples = sum(number for number, _ in parts)
                step, seen, parts = step + 1, seen + samples, []
                told.add(epoch=epoch, step=step, samples=samples, learning_rate=rate, **values)
            curve = told.means()
            curve["samples_a_second"] = (seen - before) / (time.perf_counter() - started)
            self.before_validation(model, train, usable)
            scores = self._validate(validation)
            monitor.epoch(epoch, settings.epochs, **curve, **{f"validation_{k}": v for k, v in scores.items()})
            kept.consider(model, epoch, step, scores)
            monitor.log_fact(optimiser_steps=step, samples_seen=seen, chosen_step=kept.step)
            if settings.patience is not None and epoch - kept.improved >= settings.patience:
                break
        else:
            if settings.epochs > 1 and kept.lowest > LATE * step:
                monitor.log_fact(still_improving=1)
        model.load_state_dict(kept.state)

    def _feeding(self, train: Part) -> Callable[[Iterator[NDArray[np.int64]]], Iterator[Batch]]:
        """From the rows of each step of an epoch to what :meth:`_step` takes, in the same order."""
        whole = type(self).batch is TorchMethod.batch and feed.can_hold(train.inputs, self.device)
        held = self.to_device(train.inputs) if whole else {}

        def made(steps: Iterator[NDArray[np.int64]]) -> Iterator[Batch]:
            for rows in steps:
                truth, parts = train.labels[rows], micro_batches(rows, self.parameters.micro_batch)
                total = None if len(parts) == 1 else self._divisor(self.to_device({"truth": truth})["truth"])
                for some in parts:
                    tensors = feed.rows_of(held, some) if whole else self.batch(take(train.inputs, some))
                    labels = self.to_device({"truth": train.labels[some]})["truth"]
                    share = None if total is None else self._divisor(labels) / total
                    yield tensors, labels, share, some is parts[-1]

        return lambda steps: feed.ahead(made(steps)) if feed.is_gpu(self.device) else made(steps)

    def _divisor(self, labels: Tensor) -> Tensor:
        divisor = self.loss_divisor(labels)
        assert divisor is not None, "see `_check_micro_batch`"
        return divisor

    def _backward(
        self, model: nn.Module, tensors: dict[str, Tensor], truth: Tensor, share: Tensor | None
    ) -> dict[str, Tensor]:
        """Add the gradient of a batch's loss, or of a part's share of it; its loss, and how much the model had right.

        Nothing is fetched from the device: that would wait until it has done all that was asked of it.
        """
        with self.precision():
            logits = model(**tensors)
            loss = self.loss(logits.float(), truth)
        loss = loss if share is None else loss * share
        loss.backward()
        return {"loss": loss.detach(), "accuracy": (logits.argmax(1) == truth).float().mean()}

    def _update(self, model: nn.Module, optimiser: Any) -> dict[str, Tensor]:
        """One optimiser step with the gradients that are there, and the module's diagnostics after it."""
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), self.clip_norm)
        optimiser.step()
        return model.diagnostics() if hasattr(model, "diagnostics") else {}  # type: ignore[operator]

    def _validate(self, part: Part) -> dict[str, float]:
        """Loss, accuracy and macro-F1 of a part; nothing where no sample is answered.  An abstention is an error."""
        if not len(part):
            return {}
        probabilities = self.predict_proba(part.inputs)
        predicted = decide(probabilities)
        chosen = probabilities[np.arange(len(part)), part.labels][predicted != ABSTAINED]
        if not len(chosen):
            return {}
        return {
            "loss": float(-np.log(np.maximum(chosen, 1e-12)).mean()),
            "accuracy": float((predicted == part.labels).mean()),
            "macro_f1": macro_f1(part.labels, predicted, self.classes),
        }

    def predict_proba(self, inputs: Inputs) -> NDArray[np.float32]:
        """Float32 ``[samples, classes]``: softmax of the logits, NaN where :meth:`can_classify` says no."""
        model = self._fitted().eval()
        probabilities = np.full((count(inputs), self.classes), np.nan, np.float32)
        rows = np.flatnonzero(self.can_classify(inputs))
        for start in range(0, len(rows), self.scoring_batch):
            some = rows[start : start + self.scoring_batch]
            with torch.inference_mode(), self.precision():
                logits = model(**self.batch(take(inputs, some)))
            probabilities[some] = logits.float().softmax(1).cpu().numpy()
        return probabilities

    def save_state(self, folder: Path) -> None:
        """Write the module's tensors (safetensors)."""
        state = {name: values.contiguous().cpu() for name, values in self._fitted().state_dict().items()}
        safetensors.torch.save_file(state, folder / STATE)

    def load_state(self, folder: Path) -> None:
        """Read what :meth:`save_state` wrote."""
        with self._seeded():
            self.model = self._made()
        self.model.load_state_dict(safetensors.torch.load_file(folder / STATE, device=self.device))
        self.model.eval()

    def _made(self) -> nn.Module:
        return by_onednn(recurrent_in_float32(self.network())).to(self.device)

    def _fitted(self) -> nn.Module:
        if self.model is None:
            raise RuntimeError(f"{self.name} is not fitted: call fit or load first")
        return self.model

    @contextmanager
    def _seeded(self) -> Iterator[None]:
        """Torch's generators seeded by the method's seed, sums on the CPU in one order; all put back afterwards.

        Else gradients of gathered rows (``x[index]``) are added up in the order in which threads come.
        """
        device, before = torch.device(self.device), torch.are_deterministic_algorithms_enabled()
        memory: Any = torch.utils.deterministic
        filled = memory.fill_uninitialized_memory
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            torch.use_deterministic_algorithms(device.type == "cpu", warn_only=True)
            memory.fill_uninitialized_memory = False  # nothing here reads what it has not written
            try:
                yield
            finally:
                torch.use_deterministic_algorithms(before)
                memory.fill_uninitialized_memory = filled

    def precision(self) -> torch.autocast:
        """Mixed precision where it pays: bfloat16 on CUDA, which needs no loss scaling; not in recurrent layers."""
        name = precision_on(self.device)
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=name == "bfloat16")


def _of_parts(parts: Sequence[Told]) -> dict[str, Tensor]:
    """Loss and accuracy of a step, of those of its parts: their losses are shares of it already."""
    samples = sum(number for number, _ in parts)
    return {
        "loss": sum((values["loss"] for _, values in parts[1:]), parts[0][1]["loss"]),
        "accuracy": sum(
            (values["accuracy"] * (number / samples) for number, values in parts[1:]),
            parts[0][1]["accuracy"] * (parts[0][0] / samples),
        ),
    }


@dataclass
class Kept:
    """The epoch whose weights are kept so far, and the last one in which anything got better."""

    score: tuple[float, float] = (-1.0, 0.0)
    loss: float = np.inf
    step: int = 0  # after which the kept weights stood
    lowest: int = 0  # the step with the lowest loss
    improved: int = 0  # epoch
    state: dict[str, Tensor] = field(default_factory=dict)

    def consider(self, model: nn.Module, epoch: int, step: int, scores: Mapping[str, float]) -> None:
        """Keep the model where its validation scores are the best; without any, the last one is."""
        score = (scores["macro_f1"], -scores["loss"]) if scores else (0.0, float(epoch))
        if score > self.score or scores["loss"] < self.loss:
            self.improved = epoch
        if scores and scores["loss"] < self.loss:
            self.loss, self.lowest = scores["loss"], step
        if score > self.score:
            self.score, self.step = score, step
            self.state = {name: values.clone() for name, values in model.state_dict().items()}


class StepLog:
    """What the steps have to tell, fetched from the device for many at once: each fetch waits for all its work."""

    def __init__(self, method: str, monitor: Monitor) -> None:
        self.method, self.monitor = method, monitor
        self.waiting: list[dict[str, Tensor | float]] = []
        self.told: list[tuple[float, float, float]] = []  # samples, loss and accuracy of each step of the epoch

    def add(self, **values: Tensor | float) -> None:
        """One step: scalars ``epoch``, ``step`` (from 1), ``samples``, ``loss``, ``accuracy`` (a share), and others.

        Raises :class:`TrainingDiverged` where the loss of one of the last steps is not finite.
        """
        self.waiting.append(values)
        if len(self.waiting) == TOLD_AT_ONCE:
            self._tell()

    def means(self) -> dict[str, float]:
        """Loss and accuracy of the epoch's samples, which ends here; raises as :meth:`add`."""
        self._tell()
        samples, losses, shares = np.transpose(self.told)
        self.told = []
        return {"loss": float(samples @ losses / samples.sum()), "accuracy": float(samples @ shares / samples.sum())}

    def _tell(self) -> None:
        for values in _fetched(self.waiting):
            epoch, step, samples, accuracy = (values.pop(name) for name in ("epoch", "step", "samples", "accuracy"))
            if not np.isfinite(values["loss"]):
                where = f"loss {values['loss']} at step {step:.0f}, epoch {epoch:.0f}"
                raise TrainingDiverged(f"{self.method}: {where}; lower the learning rate")
            self.monitor.log(int(step), **values)
            self.told.append((samples, values["loss"], accuracy))
        self.waiting = []


def _fetched(steps: list[dict[str, Tensor | float]]) -> list[dict[str, float]]:
    """The same as numbers, by one copy from the device."""
    scalars = [value.float() for values in steps for value in values.values() if isinstance(value, Tensor)]
    numbers = iter(torch.stack(scalars).tolist() if scalars else ())
    return [
        {name: next(numbers) if isinstance(value, Tensor) else value for name, value in values.items()}
        for values in steps
    ]
