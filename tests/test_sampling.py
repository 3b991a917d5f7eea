"""Windows against slow, obvious loops over packets; what they leak against sets of packets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from bench.schema import Samples
from bench.spec import Sampling, parse_sampling
from bench.splits.sampling import count_shared_windows, windows

QUIET = settings(max_examples=150, deadline=None)


@st.composite
def samplings(draw):
    window, step = draw(st.integers(1, 6)), draw(st.none() | st.integers(1, 9))
    stride, per_session = draw(st.sampled_from([1, 1, 2, 3])), draw(st.none() | st.integers(1, 4))
    return Sampling(window, step, stride, per_session, payload=stride == 1 and draw(st.booleans()))


#: sessions as lists of packets: has it payload?
traffic = st.lists(st.lists(st.booleans(), min_size=1, max_size=25), min_size=1, max_size=6)


@pytest.fixture(scope="session")
def store_of(make_store):
    def make(sessions, **more):
        sizes = [len(session) for session in sessions]
        columns = {"packets": sizes, "first_packet": np.cumsum([0, *sizes[:-1]])}
        return make_store(columns | more, {"payload_length": [9 * flag for session in sessions for flag in session]})

    return make


def slowly(sampling, sessions, rows):
    """(session, [packets]) of each window, one packet after the other."""
    found = []
    for row in rows:
        counted = [p for p, payload in enumerate(sessions[row]) if payload or not sampling.payload]
        start, made = 0, 0
        while counted and (made == 0 or start + sampling.extent <= len(counted)):
            if made == sampling.per_session:
                break
            found.append((row, counted[start : start + sampling.extent : sampling.stride]))
            start, made = start + sampling.distance, made + 1
    return found


@QUIET
@given(sampling=samplings(), sessions=traffic, data=st.data())
def test_windows_are_those_of_a_slow_loop(store_of, sampling, sessions, data):
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, len(sessions) - 1), min_size=1))))
    made = windows(sampling, rows, store_of(sessions))
    assert all(column.dtype == np.int64 for column in (made.session, made.first, made.count))
    assert made.stride == sampling.stride
    expected = slowly(sampling, sessions, rows)
    spans = zip(made.session, made.first, made.count, strict=True)
    packets = [list(range(first, first + count * made.stride, made.stride)) for _, first, count in spans]
    if sampling.payload:  # a window reaches from its first to its last packet with payload
        packets = [[p for p in held if sessions[s][p]] for s, held in zip(made.session, packets, strict=True)]
        ends = zip(made.session, made.first, made.count, strict=True)
        assert all(sessions[s][first] and sessions[s][first + count - 1] for s, first, count in ends)
    assert list(zip(made.session, packets, strict=True)) == expected


def test_windows_by_hand(store_of):
    sessions = [[1] * 10, [1] * 3, [0, 1, 0, 0, 1, 1, 1, 0], [0, 0]]
    store, rows = store_of(sessions), np.arange(4)

    def of(text):
        made = windows(parse_sampling(text), rows, store)
        return list(zip(made.session.tolist(), made.first.tolist(), made.count.tolist(), strict=True))

    assert of("session") == [(0, 0, 10), (1, 0, 3), (2, 0, 8), (3, 0, 2)]
    assert of("window=4") == [(0, 0, 4), (0, 4, 4), (1, 0, 3), (2, 1, 6)]
    assert of("window=4,step=3,payload=no") == [
        (0, 0, 4),
        (0, 3, 4),
        (0, 6, 4),
        (1, 0, 3),
        (2, 0, 4),
        (2, 3, 4),
        (3, 0, 2),
    ]
    assert of("window=2,step=1,per_session=2") == [(0, 0, 2), (0, 1, 2), (1, 0, 2), (1, 1, 2), (2, 1, 4), (2, 4, 2)]
    # every third packet, three of them, the next start one packet later: packets 0 3 6, 1 4 7, …, 3 6 9
    assert of("window=3,stride=3,step=1") == [
        (0, 0, 3),
        (0, 1, 3),
        (0, 2, 3),
        (0, 3, 3),
        (1, 0, 1),
        (2, 0, 3),
        (2, 1, 3),
        (3, 0, 1),
    ]


@QUIET
@given(sampling=samplings())
def test_the_text_reads_as_the_sampling_and_is_one_for_equal_ones(sampling):
    again = parse_sampling(str(sampling))
    assert (again.window, again.distance, again.stride, again.per_session, again.payload) == (
        sampling.window, sampling.distance, sampling.stride, sampling.per_session, sampling.payload,
    )  # fmt: skip
    assert str(again) == str(sampling)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("session", "session"), ("window=16", "window=16"), ("step=2,window=16", "window=16,step=2"),
        ("window=16,step=16,stride=1,payload=yes", "window=16"),
        ("window=45,stride=22,step=990", "window=45,stride=22"), ("window=1000000", "window=1000000"),
        ("window=4,payload=no,per_session=3", "window=4,per_session=3,payload=no"),
    ],
)  # fmt: skip
def test_texts(text, canonical):
    assert str(parse_sampling(text)) == canonical


@pytest.mark.parametrize(
    "text",
    ["", "window", "window=", "window=0", "window=-1", "window=1.5", "step=2", "window=2,window=3", "window=2,size=3",
     "window=2,payload=maybe", "window=2,stride=2,payload=yes", "session,step=2", "window=²", "window=1000001"],
)  # fmt: skip
def test_texts_that_are_refused_in_one_line(text):
    with refused("bad-sampling"):
        parse_sampling(text)


def part(*windows_, stride=1):
    return Samples(*np.array(windows_, np.int64).reshape(-1, 3).T, stride)


def test_leaks_by_hand():
    parts = {
        "train": part((0, 0, 4), (0, 8, 4), (1, 0, 4)),
        "validation": part((0, 4, 4)),
        "test": part(
            (0, 0, 4),  # the very window
            (0, 2, 4),  # overlaps the first
            (0, 12, 4),  # overlaps none; the one before it is in training
            (0, 16, 4),  # its neighbour is a test window; only its session is in training
            (2, 0, 4),  # of no session in training
        ),
    }
    assert count_shared_windows(parts, np.full(3, 20)) == {
        "test_in_training_windows": 1,
        "test_in_training_overlapping_windows": 2,
        "test_in_training_neighbours": 3,
        "test_in_training_sessions": 4,
    }


def test_the_end_of_a_session_is_no_neighbour_of_the_next_one():
    parts = {"train": part((0, 6, 4)), "validation": part((2, 0, 4)), "test": part((1, 0, 4))}
    assert set(count_shared_windows(parts, np.full(3, 10)).values()) == {0}


@QUIET
@given(sampling=samplings(), sessions=traffic, seed=st.integers(0, 2**32))
def test_leaks_are_those_of_a_slow_count(store_of, sampling, sessions, seed):
    store, rng = store_of(sessions), np.random.default_rng(seed)
    made = windows(sampling, np.arange(len(sessions)), store)
    if not len(made):
        return
    rows = rng.integers(0, len(made), (3, rng.integers(1, 12)))  # with repeats
    parts = {name: made.take(rows[i]) for i, name in enumerate(("train", "validation", "test"))}

    def spans(samples):
        columns = zip(samples.session.tolist(), samples.first.tolist(), samples.count.tolist(), strict=True)
        return [(s, first, first + (count - 1) * samples.stride) for s, first, count in columns]

    train, every = spans(parts["train"]), sorted({w for p in parts.values() for w in spans(p)})
    expected = np.zeros(4, int)
    for window in spans(parts["test"]):
        s, first, last = window
        at = every.index(window)
        beside = [w for w in every[max(at - 1, 0) : at + 2] if w[0] == s]
        overlaps = any(t == s and a <= last and b >= first for t, a, b in train)
        kinds = (window in train, overlaps, overlaps or any(w in train for w in beside), s in [t for t, _, _ in train])
        expected += kinds
    assert list(count_shared_windows(parts, store.session("packets")).values()) == expected.tolist()
