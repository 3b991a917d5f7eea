"""What a refusal must be: the right code, one line, and whatever of the user's own words helps to find the place."""

from contextlib import contextmanager

import pytest

from bench.errors import InputError


@contextmanager
def refused(code, *named):
    """A block that must be refused with that code, in one line that tells each of ``named``: names, values, paths."""
    with pytest.raises(InputError) as caught:
        yield caught
    assert caught.value.code == code, caught.value
    line = str(caught.value)
    assert len(line.splitlines()) == 1, line
    for text in named:
        assert str(text) in line, line
