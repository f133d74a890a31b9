"""Interquartile mean and bootstrap intervals against cases worked by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pwm.stages.statistics import iqm, resampled, stratified_bootstrap


def test_iqm_by_hand():
    assert iqm([8, 1, 7, 2, 6, 3, 5, 4]) == pytest.approx((3 + 4 + 5 + 6) / 4)
    assert iqm([1, 2, 3, 4, 5, 6, 90]) == pytest.approx((2 + 3 + 4 + 5 + 6) / 5)  # 7 / 4 -> 1
    assert iqm([0, 10, 20, 30, 1000]) == pytest.approx(20.0)  # one value cut at each end
    assert iqm([1, 2, 6]) == pytest.approx(3.0)  # too few to cut
    assert iqm([5]) == 5.0
    np.testing.assert_allclose(iqm([[1, 2, 3, 100], [4, 3, 2, -50]]), [2.5, 2.5])


def test_bootstrap_converges_to_all_equally_likely_resamples():
    """Two tasks of two seeds: 16 resamples, all enumerated."""
    strata = [[0.0, 1.0], [10.0, 14.0]]
    exact = [
        iqm(first + second)
        for first in itertools.product(strata[0], repeat=2)
        for second in itertools.product(strata[1], repeat=2)
    ]
    drawn = iqm(np.concatenate(resampled(strata, 40_000, 0), axis=-1))
    values, counts = np.unique(np.round(drawn, 9), return_counts=True)
    expected, expected_counts = np.unique(np.round(exact, 9), return_counts=True)
    np.testing.assert_allclose(values, expected)
    np.testing.assert_allclose(counts / 40_000, expected_counts / 16, atol=0.01)
    low, high = stratified_bootstrap(strata, resamples=40_000)
    assert (low, high) == (min(exact), max(exact))


def test_confidence_by_hand():
    """Mean of two runs with values 0 and 1: 0, 1/2 and 1 with weights 1/4, 1/2 and 1/4."""
    mean = lambda values: values.mean(axis=-1)  # noqa: E731
    wide = stratified_bootstrap([[0.0, 1.0]], mean, resamples=10_000)
    narrow = stratified_bootstrap([[0.0, 1.0]], mean, resamples=10_000, confidence=0.4)
    assert wide == (0.0, 1.0) and narrow == (0.5, 0.5)


def test_strata_are_kept_apart():
    """Every resample holds each task as often as the data do."""
    first, second = resampled([[1.0, 2.0, 3.0], [100.0]], 500, 1)
    assert first.shape == (500, 3) and second.shape == (500, 1)
    assert set(np.unique(first)) == {1.0, 2.0, 3.0} and (second == 100).all()


def test_interval_holds_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    mean = lambda values: values.mean(axis=-1)  # noqa: E731
    hits = 0
    for trial in range(200):
        sample = generator.normal(5.0, 2.0, 40)
        low, high = stratified_bootstrap([sample], mean, resamples=400, seed=trial)
        hits += low <= 5.0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_seeded():
    strata = [np.arange(7.0), np.arange(5.0) ** 2]
    assert stratified_bootstrap(strata, seed=3) == stratified_bootstrap(strata, seed=3)
    assert stratified_bootstrap(strata, seed=3) != stratified_bootstrap(strata, seed=4)
