"""What methods built on scikit-learn share: fitting, probabilities, seeds, threads and files without pickle."""

import json
import warnings
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from bench.environment import threads
from bench.errors import InputError
from bench.method import Inputs, Method, Monitor, Part, count, refuse_old_hooks, take
from bench.readers import Ragged, View
from bench.spec import FOREST_ON

FORESTS: Final = "Random Forests, 2001, doi:10.1023/A:1010933404324"
#: types beyond skops' own defaults that a stored model may hold; a method with others names them in `trusted`
TRUSTED: Final[tuple[str, ...]] = ("sklearn.tree._tree.Tree",)


class EstimatorMethod(Method):
    """A scikit-learn classifier as a method.  Subclasses write ``represent`` and ``estimator``.

    ``represent`` puts an array of numbers ``[samples, features]`` under ``"features"``, or the subclass makes
    one from its inputs in :meth:`features`.  Scalers, selection and vocabularies belong in the estimator (a
    pipeline) or are learned in :meth:`before_training`.
    """

    trusted: tuple[str, ...] = ()  # further types of the stored model, all of scikit-learn or NumPy
    model: Any = None

    def __init_subclass__(cls, **more: Any) -> None:
        """Refuse hooks under old names: nothing would call them."""
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

        That it did not converge, as scikit-learn warns, is a fact of the fit that tables mark.
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
        if not self._converges(self.features(train.inputs), train.labels):
            monitor.log_fact(not_converged=1)
        # A forest adds up its trees' votes in the order in which threads end: one thread, the same sum every time.
        self._use_threads(1)
        return self

    def _converges(self, features: Any, labels: NDArray[np.int64]) -> bool:
        """Fit the estimator; False where it warns that it did not converge.  Other warnings go on.

        Products take one thread: several round apart, and wait for each other for minutes where the cores are busy.
        What runs side by side does so in threads of this process: another one would keep its warnings to itself.
        """
        from joblib import parallel_config
        from sklearn.exceptions import ConvergenceWarning
        from threadpoolctl import threadpool_limits

        aside = parallel_config(backend="threading")
        with aside, threadpool_limits(1, "blas"), warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always", ConvergenceWarning)
            self.model.fit(features, labels)
        others = [one for one in raised if not issubclass(one.category, ConvergenceWarning)]
        for one in others:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        return len(others) == len(raised)

    def _use_threads(self, threads: int) -> None:
        if "n_jobs" in self.model.get_params(deep=False):
            self.model.set_params(n_jobs=threads)

    def predict_proba(self, inputs: Inputs) -> NDArray[np.float32]:
        """Float32 ``[samples, classes]``; 0 for a class without training samples, NaN for abstentions."""
        answered = self.can_classify(inputs)
        probabilities = np.full((len(answered), self.classes), np.nan, np.float32)
        rows = np.flatnonzero(answered)
        if len(rows):  # scikit-learn refuses an empty array
            of_known = self.model.predict_proba(self.features(take(inputs, rows)))
            probabilities[rows] = 0
            probabilities[rows[:, None], self.model.classes_] = of_known
        return probabilities

    def save_state(self, folder: Path) -> None:
        """Write ``model.skops``; a warning says if :meth:`load_state` will refuse it."""
        import skops.io

        path = folder / "model.skops"
        skops.io.dump(self.model, path)
        if foreign := self._foreign(path):
            what = f"the saved model holds {foreign}, and nothing loads it until {self.name} names these in `trusted`"
            warnings.warn(what, UserWarning, stacklevel=2)

    def load_state(self, folder: Path) -> None:
        """Read ``model.skops``.  Raises :class:`InputError` if it contains a type that is not trusted."""
        import skops.io

        path = folder / "model.skops"
        if foreign := self._foreign(path):
            what = f"holds {foreign}, which {self.name} does not name in `trusted`"
            raise InputError("wrong-model", f"{path}: {what}; train it again, or look at them and name them there")
        self.model = skops.io.load(path, trusted=[*TRUSTED, *self.trusted])

    def _foreign(self, path: Path) -> str:
        """The types in a stored model that neither skops knows nor the method names; empty: none."""
        import skops.io

        return ", ".join(sorted(set(skops.io.get_untrusted_types(file=path)) - {*TRUSTED, *self.trusted}))


def first_packets(view: View, packets: int) -> NDArray[np.float32]:
    """The first packets' IP bytes, directions and log10 of gaps in seconds: float32 ``[S, 3 * packets]``, 0 padded."""
    times = view.times(packets)
    gaps = np.diff(times, axis=1, prepend=times[:, :1]).clip(min=0)
    directions = view.directions(packets)
    logs = np.log10(gaps + 1e-6) * (directions != 0)  # a microsecond is the captures' resolution
    return np.hstack([view.lengths(packets), directions, logs]).astype(np.float32)


def random_forest(seed: int, trees: int = 300, **more: Any) -> Any:
    """A random forest with balanced classes; ``more`` are further keywords of scikit-learn."""
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(trees, class_weight="balanced", random_state=seed, **more)


class ForestOn(EstimatorMethod):
    """A random forest on exactly what another method reads: it separates the merit of a method from that of its input.

    Every sample's arrays become one row of numbers, whatever they mean; a list of numbers (the cells of a picture)
    becomes the count of each number.  Abstains where the method does.
    """

    of: ClassVar[type[Method]]
    values: dict[str, list[int]]  # of each ragged input those that training holds, sorted: each is a feature

    def represent(self, view: View) -> Inputs:
        """The method's own arrays ``[samples, ...]`` (int, float or bool)."""
        return self._method.represent(view)

    def can_classify(self, inputs: Inputs) -> NDArray[np.bool_]:
        """Bool ``[samples]``: as the method's own."""
        asked: Any = getattr(self._method, "can_classify", None)
        return np.asarray(asked(inputs)) if asked else super().can_classify(inputs)

    def before_training(self, train: Part) -> None:
        """The values that the lists hold."""
        lists = {name: column for name, column in train.inputs.items() if isinstance(column, Ragged)}
        self.values = {name: np.unique(column.values).tolist() for name, column in lists.items()}

    def features(self, inputs: Inputs) -> Any:
        """Float32 ``[samples, features]``, sparse where the method reads lists (int ``Ragged``)."""
        from scipy import sparse

        columns = [
            _counts(values, np.array(self.values[name], np.int64))
            if isinstance(values, Ragged)
            else values.reshape(len(values), -1).astype(np.float32)
            for name, values in sorted(inputs.items())
        ]
        return sparse.hstack(columns, format="csr") if any(map(sparse.issparse, columns)) else np.hstack(columns)

    def estimator(self) -> Any:
        """The forest of method ``forest`` at its defaults."""
        return random_forest(self.random_state)

    def save_state(self, folder: Path) -> None:
        """Write ``model.skops`` and ``values.json``."""
        super().save_state(folder)
        (folder / "values.json").write_text(json.dumps(self.values) + "\n")

    def load_state(self, folder: Path) -> None:
        """Read what :meth:`save_state` wrote."""
        super().load_state(folder)
        self.values = json.loads((folder / "values.json").read_text())

    @property
    def _method(self) -> Method:
        return self.of(self.parameters, classes=self.classes, seed=self.seed)


def _counts(lists: Ragged, values: NDArray[np.int64]) -> Any:
    """How often each list holds each of the sorted ``values [N]``: sparse float32 ``[lists, N]``."""
    from scipy import sparse

    known = np.isin(lists.values, values)
    places = (lists.rows[known], np.searchsorted(values, lists.values[known]))
    return sparse.csr_matrix((np.ones(known.sum(), np.float32), places), shape=(len(lists), len(values)))


def forest_traits(of: str) -> dict[str, Any]:
    """The attributes of the forest on a method's input, by name."""
    return {
        "name": f"{FOREST_ON}{of}",
        "family": "baseline",
        "reference": FORESTS,
        "deviations": (f"parameters of {of} that are about its network or training do nothing here",),
    }


def forest_on(kind: type[Method]) -> type[ForestOn]:
    """The class of the forest on what ``kind`` reads, with its parameters and presets; those of training do nothing."""
    members = {
        **forest_traits(kind.name),
        "of": kind,
        "__doc__": f"Random forest on exactly what {kind.name} reads.",
        **{name: getattr(kind, name) for name in ("reads", "presets", "tiny", "Parameters")},
    }
    return type("ForestOn", (ForestOn,), members)
