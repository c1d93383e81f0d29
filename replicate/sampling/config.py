"""What a sampler does at each step, and how many chains and steps there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SAMPLERS = {"sgld": "SGLD", "sgnht": "SGNHT", "rmsprop": "RMSpropSGLD"}
"""The samplers: the module in `replicate.sampling.samplers`, and its class."""

Implementation = Literal["replicate", "devinterp"]


@dataclass(frozen=True)
class SamplerConfig:
    """The knobs of a sampler. Each sampler's module says which of them its equation has.

    Attributes:
        sampler: its name in `SAMPLERS`.
        lr: the step size ε.
        weight_decay: μ, the pull towards 0.
        localization: γ, the pull towards w*.
        bounding_box: the largest |w − w*| of a weight; None for no box.
        diffusion: A, the noise and initial friction of SGNHT; None for the others.
        noise_diffusion: the A of SGNHT's noise alone, where it differs from `diffusion`. The
            protocol of 2023 had 0.01 there, whatever its `diffusion`.
        noise_level: σ, the noise of SGLD and RMSprop in units of a posterior's.
    """

    sampler: str
    lr: float
    weight_decay: float = 0.0
    localization: float = 0.0
    bounding_box: float | None = None
    diffusion: float | None = None
    noise_diffusion: float | None = None
    noise_level: float = 1.0


@dataclass(frozen=True)
class SamplingConfig:
    """The chains: shuffles × chains, each of burn_in + draws steps.

    Attributes:
        nbeta: nβ, the inverse temperature times the number of examples.
        batch_size: examples in a step's minibatch.
        shuffles: reshufflings of the examples.
        chains: chains in each shuffle.
        burn_in: steps before the first draw.
        draws: steps that estimates use.
        restart: whether every chain starts at w*. If not, each chain of a shuffle starts where the
            chain before it ended and is anchored there, as in the quantised models of 2023.
        implementation: whose SGLD and SGNHT to use.
        microbatch_size: examples in one backward pass, None for the whole minibatch. Small ones
            need less memory for the same mean; all gradients are then held until the last one.
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
        """The steps of one chain."""
        return self.burn_in + self.draws

    def pieces(self) -> list[list[tuple[int, int]]]:
        """Lists the chains, as (shuffle, chain), in pieces that do not depend on each other."""
        shuffles = [[(s, c) for c in range(self.chains)] for s in range(self.shuffles)]
        return [[key] for keys in shuffles for key in keys] if self.restart else shuffles
