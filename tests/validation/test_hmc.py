"""Hamiltonian Monte Carlo has the exact λ̂, at any step that it accepts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from replicate.validation import hmc

NBETA, GAMMA = 20.0, 5.0


@pytest.mark.parametrize("step", [0.05, 0.15])
def test_the_llc_of_a_quadratic_is_exact(step: float) -> None:
    """λ̂ = ½·Σ nβ·hᵢ/(nβ·hᵢ + γ). A leapfrog that always accepted would be biased by the step."""
    h = torch.tensor([0.5, 1.0, 2.0, 4.0] * 4, dtype=torch.float64)
    centre = torch.full_like(h, 0.7)
    drawn = hmc.run(
        lambda w: 0.5 * (h * (w - 0.7) ** 2).sum() + 1.3,
        centre,
        nbeta=NBETA,
        localization=GAMMA,
        step=step,
        leaps=5,
        draws=1500,
        burn_in=50,
        seed=0,
    )
    exact = float(0.5 * (NBETA * h / (NBETA * h + GAMMA)).sum())
    assert drawn.excess.mean() == pytest.approx(exact, rel=0.04)
    # in equilibrium U of a quadratic has the variance ½·Σ (nβ·hᵢ/aᵢ)²
    spread = float(0.5 * ((NBETA * h / (NBETA * h + GAMMA)) ** 2).sum())
    assert drawn.excess.var() == pytest.approx(spread, rel=0.2)
    assert 0.5 < drawn.accepted < 1


def test_the_llc_of_a_quartic_is_that_of_the_integral() -> None:
    def weight(w: float) -> float:
        return np.exp(-NBETA * w**4 - GAMMA / 2 * w**2)

    exact = NBETA * quad(lambda w: w**4 * weight(w), -3, 3)[0] / quad(weight, -3, 3)[0]
    drawn = hmc.run(
        lambda w: (w**4).sum(),
        torch.zeros(16, dtype=torch.float64),
        nbeta=NBETA,
        localization=GAMMA,
        step=0.12,
        leaps=5,
        draws=1500,
        burn_in=50,
        seed=1,
    )
    assert drawn.excess.mean() / 16 == pytest.approx(exact, rel=0.04)


def test_a_step_that_is_too_large_is_never_accepted() -> None:
    drawn = hmc.run(
        lambda w: 50.0 * (w**2).sum(),
        torch.zeros(16, dtype=torch.float64),
        nbeta=NBETA,
        localization=GAMMA,
        step=1.0,
        leaps=20,
        draws=20,
        burn_in=0,
        seed=2,
    )
    assert drawn.accepted == 0
    assert (drawn.excess == 0).all()
    assert drawn.gradients == 401
