"""Gaussian noise that is a function of its place: the same on any number of threads, processes and
devices.

Philox 4×32-10 (Salmon et al. 2011, doi 10.1145/2063384.2063405) turns a counter into 128 random
bits, keyed by a chain's seed, and Box & Muller turn those into four normals. The counter is (lane,
block, step, tensor): a block is 4 × `LANES` consecutive weights of a tensor, and lane i's four
normals are those of weights i, i + LANES, i + 2·LANES and i + 3·LANES of the block.

`normals` is for the CPU, inlined into each sampler's loop so that no noise is ever stored; `normal`
is the same in torch, for GPUs. Resolution: 2⁻²⁴ in the radius, so that no normal exceeds 5.9 (one
in 2·10⁸ would).
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import config, int32, njit, uint64  # pyright: ignore[reportPrivateImportUsage]
from numba import float32 as single
from torch import Tensor

# Numba keeps compiled kernels, and would take an old one while the kernel's own file stands,
# whatever it inlines from others: so where it keeps them is named by all of them.
_HERE = Path(__file__).parent
_SOURCES = sha256(b"".join(file.read_bytes() for file in sorted(_HERE.rglob("*.py"))))
setattr(config, "CACHE_DIR", str(_HERE / "__pycache__" / _SOURCES.hexdigest()[:16]))  # noqa: B010

LANES = 1024
BLOCK = 4 * LANES
ROUNDS = 10
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85
MASK = 0xFFFFFFFF

compiled = njit(
    nogil=True, cache=True, fastmath={"contract", "nsz"}, error_model="numpy", boundscheck=False
)
inlined = njit(
    inline="always", fastmath={"contract", "nsz"}, error_model="numpy", boundscheck=False
)

_M0, _M1, _W0, _W1 = (np.uint64(value) for value in (*MULTIPLIERS, *WEYL))
_LOW, _SHIFT = np.uint64(MASK), np.uint64(32)
_SQRT_HALF = np.int32(0x3F3504F3)  # the bits of √½


@inlined
def words(lane, block, step, tensor, seed):
    """Philox of one counter: four words, each in the low half of a uint64."""
    c0, c1, c2, c3 = uint64(lane), uint64(block), uint64(step), uint64(tensor)
    k0, k1 = uint64(seed) & _LOW, uint64(seed) >> _SHIFT
    for _ in range(ROUNDS):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _SHIFT) ^ c1 ^ k0, p1 & _LOW, (p0 >> _SHIFT) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3


@inlined
def normals(x, bits, seed, step, tensor, block):
    """Fills x (4, LANES) float32 with a block's normals; `bits` is its view as int32."""
    for i in range(LANES):
        c0, c1, c2, c3 = words(i, block, step, tensor, seed)
        bits[0, i], bits[1, i], bits[2, i], bits[3, i] = int32(c0), int32(c1), int32(c2), int32(c3)
    for row in range(0, 4, 2):
        for i in range(LANES):  # u in (0, 1), never 0
            x[row, i] = (
                single(int32((bits[row, i] >> int32(8)) & int32(0xFFFFFF))) + single(0.5)
            ) * single(2.0**-24)
        for i in range(LANES):
            # ln u: u = 2ᵉ·m with m in [√½, √2), by the bits of u; ln m = ln(1 + f) by the odd
            # series in s = f/(2 + f) (fdlibm's)
            exponent = (bits[row, i] - _SQRT_HALF) >> int32(23)
            turn = bits[row + 1, i]
            bits[row, i] = int32(bits[row, i] - int32(exponent << int32(23)))
            f = x[row, i] - single(1)
            s = f / (single(2) + f)
            z = s * s
            series = z * (
                single(0.66666662693)
                + z
                * (single(0.40000972152) + z * (single(0.28498786688) + z * single(0.24279078841)))
            )
            half = single(0.5) * f * f
            radius = math.sqrt(
                single(-2)
                * (f - (half - s * (half + series)) + single(exponent) * single(0.69314718056))
            )
            if turn & int32(1):  # the half of the circle; the angle itself is in (−π/2, π/2)
                radius = -radius
            t = single(turn) * single(2.0**-32)
            z = t * t
            x[row, i] = radius * (
                single(1)
                + z
                * (
                    single(-4.93480220)
                    + z
                    * (
                        single(4.05871213)
                        + z
                        * (single(-1.33526277) + z * (single(0.23533063) - z * single(0.02580689)))
                    )
                )
            )
            x[row + 1, i] = (
                radius
                * t
                * (
                    single(3.14159265)
                    + z
                    * (
                        single(-5.16771278)
                        + z
                        * (single(2.55016404) + z * (single(-0.59926453) + z * single(0.08214589)))
                    )
                )
            )


def normal(size: int, place: Tensor) -> Tensor:
    """The normals of a whole tensor, (size,) float32, in torch: what `normals` gives up to
    rounding. `place`: see `placed`.

    A function of the index alone, without a number that depends on another, so that a compiler
    fuses it into what it is used in. The index is taken apart by operations on bits: of sums and
    products the compiler makes an index of 32 bits, and Philox needs 64.
    """
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
    """(4,) int64: the two halves of a seed, a step and a tensor's number."""
    return torch.tensor([seed & MASK, seed >> 32, step, tensor], device=device)


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox 4×32-10 of counters, each word an int64 in [0, 2³²): int64 products wrap, and their
    words are right all the same.
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


@cache
def fused(update: Callable[..., Any]) -> Callable[..., Any]:
    """An update as one kernel, one pass over the memory: on a GPU, compiled by torch for any size;
    as it is where there is no compiler.
    """
    return (
        torch.compile(update, dynamic=True)
        if torch.cuda.is_available() and shutil.which("gcc")
        else update
    )


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "sweep")


def sweep(loop: Callable[..., Any], size: int, *arguments: Any) -> None:
    """Calls a compiled `loop(*arguments, first block, last block + 1)` for all blocks of `size`
    weights, on torch's number of threads.
    """
    blocks = -(-size // BLOCK)
    count = min(torch.get_num_threads(), -(-blocks // 16))
    if count <= 1:
        loop(*arguments, 0, blocks)
        return
    bounds = [blocks * i // count for i in range(count + 1)]
    for done in [_threads(count).submit(loop, *arguments, *pair) for pair in pairwise(bounds)]:
        done.result()
