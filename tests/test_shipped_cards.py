"""The shipped cards of whole sets, on a few captures of their kind: what they hold on the real ones, everywhere."""

import numpy as np
import pytest
from small_captures import packet, pcap, talk

from bench.data.names import find_card
from bench.data.prepare import prepare_dataset
from bench.data.store import Store

HEAD = "capture,label,l4,client_ip,client_port,server_ip,server_port,packets,payload_packets,payload_bytes,tls,"
HEAD += "ndpi_encrypted,first_ts\n"


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def row(capture, label, port, *, tls=0, encrypted="ClearText", start=1000.0):
    """What `talk(port, b"abc")` is in a file of labels."""
    return f"{capture},{label},UDP,10.0.0.1,{port},10.0.0.2,443,2,2,6,{tls},{encrypted},{start}\n"


def write(folder, captures, rows=()):
    for name, packets in captures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(pcap(packets))
    if rows:
        (folder / "labels.csv").write_text(HEAD + "".join(rows))


def test_iot_sentinel_labels_sessions_and_joins_devices_of_one_type(tmp_path, home):
    devices = {"Aria": 10, "WeMoSwitch": 6, "WeMoSwitch2": 4, "EdimaxCam1": 9, "EdimaxCam2": 9}
    captures, server = {}, ("10.0.0.2", 443)
    for device, number in devices.items():
        for n in range(number):
            name = f"captures/{device}/Setup-{'AC'[n % 2]}-{n}-STA.pcap"
            client = ("10.0.0.1", 5000)
            hello = [b"\x16\x03\x01\0\1a", b"\x17\x03\x04\0\1a"][n % 2]  # a record of the client, or of the server
            captures[name] = [packet(1000.0, client, server, hello if n % 3 else b"no", "tcp")]
            captures[name] += [packet(1000.5, server, client, b"no" if n % 3 else hello, "tcp")]
            captures[name] += talk(5001, hello, 1001.0)  # over UDP it is none
            captures[name] += talk(5002, b"", 1002.0 + len(captures))  # equal captures would be one group
    write(tmp_path / "set", captures)
    report = prepare_dataset(find_card("iot-sentinel"), tmp_path / "set", home=home).report
    assert (report["captures"], report["sessions"]) == (38, 114)
    assert {(one["what"], one["expected"], one["found"]) for one in report["unexpected"]} >= {
        ("captures", 550, 38), ("sessions", 15074, 114), ("sessions of task tls", 1413, 20),
    }  # fmt: skip
    store = Store.find("iot-sentinel", home)
    assert store.classes("tls") == ["Aria", "WeMoSwitch"]  # with at least ten captures that have a TLS session
    assert store.classes("all") == ["Aria", "EdimaxCam", "WeMoSwitch"]
    assert np.bincount(store.labels("all")[store.labels("all") >= 0]).tolist() == [20, 36, 20]
    assert (store.labels("all") >= 0).sum() == 76  # a session without payload is of no class
    assert len(set(store.capture_group())) == 38
    assert set(store.capture_attribute("person")) == {0, 1}


def test_ustc_sessions_takes_its_classes_from_file_names(tmp_path, home):
    empty = talk(5009, b"", 1001.0)
    write(
        tmp_path / "set", {"Zeus.pcap": talk(5000, b"abc") + empty, "FTP.pcap": talk(5000, b"de"), "a/no.pcap": empty}
    )
    report = prepare_dataset(find_card("ustc-sessions"), tmp_path / "set", home=home).report
    assert (report["captures"], report["sessions"]) == (2, 3)
    store = Store.find("ustc-sessions", home)
    assert store.classes("paper") == store.classes("with-empty") == ["FTP", "Zeus"]
    assert sorted(store.labels("paper").tolist()) == [-1, 0, 1] and sorted(store.labels("with-empty")) == [0, 1, 1]
    assert {one["what"] for one in report["unexpected"]} >= {"captures", "classes of task paper"}


def test_ndpi_services_takes_families_of_three_captures(tmp_path, home):
    captures, rows = {}, []
    for n in range(4):
        name = f"captures/{n}.pcap"
        captures[name] = talk(5000, b"abc") + talk(5001, b"abc", 1001.0)
        rows += [row(name, "Web", 5000, encrypted="Encrypted"), row(name, "Chat" if n else "", 5001, start=1001.0)]
    rows[3] = rows[3].replace("ClearText", "Encrypted")  # one capture of encrypted chat is too few
    write(tmp_path / "set", captures, rows)
    prepare_dataset(find_card("ndpi-services"), tmp_path / "set", home=home)
    store = Store.find("ndpi-services", home)
    assert store.default_task == "encrypted" and store.classes("encrypted") == ["Web"]
    assert store.classes("all") == ["Chat", "Web"]
    assert np.bincount(store.labels("all")[store.labels("all") >= 0]).tolist() == [3, 4]
