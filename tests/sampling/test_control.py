"""The control variate leaves the mean loss and its gradient, and takes off the noise at w*."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from replicate.sampling import SamplerConfig, SamplingConfig, Task
from replicate.sampling.control import Control
from replicate.sampling.walkers import Walkers
from tests import scenarios

N, D, SIZE = 64, 3, 4
H = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
NBETA, GAMMA = 50.0, 5.0


def task(stacked: bool, quartic: float = 0.0) -> tuple[Task, Tensor]:
    """The loss ½·Σ h·w² + gᵢ·w + c·(Σ w²)² around w* = 0; gᵢ differs between the examples."""
    g_NxD = torch.from_numpy(np.random.default_rng(1).normal(size=(N, D)))
    w = nn.Parameter(torch.zeros(D, dtype=torch.float64))

    def of_chains(weights: Sequence[Tensor], index_CxB: Tensor) -> Tensor:
        (w_CxD,) = weights
        square_C = w_CxD.square().sum(dim=1)
        smooth_C = 0.5 * (w_CxD.square() * H).sum(dim=1) + quartic * square_C.square()
        return smooth_C[:, None] + torch.einsum("cbd,cd->cb", g_NxD[index_CxB], w_CxD)

    made = Task(
        lambda index_B: of_chains([w[None]], index_B[None])[0],
        [w],
        stacked=of_chains if stacked else None,
    )
    return made, g_NxD.mean(dim=0)


def walkers(made: Task, chains: int) -> Walkers:
    return Walkers(
        made,
        np.zeros(N, np.float32),
        1,
        chains,
        order=lambda s: np.random.default_rng(s).permutation(N),
        noise=scenarios.seed,
    )


@pytest.mark.parametrize("stacked", [False, True])
def test_a_minibatch_has_the_loss_and_the_gradient_of_all_examples(stacked: bool) -> None:
    """The examples differ by a linear term alone, which is what the noise at w* is."""
    made, mean_D = task(stacked, quartic=0.1)
    control = Control(made, made.anchor(), 2, N, 10, scenarios.silent)
    assert control.passes == 7
    at = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    whole = 0.5 * (H * at**2).sum() + mean_D @ at + 0.1 * (at @ at) ** 2
    slope = H * at + mean_D + 0.4 * (at @ at) * at
    index_CxB = torch.tensor([[0, 5, 9], [1, 1, 60]])
    if stacked:
        w_CxD = at.expand(2, D).clone().requires_grad_()
        losses_CxB = control.side_by_side([w_CxD], index_CxB)
        (gradient,) = torch.autograd.grad(losses_CxB.mean(dim=1).sum(), [w_CxD])
    else:
        made.parameters[0].data.copy_(at)
        losses_CxB = torch.stack([control.alone(index_B) for index_B in index_CxB])
        found = [
            torch.autograd.grad(control.alone(index_B).mean(), made.parameters)[0]
            for index_B in index_CxB
        ]
        gradient = torch.stack(found)
        torch.testing.assert_close(made.parameters[0].detach(), at)
    torch.testing.assert_close(losses_CxB.mean(dim=1).detach(), whole.expand(2))
    torch.testing.assert_close(gradient, slope.expand(2, D))


@pytest.mark.parametrize("stacked", [False, True])
def test_chains_with_it_take_twice_the_gradients_and_have_no_heat_of_minibatches(
    stacked: bool,
) -> None:
    lr, steps = 1.2e-2, 4000
    config = SamplerConfig("leimkuhler", lr, localization=GAMMA)
    found = {}
    for controlled in (False, True):
        made, mean_D = task(stacked)
        chains = walkers(made, 4)
        shape = SamplingConfig(NBETA, SIZE, 1, 4, 200, steps)
        trace = chains.run(config, shape, scenarios.silent, controlled=controlled)
        found[controlled] = trace.squared_distance.sel(draw=slice(0, None)).values.mean()
        passes = 16 if controlled else 0
        assert chains.gradients == (1 + controlled) * 4 * (steps + 200) + passes
    a = NBETA * H + GAMMA
    exact = float((1 / a + (NBETA * mean_D / a) ** 2).sum())
    assert found[True] == pytest.approx(exact, rel=0.05)
    assert found[False] > 1.2 * exact


def test_side_by_side_and_in_turn_are_the_same_chains() -> None:
    config = SamplerConfig("leimkuhler", 1e-3, localization=GAMMA)
    shape, values = SamplingConfig(NBETA, SIZE, 1, 2, 0, 30), []
    for stacked in (False, True):
        chains = walkers(task(stacked, quartic=0.1)[0], 2)
        runs = [chains.run(config, shape, scenarios.silent, controlled=True) for _ in range(2)]
        values.append(np.concatenate([run.loss.values for run in runs], axis=2))
    np.testing.assert_allclose(values[0], values[1], rtol=1e-9, atol=1e-12)
