"""Pre-training without labels: what is handed over, what is frozen, and weights from a file of others."""

import argparse
import os

import numpy as np
import pytest
import torch
from refusals import refused
from torch import nn
from trained import Recorder, part

from bench.method import Monitor, files_of, learn
from bench.training.budget import PretrainingParameters
from bench.training.initial import PretrainedMethod


class Guess(nn.Module):
    """Gives its input back from what the encoder makes of it."""

    def __init__(self, width):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(width, 6), nn.Dropout(0.5))
        self.decoder = nn.Linear(6, width)

    def forward(self, points):
        values = points.float() / 100
        return (self.decoder(self.encoder(values)) - values).square().mean()


class Classify(Guess):
    def forward(self, points):
        return self.decoder(self.encoder(points.float() / 100).tanh())


class Small(PretrainedMethod):
    """A linear encoder."""

    name, reference, reads = "small", "a test", frozenset()

    def represent(self, view): ...

    def network(self):
        made = Classify(2)
        made.decoder = nn.Linear(6, self.classes)
        return made

    def pretraining_network(self):
        return Guess(2)

    def authors_name(self, name):
        return f"theirs.{name}"


def small(**values):
    values = {"pretraining_steps": 30, "pretraining_batch": 8, "epochs": 2, "learning_rate": 0.01} | values
    return Small(PretrainingParameters(**values), classes=3, seed=5)


def weight_of(method):
    return method.model.encoder[0].weight.detach()


@pytest.fixture
def data():
    return part()


def test_what_is_pretrained_is_where_fine_tuning_begins_and_what_frozen_keeps(data):
    scratch, frozen, tuned = (
        learn(small(pretraining=how), data, data, Monitor()) for how in ("scratch", "frozen", "fine-tuned")
    )
    assert not scratch.encoded and frozen.encoded["0.weight"].shape == (6, 2)
    assert torch.equal(weight_of(frozen), frozen.encoded["0.weight"])
    assert not weight_of(frozen).requires_grad and frozen.model.encoder[1].p == 0
    moved = (weight_of(tuned) - tuned.encoded["0.weight"]).abs().max()
    assert 0 < moved < 0.5 and torch.equal(tuned.encoded["0.weight"], frozen.encoded["0.weight"])
    assert not torch.allclose(weight_of(scratch), weight_of(tuned), atol=1e-3)


def test_a_fit_without_pretraining_before_it_is_refused(data):
    with pytest.raises(RuntimeError, match="call pretrain before fit"):
        small().fit(data, data, Monitor())


def test_it_takes_its_steps_tells_them_and_gets_better(data):
    monitor, method = Recorder(), small(pretraining_steps=50, pretraining_rate=0.05)
    method.pretrain(data.inputs, monitor)
    assert monitor.notes["optimiser_steps"] == 50 and monitor.notes["training_samples"] == len(data)
    assert [(e["epoch"], e["epochs"]) for e in monitor.epochs] == [(i, 20) for i in range(1, 21)]
    assert [s["step"] for s in monitor.steps][:3] == [2, 5, 7] and monitor.steps[-1]["step"] == 50
    assert monitor.steps[-1]["loss"] < monitor.steps[0]["loss"]


def test_one_seed_gives_one_encoder_and_leaves_the_global_generator_alone(data):
    before = torch.get_rng_state()
    one, two = small(), small()
    one.pretrain(data.inputs, Monitor())
    two.pretrain(data.inputs, Monitor())
    assert torch.equal(one.encoded["0.weight"], two.encoded["0.weight"])
    assert torch.equal(before, torch.get_rng_state())


def test_the_rate_rises_then_falls_to_zero():
    p = PretrainingParameters(pretraining_steps=100, pretraining_rate=1.0, pretraining_warmup=0.1)
    assert p.pretraining_rate_at(0) == 0.1 and p.pretraining_rate_at(9) == 1.0
    assert p.pretraining_rate_at(55) == pytest.approx(0.5) and p.pretraining_rate_at(100) == pytest.approx(0)


def test_a_saved_method_is_loaded_without_pretraining(data, tmp_path):
    method = learn(small(), data, data, Monitor())
    method.save(tmp_path)
    assert np.array_equal(Small.load(tmp_path).predict_proba(data.inputs), method.predict_proba(data.inputs))


def tensors(width=2):
    draw = torch.Generator().manual_seed(3)
    return {
        "theirs.0.weight": torch.randn(6, width, generator=draw),
        "theirs.0.bias": torch.zeros(6),
        "head": torch.ones(1),
    }


def test_weights_of_others_take_the_place_of_pretraining(data, tmp_path):
    path = tmp_path / "authors.pth"
    torch.save({"model": tensors(), "epoch": 7, "args": argparse.Namespace(lr=1)}, path)
    monitor, method = Recorder(), small(weights=str(path), weights_licence="MIT", pretraining="frozen")
    method.pretrain(data.inputs, monitor)
    method.fit(data, data, Monitor())
    assert torch.equal(weight_of(method), tensors()["theirs.0.weight"]) and not monitor.steps


def test_weights_that_do_not_fit_or_are_none_are_refused(data, tmp_path):
    path = tmp_path / "authors.pth"

    def read():
        small(weights=str(path), weights_licence="MIT").pretrain(data.inputs, Monitor())

    torch.save(tensors(width=3), path)
    with refused("bad-weights", "another shape ([6, 3], not [6, 2]) of theirs.0.weight"):
        read()
    torch.save({"other": torch.ones(2)}, path)
    with refused("bad-weights", "no theirs.0.weight"):
        read()
    for text in ("no weights", "junk", "Repository not found", "hello world", ""):  # an unpickler fails in many ways
        path.write_text(text)
        with refused("bad-weights", "cannot be read as weights"):
            read()
    torch.save(Evil(tmp_path / "run"), path)
    with refused("bad-weights", "cannot be read as weights"):
        read()
    assert not (tmp_path / "run").exists()  # no code of the file is run


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_weights_are_told_with_their_digest_and_need_a_licence(tmp_path):
    path = tmp_path / "authors.bin"
    path.write_bytes(b"abc")
    assert files_of(Small, {"weights": str(path)})["weights"].startswith("ba7816bf")
    assert files_of(Small, {"weights": None}) == files_of(Small, {}) == {}
    with refused("bad-parameter", "name its licence"):
        small(weights="x")
    with refused("bad-parameter", "name its licence"):
        small(weights="x", weights_licence=" ")
    with refused("bad-parameter", "begins from no weights"):
        small(weights="x", weights_licence="MIT", pretraining="scratch")
