"""Computes effects over groups of independent replicates, such as the trainings of each model size.

A one-way layout has N values in K groups. Its error is the variance within the groups, pooled over
all of them, so that a group of three values borrows from the others. If no group has two values,
the Monte-Carlo errors of the values are used, and nothing is said of new replicates.

All functions are pure. `level` is the significance level α, so an interval has confidence 1 − α.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from replicate.estimation.statistics import Effect

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    """Holds the values of a one-way layout. Each group has at least one value.

    Attributes:
        values_N: one value for each replicate, such as ln λ̂.
        group_N: the number of its group, 0 to K − 1.
        errors_N: its Monte-Carlo standard error.
    """

    values_N: Array
    group_N: NDArray[np.int_]
    errors_N: Array

    @property
    def counts_K(self) -> NDArray[np.int_]:  # noqa: N802
        """The number of values in each group."""
        return np.bincount(self.group_N)

    @property
    def means_K(self) -> Array:  # noqa: N802
        """The mean of each group."""
        return np.bincount(self.group_N, self.values_N) / self.counts_K

    @property
    def freedom(self) -> float:
        """The degrees of freedom of the pooled variance, N − K; infinite if no group has two
        values.
        """
        return len(self.values_N) - len(self.counts_K) or math.inf

    @property
    def variances_N(self) -> Array:  # noqa: N802
        """The variance of each value: pooled within the groups, or its Monte-Carlo variance."""
        if math.isinf(self.freedom):
            return self.errors_N**2
        residual_N = self.values_N - self.means_K[self.group_N]
        return np.full(len(residual_N), residual_N @ residual_N / self.freedom)

    @property
    def between(self) -> float:
        """The variance between replicates, net of the Monte-Carlo errors and at least 0; NaN if no
        group has two values.
        """
        if math.isinf(self.freedom):
            return math.nan
        return max(float(self.variances_N[0] - np.mean(self.errors_N**2)), 0.0)

    def contrast(self, weights_N: Array, level: float, null: float = 0.0) -> Effect:
        """Tests Σ wᵢ·yᵢ against `null`, with its t interval."""
        value = float(weights_N @ self.values_N)
        error = float(weights_N**2 @ self.variances_N) ** 0.5
        half = float(stats.t.ppf(1 - level / 2, self.freedom)) * error
        below = 0.5 * (1 + float(np.sign(value - null)))
        if error > 0:
            below = float(stats.t.cdf((value - null) / error, self.freedom))
        return Effect(value, (value - half, value + half), 1 - below, below)

    def mean(self, group: int, level: float) -> Effect:
        """Returns the mean of one group."""
        return self.contrast((self.group_N == group) / self.counts_K[group], level)

    def gap(self, upper: int, lower: int, level: float) -> Effect:
        """Returns the difference of the means of two groups."""
        high_N, low_N = ((self.group_N == k) / self.counts_K[k] for k in (upper, lower))
        return self.contrast(high_N - low_N, level)

    def slope(self, x_N: Array, level: float) -> Effect:
        """Returns the least-squares slope of the values on x, which has two different values."""
        centred_N = x_N - x_N.mean()
        return self.contrast(centred_N / (centred_N @ centred_N), level)

    def curvature(self, x_N: Array, level: float) -> Effect:
        """Returns twice the quadratic coefficient of the least-squares parabola in x, which has
        three different values.
        """
        return self.contrast(2 * np.linalg.pinv(np.vander(x_N - x_N.mean(), 3))[0], level)

    def resample(self, count: int, seed: int) -> tuple[Array, Array]:
        """Draws what the means and the standard deviation of replicates can be.

        The draws have the fiducial distribution of a normal layout with one variance: s²·ν/χ²_ν for
        the variance and, given it, a normal one for each mean. So their quantiles are the t
        intervals of the means and their differences.

        Args:
            count: the number R of draws.
            seed: of the draws.

        Returns:
            The means (R, K), and the standard deviation of one value (R,); the latter is NaN if no
            group has two values.
        """
        generator = np.random.default_rng(seed)
        noise_RxK = generator.normal(size=(count, len(self.counts_K)))
        if math.isinf(self.freedom):
            error_K = np.bincount(self.group_N, self.variances_N) ** 0.5 / self.counts_K
            return self.means_K + noise_RxK * error_K, np.full(count, math.nan)
        chi_R = generator.chisquare(self.freedom, count)
        deviation_R = (self.variances_N[0] * self.freedom / chi_R) ** 0.5
        return self.means_K + noise_RxK * deviation_R[:, None] / self.counts_K**0.5, deviation_R


def nested(values_TxSxC: Array) -> tuple[float, float, float]:
    """Splits the variance of one chain's λ̂ of one training by the method of moments.

    Args:
        values_TxSxC: λ̂ (training, shuffle, chain), at least two of each.

    Returns:
        The shares due to the training, to the shuffle within a training, and to the chain within a
        shuffle; none is below 0.
    """
    shuffles, chains = values_TxSxC.shape[1:]
    chain = float(values_TxSxC.var(2, ddof=1).mean())
    of_shuffles = float(values_TxSxC.mean(2).var(1, ddof=1).mean())
    of_trainings = float(values_TxSxC.mean((1, 2)).var(ddof=1))
    shuffle = max(of_shuffles - chain / chains, 0.0)
    training = max(of_trainings - of_shuffles / shuffles, 0.0)
    total = training + shuffle + chain
    parts = (training, shuffle, chain)
    return parts if total == 0 else (training / total, shuffle / total, chain / total)


def jonckheere(values_N: Array, group_N: NDArray[np.int_]) -> tuple[float, float]:
    """Returns the exact p values of the Jonckheere–Terpstra test for a rise and for a fall of the
    values from group to group (Terpstra 1952, Jonckheere 1954).

    The statistic is the number of pairs from two groups in which the later group has the greater
    value. Ties count against either direction.
    """
    later = group_N[None, :] > group_N[:, None]
    rises, falls = (
        int((later & pairs).sum())
        for pairs in (
            values_N[None, :] > values_N[:, None],
            values_N[None, :] < values_N[:, None],
        )
    )
    probabilities = _null(tuple(np.bincount(group_N).tolist()))
    return float(probabilities[rises:].sum()), float(probabilities[falls:].sum())


@lru_cache
def _null(counts: Sequence[int]) -> Array:
    """Returns the probability of each number of pairs if all orders of the values are equally
    likely. The counts of the orders are the coefficients of Π (1 − qⁱ) for i = 1 … N, divided by
    the same product for the size of each group.
    """
    ways, before = np.ones(1, dtype=object), 0
    for count in counts:
        for i in range(1, count + 1):
            step = before + i
            padded = np.concatenate([ways, np.zeros(step, dtype=object)])
            padded[step:] -= ways  # times 1 − q^step
            for power in range(i, len(padded)):  # divided by 1 − q^i
                padded[power] += padded[power - i]
            ways = padded[: len(padded) - i]
        before += count
    return (ways / sum(ways)).astype(float)
