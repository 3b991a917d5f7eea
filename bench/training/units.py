"""Methods by what they read a session as: the first bytes of its packets, or single packets.

A method of packets is lifted to sessions in one place (:func:`aggregate_packets`).
"""

from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.method import Inputs, Monitor, Part
from bench.readers import MASKS, View
from bench.training.loop import TorchMethod


class HeaderBytesMethod(TorchMethod):
    """A method that reads the first ``bytes`` of the first ``packets`` from the IP header on.

    Its parameters have these two, ``mask_ports`` and ``payload_only``; addresses and checksums are always masked.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"ip_bytes", "ports"})

    def represent(self, view: View) -> Inputs:
        """``packets`` uint8 ``[samples, packets, bytes]``, 0 padded."""
        p = self.parameters
        mask = MASKS if p.mask_ports else ("addresses", "checksums")
        return {"packets": view.ip_bytes(p.packets, p.bytes, mask=mask, payload_only=p.payload_only)}

    def can_classify(self, inputs: Inputs) -> NDArray[np.bool_]:
        """Bool ``[samples]``: False for a session without a captured byte."""
        return np.asarray(inputs["packets"].any(axis=(1, 2)))


class PacketMethod(TorchMethod):
    """A method whose unit is the packet, lifted to sessions by the mean log probability of its packets.

    Its parameters have ``packets``; :meth:`represent` gives arrays ``[samples, packets, ...]`` and the bool array
    ``eligible [samples, packets]``.  Training takes every eligible packet as a sample of one packet; a session
    without any is an abstention.
    The network works on eligible packets alone and ends with :func:`aggregate_packets`.
    """

    unit: ClassVar[str] = "packet"

    @property
    def scoring_batch(self) -> int:  # type: ignore[override]
        """Sessions whose packets are some 256."""
        return max(1, 256 // int(self.parameters.packets))

    def can_classify(self, inputs: Inputs) -> NDArray[np.bool_]:
        """Bool ``[samples]``: False for a session without an eligible packet."""
        return np.asarray(inputs["eligible"].any(axis=1))

    def trained_rows(self, train: Part) -> NDArray[np.int64]:
        """Rows, int64 ``[sessions]``, of all sessions: under-sampling takes packets, some of each."""
        return np.arange(len(train))

    def fit(self, train: Part, validation: Part, monitor: Monitor) -> Self:
        """Train on packets, choose the epoch on whole sessions of the validation part."""
        return super().fit(packets_of(train), validation, monitor)


def packets_of(part: Part) -> Part:
    """Every packet of a part ``[S, P, ...]`` as a sample of one: ``[S * P, 1, ...]``, without a copy."""
    packets = {name: values.reshape(-1, 1, *values.shape[2:]) for name, values in part.inputs.items()}
    return Part(packets, np.repeat(part.labels, part.inputs["eligible"].shape[1]))


def aggregate_packets(logits: Tensor, eligible: Tensor) -> Tensor:
    """Mean log probability ``[samples, classes]`` of each sample's packets, as logits.

    ``logits [N, classes]`` are of the N packets that ``eligible [samples, packets]`` marks, in its order.  The
    softmax of the mean is the normalised geometric mean of the packets' probabilities; of one packet, its own.
    """
    mean = logits.new_zeros(len(eligible), logits.shape[1], dtype=torch.float32)
    mean = mean.index_add(0, samples_of(eligible, len(logits)), logits.float().log_softmax(1))
    return mean / eligible.sum(1, keepdim=True)


def samples_of(eligible: Tensor, packets: int) -> Tensor:
    """The sample, int64 ``[packets]``, of each of the packets that ``eligible [samples, packets]`` marks, in its order.

    How many these are is known to who asks: a GPU would have to be waited for.
    """
    samples = torch.arange(len(eligible), device=eligible.device)
    return samples.repeat_interleave(eligible.sum(1), output_size=packets)


def number_of(eligible: Tensor) -> int:
    """Packets, or other parts, that ``eligible [samples, parts]`` marks; a sample of one part is asked for it alone."""
    return len(eligible) if eligible.shape[1] == 1 else int(eligible.sum())


def eligible_rows(values: Tensor, eligible: Tensor) -> Tensor:
    """``[N, ...]`` of ``values [samples, packets, ...]``: those that ``eligible [samples, packets]`` marks.

    A sample that has one packet is asked for it alone, as in training: then a GPU need not be waited for.
    """
    return values[:, 0] if eligible.shape[1] == 1 else values[eligible]
