"""Tables and cards of flow records that are not as they should be: a line with the place, and nothing half-done."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from record_tables import CARD, PLAIN, ROWS, WRITERS, made, store_of

from bench.cli.text import brief
from bench.data.card_tables import Task
from bench.data.labels import LabelTable, task_labels
from bench.data.names import find_card
from bench.data.prepare import open_dataset, prepare_dataset
from bench.data.store import Store
from bench.errors import InputError
from bench.records.cells import BadCell, lists
from bench.records.guess import guessed_card

BAD_CELLS = {
    "lists of unequal length": ({"gaps": [1, 2]}, "record 2: sizes lists 3 packets, gaps 2"),
    "lists of directions": ({"dirs": [1]}, "record 2: sizes lists 3 packets, dirs 1"),
    "a negative length": ({"sizes": [1, -5, 3]}, "record 2: sizes has -5; are lengths signed"),
    "a huge length": ({"sizes": [1, 2**31, 3]}, "record 2: sizes has 2147483648, more than a packet holds"),
    "no address": ({"src": "ten"}, "record 2: src is 'ten', not an IP address"),
    "an empty address": ({"src": ""}, "record 2: src is empty"),
    "no port": ({"dport": 70000}, "record 2: dport is 70000, not a port"),
    "an empty number": ({"sizes": [1, None, 3]}, "record 2: sizes is empty"),
    "no time": ({"start": 1e30}, "is not a time; is it in another unit"),
    "an infinite time": ({"start": float("inf")}, "record 2: start is not a finite number"),
    "a year for a start": ({"start": "2019"}, "record 2: start is '2019', not a time of UTC"),
    "now for a start": ({"start": "now"}, "record 2: start is 'now', not a time of UTC"),
    "nothing for a start": ({"start": ""}, "record 2: start is '', not a time of UTC"),
    "a time far off": ({"start": "3022-10-31T00:00:00"}, "record 2: start is '3022-10-31T00:00:00', not a time of UTC"),
    "another zone": ({"start": "2022-10-31T00:00:00+02:00"}, "not a time of UTC"),
    "half a byte": ({"sizes": [1.0, 2.5, 3.0]}, "record 2: sizes has 2.5, no whole number of bytes"),
    "half a port": ({"dport": 443.5}, "record 2: dport is 443.5, not a port"),
    "addresses of two kinds": (
        {"dst": "2001:db8::9"},
        "record 2: dst is 2001:db8::9, and the other address of another",
    ),
    "gaps beyond all time": ({"gaps": [2**62 // 10**6, 2**62 // 10**6, 2**62 // 10**6]}, "sum up to no time"),
    "an empty start": ({"start": None}, "record 2: start is empty"),
}


@pytest.mark.parametrize("case", BAD_CELLS)
def test_a_bad_cell_is_a_line_with_its_place(tmp_path, case):
    change, reason = BAD_CELLS[case]
    written = isinstance(change.get("start"), str)  # then all starts are
    first = {"start": "2022-10-31T00:00:00"} if written else {}
    with pytest.raises(InputError) as error:
        made(tmp_path, [ROWS[1] | first, ROWS[0] | change])
    assert error.value.code == "bad-record" and reason in str(error.value) and "t.parquet" in str(error.value)
    assert not (tmp_path / "home" / "stores" / "mine").exists()


@pytest.mark.parametrize("table", [name for name in WRITERS if name not in ("t.csv", "t.tsv", "t.jsonl")])
def test_half_a_table_is_a_line(tmp_path, table):
    rows = [ROWS[0] | {"sport": 1 + i} for i in range(300)]
    (tmp_path / "tables").mkdir()
    WRITERS[table](tmp_path / "whole", rows)
    content = (tmp_path / "whole").read_bytes()
    (tmp_path / "tables" / table).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError) as error:
        store_of(tmp_path, PLAIN)
    assert error.value.code == "bad-table" and table in str(error.value) and "\n" not in str(error.value)


def test_what_is_no_table_of_the_card(tmp_path):
    with pytest.raises(InputError, match=r"has no column 'sizes'.* it has: capture"):
        made(tmp_path, [{k: v for k, v in row.items() if k != "sizes"} for row in ROWS])
    (tmp_path / "tables" / "t.parquet").unlink()
    with pytest.raises(InputError) as error:
        prepare_dataset(find_card(tmp_path / "mine.toml"), tmp_path / "tables", home=tmp_path)
    assert error.value.code == "no-capture"
    with pytest.raises(InputError) as error:
        made(tmp_path / "none", ROWS[2:])
    assert error.value.code == "no-packets" and "1 records: no packet listed" in str(error.value)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ('layer = "link"', "layer"),
        ('start_unit = "h"', "start_unit"),
        ('times = "x"', "cannot be used with times"),
        ("signed = true", "cannot be used with signed"),
        ("limit = -1", "0 or more"),
        ('totals = ["a..b"]', "write NAME"),
    ],
)
def test_a_card_of_records_is_checked(tmp_path, more, reason):
    (tmp_path / "mine.toml").write_text(CARD.format(more=more, task=""))
    with pytest.raises(InputError, match=reason) as error:
        find_card(tmp_path / "mine.toml")
    assert error.value.code == "bad-card"


def test_a_card_is_of_one_kind(tmp_path):
    text = PLAIN
    for changed, reason in (
        (text.replace('kind = "records"\n', ""), "need each other"),
        (text.replace('kind = "records"', 'kind = "tables"'), "there are: captures, records"),
        (
            'name = "mine"\ntitle = "t"\n[labels]\nkind = "columns"\npaths = { label = "l" }\n[tasks.label]\n',
            "records only",
        ),
        (
            text.replace('kind = "columns"\npaths = { label = "label" }', 'kind = "sessions"\nfile = "l.csv"'),
            "label file",
        ),
    ):
        (tmp_path / "mine.toml").write_text(changed)
        with pytest.raises(InputError, match=reason):
            find_card(tmp_path / "mine.toml")


def test_a_changed_table_is_read_again(tmp_path):
    first = made(tmp_path)
    assert made(tmp_path).digest == first.digest
    second = made(tmp_path, [ROWS[0] | {"label": "other"}, *ROWS[1:]])
    assert second.digest != first.digest and second.classes("label") == ["dns", "other"]
    (tmp_path / "tables" / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="changed since mine was prepared"):
        second.verify()
    with pytest.raises(InputError, match="hold no bytes"):
        second.capture_bytes(0)


# --- what a reader found ----------------------------------------------------------------------------------------


def test_more_classes_than_numbers_for_them():
    table = LabelTable(np.arange(32_768), {"label": [str(i) for i in range(32_768)]}, {})
    sessions = {"payload_packets": np.ones(32_768, int), "capture": np.zeros(32_768, int)}
    with pytest.raises(InputError, match="32,768 classes, more than 32,767; name a column of classes") as error:
        task_labels(Task(), table, sessions)
    assert error.value.code == "bad-card"
    few = LabelTable(table.row[:-1], {"label": table.columns["label"][:-1]}, {})
    labels, _ = task_labels(Task(), few, {name: column[:-1] for name, column in sessions.items()})
    assert labels.min() == 0 and labels.max() == 32_766


@pytest.mark.parametrize("names", [["caf\u00e9", "cafe\u0301"], ["web", "web "], ["web mail", "web  mail"]])
def test_classes_that_nobody_could_tell_apart(names):
    """However they are labelled; naming one of the two in ``merge`` mends it."""
    table = LabelTable(np.arange(2), {"label": names}, {})
    sessions = {"payload_packets": np.ones(2, int), "capture": np.zeros(2, int)}
    with pytest.raises(
        InputError, match=r"^label 'label': classes '.*' and '.*' are one name in two forms.*merge"
    ) as error:
        task_labels(Task(), table, sessions)
    assert error.value.code == "bad-card"
    assert task_labels(Task(merge={names[1]: names[0]}), table, sessions)[1].classes == names[:1]


PACKETS = """name = "shark"
title = "t"
kind = "records"
[records]
rows = "packets"
endpoints = ["`ip.src`", "sport", "`ip.dst`", "dport"]
protocol = "`ip.proto`"
lengths = "`ip.len`"
layer = "ip"
times = "t"
[labels]
kind = "pattern"
pattern = "(?P<label>[a-z])"
[tasks.label]
"""
HEAD = "t,ip.src,ip.dst,sport,dport,ip.proto,ip.len\n"


def packet_rows(folder, **files):
    (folder / "tables").mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / "tables" / f"{name}.csv").write_text(HEAD + text)
    return store_of(folder, PACKETS)


def test_packets_of_other_kinds_are_left_out_and_counted(tmp_path):
    good = "2,10.0.0.2,10.0.0.1,443,5000,6,90\n1,10.0.0.1,10.0.0.2,5000,443,6,60\n"
    icmp = '3,"10.0.0.2,10.0.0.1","10.0.0.1,10.0.0.2",,,"1,17","56,40"\n'
    store = packet_rows(tmp_path, a=good + icmp + "4,,,,,,\n", b="", c="1,,,,,,28\n")
    assert store.manifest.skipped == {"packet not TCP or UDP": 1, "packet without addresses": 2}
    assert store.packet("length").tolist() == [60, 90]  # by time, whatever the file's order
    assert store.packet("direction").tolist() == [1, -1] and store.session("client_port").tolist() == [5000]


def test_a_card_s_word_on_joining_counts_anew(tmp_path):
    rows = [ROWS[0], ROWS[0] | {"start": 130.0}]
    made(tmp_path, rows)
    card = tmp_path / "mine.toml"
    text = CARD.format(more="join = true", task="").replace(
        'kind = "records"', f'kind = "records"\nsource = "{tmp_path / "tables"}"'
    )
    card.write_text(text)
    assert open_dataset(str(card), home=tmp_path / "home").manifest.sessions == 1
    card.write_text(text.replace("join = true", ""))
    assert open_dataset(str(card), home=tmp_path / "home").manifest.sessions == 2
    card.write_text(text.replace("join = true", "").replace('start = "start"', ""))
    assert open_dataset(str(card), home=tmp_path / "home").manifest.sessions == 2


def test_records_have_no_observed_labels(tmp_path):
    (tmp_path / "mine.toml").write_text(CARD.format(more="", task='where = { tls = ["1"] }'))
    with pytest.raises(InputError, match="column 'tls' is read off payload, which records do not hold"):
        find_card(tmp_path / "mine.toml")


@pytest.mark.parametrize("kind", ["large_string", "dictionary"])
def test_text_of_other_kinds(tmp_path, kind):
    rows = [row | {"start": "2022-10-31T00:00:00.25", "total": "9"} for row in ROWS[:2]]
    table = pa.Table.from_pylist(rows)
    for name in ("capture", "src", "dst", "start", "label", "total"):
        cells = table.column(name).combine_chunks()
        cells = cells.cast(pa.large_string()) if kind == "large_string" else cells.dictionary_encode()
        table = table.set_column(table.schema.get_field_index(name), name, cells)
    (tmp_path / "tables").mkdir()
    pq.write_table(table, tmp_path / "tables" / "t.parquet")
    store = store_of(tmp_path, CARD.format(more='totals = ["total"]', task=""))
    assert store.session("start").tolist() == [1_667_174_400_253_000_000, 1_667_174_400_250_000_000]
    assert store.manifest.limits[0].startswith("2 of 2 sessions have more packets")
    assert 'lengths = "sizes"' in guessed_card(tmp_path / "tables" / "t.parquet", "x")


def test_a_bad_port_is_told_by_its_own_row(tmp_path):
    with pytest.raises(InputError, match="record 3: sport is 70000, not a port"):
        made(tmp_path, [ROWS[1], ROWS[3], ROWS[0] | {"sport": 70_000}])


def test_a_sign_of_nothing_is_refused(tmp_path):
    card = CARD.replace('directions = "dirs"\n', "signed = true\n")
    (tmp_path / "tables").mkdir()
    pq.write_table(pa.Table.from_pylist([ROWS[0] | {"sizes": [5, 0, -1]}]), tmp_path / "tables" / "t.parquet")
    with pytest.raises(InputError, match="record 1: sizes has 0, which has no sign"):
        store_of(tmp_path, card.format(more="", task=""))


def test_what_joy_writes(tmp_path):
    """A packet without a length, and records in which nothing came back but all is written as if it did."""
    rows = [ROWS[0] | {"sizes": [5, None, 7], "dirs": [-1, -1, -1], "back": 0}, ROWS[1] | {"back": 1}]
    store = made(tmp_path, rows, more='returned = "back"\nwithout_length = 0')
    assert store.packet("payload_length").tolist() == [5, 0, 7, 40, 300]
    assert store.packet("direction").tolist() == [1, 1, 1, 1, -1]
    assert "packets without a length, taken for 0 bytes: 1" in store.manifest.limits


def test_json_of_every_shape(tmp_path):
    """One line of more than a block; keys that the first row lacks; a list with something that is no row."""
    rows = [ROWS[0] | {"label": "web", "pad": "x" * 5_000_000}, ROWS[1] | {"pad": "y" * 5_000_000}]
    del rows[0]["label"]
    (tmp_path / "tables").mkdir()
    for content in (rows, {"a": rows[0], "b": rows[1]}):
        (tmp_path / "tables" / "t.json").write_text(json.dumps(content))
        store = store_of(tmp_path, PLAIN)
        assert store.manifest.sessions == 2 and store.labels("label").tolist() == [-1, 0]
    (tmp_path / "tables" / "t.json").write_text(json.dumps([*rows, 7]))
    with pytest.raises(InputError, match="neither a list nor an object of rows"):
        store_of(tmp_path, PLAIN)


def test_a_guess_for_names_with_dots_and_other_directions(tmp_path):
    rows = [{"a.b": [60, 70], "splt.dir": [0, 1], "lab.el": "x\ny"}, {"a.b": [61], "splt.dir": [0], "lab.el": "z"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    (tmp_path / "guess.toml").write_text(guessed_card(tmp_path / "t.parquet", "guess"))
    assert all("GUESSED" in line for line in (tmp_path / "guess.toml").read_text().splitlines() if "a.b" in line)
    card = find_card(tmp_path / "guess.toml")
    assert (card.records.lengths, card.records.directions, card.records.forward) == ("`a.b`", "`splt.dir`", "0")
    assert Store.open(prepare_dataset(card, home=tmp_path).store_path).packet("direction").tolist() == [1, -1, 1]


def test_a_guessed_class_column_counts_no_empty_cell_and_a_task_tells_what_it_leaves_out(tmp_path):
    rows = [{"sizes": [60, 70], "label": label} for label in ("x", "y", "", "x", "")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    (tmp_path / "guess.toml").write_text(guessed_card(tmp_path / "t.parquet", "guess"))
    assert "GUESSED: 2 values in the first rows, 2 rows without one" in (tmp_path / "guess.toml").read_text()
    manifest = Store.open(prepare_dataset(find_card(tmp_path / "guess.toml"), home=tmp_path).store_path).manifest
    told = brief(manifest)["tasks"]["label"]
    assert told.startswith("3 sessions in 2 classes; 2 of 5 sessions are not used (no label")


def test_what_is_not_looked_at_is_told(tmp_path):
    from bench.spec import SplitSpec
    from bench.splits.split import make_split

    rows = [ROWS[0] | {"capture": f"c{i}", "sport": i + 1, "label": "ab"[i % 2]} for i in range(20)]
    split = make_split(made(tmp_path, rows), "label", SplitSpec("session"))
    assert any("not looked at, the data set holds no payload" in line for line in split.remarks)


def test_a_word_for_the_source_that_never_stands_there(tmp_path):
    with pytest.raises(InputError, match="forward = 'out' is never in dirs; say in its card what does") as error:
        made(tmp_path, [row | {"dirs": ["up" for _ in row["dirs"]]} for row in ROWS[:2]], more='forward = "out"')
    assert error.value.code == "bad-card"
    rows = [row | {"dirs": [" OUT" if one == 1 else "in " for one in row["dirs"]]} for row in ROWS[:2]]
    assert made(tmp_path, rows, more='forward = "out"').packet("direction").tolist() == [1, -1, 1, 1, -1]


def test_totals_below_what_is_listed_count_as_what_is_listed(tmp_path):
    rows = [ROWS[0] | {"total": 1}, ROWS[1] | {"total": 5}]
    assert made(tmp_path, rows, more='totals = ["total"]').manifest.limits[0].startswith("1 of 2 sessions have more")


def test_lists_in_text_do_not_depend_on_their_neighbours(tmp_path):
    rows = [row | {"sizes": str(row["sizes"])} for row in ROWS[:2]] + [ROWS[0] | {"sizes": "[[5, 6], [7]]", "sport": 9}]
    for some in (rows[:2], rows):
        text = [row | {"sizes": row["sizes"] if "[[" in row["sizes"] else f"[{row['sizes']}, [1]]"} for row in some]
        card = CARD.replace('lengths = "sizes"', 'lengths = "sizes[0]"')
        (tmp_path / "tables").mkdir(exist_ok=True)
        WRITERS["t.csv"](tmp_path / "tables" / "t.csv", text[:2])
        store = store_of(tmp_path, card.format(more="", task=""))
        assert store.packet("payload_length").tolist() == [517, 1400, 20, 40, 300]
    with pytest.raises(InputError, match="sizes is '', not a number"):
        made(tmp_path / "gap", [ROWS[1], ROWS[0] | {"sizes": "[1,,3]"}], table="t.csv")


@pytest.mark.parametrize(
    "content",
    [b"null\n", b"{}\nnull\n", b"7\n", b'"x"\n', b"[" * 100_000, b'{"a": ' * 100_000, b"\xff\xfe{}\n", b"[1, 2]"],
)
def test_json_that_is_no_table(tmp_path, content):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "t.jsonl").write_bytes(content)
    with pytest.raises(InputError) as error:
        store_of(tmp_path, PLAIN)
    assert error.value.code == "bad-table" and "\n" not in str(error.value)


def test_a_damaged_arrow_file_is_no_crash(tmp_path):
    (tmp_path / "tables").mkdir()
    WRITERS["t.arrow"](tmp_path / "tables" / "t.arrow", ROWS * 50)
    content = bytearray((tmp_path / "tables" / "t.arrow").read_bytes())
    at = content.index(np.array([0, 3, 5, 6, 6], np.int32).tobytes())
    content[at + 8 : at + 12] = b"\xff\xff\xff\x7f"
    (tmp_path / "tables" / "t.arrow").write_bytes(bytes(content))
    with pytest.raises(InputError) as error:
        store_of(tmp_path, PLAIN)
    assert error.value.code in ("bad-table", "bad-record")


@pytest.mark.parametrize("name", ["sizes", "src", "start", "label"])
@pytest.mark.parametrize("cell", [{"x": 1}, [[1]], b"\xff\xfe", [{"y": "z"}]])
def test_columns_of_kinds_that_nobody_asked_for(tmp_path, name, cell):
    with pytest.raises(InputError) as error:
        made(tmp_path, [row | {name: cell} for row in ROWS[:2]])
    assert error.value.code in ("bad-record", "bad-table", "bad-card") and "\n" not in str(error.value)


def test_doubled_columns_pipes_and_lists_of_alternatives(tmp_path):
    import os

    (tmp_path / "tables").mkdir()
    (tmp_path / "mine.toml").write_text(PLAIN)
    (tmp_path / "tables" / "t.csv").write_text("sizes,sizes,capture\n1,2,a\n")
    with pytest.raises(InputError, match="column 'sizes' appears twice"):
        prepare_dataset(find_card(tmp_path / "mine.toml"), tmp_path / "tables", home=tmp_path)
    (tmp_path / "tables" / "t.csv").unlink()
    os.mkfifo(tmp_path / "tables" / "t.csv")
    with pytest.raises(InputError, match="is not a regular file"):
        prepare_dataset(find_card(tmp_path / "mine.toml"), tmp_path / "tables", home=tmp_path)
    (tmp_path / "mine.toml").write_text(CARD.replace('"sizes"', '"a|b"').format(more="", task=""))
    with pytest.raises(InputError, match="lists are columns, each named alone"):
        find_card(tmp_path / "mine.toml")


def test_a_label_may_be_called_as_a_column_of_packets(tmp_path):
    (tmp_path / "tables").mkdir()
    rows = "x,1,10.0.0.1,10.0.0.2,5000.0,443,6.0,60\ny,2,10.0.0.2,10.0.0.1,443,5000,TCP,90\n"
    (tmp_path / "tables" / "a.csv").write_text("of," + HEAD + rows)
    text = (
        PACKETS[: PACKETS.index("[labels]")] + '[labels]\nkind = "columns"\npaths = { sport = "of", protocol = "of" }\n'
    )
    store = store_of(tmp_path, text + '[tasks.label]\nlabel = "sport"\n')
    assert store.session("client_port").tolist() == [5000] and store.session("protocol").tolist() == [6]
    assert store.session("packets").tolist() == [2] and store.classes("label") == ["x"]


@pytest.mark.parametrize(
    ("cell", "told"),
    [("[1,-2", "begins with a bracket and ends with none"), ("1,-2]", "ends with a bracket and begins with none")],
)
def test_a_list_that_was_cut_is_not_read_as_a_shorter_one(cell, told):
    """Spreadsheets cut a cell at 32,767 characters, in the middle of a number, too."""
    batch = pa.record_batch({"sizes": ["[1, 2]", "3 4", None, "[[5, 6]]", cell]})
    with pytest.raises(BadCell, match=f"sizes {told}: it was cut") as found:
        lists(batch, "sizes")
    assert found.value.row == 4 and lists(batch.slice(0, 3), "sizes").sizes.tolist() == [2, 2, 0]
