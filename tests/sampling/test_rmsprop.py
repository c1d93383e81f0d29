"""RMSprop-SGLD is SGLD in a metric: learnt in the burn-in, frozen then, with the same posterior; it
is faster where the target is ill-conditioned.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from replicate.errors import UserError
from replicate.estimation import diagnostics
from replicate.sampling import SamplerConfig
from replicate.sampling.samplers import SAMPLERS
from replicate.sampling.samplers.rmsprop import RMSpropSGLD
from tests.scenarios import Quadratic, moved

NBETA = 20.0
H = np.array([0.01, 0.1, 1.0, 10.0] * 8)  # condition number 1000


def make(target: Quadratic, config: SamplerConfig, burn_in: int, nbeta: float = NBETA) -> Any:
    kind, anchor = SAMPLERS[config.sampler], [target.w.detach().clone()]
    return kind([target.w], anchor, config, nbeta=nbeta, seed=1, burn_in=burn_in)


def step(sampler: Any, target: Quadratic) -> None:
    moved(sampler, lambda: target(torch.arange(1)).mean(), 1)


def path(
    target: Quadratic, config: SamplerConfig, steps: int, burn_in: int
) -> tuple[np.ndarray, np.ndarray]:
    """The weights after each step (steps, d), and RMSprop's G at the end (d,), ones for SGLD."""
    sampler = make(target, config, burn_in)
    weights = np.empty((steps, len(target.w)))
    for t in range(steps):
        step(sampler, target)
        weights[t] = target.w.detach().numpy()
    metric = sampler.preconditioner(0) if isinstance(sampler, RMSpropSGLD) else torch.ones(len(H))
    return weights, metric.double().numpy()


@pytest.mark.parametrize("localization", [0.0, 5.0])
def test_its_llc_on_an_ill_conditioned_quadratic_is_exact(localization: float) -> None:
    """Each weight is AR(1) with step ε·Gᵢ, so its variance is 1/(aᵢ(1 − ε·Gᵢ·aᵢ/4)); the last
    factor raises the stiffest by a tenth.
    """
    lr, burn_in = 0.015, 500
    config = SamplerConfig("rmsprop", lr, localization=localization)
    weights, metric = path(Quadratic(H), config, 15_000, burn_in)
    a = NBETA * H + localization
    stiff = H > 5
    for these, tolerance in ((stiff, 0.02), (~stiff, 0.06)):
        found = 0.5 * NBETA * (H * (weights[burn_in:] ** 2).mean(axis=0))[these].sum()
        exact = (0.5 * NBETA * H / (a * (1 - lr * metric * a / 4)))[these].sum()
        assert found == pytest.approx(exact, rel=tolerance)
    assert (lr * metric * a / 4)[stiff].mean() > 0.08


def test_steep_weights_get_small_steps_and_none_more_than_twice_the_median() -> None:
    _, metric = path(Quadratic(H), SamplerConfig("rmsprop", 0.015), 500, 500)
    means = [metric[h == H].mean() for h in (0.01, 0.1, 1.0, 10.0)]
    assert means == sorted(means, reverse=True)
    assert metric.max() <= 2
    assert np.isclose(metric, 1, rtol=1e-6).sum() == 1  # the weight whose gradient is the median
    assert means[0] > 5 * means[-1]


@pytest.mark.parametrize("bounding_box", [None, 0.01])
def test_constant_gradients_make_it_sgld(bounding_box: float | None) -> None:
    """With a linear loss of slopes ±2 every √v is the median and G = 1, so the same noise gives the
    same path.
    """

    class Slope(Quadratic):
        def __call__(self, index_B: torch.Tensor) -> torch.Tensor:
            return (torch.tensor([2.0, -2.0], dtype=torch.float64) @ self.w).expand(len(index_B))

    pull: Any = {"localization": 3.0, "weight_decay": 2.0, "bounding_box": bounding_box}
    configs = (SamplerConfig(name, 1e-3, **pull) for name in ("sgld", "rmsprop"))
    sgld, rmsprop = (path(Slope(np.ones(2), 0.5), config, 50, 20)[0] for config in configs)
    np.testing.assert_allclose(rmsprop, sgld, rtol=1e-6, atol=1e-7)
    assert np.ptp(sgld) > 0


def test_it_forgets_sooner_than_sgld_at_equal_stability() -> None:
    """With ε·G·a = 1 for the stiffest weight of both, RMSprop gives at least twice the effective
    draws of the flat weights' squares.
    """
    flat = H < 0.05
    _, metric = path(Quadratic(H), SamplerConfig("rmsprop", 0.01), 500, 500)
    effective = {}
    for name, steepest in (("sgld", NBETA * H), ("rmsprop", metric * NBETA * H)):
        weights, _ = path(Quadratic(H), SamplerConfig(name, 1 / steepest.max()), 6500, 500)
        squares = weights[500:, flat] ** 2
        effective[name] = np.mean([diagnostics.ess(draws.reshape(1, -1)) for draws in squares.T])
    assert effective["rmsprop"] > 2 * effective["sgld"]


def test_the_preconditioner_is_frozen_after_the_burn_in() -> None:
    target = Quadratic(H, centre=1.0)
    sampler = make(target, SamplerConfig("rmsprop", 0.01), burn_in=5)
    metrics = []
    for _ in range(10):
        step(sampler, target)
        metrics.append(sampler.preconditioner(0))
    changed = [not torch.equal(a, b) for a, b in pairwise(metrics)]
    assert changed == [True] * 4 + [False] * 5


def metric_away_from_w_star(h: np.ndarray) -> np.ndarray:
    """G after one step at w* + 1."""
    target = Quadratic(h, centre=1.0)
    with torch.no_grad():
        target.w.add_(1.0)
    sampler = make(target, SamplerConfig("rmsprop", 0.0), 3, nbeta=1.0)
    step(sampler, target)
    return sampler.preconditioner(0).numpy()


def test_the_scale_of_the_loss_does_not_change_the_preconditioner() -> None:
    """A constant in place of the median would."""
    np.testing.assert_allclose(
        metric_away_from_w_star(H * 1e-4), metric_away_from_w_star(H), rtol=1e-4
    )


def test_weights_without_a_gradient_do_not_count_for_the_median() -> None:
    """Three of five never have one, as rows of an embedding whose tokens do not occur."""
    metric = metric_away_from_w_star(np.array([0.0, 0.0, 0.0, 1.0, 1.0]))
    np.testing.assert_allclose(metric, [2, 2, 2, 1, 1], rtol=1e-6)


def test_it_stays_in_the_box() -> None:
    config = SamplerConfig("rmsprop", 0.05, bounding_box=0.05)
    weights, _ = path(Quadratic(H, centre=1.0), config, 300, 100)
    assert np.abs(weights - 1.0).max() == pytest.approx(0.05)


def test_without_burn_in_it_says_so() -> None:
    with pytest.raises(UserError, match=r"^burn_in: "):
        make(Quadratic(H), SamplerConfig("rmsprop", 0.01), 0)
