"""Every method in `methods/` against the contract, on the terms that `bench check` sets for anybody's."""

import pytest

from bench import conformance
from bench.runs import registry

#: (method, check) -> why it may fail; an entry that fails no more is a failure itself
EXPECTED_FAILURES = {}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "conformance"  # one for the two files that need the traffic
    path.mkdir(exist_ok=True)
    return path


@pytest.fixture(scope="module", params=registry.names())
def case(request, folder):
    case = conformance.Case(registry.load(request.param), folder)
    if reason := case.method.skip(case.store.manifest):
        pytest.skip(reason)
    return case


@pytest.mark.parametrize("question", conformance.CHECKS, ids=lambda q: q.__name__)
def test_conforms(case, question):
    answer = conformance.ask(question, case)
    reason = EXPECTED_FAILURES.get((case.method.name, answer.name))
    assert answer.passed == (reason is None), answer.detail or f"passes now, although expected to fail: {reason}"
