"""Bundles of others: what is damaged, forged, or no bundle is refused before anything is written."""

import dataclasses
import errno
import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from records import record
from refusals import refused
from stored_runs import forged, indexed, members_of, write_members

from bench.errors import InputError
from bench.scores.jackknife import GroupJackknife
from bench.scores.metrics import evaluate
from bench.tracking.bundle import INDEX, import_bundle, opened, write_bundle
from bench.tracking.proof import _check_claims, _check_counts, _ends, latest_of
from bench.tracking.results import Predictions
from bench.tracking.selection import stored_runs
from bench.tracking.tracker import Tracker


def not_imported(place, file, *named, code="bad-bundle"):
    """Refused in one line, before anything is written."""
    results = file.with_suffix(".none")
    with refused(code, file, *named):
        import_bundle(Tracker(results), file)
    assert not results.exists()


def first_run(members):
    return json.loads(members[INDEX])["runs"][0]["name"]


def packed(members):
    return members, zipfile.ZIP_DEFLATED


def altered(change):
    def apply(members):
        home = f"runs/{first_run(members)}"
        return change(dict(members), home)

    return apply


def of_record(**fields):
    """Another run.json, and an index that knows its digest."""

    def change(members, home):
        record = json.loads(members[f"{home}/run.json"])
        for name, value in fields.items():
            if isinstance(value, dict):
                record[name] |= value
            else:
                record[name] = value
        return indexed(members | {f"{home}/run.json": json.dumps(record).encode()})

    return altered(change)


FOREIGN = {
    "no member": altered(lambda m, home: {n: c for n, c in m.items() if n != f"{home}/result.json"}),
    "one more": altered(lambda m, home: {f"{home}/more.txt": b"x", **m}),
    "another content": altered(lambda m, home: m | {f"{home}/result.json": b"{}"}),
    "another word": altered(
        lambda m, home: m | {f"{home}/run.json": m[f"{home}/run.json"].replace(b'"reason": ""', b'"reason": "x"')}
    ),
    "out of its folder": altered(lambda m, home: indexed(m | {f"{home}/../../../slip.txt": b"x"})),
    "an absolute path": altered(lambda m, home: indexed(m | {"/tmp/slip.txt": b"x"})),
    "a backslash": altered(lambda m, home: indexed(m | {f"{home}/..\\slip.txt": b"x"})),
    "a file that is a folder": altered(lambda m, home: indexed(m | {f"{home}/result.json/x": b"x"})),
    "a file that the run did not write": altered(lambda m, home: indexed(m | {f"{home}/more.txt": b"x"})),
    "no index": lambda m: {n: c for n, c in m.items() if n != INDEX},
    "an index of nothing": lambda m: m | {INDEX: b"[]"},
    "an index of tomorrow": lambda m: m | {INDEX: m[INDEX].replace(b'"format": 2', b'"format": 3')},
    "no run.json": altered(lambda m, home: indexed({n: c for n, c in m.items() if n != f"{home}/run.json"})),
    "a run.json of nothing": altered(lambda m, home: indexed(m | {f"{home}/run.json": b"[]"})),
    "a run.json too deep": altered(lambda m, home: indexed(m | {f"{home}/run.json": b"[" * 100_000})),
    "another run's name": of_record(tags={"bench.uid": "other"}),
    "another digest": of_record(tags={"bench.digest": "0" * 16}),
    "a specification of nothing": of_record(tags={"bench.spec": "{"}),
    "another seed on the page": of_record(tags={"seed": "99"}),
    "another split": of_record(tags={"bench.split": "0" * 16}),
    "a tag of MLflow": of_record(tags={"mlflow.parentRunId": "0" * 32}),
    "another experiment": of_record(experiment="bench/other/task"),
    "a status of its own": of_record(status="excellent"),
    "a run that lasts": of_record(status="running"),
    "a time that is none": of_record(started="yesterday"),
    "a time beyond all": of_record(ended=10**30),
    "a point of nothing": of_record(points=[["macro_f1"]]),
    "a point that is not a number": of_record(points=[["macro_f1", "1", 0, 0]]),
    "a number beyond all": of_record(points=[["macro_f1", 10**400, 0, 0]]),
    "a name that no store takes": of_record(parameters={"a\nb": "1"}),
    "a file of another folder": of_record(tags={"file.900": f"{'0' * 64}  model/../../../x"}),
    "an origin of ours": of_record(tags={"origin": "shipped"}),
    "an origin of a page": of_record(tags={"origin": "</table> 1.0"}),
    "a file of a page": of_record(tags={"origin": "file </table>"}),
    "an end before the start": of_record(ended=0),
    "an end in a hundred years": of_record(ended=4_900_000_000_000),
    "packed members": packed,
    "answers that are none": altered(lambda m, home: forged(m, home.removeprefix("runs/"), predictions_npz=b"PK")),
}


WORDS = {  # by which rule it is refused, where another one would do it, too
    "another word": "not what the index says",
    "one more": "not those that its index names",
    "out of its folder": "leads out",
    "an absolute path": "leads out",
    "a backslash": "leads out",
    "an index of tomorrow": "format 3",
    "a run.json too deep": "recursion",
    "another run's name": "another run",
    "another digest": "digest",
    "another seed on the page": "tag seed",
    "another split": "another split",
    "a tag of MLflow": "MLflow's own",
    "a run that lasts": "status",
    "a time beyond all": "a time or step",
    "an origin of ours": "neither a package",
    "an origin of a page": "neither a package",
    "an end before the start": "before it began",
    "an end in a hundred years": "has not ended yet",
    "a point of nothing": "is not a name, number",
    "a name that no store takes": "too long, or has signs",
    "a file of another folder": "not a file of a run",
    "packed members": "is packed",
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_no_sound_bundle_is_refused_before_anything_is_written(place, bundle, what):
    made = FOREIGN[what](members_of(bundle))
    members, packing = made if isinstance(made, tuple) else (made, zipfile.ZIP_STORED)
    not_imported(place, write_members(place.file(), members, packing), WORDS.get(what, ""))
    assert not list(place.folder.rglob("slip*"))


def test_answers_that_unpack_without_end_are_not_unpacked(place, bundle, monkeypatch):
    monkeypatch.setattr("bench.tracking.bundle.ANSWERS", 1 << 20)
    held, members = io.BytesIO(), members_of(bundle)
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as arrays:
        arrays.writestr("truth.npy", bytes(1 << 21))
    file = write_members(place.file(), forged(members, first_run(members), predictions_npz=held.getvalue()))
    not_imported(place, file, f"unpacks to {1 << 21} bytes")


def test_no_file_and_no_zip_are_refused(place):
    not_imported(place, place.file(), code="missing-file")
    file = place.file()
    for content in (b"", b"PK", b"x" * 1000):
        file.write_bytes(content)
        not_imported(place, file)


@pytest.mark.parametrize("error", [ModuleNotFoundError("No module named 'pandas'", name="pandas"),
                                   OSError(errno.ENOSPC, "No space left on device"),
                                   OSError(errno.EMFILE, "Too many open files")], ids=repr)  # fmt: skip
def test_what_this_machine_lacks_is_no_fault_of_the_bundle(place, bundle, monkeypatch, error):
    def lacks(*given, **named):
        raise error

    monkeypatch.setattr("bench.tracking.bundle.proved", lacks)
    with pytest.raises(type(error)) as caught:
        import_bundle(Tracker(place.file()), bundle)
    assert caught.value is error


def proved_content(file):
    """All that a bundle's reader gives on: index, records and digests of files."""
    with opened(file) as source:
        return [source.index, [source.checked(run) for run in source.index.runs]]


@pytest.fixture(scope="module")
def small(place, filled):
    file = place.file()
    runs = [one for one in stored_runs(filled) if one.record.status == "failed"] + stored_runs(filled)[:1]
    write_bundle(filled, runs, file)
    return file.read_bytes(), proved_content(file)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_refused_or_harmless(small, tmp_path, data):
    whole, content = small
    kind = data.draw(st.sampled_from(["flip", "cut", "middle", "swap", "longer"]))
    first, second = sorted(data.draw(st.tuples(*[st.integers(0, len(whole) - 1)] * 2)))
    other = data.draw(st.binary(min_size=1, max_size=40))
    damaged = {
        "flip": whole[:first] + bytes([whole[first] ^ (1 << second % 8)]) + whole[first + 1 :],
        "cut": whole[:first],
        "middle": whole[:first] + whole[second:],
        "swap": whole[:first] + other + whole[first + len(other) :],
        "longer": whole[:first] + other + whole[first:],
    }[kind]
    file = tmp_path / "damaged.zip"
    file.write_bytes(damaged)
    try:
        found = proved_content(file)
    except InputError as error:
        assert error.code == "bad-bundle" and len(str(error).splitlines()) == 1
    else:
        assert found == content


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_members_that_change_places_are_refused(bundle, tmp_path, data):
    members = members_of(bundle)
    one, other = data.draw(st.lists(st.sampled_from(sorted(members)), min_size=2, max_size=2, unique=True))
    swapped = dict(members) | {one: members[other], other: members[one]}
    if swapped == members:
        return  # two runs answered alike
    file = tmp_path / "swapped.zip"
    file.unlink(missing_ok=True)
    with pytest.raises(InputError) as caught:
        proved_content(write_members(file, swapped))
    assert caught.value.code == "bad-bundle"


# --- cheats ------------------------------------------------------------------------------------------------------


def better(record, name="macro_f1", value=0.999):
    return {**record, "points": [[n, value if n == name else v, at, s] for n, v, at, s in record["points"]]}


@pytest.mark.parametrize("name", ["macro_f1", "accuracy", "macro_f1_low", "f1/chat", "training_accuracy"])
def test_a_better_score_in_the_record_alone_is_refused(place, bundle, name):
    members = members_of(bundle)
    path = f"runs/{first_run(members)}/run.json"
    changed = better(json.loads(members[path]), name)
    file = write_members(place.file(), indexed(members | {path: json.dumps(changed).encode()}))
    not_imported(place, file, name)


@pytest.mark.parametrize("name", ["macro_f1", "brier", "macro_recall_high"])
def test_a_better_score_in_record_and_result_is_refused_by_the_answers(place, bundle, name):
    members = members_of(bundle)
    run = first_run(members)
    result = json.loads(members[f"runs/{run}/result.json"])
    result["metrics"][name] = 0.999
    result["scores"] |= {name: 0.999} if name in result["scores"] else {}
    record = better(json.loads(members[f"runs/{run}/run.json"]), name)
    members[f"runs/{run}/run.json"] = json.dumps(record).encode()
    file = write_members(place.file(), forged(members, run, result_json=json.dumps(result).encode()))
    not_imported(place, file, name, "by what the run answered")


def without(members, run, *names, **values):
    """Members of which a run's record and result lack some numbers and have others."""
    result = json.loads(members[f"runs/{run}/result.json"])
    record = json.loads(members[f"runs/{run}/run.json"])
    result["metrics"] = {n: values.get(n, v) for n, v in result["metrics"].items() if n not in names}
    record["points"] = [[n, values.get(n, v), *w] for n, v, *w in record["points"] if n not in names]
    members = members | {f"runs/{run}/run.json": json.dumps(record).encode()}
    return forged(members, run, result_json=json.dumps(result).encode())


GONE = {
    "no score": (("macro_f1",), {}, "does not have macro_f1"),
    "no interval": (("macro_f1_low", "macro_f1_high"), {}, "does not have macro_f1_low"),
    "an interval of before": (
        ("interval_groups",), {"macro_f1_low": 0.999, "macro_f1_high": 1.0}, "outside of its interval"
    ),
    "no time at all": ((), {"seconds_fit": -5}, "seconds_fit is -5, which nothing takes"),
    "a time that is none": ((), {"seconds_predict": float("nan")}, "seconds_predict is nan"),
    "endless memory": ((), {"peak_memory_bytes": float("inf")}, "peak_memory_bytes is inf"),
}  # fmt: skip


@pytest.mark.parametrize("what", GONE)
def test_what_is_taken_out_of_record_and_result_alike_is_missed(place, bundle, what):
    members = members_of(bundle)
    names, values, told = GONE[what]
    file = write_members(place.file(), without(members, first_run(members), *names, **values))
    not_imported(place, file, told)


def test_a_part_that_lacks_a_class_cannot_be_hidden():
    scores = evaluate(np.array([0, 0, 1]), np.eye(3)[[0, 0, 1]], ["a", "b", "c"])
    parts = {"a": {"train": 3}, "b": {"train": 0}, "c": {"train": 1}}
    _check_counts({"classes_tested": 2.0, "classes_trained": 2.0}, scores, parts)
    _check_counts({"classes_tested": 2.0}, scores, {})
    for said in ({}, {"classes_tested": 3.0, "classes_trained": 2.0}, {"classes_tested": 2.0}):
        with pytest.raises(InputError, match="by its files"):
            _check_counts(said, scores, parts)


@pytest.mark.parametrize("tuned", ["10 trials a fold", "99 trials, by hand"])
def test_a_search_that_nothing_tells_of_is_refused(tuned):
    one = record("forest", 0.5)
    one = dataclasses.replace(one, spec=dataclasses.replace(one.spec, tuned=tuned), status="done")
    with pytest.raises(InputError, match="nothing of a search"):
        _check_claims(one)
    one.metrics["search_trials"] = 10.0
    if tuned == "10 trials a fold":
        _check_claims(one)


def test_a_name_in_letters_that_look_like_others_is_refused():
    with pytest.raises(InputError, match="other letters"):
        _check_claims(record("f\u043erest", 0.5))


@pytest.mark.parametrize(
    "change", [lambda p: 50 * p - 3, lambda p: p / 0, lambda p: p.astype(complex), lambda p: p * 0]
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_answers_that_are_no_probabilities_are_refused(place, bundle, tmp_path, change):
    members = members_of(bundle)
    run = first_run(members)
    (tmp_path / "p.npz").write_bytes(members[f"runs/{run}/predictions.npz"])
    answers = Predictions.load(tmp_path / "p.npz")
    dataclasses.replace(answers, probabilities=change(answers.probabilities + 0.5)).save(tmp_path / "p.npz")
    file = write_members(place.file(), forged(members, run, predictions_npz=(tmp_path / "p.npz").read_bytes()))
    not_imported(place, file)


def test_ends_of_earlier_versions_are_taken_where_answers_do_not_vary():
    """Their degrees of freedom came from rounding; where answers vary, and beyond those of 1, an end is wrong."""
    truth, groups = np.repeat([0, 1], 20), np.arange(40) // 4
    jackknife = GroupJackknife(truth, [0 * truth], groups, classes=2)
    low, high = jackknife.score(0, "macro_f1").score_interval()
    for said, taken in [((low * 0.9, high), True), ((low, high * 1.1), True), ((low, 0.999), False)]:
        record = {"macro_f1_low": said[0], "macro_f1_high": said[1]}
        assert (_ends(jackknife, "macro_f1", record) == said) == taken
    varied = GroupJackknife(truth, [np.arange(40) % 3 % 2], groups, classes=2)
    assert _ends(varied, "macro_f1", record) == varied.score(0, "macro_f1").score_interval() != said


@pytest.mark.parametrize("name", ["accuracy", "support of chat"])
def test_a_better_score_that_only_the_page_shows_is_refused(place, bundle, name):
    members = members_of(bundle)
    run = first_run(members)
    result = json.loads(members[f"runs/{run}/result.json"])
    where = result["scores"] if name == "accuracy" else result["scores"]["per_class"]["chat"]
    where[name.split()[0]] = 0.999
    file = write_members(place.file(), forged(members, run, result_json=json.dumps(result).encode()))
    not_imported(place, file, f"{name} is 0.999 in result.json")


def test_a_confusion_matrix_that_does_not_follow_from_the_answers_is_refused(place, bundle):
    members = members_of(bundle)
    run = first_run(members)
    result = json.loads(members[f"runs/{run}/result.json"])
    result["scores"]["confusion"] = np.diag([9, 9, 9]).tolist()
    file = write_members(place.file(), forged(members, run, result_json=json.dumps(result).encode()))
    not_imported(place, file, "confusion")


def test_other_answers_need_other_scores(place, bundle, tmp_path):
    """Who forges all of it alike is not found out, and is told apart by being imported alone."""
    members = members_of(bundle)
    run = first_run(members)
    (tmp_path / "p.npz").write_bytes(members[f"runs/{run}/predictions.npz"])
    answers = Predictions.load(tmp_path / "p.npz")
    answers.probabilities[:] = np.eye(len(answers.classes), dtype=np.float32)[answers.truth]
    answers.save(tmp_path / "p.npz")
    file = write_members(place.file(), forged(members, run, predictions_npz=(tmp_path / "p.npz").read_bytes()))
    not_imported(place, file, "does not follow")


def test_the_newest_point_is_what_a_store_takes_for_it():
    points = [["a", 1.0, 5, 0], ["a", 3.0, 4, 1], ["a", 2.0, 5, 1], ["b", float("nan"), 0, 0], ["b", 1.0, 0, 0]]
    assert latest_of(points) == {"a": 2.0, "b": 1.0}
