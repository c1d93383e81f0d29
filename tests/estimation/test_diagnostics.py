"""Healthy chains pass, sick ones are told what to do; levels are those of the tests' names."""

from __future__ import annotations

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
    """300 repeats without drift: at most 10 % fall below 0.05, and 3 % below 0.01."""
    p = np.array([diagnostics.drift(autoregressive(8, 60, rho, seed))[1] for seed in range(300)])
    assert (p < 0.05).mean() < 0.10
    assert (p < 0.01).mean() < 0.03


def test_a_drift_is_found_and_measured() -> None:
    """A ramp from 0 to 4 standard deviations: the halves differ by 2."""
    chains = autoregressive(8, 60, 0.0, 1) + np.linspace(0, 4, 60)
    change, p = diagnostics.drift(chains)
    assert change == pytest.approx(2.0, abs=0.4)
    assert p < 1e-6


def test_effective_draws_are_those_of_the_autoregression() -> None:
    """AR(1): N·(1 − ρ)/(1 + ρ)."""
    chains = autoregressive(4, 20_000, 0.8, 2)
    assert diagnostics.ess(chains) == pytest.approx(80_000 * 0.2 / 1.8, rel=0.1)


def test_relaxation_is_the_time_constant() -> None:
    steps = np.arange(200)
    rising = 2 - np.exp(-steps / 25) + np.random.default_rng(0).normal(0, 0.01, 200)
    assert diagnostics.relaxation(rising) == pytest.approx(25, rel=0.05)


def advise(
    loss: Array, burn_in: int, interval: tuple[float, float] = (1.0, 2.0), escaped: float = 0.0
) -> list[str]:
    alive, limits = (
        loss[np.isfinite(loss).all(axis=1)],
        {"rhat_limit": 1.05, "drift_level": 0.01, "local_limit": 0.25},
    )
    return diagnostics.advise(loss, burn_in, alive[:, burn_in:], interval, escaped, **limits)


def test_healthy_chains_get_no_advice() -> None:
    assert advise(autoregressive(8, 240, 0.3, 3), 40) == []


def test_chains_that_near_guessing_are_told() -> None:
    """Of 100 tokens guessing has ln 100 = 4.6 nats: from 1 at w* to 2.8 is half of the way, burn-in
    left out, chains that failed too.
    """
    loss = np.array([[1.0, 2.0, 2.8, 2.8], [1.0, 2.0, 9.9, np.nan]])
    escaped = diagnostics.escape(loss, 2, 1.0, np.log(100))
    assert escaped == pytest.approx(1.8 / (np.log(100) - 1))
    chains = autoregressive(8, 240, 0.3, 3)
    assert advise(chains, 40, escaped=escaped)[0].startswith(
        "not local: the loss rises by 50% of the way to guessing"
    )
    assert advise(chains, 40, escaped=0.2) == []


def test_a_slow_rise_is_told_how_much_burn_in_it_needs() -> None:
    """Time constant 24 steps, burn-in 20: five time constants are 120."""
    loss = 30 * (1 - np.exp(-np.arange(260) / 24)) + autoregressive(8, 260, 0.0, 4)
    told = next(line for line in advise(loss, 20) if "drifting" in line)
    assert told in (
        f"still drifting at the end: raise burn-in to about {n}" for n in (110, 120, 130)
    )


def test_failed_chains_disagreement_and_lost_signal_are_told() -> None:
    healthy = autoregressive(4, 240, 0.3, 5)
    failed = healthy.copy()
    failed[1, 50:] = np.nan
    assert "1 of 4 chains left the finite" in advise(failed, 40)[0]
    assert advise(np.full((2, 50), np.nan), 10)[0].startswith("2 of 2 chains left the finite")
    assert any("disagree" in line for line in advise(healthy + np.arange(4)[:, None], 40))
    assert any("effective draws" in line for line in advise(autoregressive(2, 60, 0.9, 6), 10))
    assert "below zero" in advise(healthy, 40, (-3.0, -1.0))[-1]
    assert "lost in the noise" in advise(healthy, 40, (-1.0, 1.0))[-1]
