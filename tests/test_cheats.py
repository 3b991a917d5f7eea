"""Methods that want a good number without learning: each is refused, or gains nothing."""

import random
from types import FunctionType, MethodType

import numpy as np
import pytest
import torch
from asked import run_spec
from honest import CLASSES, SESSIONS, Honest, attempted, scores, sorted_store

from bench.method import Part
from bench.readers import READS, View
from bench.runs.attempt import AttemptMonitor, attempt, fit_and_validate
from bench.runs.guards import ContractBroken
from bench.schema import Samples
from bench.spec import RunSpec
from bench.splits.split import make_split

pytestmark = pytest.mark.usefixtures("no_run_was_before")  # of all classes here, which share this module


@pytest.fixture
def store(make_store):
    return sorted_store(make_store)


class Order(Honest):
    """The class is where the cumulated shares of the training classes put the sample's place."""

    def predict_proba(self, inputs):
        place = (np.arange(len(inputs["counts"])) + 0.5) / len(inputs["counts"])
        return np.eye(self.classes, dtype=np.float32)[np.searchsorted(np.cumsum(self.shares), place)]


class OpenOrder(Order):
    transductive = True


class Neighbours(Honest):
    """Smooths what it reads over the rows beside."""

    reads = frozenset({"times"})

    def represent(self, view):
        return {"gap": view.times(2)[:, 1]}

    def predict_proba(self, inputs):
        gap = inputs["gap"]
        smooth = (np.roll(gap, 1) + gap + np.roll(gap, -1)) / 3
        odd = (np.rint(smooth * 1e9) % 2).astype(int)
        return np.eye(self.classes, dtype=np.float32)[odd]


class Position(Honest):
    def represent(self, view):
        return {"counts": np.arange(len(view))}


class Keeper(Honest):
    """Keeps what it sees of the test part."""

    def represent(self, view):
        self.seen = [*getattr(self, "seen", []), len(view)]
        return super().represent(view)


class Parrot(Honest):
    """Remembers what it answered, so that it says the same when it is asked again."""

    def predict_proba(self, inputs):
        self.answered = getattr(self, "answered", super().predict_proba(inputs))
        return self.answered[: len(inputs["counts"])]


class Loud(Honest):
    def predict_proba(self, inputs):
        return 2 * super().predict_proba(inputs)


class Boaster(Honest):
    """Says what its scores are."""

    def fit(self, train, validation, monitor):
        monitor.log_fact(macro_f1=0.999, accuracy=0.999, samples_seen=7)
        monitor.log_fact(model_parameters=7, seconds_fit=-1, **{"f1/one": 0.999})
        return super().fit(train, validation, monitor)


class Pretrains(Honest):
    """Learns from the training part without labels, and tells what is there while it does."""

    def represent(self, view):
        SEEN.append(("represent", len(view)))
        return super().represent(view)

    def pretrain(self, unlabelled, monitor):
        SEEN.append(("pretrain", [unlabelled, monitor, self]))
        self.pretrained = len(unlabelled["counts"])
        monitor.log_fact(optimiser_steps=3, accuracy=0.999)

    def fit(self, train, validation, monitor):
        assert self.pretrained == len(train)
        return super().fit(train, validation, monitor)


SEEN = []


class OfOtherParts(Pretrains):
    """Pre-trains once more, when the validation part is there."""

    def fit(self, train, validation, monitor):
        self.pretrain(validation.inputs, monitor)
        return super().fit(train, validation, monitor)


def seen_by(do):
    """What `Pretrains` tells; emptied first, for a run that remembers anything fails."""
    SEEN.clear()
    with pytest.raises(ContractBroken, match="remembers something"):
        do()
    return SEEN


def test_while_it_pretrains_the_training_part_alone_is_represented_and_no_label_is_there(store):
    spec = run_spec("pretrains", store.name, "task")
    split = make_split(store, "task", spec.split)
    seen = seen_by(lambda: attempt(spec, store, Pretrains, AttemptMonitor()))
    assert [stage for stage, _ in seen[:4]] == ["represent", "pretrain", "represent", "represent"]
    assert [rows for _, rows in (seen[0], seen[2], seen[3])] == [
        len(part) for part in (split.train, split.validation, split.test)
    ]
    reached = reachable(seen[1][1])
    arrays = [one for one in reached if isinstance(one, np.ndarray)]
    assert any(len(one) == len(split.train) for one in arrays)  # it walks at all
    assert not any(np.shares_memory(one, store.label) for one in arrays)
    assert not any(isinstance(one, Part | Samples | RunSpec | AttemptMonitor) or one is store for one in reached)


def test_a_trial_pretrains_on_the_training_part_alone(store):
    spec = run_spec("pretrains", store.name, "task")
    seen = seen_by(lambda: fit_and_validate(spec, store, Pretrains, AttemptMonitor()))
    assert [stage for stage, _ in seen] == ["represent", "pretrain", "represent"]


class Quiet(Pretrains):
    represent = Honest.represent

    def pretrain(self, unlabelled, monitor):
        self.pretrained = len(unlabelled["counts"])
        monitor.log_fact(optimiser_steps=3, accuracy=0.999)


def test_pretraining_is_timed_and_counted_under_names_of_its_own(store):
    done = attempt(run_spec("quiet", store.name, "task"), store, Quiet, AttemptMonitor())
    assert done.metrics["pretraining_optimiser_steps"] == 3 and "optimiser_steps" not in done.metrics
    assert done.metrics["accuracy"] == done.scores.accuracy < 0.5
    work = ("represent", "pretrain", "fit", "predict")
    assert done.metrics["seconds"] == pytest.approx(sum(done.metrics[f"seconds_{stage}"] for stage in work))
    assert "pretrain" not in vars(done.method)  # nothing of the refusal stays
    plain = attempt(run_spec("honest", store.name, "task"), store, Honest, AttemptMonitor())
    assert "seconds_pretrain" not in plain.metrics


def test_what_a_method_says_of_itself_is_no_score(store):
    done = attempt(run_spec("boaster", store.name, "task"), store, Boaster, AttemptMonitor())
    assert done.metrics["macro_f1"] == done.scores.macro_f1 < 0.5 and done.metrics["samples_seen"] == 7
    assert done.metrics["seconds_fit"] > 0 and not done.metrics.keys() & {"model_parameters", "f1/one"}


def test_what_a_view_allows_cannot_be_set(store):
    view = View(store, Samples(np.arange(2), np.zeros(2, int), np.ones(2, int)), {"lengths"})
    with pytest.raises(AttributeError):
        view.reads = frozenset(READS)
    view.lengths(1)
    assert view.used == {"lengths"} and not hasattr(view.used, "clear")


def test_no_attribute_of_the_monitor_leads_to_the_run(store):
    class Finds(Honest):
        def fit(self, train, validation, monitor):
            found.extend(reachable(monitor))
            return super().fit(train, validation, monitor)

    found, monitor = [], AttemptMonitor()
    attempt(run_spec("finds", store.name, "task"), store, Finds, monitor)
    assert found and not any(one is monitor or isinstance(one, RunSpec) for one in found)


def test_what_fit_does_to_its_samples_is_not_what_is_asked_of_training(store):
    class InPlace(Honest):
        def fit(self, train, validation, monitor):
            train.labels[:] = 0
            return super().fit(train, validation, monitor)

    done = attempt(run_spec("inplace", store.name, "task"), store, InPlace, AttemptMonitor())
    assert done.metrics["training_accuracy"] < 0.5 and done.metrics["training_majority"] < 0.5


@pytest.mark.parametrize("how", [attempt, fit_and_validate])
def test_what_fit_does_to_the_validation_part_ends_the_run(store, how):
    """Validation decides searches and which models are kept; an in-place relabelling is a slip like any other."""

    class Judge(Honest):
        def fit(self, train, validation, monitor):
            validation.labels[:] = 0
            return super().fit(train, validation, monitor)

    with pytest.raises(ContractBroken, match="fit changes the validation part"):
        how(run_spec("judge", store.name, "task"), store, Judge, AttemptMonitor())


def test_an_object_cannot_declare_itself_transductive(store):
    class Late(Order):
        def fit(self, train, validation, monitor):
            self.transductive = True
            return super().fit(train, validation, monitor)

    with pytest.raises(ContractBroken, match="in another order"):
        scores(Late, store)


@pytest.mark.parametrize("split", ["capture", "session"])
def test_the_place_of_a_sample_tells_nothing(store, split):
    honest, order = (scores(kind, store, split=split) for kind in (Honest, OpenOrder))
    n = order.sessions
    assert honest.accuracy == pytest.approx(1 / CLASSES, abs=0.1)
    assert abs(order.accuracy - 1 / CLASSES) < 3 * np.sqrt(2 / 9 / n)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Order, "without the others or in another order"),
        (Neighbours, "without the others or in another order"),
        (Position, "other values of a part of the samples"),
        (Keeper, "represent changes the object"),
        (Parrot, "predict_proba changes the object"),
        (Loud, "does not sum to 1"),
        (OfOtherParts, "pretrain is called by the method itself"),
    ],
)
def test_a_cheat_is_a_failed_run(store, kind, reason):
    with pytest.raises(ContractBroken, match=reason):
        scores(kind, store)


def test_answers_are_put_back_where_their_samples_stand(store):
    class Knows(Honest):
        """Reads the class from the time between packets, which is made to hold it."""

        reads = frozenset({"times"})

        def represent(self, view):
            return {"counts": np.rint(view.times(2)[:, 1] * 1e9).astype(np.int64)}

        def predict_proba(self, inputs):
            return np.eye(self.classes, dtype=np.float32)[inputs["counts"]]

    store.packets["time"] = np.stack([0 * store.label, store.label], axis=1).reshape(-1).astype(np.int64)
    done = attempt(run_spec("knows", store.name, "task"), store, Knows, AttemptMonitor())
    assert done.scores.accuracy == 1
    assert np.array_equal(done.predictions.truth, store.label[done.predictions.session])
    assert np.array_equal(done.predictions.session, done.split.test.session)
    assert np.array_equal(done.predictions.groups, done.split.groups["test"])


def test_every_part_comes_in_a_drawn_order(store):
    split = make_split(store, "task", run_spec("honest", store.name, "task").split)
    for part in ("train", "validation", "test"):
        order = split.order(part)
        assert sorted(order) == list(range(len(order)))
        assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.3
        assert np.array_equal(order, split.order(part))


# --- what a view leads to -------------------------------------------------------------------------------------


def reachable(start):
    """All objects that attributes, items, closures and bases of arrays lead to; not the globals of functions."""
    found, waiting = {}, [start]
    while waiting:
        one = waiting.pop()
        if id(one) in found or isinstance(one, type | str | bytes | int | float | bool | None):
            continue
        found[id(one)] = one
        if isinstance(one, FunctionType):
            waiting += [cell.cell_contents for cell in one.__closure__ or ()]
        elif isinstance(one, MethodType):
            waiting += [one.__self__, one.__func__]
        elif isinstance(one, np.ndarray):
            waiting.append(one.base)
        elif isinstance(one, dict):
            waiting += [*one, *one.values()]
        elif isinstance(one, list | tuple | set | frozenset):
            waiting += one
        elif type(one).__module__.partition(".")[0] in ("bench", "methods", "conftest", "tests"):
            waiting += [getattr(one, name) for name in dir(one) if not name.startswith("__")]
            waiting.append(vars(one) if hasattr(one, "__dict__") else {})
    return list(found.values())


def test_no_attribute_of_a_view_leads_to_labels_captures_or_groups(store):
    rows = np.arange(SESSIONS)
    samples = Samples(rows, 0 * rows, 2 + 0 * rows)
    view = View(store, samples, frozenset(READS))
    view.lengths(2), view.ports(), view.counts()
    seen = reachable(view)
    assert view in seen and len(seen) > 10  # it walks at all
    assert store not in [one for one in seen if not isinstance(one, np.ndarray)]
    hidden = (store.label, store.group, store.sessions["capture"], store.sessions["conversation"], rows)
    for array in (one for one in seen if isinstance(one, np.ndarray)):
        assert not any(np.shares_memory(array, secret) for secret in hidden)
    assert not any(isinstance(one, Samples) for one in seen)


class Chance(Honest):
    """Draws from everybody's generators, not from its own seed."""

    def fit(self, train, validation, monitor):
        self.shares = np.random.random(self.classes) + random.random() + torch.rand(1).item()  # noqa: NPY002
        self.shares /= self.shares.sum()
        return self


def test_a_method_that_forgets_its_seed_draws_the_same_in_every_run(store):
    before = np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()  # noqa: NPY002
    drawn = [attempted(Chance, store, seed=seed).method.shares for seed in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])
    assert np.array_equal(before[0], np.random.get_state()[1]) and before[1] == random.getstate()  # noqa: NPY002
    assert torch.equal(before[2], torch.get_rng_state())
