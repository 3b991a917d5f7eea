"""Search spaces from the command line, and studies that prune, stop and go on."""

import dataclasses
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from refusals import refused

from bench.files import plain, read_json, write_json
from bench.method import Range
from bench.runs.plan import ParameterFile, read_parameters
from bench.spec import RunSpec, SplitSpec
from bench.tracking.address import Address
from bench.tracking.claims import Claims
from bench.tuning import share
from bench.tuning.search import Search
from bench.tuning.share import TuneOptions
from bench.tuning.spaces import grid_values, parse_space, spaces_for
from bench.tuning.studies import open_study
from bench.tuning.study import tune


@pytest.mark.parametrize(
    ("text", "space"),
    [
        ("4,9,16,25", (4, 9, 16, 25)),
        ("1:800:20", Range(1, 781, step=20)),
        ("0.1:0.6", Range(0.1, 0.6)),
        ("0:1:0.25", Range(0, 1.0, step=0.25)),
        ("1e-4:1e-3:log", Range(1e-4, 1e-3, log=True)),
        ("weighted,concat", ("weighted", "concat")),
        ("true,false", (True, False)),
        ("none,5", (None, 5)),
    ],
)
def test_spaces_are_read(text, space):
    assert parse_space("x", text) == space


@pytest.mark.parametrize("text", ["", "4:1", "1:2:3:4", "a:b", "0:1:log", "1:9:0", "1:9:-2", "1:inf", "nan:2", "1,,2"])
def test_wrong_spaces_are_refused(text):
    with refused("bad-space", "--param x="):
        parse_space("x", text)


def test_the_papers_temperature_grid_has_its_40_points():
    """methods-b 1.8 number 6: 1, 21, ... 781."""
    values = grid_values({"temperature": parse_space("temperature", "1:800:20")})["temperature"]
    assert (len(values), values[0], values[1], values[-1]) == (40, 1, 21, 781)


def test_a_grid_needs_steps():
    with refused("bad-space", "grid"):
        grid_values({"x": Range(0.0, 1.0)})


def test_default_spaces_hold_temperature_and_packets():
    assert {"temperature", "packets"} <= set(spaces_for("atvitsc", {}, {}))
    assert "temperature" not in spaces_for("atvitsc", {}, {"temperature": 7.0})  # stays fixed


def test_a_space_must_fit_the_parameter():
    with refused("bad-parameter", "packets"):
        spaces_for("atvitsc", {"packets": "0.5:1.5"}, {})


class FakeTracker:
    """Remembers nested runs, as far as a study asks."""

    def __init__(self, folder):
        self.folder = folder
        self.trials, self.closed = [], []

    @contextmanager
    def study(self, name, spec):
        yield self

    @contextmanager
    def trial(self, number, parameters):
        log = {}
        yield log.update
        self.trials.append((number, dict(parameters), log))

    @contextmanager
    def artefacts(self):
        yield self.folder

    def close_trial(self, number):
        self.closed.append(number)


class Scored:
    def __init__(self, value):
        self.macro_f1 = value


@pytest.fixture
def search():
    spec = RunSpec("atvitsc", "fake", "task", parameters={"packets": 4})
    return Search(spec, {"temperature": Range(20, 800, step=20)})  # 500 is the method's default


def file_of(folder, name="study.db"):
    return Address(f"sqlite:///{folder / name}", folder, "the storage of studies")


def begun_elsewhere(search, folder):
    """A running trial of another process, which has it claimed."""
    claims = Claims(file_of(folder))
    opened = open_study(search, file_of(folder), claims)
    trial = opened.ask(search.distributions)
    claims.take(f"{search.name} {trial.number}")
    return claims, opened, trial


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Tune with a stand-in for training; gives the summary and the nested runs."""

    def call(search, fit, trials, storage="study.db"):
        seen = []

        def fit_and_validate(spec, store, kind, monitor, *, device):
            seen.append(dict(spec.parameters))
            return Scored(fit(spec.parameters, monitor))

        monkeypatch.setattr(share, "fit_and_validate", fit_and_validate)
        monkeypatch.setattr(share, "store_of", lambda spec: None)
        tracker = FakeTracker(tmp_path)
        summary = tune(search, tracker, TuneOptions(file_of(tmp_path, storage), tmp_path, trials, progress=seen.append))
        return summary, tracker, [one for one in seen if isinstance(one, dict)]

    return call


def closeness(parameters, monitor):
    return 1 - abs(parameters["temperature"] - 440) / 1000


def test_a_study_goes_on_where_it_stopped_and_draws_anew(search, study):
    first, _, _ = study(search, closeness, 3)
    assert len(first["trials"]) == 3
    second, tracker, seen = study(search, closeness, 5)
    assert len(second["trials"]) == 5
    assert len(seen) == len(tracker.trials) == 2
    assert second["trials"][:3] == first["trials"]
    assert len({t["parameters"]["temperature"] for t in second["trials"]}) > 3  # not the first draws again
    assert all(one["packets"] == 4 for one in seen)


def test_one_seed_draws_the_same_trials(search, study):
    one, _, _ = study(search, closeness, 4, "one.db")
    two, _, _ = study(search, closeness, 4, "two.db")
    assert one["trials"] == two["trials"]


def test_the_best_is_written_for_run(search, study):
    summary, _, _ = study(search, closeness, 4)
    parameters = read_parameters(Path(summary["file"]), "atvitsc")
    assert parameters == {"packets": 4, **summary["best"]["parameters"]}
    assert summary["best"]["value"] == max(t["value"] for t in summary["trials"])
    with refused("wrong-file", "atvitsc", "forest"):
        read_parameters(Path(summary["file"]), "forest")


def test_the_parameter_file_says_what_they_are_the_best_of(search, study):
    split = SplitSpec("capture", seed=2, fold=1, folds=3, filter="dns", sampling="window=4", max_per_class=9)
    spec = dataclasses.replace(search.spec, split=split, store="0f", task="t")
    summary, _, _ = study(Search(spec, search.spaces), closeness, 1)
    kept = read_json(Path(summary["file"]), ParameterFile, "a parameter file")
    assert (kept.split, kept.store, kept.task, kept.dataset) == (split, "0f", "t", "fake")
    assert read_parameters(Path(summary["file"]), "atvitsc") == kept.parameters
    before = {key: value for key, value in plain(kept).items() if key not in ("split", "store", "task")}
    write_json(Path(summary["file"]), before)  # as earlier versions wrote it
    assert read_parameters(Path(summary["file"]), "atvitsc") == kept.parameters


def test_bad_trials_are_pruned_and_say_so(search, study):
    def fit(parameters, monitor):
        good = len(order) < 6
        order.append(good)
        for epoch in range(1, 9):
            monitor.epoch(epoch, 8, validation_macro_f1=0.9 if good else 0.1)
        return 0.9 if good else 0.1

    order = []
    summary, tracker, _ = study(search, fit, 8)
    assert [t["state"] for t in summary["trials"]] == ["complete"] * 6 + ["pruned"] * 2
    assert [log["pruned"] for _, _, log in tracker.trials] == [0.0] * 6 + [1.0] * 2
    assert summary["best"]["value"] == 0.9


def test_a_killed_trial_is_closed_and_tried_again(search, study, tmp_path):
    claims, _, killed = begun_elsewhere(search, tmp_path)
    claims.let_go(f"{search.name} 0")  # as if its process were gone
    summary, tracker, seen = study(search, closeness, 1)
    assert [t["state"] for t in summary["trials"]] == ["fail", "complete"]
    assert seen[0]["temperature"] == killed.params["temperature"]
    assert tracker.closed == [0] and not claims.holders()


def test_a_running_trial_of_another_process_counts_as_taken(search, study, tmp_path, monkeypatch):
    monkeypatch.setattr(share, "LOOK_SECONDS", 0.01)
    claims, opened, live = begun_elsewhere(search, tmp_path)

    def fit(parameters, monitor):
        order.append(parameters["temperature"])
        if len(order) == 2:  # the other one ends while this process has nothing left to begin
            threading.Timer(0.3, lambda: (opened.tell(live, 0.5), claims.let_go(f"{search.name} 0"))).start()
        return 0.4

    order = []
    summary, _, _ = study(search, fit, 3)
    assert [(t["state"], t["value"]) for t in summary["trials"]] == [("complete", v) for v in (0.5, 0.4, 0.4)]
    assert live.params["temperature"] not in order


def test_a_step_that_leads_to_a_value_that_cannot_be_is_refused_before_the_first_trial():
    with refused("bad-parameter", "bytes=208"):
        spaces_for("atvitsc", {"bytes": "16:400:192"}, {})


def test_a_diverged_trial_does_not_end_the_study(search, study):
    def fit(parameters, monitor):
        order.append(1)
        if len(order) == 1:
            raise ArithmeticError("loss nan")
        return 0.5

    order = []
    summary, _, _ = study(search, fit, 2)
    assert [t["state"] for t in summary["trials"]].count("fail") == 1


def test_the_grid_visits_every_cell_once(study):
    spec = RunSpec("atvitsc", "fake", "task")
    search = Search(spec, {"temperature": (1.0, 500.0), "packets": (4, 16)}, "grid")
    study(search, lambda p, m: p["packets"] / 100, 1)
    summary, _, _ = study(search, lambda p, m: p["packets"] / 100, None)
    cells = [(t["parameters"]["temperature"], t["parameters"]["packets"]) for t in summary["trials"]]
    assert sorted(cells) == [(1.0, 4), (1.0, 16), (500.0, 4), (500.0, 16)]


def test_different_questions_are_different_studies(search):
    other = Search(search.spec, {"temperature": Range(1, 781, step=40)})
    assert len({search.name, other.name, Search(search.spec, search.spaces, prune=False).name}) == 3


def test_unknown_sampler(search, study):
    with refused("unknown-sampler", "sampler"):
        study(Search(search.spec, search.spaces, "random"), closeness, 1)


def test_a_storage_that_cannot_be_opened(search):
    for uri in ("nosuch://x", "no address"):
        nowhere = Address(uri, what="the storage of studies")
        with refused("storage-failed", "the storage of studies does not open"):
            open_study(search, nowhere, Claims(nowhere))
