"""What stress tests change of test samples: packets by hand, read through the very view that a method has."""

import socket
import struct

import numpy as np
import pytest
from capture_bytes import CLIENT, SERVER, ipv4
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from test_readers import make_traffic, make_windows

from bench.readers import READS, View
from bench.schema import Samples
from bench.stress.changes import (
    changes,
    lossy,
    masked_names,
    padded_to,
    random_addresses,
    random_ports,
    randomly_padded,
    shifted_fields,
)
from bench.stress.sampled import SampledStore
from bench.stress.server_names import server_names


def draw(seed=0):
    return np.random.default_rng(seed)


def hello(name=b"chat.example.org", extra=0):
    """A TLS record with a ClientHello that names a server, and where the name stands in it."""
    entry = b"\0" + struct.pack(">H", len(name)) + name
    extensions = struct.pack(">HH", 43, 3) + b"\2\3\4" + struct.pack(">HHH", 0, len(entry) + 2, len(entry)) + entry
    extensions += struct.pack(">HH", 21, extra) + bytes([7]) * extra
    body = b"\3\3" + bytes(range(32)) + b"\4abcd" + b"\0\2\x13\1" + b"\1\0" + struct.pack(">H", len(extensions))
    message = b"\1" + (len(body) + len(extensions)).to_bytes(3) + body + extensions
    record = b"\x16\3\1" + struct.pack(">H", len(message)) + message
    return record, record.index(name)


def ipv6(source, target, *, payload=b"", label=0x12345):
    segment = struct.pack(">HHHH", source[1], target[1], 8 + len(payload), 0xBEEF)
    head = struct.pack(">IHBB", 6 << 28 | 0xAB << 20 | label, 8 + len(payload), 17, 64)
    return head + socket.inet_pton(10, source[0]) + socket.inet_pton(10, target[0]) + segment + payload


@pytest.fixture(scope="session")
def talk(make_store):
    """A store of sessions, each a list of (direction, IP packet, offset of the payload), all in one capture."""

    def make(*sessions, held=None):
        data, packets, first = bytearray(b"head"), {}, [0]
        rows = []
        for talk in sessions:
            for number, (direction, packet, payload) in enumerate(talk):
                rows.append((number * 10**9, len(data), len(packet), len(packet) - payload, held or len(packet),
                             2, payload, direction))  # fmt: skip
                data += b"--" + packet
            first.append(len(rows))
        names = ("time", "record", "length", "payload_length", "captured", "ip", "payload", "direction")
        packets = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        kinds = [packet[0][1][0] >> 4 for packet in sessions]
        protocols = [17 if packet[0][2] in (28, 48) else 6 for packet in sessions]
        of_session = {"packets": np.diff(first), "first_packet": first[:-1], "ip_version": kinds}
        of_session |= {
            "protocol": protocols,
            "client_port": [CLIENT[1]] * len(kinds),
            "server_port": [443] * len(kinds),
        }
        store = make_store(of_session, packets, [data])
        number = len(sessions)
        samples = Samples(np.arange(number), np.zeros(number, int), np.full(number, 99))
        return SampledStore.of(store, samples)

    return make


def tcp(direction, payload=b"", **more):
    ends = (CLIENT, SERVER) if direction > 0 else (SERVER, CLIENT)
    return direction, ipv4(*ends, payload=payload, **more), 40


def view(store):
    return View(store, store.samples, frozenset(READS))


def whole(store, packets=9, bytes=200):
    """All captured bytes: uint8 [samples, packets, bytes]."""
    return view(store).ip_bytes(packets, bytes, mask=())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_unchanged_samples_read_as_in_their_store(make_store, seed):
    rng = draw(seed)
    made = make_traffic(rng, 12)
    store, samples = make_store(*made[:3]), make_windows(rng, made[0], 25)
    sampled = SampledStore.of(store, samples)
    one, other = View(store, samples, frozenset(READS)), view(sampled)
    for read in ("lengths", "payload_lengths", "directions", "times", "flags"):
        np.testing.assert_array_equal(getattr(one, read)(5), getattr(other, read)(5))
        np.testing.assert_array_equal(one.ragged(read).values, other.ragged(read).values)
    np.testing.assert_array_equal(one.ip_bytes(4, 90, mask=()), other.ip_bytes(4, 90, mask=()))
    np.testing.assert_array_equal(one.payload_stream(70), other.payload_stream(70))
    np.testing.assert_array_equal(one.ports(), other.ports())
    np.testing.assert_array_equal(one.counts(payload_only=True), other.counts(payload_only=True))
    assert not hasattr(sampled, "labels") and not hasattr(sampled, "capture_group")


def test_ports_change_in_column_and_bytes_on_both_sides(talk):
    before = talk([tcp(1, b"a"), tcp(-1, b"b")], [tcp(1, b"c")])
    after = random_ports(before, draw())
    ports = view(after).ports()
    assert (ports != [[40000, 443]] * 2).all() and (ports[0] != ports[1]).all()
    old, new = whole(before), whole(after)
    there = new[0, :2, 20:24].astype(int)
    assert (there[0, 0] << 8 | there[0, 1], there[0, 2] << 8 | there[0, 3]) == tuple(ports[0])
    assert there[1].tolist() == [*there[0, 2:], *there[0, :2]]  # the answer comes from where the request went
    differing = np.flatnonzero((old != new).any(axis=(0, 1)))
    assert set(differing) <= {10, 11, *range(20, 24), 36, 37}  # checksums and ports
    assert (view(before).payload(2, 9) == view(after).payload(2, 9)).all()
    np.testing.assert_array_equal(whole(random_ports(before, draw())), new)  # the same seed, the same ports


def test_addresses_change_alike_in_a_session_and_keep_the_rest(talk):
    datagram = ipv6(("fe80::1", 5), ("fe80::2", 6), payload=b"quic"), ipv6(("fe80::2", 6), ("fe80::1", 5), payload=b"!")
    before = talk([tcp(1), tcp(-1)], [(1, datagram[0], 48), (-1, datagram[1], 48)])
    old, new = whole(before), whole(random_addresses(before, draw()))
    assert (new[0, 0, 12:16].tolist(), new[0, 0, 16:20].tolist()) == (
        new[0, 1, 16:20].tolist(), new[0, 1, 12:16].tolist())  # fmt: skip
    assert new[0, 0, 12:20].tolist() != old[0, 0, 12:20].tolist()
    assert set(np.flatnonzero((old[0] != new[0]).any(axis=0))) <= {10, 11, *range(12, 20), 36, 37}
    assert (new[1, 0, 8:24] == new[1, 1, 24:40]).all() and (new[1, 0, 8:40] != old[1, 0, 8:40]).sum() > 20
    assert new[1, 0, 0] == old[1, 0, 0] and new[1, 0, 1] & 0xF0 == old[1, 0, 1] & 0xF0  # version, traffic class
    assert (new[1, 0, 1:4] == new[1, 1, 1:4]).all()
    assert set(np.flatnonzero((old[1] != new[1]).any(axis=0))) <= {1, 2, 3, *range(8, 40), 46, 47}


def test_other_fields_are_shifted_by_one_number_a_session(talk):
    def stamped(stamp):
        segment = struct.pack(">HHIIBBHHH", 1, 2, 0xFFFFFFFF, 9, 0x80, 24, 64, 0, 0)
        options = b"\1\1" + struct.pack(">BBII", 8, 10, stamp, stamp + 1)
        head = struct.pack(">BBHHHBBH", 0x45, 0, 52, 7, 0, 64, 6, 0) + bytes(8)
        return 1, head + segment + options, 52

    before = talk([stamped(100), stamped(130)])
    old, new = (whole(store)[0, :2].astype(np.int64) for store in (before, shifted_fields(before, draw())))

    def field(packet, at, size=4):
        return int.from_bytes(bytes(packet[at : at + size].astype(np.uint8)), "big")

    for at, size in ((1, 1), (8, 1), (4, 2), (24, 4), (28, 4), (34, 2), (44, 4), (48, 4)):
        shifts = {(field(n, at, size) - field(o, at, size)) % (1 << 8 * size) for o, n in zip(old, new, strict=True)}
        assert len(shifts) == 1 and shifts != {0}, at
    assert field(new[1], 44) - field(new[0], 44) == 30
    assert (field(new[0], 24) - field(new[0], 28)) % 2**32 == 0xFFFFFFFF - 9  # both shifted alike
    moved = {1, 4, 5, 8, 10, 11, *range(24, 32), *range(34, 38), *range(44, 52)}
    assert set(np.flatnonzero((old != new).any(axis=0))) <= moved
    six = talk([(1, ipv6(("::1", 5), ("::2", 6)), 48)])
    old, new = whole(six)[0, 0], whole(shifted_fields(six, draw()))[0, 0]
    assert new[0] >> 4 == 6 and new[1] & 0x0F == old[1] & 0x0F and (new[2:4] == old[2:4]).all() and new[7] != old[7]


def test_a_name_is_masked_and_nothing_else(talk):
    record, at = hello()
    before = talk([tcp(1, record), tcp(-1, record[::-1])], [tcp(1, b"GET / HTTP/1.1")])
    old, new = (view(store).payload(2, 150) for store in (before, masked_names(before, draw())))
    assert np.flatnonzero(old[0, 0] != new[0, 0]).tolist() == list(range(at, at + 16))
    assert not new[0, 0, at : at + 16].any() and (old[0, 1] == new[0, 1]).all() and (old[1] == new[1]).all()
    assert (view(before).lengths(2) == view(masked_names(before, draw())).lengths(2)).all()


def test_a_name_is_masked_where_a_hello_goes_over_packets(talk):
    record, at = hello()
    cut = at + 5  # in the name
    before = talk([tcp(1, record[:cut]), tcp(-1), tcp(1, record[cut:] + b"more")])
    new = view(masked_names(before, draw())).payload_stream(300)[0]
    expected = bytearray(record + b"more")
    expected[at : at + 16] = bytes(16)
    assert bytes(new[: len(expected)]) == bytes(expected)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_whatever_is_no_hello_is_read_within_its_bytes(data):
    record = bytearray(hello(extra=9)[0])
    for _ in range(data.draw(st.integers(0, 6))):
        record[data.draw(st.integers(0, len(record) - 1))] = data.draw(st.integers(0, 255))
    record = record[: data.draw(st.integers(0, len(record)))]
    for begin, end in server_names(np.frombuffer(bytes(record), np.uint8)):
        assert 0 <= begin <= len(record) and end <= len(record)


def test_padding_lengthens_packets_with_payload_and_what_headers_say(talk):
    datagram = ipv4(payload=b"quic!", protocol=17)
    before = talk([tcp(1, b"x" * 50), tcp(-1)], [(1, datagram, 28)], [tcp(1, b"y" * 1400)])
    after = padded_to(before, draw(), 128)
    assert view(after).lengths(2).tolist() == [[128, 40], [128, 0], [1500, 0]]  # 90, without payload, 33, 1440
    assert view(after).payload_lengths(2).tolist() == [[88, 0], [100, 0], [1460, 0]]
    new = whole(after)
    assert new[0, 0, 2:4].tolist() == [0, 128] and new[0, 1, 2:4].tolist() == [0, 40]
    assert new[1, 0, 2:4].tolist() == [0, 128] and new[1, 0, 24:26].tolist() == [0, 108]
    payload = view(after).payload(1, 100)[:, 0]
    assert bytes(payload[0, :50]) == b"x" * 50 and len(set(payload[0, 50:88])) > 20  # random, as ciphertext is
    assert bytes(payload[1, :5]) == b"quic!" and payload[1, 5:].any()
    assert (whole(after) == new).all()


def test_random_padding_stays_in_its_bounds(talk):
    before = talk(*[[tcp(1, b"x" * 60)]] * 200, [tcp(1, b"x" * 1400)])
    lengths = view(randomly_padded(before, draw())).lengths(1)[:, 0]
    assert lengths[:-1].min() < 120 and 340 < lengths[:-1].max() <= 355 and lengths[-1] <= 1500


def test_a_packet_that_was_cut_gets_longer_without_bytes(talk):
    before = talk([tcp(1, b"x" * 50)], held=60)
    after = padded_to(before, draw(), 128)
    assert view(after).lengths(1).tolist() == [[128]]
    assert not view(after).payload(1, 100)[0, 0, 20:].any()


def test_lost_packets_are_gone_and_the_others_stay_in_order(talk):
    before = talk(*[[tcp(1, bytes([1 + number])) for number in range(100)]] * 30, [tcp(1, b"!")])
    after = lossy(before, draw(), 0.1)
    counts = view(after).counts()
    assert 85 < counts[:-1].mean() < 95 and len(set(counts[:-1])) > 3
    left = view(after).payload(100, 1)[0, :, 0]
    assert (np.diff(left[: counts[0]].astype(int)) > 0).all() and not left[counts[0] :].any()
    times = view(after).times(100)[0, : counts[0]]
    np.testing.assert_allclose(times, left[: counts[0]].astype(float) - left[0])  # a second a packet, from the first


def test_of_a_sample_the_first_packet_is_left(talk):
    after = lossy(talk([tcp(1, b"a"), tcp(1, b"b")], [tcp(1, b"c")]), draw(), 1.0)
    assert view(after).payload(2, 1)[:, :, 0].tolist() == [[ord("a"), 0], [ord("c"), 0]]


def test_windows_of_one_session_change_alike(make_store):
    made = make_traffic(draw(3), 4)
    store = make_store(*made[:3])
    sampled = SampledStore.of(store, Samples(np.array([1, 0, 1]), np.array([0, 0, 1]), np.array([1, 1, 1])))
    ports = view(random_ports(sampled, draw())).ports()
    assert (ports[0] == ports[2]).all() and (ports[0] != ports[1]).any()


def test_a_multiple_that_pads_nothing_is_refused():
    for wrong in (1, 0, 1501):
        with refused("bad-options", f"--pad {wrong}"):
            changes(wrong)
    assert {read for one in changes() for read in one.touches} <= set(READS)
