"""Likelihood, temperature and what confidence tells of unknown classes, against numbers by hand."""

import numpy as np
import pytest

from bench.scores.confidence import confidences, fit_temperature, log_loss, separation, tempered


def test_a_known_temperature_is_found_again():
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 2, (20_000, 4))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (true.cumsum(axis=1) < draw.random((len(true), 1))).sum(axis=1)
    for temperature in (0.5, 1.0, 3.0):
        sharpened = tempered(true, 1 / temperature)  # too sure by this temperature
        assert fit_temperature(truth, sharpened) == pytest.approx(temperature, rel=0.03)
        found = fit_temperature(truth, sharpened)
        assert log_loss(truth, tempered(sharpened, found)) <= log_loss(truth, sharpened) + 1e-9


def test_a_temperature_keeps_the_answers_and_abstentions():
    answers = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [np.nan] * 3], np.float32)
    after = tempered(answers, 2.0)
    assert after[:2].argmax(axis=1).tolist() == [0, 1] and np.isnan(after[2]).all()
    np.testing.assert_allclose(after[:2].sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(after[0], np.sqrt([0.7, 0.2, 0.1]) / np.sqrt([0.7, 0.2, 0.1]).sum(), rtol=1e-6)
    assert after[1, 0] == pytest.approx(np.sqrt(1e-7), rel=1e-2)  # 0 counts as 1e-7


def test_log_loss_by_hand():
    answers = np.array([[0.5, 0.5], [0.9, 0.1], [np.nan, np.nan], [1.0, 0.0]])
    assert log_loss(np.array([0, 0, 1, 0]), answers) == pytest.approx(-(np.log(0.5) + np.log(0.9) + 0) / 3)
    assert log_loss(np.array([0, 0, 1, 1]), answers) == pytest.approx(-(np.log(0.5) + np.log(0.9) + np.log(1e-7)) / 3)
    assert np.isnan(log_loss(np.array([0]), np.array([[np.nan, np.nan]])))
    with pytest.raises(ValueError, match="without an answer"):
        fit_temperature(np.array([0]), np.array([[np.nan, np.nan]]))


def test_auroc_and_fpr_by_hand():
    """Of 3 x 2 pairs the known sample is surer in 4, as sure in 1."""
    known, unknown = np.array([0.9, 0.7, 0.4]), np.array([0.7, 0.3])
    found = separation((known, np.arange(3)), (unknown, np.arange(3, 5)))
    assert found.auroc == pytest.approx(4.5 / 6)
    assert found.fpr == 0.5  # all three known ones are taken: 0.4 and up, where 0.7 is and 0.3 is not
    twenty = np.linspace(0.41, 0.6, 20)
    assert separation((twenty, np.arange(20)), (np.array([0.415, 0.425]), np.arange(2))).fpr == 0.5  # 19 of 20: 0.42
    assert confidences(np.array([[0.25, 0.75], [np.nan, np.nan]], np.float32)).tolist() == [0.75, 0.0]


def test_auroc_is_scikit_learns_and_its_interval_delongs_where_each_sample_is_a_group():
    from sklearn.metrics import roc_auc_score

    draw = np.random.default_rng(1)
    known, unknown = draw.normal(1, 1, 60).round(1), draw.normal(0, 1, 40).round(1)
    found = separation((known, np.arange(60)), (unknown, np.arange(60, 100)))
    assert found.auroc == pytest.approx(roc_auc_score([1] * 60 + [0] * 40, np.concatenate((known, unknown))))
    pairs = (known[:, None] > unknown) + 0.5 * (known[:, None] == unknown)
    delong = pairs.mean(axis=1).var(ddof=1) / 60 + pairs.mean(axis=0).var(ddof=1) / 40
    from scipy.stats import t

    assert found.high - found.auroc == pytest.approx(t.ppf(0.975, 39) * np.sqrt(delong))
    assert found.low == pytest.approx(2 * found.auroc - found.high)


def test_groups_of_equal_samples_make_the_interval_wider_and_a_single_one_tells_nothing():
    draw = np.random.default_rng(2)
    known, unknown = draw.normal(1, 1, 20), draw.normal(0, 1, 20)
    alone = separation((known, np.arange(20)), (unknown, np.arange(20, 40)))
    repeated = separation((known.repeat(5), np.arange(20).repeat(5)), (unknown.repeat(5), np.arange(20, 40).repeat(5)))
    assert (repeated.auroc, repeated.low) == (pytest.approx(alone.auroc), pytest.approx(alone.low))
    single = separation((known, np.arange(20)), (unknown, np.zeros(20, int)))
    assert (single.low, single.high) == (0.0, 1.0)
    with pytest.raises(ValueError, match="both sides"):
        separation((known, np.arange(20)), (unknown[:0], np.zeros(0, int)))
