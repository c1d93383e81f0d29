"""The bias of a step is that of the closed form, from curvature and noise and from a pair."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from replicate.sampling import SamplerConfig, SamplingConfig, Task, step_bias
from replicate.sampling.curvature import measure
from replicate.sampling.walkers import Walkers
from tests import scenarios

NBETA, GAMMA, SIZE, N = 20.0, 5.0, 4, 4096
H = np.array([0.0, 0.02, 0.2, 1.0, 2.0, 4.0])
NOISE = np.array([0.1, 0.1, 0.3, 0.5, 0.7, 1.0])  # standard deviation of an example's gradient


def task(noise: np.ndarray, seed: int = 0) -> Task:
    """The loss ½·Σ h·w² + g·w, with a mean gradient of exactly 0 over the examples."""
    g_NxD = np.random.default_rng(seed).normal(size=(N, len(H))) * noise
    g, curved = torch.from_numpy(g_NxD - g_NxD.mean(axis=0)), torch.from_numpy(H)
    w = nn.Parameter(torch.zeros(len(H), dtype=torch.float64))

    def stacked(weights: list[Tensor], index_CxB: Tensor) -> Tensor:
        (w_CxD,) = weights
        quadratic_C = 0.5 * (w_CxD.square() * curved).sum(dim=1)
        return quadratic_C[:, None] + torch.einsum("cbd,cd->cb", g[index_CxB], w_CxD)

    def loss(index_B: Tensor) -> Tensor:
        return stacked([w[None]], index_B[None])[0]  # pyright: ignore

    return Task(loss, [w], stacked=stacked)  # pyright: ignore


def walkers(made: Task, chains: int = 6) -> Walkers:
    return Walkers(
        made,
        np.zeros(N, np.float32),
        1,
        chains,
        order=lambda s: np.random.default_rng(s).permutation(N),
        noise=scenarios.seed,
    )


def exact(lr: float, noise: np.ndarray) -> float:
    """λ̂ of the chain on the quadratic, with minibatches of `SIZE` independent examples."""
    a = NBETA * H + GAMMA
    heated = 1 + lr * NBETA**2 * noise**2 / (4 * SIZE * (1 - lr * a / 4))
    return float(0.5 * (NBETA * H * heated / a).sum())


def test_the_rate_is_the_slope_of_the_closed_form() -> None:
    found = []
    for seed in range(12):
        index_N = torch.arange(seed * 256, (seed + 1) * 256)
        settings: dict[str, Any] = {"batch_size": 256, "probes": 2, "products": 6, "seed": 1}
        measured = measure(task(NOISE), index_N, **settings, advance=scenarios.silent)
        found.append(step_bias.rate(measured, NBETA, GAMMA, SIZE))
    slope = (exact(1e-6, NOISE) - exact(0, NOISE)) / 1e-6
    assert abs(np.mean(found) - slope) < 4 * np.std(found, ddof=1) / 12**0.5
    assert np.std(found, ddof=1) < np.mean(found)


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["exact gradients", "minibatches"])
def test_a_pair_finds_the_bias_of_the_step_and_not_its_own_scatter(share: float) -> None:
    lr, noise = 4e-3, share * NOISE
    config, made = SamplerConfig("leimkuhler", lr, localization=GAMMA), walkers(task(noise))
    sampling = SamplingConfig(NBETA, SIZE, 1, 6, 400, 8000)
    found = step_bias.difference(made, config, sampling, scenarios.silent)
    chains = found.mean("draw").values.ravel()
    error = chains.std(ddof=1) / len(chains) ** 0.5
    truth = exact(lr, noise) - exact(lr / 2, noise)
    assert abs(chains.mean() - truth) < 5 * error
    assert error < max(truth / 4, 0.001 * exact(0, noise))
    assert made.gradients == 3 * 8400 * 6


@pytest.mark.parametrize("stack", [True, False])
def test_without_a_loss_both_chains_of_a_pair_stay_together(stack: bool) -> None:
    """They differ by the noises at both ends alone, of which there are at most six of √(ε/2)/2."""
    w = nn.Parameter(torch.zeros(5000))
    made = Task(
        lambda index_B: 0 * w.sum() * index_B,
        [w],
        stacked=(lambda ws, i: 0 * ws[0].sum(1)[:, None] * i) if stack else None,
    )
    coarse = walkers(made, 2)
    fine, config = coarse.branch(), SamplerConfig("leimkuhler", 0.04)
    coarse.run(config, SamplingConfig(1.0, SIZE, 1, 2, 0, 200), scenarios.silent, coarse=True)
    halved = SamplerConfig("leimkuhler", 0.02)
    fine.run(halved, SamplingConfig(1.0, SIZE, 1, 2, 0, 400), scenarios.silent)
    for chain in range(2):
        with coarse.at(chain) as here:
            one = here.parameters[0].detach().clone()
        with fine.at(chain) as there:
            apart = one - there.parameters[0].detach()
        assert apart.std().item() < 6**0.5 * 0.02**0.5 / 2
        assert one.std().item() == pytest.approx((200 * 0.04) ** 0.5, rel=0.1)
    assert not w.any()


def test_the_highest_curvature_is_that_where_the_chains_are() -> None:
    """Of ¼·‖w‖⁴ it is 3·‖w‖² at w, and 0 at w*."""
    w = nn.Parameter(torch.zeros(50))
    made = walkers(Task(lambda i: (0.25 * w.square().sum() ** 2).expand(len(i)), [w]), 2)
    assert step_bias.highest(made, torch.arange(8), 4) == 0
    config, sampling = SamplerConfig("sgld", 0.01), SamplingConfig(1.0, 4, 1, 1, 0, 100)
    made.run(config, sampling, scenarios.silent)
    squares = []
    for chain in range(2):
        with made.at(chain) as there:
            squares.append(float(there.parameters[0].detach().square().sum()))
    found = step_bias.highest(made, torch.arange(8), 4)
    assert found == pytest.approx(3 * max(squares), rel=1e-3)
