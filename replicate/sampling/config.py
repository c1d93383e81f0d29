"""Configures a sampler's step (`SamplerConfig`) and the chains (`SamplingConfig`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SAMPLERS = {
    "sgld": "SGLD",
    "sgnht": "SGNHT",
    "rmsprop": "RMSpropSGLD",
    "leimkuhler": "LeimkuhlerMatthews",
}
"""Maps each sampler's name, which is a module of `replicate.sampling.samplers`, to the name of its
class."""

Implementation = Literal["replicate", "devinterp"]


@dataclass(frozen=True)
class SamplerConfig:
    """Holds the hyperparameters of a sampler, which uses `lr` and those in its class's `knobs`.

    Attributes:
        sampler: the sampler's name in `SAMPLERS`.
        lr: the step size ε.
        weight_decay: μ, the pull towards 0.
        localization: γ, the pull towards w*.
        bounding_box: the largest |w − w*| of a weight; None for no box.
        diffusion: A, which sets the noise and the initial friction of SGNHT; None for other
            samplers.
        noise_diffusion: the A of SGNHT's noise, if it differs from `diffusion`. In the protocol of
            2023 it was always 0.01, whatever `diffusion` was.
        noise_level: σ, which scales the noise of SGLD and RMSprop; 1 samples the posterior.
        stationary: whether a chain of Leimkuhler–Matthews starts with a draw from N(w*, 1/γ), and
            not at w*.
    """

    sampler: str
    lr: float
    weight_decay: float = 0.0
    localization: float = 0.0
    bounding_box: float | None = None
    diffusion: float | None = None
    noise_diffusion: float | None = None
    noise_level: float = 1.0
    stationary: bool = False


@dataclass(frozen=True)
class SamplingConfig:
    """Sets the number and length of chains: shuffles × chains, each of burn_in + draws steps.

    Attributes:
        nbeta: nβ, the inverse temperature times the number of examples.
        batch_size: the number of examples in a step's minibatch.
        shuffles: the number of random orders of the examples.
        chains: the number of chains in each shuffle.
        burn_in: the number of steps before the first draw.
        draws: the number of steps after the burn-in, which estimates use.
        restart: whether every chain starts at w*. If not, each chain of a shuffle starts where the
            chain before it ended and is anchored there, as for the quantised models of 2023.
        implementation: the package whose SGLD and SGNHT are used.
        microbatch_size: the number of examples in one backward pass; None for the whole minibatch.
            A smaller one gives the same mean with less memory for each pass, but all gradients stay
            in memory until the last pass.
    """

    nbeta: float
    batch_size: int
    shuffles: int
    chains: int
    burn_in: int
    draws: int
    restart: bool = True
    implementation: Implementation = "replicate"
    microbatch_size: int | None = None

    @property
    def steps(self) -> int:
        """The number of steps of one chain."""
        return self.burn_in + self.draws

    def pieces(self) -> list[list[tuple[int, int]]]:
        """Returns the chains, as (shuffle, chain), split into pieces that can run independently.

        With `restart` a piece is one chain, otherwise it is all chains of a shuffle.
        """
        shuffles = [[(s, c) for c in range(self.chains)] for s in range(self.shuffles)]
        return [[key] for keys in shuffles for key in keys] if self.restart else shuffles
