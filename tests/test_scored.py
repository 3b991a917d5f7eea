"""Predictions from elsewhere: what is written for another program, and what comes of its answers."""

import csv
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from refusals import refused
from tiny_store import tiny_home

from bench.data.store import Store
from bench.matrix.cells import run_matrix
from bench.runs.plan import expand
from bench.runs.scored import read_predictions, sample_names, score, write_predictions, write_samples
from bench.spec import SplitSpec
from bench.splits.split import Split, make_split
from bench.tracking.tracker import Tracker

PAGE = Path(__file__).parents[1] / "docs" / "scoring.md"
CLASSES = ["chat", "mail", "web"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with tiny_home(tmp_path_factory, "scored") as folder:
        yield folder


@pytest.fixture
def store(place):
    return Store.find("tiny")


@pytest.fixture
def split(store):
    return make_split(store, "kind", SplitSpec("capture", folds=3, fold=1))


def answers(split, **changes):
    """Rows that answer "mail", by name of the sample; of those in ``changes`` something else, None for no row."""
    rows = dict.fromkeys(sample_names(split, "test"), "mail") | changes
    return "sample,prediction\n" + "".join(f"{name},{answer}\n" for name, answer in rows.items() if answer is not None)


def test_samples_are_written_with_what_identifies_them(store, split, tmp_path):
    write_samples(tmp_path / "all.csv", store, split)
    write_samples(tmp_path / "hidden.csv", store, split, labels=False)
    known, hidden = (list(csv.DictReader((tmp_path / name).open())) for name in ("all.csv", "hidden.csv"))
    assert [row["part"] for row in known].count("test") == len(split.test) and len(known) == sum(
        map(len, split.parts.values())
    )
    assert len({row["sample"] for row in known}) == len(known)
    labels, order = store.labels("kind"), split.order("test")
    tests = [row for row in known if row["part"] == "test"]
    assert [row["label"] for row in tests] == [CLASSES[labels[session]] for session in split.test.session[order]]
    assert [int(row["start_ns"]) for row in tests] == store.session("start")[split.test.session[order]].tolist()
    assert tests[0]["capture"].endswith(".pcap") and tests[0]["server_port"] == "443" and tests[0]["protocol"] == "TCP"
    assert {row["label"] for row in hidden if row["part"] == "test"} == {""}
    assert [row["label"] for row in hidden if row["part"] == "train"] == [
        row["label"] for row in known if row["part"] == "train"
    ]


def test_a_runs_own_answers_give_its_numbers_to_the_bit(store, split, tmp_path):
    tracker = Tracker(tmp_path / "results")
    (spec,) = expand(["ports"], [store], split.spec)
    assert [one.status for one in run_matrix([spec], tracker)] == ["done"]
    run = tracker.load(tracker.finished(spec.digest).run_id)
    write_predictions(tmp_path / "answers.csv", run, store, split)
    split.save(tmp_path / "split.json")
    done = score(tmp_path / "answers.csv", tmp_path / "split.json", store, "again", tracker)
    scored = tracker.load(done.run_id)
    np.testing.assert_array_equal(scored.predictions().probabilities, run.predictions().probabilities)
    same = ("accuracy", "macro_f1", "macro_f1_low", "macro_f1_high", "calibration_error", "test_in_training_captures")
    assert [scored.metrics.get(name) for name in same] == [run.metrics.get(name) for name in same]
    assert {"f1/chat", "f1/mail", "f1/web"} < scored.metrics.keys()
    assert scored.metrics == {name: run.metrics[name] for name in scored.metrics}
    rest = run.metrics.keys() - scored.metrics.keys()
    assert all(re.match("seconds|validation_|training_|model_|peak_|packets_|samples_|bytes", name) for name in rest), (
        rest
    )
    assert scored.result().scores == run.result().scores and scored.split == run.split
    assert scored.spec.split == run.spec.split and scored.origin == "elsewhere"
    assert score(tmp_path / "answers.csv", tmp_path / "split.json", store, "again", tracker).status == "cached"

    (tmp_path / "answers.csv").write_text(answers(split))
    other = score(tmp_path / "answers.csv", tmp_path / "split.json", store, "again", tracker)
    assert other.status == "done" and run.run_id != other.run_id and "takes the place" in other.reason
    assert [one.run_id for one in tracker.search() if one.spec.method == "again"] == [other.run_id]


def test_abstentions_and_labels_are_read(split, tmp_path):
    first, second, *_ = sample_names(split, "test")
    (tmp_path / "a.csv").write_text(answers(split, **{first: "", second: "web"}))
    found = read_predictions(tmp_path / "a.csv", split, CLASSES)[split.order("test")]
    assert np.isnan(found[0]).all() and found[1].tolist() == [0, 0, 1] and found[2].tolist() == [0, 1, 0]


def test_a_class_may_be_called_as_a_column_is(split, tmp_path):
    classes = ["chat", "sample", "prediction"]
    head, names = ["sample", *classes], sample_names(split, "test")
    (tmp_path / "a.csv").write_text("\n".join([",".join(head), *(f"{name},0.25,0.75,0" for name in names)]) + "\n")
    assert read_predictions(tmp_path / "a.csv", split, classes)[0].tolist() == [0.25, 0.75, 0]
    (tmp_path / "b.csv").write_text("sample,prediction\n" + "".join(f"{name},sample\n" for name in names))
    assert read_predictions(tmp_path / "b.csv", split, classes)[0].tolist() == [0, 1, 0]


def rows(split, line):
    names = sample_names(split, "test")
    return "sample,chat,mail,web\n" + f"{names[0]},{line}\n" + "".join(f"{name},0,1,0\n" for name in names[1:])


@pytest.mark.parametrize(
    "text, told",
    [
        (lambda s: answers(s, **{sample_names(s, "test")[3]: None}), "1 test sample of 40 missing, first"),
        (lambda s: answers(s) + f"{sample_names(s, 'test')[3]},mail\n", "row 42: sample .* is there twice"),
        (lambda s: answers(s, **{sample_names(s, "train")[0]: "mail"}), "is of the part train"),
        (lambda s: answers(s).replace(s.digest[:12], "0" * 12), "row 2: sample .* is not of this split"),
        (lambda s: answers(s, **{sample_names(s, "test")[0]: "mial"}), "'mial' is not a class; did you mean mail"),
        (lambda s: answers(s, **{f"{s.digest[:12]}-test-99": "mail"}), "there is no sample"),
        (lambda s: rows(s, "0.5,0.2,0.2"), "row 2: its numbers sum to 0.9"),
        (lambda s: rows(s, "1.5,-0.5,0"), "row 2: -0.5 is negative"),
        (lambda s: "sample,prediction,chat,mail,web\n", "a column of predictions and of probabilities"),
        (lambda s: rows(s, "a,b,c"), "row 2: .* are not probabilities"),
        (lambda s: rows(s, "nan,1,0"), "row 2: its numbers sum to nan"),
        (lambda s: rows(s, "0,5,0,5,0,0"), "row 2: has 7 columns, the head has 4"),
        (lambda s: answers(s)[: -len(",mail\n")], "row 41: has 1 column, the head has 2"),
        (lambda s: "name,prediction\n", "needs the columns sample and prediction.*it has 'name', 'prediction'"),
        (lambda s: ",".join(f"c{n}" * 50 for n in range(5000)) + "\n", "needs the columns .{,1500}$"),
        (lambda s: "", "needs the columns"),
        (lambda s: "sample,prediction,prediction\n", "a column is there twice"),
        (lambda s: "sample,sample,prediction\n", "a column is there twice"),
        (lambda s: b"\xff\xfe\x00", "cannot be read as CSV"),
        (lambda s: answers(s).replace("mail", '"mail', 1), "row 2: a quote does not close"),
        (lambda s: answers(s).replace("mail", "ma\0il", 1), "row 2: holds a NUL byte"),
        (lambda s: answers(s).replace("\n", "\n\n", 1).replace("mail", "mial", 1), "row 3: prediction 'mial'"),
    ],
)
def test_what_is_no_answer_is_refused(text, told, split, tmp_path):
    made = text(split)
    (tmp_path / "a.csv").write_bytes(made if isinstance(made, bytes) else made.encode())
    with pytest.raises(Exception, match=told) as error:
        read_predictions(tmp_path / "a.csv", split, CLASSES)
    assert error.value.code == "wrong-predictions"


def test_a_file_of_another_store_is_refused(store, split, tmp_path):
    split.save(tmp_path / "split.json")
    (tmp_path / "a.csv").write_text(answers(split))
    content = json.loads((tmp_path / "split.json").read_text()) | {"store": "0" * 64}
    (tmp_path / "split.json").write_text(json.dumps(content))
    with refused("wrong-split-file", "another store"):
        score(tmp_path / "a.csv", tmp_path / "split.json", store, "tool", Tracker(tmp_path / "results"))
    assert not (tmp_path / "results").exists()


def test_a_split_of_picked_samples_does_not_stand_in_the_row_of_its_scheme(store, split, tmp_path):
    split.save(tmp_path / "split.json")
    content = json.loads((tmp_path / "split.json").read_text())
    content |= {"digest": None, "test": {name: values[:30] for name, values in content["test"].items()}}
    for scheme in (split.spec.scheme, "file"):
        (tmp_path / "easy.json").write_text(json.dumps(content | {"scheme": scheme}))
        easy = Split.load(tmp_path / "easy.json", store)
        (tmp_path / "a.csv").write_text(answers(easy))
        if scheme == "file":
            asked = score(tmp_path / "a.csv", tmp_path / "easy.json", store, "tool", Tracker(tmp_path / "results"))
            assert asked.spec.split.scheme == "file" and asked.spec.split.file_digest
            continue
        with refused("wrong-split-file", "easy.json", f"is not what split {split.spec.label} makes"):
            score(tmp_path / "a.csv", tmp_path / "easy.json", store, "tool", Tracker(tmp_path / "results"))
        assert not (tmp_path / "results").exists()


def test_samples_and_split_are_not_written_over_each_other(bench_in, tmp_path):
    status, _, error = bench_in(tmp_path)("split", "demo", "--save", "s.json", "--samples", "./s.json")
    assert status == 2 and "--save and --samples both name s.json" in error


@pytest.mark.parametrize("write", [write_samples, write_predictions])
def test_a_process_that_is_killed_while_it_writes_leaves_the_earlier_file(write, store, split, tmp_path, monkeypatch):
    def ended(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.runs.scored.sample_names", ended)
    record = SimpleNamespace(predictions=lambda: SimpleNamespace(classes=CLASSES, probabilities=np.zeros((40, 3))))
    (tmp_path / "a.csv").write_text("whole")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.csv", *([record] if write is write_predictions else []), store, split)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["whole"]


@pytest.mark.parametrize(
    "name, code, told",
    [("forest", "same-name", "is the name of a method"), ("My Tool", "bad-options", "small letters")],
)
def test_names_that_no_tool_can_have(name, code, told, store, split, tmp_path):
    with refused(code, told):
        score(tmp_path / "a.csv", tmp_path / "split.json", store, name, Tracker(tmp_path / "results"))


def test_a_refusal_is_one_line_and_leaves_no_folder(bench_in, tmp_path):
    bench = bench_in(tmp_path)
    assert bench("split", "demo", "--split", "session", "--save", "s.json")[0] == 0
    (tmp_path / "a.csv").write_text("sample,prediction\nx,mail\n")
    status, out, error = bench("score", "a.csv", "--split", "s.json", "--name", "tool")
    assert (status, out) == (2, "") and len(error.splitlines()) == 1 and "row 2" in error
    assert not (tmp_path / "results").exists()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.S)


def test_the_page_word_for_word(bench_in, tmp_path):
    bench = bench_in(tmp_path)
    words = ("--dataset", "demo", "--split", "capture", "--folds", "5", "--fold", "0")
    assert bench("run", "--method", "majority", *words)[0] == 0
    split_words = next(line.split() for line in blocks("")[0].splitlines() if line.startswith("bench split"))
    assert bench(*split_words[1:])[0] == 0
    (script,) = blocks("sh")
    commands, scored = script.rsplit("\n", 2)[0], script.splitlines()[-1].split()
    subprocess.run(["sh", "-c", commands], check=True, cwd=tmp_path)
    samples = list(csv.DictReader((tmp_path / "fold0.csv").open()))
    ports = {}
    for row in samples:
        if row["part"] == "train":
            ports.setdefault(row["server_port"], Counter())[row["label"]] += 1
    answered = {row["sample"]: row["prediction"] for row in csv.DictReader((tmp_path / "answers.csv").open())}
    for row in samples:
        if row["part"] == "test" and (known := ports.get(row["server_port"])):
            assert known[answered[row["sample"]]] == max(known.values())
    assert bench(*scored[1:])[0] == 0
    (program,) = blocks("python")
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    assert bench("score", "answers.csv", "--split", "fold0.json", "--name", "sklearn-flows")[0] == 0
    status, out, _ = bench("table", "--metric", "accuracy", "--format", "json")
    found = {row["method"].split()[0]: row for row in json.loads(out)["rows"]}
    assert status == 0 and found["awk-ports"]["accuracy"] >= found["majority"]["accuracy"]
    assert "sklearn-flows" in found and "sklearn-flows (elsewhere) △" in bench("table")[1]
    assert bench("report", "--output", "page.html")[0] == 0
    page = (tmp_path / "page.html").read_text()
    assert "bench score PREDICTIONS.csv --split SPLIT.json --name awk-ports" in page
    assert bench("audit", "demo", "--no-runs", "--split", "capture")[0] == 0


def test_blanks_in_the_head_are_none_of_a_name(split, tmp_path):
    (tmp_path / "a.csv").write_text(answers(split).replace("sample,prediction", " sample , prediction", 1))
    assert (read_predictions(tmp_path / "a.csv", split, CLASSES).argmax(1) == CLASSES.index("mail")).all()


def test_the_class_that_leads_by_less_than_32_bits_tell_leads(split, tmp_path):
    names = sample_names(split, "test")
    lines = "".join(f"{name},0.499999999,0.500000001,0\n" for name in names)
    (tmp_path / "a.csv").write_text("sample,chat,mail,web\n" + lines)
    found = read_predictions(tmp_path / "a.csv", split, CLASSES)
    assert (found.argmax(1) == 1).all() and found.dtype == np.float32 and abs(found.sum(1) - 1).max() < 1e-6
