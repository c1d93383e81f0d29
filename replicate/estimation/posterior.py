"""Measures the localised posterior from a trace: elasticities of λ̂, degree and temperature.

Let Δ = w − w*, U = nβ·(L(w) − L(w*)), so that λ̂ = E[U], and V = nβ·Δ·∇L(w), the virial. For any
loss, integration by parts over the localised posterior gives

    d = E[V] + γ·E‖Δ‖²                                  the virial theorem
    ∂ln λ̂/∂ln nβ = 1 − Var(U)/λ̂
    ∂ln λ̂/∂ln γ  = −½·(E[V] − Cov(U, V))/λ̂              by dilation w* + (1 + s)·Δ

`Var` and `Cov` are computed from the halves of minibatches, so that the minibatch's noise adds no
bias. Halves of b₁ and b₂ examples, drawn from N without replacement, are not independent: their
means have the covariance −σ²/(N − 1), and the square of their difference has the mean
σ²·N/(N − 1)·(1/b₁ + 1/b₂). So U₁·V₂ + (U₁ − U₂)·(V₁ − V₂)/[N·(1/b₁ + 1/b₂)] has no bias; for all
examples in one minibatch it is U·V.

Standard errors come from the jackknife over blocks of the chains, each at least ten autocorrelation
times long.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from replicate.estimation import diagnostics, estimators

Array = NDArray[np.float64]


class Measured(NamedTuple):
    """Holds a number and its standard error; NaN where unknown."""

    value: float
    error: float = 0.0

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.error:.2f}"


UNKNOWN = Measured(math.nan, math.nan)


@dataclass(frozen=True)
class Posterior:
    """Holds what the chains of one setting tell about the posterior.

    Attributes:
        llc: λ̂ = E[U].
        variance: Var(U), which equals λ̂ on a plateau and needs no baseline.
        elasticity_nbeta: ∂ln λ̂/∂ln nβ.
        elasticity_gamma: ∂ln λ̂/∂ln γ, by dilation.
        degree: E[V]/λ̂, the degree with which the loss grows along Δ; 2 for a quadratic.
        temperature: (E[V] + γ·E‖Δ‖²)/d, which is 1 in equilibrium with a small step.
        blocks: the number of blocks of draws.
    """

    llc: Measured
    variance: Measured
    elasticity_nbeta: Measured
    elasticity_gamma: Measured
    degree: Measured
    temperature: Measured
    blocks: int


def measure(trace: xr.Dataset, baseline: float) -> Posterior:
    """Measures the posterior.

    Args:
        trace: what `sampling.sample` returned, with `sampler`, `sampling` and `task` as attributes.
        baseline: the mean loss at w* over all examples (nats).

    Returns:
        The measures; NaN where the trace does not have what they need.
    """
    nbeta = trace.attrs["sampling"]["nbeta"]
    values = estimators.controlled(trace, nbeta, baseline)
    blocks_KxF = _blocks(trace, values, nbeta)

    def of(function: Callable[[Array], float]) -> Measured:
        return _jackknife(blocks_KxF, function)

    def variance(m: Array) -> float:
        return m[6] - m[2] * m[3]

    def covariance(m: Array) -> float:
        return m[7] - (m[2] * m[5] + m[3] * m[4]) / 2

    return Posterior(
        llc=of(lambda m: m[0]),
        variance=of(variance),
        elasticity_nbeta=of(lambda m: 1 - variance(m) / m[0]),
        elasticity_gamma=of(lambda m: -(m[1] - covariance(m)) / m[0] / 2),
        degree=of(lambda m: m[1] / m[0]),
        temperature=temperature(
            trace, trace.attrs["sampler"]["localization"], trace.attrs["task"]["sampled_parameters"]
        ),
        blocks=len(blocks_KxF),
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


def overlap(trace: xr.Dataset) -> float:
    """Returns 1/[N·(1/b₁ + 1/b₂)] for halves of b₁ and b₂ of N examples; 0 if N is not known."""
    size, N = trace.attrs["sampling"].get("batch_size", 0), trace.attrs["task"].get("examples")
    first = size // 2
    return first * (size - first) / (size * N) if first and N else 0.0


def alive(values: xr.DataArray) -> Array:
    draws_CxD = values.values.reshape(-1, values.sizes["draw"])
    return draws_CxD[np.isfinite(draws_CxD).all(axis=1)]


def _blocks(trace: xr.Dataset, values: xr.DataArray, nbeta: float) -> Array:
    """Returns the means (K, 8) over K blocks of draws of U, V, U₁, U₂, V₁, V₂, and of
    U² and U·V without the minibatch's noise, where 1 and 2 are the halves of a minibatch.
    """
    draws = trace.where(~trace.diverged).sel(draw=slice(0, None))
    halves = nbeta * (draws.half_loss - draws.half_init_loss)
    u1, u2 = (halves.isel(half=i) for i in (0, 1))
    v1, v2 = (draws.half_virial.isel(half=i) for i in (0, 1))
    share = overlap(trace)
    squared = u1 * u2 + share * (u1 - u2) ** 2
    mixed = (u1 * v2 + u2 * v1) / 2 + share * (u1 - u2) * (v1 - v2)
    each = [values, draws.virial, u1, u2, v1, v2, squared, mixed]
    kept = alive(values)
    time = kept.size / max(diagnostics.ess(kept), 1.0) if kept.size else math.nan
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
    effective = diagnostics.ess(alive(draws.squared_distance))
    if not effective > 0:
        return UNKNOWN
    return Measured(float(total.mean() / size), math.sqrt(2 / (size * effective)))
