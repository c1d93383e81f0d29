"""Coverage is counted exactly, and the runs of a language model are independent."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from replicate.progress import silent
from replicate.validation import coverage
from replicate.validation.coverage import Problem, Setting

MODEL = "language model", "m", "s"


def test_coverage_counts_hits_with_an_exact_interval() -> None:
    """Clopper and Pearson (1934) by quantiles of the beta distribution."""
    found = coverage.covered(*MODEL, (2.0, 0.1), [(1.0, 3.0)] * 19 + [(2.1, 3.0)])
    assert (found.covered, found.repeats, found.share) == (19, 20, 0.95)
    exact = stats.beta.ppf(0.025, 19, 2), stats.beta.ppf(0.975, 20, 1)
    assert found.interval == pytest.approx(exact)


def test_the_reference_has_the_error_of_independent_runs() -> None:
    long = [np.full((4, 10), value, np.float32) for value in (1.0, 2.0, 6.0)]
    assert coverage.mean(long) == pytest.approx((3.0, np.sqrt(7 / 3)))


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem("last", 2023)


def test_a_run_is_its_seed_and_no_other(problem: Problem) -> None:
    setting = Setting("last", 30, 5000, 1e-4, draws=3)
    first, again, other = (problem.run(setting, seed, silent) for seed in (1, 1, 2))
    assert first.shape == (coverage.CHAINS, 3)
    assert np.array_equal(first, again)
    assert not np.isclose(first, other).any()


def test_a_run_with_the_stopping_rule_ends_when_it_is_precise(problem: Problem) -> None:
    setting = Setting("last", 30, 5000, 1e-4, draws=40, precision=0.5)
    found = problem.run(setting, 3, silent)
    low, high = coverage.interval(found, setting)
    assert (high - low) / 2 <= 0.5 * found.mean()
    assert found.shape[1] % 40 == 0
