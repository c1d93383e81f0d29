"""Statistics over few shuffles agree with a closed form, with SciPy, or with counting."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from replicate.estimation import statistics


def test_the_number_of_shuffles_that_is_needed_suffices_and_one_fewer_does_not() -> None:
    values = np.array([3.0, -1.0, 2.0, 0.5])
    count = statistics.needed(values, 0.05)
    assert count is not None
    n = np.array([count, count - 1])
    enough, short = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)
    assert enough < values.mean() < short


def test_superiority_counts_pairs() -> None:
    a, b = np.array([1.0, 2.0, 2.0, 5.0]), np.array([2.0, 0.0, 4.0])
    counted = np.mean([(x > y) + 0.5 * (x == y) for x in a for y in b])
    assert statistics.superiority(a, b, 0.05, 10, 1).value == pytest.approx(counted)


def test_pages_test_of_one_block_is_the_share_of_orders_that_rise_as_much() -> None:
    row = np.array([2.0, 1.0, 4.0, 3.0])
    rises = np.array([np.dot(order, np.arange(4)) for order in permutations(range(4))])
    expected = np.mean(rises >= np.dot(row - 1, np.arange(4)))
    assert statistics.page(row[None]) == pytest.approx(expected)


def test_the_interval_of_a_variation_misses_as_often_on_either_side() -> None:
    generator = np.random.default_rng(5)
    samples = (100 + generator.normal(size=4) for _ in range(1500))
    found = [statistics.variation(sample, 0.05, 0.25).interval for sample in samples]
    low, high = np.array([interval for interval in found if interval]).T
    assert 0.014 < np.mean(low > 0.01) < 0.036
    assert 0.014 < np.mean(high < 0.01) < 0.036


def test_components_of_variance_are_found() -> None:
    """Variance 4 of shuffles, 2 of chains, and 1 of the draws of a chain's mean."""
    generator = np.random.default_rng(3)
    shuffles_S, chains_SxC = (generator.normal(size=(4000, n)) for n in (1, 5))
    llc_SxC = 2 * shuffles_S + np.sqrt(2 + 1) * chains_SxC
    within = float(llc_SxC.var(1, ddof=1).mean())
    shares = statistics.components(llc_SxC.mean(1), within, 5, draws=1.0)
    assert shares == pytest.approx((4 / 7, 2 / 7, 1 / 7), abs=0.03)


@pytest.mark.parametrize("shape", [(4, 4), (3, 2), (7, 5)])
def test_analysis_of_variance_is_that_of_nested_linear_models(shape: tuple[int, int]) -> None:
    """Residual sums of squares of least-squares fits with dummy variables give the same."""
    values = np.random.default_rng(sum(shape)).normal(size=shape) + np.arange(shape[1])
    row, column = (index.ravel() for index in np.indices(shape))

    def residual(*columns: np.ndarray) -> float:
        design = np.column_stack([np.ones(values.size), *columns])
        return float(np.linalg.lstsq(design, values.ravel(), rcond=None)[1][0])

    rows, columns = np.eye(shape[0])[row][:, 1:], np.eye(shape[1])[column][:, 1:]
    total, of_rows, of_both = residual(), residual(rows), residual(rows, columns)
    freedom = (shape[0] - 1) * (shape[1] - 1)
    f = (of_rows - of_both) / (shape[1] - 1) / (of_both / freedom)
    found = statistics.anova(values)
    assert [found.rows, found.columns, found.residual] == pytest.approx(
        [1 - of_rows / total, (of_rows - of_both) / total, of_both / total]
    )
    assert [found.f, found.p] == pytest.approx([f, stats.f.sf(f, shape[1] - 1, freedom)])
