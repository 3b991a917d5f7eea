"""The page of all results, read as a program reads it; `test_browser.py` looks at it."""

import base64
import dataclasses
import hashlib
import html
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from asked import planned
from refusals import refused
from reported import CLASSES, EVIL
from split_tables import split_of

from bench.cli import base, cli
from bench.files import file_sha256
from bench.render.html import Html, el
from bench.render.svg import bars, confusion, dots, lines, reliability
from bench.report.details import _calibration, divided
from bench.report.frame import SCRIPT, STYLE
from bench.report.page import write
from bench.scores.metrics import evaluate
from bench.scores.metrics import reliability as binned
from bench.spec import Settings, command_lines
from bench.tracking.results import Predictions, SplitSummary
from bench.tracking.run_files import RunFiles
from bench.tracking.tracker import Tracker

VOID = {"meta", "img"}


class Outline(HTMLParser):
    """Checks that elements close in order; keeps what tests ask for."""

    def __init__(self):
        super().__init__()
        self.open, self.found, self.ids, self.links = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        self.links += [value for name, value in attributes if name in ("href", "src")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def outline(text):
    parser = Outline()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


def test_the_page_is_well_formed_and_needs_nothing_else(tracker, tmp_path):
    assert write(tracker, tmp_path / "deep" / "report.html") == 10
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["report.html"]
    text = (tmp_path / "deep" / "report.html").read_text()
    page = outline(text)
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith("#") or link.startswith("data:image/") for link in page.links)
    assert {link[1:] for link in page.links if link[0] == "#"} <= set(page.ids)
    assert {tag for tag, _ in page.found} & {"link", "iframe", "object", "b", "i", "u"} == set()
    assert not re.search(r"@import|url\(", text) and str(tracker.results) not in text


def test_its_own_style_and_script_are_all_that_its_policy_lets_run(tracker, tmp_path):
    write(tracker, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    page = outline(text)
    (policy,) = [one["content"] for tag, one in page.found if tag == "meta" and "http-equiv" in one]
    for kind, path in (("style", STYLE), ("script", SCRIPT)):
        (found,) = re.findall(f"<{kind}>(.*?)</{kind}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(found.encode()).digest()).decode()
        assert found == path.read_text() and f"{kind}-src 'sha256-{digest}';" in html.unescape(policy)
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert not any(name.startswith("on") or name == "style" for _, one in page.found for name in one)


def test_text_of_the_data_stays_text(tracker, tmp_path):
    write(tracker, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    for told in (EVIL, CLASSES[1], "<em>silent</em>", "0.9 <u>", "<u>one</u>", "<i>nothing</i>"):
        assert told not in text and html.escape(told) in text
    assert "alert(2)" not in text  # the figure is an encoded image


def test_numbers_marks_and_commands_are_there(tracker, tmp_path):
    write(tracker, tmp_path / "report.html")
    text = html.unescape((tmp_path / "report.html").read_text())
    for told in (
        "9 finished runs, 1 failed",
        "bench run --method forest --dataset traffic --task app --split capture --folds 3 --seed 0",
        "bench run --method atvitsc --dataset traffic --task app --split session --seeds 2 --set epochs=2",
        "atvitsc (epochs=2) †",
        "forest *",
        "seed 0, fold 0, the first of 3",
        "Loss by epoch",
        "Reliability: calibration error",
        "The split: what training shares with test, and its parts",
        "its 5-tuple: 3 of 60",
        "validation macro f1 from 0 to 0.75",
        "Published against ours",
        "bench reproduce table-VI",
        "abstained",
    ):
        assert told in text


@pytest.mark.parametrize(
    ("folder", "words"), [("results", ""), ("my runs", "--results 'my runs'"), ("../away", "--results away")]
)
def test_commands_name_the_results_folder_where_it_is_not_the_usual_one(folder, words, tracker, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    write(Tracker((here / folder).resolve(), tracker.address.uri), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    blocks = map(html.unescape, re.findall(r"<code>(bench run [^<]*)</code>", text))
    commands = [line for block in blocks for line in block.splitlines()]
    assert commands and all(line.endswith(words) and ("--results" in line) == bool(words) for line in commands)
    assert str(tmp_path) not in text


def test_a_wrong_data_set_is_refused_before_anything_is_imported(results, tmp_path):
    code = (
        "import sys; from bench.cli import main; sys.argv = ['bench', 'report', *sys.argv[1:]]\n"
        "try: main()\nexcept SystemExit as end: print(end.code, {'numba', 'mlflow', 'torch'} & {*sys.modules})"
    )
    words = [sys.executable, "-c", code, "--results", str(results), "--dataset", "nowhere"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.strip() == "2 set()" and "[no-runs]" in done.stderr, done.stderr


def test_leaky_and_clean_splits_have_tables_of_their_own(tracker, tmp_path):
    write(tracker, tmp_path / "report.html")
    captions = re.findall(r"<caption><span>(.*?)</span></caption>", (tmp_path / "report.html").read_text())
    tables = [html.unescape(text) for text in captions if "·" in text]
    assert tables == [
        f"{EVIL} · {EVIL} · paper, max_per_class=9",
        "traffic · app · capture, 3 folds",
        "traffic · app · session",
    ]


def test_one_data_set_alone(results, command_line, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    status, out, _ = command_line(
        "report", "--results", results, "--dataset", "traffic", "--output", tmp_path / "r.html"
    )
    assert status == 0 and "9 runs" in out
    assert "alert(1)" not in (tmp_path / "r.html").read_text()
    status, out, err = command_line("report", "--results", results, "--dataset", "nowhere")
    assert (status, out) == (2, "") and "no run has data set 'nowhere'" in err


def test_a_page_that_is_there_is_not_overwritten_by_an_empty_one(command_line, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "report.html").write_text("of before")
    status, out, err = command_line("report", "--results", tmp_path)
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert (tmp_path / "report.html").read_text() == "of before"
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("reproduced/x/sheet.json", "{"),
        ("reproduced/x/sheet.json", "[]"),
        ("reproduced/x/sheet.json", '{"title": "", "head": ["a"], "rows": [["1", "2"]], "notes": []}'),
        ("reproduced/x/sheet.json", '{"title": "", "head": ["a"]}'),
        ("audits/x.json", "nothing"),
        ("audits/x.json", "{}"),
    ],
)
def test_a_broken_file_is_named(name, content, tmp_path, tracker):
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(content)
    there = Tracker(tmp_path, tracker.address.uri)
    with refused("wrong-file", path):
        write(there, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    "damage", [lambda text: text[:99], lambda text: text.replace("silent", "loud"), lambda text: ""]
)
def test_a_run_whose_files_changed_is_left_out_and_named(results, tmp_path, monkeypatch, command_line, damage):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copytree(results, tmp_path / "results")
    tracker = Tracker(tmp_path / "results")
    run = next(record for record in tracker.search(method="majority"))
    monkeypatch.setattr(RunFiles, "folder", lambda self, one: tracker.results / "artifacts" / one.run_id / "artifacts")
    file = tracker.load(run.run_id).folder / "result.json"
    file.write_text(damage(file.read_text()))
    status, out, err = command_line("report", "--results", tmp_path / "results", "--output", tmp_path / "r.html")
    assert status == 0 and ": 9 runs" in out and f"left out: run {run.run_id[:8]}: " in err
    text = html.unescape((tmp_path / "r.html").read_text())
    assert outline((tmp_path / "r.html").read_text()) and "8 finished runs, 1 failed" in text
    assert f"run {run.run_id[:8]}: artifacts" in text and str(tmp_path) not in text


def test_what_scores_rest_on_is_checked_and_a_large_model_is_not(tracker, tmp_path, monkeypatch):
    run = next(record for record in tracker.search(method="majority"))
    names = ("result.json", "predictions.npz", "model/weights")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("as it was")
    files = {name: file_sha256(tmp_path / name) for name in names}
    found = dataclasses.replace(run, folder=tmp_path, files=files)
    found.check()
    (tmp_path / "model" / "weights").write_text("other")
    found.check()
    (tmp_path / "predictions.npz").write_text("other")
    with refused("run-damaged", "predictions.npz"):
        found.check()


def test_a_result_that_cannot_be_read_costs_its_details_alone(tracker, tmp_path, monkeypatch):
    def unreadable(path):
        raise ValueError("of another version")

    monkeypatch.setattr("bench.tracking.record.RunResult.load", unreadable)
    write(tracker, tmp_path / "report.html", datasets=["traffic"])
    assert "files are not readable" in (tmp_path / "report.html").read_text()


def test_a_run_without_files_keeps_its_numbers(tracker, tmp_path, monkeypatch):
    monkeypatch.setattr(RunFiles, "folder", lambda *_: tmp_path / "gone")
    write(tracker, tmp_path / "report.html", datasets=["traffic"])
    assert "files are gone" in (tmp_path / "report.html").read_text()


def test_markup_is_escaped_by_construction():
    assert el("p", '<&"', class_='"') == '<p class="&quot;">&lt;&amp;&quot;</p>'
    assert el("p", el("b", "x"), None, Html("&amp;"), aria_label=None) == "<p><b>x</b>&amp;</p>"
    assert el("img", src="a") == '<img src="a">'


def test_a_confusion_matrix_is_shaded_by_the_share_of_its_row():
    text = confusion(["a", "b"], [[9, 0, 0], [1, 8, 0]], "t")
    assert re.findall(r"<td.*?</td>", text) == [
        '<td class="s9">9</td>',
        "<td></td>",
        '<td class="s1">1</td>',
        '<td class="s8">8</td>',
    ]
    assert "abstained" in confusion(["a"], [[1, 1]], "t")


def test_charts_stay_inside_their_frame_whatever_the_numbers():
    text = dots([("m", 0.5, -3.0, 7.0)], "title")
    assert re.findall(r'x[12]="(.*?)"', text) == ["0%", "100%"] and 'cx="50%"' in text
    text = bars([("chat", [0.25, 0.5], "1 · 2"), ("mail", [9.0], "9")], "title")
    assert re.findall(r'x="(.*?)" width="(.*?)"', text) == [("0%", "25%"), ("25%", "50%"), ("0%", "100%")]
    steps = np.arange(500)
    curve = lines({"a": (steps, np.where(steps == 3, np.nan, steps / 500))}, "n", "title", "epoch")
    points = re.search(r'points="(.*?)"', curve).group(1).split()
    assert len(points) == 60 and points[0] == "52.0,158.0" and points[-1] == "432.0,8.0"
    lines({"flat": (steps[:1], np.zeros(1)), "none": (steps[:2], np.full(2, np.nan))}, "n", "title", "step")


def test_sure_and_wrong_answers_stand_apart_from_the_diagonal():
    truth, sure = np.array([0, 0, 0, 0]), np.array([[1, 0], [1, 0], [0, 1], [np.nan, 1]], np.float32)
    text = reliability(binned(truth, sure), "n", "title")
    assert "of 3 answers with 100%, 67%" in text and "of 1 answers with 0%, 0%" in text
    assert [float(x) for x in re.findall(r'cx="([\d.]+)"', text)] == [44, 264]
    assert text.count("<circle") == 2


@pytest.mark.parametrize("classes", [None, "many", {"chat": 3}, {"chat": {"train": -1}}, {"chat": {"train": "1"}}])
def test_a_split_that_does_not_tell_its_parts_is_not_drawn(classes):
    fields = {"samples": {"test": 60}, "classes": classes, "test_in_training_sessions": "all"}
    assert divided(SplitSummary.from_dict(fields)) is None


def test_a_split_tells_what_training_has_of_the_test_samples_and_the_parts_of_classes():
    classes = {"chat": {"train": 30, "validation": 10, "test": 20}, "mail": {"train": 0, "validation": 0, "test": 10}}
    fields = {"samples": {"test": 30}, "classes": classes, "test_in_training_sessions": 15, "test_in_training_x_y": 30}
    text = divided(SplitSummary.from_dict(fields))
    assert "its session: 15 of 30" in text and "x y: 30 of 30" in text and "chat: 30 · 10 · 20" in text
    widths = re.findall(r'width="([\d.]+)%" y="3"', text)
    assert [float(width) for width in widths] == [50, 100, 50, 16.7, 33.3, 0, 0, 16.7]


ASKED = [
    {},
    {"seeds": range(3), "folds": 2},
    {"seeds": [4]},
    {"seeds": [1, 4]},
    {"values": {"trees": "7", "max_features": "0.5"}},
    {"split": "capture", "max_per_class": 9, "min_per_class": 2, "balance": "undersample"},
    {"split": "paper", "max_per_class": 9, "sampling": "window=4,step=2", "filter": "dns,sugar"},
    {"split": "attribute:version=a'(\\d+) $x"},
    {"split": "file"},
]


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_a_command_asks_for_the_runs_that_it_was_made_of(asked, table_store, simple, tmp_path, monkeypatch):
    store = table_store(simple, attributes={"version=a'(\\d+) $x": np.arange(4)})
    monkeypatch.setattr(base, "opened", lambda dataset: store)
    for name in ("check_classes", "check_words"):
        monkeypatch.setattr(base, name, lambda *_: None)
    if asked.get("split") == "file":
        split_of(store, "task", "session").save(tmp_path / "a split.json")
        asked = asked | {"split_file": tmp_path / "a split.json"}
    specs = planned(["forest"], [store], **asked)
    found = []
    for line in command_lines(specs[0], [spec.split.seed for spec in specs]):
        bench, run, *words = shlex.split(line)
        assert (bench, run) == ("bench", "run")
        options = cli.get_command(None, "run").make_context("run", words).params
        split, settings = (
            kind(**{one.name: options[one.name] for one in dataclasses.fields(kind)})
            for kind in (base.SplitOptions, Settings)
        )
        seeds = range(options["seeds"]) if options["seeds"] else [options["seed"]]
        found += base.specs_of(options["names"], options["datasets"], split, settings, seeds)
    assert [spec.digest for spec in found] == [spec.digest for spec in specs]


def test_making_a_page_imports_no_training(results, tmp_path):
    code = (
        f"import sys; sys.argv = ['bench', 'report', '--results', {str(results)!r},"
        f"'--output', {str(tmp_path / 'r')!r}]\n"
        "from bench.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print({'torch', 'matplotlib', 'optuna', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("share", "told"), [(1.0, "it does not say how sure it is"), (0.9, "Reliability: calibration")]
)
def test_answers_that_are_labels_have_no_reliability(share, told):
    probabilities = np.full((4, 2), 1 - share, np.float32)
    probabilities[:, 0] = share
    truth, rows = np.array([0, 0, 1, 0]), np.arange(4)
    kept = Predictions(["a", "b"], rows, rows, truth, rows, probabilities)
    run = SimpleNamespace(predictions=lambda: kept)
    page = "".join(str(one) for one in _calibration(run, evaluate(truth, probabilities, ["a", "b"]), "x"))
    assert told in page and ("<svg" in page) == (share < 1)
