"""Applies any sampler's equation to a tensor of weights, with noise, formats, mask and box.

    Δ = equation(w, gradient, anchor, noise, memory), 0 where the mask is 0
    w ← w + Δ, clipped to |w − anchor| ≤ box

If the equation has momentum, its memory is the momentum: Δ is stored there, with the opposite sign
if the weight reached the box, and the step also computes ΣΔ². If it keeps the noise, its memory is
the noise of the step before.

Before the step it measures where the weights are: Σ(w − anchor)·gradient and Σ(w − anchor)².
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from replicate.sampling import noise
from replicate.sampling.compilation import compiled, summed
from replicate.sampling.storage import compute_dtype, round_into, store, unpack, widen

Equation = Callable[..., Any]


@summed
def place(here, slope, origin, size):
    """Returns Σ(w − anchor)·gradient and Σ(w − anchor)² of a block of `size` weights."""
    along, square = 0.0, 0.0
    for i in range(size):
        away = np.float64(here[i]) - np.float64(origin[i])
        along += away * np.float64(slope[i])
        square += away * away
    return along, square


@cache
def cpu_step(
    equation: Equation, has_momentum: bool, keeps_noise: bool = False
) -> Callable[..., None]:
    """Returns the compiled loop for `compilation.sweep`, which reads each weight only once.

    The loop takes views of w, the gradient and the anchor (see `storage.flat`); the memory, (n,)
    floats or None; the mask, (n,) floats or empty; two float64 arrays for each block's ΣΔ² and what
    `place` returns (blocks, 2); the seed, the step and the tensor's index; the box; the equation's
    coefficients; the range of blocks.
    """

    @compiled
    def loop(
        w,
        gradient,
        anchor,
        memory,
        mask,
        squares,
        places,
        seed,
        step,
        tensor,
        box,
        coefficients,
        first,
        last,
    ):
        x, buffers = np.empty((4, noise.LANES), np.float32), np.empty((3, noise.BLOCK), np.float32)
        bits, normals = x.view(np.int32), x.reshape(-1)
        for block in range(first, last):
            start = block * noise.BLOCK
            size = min(noise.BLOCK, w.size - start)
            noise.normals(x, bits, seed, step, tensor, block, size)
            here = widen(w, start, size, buffers[0])
            slope = widen(gradient, start, size, buffers[1])
            origin = widen(anchor, start, size, buffers[2])
            places[block, 0], places[block, 1] = place(here, slope, origin, size)
            square = 0.0
            for i in range(size):
                known = None if memory is None else memory[start + i]
                change = equation(here[i], slope[i], origin[i], normals[i], known, coefficients)
                if mask.size:
                    change *= mask[start + i]
                there = here[i] + change
                if has_momentum:
                    square += np.float64(change) * np.float64(change)
                    stays = abs(there - origin[i]) < box
                    memory[start + i] = change if stays else -change  # pyright: ignore
                if keeps_noise:
                    memory[start + i] = normals[i]  # pyright: ignore
                here[i] = min(max(there, origin[i] - box), origin[i] + box)
            if has_momentum:
                squares[block] = square
            round_into(w, start, here, seed, step, tensor, block)

    return loop


@cache
def torch_step(
    equation: Equation, has_momentum: bool, keeps_noise: bool = False
) -> Callable[..., tuple[Tensor | None, Tensor]]:
    """Returns the same step in torch, for any device and dtype, to be compiled for GPUs.

    Its argument `numbers` holds the box and the coefficients. It returns ΣΔ², or None if the
    equation has no momentum, and what `place` returns, (2,).
    """

    def step(
        w: Tensor,
        gradient: Tensor,
        anchor: tuple[Tensor, ...],
        memory: Tensor | None,
        mask: Tensor | None,
        per_scale: int,
        counter: Tensor,
        numbers: Tensor,
    ) -> tuple[Tensor | None, Tensor]:
        dtype = compute_dtype(w.dtype)
        box, *coefficients = numbers.to(dtype).unbind()
        here, slope = w.reshape(-1).to(dtype), gradient.reshape(-1)
        origin = unpack(anchor, w.numel(), per_scale, w.dtype)
        known = None if memory is None else memory.reshape(-1)
        away = here - origin
        places = torch.stack([(away * slope).double().sum(), away.double().square().sum()])
        x = noise.normal(w.numel(), counter)
        change = equation(here, slope, origin, x, known, coefficients)
        if mask is not None:
            change = mask.reshape(-1) * change
        there = here + change
        square = None
        if has_momentum and memory is not None:
            square = change.double().square().sum()
            reflected = torch.where((there - origin).abs() < box, change, -change)
            memory.copy_(reflected.view_as(memory))
        if keeps_noise and memory is not None:
            memory.copy_(x.view_as(memory))
        store(w, torch.minimum(torch.maximum(there, origin - box), origin + box), counter)
        return square, places

    return step
