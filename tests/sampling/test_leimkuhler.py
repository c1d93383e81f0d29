"""Leimkuhler–Matthews samples a quadratic exactly at any stable step, and is one chain on every
path. A stationary start is in equilibrium from the first draw.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from replicate.errors import ArgumentError
from replicate.sampling import SamplerConfig, noise, samplers
from replicate.sampling.samplers import Sampler
from tests.scenarios import Quadratic, moved, packed, quadratic_llc, sampled

NBETA, GAMMA = 20.0, 5.0
H = np.array([0.5, 1.0, 2.0, 4.0] * 16)  # aᵢ is at most 85


def make(w: nn.Parameter, config: SamplerConfig, anchor: Any = None, **options: Any) -> Sampler:
    origin = w.detach().clone() if anchor is None else anchor
    return samplers.sampler([w], [origin], config, **{"nbeta": NBETA, "seed": 3} | options)


@pytest.mark.parametrize("stiffness", [0.4, 2.0, 3.4])
def test_the_llc_of_a_quadratic_is_exact_at_every_stable_step(stiffness: float) -> None:
    """SGLD's is 6 to 160 % too high at these ε·a of the stiffest weight."""
    lr = stiffness / (NBETA * H.max() + GAMMA)
    trace = sampled(
        (target := Quadratic(H)),
        [target.w],
        SamplerConfig("leimkuhler", lr, localization=GAMMA),
        NBETA,
        burn_in=200,
        draws=4000,
    )
    found = NBETA * float(trace.loss.sel(draw=slice(0, None)).mean())
    exact = quadratic_llc(H, NBETA, GAMMA, 0.0)
    assert quadratic_llc(H, NBETA, GAMMA, lr) > 1.05 * exact
    assert found == pytest.approx(exact, rel=0.025)


def test_each_step_is_the_published_one() -> None:
    """w ← w − (ε/2)·∇ + √ε·(ξₜ + ξₜ₊₁)/2, with the noise of consecutive steps."""
    lr, steps = 0.01, 6
    target = Quadratic(H, centre=0.5)
    sampler = make(target.w, SamplerConfig("leimkuhler", lr, localization=GAMMA, weight_decay=2.0))
    moved(sampler, lambda: target(torch.arange(1)).mean(), steps)
    xi = [noise.normal(len(H), noise.placed(3, t, 0)).numpy() for t in range(1, steps + 2)]
    w = np.full(len(H), 0.5)
    for t in range(steps):
        slope = (NBETA * H + GAMMA) * (w - 0.5) + 2.0 * w
        w = w - lr / 2 * slope + lr**0.5 * (xi[t].astype(float) + xi[t + 1]) / 2
    np.testing.assert_allclose(target.w.detach().numpy(), w, rtol=0, atol=2e-7)


@pytest.mark.parametrize("stationary", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_stationary_start_is_in_equilibrium_at_once(
    dtype: torch.dtype, stationary: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without data every draw has the variance 1/γ, on both paths and around 4 bits. At ε·γ = 3 a
    start without ξ₀ would have 1/γ in the first draw and 0.6/γ or 2.1/γ in the second. From w* the
    first draw is at 0.
    """
    anchor, _ = packed(torch.randn(320, 96, generator=torch.Generator().manual_seed(0)), dtype)
    mask = torch.arange(96).expand(320, 96) % 4 > 0
    config = SamplerConfig("leimkuhler", 3.0 / 400, localization=400.0, stationary=stationary)
    paths = []
    for loop in (True, False):
        monkeypatch.setattr(
            "replicate.sampling.samplers.base.has_cpu_kernel", lambda _, loop=loop: loop
        )
        w = nn.Parameter(anchor.dense())
        sampler = make(w, config, anchor, masks=[mask])
        draws = []
        for _ in range(4):
            draws.append((w.detach() - anchor.dense()).float().clone())
            moved(sampler, lambda w=w: 0.0 * w.float().sum(), 1)
        paths.append(torch.stack(draws))
    for draws in paths:
        assert (draws[:, :, ::4] == 0).all()
        variances = draws[:, mask].var(dim=1) * config.localization
        if stationary:
            np.testing.assert_allclose(variances, 1.0, atol=0.04)
        else:
            assert variances[0] == 0
    share = float(((paths[0] - paths[1]).abs() < 1e-5).float().mean())
    assert share > (0.97 if dtype == torch.bfloat16 else 0.9999)


def test_a_stationary_start_stays_in_the_box() -> None:
    w = nn.Parameter(torch.ones(1000))
    make(w, SamplerConfig("leimkuhler", 1e-3, 0.0, 100.0, bounding_box=0.05, stationary=True))
    assert float((w.detach() - 1).abs().max()) == pytest.approx(0.05)


@pytest.mark.parametrize(("lr", "localization"), [(0.01, 0.0), (0.01, 400.0)])
def test_a_stationary_start_that_is_not_possible_is_refused(lr: float, localization: float) -> None:
    w = nn.Parameter(torch.ones(4))
    config = SamplerConfig("leimkuhler", lr, localization=localization, stationary=True)
    with pytest.raises(ArgumentError, match=r"^stationary: .* lr × localization below 4"):
        make(w, config)
    assert torch.equal(w.detach(), torch.ones(4))


@pytest.mark.parametrize("stationary", [False, True])
def test_the_same_seeds_give_the_same_chains_and_leave_the_weights_at_w_star(
    stationary: bool,
) -> None:
    config = SamplerConfig("leimkuhler", 0.01, localization=GAMMA, stationary=stationary)
    target = Quadratic(H, centre=0.7)
    first, again = (
        sampled(target, [target.w], config, NBETA, chains=3).loss.values for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
    assert len(set(first[0, :, -1])) == 3
    assert ((first[..., 0] > 0) == stationary).all()
    assert (target.w.detach().numpy() == 0.7).all()
