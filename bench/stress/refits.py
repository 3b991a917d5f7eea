"""The method of a run fitted anew on less: few labels, or a class left out.

Representations are the run's, made once: only what `fit` gets is less.  Who pre-trains does so on the whole training
part, whose labels that takes none of, but for a class that is left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.store import Store
from bench.errors import InputError, instead
from bench.method import Inputs, Method, Monitor, Part, count, pretrains, take
from bench.runs.attempt import new_method, represent_parts, scored_classes
from bench.runs.guards import FitMonitor, PretrainMonitor, pretraining_over
from bench.scores.confidence import confidences, separation
from bench.spec import RunSpec
from bench.splits.assignment import PARTS
from bench.splits.split import Split
from bench.stress.stress_record import FewLabels, Unknown

Rows = NDArray[np.int64]
Answers = NDArray[np.float32]


@dataclass(frozen=True)
class Refits:
    """A run's method and its parts, in the order in which methods get them."""

    spec: RunSpec
    kind: type[Method]
    classes: list[str]
    parts: dict[str, Part]
    groups: Rows  # [test samples]
    device: str
    distinct: Rows  # rows of training samples, each once: re-sampling repeats them

    @classmethod
    def of(cls, spec: RunSpec, kind: type[Method], store: Store, split: Split, device: str) -> "Refits":
        """Represent all parts."""
        classes, train = scored_classes(split, store), split.parts["train"].take(split.order("train"))
        _, first = np.unique(np.stack([train.session, train.first]), axis=1, return_index=True)
        parts = represent_parts(new_method(spec, kind, len(classes), device), store, split, PARTS)
        return cls(spec, kind, classes, parts, split.groups["test"][split.order("test")], device, np.sort(first))

    def few_labels(self, labels: int, compared: Callable[[Answers], Any]) -> FewLabels:
        """With so many labelled training samples a class, the first of the drawn order: fewer are among more.

        ``compared`` makes scores of answers to the test part.  The validation part stays as it is.
        """
        train = self.parts["train"]
        rows = self.distinct[_occurrence(train.labels[self.distinct]) < labels]
        try:
            some = Part(take(train.inputs, rows), train.labels[rows])
            method = self._fitted(len(self.classes), train.inputs, some, self.parts["validation"])
            answers = method.predict_proba(self.parts["test"].inputs)
        except Exception as error:  # whatever a method says of so little
            return FewLabels(labels, _reason(error), len(rows))
        return FewLabels(labels, "", len(rows), compared(answers))

    def without(self, name: str) -> Unknown:
        """Without a class in training and validation part; raises :class:`InputError` where there is none such."""
        left_out = self.classes.index(name)
        parts = {part: self._without(self.parts[part], left_out) for part in ("train", "validation")}
        test = self.parts["test"]
        known = test.labels != left_out
        if known.all() or not known.any():
            return Unknown(name, "the test part has no sample of it" if known.all() else "the test part has no other")
        try:
            train = parts["train"]
            method = self._fitted(len(self.classes) - 1, train.inputs, train, parts["validation"])
            sure = confidences(method.predict_proba(test.inputs))
        except Exception as error:  # whatever a method says
            return Unknown(name, _reason(error))
        found = separation((sure[known], self.groups[known]), (sure[~known], self.groups[~known]))
        numbers = int(known.sum()), int((~known).sum())
        return Unknown(name, "", *numbers, *astuple(found))

    def _without(self, part: Part, left_out: int) -> Part:
        """The part without a class, whose number the later ones move up to."""
        rows = np.flatnonzero(part.labels != left_out)
        labels = part.labels[rows]
        return Part(take(part.inputs, rows), labels - (labels > left_out))

    def _fitted(self, classes: int, unlabelled: Inputs, train: Part, validation: Part) -> Method:
        """A new method, pre-trained on ``unlabelled`` and fitted on ``train``, which stays as it is."""
        method = new_method(self.spec, self.kind, classes, self.device)
        if pretrains(self.kind):
            method.pretrain(_copied(unlabelled), PretrainMonitor(Monitor()))
        with pretraining_over(method):
            method.fit(Part(_copied(train.inputs), train.labels.copy()),
                       Part(_copied(validation.inputs), validation.labels.copy()), FitMonitor(Monitor()))  # fmt: skip
        return method


def _copied(inputs: Inputs) -> Inputs:
    return take(inputs, np.arange(count(inputs)))


def left_out_classes(asked: Sequence[str], classes: Sequence[str]) -> list[str]:
    """The classes that are to be left out in turn, ``all`` for each.

    Raises :class:`InputError` for one that is none, and where fewer than two would be left to learn.
    """
    if asked and len(classes) < 3:
        raise InputError("bad-options", f"--open-set: of {len(classes)} classes none can be left out; it takes three")
    if list(asked) == ["all"]:
        return list(classes)
    if unknown := [name for name in asked if name not in classes]:
        raise InputError("bad-options", f"--open-set {unknown[0]}: no class of the run; {instead(unknown[0], classes)}")
    return list(asked)


def _occurrence(labels: Rows) -> Rows:
    """How many of the same label stand before each, int64 ``[samples]``.

    >>> _occurrence(np.array([5, 2, 5, 5])).tolist()
    [0, 0, 1, 2]
    """
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    out = np.empty(len(labels), np.int64)
    out[order] = np.arange(len(labels)) - np.searchsorted(ordered, ordered)
    return out


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"
