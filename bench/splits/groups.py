"""Which sessions a scheme keeps together, which classes have groups enough for it, and what ``auto`` stands for."""

import dataclasses
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.errors import InputError, some
from bench.schema import NO_CLASS, SessionStore
from bench.spec import BY_CAPTURE, SplitSpec
from bench.splits.assignment import PARTS, Rows


class GroupedStore(SessionStore, Protocol):
    """What groups need of a store (see ``bench.data.store``)."""

    @property
    def name(self) -> str:
        """The data set's name."""

    def classes(self, task: str) -> list[str]:
        """The names of a task's classes."""

    def labels(self, task: str) -> NDArray[np.int16]:
        """Class of each session, ``NO_CLASS`` where the task does not use it, ``[sessions]``."""

    def capture_group(self) -> NDArray[np.int32]:
        """The group of each session's capture, ``[sessions]``."""

    def capture_attribute(self, name: str) -> NDArray[np.int32]:
        """Number of the attribute's value of each session's capture, -1 where it has none, ``[sessions]``."""


def groups_of(store: GroupedStore, spec: SplitSpec, rows: Rows) -> NDArray[Any]:
    """The group of each session of the store, int ``[sessions]``; sessions are joined by ``rows [some]`` alone."""
    if spec.attribute:
        return store.capture_attribute(spec.attribute)
    conversation = np.asarray(store.session("conversation"))
    if spec.scheme not in BY_CAPTURE:
        return conversation
    capture = np.asarray(store.capture_group())
    if spec.scheme == "capture":
        return capture
    return joined(capture, conversation, rows)


def joined(capture: NDArray[Any], conversation: NDArray[Any], rows: Rows) -> Rows:
    """Numbers of the connected components of captures and conversations, int64 ``[sessions]``.

    ``capture`` and ``conversation`` are int ``[sessions]``; two captures are of one component where a conversation of
    the sessions ``rows [some]`` is in both.

    >>> joined(np.array([0, 1, 1, 2]), np.array([7, 7, 8, 9]), np.arange(4)).tolist()
    [0, 0, 0, 1]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    captures = int(capture.max(initial=-1)) + 1
    size = captures + int(conversation.max(initial=-1)) + 1
    edges = coo_array((np.ones(len(rows), bool), (capture[rows], captures + conversation[rows])), shape=(size, size))
    component: Rows = connected_components(edges, directed=False)[1].astype(np.int64)
    return np.unique(component[capture], return_inverse=True)[1].astype(np.int64)


def groups_a_class(store: GroupedStore, task: str) -> NDArray[np.int64]:
    """How many capture groups each class has sessions in: int64 ``[classes]``."""
    labels, groups = np.asarray(store.labels(task)), np.asarray(store.capture_group())
    used = labels != NO_CLASS
    pairs = np.unique(np.stack([labels[used], groups[used]]), axis=1)
    return np.bincount(pairs[0], minlength=len(store.classes(task))).astype(np.int64)


def settled(store: GroupedStore, task: str, spec: SplitSpec) -> tuple[SplitSpec, str]:
    """The split that ``auto`` stands for on a store, and why it is not by capture; other schemes are as they are.

    By capture wherever every class with sessions has capture groups enough for the parts, or folds.
    """
    if spec.scheme != "auto":
        return spec, ""
    numbers, needed = groups_a_class(store, task), max(len(PARTS), spec.folds or 0)
    few = [name for name, number in zip(store.classes(task), numbers, strict=True) if 0 < number < needed]
    if not few:
        return dataclasses.replace(spec, scheme="capture"), ""
    why = (
        f"{store.name}: split by session, not by capture: {some(few, 3)} of {int((numbers > 0).sum())} "
        f"classes have fewer than {needed} capture groups; scores do not show how a method does on captures that it "
        "has not seen"
    )
    return dataclasses.replace(spec, scheme="session"), why


def scarce(
    store: GroupedStore, task: str, spec: SplitSpec, labels: NDArray[Any], groups: NDArray[Any]
) -> NDArray[np.bool_]:
    """Which samples are of a class with fewer capture groups than the split wants: bool ``[samples]``.

    ``labels`` and ``groups`` (of captures), int ``[samples]``.  Raises :class:`InputError` where no class has enough.
    """
    pairs = np.unique(np.stack([labels, groups]), axis=1)
    few = np.bincount(pairs[0], minlength=len(store.classes(task))) < spec.least_groups
    if few[labels].all():
        raise InputError(
            "split-impossible",
            f"{store.name}: every class has fewer than {spec.least_groups} capture groups, so no split {spec.scheme} "
            f"is possible; {'use session' if spec.min_groups is None else 'ask for fewer (min-groups)'}",
        )
    result: NDArray[np.bool_] = few[labels]
    return result
