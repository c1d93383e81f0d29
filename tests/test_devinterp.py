"""SGNHT with the original study's noise, whose A was 0.01 whatever the thermostat began with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from devinterp.optim import SGNHT
from torch import nn

from replicate.sampling import Setting, samplers
from tests.scenarios import Quadratic

NBETA = 20.0


def walk(sampler: torch.optim.Optimizer, target: Quadratic, steps: int) -> np.ndarray:
    """The loss after each step."""
    losses = np.empty(steps)
    for step in range(steps):
        sampler.zero_grad()
        target(torch.arange(1)).mean().backward()
        sampler.step()
        losses[step] = target(torch.arange(1)).item()
    return losses


@pytest.mark.parametrize("diffusion", [0.001, 0.3])
def test_with_the_studys_noise_lambda_does_not_depend_on_the_diffusion_factor(diffusion: float) -> None:
    """Regular model of 64 weights: λ = 32 in equilibrium, wherever the thermostat began."""
    torch.manual_seed(1)
    target = Quadratic(np.array([0.5, 1.0, 2.0, 4.0] * 16))
    sampler = samplers.optimizer([target.w], Setting("sgnht", 1e-4, diffusion=diffusion, noise_diffusion=0.01), NBETA, 0)
    assert NBETA * walk(sampler, target, 16_000)[4000:].mean() == pytest.approx(32.0, rel=0.06)


def test_the_thermostat_begins_at_the_diffusion_factor_and_the_noise_has_its_own() -> None:
    """No loss, momentum zero: the first step is the noise alone, √(2εA)·N(0, 1) with A = 0.04; ξ then moves by mean(p²) − ε."""
    parameter = nn.Parameter(torch.zeros(100_000))
    sampler = samplers.optimizer([parameter], Setting("sgnht", 1e-2, diffusion=0.7, noise_diffusion=0.04), NBETA, 0)
    sampler.state[parameter]["momentum"].zero_()
    parameter.grad = torch.zeros_like(parameter)
    sampler.step()
    assert parameter.std().item() == pytest.approx((2 * 1e-2 * 0.04) ** 0.5, rel=0.02)
    assert sampler.param_groups[0]["thermostat"].item() == pytest.approx(0.7 + 2 * 1e-2 * 0.04 - 1e-2, rel=1e-3)


def test_without_a_noise_of_its_own_it_is_devinterps_sgnht() -> None:
    paths = []
    for make in (
        lambda w: SGNHT([w], lr=1e-4, diffusion_factor=0.05, nbeta=NBETA),
        lambda w: samplers.optimizer([w], Setting("sgnht", 1e-4, diffusion=0.05), NBETA, 0),
        lambda w: samplers.optimizer([w], Setting("sgnht", 1e-4, diffusion=0.05, noise_diffusion=0.05), NBETA, 0),
    ):
        torch.manual_seed(2)
        target = Quadratic(np.ones(8))
        paths.append(walk(make(target.w), target, 50))
    np.testing.assert_array_equal(paths[1], paths[0])
    np.testing.assert_array_equal(paths[2], paths[0])
