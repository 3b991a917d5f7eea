import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from refusals import refused

from bench.data import store as store_module
from bench.data.manifest import FORMAT, Manifest, bench_home, store_path
from bench.data.store import COLUMN_FILES, Store, as_array, column_file, write_columns
from bench.files import file_sha256, plain
from bench.schema import NO_CLASS, PACKET_COLUMNS, SESSION_COLUMNS

EMPTY = {
    "format": FORMAT, "name": "mine", "card": "", "options": {}, "packets": 0, "sessions": 0,
    "tasks": {}, "default_task": "", "captures": [], "unreadable": [],
}  # fmt: skip


@pytest.fixture
def written(tmp_path):
    """A store of three sessions in two captures, written by hand, and its columns."""
    source, folder = tmp_path / "source", tmp_path / "home" / "stores" / "mine"
    (source / "a").mkdir(parents=True)
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    packets = {n: random.integers(0, 100, 7).astype(t) for n, t in PACKET_COLUMNS.items()}
    sessions = {n: random.integers(0, 100, 3).astype(t) for n, t in SESSION_COLUMNS.items()}
    sessions["client_ip"] = np.array([b"\x0a\0\0\x01", b"\0\0\0\0", b"\xff" * 16], "S16")
    sessions["capture"] = np.array([0, 0, 1], np.int32)
    sessions |= {"packets": np.array([2, 4, 1]), "first_packet": np.array([0, 2, 6])}
    sessions["conversation"] = np.array([0, 2, 1], np.int32)
    packets |= {"record": np.array([0, 0, 1, 0, 0, 0, 1]), "ip": np.array([1, 0, 1, 0, 0, 0, 2], np.uint16)}
    packets["captured"] = np.array([2, 3, 1, 0, 0, 0, 2], np.uint32)
    captures = []
    for name, content in (("a/1.pcap", b"one"), ("a/2.pcap", b"three")):
        (source / name).write_bytes(content)
        digest = file_sha256(source / name)
        sizes = {"size": len(content), "bytes": len(content)}
        captures.append({"path": name, **sizes, "sha256": digest, "group": "g", "attributes": {}})
    captures[1]["group"] = "f"
    labels = np.array([1, NO_CLASS, 0], np.int16)
    write_columns(folder / "packets.arrow", packets)
    write_columns(folder / "sessions.arrow", sessions | {"task:t": labels})
    counts = {"packets": len(packets["time"]), "sessions": len(sessions["start"])}
    manifest = EMPTY | counts | {"default_task": "t", "captures": captures}
    manifest["tasks"] = {"t": {"classes": ["x", "y"]}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    mtimes = {c["path"]: (source / c["path"]).stat().st_mtime_ns for c in captures}
    (folder / "sources.json").write_text(json.dumps({"root": str(source), "mtime_ns": mtimes, "unpacked": {}}))
    return folder, packets, sessions | {"task:t": labels}, source


def test_columns_come_back_as_they_were_written(written):
    folder, packets, sessions, _ = written
    store = Store.open(folder)
    for name in PACKET_COLUMNS:
        column = store.packet(name)
        assert column.dtype == PACKET_COLUMNS[name]
        np.testing.assert_array_equal(column, packets[name])
    for name in SESSION_COLUMNS:
        assert store.session(name).dtype == SESSION_COLUMNS[name]
        np.testing.assert_array_equal(store.session(name), sessions[name])
    assert store.labels("t").tolist() == [1, NO_CLASS, 0]
    assert store.classes("t") == ["x", "y"]
    assert (store.tasks, store.default_task, store.name) == (["t"], "t", "mine")
    assert store.capture_group().tolist() == [1, 1, 0]
    assert store.capture_group().dtype == np.int32


def test_an_attribute_is_the_cards_or_a_pattern_over_paths(written):
    store = Store.open(written[0])
    paths = [capture.path for capture in store.manifest.captures]
    by_path = [sorted(paths).index(path) for path in paths]
    expected = np.array(by_path, np.int32)[store.session("capture")]
    assert store.capture_attribute("name=(.+)").tolist() == expected.tolist()
    with refused("unknown-attribute", "'name=nothing'"):
        store.capture_attribute("name=nothing")
    with refused("bad-pattern"):
        store.capture_attribute("name=(")
    with refused("unknown-attribute", "'person'"):
        store.capture_attribute("person")


def test_columns_are_views_of_the_file_and_cannot_be_written(written):
    store = Store.open(written[0])
    for column in (store.packet("time"), store.session("client_ip"), store.labels("t"), store.capture_bytes(0)):
        assert not column.flags.writeable
        assert not column.flags.owndata
        with pytest.raises(ValueError):
            column.flags.writeable = True
    first = store.packet("time").__array_interface__["data"][0]
    assert store.packet("time").__array_interface__["data"][0] == first  # the same mapping, not a copy


def test_empty_columns_come_back(tmp_path):
    write_columns(tmp_path / "packets.arrow", {n: np.zeros(0, t) for n, t in PACKET_COLUMNS.items()})
    (tmp_path / "manifest.json").write_text(json.dumps(EMPTY))
    store = Store.open(tmp_path)
    assert store.packet("time").shape == (0,)
    assert store.packet("time").dtype == np.int64


def test_a_memory_mapped_column_is_written(tmp_path):
    np.arange(1000, dtype=np.int64).tofile(tmp_path / "column")
    write_columns(tmp_path / "packets.arrow", {"time": np.memmap(tmp_path / "column", np.int64, mode="r")})
    (tmp_path / "manifest.json").write_text(json.dumps(EMPTY | {"packets": 1000}))
    np.testing.assert_array_equal(Store.open(tmp_path).packet("time"), np.arange(1000))


def test_capture_bytes_are_checked(written):
    folder, *_, source = written
    first, second = source / "a" / "1.pcap", source / "a" / "2.pcap"
    assert Store.open(folder).capture_bytes(0).tobytes() == b"one"
    first.write_bytes(b"one")  # another time of change, the same bytes
    assert Store.open(folder).capture_bytes(0).tobytes() == b"one"
    first.write_bytes(b"two")
    with refused("capture-changed", "1.pcap"):
        Store.open(folder).capture_bytes(0)
    first.write_bytes(b"more")
    with refused("capture-changed", "4 bytes", "had 3"):
        Store.open(folder).capture_bytes(0)
    store = Store.open(folder)
    assert store.capture_bytes(1).tobytes() == b"three"
    second.unlink()
    assert store.capture_bytes(1).tobytes() == b"three"  # looked at once, mapped since
    with refused("capture-changed", "2.pcap"):
        Store.open(folder).capture_bytes(1)


def test_the_digest_is_of_the_manifest(written):
    folder = written[0]
    before = Store.open(folder).digest
    assert Store.open(folder).digest == before
    (folder / "sources.json").write_text("{}")
    assert Store.open(folder).digest == before
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"packets": 1}))
    assert Store.open(folder).digest != before


def test_what_is_not_there_is_an_input_error(written, tmp_path):
    folder = written[0]
    assert Store.find("mine", tmp_path / "home").path == folder
    with refused("not-prepared", "'nothing'", "--source DIR"):
        Store.find("nothing", tmp_path / "home")
    with refused("not-prepared", "`bench prepare demo`"):
        Store.find("demo", tmp_path / "home")
    with refused("unknown-task", "'u'"):
        Store.open(folder).labels("u")
    with refused("store-damaged"):
        Store.open(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "sessions.arrow").write_bytes(b"ARROW1 cut")
    with refused("store-damaged", "sessions.arrow"):
        Store.open(folder).session("start")
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format": 0}))
    with refused("store-format", "format 0"):
        Store.open(folder)


def test_home_is_the_variable_or_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path))
    assert store_path("x") == tmp_path / "stores" / "x"
    monkeypatch.delenv("BENCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert bench_home() == tmp_path / "cache" / "etc-bench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert bench_home() == tmp_path / ".cache" / "etc-bench"


@pytest.mark.parametrize("text", ["[]", "null", '{"format": 1}', "{"])
def test_a_manifest_that_is_none_is_refused(written, text):
    (written[0] / "manifest.json").write_text(text)
    with refused("store-format" if text != "{" else "store-damaged", "bench prepare"):
        Store.open(written[0])


@pytest.mark.parametrize("text", ["[]", "{}", "{"])
def test_damaged_sources_are_refused(written, text):
    (written[0] / "sources.json").write_text(text)
    with refused("store-damaged", "sources.json"):
        Store.open(written[0]).capture_path(0)


def test_tables_of_another_manifest_are_refused(written):
    manifest = json.loads((written[0] / "manifest.json").read_text())
    (written[0] / "manifest.json").write_text(json.dumps(manifest | {"packets": manifest["packets"] + 1}))
    with refused("store-damaged"):
        Store.open(written[0]).check_columns()


def rewrite(folder, table, column, value, row=1):
    """Give one row of a column another value, as damage or ill will would."""
    store = Store.open(folder)
    kinds = PACKET_COLUMNS if table == "packets" else SESSION_COLUMNS | {"task:t": np.dtype("int16")}
    path = folder / f"{table}.arrow"
    batch = pa.ipc.open_file(path).get_batch(0)
    columns = {name: as_array(batch.column(name), kind).copy() for name, kind in kinds.items()}
    columns[column][row] = value
    write_columns(path, columns)
    return store


OUTSIDE = {
    "packets": (8, -1, 2**40),
    "first_packet": (4, -1, 2**40, 2**63 - 1),  # 4: with four packets it leads beyond the seventh
    "capture": (2, -1, 2**31 - 1),
    "conversation": (3, -1),
    "task:t": (2, -2),
}


@pytest.mark.parametrize(("column", "value"), [(name, value) for name in OUTSIDE for value in OUTSIDE[name]])
def test_a_session_that_points_outside_is_one_line(written, column, value):
    store = rewrite(written[0], "sessions", column, value)
    for ask in (lambda: store.session("packets"), lambda: store.labels("t"), store.capture_group):
        with refused(
            "store-damaged", "sessions.arrow", column, value, "session 1", "bench prepare mine --source ", "--rebuild`"
        ):
            ask()


@pytest.mark.parametrize(
    ("column", "value"),
    [("record", 4), ("record", -1), ("record", -(2**40)), ("record", 2**63 - 1), ("ip", 9), ("captured", 2**32 - 1)],
)
def test_a_packet_outside_of_its_capture_is_one_line(written, column, value):
    store = rewrite(written[0], "packets", column, value, row=2)
    for ask in (lambda: store.capture_bytes(0), store.verify):
        with refused("store-damaged", "packets.arrow", "packet 2", value, "1.pcap", "3 bytes"):
            ask()
    assert store.capture_bytes(1).tobytes() == b"three"  # whose packets lie in it


def test_a_session_of_many_packets_does_not_end_the_process(written):
    """Compiled code would read a terabyte behind the columns: this must be a line, not a segmentation fault."""
    code = (
        "import sys; from pathlib import Path; import numpy as np; from bench.data.store import Store\n"
        "from bench.readers import View; from bench.schema import Samples; from bench.errors import InputError\n"
        "store, row = Store.open(Path(sys.argv[1])), np.array([1])\n"
        "try: View(store, Samples(row, 0 * row, np.array([10**9])), ['lengths']).counts(payload_only=True)\n"
        "except InputError as error: print(error.code)"
    )
    for column, value in (("packets", 10**6), ("first_packet", 2**40)):
        rewrite(written[0], "sessions", column, value)
        done = subprocess.run([sys.executable, "-c", code, written[0]], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "store-damaged\n"), done.stderr
        rewrite(written[0], "sessions", column, 2)


def with_checksums(folder):
    """The store as today's code writes it."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["columns"] = {name: plain(column_file(folder / name)) for name in COLUMN_FILES}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    sources = json.loads((folder / "sources.json").read_text())
    sources["columns_mtime_ns"] = {name: (folder / name).stat().st_mtime_ns for name in COLUMN_FILES}
    (folder / "sources.json").write_text(json.dumps(sources))


def test_a_flipped_byte_of_the_manifest_is_damage(written):
    folder, *_ = written
    whole = Store.open(folder).manifest.to_dict()
    without = {name: value for name, value in whole.items() if name != "sha256"}
    digests = []
    for content in (without, whole):  # of before, and of today
        (folder / "manifest.json").write_text(json.dumps(content))
        digests.append(Store.open(folder).digest)
    assert digests[0] == digests[1]
    for changed in ({"packets": 8}, {"labels": {"x": 1}}, {"sha256": "0" * 64}):
        (folder / "manifest.json").write_text(json.dumps(whole | changed))
        with refused("store-damaged", folder, "is not what was written", "bench prepare mine"):
            Store.open(folder)


def test_checksums_do_not_change_what_a_store_is(written):
    before = Store.open(written[0])
    with_checksums(written[0])
    after = Store.open(written[0])
    assert after.digest == before.digest and after.manifest.columns and not before.manifest.columns
    assert Manifest.to_dict(after.manifest)["columns"] == plain(after.manifest.columns)


@pytest.mark.parametrize("table", ["packets", "sessions"])
def test_a_changed_column_is_one_line_though_its_rows_point_inside(written, table):
    folder = written[0]
    with_checksums(folder)
    column = {"packets": "time", "sessions": "start"}[table]
    rewrite(folder, table, column, 12345)
    for ask in (Store.check_columns, Store.verify, lambda store: getattr(store, table[:-1])(column)):
        with refused("store-damaged", f"{table}.arrow", "SHA-256", "bench prepare mine --source ", "--rebuild`"):
            ask(Store.open(folder))
    (folder / f"{table}.arrow").write_bytes(b"ARROW1 cut")
    with refused("store-damaged", f"{table}.arrow", "10 bytes"):
        Store.open(folder).check_columns()
    (folder / f"{table}.arrow").unlink()
    with refused("store-damaged", f"{table}.arrow", "gone"):
        Store.open(folder).check_columns()


def test_columns_are_read_in_full_only_where_their_time_leaves_a_doubt(written, monkeypatch):
    folder, hashed = written[0], []
    with_checksums(folder)
    real = store_module.file_sha256
    monkeypatch.setattr(store_module, "file_sha256", lambda path: hashed.append(path.name) or real(path))
    Store.open(folder).check_columns()
    assert hashed == []
    os.utime(folder / "packets.arrow")  # copied, perhaps
    Store.open(folder).check_columns()
    assert hashed == ["packets.arrow"]
    Store.open(folder).check_columns()  # and remembered
    assert hashed == ["packets.arrow"]
    assert Store.open(folder).sources.mtime_ns == json.loads((folder / "sources.json").read_text())["mtime_ns"]
    Store.open(folder).verify()
    assert sorted(hashed[1:]) == ["1.pcap", "2.pcap", "packets.arrow", "sessions.arrow"]


def test_verify_finds_what_sizes_and_times_hide(written):
    folder, *_, source = written
    with_checksums(folder)
    damages = {
        folder / "packets.arrow": ("store-damaged", lambda path: rewrite(folder, "packets", "time", 12345)),
        source / "a" / "1.pcap": ("capture-changed", lambda path: path.write_bytes(b"two")),
    }
    for path, (code, damage) in damages.items():
        was, times = path.read_bytes(), path.stat()
        damage(path)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        Store.open(folder).check_columns()
        with refused(code, path.name):
            Store.open(folder).verify()
        path.write_bytes(was)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    Store.open(folder).verify()


def test_columns_can_be_used_where_nobody_knows_the_captures(written):
    with_checksums(written[0])
    (written[0] / "sources.json").unlink()
    assert Store.open(written[0]).session("packets").tolist() == [2, 4, 1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda columns: columns.pop("capture"), "no column capture"),
        (
            lambda columns: columns.update(capture=columns["capture"].astype(np.int64)),
            "capture is int64, must be int32",
        ),
        (lambda columns: columns.pop("task:t"), "no column task:t"),
    ],
)
def test_a_table_without_a_column_or_of_another_type_is_one_line(written, change, said):
    folder, _, sessions, _ = written
    columns = dict(sessions)
    change(columns)
    write_columns(folder / "sessions.arrow", columns)
    with refused("store-damaged", "sessions.arrow", said):
        Store.open(folder).session("start")
    write_columns(folder / "packets.arrow", {"time": np.zeros(7, np.int64)})
    with refused("store-damaged", "packets.arrow", "no column record"):
        Store.open(folder).packet("record")
