"""Weights in bfloat16 and anchors in 4 bits: what lies in memory is what the formats say, and the
sampler's mean path is float32's.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from replicate.sampling import Setting, noise, samplers
from replicate.sampling.storage import flat, rounded, sixteen, store, widen
from tests.scenarios import packed

N = 3 * noise.BLOCK + 300


@noise.compiled
def _widened(stored, out, room):
    for start in range(0, out.size, noise.BLOCK):
        size = min(noise.BLOCK, out.size - start)
        out[start : start + size] = widen(stored, start, size, room)


@noise.compiled
def _rounded(stored, values, seed, step, tensor):
    for start in range(0, values.size, noise.BLOCK):
        rounded(
            stored,
            start,
            values[start : start + noise.BLOCK],
            seed,
            step,
            tensor,
            start // noise.BLOCK,
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_anchor_in_4_bits_is_what_bitsandbytes_says_it_is(dtype: torch.dtype) -> None:
    """In torch and in the compiled loop."""
    anchor, reference = packed(
        0.02 * torch.randn(N // 12, 12, generator=torch.Generator().manual_seed(0)), dtype
    )
    torch.testing.assert_close(anchor.dense(), reference, rtol=0, atol=0)
    out = np.empty(reference.numel(), np.float32)
    _widened(flat(anchor), out, np.empty(noise.BLOCK, np.float32))
    np.testing.assert_array_equal(out, reference.float().numpy().ravel())


def rounding(values: Tensor, seed: int, step: int = 2, tensor: int = 5) -> tuple[Tensor, Tensor]:
    """The compiled loop's bfloat16 and torch's."""
    loop, whole = (
        torch.zeros(len(values), dtype=torch.bfloat16),
        torch.zeros(len(values), dtype=torch.bfloat16),
    )
    _rounded(flat(loop), values.numpy(), seed, step, tensor)
    store(whole, values, noise.placed(seed, step, tensor))
    return loop, whole


def test_rounding_is_the_same_on_every_way() -> None:
    loop, whole = rounding(
        torch.randn(N, generator=torch.Generator().manual_seed(1)), seed=2**40 + 7
    )
    assert torch.equal(loop, whole)


def test_rounding_goes_to_a_neighbour_and_is_right_in_the_mean() -> None:
    """1 + 2⁻¹⁰ lies an eighth of the way from 1 to its neighbour 1 + 2⁻⁷: up in one case of eight;
    four standard errors of 50,000.
    """
    found = torch.cat(
        [rounding(torch.full((N,), 1 + 2**-10), seed)[0] for seed in range(4)]
    ).double()
    assert set(found.unique().tolist()) == {1.0, 1 + 2**-7}
    share = float((found > 1).double().mean())
    assert abs(share - 1 / 8) < 4 * (7 / 64 / len(found)) ** 0.5
    exact = rounding(torch.tensor([1.0, -0.5, 0.0, 3.140625]), seed=3)[0]
    assert exact.tolist() == [1.0, -0.5, 0.0, 3.140625]


def test_the_numbers_that_round_are_uniform_and_not_the_noise() -> None:
    """Of 16 bits each: mean, variance, no repeat between steps or tensors, none of the noise's own
    words.
    """
    numbers = sixteen(1 << 18, noise.placed(9, 1, 4)).double() / 2**16
    assert abs(float(numbers.mean()) - 0.5) < 4 * (1 / 12 / len(numbers)) ** 0.5
    assert float(numbers.var()) == pytest.approx(1 / 12, rel=0.01)
    other = sixteen(1 << 18, noise.placed(9, 2, 4)).double() / 2**16
    normals = noise.normal(1 << 18, noise.placed(9, 1, 4)).double()
    for stranger in (other, normals):
        assert (
            abs(float(torch.corrcoef(torch.stack([numbers, stranger]))[0, 1]))
            < 4 / len(numbers) ** 0.5
        )


@pytest.mark.parametrize("name", ["sgld", "sgnht", "rmsprop"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_ways_move_alike_around_an_anchor_in_4_bits(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the rounding of the noise; in bfloat16 that may tip a few weights in a hundred to the
    other neighbour.
    """
    anchor, _ = packed(torch.randn(40, 96, generator=torch.Generator().manual_seed(0)), dtype)
    found = []
    for native in (True, False):
        monkeypatch.setattr("replicate.sampling.samplers.base.is_native", lambda _, native=native: native)
        w = nn.Parameter(anchor.dense())
        setting = Setting(
            name, 1e-3, localization=10.0 * (name != "sgnht"), bounding_box=0.5, diffusion=0.1
        )  # pyright: ignore[reportArgumentType]
        sampler = samplers.sampler(
            [w],
            [anchor],
            setting,
            nbeta=5.0,
            seed=3,
            burn_in=2,
            masks=[torch.arange(96).expand(40, 96) % 5 > 0],
        )
        with sampler.attached():
            for _ in range(4):
                (w.float() ** 2).sum().backward()
                sampler.step()
        found.append(w.detach().double())
    assert float(((found[0] - found[1]).abs() < 1e-5).double().mean()) > (
        0.97 if dtype == torch.bfloat16 else 0.9999
    )
    assert torch.equal(found[0][:, ::5], anchor.dense().double()[:, ::5])
    assert float((found[0] - anchor.dense().double()).abs().max()) > 0.05


def test_a_step_smaller_than_the_distance_of_two_neighbours_is_not_lost() -> None:
    """Noise of 1e-4 around weights of 1, whose neighbours are 2⁻⁷ and 2⁻⁸ away: rounding to the
    nearest would never move one. After T steps the variance is T·(ε + Δ·E|step|), as every step
    ends on a neighbour with the probability of its length over Δ, and the mean is 1.
    """
    w = nn.Parameter(torch.ones(50_000, dtype=torch.bfloat16))
    sampler = samplers.sampler([w], [w.detach().clone()], Setting("sgld", 1e-8), nbeta=0.0, seed=1)
    with sampler.attached():
        for _ in range(20):
            (0 * w).sum().backward()
            sampler.step()
    moved = w.detach().double() - 1
    assert abs(float(moved.mean())) < 4 * float(moved.std()) / len(moved) ** 0.5
    expected = 20 * 1e-4 * (2 / np.pi) ** 0.5 * (2**-7 + 2**-8) / 2
    assert float(moved.var()) == pytest.approx(expected, rel=0.1)
