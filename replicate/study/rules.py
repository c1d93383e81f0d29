"""The rules of the verdicts, fixed before the data are seen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """How claims are judged.

    Attributes:
        level: of every test; every interval has the level 1 − `level`.
        bootstrap: number of resamples.
        descent: by how much (nats) noise-free steps may lower the loss at a minimum.
        negligible: relative change of λ̂ that counts as none.
        stable: greatest coefficient of variation over shuffles that counts as stable.
        rhat: R-hat from which on chains are not healthy.
        drift: p value of the drift below which chains are not healthy.
        local: rise of the loss from which on chains are not local, as a share of that to guessing.
        seed: of the bootstraps.
    """

    level: float
    bootstrap: int
    descent: float
    negligible: float
    stable: float
    rhat: float
    drift: float
    local: float
    seed: int
