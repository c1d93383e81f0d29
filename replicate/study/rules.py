"""The rules by which claims are judged. They are fixed before a study is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Point:
    """A setting of the chains: the loss, nβ and γ."""

    loss: Literal["tokens", "last"]
    nbeta: float
    localization: float


@dataclass(frozen=True)
class TrainingRules:
    """Margins and limits of the claims that are judged on trainings.

    Attributes:
        setting: where sizes are compared (C1, C2, C9, C11, R5), and where the exponent of λ̂ ∝ dᵃ
            is told.
        finer: the setting with the same γ/nβ at a greater nβ, which R4 compares it with.
        monte_carlo: the greatest Monte-Carlo standard error of ln λ̂ of a training that is judged.
        curvature: R1: λ̂ may differ by this share from ½·nβ·tr(H)/γ.
        quadratic: R1: E[V]/λ̂ may differ by this from 2.
        invariant: R2: the greatest |ln λ̂(rescaled)/λ̂| that counts as no change.
        pairs: R2: the number of models that a verdict needs.
        order: R3: the share of resamples that must have one order of the sizes.
        settings: R3: the number of settings with one γ for all sizes that *supported* needs.
        apart: R5: the probability with which one training of each must tell two sizes apart.
    """

    setting: Point
    finer: Point
    monte_carlo: float
    curvature: float
    quadratic: float
    invariant: float
    pairs: int
    order: float
    settings: int
    apart: float


@dataclass(frozen=True)
class Rules:
    """Levels, margins and limits of the tests.

    Attributes:
        level: significance level of every test; every interval has confidence 1 − `level`.
        bootstrap: number of bootstrap resamples.
        descent: the most (nats) by which noise-free steps may lower the loss at a minimum.
        negligible: the greatest relative change of λ̂ that counts as no change.
        stable: the greatest coefficient of variation over shuffles that counts as stable.
        rhat: chains are healthy only if R-hat is below this limit.
        drift: chains are healthy only if the p value of the drift test is at least this limit.
        local: chains are local only if their loss rises by at most this share of the rise from the
            loss at w* to the loss of guessing all tokens alike.
        trainings: rules of the claims that are judged on trainings.
        seed: seed of the bootstraps.
    """

    level: float
    bootstrap: int
    descent: float
    negligible: float
    stable: float
    rhat: float
    drift: float
    local: float
    trainings: TrainingRules
    seed: int
