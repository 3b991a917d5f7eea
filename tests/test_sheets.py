"""One sheet in six formats."""

import csv
import io
import json
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from bench.sheets import Sheet, render

SHEET = Sheet(
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
    page.feed(render(Sheet(text, [text, text], [[text, text]], [text]), "html"))
    plain = ["table", "caption", "thead", "tr", "th", "th", "tbody", "tr", "th", "td", "ul", "li"]
    assert page.tags == plain and "".join(page.texts).count(text) >= 6


def test_an_empty_sheet_says_so():
    assert render(Sheet("", [], [], empty="no runs")) == "no runs"
    assert json.loads(render(Sheet("", [], []), "json")) == {"rows": [], "notes": []}
