"""Captures as people have them (../shared/cases): every situation gives what is right."""

import csv
from pathlib import Path

import numpy as np
import pytest
from refusals import refused

from bench.ingest import IngestOptions, inspect, read_capture

CASES = Path(__file__).parents[2] / "shared" / "cases"


def truth():
    if not (CASES / "truth.csv").exists():
        return [pytest.param({}, marks=pytest.mark.skip(reason="no cases in ../shared"))]
    with (CASES / "truth.csv").open() as file:
        return [pytest.param(row, id=f"{row['file']} {row['option']}".strip()) for row in csv.DictReader(file)]


def options_of(text):
    word, _, value = text.partition(" ")
    return IngestOptions(
        decap=(value,) if word == "--decap" else (), drop_copies=5 if word == "--drop-copies" else None
    )


#: what a row's column ``also`` says in words, as a look at what `inspect` gives and at the index
ALSO = {
    "copies=13": lambda seen, index: seen["copies"] == 13,
    "copies=39": lambda seen, index: seen["copies"] == 39,
    "payload of the two sessions 3500 and 800": lambda seen, index: (
        index.sessions["payload_bytes"].tolist() == [3500, 800]
    ),
    "retransmissions=3": lambda seen, index: seen["retransmissions"] == 3,
    "snaplen=96 captured_payload_bytes=168": lambda seen, index: (
        (seen["snaplen"], seen["captured_payload_bytes"]) == (96, 168) and seen["cut_packets"]
    ),
    "snaplen=54 captured_payload_bytes=0": lambda seen, index: (
        (seen["snaplen"], seen["captured_payload_bytes"]) == (54, 0)
    ),
    "tunnelled: VXLAN 65": lambda seen, index: seen["tunnelled"] == {"VXLAN": 65},
    "tunnelled: GRE 65": lambda seen, index: (
        seen["tunnelled"] == {"GRE": 65} and seen["other_protocols"] == {"GRE 47": 65}
    ),
    "tunnelled: GTP-U 65": lambda seen, index: seen["tunnelled"] == {"GTP-U": 65},
    "one step of time backwards of about 3600 s": lambda seen, index: (
        seen["steps_back"] == 1 and round(seen["largest_step_back_s"]) == 3600 and seen["sorted_sessions"] == 1
    ),
    "mid-stream start counted": lambda seen, index: seen["clients"] == {"first packet": 1},
    "later fragments 8; payload lost 10112": lambda seen, index: (
        seen["skipped"] == {"later_fragment": 8} and seen["lost_fragment_bytes"] == 10112
    ),
    "keepalives=40": lambda seen, index: seen["keepalives"] == 40,
    "fractions beyond one second counted and warned of": lambda seen, index: seen["odd_fractions"] == 12,
    "zeros at the end named": lambda seen, index: "zeros" in seen["damage"][0]["reason"] and seen["packets"] == 13,
}


@pytest.mark.parametrize("row", truth())
def test_every_case_gives_what_is_right(row):
    path, options = CASES / "files" / row["file"], options_of(row["option"])
    if row["also"].startswith("error: "):
        with refused("not-a-capture", row["also"].removeprefix("error: ")):
            inspect(path)
        return
    seen, index = inspect(path, options), read_capture(path, options)
    for name in ("tcp_conversations", "udp_conversations", "sessions", "payload_bytes"):
        assert seen[name] == int(row[name]), name
    if row["client"]:
        client = bytes(map(int, row["client"].split(".")))
        assert {bytes(end) for end in np.atleast_1d(index.sessions["client_ip"])} == {client}
    assert not row["also"] or ALSO[row["also"]](seen, index)


def test_the_option_for_mid_stream_starts_finds_the_client():
    if not CASES.exists():
        pytest.skip("no cases in ../shared")
    path = CASES / "files" / "16_part2.pcap"
    sides = [read_capture(path, IngestOptions(client=rule)).sessions for rule in ("handshake", "ports")]
    assert [bytes(one["client_ip"][0]) for one in sides] == [bytes([198, 51, 100, 20]), bytes([192, 0, 2, 10])]
    assert sides[1]["client_by"].tolist() == [4]
