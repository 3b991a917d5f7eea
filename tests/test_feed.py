"""Batches on their way to a GPU, tried on the processor."""

import numpy as np
import pytest
import torch
from trained import Recorder, make, part

from bench.training import feed, loop


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
