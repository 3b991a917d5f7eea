"""Faults of a torch method that `bench check` must find: what a step, a part or a hook silently leaves out."""

import pytest
import torch
from torch import nn

from bench.conformance import Case, questions
from bench.runs import registry
from bench.runs.guards import ContractBroken

Mlp = registry.load("mlp-bytes")


class Sound(Mlp):
    """A torch method of somebody else, with a loss of its own."""

    name = "sound"

    def loss(self, logits, labels):
        weights = torch.arange(1.0, self.classes + 1, device=logits.device)
        return nn.functional.cross_entropy(logits, labels, weights)

    def loss_divisor(self, labels):
        return (labels + 1.0).sum()


class Divides(Sound):
    """Its divisor is not what its loss divides by."""

    def loss_divisor(self, labels):
        return torch.tensor(len(labels))


class Forgets(Sound):
    """Its optimiser lacks a weight."""

    def optimiser(self, network):
        return torch.optim.Adam(list(network.parameters())[1:])


class Misspells(Sound):
    """A hook that nobody calls."""

    def befor_training(self, network, train, rows):
        raise AssertionError


class Reads(Sound):
    """What it reads could be changed."""

    reads = {"payload"}  # noqa: RUF012


class Reseeds(Sound):
    """It leaves torch's generator elsewhere."""

    def fit(self, train, validation, monitor):
        torch.manual_seed(5)
        return super().fit(train, validation, monitor)


@pytest.mark.parametrize(
    ("kind", "question", "told"),
    [
        (Divides, questions.divides_its_loss_as_it_says, "micro_batch changes scores"),
        (Forgets, questions.trains_every_weight, "no step changes it"),
        (Misspells, questions.declares_itself, "befor_training: nothing calls it; did you mean before_training?"),
        (Reads, questions.declares_itself, "reads: a frozenset, not a set"),
        (Reseeds, questions.fits_without_side_effects, "the global random state of torch is changed"),
    ],
)
def test_a_fault_is_found_and_a_sound_method_is_not_blamed(kind, question, told, folder):
    question(Case(Sound, folder))
    case = Case(kind, folder)
    case.fit(case.make(), case.labels)  # what an earlier question has done
    state = torch.get_rng_state()
    with pytest.raises(ContractBroken, match=told.replace("?", r"\?")):
        question(case)
    if kind is Reseeds:
        assert torch.equal(torch.get_rng_state(), state)


def test_the_american_spelling_of_a_hook_is_refused():
    with pytest.raises(TypeError, match="optimizer: this hook is called optimiser; rename it"):
        type("American", (Mlp,), {"optimizer": lambda self, network: None})
