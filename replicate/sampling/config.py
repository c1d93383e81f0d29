"""The knobs of a sampler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Setting:
    """lr: step size ε. localization: γ, the pull towards w*. weight_decay: μ, the pull towards 0.
    bounding_box: the largest |w − w*| of a weight, None for no box. diffusion: A, SGNHT's noise and
    initial friction, None for the others. noise_diffusion: the A of SGNHT's noise alone where it is
    another one, as in the original study, which had 0.01 there whatever A. noise_level: σ, the
    noise of SGLD and RMSprop in units of a posterior's.
    """

    sampler: Literal["sgld", "sgnht", "rmsprop"]
    lr: float
    weight_decay: float = 0.0
    localization: float = 0.0
    bounding_box: float | None = None
    diffusion: float | None = None
    noise_diffusion: float | None = None
    noise_level: float = 1.0
