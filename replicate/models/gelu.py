"""Computes GELU (tanh form) on a CPU in one pass, with its slope for the backward pass.

    gelu(x) = x·σ(u),    u = 2·√(2/π)·(x + 0.044715·x³),    σ the logistic function

This is the form of Hendrycks & Gimpel 2016 (arXiv 1606.08415), because ½·(1 + tanh(u/2)) = σ(u).
torch computes tanh in the forward and in the backward pass, which takes a sixth of a small model's
step. This module takes less than half of that time.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import float32 as single
from numba import int32
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from replicate.sampling.compilation import compiled, inlined, sweep

BLOCK = 1024
SCALE, CUBIC = np.float32(2 * math.sqrt(2 / math.pi)), np.float32(0.044715)
LOG2E, LN2_HIGH, LN2_LOW = (
    np.float32(1.44269504),
    np.float32(0.693359375),
    np.float32(-2.1219444e-4),
)


def gelu(x: Tensor) -> Tensor:
    """Returns GELU of a tensor, in its shape and dtype.

    A float32 tensor on a CPU is computed by this module, and can be differentiated only once. Other
    tensors are computed by torch.
    """
    if x.device.type == "cpu" and x.dtype == torch.float32:
        return _GELU.apply(x)  # pyright: ignore[reportReturnType]
    return functional.gelu(x, approximate="tanh")


class _GELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        y, slope = torch.empty_like(x), torch.empty_like(x)
        arrays = (each.detach().view(-1).numpy() for each in (x, y, slope))
        sweep(_value_and_slope, -(-x.numel() // BLOCK), *arrays)
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore
        (slope,) = ctx.saved_tensors
        return gradient * slope


@compiled
def _value_and_slope(x, y, slope, first, last):
    """Fills y and slope, (n,) float32, in the blocks from `first` to `last` − 1."""
    exponentials, bits = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.int32)
    for start in range(first * BLOCK, min(last * BLOCK, x.size), BLOCK):
        size = min(BLOCK, x.size - start)
        for i in range(size):
            z = x[start + i]
            exponentials[i] = -SCALE * z * (single(1) + CUBIC * z * z)
        _exponentiate(exponentials, bits, size)
        for i in range(size):
            z = x[start + i]
            share = single(1) / (single(1) + exponentials[i])
            y[start + i] = z * share
            rise = SCALE * (single(1) + single(3) * CUBIC * z * z)
            slope[start + i] = share + z * share * (single(1) - share) * rise


@inlined
def _exponentiate(x, bits, size):
    """Replaces x[:size] by eˣ, to about one unit in the last place (Cephes' polynomial).

    eˣ = 2ⁿ·eʳ with |r| ≤ ½·ln 2. `bits`, (BLOCK,) int32, is filled with the bits of 2ⁿ. x is first
    clipped to ± 87.
    """
    powers = bits.view(np.float32)
    for i in range(size):
        z = min(max(x[i], single(-87)), single(87))
        biased = int32(z * LOG2E + single(127.5))  # pyright: ignore
        bits[i] = int32(biased << int32(23))
        n = single(int32(biased - int32(127)))  # pyright: ignore
        r = z - n * LN2_HIGH - n * LN2_LOW
        series = single(1.3981999507e-3) + r * single(1.9875691500e-4)
        series = single(8.3334519073e-3) + r * series
        series = single(4.1665795894e-2) + r * series
        series = single(1.6666665459e-1) + r * series
        series = single(5.0000001201e-1) + r * series
        x[i] = r * r * series + r + single(1)
    for i in range(size):
        x[i] *= powers[i]
