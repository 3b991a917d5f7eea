"""A method under question, the traffic, and what several questions need of both; made when first asked for.

The traffic is written by `bench.generators.demo`: three services, each on a port and a subnet of its own and seen
through windows of another place in its sessions, so that any method that reads anything can tell them apart.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contract_captures import CLASSES, three_services, windows_of_services
from bench.data.store import Store
from bench.method import Inputs, Method, Monitor, Part, learn, make_parameters, take
from bench.readers import View
from bench.schema import Samples


class Case:
    """A method, the traffic, and what several checks need of both; made when first asked for."""

    def __init__(self, method: type[Method], folder: Path, device: str = "cpu") -> None:
        self.method, self.folder, self.device = method, folder, device

    @cached_property
    def store(self) -> Store:
        """The three services."""
        return three_services(self.folder / "plain")

    @cached_property
    def samples(self) -> Samples:
        """One window of every session that is long enough."""
        return windows_of_services(self.store)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Of the samples: ``[samples]``."""
        return self.store.labels(self.store.default_task)[self.samples.session].astype(np.int64)

    @cached_property
    def inputs(self) -> Inputs:
        """Of the samples: arrays ``[samples, ...]`` of the method's own dtypes (int, float or bool)."""
        return self.represent(self.samples)

    @cached_property
    def rows(self) -> tuple[NDArray[np.int64], ...]:
        """Rows ``[part's samples]`` for training, validation and test: three, one and two sixths."""
        order = np.random.default_rng(1).permutation(len(self.samples))
        return tuple(np.split(order, [len(order) // 2, len(order) * 2 // 3]))

    @cached_property
    def fitted(self) -> Method:
        """A method that learned the task."""
        return self.fit(self.make(), self.labels)

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """The fitted method's, of the test rows: ``[test samples, classes]``."""
        return self.fitted.predict_proba(take(self.inputs, self.rows[2]))

    def make(self, seed: int = 7, preset: Mapping[str, Any] | None = None) -> Method:
        """A new method with its ``tiny`` parameters, and over them a preset's."""
        parameters = make_parameters(self.method, {**self.method.tiny, **(preset or {})})
        return self.method(parameters, classes=CLASSES, seed=seed, device=self.device)

    def view(self, samples: Samples, store: Store | None = None) -> View:
        """What the method gets to see."""
        return View(store or self.store, samples, self.method.reads)

    def represent(self, samples: Samples, store: Store | None = None) -> Inputs:
        """Arrays ``[samples, ...]`` by a new method, of its own dtypes (int, float or bool)."""
        return self.make().represent(self.view(samples, store))

    def fit(self, method: Method, labels: NDArray[np.int64]) -> Method:
        """Fit on the training and validation rows with these labels ``[samples]``."""
        train, validation = (Part(take(self.inputs, rows), labels[rows]) for rows in self.rows[:2])
        return learn(method, train, validation, Monitor())
