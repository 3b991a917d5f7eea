"""Data sets that are fetched when they are asked for: a server on the loopback address has the shared captures."""

import csv
import io
import re
import shutil
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from loopback import sha256
from small_captures import pcap, talk

from bench.data.names import find_card
from bench.data.prepare import prepare_dataset
from bench.data.store import Store
from bench.errors import InputError
from bench.files import file_sha256
from bench.records.ndpi import write_labels

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
SETS = {"iot-sentinel": SHARED / "iot_sentinel", "ustc-tfc": SHARED / "ustc_tfc2016", "ndpi-services": SHARED / "ndpi"}
COUNTS = {"iot-sentinel": 550, "ustc-tfc": 2, "ndpi-services": 543}


def rows_of(name):
    with (ROOT / "datasets" / "downloads" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def served(server, folder, name, rows):
    """The card with the server in place of its repository and these rows of its list; the server has the files."""
    text = (ROOT / "datasets" / f"{name}.toml").read_text()
    text = re.sub(r'base = ".*"', f'base = "{server.url("")}"', text)
    text = text.replace(f'name = "{name}"', f'name = "my-{name}"', 1).replace("downloads/", "")
    (folder / f"my-{name}.toml").write_text(text)
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "bytes", "sha256", "url_path"])
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        server.files[quote(row["url_path"])] = (SETS[name] / row["path"]).read_bytes()
    return folder / f"my-{name}.toml"


@pytest.mark.parametrize("name", SETS)
def test_every_listed_file_is_the_shared_one(name):
    if not SETS[name].is_dir():
        pytest.skip(f"{SETS[name]} is not here")
    rows = rows_of(name)
    captures = [row for row in rows if not row["path"].startswith("result/")]  # nDPI's results are not shared
    assert len(captures) == COUNTS[name]
    for row in captures:
        path = SETS[name] / row["path"]
        assert (path.stat().st_size, file_sha256(path)) == (int(row["bytes"]), row["sha256"]), row["path"]
    card = find_card(name)
    assert len(card.downloads) == len(rows) and {one.sha256 for one in card.downloads} == {r["sha256"] for r in rows}
    assert all(
        re.match(r"https://raw\.githubusercontent\.com/[^/]+/[^/]+/[0-9a-f]{40}/", d.url) for d in card.downloads
    )
    assert not any(set(" ()") & set(one.url) for one in card.downloads)


def test_a_run_fetches_verifies_prepares_and_runs(server, bench_in, tmp_path):
    if not SETS["iot-sentinel"].is_dir():
        pytest.skip(f"{SETS['iot-sentinel']} is not here")
    chosen = [row for row in rows_of("iot-sentinel") if re.match(r"captures/(Aria|HueBridge)/", row["path"])]
    card = served(server, tmp_path, "iot-sentinel", chosen)
    call = bench_in(tmp_path)
    words = ("run", "--method", "majority", "--dataset", card, "--task", "all", "--results", tmp_path / "results")
    status, _, err = call(*words)
    assert status == 2 and "is not prepared" in err and "or add --download, which fetches it" in err
    assert not server.asked and not (tmp_path / "home" / "downloads").exists()
    status, out, err = call(*words, "--download")
    assert status == 0, err
    assert f"{len(chosen)} files" in err and "licence: MIT" in err and "majority-capture" in out
    assert len(server.asked) == len(chosen)
    status, _, err = call(*words, "--download")
    assert status == 0 and len(server.asked) == len(chosen)  # it is there


def test_a_wrong_file_is_refused_and_nothing_prepared(server, bench_in, tmp_path):
    if not SETS["ustc-tfc"].is_dir():
        pytest.skip(f"{SETS['ustc-tfc']} is not here")
    card = served(server, tmp_path, "ustc-tfc", rows_of("ustc-tfc"))
    shutil.copy(ROOT / "datasets" / "ustc-tfc.csv", tmp_path / "ustc-tfc-list.csv")
    card.write_text(card.read_text().replace('table = "ustc-tfc.csv"\n\n[switches', 'table = "x.csv"\n\n[switches'))
    text = card.read_text()
    labels = text.index("[labels]")
    card.write_text(text[:labels] + text[labels:].replace('table = "ustc-tfc.csv"', 'table = "ustc-tfc-list.csv"'))
    name = next(iter(server.files))
    server.files[name] += b"more"
    status, _, err = bench_in(tmp_path)("split", card, "--download")
    assert status == 2 and "[wrong-checksum]" in err and sha256(server.files[name]) in err
    assert not (tmp_path / "home" / "stores").exists()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a.pcap,5,zz,u", "64 hexadecimal digits"),
        ("../a.pcap,5," + 64 * "0" + ",u", "relative"),
        ("a.pcap,x," + 64 * "0" + ",u", "needs the columns"),
        ("a.pcap,5," + 64 * "0", "needs the columns"),
    ],
)
def test_a_list_of_downloads_is_checked(tmp_path, row, reason):
    text = io.StringIO(f"path,bytes,sha256,url_path\n{row}\n").getvalue()
    (tmp_path / "d.csv").write_text(text)
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\ntitle = "t"\nlicence = "CC0"\n[download_list]\nbase = "https://example.org/"\ntable = "d.csv"\n'
        "[tasks.label]\n"
    )
    with pytest.raises(InputError, match=reason) as error:
        find_card(tmp_path / "mine.toml")
    assert error.value.code == "bad-file-list" and "d.csv" in str(error.value)


def test_on_a_terminal_it_is_asked(server, bench_in, tmp_path, monkeypatch):
    if not SETS["iot-sentinel"].is_dir():
        pytest.skip(f"{SETS['iot-sentinel']} is not here")
    card = served(server, tmp_path, "iot-sentinel", rows_of("iot-sentinel")[:2])
    asked = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.confirm", lambda text, **_: bool(asked.append(text)))
    status, _, err = bench_in(tmp_path)("split", card, "--task", "all")
    assert status == 2 and "is not prepared" in err and not server.asked
    assert "Fetch it? (2 files" in asked[0]


def flow(number, ends, protocol, said):
    return f"\t{number}\t{ends} [proto: 7.1/{protocol}][IP: 0/Unknown]{said}[1 pkts/60 bytes -> 0 pkts/0 bytes]\n"


RESULT = "Guessed flow protos:\t0\n\n" + "".join(
    [
        flow(1, "TCP 10.0.0.1:5000 <-> 10.0.0.2:443", "TLS.Zoom", "[Encrypted][Confidence: DPI][cat: Video/26]"),
        flow(
            2, "UDP 10.0.0.1:5001 -> 10.0.0.2:53", "DNS.Google", "[ClearText][Confidence: DPI (cache)][cat: Network/14]"
        ),
        flow(3, "TCP [2001:db8::1]:5002 <-> [2001:db8::2]:443", "TLS", "[Encrypted][Confidence: DPI][cat: Web/5]"),
        flow(4, "TCP 10.0.0.1:5003 <-> 10.0.0.2:80", "HTTP", "[ClearText][Confidence: Match by port][cat: Web/5]"),
        flow(5, "TCP [2001::3::4]:5004 <-> [2001:db8::2]:443", "TLS", "[Encrypted][Confidence: DPI]"),
        flow(6, "ICMP 10.0.0.1:0 -> 10.0.0.2:0", "ICMP", "[ClearText][Confidence: DPI]"),
        flow(7, "TCP 10.0.0.1:5005 <-> 10.0.0.2:443", "TLS.WhatsApp", "[Encrypted][Confidence: DPI][cat: Chat/9]"),
        flow(8, "UDP 10.0.0.1:5006 <-> 10.0.0.2:443", "QUIC.WhatsApp", "[Encrypted][Confidence: DPI][cat: Chat/9]"),
        flow(9, "UDP 10.0.0.1:5007 <-> 10.0.0.2:1194", "OpenVPN", "[Encrypted][Confidence: DPI][cat: VPN/2]"),
        "\t10\tUDP 10.0.0.1:5008 <-> 10.0.0.2:2152 [proto: GTP:87/RTP][Encrypted][Confidence: DPI][cat: Media/1]\n",
    ]
)


def test_labels_are_made_of_ndpi_s_results(tmp_path):
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "a.pcap.out").write_text(RESULT)
    assert write_labels(tmp_path / "result", tmp_path / "labels.csv") == 1  # nDPI's own slip: two "::"
    with (tmp_path / "labels.csv").open(newline="") as file:
        rows = {row["client_port"]: row for row in csv.DictReader(file)}
    assert {row["capture"] for row in rows.values()} == {"captures/a.pcap"}
    assert {port: row["label"] for port, row in rows.items()} == {
        "5000": "rtc_voip", "5001": "plain_dns", "5002": "tls_web", "5003": "", "5005": "messenger",
        "5006": "quic_web", "5007": "vpn_tunnel", "5008": "rtc_voip",
    }  # fmt: skip
    assert (rows["5002"]["client_ip"], rows["5002"]["server_port"]) == ("2001:db8::1", "443")
    assert [rows[port]["ndpi_encrypted"] for port in ("5000", "5001")] == ["Encrypted", "ClearText"]
    with pytest.raises(InputError, match="has no result file of nDPI"):
        write_labels(tmp_path / "none", tmp_path / "labels.csv")


def test_results_are_fetched_with_their_captures_and_become_labels(server, bench_in, tmp_path):
    captures = {f"captures/{n}.pcap": pcap(talk(5000, b"abc", 1000.0 + n)) for n in range(3)}
    line = flow(1, "UDP 10.0.0.1:5000 <-> 10.0.0.2:443", "QUIC", "[Encrypted][Confidence: DPI][cat: Web/5]")
    files = captures | {f"result/{n}.pcap.out": line.encode() for n in range(3)}
    rows = [
        {"path": path, "bytes": len(data), "sha256": sha256(data), "url_path": path} for path, data in files.items()
    ]
    server.files |= {path: data for path, data in files.items()}
    text = re.sub(r'base = ".*"', f'base = "{server.url("")}"', (ROOT / "datasets" / "ndpi-services.toml").read_text())
    text = text.replace("downloads/", "").replace('name = "ndpi', 'name = "my-ndpi')
    (tmp_path / "my-ndpi-services.toml").write_text(text)
    with (tmp_path / "ndpi-services.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "bytes", "sha256", "url_path"])
        writer.writeheader()
        writer.writerows(rows)
    call = bench_in(tmp_path)
    for _ in range(2):  # the second finds all there
        status, out, err = call("prepare", "my-ndpi-services.toml", "--download")
        assert status == 0, err
    assert "encrypted: 3 sessions in 1 class" in out and len(server.asked) == 6


def test_ndpi_labels_agree_with_those_that_others_made(tmp_path):
    """With the time of each flow, which nDPI does not print."""
    if not SETS["ndpi-services"].is_dir():
        pytest.skip(f"{SETS['ndpi-services']} is not here")
    text = (ROOT / "datasets" / "ndpi-services.toml").read_text().replace('name = "ndpi', 'name = "timed-ndpi')
    text = re.sub(r"\[download_list\].*?(?=\[captures\])", "", text, flags=re.S)
    checks = '{ packets = "packets", payload_packets = "payload_packets", payload_bytes = "payload_bytes" }'
    text = text.replace('protocol = "l4"\n', f'protocol = "l4"\nstart = "first_ts"\ncheck = {checks}\n')
    (tmp_path / "timed-ndpi-services.toml").write_text(text)
    stores = []
    for card in (find_card("ndpi-services"), find_card(tmp_path / "timed-ndpi-services.toml")):
        prepared = prepare_dataset(card, SETS["ndpi-services"], home=tmp_path)
        assert prepared.manifest.unexpected == []
        stores.append(Store.open(prepared.store_path))
    for task in stores[0].tasks:
        assert stores[0].classes(task) == stores[1].classes(task)
        np.testing.assert_array_equal(stores[0].labels(task), stores[1].labels(task))
