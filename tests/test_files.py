"""Files: whole or not at all, whatever happens; locks that end with their process; records that are what they say."""

import csv
import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from bench.files import (
    csv_rows,
    instead_of_file,
    locked,
    plain,
    read_json,
    write_json,
    write_text,
    written,
    written_folder,
)
from bench.structure import FieldError, structured


def child(code, *arguments):
    """A process of its own that runs code on paths."""
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), written(path) as aside:
        aside.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    write_text(path, "new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "store"
    with written_folder(path) as aside:
        (aside / "one").write_text("1")
    with pytest.raises(ZeroDivisionError), written_folder(path) as aside:
        (aside / "two").write_text("2")
        raise ZeroDivisionError
    assert [file.name for file in path.iterdir()] == ["one"] and list(tmp_path.iterdir()) == [path]
    with written_folder(path) as aside:
        (aside / "three").write_text("3")
    assert [file.name for file in path.iterdir()] == ["three"] and list(tmp_path.iterdir()) == [path]


def test_a_folder_whose_change_of_places_fails_is_the_old_one(tmp_path, monkeypatch):
    place = tmp_path / "store"
    with written_folder(place) as aside:
        (aside / "x").write_text("first")
    rename, calls = type(place).rename, []

    def interrupted(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(type(place), "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), written_folder(place) as aside:
        (aside / "x").write_text("second")
    assert (place / "x").read_text() == "first" and list(tmp_path.iterdir()) == [place]


def test_a_folder_that_a_killed_writer_moved_aside_comes_back(tmp_path):
    place = tmp_path / "store"
    (tmp_path / ".store.old").mkdir()
    (tmp_path / ".store.old" / "x").write_text("first")
    with pytest.raises(ZeroDivisionError), written_folder(place):
        raise ZeroDivisionError
    assert (place / "x").read_text() == "first"


@pytest.mark.parametrize("what", ["written", "written_folder"])
def test_a_killed_process_leaves_nothing_that_is_taken_for_whole(tmp_path, what):
    code = (
        "import sys, time; from pathlib import Path; from bench import files\n"
        f"with files.{what}(Path(sys.argv[1])) as aside:\n"
        "    (aside / 'half' if aside.is_dir() else aside).write_text('half')\n"
        "    print('writing', flush=True); time.sleep(60)\n"
    )
    process = child(code, tmp_path / "thing")
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "thing").exists() and len(list(tmp_path.iterdir())) == 1
    with getattr(sys.modules["bench.files"], what)(tmp_path / "thing") as aside:
        (aside / "whole" if aside.is_dir() else aside).write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]  # what the killed one left is gone, too


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    with written(tmp_path / "a") as outer:
        outer.write_text("slow")
        write_text(tmp_path / "a", "quick")
    assert (tmp_path / "a").read_text() == "slow"


def _write_often(path, word):
    for _ in range(300):
        write_json(Path(path), {"word": word * 2000})


def test_two_writers_race_to_whole_files(tmp_path):
    path = tmp_path / "raced.json"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_often, args=(path, word)) for word in "ab"]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            seen.add(json.loads(path.read_text())["word"][0])
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0] and seen <= {"a", "b"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_ends_with_its_process(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from bench.files import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)\n"
    )
    process = child(code, tmp_path / "name")
    assert process.stdout.readline() == "held\n"
    waiting = child(code, tmp_path / "name")
    time.sleep(0.5)
    assert waiting.poll() is None
    process.kill()
    assert waiting.stdout.readline() == "held\n"
    waiting.kill()
    with locked(tmp_path / "name"):
        pass


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_refuses_is_bad_input(tmp_path):
    tmp_path.chmod(0o500)
    with refused("unwritable-file", tmp_path / "a"):
        write_text(tmp_path / "a", "x")


def test_a_file_in_the_place_of_a_folder_is_bad_input(tmp_path):
    (tmp_path / "file").write_text("")
    with refused("unwritable-file", tmp_path / "file" / "a"):
        write_text(tmp_path / "file" / "a", "x")


# --- records --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inner:
    class_: str
    count: int = 0
    share: float | None = None

    def __post_init__(self):
        if self.count < 0:
            raise FieldError("count", "must be at least 0")


@dataclass(frozen=True)
class Outer:
    name: str
    rows: tuple[Inner, ...] = ()
    by_name: dict[str, Inner] = field(default_factory=dict)
    words: str | list[str] = ""
    on: bool = False


inners = st.builds(Inner, st.text(), st.integers(0), st.none() | st.floats(allow_nan=False, allow_infinity=False))
outers = st.builds(
    Outer,
    st.text(),
    st.lists(inners, max_size=3).map(tuple),
    st.dictionaries(st.text(), inners, max_size=3),
    st.text() | st.lists(st.text(), max_size=3),
    st.booleans(),
)


@given(outers)
def test_a_record_is_read_as_it_was_written(record):
    assert structured(json.loads(json.dumps(plain(record))), Outer, "here") == record


def test_a_name_that_python_keeps_has_no_underscore_outside():
    assert plain(Inner("a")) == {"class": "a", "count": 0, "share": None}


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"name": 3}, "name = 3"),
        ({"on": 1}, "on = 1"),
        ({"rows": [{"class": "a", "count": "1"}]}, "rows[0].count = '1'"),
        ({"rows": [{"class": "a", "count": True}]}, "rows[0].count = True"),
        ({"rows": [{"class": "a"}, {"count": 1}]}, "rows[1].class: is missing"),
        ({"rows": {"class": "a"}}, "rows: must be list, is table"),
        ({"by_name": {"x": {"class": "a", "count": -1}}}, "by_name.x.count = -1"),
        ({"by_name": []}, "by_name = []"),
        ({"words": 3}, "words = 3"),
        ({"words": [3]}, "words[0] = 3"),
        ({"colour": "red"}, "colour = 'red'"),
    ],
)
def test_nothing_is_converted_and_the_place_is_told(change, place):
    with refused("wrong-file", "here: ", place):
        structured({"name": "n"} | change, Outer, "here")


def test_many_faults_are_counted():
    """Of what people write many are told, since they mend all at once; of a file of ours the first."""
    rows = [{"class": number} for number in range(25)]
    with refused("wrong-file", "rows[0].class", "rows[19].class", "5 more") as caught:
        structured({"name": "n", "rows": rows}, Outer, "here")
    assert len(caught.value.problems) == 25
    with refused("wrong-file", "rows[0].class", "rows[2].class", "22 more"):
        structured({"name": "n", "rows": rows}, Outer, "here", strict=False)


def test_an_unknown_key_is_passed_over_where_a_later_version_may_have_written_it():
    assert structured({"name": "n", "colour": 1}, Outer, "here", strict=False) == Outer("n")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": 1}', '{"name": "a", "name": "b"}', "[" * 100_000, "\0"])
def test_a_file_that_is_none_is_named(tmp_path, text):
    path = tmp_path / "record.json"
    path.write_text(text)
    with refused("wrong-file", path):
        read_json(path, Outer, "a record")
    with refused("wrong-file", tmp_path / "none.json"):
        read_json(tmp_path / "none.json", Outer, "a record")


def test_a_name_that_is_no_utf8_is_written_to_and_refused_in_a_text(tmp_path):
    strange = tmp_path / os.fsdecode(b"\xff.txt")
    write_text(strange, "whole")
    assert strange.read_text() == "whole"
    with refused("unwritable-file", "a.txt", r"'file \udcff' is not UTF-8", "rename"):
        write_text(tmp_path / "a.txt", f"file {strange.name}")
    with refused("unwritable-file", "a.csv", "is not UTF-8"), written(tmp_path / "a.csv") as aside:
        with aside.open("w", encoding="utf-8") as file:
            csv.writer(file).writerow([strange.name])
    assert list(tmp_path.iterdir()) == [strange]


def test_a_link_stays_and_a_device_is_no_file(tmp_path):
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    for text in ("first", "second"):
        write_text(tmp_path / "link.txt", text)
        assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "real.txt").read_text() == text
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "through")
    assert os.read(reader, 99) == b"through" and (tmp_path / "pipe").is_fifo()
    os.close(reader)


def test_rows_of_a_table_have_their_lines(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbfa,b\r\n\r\n1,"x\r\ny"\r\n2,"z "" z"\r\n')
    assert list(csv_rows(tmp_path / "a.csv")) == [(1, ["a", "b"]), (3, ["1", "x\r\ny"]), (5, ["2", 'z " z'])]


@pytest.mark.parametrize(
    "text, told",
    [
        (b'a,b\n1,2\n3,"4\n5,6\n', "row 3: a quote does not close"),
        (b'a,b\n1,"2\n3,"4"\n', "row 2: a quote does not close"),
        (b"a,b\n\n1,2\0\n", "row 3: holds a NUL byte"),
        (b'a,b\n1,"' + b"x\n" * 70_000, "row 2: a quote does not close"),
        (b"a,\xff\n", "utf-8"),
    ],
)
def test_what_is_no_table_is_told_with_its_row(text, told, tmp_path):
    (tmp_path / "a.csv").write_bytes(text)
    with pytest.raises(ValueError, match=told):
        list(csv_rows(tmp_path / "a.csv"))


def test_numbers_that_are_no_json_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())
    write_json(tmp_path / "a.json", {"x": 1.5})
    assert dataclasses.is_dataclass(Outer) and json.loads((tmp_path / "a.json").read_text()) == {"x": 1.5}


def test_what_is_there_instead_of_a_file_is_told(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    told = {name: instead_of_file(tmp_path / name) for name in (".", "pipe", "link", "none")}
    assert told == {
        ".": "is a folder",
        "pipe": "is no file but a pipe or device",
        "link": "is a link that leads nowhere",
        "none": "there is no such file",
    }
