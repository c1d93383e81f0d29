"""Checks the limits by which chains and estimates are diagnosed."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from replicate.pipeline.config.values import Share, Strict


class Regimes(Strict):
    """The limits of the rules that say what λ̂ measures (see `replicate.estimation.regimes.Limits`).

    Attributes:
        equilibrium: the temperature of chains in equilibrium differs from 1 by at most this.
        gradient: the gradient at w* makes at most this share of λ̂ at a minimum.
        localised: the posterior is the localisation where the elasticity in nβ is at least this.
        quadratic: the loss is quadratic where E[V]/λ̂ differs from 2 by at most this.
        curvature: λ̂ is ½·nβ·tr(H)/γ where it differs from it by at most this share.
        plateau: on a plateau both elasticities have at most this size.
    """

    equilibrium: Share
    gradient: Share
    localised: Share
    quadratic: Share
    curvature: Share
    plateau: Share


class Diagnostics(Strict):
    """The limits of the diagnostics of chains.

    Attributes:
        rhat: chains are healthy only if split R-hat is below this.
        drift: chains are healthy only if the p value of the drift test is not below this.
        local: chains are local only if their loss is above the baseline by at most this share of
            the rise from the baseline to the loss of guessing all tokens alike.
        regimes: the limits of the rules that say what λ̂ measures.
    """

    rhat: Annotated[float, Field(gt=1, allow_inf_nan=False)]
    drift: Share
    local: Share
    regimes: Regimes

    @property
    def healthy(self) -> dict[str, Any]:
        """The limits of healthy and of local chains."""
        return self.model_dump(exclude={"regimes"})
