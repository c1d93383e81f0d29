"""Healthy chains pass, and sick ones come with advice; levels are those of the tests' names."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter

from replicate.estimation import diagnostics

Array = NDArray[np.float64]


def autoregressive(chains: int, draws: int, rho: float, seed: int) -> Array:
    """Stationary AR(1) chains of mean 0."""
    noise = np.random.default_rng(seed).normal(size=(chains, draws + 200))
    return np.asarray(lfilter([1.0], [1.0, -rho], noise, axis=1))[:, 200:]


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_the_drift_test_keeps_its_level(rho: float) -> None:
    """Of 300 repeats without drift, at most 10 % fall below 0.05, and 3 % below 0.01."""
    p = np.array([diagnostics.drift(autoregressive(8, 60, rho, seed))[1] for seed in range(300)])
    assert (p < 0.05).mean() < 0.10
    assert (p < 0.01).mean() < 0.03


def test_a_drift_is_found_and_measured() -> None:
    """A ramp from 0 to 4 standard deviations makes the halves differ by 2."""
    change, p = diagnostics.drift(autoregressive(8, 60, 0.0, 1) + np.linspace(0, 4, 60))
    assert change == pytest.approx(2.0, abs=0.4)
    assert p < 1e-6


def test_effective_draws_are_those_of_the_autoregression() -> None:
    """AR(1): N·(1 − ρ)/(1 + ρ)."""
    chains = autoregressive(4, 20_000, 0.8, 2)
    assert diagnostics.ess(chains) == pytest.approx(80_000 * 0.2 / 1.8, rel=0.1)


def test_relaxation_is_the_time_constant() -> None:
    rising = 2 - np.exp(-np.arange(200) / 25) + np.random.default_rng(0).normal(0, 0.01, 200)
    assert diagnostics.relaxation(rising) == pytest.approx(25, rel=0.05)


def test_escape_is_the_share_of_the_way_to_guessing() -> None:
    """Of 100 tokens guessing has ln 100 = 4.6 nats. Burn-in and diverged chains do not count."""
    loss = np.array([[1.0, 2.0, 2.8, 2.8], [1.0, 2.0, 9.9, np.nan]])
    escaped = diagnostics.escape(loss, 2, 1.0, np.log(100))
    assert escaped == pytest.approx(1.8 / (np.log(100) - 1))


HEALTHY = autoregressive(8, 240, 0.3, 3)
BROKEN = np.where((np.arange(8)[:, None] == 1) & (np.arange(240) >= 50), np.nan, HEALTHY)
SLOW = 30 * (1 - np.exp(-np.arange(260) / 24)) + autoregressive(8, 260, 0.0, 4)


@pytest.mark.parametrize(
    ("loss", "interval", "escaped", "advice"),
    [
        (HEALTHY, (1.0, 2.0), 0.2, "^$"),
        (HEALTHY, (1.0, 2.0), 0.5, "not local: the loss rises by 50% of the way to guessing"),
        (HEALTHY, (-3.0, -1.0), 0.0, "below zero"),
        (HEALTHY, (-1.0, 1.0), 0.0, "holds zero"),
        (BROKEN, (1.0, 2.0), 0.0, "1 of 8 chains diverged"),
        (np.full((2, 50), np.nan), (1.0, 2.0), np.nan, "2 of 2 chains diverged"),
        (HEALTHY + np.arange(8)[:, None], (1.0, 2.0), 0.0, "the chains disagree"),
        (
            autoregressive(2, 90, 0.9, 6),
            (1.0, 2.0),
            0.0,
            r"effective draws: draw about \d+0 a chain instead of 50",
        ),
        # five time constants of 24 steps are 120
        (SLOW, (1.0, 2.0), 0.0, "raise burn-in to about 1[123]0"),
    ],
)
def test_each_problem_has_its_advice(
    loss: Array, interval: tuple[float, float], escaped: float, advice: str
) -> None:
    alive = loss[np.isfinite(loss).all(axis=1), 40:]
    limits: dict[str, Any] = {"rhat_limit": 1.05, "drift_level": 0.01, "local_limit": 0.25}
    found = diagnostics.advise(loss, 40, alive, interval, escaped, **limits)
    assert re.search(advice, "\n".join(found))
