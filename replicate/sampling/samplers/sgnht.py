"""Stochastic gradient Nosé–Hoover thermostat (Ding et al. 2014, NeurIPS 27), in devinterp's
discretisation.

    p ← (1 − ξ)·(p − ε·nβ·∇L_B(w)) + √(2εA)·N(0, I);      w ← w + p;      ξ ← ξ + (mean(p²) − ε),
                                                          ξ₀ = A, p₀ = √ε·N(0, I)

ε: `lr`. A: `diffusion`, noise and initial friction; `noise_diffusion` is the A of the noise alone
where it is another one. mean(p²) is over all weights moved. A weight that leaves |w − w*| < box is
put on the face, and its momentum is reversed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from replicate.sampling import noise
from replicate.sampling.resting import pack, unpack
from replicate.sampling.samplers.base import Sampler
from replicate.sampling.storage import flat, opened, parts, precise, rounded, store, stretch, widen


class SGNHT(Sampler):
    """`friction` is ξ. The noise of the first momenta is that of step 0, so that the steps' begins
    with 1.
    """

    def begin(self) -> None:
        setting = self.setting
        if setting.diffusion is None:
            raise ValueError("SGNHT needs a diffusion factor")
        self.friction = setting.diffusion
        self.spread = (
            2
            * setting.lr
            * (setting.diffusion if setting.noise_diffusion is None else setting.noise_diffusion)
        ) ** 0.5
        self.momenta = [
            (
                setting.lr**0.5
                * noise.normal(p.numel(), noise.placed(self.seed, 0, index, p.device)).view_as(p)
            ).to(precise(p.dtype))
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

    def state(self) -> dict[str, Tensor]:
        return (
            super().state()
            | {"friction": torch.tensor(self.friction, dtype=torch.float64)}
            | pack("momentum", self.momenta)
        )

    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        self.friction = float(state["friction"])
        for momentum, kept in zip(self.momenta, unpack("momentum", state), strict=True):
            momentum.copy_(kept)

    def native(self, index: int) -> None:
        parameter = self.parameters[index]
        number = np.float64 if parameter.dtype == torch.float64 else np.float32
        energies = np.zeros(-(-parameter.numel() // noise.BLOCK))
        tensors = parameter, self.gradient(index), self.anchor[index], self.momenta[index]
        values = [
            number(value)
            for value in (self.setting.lr * self.nbeta, 1 - self.friction, self.spread, self.box)
        ]
        place = self.seed, self.steps + 1, index
        noise.sweep(
            _sweep,
            parameter.numel(),
            *map(flat, tensors),
            self.held(index),
            energies,
            *place,
            *values,
        )
        self.energies[index] = float(energies.sum())

    def portable(self, index: int) -> None:
        parameter, anchor = self.parameters[index], self.anchor[index]
        values = self.values(
            parameter.device, self.setting.lr * self.nbeta, 1 - self.friction, self.spread, self.box
        )
        tensors = (
            parameter.data,
            self.gradient(index),
            parts(anchor),
            self.momenta[index],
            self.masks[index],
        )
        self.energies[index] = noise.fused(_update)(
            *tensors, stretch(anchor), self.place(index, self.steps + 1), values
        )


def _update(
    w: Tensor,
    gradient: Tensor,
    anchor: tuple[Tensor, ...],
    momentum: Tensor,
    mask: Tensor | None,
    stretch: int,
    place: Tensor,
    values: Tensor,
) -> Tensor:
    force, keep, spread, box = values.to(precise(w.dtype)).unbind()
    here, slope, origin = (
        w.reshape(-1).to(precise(w.dtype)),
        gradient.reshape(-1),
        opened(anchor, w.numel(), stretch, w.dtype),
    )
    p = keep * (momentum.reshape(-1) - force * slope) + spread * noise.normal(w.numel(), place)
    if mask is not None:
        p = mask.reshape(-1) * p
    there = here + p
    energy = p.double().square().sum()
    momentum.copy_(torch.where((there - origin).abs() < box, p, -p).view_as(momentum))
    store(w, torch.minimum(torch.maximum(there, origin - box), origin + box), place)
    return energy


@noise.compiled
def _sweep(
    w,
    gradient,
    anchor,
    momentum,
    mask,
    energies,
    seed,
    step,
    tensor,
    force,
    keep,
    spread,
    box,
    first,
    last,
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
        energy = 0.0
        for i in range(size):
            j = start + i
            p = keep * (momentum[j] - force * slope[i]) + spread * flat_x[i]
            if mask.size:
                p *= mask[j]
            energy += np.float64(p) * np.float64(p)
            there = here[i] + p
            momentum[j] = p if abs(there - origin[i]) < box else -p
            here[i] = min(max(there, origin[i] - box), origin[i] + box)
        energies[block] = energy
        rounded(w, start, here, seed, step, tensor, block)
