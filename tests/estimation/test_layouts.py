"""Effects over trainings agree with SciPy, with enumeration and with their promised levels."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from replicate.estimation.layouts import Layout, jonckheere, nested

LEVEL = 0.05


def layout(counts: tuple[int, ...], values: np.ndarray, error: float = 0.01) -> Layout:
    group_N = np.repeat(np.arange(len(counts)), counts)
    return Layout(values, group_N, np.full(len(values), error))


def drawn(seed: int, counts: tuple[int, ...]) -> Layout:
    return layout(counts, np.random.default_rng(seed).normal(size=sum(counts)))


@pytest.mark.parametrize("counts", [(2, 2, 3), (1, 2, 1, 2), (3, 4), (1, 1, 1, 1)])
def test_the_p_values_of_order_are_those_of_all_orders(counts: tuple[int, ...]) -> None:
    group_N = np.repeat(np.arange(len(counts)), counts)
    later = group_N[None, :] > group_N[:, None]
    values_N = np.random.default_rng(1).permutation(len(group_N)).astype(float)

    def pairs(each_N: np.ndarray) -> int:
        return int((later & (each_N[None, :] > each_N[:, None])).sum())

    every = np.array([pairs(np.array(order)) for order in permutations(range(len(group_N)))])
    rises, falls = jonckheere(values_N, group_N)
    assert rises == pytest.approx(np.mean(every >= pairs(values_N)))
    assert falls == pytest.approx(np.mean(every <= pairs(values_N)))


def test_the_order_of_two_groups_is_tested_as_by_mann_and_whitney() -> None:
    found = drawn(2, (6, 5))
    first, second = (found.values_N[found.group_N == k] for k in (0, 1))
    for p, side in zip(jonckheere(found.values_N, found.group_N), ("greater", "less"), strict=True):
        exact = stats.mannwhitneyu(second, first, alternative=side, method="exact")
        assert p == pytest.approx(exact.pvalue)


def test_ties_speak_for_neither_direction() -> None:
    assert jonckheere(np.zeros(6), np.repeat([0, 1, 2], 2)) == pytest.approx((1.0, 1.0))


def test_the_gap_of_two_groups_is_students() -> None:
    found = drawn(3, (5, 3))
    first, second = (found.values_N[found.group_N == k] for k in (0, 1))
    known = stats.ttest_ind(second, first, alternative="greater")
    gap = found.gap(1, 0, LEVEL)
    assert gap.above == pytest.approx(known[1])
    both = stats.ttest_ind(second, first).confidence_interval(1 - LEVEL)
    assert gap.interval == pytest.approx((both.low, both.high))


def test_the_slope_of_two_groups_is_their_gap() -> None:
    found = drawn(4, (5, 3))
    slope = found.slope(2 * found.group_N.astype(float), LEVEL)
    assert slope.value == pytest.approx(found.gap(1, 0, LEVEL).value / 2)
    assert slope.above == pytest.approx(found.gap(1, 0, LEVEL).above)


def test_lack_of_fit_is_no_error() -> None:
    """The error is that of the trainings, whatever the law: here they agree to the last digit."""
    found = layout((2, 2, 2), np.repeat([0.0, 5.0, 1.0], 2))
    assert found.slope(found.group_N.astype(float), LEVEL).interval == pytest.approx((0.5, 0.5))
    assert found.curvature(found.group_N.astype(float), LEVEL).value == pytest.approx(-9.0)


def test_single_values_have_their_monte_carlo_errors() -> None:
    found = layout((1, 1), np.array([1.0, 2.0]), error=0.3)
    half = stats.norm.ppf(0.975) * 0.3 * 2**0.5
    assert found.gap(1, 0, LEVEL).interval == pytest.approx((1 - half, 1 + half))
    means_RxK, deviation_R = found.resample(20_000, 0)
    assert means_RxK.std(0) == pytest.approx([0.3, 0.3], rel=0.03)
    assert np.isnan(deviation_R).all()
    assert np.isnan(found.between)


def test_draws_have_the_t_interval_of_every_gap() -> None:
    found = drawn(5, (3, 2, 2))
    means_RxK, _ = found.resample(200_000, 0)
    low, high = np.quantile(means_RxK[:, 2] - means_RxK[:, 0], (LEVEL / 2, 1 - LEVEL / 2))
    assert (low, high) == pytest.approx(found.gap(2, 0, LEVEL).interval, abs=0.05)


def test_the_variance_between_trainings_is_net_of_their_monte_carlo_errors() -> None:
    generator = np.random.default_rng(6)
    values_N = generator.normal(size=4000) * 0.3 + generator.normal(size=4000) * 0.4
    found = layout((2000, 2000), values_N, error=0.4)
    assert found.between == pytest.approx(0.09, rel=0.1)


def test_nested_components_are_those_that_were_drawn() -> None:
    generator = np.random.default_rng(7)
    shapes = ((400, 1, 1), (400, 8, 1), (400, 8, 4))
    parts = (generator.normal(size=shape) for shape in shapes)
    values_TxSxC = sum(scale * part for scale, part in zip((3.0, 2.0, 1.0), parts, strict=True))
    assert nested(np.asarray(values_TxSxC)) == pytest.approx((9 / 14, 4 / 14, 1 / 14), abs=0.05)
    assert nested(np.ones((2, 2, 2))) == (0.0, 0.0, 0.0)
