"""A store of records and one of captures rebuilt from the same records say the same to every method that can run."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rebuilt import captures_of, sessions_of

from bench.analysis.audit import AuditRequest, audit_dataset
from bench.analysis.audit_tables import audit_tables
from bench.data.names import find_card
from bench.data.prepare import prepare_dataset
from bench.data.store import Store
from bench.method import make_parameters, reason_to_skip
from bench.readers import Ragged, View
from bench.render.table import render
from bench.runs import registry
from bench.schema import Samples
from bench.tracking.tracker import Tracker

SHARED = Path(__file__).parents[2] / "shared" / "data"
SETS = {
    "iscx-vpn-sequences": ("sequences_iscx_vpn", "payload_length", "payload", 35_000),
    "vnat-sequences": ("sequences_vnat", "transport_length", "transport", 34_000),
}
METHODS = ["appscanner", "bind", "fsnet", "graphdapp", "flowpic", "mini-flowpic", "forest", "knn", "ports", "majority"]
BYTES = ["atvitsc", "first-bytes", "deeppacket", "wang1d", "han", "tscrnn", "flowgnn"]
CARD = """name = "rebuilt"
title = "captures rebuilt from records"
[captures]
include = ["*.pcap"]
[labels]
kind = "pattern"
pattern = '^(?P<label>(?:non)?vpn)_'
[tasks.label]
"""


def records_of(folder, lengths):
    table = pq.read_table(SHARED / folder / "records.parquet").to_pandas()
    table = table[table.protocol.isin([6, 17])]
    start = table.start_ms * 10**6 if "start_ms" in table else (table.start_s * 1e6).round().astype("int64") * 1000
    for row, begin in zip(table.to_dict("records"), start.tolist(), strict=True):
        yield {
            "capture": row["capture"],
            "protocol": row["protocol"],
            "source": (row["source_ip"], row["source_port"]),
            "destination": (row["destination_ip"], row["destination_port"]),
            "start": begin,
            "lengths": row[lengths].tolist(),
            "gaps": (row["gap_ms"].astype(np.int64) * 10**6).tolist(),
            "directions": row["direction"].tolist(),
        }


@pytest.fixture(scope="module", params=SETS)
def both(request, tmp_path_factory):
    """The store of records and the store of captures."""
    folder, lengths, layer, _ = SETS[request.param]
    if not (SHARED / folder).is_dir():
        pytest.skip(f"{SHARED / folder} is not here")
    home = tmp_path_factory.mktemp(request.param)
    records = prepare_dataset(find_card(request.param), SHARED / folder, home=home)
    captures = home / "captures"
    captures.mkdir()
    for name, content in captures_of(records_of(folder, lengths), layer).items():
        (captures / f"{name}.pcap").write_bytes(content)
    if request.param.startswith("iscx"):
        card = find_card("iscx-vpn")
    else:
        (home / "rebuilt.toml").write_text(CARD)
        card = find_card(home / "rebuilt.toml")
    rebuilt = prepare_dataset(card, captures, home=home)
    return request.param, Store.open(records.store_path), Store.open(rebuilt.store_path)


@pytest.fixture(scope="module")
def matched(both):
    """Rows of the same sessions in both stores, int64 each."""
    _, records, captures = both
    ours, theirs = sessions_of(records), sessions_of(captures)
    assert ours.keys() == theirs.keys()
    return tuple(np.array([rows[key] for key in ours], np.int64) for rows in (ours, theirs))


def samples(store, rows):
    return Samples(rows, np.zeros(len(rows), np.int64), store.session("packets")[rows])


def test_sessions_and_their_columns_are_equal(both, matched):
    _, records, captures = both
    assert records.manifest.sessions == captures.manifest.sessions
    assert records.manifest.sessions > 33_000
    for column in ("client_ip", "client_port", "server_ip", "server_port", "protocol", "ip_version", "start"):
        np.testing.assert_array_equal(records.session(column)[matched[0]], captures.session(column)[matched[1]], column)
    for column in ("duration", "packets", "payload_packets", "payload_bytes"):
        np.testing.assert_array_equal(records.session(column)[matched[0]], captures.session(column)[matched[1]], column)
    conversations = [
        store.session("conversation")[rows] for store, rows in zip((records, captures), matched, strict=True)
    ]
    pairs = np.unique(np.stack(conversations), axis=1)
    assert len(pairs[0]) == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))


def test_labels_and_groups_of_the_list_are_equal(both, matched):
    name, records, captures = both
    if not name.startswith("iscx"):
        pytest.skip("VNAT has no card of captures")
    assert records.tasks == captures.tasks
    for task in records.tasks:
        assert records.classes(task) == captures.classes(task)
        np.testing.assert_array_equal(records.labels(task)[matched[0]], captures.labels(task)[matched[1]], task)
    groups = np.stack([records.capture_group()[matched[0]], captures.capture_group()[matched[1]]])
    assert len(np.unique(groups, axis=1)[0]) == len(np.unique(groups[0]))


@pytest.mark.parametrize("name", METHODS)
def test_arrays_of_methods_are_equal(both, matched, name):
    _, records, captures = both
    kind = registry.load(name)
    method = kind(make_parameters(kind, {}), classes=2)
    step = 1 if name in ("forest", "knn", "ports", "majority", "fsnet") else 20
    arrays = [
        method.represent(View(store, samples(store, rows[::step]), kind.reads))
        for store, rows in zip((records, captures), matched, strict=True)
    ]
    assert arrays[0].keys() == arrays[1].keys()
    for key, one in arrays[0].items():
        other = arrays[1][key]
        if isinstance(one, Ragged):
            np.testing.assert_array_equal(one.offsets, other.offsets)
            one, other = one.values, other.values
        np.testing.assert_array_equal(one, other, key)


@pytest.mark.parametrize("name", BYTES)
def test_methods_that_need_bytes_are_refused_by_both(both, name):
    _, records, captures = both
    kind = registry.load(name)
    why = [reason_to_skip(kind, make_parameters(kind, {}), store) for store in (records, captures)]
    assert "records hold no bytes" in why[0]
    assert "hold no byte of payload: all was cut" in why[1]


def test_an_audit_of_records_compares_sequences(both, tmp_path):
    name, records, _ = both
    found = audit_dataset(
        records, records.default_task, Tracker(tmp_path), AuditRequest(("capture",), ("forest", "atvitsc"), False)
    )
    assert found.compared == "lengths and directions and times" and found.content == {}
    assert found.duplicates[0].repeated > (0.8 if name.startswith("vnat") else 0.2)
    forest, atvitsc = found.ceilings
    assert forest.all is not None and atvitsc.all is None and "records hold no bytes" in atvitsc.reason
    text = "\n".join(render(table, "text") for table in audit_tables(found))
    assert "the data set holds no payload" in text
    row = next(line for line in text.splitlines() if line.startswith("capture  ") and "%" in line)
    assert row.split()[-3:-2] == ["–"]  # halves of connections are not looked at


def test_runs_and_tables_say_what_they_are_of(both, bench_in, tmp_path):
    name, _, _ = both
    if not name.startswith("vnat"):
        pytest.skip("one set is enough")
    call = bench_in(tmp_path)
    status, _, err = call("prepare", name, "--source", SHARED / SETS[name][0])
    assert status == 0 and "made of flow records, which hold no bytes: 636 of 33,667 sessions have more" in err
    words = ("run", "--method", "ports,first-bytes", "--dataset", name, "--split", "capture")
    status, out, err = call(*words)
    assert status == 0
    assert "skipped: needs payload, which the data set does not hold: records hold no bytes of packets" in out
    assert "lengths of" in out and "of their packets are bounds; `bench prepare` says what else" in out
    assert "made of flow records" in err
    status, out, _ = call("table", "--dataset", name)
    assert status == 0 and "first-bytes: skipped, needs payload" in out and "made of flow records" in out
    status, _, err = call("tune", "--method", "atvitsc", "--dataset", name, "--trials", "2", "--param", "packets=4,9")
    assert status == 2 and "[method-cannot-run]" in err and err.count("needs payload") == 1
    status, _, err = call("prepare", name, "--source", SHARED / SETS[name][0], "--idle-timeout", "5")
    assert status == 2 and "is made of records" in err
