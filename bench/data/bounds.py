"""Columns that point somewhere: every row must point inside, for compiled code follows them without asking.

A store is a file, which may be damaged, cut or made by somebody who means ill.  One pass over the sessions when they
are opened, and one over a capture's packets when its bytes are first asked for, costs less than reading them does.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.schema import NO_CLASS

CHUNK: Final = 1 << 17  # rows looked at at once: what is computed of them stays in the processor's cache


def check_sessions(columns: Mapping[str, NDArray[Any]], packets: int, captures: int, tasks: Mapping[str, int]) -> None:
    """Hold the session columns, int ``[sessions]``, against what they point into.

    ``packets`` and ``captures`` are how many the store has, ``tasks`` the number of classes by column of labels.
    Raises ValueError with the column, the row and its value.
    """
    count, first = columns["packets"], columns["first_packet"]
    _check_range("packets", count, 0, packets)
    _check_range("first_packet", first, 0, packets)
    for begin in range(0, len(count), CHUNK):
        rows = slice(begin, begin + CHUNK)
        beyond = first[rows] > packets - count[rows]  # a sum of both may be too large for a number
        if beyond.any():
            row = begin + int(beyond.argmax())
            what = f"first_packet {first[row]} and packets {count[row]} of session {row}"
            raise ValueError(f"{what} lead beyond the {packets} packets of the store")
    _check_range("capture", columns["capture"], 0, captures - 1)
    _check_range("conversation", columns["conversation"], 0, len(count) - 1)
    for name, classes in tasks.items():
        _check_range(name, columns[name], NO_CLASS, classes - 1)


def _check_range(name: str, values: NDArray[Any], least: int, most: int) -> None:
    """Raises ValueError for a value, int ``[rows]``, outside of ``least`` to ``most``."""
    if len(values) and not (least <= values.min() and values.max() <= most):
        row = int(((values < least) | (values > most)).argmax())
        raise ValueError(f"{name} of session {row} is {values[row]}, must be {least} to {most}")


def check_packets(
    record: NDArray[np.int64],
    ip: NDArray[np.uint16],
    captured: NDArray[np.uint32],
    *,
    within: int,
    name: str,
    first: int = 0,
) -> None:
    """Hold the places of packets ``[rows]``, which begin at row ``first`` of the store, against a capture's bytes.

    Raises ValueError where one does not lie in the ``within`` bytes of the capture ``name``.
    """
    for begin in range(0, len(record), CHUNK):
        rows = slice(begin, begin + CHUNK)
        at = record[rows]
        # first the record alone: added up, a number that is too large would turn negative
        inside = (at >= 0) & (at <= within)
        inside &= np.where(inside, at, 0) + ip[rows] + captured[rows] <= within
        if not inside.all():
            row = begin + int((~inside).argmax())
            what = f"packet {first + row} (record {record[row]}, ip {ip[row]}, captured {captured[row]})"
            raise ValueError(f"{what} lies outside of {name}, which has {within} bytes")
