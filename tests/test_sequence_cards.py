"""The cards of public data sets of packet sequences, on small made files of their shape, and on the shared ones."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.cli.text import brief
from bench.data.names import find_card
from bench.data.prepare import prepare_dataset
from bench.data.store import Store
from bench.errors import InputError
from bench.records.guess import guessed_card

SHARED = Path(__file__).parents[2] / "shared" / "data"


def prepared(name, folder, home):
    return Store.open(prepare_dataset(find_card(name), folder, home=home).store_path)


def text(path, head, *rows, pack=lambda data: data):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(f'"{cell}"' for cell in row) for row in (head, *rows)]
    path.write_bytes(pack(("\n".join(lines) + "\n").encode()))


def test_cesnet_quic22(tmp_path):
    head = ["ID", "SRC_IP", "DST_IP", "DST_ASN", "SRC_PORT", "DST_PORT", "PROTOCOL", "QUIC_SNI", "QUIC_USERAGENT"]
    head += ["TIME_FIRST", "TIME_LAST", "BYTES", "PACKETS", "PACKETS_REV", "PPI", "APP", "CATEGORY"]

    def row(number, app, ppi, packets=2):
        start = f"2022-10-31T00:00:0{number}.25"
        ends = [number, "10.1.2.3", "192.0.2.9", 64500, 50000 + number, 443, 17, "x.example", ""]
        return [*ends, start, start, 99, packets, 0, ppi, app, "Social"]

    first = row(1, "discord", "[[0, 40], [1, -1], [1200, 1100]]")
    second = row(2, "spotify", "[[0, 3, 1], [1, 1, -1], [1200, 80, 60]]", packets=40)
    text(tmp_path / "set/W-2022-44/1_Mon/flows-20221031.csv.gz", head, first, second, pack=gzip.compress)
    text(tmp_path / "set/W-2022-45/1_Mon/flows-20221107.csv.gz", head, row(3, "discord", "[[0], [1], [700]]", 1))
    (tmp_path / "set/W-2022-45/1_Mon/flows-20221107.csv.gz").write_bytes(
        gzip.compress((tmp_path / "set/W-2022-45/1_Mon/flows-20221107.csv.gz").read_bytes())
    )
    store = prepared("cesnet-quic22", tmp_path / "set", tmp_path)
    assert store.packet("payload_length").tolist() == [1200, 1100, 1200, 80, 60, 700]
    assert store.packet("direction").tolist() == [1, -1, 1, 1, -1, 1]
    assert store.session("start")[0] == np.datetime64("2022-10-31T00:00:01.25", "ns").astype(int)
    assert store.session("duration").tolist() == [40_000_000, 4_000_000, 0]
    assert store.classes("app") == ["discord", "spotify"] and store.labels("app").tolist() == [0, 1, 0]
    assert store.capture_attribute("week").tolist() == [0, 0, 1] == store.capture_group().tolist()
    assert store.manifest.limits[0].startswith("1 of 3 sessions have more packets than are listed")


def test_cesnet_tls22(tmp_path):
    head = ["ID", "DURATION", "BYTES", "PACKETS", "PACKETS_REV", "PPI", "PPI_LEN", "APP", "CATEGORY"]
    row = [1, 0.5, 99, 6, 5, "[[0, 18, 2], [1, -1, 1], [517, 1460, 64]]", 3, "google-www", "Search"]
    text(tmp_path / "set/W-2021-40/2021-10-04/flows.csv", head, row)
    text(tmp_path / "set/W-2021-41/2021-10-11/flows.csv", head, [*row[:7], "zoom", "Video"])
    store = prepared("cesnet-tls22", tmp_path / "set", tmp_path)
    assert store.packet("length").tolist() == [557, 1500, 104] * 2
    assert set(store.session("protocol").tolist()) == {6}
    assert len(set(store.session("conversation").tolist())) == 2
    assert "ports" in store.lacks and "protocol" not in store.lacks
    assert store.capture_attribute("week").tolist() == [0, 1]
    assert store.manifest.limits[0] == "packets without payload are not listed"


def test_mirage_2019(tmp_path):
    def flow(label, how, sizes):
        data = {
            "packet_dir": [0, 1, 0][: len(sizes)],
            "L4_payload_bytes": sizes,
            "iat": [0, 0.0559, 0.25][: len(sizes)],
        }
        data |= {"src_port": [1] * len(sizes), "L4_raw_payload": [[1, 2]] * len(sizes)}
        meta = {"BF_label": label, "BF_labeling_type": how, "BF_num_packets": 9}
        return {"packet_data": data, "flow_features": {"iat": {"biflow": {"max": 1.0}}}, "flow_metadata": meta}

    for app, device in (("com.twitter.android", "Nexus7_bc_ee"), ("com.waze", "Mi5_38_a4")):
        folder = tmp_path / "set" / device
        folder.mkdir(parents=True)
        flows = {
            "192.168.20.101,51221,216.58.205.42,443,6": flow(app, "exact", [0, 0, 517]),
            "192.168.20.101,40000,8.8.8.8,53,17": flow("com.google", "most-common", [33, 80]),
        }
        (folder / f"1494419517_{app}_MIRAGE-2019_traffic_dataset_labeled_biflows.json").write_text(json.dumps(flows))
    store = prepared("mirage-2019", tmp_path / "set", tmp_path)
    assert store.packet("direction").tolist() == [1, -1, 1, 1, -1] * 2
    assert store.packet("payload_length").tolist() == [0, 0, 517, 33, 80] * 2
    assert np.diff(store.packet("time")[:3]).tolist() == [55_900_000, 250_000_000]
    assert store.session("protocol").tolist() == [6, 17] * 2
    assert store.classes("app") == ["com.google", "com.twitter.android", "com.waze"]
    assert (store.labels("exact") >= 0).tolist() == [True, False] * 2
    assert len(set(store.session("capture").tolist())) == 2
    assert len(set(store.capture_attribute("device").tolist())) == 2


def test_ucdavis_19(tmp_path):
    rows = [
        {"row_id": i, "app": app, "flow_id": f"f{i}", "partition": part, "num_pkts": 2, "unixtime": [1.5e9, 1.5e9 + 1],
         "timetofirst": [0.0, 1.0], "pkts_size": [1300, 60 + i], "pkts_dir": [1, 0]}
        for i, (app, part) in enumerate([("youtube", "pretraining"), ("google-doc", "retraining-human-triggered")])
    ]  # fmt: skip
    (tmp_path / "set").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set" / "ucdavis-icdm19.parquet")
    store = prepared("ucdavis-19", tmp_path / "set", tmp_path)
    assert store.packet("direction").tolist() == [1, -1] * 2
    assert store.session("start").tolist() == [1_500_000_000 * 10**9] * 2
    assert store.session("protocol").tolist() == [17, 17]
    assert store.capture_attribute("partition").tolist() == [0, 1]


def test_utmobilenet_21(tmp_path):
    head = ["", "frame.number", "frame.time", "frame.len", "ip.len", "ip.proto", "ip.src", "ip.dst", "tcp.srcport"]
    head += ["tcp.dstport", "udp.srcport", "udp.dstport", "location"]

    def row(second, length, proto, a, b, *ports):
        return [0, 1, f"Apr 30, 2019 19:07:{second} CDT", length + 16, length, proto, a, b, *ports, "home"]

    phone, server = "10.145.1.2", "93.184.216.34"
    rows = [
        row("17.184823000", 60, "6.0", phone, server, "40000.0", "443.0", "", ""),
        row("17.200000000", 64, "17.0", phone, "8.8.8.8", "", "", "5353.0", "53.0"),
        row("17.284823000", 1500, "6.0", server, phone, "443.0", "40000.0", "", ""),
        row("17.300000000", 28, "", "", "", "", "", "", ""),
        row("17.384823000", 52, "6.0", phone, server, "40001.0", "443.0", "", ""),
        row("17.484823000", 870, "6.0", phone, server, "40000.0", "443.0", "", ""),
    ]
    folder = tmp_path / "set" / "Deterministic Automated Data"
    text(folder / "dropbox_man-download_2019-04-30_19-07-09_4fd1c357.csv", head, *rows)
    text(tmp_path / "set" / "Wild Test Data" / "gmail_open_2019-05-01_10-00-00_4fd1c357.csv", head, rows[1])
    store = prepared("utmobilenet-21", tmp_path / "set", tmp_path)
    assert store.session("packets").tolist() == [3, 1, 1, 1]
    assert store.packet("length")[:3].tolist() == [60, 1500, 870]
    assert store.packet("direction")[:3].tolist() == [1, -1, 1]
    assert store.packet("payload_length")[:3].tolist() == [20, 1460, 830]
    assert store.session("start")[0] == np.datetime64("2019-04-30T19:07:17.184823", "ns").astype(int)
    assert store.session("duration")[0] == 300_000_000
    assert store.classes("app") == ["dropbox", "gmail"]
    assert store.classes("action") == ["dropbox man-download", "gmail open"]
    assert set(store.capture_attribute("part").tolist()) == {0, 1}
    rows[2][2] = "yesterday"
    text(folder / "dropbox_man-download_2019-04-30_19-07-09_4fd1c357.csv", head, *rows)
    with pytest.raises(InputError, match="'yesterday', not a time of UTC"):
        prepared("utmobilenet-21", tmp_path / "set", tmp_path)


def test_padding_is_no_packet(tmp_path):
    """NFStream pads its lists with -1."""
    rows = [
        {"splt_direction": [0, 1, -1, -1], "splt_ps": [60, 1400, -1, -1], "splt_piat_ms": [0, 12, -1, -1], "l": "a"},
        {"splt_direction": [-1] * 4, "splt_ps": [-1] * 4, "splt_piat_ms": [-1] * 4, "l": "b"},
        {"splt_direction": [0, 0, 1, 0], "splt_ps": [1, 2, 3, 4], "splt_piat_ms": [0, 1, 1, 1], "l": "b"},
    ]
    (tmp_path / "t").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t" / "nfstream.parquet")
    (tmp_path / "nf.toml").write_text(
        'name = "nf"\ntitle = "t"\nkind = "records"\n[records]\nlengths = "splt_ps"\ndirections = "splt_direction"\n'
        'forward = "0"\npadding = "-1"\ngaps = "splt_piat_ms"\ntime_unit = "ms"\nprotocol = "tcp"\n'
        '[labels]\nkind = "columns"\npaths = { label = "l" }\n[tasks.label]\n'
    )
    store = prepared(tmp_path / "nf.toml", tmp_path / "t", tmp_path)
    assert store.packet("payload_length").tolist() == [60, 1400, 1, 2, 3, 4]
    assert store.packet("direction").tolist() == [1, -1, 1, 1, -1, 1]
    assert store.manifest.skipped == {"no packet listed": 1}


@pytest.mark.parametrize(
    ("name", "folder", "sessions", "packets", "captures"),
    [
        ("iscx-vpn-sequences", "sequences_iscx_vpn", 34_756, 162_308, 134),
        ("vnat-sequences", "sequences_vnat", 33_667, 371_910, 165),
        ("cic-doh", "sequences", 1200, 84_930, 2),
        ("tii-ssrc", "sequences", 960, 80_325, 2),
    ],
)
def test_the_shared_tables(name, folder, sessions, packets, captures, tmp_path):
    if not (SHARED / folder).is_dir():
        pytest.skip(f"{SHARED / folder} is not here")
    store = prepared(name, SHARED / folder, tmp_path)
    manifest = store.manifest
    assert (manifest.sessions, len(manifest.captures)) == (sessions, captures)
    assert manifest.unexpected == [] and manifest.packets == len(store.packet("time"))
    if name == "iscx-vpn-sequences":
        assert manifest.tasks["paper"].sessions == 34_756 and len(manifest.tasks["paper"].classes) == 12
        assert sorted(one["file"].split(".")[0] for one in manifest.files.missing) == [
            "facebook_audio4", "hangouts_audio4", "scp1", "skype_audio3", "skype_file8", "vpn_hangouts_audio1",
            "vpn_hangouts_audio2",
        ]  # fmt: skip
        assert len(manifest.files.unknown) == 9 and manifest.skipped["of a capture that is not listed"] == 101
        assert "records joined to an earlier one of their 5-tuple: 0" in manifest.limits
    if name == "vnat-sequences":
        assert manifest.tasks["vpn"].class_sessions == [33_288, 378]
        assert manifest.tasks["vpn"].class_captures == [83, 82]
    assert "lacks" in brief(manifest)


# --- a card for one's own table ---------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["sequences_iscx_vpn/records.parquet", "sequences_vnat/records.parquet"])
def test_a_guessed_card_gives_what_the_shipped_one_gives(table, tmp_path):
    if not (SHARED / table).is_file():
        pytest.skip(f"{SHARED / table} is not here")
    (tmp_path / "guess.toml").write_text(guessed_card(SHARED / table, "guess"))
    card = find_card(tmp_path / "guess.toml")
    shipped = find_card("vnat-sequences" if "vnat" in table else "iscx-vpn-sequences").records
    for name in ("lengths", "layer", "directions", "gaps", "time_unit", "start", "start_unit", "endpoints", "protocol"):
        assert getattr(card.records, name) == getattr(shipped, name), name
    assert card.records.totals == shipped.totals and card.records.capture == "capture"


def test_new_dataset_as_a_user_types_it(bench_in, tmp_path):
    rows = [
        {"flow": {"src_ip": f"10.0.0.{i}", "dst_ip": "10.1.1.1", "sport": 1000 + i, "dport": 443, "proto": "TCP"},
         "pkts": [{"len": 100 + i, "dir": ">", "iat": 0.0, "time": 0.0},
                  {"len": 900, "dir": "<", "iat": 0.5, "time": 0.5}],
         "first_seen": 1_600_000_000_000 + i, "app_name": "ab"[i % 2]}
        for i in range(6)
    ]  # fmt: skip
    (tmp_path / "My flows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    call = bench_in(tmp_path)
    status, out, err = call("new", "dataset", "My flows.jsonl")
    assert status == 0, err
    assert out.startswith("my-flows.toml: check it") and "bench prepare my-flows.toml" in out
    written = (tmp_path / "my-flows.toml").read_text()
    assert "GUESSED: which bytes do lengths count?" in written
    assert "# not read: pkts.time; name one above" in written
    status, out, err = call("prepare", "my-flows.toml")
    assert status == 0 and "sessions: 6" in out, err
    store = Store.find("my-flows", tmp_path / "home")
    assert store.packet("direction").tolist() == [1, -1] * 6
    assert store.session("start")[0] == 1_600_000_000 * 10**9
    assert store.classes(store.default_task) == ["a", "b"]
    for words, code in (
        (("new", "dataset", "My flows.jsonl"), "unwritable-file"),
        (("new", "dataset", "none.csv"), "missing-file"),
        (("new", "dataset", "My flows.jsonl", "--output", "demo.toml"), "bad-options"),
        (("new", "dataset", "My flows.jsonl", "--output", "x.txt"), "bad-options"),
    ):
        status, _, err = call(*words)
        assert status == 2 and f"[{code}]" in err and err.count("\n") == 1
    (tmp_path / "bare.csv").write_text("a,b\nx,y\n")
    status, _, err = call("new", "dataset", "bare.csv")
    assert status == 2 and "no column of lists of numbers" in err
