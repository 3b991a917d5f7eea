"""Methods that tell how many samples they are asked for, each with one thing that arrays may not rest on."""

import dataclasses
import os
from pathlib import Path

import numpy as np

from bench.method import Method, NoParameters, parameter
from bench.runs import guards


@dataclasses.dataclass(frozen=True)
class Parameters(NoParameters):
    packets: int = parameter(4, "packets", "our choice")
    width: int = parameter(2, "times that they are told", "our choice")
    step: int = parameter(1, "of fit", "our choice")


class Telling(Method):
    """Writes down how many samples it is asked for."""

    name, reference, family, reads = "telling", "a test", "baseline", frozenset({"lengths", "times"})
    Parameters = Parameters

    def __init__(self, parameters=None, **given):
        super().__init__(parameters, **given)
        self.width = self.parameters.width

    def represent(self, view):
        with Path(os.environ["CALLS"]).open("a") as file:
            file.write(f"{len(view)}\n")
        lengths = np.repeat(view.lengths(self.parameters.packets)[:, :, None], self.width, axis=2)
        return {"lengths": lengths.astype(np.float32), "times": view.ragged("times")}

    def fit(self, train, validation, monitor):
        features = self.features(train.inputs)
        self.means = np.stack([features[train.labels == one].mean(axis=0) for one in range(self.classes)])
        self.means *= self.parameters.step
        train.inputs["lengths"][:] = -1  # what is kept was kept before
        return self

    def predict_proba(self, inputs):
        near = np.exp(-np.square(self.features(inputs)[:, None] - self.means).mean(axis=2) / 1e4)
        return ((near + 1e-6) / (near + 1e-6).sum(axis=1, keepdims=True)).astype(np.float32)

    def features(self, inputs):
        sums = np.add.reduceat(inputs["times"].values, inputs["times"].offsets[:-1])
        return np.concatenate([inputs["lengths"].reshape(len(sums), -1), sums[:, None]], axis=1)

    def save_state(self, folder): ...
    def load_state(self, folder): ...


class Seeded(Telling):
    name = "seeded"

    def represent(self, view):
        return {**super().represent(view), "seed": np.full(len(view), self.seed)}


class Classes(Telling):
    name = "classes"

    def represent(self, view):
        return {**super().represent(view), "classes": np.full(len(view), self.classes)}


class Leaves(Telling):
    """Leaves something for `fit` in the object."""

    name = "leaves"

    def represent(self, view):
        self.left = 1
        return super().represent(view)

    def fit(self, train, validation, monitor):
        assert self.left
        return super().fit(train, validation, monitor)


class Drawing(Telling):
    """Moves a generator from which `fit` may draw, too."""

    name = "drawing"

    def represent(self, view):
        np.random.random()  # noqa: NPY002
        return super().represent(view)


class Inner:
    def __init__(self, parameters):
        self.parameters = parameters


class Handing(Telling):
    """Hands its parameters to another object, which reads them later."""

    name = "handing"

    def __init__(self, parameters=None, **given):
        super().__init__(parameters, **given)
        self.inner = Inner(self.parameters)

    def represent(self, view):
        return {**super().represent(view), "step": np.full(len(view), self.inner.parameters.step)}


class Remembering(Telling):
    """Knows a sample again."""

    name = "remembering"
    seen: list = []  # noqa: RUF012

    def represent(self, view):
        self.seen.append(len(view))
        return super().represent(view)


class Failing(Telling):
    name = "failing"

    def predict_proba(self, inputs):
        raise ArithmeticError("no answer")


class Looking(Telling):
    name = "looking"

    def represent(self, view):
        return {**super().represent(view), "shift": np.full(len(view), int(os.environ.get("SHIFT", "0")))}


class Sharing(Telling):
    """Two inputs of one buffer: a fit that writes into one changes the other, which it would not of copies."""

    name = "sharing"

    def represent(self, view):
        both = view.times(4)
        return {**super().represent(view), "one": both, "other": both}


class Masked(Telling):
    """A mask does not come back from a file."""

    name = "masked"

    def represent(self, view):
        return {**super().represent(view), "first": np.ma.masked_less(view.times(4), 1.0)}


class Smuggling(Telling):
    """Hands what a fitted object has learned to whoever finds its arrays."""

    name = "smuggling"

    def represent(self, view):
        told = np.zeros((len(view), 3))
        if hasattr(self, "means") and len(view) > guards.ASKED:
            told[0] = 1
        return {**super().represent(view), "told": told}

    def fit(self, train, validation, monitor):
        assert not train.inputs["told"].any() and not validation.inputs["told"].any()
        return super().fit(train, validation, monitor)


class Strided(Telling):
    """Arrays that are a view of others: a copy of them might be summed in another order."""

    name = "strided"

    def represent(self, view):
        return {**super().represent(view), "first": view.times(4)[:, 1]}
