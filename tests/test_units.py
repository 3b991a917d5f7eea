"""Methods of single packets and of header bytes, and unequal classes."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from bench.method import Monitor, Part, make_parameters
from bench.readers import View
from bench.runs import registry
from bench.schema import Samples
from bench.training.balance import class_weights, undersample
from bench.training.budget import TrainingParameters
from bench.training.units import HeaderBytesMethod, PacketMethod, aggregate_packets, packets_of


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
