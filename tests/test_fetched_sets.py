"""Data sets that are fetched when they are asked for: a server on the loopback address has the shared captures."""

import csv
import io
import re
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest
from loopback import sha256

from bench.data.cards import find_card
from bench.errors import InputError
from bench.files import file_sha256

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
SETS = {"iot-sentinel": SHARED / "iot_sentinel", "ustc-tfc": SHARED / "ustc_tfc2016"}


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
    assert len(rows) == {"iot-sentinel": 550, "ustc-tfc": 2}[name]
    for row in rows:
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
