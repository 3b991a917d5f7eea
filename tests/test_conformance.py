"""The conformance suite passes a sound method of a third party and finds what is wrong with unsound ones."""

import dataclasses
import pickle

import numpy as np
import pytest
from refusals import refused

from bench import conformance, readers
from bench.conformance import questions
from bench.estimator import EstimatorMethod
from bench.method import RENAMED, parameter
from bench.runs import registry
from bench.training.loop import TorchMethod
from bench.training.units import PacketMethod

SOUND = '''
"""A method outside the project."""

import numpy as np

from bench.method import Method


class Sound(Method):
    """Nearest class mean of the first packet lengths and times."""

    name = "sound"
    reference = "none"
    family = "features"
    reads = frozenset({"lengths"})

    def represent(self, view):
        return {"lengths": view.lengths(8)}

    def features(self, inputs):
        return np.log1p(inputs["lengths"])

    def fit(self, train, validation, monitor):
        features = self.features(train.inputs)
        self.means = np.full((self.classes, features.shape[1]), 1e3)
        for label in np.unique(train.labels):
            self.means[label] = features[train.labels == label].mean(axis=0)
        return self

    def predict_proba(self, inputs):
        distance = ((self.features(inputs)[:, None] - self.means) ** 2).sum(axis=2)
        weight = np.exp(distance.min(axis=1, keepdims=True) - distance)
        return (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)

    def save_state(self, folder):
        np.save(folder / "means.npy", self.means)

    def load_state(self, folder):
        self.means = np.load(folder / "means.npy")
'''


@pytest.fixture(scope="module")
def file(folder):
    path = folder / "sound.py"
    path.write_text(SOUND)
    return path


@pytest.fixture(scope="module")
def sound(file):
    return registry.load(f"{file}:Sound")


def test_a_sound_method_passes_every_check(file, folder):
    answers = conformance.check(f"{file}:Sound", folder=folder)
    assert [answer.name for answer in answers] == [question.__name__ for question in conformance.CHECKS]
    assert [answer for answer in answers if not answer.passed or answer.detail] == []


BROKEN = SOUND.replace('return {"lengths": view.lengths(8)}', 'return {"lengths": view.lengths(8) + view.ports()}')


def test_the_root_of_many_failures_is_named_once_with_the_authors_line(tmp_path, folder):
    """All that needs arrays fails with `represent`: it is told once, and where; the rest is skipped."""
    file = tmp_path / "broken.py"
    file.write_text(BROKEN)
    answers = conformance.check(f"{file}:Sound", folder=folder)
    (failed,) = [answer for answer in answers if not answer.passed and not answer.needs]
    line = next(n for n, text in enumerate(BROKEN.splitlines(), 1) if "view.ports()" in text)
    assert failed.name == "represents_samples" and "'ports' is read but not declared" in failed.detail
    assert failed.where == f"{file}:{line}, in represent" and failed.where in str(failed)
    skipped = [answer for answer in answers if answer.needs]
    assert {answer.needs for answer in skipped} == {"represents_samples"} and len(skipped) > 10
    assert str(skipped[0]).endswith("skipped: needs represents_samples")


def test_what_the_harness_finds_points_at_the_hook(tmp_path, folder):
    file = tmp_path / "loud.py"
    file.write_text(SOUND.replace(" / weight.sum(axis=1, keepdims=True)", ""))
    answers = {answer.name: answer for answer in conformance.check(f"{file}:Sound", folder=folder)}
    failed = answers["answers_with_probabilities"]
    line = next(n for n, text in enumerate(SOUND.splitlines(), 1) if "def predict_proba" in text)
    assert not failed.passed and failed.where == f"{file}:{line}"
    assert answers["saves_and_loads"].needs == "answers_with_probabilities" and answers["represents_purely"].passed


def test_a_wrong_declaration_hides_nothing_that_works(tmp_path, folder):
    file = tmp_path / "family.py"
    file.write_text(SOUND.replace('"features"', '"novel"'))
    answers = conformance.check(f"{file}:Sound", folder=folder)
    assert [answer.name for answer in answers if not answer.passed] == ["declares_itself"]


def test_a_hook_that_is_missing_is_named(tmp_path, folder):
    file = tmp_path / "part.py"
    file.write_text(SOUND.replace("def fit", "def fitt"))
    answers = conformance.check(f"{file}:Sound", folder=folder)
    failed = [answer for answer in answers if not answer.passed and not answer.needs]
    assert [(answer.name, answer.detail) for answer in failed] == [("declares_itself", "write fit")]


def test_every_need_is_a_question_that_is_asked_before():
    names = [question.__name__ for question in conformance.CHECKS]
    assert all(names.index(need) < names.index(q.__name__) for q in conformance.CHECKS for need in q.needs)


def test_a_file_that_cannot_be_imported_is_refused_with_its_line(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(SOUND + "\n\nprint(undefined)\n")
    with refused("bad-method", f"{file}:{len(SOUND.splitlines()) + 3}: ", "NameError"):
        conformance.check(f"{file}:Sound")


def test_no_such_method_is_bad_input():
    with refused("unknown-method", "nowhere.py"):
        conformance.check("nowhere.py:Nothing")


def _peeks(self, view):
    return {"lengths": view.lengths(8), "ports": view.ports()}


def _knows_the_date(self, view):
    behind = readers._BEHIND[view]  # no attribute leads there
    start = behind._store.session("start")[behind._session] - 1_700_000_000 * 10**9
    return {"lengths": np.column_stack([view.lengths(8), start // 10**12])}


def _keeps(self, view):
    self.seen = getattr(self, "seen", 0) + len(view)
    return {"lengths": view.lengths(8)}


def _knows_its_folder(self, view):
    behind = readers._BEHIND[view]
    path = str(behind._store.manifest.captures[int(behind.of_session("capture")[0])].path) if len(view) else ""
    return {"lengths": view.lengths(8) + len(path)}


def _scales(self, view):
    lengths = view.lengths(8).astype(np.float32)
    return {"lengths": lengths / max(lengths.sum(), 1)}


def _draws(self, train, validation, monitor):
    np.random.normal()  # noqa: NPY002
    return type(self).__base__.fit(self, train, validation, monitor)


def _overwrites(self, train, validation, monitor):
    train.inputs["lengths"][:, 0] = 0
    return type(self).__base__.fit(self, train, validation, monitor)


def _goes_on(self, train, validation, monitor):
    before = getattr(self, "means", None)
    type(self).__base__.fit(self, train, validation, monitor)
    self.means = self.means if before is None else (self.means + before) / 2
    return self


def _guesses(self, inputs):
    return np.full((len(inputs["lengths"]), self.classes), 1 / self.classes, np.float32)


def _looks_around(self, inputs):
    features = np.log1p(inputs["lengths"])
    return features - features.mean(axis=0) if len(features) else features


def _does_not_add_up(self, inputs):
    return 0.9 * type(self).__base__.predict_proba(self, inputs)


def _pickles(self, folder):
    (folder / "means.npy").write_bytes(pickle.dumps(self.means))


def _forgets(self, folder):
    self.means = np.zeros((self.classes, 8))


@pytest.mark.parametrize(
    ("member", "value", "question", "complaint"),
    [
        ("family", "novel", "declares_itself", "family"),
        ("reads", frozenset({"lengths", "smells"}), "declares_itself", "smells"),
        ("presets", {"fast": {"speed": 2}}, "documents_its_parameters", "no parameter 'speed'"),
        ("reads", frozenset({"lengths", "times"}), "reads_what_it_declares", "times declared but not used"),
        ("represent", _peeks, "reads_what_it_declares", "'ports' is read but not declared"),
        ("represent", _knows_the_date, "ignores_what_it_does_not_read", "date"),
        ("represent", _scales, "represents_purely", "of a subset"),
        ("fit", _draws, "fits_without_side_effects", "global random state of numpy"),
        ("fit", _overwrites, "fits_without_side_effects", "changed by fit"),
        ("fit", _goes_on, "fits_afresh", "second fit"),
        ("predict_proba", _guesses, "learns", "separable"),
        ("predict_proba", _does_not_add_up, "answers_with_probabilities", "sum to 1"),
        ("features", _looks_around, "answers_rows_independently", "without the others"),
        ("represent", _keeps, "keeps_nothing_represented", "changes the object"),
        ("represent", _knows_its_folder, "sees_no_labels", "other names"),
        ("save_state", _pickles, "saves_and_loads", "pickle"),
        ("load_state", _forgets, "saves_and_loads", "differs"),
    ],
)
def test_an_unsound_method_fails_the_check_it_breaks(sound, folder, member, value, question, complaint):
    broken = type("Broken", (sound,), {member: value, "__doc__": sound.__doc__})
    answers = {q.__name__: conformance.ask(q, conformance.Case(broken, folder)) for q in conformance.CHECKS}
    assert not answers[question].passed
    assert complaint in answers[question].detail
    assert "\n" not in answers[question].detail


PLAIN = """
from dataclasses import dataclass

from bench.method import Method, parameter


@dataclass(frozen=True)
class Parameters:
    size: int = parameter(3, "a size", "our choice")


class Mine(Method):
    'Mine.'

    name = "mine"
    reference = "none"
    family = "features"
    reads = frozenset()
    Parameters = Parameters
"""


@pytest.mark.parametrize("member", ["presets", "Parameters"])
def test_a_class_that_is_not_what_its_source_says_fails(tmp_path, folder, member):
    """Whatever changes a class when it is imported: listings would show the source's values, runs take the class's."""
    file = tmp_path / "mine.py"
    file.write_text(PLAIN)
    method = registry.load(f"{file}:Mine")
    assert conformance.ask(questions.is_listed_as_it_is, conformance.Case(method, folder)).passed
    changed = {
        "presets": {"code": {"size": 9}},
        "Parameters": dataclasses.make_dataclass(
            "Parameters", [("size", int, parameter(4, "a size", "our choice"))], frozen=True
        ),
    }
    setattr(method, member, changed[member])
    answer = conformance.ask(questions.is_listed_as_it_is, conformance.Case(method, folder))
    assert not answer.passed and {"presets": "presets", "Parameters": "parameter size"}[member] in answer.detail


@pytest.mark.parametrize("hook", RENAMED)
@pytest.mark.parametrize("kind", [EstimatorMethod, TorchMethod, PacketMethod])
def test_a_hook_under_its_old_name_is_refused(hook, kind):
    """It would never be called, and nobody would notice."""
    with pytest.raises(TypeError, match=f"Old.{hook}: this hook is called {RENAMED[hook]};"):
        type("Old", (kind,), {hook: lambda self: None})


def test_one_wrong_preset_fails_one_check(sound, folder):
    wrong = type("Wrong", (sound,), {"presets": {"fast": {"speed": 2}}, "__doc__": sound.__doc__})
    failed = [one.name for one in conformance.check(wrong, folder=folder) if not one.passed and not one.needs]
    assert failed == ["documents_its_parameters"]
