"""Known answers, and the chains that tests compare with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from torch import Tensor, nn

from replicate.sampling import SamplerConfig, SamplingConfig, Task, noise, sample
from replicate.sampling.compilation import compiled, sweep
from replicate.sampling.samplers import Sampler
from replicate.sampling.storage import NF4

BASELINE = 2.0  # the mean loss at w* of `trace`, nats
EXAMPLES = 64


def quadratic_llc(h: np.ndarray, nbeta: float, localization: float, lr: float) -> float:
    """Returns λ̂ of ½·Σ hᵢwᵢ² under SGLD at w* = 0 with step size ε.

    The chain wᵢ ← (1 − εaᵢ/2)·wᵢ + √ε·N(0, 1), aᵢ = nβhᵢ + γ, is AR(1) with variance
    ε/(1 − (1 − εaᵢ/2)²) = 1/(aᵢ(1 − εaᵢ/4)), so λ̂ = ½·Σ nβhᵢ/(aᵢ(1 − εaᵢ/4)).
    """
    a = nbeta * h + localization
    return float(0.5 * np.sum(nbeta * h / (a * (1 - lr * a / 4))))


class Quadratic:
    """½·Σ hᵢ(wᵢ − w*ᵢ)² for every example. With w* ≠ 0, weight decay and localisation differ."""

    def __init__(self, h: np.ndarray, centre: float = 0.0) -> None:
        self.h = torch.from_numpy(h)
        self.centre = centre
        self.w = nn.Parameter(torch.full((len(h),), centre, dtype=torch.float64))

    def __call__(self, index_B: Tensor) -> Tensor:
        return (0.5 * (self.h * (self.w - self.centre) ** 2).sum()).expand(len(index_B))


def sampled(
    loss: Callable[[Tensor], Tensor],
    parameters: Sequence[nn.Parameter],
    sampler: SamplerConfig,
    nbeta: float,
    *,
    anchors: Sequence[NF4 | None] = (),
    masks: Sequence[Tensor | None] = (),
    order: Callable[[int], np.ndarray] = lambda s: np.random.default_rng(s).permutation(EXAMPLES),
    init_losses: np.ndarray | None = None,
    repeated: bool = False,
    **sampling: Any,
) -> xr.Dataset:
    """Runs chains on `EXAMPLES` examples: one shuffle of two chains with 20 draws, unless
    `sampling` says otherwise.
    """
    shape: dict[str, Any] = {"batch_size": 1, "shuffles": 1, "chains": 2, "burn_in": 0, "draws": 20}
    return sample(
        Task(loss, parameters, masks, anchors, repeated=repeated),
        sampler,
        SamplingConfig(nbeta, **(shape | sampling)),
        np.zeros(EXAMPLES, np.float32) if init_losses is None else init_losses,
        order=order,
        noise=seed,
        advance=silent,
    )


def seed(shuffle: int, chain: int) -> int:
    """Seeds a chain's noise."""
    return 100 * shuffle + chain


def silent(steps: int = 1, note: str = "") -> None:
    """Reports no progress."""


def moved(sampler: Sampler, loss: Callable[[], Tensor], steps: int) -> np.ndarray:
    """Runs a sampler for some steps and returns the loss before each one."""
    losses = np.empty(steps)
    with sampler.attached():
        for step in range(steps):
            value = loss()
            losses[step] = value.item()
            value.backward()
            sampler.step()
    return losses


def trace(
    shuffles: int = 3,
    chains: int = 2,
    burn_in: int = 10,
    draws: int = 200,
    seed: int = 0,
    correlation: float = 0.8,
) -> xr.Dataset:
    """Draws minibatch losses around BASELINE + 0.1, correlated to a known degree with the same
    minibatch's loss at w*, which deviates from BASELINE by the choice of examples.
    """
    rng = np.random.default_rng(seed)
    shape = (shuffles, chains, burn_in + draws)
    deviation = rng.normal(0, 0.2, shape)
    init = BASELINE + deviation
    loss = BASELINE + 0.1 + correlation * deviation + rng.normal(0, 0.05, shape)
    dims = ("shuffle", "chain", "draw")
    diverged = dims[:2], np.zeros(shape[:2], bool)
    variables = {"loss": (dims, loss), "init_loss": (dims, init), "diverged": diverged}
    return xr.Dataset(variables, {"draw": np.arange(-burn_in, draws)})


@compiled
def _fill(out, seed, step, tensor, first, last):
    x = np.empty((4, noise.LANES), np.float32)
    for block in range(first, last):
        noise.normals(x, x.view(np.int32), seed, step, tensor, block, noise.BLOCK)
        start = block * noise.BLOCK
        for i in range(min(noise.BLOCK, out.size - start)):
            out[start + i] = x.reshape(-1)[i]


def filled(size: int, seed: int = 7, step: int = 3, tensor: int = 2) -> np.ndarray:
    """Returns the noise that samplers make on a CPU, (size,) float32."""
    out = np.empty(size, np.float32)
    sweep(_fill, -(-size // noise.BLOCK), out, seed, step, tensor)
    return out


def packed(values: Tensor, dtype: torch.dtype = torch.float32) -> tuple[NF4, Tensor]:
    """Returns a tensor in bitsandbytes' NF4, and the values that bitsandbytes reads from it."""
    data, state = quantize_4bit(values, quant_type="nf4")
    assert state.code is not None and state.blocksize is not None
    anchor = NF4(
        data.reshape(-1), state.absmax, state.code.float(), state.blocksize, values.shape, dtype
    )
    return anchor, dequantize_4bit(data, state).view(values.shape).to(dtype)
