"""The nearest neighbour on first bytes, and where a ClientHello has its server name."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.method import Monitor, Part
from methods.first_bytes import FirstBytes, Parameters, hide_server_names


def client_hello(name, before=b"", after=b"", session=b"s" * 32):
    entry = struct.pack(">BH", 0, len(name)) + name
    content = struct.pack(">H", len(entry)) + entry
    extensions = before + struct.pack(">HH", 0, len(content)) + content + after
    body = b"\x03\x03" + b"r" * 32 + bytes([len(session)]) + session
    body += struct.pack(">H", 4) + b"\x13\x01\x13\x02" + b"\x01\x00" + struct.pack(">H", len(extensions)) + extensions
    handshake = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + struct.pack(">H", len(handshake)) + handshake, content


def streams(*texts, width=400):
    return np.array([np.frombuffer(t[:width].ljust(width, b"\0"), np.uint8) for t in texts])


@given(
    name=st.binary(min_size=1, max_size=60).filter(any),
    before=st.lists(st.tuples(st.integers(1, 60), st.binary(max_size=30)), max_size=5),
    session=st.binary(max_size=32),
    width=st.integers(1, 500),
    following=st.binary(max_size=80),
)
def test_a_server_name_is_hidden_and_nothing_else(name, before, session, width, following):
    extensions = b"".join(struct.pack(">HH", kind, len(data)) + data for kind, data in before)
    hello, content = client_hello(name, extensions, struct.pack(">HH", 43, 3) + b"\x02\x03\x04", session)
    begin = hello.index(struct.pack(">HH", 0, len(content)) + content) + 4
    expected = hello[:begin] + b"\0" * len(content) + hello[begin + len(content) :] + following
    found = streams(hello + following, width=width)
    hide_server_names(found)
    assert found[0].tobytes() == expected[:width].ljust(width, b"\0")


def test_what_follows_a_hello_without_extensions_stays():
    body = b"\x03\x03" + b"r" * 32 + b"\0" + b"\0\2\x13\1" + b"\1\0"
    hello = b"\x16\x03\x01" + struct.pack(">H", len(body) + 4) + b"\1" + len(body).to_bytes(3, "big") + body
    found = streams(hello + b"\0\0\0\x10" + b"A" * 40, width=120)
    before = found.copy()
    hide_server_names(found)
    assert np.array_equal(found, before)


@given(st.lists(st.binary(max_size=80), min_size=1, max_size=5))
def test_other_streams_stay_as_they_are(texts):
    texts = [text for text in texts if text[:1] != b"\x16"] or [b"GET / HTTP/1.1"]
    found = streams(*texts, width=80)
    before = found.copy()
    hide_server_names(found)
    assert np.array_equal(found, before)


def test_the_nearest_neighbour_by_bytes_answers_and_silence_abstains():
    train = streams(b"abcdef", b"uvwxyz", width=6)
    part = Part({"features": train, "held": np.ones(2, bool)}, np.array([0, 2]))
    method = FirstBytes(Parameters(bytes=6), classes=3).fit(part, part, Monitor())
    test = {"features": streams(b"abcxyz"[:4] + b"ef", b"uvwxef", b"", width=6), "held": np.array([True, True, False])}
    found = method.predict_proba(test)
    assert found[:2].argmax(1).tolist() == [0, 2] and np.isnan(found[2]).all()


@given(st.integers(0, 2**32 - 1))
def test_of_equally_near_sessions_the_earlier_answers(seed):
    draw = np.random.default_rng(seed)
    train, asked = draw.integers(0, 3, (300, 4), np.uint8), draw.integers(0, 3, (40, 4), np.uint8)
    labels = draw.integers(0, 5, 300)
    part = Part({"features": train, "held": np.ones(300, bool)}, labels)
    method = FirstBytes(Parameters(bytes=4), classes=5).fit(part, part, Monitor())
    found = method.predict_proba({"features": asked, "held": np.ones(40, bool)})
    differing = (asked[:, None] != train).sum(2)
    assert (differing == differing.min(1, keepdims=True)).sum(1).max() > 1
    np.testing.assert_array_equal(found.argmax(1), labels[differing.argmin(1)])


@pytest.mark.parametrize("left", ["lengths", "times", "directions"])
def test_what_the_forest_leaves_out_changes_nothing(left):
    from methods.forest import Forest
    from methods.forest import Parameters as ForestParameters

    draw = np.random.default_rng(0)

    class Made:
        def __init__(self, **changes):
            kept = draw.integers(1, 9, 20)[:, None] > np.arange(8)
            self.series = {
                "lengths": draw.integers(40, 1500, (20, 8)) * kept,
                "directions": draw.choice([-1, 1], (20, 8)) * kept,
                "times": np.cumsum(draw.random((20, 8)), axis=1) * kept,
            }
            self.kept = kept

        def __getattr__(self, name):
            return lambda *_: self.series[name]

        def counts(self):
            return self.kept.sum(1)

    one = Made()
    two = Made()
    two.series = one.series | {left: two.series[left]}
    if left != "times":  # zero where there is no packet, in both
        two.series[left] = np.where(one.kept, np.where(two.series[left] == 0, 1, two.series[left]), 0)
    two.kept = one.kept
    forest = Forest(ForestParameters(packets=8, leave_out=left), classes=2)
    assert np.array_equal(forest.represent(one)["features"], forest.represent(two)["features"])
    plain = Forest(ForestParameters(packets=8), classes=2)
    assert not np.array_equal(plain.represent(one)["features"], plain.represent(two)["features"])
