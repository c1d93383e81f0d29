"""Walkers go on where they stopped, side by side or in turn, and leave the parameters at w*."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from replicate.sampling import SamplerConfig, SamplingConfig, Task
from replicate.sampling.walkers import Walkers
from tests import scenarios

H = torch.tensor([1.0, 4.0, 0.5])


def walkers(stacked: bool) -> tuple[Walkers, nn.Parameter]:
    w = nn.Parameter(torch.zeros(3))
    task = Task(
        lambda index_B: (0.5 * (H * w**2).sum()).expand(len(index_B)),
        [w],
        stacked=(lambda ws, i: (0.5 * (H * ws[0] ** 2).sum(1))[:, None].expand(i.shape))
        if stacked
        else None,
    )
    made = Walkers(
        task,
        np.zeros(40, np.float32),
        2,
        3,
        order=lambda s: np.random.default_rng(s).permutation(40),
        noise=scenarios.seed,
    )
    return made, w


def run(stacked: bool, lengths: list[int], gamma: float = 5.0) -> list[np.ndarray]:
    made, w = walkers(stacked)
    config = SamplerConfig("sgld", 0.01, localization=gamma)
    found = [
        made.run(config, SamplingConfig(20.0, 4, 1, 1, 0, length), scenarios.silent)
        for length in lengths
    ]
    assert torch.equal(w.detach(), torch.zeros(3))
    return [trace.loss.values for trace in found]


@pytest.mark.parametrize("stacked", [False, True])
def test_a_second_run_starts_where_the_first_ended(stacked: bool) -> None:
    first, second = run(stacked, [400, 3])
    assert first.shape == (2, 3, 400)
    assert (first[:, :, 0] == 0).all()  # at w*
    assert (second[:, :, 0] > 0).all()
    assert 0.2 < second[:, :, 0].mean() / first[:, :, 200:].mean() < 5


def test_side_by_side_and_in_turn_are_the_same_chains() -> None:
    for one, other in zip(run(True, [5, 7]), run(False, [5, 7]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_the_chains_of_two_rounds_have_different_noise() -> None:
    first, second = run(True, [1, 1]), run(True, [2])
    assert not np.allclose(first[1][:, :, 0], 0)
    assert np.isfinite(second[0]).all()


def test_averaged_noise_goes_on_between_two_runs() -> None:
    """Without a loss w is a random walk, whose variance one lost noise would make smaller."""
    w, steps = nn.Parameter(torch.zeros(20_000)), 3
    made = Walkers(
        Task(lambda index_B: 0 * w.sum() * index_B, [w]),
        np.zeros(40, np.float32),
        1,
        1,
        order=lambda s: np.arange(40),
        noise=scenarios.seed,
    )
    for _ in range(steps):
        shape = SamplingConfig(1.0, 4, 1, 1, 0, 1)
        made.run(SamplerConfig("leimkuhler", 1.0), shape, scenarios.silent)
    with made.at(0) as here:
        variance = float(here.parameters[0].detach().var())
    assert variance == pytest.approx(steps - 0.5, rel=0.05)  # steps/2 if every run began anew
