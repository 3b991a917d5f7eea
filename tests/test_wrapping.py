"""`bench.wrap`: what is written, that it is a method like any other, and what is refused with the remedy."""

import functools
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from refusals import refused
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC
from test_adding import BLOCKS
from torch import nn

import bench
from bench import conformance
from bench.runs import registry


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def own(here):
    """Writes a module of the user's own and imports it."""
    names = []

    def write(text, name="my_models"):
        (here / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        names.append(name)
        return importlib.import_module(name)

    yield write
    for name in names:
        sys.modules.pop(name, None)


def text_of(name):
    return Path(name.partition(":")[0]).read_text()


def estimator_of(name):
    return registry.load(name)(classes=3, seed=5).estimator()


def test_the_document_runs_word_for_word(here):
    (here / "my_nets.py").write_text(BLOCKS["my_nets.py"])
    names = {}
    try:
        for block in ("notebook", "notebook, further"):
            exec(BLOCKS[block], names)
    finally:
        sys.modules.pop("my_nets", None)
    records = {record.spec.method: record for record in bench.Tracker("results").search()}
    assert set(records) == {names["trees"], names["net"], "majority"}
    assert {record.status for record in records.values()} == {"done"}
    assert records[names["trees"]].metrics["macro_f1"] > records["majority"].metrics["macro_f1"]
    assert records[names["trees"]].spec.source == registry.describe(names["trees"]).digest


def test_what_is_written_of_a_classifier_passes_the_check(folder):
    distance = "sklearn.metrics._dist_metrics.EuclideanDistance64"
    reads = ["payload", "times", "ports", "protocol"]
    name = bench.wrap(KNeighborsClassifier(3), reads=reads, packets=4, bytes=8, trusted=[distance])
    assert [str(one) for one in conformance.check(name, folder=folder) if not one.passed] == []


def test_what_is_written_of_a_network_passes_the_check(folder, own):
    module = own(BLOCKS["my_nets.py"], "my_nets")
    name = bench.wrap(module.small_net, reads=["lengths", "flags"], packets=32)
    assert [str(one) for one in conformance.check(name, folder=folder) if not one.passed] == []


@pytest.mark.parametrize(("estimator", "written"), [
    (ExtraTreesClassifier, "ExtraTreesClassifier(random_state=self.random_state)"),
    (ExtraTreesClassifier(50, n_jobs=2, random_state=1),
     "ExtraTreesClassifier(n_estimators=50, random_state=self.random_state)"),
    (LogisticRegression(C=np.float64(0.5), class_weight={0: 2}), "C=0.5, class_weight={0: 2}"),
    (make_pipeline(FunctionTransformer(np.log1p), StandardScaler(with_mean=False), SVC(probability=True)),
     "Pipeline(steps=[('functiontransformer', FunctionTransformer(func=log1p, )"),
    (VotingClassifier([("a", RandomForestClassifier(3)), ("b", KNeighborsClassifier())], voting="soft"),
     "VotingClassifier(estimators=[('a', RandomForestClassifier(n_estimators=3, random_state=self.random_state), ), "),
    (make_pipeline(ColumnTransformer([("a", "passthrough", [0, 1])]), KNeighborsClassifier()),
     "'passthrough', [0, 1], "),
], ids=lambda value: type(value).__name__)  # fmt: skip
def test_a_classifier_is_written_with_what_differs_from_its_defaults(estimator, written):
    name = bench.wrap(estimator, reads=["lengths"])
    assert written.replace("log1p, )", "log1p)") in text_of(name)
    instance = estimator() if isinstance(estimator, type) else estimator

    def plain(one):
        words = {
            key: repr(getattr(value, "item", lambda value=value: value)())
            for key, value in one.get_params(deep=False).items()
        }
        return {key: value for key, value in words.items() if key not in ("random_state", "n_jobs")}

    def bare(text):
        return (
            text.replace("random_state=5", "").replace(", )", ")").replace("\n", "").replace(" ", "").replace(",)", ")")
        )

    assert {k: bare(v) for k, v in plain(estimator_of(name)).items()} == {
        k: bare(v) for k, v in plain(instance).items()
    }


def test_a_file_is_named_by_its_content():
    one, same, other = (bench.wrap(KNeighborsClassifier(n), reads="lengths") for n in (3, 3, 4))
    assert one == same != other and one.startswith("wrapped/k_neighbors_classifier_") and one.endswith(".py:Wrapped")
    assert registry.describe(bench.wrap(KNeighborsClassifier(), reads="lengths", name="mine")).name == "mine"
    assert "scikit-learn" in text_of(one)
    Path(one.partition(":")[0]).write_text("mine now")
    with refused("unwritable-file", one.partition(":")[0], "by hand"):
        bench.wrap(KNeighborsClassifier(3), reads="lengths")


TRANSFORMER = """
from sklearn.base import BaseEstimator, TransformerMixin


class Halved(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        return X / 2
"""


def test_a_users_own_file_is_copied_and_what_it_was_stays(folder, own):
    module = own(TRANSFORMER)
    name = bench.wrap(make_pipeline(module.Halved(), RandomForestClassifier(9)), reads=["lengths"])
    Path("my_models.py").unlink()
    assert [str(one) for one in conformance.check(name, folder=folder) if not one.passed] == []
    assert text_of(name).startswith(TRANSFORMER)


class OfATest(KNeighborsClassifier):
    """Without a file of its own, once its module says so."""


def in_a_function():
    class Inside(KNeighborsClassifier):
        pass

    return Inside()


def of_the_notebook():
    main = sys.modules["__main__"]
    kind = type("Mine", (KNeighborsClassifier,), {"__module__": "__main__"})
    main.Mine = kind
    return kind()


REFUSED = {
    "a lambda": (lambda: make_pipeline(FunctionTransformer(lambda x: x), SVC(probability=True)), "def", "my_models.py"),
    "of the notebook": (of_the_notebook, "Mine, defined in a notebook or script", "my_models.py"),
    "in a function": (in_a_function, "Inside, defined in a function", "my_models.py"),
    "an object": (lambda: KNeighborsClassifier(metric_params={"cv": KFold(3)}), "metric_params", "KFold", "numbers"),
    "an array": (lambda: LogisticRegression(C=np.ones(2)), "C of LogisticRegression", "write a class"),
    "no probabilities": (lambda: LinearSVC(), "LinearSVC has no predict_proba", "CalibratedClassifierCV"),
    "no classifier": (lambda: GaussianMixture(2), "GaussianMixture is no classifier", "is_classifier"),
    "arguments": (lambda: VotingClassifier, "VotingClassifier", "give an instance"),
    "a lambda of torch": (lambda: lambda shape, classes: nn.Flatten(), "lambda", "def", "my_models.py"),
    "a network": (lambda: nn.Linear(2, 3), "Linear(in_features=2", "shape of a sample"),
    "a number": (lambda: 3, "3 is neither"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_written_is_refused_with_the_remedy(what):
    make, *words = REFUSED[what]
    with refused("cannot-wrap", *words):
        bench.wrap(make(), reads=["lengths"])
    assert not Path("wrapped").exists()


@pytest.mark.parametrize(("network", "words"), [
    ("return 3", ("gives int", "return the network")),
    ("return nn.Sequential(nn.Flatten(), nn.Linear(16, 10))", ("with (2, 10)", "(2, 3)")),
    ("return nn.Sequential(nn.Flatten(), nn.Linear(5, classes))", ("fails on two samples", "RuntimeError")),
])  # fmt: skip
def test_a_network_that_does_not_fit_is_refused_before_it_is_written(network, words, own):
    module = own(f"from torch import nn\n\n\ndef net(shape, classes):\n    {network}\n")
    with refused("cannot-wrap", "net((16, 1), 3)", *words):
        bench.wrap(module.net, reads=["lengths"])


@pytest.mark.parametrize(("options", "words"), [
    ({"reads": ["length"]}, ("did you mean lengths?",)),
    ({"reads": ["addresses"]}, ("masked", "write a class")),
    ({"reads": []}, ("reads nothing",)),
    ({"reads": ["lengths"], "packets": 0}, ("packets=0", "at least 1")),
    ({"reads": ["lengths"], "name": "My Trees"}, ("name='My Trees'", "my-trees")),
])  # fmt: skip
def test_words_that_cannot_be_are_refused(options, words):
    with refused("cannot-wrap", *words):
        bench.wrap(KNeighborsClassifier, **options)


def test_a_file_that_is_copied_stands_alone(own):
    own("A = 1\n", "my_other")
    module = own("import my_other\n\n\ndef net(shape, classes):\n    return 1\n")
    with refused("cannot-wrap", "my_models.py:1 imports my_other", "put all into one file"):
        bench.wrap(module.net, reads=["lengths"])
    module = own("np = 3\n\n\ndef net(shape, classes):\n    from torch import nn\n"
                 "    return nn.Sequential(nn.Flatten(), nn.Linear(16, classes))\n", "my_third")  # fmt: skip
    with refused("cannot-wrap", "my_third.py has a 'np' of its own"):
        bench.wrap(module.net, reads=["lengths"])


def test_keywords_come_by_partial(own):
    module = own(BLOCKS["my_nets.py"], "my_nets")
    text = text_of(bench.wrap(functools.partial(module.small_net, hidden=3), reads=["lengths"]))
    assert "return small_net((16, 1), self.classes, hidden=3)" in text and '{"input": ' in text
    assert "torch" in text.partition("# Written by")[2].partition("\n")[0]


def test_a_run_from_python_takes_the_words_of_the_command_line(here):
    """A word in place of a SplitSpec was a trace; a wrong one is refused as the command line does."""
    (one,) = bench.run("majority", "demo", "session")
    (same,) = bench.run(["majority"], ["demo"], [bench.SplitSpec("session")])
    assert (one.status, same.status, one.spec) == ("done", "cached", same.spec)
    with refused("unknown-split", "sesion", "did you mean session?"):
        bench.run("majority", "demo", "sesion")
