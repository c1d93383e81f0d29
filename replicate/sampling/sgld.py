"""Stochastic gradient Langevin dynamics (Welling & Teh 2011), localised around w* (Lau et al. 2023, arXiv 2308.12108).

    w ← w − (ε/2)·[nβ·∇L_B(w) + γ(w − w*) + μ·w] + σ·√ε·N(0, I), clipped to |w − w*| ≤ box

ε: step size `lr`. nβ: effective inverse temperature. L_B: mean loss of a minibatch, nats per label. γ: `localization`. μ: `weight_decay`.
σ: `noise_level`, 1 for a posterior. A weight that a mask holds neither drifts nor diffuses.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from replicate.sampling import noise
from replicate.sampling.sampler import Sampler, flat
from replicate.sampling.setting import Setting

NO_MASK = np.empty(0, np.float32)


class SGLD(Sampler):
    def native(self, index: int) -> None:
        parameter, mask = self.parameters[index], self.masks[index]
        tensors = parameter, self.gradient(index), self.anchor[index]
        held = NO_MASK if mask is None else flat(mask)
        values = coefficients(self.setting, self.nbeta, parameter.dtype)
        noise.sweep(_sweep, parameter.numel(), *map(flat, tensors), held, self.seed, self.steps, index, *values)

    def portable(self, index: int) -> None:
        values = self.values(*map(float, coefficients(self.setting, self.nbeta, torch.float64)))
        update = noise.fused(_update)
        update(
            self.parameters[index].data, self.gradient(index), self.anchor[index], self.masks[index], self.place(index, self.steps), values
        )


def _update(w: Tensor, gradient: Tensor, anchor: Tensor, mask: Tensor | None, place: Tensor, values: Tensor) -> None:
    force, pull, decay, spread, box = values.to(w.dtype if w.dtype == torch.float64 else torch.float32).unbind()
    x = noise.normal(w.numel(), place).view_as(w)
    change = spread * x - (force * gradient + pull * (w - anchor) + decay * w)
    if mask is not None:
        change = mask * change
    w.copy_(torch.minimum(torch.maximum(w + change, anchor - box), anchor + box))


def coefficients(setting: Setting, nbeta: float, dtype: torch.dtype) -> list[np.floating]:
    """ε·nβ/2, ε·γ/2, ε·μ/2, σ·√ε and the box, in the precision of the weights."""
    half, box = setting.lr / 2, float("inf") if setting.bounding_box is None else setting.bounding_box
    values = half * nbeta, half * setting.localization, half * setting.weight_decay, setting.noise_level * setting.lr**0.5, box
    return [np.float32(value) if dtype == torch.float32 else np.float64(value) for value in values]


@noise.compiled
def _sweep(w, gradient, anchor, mask, seed, step, tensor, force, pull, decay, spread, box, first, last):
    x = np.empty((4, noise.LANES), np.float32)
    bits, flat_x = x.view(np.int32), x.reshape(-1)
    for block in range(first, last):
        noise.normals(x, bits, seed, step, tensor, block)
        start = block * noise.BLOCK
        for i in range(min(noise.BLOCK, w.size - start)):
            j = start + i
            here = w[j]
            change = spread * flat_x[i] - (force * gradient[j] + pull * (here - anchor[j]) + decay * here)
            if mask.size:
                change *= mask[j]
            w[j] = min(max(here + change, anchor[j] - box), anchor[j] + box)
