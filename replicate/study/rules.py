"""The rules by which claims are judged. They are fixed before the data are seen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """Levels, margins and limits of the tests.

    Attributes:
        level: significance level of every test; every interval has confidence 1 − `level`.
        bootstrap: number of bootstrap resamples.
        descent: the most (nats) that steps without noise may lower the loss at a local minimum.
        negligible: the greatest relative change of λ̂ that counts as no change.
        stable: the greatest coefficient of variation over shuffles that counts as stable.
        rhat: healthy chains have an R-hat below this limit.
        drift: healthy chains have a p value of the drift test of at least this limit.
        local: the loss of local chains rises by at most this share of the rise from w* to guessing.
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
    seed: int
