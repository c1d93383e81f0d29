"""Says what λ̂ measures at its settings: the regime of the posterior, from the chain itself.

Let Δ = w − w*, U = nβ·(L(w) − L(w*)), so that λ̂ = E[U], and V = nβ·Δ·∇L(w), the virial. For any
loss, integration by parts over the localised posterior gives

    d = E[V] + γ·E‖Δ‖²                                  the virial theorem
    ∂ln λ̂/∂ln nβ = 1 − Var(U)/λ̂
    ∂ln λ̂/∂ln γ  = −½·(E[V] − Cov(U, V))/λ̂              by dilation w* + (1 + s)·Δ

The first checks temperature and equilibrium. The two elasticities say whether λ̂ is a property of
the loss alone (both are 0, as Watanabe's free energy formula asks) or of the localisation. E[V]/λ̂
is the degree with which the loss grows along Δ: 2 for a quadratic. `Var` and `Cov` are computed
from the halves of minibatches, so that the minibatch's noise adds no bias.

Standard errors come from the jackknife over blocks of the chains, each at least ten autocorrelation
times long. A rule is *yes* or *no* where the 90 % interval lies on one side of its limit, otherwise
*undecided*.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import stats

from replicate.estimation import diagnostics, estimators

Answer = Literal["yes", "no", "undecided"]
Array = NDArray[np.float64]

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


class Measured(NamedTuple):
    """Holds a number and its standard error; NaN where unknown."""

    value: float
    error: float = 0.0

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.error:.2f}"


UNKNOWN = Measured(math.nan, math.nan)


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
        return f"undecided between {', '.join(self.possible)}: draw more"


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
    sampler, nbeta = trace.attrs["sampler"], trace.attrs["sampling"]["nbeta"]
    gamma, size = sampler["localization"], trace.attrs["task"]["sampled_parameters"]
    values = estimators.controlled(trace, nbeta, baseline)
    draws_CxD = _chains(values)
    blocks_KxF = _blocks(trace, values, nbeta)
    llc = _jackknife(blocks_KxF, lambda m: m[0])
    elasticity_nbeta = _jackknife(blocks_KxF, lambda m: 1 - (m[6] - m[2] * m[3]) / m[0])
    covariance: Callable[[Array], float] = lambda m: m[7] - (m[2] * m[5] + m[3] * m[4]) / 2  # noqa: E731
    dilation = _jackknife(blocks_KxF, lambda m: -(m[1] - covariance(m)) / m[0] / 2)
    degree = _jackknife(blocks_KxF, lambda m: m[1] / m[0])
    elasticity_gamma = dilation if pair is None else pair
    heat = temperature(trace, gamma, size)
    rise = float((values.mean() / nbeta) / (guess - baseline))
    gradient_part = minimum.gradient_part
    if not math.isfinite(gradient_part.value) and gamma > 0:
        square, error = minimum.gradient
        gradient_part = Measured(-(nbeta**2) * max(square, 0) / gamma, nbeta**2 * error / gamma)
    freedom = len(blocks_KxF) - 1
    within = lambda measured, low, high: _within(measured, low, high, freedom)  # noqa: E731
    curvature = nbeta * minimum.trace.value / (2 * gamma) if gamma > 0 else math.nan
    ratio = Measured(llc.value / curvature, llc.error / curvature) if curvature > 0 else UNKNOWN
    localised = within(elasticity_nbeta, limits.localised, math.inf)
    p = diagnostics.drift(draws_CxD)[1]
    answers: dict[str, Answer] = {
        "not in equilibrium": "yes" if p < limits.drift else _equilibrium(heat, limits),
        "escaped": "yes" if rise > limits.local else "no",
        "gradient": _gradient(llc, gradient_part, minimum, limits, freedom),
        "curvature": _all(
            localised,
            within(degree, 2 - limits.quadratic, 2 + limits.quadratic),
            within(ratio, 1 - limits.curvature, 1 + limits.curvature),
        ),
        "localised, anharmonic": _all(localised, within(degree, 2 + limits.quadratic, math.inf)),
        "plateau": _all(
            within(elasticity_gamma, -limits.plateau, limits.plateau),
            within(elasticity_nbeta, -limits.plateau, limits.plateau),
        ),
    }
    possible = tuple(_possible(answers))
    return Diagnosis(
        possible[0] if len(possible) == 1 else "undecided",
        possible,
        heat,
        elasticity_nbeta,
        elasticity_gamma,
        degree,
        rise,
        gradient_part,
        answers,
    )


def coupled(trace: xr.Dataset, neighbour: xr.Dataset, baseline: float) -> Measured:
    """Returns ∂ln λ̂/∂ln γ from chains at two γ on common minibatches and noise.

    The common randomness cancels, so the error is far below that of `elasticity_gamma` by dilation.

    Args:
        trace: the chains at γ.
        neighbour: the same chains at another γ, 1.25·γ say.
        baseline: the mean loss at w* over all examples (nats).

    Returns:
        The elasticity and its standard error over chains; NaN if a λ̂ is not positive.
    """
    gammas = [each.attrs["sampler"]["localization"] for each in (trace, neighbour)]
    both = [
        estimators.controlled(each, each.attrs["sampling"]["nbeta"], baseline, c=1.0)
        .mean("draw")
        .values.ravel()
        for each in (trace, neighbour)
    ]
    chains_NxF = np.stack(both, axis=1)
    chains_NxF = chains_NxF[np.isfinite(chains_NxF).all(axis=1)]
    if not len(chains_NxF) or (chains_NxF.mean(axis=0) <= 0).any():
        return UNKNOWN
    return _jackknife(chains_NxF, lambda m: math.log(m[1] / m[0]) / math.log(gammas[1] / gammas[0]))


def _chains(values: xr.DataArray) -> Array:
    draws_CxD = values.values.reshape(-1, values.sizes["draw"])
    return draws_CxD[np.isfinite(draws_CxD).all(axis=1)]


def _blocks(trace: xr.Dataset, values: xr.DataArray, nbeta: float) -> Array:
    """Returns the means (K, 8) over K blocks of draws of U, V, U₁, U₂, V₁, V₂, U₁·U₂ and of the
    mean of U₁·V₂ and U₂·V₁, where 1 and 2 are the halves of a minibatch.
    """
    draws = trace.where(~trace.diverged).sel(draw=slice(0, None))
    halves = nbeta * (draws.half_loss - draws.half_init_loss)
    u1, u2 = (halves.isel(half=i) for i in (0, 1))
    v1, v2 = (draws.half_virial.isel(half=i) for i in (0, 1))
    each = [values, draws.virial, u1, u2, v1, v2, u1 * u2, (u1 * v2 + u2 * v1) / 2]
    alive = _chains(values)
    time = alive.size / max(diagnostics.ess(alive), 1.0) if alive.size else math.nan
    length = values.sizes["draw"]
    count = int(np.clip(length / (10 * time), 1, 20)) if math.isfinite(time) else 1
    found = []
    for part in np.array_split(np.arange(length), count):
        means = [one.isel(draw=part).mean("draw").values.ravel() for one in each]
        found.append(np.stack(means, axis=1))
    blocks_KxF = np.concatenate(found)
    return blocks_KxF[np.isfinite(blocks_KxF[:, 0])]


def _jackknife(blocks_KxF: Array, function: Callable[[Array], float]) -> Measured:
    """Returns a function of the means and its standard error."""
    K = len(blocks_KxF)
    if K < 2:
        return UNKNOWN
    mean_F = blocks_KxF.mean(axis=0)
    without = [function((K * mean_F - each_F) / (K - 1)) for each_F in blocks_KxF]
    error = math.sqrt((K - 1) * np.var(without))
    return Measured(float(function(mean_F)), error)


def temperature(trace: xr.Dataset, gamma: float, size: int) -> Measured:
    """Returns (E[V] + γ·E‖Δ‖²)/d and √(2/(d·n_eff)); NaN where the posterior is another."""
    config = trace.attrs["sampler"]
    if config["bounding_box"] or config["weight_decay"] or config["noise_level"] != 1:
        return UNKNOWN
    draws = trace.where(~trace.diverged).sel(draw=slice(0, None))
    total = draws.virial + gamma * draws.squared_distance
    effective = diagnostics.ess(_chains(draws.squared_distance))
    if not effective > 0:
        return UNKNOWN
    return Measured(float(total.mean() / size), math.sqrt(2 / (size * effective)))


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
