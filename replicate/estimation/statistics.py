"""Effects with intervals and tests over a few shuffles of the data. Pure.

Shuffles (groups) are the blocks: the models of a family see the same ones, so that every contrast
is taken within a shuffle and then averaged. With three to eight shuffles intervals are Student's: a
percentile bootstrap of three values covers about three quarters of the time where 95 % are
promised. The bootstrap is kept for what is resampled from many (trials of a search) or has no other
interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

MOST = 1000  # shuffles that anybody would run

Array = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Effect:
    """`interval`: None where one value leaves none; `above`, `below`: p of the one-sided tests that
    the effect is so against its null.
    """

    value: float
    interval: Interval | None
    above: float | None
    below: float | None


@dataclass(frozen=True)
class Anova:
    """Two-way analysis of variance without replication: shares of the sum of squares, and F and p
    of the columns (models).
    """

    rows: float
    columns: float
    residual: float
    f: float
    p: float


def mean(values_N: Array, level: float, null: float = 0.0) -> Effect:
    """The mean with its t interval of 1 − `level`, against `null`."""
    value, n = float(np.mean(values_N)), len(values_N)
    if n < 2:
        return Effect(value, None, None, None)
    error = float(np.std(values_N, ddof=1)) / n**0.5
    half = float(stats.t.ppf(1 - level / 2, n - 1)) * error
    below = (
        float(stats.t.cdf((value - null) / error, n - 1))
        if error > 0
        else 0.5 * (1 + float(np.sign(value - null)))
    )
    return Effect(value, (value - half, value + half), 1 - below, below)


def needed(values_N: Array, level: float, null: float = 0.0) -> int | None:
    """How many shuffles of this mean and spread put the t interval on one side of `null`; None
    where that is more than `MOST`.
    """
    spread, distance = float(np.std(values_N, ddof=1)), abs(float(np.mean(values_N)) - null)
    n = np.arange(2, MOST + 1)
    enough = n[stats.t.ppf(1 - level / 2, n - 1) * spread / np.sqrt(n) < distance]
    return int(enough[0]) if len(enough) else None


def page(values_BxK: Array) -> float:
    """p of Page's test that the columns rise (Page 1963), exact: by SciPy, or for one block over
    all orders of its values.
    """
    if len(values_BxK) > 1:
        return float(stats.page_trend_test(values_BxK, method="exact").pvalue)
    ranks = stats.rankdata(values_BxK[0])
    weights = np.arange(1, len(ranks) + 1)
    orders = np.array(list(permutations(weights))) @ weights
    return float(np.mean(orders >= ranks @ weights))


def slopes(values_GxK: Array, x_K: Array) -> Array:
    """Least-squares slope on x of each row."""
    centred = x_K - x_K.mean()
    return (values_GxK - values_GxK.mean(1, keepdims=True)) @ centred / (centred @ centred)


def curvatures(values_GxK: Array, x_K: Array) -> Array:
    """Second difference over a unit step of x of each row: twice the quadratic coefficient of the
    least-squares parabola.
    """
    contrast_K = 2 * np.linalg.pinv(np.vander(x_K - x_K.mean(), 3))[0]
    return (values_GxK - values_GxK.mean(1, keepdims=True)) @ contrast_K


def rank_correlations(values_GxK: Array, x_K: Array) -> Array:
    """Spearman's correlation with x of each row."""
    ranks_K = stats.rankdata(x_K)
    return np.array(
        [
            np.corrcoef(stats.rankdata(row), ranks_K)[0, 1] if np.ptp(row) > 0 else 0.0
            for row in values_GxK
        ]
    )


def bootstrap(values_N: Array, level: float, resamples: int, seed: int) -> Interval:
    """Percentile interval of the mean."""
    generator = np.random.default_rng(seed)
    means = values_N[generator.integers(len(values_N), size=(resamples, len(values_N)))].mean(1)
    low, high = np.quantile(means, (level / 2, 1 - level / 2))
    return float(low), float(high)


def superiority(a_N: Array, b_M: Array, level: float, resamples: int, seed: int) -> Effect:
    """P(a > b) + P(a = b)/2 with its percentile bootstrap interval, and the Mann–Whitney tests
    against 1/2.
    """
    n, m = len(a_N), len(b_M)
    wins_NxM = (a_N[:, None] > b_M) + 0.5 * (a_N[:, None] == b_M)
    generator = np.random.default_rng(seed)
    times_RxN, times_RxM = (
        generator.multinomial(k, np.full(k, 1 / k), size=resamples) for k in (n, m)
    )  # how often each is drawn
    drawn_R = (times_RxN @ wins_NxM * times_RxM).sum(1) / (n * m)
    low, high = np.quantile(drawn_R, (level / 2, 1 - level / 2))
    above, below = (
        float(stats.mannwhitneyu(a_N, b_M, alternative=side).pvalue) for side in ("greater", "less")
    )
    return Effect(float(wins_NxM.mean()), (float(low), float(high)), above, below)


def variation(values_N: Array, level: float, null: float) -> Effect:
    """Coefficient of variation (s.d. over |mean|) against `null`; the interval is the χ² interval
    of the s.d. over the same |mean|.
    """
    n, centre = len(values_N), abs(float(np.mean(values_N)))
    if n < 2 or centre == 0:
        return Effect(float("inf") if n > 1 else float("nan"), None, None, None)
    value = float(np.std(values_N, ddof=1)) / centre
    low, high = (
        value * ((n - 1) / float(stats.chi2.ppf(q, n - 1))) ** 0.5
        for q in (1 - level / 2, level / 2)
    )
    below = float(stats.chi2.cdf((n - 1) * (value / null) ** 2, n - 1))
    return Effect(value, (low, high), 1 - below, below)


def components(
    groups_G: Array, within: float, chains: int, draws: float = 0.0
) -> tuple[float, float, float]:
    """Shares of the variance of one chain's λ̂ due to the shuffle, to the chain and to its draws
    (method of moments, none below 0).

    Args:
        groups_G: λ̂ of each shuffle, the mean of `chains` chains. within: variance across the
        chains of a shuffle. draws: the part of `within` that the chains' own draws explain (squared
        Monte-Carlo error of one chain).
    """
    shuffle = max(float(np.var(groups_G, ddof=1)) - within / chains, 0.0)
    parts = np.array([shuffle, max(within - draws, 0.0), min(draws, within)])
    shares = parts / parts.sum() if parts.sum() > 0 else parts
    return float(shares[0]), float(shares[1]), float(shares[2])


def anova(values_GxM: Array) -> Anova:
    """Shuffle × model without replication: F compares the models with the residual, their
    interaction. NaN where nothing varies.
    """
    G, M = values_GxM.shape
    centred = values_GxM - values_GxM.mean()
    rows, columns = M * float((centred.mean(1) ** 2).sum()), G * float((centred.mean(0) ** 2).sum())
    residual = float(((centred - centred.mean(1, keepdims=True) - centred.mean(0)) ** 2).sum())
    total, freedom = rows + columns + residual, (G - 1) * (M - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_rows, of_columns, left = map(float, np.array([rows, columns, residual]) / total)
        f = float(np.float64(columns / (M - 1)) / (residual / freedom))
    return Anova(of_rows, of_columns, left, f, float(stats.f.sf(f, M - 1, freedom)))


def correlations(values_GxM: Array) -> Array:
    """Pearson's correlation of every two models over shuffles (M × M)."""
    return np.atleast_2d(np.corrcoef(values_GxM, rowvar=False))
