"""Every table and figure of the paper, at a small scale on the demo."""

import csv
import json
from pathlib import Path

import pytest
from refusals import refused

from bench.data.prepare import open_dataset
from bench.paper import costs
from bench.paper.costs import overview, rates_of
from bench.paper.declaration import find_paper
from bench.paper.plan import Scale, chosen_arms, plan
from bench.paper.published import rows_by_key
from bench.paper.reproduction import Request
from bench.spec import RunSpec
from bench.tracking.tracker import Tracker

PAPER = find_paper()
EXPERIMENTS = {one.id: one for one in PAPER.experiments}
#: ten samples a class and one epoch: it shows that everything runs, the numbers mean nothing
TINY = ("--max-per-class", 10, "--epochs", 1, "--seeds", 1, "--preset", "small", "--every", 20)
DEMO = ("--dataset", "demo", *TINY)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One home and one folder of results for all: experiments share runs."""
    folder = tmp_path_factory.mktemp("reproduced")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_HOME", str(folder / "home"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield folder


@pytest.fixture(scope="module")
def demo(place):
    return open_dataset("demo")


def test_the_list_of_the_paper_is_whole():
    tables = ["II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"]
    assert list(EXPERIMENTS) == [f"table-{n}" for n in tables] + [f"fig-{n}" for n in range(6, 14)]
    assert len(EXPERIMENTS["table-II"].arms) == 11 and len(EXPERIMENTS["table-X"].arms) == 9
    assert len(EXPERIMENTS["fig-6"].arms) == 48 and len(EXPERIMENTS["fig-7"].arms) == 41
    temperatures = EXPERIMENTS["fig-7"].over.parameters["temperature"]
    assert (temperatures[0], temperatures[-1]) == (1.0, 781.0)


def test_every_published_number_has_an_arm():
    """The keys of the CSV files are those by which arms look for them."""
    for experiment in EXPERIMENTS.values():
        if PAPER.has_numbers(experiment.id) and experiment.kind not in ("classes", "single"):
            assert {arm.published for arm in experiment.arms} >= set(rows_by_key(PAPER, experiment)), experiment.id


def test_the_paper_order_makes_windows_first(demo):
    (one,) = plan(EXPERIMENTS["fig-8"], "paper", demo, Scale(seeds=1))
    (spec,) = one.specs
    assert (spec.split.scheme, spec.split.sampling, spec.split.max_per_class) == ("paper", "window=16", 10_000)
    assert spec.parameters == {}
    (one,) = plan(EXPERIMENTS["fig-8"], "clean", demo, Scale(seeds=2, split="capture", folds=5))
    assert len(one.specs) == 10
    assert {(s.split.scheme, s.split.sampling, s.split.max_per_class) for s in one.specs} == {
        ("capture", "session", None)
    }


def test_a_window_holds_the_packets_that_its_arm_reads(demo):
    grid = plan(EXPERIMENTS["fig-6"], "paper", demo, Scale(seeds=1, every=3))
    assert [(one.arm.values["packets"], one.specs[0].split.sampling) for one in grid[::3]] == [
        (4, "window=4"),
        (25, "window=25"),
    ]


def test_the_temperature_sweep_has_its_own_protocol(demo):
    sweep = plan(EXPERIMENTS["fig-7"], "paper", demo, Scale(seeds=1))
    assert len(sweep) == 41 and {one.specs[0].split.max_per_class for one in sweep} == {500}
    assert {one.specs[0].parameters["epochs"] for one in sweep} == {20}


def test_scales_thin_grids_and_choose_methods():
    assert len(chosen_arms(EXPERIMENTS["fig-6"], Scale(every=2))) == 3 * 4
    assert [arm.values["temperature"] for arm in chosen_arms(EXPERIMENTS["fig-7"], Scale(every=10))] == [
        1,
        201,
        401,
        500,
        601,
    ]
    assert [arm.label for arm in chosen_arms(EXPERIMENTS["table-IV"], Scale(methods=("han", "bind")))] == [
        "BIND",
        "HAN",
    ]
    with refused("unknown-method", "'forest'"):
        chosen_arms(EXPERIMENTS["table-XII"], Scale(methods=("forest",)))


def test_a_preset_goes_to_the_methods_that_have_it(demo):
    runs = {
        one.arm.method: one.specs[0]
        for one in plan(EXPERIMENTS["table-VI"], "clean", demo, Scale(seeds=1, preset="small"))
    }
    assert runs["han"].parameters["bytes"] == 64 and runs["atvitsc"].parameters == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name != "table-X"])
def test_every_experiment_runs_on_the_demo(name, place, demo, command_line):
    status, out, err = command_line("reproduce", name, *DEMO, "--format", "json", "--results", place / "results")
    assert status == 0, err
    (shown,) = json.loads(out)["tables"]
    assert shown["title"].startswith(f"{name}: ") and "demo/service instead of the paper's data" in shown["title"]
    assert "samples a class 10, epochs 1" in shown["title"] and "NaN" not in out
    (folder,) = (place / "results" / "reproduced").glob(f"{name}-on-demo-*")
    kept = json.loads((folder / "sheet.json").read_text())
    assert kept["command"].startswith(f"bench reproduce {name} --dataset demo") and kept["rows"]
    assert all(len(row) == len(kept["head"]) for row in kept["rows"])
    assert (folder / "figure.svg").is_file() == name.startswith("fig-")
    if shown["rows"]:  # of whole sessions the demo has too few with a single packet
        text = " ".join([*kept["head"], *(cell for row in kept["rows"] for cell in row), *kept["notes"]])
        assert "*†" in text or ("†" in text and EXPERIMENTS[name].kind in ("attention", "training")), text
        assert any(note.startswith("mode clean: capture") for note in kept["notes"])
    if EXPERIMENTS[name].kind in ("systems", "arms"):
        for row in shown["rows"]:
            assert row["paper_runs"] == row["clean_runs"] == 1, (row["system"], shown["notes"])


def test_table_x_is_timed(place, demo, command_line):
    words = ("reproduce", "table-X", "--dataset", "demo", "--method", "fsnet,graphdapp", "--format", "json")
    status, out, err = command_line(*words, "--results", place / "results")
    assert status == 0, err
    assert len(json.loads(out)["tables"][0]["rows"]) == 2


def test_published_numbers_need_no_data(tmp_path, monkeypatch, command_line):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "nothing"))
    words = ("--mode", "published", "--results", tmp_path, "--format", "csv")
    status, out, _ = command_line("reproduce", "table-VI", *words)
    rows = list(csv.DictReader(out.splitlines()))
    assert status == 0 and len(rows) == 11
    assert (rows[-1]["name"], rows[-1]["accuracy"], rows[-1]["f1"]) == ("ATVITSC", "97.89", "97.88")
    assert rows[0]["provenance"] == "copied:et-bert"


def test_without_the_papers_data_the_published_numbers_stand_alone_and_say_why(tmp_path, monkeypatch, command_line):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "nothing"))
    status, out, _ = command_line("reproduce", "table-XII", "--results", tmp_path)
    assert status == 0 and "98.79 ± 0.19" in out
    assert "not run: data set 'iscx-tor' is not prepared" in out and "or give --dataset demo" in out
    status, _, err = command_line("reproduce", "table-XII", "--mode", "clean", "--results", tmp_path)
    assert status == 2 and "not prepared" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "name a table or figure"),
        (("table-XIII",), "atvitsc has no 'table-XIII'"),
        (("table-VI", "--mode", "honest"), "--mode honest; there are: published, paper, clean"),
        (("table-VI", "--dataset", "demo", "--method", "forrest"), "unknown method 'forrest'"),
        (("table-VI", "--dataset", "demo", "--split", "randomly"), "unknown split"),
        (("table-VI", "--dataset", "demo", "--split", "random"), "mode clean takes"),
        (("table-VI", "--dataset", "demo", "--split", "paper"), "mode clean takes auto, session, capture"),
        (("table-VI", "--dataset", "demo", "--split", "file:x.json"), "mode clean takes auto, session, capture"),
        (
            ("table-XII", "--dataset", "demo", "--preset", "pvt"),
            "--preset pvt sets branches, which is what 'PVT' is about",
        ),
        (("table-VI", "--dataset", "demo", "--preset", "smal"), "no system has a preset 'smal'"),
        (("fig-9", "table-XII", "--dataset", "demo", "--method", "forest"), "fig-9 has no method 'forest'"),
        (("fig-7", "--dataset", "demo", "--task", "none"), "has no task 'none'"),
        (("fig-7", "--dataset", "demo", "--sampling", "window=x"), "window"),
        (("table-VI", "--mode", "published", "--format", "pdf"), "'pdf'; there are: text, md"),
    ],
)
def test_bad_words_are_one_line(words, told, place, demo, command_line):
    status, _, err = command_line("reproduce", *words, "--results", place / "bad")
    last = err.strip().splitlines()[-1]
    assert status == 2 and told in last and "Traceback" not in err


def test_a_table_of_systems_takes_others(place, demo, command_line):
    words = ("reproduce", "table-VI", "--dataset", "demo", "--method", "bind,ports", "--seeds", "1", "--mode", "clean")
    status, out, _ = command_line(*words, "--results", place / "others")
    rows = [line for line in out.splitlines() if line.startswith(("BIND", "ports"))]
    assert status == 0 and [row.split()[0] for row in rows] == ["BIND", "ports"]
    assert "(not in the paper's table)" in rows[1]


def test_the_list_tells_what_is_done_and_what_is_left(tmp_path, demo, command_line):
    status, out, _ = command_line("reproduce", "--list", "--results", tmp_path, "--format", "json")
    rows = {row["id"]: row for row in json.loads(out)["rows"]}
    assert status == 0 and list(rows) == list(EXPERIMENTS)
    assert rows["table-VI"]["paper_runs"] == 55 and rows["fig-6"]["clean_runs"] == 240
    assert rows["table-VI"]["dataset"] == "iscx-vpn" and not rows["table-VI"]["prepared"]


def test_the_time_left_is_work_over_rate(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "nothing"))
    monkeypatch.setattr(costs, "rates_of", lambda path: {"atvitsc": 100.0})
    sheet = overview(PAPER, Tracker(tmp_path), Scale(seeds=2, epochs=3))
    row = next(row for row in sheet.records if row["id"] == "table-XII")
    assert row["paper_hours"] == pytest.approx(4 * 2 * 0.7 * 16 * 10_000 * 3 / 100 / 3600)
    assert next(row for row in sheet.records if row["id"] == "table-VI")["paper_hours"] is None
    monkeypatch.setattr(costs, "rates_of", lambda path: {})
    assert any("has measured no rates here" in note for note in overview(PAPER, Tracker(tmp_path), Scale()).notes)


def test_the_list_can_be_asked_for_some_methods_experiments_and_data(tmp_path, demo):
    sheet = overview(
        PAPER,
        Tracker(tmp_path),
        Scale(seeds=1, methods=("appscanner",)),
        [EXPERIMENTS["table-VI"], EXPERIMENTS["fig-9"]],
        "demo",
    )
    assert [(r["dataset"], r["prepared"], r["paper_runs"]) for r in sheet.records] == [
        ("demo", True, 1),
        ("demo", True, 0),
    ]


def test_the_list_counts_a_system_that_the_paper_has_not_and_asks_the_task_that_is_asked(tmp_path, demo, command_line):
    """A table of systems runs it, so its cost was told as none."""
    words = ("--list", "table-VI", "--method", "histgb", "--seeds", "2", "--format", "json")
    _, out, _ = command_line("reproduce", *words, "--results", tmp_path)
    assert [row["clean_runs"] for row in json.loads(out)["rows"]] == [2]
    _, out, _ = command_line("reproduce", "--list", "table-VI", "--method", "histgb,bind", "--seeds", "1")
    assert "scale: methods histgb, bind; 1 seed\n" in out
    status, _, err = command_line("reproduce", "--list", "table-VI", "--task", "nosuch")
    assert status == 2 and "iscx-vpn has no task 'nosuch'" in err


def test_rates_were_measured_for_every_system():
    rates = rates_of(Path(__file__).parents[1] / "results" / "rates.csv")
    assert {arm.method for e in EXPERIMENTS.values() for arm in e.arms} <= rates.keys()
    assert all(rate > 0 for rate in rates.values()) and rates_of(Path("none.csv")) == {}


def test_a_request_names_its_scale_and_its_data(demo):
    request = Request(PAPER, EXPERIMENTS["fig-7"], scale=Scale(epochs=2, seeds=1, every=4), store=demo)
    assert request.title == (
        "fig-7: Temperature · demo/service instead of the paper's data · epochs 2, one value of every 4, 1 seed"
    )
    assert request.name == "fig-7-on-demo-epochs-2-seeds-1-every-4" and not request.original
    assert (
        Request(PAPER, EXPERIMENTS["fig-7"], store=demo).name == "fig-7-on-demo"
        and Request(PAPER, EXPERIMENTS["fig-7"]).name == "fig-7-published"
    )
    assert Request(PAPER, EXPERIMENTS["fig-7"]).title == "fig-7: Temperature"
    assert isinstance(request.plan()[0].specs[0], RunSpec)
