"""Suites: the file, what it is held against, and the runs that belong to it."""

import dataclasses
import json
import re

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused
from tiny_store import tiny_home
from working_folder import write_working_folder

from bench.data.store import Store
from bench.errors import InputError
from bench.matrix.cells import run_matrix
from bench.runs.plan import expand
from bench.spec import SplitSpec
from bench.splits.split import make_split
from bench.suites.contents import cells, of_suite, suite_with_digests
from bench.suites.suite import FORMAT, Contender, Portion, Suite, read_suite, suite_names
from bench.tracking.tracker import Tracker

METHOD = """
from dataclasses import dataclass
import numpy as np
from bench.method import NoParameters, parameter
from methods.majority import Majority

class Fold(Majority):
    name = "fold"
    @dataclass(frozen=True)
    class Parameters(NoParameters):
        x: int = parameter(0, "the class to answer", "our choice", search=(0, 1, 2))
    def predict_proba(self, inputs):
        answers = np.zeros_like(super().predict_proba(inputs))
        answers[:, self.parameters.x] = 1 if self.parameters.x < 2 else np.nan
        return answers
"""
WORDS = st.text("abc-é\"'\\ 1", min_size=1, max_size=6)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with tiny_home(tmp_path_factory, "suites") as folder:
        yield folder


@pytest.fixture
def suite():
    return Suite(FORMAT, "tried", (Portion("tiny", "kind", "capture", folds=3),), (Contender("majority"),))


@given(name=WORDS, about=WORDS, values=st.dictionaries(WORDS, st.one_of(WORDS, st.integers(-9, 9), st.booleans())))
def test_a_suite_is_read_as_it_was_written(tmp_path_factory, name, about, values):
    portion = Portion("demo", "service", "capture+session", "ab12cd34", (0, 3), 5, None, 40, splits={})
    whole = dataclasses.replace(portion, splits={f"seed {s}, fold {f}": "c0c0c0c0" for s in (0, 3) for f in range(5)})
    methods = Contender("knn", set=values), Contender("fsnet", "shared", epochs=2, datasets=("demo",))
    suite = Suite(FORMAT, name, (whole, dataclasses.replace(portion, task="app")), methods, about=about, trials=7)
    file = tmp_path_factory.mktemp("suite") / "suite.toml"
    suite.save(file)
    assert read_suite(str(file)) == suite and read_suite(str(file)).called == suite.name


def test_a_file_that_is_called_as_a_shipped_suite_is_told_apart(tmp_path):
    """Folds, budgets and digests can be other ones in it."""
    shipped = read_suite("etc-2026")
    less = shipped.changed(datasets=shipped.datasets[-1:])
    assert shipped.called == less.called == "etc-2026"
    less.save(tmp_path / "less.toml")
    assert read_suite(str(tmp_path / "less.toml")).called.startswith("etc-2026 (of less.toml, ")


def test_all_that_is_wrong_with_a_file_is_told_at_once(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        'format = "bench-suite-0"\nname = "mine"\nmethods = [{name = "knn", datasets = ["demmo"]}, {nam = "knn"}]\n'
        '[[datasets]]\nname = "demo"\ntask = "service"\nsplit = "captre"\n'
        '[[datasets]]\nname = "demo"\ntask = "service"\nsplit = "session"\nfolds = 2\n'
        '[datasets.splits]\n"fold 7" = "ab"\n'
    )
    with pytest.raises(InputError) as error:
        read_suite(str(file))
    text = str(error.value)
    assert error.value.code == "wrong-suite" and text.startswith(str(file))
    for what in ("bench-suite-1", "did you mean capture", "nam", "fold 7"):
        assert what in text, text


TASK = '[[datasets]]\nname = "demo"\ntask = "service"\nsplit = "session"\n'


@pytest.mark.parametrize(
    "text, told",
    [
        (TASK + 'store = "b"', "datasets[0].store = 'b': must be the first 8 to 64 hexadecimal digits"),
        (TASK + '[datasets.splits]\n"seed 0" = ""', "datasets[0].splits.seed 0 = '': must be the first 8 to 64"),
        (TASK + "folds = 2\nseeds = [0, 1]\n" + TASK + "folds = 2\nfold = 1\nseeds = [1]",
         "datasets[1]: has splits of datasets[0]; name each split once"),
        (TASK + "folds = 100_000_000", "datasets[0].folds = 100000000: 100000000 folds; folds are 2 to 10,000"),
        (TASK + 'filter = "dnss"\nseeds = [1, 1]', "datasets[0].filter = 'dnss': unknown filter"),
        (TASK + 'filter = "dnss"\nseeds = [1, 1]', "datasets[0].seeds = [1, 1]: must be one or more, each once"),
        (TASK + 'sampling = "window=x"', "datasets[0].sampling = 'window=x'"),
        (TASK.replace("session", "et-bert-flow"), "datasets[0].split = 'et-bert-flow': et-bert-flow stands for"),
        ("trials = -3\n" + TASK, "trials = -3: must be 1 or more"),
        (f"about = {'[' * 5000}", "cannot be read as TOML (brackets stand in brackets too deep)"),
        ("", "datasets: is missing"),
    ],
)  # fmt: skip
def test_a_suite_that_holds_nothing_or_cannot_be_is_refused(text, told, tmp_path):
    (tmp_path / "mine.toml").write_text(f'format = "bench-suite-1"\nname = "mine"\nmethods = []\n{text}')
    with refused("wrong-suite", "mine.toml", told):
        read_suite(str(tmp_path / "mine.toml"))


def test_a_suite_that_an_editor_began_with_a_mark_is_read(suite, tmp_path):
    (tmp_path / "mine.toml").write_bytes(b"\xef\xbb\xbf" + suite.text().replace("\n", "\r\n").encode())
    assert read_suite(str(tmp_path / "mine.toml")) == suite


def test_a_matrix_that_no_memory_holds_is_refused(place):
    with refused("bad-options", "1,000,000,000,000 runs are more than the 1,000,000 that one command takes"):
        expand(["majority"], [Store.find("tiny")], seeds=range(10**12))


@pytest.mark.parametrize("word, told", [("etc-2062", "did you mean etc-2026"), ("none.toml", "no such file")])
def test_what_is_no_suite_is_told(word, told, bench_in, tmp_path):
    status, _, error = bench_in(tmp_path)("run", "--suite", word)
    assert status == 2 and told in error and "--save-plan" in error


def test_a_suite_is_the_matrix_that_was_saved(place, suite):
    made = cells(suite, Store.find)
    saved = suite_with_digests("saved", made)
    assert cells(saved, Store.find) == made and len(made) == 3
    (portion,) = saved.datasets
    split = make_split(Store.find("tiny"), "kind", SplitSpec("capture", fold=1, folds=3))
    assert split.digest.startswith(portion.splits["seed 0, fold 1"]) and len(portion.splits) == 3
    assert portion.store == Store.find("tiny").digest[:16]
    one = suite_with_digests("one", made[1:2])
    assert cells(one, Store.find) == made[1:2]


def test_another_store_or_split_is_refused_before_anything_runs(place, suite):
    saved = suite_with_digests("saved", cells(suite, Store.find))
    (portion,) = saved.datasets
    other_store = dataclasses.replace(portion, store="0" * 16)
    other_split = dataclasses.replace(portion, splits=portion.splits | {"seed 0, fold 2": "0" * 16})
    for other, told in ((other_store, "has store"), (other_split, "seed 0, fold 2: its split is")):
        with pytest.raises(InputError, match=told) as error:
            cells(dataclasses.replace(saved, datasets=(other,)), Store.find)
        assert error.value.code == "suite-mismatch"


def test_another_file_of_a_method_is_refused(place, suite, monkeypatch):
    monkeypatch.chdir(place)
    (place / "mine.py").write_text(
        "from methods.majority import Majority\n\nclass Mine(Majority):\n    name = 'mine'\n"
    )
    saved = suite_with_digests("saved", cells(suite, Store.find, methods=["mine.py:Mine"]))
    assert [one.name for one in saved.methods] == ["mine.py:Mine"] and saved.methods[0].source
    wrong = dataclasses.replace(saved.methods[0], source="0" * 16)
    with pytest.raises(InputError, match="not the file that the suite names"):
        cells(dataclasses.replace(saved, methods=(wrong,)), Store.find)


def test_methods_and_data_sets_of_a_suite_can_be_chosen_and_others_join(place, suite):
    more = dataclasses.replace(suite, methods=(Contender("majority"), Contender("ports", datasets=("tiny",))))
    assert {spec.method for spec in cells(more, Store.find)} == {"majority", "ports"}
    assert {spec.method for spec in cells(more, Store.find, methods=["first-bytes", "ports"])} == {
        "first-bytes",
        "ports",
    }
    with pytest.raises(InputError, match="has no data set"):
        cells(more, Store.find, datasets=["demo"])


def test_runs_of_a_suite_are_those_at_its_places(place, suite, tmp_path):
    tracker = Tracker(tmp_path / "results")
    more = dataclasses.replace(suite, methods=(Contender("majority"), Contender("ports")))
    specs = cells(more, Store.find)
    own = [dataclasses.replace(specs[0], split=dataclasses.replace(specs[0].split, seed=9))]  # none of the suite's
    assert {one.status for one in run_matrix([*specs[:4], *own], tracker)} == {"done"}
    records, notes = of_suite(more, tracker.search())
    assert {record.spec for record in records} == set(specs[:4])
    assert "ports: 2 of 3 runs of the suite are not done" in notes and not any("majority" in note for note in notes)

    saved = suite_with_digests("saved", specs)
    assert all(record.split.startswith(saved.portion_of(record.spec).splits[f"seed 0, fold {record.spec.split.fold}"])
               for record in records)  # fmt: skip
    (portion,) = saved.datasets
    other = dataclasses.replace(portion, splits=dict.fromkeys(portion.splits, "0" * 16))
    records, notes = of_suite(dataclasses.replace(saved, datasets=(other,)), tracker.search())
    assert records == [] and "4 runs on splits of other digests than the suite names left out" in notes


def test_a_plan_is_saved_run_shown_and_stands_in_the_report(bench_in, tmp_path):
    bench = bench_in(tmp_path)
    words = ("--method", "majority,ports,knn", "--dataset", "demo", "--split", "session", "--folds", "2")
    status, _, told = bench("run", *words, "--save-plan", "mine.toml")
    assert status == 0 and "bench run --suite mine.toml" in told
    (tmp_path / "mine.toml").write_text((tmp_path / "mine.toml").read_text() + "\n")
    status, out, _ = bench("run", "--suite", "mine.toml", "--json")
    assert status == 0 and {one["status"] for one in json.loads(out)["runs"]} == {"cached"}

    status, out, _ = bench("run", "--plan", "mine.toml", "--results", "again", "--json")
    assert {one["status"] for one in json.loads(out)["runs"]} == {"done"}
    tables = []
    for results in ("results", "again"):
        status, out, _ = bench("table", "--suite", "mine.toml", "--results", results, "--metric", "macro_f1")
        assert status == 0 and "suite mine" in out and "majority" in out
        tables.append(out)
    assert tables[0] == tables[1]

    assert bench("run", *words[:1], "majority", *words[2:4], "--split", "session", "--seed", "4")[0] == 0
    assert bench("table", "--suite", "mine.toml", "--metric", "macro_f1")[1] == tables[0]
    status, out, _ = bench("compare", "--suite", "mine.toml")
    assert status == 0 and "knn" in out and "suite mine" in out
    assert bench("report", "--suite", "mine.toml", "--output", "page.html")[0] == 0
    page = (tmp_path / "page.html").read_text()
    plan = read_suite("mine.toml").datasets[0].splits["seed 0, fold 1"]
    assert plan in page and "bench run --suite mine.toml" in page
    assert bench("report", "--output", "all.html")[0] == 0 and plan in (tmp_path / "all.html").read_text()


def test_tasks_of_different_scales_are_ranked_together_and_each_by_itself(bench_in, tmp_path):
    bench = bench_in(tmp_path)
    portion = {"name": "demo", "task": "service", "folds": 2}
    content = {"format": "bench-suite-1", "name": "two", "methods": [{"name": name} for name in ("majority", "knn")]}
    content["datasets"] = [{**portion, "split": "session"}, {**portion, "split": "capture", "max_per_class": 20}]
    (tmp_path / "two.toml").write_text(tomli_w.dumps(content))
    assert bench("run", "--suite", "two.toml")[0] == 0
    status, out, _ = bench("compare", "--suite", "two.toml")
    assert status == 0 and "knn" in out and "left out" not in out and "scales differ" not in out
    assert "demo/service (session, 2 folds) + demo/service (capture, 2 folds, max_per_class=20)" in out
    status, out, _ = bench("compare", "--suite", "two.toml", "--each", "--json")
    tables = json.loads(out)["tables"]
    assert [[row["method"] for row in table["rows"]] for table in tables] == [["knn", "majority"]] * 2
    assert [table["rows"][0]["split"] for table in tables] == ["session", "capture"]
    for words, told in (
        (("--suite", "two.toml", "--dataset", "iot-sentinel"), "iot-sentinel"),
        (("--dataset", "demo", "--each"), "--each goes with --suite"),
    ):
        status, _, error = bench("compare", *words)
        assert status == 2 and told in error


def test_one_task_of_a_suite_is_run_saved_exported_and_ranked_alone(bench_in, tmp_path):
    bench = bench_in(tmp_path)
    tasks = {"service": {"default": True}, "kind": {"merge": {"chat": "talk", "voip": "talk"}}}
    card = {"name": "pair", "title": "x", "generator": "demo", "captures": {"include": ["*/*.pcap"]}, "tasks": tasks}
    (tmp_path / "pair.toml").write_text(tomli_w.dumps(card))
    assert bench("prepare", "pair.toml")[0] == 0
    content = {"format": "bench-suite-1", "name": "two", "methods": [{"name": name} for name in ("majority", "knn")]}
    content["datasets"] = [{"name": "pair", "task": task, "split": "session"} for task in ("service", "kind")]
    (tmp_path / "two.toml").write_text(tomli_w.dumps(content))
    words = ("--suite", "two.toml", "--task", "kind")
    status, out, _ = bench("run", *words, "--save-plan", "one.toml", "--json")
    assert status == 0 and [run["spec"]["task"] for run in json.loads(out)["runs"]] == ["kind"] * 2
    assert [one.task for one in read_suite("one.toml").datasets] == ["kind"]
    assert bench("run", "--suite", "two.toml", "--task", "service", "--method", "majority")[0] == 0
    for more in ((), ("--each",)):
        status, out, _ = bench("compare", *words, *more)
        assert status == 0 and "pair · kind" in out and "are not done" not in out
    status, out, told = bench("results", "export", "one.zip", *words)
    assert status == 0 and "2 runs" in out and "are not done" not in told
    content["methods"].append({"name": "ports", "datasets": ["demo"]})
    content["datasets"].append({"name": "demo", "task": "service", "split": "session", "max_per_class": 20})
    (tmp_path / "two.toml").write_text(tomli_w.dumps(content))  # with a method that is bound to another data set
    status, _, error = bench("run", *words, "--save-plan", "less.toml", "--dry-run")
    assert status == 0 and [one.name for one in read_suite("less.toml").methods] == ["majority", "knn"], error
    assert bench("compare", "--suite", "two.toml", "--each")[0] == 0
    status, _, error = bench("run", *words, "--method", "ports")
    assert status == 2 and "nothing is left of two: it has ports on demo alone" in error
    for command in ("run", "compare"):
        status, _, error = bench(command, "--suite", "two.toml", "--task", "kinds")
        assert status == 2 and "kind" in error and "service" in error
    status, _, error = bench("run", "--suite", "etc-2026", "--dataset", "iot-sentinel,demo", "--task", "tls")
    assert status == 2 and "etc-2026 has no task 'tls' of demo" in error and "there is: service" in error


@pytest.mark.parametrize(
    "words, told",
    [
        (("--suite", "etc-2026", "--folds", "3"), "--folds"),
        (("--suite", "etc-2026", "--set", "x=1", "--seed", "1"), "--seed, --set"),
        (("--method", "knn"), "--suite"),
        (("--dataset", "demo"), "--suite"),
        (("--method", "knn", "--dataset", "demo", "--save-plan", "no/such/plan.toml"), "there is no folder"),
    ],
)
def test_options_that_a_suite_answers_are_refused(words, told, bench_in, tmp_path):
    status, _, error = bench_in(tmp_path)("run", *words)
    assert status == 2 and told in error


def test_what_is_missing_is_counted_by_settings_and_whatever_is_shown(bench_in, tmp_path):
    bench = bench_in(tmp_path)
    text = (
        'format = "bench-suite-1"\nname = "s"\n[[datasets]]\nname = "demo"\ntask = "service"\nsplit = "session"\n'
        '[[methods]]\nname = "majority"\n[[methods]]\nname = "knn"\nset = {neighbours = 7}\n'
    )
    (tmp_path / "s.toml").write_text(text)
    assert bench("run", "--method", "majority,knn", "--dataset", "demo", "--split", "session")[0] == 0
    for more in ((), ("--method", "knn"), ("--method", "majority")):
        out = bench("table", "--suite", "s.toml", *more)[1]
        assert out.count("are not done") == 1 and "knn (neighbours=7): 1 of 1 runs" in out
    assert "knn (neighbours=7): 1 of 1 runs" in bench("compare", "--suite", "s.toml")[1]
    words = ("--method", "majority,ports", "--dry-run", "--save-plan", "plan.toml")
    assert bench("run", "--suite", "s.toml", *words)[0] == 0
    assert [one.name for one in read_suite("plan.toml").methods] == ["majority", "ports"]
    (tmp_path / "s.toml").write_text(text + "[[methods]]\nname = 'fsnet'\nepochs = -3\n")
    status, _, error = bench("run", "--suite", "s.toml")
    assert status == 2 and "epochs" in error and "1 or more" in error


def test_split_files_of_one_task_are_told_apart_by_what_is_in_them(place, tmp_path):
    store = Store.find("tiny")
    for seed in (0, 1):
        make_split(store, "kind", SplitSpec("capture", seed=seed)).save(tmp_path / f"{seed}.json")
        text = (tmp_path / f"{seed}.json").read_text().replace('"scheme": "capture"', '"scheme": "file"')
        (tmp_path / f"{seed}.json").write_text(re.sub(r'"digest": "[0-9a-f]+", ', "", text))
    two = [Portion("tiny", "kind", "file", file=str(tmp_path / f"{seed}.json")) for seed in (0, 1)]
    one = Suite(FORMAT, "s", tuple(two), (Contender("majority"),))
    specs = cells(one, Store.find)
    assert [one.portion_of(spec) for spec in specs] == two


@pytest.mark.parametrize("name", suite_names())
def test_shipped_suites_are_right(name):
    from bench.data.names import find_card
    from bench.runs.plan import resolve
    from bench.runs.registry import describe

    suite = read_suite(name)
    assert suite.name == name and suite.title and suite.about
    for portion in suite.datasets:
        assert portion.task in find_card(portion.name).tasks
        assert portion.store and portion.splits, f"{portion.name}: held to no digest"
    for one in suite.methods:
        resolve(one.name, {one.name: describe(one.name)}, one.settings)


def test_a_suite_is_tuned_fold_by_fold_and_stands_beside_its_defaults(bench_in, tmp_path):
    bench = bench_in(tmp_path)
    (tmp_path / "s.toml").write_text(
        'format = "bench-suite-1"\nname = "s"\ntrials = 3\nmethods = [{name = "knn"}, {name = "majority"}]\n'
        'metrics = ["macro_f1"]\n'
        '[[datasets]]\nname = "demo"\ntask = "service"\nsplit = "session"\nfolds = 2\n'
    )
    status, out, told = bench("tune", "--suite", "s.toml", "--json")
    assert status == 0, told
    runs = json.loads(out)["runs"]
    assert [one["status"] for one in runs] == ["done", "done", "skipped", "skipped"]
    assert {one["spec"]["tuned"] for one in runs[:2]} == {"3 trials a fold"} and "search space" in runs[2]["reason"]
    assert all(one["metrics"]["search_trials"] == 3 and one["metrics"]["seconds_search"] > 0 for one in runs[:2])
    assert [one["spec"]["fold"] for one in runs[:2]] == [0, 1]

    status, out, _ = bench("tune", "--suite", "s.toml", "--json")
    assert [one["status"] for one in json.loads(out)["runs"]] == ["cached", "cached", "skipped", "skipped"]
    assert bench("run", "--suite", "s.toml")[0] == 0
    status, out, _ = bench("table", "--suite", "s.toml")
    assert status == 0 and "knn (tuned: 3 trials a fold)" in out and "not done" not in out
    assert "search_trials" in out and "seconds_search" in out  # beside what they made
    assert any(line.startswith("knn ") and "tuned" not in line for line in out.splitlines())
    assert bench("report", "--output", "page.html")[0] == 0
    assert "--fold 1" in (tmp_path / "page.html").read_text()
    status, _, error = bench("tune", "--suite", "s.toml", "--param", "neighbours=1,3")
    assert status == 2 and "--param" in error
    assert bench("tune", "--method", "knn")[0] == 2


def test_the_parameters_of_a_fold_are_the_best_of_its_own_search(place, tmp_path, monkeypatch):
    from bench.tuning.nested import tune_each
    from bench.tuning.share import TuneOptions
    from bench.tuning.studies import storage_of

    monkeypatch.chdir(tmp_path)  # a path in the method's name would draw other trials in each folder
    (tmp_path / "fold_by_fold.py").write_text(METHOD)
    tracker = Tracker(tmp_path / "results")
    one = Suite(FORMAT, "s", (Portion("tiny", "kind", "capture", folds=2),), (Contender("fold_by_fold.py:Fold"),))
    options = TuneOptions(storage_of(tracker), tmp_path / "results", trials=3)
    outcomes = list(tune_each(cells(one, Store.find), tracker, options))
    assert [outcome.status for outcome in outcomes] == ["done", "done"]
    saved = [json.loads(file.read_text()) for file in (tmp_path / "results" / "params").iterdir()]
    by_fold = {one["split"]["fold"]: one["parameters"] for one in saved}
    assert by_fold  # of a fold where all points are equal there is no best: it keeps the default
    best = {o.spec.split.fold: {"x": 0} | dict(o.spec.parameters) for o in outcomes}
    assert all(best[fold] == by_fold.get(fold, {"x": 0}) for fold in (0, 1))
    assert [o.metrics["search_trials"] for o in outcomes] == [3, 3]
    shorter = dataclasses.replace(options, trials=2)  # of the same studies
    again = list(tune_each(cells(one, Store.find), tracker, shorter))
    assert {(o.spec.tuned, o.metrics["search_trials"]) for o in again} == {("2 trials a fold", 2)}
    (row,) = {outcome.spec.but_place for outcome in outcomes}
    assert row.tuned == "3 trials a fold" and not row.parameters


HEAD = 'format = "bench-suite-1"\nname = "s"\nmethods = [{name = "majority"}, {name = "knn"}]\n'
WEIGHTS = '"yatc", set = {weights = "x", weights_licence = "MIT"}'
DEMO = '[[datasets]]\nname = "demo"\ntask = "service"\nsplit = "session"\n'


@pytest.mark.parametrize(
    "text, place, told",
    [
        (HEAD.replace("knn", "kmn") + DEMO, "methods[1]", "did you mean knn"),
        (HEAD.replace('"knn"', '"mine.py:M"') + DEMO, "methods[1]", "method mine.py:M: no file mine.py"),
        (HEAD.replace('"knn"', '"knn", preset = "x"') + DEMO, "methods[1]", "no preset 'x'"),
        (HEAD.replace('"knn"', '"knn", set = {x = 1}') + DEMO, "methods[1]", "no parameter 'x'"),
        (HEAD.replace('"knn"', WEIGHTS) + DEMO, "methods[1]", "weights=x"),
        (HEAD + DEMO + DEMO.replace("demo", "dmo"), "datasets[1]", "did you mean demo"),
        (HEAD + DEMO + DEMO.replace("service", "servce"), "datasets[1]", "did you mean service"),
        (HEAD + DEMO.replace('"session"', '"attribute:x"'), "datasets[0]", "attribute"),
    ],
)  # fmt: skip
def test_a_wrong_word_of_a_suite_names_its_file_and_the_place_there(text, place, told, bench_in, tmp_path):
    (tmp_path / "s.toml").write_text(text)
    status, _, error = bench_in(tmp_path)("run", "--suite", "s.toml")
    line = error.splitlines()[-1]
    assert status == 2 and f"s.toml: {place}: " in line and told in line and "--method" not in line


def test_a_table_of_a_suite_needs_no_file_of_its_methods(bench_in, tmp_path):
    (tmp_path / "s.toml").write_text(HEAD.replace('"knn"', WEIGHTS) + DEMO)
    bench = bench_in(tmp_path)
    assert bench("run", "--method", "majority", "--dataset", "demo", "--split", "session")[0] == 0
    status, out, _ = bench("table", "--suite", "s.toml")
    assert status == 0 and "1 of 1 runs of the suite are not done" in out


def test_a_split_from_a_file_needs_the_file(tmp_path):
    (tmp_path / "s.toml").write_text(HEAD + DEMO.replace("session", "file"))
    with pytest.raises(InputError, match=r"datasets\[0\].file.*is missing: name the split's file"):
        read_suite(str(tmp_path / "s.toml"))


def test_a_saved_plan_names_its_split_file_as_seen_from_its_folder(bench_in, tmp_path):
    bench = bench_in(tmp_path)
    assert bench("split", "demo", "--split", "session", "--save", "cut.json")[0] == 0
    (tmp_path / "plans").mkdir()
    words = ("--method", "majority", "--dataset", "demo", "--split", "file:cut.json")
    assert bench("run", *words, "--save-plan", "plans/p.toml")[0] == 0
    text = (tmp_path / "plans" / "p.toml").read_text()
    assert 'file = "../cut.json"' in text and str(tmp_path) not in text
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "p.toml").write_text(text)
    assert '"cached"' in bench("run", "--suite", "moved/p.toml", "--json")[1]
    assert bench("run", "--suite", "moved/p.toml", "--dry-run", "--save-plan", "again.toml")[0] == 0
    assert 'file = "cut.json"' in (tmp_path / "again.toml").read_text()
    assert bench("report", "--suite", "moved/p.toml", "--output", "page.html")[0] == 0
    assert "file = &quot;cut.json&quot;" in (tmp_path / "page.html").read_text()


def test_runs_on_two_states_of_a_data_set_are_not_mixed(place, suite, tmp_path):
    tracker = Tracker(tmp_path / "results")
    specs = cells(suite, Store.find)
    assert {one.status for one in run_matrix(specs, tracker)} == {"done"}
    records = tracker.search()
    older = [dataclasses.replace(one, spec=dataclasses.replace(one.spec, store="0" * 64), started=one.started - 9)
             for one in records[:2]]  # fmt: skip
    kept, notes = of_suite(suite, [*older, *records])
    assert kept == records and "tiny: 2 runs on another state of the data set left out" in notes
    kept, notes = of_suite(suite, records)
    assert kept == records and not any("another state" in note for note in notes)


def test_classes_that_a_suite_loses_are_told_before_it_runs(bench_in, tmp_path):
    """By capture a class of one capture is no class; before, only a run without a suite told it."""
    folder = write_working_folder(tmp_path, others={"captures": 3})
    for capture in sorted((folder / "my captures" / "chat").iterdir())[1:]:
        capture.unlink()
    bench = bench_in(folder)
    words = ("--method", "majority", "--dataset", "my captures", "--split", "capture")
    status, _, alone = bench("run", *words, "--save-plan", "plan.toml")
    again, _, suite = bench("run", "--suite", "plan.toml", "--dry-run")
    assert (status, again) == (0, 0)
    for told in (alone, suite):
        assert told.count("leaves no sample of chat; the task loses 1 of 3 classes") == 1
