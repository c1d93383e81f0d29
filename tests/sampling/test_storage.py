"""Weights in bfloat16 and anchors in 4 bits hold what their formats say, and samplers move such
weights as they move float32, in the mean.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from replicate.sampling import SamplerConfig, noise, samplers
from replicate.sampling.compilation import compiled
from replicate.sampling.storage import flat, round_into, rounding_bits, store, widen
from tests.scenarios import moved, packed

N = 3 * noise.BLOCK + 300


@compiled
def _widen_all(stored, out, buffer):
    for start in range(0, out.size, noise.BLOCK):
        size = min(noise.BLOCK, out.size - start)
        out[start : start + size] = widen(stored, start, size, buffer)


@compiled
def _round_all(stored, values, seed, step, tensor):
    for block in range(-(-values.size // noise.BLOCK)):
        start = block * noise.BLOCK
        part = values[start : start + noise.BLOCK]
        round_into(stored, start, part, seed, step, tensor, block)


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_anchor_in_4_bits_is_what_bitsandbytes_says_it_is(dtype: torch.dtype) -> None:
    anchor, reference = packed(0.02 * normals(N // 12, 12), dtype)
    torch.testing.assert_close(anchor.dense(), reference, rtol=0, atol=0)
    out = np.empty(reference.numel(), np.float32)
    _widen_all(flat(anchor), out, np.empty(noise.BLOCK, np.float32))
    np.testing.assert_array_equal(out, reference.float().numpy().ravel())


def rounded(values: Tensor, seed: int, step: int = 2, tensor: int = 5) -> Tensor:
    """Values in bfloat16 by the compiled loop, which is torch's result."""
    loop, whole = (torch.zeros(len(values), dtype=torch.bfloat16) for _ in range(2))
    _round_all(flat(loop), values.numpy(), seed, step, tensor)
    store(whole, values, noise.placed(seed, step, tensor))
    assert torch.equal(loop, whole)
    return loop


def test_rounding_goes_to_a_neighbour_and_is_right_in_the_mean() -> None:
    """1 + 2⁻¹⁰ lies an eighth of the way from 1 to its neighbour 1 + 2⁻⁷, so one in eight goes up,
    within four standard errors of 50,000.
    """
    found = torch.cat([rounded(torch.full((N,), 1 + 2**-10), seed) for seed in range(4)]).double()
    assert set(found.unique().tolist()) == {1.0, 1 + 2**-7}
    share = float((found > 1).double().mean())
    assert abs(share - 1 / 8) < 4 * (7 / 64 / len(found)) ** 0.5
    exact = [1.0, -0.5, 0.0, 3.140625]
    assert rounded(torch.tensor(exact), seed=3).tolist() == exact
    values = normals(N, seed=1)
    assert float((rounded(values, seed=2**40 + 7) / values - 1).abs().max()) < 2**-7


def test_the_numbers_that_round_are_uniform_and_not_the_noise() -> None:
    """Their mean and variance are right, and no other step nor the noise correlates with them."""
    numbers = rounding_bits(1 << 18, noise.placed(9, 1, 4)).double() / 2**16
    assert abs(float(numbers.mean()) - 0.5) < 4 * (1 / 12 / len(numbers)) ** 0.5
    assert float(numbers.var()) == pytest.approx(1 / 12, rel=0.01)
    other = rounding_bits(1 << 18, noise.placed(9, 2, 4)).double()
    gaussian = noise.normal(1 << 18, noise.placed(9, 1, 4)).double()
    for stranger in (other, gaussian):
        correlation = float(torch.corrcoef(torch.stack([numbers, stranger]))[0, 1])
        assert abs(correlation) < 4 / len(numbers) ** 0.5


@pytest.mark.parametrize("name", samplers.SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loop_and_torch_move_alike_around_an_anchor_in_4_bits(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They differ by the rounding of the noise, which in bfloat16 may tip a few weights in a
    hundred to the other neighbour.
    """
    anchor, _ = packed(normals(40, 96), dtype)
    config = SamplerConfig(
        name, 1e-3, localization=10.0 * (name != "sgnht"), bounding_box=0.5, diffusion=0.1
    )
    mask = torch.arange(96).expand(40, 96) % 5 > 0
    found = []
    for loop in (True, False):
        monkeypatch.setattr(
            "replicate.sampling.samplers.base.has_cpu_kernel", lambda _, loop=loop: loop
        )
        w = nn.Parameter(anchor.dense())
        sampler = samplers.sampler(
            [w], [anchor], config, nbeta=5.0, seed=3, burn_in=2, masks=[mask]
        )
        moved(sampler, lambda w=w: (w.float() ** 2).sum(), 4)
        found.append(w.detach().double())
    start = anchor.dense().double()
    share = float(((found[0] - found[1]).abs() < 1e-5).double().mean())
    assert share > (0.97 if dtype == torch.bfloat16 else 0.9999)
    assert torch.equal(found[0][:, ::5], start[:, ::5])
    assert float((found[0] - start).abs().max()) > 0.05


def test_a_step_smaller_than_the_distance_of_two_neighbours_is_not_lost() -> None:
    """Noise of 1e-4 meets weights of 1, whose neighbours are 2⁻⁷ and 2⁻⁸ away: rounding to the
    nearest would never move one. Every step ends on a neighbour with the probability of its length
    over Δ, so after T steps the variance is T·(ε + Δ·E|step|) and the mean is 1.
    """
    w = nn.Parameter(torch.ones(50_000, dtype=torch.bfloat16))
    config = SamplerConfig("sgld", 1e-8)
    sampler = samplers.sampler([w], [w.detach().clone()], config, nbeta=0.0, seed=1)
    moved(sampler, lambda: (0 * w).sum(), 20)
    shift = w.detach().double() - 1
    assert abs(float(shift.mean())) < 4 * float(shift.std()) / len(shift) ** 0.5
    expected = 20 * 1e-4 * (2 / np.pi) ** 0.5 * (2**-7 + 2**-8) / 2
    assert float(shift.var()) == pytest.approx(expected, rel=0.1)
