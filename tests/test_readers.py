"""Readers against an obvious reference: one Python loop per packet over random traffic."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import readers
from bench.errors import InputError
from bench.readers import MASKS, READS, Ragged, UndeclaredRead, View
from bench.schema import Samples

QUIET = settings(max_examples=40, deadline=None)
TCP, UDP = 6, 17


def make_packet(rng, version, protocol, payload):
    """An IP packet, its payload's offset, and the fields that masks hide as {name: [(begin, end)]}."""
    fields = {"addresses": [], "checksums": []}
    if version == 4:
        options = rng.bytes(4 * int(rng.integers(0, 11)))
        header = bytearray(rng.bytes(20)) + options
        header[0] = 0x40 | len(header) // 4
        kinds = [51] * int(rng.choice([0, 0, 1, 2]))  # AH is all that may stand between IPv4 and TCP or UDP
        header[9] = [*kinds, protocol][0]
        fields["addresses"], fields["checksums"] = [(12, 20)], [(10, 12)]
    else:
        kinds = [int(k) for k in rng.choice([0, 43, 44, 51, 60], int(rng.integers(0, 4)))]
        header = bytearray(b"\x60" + rng.bytes(39))
        header[6] = [*kinds, protocol][0]
        header[1] &= 0xF0  # a flow label is bytes 2 and 3, and the lower half of byte 1, which is 0 here
        fields["addresses"] = [(2, 4), (8, 40)]
    for kind, following in pairwise([*kinds, protocol]):
        words = int(rng.integers(1, 4))
        size = {44: 8, 51: (words + 2) * 4}.get(kind, (words + 1) * 8)
        extension = bytearray(rng.bytes(size))
        extension[0] = following
        if kind == 44:  # a first fragment; of later ones the ingest makes no packet
            extension[2:4] = bytes(2)
        else:
            extension[1] = words
        header += extension
    at = len(header)
    fields["ports"] = [(at, at + 4)]
    if protocol == TCP:
        transport = bytearray(rng.bytes(20 + 4 * int(rng.integers(0, 11))))
        transport[12] = len(transport) // 4 << 4
        fields["checksums"] = [*fields["checksums"], (at + 16, at + 18)]
    else:
        transport = bytearray(rng.bytes(8))
        fields["checksums"] = [*fields["checksums"], (at + 6, at + 8)]
    return bytes(header + transport + payload), at + len(transport), fields


def make_traffic(rng, sessions, captures=3):
    """Columns of sessions and packets, captures, and for each packet row (bytes, fields)."""
    data = [bytearray(rng.bytes(24)) for _ in range(captures)]
    columns = {
        c: [] for c in ("time", "record", "length", "payload_length", "captured", "ip", "payload", "direction", "flags")
    }
    of_session = {c: [] for c in ("capture", "protocol", "client_port", "server_port", "packets", "first_packet")}
    packets = []
    for _ in range(sessions):
        capture, version, protocol = int(rng.integers(captures)), int(rng.choice([4, 6])), int(rng.choice([TCP, UDP]))
        size, time = int(rng.integers(1, 12)), 1_700_000_000_000_000_000 + int(rng.integers(10**9))
        for name, value in zip(
            of_session, (capture, protocol, *rng.integers(0, 65536, 2), size, len(packets)), strict=True
        ):
            of_session[name].append(value)
        for _ in range(size):
            payload = rng.bytes(int(rng.integers(0, 40))) if rng.random() < 0.6 else b""
            ip, offset, fields = make_packet(rng, version, protocol, payload)
            if protocol == UDP and rng.random() < 0.3:
                ip += rng.bytes(5)  # the IP packet is longer than its UDP datagram
            held = ip[: int(rng.integers(0, len(ip) + 1))] if rng.random() < 0.3 else ip  # snap length
            before = rng.bytes(16 + int(rng.integers(0, 30)))  # record header and link layer
            row = (time, len(data[capture]), len(ip), len(payload), len(held), len(before), offset)
            row += (int(rng.choice([-1, 1])), int(rng.integers(256)))
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
            data[capture] += before + held
            packets.append((held, fields))
            time += int(rng.integers(0, 3)) * int(rng.integers(10**9))
    return of_session, columns, data, packets


def make_windows(rng, of_session, samples):
    session = rng.integers(0, len(of_session["packets"]), samples)
    return Samples(session, rng.integers(0, 6, samples), rng.integers(0, 12, samples), int(rng.choice([1, 1, 2, 3])))


def window_rows(of_session, columns, samples, s, payload_only):
    """Packet rows that a sample keeps."""
    session = samples.session[s]
    first = of_session["first_packet"][session] + samples.first[s]
    end = of_session["first_packet"][session] + of_session["packets"][session]
    end = min(first + samples.count[s] * samples.stride, end)
    return [row for row in range(first, end, samples.stride) if not payload_only or columns["payload_length"][row]]


def padded(rows, packets, value, width=()):
    out = np.zeros((len(rows), packets, *width))
    for s, of_sample in enumerate(rows):
        for p, row in enumerate(of_sample[:packets]):
            cell = value(row, of_sample[0])
            out[(s, p, slice(len(cell))) if width else (s, p)] = list(cell) if width else cell
    return out


def hidden(packet, mask):
    held, fields = packet
    out = bytearray(held)
    for name in mask:
        for begin, end in fields[name]:
            out[begin:end] = bytes(len(out[begin:end]))
    return out


@pytest.fixture(scope="session")
def traffic(make_store):
    def make(seed, sessions=12, samples=25):
        rng = np.random.default_rng(seed)
        made = make_traffic(rng, sessions)
        return make_store(*made[:3]), make_windows(rng, made[0], samples), made

    return make


seeds = st.integers(0, 2**32)


@QUIET
@given(seed=seeds, packets=st.integers(1, 12), payload_only=st.booleans())
def test_series(traffic, seed, packets, payload_only):
    store, samples, (of_session, columns, _, _) = traffic(seed)
    view = View(store, samples, frozenset(READS))
    rows = [window_rows(of_session, columns, samples, s, payload_only) for s in range(len(samples))]
    for name, column, dtype in [
        ("lengths", "length", "int32"),
        ("payload_lengths", "payload_length", "int32"),
        ("directions", "direction", "int8"),
        ("flags", "flags", "uint8"),
        ("times", "time", "float64"),
    ]:

        def value(row, first, column=column):
            at = columns[column]
            return (at[row] - at[first]) / 1e9 if column == "time" else at[row]

        got = getattr(view, name)(packets, payload_only=payload_only)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, padded(rows, packets, value), rtol=1e-12)
        ragged = view.ragged(name, payload_only=payload_only)
        values, offsets = ragged.values, ragged.offsets
        few = view.ragged(name, packets=packets, payload_only=payload_only)
        np.testing.assert_array_equal(few.sizes, [min(packets, len(of)) for of in rows])
        np.testing.assert_array_equal(few.values, got[np.arange(packets) < few.sizes[:, None]])
        assert values.dtype == dtype and offsets.dtype == "int64"
        np.testing.assert_allclose(values, [value(row, of[0]) for of in rows for row in of], rtol=1e-12)
        np.testing.assert_array_equal(offsets, np.cumsum([0, *map(len, rows)]))
    counts = view.counts(payload_only=payload_only)
    assert counts.dtype == "int32" and counts.tolist() == [len(of) for of in rows]


@QUIET
@given(seed=seeds, packets=st.integers(1, 12), width=st.integers(1, 50))
def test_payload(traffic, seed, packets, width):
    store, samples, (of_session, columns, _, held) = traffic(seed)
    rows = [window_rows(of_session, columns, samples, s, True) for s in range(len(samples))]

    def value(row, _):
        begin = columns["payload"][row]
        return held[row][0][begin : begin + min(width, columns["payload_length"][row])]

    got = View(store, samples, {"payload"}).payload(packets, width)
    assert got.dtype == np.uint8
    expected = padded(rows, packets, value, (width,))
    np.testing.assert_array_equal(got, expected)


@QUIET
@given(
    seed=seeds,
    packets=st.integers(1, 12),
    width=st.integers(1, 160),
    mask=st.sets(st.sampled_from(MASKS)),
    payload_only=st.booleans(),
)
def test_ip_bytes(traffic, seed, packets, width, mask, payload_only):
    store, samples, (of_session, columns, _, held) = traffic(seed)
    rows = [window_rows(of_session, columns, samples, s, payload_only) for s in range(len(samples))]
    view = View(store, samples, {"ip_bytes"} | (set(MASKS) - mask))
    got = view.ip_bytes(packets, width, mask=mask, payload_only=payload_only)
    expected = padded(rows, packets, lambda row, _: hidden(held[row], mask)[:width], (width,))
    np.testing.assert_array_equal(got, expected)
    assert view.used == view.reads


@QUIET
@given(
    seed=seeds,
    size=st.integers(1, 300),
    packets=st.none() | st.integers(1, 12),
    mask=st.sets(st.sampled_from(MASKS)),
)
def test_streams_are_the_packets_one_after_the_other(traffic, seed, size, packets, mask):
    store, samples, (of_session, columns, _, held) = traffic(seed)
    view = View(store, samples, {"payload", "ip_bytes"} | (set(MASKS) - mask))
    payload, whole = view.payload_stream(size, packets), view.ip_stream(size, packets, mask=mask)
    assert view.used == view.reads

    def payload_of(row):
        begin = columns["payload"][row]
        return held[row][0][begin : begin + columns["payload_length"][row]]

    for s in range(len(samples)):
        for got, payload_only, content in (
            (payload, True, payload_of),
            (whole, False, lambda row: hidden(held[row], mask)),
        ):
            rows = window_rows(of_session, columns, samples, s, payload_only)[: min(packets or size, size)]
            expected = b"".join(bytes(content(row)) for row in rows)[:size]
            assert got[s].tobytes() == expected.ljust(size, b"\0")


@QUIET
@given(seed=seeds)
def test_masked_bytes_do_not_tell_what_they_hide(traffic, make_store, seed):
    """Other addresses, ports and checksums in the captures, the same arrays."""
    store, samples, (of_session, columns, data, held) = traffic(seed)
    changed, rng = [bytearray(d) for d in data], np.random.default_rng(seed + 1)
    for s, capture in enumerate(of_session["capture"]):
        begin = of_session["first_packet"][s]
        for row in range(begin, begin + of_session["packets"][s]):
            at = columns["record"][row] + columns["ip"][row]
            for a, b in (field for fields in held[row][1].values() for field in fields):
                b = min(b, columns["captured"][row])
                changed[capture][at + a : at + b] = rng.bytes(max(b - a, 0))
    other = make_store(of_session, columns, changed)
    one, two = (View(s, samples, frozenset(READS)) for s in (store, other))
    np.testing.assert_array_equal(one.ip_bytes(12, 150), two.ip_bytes(12, 150))
    np.testing.assert_array_equal(one.payload(12, 50), two.payload(12, 50))
    if one.counts().any():
        assert (one.ip_bytes(12, 150, mask=()) != two.ip_bytes(12, 150, mask=())).any()


@QUIET
@given(seed=seeds, payload_only=st.booleans())
def test_rows_depend_on_their_own_sample(traffic, seed, payload_only):
    store, samples, _ = traffic(seed)
    chosen = np.random.default_rng(seed).integers(0, len(samples), 9)
    all_, few = View(store, samples, frozenset(READS)), View(store, samples.take(chosen), frozenset(READS))
    for read in (
        lambda v: v.payload(4, 20),
        lambda v: v.ip_bytes(4, 60, payload_only=payload_only),
        lambda v: v.times(4, payload_only=payload_only),
        lambda v: v.lengths(4, payload_only=payload_only),
        lambda v: v.ports(),
        lambda v: v.protocol(),
    ):
        np.testing.assert_array_equal(read(all_)[chosen], read(few))


def test_bytes_that_were_not_captured_are_told_from_zeros(traffic):
    store, samples, _ = traffic(2)
    view = View(store, samples, {"ip_bytes"})
    captured = view.captured_lengths(9)
    assert captured.dtype == np.int32 and captured.shape == (len(samples), 9)
    assert (captured < View(store, samples, {"lengths"}).lengths(9)).any()  # some are cut
    behind = np.arange(100) >= captured[..., None]
    assert not view.ip_bytes(9, 100)[behind].any()
    with pytest.raises(UndeclaredRead):
        View(store, samples, {"lengths"}).captured_lengths(1)


def test_capture_that_ends_early(make_store, traffic):
    """Index entries beyond the end of a capture read as zeros and nothing else."""
    _, samples, (of_session, columns, data, _) = traffic(1)
    whole = View(make_store(of_session, columns, data), samples, frozenset(READS))
    cut = View(make_store(of_session, columns, [d[: len(d) // 2] for d in data]), samples, frozenset(READS))
    for read in (lambda v: v.payload(9, 40), lambda v: v.ip_bytes(9, 100)):
        a, b = read(whole), read(cut)
        assert (b != 0).any() and (b != a).any()
        assert ((b == a) | (b == 0)).all()


def test_lengths_never_turn_negative(make_store):
    wire = [0, 1500, 2**31 - 1, 2**31, 2**32 - 1]
    store = make_store({"packets": [5], "first_packet": [0]}, {"length": wire, "payload_length": wire})
    view = View(store, Samples(np.array([0]), np.array([0]), np.array([5])), {"lengths", "payload_lengths"})
    held = [0, 1500, 2**31 - 1, 2**31 - 1, 2**31 - 1]
    assert view.lengths(6).tolist() == [[*held, 0]] and view.ragged("lengths").values.tolist() == held
    assert view.payload_lengths(5, payload_only=False).tolist() == [held]
    assert store.packet("length").tolist() == wire


def test_session_columns(traffic):
    store, samples, (of_session, _, _, _) = traffic(3)
    view = View(store, samples, {"ports", "protocol"})
    assert view.ports().dtype == np.int32 and view.protocol().dtype == np.uint8
    expected = [[of_session["client_port"][s], of_session["server_port"][s]] for s in samples.session]
    assert view.ports().tolist() == expected
    assert view.protocol().tolist() == [of_session["protocol"][s] for s in samples.session]


CALLS = {
    "payload": lambda v: v.payload(2, 3),
    "payload_lengths": lambda v: v.payload_lengths(2),
    "lengths": lambda v: v.lengths(2),
    "directions": lambda v: v.directions(2),
    "times": lambda v: v.times(2),
    "flags": lambda v: v.flags(2),
    "ip_bytes": lambda v: v.ip_bytes(2, 3),
    "ports": lambda v: v.ports(),
    "protocol": lambda v: v.protocol(),
    "addresses": lambda v: v.ip_bytes(2, 3, mask=("ports", "checksums")),
    "checksums": lambda v: v.ip_bytes(2, 3, mask=("ports", "addresses")),
}


@pytest.mark.parametrize("name", READS)
def test_undeclared_reads_are_refused(traffic, name):
    store, samples, _ = traffic(0)
    needed = {"ip_bytes", name} if name in ("addresses", "checksums") else {name}
    view = View(store, samples, needed)
    assert view.used == set()
    CALLS[name](view)
    assert view.used == needed
    refusing = View(store, samples, set(READS) - {name})
    with pytest.raises(UndeclaredRead, match=repr(name)) as caught:
        CALLS[name](refusing)
    assert not isinstance(caught.value, InputError) and not refusing.used
    if name in ("lengths", "payload_lengths", "directions", "times", "flags"):
        with pytest.raises(UndeclaredRead, match=repr(name)):
            refusing.ragged(name)
        view.ragged(name)


def test_a_flow_label_is_hidden_with_the_addresses(make_store):
    packet = bytes([0x61, 0x23, 0x45, 0x67, 0, 0, TCP]) + bytes(33) + bytes(20)
    columns = {"record": [0], "ip": [0], "captured": [60], "length": [60], "payload": [60], "payload_length": [0]}
    store = make_store({"packets": [1], "first_packet": [0], "protocol": [TCP]}, columns, [packet])
    view = View(store, Samples(np.array([0]), np.array([0]), np.array([1])), frozenset(READS))
    assert view.ip_bytes(1, 7)[0, 0].tolist() == [0x61, 0x20, 0, 0, 0, 0, TCP]
    assert view.ip_bytes(1, 7, mask=())[0, 0].tolist() == list(packet[:7])


def test_ports_in_ip_bytes_need_their_declaration(traffic):
    store, samples, _ = traffic(0)
    with pytest.raises(UndeclaredRead, match="'ports'"):
        View(store, samples, {"ip_bytes"}).ip_bytes(2, 30, mask=("addresses", "checksums"))


def test_counts_need_no_declaration(traffic):
    store, samples, _ = traffic(0)
    view = View(store, samples, ())
    assert view.counts().shape == view.counts(payload_only=True).shape == (len(samples),)
    assert view.used == set()


def test_ragged_rows_are_picked_as_those_of_an_array():
    ragged = Ragged(np.arange(12).reshape(6, 2), np.array([0, 2, 2, 5, 6]))
    assert len(ragged) == 4 and ragged.sizes.tolist() == [2, 0, 3, 1] and ragged.rows.tolist() == [0, 0, 2, 2, 2, 3]
    picked = ragged[np.array([3, 1, 2, 3])]
    assert picked.values[:, 0].tolist() == [10, 4, 6, 8, 10] and picked.offsets.tolist() == [0, 1, 1, 4, 5]
    assert ragged[np.array([False, True, True, False])].values[:, 1].tolist() == [5, 7, 9]
    assert len(ragged[:0]) == 0 and ragged[::-1].offsets.tolist() == [0, 1, 4, 4, 6]


def test_no_samples(traffic):
    store, samples, _ = traffic(0)
    view = View(store, samples.take(np.arange(0)), frozenset(READS))
    assert len(view) == 0
    assert view.payload(3, 4).shape == view.ip_bytes(3, 4).shape == (0, 3, 4)
    assert view.lengths(3).shape == view.times(3, payload_only=True).shape == (0, 3)
    assert view.ports().shape == (0, 2) and view.protocol().shape == view.counts(payload_only=True).shape == (0,)
    assert view.ragged("times").values.shape == (0,) and view.ragged("times").offsets.tolist() == [0]
    assert view.payload_stream(7).shape == view.ip_stream(7, 2).shape == (0, 7)


def test_a_view_has_readers_and_what_was_read_alone(traffic):
    store, samples, _ = traffic(0)
    view = View(store, samples, frozenset(READS))
    assert {name for name in dir(view) if not name.startswith("_")} == {
        *("payload", "payload_lengths", "lengths", "directions", "times", "flags", "ip_bytes"),
        *("payload_stream", "ip_stream", "captured_lengths"),
        *("ports", "protocol", "ragged", "counts", "reads", "used", "packets_read"),
    }
    assert vars(view) == {}


def test_errors_of_methods(traffic):
    store, samples, _ = traffic(0)
    view = View(store, samples, frozenset(READS))
    for error, call in [
        (InputError, lambda: view.payload(0, 10)),
        (InputError, lambda: view.payload(10, 0)),
        (InputError, lambda: view.ip_bytes(10, -1)),
        (InputError, lambda: view.lengths(-3)),
        (ValueError, lambda: view.ip_bytes(1, 1, mask=("port",))),
        (ValueError, lambda: view.ragged("payload")),
        (ValueError, lambda: View(store, samples, {"labels"})),
        (IndexError, lambda: View(store, Samples(np.array([12]), np.array([0]), np.array([1])), ())),
        (IndexError, lambda: View(store, Samples(np.array([-1]), np.array([0]), np.array([1])), ())),
        (IndexError, lambda: View(store, Samples(np.array([0]), np.array([-1]), np.array([1])), ())),
    ]:
        with pytest.raises(error):
            call()


def test_large_arrays_spill(traffic, monkeypatch, tmp_path):
    store, samples, _ = traffic(5)
    view = View(store, samples, frozenset(READS))
    reads = (lambda: view.payload(9, 40), lambda: view.ip_bytes(9, 40), lambda: view.times(9))
    held = [read() for read in reads]
    monkeypatch.setattr(readers, "SPILL_BYTES", 100)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for array, read in zip(held, reads, strict=True):
        spilled = read()
        assert isinstance(spilled, np.memmap) or isinstance(spilled.base, np.memmap)
        np.testing.assert_array_equal(spilled, array)
        assert spilled.any() and spilled.flags.writeable
    assert not list(tmp_path.iterdir())


def test_scapy_agrees_on_masked_fields(make_store):
    """Packets of an independent writer: IPv4 options, IPv6 extension headers, TCP options."""
    from scapy.layers.inet import IP, TCP, UDP, IPOption_RR
    from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting

    tcp = [("MSS", 1460), ("Timestamp", (1, 2))]

    def build(address, ports, checksum):
        four = {"src": f"10.0.0.{address}", "dst": f"10.1.0.{address}", "id": 7}
        six = {"src": f"fd00::{address}", "dst": f"fd01::{address}"}
        ends = {"sport": ports, "dport": ports + 1, "chksum": checksum}
        extended = IPv6(**six) / IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting() / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment()
        return [
            bytes(packet)
            for packet in (
                IP(**four, chksum=checksum) / TCP(**ends, options=tcp) / b"payload",
                IP(**four, chksum=checksum, options=[IPOption_RR()]) / UDP(**ends) / b"payload",
                IPv6(**six) / UDP(**ends) / b"payload",
                extended / TCP(**ends, options=tcp) / b"payload",
            )
        ]

    def view(packets):
        size = [len(p) for p in packets]
        columns = {"captured": size, "length": size, "record": [0] * 4, "payload": [n - 7 for n in size]}
        sessions = {"capture": range(4), "first_packet": range(4), "protocol": [6, 17, 17, 6]}
        samples = Samples(np.arange(4), np.zeros(4, int), np.ones(4, int))
        return View(make_store(sessions, columns | {"payload_length": [7] * 4}, packets), samples, frozenset(READS))

    one, two = view(build(1, 1000, 0x1111)), view(build(2, 2000, 0x2222))
    np.testing.assert_array_equal(one.ip_bytes(1, 150), two.ip_bytes(1, 150))
    for shown in MASKS:
        mask = set(MASKS) - {shown}
        assert (one.ip_bytes(1, 150, mask=mask) != two.ip_bytes(1, 150, mask=mask)).any(axis=(1, 2)).all()
    assert bytes(one.payload(1, 7)[3, 0]) == b"payload"
    # nothing but the fields is hidden
    bare = one.ip_bytes(1, 150, mask=())
    changed = (bare != one.ip_bytes(1, 150)).sum(axis=(1, 2))
    assert (changed <= [8 + 4 + 4, 8 + 4 + 4, 32 + 4 + 2, 32 + 4 + 2]).all()
