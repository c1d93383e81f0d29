"""Stochastic gradient Nosé–Hoover thermostat (Ding et al. 2014, NeurIPS 27), in devinterp's
discretisation.

    p ← (1 − ξ)·(p − ε·nβ·∇L_B(w)) + √(2εA)·N(0, I)        p₀ = √ε·N(0, I)
    w ← w + p
    ξ ← ξ + mean(p²) − ε                                   ξ₀ = A

    p                   momentum; its sign is reversed if the weight reaches the box
    ξ                   friction; the mean of p² is over all weights that move
    ε    lr             step size
    nβ   nbeta          inverse temperature times the number of examples
    L_B                 mean loss of a minibatch, nats per label
    A    diffusion      noise and initial friction; `noise_diffusion` replaces it in the noise
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from replicate.sampling import noise
from replicate.sampling.samplers.base import Sampler
from replicate.sampling.samplers.equation import equation
from replicate.sampling.storage import compute_dtype

KEEP = 2  # the place of 1 − ξ in the box and the coefficients


class SGNHT(Sampler):
    """Samples exp(−nβ·L(w)) inside the box, with one momentum per weight and one friction."""

    has_momentum = True
    knobs = ("diffusion", "noise_diffusion", "bounding_box")
    memory_bytes = 4

    def begin(self) -> None:
        """Draws the initial momenta from the noise of step 0.

        Raises:
            ValueError: there is no diffusion factor.
        """
        lr, diffusion = self.config.lr, self.config.diffusion
        if diffusion is None:
            raise ValueError("SGNHT needs a diffusion factor")
        self.friction = diffusion
        noise_diffusion = self.config.noise_diffusion
        self.spread = (2 * lr * (diffusion if noise_diffusion is None else noise_diffusion)) ** 0.5
        for index, (p, mask) in enumerate(zip(self.parameters, self.masks, strict=True)):
            x = noise.normal(p.numel(), noise.placed(self.seed, 0, index, p.device)).view_as(p)
            momentum = (lr**0.5 * x).to(compute_dtype(p.dtype))
            self.memory[index] = momentum * (1.0 if mask is None else mask)
        self.moving = [
            p.numel() if mask is None else int(mask.count_nonzero())
            for p, mask in zip(self.parameters, self.masks, strict=True)
        ]
        self.noise_step = 1

    def step(self) -> None:
        """Ends a step: updates the friction ξ from the mean of p².

        Where torch moves the weights, 1 − ξ is in the numbers on the device, and changes there.
        """
        if self._sums is not None:
            square, moved = (self._sums[:, 2:] * self._weight).sum(dim=0)
            change = torch.where(moved > 0, square / moved - self.config.lr, 0.0)
            self._sums[:, 2:] = 0
            for _, numbers in self._numbers.values():
                numbers[KEEP] -= change.to(numbers.device)
        elif self.squares:
            moved = sum(self.moving[index] for index in self.squares)
            square = sum(self.squares[index] for index in sorted(self.squares))
            self.friction += square / moved - self.config.lr
        self.squares = {}
        super().step()

    @cached_property
    def _weight(self) -> Tensor:
        """What the sums of a parameter count, (parameters, 2): ΣΔ² once, and its moving weights."""
        counts = [[1.0, number] for number in self.moving]
        return torch.tensor(counts, dtype=torch.float64, device=self.parameters[0].device)

    def coefficients(self) -> tuple[float, ...]:
        """Returns ε·nβ, 1 − ξ and √(2εA)."""
        return self.config.lr * self.nbeta, 1 - self.friction, self.spread

    @staticmethod
    @equation
    def update(w, gradient, anchor, noise, memory, coefficients):
        """Returns a weight's new momentum, which is also the change of the weight."""
        force, keep, spread = coefficients
        return keep * (memory - force * gradient) + spread * noise
