"""A session is no connection: what a split tells of halves that it parted."""

import json
import shutil
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_captures import packet, pcap
from split_tables import QUIET, split_of

from bench.data.names import find_card
from bench.data.prepare import prepare_dataset
from bench.data.store import Store
from bench.schema import MARK_COPY, MARK_KEEPALIVE, MARK_RETRANSMISSION, Samples
from bench.splits.connections import (
    LEAST_BYTES,
    LEAST_PACKETS,
    LONGEST_ID,
    NEAR,
    PACKETS,
    SHORTEST_BARE,
    SHORTEST_ID,
    WITHIN,
    torn,
)

UDP, TCP = 17, 6
HOST, OUTSIDE, SERVER = b"\x0a\0\0\1", b"\xc6\x33\x64\7", b"\x5d\xb8\xd8\x22"
ONE, TWO = b"connection-id-1", b"connection-id-2"
NONE = {"quic_ids": 0, "equal_payloads": 0, "quic_continued": 0}


def long(destination=b"", source=b"", version=1, first=0xC3):
    """A packet with QUIC's long header."""
    ids = bytes([len(destination)]) + destination + bytes([len(source)]) + source
    return bytes([first]) + version.to_bytes(4) + ids + bytes(30)


def short(destination):
    """A packet with QUIC's short header."""
    return b"\x41" + destination + b"encrypted"


@dataclass
class Talk:
    """A session: its end points, its times in seconds, and the payload of its packets."""

    packets: list
    client: tuple = (HOST, 40000)
    server: tuple = (SERVER, 443)
    start: float = 0.0
    end: float = 1.0
    protocol: int = UDP
    capture: int = 0
    marks: list = field(default_factory=list)  # of the packets; none by default
    held: int = 65535  # bytes of a packet that are captured


def store_of(make_store, talks):
    """A store of talks; equal 5-tuples are one conversation."""
    captures, packets = {}, {name: [] for name in ("record", "payload_length", "captured", "marks", "ip", "payload")}
    for talk in talks:
        data = captures.setdefault(talk.capture, bytearray(b"head of the file"))
        for i, payload in enumerate(talk.packets):
            packets["record"].append(len(data))
            packets["payload_length"].append(len(payload))
            packets["captured"].append(28 + min(len(payload), talk.held))
            packets["marks"].append((talk.marks or [0] * len(talk.packets))[i])
            data += b"record" + bytes(28) + payload[: talk.held]
    size = len(packets["record"])
    lengths = np.array([len(talk.packets) for talk in talks])
    tuples = [(talk.client, talk.server, talk.protocol) for talk in talks]
    sessions = {
        "conversation": [tuples.index(one) for one in tuples],
        "capture": [talk.capture for talk in talks],
        "packets": lengths,
        "first_packet": np.cumsum(lengths) - lengths,
        "payload_packets": [sum(map(bool, talk.packets)) for talk in talks],
        "protocol": [talk.protocol for talk in talks],
        "ip_version": [4] * len(talks),
        "start": [int(talk.start * 1e9) for talk in talks],
        "duration": [int((talk.end - talk.start) * 1e9) for talk in talks],
    }
    for end in ("client", "server"):
        sessions |= {
            f"{end}_{what}": [getattr(talk, end)[i] for talk in talks] for i, what in enumerate(("ip", "port"))
        }
    packets |= {"ip": [6] * size, "payload": [28] * size}
    names = [bytes(captures.get(number, b"")) for number in range(max(captures, default=-1) + 1)]
    return make_store(sessions, packets, names)


def whole(rows):
    """Sessions as samples."""
    rows = np.array(rows, np.int64)
    return Samples(rows, np.zeros_like(rows), np.ones_like(rows))


@pytest.fixture
def parted(make_store):
    """What is told where one talk is trained on and the others are tested, and the other way round, which is equal."""

    def told(one, *others):
        store = store_of(make_store, [one, *others])
        rows = [np.array([0]), np.arange(1, 1 + len(others))]
        found = [torn(store, {"train": whole(rows[i]), "test": whole(rows[1 - i])}) for i in range(2)]
        assert {kind: min(number, 1) for kind, number in found[0].items()} == found[1]
        return found[0]

    return told


# --- connection IDs -------------------------------------------------------------------------------------------

MOVED = (OUTSIDE, 61000)  # where the other half of a connection comes from


@pytest.mark.parametrize(
    ("packets", "seen"),
    [
        ([long(ONE)], True),  # the client's first packet, as the other side of a NAT has it
        ([long(TWO, ONE)], True),  # as a source
        ([b"something else", long(TWO), long(b"", ONE)], True),  # not in the first packet
        ([short(ONE)], True),  # after the handshake: a NAT that binds anew
        ([short(ONE[:-1])], False),
        ([long(ONE[:-1])], False),  # an ID is equal as a whole
        ([long(ONE + b"\0")], False),
        ([long(TWO)], False),
        ([long(ONE, version=0)], False),  # negotiates a version
        ([long(ONE, version=0x6B3343CF)], True),
        ([long(ONE, version=0xFF00001D)], True),
        ([long(ONE, version=0x1A2A3A4A)], True),  # of the numbers that are kept free for asking
        ([long(ONE, version=0x51303436)], False),  # Google's Q046 writes lengths otherwise
        ([long(ONE, version=0x33010000)], False),  # a question to a name server
        ([long(ONE, first=0x83)], False),
        ([b"\x43" + long(ONE)[1:]], False),
        ([long(ONE)[:10]], False),  # cut within the ID
        ([b"\xc3\0\0\0\1" + bytes([15]) + ONE + bytes([21]) + bytes(60)], False),  # no ID has 21 bytes
        ([bytes(5)] * PACKETS + [long(ONE)], False),  # beyond what is looked at
        ([bytes(5)] * (PACKETS - 1) + [long(ONE)], True),
        ([b""] * WITHIN + [long(ONE)], False),
        ([b""] * (WITHIN - 1) + [long(ONE)], True),
    ],
)
def test_connection_ids_are_found_at_other_ports(parted, packets, seen):
    found = parted(Talk([long(ONE, b"server's")]), Talk(packets, client=MOVED, start=100, end=101))
    assert found == NONE | {"quic_ids": int(seen)}


def test_ids_of_the_same_5_tuple_or_of_tcp_are_none(parted):
    assert parted(Talk([long(ONE)]), Talk([long(ONE)], start=100, capture=1)) == NONE
    assert parted(Talk([long(ONE)]), Talk([long(ONE)], client=MOVED, protocol=TCP)) == NONE


@pytest.mark.parametrize("length", [0, 1, SHORTEST_ID - 1, SHORTEST_ID, SHORTEST_BARE - 1, SHORTEST_BARE, LONGEST_ID])
def test_ids_that_chance_makes_equal_do_not_count(parted, length):
    name = bytes(range(1, length + 1))
    again = parted(Talk([long(name)]), Talk([long(name)], client=MOVED, start=100))
    assert again["quic_ids"] == (length >= SHORTEST_ID)
    bare = parted(Talk([long(name)]), Talk([short(name)], client=MOVED, start=100))
    assert bare["quic_ids"] == (length >= SHORTEST_BARE)


def test_what_was_not_captured_of_an_id_is_not_taken_for_zeros(parted):
    name = b"begins" + bytes(4)
    for packet_, at in ((long(name), 6), (short(name), 1)):
        assert parted(Talk([long(name)]), Talk([packet_], client=MOVED, start=100))["quic_ids"] == 1
        for held in (at + 6, at + 9):
            cut = Talk([packet_], client=MOVED, start=100, held=held)
            assert parted(Talk([long(name)]), cut)["quic_ids"] == 0


def test_what_goes_to_all_is_no_connection(parted):
    everybody = (b"\xe0\0\0\xfb", 443)
    assert parted(Talk([long(ONE)]), Talk([long(ONE)], client=MOVED, server=everybody)) == NONE


def test_samples_count_not_sessions(make_store):
    store = store_of(make_store, [Talk([long(ONE)] * 3), Talk([long(ONE)] * 3, client=MOVED)])
    windows = Samples(np.array([1, 1, 1]), np.arange(3), np.ones(3, np.int64))
    assert torn(store, {"train": whole([0]), "test": windows})["quic_ids"] == 3


# --- equal payload --------------------------------------------------------------------------------------------

WORDS = [b"a" * 100, b"b" * 200, b"c" * 12, b"d" * 200]  # just enough


def behind_a_nat(packets, **more):
    return Talk(packets, client=MOVED, protocol=TCP, start=100, end=101, **more)


@pytest.mark.parametrize(
    ("packets", "equal"),
    [
        (WORDS, True),
        ([b"", WORDS[0], b"", b"", *WORDS[1:]], True),  # packets without payload are none
        ([*WORDS, b"more"], False),
        ([*WORDS[:3], b"d" * 201], False),
        ([*WORDS[:3], b"d" * 100 + b"e" + b"d" * 99], False),  # within
        ([*WORDS[:3], b"d" * 199 + b"e"], False),
        ([WORDS[1], WORDS[0], *WORDS[2:]], False),  # in another order
    ],
)
def test_equal_payload_is_found_at_other_addresses(parted, packets, equal):
    found = parted(Talk(WORDS, protocol=TCP), behind_a_nat(packets))
    assert found == NONE | {"equal_payloads": int(equal)}


def test_equal_payload_may_be_of_several_and_of_another_capture(parted):
    elsewhere = [Talk(WORDS, client=(OUTSIDE, port), protocol=TCP, capture=1) for port in (1, 2)]
    assert parted(Talk(WORDS, protocol=TCP), behind_a_nat(WORDS), *elsewhere)["equal_payloads"] == 3


def test_little_payload_and_the_same_5_tuple_are_no_halves(parted):
    assert len(WORDS) == LEAST_PACKETS and sum(map(len, WORDS)) == LEAST_BYTES
    for few in ([b"x" * LEAST_BYTES] * (LEAST_PACKETS - 1), [*WORDS[:3], WORDS[3][1:]]):
        assert parted(Talk(few, protocol=TCP), behind_a_nat(few)) == NONE
    assert parted(Talk(WORDS, protocol=TCP), Talk(WORDS, protocol=TCP, start=100, capture=1)) == NONE


def test_payload_that_was_not_captured_is_not_compared(parted):
    assert parted(Talk(WORDS, protocol=TCP, held=64), behind_a_nat(WORDS, held=64)) == NONE
    long_ones = [bytes([i]) * 200 for i in range(6)]
    other_ends = [payload[:100] + b"x" * 100 for payload in long_ones]
    for held, equal in ((100, 1), (101, 0)):
        found = parted(Talk(long_ones, protocol=TCP, held=held), behind_a_nat(other_ends, held=held))
        assert found["equal_payloads"] == equal


@pytest.mark.parametrize("mark", [MARK_COPY, MARK_RETRANSMISSION, MARK_KEEPALIVE, MARK_COPY | 128])
def test_what_one_side_sends_again_makes_no_difference(parted, mark):
    twice = behind_a_nat([WORDS[0], *WORDS], marks=[0, mark, 0, 0, 0])
    assert parted(Talk(WORDS, protocol=TCP), twice)["equal_payloads"] == 1
    assert parted(Talk(WORDS, protocol=TCP), behind_a_nat([WORDS[0], *WORDS], marks=[128] * 5)) == NONE


# --- another half at the same server --------------------------------------------------------------------------

FIRST = Talk([long(ONE, TWO)], start=10, end=20)


@pytest.mark.parametrize(
    ("second", "near"),
    [
        ({}, True),
        ({"start": 20 + NEAR / 1e9}, True),
        ({"start": 20 + NEAR / 1e9 + 1e-6}, False),
        ({"start": 20 - NEAR / 1e9}, True),  # the new path is tried while the old one is used
        ({"start": 20 - NEAR / 1e9 - 1e-6}, False),
        ({"packets": [long(b"another one")]}, False),  # has a handshake of its own
        ({"packets": [short(b"something-new"), long(b"another one")]}, False),
        ({"packets": [b"\x01"]}, False),  # begins with nothing of QUIC
        ({"packets": [b"\x01", short(b"something-new")]}, False),
        ({"server": (SERVER, 444)}, False),
        ({"server": (OUTSIDE, 443)}, False),
        ({"client": (SERVER, 443), "server": MOVED}, True),  # the server's packet came first
        ({"client": FIRST.client, "server": FIRST.server}, False),  # the same 5-tuple
        ({"protocol": TCP}, False),
        ({"capture": 1}, False),
    ],
)
def test_a_half_goes_on_at_the_server(parted, second, near):
    options = {"packets": [short(b"something-new")], "client": MOVED, "start": 20.5} | second
    found = parted(FIRST, Talk(**options, end=30))
    assert found == NONE | {"quic_continued": int(near)}


def test_what_does_not_follow_a_handshake_is_none(parted):
    assert parted(Talk([short(ONE)], start=10, end=20), Talk([short(b"x" * 9)], client=MOVED, start=20)) == NONE
    brief = Talk([long(ONE)], start=10, end=11)
    for start in (9.5, 10):  # was there before, or as early
        assert parted(brief, Talk([short(b"x" * 9)], client=MOVED, start=start, end=start + 0.1)) == NONE


def test_one_of_several_at_a_server_is_enough(make_store):
    def at(port, start):
        return Talk([short(b"x" * 9)], client=(OUTSIDE, port), start=start, end=start)

    store = store_of(make_store, [FIRST, at(1, 20), at(2, 20)])
    for trained in ([1], [2]):
        tested = [row for row in range(3) if row not in trained]
        assert torn(store, {"train": whole(trained), "test": whole(tested)})["quic_continued"] == 1
    # those that end later come first
    earlier = [Talk([long(ONE)], client=(HOST, port), start=1, end=end) for port, end in ((1, 90), (2, 60), (3, 20))]
    store = store_of(make_store, [*earlier, at(1, 20), at(2, 60), at(3, 90), at(4, 40)])
    found = torn(store, {"train": whole([0, 1, 2]), "test": whole([3, 4, 5, 6])})
    assert found["quic_continued"] == 3


@pytest.mark.parametrize("trained", [[0], [1]])
def test_either_end_of_a_half_may_be_the_server(make_store, trained):
    other = (OUTSIDE, 443)
    both = Talk([short(b"x" * 9)], client=other, server=(SERVER, 443), start=20)
    store = store_of(make_store, [FIRST, Talk([long(TWO)], server=other, start=10, end=20), both])
    tested = [row for row in range(3) if row not in trained]
    assert torn(store, {"train": whole(trained), "test": whole(tested)})["quic_continued"] == 1


def test_captures_of_one_group_are_one_place(make_store):
    store = store_of(make_store, [FIRST, Talk([short(b"x" * 9)], client=MOVED, start=20, capture=1)])
    parts = {"train": whole([0]), "test": whole([1])}
    assert torn(store, parts) == NONE
    store.group = np.array([5, 5], np.int32)
    assert torn(store, parts)["quic_continued"] == 1


# --- against a slow reference ---------------------------------------------------------------------------------


@st.composite
def crowds(draw):
    """Sessions that have much in common, and which are trained on."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    names = [bytes(rng.integers(0, 2, 9, np.uint8)) for _ in range(6)]
    hosts = [(bytes([10, 0, 0, i]), 443) for i in range(1, 4)]

    def any_packet():
        name, other = (names[i] for i in rng.integers(0, 6, 2))
        return [long(name, other), short(name), b"", bytes(rng.integers(0, 2, 1) + 1) * 200][rng.integers(0, 4)]

    talks = []
    for _ in range(draw(st.integers(2, 25))):
        start = rng.integers(0, 20) / 2
        ends = rng.permutation(3)
        client, server = (hosts[i] for i in ends[:2])
        client = (client[0], int(rng.integers(1, 3)))
        packets = [any_packet() for _ in range(rng.integers(1, 7))]
        protocol, capture = int(rng.choice([UDP, UDP, TCP])), int(rng.integers(0, 3))
        talks.append(Talk(packets, client, server, start, start + rng.integers(0, 6) / 2, protocol, capture))
    return talks, rng.random(len(talks)) < 0.5


def ids_of(talk, lengths=(9,)):
    """IDs in a talk's long and short headers."""
    told, possible = set(), set()
    for payload in talk.packets if talk.protocol == UDP else ():
        if payload[:1] == b"\xc3":
            told |= {payload[6:15], payload[16:25]}
        elif payload[:1] == b"\x41":
            possible |= {payload[1 : 1 + length] for length in lengths}
    return told, possible


def slowly(talks, trained):
    """The three counts, pair by pair."""
    everywhere = set().union(*(ids_of(talk)[0] for talk in talks))

    def names(talk):
        told, possible = ids_of(talk)
        return told | (possible & everywhere)

    def said(talk):
        return [payload for payload in talk.packets if payload]

    def follows(late, early):
        told = [ids_of(talk)[0] for talk in (early, late)]
        amid = said(late)[:1] and said(late)[0][:1] == b"\x41" and late.protocol == early.protocol == UDP
        near = abs(late.start - early.end) <= NEAR / 1e9 and late.start > early.start
        return told[0] and not told[1] and amid and near and early.capture == late.capture and early.server in (
            late.client, late.server)  # fmt: skip

    counts = dict.fromkeys(NONE, 0)
    for i in np.flatnonzero(~trained):
        one = talks[i]
        others = [talks[j] for j in np.flatnonzero(trained)]
        others = [o for o in others if (o.client, o.server, o.protocol) != (one.client, one.server, one.protocol)]
        enough = len(said(one)) >= LEAST_PACKETS and sum(map(len, said(one))) >= LEAST_BYTES
        counts["quic_ids"] += any(names(one) & names(other) for other in others)
        counts["equal_payloads"] += any(enough and said(one) == said(other) for other in others)
        counts["quic_continued"] += any(follows(one, other) or follows(other, one) for other in others)
    return counts


@QUIET
@given(crowd=crowds())
def test_counts_are_those_of_a_slow_reference(make_store, crowd):
    talks, trained = crowd
    parts = {"train": whole(np.flatnonzero(trained)), "test": whole(np.flatnonzero(~trained))}
    assert torn(store_of(make_store, talks), parts) == slowly(talks, trained)


# --- from captures to the summary -----------------------------------------------------------------------------


def exchange(client, payloads, start):
    """Packets of a client and its server in turn, 10 ms apart."""
    ends = [(client, ("93.184.216.34", 443)), (("93.184.216.34", 443), client)]
    return [packet(start + i / 100, *ends[i % 2], payload) for i, payload in enumerate(payloads)]


@pytest.fixture
def prepared(tmp_path):
    """Ten captures of two classes: in each a connection that moves to another port, and one that a NAT shows twice."""
    folder, home = tmp_path / "moved", tmp_path / "home"
    for number in range(10):
        path = folder / ("ab"[number % 2]) / f"{number}.pcap"
        path.parent.mkdir(parents=True, exist_ok=True)
        name, start = f"id-{number:08}".encode(), 1_700_000_000 + 1000 * number
        mine = f"my-id-{number:08}".encode()
        first = exchange(("10.0.0.1", 2000), [long(b"", mine), long(mine, name)], start)
        second = exchange(("10.0.0.1", 2001 + number), [short(name), short(mine)], start + 1)
        words = [bytes([number, i]) * 100 for i in range(4)]
        inside, outside = (exchange((ip, 3000 + number), words, start + 2) for ip in ("10.0.0.1", "198.51.100.7"))
        path.write_bytes(pcap([*first, *second, *inside, *outside]))
    return folder, Store.open(prepare_dataset(find_card(folder), home=home).store_path)


def expected(store, split):
    """By hand: a half is the session before or after in its capture."""
    capture, port = np.asarray(store.session("capture")), np.asarray(store.session("client_port"))
    trained = set(split.train.session.tolist())
    counts = dict.fromkeys(NONE, 0)
    for row in split.test.session:
        others = np.flatnonzero((capture == capture[row]) & ((port < 3000) == (port[row] < 3000)))
        torn_apart = any(other in trained for other in others if other != row)
        for kind in ("quic_ids", "quic_continued") if port[row] < 3000 else ("equal_payloads",):
            counts[kind] += torn_apart
    return {f"test_in_training_{kind}": number for kind, number in counts.items()}


def test_a_split_by_session_counts_the_halves_that_it_parted(prepared):
    _, store = prepared
    seen = []
    for seed in range(3):
        split = split_of(store, "label", "session", seed=seed)
        found = {name: split.summary()[name] for name in expected(store, split)}
        assert found == expected(store, split)
        assert split.seen["quic_ids"] == found["test_in_training_quic_ids"] / len(split.test)
        assert split.summary()["remarks"] == [] and json.loads(json.dumps(split.summary())) == split.summary()
        seen.append(found)
    assert all(sum(found[name] for found in seen) for name in seen[0])


def test_a_split_by_capture_keeps_halves_together(prepared):
    _, store = prepared
    split = split_of(store, "label", "capture")
    summary = split.summary()
    assert summary["test_in_training_equal_payloads"] == summary["test_in_training_quic_continued"] == 0


def test_a_leaky_split_is_not_asked(prepared):
    _, store = prepared
    split = split_of(store, "label", "paper", sampling="window=1")
    assert not set(split.seen) & set(NONE) and "test_in_training_windows" in split.summary()


def test_without_captures_a_split_is_the_same_and_says_what_it_does_not_tell(prepared):
    folder, store = prepared
    split = split_of(store, "label", "session")
    shutil.move(folder, folder.with_name("gone"))
    blind = split_of(Store.open(store.path), "label", "session")
    assert blind.digest == split.digest and blind.counts == split.counts
    assert not set(blind.seen) & set(NONE)
    (remark,) = blind.summary()["remarks"]
    assert "not looked at" in remark and str(folder) in remark and len(remark.splitlines()) == 1


def test_the_command_line_shows_the_counts(prepared, command_line, monkeypatch, tmp_path):
    folder, _ = prepared
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    status, out, _ = command_line("split", folder, "--split", "session")
    assert status == 0 and "test_in_training_quic_ids: " in out and "remarks" not in out


def test_a_loaded_split_tells_the_same(prepared, tmp_path):
    _, store = prepared
    split = split_of(store, "label", "session")
    split.save(tmp_path / "split.json")
    assert split_of(store, "label", "file", file=tmp_path / "split.json").summary() == split.summary()
