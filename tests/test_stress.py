"""Stress tests of finished runs: what is not read is said, differences are paired, refits are the run's method."""

import csv
import dataclasses
import io
import json
import sys

import numpy as np
import pytest
from refusals import refused

from bench.data.names import find_card
from bench.data.prepare import PrepareOptions, prepare_dataset
from bench.data.store import Store
from bench.generators import demo
from bench.matrix.cells import run_matrix
from bench.readers import Ragged, View
from bench.report.page import write
from bench.runs.models import fitted
from bench.runs.plan import expand
from bench.schema import Samples
from bench.scores.jackknife import difference, intervals
from bench.scores.metrics import decide, macro_f1
from bench.spec import SplitSpec
from bench.splits.split import make_split
from bench.stress.other_setups import SHARED, UNKNOWN
from bench.stress.stress import StressRequest, differing, stress
from bench.stress.stress_record import NOT_READ, SCORED, Stress
from bench.stress.stress_tables import stress_text
from bench.structure import FieldError
from bench.tracking.record import ELSEWHERE
from bench.tracking.tracker import Tracker
from methods.knn import KNearest
from methods.ports import Ports

OWN = """
import numpy as np
from bench.method import Method

class First(Method):
    "The class whose first packets are on average as long."
    name = "first"
    reads = frozenset({"lengths"})
    def represent(self, view):
        return {"length": view.lengths(1)[:, 0]}
    def fit(self, train, validation, monitor):
        if len(train) < 5:
            raise ValueError("too few")
        self.mean = np.array([train.inputs["length"][train.labels == c].mean() for c in range(self.classes)])
        return self
    def predict_proba(self, inputs):
        near = np.exp(-np.abs(inputs["length"][:, None] - self.mean) / 10)
        return ((near + 1e-6) / (near + 1e-6).sum(axis=1, keepdims=True)).astype(np.float32)
"""


class Place:
    def __init__(self, folder):
        self.folder, self.own = folder, f"{folder / 'own.py'}:First"
        demo.write(folder / "traffic", sessions=72, captures=6, classes=3)
        (folder / "own.py").write_text(OWN)
        card = find_card(str(folder / "traffic"))
        prepared = prepare_dataset(card, folder / "traffic", PrepareOptions(), home=folder / "home")
        self.store, self.tracker = Store.open(prepared.store_path), Tracker(folder / "results")
        specs = expand(["ports", "majority", "knn", self.own], [self.store], SplitSpec("session"))
        self.runs = {one.spec.method: one for one in run_matrix(specs, self.tracker)}
        assert {one.status for one in self.runs.values()} == {"done"}

    def run(self, method):
        return self.tracker.load(self.runs[method].run_id)

    def stress(self, method, **request):
        return stress(self.run(method), self.store, StressRequest(**request), [self.own])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("stress")
        patch.setenv("BENCH_HOME", str(folder / "home"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield Place(folder)


@pytest.fixture(scope="module")
def elsewhere(place):
    """The demo's first three services and a fourth one, by another network, with a capture of the run's own."""
    folder = place.folder / "elsewhere"
    demo.write(folder, demo.Salt(demo.START + 9e6, 7, 40), seed=3, sessions=40, captures=4, classes=4)
    service = sorted(path.name for path in (place.folder / "traffic").iterdir())[0]
    own = sorted((place.folder / "traffic" / service).iterdir())[0]
    (folder / service / "again.pcap").write_bytes(own.read_bytes())
    return Store.open(prepare_dataset(find_card(str(folder)), folder, home=place.folder / "home").store_path)


def test_another_data_set_is_scored_by_the_classes_of_the_same_names(place, elsewhere):
    found = place.stress("knn", other=((elsewhere, ""),))
    (one,) = found.other
    theirs, ours = elsewhere.classes("label"), place.store.classes("label")
    assert one.classes == ours and one.classes_unknown == sorted(set(theirs) - set(ours)) and not one.classes_missing
    labels, captures = elsewhere.labels("label"), [c.path for c in elsewhere.manifest.captures]
    again = next(number for number, path in enumerate(captures) if path.endswith("again.pcap"))
    known, same = np.isin(labels, [theirs.index(name) for name in ours]), elsewhere.session("capture") == again
    assert one.sessions_left_out == {UNKNOWN: int((~known & (labels >= 0)).sum()), SHARED: int(same.sum())}
    assert one.samples == (known & ~same).sum() and same.sum() > 0 and one.interval_groups == 4
    assert one.own == found.own and one.own_samples == found.samples  # all of its classes are there

    method, rows = fitted(place.run("knn")), np.flatnonzero(known & ~same)
    counts = elsewhere.session("packets")[rows]
    samples = Samples(rows, np.zeros(len(rows), np.int64), counts.astype(np.int64))
    answers = decide(method.predict_proba(method.represent(View(elsewhere, samples, method.reads))))
    truth = np.array([ours.index(theirs[number]) for number in labels[rows]])
    groups = elsewhere.capture_group()[rows].astype(np.int64)
    value, ends = macro_f1(truth, answers, 3), intervals(truth, answers, groups, classes=3)["macro_f1"]
    assert one.scores["macro_f1"] == pytest.approx([value, *ends])
    assert Stress.load(found.save(place.folder / "other")).other == found.other
    text = stress_text(found, "text")
    assert "Another capture set-up" in text and "elsewhere/label" in text and SHARED in text


def test_of_fewer_classes_other_answers_are_errors_and_the_run_s_own_are_narrowed(place, tmp_path):
    demo.write(tmp_path / "two", demo.Salt(subnet=9), seed=4, sessions=30, captures=3, classes=2)
    card = find_card(str(tmp_path / "two"))
    store = Store.open(prepare_dataset(card, tmp_path / "two", home=place.folder / "home").store_path)
    found = place.stress("majority", other=((store, "label"),))
    (one,) = found.other
    assert len(one.classes_missing) == 1 and one.own_samples < found.samples
    kept = place.run("majority").predictions()
    always = kept.classes[int(decide(kept.probabilities)[0])]
    share = (store.labels("label") == store.classes("label").index(always)).mean() if always in one.classes else 0.0
    assert one.scores["accuracy"][0] == pytest.approx(share)


def test_what_no_other_data_set_can_be_is_refused(place, elsewhere, tmp_path, command_line, monkeypatch):
    with refused("bad-options", "is the data set of the run", "--split attribute:NAME"):
        place.stress("knn", other=((place.store, ""),))
    with refused("unknown-task", "no task 'lable'", "label"):
        place.stress("knn", other=((elsewhere, "lable"),))
    demo.write(tmp_path / "one", demo.Salt(subnet=8), seed=4, sessions=30, captures=3, classes=2)
    for number, path in enumerate(sorted((tmp_path / "one").iterdir())):
        path.rename(tmp_path / "one" / f"class-{number}")
    card = find_card(str(tmp_path / "one"))
    store = Store.open(prepare_dataset(card, tmp_path / "one", home=place.folder / "home").store_path)
    with refused("one-class", "no class of the same name", "class-0"):
        place.stress("knn", other=((store, ""),))
    words = ("stress", place.runs["knn"].run_id, "--results", place.folder / "results", "--other")
    status, _, err = command_line(*words, "elsewere")
    assert status == 2 and "elsewhere" in err and len(err.splitlines()) == 1
    assert command_line(*words, "elsewhere/lable")[0] == 2
    status, out, _ = command_line(*words, "elsewhere/label", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 0 and rows[-1]["test"] == "other data set" and float(rows[-1]["own_macro_f1_low"]) >= 0
    assert command_line(*words, place.folder / "elsewhere")[0] == 0


def test_where_nothing_is_left_of_another_data_set_nothing_is_computed(place, elsewhere, monkeypatch):
    own = {one.sha256 for one in elsewhere.manifest.captures}
    for one in place.store.manifest.captures:  # all that is there is known from the run
        monkeypatch.setitem(vars(one), "sha256", own.pop() if own else one.sha256)
    monkeypatch.setattr(sys.modules["bench.stress.stress"], "_tested", lambda *_: pytest.fail("the work begins"))
    with refused("nothing-left", "of captures that the run's data set has, too"):
        place.stress("knn", other=((elsewhere, ""),))


def statuses(found):
    return {one.change: one.status for one in found.changed}


def test_what_is_not_read_is_said_and_not_computed(place):
    found = statuses(place.stress("ports"))
    assert found.pop("ports random") == SCORED and set(found.values()) == {NOT_READ} and len(found) == 8
    assert set(statuses(place.stress("majority")).values()) == {NOT_READ}
    own = statuses(place.stress(place.own))
    scored = {name for name, status in own.items() if status != NOT_READ}
    assert {"padding to multiples of 128 bytes", "padding of 0 to 255 bytes", "5% of packets lost"} <= scored
    assert own["ports random"] == own["server names masked"] == NOT_READ


def test_a_method_of_ports_falls_to_chance_and_one_of_lengths_by_padding(place):
    ports = place.stress("ports")
    (row,) = [one for one in ports.changed if one.status == SCORED]
    assert row.samples == ports.samples and ports.reads == ["ports", "protocol"]
    own = place.stress(place.own)
    rows = {one.change: one for one in own.changed}
    padded = rows["padding to multiples of 128 bytes"]
    assert padded.samples > 0 and padded.scores["macro_f1"].difference == pytest.approx(
        padded.scores["macro_f1"].value - own.own["macro_f1"][0]
    )


def test_differences_are_the_paired_ones_of_a_comparison(place, monkeypatch):
    """The answers to the changed samples, caught on their way, compared by `bench.scores`."""
    answers = []
    original = KNearest.predict_proba

    def listening(self, inputs):
        answers.append(original(self, inputs))
        return answers[-1]

    monkeypatch.setattr(KNearest, "predict_proba", listening)
    found = place.stress("knn")
    kept = place.run("knn").predictions()
    own, *changed = answers
    scored = [one for one in found.changed if one.status == SCORED]
    assert scored and len(changed) == len(scored) + 1  # and the validation part
    order = make_split(place.store, place.store.default_task, SplitSpec("session")).order("test")
    truth, groups, classes = kept.truth[order], kept.groups[order], len(kept.classes)
    np.testing.assert_array_equal(own, kept.probabilities[order])
    for row, after in zip(scored, changed, strict=False):
        both = decide(after), decide(own)
        expected = difference(truth, both, groups, classes=classes)
        one = row.scores["macro_f1"]
        assert (one.difference, one.difference_low, one.difference_high) == pytest.approx(expected)
        assert one.value == pytest.approx(macro_f1(truth, both[0], classes))


def test_the_same_run_is_changed_alike_each_time(place):
    assert place.stress("ports").to_dict() == place.stress("ports").to_dict()


def test_a_method_that_fails_on_changed_samples_has_a_row_that_says_so(place, monkeypatch):
    original = Ports.predict_proba

    def strict(self, inputs):
        if not np.isin(inputs["service"], self.services).all():
            raise KeyError("never seen")
        return original(self, inputs)

    monkeypatch.setattr(Ports, "predict_proba", strict)
    found = place.stress("ports")
    (row,) = [one for one in found.changed if one.status != NOT_READ]
    assert (row.status, row.reason) == ("failed", "KeyError: 'never seen'") and not row.scores
    assert "failed, KeyError" in stress_text(found, "text")


def test_all_labels_give_the_runs_own_score_and_few_say_how_many(place):
    found = place.stress("knn", labels=(2, 10_000))
    few, everything = found.few_labels
    assert few.samples == 6 and everything.samples > 60
    assert everything.scores["macro_f1"].difference == 0.0
    assert few.scores["accuracy"].value == pytest.approx(few.scores["accuracy"].difference + found.own["accuracy"][0])
    (broken,) = place.stress(place.own, labels=(1,)).few_labels
    assert (broken.reason, broken.scores) == ("ValueError: too few", {})
    assert "ValueError: too few" in stress_text(place.stress(place.own, labels=(1,)), "text")


def test_a_class_is_left_out_and_told_by_confidence(place):
    found = place.stress(place.own, open_set=("all",))
    kept = place.run(place.own).predictions()
    assert [one.class_ for one in found.unknown] == kept.classes
    counts = np.bincount(kept.truth)
    assert [one.unknown for one in found.unknown] == counts.tolist()
    assert {one.known + one.unknown for one in found.unknown} == {len(kept.truth)}
    for one in found.unknown:
        assert 0 <= one.auroc_low <= one.auroc <= one.auroc_high <= 1
        assert 0 <= one.fpr_low <= one.fpr <= one.fpr_high <= 1
    (ports,) = place.stress("majority", open_set=(kept.classes[1],)).unknown
    assert (ports.auroc, ports.fpr) == (0.5, 1.0)  # the same answer to all tells nothing


def test_calibration_is_of_the_test_part_by_a_temperature_of_validation(place):
    found = place.stress(place.own).calibration
    kept = place.run(place.own).result()
    assert found.calibration_error == pytest.approx(kept.scores.calibration_error)
    assert found.validation == kept.split.samples["validation"] and found.temperature != 1.0
    assert set(found.intervals) > {"log_loss_difference", "calibration_error_difference"}
    for name, (value, low, high) in found.intervals.items():
        assert low <= value <= high and value == pytest.approx(vars(found).get(name, value))
    text = stress_text(place.stress(place.own), "text")
    assert "calibration error [95 %]" in text and "\ndifference" in text


def test_a_stress_test_of_before_has_a_calibration_without_intervals(place):
    now = place.stress(place.own)
    old = dataclasses.replace(now, calibration=dataclasses.replace(now.calibration, intervals={}))
    told = stress_text(old, "text")
    assert f"{now.calibration.log_loss:.3f}" in told and "\ndifference" not in told
    for wrong in ({"log_loss": [1, 2, 3]}, now.calibration.intervals | {"log_loss": [1]}):
        with pytest.raises(FieldError, match=r"log_loss_after|two ends"):
            dataclasses.replace(now.calibration, intervals=wrong)


def test_inputs_that_differ_are_counted_by_sample():
    one = {"a": np.array([[1.0, np.nan], [2, 3]]), "b": Ragged(np.array([1, 2, 3]), np.array([0, 1, 3]))}
    assert differing(one, one).tolist() == [False, False]
    assert differing(one, one | {"a": np.array([[1.0, np.nan], [2, 4]])}).tolist() == [False, True]
    assert differing(one, one | {"b": Ragged(np.array([1, 2, 4]), np.array([0, 1, 3]))}).tolist() == [False, True]
    assert differing(one, one | {"b": Ragged(np.array([1, 2, 3]), np.array([0, 2, 3]))}).tolist() == [True, True]
    assert differing({"c": np.array([True, False])}, {"c": np.array([True, True])}).tolist() == [False, True]


def test_it_is_saved_and_read_again(place, tmp_path):
    found = place.stress("ports", labels=(1,), open_set=("all",))
    path = found.save(tmp_path)
    assert path == tmp_path / "stress" / f"{found.run}.json" and Stress.load(path) == found
    few = place.stress("ports", labels=(2,))
    joined = Stress.load(few.with_earlier(tmp_path).save(tmp_path))
    assert [one.labels for one in joined.few_labels] == [1, 2] and joined.unknown == found.unknown
    assert joined.changed == few.changed and place.stress("ports").with_earlier(tmp_path / "none").few_labels == []
    text = path.read_text()
    for wrong in ("{}", text.replace('"macro_f1": {', '"f1": {'), text.replace('"macro_f1": [', '"f1": [')):
        path.write_text(wrong)
        with refused("wrong-file", path):
            Stress.load(path)
        assert found.with_earlier(tmp_path) == found  # what may have taken hours is not lost to a damaged file


def test_the_command(place, command_line):
    run, results = place.runs["ports"].run_id[:8], place.folder / "results"
    words = ("stress", run, "--results", results)
    status, out, err = command_line(*words, "--labels", "1,2")
    assert status == 0 and "not read" in out and "Few labels" in out
    assert f"stress/{place.runs['ports'].run_id}.json" in err
    data = json.loads(command_line(*words, "--json")[1])
    assert data["changed"][0]["change"] == "ports random" and data["few_labels"] == []
    saved = Stress.load(results / "stress" / f"{place.runs['ports'].run_id}.json")
    assert [one.labels for one in saved.few_labels] == [1, 2]  # of the call before
    rows = list(csv.DictReader(io.StringIO(command_line(*words, "--format", "csv")[1])))
    assert {row["test"] for row in rows} == {"change", "calibration"}
    assert float(rows[1]["macro_f1_difference"]) == data["changed"][0]["scores"]["macro_f1"]["difference"]
    assert "| ports random |" in command_line(*words, "--format", "md")[1]
    for wrong in (["--labels", "x"], ["--labels", "0"], ["--open-set", "nothing"], ["--pad", "1"], ["--device", "gpu"]):
        status, out, err = command_line(*words, *wrong)
        assert (status, out) == (2, "") and wrong[1] in err and len(err.splitlines()) == 1
    status, _, err = command_line("stress", place.runs[place.own].run_id, "--results", results)
    assert status == 2 and "[unnamed-code]" in err


def test_of_a_run_without_a_model_no_file_is_asked_for(place):
    run = dataclasses.replace(place.run(place.own), folder=place.folder, model="removed")
    with refused("missing-artefact", "has no model (removed)"):
        stress(run, place.store, StressRequest())


def test_runs_that_cannot_be_tested_are_refused(place, monkeypatch):
    run = place.run("ports")
    with refused("missing-artefact", "elsewhere"):
        stress(dataclasses.replace(run, origin=ELSEWHERE), place.store, StressRequest())
    with refused("run-mismatch", "another split"):
        stress(dataclasses.replace(run, split="0" * 64), place.store, StressRequest())
    with refused("store-changed"):
        stress(run, dataclasses.replace(place.store, digest="0" * 64), StressRequest())
    other = Ports.predict_proba
    monkeypatch.setattr(Ports, "predict_proba", lambda self, inputs: other(self, inputs)[:, ::-1])
    with refused("run-mismatch", "does not answer as the run did"):
        stress(run, place.store, StressRequest())


def test_the_page_shows_it(place, tmp_path):
    place.stress("ports").save(place.folder / "results")
    write(place.tracker, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "How methods fail" in page and "ports random" in page and "temperature" in page
