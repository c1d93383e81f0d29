"""Stochastic gradient Langevin dynamics (Welling & Teh 2011), localised at w* (Lau et al. 2023,
arXiv 2308.12108).

    w ← w − (ε/2)·[nβ·∇L_B(w) + γ·(w − w*) + μ·w] + σ·√ε·N(0, I)

    ε    lr             step size
    nβ   nbeta          inverse temperature times the number of examples
    L_B                 mean loss of a minibatch, nats per label
    γ    localization   pull towards w*
    μ    weight_decay   pull towards 0
    σ    noise_level    scale of the noise; 1 samples the posterior
"""

from __future__ import annotations

from replicate.sampling.samplers.base import Sampler
from replicate.sampling.samplers.equation import equation


class SGLD(Sampler):
    """Samples exp(−nβ·L(w) − (γ/2)·|w − w*|² − (μ/2)·|w|²), up to a bias that vanishes with ε."""

    knobs = ("localization", "weight_decay", "bounding_box", "noise_level")

    def coefficients(self) -> tuple[float, ...]:
        """Returns ε·nβ/2, ε·γ/2, ε·μ/2 and σ·√ε."""
        half, config = self.config.lr / 2, self.config
        return (
            half * self.nbeta,
            half * config.localization,
            half * config.weight_decay,
            config.noise_level * config.lr**0.5,
        )

    @staticmethod
    @equation
    def update(w, gradient, anchor, noise, memory, coefficients):
        """Returns the change of a weight in one step."""
        force, pull, decay, spread = coefficients
        return spread * noise - (force * gradient + pull * (w - anchor) + decay * w)
