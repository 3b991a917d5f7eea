"""Random tables of sessions, and what is asked of their splits."""

import numpy as np
from hypothesis import assume, settings
from hypothesis import strategies as st

from bench.errors import InputError
from bench.schema import NO_CLASS
from bench.spec import SplitSpec
from bench.splits.split import make_split

QUIET = settings(max_examples=60, deadline=None)


def split_of(store, task, scheme="session", *, parts=None, file=None, **options):
    """A split by its options, as tests name them."""
    spec = SplitSpec(scheme, file=None if file is None else str(file), **options)
    return make_split(store, task, spec, shares=parts)


@st.composite
def tables(draw, sizes=(3, 200)):
    """Labels, conversations, capture groups and starts of random sessions."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = draw(st.integers(*sizes))
    return {
        "labels": rng.integers(NO_CLASS if draw(st.booleans()) else 0, draw(st.integers(1, 6)), size),
        "conversation": rng.integers(0, draw(st.integers(3, size)), size) * 7,
        "capture": rng.integers(0, draw(st.integers(3, size)), size) + 11,
        "start": rng.integers(0, draw(st.integers(3, 1000)), size),
    }


def part_of_row(split, size):
    """Part number of each session of the store, -1 for none; asserts that no session is in two parts."""
    out = np.full(size, -1)
    for p, part in enumerate(split.parts.values()):
        assert (np.diff(part.session) > 0).all(), "sorted by row, none twice"
        assert (out[part.session] == -1).all()
        assert (part.first == 0).all() and (part.count == 1).all()
        out[part.session] = p
    return out


def attempt(*args, **kwargs):
    """A split, where the random store allows one."""
    try:
        return split_of(*args, **kwargs)
    except InputError:
        assume(False)
