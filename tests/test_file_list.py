from pathlib import Path

import pytest
from refusals import refused

from bench.data.file_list import (
    capture_key,
    lacking_classes,
    match_captures,
    read_file_list,
    unpacking,
    with_captures,
)
from bench.data.manifest import CaptureEntry, DoubleCapture, PacketsDiffer, TaskEntry
from bench.data.names import find_card

LIST = """file,packets,copy_of,damaged,group,archive,note,side,app
a/One1.pcap,10,,,pair,a.zip,,left,One
a/One2.pcapng,,,yes,pair,,,left,One
b/one1.pcap,7,,,,b.7z,take task x,right,One
b/one1-copy.pcap,7,b/one1.pcap,,,,,right,One
two.pcap,3,,possible,,,,right,Two
"""

CARD = """
name = "mine"
title = "Mine"
[labels]
kind = "files"
table = "mine.csv"
[switches.two]
files = '^two'
default = "right"
choices = { right = {}, left = { side = "left" }, none = { side = "" }, out = { file = "" } }
[switches.ones]
files = 'one'
default = "both"
choices = { both = {}, out = { file = "" } }
[tasks.both]
label = "{side}-{app}"
default = true
merge = { left-One = "L1" }
[tasks.app]
label = "app"
"""


@pytest.fixture
def listed(tmp_path):
    (tmp_path / "mine.csv").write_text(LIST)
    return read_file_list(tmp_path / "mine.csv")


@pytest.fixture
def card(tmp_path, listed):
    (tmp_path / "mine.toml").write_text(CARD)
    return find_card(tmp_path / "mine.toml")


def met(listed, *captures, root="/data", others=(), left_out=()):
    return match_captures(listed.files, left_out, Path(root), captures, others)


def test_a_list_is_read(listed):
    first, second, *_ = listed.files
    assert listed.columns == {"side", "app"}
    assert (first.packets, second.packets, second.damaged) == (10, None, "yes")
    assert first.labels == {"side": "left", "app": "One"}
    assert first.flat() == {
        "file": "a/One1.pcap", "packets": 10, "group": "pair", "archive": "a.zip", "side": "left", "app": "One"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        (LIST, "", "'file'"),
        (LIST, "\n\n", "'file'"),
        (LIST, LIST.splitlines()[0], ""),
        (LIST, "x" * 200_000, ""),
        ("file,", "name,", "'file'"),
        ("side,app", "app,app", "row 1: column 'app'"),
        ("side,app", "file,app", "row 1: column 'file'"),
        ("side,app", "side,", "row 1: column 9"),
        ("packets", "Packets", "row 1: column 'Packets'"),
        ("damaged", "damage", "row 1: column 'damage'"),
        ("copy_of", "copy of", "row 1: column 'copy of'"),
        ("left,One\na/One2", "left\na/One2", "row 2 has 8 columns"),
        ("left,One", 'left,"One', "row 2: a quote does not close"),
        (",10,", ",ten,", "row 2: packets = 'ten'"),
        ("possible", "perhaps", "row 6: damaged = 'perhaps'"),
        ("copy.pcap,7,b/one1.pcap", "copy.pcap,7,b/one3.pcap", "row 5: copy_of = 'b/one3.pcap'"),
        ("b/one1.pcap,7", "A/one 1.cap,7", "row 4: file = 'A/one 1.cap' is already in row 2"),
        ("two.pcap", "", "row 6: file"),
        ("two.pcap", ".pcap", "row 6: file = '.pcap'"),
        ("two.pcap", "   ", "row 6: file = '   '"),
        ("two.pcap", "../two.pcap", "row 6: file = '../two.pcap'"),
        ("two.pcap", "/two.pcap", "row 6: file = '/two.pcap'"),
        ("two.pcap", "\n\nB/One1.pcapng", "row 8: file = 'B/One1.pcapng' is already in row 4"),
        (",10,", f",{'9' * 5000},", "row 2: packets = '999"),
        (
            "copy.pcap,7,b/one1.pcap",
            "copy.pcap,7,B/One1-copy.cap",
            "row 5: copy_of = 'B/One1-copy.cap'",
        ),
        (
            ",3,,possible",
            ",3,b/one1-copy.pcap,possible",
            "row 6: copy_of = 'b/one1-copy.pcap'",
        ),
    ],
)
def test_a_wrong_list_is_refused_in_one_line(tmp_path, old, new, place):
    path = tmp_path / "mine.csv"
    assert old in LIST
    path.write_text(LIST.replace(old, new, 1))
    with refused("bad-file-list", path, place):
        read_file_list(path)


def test_all_that_is_wrong_with_a_list_is_told_at_once(tmp_path):
    path, text = tmp_path / "mine.csv", LIST
    for old, new in (("damaged", "damage"), (",10,", ",ten,"), ("two.pcap", "../two.pcap")):
        text = text.replace(old, new, 1)
    path.write_text(text)
    with refused("bad-file-list", "row 1: column 'damage'", "row 2: packets = 'ten'", "row 6: file") as caught:
        read_file_list(path)
    assert len(caught.value.problems) == 3 and all(one.startswith(f"{path}: ") for one in caught.value.problems)


def test_of_many_wrong_rows_the_first_are_told_and_the_others_counted(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("file,packets\n" + "".join(f"{number}.pcap,many\n" for number in range(50)))
    with refused("bad-file-list", "row 2: packets", "row 21: packets", "(and 30 more)"):
        read_file_list(path)


def test_what_of_a_path_tells_a_capture():
    same = ["A/One 1.pcap", "a/one1.pcapng", "a/ONE1", "a/one1.pcap.gz", "a/one1.cap.zst"]
    assert {capture_key(path) for path in same} == {("a", "one1")}
    assert capture_key("glow.c.pcap") != capture_key("glow.comics.pcap")


def test_a_capture_meets_the_longest_row_that_ends_its_path(listed):
    rows = met(listed, "x/A/one1.PCAP", "x/y/b/ONE 1.pcapng", "deep/er/two").rows
    assert {path: row.file for path, row in rows.items()} == {
        "x/A/one1.PCAP": "a/One1.pcap",
        "x/y/b/ONE 1.pcapng": "b/one1.pcap",
        "deep/er/two": "two.pcap",
    }
    assert met(listed, "one1.pcap", root="/data/a").rows["one1.pcap"].file == "a/One1.pcap"  # given the very folder
    assert met(listed, "one1.pcap").report.unknown == ["one1.pcap"]


def test_missing_unknown_double_and_archives(listed):
    others = ["b.7z", "n.txt", "my b.zip", "c.tar.xz"]
    report = met(listed, "a/one1.pcap", "z/a/One1.pcapng", "three.pcap", "two.pcap", others=others).report
    assert report.missing == [
        {"file": "a/One2.pcapng"},
        {"file": "b/one1.pcap", "archive": "b.7z", "note": "take task x"},
    ]
    assert report.unknown == ["three.pcap"]
    assert report.double == [DoubleCapture("a/One1.pcap", "a/one1.pcap", ["z/a/One1.pcapng"])]
    assert [one["unpack"] for one in report.archives] == ["7z x b.7z", "tar xf c.tar.xz", "7z x 'my b.zip'"]
    assert report.problems == [
        "a/One2.pcapng is missing",
        "b/one1.pcap is missing (b.7z; take task x)",
        "three.pcap is not in the list",
        "a/One1.pcap is there twice (a/one1.pcap, z/a/One1.pcapng)",
    ]


def test_unpacking_knows_archives_from_captures():
    assert unpacking("x.TGZ") == "tar xf x.TGZ"
    assert unpacking("x.rar") == "7z x x.rar"
    assert unpacking("x.pcap.gz") == ""


def test_a_copy_is_read_only_in_place_of_its_original(listed):
    both, copy = met(listed, "b/one1.pcap", "b/one1-copy.pcap"), met(listed, "b/one1-copy.pcap")
    assert list(both.rows) == ["b/one1.pcap"]
    assert both.report.copies_skipped == {"b/one1-copy.pcap": "b/one1.pcap"}
    assert list(copy.rows) == ["b/one1-copy.pcap"]
    assert copy.report.copies_used == {"b/one1.pcap": "b/one1-copy.pcap"}
    for report in (both.report, copy.report):
        assert not {"b/one1.pcap", "b/one1-copy.pcap"} & {one["file"] for one in report.missing}


def test_copies_are_one_however_their_rows_write_the_original(tmp_path):
    (tmp_path / "l.csv").write_text("file,copy_of,app\na,,x\nb,A.pcap,x\nc,a,x\n")
    report = met(read_file_list(tmp_path / "l.csv"), "b", "c").report
    assert (report.copies_used, report.copies_skipped, report.missing) == ({"A.pcap": "b"}, {"c": "b"}, [])


def test_a_switch_is_a_question_about_copies_too(tmp_path):
    (tmp_path / "mine.csv").write_text("file,copy_of,app,side\none,,x,l\nother,,x,l\nsame,Two.pcap,x,l\ntwo,,y,l\n")
    (tmp_path / "mine.toml").write_text(CARD)
    mine = find_card(tmp_path / "mine.toml")
    kept, out = mine.listed(mine.choose({"two": "out"}))
    assert [[one.file for one in files] for files in (kept, out)] == [["one", "other"], ["same", "two"]]


def test_packets_and_damage_against_the_list(listed):
    match = met(listed, "a/one1", "a/one2", "b/one1", "two")
    captures = [
        CaptureEntry(path, records=records, damage=damage)
        for path, records, damage in [("a/one1", 9, ["x"]), ("a/one2", 5, []), ("b/one1", 7, []), ("two", 3, ["x"])]
    ]
    report = with_captures(match.report, match.rows, captures)
    assert report.packets_differ == [PacketsDiffer("a/one1", expected=10, found=9)]
    assert report.damage_expected == ["two"]
    assert report.damage_unexpected == ["a/one1"]
    assert report.damage_absent == ["a/one2"]


def test_lacking_classes_name_what_they_need(listed):
    classes = {"app": ["One", "One", "One", "One", "Two"], "none": [""] * 5}
    tasks = {"app": TaskEntry(["Two"]), "none": TaskEntry([])}
    (lacking,) = lacking_classes(classes, tasks, listed.files, met(listed, "two.pcap").report)
    assert vars(lacking) == {
        "task": "app",
        "classes": ["One"],
        "files": ["a/One1.pcap", "a/One2.pcapng", "b/one1.pcap"],
        "archives": ["a.zip", "b.7z"],
        "notes": ["take task x"],
    }


def test_switches_change_labels_or_leave_captures_out(card):
    assert card.choose({}) == {"two": "right", "ones": "both"}
    default, none = card.listed(card.choose({}))
    assert [one.labels for one in default] == [one.labels for one in card.labels.table.files]
    assert none == []
    left, _ = card.listed(card.choose({"two": "left"}))
    assert [a.file for a, b in zip(left, default, strict=True) if a != b] == ["two.pcap"]
    assert left[-1].labels == {"side": "left", "app": "Two"}
    kept, out = card.listed(card.choose({"ones": "out", "two": "none"}))
    assert [one.file for one in kept] == ["two.pcap"]
    assert len(out) == 4
    report = met(card.labels.table, "two", "a/one1", left_out=()).report
    assert report.left_out == []
    report = match_captures(kept, out, Path("/"), ["two", "a/one1"], []).report
    assert (report.left_out, report.missing, report.unknown) == (["a/one1"], [], [])


def test_unknown_switches_and_choices_are_refused(card):
    with refused("unknown-switch", "'three'", "two, ones"):
        card.choose({"three": "x"})
    with refused("unknown-switch", "switch two", "'up'"):
        card.choose({"two": "up"})
    with refused("unknown-switch", "demo", "'two'"):
        find_card("demo").choose({"two": "x"})


@pytest.mark.parametrize(
    ("old", "new", "place", "known"),
    [
        ('table = "mine.csv"', 'table = "no.csv"', "no.csv", ""),
        ('table = "mine.csv"', "table = 3", "labels.table = 3", "str"),
        ("'^two'", "'^three'", "switches.two.files = '^three'", "mine.csv"),
        ("'^two'", "'^(two'", "switches.two.files", ""),
        ('default = "right"', 'default = "up"', "switches.two.default = 'up'", "right, left"),
        ('{ side = "left" }', '{ sid = "left" }', "switches.two.choices.left.sid = 'left'", "app, side"),
        ('out = { file = "" } }\n[tasks', 'out = { file = "x" } }\n[tasks', "choices.out.file = 'x'", "''"),
        ("{side}-{app}", "{side}-{ap}", "tasks.both.label = '{side}-{ap}'", "'ap'"),
        (
            'kind = "files"\ntable = "mine.csv"',
            "kind = 'pattern'\npattern = '(?P<side>.)(?P<app>.)'",
            "switches",
            "",
        ),
    ],
)
def test_a_wrong_card_of_a_list_is_refused(tmp_path, card, old, new, place, known):
    assert old in CARD
    (tmp_path / "mine.toml").write_text(CARD.replace(old, new))
    with refused("bad-file-list" if place == "no.csv" else "bad-card", place, known):
        find_card(tmp_path / "mine.toml")


def test_the_digest_of_a_card_covers_its_list(tmp_path, card):
    before = card.digest
    (tmp_path / "mine.csv").write_text(LIST.replace("two.pcap,3", "two.pcap,4"))
    assert find_card(tmp_path / "mine.toml").digest != before
