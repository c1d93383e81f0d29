"""RMSprop-SGLD is SGLD in a metric: learnt in the burn-in, frozen then, the same posterior, faster
where the target is ill-conditioned.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from replicate.errors import UserError
from replicate.estimation import diagnostics
from replicate.sampling import Setting, samplers
from replicate.sampling.samplers.rmsprop import RMSprop
from tests.scenarios import Quadratic

NBETA = 20.0
H = np.array([0.01, 0.1, 1.0, 10.0] * 8)  # condition number 1000


def adapting(target: Quadratic, setting: Setting, burn_in: int, nbeta: float = NBETA) -> RMSprop:
    return RMSprop(
        [target.w], [target.w.detach().clone()], setting, nbeta=nbeta, seed=0, burn_in=burn_in
    )


def step(sampler: samplers.Sampler, target: Quadratic) -> None:
    with sampler.attached():
        target(torch.arange(1)).mean().backward()
        sampler.step()


def walk(
    target: Quadratic, setting: Setting, steps: int, burn_in: int
) -> tuple[np.ndarray, np.ndarray]:
    """The weights after each step (steps, d), and RMSprop's G at the end (d,), ones for SGLD."""
    anchor = [target.w.detach().clone()]
    sampler = samplers.sampler([target.w], anchor, setting, nbeta=NBETA, seed=1, burn_in=burn_in)
    path = np.empty((steps, len(target.w)))
    for t in range(steps):
        step(sampler, target)
        path[t] = target.w.detach().numpy()
    scale = sampler.preconditioner(0) if isinstance(sampler, RMSprop) else torch.ones(len(target.w))
    return path, scale.double().numpy()


@pytest.mark.parametrize("localization", [0.0, 5.0])
def test_its_llc_on_an_ill_conditioned_quadratic_is_exact(localization: float) -> None:
    """Each weight is AR(1) with step ε·Gᵢ, so its variance is 1/(aᵢ(1 − ε·Gᵢ·aᵢ/4)); the last
    factor raises the stiffest by a tenth.
    """
    lr, burn_in = 0.015, 500
    target = Quadratic(H)
    path, scale = walk(target, Setting("rmsprop", lr, localization=localization), 15_000, burn_in)
    a = NBETA * H + localization
    stiff = H > 5
    for these, tolerance in ((stiff, 0.02), (~stiff, 0.06)):
        measured = 0.5 * NBETA * (H * (path[burn_in:] ** 2).mean(axis=0))[these].sum()
        assert measured == pytest.approx(
            (0.5 * NBETA * H / (a * (1 - lr * scale * a / 4)))[these].sum(), rel=tolerance
        )
    assert (lr * scale * a / 4)[stiff].mean() > 0.08


def test_steep_weights_get_small_steps_and_none_more_than_twice_the_median() -> None:
    _, scale = walk(Quadratic(H), Setting("rmsprop", 0.015), 500, 500)
    means = [scale[h == H].mean() for h in (0.01, 0.1, 1.0, 10.0)]
    assert means == sorted(means, reverse=True)
    assert scale.max() <= 2
    assert np.isclose(scale, 1, rtol=1e-6).sum() == 1  # the weight whose gradient is the median
    assert means[0] > 5 * means[-1]


@pytest.mark.parametrize("bounding_box", [None, 0.01])
def test_constant_gradients_make_it_sgld(bounding_box: float | None) -> None:
    """A linear loss of slopes ±2: every √v is the median, G = 1, and the same noise gives the same
    trajectory.
    """

    class Slope(Quadratic):
        def __call__(self, index_B: torch.Tensor) -> torch.Tensor:
            return (torch.tensor([2.0, -2.0], dtype=torch.float64) @ self.w).expand(len(index_B))

    knobs = {"localization": 3.0, "weight_decay": 2.0, "bounding_box": bounding_box}
    paths = [
        walk(Slope(np.ones(2), 0.5), setting, 50, 20)[0]
        for setting in (Setting("sgld", 1e-3, **knobs), Setting("rmsprop", 1e-3, **knobs))
    ]
    np.testing.assert_allclose(paths[1], paths[0], rtol=1e-6, atol=1e-7)
    assert np.ptp(paths[0]) > 0


def test_it_forgets_sooner_than_sgld_at_equal_stability() -> None:
    """Both with ε·G·a = 1 for the stiffest weight; of the flat ones' squares RMSprop gives at least
    twice the effective draws.
    """
    flat = H < 0.05
    _, scale = walk(Quadratic(H), Setting("rmsprop", 0.01), 500, 500)
    settings = [
        Setting("sgld", 1 / (NBETA * H).max()),
        Setting("rmsprop", 1 / (scale * NBETA * H).max()),
    ]
    effective = {}
    for setting in settings:
        path, _ = walk(Quadratic(H), setting, 6500, 500)
        effective[setting.sampler] = np.mean(
            [diagnostics.ess(square.reshape(1, -1)) for square in (path[500:, flat] ** 2).T]
        )
    assert effective["rmsprop"] > 2 * effective["sgld"]


def test_the_preconditioner_is_frozen_after_the_burn_in() -> None:
    target = Quadratic(H, centre=1.0)
    sampler = adapting(target, Setting("rmsprop", 0.01), burn_in=5)
    scales = []
    for _ in range(10):
        step(sampler, target)
        scales.append(sampler.preconditioner(0))
    changed = [not torch.equal(a, b) for a, b in pairwise(scales)]
    assert changed == [True] * 4 + [False] * 5


def test_the_scale_of_the_loss_does_not_change_the_preconditioner() -> None:
    """As a constant in place of the median would."""
    scales = []
    for factor in (1.0, 1e-4):
        target = Quadratic(H * factor, centre=1.0)
        with torch.no_grad():
            target.w.add_(1.0)
        sampler = adapting(target, Setting("rmsprop", 0.0), 3, nbeta=1.0)
        step(sampler, target)
        scales.append(sampler.preconditioner(0).numpy())
    np.testing.assert_allclose(scales[1], scales[0], rtol=1e-4)


def test_weights_without_a_gradient_do_not_count_for_the_median() -> None:
    """Three of five never have one, as rows of an embedding whose tokens do not occur."""
    target = Quadratic(np.array([0.0, 0.0, 0.0, 1.0, 1.0]))
    with torch.no_grad():
        target.w.add_(1.0)
    sampler = adapting(target, Setting("rmsprop", 1e-3), 1, nbeta=1.0)
    step(sampler, target)
    np.testing.assert_allclose(sampler.preconditioner(0).numpy(), [2, 2, 2, 1, 1], rtol=1e-6)


def test_it_stays_in_the_box() -> None:
    path, _ = walk(Quadratic(H, centre=1.0), Setting("rmsprop", 0.05, bounding_box=0.05), 300, 100)
    assert np.abs(path - 1.0).max() == pytest.approx(0.05)


def test_without_burn_in_it_says_so() -> None:
    with pytest.raises(UserError, match=r"^burn_in: "):
        adapting(Quadratic(H), Setting("rmsprop", 0.01), 0)
