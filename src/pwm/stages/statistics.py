"""Statistics of scores over tasks and seeds.

Interquartile mean and stratified bootstrap intervals as recommended by Agarwal et al., "Deep
Reinforcement Learning at the Edge of the Statistical Precipice" (NeurIPS 2021, arXiv 2108.13264).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def iqm(values: ArrayLike) -> NDArray[np.float64]:
    """Interquartile mean over the last dimension: the lowest and highest quarter are left out.

    The quarter is rounded down to whole values, so fewer than four values give the plain mean.

    Args:
        values: [..., N], N at least 1.
    """
    ordered = np.sort(np.asarray(values, np.float64), axis=-1)
    count = ordered.shape[-1]
    cut = count // 4
    return ordered[..., cut : count - cut].mean(axis=-1)


def resampled(strata: Sequence[ArrayLike], resamples: int, seed: int) -> list[NDArray[np.float64]]:
    """Draw each stratum again, with replacement, ``resamples`` times.

    Args:
        strata: one array [n_k] for each stratum (for example the seeds of one task).

    Returns:
        One array [resamples, n_k] for each stratum.
    """
    generator = np.random.default_rng(seed)
    drawn = []
    for stratum in strata:
        values = np.asarray(stratum, np.float64)
        drawn.append(values[generator.integers(len(values), size=(resamples, len(values)))])
    return drawn


def stratified_bootstrap(
    scores: Sequence[ArrayLike],
    statistic: Statistic = iqm,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of ``statistic`` over all values, runs drawn again within each task.

    Args:
        scores: one array [runs] for each task; tasks may have different numbers of runs.
        statistic: of the values of all tasks together, [..., N] -> [...].
        resamples: number of bootstrap draws.
        seed: of ``np.random.default_rng``; equal seeds give equal intervals.
        confidence: share of the draws that the interval holds.
    """
    values = statistic(np.concatenate(resampled(scores, resamples, seed), axis=-1))
    return percentile_interval(values, confidence)


def percentile_interval(
    values: NDArray[np.float64], confidence: float = 0.95
) -> tuple[float, float]:
    """The middle ``confidence`` of bootstrap values [resamples]."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
