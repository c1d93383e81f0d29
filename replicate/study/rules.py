"""The rules by which claims are judged. They are fixed before the data are seen."""

from __future__ import annotations

from dataclasses import dataclass


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
