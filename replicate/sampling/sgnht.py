"""Stochastic gradient Nosé–Hoover thermostat (Ding et al. 2014, NeurIPS 27), in devinterp's discretisation.

    p ← (1 − ξ)·(p − ε·nβ·∇L_B(w)) + √(2εA)·N(0, I);      w ← w + p;      ξ ← ξ + (mean(p²) − ε),      ξ₀ = A, p₀ = √ε·N(0, I)

ε: `lr`. A: `diffusion`, noise and initial friction; `noise_diffusion` is the A of the noise alone where it is another one. mean(p²) is
over all weights moved. A weight that leaves |w − w*| < box is put on the face, and its momentum is reversed.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from replicate.sampling import noise
from replicate.sampling.sampler import Sampler, flat
from replicate.sampling.sgld import NO_MASK


class SGNHT(Sampler):
    """`friction` is ξ. The noise of the first momenta is that of step 0, so that the steps' begins with 1."""

    def begin(self) -> None:
        setting = self.setting
        if setting.diffusion is None:
            raise ValueError("SGNHT needs a diffusion factor")
        self.friction = setting.diffusion
        self.spread = (2 * setting.lr * (setting.diffusion if setting.noise_diffusion is None else setting.noise_diffusion)) ** 0.5
        self.momenta = [
            (setting.lr**0.5 * noise.normal(p.numel(), noise.placed(self.seed, 0, index, p.device)).view_as(p)).to(p.dtype)
            * (1.0 if mask is None else mask)
            for index, (p, mask) in enumerate(zip(self.parameters, self.masks, strict=True))
        ]
        self.energies: dict[int, Tensor | float] = {}  # Σp² of each parameter moved in this step

    def step(self) -> None:
        if self.energies:
            moved = sum(self.parameters[index].numel() for index in self.energies)
            energy = sum(float(self.energies[index]) for index in sorted(self.energies))
            self.friction += energy / moved - self.setting.lr
        self.energies = {}
        super().step()

    def native(self, index: int) -> None:
        parameter, mask = self.parameters[index], self.masks[index]
        precise = np.float32 if parameter.dtype == torch.float32 else np.float64
        energies = np.zeros(-(-parameter.numel() // noise.BLOCK))
        tensors = parameter, self.gradient(index), self.anchor[index], self.momenta[index]
        held = NO_MASK if mask is None else flat(mask)
        values = [precise(value) for value in (self.setting.lr * self.nbeta, 1 - self.friction, self.spread, self.box)]
        noise.sweep(_sweep, parameter.numel(), *map(flat, tensors), held, energies, self.seed, self.steps + 1, index, *values)
        self.energies[index] = float(energies.sum())

    def portable(self, index: int) -> None:
        values = self.values(self.setting.lr * self.nbeta, 1 - self.friction, self.spread, self.box)
        tensors = self.parameters[index].data, self.gradient(index), self.anchor[index], self.momenta[index], self.masks[index]
        self.energies[index] = noise.fused(_update)(*tensors, self.place(index, self.steps + 1), values)


def _update(w: Tensor, gradient: Tensor, anchor: Tensor, momentum: Tensor, mask: Tensor | None, place: Tensor, values: Tensor) -> Tensor:
    force, keep, spread, box = values.to(w.dtype if w.dtype == torch.float64 else torch.float32).unbind()
    p = keep * (momentum - force * gradient) + spread * noise.normal(w.numel(), place).view_as(w)
    if mask is not None:
        p = mask * p
    there = w + p
    energy = p.double().square().sum()
    momentum.copy_(torch.where((there - anchor).abs() < box, p, -p))
    w.copy_(torch.minimum(torch.maximum(there, anchor - box), anchor + box))
    return energy


@noise.compiled
def _sweep(w, gradient, anchor, momentum, mask, energies, seed, step, tensor, force, keep, spread, box, first, last):
    x = np.empty((4, noise.LANES), np.float32)
    bits, flat_x = x.view(np.int32), x.reshape(-1)
    for block in range(first, last):
        noise.normals(x, bits, seed, step, tensor, block)
        start = block * noise.BLOCK
        energy = 0.0
        for i in range(min(noise.BLOCK, w.size - start)):
            j = start + i
            p = keep * (momentum[j] - force * gradient[j]) + spread * flat_x[i]
            if mask.size:
                p *= mask[j]
            energy += np.float64(p) * np.float64(p)
            there = w[j] + p
            momentum[j] = p if abs(there - anchor[j]) < box else -p
            w[j] = min(max(there, anchor[j] - box), anchor[j] + box)
        energies[block] = energy
