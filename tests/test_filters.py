"""Filters: which sessions go, counted by reason, and what is said of a class that goes with them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from split_tables import split_of

from bench.cli.base import check_classes
from bench.schema import NO_CLASS
from bench.spec import FILTERS, SplitSpec, parse_filter
from bench.splits.filters import RULES, SERVICES, apply_filter
from bench.splits.split import emptied_classes

TCP, UDP = 6, 17
ROWS = [  # protocol, client port, server port, packets with payload, what `sugar` says of it
    (TCP, 50000, 443, 5, ""),
    (UDP, 50000, 53, 1, ""),  # DNS is not among Sugar's
    (UDP, 5353, 5353, 1, "name service"),
    (UDP, 50000, 5355, 1, "name service"),
    (UDP, 137, 137, 1, "name service"),
    (UDP, 6771, 6771, 1, "name service"),
    (UDP, 68, 67, 1, "network management"),
    (UDP, 50000, 161, 1, "network management"),
    (UDP, 50000, 3478, 1, "NAT traversal"),
    (UDP, 17500, 17500, 1, "discovery"),
    (UDP, 1900, 50000, 1, "discovery"),  # the answer to a search: the sender has the port
    (TCP, 50000, 427, 1, "discovery"),
    (UDP, 50000, 5005, 1, "RTCP"),
    (UDP, 50000, 123, 1, "NTP"),
    (TCP, 5353, 443, 3, ""),  # mDNS is UDP: a TCP client's port by chance
    (TCP, 50000, 443, 0, ""),  # a handshake alone
]


def columns(rows=ROWS):
    names = ("protocol", "client_port", "server_port", "payload_packets")
    table = {name: np.array(values) for name, values in zip(names, list(zip(*rows, strict=True))[:4], strict=True)}
    return table | between(len(rows))


def between(sessions, client=(10, 0, 0, 1), server=(192, 0, 2, 1), version=4):
    """Addresses of sessions between two hosts."""
    ends = {
        "client_ip": np.array([bytes(client)] * sessions, "S16"),
        "server_ip": np.array([bytes(server)] * sessions, "S16"),
    }
    return ends | {"ip_version": np.full(sessions, version, np.uint8)}


def test_sugar_by_family():
    stay, counts = apply_filter("sugar", columns())
    assert stay.tolist() == [not family for *_, family in ROWS]
    families = [family for *_, family in ROWS if family]
    assert counts == {f"filter: {family}": families.count(family) for family in dict.fromkeys(families)}


def test_the_others():
    stay, counts = apply_filter("none", columns())
    assert stay.all() and counts == {}
    stay, counts = apply_filter("paper", columns())
    assert np.flatnonzero(~stay).tolist() == [15] and counts == {"filter: no payload": 1}
    stay, counts = apply_filter("dns", columns())
    assert np.flatnonzero(~stay).tolist() == [1] and counts == {"filter: DNS": 1}
    stay, counts = apply_filter("tcp", columns())
    assert counts == {"filter: not TCP": 12} and (columns()["protocol"][stay] == TCP).all()


@settings(max_examples=60, deadline=None)
@given(
    names=st.sets(st.sampled_from(sorted(FILTERS)), min_size=1),
    rows=st.lists(
        st.tuples(st.sampled_from([TCP, UDP]), *[st.sampled_from([9, 53, 123, 1900, 5353])] * 2, st.integers(0, 1)),
        max_size=30,
    ),
)  # fmt: skip
def test_a_session_goes_for_one_reason(names, rows):
    if not rows:
        return
    stay, counts = apply_filter(parse_filter(",".join(names)), columns(rows))
    assert sum(counts.values()) == (~stay).sum()
    alone = [apply_filter(name, columns(rows))[0] for name in names]
    assert (stay == np.all(alone, axis=0)).all()


def test_every_filter_has_rules():
    assert tuple(RULES) == FILTERS


def test_names_have_one_order():
    assert parse_filter("dns, sugar,dns") == "sugar,dns"
    assert parse_filter("none,tcp") == "tcp" and parse_filter("none") == "none"
    with refused("unknown-filter", "'http'"):
        parse_filter("dns,http")


IANA = {  # the registry's ports, by filter; TCP and UDP where it has both
    "sugar": {5355: "tu", 137: "u", 5353: "u", 6771: "u", 67: "u", 68: "u", 546: "u", 547: "u", 161: "u", 162: "u",
              3478: "tu", 5349: "tu", 4555: "tu", 17500: "u", 1900: "u", 427: "tu", 5005: "u", 123: "u"},
    "dns": {53: "tu"},
    "broadcast": {67: "u", 68: "u", 546: "u", 547: "u", 5353: "u", 1900: "u", 137: "u", 138: "u", 5355: "u"},
}  # fmt: skip


@pytest.mark.parametrize("name", IANA)
def test_a_filter_drops_these_ports_and_no_others(name):
    ports = np.arange(65536)
    for letter, protocol in (("t", TCP), ("u", UDP)):
        for end, other in (("client_port", "server_port"), ("server_port", "client_port")):
            table = {
                "protocol": np.full(65536, protocol),
                end: ports,
                other: ports * 0,
                "payload_packets": ports * 0 + 1,
                **between(65536),
            }
            stay, _ = apply_filter(name, table)
            assert set(np.flatnonzero(~stay)) == {port for port, letters in IANA[name].items() if letter in letters}


@pytest.mark.parametrize(
    ("server", "version", "gone"),
    [
        ((224, 0, 0, 251), 4, True),
        ((239, 255, 255, 250), 4, True),
        ((240, 0, 0, 1), 4, False),
        ((255, 255, 255, 255), 4, True),
        ((255, 255, 255, 254), 4, False),
        ((0, 0, 0, 0), 4, True),
        ((10, 0, 0, 255), 4, False),  # whether it is a network's last address is not known
        ((255, 2, *[0] * 13, 251), 6, True),
        ((224, *[0] * 14, 1), 6, False),
        ((0,) * 16, 6, True),
        ((254, 128, *[0] * 13, 1), 6, False),
    ],
)
def test_what_goes_to_all_is_broadcast(server, version, gone):
    client = (10, 0, 0, 1) if version == 4 else (254, 128, *[0] * 13, 9)
    for ends in ({"client": client, "server": server}, {"client": server, "server": client}):
        table = columns([(UDP, 50000, 50001, 1, "")]) | between(1, **ends, version=version)
        stay, counts = apply_filter("broadcast", table)
        assert stay.tolist() == [not gone] and counts["filter: other broadcast or multicast"] == int(gone)


def test_no_service_stands_twice():
    ends = [(p, port) for service in SERVICES for p in service.protocols for port in service.ports]
    assert len(ends) == len(set(ends))


@pytest.fixture
def store(make_store):
    """Two classes of TLS, one of DNS alone; one session that no task uses."""
    row = np.arange(91)
    labels = np.where(row == 90, NO_CLASS, row // 30)
    dns = labels == 1
    sessions = {"protocol": np.where(dns, UDP, TCP), "server_port": np.where(dns, 53, 443), "payload_packets": row % 3}
    return make_store(sessions | {"conversation": row}, labels=labels, classes=["mail", "tinba", "web"])


def test_a_split_counts_what_a_filter_drops(store):
    split = split_of(store, "task", "session", filter="dns")
    assert split.dropped == {"filter: DNS": 30} and split.head["filter"] == "dns"
    assert sum(map(len, split.parts.values())) == 60
    assert split.scored == (0, 2) and split.summary()["emptied"] == ["tinba"]
    assert split.to_scored_classes(np.array([2, 0, 2])).tolist() == [1, 0, 1]
    assert split_of(store, "task", "session", filter="paper").dropped == {"filter: no payload": 30}


def test_an_emptied_class_is_told_or_refused(store, capsys):
    dns, sugar = SplitSpec(filter="dns"), SplitSpec(filter="sugar")
    assert emptied_classes(store, "task", dns) == ["tinba"] and emptied_classes(store, "task", sugar) == []
    check_classes(store, None, dns, strict=False)
    told = capsys.readouterr().err
    assert told.startswith("WARNING: fake, task task") and "tinba" in told and told.count("\n") == 1
    with refused("emptied-class", "tinba"):
        check_classes(store, None, dns, strict=True)
    check_classes(store, None, sugar, strict=True)
    assert capsys.readouterr().err == ""


def test_nothing_left_is_refused(store):
    with refused("nothing-left", "task task"):
        split_of(store, "task", "session", filter="dns,tcp", min_per_class=61)
