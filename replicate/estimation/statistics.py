"""Computes effects with intervals and tests over a few shuffles of the data.

Shuffles are blocks in the statistical sense: all models of a family use the same shuffles, so each
difference is computed within a shuffle and then averaged. Intervals over three to eight shuffles
are Student's t intervals, because a nominal 95 % percentile bootstrap of three values covers the
truth only about 75 % of the time. The bootstrap is used for quantities that have many values
(trials of a search) or no other interval.

All functions are pure. `level` is the significance level α, so an interval has confidence 1 − α.
Axes: S shuffles, M models (in `superiority`, M values), K levels of x, B blocks, N values.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

EXACT = 8  # the largest number of columns of which `page` looks at all orders
MOST = 1000  # the largest number of shuffles that `needed` considers

Array = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Effect:
    """Holds an effect, its interval, and its one-sided tests.

    Attributes:
        value: the estimate of the effect.
        interval: its interval; None if it is unknown, as with only one value.
        above: the p value of the one-sided test for an effect above its null value, or None.
        below: the p value of the one-sided test for an effect below it, or None.
    """

    value: float
    interval: Interval | None
    above: float | None
    below: float | None


@dataclass(frozen=True)
class Anova:
    """Holds a two-way analysis of variance without replication.

    Attributes:
        rows: the share of the sum of squares due to the rows (shuffles).
        columns: the share due to the columns (models).
        residual: the share due to neither.
        f: the F statistic of the columns against the residual.
        p: the p value of F.
    """

    rows: float
    columns: float
    residual: float
    f: float
    p: float


def mean(values_N: Array, level: float, null: float = 0.0) -> Effect:
    """Tests the mean of N values against `null`; the t interval has confidence 1 − `level`."""
    value, n = float(np.mean(values_N)), len(values_N)
    if n < 2:
        return Effect(value, None, None, None)
    error = float(np.std(values_N, ddof=1)) / n**0.5
    half = float(stats.t.ppf(1 - level / 2, n - 1)) * error
    below = 0.5 * (1 + float(np.sign(value - null)))
    if error > 0:
        below = float(stats.t.cdf((value - null) / error, n - 1))
    return Effect(value, (value - half, value + half), 1 - below, below)


def needed(values_N: Array, level: float, null: float = 0.0) -> int | None:
    """Returns how many shuffles are needed so that the t interval does not contain `null`.

    The shuffles are assumed to have the mean and the standard deviation of `values_N`. The number
    is None if more than `MOST` would be needed.
    """
    spread, distance = float(np.std(values_N, ddof=1)), abs(float(np.mean(values_N)) - null)
    n = np.arange(2, MOST + 1)
    enough = n[stats.t.ppf(1 - level / 2, n - 1) * spread / np.sqrt(n) < distance]
    return int(enough[0]) if len(enough) else None


def page(values_BxK: Array) -> float:
    """Returns the p value of Page's test for a rise of the values from column to column.

    Each row is a block (Page 1963). The value is exact up to `EXACT` columns and asymptotic beyond,
    where the exact one takes too much memory. SciPy does not accept a single block; for one block,
    all orders of the columns are enumerated, and beyond `EXACT` it is Spearman's test.
    """
    blocks, columns = values_BxK.shape
    if blocks > 1:
        method = "exact" if columns <= EXACT else "asymptotic"
        return float(stats.page_trend_test(values_BxK, method=method).pvalue)
    if columns > EXACT:
        rising = np.arange(columns)
        _, p = stats.spearmanr(rising, values_BxK[0], alternative="greater")
        return float(p)  # pyright: ignore[reportArgumentType]
    ranks = stats.rankdata(values_BxK[0])
    weights = np.arange(1, len(ranks) + 1)
    orders = np.array(list(permutations(weights))) @ weights
    return float(np.mean(orders >= ranks @ weights))


def slopes(values_SxK: Array, x_K: Array) -> Array:
    """Returns the least-squares slope on x of each row (S,)."""
    centred = x_K - x_K.mean()
    return (values_SxK - values_SxK.mean(1, keepdims=True)) @ centred / (centred @ centred)


def curvatures(values_SxK: Array, x_K: Array) -> Array:
    """Returns twice the quadratic coefficient of each row's least-squares parabola in x (S,)."""
    contrast_K = 2 * np.linalg.pinv(np.vander(x_K - x_K.mean(), 3))[0]
    return (values_SxK - values_SxK.mean(1, keepdims=True)) @ contrast_K


def rank_correlations(values_SxK: Array, x_K: Array) -> Array:
    """Returns Spearman's correlation of each row with x (S,); 0 for a row that does not vary."""
    ranks_K = stats.rankdata(x_K)
    return np.array(
        [
            np.corrcoef(stats.rankdata(row), ranks_K)[0, 1] if np.ptp(row) > 0 else 0.0
            for row in values_SxK
        ]
    )


def bootstrap(values_N: Array, level: float, resamples: int, seed: int) -> Interval:
    """Returns the percentile bootstrap interval of the mean, with confidence 1 − `level`."""
    generator = np.random.default_rng(seed)
    means = values_N[generator.integers(len(values_N), size=(resamples, len(values_N)))].mean(1)
    low, high = np.quantile(means, (level / 2, 1 - level / 2))
    return float(low), float(high)


def superiority(a_N: Array, b_M: Array, level: float, resamples: int, seed: int) -> Effect:
    """Returns P(a > b) + P(a = b)/2 with its percentile bootstrap interval.

    a and b are random values of `a_N` and `b_M`. The tests are Mann–Whitney tests against 1/2.
    """
    n, m = len(a_N), len(b_M)
    wins_NxM = (a_N[:, None] > b_M) + 0.5 * (a_N[:, None] == b_M)
    generator = np.random.default_rng(seed)
    times_RxN, times_RxM = (  # how often each value is drawn
        generator.multinomial(k, np.full(k, 1 / k), size=resamples) for k in (n, m)
    )
    drawn_R = (times_RxN @ wins_NxM * times_RxM).sum(1) / (n * m)
    low, high = np.quantile(drawn_R, (level / 2, 1 - level / 2))
    above, below = (
        float(stats.mannwhitneyu(a_N, b_M, alternative=side).pvalue) for side in ("greater", "less")
    )
    return Effect(float(wins_NxM.mean()), (float(low), float(high)), above, below)


def variation(values_N: Array, level: float, null: float) -> Effect:
    """Tests the coefficient of variation (standard deviation/|mean|) against `null`.

    The interval is the χ² interval of the standard deviation, divided by the same |mean|.
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
    shuffles_S: Array, within: float, chains: int, draws: float = 0.0
) -> tuple[float, float, float]:
    """Splits the variance of one chain's λ̂ by the method of moments; no share is below 0.

    Args:
        shuffles_S: λ̂ of each shuffle, the mean of `chains` chains.
        within: the variance across the chains of a shuffle.
        chains: the number of chains of a shuffle.
        draws: the part of `within` that the chains' own draws explain (the squared Monte-Carlo
            error of one chain).

    Returns:
        The shares due to the shuffle, to the chain and to its draws.
    """
    shuffle = max(float(np.var(shuffles_S, ddof=1)) - within / chains, 0.0)
    parts = np.array([shuffle, max(within - draws, 0.0), min(draws, within)])
    shares = parts / parts.sum() if parts.sum() > 0 else parts
    return float(shares[0]), float(shares[1]), float(shares[2])


def anova(values_SxM: Array) -> Anova:
    """Analyses the variance of shuffle × model without replication; NaN if nothing varies.

    F compares the models with the residual, which is the interaction of shuffle and model.
    """
    S, M = values_SxM.shape
    centred = values_SxM - values_SxM.mean()
    rows, columns = M * float((centred.mean(1) ** 2).sum()), S * float((centred.mean(0) ** 2).sum())
    residual = float(((centred - centred.mean(1, keepdims=True) - centred.mean(0)) ** 2).sum())
    total, freedom = rows + columns + residual, (S - 1) * (M - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_rows, of_columns, left = map(float, np.array([rows, columns, residual]) / total)
        f = float(np.float64(columns / (M - 1)) / (residual / freedom))
    return Anova(of_rows, of_columns, left, f, float(stats.f.sf(f, M - 1, freedom)))


def correlations(values_SxM: Array) -> Array:
    """Returns Pearson's correlation of each pair of models over the shuffles (M, M)."""
    return np.atleast_2d(np.corrcoef(values_SxM, rowvar=False))
