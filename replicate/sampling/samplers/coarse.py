"""Leimkuhler–Matthews whose step ε has the noise of two steps ε/2, for a comparison with them.

    w ← w − (ε/2)·[nβ·∇L_B(w) + γ·(w − w*)] + √(ε/2)·(ξ₂ₖ₋₂ + ξ₂ₖ₋₁ + ξ₂ₖ + ξ₂ₖ₊₁)/2

ξⱼ is the noise of the j-th step of a chain with the step ε/2 and the same seed.
"""

from __future__ import annotations

from replicate.sampling.samplers.leimkuhler import LeimkuhlerMatthews


class Coarse(LeimkuhlerMatthews):
    """Moves weights twice in a step: by the force and three noises, and then by the fourth. Its
    memory is the sum of the last two noises.
    """

    @property
    def steady(self) -> bool:
        """Never: the host counts the noises of a step."""
        return False

    def begin(self) -> None:
        """Draws the first sum of two noises."""
        self.second = False
        super().begin()
        for index, first in enumerate(self.memory):
            assert first is not None
            self.memory[index] = first * 2**0.5

    def move(self, index: int) -> None:
        """Moves a parameter by its gradient and by the noises, and frees the gradient."""
        gradient, number, memory = self.parameters[index].grad, self.noise_step, self.memory[index]
        assert memory is not None
        super().move(index)
        first = memory.clone()
        memory.zero_()
        self.parameters[index].grad, self.second, self.noise_step = gradient, True, number + 1
        super().move(index)
        memory += first
        self.noise_step, self.second = number, False

    def step(self) -> None:
        """Ends a step, which used the noise of two."""
        self.noise_step += 2

    def coefficients(self) -> tuple[float, ...]:
        """Returns those of Leimkuhler–Matthews with the noise of ε/2, and no force with the second
        noise.
        """
        *forces, spread = super().coefficients()
        return *(0.0 if self.second else force for force in forces), spread / 2**0.5
