"""Langevin dynamics with averaged noise (Leimkuhler & Matthews 2014, doi 10.1098/rspa.2014.0120).

    w ← w − (ε/2)·[nβ·∇L_B(w) + γ·(w − w*) + μ·w] + √ε·(ξₜ + ξₜ₊₁)/2,    ξₜ ~ N(0, I)

The symbols are those of SGLD, and a step costs the same. On a quadratic loss with exact gradients,
the variance of w is 1/a for every ε < 4/a, where a = nβ·h + γ + μ; SGLD's is 1/(a·(1 − ε·a/4)). So
the step can be larger. The noise of minibatches, with variance σ², still raises the variance by a
factor 1 + ε·nβ²·σ²/(4·(1 − ε·a/4)).

Where the data hardly constrain the weights, the posterior is N(w*, 1/γ). With `stationary`, a chain
starts there in equilibrium:

    w₀ = w* + (√ε/2)·ξ₀ + √(1/γ − ε/4)·z,    z ~ N(0, I)

This is right only where Var(U)/λ̂ ≤ 0.1 with U = nβ·(L(w) − L(w*)). Elsewhere it can start so far
from w* that the chain does not return.
"""

from __future__ import annotations

import torch

from replicate.errors import ArgumentError
from replicate.sampling import noise
from replicate.sampling.samplers.equation import equation
from replicate.sampling.samplers.sgld import SGLD
from replicate.sampling.storage import compute_dtype, dense, store


class LeimkuhlerMatthews(SGLD):
    """Samples the same posterior as SGLD, with a smaller bias at the same step.

    Raises:
        ArgumentError: the start is stationary, and γ is 0 or ε is not below 4/γ.
    """

    keeps_noise = True
    knobs = ("localization", "weight_decay", "bounding_box", "stationary")
    memory_bytes = 4

    def begin(self) -> None:
        """Draws ξ₀ and, for a stationary start, moves the parameters to w₀."""
        lr, pull = self.config.lr, self.config.localization
        if self.config.stationary and not 0 < lr * pull < 4:
            raise ArgumentError(
                f"stationary: needs localization above 0 and lr × localization below 4; "
                f"it is {lr:g} × {pull:g}"
            )
        for index, p in enumerate(self.parameters):
            self.noise_step = 1
            first = noise.normal(p.numel(), self._counter(index))
            self.memory[index] = first.view_as(p)
            if self.config.stationary:
                self.noise_step = 0
                z = noise.normal(p.numel(), self._counter(index))
                self._displace(index, lr**0.5 / 2 * first + (1 / pull - lr / 4) ** 0.5 * z)
        self.noise_step = 2

    @torch.no_grad()
    def _displace(self, index: int, change: torch.Tensor) -> None:
        """Sets a parameter to w* plus a change, within the mask and the box."""
        p, mask = self.parameters[index], self.masks[index]
        change = change.clamp(-self.box, self.box) * (1.0 if mask is None else mask.reshape(-1))
        origin = dense(self.anchor[index]).reshape(-1).to(compute_dtype(p.dtype))
        store(p.data, origin + change, self._counter(index))

    def coefficients(self) -> tuple[float, ...]:
        """Returns ε·nβ/2, ε·γ/2, ε·μ/2 and √ε/2."""
        *rest, spread = super().coefficients()
        return *rest, spread / 2

    @staticmethod
    @equation
    def update(w, gradient, anchor, noise, memory, coefficients):
        """Returns the change of a weight in one step; `memory` is the last step's noise."""
        force, pull, decay, spread = coefficients
        return spread * (memory + noise) - (force * gradient + pull * (w - anchor) + decay * w)
