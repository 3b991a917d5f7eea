"""The training loop, on networks small enough to see through."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from refusals import refused
from torch import nn

from bench.method import Monitor, Part, make_parameters
from bench.readers import View
from bench.runs import registry
from bench.schema import Samples
from bench.scores.metrics import macro_f1
from bench.training import feed, loop
from bench.training.balance import class_weights, undersample
from bench.training.budget import TrainingParameters, batches, steps_an_epoch
from bench.training.loop import TorchMethod, TrainingDiverged
from bench.training.units import HeaderBytesMethod, PacketMethod, aggregate_packets, packets_of


class Linear(TorchMethod):
    """Softmax regression with batch normalisation."""

    name = "linear"
    reference = "none"
    reads = frozenset()

    def represent(self, view):
        raise NotImplementedError

    def network(self):
        return Points(self.classes)


class Points(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.1), nn.Linear(2, classes))
        self.calls = 0

    def forward(self, points):
        self.calls += self.training
        return self.layers(points.float())

    def diagnostics(self):
        return {"calls": float(self.calls)}


class Recorder(Monitor):
    def __init__(self):
        self.steps, self.epochs = [], []

    def log(self, step, **values):
        self.steps.append({"step": step, **values})

    def log_fact(self, **values):
        self.notes = values

    def epoch(self, epoch, epochs, **values):
        self.epochs.append({"epoch": epoch, "epochs": epochs, **values})


def part(samples=60, seed=0, classes=3):
    """Classes around points of a circle."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, samples)
    angle = 2 * np.pi * labels / classes
    points = 100 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + draw.normal(0, 10, (samples, 2))
    return Part({"points": points.astype(np.int32)}, labels)


def make(seed=0, classes=3, **parameters):
    parameters = TrainingParameters(**{"epochs": 5, "batch_size": 8, "learning_rate": 0.05} | parameters)
    return Linear(parameters, classes=classes, seed=seed)


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


def test_batches_cover_the_rows_and_none_holds_one():
    for samples, size in itertools.product((2, 5, 8, 9, 16, 17, 23), (2, 3, 8)):
        found = list(batches(np.arange(samples), size))
        assert np.array_equal(np.concatenate(found), np.arange(samples))
        assert min(map(len, found)) > 1
        assert len(found) == steps_an_epoch(samples, size)
    assert steps_an_epoch(3, 1) == 3
    assert [len(b) for b in batches(np.arange(3), 1)] == [1, 1, 1]


def test_a_last_batch_of_one_does_not_break_batch_normalisation():
    monitor = Recorder()
    make(epochs=1).fit(part(17), part(seed=1), monitor)
    assert len(monitor.steps) == 2


def test_learning_rate_rises_linearly_then_falls_by_epochs():
    settings = TrainingParameters(epochs=40, learning_rate=1.0, warmup=0.1, step_size=10, gamma=0.1)
    rates = [settings.learning_rate_at(step, 5) for step in range(200)]
    assert rates[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])  # a tenth of 200 steps
    assert rates[20:70] == pytest.approx([1.0] * 50)  # 10 epochs of 5 steps
    assert rates[70:120] == pytest.approx([0.1] * 50)
    assert rates[120:170] == pytest.approx([0.01] * 50)
    flat = dataclasses.replace(settings, warmup=0.0, gamma=1.0)
    assert {flat.learning_rate_at(step, 5) for step in range(200)} == {1.0}


def test_the_optimiser_gets_the_scheduled_rate():
    monitor = Recorder()
    method = make(epochs=4, warmup=0.5, step_size=1, gamma=0.5)
    method.fit(part(16), part(seed=1), monitor)
    expected = [method.parameters.learning_rate_at(step, 2) for step in range(8)]
    assert [s["learning_rate"] for s in monitor.steps] == expected


@pytest.mark.parametrize("samples", [5, 60, 333])
def test_a_budget_in_steps_is_one_number_of_steps_and_of_validations_for_every_size(samples):
    monitor = Recorder()
    make(steps=50, epochs=4).fit(part(samples), part(seed=1), monitor)
    assert len(monitor.steps) == 50 == monitor.notes["optimiser_steps"]
    assert [(e["epoch"], e["epochs"]) for e in monitor.epochs] == [(i, 4) for i in range(1, 5)]
    assert monitor.notes["samples_seen"] == sum(len(b) for b in itertools.islice(passes(samples), 50))


def passes(samples):
    """The batches of one pass after the other."""
    while True:
        yield from batches(np.arange(samples), 8)


def test_steps_go_on_with_a_pass_where_an_epoch_ended():
    each = Part(part(24).inputs, np.arange(24))
    none = Part({"points": np.empty((0, 2), np.int32)}, np.empty(0, np.int64))
    method = Listening(make(steps=7, epochs=2).parameters, classes=24, seed=5).fit(each, none, Monitor())
    assert [sorted(heard) for heard in (method.heard[:24], method.heard[24:48])] == [list(range(24))] * 2
    assert len(method.heard) == 56  # 7 steps of 8: two passes of 3 steps, and one step more


def test_the_schedule_follows_the_epochs_of_a_budget_in_steps():
    settings = TrainingParameters(epochs=4, steps=10, step_size=1, gamma=0.5, learning_rate=1.0, batch_size=8)
    each = settings.steps_an_epoch(1000)
    assert each == 2.5
    assert [settings.learning_rate_at(step, each) for step in range(10)] == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25] + [
        0.125
    ] * 2


def test_fewer_steps_than_epochs_cannot_be():
    with refused("bad-parameter", "steps=3: fewer than the 30 epochs"):
        TrainingParameters(steps=3)


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


class Listening(Linear):
    """Notes the labels of every training step: with a class a sample, the samples."""

    def loss(self, logits, labels):
        self.heard = [*getattr(self, "heard", []), *labels.tolist()]
        return super().loss(logits, labels)


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


@pytest.mark.parametrize("held", [True, False])
def test_what_a_gpu_is_fed_with_is_what_the_processor_gets(held, monkeypatch):
    """The feeding of a GPU, forced on the CPU: from arrays that it holds, or made ahead by a thread."""
    plain, fed = Recorder(), Recorder()
    expected = make(steps=37, epochs=3).fit(part(), part(seed=1), plain).predict_proba(part().inputs)
    monkeypatch.setattr(feed, "can_hold", lambda inputs, device: held)
    monkeypatch.setattr(feed, "ahead", lambda made, ahead=feed.ahead: ahead(made))
    monkeypatch.setattr(loop.feed, "is_gpu", lambda device: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    found = make(steps=37, epochs=3).fit(part(), part(seed=1), fed).predict_proba(part().inputs)
    assert np.array_equal(found, expected) and fed.steps == plain.steps


def test_what_is_made_ahead_keeps_its_order_and_its_errors():
    assert list(feed.ahead(iter(range(1, 9)))) == list(range(1, 9)) and list(feed.ahead(iter(()))) == []
    failing = (1 // (3 - number) for number in range(5))
    with pytest.raises(ZeroDivisionError):
        list(feed.ahead(one + 1 for one in failing))


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


@pytest.mark.parametrize(("name", "value"), [("epochs", 0), ("learning_rate", -1.0), ("warmup", 1.0), ("gamma", 0.0)])
def test_parameters_out_of_range_are_bad_input(name, value):
    with refused("bad-parameter", name):
        TrainingParameters(**{name: value})


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


@dataclasses.dataclass(frozen=True)
class PacketSettings(TrainingParameters):
    packets: int = 3


class PerPacket(PacketMethod):
    """Softmax regression on single packets."""

    Parameters = PacketSettings

    name = "per-packet"
    reference = "none"
    reads = frozenset()

    def represent(self, view):
        raise NotImplementedError

    def network(self):
        return Packets(self.classes)


class Packets(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer = nn.Linear(2, classes)
        self.shapes = []

    def forward(self, points, eligible):
        if self.training:
            self.shapes.append(tuple(eligible.shape))
        return aggregate_packets(self.layer(points[eligible].float()), eligible)


def sessions(samples=40, packets=3):
    """Class by the sign of the first number; the last sample has no eligible packet."""
    draw = np.random.default_rng(5)
    labels = draw.integers(0, 2, samples)
    points = draw.normal(0, 1, (samples, packets, 2)) + np.where(labels, 2, -2)[:, None, None]
    eligible = draw.random((samples, packets)) < 0.6
    eligible[:, 0] = True
    eligible[-1] = False
    return Part({"points": points.astype(np.float32), "eligible": eligible}, labels)


def test_packets_are_trained_one_by_one_and_answer_together():
    some = sessions()
    settings = PacketSettings(epochs=20, batch_size=8, learning_rate=0.05)
    method = PerPacket(settings, classes=2).fit(some, some, Monitor())
    assert {packets for _, packets in method.model.shapes} == {1}
    assert sum(rows for rows, _ in method.model.shapes) == 20 * some.inputs["eligible"].sum()
    found = method.predict_proba(some.inputs)
    assert np.isnan(found[-1]).all() and (found[:-1].argmax(1) == some.labels[:-1]).mean() > 0.9
    with torch.inference_mode():
        single = method.model.layer(torch.from_numpy(some.inputs["points"][0])).log_softmax(1).numpy()
    mean = np.exp(single[some.inputs["eligible"][0]].mean(0))
    np.testing.assert_allclose(found[0], mean / mean.sum(), atol=1e-6)


def test_packets_of_a_part_are_not_copied():
    some = sessions()
    packets = packets_of(some)
    assert packets.inputs["points"].shape == (120, 1, 2) and np.shares_memory(
        packets.inputs["points"], some.inputs["points"]
    )
    assert packets.labels.tolist() == [label for label in some.labels for _ in range(3)]


def test_undersampling_leaves_the_smallest_class_whole_and_draws_the_others():
    labels = np.repeat([0, 2, 5], [50, 4, 9])[np.random.default_rng(1).permutation(63)]
    rows = undersample(labels, np.random.default_rng(2))
    assert np.unique(labels[rows], return_counts=True)[1].tolist() == [4, 4, 4]
    assert (np.diff(rows) > 0).all() and not np.array_equal(rows, undersample(labels, np.random.default_rng(3)))
    twice = undersample(labels, np.random.default_rng(2), times=2.0)
    assert np.unique(labels[twice], return_counts=True)[1].tolist() == [8, 4, 8]
    assert undersample(labels[:0], np.random.default_rng(2)).tolist() == []


def test_class_weights_are_inverse_frequencies():
    labels = np.array([0, 0, 0, 2])
    assert class_weights(labels, 3).tolist() == pytest.approx([4 / 9, 0, 4 / 3])
    assert class_weights(labels, 3, most=1.0).tolist() == pytest.approx([4 / 9, 0, 1])


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


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"epochs": 0}, "linear: parameter epochs=0: must be at least 1"),
        ({"learning_rate": 0.0}, "linear: parameter learning_rate=0.0: must be above 0"),
        ({"warmup": 1.0}, "linear: parameter warmup=1.0: must be at least 0 and below 1"),
        ({"patience": 0}, "linear: parameter patience=0: must be at least 1"),
    ],
)
def test_values_that_are_not_allowed(values, complaint):
    with refused("bad-parameter") as caught:
        make_parameters(Linear, values)
    assert str(caught.value) == complaint


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


def test_a_session_without_a_captured_byte_is_an_abstention():
    class Bytes(HeaderBytesMethod):
        def network(self):
            raise NotImplementedError

    packets = np.zeros((3, 2, 4), np.uint8)
    packets[1, 1, 2] = 1
    assert Bytes(classes=2).can_classify({"packets": packets}).tolist() == [False, True, False]


@pytest.mark.parametrize("name", ["tscrnn", "han", "attlstm", "cmtsnn"])
def test_bare_acknowledgements_count_as_packets_unless_left_out(name, make_store):
    header = bytes([0x45, *range(1, 8), 64, 6, *range(10, 40)])
    store = make_store(
        {"packets": [3], "first_packet": [0], "protocol": [6]},
        {
            **{"record": [0, 40, 80], "ip": [0, 0, 0], "captured": [40] * 3, "length": [40, 40, 45]},
            **{"payload": [40, 40, 40], "payload_length": [0, 0, 5]},
        },
        captures=[header + bytes([*header[:8], 65, *header[9:]]) + bytes([*header[:8], 66, *header[9:]])],
    )
    kind = registry.load(name)
    view = View(store, Samples(np.array([0]), np.array([0]), np.array([3])), kind.reads)
    all_, with_payload = (
        kind(make_parameters(kind, {"packets": 2, "payload_only": only}), classes=2).represent(view)["packets"][0, :, 8]
        for only in (False, True)
    )
    assert all_.tolist() == [64, 65] and with_payload.tolist() == [66, 0]
