"""Captures whose payload is all zeros, or all cut: methods that read bytes do not run, and a line says why."""

import struct

import numpy as np
import pytest
from small_captures import pcap, talk

from bench.data.names import find_card
from bench.data.prepare import prepare_dataset
from bench.data.store import Store


def cut(content, keep):
    """A capture with each record cut to so many bytes."""
    out, at = [content[:24]], 24
    while at < len(content):
        seconds, micros, held, length = struct.unpack_from("<4I", content, at)
        out.append(struct.pack("<4I", seconds, micros, min(held, keep), length) + content[at + 16 :][: min(held, keep)])
        at += 16 + held
    return b"".join(out)


def captures(folder, made):
    """Two classes of three captures; ``made`` gives a capture's bytes by its number."""
    for number in range(6):
        path = folder / "set" / "ab"[number % 2] / f"{number}.pcap"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made(number))


def zeros(number):
    return pcap(
        [p for port in range(9) for p in talk(5000 + port + 100 * number, bytes(40 + 9 * number), 1000.0 + port)]
    )


def full(number):
    return pcap(
        [p for port in range(9) for p in talk(5000 + port + 100 * number, bytes([1] * (40 + number)), 1000.0 + port)]
    )


KINDS = {
    "zeros": (zeros, "all payload in its captures is zeros"),
    "cut": (lambda number: cut(full(number), 42), "its captures hold no byte of payload: all was cut"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_methods_that_read_bytes_are_skipped(kind, bench_in, tmp_path):
    made, why = KINDS[kind]
    captures(tmp_path, made)
    call = bench_in(tmp_path)
    status, out, err = call("prepare", "set")
    assert (status == 0 and err.count("no byte of payload can be read") == 6 - 1) or "more such captures" in err
    status, out, _ = call("run", "--method", "first-bytes,deeppacket,forest", "--dataset", "set", "--split", "capture")
    assert status == 0 and out.count(why) == 2, out
    assert "needs payload" in out and "needs ip_bytes" in out
    lines = {line.split("-capture")[0]: line for line in out.splitlines() if "set/label" in line}
    assert [name for name, line in lines.items() if " done " in line] == ["forest"]
    assert len(lines) == 3


def test_one_bare_capture_is_told_and_nothing_refused(tmp_path, bench_in):
    captures(tmp_path, lambda number: zeros(number) if number == 3 else full(number))
    status, _, err = bench_in(tmp_path)("prepare", "set")
    assert status == 0 and "WARNING: set: b/3.pcap: no byte of payload can be read, all is zeros" in err
    store = Store.find("set", tmp_path / "home")
    assert store.lacks == {} and store.traits.lacks == {}


def test_what_there_is_of_a_capture_decides(tmp_path):
    """Captures without any payload, and cut ones beside whole ones, take nothing away."""
    captures(tmp_path, lambda number: cut(full(number), 42) if number < 5 else full(number))
    store = Store.open(prepare_dataset(find_card(tmp_path / "set"), home=tmp_path).store_path)
    assert store.lacks == {}
    captures(tmp_path / "other", lambda number: cut(full(number), 42) if number < 3 else zeros(number))
    store = Store.open(prepare_dataset(find_card(tmp_path / "other" / "set"), home=tmp_path / "home").store_path)
    assert set(store.lacks) == {"payload", "ip_bytes"}
    assert np.asarray(store.session("payload_packets")).all()
