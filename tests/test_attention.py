"""Attention of a finished run: which sample, which packets, and weights against a slow softmax."""

import dataclasses

import numpy as np
import pytest
import torch
from records import of_spec, write_result
from refusals import refused

from bench.method import make_parameters
from bench.paper.attention import attention_maps
from bench.readers import View
from bench.schema import Samples
from bench.spec import RunSpec, parse_sampling
from bench.splits.sampling import windows
from bench.tracking.record import Record
from bench.tracking.results import Predictions
from methods.atvitsc import Atvitsc

pytestmark = pytest.mark.usefixtures("torch_seeded")
PACKETS = 4
HELD = np.array([2, 6, 4, 5, 0, 3])  # packets with payload of each session; one more before each has none
SMALL = {"packets": PACKETS, "bytes": 16, "width": 16, "heads": 3, "head_width": 8, "feedforward": 32, "channels": 4}


@pytest.fixture(scope="module")
def store(make_store):
    """Six sessions whose packets have alternately no payload and random bytes."""
    draw = np.random.default_rng(0)
    packets = 2 * HELD + 1
    total = packets.sum()
    begin = np.cumsum(packets) - packets
    payload = 20 * ((np.arange(total) - np.repeat(begin, packets)) % 2)
    columns = {
        "record": 40 * np.arange(total),
        "length": 20 + payload,
        "captured": 20 + payload,
        "payload_length": payload,
        "payload": np.full(total, 20),
    }
    sessions = {"packets": packets, "payload_packets": HELD, "first_packet": begin}
    return make_store(sessions, columns, [draw.bytes(40 * total)], labels=np.arange(6) % 2, classes=["mail", "voip"])


@pytest.fixture
def make_run(store, tmp_path):
    """A run that answered for these sessions, rightly where told."""

    def make(sessions, right, sampling="session", digest=None, **values):
        method = Atvitsc(make_parameters(Atvitsc, SMALL | values), classes=2, seed=1)
        method.model = method.network().eval()
        (tmp_path / "model").mkdir()
        method.save(tmp_path / "model")
        samples = windows(parse_sampling(sampling), np.array(sessions), store)
        truth = np.asarray(store.labels("task"))[samples.session].astype(np.int64)
        answers = np.eye(2, dtype=np.float32)[np.where(np.resize(right, len(truth)), truth, 1 - truth)]
        Predictions(["mail", "voip"], samples.session, samples.first, truth, samples.session, answers).save(
            tmp_path / "predictions.npz"
        )
        write_result(tmp_path, sampling=sampling)
        spec = RunSpec("atvitsc", "fake", "task", store=digest or store.digest)
        return Record("0123456789", "done", "", spec, {}, folder=tmp_path), method

    return make


def slow_weights(model, inputs):
    """Attention of the last layer by its equations, head by head; float64 [samples, tokens, tokens]."""
    pvt = model.double().pvt
    payload, lengths = (torch.from_numpy(inputs[name]) for name in ("payload", "lengths"))
    tokens = pvt.packet(payload.double() / 255) + pvt.position + pvt.length(lengths)
    tokens = torch.cat([pvt.token.expand(len(tokens), 1, -1), tokens], dim=1)
    for layer in pvt.encoder[:-1]:
        tokens = layer(tokens, None)
    layer = pvt.encoder[-1]
    x = layer.attention_norm(tokens)
    query, key = layer.query(x), layer.key_value(x)[..., : layer.query.out_features]
    heads = [slice(8 * h, 8 * h + 8) for h in range(layer.heads)]
    scores = [query[..., h] @ key[..., h].transpose(1, 2) / np.sqrt(8) for h in heads]
    return (sum(s.exp() / s.exp().sum(2, keepdim=True) for s in scores) / layer.heads).detach().numpy()


def test_maps_are_the_rows_of_a_slow_softmax_without_the_class_token(store, make_run):
    record, method = make_run([1, 2, 3], [True] * 3)
    found = attention_maps(record, store, session=2)
    inputs = method.represent(View(store, Samples(np.array([2]), np.zeros(1, int), np.array([9])), Atvitsc.reads))
    weights = method.attention(inputs)
    assert weights.shape == (1, 1 + PACKETS, 1 + PACKETS) and weights.dtype == np.float32
    assert np.allclose(weights.sum(2), 1, atol=1e-6)
    expected = slow_weights(method.model, inputs)
    assert np.allclose(weights, expected, atol=1e-6)
    rows = expected[0, 1:, 1:]
    assert found.queries == (0, 1, 2, 3) and found.maps.dtype == np.float64
    assert np.allclose(found.maps, rows / rows.sum(1, keepdims=True), atol=1e-5)
    assert np.ptp(found.maps, axis=0).max() > 1e-4  # packets do not all look alike


@pytest.mark.parametrize(
    ("sessions", "right", "chosen"),
    [
        ([0, 1, 2, 3], [True, False, True, True], 2),  # right, and four packets or more
        ([0, 1, 5], [True, False, True], 1),  # no right one is full
        ([0, 4, 5], [True, True, False], 5),  # none is full: the most packets
        ([0, 5, 4], [True, True, True], 5),
    ],
)
def test_a_full_sample_that_is_right_is_chosen_before_others(sessions, right, chosen, store, make_run):
    record, _ = make_run(sessions, right)
    found = attention_maps(record, store)
    assert found.session == chosen and found.filled == min(HELD[chosen], PACKETS)
    assert found.class_name == ["mail", "voip"][chosen % 2]
    assert (found.predicted == found.class_name) == right[sessions.index(chosen)]


@pytest.mark.parametrize(("queries", "expected"), [(1, (0,)), (2, (0, 2)), (4, (0, 1, 2)), (9, (0, 1, 2))])
def test_queries_are_spread_over_the_packets_that_the_session_has(queries, expected, store, make_run):
    record, _ = make_run([5], [True])
    found = attention_maps(record, store, queries=queries)
    assert found.queries == expected and found.filled == 3
    assert found.maps.shape == (len(expected), PACKETS)  # the column of padding is there
    assert np.allclose(found.maps.sum(1), 1) and (found.maps[:, 3] > 0).all()


def test_masked_padding_is_not_looked_at(store, make_run):
    record, _ = make_run([5], [True], mask_padding=True)
    found = attention_maps(record, store)
    assert (found.maps[:, 3] == 0).all() and np.allclose(found.maps.sum(1), 1)


def test_windows_are_those_of_the_run(store, make_run):
    record, _ = make_run([1], [False, True], sampling="window=3")
    found = attention_maps(record, store)  # the second window of three, which was right
    assert (found.session, found.filled, found.predicted) == (1, 3, "voip")


def test_what_has_no_attention_is_bad_input(store, make_run, tmp_path):
    record, _ = make_run([1], [True], branches="spatiotemporal")
    with refused("no-attention", "branches=spatiotemporal"):
        attention_maps(record, store)
    other = of_spec(record, method="wang1d")
    with refused("no-attention", "wang1d"):
        attention_maps(other, store)
    with refused("missing-artefact", "--rerun"):
        attention_maps(dataclasses.replace(record, folder=tmp_path / "none"), store)


def test_what_is_not_of_this_run_is_bad_input(store, make_run):
    record, _ = make_run([1, 4], [True, True])
    with refused("no-such-session", "session 3", "run 01234567"):
        attention_maps(record, store, session=3)
    with refused("no-such-session", "session 4"):
        attention_maps(record, store, session=4)
    stale = of_spec(record, store="f" * 64)
    with refused("store-changed", "run 01234567"):
        attention_maps(stale, store)
