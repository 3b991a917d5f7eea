"""Names that want to be more than names: on a terminal, and in a spreadsheet."""

import csv
import io
import json
import os
import subprocess
import sys
import traceback
import unicodedata
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import record

from bench.analysis.tables import results_table
from bench.cli.progress import DownloadProgress, Guarded, guard
from bench.cli.text import columns, outline
from bench.generators import demo
from bench.render.table import Table, one_line, printable, render

ROOT = Path(__file__).parents[1]
TITLE, RED, CLEAR = "\x1b]0;owned\x07", "\x1b[31m", "\x9b2J"  # the window's title, a colour, an empty screen
HOSTILE = f"=cmd(){TITLE}{RED}{CLEAR}\u202egpj.exe\u202c"
SHOWN = r"=cmd()\x1b]0;owned\x07\x1b[31m\x9b2J\u202egpj.exe\u202c"


def obeyed(text):
    """What a terminal would obey of a text, in Unicode's own words; without line ends and tabs."""
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    marks = {"LEFT-TO-RIGHT MARK", "RIGHT-TO-LEFT MARK", "ARABIC LETTER MARK"}
    return {
        c
        for c in set(text) - {"\n", "\t"}
        if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(c) in turning
        or unicodedata.name(c, "") in marks
    }


def test_what_a_terminal_obeys_is_written_out_and_nothing_else():
    every = [chr(code) for code in range(sys.maxunicode + 1)]
    hostile = obeyed(every)
    assert printable("".join(every)) == "".join(
        c.encode("unicode_escape").decode() if c in hostile else c for c in every
    )
    assert printable(HOSTILE) == SHOWN and one_line("a\n\tb") == r"a\n\tb"


# --- commands ---


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data set with a class and captures of hostile names; one is no capture, one is not named in UTF-8."""
    folder = tmp_path_factory.mktemp("hostile")
    demo.write(folder / "traffic", sessions=20, captures=4, classes=2)
    chat = (folder / "traffic" / "chat").rename(folder / "traffic" / HOSTILE)
    first, second, *_ = sorted(chat.iterdir())
    first.rename(chat / f"{RED}\n\r+1.pcap")
    if sys.platform == "linux":
        second.rename(chat / os.fsdecode(b"\xff.pcap"))
    (chat / "none\r\nforged: line.pcap").write_text("no capture")
    (folder / f"{HOSTILE}.pcap").write_text("no capture")
    (folder / f"{RED}broken.py").write_text(
        "import warnings\n\nfrom bench.method import Method\n\n\n"
        "class Broken(Method):\n"
        '    """Always fails."""\n\n'
        '    name, reference, family, reads = "broken", "none", "baseline", frozenset()\n\n'
        f"    def represent(self, view):\n        warnings.warn({HOSTILE!r})\n        return {{}}\n"
        f"    def fit(self, train, validation, monitor): raise ValueError({HOSTILE!r})\n"
        "    def predict_proba(self, samples): return None\n"
        "    def save_state(self, folder): pass\n"
        "    def load_state(self, folder): pass\n"
    )
    return folder


@pytest.fixture
def bench(place, bench_in):
    return bench_in(place)


def prepared(bench):
    assert bench("prepare", "traffic")[0] == 0


def test_names_are_told_where_a_data_set_is_prepared_and_split(bench):
    status, out, err = bench("prepare", "traffic", "--rebuild")
    assert (status, obeyed(out + err)) == (0, set())
    assert SHOWN + r"/none\r\nforged: line.pcap" in out
    assert not any(line.lstrip().startswith("forged") for line in (out + err).splitlines())
    assert bench("prepare", "traffic")[0] == 0
    for words in (
        ["split", "traffic"],
        ["split", "traffic", "--min-per-class", 10**6],
        ["audit", "traffic", "--no-runs"],
    ):
        _, out, err = bench(*words)
        assert obeyed(out + err) == set(), words


def test_json_says_the_name_itself_in_ascii(bench):
    status, out, _ = bench("prepare", "traffic", "--json", "--rebuild")
    assert (status, obeyed(out), out.isascii()) == (0, set(), True)
    assert HOSTILE in json.loads(out)["tasks"]["label"]["classes"]


def test_names_are_told_where_runs_are_shown(bench, place):
    prepared(bench)
    words = ("run", "--method", f"majority,{RED}broken.py:Broken", "--dataset", "traffic")
    status, out, err = bench(*words)
    assert (status, obeyed(out + err)) == (1, set())
    assert r"\x1b[31mbroken.py:Broken" in err and f"ValueError: {SHOWN}" in err and f"ValueError: {SHOWN}" in out
    for form in ("text", "md", "csv", "tex", "html"):
        status, out, err = bench("table", "--format", form)
        assert (status, obeyed(out + err)) == (0, set()), form
        assert r"\x1b[31mbroken.py:Broken" in out, form  # and not cut out, as click would where there is no terminal
    run = next(run for run in json.loads(bench(*words, "--json")[1])["runs"] if run["status"] == "cached")
    capture = next(path for path in (place / "traffic" / HOSTILE).iterdir() if "chat" in path.name)
    status, out, err = bench("classify", capture, "--run", run["run_id"])
    assert (status, obeyed(out + err)) == (0, set())


@pytest.mark.parametrize(
    "words",
    [
        ("inspect", f"{HOSTILE}.pcap"),
        ("inspect", f"no such {HOSTILE}"),
        ("prepare", HOSTILE),
        (f"nonsense{HOSTILE}",),
        ("table", f"--x{HOSTILE[1:]}"),
        ("table", "--format", HOSTILE),
        ("run", "--method", f"{HOSTILE}.py:X", "--dataset", "traffic"),
        ("run", "--method", "majority", "--dataset", "traffic", "--split", f"attribute:{HOSTILE}=("),
    ],
)
def test_an_error_with_a_hostile_word_is_one_line(bench, words):
    prepared(bench)
    status, out, err = bench(*words)
    *before, line = err.splitlines()
    assert (status, out, obeyed(err)) == (2, "", set())
    assert [one for one in before if not one.startswith("traffic: ")] == []
    assert line.startswith("bench: ") and r"cmd()\x1b]0;owned\x07" in line


def on_a_terminal(folder, *words):
    """Exit status of `bench` on a terminal of its own, and what reached that."""
    pty = pytest.importorskip("pty")
    terminal, side = pty.openpty()
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, "BENCH_HOME": str(folder / "home"), "TERM": "xterm"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "bench", *words]
    with subprocess.Popen(command, stdin=side, stdout=side, stderr=side, cwd=folder, env=environment) as process:
        os.close(side)
        seen = b""
        while True:
            try:
                part = os.read(terminal, 1 << 16)
            except OSError:  # the other side is closed
                part = b""
            if not part:
                break
            seen += part
    os.close(terminal)
    return process.returncode, seen.decode().replace("\r\n", "\n")


def test_a_terminal_obeys_the_bar_and_no_name(place, bench):
    """The bar, warnings above it, outcomes, the table below; rich's own sequences pass, none of ours is among them."""
    prepared(bench)
    words = ("--method", f"{RED}broken.py:Broken", "--dataset", "traffic", "--rerun")
    status, seen = on_a_terminal(place, "run", *words)
    assert status == 1 and "\x1b[?25l" in seen  # the bar was there
    for sequence in (TITLE, RED, CLEAR, "\u202e"):
        assert sequence not in seen
    assert rf"[1/1] traffic \x1b[31mbroken.py:Broken-capture-seed0 failed (ValueError: {SHOWN})" in seen
    assert f"UserWarning: {SHOWN}" in seen.replace("\n", "")
    assert not seen.endswith(r"\x1b[0m")  # what a library does at the end


def test_a_terminal_shows_an_error_whole(place):
    status, seen = on_a_terminal(place, "inspect", f"{HOSTILE}.pcap")
    assert status == 0 or seen.count("\n") == 1
    assert obeyed(seen) == set() and f"{SHOWN}.pcap" in seen


# --- what they print through ---


def test_traces_and_prints_are_guarded(capsys):
    guard()
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        traceback.print_exc()
    sys.stdout.writelines([HOSTILE, "\n"])
    click.echo(HOSTILE, color=True)
    click.echo(HOSTILE, err=True, color=True)
    sys.stdout.write("\x1b[0m")
    guard()
    sys.stdout.write("1")
    out, err = capsys.readouterr()
    assert out == f"{SHOWN}\n{SHOWN}\n1"
    assert obeyed(err) == set() and err.count(SHOWN) == 2


def test_nothing_goes_around_the_guard(monkeypatch):
    """Where a stream says that it is ASCII, click would write to its bytes; what has no place there is written out."""
    target = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", Guarded(io.TextIOWrapper(target, encoding="ascii")))
    click.echo(f"± {HOSTILE}", color=True)
    assert target.getvalue().decode() == rf"\xb1 {SHOWN}" + "\n"


def test_a_line_of_progress_is_one_line(capsys):
    with DownloadProgress() as progress:
        progress(f"{HOSTILE}\nforged", 1, 1, 10, 10)
    err = capsys.readouterr().err
    assert err == rf"[1/1] {SHOWN}\nforged: 0.0/0.0 MB" + "\n"


def test_cells_stay_in_their_columns():
    rows = [("name", "n"), (f"{RED}\n1", "2"), ("x", "3")]
    assert columns(rows) == "name         n\n\\x1b[31m\\n1  2\nx            3"
    assert outline({"a\n": {"b": 1}, "c": ["d\n", "e"]}) == "a\\n:\n  b: 1\nc: d\\n, e"
    lines = render(Table("", ["name", "n"], [[f"{RED}1", "2"], ["x", "3"]])).splitlines()
    assert {line.rindex(end) for line, end in zip([lines[0], *lines[2:]], "n23", strict=True)} == {11}


# --- spreadsheets ---


@pytest.mark.parametrize(
    "text", ["=cmd()", "+cmd()", "-cmd()", "@cmd()", "\t=cmd()", "\n=cmd()", "-1+cmd()", "＝cmd()"]
)
def test_a_formula_is_a_text_in_csv_and_itself_elsewhere(text):
    table = Table("", [text], [[text]], (), [{text: text, "numbers": -0.5, "count": -3, "list": [text]}])
    (line,) = csv.DictReader(io.StringIO(render(table, "csv"), newline=""))
    assert line == {f"'{text}": f"'{text}", "numbers": "-0.5", "count": "-3", "list": json.dumps([text])}
    assert json.loads(render(table, "json"))["rows"][0][text] == text
    assert one_line(" ".join(text.splitlines())) in render(table)


@pytest.mark.parametrize("number", ["-0.5", "+1e-3", "-3", "+.5", "-1.", 0.5, -0.5, -3, float("-inf"), None, True])
def test_numbers_stay_numbers_in_csv(number):
    (line,) = csv.DictReader(io.StringIO(render(Table("", [], [], (), [{"a": 1, "b": number}]), "csv")))
    assert line["b"] == ("" if number is None else str(number))


def test_a_carriage_return_begins_no_line_of_a_spreadsheet():
    text = render(Table("", [], [], (), [{"a\r=b": "x\r=cmd()"}]), "csv")
    assert "\r" not in text and len(text.splitlines()) == 2


@given(st.text())
def test_csv_is_read_back_but_for_the_apostrophe(text):
    (line,) = csv.DictReader(
        io.StringIO(render(Table("", [], [], (), [{"a": 1, "b": text, "c": 1}]), "csv"), newline="")
    )
    assert line["b"] in (printable(text), f"'{printable(text)}") and line["c"] == "1"


def test_results_of_hostile_names_in_text_and_csv():
    sheet = results_table([record(f"+x{RED}", 0.5, dataset=HOSTILE, task="-y()"), record("forest", 0.8, dataset="@d")])
    (first, second) = csv.DictReader(io.StringIO(render(sheet, "csv")))
    found = {(line["dataset"], line["task"], line["method"], line["accuracy"]) for line in (first, second)}
    assert found == {(f"'{SHOWN}", "'-y()", r"'+x\x1b[31m", "0.5"), ("'@d", "service", "forest", "0.8")}
    assert SHOWN in printable(render(sheet)) and obeyed(printable(render(sheet))) == set()
