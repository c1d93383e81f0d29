"""Says what λ̂ measures at its settings: the regime of the posterior, from the chain itself.

The virial theorem checks temperature and equilibrium. The two elasticities say whether λ̂ is a
property of the loss alone (both are 0, as Watanabe's free energy formula asks) or of the
localisation. `replicate.estimation.posterior` measures them.

A rule is *yes* or *no* where the 90 % interval lies on one side of its limit, otherwise
*undecided*.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import xarray as xr
from scipy import stats

from replicate.estimation import diagnostics, estimators, posterior
from replicate.estimation.posterior import UNKNOWN, Measured

Answer = Literal["yes", "no", "undecided"]

REGIMES = {
    "not in equilibrium": "the chains are not in equilibrium, so that λ̂ is that of no posterior",
    "escaped": "the chains have left the neighbourhood of w*",
    "gradient": "w* is no minimum of this loss: its gradient makes a part of λ̂",
    "curvature": "λ̂ is the curvature ½·nβ·tr(H)/γ: the posterior is the localisation",
    "localised, anharmonic": "λ̂ is the mean rise of the loss in the Gaussian ball of the"
    " localisation, where the loss is not quadratic",
    "plateau": "λ̂ depends neither on γ nor on nβ here, as a learning coefficient",
    "crossover": "λ̂ is an effective dimension at the resolution α = γ/nβ: its curve over α is the"
    " result",
}
"""Maps each regime to what λ̂ is there, in the order in which the rules are applied."""


@dataclass(frozen=True)
class Limits:
    """Sets the limits of the rules.

    Attributes:
        equilibrium: the largest |(E[V] + γ·E‖Δ‖²)/d − 1| of a chain in equilibrium, beside what its
            length allows.
        drift: the smallest p value of the drift test of a chain in equilibrium.
        local: the largest rise of the loss of a local chain, as a share of the rise to guessing.
        gradient: the largest share of the gradient part in |λ̂| at a minimum.
        localised: the smallest elasticity in nβ where the posterior is the localisation.
        quadratic: the largest |E[V]/λ̂ − 2| of a quadratic loss.
        curvature: the largest relative difference of λ̂ from ½·nβ·tr(H)/γ.
        plateau: the largest size of both elasticities on a plateau.
    """

    equilibrium: float = 0.02
    drift: float = 0.01
    local: float = 0.25
    gradient: float = 0.1
    localised: float = 0.9
    quadratic: float = 0.2
    curvature: float = 0.1
    plateau: float = 0.1


@dataclass(frozen=True)
class AtMinimum:
    """Holds what is known of the loss at w*, each NaN where it is not.

    Attributes:
        trace: tr(H) of the sampled loss (nats).
        harmonic: ½·tr[H(H + α)⁻¹], λ̂ of the quadratic loss without a gradient.
        gradient: ‖∇L(w*)‖², without bias (nats²).
        gradient_part: what the gradient adds to λ̂ of the quadratic loss.
    """

    trace: Measured = UNKNOWN
    harmonic: Measured = UNKNOWN
    gradient: Measured = UNKNOWN
    gradient_part: Measured = UNKNOWN


@dataclass(frozen=True)
class Diagnosis:
    """Holds what the chains of one setting tell about the posterior.

    Attributes:
        regime: a key of `REGIMES`, or *undecided*.
        possible: the regimes that the rules do not exclude; one if it is decided.
        temperature: (E[V] + γ·E‖Δ‖²)/d, which is 1 in equilibrium with a small step.
        elasticity_nbeta: ∂ln λ̂/∂ln nβ.
        elasticity_gamma: ∂ln λ̂/∂ln γ.
        degree: E[V]/λ̂.
        rise: the rise of the loss, as a share of the rise to guessing.
        gradient_part: the part of λ̂ that the gradient at w* makes, or the largest that it can.
        answers: the answer of each rule.
    """

    regime: str
    possible: tuple[str, ...]
    temperature: Measured
    elasticity_nbeta: Measured
    elasticity_gamma: Measured
    degree: Measured
    rise: float
    gradient_part: Measured
    answers: Mapping[str, Answer] = field(repr=False)

    def __str__(self) -> str:
        if self.regime in REGIMES:
            return f"{self.regime}: {REGIMES[self.regime]}"
        return f"undecided ({' or '.join(map(repr, self.possible))}): draw more"


def diagnose(
    trace: xr.Dataset,
    *,
    baseline: float,
    guess: float = math.nan,
    minimum: AtMinimum | None = None,
    pair: Measured | None = None,
    limits: Limits | None = None,
) -> Diagnosis:
    """Diagnoses chains from their trace.

    Args:
        trace: what `sampling.sample` returned, with `sampler`, `sampling` and `task` as attributes.
        baseline: the mean loss at w* over all examples (nats).
        guess: the loss of guessing (nats), NaN if unknown; then no chain counts as escaped.
        minimum: what is known of the loss at w*.
        pair: the elasticity in γ by `coupled`, which replaces that by dilation.
        limits: the limits of the rules.
    """
    limits, minimum = limits or Limits(), minimum or AtMinimum()
    nbeta, gamma = (
        trace.attrs[b][k] for b, k in (("sampling", "nbeta"), ("sampler", "localization"))
    )
    found = posterior.measure(trace, baseline)
    llc, elasticity_gamma = found.llc, found.elasticity_gamma if pair is None else pair
    rise = llc.value / nbeta / (guess - baseline)
    gradient_part = minimum.gradient_part
    if not math.isfinite(gradient_part.value) and gamma > 0:
        square, error = minimum.gradient
        gradient_part = Measured(-(nbeta**2) * max(square, 0) / gamma, nbeta**2 * error / gamma)
    freedom = found.blocks - 1
    paired = freedom if pair is None else trace.shuffle.size * trace.chain.size - 1

    def within(measured: Measured, low: float, high: float) -> Answer:
        return _within(measured, low, high, freedom)

    curvature = nbeta * minimum.trace.value / (2 * gamma) if gamma > 0 else math.nan
    ratio = Measured(llc.value / curvature, llc.error / curvature) if curvature > 0 else UNKNOWN
    localised = within(found.elasticity_nbeta, limits.localised, math.inf)
    draws_CxD = posterior.alive(estimators.controlled(trace, nbeta, baseline))
    p = diagnostics.drift(draws_CxD)[1]
    answers: dict[str, Answer] = {
        "not in equilibrium": "yes"
        if p < limits.drift
        else _equilibrium(found.temperature, limits),
        "escaped": "yes" if rise > limits.local else "no",
        "gradient": _gradient(llc, gradient_part, minimum, limits, freedom),
        "curvature": _all(
            localised,
            within(found.degree, 2 - limits.quadratic, 2 + limits.quadratic),
            within(ratio, 1 - limits.curvature, 1 + limits.curvature),
        ),
        "localised, anharmonic": _all(
            localised, within(found.degree, 2 + limits.quadratic, math.inf)
        ),
        "plateau": _all(
            _within(elasticity_gamma, -limits.plateau, limits.plateau, paired),
            within(found.elasticity_nbeta, -limits.plateau, limits.plateau),
        ),
    }
    possible = tuple(_possible(answers))
    return Diagnosis(
        possible[0] if len(possible) == 1 else "undecided",
        possible,
        found.temperature,
        found.elasticity_nbeta,
        elasticity_gamma,
        found.degree,
        rise,
        gradient_part,
        answers,
    )


def _equilibrium(temperature: Measured, limits: Limits) -> Answer:
    """Answers whether the temperature tells that the chains are not in equilibrium."""
    if not math.isfinite(temperature.value):
        return "undecided"
    tolerance = max(3 * temperature.error, limits.equilibrium)
    return "yes" if abs(temperature.value - 1) > tolerance else "no"


def _gradient(
    llc: Measured, part: Measured, minimum: AtMinimum, limits: Limits, freedom: int
) -> Answer:
    """Answers whether the gradient makes more than its share of λ̂."""
    quantile = _quantile(freedom)
    if llc.value + quantile * llc.error < 0:
        return "yes"
    if not math.isfinite(part.value):
        return "undecided"
    most, share = abs(part.value) + quantile * part.error, limits.gradient * abs(llc.value)
    if most <= share:
        return "no"
    known = math.isfinite(minimum.gradient_part.value)
    return "yes" if known and abs(part.value) - quantile * part.error > share else "undecided"


def _within(measured: Measured, low: float, high: float, freedom: int) -> Answer:
    half = _quantile(freedom) * measured.error
    if not math.isfinite(measured.value + half):
        return "undecided"
    if low <= measured.value - half and measured.value + half <= high:
        return "yes"
    outside = measured.value + half < low or measured.value - half > high
    return "no" if outside else "undecided"


def _quantile(freedom: int) -> float:
    return float(stats.t.ppf(0.95, max(freedom, 1)))


def _all(*answers: Answer) -> Answer:
    if "no" in answers:
        return "no"
    return "undecided" if "undecided" in answers else "yes"


def _possible(answers: Mapping[str, Answer]) -> list[str]:
    found = []
    for regime, answer in answers.items():
        if answer != "no":
            found.append(regime)
        if answer == "yes":
            return found
    return [*found, "crossover"]
