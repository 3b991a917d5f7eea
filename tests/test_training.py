"""The training loop, on networks small enough to see through."""

import numpy as np
import pytest
import torch
from refusals import refused
from torch import nn
from trained import Linear, Listening, Recorder, make, part

from bench.method import Monitor, Part
from bench.scores.metrics import macro_f1
from bench.training import loop
from bench.training.balance import undersample
from bench.training.budget import TrainingParameters, steps_an_epoch
from bench.training.loop import TrainingDiverged


def test_it_learns_and_reports_every_step_and_epoch():
    monitor = Recorder()
    method = make().fit(part(), part(seed=1), monitor)
    assert (method.predict_proba(part(seed=2).inputs).argmax(1) == part(seed=2).labels).mean() > 0.95
    assert [s["step"] for s in monitor.steps] == list(range(1, 41))  # 60 samples: 7 batches of 8 and one of 4
    assert [s["calls"] for s in monitor.steps] == list(range(1, 41))
    assert [(e["epoch"], e["epochs"]) for e in monitor.epochs] == [(i, 5) for i in range(1, 6)]
    for name in ("loss", "accuracy", "validation_loss", "validation_accuracy", "validation_macro_f1"):
        assert name in monitor.epochs[0]
    assert monitor.epochs[-1]["loss"] < monitor.epochs[0]["loss"]


def test_one_seed_gives_one_answer_and_leaves_the_global_generators_alone():
    before = torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002
    first, second, other = (
        make(seed=s).fit(part(), part(seed=1), Monitor()).predict_proba(part().inputs) for s in (3, 3, 4)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == repr(np.random.get_state())  # noqa: NPY002


def test_a_last_batch_of_one_does_not_break_batch_normalisation():
    monitor = Recorder()
    make(epochs=1).fit(part(17), part(seed=1), monitor)
    assert len(monitor.steps) == 2


class Misled(Linear):
    """Learns the right classes for 24 steps, then the wrong ones."""

    steps = 0

    def loss(self, logits, labels):
        self.steps += 1
        return super().loss(logits, labels if self.steps <= 24 else (labels + 1) % 3)


def test_the_best_epoch_by_validation_macro_f1_is_kept():
    monitor = Recorder()
    method = Misled(make(epochs=10).parameters, classes=3).fit(part(), part(seed=1), monitor)  # 8 steps an epoch
    scores = [e["validation_macro_f1"] for e in monitor.epochs]
    assert max(scores) == max(scores[:3]) > 0.9 > 0.5 > scores[-1]
    kept = macro_f1(part(seed=1).labels, method.predict_proba(part(seed=1).inputs).argmax(1), 3)
    assert kept == max(scores)


def test_every_epoch_takes_all_samples_in_an_order_of_its_own():
    each = Part(part(24).inputs, np.arange(24))
    none = Part({"points": np.empty((0, 2), np.int32)}, np.empty(0, np.int64))
    method = Listening(make(epochs=4).parameters, classes=24, seed=5).fit(each, none, Monitor())
    epochs = [tuple(order) for order in np.reshape(method.heard, (4, 24))]
    assert [sorted(order) for order in epochs] == [list(range(24))] * 4
    assert len(set(epochs)) == 4
    again = Listening(make(epochs=4).parameters, classes=24, seed=5).fit(each, none, Monitor())
    other = Listening(make(epochs=4).parameters, classes=24, seed=6).fit(each, none, Monitor())
    assert again.heard == method.heard != other.heard


class Deaf(nn.Module):
    """Answers alike whatever it learned, and counts its training steps."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("steps", torch.zeros(1, dtype=torch.int64))

    def forward(self, points):
        self.steps += int(self.training)
        return torch.eye(3)[(points[:, 0] > 0).long()] + 0 * self.weight


class Level(Linear):
    def network(self):
        return Deaf()


def test_an_epoch_s_numbers_are_those_of_its_samples():
    train, validation, monitor = part(21), part(13, seed=1), Recorder()
    for of_part in (train, validation):
        of_part.labels[::3] = of_part.inputs["points"][::3, 0] > 0  # every third is answered rightly
    Level(make(epochs=2).parameters, classes=3).fit(train, validation, monitor)
    for of_part, prefix in ((train, ""), (validation, "validation_")):
        answers = (of_part.inputs["points"][:, 0] > 0).astype(int)
        losses = -np.log(np.where(answers == of_part.labels, np.e, 1) / (np.e + 2))
        for epoch in monitor.epochs:
            assert epoch[f"{prefix}accuracy"] == pytest.approx((answers == of_part.labels).mean())
            assert epoch[f"{prefix}loss"] == pytest.approx(losses.mean(), rel=1e-6)
    assert monitor.epochs[0]["validation_macro_f1"] == pytest.approx(macro_f1(validation.labels, answers, 3))


def test_of_equal_epochs_the_first_is_kept():
    monitor = Recorder()
    method = Level(make(epochs=3).parameters, classes=3).fit(part(), part(seed=1), monitor)
    assert len({(e["validation_macro_f1"], e["validation_loss"]) for e in monitor.epochs}) == 1
    assert int(method.model.steps) == 8  # steps of one epoch


def test_training_ends_when_patience_does():
    monitor = Recorder()
    Misled(make(epochs=50, patience=3).parameters, classes=3).fit(part(), part(seed=1), monitor)
    last = max(
        max(range(len(monitor.epochs)), key=lambda i: sign * monitor.epochs[i][f"validation_{name}"])
        for name, sign in (("macro_f1", 1), ("loss", -1))
    )
    assert last <= 2 and len(monitor.epochs) == last + 1 + 3


class Softening(nn.Module):
    """Answers alike, less and less surely where that is wrong: the loss falls, no score changes."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), 5.0))

    def forward(self, points):
        return self.weight * torch.tensor([-1.0, 0.0, 1.0]).expand(len(points), -1)


class Slow(Linear):
    def network(self):
        return Softening()


def test_patience_does_not_stop_a_slow_starter_whose_loss_still_falls():
    monitor, wrong = Recorder(), Part(part().inputs, np.zeros(60, np.int64))
    Slow(make(epochs=12, patience=2, learning_rate=0.01).parameters, classes=3).fit(wrong, wrong, monitor)
    losses = [e["validation_loss"] for e in monitor.epochs]
    assert len({e["validation_macro_f1"] for e in monitor.epochs}) == 1
    assert len(losses) == 12 and losses == sorted(losses, reverse=True)


def test_the_step_of_the_kept_weights_is_told():
    monitor = Recorder()
    Misled(make(epochs=10).parameters, classes=3).fit(part(), part(seed=1), monitor)
    scores = [(e["validation_macro_f1"], -e["validation_loss"]) for e in monitor.epochs]
    assert monitor.notes["chosen_step"] == 8 * (scores.index(max(scores)) + 1)


@pytest.mark.parametrize(
    ("kind", "settings", "told"),
    [
        (Slow, {"epochs": 12, "learning_rate": 0.01}, True),  # its loss falls to the end
        (Slow, {"epochs": 1, "learning_rate": 0.01}, False),  # a single validation shows no fall
        (Level, {"epochs": 12}, False),  # lowest in the first epoch already
        (Misled, {"epochs": 12}, False),  # worse and worse
    ],
)
def test_a_training_that_ended_while_its_loss_still_fell_is_told(kind, settings, told):
    monitor, wrong = Recorder(), Part(part().inputs, np.zeros(60, np.int64))
    kind(make(**settings).parameters, classes=3).fit(wrong, wrong if kind is Slow else part(seed=1), monitor)
    assert monitor.notes.get("still_improving", 0) == told


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_numbers_fetched_together_are_those_fetched_one_by_one(at_once, monkeypatch):
    monkeypatch.setattr(loop, "TOLD_AT_ONCE", at_once)
    monitor, plain = Recorder(), Recorder()
    make().fit(part(), part(seed=1), monitor)
    monkeypatch.undo()
    make().fit(part(), part(seed=1), plain)
    timeless = [[{k: v for k, v in e.items() if k != "samples_a_second"} for e in r.epochs] for r in (monitor, plain)]
    assert monitor.steps == plain.steps and timeless[0] == timeless[1]


def test_without_validation_the_last_epoch_is_kept():
    none = Part({"points": np.empty((0, 2), np.int32)}, np.empty(0, np.int64))
    monitor = Recorder()
    method = make(patience=1).fit(part(), none, monitor)
    assert len(monitor.epochs) == 5
    accuracy = (method.predict_proba(part().inputs).argmax(1) == part().labels).mean()
    assert accuracy > 0.9


def test_a_loss_that_is_not_finite_ends_training():
    monitor = Recorder()
    with pytest.raises(TrainingDiverged, match="loss nan at step 1, epoch 1"):
        Diverging(make().parameters, classes=3).fit(part(), part(seed=1), monitor)
    assert monitor.steps == []


class Diverging(Linear):
    def loss(self, logits, labels):
        return super().loss(logits, labels) * float("nan")


class Abstaining(Linear):
    def can_classify(self, inputs):
        return inputs["points"][:, 0] > 0


def test_an_abstention_trains_nothing_and_counts_as_an_error():
    train, validation, monitor = part(), part(seed=1), Recorder()
    told = validation.inputs["points"][:, 0] > 0
    method = Abstaining(make().parameters, classes=3).fit(train, validation, monitor)
    assert len(monitor.steps) == 5 * steps_an_epoch(int((train.inputs["points"][:, 0] > 0).sum()), 8)
    probabilities = method.predict_proba(validation.inputs)
    assert np.array_equal(np.isnan(probabilities).all(1), ~told)
    assert monitor.epochs[-1]["validation_accuracy"] <= told.mean()


def test_nothing_to_train_on_is_bad_input():
    with refused("cannot-train", "1 usable"):
        make().fit(part(1), part(seed=1), Monitor())


def test_an_exception_of_the_monitor_ends_training():
    class Pruned(Exception):
        pass

    class Pruning(Monitor):
        def epoch(self, epoch, epochs, **values):
            raise Pruned

    with pytest.raises(Pruned):
        make().fit(part(), part(seed=1), Pruning())


def test_what_is_saved_is_read_back(tmp_path):
    method = make().fit(part(), part(seed=1), Monitor())
    method.save(tmp_path)
    before = torch.get_rng_state()
    assert np.array_equal(Linear.load(tmp_path).predict_proba(part().inputs), method.predict_proba(part().inputs))
    assert torch.equal(before, torch.get_rng_state())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["method.json", "model.safetensors"]


def test_scores_do_not_depend_on_the_scoring_batch(monkeypatch):
    method = make().fit(part(), part(seed=1), Monitor())
    whole = method.predict_proba(part().inputs)
    monkeypatch.setattr(Linear, "scoring_batch", 7)
    assert np.allclose(method.predict_proba(part().inputs), whole, atol=1e-6)


def test_what_is_learned_first_sees_the_rows_that_are_trained_on():
    class Selecting(Linear):
        def sample_rows(self, labels, draw):
            return undersample(labels, draw)

        def before_training(self, network, train, rows):
            self.seen = train.labels[rows]

    some = part()
    unequal = Part({"points": some.inputs["points"][10:]}, some.labels[10:])
    method = Selecting(TrainingParameters(epochs=1), classes=3).fit(unequal, unequal, Monitor())
    counts = np.bincount(unequal.labels)
    assert np.bincount(method.seen).tolist() == [counts.min()] * 3


def test_long_gradients_are_cut():
    class Clipped(Linear):
        clip_norm = 1e-3

        def loss(self, logits, labels):
            return super().loss(logits, labels) * 1e6

    method = Clipped(TrainingParameters(epochs=1), classes=3).fit(part(), part(), Monitor())
    norm = torch.cat([p.grad.flatten() for p in method.model.parameters()]).norm().item()
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_gathered_rows_are_added_up_in_one_order():
    """Gradients of ``x[index]`` come from threads in any order unless torch is told otherwise."""

    class Gathered(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(7, 64) / 8)
            self.out = nn.Linear(64, 3)

        def forward(self, points):
            index = (points[:, :1].long().abs() * torch.arange(1, 2001)) % 7
            return self.out(self.table[index].mean(1))

    class Gathering(Linear):
        def network(self):
            return Gathered()

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        fits = [Gathering(TrainingParameters(epochs=2), classes=3).fit(part(), part(), Monitor()) for _ in range(3)]
    finally:
        torch.set_num_threads(threads)
    answers = [fit.predict_proba(part().inputs) for fit in fits]
    assert all(np.array_equal(answers[0], other) for other in answers)
    assert not torch.are_deterministic_algorithms_enabled()


def test_where_no_validation_sample_is_answered_the_last_epoch_is_kept():
    class Silent(Linear):
        def can_classify(self, inputs):
            return inputs["points"][:, 0] < 1e6

    settings = TrainingParameters(epochs=6, patience=2)
    silent = Part({"points": part().inputs["points"] + 10**7}, part().labels)
    seen = Recorder()
    one = Silent(settings, classes=3).fit(part(), silent, seen)
    assert len(seen.epochs) == 6 and "validation_loss" not in seen.epochs[-1]
    empty = Part({"points": part().inputs["points"][:0]}, part().labels[:0])
    two = Silent(settings, classes=3).fit(part(), empty, Monitor())
    assert np.array_equal(one.predict_proba(part().inputs), two.predict_proba(part().inputs))
