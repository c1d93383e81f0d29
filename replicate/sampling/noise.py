"""Computes Gaussian noise as a function of seed, step, tensor and index.

The noise is therefore the same on any number of threads, processes and devices.

Philox 4×32-10 (Salmon et al. 2011, doi 10.1145/2063384.2063405) turns a counter into 128 random
bits. Its key is the seed of the chain. The Box–Muller transform turns these bits into four normal
numbers. The counter is (lane, block, step, tensor). A block is 4 × `LANES` consecutive weights of a
tensor, and lane i gives the numbers of the weights i, i + LANES, i + 2·LANES and i + 3·LANES of the
block.

`normals` is for CPUs: it is inlined into the samplers' loop and needs memory for one block only.
`normal` gives the same numbers in torch, for GPUs, up to rounding. The radius is computed from a
uniform number of 24 bits, so no number exceeds 5.9 in size. About four in 10⁹ exact normal numbers
do.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import float32 as single
from numba import int32, uint64
from torch import Tensor

from replicate.sampling.compilation import inlined

LANES = 1024
BLOCK = 4 * LANES
ROUNDS = 10
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85
MASK = 0xFFFFFFFF

_M0, _M1, _W0, _W1 = (np.uint64(value) for value in (*MULTIPLIERS, *WEYL))
_LOW, _SHIFT = np.uint64(MASK), np.uint64(32)
_SQRT_HALF = np.int32(0x3F3504F3)  # the bits of √½


@inlined
def words(lane, block, step, tensor, seed):
    """Computes Philox for one counter; returns four words of 32 bits, each as a uint64."""
    c0, c1, c2, c3 = uint64(lane), uint64(block), uint64(step), uint64(tensor)
    k0, k1 = uint64(seed) & _LOW, uint64(seed) >> _SHIFT
    for _ in range(ROUNDS):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _SHIFT) ^ c1 ^ k0, p1 & _LOW, (p0 >> _SHIFT) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3


@inlined
def normals(x, bits, seed, step, tensor, block, size):
    """Fills x, (4, LANES) float32, with at least the first `size` normal numbers of a block.

    `bits` must be x viewed as int32. The other arguments identify the numbers.
    """
    lanes = min(LANES, size)
    for i in range(lanes):
        c0, c1, c2, c3 = words(i, block, step, tensor, seed)
        bits[0, i], bits[1, i], bits[2, i], bits[3, i] = int32(c0), int32(c1), int32(c2), int32(c3)
    for row in range(0, 4 if size > 2 * LANES else 2, 2):
        for i in range(lanes):  # u in (0, 1), never 0
            x[row, i] = (
                single(int32((bits[row, i] >> int32(8)) & int32(0xFFFFFF))) + single(0.5)
            ) * single(2.0**-24)
        for i in range(lanes):
            # ln u: the bits of u give u = 2ᵉ·m with m in [√½, √2), and fdlibm's odd series in
            # s = f/(2 + f) gives ln m = ln(1 + f)
            exponent = (bits[row, i] - _SQRT_HALF) >> int32(23)
            turn = bits[row + 1, i]
            bits[row, i] = int32(bits[row, i] - int32(exponent << int32(23)))
            f = x[row, i] - single(1)
            s = f / (single(2) + f)
            z = s * s
            series = single(0.28498786688) + z * single(0.24279078841)
            series = single(0.40000972152) + z * series
            series = z * (single(0.66666662693) + z * series)
            half = single(0.5) * f * f
            log_u = f - (half - s * (half + series)) + single(exponent) * single(0.69314718056)
            radius = math.sqrt(single(-2) * log_u)
            if turn & int32(1):  # the angle below is in (−π/2, π/2); this bit adds the other half
                radius = -radius
            t = single(turn) * single(2.0**-32)
            z = t * t
            cosine = single(0.23533063) - z * single(0.02580689)
            cosine = single(-1.33526277) + z * cosine
            cosine = single(4.05871213) + z * cosine
            cosine = single(-4.93480220) + z * cosine
            x[row, i] = radius * (single(1) + z * cosine)
            sine = single(-0.59926453) + z * single(0.08214589)
            sine = single(2.55016404) + z * sine
            sine = single(-5.16771278) + z * sine
            x[row + 1, i] = radius * t * (single(3.14159265) + z * sine)


def normal(size: int, place: Tensor) -> Tensor:
    """Computes the normal numbers of a whole tensor, equal to those of `normals` up to rounding.

    Each number depends on its index only, so a compiler can fuse this function into its caller.

    Args:
        size: the number of weights in the tensor.
        place: what `placed` returns.

    Returns:
        The normals, (size,) float32.
    """
    # Bit operations split the index: torch's compiler computes sums and products of indices in 32
    # bits, and Philox needs 64.
    index = torch.arange(size, device=place.device)
    low, high, step, tensor = place.unbind()
    lane, row, block = (
        index & (LANES - 1),
        index >> LANES.bit_length() - 1 & 3,
        index >> BLOCK.bit_length() - 1,
    )
    c0, c1, c2, c3 = philox(
        (lane, block, step.expand_as(lane), tensor.expand_as(lane)), (low, high)
    )
    bits, turn = torch.where(row < 2, c0, c2), torch.where(row < 2, c1, c3)
    u = ((bits >> 8).float() + 0.5) * 2.0**-24
    radius = (-2 * u.log()).sqrt() * (1 - 2 * (turn & 1)).float()
    angle = torch.where(turn > MASK // 2, turn - MASK - 1, turn).float() * (math.pi * 2.0**-32)
    return radius * torch.where(row % 2 == 0, angle.cos(), angle.sin())


def placed(seed: int, step: int, tensor: int, device: torch.device | str = "cpu") -> Tensor:
    """Returns the arguments of a tensor's noise as one tensor, (4,) int64.

    They are the low and the high half of the seed, the step, and the tensor's index in the task.
    """
    return torch.tensor([seed & MASK, seed >> 32, step, tensor], device=device)


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Computes Philox 4×32-10 of many counters; each word is an int64 in [0, 2³²).

    The products can overflow int64, but the bits that are used are still correct.

    Args:
        counter: lane, block, step and tensor.
        key: the low and the high half of the seed.

    Returns:
        The four words of each counter.
    """
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(ROUNDS):
        p0, p1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            ((p1 >> 32) & MASK) ^ c1 ^ k0,
            p1 & MASK,
            ((p0 >> 32) & MASK) ^ c3 ^ k1,
            p0 & MASK,
        )
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return c0, c1, c2, c3
