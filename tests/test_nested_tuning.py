"""What a search leaves alone: values that somebody set, also where they are the defaults."""

import json

import pytest
from refusals import refused

from bench.errors import InputError
from bench.runs import registry
from bench.runs.plan import chosen
from bench.spec import RunSpec, Settings
from bench.suites.contents import fixed_in
from bench.suites.suite import FORMAT, Contender, Portion, Suite
from bench.tuning.spaces import own_spaces, spaces_for

KNN = {"knn": registry.describe("knn")}
DEFAULT = KNN["knn"].defaults["neighbours"]


@pytest.mark.parametrize("value", [DEFAULT, DEFAULT + 2])
def test_what_is_set_is_not_searched_at_its_default_either(value):
    named = chosen("knn", KNN, Settings(values={"neighbours": value}))
    assert named == {"neighbours": value}
    assert "neighbours" in own_spaces("knn", {}) and "neighbours" not in spaces_for("knn", {}, named)


def test_what_a_preset_or_a_suite_sets_is_not_searched_either():
    assert "packets" in chosen("atvitsc", {"atvitsc": registry.describe("atvitsc")}, Settings(preset="shared"))
    suite = Suite(
        FORMAT, "s", (Portion("demo", "service", "session"),), (Contender("knn", set={"neighbours": DEFAULT}),)
    )
    assert fixed_in(suite, RunSpec("knn", "demo", "service")) == {"neighbours"}
    assert fixed_in(suite, RunSpec("knn", "demo", "service", parameters={"packets": 7})) == frozenset()
    assert fixed_in(suite, RunSpec("forest", "demo", "service")) == frozenset()


@pytest.mark.parametrize("suite", [False, True])
def test_the_trials_keep_what_is_set_at_its_default(bench_in, tmp_path, suite, monkeypatch):
    bench, spaces = bench_in(tmp_path), []

    def tune(search, *rest):
        spaces.append(set(search.spaces))
        raise InputError("bad-options", "no further")

    for place in ("bench.tuning.nested.tune", "bench.tuning.study.tune"):  # nested takes it from study when imported
        monkeypatch.setattr(place, tune)
    (tmp_path / "s.toml").write_text(
        'format = "bench-suite-1"\nname = "s"\ntrials = 2\n'
        f'methods = [{{name = "knn", set = {{neighbours = {DEFAULT}}}}}]\n'
        '[[datasets]]\nname = "demo"\ntask = "service"\nsplit = "session"\n'
    )
    words = ("--method", "knn", "--dataset", "demo", "--split", "session", "--set", f"neighbours={DEFAULT}")
    assert bench("tune", *(("--suite", "s.toml") if suite else words))[0] == 2
    (searched,) = spaces
    assert searched and "neighbours" not in searched


def test_a_method_that_has_nothing_left_to_search_gets_a_remedy_that_helps():
    with refused("bad-space", "majority", "no search space of its own", "--param"):
        spaces_for("majority", {}, {})
    with refused("bad-space", "knn", "all of its search space is fixed") as caught:
        own_spaces("knn", KNN["knn"].defaults)
    assert "--param" not in str(caught.value)  # which a suite refuses


def test_a_study_that_was_killed_before_its_file_was_written_is_not_finished(bench_in, tmp_path, monkeypatch):
    """The file of an earlier call with fewer trials holds other parameters."""
    bench = bench_in(tmp_path)
    words = ("tune", "--method", "knn", "--dataset", "demo", "--split", "session", "--max-per-class", "10",
             "--param", "neighbours=40,35,30,3", "--sampler", "grid", "--json")  # fmt: skip
    status, out, err = bench(*words, "--trials", "1")
    assert status == 0, err
    file = tmp_path / json.loads(out)["file"]

    def ends(*given):
        raise InputError("unwritable-file", "no further")

    with monkeypatch.context() as patch:
        patch.setattr("bench.tuning.study.write_plots", ends)
        assert bench(*words, "--trials", "4")[0] == 2
    status, out, err = bench(*words, "--trials", "4")
    assert status == 0, err
    found = json.loads(out)
    assert json.loads(file.read_text())["parameters"] == found["best"]["parameters"]
