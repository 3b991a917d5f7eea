"""A store of records and one of captures rebuilt from the same records say the same to every method that can run."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rebuilt import captures_of, sessions_of

from bench.data.cards import find_card
from bench.data.prepare import prepare_dataset
from bench.data.store import Store
from bench.method import make_parameters, reason_to_skip
from bench.readers import Ragged, View
from bench.runs import registry
from bench.schema import Samples

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
