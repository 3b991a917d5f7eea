"""Search spaces from the command line, and studies that prune, stop and go on."""

import dataclasses
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from optuna.trial import TrialState
from refusals import refused

from bench.cli.text import study_text
from bench.files import plain, read_json, write_json
from bench.method import Range
from bench.runs.plan import ParameterFile, read_parameters
from bench.spec import RunSpec, SplitSpec
from bench.tracking.address import Address
from bench.tracking.claims import Claims
from bench.tracking.tracker import Tracker
from bench.tuning import share
from bench.tuning.search import Points, Search
from bench.tuning.share import TuneOptions
from bench.tuning.spaces import check_words, grid_values, parse_space, spaces_for
from bench.tuning.studies import by_other_code, draws_of, open_study, storage_of
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


def begun_elsewhere(search, folder, point=None):
    """A running trial of another process, which has it claimed."""
    claims = Claims(file_of(folder))
    opened = open_study(search, file_of(folder), claims)
    if point:
        opened.enqueue_trial(point)
    trial = opened.ask(search.distributions)
    claims.take(f"{search.name} {trial.number}")
    return claims, opened, trial


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Tune with a stand-in for training; gives the summary and the nested runs."""

    def call(search, fit, trials, storage="study.db"):
        seen = []

        def fit_and_validate(spec, store, kind, monitor, *, device, code):
            seen.append(dict(spec.parameters))
            return Scored(fit(spec.parameters, monitor))

        monkeypatch.setattr(share, "fit_and_validate", fit_and_validate)
        monkeypatch.setattr(share, "store_of", lambda spec: None)
        monkeypatch.setattr("bench.tuning.study.write_plots", lambda study, folder: None)  # tests/test_cli.py has them
        tracker = FakeTracker(tmp_path)
        summary = tune(search, tracker, TuneOptions(file_of(tmp_path, storage), tmp_path, trials, progress=seen.append))
        return summary, tracker, [one for one in seen if isinstance(one, dict)]

    return call


def closeness(parameters, monitor):
    return 1 - abs(parameters.get("temperature", 500) - 440) / 1000


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


def test_one_process_draws_at_a_time(search, study, tmp_path, monkeypatch):
    draw, alone = Points.sample_relative, []

    def watched(self, *asked):
        alone.append(draws_of(search) in Claims(file_of(tmp_path)).holders())
        return draw(self, *asked)

    monkeypatch.setattr(Points, "sample_relative", watched)
    study(search, closeness, 3)
    assert alone == [True] * 2  # the default is not drawn


def test_a_trial_that_ends_while_it_is_looked_at_is_not_tried_again(search, study, tmp_path, monkeypatch):
    claims, opened, live = begun_elsewhere(search, tmp_path)
    take = Claims.take

    def ends_first(self, name, **how):
        if name == f"{search.name} 0" and claims.has(name):
            opened.tell(live, 0.5)
            claims.let_go(name)
        return take(self, name, **how)

    monkeypatch.setattr(Claims, "take", ends_first)
    summary, _, _ = study(search, closeness, 2)
    assert [t["state"] for t in summary["trials"]] == ["complete", "complete"]


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


def test_no_point_is_evaluated_twice_and_a_space_that_is_known_ends_the_study(study):
    search = Search(RunSpec("atvitsc", "fake", "task"), {"packets": (4, 9, 16, 25)})
    summary, _, seen = study(search, lambda p, m: p["packets"] / 100, 50)
    assert sorted(one["packets"] for one in seen) == [4, 9, 16, 25]
    repeated = [t for t in summary["trials"] if t["same_as"] is not None]
    assert len(summary["trials"]) == 4 + len(repeated) < 50
    assert all(t["value"] == summary["trials"][t["same_as"]]["value"] for t in repeated)
    assert (summary["points"], summary["known"]) == (4, 4)
    assert "all 4 points of the space are known" in study_text(summary | {"command": ""})
    _, _, seen = study(search, lambda p, m: 1.0, 50)
    assert seen == []


def test_what_was_pruned_is_known_as_pruned(study, tmp_path):
    search = Search(RunSpec("atvitsc", "fake", "task", parameters={"packets": 9}), {"packets": (4, 9)})
    _, opened, trial = begun_elsewhere(search, tmp_path, {"packets": 4})
    trial.report(0.1, 1)
    opened.tell(trial, state=TrialState.PRUNED)
    opened.enqueue_trial({"packets": 4})
    summary, _, seen = study(search, lambda p, m: 0.5, 3)
    told = [(t["state"], t["value"], t["same_as"]) for t in summary["trials"]]
    assert told == [("pruned", 0.1, None), ("pruned", 0.1, 0), ("complete", 0.5, None)]
    assert seen == [{"packets": 9}]


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_what_runs_elsewhere_is_not_drawn(study, tmp_path, monkeypatch, sampler):
    """Three of four points are taken, and one draw is not enough to miss them all."""
    monkeypatch.setattr(share, "LOOK_SECONDS", 0.01)
    spec = RunSpec("atvitsc", "fake", "task", parameters={"packets": 4})
    search = Search(spec, {"packets": (4, 9, 25, 36)}, sampler)
    others = [begun_elsewhere(search, tmp_path, {"packets": packets}) for packets in (4, 9, 36)]

    def fit(parameters, monitor):
        for number, (claims, opened, trial) in enumerate(others):
            opened.tell(trial, 0.1)
            claims.let_go(f"{search.name} {number}")
        return 0.5

    summary, _, seen = study(search, fit, 4)
    assert [one["packets"] for one in seen] == [25]
    assert [t["state"] for t in summary["trials"]] == ["complete"] * 4


def test_the_default_is_trial_0_and_stands_beside_the_best(search, study):
    summary, _, seen = study(search, lambda p, m: 0.5 if p["temperature"] == 500 else p["temperature"] / 1000, 6)
    assert seen[0]["temperature"] == 500 and summary["default"]["trial"] == 0
    assert summary["best"]["value"] > 0.5 and summary["difference"] == summary["best"]["value"] - 0.5
    text = study_text(summary | {"command": ""})
    assert "default validation macro-F1 0.5000 (trial 0)" in text
    assert f"{summary['difference']:+.4f} against the default" in text
    alone, _, _ = study(search, lambda p, m: 0.5, 1, "alone.db")
    assert "best validation macro-F1 0.5000 (trial 0), the default itself" in study_text(alone | {"command": ""})


def test_what_is_fixed_is_part_of_the_default(study):
    search = Search(RunSpec("atvitsc", "fake", "task", parameters={"packets": 9}), {"packets": (4, 9)})
    summary, _, _ = study(search, lambda p, m: p["packets"] / 100, 1)
    assert summary["default"] == {"value": 0.09, "trial": 0, "parameters": {"packets": 9}}


def test_a_default_that_the_space_does_not_hold_is_evaluated_once_aside(study):
    search = Search(RunSpec("atvitsc", "fake", "task", parameters={"packets": 4}), {"temperature": Range(1, 21)})
    summary, tracker, seen = study(search, closeness, 2)
    assert len(summary["trials"]) == 2 and len(seen) == 3 and "temperature" not in seen[0]
    assert summary["default"] == {"value": 0.94, "trial": None, "parameters": {"temperature": 500.0}}
    assert [number for number, _, _ in tracker.trials] == ["default", 0, 1]
    assert "(outside of the space)" in study_text(summary | {"command": ""})
    _, _, seen = study(search, closeness, 3)
    assert len(seen) == 1


def test_where_all_trials_are_equal_none_is_named_the_best(search, study):
    summary, _, _ = study(search, lambda p, m: 0.7, 3)
    assert summary["best"] is None and "file" not in summary
    assert (summary["equal"], summary["difference"]) == (0.7, 0.0)
    assert "all trials have validation macro-F1 0.7000" in study_text(summary)


def test_a_study_of_an_earlier_version_has_no_default_until_there_is_a_trial_for_it(search, study, tmp_path):
    _, opened, _ = begun_elsewhere(search, tmp_path, {"temperature": 20})
    opened.tell(0, 0.3)
    summary, _, seen = study(search, closeness, 1)
    assert seen == [] and summary["default"] is None and summary["best"]["trial"] == 0
    assert "a further trial gives them one" in study_text(summary | {"command": ""})
    summary, _, _ = study(search, closeness, 2)
    assert summary["default"]["trial"] == 1


def test_a_method_that_always_fails_ends_the_study(search, study):
    def fit(parameters, monitor):
        raise ArithmeticError("loss nan")

    summary, _, seen = study(search, fit, 3)
    assert [t["state"] for t in summary["trials"]] == ["fail"] * 3 and len({t["temperature"] for t in seen}) == 3
    assert summary["best"] is None


def test_an_interrupt_closes_the_trial_and_ends_the_work(search, study, tmp_path):
    def fit(parameters, monitor):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study(search, fit, 3)
    summary, _, _ = study(search, closeness, 1)
    assert [t["state"] for t in summary["trials"]] == ["fail", "complete"]
    assert not Claims(file_of(tmp_path)).holders()


def test_who_was_taken_over_ends_that_trial_and_goes_on(search, study, tmp_path, monkeypatch):
    """As a process that slept for a while: another one has its trial now."""

    def fit(parameters, monitor):
        order.append(parameters["temperature"])
        if len(order) == 1:
            other = Claims(file_of(tmp_path))
            other.take(f"{search.name} 0", force=True)
            other.let_go(f"{search.name} 0")
            monkeypatch.setattr(share.Claims, "has", lambda self, name: not name.endswith(" 0"))
        monitor.epoch(1, 2, validation_macro_f1=0.5)
        return 0.5

    order = []
    summary, _, _ = study(search, fit, 2)
    assert [t["state"] for t in summary["trials"]] == ["fail", "complete", "complete"]


def test_different_questions_are_different_studies(search):
    other = Search(search.spec, {"temperature": Range(1, 781, step=40)})
    assert len({search.name, other.name, Search(search.spec, search.spaces, prune=False).name}) == 3


def test_trials_of_other_code_do_not_count(search, study, monkeypatch, tmp_path):
    first, _, _ = study(search, closeness, 2)
    name = search.name
    monkeypatch.setattr("bench.tuning.search.code_of", lambda spec: "other")
    assert search.name != name and search.name.startswith(search.question)
    second, _, seen = study(search, closeness, 2)
    assert len(seen) == 2 and second["study"] != first["study"]
    assert [one["parameters"] for one in second["trials"]] == [one["parameters"] for one in first["trials"]]
    assert by_other_code(search, file_of(tmp_path)) == [name]


def test_unknown_sampler(search, study):
    with refused("unknown-sampler", "sampler"):
        study(Search(search.spec, search.spaces, "random"), closeness, 1)


def test_words_are_checked_without_a_method():
    with refused("unknown-sampler", "--sampler"):
        check_words("random", {})
    with refused("bad-space", "--param x"):
        check_words("tpe", {"x": "4:1"})


def test_a_storage_that_cannot_be_opened(search):
    for uri in ("nosuch://x", "no address"):
        nowhere = Address(uri, what="the storage of studies")
        with refused("storage-failed", "the storage of studies does not open"):
            open_study(search, nowhere, Claims(nowhere))


def test_the_storage_s_password_is_shown_nowhere():
    nobody = Address("postgresql://me:secret@127.0.0.1:9/studies", what="the storage of studies")
    with refused("storage-failed", "me:***@127.0.0.1:9") as caught:
        storage_of(Tracker(uri=nobody.uri))
    assert "secret" not in str(caught.value)
    search = Search(RunSpec("atvitsc", "fake", "task"), {"packets": (4, 9)})
    with refused("storage-failed", "the storage of studies does not open") as caught:
        open_study(search, nobody, Claims(nobody))
    assert "secret" not in str(caught.value) and "secret" not in repr(nobody)


def test_studies_are_beside_the_runs_unless_another_place_is_asked_for(tmp_path):
    tracker = Tracker(tmp_path, f"sqlite:///{tmp_path / 'elsewhere' / 'runs.db'}")
    assert storage_of(tracker).uri == f"sqlite:///{tmp_path / 'optuna.db'}"
    assert storage_of(tracker, "sqlite:///mine.db").uri == "sqlite:///mine.db"
