"""What a step records beside the loss: the virial, the squared distance, and halves of the batch.

The loss of example i is ½·sᵢ·‖w‖² around w* = 0, so V = 2·nβ·L_B and ‖Δ‖² = 2·L_B/mean(s).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from replicate.sampling import SamplerConfig, SamplingConfig, Task
from replicate.sampling.engine import run_pieces
from replicate.sampling.steps import HALVED
from tests import scenarios

NBETA, SIZE = 20.0, 5000  # more than a block of the compiled loop
SCALE = torch.linspace(0.5, 1.5, 40)
SAMPLERS = {
    "sgld": SamplerConfig("sgld", 1e-3, localization=3.0),
    "leimkuhler": SamplerConfig("leimkuhler", 1e-3, localization=3.0),
    "rmsprop": SamplerConfig("rmsprop", 1e-3, localization=3.0),
    "sgnht": SamplerConfig("sgnht", 1e-6, diffusion=0.1),
}
DTYPES = {"float64": torch.float64, "bfloat16": torch.bfloat16}
SHAPE = SamplingConfig(NBETA, 6, 1, 2, 4, 8)


def task(kind: str) -> Task:
    if kind == "torch":  # a parameter that is not contiguous has no compiled loop
        w = nn.Parameter(torch.zeros(50, SIZE // 50).t())
    else:
        w = nn.Parameter(torch.zeros(SIZE, dtype=DTYPES.get(kind, torch.float32)))
    mask = torch.ones(w.shape)
    mask.reshape(-1)[::2] = 0

    def stacked(weights: object, index_CxB: Tensor) -> Tensor:
        square_C = weights[0].square().sum(1)  # pyright: ignore
        return 0.5 * SCALE[index_CxB] * square_C[:, None]

    return Task(
        lambda index_B: 0.5 * SCALE[index_B] * w.float().square().sum(),
        [w],
        masks=[mask if kind == "masked" else None],
        stacked=stacked if kind == "stacked" else None,
    )


KINDS = ["float32", "float64", "bfloat16", "masked", "stacked", "torch"]


@pytest.mark.parametrize("microbatch_size", [None, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_virial_and_the_distance_are_those_of_the_weights(
    sampler: str, kind: str, microbatch_size: int | None
) -> None:
    sampling = replace(SHAPE, microbatch_size=microbatch_size)
    order = np.random.default_rng(0).permutation(40)
    chains = run_pieces(
        task(kind),
        SAMPLERS[sampler],
        sampling,
        sampling.pieces(),
        np.zeros(40, np.float32),
        together=2 if kind == "stacked" else 1,
        order=lambda _: order,
        noise=scenarios.seed,
        advance=scenarios.silent,
    )
    assert len(chains) == 2
    tolerance = 2e-2 if kind == "bfloat16" else 1e-4
    for (_, c), chain in chains.items():
        batches = order[(np.arange(12 * 6) + c * 72) % 40].reshape(12, 6)
        scale = SCALE.numpy()[batches]
        np.testing.assert_allclose(chain.virial, 2 * NBETA * chain.loss, rtol=tolerance)
        expected = 2 * chain.loss / scale.mean(1)
        np.testing.assert_allclose(
            chain.squared_distance, expected, rtol=1e-2 if tolerance > 1e-3 else 1e-4
        )
        halved = np.arange(12) % HALVED == 0
        assert (np.isfinite(chain.half_loss).all(1) == halved).all()
        assert (np.isfinite(chain.half_init_loss).all(1) == halved).all()
        halves = chain.half_loss[halved]
        np.testing.assert_allclose(halves.mean(1), chain.loss[halved], rtol=1e-4)
        ratio = np.stack([scale[:, :3].mean(1), scale[:, 3:].mean(1)], 1) / scale.mean(1)[:, None]
        np.testing.assert_allclose(halves, (chain.loss[:, None] * ratio)[halved], rtol=1e-4)
        np.testing.assert_allclose(chain.half_virial[halved], 2 * NBETA * halves, rtol=tolerance)
    assert chains[0, 0].squared_distance[-1] > 0
