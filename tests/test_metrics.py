"""Scores against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as reference

from bench.scores.metrics import ABSTAINED, decide, evaluate, is_fitted, macro_f1


def case(seed, sessions=200, classes=5, abstained=0, present=None):
    """Random truth (of the first ``present`` classes) and probabilities that lean to it."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, present or classes, sessions)
    scores = rng.normal(size=(sessions, classes)) + 1.5 * np.eye(classes)[truth]
    probabilities = (np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)).astype(np.float32)
    probabilities[rng.choice(sessions, abstained, replace=False)] = np.nan
    return truth, probabilities


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("abstained", "present"), [(0, None), (0, 3), (17, None), (200, 4)])
def test_scores_equal_scikit_learn(seed, abstained, present):
    truth, probabilities = case(seed, abstained=abstained, present=present)
    names = list("abcde")
    scores = evaluate(truth, probabilities, names)
    predictions = decide(probabilities)
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        truth, predictions, labels=range(5), zero_division=0
    )
    assert scores.accuracy == pytest.approx(reference.accuracy_score(truth, predictions))
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        assert getattr(scores, f"macro_{name}") == pytest.approx(values.mean())
        assert [scores.per_class[c][name] for c in names] == pytest.approx(values)
    assert [scores.per_class[c]["support"] for c in names] == list(support)
    table = reference.confusion_matrix(truth, np.where(predictions == ABSTAINED, 5, predictions), labels=range(6))
    np.testing.assert_array_equal(scores.confusion, table[:5])
    assert scores.abstentions == abstained == np.sum(scores.confusion, axis=0)[5]


@pytest.mark.parametrize("seed", range(3))
def test_brier_equals_scikit_learn(seed):
    truth, probabilities = case(seed)
    expected = reference.brier_score_loss(truth, probabilities, labels=range(5), scale_by_half=False)
    assert evaluate(truth, probabilities, list("abcde")).brier == pytest.approx(expected, rel=1e-5)


def test_an_abstention_is_an_error_without_confidence():
    probabilities = np.array([[np.nan, np.nan], [0.0, 1.0]], np.float32)
    scores = evaluate(np.array([0, 1]), probabilities, ["a", "b"])
    assert (scores.accuracy, scores.abstentions, scores.brier, scores.calibration_error) == (0.5, 1, 0.5, 0.0)
    assert scores.confusion == [[0, 0, 1], [0, 1, 0]]
    half = evaluate(np.array([0, 1]), np.array([[0.9, np.nan], [0.0, 1.0]], np.float32), ["a", "b"])
    assert half.abstentions == 1  # one NaN is enough


def test_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]], np.float32)
    scores = evaluate(np.array([0, 1, 1, 1]), probabilities, ["a", "b"])
    # two bins of two sessions: |0.5 - 0.9| and |1 - 0.6|
    assert scores.calibration_error == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)


@pytest.mark.parametrize("seed", range(3))
def test_calibration_error_is_that_of_its_definition(seed):
    """Guo et al., ICML 2017: fifteen bins, the m-th holds confidences in ((m - 1) / 15, m / 15]."""
    truth, probabilities = case(seed, sessions=2000, abstained=20)
    probabilities[:50] = [1, 0, 0, 0, 0]  # the very end of the last bin
    predictions = decide(probabilities)
    sure = np.where(predictions == ABSTAINED, 0, np.nan_to_num(probabilities).max(axis=1)).astype(np.float64)
    error = 0.0
    for m in range(1, 16):
        inside = (sure > (m - 1) / 15) & (sure <= m / 15) if m > 1 else sure <= 1 / 15
        if inside.any():
            error += inside.sum() / 2000 * abs((predictions == truth)[inside].mean() - sure[inside].mean())
    assert evaluate(truth, probabilities, list("abcde")).calibration_error == pytest.approx(error, rel=1e-9)


def test_calibrated_answers_have_a_small_error():
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1, 50_000)
    truth = (rng.uniform(size=len(sure)) > sure).astype(np.int64)
    assert evaluate(truth, np.stack((sure, 1 - sure), 1).astype(np.float32), ["a", "b"]).calibration_error < 0.01


@pytest.mark.parametrize(("truth", "shape"), [([0, 1], (2, 2)), ([0, 1], (3, 3)), ([], (0, 3))])
def test_arrays_that_do_not_fit_are_refused(truth, shape):
    with pytest.raises(ValueError, match=r"expected|nothing to score"):
        evaluate(np.array(truth, np.int64), np.zeros(shape, np.float32), list("abc"))


def test_an_abstention_scores_one_by_brier_whatever_the_classes():
    probabilities = np.full((3, 4), np.nan, np.float32)
    assert evaluate(np.array([0, 1, 3]), probabilities, list("abcd")).brier == 1.0


def test_macro_f1_by_hand_counts_an_absent_class_as_zero():
    truth = np.array([0, 0, 1, 1, 2])
    predicted = np.array([0, 1, 1, 1, ABSTAINED])  # F1: 2/3, 4/5, 0, and 0 for the class that does not occur
    assert macro_f1(truth, predicted, 4) == pytest.approx((2 / 3 + 4 / 5) / 4)


def test_a_method_fits_that_goes_a_third_of_the_way_from_the_majority_to_all():
    assert is_fitted(0.5, 0.25) and not is_fitted(0.4999, 0.25)
    assert is_fitted(1.0, 1.0) and not is_fitted(0.0, 0.0)
