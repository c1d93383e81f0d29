"""Stochastic gradient Langevin dynamics (Welling & Teh 2011), localised around w* (Lau et al. 2023,
arXiv 2308.12108).

    w ← w − (ε/2)·[nβ·∇L_B(w) + γ(w − w*) + μ·w] + σ·√ε·N(0, I), clipped to |w − w*| ≤ box

ε: step size `lr`. nβ: effective inverse temperature. L_B: mean loss of a minibatch, nats per label.
γ: `localization`. μ: `weight_decay`. σ: `noise_level`, 1 for a posterior. A weight that a mask
holds neither drifts nor diffuses.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from replicate.sampling import noise
from replicate.sampling.config import Setting
from replicate.sampling.samplers.base import Sampler
from replicate.sampling.storage import flat, opened, parts, precise, rounded, store, stretch, widen


class SGLD(Sampler):
    def native(self, index: int) -> None:
        parameter = self.parameters[index]
        tensors = parameter, self.gradient(index), self.anchor[index]
        values = coefficients(self.setting, self.nbeta, parameter.dtype)
        noise.sweep(
            _sweep,
            parameter.numel(),
            *map(flat, tensors),
            self.held(index),
            self.seed,
            self.steps,
            index,
            *values,
        )

    def portable(self, index: int) -> None:
        parameter, anchor = self.parameters[index], self.anchor[index]
        values = self.values(
            parameter.device, *map(float, coefficients(self.setting, self.nbeta, torch.float64))
        )
        tensors = parameter.data, self.gradient(index), parts(anchor), self.masks[index]
        noise.fused(_update)(*tensors, stretch(anchor), self.place(index, self.steps), values)


def _update(
    w: Tensor,
    gradient: Tensor,
    anchor: tuple[Tensor, ...],
    mask: Tensor | None,
    stretch: int,
    place: Tensor,
    values: Tensor,
) -> None:
    force, pull, decay, spread, box = values.to(precise(w.dtype)).unbind()
    here, slope, origin = (
        w.reshape(-1).to(precise(w.dtype)),
        gradient.reshape(-1),
        opened(anchor, w.numel(), stretch, w.dtype),
    )
    change = spread * noise.normal(w.numel(), place) - (
        force * slope + pull * (here - origin) + decay * here
    )
    if mask is not None:
        change = mask.reshape(-1) * change
    store(w, torch.minimum(torch.maximum(here + change, origin - box), origin + box), place)


def coefficients(setting: Setting, nbeta: float, dtype: torch.dtype) -> list[np.floating]:
    """ε·nβ/2, ε·γ/2, ε·μ/2, σ·√ε and the box, in the precision that the weights are moved in."""
    half, box = (
        setting.lr / 2,
        float("inf") if setting.bounding_box is None else setting.bounding_box,
    )
    values = (
        half * nbeta,
        half * setting.localization,
        half * setting.weight_decay,
        setting.noise_level * setting.lr**0.5,
        box,
    )
    return [np.float64(value) if dtype == torch.float64 else np.float32(value) for value in values]


@noise.compiled
def _sweep(
    w, gradient, anchor, mask, seed, step, tensor, force, pull, decay, spread, box, first, last
):
    x, room = np.empty((4, noise.LANES), np.float32), np.empty((3, noise.BLOCK), np.float32)
    bits, flat_x = x.view(np.int32), x.reshape(-1)
    for block in range(first, last):
        noise.normals(x, bits, seed, step, tensor, block)
        start = block * noise.BLOCK
        size = min(noise.BLOCK, w.size - start)
        here, slope, origin = (
            widen(w, start, size, room[0]),
            widen(gradient, start, size, room[1]),
            widen(anchor, start, size, room[2]),
        )
        for i in range(size):
            change = spread * flat_x[i] - (
                force * slope[i] + pull * (here[i] - origin[i]) + decay * here[i]
            )
            if mask.size:
                change *= mask[start + i]
            here[i] = min(max(here[i] + change, origin[i] - box), origin[i] + box)
        rounded(w, start, here, seed, step, tensor, block)
