"""How weights begin: drawn as a paper's framework draws them, pre-trained without labels, or read from a file."""

import argparse
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.environment import freed_memory_kept
from bench.errors import InputError
from bench.files import is_of_machine
from bench.method import Inputs, Monitor, Part, take
from bench.training.budget import PretrainingParameters, batches
from bench.training.loop import TorchMethod, TrainingDiverged

SHARES: Final = 20  # parts of a pre-training after each of which its loss is told


def begin(network: nn.Module, draw: Callable[[Tensor], Any]) -> nn.Module:
    """The network, weights ``[...]`` of its linear and convolutional layers by ``draw`` (of `nn.init`), biases 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
            draw(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


class PretrainedMethod(TorchMethod):
    """A torch method whose ``encoder`` learns from the training part without labels before it learns with them.

    Both its networks have a module ``encoder`` of the same tensors; what it learned is all that is handed over.
    """

    Parameters: ClassVar[type] = PretrainingParameters
    encoded: Mapping[str, Tensor] | None = None  # the encoder's tensors after `pretrain`; empty: from scratch

    @abstractmethod
    def pretraining_network(self) -> nn.Module:
        """A fresh module; called with `batch`'s tensors as keywords, answers the scalar loss, masks drawn by torch."""

    def authors_name(self, name: str) -> str:
        """The name in the authors' files of the encoder's tensor ``name``."""
        return name

    def before_pretraining(self, network: nn.Module, unlabelled: Inputs, rows: NDArray[np.int64]) -> None:
        """Learn into the network's buffers what its first step needs of ``rows [some]`` of int, float or bool arrays.

        Called with pre-training or with `before_training`, of the network that learns first; with no row where the
        authors' weights are read.
        """

    def pretraining_optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """Adam; the loop sets its learning rate before every step."""
        return torch.optim.Adam(network.parameters(), fused=True)

    def pretrain(self, unlabelled: Inputs, monitor: Monitor) -> None:
        """Train the encoder on arrays ``[samples, ...]`` (int, float or bool), or read it from the file ``weights``.

        Raises :class:`InputError` for such a file that does not fit, and for fewer than two samples to train on.
        """
        p, self.encoded = self.parameters, {}
        if p.pretraining == "scratch":
            return
        with self._seeded(), freed_memory_kept():
            network = self.pretraining_network().to(self.device)
            encoder = network.get_submodule("encoder")
            if p.weights:
                self.before_pretraining(network, unlabelled, np.arange(0))
                encoder.load_state_dict(self._authors_tensors(encoder, Path(p.weights)), strict=False)
            else:
                self._pretrain(network, unlabelled, monitor)
        self.encoded = {name: values.detach().clone() for name, values in encoder.state_dict().items()}

    def _pretrain(self, network: nn.Module, unlabelled: Inputs, monitor: Monitor) -> None:
        p, step, seen = self.parameters, 0, 0
        rows = np.flatnonzero(self.can_classify(unlabelled))
        if len(rows) < 2:
            raise InputError("cannot-train", f"{self.name}: {len(rows)} samples to pre-train on; give at least 2")
        self.before_pretraining(network, unlabelled, rows)
        optimiser, draw = self.pretraining_optimiser(network.train()), np.random.default_rng((self.seed, 1))
        passes = chain.from_iterable(batches(draw.permutation(rows), p.pretraining_batch) for _ in repeat(None))
        for share, steps in enumerate(_shares(p.pretraining_steps), start=1):
            losses = []
            for some in islice(passes, steps):
                for group in optimiser.param_groups:
                    group["lr"] = p.pretraining_rate_at(step)
                with self.precision():
                    loss = network(**self.batch(take(unlabelled, some)))
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                if self.clip_norm is not None:
                    nn.utils.clip_grad_norm_(network.parameters(), self.clip_norm)
                optimiser.step()
                losses.append(loss.detach())
                step, seen = step + 1, seen + len(some)
            mean = float(torch.stack(losses).mean())
            if not np.isfinite(mean):
                raise TrainingDiverged(f"{self.name}: loss {mean} in pre-training; lower pretraining_rate")
            monitor.log(step, loss=mean)
            monitor.log_fact(training_samples=len(rows), optimiser_steps=step, samples_seen=seen, loss=mean)
            monitor.epoch(share, min(SHARES, p.pretraining_steps), loss=mean)

    def before_training(self, network: nn.Module, train: Part, rows: NDArray[np.int64]) -> None:
        """Hand the encoder over and freeze it, if asked; ``rows [some]``.  Raises RuntimeError before `pretrain`."""
        if self.encoded is None:
            raise RuntimeError(f"{self.name}: call pretrain before fit; `bench.method.learn` calls both")
        if not self.encoded:
            self.before_pretraining(network, train.inputs, rows)
            return
        encoder = network.get_submodule("encoder")
        encoder.load_state_dict(self.encoded)
        if self.parameters.pretraining == "frozen":
            encoder.requires_grad_(False)
            for layer in encoder.modules():
                if isinstance(layer, nn.Dropout):
                    layer.p = 0.0  # what does not learn needs no noise

    def _authors_tensors(self, encoder: nn.Module, path: Path) -> dict[str, Tensor]:
        """The encoder's parameters as the authors' file has them; buffers stay."""
        theirs, found = tensors_of(path), {}
        for name, own in encoder.named_parameters():
            values = theirs.get(self.authors_name(name))
            if values is None or values.numel() != own.numel():
                has = "no" if values is None else f"another shape ({list(values.shape)}, not {list(own.shape)}) of"
                what = f"{path}: has {has} {self.authors_name(name)}; take the authors' file, and its layers' sizes"
                raise InputError("bad-weights", what)
            found[name] = values.reshape(own.shape)
        return found


def _shares(steps: int) -> Iterator[int]:
    """As many steps in at most `SHARES` equal shares."""
    shares = min(SHARES, steps)
    return (steps * (share + 1) // shares - steps * share // shares for share in range(shares))


def tensors_of(path: Path) -> dict[str, Tensor]:
    """Float tensors ``[...]`` by name of a safetensors file, or of one that torch wrote; no code of it is run.

    Checkpoints hold them under "model", beside words of their training.  Raises :class:`InputError`.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        words: AbstractContextManager[Any] = torch.serialization.safe_globals([argparse.Namespace])
        with words:
            content = torch.load(path, map_location="cpu", weights_only=True)
        content = content.get("model", content)
        return {name: values for name, values in content.items() if isinstance(values, Tensor)}
    except Exception as error:  # an unpickler raises whatever a foreign file makes it do
        if is_of_machine(error):
            raise
        what = f"cannot be read as weights ({type(error).__name__})"
        raise InputError(
            "bad-weights", f"{path}: {what}; give a safetensors file, or tensors that torch wrote"
        ) from None
