"""What methods built on scikit-learn share: fitting, probabilities, seeds, threads and files without pickle."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from bench.environment import threads
from bench.errors import InputError
from bench.method import Inputs, Method, Monitor, Part, count, refuse_old_hooks, take

#: types beyond skops' own defaults that a stored model may hold; a method with others names them in `trusted`
TRUSTED: Final[tuple[str, ...]] = ("sklearn.tree._tree.Tree",)


class EstimatorMethod(Method):
    """A scikit-learn classifier as a method.  Subclasses write ``represent`` and ``estimator``.

    ``represent`` puts a float array ``[samples, features]`` under ``"features"``, or the subclass makes
    one from its inputs in :meth:`features`.  Scalers, selection and vocabularies belong into the estimator (a
    pipeline) or are learned in :meth:`before_training`.
    """

    trusted: tuple[str, ...] = ()  # further types of the stored model, all of scikit-learn or NumPy
    model: Any = None

    def __init_subclass__(cls, **more: Any) -> None:
        """Refuse hooks under names of before: nobody would call them."""
        super().__init_subclass__(**more)
        refuse_old_hooks(cls)

    @abstractmethod
    def estimator(self) -> Any:
        """A classifier that has not been fitted, its ``random_state`` from :attr:`random_state`."""

    def before_training(self, train: Part) -> None:
        """Learn what :meth:`features` needs from the training part; saved in :meth:`save_state` by the subclass."""

    def features(self, inputs: Inputs) -> Any:
        """Float64 or float32 ``[samples, features]``, dense or a scipy sparse matrix."""
        return inputs["features"]

    def can_classify(self, inputs: Inputs) -> NDArray[np.bool_]:
        """Bool ``[samples]``: False where the method abstains; such samples train nothing and are scored NaN."""
        return np.ones(count(inputs), bool)

    @property
    def random_state(self) -> int:
        """The method's seed as scikit-learn takes it: 32 bits, unsigned."""
        return self.seed % 2**32

    def fit(self, train: Part, validation: Part, monitor: Monitor) -> Self:
        """Fit on the training part; there is nothing to choose on the validation part.

        Raises :class:`InputError` for fewer than two samples to train on.
        """
        rows = np.flatnonzero(self.can_classify(train.inputs))
        if not len(rows):
            raise InputError(
                "cannot-train", f"{self.name}: no usable training sample; it abstains from all {len(train)}"
            )
        monitor.log_fact(training_samples=len(rows), samples_seen=len(rows))
        train = Part(take(train.inputs, rows), train.labels[rows])
        self.before_training(train)
        self.model = self.estimator()
        self._use_threads(threads())
        self.model.fit(self.features(train.inputs), train.labels)
        # A forest adds up its trees' votes in the order in which threads end: one thread, the same sum every time.
        self._use_threads(1)
        return self

    def _use_threads(self, threads: int) -> None:
        if "n_jobs" in self.model.get_params(deep=False):
            self.model.set_params(n_jobs=threads)

    def predict_proba(self, inputs: Inputs) -> NDArray[np.float32]:
        """Float32 ``[samples, classes]``; 0 for a class that training did not hold, NaN for abstentions."""
        answered = self.can_classify(inputs)
        probabilities = np.full((len(answered), self.classes), np.nan, np.float32)
        rows = np.flatnonzero(answered)
        if len(rows):  # scikit-learn refuses an empty array
            of_known = self.model.predict_proba(self.features(take(inputs, rows)))
            probabilities[rows] = 0
            probabilities[rows[:, None], self.model.classes_] = of_known
        return probabilities

    def save_state(self, folder: Path) -> None:
        """Write ``model.skops``."""
        import skops.io

        skops.io.dump(self.model, folder / "model.skops")

    def load_state(self, folder: Path) -> None:
        """Read ``model.skops``.  Raises :class:`InputError` for one that holds a type outside the trusted ones."""
        import skops.io

        path = folder / "model.skops"
        foreign = sorted(set(skops.io.get_untrusted_types(file=path)) - {*TRUSTED, *self.trusted})
        if foreign:
            raise InputError(
                "wrong-model", f"{path}: holds {', '.join(foreign)}, which {self.name} never stores; train it again"
            )
        self.model = skops.io.load(path, trusted=[*TRUSTED, *self.trusted])
