"""One sheet in six formats."""

import csv
import io
import json
import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from bench.render.table import Table, render

SHEET = Table(
    "demo · 5 % & more",
    ["method", "macro_f1"],
    [["fs_net †", "0.5 ± 0.1"], ["a|b", "–"]],
    ["† reduced"],
    [{"method": "fs_net", "macro_f1": 0.5, "seeds": [0, 1]}, {"method": "a|b", "macro_f1": None, "seeds": []}],
    more={"metric": "macro_f1"},
)


def test_text_and_markdown_word_for_word():
    assert render(SHEET) == (
        "demo · 5 % & more\n\nmethod    macro_f1\n------------------\nfs_net †  0.5 ± 0.1\na|b       –\n† reduced"
    )
    assert render(SHEET, "md") == (
        "demo · 5 % & more\n\n| method | macro_f1 |\n|---|---|\n| fs_net † | 0.5 ± 0.1 |\n| a\\|b | – |\n\n- † reduced"
    )


def test_latex_escapes_what_would_break_it():
    text = render(SHEET, "tex")
    assert r"\caption{demo · 5 \% \& more}" in text and r"fs\_net $\dagger$ & 0.5 $\pm$ 0.1 \\" in text
    assert text.splitlines()[0] == "% † reduced"


def test_csv_and_json_hold_numbers():
    assert json.loads(render(SHEET, "json")) == {
        "title": SHEET.title,
        "rows": SHEET.records,
        "notes": ["† reduced"],
        "metric": "macro_f1",
    }
    lines = list(csv.DictReader(io.StringIO(render(SHEET, "csv"))))
    assert lines[0] == {"method": "fs_net", "macro_f1": "0.5", "seeds": "[0, 1]"} and lines[1]["macro_f1"] == ""


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.texts = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


@given(st.text(st.characters(exclude_categories=["C"]), min_size=1))
def test_html_lets_no_text_become_a_tag(text):
    page = Tags()
    page.feed(render(Table(text, [text, text], [[text, text]], [text]), "html"))
    plain = ["table", "caption", "span", "thead", "tr", "th", "th", "tbody", "tr", "th", "td", "ul", "li"]
    assert page.tags == plain and "".join(page.texts).count(text) >= 6


@given(st.lists(st.text(), min_size=1, max_size=3), st.lists(st.text(), min_size=1, max_size=3))
def test_no_text_adds_a_column_or_a_line(head, line):
    """Read as both readings of GitHub's tables have it: a backslash takes the next character, or only a bar does."""
    line = (line * 3)[: len(head)]
    sheet = Table("", head, [line, line])
    rows = render(sheet, "md").split("\n")
    assert len(rows) == 4 and len(render(sheet).split("\n")) == 4
    for row in (rows[0], *rows[2:]):
        assert re.sub(r"\\.", "", row).count("|") == len(re.findall(r"(?<!\\)\|", row)) == len(head) + 1
    body = render(sheet, "tex").split("\n")
    body = [row for row in body[body.index(r"\toprule") + 1 :] if not row.startswith((r"\mid", r"\bot", r"\end"))]
    assert len(body) == 3
    for row in body:
        assert row.endswith(r" \\") and not row.startswith(("[", "*")) and "|" not in row
        assert re.sub(r"\\.", "", row).count("&") == len(head) - 1
    page = Tags()
    page.feed(render(sheet, "html"))
    assert page.tags.count("tr") == 3 and page.tags.count("td") + page.tags.count("th") == 3 * len(head)


def test_latex_takes_no_cell_for_an_argument():
    text = render(Table("", ["[x]", "y"], [["[1]", "[2]"], ["* a", "b|c"]]), "tex")
    assert "{}[x] & y" in text and "{}[1] & [2]" in text and r"{}* a & b\textbar{}c" in text


def test_an_empty_sheet_says_so():
    sheet = Table("of nothing", [], [], ["a note"], empty="no runs <yet>")
    assert render(sheet) == render(sheet, "md") == "no runs <yet>\na note"
    assert render(sheet, "tex") == "% no runs <yet>\n% a note"
    assert render(sheet, "html") == "<p>no runs &lt;yet&gt;</p>\n<ul><li>a note</li></ul>"
    assert render(sheet, "csv") == ""
    assert json.loads(render(Table("", [], []), "json")) == {"rows": [], "notes": []}


def test_notes_are_added_and_empty_ones_are_none():
    assert SHEET.noted("more", "").notes == ["† reduced", "more"] and SHEET.notes == ["† reduced"]


def test_text_tells_long_cells_that_rows_share_once_below_the_table():
    long = "a " * 90
    rows = [["knn", "web", long], ["forest", "web", long], ["knn", "mail", ""]]
    sheet = Table("", ["method", "task", "split"], rows, ["a note"], below=("split", "task"))
    head, _, *lines = render(sheet).splitlines()
    assert head.split() == ["method", "of"]
    assert [line.split() for line in lines[:3]] == [["knn", "[1]"], ["forest", "[1]"], ["knn", "[2]"]]
    assert (
        lines[3].startswith("[1] split: a a")
        and lines[-3].endswith("task: web")
        and lines[-2:] == ["[2] task: mail", "a note"]
    )
    assert max(map(len, lines)) <= 120
    assert render(sheet, "md").count(long.strip()) == 2
