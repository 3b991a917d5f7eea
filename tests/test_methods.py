"""Every method in `methods/` against the contract, on the terms that `bench check` sets for anybody's."""

import dataclasses

import numpy as np
import pytest
import torch

from bench import conformance
from bench.method import make_parameters
from bench.readers import View
from bench.runs import registry
from bench.runs.attempt import AttemptMonitor, attempt
from bench.runs.guards import same_inputs
from bench.schema import Samples
from bench.spec import RunSpec, SplitSpec
from bench.training import lstm
from bench.training.loop import TorchMethod

#: (method, check) -> why it may fail; an entry that fails no more is a failure itself
EXPECTED_FAILURES = {}


SHARED_PACKETS = 16


@pytest.fixture(scope="module", params=registry.names())
def case(request, folder):
    case = conformance.Case(registry.load(request.param), folder)
    if reason := case.method.skip(case.store.traits):
        pytest.skip(reason)
    return case


def test_bytes_are_shares_of_255(case):
    """What a network takes for bytes of 255 and of 1; over 256 instead, nothing else would notice."""
    inputs = {name: values for name, values in case.inputs.items() if getattr(values, "dtype", None) == np.uint8}
    if not inputs or not issubclass(case.method, TorchMethod):
        pytest.skip("reads no bytes into a network")
    method = case.make()
    heard = {}
    for level in (255, 1):
        filled = {name: np.full_like(values[:4], level) for name, values in inputs.items()}
        tensors = method.batch({name: filled.get(name, values[:4]) for name, values in case.inputs.items()})
        heard[level] = [tensor for tensor in first_floats(method.network().eval(), tensors) if (tensor > 0).any()]
    assert heard[255] and max(float(tensor.max()) for tensor in heard[255][:1]) == 1.0
    assert float(heard[1][0].max()) == pytest.approx(1 / 255, rel=1e-6)


def first_floats(network, tensors):
    """The floating-point tensors that modules, and the products of LSTMs of ours, are called with, in order."""
    seen = []

    def note(module, given):
        seen.extend(t.detach().float() for t in given if isinstance(t, torch.Tensor) and t.is_floating_point())

    def noting(product):
        return lambda *given: note(None, given[:1]) or product(*given)

    hooks = [module.register_forward_pre_hook(note) for module in network.modules()]
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        for name in ("linear", "padded_linear"):
            patch.setattr(lstm, name, noting(getattr(lstm, name)))
        network(**tensors)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("question", conformance.CHECKS, ids=lambda q: q.__name__)
def test_conforms(case, question):
    answer = conformance.ask(question, case)
    reason = EXPECTED_FAILURES.get((case.method.name, answer.name))
    assert answer.passed == (reason is None), answer.detail or f"passes now, although expected to fail: {reason}"


def test_a_run_passes_the_guards(case):
    """The whole of a run, with what it asks of its method, on few samples and tiny parameters."""
    spec = RunSpec(case.method.name, "services", case.store.default_task, SplitSpec("session", max_per_class=10))
    spec = dataclasses.replace(spec, parameters=dict(case.method.tiny))
    done = attempt(spec, case.store, case.method, AttemptMonitor())
    assert len(done.predictions.truth) == len(done.split.test) > 0
    assert 0 <= done.metrics["training_accuracy"] <= 1


def test_the_shared_preset_sees_nothing_behind_the_packets_that_it_reads(case):
    """Sixteen, of all or of those with payload: the same arrays where the session ends with the last of these."""
    kind = case.method
    if "shared" not in kind.presets:
        pytest.skip("has no preset shared")
    rows = np.arange(len(case.store.session("packets")))
    whole = Samples(rows, np.zeros_like(rows), case.store.session("packets").astype(np.int64))
    payload = View(case.store, whole, frozenset({"payload_lengths"})).ragged("payload_lengths")
    ends = [
        np.append(np.flatnonzero(payload.values[start:end]), [end - start] * SHARED_PACKETS)[SHARED_PACKETS - 1] + 1
        for start, end in zip(payload.offsets[:-1], payload.offsets[1:], strict=True)
    ]
    cut = Samples(rows, whole.first, np.minimum(ends, whole.count))
    assert (cut.count < whole.count).sum() > 20
    method = kind(make_parameters(kind, kind.presets["shared"]), classes=2)
    seen, less = (method.represent(View(case.store, samples, kind.reads)) for samples in (whole, cut))
    same_inputs(seen, less, "where the session ends")
