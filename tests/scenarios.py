"""Known answers."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from torch import nn

from replicate.sampling import noise
from replicate.sampling.storage import NF4

BASELINE = 2.0  # L̄₀ of `trace`, nats


def quadratic_llc(h: np.ndarray, nbeta: float, localization: float, lr: float) -> float:
    """λ̂ of ½·Σ hᵢwᵢ² under SGLD at w* = 0 with step size ε: ½·Σ nβhᵢ/(aᵢ(1 − εaᵢ/4)), aᵢ = nβhᵢ +
    γ.

    The chain wᵢ ← (1 − εaᵢ/2)·wᵢ + √ε·N(0, 1) is AR(1) with variance ε/(1 − (1 − εaᵢ/2)²) = 1/(aᵢ(1
    − εaᵢ/4)).
    """
    a = nbeta * h + localization
    return float(0.5 * np.sum(nbeta * h / (a * (1 - lr * a / 4))))


class Quadratic:
    """½·Σ hᵢ(wᵢ − w*ᵢ)² for every example alike; w* is not 0, so that weight decay and localisation
    differ.
    """

    def __init__(self, h: np.ndarray, centre: float = 0.0) -> None:
        self.h = torch.from_numpy(h)
        self.centre = centre
        self.w = nn.Parameter(torch.full((len(h),), centre, dtype=torch.float64))

    def __call__(self, index_B: torch.Tensor) -> torch.Tensor:
        return (0.5 * (self.h * (self.w - self.centre) ** 2).sum()).expand(len(index_B))


def trace(
    groups: int = 3,
    chains: int = 2,
    burn_in: int = 10,
    draws: int = 200,
    seed: int = 0,
    correlation: float = 0.8,
) -> xr.Dataset:
    """Minibatch losses around BASELINE + 0.1 whose luck they share with the same minibatch's loss
    at w*, to a known degree.
    """
    rng = np.random.default_rng(seed)
    shape = (groups, chains, burn_in + draws)
    luck = rng.normal(0, 0.2, shape)
    init = BASELINE + luck
    loss = BASELINE + 0.1 + correlation * luck + rng.normal(0, 0.05, shape)
    dims = ("group", "chain", "draw")
    return xr.Dataset(
        {
            "loss": (dims, loss),
            "init_loss": (dims, init),
            "failed": (dims[:2], np.zeros(shape[:2], bool)),
        },
        {"draw": np.arange(-burn_in, draws)},
    )


@noise.compiled
def _fill(out, seed, step, tensor, first, last):
    x = np.empty((4, noise.LANES), np.float32)
    for block in range(first, last):
        noise.normals(x, x.view(np.int32), seed, step, tensor, block)
        start = block * noise.BLOCK
        for i in range(min(noise.BLOCK, out.size - start)):
            out[start + i] = x.reshape(-1)[i]


def filled(size: int, seed: int = 7, step: int = 3, tensor: int = 2) -> np.ndarray:
    """The noise that samplers make on a CPU, (size,) float32."""
    out = np.empty(size, np.float32)
    noise.sweep(_fill, size, out, seed, step, tensor)
    return out


def packed(values: torch.Tensor, dtype: torch.dtype = torch.float32) -> tuple[NF4, torch.Tensor]:
    """A tensor in bitsandbytes' NF4, and what bitsandbytes has for its values."""
    data, state = quantize_4bit(values, quant_type="nf4")
    assert state.code is not None and state.blocksize is not None
    anchor = NF4(
        data.reshape(-1), state.absmax, state.code.float(), state.blocksize, values.shape, dtype
    )
    return anchor, dequantize_4bit(data, state).view(values.shape).to(dtype)
