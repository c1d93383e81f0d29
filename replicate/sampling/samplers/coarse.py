"""SGLD whose step ε has the noise of two steps ε/2, for a comparison with them.

    w ← w − (ε/2)·[nβ·∇L_B(w) + γ·(w − w*)] + √(ε/2)·(ξ₂ₖ + ξ₂ₖ₊₁)

ξⱼ is the noise of the j-th step of a chain of SGLD with the same seed.
"""

from __future__ import annotations

from replicate.sampling.samplers.sgld import SGLD


class Coarse(SGLD):
    """Moves weights twice in a step: by the force and one noise, and then by the other noise."""

    def begin(self) -> None:
        """Begins with the first noise."""
        self.second = False

    def move(self, index: int) -> None:
        """Moves a parameter by its gradient and by both noises, and frees the gradient."""
        gradient, first = self.parameters[index].grad, self.noise_step
        super().move(index)
        self.parameters[index].grad, self.second = gradient, True
        self.noise_step = first + 1
        super().move(index)
        self.noise_step, self.second = first, False

    def step(self) -> None:
        """Ends a step, which used the noise of two."""
        self.noise_step += 2

    def coefficients(self) -> tuple[float, ...]:
        """Returns those of SGLD with the noise of ε/2, and no force with the second noise."""
        *forces, spread = super().coefficients()
        return *(0.0 if self.second else force for force in forces), spread / 2**0.5
